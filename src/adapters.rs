//! One adapter a vendor: the pure translation between our job model and the
//! vendor's API. No I/O, no clock, no state, no gRPC.
//!
//! An adapter writes a request for some jobs and reads the answer. Credentials
//! are added by the transport; where a vendor trades a secret for a short-lived
//! token, the adapter writes and reads that exchange too.

use std::{fmt::Debug, num::NonZeroUsize, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use jiff::Timestamp;
use secrecy::SecretString;
use thiserror::Error;

use crate::job::{JobRef, Observation, Source};

mod answer;
mod base_url;
mod claret;
mod datasaur;
mod file;
mod immuta;
#[cfg(any(test, feature = "fuzzing"))]
mod interpretation;
mod json;
mod kinetica;
mod refusal;

pub(crate) use base_url::percent_encoded;
pub use base_url::{BaseUrl, InvalidBaseUrl};
pub use claret::{Claret, InvalidTenant};
pub use datasaur::{ClientAuth, Datasaur};
pub use file::{FileFault, Part, RefusedLocation};
pub use immuta::Immuta;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use interpretation::{Interpretation, interpretation};
pub use kinetica::{Encoding, Kinetica};

/// What one answer said: of each job in the order asked, or of the backend. Where it
/// said the same of a job as before, to the byte, there may be no observation.
pub type Changes = Result<Vec<Result<Option<Observation>, JobFault>>, BackendFault>;

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

    /// What is known about a job without asking, where asking would tell nothing.
    fn unasked(&self, _job: &JobRef) -> Option<JobFault> {
        None
    }

    /// Whether each answer says whose it is, so that [`interpret`](Self::interpret)
    /// sees an answer to another request for what it is.
    fn names_its_job(&self) -> bool {
        true
    }

    /// Asks for 1 to [`max_batch`](Self::max_batch) jobs that passed
    /// [`check`](Self::check). Without credentials.
    fn request(&self, jobs: &[JobRef]) -> Request<Bytes>;

    /// Like [`request`](Self::request), and asks the vendor to hold the answer
    /// until all jobs have ended, at most for `wait`, which is in whole seconds.
    /// Vendors that can't do so are asked for an answer now.
    fn held_request(&self, jobs: &[JobRef], _wait: Duration) -> Request<Bytes> {
        self.request(jobs)
    }

    /// Reads the answer to a request for `jobs`. Total: any bytes give an answer
    /// for each job, in the order of `jobs`, or one fault; never a panic. May leave out
    /// what was read from one of the `known` sources: those of the jobs' last
    /// observations, in the order of `jobs`.
    ///
    /// # Errors
    /// A fault of the backend, which says nothing about the jobs.
    fn interpret(&self, jobs: &[JobRef], known: &[Option<Source>], response: &Response<Bytes>) -> Changes;

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

    /// How to see whether the vendor can be asked again, where it has a call for
    /// that.
    fn health_check(&self) -> Option<&dyn HealthCheck> {
        None
    }
}

/// What `observe` makes of one job's part of an answer, unless that is what the job's
/// last observation was read from.
fn unless_known(
    known: &[Option<Source>],
    place: usize,
    part: &str,
    observe: impl FnOnce() -> Result<Observation, JobFault>,
) -> Result<Option<Observation>, JobFault> {
    let source = Some(Source::of(part.as_bytes()));
    if known.get(place) == Some(&source) {
        return Ok(None);
    }
    Ok(Some(Observation { source, ..observe()? }))
}

/// Asks whether a vendor can be asked about jobs.
pub trait HealthCheck: Debug + Send + Sync {
    /// Asks. Without credentials.
    fn question(&self) -> Request<Bytes>;

    /// Reads the answer. Total, like [`Adapter::interpret`].
    ///
    /// # Errors
    /// Why it can't be asked about jobs now.
    fn judge(&self, response: &Response<Bytes>) -> Result<(), BackendFault>;
}

