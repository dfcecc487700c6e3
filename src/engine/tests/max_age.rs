//! Calls with a `max_age`, and what watches and other calls see of jobs retained for them.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};

use super::rig::*;
use crate::{
    engine::{Event, Failure, JobStatuses},
    job::{JobRef, JobState},
};

const INTERVAL: Duration = Duration::from_secs(10);

#[tokio::test(start_paused = true)]
async fn clients_with_a_max_age_share_polls_though_they_call_at_different_times() {
    let rig = rig();
    let jobs: Vec<JobRef> = (0..100).map(|number| job(&number.to_string())).collect();
    for job in &jobs {
        rig.script.set(&job.id, JobState::Running);
    }
    // Each client has jobs of its own and some in common, and a time of its own.
    let client = async |number: usize| {
        let mine = &jobs[number * 10..number * 10 + 20];
        pass(u32::try_from(number).unwrap() * SECOND).await;
        for _ in 0..12 {
            let called_at = Instant::now();
            for answer in rig.engine.batch_get(mine, aged(INTERVAL)).await {
                assert!(called_at.saturating_duration_since(answer.unwrap().at) <= INTERVAL);
            }
            tokio::time::sleep_until(called_at + INTERVAL).await;
        }
    };
    futures_util::future::join_all((0..9).map(client)).await;
    // 9 clients, 12 times each, in 128 seconds.
    let calls = rig.script.calls();
    assert!(calls.len() <= 36, "{}", calls.len());
    assert_eq!(rig.subscribed(), 0);
    rig.script.forget_calls();
    pass(100 * INTERVAL).await;
    assert!(rig.script.calls().is_empty(), "nobody subscribes any more");
}

#[tokio::test(start_paused = true)]
async fn watch_of_a_retained_job_sends_what_the_vendor_says_now() {
    for get_first in [false, true] {
        let rig = rig();
        rig.script.set("a", JobState::Pending);
        rig.get("a", aged(60 * SECOND)).await.unwrap();
        pass(100 * SECOND).await;
        rig.script.set("a", JobState::Running);
        let mut get = Box::pin(rig.get("a", fresh()));
        if get_first {
            assert!(timeout(Duration::from_millis(1), &mut get).await.is_err());
        }
        let mut watch = rig.watch("a");
        assert_eq!(event(&mut watch).await, "Running", "get first: {get_first}");
        assert_eq!(get.await.unwrap(), JobState::Running);
    }
}

#[tokio::test(start_paused = true)]
async fn watch_of_a_retained_job_that_has_not_changed_sends_its_status_at_once() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    rig.get("a", aged(60 * SECOND)).await.unwrap();
    pass(100 * SECOND).await;
    let mut get = Box::pin(rig.get("a", fresh()));
    assert!(timeout(Duration::from_millis(1), &mut get).await.is_err());
    let mut watch = rig.watch("a");
    let began = Instant::now();
    assert_eq!(event(&mut watch).await, "Running");
    assert!(began.elapsed() <= 2 * LATENCY);
}

#[tokio::test(start_paused = true)]
async fn watch_of_a_retained_job_is_interrupted_by_an_outage_at_once() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    rig.get("a", aged(60 * SECOND)).await.unwrap();
    pass(SECOND).await;
    rig.script.fail_all();
    let mut watch = rig.watch("a");
    assert!(event(&mut watch).await.starts_with("interrupted"));
}

#[tokio::test(start_paused = true)]
async fn get_of_a_retained_job_returns_status_of_a_poll_that_began_after_it() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    rig.get("a", aged(60 * SECOND)).await.unwrap();
    rig.script.set("a", JobState::Retrying);
    assert_eq!(rig.get("a", aged(60 * SECOND)).await.unwrap(), JobState::Running);
    assert_eq!(rig.get("a", fresh()).await.unwrap(), JobState::Retrying);
    rig.script.remove("a");
    assert!(matches!(rig.get("a", fresh()).await, Err(Failure::Gone { .. })), "it was seen before");
    assert!(matches!(rig.get("a", aged(60 * SECOND)).await, Err(Failure::NotFound)));
}

#[tokio::test(start_paused = true)]
async fn retained_job_that_ends_is_refreshed_by_a_poll_of_another_job() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    rig.script.set("b", JobState::Running);
    rig.get("a", aged(INTERVAL)).await.unwrap();
    rig.script.set("a", JobState::Succeeded);
    pass(INTERVAL * 3 / 4).await;
    assert_eq!(rig.get("b", fresh()).await.unwrap(), JobState::Running);
    rig.script.forget_calls();
    assert_eq!(rig.get("a", fresh()).await.unwrap(), JobState::Succeeded);
    assert!(rig.script.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn unchanged_answer_updates_the_observe_time_and_is_no_event() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    let mut watch = rig.watch("a");
    assert_eq!(event(&mut watch).await, "Running");
    let observed = async || rig.engine.get(&job("a"), aged(60 * SECOND)).await.unwrap();
    let first = observed().await;
    assert!(is_silent(&mut watch, 5 * SECOND).await, "no event");
    let later = observed().await;
    assert!(later.at >= first.at + 4 * SECOND && later.time > first.time);
    assert!(Arc::ptr_eq(&first.snapshot, &later.snapshot), "it was not read again");

    rig.script.fail_all();
    assert!(event(&mut watch).await.starts_with("interrupted"));
    rig.script.recover();
    let Some(Ok(update)) = watch.next().await else { panic!("the watch goes on") };
    let Event::Heartbeat { observed: Some(at) } = update.event else { panic!("{:?}", update.event) };
    assert!(at > later.time);
    let last = observed().await;
    assert_eq!(last.time, at);
    assert!(Arc::ptr_eq(&first.snapshot, &last.snapshot));
}
