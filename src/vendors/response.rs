//! What every vendor's responses have in common before their bodies are read.
//!
//! Each function judges one thing, so that an adapter reads as the list of its
//! vendor's own rules with the common ones in between.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};

use super::{Expiry, Token, classification::HeadRules};
use crate::job::{BackendFault, FaultKind, vendor_message};

/// The fault that the head alone tells, at any vendor.
pub(super) fn check_status(head: &Response<Bytes>) -> Result<(), BackendFault> {
    HeadRules::default().judge(head)
}

/// The fault of a response whose body can't be JSON: a page for people, an image, or text
/// in another encoding than UTF-8. Any other type is let through, and the parser decides:
/// proxies and frameworks write many types above JSON.
pub(super) fn check_json(response: &Response<Bytes>) -> Result<(), BackendFault> {
    let malformed = |why| Err(malformed(why, response.status()));
    let kind = content_type(response.headers());
    if is_page_of(kind.as_deref(), response.body()) {
        return malformed("it is a page in HTML, not JSON");
    }
    if is_utf16(response.body()) {
        return malformed("it is in UTF-16, not UTF-8");
    }
    match kind {
        Some(kind) if !may_be_json(&kind) => malformed("not JSON"),
        _ => Ok(()),
    }
}

fn may_be_json(kind: &str) -> bool {
    const PLAIN: &[&str] = &[
        "text/plain",
        "text/javascript",
        "application/javascript",
        "application/octet-stream",
        "binary/octet-stream",
    ];
    let is_vendors = kind.starts_with("application/vnd.") || kind.starts_with("application/x-");
    kind.contains("json") || PLAIN.contains(&kind) || is_vendors && !kind.contains("xml")
}

/// JSON begins with an ASCII character (RFC 4627, section 3).
fn is_utf16(body: &[u8]) -> bool {
    matches!(body, [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, _, ..] | [_, 0, ..])
}

/// Like [`check_json`] for a response in Avro.
pub(super) fn check_octets(response: &Response<Bytes>) -> Result<(), BackendFault> {
    let malformed = |why| Err(malformed(why, response.status()));
    if is_page(response) {
        return malformed("it is a page in HTML, not application/octet-stream");
    }
    match content_type(response.headers()) {
        Some(kind) if !kind.ends_with("octet-stream") && !kind.contains("avro") => {
            malformed("not application/octet-stream")
        }
        _ => Ok(()),
    }
}

/// Whether a response is a page for people, as its type says or, where it has none, its
/// beginning.
pub(super) fn is_page(response: &Response<Bytes>) -> bool {
    is_page_of(content_type(response.headers()).as_deref(), response.body())
}

fn is_page_of(kind: Option<&str>, body: &[u8]) -> bool {
    match kind {
        Some(kind) => kind.contains("html"),
        None => body.trim_ascii_start().starts_with(b"<"),
    }
}

/// Lower-case media type without parameters.
pub(super) fn content_type(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let kind = value.split(';').next()?.trim();
    let has_capitals = kind.bytes().any(|byte| byte.is_ascii_uppercase());
    let kind = if has_capitals { kind.to_ascii_lowercase().into() } else { Cow::from(kind) };
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

/// What the body says; a 2xx status is not part of the failure.
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
