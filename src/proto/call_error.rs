//! Converts the error of a call to the error of an element, and back.

use std::time::Duration;

use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

use super::v1::CallError;

/// Domain of every ErrorInfo.
pub const DOMAIN: &str = "jobwatch";

/// Keys of the metadata that an ErrorInfo has in details of their own.
const FIELD: &str = "field";
const LIMIT: &str = "limit";

impl From<&Status> for CallError {
    fn from(status: &Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info().cloned();
        let (reason, mut metadata) = info.map(|info| (info.reason, info.metadata)).unwrap_or_default();
        let field = details.bad_request().and_then(|request| request.field_violations.first());
        metadata.extend(field.map(|violation| (FIELD.to_owned(), violation.field.clone())));
        let limit = details.quota_failure().and_then(|quota| quota.violations.first());
        metadata.extend(limit.map(|violation| (LIMIT.to_owned(), violation.subject.clone())));
        let delay = details.retry_info().and_then(|retry| retry.retry_delay);
        Self {
            code: status.code().into(),
            message: status.message().to_owned(),
            reason,
            metadata,
            retry_delay: delay.and_then(|delay| prost_types::Duration::try_from(delay).ok()),
        }
    }
}

impl From<&CallError> for Status {
    fn from(error: &CallError) -> Self {
        let CallError { code, message, reason, metadata, retry_delay } = error;
        let mut metadata = metadata.clone();
        let mut details = ErrorDetails::new();
        if let Some(field) = metadata.remove(FIELD) {
            details.add_bad_request_violation(field, message);
        }
        if let Some(limit) = metadata.remove(LIMIT) {
            details.add_quota_failure_violation(limit, message);
        }
        if let Some(delay) = retry_delay.and_then(|delay| Duration::try_from(delay).ok()) {
            details.set_retry_info(Some(delay));
        }
        if !reason.is_empty() {
            details.set_error_info(reason, DOMAIN, metadata);
        }
        Self::with_error_details((*code).into(), message, details)
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn error_of_a_call_keeps_reason_metadata_and_wait_as_an_element() {
        let backend = [("backend".to_owned(), "b".to_owned())];
        let mut details = ErrorDetails::with_error_info("TOO_MANY_BYTES", DOMAIN, backend);
        details.add_quota_failure_violation("limits.message_bytes", "too many");
        details.add_bad_request_violation("jobs[1].job_id", "too many");
        details.set_retry_info(Some(Duration::from_millis(1500)));
        let status = Status::with_error_details(Code::ResourceExhausted, "too many", details);
        let error = CallError::from(&status);
        assert_eq!((error.code, &*error.message, &*error.reason), (8, "too many", "TOO_MANY_BYTES"));
        let metadata = ["backend", "limit", "field"].map(|key| error.metadata[key].as_str());
        assert_eq!(metadata, ["b", "limits.message_bytes", "jobs[1].job_id"]);
        assert_eq!(error.retry_delay, Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }));
        let again = Status::from(&error);
        assert_eq!((again.code(), again.message()), (status.code(), status.message()));
        assert_eq!(again.get_error_details_vec().len(), 4);
        assert!(!again.get_details_error_info().unwrap().metadata.contains_key("field"));
        assert_eq!(CallError::from(&again), error);
    }

    #[test]
    fn status_without_details_has_no_reason_as_an_element() {
        let error = CallError::from(&Status::unavailable("no connection"));
        let wanted = CallError { code: 14, message: "no connection".to_owned(), ..CallError::default() };
        assert_eq!(error, wanted);
        assert!(Status::from(&error).get_details_error_info().is_none());
    }
}
