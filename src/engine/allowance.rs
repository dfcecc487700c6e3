//! What one of several replicas may use of a backend's limits.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use super::backend::Backend;

/// How many polls may be in flight, where that is a part of `max_concurrency`.
#[derive(Debug, Default)]
pub(super) struct Concurrency(Mutex<Option<Parts>>);

#[derive(Clone, Copy, Debug)]
struct Parts {
    own: u32,
    owner: u32,
    /// Until when `owner` counts.
    owner_until: Option<Instant>,
}

impl Concurrency {
    fn set(&self, parts: Parts) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(parts);
    }

    /// This replica's part now; `None` where it has all of it.
    fn part(&self, now: Instant) -> Option<u32> {
        let Parts { own, owner, owner_until } = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        Some(if owner_until.is_some_and(|until| now < until) { owner } else { own })
    }
}

impl Backend {
    /// Sets this replica's parts of the limits, each its own and that of the owner, which counts
    /// until `owner_until`.
    pub fn set_allowance(&self, rate: (u32, u32), in_flight: (u32, u32), owner_until: Option<Instant>) {
        self.rate_limiter().set_allowance(rate.0, rate.1, owner_until);
        self.concurrency.set(Parts { own: in_flight.0, owner: in_flight.1, owner_until });
        self.changed();
    }

    /// Counts so many requests as sent now, by a process in whose place this one may be.
    pub fn count_as_sent(&self, requests: u32) {
        self.rate_limiter().count_as_sent(requests);
    }

    /// How many polls may be in flight now.
    pub(super) fn most_in_flight(&self, now: Instant) -> usize {
        match self.concurrency.part(now) {
            Some(part) => usize::try_from(part).unwrap_or(usize::MAX),
            None => self.plan().max_concurrency.get(),
        }
    }
}
