//! The lease of one backend: who owns it, and what to do about it next.
//!
//! ```text
//!             unchanged for a lease, or released
//!   observing ──────────────────────────────────> bidding ── conflict ──> observing
//!       ^                                            │
//!       │ another holds it                     written at a revision
//!       │                                            v
//!   lapsed <── renew deadline passed ───────────── owner ── release ──> released
//!       └───── its own value is still there ─────────^
//! ```
//!
//! The algorithm is the leader election of Kubernetes' client-go. The value of a key is
//! replaced only by compare-and-set on its revision. A challenger replaces a value that it has
//! seen unchanged for a whole lease, by its own monotonic clock; no two clocks are compared. The
//! owner counts from when it *sent* its last renewal, and stops at the renew deadline, before the
//! lease of the quickest challenger ends.
//!
//! A key that is missing is created without a holder, and then observed like any other: the
//! bucket may have been lost while another replica owned the backend. No revision may come twice,
//! whatever bucket it is of; else a challenger that was stopped could replace the wrong value.
//!
//! Pure: time is an argument, and the caller does what [`Lease::next`] says.

use std::time::Duration;

use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64_with_seed;

mod ownership;

pub use crate::proto::cluster::v1::{LeasePause, LeaseValue};
pub use ownership::{Action, Member, Ownership, Pause, Timing, WriteError};

/// What two monotonic clocks may differ by, as a part: a hundredth each.
const CLOCKS: u32 = 50;

/// The window of the rate limiter: the owner before may have sent requests in it.
const WINDOW: Duration = Duration::from_secs(1);

/// The lease of one backend, as one replica sees it.
#[derive(Debug)]
pub struct Lease {
    me: Member,
    timing: Timing,
    /// How long it waits where others may bid, too.
    delay: Duration,
    seen: Option<Seen>,
    held: Option<Held>,
    /// What the last bid found. The bid may turn out to have succeeded much later.
    predecessor: Option<Predecessor>,
    /// The value of the write in progress.
    writing: Option<LeaseValue>,
    /// When to look at the value again, or to renew.
    due: Option<Instant>,
    highest_epoch: u64,
    renewals: u64,
    is_stopping: bool,
    random: u64,
    #[cfg(test)]
    mutant: Option<Mutant>,
}

/// Mistakes that the simulation has to find.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutant {
    /// The lease is counted from when the answer came.
    CountedFromReceipt,
    /// A value is replaced as soon as it is seen.
    NotObserved,
    /// The store ignores the revision.
    NotCompared,
    /// The full rate starts at once after a released lease.
    NoWaitForTheWindow,
    /// A missing value is replaced at once.
    MissingIsFree,
}

/// The key as it was last seen.
#[derive(Debug)]
struct Seen {
    /// `None`: there is none.
    entry: Option<(u64, LeaseValue)>,
    /// When it was first seen like this.
    since: Instant,
}

/// What the last successful write of this replica gave it.
#[derive(Debug)]
struct Held {
    epoch: u64,
    until: Instant,
    full_rate_from: Instant,
    pause: Option<Pause>,
}

/// The owner before a bid.
#[derive(Clone, Debug)]
struct Predecessor {
    /// From when it has sent nothing as the owner within the window.
    is_gone_at: Instant,
    /// What it knew of the backend.
    pause: Option<Pause>,
}

impl Lease {
    /// The lease of `backend`. Replicas have different orders for different backends, so that
    /// these spread over them.
    pub fn new(backend: &str, me: Member, timing: Timing) -> Self {
        let rank = xxh3_64_with_seed(me.name.as_bytes(), xxh3_64_with_seed(backend.as_bytes(), 0));
        let delay = part_of(timing.short(), rank);
        let random = rank ^ me.incarnation;
        Self {
            me,
            timing,
            delay,
            seen: None,
            held: None,
            predecessor: None,
            writing: None,
            due: None,
            highest_epoch: 0,
            renewals: 0,
            is_stopping: false,
            random,
            #[cfg(test)]
            mutant: None,
        }
    }

    /// Whose the backend is at `now`.
    pub fn ownership(&self, now: Instant) -> Ownership {
        if let Some(held) = self.held.as_ref().filter(|held| now < held.until && !self.is_stopping) {
            let Held { epoch, until, full_rate_from, ref pause } = *held;
            return Ownership::Owner { epoch, until, full_rate_from, pause: pause.clone() };
        }
        match self.seen.as_ref().and_then(|seen| Some((seen.since, &seen.entry.as_ref()?.1))) {
            Some((since, value)) if self.is_held_by_another(value) && now < since + self.timing.lease => {
                Ownership::HeldBy {
                    member: value.member.clone(),
                    incarnation: value.incarnation,
                    epoch: value.epoch,
                }
            }
            _ => Ownership::Unknown,
        }
    }

