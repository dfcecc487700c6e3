//! How long to wait between two polls of a job.

use std::time::Duration;

/// How often a job is polled.
#[derive(Clone, Copy, Debug)]
pub struct PollInterval {
    /// After a change.
    pub min: Duration,
    /// After a long time without one.
    pub max: Duration,
}

impl PollInterval {
    /// The wait before the next poll of a job that has not changed for `unchanged`: a
    /// tenth of that, so that a change is noticed late by at most a tenth of the time it
    /// took. `wanted` is the shortest interval that a watch of the job asks for.
    pub fn next(&self, unchanged: Duration, wanted: Option<Duration>) -> Duration {
        let longest = wanted.map_or(self.max, |wanted| wanted.clamp(self.min, self.max));
        (unchanged / 10).clamp(self.min, longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: PollInterval = PollInterval { min: Duration::from_secs(1), max: Duration::from_secs(10) };

    #[test]
    fn interval_grows_without_change_and_is_shortest_after_one() {
        let after = |unchanged| INTERVAL.next(Duration::from_secs(unchanged), None).as_secs();
        assert_eq!([0, 5, 30, 100, 9999].map(after), [1, 1, 3, 10, 10]);
    }

    #[test]
    fn watch_may_ask_for_a_shorter_interval_within_the_bounds() {
        let wanted = |wanted| INTERVAL.next(Duration::from_hours(1), Some(Duration::from_millis(wanted)));
        assert_eq!([1, 2500, 60_000].map(|millis| wanted(millis).as_millis()), [1000, 2500, 10_000]);
    }
}
