//! W3C Trace Context: the headers `traceparent` and `tracestate`.
//!
//! <https://www.w3.org/TR/trace-context/>

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

pub(super) static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Length of version 00: `00-<32 digits>-<16 digits>-<2 digits>`.
const LENGTH: usize = 55;

/// Longest `tracestate` that is taken over, which the standard asks for at least.
const LONGEST_STATE: usize = 512;

/// The caller's span. `None` where there is none, or none that can be read.
pub(super) fn parent(headers: &HeaderMap) -> Option<SpanContext> {
    let mut given = headers.get_all(&TRACEPARENT).iter();
    let (Some(text), None) = (given.next(), given.next()) else { return None };
    let text = text.to_str().ok()?.trim();
    let (fixed, rest) = text.split_at_checked(LENGTH)?;
    let mut parts = fixed.split('-');
    let version = digits(parts.next(), 2).filter(|version| *version != "ff")?;
    let trace = TraceId::from_hex(digits(parts.next(), 32)?).ok()?;
    let span = SpanId::from_hex(digits(parts.next(), 16)?).ok()?;
    let flags = u8::from_str_radix(digits(parts.next(), 2)?, 16).ok()?;
    // A later version may go on behind another hyphen.
    let is_whole = if version == "00" { rest.is_empty() } else { rest.is_empty() || rest.starts_with('-') };
    let flags = TraceFlags::new(flags) & TraceFlags::SAMPLED;
    let context = SpanContext::new(trace, span, flags, true, state(headers));
    (is_whole && context.is_valid()).then_some(context)
}

/// A part of `traceparent`: so many hexadecimal digits in lower case.
fn digits(part: Option<&str>, count: usize) -> Option<&str> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    part.filter(|part| part.len() == count && part.bytes().all(is_digit))
}

/// What other tracers have noted. Nothing where it can't be read or is too long.
fn state(headers: &HeaderMap) -> TraceState {
    let lines: Option<Vec<&str>> =
        headers.get_all(&TRACESTATE).iter().map(|line| line.to_str().ok()).collect();
    let lines = lines.filter(|lines| lines.iter().map(|line| line.len() + 1).sum::<usize>() <= LONGEST_STATE);
    lines.and_then(|lines| lines.join(",").parse().ok()).unwrap_or(TraceState::NONE)
}

/// The header that makes this span the parent of what the receiver does.
pub(super) fn traceparent(context: &SpanContext, is_sampled: bool) -> HeaderValue {
    let text = format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), u8::from(is_sampled));
    HeaderValue::from_str(&text).expect("it is digits, letters and hyphens")
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn read(lines: &[&str], states: &[&str]) -> Option<SpanContext> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(&TRACEPARENT, HeaderValue::from_str(line).unwrap());
        }
        for line in states {
            headers.append(&TRACESTATE, HeaderValue::from_str(line).unwrap());
        }
        parent(&headers)
    }

    #[test]
    fn traceparent_is_read_and_written_alike() {
        let context = read(&[VALID], &["a=1", "b=2"]).unwrap();
        assert!(context.is_remote() && context.is_sampled());
        assert_eq!(context.trace_state().header(), "a=1,b=2");
        assert_eq!(traceparent(&context, true), VALID);
        // A later version, with more behind it.
        let later = format!("cc{}-more", &VALID[2..]);
        assert_eq!(read(&[&later], &[]).unwrap().span_id(), context.span_id());
        assert!(!read(&[&VALID.replace("-01", "-00")], &[]).unwrap().is_sampled());
        assert!(read(&[&VALID.replace("-01", "-ff")], &[]).unwrap().is_sampled());
    }

    #[test]
    fn invalid_traceparent_is_ignored() {
        for text in [
            "",
            "00",
            "00-1-1-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-+1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736000f067aa0ba902b7-01",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more",
        ] {
            assert_eq!(read(&[text], &[]), None, "{text}");
        }
        assert_eq!(read(&[], &["a=1"]), None);
        assert_eq!(read(&[VALID, VALID], &[]), None, "twice");
    }

    #[test]
    fn tracestate_that_is_invalid_or_too_long_is_left_out() {
        let long = format!("a={}", "x".repeat(LONGEST_STATE));
        for states in [&["no pair"][..], &["A B=1"], &[&long]] {
            let context = read(&[VALID], states).unwrap();
            assert_eq!(context.trace_state().header(), "", "{states:?}");
        }
    }
}
