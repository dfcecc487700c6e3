//! Gets and watches, on a paused clock with a scripted vendor.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{Ask, BackendSetup, Caller, Event, Failure, Hub, Pollers, Watch, WatchLimits, WatchOptions};
use crate::{
    adapters::{FaultKind, InvalidJobRef},
    config::Poll,
    job::{Fingerprint, JobRef, JobState, Lens, ResumeToken},
    poller::{Health, script::Script},
};

mod downloads;
mod ends;
mod kept;
mod model;
mod outages;
mod pollers;
mod resume;
mod watches;

const SECOND: Duration = Duration::from_secs(1);
const LATENCY: Duration = Duration::from_millis(50);

struct Rig {
    script: Arc<Script>,
    other: Arc<Script>,
    hub: Arc<Hub>,
    shutdown: CancellationToken,
    _pollers: Pollers,
}

fn poll(max_batch: usize) -> Poll {
    Poll {
        min_interval: SECOND,
        max_interval: 10 * SECOND,
        timeout: 15 * SECOND,
        connect_timeout: SECOND,
        max_batch: NonZeroUsize::new(max_batch).unwrap(),
        max_concurrency: NonZeroUsize::new(8).unwrap(),
        requests_per_second: NonZeroU32::new(1000).unwrap(),
        not_found_grace: 10 * SECOND,
        max_backoff: 30 * SECOND,
        max_response_bytes: 1 << 20,
    }
}

fn rig() -> Rig {
    let (script, other) = (Script::new(LATENCY), Script::new(LATENCY));
    let setup = |name: &str, max_batch, script: &Arc<Script>| BackendSetup {
        name: name.into(),
        vendor: "immuta",
        long_poll: false,
        check: Box::new(|job: &JobRef| {
            if &*job.id == "bad id" {
                return Err(InvalidJobRef { field: "job_id", reason: "must not be bad".into() });
            }
            Ok(())
        }),
        max_batch: NonZeroUsize::new(max_batch).unwrap(),
        upstream: Arc::clone(script) as Arc<_>,
        poll: poll(max_batch),
    };
    let shutdown = CancellationToken::new();
    let (hub, pollers) = Hub::start(
        vec![setup("vendor", 200, &script), setup("other", 1, &other)],
        Duration::from_millis(5),
        WatchLimits { total: 4, per_caller: 3, per_call: 2 },
        shutdown.clone(),
    );
    Rig { script, other, hub: Arc::new(hub), shutdown, _pollers: pollers }
}

fn job(id: &str) -> JobRef {
    JobRef::new("vendor", id)
}

fn options() -> WatchOptions {
    WatchOptions {
        lens: Lens::FULL,
        resume_token: String::new(),
        interval: None,
        heartbeat: 30 * SECOND,
        deadline: None,
    }
}

impl Rig {
    fn followed(&self) -> usize {
        self.hub.report()[1].report.followed
    }

    /// Holds the rosters to what always holds of them.
    fn check(&self) {
        for backend in self.hub.backends.values() {
            backend.roster.check();
        }
    }

    async fn get(&self, id: &str, ask: Ask) -> Result<JobState, Failure> {
        let answer = self.hub.get(&[job(id)], ask).await.remove(0);
        answer.map(|latest| latest.snapshot.state)
    }

    fn watch(&self, id: &str) -> Watch {
        self.hub.watch(&job(id), None, &options()).unwrap()
    }

    fn resume(&self, id: &str, token: &str) -> Watch {
        self.hub.watch(&job(id), None, &WatchOptions { resume_token: token.into(), ..options() }).unwrap()
    }
}

/// The next event in short, with its resume token.
async fn next(watch: &mut Watch) -> (String, String) {
    match timeout(3600 * SECOND, watch.next()).await.expect("an update within the hour") {
        Some(Ok(update)) => {
            let said = match update.event {
                Event::Status(latest) => format!("{:?}", latest.snapshot.state),
                Event::Heartbeat { .. } => "heartbeat".into(),
                Event::Interruption { interruption, .. } => format!("interrupted: {}", interruption.fault),
            };
            (said, update.resume_token)
        }
        Some(Err(failure)) => (format!("failed: {failure}"), String::new()),
        None => ("end".into(), String::new()),
    }
}

async fn said(watch: &mut Watch) -> String {
    next(watch).await.0
}

async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

