//! Every job of one backend that somebody subscribes to, or that is retained, with its
//! latest status.
//!
//! ```text
//!   subscribe ──> scheduled ──────> in flight ──── terminal ────> ended
//!                     ^  ^              │  │
//!                     │  └─ answered ───┘  └── batch failed ──> isolating ──> in flight
//!                     │
//!                     └── subscribe ── retained <── last subscriber leaves
//! ```

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use hashbrown::HashTable;
use jiff::Timestamp;
use slab::Slab;
use tokio::time::Instant;

use super::{
    CallerKey, Pause, cache::Retention, history::History, poll::InFlightPoll, subscription::Subscribers,
};
use crate::{
    job::{BackendFault, JobRef, Observed, PayloadHash},
    snapshot::Snapshot,
};

mod entry;

/// A job's latest status.
#[derive(Clone, Debug)]
pub struct LatestStatus {
    /// What was observed.
    pub snapshot: Arc<Snapshot>,
    /// When the response arrived.
    pub time: Timestamp,
    /// The same on the monotonic clock.
    pub at: Instant,
    /// When the poll began.
    pub began: Instant,
    /// Of the payload that it was read from.
    pub(super) payload_hash: PayloadHash,
    /// Another replica's number of the observation; `None` for one of this engine.
    pub(super) observed: Option<Box<Observed>>,
}

/// What a subscriber sees of a job.
#[derive(Clone, Debug, Default)]
pub struct JobRecord {
    /// The latest status.
    pub latest: Option<LatestStatus>,
    /// What the last poll came to.
    pub outcome: PollOutcome,
    /// Polls that have ended, in a status or otherwise.
    pub polls: u64,
    /// The number of the last poll that ended in a status; zero where none did.
    pub last_answer: u64,
    /// Another replica was asked for a poll, and has not answered yet.
    pub(super) is_asked: bool,
}

impl JobRecord {
    /// The polls whose answers are too old for somebody who subscribes now. Another replica
    /// may have sent the next one already.
    pub(crate) fn polls_before_now(&self) -> u64 {
        self.polls + u64::from(self.is_asked)
    }
}

/// What the last poll of a job came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PollOutcome {
    /// There was none since somebody subscribed.
    #[default]
    NotPolled,
    /// A status.
    Observed,
    /// The vendor does not know the job.
    Missing {
        /// Polls in a row that found it missing.
        times: u32,
    },
    /// The vendor says that no job can have this id, in these words.
    Invalid(Arc<str>),
    /// The backend can't be polled.
    Interrupted(Arc<Interruption>),
}

/// A time in which a job can't be polled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interruption {
    /// Why.
    pub fault: BackendFault,
    /// When it is polled next.
    pub until: Instant,
    /// The same on the wall clock.
    pub retry_time: Timestamp,
}

impl Interruption {
    pub(super) fn new(fault: BackendFault, until: Instant, now: Instant) -> Arc<Self> {
        let wait = until.saturating_duration_since(now);
        let retry_time = Timestamp::now().checked_add(wait).unwrap_or(Timestamp::MAX);
        Arc::new(Self { fault, until, retry_time })
    }

    pub(super) fn of_pause(pause: &Pause, now: Instant) -> Arc<Self> {
        Self::new(pause.fault.clone(), pause.until, now)
    }
}

/// The part of a job entry that subscribers share. It has a lock of its own, so that a
/// reader does not wait for the job table.
#[derive(Debug)]
pub(super) struct SharedJob {
    pub(super) job: JobRef,
    record: Mutex<JobRecord>,
}

