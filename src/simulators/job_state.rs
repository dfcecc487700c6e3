//! The states of simulated jobs, and what a job shows in each.

use std::sync::Arc;

use jiff::Timestamp;

use super::plan::{End, Outcome, Plan};

/// A state of the simulated life cycle. Not every vendor has a word for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Queued,
    Running,
    Retrying,
    Cancelling,
    Succeeded,
    Failed,
    Cancelled,
    Expired,
}

impl Phase {
    pub(super) fn has_ended(self) -> bool {
        self >= Self::Succeeded
    }

    pub(super) fn at_end(end: &End) -> Self {
        match end {
            End::Success(_) => Self::Succeeded,
            End::Failure { .. } => Self::Failed,
            End::Cancelled { .. } => Self::Cancelled,
            End::Expired => Self::Expired,
        }
    }
}

/// A vendor's words for the phases. Where a word stands twice, its first phase is the usual
/// one.
pub(super) type StateWords = &'static [(Phase, &'static str)];

/// The vendor's word for a phase, or for the nearest phase that it has a word for.
pub(super) fn word_for(words: StateWords, phase: Phase) -> &'static str {
    let nearest = match phase {
        Phase::Retrying | Phase::Cancelling => Phase::Running,
        Phase::Cancelled | Phase::Expired => Phase::Failed,
        known => known,
    };
    let find = |wanted| words.iter().find(|(phase, _)| *phase == wanted).map(|(_, word)| *word);
    find(phase).or_else(|| find(nearest)).unwrap_or_default()
}

/// What a job shows at one moment.
#[derive(Clone, Debug)]
pub(super) struct JobSnapshot {
    pub(super) id: String,
    pub(super) tag: String,
    pub(super) phase: Phase,
    pub(super) word: String,
    /// Percent of the run.
    pub(super) progress: u8,
    /// An attempt before this one ended with this error.
    pub(super) retried_after: Option<String>,
    pub(super) created_at: Timestamp,
    pub(super) started_at: Option<Timestamp>,
    pub(super) ended_at: Option<Timestamp>,
    pub(super) plan: Arc<Plan>,
}

impl JobSnapshot {
    /// The result, where it succeeded.
    pub(super) fn outcome(&self) -> &Outcome {
        match &self.plan.end {
            End::Success(outcome) if self.phase == Phase::Succeeded => outcome,
            _ => &Outcome::Nothing,
        }
    }

    /// The vendor's message, where it failed.
    pub(super) fn failure(&self) -> Option<&str> {
        match &self.plan.end {
            _ if self.phase != Phase::Failed => None,
            End::Failure { message } => Some(message),
            End::Cancelled { .. } => Some("the job was cancelled"),
            End::Expired => Some("the job took too long"),
            End::Success(_) => Some("the job failed"),
        }
    }

    pub(super) fn changed_at(&self) -> Timestamp {
        self.ended_at.or(self.started_at).unwrap_or(self.created_at)
    }
}
