//! `jobwatch check --connect` of the section of replicas.

use std::{io::Write as _, process::Stdio};

use tempfile::NamedTempFile;
use tokio::process::Command;

use super::*;

/// The line about the cluster.
pub(super) async fn check(servers: &Servers, more: &str) -> String {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(section(&servers.urls(), more).as_bytes()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_jobwatch"));
    command.args(["check", "--connect", "--config"]).arg(file.path());
    command.env_clear().env("PASSWORD", "hush").stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await.unwrap().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains("hush"), "{text}");
    let line = text.lines().find(|line| line.contains("  cluster  ")).unwrap_or_else(|| panic!("{text}"));
    line.split_once("  cluster  ").map(|(verdict, rest)| format!("{} {rest}", verdict.trim())).unwrap()
}

/// Waits until the servers serve.
pub(super) async fn started(servers: &Servers) {
    for url in servers.urls() {
        let address = url.strip_prefix("nats://").unwrap().to_owned();
        let connect = async {
            while tokio::net::TcpStream::connect(&address).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, connect).await.unwrap();
    }
}

pub(super) const MEMBER: &str = "member = \"gateway-0\"\n";

#[tokio::test]
async fn servers_that_work_are_ok_as_often_as_they_are_tried() {
    let servers = Servers::start(1, "");
    started(&servers).await;
    let url = &servers.urls()[0];
    for _ in 0..2 {
        let expected = format!("OK gateway-0 of 3 replicas of test over {url}, no credentials");
        assert_eq!(check(&servers, MEMBER).await, expected);
    }
}

#[tokio::test]
async fn server_that_is_not_there_is_named() {
    let mut servers = Servers::start(1, "");
    servers.kill_one(0);
    let line = check(&servers, MEMBER).await;
    assert!(line.starts_with(&format!("FAILED no connection: {}: IO error", servers.urls()[0])), "{line}");
}

#[tokio::test]
async fn server_that_takes_short_messages_only_is_named() {
    let servers = Servers::start(1, "max_payload: 65536");
    started(&servers).await;
    let line = check(&servers, MEMBER).await;
    let expected = "the server takes messages of at most 65536 bytes; set its max_payload to 131072 or more";
    assert!(line.starts_with("FAILED no connection: ") && line.contains(expected), "{line}");

    let servers = Servers::start(1, "max_payload: 131072");
    started(&servers).await;
    let line = check(&servers, MEMBER).await;
    assert!(line.starts_with("OK "), "{line}");
}

#[tokio::test]
async fn rejected_credentials_and_servers_without_jetstream_are_named() {
    let servers = Servers::start(1, "authorization { users: [{ user: gateway, password: other }] }");
    started(&servers).await;
    let credentials =
        format!("{MEMBER}credentials = {{ user = \"gateway\", password = {{ env = \"PASSWORD\" }} }}");
    let line = check(&servers, &credentials).await;
    let expected = "the server rejects cluster.credentials (user and password): authorization violation";
    assert!(line.starts_with("FAILED no connection: ") && line.contains(expected), "{line}");

    let servers = Servers::start(1, "jetstream: disabled");
    started(&servers).await;
    let line = check(&servers, MEMBER).await;
    assert!(line.starts_with("FAILED bucket jobwatch_leases_test: "), "{line}");
    assert!(line.contains("; it needs JetStream, and to publish to $JS.API.STREAM.INFO."), "{line}");

    let mut creds = NamedTempFile::new().unwrap();
    creds.write_all(b"no credentials").unwrap();
    let text = format!("{MEMBER}credentials = {{ creds = {{ file = {:?} }} }}", creds.path());
    let line = check(&servers, &text).await;
    assert!(line.starts_with("FAILED no connection: cluster.credentials.creds can't be used: "), "{line}");
}
