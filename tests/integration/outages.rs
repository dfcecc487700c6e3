//! Outages: callers receive interruptions while a vendor can't be polled, and the terminal
//! status afterwards.

use futures_util::future::join_all;
use jobwatch::{
    proto::v1::{
        BackendHealth, JobState as S, ListBackendsRequest, WatchJobRequest, watch_job_response::Event,
    },
    simulators::{Effect, Fault, Plan, Vendor},
};
use tokio::time::Instant;
use tonic::Code;

use crate::harness::*;

#[tokio::test]
async fn end_during_an_outage_is_sent_after_it() {
    join_all(Vendor::ALL.map(end_during_an_outage)).await;
}

async fn end_during_an_outage(vendor: Vendor) {
    let (simulator, client, _gateway) = single_backend(vendor).await;
    let started = simulator.start_job(Plan::default().running_for(ms(600_000)));
    let job = job_at(&simulator, &started);
    let mut watches = Vec::new();
    for _ in 0..5 {
        let request = WatchJobRequest {
            heartbeat_interval: Some(proto_ms(200)),
            state_changes_only: true,
            ..watch_request(&job)
        };
        let mut watch = Watch::open(&client, request).await.unwrap();
        assert_eq!(watch.next_status().await.state(), S::Running);
        watches.push(watch);
    }
    simulator.go_down().await;
    simulator.finish(&started.id);
    for watch in &mut watches {
        loop {
            match watch.next().await.unwrap().unwrap() {
                Event::Heartbeat(_) => {}
                Event::Interruption(interruption) => {
                    let cause = decode_error(&from_message(interruption.cause.as_ref().unwrap()));
                    assert_eq!((cause.code, &*cause.reason), (Code::Unavailable, "BACKEND_UNAVAILABLE"));
                    assert!(cause.retry_delay().is_some() && interruption.retry_time.is_some());
                    assert!(interruption.observe_time.is_some());
                    break;
                }
                Event::Status(status) => panic!("it was down: {status:?}"),
            }
        }
    }
    // An interruption that lasts is sent again: two seconds of it, past the
    // fifth failure.
    for _ in 0..10 {
        watches[0].interruption().await;
    }
    simulator.come_back().await.unwrap();
    for watch in &mut watches {
        assert_eq!(watch.next_status().await.state(), S::Succeeded, "{vendor}");
        watch.end().await.unwrap();
    }
}

#[tokio::test]
async fn watch_of_an_unreachable_vendor_is_interrupted_at_once() {
    let (simulator, client, _gateway) = single_backend(Vendor::Kinetica).await;
    let job = job_at(&simulator, &simulator.start_job(Plan::fixed("RUNNING")));
    simulator.go_down().await;
    let mut watch = Watch::of(&client, &job).await;
    let (interruption, cause) = watch.interruption().await;
    assert_eq!(cause.reason, "BACKEND_UNAVAILABLE");
    assert_eq!(interruption.observe_time, None);
    assert_eq!(watch.token, "", "there is nothing to resume yet");
    simulator.come_back().await.unwrap();
    assert_eq!(watch.next_status().await.state(), S::Running);
}

#[tokio::test]
async fn outage_without_change_ends_with_a_heartbeat() {
    let (simulator, client, _gateway) = single_backend(Vendor::Immuta).await;
    let job = job_at(&simulator, &simulator.start_job(Plan::fixed("active")));
    let mut watch = Watch::of(&client, &job).await;
    watch.status().await;
    simulator.inject(Fault::new(Effect::status(503, "{}")).times(2));
    watch.interruption().await;
    loop {
        match watch.next().await.unwrap().unwrap() {
            Event::Heartbeat(_) => break,
            // An interruption that lasts is repeated.
            Event::Interruption(_) => {}
            Event::Status(status) => panic!("nothing has changed: {status:?}"),
        }
    }
}

#[tokio::test]
async fn every_failure_interrupts_a_watch_without_ending_it() {
    let (simulator, client, _gateway) = single_backend(Vendor::Immuta).await;
    let started = simulator.start_job(Plan::fixed("active"));
    let mut watch = Watch::of(&client, &job_at(&simulator, &started)).await;
    watch.status().await;
    let mut state = "active";
    for (effect, reason) in [
        (Effect::status(500, "{}"), "BACKEND_UNAVAILABLE"),
        (Effect::Html(503), "BACKEND_UNAVAILABLE"),
        (Effect::Reset, "BACKEND_UNAVAILABLE"),
        (Effect::Truncate(5), "BACKEND_UNAVAILABLE"),
        (Effect::status(429, "{}"), "BACKEND_THROTTLED"),
        (Effect::status(401, "{}"), "BACKEND_CREDENTIALS_REJECTED"),
        (Effect::status(403, "{}"), "BACKEND_FORBIDDEN"),
        (Effect::Redirect("/login".to_owned()), "BACKEND_REJECTED"),
        (Effect::Refuse("no".to_owned()), "BACKEND_REJECTED"),
        (Effect::Empty204, "BACKEND_MALFORMED"),
        (Effect::Html(200), "BACKEND_MALFORMED"),
        (Effect::status(200, "{"), "BACKEND_MALFORMED"),
    ] {
        simulator.inject(Fault::new(effect));
        assert_eq!(watch.interruption().await.1.reason, reason);
        simulator.clear_faults();
        state = if state == "active" { "retry" } else { "active" };
        simulator.set_state(&started.id, state);
        assert_eq!(watch.next_status().await.vendor_state, state);
    }
}