    /// When [`ownership`](Self::ownership) changes by itself.
    pub fn changes_at(&self, now: Instant) -> Option<Instant> {
        let ends = match self.ownership(now) {
            Ownership::Unknown => None,
            Ownership::Owner { until, .. } => Some(until),
            Ownership::HeldBy { .. } => self.seen.as_ref().map(|seen| seen.since + self.timing.lease),
        };
        ends.filter(|at| *at > now)
    }

    /// What to do at `now`. `pause` is what this replica knows of the backend, for its successor.
    pub fn next(&mut self, now: Instant, pause: impl FnOnce() -> Option<Pause>) -> Action {
        let due = *self.due.get_or_insert(now);
        let Some(Seen { entry, since }) = &self.seen else {
            return if now < due { Action::Nothing { until: due } } else { Action::Read };
        };
        if self.is_stopping {
            return match entry {
                Some((revision, value)) if self.is_mine(value) && !value.released => {
                    if now < due {
                        return Action::Nothing { until: due };
                    }
                    let value = LeaseValue { released: true, ..value.clone() };
                    let revision = *revision;
                    self.write(value, Some(revision), now, pause)
                }
                _ => Action::Nothing { until: now + self.timing.lease },
            };
        }
        let is_owner = self.held.as_ref().is_some_and(|held| now < held.until);
        let is_renewal = match entry {
            Some((_, value)) => self.is_mine(value) && !value.released,
            None => is_owner,
        };
        // Nobody else may have seen for a whole lease that it is vacant.
        let is_renewal = is_renewal || is_owner && entry.as_ref().is_some_and(|(_, value)| is_vacant(value));
        let bids_at = if is_renewal { due } else { *since + self.observes(entry.as_ref()) };
        if now < due.min(bids_at) {
            return Action::Nothing { until: due.min(bids_at) };
        }
        if now < bids_at {
            return Action::Read;
        }
        if now < due && self.writing.is_some() {
            // The last bid had no answer.
            return Action::Nothing { until: due };
        }
        let (revision, epoch) = match entry {
            Some((revision, value)) => (Some(*revision), value.epoch),
            None => (None, 0),
        };
        let seen = epoch.max(self.highest_epoch);
        if !is_renewal {
            self.predecessor = self.predecessor(now);
        }
        let takes = is_renewal || entry.is_some();
        #[cfg(test)]
        let takes = takes || self.mutant == Some(Mutant::MissingIsFree);
        let value = if takes {
            let epoch = if is_renewal { seen.max(1) } else { seen + 1 };
            let Member { name: member, incarnation } = self.me.clone();
            LeaseValue { member, incarnation, epoch, ..LeaseValue::default() }
        } else {
            LeaseValue { epoch: seen, ..LeaseValue::default() }
        };
        self.write(value, revision, now, pause)
    }

    /// How long a key is seen unchanged before a bid.
    fn observes(&self, entry: Option<&(u64, LeaseValue)>) -> Duration {
        #[cfg(test)]
        if self.mutant == Some(Mutant::NotObserved) {
            return self.delay;
        }
        match entry {
            None => Duration::ZERO,
            Some((_, value)) if value.released => self.delay,
            Some(_) => self.timing.lease + self.delay,
        }
    }

    fn write(
        &mut self,
        mut value: LeaseValue,
        revision: Option<u64>,
        now: Instant,
        pause: impl FnOnce() -> Option<Pause>,
    ) -> Action {
        self.renewals += 1;
        value.renewals = self.renewals;
        let inherited = || self.inherited(now);
        value.pause = pause().or_else(inherited).and_then(|pause| pause.to_message(now));
        self.writing = Some(value.clone());
        match revision {
            Some(revision) => Action::Update(value, revision),
            None => Action::Create(value),
        }
    }

    /// What another replica's last value says of the backend.
    pub fn inherited(&self, now: Instant) -> Option<Pause> {
        let Seen { entry, since } = self.seen.as_ref()?;
        let (_, value) = entry.as_ref().filter(|(_, value)| !self.is_mine(value))?;
        let pause = Pause::from_message(value.pause.as_ref()?, *since);
        (pause.until > now).then_some(pause)
    }

    /// The value was read, with its revision; `None`: there is none.
    pub fn observed(&mut self, now: Instant, entry: Option<(u64, LeaseValue)>) {
        self.due = Some(now + self.jittered(self.timing.retry));
        self.writing = None;
        if let Some((_, value)) = &entry {
            self.highest_epoch = self.highest_epoch.max(value.epoch);
            if is_vacant(value) {
                // An owner writes its value again.
                if self.held.as_ref().is_some_and(|held| now < held.until) {
                    self.due = Some(now);
                }
            } else if !self.is_mine(value) || value.released {
                self.held = None;
            } else {
                // Its own value, from a write without an answer or before the lease lapsed.
                self.due = Some(now);
            }
        } else if self.held.as_ref().is_some_and(|held| now < held.until) {
            self.due = Some(now);
        }
        match &self.seen {
            Some(seen) if seen.entry == entry => {}
            _ => self.seen = Some(Seen { entry, since: now }),
        }
    }

