use jiff::Timestamp;

use super::{
    super::{
        conformance::{answer, html, jobs, json},
        observations,
    },
    *,
};
use crate::{
    job::{Artifact, FaultKind, HiddenQuery},
    vendors::Asked,
};

mod login;

/// The answer on the vendor's page.
const COMPLETED: &str = r#"{
  "message": "Job status retrieved successfully",
  "content": {
    "job_log_id": 12345,
    "status": "completed",
    "type": "inventory-import",
    "description": "Inventory Import",
    "progress": {
      "completed_steps": 8,
      "total_steps": 8,
      "current_step": null
    },
    "files": {
      "input": [
        "/tenant/download/tenant/user-uploads/inventory-import/2024-01-01/1/inventory_20240101_untouched.csv"
      ],
      "staging": [
        "/tenant/download/tenant/user-uploads/inventory-import/2024-01-01/1/inventory_20240101_staging.csv"
      ],
      "output": [
        "/tenant/download/tenant/user-uploads/inventory-import/2024-01-01/1/inventory_20240101_final.csv"
      ],
      "errors": [
        "/tenant/download/tenant/user-uploads/inventory-import/2024-01-01/1/inventory_20240101_errors.csv"
      ]
    },
    "job_status_link": "https://plan.claret.app/tenant/settings/application-maintenance/job-management/imports/logs/12345",
    "timestamps": {
      "started_at": "2024-01-01T10:00:00Z",
      "completed_at": "2024-01-01T10:02:30Z"
    },
    "user_id": 42
  }
}"#;

fn claret() -> Claret {
    Claret::new("https://plan.claret.app".parse().unwrap(), "demo", None).unwrap()
}

fn read(response: &Response<Bytes>) -> Result<Result<Observation, JobFault>, BackendFault> {
    let mut answers = observations(&claret(), &jobs(&["12345"]), response)?;
    assert_eq!(answers.len(), 1);
    Ok(answers.remove(0))
}

