//! Targets for what is read of every response before its adapter: the wait that the vendor
//! asks for, and the coding of the body.

use std::{io::Write, time::Duration};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};

use super::STATUSES;
use crate::{
    job::{BackendFault, FaultKind},
    transport,
    vendors::{LONGEST_RETRY_AFTER, in_context},
};

/// Retry-After, RateLimit and the extensions of GraphQL. Input: a byte for the status, lines
/// of headers, an empty line, the body.
///
/// A wait is never zero and never longer than an hour. One more Retry-After shortens none,
/// and the body counts only where the head asks for no wait.
pub fn requested_wait(input: &[u8]) {
    let Some((status, rest)) = input.split_first() else { return };
    let status = STATUSES[usize::from(status.wrapping_sub(b'a')) % STATUSES.len()];
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status.try_into().expect("a constant status is valid");
    let mut rest = rest;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, after) = (&rest[..end], &rest[end + 1..]);
        rest = after;
        if line.is_empty() {
            break;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii())) {
            response.headers_mut().append(name, value);
        }
    }
    let of_head = [FaultKind::Throttled, FaultKind::Forbidden].map(|kind| wait(kind, &response));
    let without_body = of_head[0];
    *response.body_mut() = Bytes::copy_from_slice(rest);
    let with_body = wait(FaultKind::Throttled, &response);
    assert!(without_body.is_none() || with_body == without_body, "the head goes before the body");
    response.headers_mut().append(header::RETRY_AFTER, HeaderValue::from_static("7"));
    let seven = Duration::from_secs(7);
    let with_seven = wait(FaultKind::Throttled, &response).expect("seven seconds are asked for");
    assert!(with_seven >= seven, "the longest counts");
    assert!(with_seven == seven || with_body.is_some(), "nothing is added to a wait");
}

fn wait(kind: FaultKind, response: &Response<Bytes>) -> Option<Duration> {
    let wait = in_context(BackendFault::from(kind), response).retry_after;
    assert!(
        wait.is_none_or(|wait| !wait.is_zero() && wait <= LONGEST_RETRY_AFTER),
        "a wait is longer than zero and at most an hour"
    );
    wait
}

/// Of the letters a to h.
const CODINGS: [&[&str]; 8] = [
    &[],
    &["gzip"],
    &["deflate"],
    &["x-gzip", "gzip"],
    &["gzip, deflate"],
    &["UTF-8"],
    &["GZIP, gzip,gzip"],
    &["br"],
];

/// Content-Encoding. Input: a byte each for the coding, the limit and the length of the
/// pieces that the body comes in, then the body.
///
/// The body never exceeds the limit and does not depend on how it came in pieces. A body
/// without a coding, and one that is compressed here, is the same afterwards.
pub fn content_coding(input: &[u8]) {
    let Some(([coding, limit, piece], body)) = input.split_first_chunk() else { return };
    let lines = CODINGS[usize::from(coding.wrapping_sub(b'a')) % CODINGS.len()];
    let limit = 1_usize << (limit.wrapping_sub(b'0') % 16);
    let piece = usize::from(piece.wrapping_sub(b'0')).max(1);
    let headers = |lines: &[&'static str]| -> HeaderMap {
        lines.iter().map(|line| (header::CONTENT_ENCODING, HeaderValue::from_static(line))).collect()
    };
    let decode = |headers: &HeaderMap, body: &[u8], piece: usize| {
        let (whole, partial) = transport::decoded(headers, limit, body.chunks(piece));
        assert!(whole.as_ref().is_none_or(|whole| whole.len() <= limit), "a body is within its limit");
        (whole, partial)
    };
    let (whole, _) = decode(&headers(lines), body, usize::MAX);
    let (in_pieces, partial) = decode(&headers(lines), body, piece);
    assert_eq!(whole, in_pieces, "pieces change nothing");
    let is_simple = matches!(lines, [] | ["gzip" | "UTF-8" | "br"]);
    if let Some(whole) = whole.filter(|_| is_simple) {
        assert!(whole.starts_with(&partial), "a part of the body is a part of the whole");
    }
    if !matches!(lines, [] | ["gzip"]) {
        return;
    }
    let fits = body.len() <= limit;
    let same = fits.then(|| Bytes::copy_from_slice(body));
    if lines.is_empty() {
        assert_eq!(decode(&headers(lines), body, piece).0, same, "a plain body is read as it is");
    } else if body.len() <= 64 {
        let (start, end) = body.split_at(body.len() / 2);
        let members = [gzip(start), gzip(end)].concat();
        let compressed = decode(&headers(lines), &members, piece).0;
        assert_eq!(compressed, same, "members of gzip are joined");
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("a vector takes all bytes")
}
