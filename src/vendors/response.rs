//! What every vendor's responses have in common before their bodies are read.
//!
//! Each function judges one thing, so that an adapter reads as the list of its
//! vendor's own rules with the common ones in between.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};
use jiff::fmt::rfc2822::DateTimeParser;

use super::{Expiry, Token};
use crate::job::{BackendFault, FaultKind, vendor_message};

/// The fault that the HTTP status alone tells, at any vendor: 401, 403, 429,
/// every 5xx whatever its body, a redirect (which is never followed) and one
/// without content. A status that HTTP does not have counts as a 5xx, after RFC
/// 9110, section 15.
///
/// Every other status is left to the adapter.
pub(super) fn check_status(response: &Response<Bytes>) -> Result<(), BackendFault> {
    let status = response.status();
    let kind = match status {
        StatusCode::UNAUTHORIZED => FaultKind::CredentialsRejected,
        StatusCode::FORBIDDEN => FaultKind::Forbidden,
        StatusCode::TOO_MANY_REQUESTS => {
            FaultKind::Throttled { retry_after: retry_after(response.headers()) }
        }
        _ if status.as_u16() >= 500 => FaultKind::Unavailable {
            retry_after: retry_after(response.headers()),
            why: format!("it answered HTTP {}", status.as_u16()),
        },
        _ if status.is_redirection() => {
            FaultKind::Rejected { message: format!("a redirect (HTTP {})", status.as_u16()) }
        }
        _ if status.is_informational() || status == StatusCode::NO_CONTENT => {
            FaultKind::Malformed { why: "no content" }
        }
        _ => return Ok(()),
    };
    Err(kind.with_status(status))
}

/// Like [`check_status`] for the response to a token request: 403 and the vendor's own
/// `refusals` mean the secret itself.
pub(super) fn check_exchange(
    response: &Response<Bytes>,
    refusals: &[StatusCode],
) -> Result<(), BackendFault> {
    let status = response.status();
    if status == StatusCode::FORBIDDEN || refusals.contains(&status) {
        return Err(FaultKind::CredentialsRejected.with_status(status));
    }
    check_status(response)
}

/// The fault of a 2xx or 4xx response whose content type is not JSON. A missing
/// type is let through: the parser decides then.
pub(super) fn check_json(response: &Response<Bytes>) -> Result<(), BackendFault> {
    match content_type(response.headers()) {
        Some(kind) if !kind.contains("json") => Err(malformed("not JSON", response.status())),
        _ => Ok(()),
    }
}

/// Like [`check_json`] for a response in bytes.
pub(super) fn check_octets(response: &Response<Bytes>) -> Result<(), BackendFault> {
    match content_type(response.headers()) {
        Some(kind) if kind != "application/octet-stream" => {
            Err(malformed("not application/octet-stream", response.status()))
        }
        _ => Ok(()),
    }
}

/// Lower-case media type without parameters.
pub(super) fn content_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let kind = value.split(';').next()?.trim().to_ascii_lowercase();
    (!kind.is_empty()).then_some(kind)
}

/// A response that can't be understood; a 2xx status is not part of the failure.
pub(super) fn malformed(why: &'static str, status: StatusCode) -> BackendFault {
    judged(FaultKind::Malformed { why }, status)
}

/// A refusal in the vendor's words; a 2xx status is not part of the failure.
pub(super) fn rejected(message: &str, status: StatusCode) -> BackendFault {
    let message = match vendor_message(message) {
        empty if empty.is_empty() => format!("HTTP {}", status.as_u16()),
        message => message,
    };
    judged(FaultKind::Rejected { message }, status)
}

/// What the body told; a 2xx status is not part of the failure.
pub(super) fn judged(kind: FaultKind, status: StatusCode) -> BackendFault {
    if status.is_success() { kind.into() } else { kind.with_status(status) }
}

/// The token of a successful exchange, which has to fit into a header.
pub(super) fn token(value: Option<String>, expiry: Option<Expiry>) -> Result<Token, BackendFault> {
    match value {
        Some(value) if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(Token { value: value.into(), expiry })
        }
        Some(_) => Err(FaultKind::Malformed { why: "a token that no header can hold" }.into()),
        None => Err(FaultKind::Malformed { why: "no token" }.into()),
    }
}

/// The wait that the vendor asks for: seconds, or a date, which is read against
/// the response's own Date header since the gateway's clock may differ.
/// RFC 9110, section 10.2.3.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let wanted = text(header::RETRY_AFTER)?;
    if let Ok(seconds) = wanted.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let wait = date(wanted)?.duration_since(date(text(header::DATE)?)?);
    Some(wait.unwrap_or(Duration::ZERO))
}

/// A date in one of the three forms of RFC 9110, section 5.6.7, or another that RFC 2822
/// allows, such as one with a numeric zone.
fn date(text: &str) -> Option<SystemTime> {
    const PARSER: DateTimeParser = DateTimeParser::new();
    let mail_date = || PARSER.parse_timestamp(text).ok().map(SystemTime::from);
    httpdate::parse_http_date(text).ok().or_else(mail_date)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(retry_after_header: &str, date: Option<&str>) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, retry_after_header.parse().unwrap());
        if let Some(date) = date {
            headers.insert(header::DATE, date.parse().unwrap());
        }
        retry_after(&headers)
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(wait("7", None), Some(Duration::from_secs(7)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:50:00 GMT", now), Some(Duration::from_secs(23)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:00:00 GMT", now), Some(Duration::ZERO));
        for lenient in
            ["Sunday, 06-Nov-94 08:50:00 GMT", "Sun Nov  6 08:50:00 1994", "6 Nov 1994 08:50:00 +0000"]
        {
            assert_eq!(wait(lenient, now), Some(Duration::from_secs(23)), "{lenient}");
        }
        assert_eq!(wait("Sun, 06 Nov 1994 08:50:00 GMT", None), None);
        assert_eq!(wait("soon", now), None);
        assert_eq!(wait("-1", now), None);
    }
}
