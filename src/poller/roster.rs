//! The jobs that are followed at one backend: who follows them, what is known of
//! each, and when it is asked about next.
//!
//! A job is on the roster while somebody follows it, in one of three stages:
//!
//! ```text
//!   join ---> due at a time ---- take ----> asked, in a flight
//!                   ^                           |
//!                   +---- not terminal ---------+---- terminal ----> ended
//! ```
//!
//! One lock guards the whole roster, so that joining, leaving, taking and
//! publishing are each one step: a job that is joined while its last follower
//! leaves is either the old row or a new one, never a row that nobody asks about.

use std::{
    collections::{BTreeSet, HashMap},
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use slab::Slab;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Ended, Interruption, Latest, Mailbox, News, Standing};
use crate::{
    adapters::{BackendFault, FaultKind, JobFault, StandbyFault::NeedsJobTag},
    job::{JobRef, Observation, Snapshot},
    pacing::{Admission, Backoff, Cadence, Gate, Hold},
};

/// Most rows that one step of [`Roster::prepare`] touches.
const MARKED_AT_ONCE: usize = 4096;

/// Jobs that a vendor has to refuse one by one, with no answer in between, before
/// the next refusal counts as the backend's own.
const REFUSALS_OF_A_BACKEND: usize = 2;

/// How a roster plans.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How often a job is asked about.
    pub cadence: Cadence,
    /// How long a new question waits for others to share its request.
    pub window: Duration,
    /// Most jobs in one request.
    pub max_batch: usize,
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
    table: Mutex<Table>,
    changed: Notify,
}

#[derive(Debug)]
struct Table {
    keys: HashMap<JobRef, usize>,
    rows: Slab<Row>,
    due: BTreeSet<(Instant, usize)>,
    gate: Gate,
    /// Jobs refused one by one since the vendor last answered about any.
    refused: Vec<Arc<Entry>>,
    last_fault: Option<BackendFault>,
    last_answer: Option<Timestamp>,
}

#[derive(Debug)]
struct Row {
    entry: Arc<Entry>,
    followers: Slab<Interest>,
    stage: Stage,
    asked_at: Option<Instant>,
    changed_at: Instant,
    /// In a row, of this job alone.
    failures: u32,
    /// The vendor refused a batch because of it: it is asked alone.
    alone: bool,
    /// Least interval of its followers.
    wanted: Option<Duration>,
}

#[derive(Debug)]
enum Stage {
    Due(Instant),
    Asked(Arc<Flight>),
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
}

/// Follows a job until dropped.
#[derive(Debug)]
pub struct Follow {
    roster: Arc<Roster>,
    entry: Arc<Entry>,
    key: usize,
    follower: usize,
    held: Option<Hold>,
}

/// How a backend is doing.
#[derive(Clone, Debug)]
pub struct Report {
    /// Whether it answers.
    pub health: Health,
    /// What the last request failed with, if it failed.
    pub last_fault: Option<BackendFault>,
    /// When it last answered.
    pub last_answer: Option<Timestamp>,
    /// Jobs followed now.
    pub followed: usize,
}

/// Whether a backend answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nothing has been asked yet.
    Unknown,
    /// It answers.
    Healthy,
    /// Some requests fail, or it is throttling.
    Degraded,
    /// Its circuit is open.
    Unavailable,
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

/// Jobs taken off the schedule to be asked about together. What is not answered
/// when this is dropped goes back on it.
#[derive(Debug)]
pub struct Batch {
    roster: Arc<Roster>,
    flight: Arc<Flight>,
    open: Vec<Taken>,
    probe: bool,
}

/// One job of a [`Batch`].
#[derive(Clone, Debug)]
pub struct Taken {
    key: usize,
    entry: Arc<Entry>,
}

impl Taken {
    /// The job.
    pub fn job(&self) -> &JobRef {
        &self.entry.job
    }
}

