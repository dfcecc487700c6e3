//! A job's file: the head of the response to a request for it, and all that may be
//! wrong with a file.
//!
//! A Range header requests the bytes from an offset on. A vendor may ignore it (RFC 9110,
//! section 14.2): then the response is the whole file, and what comes before the offset is
//! skipped.

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};
use thiserror::Error;

use super::{requested_wait, response};
use crate::job::{BackendFault, FaultKind};

mod location;
mod origins;
mod version;

pub use location::RefusedLocation;
pub(super) use location::locate;
pub(super) use origins::OriginPattern;
pub use origins::{
    AllowedOrigin, Elsewhere, FileOrigins, OriginRefusal, RefusedOrigin, redirect_within,
    refusal as origin_refusal,
};
pub use version::FileVersion;

/// A text without what a path or a terminal would take for more than a part of a name.
pub fn part_of_name(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || matches!(c, '/' | '\\') { '_' } else { c }).collect()
}

/// Most characters of the name of a file.
pub const LONGEST_FILE_NAME: usize = 255;

/// Every word for programs that says why a file may not be fetched.
pub const FILE_DETAILS: [&str; 12] = [
    "other_origin",
    "redirect",
    "not_encrypted",
    "private_address",
    "expired",
    "parent_directory",
    "scheme",
    "user_info",
    "backslash",
    "control_character",
    "too_long",
    "no_files",
];

/// What the response to a request for a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Bytes of the body before the first requested one.
    pub skip: u64,
    /// Bytes of the body, the skipped ones included, where the vendor says. Of a
    /// body of zero bytes nothing is read.
    pub length: Option<u64>,
    /// Whole size of the file in bytes, where the vendor says.
    pub size: Option<u64>,
    /// As the vendor says; empty where it doesn't.
    pub content_type: String,
    /// What tells it from another version of the file.
    pub version: FileVersion,
}

