//! Watches of one job.

use tokio::time::Instant;

use super::rig::*;
use crate::{engine::Failure, job::JobState};

#[tokio::test(start_paused = true)]
async fn watch_sends_every_state_once_and_ends_after_the_terminal_one() {
    let rig = rig();
    rig.script.set("a", JobState::Pending);
    let mut watch = rig.watch("a");
    assert_eq!(event(&mut watch).await, "Pending");
    rig.script.set("a", JobState::Running);
    assert_eq!(event(&mut watch).await, "Running");
    rig.script.set("a", JobState::Succeeded);
    assert_eq!(event(&mut watch).await, "Succeeded");
    assert_eq!(event(&mut watch).await, "end");
    assert_eq!(event(&mut watch).await, "end");
}

#[tokio::test(start_paused = true)]
async fn slow_reader_skips_intermediate_states_and_receives_the_terminal_one() {
    let rig = rig();
    rig.script.set("a", JobState::Pending);
    let mut watch = rig.watch("a");
    assert_eq!(event(&mut watch).await, "Pending");
    for state in [JobState::Running, JobState::Retrying, JobState::Running, JobState::Failed] {
        rig.script.set("a", state);
        pass(12 * SECOND).await;
    }
    assert_eq!([event(&mut watch).await, event(&mut watch).await], ["Failed", "end"]);
}

#[tokio::test(start_paused = true)]
async fn idle_watch_sends_heartbeats_and_no_status_twice() {
    let rig = rig();
    rig.script.set_word("a", JobState::Running, "same");
    let mut watch = rig.watch("a");
    let started = Instant::now();
    assert_eq!(event(&mut watch).await, "Running");
    for heartbeat in 1..4 {
        assert_eq!(event(&mut watch).await, "heartbeat");
        assert!(started.elapsed() >= 30 * heartbeat * SECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn missing_job_is_waited_for_until_the_grace_ends() {
    let rig = rig();
    let mut watch = rig.watch("late");
    let register = async {
        pass(3 * SECOND).await;
        rig.script.set("late", JobState::Pending);
    };
    let (first, ()) = tokio::join!(event(&mut watch), register);
    assert_eq!(first, "Pending");
    let started = Instant::now();
    let mut never = rig.watch("never");
    assert_eq!(event(&mut never).await, "failed: the vendor does not know this job");
    assert!((10 * SECOND..12 * SECOND).contains(&started.elapsed()), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn watch_of_a_vanished_job_ends_with_its_last_status() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    let mut watch = rig.watch("a");
    let (_, token) = event_and_token(&mut watch).await;
    rig.script.remove("a");
    let Some(Err(Failure::Gone { last })) = watch.next().await else { panic!("gone") };
    assert_eq!(last.unwrap().snapshot.state, JobState::Running);
    assert!(watch.next().await.is_none());
    drop(watch);
    let mut resumed = rig.resume("a", &token);
    assert!(matches!(resumed.next().await, Some(Err(Failure::Gone { last: None }))));
}

#[tokio::test(start_paused = true)]
async fn single_answer_without_the_job_does_not_end_its_watch() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    let mut watch = rig.watch("a");
    assert_eq!(event(&mut watch).await, "Running");
    rig.script.remove("a");
    pass(SECOND + LATENCY).await;
    rig.script.set("a", JobState::Succeeded);
    assert_eq!([event(&mut watch).await, event(&mut watch).await], ["Succeeded", "end"]);
}
