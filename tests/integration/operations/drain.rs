//! The drain of the built program, on SIGTERM and SIGINT.

use std::{collections::BTreeMap, process::Stdio, time::Duration};

use futures_util::future::join_all;
use jobwatch::{
    proto::v1::{JobState as S, WatchJobResponse, watch_job_response::Event},
    simulators::{Plan, Simulator, Vendor},
};
use tokio::time::{Instant, timeout};
use tonic::{Code, Status, Streaming};
use tonic_health::pb::{health_check_response::ServingStatus, health_client::HealthClient};

use super::{Admin, exposition, health_of, reflection, server_with};
use crate::{
    harness::*,
    program::{Program, command},
};

/// A job that runs until a test ends it, and a call that waits for that.
async fn waiting_call(
    simulator: &Simulator,
    program: &Program,
) -> (String, tokio::task::JoinHandle<Result<S, Status>>) {
    let started = simulator.start_job(Plan::fixed("active"));
    let mut request = get_request(&job_at(simulator, &started));
    request.wait = Some(proto_ms(600_000));
    let (client, polled) = (program.client(), simulator.count("/jobs/statuses"));
    let call = tokio::spawn(async move { get_status(&client, request).await.map(|status| status.state()) });
    guard(simulator.wait_for_responses("/jobs/statuses", polled + 1)).await;
    (started.id, call)
}

async fn family(admin: &Admin, name: &str) -> exposition::Family {
    let (code, text) = admin.get("/metrics").await;
    assert_eq!(code, 200, "{text}");
    exposition::read(&text).remove(name).unwrap()
}

/// The value of a metric, of its series with these parts of labels.
async fn metric(admin: &Admin, name: &str, parts: &[&str]) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "they are small whole numbers")]
    let value = family(admin, name).await.sum(parts).round() as i64;
    value
}

fn is_shutdown(status: &Status) -> Duration {
    let decoded = decode_error(status);
    assert_eq!((decoded.code, &*decoded.reason), (Code::Unavailable, "SHUTTING_DOWN"));
    decoded.retry_delay().expect("it has a RetryInfo")
}

#[tokio::test]
async fn server_accepts_calls_during_the_drain_delay_but_is_not_ready() {
    let simulator = simulator(Vendor::Immuta).await;
    let (mut program, admin) = server_with("drain_delay = \"10m\"", [Backend::of(&simulator)]).await;
    let job = simulator.start_job(Plan::fixed("active"));
    let mut watch = Watch::of(&program.client(), &job_at(&simulator, &job)).await;
    watch.status().await;
    assert_eq!((admin.get("/readyz").await.0, metric(&admin, "jobwatch_ready", &[]).await), (200, 1));

    program.signal("TERM").await;
    program.logged("shutdown began").await;
    let (code, body) = admin.get("/readyz").await;
    assert!(code == 503 && body.contains("\"draining\""), "{code} {body}");
    assert_eq!(admin.get("/livez").await.0, 200);
    assert_eq!(metric(&admin, "jobwatch_ready", &[]).await, 0);
    assert_eq!(metric(&admin, "jobwatch_rpcs_in_flight", &["WatchJob\""]).await, 1);
    // Over a new connection.
    let status = get(&program.client(), &job_at(&simulator, &job)).await.unwrap();
    assert_eq!(status.vendor_state, "active");
    simulator.set_state(&job.id, "retry");
    assert_eq!(watch.status().await.vendor_state, "retry");

    program.signal("TERM").await;
    assert_eq!(program.exit_code().await, Some(130), "a second signal ends the process at once");
}

#[tokio::test]
async fn reflection_stream_that_is_left_open_does_not_delay_the_exit() {
    let simulator = simulator(Vendor::Immuta).await;
    let (mut program, _) = server_with("drain_timeout = \"10m\"", [Backend::of(&simulator)]).await;
    let (_requests, mut responses) = reflection(program.channel()).await;
    program.signal("TERM").await;
    is_shutdown(&guard(responses.message()).await.unwrap_err());
    assert_eq!(program.exit_code().await, Some(0));
    assert!(!program.log().contains("did not finish in time"), "{}", program.log());
}

#[tokio::test]
async fn streams_end_when_the_drain_delay_is_over() {
    let simulator = simulator(Vendor::Immuta).await;
    let (mut program, _) = server_with("drain_delay = \"400ms\"", [Backend::of(&simulator)]).await;
    let job = job_at(&simulator, &simulator.start_job(Plan::fixed("active")));
    let mut watch = Watch::of(&program.client(), &job).await;
    watch.status().await;
    let began = Instant::now();
    program.signal("INT").await;
    let delay = is_shutdown(&watch.end().await.unwrap_err());
    assert!(began.elapsed() >= ms(400));
    assert!((ms(500)..=ms(5000)).contains(&delay), "{delay:?}");
    assert_eq!(program.exit_code().await, Some(0));
    let log = program.log();
    for line in
        ["shutdown began drain_delay_ms=400 drain_timeout_ms=20000 open_watches=1", "drain began", "stopped"]
    {
        assert!(log.contains(line), "{line:?} is not in {log}");
    }
}

