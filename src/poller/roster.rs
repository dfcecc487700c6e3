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
    collections::{BTreeMap, BTreeSet, HashMap, btree_map},
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
    job::{JobRef, Lens, Observation, Snapshot},
    pacing::{Admission, Backoff, Cadence, Gate, Hold},
};

/// Most jobs that a backend may follow for its waits to become long polls: the
/// vendor answers when all jobs of a request have ended, which gains something only
/// where they are few.
const FEW_JOBS: usize = 16;

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
    table: Mutex<Table>,
    changed: Notify,
}

#[derive(Debug)]
struct Table {
    keys: HashMap<JobRef, usize>,
    rows: Slab<Row>,
    due: BTreeSet<(Instant, usize)>,
    gate: Gate,
    /// Jobs refused for the first time since the vendor last answered about any.
    refused: usize,
    /// Most jobs in one request, for now: fewer after an answer that was too large.
    ceiling: usize,
    /// The largest request whose answer was not too large.
    fits: usize,
    /// Answers since the ceiling was last moved.
    answered: usize,
    last_fault: Option<BackendFault>,
    last_answer: Option<Timestamp>,
    /// A long poll is under way.
    long_polling: bool,
}

#[derive(Debug)]
struct Row {
    entry: Arc<Entry>,
    followers: Slab<Interest>,
    stage: Stage,
    asked_at: Option<Instant>,
    /// When a request that is not held is due; a long poll may begin before.
    answer_at: Instant,
    /// Somebody needed an answer at once: the next wait is a plain one, so that who
    /// asks often does not have a long poll begun and cut short each time.
    cut: bool,
    changed_at: Instant,
    /// In a row, of this job alone.
    failures: u32,
    /// While not zero: the vendor refused a batch because of it, so it is asked
    /// about alone, until it was answered about so often.
    alone: u8,
    /// The intervals that its followers are content with, and how many are of each.
    wanted: BTreeMap<Duration, usize>,
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
    /// How long the vendor is asked to hold it.
    wait: Duration,
    cut: CancellationToken,
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
    began: Instant,
    probe: bool,
}

