//! What one of several replicas does with its part of the limits.

use tokio::time::Instant;

use super::test_backend::*;
use crate::engine::{PollOutcome, Refusal};

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
    vendor.backend.set_allowance((1, 800), (1, 8), None);
    let calls: Vec<_> = ids.iter().map(|id| subscribe(&vendor.backend, id, 0, call(None))).collect();
    let admitted = calls.iter().filter(|call| call.is_ok()).count();
    assert!((50..=70).contains(&admitted), "{admitted} calls with a minute's time at one request a second");
    let refused = calls.iter().find_map(|call| call.as_ref().err());
    assert!(matches!(refused, Some(Refusal::Overloaded { .. })), "{refused:?}");
    vendor.backend.set_allowance((1, 800), (1, 8), Some(Instant::now() + 60 * SECOND));
    assert!(subscribe(&vendor.backend, "job-0199", 0, call(None)).is_ok(), "the owner has all of it");
}

#[tokio::test(start_paused = true)]
async fn subscribers_of_a_replica_without_a_part_hear_why_and_are_polled_for_once_it_has_one() {
    let vendor = TestBackend::new(10);
    let ids = vendor.running(2);
    let before = vendor.watch(&ids[0]);
    pass(SECOND / 2).await;
    assert!(state(&before).is_some());
    vendor.backend.set_allowance(NO_PART, (1, 1), None);
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

    vendor.backend.set_allowance(NO_PART, (1, 1), Some(Instant::now() + 600 * SECOND));
    pass(SECOND).await;
    for watch in [&before, &after] {
        assert_eq!(outcome(watch), PollOutcome::Observed);
    }
}

#[tokio::test(start_paused = true)]
async fn replica_without_a_part_is_not_barred_while_another_one_polls_for_it() {
    let vendor = TestBackend::new(10);
    let ids = vendor.running(1);
    vendor.backend.begin_following();
    vendor.backend.set_allowance(NO_PART, (1, 1), None);
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
