//! What a lease is asked and what it answers.

use std::time::Duration;

use tokio::time::Instant;

use super::{LeasePause, LeaseValue};
use crate::{
    cluster::fault,
    job::{BackendFault, FaultKind},
};

/// A released lease is taken over within a second, however long it is.
const LONGEST_SPREAD: Duration = Duration::from_millis(500);

/// The durations of an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long a value is unchanged before another replica replaces it.
    pub lease: Duration,
    /// How long an owner is one after it sent a renewal.
    pub renew_deadline: Duration,
    /// From one renewal to the next, or from one look at the value to the next.
    pub retry: Duration,
}

impl Timing {
    /// client-go's proportions: 15 s, 10 s and 2 s.
    pub fn of_lease(lease: Duration) -> Self {
        Self { lease, renew_deadline: lease * 2 / 3, retry: lease * 2 / 15 }
    }

    /// The longest time that a replica waits because another comes before it, and the wait
    /// after a call without an answer.
    pub(super) fn short(&self) -> Duration {
        (self.retry / 4).min(LONGEST_SPREAD)
    }
}

/// A replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its configured name.
    pub name: String,
    /// The process: random, not zero.
    pub incarnation: u64,
}

/// Whose a backend is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Nobody's, as far as this replica knows.
    Unknown,
    /// This replica's.
    Owner {
        /// Counts the changes of owner.
        epoch: u64,
        /// When this ends, unless a renewal succeeds before.
        until: Instant,
        /// From when it may send as many requests as the owner may.
        full_rate_from: Instant,
        /// What its predecessor knew of the backend.
        pause: Option<Pause>,
    },
    /// Another replica's.
    HeldBy {
        /// Its name.
        member: String,
        /// Its process.
        incarnation: u64,
        /// Counts the changes of owner.
        epoch: u64,
    },
}

/// A time in which the backend must not be polled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// Its end.
    pub until: Instant,
    /// Why.
    pub fault: BackendFault,
    /// Which backend it is of: [`Limits::digest`](crate::cluster::Limits::digest). 0 if the
    /// replica that wrote it is of a release that does not say.
    pub digest: u64,
}

impl Pause {
    /// The pause as it is written at `now`; `None` once it is over.
    pub(super) fn to_message(&self, now: Instant) -> Option<LeasePause> {
        let left = self.until.checked_duration_since(now)?;
        let fault = BackendFault { exchange: None, ..self.fault.clone() };
        Some(LeasePause {
            remaining_ms: fault::milliseconds(left),
            reason: fault.kind.to_string(),
            fault: Some(fault::to_message(&fault)),
            digest: self.digest,
        })
    }

    /// The pause of a value that was first seen at `since`.
    pub(super) fn from_message(message: &LeasePause, since: Instant) -> Self {
        let LeasePause { remaining_ms, reason, fault, digest } = message;
        // A value from elsewhere; the longest wait that a vendor may ask for is shorter.
        let left = Duration::from_millis(*remaining_ms).min(Duration::from_hours(24));
        let fault = match fault {
            Some(fault) => fault::from_message(fault.clone()),
            None => FaultKind::Unavailable { why: reason.clone() }.into(),
        };
        Self { until: since + left, fault, digest: *digest }
    }

    /// Whether the vendor asked for it.
    pub fn is_requested(&self) -> bool {
        self.fault.retry_after.is_some()
    }
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Read the value, and call [`Lease::observed`](super::Lease::observed) or [`Lease::unreadable`](super::Lease::unreadable).
    Read,
    /// Write the value if there is none, and call [`Lease::written`](super::Lease::written).
    Create(LeaseValue),
    /// Write the value if the revision is still this one, and call [`Lease::written`](super::Lease::written).
    Update(LeaseValue, u64),
    /// Nothing before this time.
    Nothing {
        /// When to ask again.
        until: Instant,
    },
}

/// Why a value was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// The revision is another one.
    Conflict,
    /// No answer: it may have been written, or may still be.
    Failed,
}
