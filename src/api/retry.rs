//! When clients whose calls the server ends may call again.
//!
//! Thousands of clients receive such an end in the same moment. Each gets a wait of its own,
//! so that they don't all come to the next server at once.

use std::time::Duration;

/// Waits after a shutdown, or a change of rights: 10,000 clients come back at about 2,000 a second.
const AFTER_SHUTDOWN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// Waits after the end of a connection that was too old. The ages of connections differ
/// already.
const AFTER_CONNECTION: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// The wait after a shutdown or a change of rights; `random` is in 0..1.
pub(super) fn after_shutdown(random: f64) -> Duration {
    between(AFTER_SHUTDOWN, random)
}

/// The wait after the end of a connection; `random` is in 0..1.
pub(super) fn after_connection(random: f64) -> Duration {
    between(AFTER_CONNECTION, random)
}

/// In whole milliseconds.
fn between((least, most): (Duration, Duration), random: f64) -> Duration {
    let wait = least + most.saturating_sub(least).mul_f64(random.clamp(0.0, 1.0));
    Duration::from_millis(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_spread_evenly_within_their_bounds() {
        for (wait, (least, most)) in
            [(after_shutdown as fn(f64) -> Duration, AFTER_SHUTDOWN), (after_connection, AFTER_CONNECTION)]
        {
            assert_eq!([wait(0.0), wait(1.0)], [least, most]);
            assert_eq!([wait(-1.0), wait(f64::NAN.max(2.0))], [least, most]);
            let mut waits: Vec<_> = (0..1000).map(|n| wait(f64::from(n) / 1000.0)).collect();
            waits.dedup();
            assert!(waits.len() > 900 && waits.is_sorted(), "{}", waits.len());
        }
    }
}
