//! How a backend is doing, for operators.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::{Admission, state::State};
use crate::{job::BackendFault, transport::RateLimiter};

/// How a backend is doing.
#[derive(Clone, Debug)]
pub struct Report {
    /// Whether it answers.
    pub health: Health,
    /// What the last poll failed with, if it failed.
    pub last_fault: Option<BackendFault>,
    /// When it last answered.
    pub last_success: Option<Timestamp>,
    /// Jobs with subscribers.
    pub subscribed_jobs: usize,
    /// How long the job has been due that has been due longest.
    pub poll_lag: Duration,
    /// Jobs of waiting calls that no poll has picked up yet.
    pub queued_calls: usize,
    /// The part of the rate that was used in the last second, 0 to 1.
    pub rate_in_use: f64,
    /// Jobs that are polled alone because they failed alone.
    pub quarantined_jobs: usize,
    /// The circuit breaker's state.
    pub circuit: Circuit,
}

/// The state of a circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Circuit {
    /// Polls are sent.
    Closed,
    /// A single poll tests whether the backend answers.
    HalfOpen,
    /// No poll is sent.
    Open,
}

/// Whether a backend answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It has not been polled yet.
    Unknown,
    /// It answers.
    Healthy,
    /// Some polls fail, it throttles, or more is due than can be polled.
    Degraded,
    /// It does not answer.
    Unavailable,
}

/// Polls that failed in a row after which a backend counts as unavailable.
const FAILURES_TO_BE_UNAVAILABLE: u32 = 5;

impl Report {
    /// How the backend with this state is doing at `now`.
    pub(super) fn of(state: &State, rate_limiter: &RateLimiter, now: Instant) -> Self {
        let figures = state.stats.clone();
        let poll_lag = state.lag(now);
        let is_unavailable =
            state.breaker.is_open() || figures.failures_in_a_row >= FAILURES_TO_BE_UNAVAILABLE;
        let health = match state.breaker.admission(now) {
            _ if is_unavailable => Health::Unavailable,
            Admission::Closed
                if state.breaker.failures() == 0
                    && figures.last_fault.is_none()
                    && poll_lag <= state.plan.interval.max =>
            {
                figures.last_success.map_or(Health::Unknown, |_| Health::Healthy)
            }
            _ => Health::Degraded,
        };
        Self {
            health,
            last_fault: figures.last_fault,
            last_success: figures.last_success.map(|(_, time)| time),
            subscribed_jobs: figures.subscribed,
            poll_lag,
            queued_calls: state.scheduler.waiting(),
            rate_in_use: rate_limiter.in_use(now),
            quarantined_jobs: state.quarantine.len(),
            circuit: match state.breaker.admission(now) {
                _ if !state.breaker.is_open() => Circuit::Closed,
                Admission::Paused(_) => Circuit::Open,
                _ => Circuit::HalfOpen,
            },
        }
    }
}