#[tokio::test]
async fn retry_after_is_honoured_and_reported() {
    let (simulator, client, _gateway) = single_backend(Vendor::Immuta).await;
    let job = job_at(&simulator, &simulator.start_job(Plan::fixed("active")));
    let mut watch = Watch::of(&client, &job).await;
    watch.status().await;
    simulator.inject(Fault::new(Effect::retry_after(429, 2)).times(1));
    let (_, cause) = watch.interruption().await;
    assert_eq!((cause.code, &*cause.reason), (Code::Unavailable, "BACKEND_THROTTLED"));
    assert_eq!(cause.metadata["http_status"], "429");
    let count = simulator.count("");
    let told_at = Instant::now();

    let error = decode_error(&get(&client, &job).await.unwrap_err());
    assert_eq!((error.code, &*error.reason), (Code::Unavailable, "BACKEND_THROTTLED"));
    let left = error.retry_delay().unwrap();
    assert!(left > ms(0) && left <= ms(2000), "{left:?}");
    let mut old_will_do = get_request(&job);
    old_will_do.max_age = Some(proto_ms(60_000));
    get_status(&client, old_will_do).await.unwrap();
    assert_eq!(simulator.count(""), count, "nothing was polled meanwhile");

    guard(simulator.wait_for_calls("/jobs/statuses", count + 1)).await;
    let calls = simulator.calls();
    assert!(calls[count].at - calls[count - 1].at >= ms(2000));
    assert!(told_at.elapsed() >= ms(1500));
}

#[tokio::test]
async fn batch_with_a_throttled_backend_serves_the_others() {
    let (immuta, claret) = (simulator(Vendor::Immuta).await, simulator(Vendor::Claret).await);
    immuta.inject(Fault::new(Effect::retry_after(503, 30)));
    let gateway = Gateway::start([Backend::of(&immuta), Backend::of(&claret)]).await;
    let other = job_at(&claret, &claret.start_job(Plan::fixed("pending")));
    let results = batch(&gateway.client(), batch_request([job("immuta", "1"), other])).await.unwrap();
    let error = decode_error(results[0].as_ref().unwrap_err());
    assert_eq!(error.reason, "BACKEND_UNAVAILABLE");
    assert!(error.retry_delay().unwrap() > ms(25_000));
    assert!(results[1].is_ok());
}

#[tokio::test]
async fn open_circuit_breaker_lets_one_probe_through_at_a_time() {
    let simulator = simulator(Vendor::Kinetica).await;
    let backend = Backend::of(&simulator).poll("max_backoff", "\"100ms\"").poll("max_concurrency", "4");
    let gateway = Gateway::start([backend]).await;
    let mut client = gateway.client();
    let jobs: Vec<_> =
        (0..20).map(|_| job_at(&simulator, &simulator.start_job(Plan::fixed("RUNNING")))).collect();
    let mut watches = Vec::new();
    for job in &jobs {
        watches.push(Watch::of(&client, job).await);
    }
    for watch in &mut watches {
        watch.next_status().await;
    }
    simulator.inject(Fault::new(Effect::status(500, "")));
    for watch in &mut watches {
        watch.interruption().await;
    }
    // One failure is sent to every watch, and five open the circuit.
    let opened = async { while health(&mut client).await != BackendHealth::Unavailable {} };
    guard(opened).await;
    simulator.clear_calls();
    guard(simulator.wait_for_responses("/get/job", 15)).await;
    let calls = simulator.calls();
    // Up to four were in flight. Probes follow, each of one job and each after the response
    // to the previous one.
    for pair in calls[4..].windows(2) {
        let Some(answered_after) = pair[0].answered_after else { continue };
        assert!(pair[1].at >= pair[0].at + answered_after, "two probes at a time: {pair:?}");
        assert_eq!(pair[1].job_ids.len(), 1);
    }
    simulator.clear_faults();
    for watch in &mut watches {
        loop {
            match watch.next().await.unwrap().unwrap() {
                Event::Heartbeat(_) => break,
                // An interruption that lasts is sent again.
                Event::Interruption(_) => {}
                Event::Status(status) => panic!("nothing has changed: {status:?}"),
            }
        }
    }
}

async fn health(client: &mut Client) -> BackendHealth {
    let listed = guard(client.list_backends(ListBackendsRequest {})).await.unwrap().into_inner();
    listed.backends[0].health()
}

#[tokio::test]
async fn slow_or_dead_backend_does_not_delay_another() {
    let (slow, stuck, good) = (
        simulator(Vendor::Kinetica).await,
        simulator(Vendor::Datasaur).await,
        simulator(Vendor::Immuta).await,
    );
    slow.inject(Fault::new(Effect::HoldResponse));
    stuck.inject(Fault::new(Effect::Hang));
    let dead = Backend::dead(Vendor::Claret).await;
    let patient = |simulator| Backend::of(simulator).poll("timeout", "\"10m\"");
    let backends = [patient(&slow), patient(&stuck), dead, Backend::of(&good)];
    let gateway = Gateway::start(backends).await;
    let client = gateway.client();
    let mut bad = Vec::new();
    for n in 1..=20 {
        for backend in ["kinetica", "datasaur", "claret"] {
            bad.push(Watch::of(&client, &job(backend, &n.to_string())).await);
        }
    }
    guard(slow.wait_for_calls("/get/job", 1)).await;
    guard(stuck.wait_for_calls("/oauth/token", 1)).await;
    let started = good.start_job(Plan::fixed("created"));
    let job = job_at(&good, &started);
    let mut watch = Watch::of(&client, &job).await;
    watch.status().await;
    for word in ["active", "retry", "active", "completed"] {
        good.set_state(&started.id, word);
        assert_eq!(watch.status().await.vendor_state, word);
    }
    get(&client, &job).await.unwrap();
    // All of it before any response of the slow backend.
    slow.clear_faults();
    assert_eq!(code_and_reason(&bad[0].end().await.unwrap_err()).1, "JOB_NOT_FOUND");
}
