//! The location that a vendor gives for a file, and whether a request may go there.
//!
//! A location is the vendor's word, and the request to it carries the backend's
//! credentials. So the scheme, host and port are always taken from the backend's
//! own URL, and only path and query from the location: whatever it holds, the
//! request goes nowhere else.

use http::Uri;
use thiserror::Error;
use url::{Position, Url};

use crate::vendors::BaseUrl;

/// Longest location in bytes.
const LONGEST: usize = 8192;

/// Why no request is sent to a location.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RefusedLocation {
    /// The vendor has no files, or this version can't get at them.
    #[error("this backend's files can't be downloaded")]
    NoFiles,
    /// Another scheme, host or port than the backend's.
    #[error("its location is not at the backend's own address")]
    OtherOrigin,
    /// Neither a path nor an http or https URL.
    #[error("its location is neither a path nor an http URL")]
    Scheme,
    /// A user name or password in the URL.
    #[error("its location holds a user name")]
    UserInfo,
    /// `..` as a segment, encoded or not.
    #[error("its location leads to a parent directory")]
    ParentDirectory,
    /// A backslash, which some take for a slash; encoded or not.
    #[error("its location holds a backslash")]
    Backslash,
    /// A control character, encoded or not.
    #[error("its location holds a control character")]
    ControlCharacter,
    /// More than 8 KiB.
    #[error("its location is too long")]
    TooLong,
}

impl RefusedLocation {
    /// The same of the location that a redirect names.
    pub fn of_redirect(self) -> String {
        self.to_string().replacen("its location", "the new location", 1)
    }

    /// One word for programs.
    pub fn detail(self) -> &'static str {
        match self {
            Self::NoFiles => "no_files",
            Self::OtherOrigin => "other_origin",
            Self::Scheme => "scheme",
            Self::UserInfo => "user_info",
            Self::ParentDirectory => "parent_directory",
            Self::Backslash => "backslash",
            Self::ControlCharacter => "control_character",
            Self::TooLong => "too_long",
        }
    }
}

/// The URL of a file of the backend at `base`: a path goes behind the base URL's
/// own, with or without a slash in front; a URL has to be of the same scheme, host
/// and port. What a URL can't hold is escaped.
pub(in crate::vendors) fn locate(base: &BaseUrl, location: &str) -> Result<Uri, RefusedLocation> {
    check_text(location)?;
    let base = Url::parse(base.as_str()).map_err(|_| RefusedLocation::OtherOrigin)?;
    let (prefix, path) = match scheme(location) {
        Some((scheme, rest)) => ("", same_origin(&base, scheme, rest)?),
        None if location.starts_with("//") => return Err(RefusedLocation::OtherOrigin),
        None => (base.path().trim_end_matches('/'), location),
    };
    check_segments(path.split('?').next().unwrap_or(path))?;
    let slash = if path.starts_with('/') { "" } else { "/" };
    let origin = &base[..Position::BeforePath];
    format!("{origin}{prefix}{slash}{}", escaped(path)).parse().map_err(|_| RefusedLocation::TooLong)
}

/// The URL of a file at any origin: its origin, and what is requested there.
pub(super) fn elsewhere(location: &str) -> Result<(Url, Uri), RefusedLocation> {
    check_text(location)?;
    let (scheme, rest) = scheme(location).ok_or(RefusedLocation::OtherOrigin)?;
    let (url, path) = origin(scheme, rest)?;
    let path = path.split('#').next().unwrap_or(path);
    check_segments(path.split('?').next().unwrap_or(path))?;
    let slash = if path.starts_with('/') { "" } else { "/" };
    let text = format!("{}{slash}{}", &url[..Position::BeforePath], escaped(path));
    let uri = text.parse().map_err(|_| RefusedLocation::TooLong)?;
    Ok((url, uri))
}

fn check_text(location: &str) -> Result<(), RefusedLocation> {
    if location.len() > LONGEST {
        return Err(RefusedLocation::TooLong);
    }
    if location.chars().any(char::is_control) {
        return Err(RefusedLocation::ControlCharacter);
    }
    // Before the parts are separated: some read `/\host` as `//host`.
    if location.contains('\\') {
        return Err(RefusedLocation::Backslash);
    }
    Ok(())
}

/// The scheme and what follows its colon, if it begins with one (RFC 3986, 3.1).
fn scheme(location: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = location.split_once(':')?;
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    (scheme.starts_with(|first: char| first.is_ascii_alphabetic()) && scheme.bytes().all(legal))
        .then_some((scheme, rest))
}

/// The path of a URL of the same origin as `base`.
fn same_origin<'a>(base: &Url, scheme: &str, rest: &'a str) -> Result<&'a str, RefusedLocation> {
    let (url, path) = origin(scheme, rest)?;
    if url.origin() == base.origin() { Ok(path) } else { Err(RefusedLocation::OtherOrigin) }
}

