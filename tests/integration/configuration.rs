//! The built program with a configuration of variables, and what it says about its
//! configuration.

use std::{
    io::Write,
    process::{Output, Stdio},
};

use jobwatch::simulators::{Plan, Vendor, credentials};
use tempfile::NamedTempFile;
use tokio::process::Command;

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
    let base_url = simulator.base_url().to_string();
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
    let base_url = simulator.base_url().to_string();
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
