//! How old a connection may become.
//!
//! ```text
//! young ──age, ±10 %──> draining ──grace──> calls end ──few seconds──> closed
//! ```
//!
//! A draining connection takes no further calls: the client opens another one, and a balancer
//! or a resolver may choose another server for it. At the end of the grace each call ends with
//! a status. Only a client that does not read it loses the connection itself.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::api::ConnectionEnd;

/// By how much the ages of connections differ, up and down: those that were opened in the same
/// moment do not drain in the same moment.
const JITTER: f64 = 0.1;

/// How long a client may take to read the ends of its calls.
const READ: Duration = Duration::from_secs(5);

/// The limit on the age of every connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct AgeLimit {
    age: Duration,
    grace: Duration,
}

impl AgeLimit {
    /// `None` for an age of zero.
    pub(super) fn new(age: Duration, grace: Duration) -> Option<Self> {
        (!age.is_zero()).then_some(Self { age, grace })
    }

    /// The age of a new connection; `random` is in 0..1.
    pub(super) fn begin(self, random: f64) -> Age {
        let factor = 1.0 - JITTER + 2.0 * JITTER * random;
        Age {
            stage: Stage::Young,
            timer: Box::pin(sleep_until(Instant::now() + self.age.mul_f64(factor))),
            grace: self.grace,
            end: ConnectionEnd::default(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Young,
    Draining,
    CallsEnd,
}

/// What is due for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// To drain.
    Drain,
    /// To be closed.
    Close,
}

/// The age of one connection.
#[derive(Debug)]
pub(super) struct Age {
    stage: Stage,
    timer: Pin<Box<Sleep>>,
    grace: Duration,
    end: ConnectionEnd,
}

impl Age {
    /// What ends the connection's calls.
    pub(super) fn end(&self) -> &ConnectionEnd {
        &self.end
    }

    /// What is due now. Ends the calls when that is due.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Due> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let (stage, wait) = match self.stage {
                Stage::Young => (Stage::Draining, self.grace),
                Stage::Draining => {
                    self.end.end_calls();
                    (Stage::CallsEnd, READ)
                }
                Stage::CallsEnd => return Poll::Ready(Due::Close),
            };
            let was_young = matches!(self.stage, Stage::Young);
            self.stage = stage;
            self.timer.as_mut().reset(Instant::now() + wait);
            if was_young {
                return Poll::Ready(Due::Drain);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn connection_drains_then_its_calls_end_and_then_it_is_closed() {
        for (random, drains_after) in [(0.0, 90 * SECOND), (0.5, 100 * SECOND), (1.0, 110 * SECOND)] {
            let began = Instant::now();
            let mut age = AgeLimit::new(100 * SECOND, 20 * SECOND).unwrap().begin(random);
            let ended = tokio::spawn({
                let ended = age.end().ended();
                async move {
                    ended.await;
                    Instant::now()
                }
            });
            assert_eq!(poll_fn(|cx| age.poll(cx)).await, Due::Drain);
            assert!(began.elapsed().abs_diff(drains_after) < SECOND / 100, "{:?}", began.elapsed());
            assert!(!ended.is_finished());
            assert_eq!(poll_fn(|cx| age.poll(cx)).await, Due::Close);
            let calls_ended = ended.await.unwrap() - began;
            assert!(calls_ended.abs_diff(drains_after + 20 * SECOND) < SECOND / 100, "{calls_ended:?}");
            assert!(began.elapsed() >= calls_ended + READ);
        }
    }

    #[test]
    fn age_of_zero_is_no_limit() {
        assert!(AgeLimit::new(Duration::ZERO, SECOND).is_none());
    }
}
