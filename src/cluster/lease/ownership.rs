//! What a lease is asked and what it answers.

use std::time::Duration;

use tokio::time::Instant;

use super::LeaseValue;

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
    /// The kind of the fault, such as "throttled".
    pub reason: String,
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
