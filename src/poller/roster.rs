//! The jobs that are followed at one backend: who follows them, what is known of
//! each, and when it is asked about next.
//!
//! A job is on the roster while somebody follows it, in one of three stages, and in a
//! fourth for a while after that, where others may soon ask about it: see [`kept`].
//!
//! ```text
//!   join ---> due at a time ---- take ----> asked, in a flight
//!                   ^                           |
//!                   +---- not terminal ---------+---- terminal ----> ended
//! ```
//!
//! Where the vendor can hold a request until its jobs have ended, and only a few
//! jobs are followed, a wait between two requests becomes a *long poll*: the request
//! that would be sent at the end of the wait is sent at its beginning and held that
//! long. So an end is known as soon as the vendor notices it, any other change at the
//! same time as without, and there are no more requests. There is one long poll a
//! backend at a time. It does not count against the concurrency limit, and it is cut
//! short when somebody needs an answer now.
//!
//! One lock guards the whole roster, so that joining, leaving, taking and
//! publishing are each one step: a job that is joined while its last follower
//! leaves is either the old row or a new one, never a row that nobody asks about.

use std::{
    collections::HashSet,
    hash::RandomState,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hashbrown::HashTable;
use jiff::Timestamp;
use slab::Slab;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Calendar, Ended, Interruption, Mailbox, News, Standing};
use crate::{
    adapters::BackendFault,
    job::JobRef,
    pacing::{Admission, Cadence, Gate, Hold},
    snapshot::StatusBudget,
};

mod batch;
#[cfg(test)]
mod check;
mod follow;
mod followers;
mod kept;
mod report;
mod table;

pub use batch::{Batch, Refusal, Taken};
pub use follow::Follow;
use followers::Followers;
use kept::{Keep, Kept};
pub use report::{Health, Report};

/// Most jobs that a backend may follow for its waits to become long polls: the
/// vendor answers when all jobs of a request have ended, which gains something only
/// where they are few.
const FEW_JOBS: usize = 16;

/// How long no long poll is tried after one has failed.
const WITHOUT_LONG_POLLS: Duration = Duration::from_mins(10);

/// How much too late a long poll may be over, for the time it takes to send it.
const TOLERANCE: Duration = Duration::from_millis(50);

/// Most rows that one step of [`Roster::prepare`] touches.
const MARKED_AT_ONCE: usize = 4096;

/// Jobs that a vendor has to refuse for the first time, one by one and with no
/// answer in between, before the next such refusal counts as the backend's own.
const REFUSALS_OF_A_BACKEND: usize = 3;

/// Answers after which a job that was refused is asked about with others again.
const ANSWERS_TO_BE_TRUSTED: u8 = 3;

/// Where a job is put that failed, so that the next attempt is made with another.
const BACK_OF_THE_LINE: Duration = Duration::from_millis(10);

/// Answers after which a request may hold more jobs again.
const ANSWERS_TO_RAISE_THE_CEILING: usize = 100;

/// Most jobs that a roster remembers as refused.
const CULPRITS_REMEMBERED: usize = 1024;

/// Most due jobs that one look for the next batch goes through.
const LOOKED_AT: usize = 4096;

/// How a roster plans.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How often a job is asked about.
    pub cadence: Cadence,
    /// How long a new question waits for others to share its request.
    pub window: Duration,
    /// Most jobs in one request.
    pub max_batch: usize,
    /// Whether the vendor can hold a request until its jobs have ended.
    pub long_poll: bool,
}

/// Why somebody follows a job.
#[derive(Debug)]
pub struct Interest {
    /// Who is told.
    pub mailbox: Arc<Mailbox>,
    /// Which of the mailbox's slots stands for this job.
    pub slot: u32,
    /// Told after every attempt, whether or not anything changed.
    pub eager: bool,
    /// Longest time between two observations that this follower is content with.
    pub interval: Option<Duration>,
}

/// The jobs that are followed at one backend.
#[derive(Debug)]
pub struct Roster {
    plan: Plan,
    ended: Ended,
    budget: Arc<StatusBudget>,
    table: Mutex<Table>,
    changed: Notify,
}

#[derive(Debug)]
struct Table {
    /// Rows by their jobs, which only the rows hold.
    keys: HashTable<usize>,
    hasher: RandomState,
    rows: Slab<Row>,
    due: Calendar,
    kept: Kept,
    /// Rows that somebody follows.
    followed: usize,
    gate: Gate,
    /// Jobs refused for the first time since the vendor last answered about any.
    refused: usize,
    /// Most jobs in one request, for now: fewer after an answer that was too large.
    ceiling: usize,
    /// Jobs that were refused, followed or not.
    culprits: HashSet<JobRef>,
    /// The largest request whose answer was not too large.
    fits: usize,
    /// Answers since the ceiling was last moved.
    answered: usize,
    last_fault: Option<BackendFault>,
    last_answer: Option<Timestamp>,
    /// A long poll is under way.
    long_polling: bool,
    /// No long poll is tried before, since one has failed.
    long_polls_from: Option<Instant>,
}

