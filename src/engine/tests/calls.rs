//! Calls for a status.

use std::sync::Arc;

use tokio::time::{Instant, timeout};

use super::{rig::*, script::Script};
use crate::{
    engine::{Failure, GetOptions, JobStatuses, MissedDeadline, PollPlan, WatchLimits},
    job::{BackendFault, FaultKind, JobRef, JobState},
};

#[tokio::test(start_paused = true)]
async fn get_returns_status_of_a_poll_that_began_after_it_or_was_in_flight() {
    let rig = rig();
    rig.script.set("a", JobState::Pending);
    let _watch = rig.watch("a");
    pass(SECOND / 2).await;
    rig.script.set("a", JobState::Running);
    assert_eq!(rig.get("a", fresh()).await.unwrap(), JobState::Running);
    assert_eq!(rig.script.calls().len(), 2);
    let get = || async { rig.get("a", fresh()).await.unwrap() };
    tokio::join!(get(), get(), async {
        pass(LATENCY / 2).await;
        get().await
    });
    assert_eq!(rig.script.calls().len(), 3, "three calls at once share one poll");
}

#[tokio::test(start_paused = true)]
async fn get_with_max_age_returns_known_status_if_it_is_fresh_enough() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    let _watch = rig.watch("a");
    pass(SECOND / 2).await;
    assert_eq!(rig.get("a", aged(SECOND)).await.unwrap(), JobState::Running);
    assert_eq!(rig.script.calls().len(), 1);
    rig.get("a", aged(SECOND / 10)).await.unwrap();
    assert_eq!(rig.script.calls().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn cancelled_get_costs_no_further_poll() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    assert!(timeout(LATENCY / 2, rig.get("a", fresh())).await.is_err());
    pass(LATENCY / 10).await;
    assert_eq!((rig.script.in_flight(), rig.subscribed()), (0, 0));
    pass(60 * SECOND).await;
    assert_eq!(rig.script.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn terminal_status_is_returned_without_another_poll() {
    let rig = rig();
    rig.script.set("a", JobState::Succeeded);
    for _ in 0..10 {
        assert_eq!(rig.get("a", fresh()).await.unwrap(), JobState::Succeeded);
    }
    let mut watch = rig.watch("a");
    assert_eq!([event(&mut watch).await, event(&mut watch).await], ["Succeeded", "end"]);
    assert_eq!(rig.script.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn terminal_status_of_a_job_that_may_run_again_is_cached_for_a_poll_interval() {
    let rig = rig_of(limits(many_watches()), PollPlan { terminal_age: Some(SECOND), ..plan(200) });
    rig.script.set("a", JobState::Succeeded);
    for _ in 0..3 {
        assert_eq!(rig.get("a", fresh()).await.unwrap(), JobState::Succeeded);
    }
    let mut ended = rig.watch("a");
    assert_eq!([event(&mut ended).await, event(&mut ended).await], ["Succeeded", "end"]);
    assert_eq!(rig.script.calls().len(), 1);

    rig.script.set("a", JobState::Running);
    pass(SECOND).await;
    assert_eq!(rig.get("a", aged(60 * SECOND)).await.unwrap(), JobState::Running, "whatever its max_age");
    assert_eq!(rig.script.calls().len(), 2);
    let mut watch = rig.watch("a");
    assert_eq!(event(&mut watch).await, "Running");
    rig.script.set("a", JobState::Failed);
    assert_eq!([event(&mut watch).await, event(&mut watch).await], ["Failed", "end"]);
    assert_eq!(rig.get("a", fresh()).await.unwrap(), JobState::Failed);
}

#[tokio::test(start_paused = true)]
async fn get_with_wait_returns_at_the_end_of_the_job_or_the_newest_status_at_the_end_of_the_wait() {
    let rig = rig();
    rig.script.set("a", JobState::Pending);
    let started = Instant::now();
    let change = async {
        pass(5 * SECOND).await;
        rig.script.set("a", JobState::Running);
    };
    let (state, ()) = tokio::join!(rig.get("a", waiting(20 * SECOND)), change);
    assert_eq!((state.unwrap(), started.elapsed()), (JobState::Running, 20 * SECOND));
    let end = async {
        pass(5 * SECOND).await;
        rig.script.set("a", JobState::Failed);
    };
    let (state, ()) = tokio::join!(rig.get("a", waiting(20 * SECOND)), end);
    assert_eq!(state.unwrap(), JobState::Failed);
    assert!(started.elapsed() < 27 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn get_with_wait_outlasts_an_outage_and_a_late_job() {
    let rig = rig();
    rig.script.fail_all();
    let recover = async {
        pass(5 * SECOND).await;
        rig.script.recover();
        pass(3 * SECOND).await;
        rig.script.set("a", JobState::Cancelled);
    };
    let (state, ()) = tokio::join!(rig.get("a", waiting(60 * SECOND)), recover);
    assert_eq!(state.unwrap(), JobState::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn get_fails_at_once_when_its_poll_fails() {
    let rig = rig();
    rig.script.fail_all();
    let failure = rig.get("a", fresh()).await.unwrap_err();
    assert!(matches!(failure, Failure::Backend { retry_in, .. } if retry_in >= SECOND));
    assert!(matches!(rig.get("missing", fresh()).await, Err(Failure::Backend { .. })));
    rig.script.recover();
    assert!(matches!(rig.get("missing", fresh()).await, Err(Failure::NotFound)));
}

#[tokio::test(start_paused = true)]
async fn get_during_retry_after_fails_at_once_unless_a_known_status_is_fresh_enough() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    let _watch = rig.watch("a");
    pass(SECOND / 2).await;
    rig.script.fail(BackendFault::from(FaultKind::Throttled).with_retry_after(Some(20 * SECOND)));
    let first = rig.get("a", fresh()).await;
    let retry_after = 20 * SECOND;
    assert!(matches!(first, Err(Failure::Backend { retry_in, .. }) if retry_in == retry_after), "{first:?}");
    pass(5 * SECOND).await;
    rig.script.forget_calls();
    for id in ["a", "new"] {
        let failure = rig.get(id, fresh()).await.unwrap_err();
        let Failure::Backend { fault, retry_in } = failure else { panic!("{failure}") };
        assert!(matches!(fault.kind, FaultKind::Throttled));
        assert_eq!(retry_in, 15 * SECOND, "the time left");
    }
    let known = rig.get("a", aged(60 * SECOND)).await;
    assert_eq!(known.unwrap(), JobState::Running);
    assert!(rig.script.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn batch_across_backends_is_answered_in_order_with_an_error_for_each_failed_element() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    rig.other.set("b", JobState::Succeeded);
    let jobs = [
        job("a"),
        JobRef::new("other", "b"),
        job("missing"),
        job("a"),
        job("bad id"),
        JobRef::new("nowhere", "x"),
    ];
    let answers = rig.engine.batch_get(&jobs, fresh()).await;
    let short: Vec<String> = answers
        .iter()
        .map(|answer| match answer {
            Ok(latest) => format!("{:?}", latest.snapshot.state),
            Err(failure) => failure.to_string(),
        })
        .collect();
    assert_eq!(
        short,
        [
            "Running",
            "Succeeded",
            "the vendor does not know this job",
            "Running",
            "must not be bad",
            "no backend has this name"
        ]
    );
    assert_eq!(rig.script.calls().len(), 1, "the jobs of one backend share a poll");
}

#[tokio::test(start_paused = true)]
async fn batch_with_a_silent_backend_returns_the_other_elements_at_its_deadline() {
    let (script, silent) = (Script::new(LATENCY), Script::new(3600 * SECOND));
    script.set("a", JobState::Running);
    let setups = vec![setup("vendor", 1, Arc::clone(&script) as _), setup("silent", 1, silent)];
    let running = start(setups, limits(WatchLimits { total: 1, per_caller: 1, per_call: 1 }));
    let started = Instant::now();
    let options = GetOptions { deadline: started + 30 * SECOND, ..fresh() };
    let answers = running.engine.batch_get(&[JobRef::new("silent", "x"), job("a")], options).await;
    assert!(matches!(answers[0], Err(Failure::Deadline(MissedDeadline::Answer))));
    assert!(answers[1].is_ok());
    assert_eq!(started.elapsed(), 30 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn call_whose_deadline_has_passed_ends_with_that() {
    let running = start(
        vec![setup("silent", 1, Script::new(3600 * SECOND))],
        limits(WatchLimits { total: 1, per_caller: 1, per_call: 1 }),
    );
    let options = GetOptions { deadline: Instant::now(), ..fresh() };
    let answers = running.engine.batch_get(&[JobRef::new("silent", "x")], options).await;
    assert!(matches!(answers[0], Err(Failure::Deadline(_))), "{answers:?}");
}
