//! Options of `get`, `batch` and `watch`, and help texts.

use tokio::io::AsyncWriteExt;

use super::*;

#[tokio::test]
async fn jobs_are_read_from_a_file_and_from_standard_input() {
    let gateway = Gateway::start(Vec::new()).await;
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("jobs.txt");
    std::fs::write(&list, "# nightly\nimmuta/done\n\nclaret/done\n").unwrap();
    let file = format!("@{}", list.display());
    let ran = gateway.run(&["get", &file, "-o", "name"]).await;
    assert_eq!((ran.code, &*ran.out), (Some(0), "immuta/done\nclaret/done\n"), "{}", ran.err);

    let mut child = jobwatch(&["batch", "-", "-o", "name", "--server", &gateway.address.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"immuta/done\nimmuta/failed").await.unwrap();
    let ran = Ran::of(&child.wait_with_output().await.unwrap());
    assert_eq!((ran.code, &*ran.out), (Some(1), "immuta/done\nimmuta/failed\n"), "{}", ran.err);
}

#[tokio::test]
async fn wrong_list_of_jobs_is_refused_with_its_line() {
    let gateway = Gateway::start(Vec::new()).await;
    let dir = tempfile::tempdir().unwrap();
    for (text, message) in [
        ("immuta/1\nimmuta", ", line 2: write BACKEND/JOB_ID, such as immuta-prod/42\n"),
        ("\n# none\n", "error: there is no job in the list; write one BACKEND/JOB_ID per line\n"),
    ] {
        let list = dir.path().join("jobs.txt");
        std::fs::write(&list, text).unwrap();
        let ran = gateway.run(&["watch", &format!("@{}", list.display())]).await;
        assert_eq!((ran.code, &*ran.out), (Some(2), ""));
        assert!(ran.err.ends_with(message), "{}", ran.err);
    }
    let ran = gateway.run(&["get", "@/no/such/file"]).await;
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.starts_with("error: the list of jobs /no/such/file can't be read: "), "{}", ran.err);
}

#[tokio::test]
async fn output_json_is_one_array_with_errors() {
    let gateway = Gateway::start(vec![vec![response("done", "a")]]).await;
    for command in ["get", "batch"] {
        let ran = gateway.run(&[command, "immuta/done", "immuta/none", "-o", "json"]).await;
        assert_eq!((ran.code, &*ran.err), (Some(3), ""), "{command}");
        let items: Vec<Value> = serde_json::from_str(&ran.out).unwrap();
        assert_eq!(items.len(), 2, "{}", ran.out);
        assert_eq!(items[1]["error"]["code"], 5);
    }
    let ran = gateway.run(&["watch", "immuta/done", "-o", "json"]).await;
    let items: Vec<Value> = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, items.len()), (Some(0), 1));
    assert_eq!(items[0]["status"]["state"], "JOB_STATE_SUCCEEDED");
}

#[tokio::test]
async fn unknown_output_and_output_beside_json_are_refused() {
    let gateway = Gateway::start(Vec::new()).await;
    let ran = gateway.run(&["get", "immuta/done", "-o", "yaml"]).await;
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("[possible values: table, json, jsonl, name]"), "{}", ran.err);
    let ran = gateway.run(&["get", "immuta/done", "-o", "name", "--json"]).await;
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("cannot be used with '--json'"), "{}", ran.err);
}

#[tokio::test]
async fn until_ends_the_watch_with_success() {
    let watches = scripts(vec![vec![response("running", "a")], vec![response("failed", "b")]]);
    let gateway = Gateway::serve(Scripted { watches, stays_open: true, ..Scripted::default() }).await;
    let ran = gateway.run(&["watch", "immuta/x", "--until", "running,succeeded", "-o", "name"]).await;
    assert_eq!((ran.code, &*ran.out), (Some(0), "immuta/x\n"), "{}", ran.err);
    let ran = gateway.run(&["watch", "immuta/x", "--until", "running", "-o", "name"]).await;
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    let ran = gateway.run(&["watch", "immuta/x", "--until", "ended"]).await;
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("possible values: pending, running, "), "{}", ran.err);
}

#[tokio::test]
async fn timeout_exits_4_and_says_how_many_jobs_have_not_ended() {
    let watches = scripts(vec![vec![response("running", "a")], vec![response("running", "b")]]);
    let gateway = Gateway::serve(Scripted { watches, stays_open: true, ..Scripted::default() }).await;
    let ran = gateway.run(&["watch", "immuta/x", "immuta/y", "--timeout", "50ms"]).await;
    assert_eq!((ran.code, &*ran.err), (Some(4), "timeout: 2 of 2 jobs have not ended\n"));
}

