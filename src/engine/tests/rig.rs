//! An engine with two scripted backends, and short names for what its calls return.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::script::Script;
use crate::{
    engine::{
        BackendReport, BackendSetup, Caller, Engine, EngineLimits, Event, Failure, GetOptions, JobStatuses,
        MemoryLimits, PollInterval, PollPlan, Watch, WatchLimits, WatchOptions,
    },
    job::{InvalidJobRef, JobRef, JobState, Parts, View},
    transport::{Backoff, Upstream},
};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const LATENCY: Duration = Duration::from_millis(50);
const COLLECTION_WINDOW: Duration = Duration::from_millis(5);

/// An engine and the task that runs its polls.
pub(crate) struct Running {
    pub(crate) engine: Arc<Engine>,
    pub(crate) shutdown: CancellationToken,
    _poll_tasks: AbortOnDropHandle<()>,
}

/// An engine with two backends: "vendor" polls many jobs at once, "other" one at a time.
pub(crate) struct Rig {
    pub(crate) script: Arc<Script>,
    pub(crate) other: Arc<Script>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) shutdown: CancellationToken,
    _running: Running,
}

pub(crate) fn plan(max_batch: usize) -> PollPlan {
    PollPlan {
        interval: PollInterval { min: SECOND, max: 10 * SECOND },
        backoff: Backoff { min: SECOND, max: 30 * SECOND },
        collection_window: COLLECTION_WINDOW,
        max_batch: NonZeroUsize::new(max_batch).unwrap(),
        max_concurrency: NonZeroUsize::new(8).unwrap(),
        requests_per_second: NonZeroU32::new(1000).unwrap(),
        terminal_age: None,
    }
}

pub(crate) fn setup(name: &str, max_batch: usize, upstream: Arc<dyn Upstream>) -> BackendSetup {
    BackendSetup {
        name: name.into(),
        vendor: "immuta",
        vendor_version: Arc::default(),
        check: Box::new(|job: &JobRef| {
            if &*job.id == "bad id" {
                return Err(InvalidJobRef { field: "job_id", reason: "must not be bad".into() });
            }
            Ok(())
        }),
        upstream,
        plan: plan(max_batch),
        timeout: 15 * SECOND,
        not_found_grace: 10 * SECOND,
        tracer: None,
    }
}

pub(crate) const MEMORY: MemoryLimits =
    MemoryLimits { status_bytes: 512 << 20, inline_result_bytes: 1 << 20, jobs: 1_000_000 };

pub(crate) fn limits(watches: WatchLimits) -> EngineLimits {
    EngineLimits { watches, memory: MEMORY }
}

pub(crate) fn many_watches() -> WatchLimits {
    WatchLimits { total: 10_000, per_caller: 10_000, per_call: 1000 }
}

pub(crate) fn start(setups: Vec<BackendSetup>, limits: EngineLimits) -> Running {
    let shutdown = CancellationToken::new();
    let (engine, poll_tasks) = Engine::new(limits, shutdown.clone());
    for setup in setups {
        engine.start_backend(setup);
    }
    let task = tokio::spawn(async move { poll_tasks.failed().await });
    Running { engine, shutdown, _poll_tasks: AbortOnDropHandle::new(task) }
}

pub(crate) fn rig() -> Rig {
    rig_with(limits(WatchLimits { total: 4, per_caller: 3, per_call: 2 }))
}

pub(crate) fn rig_with(limits: EngineLimits) -> Rig {
    rig_of(limits, plan(200))
}

/// The same, where jobs are polled by this plan.
pub(crate) fn rig_of(limits: EngineLimits, plan: PollPlan) -> Rig {
    let (script, other) = (Script::new(LATENCY), Script::new(LATENCY));
    let vendor = BackendSetup { plan, ..setup("vendor", 200, Arc::clone(&script) as _) };
    let setups = vec![vendor, setup("other", 1, Arc::clone(&other) as _)];
    let running = start(setups, limits);
    let (engine, shutdown) = (Arc::clone(&running.engine), running.shutdown.clone());
    Rig { script, other, engine, shutdown, _running: running }
}

