//! The download slots of a backend, and each caller's share of them.

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::caller::{Caller, CallerKey};

/// One caller may have a quarter of the slots, unless its policy says otherwise.
const SHARE: usize = 4;

/// Slots for downloads.
#[derive(Debug)]
pub(super) struct DownloadSlots {
    slots: Arc<Semaphore>,
    limit: usize,
    /// Downloads that wait for a slot.
    waiting: AtomicUsize,
    /// The shares in use.
    shares: Mutex<HashMap<CallerKey, Weak<Semaphore>>>,
}

/// A slot that is taken until this is dropped.
#[derive(Debug)]
pub(super) struct DownloadSlot {
    _slot: OwnedSemaphorePermit,
    _share: Share,
}

#[derive(Debug)]
struct Share {
    _permit: OwnedSemaphorePermit,
    slots: Arc<DownloadSlots>,
    key: CallerKey,
}

/// No slot became free in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoSlot {
    /// How many downloads there may be.
    pub(super) limit: usize,
    /// Whether that is the caller's share.
    pub(super) of_caller: bool,
}

impl DownloadSlots {
    pub(super) fn new(limit: NonZeroUsize) -> Arc<Self> {
        let limit = limit.get().min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            slots: Arc::new(Semaphore::new(limit)),
            limit,
            waiting: AtomicUsize::new(0),
            shares: Mutex::default(),
        })
    }

    /// Waits for a slot within the caller's share, at most so long.
    pub(super) async fn acquire(
        self: &Arc<Self>,
        caller: Caller,
        longest: Duration,
    ) -> Result<DownloadSlot, NoSlot> {
        let limit = caller.limits().downloads.unwrap_or(self.limit.div_ceil(SHARE)).min(self.limit);
        let mut refused = NoSlot { limit, of_caller: true };
        let acquired = timeout(longest, async {
            let share = self.share(caller.key(), limit);
            let permit = share.acquire_owned().await.ok()?;
            let share = Share { _permit: permit, slots: Arc::clone(self), key: caller.key() };
            refused = NoSlot { limit: self.limit, of_caller: false };
            let _waiting = Waiting::new(&self.waiting);
            let slot = Arc::clone(&self.slots).acquire_owned().await.ok()?;
            Some(DownloadSlot { _slot: slot, _share: share })
        });
        acquired.await.ok().flatten().ok_or(refused)
    }

    /// Whether another caller waits for a slot.
    pub(super) fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    fn share(&self, key: CallerKey, limit: usize) -> Arc<Semaphore> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(&key).and_then(Weak::upgrade) {
            return share;
        }
        let share = Arc::new(Semaphore::new(limit));
        shares.insert(key, Arc::downgrade(&share));
        share
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut shares = self.slots.shares.lock().unwrap_or_else(PoisonError::into_inner);
        // This permit and those of others who have one or wait hold the share.
        if shares.get(&self.key).is_some_and(|share| share.strong_count() <= 1) {
            shares.remove(&self.key);
        }
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::caller::CallerLimits;

    const LONGEST: Duration = Duration::from_secs(15);

    fn slots(limit: usize) -> Arc<DownloadSlots> {
        DownloadSlots::new(NonZeroUsize::new(limit).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn one_caller_has_a_quarter_of_the_slots_and_at_least_one() {
        for (limit, share) in [(1, 1), (2, 1), (8, 2), (9, 3)] {
            let slots = slots(limit);
            let (greedy, other) = (Caller::from_name("greedy"), Caller::from_name("other"));
            let mut held = Vec::new();
            for _ in 0..share {
                held.push(slots.acquire(greedy, LONGEST).await.unwrap());
            }
            let refused = slots.acquire(greedy, LONGEST).await.unwrap_err();
            assert_eq!(refused, NoSlot { limit: share, of_caller: true });
            assert_eq!(slots.acquire(other, LONGEST).await.is_ok(), limit > share);
            held.pop();
            assert!(slots.acquire(greedy, LONGEST).await.is_ok());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn policy_sets_the_share_of_its_caller() {
        let slots = slots(8);
        let limits = |downloads| CallerLimits { watches: None, downloads: Some(downloads) };
        let trusted = Caller::from_name("trusted").with_limits(limits(100));
        let mut held = Vec::new();
        for _ in 0..8 {
            held.push(slots.acquire(trusted, LONGEST).await.unwrap());
        }
        let refused = slots.acquire(Caller::from_name("other"), LONGEST).await.unwrap_err();
        assert_eq!(refused, NoSlot { limit: 8, of_caller: false });
        assert!(!slots.is_wanted());
    }

    #[tokio::test(start_paused = true)]
    async fn share_that_nobody_uses_is_forgotten() {
        let slots = slots(8);
        for n in 0..100 {
            let _ = slots.acquire(Caller::from_name(&n.to_string()), LONGEST).await.unwrap();
        }
        assert!(slots.shares.lock().unwrap().is_empty());
    }
}
