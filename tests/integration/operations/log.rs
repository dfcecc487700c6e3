//! The log: transitions, the access log, the level, and a reader that stalls.

use std::{io::Write, process::Stdio};

use jobwatch::simulators::{Plan, Vendor, credentials};
use serde_json::Value;
use tempfile::NamedTempFile;
use tokio::io::{AsyncBufReadExt, BufReader};
use tonic::transport::Endpoint;

use super::{Admin, SECTIONS, exposition, program_with};
use crate::{
    harness::*,
    program::{Program, command},
};

const JSON: &str = "[log]\nformat = \"json\"\n";

/// Waits for a line of a JSON log with this message.
async fn line(program: &Program, message: &str) -> Value {
    let find = |log: &str| {
        let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.find(|line| line["message"] == message)
    };
    program.find(find).await
}

fn count(program: &Program, text: &str) -> usize {
    program.log().matches(text).count()
}

/// A program with a JSON log; its admin address is in a field there.
async fn json_program(sections: &str, backend: Backend) -> (Program, Admin) {
    let text = config_text(&format!("{SECTIONS}{JSON}{sections}"), [backend]);
    let program = Program::run(command(&text), "info").await;
    let admin = Admin::of(&program.log().replace('"', " "));
    (program, admin)
}

#[tokio::test]
async fn outage_has_one_line_at_its_begin_and_one_at_its_end() {
    let simulator = simulator(Vendor::Immuta).await;
    let (program, _) =
        json_program("", Backend::of(&simulator).every(ms(10)).poll("login_backoff", "\"100ms\"")).await;
    let job = job_at(&simulator, &simulator.start_job(Plan::fixed("active")));
    let mut watch = Watch::of(&program.client(), &job).await;
    watch.status().await;
    simulator.reject_credentials(true);
    watch.interruption().await;
    let failed = line(&program, "credentials rejected").await;
    assert_eq!((&failed["backend"], &failed["reason"]), (&"immuta".into(), &"credentials_rejected".into()));
    assert_eq!((&failed["http_status"], &failed["waiting_jobs"]), (&401.into(), &1.into()));
    assert!(failed["down_for_ms"].is_u64() && failed["retry_in_ms"].is_u64(), "{failed}");
    simulator.reject_credentials(false);
    let recovered = line(&program, "backend recovered").await;
    assert!(
        recovered["down_for_ms"].as_u64().unwrap() > 0 && recovered["failed_polls"].as_u64().unwrap() > 0
    );
    assert_eq!((count(&program, "credentials rejected"), count(&program, "poll failed")), (1, 0));
}

#[tokio::test]
async fn outage_ends_in_the_log_when_credentials_are_replaced() {
    let simulator = simulator(Vendor::Immuta).await;
    let mut secret = NamedTempFile::new().unwrap();
    secret.write_all(b"wrong").unwrap();
    let credentials = format!("{{ api_key = {{ file = {:?} }} }}", secret.path());
    let backend = Backend::of(&simulator).credentials(credentials).every(ms(10));
    let (program, _) = json_program("", backend).await;
    let job = job_at(&simulator, &simulator.start_job(Plan::fixed("active")));
    let mut watch = Watch::of(&program.client(), &job).await;
    watch.interruption().await;
    line(&program, "credentials rejected").await;
    std::fs::write(secret.path(), credentials::IMMUTA_API_KEY).unwrap();
    line(&program, "backend recovered").await;
}

#[tokio::test]
async fn watch_that_ends_with_an_error_has_a_line() {
    let simulator = simulator(Vendor::Immuta).await;
    let (program, _) = json_program("", Backend::of(&simulator).every(ms(10))).await;
    let started = simulator.start_job(Plan::fixed("active"));
    let mut watch = Watch::of(&program.client(), &job_at(&simulator, &started)).await;
    watch.status().await;
    simulator.forget(&started.id);
    watch.end().await.unwrap_err();
    let line = line(&program, "watch ended with an error").await;
    assert_eq!((&line["backend"], &line["reason"]), (&"immuta".into(), &"JOB_GONE".into()));
}

