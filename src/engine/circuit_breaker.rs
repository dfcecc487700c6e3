//! Stops polling a backend that fails, and finds out when it answers again.
//!
//! ```text
//!            five failures in a row, or isolation          pause runs out
//!            finds that every part of a batch fails
//!   closed ──────────────────────────────────────> open ─────────────────> half-open
//!     ^                                             ^                          │
//!     │                                             └──── the probe fails ─────┤
//!     └─────────────────────────── the probe succeeds ─────────────────────────┘
//! ```
//!
//! Beside that, a wait that the vendor asks for (Retry-After) pauses all requests in any
//! state; no success lifts it and nothing shortens it. So does that this gateway may not poll
//! at all, until it may.
//!
//! Pure state: clocks and dice come in from outside.

use std::{mem, time::Duration};

use tokio::time::Instant;

use super::KnownJobs;
use crate::{
    job::{BackendFault, FaultKind},
    transport::{Backoff, LONGEST_RETRY_AFTER},
};

/// Failures in a row after which the circuit breaker opens.
const FAILURES_TO_OPEN: u32 = 5;

/// How often subscribers hear that the backend may not be polled at all.
const BARRED: Duration = Duration::from_secs(10);

/// Whether the backend may be polled now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Closed: within the other limits.
    Closed,
    /// Half-open: one probe may be sent.
    HalfOpen,
    /// Half-open, and the probe is in flight.
    Probing,
    /// Open, or paused at the vendor's request.
    Paused(Pause),
}

/// Until when and why a backend is not polled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// When it may be polled again.
    pub until: Instant,
    /// What the last request failed with.
    pub fault: BackendFault,
}

/// The circuit breaker of one backend.
#[derive(Debug)]
pub struct CircuitBreaker {
    backoff: Backoff,
    /// Failures in a row. Requests in flight together count as one.
    failures: u32,
    /// When the last failure that counted was known.
    failed_at: Option<Instant>,
    is_open: bool,
    is_probing: bool,
    /// The wait that the vendor asked for.
    requested: Option<Pause>,
    /// The gateway's own back-off, which the next success ends.
    own: Option<Pause>,
    /// Why the backend may not be polled, until that is taken back.
    barred: Option<BackendFault>,
}

impl CircuitBreaker {
    /// A closed circuit breaker.
    pub fn new(backoff: Backoff) -> Self {
        Self {
            backoff,
            failures: 0,
            failed_at: None,
            is_open: false,
            is_probing: false,
            requested: None,
            own: None,
            barred: None,
        }
    }

    /// Whether the backend may be polled at `now`.
    pub fn admission(&self, now: Instant) -> Admission {
        match self.pause(now) {
            Some(pause) => Admission::Paused(pause),
            None if !self.is_open => Admission::Closed,
            None if self.is_probing => Admission::Probing,
            None => Admission::HalfOpen,
        }
    }

    /// Why the backend can't be polled freely at `now`, if it can't: a pause that runs
    /// or, until the circuit breaker closes, the last one.
    pub fn trouble(&self, now: Instant) -> Option<Pause> {
        let last = || self.own.as_ref().or(self.requested.as_ref()).filter(|_| self.is_open).cloned();
        self.pause(now).or_else(last)
    }

    fn pause(&self, now: Instant) -> Option<Pause> {
        if let Some(fault) = &self.barred {
            return Some(Pause { until: now + BARRED, fault: fault.clone() });
        }
        self.vendors_pause(now)
    }

    /// The same, as far as the vendor is the reason.
    pub fn vendors_pause(&self, now: Instant) -> Option<Pause> {
        // The vendor's wish wins; the own pause may go on when it is over.
        [&self.requested, &self.own].into_iter().flatten().find(|pause| pause.until > now).cloned()
    }

    /// The backend may not be polled for this reason, or may again. Returns whether that is new.
    pub fn set_barred(&mut self, why: Option<BackendFault>) -> bool {
        let is_new = self.barred.is_some() != why.is_some();
        self.barred = why;
        is_new
    }

    /// How failures are spaced.
    pub fn backoff(&self) -> Backoff {
        self.backoff
    }

