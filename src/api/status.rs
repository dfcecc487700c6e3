//! Every error of the contract: its code, its reason, its details. Nothing else
//! in the crate builds a [`tonic::Status`] with details.

use std::{collections::HashMap, time::Duration};

use prost::Message;
use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::request::InvalidField;
use crate::{
    adapters::{BackendFault, FaultKind, InvalidJobRef, vendor_message},
    hub::{DownloadFailure, Failure},
    job::JobRef,
    poller::{Interruption, Latest},
};

/// Most characters of a caller's own text that an error repeats. No valid job id
/// has more.
const MAX_REPEATED_CHARS: usize = 512;

/// Domain of every ErrorInfo.
const DOMAIN: &str = "jobwatch";

/// Delay before the next call to a server that is shutting down.
const SHUTDOWN_RETRY: Duration = Duration::from_secs(1);

impl From<InvalidField> for Status {
    fn from(invalid: InvalidField) -> Self {
        let InvalidField { field, reason } = invalid;
        let message = format!("{field} {reason}");
        let mut details = info("INVALID_REQUEST", HashMap::new());
        details.add_bad_request_violation(field, reason);
        Self::with_error_details(Code::InvalidArgument, message, details)
    }
}

/// The status of a call that failed; `field` is the path of the job in the
/// request.
pub(super) fn of_failure(failure: &Failure, job: &JobRef, field: &str) -> Status {
    let metadata = metadata(job);
    let (code, mut details) = match failure {
        Failure::UnknownBackend => {
            let mut details = info("UNKNOWN_BACKEND", metadata);
            details.set_resource_info(
                "backend",
                repeated(&job.backend),
                "",
                "not in the server's configuration",
            );
            (Code::NotFound, details)
        }
        Failure::InvalidJob(InvalidJobRef { field: part, reason }) => {
            let mut details = info("INVALID_JOB_ID", metadata);
            details.add_bad_request_violation(format!("{field}.{part}"), reason);
            return Status::with_error_details(
                Code::InvalidArgument,
                format!("{field}.{part}: {reason}"),
                details,
            );
        }
        Failure::InvalidResumeToken(error) => {
            // The field next to the job.
            let field = format!("{}resume_token", field.strip_suffix("job").unwrap_or_default());
            let message = format!("{field} {error}");
            let mut details = info("INVALID_RESUME_TOKEN", metadata);
            details.add_bad_request_violation(field, error.to_string());
            return Status::with_error_details(Code::InvalidArgument, message, details);
        }
        Failure::NotFound => return missing("JOB_NOT_FOUND", failure.to_string(), job, metadata),
        Failure::Gone { last } => {
            let last = last.as_deref().map(last_status).unwrap_or_default();
            return missing("JOB_GONE", format!("{failure}{last}"), job, metadata);
        }
        Failure::Backend { fault, retry_in } => return of_fault(fault, Some(*retry_in), metadata),
        Failure::Deadline => (Code::DeadlineExceeded, info("DEADLINE_EXCEEDED", metadata)),
        Failure::InvalidRequest { field, reason } => return InvalidField::new(field, reason).into(),
        Failure::ShuttingDown => {
            let mut details = info("SHUTTING_DOWN", metadata);
            details.set_retry_info(Some(SHUTDOWN_RETRY));
            (Code::Unavailable, details)
        }
        Failure::TooManyWatches { key, limit } => {
            let mut details = info("TOO_MANY_WATCHES", metadata);
            details.add_quota_failure_violation(*key, format!("{limit} watches may be open at once"));
            (Code::ResourceExhausted, details)
        }
    };
    if details.error_info().is_none() {
        details.set_error_info("INTERNAL", DOMAIN, HashMap::new());
    }
    Status::with_error_details(code, failure.to_string(), details)
}

/// The status of a call of many watches that failed as a whole, or of a watch
/// whose job could not be read.
pub(super) fn of_call(failure: &Failure) -> Status {
    of_failure(failure, &JobRef::new("", ""), "job")
}

/// The status of a download that failed.
pub(super) fn of_download(failure: &DownloadFailure, job: &JobRef) -> Status {
    let mut metadata = metadata(job);
    let (code, details) = match failure {
        DownloadFailure::Call(failure) => return of_failure(failure, job, "job"),
        DownloadFailure::NotFound { artifact_id, why, detail, http_status } => {
            metadata.insert("artifact_id".into(), artifact_id.clone());
            metadata.extend(detail.map(|detail| ("detail".to_owned(), detail.to_owned())));
            metadata.extend(http_status.map(|status| ("http_status".to_owned(), status.to_string())));
            let mut details = info("ARTIFACT_NOT_FOUND", metadata);
            details.set_resource_info("artifact", format!("{job}/{artifact_id}"), "", why);
            (Code::NotFound, details)
        }
        DownloadFailure::PastEnd { size } => {
            let size = size.map(|size| format!(", which has {size} bytes")).unwrap_or_default();
            return InvalidField::new("offset", &format!("lies beyond the end of the file{size}")).into();
        }
        DownloadFailure::TooMany { .. } => {
            let mut details = info("TOO_MANY_DOWNLOADS", metadata);
            let subject = format!("backends.{}.poll.max_concurrency", job.backend);
            details.add_quota_failure_violation(subject, failure.to_string());
            (Code::ResourceExhausted, details)
        }
        DownloadFailure::Stalled => (Code::Aborted, info("READER_STALLED", metadata)),
    };
    Status::with_error_details(code, failure.to_string(), details)
}

