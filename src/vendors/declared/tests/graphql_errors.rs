//! What errors of GraphQL say of the jobs of a batch.

use super::*;
use crate::{
    job::{FaultKind, JobFault},
    vendors::conformance::{jobs, json},
};

const DEFINITION: &str = r#"
format = 1
name = "g"
version = "1.0.0"
title = "G"
docs = "d"
[id]
pattern = "{a}"
[credentials.none]
[batch]
path = "/g"
graphql = { query = "query($ids: [ID!]!) { jobs(ids: $ids) { id s } }", variables = { ids = "{{ ids | map(attribute='a') | list }}" } }
jobs = "body.data.jobs"
[status]
id = "job.id"
word = "job.s"
[states]
RUNNING = ["run"]
SUCCEEDED = ["ok"]
FAILED = ["bad"]
"#;

const UNCLEAR: JobFault = JobFault::Malformed { why: "an error stands in its place" };
const JOB: &str = r#"{"id": "j-1", "s": "run"}"#;

/// The adapter of the definition whose jobs stand here.
fn batch(keys: &str) -> Declared {
    declared(&DEFINITION.replace("jobs = \"body.data.jobs\"", keys), "https://g.example", "")
}

/// What is said of each of the jobs `j-1`, `j-2`, and so on: its fault, if it is not there.
fn faults(adapter: &Declared, count: usize, body: &str) -> Result<Vec<Option<JobFault>>, FaultKind> {
    let ids: Vec<String> = (1..=count).map(|number| format!("j-{number}")).collect();
    let jobs = jobs(&ids.iter().map(String::as_str).collect::<Vec<_>>());
    let elements = adapter.split(&jobs, &json(200, body.to_owned())).map_err(|fault| fault.kind)?;
    Ok(elements.as_slice().iter().map(|element| element.clone().err()).collect())
}

