//! Files at other origins than the vendor's, from a server behind TLS.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

use super::{check, jobwatch, serve, storage::Reply};
use crate::{
    harness::*,
    program::{self, Program},
};

mod scene;

use scene::*;

#[tokio::test]
async fn file_at_an_allowed_origin_comes_without_credentials() {
    let scene = Scene::new("https://127.0.0.1:PORT").await;
    let program = scene.serve(r#"["https://127.0.0.1:PORT"]"#).await;
    let url = format!("{}/bulk/a%20b.csv?sig=s-hush&x=%2F", scene.storage.url());
    scene.names(&[("a.csv", &url)]);
    scene.storage.replies("/bulk/a%20b.csv?sig=s-hush&x=%2F", Reply::File(b"1,2\n".to_vec()));
    let status = get(&program.client(), &export()).await.unwrap();
    assert_eq!(status.artifacts[0].vendor_uri, format!("{}/bulk/a%20b.csv", scene.storage.url()));
    assert_eq!(scene.storage.connections(), 0, "nothing is requested for a status");

    let (info, data, end) = download_from(&program, "a.csv", 0, "").await;
    end.unwrap();
    assert_eq!(data, b"1,2\n");
    let info = info.unwrap();
    assert_eq!((&*info.content_type, &*info.file_name, info.size_bytes), ("text/csv", "a.csv", Some(4)));
    let heads = scene.storage.heads();
    let [head] = &heads[..] else { panic!("{heads:?}") };
    assert!(
        head.contains("accept-encoding: identity\r\n") && head.contains("user-agent: jobwatch/"),
        "{head}"
    );
    for hidden in ["authorization", "cookie", "x-tenant", "x-user", "b-hush", "t-hush", "c-hush", "me-hush"] {
        assert!(!head.contains(hidden), "{head}");
    }
    let asked = &scene.vendor.seen("GET /v1/exports/e-1")[0];
    assert_eq!((&*asked.headers["authorization"], &*asked.headers["x-tenant"]), ("Bearer b-hush", "t-hush"));
}

#[tokio::test]
async fn large_file_at_another_origin_is_resumed_in_the_same_version() {
    let scene = Scene::new("https://*").await;
    let program = scene.serve(r#"["https://127.0.0.1:PORT"]"#).await;
    let file: Vec<u8> = (0..8_u32 << 20).map(|n| n.to_le_bytes()[usize::from(n % 4 == 0)]).collect();
    scene.names(&[("a.csv", &format!("{}/a?sig=1", scene.storage.url()))]);
    scene.storage.replies("/a?sig=1", Reply::Broken(file.clone(), 5 << 20));
    let (info, first, end) = download_from(&program, "a.csv", 0, "").await;
    let version = info.unwrap().version;
    assert_eq!(decode_error(&end.unwrap_err()).reason, "BACKEND_UNAVAILABLE");
    assert!(!first.is_empty() && first.len() <= 5 << 20);

    // The signature is another one meanwhile.
    scene.names(&[("a.csv", &format!("{}/a?sig=2", scene.storage.url()))]);
    scene.storage.replies("/a?sig=2", Reply::File(file.clone()));
    let offset = i64::try_from(first.len()).unwrap();
    let (_, rest, end) = download_from(&program, "a.csv", offset, &version).await;
    end.unwrap();
    assert!([first, rest].concat() == file);
    let head = scene.storage.heads().pop().unwrap();
    assert!(head.contains(&format!("range: bytes={offset}-\r\n")), "{head}");
    assert!(head.contains("if-range: \"v1\"\r\n"), "{head}");
}

#[tokio::test]
async fn url_that_is_signed_anew_in_each_answer_causes_no_event_and_is_asked_for_anew() {
    let scene = Scene::new("https://*").await;
    let program = scene.serve(r#"["https://127.0.0.1:PORT"]"#).await;
    let url = |sig: u32| format!("{}/a?sig={sig}-hush", scene.storage.url());
    let names = |sig| scene.names(&[("a.csv", &url(sig))]);
    names(1);
    let first = get(&program.client(), &export()).await.unwrap();
    names(2);
    let full = get_status(&program.client(), full(&export())).await.unwrap();
    assert_eq!(first.artifacts, full.artifacts);
    // A status of the terminal-status cache does not have it: the file of now does.
    names(3);
    scene.storage.replies("/a?sig=3-hush", Reply::File(b"three".to_vec()));
    assert_eq!(download(&program, "a.csv").await.unwrap(), b"three");
    assert_eq!(scene.storage.heads().len(), 1);

    // Storage that refuses the URL is no fault of the vendor.
    for status in [400, 401, 403] {
        scene.storage.replies("/a?sig=3-hush", Reply::Head(status, String::new()));
        let (reason, detail, message) = refused(&program, "a.csv").await;
        assert_eq!((&*reason, &*detail), ("ARTIFACT_NOT_FOUND", "expired"), "{message}");
        let origin = scene.storage.url();
        assert_eq!(
            message,
            format!(
                "{origin} refuses the download (HTTP {status}), though the vendor has just given its URL"
            )
        );
    }
    scene.storage.replies("/a?sig=3-hush", Reply::Head(429, "Retry-After: 3000\r\n".into()));
    let status = download(&program, "a.csv").await.unwrap_err();
    assert_eq!(decode_error(&status).reason, "BACKEND_UNAVAILABLE", "{status:?}");
    // The vendor is polled as before.
    scene.storage.replies("/a?sig=3-hush", Reply::File(b"again".to_vec()));
    assert_eq!(download(&program, "a.csv").await.unwrap(), b"again");
    let log = program.log();
    assert!(log.contains("download failed") && !log.contains("hush"), "{log}");
}

#[tokio::test]
async fn location_that_is_not_allowed_is_refused_without_a_connection() {
    let scene = Scene::new("https://*.files.example").await;
    let program = scene.serve("[\"https://a.files.example\"]").await;
    let port = scene.storage.port;
    let allow = |origin: &str| {
        format!(
            "its location is at {origin}; the operator can allow it by adding {origin:?} to backends.exports.allow_origins"
        )
    };
    let unnamed = |origin: &str| {
        format!("its location is at {origin}, which the vendor's definition does not name for files")
    };
    let cases = [
        (
            format!("https://127.0.0.1:{port}/a?sig=hush"),
            "other_origin",
            unnamed(&format!("https://127.0.0.1:{port}")),
        ),
        ("https://b.files.example/a?sig=hush".to_owned(), "other_origin", allow("https://b.files.example")),
        (
            "HTTPS://B.Files.Example:443/a?sig=hush".to_owned(),
            "other_origin",
            allow("https://b.files.example"),
        ),
        (
            "https://a.files.example:8443/a".to_owned(),
            "other_origin",
            unnamed("https://a.files.example:8443"),
        ),
        (
            "https://a.files.example.evil.example/a".to_owned(),
            "other_origin",
            unnamed("https://a.files.example.evil.example"),
        ),
        ("https://files.example/a".to_owned(), "other_origin", unnamed("https://files.example")),
        ("https://afiles.example/a".to_owned(), "other_origin", unnamed("https://afiles.example")),
        ("https://a.files.example./a".to_owned(), "other_origin", unnamed("https://a.files.example.")),
        (
            "https://a.files.example%2eevil.example/a".to_owned(),
            "other_origin",
            unnamed("https://a.files.example.evil.example"),
        ),
        (
            "https://b\u{fc}cher.example/a".to_owned(),
            "other_origin",
            unnamed("https://xn--bcher-kva.example"),
        ),
        (
            "http://a.files.example/a?sig=hush".to_owned(),
            "not_encrypted",
            "its location is at http://a.files.example, and files at other origins come over https only"
                .to_owned(),
        ),
        (
            "https://a.files.example@evil.example/a".to_owned(),
            "user_info",
            "its location holds a user name".to_owned(),
        ),
        (
            "https://me:pw@a.files.example/a".to_owned(),
            "user_info",
            "its location holds a user name".to_owned(),
        ),
        ("https:\\\\a.files.example\\a".to_owned(), "backslash", "its location holds a backslash".to_owned()),
        (
            "https://evil.example\\.a.files.example/a".to_owned(),
            "backslash",
            "its location holds a backslash".to_owned(),
        ),
        (
            "file:///etc/passwd".to_owned(),
            "scheme",
            "its location is neither a path nor an http URL".to_owned(),
        ),
        (
            "ftp://a.files.example/a".to_owned(),
            "scheme",
            "its location is neither a path nor an http URL".to_owned(),
        ),
        (
            "//a.files.example/a".to_owned(),
            "other_origin",
            "its location is not at the backend's own address".to_owned(),
        ),
        (
            "https://a.files.example/../x".to_owned(),
            "parent_directory",
            "its location leads to a parent directory".to_owned(),
        ),
    ];
    let files: Vec<(String, &str)> =
        cases.iter().enumerate().map(|(n, (url, ..))| (format!("f{n}"), &**url)).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(name, url)| (&**name, *url)).collect();
    scene.names(&files);
    for (n, (url, detail, message)) in cases.iter().enumerate() {
        let (reason, found, text) = refused(&program, &format!("f{n}")).await;
        assert_eq!((&*reason, &*found, &*text), ("ARTIFACT_NOT_FOUND", *detail, &**message), "{url}");
    }
    // All are listed, and one status was enough.
    assert_eq!(get(&program.client(), &export()).await.unwrap().artifacts.len(), cases.len() + 1);
    assert_eq!((scene.vendor.seen("GET /v1/exports/e-1").len(), scene.storage.connections()), (1, 0));
}

#[tokio::test]
async fn origin_that_the_definition_names_has_to_be_allowed_all_the_same() {
    let exact = Scene::new("https://127.0.0.1:PORT").await;
    let program = exact.serve("[]").await;
    let origin = exact.storage.url();
    exact.names(&[("a.csv", &format!("{}/a", exact.storage.url()))]);
    assert_eq!(
        refused(&program, "a.csv").await.2,
        format!(
            "its location is at {origin}; the operator can allow it by adding {origin:?} to backends.exports.allow_origins"
        )
    );
    assert_eq!(exact.storage.connections(), 0);
}

#[tokio::test]
async fn name_that_leads_to_a_private_address_is_never_connected_to() {
    let scene = Scene::new("https://*").await;
    let program = scene.serve(r#"["https://localhost:PORT"]"#).await;
    let origin = format!("https://localhost:{}", scene.storage.port);
    scene.names(&[("a.csv", &format!("{origin}/a?sig=hush"))]);
    scene.storage.replies("/a?sig=hush", Reply::File(b"secret".to_vec()));
    let message = format!(
        "its location is at {origin}, whose name leads to a loopback address; \
         only backends.exports.allow_origins with the address itself allows one"
    );
    assert_eq!(
        refused(&program, "a.csv").await,
        ("ARTIFACT_NOT_FOUND".to_owned(), "private_address".to_owned(), message)
    );
    scene.redirects(302, &format!("{origin}/a?sig=hush"));
    let (_, detail, message) = refused(&program, "log.txt").await;
    assert_eq!(detail, "private_address");
    assert!(
        message.starts_with(&format!("the vendor redirects its download to {origin}, whose name leads")),
        "{message}"
    );
    assert_eq!(scene.storage.connections(), 0);
}

#[tokio::test]
async fn redirect_of_the_vendor_is_followed_once_and_without_credentials() {
    let scene = Scene::new("https://*").await;
    let program = scene.serve(r#"["https://127.0.0.1:PORT"]"#).await;
    scene.storage.replies("/log?sig=hush", Reply::File(b"a line\n".to_vec()));
    let target = format!("{}/log?sig=hush", scene.storage.url());
    for status in [302, 303, 307, 308] {
        scene.redirects(status, &target);
        assert_eq!(download(&program, "log.txt").await.unwrap(), b"a line\n", "{status}");
    }
    for head in scene.storage.heads() {
        for hidden in ["authorization", "cookie", "x-tenant", "x-user"] {
            assert!(!head.contains(hidden), "{head}");
        }
    }
    let own = scene.vendor.seen("GET /v1/exports/e-1/log");
    assert_eq!(own[0].headers["authorization"], "Bearer b-hush");
    let (_, rest, end) = download_from(&program, "log.txt", 2, "").await;
    end.unwrap();
    assert_eq!(rest, b"line\n");

    // Not twice, and not as another status.
    let second = format!("Location: {target}\r\n");
    scene.storage.replies("/twice", Reply::Head(302, second));
    scene.redirects(302, &format!("{}/twice", scene.storage.url()));
    let before = scene.storage.heads().len();
    let (reason, detail, message) = refused(&program, "log.txt").await;
    assert_eq!((&*reason, &*detail), ("ARTIFACT_NOT_FOUND", "redirect"));
    let origin = scene.storage.url();
    assert_eq!(
        message,
        format!("{origin} redirects its download, and only the vendor's own redirect is followed")
    );
    assert_eq!(scene.storage.heads().len(), before + 1);
    let own = &scene.vendor.url;
    let within =
        format!("the vendor redirects its download within {own}, and only one to another origin is followed");
    let not_followed = "the vendor redirects its download (HTTP 301), and such a redirect is not followed";
    for (status, location, expected) in [
        (301, &*target, not_followed.to_owned()),
        (300, &target, not_followed.replace("301", "300")),
        (302, "/v1/elsewhere?sig=hush", within.clone()),
        (302, "", within),
    ] {
        scene.redirects(status, location);
        let (_, detail, message) = refused(&program, "log.txt").await;
        assert_eq!((&*detail, message), ("redirect", expected), "{status} {location}");
    }
    assert_eq!(scene.storage.heads().len(), before + 1);
    assert!(!program.log().contains("hush"), "{}", program.log());
}

#[tokio::test]
async fn redirect_to_an_origin_that_is_not_allowed_names_it_and_the_key() {
    let scene = Scene::with("https://*", "https://*.logs.example", "").await;
    let program = scene.serve("[]").await;
    let origin = scene.storage.url();
    for (location, detail, message) in [
        (
            "https://a.logs.example/x?sig=hush".to_owned(),
            "redirect",
            "the vendor redirects its download to https://a.logs.example; the operator can allow it by adding \
             \"https://a.logs.example\" to backends.exports.allow_origins"
                .to_owned(),
        ),
        (
            format!("{origin}/x?sig=hush"),
            "redirect",
            format!(
                "the vendor redirects its download to {origin}, which the vendor's definition does not name in redirects_to"
            ),
        ),
        (
            "http://a.logs.example/x".to_owned(),
            "not_encrypted",
            "the vendor redirects its download to http://a.logs.example, and files at other origins come over https only"
                .to_owned(),
        ),
        (
            "https://me:pw@a.logs.example/x".to_owned(),
            "user_info",
            "the vendor redirects its download, and the new location holds a user name".to_owned(),
        ),
        (
            "file:///etc/passwd".to_owned(),
            "scheme",
            "the vendor redirects its download, and the new location is neither a path nor an http URL".to_owned(),
        ),
    ] {
        scene.redirects(302, &location);
        let found = refused(&program, "log.txt").await;
        assert_eq!(found, ("ARTIFACT_NOT_FOUND".to_owned(), detail.to_owned(), message), "{location}");
    }
    assert_eq!(scene.storage.connections(), 0);
    let log = program.log();
    assert!(log.contains("https://a.logs.example") && !log.contains("hush"), "{log}");
}

#[tokio::test]
async fn credentials_go_to_another_origin_only_by_the_operators_word() {
    let scene = Scene::with("https://127.0.0.1:PORT", "https://*", "with_credentials = true").await;
    let origin = scene.storage.url();
    let refused = check(&scene.backend(r#"["https://127.0.0.1:PORT"]"#)).await;
    let text = String::from_utf8(refused.stderr).unwrap();
    let problem = format!(
        "backends.exports.allow_origins[0] is where exports downloads files with the backend's credentials; \
         write {{ origin = {origin:?}, with_credentials = true }} if they may be sent there"
    );
    assert!(text.contains(&problem), "{text}");

    scene.names(&[("a.csv", &format!("{origin}/a"))]);
    scene.storage.replies("/a", Reply::File(b"1".to_vec()));
    let without = scene.serve(r#"[{ origin = "https://127.0.0.1:PORT", with_credentials = false }]"#).await;
    assert_eq!(download(&without, "a.csv").await.unwrap(), b"1");
    assert!(!scene.storage.heads()[0].contains("hush"), "{:?}", scene.storage.heads());

    let allowed = r#"[{ origin = "https://127.0.0.1:PORT", with_credentials = true }]"#;
    let checked = check(&scene.backend(allowed)).await;
    let text = String::from_utf8(checked.stdout).unwrap();
    assert!(text.contains(&format!("; files from {origin} with credentials")), "{text}");
    let program = scene.serve(allowed).await;
    assert_eq!(download(&program, "a.csv").await.unwrap(), b"1");
    let head = scene.storage.heads().pop().unwrap();
    assert!(
        head.contains("authorization: bearer b-hush\r\n") && head.contains("x-user: me-hush\r\n"),
        "{head}"
    );
    assert!(!head.contains("x-tenant") && !head.contains("cookie"), "{head}");
    // A redirect to the same origin has none.
    scene.storage.replies("/log", Reply::File(b"2".to_vec()));
    scene.redirects(307, &format!("{origin}/log"));
    assert_eq!(download(&program, "log.txt").await.unwrap(), b"2");
    assert!(!scene.storage.heads().pop().unwrap().contains("hush"));
}

/// A proxy that connects to the storage, whatever the name, and sends the rest to the vendor.
async fn proxy(storage: u16, vendor: String) -> (u16, AbortHandle, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connects = Arc::<Mutex<Vec<String>>>::default();
    let seen = Arc::clone(&connects);
    let listening = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (seen, vendor) = (Arc::clone(&seen), vendor.clone());
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => return,
                    }
                }
                let mut target = if head.starts_with(b"CONNECT ") {
                    seen.lock().unwrap().push(String::from_utf8_lossy(&head).into());
                    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                    TcpStream::connect(("127.0.0.1", storage)).await.unwrap()
                } else {
                    let mut target = TcpStream::connect(&vendor).await.unwrap();
                    target.write_all(&head).await.unwrap();
                    target
                };
                let _ = copy_bidirectional(&mut stream, &mut target).await;
            });
        }
    });
    (port, listening.abort_handle(), connects)
}

