//! Which of a backend's clusters is polled, and when the primary's health is checked, as
//! functions of plain state.
//!
//! ```text
//!             the active cluster fails
//!   primary --------------------------> a standby --+ it fails: the next one,
//!     ^                                  |  ^-------+ at the end the primary
//!     +------ the primary is healthy ----+
//! ```
//!
//! A poll tries each cluster at most once, so it ends whatever they answer. The primary's
//! health is checked by back-off, which only an answer about a job makes short again: a
//! cluster that calls itself healthy and then fails is switched back to ever less often.

use std::time::Duration;

use tokio::time::Instant;

use crate::transport::{Backoff, LONGEST_RETRY_AFTER};

/// The clusters of one backend; 0 is the primary, the others are its standbys.
#[derive(Debug)]
pub(super) struct FailoverState {
    backoff: Backoff,
    active: usize,
    /// The time before which each asked not to be polled.
    retry_at: Vec<Option<Instant>>,
    /// Times that the primary failed or was not healthy since it last answered.
    primary_failures: u32,
    check_at: Option<Instant>,
    /// Changes of the active cluster.
    switches: u64,
}

/// The clusters that one poll has tried.
#[derive(Debug)]
pub(super) struct Attempts {
    tried: Vec<bool>,
    /// [`FailoverState::switches`] at the last attempt.
    switches: u64,
}

impl FailoverState {
    /// `clusters` (at least one), of which the primary is active.
    pub(super) fn new(clusters: usize, backoff: Backoff) -> Self {
        let retry_at = vec![None; clusters.max(1)];
        Self { backoff, active: 0, retry_at, primary_failures: 0, check_at: None, switches: 0 }
    }

    /// The cluster that polls begin with.
    pub(super) fn active(&self) -> usize {
        self.active
    }

    /// Begins a poll.
    pub(super) fn begin(&self) -> Attempts {
        Attempts { tried: vec![false; self.retry_at.len()], switches: self.switches }
    }

    /// The cluster to try next: the active one or the next behind it that this poll has
    /// not tried and that may be polled at `now`.
    pub(super) fn next(&self, attempts: &mut Attempts, now: Instant) -> Option<usize> {
        let clusters = self.retry_at.len();
        let may_be_polled = |cluster: &usize| {
            !attempts.tried[*cluster] && self.retry_at[*cluster].is_none_or(|until| until <= now)
        };
        let next = (0..clusters).map(|step| (self.active + step) % clusters).find(may_be_polled)?;
        attempts.tried[next] = true;
        attempts.switches = self.switches;
        Some(next)
    }

    /// The last attempt, at `cluster`, gave no usable response.
    pub(super) fn failed(
        &mut self,
        attempts: &Attempts,
        cluster: usize,
        retry_after: Option<Duration>,
        now: Instant,
        dice: f64,
    ) {
        if let Some(wait) = retry_after {
            let until = now + wait.min(LONGEST_RETRY_AFTER);
            self.retry_at[cluster] = self.retry_at[cluster].max(Some(until));
        }
        // An attempt from before the last switch says nothing new.
        if attempts.switches != self.switches || self.active != cluster || self.retry_at.len() == 1 {
            return;
        }
        if cluster == 0 {
            self.primary_failed(now, dice);
        }
        self.switch_to((cluster + 1) % self.retry_at.len());
    }

    /// The last attempt, at `cluster`, was answered.
    pub(super) fn answered(&mut self, attempts: &Attempts, cluster: usize) {
        if attempts.switches == self.switches && cluster == 0 && self.active == 0 {
            self.primary_failures = 0;
        }
    }

    /// No cluster answered a poll: the next poll begins with the primary. Returns how long
    /// to wait, where all of them asked for a wait.
    pub(super) fn exhausted(&mut self, now: Instant) -> Option<Duration> {
        if self.active != 0 {
            self.switch_to(0);
        }
        let earliest = self.retry_at.iter().copied().min().flatten()?;
        Some(earliest.saturating_duration_since(now)).filter(|wait| !wait.is_zero())
    }

    /// Whether to check the primary's health now, since a standby is active. If so, the
    /// next check is planned as if this one had failed: it may end without a verdict.
    pub(super) fn take_health_check(&mut self, now: Instant, dice: f64) -> bool {
        let due = self.active != 0
            && self.check_at.is_none_or(|at| at <= now)
            && self.retry_at[0].is_none_or(|until| until <= now);
        if due {
            self.primary_failed(now, dice);
        }
        due
    }