/// Why a file can't be had.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FileFault {
    /// No request may be sent to where the vendor says it is.
    #[error("{0}")]
    Location(#[from] RefusedLocation),
    /// The vendor redirects to where no request may be sent.
    #[error("the vendor redirects its download, and {}", .0.of_redirect())]
    RedirectLocation(RefusedLocation),
    /// It is at another origin, which can't be requested or refuses it.
    #[error("{0}")]
    Origin(#[from] Box<RefusedOrigin>),
    /// The vendor sends the gateway elsewhere, and it does not go there.
    #[error("the vendor redirects its download (HTTP {http_status}), and such a redirect is not followed")]
    Redirected {
        /// The vendor's HTTP status.
        http_status: u16,
    },
    /// There is nothing where the vendor says it is.
    #[error("the vendor no longer has it")]
    Missing {
        /// The vendor's HTTP status.
        http_status: u16,
    },
    /// It is not the version that an earlier part was read of.
    #[error("the file was replaced since the version in if_version; download it from its beginning")]
    Changed,
    /// It is shorter than the offset.
    #[error("the offset lies beyond the end of the file")]
    PastEnd {
        /// Its size, where the vendor says.
        size: Option<u64>,
    },
    /// The backend gave no usable response.
    #[error("{0}")]
    Backend(#[from] BackendFault),
}

impl From<RefusedOrigin> for FileFault {
    fn from(refused: RefusedOrigin) -> Self {
        Box::new(refused).into()
    }
}

/// What the head of a response says of the file's bytes from `offset` on; the body
/// is not looked at. Holds for any vendor; a redirect is not followed.
pub(super) fn part(offset: u64, head: &Response<Bytes>) -> Result<Part, FileFault> {
    let (status, headers) = (head.status(), head.headers());
    let malformed = |why| FileFault::from(response::malformed(why, status));
    let range = || headers.get(header::CONTENT_RANGE)?.to_str().ok().and_then(ContentRange::parse);
    let (skip, length, size) = match status {
        StatusCode::OK => match content_length(headers) {
            Some(size) if size < offset => return Err(FileFault::PastEnd { size: Some(size) }),
            size => (offset, size, size),
        },
        StatusCode::PARTIAL_CONTENT if offset > 0 => match range() {
            Some(ContentRange::Part { first, last, size }) if first == offset => {
                if size.is_some_and(|size| size - 1 != last) {
                    return Err(malformed("it ends before the file does"));
                }
                (0, Some(last - first + 1), size)
            }
            _ => return Err(malformed("it is another part of the file than was asked for")),
        },
        StatusCode::RANGE_NOT_SATISFIABLE if offset > 0 => match range() {
            Some(ContentRange::Outside { size }) if size == offset => (0, Some(0), Some(size)),
            Some(ContentRange::Outside { size }) if size > offset => {
                return Err(malformed("it refuses a part that the file has"));
            }
            Some(ContentRange::Outside { size }) => return Err(FileFault::PastEnd { size: Some(size) }),
            _ => return Err(FileFault::PastEnd { size: None }),
        },
        StatusCode::ACCEPTED => {
            let why = "the file is not ready yet (HTTP 202)".to_owned();
            let fault = BackendFault::from(FaultKind::Unavailable { why });
            return Err(fault.with_retry_after(requested_wait::of_head(status, headers)).into());
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => {
            return Err(FileFault::Missing { http_status: status.as_u16() });
        }
        _ if status.is_redirection() => {
            return Err(FileFault::Redirected { http_status: status.as_u16() });
        }
        _ => {
            response::check_status(head)?;
            return Err(if status.is_success() {
                malformed("it is not a file")
            } else {
                response::rejected("", status).into()
            });
        }
    };
    if length != Some(0) && is_compressed(headers) {
        return Err(malformed("it is compressed, which was not asked for"));
    }
    let content_type = headers.get(header::CONTENT_TYPE).filter(|_| status.is_success());
    let content_type = content_type.and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
    Ok(Part { skip, length, size, content_type, version: FileVersion::of(head, size) })
}

/// Whether the body has a coding that changes its bytes. Vendors and their stores also
/// send words that are none, such as `none`, `utf-8` and `aws-chunked`: the bytes are the
/// file's then.
fn is_compressed(headers: &HeaderMap) -> bool {
    const CODINGS: [&str; 10] =
        ["gzip", "x-gzip", "deflate", "br", "zstd", "compress", "x-compress", "bzip2", "dcb", "dcz"];
    let values = headers.get_all(header::CONTENT_ENCODING).iter();
    values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).any(|coding| {
        let coding = coding.trim_ascii();
        CODINGS.iter().any(|known| coding.eq_ignore_ascii_case(known.as_bytes()))
    })
}

/// The length of the body, if it is not overruled by chunks (RFC 9112, section
/// 6.3).
fn content_length(headers: &HeaderMap) -> Option<u64> {
    let length = headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
    (!headers.contains_key(header::TRANSFER_ENCODING)).then_some(length)
}

/// RFC 9110, section 14.4.
#[derive(Debug, PartialEq, Eq)]
enum ContentRange {
    Part { first: u64, last: u64, size: Option<u64> },
    Outside { size: u64 },
}

impl ContentRange {
    /// `None` where it is not one, or contradicts itself.
    fn parse(text: &str) -> Option<Self> {
        let (unit, range) = text.trim().split_once(' ')?;
        let (part, size) = range.trim().split_once('/')?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        if part == "*" {
            return Some(Self::Outside { size: size.parse().ok()? });
        }
        let (first, last) = part.split_once('-')?;
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        let size = if size == "*" { None } else { Some(size.parse().ok()?) };
        let fits = first <= last && last < u64::MAX && size.is_none_or(|size| last < size);
        fits.then_some(Self::Part { first, last, size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(offset: u64, status: u16, headers: &[(&str, &str)]) -> Result<Part, FileFault> {
        let mut head = Response::builder().status(status);
        for (name, value) in headers {
            head = head.header(*name, *value);
        }
        part(offset, &head.body(Bytes::new()).unwrap())
    }

    #[test]
    fn details_are_those_that_are_listed() {
        use OriginRefusal as O;
        use RefusedLocation as L;
        let locations = [
            L::NoFiles,
            L::OtherOrigin,
            L::Scheme,
            L::UserInfo,
            L::ParentDirectory,
            L::Backslash,
            L::ControlCharacter,
            L::TooLong,
        ];
        let origins = [
            O::NotNamed,
            O::NotAllowed,
            O::NotEncrypted,
            O::Address("x"),
            O::Refused(StatusCode::FORBIDDEN),
            O::RedirectWithin,
            O::SecondRedirect,
        ];
        let of_origin = |why| {
            let refused = |is_redirect| RefusedOrigin {
                origin: "https://a.example".to_owned(),
                why,
                is_redirect,
                key: String::new(),
            };
            [refused(false).detail(), refused(true).detail()]
        };
        let mut found: Vec<&str> = locations.into_iter().map(RefusedLocation::detail).collect();
        found.extend(origins.into_iter().flat_map(of_origin));
        for detail in &found {
            assert!(FILE_DETAILS.contains(detail), "{detail}");
        }
        for detail in FILE_DETAILS {
            assert!(found.contains(&detail), "{detail}");
        }
    }

    #[allow(clippy::unnecessary_wraps, reason = "compared with what was read")]
    fn part_of(skip: u64, length: Option<u64>, size: Option<u64>) -> Result<Part, FileFault> {
        let version = FileVersion::of(&Response::new(Bytes::new()), size);
        Ok(Part { skip, length, size, content_type: String::new(), version })
    }

    fn kind(fault: Result<Part, FileFault>) -> FaultKind {
        match fault {
            Err(FileFault::Backend(fault)) => fault.kind,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn whole_file_is_read_from_the_offset_on() {
        assert_eq!(read(0, 200, &[("content-length", "9")]), part_of(0, Some(9), Some(9)));
        assert_eq!(read(4, 200, &[("content-length", "9")]), part_of(4, Some(9), Some(9)));
        assert_eq!(read(9, 200, &[("content-length", "9")]), part_of(9, Some(9), Some(9)));
        assert_eq!(read(4, 200, &[]), part_of(4, None, None));
        let overruled = [("content-length", "9"), ("transfer-encoding", "chunked")];
        assert_eq!(read(0, 200, &overruled), part_of(0, None, None));
        assert_eq!(read(10, 200, &[("content-length", "9")]), Err(FileFault::PastEnd { size: Some(9) }));
    }

    #[test]
    fn a_part_has_to_be_the_one_that_was_asked_for() {
        let range = |range| read(4, 206, &[("content-range", range)]);
        assert_eq!(range("bytes 4-8/9"), part_of(0, Some(5), Some(9)));
        assert_eq!(range("Bytes 4-8/*"), part_of(0, Some(5), None));
        for wrong in [
            "",
            "bytes",
            "bytes 4-8",
            "bytes */9",
            "bytes 0-8/9",
            "bytes 5-8/9",
            "bytes 4-7/9",
            "bytes 4-3/9",
            "bytes 4-9/9",
            "bytes 4-8/x",
            "bytes -4/9",
            "lines 4-8/9",
            "bytes 4-18446744073709551615/*",
        ] {
            assert!(matches!(kind(range(wrong)), FaultKind::Malformed { .. }), "{wrong}");
        }
        let unasked = read(0, 206, &[("content-range", "bytes 0-8/9")]);
        assert!(matches!(kind(unasked), FaultKind::Malformed { .. }));
    }

    #[test]
    fn nothing_is_left_at_the_end_and_beyond_it_is_an_error() {
        let refused = |size| read(9, 416, &[("content-range", size), ("content-type", "text/html")]);
        assert_eq!(refused("bytes */9"), part_of(0, Some(0), Some(9)));
        assert_eq!(refused("bytes */8"), Err(FileFault::PastEnd { size: Some(8) }));
        assert_eq!(refused("nonsense"), Err(FileFault::PastEnd { size: None }));
        assert!(matches!(kind(refused("bytes */10")), FaultKind::Malformed { .. }));
        assert!(matches!(kind(read(0, 416, &[])), FaultKind::Rejected { .. }));
    }

    #[test]
    fn each_status_says_what_the_caller_can_do() {
        assert_eq!(read(0, 404, &[]), Err(FileFault::Missing { http_status: 404 }));
        assert_eq!(read(0, 302, &[("location", "/x")]), Err(FileFault::Redirected { http_status: 302 }));
        assert_eq!(kind(read(0, 401, &[])), FaultKind::CredentialsRejected);
        assert_eq!(kind(read(0, 403, &[])), FaultKind::Forbidden);
        assert_eq!(kind(read(0, 429, &[("retry-after", "7")])), FaultKind::Throttled);
        assert!(matches!(kind(read(0, 503, &[])), FaultKind::Unavailable { .. }));
        assert!(matches!(kind(read(0, 400, &[])), FaultKind::Rejected { .. }));
        for status in [201, 204, 206] {
            assert!(matches!(kind(read(0, status, &[])), FaultKind::Malformed { .. }), "{status}");
        }
    }

    #[test]
    fn bytes_that_are_not_the_files_own_are_refused() {
        let coded = |coding| read(0, 200, &[("content-encoding", coding)]);
        for coding in ["gzip", "GZIP", "x-gzip", "br", "deflate", "zstd", "aws-chunked, gzip", "identity,BR"]
        {
            assert!(matches!(kind(coded(coding)), FaultKind::Malformed { .. }), "{coding}");
        }
        for plain in
            ["identity", "", "none", "Identity", "UTF-8", "binary", "aws-chunked", "8bit", ",", "\"\""]
        {
            assert!(coded(plain).is_ok(), "{plain}");
        }
        let lines = [("content-encoding", "none"), ("content-encoding", "Gzip")];
        assert!(matches!(kind(read(0, 200, &lines)), FaultKind::Malformed { .. }));
    }

    #[test]
    fn file_that_is_not_ready_is_worth_another_request() {
        for (headers, wait) in [(&[("retry-after", "7")][..], Some(7)), (&[], None)] {
            let Err(FileFault::Backend(fault)) = read(0, 202, headers) else { panic!() };
            assert!(fault.to_string().contains("not ready yet") && fault.kind.is_temporary(), "{fault}");
            assert_eq!(fault.retry_after, wait.map(std::time::Duration::from_secs));
        }
    }
}