#[tokio::test]
async fn proxy_resolves_the_names_of_other_origins() {
    let scene = Scene::new("https://*").await;
    let vendor = scene.vendor.url.trim_start_matches("http://").to_owned();
    let (port, listening, connects) = proxy(scene.storage.port, vendor).await;
    let backend = scene.backend(r#"["https://localhost:PORT"]"#);
    let program = serve(&format!("{backend}proxy = \"http://127.0.0.1:{port}\"\n")).await;
    scene.names(&[("a.csv", &format!("https://localhost:{}/a?sig=hush", scene.storage.port))]);
    scene.storage.replies("/a?sig=hush", Reply::File(b"1".to_vec()));
    assert_eq!(download(&program, "a.csv").await.unwrap(), b"1");
    let connects = connects.lock().unwrap().clone();
    assert!(connects.len() == 1 && !connects[0].contains("hush"), "{connects:?}");
    listening.abort();
}

#[tokio::test]
async fn reload_that_removes_an_origin_ends_its_downloads() {
    let scene = Scene::new("https://*").await;
    let text = |allowed: &str| {
        let head = "allow_inline_secrets = true\n[server]\nlisten = \"127.0.0.1:0\"\n";
        format!("{head}{}", scene.backend(allowed))
    };
    let (file, command) = program::command(&text(r#"["https://127.0.0.1:PORT"]"#));
    let path = file.path().to_owned();
    scene.names(&[("a.csv", &format!("{}/a", scene.storage.url()))]);
    scene.storage.replies("/a", Reply::File(b"1".to_vec()));
    let program = Program::run((file, command), "info").await;
    assert_eq!(download(&program, "a.csv").await.unwrap(), b"1");
    std::fs::write(&path, text("[]")).unwrap();
    program.signal("HUP").await;
    program.logged("configuration reloaded").await;
    assert_eq!(refused(&program, "a.csv").await.1, "other_origin");
    assert_eq!(scene.storage.connections(), 1);
}

#[tokio::test]
async fn origins_that_are_not_used_or_not_written_well_are_problems() {
    let scene = Scene::with("https://*.files.example", "https://logs.example", "").await;
    for (allowed, problem) in [
        (
            r#"["https://flies.example"]"#,
            "allow_origins[0] is no origin that exports uses; write one of https://*.files.example, \
             https://logs.example, or remove it",
        ),
        (r#"["http://a.files.example"]"#, "allow_origins[0] is not encrypted; write an https:// origin"),
        (
            r#"["https://*.files.example"]"#,
            "allow_origins[0] is more than one origin; write each by itself, such as \"https://a.files.example\"",
        ),
        (
            r#"["https://a.files.example/x"]"#,
            "allow_origins[0] is no origin; write one such as \"https://login.example\", without a path",
        ),
        (
            r#"[{ origins = "https://a.files.example" }]"#,
            "allow_origins[0] has the key \"origins\"; did you mean origin?",
        ),
        ("[{ with_credentials = true }]", "allow_origins[0] has no origin; write { origin = "),
        (
            r#"[{ origin = "https://a.files.example", with_credentials = true }]"#,
            "allow_origins[0].with_credentials is of no use: exports downloads nothing there with credentials; remove it",
        ),
        (
            r#"[{ origin = "https://a.files.example", with_credentials = "yes" }]"#,
            "allow_origins[0].with_credentials is neither true nor false; write one of them",
        ),
    ] {
        let checked = check(&scene.backend(allowed)).await;
        assert_eq!(checked.status.code(), Some(2));
        let text = String::from_utf8(checked.stderr).unwrap();
        assert!(text.contains(problem), "{problem}: {text}");
    }
    let good = check(&scene.backend(r#"["https://a.files.example", "https://logs.example"]"#)).await;
    let text = String::from_utf8(good.stdout).unwrap();
    assert!(text.contains("; files from https://a.files.example, https://logs.example"), "{text}");

    let shown = jobwatch(&["vendor", "show", scene.folder.path().to_str().unwrap()]).await;
    let text = String::from_utf8(shown.stdout).unwrap();
    for line in
        ["allow_origins https://*.files.example for files", "https://logs.example for redirected files"]
    {
        assert!(text.contains(line), "{text}");
    }
    let shown = jobwatch(&["vendor", "show", "stripe-reports"]).await;
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(text.contains("allow_origins https://files.stripe.com for files, with_credentials"), "{text}");
}