impl Roster {
    /// An empty roster.
    pub fn new(plan: Plan, gate: Gate, ended: Ended) -> Self {
        let table = Table {
            keys: HashMap::new(),
            rows: Slab::new(),
            due: BTreeSet::new(),
            gate,
            refused: Vec::new(),
            last_fault: None,
            last_answer: None,
        };
        Self { plan, ended, table: Mutex::new(table), changed: Notify::new() }
    }

    /// Follows `job`. Where nobody did, it is asked about at once.
    pub fn join(self: &Arc<Self>, job: &JobRef, interest: Interest) -> Follow {
        let now = Instant::now();
        let soon = now + self.plan.window;
        let mut guard = self.lock();
        let table = &mut *guard;
        let mut new = false;
        let key = *table.keys.entry(job.clone()).or_insert_with(|| {
            new = true;
            let entry = Arc::new(Entry { job: job.clone(), news: Mutex::default() });
            let key = table.rows.insert(Row {
                entry,
                followers: Slab::with_capacity(1),
                stage: Stage::Due(soon),
                asked_at: None,
                changed_at: now,
                failures: 0,
                alone: false,
                wanted: None,
            });
            table.due.insert((soon, key));
            key
        });
        let row = &mut table.rows[key];
        let interval = interest.interval;
        let follower = row.followers.insert(interest);
        row.wanted = row.wanted.into_iter().chain(interval).min();
        let held = match table.gate.admission(now) {
            Admission::Held(hold) => Some(hold),
            _ => None,
        };
        if let Some(hold) = &held {
            let mut news = row.entry.news();
            if news.standing == Standing::Unasked {
                news.standing = Standing::Interrupted(Interruption::new(hold, now));
            }
        }
        let entry = Arc::clone(&row.entry);
        let first = table.due.first().copied();
        if let (Some(at), Some(asked), Some(_)) = (row.stage_due(), row.asked_at, interval) {
            let wanted = asked + self.interval(row, now);
            if wanted < at {
                table.due.remove(&(at, key));
                table.schedule(key, wanted);
            }
        }
        let earlier = new || table.due.first().copied() != first;
        drop(guard);
        if earlier {
            self.changed.notify_one();
        }
        Follow { roster: Arc::clone(self), entry, key, follower, held }
    }

    /// Waits until there may be something earlier to do than there was.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// How the backend is doing at `now`.
    pub fn report(&self, now: Instant) -> Report {
        let table = self.lock();
        let health = match table.gate.admission(now) {
            _ if table.gate.is_broken() => Health::Unavailable,
            Admission::Open if table.gate.failures() == 0 && table.last_fault.is_none() => {
                table.last_answer.map_or(Health::Unknown, |_| Health::Healthy)
            }
            _ => Health::Degraded,
        };
        Report {
            health,
            last_fault: table.last_fault.clone(),
            last_answer: table.last_answer,
            followed: table.rows.len(),
        }
    }

