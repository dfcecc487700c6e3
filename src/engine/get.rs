//! Calls for the status of one job or many.
//!
//! A call subscribes to its jobs, has them polled at once and leaves at the first answer
//! that is fresh enough. With a `wait` it stays until they have ended.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{
    Caller, Configured, Engine, Failure, Interest, JobRecord, LatestStatus, MissedDeadline,
    NotificationQueue, PollOutcome, Purpose, Subscription, quota::WatchLease,
};
use crate::job::{JobRef, Parts};

/// What a call for a status accepts.
#[derive(Clone, Copy, Debug)]
pub struct GetOptions {
    /// Oldest status that will do. `None`: one whose poll began after the call arrived or
    /// was in flight then.
    pub max_age: Option<Duration>,
    /// How long to wait for the job to end.
    pub wait: Duration,
    /// When the call must have been answered.
    pub deadline: Instant,
    /// The parts of a status that the caller is shown.
    pub parts: Parts,
    /// Who calls.
    pub caller: Caller,
}

/// One job of a call, until it is answered.
#[derive(Debug)]
struct Pending {
    subscription: Subscription,
    polls: u64,
    grace_ends: Instant,
    max_age: Option<Duration>,
    parts: Parts,
    /// Parts were asked for again when this many polls had ended.
    asked_at: Option<u64>,
    backend: Arc<Configured>,
    /// A call that waits for the job to end counts as a watch.
    _lease: Option<WatchLease>,
}

type Answer = Result<LatestStatus, Failure>;

impl Engine {
    /// The status of one job.
    pub(super) async fn get_one(&self, job: &JobRef, options: GetOptions) -> Answer {
        // Before anything is allocated for the call. A job that is cached has a valid name.
        if let Some(last) = self.terminal(job, options.parts)
            && self.backends.load().contains_key(&job.backend)
        {
            return Ok(last);
        }
        let answer = self.poll_all(std::slice::from_ref(job), options, |_| None).await.pop();
        answer.unwrap_or(Err(Failure::Deadline(MissedDeadline::Answer)))
    }

    /// The status of each of `jobs`, in their order. One job's failure is its own.
    pub(super) async fn get_all(&self, jobs: &[JobRef], options: GetOptions) -> Vec<Answer> {
        self.poll_all(jobs, options, |job| self.terminal(job, options.parts)).await
    }

    /// The same; `cached` looks a terminal status up.
    async fn poll_all(
        &self,
        jobs: &[JobRef],
        options: GetOptions,
        cached: impl Fn(&JobRef) -> Option<LatestStatus>,
    ) -> Vec<Answer> {
        let started = Instant::now();
        let queue = Arc::new(NotificationQueue::of_call(options.caller.key()));
        let mut answers: Vec<Option<Answer>> = Vec::with_capacity(jobs.len());
        let mut open: Vec<Option<Pending>> = Vec::with_capacity(jobs.len());
        let mut unanswered = 0;
        for (slot, job) in (0..).zip(jobs) {
            let (pending, answer) = match self.begin(job, options, &cached, &queue, slot) {
                Ok(pending) => {
                    let answer = pending.answer(started, !options.wait.is_zero());
                    (answer.is_none().then_some(pending), answer)
                }
                Err(answer) => (None, Some(answer)),
            };
            unanswered += usize::from(pending.is_some());
            open.push(pending);
            answers.push(answer);
        }

        // At the end of the wait, whatever is known will do.
        let settle = |open: &[Option<Pending>], answers: &mut [Option<Answer>]| {
            let now = Instant::now();
            for (pending, answer) in open.iter().zip(answers) {
                if let Some(pending) = pending {
                    *answer = pending.answer(now, false);
                }
            }
        };
        let wait_ends = started.checked_add(options.wait);
        let mut waiting = !options.wait.is_zero();
        let mut close = Failure::Deadline(MissedDeadline::Answer);
        while unanswered > 0 {
            let changed = tokio::select! {
                biased;
                () = sleep_until(options.deadline) => {
                    settle(&open, &mut answers);
                    break;
                }
                () = self.calls_end.cancelled() => {
                    close = Failure::ShuttingDown;
                    break;
                }
                () = at(wait_ends), if waiting => {
                    waiting = false;
                    0..open.len()
                }
                slot = queue.next() => slot as usize..slot as usize + 1,
            };
            let now = Instant::now();
            for slot in changed {
                let Some(pending) = &mut open[slot] else { continue };
                // At shutdown, calls in progress may finish. It retires all backends: looked at
                // in this order, it can't be taken for a change of the configuration.
                let is_retired = pending.backend.retired.is_cancelled() && !self.shutdown.is_cancelled();
                let failure = is_retired.then(|| Err(pending.backend.retirement()));
                if let Some(answer) = pending.answer(now, waiting).or(failure) {
                    answers[slot] = Some(answer);
                    open[slot] = None;
                    unanswered -= 1;
                } else {
                    pending.poll_dropped_parts(waiting);
                }
            }
        }
        answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(close.clone()))).collect()
    }

    /// Subscribes to a job, or answers at once.
    fn begin(
        &self,
        job: &JobRef,
        options: GetOptions,
        cached: impl Fn(&JobRef) -> Option<LatestStatus>,
        queue: &Arc<NotificationQueue>,
        slot: u32,
    ) -> Result<Pending, Answer> {
        let GetOptions { max_age, wait, deadline, parts, caller } = options;
        let backend = self.backends.load().get(&job.backend).cloned();
        let backend = backend.ok_or(Err(Failure::UnknownBackend))?;
        // A job that is cached or in the table has a valid name.
        if let Some(last) = cached(job) {
            return Err(Ok(last));
        }
        if let Some(max_age) = max_age.filter(|_| wait.is_zero())
            && let Some(latest) = backend.engine.recent(job, max_age)
            && latest.snapshot.holds(parts)
        {
            return Err(Ok(latest));
        }
        let purpose = Purpose::Call { max_age, deadline };
        let interest = Interest { queue: Arc::clone(queue), slot, parts, purpose };
        let subscribed = backend.checked(job, || {
            let lease = if wait.is_zero() { None } else { Some(self.quotas.lease(caller)?) };
            let subscribed = backend.engine.subscribe_counting(job, interest);
            Ok((subscribed.map_err(|refusal| self.refused(refusal))?, lease))
        });
        let ((subscription, polls), lease) = subscribed.map_err(Err)?;
        let grace_ends = Instant::now() + backend.settings().grace;
        // It was not notified if the backend was retired before it subscribed.
        if backend.retired.is_cancelled() && !self.shutdown.is_cancelled() {
            return Err(Err(backend.retirement()));
        }
        Ok(Pending {
            subscription,
            polls,
            grace_ends,
            max_age,
            parts,
            asked_at: None,
            backend,
            _lease: lease,
        })
    }
}

