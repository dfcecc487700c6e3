//! Jobs that another replica polls for this one.
//!
//! While a backend is followed, its poll loop rests. What becomes due is not polled but
//! taken by the session with the replica that polls, which registers it there and publishes
//! what it is sent. Subscribers notice no difference.
//!
//! ```text
//!   subscribe ──> scheduled, due ── take_due ──> registered, asked ── publish_news ──> record
//!                     ^                                                   │
//!                     └────────────── asked again after REPEAT ───────────┘
//! ```

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    Interest, Pause, Refusal, Subscription,
    backend::Backend,
    job_table::{Interruption, JobEntry, LatestStatus, Moment, PollOutcome, Reading, SharedJob, Stage},
    scheduler::Class,
    state::{LOOKED_AT, State},
    subscription::Subscriber,
};
use crate::{
    job::{BackendFault, JobRef, Observed, Parts, PayloadHash},
    snapshot::{Snapshot, StatusBudget},
};

/// After this long without news of a job, the replica that polls is asked for it again.
const REPEAT: Duration = Duration::from_mins(5);

/// Names one entry of the job table for as long as it lives.
#[derive(Clone, Debug)]
pub struct JobKey {
    number: usize,
    shared: Arc<SharedJob>,
}

impl JobKey {
    /// The job.
    pub fn job(&self) -> &JobRef {
        &self.shared.job
    }

    /// The number that it has in the table now. Another entry may have it later.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Whether both name the same entry.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

/// A job that the replica that polls has to know of.
#[derive(Clone, Debug)]
pub struct FollowedJob {
    /// Its entry.
    pub key: JobKey,
    /// What its subscribers are shown.
    pub parts: Parts,
    /// The longest interval between two polls that they accept.
    pub interval: Option<Duration>,
    /// They wait for a poll.
    pub asks: bool,
    /// How long until it would be polled here.
    pub due_in: Duration,
    /// For how long it has not changed.
    pub unchanged: Duration,
}

/// What the replica that polls says of a job.
#[derive(Debug)]
pub struct News {
    /// What its last poll came to.
    pub said: Said,
    /// It ends the wait of those that had asked for it.
    pub answers: bool,
    /// Others have asked since: they go on waiting.
    pub asked_again: bool,
}

/// What a poll came to.
#[derive(Debug)]
pub enum Said {
    /// A status.
    Observed {
        /// The status; `None` for the same as before.
        snapshot: Option<Box<Snapshot>>,
        /// The number that the observer gave it.
        observed: Observed,
        /// A time before the poll began, as late as is known.
        began: Instant,
        /// It began after the job was registered.
        began_since: bool,
        /// How long ago the response came.
        age: Duration,
    },
    /// The vendor does not know the job.
    Missing {
        /// Polls in a row that found it missing.
        times: u32,
    },
    /// The vendor says that no job can have this id, in these words.
    Invalid(String),
    /// It can't be polled.
    Interrupted {
        /// Why.
        fault: BackendFault,
        /// When it is polled next.
        retry_in: Duration,
        /// Nor can any other job of the backend.
        is_paused: bool,
    },
}

/// A job that another replica follows.
#[derive(Debug)]
pub enum ForReplica {
    /// It has ended.
    Ended(LatestStatus),
    /// It goes on. With how many polls are too old to be an answer.
    Open(Subscription, u64),
}

/// What became of a job that there were news of.
#[derive(Debug)]
pub enum Followed {
    /// Nobody subscribes to it any more, or its status is terminal; if not, it is registered
    /// anew.
    Over,
    /// It goes on.
    Open,
    /// It goes on, and its status was not published: it may be older than what is known.
    /// Later news may be that it is the same.
    NotPublished(Option<Box<Snapshot>>),
}

impl Backend {
    /// Another replica polls the backend from now on. Polls in flight end as they would.
    pub fn begin_following(&self) {
        let mut state = self.state();
        state.sharing.is_following = true;
        state.sharing.owners_queue = None;
        state.bar(Instant::now());
        state.end_isolation(Instant::now());
        drop(state);
        self.changed();
    }

    /// This replica polls the backend again: each job when it would have been due.
    pub fn end_following(&self) {
        let now = Instant::now();
        let mut guard = self.state();
        let state = &mut *guard;
        if !std::mem::take(&mut state.sharing.is_following) {
            return;
        }
        state.bar(now);
        let numbers: Vec<usize> = state.jobs.iter().map(|(number, _)| number).collect();
        for number in numbers {
            let entry = &state.jobs[number];
            let latest = {
                let mut record = entry.shared.record();
                record.is_asked = false;
                record
                    .latest
                    .as_ref()
                    .map(|latest| latest.at)
                    .filter(|_| record.outcome == PollOutcome::Observed)
            };
            if matches!(entry.stage, Stage::Scheduled) {
                let at = latest.map_or(now, |at| (at + state.interval(entry, now)).max(now));
                state.schedule(number, at);
            }
        }
        drop(guard);
        self.polls_again();
    }

