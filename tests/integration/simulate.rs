//! `jobwatch simulate`, as the author of a client uses it.

use std::process::Stdio;

use jobwatch::simulators::Vendor;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

use crate::harness::*;

#[tokio::test]
async fn cli_simulate_starts_jobs_and_faults_over_http() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_jobwatch"))
        .args(["simulate", "datasaur"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let url = guard(lines.next_line()).await.unwrap().expect("its URL is the first line");

    let http = reqwest::Client::new();
    let post = |route: &str, body: &'static str| {
        let request = http.post(format!("{url}/_simulator/{route}")).body(body);
        let request = request.header("content-type", "application/json");
        async { guard(request.send()).await.unwrap().error_for_status().unwrap() }
    };
    post("jobs", r#"{"id": "AutoLabelQueue:1", "held": "IN_PROGRESS"}"#).await;
    let gateway = Gateway::start([Backend::at(Vendor::Datasaur, url.clone())]).await;
    let mut watch = Watch::of(&gateway.client(), &job("datasaur", "AutoLabelQueue:1")).await;
    assert_eq!(watch.status().await.vendor_state, "IN_PROGRESS");
    post("faults", r#"{"effect": {"status": {"code": 503}}, "times": 1}"#).await;
    assert_eq!(watch.interruption().await.1.reason, "BACKEND_UNAVAILABLE");
    post("jobs/AutoLabelQueue:1/finish", "").await;
    assert!(watch.next_status().await.terminal);
}

#[tokio::test]
async fn cli_simulate_serves_the_vendor_of_a_definition() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_jobwatch"))
        .args(["simulate", "openai-batch", "--queued-for", "0", "--running-for", "0", "--end", "FAILED"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let url = guard(lines.next_line()).await.unwrap().expect("its URL is the first line");
    let tried = |secret: &'static str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jobwatch"));
        command.args(["vendor", "try", "openai-batch", "--base-url", &url, "--job", "batch_77"]);
        command.args(["--credential", "bearer=env:TRIED_SECRET"]).env("TRIED_SECRET", secret);
        async move {
            let output = guard(command.output()).await.unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(!text.contains(secret), "{text}");
            (output.status.code(), text)
        }
    };
    let (code, text) = tried("simulated-secret").await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("GET /v1/batches/batch_77 at http://127.0.0.1:"), "{text}");
    assert!(text.contains("authorization: [redacted]"), "{text}");
    assert!(text.contains("\"failed\" is FAILED, by \"failed\""), "{text}");
    let (code, text) = tried("another-secret").await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("a fault: the vendor rejects the gateway's credentials"), "{text}");
}
