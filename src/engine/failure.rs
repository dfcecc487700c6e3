//! Why a call or a watch gets no status.

use std::time::Duration;

use thiserror::Error;

use super::{LatestStatus, MissedDeadline};
use crate::job::{BackendFault, InvalidJobRef, InvalidResumeToken};

/// Why there is no subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Statuses take as many bytes as they may.
    TooManyBytes,
    /// There are as many jobs as may be.
    TooManyJobs,
    /// The call can't be answered by its deadline.
    Overloaded {
        /// How long until the queue is shorter.
        retry_in: Duration,
    },
}

/// Why a call or a watch ended without a status.
#[derive(Clone, Debug, Error)]
pub enum Failure {
    /// No backend of this name is configured.
    #[error("no backend has this name")]
    UnknownBackend,
    /// The caller may not do this at a backend of this name, whether or not there is one.
    #[error("the caller may not do this at a backend of this name")]
    NotAllowed,
    /// The vendor can't know a job of this name.
    #[error(transparent)]
    InvalidJob(#[from] InvalidJobRef),
    /// Not a resume token of this watch.
    #[error("resume_token {0}")]
    InvalidResumeToken(#[from] InvalidResumeToken),
    /// The vendor does not know the job.
    #[error("the vendor does not know this job")]
    NotFound,
    /// The vendor knew the job and no longer does.
    #[error("the vendor no longer knows this job")]
    Gone {
        /// Its last status, where this server saw it.
        last: Option<Box<LatestStatus>>,
    },
    /// The backend can't be polled.
    #[error("{fault}")]
    Backend {
        /// Why.
        fault: BackendFault,
        /// How long until it is polled again.
        retry_in: Duration,
    },
    /// A deadline has passed.
    #[error("{0}")]
    Deadline(MissedDeadline),
    /// A field of the request can't be used.
    #[error("{field} {reason}")]
    InvalidRequest {
        /// Path of the field.
        field: String,
        /// What is wrong with it and what to write instead.
        reason: String,
    },
    /// The server stops.
    #[error("the server is shutting down; call again")]
    ShuttingDown,
    /// The call's connection is too old.
    #[error("the connection is older than server.max_connection_age; call again over a new one")]
    ConnectionExpired,
    /// Another backend was started under the same name.
    #[error("the backend's configuration has changed; call again")]
    BackendRetired,
    /// As many watches are open as may be.
    #[error("as many watches are open as may be: {key} is {limit}")]
    TooManyWatches {
        /// The key of the configuration.
        key: &'static str,
        /// How many may be.
        limit: usize,
    },
    /// More calls wait for this backend than it can answer in time.
    #[error("the backend has more to poll than its rate allows; this call can't be answered by its deadline")]
    Overloaded {
        /// How long until the queue is shorter.
        retry_in: Duration,
    },
    /// Statuses take as many bytes as they may.
    #[error("statuses take as much memory as they may: {key} is {limit} bytes")]
    TooManyBytes {
        /// The key of the configuration.
        key: &'static str,
        /// How many bytes.
        limit: u64,
    },
    /// There are as many jobs as may be.
    #[error("as many jobs are known as may be: limits.jobs is {limit}")]
    TooManyJobs {
        /// How many may be.
        limit: usize,
    },
}

impl Failure {
    /// The vendor itself says that no job can have this id.
    pub(super) fn refused_id(message: &str) -> Self {
        Self::InvalidJob(InvalidJobRef {
            field: "job_id",
            reason: format!("the vendor refuses it: {message}"),
        })
    }
}
