//! Which jobs the overview shows, as its address says it, and how they are found.

use std::{fmt::Write, sync::Arc};

use serde::Deserialize;

use super::text::encoded;
use crate::engine::{Engine, FoundJob, JobFilter, JobStatuses, Show};

/// Jobs on one page.
pub(super) const PAGE: usize = 50;

/// Parts of job tables that one search looks at: more jobs than a gateway usually has. The
/// next page goes on from there.
const LOOKS: usize = 64;

/// Longest text to search for, in bytes: the longest id of a job.
const LONGEST: usize = 512;

/// The query of the overview's address.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Search {
    /// Part of a job's id or tag.
    pub(super) q: String,
    /// The only backend to look at; empty: all.
    pub(super) backend: String,
    /// `failing`, `quarantined`, or empty for all.
    pub(super) show: String,
    /// Where the page begins: `NUMBER/BACKEND`.
    pub(super) from: String,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) jobs: Vec<FoundJob>,
    /// Where the next page begins, if there may be more.
    pub(super) next: Option<String>,
}

impl Search {
    /// Reads what was asked for.
    ///
    /// # Errors
    /// What is wrong with it and what to write instead.
    pub(super) fn filter(&self) -> Result<JobFilter, String> {
        let show = match &*self.show {
            "" | "all" => Show::All,
            "failing" => Show::Failing,
            "quarantined" => Show::Quarantined,
            _ => return Err("show can't be used; write all, failing or quarantined".to_owned()),
        };
        let text = self.q.trim();
        if text.len() > LONGEST {
            return Err(format!("q is longer than {LONGEST} bytes; write a part of a job's id or tag"));
        }
        Ok(JobFilter { text: text.to_owned(), show })
    }

    /// The backend and the number at which the page begins.
    fn position(&self) -> Result<(&str, usize), String> {
        if self.from.is_empty() {
            return Ok(("", 0));
        }
        let read = self.from.split_once('/').and_then(|(number, name)| Some((name, number.parse().ok()?)));
        read.ok_or_else(|| "from is not one of a link of this page; leave it out to begin anew".to_owned())
    }

    /// The same search, beginning elsewhere, as a query with its question mark.
    pub(super) fn query(&self, from: &str) -> String {
        let Self { q, backend, show, from: _ } = self;
        let mut query = String::new();
        for (name, value) in [("q", &**q), ("backend", backend), ("show", show), ("from", from)] {
            if !value.is_empty() {
                let mark = if query.is_empty() { '?' } else { '&' };
                // Writing to a string can't fail.
                let _ = write!(query, "{mark}{name}={}", encoded(value));
            }
        }
        query
    }

    /// Whether the page has all jobs.
    pub(super) fn is_empty(&self) -> bool {
        self.q.trim().is_empty() && self.backend.is_empty() && matches!(&*self.show, "" | "all")
    }

    /// Finds the jobs of one page. Holds no lock for long, and gives others a turn.
    ///
    /// # Errors
    /// See [`filter`](Self::filter).
    pub(super) async fn run(&self, engine: &Engine) -> Result<Found, String> {
        let (filter, (first, mut from)) = (self.filter()?, self.position()?);
        let is_wanted = |name: &Arc<str>| self.backend.is_empty() || **name == *self.backend;
        let names: Vec<_> = engine.backend_names().into_iter().filter(is_wanted).collect();
        let mut jobs = Vec::new();
        let mut looks = LOOKS;
        for name in names.iter().filter(|name| ***name >= *first) {
            let mut next = Some(if **name == *first { from } else { 0 });
            while let Some(number) = next {
                if jobs.len() >= PAGE || looks == 0 {
                    return Ok(Found { jobs, next: Some(format!("{number}/{name}")) });
                }
                looks -= 1;
                // A backend that was removed meanwhile has no jobs.
                let Some(found) = engine.find_jobs(name, number, PAGE - jobs.len(), &filter) else { break };
                jobs.extend(found.jobs);
                next = found.next;
                tokio::task::yield_now().await;
            }
            from = 0;
        }
        Ok(Found { jobs, next: None })
    }
}
