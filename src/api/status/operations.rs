//! Errors of `google.longrunning`: how a job ended, and what is not done with jobs.

use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{info, metadata};
use crate::{
    job::{JobRef, JobState},
    proto::v1::JobStatus,
};

/// Most characters of the vendor's words.
const LONGEST_WORDS: usize = 4096;

/// The error of an operation whose job ended in this state without having succeeded. Its
/// message is the vendor's.
pub(in crate::api) fn of_job_end(state: JobState, status: &JobStatus, job: &JobRef) -> Status {
    let (code, reason) = match state {
        JobState::Cancelled => (Code::Cancelled, "JOB_CANCELLED"),
        JobState::Expired => (Code::DeadlineExceeded, "JOB_EXPIRED"),
        // gRPC has no code for what a vendor's job may fail of.
        _ => (Code::Unknown, "JOB_FAILED"),
    };
    let words = status.error.as_ref().map(|error| error.message.as_str()).filter(|words| !words.is_empty());
    let message = words.unwrap_or(&status.vendor_state).chars().take(LONGEST_WORDS).collect::<String>();
    let mut metadata = metadata(job);
    metadata.insert("vendor_state".to_owned(), status.vendor_state.clone());
    Status::with_error_details(code, message, info(reason, metadata))
}

/// The status of a call that would change a job.
pub(in crate::api) fn of_read_only(job: &JobRef, what: &str) -> Status {
    let message = format!("jobwatch reads jobs and does not {what} them; {what} this one at its vendor");
    Status::with_error_details(Code::Unimplemented, message, info("JOBS_ARE_READ_ONLY", metadata(job)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::JobError;

    #[test]
    fn error_of_an_operation_has_the_vendors_words_and_its_state() {
        let error = |message: &str| JobError { message: message.to_owned(), ..JobError::default() };
        for (state, error, code, reason, message) in [
            (JobState::Failed, Some(error("no such table")), Code::Unknown, "JOB_FAILED", "no such table"),
            (JobState::Failed, Some(error("")), Code::Unknown, "JOB_FAILED", "ERROR"),
            (JobState::Cancelled, None, Code::Cancelled, "JOB_CANCELLED", "ERROR"),
            (JobState::Expired, None, Code::DeadlineExceeded, "JOB_EXPIRED", "ERROR"),
        ] {
            let status = JobStatus { vendor_state: "ERROR".to_owned(), error, ..JobStatus::default() };
            let end = of_job_end(state, &status, &JobRef::new("b", "j"));
            assert_eq!((end.code(), end.message()), (code, message));
            let info = end.get_details_error_info().unwrap();
            assert_eq!(
                (&*info.reason, &*info.metadata["vendor_state"], &*info.metadata["job_id"]),
                (reason, "ERROR", "j")
            );
        }
    }
}
