//! One adapter a vendor: the pure translation between our job model and the
//! vendor's API. No I/O, no clock, no state, no gRPC.
//!
//! An adapter writes a request for some jobs and reads the answer. Credentials
//! are added by the transport; where a vendor trades a secret for a short-lived
//! token, the adapter writes and reads that exchange too.

use std::{fmt::Debug, num::NonZeroUsize, str::FromStr, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use jiff::Timestamp;
use secrecy::SecretString;
use thiserror::Error;
use url::{Host, Url};

use crate::job::{JobRef, Observation};

mod answer;
mod claret;
mod datasaur;
mod document;
mod file;
mod immuta;
mod json;
mod kinetica;
mod refusal;

pub use claret::Claret;
pub use datasaur::{ClientAuth, Datasaur};
pub use file::{FileFault, Part, RefusedLocation};
pub use immuta::Immuta;
pub use kinetica::Kinetica;

/// What one answer said: of each job in the order asked, or of the backend.
pub type Interpretation = Result<Vec<Result<Observation, JobFault>>, BackendFault>;

/// The translation for one backend.
pub trait Adapter: Debug + Send + Sync + 'static {
    /// Whether the vendor could know a job of this name.
    ///
    /// # Errors
    /// Names the field and what to write instead.
    fn check(&self, job: &JobRef) -> Result<(), InvalidJobRef>;

    /// Most jobs that one request can ask for.
    fn max_batch(&self) -> NonZeroUsize {
        NonZeroUsize::MIN
    }

    /// Asks for 1 to [`max_batch`](Self::max_batch) jobs that passed
    /// [`check`](Self::check). Without credentials.
    fn request(&self, jobs: &[JobRef]) -> Request<Bytes>;

    /// Reads the answer to a request for `jobs`. Total: any bytes give an answer
    /// for each job, in the order of `jobs`, or one fault; never a panic.
    ///
    /// # Errors
    /// A fault of the backend, which says nothing about the jobs.
    fn interpret(&self, jobs: &[JobRef], response: &Response<Bytes>) -> Interpretation;

    /// Asks for a job's file, whole and without credentials, at the location that
    /// the vendor gave.
    ///
    /// # Errors
    /// A location to which this backend's credentials must not be sent.
    fn file_request(&self, _location: &str) -> Result<Request<Bytes>, RefusedLocation> {
        Err(RefusedLocation::NoFiles)
    }

    /// Reads the head of the answer to a [`file_request`](Self::file_request) that
    /// asked for the bytes from `offset` on, by a Range header unless it is zero.
    /// Does not look at the body. Total, like [`interpret`](Self::interpret).
    ///
    /// # Errors
    /// Why the file can't be had.
    fn file_part(&self, offset: u64, head: &Response<Bytes>) -> Result<Part, FileFault> {
        file::part(offset, head)
    }

    /// How a secret is traded for a token, where the vendor has such a call and
    /// this backend's credentials need it.
    fn token_exchange(&self) -> Option<&dyn TokenExchange> {
        None
    }
}

/// Trades a secret for a short-lived token.
pub trait TokenExchange: Debug + Send + Sync {
    /// Asks for a token. The request holds the secret: it is never logged.
    fn request(&self, secret: &SecretString) -> Request<Bytes>;

    /// Reads the answer. Total, like [`Adapter::interpret`].
    ///
    /// # Errors
    /// [`FaultKind::CredentialsRejected`] where the vendor refuses the secret.
    fn interpret(&self, response: &Response<Bytes>) -> Result<Token, BackendFault>;
}

/// A short-lived token, to be sent as `Authorization: Bearer`.
#[derive(Clone, Debug)]
pub struct Token {
    /// The token itself.
    pub value: SecretString,
    /// When it ends, where the vendor says.
    pub expiry: Option<Expiry>,
}

/// When a token ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// This long after it was issued.
    After(Duration),
    /// At this time.
    At(Timestamp),
}

/// Why a job ref can't name a job at this backend.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct InvalidJobRef {
    /// `job_id` or `job_tag`.
    pub field: &'static str,
    /// What is wrong and what to write instead; lower case, no full stop.
    pub reason: String,
}

impl InvalidJobRef {
    /// Refuses a tag, which only Kinetica has.
    fn refuse_tag(job: &JobRef) -> Result<(), Self> {
        match job.tag {
            Some(_) => Err(Self {
                field: "job_tag",
                reason: "must be empty: this backend's jobs have no tags".to_owned(),
            }),
            None => Ok(()),
        }
    }

    /// Refuses an id that is not 1 to 512 bytes of text without control
    /// characters, which is all that is known of an opaque one.
    fn unless_opaque_id(job: &JobRef) -> Result<(), Self> {
        let reason = match job.id.len() {
            0 => "must not be empty",
            1..=512 if job.id.contains(char::is_control) => "must not have control characters",
            1..=512 => return Ok(()),
            _ => "must be at most 512 bytes long",
        };
        Err(Self { field: "job_id", reason: reason.to_owned() })
    }
}

