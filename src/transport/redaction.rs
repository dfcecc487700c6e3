//! Keeps secrets out of what a vendor said.

use std::borrow::Cow;

use url::form_urlencoded;

use crate::{
    job::{BackendFault, FaultKind, JobFault, vendor_message},
    vendors::{Elements, percent_encoded},
};

const REDACTED: &str = "[redacted]";

/// A shorter beginning of a secret gives nothing away.
const TELLING: usize = 4;

/// A response's elements without `secrets`, should the vendor have repeated them in its
/// words for people. What it says of a job that it knows is passed on as it is.
pub(super) fn elements(mut elements: Elements, secrets: &[&str]) -> Elements {
    for fault in elements.faults_mut() {
        if let JobFault::Invalid { message } = fault {
            redact(message, secrets);
        }
    }
    elements
}

/// A fault without `secrets`.
pub(super) fn fault(mut fault: BackendFault, secrets: &[&str]) -> BackendFault {
    if let FaultKind::Rejected { message } | FaultKind::Unavailable { why: message } = &mut fault.kind {
        redact(message, secrets);
    }
    fault
}

/// A state that nobody knows, without `secrets`: it may be any text, and the log shows it.
pub(super) fn unknown_state(word: &mut String, secrets: &[&str]) {
    let known: Vec<_> = secrets.iter().flat_map(|secret| spellings(secret)).collect();
    replace(word, &known);
}

/// A line for people without `secrets`.
pub(super) fn text(line: &mut String, secrets: &[&str]) {
    redact(line, secrets);
}

/// A value in JSON without `secrets`, however it escapes them.
pub(super) fn json(value: &mut String, secrets: &[&str]) {
    *value = unescaped(value);
    let mut known = Vec::new();
    for secret in secrets.iter().filter(|secret| !secret.trim().is_empty()) {
        let quoted = serde_json::Value::from(*secret).to_string();
        let inner = quoted.trim_start_matches('"').strip_suffix('"').unwrap_or_default().to_owned();
        known.extend(spellings(secret).into_iter().chain([Cow::Owned(inner)]));
    }
    replace(value, &known);
}

