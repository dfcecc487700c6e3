//! When to ask a vendor: cadence, back-off and circuit, as functions of plain
//! state. Clocks and dice come in from outside.
//!
//! A job is asked about at its *cadence*, which grows while nothing changes. A
//! backend that fails is asked less by *back-off*. The [`Gate`] of a backend says
//! whether it may be asked at all:
//!
//! ```text
//!          five failures in a row            hold runs out
//!   open ------------------------> held ---------------------> half-open
//!    ^  \------ Retry-After -----> held --(fewer failures)--> open |
//!    |                              ^                              | one probe
//!    +------------ success ---------|------------------------------+
//!                                   +----------- failure ----------+
//! ```

use std::{mem, time::Duration};

use tokio::time::Instant;

pub use crate::transport::Backoff;
use crate::{
    job::{BackendFault, FaultKind},
    transport::LONGEST_RETRY_AFTER,
};

/// Failures in a row after which a backend is only probed.
const CIRCUIT_OPENS_AFTER: u32 = 5;

/// How often a job is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Cadence {
    /// After a change.
    pub min: Duration,
    /// After a long time without one.
    pub max: Duration,
}

impl Cadence {
    /// How long after an observation the next one is due, for a job that has not
    /// changed for `unchanged`: a tenth of that, so that a change is noticed late
    /// by at most a tenth of the time it took. `wanted` is the longest wait that
    /// the job's watchers are content with.
    pub fn interval(&self, unchanged: Duration, wanted: Option<Duration>) -> Duration {
        let longest = wanted.map_or(self.max, |wanted| wanted.clamp(self.min, self.max));
        (unchanged / 10).clamp(self.min, longest)
    }
}

/// Whether a backend may be asked now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// As often as its limits allow.
    Open,
    /// Once; the answer decides.
    Probe,
    /// A probe is on its way.
    Probing,
    /// Not before this time, for this reason.
    Held(Hold),
}

/// Why and until when a backend is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// When it may be asked again.
    pub until: Instant,
    /// What it failed with.
    pub fault: BackendFault,
}

/// Guards one backend: its consecutive failures, its Retry-After, its circuit.
#[derive(Debug)]
pub struct Gate {
    backoff: Backoff,
    failures: u32,
    /// When the last failure that counted was known.
    failed_at: Option<Instant>,
    /// The vendor itself named the time: no answer in between lifts it, nothing
    /// shortens it.
    asked_for: Option<Hold>,
    /// The gateway's own back-off, which the next answer lifts.
    own: Option<Hold>,
    probing: bool,
}

impl Gate {
    /// An open gate.
    pub fn new(backoff: Backoff) -> Self {
        Self { backoff, failures: 0, failed_at: None, asked_for: None, own: None, probing: false }
    }

    /// Whether the backend may be asked at `now`.
    pub fn admission(&self, now: Instant) -> Admission {
        match self.hold(now) {
            Some(hold) => Admission::Held(hold.clone()),
            None if !self.is_broken() => Admission::Open,
            None if self.probing => Admission::Probing,
            None => Admission::Probe,
        }
    }

    /// Why the backend can't be asked freely at `now`, if it can't: a hold that
    /// runs, or, while the circuit is open, the last one.
    pub fn trouble(&self, now: Instant) -> Option<&Hold> {
        self.hold(now).or_else(|| self.own.as_ref().or(self.asked_for.as_ref()).filter(|_| self.is_broken()))
    }

    fn hold(&self, now: Instant) -> Option<&Hold> {
        // What the vendor asked for wins; the other may still run when it is over.
        [&self.asked_for, &self.own].into_iter().flatten().find(|hold| hold.until > now)
    }

    /// How failures are paced.
    pub fn backoff(&self) -> Backoff {
        self.backoff
    }

