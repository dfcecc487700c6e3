//! Where a backend is, and what is sent there.

use std::{borrow::Cow, str::FromStr};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri, header, uri::PathAndQuery};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};
use thiserror::Error;
use url::{Host, Url};

/// Longest URL in bytes. A URI of the `http` crate holds 65,534 in all, so this
/// leaves room for any path and most queries.
const LONGEST: usize = 2048;

/// Where a backend is: an http or https URL that a path can be appended to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct BaseUrl {
    url: Url,
    /// The same, as requests name it.
    uri: Uri,
}

/// Why a text is not a [`BaseUrl`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InvalidBaseUrl {
    /// Not a URL at all.
    #[error("is not a URL; write one such as \"https://vendor.example\"")]
    NotAUrl,
    /// Neither http nor https.
    #[error("must begin with http:// or https://")]
    Scheme,
    /// User and password do not belong in a URL.
    #[error("must not hold a user name or password; use credentials")]
    UserInfo,
    /// A query or fragment would be lost.
    #[error("must not have a query or fragment")]
    QueryOrFragment,
    /// With a path behind it, it has to fit into a request.
    #[error("must be at most 2048 bytes long")]
    TooLong,
}

impl FromStr for BaseUrl {
    type Err = InvalidBaseUrl;

    fn from_str(text: &str) -> Result<Self, InvalidBaseUrl> {
        let url = Url::parse(text).map_err(|_| InvalidBaseUrl::NotAUrl)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(InvalidBaseUrl::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidBaseUrl::UserInfo);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(InvalidBaseUrl::QueryOrFragment);
        }
        if url.as_str().len() > LONGEST {
            return Err(InvalidBaseUrl::TooLong);
        }
        // A URL may hold characters, in its host above all, that a request can't.
        let uri = url.as_str().parse().map_err(|_| InvalidBaseUrl::NotAUrl)?;
        Ok(Self { url, uri })
    }
}

/// As it is read.
impl Serialize for BaseUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl JsonSchema for BaseUrl {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "BaseUrl".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://" })
    }
}

impl TryFrom<String> for BaseUrl {
    type Error = InvalidBaseUrl;

    fn try_from(text: String) -> Result<Self, InvalidBaseUrl> {
        text.parse()
    }
}

impl BaseUrl {
    /// The URL with `path` after its own; `path` begins with a slash, needs no
    /// escaping and is shorter than 60,000 bytes.
    pub fn join(&self, path: &str) -> Uri {
        self.join_any(path).expect("a parsed URL of at most 2048 bytes with a clean, short path is a URI")
    }

    /// Like [`join`](Self::join) for a path of any length. `None` where no
    /// request could hold the result.
    pub(super) fn join_any(&self, path: &str) -> Option<Uri> {
        let path = [self.uri.path().trim_end_matches('/'), path].concat();
        if path.is_empty() {
            return Some(self.uri.clone());
        }
        let mut parts = self.uri.clone().into_parts();
        parts.path_and_query = Some(PathAndQuery::from_maybe_shared(Bytes::from(path)).ok()?);
        Uri::from_parts(parts).ok()
    }

    /// A POST of JSON for JSON to `path` after the URL's own.
    pub(super) fn post(&self, path: &str, body: &impl Serialize) -> Request<Bytes> {
        let body = serde_json::to_vec(body).expect("names and values that JSON can hold");
        self.post_as("application/json", path, body)
    }

    /// A POST of one media type for the same to `path` after the URL's own.
    pub(super) fn post_as(
        &self,
        media_type: &'static str,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Request<Bytes> {
        let media_type = HeaderValue::from_static(media_type);
        let mut request = Request::new(body.into());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.join(path);
        request.headers_mut().insert(header::CONTENT_TYPE, media_type.clone());
        request.headers_mut().insert(header::ACCEPT, media_type);
        request
    }

    /// Whether what is appended to both goes to the same place.
    pub fn is_same_place(&self, other: &Self) -> bool {
        self.as_str().trim_end_matches('/') == other.as_str().trim_end_matches('/')
    }

    /// The URL as it was given.
    pub fn as_str(&self) -> &str {
        self.url.as_str()
    }

    /// Whether what is sent there is encrypted.
    pub fn is_https(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// Whether the host is this machine.
    pub fn is_loopback(&self) -> bool {
        match self.url.host() {
            Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            None => false,
        }
    }
}

/// RFC 3986, section 2.1: everything but the unreserved characters.
pub(crate) fn percent_encoded(text: &str) -> Cow<'_, str> {
    const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(text, RESERVED).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        let is_loopback =
            |host: &str| format!("http://{host}:8082/x").parse::<BaseUrl>().unwrap().is_loopback();
        for host in ["127.0.0.1", "127.9.9.9", "[::1]", "localhost", "LOCALHOST", "db.localhost", "0x7f.1"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "10.0.0.1",
            "128.0.0.1",
            "[::2]",
            "localhost.example",
            "notlocalhost",
            "127.0.0.1.example",
            "vendor.example",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn path_goes_behind_the_base_urls_own() {
        for base in ["http://db:8082", "http://db:8082/"] {
            let base: BaseUrl = base.parse().unwrap();
            assert_eq!([base.join("/get/job"), base.join("")], ["http://db:8082/get/job", "http://db:8082/"]);
        }
        for base in ["http://db:8082/gpudb-0", "http://db:8082/gpudb-0/"] {
            let base: BaseUrl = base.parse().unwrap();
            assert_eq!(base.join("/get/job"), "http://db:8082/gpudb-0/get/job");
            assert_eq!(base.join(""), "http://db:8082/gpudb-0");
        }
    }

    #[test]
    fn base_url_that_would_lose_something_is_refused() {
        for (text, error) in [
            ("vendor.example", InvalidBaseUrl::NotAUrl),
            ("ftp://vendor.example", InvalidBaseUrl::Scheme),
            ("https://me:pw@vendor.example", InvalidBaseUrl::UserInfo),
            ("https://vendor.example/?a=b", InvalidBaseUrl::QueryOrFragment),
        ] {
            assert_eq!(text.parse::<BaseUrl>(), Err(error));
        }
    }

    proptest::proptest! {
        #[test]
        fn path_goes_behind_any_base_url(rest in "[ -~]{0,24}|\\PC{0,12}") {
            for text in [format!("https://vendor.example/{rest}"), format!("http://{rest}"), rest] {
                if let Ok(base) = text.parse::<BaseUrl>() {
                    proptest::prop_assert!(base.join("/a").path().ends_with("/a"));
                }
            }
        }
    }

    #[test]
    fn base_url_leaves_room_for_a_path() {
        let of_length = |length: usize| format!("{:x<length$}", "https://vendor.example/").parse::<BaseUrl>();
        let longest = of_length(2048).unwrap();
        assert_eq!(longest.join(&format!("/{}", "x".repeat(59_998))).path().len(), 2048 - 22 + 59_999);
        assert_eq!(longest.join_any(&format!("/{}", "x".repeat(70_000))), None);
        assert_eq!(of_length(2049), Err(InvalidBaseUrl::TooLong));
        // What counts is the length after escaping.
        let escaped = format!("https://vendor.example/{}", "ä".repeat(700));
        assert_eq!(escaped.parse::<BaseUrl>(), Err(InvalidBaseUrl::TooLong));
    }
}