/// Why a watch is interrupted.
pub(super) fn of_interruption(interruption: &Interruption, job: &JobRef) -> Status {
    let retry_in = interruption.until.saturating_duration_since(Instant::now());
    of_fault(&interruption.fault, Some(retry_in), metadata(job))
}

/// What a backend's last request failed with.
pub(super) fn of_last_fault(fault: &BackendFault, backend: &str) -> Status {
    of_fault(fault, None, HashMap::from([("backend".to_owned(), backend.to_owned())]))
}

/// The same as a message, for an element of a batch or an event.
pub(super) fn to_proto(status: &Status) -> tonic_types::Status {
    tonic_types::Status::decode(status.details()).unwrap_or_else(|_| tonic_types::Status {
        code: status.code() as i32,
        message: status.message().to_owned(),
        details: Vec::new(),
    })
}

fn of_fault(
    fault: &BackendFault,
    retry_in: Option<Duration>,
    mut metadata: HashMap<String, String>,
) -> Status {
    if let Some(status) = fault.http_status {
        metadata.insert("http_status".into(), status.to_string());
    }
    if let Some(detail) = fault.detail {
        metadata.insert("detail".into(), detail.to_owned());
    }
    let (code, reason, retry) = match &fault.kind {
        FaultKind::Unavailable { .. } => (Code::Unavailable, "BACKEND_UNAVAILABLE", true),
        FaultKind::Throttled { .. } => (Code::Unavailable, "BACKEND_THROTTLED", true),
        FaultKind::CredentialsRejected => (Code::FailedPrecondition, "BACKEND_CREDENTIALS_REJECTED", false),
        FaultKind::Forbidden => (Code::FailedPrecondition, "BACKEND_FORBIDDEN", false),
        FaultKind::Rejected { message } => {
            if !message.is_empty() {
                metadata.insert("vendor_message".into(), message.clone());
            }
            (Code::FailedPrecondition, "BACKEND_REJECTED", false)
        }
        FaultKind::Malformed { .. } | FaultKind::TooLarge => (Code::Internal, "BACKEND_MALFORMED", false),
    };
    let mut details = info(reason, metadata);
    if retry && retry_in.is_some() {
        details.set_retry_info(retry_in);
    }
    Status::with_error_details(code, fault.to_string(), details)
}

fn missing(reason: &str, message: String, job: &JobRef, metadata: HashMap<String, String>) -> Status {
    let mut details = info(reason, metadata);
    details.set_resource_info("job", repeated(&job.to_string()), "", message.clone());
    Status::with_error_details(Code::NotFound, message, details)
}

fn last_status(last: &Latest) -> String {
    let word = vendor_message(&last.snapshot.status().vendor_state);
    format!("; it was last seen {:?} ({word:?}) at {}", last.snapshot.state, last.time)
}

fn info(reason: &str, metadata: HashMap<String, String>) -> ErrorDetails {
    ErrorDetails::with_error_info(reason, DOMAIN, metadata)
}

fn metadata(job: &JobRef) -> HashMap<String, String> {
    [("backend", &job.backend), ("job_id", &job.id)]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| (key.to_owned(), repeated(value)))
        .collect()
}

/// A text that the caller sent, cut for use in an error: errors travel in headers,
/// and clients accept only a few kilobytes of those.
fn repeated(text: &str) -> String {
    let mut repeated: String = text.chars().take(MAX_REPEATED_CHARS).collect();
    if repeated.len() < text.len() {
        repeated.push('…');
    }
    repeated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_about_long_job_id_repeats_only_its_beginning() {
        let job = JobRef::new("b".repeat(300_000), "ä".repeat(300_000));
        for failure in [Failure::UnknownBackend, Failure::NotFound, Failure::Deadline] {
            let status = of_failure(&failure, &job, "job");
            assert!(status.details().len() < 6 * 1024, "{failure}: {} bytes", status.details().len());
            let metadata = &status.get_details_error_info().unwrap().metadata;
            assert!(metadata["job_id"].starts_with("ää") && metadata["job_id"].ends_with('…'));
        }
    }

    #[test]
    fn error_about_valid_job_id_repeats_all_of_it() {
        let id = "x".repeat(512);
        let status = of_failure(&Failure::NotFound, &JobRef::new("vendor", id.as_str()), "job");
        assert_eq!(status.get_details_error_info().unwrap().metadata["job_id"], id);
    }
}
