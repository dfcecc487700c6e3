//! Polling: intervals, batches, cancelled polls, outages, limits.

use super::test_backend::*;
use crate::{
    engine::{Health, PollOutcome, PollPlan, Subscription},
    job::{BackendFault, FaultKind, JobState},
};

#[tokio::test(start_paused = true)]
async fn hundred_watches_of_one_job_cost_one_request_an_interval() {
    let vendor = TestBackend::new(1);
    vendor.script.set("a", JobState::Running);
    let watches: Vec<Subscription> = (0..100).map(|_| vendor.watch("a")).collect();
    pass(9 * SECOND + SECOND / 2).await;
    assert_eq!(vendor.script.calls().len(), 10, "one at once, then one a second");
    assert!(watches.iter().all(is_running));
}

#[tokio::test(start_paused = true)]
async fn poll_interval_grows_without_changes_and_shrinks_after_one() {
    let vendor = TestBackend::new(1);
    vendor.script.set("a", JobState::Pending);
    let watch = vendor.watch("a");
    pass(300 * SECOND).await;
    vendor.script.forget_calls();
    pass(100 * SECOND).await;
    assert!((9..=10).contains(&vendor.script.calls().len()));
    vendor.script.set("a", JobState::Running);
    pass(11 * SECOND).await;
    assert_eq!(state(&watch), Some(JobState::Running));
    vendor.script.forget_calls();
    pass(5 * SECOND).await;
    assert!((4..=6).contains(&vendor.script.calls().len()));
}

#[tokio::test(start_paused = true)]
async fn shorter_interval_of_one_watch_ends_with_that_watch() {
    let vendor = TestBackend::new(1);
    vendor.script.set("a", JobState::Running);
    let _slow = vendor.watch("a");
    pass(1000 * SECOND).await;
    let fast = vendor.watch_every("a", Some(2 * SECOND));
    vendor.script.forget_calls();
    pass(20 * SECOND).await;
    assert!((9..=11).contains(&vendor.script.calls().len()), "{}", vendor.script.calls().len());
    drop(fast);
    pass(10 * SECOND).await;
    vendor.script.forget_calls();
    pass(100 * SECOND).await;
    assert!((9..=11).contains(&vendor.script.calls().len()), "{}", vendor.script.calls().len());
}

#[tokio::test(start_paused = true)]
async fn thousand_jobs_cost_as_many_requests_as_they_fill_batches() {
    let vendor = TestBackend::new(200);
    let watches = vendor.watch_all(&vendor.running(1000));
    pass(SECOND / 2).await;
    assert_eq!(vendor.script.calls().len(), 5);
    assert!(watches.iter().all(is_running));
    pass(5 * SECOND).await;
    assert_eq!(vendor.script.calls().len(), 5 * 6);
}

#[tokio::test(start_paused = true)]
async fn jobs_that_were_watched_one_by_one_come_to_share_batches() {
    let vendor = TestBackend::new(200);
    let mut watches = Vec::new();
    for id in vendor.running(90) {
        watches.push(vendor.watch(&id));
        pass(SECOND / 9).await;
    }
    pass(300 * SECOND).await;
    vendor.script.forget_calls();
    pass(100 * SECOND).await;
    let calls = vendor.script.calls();
    assert!((10..=11).contains(&calls.len()), "{}", calls.len());
    assert!(calls.iter().all(|call| call.ids.len() == 90));
}

#[tokio::test(start_paused = true)]
async fn job_without_subscribers_is_not_polled() {
    let vendor = TestBackend::new(1);
    vendor.script.set("a", JobState::Running);
    let watch = vendor.watch("a");
    pass(SECOND / 2).await;
    drop(watch);
    vendor.script.forget_calls();
    pass(100 * SECOND).await;
    assert!(vendor.script.calls().is_empty());
    assert_eq!(vendor.subscribed(), 0);
}

