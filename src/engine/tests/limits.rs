//! Bounds on the number of jobs and of waiting calls.

use tokio::time::timeout;

use super::rig::*;
use crate::{
    engine::{EngineLimits, Failure, JobStatuses, MemoryLimits, WatchLimits},
    job::{JobRef, JobState},
};

fn rig_with_jobs(jobs: usize) -> Rig {
    let rig = rig_with(EngineLimits {
        memory: MemoryLimits { jobs, ..MEMORY },
        ..limits(WatchLimits { total: 100, per_caller: 100, per_call: 100 })
    });
    for id in ["a", "b", "c", "d"] {
        rig.script.set(id, JobState::Running);
        rig.other.set(id, JobState::Running);
    }
    rig
}

#[tokio::test(start_paused = true)]
async fn distinct_jobs_beyond_the_limit_are_refused_until_one_is_free() {
    let rig = rig_with_jobs(3);
    let mut watches = [rig.watch("a"), rig.watch("b"), rig.watch("c")].map(Some);
    let failure = rig.get("d", fresh()).await.unwrap_err();
    assert!(matches!(failure, Failure::TooManyJobs { limit: 3 }), "{failure:?}");
    let failure = rig.engine.watch(&JobRef::new("other", "a"), caller(1), &options()).unwrap_err();
    assert!(matches!(failure, Failure::TooManyJobs { limit: 3 }), "all backends count: {failure:?}");
    assert!(rig.get("a", fresh()).await.is_ok(), "a job of the table takes no further entry");
    watches[0] = None;
    assert_eq!(rig.get("d", fresh()).await.unwrap(), JobState::Running);
    assert!(rig.get("a", fresh()).await.is_ok(), "the entry of the call is free again");
    drop(watches);
    pass(SECOND).await;
    assert_eq!(rig.engine.memory.jobs(), 0);
}

#[tokio::test(start_paused = true)]
async fn elements_of_a_batch_beyond_the_limit_of_jobs_fail_and_the_others_are_answered() {
    let rig = rig_with_jobs(2);
    let answers = rig.engine.batch_get(&["a", "b", "c", "a"].map(job), fresh()).await;
    assert!(answers[0].is_ok() && answers[1].is_ok() && answers[3].is_ok(), "{answers:?}");
    assert!(matches!(answers[2], Err(Failure::TooManyJobs { limit: 2 })));
}

#[tokio::test(start_paused = true)]
async fn retained_jobs_make_room_for_jobs_with_subscribers() {
    let rig = rig_with_jobs(2);
    rig.get("a", aged(60 * SECOND)).await.unwrap();
    rig.engine.get(&JobRef::new("other", "a"), aged(60 * SECOND)).await.unwrap();
    assert_eq!(rig.engine.memory.jobs(), 2, "both are retained");
    let answers = rig.engine.batch_get(&["b", "c"].map(job), fresh()).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
}

#[tokio::test(start_paused = true)]
async fn retired_backend_gives_its_jobs_back() {
    let rig = rig_with_jobs(2);
    let (first, second) = (rig.watch("a"), rig.watch("b"));
    rig.engine.retire_backend("vendor");
    drop((first, second));
    pass(SECOND).await;
    assert_eq!(rig.engine.memory.jobs(), 0);
}

#[tokio::test(start_paused = true)]
async fn waiting_elements_of_a_batch_count_as_watches_until_the_call_is_dropped() {
    let rig = rig();
    let ids = ["a", "b", "c", "d"];
    for id in ids {
        rig.script.set(id, JobState::Running);
    }
    let batch = ids.map(job);
    let mut call = Box::pin(rig.engine.batch_get(&batch, waiting(60 * SECOND)));
    assert!(timeout(SECOND, &mut call).await.is_err());
    let refused = |number| match rig.engine.watch(&job("a"), caller(number), &options()) {
        Err(Failure::TooManyWatches { key, .. }) => Some(key),
        _ => None,
    };
    assert_eq!(refused(1), None, "three of four watches are taken");
    let _other = rig.engine.watch(&job("a"), caller(1), &options()).unwrap();
    assert_eq!(refused(2), Some("limits.watches"));
    assert!(rig.get("a", fresh()).await.is_ok(), "a call without a wait is no watch");
    let answers = call.await;
    assert!(answers[..3].iter().all(Result::is_ok), "{answers:?}");
    let last = &answers[3];
    assert!(matches!(last, Err(Failure::TooManyWatches { key: "limits.watches_per_caller", limit: 3 })));

    let mut dropped = Box::pin(rig.engine.batch_get(&batch[..3], waiting(3600 * SECOND)));
    assert!(timeout(SECOND, &mut dropped).await.is_err());
    assert_eq!(refused(2), Some("limits.watches"));
    drop(dropped);
    assert_eq!(refused(2), None);
}