    /// Whether it is open or half-open.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The gateway's credentials were replaced: a pause because the old ones were
    /// rejected ends.
    pub fn credentials_rotated(&mut self) {
        if self.own.as_ref().is_some_and(|pause| pause.fault.kind == FaultKind::CredentialsRejected) {
            (self.own, self.failures, self.is_open) = (None, 0, false);
        }
    }

    /// The backend's settings were replaced. What the vendor asked for holds if it is asked
    /// at the same place.
    pub fn restart(&mut self, backoff: Backoff, known: KnownJobs) {
        let requested = self.requested.take().filter(|_| known == KnownJobs::Same);
        let barred = self.barred.take();
        *self = Self { requested, barred, ..Self::new(backoff) };
    }

    /// A probe is sent.
    pub fn probe_started(&mut self) {
        self.is_probing = true;
    }

    /// The probe has ended, in whatever way.
    pub fn probe_ended(&mut self) {
        self.is_probing = false;
    }

    /// The vendor answered. Returns whether that ends a series of failures.
    pub fn succeeded(&mut self) -> bool {
        self.own = None;
        self.is_open = false;
        mem::take(&mut self.failures) > 0
    }

    /// A poll that began at `began` failed for the backend's reasons. Returns when the
    /// same may be tried again.
    pub fn failed(&mut self, fault: &BackendFault, began: Instant, now: Instant, dice: f64) -> Instant {
        if self.failed_at.is_none_or(|failed_at| began >= failed_at) {
            self.failures = self.failures.saturating_add(1);
            self.failed_at = Some(now);
        }
        self.is_open |= self.failures >= FAILURES_TO_OPEN;
        let later = |pause: &Option<Pause>, until| pause.as_ref().is_none_or(|pause| pause.until < until);
        let until = if let Some(requested) = fault.retry_after {
            let until = now + requested.min(LONGEST_RETRY_AFTER).max(self.backoff.min);
            // Another secret need not wait for what was said of this one.
            let of_secret = fault.kind == FaultKind::CredentialsRejected;
            let pause = if of_secret { &mut self.own } else { &mut self.requested };
            if later(pause, until) {
                *pause = Some(Pause { until, fault: fault.clone() });
            }
            until
        } else {
            let until = now + self.backoff.wait(self.failures.max(1), dice);
            let pauses = self.is_open || matches!(fault.kind, FaultKind::Throttled);
            if pauses && later(&self.own, until) {
                self.own = Some(Pause { until, fault: fault.clone() });
            }
            until
        };
        self.pause(now).map_or(until, |pause| pause.until.max(until))
    }

    /// No poll can be authorized until then: one probe is sent afterwards.
    pub fn no_login_until(&mut self, fault: &BackendFault, until: Instant) {
        self.is_open = true;
        if self.own.as_ref().is_none_or(|own| own.until < until) {
            self.own = Some(Pause { until, fault: fault.clone() });
        }
    }

    /// Another replica is paused, at the vendor's request or by its own back-off.
    pub fn follow(&mut self, pause: Pause) {
        let is_requested =
            pause.fault.retry_after.is_some() && pause.fault.kind != FaultKind::CredentialsRejected;
        let mine = if is_requested { &mut self.requested } else { &mut self.own };
        if mine.as_ref().is_none_or(|mine| mine.until < pause.until) {
            *mine = Some(pause);
        }
    }