/// What a job with these members said, beside its id and a status.
fn job_with(members: &str) -> Observation {
    let body = format!(r#"{{"content":{{"job_log_id":12345,"status":"in_progress",{members}}}}}"#);
    read(&json(200, body)).unwrap().unwrap()
}

#[test]
fn one_import_is_requested_with_both_headers_that_prevent_the_login_page() {
    let request = claret().request(&jobs(&["12345"]));
    assert_eq!(request.method(), Method::GET);
    assert_eq!(request.uri(), "https://plan.claret.app/demo/api/v1/imports/status/12345");
    assert_eq!(request.headers()[header::ACCEPT], "application/json");
    assert_eq!(request.headers()["x-requested-with"], "XMLHttpRequest");
    assert!(request.body().is_empty());
    let odd = Claret::new("https://plan.claret.app/".parse().unwrap(), "a b/ä", None).unwrap();
    let uri = odd.request(&jobs(&["1"])).uri().to_string();
    assert_eq!(uri, "https://plan.claret.app/a%20b%2F%C3%A4/api/v1/imports/status/1");
}

#[test]
fn id_is_a_positive_integer_written_in_one_way() {
    for id in ["1", "12345", "9223372036854775807"] {
        assert_eq!(claret().check(&JobRef::new("claret", id)), Ok(()), "{id}");
    }
    for id in ["0", "-1", "+1", "01", "1.0", "1e3", " 1", "x", "١", "9223372036854775808"] {
        let invalid = claret().check(&JobRef::new("claret", id)).unwrap_err();
        assert_eq!(invalid.field, "job_id", "{id}");
        assert!(invalid.reason.contains("such as \"12345\""));
    }
}

#[test]
fn response_on_the_vendors_page_is_understood_in_full() {
    let dir = "/tenant/download/tenant/user-uploads/inventory-import/2024-01-01/1";
    let artifact = |category: &str, suffix: &str| {
        let file_name = format!("inventory_20240101_{suffix}.csv");
        Artifact {
            id: format!("{category}/{file_name}"),
            category: category.into(),
            vendor_uri: format!("{dir}/{file_name}"),
            file_name,
            query: HiddenQuery::default(),
        }
    };
    let content = &COMPLETED[COMPLETED.find("{\n    \"job_log_id\"").unwrap()..COMPLETED.len() - 2];
    let expected = Observation {
        state: JobState::Succeeded,
        vendor_state: "completed".into(),
        progress: Some(Progress {
            percent: None,
            completed_steps: Some(8),
            total_steps: Some(8),
            current_step: String::new(),
        }),
        result: None,
        error: None,
        warnings: Vec::new(),
        artifacts: vec![
            artifact("input", "untouched"),
            artifact("staging", "staging"),
            artifact("output", "final"),
            artifact("errors", "errors"),
        ],
        job_type: "inventory-import".into(),
        description: "Inventory Import".into(),
        vendor_url: "https://plan.claret.app/tenant/settings/application-maintenance/job-management/imports/logs/12345"
            .into(),
        owner: "42".into(),
        create_time: None,
        start_time: Some("2024-01-01T10:00:00Z".parse().unwrap()),
        end_time: Some("2024-01-01T10:02:30Z".parse().unwrap()),
        vendor_payload: Bytes::from_static(content.as_bytes()),
        payload_hash: None,
    };
    assert_eq!(read(&json(200, COMPLETED)), Ok(Ok(expected)));
}

#[test]
fn every_documented_status_has_its_place_in_the_life_cycle() {
    for (word, state) in [
        ("pending", JobState::Pending),
        ("in_progress", JobState::Running),
        ("completed", JobState::Succeeded),
        ("failed", JobState::Failed),
        ("queued for review", JobState::Unknown),
    ] {
        let observation = read(&json(200, COMPLETED.replace("\"completed\"", &format!("{word:?}"))));
        let observation = observation.unwrap().unwrap();
        assert_eq!((observation.state, observation.vendor_state.as_str()), (state, word));
        assert_eq!(observation.error, None, "the message is about the call, not the job");
    }
}

#[test]
fn nothing_but_the_status_is_needed() {
    let observation = read(&json(200, r#"{"content":{"status":"pending"}}"#)).unwrap().unwrap();
    let payload = Bytes::from_static(br#"{"status":"pending"}"#);
    let expected = Observation { vendor_payload: payload, ..Observation::new(JobState::Pending, "pending") };
    assert_eq!(observation, expected);

    let names = ["type", "description", "progress", "files", "job_status_link", "timestamps", "user_id"];
    for odd in ["null", "[]", "{}", "true", "1.5", "[[1]]"] {
        let members = names.map(|name| format!("\"{name}\":{odd}")).join(",");
        let observation = job_with(&members);
        let bare = Observation { vendor_payload: Bytes::new(), ..observation };
        assert_eq!(bare, Observation::new(JobState::Running, "in_progress"), "{odd}");
    }
}

#[test]
fn job_without_a_status_is_malformed() {
    for status in ["null", "1", "[]", "[\"failed\"]", "\"\""] {
        let body = format!(r#"{{"content":{{"job_log_id":12345,"status":{status}}}}}"#);
        assert_eq!(read(&json(200, body)), Ok(Err(JobFault::Malformed { why: "no status" })), "{status}");
    }
    for body in [r#"{"message":"ok"}"#, r#"{"content":null}"#, r#"{"content":[]}"#] {
        assert!(matches!(read(&json(200, body)).unwrap_err().kind, FaultKind::Malformed { .. }));
    }
}

#[test]
fn an_answer_about_another_job_is_malformed() {
    for (id, is_ours) in [
        ("12345", true),
        ("\"12345\"", true),
        ("null", true),
        ("12346", false),
        ("\"012345\"", false),
        ("12345.0", false),
        ("[12345]", false),
        ("123456789012345678901234567890", false),
    ] {
        let body = format!(r#"{{"content":{{"job_log_id":{id},"status":"failed"}}}}"#);
        assert_eq!(read(&json(200, body)).unwrap().is_ok(), is_ours, "{id}");
    }
}

#[test]
fn timestamp_has_up_to_nine_fraction_digits_and_an_offset() {
    let second: Timestamp = "2021-09-28T16:51:44Z".parse().unwrap();
    for (text, nanoseconds) in [
        ("2021-09-28T16:51:44Z", Some(0)),
        ("2021-09-28T16:51:44.5Z", Some(500_000_000)),
        ("2021-09-28T16:51:44.000001Z", Some(1_000)),
        ("2021-09-28T16:51:44.000000001Z", Some(1)),
        ("2021-09-28T18:51:44.000000+02:00", Some(0)),
        ("2021-09-28 16:51:44Z", Some(0)),
        ("2021-09-28T16:51:44", None),
        ("2021-09-31T16:51:44Z", None),
        ("yesterday", None),
        ("", None),
    ] {
        let observation = job_with(&format!(r#""timestamps":{{"started_at":{text:?},"completed_at":7}}"#));
        let expected = nanoseconds.map(|nanoseconds| second + jiff::SignedDuration::from_nanos(nanoseconds));
        assert_eq!((observation.start_time, observation.end_time), (expected, None), "{text}");
    }
}

#[test]
fn progress_keeps_what_can_be_understood() {
    let progress = |text: &str| job_with(&format!("\"progress\":{text}")).progress;
    let steps = |completed_steps, total_steps, current_step: &str| {
        Some(Progress { percent: None, completed_steps, total_steps, current_step: current_step.into() })
    };
    let full = r#"{"completed_steps":0,"total_steps":"0","current_step":"map"}"#;
    assert_eq!(progress(full), steps(Some(0), Some(0), "map"));
    assert_eq!(progress(r#"{"completed_steps":1e99,"total_steps":3}"#), steps(None, Some(3), ""));
    assert_eq!(progress(r#"{"completed_steps":9223372036854775808}"#), None);
}

#[test]
fn owner_keeps_all_its_digits() {
    let owner = |text: &str| job_with(&format!("\"user_id\":{text}")).owner;
    assert_eq!(owner("18446744073709551617"), "18446744073709551617");
    assert_eq!(owner("\"7\""), "7");
}

#[test]
fn files_are_listed_by_category_and_each_has_a_name_of_its_own() {
    let files = r#"{
        "later": ["/x/z.csv"],
        "errors": {"0": "/x/e.csv", "2": "/y/e.csv"},
        "output": [],
        "staging": null,
        "early": ["/x/e.csv?v=1", 7, null, ""],
        "input": ["/x/a.csv", "/y/a.csv", "/z/a.csv", "/x/a.csv#2", "dir/"]
    }"#;
    let artifacts = job_with(&format!("\"files\":{files}")).artifacts;
    let ids: Vec<_> = artifacts.iter().map(|artifact| artifact.id.as_str()).collect();
    assert_eq!(
        ids,
        [
            "input/a.csv",
            "input/a.csv#2",
            "input/a.csv#3",
            "input/a.csv#2#2",
            "input/dir",
            "errors/e.csv",
            "errors/e.csv#2",
            "later/z.csv",
            "early/e.csv",
        ]
    );
    assert_eq!(artifacts[6].vendor_uri, "/y/e.csv");
    assert_eq!(artifacts[8].vendor_uri, "/x/e.csv?v=1");
}

#[test]
fn failed_job_has_an_error_only_where_it_says_why() {
    let error = |status: &str, member: &str| {
        let body = format!(r#"{{"message":"ok","content":{{"status":"{status}"{member}}}}}"#);
        read(&json(200, body)).unwrap().unwrap().error
    };
    let boom = |details: &'static str| Some(JobError { message: "boom".into(), details: details.into() });
    assert_eq!(error("failed", ""), None);
    assert_eq!(error("failed", r#","error":null,"message":"""#), None);
    assert_eq!(error("failed", r#","error":"boom""#), boom("\"boom\""));
    assert_eq!(error("failed", r#","error":{},"message":"boom""#), boom("\"boom\""));
    assert_eq!(error("failed", r#","error_message":{"message":"boom"}"#), boom(r#"{"message":"boom"}"#));
    assert_eq!(error("completed", r#","error":"boom""#), None);
}

#[test]
fn job_that_is_missing_or_hidden_is_not_found() {
    for body in [
        r#"{
          "message": "Job not found or you do not have access to this job.",
          "error": {
            "error": "Job log ID does not exist"
          }
        }"#,
        r#"{"error": "You do not have access"}"#,
        r#"{"message": "Job not found or you do not have access to this job."}"#,
        r#"{"error": "Job log ID does not exist", "errors": {"job_log_id": ["is wrong"]}}"#,
        r#"{"message": "The given data was invalid.", "errors": {"job_log_id": ["Job log ID does not exist"]}}"#,
    ] {
        assert_eq!(read(&json(422, body)), Ok(Err(JobFault::NotFound)), "{body}");
    }
}

#[test]
fn failed_validation_is_the_jobs_fault_only_if_it_is_about_the_id() {
    let about_the_id = r#"{"message":"The given data was invalid.","errors":{"x":["?"],"job_log_id":["must be an integer"]}}"#;
    let invalid = JobFault::Invalid { message: "must be an integer".into() };
    assert_eq!(read(&json(422, about_the_id)), Ok(Err(invalid)));
    for (body, words) in [
        (
            r#"{"message":"Bad data.","errors":{"n":[],"tenant":["The tenant is closed."]}}"#,
            "Bad data. The tenant is closed.",
        ),
        (
            r#"{"message":"The tenant is closed.","errors":{"tenant":["The tenant is closed."]}}"#,
            "The tenant is closed.",
        ),
        (r#"{"message":"Sorry.","error":{"error":"Imports are off"}}"#, "Sorry. Imports are off"),
        (r#"{"message":"Sorry.","errors":[]}"#, "Sorry."),
        ("{}", "HTTP 422"),
        ("[", "HTTP 422"),
    ] {
        let fault = read(&json(422, body)).unwrap_err();
        let rejected = FaultKind::Rejected { message: words.into() };
        assert_eq!(fault, rejected.with_status(StatusCode::UNPROCESSABLE_ENTITY), "{body}");
    }
}

#[test]
fn json_404_is_the_wrong_endpoint() {
    let fault = read(&json(404, r#"{"message":"The route demo could not be found."}"#)).unwrap_err();
    let rejected = FaultKind::Rejected { message: "The route demo could not be found.".into() };
    assert_eq!(fault, rejected.with_status(StatusCode::NOT_FOUND));
}

#[test]
fn request_has_a_path_without_the_job() {
    let request = claret().request(&jobs(&["12345"]));
    let fault = Asked::of(&request).unanswered(FaultKind::TooLarge.into());
    assert_eq!(fault.exchange.as_deref(), Some("GET /demo/api/v1/imports/status/{id}"));
}

#[test]
fn tenant_is_one_segment_of_a_path() {
    for tenant in ["", ".", "..", &"x".repeat(256)] {
        assert!(Claret::new("https://plan.claret.app".parse().unwrap(), tenant, None).is_err(), "{tenant}");
    }
}