    /// Why and until when no replica may poll the backend, for the one that polls it next.
    pub fn pause(&self, now: Instant) -> Option<Pause> {
        self.state().breaker.vendors_pause(now)
    }

    /// The replica that polled the backend before knew that it must not be polled until then.
    pub fn follow_pause(&self, pause: Pause) {
        self.state().breaker.follow(pause);
        self.changed();
    }

    /// Waits while another replica polls the backend. For the poll loop.
    pub(super) async fn while_following(&self) {
        loop {
            let again = self.polls_again.notified();
            if !self.state().sharing.is_following {
                return;
            }
            again.await;
        }
    }

    /// Has the poll loop look whether another replica polls the backend.
    pub(super) fn polls_again(&self) {
        self.polls_again.notify_waiters();
    }

    /// Whether another replica polls the backend.
    pub fn is_following(&self) -> bool {
        self.state().sharing.is_following
    }

    /// Waits until there may be something for [`take_due`](Self::take_due), at the latest
    /// when the next job becomes due.
    pub async fn due(&self) {
        let at = {
            let mut state = self.state();
            let now = Instant::now();
            state.expire(now);
            [state.scheduler.next_due(), state.retained.next_expiry()].into_iter().flatten().min()
        };
        tokio::select! {
            () = self.wait_for_change() => {}
            () = super::get::at(at) => {}
        }
    }

    /// Jobs that have become due, at most some thousands: they are registered, or those that
    /// wait for them ask for a poll.
    pub fn take_due(&self) -> Vec<FollowedJob> {
        let now = Instant::now();
        let mut guard = self.state();
        let state = &mut *guard;
        state.advance(now);
        state.window_ends = None;
        let mut taken = Vec::new();
        for class in [Class::Waiting, Class::Repoll, Class::Quarantined] {
            while taken.len() < LOOKED_AT
                && let Some((number, _)) = state.scheduler.pop(class)
            {
                state.scheduler.schedule(number, now + REPEAT);
                taken.push(followed(state, number, true, now));
            }
        }
        taken
    }

    /// All other jobs with subscribers, from this number on, and the number to go on from.
    pub fn scheduled_from(&self, from: usize) -> (Vec<FollowedJob>, Option<usize>) {
        let now = Instant::now();
        let mut guard = self.state();
        let state = &mut *guard;
        let end = state.jobs.end();
        let to = from.saturating_add(LOOKED_AT).min(end);
        let mut taken = Vec::new();
        for number in from..to {
            let is_scheduled =
                state.jobs.get(number).is_some_and(|entry| matches!(entry.stage, Stage::Scheduled));
            if is_scheduled {
                taken.push(followed(state, number, false, now));
                state.scheduler.schedule(number, now + REPEAT);
            }
        }
        (taken, (to < end).then_some(to))
    }

    /// Which of these jobs nobody subscribes to any more.
    pub fn left(&self, keys: &mut dyn Iterator<Item = (u32, &JobKey)>) -> Vec<u32> {
        let mut state = self.state();
        keys.filter(|(_, key)| entry_of(&mut state, key).is_none()).map(|(slot, _)| slot).collect()
    }

    /// Has a job registered again in a while.
    pub fn register_in(&self, key: &JobKey, wait: Duration) {
        let mut state = self.state();
        if let Some(entry) = entry_of(&mut state, key) {
            entry.shared.record().is_asked = false;
            if matches!(entry.stage, Stage::Scheduled) {
                state.scheduler.schedule(key.number, Instant::now() + wait);
            }
        }
    }

    /// Those that wait for this job were asked for once more.
    pub fn asks(&self, key: &JobKey) {
        if let Some(entry) = entry_of(&mut self.state(), key) {
            entry.shared.record().is_asked = true;
        }
    }

    /// Whether no replica may poll any job now.
    pub fn is_paused(&self, now: Instant) -> bool {
        self.pause(now).is_some()
    }

    /// Most bytes of all statuses, to charge those of another replica to.
    pub fn status_budget(&self) -> &Arc<StatusBudget> {
        &self.memory().budget
    }

    /// Subscribes to a job for another replica, whose status is cached if it has ended.
    ///
    /// # Errors
    /// There is no room for the job.
    pub fn follow(self: &Arc<Self>, job: &JobRef, interest: Interest) -> Result<ForReplica, Refusal> {
        let ended = self.memory().cache.get(job).filter(|last| last.snapshot.holds(interest.parts));
        match ended {
            Some(last) => Ok(ForReplica::Ended(last)),
            None => self.subscribe_counting(job, interest).map(|(open, polls)| ForReplica::Open(open, polls)),
        }
    }