impl SharedJob {
    pub(super) fn record(&self) -> MutexGuard<'_, JobRecord> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The jobs of one backend, each under a number.
#[derive(Debug, Default)]
pub(super) struct JobTable {
    /// Numbers by their jobs, which only the entries hold.
    numbers: HashTable<usize>,
    hasher: RandomState,
    entries: Slab<JobEntry>,
}

/// One job of the table.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts that do not depend on each other")]
pub(super) struct JobEntry {
    pub(super) shared: Arc<SharedJob>,
    pub(super) subscribers: Subscribers,
    pub(super) stage: Stage,
    /// When its last poll began.
    pub(super) polled_at: Option<Instant>,
    pub(super) changed_at: Instant,
    /// Its states since it is subscribed to.
    pub(super) history: History,
    /// The calls that wait for it.
    pub(super) waiting: Option<Box<Waiting>>,
    /// Failures in a row of this job alone.
    pub(super) failures: u32,
    /// It is polled alone.
    pub(super) quarantined: bool,
    /// It failed alone when the backend was down: others are probed first, and the next
    /// poll of it is of it alone.
    pub(super) suspect: bool,
    /// All subscribers are notified of the next answer, changed or not.
    pub(super) notify_all: bool,
    /// A subscriber needs a part that the latest status does not hold: the next answer is
    /// read even if its payload is the same.
    pub(super) refill: bool,
    /// Whose turn the next re-poll counts for.
    pub(super) turn: u8,
    /// For how long the job is retained without subscribers.
    pub(super) retention: Option<Box<Retention>>,
}

/// Where a job is in its cycle.
#[derive(Debug)]
pub(super) enum Stage {
    /// In the scheduler.
    Scheduled,
    InFlight(Arc<InFlightPoll>),
    /// In a part of a failed batch.
    Isolating,
    /// Nobody subscribes to it.
    Retained,
    /// Its status is terminal.
    Ended,
}

/// The calls that wait for a job.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    /// The earliest of their deadlines.
    pub(super) deadline: Instant,
    /// Whose call has it.
    pub(super) caller: CallerKey,
    /// When that call came.
    pub(super) since: Instant,
    /// Whether one of them needs a poll that ends later: a new watch shows what is known.
    pub(super) needs_poll: bool,
}

impl JobTable {
    pub(super) fn find(&self, job: &JobRef) -> Option<usize> {
        let hash = self.hasher.hash_one(job);
        self.numbers.find(hash, |number| self.entries[*number].shared.job == *job).copied()
    }

    /// Adds a job that is not in the table.
    pub(super) fn insert(&mut self, job: &JobRef, quarantined: bool, now: Instant) -> usize {
        let shared = Arc::new(SharedJob { job: job.clone(), record: Mutex::default() });
        let number = self.entries.insert(JobEntry {
            shared,
            subscribers: Subscribers::default(),
            stage: Stage::Scheduled,
            polled_at: None,
            changed_at: now,
            history: History::new(),
            waiting: None,
            failures: 0,
            quarantined,
            suspect: false,
            notify_all: false,
            refill: false,
            turn: 0,
            retention: None,
        });
        let (entries, hasher) = (&self.entries, &self.hasher);
        let hash = |number: &usize| hasher.hash_one(&entries[*number].shared.job);
        self.numbers.insert_unique(hasher.hash_one(job), number, hash);
        number
    }

    pub(super) fn remove(&mut self, number: usize) -> JobEntry {
        self.detach(number);
        self.entries.remove(number)
    }

    /// Has the entry found by its number only. The next subscriber of its job gets a new one.
    pub(super) fn detach(&mut self, number: usize) {
        let hash = self.hasher.hash_one(&self.entries[number].shared.job);
        if let Ok(found) = self.numbers.find_entry(hash, |other| *other == number) {
            found.remove();
        }
    }

    pub(super) fn get(&self, number: usize) -> Option<&JobEntry> {
        self.entries.get(number)
    }

    pub(super) fn get_mut(&mut self, number: usize) -> Option<&mut JobEntry> {
        self.entries.get_mut(number)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &JobEntry)> {
        self.entries.iter()
    }

    /// A number above all jobs'.
    pub(super) fn end(&self) -> usize {
        self.entries.capacity()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    #[cfg(test)]
    pub(super) fn numbers(&self) -> usize {
        self.numbers.len()
    }
}

impl std::ops::Index<usize> for JobTable {
    type Output = JobEntry;

    fn index(&self, number: usize) -> &JobEntry {
        &self.entries[number]
    }
}

impl std::ops::IndexMut<usize> for JobTable {
    fn index_mut(&mut self, number: usize) -> &mut JobEntry {
        &mut self.entries[number]
    }
}

/// What an answer said about one job, compared with what was known.
#[derive(Debug)]
pub(super) enum Reading {
    /// The payload is the same, byte for byte.
    Unchanged,
    /// Read anew.
    Read(Snapshot, PayloadHash),
}

/// When an answer arrived and its poll began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) began: Instant,
    pub(super) at: Instant,
    pub(super) time: Timestamp,
    /// Another replica's number of the observation; `None` for one of this engine.
    pub(super) observed: Option<Observed>,
    /// Whether it answers those that wait for a poll: it may have been on its way before
    /// they began to wait.
    pub(super) answers: bool,
}
