//! One backend: who subscribes to its jobs, and what that schedules.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::{
    Admission, Clock, Interest, Pause, Purpose, Refusal, Report, Subscription,
    allowance::Concurrency,
    budget::Memory,
    job_table::{Interruption, JobEntry, LatestStatus, PollOutcome, Stage, Waiting},
    state::{PollPlan, State},
    subscription::{AtBegin, Subscriber},
};
use crate::{
    job::{BackendFault, JobRef, Observed, Parts},
    telemetry::{
        metrics::{BackendMetrics, metrics},
        traces::Tracer,
    },
    transport::RateLimiter,
};

mod lasting;

use lasting::Lasting;

/// How long a watch may wait for its first status before other calls come first.
pub(super) const FIRST_STATUS: Duration = Duration::from_mins(2);

/// One backend: its jobs and its limits.
#[derive(Debug)]
pub struct Backend {
    name: Arc<str>,
    rate_limiter: Arc<RateLimiter>,
    memory: Arc<Memory>,
    clock: Clock,
    state: Mutex<State>,
    changed: Notify,
    /// It is polled by this replica again.
    pub(super) polls_again: Notify,
    /// This replica's part of `max_concurrency`, where there are several.
    pub(super) concurrency: Concurrency,
    metrics: Arc<BackendMetrics>,
    tracer: Option<Tracer>,
    lasting: Mutex<Lasting>,
}

