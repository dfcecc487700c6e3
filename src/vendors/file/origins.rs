//! Files at other origins than the backend's.
//!
//! Such a file is downloaded only from an origin that the vendor's definition names and that
//! the operator allows, over https. What an answer holds decides nothing: an origin that one
//! of the two does not name is never connected to.

use std::str::FromStr;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use thiserror::Error;
use url::{Host, Url};

use super::location;
use crate::vendors::{BaseUrl, classification::PathTemplate};

/// Longest origin that an error repeats, in bytes.
const LONGEST_SHOWN: usize = 300;

/// Origins that a definition names: one of them, those of a domain's subdomains, or any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::vendors) enum OriginPattern {
    /// `https://storage.example`
    Exact(String),
    /// `https://*.storage.example`: the domain with a dot before it, and the port.
    Subdomains(String, Option<u16>),
    /// `https://*`
    Any,
}

/// Why a text is no [`OriginPattern`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(in crate::vendors) enum InvalidOriginPattern {
    #[error("is no origin; write one such as \"https://files.example\" or \"https://*.files.example\"")]
    NoOrigin,
    #[error("is not encrypted; write an https:// origin")]
    NotEncrypted,
    #[error("names all of a top-level domain; write more of it, or \"https://*\" for any origin")]
    TooWide,
}

impl FromStr for OriginPattern {
    type Err = InvalidOriginPattern;

    fn from_str(text: &str) -> Result<Self, InvalidOriginPattern> {
        if text == "https://*" {
            return Ok(Self::Any);
        }
        let exact = text.replacen("://*.", "://", 1);
        let is_origin = |url: &Url| {
            url.origin().is_tuple() && url.origin().ascii_serialization() == exact && !exact.contains('*')
        };
        let url = Url::parse(&exact).ok().filter(is_origin).ok_or(InvalidOriginPattern::NoOrigin)?;
        match url.scheme() {
            "https" => {}
            "http" => return Err(InvalidOriginPattern::NotEncrypted),
            _ => return Err(InvalidOriginPattern::NoOrigin),
        }
        if exact == text {
            return Ok(Self::Exact(exact));
        }
        match url.host() {
            Some(Host::Domain(domain)) if domain.contains('.') => {
                Ok(Self::Subdomains(format!(".{domain}"), url.port()))
            }
            Some(Host::Domain(_)) => Err(InvalidOriginPattern::TooWide),
            _ => Err(InvalidOriginPattern::NoOrigin),
        }
    }
}

impl OriginPattern {
    /// Whether it names the origin of this URL.
    pub(in crate::vendors) fn names(&self, url: &Url) -> bool {
        if url.scheme() != "https" {
            return false;
        }
        match self {
            Self::Any => true,
            Self::Exact(origin) => url.origin().ascii_serialization() == *origin,
            Self::Subdomains(domain, port) => {
                url.port() == *port
                    && url.domain().is_some_and(|name| name.len() > domain.len() && name.ends_with(domain))
            }
        }
    }

    /// As a definition writes it.
    pub(in crate::vendors) fn shown(&self) -> String {
        match self {
            Self::Any => "https://*".to_owned(),
            Self::Exact(origin) => origin.clone(),
            Self::Subdomains(domain, None) => format!("https://*{domain}"),
            Self::Subdomains(domain, Some(port)) => format!("https://*{domain}:{port}"),
        }
    }
}

/// An origin that the operator allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedOrigin {
    /// Without a path.
    pub url: BaseUrl,
    /// Whether requests to it have the backend's credentials.
    pub with_credentials: bool,
}

impl AllowedOrigin {
    /// As the configuration writes it.
    pub fn origin(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    fn is_of(&self, url: &Url) -> bool {
        url.origin().ascii_serialization() == self.origin()
    }
}

/// The other origins of a backend's files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileOrigins {
    /// Where the definition says that files are.
    pub(in crate::vendors) locations: Vec<OriginPattern>,
    /// Where the definition says that the vendor redirects to.
    pub(in crate::vendors) redirects: Vec<OriginPattern>,
    /// What the operator allows of both.
    pub(in crate::vendors) allowed: Vec<AllowedOrigin>,
    /// Headers of requests with credentials, beside the credentials.
    pub(in crate::vendors) headers: HeaderMap,
}

