//! What one of several replicas does with its part of the limits.

use std::time::Duration;

use tokio::time::Instant;

use super::test_backend::*;
use crate::engine::{PollOutcome, Queue, Refusal};

const NO_PART: (u32, u32) = (0, 2);

fn why(subscription: &crate::engine::Subscription) -> String {
    match outcome(subscription) {
        PollOutcome::Interrupted(interruption) => interruption.fault.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn calls_beyond_the_part_of_a_replica_are_refused_at_once() {
    let vendor = TestBackend::new(1);
    let ids = vendor.running(200);
    vendor.backend.set_allowance((1, 800), (1, 8), false, None);
    let calls: Vec<_> = ids.iter().map(|id| subscribe(&vendor.backend, id, 0, call(None))).collect();
    let admitted = calls.iter().filter(|call| call.is_ok()).count();
    assert!((50..=70).contains(&admitted), "{admitted} calls with a minute's time at one request a second");
    let refused = calls.iter().find_map(|call| call.as_ref().err());
    assert!(matches!(refused, Some(Refusal::Overloaded { .. })), "{refused:?}");
    vendor.backend.set_allowance((1, 800), (1, 8), true, Some(Instant::now() + 60 * SECOND));
    assert!(subscribe(&vendor.backend, "job-0199", 0, call(None)).is_ok(), "the owner has all of it");
}

#[tokio::test(start_paused = true)]
async fn subscribers_of_a_replica_without_a_part_hear_why_and_are_polled_for_once_it_has_one() {
    let vendor = TestBackend::new(10);
    let ids = vendor.running(2);
    let before = vendor.watch(&ids[0]);
    pass(SECOND / 2).await;
    assert!(state(&before).is_some());
    vendor.backend.set_allowance(NO_PART, (1, 1), false, None);
    vendor.script.forget_calls();
    let called = Instant::now();
    let call = vendor.call(&ids[1]);
    assert!(call.paused().is_some() && is_interrupted(&call), "at once: {:?}", outcome(&call));
    drop(call);
    let after = vendor.watch(&ids[1]);
    pass(60 * SECOND).await;
    for watch in [&before, &after] {
        assert!(why(watch).contains("requests_per_second is lower than cluster.replicas"), "{}", why(watch));
    }
    assert!(vendor.script.calls().is_empty());
    let polls = before.look(|record| record.polls);
    assert!((4..=8).contains(&polls), "every ten seconds: {polls} in {:?}", called.elapsed());

    vendor.backend.set_allowance(NO_PART, (1, 1), true, Some(Instant::now() + 600 * SECOND));
    pass(SECOND).await;
    for watch in [&before, &after] {
        assert_eq!(outcome(watch), PollOutcome::Observed);
    }
}

#[tokio::test(start_paused = true)]
async fn owner_that_waits_for_its_part_is_not_barred() {
    let vendor = TestBackend::new(10);
    let ids = vendor.running(1);
    vendor.backend.set_allowance(NO_PART, (1, 1), true, None);
    let call = vendor.call(&ids[0]);
    pass(SECOND).await;
    assert!(call.paused().is_none() && !is_interrupted(&call), "{:?}", outcome(&call));
    vendor.backend.set_allowance(NO_PART, (1, 1), true, Some(Instant::now() + 60 * SECOND));
    pass(SECOND).await;
    assert_eq!(outcome(&call), PollOutcome::Observed);
}

#[tokio::test(start_paused = true)]
async fn calls_are_admitted_where_the_owners_rate_is_no_number_and_refused_for_seconds_where_it_is_low() {
    let vendor = TestBackend::new(10);
    vendor.running(3);
    vendor.backend.begin_following();
    let now = Instant::now();
    for jobs_per_second in [0.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        vendor.backend.set_owners_queue(Queue { jobs: 1, jobs_per_second, latency: Duration::ZERO }, now);
        assert!(subscribe(&vendor.backend, "job-0000", 0, call(None)).is_ok(), "{jobs_per_second}");
    }
    for (jobs, jobs_per_second, latency) in [
        (usize::MAX, 1.0, Duration::MAX),
        (usize::MAX, f64::MIN_POSITIVE, Duration::ZERO),
        (1000, 0.001, Duration::ZERO),
    ] {
        vendor.backend.set_owners_queue(Queue { jobs, jobs_per_second, latency }, now);
        match subscribe(&vendor.backend, "job-0001", 0, call(None)) {
            Err(Refusal::Overloaded { retry_in }) => assert!(retry_in <= 10 * SECOND, "{retry_in:?}"),
            other => panic!("{other:?}"),
        }
    }
    pass(11 * SECOND).await;
    assert!(subscribe(&vendor.backend, "job-0002", 0, call(None)).is_ok(), "it is not known any more");
}

#[tokio::test(start_paused = true)]
async fn replica_without_a_part_is_not_barred_while_another_one_polls_for_it() {
    let vendor = TestBackend::new(10);
    let ids = vendor.running(1);
    vendor.backend.begin_following();
    vendor.backend.set_allowance(NO_PART, (1, 1), false, None);
    let watch = vendor.watch(&ids[0]);
    pass(60 * SECOND).await;
    assert_eq!(outcome(&watch), PollOutcome::NotPolled);
    assert!(!vendor.backend.is_paused(Instant::now()), "followers hear of the vendor's pauses only");
    vendor.backend.end_following();
    pass(SECOND).await;
    assert!(is_interrupted(&watch));
    assert_eq!(vendor.backend.pause(Instant::now()), None, "nor does the next owner hear of this one");
    vendor.backend.begin_following();
    let other = vendor.watch("job-0001");
    assert_eq!(outcome(&other), PollOutcome::NotPolled);
    assert!(vendor.script.calls().is_empty());
}
