//! Limits what is sent to one backend to so many requests a second.

use std::{
    collections::VecDeque,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};
use tracing::trace;

/// The limit that all requests to one backend share: polls, downloads, token requests,
/// health checks.
#[derive(Debug)]
pub struct RateLimiter {
    rate: Mutex<Rate>,
    /// Held by the task that gets the next permit.
    turn: tokio::sync::Mutex<()>,
    released: Notify,
}

impl RateLimiter {
    /// At most `per_second` requests in any one second.
    pub fn new(per_second: NonZeroU32) -> Arc<Self> {
        let (rate, turn) = (Mutex::new(Rate::new(per_second)), tokio::sync::Mutex::default());
        Arc::new(Self { rate, turn, released: Notify::new() })
    }

    /// The limit, where it is not a share of that of several replicas.
    pub fn per_second(&self) -> NonZeroU32 {
        self.rate().per_second
    }

    /// Sets the limit. What was sent in the last second counts. Changes nothing once there is
    /// an [allowance](Self::set_allowance), which is a share of that limit.
    pub fn set_per_second(&self, per_second: NonZeroU32) {
        self.rate().per_second = per_second;
        self.released.notify_one();
    }

    /// Sets a limit that depends on the time: `owner` before `owner_until`, else `own`, which
    /// may be 0. It is looked up each time that a request is sent, so that a process that was
    /// stopped and continued is back at `own`. What was sent in the last second counts.
    pub fn set_allowance(&self, own: u32, owner: u32, owner_until: Option<Instant>) {
        self.rate().allowance = Some(Allowance { own, owner, owner_until, suspended: suspended() });
        self.released.notify_one();
    }

    /// What may be sent in a second, as it is at `now`.
    pub fn limit(&self, now: Instant) -> u32 {
        self.rate().limit(now)
    }

    /// Counts so many requests as sent now: what another process, in whose place this one is,
    /// may have sent in the last second.
    pub fn count_as_sent(&self, requests: u32) {
        let now = Instant::now();
        self.rate().sent.extend((0..requests).map(|_| now));
    }

    /// The share of the limit that was used in the second before `now`: 0.0 to 1.0.
    pub fn in_use(&self, now: Instant) -> f64 {
        let rate = self.rate();
        let (used, limit) = (rate.sent_within_a_second(now), rate.limit(now));
        if limit == 0 {
            return 1.0;
        }
        f64::from(u32::try_from(used).unwrap_or(u32::MAX).min(limit)) / f64::from(limit)
    }

    /// Waits until a request may be sent, and returns the permit for it. Permits are given
    /// in the order of the calls; a call that is dropped has taken none.
    pub async fn acquire(self: &Arc<Self>) -> Permit {
        let mut permit = self.deferred();
        permit.acquired_at = Some(self.take_turn().await);
        permit
    }

    /// A permit that is acquired only when it is [consumed](Permit::consume).
    pub fn deferred(self: &Arc<Self>) -> Permit {
        Permit { limiter: Arc::clone(self), acquired_at: None }
    }

    /// In the order of arrival: polls that always wait for a permit would otherwise keep
    /// a token request or a health check from ever getting one.
    async fn take_turn(&self) -> Instant {
        let _turn = self.turn.lock().await;
        loop {
            let taken = {
                let mut rate = self.rate();
                let now = Instant::now();
                rate.take(now).map(|()| now)
            };
            match taken {
                Ok(at) => return at,
                Err(Some(at)) => _ = timeout_at(at, self.released.notified()).await,
                // Until there is another allowance.
                Err(None) => self.released.notified().await,
            }
        }
    }

    /// Counts the request of a permit that was acquired at `acquired_at` as sent now, if the
    /// limit allows that still, and returns the time. Otherwise the permit is released.
    fn confirm(&self, acquired_at: Instant) -> Option<Instant> {
        let mut rate = self.rate();
        rate.release(acquired_at);
        let now = Instant::now();
        let is_taken = rate.take(now).is_ok();
        drop(rate);
        if !is_taken {
            self.released.notify_one();
        }
        is_taken.then_some(now)
    }