/// The origin of an http or https URL, as a URL of its own, and what follows it.
fn origin<'a>(scheme: &str, rest: &'a str) -> Result<(Url, &'a str), RefusedLocation> {
    let http = ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    let rest = rest.strip_prefix("//").filter(|_| http).ok_or(RefusedLocation::Scheme)?;
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err(RefusedLocation::UserInfo);
    }
    let url = Url::parse(&format!("{scheme}://{authority}/")).map_err(|_| RefusedLocation::OtherOrigin)?;
    Ok((url, path))
}

/// Refuses a path that might mean another place to somebody who decodes it once
/// more than we do.
fn check_segments(path: &str) -> Result<(), RefusedLocation> {
    let decoded = wholly_decoded(path);
    if decoded.iter().any(u8::is_ascii_control) {
        return Err(RefusedLocation::ControlCharacter);
    }
    if decoded.contains(&b'\\') {
        return Err(RefusedLocation::Backslash);
    }
    let is_parent = |segment: &[u8]| segment == b".." || segment.starts_with(b"..;");
    if decoded.split(|byte| *byte == b'/').any(is_parent) {
        return Err(RefusedLocation::ParentDirectory);
    }
    Ok(())
}

/// Percent-decodes until nothing is left to decode.
fn wholly_decoded(path: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    for byte in path.bytes() {
        decoded.push(byte);
        while let [.., b'%', high, low] = decoded[..]
            && let (Some(high), Some(low)) = (hex(high), hex(low))
        {
            decoded.truncate(decoded.len() - 3);
            decoded.push(high << 4 | low);
        }
    }
    decoded
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| digit.try_into().ok())
}

