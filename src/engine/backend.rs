//! One backend: its jobs, and the task that polls them.
//!
//! The [poll loop](Backend::run) takes what is due in batches, within the backend's
//! limits, and starts a task for each poll. A poll sends one request, publishes what the
//! answer says, and ends early when nobody subscribes to any of its jobs.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Admission, Interest, Pause, Purpose, Refusal, Subscription,
    budget::Memory,
    job_table::{Interruption, JobEntry, LatestStatus, PollOutcome, Reading, Stage, Waiting},
    planner::{self, Readiness},
    poll::{Answer, Batch, Blame, Known},
    state::{PollPlan, State},
    subscription::Subscriber,
};
use crate::{
    job::{BackendFault, FaultKind, JobRef, JobState, Parts, PayloadHash, vendor_message},
    snapshot::Snapshot,
    transport::{Permit, PollResponse, RateLimiter, Upstream},
};

/// Most unknown words of a vendor that are logged, once each.
const UNKNOWN_WORDS_LOGGED: usize = 64;

/// How long a watch may wait for its first status before other calls come first.
const FIRST_STATUS: Duration = Duration::from_mins(2);

/// One backend: its jobs and its limits.
#[derive(Debug)]
pub struct Backend {
    name: Arc<str>,
    plan: PollPlan,
    rate_limiter: Arc<RateLimiter>,
    memory: Arc<Memory>,
    state: Mutex<State>,
    changed: Notify,
    unknown_words: Mutex<HashSet<String>>,
}

/// How a backend is doing.
#[derive(Clone, Debug)]
pub struct Report {
    /// Whether it answers.
    pub health: Health,
    /// What the last poll failed with, if it failed.
    pub last_fault: Option<BackendFault>,
    /// When it last answered.
    pub last_success: Option<Timestamp>,
    /// Jobs with subscribers.
    pub subscribed_jobs: usize,
    /// How long the job has been due that has been due longest.
    pub poll_lag: Duration,
    /// Jobs of waiting calls that no poll has picked up yet.
    pub queued_calls: usize,
    /// The part of the rate that was used in the last second, 0 to 1.
    pub rate_in_use: f64,
    /// Jobs that are polled alone because they failed alone.
    pub quarantined_jobs: usize,
}

/// Whether a backend answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It has not been polled yet.
    Unknown,
    /// It answers.
    Healthy,
    /// Some polls fail, it throttles, or more is due than can be polled.
    Degraded,
    /// It does not answer.
    Unavailable,
}

/// Polls that failed in a row after which a backend counts as unavailable.
const FAILURES_TO_BE_UNAVAILABLE: u32 = 5;

