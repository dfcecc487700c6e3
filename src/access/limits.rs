//! What each caller may use in a second.

use std::{fmt, num::NonZeroU32, sync::Arc, time::Duration};

use governor::{
    DefaultDirectRateLimiter, Quota,
    clock::{Clock, DefaultClock},
};
use moka::sync::Cache;

use super::{Policy, REMEMBERED};

/// The use of every caller that has been seen lately.
#[derive(Clone, Debug)]
pub(super) struct Usages(Cache<Arc<str>, Arc<Usage>>);

/// One caller's use.
pub struct Usage {
    rates: Rates,
    calls: Option<DefaultDirectRateLimiter>,
    download_bytes: Option<DefaultDirectRateLimiter>,
}

/// A caller has used up what it may in a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateExceeded {
    /// When the next call would be accepted.
    pub retry_in: Duration,
}

/// After which time without calls a caller's use is forgotten.
const IDLE: Duration = Duration::from_mins(10);

impl Default for Usages {
    fn default() -> Self {
        let remembered = REMEMBERED.get() as u64;
        Self(Cache::builder().max_capacity(remembered).time_to_idle(IDLE).build())
    }
}

impl Usages {
    pub(super) fn of(&self, name: &Arc<str>, policy: &Policy) -> Arc<Usage> {
        let usage = self.0.get_with_by_ref(name, || Arc::new(Usage::new(policy)));
        if usage.rates == rates(policy) {
            return usage;
        }
        let usage = Arc::new(Usage::new(policy));
        self.0.insert(Arc::clone(name), Arc::clone(&usage));
        usage
    }
}

/// Calls and bytes in a second.
type Rates = (Option<NonZeroU32>, Option<NonZeroU32>);

fn rates(policy: &Policy) -> Rates {
    (policy.calls_per_second, policy.download_bytes_per_second)
}

impl Usage {
    fn new(policy: &Policy) -> Self {
        let limiter = |rate: Option<NonZeroU32>| {
            rate.map(|rate| DefaultDirectRateLimiter::direct(Quota::per_second(rate)))
        };
        Self {
            rates: rates(policy),
            calls: limiter(policy.calls_per_second),
            download_bytes: limiter(policy.download_bytes_per_second),
        }
    }

    /// Counts a call.
    ///
    /// # Errors
    /// It is one too many.
    pub fn begin_call(&self) -> Result<(), RateExceeded> {
        let Some(calls) = &self.calls else { return Ok(()) };
        calls.check().map_err(|not_until| RateExceeded {
            retry_in: not_until.wait_time_from(DefaultClock::default().now()),
        })
    }

    /// Waits until this many bytes may be sent.
    pub async fn send(&self, bytes: usize) {
        let Some(limiter) = &self.download_bytes else { return };
        let mut left = u32::try_from(bytes).unwrap_or(u32::MAX);
        while let Some(part) = NonZeroU32::new(left.min(PART.get())) {
            // A part is never larger than what may be sent in a second.
            let _ = limiter.until_n_ready(part).await;
            left -= part.get();
        }
    }
}

/// Bytes that are waited for at once: the least that may be sent in a second.
const PART: NonZeroU32 = NonZeroU32::new(64 << 10).expect("it is not zero");

impl fmt::Debug for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Usage").finish_non_exhaustive()
    }
}
