//! One poll: a request for one or more jobs, and what becomes of them.

use std::{mem, sync::Arc};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    Pause,
    backend::Backend,
    history::Phase,
    isolation::Verdict,
    job_table::{Interruption, LatestStatus, Moment, Reading, SharedJob, Stage},
    planner::Kind,
    state::State,
};
use crate::{
    job::{BackendFault, FaultKind, JobFault, JobRef, Parts, PayloadHash, StandbyFault::NeedsJobTag},
    telemetry::traces::{ActivePoll, PollSpan},
};

mod in_flight;

pub(super) use in_flight::InFlightPoll;

/// One job of a batch.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) number: usize,
    pub(super) shared: Arc<SharedJob>,
    /// What it failed with, alone.
    pub(super) fault: Option<BackendFault>,
}

impl Taken {
    pub(super) fn job(&self) -> &JobRef {
        &self.shared.job
    }
}

/// What is known of a job before its element is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// Of the payload of its latest status, unless that has to be read again.
    pub(super) payload_hash: Option<PayloadHash>,
    /// The parts of a status that its subscribers are shown.
    pub(super) parts: Parts,
}

/// What an answer said about one job.
pub(super) type Answer = Result<Reading, JobFault>;

/// What a failed poll says about whose fault it is, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    /// Not known yet, or known before.
    Nobody,
    /// This job's.
    Job,
    /// The backend's.
    Backend {
        /// Failures in a row.
        failures: u32,
    },
}

/// Jobs that are polled together. What is not answered when this is dropped goes back to
/// the schedule.
#[derive(Debug)]
pub(super) struct Batch {
    backend: Arc<Backend>,
    poll: Arc<InFlightPoll>,
    jobs: Vec<Taken>,
    kind: Kind,
    began: Instant,
    /// Where polls are traced.
    active: Option<ActivePoll>,
}

impl Batch {
    /// Takes the next batch, if there is one.
    pub(super) fn take(backend: &Arc<Backend>, now: Instant, dice: f64) -> Option<Self> {
        let mut guard = backend.state();
        let state = &mut *guard;
        if state.sharing.is_following {
            return None;
        }
        let planned = super::planner::next(state, now, dice)?;
        let polled = planned.jobs.len() + planned.refreshed.len();
        let active = backend.tracer().map(|tracer| tracer.begin_poll(backend.name(), polled));
        let poll = InFlightPoll::new(planned.jobs.len(), active.as_ref().map(|poll| poll.span().clone()));
        let mut jobs = Vec::with_capacity(polled);
        for number in planned.jobs.into_iter().chain(planned.refreshed) {
            let entry = &mut state.jobs[number];
            if let Some(span) = poll.span() {
                entry.serve_waiters(span);
            }
            entry.stage = Stage::InFlight(Arc::clone(&poll));
            entry.polled_at = Some(now);
            if let Some(waiting) = &entry.waiting {
                backend.metrics().call_queued(now.saturating_duration_since(waiting.since));
            }
            jobs.push(Taken { number, shared: Arc::clone(&entry.shared), fault: None });
        }
        match planned.kind {
            Kind::Probe => state.breaker.probe_started(),
            Kind::Quarantined => state.quarantine.poll_started(),
            Kind::Regular | Kind::Part(_) | Kind::NeverPolled => {}
        }
        drop(guard);
        Some(Self { backend: Arc::clone(backend), poll, jobs, kind: planned.kind, began: now, active })
    }

    /// The jobs, in the order in which they are asked for.
    pub(super) fn jobs(&self) -> Vec<JobRef> {
        self.jobs.iter().map(|taken| taken.job().clone()).collect()
    }

