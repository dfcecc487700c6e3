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

/// The parts of failed batches of one backend.
#[derive(Debug)]
pub(super) struct Isolation<J> {
    parts: VecDeque<Vec<J>>,
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
    pub(super) fn canary_taken(&mut self) {
        self.polls_without_success += 1;
        self.in_flight += 1;
        self.canary_next = false;
    }

    /// Takes the next part to poll. The first and the last of those that are sent without
    /// a success are a single job, the one that is most `trusted`.
    pub(super) fn take<T: Ord>(&mut self, trusted: impl Fn(&J) -> T) -> Option<Vec<J>> {
        if !self.is_ready() {
            return None;
        }
        self.polls_without_success += 1;
        self.in_flight += 1;
        if self.backend_answers {
            return self.parts.pop_front();
        }
        if std::mem::take(&mut self.canary_next) || self.polls_without_success == self.allowed {
            let places = self.parts.iter().enumerate();
            let places = places.flat_map(|(part, jobs)| (0..jobs.len()).map(move |job| (part, job)));
            let (part, job) = places.max_by_key(|(part, job)| trusted(&self.parts[*part][*job]))?;
            let canary = self.parts[part].swap_remove(job);
            if self.parts[part].is_empty() {
                self.parts.remove(part);
            }
            return Some(vec![canary]);
        }
        self.parts.pop_front()
    }

