//! Holds everything that is sent to one backend to so many requests a second.

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use crate::pacing::Rate;

/// What all requests to one backend share: polls, downloads, token fetches, looks at
/// its health.
#[derive(Debug)]
pub struct Throttle {
    rate: Mutex<Rate>,
    /// Held by whoever gets the next place.
    turn: tokio::sync::Mutex<()>,
    given_back: Notify,
}

impl Throttle {
    /// At most `per_second` requests in any one second.
    pub fn new(per_second: NonZeroU32) -> Arc<Self> {
        let rate = Mutex::new(Rate::new(per_second));
        Arc::new(Self { rate, turn: tokio::sync::Mutex::default(), given_back: Notify::new() })
    }

    /// Returns when a request may be sent, with a place for it among those of this
    /// second. Who stops waiting has taken none.
    pub async fn leave_to_send(self: &Arc<Self>) -> Leave {
        let mut leave = self.leave_when_sending();
        leave.place = Some(self.place().await);
        leave
    }

    /// Leave that waits for its place only when there is something to send.
    pub fn leave_when_sending(self: &Arc<Self>) -> Leave {
        Leave { throttle: Arc::clone(self), place: None }
    }

    /// In the order of arrival: polls that always wait for a place would otherwise keep
    /// a token or a look at a cluster's health from ever getting one.
    async fn place(&self) -> Instant {
        let _turn = self.turn.lock().await;
        loop {
            let now = Instant::now();
            let place = self.rate().take(now);
            match place {
                Ok(()) => return now,
                Err(at) => _ = timeout_at(at, self.given_back.notified()).await,
            }
        }
    }

    fn rate(&self) -> MutexGuard<'_, Rate> {
        self.rate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leave to send: one request now if there is a place for it already, each other one
/// in its turn. A place that is not used is given back.
#[derive(Debug)]
#[must_use = "its place is given back when it is dropped"]
pub struct Leave {
    throttle: Arc<Throttle>,
    place: Option<Instant>,
}

impl Leave {
    /// Returns when one request may be sent, which has to follow at once.
    pub async fn spend(&mut self) {
        if self.place.take().is_none() {
            self.throttle.place().await;
        }
    }

    /// Gives the place back, for a request that has to wait for something else: it
    /// would be sent in another second.
    pub fn give_back(&mut self) {
        if let Some(at) = self.place.take() {
            self.throttle.rate().give_back(at);
            self.throttle.given_back.notify_one();
        }
    }

    /// Leave for something else that is sent to the same backend.
    pub fn another(&self) -> Self {
        self.throttle.leave_when_sending()
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn throttle(per_second: u32) -> Arc<Throttle> {
        Throttle::new(NonZeroU32::new(per_second).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_sent_leaves_its_place_to_others() {
        let throttle = throttle(1);
        let began = Instant::now();
        for _ in 0..10 {
            drop(throttle.leave_to_send().await);
        }
        let mut leave = throttle.leave_to_send().await;
        leave.give_back();
        throttle.leave_to_send().await.spend().await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert!(throttle.leave_to_send().now_or_never().is_none(), "given up while it waits");
        leave.spend().await;
        assert_eq!(began.elapsed(), SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn places_are_given_in_the_order_of_arrival() {
        let throttle = throttle(1);
        throttle.leave_to_send().await.spend().await;
        let mut early = std::pin::pin!(throttle.leave_to_send());
        let mut late = std::pin::pin!(throttle.leave_to_send());
        assert!(early.as_mut().now_or_never().is_none());
        assert!(late.as_mut().now_or_never().is_none());
        tokio::time::advance(SECOND).await;
        assert!(late.as_mut().now_or_never().is_none());
        let leave = early.now_or_never().expect("it came first");
        assert!(late.as_mut().now_or_never().is_none());
        drop(leave);
        assert!(late.now_or_never().is_some(), "what is given back is had at once");
    }

    #[tokio::test(start_paused = true)]
    async fn each_further_request_waits_for_its_turn() {
        let throttle = throttle(2);
        let began = Instant::now();
        let mut leave = throttle.leave_to_send().await;
        let mut sent = Vec::new();
        for _ in 0..4 {
            leave.spend().await;
            sent.push(began.elapsed().as_secs());
        }
        leave.another().spend().await;
        sent.push(began.elapsed().as_secs());
        assert_eq!(sent, [0, 0, 1, 1, 2]);
    }
}