impl Pending {
    /// The answer, if there is one by now. While `waiting`, only one that can't change any
    /// more.
    fn answer(&self, now: Instant, waiting: bool) -> Option<Answer> {
        self.subscription.look(|record| self.judge(record, now, waiting))
    }

    /// Has the job polled again if its status would be the answer, but for parts that were
    /// dropped to save memory.
    fn poll_dropped_parts(&mut self, waiting: bool) {
        let parts = self.parts;
        let (lacks, polls) = self.subscription.look(|record| {
            let is_answer = |latest: &&LatestStatus| !waiting || latest.snapshot.is_terminal();
            let latest = record.latest.as_ref().filter(is_answer);
            let lacks = latest.is_some_and(|latest| !latest.snapshot.holds(parts));
            (lacks && record.outcome == PollOutcome::Observed, record.polls)
        });
        if lacks && self.asked_at.replace(polls) != Some(polls) {
            self.subscription.poll_now();
        }
    }

    fn judge(&self, record: &JobRecord, now: Instant, waiting: bool) -> Option<Answer> {
        let was_polled = record.polls > self.polls;
        let fresh = record.latest.as_ref().filter(|latest| {
            let is_fresh = record.last_answer > self.polls
                || latest.snapshot.is_terminal()
                || self.max_age.is_some_and(|age| now.saturating_duration_since(latest.at) <= age);
            is_fresh && latest.snapshot.holds(self.parts)
        });
        let failing = match (&record.outcome, self.subscription.paused()) {
            (PollOutcome::Interrupted(interruption), _) if was_polled => {
                Some((&interruption.fault, interruption.until))
            }
            (_, Some(pause)) if !was_polled => Some((&pause.fault, pause.until)),
            _ => None,
        };
        match (&record.outcome, fresh) {
            (_, Some(latest)) if latest.snapshot.is_terminal() => Some(Ok(latest.clone())),
            (PollOutcome::Missing { .. }, _) if was_polled => match &record.latest {
                Some(latest) => Some(Err(Failure::Gone { last: Some(Box::new(latest.clone())) })),
                None if waiting && now < self.grace_ends => None,
                None => Some(Err(Failure::NotFound)),
            },
            (PollOutcome::Invalid(message), _) => Some(Err(Failure::refused_id(message))),
            (_, Some(latest)) => (!waiting).then(|| Ok(latest.clone())),
            (_, None) => {
                let (fault, until) = failing?;
                if waiting && fault.kind.is_temporary() {
                    return None;
                }
                let retry_in = until.saturating_duration_since(now);
                Some(Err(Failure::Backend { fault: fault.clone(), retry_in }))
            }
        }
    }
}

/// Ends at this time, or never.
pub(super) async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
