//! A configured backend: its jobs, and the settings that they are polled with.
//!
//! The settings can be replaced while calls and watches are open. The jobs stay where they
//! are, so that nobody who subscribes to one notices more than a poll:
//!
//! ```text
//!   polling ──> old poll loop ends ──> jobs take over the new settings ──> new poll loop
//!                 (polls in flight are cancelled)
//! ```

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::Mutex;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    BackendSetup, Check, Clock, Failure, PollPlan, backend::Backend, budget::Memory, download::Downloads,
    poll_loop::PollLoop,
};
use crate::{
    job::JobRef,
    transport::{RateLimiter, Upstream},
};

/// Whether new settings of a backend lead to the jobs that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownJobs {
    /// They are polled at the same place.
    Same,
    /// The same ids may stand for other jobs now. What is known of them is forgotten.
    Others,
}

/// A backend of the configuration.
pub(super) struct Configured {
    pub(super) engine: Arc<Backend>,
    /// It was removed or replaced by another, or the server stops.
    pub(super) retired: CancellationToken,
    /// Whether another one has its name since it was retired.
    replaced: AtomicBool,
    settings: ArcSwap<Settings>,
    /// Ends its polls for good.
    stop: CancellationToken,
    failed: CancellationToken,
    /// Held while the settings are replaced.
    polling: Mutex<Polling>,
}

/// What calls need to know of a backend.
pub(super) struct Settings {
    pub(super) vendor: &'static str,
    pub(super) vendor_version: Arc<str>,
    pub(super) max_batch: NonZeroUsize,
    pub(super) grace: Duration,
    pub(super) downloads: Arc<Downloads>,
    check: Check,
}

/// The tasks' tokens that a backend's polls depend on.
#[derive(Debug)]
pub(super) struct Tokens {
    /// Cancelled at shutdown.
    pub(super) shutdown: CancellationToken,
    /// Ends all polls.
    pub(super) stop: CancellationToken,
    /// A task that polls has ended by itself.
    pub(super) failed: CancellationToken,
}

impl Configured {
    /// Starts to poll a backend.
    pub(super) fn start(setup: BackendSetup, clock: Clock, memory: &Arc<Memory>, tokens: &Tokens) -> Self {
        let rate_limiter = RateLimiter::new(setup.plan.requests_per_second);
        let engine = Backend::new(
            Arc::clone(&setup.name),
            setup.plan,
            rate_limiter,
            Arc::clone(memory),
            clock,
            setup.tracer.clone(),
        );
        let stop = tokens.stop.child_token();
        let (settings, upstream, _) = Settings::of(setup, &engine);
        let polling = Polling::start(&engine, upstream, &stop, &tokens.failed);
        Self {
            engine,
            retired: tokens.shutdown.child_token(),
            replaced: AtomicBool::new(false),
            settings: ArcSwap::from_pointee(settings),
            stop,
            failed: tokens.failed.clone(),
            polling: Mutex::new(polling),
        }
    }

    /// Polls with other settings from now on.
    pub(super) async fn reconfigure(&self, setup: BackendSetup, known: KnownJobs) {
        let mut polling = self.polling.lock().await;
        polling.end().await;
        let (settings, upstream, plan) = Settings::of(setup, &self.engine);
        let settings = Arc::new(settings);
        self.settings.store(Arc::clone(&settings));
        self.engine.reconfigure(plan, &settings.check, known);
        *polling = Polling::start(&self.engine, upstream, &self.stop, &self.failed);
    }

    /// Ends its polls, calls and watches. `is_replaced`: another one has its name.
    pub(super) fn retire(&self, is_replaced: bool) {
        self.replaced.store(is_replaced, Ordering::Release);
        self.retired.cancel();
        self.stop.cancel();
        self.engine.notify_subscribers();
    }

    /// What calls and watches end with when it was retired: what a new call would, unless
    /// that is worth a try.
    pub(super) fn retirement(&self) -> Failure {
        if self.replaced.load(Ordering::Acquire) { Failure::BackendRetired } else { Failure::UnknownBackend }
    }

    /// The settings in use.
    pub(super) fn settings(&self) -> Guard<Arc<Settings>> {
        self.settings.load()
    }

    /// Checks a job ref before anything is polled, and again after `subscribe`, where the
    /// settings were replaced meanwhile: the jobs before that have been checked then.
    pub(super) fn checked<T>(
        &self,
        job: &JobRef,
        subscribe: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let settings = self.settings.load_full();
        (settings.check)(job)?;
        let subscription = subscribe()?;
        let current = self.settings.load();
        if !Arc::ptr_eq(&settings, &current) {
            (current.check)(job)?;
        }
        Ok(subscription)
    }

    /// Checks a job ref.
    pub(super) fn check(&self, job: &JobRef) -> Result<(), Failure> {
        Ok((self.settings.load().check)(job)?)
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Settings {
    fn of(setup: BackendSetup, engine: &Arc<Backend>) -> (Self, Arc<dyn Upstream>, PollPlan) {
        let BackendSetup {
            name: _,
            vendor,
            vendor_version,
            check,
            upstream,
            plan,
            timeout,
            not_found_grace,
            tracer: _,
        } = setup;
        let downloads = Downloads::new(
            Arc::clone(engine),
            Arc::clone(&upstream),
            plan.max_concurrency,
            timeout,
            plan.interval.min,
        );
        let settings = Self {
            vendor,
            vendor_version,
            max_batch: plan.max_batch,
            grace: not_found_grace,
            downloads: Arc::new(downloads),
            check,
        };
        (settings, upstream, plan)
    }
}

/// The task that polls a backend.
struct Polling {
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl Polling {
    fn start(
        engine: &Arc<Backend>,
        upstream: Arc<dyn Upstream>,
        stop: &CancellationToken,
        failed: &CancellationToken,
    ) -> Self {
        let stop = stop.child_token();
        let report = ReportEnd { stop: stop.clone(), failed: failed.clone() };
        let poll_loop = PollLoop::new(Arc::clone(engine), upstream);
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let _report = report;
            poll_loop.run(stopped).await;
        });
        Self { stop, task: AbortOnDropHandle::new(task) }
    }

    /// Ends the task, and returns when no poll is in flight any more.
    async fn end(&mut self) {
        self.stop.cancel();
        // A task that has panicked was reported by its `ReportEnd`.
        let _ = (&mut self.task).await;
    }
}

/// Reports that a task has ended, unless it was stopped.
struct ReportEnd {
    stop: CancellationToken,
    failed: CancellationToken,
}

impl Drop for ReportEnd {
    fn drop(&mut self) {
        if !self.stop.is_cancelled() {
            self.failed.cancel();
        }
    }
}
