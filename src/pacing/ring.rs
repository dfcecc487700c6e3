//! Which of a backend's clusters is asked, and when the first one is looked at
//! again, as functions of plain state.
//!
//! ```text
//!              the cluster in use fails
//!   first ------------------------------> a standby --+ it fails: the next one,
//!     ^                                    |  ^-------+ at the end the first
//!     +------- the first is healthy -------+
//! ```
//!
//! A question makes one *pass*: it asks each cluster at most once, so it ends
//! whatever they answer. The first one is looked at by back-off, which only an answer
//! about a job makes short again: a cluster that calls itself healthy and then fails
//! is gone back to ever less often.

use std::time::Duration;

use tokio::time::Instant;

use super::{Backoff, LONGEST_RETRY_AFTER};

/// The clusters of one backend; 0 is the first, the others are its standbys.
#[derive(Debug)]
pub struct Ring {
    backoff: Backoff,
    in_use: usize,
    /// Until when each asked to be left alone.
    held: Vec<Option<Instant>>,
    /// Times that the first failed or was not healthy since it last answered.
    lapses: u32,
    look_at: Option<Instant>,
    /// Changes of the cluster in use.
    turns: u64,
}

/// One question's way around a [`Ring`].
#[derive(Debug)]
pub struct Pass {
    asked: Vec<bool>,
    turn: u64,
}

impl Ring {
    /// A ring of `clusters` (at least one), of which the first is in use.
    pub fn new(clusters: usize, backoff: Backoff) -> Self {
        Self { backoff, in_use: 0, held: vec![None; clusters.max(1)], lapses: 0, look_at: None, turns: 0 }
    }

    /// The cluster in use.
    pub fn in_use(&self) -> usize {
        self.in_use
    }

    /// Begins a pass.
    pub fn pass(&self) -> Pass {
        Pass { asked: vec![false; self.held.len()], turn: self.turns }
    }

    /// The cluster to ask next: the one in use, or the next behind it, that this pass
    /// has not asked yet and that does not want to be left alone.
    pub fn next(&self, pass: &mut Pass, now: Instant) -> Option<usize> {
        let clusters = self.held.len();
        let free =
            |cluster: &usize| !pass.asked[*cluster] && self.held[*cluster].is_none_or(|until| until <= now);
        let next = (0..clusters).map(|step| (self.in_use + step) % clusters).find(free)?;
        pass.asked[next] = true;
        pass.turn = self.turns;
        Some(next)
    }

    /// The cluster that the pass asked last can't answer.
    pub fn failed(
        &mut self,
        pass: &Pass,
        cluster: usize,
        retry_after: Option<Duration>,
        now: Instant,
        dice: f64,
    ) {
        if let Some(wait) = retry_after {
            let until = now + wait.min(LONGEST_RETRY_AFTER);
            self.held[cluster] = self.held[cluster].max(Some(until));
        }
        // A question that was asked before the last turn says nothing new.
        if pass.turn != self.turns || self.in_use != cluster || self.held.len() == 1 {
            return;
        }
        if cluster == 0 {
            self.lapsed(now, dice);
        }
        self.turn_to((cluster + 1) % self.held.len());
    }

    /// The cluster that the pass asked last answered.
    pub fn answered(&mut self, pass: &Pass, cluster: usize) {
        if pass.turn == self.turns && cluster == 0 && self.in_use == 0 {
            self.lapses = 0;
        }
    }

    /// No cluster could answer a pass: the next one begins with the first. Returns how
    /// long to wait, where all of them asked to be left alone.
    pub fn exhausted(&mut self, now: Instant) -> Option<Duration> {
        if self.in_use != 0 {
            self.turn_to(0);
        }
        let earliest = self.held.iter().copied().min().flatten()?;
        Some(earliest.saturating_duration_since(now)).filter(|wait| !wait.is_zero())
    }

    /// Whether the first cluster is to be looked at now, since a standby is in use. If
    /// so, the next look is planned: one that ends without a verdict was in vain.
    pub fn take_look(&mut self, now: Instant, dice: f64) -> bool {
        let due = self.in_use != 0
            && self.look_at.is_none_or(|at| at <= now)
            && self.held[0].is_none_or(|until| until <= now);
        if due {
            self.lapsed(now, dice);
        }
        due
    }

    /// The first cluster is healthy, and so in use again.
    pub fn recovered(&mut self) {
        if self.in_use != 0 {
            self.turn_to(0);
        }
    }

