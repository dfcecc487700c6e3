//! How many watches may be open, in all and for each caller. A call that waits for a job
//! to end counts as a watch of it.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;

use super::{Caller, CallerKey, Failure};

/// How many watches may be open at once.
#[derive(Clone, Copy, Debug)]
pub struct WatchLimits {
    /// In all.
    pub total: usize,
    /// For one caller.
    pub per_caller: usize,
    /// In one WatchJobs.
    pub per_call: usize,
}

/// Counts open watches.
#[derive(Clone, Debug)]
pub(super) struct Quotas {
    limits: Arc<ArcSwap<WatchLimits>>,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    /// How many of each caller, and what their leases have in common.
    callers: HashMap<CallerKey, (usize, Arc<Share>)>,
}

/// Counts as one open watch until dropped.
#[derive(Debug)]
pub(super) struct WatchLease(Arc<Share>);

/// One caller's part of the quotas.
#[derive(Debug)]
struct Share {
    open: Arc<Mutex<Open>>,
    caller: CallerKey,
}

impl Quotas {
    pub(super) fn new(limits: WatchLimits) -> Self {
        Self { limits: Arc::new(ArcSwap::from_pointee(limits)), open: Arc::default() }
    }

    pub(super) fn limits(&self) -> WatchLimits {
        **self.limits.load()
    }

    /// Sets the limits for new watches.
    pub(super) fn set_limits(&self, limits: WatchLimits) {
        self.limits.store(Arc::new(limits));
    }

    /// Watches that are open.
    pub(super) fn open(&self) -> usize {
        lock(&self.open).total
    }

    pub(super) fn lease(&self, caller: Caller) -> Result<WatchLease, Failure> {
        let limits = self.limits();
        let mut open = lock(&self.open);
        if open.total >= limits.total {
            return Err(Failure::TooManyWatches { key: "limits.watches", limit: limits.total });
        }
        let key = caller.key();
        let limit = caller.limits().watches.unwrap_or(limits.per_caller);
        let share = || Arc::new(Share { open: Arc::clone(&self.open), caller: key });
        let (own, share) = open.callers.entry(key).or_insert_with(|| (0, share()));
        if *own >= limit {
            return Err(Failure::TooManyWatches { key: "limits.watches_per_caller", limit });
        }
        *own += 1;
        let lease = WatchLease(Arc::clone(share));
        open.total += 1;
        Ok(lease)
    }
}

impl Drop for WatchLease {
    fn drop(&mut self) {
        let mut open = lock(&self.0.open);
        open.total -= 1;
        if let Entry::Occupied(mut own) = open.callers.entry(self.0.caller) {
            own.get_mut().0 -= 1;
            if own.get().0 == 0 {
                own.remove();
            }
        }
    }
}

fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}
