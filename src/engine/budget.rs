//! What all backends together may hold in memory for statuses.
//!
//! Over the budget, statuses that nobody subscribes to are evicted first: retained jobs,
//! then the terminal-status cache. Then results and payloads that every subscriber has
//! read are dropped; a subscriber that needs them later causes a poll. If that is not
//! enough, new subscriptions are refused.

use std::{
    sync::{
        Arc, Mutex, PoisonError, TryLockError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::time::Instant;

use super::{backend::Backend, cache::TerminalCache};
use crate::snapshot::StatusBudget;

/// What is freed beyond the limit, so that it is not reached again at once.
const SLACK: u64 = 32;

/// How long nothing is tried after nothing could be freed: all jobs are looked at for that.
const RETRY: Duration = Duration::from_millis(100);

/// Bounds in memory.
#[derive(Clone, Copy, Debug)]
pub struct MemoryLimits {
    /// Bytes that all statuses may take.
    pub status_bytes: u64,
    /// Largest result or payload that a status holds.
    pub inline_result_bytes: usize,
    /// Most jobs in the tables of all backends.
    pub jobs: usize,
}

/// Counts jobs and bytes of statuses over all backends.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) budget: Arc<StatusBudget>,
    limits: ArcSwap<MemoryLimits>,
    pub(super) cache: TerminalCache,
    jobs: AtomicUsize,
    backends: Mutex<Vec<Weak<Backend>>>,
    /// Held while memory is freed; since when nothing more could be.
    relieving: Mutex<Option<Instant>>,
}

impl Memory {
    pub(super) fn new(limits: MemoryLimits, cache: TerminalCache) -> Arc<Self> {
        Arc::new(Self {
            budget: StatusBudget::new(limits.status_bytes),
            limits: ArcSwap::from_pointee(limits),
            cache,
            jobs: AtomicUsize::new(0),
            backends: Mutex::default(),
            relieving: Mutex::default(),
        })
    }

    pub(super) fn limits(&self) -> MemoryLimits {
        **self.limits.load()
    }

    /// Sets the limits, but for the bytes of all statuses.
    pub(super) fn set_limits(&self, limits: MemoryLimits) {
        let status_bytes = self.budget.limit();
        self.limits.store(Arc::new(MemoryLimits { status_bytes, ..limits }));
    }

    pub(super) fn add_backend(&self, backend: &Arc<Backend>) {
        let mut backends = self.backends.lock().unwrap_or_else(PoisonError::into_inner);
        backends.retain(|backend| backend.strong_count() > 0);
        backends.push(Arc::downgrade(backend));
    }

    /// Counts one more job, if there may be one.
    pub(super) fn add_job(&self) -> bool {
        let limit = self.limits().jobs;
        let add = |jobs: usize| (jobs < limit).then_some(jobs + 1);
        self.jobs.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }

    pub(super) fn remove_jobs(&self, jobs: usize) {
        self.jobs.fetch_sub(jobs, Ordering::Relaxed);
    }

    pub(super) fn jobs(&self) -> usize {
        self.jobs.load(Ordering::Relaxed)
    }

    /// Frees what may be freed, where more is held than the budget. Not while a lock of a
    /// backend is held.
    pub(super) fn relieve(&self) {
        if self.budget.is_over() {
            self.free();
        }
    }

    fn free(&self) {
        let mut nothing_freed_since = match self.relieving.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(guard)) => guard.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let now = Instant::now();
        if nothing_freed_since.is_some_and(|since| now.saturating_duration_since(since) < RETRY) {
            return;
        }
        let limit = self.budget.limit();
        let is_over = || self.budget.used() > limit - limit / SLACK;
        let backends = self.backends();
        for backend in &backends {
            backend.evict_retained(is_over);
        }
        self.cache.evict(is_over);
        for backend in &backends {
            if is_over() {
                backend.drop_delivered_parts(is_over);
            }
        }
        *nothing_freed_since = self.budget.is_over().then_some(now);
    }

    /// Whether a new subscription is refused. Makes room for its job.
    pub(super) fn is_full(&self) -> bool {
        self.relieve();
        let limit = self.limits().jobs;
        let has_all_jobs = || self.jobs.load(Ordering::Relaxed) >= limit;
        if has_all_jobs() {
            for backend in self.backends() {
                backend.evict_retained(has_all_jobs);
            }
        }
        self.budget.is_over()
    }

    fn backends(&self) -> Vec<Arc<Backend>> {
        let backends = self.backends.lock().unwrap_or_else(PoisonError::into_inner);
        backends.iter().filter_map(Weak::upgrade).collect()
    }
}