#[tokio::test]
async fn exec_receives_the_job_in_variables_that_no_shell_interprets() {
    let gateway =
        Gateway::start(vec![vec![response("failed", "a")], vec![Err(Status::not_found("none"))]]).await;
    let dir = tempfile::tempdir().unwrap();
    let trap = dir.path().join("trap");
    let touch = format!("touch {}", trap.display());
    let job = format!("immuta/$({touch}); {touch}");
    let show = r#"printf '%s|%s|%s|%s\n' "$JOBWATCH_BACKEND" "$JOBWATCH_JOB_ID" "$JOBWATCH_STATE" "$JOBWATCH_ERROR""#;
    // The program's environment is empty but for PATH, which finds sh.
    let run = async |show: &str| {
        let mut command = jobwatch(&["watch", &job, "--exec", show, "-o", "name"]);
        command.env("JOBWATCH_SERVER", gateway.address.to_string());
        command.env("PATH", std::env::var_os("PATH").unwrap());
        Ran::of(&command.output().await.unwrap())
    };
    let ran = run(show).await;
    let id = job.strip_prefix("immuta/").unwrap();
    assert_eq!(ran.err, format!("immuta|{id}|FAILED|no such column\n"));
    assert_eq!((ran.code, trap.exists()), (Some(1), false));

    let ran = run("echo \"$JOBWATCH_STATE\"; exit 7").await;
    assert_eq!(ran.code, Some(3));
    assert!(ran.err.contains("NO_STATUS\n--exec for "), "{}", ran.err);
    assert!(ran.err.ends_with(": exit status: 7\n"), "{}", ran.err);
}

/// The commands that a help text lists.
fn listed(help: &str) -> Vec<String> {
    let Some((_, rest)) = help.split_once("Commands:\n") else { return Vec::new() };
    let rows = rest.lines().take_while(|line| !line.is_empty());
    let names = rows.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[tokio::test]
async fn every_help_text_has_exit_codes_and_fits() {
    let mut open: Vec<Vec<String>> = vec![Vec::new(), vec!["man".to_owned()]];
    let mut seen = Vec::new();
    while let Some(path) = open.pop() {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let long = [&path[..], &["--help"]].concat();
        let help = Ran::of(&jobwatch(&long).output().await.unwrap()).out;
        let short = Ran::of(&jobwatch(&[&path[..], &["-h"]].concat()).output().await.unwrap()).out;
        let by_help = Ran::of(&jobwatch(&[&["help"], &path[..]].concat()).output().await.unwrap()).out;
        for text in [&help, &short, &by_help] {
            assert!(text.contains("Exit codes:\n  0    "), "{path:?}: {text}");
            for line in text.lines() {
                assert!(line.chars().count() <= 80, "{path:?}: {line}");
            }
        }
        for name in listed(&help).iter().filter(|name| *name != "help") {
            open.push(path.iter().copied().chain([&**name]).map(str::to_owned).collect());
        }
        seen.push(path.join(" "));
    }
    for path in ["watch", "config schema", "config show", "token new"] {
        assert!(seen.iter().any(|seen| seen == path), "{path}: {seen:?}");
    }
}

#[tokio::test]
async fn every_option_of_the_connection_has_a_variable() {
    let help = Ran::of(&jobwatch(&["watch", "--help"]).output().await.unwrap()).out;
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for name in ["SERVER", "CA", "TOKEN_FILE", "TOKEN", "CERT", "KEY"] {
        assert!(
            help.contains(&format!("[env: JOBWATCH_{name}="))
                || help.contains(&format!("[env: JOBWATCH_{name}]")),
            "{name}: {help}"
        );
    }
    assert!(help.contains("process list"), "{help}");
}

/// A gateway with or without TLS, and the file of its authority.
async fn program(with_tls: bool) -> (crate::program::Program, tempfile::TempDir) {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (ca, key) = (dir.path().join("ca.pem"), dir.path().join("key.pem"));
    std::fs::write(&ca, cert.pem()).unwrap();
    std::fs::write(&key, signing_key.serialize_pem()).unwrap();
    let tls = if with_tls {
        format!("tls = {{ cert = '{}', key = '{}' }}", ca.display(), key.display())
    } else {
        String::new()
    };
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n{tls}\n[backends.db]\nvendor = \"kinetica\"\n\
         base_url = \"http://127.0.0.1:1\"\n"
    );
    (crate::program::Program::run(crate::program::command(&config), "info").await, dir)
}

