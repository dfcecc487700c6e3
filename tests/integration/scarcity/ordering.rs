//! A watch that is resumed at another replica never receives an older status after a
//! newer one.

use jobwatch::{
    proto::v1::{JobRef, JobState as S, JobStatus, WatchJobRequest},
    simulators::{Effect, Fault, Plan, Vendor},
};

use crate::harness::*;

fn resumed(token: &str, job: &JobRef) -> WatchJobRequest {
    WatchJobRequest { resume_token: token.to_owned(), ..watch_request(job) }
}

/// Replica A has a poll in flight whose response holds the older state; replica B
/// shows a newer status; the watch resumes at A with B's token.
#[tokio::test]
async fn watch_resumed_during_a_slow_poll_receives_nothing_older() {
    let simulator = simulator(Vendor::Immuta).await;
    let started = simulator.start_job(Plan::fixed("created"));
    let job = job_at(&simulator, &started);
    let slow = Gateway::start([Backend::of(&simulator).poll("timeout", "\"10m\"")]).await;
    let fast = Gateway::start([Backend::of(&simulator)]).await;

    simulator.inject(Fault::new(Effect::HoldResponse).times(1));
    let mut first = Watch::of(&slow.client(), &job).await;
    // The response with the state "created" is ready and held back.
    guard(simulator.wait_for_responses("/jobs/statuses", 1)).await;
    simulator.set_state(&started.id, "active");
    let mut watch = Watch::of(&fast.client(), &job).await;
    assert_eq!(watch.status().await.state(), S::Running);
    drop(fast);

    let mut watch = Watch::open(&slow.client(), resumed(&watch.token, &job)).await.unwrap();
    simulator.clear_faults();
    assert_eq!(first.status().await.state(), S::Pending, "a new watch may show what the poll found");
    assert_eq!(first.status().await.state(), S::Running);
    simulator.finish(&started.id);
    let (statuses, end) = watch.rest().await;
    end.unwrap();
    let states: Vec<_> = statuses.iter().map(JobStatus::state).collect();
    assert_eq!(states, [S::Succeeded], "RUNNING was shown before, and PENDING is older");
}

/// The same where the slow poll finds the terminal status: it is never too old.
#[tokio::test]
async fn watch_resumed_during_a_slow_poll_receives_its_terminal_status() {
    let simulator = simulator(Vendor::Immuta).await;
    let started = simulator.start_job(Plan::fixed("active"));
    let job = job_at(&simulator, &started);
    let slow = Gateway::start([Backend::of(&simulator).poll("timeout", "\"10m\"")]).await;
    let fast = Gateway::start([Backend::of(&simulator)]).await;
    let mut watch = Watch::of(&fast.client(), &job).await;
    assert_eq!(watch.status().await.state(), S::Running);
    // Stopped, not dropped: none of its polls may come from now on.
    let (end, ()) = tokio::join!(watch.end(), fast.stop());
    assert_eq!(code_and_reason(&end.unwrap_err()).1, "SHUTTING_DOWN");

    simulator.finish(&started.id);
    simulator.clear_calls();
    simulator.inject(Fault::new(Effect::HoldResponse).times(1));
    let first = Watch::of(&slow.client(), &job).await;
    guard(simulator.wait_for_responses("/jobs/statuses", 1)).await;
    let mut watch = Watch::open(&slow.client(), resumed(&watch.token, &job)).await.unwrap();
    simulator.clear_faults();
    assert_eq!(watch.terminal_status().await.state(), S::Succeeded);
    drop(first);
}
