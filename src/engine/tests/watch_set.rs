//! Many watches over one call.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};

use super::{rig::*, script::Script};
use crate::{
    engine::{Caller, End, Event, JobStatuses, Outcome, WatchOptions, WatchSet},
    job::{JobRef, JobState},
};

/// A scripted backend with running jobs "0", "1", ..., and an engine that allows a
/// thousand watches in a call.
pub(super) fn wide_rig(jobs: usize) -> (Arc<Script>, Running) {
    let script = Script::new(LATENCY);
    for index in 0..jobs {
        script.set_word(&format!("{index}"), JobState::Running, "0");
    }
    let running = start(vec![setup("vendor", 1000, Arc::clone(&script) as _)], limits(many_watches()));
    (script, running)
}

impl Running {
    pub(super) fn watch_set(&self, deadline: Option<Instant>) -> WatchSet {
        self.engine.watch_set(Caller::default(), deadline)
    }
}

/// The next outcome in short.
pub(super) async fn outcome(call: &WatchSet) -> (u64, String) {
    match timeout(3600 * SECOND, call.next()).await.expect("an outcome within the hour") {
        Some(Ok((id, Outcome::Update(_, update)))) => {
            let text = match update.event {
                Event::Status(latest) => {
                    format!("{:?} {}", latest.snapshot.state, latest.snapshot.status().vendor_state)
                }
                event => in_short(&event),
            };
            (id, text)
        }
        Some(Ok((id, Outcome::End(End { failure: None, .. })))) => (id, "end".into()),
        Some(Ok((id, Outcome::End(End { failure: Some(failure), .. })))) => {
            (id, format!("failed: {failure}"))
        }
        Some(Ok((id, Outcome::Rejected(failure)))) => (id, format!("rejected: {failure}")),
        Some(Err(failure)) => (u64::MAX, format!("call failed: {failure}")),
        None => (u64::MAX, "call ended".into()),
    }
}

