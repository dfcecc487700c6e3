//! Jobs and recent events by what an operator searches for.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    Engine, JobHistory, JobReport, LatestStatus, PollOutcome, Recent,
    inspection::{look, report},
    job_table::JobEntry,
    state::State,
};
use crate::{job::JobRef, snapshot::Snapshot};

/// Which jobs to find.
#[derive(Clone, Debug, Default)]
pub struct JobFilter {
    /// Part of the id or the tag; ASCII letters in any case. Empty: any.
    pub text: String,
    /// Which of those.
    pub show: Show,
}

/// Which jobs to find by how they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Show {
    /// All.
    #[default]
    All,
    /// Those whose last poll failed.
    Failing,
    /// Those that are polled alone.
    Quarantined,
}

/// A job that was found.
#[derive(Clone, Debug)]
pub struct FoundJob {
    /// Its number in the job table.
    pub number: usize,
    /// How it is polled.
    pub report: JobReport,
    /// Its latest status, if it has been observed.
    pub snapshot: Option<Arc<Snapshot>>,
}

/// Some jobs of one backend, in the order of their numbers.
#[derive(Clone, Debug)]
pub struct FoundJobs {
    /// At most as many as were asked for.
    pub jobs: Vec<FoundJob>,
    /// The number to go on from, if there may be more.
    pub next: Option<usize>,
}

/// What is known of one job.
#[derive(Clone, Debug)]
pub struct JobDetail {
    /// How it is polled, unless it is in the job table no more.
    pub report: Option<JobReport>,
    /// Its latest status, if it is known.
    pub latest: Option<LatestStatus>,
    /// What it went through since it is subscribed to.
    pub history: JobHistory,
}

impl JobFilter {
    fn accepts(&self, entry: &JobEntry) -> bool {
        let JobRef { id, tag, .. } = &entry.shared.job;
        let has_text = |text: &str| contains(text, &self.text);
        if !has_text(id) && !tag.as_deref().is_some_and(has_text) {
            return false;
        }
        match self.show {
            Show::All => true,
            Show::Failing => {
                !matches!(entry.shared.record().outcome, PollOutcome::NotPolled | PollOutcome::Observed)
            }
            Show::Quarantined => entry.quarantined,
        }
    }
}

/// Whether `text` contains `part`, ASCII letters in any case.
fn contains(text: &str, part: &str) -> bool {
    let (text, part) = (text.as_bytes(), part.as_bytes());
    part.is_empty() || text.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}

impl Engine {
    /// At most `limit` jobs of a backend that the filter accepts, from this number on. Looks
    /// at a bounded number of jobs; `None` where there is no such backend.
    pub fn find_jobs(
        &self,
        backend: &str,
        from: usize,
        limit: usize,
        filter: &JobFilter,
    ) -> Option<FoundJobs> {
        let backend = self.backends.load().get(backend).cloned()?;
        let now = (Instant::now(), Timestamp::now());
        let state = backend.engine.state();
        let read = |number, entry: &JobEntry| {
            filter.accepts(entry).then(|| {
                let snapshot =
                    entry.shared.record().latest.as_ref().map(|latest| Arc::clone(&latest.snapshot));
                FoundJob { number, report: report(&state, number, entry, now), snapshot }
            })
        };
        let (jobs, next) = look(&state, from, limit, read);
        Some(FoundJobs { jobs, next })
    }

    /// What is known of a job that is subscribed to or retained, or that ended lately.
    pub fn job_detail(&self, job: &JobRef) -> Option<JobDetail> {
        let backend = self.backends.load().get(&job.backend).cloned()?;
        let now = (Instant::now(), Timestamp::now());
        let in_table = |state: &State| {
            let number = state.jobs.find(job)?;
            let entry = state.jobs.get(number)?;
            let latest = entry.shared.record().latest.clone();
            let report = Some(report(state, number, entry, now));
            Some(JobDetail { report, latest, history: entry.history.read() })
        };
        let state = backend.engine.state();
        if let Some(detail) = in_table(&state) {
            return Some(detail);
        }
        let history = state.recent.history_of(job).cloned();
        drop(state);
        let latest = self.memory.cache.get(job);
        if history.is_none() && latest.is_none() {
            return None;
        }
        Some(JobDetail { report: None, latest, history: history.unwrap_or_default() })
    }

    /// The latest terminal status of a job, if it is still cached.
    pub fn terminal_status(&self, job: &JobRef) -> Option<Arc<Snapshot>> {
        self.memory.cache.get(job).map(|latest| latest.snapshot)
    }

    /// What ended or failed lately, with the backend's name; the newest first.
    pub fn recent(&self, limit: usize) -> Vec<(Arc<str>, Recent)> {
        let mut all = Vec::new();
        for (name, backend) in self.backends.load().iter() {
            let state = backend.engine.state();
            all.extend(state.recent.iter().map(|recent| (Arc::clone(name), recent.clone())));
        }
        all.sort_by_key(|(_, recent)| std::cmp::Reverse(recent.time));
        all.truncate(limit);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_found_in_any_case_anywhere() {
        for (text, part, found) in [
            ("Job-17", "", true),
            ("Job-17", "job", true),
            ("Job-17", "17", true),
            ("Job-17", "b-1", true),
            ("Job-17", "job-170", false),
            ("Ärger", "ärger", false),
            ("Ärger", "Är", true),
            ("", "x", false),
        ] {
            assert_eq!(contains(text, part), found, "{part:?} in {text:?}");
        }
    }
}