    /// The value could not be read.
    pub fn unreadable(&mut self, now: Instant) {
        self.due = Some(now + self.jittered(self.timing.short()));
    }

    /// The value of the last action, sent at `sent_at`, was written at this revision, or not.
    pub fn written(&mut self, now: Instant, sent_at: Instant, outcome: Result<u64, WriteError>) {
        let revision = match outcome {
            Ok(revision) => revision,
            Err(WriteError::Conflict) => {
                // What is there now is not known; a lease that is held runs on to its end.
                (self.seen, self.writing, self.due) = (None, None, Some(now));
                return;
            }
            Err(WriteError::Failed) => {
                self.due = Some(now + self.jittered(self.timing.short()));
                return;
            }
        };
        let Some(value) = self.writing.take() else { return };
        self.due = Some((sent_at + self.timing.retry).max(now));
        self.highest_epoch = self.highest_epoch.max(value.epoch);
        if value.released {
            self.held = None;
        } else if !is_vacant(&value) {
            self.hold(now, sent_at, value.epoch);
        }
        self.seen = Some(Seen { entry: Some((revision, value)), since: now });
    }

    /// This replica's value was written.
    fn hold(&mut self, now: Instant, sent_at: Instant, epoch: u64) {
        #[cfg(test)]
        let sent_at = if self.mutant == Some(Mutant::CountedFromReceipt) { now } else { sent_at };
        let until = sent_at + self.timing.renew_deadline;
        match &mut self.held {
            Some(held) if now < held.until && held.epoch == epoch => held.until = held.until.max(until),
            _ => {
                let (is_gone_at, pause) = match self.predecessor.clone() {
                    Some(Predecessor { is_gone_at, pause }) => (is_gone_at, pause),
                    None => (now + self.timing.lease, None),
                };
                let full_rate_from = is_gone_at.max(now);
                let pause = pause.filter(|pause| pause.until > now);
                self.held = Some(Held { epoch, until, full_rate_from, pause });
            }
        }
    }

    /// The owner before, as the value that is seen tells.
    fn predecessor(&self, now: Instant) -> Option<Predecessor> {
        let Seen { entry, since } = self.seen.as_ref()?;
        let stops_within = match entry {
            Some((_, value)) if value.released => Duration::ZERO,
            _ => self.timing.renew_deadline,
        };
        let waits = stops_within + WINDOW;
        let is_gone_at = *since + waits + waits / CLOCKS;
        #[cfg(test)]
        let is_gone_at = if self.mutant == Some(Mutant::NoWaitForTheWindow) { now } else { is_gone_at };
        Some(Predecessor { is_gone_at, pause: self.inherited(now) })
    }

    /// Stops being the owner at once, and releases the lease by what [`next`](Self::next) says.
    pub fn release(&mut self, now: Instant) {
        self.is_stopping = true;
        self.due = Some(now);
    }

    /// Whether [`release`](Self::release) has nothing more to do.
    pub fn is_released(&self) -> bool {
        let Some(Seen { entry, .. }) = &self.seen else { return self.held.is_none() };
        self.is_stopping && !entry.as_ref().is_some_and(|(_, value)| self.is_mine(value) && !value.released)
    }

    /// The value may be another one: it is read at once.
    pub fn hint(&mut self, now: Instant) {
        let is_renewed = self.held.as_ref().is_some_and(|held| now < held.until);
        if !is_renewed && !self.is_stopping {
            self.due = Some(now);
        }
    }

    fn is_mine(&self, value: &LeaseValue) -> bool {
        value.incarnation == self.me.incarnation && value.member == self.me.name
    }

    fn is_held_by_another(&self, value: &LeaseValue) -> bool {
        !value.released && !is_vacant(value) && !self.is_mine(value)
    }

    /// The duration and up to a fifth of it.
    fn jittered(&mut self, duration: Duration) -> Duration {
        self.random = xxh3_64_with_seed(&self.random.to_le_bytes(), 1);
        duration + part_of(duration / 5, self.random)
    }
}

/// Whether the value has no holder.
fn is_vacant(value: &LeaseValue) -> bool {
    value.incarnation == 0
}

/// The part of the duration that a number is of all numbers.
fn part_of(duration: Duration, number: u64) -> Duration {
    let nanos = (duration.as_nanos().min(u128::from(u64::MAX)) * u128::from(number)) >> 64;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
