//! `jobwatch simulate`, as the author of a client uses it.

use std::process::Stdio;

use jobwatch::{
    proto::v1::{DownloadArtifactRequest, JobState, JobStatus},
    simulators::Vendor,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::{
    harness::*,
    program::{self, Program},
};

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

/// A simulated vendor, and a gateway with the configuration that it prints.
async fn with_its_gateway(vendor: &str, temporary: &TempDir) -> (Child, String, Program) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_jobwatch"))
        .args(["simulate", vendor, "--queued-for", "0", "--running-for", "0", "--end", "SUCCEEDED"])
        .env("TMPDIR", temporary.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut text = String::new();
    while !text.contains("Requests:\n") {
        let line = guard(lines.next_line()).await.unwrap().unwrap_or_else(|| panic!("it ended: {text}"));
        text += &(line + "\n");
    }
    // Its lines about requests have to go somewhere.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    let (_, config) = text.split_once("Configuration of a gateway for it:\n\n").unwrap();
    let config: Vec<&str> =
        config.lines().take_while(|line| line.is_empty() || line.starts_with("  ")).collect();
    let gateway = Program::run(program::command(&config.join("\n")), "info").await;
    let (_, printed) = text.split_once("--server http://").unwrap();
    assert_eq!(printed.split_whitespace().next(), Some(gateway.address()), "{text}");
    (child, text, gateway)
}

async fn ended(gateway: &Program, id: &str) -> JobStatus {
    let mut watch = Watch::of(&gateway.client(), &job("simulated", id)).await;
    loop {
        let status = watch.next_status().await;
        if status.terminal {
            return status;
        }
    }
}

#[tokio::test]
async fn gateway_of_the_printed_configuration_downloads_files_of_other_origins() {
    let temporary = TempDir::new().unwrap();
    let (_child, _, gateway) = with_its_gateway("shopify-bulk", &temporary).await;
    let status = ended(&gateway, "gid://shopify/BulkOperation/77").await;
    assert_eq!(status.state(), JobState::Succeeded);
    let artifact_id = status.artifacts[0].artifact_id.clone();
    assert!(status.artifacts[0].vendor_uri.starts_with("/_files/storage.googleapis.com/"), "{status:?}");
    let request = DownloadArtifactRequest {
        job: Some(job("simulated", "gid://shopify/BulkOperation/77")),
        artifact_id,
        ..DownloadArtifactRequest::default()
    };
    let mut stream = guard(gateway.client().download_artifact(request)).await.unwrap().into_inner();
    let mut data = Vec::new();
    while let Some(message) = guard(stream.message()).await.unwrap() {
        data.extend_from_slice(&message.data);
    }
    let file: serde_json::Value = serde_json::from_slice(&data).unwrap();
    assert_eq!(file["simulated"], true, "{file}");
}

#[tokio::test]
async fn tokens_of_another_origin_come_from_the_simulated_vendor() {
    let temporary = TempDir::new().unwrap();
    let (_child, text, gateway) = with_its_gateway("bigquery", &temporary).await;
    let line = text.lines().find(|line| line.trim_start().starts_with("vendor_file")).unwrap();
    let file = line.split('"').nth(1).unwrap();
    let changed = std::fs::read_to_string(file).unwrap();
    assert!(
        changed.contains("token_path = \"/token\"") && text.contains("token_path = \"/token\""),
        "{text}"
    );
    let (_, example) = text.split_once(" simulated/").unwrap();
    let id = example.lines().next().unwrap();
    assert_eq!(ended(&gateway, id).await.state(), JobState::Succeeded, "{text}");
}

#[tokio::test]
async fn configuration_is_written_to_a_file_that_is_new() {
    for vendor in ["airflow", "bigquery", "immuta"] {
        let folder = TempDir::new().unwrap();
        let simulate = || {
            let mut command = Command::new(program::executable());
            command.args(["simulate", vendor, "--write-config", "gateway.toml"]).current_dir(folder.path());
            command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
            command
        };
        let mut child = simulate().spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = guard(lines.next_line()).await.unwrap().expect("its URL is the first line");
        let written = std::fs::read_to_string(folder.path().join("gateway.toml")).unwrap();
        assert!(written.contains(&format!("{url:?}")), "{written}");
        // The definition of BigQuery is copied, since its tokens come from another origin.
        let note = "# vendor_file is a copy of the definition that goes when the simulator ends.\n";
        assert_eq!(written.starts_with(note), vendor == "bigquery", "{written}");
        for expected in written.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            while guard(lines.next_line()).await.unwrap().expect("the configuration").trim() != expected {}
        }
        let mut check = Command::new(program::executable());
        check.args(["check", "--config", "gateway.toml"]).current_dir(folder.path()).kill_on_drop(true);
        assert!(guard(check.output()).await.unwrap().status.success(), "{written}");

        let output = guard(simulate().output()).await.unwrap();
        assert_eq!((output.status.code(), &*output.stdout), (Some(2), &b""[..]));
        let err = String::from_utf8(output.stderr).unwrap();
        let text = "error: --write-config gateway.toml exists already; name another file, or remove it";
        assert!(err.starts_with(text), "{err}");
        assert_eq!(std::fs::read_to_string(folder.path().join("gateway.toml")).unwrap(), written);
    }
}
