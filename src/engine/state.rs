//! Everything that is known about one backend's jobs, under one lock.
//!
//! With one lock, subscribing, unsubscribing, taking a batch and publishing an answer are
//! one step each: a job that is subscribed to while its last subscriber leaves is either
//! the old entry or a new one, never one that nobody polls.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    Pause,
    admission::OwnersQueue,
    batching::BatchLimit,
    budget::Memory,
    cache::{RetainedJobs, refresh_horizon},
    circuit_breaker::CircuitBreaker,
    history::{Phase, RecentEvents},
    intervals::PollInterval,
    isolation::{Isolation, Verdict},
    job_table::{Interruption, JobEntry, JobTable, LatestStatus, PollOutcome, Stage, Waiting},
    poll::Taken,
    quarantine::Quarantine,
    scheduler::{Class, Due, Scheduler},
};
use crate::{
    job::{BackendFault, JobRef},
    transport::Backoff,
};

/// Most jobs that one look at the schedule goes through.
pub(super) const LOOKED_AT: usize = 4096;

/// Jobs that fail alone, one after the other and with no success in between, before the
/// next one counts as the backend's failure.
const LONE_FAILURES_OF_A_BACKEND: usize = 3;

/// Where jobs are put that failed with their backend, so that the next attempt is made
/// with others.
const BEHIND_THE_OTHERS: Duration = Duration::from_millis(10);

/// How a backend is polled.
#[derive(Clone, Copy, Debug)]
pub struct PollPlan {
    /// How often a job is polled.
    pub interval: PollInterval,
    /// How failures are spaced.
    pub backoff: Backoff,
    /// How long a new poll waits for other jobs to share it.
    pub collection_window: Duration,
    /// Most jobs in one poll.
    pub max_batch: NonZeroUsize,
    /// Most polls in flight.
    pub max_concurrency: NonZeroUsize,
    /// Most requests in any second.
    pub requests_per_second: NonZeroU32,
    /// How long a terminal status is cached at most, where a job may run again after its
    /// end.
    pub terminal_age: Option<Duration>,
}

/// What is known about one backend's jobs.
#[derive(Debug)]
pub(super) struct State {
    pub(super) plan: PollPlan,
    memory: Arc<Memory>,
    pub(super) jobs: JobTable,
    pub(super) scheduler: Scheduler,
    pub(super) retained: RetainedJobs,
    pub(super) isolation: Isolation<Taken>,
    pub(super) quarantine: Quarantine,
    pub(super) breaker: CircuitBreaker,
    pub(super) batch_limit: BatchLimit,
    pub(super) stats: Stats,
    /// What ended or failed lately, for operators.
    pub(super) recent: RecentEvents,
    /// Jobs that failed alone for the first time since anything succeeded.
    lone_failures: usize,
    /// More was due than could be polled when the last answer came.
    pub(super) is_overloaded: bool,
    /// Until when calls that wait are collected for one poll.
    pub(super) window_ends: Option<Instant>,
    /// The last part of a failed batch was polled just now: it is the others' turn.
    pub(super) isolation_had_its_turn: bool,
    pub(super) sharing: Sharing,
}

/// How the backend is shared with other replicas; not at all by default.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    /// Another replica polls the backend for this one.
    pub(super) is_following: bool,
    /// What waits at that one.
    pub(super) owners_queue: Option<OwnersQueue>,
    /// This one has no part of the rate of all replicas now.
    pub(super) has_no_part: bool,
}

/// Figures about one backend.
#[derive(Clone, Debug)]
pub(super) struct Stats {
    /// Jobs with subscribers.
    pub(super) subscribed: usize,
    pub(super) last_fault: Option<BackendFault>,
    pub(super) last_success: Option<(Instant, Timestamp)>,
    /// Polls that failed since the last success.
    pub(super) failures_in_a_row: u32,
    /// How long an answer takes, as a moving average.
    pub(super) latency: Duration,
}

impl State {
    pub(super) fn new(plan: PollPlan, memory: Arc<Memory>) -> Self {
        Self {
            plan,
            memory,
            jobs: JobTable::default(),
            scheduler: Scheduler::default(),
            retained: RetainedJobs::default(),
            isolation: Isolation::default(),
            quarantine: Quarantine::new(plan.requests_per_second, plan.max_concurrency),
            breaker: CircuitBreaker::new(plan.backoff),
            batch_limit: BatchLimit::new(plan.max_batch.get()),
            stats: Stats {
                subscribed: 0,
                last_fault: None,
                last_success: None,
                failures_in_a_row: 0,
                latency: Duration::ZERO,
            },
            recent: RecentEvents::default(),
            lone_failures: 0,
            is_overloaded: false,
            window_ends: None,
            isolation_had_its_turn: false,
            sharing: Sharing::default(),
        }
    }