#[derive(Debug)]
struct Row {
    entry: Arc<Entry>,
    followers: Followers,
    stage: Stage,
    asked_at: Option<Instant>,
    /// When a request that is not held is due; a long poll may begin before.
    answer_at: Instant,
    /// Somebody needed an answer at once: the next wait is a plain one, so that who
    /// asks often does not have a long poll begun and cut short each time.
    cut: bool,
    /// Everybody is told of the next answer, changed or not.
    ask_anew: bool,
    changed_at: Instant,
    /// In a row, of this job alone.
    failures: u32,
    /// While not zero: the vendor refused a batch because of it, so it is asked
    /// about alone, until it was answered about so often.
    alone: u8,
    /// For how long it is kept when nobody follows it.
    keep: Option<Box<Keep>>,
}

#[derive(Debug)]
enum Stage {
    Due(Instant),
    Asked(Arc<Flight>),
    /// Nobody follows it; see [`kept`].
    Kept,
    Ended,
}

/// One job, as far as its followers see it.
#[derive(Debug)]
struct Entry {
    job: JobRef,
    news: Mutex<News>,
}

/// One upstream request under way.
#[derive(Debug)]
struct Flight {
    /// Jobs in it that are still followed.
    followed: AtomicUsize,
    given_up: CancellationToken,
    /// How long the vendor is asked to hold it.
    wait: Duration,
    cut: CancellationToken,
}

/// What there is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Readiness {
    /// A batch can be taken.
    Ready,
    /// Nothing before this time.
    At(Instant),
    /// Nothing until [`Roster::changed`].
    Idle,
}

impl Roster {
    /// An empty roster.
    pub fn new(plan: Plan, gate: Gate, ended: Ended) -> Self {
        let table = Table {
            keys: HashTable::new(),
            hasher: RandomState::new(),
            rows: Slab::new(),
            due: Calendar::default(),
            kept: Kept::default(),
            followed: 0,
            gate,
            refused: 0,
            ceiling: plan.max_batch,
            culprits: HashSet::new(),
            fits: 0,
            answered: 0,
            last_fault: None,
            last_answer: None,
            long_polling: false,
            long_polls_from: None,
        };
        let budget = StatusBudget::new(u64::MAX);
        Self { plan, ended, budget, table: Mutex::new(table), changed: Notify::new() }
    }

    /// Follows `job`. Where nobody did, it is asked about at once.
    pub fn join(self: &Arc<Self>, job: &JobRef, interest: Interest) -> Follow {
        let now = Instant::now();
        let soon = now + self.plan.window;
        let mut guard = self.lock();
        let table = &mut *guard;
        let (key, new) = match table.find(job) {
            Some(key) if table.rows[key].followers.is_empty() => {
                (table.revive(key, &interest, soon, now), true)
            }
            Some(key) => (key, false),
            None => (table.insert(job, soon, now), true),
        };
        table.followed += usize::from(new);
        if new && self.plan.long_poll && table.followed == FEW_JOBS + 1 {
            table.outgrows_long_polls(now);
        }
        let row = &mut table.rows[key];
        let interval = interest.interval;
        let follower = row.followers.insert(interest);
        let row = &table.rows[key];
        let passes = |hold: &Hold| hold.fault.kind.is_refusal() && (new || row.asked_at.is_none());
        let held = match table.gate.admission(now) {
            Admission::Held(hold) if !passes(&hold) => Some(hold),
            _ => None,
        };
        if let Some(hold) = table.gate.trouble(now).filter(|hold| !passes(hold)) {
            let mut news = row.entry.news();
            if news.standing == Standing::Unasked {
                news.standing = Standing::Interrupted(Interruption::new(hold, now));
            }
        }
        let entry = Arc::clone(&row.entry);
        let first = table.due.first();
        if let (Some(asked), Some(_)) = (row.asked_at, interval) {
            let wanted = asked + self.interval(row, now);
            match &row.stage {
                Stage::Due(_) if wanted < row.answer_at => table.reschedule(key, wanted),
                Stage::Asked(flight) if wanted < asked + flight.wait => {
                    flight.cut.cancel();
                    table.rows[key].answer_at = wanted.max(now);
                }
                _ => {}
            }
        }
        let earlier = new || table.due.first() != first;
        drop(guard);
        if earlier {
            self.changed.notify_one();
        }
        Follow { roster: Arc::clone(self), entry, key, follower, held: held.map(Box::new), max_age: None }
    }

    /// Asks about all jobs again at once that could not be asked about because the
    /// vendor rejected the gateway's credentials: they have been replaced.
    pub fn forgive_rejections(&self, now: Instant) {
        let mut guard = self.lock();
        let table = &mut *guard;
        table.gate.forgive_rejections();
        let waiting: Vec<usize> =
            table.due.iter().filter_map(|(_, key)| table.rows[key].is_rejected().then_some(key)).collect();
        for key in waiting {
            table.reschedule(key, now);
        }
        drop(guard);
        self.changed.notify_one();
    }

