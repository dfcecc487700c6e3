//! What jobs went through since they are subscribed to, and what ended or failed lately, for
//! operators.
//!
//! A job's history has its states, not its progress: a poll without a change of the state
//! costs one comparison. Both the histories and the recent events are bounded by number, and
//! an event holds no text of a vendor, so they are bounded in bytes, too.

use std::{collections::VecDeque, time::Duration};

use jiff::Timestamp;

use crate::job::{BackendFault, JobRef, JobState};

/// Most steps of a job before the present one. The oldest are left out.
const STEPS: usize = 16;

/// Most ends that are kept for each backend, and as many failures.
pub(super) const RECENT: usize = 50;

/// Where a job is, as far as polls show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No poll has been answered yet.
    Unobserved,
    /// The vendor reports this state.
    In(JobState),
    /// The vendor does not know the job.
    Missing,
    /// The vendor says that no job can have this id.
    Refused,
    /// The job fails alone, while others are answered.
    Failing,
}

/// One step of a job's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Where it was.
    pub phase: Phase,
    /// Since when, in milliseconds since 1970.
    millis: i64,
}

impl Step {
    /// Since when the job was there.
    pub fn since(self) -> Timestamp {
        Timestamp::from_millisecond(self.millis).unwrap_or_default()
    }
}

/// The steps of one job.
#[derive(Clone, Debug)]
pub(super) struct History {
    present: Step,
    /// What came before, for the jobs that had more than one step.
    earlier: Option<Box<Earlier>>,
}

#[derive(Clone, Debug, Default)]
struct Earlier {
    steps: Vec<Step>,
    left_out: u32,
}

/// The steps of one job, as a reader gets them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobHistory {
    /// The oldest first; the last one is the present.
    pub steps: Vec<Step>,
    /// Older steps that were forgotten.
    pub left_out: u32,
}

impl History {
    pub(super) fn new() -> Self {
        Self { present: Step { phase: Phase::Unobserved, millis: 0 }, earlier: None }
    }

    /// Where the job is now.
    pub(super) fn phase(&self) -> Phase {
        self.present.phase
    }

    /// The job was found in this phase. Returns whether it was in another one before.
    pub(super) fn enter(&mut self, phase: Phase, time: impl FnOnce() -> Timestamp) -> bool {
        if self.present.phase == phase {
            return false;
        }
        let before = std::mem::replace(&mut self.present, Step { phase, millis: time().as_millisecond() });
        if before.phase == Phase::Unobserved {
            return true;
        }
        let Earlier { steps, left_out } = &mut **self.earlier.get_or_insert_default();
        if steps.len() == STEPS {
            steps.remove(0);
            *left_out = left_out.saturating_add(1);
        }
        if steps.capacity() == 0 {
            // Most jobs have two or three states.
            steps.reserve_exact(2);
        }
        steps.push(before);
        true
    }