/// Why a file at another origin is not downloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginRefusal {
    /// The definition does not name the origin.
    NotNamed,
    /// The operator does not allow it.
    NotAllowed,
    /// The URL is not one of https.
    NotEncrypted,
    /// Its name leads to an address that is not public; what that is.
    Address(&'static str),
    /// It refuses a URL that the vendor has just given.
    Refused(StatusCode),
    /// The vendor redirects to another place at its own origin.
    RedirectWithin,
    /// It redirects once more.
    SecondRedirect,
}

/// A file at another origin that is not downloaded. Shows the origin, and never more of the
/// URL: its path or query may be what permits the download.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}", self.text())]
pub struct RefusedOrigin {
    /// Scheme, host and port.
    pub origin: String,
    /// Why.
    pub why: OriginRefusal,
    /// Whether the vendor has redirected the download there.
    pub is_redirect: bool,
    /// The key that would allow it, as far as it is known.
    pub key: String,
}

impl RefusedOrigin {
    fn of(url: &Url, why: OriginRefusal) -> Self {
        Self { origin: shown(url), why, is_redirect: false, key: "allow_origins".to_owned() }
    }

    fn of_redirect(url: &Url, why: OriginRefusal) -> Self {
        Self { is_redirect: true, ..Self::of(url, why) }
    }

    /// One word for programs.
    pub fn detail(&self) -> &'static str {
        match self.why {
            OriginRefusal::NotNamed | OriginRefusal::NotAllowed if self.is_redirect => "redirect",
            OriginRefusal::NotNamed | OriginRefusal::NotAllowed => "other_origin",
            OriginRefusal::NotEncrypted => "not_encrypted",
            OriginRefusal::Address(_) => "private_address",
            OriginRefusal::Refused(_) => "expired",
            OriginRefusal::RedirectWithin | OriginRefusal::SecondRedirect => "redirect",
        }
    }

    /// The HTTP status, where that is the reason.
    pub fn http_status(&self) -> Option<u16> {
        match self.why {
            OriginRefusal::Refused(status) => Some(status.as_u16()),
            _ => None,
        }
    }

    fn text(&self) -> String {
        let Self { origin, why, is_redirect, key } = self;
        let place = if *is_redirect { "the vendor redirects its download to" } else { "its location is at" };
        match why {
            OriginRefusal::NotNamed if *is_redirect => {
                format!("{place} {origin}, which the vendor's definition does not name in redirects_to")
            }
            OriginRefusal::NotNamed => {
                format!("{place} {origin}, which the vendor's definition does not name for files")
            }
            OriginRefusal::NotAllowed => {
                format!("{place} {origin}; the operator can allow it by adding {origin:?} to {key}")
            }
            OriginRefusal::NotEncrypted => {
                format!("{place} {origin}, and files at other origins come over https only")
            }
            OriginRefusal::Address(what) => format!(
                "{place} {origin}, whose name leads to {what}; only {key} with the address itself allows one"
            ),
            OriginRefusal::Refused(status) => format!(
                "{origin} refuses the download (HTTP {}), though the vendor has just given its URL",
                status.as_u16()
            ),
            OriginRefusal::RedirectWithin => {
                format!(
                    "the vendor redirects its download within {origin}, and only one to another origin is followed"
                )
            }
            OriginRefusal::SecondRedirect => {
                format!("{origin} redirects its download, and only the vendor's own redirect is followed")
            }
        }
    }
}

fn shown(url: &Url) -> String {
    let mut origin = url.origin().ascii_serialization();
    origin.truncate(LONGEST_SHOWN);
    origin
}

/// The request for a file at another origin, without credentials.
pub type Elsewhere<'a> = (Request<Bytes>, &'a AllowedOrigin);

impl FileOrigins {
    /// The origins that the operator allows.
    pub fn allowed(&self) -> &[AllowedOrigin] {
        &self.allowed
    }