    /// Publishes what the replica that polls says of a job.
    pub fn publish_news(&self, key: &JobKey, news: News) -> Followed {
        let now = Instant::now();
        let mut guard = self.state();
        let state = &mut *guard;
        let Some(entry) = entry_of(state, key) else { return Followed::Over };
        if news.answers {
            entry.shared.record().is_asked = false;
        }
        if !matches!(entry.stage, Stage::Scheduled) {
            let is_ended = matches!(entry.stage, Stage::Ended);
            return if is_ended { Followed::Over } else { Followed::Open };
        }
        let News { said, answers, .. } = news;
        // Those that came since the job was taken are asked for with the next look at it.
        let asks_again = news.asked_again || state.scheduler.is_ready(key.number);
        let Some(entry) = entry_of(state, key) else { return Followed::Over };
        let waits = entry.waiting.as_ref().is_some_and(|waiting| waiting.needs_poll)
            || entry.shared.record().is_asked;
        let answers = answers || !waits;
        let waiting = entry.waiting.clone().filter(|_| asks_again || !answers);
        let before = entry.history.phase();
        let mut last = None;
        match said {
            Said::Observed { snapshot, observed, began, began_since, age } => {
                let is_terminal = snapshot.as_ref().is_some_and(|snapshot| snapshot.is_terminal());
                if !is_newer(entry, observed, began_since, is_terminal) {
                    // It may be older than what is known: those that wait ask again.
                    if entry.waiting.is_some() {
                        state.schedule(key.number, now);
                        drop(guard);
                        self.changed();
                    }
                    return Followed::NotPublished(snapshot);
                }
                let at = now.checked_sub(age).unwrap_or(now);
                let time = Timestamp::now().checked_sub(age).unwrap_or(Timestamp::MIN);
                let moment = Moment { began: began.min(at), at, time, observed: Some(observed), answers };
                let reading = snapshot
                    .map_or(Reading::Unchanged, |snapshot| Reading::Read(*snapshot, PayloadHash::unknown()));
                last = entry.observed(reading, moment);
                entry.waiting = waiting;
                if last.is_none() {
                    entry.drop_unwanted_parts(now);
                }
                let figures = &mut state.stats;
                (figures.last_fault, figures.failures_in_a_row) = (None, 0);
                figures.last_success = Some((now, time));
                state.breaker.succeeded();
            }
            Said::Missing { times } => {
                entry.missing_for(times);
                entry.waiting = waiting;
            }
            Said::Invalid(message) => {
                entry.invalid(message);
                entry.waiting = waiting;
            }
            Said::Interrupted { fault, retry_in, is_paused } => {
                let until = now + retry_in;
                entry.interrupted(&Interruption::new(fault.clone(), until, now));
                entry.waiting = waiting;
                if is_paused {
                    state.note_fault(&fault);
                    state.breaker.follow(Pause { until, fault });
                }
            }
        }
        state.note_phase(key.number, before);
        let Some(last) = last else {
            if !asks_again {
                state.scheduler.schedule(key.number, now + REPEAT);
            }
            return Followed::Open;
        };
        if !state.jobs[key.number].holds_wanted_parts() {
            // Somebody has subscribed who is shown more of it: it is registered anew.
            state.schedule(key.number, now);
            drop(guard);
            self.changed();
            return Followed::Over;
        }
        state.scheduler.remove(key.number);
        state.jobs[key.number].stage = Stage::Ended;
        let terminal_age = state.plan.terminal_age;
        drop(guard);
        self.memory().cache.insert(key.job().clone(), last, terminal_age);
        self.memory().relieve();
        Followed::Over
    }
}

/// The entry, unless nobody subscribes to it any more.
fn entry_of<'a>(state: &'a mut State, key: &JobKey) -> Option<&'a mut JobEntry> {
    let entry = state.jobs.get_mut(key.number)?;
    (Arc::ptr_eq(&entry.shared, &key.shared) && !entry.subscribers.is_empty()).then_some(entry)
}

fn followed(state: &State, number: usize, is_due: bool, now: Instant) -> FollowedJob {
    let entry = &state.jobs[number];
    let needs_poll = entry.waiting.as_ref().is_some_and(|waiting| waiting.needs_poll);
    let asks = needs_poll || is_due && entry.shared.record().latest.is_some();
    if asks {
        entry.shared.record().is_asked = true;
    }
    // Not when it is asked for again here: when it would have been polled.
    let observed = {
        let record = entry.shared.record();
        record.latest.as_ref().map(|latest| latest.at).filter(|_| record.outcome == PollOutcome::Observed)
    };
    let due = observed.filter(|_| !asks).map_or(now, |at| at + state.interval(entry, now));
    FollowedJob {
        key: JobKey { number, shared: Arc::clone(&entry.shared) },
        parts: entry.wanted_parts(),
        interval: entry.subscribers.iter().filter_map(Subscriber::interval).min(),
        asks,
        due_in: due.saturating_duration_since(now),
        unchanged: now.saturating_duration_since(entry.changed_at),
    }
}

/// Whether an observation may follow what is known. Two of one observer are numbered by it.
/// One of another observer may be older, unless its poll began after the job was registered.
fn is_newer(entry: &JobEntry, observed: Observed, began_since: bool, is_terminal: bool) -> bool {
    let record = entry.shared.record();
    let Some(latest) = &record.latest else { return true };
    match &latest.observed {
        Some(known) if known.observer == observed.observer => known.sequence <= observed.sequence,
        _ => began_since || is_terminal,
    }
}