#[tokio::test]
async fn calls_that_wait_finish_during_the_drain_while_streams_end() {
    let simulator = simulator(Vendor::Immuta).await;
    let (mut program, admin) = server_with("drain_timeout = \"10m\"", [Backend::of(&simulator)]).await;
    let (id, call) = waiting_call(&simulator, &program).await;
    let mut watch = Watch::of(&program.client(), &job("immuta", &id)).await;
    watch.status().await;

    program.signal("TERM").await;
    is_shutdown(&watch.end().await.unwrap_err());
    assert_eq!(admin.get("/readyz").await.0, 503);
    assert_eq!(metric(&admin, "jobwatch_rpcs_in_flight", &["GetJobStatus"]).await, 1);
    let ended = metric(&admin, "jobwatch_rpcs_total", &["method=\"WatchJob\"", "code=\"UNAVAILABLE\""]).await;
    assert_eq!(ended, 1);
    // Its job is still polled.
    let polled = simulator.count("/jobs/statuses");
    guard(simulator.wait_for_responses("/jobs/statuses", polled + 2)).await;
    assert!(!call.is_finished());
    simulator.finish(&id);
    assert_eq!(guard(call).await.unwrap().unwrap(), S::Succeeded);
    assert_eq!(program.exit_code().await, Some(0));
}

#[tokio::test]
async fn call_that_outlasts_the_drain_timeout_ends_with_unavailable() {
    let simulator = simulator(Vendor::Immuta).await;
    let (mut program, _) = server_with("drain_timeout = \"300ms\"", [Backend::of(&simulator)]).await;
    let (_, call) = waiting_call(&simulator, &program).await;
    let began = Instant::now();
    program.signal("TERM").await;
    is_shutdown(&guard(call).await.unwrap().unwrap_err());
    assert!(began.elapsed() >= ms(300));
    assert_eq!(program.exit_code().await, Some(0));
    let log = program.log();
    assert!(log.contains("calls that did not finish in time were ended drain_timeout_ms=300"), "{log}");
}

#[tokio::test]
async fn second_signal_during_the_drain_ends_the_process() {
    let simulator = simulator(Vendor::Immuta).await;
    for (first, second) in [("TERM", "TERM"), ("INT", "TERM"), ("TERM", "INT")] {
        let (mut program, _) = server_with("drain_timeout = \"10m\"", [Backend::of(&simulator)]).await;
        let (_, call) = waiting_call(&simulator, &program).await;
        program.signal(first).await;
        program.logged("shutdown began").await;
        program.signal(second).await;
        assert_eq!(program.exit_code().await, Some(130), "{first} {second}");
        assert!(guard(call).await.unwrap().is_err());
    }
}

#[tokio::test]
async fn health_is_not_serving_from_the_signal_to_the_drain() {
    let simulator = simulator(Vendor::Immuta).await;
    let (mut program, _) = server_with("drain_delay = \"10m\"", [Backend::of(&simulator)]).await;
    let mut health = HealthClient::new(program.channel());
    let services = ["", "jobwatch.v1.JobStatusService", "jobwatch.backend/immuta"];
    let mut watches = Vec::new();
    for service in services {
        // A backend is published when the first second begins.
        let serving = async {
            loop {
                if let Ok(watch) = health.watch(health_of(service)).await {
                    return watch.into_inner();
                }
                tokio::task::yield_now().await;
            }
        };
        let mut watch = guard(serving).await;
        assert_eq!(guard(watch.message()).await.unwrap().unwrap().status(), ServingStatus::Serving);
        watches.push(watch);
    }
    program.signal("TERM").await;
    for watch in &mut watches {
        assert_eq!(guard(watch.message()).await.unwrap().unwrap().status(), ServingStatus::NotServing);
    }
    for service in services {
        let response = guard(health.check(health_of(service))).await.unwrap().into_inner();
        assert_eq!(response.status(), ServingStatus::NotServing, "{service}");
    }
    program.signal("TERM").await;
    assert_eq!(program.exit_code().await, Some(130));
}

