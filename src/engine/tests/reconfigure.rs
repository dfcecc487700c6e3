//! Settings of a backend are replaced while calls and watches are open.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    rig::*,
    script::Script,
    watch_set::{outcome, wide_rig},
};
use crate::{
    engine::{BackendSetup, Caller, Engine, EngineLimits, Failure, JobStatuses, KnownJobs, WatchLimits},
    job::{BackendFault, FaultKind, InvalidJobRef, JobState},
};

/// The same backend with another vendor behind it.
fn setup_with(script: &Arc<Script>) -> BackendSetup {
    setup("vendor", 200, Arc::clone(script) as _)
}

#[tokio::test(start_paused = true)]
async fn watch_goes_on_with_the_new_settings_and_shows_only_changes() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    let mut watch = rig.watch("a");
    assert_eq!(event(&mut watch).await, "Running");
    let new = Script::new(LATENCY);
    new.set("a", JobState::Running);
    rig.engine.reconfigure_backend(setup_with(&new), KnownJobs::Same).await;
    rig.script.forget_calls();
    assert!(is_silent(&mut watch, 5 * SECOND).await, "Running was sent already");
    assert!(!new.calls().is_empty());
    new.set("a", JobState::Succeeded);
    assert_eq!([event(&mut watch).await, event(&mut watch).await], ["Succeeded", "end"]);
    assert!(rig.script.calls().is_empty(), "the old settings are not used any more");
    assert_eq!(rig.engine.backends().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn poll_in_flight_is_cancelled_and_sent_with_the_new_settings() {
    let rig = rig();
    rig.script.set_latency(3600 * SECOND);
    let new = Script::new(LATENCY);
    new.set("a", JobState::Running);
    let reconfigure = async {
        while rig.script.in_flight() == 0 {
            pass(SECOND / 100).await;
        }
        rig.engine.reconfigure_backend(setup_with(&new), KnownJobs::Same).await;
        assert_eq!(rig.script.in_flight(), 0);
    };
    let began = Instant::now();
    let (answer, ()) = tokio::join!(rig.get("a", fresh()), reconfigure);
    assert_eq!(answer.unwrap(), JobState::Running);
    assert!(began.elapsed() < SECOND);
}

#[tokio::test(start_paused = true)]
async fn call_that_waits_for_its_job_goes_on_with_the_new_settings() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    let new = Script::new(LATENCY);
    new.set("a", JobState::Succeeded);
    let reconfigure = async {
        pass(5 * SECOND).await;
        rig.engine.reconfigure_backend(setup_with(&new), KnownJobs::Same).await;
    };
    let (answer, ()) = tokio::join!(rig.get("a", waiting(3600 * SECOND)), reconfigure);
    assert_eq!(answer.unwrap(), JobState::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn slow_reader_receives_the_terminal_status_from_before_or_after() {
    let rig = rig();
    for (id, state) in [("a", JobState::Succeeded), ("b", JobState::Running)] {
        rig.script.set(id, state);
    }
    let (mut ended, mut runs) = (rig.watch("a"), rig.watch("b"));
    pass(5 * SECOND).await;
    let new = Script::new(LATENCY);
    new.set("b", JobState::Failed);
    rig.engine.reconfigure_backend(setup_with(&new), KnownJobs::Others).await;
    pass(20 * SECOND).await;
    new.remove("b");
    assert_eq!([event(&mut ended).await, event(&mut ended).await], ["Succeeded", "end"]);
    assert_eq!([event(&mut runs).await, event(&mut runs).await], ["Failed", "end"]);
    assert!(matches!(rig.get("a", aged(60 * SECOND)).await, Err(Failure::NotFound)), "another job now");
}

#[tokio::test(start_paused = true)]
async fn status_of_another_place_is_shown_to_no_new_call_or_watch() {
    let rig = rig();
    for (id, state) in [("a", JobState::Running), ("b", JobState::Running), ("c", JobState::Succeeded)] {
        rig.script.set(id, state);
    }
    let mut watch = rig.watch("a");
    assert_eq!(event(&mut watch).await, "Running");
    for id in ["b", "c"] {
        rig.get(id, aged(60 * SECOND)).await.unwrap();
    }
    let new = Script::new(LATENCY);
    for id in ["a", "b", "c"] {
        new.set(id, JobState::Pending);
    }
    rig.engine.reconfigure_backend(setup_with(&new), KnownJobs::Others).await;
    let mut late = rig.watch("a");
    assert_eq!(event(&mut late).await, "Pending");
    for id in ["a", "b", "c"] {
        assert_eq!(rig.get(id, aged(3600 * SECOND)).await.unwrap(), JobState::Pending, "{id}");
    }
    assert_eq!(event(&mut watch).await, "Pending");
}

#[tokio::test(start_paused = true)]
async fn status_of_the_same_place_is_still_recent() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    rig.script.set("b", JobState::Succeeded);
    for id in ["a", "b"] {
        rig.get(id, aged(60 * SECOND)).await.unwrap();
    }
    rig.script.forget_calls();
    rig.engine.reconfigure_backend(setup_with(&rig.script), KnownJobs::Same).await;
    for id in ["a", "b"] {
        rig.get(id, aged(60 * SECOND)).await.unwrap();
    }
    assert!(rig.script.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn new_settings_end_an_outage_but_no_wait_that_the_vendor_asked_for() {
    let retry_after = |seconds| {
        BackendFault::from(FaultKind::Throttled).with_retry_after(Some(Duration::from_secs(seconds)))
    };
    for (fault, waits) in [
        (FaultKind::Unavailable { why: "down".into() }.into(), false),
        (FaultKind::CredentialsRejected.into(), false),
        (retry_after(1000), true),
    ] {
        let rig = rig();
        rig.script.fail(fault);
        let mut watch = rig.watch("a");
        assert!(event(&mut watch).await.starts_with("interrupted"));
        pass(200 * SECOND).await;
        let new = Script::new(LATENCY);
        new.set("a", JobState::Running);
        rig.engine.reconfigure_backend(setup_with(&new), KnownJobs::Same).await;
        pass(SECOND).await;
        assert_eq!(new.calls().is_empty(), waits);
        let first = loop {
            let event = event(&mut watch).await;
            if event != "heartbeat" && !event.starts_with("interrupted") {
                break event;
            }
        };
        assert_eq!(first, "Running");
    }
}

#[tokio::test(start_paused = true)]
async fn watch_that_was_interrupted_learns_that_its_backend_answers_again() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    let mut watch = rig.watch("a");
    assert_eq!(event(&mut watch).await, "Running");
    rig.script.fail_all();
    assert!(event(&mut watch).await.starts_with("interrupted"));
    for known in [KnownJobs::Same, KnownJobs::Others] {
        let new = Script::new(LATENCY);
        new.set("a", JobState::Running);
        rig.engine.reconfigure_backend(setup_with(&new), known).await;
        assert_eq!(timeout(SECOND, event(&mut watch)).await.unwrap(), "heartbeat", "{known:?}");
        new.fail_all();
        assert!(event(&mut watch).await.starts_with("interrupted"));
    }
}

#[tokio::test(start_paused = true)]
async fn job_that_the_new_vendor_can_not_know_ends_its_watches_and_is_not_polled() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    rig.script.set("7", JobState::Running);
    let (mut text, mut number) = (rig.watch("a"), rig.watch("7"));
    assert_eq!([event(&mut text).await, event(&mut number).await], ["Running", "Running"]);
    let new = Script::new(LATENCY);
    new.set("7", JobState::Running);
    let check: crate::engine::Check = Box::new(|job| {
        let is_number = job.id.parse::<i64>().is_ok();
        let reason = "must be a number".to_owned();
        if is_number { Ok(()) } else { Err(InvalidJobRef { field: "job_id", reason }) }
    });
    rig.engine.reconfigure_backend(BackendSetup { check, ..setup_with(&new) }, KnownJobs::Others).await;
    assert!(matches!(rig.get("a", fresh()).await, Err(Failure::InvalidJob(_))));
    let end = event(&mut text).await;
    assert!(end.starts_with("failed: ") && end.contains("must be a number"), "{end}");
    assert!(is_silent(&mut number, 5 * SECOND).await);
    assert!(new.calls().iter().all(|call| call.ids == ["7"]), "{:?}", new.calls());
}

#[tokio::test(start_paused = true)]
async fn job_that_fails_alone_leaves_the_quarantine_with_the_old_settings() {
    let rig = rig();
    for id in ["a", "b", "c"] {
        rig.script.set(id, JobState::Running);
    }
    rig.script.poison("a");
    let mut watches: Vec<_> = ["a", "b", "c"].map(|id| rig.watch(id)).into();
    pass(20 * SECOND).await;
    assert_eq!(report_of(&rig.engine, "vendor").report.quarantined_jobs, 1);
    let new = Script::new(LATENCY);
    for id in ["a", "b", "c"] {
        new.set(id, JobState::Succeeded);
    }
    rig.engine.reconfigure_backend(setup_with(&new), KnownJobs::Same).await;
    for watch in &mut watches {
        while event(watch).await != "end" {}
    }
    assert_eq!(new.calls().len(), 1, "all in one batch");
    assert_eq!(report_of(&rig.engine, "vendor").report.quarantined_jobs, 0);
}

#[tokio::test(start_paused = true)]
async fn watches_of_a_call_go_on_with_the_new_settings() {
    let (_script, running) = wide_rig(3);
    let call = running.watch_set(None);
    for id in 0..3 {
        call.add(id, &job(&id.to_string()), &options()).await;
        assert_eq!(outcome(&call).await, (id, "Running 0".into()));
    }
    let new = Script::new(LATENCY);
    for id in ["0", "1", "2"] {
        new.set_word(id, JobState::Running, "new");
    }
    running.engine.reconfigure_backend(setup_with(&new), KnownJobs::Same).await;
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 3 {
        let (id, text) = outcome(&call).await;
        assert_eq!(text, "Running new");
        assert!(seen.insert(id));
    }
}

#[tokio::test(start_paused = true)]
async fn other_backend_is_neither_polled_more_nor_interrupted() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    rig.other.set("b", JobState::Running);
    let of_other = crate::job::JobRef::new("other", "b");
    let mut watch = rig.engine.watch(&of_other, Caller::default(), &options()).unwrap();
    assert_eq!(event(&mut watch).await, "Running");
    let polls = async |rig: &Rig| {
        rig.other.forget_calls();
        pass(100 * SECOND).await;
        rig.other.calls().len()
    };
    // Its interval has reached its longest.
    pass(100 * SECOND).await;
    let before = polls(&rig).await;
    rig.engine.reconfigure_backend(setup_with(&rig.script), KnownJobs::Others).await;
    assert_eq!(polls(&rig).await, before);
    for _ in 0..6 {
        assert_eq!(event(&mut watch).await, "heartbeat");
    }
}

