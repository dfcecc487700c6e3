//! Reading JSON that others wrote: without loss, and without one odd value
//! spoiling the rest.
//!
//! A [`RawValue`] keeps the exact bytes of a part and is skipped over without
//! recursion, however deeply it nests.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::job::Progress;

/// A JSON object, read as `T`. An array is none, though serde would fill a
/// struct from one.
pub(super) fn object<'a, T: Deserialize<'a>>(json: &'a (impl AsRef<[u8]> + ?Sized)) -> Option<T> {
    let json = json.as_ref();
    let first = json.iter().find(|byte| !byte.is_ascii_whitespace())?;
    if *first != b'{' {
        return None;
    }
    serde_json::from_slice(json).ok()
}

/// A field that nothing rests on: a value of another type counts as absent.
pub(super) fn lenient<'a, T: Deserialize<'a>>(field: Option<&'a RawValue>) -> Option<T> {
    serde_json::from_str(field?.get()).ok()
}

/// A percentage as progress; one that is not within 0 to 100 counts as absent.
pub(super) fn percent(field: Option<&RawValue>) -> Option<Progress> {
    let percent = lenient(field).filter(|percent| (0.0..=100.0).contains(percent))?;
    Some(Progress { percent: Some(percent), ..Progress::default() })
}

/// A copy of the exact bytes, so that a small part does not keep a large answer
/// in memory.
pub(super) fn bytes(value: &RawValue) -> Bytes {
    Bytes::copy_from_slice(value.get().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> &RawValue {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn an_array_is_not_an_object() {
        #[derive(Deserialize)]
        struct One {
            a: u8,
        }
        assert_eq!(object::<One>(" {\"a\":1}").unwrap().a, 1);
        assert!(object::<One>("[1]").is_none());
        assert!(object::<One>("").is_none());
        assert!(object::<One>(b"{\"a\":\xff}").is_none());
    }

    #[test]
    fn a_percentage_out_of_range_counts_as_absent() {
        for (json, expected) in [("0", Some(0.0)), ("99.5", Some(99.5)), ("100", Some(100.0))] {
            assert_eq!(percent(Some(raw(json))).unwrap().percent, expected);
        }
        for json in ["-1", "101", "1e999", "\"50\"", "true", "{}"] {
            assert_eq!(percent(Some(raw(json))), None, "{json}");
        }
        assert_eq!(percent(None), None);
    }

    #[test]
    fn a_part_keeps_its_exact_bytes_at_any_depth() {
        let deep = format!("{}1e400{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(bytes(raw(&deep)), deep);
    }
}
