//! How vendors are reached from the real program: certificates, and the variables of a
//! proxy.

use std::{io::Write, process::Stdio};

use jobwatch::{
    proto::v1::JobState as S,
    simulators::{Plan, Vendor},
};
use tempfile::NamedTempFile;
use tokio::process::Command;

use crate::{
    harness::*,
    program::{self, Program},
};

/// A machine without the package ca-certificates.
const NO_CERTIFICATES: [(&str, &str); 2] =
    [("SSL_CERT_FILE", "/no/such/file.pem"), ("SSL_CERT_DIR", "/no/such/folder")];

/// Runs a subcommand that ends by itself. Returns success and the output.
async fn run(subcommand: &[&str], backends: Vec<Backend>, environment: &[(&str, &str)]) -> (bool, String) {
    let mut config = NamedTempFile::new().unwrap();
    config.write_all(config_text("[server]\nlisten = \"127.0.0.1:0\"", backends).as_bytes()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_jobwatch"));
    command.args(subcommand).arg("--config").arg(config.path());
    command.env_clear().envs(environment.iter().copied()).stdin(Stdio::null()).kill_on_drop(true);
    let output = guard(command.output()).await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn http_backend_needs_no_ca_certificates() {
    let simulator = simulator(Vendor::Immuta).await;
    let config = config_text("[server]\nlisten = \"127.0.0.1:0\"", [Backend::of(&simulator)]);
    let (file, mut command) = program::command(&config);
    command.envs(NO_CERTIFICATES);
    let program = Program::run((file, command), "info").await;
    let job = job_at(&simulator, &simulator.start_job(Plan::fixed("active")));
    assert_eq!(get(&program.client(), &job).await.unwrap().state(), S::Running);
    let (ok, output) = run(&["check"], vec![Backend::of(&simulator)], &NO_CERTIFICATES).await;
    assert!(ok, "{output}");
}

#[tokio::test]
async fn https_backend_without_ca_certificates_is_refused_with_what_to_do() {
    let https = || vec![Backend::at(Vendor::Immuta, "https://vendor.invalid")];
    for subcommand in ["check", "serve"] {
        let (ok, output) = run(&[subcommand], https(), &NO_CERTIFICATES).await;
        assert!(!ok, "{subcommand}: {output}");
        for shown in ["there are no CA certificates", "ca-certificates", "SSL_CERT_FILE", "the backend's ca"]
        {
            assert!(output.contains(shown), "{subcommand}: {output}");
        }
    }
    // Its own authority is enough.
    let key = rcgen::generate_simple_self_signed(vec!["vendor.invalid".to_owned()]).unwrap();
    let mut ca = NamedTempFile::new().unwrap();
    ca.write_all(key.cert.pem().as_bytes()).unwrap();
    let backend = https().remove(0).key("ca", &format!("{:?}", ca.path()));
    let (ok, output) = run(&["check"], vec![backend], &NO_CERTIFICATES).await;
    assert!(ok, "{output}");
}

#[tokio::test]
async fn unusable_proxy_variable_is_refused_at_the_start() {
    let simulator = simulator(Vendor::Immuta).await;
    for (name, value) in [
        ("HTTPS_PROXY", "\"http://proxy.example:3128\""),
        ("https_proxy", "http://proxy.example:3128 "),
        ("ALL_PROXY", "http://me:hu@sh@proxy.example:3128"),
        ("HTTP_PROXY", "socks5://proxy.example:1080"),
    ] {
        for subcommand in ["check", "serve"] {
            let (ok, output) = run(&[subcommand], vec![Backend::of(&simulator)], &[(name, value)]).await;
            assert!(
                !ok && output.contains(name) && output.contains("remove") | output.contains("write"),
                "{output}"
            );
            assert!(!output.contains("hu@sh"), "{output}");
        }
        // A backend that says itself how it is reached does not care.
        let direct = Backend::of(&simulator).key("proxy", "\"none\"");
        let (ok, output) = run(&["check"], vec![direct], &[(name, value)]).await;
        assert!(ok, "{output}");
    }
}
