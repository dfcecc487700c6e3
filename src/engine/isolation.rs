//! Finds the jobs that make a batch fail.
//!
//! A failed poll of several jobs does not say whose fault it is. Its jobs are polled again
//! in halves, side by side, until each part is answered or is a single job that fails
//! alone. That goes on as long as anything at the backend succeeds. To find that out soon,
//! a *canary* is polled beside the halves: a single job that was answered before, if
//! possible none of the batch, since all its jobs may be at fault. Without
//! any success only log2(batch size) further polls are sent, at least two: if all fail, the
//! backend is down. After a success the halving goes on to its end, unless another batch
//! fails meanwhile.
//!
//! Where the limits leave no room for both halves of a part, one is polled first. If it is
//! answered, a failing job is in the other, which is halved without a poll of its own. No
//! job is blamed that way: a single job is always polled. The halves of a whole batch are
//! both polled, since the batch may have failed by chance.
//!
//! ```text
//!   batch fails ──> parts ──> in flight ──> answered
//!                     ^           │
//!                     │           ├── several jobs fail ──> two parts
//!                     │           └── one job fails ──> suspect
//!                     │                                     ├── something succeeded: quarantine
//!                     └─────────────────────────────────────└── every poll failed: outage
//! ```
//!
//! With k failing jobs in a batch of b, at most k parts of each size fail, so 2·k·log2(b)
//! polls find them all.
//!
//! Pure state; jobs are whatever `J` is.

use std::collections::VecDeque;

/// Polls without a success that are sent for a batch of any size: of two jobs either may be
/// at fault.
const MIN_POLLS_WITHOUT_SUCCESS: u32 = 2;

/// What follows from a failed poll.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict<J> {
    /// Further polls will tell.
    Pending,
    /// The job fails alone while others are answered.
    Quarantine(J),
    /// Nothing succeeds: the backend is down. These jobs are to be polled when it answers
    /// again; of the suspects each failed alone.
    Outage { jobs: Vec<J>, suspects: Vec<J> },
}

/// Names a part that failed and was split, so that a poll of one half tells of the other.
/// `None` where it would not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Split(Option<u64>);

impl Split {
    /// Of a part that is no half of another.
    const NONE: Self = Self(None);
}

/// Jobs that are polled together.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part<J> {
    pub(super) jobs: Vec<J>,
    /// What it is a half of.
    pub(super) split: Split,
    /// The other half is in flight: this one is polled after the other parts.
    yields: bool,
}

/// The parts of failed batches of one backend.
#[derive(Debug)]
pub(super) struct Isolation<J> {
    parts: VecDeque<Part<J>>,
    /// Counts the parts that were split.
    splits: u64,
    /// Jobs that failed alone when nothing else was known to succeed.
    suspects: Vec<J>,
    in_flight: usize,
    /// Polls of parts since anything succeeded.
    polls_without_success: u32,
    /// How many such polls may be sent.
    allowed: u32,
    /// The next part to poll is a single job.
    canary_next: bool,
    /// Something has succeeded since the last batch failed.
    backend_answers: bool,
    /// Parts that were answered.
    answered: usize,
    /// The smallest part, or batch, of several jobs that failed.
    smallest_failed: usize,
    /// A job was found to be at fault, or one that is not polled again may have been.
    found: bool,
}

impl<J> Default for Isolation<J> {
    fn default() -> Self {
        Self {
            parts: VecDeque::new(),
            splits: 0,
            suspects: Vec::new(),
            in_flight: 0,
            polls_without_success: 0,
            allowed: 0,
            canary_next: false,
            backend_answers: false,
            answered: 0,
            smallest_failed: usize::MAX,
            found: false,
        }
    }
}

impl<J> Isolation<J> {
    /// Whether any part waits to be polled or is in flight.
    pub(super) fn is_active(&self) -> bool {
        self.in_flight > 0 || self.has_waiting()
    }

    /// Whether any job waits for a poll of its part, or for the others' outcome.
    pub(super) fn has_waiting(&self) -> bool {
        !self.parts.is_empty() || !self.suspects.is_empty()
    }

    /// Whether a part may be polled now.
    pub(super) fn is_ready(&self) -> bool {
        !self.parts.is_empty() && (self.backend_answers || self.polls_without_success < self.allowed)
    }

    /// Whether the next poll is for a canary: to tell whether the backend answers at all.
    pub(super) fn wants_canary(&self) -> bool {
        let is_last = self.polls_without_success + 1 == self.allowed;
        self.is_ready() && !self.backend_answers && (self.canary_next || is_last)
    }

    /// A job that is in no part is polled as the canary, and counts as a part.
    pub(super) fn canary_taken(&mut self) -> Split {
        self.polls_without_success += 1;
        self.in_flight += 1;
        self.canary_next = false;
        Split::NONE
    }

    /// Takes the next part to poll. The first and the last of those that are sent without
    /// a success are a single job, the one that is most `trusted`.
    pub(super) fn take<T: Ord>(&mut self, trusted: impl Fn(&J) -> T) -> Option<Part<J>> {
        if !self.is_ready() {
            return None;
        }
        self.polls_without_success += 1;
        self.in_flight += 1;
        let is_canary = std::mem::take(&mut self.canary_next) || self.polls_without_success == self.allowed;
        if is_canary && !self.backend_answers {
            return self.take_canary(trusted);
        }
        let place = self.parts.iter().position(|part| !part.yields).unwrap_or(0);
        let part = self.parts.remove(place)?;
        if let Some(other) = self.other_half(part.split) {
            self.parts[other].yields = true;
        }
        Some(part)
    }

