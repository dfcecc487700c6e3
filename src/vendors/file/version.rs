//! Which version of a file a response is about: its ETag, its Last-Modified and its size
//! (RFC 9110, sections 8.8 and 13.1.5).

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderValue, Response, header};

/// A longer ETag is not used.
const LONGEST_ETAG: usize = 1024;

/// Longest text of a version.
const LONGEST_VERSION: usize = 2048;

/// What a vendor says of a file that changes with its content. Callers see it as opaque
/// text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileVersion {
    /// As the vendor writes it, with quotes and `W/`.
    etag: String,
    /// As the vendor writes it.
    last_modified: String,
    /// Whether the file was not changed in the second of the response, so that the date
    /// tells versions apart.
    is_settled: bool,
    /// Whole size in bytes.
    size: Option<u64>,
}

impl FileVersion {
    /// The version that the head of a response is about; `size` is that of the whole file.
    pub fn of(head: &Response<Bytes>, size: Option<u64>) -> Self {
        let text = |name| {
            let value = head.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
            value.map(str::trim).unwrap_or_default()
        };
        let etag = Some(text(header::ETAG)).filter(|etag| etag.len() <= LONGEST_ETAG).unwrap_or_default();
        let last_modified = text(header::LAST_MODIFIED);
        let modified = httpdate::parse_http_date(last_modified).ok();
        let sent = httpdate::parse_http_date(text(header::DATE)).ok();
        Self {
            etag: etag.to_owned(),
            last_modified: modified.map(|_| last_modified.to_owned()).unwrap_or_default(),
            is_settled: modified.zip(sent).is_some_and(|(modified, sent)| modified < sent),
            size,
        }
    }

    /// The version of bytes that are here.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let etag = format!("\"{:032x}\"", xxhash_rust::xxh3::xxh3_128(bytes));
        Self { etag, size: Some(bytes.len() as u64), ..Self::default() }
    }

    /// The value of If-Range: only what tells versions apart byte for byte.
    pub fn if_range(&self) -> Option<HeaderValue> {
        let value = match &*self.etag {
            "" if self.is_settled => &*self.last_modified,
            "" => return None,
            etag if is_strong(etag) => etag,
            _ => return None,
        };
        HeaderValue::try_from(value).ok()
    }

    /// Whether `other` is of the same file with another content: whatever is known of both
    /// has to be the same. Equal strong ETags outweigh the date.
    pub fn differs_from(&self, other: &Self) -> bool {
        let (a, b) = (self, other);
        let both = |a: &str, b: &str| !a.is_empty() && !b.is_empty();
        let sizes_differ = a.size.zip(b.size).is_some_and(|(a, b)| a != b);
        let etags_differ = both(&a.etag, &b.etag) && opaque_tag(&a.etag) != opaque_tag(&b.etag);
        let is_same = both(&a.etag, &b.etag) && is_strong(&a.etag) && a.etag == b.etag;
        let date = |text| httpdate::parse_http_date(text).ok();
        let dates_differ =
            both(&a.last_modified, &b.last_modified) && date(&a.last_modified) != date(&b.last_modified);
        sizes_differ || etags_differ || dates_differ && !is_same
    }

    /// Whether the vendor says more of it than its size.
    pub fn has_validator(&self) -> bool {
        !self.etag.is_empty() || !self.last_modified.is_empty()
    }

    /// As text, empty where nothing is known.
    pub fn to_text(&self) -> String {
        if *self == Self::default() {
            return String::new();
        }
        let Self { etag, last_modified, is_settled, size } = self;
        let size = size.map(|size| size.to_string()).unwrap_or_default();
        let text = format!("{}\n{size}\n{last_modified}\n{etag}", u8::from(*is_settled));
        BASE64_URL_SAFE_NO_PAD.encode(text)
    }

    /// The version of a text that [`to_text`](Self::to_text) gave; `None` for any other.
    pub fn from_text(text: &str) -> Option<Self> {
        if text.len() > LONGEST_VERSION {
            return None;
        }
        let text = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let [is_settled, size, last_modified, etag] =
            text.splitn(4, '\n').collect::<Vec<_>>().try_into().ok()?;
        let size = if size.is_empty() { None } else { Some(size.parse().ok()?) };
        let is_settled = match is_settled {
            "0" => false,
            "1" => true,
            _ => return None,
        };
        let is_text = |text: &str| text.bytes().all(|byte| (b' '..0x7f).contains(&byte));
        let version =
            Self { etag: etag.to_owned(), last_modified: last_modified.to_owned(), is_settled, size };
        (is_text(etag) && is_text(last_modified)).then_some(version)
    }
}