    /// Whether the circuit is open: the backend is only probed.
    pub fn is_broken(&self) -> bool {
        self.failures >= CIRCUIT_OPENS_AFTER
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The gateway's credentials were replaced: what was held for theirs is not.
    pub fn forgive_rejections(&mut self) {
        if self.own.as_ref().is_some_and(|hold| hold.fault.kind == FaultKind::CredentialsRejected) {
            (self.own, self.failures) = (None, 0);
        }
    }

    /// A probe is sent.
    pub fn probe_begins(&mut self) {
        self.probing = true;
    }

    /// The probe is over, answered or given up.
    pub fn probe_ends(&mut self) {
        self.probing = false;
    }

    /// The vendor answered. Returns whether that ends a series of failures.
    pub fn succeeded(&mut self) -> bool {
        self.own = None;
        mem::take(&mut self.failures) > 0
    }

    /// The vendor failed to answer a request that began at `began`. Returns when
    /// what was asked may be asked again. Requests that were under way together
    /// fail together: that is one failure, not many in a row.
    pub fn failed(&mut self, fault: &BackendFault, began: Instant, now: Instant, dice: f64) -> Instant {
        if self.failed_at.is_none_or(|failed_at| began >= failed_at) {
            self.failures = self.failures.saturating_add(1);
            self.failed_at = Some(now);
        }
        let later = |hold: &Option<Hold>, until| hold.as_ref().is_none_or(|hold| hold.until < until);
        let until = match fault.kind {
            FaultKind::Unavailable { retry_after: Some(asked), .. }
            | FaultKind::Throttled { retry_after: Some(asked) } => {
                let until = now + asked.min(LONGEST_RETRY_AFTER).max(self.backoff.min);
                if later(&self.asked_for, until) {
                    self.asked_for = Some(Hold { until, fault: fault.clone() });
                }
                until
            }
            _ => {
                let until = now + self.backoff.wait(self.failures.max(1), dice);
                let holds = self.is_broken() || matches!(fault.kind, FaultKind::Throttled { .. });
                if holds && later(&self.own, until) {
                    self.own = Some(Hold { until, fault: fault.clone() });
                }
                until
            }
        };
        self.hold(now).map_or(until, |hold| hold.until.max(until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const CADENCE: Cadence = Cadence { min: SECOND, max: Duration::from_secs(10) };
    const BACKOFF: Backoff = Backoff { min: SECOND, max: Duration::from_secs(30) };

    fn down() -> BackendFault {
        FaultKind::Unavailable { retry_after: None, why: "down".into() }.into()
    }

    fn throttled(seconds: u64) -> BackendFault {
        FaultKind::Throttled { retry_after: Some(Duration::from_secs(seconds)) }.into()
    }

    #[test]
    fn the_cadence_grows_without_change_and_falls_back_upon_one() {
        let at = |unchanged| CADENCE.interval(Duration::from_secs(unchanged), None).as_secs();
        assert_eq!([0, 5, 30, 100, 9999].map(at), [1, 1, 3, 10, 10]);
    }

    #[test]
    fn a_watcher_may_ask_for_a_faster_cadence_within_the_bounds() {
        let at = |wanted| CADENCE.interval(Duration::from_hours(1), Some(Duration::from_millis(wanted)));
        assert_eq!([1, 2500, 60_000].map(|wanted| at(wanted).as_millis()), [1000, 2500, 10_000]);
    }

    /// Fails a request that began just now.
    fn fail(gate: &mut Gate, fault: &BackendFault, now: Instant, dice: f64) -> Instant {
        gate.failed(fault, now, now, dice)
    }

    #[test]
    fn five_failures_in_a_row_open_the_circuit_and_a_success_closes_it() {
        let mut gate = Gate::new(BACKOFF);
        let now = Instant::now();
        for _ in 0..4 {
            fail(&mut gate, &down(), now, 0.5);
            assert_eq!(gate.admission(now), Admission::Open);
        }
        let until = fail(&mut gate, &down(), now, 0.5);
        assert!(matches!(gate.admission(now), Admission::Held(hold) if hold.until == until));
        assert_eq!(gate.admission(until), Admission::Probe);
        assert_eq!(gate.trouble(until).map(|hold| &hold.fault), Some(&down()));
        gate.probe_begins();
        assert_eq!(gate.admission(until), Admission::Probing);
        gate.probe_ends();
        let until = fail(&mut gate, &down(), until, 0.5);
        assert!(matches!(gate.admission(until - SECOND / 2), Admission::Held(_)));
        assert!(gate.succeeded());
        assert_eq!((gate.admission(now), gate.trouble(now)), (Admission::Open, None));
    }

    #[test]
    fn a_success_between_failures_starts_the_count_anew() {
        let mut gate = Gate::new(BACKOFF);
        let now = Instant::now();
        for _ in 0..100 {
            for _ in 0..4 {
                fail(&mut gate, &down(), now, 0.0);
            }
            gate.succeeded();
        }
        assert_eq!(gate.admission(now), Admission::Open);
    }

    #[test]
    fn requests_that_fail_together_are_one_failure() {
        let mut gate = Gate::new(BACKOFF);
        let began = Instant::now();
        for answer in 1..=8 {
            gate.failed(&down(), began, began + answer * SECOND / 100, 0.5);
        }
        assert_eq!(gate.failures(), 1);
    }

    #[test]
    fn retry_after_wins_over_everything() {
        let mut gate = Gate::new(BACKOFF);
        let now = Instant::now();
        let until = fail(&mut gate, &throttled(20), now, 0.0);
        assert_eq!(until, now + 20 * SECOND);
        assert_eq!(fail(&mut gate, &down(), now, 0.0), until, "a shorter back-off does not shorten it");
        for _ in 0..9 {
            fail(&mut gate, &down(), now, 0.9);
        }
        gate.succeeded();
        assert!(
            matches!(gate.admission(until - SECOND), Admission::Held(_)),
            "nor does an answer in between"
        );
        assert_eq!(gate.admission(until), Admission::Open);
    }

    #[test]
    fn a_retry_after_of_years_is_an_hour_and_of_nothing_the_shortest_wait() {
        let now = Instant::now();
        let until = |seconds| fail(&mut Gate::new(BACKOFF), &throttled(seconds), now, 0.0);
        assert_eq!([until(u64::MAX), until(0)], [now + LONGEST_RETRY_AFTER, now + SECOND]);
    }
}
