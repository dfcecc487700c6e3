//! Calls and watches that end before their job: shutdown, limits, deadlines.

use std::sync::Arc;

use tokio::time::{Instant, timeout};

use super::{rig::*, script::Script};
use crate::{
    engine::{Failure, GetOptions, JobStatuses, MissedDeadline, Watch, WatchOptions},
    job::JobState,
};

#[tokio::test(start_paused = true)]
async fn shutdown_sends_a_watch_its_newest_status_and_then_its_end() {
    let rig = rig();
    rig.script.set("a", JobState::Pending);
    let mut watch = rig.watch("a");
    assert_eq!(event(&mut watch).await, "Pending");
    rig.script.set("a", JobState::Running);
    pass(2 * SECOND).await;
    rig.shutdown.cancel();
    assert_eq!(event(&mut watch).await, "Running");
    assert!(matches!(watch.next().await, Some(Err(Failure::ShuttingDown))));
    assert!(watch.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn calls_in_progress_at_shutdown_finish_and_their_jobs_are_polled() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    let stop = async {
        pass(LATENCY / 2).await;
        rig.shutdown.cancel();
        pass(10 * SECOND).await;
        rig.script.set("a", JobState::Succeeded);
    };
    let (waits, answered, ()) = tokio::join!(rig.get("a", waiting(60 * SECOND)), rig.get("a", fresh()), stop);
    assert_eq!(answered.unwrap(), JobState::Running);
    assert_eq!(waits.unwrap(), JobState::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn calls_that_outlast_the_drain_end() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    let started = Instant::now();
    let stop = async {
        pass(LATENCY / 2).await;
        rig.shutdown.cancel();
        pass(20 * SECOND).await;
        rig.engine.end_calls();
    };
    let jobs = [job("a")];
    let (one, many, ()) = tokio::join!(
        rig.get("a", waiting(60 * SECOND)),
        rig.engine.batch_get(&jobs, waiting(60 * SECOND)),
        stop
    );
    assert!(matches!((one, &many[0]), (Err(Failure::ShuttingDown), Err(Failure::ShuttingDown))));
    assert!(started.elapsed() < 21 * SECOND, "{:?}", started.elapsed());
    pass(10 * SECOND).await;
    assert_eq!(subscribed(&rig.engine), 0);
}

#[tokio::test(start_paused = true)]
async fn watch_over_an_expired_connection_receives_its_newest_status_and_then_its_end() {
    let rig = rig();
    rig.script.set("a", JobState::Pending);
    let (mut watch, mut other) = (rig.watch("a"), rig.watch("a"));
    assert_eq!([event(&mut watch).await, event(&mut other).await], ["Pending", "Pending"]);
    rig.script.set("a", JobState::Running);
    assert_eq!(event(&mut other).await, "Running");
    watch.expire();
    assert_eq!(event(&mut watch).await, "Running");
    assert!(matches!(watch.next().await, Some(Err(Failure::ConnectionExpired))));
    assert!(watch.next().await.is_none());
    rig.script.set("a", JobState::Succeeded);
    assert_eq!(event(&mut other).await, "Succeeded", "the other watch goes on");
}

#[tokio::test(start_paused = true)]
async fn ended_job_is_no_failure_when_the_connection_expires() {
    let rig = rig();
    rig.script.set("a", JobState::Pending);
    let mut watch = rig.watch("a");
    assert_eq!(event(&mut watch).await, "Pending");
    rig.script.set("a", JobState::Succeeded);
    pass(5 * SECOND).await;
    watch.expire();
    assert_eq!(event(&mut watch).await, "Succeeded");
    assert!(watch.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn watches_beyond_the_limits_are_refused_until_one_ends() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    let watch = |number| rig.engine.watch(&job("a"), caller(number), &options());
    let refused = |number| match watch(number) {
        Err(Failure::TooManyWatches { key, .. }) => key,
        other => panic!("{other:?}"),
    };
    let mut first: Vec<Watch> = (0..3).map(|_| watch(1).unwrap()).collect();
    assert_eq!(refused(1), "limits.watches_per_caller");
    let _other = watch(2).unwrap();
    assert_eq!(refused(3), "limits.watches");
    first.pop();
    assert!(watch(1).is_ok());
}

#[tokio::test(start_paused = true)]
async fn watch_ends_at_its_deadline() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    let options = WatchOptions { deadline: Some(Instant::now() + 5 * SECOND), ..options() };
    let mut watch = rig.engine.watch(&job("a"), caller(1), &options).unwrap();
    assert_eq!(event(&mut watch).await, "Running");
    assert!(matches!(watch.next().await, Some(Err(Failure::Deadline(MissedDeadline::Watch)))));
}

#[tokio::test(start_paused = true)]
async fn get_whose_wait_outlasts_its_deadline_returns_what_is_known() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    let options = GetOptions { deadline: Instant::now() + 10 * SECOND, ..waiting(60 * SECOND) };
    let answers = rig.engine.batch_get(&[job("a"), job("missing")], options).await;
    assert!(answers[0].is_ok() && matches!(answers[1], Err(Failure::NotFound)), "{answers:?}");
}

/// An engine whose only backend never answers.
fn silent_backend() -> (Arc<Script>, Running) {
    let script = Script::new(24 * 3600 * SECOND);
    let running = start(vec![setup("vendor", 10, Arc::clone(&script) as _)], limits(many_watches()));
    (script, running)
}

#[tokio::test(start_paused = true)]
async fn calls_to_a_silent_backend_end_at_the_deadline_and_leave_nothing_in_flight() {
    for wait in [0, 3600] {
        let (script, running) = silent_backend();
        let started = Instant::now();
        let options = GetOptions { deadline: started + 60 * SECOND, ..waiting(wait * SECOND) };
        let (single, batch) = (job("a"), [job("b"), job("c")]);
        let (one, many) =
            tokio::join!(running.engine.get(&single, options), running.engine.batch_get(&batch, options));
        let failures: Vec<Failure> = many.into_iter().chain([one]).map(Result::unwrap_err).collect();
        assert!(
            failures.iter().all(|failure| matches!(failure, Failure::Deadline(MissedDeadline::Answer))),
            "{failures:?}"
        );
        assert_eq!(started.elapsed(), 60 * SECOND);
        pass(SECOND / 100).await;
        assert_eq!((script.in_flight(), subscribed(&running.engine)), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn calls_to_a_silent_backend_end_with_the_drain() {
    let (_script, running) = silent_backend();
    let started = Instant::now();
    let stop = async {
        pass(SECOND).await;
        running.shutdown.cancel();
        pass(4 * SECOND).await;
        running.engine.end_calls();
    };
    let (single, batch) = (job("a"), [job("b")]);
    let (one, many, ()) = tokio::join!(
        running.engine.get(&single, fresh()),
        running.engine.batch_get(&batch, waiting(3600 * SECOND)),
        stop
    );
    assert!(matches!(one, Err(Failure::ShuttingDown)), "{one:?}");
    assert!(matches!(many[0], Err(Failure::ShuttingDown)), "{many:?}");
    assert!(started.elapsed() <= 6 * SECOND, "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn watch_of_a_silent_backend_sends_heartbeats_and_ends_at_shutdown() {
    let (_script, running) = silent_backend();
    let mut watch = running.engine.watch(&job("a"), caller(1), &options()).unwrap();
    assert_eq!(event(&mut watch).await, "heartbeat");
    running.shutdown.cancel();
    let end = timeout(SECOND, watch.next()).await;
    assert!(matches!(end, Ok(Some(Err(Failure::ShuttingDown)))), "{end:?}");
}
