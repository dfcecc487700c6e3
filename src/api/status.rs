//! Every error of the contract: its code, its reason, its details. Nothing else
//! in the crate builds a [`tonic::Status`] with details.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::{
    request::{InvalidField, Refusal},
    retry,
};
use crate::{
    access::{RateExceeded, Refused},
    engine::{DownloadFailure, Failure, Interruption, LatestStatus, MissedDeadline},
    job::{BackendFault, FaultKind, InvalidJobRef, JobRef, vendor_message},
    proto::{DOMAIN, v1::CallError},
    telemetry::Sampled,
};

mod operations;
mod web;

pub(super) use operations::{of_job_end, of_read_only};

pub use web::{
    of_bad_host, of_cut_off_head, of_encoded_body, of_endless_body, of_foreign_host, of_foreign_origin,
    of_long_head, of_plain_text, of_unreadable_body, of_unreadable_head,
};
pub(super) use web::{of_other_method, of_unknown_path, of_unserved_content};

/// Most characters of a caller's own text that an error repeats. No valid job id
/// has more.
const MAX_REPEATED_CHARS: usize = 512;

/// Longest list of names in bytes.
const LONGEST_LIST: usize = 1024;

/// Delay before the next call where the server can't answer for a moment.
const SOON: Duration = Duration::from_secs(1);

impl From<InvalidField> for Status {
    fn from(invalid: InvalidField) -> Self {
        let InvalidField { field, reason } = invalid;
        let message = format!("{field} {reason}");
        let mut details = info("INVALID_REQUEST", HashMap::new());
        details.add_bad_request_violation(field, reason);
        Self::with_error_details(Code::InvalidArgument, message, details)
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Invalid(invalid) => invalid.into(),
            Refusal::NotAllowed(job) => of_failure(&Failure::NotAllowed, &job, "job"),
        }
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
            let message = format!("no backend is named {:?}", repeated(&job.backend));
            return Status::with_error_details(Code::NotFound, message, details);
        }
        Failure::NotAllowed => (Code::PermissionDenied, info("BACKEND_NOT_ALLOWED", metadata)),
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
        Failure::Deadline(missed) => {
            let mut metadata = metadata;
            metadata.insert("deadline".into(), missed.owner().into());
            (Code::DeadlineExceeded, info("DEADLINE_EXCEEDED", metadata))
        }
        Failure::InvalidRequest { field, reason } => return InvalidField::new(field, reason).into(),
        Failure::BackendRetired => {
            let mut details = info("BACKEND_RETIRED", metadata);
            details.set_retry_info(Some(SOON));
            (Code::Unavailable, details)
        }
        Failure::ShuttingDown => {
            let mut details = info("SHUTTING_DOWN", metadata);
            details.set_retry_info(Some(retry::after_shutdown(rand::random())));
            (Code::Unavailable, details)
        }
        Failure::ConnectionExpired => {
            let mut details = info("CONNECTION_EXPIRED", metadata);
            details.set_retry_info(Some(retry::after_connection(rand::random())));
            (Code::Unavailable, details)
        }
        Failure::TooManyWatches { key, limit } => {
            let mut details = info("TOO_MANY_WATCHES", metadata);
            details.add_quota_failure_violation(*key, format!("{limit} watches may be open at once"));
            (Code::ResourceExhausted, details)
        }
        Failure::Overloaded { retry_in } => {
            let mut details = info("BACKEND_OVERLOADED", metadata);
            details.set_retry_info(Some(*retry_in));
            (Code::ResourceExhausted, details)
        }
        Failure::TooManyBytes { key, limit: _ } => {
            let mut details = info("TOO_MANY_BYTES", metadata);
            details.add_quota_failure_violation(*key, failure.to_string());
            (Code::ResourceExhausted, details)
        }
        Failure::TooManyJobs { limit: _ } => {
            let mut details = info("TOO_MANY_JOBS", metadata);
            details.add_quota_failure_violation("limits.jobs", failure.to_string());
            (Code::ResourceExhausted, details)
        }
    };
    if details.error_info().is_none() {
        details.set_error_info("INTERNAL", DOMAIN, HashMap::new());
    }
    Status::with_error_details(code, failure.to_string(), details)
}

/// The status of a call for a job of a backend that does not exist. `known` are the names
/// that the caller may use.
pub(super) fn of_unknown_backend(job: &JobRef, known: impl Iterator<Item = Arc<str>>) -> Status {
    let status = of_failure(&Failure::UnknownBackend, job, "job");
    let mut details = status.get_error_details();
    let mut names = String::new();
    for name in known {
        if names.len() + name.len() > LONGEST_LIST {
            names.push_str(",…");
            break;
        }
        let comma = if names.is_empty() { "" } else { "," };
        names.extend([comma, &name]);
    }
    let mut metadata = metadata(job);
    metadata.insert("known_backends".to_owned(), names);
    details.set_error_info("UNKNOWN_BACKEND", DOMAIN, metadata);
    Status::with_error_details(status.code(), status.message(), details)
}