    /// Waits until there may be something earlier to do than there was.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Why the backend is left alone at `now`, if it is.
    pub fn held(&self, now: Instant) -> Option<Hold> {
        match self.lock().gate.admission(now) {
            Admission::Held(hold) => Some(hold),
            _ => None,
        }
    }

    /// The vendor throttled a request beside the polls that began at `began`: it is
    /// left alone as after a poll. Returns until when.
    pub fn throttled(&self, fault: &BackendFault, began: Instant, dice: f64) -> Instant {
        let mut table = self.lock();
        table.last_fault = Some(fault.clone());
        table.gate.failed(fault, began, Instant::now(), dice)
    }

    /// Says what there is to do. While the backend is held, tells the followers
    /// of jobs that fall due that they can't be asked about.
    pub fn prepare(&self, now: Instant) -> Readiness {
        let mut guard = self.lock();
        let table = &mut *guard;
        if let Admission::Held(hold) = table.gate.admission(now) {
            let interruption = Interruption::new(&hold, now);
            let due = table.due.iter().take_while(|(at, _)| *at <= now).take(MARKED_AT_ONCE);
            let fresh = |key: &usize| hold.fault.kind.is_refusal() && table.rows[*key].asked_at.is_none();
            let (fresh, due): (Vec<usize>, Vec<usize>) = due.map(|(_, key)| key).partition(fresh);
            for (place, key) in (0..).zip(due) {
                // One after the other, so that they keep their order.
                table.reschedule(key, hold.until + Duration::from_nanos(place));
                table.rows[key].held(&interruption);
            }
            if !fresh.is_empty() {
                return Readiness::Ready;
            }
        }
        table.give_up(now);
        let gives_up_at = table.kept.gives_up_at();
        match table.due.first() {
            None => gives_up_at.map_or(Readiness::Idle, Readiness::At),
            Some((at, _)) if at > now => Readiness::At(gives_up_at.map_or(at, |until| at.min(until))),
            Some(_) => match table.gate.admission(now) {
                Admission::Open | Admission::Probe => Readiness::Ready,
                Admission::Probing => Readiness::Idle,
                Admission::Held(_) => Readiness::At(now),
            },
        }
    }

    /// Takes the jobs that are due, longest first, at most as many as one request
    /// can ask for. Room that is left is filled with jobs that are due soon: they
    /// cost nothing then, and stay together from then on.
    /// While the circuit is open, takes one job; `dice` in `0.0..1.0` says which.
    pub fn take(self: &Arc<Self>, now: Instant, dice: f64) -> Option<Batch> {
        let mut guard = self.lock();
        let table = &mut *guard;
        let admission = table.gate.admission(now);
        let probe = admission == Admission::Probe;
        let passing = matches!(admission, Admission::Held(_));
        let (keys, wait) = if probe {
            (table.next_probe(now, dice), Duration::ZERO)
        } else if let Admission::Held(hold) = admission {
            // A vendor that refuses what it was asked may well answer what it was not.
            let fresh = if hold.fault.kind.is_refusal() { table.never_asked(now) } else { Vec::new() };
            (fresh, Duration::ZERO)
        } else if admission == Admission::Probing {
            return None;
        } else if self.plan.long_poll && table.may_long_poll(now) {
            table.next_long_poll(now)
        } else {
            table.put_off_long_polls(now);
            (table.next_batch(now, &self.plan), Duration::ZERO)
        };
        if keys.is_empty() {
            return None;
        }
        if probe {
            table.gate.probe_begins();
        }
        table.long_polling |= !wait.is_zero();
        let flight = Arc::new(Flight {
            followed: AtomicUsize::new(keys.len()),
            given_up: CancellationToken::new(),
            wait,
            cut: CancellationToken::new(),
        });
        let along = if probe || passing || !wait.is_zero() || table.rows[keys[0].1].alone > 0 {
            Vec::new()
        } else {
            table.take_along(table.ceiling.saturating_sub(keys.len()), now)
        };
        let mut open = Vec::with_capacity(keys.len() + along.len());
        for (at, key) in &keys {
            table.due.remove(*at, *key);
        }
        for key in keys.into_iter().map(|(_, key)| key).chain(along) {
            let row = &mut table.rows[key];
            row.stage = Stage::Asked(Arc::clone(&flight));
            row.asked_at = Some(now);
            open.push(Taken { key, entry: Arc::clone(&row.entry) });
        }
        Some(Batch { roster: Arc::clone(self), flight, open, began: now, probe, passing })
    }

    fn interval(&self, row: &Row, now: Instant) -> Duration {
        let wanted = row.followers.iter().filter_map(|interest| interest.interval).min();
        self.plan.cadence.interval(now.saturating_duration_since(row.changed_at), wanted)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flight {
    /// One job more is waited for. Returns whether it is not too late for that.
    fn joined(&self) -> bool {
        let open = !self.given_up.is_cancelled();
        if open {
            self.followed.fetch_add(1, Ordering::Relaxed);
        }
        open
    }

    /// One job less is waited for.
    fn left(&self) {
        if self.followed.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.given_up.cancel();
        }
    }
}
