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
    CallerKey, Pause,
    cache::Retention,
    history::{History, Phase},
    poll::InFlightPoll,
    scheduler::Class,
    subscription::Subscribers,
};
use crate::{
    job::{BackendFault, FaultKind, JobRef, Observed, Parts, PayloadHash, View},
    snapshot::Snapshot,
};

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

impl JobEntry {
    /// The class in which a due poll of this job is queued.
    pub(super) fn class(&self) -> Class {
        match self.waiting {
            _ if self.is_polled_alone() => Class::Quarantined,
            Some(_) => Class::Waiting,
            None => Class::Repoll,
        }
    }

    /// Whether it is kept out of batches.
    pub(super) fn is_polled_alone(&self) -> bool {
        self.quarantined || self.suspect
    }

    /// The parts that some subscriber's view shows.
    pub(super) fn wanted_parts(&self) -> Parts {
        self.subscribers.iter().fold(Parts::NONE, |parts, subscriber| parts.union(subscriber.parts))
    }

    /// Whether the latest status holds all that some subscriber is shown.
    pub(super) fn holds_wanted_parts(&self) -> bool {
        let wanted = self.wanted_parts();
        self.shared.record().latest.as_ref().is_some_and(|latest| latest.snapshot.holds(wanted))
    }

    /// Whether what is known lacks one of these parts.
    pub(super) fn lacks(&self, parts: Parts) -> bool {
        let record = self.shared.record();
        record.latest.as_ref().is_none_or(|latest| !latest.snapshot.holds(parts))
    }

    /// A call waits for the job from now on.
    pub(super) fn wait_for(&mut self, waiting: Waiting) {
        match &mut self.waiting {
            Some(earlier) if earlier.deadline <= waiting.deadline => {
                earlier.needs_poll |= waiting.needs_poll;
            }
            Some(later) => {
                let needs_poll = later.needs_poll || waiting.needs_poll;
                **later = Waiting { needs_poll, ..waiting };
            }
            none => *none = Some(Box::new(waiting)),
        }
    }

    /// Publishes what was observed. Returns it if it is terminal.
    pub(super) fn observed(&mut self, reading: Reading, moment: Moment) -> Option<LatestStatus> {
        let Moment { began, at, time, observed, answers } = moment;
        let observed = observed.map(Box::new);
        let mut guard = self.shared.record();
        let record = &mut *guard;
        let (mut changed, mut shown) = (false, false);
        match (&mut record.latest, reading) {
            (Some(latest), reading) => {
                if let Reading::Read(snapshot, payload_hash) = reading {
                    changed = latest.snapshot.differs_from(&snapshot);
                    // What a vendor changes beside what it documents does not shorten the
                    // interval.
                    let visible = |snapshot: &Snapshot| snapshot.fingerprint(View::STANDARD);
                    shown = changed && visible(&latest.snapshot) != visible(&snapshot);
                    let lacks = !latest.snapshot.held().contains(snapshot.held());
                    if changed || lacks {
                        latest.snapshot = Arc::new(snapshot);
                    }
                    latest.payload_hash = payload_hash;
                    changed |= lacks;
                }
                (latest.time, latest.at, latest.began, latest.observed) = (time, at, began, observed);
            }
            (None, Reading::Read(snapshot, payload_hash)) => {
                (changed, shown) = (true, true);
                record.latest = Some(LatestStatus {
                    snapshot: Arc::new(snapshot),
                    time,
                    at,
                    began,
                    payload_hash,
                    observed,
                });
            }
            // Nothing was known that could be the same.
            (None, Reading::Unchanged) => {}
        }
        let before = std::mem::replace(&mut record.outcome, PollOutcome::Observed);
        let recovered = before != PollOutcome::Observed;
        if answers {
            record.polls += 1;
            record.last_answer = record.polls;
        }
        let state = record.latest.as_ref().map(|latest| latest.snapshot.state);
        let terminal = record.latest.as_ref().filter(|latest| latest.snapshot.is_terminal()).cloned();
        drop(guard);
        if let Some(state) = state {
            self.history.enter(Phase::In(state), || time);
        }
        self.failures = 0;
        if answers {
            self.waiting = None;
        }
        if shown {
            self.changed_at = at;
        }
        let all = answers && std::mem::take(&mut self.notify_all) || changed || recovered;
        self.notify(all);
        terminal
    }