#[tokio::test]
async fn watches_of_health_do_not_delay_the_exit() {
    let simulator = simulator(Vendor::Immuta).await;
    let (mut program, _) = server_with("drain_timeout = \"10m\"", [Backend::of(&simulator)]).await;
    let mut health = HealthClient::new(program.channel());
    let mut watch = guard(health.watch(health_of(""))).await.unwrap().into_inner();
    assert_eq!(guard(watch.message()).await.unwrap().unwrap().status(), ServingStatus::Serving);
    program.signal("TERM").await;
    assert_eq!(guard(watch.message()).await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert!(guard(watch.message()).await.unwrap().is_none());
    assert_eq!(program.exit_code().await, Some(0));
}

#[tokio::test]
async fn unusable_settings_are_refused_at_the_start() {
    let simulator = simulator(Vendor::Immuta).await;
    for (keys, expected) in [
        ("drain_delay = \"soon\"", "server.drain_delay is \"soon\"; write a duration such as"),
        (
            "drain_delay = \"31m\"\ndrain_timeout = \"30m\"",
            "server.drain_timeout is 30m, which with server.drain_delay",
        ),
        ("max_connection_age = \"5ms\"", "server.max_connection_age is 5ms; write at least 1s, or \"0s\""),
    ] {
        let sections = format!("[server]\nlisten = \"127.0.0.1:0\"\n{keys}");
        let (_file, mut command) = command(&config_text(&sections, [Backend::of(&simulator)]));
        let output = guard(command.stdout(Stdio::piped()).output()).await.unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && stderr.contains(expected), "{stderr}");
    }
}

/// Clients, and the streams of each.
const CLIENTS: usize = 5;
const STREAMS: usize = 2000;
const JOBS: usize = 100;

/// Long enough for thousands of calls on a busy machine.
async fn patiently<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_mins(5), future).await.expect("no result within five minutes")
}

/// Reads a watch to its end: the word of the newest status, and the wait before the next call.
async fn end_of(mut stream: Streaming<WatchJobResponse>, first: String) -> (String, Duration) {
    let mut newest = first;
    loop {
        match stream.message().await {
            Ok(Some(response)) => {
                if let Some(Event::Status(status)) = response.event {
                    newest = status.vendor_state;
                }
            }
            Ok(None) => panic!("it ended with OK"),
            Err(status) => return (newest, is_shutdown(&status)),
        }
    }
}

#[tokio::test]
async fn ten_thousand_streams_end_with_their_newest_status_and_spread_retries() {
    let simulator = simulator(Vendor::Immuta).await;
    let sections = "[server]\nlisten = \"127.0.0.1:0\"\ndrain_timeout = \"10m\"\n\
                    [limits]\nconnections = 100\nconnections_per_address = 100";
    let config = config_text(sections, [Backend::of(&simulator)]);
    let mut program = Program::run(command(&config), "info").await;
    let jobs: Vec<_> = (0..JOBS).map(|_| simulator.start_job(Plan::fixed("active"))).collect();
    let mut streams = Vec::new();
    for _ in 0..CLIENTS {
        let client = program.client();
        let open = (0..STREAMS).map(|at| {
            let (mut client, job) = (client.clone(), job_at(&simulator, &jobs[at % JOBS]));
            async move {
                let mut stream = client.watch_job(watch_request(&job)).await.unwrap().into_inner();
                let first = stream.message().await.unwrap().unwrap().event.unwrap();
                let Event::Status(first) = first else { panic!("{first:?}") };
                (stream, first.vendor_state)
            }
        });
        streams.extend(patiently(join_all(open)).await);
    }
    assert_eq!(streams.len(), 10_000);
    for job in &jobs {
        simulator.set_state(&job.id, "newest");
    }
    // Each of these rests on a poll that began later.
    let all = jobs.iter().map(|started| job_at(&simulator, started));
    let now = batch(&program.client(), batch_request(all)).await.unwrap();
    assert!(now.into_iter().all(|status| status.unwrap().vendor_state == "newest"));

    let began = Instant::now();
    program.signal("TERM").await;
    let ends = patiently(join_all(streams.into_iter().map(|(stream, first)| end_of(stream, first)))).await;
    let ended = began.elapsed();
    assert_eq!(program.exit_code().await, Some(0));
    let exited = began.elapsed();

    assert!(ends.iter().all(|(newest, _)| newest == "newest"));
    let mut slots = BTreeMap::<u128, usize>::new();
    for (_, wait) in &ends {
        assert!((ms(500)..=ms(5000)).contains(wait), "{wait:?}");
        *slots.entry(wait.as_millis() / 100).or_default() += 1;
    }
    let busiest = slots.values().copied().max().unwrap();
    // Evenly spread, a slot has 222, give or take 15.
    assert!(slots.len() >= 45 && busiest < 400, "{slots:?}");
    println!(
        "| drain of 10,000 WatchJob streams | all ended after {} ms, exit 0 after {} ms | RetryInfo from 0.5 s to \
         5 s, at most {busiest} streams in 100 ms |",
        ended.as_millis(),
        exited.as_millis()
    );
}
