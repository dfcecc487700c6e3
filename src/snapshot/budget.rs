//! The byte budget for statuses.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// A shared bound in bytes for everything that is held for statuses.
///
/// Charging never fails, so that a status which was polled is never lost. The owner
/// of the statuses checks [`is_over`](Self::is_over) and decides what to evict.
#[derive(Debug)]
pub struct StatusBudget {
    limit: u64,
    used: AtomicU64,
}

impl StatusBudget {
    /// A budget of `limit_bytes` of which nothing is used.
    pub fn new(limit_bytes: u64) -> Arc<Self> {
        Arc::new(Self { limit: limit_bytes, used: AtomicU64::new(0) })
    }

    /// Bytes charged now.
    pub fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// Bytes that may be charged before something must be evicted.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Whether more than the limit is charged.
    pub fn is_over(&self) -> bool {
        self.over_by() > 0
    }

    /// Bytes charged beyond the limit.
    pub fn over_by(&self) -> u64 {
        self.used().saturating_sub(self.limit)
    }

    /// Charges `bytes` until the returned value is dropped.
    pub fn charge(self: &Arc<Self>, bytes: u64) -> Charge {
        self.used.fetch_add(bytes, Relaxed);
        Charge { budget: Arc::clone(self), bytes }
    }
}

/// Bytes charged to a [`StatusBudget`]; dropping it gives them back.
pub struct Charge {
    budget: Arc<StatusBudget>,
    bytes: u64,
}

impl Charge {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn budget(&self) -> &Arc<StatusBudget> {
        &self.budget
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Relaxed);
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn dropped_charge_is_returned() {
        let budget = StatusBudget::new(10);
        assert_eq!((budget.limit(), budget.used(), budget.is_over()), (10, 0, false));
        let first = budget.charge(10);
        assert_eq!((budget.used(), budget.is_over(), budget.over_by()), (10, false, 0));
        let second = budget.charge(7);
        assert_eq!((budget.used(), budget.is_over(), budget.over_by()), (17, true, 7));
        drop(first);
        assert_eq!((budget.used(), budget.is_over()), (7, false));
        drop(second);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn charges_of_many_threads_are_all_returned() {
        let budget = StatusBudget::new(1);
        thread::scope(|scope| {
            for bytes in 1..=4 {
                let budget = &budget;
                scope.spawn(move || (0..1000).for_each(|_| drop(budget.charge(bytes))));
            }
        });
        assert_eq!(budget.used(), 0);
    }
}