    /// A part was not polled after all, or its poll told nothing about its jobs.
    pub(super) fn part_dropped(&mut self) {
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

    /// A part was answered.
    pub(super) fn part_answered(&mut self) {
        self.in_flight -= 1;
        self.answered += 1;
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

    /// A poll of `jobs` failed in a way that one of them may have caused. `is_part` tells a
    /// part from a batch, `succeeded_since` whether another poll has succeeded since this
    /// one began.
    pub(super) fn failed(&mut self, mut jobs: Vec<J>, is_part: bool, succeeded_since: bool) -> Verdict<J> {
        if is_part {
            self.in_flight -= 1;
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
            let second_half = jobs.split_off(jobs.len().div_ceil(2));
            self.parts.extend([jobs, second_half]);
        }
        if self.in_flight > 0 || self.is_ready() {
            return Verdict::Pending;
        }
        self.outage()
    }

    /// The jobs that wait for the end of the isolation and are not in flight.
    #[cfg(test)]
    pub(super) fn jobs(&self) -> impl Iterator<Item = &J> {
        self.parts.iter().flatten().chain(&self.suspects)
    }

    /// Everything that is left, for a backend that is down.
    pub(super) fn outage(&mut self) -> Verdict<J> {
        let Self { parts, suspects, in_flight, .. } = std::mem::take(self);
        self.in_flight = in_flight;
        Verdict::Outage { jobs: parts.into_iter().flatten().collect(), suspects }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Isolates `failing` among `batch` jobs, with all parts that are ready polled side by
    /// side. Returns what was quarantined, the polls, in
    /// which round the last healthy job was answered, and whether it is taken for an outage.
    fn isolate(batch: usize, failing: &BTreeSet<usize>) -> (BTreeSet<usize>, usize, usize, bool) {
        let mut isolation = Isolation::default();
        let mut quarantined = BTreeSet::new();
        let mut answered = BTreeSet::new();
        let (mut polls, mut rounds, mut outage) = (1, 1, false);
        let mut answered_in = 1;
        let mut settle = |verdict, quarantined: &mut BTreeSet<usize>| match verdict {
            Verdict::Pending => {}
            Verdict::Quarantine(job) => assert!(quarantined.insert(job)),
            Verdict::Outage { .. } => outage = true,
        };
        settle(isolation.failed((0..batch).collect(), false, false), &mut quarantined);
        while isolation.is_ready() {
            let parts: Vec<Vec<usize>> = std::iter::from_fn(|| isolation.take(|_| 0)).collect();
            polls += parts.len();
            rounds += 1;
            let is_good = |part: &[usize]| part.iter().all(|job| !failing.contains(job));
            let any_good = parts.iter().any(|part| is_good(part));
            for part in parts {
                if is_good(&part) {
                    quarantined.extend(isolation.something_succeeded());
                    isolation.part_answered();
                    answered.extend(part);
                    answered_in = rounds;
                } else {
                    settle(isolation.failed(part, true, any_good), &mut quarantined);
                }
            }
        }
        if !outage {
            assert!(!isolation.is_active(), "nothing is left behind");
            assert_eq!(answered.len() + quarantined.len(), batch);
        }
        (quarantined, polls, answered_in, outage)
    }

    #[test]
    fn one_failing_job_of_a_hundred_is_found_in_sixteen_polls() {
        for failing in 0..100 {
            let (found, polls, rounds, outage) = isolate(100, &BTreeSet::from([failing]));
            assert_eq!((found, outage), (BTreeSet::from([failing]), false));
            assert!(polls <= 16 && rounds <= 8, "{polls} polls, {rounds} rounds");
        }
    }

    #[test]
    fn outage_costs_log2_of_the_batch_size_in_polls() {
        for batch in [2, 3, 5, 64, 100, 200, 1000] {
            let (_, polls, _, outage) = isolate(batch, &(0..batch).collect());
            assert!(outage);
            assert_eq!(polls - 1, (batch.next_power_of_two().ilog2() as usize).max(2), "{batch}");
        }
    }

    #[test]
    fn first_and_last_poll_without_a_success_are_for_trusted_jobs() {
        let mut isolation = Isolation::default();
        isolation.failed(vec![1, 2, 3, 4], false, false);
        assert_eq!(isolation.take(|job| *job), Some(vec![4]));
        assert_eq!(isolation.take(|job| *job), Some(vec![3]));
        assert_eq!(isolation.take(|job| *job), None, "until something succeeds");
        isolation.something_succeeded();
        assert_eq!(isolation.take(|job| *job), Some(vec![1, 2]));
    }

    #[test]
    fn batch_whose_parts_are_all_answered_has_no_failing_job() {
        let mut isolation = Isolation::default();
        isolation.failed((0..10).collect(), false, false);
        while isolation.take(|_| 0).is_some() {
            assert!(isolation.something_succeeded().is_empty());
            isolation.part_answered();
        }
        assert_eq!(isolation.finish(), Some(10));
        assert_eq!(isolation.finish(), None);
    }

    #[test]
    fn suspect_is_quarantined_when_something_else_succeeds() {
        let mut isolation = Isolation::default();
        isolation.failed(vec!["bad", "good"], false, false);
        let canary = isolation.take(|job| *job == "bad").unwrap();
        assert_eq!(isolation.failed(canary, true, false), Verdict::Pending);
        let other = isolation.take(|_| 0).unwrap();
        assert_eq!(isolation.failed(other, true, false), {
            Verdict::Outage { jobs: Vec::new(), suspects: vec!["bad", "good"] }
        });
        isolation.failed(vec!["a", "bad", "b", "c"], false, false);
        let canary = isolation.take(|job| *job == "bad").unwrap();
        assert_eq!(isolation.failed(canary, true, false), Verdict::Pending);
        assert_eq!(isolation.take(|job| *job == "a"), Some(vec!["a"]));
        assert_eq!(isolation.something_succeeded(), ["bad"]);
        isolation.part_answered();
        assert_eq!(isolation.take(|_| 0), Some(vec!["b", "c"]));
    }

    proptest! {
        #[test]
        fn all_failing_jobs_are_found_within_the_bound(
            batch in 2..200_usize,
            failing in proptest::collection::btree_set(0..200_usize, 1..12),
        ) {
            let failing: BTreeSet<usize> = failing.into_iter().filter(|job| *job < batch).collect();
            let (found, polls, rounds, outage) = isolate(batch, &failing);
            let log2 = batch.next_power_of_two().ilog2() as usize;
            if outage {
                prop_assert!(polls <= 1 + log2);
            } else {
                prop_assert_eq!(&found, &failing);
                // One poll would have been sent anyway.
                prop_assert!(failing.is_empty() || polls - 1 <= 2 * failing.len() * log2 + 4);
                prop_assert!(rounds <= log2 + 2, "{} rounds", rounds);
            }
        }
    }
}