    fn rate(&self) -> MutexGuard<'_, Rate> {
        self.rate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The permission to send one request now, if it is acquired, and to acquire one for each
/// further request. A permit that is not consumed is released when it is dropped.
#[derive(Debug)]
#[must_use = "it is released when it is dropped"]
pub struct Permit {
    limiter: Arc<RateLimiter>,
    acquired_at: Option<Instant>,
}

impl Permit {
    /// Waits until one request may be sent, which has to follow at once. An acquired permit is
    /// checked again: the limit may have fallen since, and the process may have been stopped.
    pub async fn consume(&mut self) {
        let confirmed = self.acquired_at.take().and_then(|at| self.limiter.confirm(at));
        let counted_at = match confirmed {
            Some(at) => at,
            // Boxed, since most permits are acquired.
            None => Box::pin(self.limiter.take_turn()).await,
        };
        // By the monotonic clock, which all processes of a machine share.
        trace!(?counted_at, "permit consumed");
    }

    /// Releases what was acquired, for a request that has to wait for something else: it
    /// would be sent in another second.
    pub fn release(&mut self) {
        if let Some(at) = self.acquired_at.take() {
            self.limiter.rate().release(at);
            self.limiter.released.notify_one();
        }
    }

    /// A [deferred](RateLimiter::deferred) permit for another request to the same backend.
    pub fn another(&self) -> Self {
        self.limiter.deferred()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.release();
    }
}

/// A limit that depends on the time.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    own: u32,
    owner: u32,
    owner_until: Option<Instant>,
    /// For how long the machine had been suspended when this was set.
    suspended: Duration,
}

/// A sliding window over the last second. Remembers when each of the last requests was
/// sent, so that the limit is exact: no burst, no drift.
#[derive(Debug)]
struct Rate {
    per_second: NonZeroU32,
    allowance: Option<Allowance>,
    sent: VecDeque<Instant>,
}

/// A suspension of the machine that counts. Less is the time between two looks at clocks.
const SUSPENSION: Duration = Duration::from_millis(200);

/// For how long the machine was suspended since it started.
#[cfg(target_os = "linux")]
fn suspended() -> Duration {
    use rustix::time::{ClockId, clock_gettime};

    let monotonic = Duration::try_from(clock_gettime(ClockId::Monotonic));
    let with_suspension = Duration::try_from(clock_gettime(ClockId::Boottime));
    match (with_suspension, monotonic) {
        (Ok(with), Ok(without)) => with.saturating_sub(without),
        _ => Duration::ZERO,
    }
}

/// Not known on this system.
#[cfg(not(target_os = "linux"))]
fn suspended() -> Duration {
    Duration::ZERO
}

impl Rate {
    /// At most `per_second` requests in any one second.
    fn new(per_second: NonZeroU32) -> Self {
        Self { per_second, allowance: None, sent: VecDeque::new() }
    }

    /// Most requests in the second before `now`.
    fn limit(&self, now: Instant) -> u32 {
        match self.allowance {
            None => self.per_second.get(),
            // While a machine is suspended, its monotonic clock stands still.
            Some(Allowance { owner, owner_until: Some(until), suspended: before, .. })
                if now < until && suspended() < before + SUSPENSION =>
            {
                owner
            }
            Some(Allowance { own, .. }) => own,
        }
    }

    /// Counts one request that is sent at `now`.
    ///
    /// # Errors
    /// When to try again; `None` if only another allowance helps.
    fn take(&mut self, now: Instant) -> Result<(), Option<Instant>> {
        let most = usize::try_from(self.limit(now)).unwrap_or(usize::MAX);
        // There are more than that after the limit was lowered.
        if let Some(place) = self.sent.len().checked_sub(most) {
            let Some(oldest) = self.sent.get(place) else { return Err(None) };
            let at = *oldest + Duration::from_secs(1);
            if at > now {
                return Err(Some(at));
            }
            self.sent.drain(..=place);
        }
        self.sent.push_back(now);
        Ok(())
    }

    /// The request that was counted at `at` was not sent.
    fn release(&mut self, at: Instant) {
        if let Some(place) = self.sent.iter().rposition(|sent| *sent == at) {
            self.sent.remove(place);
        }
    }

    /// Requests of the second before `now`.
    fn sent_within_a_second(&self, now: Instant) -> usize {
        self.sent.iter().rev().take_while(|sent| **sent + Duration::from_secs(1) > now).count()
    }
}

#[cfg(test)]
mod tests;