async fn add_all(call: &WatchSet, jobs: u64) {
    for id in 0..jobs {
        call.add(id, &job(&id.to_string()), &options()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn each_watch_of_a_call_begins_and_ends_by_itself() {
    let (script, running) = wide_rig(2);
    let call = running.watch_set(None);
    call.add(7, &job("0"), &options()).await;
    call.add(8, &job("1"), &options()).await;
    call.add(9, &JobRef::new("nowhere", "x"), &options()).await;
    assert_eq!(outcome(&call).await, (9, "failed: no backend has this name".into()));
    assert_eq!(outcome(&call).await, (7, "Running 0".into()));
    assert_eq!(outcome(&call).await, (8, "Running 0".into()));
    script.set("0", JobState::Succeeded);
    assert_eq!(outcome(&call).await, (7, "Succeeded Succeeded".into()));
    assert_eq!(outcome(&call).await, (7, "end".into()));
    call.remove(8).await;
    assert_eq!(outcome(&call).await, (8, "end".into()));
    assert!(timeout(SECOND / 100, call.next()).await.is_err(), "nothing more is sent");
    call.complete();
    assert_eq!(outcome(&call).await.1, "call ended");
    assert_eq!(subscribed(&running.engine), 0);
}

#[tokio::test(start_paused = true)]
async fn complete_call_ends_with_its_last_watch() {
    let (script, running) = wide_rig(1);
    let call = running.watch_set(None);
    call.add(1, &job("0"), &options()).await;
    call.complete();
    assert_eq!(outcome(&call).await, (1, "Running 0".into()));
    script.set("0", JobState::Failed);
    let ends = [outcome(&call).await.1, outcome(&call).await.1, outcome(&call).await.1];
    assert_eq!(ends, ["Failed Failed", "end", "call ended"]);
}

#[tokio::test(start_paused = true)]
async fn watch_id_that_cannot_be_used_is_refused_and_the_other_watches_go_on() {
    let (_script, running) = wide_rig(2);
    let call = running.watch_set(None);
    call.add(1, &job("0"), &options()).await;
    call.add(1, &job("1"), &options()).await;
    call.remove(2).await;
    let in_use = "rejected: add.watch_id is in use by an open watch, which goes on; choose another";
    assert_eq!(outcome(&call).await, (1, in_use.into()));
    assert_eq!(outcome(&call).await, (2, "rejected: remove.watch_id is of no open watch".into()));
    assert_eq!(outcome(&call).await, (1, "Running 0".into()));
    call.remove(1).await;
    assert_eq!(outcome(&call).await, (1, "end".into()));
    call.add(1, &job("1"), &options()).await;
    assert_eq!(outcome(&call).await, (1, "Running 0".into()), "an id is free again after its end");
}

#[tokio::test(start_paused = true)]
async fn watch_beyond_the_limit_of_a_call_is_refused() {
    let (_script, running) = wide_rig(1001);
    let call = running.watch_set(None);
    add_all(&call, 1001).await;
    let too_many = "failed: as many watches are open as may be: limits.watches_per_call is 1000";
    assert_eq!(outcome(&call).await, (1000, too_many.into()));
    for id in 0..1000 {
        assert_eq!(outcome(&call).await, (id, "Running 0".into()));
    }
}

#[tokio::test(start_paused = true)]
async fn slow_reader_of_many_watches_receives_the_newest_status_of_each_once() {
    let (script, running) = wide_rig(1000);
    let call = running.watch_set(None);
    add_all(&call, 1000).await;
    for round in 1..=5 {
        pass(12 * SECOND).await;
        for index in 0..1000 {
            script.set_word(&index.to_string(), JobState::Running, &round.to_string());
        }
    }
    script.set("500", JobState::Succeeded);
    pass(12 * SECOND).await;
    let mut statuses = 0;
    while let Ok(Some(Ok((id, outcome)))) = timeout(SECOND / 100, call.next()).await {
        match outcome {
            Outcome::Update(_, update) => {
                let Event::Status(latest) = update.event else { panic!("only statuses") };
                let word = &latest.snapshot.status().vendor_state;
                assert_eq!(word, if id == 500 { "Succeeded" } else { "5" });
                statuses += 1;
            }
            Outcome::Rejected(failure) => panic!("{failure}"),
            Outcome::End(end) => assert!(id == 500 && end.failure.is_none(), "{end:?}"),
        }
    }
    assert_eq!(statuses, 1000, "one update a job, however often it changed");
}

#[tokio::test(start_paused = true)]
async fn job_that_changes_often_does_not_starve_another() {
    let (script, running) = wide_rig(2);
    let call = running.watch_set(None);
    add_all(&call, 2).await;
    pass(SECOND / 2).await;
    script.set_word("1", JobState::Running, "changed");
    let mut sent = Vec::new();
    for round in 0..4 {
        script.set_word("0", JobState::Running, &format!("busy {round}"));
        pass(SECOND).await;
        sent.push(outcome(&call).await.0);
    }
    assert!(sent.contains(&1), "{sent:?}");
}

#[tokio::test(start_paused = true)]
async fn each_watch_sends_heartbeats_at_its_own_interval() {
    let (_script, running) = wide_rig(2);
    let call = running.watch_set(None);
    call.add(0, &job("0"), &WatchOptions { heartbeat: 3 * SECOND, ..options() }).await;
    call.add(1, &job("1"), &WatchOptions { heartbeat: 7 * SECOND, ..options() }).await;
    assert_eq!([outcome(&call).await.0, outcome(&call).await.0], [0, 1]);
    let mut heartbeats = [0, 0];
    let started = Instant::now();
    while started.elapsed() < 21 * SECOND {
        let (id, text) = outcome(&call).await;
        assert_eq!(text, "heartbeat");
        heartbeats[usize::try_from(id).unwrap()] += 1;
    }
    assert!((6..=7).contains(&heartbeats[0]) && (2..=3).contains(&heartbeats[1]), "{heartbeats:?}");
}

#[tokio::test(start_paused = true)]
async fn shutdown_sends_the_newest_status_of_each_watch_before_the_call_ends() {
    let (script, running) = wide_rig(3);
    let call = running.watch_set(None);
    for id in 0..3 {
        call.add(id, &job(&id.to_string()), &options()).await;
        assert_eq!(outcome(&call).await, (id, "Running 0".into()));
    }
    for id in 0..2 {
        script.set_word(&id.to_string(), JobState::Running, "newest");
    }
    pass(2 * SECOND).await;
    running.shutdown.cancel();
    for id in 0..2 {
        assert_eq!(outcome(&call).await, (id, "Running newest".into()));
    }
    assert_eq!(outcome(&call).await.1, "call failed: the server is shutting down; call again");
}

#[tokio::test(start_paused = true)]
async fn expired_connection_sends_the_newest_status_of_each_watch_before_the_call_ends() {
    let (script, running) = wide_rig(3);
    let call = running.watch_set(None);
    for id in 0..3 {
        call.add(id, &job(&id.to_string()), &options()).await;
        assert_eq!(outcome(&call).await, (id, "Running 0".into()));
    }
    for id in 0..2 {
        script.set_word(&id.to_string(), JobState::Running, "newest");
    }
    pass(2 * SECOND).await;
    call.expire();
    call.expire();
    for id in 0..2 {
        assert_eq!(outcome(&call).await, (id, "Running newest".into()));
    }
    let end =
        "call failed: the connection is older than server.max_connection_age; call again over a new one";
    assert_eq!(outcome(&call).await.1, end);
}

#[tokio::test(start_paused = true)]
async fn interruption_and_end_of_one_job_concern_its_own_watch() {
    let (script, running) = wide_rig(4);
    let call = running.watch_set(None);
    add_all(&call, 4).await;
    for id in 0..4 {
        assert_eq!(outcome(&call).await.0, id);
    }
    script.poison("1");
    let (id, text) = outcome(&call).await;
    assert!(id == 1 && text.starts_with("interrupted: the vendor refuses"), "{id} {text}");
    script.remove("0");
    let (id, text) = outcome(&call).await;
    assert_eq!((id, text.as_str()), (0, "failed: the vendor no longer knows this job"));
}

/// Reads one update every 100 ms of twenty jobs that change every second. Returns when
/// the call ended.
async fn read_slowly(script: &Script, call: &WatchSet, end: &str) -> Option<Duration> {
    let started = Instant::now();
    for tick in 0..600_u64 {
        if tick % 10 == 0 {
            for index in 0..20 {
                script.set_word(&index.to_string(), JobState::Running, &tick.to_string());
            }
        }
        pass(SECOND / 10).await;
        if outcome(call).await.1.contains(end) {
            return Some(started.elapsed());
        }
    }
    None
}

#[tokio::test(start_paused = true)]
async fn busy_call_ends_at_shutdown() {
    let (script, running) = wide_rig(20);
    let call = running.watch_set(None);
    add_all(&call, 20).await;
    running.shutdown.cancel();
    let ended = read_slowly(&script, &call, "shutting down").await;
    assert!(ended.is_some_and(|after| after < 8 * SECOND), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn busy_call_ends_at_its_deadline() {
    let (script, running) = wide_rig(20);
    let call = running.watch_set(Some(Instant::now() + 5 * SECOND));
    add_all(&call, 20).await;
    let ended = read_slowly(&script, &call, "deadline").await;
    assert!(ended.is_some_and(|after| after < 6 * SECOND), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn busy_watch_ends_at_its_deadline() {
    let (script, running) = wide_rig(1);
    let options = WatchOptions { deadline: Some(Instant::now() + 5 * SECOND), ..options() };
    let mut watch = running.engine.watch(&job("0"), Caller::default(), &options).unwrap();
    let started = Instant::now();
    for round in 0..60 {
        script.set_word("0", JobState::Running, &round.to_string());
        pass(SECOND + SECOND / 5).await;
        if let Some(Err(_)) = timeout(SECOND, watch.next()).await.unwrap() {
            assert!(started.elapsed() < 7 * SECOND, "{:?}", started.elapsed());
            return;
        }
    }
    panic!("still open after {:?}", started.elapsed());
}
