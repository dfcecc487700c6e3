//! How long connections to vendors live, and how silence on them is noticed.

use std::time::Duration;

/// Times of a connection. All of them run on tokio's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Intervals {
    /// After this, give or take [`age_jitter`](Self::age_jitter), no request is sent over a
    /// connection any more, and the name is looked up again.
    pub(super) max_age: Duration,
    /// Part of the age by which it varies, so that gateways and backends do not open their
    /// connections at the same time.
    pub(super) age_jitter: f64,
    /// After this without a request, a connection is closed.
    pub(super) idle: Duration,
    /// Between two pings over HTTP/2, whether a request is open or not.
    pub(super) ping: Duration,
    /// A ping that is not acknowledged for this long closes the connection; a shorter
    /// time-out of the backend counts instead.
    pub(super) ping_timeout: Duration,
    /// After this without traffic, the kernel probes the other side.
    pub(super) tcp_keep_alive: Duration,
    /// Between two probes.
    pub(super) tcp_keep_alive_interval: Duration,
    /// Probes without response that close the connection.
    pub(super) tcp_keep_alive_probes: u32,
}

/// The times in use.
pub(super) const INTERVALS: Intervals = Intervals {
    max_age: Duration::from_mins(5),
    age_jitter: 0.2,
    idle: Duration::from_secs(90),
    ping: Duration::from_secs(10),
    ping_timeout: Duration::from_secs(10),
    tcp_keep_alive: Duration::from_secs(15),
    tcp_keep_alive_interval: Duration::from_secs(15),
    tcp_keep_alive_probes: 3,
};

impl Intervals {
    /// The age of a connection, for a random number from 0 to 1.
    pub(super) fn age(&self, dice: f64) -> Duration {
        self.max_age.mul_f64(1.0 - self.age_jitter + 2.0 * self.age_jitter * dice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_of_a_connection_varies_by_a_fifth() {
        assert_eq!(INTERVALS.age(0.0), Duration::from_mins(4));
        assert_eq!(INTERVALS.age(0.5), Duration::from_mins(5));
        assert_eq!(INTERVALS.age(1.0), Duration::from_mins(6));
    }
}
