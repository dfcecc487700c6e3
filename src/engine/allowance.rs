//! What one of several replicas may use of a backend's limits.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use super::{
    backend::Backend,
    state::{PollPlan, State},
};
use crate::job::{BackendFault, FaultKind};

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

/// How many polls there can be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capacity {
    pub(super) per_second: u32,
    pub(super) in_flight: usize,
}

/// Why a replica can't poll that has no part of the rate of its own.
pub(super) fn no_part() -> BackendFault {
    let why = "requests_per_second is lower than cluster.replicas, so only the replica that owns this backend \
               sends requests to it, and this one does not own it";
    FaultKind::Unavailable { why: why.into() }.into()
}

impl State {
    /// A replica that has no part of the rate can't poll, unless another one does it.
    pub(super) fn bar(&mut self, now: Instant) {
        let is_barred = self.sharing.has_no_part && !self.sharing.is_following;
        if self.breaker.set_barred(is_barred.then(no_part)) && !is_barred {
            let no_part = no_part();
            self.poll_at_once(|entry| entry.is_interrupted_by(&no_part), now);
        }
    }
}

impl Backend {
    /// Sets this replica's parts of the limits, each its own and that of the owner, which counts
    /// until `owner_until`. An owner that has to wait for its part polls in a moment.
    pub fn set_allowance(
        &self,
        rate: (u32, u32),
        in_flight: (u32, u32),
        is_owner: bool,
        owner_until: Option<Instant>,
    ) {
        self.rate_limiter().set_allowance(rate.0, rate.1, owner_until);
        self.concurrency.set(Parts { own: in_flight.0, owner: in_flight.1, owner_until });
        let now = Instant::now();
        let mut state = self.state();
        state.sharing.has_no_part = rate.0 == 0 && !is_owner;
        state.bar(now);
        drop(state);
        self.changed();
    }

    /// How many polls there can be now, with the plan that holds.
    pub(super) fn capacity(&self, plan: &PollPlan, now: Instant) -> Capacity {
        Capacity { per_second: self.rate_limiter().limit(now), in_flight: self.in_flight_of(plan, now) }
    }

    fn in_flight_of(&self, plan: &PollPlan, now: Instant) -> usize {
        let part = self.concurrency.part(now).map(|part| usize::try_from(part).unwrap_or(usize::MAX));
        part.unwrap_or(plan.max_concurrency.get())
    }

    /// Counts so many requests as sent now, by a process in whose place this one may be.
    pub fn count_as_sent(&self, requests: u32) {
        self.rate_limiter().count_as_sent(requests);
    }

    /// How many polls may be in flight now.
    pub(super) fn most_in_flight(&self, now: Instant) -> usize {
        self.in_flight_of(&self.plan(), now)
    }
}
