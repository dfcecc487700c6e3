//! How long to wait before something that failed is tried again.

use std::time::Duration;

/// Exponential back-off with full jitter.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// Shortest wait.
    pub min: Duration,
    /// Longest wait.
    pub max: Duration,
}

impl Backoff {
    /// The wait after `failures` (at least one) in a row: anywhere between the
    /// shortest wait and that doubled for each failure, at most the longest;
    /// `dice` in `0.0..1.0` says where.
    pub fn wait(&self, failures: u32, dice: f64) -> Duration {
        let doubled = self.min.saturating_mul(2_u32.saturating_pow(failures));
        let span = doubled.min(self.max).saturating_sub(self.min);
        self.min.min(self.max) + span.mul_f64(dice.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BACKOFF: Backoff = Backoff { min: Duration::from_secs(1), max: Duration::from_secs(30) };

    proptest! {
        #[test]
        fn back_off_of_any_failures_stays_within_its_bounds(failures in 1..u32::MAX, dice in 0.0..1.0_f64) {
            let wait = BACKOFF.wait(failures, dice);
            prop_assert!(BACKOFF.min <= wait && wait <= BACKOFF.max);
        }
    }
}
