//! Backends that are retired and replaced while calls and watches are open.

use std::sync::Arc;

use tokio::time::{Instant, timeout};

use super::{
    rig::*,
    script::Script,
    watch_set::{outcome, wide_rig},
};
use crate::{
    engine::{Failure, JobStatuses},
    job::JobState,
};

const RETIRED: &str = "failed: the backend's configuration has changed; call again";
const UNKNOWN: &str = "failed: no backend has this name";

#[tokio::test(start_paused = true)]
async fn watch_of_a_retired_backend_receives_its_newest_status_and_ends() {
    let rig = rig();
    rig.script.set("a", JobState::Pending);
    let (mut slow, mut idle) = (rig.watch("a"), rig.watch("a"));
    assert_eq!([event(&mut slow).await, event(&mut idle).await], ["Pending", "Pending"]);
    rig.script.set("a", JobState::Running);
    assert_eq!(event(&mut idle).await, "Running");
    rig.engine.retire_backend("vendor");
    let ends = [event(&mut slow).await, event(&mut slow).await, event(&mut slow).await];
    assert_eq!(ends, ["Running", UNKNOWN, "end"]);
    assert_eq!(timeout(SECOND, event(&mut idle)).await.unwrap(), UNKNOWN);
    assert!(matches!(rig.get("a", fresh()).await, Err(Failure::UnknownBackend)));
}

#[tokio::test(start_paused = true)]
async fn waiting_reader_learns_at_once_that_its_backend_is_retired() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    let mut watch = rig.watch("a");
    assert_eq!(event(&mut watch).await, "Running");
    let started = Instant::now();
    let retire = async {
        pass(SECOND / 10).await;
        rig.engine.retire_backend("vendor");
    };
    let (end, ()) = tokio::join!(event(&mut watch), retire);
    assert_eq!(end, UNKNOWN);
    assert!(started.elapsed() < SECOND);
}

#[tokio::test(start_paused = true)]
async fn calls_in_progress_end_soon_after_their_backend_is_retired() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    rig.script.set_latency(40 * SECOND);
    let started = Instant::now();
    let retire = async {
        pass(SECOND).await;
        rig.engine.retire_backend("vendor");
    };
    let (plain, waits, ()) =
        tokio::join!(rig.get("a", fresh()), rig.get("b", waiting(3600 * SECOND)), retire);
    for failure in [plain, waits].map(Result::unwrap_err) {
        assert!(matches!(failure, Failure::UnknownBackend), "{failure:?}");
    }
    assert!(started.elapsed() <= 6 * SECOND, "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn batch_across_backends_keeps_the_answers_of_those_that_are_not_retired() {
    let rig = rig();
    rig.script.set_latency(3600 * SECOND);
    rig.other.set("b", JobState::Running);
    rig.other.set_latency(10 * SECOND);
    let jobs = [job("a"), crate::job::JobRef::new("other", "b")];
    let retire = async {
        pass(SECOND).await;
        rig.engine.retire_backend("vendor");
    };
    let (answers, ()) = tokio::join!(rig.engine.batch_get(&jobs, fresh()), retire);
    assert!(matches!(answers[0], Err(Failure::UnknownBackend)), "{answers:?}");
    assert!(answers[1].is_ok(), "{answers:?}");
}

#[tokio::test(start_paused = true)]
async fn retired_backend_is_not_polled_any_more() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    let _watch = rig.watch("a");
    pass(10 * SECOND).await;
    rig.script.set_latency(10 * SECOND);
    while rig.script.in_flight() == 0 {
        pass(SECOND / 10).await;
    }
    rig.engine.retire_backend("vendor");
    pass(SECOND / 100).await;
    assert_eq!(rig.script.in_flight(), 0, "the poll in flight is cancelled");
    rig.script.forget_calls();
    pass(600 * SECOND).await;
    assert!(rig.script.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn watch_resumed_on_the_replacing_backend_goes_on() {
    let rig = rig();
    rig.script.set("a", JobState::Pending);
    let mut watch = rig.watch("a");
    let (first, token) = event_and_token(&mut watch).await;
    assert_eq!(first, "Pending");
    let replacement = Script::new(LATENCY);
    replacement.set("a", JobState::Pending);
    rig.engine.start_backend(setup("vendor", 10, Arc::clone(&replacement) as _));
    assert_eq!(event(&mut watch).await, RETIRED);
    rig.script.forget_calls();
    let mut resumed = rig.resume("a", &token);
    assert!(is_silent(&mut resumed, 5 * SECOND).await, "Pending was sent already");
    replacement.set("a", JobState::Running);
    let (second, token) = event_and_token(&mut resumed).await;
    assert_eq!(second, "Running");
    drop(resumed);
    replacement.set("a", JobState::Succeeded);
    let mut resumed = rig.resume("a", &token);
    assert_eq!([event(&mut resumed).await, event(&mut resumed).await], ["Succeeded", "end"]);
    assert!(rig.script.calls().is_empty(), "the retired backend is not polled");
    assert_eq!(rig.engine.backends().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn watches_of_a_call_end_when_their_backend_is_retired_and_can_be_added_again() {
    let (script, running) = wide_rig(3);
    let call = running.watch_set(None);
    for id in 0..3 {
        call.add(id, &job(&id.to_string()), &options()).await;
        assert_eq!(outcome(&call).await, (id, "Running 0".into()));
    }
    script.set_word("1", JobState::Running, "newest");
    pass(2 * SECOND).await;
    running.engine.start_backend(setup("vendor", 10, Arc::clone(&script) as _));
    let mut ended = std::collections::BTreeSet::new();
    let mut was_sent = false;
    while ended.len() < 3 {
        match outcome(&call).await {
            (1, text) if text == "Running newest" && !ended.contains(&1) => was_sent = true,
            (id, text) => {
                assert_eq!(text, RETIRED);
                assert!(ended.insert(id));
            }
        }
    }
    assert!(was_sent, "the newest status comes before the end");
    call.add(7, &job("1"), &options()).await;
    assert_eq!(outcome(&call).await, (7, "Running newest".into()));
}

#[tokio::test(start_paused = true)]
async fn terminal_status_of_a_replaced_backend_is_not_shown_for_the_new_one() {
    let rig = rig();
    rig.script.set("a", JobState::Succeeded);
    assert_eq!(rig.get("a", fresh()).await.unwrap(), JobState::Succeeded);
    let new = Script::new(LATENCY);
    new.set("a", JobState::Running);
    rig.engine.start_backend(setup("vendor", 200, Arc::clone(&new) as _));
    assert_eq!(rig.get("a", fresh()).await.unwrap(), JobState::Running);
}
