//! Shutdown: every call ends with a status, and no client can delay the exit.

use std::process::Stdio;

use jobwatch::{
    proto::v1::{JobState as S, JobStatusView, WatchJobRequest},
    simulators::{Effect, Fault, Plan, Vendor},
};
use tokio::net::TcpStream;
use tonic::{Code, Status};

use crate::{
    harness::*,
    program::{Program, command},
};

fn is_shutdown(status: &Status) {
    let decoded = decode_error(status);
    assert_eq!((decoded.code, &*decoded.reason), (Code::Unavailable, "SHUTTING_DOWN"));
    assert!(decoded.retry_delay().is_some());
}

#[tokio::test]
async fn shutdown_ends_open_watches_and_the_server_returns() {
    let simulator = simulator(Vendor::Immuta).await;
    let gateway = Gateway::start([Backend::of(&simulator)]).await;
    let client = gateway.client();
    let address = gateway.address;
    let mut watches = Vec::new();
    for _ in 0..50 {
        let job = job_at(&simulator, &simulator.start_job(Plan::fixed("active")));
        let mut watch = Watch::of(&client, &job).await;
        watch.status().await;
        watches.push(watch);
    }
    let heard = async {
        for watch in &mut watches {
            is_shutdown(&watch.end().await.unwrap_err());
            assert!(!watch.token.is_empty());
        }
    };
    tokio::join!(gateway.stop(), heard);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn shutdown_sends_the_newest_status_before_the_end() {
    let simulator = simulator(Vendor::Immuta).await;
    let gateway = Gateway::start([Backend::of(&simulator).every(ms(10))]).await;
    let client = gateway.client();
    // Large enough that the stream stalls while it is not read.
    let started = simulator.start_job(Plan::fixed("retry").retried_after("x".repeat(200_000)));
    let mut watch = Watch::of(&client, &job_at(&simulator, &started)).await;
    for word in ["active", "retry"].repeat(5).into_iter().chain(["newest"]) {
        simulator.set_state(&started.id, word);
        let responses = simulator.calls().iter().filter(|call| call.status.is_some()).count();
        guard(simulator.wait_for_responses("/jobs/statuses", responses + 2)).await;
    }
    gateway.shutdown.cancel();
    let (statuses, end) = watch.rest().await;
    assert_eq!(statuses.last().unwrap().vendor_state, "newest");
    is_shutdown(&end.unwrap_err());
    gateway.stop().await;
}

#[tokio::test]
async fn calls_that_outlast_the_drain_end_with_unavailable() {
    let simulator = simulator(Vendor::Kinetica).await;
    simulator.inject(Fault::new(Effect::Hang));
    let drain = "[server]\ndrain_timeout = \"500ms\"";
    let gateway = Gateway::start_with(drain, [Backend::of(&simulator).poll("timeout", "\"60s\"")]).await;
    let client = gateway.client();
    let mut waiting = get_request(&job("kinetica", "2"));
    waiting.wait = Some(proto_ms(60_000));
    let calls = async {
        let (one, two, many) = (job("kinetica", "1"), job("kinetica", "3"), job("kinetica", "4"));
        tokio::join!(
            get(&client, &one),
            get_status(&client, waiting),
            batch(&client, batch_request([two, many]))
        )
    };
    let stop = async {
        guard(simulator.wait_for_calls("/get/job", 4)).await;
        gateway.stop().await;
    };
    let ((one, waiting, many), ()) = tokio::join!(calls, stop);
    is_shutdown(&one.unwrap_err());
    is_shutdown(&waiting.unwrap_err());
    for element in many.unwrap() {
        is_shutdown(&element.unwrap_err());
    }
}

#[tokio::test]
async fn call_in_progress_at_shutdown_is_completed() {
    let simulator = simulator(Vendor::Kinetica).await;
    simulator.inject(Fault::new(Effect::Delay(ms(500))));
    let gateway = Gateway::start([Backend::of(&simulator)]).await;
    let client = gateway.client();
    let job = job_at(&simulator, &simulator.start_job(Plan::fixed("RUNNING")));
    let stop = async {
        guard(simulator.wait_for_calls("/get/job", 1)).await;
        gateway.stop().await;
    };
    let (response, ()) = tokio::join!(get(&client, &job), stop);
    assert_eq!(response.unwrap().state(), S::Running);
}

#[tokio::test]
async fn shutdown_with_a_client_that_never_reads_completes() {
    let simulator = simulator(Vendor::Immuta).await;
    let drain = "[server]\ndrain_timeout = \"1s\"";
    let gateway = Gateway::start_with(drain, [Backend::of(&simulator).every(ms(10))]).await;
    let client = gateway.client();
    let started = simulator.start_job(Plan::fixed("retry").retried_after("x".repeat(200_000)));
    let job = job_at(&simulator, &started);
    let request = WatchJobRequest { view: JobStatusView::Full.into(), ..watch_request(&job) };
    let _never_read = Watch::open(&client, request).await.unwrap();
    for word in ["active", "retry"].repeat(4) {
        simulator.set_state(&started.id, word);
        let responses = simulator.calls().iter().filter(|call| call.status.is_some()).count();
        guard(simulator.wait_for_responses("/jobs/statuses", responses + 2)).await;
    }
    gateway.stop().await;
}

#[tokio::test]
async fn program_with_closed_log_pipe_serves_and_stops() {
    let simulator = simulator(Vendor::Immuta).await;
    let mut program = Program::start([Backend::of(&simulator)], "debug").await;
    let job = job_at(&simulator, &simulator.start_job(Plan::fixed("active")));
    program.lose_log().await;
    let mut watch = Watch::of(&program.client(), &job).await;
    watch.status().await;
    program.signal("TERM").await;
    is_shutdown(&watch.end().await.unwrap_err());
    assert_eq!(program.exit_code().await, Some(0));
}

#[tokio::test]
async fn program_on_sigterm_stops_and_exits_0() {
    let simulator = simulator(Vendor::Immuta).await;
    let mut program = Program::start([Backend::of(&simulator)], "info").await;
    let job = job_at(&simulator, &simulator.start_job(Plan::fixed("active")));
    let mut watch = Watch::of(&program.client(), &job).await;
    watch.status().await;
    program.signal("TERM").await;
    is_shutdown(&watch.end().await.unwrap_err());
    assert_eq!(program.exit_code().await, Some(0));
    let log = program.log();
    assert!(log.contains("listening on 127.0.0.1:") && log.contains("stopped"), "{log}");
}

#[tokio::test]
async fn address_in_use_is_one_sentence_and_exit_code_2() {
    let simulator = simulator(Vendor::Immuta).await;
    let sections = format!("[server]\nlisten = \"{}\"", simulator.addr());
    let (_file, mut command) = command(&config_text(&sections, [Backend::of(&simulator)]));
    let output = guard(command.stdout(Stdio::piped()).output()).await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("can't be listened on"), "{stderr}");
}
