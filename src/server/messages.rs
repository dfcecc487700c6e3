//! What every error has on the wire, wherever it comes from: details, a bound on its size,
//! and a `grpc-message` with as few escapes as gRPC allows.
//!
//! gRPC requires an escape for `%` and for characters outside printable ASCII. Tonic
//! escapes spaces and others, too. A correct client decodes both, but grpcio does not
//! if its own deadline passes while the error arrives, and
//! `grpc_status.rpc_status.from_call` then rejects the details, because their message
//! differs.

use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode, percent_encode};
use tonic::Status;
use tonic_types::StatusExt;

use crate::api;

/// Parsed once: two look-ups for each call.
static MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Characters to escape, in addition to all that are not ASCII.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

static STATUS: HeaderName = HeaderName::from_static("grpc-status");
static DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// Where gRPC's own retries look for how long to wait; they do not read the RetryInfo.
static PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// Most bytes of an error's message and details, as they are encoded. Clients accept 8 KiB
/// of headers, and some of them refuse a part of those with more.
const MOST_BYTES: usize = 6 << 10;

/// Completes the headers or trailers that may end a call.
pub(super) fn complete(headers: &mut HeaderMap) {
    let Some(status) = headers.get(&STATUS) else { return };
    if status == "0" {
        return;
    }
    let length = |name| headers.get(name).map_or(0, HeaderValue::len);
    if !headers.contains_key(&DETAILS) || length(&MESSAGE) + length(&DETAILS) > MOST_BYTES {
        replace(headers);
    }
    push_back(headers);
    rewrite(headers);
}

/// Repeats the wait of the RetryInfo.
fn push_back(headers: &mut HeaderMap) {
    let status = Status::from_header_map(headers);
    let retry = status.and_then(|status| status.get_details_retry_info());
    if let Some(delay) = retry.and_then(|retry| retry.retry_delay) {
        let millis = delay.as_nanos().div_ceil(1_000_000);
        let millis = i32::try_from(millis).unwrap_or(i32::MAX);
        headers.insert(PUSHBACK.clone(), millis.into());
    }
}

/// Adds the details that an error of a library lacks, and shortens long ones.
fn replace(headers: &mut HeaderMap) {
    let Some(status) = Status::from_header_map(headers) else { return };
    let status = api::complete(&status, MOST_BYTES);
    for name in [&STATUS, &MESSAGE, &DETAILS] {
        headers.remove(name);
    }
    // This fails only for metadata, of which there is none.
    let _ = status.add_header(headers);
}

fn rewrite(headers: &mut HeaderMap) {
    let Some(escaped) = headers.get_mut(&MESSAGE) else { return };
    let message: Vec<u8> = percent_decode(escaped.as_bytes()).collect();
    let outer = [message.first(), message.last()];
    // A header's value can't begin or end with a space.
    if !outer.contains(&Some(&b' '))
        && let Ok(plain) = HeaderValue::try_from(percent_encode(&message, ESCAPED).to_string())
    {
        *escaped = plain;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::time::Duration;

    use tonic::Code;

    use super::*;
    use crate::access::RateExceeded;

    /// The completed headers of an error.
    fn headers(status: &Status) -> HeaderMap {
        let mut headers = HeaderMap::new();
        status.add_header(&mut headers).unwrap();
        complete(&mut headers);
        headers
    }

    /// The header's value for an error with `message`.
    fn on_the_wire(message: &str) -> String {
        headers(&Status::internal(message))[&MESSAGE].to_str().unwrap().to_owned()
    }

    #[test]
    fn printable_ascii_is_not_escaped() {
        let message = r#"job "a b" <c>: 'no' `such` {job}? #1"#;
        assert_eq!(on_the_wire(message), message);
    }

    #[test]
    fn percent_sign_control_and_non_ascii_characters_are_escaped() {
        assert_eq!(on_the_wire("100% é\n."), "100%25 %C3%A9%0A.");
    }

    #[test]
    fn space_at_an_end_is_escaped() {
        assert_eq!(on_the_wire(" a b"), "%20a%20b");
        assert_eq!(on_the_wire("a b "), "a%20b%20");
    }

    #[test]
    fn wait_of_the_retry_info_is_repeated_for_retries_of_grpc() {
        let pushback = |status: &Status| {
            headers(status).get("grpc-retry-pushback-ms").map(|millis| millis.to_str().unwrap().to_owned())
        };
        let after = |retry_in| pushback(&api::of_rate_exceeded(RateExceeded { retry_in }));
        assert_eq!(after(Duration::from_micros(1_500_001)).as_deref(), Some("1501"));
        assert_eq!(after(Duration::from_secs(1 << 31)).as_deref(), Some("2147483647"));
        assert_eq!(pushback(&api::of_deadline()), None);
    }

    #[test]
    fn error_of_a_library_gets_an_error_info() {
        for code in [Code::Unimplemented, Code::Internal, Code::OutOfRange, Code::Cancelled] {
            let status = Status::from_header_map(&headers(&Status::new(code, "x"))).unwrap();
            // The reason of a message that is too long has one code.
            let expected = if code == Code::OutOfRange { Code::ResourceExhausted } else { code };
            assert_eq!((status.code(), status.message()), (expected, "x"));
            let details = status.get_error_details();
            let info = details.error_info().unwrap();
            assert_eq!(info.domain, "jobwatch");
            assert!(!info.reason.is_empty());
        }
    }

    #[test]
    fn success_is_left_alone() {
        let mut trailers = HeaderMap::new();
        Status::ok("").add_header(&mut trailers).unwrap();
        let before = trailers.clone();
        complete(&mut trailers);
        assert_eq!(trailers, before);
    }

    proptest! {
        /// Includes text that looks like an escape, control characters and spaces.
        #[test]
        fn any_message_is_decoded_unchanged(message in "(?s)([%4aF \t\n\0\x7fé]|.)*") {
            let read = Status::from_header_map(&headers(&Status::internal(&*message))).unwrap();
            prop_assert_eq!(read.message(), message);
        }
    }
}