#[tokio::test(start_paused = true)]
async fn poll_is_cancelled_when_the_last_subscriber_of_its_jobs_leaves() {
    let vendor = TestBackend::new(200);
    vendor.running(2);
    let (first, second) = (vendor.watch("job-0000"), vendor.watch("job-0001"));
    pass(LATENCY / 2).await;
    assert_eq!(vendor.script.in_flight(), 1);
    drop(first);
    pass(LATENCY / 10).await;
    assert_eq!(vendor.script.in_flight(), 1, "the other job has a subscriber");
    drop(second);
    pass(LATENCY / 10).await;
    assert_eq!((vendor.script.in_flight(), vendor.subscribed()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn job_subscribed_to_while_its_poll_is_cancelled_is_polled() {
    let vendor = TestBackend::new(1);
    vendor.script.set("a", JobState::Running);
    let first = vendor.watch("a");
    pass(LATENCY / 2).await;
    drop(first);
    let second = vendor.watch("a");
    pass(2 * LATENCY).await;
    assert!(is_running(&second));
}

#[tokio::test(start_paused = true)]
async fn terminal_job_is_not_polled_again() {
    let vendor = TestBackend::new(1);
    vendor.script.set("a", JobState::Succeeded);
    let watch = vendor.watch("a");
    pass(SECOND / 2).await;
    assert_eq!(state(&watch), Some(JobState::Succeeded));
    pass(100 * SECOND).await;
    assert_eq!(vendor.script.calls().len(), 1);
    assert!(vendor.backend.memory().cache.get(&job("a")).is_some());
    vendor.backend.check();
}

#[tokio::test(start_paused = true)]
async fn missing_job_is_polled_at_the_shortest_interval() {
    let vendor = TestBackend::new(1);
    let watch = vendor.watch("late");
    pass(SECOND / 2).await;
    assert_eq!(outcome(&watch), PollOutcome::Missing { times: 1 });
    pass(2 * SECOND).await;
    vendor.script.set("late", JobState::Pending);
    pass(SECOND).await;
    assert_eq!(state(&watch), Some(JobState::Pending));
}

#[tokio::test(start_paused = true)]
async fn outage_interrupts_jobs_and_ends_with_their_newest_status() {
    let vendor = TestBackend::new(200);
    let ids = vendor.running(500);
    let watches = vendor.watch_all(&ids);
    pass(SECOND / 2).await;
    vendor.script.fail_all();
    pass(60 * SECOND).await;
    for watch in &watches {
        assert!(is_interrupted(watch));
        assert!(is_running(watch), "a failed poll is not a failed job");
    }
    assert!(vendor.script.calls().len() < 40, "{} requests", vendor.script.calls().len());
    // A probe may be in flight at this moment, so it need not be paused.
    assert!(is_interrupted(&vendor.watch("new")));
    vendor.backend.check();
    for id in &ids {
        vendor.script.set(id, JobState::Succeeded);
    }
    vendor.script.recover();
    pass(31 * SECOND).await;
    assert!(watches.iter().all(|watch| state(watch) == Some(JobState::Succeeded)));
}

#[tokio::test(start_paused = true)]
async fn half_open_circuit_breaker_sends_one_probe_at_a_time() {
    let vendor = TestBackend::new(1);
    let _watches = vendor.watch_all(&vendor.running(20));
    vendor.script.fail_all();
    pass(10 * SECOND).await;
    vendor.script.forget_calls();
    pass(300 * SECOND).await;
    let calls = vendor.script.calls();
    assert!(calls.len() >= 300 / 31);
    for pair in calls.windows(2) {
        assert!(pair[1].at - pair[0].at >= SECOND, "one probe, then a back-off");
    }
}

#[tokio::test(start_paused = true)]
async fn jobs_that_no_request_was_sent_for_say_nothing_of_the_backend() {
    let vendor = TestBackend::new(1);
    let tagged = vendor.watch_all(&vendor.running(5));
    let names: Vec<String> = (0..20).map(|n| format!("untagged-{n}")).collect();
    for id in &names {
        vendor.script.needs_tag(id);
    }
    let untagged = vendor.watch_all(&names);
    pass(60 * SECOND).await;
    assert!(tagged.iter().all(is_observed), "the circuit breaker stays closed");
    let detail = |watch: &Subscription| match outcome(watch) {
        PollOutcome::Interrupted(interruption) => interruption.fault.detail,
        other => panic!("{other:?}"),
    };
    assert!(untagged.iter().all(|watch| detail(watch) == Some("standby_needs_job_tag")));

    vendor.script.fail_all();
    pass(60 * SECOND).await;
    vendor.script.forget_calls();
    pass(300 * SECOND).await;
    assert_eq!(vendor.health(), Health::Unavailable, "the circuit breaker stays open");
    let mut calls = vendor.script.calls();
    calls.retain(|call| !call.ids[0].starts_with("untagged"));
    assert!(calls.len() >= 5);
    assert!(calls.windows(2).all(|pair| pair[1].at - pair[0].at >= SECOND), "{calls:?}");
    vendor.script.recover();
    pass(60 * SECOND).await;
    assert!(tagged.iter().all(is_observed));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_during_a_requested_wait() {
    let vendor = TestBackend::new(1);
    let watches = vendor.watch_all(&vendor.running(3));
    pass(SECOND / 2).await;
    vendor.script.fail(BackendFault::from(FaultKind::Throttled).with_retry_after(Some(40 * SECOND)));
    pass(SECOND).await;
    vendor.script.recover();
    vendor.script.forget_calls();
    pass(39 * SECOND).await;
    assert!(vendor.script.calls().is_empty(), "{:?}", vendor.script.calls());
    assert!(watches.iter().all(is_interrupted));
    pass(2 * SECOND).await;
    assert!(watches.iter().all(is_observed));
}

#[tokio::test(start_paused = true)]
async fn refusal_with_a_requested_wait_holds_back_jobs_that_were_never_polled() {
    let vendor = TestBackend::new(1);
    let watches = vendor.watch_all(&vendor.running(1));
    pass(SECOND / 2).await;
    let refusal = BackendFault::from(FaultKind::Rejected { message: "not now".into() });
    vendor.script.fail(refusal.with_retry_after(Some(40 * SECOND)));
    pass(11 * SECOND).await;
    assert!(watches.iter().all(is_interrupted));
    vendor.script.recover();
    vendor.script.forget_calls();
    vendor.script.set("late", JobState::Running);
    let late = vendor.watch("late");
    pass(20 * SECOND).await;
    assert!(vendor.script.calls().is_empty(), "{:?}", vendor.script.calls());
    pass(21 * SECOND).await;
    assert!(is_running(&late) && watches.iter().all(is_observed));
}

#[tokio::test(start_paused = true)]
async fn concurrency_and_rate_stay_within_their_limits_and_are_used() {
    let plan = PollPlan { max_concurrency: nonzero(2), requests_per_second: per_second(5), ..plan(1) };
    let vendor = TestBackend::with_plan(plan);
    let _watches = vendor.watch_all(&vendor.running(100));
    pass(60 * SECOND).await;
    assert!(vendor.script.most_in_flight() <= 2);
    let calls = vendor.script.calls();
    for (index, call) in calls.iter().enumerate() {
        let within = calls[index..].iter().filter(|other| other.at < call.at + SECOND).count();
        assert!(within <= 5, "{within}");
    }
    assert!(calls.len() >= 290, "{} requests", calls.len());
}

#[tokio::test(start_paused = true)]
async fn panic_while_an_answer_is_read_loses_no_job() {
    let vendor = TestBackend::new(200);
    let watches = vendor.watch_all(&vendor.running(10));
    vendor.script.panics(true);
    pass(SECOND / 2).await;
    assert!(watches.iter().all(is_interrupted));
    vendor.script.panics(false);
    pass(11 * SECOND).await;
    assert!(watches.iter().all(is_running));
    vendor.backend.check();
}

#[tokio::test(start_paused = true)]
async fn replaced_credentials_are_tried_at_once() {
    let vendor = TestBackend::new(200);
    let watches = vendor.watch_all(&vendor.running(20));
    vendor.script.fail(FaultKind::CredentialsRejected);
    pass(300 * SECOND).await;
    assert_eq!(vendor.health(), Health::Unavailable);
    vendor.script.recover();
    vendor.script.rotate_credentials();
    // The batch size grows from small after an outage.
    pass(8 * LATENCY).await;
    assert!(watches.iter().all(is_running));
}

#[tokio::test(start_paused = true)]
async fn polls_that_fail_together_do_not_open_the_circuit_breaker() {
    for _ in 0..20 {
        let vendor = TestBackend::new(1);
        let watches = vendor.watch_all(&vendor.running(8));
        pass(SECOND / 2).await;
        vendor.script.fail_all();
        pass(SECOND).await;
        vendor.script.recover();
        pass(4 * SECOND).await;
        assert!(watches.iter().all(is_observed));
    }
}
