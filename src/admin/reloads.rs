//! How the last reloads of the configuration ended.

use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde_json::{Value, json};

/// Most problems of a refused configuration that `/readyz` shows.
const SHOWN: usize = 20;

/// How a reload ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The new configuration is in effect.
    Applied,
    /// The new configuration is the same.
    Unchanged,
    /// The new configuration has these problems, and the old one stays in effect.
    Refused(Vec<String>),
}

/// Counts reloads, and remembers the last.
#[derive(Debug)]
pub struct Reloads(Mutex<Reloaded>);

#[derive(Clone, Debug)]
pub(super) struct Reloaded {
    pub(super) applied: u64,
    pub(super) unchanged: u64,
    pub(super) refused: u64,
    /// Of the configuration that was refused last, until another is accepted.
    problems: Vec<String>,
    /// When the configuration in effect was read last.
    read_at: Timestamp,
    /// Keys that wait for a restart.
    restart: Vec<String>,
}

impl Default for Reloads {
    /// The configuration was read just now.
    fn default() -> Self {
        Self(Mutex::new(Reloaded {
            applied: 0,
            unchanged: 0,
            refused: 0,
            problems: Vec::new(),
            read_at: Timestamp::now(),
            restart: Vec::new(),
        }))
    }
}

impl Reloads {
    /// A reload has ended.
    pub fn ended(&self, outcome: Outcome) {
        let mut last = self.lock();
        match outcome {
            Outcome::Applied => last.applied += 1,
            Outcome::Unchanged => last.unchanged += 1,
            Outcome::Refused(mut problems) => {
                last.refused += 1;
                problems.truncate(SHOWN);
                last.problems = problems;
                return;
            }
        }
        last.problems.clear();
        last.read_at = Timestamp::now();
    }

    /// These keys of the configuration need a restart to take effect. Returns those that did
    /// before.
    pub fn need_restart(&self, keys: Vec<String>) -> Vec<String> {
        std::mem::replace(&mut self.lock().restart, keys)
    }

    pub(super) fn last(&self) -> Reloaded {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Reloaded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reloaded {
    /// Whether the last configuration that was read is in effect.
    pub(super) fn is_successful(&self) -> bool {
        self.problems.is_empty()
    }

    /// When the configuration in effect was read last, in seconds since 1970.
    pub(super) fn seconds(&self) -> f64 {
        self.read_at.as_duration().as_secs_f64()
    }

    /// For `/readyz`.
    pub(super) fn detail(&self) -> Value {
        let mut detail = json!({
            "status": if self.is_successful() { "current" } else { "refused" },
            "read_at": self.read_at.to_string(),
        });
        if !self.is_successful() {
            detail["problems"] = self.problems.clone().into();
        }
        if !self.restart.is_empty() {
            detail["needs_restart"] = self.restart.clone().into();
        }
        detail
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_configuration_is_shown_until_another_is_accepted() {
        let reloads = Reloads::default();
        let detail = || {
            let mut detail = reloads.last().detail();
            detail.as_object_mut().unwrap().remove("read_at");
            detail
        };
        assert_eq!(detail(), json!({ "status": "current" }));
        let problems: Vec<_> = (0..30).map(|number| format!("key {number}")).collect();
        let read_at = reloads.last().read_at;
        reloads.ended(Outcome::Refused(problems.clone()));
        assert_eq!(detail(), json!({ "status": "refused", "problems": problems[..SHOWN] }));
        assert_eq!((reloads.last().read_at, reloads.last().is_successful()), (read_at, false));
        reloads.ended(Outcome::Unchanged);
        assert!(reloads.need_restart(vec!["server.listen".to_owned()]).is_empty());
        assert_eq!(detail(), json!({ "status": "current", "needs_restart": ["server.listen"] }));
        reloads.ended(Outcome::Applied);
        let last = reloads.last();
        assert_eq!((last.applied, last.unchanged, last.refused), (1, 1, 1));
        assert!(last.read_at >= read_at);
    }
}
