//! The job model that all other modules use: the name of a job, the observation of
//! one poll, views of it, and resume tokens.
//!
//! Nothing here depends on gRPC, HTTP or a clock.

use std::{fmt, hash::Hash, num::NonZeroU64, sync::Arc};

use bytes::Bytes;
use jiff::Timestamp;
use xxhash_rust::xxh3::xxh3_64;

mod fault;
mod resume;
mod view;

pub use fault::{BackendFault, FaultKind, InvalidJobRef, JobFault, StandbyFault, vendor_message};
pub use resume::{InvalidResumeToken, Observed, ObserverId, ResumeToken};
pub use view::{Fingerprint, PartHashes, Parts, View};

/// Names one job on one configured backend. Clones are cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobRef {
    /// Key of the backend in the configuration.
    pub backend: Arc<str>,
    /// The vendor's identifier, verbatim and opaque.
    pub id: Arc<str>,
    /// Kinetica's job tag, which is valid across clusters.
    pub tag: Option<Arc<str>>,
}

impl JobRef {
    /// A job without a tag.
    pub fn new(backend: impl Into<Arc<str>>, id: impl Into<Arc<str>>) -> Self {
        Self { backend: backend.into(), id: id.into(), tag: None }
    }

    /// The same job with a tag.
    #[must_use]
    pub fn with_tag(self, tag: impl Into<Arc<str>>) -> Self {
        Self { tag: Some(tag.into()), ..self }
    }
}

/// `backend/id`, as the command line takes it.
impl fmt::Display for JobRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.backend, self.id)
    }
}

impl fmt::Debug for JobRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tag {
            Some(tag) => write!(f, "{self} ({tag})"),
            None => write!(f, "{self}"),
        }
    }
}

/// One vendor-neutral life cycle; the numbers are those of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum JobState {
    /// A state that this version does not know. Not terminal.
    Unknown = 0,
    /// Accepted, not started.
    Pending = 1,
    /// Executing.
    Running = 2,
    /// An attempt failed; the vendor tries again by itself.
    Retrying = 3,
    /// Cancellation was requested; still executing.
    Cancelling = 4,
    /// Finished without error.
    Succeeded = 5,
    /// Finished with an error.
    Failed = 6,
    /// Stopped on request.
    Cancelled = 7,
    /// Stopped by the vendor because it took too long.
    Expired = 8,
}

impl JobState {
    /// The state of this number; `Unknown` for that of a later release.
    pub fn from_number(number: i32) -> Self {
        let known = [
            Self::Pending,
            Self::Running,
            Self::Retrying,
            Self::Cancelling,
            Self::Succeeded,
            Self::Failed,
            Self::Cancelled,
            Self::Expired,
        ];
        known.into_iter().find(|state| *state as i32 == number).unwrap_or(Self::Unknown)
    }

    /// Whether no later observation can differ.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled | Self::Expired)
    }
}

/// A hash of a job's element of a response. An element with the hash of the one before
/// gives the same observation and need not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadHash(NonZeroU64);

impl PayloadHash {
    /// The hash of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(NonZeroU64::new(xxh3_64(bytes)).unwrap_or(NonZeroU64::MIN))
    }

    /// Of bytes that this replica has not seen: the next element is read.
    pub fn unknown() -> Self {
        Self(NonZeroU64::MAX)
    }
}

/// What one upstream response said about one job.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// Where the job is in its life cycle.
    pub state: JobState,
    /// The vendor's word for it, verbatim.
    pub vendor_state: String,
    /// Absent if the vendor reports none.
    pub progress: Option<Progress>,
    /// The job's output.
    pub result: Option<JobResult>,
    /// Why the job or its last attempt failed.
    pub error: Option<JobError>,
    /// What did not go well in a job that succeeded.
    pub warnings: Vec<String>,
    /// Files the job has produced so far.
    pub artifacts: Vec<Artifact>,
    /// The vendor's type of job or endpoint; empty if unknown.
    pub job_type: String,
    /// One line for people; empty if unknown.
    pub description: String,
    /// The job's page in the vendor's user interface; empty if unknown.
    pub vendor_url: String,
    /// The user who started the job; empty if unknown.
    pub owner: String,
    /// When the vendor accepted it.
    pub create_time: Option<Timestamp>,
    /// When it began to execute.
    pub start_time: Option<Timestamp>,
    /// When it ended, according to the vendor.
    pub end_time: Option<Timestamp>,
    /// The vendor's job object as received, UTF-8 JSON.
    pub vendor_payload: Bytes,
    /// A hash of the payload without what may differ in every response, where there is such
    /// a part. Payloads with the same hash count as one.
    pub payload_hash: Option<u64>,
}

impl Observation {
    /// An observation of which only the state is known.
    pub fn new(state: JobState, vendor_state: impl Into<String>) -> Self {
        Self {
            state,
            vendor_state: vendor_state.into(),
            progress: None,
            result: None,
            error: None,
            warnings: Vec::new(),
            artifacts: Vec::new(),
            job_type: String::new(),
            description: String::new(),
            vendor_url: String::new(),
            owner: String::new(),
            create_time: None,
            start_time: None,
            end_time: None,
            vendor_payload: Bytes::new(),
            payload_hash: None,
        }
    }
}

/// Progress in the form in which the vendor reports it; nothing is derived from it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// 0 to 100.
    pub percent: Option<f64>,
    /// Steps done.
    pub completed_steps: Option<i64>,
    /// Number of steps; may be 0.
    pub total_steps: Option<i64>,
    /// Name of the step being executed; empty if unknown.
    pub current_step: String,
}

/// A job's output, byte for byte as the vendor returned it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobResult {
    /// The output itself.
    pub data: Bytes,
    /// The format of the data.
    pub content_type: ContentType,
}

/// The format of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentType {
    /// UTF-8 JSON.
    Json,
    /// UTF-8 text.
    Text,
    /// Avro binary encoding, schema not included.
    Avro,
}

impl ContentType {
    /// The media type that the contract names.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Text => "text/plain; charset=utf-8",
            Self::Avro => "avro/binary",
        }
    }
}

/// Why a job failed, in the vendor's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobError {
    /// For people.
    pub message: String,
    /// Everything else the vendor reported about it, UTF-8 JSON; may be empty.
    pub details: Bytes,
}

/// A file that belongs to a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// Names the file within its job.
    pub id: String,
    /// The vendor's category.
    pub category: String,
    /// Last segment of the location.
    pub file_name: String,
    /// The vendor's location, as received. A URL at another origin is without its query.
    pub vendor_uri: String,
    /// The query of a URL at another origin.
    pub query: HiddenQuery,
}

impl Artifact {
    /// Where the file is, with the query.
    pub fn location(&self) -> String {
        [&*self.vendor_uri, &self.query.0].concat()
    }
}

/// The query of a URL at another origin with its question mark, or nothing. It may be a
/// signature that lets anybody download the file and that differs in every answer, so it is
/// part of no status, causes no event and is not shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct HiddenQuery(pub String);

impl std::fmt::Debug for HiddenQuery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_empty() { "none" } else { "[redacted]" })
    }
}