    fn request(&self, uri: Uri, allowed: &AllowedOrigin) -> Request<Bytes> {
        let mut request = request(uri, allowed);
        if allowed.with_credentials {
            request.headers_mut().extend(self.headers.clone());
        }
        request
    }

    /// The request for a file at a location at another origin than the backend's.
    ///
    /// # Errors
    /// It is no URL, or its origin is not both named and allowed.
    pub fn locate(&self, location: &str) -> Result<Elsewhere<'_>, super::FileFault> {
        let (url, uri) = location::elsewhere(location)?;
        let refused = |why| Err(RefusedOrigin::of(&url, why).into());
        if url.scheme() != "https" {
            return refused(OriginRefusal::NotEncrypted);
        }
        if !self.locations.iter().any(|pattern| pattern.names(&url)) {
            return refused(OriginRefusal::NotNamed);
        }
        match self.allowed.iter().find(|allowed| allowed.is_of(&url)) {
            Some(allowed) => Ok((self.request(uri, allowed), allowed)),
            None => refused(OriginRefusal::NotAllowed),
        }
    }

    /// Where the response to a request at the backend's own origin redirects to; `None` if it
    /// is no redirect to another origin.
    ///
    /// # Errors
    /// The redirect is not to be followed.
    pub fn redirect(
        &self,
        requested: &Uri,
        head: &Response<Bytes>,
    ) -> Result<Option<Elsewhere<'_>>, super::FileFault> {
        let Some((own, target)) = redirect_target(requested, head) else { return Ok(None) };
        if target.origin() == own.origin() {
            return Ok(None);
        }
        let refused = |why| Err(RefusedOrigin::of_redirect(&target, why).into());
        let (url, uri) = location::elsewhere(target.as_str()).map_err(super::FileFault::RedirectLocation)?;
        if url.scheme() != "https" {
            return refused(OriginRefusal::NotEncrypted);
        }
        if !self.redirects.iter().any(|pattern| pattern.names(&url)) {
            return refused(OriginRefusal::NotNamed);
        }
        match self.allowed.iter().find(|allowed| allowed.is_of(&url)) {
            Some(allowed) => Ok(Some((request(uri, allowed), allowed))),
            None => refused(OriginRefusal::NotAllowed),
        }
    }
}

/// What a redirect that is not followed says, where it leads to the origin that was requested.
pub fn redirect_within(requested: &Uri, head: &Response<Bytes>) -> Option<RefusedOrigin> {
    let (own, target) = redirect_target(requested, head)?;
    (own.origin() == target.origin()).then(|| RefusedOrigin::of_redirect(&own, OriginRefusal::RedirectWithin))
}

/// Faults name its origin and not its path, which may be all that permits the download.
fn request(uri: Uri, allowed: &AllowedOrigin) -> Request<Bytes> {
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = uri;
    request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    request.extensions_mut().insert(PathTemplate(format!("at {}", allowed.origin()).into()));
    request
}

/// The URL that was requested, and the one that the response redirects to.
fn redirect_target(requested: &Uri, head: &Response<Bytes>) -> Option<(Url, Url)> {
    if !matches!(head.status().as_u16(), 302 | 303 | 307 | 308) {
        return None;
    }
    let location = head.headers().get(header::LOCATION)?.to_str().ok()?.trim();
    let own = Url::parse(&requested.to_string()).ok()?;
    // Some read a backslash as a slash, as the parser would.
    let target = if location.contains('\\') { None } else { own.join(location).ok() }?;
    Some((own, target))
}

/// What the response of another origin says of a file. Nothing of it speaks of the backend.
pub fn refusal(url: &BaseUrl, head: &Response<Bytes>) -> Option<RefusedOrigin> {
    let status = head.status();
    let why = match status.as_u16() {
        300..=303 | 305..=399 => OriginRefusal::SecondRedirect,
        400 | 401 | 403 => OriginRefusal::Refused(status),
        _ => return None,
    };
    let origin = url.as_str().trim_end_matches('/').to_owned();
    Some(RefusedOrigin { origin, why, is_redirect: false, key: "allow_origins".to_owned() })
}

#[cfg(test)]
mod tests;