#[tokio::test]
async fn plaintext_against_tls_and_tls_against_plaintext_say_so() {
    let (program, dir) = program(true).await;
    let port = program.address().rsplit_once(':').unwrap().1.to_owned();
    let run = async |url: &str| {
        let mut command = jobwatch(&["watch", "db/1", "db/2", "--server", url]);
        if url.starts_with("https:") {
            command.env("JOBWATCH_CA", dir.path().join("ca.pem"));
        }
        Ran::of(&guard(command.output()).await.unwrap())
    };
    let url = format!("http://localhost:{port}");
    let ran = run(&url).await;
    assert_eq!((ran.code, ran.err.lines().count()), (Some(3), 1), "{}", ran.err);
    assert!(ran.err.starts_with(&format!("error: can't reach a gateway at {url}: ")), "{}", ran.err);
    assert!(ran.err.ends_with("expects TLS, write an https:// URL for --server\n"), "{}", ran.err);

    let mut command = jobwatch(&["backends", "-o", "name", "--server", &format!("https://localhost:{port}")]);
    command.env("JOBWATCH_CA", dir.path().join("ca.pem"));
    let ran = Ran::of(&guard(command.output()).await.unwrap());
    assert_eq!((ran.code, &*ran.out), (Some(0), "db\n"), "{}", ran.err);

    let (program, _dir) = self::program(false).await;
    let url = format!("https://{}", program.address());
    let ran = run(&url).await;
    assert_eq!(ran.code, Some(3));
    assert!(ran.err.contains("does not speak TLS, write an http:// URL for --server"), "{}", ran.err);
}

#[tokio::test]
async fn token_option_is_refused_without_tls_over_a_network() {
    let ran = Ran::of(
        &jobwatch(&["get", "db/1", "--token", "sesame", "--server", "http://gateway.test:1"])
            .output()
            .await
            .unwrap(),
    );
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("error: --token: the token would travel unencrypted"), "{}", ran.err);
    assert!(!ran.err.contains("sesame"), "{}", ran.err);
}

#[tokio::test]
async fn messages_name_the_variable_that_has_set_an_option() {
    let run = async |args: &[&str], variables: &[(&str, &str)]| {
        let mut command = jobwatch(&[&["get", "db/1"], args].concat());
        command.envs(variables.iter().copied());
        let ran = Ran::of(&guard(command.output()).await.unwrap());
        assert_eq!(ran.code, Some(2), "{}", ran.err);
        ran.err
    };
    let plain = "http://127.0.0.1:1";
    for (args, variables, message) in [
        (
            &["--server", plain][..],
            &[("JOBWATCH_CA", "x")][..],
            "--server http://127.0.0.1:1 is not encrypted, so JOBWATCH_CA has no effect; write an https:// URL, or unset it",
        ),
        (
            &["--server", plain, "--ca", "x"],
            &[],
            "--server http://127.0.0.1:1 is not encrypted, so --ca has no effect; write an https:// URL, or leave it out",
        ),
        (
            &["--key", "x"],
            &[("JOBWATCH_SERVER", plain)],
            "JOBWATCH_SERVER http://127.0.0.1:1 is not encrypted, so --key has no effect",
        ),
        (
            &[],
            &[("JOBWATCH_SERVER", "")],
            "JOBWATCH_SERVER is empty; write a URL such as http://127.0.0.1:50051, or unset it",
        ),
        (
            &[],
            &[("JOBWATCH_SERVER", "https://gateway/jobs")],
            "JOBWATCH_SERVER \"https://gateway/jobs\" has a path; gRPC uses no path, write https://gateway",
        ),
        (&["--server", "ftp://x"], &[("JOBWATCH_SERVER", plain)], "--server \"ftp://x\" has another scheme"),
        (&[], &[("JOBWATCH_TOKEN", "")], "JOBWATCH_TOKEN is empty; write the token, or unset it"),
        (&[], &[("JOBWATCH_TOKEN", "a\nb")], "JOBWATCH_TOKEN does not hold a token, "),
        (
            &[],
            &[("JOBWATCH_TOKEN_FILE", "/no/such/file")],
            "JOBWATCH_TOKEN_FILE /no/such/file can't be read: ",
        ),
        (&["--token-file", ""], &[], "--token-file is empty; write the path of a file, or leave it out"),
        (
            &[],
            &[("JOBWATCH_TOKEN", "a"), ("JOBWATCH_SERVER", "http://gateway.test:1")],
            "JOBWATCH_TOKEN: the token would travel unencrypted; write an https:// URL for JOBWATCH_SERVER",
        ),
        (
            &["--server", "https://gateway.test"],
            &[("JOBWATCH_CA", "/no/such/file")],
            "JOBWATCH_CA /no/such/file can't be read: ",
        ),
        (
            &["--server", "https://gateway.test"],
            &[("JOBWATCH_CERT", "")],
            "JOBWATCH_CERT is empty; write the path of a file, or unset it",
        ),
    ] {
        let err = run(args, variables).await;
        assert!(err.starts_with(&format!("error: {message}")), "{err}");
    }
}

#[tokio::test]
async fn job_that_is_named_twice_is_watched_once() {
    let gateway = Gateway::start(vec![vec![response("done", "a")]]).await;
    let mut command = jobwatch(&["watch", "immuta/x", "immuta/x", "-o", "name", "--exec", "echo ran"]);
    command.env("JOBWATCH_SERVER", gateway.address.to_string());
    command.env("PATH", std::env::var_os("PATH").unwrap());
    let ran = Ran::of(&guard(command.output()).await.unwrap());
    assert_eq!((ran.code, &*ran.out, &*ran.err), (Some(0), "immuta/x\n", "ran\n"));
}