#[tokio::test]
async fn access_log_has_a_line_for_each_call_with_its_request_id() {
    let simulator = simulator(Vendor::Immuta).await;
    let (program, _) = json_program("access = true\n", Backend::of(&simulator)).await;
    let job = job_at(&simulator, &simulator.start_job(Plan::fixed("active")));
    let mut request = tonic::Request::new(get_request(&job));
    request.metadata_mut().insert("x-request-id", "given-1".parse().unwrap());
    let response = guard(program.client().get_job_status(request)).await.unwrap();
    assert_eq!(response.metadata().get("x-request-id").unwrap(), "given-1");
    let first = line(&program, "call ended").await;
    assert_eq!((&first["request_id"], &first["method"]), (&"given-1".into(), &"GetJobStatus".into()));
    assert_eq!((&first["code"], &first["principal"]), (&"OK".into(), &"none".into()));
    let duration = first["duration_ms"].to_string();
    let (_, decimals) = duration.split_once('.').expect("it is in milliseconds with a fraction");
    assert!(decimals.len() <= 3, "{first}");
    let error = get(&program.client(), &self::job("none", "1")).await.unwrap_err();
    let made = error.metadata().get("x-request-id").unwrap().to_str().unwrap();
    assert_eq!(made.len(), 36);
    program.logged(made).await;
}

#[tokio::test]
async fn log_level_is_replaced_while_the_program_runs() {
    let simulator = simulator(Vendor::Immuta).await;
    let (program, admin) = program_with("", [Backend::of(&simulator)]).await;
    assert_eq!(admin.get("/log-level").await, (200, "info,h2=error,async_nats=off\n".to_owned()));
    let (code, text) = admin.put("/log-level", "jobwatch=loud").await;
    assert!(code == 400 && text.contains("is invalid"), "{text}");
    assert_eq!(admin.put("/log-level", "info,h2=debug").await.0, 204);
    assert_eq!(admin.get("/log-level").await.1, "info,h2=debug\n");
    let job = job_at(&simulator, &simulator.start_job(Plan::fixed("active")));
    get(&program.client(), &job).await.unwrap();
    program.logged("DEBUG").await;
}

#[tokio::test]
async fn stalled_reader_of_the_log_blocks_neither_calls_nor_shutdown_and_lines_are_counted() {
    let simulator = simulator(Vendor::Immuta).await;
    let text = config_text(SECTIONS, [Backend::of(&simulator)]);
    let (_file, mut command) = command(&text);
    let mut child = command.env("JOBWATCH_LOG", "trace,h2=trace").stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let (mut seen, mut address) = (String::new(), String::new());
    while address.is_empty() {
        let line = guard(lines.next_line()).await.unwrap().unwrap();
        if let Some((_, rest)) = line.split_once("listening on ") {
            rest.split_whitespace().next().unwrap().clone_into(&mut address);
        }
        seen.push_str(&line);
        seen.push('\n');
    }
    // From here on nobody reads.
    let admin = Admin::of(&seen);
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    let client = Client::new(channel);
    let job = job_at(&simulator, &simulator.start_job(Plan::fixed("active")));
    let dropped = async {
        loop {
            let calls = (0..200).map(|_| get(&client, &job));
            for outcome in futures_util::future::join_all(calls).await {
                outcome.unwrap();
            }
            let families = exposition::read(&admin.get("/metrics").await.1);
            if families["jobwatch_log_lines_dropped_total"].sum(&[]) > 0.0 {
                return;
            }
        }
    };
    guard(dropped).await;
    // It is read again, and a line says how many were lost.
    let reported = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains("log lines were dropped") {
                return line;
            }
        }
        panic!("the log has ended");
    };
    let line = guard(reported).await;
    assert!(line.contains("dropped_lines="), "{line}");
    // Nobody reads again.
    for _ in 0..5 {
        let calls = (0..200).map(|_| get(&client, &job));
        guard(futures_util::future::join_all(calls)).await;
    }
    let pid = child.id().unwrap().to_string();
    let sent = tokio::process::Command::new("kill").arg(pid).status().await.unwrap();
    assert!(sent.success());
    assert_eq!(guard(child.wait()).await.unwrap().code(), Some(0));
}
