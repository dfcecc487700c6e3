//! Tests of statuses and errors as the contract has them.

use super::*;
use crate::job::InvalidResumeToken;

/// Every failure with its code, its reason and its other details.
#[test]
fn failure_has_its_code_reason_and_details() {
    let retry_in = Duration::from_millis(1500);
    let retry = Some(retry_in);
    let invalid_job = InvalidJobRef { field: "job_id", reason: "is too long".into() };
    let invalid_field =
        || Failure::InvalidRequest { field: "add.watch_id".into(), reason: "is in use".into() };
    let backend = |kind: FaultKind| Failure::Backend { fault: kind.into(), retry_in };
    let unavailable = FaultKind::Unavailable { why: "no connection".into() };
    let watches = Failure::TooManyWatches { key: "limits.watches", limit: 3 };
    let bytes = |key| Failure::TooManyBytes { key, limit: 10 };
    // A detail is the path of a bad field, the subject of a quota or the type of a resource.
    #[rustfmt::skip]
    let table = [
        (Failure::UnknownBackend, Code::NotFound, "UNKNOWN_BACKEND", "backend", None),
        (Failure::NotAllowed, Code::PermissionDenied, "BACKEND_NOT_ALLOWED", "", None),
        (Failure::InvalidJob(invalid_job), Code::InvalidArgument, "INVALID_JOB_ID", "job.job_id", None),
        (InvalidResumeToken::OtherJob.into(), Code::InvalidArgument, "INVALID_RESUME_TOKEN", "resume_token", None),
        (Failure::NotFound, Code::NotFound, "JOB_NOT_FOUND", "job", None),
        (Failure::Gone { last: None }, Code::NotFound, "JOB_GONE", "job", None),
        (backend(unavailable), Code::Unavailable, "BACKEND_UNAVAILABLE", "", retry),
        (backend(FaultKind::Forbidden), Code::FailedPrecondition, "BACKEND_FORBIDDEN", "", None),
        (Failure::Deadline(MissedDeadline::Answer), Code::DeadlineExceeded, "DEADLINE_EXCEEDED", "", None),
        (invalid_field(), Code::InvalidArgument, "INVALID_REQUEST", "add.watch_id", None),
        (watches, Code::ResourceExhausted, "TOO_MANY_WATCHES", "limits.watches", None),
        (Failure::Overloaded { retry_in }, Code::ResourceExhausted, "BACKEND_OVERLOADED", "", retry),
        (bytes("limits.message_bytes"), Code::ResourceExhausted, "TOO_MANY_BYTES", "limits.message_bytes", None),
        (bytes("limits.status_bytes"), Code::ResourceExhausted, "TOO_MANY_BYTES", "limits.status_bytes", None),
        (Failure::TooManyJobs { limit: 9 }, Code::ResourceExhausted, "TOO_MANY_JOBS", "limits.jobs", None),
    ];
    for (failure, code, reason, detail, retry_in) in table {
        let status = of_failure(&failure, &JobRef::new("b", "j"), "job");
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((status.code(), info.reason.as_str(), &*info.domain), (code, reason, "jobwatch"));
        if reason != "INVALID_REQUEST" {
            assert_eq!((&*info.metadata["backend"], &*info.metadata["job_id"]), ("b", "j"), "{reason}");
        }
        let field = details.bad_request().map(|bad| bad.field_violations[0].field.as_str());
        let subject = details.quota_failure().map(|quota| quota.violations[0].subject.as_str());
        let resource = details.resource_info().map(|resource| resource.resource_type.as_str());
        assert_eq!(field.or(subject).or(resource).unwrap_or_default(), detail, "{reason}");
        let is_quota = subject.is_some() || reason == "BACKEND_OVERLOADED";
        assert_eq!(is_quota, code == Code::ResourceExhausted, "{reason}");
        assert_eq!(details.retry_info().and_then(|retry| retry.retry_delay), retry_in, "{reason}");
        assert!(!status.message().is_empty());
    }
}

#[test]
fn calls_that_the_server_ends_may_be_repeated_after_a_wait_of_their_own() {
    let of = |failure: &Failure| of_failure(failure, &JobRef::new("b", "j"), "job");
    for (failure, reason, most) in [
        (Failure::ShuttingDown, "SHUTTING_DOWN", 5000),
        (Failure::ConnectionExpired, "CONNECTION_EXPIRED", 1000),
    ] {
        let waits: std::collections::BTreeSet<_> = (0..100)
            .map(|_| {
                let status = of(&failure);
                let details = status.get_error_details();
                assert_eq!(
                    (status.code(), &*details.error_info().unwrap().reason),
                    (Code::Unavailable, reason)
                );
                details.retry_info().unwrap().retry_delay.unwrap()
            })
            .collect();
        assert!(waits.len() > 50 && *waits.last().unwrap() <= Duration::from_millis(most), "{waits:?}");
    }
}

#[test]
fn unknown_backend_lists_known_ones_within_a_bound() {
    let list = |names: &[&str]| {
        let known = names.iter().map(|name| Arc::from(*name));
        let status = of_unknown_backend(&JobRef::new("x".repeat(9999), "j"), known);
        let details = status.get_error_details();
        assert_eq!((status.code(), details.resource_info().is_some()), (Code::NotFound, true));
        assert!(status.details().len() < 6 * 1024);
        details.error_info().unwrap().metadata["known_backends"].clone()
    };
    assert_eq!((list(&[]), list(&["a", "b"])), (String::new(), "a,b".to_owned()));
    let many = list(&["name-of-a-backend"; 999]);
    assert!(many.len() < 1100 && many.ends_with(",…"), "{many}");
}

#[test]
fn error_about_long_job_id_repeats_only_its_beginning() {
    let job = JobRef::new("b".repeat(300_000), "ä".repeat(300_000));
    let too_many = Failure::TooManyBytes { key: "limits.message_bytes", limit: 1 };
    for failure in
        [Failure::UnknownBackend, Failure::NotFound, Failure::Deadline(MissedDeadline::Answer), too_many]
    {
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