    /// The primary is healthy, and so active again.
    pub(super) fn recovered(&mut self) {
        if self.active != 0 {
            self.switch_to(0);
        }
    }

    fn primary_failed(&mut self, now: Instant, dice: f64) {
        self.primary_failures = self.primary_failures.saturating_add(1);
        self.check_at = Some(now + self.backoff.wait(self.primary_failures, dice));
    }

    fn switch_to(&mut self, cluster: usize) {
        self.active = cluster;
        self.switches += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const BACKOFF: Backoff = Backoff { min: SECOND, max: Duration::from_secs(30) };

    fn clusters(number: usize) -> FailoverState {
        FailoverState::new(number, BACKOFF)
    }

    /// A poll for which all clusters of `broken` fail. Returns which were tried.
    fn poll(state: &mut FailoverState, broken: &[usize], now: Instant) -> Vec<usize> {
        let (mut attempts, mut tried) = (state.begin(), Vec::new());
        while let Some(cluster) = state.next(&mut attempts, now) {
            tried.push(cluster);
            if !broken.contains(&cluster) {
                state.answered(&attempts, cluster);
                return tried;
            }
            state.failed(&attempts, cluster, None, now, 0.5);
        }
        state.exhausted(now);
        tried
    }

    #[test]
    fn active_cluster_is_polled_until_it_fails() {
        let (mut state, now) = (clusters(3), Instant::now());
        assert_eq!(poll(&mut state, &[], now), [0]);
        assert_eq!(poll(&mut state, &[0], now), [0, 1]);
        assert_eq!(poll(&mut state, &[0], now), [1], "it stays there");
        assert_eq!(poll(&mut state, &[0, 1], now), [1, 2]);
        assert_eq!(poll(&mut state, &[1, 2], now), [2, 0], "behind the last comes the primary");
        assert_eq!(state.active(), 0);
    }

    #[test]
    fn poll_that_fails_everywhere_tries_each_cluster_once() {
        let (mut state, now) = (clusters(3), Instant::now());
        poll(&mut state, &[0], now);
        assert_eq!(poll(&mut state, &[0, 1, 2], now), [1, 2, 0]);
        assert_eq!(poll(&mut state, &[0, 1, 2], now), [0, 1, 2]);
    }

    #[test]
    fn failure_from_before_a_switch_does_not_switch_again() {
        let (mut state, now) = (clusters(3), Instant::now());
        let (mut one, mut other) = (state.begin(), state.begin());
        assert_eq!((state.next(&mut one, now), state.next(&mut other, now)), (Some(0), Some(0)));
        state.failed(&one, 0, None, now, 0.5);
        assert_eq!(state.active(), 1);
        state.recovered();
        state.failed(&other, 0, None, now, 0.5);
        assert_eq!(state.active(), 0, "it was tried before the recovery");
        assert_eq!(state.next(&mut other, now), Some(1), "but its poll goes on");
    }

    #[test]
    fn health_check_of_the_primary_follows_back_off() {
        let (mut state, mut now) = (clusters(2), Instant::now());
        assert!(!state.take_health_check(now, 0.0), "not while it is active");
        poll(&mut state, &[0], now);
        assert!(!state.take_health_check(now, 0.0), "not at once");
        let mut waits = Vec::new();
        for _ in 0..6 {
            let begun = now;
            while !state.take_health_check(now, 1.0) {
                now += SECOND / 2;
            }
            waits.push((now - begun).as_secs());
        }
        assert_eq!(waits, [1, 4, 8, 16, 30, 30]);
        state.recovered();
        assert_eq!(state.active(), 0);
    }

    #[test]
    fn primary_that_fails_after_each_recovery_is_returned_to_less_often() {
        let (mut state, mut now) = (clusters(2), Instant::now());
        let mut returns = 0;
        let end = now + Duration::from_mins(10);
        while now < end {
            poll(&mut state, &[0], now);
            if state.take_health_check(now, 1.0) {
                state.recovered();
                returns += 1;
            }
            now += SECOND;
        }
        // Sixteen seconds at the dice of `poll`.
        assert!((36..=40).contains(&returns), "{returns}");
        // An answer makes up for it.
        state.recovered();
        poll(&mut state, &[], now);
        poll(&mut state, &[0], now);
        assert!(state.take_health_check(now + 2 * SECOND, 1.0));
    }

    #[test]
    fn cluster_with_retry_after_is_not_polled_meanwhile() {
        let (mut state, now) = (clusters(2), Instant::now());
        let later = now + 20 * SECOND;
        let mut one = state.begin();
        state.next(&mut one, now);
        state.failed(&one, 0, Some(20 * SECOND), now, 0.0);
        assert!(!state.take_health_check(later - SECOND, 0.0));
        assert_eq!(poll(&mut state, &[1], now), [1], "the primary is not polled either");
        assert_eq!(state.exhausted(now), None, "the standby did not ask for it");
        assert_eq!(poll(&mut state, &[1], later), [0]);

        let mut other = state.begin();
        for _ in 0..2 {
            let cluster = state.next(&mut other, later).unwrap();
            state.failed(&other, cluster, Some(5 * SECOND), later, 0.0);
        }
        assert_eq!(state.next(&mut state.begin(), later), None);
        assert_eq!(state.exhausted(later + SECOND), Some(4 * SECOND));
        let mut years = state.begin();
        let at = later + 5 * SECOND;
        let cluster = state.next(&mut years, at).unwrap();
        state.failed(&years, cluster, Some(Duration::MAX), at, 0.0);
        assert!(state.next(&mut state.begin(), at + LONGEST_RETRY_AFTER).is_some());
    }

    #[test]
    fn single_cluster_stays_active() {
        let (mut state, now) = (clusters(1), Instant::now());
        assert_eq!(poll(&mut state, &[0], now), [0]);
        assert_eq!(poll(&mut state, &[0], now), [0]);
        assert!(!state.take_health_check(now + Duration::from_mins(1), 0.0));
    }

    #[derive(Clone, Debug)]
    enum Operation {
        Begin,
        Try(usize),
        Fail(usize, Option<u64>),
        Answer(usize),
        CheckHealth(bool),
        Wait(u64),
    }

    fn operations() -> impl Strategy<Value = Vec<Operation>> {
        let which = 0..4_usize;
        let operation = prop_oneof![
            1 => Just(Operation::Begin),
            4 => which.clone().prop_map(Operation::Try),
            3 => (which.clone(), prop::option::weighted(0.2, 0..40_u64)).prop_map(|(n, wait)| Operation::Fail(n, wait)),
            1 => which.prop_map(Operation::Answer),
            2 => any::<bool>().prop_map(Operation::CheckHealth),
            2 => (0..3000_u64).prop_map(Operation::Wait),
        ];
        prop::collection::vec(operation, 1..200)
    }

    proptest! {
        #[test]
        fn no_poll_tries_a_cluster_twice_and_no_health_check_comes_too_soon(
            number in 1..5_usize,
            operations in operations(),
            dice in 0.0..1.0_f64,
        ) {
            let (mut state, mut now) = (clusters(number), Instant::now());
            let mut polls: Vec<(Attempts, Vec<usize>)> = Vec::new();
            let mut checked_at: Option<Instant> = None;
            for operation in operations {
                match operation {
                    Operation::Begin => polls.push((state.begin(), Vec::new())),
                    Operation::Try(n) if n < polls.len() => {
                        let (attempts, tried) = &mut polls[n];
                        if let Some(cluster) = state.next(attempts, now) {
                            prop_assert!(!tried.contains(&cluster));
                            prop_assert!(state.retry_at[cluster].is_none_or(|until| until <= now));
                            tried.push(cluster);
                        } else if tried.len() == number {
                            state.exhausted(now);
                            prop_assert_eq!(state.active(), 0);
                        }
                    }
                    Operation::Fail(n, wait) if n < polls.len() => {
                        let (attempts, tried) = &polls[n];
                        if let Some(&cluster) = tried.last() {
                            state.failed(attempts, cluster, wait.map(Duration::from_secs), now, dice);
                        }
                    }
                    Operation::Answer(n) if n < polls.len() => {
                        let (attempts, tried) = &polls[n];
                        if let Some(&cluster) = tried.last() {
                            state.answered(attempts, cluster);
                        }
                    }
                    Operation::CheckHealth(healthy) if state.take_health_check(now, dice) => {
                        prop_assert!(state.active() != 0);
                        prop_assert!(checked_at.is_none_or(|before| now - before >= BACKOFF.min));
                        checked_at = Some(now);
                        if healthy {
                            state.recovered();
                            prop_assert_eq!(state.active(), 0);
                        }
                    }
                    Operation::Wait(millis) => now += Duration::from_millis(millis),
                    _ => {}
                }
                prop_assert!(state.active() < number);
            }
        }
    }
}