    fn lapsed(&mut self, now: Instant, dice: f64) {
        self.lapses = self.lapses.saturating_add(1);
        self.look_at = Some(now + self.backoff.wait(self.lapses, dice));
    }

    fn turn_to(&mut self, cluster: usize) {
        self.in_use = cluster;
        self.turns += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const BACKOFF: Backoff = Backoff { min: SECOND, max: Duration::from_secs(30) };

    fn ring(clusters: usize) -> Ring {
        Ring::new(clusters, BACKOFF)
    }

    /// A pass in which all clusters of `broken` fail. Returns which were asked.
    fn pass(ring: &mut Ring, broken: &[usize], now: Instant) -> Vec<usize> {
        let (mut pass, mut asked) = (ring.pass(), Vec::new());
        while let Some(cluster) = ring.next(&mut pass, now) {
            asked.push(cluster);
            if !broken.contains(&cluster) {
                ring.answered(&pass, cluster);
                return asked;
            }
            ring.failed(&pass, cluster, None, now, 0.5);
        }
        ring.exhausted(now);
        asked
    }

    #[test]
    fn the_first_is_asked_until_it_fails_and_the_standby_until_it_fails() {
        let (mut ring, now) = (ring(3), Instant::now());
        assert_eq!(pass(&mut ring, &[], now), [0]);
        assert_eq!(pass(&mut ring, &[0], now), [0, 1]);
        assert_eq!(pass(&mut ring, &[0], now), [1], "it stays there");
        assert_eq!(pass(&mut ring, &[0, 1], now), [1, 2]);
        assert_eq!(pass(&mut ring, &[1, 2], now), [2, 0], "behind the last comes the first");
        assert_eq!(ring.in_use(), 0);
    }

    #[test]
    fn a_pass_asks_each_once_and_the_next_begins_with_the_first() {
        let (mut ring, now) = (ring(3), Instant::now());
        pass(&mut ring, &[0], now);
        assert_eq!(pass(&mut ring, &[0, 1, 2], now), [1, 2, 0]);
        assert_eq!(pass(&mut ring, &[0, 1, 2], now), [0, 1, 2]);
    }

    #[test]
    fn a_late_failure_does_not_turn_the_ring_again() {
        let (mut ring, now) = (ring(3), Instant::now());
        let (mut one, mut other) = (ring.pass(), ring.pass());
        assert_eq!((ring.next(&mut one, now), ring.next(&mut other, now)), (Some(0), Some(0)));
        ring.failed(&one, 0, None, now, 0.5);
        assert_eq!(ring.in_use(), 1);
        ring.recovered();
        ring.failed(&other, 0, None, now, 0.5);
        assert_eq!(ring.in_use(), 0, "it was asked before the recovery");
        assert_eq!(ring.next(&mut other, now), Some(1), "but its question goes on");
    }

    #[test]
    fn the_first_is_looked_at_by_back_off_while_a_standby_is_in_use() {
        let (mut ring, mut now) = (ring(2), Instant::now());
        assert!(!ring.take_look(now, 0.0), "not while it is in use");
        pass(&mut ring, &[0], now);
        assert!(!ring.take_look(now, 0.0), "not at once");
        let mut waits = Vec::new();
        for _ in 0..6 {
            let begun = now;
            while !ring.take_look(now, 1.0) {
                now += SECOND / 2;
            }
            waits.push((now - begun).as_secs());
        }
        assert_eq!(waits, [1, 4, 8, 16, 30, 30]);
        ring.recovered();
        assert_eq!(ring.in_use(), 0);
    }

    #[test]
    fn a_cluster_that_only_seems_healthy_is_gone_back_to_ever_less_often() {
        let (mut ring, mut now) = (ring(2), Instant::now());
        let mut returns = 0;
        let end = now + Duration::from_mins(10);
        while now < end {
            pass(&mut ring, &[0], now);
            if ring.take_look(now, 1.0) {
                ring.recovered();
                returns += 1;
            }
            now += SECOND;
        }
        // Sixteen seconds at the dice of `pass`.
        assert!((36..=40).contains(&returns), "{returns}");
        // An answer makes up for it.
        ring.recovered();
        pass(&mut ring, &[], now);
        pass(&mut ring, &[0], now);
        assert!(ring.take_look(now + 2 * SECOND, 1.0));
    }

    #[test]
    fn a_cluster_that_asks_to_be_left_alone_is() {
        let (mut ring, now) = (ring(2), Instant::now());
        let later = now + 20 * SECOND;
        let mut one = ring.pass();
        ring.next(&mut one, now);
        ring.failed(&one, 0, Some(20 * SECOND), now, 0.0);
        assert!(!ring.take_look(later - SECOND, 0.0));
        assert_eq!(pass(&mut ring, &[1], now), [1], "the first is not asked either");
        assert_eq!(ring.exhausted(now), None, "the standby did not ask for it");
        assert_eq!(pass(&mut ring, &[1], later), [0]);

        let mut other = ring.pass();
        for _ in 0..2 {
            let cluster = ring.next(&mut other, later).unwrap();
            ring.failed(&other, cluster, Some(5 * SECOND), later, 0.0);
        }
        assert_eq!(ring.next(&mut ring.pass(), later), None);
        assert_eq!(ring.exhausted(later + SECOND), Some(4 * SECOND));
        let mut years = ring.pass();
        let at = later + 5 * SECOND;
        let cluster = ring.next(&mut years, at).unwrap();
        ring.failed(&years, cluster, Some(Duration::MAX), at, 0.0);
        assert!(ring.next(&mut ring.pass(), at + LONGEST_RETRY_AFTER).is_some());
    }

    #[test]
    fn a_ring_of_one_never_turns() {
        let (mut ring, now) = (ring(1), Instant::now());
        assert_eq!(pass(&mut ring, &[0], now), [0]);
        assert_eq!(pass(&mut ring, &[0], now), [0]);
        assert!(!ring.take_look(now + Duration::from_mins(1), 0.0));
    }

    #[derive(Clone, Debug)]
    enum Operation {
        Begin,
        Ask(usize),
        Fail(usize, Option<u64>),
        Answer(usize),
        Look(bool),
        Wait(u64),
    }

    fn operations() -> impl Strategy<Value = Vec<Operation>> {
        let which = 0..4_usize;
        let operation = prop_oneof![
            1 => Just(Operation::Begin),
            4 => which.clone().prop_map(Operation::Ask),
            3 => (which.clone(), prop::option::weighted(0.2, 0..40_u64)).prop_map(|(n, wait)| Operation::Fail(n, wait)),
            1 => which.prop_map(Operation::Answer),
            2 => any::<bool>().prop_map(Operation::Look),
            2 => (0..3000_u64).prop_map(Operation::Wait),
        ];
        prop::collection::vec(operation, 1..200)
    }

    proptest! {
        #[test]
        fn no_pass_ever_asks_a_cluster_twice_and_no_look_comes_too_soon(
            clusters in 1..5_usize,
            operations in operations(),
            dice in 0.0..1.0_f64,
        ) {
            let (mut ring, mut now) = (ring(clusters), Instant::now());
            let mut passes: Vec<(Pass, Vec<usize>)> = Vec::new();
            let mut looked: Option<Instant> = None;
            for operation in operations {
                match operation {
                    Operation::Begin => passes.push((ring.pass(), Vec::new())),
                    Operation::Ask(n) if n < passes.len() => {
                        let (pass, asked) = &mut passes[n];
                        if let Some(cluster) = ring.next(pass, now) {
                            prop_assert!(!asked.contains(&cluster));
                            prop_assert!(ring.held[cluster].is_none_or(|until| until <= now));
                            asked.push(cluster);
                        } else if asked.len() == clusters {
                            ring.exhausted(now);
                            prop_assert_eq!(ring.in_use(), 0);
                        }
                    }
                    Operation::Fail(n, wait) if n < passes.len() => {
                        let (pass, asked) = &passes[n];
                        if let Some(&cluster) = asked.last() {
                            ring.failed(pass, cluster, wait.map(Duration::from_secs), now, dice);
                        }
                    }
                    Operation::Answer(n) if n < passes.len() => {
                        let (pass, asked) = &passes[n];
                        if let Some(&cluster) = asked.last() {
                            ring.answered(pass, cluster);
                        }
                    }
                    Operation::Look(healthy) if ring.take_look(now, dice) => {
                        prop_assert!(ring.in_use() != 0);
                        prop_assert!(looked.is_none_or(|before| now - before >= BACKOFF.min));
                        looked = Some(now);
                        if healthy {
                            ring.recovered();
                            prop_assert_eq!(ring.in_use(), 0);
                        }
                    }
                    Operation::Wait(millis) => now += Duration::from_millis(millis),
                    _ => {}
                }
                prop_assert!(ring.in_use() < clusters);
            }
        }
    }
}
