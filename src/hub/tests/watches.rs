//! Many watches over one call.

use super::*;
use crate::hub::{End, Outcome, Watches};

/// A rig that allows a thousand watches, ten thousand in all.
fn wide_rig(jobs: usize) -> (Arc<Script>, Arc<Hub>, CancellationToken, Pollers) {
    let script = Script::new(LATENCY);
    for index in 0..jobs {
        script.set_word(&format!("{index}"), JobState::Running, "0");
    }
    let setup = BackendSetup {
        name: "vendor".into(),
        vendor: "immuta",
        long_poll: false,
        check: Box::new(|_| Ok(())),
        max_batch: NonZeroUsize::new(1000).unwrap(),
        upstream: Arc::clone(&script) as Arc<_>,
        poll: poll(1000),
    };
    let shutdown = CancellationToken::new();
    let limits = WatchLimits { total: 10_000, per_caller: 10_000, per_call: 1000 };
    let (hub, pollers) = Hub::start(vec![setup], Duration::from_millis(5), limits, shutdown.clone());
    (script, Arc::new(hub), shutdown, pollers)
}

/// The next outcome in short.
async fn said(call: &Watches) -> (u64, String) {
    match timeout(3600 * SECOND, call.next()).await.expect("an outcome within the hour") {
        Some(Ok((id, Outcome::Update(_, update)))) => {
            let text = match update.event {
                Event::Status(latest) => {
                    format!("{:?} {}", latest.snapshot.state, latest.snapshot.status().vendor_state)
                }
                Event::Heartbeat { .. } => "heartbeat".into(),
                Event::Interruption { interruption, .. } => format!("interrupted: {}", interruption.fault),
            };
            (id, text)
        }
        Some(Ok((id, Outcome::End(End { failure: None, .. })))) => (id, "end".into()),
        Some(Ok((id, Outcome::End(End { failure: Some(failure), .. })))) => {
            (id, format!("failed: {failure}"))
        }
        Some(Err(failure)) => (u64::MAX, format!("call failed: {failure}")),
        None => (u64::MAX, "call ended".into()),
    }
}