#[tokio::test(start_paused = true)]
async fn a_get_rests_on_a_request_that_began_after_it_or_was_in_flight() {
    let rig = rig();
    rig.script.set("a", JobState::Pending);
    let _watch = rig.watch("a");
    pass(SECOND / 2).await;
    rig.script.set("a", JobState::Running);
    assert_eq!(rig.get("a", Ask::default()).await.unwrap(), JobState::Running);
    assert_eq!(rig.script.calls().len(), 2);
    let calls = || async { rig.get("a", Ask::default()).await.unwrap() };
    tokio::join!(calls(), calls(), async {
        pass(LATENCY / 2).await;
        calls().await
    });
    assert_eq!(rig.script.calls().len(), 3, "three calls at once share one request");
}

#[tokio::test(start_paused = true)]
async fn a_get_with_max_age_is_answered_from_what_is_known_if_that_is_young_enough() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    let _watch = rig.watch("a");
    pass(SECOND / 2).await;
    let ask = |age| Ask { max_age: Some(age), ..Ask::default() };
    assert_eq!(rig.get("a", ask(SECOND)).await.unwrap(), JobState::Running);
    assert_eq!(rig.script.calls().len(), 1);
    rig.get("a", ask(SECOND / 10)).await.unwrap();
    assert_eq!(rig.script.calls().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_get_that_is_given_up_costs_nothing_more() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    assert!(timeout(LATENCY / 2, rig.get("a", Ask::default())).await.is_err());
    pass(LATENCY / 10).await;
    assert_eq!((rig.script.under_way(), rig.followed()), (0, 0));
    pass(60 * SECOND).await;
    assert_eq!(rig.script.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_terminal_status_is_answered_without_asking_again() {
    let rig = rig();
    rig.script.set("a", JobState::Succeeded);
    for _ in 0..10 {
        assert_eq!(rig.get("a", Ask::default()).await.unwrap(), JobState::Succeeded);
    }
    let mut watch = rig.watch("a");
    assert_eq!([said(&mut watch).await, said(&mut watch).await], ["Succeeded", "end"]);
    assert_eq!(rig.script.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_get_that_waits_returns_at_the_end_or_with_the_newest_status() {
    let rig = rig();
    rig.script.set("a", JobState::Pending);
    let ask = Ask { wait: 20 * SECOND, ..Ask::default() };
    let started = Instant::now();
    let change = async {
        pass(5 * SECOND).await;
        rig.script.set("a", JobState::Running);
    };
    let (state, ()) = tokio::join!(rig.get("a", ask), change);
    assert_eq!((state.unwrap(), started.elapsed()), (JobState::Running, 20 * SECOND));
    let end = async {
        pass(5 * SECOND).await;
        rig.script.set("a", JobState::Failed);
    };
    let (state, ()) = tokio::join!(rig.get("a", ask), end);
    assert_eq!(state.unwrap(), JobState::Failed);
    assert!(started.elapsed() < 27 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_get_that_waits_outlasts_an_outage_and_a_late_registration() {
    let rig = rig();
    rig.script.go_down();
    let ask = Ask { wait: 60 * SECOND, ..Ask::default() };
    let recover = async {
        pass(5 * SECOND).await;
        rig.script.come_back();
        pass(3 * SECOND).await;
        rig.script.set("a", JobState::Cancelled);
    };
    let (state, ()) = tokio::join!(rig.get("a", ask), recover);
    assert_eq!(state.unwrap(), JobState::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn a_get_fails_at_once_where_the_vendor_can_not_be_asked() {
    let rig = rig();
    rig.script.go_down();
    let failure = rig.get("a", Ask::default()).await.unwrap_err();
    assert!(matches!(failure, Failure::Backend { retry_in, .. } if retry_in >= SECOND));
    assert!(matches!(rig.get("missing", Ask::default()).await, Err(Failure::Backend { .. })));
    rig.script.come_back();
    assert!(matches!(rig.get("missing", Ask::default()).await, Err(Failure::NotFound)));
}

#[tokio::test(start_paused = true)]
async fn a_get_fails_at_once_while_a_retry_after_runs_unless_what_is_known_will_do() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    let _watch = rig.watch("a");
    pass(SECOND / 2).await;
    rig.script.fail(FaultKind::Throttled { retry_after: Some(20 * SECOND) });
    let first = rig.get("a", Ask::default()).await;
    assert!(matches!(first, Err(Failure::Backend { retry_in, .. }) if retry_in == 20 * SECOND));
    pass(5 * SECOND).await;
    rig.script.forget_calls();
    for id in ["a", "new"] {
        let failure = rig.get(id, Ask::default()).await.unwrap_err();
        let Failure::Backend { fault, retry_in } = failure else { panic!("{failure}") };
        assert!(matches!(fault.kind, FaultKind::Throttled { .. }));
        assert_eq!(retry_in, 15 * SECOND, "the time left");
    }
    let known = rig.get("a", Ask { max_age: Some(60 * SECOND), ..Ask::default() }).await;
    assert_eq!(known.unwrap(), JobState::Running);
    assert!(rig.script.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_batch_answers_in_order_each_job_for_itself_across_backends() {
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
    let answers = rig.hub.get(&jobs, Ask::default()).await;
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
    assert_eq!(rig.script.calls().len(), 1, "and in as few requests as they fit in");
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_backend_did_not_answer_by_the_deadline_spoils_nothing_else() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    let slow = Script::new(3600 * SECOND);
    let (hub, _pollers) = Hub::start(
        vec![
            BackendSetup {
                name: "vendor".into(),
                vendor: "immuta",
                long_poll: false,
                check: Box::new(|_| Ok(())),
                max_batch: NonZeroUsize::MIN,
                upstream: Arc::clone(&rig.script) as Arc<_>,
                poll: poll(1),
            },
            BackendSetup {
                name: "dead".into(),
                vendor: "immuta",
                long_poll: false,
                check: Box::new(|_| Ok(())),
                max_batch: NonZeroUsize::MIN,
                upstream: slow,
                poll: poll(1),
            },
        ],
        Duration::ZERO,
        WatchLimits { total: 1, per_caller: 1, per_call: 1 },
        CancellationToken::new(),
    );
    let ask = Ask { deadline: Some(Instant::now() + 30 * SECOND), ..Ask::default() };
    let answers = hub.get(&[JobRef::new("dead", "x"), job("a")], ask).await;
    assert!(matches!(answers[0], Err(Failure::Deadline)));
    assert!(answers[1].is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_watch_tells_every_state_once_and_ends_after_the_terminal_one() {
    let rig = rig();
    rig.script.set("a", JobState::Pending);
    let mut watch = rig.watch("a");
    assert_eq!(said(&mut watch).await, "Pending");
    rig.script.set("a", JobState::Running);
    assert_eq!(said(&mut watch).await, "Running");
    rig.script.set("a", JobState::Succeeded);
    assert_eq!(said(&mut watch).await, "Succeeded");
    assert_eq!(said(&mut watch).await, "end");
    assert_eq!(said(&mut watch).await, "end");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_does_not_read_misses_states_but_not_the_last() {
    let rig = rig();
    rig.script.set("a", JobState::Pending);
    let mut watch = rig.watch("a");
    assert_eq!(said(&mut watch).await, "Pending");
    for state in [JobState::Running, JobState::Retrying, JobState::Running, JobState::Failed] {
        rig.script.set("a", state);
        pass(12 * SECOND).await;
    }
    assert_eq!([said(&mut watch).await, said(&mut watch).await], ["Failed", "end"]);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_watch_beats_and_a_change_the_caller_does_not_see_is_none() {
    let rig = rig();
    rig.script.set_word("a", JobState::Running, "same");
    let mut watch = rig.watch("a");
    let started = Instant::now();
    assert_eq!(said(&mut watch).await, "Running");
    for beat in 1..4 {
        assert_eq!(said(&mut watch).await, "heartbeat");
        assert!(started.elapsed() >= 30 * beat * SECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_not_there_yet_is_waited_for() {
    let rig = rig();
    let mut watch = rig.watch("late");
    let register = async {
        pass(3 * SECOND).await;
        rig.script.set("late", JobState::Pending);
    };
    let (first, ()) = tokio::join!(said(&mut watch), register);
    assert_eq!(first, "Pending");
    let started = Instant::now();
    let mut never = rig.watch("never");
    assert_eq!(said(&mut never).await, "failed: the vendor does not know this job");
    assert!((10 * SECOND..12 * SECOND).contains(&started.elapsed()), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_job_that_vanishes_ends_its_watch_with_its_last_status() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    let mut watch = rig.watch("a");
    let (_, token) = next(&mut watch).await;
    rig.script.remove("a");
    let Some(Err(Failure::Gone { last })) = watch.next().await else { panic!("gone") };
    assert_eq!(last.unwrap().snapshot.state, JobState::Running);
    assert!(watch.next().await.is_none());
    drop(watch);
    let mut resumed = rig.resume("a", &token);
    assert!(matches!(resumed.next().await, Some(Err(Failure::Gone { last: None }))));
}

#[tokio::test(start_paused = true)]
async fn one_answer_without_the_job_ends_no_watch() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    let mut watch = rig.watch("a");
    assert_eq!(said(&mut watch).await, "Running");
    rig.script.remove("a");
    pass(SECOND + LATENCY).await;
    rig.script.set("a", JobState::Succeeded);
    assert_eq!([said(&mut watch).await, said(&mut watch).await], ["Succeeded", "end"]);
}
