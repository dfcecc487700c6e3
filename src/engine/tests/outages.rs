//! What subscribers and reports say while a backend can't be polled.

use tokio::time::Instant;

use super::rig::*;
use crate::{
    engine::{Failure, Health},
    job::{FaultKind, JobState},
};

#[tokio::test(start_paused = true)]
async fn watch_sends_one_interruption_for_an_outage_and_a_heartbeat_at_its_end() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    let mut watch = rig.watch("a");
    assert_eq!(event(&mut watch).await, "Running");
    rig.script.fail_all();
    assert_eq!(event(&mut watch).await, "interrupted: the vendor gave no usable response: down");
    pass(2 * SECOND).await;
    rig.script.recover();
    assert_eq!(event(&mut watch).await, "heartbeat", "nothing changed, and that is known again");
    rig.script.fail_all();
    assert!(event(&mut watch).await.starts_with("interrupted"));
    rig.script.set("a", JobState::Succeeded);
    rig.script.recover();
    assert_eq!([event(&mut watch).await, event(&mut watch).await], ["Succeeded", "end"]);
}

#[tokio::test(start_paused = true)]
async fn long_outage_repeats_the_interruption_in_place_of_a_heartbeat() {
    let rig = rig();
    rig.script.fail_all();
    let mut watch = rig.watch("a");
    for _ in 0..3 {
        assert!(event(&mut watch).await.starts_with("interrupted"));
    }
}

#[tokio::test(start_paused = true)]
async fn watch_that_begins_in_an_outage_is_interrupted_at_once() {
    let rig = rig();
    rig.script.fail(FaultKind::CredentialsRejected);
    let mut first = rig.watch("a");
    assert!(event(&mut first).await.starts_with("interrupted"));
    pass(60 * SECOND).await;
    let started = Instant::now();
    let mut second = rig.watch("b");
    assert!(event(&mut second).await.starts_with("interrupted: the vendor rejects"));
    assert!(started.elapsed() < SECOND);
}

#[tokio::test(start_paused = true)]
async fn report_shows_an_outage_and_its_end() {
    let rig = rig();
    let health = || {
        let report = report_of(&rig.engine, "vendor").report;
        (report.health, report.last_fault.is_some(), report.subscribed_jobs)
    };
    assert_eq!(health(), (Health::Unknown, false, 0));
    rig.script.set("a", JobState::Running);
    let _watch = rig.watch("a");
    pass(SECOND / 2).await;
    assert_eq!(health(), (Health::Healthy, false, 1));
    rig.script.fail_all();
    pass(SECOND).await;
    assert_eq!(health(), (Health::Degraded, true, 1));
    pass(120 * SECOND).await;
    assert_eq!(health(), (Health::Unavailable, true, 1));
    rig.script.recover();
    pass(31 * SECOND).await;
    assert_eq!(health(), (Health::Healthy, false, 1));
}

#[tokio::test(start_paused = true)]
async fn watch_that_begins_during_a_slow_probe_is_interrupted_at_once() {
    let rig = rig();
    let _first = rig.watch("a");
    rig.script.fail(FaultKind::Unreachable { why: "down".into() });
    pass(400 * SECOND).await;
    rig.script.set_latency(15 * SECOND);
    while rig.script.in_flight() == 0 {
        pass(SECOND / 10).await;
    }
    let started = Instant::now();
    let mut second = rig.watch("b");
    assert!(event(&mut second).await.starts_with("interrupted"));
    assert!(started.elapsed() < SECOND);
}

#[tokio::test(start_paused = true)]
async fn poll_that_panics_interrupts_its_watch_and_is_sent_again() {
    let rig = rig();
    rig.script.panics(true);
    let mut watch = rig.watch("a");
    assert!(event(&mut watch).await.ends_with("reading it failed in the gateway"));
    rig.script.panics(false);
    rig.script.set("a", JobState::Running);
    assert_eq!(event(&mut watch).await, "Running");
}

/// A backend that refuses everything, until it is paused: a job that it refused before is
/// not polled meanwhile, and the call does not wait for its deadline.
#[tokio::test(start_paused = true)]
async fn get_of_a_quarantined_job_fails_at_once_while_the_backend_is_paused() {
    let rig = rig();
    rig.script.fail(FaultKind::Rejected { message: "no".into() });
    let began = Instant::now();
    for round in 0..60 {
        let failure = rig.get(&format!("job-{}", round % 6), fresh()).await.unwrap_err();
        assert!(matches!(failure, Failure::Backend { .. }), "{failure:?} in round {round}");
    }
    assert!(began.elapsed() < 60 * SECOND, "{:?} for 60 calls", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn gateway_without_room_for_responses_does_not_open_the_circuit_breaker() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    let mut watch = rig.watch("a");
    assert_eq!(event(&mut watch).await, "Running");
    rig.script.fail(FaultKind::Overloaded);
    pass(60 * SECOND).await;
    assert_eq!(report_of(&rig.engine, "vendor").report.health, Health::Healthy);
    rig.script.recover();
    assert_eq!(rig.get("a", fresh()).await.unwrap(), JobState::Running);
}