#[tokio::test(start_paused = true)]
async fn bounds_that_are_set_hold_for_new_watches() {
    let rig = rig();
    let watches = [rig.watch("a"), rig.watch("b")];
    let set = |total, jobs| {
        let watches = WatchLimits { total, per_caller: 10, per_call: 10 };
        let memory = crate::engine::MemoryLimits { jobs, ..MEMORY };
        rig.engine.set_limits(EngineLimits { watches, memory });
    };
    let refused = |id: &str| rig.engine.watch(&job(id), Caller::default(), &options()).map(drop).unwrap_err();
    set(2, 100);
    assert!(matches!(refused("c"), Failure::TooManyWatches { key: "limits.watches", limit: 2 }));
    set(10, 2);
    assert!(matches!(refused("c"), Failure::TooManyJobs { limit: 2 }));
    set(10, 3);
    drop((rig.watch("c"), watches));
}

/// On the real clock and several threads: no call and no watch fails, whenever settings
/// are replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_call_fails_while_settings_are_replaced_again_and_again() {
    let scripts = [Script::new(Duration::from_millis(1)), Script::new(Duration::ZERO)];
    for script in &scripts {
        for id in 0..8 {
            script.set(&id.to_string(), JobState::Running);
        }
    }
    let (engine, tasks) = Engine::new(limits(many_watches()), CancellationToken::new());
    engine.start_backend(setup_with(&scripts[0]));
    let done = CancellationToken::new();
    let workers: Vec<_> = (0..6_usize)
        .map(|worker| {
            let (engine, done) = (Arc::clone(&engine), done.clone());
            tokio::spawn(async move {
                let mut round = worker;
                while !done.is_cancelled() {
                    round += 1;
                    let job = job(&(round % 8).to_string());
                    if round % 2 == 0 {
                        engine.get(&job, fresh()).await.unwrap();
                    } else {
                        let mut watch = engine.watch(&job, Caller::default(), &options()).unwrap();
                        watch.next().await.unwrap().unwrap();
                    }
                }
            })
        })
        .collect();
    for round in 0..50 {
        let known = if round % 3 == 0 { KnownJobs::Others } else { KnownJobs::Same };
        tokio::select! {
            () = tasks.failed() => panic!("a task ended by itself"),
            () = engine.reconfigure_backend(setup_with(&scripts[round % 2]), known) => {}
        }
        tokio::task::yield_now().await;
    }
    done.cancel();
    for worker in workers {
        timeout(Duration::from_mins(1), worker).await.expect("it ends").unwrap();
    }
    let backend = engine.backends.load()["vendor"].engine.clone();
    let ends = async {
        while subscribed(&engine) > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_mins(1), ends).await.unwrap();
    engine.retire_backend("vendor");
    drop(backend);
}
