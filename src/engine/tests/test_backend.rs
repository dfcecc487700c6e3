//! One backend whose vendor is a script, on a paused clock.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::script::Script;
use crate::{
    engine::{
        Backend, CallerKey, Clock, Health, Interest, MemoryLimits, NotificationQueue, PollInterval,
        PollOutcome, PollPlan, Purpose, Refusal, Report, Subscription, budget::Memory, cache::TerminalCache,
        poll_loop::PollLoop,
    },
    job::{JobRef, JobState, ObserverId, Parts},
    transport::{Backoff, RateLimiter, Upstream},
};

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const LATENCY: Duration = Duration::from_millis(50);

/// A backend and the task that polls it.
pub(super) struct TestBackend {
    pub(super) script: Arc<Script>,
    pub(super) backend: Arc<Backend>,
    /// Ends the task.
    _stop: DropGuard,
}

/// A thousand requests a second, eight at once.
pub(super) fn plan(max_batch: usize) -> PollPlan {
    PollPlan {
        interval: PollInterval { min: SECOND, max: 10 * SECOND },
        backoff: Backoff { min: SECOND, max: 30 * SECOND },
        collection_window: Duration::from_millis(5),
        max_batch: nonzero(max_batch),
        max_concurrency: nonzero(8),
        requests_per_second: per_second(1000),
        terminal_age: None,
    }
}

pub(super) fn nonzero(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).unwrap()
}

pub(super) fn per_second(rate: u32) -> NonZeroU32 {
    NonZeroU32::new(rate).unwrap()
}

/// A backend that nothing polls.
pub(super) fn backend(plan: PollPlan) -> Arc<Backend> {
    let limits = MemoryLimits { status_bytes: 512 << 20, inline_result_bytes: 8 << 20, jobs: 1_000_000 };
    let memory = Memory::new(limits, TerminalCache::new(1 << 20, 60 * SECOND));
    let clock = Clock { observer: ObserverId(1), epoch: Instant::now() };
    Backend::new("vendor".into(), plan, RateLimiter::new(plan.requests_per_second), memory, clock, None)
}

impl TestBackend {
    pub(super) fn new(max_batch: usize) -> Self {
        Self::with_plan(plan(max_batch))
    }

    pub(super) fn with_plan(plan: PollPlan) -> Self {
        let script = Script::new(LATENCY);
        Self { script: Arc::clone(&script), ..Self::with_upstream(plan, script) }
    }

    /// A backend whose vendor is not the script.
    pub(super) fn with_upstream(plan: PollPlan, upstream: Arc<dyn Upstream>) -> Self {
        let backend = backend(plan);
        let stop = CancellationToken::new();
        tokio::spawn(PollLoop::new(Arc::clone(&backend), upstream).run(stop.clone()));
        Self { script: Script::new(LATENCY), backend, _stop: stop.drop_guard() }
    }

    /// A watch.
    pub(super) fn watch(&self, id: &str) -> Subscription {
        self.watch_every(id, None)
    }

    /// A watch with a longest interval between two polls.
    pub(super) fn watch_every(&self, id: &str, interval: Option<Duration>) -> Subscription {
        subscribe(&self.backend, id, 0, Purpose::Watch { interval }).unwrap()
    }

    pub(super) fn watch_all(&self, ids: &[String]) -> Vec<Subscription> {
        ids.iter().map(|id| self.watch(id)).collect()
    }

    pub(super) fn report(&self) -> Report {
        self.backend.report(Instant::now())
    }

    pub(super) fn health(&self) -> Health {
        self.report().health
    }

    /// Checks the invariants. Returns the number of jobs with subscribers.
    pub(super) fn subscribed(&self) -> usize {
        self.backend.check();
        self.report().subscribed_jobs
    }

    /// The state of a job as far as it is known; does not count as a call for it.
    pub(super) fn known(&self, id: &str) -> Option<JobState> {
        Some(self.backend.known(&job(id))?.snapshot.state)
    }

    /// A call without `max_age`.
    pub(super) fn call(&self, id: &str) -> Subscription {
        subscribe(&self.backend, id, 0, call(None)).unwrap()
    }

    /// So many jobs that are running.
    pub(super) fn running(&self, count: usize) -> Vec<String> {
        let ids = ids(count);
        for id in &ids {
            self.script.set(id, JobState::Running);
        }
        ids
    }
}

/// The ids of so many jobs.
pub(super) fn ids(count: usize) -> Vec<String> {
    (0..count).map(|index| format!("job-{index:04}")).collect()
}

pub(super) fn job(id: &str) -> JobRef {
    JobRef::new("vendor", id)
}

/// Subscribes to one job for a caller.
pub(super) fn subscribe(
    backend: &Arc<Backend>,
    id: &str,
    caller: u64,
    purpose: Purpose,
) -> Result<Subscription, Refusal> {
    let queue = Arc::new(NotificationQueue::new(CallerKey(caller)));
    subscribe_with(backend, id, purpose, queue)
}

/// The same, notified through `queue`.
pub(super) fn subscribe_with(
    backend: &Arc<Backend>,
    id: &str,
    purpose: Purpose,
    queue: Arc<NotificationQueue>,
) -> Result<Subscription, Refusal> {
    let interest = Interest { queue, slot: 0, parts: Parts::ALL, purpose };
    backend.subscribe(&job(id), interest)
}

/// A call with a deadline of a minute.
pub(super) fn call(max_age: Option<Duration>) -> Purpose {
    Purpose::Call { max_age, deadline: Instant::now() + 60 * SECOND }
}

pub(super) const WATCH: Purpose = Purpose::Watch { interval: None };

pub(super) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

pub(super) fn state(subscription: &Subscription) -> Option<JobState> {
    subscription.look(|record| record.latest.as_ref().map(|latest| latest.snapshot.state))
}

pub(super) fn outcome(subscription: &Subscription) -> PollOutcome {
    subscription.look(|record| record.outcome.clone())
}

pub(super) fn is_interrupted(subscription: &Subscription) -> bool {
    matches!(outcome(subscription), PollOutcome::Interrupted(_))
}

pub(super) fn is_observed(subscription: &Subscription) -> bool {
    outcome(subscription) == PollOutcome::Observed
}

pub(super) fn is_running(subscription: &Subscription) -> bool {
    state(subscription) == Some(JobState::Running)
}