/// Why an answer has no observation for one job.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum JobFault {
    /// The vendor does not know the job.
    #[error("the vendor does not know this job")]
    NotFound,
    /// The vendor knows that no job can have this name.
    #[error("the vendor refuses this job id: {message}")]
    Invalid {
        /// The vendor's words, trimmed by [`vendor_message`].
        message: String,
    },
    /// This job's part of the answer can't be understood; the others' can.
    #[error("the vendor's answer about this job can't be understood: {why}")]
    Malformed {
        /// What is wrong with it; never its content.
        why: &'static str,
    },
}

/// Why a backend gave no answer about any job. Says nothing about the jobs.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{kind}")]
pub struct BackendFault {
    /// What the caller can do about it.
    pub kind: FaultKind,
    /// The vendor's HTTP status, where that was the failure.
    pub http_status: Option<u16>,
}

/// What a caller can do about a [`BackendFault`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FaultKind {
    /// Try again later: no connection, time-out, 5xx, going away.
    #[error("the vendor can't be reached: {why}")]
    Unavailable {
        /// What the vendor asked for, if anything.
        retry_after: Option<Duration>,
        /// For an operator; never the body.
        why: String,
    },
    /// Ask less often.
    #[error("the vendor is throttling")]
    Throttled {
        /// What the vendor asked for, if anything.
        retry_after: Option<Duration>,
    },
    /// Fix the gateway's credentials.
    #[error("the vendor rejects the gateway's credentials")]
    CredentialsRejected,
    /// Give the gateway's account the permission.
    #[error("the vendor forbids this to the gateway's account")]
    Forbidden,
    /// Fix the configuration or the request: refused for a reason that is
    /// neither the job's nor the credentials'.
    #[error("the vendor refuses the request: {message}")]
    Rejected {
        /// The vendor's words, trimmed by [`vendor_message`].
        message: String,
    },
    /// Not an answer that this version understands.
    #[error("the vendor's answer can't be understood: {why}")]
    Malformed {
        /// What is wrong with it; never its content.
        why: &'static str,
    },
}

impl From<FaultKind> for BackendFault {
    fn from(kind: FaultKind) -> Self {
        Self { kind, http_status: None }
    }
}

impl FaultKind {
    /// The same fault, with the HTTP status that was the failure.
    #[must_use]
    pub fn with_status(self, status: http::StatusCode) -> BackendFault {
        BackendFault { kind: self, http_status: Some(status.as_u16()) }
    }
}

/// A vendor's words, fit for an error: one line, no control characters, at most
/// 512 characters.
pub fn vendor_message(text: &str) -> String {
    let mut words = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if !words.is_empty() {
            words.push(' ');
        }
        words.push_str(word);
        if words.len() > 4 * 512 {
            break;
        }
    }
    if let Some((end, _)) = words.char_indices().nth(512) {
        words.truncate(end);
    }
    words
}

/// Where a backend is: an http or https URL that a path can be appended to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl(Url);

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
        // A URL may hold characters, in its host above all, that a request can't.
        let _: http::Uri = url.as_str().parse().map_err(|_| InvalidBaseUrl::NotAUrl)?;
        Ok(Self(url))
    }
}

impl BaseUrl {
    /// The URL with `path` after its own; `path` begins with a slash and needs
    /// no escaping.
    pub fn join(&self, path: &str) -> http::Uri {
        let base = self.0.as_str().trim_end_matches('/');
        format!("{base}{path}").parse().expect("a parsed URL with a clean path is a URI")
    }

    /// The URL as it was given.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether what is sent there is encrypted.
    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// Whether the host is this machine.
    pub fn is_loopback(&self) -> bool {
        match self.0.host() {
            Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            None => false,
        }
    }
}

#[cfg(test)]
mod conformance;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_goes_behind_the_base_urls_own() {
        for base in ["http://db:8082/gpudb-0", "http://db:8082/gpudb-0/"] {
            let base: BaseUrl = base.parse().unwrap();
            assert_eq!(base.join("/get/job"), "http://db:8082/gpudb-0/get/job");
        }
    }

    #[test]
    fn a_base_url_that_would_lose_something_is_refused() {
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
        fn a_path_goes_behind_any_base_url(rest in "[ -~]{0,24}|\\PC{0,12}") {
            for text in [format!("https://vendor.example/{rest}"), format!("http://{rest}"), rest] {
                if let Ok(base) = text.parse::<BaseUrl>() {
                    proptest::prop_assert!(base.join("/a").path().ends_with("/a"));
                }
            }
        }
    }

    #[test]
    fn a_vendors_words_become_one_short_line() {
        assert_eq!(vendor_message(" a\n\tb\u{7} c "), "a b c");
        assert_eq!(vendor_message(&"ä".repeat(9000)).chars().count(), 512);
        assert_eq!(vendor_message(&"ä ".repeat(9000)).chars().count(), 512);
    }
}