/// The code and the reason of a watch's end, for the log.
pub(super) fn log_watch_end(status: &Status, job: &JobRef) {
    static LINES: Sampled = Sampled::new(10);
    let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
    // The log has the shutdown itself, and the age of connections is no error.
    if matches!(&*reason, "SHUTTING_DOWN" | "CONNECTION_EXPIRED") {
        return;
    }
    if let Some(left_out) = LINES.next_line() {
        let left_out = (left_out > 0).then_some(left_out);
        let (backend, job_id) = (repeated(&job.backend), repeated(&job.id));
        tracing::info!(backend, job_id, reason, code = ?status.code(), left_out, "watch ended with an error");
    }
}

/// The status of a call of many watches that failed as a whole, or of a watch
/// whose job could not be read.
pub(super) fn of_call(failure: &Failure) -> Status {
    of_failure(failure, &JobRef::new("", ""), "job")
}

/// The status of a call whose caller is not accepted.
pub fn of_refused(refused: &Refused) -> Status {
    let (code, reason) = match refused {
        Refused::Anonymous { .. } | Refused::Invalid(_) => (Code::Unauthenticated, "CALLER_UNAUTHENTICATED"),
        Refused::Unverifiable => (Code::Unavailable, "CALLER_UNVERIFIABLE"),
    };
    let mut details = info(reason, HashMap::new());
    if code == Code::Unavailable {
        details.set_retry_info(Some(SOON));
    }
    Status::with_error_details(code, refused.to_string(), details)
}

/// The status of an open call whose caller a reload has taken rights from.
pub fn of_changed_access() -> Status {
    let mut details = info("ACCESS_CHANGED", HashMap::new());
    details.set_retry_info(Some(retry::after_shutdown(rand::random())));
    let message = "what the caller may do has changed since the call began; call again";
    Status::with_error_details(Code::Unavailable, message, details)
}

/// The status of a call that is one too many of its caller's in this second.
pub fn of_rate_exceeded(exceeded: RateExceeded) -> Status {
    let mut details = info("RATE_LIMITED", HashMap::new());
    details
        .add_quota_failure_violation("calls_per_second", "the caller's policy allows fewer calls a second");
    details.set_retry_info(Some(exceeded.retry_in));
    Status::with_error_details(
        Code::ResourceExhausted,
        "the caller makes more calls a second than its policy allows",
        details,
    )
}

/// The status of a call that has outlived its deadline.
pub fn of_deadline() -> Status {
    of_call(&Failure::Deadline(MissedDeadline::Call))
}

/// The status of a call over HTTP/1.1 whose response has not begun for too long.
pub fn of_silence() -> Status {
    of_call(&Failure::Deadline(MissedDeadline::Silence))
}

/// The status of a call for which its connection has no room.
pub fn of_full_connection() -> Status {
    let mut details = info("TOO_MANY_BYTES", HashMap::new());
    let message = "the connection's calls hold as many bytes as limits.connection_bytes allows; \
                   read their responses, or make fewer calls at once";
    details.add_quota_failure_violation("limits.connection_bytes", message);
    details.set_retry_info(Some(SOON));
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

/// The status of a call whose request is too long.
pub fn of_long_request(bytes: usize, most: usize) -> Status {
    let message = format!("the request has {bytes} bytes; send at most {most}");
    Status::with_error_details(Code::ResourceExhausted, message, info("REQUEST_TOO_LONG", HashMap::new()))
}

/// The status of a call whose request is longer than this, by an unknown number of bytes.
pub fn of_longer_request(most: usize) -> Status {
    let message = format!("the request has more than {most} bytes, which is the limit; send fewer");
    Status::with_error_details(Code::ResourceExhausted, message, info("REQUEST_TOO_LONG", HashMap::new()))
}

/// The status of a call whose request does not arrive.
pub fn of_slow_request(within: Duration) -> Status {
    let message = format!("the request did not arrive within {} seconds", within.as_secs());
    Status::with_error_details(Code::DeadlineExceeded, message, info("REQUEST_TIMEOUT", HashMap::new()))
}

/// The same error with an ErrorInfo, and of at most `most` bytes as it is encoded.
pub fn complete(status: &Status, most: usize) -> Status {
    let mut details = status.get_error_details();
    if details.error_info().is_none() {
        details.set_error_info(reason_of(status.code()), DOMAIN, HashMap::new());
    }
    // tonic's code of a message that is too long. A reason has one code only.
    let code = match status.code() {
        Code::OutOfRange if details.error_info().is_some_and(|info| info.reason == "REQUEST_TOO_LONG") => {
            Code::ResourceExhausted
        }
        code => code,
    };
    let mut longest = most / 4;
    loop {
        let message = shortened(status.message(), longest);
        let complete = Status::with_error_details(code, message, details.clone());
        if longest < 64 || encoded_len(&complete) <= most {
            return complete;
        }
        longest /= 2;
        details = shorten(details, longest);
    }
}

/// The reason of an error that a library has made.
fn reason_of(code: Code) -> &'static str {
    match code {
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Cancelled => "CANCELLED",
        Code::OutOfRange | Code::ResourceExhausted => "REQUEST_TOO_LONG",
        Code::InvalidArgument => "INVALID_REQUEST",
        Code::NotFound => "NOT_FOUND",
        _ => "INTERNAL",
    }
}

