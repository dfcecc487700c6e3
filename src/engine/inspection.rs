//! The jobs of a backend, for operators.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    Engine, Failure, LatestStatus, PollOutcome,
    job_table::{JobEntry, Stage},
    state::{LOOKED_AT, State},
};
use crate::job::{JobRef, JobState};

/// One job of a job table.
#[derive(Clone, Debug)]
pub struct JobReport {
    /// The job.
    pub job: JobRef,
    /// Its latest status, if it has been observed.
    pub latest: Option<LatestStatus>,
    /// The state in it.
    pub state: Option<JobState>,
    /// Calls and watches that are subscribed to it.
    pub subscribers: usize,
    /// When its last poll began.
    pub last_poll: Option<Timestamp>,
    /// When its status last changed.
    pub last_change: Option<Timestamp>,
    /// When its next poll is due, unless a poll is in flight or it needs none.
    pub next_poll: Option<Timestamp>,
    /// Whether it is polled alone because it failed alone.
    pub quarantined: bool,
    /// What its last poll failed with.
    pub failure: Option<Failure>,
}

/// Some jobs of one backend, in the order of their numbers.
#[derive(Clone, Debug)]
pub struct JobPage {
    /// At most as many as were asked for. There may be none on a page before the last.
    pub jobs: Vec<(usize, JobReport)>,
    /// The number to go on from, if there may be more.
    pub next: Option<usize>,
}

impl Engine {
    /// At most `limit` jobs of a backend, from this number on; `None` where there is no such
    /// backend.
    pub(super) fn jobs_of(&self, backend: &str, from: usize, limit: usize) -> Option<JobPage> {
        let backend = self.backends.load().get(backend).cloned()?;
        let now = Instant::now();
        let time = (now, Timestamp::now());
        let state = backend.engine.state();
        let read = |number, entry: &JobEntry| Some((number, report(&state, number, entry, time)));
        let (jobs, next) = look(&state, from, limit, read);
        Some(JobPage { jobs, next })
    }
}

/// Reads at most `limit` jobs from this number on, and the number to go on from. Looks at a
/// bounded part of the table, so that the lock is not held for long.
pub(super) fn look<T>(
    state: &State,
    from: usize,
    limit: usize,
    read: impl Fn(usize, &JobEntry) -> Option<T>,
) -> (Vec<T>, Option<usize>) {
    let end = state.jobs.end();
    let to = from.saturating_add(LOOKED_AT).min(end);
    let mut jobs = Vec::new();
    let mut number = from;
    while number < to && jobs.len() < limit {
        jobs.extend(state.jobs.get(number).and_then(|entry| read(number, entry)));
        number += 1;
    }
    (jobs, (number < end).then_some(number))
}

pub(super) fn report(state: &State, number: usize, entry: &JobEntry, now: (Instant, Timestamp)) -> JobReport {
    let record = entry.shared.record();
    let failure = match &record.outcome {
        PollOutcome::NotPolled | PollOutcome::Observed => None,
        PollOutcome::Missing { .. } => Some(Failure::NotFound),
        PollOutcome::Invalid(message) => Some(Failure::refused_id(message)),
        PollOutcome::Interrupted(interruption) => Some(Failure::Backend {
            fault: interruption.fault.clone(),
            retry_in: interruption.until.saturating_duration_since(now.0),
        }),
    };
    let due = state.scheduler.due_at(number).filter(|_| matches!(entry.stage, Stage::Scheduled));
    let latest = record.latest.as_ref();
    JobReport {
        job: entry.shared.job.clone(),
        state: latest.map(|latest| latest.snapshot.state),
        latest: latest.cloned(),
        subscribers: entry.subscribers.iter().count(),
        last_poll: entry.polled_at.map(|at| time_of(at, now)),
        last_change: latest.map(|_| time_of(entry.changed_at, now)),
        next_poll: due.map(|at| time_of(at, now)),
        quarantined: entry.quarantined,
        failure,
    }
}

/// The time of the monotonic clock on the wall clock.
fn time_of(at: Instant, (now, time): (Instant, Timestamp)) -> Timestamp {
    let (before, after) = (now.saturating_duration_since(at), at.saturating_duration_since(now));
    let moved = if before == Duration::ZERO { time.checked_add(after) } else { time.checked_sub(before) };
    moved.unwrap_or(time)
}