fn is_strong(etag: &str) -> bool {
    etag.len() >= 2 && etag.starts_with('"') && etag.ends_with('"')
}

/// Without the mark of a weak one, which a proxy may add: RFC 9110, section 8.8.3.2.
fn opaque_tag(etag: &str) -> &str {
    etag.strip_prefix("W/").or_else(|| etag.strip_prefix("w/")).unwrap_or(etag)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SUNDAY: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const MONDAY: &str = "Mon, 07 Nov 1994 08:49:37 GMT";

    fn version(headers: &[(&str, &str)], size: Option<u64>) -> FileVersion {
        let mut head = Response::builder();
        for (name, value) in headers {
            head = head.header(*name, *value);
        }
        FileVersion::of(&head.body(Bytes::new()).unwrap(), size)
    }

    #[test]
    fn if_range_holds_a_strong_etag_or_a_settled_date() {
        let sunday = ("last-modified", SUNDAY);
        for (headers, expected) in [
            (&[("etag", "\"a\"")][..], Some("\"a\"")),
            (&[("etag", "\"a\""), sunday], Some("\"a\"")),
            (&[("etag", "W/\"a\""), sunday, ("date", MONDAY)], None),
            (&[sunday, ("date", MONDAY)], Some(SUNDAY)),
            (&[sunday, ("date", SUNDAY)], None),
            (&[sunday], None),
            (&[("last-modified", "yesterday"), ("date", MONDAY)], None),
            (&[("etag", "")], None),
            (&[], None),
        ] {
            let value = version(headers, Some(9)).if_range();
            assert_eq!(value.as_ref().and_then(|value| value.to_str().ok()), expected, "{headers:?}");
        }
    }

    #[test]
    fn replaced_file_differs_by_any_validator() {
        let (etag, date) =
            (|tag| version(&[("etag", tag)], None), |date| version(&[("last-modified", date)], None));
        let both = |tag, date| version(&[("etag", tag), ("last-modified", date)], None);
        let size = |size| version(&[], Some(size));
        for (a, b, differs) in [
            (etag("\"a\""), etag("\"a\""), false),
            (etag("\"a\""), etag("\"b\""), true),
            (etag("W/\"a\""), etag("W/\"b\""), true),
            (etag("W/\"a\""), etag("\"a\""), false),
            (date(SUNDAY), date(SUNDAY), false),
            (date(SUNDAY), date("Sunday, 06-Nov-94 08:49:37 GMT"), false),
            (date(SUNDAY), date(MONDAY), true),
            (both("\"a\"", SUNDAY), both("\"a\"", MONDAY), false),
            (both("W/\"a\"", SUNDAY), both("W/\"a\"", MONDAY), true),
            (both("\"a\"", SUNDAY), date(MONDAY), true),
            (size(9), size(9), false),
            (size(9), size(8), true),
            (size(9), etag("\"a\""), false),
            (FileVersion::of_bytes(b"a"), FileVersion::of_bytes(b"b"), true),
        ] {
            assert_eq!((a.differs_from(&b), b.differs_from(&a)), (differs, differs), "{a:?} {b:?}");
        }
    }

    #[test]
    fn version_of_nothing_is_empty_text() {
        assert_eq!(version(&[], None).to_text(), "");
        for text in ["x", "", "MA", "!", &"a".repeat(3000)] {
            assert_eq!(FileVersion::from_text(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn version_round_trips_as_text(etag in "(W/)?\"[!#-~]{0,40}\"", size: Option<u64>, settled: bool) {
            let date = if settled { MONDAY } else { SUNDAY };
            let version = version(&[("etag", &etag), ("last-modified", SUNDAY), ("date", date)], size);
            let text = version.to_text();
            prop_assert!(text.len() <= LONGEST_VERSION && text.is_ascii());
            prop_assert_eq!(FileVersion::from_text(&text), Some(version));
        }

        #[test]
        fn any_text_is_read_without_panic(text in ".{0,80}") {
            let _ = FileVersion::from_text(&text);
        }
    }
}