    /// A copy for a reader.
    pub(super) fn read(&self) -> JobHistory {
        let (mut steps, left_out) = match &self.earlier {
            Some(earlier) => (earlier.steps.clone(), earlier.left_out),
            None => (Vec::new(), 0),
        };
        if self.present.phase != Phase::Unobserved {
            steps.push(self.present);
        }
        JobHistory { steps, left_out }
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Recent {
    /// When.
    pub time: Timestamp,
    /// What.
    pub event: RecentEvent,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum RecentEvent {
    /// A job reached a terminal state.
    Ended {
        /// The job.
        job: JobRef,
        /// The terminal state.
        state: JobState,
        /// What it went through.
        history: JobHistory,
    },
    /// A job can't be observed, for its own reasons.
    JobFailed {
        /// The job.
        job: JobRef,
        /// Missing, refused or failing.
        phase: Phase,
        /// What a failing one fails with.
        fault: Option<BackendFault>,
    },
    /// The backend failed.
    BackendFailed(BackendFault),
    /// The backend answers again.
    BackendRecovered {
        /// How long it did not.
        down_for: Duration,
    },
}

/// The recent events of one backend.
#[derive(Debug, Default)]
pub(super) struct RecentEvents {
    ends: VecDeque<Recent>,
    /// Apart from the ends, so that many of one kind leave those of the other.
    failures: VecDeque<Recent>,
}

impl RecentEvents {
    /// Adds an event. The oldest of its kind makes room.
    pub(super) fn add(&mut self, event: RecentEvent, time: Timestamp) {
        let events = match event {
            RecentEvent::Ended { .. } => &mut self.ends,
            _ => &mut self.failures,
        };
        if events.len() == RECENT {
            events.pop_front();
        }
        events.push_back(Recent { time, event });
    }

    /// Adds what a job has come to, if it is an end or a failure.
    pub(super) fn add_phase(&mut self, job: &JobRef, history: &History, fault: Option<&BackendFault>) {
        let Step { phase, .. } = history.present;
        let event = match phase {
            Phase::In(state) if state.is_terminal() => {
                RecentEvent::Ended { job: job.clone(), state, history: history.read() }
            }
            Phase::Unobserved | Phase::In(_) => return,
            Phase::Missing | Phase::Refused | Phase::Failing => {
                let fault = fault.map(BackendFault::without_vendor_message);
                RecentEvent::JobFailed { job: job.clone(), phase, fault }
            }
        };
        self.add(event, history.present.since());
    }

    /// All of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Recent> {
        self.ends.iter().chain(&self.failures)
    }

    /// The history of a job that ended lately.
    pub(super) fn history_of(&self, wanted: &JobRef) -> Option<&JobHistory> {
        self.ends.iter().rev().find_map(|recent| match &recent.event {
            RecentEvent::Ended { job, history, .. } if job == wanted => Some(history),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).unwrap()
    }

    #[test]
    fn history_has_each_change_once_with_its_time() {
        let mut history = History::new();
        assert_eq!(history.read(), JobHistory::default());
        let running = Phase::In(JobState::Running);
        assert!(history.enter(running, || time(5)));
        assert!(!history.enter(running, || unreachable!("the phase is the same")));
        assert!(history.enter(Phase::Failing, || time(7)));
        assert!(history.enter(running, || time(9)));
        let steps: Vec<_> =
            history.read().steps.iter().map(|step| (step.phase, step.since().as_millisecond())).collect();
        assert_eq!(steps, [(running, 5), (Phase::Failing, 7), (running, 9)]);
    }

    #[test]
    fn history_of_a_job_that_changes_often_is_bounded_and_counts_what_it_leaves_out() {
        let mut history = History::new();
        for millis in 0..1000 {
            let state = if millis % 2 == 0 { JobState::Running } else { JobState::Retrying };
            history.enter(Phase::In(state), || time(millis));
        }
        let JobHistory { steps, left_out } = history.read();
        assert_eq!((steps.len(), left_out), (STEPS + 1, 1000 - 17));
        assert_eq!(steps.last().unwrap().since(), time(999));
        assert!(std::mem::size_of::<History>() <= 24);
    }

    #[test]
    fn failures_do_not_displace_ends_and_both_are_bounded() {
        let mut events = RecentEvents::default();
        let job = JobRef::new("immuta", "1");
        let mut history = History::new();
        history.enter(Phase::In(JobState::Succeeded), || time(1));
        events.add_phase(&job, &history, None);
        for millis in 0..1000 {
            let mut history = History::new();
            history.enter(Phase::Missing, || time(millis));
            events.add_phase(&JobRef::new("immuta", millis.to_string()), &history, None);
        }
        assert_eq!(events.iter().count(), 1 + RECENT);
        assert_eq!(events.history_of(&job), Some(&history.read()));
        assert_eq!(events.history_of(&JobRef::new("immuta", "2")), None);
        let oldest = events.failures.front().unwrap();
        assert_eq!(oldest.time, time(950));
    }

    #[test]
    fn running_job_is_no_recent_event() {
        let mut events = RecentEvents::default();
        let mut history = History::new();
        history.enter(Phase::In(JobState::Running), || time(1));
        events.add_phase(&JobRef::new("immuta", "1"), &history, None);
        assert_eq!(events.iter().count(), 0);
    }
}
