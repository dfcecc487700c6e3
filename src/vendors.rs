//! One adapter a vendor: the pure translation between our job model and the
//! vendor's API. No I/O, no clock, no state, no gRPC.
//!
//! An adapter writes a request for some jobs, [splits](Adapter::split) the response into
//! one element for each job, and [reads](Adapter::observe) one element. Credentials are
//! added by the transport; where a vendor gives a short-lived token for a secret, the
//! adapter writes and reads that exchange too.

use std::{fmt::Debug, num::NonZeroUsize, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use jiff::Timestamp;
use secrecy::SecretString;
use uuid::Uuid;

use crate::job::{BackendFault, FaultKind, InvalidJobRef, JobFault, JobRef, Observation};

mod base_url;
mod claret;
mod classification;
mod datasaur;
pub mod declared;
mod elements;
mod file;
mod immuta;
mod json;
mod kind;
mod kinetica;
mod refusal;
mod requested_wait;
mod response;

pub(crate) use base_url::percent_encoded;
pub use base_url::{BaseUrl, InvalidBaseUrl};
pub use claret::{Claret, ClaretConfig, InvalidTenant};
use classification::HeadRules;
pub use classification::{Asked, Class, in_context};
pub use datasaur::{ClientAuth, Datasaur, DatasaurConfig};
pub use elements::Elements;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use elements::{Observations, comparable_fault, comparable_pair, observations};
use file::OriginPattern;
pub use file::{
    AllowedOrigin, Elsewhere, FILE_DETAILS, FileFault, FileOrigins, FileVersion, LONGEST_FILE_NAME,
    OriginRefusal, Part, RefusedLocation, RefusedOrigin, origin_refusal, part_of_name, redirect_within,
};
pub use immuta::{Immuta, ImmutaConfig};
pub use kind::{
    BuildError, Clusters, Key, KeyProblem, OwnCredentials, ReadKeys, Scheme, SecretForm, SignIn,
    StandbyCluster, UnusableKeys, VendorConfig, VendorKind, flag, secrets_in,
};
pub use kinetica::{Encoding, Kinetica, KineticaConfig};
pub use requested_wait::LONGEST_RETRY_AFTER;

/// Every vendor that a backend can be configured for.
pub const KINDS: &[&VendorKind] =
    &[&immuta::config::KIND, &kinetica::config::KIND, &claret::config::KIND, &datasaur::config::KIND];

/// What a vendor's API offers, as this backend is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Most jobs that one request can poll.
    pub max_batch: NonZeroUsize,
    /// Whether each response names the jobs that it is about, so that
    /// [`Adapter::split`] recognizes the response to another request. If not, the transport
    /// checks what comes over a connection that was used before, unless
    /// [`Adapter::names_jobs`].
    pub identifies_jobs: bool,
    /// Whether jobs have files that can be downloaded.
    pub files: bool,
}

/// What one rule of a definition finds in an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The key of the rule, such as `status.word`.
    pub key: String,
    /// Where it looks, such as `job.status`; may be empty.
    pub from: String,
    /// What the gateway takes of the value, in JSON, or why it takes nothing; none where the
    /// value is absent.
    pub found: Option<String>,
    /// Whether that is a value of the answer, which may be long, and no sentence.
    pub is_value: bool,
    /// Further lines, which hold nothing of the answer: an expression with a caret below what
    /// fails.
    pub lines: Vec<String>,
}