    /// Adds a job, to be polled at once; `None` where there are as many as there may be.
    pub(super) fn insert(&mut self, job: &JobRef, now: Instant) -> Option<usize> {
        // Retained jobs make room for those with subscribers.
        while !self.memory.add_job() {
            if !self.evict_first() {
                return None;
            }
        }
        let number = self.jobs.insert(job, self.quarantine.contains(job), now);
        self.schedule(number, now);
        Some(number)
    }

    /// Forgets a job.
    pub(super) fn remove(&mut self, number: usize) -> JobEntry {
        self.scheduler.remove(number);
        self.memory.remove_jobs(1);
        self.jobs.remove(number)
    }

    /// Schedules a poll for `at`; at once where a call waits.
    pub(super) fn schedule(&mut self, number: usize, at: Instant) {
        self.jobs[number].stage = Stage::Scheduled;
        self.scheduler.schedule(number, at);
        if self.jobs[number].waiting.is_some() {
            let due = due_of(&mut self.jobs[number], at);
            self.scheduler.make_ready(number, at, due);
        }
    }

    /// Schedules a poll for `at`, if one is scheduled for later.
    pub(super) fn schedule_no_later(&mut self, number: usize, at: Instant) {
        if self.scheduler.due_at(number).is_some_and(|due| at < due) {
            self.schedule(number, at);
        }
    }

    /// A call waits for this job: it is queued as such, unless a poll is in flight. The
    /// first call that is queued waits for others to share its poll.
    pub(super) fn wait_for(&mut self, number: usize, waiting: Waiting, now: Instant) {
        self.jobs[number].wait_for(waiting);
        if !matches!(self.jobs[number].stage, Stage::Scheduled) {
            return;
        }
        let due = due_of(&mut self.jobs[number], now);
        self.scheduler.make_ready(number, now, due);
        if due.class == Class::Waiting {
            self.window_ends.get_or_insert(now + self.plan.collection_window);
        }
    }

    /// Whether calls that wait are to be polled now, or else when.
    pub(super) fn waiting_ready(&self, now: Instant) -> Result<bool, Instant> {
        let is_full = self.scheduler.waiting() >= self.batch_limit.get();
        match self.window_ends.filter(|at| *at > now && !is_full) {
            Some(at) if self.scheduler.has(Class::Waiting) => Err(at),
            _ => Ok(self.scheduler.has(Class::Waiting)),
        }
    }

    /// Moves what has become due to the ready queues.
    pub(super) fn advance(&mut self, now: Instant) {
        let jobs = &mut self.jobs;
        self.scheduler.advance(now, |number| due_of(&mut jobs[number], now));
    }

    /// The entry of a job that was taken, unless it was forgotten since.
    pub(super) fn taken(&mut self, taken: &Taken) -> Option<&mut JobEntry> {
        let entry = self.jobs.get_mut(taken.number)?;
        Arc::ptr_eq(&entry.shared, &taken.shared).then_some(entry)
    }

    /// The same, and forgets a job that nobody subscribes to any more.
    pub(super) fn taken_with_subscribers(&mut self, taken: &Taken) -> Option<&mut JobEntry> {
        if self.taken(taken)?.subscribers.is_empty() {
            self.remove(taken.number);
            return None;
        }
        self.taken(taken)
    }

    /// How long until the next poll of a job that was answered.
    pub(super) fn interval(&self, entry: &JobEntry, now: Instant) -> Duration {
        let wanted = entry.subscribers.iter().filter_map(super::subscription::Subscriber::interval).min();
        self.interval_of(entry, wanted, now)
    }

    /// The same, where `wanted` is the longest interval that its subscribers accept.
    pub(super) fn interval_of(&self, entry: &JobEntry, wanted: Option<Duration>, now: Instant) -> Duration {
        if self.is_overloaded {
            // Every job waits equally long.
            return self.plan.interval.max;
        }
        self.plan.interval.next(now.saturating_duration_since(entry.changed_at), wanted)
    }

