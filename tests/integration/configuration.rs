//! The built program with a configuration of variables, and what it says about its
//! configuration.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use jobwatch::{
    config::Config,
    simulators::{Plan, Vendor, credentials},
};
use serde_json::{Value, json};
use tempfile::{NamedTempFile, TempDir};
use tokio::{io::AsyncWriteExt, process::Command};

use crate::{
    harness::*,
    program::{Program, executable},
};

/// The program with these arguments and variables, and nothing else in its environment.
fn jobwatch(args: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(executable());
    command.args(args).env_clear().envs(variables.iter().copied());
    command.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn run(args: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = guard(jobwatch(args, variables).output()).await.unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// `jobwatch serve` without a file.
async fn serve(variables: &[(&str, &str)]) -> Program {
    let command = jobwatch(&["serve"], &[variables, &[("JOBWATCH__SERVER__LISTEN", "127.0.0.1:0")]].concat());
    Program::run((NamedTempFile::new().unwrap(), command), "info").await
}

#[tokio::test]
async fn gateway_without_a_file_serves_backends_of_the_environment() {
    let simulator = simulator(Vendor::Immuta).await;
    let job_id = simulator.start_job(Plan::default()).id;
    let mut key = NamedTempFile::new().unwrap();
    key.write_all(credentials::IMMUTA_API_KEY.as_bytes()).unwrap();
    let base_url = simulator.base_url().clone();
    let program = serve(&[
        ("JOBWATCH__BACKENDS__IMMUTA_PROD__VENDOR", "immuta"),
        ("JOBWATCH__BACKENDS__IMMUTA_PROD__BASE_URL", &base_url),
        ("JOBWATCH__BACKENDS__IMMUTA_PROD__CREDENTIALS__API_KEY_FILE", key.path().to_str().unwrap()),
    ])
    .await;
    let status = get(&program.client(), &job("immuta-prod", &job_id)).await.unwrap();
    assert_eq!(status.job.unwrap().job_id, job_id);
    let log = program.log();
    let line = log.lines().find(|line| line.contains("configuration read")).expect("it says where from");
    assert!(line.contains("file=none"), "{line}");
    let names = "JOBWATCH__BACKENDS__IMMUTA_PROD__BASE_URL,\
                 JOBWATCH__BACKENDS__IMMUTA_PROD__CREDENTIALS__API_KEY_FILE,\
                 JOBWATCH__BACKENDS__IMMUTA_PROD__VENDOR,JOBWATCH__SERVER__LISTEN";
    assert!(line.contains(names), "{line}");
    assert!(!log.contains(credentials::IMMUTA_API_KEY) && !log.contains(&base_url), "{log}");
}

#[tokio::test]
async fn token_and_policy_of_the_environment_decide_who_may_call() {
    let simulator = simulator(Vendor::Kinetica).await;
    let started = simulator.start_job(Plan::default());
    let hash = "fc5148d9eea29d5ed4ea2ca3fa58cd3b7ad3e6d5cb36d5c6b6ad6ad1d2e4f0a1";
    let base_url = simulator.base_url().clone();
    let backend = [
        ("JOBWATCH__BACKENDS__KINETICA__VENDOR", "kinetica"),
        ("JOBWATCH__BACKENDS__KINETICA__BASE_URL", &*base_url),
        ("JOBWATCH__BACKENDS__KINETICA__CREDENTIALS__USERNAME", credentials::KINETICA_USER),
        ("JOBWATCH__BACKENDS__KINETICA__CREDENTIALS__PASSWORD", credentials::KINETICA_PASSWORD),
    ];
    let job = job_at(&simulator, &started);
    let open =
        serve(&[&backend[..], &[("JOBWATCH__ACCESS__POLICIES__0__PRINCIPALS", "[\"anonymous\"]")]].concat())
            .await;
    assert!(get(&open.client(), &job).await.is_ok());
    let hashes = format!("[{hash:?}]");
    let closed = [
        ("JOBWATCH__ACCESS__TOKENS__CI__SHA256", &*hashes),
        ("JOBWATCH__ACCESS__POLICIES__0__PRINCIPALS", "[\"token:ci\"]"),
    ];
    let closed = serve(&[&backend[..], &closed].concat()).await;
    let refused = get(&closed.client(), &job).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
}

#[tokio::test]
async fn command_without_a_configuration_or_with_a_bad_variable_exits_2_with_its_name() {
    let expected = "error: the configuration is missing; write --config FILE, or set variables such as \
                    JOBWATCH__BACKENDS__IMMUTA_PROD__VENDOR\n";
    for command in ["serve", "check"] {
        assert_eq!(run(&[command], &[]).await, (Some(2), String::new(), expected.to_owned()));
    }
    let bad = [
        ("JOBWATCH__BACKENDS__DB__VENDOR", "kinetika"),
        ("JOBWATCH__BACKENDS__DB__BASE_URL", "http://127.0.0.1:1"),
        ("JOBWATCH_LIMITS__JOBS", "1"),
        ("JOBWATCH__LIMITS__JOBS", "many"),
    ];
    let (code, out, err) = run(&["serve"], &bad).await;
    assert_eq!((code, &*out), (Some(2), ""));
    let mut lines: Vec<_> = err.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "error: JOBWATCH_LIMITS__JOBS sets nothing; write JOBWATCH__LIMITS__JOBS",
            "error: backends.db.vendor (set by JOBWATCH__BACKENDS__DB__VENDOR) is \"kinetika\"; did you mean kinetica?",
            "error: limits.jobs (set by JOBWATCH__LIMITS__JOBS) is \"many\"; write a whole number from 1 to 1000000000",
        ]
    );
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn variable_that_is_not_utf_8_is_refused_by_name() {
    use std::os::unix::ffi::OsStrExt;
    let mut command = jobwatch(&["check"], &[]);
    command.env("JOBWATCH__SERVER__LISTEN", std::ffi::OsStr::from_bytes(b"127.0.0.1\xff"));
    let output = guard(command.output()).await.unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    let text = "error: JOBWATCH__SERVER__LISTEN holds bytes that are not UTF-8; write the value in UTF-8\n";
    assert_eq!((output.status.code(), &*err), (Some(2), text));
}

const SECRETS: [&str; 4] =
    ["IMMUTA_API_KEY", "KINETICA_PASSWORD", "CLARET_PASSWORD", "DATASAUR_CLIENT_SECRET"];

/// A file of this repository.
fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The example, with every key that stands there as a comment.
fn whole_example() -> String {
    let example = read("jobwatch.example.toml");
    let line = |line: &str| {
        let key = line.trim_start_matches(['#', ' ']);
        let is_table =
            ["[access", "[[access", "[cluster", "[backends"].iter().any(|table| key.starts_with(table));
        let is_key = key.split_once(" = ").is_some_and(|(key, _)| {
            key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        });
        let is_comment = !line.starts_with("# ") && !line.starts_with("#   ");
        if (is_table || is_key) && !is_comment { format!("{key}\n") } else { format!("{line}\n") }
    };
    example.lines().map(line).collect::<String>().replace("<64 hexadecimal digits>", &"0f".repeat(32))
}

/// The configurations in a document, each with a backend.
fn configurations(path: &str) -> Vec<(String, String)> {
    let document = read(path);
    let blocks = document.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks
        .enumerate()
        .map(|(n, block)| {
            let backend = if block.contains("[backends.") { "" } else { DATABASE };
            (format!("{path}#{n}"), format!("{block}\n{backend}"))
        })
        .collect()
}

const DATABASE: &str = "[backends.db]\nvendor = \"kinetica\"\nbase_url = \"http://127.0.0.1:1\"\n";

/// Files with one fault each.
fn faulty() -> Vec<(&'static str, String)> {
    let section = |text: &str| format!("{text}\n{DATABASE}");
    let key = |text: &str| format!("{DATABASE}{text}\n");
    let immuta = |text: &str| {
        format!(
            "allow_inline_secrets = true\n[backends.x]\nvendor = \"immuta\"\nbase_url = \"http://127.0.0.1:1\"\n{text}\n"
        )
    };
    let policy = |text: &str| section(&format!("[[access.policies]]\n{text}"));
    vec![
        ("no backend", String::new()),
        ("unknown section", section("[sever]\nlisten = \"127.0.0.1:1\"")),
        ("unknown key", section("[server]\nlisen = \"127.0.0.1:1\"")),
        ("listen that is no text", section("[server]\nlisten = 50051")),
        ("section that is a list", section("[[limits]]\nwatches = 1")),
        ("number out of range", section("[limits]\nbatch_size = 1001")),
        ("number that is 0", section("[limits]\nwatches = 0")),
        ("size without a number", section("[limits]\nstatus_bytes = \"much\"")),
        ("size out of range", section("[limits]\nstatus_bytes = 1")),
        ("duration without a unit", section("[server]\ndefault_deadline = \"soon\"")),
        ("duration that is a number", key("poll.timeout = 1")),
        ("flag that is a word", section("[admin]\nallow_remote = \"yes\"")),
        ("unknown log format", section("[log]\nformat = \"xml\"")),
        ("TLS without a key", section("[server]\ntls = { cert = \"Cargo.toml\" }")),
        (
            "name of a backend with a capital",
            "[backends.DB]\nvendor = \"kinetica\"\nbase_url = \"http://a\"\n".to_owned(),
        ),
        ("unknown vendor", "[backends.db]\nvendor = \"kinetika\"\nbase_url = \"http://a\"\n".to_owned()),
        ("backend without a URL", "[backends.db]\nvendor = \"kinetica\"\n".to_owned()),
        ("URL without a scheme", "[backends.db]\nvendor = \"kinetica\"\nbase_url = \"db:9191\"\n".to_owned()),
        ("another vendor's key", key("tenant = \"a\"")),
        ("unknown encoding", key("encoding = \"snappy\"")),
        ("list that is a text", key("standby_urls = \"http://b\"")),
        ("header that is a number", key("headers = { X-Tenant = 1 }")),
        ("place of a secret with two keys", key("headers = { X-Key = { env = \"A\", file = \"b\" } }")),
        ("credentials that are missing", immuta("")),
        ("credentials of two kinds", immuta("credentials = { api_key = \"a\", bearer = \"b\" }")),
        ("credentials of another vendor", immuta("credentials = { username = \"a\", password = \"b\" }")),
        ("no credentials where they are needed", immuta("credentials = \"none\"")),
        ("user name without a password", key("credentials = { username = \"a\" }")),
        ("policy for nobody", policy("rights = [\"read\"]")),
        ("unknown right", policy("principals = [\"*\"]\nrights = [\"write\"]")),
        ("rate of 0", policy("principals = [\"*\"]\ncalls_per_second = 0")),
        ("token without a hash", policy("principals = [\"*\"]\n[access.tokens.ci]")),
        ("short hash", policy("principals = [\"*\"]\n[access.tokens.ci]\nsha256 = [\"0f\"]")),
        (
            "algorithm with a shared secret",
            policy(
                "principals = [\"*\"]\n[access.jwt]\nissuer = \"a\"\naudience = \"b\"\njwks_url = \"https://a\"\nalgorithms = [\"HS256\"]",
            ),
        ),
    ]
}

#[tokio::test]
async fn schema_accepts_the_documented_files_and_refuses_faulty_ones_as_the_reader_does() {
    let (code, schema, err) = run(&["config", "schema"], &[]).await;
    assert_eq!((code, &*err), (Some(0), ""));
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let mut files = Vec::new();
    let mut valid: Vec<(String, String)> =
        ["jobwatch.example.toml"].iter().map(|path| ((*path).to_owned(), read(path))).collect();
    valid.push(("jobwatch.example.toml, all keys".to_owned(), whole_example()));
    valid.push(("a database".to_owned(), DATABASE.to_owned()));
    for document in ["README.md", "docs/operations.md", "docs/cluster.md"] {
        valid.extend(configurations(document));
    }
    for duration in ["1ms", "1m 30s", "1h", "1.5s", "2 minutes", "1m, 3s"] {
        let text = format!("[server]\ndefault_deadline = {duration:?}\n{DATABASE}");
        assert!(Config::parse(&text, []).is_ok(), "{duration}");
        valid.push((format!("the duration {duration}"), text));
    }
    assert!(valid.len() > 10 && valid[1].1.contains("\nlevel = "), "{valid:#?}");
    files.extend(valid.iter().map(|(name, text)| json!({ "name": name, "text": text, "valid": true })));
    for (name, text) in faulty() {
        assert!(Config::parse(&text, []).is_err(), "the reader accepts: {name}");
        files.push(json!({ "name": name, "text": text, "valid": false }));
    }
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/python/bin/python");
    assert!(python.exists(), "{} is missing: run `make tools`", python.display());
    let script: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/clients/config_schema.py"].iter().collect();
    let mut command = Command::new(python);
    command.arg("-B").arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn().unwrap();
    let input = json!({ "schema": schema, "files": files }).to_string();
    let mut stdin = child.stdin.take().unwrap();
    guard(stdin.write_all(input.as_bytes())).await.unwrap();
    drop(stdin);
    let output = guard(child.wait_with_output()).await.unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(out.ends_with("all good\n"), "{out}{err}");
    assert_eq!(out.lines().filter(|line| line.starts_with("ok ")).count(), files.len(), "{out}");
}

#[tokio::test]
async fn config_show_prints_values_with_their_origins_and_no_secret() {
    let dir = TempDir::new().unwrap();
    let env_file = dir.path().join("prod.env");
    fs::write(&env_file, "CLARET_PASSWORD=hush\nJOBWATCH__LIMITS__JOBS=9\n").unwrap();
    let mut variables: Vec<(&str, &str)> = SECRETS.iter().map(|name| (*name, "hush")).collect();
    variables.push(("JOBWATCH__BACKENDS__IMMUTA_PROD__CREDENTIALS__API_KEY", "hush"));
    variables.push(("JOBWATCH__SERVER__LISTEN", "127.0.0.1:0"));
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/jobwatch.example.toml");
    let args = ["config", "show", "--config", example, "--env-file", env_file.to_str().unwrap()];
    let (code, toml, err) = run(&args, &variables).await;
    assert_eq!((code, &*err), (Some(0), ""));
    let lines: Vec<String> =
        toml.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let line_of =
        |key: &str| 1 + read("jobwatch.example.toml").lines().position(|line| line.starts_with(key)).unwrap();
    for expected in [
        "listen = \"127.0.0.1:0\" # JOBWATCH__SERVER__LISTEN".to_owned(),
        format!("jobs = 9 # JOBWATCH__LIMITS__JOBS in {}", env_file.display()),
        "batch_size = 1000 # default".to_owned(),
        format!("tenant = \"demo\" # {example}:{}", line_of("tenant")),
        "api_key = { env = \"JOBWATCH__BACKENDS__IMMUTA_PROD__CREDENTIALS__API_KEY\" } # \
         JOBWATCH__BACKENDS__IMMUTA_PROD__CREDENTIALS__API_KEY"
            .to_owned(),
    ] {
        assert!(lines.contains(&expected), "{expected}\n{toml}");
    }
    let (code, json, err) = run(&[&args[..], &["--json"]].concat(), &variables).await;
    assert_eq!((code, &*err), (Some(0), ""));
    let shown: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(shown["configuration"]["limits"]["jobs"], 9);
    assert_eq!(shown["origins"]["server.listen"]["variable"], "JOBWATCH__SERVER__LISTEN");
    assert!(!toml.contains("hush") && !json.contains("hush"), "{toml}");

    // What it prints is a configuration.
    let shown = dir.path().join("shown.toml");
    fs::write(&shown, &toml).unwrap();
    let (code, again, err) =
        run(&["config", "show", "--config", shown.to_str().unwrap()], &variables[..5]).await;
    assert_eq!((code, &*err), (Some(0), ""));
    let values = |toml: &str| toml.parse::<toml::Table>().unwrap();
    assert_eq!(values(&again), values(&toml));
}

#[tokio::test]
async fn config_show_of_a_bad_configuration_reports_its_problems_and_exits_2() {
    let variables = [("JOBWATCH__BACKENDS__DB__VENDOR", "kinetica"), ("JOBWATCH__LIMIT__JOBS", "1")];
    let (code, out, err) = run(&["config", "show"], &variables).await;
    assert_eq!((code, &*out), (Some(2), ""));
    let missing = "error: backends.db.base_url (variable JOBWATCH__BACKENDS__DB__BASE_URL) is missing; write a URL such as";
    assert!(
        err.contains("error: JOBWATCH__LIMIT__JOBS sets nothing; did you mean JOBWATCH__LIMITS__JOBS?\n"),
        "{err}"
    );
    assert!(err.contains(missing) && err.lines().count() == 2, "{err}");
    let (code, _, err) = run(&["config", "show"], &[]).await;
    assert!(
        code == Some(2) && err.starts_with("error: the configuration is missing; write --config FILE"),
        "{err}"
    );
}