/// Trades a secret for a short-lived token.
pub trait TokenExchange: Debug + Send + Sync {
    /// Asks for a token. The request holds the secret: it is never logged.
    ///
    /// # Errors
    /// [`FaultKind::Rejected`] where no request can hold the secret.
    fn request(&self, secret: &SecretString) -> Result<Request<Bytes>, BackendFault>;

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

/// The number that an id is, if it is written in the one canonical way, so that
/// one job has one name.
fn canonical_integer(id: &str) -> Option<i64> {
    id.parse().ok().filter(|number: &i64| *number.to_string() == *id)
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
    /// The gateway's account may not see this job; it may see the others.
    #[error("the vendor forbids this job to the gateway's account")]
    Forbidden,
    /// This job's part of the answer can't be understood; the others' can.
    #[error("the vendor's answer about this job can't be understood: {why}")]
    Malformed {
        /// What is wrong with it; never its content.
        why: &'static str,
    },
    /// Asked in place of the job's own cluster, a standby can't tell.
    #[error(transparent)]
    Standby(#[from] StandbyFault),
}

/// Why a standby can't tell about a job. Says nothing about the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StandbyFault {
    /// Job ids are each cluster's own, and the job has no tag. Nothing was asked.
    #[error("a standby is in use, which knows a job only by its job_tag")]
    NeedsJobTag,
    /// It has not heard of the job, at least not yet.
    #[error("a standby is in use, which does not know this job")]
    DoesNotKnowJob,
}

impl StandbyFault {
    /// The same for programs.
    pub fn detail(self) -> &'static str {
        match self {
            Self::NeedsJobTag => "standby_needs_job_tag",
            Self::DoesNotKnowJob => "standby_does_not_know_job",
        }
    }
}

/// Why a backend gave no answer about any job. Says nothing about the jobs.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{kind}")]
pub struct BackendFault {
    /// What the caller can do about it.
    pub kind: FaultKind,
    /// The vendor's HTTP status, where that was the failure.
    pub http_status: Option<u16>,
    /// A closer reason for programs, where there is one.
    pub detail: Option<&'static str>,
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
    #[error("the vendor refuses the request{}{message}", if message.is_empty() { "" } else { ": " })]
    Rejected {
        /// The vendor's words, trimmed by [`vendor_message`]; empty where they were
        /// said of another job.
        message: String,
    },
    /// Larger than the configuration allows; fewer jobs may fit.
    #[error("the vendor's answer is larger than max_response_bytes")]
    TooLarge,
    /// Not an answer that this version understands.
    #[error("the vendor's answer can't be understood: {why}")]
    Malformed {
        /// What is wrong with it; never its content.
        why: &'static str,
    },
}

impl BackendFault {
    /// The same for those who did not ask about the job that it was said of: the
    /// vendor's words may name it.
    #[must_use]
    pub fn without_words(&self) -> Self {
        match self.kind {
            FaultKind::Rejected { .. } => {
                Self { kind: FaultKind::Rejected { message: String::new() }, ..*self }
            }
            _ => self.clone(),
        }
    }
}

impl From<FaultKind> for BackendFault {
    fn from(kind: FaultKind) -> Self {
        Self { kind, http_status: None, detail: None }
    }
}

impl From<StandbyFault> for BackendFault {
    fn from(fault: StandbyFault) -> Self {
        let kind = FaultKind::Unavailable { retry_after: None, why: fault.to_string() };
        Self { kind, http_status: None, detail: Some(fault.detail()) }
    }
}

impl FaultKind {
    /// Whether the vendor can be reached and believes who asks, but does not
    /// answer what was asked: one job may be the reason.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Rejected { .. } | Self::Malformed { .. } | Self::TooLarge | Self::Forbidden => true,
            Self::Unavailable { .. } | Self::Throttled { .. } | Self::CredentialsRejected => false,
        }
    }

    /// The same fault, with the HTTP status that was the failure.
    #[must_use]
    pub fn with_status(self, status: http::StatusCode) -> BackendFault {
        BackendFault { kind: self, http_status: Some(status.as_u16()), detail: None }
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

#[cfg(test)]
mod conformance;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vendors_words_become_one_short_line() {
        assert_eq!(vendor_message(" a\n\tb\u{7} c "), "a b c");
        assert_eq!(vendor_message(&"ä".repeat(9000)).chars().count(), 512);
        assert_eq!(vendor_message(&"ä ".repeat(9000)).chars().count(), 512);
    }
}