impl Backend {
    pub(super) fn new(
        name: Arc<str>,
        plan: PollPlan,
        rate_limiter: Arc<RateLimiter>,
        memory: Arc<Memory>,
        clock: Clock,
        tracer: Option<Tracer>,
    ) -> Arc<Self> {
        let backend = Arc::new(Self {
            metrics: metrics().backend(&name),
            clock,
            tracer,
            lasting: Mutex::default(),
            name,
            rate_limiter,
            state: Mutex::new(State::new(plan, Arc::clone(&memory))),
            memory,
            changed: Notify::new(),
            polls_again: Notify::new(),
            concurrency: Concurrency::default(),
        });
        backend.memory.add_backend(&backend);
        backend
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    pub(super) fn rate_limiter(&self) -> &Arc<RateLimiter> {
        &self.rate_limiter
    }

    pub(super) fn metrics(&self) -> &BackendMetrics {
        &self.metrics
    }

    /// Traces polls, if there are traces.
    pub(super) fn tracer(&self) -> Option<&Tracer> {
        self.tracer.as_ref()
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(super) fn plan(&self) -> PollPlan {
        self.state().plan
    }

    /// The number of a status, as resume tokens have it.
    pub fn observed(&self, latest: &LatestStatus) -> Observed {
        match &latest.observed {
            Some(observed) => **observed,
            None => Observed { observer: self.clock.observer, sequence: self.clock.sequence(latest.began) },
        }
    }

    /// Sets how long a new poll waits for others, where polls can be shared.
    pub(super) fn set_collection_window(&self, window: Duration) {
        let plan = &mut self.state().plan;
        if plan.max_batch.get() > 1 {
            plan.collection_window = window;
        }
    }

    /// There may be something earlier to do than there was.
    pub(super) fn changed(&self) {
        self.changed.notify_one();
    }

    /// Waits for [`changed`](Self::changed).
    pub(super) async fn wait_for_change(&self) {
        self.changed.notified().await;
    }

    /// Subscribes to a job. Where nobody did, it is polled at once.
    ///
    /// # Errors
    /// [`Refusal`] where there is no room for the job, or no time to answer the call.
    pub(super) fn subscribe(
        self: &Arc<Self>,
        job: &JobRef,
        interest: Interest,
    ) -> Result<Subscription, Refusal> {
        self.subscribe_counting(job, interest).map(|(subscription, _)| subscription)
    }

    /// The same, with how many polls were begun or ended before, as far as that makes them
    /// too old. A poll that ends just after this is an answer to the call.
    pub(super) fn subscribe_counting(
        self: &Arc<Self>,
        job: &JobRef,
        interest: Interest,
    ) -> Result<(Subscription, u64), Refusal> {
        if self.memory.is_full() {
            return Err(Refusal::TooManyBytes);
        }
        let now = Instant::now();
        let Interest { parts, purpose, .. } = interest;
        let caller = interest.queue.caller();
        let is_call = matches!(purpose, Purpose::Call { .. });
        let deadline = match purpose {
            Purpose::Call { deadline, .. } => deadline,
            Purpose::Watch { .. } | Purpose::Replica { .. } => now + FIRST_STATUS,
        };
        let mut guard = self.state();
        let state = &mut *guard;
        let found = state.jobs.find(job);
        let can_wait = matches!(purpose, Purpose::Replica { asks: false, .. });
        let needs_poll = match found {
            Some(number) => needs_poll(&state.jobs[number], &interest, now),
            None => !can_wait,
        };
        let queues = found.is_none_or(|number| queues_anew(&state.jobs[number]));
        let is_paused = matches!(state.breaker.admission(now), Admission::Paused(_));
        let in_time = !is_paused || state.polls_new_jobs_by(deadline, now);
        if is_call && needs_poll && queues && !is_paused {
            let capacity = self.capacity(&state.plan, now);
            state
                .admit(job, caller, deadline, now, capacity)
                .map_err(|retry_in| Refusal::Overloaded { retry_in })?;
        }
        let was_due = state.scheduler.next_due();
        let (number, is_new) = match found {
            Some(number) if state.jobs[number].subscribers.is_empty() => {
                (Self::resubscribe(state, number, is_call, now)?, true)
            }
            Some(number) => (number, false),
            None => (state.insert(job, now).ok_or(Refusal::TooManyJobs)?, true),
        };
        state.stats.subscribed += usize::from(is_new);
        self.metrics.subscribed();
        let subscriber = state.jobs[number].subscribers.insert(Subscriber::from(interest));
        let entry = &mut state.jobs[number];
        if entry.lacks(parts) {
            entry.refill = true;
        } else if parts != Parts::NONE {
            // So that what is held for this reader counts as not delivered yet.
            entry.notify_subscriber(subscriber);
        }
        if needs_poll && matches!(entry.stage, Stage::Ended) {
            // Its latest status lacks a part.
            state.schedule(number, now);
        }
        if needs_poll {
            state.wait_for(number, Waiting { deadline, caller, since: now, needs_poll: is_call }, now);
            state.jobs[number].join_poll(subscriber);
        }
        let passes = in_time && (is_new || state.jobs[number].polled_at.is_none());
        let paused = Self::note_pause(state, number, passes, now);
        match purpose {
            Purpose::Replica { due, unchanged_since, .. } if is_new && !needs_poll => {
                state.jobs[number].changed_at = unchanged_since;
                state.schedule(number, due.max(now));
            }
            Purpose::Watch { interval: Some(wanted) } | Purpose::Replica { interval: Some(wanted), .. } => {
                Self::hasten(state, number, wanted, now);
            }
            _ => {}
        }
        let shared = Arc::clone(&state.jobs[number].shared);
        let polls = shared.record().polls_before_now();
        let is_earlier = needs_poll || state.scheduler.next_due() != was_due;
        drop(guard);
        if is_earlier {
            self.changed();
        }
        let max_age = match purpose {
            Purpose::Call { max_age, .. } => max_age,
            Purpose::Watch { .. } | Purpose::Replica { .. } => None,
        };
        let backend = Arc::clone(self);
        let at_begin = (paused.is_some() || max_age.is_some()).then(|| Box::new(AtBegin { paused, max_age }));
        let [number, subscriber] =
            [number, subscriber].map(|number| u32::try_from(number).expect("there is memory for fewer"));
        Ok((Subscription { backend, shared, number, subscriber, at_begin }, polls))
    }

    /// Subscribes to a job of the table that has no subscribers. A call goes on from what
    /// is known. A watch begins anew, since what is known may be older than what another
    /// watch was shown.
    fn resubscribe(state: &mut State, number: usize, is_call: bool, now: Instant) -> Result<usize, Refusal> {
        match &state.jobs[number].stage {
            Stage::InFlight(poll) if is_call && poll.job_subscribed() => {
                state.jobs[number].begin_anew();
                return Ok(number);
            }
            Stage::Retained => {
                state.revive(number);
                if is_call {
                    state.jobs[number].begin_anew();
                    // As little as a new one does it share in what others were refused for.
                    state.jobs[number].polled_at = None;
                    state.schedule(number, now);
                    return Ok(number);
                }
            }
            _ => {}
        }
        let JobEntry { shared, retention, .. } = state.remove(number);
        let number = state.insert(&shared.job, now).ok_or(Refusal::TooManyJobs)?;
        state.jobs[number].retention = retention;
        Ok(number)
    }

    /// Why the backend is not polled now, as far as that concerns this job. A job that the
    /// backend has not refused yet `passes`: it is polled though the backend refuses others.
    fn note_pause(state: &mut State, number: usize, passes: bool, now: Instant) -> Option<Pause> {
        let entry = &state.jobs[number];
        let passes = |pause: &Pause| pause.fault.is_refusal() && passes && !entry.quarantined;
        if let Some(pause) = state.breaker.trouble(now).filter(|pause| !passes(pause)) {
            let mut record = entry.shared.record();
            if record.outcome == PollOutcome::NotPolled {
                record.outcome = PollOutcome::Interrupted(Interruption::of_pause(&pause, now));
            }
        }
        match state.breaker.admission(now) {
            Admission::Paused(pause) if !passes(&pause) => Some(pause),
            _ => None,
        }
    }

    /// A new subscriber may want a shorter interval than was planned for.
    fn hasten(state: &mut State, number: usize, wanted: Duration, now: Instant) {
        let entry = &state.jobs[number];
        if let (Some(polled), Stage::Scheduled) = (entry.polled_at, &entry.stage)
            && entry.failures == 0
            && !entry.quarantined
            && entry.is_answered()
        {
            let at = polled + state.interval_of(entry, Some(wanted), now);
            state.schedule_no_later(number, at);
        }
    }

    /// Has a job polled at once for one of its subscribers, unless a poll is in flight.
    pub(super) fn poll_now(&self, number: usize, subscriber: usize) {
        let now = Instant::now();
        let mut guard = self.state();
        let state = &mut *guard;
        let entry = &mut state.jobs[number];
        entry.notify_all = true;
        let Some((caller, parts)) =
            entry.subscribers.get(subscriber).map(|subscriber| (subscriber.queue.caller(), subscriber.parts))
        else {
            return;
        };
        if entry.lacks(parts) {
            entry.refill = true;
            if matches!(entry.stage, Stage::Ended) {
                state.schedule(number, now);
            }
        }
        state.wait_for(
            number,
            Waiting { deadline: now + FIRST_STATUS, caller, since: now, needs_poll: true },
            now,
        );
        drop(guard);
        self.changed();
    }

    pub(super) fn unsubscribe(&self, number: usize, subscriber: usize, max_age: Option<Duration>) {
        let now = Instant::now();
        let mut guard = self.state();
        let state = &mut *guard;
        let entry = &mut state.jobs[number];
        entry.subscribers.remove(subscriber);
        if let Some(max_age) = max_age {
            entry.requested_with(max_age, now);
        }
        if !entry.subscribers.is_empty() {
            return;
        }
        entry.waiting = None;
        state.stats.subscribed -= 1;
        match &entry.stage {
            Stage::InFlight(poll) => {
                poll.job_left();
                state.remove(number);
            }
            Stage::Scheduled => {
                let was = state.retained.next_expiry();
                state.retain(number, now);
                let is_earlier = state.retained.next_expiry() != was;
                drop(guard);
                if is_earlier {
                    self.changed();
                }
            }
            Stage::Isolating | Stage::Retained | Stage::Ended => drop(state.remove(number)),
        }
    }

    /// What is known of a job, if it is at most `max_age` old.
    pub(super) fn recent(&self, job: &JobRef, max_age: Duration) -> Option<LatestStatus> {
        self.state().recent(job, max_age, Instant::now())
    }

    /// Why the backend is not polled at `now`, if it is not.
    pub(super) fn paused(&self, now: Instant) -> Option<Pause> {
        match self.state().breaker.admission(now) {
            Admission::Paused(pause) => Some(pause),
            _ => None,
        }
    }

    /// The vendor throttled another request than a poll, which began at `began`. Returns
    /// until when the backend is paused.
    pub(super) fn throttled(&self, fault: &BackendFault, began: Instant, dice: f64) -> Instant {
        let mut state = self.state();
        state.note_fault(fault);
        state.breaker.failed(fault, began, Instant::now(), dice)
    }

    /// A poll failed because none can be authorized until then.
    pub(super) fn no_login_until(&self, fault: &BackendFault, until: Instant) {
        self.state().breaker.no_login_until(fault, until);
    }

    /// The gateway's credentials were replaced: jobs that could not be polled because the
    /// old ones were rejected are polled at once.
    pub(super) fn credentials_rotated(&self, now: Instant) {
        let mut guard = self.state();
        let state = &mut *guard;
        state.breaker.credentials_rotated();
        state.poll_at_once(JobEntry::is_rejected, now);
        drop(guard);
        self.changed();
    }

    /// Forgets retained jobs while `is_over` says that too much is held.
    pub(super) fn evict_retained(&self, is_over: impl Fn() -> bool) {
        let mut state = self.state();
        while is_over() && state.evict_first() {}
    }

    /// Drops parts that all subscribers have read while `is_over` says that too much is held.
    pub(super) fn drop_delivered_parts(&self, is_over: impl Fn() -> bool) {
        let mut state = self.state();
        let numbers: Vec<usize> = state.jobs.iter().map(|(number, _)| number).collect();
        for number in numbers {
            if !is_over() {
                return;
            }
            let entry = &mut state.jobs[number];
            if !matches!(entry.stage, Stage::Retained) {
                entry.drop_delivered_parts();
            }
        }
    }

    /// Has all readers look at their jobs again.
    pub(super) fn notify_subscribers(&self) {
        for (_, entry) in self.state().jobs.iter() {
            entry.notify(true);
        }
    }

    /// How the backend is doing at `now`.
    pub fn report(&self, now: Instant) -> Report {
        Report::of(&self.state(), &self.rate_limiter, now)
    }
}

/// Whether a new subscriber has to wait for a poll.
fn needs_poll(entry: &JobEntry, interest: &Interest, now: Instant) -> bool {
    if let Purpose::Replica { asks: false, .. } = interest.purpose {
        return false;
    }
    let record = entry.shared.record();
    let Some(latest) = &record.latest else { return true };
    if !latest.snapshot.holds(interest.parts) {
        return true;
    }
    match interest.purpose {
        Purpose::Call { max_age, .. } => {
            let is_fresh = |max_age| now.saturating_duration_since(latest.at) <= max_age;
            !latest.snapshot.is_terminal() && !max_age.is_some_and(is_fresh)
        }
        Purpose::Watch { .. } => entry.subscribers.is_empty(),
        Purpose::Replica { asks, .. } => asks && !latest.snapshot.is_terminal(),
    }
}

/// Whether a poll of this job would have to be queued: none is in flight or waited for.
fn queues_anew(entry: &JobEntry) -> bool {
    match entry.stage {
        Stage::Scheduled | Stage::Retained | Stage::Ended => entry.waiting.is_none(),
        Stage::InFlight(_) | Stage::Isolating => false,
    }
}
