//! Invalid or extreme values in a vendor's JSON. The rest of the response stays the same,
//! byte for byte.

use std::{collections::HashMap, ops::Range};

use serde::Deserialize;
use serde_json::value::RawValue;

/// How deep [`InvalidValue::Deep`] is.
const DEPTH: usize = 100_000;
/// How long [`InvalidValue::LongText`] is.
const LENGTH: usize = 100_000_000;

/// An invalid value and its location in the response.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JsonFault {
    /// The value.
    pub put: InvalidValue,
    /// The value to replace, as a JSON pointer (RFC 6901), which may continue inside a
    /// text that is JSON itself (Kinetica's `/data_str/job_status`). One more member of
    /// the whole response if absent. A response without such a value stays as it is.
    #[serde(default)]
    pub at: Option<String>,
}

/// A value that is not JSON, or is at the limits of what clients can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InvalidValue {
    /// A hundred thousand arrays in each other.
    Deep,
    /// The member comes a second time, as null.
    DuplicateKey,
    /// A text of bytes that are no UTF-8.
    InvalidUtf8,
    /// A text of half a surrogate pair.
    LoneSurrogate,
    /// An integer beyond 64 bits.
    BigNumber,
    /// A number beyond what a double holds.
    HugeNumber,
    /// The word NaN.
    Nan,
    /// A text of 100 MB.
    LongText,
}

impl InvalidValue {
    /// The replacement for this value of this key.
    fn instead_of(self, value: &str, key: &str) -> Vec<u8> {
        match self {
            Self::Deep => ["[".repeat(DEPTH), "]".repeat(DEPTH)].concat().into_bytes(),
            Self::DuplicateKey => format!("{value},{}:null", serde_json::Value::from(key)).into_bytes(),
            Self::InvalidUtf8 => b"\"\xff\xc3\x28\"".to_vec(),
            Self::LoneSurrogate => br#""\ud800""#.to_vec(),
            Self::BigNumber => b"340282366920938463463374607431768211456".to_vec(),
            Self::HugeNumber => b"1e400".to_vec(),
            Self::Nan => b"NaN".to_vec(),
            Self::LongText => ["\"", &"x".repeat(LENGTH), "\""].concat().into_bytes(),
        }
    }
}

impl JsonFault {
    /// The response with the value in its place; unchanged if there is no such location.
    pub(super) fn put_into(&self, response: &[u8]) -> Vec<u8> {
        let changed = std::str::from_utf8(response).ok().and_then(|text| match &self.at {
            None => self.as_one_more(text),
            Some(pointer) => {
                let path: Vec<_> = pointer.strip_prefix('/')?.split('/').map(unescaped).collect();
                self.at_path(text, &path)
            }
        });
        changed.unwrap_or_else(|| response.to_vec())
    }

    /// The first member of the object.
    fn as_one_more(&self, text: &str) -> Option<Vec<u8>> {
        let members = text.trim_start().strip_prefix('{')?;
        let comma = if members.trim_start().starts_with('}') { "" } else { "," };
        let value = self.put.instead_of("0", "more");
        Some([b"{\"more\":", &*value, comma.as_bytes(), members.as_bytes()].concat())
    }

    fn at_path(&self, text: &str, path: &[String]) -> Option<Vec<u8>> {
        let (mut range, mut key) = (0..text.len(), "");
        for (index, segment) in path.iter().enumerate() {
            let value = text.get(range.clone())?;
            if value.starts_with('"') {
                let inside: String = serde_json::from_str(value).ok()?;
                return Some(replaced(text, range, &quoted(&self.at_path(&inside, path.get(index..)?)?)));
            }
            let inner = member(value, segment)?;
            range = range.start + inner.start..range.start + inner.end;
            key = segment;
        }
        let value = self.put.instead_of(text.get(range.clone())?, key);
        Some(replaced(text, range, &value))
    }
}

fn unescaped(segment: &str) -> String {
    segment.replace("~1", "/").replace("~0", "~")
}

/// Where a member or an element stands in the text of its object or array.
fn member(text: &str, key: &str) -> Option<Range<usize>> {
    let found = if text.trim_start().starts_with('[') {
        let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
        *items.get(key.parse::<usize>().ok()?)?
    } else {
        let members: HashMap<String, &RawValue> = serde_json::from_str(text).ok()?;
        *members.get(key)?
    };
    // It borrows from the text.
    let start = (found.get().as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
    Some(start..start + found.get().len())
}

fn replaced(text: &str, range: Range<usize>, with: &[u8]) -> Vec<u8> {
    let (before, after) = (text.get(..range.start), text.get(range.end..));
    [before.unwrap_or_default().as_bytes(), with, after.unwrap_or_default().as_bytes()].concat()
}

/// A JSON text of these bytes, UTF-8 or not.
fn quoted(bytes: &[u8]) -> Vec<u8> {
    let mut text = vec![b'"'];
    for byte in bytes {
        match byte {
            b'"' | b'\\' => text.extend([b'\\', *byte]),
            0..0x20 => text.extend(format!("\\u{byte:04x}").into_bytes()),
            _ => text.push(*byte),
        }
    }
    text.push(b'"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(value: InvalidValue, at: Option<&str>, response: &str) -> String {
        let fault = JsonFault { put: value, at: at.map(str::to_owned) };
        String::from_utf8_lossy(&fault.put_into(response.as_bytes())).into_owned()
    }

    #[test]
    fn json_fault_replaces_its_place_and_nothing_else() {
        let response = r#"{"b": 1.0 ,"a/b":[1, {"x":"y"}],"inner":"{\"word\":\"DONE\",\"n\":\"\\n\"}"}"#;
        for (at, wanted) in [
            ("/b", response.replace("1.0", "NaN")),
            ("/a~1b/1/x", response.replace("\"y\"", "NaN")),
            ("/a~1b/0", response.replace("[1,", "[NaN,")),
            ("/inner/word", response.replace(r#"\"DONE\""#, "NaN")),
            ("/nobody", response.to_owned()),
            ("/a~1b/7", response.to_owned()),
            ("b", response.to_owned()),
        ] {
            assert_eq!(put(InvalidValue::Nan, Some(at), response), wanted, "{at}");
        }
        assert_eq!(put(InvalidValue::DuplicateKey, Some("/b"), r#"{"b":1}"#), r#"{"b":1,"b":null}"#);
        assert_eq!(put(InvalidValue::Nan, None, "{}"), r#"{"more":NaN}"#);
        assert_eq!(put(InvalidValue::Nan, None, r#"{"a":1}"#), r#"{"more":NaN,"a":1}"#);
        assert_eq!(put(InvalidValue::Nan, None, "[]"), "[]");
    }

    #[test]
    fn invalid_utf8_stays_invalid_inside_a_text() {
        let fault = JsonFault { put: InvalidValue::InvalidUtf8, at: Some("/s/a".to_owned()) };
        assert_eq!(fault.put_into(br#"{"s":"{\"a\":0}"}"#), b"{\"s\":\"{\\\"a\\\":\\\"\xff\xc3\x28\\\"}\"}");
    }
}
