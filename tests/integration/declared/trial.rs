//! `jobwatch vendor try`: each exit code with what it prints, and origins, certificates and
//! names that it needs to be given.

use std::path::Path;

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
};

use super::{Vendor, exports, storage::Storage};
use crate::{harness::*, program};

/// Runs `vendor try` with these arguments: exit code, stdout and stderr.
async fn tried(folder: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(program::executable());
    command.args(["vendor", "try"]).args(args).current_dir(folder).env_clear();
    command.env("TRY_SECRET", "s-hush").stdin(std::process::Stdio::null()).kill_on_drop(true);
    let output = guard(command.output()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert!(!out.contains("s-hush") && !err.contains("s-hush"), "{out}{err}");
    (output.status.code(), out, err)
}

const DATABRICKS: [&str; 3] = ["databricks", "--credential", "bearer=env:TRY_SECRET"];

async fn databricks(url: &str, job: &str) -> (Option<i32>, String, String) {
    let args = [&DATABRICKS[..], &["--base-url", url, "--job", job]].concat();
    tried(Path::new("."), &args).await
}

#[tokio::test]
async fn exit_code_of_a_trial_is_that_of_the_table() {
    let vendor = Vendor::start().await;
    let run = |id: u32| format!("GET /api/2.2/jobs/runs/get?run_id={id}");
    let answers = |id: u32, status: u16, body: &str| vendor.answers(&run(id), status, body);
    answers(
        1,
        200,
        r#"{"run_id": 1, "state": {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}}"#,
    );
    answers(2, 200, r#"{"run_id": 2, "state": {"life_cycle_state": "NEVER_HEARD"}}"#);
    answers(3, 401, r#"{"error_code": "403", "message": "Invalid access token."}"#);
    answers(4, 429, "{}");
    answers(5, 503, "{}");
    answers(6, 200, "{");
    answers(7, 200, &format!("{{\"x\": \"{}\"}}", "x".repeat(40 << 20)));
    for (id, code, text) in [
        ("1", 0, "The answer is read as a status."),
        ("2", 1, "is an unknown word, so UNSPECIFIED; add it to [states]"),
        ("3", 1, "a fault: the vendor rejects the gateway's credentials"),
        ("4", 1, "a fault: the vendor is throttling"),
        ("5", 1, "a fault: the vendor gave no usable response"),
        ("6", 1, "a fault: the vendor's response can't be understood"),
    ] {
        let (found, out, err) = databricks(&vendor.url, id).await;
        assert_eq!((found, &*err), (Some(code), ""), "{id}: {out}");
        assert!(out.contains(text), "{id}: {out}");
    }
    let (code, out, err) = databricks(&vendor.url, "7").await;
    assert_eq!((code, &*out), (Some(1), ""), "{err}");
    for part in [
        "error: the vendor's response is larger than max_response_bytes",
        "name a backend with a larger poll.max_response_bytes with --config FILE --backend NAME",
    ] {
        assert!(err.contains(part), "{err}");
    }
    let (code, _, err) = databricks(&vendor.url, "abc").await;
    assert_eq!(code, Some(2), "{err}");
    assert!(err.starts_with("error: \"abc\" is no id of a job: it must be an integer"), "{err}");
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let (code, _, err) = databricks(&url, "1").await;
    assert_eq!(code, Some(3), "{err}");
    assert!(err.contains("nothing listens there; check host and port of --base-url"), "{err}");
}

#[tokio::test]
async fn answer_about_another_job_shows_the_id_that_it_has() {
    let vendor = Vendor::start().await;
    let body = r#"{"run_id": 98, "state": {"life_cycle_state": "RUNNING"}}"#;
    vendor.answers("GET /api/2.2/jobs/runs/get?run_id=1", 200, body);
    let (code, out, err) = databricks(&vendor.url, "1").await;
    assert_eq!((code, &*err), (Some(1), ""), "{out}");
    let line = out.lines().find(|line| line.contains("status.id")).unwrap_or_else(|| panic!("{out}"));
    assert!(line.split_whitespace().eq(["status.id", "job.run_id", "\"98\""]), "{line}");
    assert!(out.contains("it is about another job"), "{out}");
}

#[tokio::test]
async fn name_in_place_of_a_file_says_what_to_write() {
    for (name, cure) in [
        ("databricks", "write a file, such as one with what jobwatch vendor show databricks --source prints"),
        ("immuta", "it is built in and has no definition"),
    ] {
        for command in ["check", "test"] {
            let mut program = Command::new(program::executable());
            program.args(["vendor", command, name]).current_dir("/").kill_on_drop(true);
            let output = guard(program.output()).await.unwrap();
            let err = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{err}");
            assert!(err.contains(&format!("{name} is a vendor that jobwatch has already; {cure}")), "{err}");
        }
    }
}

#[tokio::test]
async fn secret_that_the_answer_repeats_in_its_head_is_redacted() {
    let vendor = Vendor::start().await;
    let kind = [("content-type", "application/json; x=s-hush")];
    let body = r#"{"run_id": 1, "state": {"life_cycle_state": "RUNNING"}}"#;
    vendor.answers_with("GET /api/2.2/jobs/runs/get?run_id=1", 200, &kind, body);
    let (code, out, err) = databricks(&vendor.url, "1").await;
    assert_eq!((code, &*err), (Some(0), ""), "{out}");
    assert!(out.contains("HTTP 200, application/json; x=[redacted], "), "{out}");
}

#[tokio::test]
async fn name_of_no_definition_says_what_to_write() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("broken.toml"), "format = 1\nname = \"x\"\n").unwrap();
    std::fs::write(
        folder.path().join("gateway.toml"),
        "allow_inline_secrets = true\n[backends.policies]\nvendor = \"immuta\"\nbase_url = \"http://127.0.0.1:1\"\n\
         credentials = { api_key = \"k\" }\n",
    )
    .unwrap();
    let own = ["--base-url", "http://127.0.0.1:1", "--job", "7"];
    for (args, text) in [
        (
            [&["dbt-clud"], &own[..]].concat(),
            "dbt-clud is neither a vendor nor a file; did you mean dbt-cloud?",
        ),
        (
            [&["immuta"], &own[..]].concat(),
            "immuta is built in and has no definition; write a backend for it into a configuration, and test that with \
             jobwatch check --config FILE --connect",
        ),
        ([&["broken.toml"], &own[..]].concat(), "the definition has problems\nbroken.toml:"),
        (
            [&["databricks"], &own[..]].concat(),
            "--credential is missing; write --credential bearer=env:NAME, or --credential client_id=TEXT",
        ),
        ([&DATABRICKS[..], &["--base-url", "nowhere", "--job", "7"]].concat(), "--base-url "),
        (
            vec![
                "dbt-cloud",
                "--base-url",
                "http://127.0.0.1:1",
                "--job",
                "7",
                "--credential",
                "bearer=env:TRY_SECRET",
            ],
            "--param account_id is missing; write --param account_id=.., an integer",
        ),
        (
            vec!["--config", "gateway.toml", "--backend", "policies", "--job", "7"],
            "the vendor of policies is built in and has no definition to read an answer by; poll a job of it with jobwatch \
             serve and jobwatch get policies/7",
        ),
    ] {
        let (code, out, err) = tried(folder.path(), &args).await;
        assert_eq!((code, &*out), (Some(2), ""), "{args:?}: {err}");
        assert!(err.starts_with(&format!("error: {text}")), "{args:?}: {err}");
        assert!(!err.contains("backends.try"), "{err}");
    }
}

#[tokio::test]
async fn token_of_another_origin_is_asked_for_if_that_is_allowed() {
    let (vendor, login) = (Vendor::start().await, Vendor::start().await);
    vendor.answers("GET /v1/eu/exports/e-1", 200, r#"{"id": "e-1", "phase": "done"}"#);
    login.answers("POST /token", 200, r#"{"access_token": "tok-1", "token_type": "Bearer"}"#);
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("exports.toml"), exports(&login.url)).unwrap();
    let own = [
        "exports.toml",
        "--base-url",
        &vendor.url,
        "--job",
        "e-1",
        "--param",
        "team=eu",
        "--credential",
        "client_id=me",
        "--credential",
        "client_secret=env:TRY_SECRET",
    ];
    let (code, _, err) = tried(folder.path(), &own).await;
    assert_eq!(code, Some(2), "{err}");
    let text = format!(
        "error: --allow-origin does not hold {:?}, where exports asks for tokens with the backend's secret; write \
         --allow-origin {} if it may get the secret, or name a backend that allows it with --config FILE --backend NAME\n",
        login.url, login.url
    );
    assert_eq!(err, text);
    assert!(login.seen("POST /token").is_empty());

    let (code, out, err) = tried(folder.path(), &[&own[..], &["--allow-origin", &login.url]].concat()).await;
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("authorization: [redacted]") && !out.contains("tok-1"), "{out}");
    assert_eq!(login.seen("POST /token").len(), 1);

    // A secret that is rejected there is a fault of the vendor.
    login.answers("POST /token", 401, r#"{"error": "invalid_client"}"#);
    let (code, _, err) = tried(folder.path(), &[&own[..], &["--allow-origin", &login.url]].concat()).await;
    assert_eq!(code, Some(1), "{err}");
    assert!(
        err.starts_with("error: no credentials to send: the vendor rejects the gateway's credentials"),
        "{err}"
    );

    for (origin, text) in [
        (
            "https://elsewhere.example".to_owned(),
            format!("is no origin where exports asks for tokens; write {}", login.url),
        ),
        (login.url.clone(), "stands there twice; keep one".to_owned()),
    ] {
        let more = ["--allow-origin", &login.url, "--allow-origin", &origin];
        let (code, _, err) = tried(folder.path(), &[&own[..], &more].concat()).await;
        assert_eq!((code, err), (Some(2), format!("error: --allow-origin {origin} {text}\n")));
    }
    let (code, _, err) = tried(
        Path::new("."),
        &[&DATABRICKS[..], &["--base-url", &vendor.url, "--job", "7", "--allow-origin", "https://x.example"]]
            .concat(),
    )
    .await;
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("is of no use: databricks asks for tokens at --base-url alone"), "{err}");
}

#[tokio::test]
async fn certificate_of_an_unknown_authority_has_a_cure() {
    let storage = Storage::start().await;
    let (code, _, err) = databricks(&storage.url(), "7").await;
    assert_eq!(code, Some(3), "{err}");
    assert!(
        err.contains("the authority of its certificate is not trusted; write --ca FILE with a PEM file"),
        "{err}"
    );
    let ca = storage.ca.path().to_str().unwrap();
    let url = storage.url();
    let args = [&DATABRICKS[..], &["--base-url", &url, "--job", "7", "--ca", ca]].concat();
    let (code, out, err) = tried(Path::new("."), &args).await;
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(out.contains("HTTP 404"), "{out}{err}");
}

#[tokio::test]
async fn version_that_goes_down_and_a_folder_in_place_of_a_file_are_problems() {
    let folder = TempDir::new().unwrap();
    let run = async |args: &[&str]| {
        let mut command = Command::new(program::executable());
        command.args(args).current_dir(folder.path()).env_clear().kill_on_drop(true);
        let output = guard(command.output()).await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let definition = exports("https://login.example");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("definition.toml", &definition);
    write("down.toml", &definition.replace("1.0.0", "0.9.0"));
    write("one.toml", &definition.replace("1.0.0", "one"));
    let (code, out, _) = run(&["vendor", "diff", "definition.toml", "down.toml"]).await;
    let text = "exports 1.0.0 and exports 0.9.0: no other difference, but version goes down from 1.0.0 to 0.9.0; write 1.0.0\n";
    assert_eq!((code, &*out), (Some(1), text));
    for args in
        [["vendor", "diff", "definition.toml", "one.toml"].as_slice(), &["vendor", "check", "one.toml"]]
    {
        let (code, out, _) = run(args).await;
        assert_eq!(code, Some(1));
        let text = "one.toml:4:11: version is \"one\"; write three numbers, such as \"1.0.0\"\n";
        assert_eq!(out, text);
    }
    let backend = |more: &str, file: &str| {
        format!(
            "allow_inline_secrets = true\n[backends.x]\nvendor_file = {file:?}\nbase_url = \"http://127.0.0.1:1\"\n\
             params = {{ team = \"a\" }}\ncredentials = {{ client_id = \"me\", client_secret = \"s\" }}\n{more}"
        )
    };
    let path = folder.path().display().to_string();
    let file = format!("{path}/definition.toml");
    let origin = "https://login.example";
    for (more, file, text) in [
        (
            String::new(),
            &path,
            format!("backends.x.vendor_file is {path}, a folder; write the file in it: {file:?}"),
        ),
        (
            format!("allow_origins = [{origin:?}, {origin:?}]"),
            &file,
            format!(
                "backends.x.allow_origins[1] is {origin:?}, which stands there already; keep one of them"
            ),
        ),
    ] {
        write("gateway.toml", &backend(&more, file));
        let (code, _, err) = run(&["check", "--config", "gateway.toml"]).await;
        assert_eq!(code, Some(2));
        assert!(err.contains(&text), "{err}");
    }
    std::fs::File::create(folder.path().join("huge.toml")).unwrap().set_len(1 << 40).unwrap();
    write("gateway.toml", &backend("", &format!("{path}/huge.toml")));
    let (code, _, err) = run(&["check", "--config", "gateway.toml"]).await;
    assert_eq!(code, Some(2));
    assert!(err.contains("huge.toml, which is larger than 128 KiB; name another one"), "{err}");
}

/// Writes a configuration with a backend of Databricks, and polls a job of it.
async fn configured(url: &str, more: &str) -> (Option<i32>, String, String) {
    let folder = TempDir::new().unwrap();
    let text = format!(
        "allow_inline_secrets = true\n[backends.dbx]\nvendor = \"databricks\"\nbase_url = {url:?}\n\
         credentials = {{ bearer = \"s-hush\" }}\n{more}"
    );
    std::fs::write(folder.path().join("gateway.toml"), text).unwrap();
    tried(folder.path(), &["--config", "gateway.toml", "--backend", "dbx", "--job", "1"]).await
}

#[tokio::test]
async fn answer_that_trickles_past_the_time_out_is_no_answer() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await;
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n{";
        let mut bytes = head.as_bytes();
        while stream.write_all(bytes).await.is_ok() {
            bytes = b" ";
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    let (code, out, err) = configured(&url, "poll = { timeout = \"500ms\" }").await;
    server.abort();
    assert_eq!((code, &*out), (Some(3), ""), "{err}");
    assert!(err.contains("no whole response within 500ms"), "{err}");
}

#[tokio::test]
async fn content_that_is_not_read_to_its_end_is_said() {
    let vendor = Vendor::start().await;
    for (id, status, read) in [(1, 503, "0 bytes"), (2, 404, "")] {
        let target = format!("GET /api/2.2/jobs/runs/get?run_id={id}");
        vendor.answers(&target, status, &"x".repeat(100_000));
        let (code, out, err) = databricks(&vendor.url, &id.to_string()).await;
        assert_eq!((code, &*err), (Some(1), ""), "{out}");
        let line = out.lines().find(|line| line.starts_with("  HTTP ")).unwrap_or_else(|| panic!("{out}"));
        assert!(line.starts_with(&format!("  HTTP {status}, application/json, {read}")), "{line}");
        let why = " bytes are read of its content: it is longer than the 64 KiB that are read of an answer that is no success";
        assert!(line.ends_with(why), "{line}");
    }
}

#[tokio::test]
async fn headers_of_the_backend_are_shown_without_their_values() {
    let vendor = Vendor::start().await;
    let body =
        r#"{"run_id": 1, "state": {"life_cycle_state": "RUNNING"}, "run_name": "for hush-of-the-proxy"}"#;
    vendor.answers("GET /api/2.2/jobs/runs/get?run_id=1", 200, body);
    let headers = "headers = { x-tenant = \"hush-of-the-proxy\" }";
    let (code, out, err) = configured(&vendor.url, headers).await;
    assert_eq!((code, &*err), (Some(0), ""), "{out}");
    assert!(out.contains("\n  x-tenant: [redacted] (headers of the backend)\n"), "{out}");
    assert!(!out.contains("hush-of"), "{out}");
}

#[tokio::test]
async fn secret_that_is_too_short_to_be_redacted_is_refused() {
    let vendor = Vendor::start().await;
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("secret");
    let credential = format!("bearer=file:{}", file.display());
    let args = ["databricks", "--credential", &credential, "--base-url", &vendor.url, "--job", "1"];
    let target = "GET /api/2.2/jobs/runs/get?run_id=1";
    vendor.answers(target, 200, r#"{"run_id": 1, "state": {"life_cycle_state": "RUNNING"}}"#);
    for secret in ["a", "HTT"] {
        std::fs::write(&file, secret).unwrap();
        let (code, out, err) = tried(folder.path(), &args).await;
        assert_eq!((code, &*out), (Some(2), ""), "{err}");
        assert!(err.contains("a secret of credentials has fewer than 4 characters"), "{err}");
        assert!(vendor.seen(target).is_empty());
    }
    // One that is a word of this program stays in the program's words.
    std::fs::write(&file, "HTTP").unwrap();
    let (code, out, err) = tried(folder.path(), &args).await;
    assert_eq!((code, &*err), (Some(0), ""), "{out}");
    assert!(out.contains("  HTTP 200, application/json, "), "{out}");
}