/// Path and query with everything escaped that does not belong there (RFC 3986,
/// section 3.3) and what is escaped already left as it is. A `#` is part of a
/// file's name: a fragment would not be sent anyway.
fn escaped(path: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut escaped = String::with_capacity(path.len());
    for (at, byte) in path.bytes().enumerate() {
        let is_escape = || {
            let digits = path.as_bytes().get(at + 1..at + 3);
            digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
        };
        match byte {
            b'%' if is_escape() => escaped.push('%'),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => escaped.push(byte.into()),
            _ if b"-._~!$&'()*+,;=:@/?".contains(&byte) => escaped.push(byte.into()),
            _ => {
                escaped.extend(['%', HEX[usize::from(byte >> 4)].into(), HEX[usize::from(byte & 15)].into()]);
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(base: &str, location: &str) -> Result<String, RefusedLocation> {
        locate(&base.parse().unwrap(), location).map(|uri| uri.to_string())
    }

    fn claret(location: &str) -> Result<String, RefusedLocation> {
        at("https://plan.claret.app", location)
    }

    #[test]
    fn path_is_one_of_the_backends_own() {
        for (location, uri) in [
            ("/tenant/download/tenant/a.csv", "https://plan.claret.app/tenant/download/tenant/a.csv"),
            ("tenant/download/a.csv", "https://plan.claret.app/tenant/download/a.csv"),
            ("/t/a b/ä#2.csv", "https://plan.claret.app/t/a%20b/%C3%A4%232.csv"),
            ("/t/a%20b%2Fc%zz.csv", "https://plan.claret.app/t/a%20b%2Fc%25zz.csv"),
            ("/t/a.csv?v=1&x=[1]", "https://plan.claret.app/t/a.csv?v=1&x=%5B1%5D"),
            ("/t/..a/b../...", "https://plan.claret.app/t/..a/b../..."),
            ("/t/http://elsewhere/a", "https://plan.claret.app/t/http://elsewhere/a"),
            (" //elsewhere/a", "https://plan.claret.app/%20//elsewhere/a"),
            ("?a", "https://plan.claret.app/?a"),
        ] {
            assert_eq!(claret(location).as_deref(), Ok(uri), "{location}");
        }
    }

    #[test]
    fn path_goes_behind_the_base_urls_own_and_a_url_does_not() {
        for base in ["http://proxy:8080/claret", "http://proxy:8080/claret/"] {
            assert_eq!(at(base, "/t/a.csv").unwrap(), "http://proxy:8080/claret/t/a.csv");
            assert_eq!(at(base, "t/a.csv").unwrap(), "http://proxy:8080/claret/t/a.csv");
            assert_eq!(at(base, "http://proxy:8080/t/a.csv").unwrap(), "http://proxy:8080/t/a.csv");
        }
    }

    #[test]
    fn url_of_the_same_origin_is_accepted_however_it_is_spelt() {
        for location in [
            "https://plan.claret.app/t/a.csv",
            "HTTPS://Plan.Claret.App/t/a.csv",
            "https://plan.claret.app:443/t/a.csv",
        ] {
            assert_eq!(claret(location).as_deref(), Ok("https://plan.claret.app/t/a.csv"), "{location}");
        }
        assert_eq!(claret("https://plan.claret.app").as_deref(), Ok("https://plan.claret.app/"));
    }

    #[test]
    fn another_place_is_refused_with_the_reason() {
        use RefusedLocation as R;
        for (location, reason) in [
            ("https://elsewhere.example/a", R::OtherOrigin),
            ("https://plan.claret.app.elsewhere.example/a", R::OtherOrigin),
            ("http://plan.claret.app/a", R::OtherOrigin),
            ("https://plan.claret.app:444/a", R::OtherOrigin),
            ("https://plan.claret.app:443:1/a", R::OtherOrigin),
            ("https:///elsewhere.example/a", R::OtherOrigin),
            ("//elsewhere.example/a", R::OtherOrigin),
            ("///elsewhere.example/a", R::OtherOrigin),
            ("/\\elsewhere.example/a", R::Backslash),
            ("/t/..\\..\\a", R::Backslash),
            ("/t/%5c..%5ca", R::Backslash),
            ("/t/../a", R::ParentDirectory),
            ("..", R::ParentDirectory),
            ("/t/%2e%2e/a", R::ParentDirectory),
            ("/t/.%2E/a", R::ParentDirectory),
            ("/t/%2e./a", R::ParentDirectory),
            ("/t/..%2fa", R::ParentDirectory),
            ("/t/%252e%252e/a", R::ParentDirectory),
            ("/t/%%32%65./a", R::ParentDirectory),
            ("/t/..;x=1/a", R::ParentDirectory),
            ("https://plan.claret.app/t/../../a", R::ParentDirectory),
            ("ftp://plan.claret.app/a", R::Scheme),
            ("file:///etc/passwd", R::Scheme),
            ("data:text/plain,a", R::Scheme),
            ("https:/plan.claret.app/a", R::Scheme),
            ("https:plan.claret.app/a", R::Scheme),
            ("https://me@plan.claret.app/a", R::UserInfo),
            ("https://plan.claret.app@elsewhere.example/a", R::UserInfo),
            ("https://me:pw@plan.claret.app/a", R::UserInfo),
            ("/t/a\r\nHost: elsewhere", R::ControlCharacter),
            ("ht\ttps://elsewhere.example/a", R::ControlCharacter),
            ("/\t/elsewhere.example/a", R::ControlCharacter),
            ("/t/a%0d%0ab", R::ControlCharacter),
            ("/t/a%00.csv", R::ControlCharacter),
        ] {
            assert_eq!(claret(location), Err(reason), "{location}");
        }
        assert_eq!(claret(&"a".repeat(8193)), Err(R::TooLong));
        assert!(claret(&"ä".repeat(4096)).is_ok());
    }

    /// What an attacker would try, in any order, among anything else.
    fn hostile() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("https://".to_owned()),
            Just("http:".to_owned()),
            Just("plan.claret.app".to_owned()),
            Just("elsewhere.example".to_owned()),
            Just("//".to_owned()),
            Just("/".to_owned()),
            Just("\\".to_owned()),
            Just("..".to_owned()),
            Just("%2e".to_owned()),
            Just("%2f".to_owned()),
            Just("%25".to_owned()),
            Just("@".to_owned()),
            Just(":".to_owned()),
            Just("?".to_owned()),
            Just("#".to_owned()),
            Just("\t".to_owned()),
            "[ -~]{0,3}",
            "\\PC{0,3}",
            any::<char>().prop_map(String::from),
        ];
        proptest::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn no_location_whatever_leads_elsewhere(location in hostile()) {
            for base in ["https://plan.claret.app", "http://[::1]:8080/pre/fix/"] {
                let base: BaseUrl = base.parse().unwrap();
                if let Ok(uri) = locate(&base, &location) {
                    let own: Uri = base.as_str().parse().unwrap();
                    prop_assert_eq!(uri.scheme(), own.scheme());
                    prop_assert_eq!(uri.authority(), own.authority());
                    // What an HTTP client makes of it, which resolves dots.
                    let sent = Url::parse(&uri.to_string()).unwrap();
                    prop_assert_eq!(sent.origin(), Url::parse(base.as_str()).unwrap().origin());
                    prop_assert!(sent.username().is_empty() && sent.password().is_none());
                    let prefix = own.path().trim_end_matches('/');
                    prop_assert!(location.contains("://") || sent.path().starts_with(prefix));
                }
            }
        }
    }
}
