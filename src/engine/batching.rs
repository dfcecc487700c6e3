//! How many jobs one poll holds.
//!
//! Usually as many as the vendor allows. Fewer after an answer that was too large, or
//! after batches that failed although each of their parts was answered; and after an outage
//! the size grows from one (slow start), so that the first request that a vendor gets when
//! it comes back is not the largest.

/// Successes after which the limit grows by an eighth, where it was lowered because a
/// batch of that size failed.
const SUCCESSES_TO_GROW: usize = 100;

/// The limit on the size of a batch.
#[derive(Debug)]
pub(super) struct BatchLimit {
    max: usize,
    current: usize,
    /// Up to this size each success doubles the limit; beyond it, growth is slow.
    doubles_up_to: usize,
    /// The largest batch that was answered.
    largest_answered: usize,
    successes: usize,
    /// A batch of so many jobs failed although each of its parts was answered.
    failed_in_whole: Option<usize>,
}

impl BatchLimit {
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            current: max,
            doubles_up_to: max,
            largest_answered: 0,
            successes: 0,
            failed_in_whole: None,
        }
    }

    pub(super) fn get(&self) -> usize {
        self.current
    }

    /// A batch of so many jobs was answered.
    pub(super) fn succeeded(&mut self, jobs: usize) {
        self.largest_answered = self.largest_answered.max(jobs);
        if self.failed_in_whole.is_some_and(|failed| failed <= jobs) {
            self.failed_in_whole = None;
        }
        if self.current >= self.max {
            return;
        }
        if self.current < self.doubles_up_to {
            if jobs >= self.current {
                self.current = (2 * self.current).min(self.doubles_up_to);
            }
            return;
        }
        self.successes += 1;
        if self.successes >= SUCCESSES_TO_GROW {
            self.current = (self.current + self.current.div_ceil(8)).min(self.max);
            self.doubles_up_to = self.current;
            self.successes = 0;
        }
    }

    /// The answer about a batch of so many jobs was too large.
    pub(super) fn too_large(&mut self, jobs: usize) {
        if self.largest_answered >= jobs {
            self.largest_answered = 0;
        }
        self.lower_to(self.largest_answered.max(jobs.div_ceil(2)));
    }

    /// A batch of so many jobs failed although each of its parts was answered. The first
    /// time it may have been chance; the second time it was too large.
    pub(super) fn failed_in_whole(&mut self, jobs: usize) {
        if self.failed_in_whole.replace(jobs).is_some() {
            self.failed_in_whole = None;
            self.too_large(jobs);
        }
    }

    fn lower_to(&mut self, jobs: usize) {
        self.current = self.current.min(jobs.max(1));
        self.doubles_up_to = self.current;
        self.successes = 0;
    }

    /// The backend does not answer at all: the size grows from one when it does again.
    pub(super) fn slow_start(&mut self) {
        self.current = 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_doubles_after_an_outage() {
        let mut limit = BatchLimit::new(100);
        limit.slow_start();
        let mut sizes = Vec::new();
        for _ in 0..8 {
            sizes.push(limit.get());
            limit.succeeded(limit.get());
        }
        assert_eq!(sizes, [1, 2, 4, 8, 16, 32, 64, 100]);
    }

    #[test]
    fn batches_that_are_not_full_do_not_raise_the_limit_in_slow_start() {
        let mut limit = BatchLimit::new(100);
        limit.slow_start();
        limit.succeeded(1);
        limit.succeeded(1);
        assert_eq!(limit.get(), 2);
    }

    #[test]
    fn too_large_answers_halve_the_limit_to_what_has_fit() {
        let mut limit = BatchLimit::new(200);
        limit.too_large(200);
        assert_eq!(limit.get(), 100);
        limit.succeeded(60);
        limit.too_large(100);
        assert_eq!(limit.get(), 60);
        for _ in 0..SUCCESSES_TO_GROW {
            assert_eq!(limit.get(), 60);
            limit.succeeded(60);
        }
        assert_eq!(limit.get(), 68, "it dares a little more");
        limit.slow_start();
        for _ in 0..8 {
            limit.succeeded(limit.get());
        }
        assert_eq!(limit.get(), 68, "slow start ends where the limit was");
    }

    #[test]
    fn limit_is_lowered_when_batches_fail_twice_whose_parts_are_answered() {
        let mut limit = BatchLimit::new(200);
        for _ in 0..3 {
            limit.failed_in_whole(120);
            assert_eq!(limit.get(), 200, "once may be chance");
            limit.succeeded(60);
            limit.succeeded(120);
        }
        limit.failed_in_whole(160);
        limit.succeeded(80);
        limit.failed_in_whole(160);
        assert_eq!(limit.get(), 120, "so many were answered");
    }

    #[test]
    fn limit_is_never_zero() {
        let mut limit = BatchLimit::new(2);
        limit.too_large(1);
        limit.too_large(1);
        assert_eq!(limit.get(), 1);
    }
}