    /// Calls and watches that are subscribed to the jobs.
    pub(super) fn subscribers(&self) -> usize {
        let mut state = self.backend.state();
        let of = |taken| state.taken(taken).map_or(0, |entry| entry.subscribers.iter().count());
        self.jobs.iter().map(of).sum()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// The poll's span, if it is traced.
    pub(super) fn span(&self) -> Option<&PollSpan> {
        self.poll.span()
    }

    /// The poll has ended: "ok" or the reason of the fault.
    pub(super) fn note_end(&self, outcome: &'static str) {
        let subscribers = self.subscribers();
        self.backend.metrics().poll_ended(outcome, self.began.elapsed(), subscribers);
        if let Some(active) = &self.active {
            active.end(outcome, subscribers);
        }
    }

    /// When it was taken.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// The poll, which is cancelled when nobody subscribes to any of the jobs any more.
    pub(super) fn in_flight(&self) -> &Arc<InFlightPoll> {
        &self.poll
    }

    /// What is known of each job, to compare its element with.
    pub(super) fn known(&self) -> Vec<Known> {
        let mut state = self.backend.state();
        let mut known = |taken: &Taken| {
            let Some(entry) = state.taken(taken) else {
                return Known { payload_hash: None, parts: Parts::NONE };
            };
            let refill = mem::take(&mut entry.refill);
            let record = entry.shared.record();
            let latest = record.latest.as_ref();
            let kept = latest.map_or(Parts::NONE, |latest| latest.snapshot.held());
            let parts = if entry.subscribers.is_empty() { kept } else { entry.wanted_parts() };
            Known { payload_hash: latest.map(|latest| latest.payload_hash).filter(|_| !refill), parts }
        };
        self.jobs.iter().map(&mut known).collect()
    }

    /// The vendor answered. Returns whether that ended a series of failures.
    pub(super) fn answered(mut self, answers: Vec<Answer>, dice: f64) -> bool {
        let moment = Moment {
            began: self.began,
            at: Instant::now(),
            time: Timestamp::now(),
            observed: None,
            answers: true,
        };
        let now = moment.at;
        let backend = Arc::clone(&self.backend);
        let mut guard = backend.state();
        let state = &mut *guard;
        let jobs = mem::take(&mut self.jobs);
        let is_alone = jobs.len() == 1;
        // A job that was not asked for says nothing of the backend.
        let says_something = |answer: &Answer| !matches!(answer, Err(JobFault::Standby(NeedsJobTag)));
        let recovered = if answers.iter().any(says_something) {
            let recovered = state.backend_answered(jobs.len(), self.began, now, dice);
            if let Kind::Part(split) = self.kind {
                state.isolation.part_answered(split);
            }
            recovered
        } else {
            if let Kind::Part(split) = self.kind {
                state.isolation.part_dropped(split);
            }
            state.stats.last_fault = Some(NeedsJobTag.into());
            false
        };
        let mut terminal = Vec::new();
        for (taken, answer) in jobs.into_iter().zip(answers) {
            let Some(entry) = state.taken(&taken) else {
                // Nobody subscribes any more, but the next to ask shall know the end.
                if let Ok(Reading::Read(snapshot, payload_hash)) = answer
                    && snapshot.is_terminal()
                {
                    let Moment { began, at, time, .. } = moment;
                    let snapshot = Arc::new(snapshot);
                    let latest = LatestStatus { snapshot, time, at, began, payload_hash, observed: None };
                    terminal.push((taken.job().clone(), latest));
                }
                continue;
            };
            let before = entry.history.phase();
            if entry.subscribers.is_empty() {
                let Ok(reading) = answer else {
                    state.remove(taken.number);
                    continue;
                };
                if let Some(last) = entry.observed(reading, moment) {
                    state.note_phase(taken.number, before);
                    state.remove(taken.number);
                    terminal.push((taken.job().clone(), last));
                } else {
                    state.retain(taken.number, now);
                }
                continue;
            }
            terminal.extend(publish(state, &taken, answer, is_alone, moment, dice));
            state.note_phase(taken.number, before);
        }
        if recovered {
            state.resume(now);
        }
        if let Some(jobs) = state.isolation.finish() {
            state.batch_limit.failed_in_whole(jobs);
        }
        let terminal_age = state.plan.terminal_age;
        drop(guard);
        for (job, last) in terminal {
            backend.memory().cache.insert(job, last, terminal_age);
        }
        backend.memory().relieve();
        recovered
    }

    /// The poll failed: it said nothing about the jobs.
    pub(super) fn failed(mut self, fault: &BackendFault, dice: f64) -> Blame {
        let now = Instant::now();
        let backend = Arc::clone(&self.backend);
        let mut guard = backend.state();
        let state = &mut *guard;
        if fault.kind != FaultKind::Overloaded {
            state.note_fault(fault);
        }
        let mut jobs = mem::take(&mut self.jobs);
        if fault.kind == FaultKind::TooLarge && jobs.len() > 1 {
            state.batch_limit.too_large(jobs.len());
        }
        // What was refreshed beside the others is forgotten: it may be the reason.
        let ambiguous = !fault.concerns_backend();
        let polled = jobs.len();
        jobs.retain(|taken| match state.taken(taken) {
            Some(entry) if entry.subscribers.is_empty() && ambiguous => {
                state.remove(taken.number);
                false
            }
            entry => entry.is_some(),
        });
        let blame = match (self.kind, &mut jobs[..]) {
            (Kind::Part(split), []) => {
                state.isolation.part_dropped(split);
                Blame::Nobody
            }
            (_, []) => Blame::Nobody,
            _ if fault.kind == FaultKind::Overloaded => {
                // The gateway's own memory is short: that says nothing of the backend.
                if let Kind::Part(split) = self.kind {
                    state.isolation.part_dropped(split);
                }
                let until = now + state.plan.backoff.wait(1, dice);
                state.interrupt(jobs, &Pause { until, fault: fault.clone() }, now);
                Blame::Nobody
            }
            (kind, _) if !ambiguous => {
                if let Kind::Part(split) = kind {
                    state.isolation.part_dropped(split);
                }
                self.backend_failed(state, jobs, fault, now, dice)
            }
            (Kind::Probe, _) => self.backend_failed(state, jobs, fault, now, dice),
            (Kind::Regular | Kind::Quarantined | Kind::NeverPolled, [taken]) => {
                let known = state.quarantine.contains(taken.job());
                let own = known
                    || self.kind == Kind::NeverPolled
                    || state.succeeded_since(self.began)
                    || state.is_own_fault(taken);
                if own {
                    state.quarantine_job(taken, fault, now, dice);
                    if known { Blame::Nobody } else { Blame::Job }
                } else {
                    self.backend_failed(state, jobs, fault, now, dice)
                }
            }
            _ => {
                let some_are_forgotten = jobs.len() < polled;
                let blame = self.isolate(state, jobs, fault, now, dice);
                if some_are_forgotten {
                    state.isolation.may_be_another_job();
                }
                blame
            }
        };
        if let Some(jobs) = state.isolation.finish() {
            state.batch_limit.failed_in_whole(jobs);
        }
        drop(guard);
        backend.changed();
        blame
    }

    fn isolate(
        &self,
        state: &mut State,
        mut jobs: Vec<Taken>,
        fault: &BackendFault,
        now: Instant,
        dice: f64,
    ) -> Blame {
        for taken in &mut jobs {
            taken.fault = Some(fault.clone());
            if let Some(entry) = state.taken(taken) {
                entry.stage = Stage::Isolating;
            }
        }
        let succeeded_since = state.succeeded_since(self.began);
        let split = if let Kind::Part(split) = self.kind { Some(split) } else { None };
        let verdict = state.isolation.failed(jobs, split, succeeded_since);
        match verdict {
            Verdict::Pending => Blame::Nobody,
            Verdict::Quarantine(taken) => {
                state.quarantine_job(&taken, fault, now, dice);
                Blame::Job
            }
            Verdict::Outage { mut jobs, suspects } => {
                let until = state.breaker.trip(fault, self.began, now, dice);
                for suspect in &suspects {
                    if let Some(entry) = state.taken(suspect) {
                        entry.suspect = true;
                    }
                }
                jobs.extend(suspects);
                state.batch_limit.slow_start();
                let fault = fault.without_vendor_message();
                state.interrupt(jobs, &Pause { until, fault }, now);
                Blame::Backend { failures: state.breaker.failures() }
            }
        }
    }

    fn backend_failed(
        &self,
        state: &mut State,
        jobs: Vec<Taken>,
        fault: &BackendFault,
        now: Instant,
        dice: f64,
    ) -> Blame {
        let fault = if jobs.len() > 1 || fault.concerns_backend() {
            fault.clone()
        } else {
            fault.without_vendor_message()
        };
        let until = state.breaker.failed(&fault, self.began, now, dice);
        let pause = Pause { until, fault };
        state.interrupt(jobs, &pause, now);
        if state.breaker.is_open() {
            state.batch_limit.slow_start();
        }
        Blame::Backend { failures: state.breaker.failures() }
    }
}

/// Publishes what was said about a job that has subscribers, and schedules its next poll.
/// Returns a terminal status.
fn publish(
    state: &mut State,
    taken: &Taken,
    answer: Answer,
    is_alone: bool,
    moment: Moment,
    dice: f64,
) -> Option<(JobRef, LatestStatus)> {
    let now = moment.at;
    let interval = state.plan.interval;
    let entry = state.taken(taken)?;
    entry.suspect = false;
    let at = match answer {
        Ok(reading) => {
            let was_quarantined = entry.quarantined;
            let last = entry.observed(reading, moment);
            if was_quarantined && state.quarantine.succeeded(taken.job()) {
                state.jobs[taken.number].quarantined = false;
            }
            let entry = &mut state.jobs[taken.number];
            // Somebody subscribed while the answer was read who is shown more of it.
            entry.refill = entry.refill && !entry.holds_wanted_parts();
            entry.drop_unwanted_parts(now);
            let at = if entry.refill { now } else { now + state.interval(&state.jobs[taken.number], now) };
            if let Some(last) = last {
                if state.jobs[taken.number].refill {
                    state.schedule(taken.number, at);
                } else {
                    state.jobs[taken.number].stage = Stage::Ended;
                }
                return Some((taken.job().clone(), last));
            }
            at
        }
        // A response that leaves out a job which was there before may be short because of
        // another job of the batch: it is polled alone.
        Err(JobFault::NotFound) if !is_alone && entry.shared.record().latest.is_some() => {
            entry.suspect = true;
            now + interval.min
        }
        Err(JobFault::NotFound) => {
            // It stays alone until it is there again or gone.
            entry.suspect = entry.shared.record().latest.is_some();
            entry.missing();
            now + interval.min
        }
        Err(JobFault::Invalid { message }) => {
            entry.invalid(message);
            now + interval.max
        }
        Err(JobFault::Forbidden) => fail_alone(state, taken, FaultKind::Forbidden.into(), now, dice),
        Err(JobFault::Malformed { why }) => {
            fail_alone(state, taken, FaultKind::Malformed { why }.into(), now, dice)
        }
        Err(JobFault::Standby(fault)) => fail_alone(state, taken, fault.into(), now, dice),
    };
    state.schedule(taken.number, at);
    None
}

/// The backend answered, but said nothing about this job. Returns when it is polled again.
fn fail_alone(state: &mut State, taken: &Taken, fault: BackendFault, now: Instant, dice: f64) -> Instant {
    let backoff = state.plan.backoff;
    let entry = &mut state.jobs[taken.number];
    entry.failures = entry.failures.saturating_add(1);
    let at = now + backoff.wait(entry.failures, dice);
    entry.interrupted(&Interruption::new(fault, at, now));
    entry.history.enter(Phase::Failing, Timestamp::now);
    at
}

impl Drop for Batch {
    fn drop(&mut self) {
        // Jobs are left only by a poll that was cancelled or has panicked, and when the
        // backend is stopped.
        let now = Instant::now();
        let mut guard = self.backend.state();
        let state = &mut *guard;
        match self.kind {
            Kind::Probe => state.breaker.probe_ended(),
            Kind::Quarantined => state.quarantine.poll_ended(self.began, now),
            Kind::Regular | Kind::Part(_) | Kind::NeverPolled => {}
        }
        let jobs = mem::take(&mut self.jobs);
        if let Kind::Part(split) = self.kind
            && !jobs.is_empty()
        {
            state.isolation.part_dropped(split);
        }
        let at = now + state.plan.interval.max;
        let has_panicked = std::thread::panicking();
        for taken in jobs {
            let Some(entry) = state.taken(&taken) else { continue };
            match (entry.subscribers.is_empty(), has_panicked) {
                (true, false) => state.retain(taken.number, now),
                (true, true) => drop(state.remove(taken.number)),
                // Somebody subscribed just as the last of the others had left.
                (false, false) => state.schedule(taken.number, now),
                (false, true) => {
                    let why = "reading it failed in the gateway";
                    entry.interrupted(&Interruption::new(FaultKind::Malformed { why }.into(), at, now));
                    state.schedule(taken.number, at);
                }
            }
        }
        drop(guard);
        self.backend.changed();
    }
}