    /// Says what there is to do. While the backend is held, tells the followers
    /// of jobs that fall due that they can't be asked about.
    pub fn prepare(&self, now: Instant) -> Readiness {
        let mut guard = self.lock();
        let table = &mut *guard;
        if let Admission::Held(hold) = table.gate.admission(now) {
            let interruption = Interruption::new(&hold, now);
            for _ in 0..MARKED_AT_ONCE {
                let Some(&(at, key)) = table.due.first().filter(|(at, _)| *at <= now) else { break };
                table.due.remove(&(at, key));
                table.due.insert((hold.until, key));
                table.rows[key].stage = Stage::Due(hold.until);
                table.rows[key].interrupted(Arc::clone(&interruption));
            }
        }
        match table.due.first() {
            None => Readiness::Idle,
            Some(&(at, _)) if at > now => Readiness::At(at),
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
    pub fn take(self: &Arc<Self>, now: Instant) -> Option<Batch> {
        let mut guard = self.lock();
        let table = &mut *guard;
        let probe = match table.gate.admission(now) {
            Admission::Open => false,
            Admission::Probe => true,
            Admission::Probing | Admission::Held(_) => return None,
        };
        let keys = table.next_batch(now, &self.plan);
        if keys.is_empty() {
            return None;
        }
        if probe {
            table.gate.probe_begins();
        }
        let flight =
            Arc::new(Flight { followed: AtomicUsize::new(keys.len()), given_up: CancellationToken::new() });
        let mut open = Vec::with_capacity(keys.len());
        for (at, key) in keys {
            table.due.remove(&(at, key));
            let row = &mut table.rows[key];
            row.stage = Stage::Asked(Arc::clone(&flight));
            row.asked_at = Some(now);
            open.push(Taken { key, entry: Arc::clone(&row.entry) });
        }
        Some(Batch { roster: Arc::clone(self), flight, open, probe })
    }

    fn leave(&self, key: usize, follower: usize) {
        let mut guard = self.lock();
        let table = &mut *guard;
        let row = &mut table.rows[key];
        let interest = row.followers.remove(follower);
        if row.followers.is_empty() {
            let row = table.rows.remove(key);
            table.keys.remove(&row.entry.job);
            match row.stage {
                Stage::Due(at) => drop(table.due.remove(&(at, key))),
                Stage::Asked(flight) => flight.left(),
                Stage::Ended => {}
            }
        } else if interest.interval.is_some() && interest.interval == row.wanted {
            row.wanted = row.followers.iter().filter_map(|(_, other)| other.interval).min();
        }
    }

    fn interval(&self, row: &Row, now: Instant) -> Duration {
        self.plan.cadence.interval(now.saturating_duration_since(row.changed_at), row.wanted)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn next_batch(&self, now: Instant, plan: &Plan) -> Vec<(Instant, usize)> {
        let mut keys = Vec::new();
        let mut passed_over = 0;
        for &(at, key) in &self.due {
            let row = &self.rows[key];
            if row.alone {
                if at <= now && keys.is_empty() {
                    return vec![(at, key)];
                }
                continue;
            }
            // Half of its wait is over, or it is new and waits for company.
            let soon = match row.asked_at {
                None => at <= now + plan.window,
                Some(asked) => at.saturating_duration_since(now) <= now.saturating_duration_since(asked),
            };
            if at <= now || soon && !keys.is_empty() {
                keys.push((at, key));
            } else if keys.is_empty() || at > now + plan.cadence.max || passed_over == plan.max_batch {
                break;
            } else {
                passed_over += 1;
            }
            if keys.len() == plan.max_batch {
                break;
            }
        }
        keys
    }

    /// The row of a taken job, unless its followers have left since.
    fn asked(&mut self, taken: &Taken) -> Option<&mut Row> {
        let row = self.rows.get_mut(taken.key)?;
        Arc::ptr_eq(&row.entry, &taken.entry).then_some(row)
    }

    fn schedule(&mut self, key: usize, at: Instant) {
        self.rows[key].stage = Stage::Due(at);
        self.due.insert((at, key));
    }
}

impl Row {
    fn stage_due(&self) -> Option<Instant> {
        match self.stage {
            Stage::Due(at) => Some(at),
            Stage::Asked(_) | Stage::Ended => None,
        }
    }

    /// Publishes an observation. Returns whether it is the last.
    fn observed(&mut self, observation: Observation, now: Instant, time: Timestamp) -> Option<Latest> {
        let snapshot = Snapshot::new(self.entry.job.clone(), observation);
        let mut news = self.entry.news();
        let changed = news.latest.as_ref().is_none_or(|latest| latest.snapshot.differs_from(&snapshot));
        let recovered = mem::replace(&mut news.standing, Standing::Observed) != Standing::Observed;
        let snapshot = match &news.latest {
            Some(latest) if !changed => Arc::clone(&latest.snapshot),
            _ => Arc::new(snapshot),
        };
        let latest = Latest { snapshot, time, at: now };
        news.latest = Some(latest.clone());
        news.attempts += 1;
        news.answers += 1;
        drop(news);
        self.failures = 0;
        if changed {
            self.changed_at = now;
        }
        self.tell(changed || recovered);
        latest.snapshot.is_terminal().then_some(latest)
    }

    fn interrupted(&mut self, interruption: Arc<Interruption>) {
        self.stands(Standing::Interrupted(interruption));
    }

    /// The backend answers, but not about this job. Returns when it is asked next.
    fn failed(&mut self, fault: BackendFault, backoff: Backoff, now: Instant, dice: f64) -> Instant {
        self.failures = self.failures.saturating_add(1);
        let at = now + backoff.wait(self.failures, dice);
        self.interrupted(Interruption::until(fault, at, now));
        at
    }

    fn stands(&mut self, standing: Standing) {
        let mut news = self.entry.news();
        news.standing = standing;
        news.attempts += 1;
        drop(news);
        self.tell(true);
    }

    fn tell(&self, everyone: bool) {
        for (_, follower) in &self.followers {
            if everyone || follower.eager {
                follower.mailbox.post(follower.slot);
            }
        }
    }
}

impl Entry {
    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flight {
    fn left(&self) {
        if self.followed.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.given_up.cancel();
        }
    }
}

impl Follow {
    /// What is known now.
    pub fn news(&self) -> News {
        self.entry.news().clone()
    }

    /// Has the job asked about at once, as if its cadence had run out, unless a
    /// request about it is under way.
    pub fn hurry(&self) {
        let soon = Instant::now() + self.roster.plan.window;
        let mut guard = self.roster.lock();
        let table = &mut *guard;
        if let Stage::Due(at) = table.rows[self.key].stage
            && soon < at
        {
            table.due.remove(&(at, self.key));
            table.schedule(self.key, soon);
            drop(guard);
            self.roster.changed.notify_one();
        }
    }

    /// Why the backend was left alone when this began, if it was.
    pub fn held(&self) -> Option<&Hold> {
        self.held.as_ref()
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.roster.leave(self.key, self.follower);
    }
}

impl Batch {
    /// The jobs that are neither answered nor failed yet.
    pub fn open(&self) -> Vec<Taken> {
        self.open.clone()
    }

    /// Leaves out those that nobody follows any more.
    pub fn still_followed(&self, part: &mut Vec<Taken>) {
        let mut table = self.roster.lock();
        part.retain(|taken| table.asked(taken).is_some());
    }

    /// Ends when nobody follows any of the jobs any more.
    pub fn given_up(&self) -> CancellationToken {
        self.flight.given_up.clone()
    }

    /// The vendor answered about `part`. Returns whether that ended a series of
    /// failures of the backend.
    pub fn answered(
        &mut self,
        part: &[Taken],
        answers: Vec<Result<Observation, JobFault>>,
        dice: f64,
    ) -> bool {
        let (now, time) = (Instant::now(), Timestamp::now());
        let roster = Arc::clone(&self.roster);
        let mut guard = roster.lock();
        let table = &mut *guard;
        // A job that the backend was not asked about says nothing of the backend.
        let heard = |answer: &Result<_, JobFault>| !matches!(answer, Err(JobFault::Standby(NeedsJobTag)));
        let recovered = answers.iter().any(heard) && {
            table.refused.clear();
            (table.last_fault, table.last_answer) = (None, Some(time));
            table.gate.succeeded(now)
        };
        let backoff = table.gate.backoff();
        let mut ended = Vec::new();
        for (taken, answer) in part.iter().zip(answers) {
            let Some(row) = table.asked(taken) else {
                // Nobody asks any more, but whoever asks next shall know the end.
                if let Ok(observation) = answer {
                    let snapshot = Snapshot::new(taken.job().clone(), observation);
                    if snapshot.is_terminal() {
                        ended.push(Latest { snapshot: Arc::new(snapshot), time, at: now });
                    }
                }
                continue;
            };
            let next = match answer {
                Ok(observation) => match row.observed(observation, now, time) {
                    Some(last) => {
                        row.stage = Stage::Ended;
                        ended.push(last);
                        continue;
                    }
                    None => now + roster.interval(row, now),
                },
                Err(JobFault::NotFound) => {
                    row.failures = 0;
                    row.stands(Standing::Missing);
                    now + roster.plan.cadence.min
                }
                Err(JobFault::Invalid { message }) => {
                    row.stands(Standing::Invalid(message.into()));
                    now + roster.plan.cadence.max
                }
                Err(JobFault::Malformed { why }) => {
                    row.failed(FaultKind::Malformed { why }.into(), backoff, now, dice)
                }
                Err(JobFault::Standby(fault)) => row.failed(fault.into(), backoff, now, dice),
            };
            table.schedule(taken.key, next);
        }
        drop(guard);
        self.close(part);
        for last in ended {
            roster.ended.insert(last);
        }
        recovered
    }

    /// The vendor refused to answer about `taken` alone: from now on it is asked
    /// about alone. Returns false, and does nothing, where the vendor has refused
    /// so many in a row that the jobs can't be the reason.
    pub fn refused(&mut self, taken: &Taken, fault: &BackendFault, dice: f64) -> bool {
        let now = Instant::now();
        let roster = Arc::clone(&self.roster);
        let mut table = roster.lock();
        if !table.refused.iter().any(|entry| Arc::ptr_eq(entry, &taken.entry)) {
            if table.refused.len() == REFUSALS_OF_A_BACKEND {
                return false;
            }
            table.refused.push(Arc::clone(&taken.entry));
        }
        table.gate.succeeded(now);
        table.last_fault = Some(fault.clone());
        let backoff = table.gate.backoff();
        if let Some(row) = table.asked(taken) {
            row.alone = true;
            row.failures = row.failures.saturating_add(1);
            let at = now + backoff.wait(row.failures, dice);
            row.interrupted(Interruption::until(fault.clone(), at, now));
            table.schedule(taken.key, at);
        }
        drop(table);
        self.close(std::slice::from_ref(taken));
        true
    }

    /// The backend failed: it said nothing about the jobs that are still open.
    /// Returns how often it has failed in a row.
    pub fn failed(&mut self, fault: &BackendFault, dice: f64) -> u32 {
        let now = Instant::now();
        let roster = Arc::clone(&self.roster);
        let mut guard = roster.lock();
        let table = &mut *guard;
        let at = table.gate.failed(fault, now, dice);
        table.last_fault = Some(fault.clone());
        let interruption = Interruption::until(fault.clone(), at, now);
        for taken in mem::take(&mut self.open) {
            if let Some(row) = table.asked(&taken) {
                row.interrupted(Arc::clone(&interruption));
                table.schedule(taken.key, at);
            }
        }
        table.gate.failures()
    }

    fn close(&mut self, part: &[Taken]) {
        if part.len() == self.open.len() {
            self.open.clear();
        } else {
            self.open.retain(|open| !part.iter().any(|taken| Arc::ptr_eq(&taken.entry, &open.entry)));
            self.roster.changed.notify_one();
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        // Open jobs are left only by a poll that was given up or has panicked.
        let now = Instant::now();
        let mut guard = self.roster.lock();
        let table = &mut *guard;
        if self.probe {
            table.gate.probe_ends();
        }
        let at = now + self.roster.plan.cadence.max;
        for taken in mem::take(&mut self.open) {
            if let Some(row) = table.asked(&taken) {
                let fault = FaultKind::Malformed { why: "it broke the gateway's reading of it" };
                row.interrupted(Interruption::until(fault.into(), at, now));
                table.schedule(taken.key, at);
            }
        }
        drop(guard);
        self.roster.changed.notify_one();
    }
}