/// JSON without escapes that nothing needs: `\/`, and `\u` of what can stand as it is.
fn unescaped(text: &str) -> String {
    let (mut plain, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find('\\') {
        plain += &rest[..at];
        rest = &rest[at..];
        let units: Vec<u16> = escaped_units(rest).collect();
        let decoded: Result<String, _> = char::decode_utf16(units.iter().copied()).collect();
        let is_plain = |c: char| !c.is_control() && c != '"' && c != '\\';
        match decoded.ok().filter(|decoded| !decoded.is_empty() && decoded.chars().all(is_plain)) {
            Some(decoded) => {
                plain += &decoded;
                rest = &rest[6 * units.len()..];
            }
            None if rest.starts_with("\\/") => {
                plain.push('/');
                rest = &rest[2..];
            }
            None => {
                let length = 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
                plain += &rest[..length];
                rest = &rest[length..];
            }
        }
    }
    plain + rest
}

/// The escape that a text begins with: one unit, or the two of a pair.
fn escaped_units(text: &str) -> impl Iterator<Item = u16> {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let first = unit(0);
    let second = first.filter(|first| (0xd800..0xdc00).contains(first)).and_then(|_| unit(6));
    first.into_iter().chain(second)
}

/// Replaces each place where spellings stand, one after another or over each other, once: a
/// short secret may be a part of another, and of what replaces it.
fn replace(text: &mut String, spellings: &[Cow<'_, str>]) {
    let spellings = spellings.iter().filter(|spelling| !spelling.is_empty());
    let found = spellings.flat_map(|spelling| text.match_indices(&**spelling));
    let mut places: Vec<_> = found.map(|(at, spelling)| at..at + spelling.len()).collect();
    if places.is_empty() {
        return;
    }
    places.sort_unstable_by_key(|place| place.start);
    let (mut clean, mut end) = (String::new(), 0);
    for place in places {
        if place.start >= end {
            clean = clean + &text[end..place.start] + REDACTED;
        }
        end = end.max(place.end);
    }
    *text = clean + &text[end..];
}

fn redact(message: &mut String, secrets: &[&str]) {
    let known: Vec<_> = secrets.iter().flat_map(|secret| spellings(secret)).collect();
    replace(message, &known);
    for spelling in known {
        if !message.ends_with(REDACTED) {
            // The words end after 512 characters, in the middle of a secret perhaps.
            let cut = (TELLING..spelling.len()).rev().filter(|end| spelling.is_char_boundary(*end));
            let cut = cut.map(|end| &spelling[..end]).find(|beginning| message.ends_with(beginning));
            if let Some(beginning) = cut {
                message.truncate(message.len() - beginning.len());
                message.push_str(REDACTED);
            }
        }
    }
    *message = vendor_message(message);
}

/// How a secret may come back: as it is, with its white space folded as in every
/// message, or as a part of a URL.
fn spellings(secret: &str) -> [Cow<'_, str>; 5] {
    let folded = vendor_message(secret);
    let form: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    // One that is nothing but white space would fold to nothing, which is everywhere.
    let folded = if folded.is_empty() { Cow::Borrowed(secret) } else { folded.into() };
    let encoded = percent_encoded(secret);
    // Some encode paths, in which slashes stay.
    let in_path = encoded.replace("%2F", "/");
    [secret.into(), folded, encoded, in_path.into(), form.into()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(message: &str, secret: &str) -> String {
        let kind = FaultKind::Rejected { message: vendor_message(message) };
        match fault(kind.into(), &[secret]).kind {
            FaultKind::Rejected { message } => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn secret_is_known_in_every_spelling() {
        for (message, secret) in [
            ("no s3cret here", "s3cret"),
            ("no p  w here", "p  w"),
            ("no p%26w%20%2F here", "p&w /"),
            ("no p%26w+%2F here", "p&w /"),
            ("no 1|abc here", "1|abc"),
            ("no a/b%2B1 here", "a/b+1"),
        ] {
            assert_eq!(said(message, secret), "no [redacted] here", "{secret}");
        }
        assert_eq!(said("a b", ""), "a b");
        let kind = FaultKind::Unavailable { why: "s3cret is late".to_owned() };
        let why = "[redacted] is late".to_owned();
        assert_eq!(fault(kind.into(), &["s3cret"]).kind, FaultKind::Unavailable { why });
        assert_eq!(said("a b", "  "), "a b");
    }

    #[test]
    fn secret_within_another_is_replaced_once() {
        for (secrets, expected) in [
            (&["a"] as &[_], "b[redacted]bcdefg"),
            (&["a", "d"], "b[redacted]bc[redacted]efg"),
            (&["cd", "abcdef"], "b[redacted]g"),
            (&["abc", "bcde", "e"], "b[redacted]fg"),
        ] {
            let mut line = "babcdefg".to_owned();
            text(&mut line, secrets);
            assert_eq!(line, expected, "{secrets:?}");
            let mut value = "\"babcdefg\"".to_owned();
            json(&mut value, secrets);
            assert_eq!(value, format!("\"{expected}\""), "{secrets:?}");
        }
    }

    #[test]
    fn secret_in_json_is_known_however_it_is_escaped() {
        for (value, secret, expected) in [
            (r#""abc\/SEK\/V+4==""#, "abc/SEK/V+4==", r#""[redacted]""#),
            (r#""a pw\"SEK\\x b""#, "pw\"SEK\\x", r#""a [redacted] b""#),
            (r#""\u0053EK\u00e4 \ud83d\ude00!""#, "SEKä", r#""[redacted] 😀!""#),
            (r#""\u0022 \ud83d \n \u00""#, "none", r#""\u0022 \ud83d \n \u00""#),
            (r#""\\/x\\u0053""#, "none", r#""\\/x\\u0053""#),
        ] {
            let mut found = value.to_owned();
            json(&mut found, &[secret, ""]);
            assert_eq!(found, expected, "{value}");
        }
        let mut long = format!("\"{}{}\"", "x".repeat(110), "SEKRET-VALUE-42");
        json(&mut long, &["SEKRET-VALUE-42"]);
        assert!(!long.contains("SEK"));
    }

    #[test]
    fn secret_that_the_end_of_the_message_cuts_is_redacted_too() {
        let secret = "0123456789abcdef";
        for shown in 4..16 {
            let before = "x".repeat(512 - shown);
            let message = said(&format!("{before}{secret}"), secret);
            assert_eq!(message, vendor_message(&format!("{before}[redacted]")));
        }
    }
}