pub(crate) fn job(id: &str) -> JobRef {
    JobRef::new("vendor", id)
}

/// A watch that shows everything.
pub(crate) fn options() -> WatchOptions {
    WatchOptions {
        view: View::FULL,
        resume_token: String::new(),
        interval: None,
        heartbeat: 30 * SECOND,
        deadline: None,
    }
}

pub(crate) fn resuming(token: &str) -> WatchOptions {
    WatchOptions { resume_token: token.into(), ..options() }
}

/// A call that needs a fresh status within a minute.
pub(crate) fn fresh() -> GetOptions {
    GetOptions {
        max_age: None,
        wait: Duration::ZERO,
        deadline: Instant::now() + 60 * SECOND,
        parts: Parts::ALL,
        caller: Caller::default(),
    }
}

/// A call that waits for its jobs to end.
pub(crate) fn waiting(wait: Duration) -> GetOptions {
    GetOptions { wait, deadline: Instant::now() + wait + 60 * SECOND, ..fresh() }
}

/// A call that accepts a status of this age.
pub(crate) fn aged(max_age: Duration) -> GetOptions {
    GetOptions { max_age: Some(max_age), ..fresh() }
}

pub(crate) fn caller(number: u8) -> Caller {
    Caller::from_address(Some([127, 0, 0, number].into()))
}

pub(crate) fn report_of(engine: &Engine, name: &str) -> BackendReport {
    let report = engine.backends().into_iter().find(|report| &*report.name == name);
    report.expect("the backend is started")
}

pub(crate) fn subscribed(engine: &Engine) -> usize {
    engine.backends().iter().map(|report| report.report.subscribed_jobs).sum()
}

impl Rig {
    pub(crate) fn subscribed(&self) -> usize {
        subscribed(&self.engine)
    }

    pub(crate) async fn get(&self, id: &str, options: GetOptions) -> Result<JobState, Failure> {
        self.engine.get(&job(id), options).await.map(|latest| latest.snapshot.state)
    }

    pub(crate) fn watch(&self, id: &str) -> Watch {
        self.engine.watch(&job(id), Caller::default(), &options()).unwrap()
    }

    pub(crate) fn resume(&self, id: &str, token: &str) -> Watch {
        self.engine.watch(&job(id), Caller::default(), &resuming(token)).unwrap()
    }
}

/// The next event in short, with its resume token.
pub(crate) async fn event_and_token(watch: &mut Watch) -> (String, String) {
    match timeout(3600 * SECOND, watch.next()).await.expect("an update within the hour") {
        Some(Ok(update)) => (in_short(&update.event), update.resume_token),
        Some(Err(failure)) => (format!("failed: {failure}"), String::new()),
        None => ("end".into(), String::new()),
    }
}

/// The next event in short.
pub(crate) async fn event(watch: &mut Watch) -> String {
    event_and_token(watch).await.0
}

/// The next event that is no heartbeat, in short.
pub(crate) async fn status(watch: &mut Watch) -> String {
    loop {
        let event = event(watch).await;
        if event != "heartbeat" {
            return event;
        }
    }
}

pub(crate) fn in_short(event: &Event) -> String {
    match event {
        Event::Status(latest) => format!("{:?}", latest.snapshot.state),
        Event::Heartbeat { .. } => "heartbeat".into(),
        Event::Interruption { interruption, .. } => format!("interrupted: {}", interruption.fault),
    }
}

/// Whether nothing is sent for this long.
pub(crate) async fn is_silent(watch: &mut Watch, time: Duration) -> bool {
    timeout(time, watch.next()).await.is_err()
}

pub(crate) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Runs a property's body on a paused clock.
pub(crate) fn on_a_paused_clock(body: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(body);
}