    /// The vendor does not know the job.
    pub(super) fn missing(&mut self) {
        let times = match self.shared.record().outcome {
            PollOutcome::Missing { times } => times,
            _ => 0,
        };
        self.missing_for(times.saturating_add(1));
    }

    /// So many polls in a row found that the vendor does not know the job.
    pub(super) fn missing_for(&mut self, times: u32) {
        self.failures = 0;
        self.history.enter(Phase::Missing, Timestamp::now);
        self.ended_in(PollOutcome::Missing { times });
    }

    /// The vendor says that no job can have this id.
    pub(super) fn invalid(&mut self, message: String) {
        self.history.enter(Phase::Refused, Timestamp::now);
        self.ended_in(PollOutcome::Invalid(message.into()));
    }

    /// It can't be polled, for the backend's or its own reasons. Where others can't be
    /// either, what the vendor said of this job alone stays.
    pub(super) fn interrupted(&mut self, interruption: &Arc<Interruption>) {
        let own = match &self.shared.record().outcome {
            PollOutcome::Interrupted(own) if own.fault.without_vendor_message() == interruption.fault => {
                Some(Arc::new(Interruption { fault: own.fault.clone(), ..(**interruption).clone() }))
            }
            _ => None,
        };
        self.ended_in(PollOutcome::Interrupted(own.unwrap_or_else(|| Arc::clone(interruption))));
    }

    fn ended_in(&mut self, outcome: PollOutcome) {
        let mut record = self.shared.record();
        record.outcome = outcome;
        record.polls += 1;
        drop(record);
        self.waiting = None;
        self.notify(true);
    }

    /// Somebody subscribes again: what is known was observed before that.
    pub(super) fn begin_anew(&self) {
        self.shared.record().outcome = PollOutcome::NotPolled;
    }

    /// Whether its last poll was answered.
    pub(super) fn is_answered(&self) -> bool {
        self.shared.record().outcome == PollOutcome::Observed
    }

    /// Whether it could not be polled.
    pub(super) fn is_interrupted(&self) -> bool {
        matches!(self.shared.record().outcome, PollOutcome::Interrupted(_))
    }

    /// Whether it could not be polled for this reason.
    pub(super) fn is_interrupted_by(&self, fault: &BackendFault) -> bool {
        matches!(&self.shared.record().outcome, PollOutcome::Interrupted(interruption)
            if interruption.fault == *fault)
    }

    /// Whether it waits because the gateway's credentials were rejected.
    pub(super) fn is_rejected(&self) -> bool {
        matches!(&self.shared.record().outcome, PollOutcome::Interrupted(interruption)
            if interruption.fault.kind == FaultKind::CredentialsRejected)
    }

    /// Notifies all subscribers, or those that are notified of every poll.
    pub(super) fn notify(&self, all: bool) {
        for subscriber in self.subscribers.iter() {
            if all || subscriber.every_poll {
                subscriber.queue.notify(subscriber.slot);
            }
        }
    }

    /// Notifies one subscriber.
    pub(super) fn notify_subscriber(&self, number: usize) {
        if let Some(subscriber) = self.subscribers.get(number) {
            subscriber.queue.notify(subscriber.slot);
        }
    }

    /// Drops parts that no subscriber is shown any more, unless the job is retained for
    /// calls.
    pub(super) fn drop_unwanted_parts(&mut self, now: Instant) {
        if self.is_retained_at(now) {
            return;
        }
        let wanted = self.wanted_parts();
        let mut record = self.shared.record();
        if let Some(latest) = record.latest.as_mut()
            && !wanted.contains(latest.snapshot.held())
        {
            latest.snapshot = Arc::new(latest.snapshot.without(Parts::ALL.difference(wanted)));
        }
    }

    /// Drops the parts that all subscribers have read. Returns whether there were any.
    pub(super) fn drop_delivered_parts(&mut self) -> bool {
        if self.subscribers.iter().any(|subscriber| subscriber.queue.is_queued(subscriber.slot)) {
            return false;
        }
        let mut record = self.shared.record();
        let Some(latest) = record.latest.as_mut().filter(|latest| latest.snapshot.held() != Parts::NONE)
        else {
            return false;
        };
        latest.snapshot = Arc::new(latest.snapshot.without(Parts::ALL));
        true
    }
}