impl Backend {
    pub(super) fn new(
        name: Arc<str>,
        plan: PollPlan,
        rate_limiter: Arc<RateLimiter>,
        memory: Arc<Memory>,
    ) -> Arc<Self> {
        let backend = Arc::new(Self {
            name,
            plan,
            rate_limiter,
            state: Mutex::new(State::new(plan, Arc::clone(&memory))),
            memory,
            changed: Notify::new(),
            unknown_words: Mutex::default(),
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

    /// There may be something earlier to do than there was.
    pub(super) fn changed(&self) {
        self.changed.notify_one();
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
        self.subscribe_with_counts(job, interest).map(|(subscription, _)| subscription)
    }

    /// The same, with how many polls and answers there were before. A poll that ends just
    /// after this is an answer to the call.
    pub(super) fn subscribe_with_counts(
        self: &Arc<Self>,
        job: &JobRef,
        interest: Interest,
    ) -> Result<(Subscription, (u64, u64)), Refusal> {
        if self.memory.is_full() {
            return Err(Refusal::TooManyBytes);
        }
        let now = Instant::now();
        let Interest { caller, parts, purpose, .. } = interest;
        let is_call = matches!(purpose, Purpose::Call { .. });
        let deadline = match purpose {
            Purpose::Call { deadline, .. } => deadline,
            Purpose::Watch { .. } => now + FIRST_STATUS,
        };
        let mut guard = self.state();
        let state = &mut *guard;
        let found = state.jobs.find(job);
        let needs_poll = found.is_none_or(|number| needs_poll(&state.jobs[number], &interest, now));
        let queues = found.is_none_or(|number| queues_anew(&state.jobs[number]));
        let is_paused = matches!(state.breaker.admission(now), Admission::Paused(_));
        let in_time = !is_paused || state.polls_new_jobs_by(deadline, now);
        if is_call && needs_poll && queues && !is_paused {
            state.admit(job, caller, deadline, now).map_err(|retry_in| Refusal::Overloaded { retry_in })?;
        }
        let (number, is_new) = match found {
            Some(number) if state.jobs[number].subscribers.is_empty() => {
                (Self::resubscribe(state, number, is_call, now)?, true)
            }
            Some(number) => (number, false),
            None => (state.insert(job, now).ok_or(Refusal::TooManyJobs)?, true),
        };
        state.stats.subscribed += usize::from(is_new);
        let was_due = state.scheduler.next_due();
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
            state.wait_for(number, Waiting { deadline, caller }, now);
        }
        let passes = in_time && (is_new || state.jobs[number].polled_at.is_none());
        let paused = Self::note_pause(state, number, passes, now);
        if let Purpose::Watch { interval: Some(wanted) } = purpose {
            Self::hasten(state, number, wanted, now);
        }
        let shared = Arc::clone(&state.jobs[number].shared);
        let counts = {
            let record = shared.record();
            (record.polls, record.answers)
        };
        let is_earlier = needs_poll || state.scheduler.next_due() != was_due;
        drop(guard);
        if is_earlier {
            self.changed();
        }
        let max_age = match purpose {
            Purpose::Call { max_age, .. } => max_age.map(Box::new),
            Purpose::Watch { .. } => None,
        };
        let backend = Arc::clone(self);
        let paused = paused.map(Box::new);
        Ok((Subscription { backend, shared, number, subscriber, paused, max_age }, counts))
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
        let passes = |pause: &Pause| pause.fault.kind.is_refusal() && passes;
        if let Some(pause) = state.breaker.trouble(now).filter(|pause| !passes(pause)) {
            let mut record = entry.shared.record();
            if record.outcome == PollOutcome::NotPolled {
                record.outcome = PollOutcome::Interrupted(Interruption::of_pause(pause, now));
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
            entry.subscribers.get(subscriber).map(|subscriber| (subscriber.caller, subscriber.parts))
        else {
            return;
        };
        if entry.lacks(parts) {
            entry.refill = true;
            if matches!(entry.stage, Stage::Ended) {
                state.schedule(number, now);
            }
        }
        state.wait_for(number, Waiting { deadline: now + FIRST_STATUS, caller }, now);
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
            entry.asked_with(max_age, now);
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

    /// The gateway's credentials were replaced: jobs that could not be polled because the
    /// old ones were rejected are polled at once.
    pub(super) fn credentials_rotated(&self, now: Instant) {
        let mut guard = self.state();
        let state = &mut *guard;
        state.breaker.credentials_rotated();
        let rejected = |number: &usize| state.jobs[*number].is_rejected();
        let rejected: Vec<usize> =
            state.scheduler.timers().map(|(_, number)| number).filter(rejected).collect();
        for number in rejected {
            state.schedule_no_later(number, now);
        }
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
        let state = self.state();
        let figures = state.stats.clone();
        let poll_lag = state.lag(now);
        let is_unavailable =
            state.breaker.is_open() || figures.failures_in_a_row >= FAILURES_TO_BE_UNAVAILABLE;
        let health = match state.breaker.admission(now) {
            _ if is_unavailable => Health::Unavailable,
            Admission::Closed
                if state.breaker.failures() == 0
                    && figures.last_fault.is_none()
                    && poll_lag <= self.plan.interval.max =>
            {
                figures.last_success.map_or(Health::Unknown, |_| Health::Healthy)
            }
            _ => Health::Degraded,
        };
        Report {
            health,
            last_fault: figures.last_fault,
            last_success: figures.last_success.map(|(_, time)| time),
            subscribed_jobs: figures.subscribed,
            poll_lag,
            queued_calls: state.scheduler.waiting(),
            rate_in_use: self.rate_limiter.in_use(now),
            quarantined_jobs: state.quarantine.len(),
        }
    }

    /// Polls `upstream` for the jobs of this backend until `stop` is cancelled; then
    /// cancels what is in flight and returns.
    pub(super) async fn run(self: Arc<Self>, upstream: Arc<dyn Upstream>, stop: CancellationToken) {
        let polls = self.poll_loop(&upstream);
        let rotations = async {
            loop {
                upstream.credentials_rotated().await;
                self.credentials_rotated(Instant::now());
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = polls => {}
            () = rotations => {}
        }
    }

    async fn poll_loop(self: &Arc<Self>, upstream: &Arc<dyn Upstream>) {
        let concurrency =
            Arc::new(Semaphore::new(self.plan.max_concurrency.get().min(Semaphore::MAX_PERMITS)));
        let mut polls = JoinSet::new();
        loop {
            let readiness = planner::readiness(&mut self.state(), Instant::now());
            match readiness {
                Readiness::Ready => {}
                Readiness::Idle => {
                    self.changed.notified().await;
                    continue;
                }
                Readiness::At(at) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(at) => {}
                        () = self.changed.notified() => {}
                    }
                    continue;
                }
            }
            let Ok(slot) = Arc::clone(&concurrency).acquire_owned().await else { return };
            // Before the batch is taken: what falls due while this waits still joins it.
            let permit = self.rate_limiter.acquire().await;
            if let Some(batch) = Batch::take(self, Instant::now(), rand::random()) {
                while polls.try_join_next().is_some() {}
                let (backend, upstream) = (Arc::clone(self), Arc::clone(upstream));
                polls.spawn(async move {
                    let cancelled = batch.cancelled();
                    tokio::select! {
                        () = cancelled.cancelled() => {}
                        () = backend.poll(batch, &*upstream, permit) => {}
                    }
                    drop(slot);
                });
            }
        }
    }

    /// Sends one request and publishes what the answer says.
    async fn poll(&self, batch: Batch, upstream: &dyn Upstream, permit: Permit) {
        let jobs = batch.jobs();
        let response = upstream.poll(&jobs, permit).await;
        let response = response.and_then(|response| {
            let is_whole = response.elements().len() == jobs.len();
            let why = "it has too few or too many elements";
            if is_whole { Ok(response) } else { Err(FaultKind::Malformed { why }.into()) }
        });
        match response {
            Ok(response) => {
                let answers = self.read(&jobs, &batch.known(), &response);
                // Its bytes are given back before the next poll.
                drop(response);
                if batch.answered(answers, rand::random()) {
                    info!(backend = %self.name, "backend recovered");
                }
            }
            Err(fault) => {
                let first_job = jobs[0].id.clone();
                match batch.failed(&fault, rand::random()) {
                    Blame::Nobody => {}
                    Blame::Job => {
                        warn!(backend = %self.name, job_id = %first_job, error = %fault, "job quarantined");
                    }
                    Blame::Backend { failures } => {
                        warn!(backend = %self.name, jobs = jobs.len(), failures, error = %fault, "poll failed");
                    }
                }
            }
        }
    }

    /// Reads the elements that are not the same as before, byte for byte.
    fn read(&self, jobs: &[JobRef], known: &[Known], response: &PollResponse) -> Vec<Answer> {
        let elements = response.elements().iter().zip(jobs).zip(known);
        let read = elements.map(|((element, job), known)| {
            let element = element.as_ref().map_err(Clone::clone)?;
            let payload_hash = PayloadHash::of(element);
            if known.payload_hash == Some(payload_hash) {
                return Ok(Reading::Unchanged);
            }
            let observation = response.observe(job, element)?;
            self.note_unknown_word(observation.state, &observation.vendor_state);
            let inline_limit = self.memory.limits.inline_result_bytes;
            let snapshot = Snapshot::new(observation, known.parts, inline_limit, &self.memory.budget);
            Ok(Reading::Read(snapshot, payload_hash))
        });
        read.collect()
    }

    fn note_unknown_word(&self, state: JobState, word: &str) {
        if state == JobState::Unknown {
            let mut words = self.unknown_words.lock().unwrap_or_else(PoisonError::into_inner);
            let word = vendor_message(word);
            if words.len() < UNKNOWN_WORDS_LOGGED && words.insert(word.clone()) {
                warn!(backend = %self.name, vendor_state = word, "vendor reported an unknown state");
            }
        }
    }
}

/// Whether a new subscriber has to wait for a poll.
fn needs_poll(entry: &JobEntry, interest: &Interest, now: Instant) -> bool {
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
    }
}

/// Whether a poll of this job would have to be queued: none is in flight or waited for.
fn queues_anew(entry: &JobEntry) -> bool {
    match entry.stage {
        Stage::Scheduled | Stage::Retained | Stage::Ended => entry.waiting.is_none(),
        Stage::InFlight(_) | Stage::Isolating => false,
    }
}
