//! Immuta's `wait`: what a held request gains, by the vendor's own call log.

use std::time::Duration;

use jobwatch::{
    proto::v1::JobState,
    simulators::{Outcome, Plan, Vendor},
};
use tokio::time::Instant;

use crate::harness::*;

const STATUSES: &str = "/jobs/statuses";
const LIFE: Duration = Duration::from_millis(7300);

/// Follows one job to its end; how late the end was known, and the requests it took.
async fn follow_to_the_end(long_poll: &str) -> (Duration, usize) {
    let simulator = simulator(Vendor::Immuta).await;
    let backend =
        Backend::of(&simulator).every(Duration::from_secs(3)).poll("long_poll", &format!("\"{long_poll}\""));
    let gateway = Gateway::start([backend]).await;
    let started = Instant::now();
    let job = simulator.start_job(Plan::succeeds(Outcome::Nothing).running_for(LIFE));
    let mut watch = Watch::of(&gateway.client(), &job_at(&simulator, &job)).await;
    let mut last = watch.status().await;
    while !last.terminal {
        last = watch.next_status().await;
    }
    assert_eq!(last.state(), JobState::Succeeded);
    (started.elapsed().saturating_sub(LIFE), simulator.count(STATUSES))
}

#[tokio::test]
async fn long_poll_finds_the_end_sooner_and_costs_no_more() {
    let ((late, polls), (soon, held)) = tokio::join!(follow_to_the_end("off"), follow_to_the_end("auto"));
    println!("a job of {LIFE:?} at an interval of 3 s, its end known late by:");
    println!("  without long polls {late:?}, with {polls} requests");
    println!("  with long polls    {soon:?}, with {held} requests");
    assert!(soon < Duration::from_millis(1600), "{soon:?}: within the vendor's own poll interval, or nearly");
    assert!(soon < late && held <= polls, "{held} {polls}");
}