async fn nothing_more(call: &Watches) {
    assert!(timeout(SECOND / 100, call.next()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn each_watch_has_a_life_of_its_own() {
    let (script, hub, _shutdown, _pollers) = wide_rig(2);
    let call = hub.watches(None, None);
    call.add(7, &job("0"), &options()).await;
    call.add(8, &job("1"), &options()).await;
    call.add(9, &JobRef::new("nowhere", "x"), &options()).await;
    assert_eq!(said(&call).await, (9, "failed: no backend has this name".into()));
    assert_eq!(said(&call).await, (7, "Running 0".into()));
    assert_eq!(said(&call).await, (8, "Running 0".into()));
    script.set("0", JobState::Succeeded);
    assert_eq!(said(&call).await, (7, "Succeeded Succeeded".into()));
    assert_eq!(said(&call).await, (7, "end".into()));
    call.remove(8).await;
    assert_eq!(said(&call).await, (8, "end".into()));
    nothing_more(&call).await;
    call.complete();
    assert_eq!(said(&call).await.1, "call ended");
    assert_eq!(hub.report()[0].report.followed, 0);
}

#[tokio::test(start_paused = true)]
async fn a_complete_call_ends_with_its_last_watch() {
    let (script, hub, _shutdown, _pollers) = wide_rig(1);
    let call = hub.watches(None, None);
    call.add(1, &job("0"), &options()).await;
    call.complete();
    assert_eq!(said(&call).await, (1, "Running 0".into()));
    script.set("0", JobState::Failed);
    let ends = [said(&call).await.1, said(&call).await.1, said(&call).await.1];
    assert_eq!(ends, ["Failed Failed", "end", "call ended"]);
}

#[tokio::test(start_paused = true)]
async fn ids_that_can_not_be_used_are_answered_and_harm_nothing() {
    let (_script, hub, _shutdown, _pollers) = wide_rig(2);
    let call = hub.watches(None, None);
    call.add(1, &job("0"), &options()).await;
    call.add(1, &job("1"), &options()).await;
    call.remove(2).await;
    let in_use = "failed: add.watch_id is in use by an open watch, which goes on; choose another";
    assert_eq!(said(&call).await, (1, in_use.into()));
    assert_eq!(said(&call).await, (2, "failed: remove.watch_id is of no open watch".into()));
    assert_eq!(said(&call).await, (1, "Running 0".into()));
    call.remove(1).await;
    assert_eq!(said(&call).await, (1, "end".into()));
    call.add(1, &job("1"), &options()).await;
    assert_eq!(said(&call).await, (1, "Running 0".into()), "an id is free again after its end");
}

#[tokio::test(start_paused = true)]
async fn a_call_may_hold_so_many_watches_and_no_more() {
    let (_script, hub, _shutdown, _pollers) = wide_rig(1001);
    let call = hub.watches(None, None);
    for id in 0..1001 {
        call.add(id, &job(&id.to_string()), &options()).await;
    }
    let too_many = "failed: as many watches are open as may be: limits.watches_per_call is 1000";
    assert_eq!(said(&call).await, (1000, too_many.into()));
    for id in 0..1000 {
        assert_eq!(said(&call).await, (id, "Running 0".into()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stalls_finds_the_newest_state_of_each_job() {
    let (script, hub, _shutdown, _pollers) = wide_rig(1000);
    let call = hub.watches(None, None);
    for id in 0..1000 {
        call.add(id, &job(&id.to_string()), &options()).await;
    }
    for round in 1..=5 {
        pass(12 * SECOND).await;
        for index in 0..1000 {
            script.set_word(&index.to_string(), JobState::Running, &round.to_string());
        }
    }
    script.set("500", JobState::Succeeded);
    pass(12 * SECOND).await;
    let mut told = 0;
    while let Ok(Some(Ok((id, outcome)))) = timeout(SECOND / 100, call.next()).await {
        match outcome {
            Outcome::Update(_, update) => {
                let Event::Status(latest) = update.event else { panic!("only statuses") };
                let word = &latest.snapshot.status().vendor_state;
                assert_eq!(word, if id == 500 { "Succeeded" } else { "5" });
                told += 1;
            }
            Outcome::End(end) => assert!(id == 500 && end.failure.is_none(), "{end:?}"),
        }
    }
    assert_eq!(told, 1000, "one update a job, however often it changed");
}

#[tokio::test(start_paused = true)]
async fn a_busy_job_does_not_starve_another() {
    let (script, hub, _shutdown, _pollers) = wide_rig(2);
    let call = hub.watches(None, None);
    call.add(0, &job("0"), &options()).await;
    call.add(1, &job("1"), &options()).await;
    pass(SECOND / 2).await;
    script.set_word("1", JobState::Running, "news");
    let mut told = Vec::new();
    for round in 0..4 {
        script.set_word("0", JobState::Running, &format!("busy {round}"));
        pass(SECOND).await;
        told.push(said(&call).await.0);
    }
    assert!(told.contains(&1), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn each_watch_beats_at_its_own_interval() {
    let (_script, hub, _shutdown, _pollers) = wide_rig(2);
    let call = hub.watches(None, None);
    call.add(0, &job("0"), &WatchOptions { heartbeat: 3 * SECOND, ..options() }).await;
    call.add(1, &job("1"), &WatchOptions { heartbeat: 7 * SECOND, ..options() }).await;
    assert_eq!([said(&call).await.0, said(&call).await.0], [0, 1]);
    let mut beats = [0, 0];
    let started = Instant::now();
    while started.elapsed() < 21 * SECOND {
        let (id, text) = said(&call).await;
        assert_eq!(text, "heartbeat");
        beats[usize::try_from(id).unwrap()] += 1;
    }
    assert!((6..=7).contains(&beats[0]) && (2..=3).contains(&beats[1]), "{beats:?}");
}

#[tokio::test(start_paused = true)]
async fn at_shutdown_each_watch_gets_its_newest_state_before_the_call_ends() {
    let (script, hub, shutdown, _pollers) = wide_rig(3);
    let call = hub.watches(None, None);
    for id in 0..3 {
        call.add(id, &job(&id.to_string()), &options()).await;
        assert_eq!(said(&call).await, (id, "Running 0".into()));
    }
    for id in 0..2 {
        script.set_word(&id.to_string(), JobState::Running, "newest");
    }
    pass(2 * SECOND).await;
    shutdown.cancel();
    for id in 0..2 {
        assert_eq!(said(&call).await, (id, "Running newest".into()));
    }
    assert_eq!(said(&call).await.1, "call failed: the server is shutting down; call again");
}

#[tokio::test(start_paused = true)]
async fn one_jobs_interruption_and_end_are_its_own() {
    let (script, hub, _shutdown, _pollers) = wide_rig(2);
    let call = hub.watches(None, None);
    call.add(0, &job("0"), &options()).await;
    call.add(1, &job("1"), &options()).await;
    assert_eq!([said(&call).await.0, said(&call).await.0], [0, 1]);
    script.poison("1");
    let (id, text) = said(&call).await;
    assert!(id == 1 && text.starts_with("interrupted: the vendor refuses"), "{id} {text}");
    script.remove("0");
    let (id, text) = said(&call).await;
    assert_eq!((id, text.as_str()), (0, "failed: the vendor no longer knows this job"));
}

/// Reads one update every 100 ms of twenty jobs that change every second.
async fn read_slowly(script: &Script, call: &Watches, ends: &str) -> Option<Duration> {
    let started = Instant::now();
    for tick in 0..600_u64 {
        if tick % 10 == 0 {
            for index in 0..20 {
                script.set_word(&index.to_string(), JobState::Running, &tick.to_string());
            }
        }
        pass(SECOND / 10).await;
        if said(call).await.1.contains(ends) {
            return Some(started.elapsed());
        }
    }
    None
}

#[tokio::test(start_paused = true)]
async fn a_busy_call_ends_at_shutdown() {
    let (script, hub, shutdown, _pollers) = wide_rig(20);
    let call = hub.watches(None, None);
    for id in 0..20 {
        call.add(id, &job(&id.to_string()), &options()).await;
    }
    shutdown.cancel();
    let ended = read_slowly(&script, &call, "shutting down").await;
    assert!(ended.is_some_and(|after| after < 8 * SECOND), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_busy_call_ends_at_its_deadline() {
    let (script, hub, _shutdown, _pollers) = wide_rig(20);
    let call = hub.watches(None, Some(Instant::now() + 5 * SECOND));
    for id in 0..20 {
        call.add(id, &job(&id.to_string()), &options()).await;
    }
    let ended = read_slowly(&script, &call, "deadline").await;
    assert!(ended.is_some_and(|after| after < 6 * SECOND), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_busy_watch_ends_at_its_deadline() {
    let (script, hub, _shutdown, _pollers) = wide_rig(1);
    let options = WatchOptions { deadline: Some(Instant::now() + 5 * SECOND), ..options() };
    let mut watch = hub.watch(&job("0"), None, &options).unwrap();
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