/// The translation for one backend.
pub trait Adapter: Debug + Send + Sync + 'static {
    /// What the vendor's API offers.
    fn capabilities(&self) -> Capabilities;

    /// How an answer to a poll of one job is read, field by field, and whether it is a status
    /// with a known word; `None` for adapters without a definition.
    fn readings(&self, _job: &JobRef, _response: &Response<Bytes>) -> Option<(Vec<Reading>, bool)> {
        None
    }

    /// Whether the vendor could know a job of this name.
    ///
    /// # Errors
    /// Names the field and what to write instead.
    fn check(&self, job: &JobRef) -> Result<(), InvalidJobRef>;

    /// Why a poll of this job would tell nothing, where that is known without one.
    fn unpollable(&self, _job: &JobRef) -> Option<JobFault> {
        None
    }

    /// The id of a job that does not exist, to probe address and credentials with.
    /// `unique` is random.
    fn probe_id(&self, unique: Uuid) -> String;

    /// The request that polls 1 to [`Capabilities::max_batch`] jobs that passed
    /// [`check`](Self::check). Without credentials.
    fn request(&self, jobs: &[JobRef]) -> Request<Bytes>;

    /// Puts credentials into a request.
    fn authorize(&self, request: &mut Request<Bytes>, credential: HeaderValue) {
        request.headers_mut().insert(header::AUTHORIZATION, credential);
    }

    /// Splits the response to a request for `jobs` into one element for each of them.
    /// Status line and headers are judged first, in the same way for every vendor; what
    /// they leave open is left to [`split_body`](Self::split_body). Total: any bytes give
    /// elements or one fault; never a panic.
    ///
    /// # Errors
    /// A fault of the whole request, which says nothing about its jobs.
    fn split(&self, jobs: &[JobRef], response: &Response<Bytes>) -> Result<Elements, BackendFault> {
        let rules = HeadRules { login_at: self.login_at(), secret_refusals: None };
        let elements = rules.read(response, || self.split_body(jobs, response))?;
        // An answer that is not ready yet does not say that a job is missing.
        let is_empty = !jobs.is_empty() && elements.as_slice().iter().all(Result::is_err);
        if response.status() == StatusCode::ACCEPTED && is_empty {
            let why = "no job of the request";
            return Err(in_context(FaultKind::Malformed { why }.into(), response));
        }
        Ok(elements)
    }

    /// The vendor's part of [`split`](Self::split), for a 2xx with content and for those 4xx
    /// that say nothing by themselves, such as 400, 404 and 422: the job's part of the body,
    /// uncopied. Decides whatever needs the whole response, such as what it means that a job
    /// has no element.
    ///
    /// # Errors
    /// A fault of the whole request, which says nothing about its jobs.
    fn split_body(&self, jobs: &[JobRef], response: &Response<Bytes>) -> Result<Elements, BackendFault>;

    /// Where a redirect to a login page means that the credentials are rejected, if the
    /// vendor has such a page.
    fn login_at(&self) -> Option<&BaseUrl> {
        None
    }

    /// Whether the response to a request for these jobs names them, where
    /// [`Capabilities::identifies_jobs`] does not hold for each response.
    fn names_jobs(&self, _jobs: &[JobRef], _response: &Response<Bytes>) -> bool {
        false
    }

    /// Reads one element of [`split`](Self::split). Pure and total: the same job and bytes
    /// always give the same observation or fault, so an element that did not change need
    /// not be read again.
    ///
    /// # Errors
    /// Why the element says nothing about the job.
    fn observe(&self, job: &JobRef, element: &Bytes) -> Result<Observation, JobFault>;

    /// The request for a job's file, whole and without credentials, at the location that
    /// the vendor gave.
    ///
    /// # Errors
    /// A location to which this backend's credentials must not be sent.
    fn file_request(&self, _location: &str) -> Result<Request<Bytes>, RefusedLocation> {
        Err(RefusedLocation::NoFiles)
    }

    /// The other origins where its files may be, for a vendor that has some.
    fn file_origins(&self) -> Option<&FileOrigins> {
        None
    }

    /// Reads the head of the response to a [`file_request`](Self::file_request) for the
    /// bytes from `offset` on, with a Range header unless it is zero. Does not look at the
    /// body. Total, like [`split`](Self::split).
    ///
    /// # Errors
    /// Why the file can't be had.
    fn file_part(&self, offset: u64, head: &Response<Bytes>) -> Result<Part, FileFault> {
        file::part(offset, head)
    }

    /// How to get a token for the secret, where the vendor has such a call and
    /// this backend's credentials need it.
    fn token_exchange(&self) -> Option<&dyn TokenExchange> {
        None
    }

    /// How to see whether the vendor can be polled again, where it has a call for
    /// that.
    fn health_check(&self) -> Option<&dyn HealthCheck> {
        None
    }
}

/// Checks whether a vendor can be polled.
pub trait HealthCheck: Debug + Send + Sync {
    /// The request. Without credentials.
    fn health_request(&self) -> Request<Bytes>;

    /// Reads the response. Total, like [`Adapter::split`].
    ///
    /// # Errors
    /// Why it can't be polled now.
    fn read_health(&self, response: &Response<Bytes>) -> Result<(), BackendFault> {
        HeadRules::default().read(response, || self.read_health_body(response))
    }

    /// The vendor's part of [`read_health`](Self::read_health), like [`Adapter::split_body`].
    ///
    /// # Errors
    /// Why it can't be polled now.
    fn read_health_body(&self, response: &Response<Bytes>) -> Result<(), BackendFault>;
}

/// Exchanges a secret for a short-lived token.
pub trait TokenExchange: Debug + Send + Sync {
    /// The request for a token. It holds the secret: it is never logged.
    ///
    /// # Errors
    /// [`FaultKind::Rejected`] where no request can hold the secret.
    fn request(&self, secret: &SecretString) -> Result<Request<Bytes>, BackendFault>;

    /// Reads the response. Total, like [`Adapter::split`]. 401, 403 and the
    /// [`refusals`](Self::refusals) mean the secret itself, unless a page in HTML says so,
    /// which a firewall sends.
    ///
    /// # Errors
    /// [`FaultKind::CredentialsRejected`] where the vendor refuses the secret.
    fn interpret(&self, response: &Response<Bytes>) -> Result<Token, BackendFault> {
        let rules = HeadRules { login_at: self.login_at(), secret_refusals: Some(self.refusals()) };
        rules.read(response, || self.read_token(response))
    }

    /// The vendor's part of [`interpret`](Self::interpret), like [`Adapter::split_body`].
    ///
    /// # Errors
    /// [`FaultKind::CredentialsRejected`] where the vendor refuses the secret.
    fn read_token(&self, response: &Response<Bytes>) -> Result<Token, BackendFault>;

    /// Further statuses with which the vendor refuses a secret.
    fn refusals(&self) -> &[StatusCode] {
        &[]
    }

    /// The word before the token in the credentials; empty for none.
    #[expect(clippy::unnecessary_literal_bound, reason = "another exchange has its own word")]
    fn scheme(&self) -> &str {
        "Bearer"
    }

    /// The URL of the request, where it is at another origin than the backend's. The
    /// operator has allowed it.
    fn elsewhere(&self) -> Option<&BaseUrl> {
        None
    }

    /// Like [`Adapter::login_at`].
    fn login_at(&self) -> Option<&BaseUrl> {
        None
    }
}

/// A short-lived token.
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

/// The number that an id is, if it is written in the one canonical way, so that
/// one job has one name.
fn canonical_integer(id: &str) -> Option<i64> {
    id.parse().ok().filter(|number: &i64| *number.to_string() == *id)
}

#[cfg(test)]
mod conformance;