    /// Every part of a batch failed, and nothing else succeeded: the circuit breaker
    /// opens at once. Returns when the backend may be probed.
    pub fn trip(&mut self, fault: &BackendFault, began: Instant, now: Instant, dice: f64) -> Instant {
        self.is_open = true;
        self.failed(fault, began, now, dice)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const BACKOFF: Backoff = Backoff { min: SECOND, max: Duration::from_secs(30) };

    fn down() -> BackendFault {
        FaultKind::Unavailable { why: "down".into() }.into()
    }

    fn throttled(seconds: u64) -> BackendFault {
        BackendFault::from(FaultKind::Throttled).with_retry_after(Some(Duration::from_secs(seconds)))
    }

    /// A request fails that began just now.
    fn fail(breaker: &mut CircuitBreaker, fault: &BackendFault, now: Instant, dice: f64) -> Instant {
        breaker.failed(fault, now, now, dice)
    }

    #[test]
    fn five_failures_in_a_row_open_it_and_a_successful_probe_closes_it() {
        let mut breaker = CircuitBreaker::new(BACKOFF);
        let now = Instant::now();
        for _ in 0..4 {
            fail(&mut breaker, &down(), now, 0.5);
            assert_eq!(breaker.admission(now), Admission::Closed);
        }
        let until = fail(&mut breaker, &down(), now, 0.5);
        assert!(matches!(breaker.admission(now), Admission::Paused(pause) if pause.until == until));
        assert_eq!(breaker.admission(until), Admission::HalfOpen);
        assert_eq!(breaker.trouble(until).map(|pause| pause.fault), Some(down()));
        breaker.probe_started();
        assert_eq!(breaker.admission(until), Admission::Probing);
        breaker.probe_ended();
        let until = fail(&mut breaker, &down(), until, 0.5);
        assert!(matches!(breaker.admission(until - SECOND / 2), Admission::Paused(_)));
        assert!(breaker.succeeded());
        assert_eq!((breaker.admission(now), breaker.trouble(now)), (Admission::Closed, None));
    }

    #[test]
    fn success_between_failures_starts_the_count_anew() {
        let mut breaker = CircuitBreaker::new(BACKOFF);
        let now = Instant::now();
        for _ in 0..100 {
            for _ in 0..4 {
                fail(&mut breaker, &down(), now, 0.0);
            }
            breaker.succeeded();
        }
        assert_eq!(breaker.admission(now), Admission::Closed);
    }

    #[test]
    fn polls_in_flight_together_fail_as_one() {
        let mut breaker = CircuitBreaker::new(BACKOFF);
        let began = Instant::now();
        for failed in 1..=8 {
            breaker.failed(&down(), began, began + failed * SECOND / 100, 0.5);
        }
        assert_eq!(breaker.failures(), 1);
    }

    #[test]
    fn tripped_breaker_opens_at_the_first_failure_with_a_short_pause() {
        let mut breaker = CircuitBreaker::new(BACKOFF);
        let now = Instant::now();
        let until = breaker.trip(&down(), now, now, 0.0);
        assert_eq!(until, now + SECOND);
        assert_eq!(breaker.admission(until), Admission::HalfOpen);
        assert!(breaker.succeeded());
        assert_eq!(breaker.admission(until), Admission::Closed);
    }

    #[test]
    fn retry_after_wins_over_everything() {
        let mut breaker = CircuitBreaker::new(BACKOFF);
        let now = Instant::now();
        let until = fail(&mut breaker, &throttled(20), now, 0.0);
        assert_eq!(until, now + 20 * SECOND);
        assert_eq!(fail(&mut breaker, &down(), now, 0.0), until, "a shorter back-off does not shorten it");
        for _ in 0..9 {
            fail(&mut breaker, &down(), now, 0.9);
        }
        breaker.succeeded();
        let admission = breaker.admission(until - SECOND);
        assert!(matches!(admission, Admission::Paused(_)), "a success does not lift it");
        assert_eq!(breaker.admission(until), Admission::Closed);
    }

    #[test]
    fn retry_after_is_capped_at_an_hour_and_is_at_least_the_shortest_wait() {
        let now = Instant::now();
        let until = |seconds| fail(&mut CircuitBreaker::new(BACKOFF), &throttled(seconds), now, 0.0);
        assert_eq!([until(u64::MAX), until(0)], [now + LONGEST_RETRY_AFTER, now + SECOND]);
    }

    #[test]
    fn new_credentials_end_a_pause_for_rejected_ones_only() {
        let now = Instant::now();
        for (fault, closes) in [(FaultKind::CredentialsRejected.into(), true), (down(), false)] {
            let mut breaker = CircuitBreaker::new(BACKOFF);
            for _ in 0..9 {
                fail(&mut breaker, &fault, now, 0.5);
            }
            breaker.credentials_rotated();
            assert_eq!(breaker.admission(now) == Admission::Closed, closes);
        }
    }
}