fn error(message: &str, code: &str, path: &str) -> String {
    format!(r#"{{"message": "{message}", "extensions": {{"code": "{code}"}}, "path": {path}}}"#)
}

#[test]
fn error_explains_a_job_that_is_absent() {
    for (keys, there, absent) in [
        ("jobs = \"body.data.jobs\"", format!("[{JOB}]"), "[]"),
        ("jobs = \"body.data.jobs\"\nby_id = true", format!(r#"{{"j-1": {JOB}, "j-2": null}}"#), "{}"),
        (
            "jobs = \"body.data.jobs\"\nby_id = true",
            format!(r#"{{"j-1": {JOB}}}"#),
            r#"{"j-1": null, "j-2": null}"#,
        ),
        ("jobs = \"body.data.jobs | json\"", serde_json::json!(format!("[{JOB}]")).to_string(), r#""[]""#),
        (
            "jobs = \"body.data.jobs | json\"\nby_id = true",
            serde_json::json!(format!(r#"{{"j-1": {JOB}, "j-2": null}}"#)).to_string(),
            r#""{}""#,
        ),
    ] {
        let adapter = batch(keys);
        let read = |jobs: &str, errors: &str| {
            faults(&adapter, 2, &format!(r#"{{"data": {{"jobs": {jobs}}}, "errors": [{errors}]}}"#))
        };
        for (errors, fault) in [
            (String::new(), JobFault::NotFound),
            (error("timeout while resolving", "X", "[\"jobs\"]"), UNCLEAR),
            (error("Job j-2 not found", "X", "[\"jobs\"]"), JobFault::NotFound),
            (error("no", "FORBIDDEN", "[\"jobs\"]"), JobFault::Forbidden),
        ] {
            assert_eq!(read(&there, &errors), Ok(vec![None, Some(fault)]), "{keys}: {errors}");
        }
        // Without any job, an outage is the vendor's.
        let fault = read(absent, &error("no", "SERVICE_UNAVAILABLE", "[\"jobs\"]")).unwrap_err();
        assert!(matches!(fault, FaultKind::Unavailable { .. }), "{keys}: {fault:?}");
        let fault = read(absent, &error("no", "UNAUTHENTICATED", "[\"jobs\"]")).unwrap_err();
        assert_eq!(fault, FaultKind::CredentialsRejected, "{keys}");
    }
}

#[test]
fn error_of_one_job_says_nothing_of_another() {
    let (missing, denied) = (JobFault::NotFound, JobFault::Forbidden);
    let by_id = batch("jobs = \"body.data.jobs\"\nby_id = true");
    let nulls = format!(r#"{{"j-1": {JOB}, "j-2": null, "j-3": null}}"#);
    let at = |job: &str| format!("[\"jobs\", {job}]");
    let read = |errors: &[String]| {
        let body = format!(r#"{{"data": {{"jobs": {nulls}}}, "errors": [{}]}}"#, errors.join(","));
        faults(&by_id, 3, &body).unwrap()
    };
    for (errors, second, third) in [
        (
            [
                error("no", "NOT_FOUND", &at("\"j-2\"")),
                error("late", "INTERNAL_SERVER_ERROR", &at("\"j-3\"")),
            ],
            &missing,
            &UNCLEAR,
        ),
        (
            [error("no", "FORBIDDEN", &at("\"j-3\"")), error("Job not found", "X", &at("\"j-2\""))],
            &missing,
            &denied,
        ),
        // Without a place, the words name the job.
        (
            [error("Job j-2 not found", "X", "[\"jobs\"]"), error("Job j-3 not found", "X", "[\"jobs\"]")],
            &missing,
            &missing,
        ),
        // They differ, and which is whose is not said.
        (
            [error("Job not found", "X", "[\"jobs\"]"), error("late", "INTERNAL_SERVER_ERROR", "[\"jobs\"]")],
            &UNCLEAR,
            &UNCLEAR,
        ),
    ] {
        assert_eq!(read(&errors), [None, Some(second.clone()), Some(third.clone())], "{errors:?}");
    }
    // A number may be an id.
    let numbers = jobs(&["1", "2"]);
    let errors = error("no", "FORBIDDEN", "[\"jobs\", 2]");
    let body = format!(r#"{{"data": {{"jobs": {{"1": {JOB}, "2": null}}}}, "errors": [{errors}]}}"#);
    assert_eq!(by_id.split(&numbers, &json(200, body)).unwrap().as_slice()[1], Err(denied));
}

#[test]
fn path_of_an_error_is_followed_to_the_jobs() {
    let read = |by_id: bool, jobs: &str, error: &str| {
        let adapter = batch(&format!("jobs = \"body.data.projects[0].jobs\"\nby_id = {by_id}"));
        let body = format!(r#"{{"data": {{"projects": [{{"jobs": {jobs}}}]}}, "errors": [{error}]}}"#);
        faults(&adapter, 2, &body)
    };
    let at = |more: &str| format!("[\"projects\", 0, \"jobs\"{more}]");
    let token = error("token expired", "UNAUTHENTICATED", &at(""));
    assert_eq!(read(true, r#"{"j-1": null, "j-2": null}"#, &token), Err(FaultKind::CredentialsRejected));
    assert_eq!(read(false, "[null, null]", &token), Err(FaultKind::CredentialsRejected));
    let denied = vec![None, Some(JobFault::Forbidden)];
    let own = error("no", "FORBIDDEN", &at(", \"j-2\""));
    assert_eq!(read(true, &format!(r#"{{"j-1": {JOB}, "j-2": null}}"#), &own), Ok(denied.clone()));
    let own = error("no", "FORBIDDEN", &at(", 1"));
    assert_eq!(read(false, &format!("[{JOB}, null]"), &own), Ok(denied));
}

#[test]
fn job_is_not_missing_while_an_error_may_be_about_it() {
    let list = batch("jobs = \"body.data.jobs\"");
    let (other, at) = (r#"{"id": "j-3", "s": "run"}"#, |index: usize| format!("[\"jobs\", {index}]"));
    let read = |jobs: &str, errors: &[String]| {
        let body = format!(r#"{{"data": {{"jobs": {jobs}}}, "errors": [{}]}}"#, errors.join(","));
        faults(&list, 3, &body).unwrap()
    };
    // The positions are those of the list before its nulls were left out.
    let errors = [error("late", "INTERNAL_SERVER_ERROR", &at(1))];
    assert_eq!(read(&format!("[{JOB}, {other}]"), &errors), [None, Some(UNCLEAR), None]);
    let errors = [error("no", "NOT_FOUND", &at(0)), error("no", "FORBIDDEN", &at(2))];
    assert_eq!(read(&format!("[null, {other}, null]"), &errors), [Some(UNCLEAR), Some(UNCLEAR), None]);
    let errors = [error("no", "NOT_FOUND", &at(0)), error("no", "NOT_FOUND", &at(2))];
    let missing = Some(JobFault::NotFound);
    assert_eq!(read(&format!("[null, {other}, null]"), &errors), [missing.clone(), missing, None]);
}

#[test]
fn error_elsewhere_in_the_answer_is_of_no_job() {
    let nulls = r#"{"j-1": null, "j-2": null}"#;
    for (keys, jobs) in
        [("jobs = \"body.data.jobs\"\nby_id = true", nulls), ("jobs = \"body.data.jobs\"", "[null, null]")]
    {
        let adapter = batch(keys);
        for path in ["[\"viewer\", \"name\"]", "[\"viewer\", 0]", "[\"viewer\"]"] {
            let token = error("no", "UNAUTHENTICATED", path);
            let body = format!(r#"{{"data": {{"jobs": {jobs}, "viewer": null}}, "errors": [{token}]}}"#);
            let fault = faults(&adapter, 2, &body);
            assert_eq!(fault, Err(FaultKind::CredentialsRejected), "{keys}: {path}");
        }
    }
}

#[test]
fn part_of_a_job_that_is_missing_does_not_make_the_job_so() {
    let (list, by_id) =
        (batch("jobs = \"body.data.jobs\""), batch("jobs = \"body.data.jobs\"\nby_id = true"));
    let part = |job: &str| error("owner gone", "NOT_FOUND", &format!("[\"jobs\", {job}, \"owner\"]"));
    let body = |jobs: &str, error: &str| format!(r#"{{"data": {{"jobs": {jobs}}}, "errors": [{error}]}}"#);
    let unclear = Ok(vec![None, Some(UNCLEAR)]);
    assert_eq!(faults(&list, 2, &body(&format!("[{JOB}, null]"), &part("1"))), unclear);
    let jobs = format!(r#"{{"j-1": {JOB}, "j-2": null}}"#);
    assert_eq!(faults(&by_id, 2, &body(&jobs, &part("\"j-2\""))), unclear);
    // An id that is a part of another one is not named.
    let errors = [error("Job j-2.5 not found", "X", "[]"), error("late", "X", "[]")].join(",");
    assert_eq!(faults(&list, 2, &body(&format!("[{JOB}]"), &errors)), unclear);
}
