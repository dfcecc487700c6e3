//! When to call again, as functions of the error.

use std::{error::Error, time::Duration};

use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Doublings of the first wait within the first five tries: a gateway that restarts is back soon, so
/// none of them waits for more than two seconds.
const FIRST_DOUBLINGS: u32 = 3;

/// First and longest wait before a reconnect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// Whether a watch or a wait that ended with this error goes on in another call, as the contract
/// says at `WatchJob`: the gateway is unavailable, or a proxy or the connection failed.
pub fn is_resumable(status: &Status) -> bool {
    let is_from_the_connection = status.source().is_some();
    is_from_the_connection
        || match status.code() {
            Code::Unavailable | Code::DeadlineExceeded => true,
            Code::Unknown | Code::Internal | Code::Cancelled => status.get_details_error_info().is_none(),
            Code::ResourceExhausted => retry_delay(status).is_some(),
            _ => false,
        }
}

/// The wait that the server requests.
pub fn retry_delay(status: &Status) -> Option<Duration> {
    status.get_details_retry_info().and_then(|info| info.retry_delay)
}

/// The wait after so many failures in a row: exponential with jitter, at most two seconds for the
/// first five of them. `random` is in 0..1.
pub fn backoff(failures: u32, random: f64) -> Duration {
    let (first, longest) = BACKOFF;
    let doublings = failures.min(FIRST_DOUBLINGS).max(failures.saturating_sub(1));
    let most = first.saturating_mul(2_u32.saturating_pow(doublings)).min(longest);
    let random_part = most.saturating_sub(first / 2);
    first / 2 + random_part.mul_f64(random.clamp(0.0, 1.0))
}

/// The wait before the call after this error.
fn wait_before_next(status: &Status, failures: u32) -> Duration {
    backoff(failures, rand::random()).max(retry_delay(status).unwrap_or_default())
}

/// The wait before the call after this error, cut to the time that is left. None if no time is left,
/// or if the server requests a longer wait.
pub(super) fn wait_within(left: Duration, status: &Status, failures: u32) -> Option<Duration> {
    let requested = retry_delay(status).unwrap_or_default();
    (!left.is_zero() && requested <= left).then(|| wait_before_next(status, failures).min(left))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::CallError;

    #[test]
    fn backoff_grows_to_a_bound_and_is_never_zero() {
        assert_eq!(backoff(0, 0.0), Duration::from_millis(125));
        let longest: Vec<_> = (0..9).map(|failures| backoff(failures, 1.0).as_millis()).collect();
        assert_eq!(longest, [250, 500, 1000, 2000, 2000, 4000, 8000, 10_000, 10_000]);
        for failures in [10, 100, u32::MAX] {
            assert_eq!(backoff(failures, 1.0), Duration::from_secs(10));
        }
    }

    /// An error as the gateway makes it, with an ErrorInfo.
    fn of_the_gateway(code: Code, retry_delay: Option<Duration>) -> Status {
        let retry_delay = retry_delay.map(|delay| delay.try_into().unwrap());
        let reason = "REASON".to_owned();
        Status::from(&CallError { code: code.into(), reason, retry_delay, ..CallError::default() })
    }

    #[test]
    fn resumable_codes_are_those_of_the_contract() {
        let second = Some(Duration::from_secs(1));
        for (code, by_the_gateway, by_a_proxy) in [
            (Code::Unavailable, true, true),
            (Code::DeadlineExceeded, true, true),
            (Code::Unknown, false, true),
            (Code::Internal, false, true),
            (Code::Cancelled, false, true),
            (Code::ResourceExhausted, false, false),
            (Code::NotFound, false, false),
            (Code::InvalidArgument, false, false),
            (Code::FailedPrecondition, false, false),
            (Code::Unauthenticated, false, false),
            (Code::OutOfRange, false, false),
        ] {
            assert_eq!(is_resumable(&of_the_gateway(code, None)), by_the_gateway, "{code:?}");
            assert_eq!(is_resumable(&Status::new(code, "no")), by_a_proxy, "{code:?}");
        }
        assert!(is_resumable(&of_the_gateway(Code::ResourceExhausted, second)));
        assert!(!is_resumable(&of_the_gateway(Code::FailedPrecondition, second)));
        assert!(is_resumable(&Status::from_error(Box::new(std::io::Error::other("connection reset")))));
    }

    #[test]
    fn requested_wait_is_a_minimum() {
        let status = of_the_gateway(Code::Unavailable, Some(Duration::from_mins(1)));
        assert_eq!(wait_before_next(&status, 0), Duration::from_mins(1));
        assert!(wait_before_next(&Status::unavailable("no"), 0) <= Duration::from_millis(250));
    }
    #[test]
    fn wait_is_cut_to_the_time_left_but_not_below_the_requested_one() {
        let lost = Status::unavailable("no");
        let (short, minute) = (Duration::from_millis(1), Duration::from_mins(1));
        assert_eq!(wait_within(short, &lost, 9), Some(short));
        assert_eq!(wait_within(Duration::ZERO, &lost, 0), None);
        let requested = of_the_gateway(Code::Unavailable, Some(minute));
        assert_eq!(wait_within(minute, &requested, 0), Some(minute));
        assert_eq!(wait_within(short, &requested, 0), None);
    }
}