    fn take_canary<T: Ord>(&mut self, trusted: impl Fn(&J) -> T) -> Option<Part<J>> {
        let places = self.parts.iter().enumerate();
        let places = places.flat_map(|(part, Part { jobs, .. })| (0..jobs.len()).map(move |job| (part, job)));
        let (place, job) = places.max_by_key(|(part, job)| trusted(&self.parts[*part].jobs[*job]))?;
        let part = &mut self.parts[place];
        let canary = part.jobs.swap_remove(job);
        // The failing job may be the canary.
        part.split = Split::NONE;
        if part.jobs.is_empty() {
            self.parts.remove(place);
        }
        Some(Part { jobs: vec![canary], split: Split::NONE, yields: false })
    }

    /// The place of a half that is not in flight.
    fn other_half(&self, split: Split) -> Option<usize> {
        self.parts.iter().position(|part| split != Split::NONE && part.split == split)
    }

    /// Halves a part that has failed, or that is known to fail.
    fn halve(&mut self, mut jobs: Vec<J>, split: Split) {
        let second_half = jobs.split_off(jobs.len().div_ceil(2));
        let half = |jobs| Part { jobs, split, yields: false };
        self.parts.extend([half(jobs), half(second_half)]);
    }

    fn next_split(&mut self) -> Split {
        self.splits += 1;
        Split(Some(self.splits))
    }

    /// A poll of this half says nothing of the other one.
    pub(super) fn unlink(&mut self, split: Split) {
        if let Some(other) = self.other_half(split) {
            self.parts[other].split = Split::NONE;
            self.parts[other].yields = false;
        }
    }

    /// A part was not polled after all, or its poll said nothing about its jobs.
    pub(super) fn part_dropped(&mut self, split: Split) {
        self.unlink(split);
        self.in_flight -= 1;
        self.polls_without_success = self.polls_without_success.saturating_sub(1);
    }

    /// Some poll of the backend succeeded. Returns the suspects, which are at fault
    /// themselves then.
    pub(super) fn something_succeeded(&mut self) -> Vec<J> {
        self.polls_without_success = 0;
        self.canary_next = false;
        self.backend_answers = true;
        self.found |= !self.suspects.is_empty();
        std::mem::take(&mut self.suspects)
    }

    /// A part was answered. Its poll began after the part that was split had failed, so a
    /// failing job is in the other half.
    pub(super) fn part_answered(&mut self, split: Split) {
        self.in_flight -= 1;
        self.answered += 1;
        let Some(other) = self.other_half(split) else { return };
        if self.parts[other].jobs.len() == 1 {
            self.unlink(split);
        } else if let Some(Part { jobs, .. }) = self.parts.remove(other) {
            let split = self.next_split();
            self.halve(jobs, split);
        }
    }

    /// Suspects for whom nothing is left that would tell whether the backend answers: the
    /// polls of the other jobs were cancelled.
    pub(super) fn abandoned_suspects(&mut self) -> Vec<J> {
        if self.in_flight > 0 || !self.parts.is_empty() {
            return Vec::new();
        }
        self.found |= !self.suspects.is_empty();
        std::mem::take(&mut self.suspects)
    }

    /// The batch held another job that is not polled again, and may have been at fault.
    pub(super) fn may_be_another_job(&mut self) {
        self.found = true;
    }

    /// How many jobs failed together although each of them was answered in a smaller part,
    /// if that is how the isolation ended. Called when there may be nothing left to isolate.
    pub(super) fn finish(&mut self) -> Option<usize> {
        if self.is_active() || self.allowed == 0 {
            return None;
        }
        let Self { answered, smallest_failed, found, .. } = std::mem::take(self);
        (!found && answered > 0).then_some(smallest_failed)
    }

    /// A poll of `jobs` failed in a way that one of them may have caused. A part has the
    /// `split` that it is a half of, a batch has none. `succeeded_since` tells whether
    /// another poll has succeeded since this one began.
    pub(super) fn failed(
        &mut self,
        mut jobs: Vec<J>,
        split: Option<Split>,
        succeeded_since: bool,
    ) -> Verdict<J> {
        if let Some(split) = split {
            self.in_flight -= 1;
            self.unlink(split);
        } else {
            self.backend_answers = false;
        }
        if succeeded_since {
            self.polls_without_success = 0;
            self.backend_answers = true;
        }
        self.canary_next = !self.backend_answers;
        if jobs.len() == 1 {
            let job = jobs.remove(0);
            if self.backend_answers {
                self.found = true;
                return Verdict::Quarantine(job);
            }
            self.suspects.push(job);
        } else {
            if !self.is_active() || self.allowed == 0 {
                self.polls_without_success = 0;
                (self.answered, self.smallest_failed, self.found) = (0, usize::MAX, false);
            }
            self.smallest_failed = self.smallest_failed.min(jobs.len());
            self.allowed =
                self.allowed.max(MIN_POLLS_WITHOUT_SUCCESS).max(jobs.len().next_power_of_two().ilog2());
            let split = if split.is_some() { self.next_split() } else { Split::NONE };
            self.halve(jobs, split);
        }
        if self.in_flight > 0 || self.is_ready() {
            return Verdict::Pending;
        }
        self.outage()
    }

    /// The jobs that wait for the end of the isolation and are not in flight.
    #[cfg(test)]
    pub(super) fn jobs(&self) -> impl Iterator<Item = &J> {
        self.parts.iter().flat_map(|part| &part.jobs).chain(&self.suspects)
    }

    /// Everything that is left, for a backend that is down.
    pub(super) fn outage(&mut self) -> Verdict<J> {
        let Self { parts, suspects, in_flight, splits, .. } = std::mem::take(self);
        (self.in_flight, self.splits) = (in_flight, splits);
        Verdict::Outage { jobs: parts.into_iter().flat_map(|part| part.jobs).collect(), suspects }
    }
}

#[cfg(test)]
mod tests;
