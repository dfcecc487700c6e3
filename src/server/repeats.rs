//! Log lines that a client can cause as often as it likes.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How often such a line is logged.
const EVERY: Duration = Duration::from_secs(10);

/// Bounds how often something is logged, and counts the rest.
#[derive(Debug, Default)]
pub(super) struct Repeats(Mutex<(Option<Instant>, u64)>);

impl Repeats {
    /// Whether to log it now, with the number of times that it was not logged before.
    pub(super) fn log_now(&self) -> Option<u64> {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, skipped) = &mut *guard;
        let now = Instant::now();
        if last.is_some_and(|last| now.saturating_duration_since(last) < EVERY) {
            *skipped += 1;
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(skipped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn repeats_are_counted_until_the_next_line() {
        let repeats = Repeats::default();
        assert_eq!(repeats.log_now(), Some(0));
        assert_eq!((repeats.log_now(), repeats.log_now()), (None, None));
        tokio::time::advance(EVERY).await;
        assert_eq!(repeats.log_now(), Some(2));
        assert_eq!(repeats.log_now(), None);
    }
}
