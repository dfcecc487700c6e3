//! The jobs of one simulator and the current snapshot of each.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::{
    job_state::{JobSnapshot, Phase, StateWords, word_for},
    plan::{End, Plan},
};

/// A job that was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The vendor's id.
    pub id: String,
    /// Kinetica's tag.
    pub tag: Option<String>,
}

/// A state that a test chose.
#[derive(Debug)]
struct Held {
    word: String,
    phase: Phase,
    progress: u8,
    retried_after: Option<String>,
    started_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
}

#[derive(Debug)]
struct Entry {
    tag: String,
    plan: Arc<Plan>,
    since: Instant,
    created_at: Timestamp,
    held: Option<Held>,
}

/// All jobs of one simulator.
#[derive(Debug)]
pub(super) struct Jobs {
    words: StateWords,
    entries: Mutex<HashMap<String, Entry>>,
}

impl Jobs {
    pub(super) fn new(words: StateWords) -> Self {
        Self { words, entries: Mutex::default() }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn start(&self, id: String, tag: String, plan: Plan) {
        let mut entry = Entry {
            tag,
            since: Instant::now(),
            created_at: Timestamp::now(),
            held: None,
            plan: Arc::new(plan),
        };
        if let Some(word) = entry.plan.held.clone() {
            entry.hold(self.words, &word);
        }
        self.entries().insert(id, entry);
    }

    /// What the job shows now; `None` while the vendor doesn't know it.
    pub(super) fn snapshot(&self, id: &str) -> Option<JobSnapshot> {
        self.entries().get_key_value(id).and_then(|(id, entry)| entry.snapshot(self.words, id))
    }

    pub(super) fn snapshot_by_tag(&self, tag: &str) -> Option<JobSnapshot> {
        let entries = self.entries();
        entries
            .iter()
            .filter(|(_, entry)| entry.tag == tag)
            .find_map(|(id, entry)| entry.snapshot(self.words, id))
    }

    /// Every job that the vendor knows now, oldest first.
    pub(super) fn all(&self) -> Vec<JobSnapshot> {
        let entries = self.entries();
        let mut all: Vec<_> =
            entries.iter().filter_map(|(id, entry)| entry.snapshot(self.words, id)).collect();
        all.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        all
    }

    /// Holds the job in the state with this word; `false` if there is no such job.
    pub(super) fn set_word(&self, id: &str, word: &str) -> bool {
        let mut entries = self.entries();
        entries.get_mut(id).map(|entry| entry.hold(self.words, word)).is_some()
    }

    pub(super) fn set_progress(&self, id: &str, percent: u8) -> bool {
        let mut entries = self.entries();
        let held = entries.get_mut(id).and_then(|entry| entry.held.as_mut());
        held.map(|held| held.progress = percent.min(100)).is_some()
    }

    /// Ends the job now with its plan's end or with `end`.
    pub(super) fn finish(&self, id: &str, end: Option<End>) -> bool {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(id) else { return false };
        if let Some(end) = end {
            Arc::make_mut(&mut entry.plan).end = end;
        }
        let phase = Phase::at_end(&entry.plan.end);
        entry.hold_in(phase, word_for(self.words, phase));
        true
    }

    /// Cancels a job that has not ended; it runs on for `still_running_for`.
    pub(super) fn cancel(&self, id: &str, still_running_for: Duration) -> bool {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(id) else { return false };
        if entry.snapshot(self.words, id).is_none_or(|snapshot| snapshot.phase.has_ended()) {
            return false;
        }
        let age = entry.since.elapsed();
        let plan = Arc::make_mut(&mut entry.plan);
        plan.end = End::Cancelled { still_running_for };
        plan.queued_for = plan.queued_for.min(age);
        plan.running_for = age.saturating_sub(plan.queued_for);
        entry.held = None;
        true
    }

    pub(super) fn forget(&self, id: &str) -> bool {
        self.entries().remove(id).is_some()
    }
}

impl Entry {
    fn hold(&mut self, words: StateWords, word: &str) {
        let known = words.iter().find(|(_, known)| *known == word).map(|(phase, _)| *phase);
        self.hold_in(known.unwrap_or(Phase::Running), word);
    }

    fn hold_in(&mut self, phase: Phase, word: &str) {
        let before = self.held.take();
        let now = Timestamp::now();
        let (progress, retried_after, started_at) = match before {
            Some(held) => (held.progress, held.retried_after, held.started_at),
            None => (0, None, None),
        };
        let retry =
            || self.plan.retried_after.clone().unwrap_or_else(|| "the first attempt failed".to_owned());
        self.held = Some(Held {
            word: word.to_owned(),
            phase,
            progress,
            retried_after: if phase == Phase::Retrying { Some(retry()) } else { retried_after },
            started_at: started_at.or((phase != Phase::Queued).then_some(now)),
            ended_at: phase.has_ended().then_some(now),
        });
    }

    fn snapshot(&self, words: StateWords, id: &str) -> Option<JobSnapshot> {
        let age = self.since.elapsed();
        let plan = &self.plan;
        if age < plan.appears_after || plan.vanishes_after.is_some_and(|limit| age >= limit) {
            return None;
        }
        let mut snapshot = JobSnapshot {
            id: id.to_owned(),
            tag: self.tag.clone(),
            phase: Phase::Queued,
            word: String::new(),
            progress: 0,
            retried_after: None,
            created_at: self.created_at,
            started_at: None,
            ended_at: None,
            plan: Arc::clone(plan),
        };
        if let Some(held) = &self.held {
            snapshot.phase = held.phase;
            snapshot.word.clone_from(&held.word);
            snapshot.progress = held.progress;
            snapshot.retried_after.clone_from(&held.retried_after);
            snapshot.started_at = held.started_at;
            snapshot.ended_at = held.ended_at;
            return Some(snapshot);
        }
        self.follow_plan(&mut snapshot, age);
        word_for(words, snapshot.phase).clone_into(&mut snapshot.word);
        Some(snapshot)
    }

    fn follow_plan(&self, snapshot: &mut JobSnapshot, age: Duration) {
        let plan = &self.plan;
        let Some(run) = age.checked_sub(plan.queued_for) else { return };
        let at = |offset| self.created_at.saturating_add(signed(offset)).unwrap_or(self.created_at);
        snapshot.started_at = Some(at(plan.queued_for));
        if run < plan.running_for {
            let part = run.as_secs_f64() / plan.running_for.as_secs_f64();
            snapshot.progress = percent(part);
            snapshot.phase = Phase::Running;
            if let Some(error) = plan.retried_after.as_ref().filter(|_| part >= 1.0 / 3.0) {
                snapshot.retried_after = Some(error.clone());
                if part < 2.0 / 3.0 {
                    snapshot.phase = Phase::Retrying;
                }
            }
            return;
        }
        let runs_on = match plan.end {
            End::Cancelled { still_running_for } => still_running_for,
            _ => Duration::ZERO,
        };
        snapshot.progress = if matches!(plan.end, End::Success(_)) { 100 } else { 99 };
        snapshot.retried_after.clone_from(&plan.retried_after);
        let total = plan.running_for.saturating_add(runs_on);
        if run < total {
            snapshot.phase = Phase::Cancelling;
        } else {
            snapshot.phase = Phase::at_end(&plan.end);
            snapshot.ended_at = Some(at(plan.queued_for.saturating_add(total)));
        }
    }
}

fn signed(time: Duration) -> SignedDuration {
    SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX)
}

/// Below 100 while something is left.
fn percent(part: f64) -> u8 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 99")]
    let percent = (part * 100.0).clamp(0.0, 99.0) as u8;
    percent
}