    /// How long the job has been due that has been due longest.
    pub(super) fn lag(&self, now: Instant) -> Duration {
        self.scheduler.overdue_since().map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Whether a job that was never polled will be by `deadline`, though the backend is
    /// paused because it refused others.
    pub(super) fn polls_new_jobs_by(&self, deadline: Instant, now: Instant) -> bool {
        let before = u32::try_from(self.scheduler.waiting()).unwrap_or(u32::MAX);
        let first = self.quarantine.next_poll(now).unwrap_or(now);
        first + self.quarantine.spacing() * before + self.stats.latency <= deadline
    }

    /// Has such jobs polled at once that are due later.
    pub(super) fn poll_at_once(&mut self, which: impl Fn(&JobEntry) -> bool, now: Instant) {
        let numbers = self.scheduler.timers().map(|(_, number)| number);
        let numbers: Vec<usize> = numbers.filter(|number| which(&self.jobs[*number])).collect();
        for number in numbers {
            self.schedule_no_later(number, now);
        }
    }

    /// Retains a job without subscribers, or forgets it where there is nothing to retain.
    pub(super) fn retain(&mut self, number: usize, now: Instant) {
        let Some(job) = self.jobs[number].as_retained().filter(|job| job.expires_at > now) else {
            self.remove(number);
            return;
        };
        self.scheduler.remove(number);
        self.jobs[number].stage = Stage::Retained;
        self.retained.insert(number, job);
        while self.retained.is_over() && self.evict_first() {}
    }

    /// Takes a retained job out of the indexes, for another stage.
    pub(super) fn revive(&mut self, number: usize) {
        if let Some(job) = self.jobs[number].as_retained() {
            self.retained.remove(number, job);
        }
    }

    /// Forgets the retained job that expires first. Returns whether there was one.
    pub(super) fn evict_first(&mut self) -> bool {
        let Some((_, first)) = self.retained.first() else { return false };
        self.revive(first);
        self.remove(first);
        true
    }

    /// Forgets retained jobs that have expired.
    pub(super) fn expire(&mut self, now: Instant) {
        while self.retained.first().is_some_and(|(expires_at, _)| expires_at <= now) {
            self.evict_first();
        }
    }

    /// What is known of a job, if it is at most `max_age` old. It is retained a while
    /// longer.
    pub(super) fn recent(&mut self, job: &JobRef, max_age: Duration, now: Instant) -> Option<LatestStatus> {
        let number = self.jobs.find(job)?;
        let latest = self.jobs[number].undenied()?;
        if now.saturating_duration_since(latest.at) > max_age {
            return None;
        }
        let is_retained = matches!(self.jobs[number].stage, Stage::Retained);
        if is_retained {
            self.revive(number);
        }
        self.jobs[number].requested_with(max_age, now);
        if is_retained {
            self.retain(number, now);
        }
        Some(latest)
    }

    /// At most `room` retained jobs for a poll that is sent anyway.
    pub(super) fn refresh_retained(&mut self, room: usize, now: Instant) -> Vec<usize> {
        let jobs = &self.jobs;
        let stale = self.retained.stale_before(refresh_horizon(now)).take(LOOKED_AT);
        let numbers: Vec<usize> =
            stale.filter(|number| jobs[*number].is_worth_a_refresh(now)).take(room).collect();
        for number in &numbers {
            self.revive(*number);
        }
        numbers
    }

    /// A poll was answered, whatever it said about its jobs. Returns whether that ends a
    /// series of failures.
    pub(super) fn backend_answered(&mut self, jobs: usize, began: Instant, now: Instant, dice: f64) -> bool {
        let latency = now.saturating_duration_since(began);
        let stats = &mut self.stats;
        stats.latency = if stats.latency.is_zero() { latency } else { (stats.latency * 7 + latency) / 8 };
        (stats.last_fault, stats.failures_in_a_row) = (None, 0);
        stats.last_success = Some((now, Timestamp::now()));
        self.lone_failures = 0;
        self.is_overloaded = self.lag(now) > self.plan.interval.max;
        self.batch_limit.succeeded(jobs);
        for suspect in self.isolation.something_succeeded() {
            if let Some(fault) = suspect.fault.clone() {
                self.quarantine_job(&suspect, &fault, now, dice);
            }
        }
        self.breaker.succeeded()
    }

    /// Nothing is known to fail.
    pub(super) fn forget_failures(&mut self) {
        let Stats { subscribed, last_success, .. } = self.stats;
        self.stats = Stats {
            subscribed,
            last_fault: None,
            last_success,
            failures_in_a_row: 0,
            latency: Duration::ZERO,
        };
        self.lone_failures = 0;
        (self.is_overloaded, self.isolation_had_its_turn, self.window_ends) = (false, false, None);
    }

    /// Notes what a poll failed with.
    pub(super) fn note_fault(&mut self, fault: &BackendFault) {
        self.stats.last_fault = Some(fault.without_vendor_message());
        self.stats.failures_in_a_row = self.stats.failures_in_a_row.saturating_add(1);
    }

    /// Whether another poll has succeeded since `began`.
    pub(super) fn succeeded_since(&self, began: Instant) -> bool {
        self.stats.last_success.is_some_and(|(at, _)| at > began)
    }

    /// Whether a job that failed alone, with nothing succeeding beside it, is taken for the
    /// reason itself. A few are; then the backend is, unless others are still answered.
    pub(super) fn is_own_fault(&mut self, taken: &Taken) -> bool {
        self.lone_failures += 1;
        if self.lone_failures <= LONE_FAILURES_OF_A_BACKEND {
            return true;
        }
        let was_answered = self.taken(taken).is_some_and(|entry| entry.is_answered());
        !was_answered && self.any_is_answered()
    }

    fn any_is_answered(&self) -> bool {
        // That a job has ended says nothing of the backend now.
        let is_polled =
            |entry: &JobEntry| !entry.subscribers.is_empty() && !matches!(entry.stage, Stage::Ended);
        let subscribed = self.jobs.iter().filter(|(_, entry)| is_polled(entry));
        subscribed.take(LOOKED_AT).any(|(_, entry)| entry.is_answered())
    }

    /// A job failed alone: it is quarantined, or stays so, and is polled again by its own
    /// back-off.
    pub(super) fn quarantine_job(&mut self, taken: &Taken, fault: &BackendFault, now: Instant, dice: f64) {
        let failures = self.quarantine.failed(taken.job());
        let at = now + self.plan.backoff.wait(failures, dice);
        let Some(entry) = self.taken_with_subscribers(taken) else { return };
        entry.quarantined = true;
        entry.suspect = false;
        entry.interrupted(&Interruption::new(fault.clone(), at, now));
        let before = entry.history.phase();
        entry.history.enter(Phase::Failing, Timestamp::now);
        self.schedule(taken.number, at);
        self.note_phase(taken.number, before);
    }

    /// Keeps what a job has come to for operators, if it is an end or a failure.
    pub(super) fn note_phase(&mut self, number: usize, before: Phase) {
        let Some(entry) = self.jobs.get(number) else { return };
        if entry.history.phase() == before {
            return;
        }
        let record = entry.shared.record();
        let fault = match &record.outcome {
            PollOutcome::Interrupted(interruption) => Some(&interruption.fault),
            _ => None,
        };
        self.recent.add_phase(&entry.shared.job, &entry.history, fault);
    }

    /// Puts these jobs off until the end of the pause, and sends their subscribers its
    /// reason.
    pub(super) fn interrupt(&mut self, jobs: Vec<Taken>, pause: &Pause, now: Instant) {
        let interruption = Interruption::of_pause(pause, now);
        for taken in jobs {
            let Some(entry) = self.taken(&taken) else { continue };
            if entry.subscribers.is_empty() {
                self.retain(taken.number, now);
                continue;
            }
            entry.interrupted(&interruption);
            self.schedule(taken.number, pause.until + BEHIND_THE_OTHERS);
        }
    }

    /// Suspects that no poll in flight or to come would resolve are polled again alone.
    pub(super) fn release_suspects(&mut self, now: Instant) {
        for suspect in self.isolation.abandoned_suspects() {
            let (Some(entry), Some(fault)) = (self.taken(&suspect), suspect.fault.clone()) else { continue };
            entry.suspect = true;
            let until = now + self.plan.backoff.min;
            self.interrupt(vec![suspect], &Pause { until, fault }, now);
        }
    }

    /// The backend is not polled for a while: what was to be isolated waits with the rest.
    pub(super) fn stop_isolation(&mut self, pause: &Pause, now: Instant) {
        if !self.isolation.is_active() {
            return;
        }
        if let Verdict::Outage { mut jobs, suspects } = self.isolation.outage() {
            for suspect in &suspects {
                if let Some(entry) = self.taken(suspect) {
                    entry.suspect = true;
                }
            }
            jobs.extend(suspects);
            self.interrupt(jobs, pause, now);
        }
    }

    /// Has all jobs of failed batches scheduled.
    pub(super) fn end_isolation(&mut self, now: Instant) {
        let Verdict::Outage { mut jobs, suspects } = self.isolation.outage() else { return };
        jobs.extend(suspects);
        for taken in jobs {
            if self.taken_with_subscribers(&taken).is_some() {
                self.schedule(taken.number, now);
            }
        }
    }

    /// After an outage, jobs that could not be polled are due at once.
    pub(super) fn resume(&mut self, now: Instant) {
        let interrupted = |number: &usize| {
            let entry = &self.jobs[*number];
            !entry.quarantined && entry.failures == 0 && entry.is_interrupted()
        };
        let waiting: Vec<usize> =
            self.scheduler.timers().map(|(_, number)| number).filter(interrupted).take(LOOKED_AT).collect();
        for number in waiting {
            self.schedule_no_later(number, now);
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.memory.remove_jobs(self.jobs.len());
    }
}

fn due_of(entry: &mut JobEntry, now: Instant) -> Due {
    entry.turn = entry.turn.wrapping_add(1);
    let of_subscriber = entry.subscribers.caller(entry.turn).unwrap_or_default();
    let (caller, deadline) =
        entry.waiting.as_ref().map_or((of_subscriber, now), |waiting| (waiting.caller, waiting.deadline));
    Due { class: entry.class(), caller, deadline }
}