/// What a refusal of a single job says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing: it was refused before.
    Known,
    /// The job is the culprit.
    New,
    /// The backend refuses everything.
    Backends,
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
            refused: 0,
            ceiling: plan.max_batch,
            fits: 0,
            answered: 0,
            last_fault: None,
            last_answer: None,
            long_polling: false,
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
                answer_at: soon,
                cut: false,
                changed_at: now,
                failures: 0,
                alone: 0,
                wanted: BTreeMap::new(),
            });
            table.due.insert((soon, key));
            key
        });
        let row = &mut table.rows[key];
        let interval = interest.interval;
        let follower = row.followers.insert(interest);
        if let Some(interval) = interval {
            *row.wanted.entry(interval).or_default() += 1;
        }
        let row = &table.rows[key];
        let passes = |hold: &Hold| hold.fault.kind.is_refusal() && row.asked_at.is_none();
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
        let first = table.due.first().copied();
        if let (Some(asked), Some(_)) = (row.asked_at, interval) {
            let wanted = asked + self.interval(row, now);
            match &row.stage {
                Stage::Due(_) if wanted < row.answer_at => table.reschedule(key, wanted),
                Stage::Asked(flight) if wanted < asked + flight.wait => flight.cut.cancel(),
                _ => {}
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

    /// Why the backend is left alone at `now`, if it is.
    pub fn held(&self, now: Instant) -> Option<Hold> {
        match self.lock().gate.admission(now) {
            Admission::Held(hold) => Some(hold),
            _ => None,
        }
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
            let due = table.due.iter().take_while(|(at, _)| *at <= now).take(MARKED_AT_ONCE);
            let fresh = |key: &usize| hold.fault.kind.is_refusal() && table.rows[*key].asked_at.is_none();
            let (fresh, due): (Vec<usize>, Vec<usize>) = due.map(|(_, key)| *key).partition(fresh);
            for (place, key) in (0..).zip(due) {
                // One after the other, so that they keep their order.
                table.reschedule(key, hold.until + Duration::from_nanos(place));
                table.rows[key].interrupted(Arc::clone(&interruption));
            }
            if !fresh.is_empty() {
                return Readiness::Ready;
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
    /// While the circuit is open, takes one job; `dice` in `0.0..1.0` says which.
    pub fn take(self: &Arc<Self>, now: Instant, dice: f64) -> Option<Batch> {
        let mut guard = self.lock();
        let table = &mut *guard;
        let admission = table.gate.admission(now);
        let probe = admission == Admission::Probe;
        let (keys, wait) = if probe {
            (table.next_probe(now, dice), Duration::ZERO)
        } else if let Admission::Held(hold) = admission {
            // A vendor that refuses what it was asked may well answer what it was not.
            let fresh = if hold.fault.kind.is_refusal() { table.never_asked(now) } else { Vec::new() };
            (fresh, Duration::ZERO)
        } else if admission == Admission::Probing {
            return None;
        } else if self.plan.long_poll && table.may_long_poll() {
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
        let mut open = Vec::with_capacity(keys.len());
        for (at, key) in keys {
            table.due.remove(&(at, key));
            let row = &mut table.rows[key];
            row.stage = Stage::Asked(Arc::clone(&flight));
            row.asked_at = Some(now);
            open.push(Taken { key, entry: Arc::clone(&row.entry) });
        }
        Some(Batch { roster: Arc::clone(self), flight, open, began: now, probe })
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
        } else if let Some(interval) = interest.interval
            && let btree_map::Entry::Occupied(mut count) = row.wanted.entry(interval)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    fn interval(&self, row: &Row, now: Instant) -> Duration {
        let wanted = row.wanted.keys().next().copied();
        self.plan.cadence.interval(now.saturating_duration_since(row.changed_at), wanted)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// One job that is due: any one that was not refused before, so that one job
    /// that is always refused can't keep the circuit open for the others.
    fn next_probe(&self, now: Instant, dice: f64) -> Vec<(Instant, usize)> {
        let due = || self.due.iter().take_while(|(at, _)| *at <= now).take(LOOKED_AT);
        let unsuspected = || due().filter(|(_, key)| self.rows[*key].alone == 0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let pick = (unsuspected().count() as f64 * dice) as usize;
        unsuspected().nth(pick).or_else(|| due().next()).copied().into_iter().collect()
    }

    /// Due jobs that nobody has asked about yet.
    fn never_asked(&self, now: Instant) -> Vec<(Instant, usize)> {
        let due = self.due.iter().take_while(|(at, _)| *at <= now).take(LOOKED_AT);
        due.filter(|(_, key)| self.rows[*key].asked_at.is_none()).take(self.ceiling).copied().collect()
    }

    fn next_batch(&self, now: Instant, plan: &Plan) -> Vec<(Instant, usize)> {
        let mut keys = Vec::new();
        let mut passed_over = 0;
        for &(at, key) in self.due.iter().take(LOOKED_AT) {
            let row = &self.rows[key];
            if row.alone > 0 {
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
            if keys.len() == self.ceiling {
                break;
            }
        }
        keys
    }

    /// Whether the next request may be a long poll.
    fn may_long_poll(&self) -> bool {
        !self.long_polling
            && self.gate.failures() == 0
            && self.rows.len() <= FEW_JOBS
            && self.rows.iter().all(|(_, row)| !row.cut && row.alone == 0)
    }

    /// Everything that is due at some time, and for how long to hold the request:
    /// the whole seconds until the first of it needs an answer. What is left of
    /// that time is waited for before.
    fn next_long_poll(&mut self, now: Instant) -> (Vec<(Instant, usize)>, Duration) {
        let keys: Vec<(Instant, usize)> = self.due.iter().copied().collect();
        let Some(answer_at) = keys.iter().map(|(_, key)| self.rows[*key].answer_at).min() else {
            return (keys, Duration::ZERO);
        };
        let wait = whole_seconds(answer_at.saturating_duration_since(now));
        let begin = answer_at.checked_sub(wait).unwrap_or(now);
        if begin <= now + TOLERANCE {
            return (keys, wait);
        }
        for (_, key) in keys {
            let answer_at = self.rows[key].answer_at;
            self.reschedule(key, begin);
            self.rows[key].answer_at = answer_at;
        }
        (Vec::new(), Duration::ZERO)
    }

    /// Has what is due only for a long poll wait on, where that can't be.
    fn put_off_long_polls(&mut self, now: Instant) {
        let waiting: Vec<usize> = self
            .due
            .iter()
            .take_while(|(at, _)| *at <= now)
            .take(FEW_JOBS)
            .filter_map(|(_, key)| (self.rows[*key].answer_at > now).then_some(*key))
            .collect();
        for key in waiting {
            self.reschedule(key, self.rows[key].answer_at);
        }
    }

    /// Dares a little more in one request after many answers.
    fn raise_ceiling(&mut self, jobs: usize, plan: &Plan) {
        self.answered += 1;
        self.fits = self.fits.max(jobs);
        if self.ceiling < plan.max_batch && self.answered >= ANSWERS_TO_RAISE_THE_CEILING {
            self.ceiling = (self.ceiling + self.ceiling.div_ceil(8)).min(plan.max_batch);
            self.answered = 0;
        }
    }

    /// The row of a taken job, unless its followers have left since.
    fn asked(&mut self, taken: &Taken) -> Option<&mut Row> {
        let row = self.rows.get_mut(taken.key)?;
        Arc::ptr_eq(&row.entry, &taken.entry).then_some(row)
    }

    /// Has a job that is not due asked about at `at`.
    fn schedule(&mut self, key: usize, at: Instant) {
        self.rows[key].stage = Stage::Due(at);
        self.rows[key].answer_at = at;
        self.due.insert((at, key));
    }

    /// Has a job that is due asked about at another time.
    fn reschedule(&mut self, key: usize, at: Instant) {
        if let Stage::Due(before) = self.rows[key].stage {
            self.due.remove(&(before, key));
            self.schedule(key, at);
        }
    }

    /// Has a job asked about after `interval`, by a long poll if that can be.
    fn schedule_after(&mut self, key: usize, now: Instant, interval: Duration, plan: &Plan) {
        let answer_at = now + interval;
        self.schedule(key, answer_at);
        let row = &mut self.rows[key];
        let cut = mem::take(&mut row.cut);
        if plan.long_poll && !cut && row.alone == 0 && self.rows.len() <= FEW_JOBS {
            self.reschedule(key, now + interval.saturating_sub(whole_seconds(interval)));
            self.rows[key].answer_at = answer_at;
        }
    }
}

/// What a vendor can be asked to hold a request for.
fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs((time + TOLERANCE).as_secs())
}

impl Row {
    /// Publishes an observation. Returns whether it is the last.
    fn observed(&mut self, observation: Observation, now: Instant, time: Timestamp) -> Option<Latest> {
        let snapshot = Snapshot::new(self.entry.job.clone(), observation);
        let mut news = self.entry.news();
        let changed = news.latest.as_ref().is_none_or(|latest| latest.snapshot.differs_from(&snapshot));
        // What a vendor changes beside what it documents does not speed polls up.
        let shown = news.latest.as_ref().is_none_or(|latest| {
            latest.snapshot.fingerprint(Lens::SHOWN) != snapshot.fingerprint(Lens::SHOWN)
        });
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
        self.alone = self.alone.saturating_sub(1);
        if shown {
            self.changed_at = now;
        }
        self.tell(changed || recovered);
        latest.snapshot.is_terminal().then_some(latest)
    }

    fn missing(&mut self) {
        let times = match self.entry.news().standing {
            Standing::Missing { times } => times,
            _ => 0,
        };
        self.stands(Standing::Missing { times: times.saturating_add(1) });
    }

    /// It failed for itself. Returns when it is asked about again.
    fn failed(&mut self, fault: BackendFault, backoff: &Backoff, now: Instant, dice: f64) -> Instant {
        self.failures = self.failures.saturating_add(1);
        let at = now + backoff.wait(self.failures, dice);
        self.interrupted(Interruption::until(fault, at, now));
        at
    }

    fn interrupted(&mut self, interruption: Arc<Interruption>) {
        self.stands(Standing::Interrupted(interruption));
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
    /// One job less is waited for.
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
    /// request about it is under way. A long poll is cut short.
    pub fn hurry(&self) {
        let soon = Instant::now() + self.roster.plan.window;
        let mut table = self.roster.lock();
        match &table.rows[self.key].stage {
            Stage::Due(_) if soon < table.rows[self.key].answer_at => {
                table.reschedule(self.key, soon);
                table.rows[self.key].cut = true;
                drop(table);
                self.roster.changed.notify_one();
            }
            Stage::Asked(flight) if !flight.wait.is_zero() => {
                flight.cut.cancel();
                table.rows[self.key].cut = true;
            }
            _ => {}
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

    /// How long the vendor is asked to hold the request; zero for not at all.
    pub fn wait(&self) -> Duration {
        self.flight.wait
    }

    /// Ends when somebody needs an answer before the long poll is over.
    pub fn cut_short(&self) -> CancellationToken {
        self.flight.cut.clone()
    }

    /// The long poll was cut short: its jobs are asked about as if it had not been,
    /// those that somebody needs an answer about at once.
    pub fn cut(&mut self) {
        let now = Instant::now();
        let roster = Arc::clone(&self.roster);
        let mut guard = roster.lock();
        let table = &mut *guard;
        for taken in mem::take(&mut self.open) {
            if let Some(row) = table.asked(&taken) {
                let at = if row.cut { now + roster.plan.window } else { row.answer_at };
                row.cut = true;
                table.schedule(taken.key, at);
            }
        }
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
        let recovered = if answers.iter().any(heard) {
            table.refused = 0;
            table.raise_ceiling(part.len(), &roster.plan);
            (table.last_fault, table.last_answer) = (None, Some(time));
            table.gate.succeeded()
        } else {
            table.last_fault = Some(NeedsJobTag.into());
            false
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
                Ok(observation) => {
                    if let Some(last) = row.observed(observation, now, time) {
                        row.stage = Stage::Ended;
                        ended.push(last);
                    } else {
                        let interval = roster.interval(row, now);
                        table.schedule_after(taken.key, now, interval, &roster.plan);
                    }
                    continue;
                }
                Err(JobFault::NotFound) => {
                    row.failures = 0;
                    row.missing();
                    now + roster.plan.cadence.min
                }
                Err(JobFault::Invalid { message }) => {
                    row.stands(Standing::Invalid(message.into()));
                    now + roster.plan.cadence.max
                }
                Err(JobFault::Forbidden) => row.failed(FaultKind::Forbidden.into(), &backoff, now, dice),
                Err(JobFault::Malformed { why }) => {
                    row.failed(FaultKind::Malformed { why }.into(), &backoff, now, dice)
                }
                Err(JobFault::Standby(fault)) => row.failed(fault.into(), &backoff, now, dice),
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
    /// about alone. Says whether that is known by now to be this job's own fault, or
    /// news of it, or whether so many were refused, with no answer in between, that
    /// the backend has to be the reason.
    pub fn refused(&mut self, taken: &Taken, fault: &BackendFault, dice: f64) -> Refusal {
        let now = Instant::now();
        let roster = Arc::clone(&self.roster);
        let mut guard = roster.lock();
        let table = &mut *guard;
        table.last_fault = Some(fault.clone());
        let backoff = table.gate.backoff();
        let mut refusal = Refusal::Known;
        if let Some(row) = table.asked(taken) {
            let first = row.alone == 0;
            row.alone = ANSWERS_TO_BE_TRUSTED;
            let at = row.failed(fault.clone(), &backoff, now, dice);
            table.schedule(taken.key, at);
            if first {
                table.refused += 1;
                refusal = Refusal::New;
            }
        }
        if self.probe || refusal == Refusal::New && table.refused > REFUSALS_OF_A_BACKEND {
            refusal = Refusal::Backends;
        }
        drop(guard);
        self.close(std::slice::from_ref(taken));
        refusal
    }

    /// Whether so many jobs were refused that one of a refused batch is better asked
    /// about before the batch is split.
    pub fn is_suspicious(&self) -> bool {
        self.roster.lock().refused > REFUSALS_OF_A_BACKEND
    }

    /// The answer about `jobs` jobs was too large: fewer are asked about at once.
    pub fn too_large(&self, jobs: usize) {
        let mut table = self.roster.lock();
        if table.fits >= jobs {
            table.fits = 0;
        }
        table.ceiling = table.ceiling.min(table.fits.max(jobs.div_ceil(2)));
        table.answered = 0;
    }

    /// The backend failed: it said nothing about the jobs that are still open.
    /// Returns how often it has failed in a row.
    pub fn failed(&mut self, fault: &BackendFault, dice: f64) -> u32 {
        let now = Instant::now();
        let roster = Arc::clone(&self.roster);
        let mut guard = roster.lock();
        let table = &mut *guard;
        let at = table.gate.failed(fault, self.began, now, dice);
        table.last_fault = Some(fault.clone());
        let interruption = Interruption::until(fault.clone(), at, now);
        for taken in mem::take(&mut self.open) {
            if let Some(row) = table.asked(&taken) {
                row.interrupted(Arc::clone(&interruption));
                table.schedule(taken.key, at + BACK_OF_THE_LINE);
            }
        }
        table.gate.failures()
    }

    fn close(&mut self, part: &[Taken]) {
        for _ in part {
            self.flight.left();
        }
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
        if !self.flight.wait.is_zero() {
            table.long_polling = false;
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
