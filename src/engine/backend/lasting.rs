//! What operators read of a backend's outages and quarantined jobs.

use std::sync::{MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::warn;

use super::Backend;
use crate::{
    engine::{
        Admission,
        outage::{Line, OutageLog, REMINDER},
    },
    job::BackendFault,
};

/// What is logged again while it lasts.
#[derive(Debug, Default)]
pub(super) struct Lasting {
    outages: OutageLog,
    /// When the quarantined jobs were counted last.
    quarantined_at: Option<Instant>,
}

impl Backend {
    /// A poll of this many jobs failed for the backend's reasons. Calls for them may have
    /// ended with that.
    pub(in crate::engine) fn log_failure(&self, fault: &BackendFault, jobs: usize, now: Instant) {
        let (line, has_begun) = self.lasting().outages.failed(fault, now);
        if has_begun {
            self.metrics.outage_began();
        }
        self.note(line.as_ref());
        self.log(line, jobs, now);
    }

    /// The backend answered.
    pub(in crate::engine) fn log_answer(&self, now: Instant) {
        let line = self.lasting().outages.answered(now);
        self.note(line.as_ref());
        self.log(line, 0, now);
    }

    /// Keeps begins and ends of outages for operators: those that are logged.
    fn note(&self, line: Option<&Line>) {
        let Some(event) = line.and_then(Line::event) else { return };
        self.state().recent.add(event, Timestamp::now());
    }

    /// Logs what has lasted for another minute.
    pub(in crate::engine) fn remind(&self, now: Instant) {
        let (quarantined, subscribed) = {
            let state = self.state();
            (state.quarantine.len(), state.stats.subscribed)
        };
        let mut lasting = self.lasting();
        // Without subscribers nothing is polled, and nothing is known.
        let line = if subscribed > 0 { lasting.outages.remind(now) } else { None };
        let since = (quarantined > 0).then(|| lasting.quarantined_at.unwrap_or(now));
        let is_due = since.is_some_and(|since| now.saturating_duration_since(since) >= REMINDER);
        lasting.quarantined_at = if is_due { Some(now) } else { since };
        drop(lasting);
        self.log(line, 0, now);
        if is_due {
            warn!(backend = %self.name, quarantined_jobs = quarantined, "jobs are quarantined");
        }
    }

    fn lasting(&self) -> MutexGuard<'_, Lasting> {
        self.lasting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self, line: Option<Line>, jobs: usize, now: Instant) {
        let Some(line) = line else { return };
        let (waiting_jobs, retry_at) = {
            let state = self.state();
            let retry_at = match state.breaker.admission(now) {
                Admission::Paused(pause) => Some(pause.until),
                _ => state.scheduler.next_due(),
            };
            (state.stats.subscribed.max(jobs), retry_at)
        };
        line.write(&self.name, waiting_jobs, retry_at.map(|at| at.saturating_duration_since(now)));
    }
}