/// Bytes of message and details in the trailers: escapes have three bytes, and base64 four
/// for three.
fn encoded_len(status: &Status) -> usize {
    escaped_len(status.message()) + status.details().len().div_ceil(3) * 4
}

fn escaped_len(text: &str) -> usize {
    text.bytes().map(|byte| if (b' '..=b'~').contains(&byte) && byte != b'%' { 1 } else { 3 }).sum()
}

/// The text, or its beginning that has so many bytes when it is escaped.
fn shortened(text: &str, most: usize) -> String {
    if escaped_len(text) <= most {
        return text.to_owned();
    }
    let mut shortened = String::new();
    let mut left = most.saturating_sub(escaped_len("…"));
    for character in text.chars() {
        let length = escaped_len(character.encode_utf8(&mut [0; 4]));
        let Some(rest) = left.checked_sub(length) else { break };
        left = rest;
        shortened.push(character);
    }
    shortened.push('…');
    shortened
}

/// The same details with shorter texts.
fn shorten(mut details: ErrorDetails, most: usize) -> ErrorDetails {
    if let Some(mut info) = details.error_info().cloned() {
        info.metadata.values_mut().for_each(|value| *value = shortened(value, most));
        details.set_error_info(info.reason, info.domain, info.metadata);
    }
    if let Some(resource) = details.resource_info().cloned() {
        let (name, description) = (resource.resource_name, resource.description);
        let (name, description) = (shortened(&name, most), shortened(&description, most));
        details.set_resource_info(resource.resource_type, name, resource.owner, description);
    }
    if let Some(mut request) = details.bad_request().cloned() {
        for violation in &mut request.field_violations {
            violation.description = shortened(&violation.description, most);
        }
        details.set_bad_request(request.field_violations);
    }
    if let Some(mut quota) = details.quota_failure().cloned() {
        for violation in &mut quota.violations {
            violation.description = shortened(&violation.description, most);
        }
        details.set_quota_failure(quota.violations);
    }
    details
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
        DownloadFailure::TooMany { of_caller, .. } => {
            let mut details = info("TOO_MANY_DOWNLOADS", metadata);
            let subject = match of_caller {
                true => "downloads".to_owned(),
                false => format!("backends.{}.poll.max_concurrency", job.backend),
            };
            details.add_quota_failure_violation(subject, failure.to_string());
            (Code::ResourceExhausted, details)
        }
        DownloadFailure::Changed { artifact_id } => {
            metadata.insert("artifact_id".into(), artifact_id.clone());
            (Code::Aborted, info("ARTIFACT_CHANGED", metadata))
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
pub(super) fn to_proto(status: &Status) -> CallError {
    let mut error = CallError::from(status);
    if error.reason.is_empty() {
        reason_of(status.code()).clone_into(&mut error.reason);
    }
    error
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
        FaultKind::Unreachable { .. } | FaultKind::Unavailable { .. } | FaultKind::Overloaded => {
            (Code::Unavailable, "BACKEND_UNAVAILABLE", true)
        }
        FaultKind::Throttled => (Code::Unavailable, "BACKEND_THROTTLED", true),
        FaultKind::CredentialsRejected => (Code::FailedPrecondition, "BACKEND_CREDENTIALS_REJECTED", true),
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
    if (retry || fault.retry_after.is_some()) && retry_in.is_some() {
        details.set_retry_info(retry_in);
    }
    Status::with_error_details(code, fault.to_string(), details)
}

fn missing(reason: &str, message: String, job: &JobRef, metadata: HashMap<String, String>) -> Status {
    let mut details = info(reason, metadata);
    details.set_resource_info("job", repeated(&job.to_string()), "", message.clone());
    Status::with_error_details(Code::NotFound, message, details)
}

fn last_status(last: &LatestStatus) -> String {
    let word = vendor_message(&last.snapshot.status().vendor_state);
    let state = format!("{:?}", last.snapshot.state).to_ascii_uppercase();
    format!("; it was last seen {state} ({word:?}) at {}", last.time)
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

/// A text that the caller sent, truncated for use in an error: errors travel in headers,
/// and clients accept only a few kilobytes of those.
pub(super) fn repeated(text: &str) -> String {
    let mut repeated: String = text.chars().take(MAX_REPEATED_CHARS).collect();
    if repeated.len() < text.len() {
        repeated.push('…');
    }
    repeated
}

#[cfg(test)]
mod tests;
