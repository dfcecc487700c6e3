use http::{Method, header};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::{
    super::{
        Observations,
        conformance::{answer, html, jobs, json},
        observations,
    },
    *,
};
use crate::{
    job::FaultKind,
    vendors::{Expiry, Token},
};

const ID: &str = "cefb58a0-cd71-11ec-8e29-81c20d280994";

/// The answer on the vendor's page.
const COMPLETED: &str = r#"{
  "cefb58a0-cd71-11ec-8e29-81c20d280994": {
    "id": "cefb58a0-cd71-11ec-8e29-81c20d280994",
    "state": "completed",
    "output": null
  }
}"#;

fn immuta() -> Immuta {
    Immuta::new("https://immuta.example".parse().unwrap(), NonZeroUsize::new(200).unwrap(), false)
}

fn read(ids: &[&str], response: &Response<Bytes>) -> Observations {
    observations(&immuta(), &jobs(ids), response)
}

/// What an element said about job `a`.
fn element(element: &str) -> Result<Observation, JobFault> {
    let mut answers = read(&["a"], &json(200, format!("{{\"a\": {element}}}"))).unwrap();
    assert_eq!(answers.len(), 1);
    answers.remove(0)
}

fn in_state(state: &str, output: &str) -> Observation {
    element(&format!(r#"{{"id":"a","state":"{state}","output":{output}}}"#)).unwrap()
}

#[test]
fn many_jobs_are_polled_in_one_request() {
    let request = immuta().request(&jobs(&[ID, "say \"ä\""]));
    assert_eq!(request.method(), Method::POST);
    assert_eq!(request.uri(), "https://immuta.example/jobs/statuses");
    assert_eq!(request.headers()[header::CONTENT_TYPE], "application/json");
    assert_eq!(request.headers()[header::ACCEPT], "application/json");
    let body: Value = serde_json::from_slice(request.body()).unwrap();
    assert_eq!(body, serde_json::json!({"jobIds": [ID, "say \"ä\""]}));
}

#[test]
fn id_is_any_text_of_1_to_512_bytes() {
    for id in [ID, "0", " ", "a/b?c", "ä", &"x".repeat(512)] {
        assert_eq!(immuta().check(&JobRef::new("immuta", id)), Ok(()), "{id}");
    }
    for id in ["", "a\tb", "a\u{85}b", &"ä".repeat(257)] {
        assert_eq!(immuta().check(&JobRef::new("immuta", id)).unwrap_err().field, "job_id", "{id}");
    }
}

#[test]
fn response_on_the_vendors_page_is_a_job_that_succeeded() {
    let answers = read(&[ID], &json(200, COMPLETED)).unwrap();
    let start = COMPLETED.find("{\n    \"id\"").unwrap();
    let element = &COMPLETED[start..COMPLETED.len() - 2];
    let observation = Observation {
        vendor_payload: Bytes::from_static(element.as_bytes()),
        ..Observation::new(JobState::Succeeded, "completed")
    };
    assert_eq!(answers, [Ok(observation)]);
}

#[test]
fn every_documented_state_has_its_place_in_the_life_cycle() {
    for (word, state) in [
        ("created", JobState::Pending),
        ("active", JobState::Running),
        ("retry", JobState::Retrying),
        ("completed", JobState::Succeeded),
        ("failed", JobState::Failed),
        ("cancelled", JobState::Cancelled),
        ("expired", JobState::Expired),
        ("Completed", JobState::Unknown),
        ("on hold", JobState::Unknown),
    ] {
        let observation = in_state(word, "null");
        assert_eq!((observation.state, observation.vendor_state.as_str()), (state, word));
        assert_eq!((observation.result, observation.error), (None, None));
    }
}

#[test]
fn state_may_be_the_only_one_of_a_list() {
    assert_eq!(element(r#"{"state":["retry"]}"#).unwrap().state, JobState::Retrying);
    for state in ["[]", r#"["active","failed"]"#, "[[\"active\"]]", "{}", "1", "null", "\"\"", "[\"\"]"] {
        let fault = element(&format!(r#"{{"id":"a","state":{state}}}"#)).unwrap_err();
        assert_eq!(fault, JobFault::Malformed { why: "no state" }, "{state}");
    }
}

#[test]
fn jobs_are_answered_in_the_order_asked_and_one_odd_job_spoils_no_other() {
    let body = r#"{
        "c": {"state": "active"}, "odd": "x", "other": {"id": "c", "state": "failed"},
        "null": null, "a": {"id": "a", "state": "completed", "output": "done"}, "unasked": 1
    }"#;
    let answers = read(&["a", "gone", "odd", "c", "other", "null", "a"], &json(200, body)).unwrap();
    let states: Vec<_> = answers.iter().map(|answer| answer.as_ref().map(|job| job.state)).collect();
    let (missing, odd) = (JobFault::NotFound, JobFault::Malformed { why: "not an object" });
    let crossed = JobFault::Malformed { why: "it is about another job" };
    assert_eq!(
        states,
        [
            Ok(JobState::Succeeded),
            Err(&missing),
            Err(&odd),
            Ok(JobState::Running),
            Err(&crossed),
            Err(&missing),
            Ok(JobState::Succeeded),
        ]
    );
}

#[test]
fn job_that_the_response_leaves_out_is_not_found() {
    for body in ["{}", r#"{"a": null}"#] {
        assert_eq!(read(&["a"], &json(200, body)).unwrap(), [Err(JobFault::NotFound)], "{body}");
    }
}

#[test]
fn an_answer_about_other_jobs_makes_none_missing() {
    let why = "the answer is about other jobs";
    for body in [r#"{"b": {"state": "active"}}"#, r#"{"b": {"state": "active"}, "c": {"state": "active"}}"#] {
        let answers = read(&["a", "c"], &json(200, body)).unwrap();
        assert_eq!(answers[0], Err(JobFault::Malformed { why }), "{body}");
    }
}

#[test]
fn object_that_is_not_about_jobs_does_not_make_jobs_missing() {
    let fault = read(&["a"], &json(200, r#"{"message": "try later"}"#)).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Malformed { why: "not an object of jobs" });
}

#[test]
fn of_a_job_that_stands_twice_with_different_contents_nothing_is_believed() {
    let body = r#"{"a": {"state": "active"}, "a": {"state": "failed"}, "b": {"state": "active"}, "b": {"state": "active"}}"#;
    let answers = read(&["a", "b"], &json(200, body)).unwrap();
    assert_eq!(answers[0], Err(JobFault::Malformed { why: "it came twice and differs" }));
    assert_eq!(answers[1].as_ref().unwrap().state, JobState::Running);
}

#[test]
fn of_a_member_that_stands_twice_the_last_one_counts() {
    let answers = read(&["a"], &json(200, r#"{"a": {"state": "active", "state": "failed"}}"#)).unwrap();
    assert_eq!(answers[0].as_ref().unwrap().state, JobState::Failed);
}

#[test]
fn output_is_a_text_or_json_and_keeps_every_byte() {
    for (output, data, content_type) in [
        (r#""""#, "", ContentType::Text),
        (r#""a\n\u00e4\ud83d\ude00""#, "a\nä😀", ContentType::Text),
        (r#""lone \ud800""#, r#""lone \ud800""#, ContentType::Json),
        ("123456789012345678901234567890", "123456789012345678901234567890", ContentType::Json),
        (r#"{"z": 1.10, "a" : [1e2]}"#, r#"{"z": 1.10, "a" : [1e2]}"#, ContentType::Json),
        (r#"{"value": "x"}"#, r#"{"value": "x"}"#, ContentType::Json),
        ("false", "false", ContentType::Json),
    ] {
        for state in ["completed", "active", "created", "cancelled", "expired", "on hold"] {
            let observation = in_state(state, output);
            let result = JobResult { data: data.into(), content_type };
            assert_eq!((observation.result, observation.error), (Some(result), None), "{state} {output}");
        }
    }
}

#[test]
fn output_of_a_failed_or_retrying_job_is_its_error() {
    for (output, message) in [
        (r#""it broke""#, "it broke"),
        (r#"{"name":"Error","message":"it broke","stack":"Error: it broke\n at x"}"#, "it broke"),
        (r#"{"value":"it broke"}"#, "it broke"),
        (r#"{"value":{"message":"it broke"}}"#, "it broke"),
        (r#"{"code":123456789012345678901234567890}"#, ""),
        ("[1]", ""),
    ] {
        for state in ["failed", "retry"] {
            let observation = in_state(state, output);
            assert_eq!(observation.result, None);
            let error = observation.error.unwrap();
            assert_eq!((error.message.as_str(), &error.details[..]), (message, output.as_bytes()));
        }
    }
}

#[test]
fn payload_is_the_jobs_object_byte_for_byte() {
    let text = r#"{ "id":"a", "state":"active",  "undocumented": [18446744073709551616, "\u00e4"] }"#;
    assert_eq!(element(text).unwrap().vendor_payload, text);
}

#[test]
fn refusal_has_the_vendors_words() {
    for (response, words) in [
        (
            json(400, r#"{"statusCode":400,"error":"Bad Request","message":"Invalid payload"}"#),
            "Invalid payload",
        ),
        (json(422, r#"{"validation":[{"code":"unique"}]}"#), "unique"),
        (json(409, r#"{"message":""}"#), "HTTP 409"),
        (answer(400, "text/plain", "not today"), "not today"),
        (html(404), "HTTP 404"),
        (json(404, r#"{"message":"Not Found"}"#), "Not Found"),
        (
            json(404, r#"{"message":"no Route matched with those values"}"#),
            "no Route matched with those values",
        ),
    ] {
        let fault = read(&["a"], &response).unwrap_err();
        assert_eq!(fault.kind, FaultKind::Rejected { message: words.into() });
        assert_eq!(fault.http_status, Some(response.status().as_u16()));
    }
}

#[test]
fn refused_id_is_that_jobs_fault_only_when_it_was_polled_alone() {
    for body in [
        r#"{"statusCode":400,"message":"\"jobIds[0]\" must be a valid GUID"}"#,
        r#"{"statusCode":400,"message":"invalid input: \"a\""}"#,
        r#"{"statusCode":400,"message":"Invalid","validation":{"source":"payload","keys":["jobIds"]}}"#,
    ] {
        for status in [400, 422] {
            let alone = read(&["a"], &json(status, body)).unwrap();
            assert!(matches!(alone[..], [Err(JobFault::Invalid { .. })]), "{body}");
            let fault = read(&["a", "b"], &json(status, body)).unwrap_err();
            assert!(matches!(fault.kind, FaultKind::Rejected { .. }), "{body}");
        }
    }
}

#[test]
fn not_found_about_a_job_is_that_jobs_fault_only_when_it_was_polled_alone() {
    let response = json(404, r#"{"statusCode":404,"error":"Not Found","message":"Job a does not exist"}"#);
    assert_eq!(read(&["a"], &response).unwrap(), [Err(JobFault::NotFound)]);
    let fault = read(&["a", "b"], &response).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Rejected { message: "Job a does not exist".into() });
}

fn exchange(response: &Response<Bytes>) -> Result<Token, BackendFault> {
    let immuta = Immuta::new("https://immuta.example".parse().unwrap(), NonZeroUsize::MIN, true);
    immuta.token_exchange().unwrap().interpret(response)
}

#[test]
fn api_key_is_exchanged_only_where_the_configuration_says_so() {
    assert!(immuta().token_exchange().is_none());
    let base = "https://immuta.example/t/".parse().unwrap();
    let immuta = Immuta::new(base, NonZeroUsize::MIN, true);
    let request = immuta.token_exchange().unwrap().request(&SecretString::from("k\"1")).unwrap();
    assert_eq!(request.method(), Method::POST);
    assert_eq!(request.uri(), "https://immuta.example/t/bim/apikey/authenticate");
    assert_eq!(request.headers()[header::CONTENT_TYPE], "application/json");
    assert!(!request.headers().contains_key(header::AUTHORIZATION));
    assert_eq!(request.body(), r#"{"apikey":"k\"1"}"#);
}

#[test]
fn token_ends_when_the_vendor_says() {
    let full = r#"{"authenticated":true,"token":"dea464","tokenExpiration":"2021-09-29T19:12:51.467Z"}"#;
    let token = exchange(&json(200, full)).unwrap();
    assert_eq!(token.value.expose_secret(), "dea464");
    assert_eq!(token.expiry, Some(Expiry::At("2021-09-29T19:12:51.467Z".parse().unwrap())));
    for body in [r#"{"token":"dea464"}"#, r#"{"token":"dea464","tokenExpiration":"soon"}"#] {
        assert_eq!(exchange(&json(200, body)).unwrap().expiry, None);
    }
}

#[test]
fn refused_api_key_is_a_matter_of_credentials() {
    for response in
        [json(400, "{}"), json(401, ""), html(401), json(403, "{}"), json(200, r#"{"authenticated":false}"#)]
    {
        assert_eq!(exchange(&response).unwrap_err().kind, FaultKind::CredentialsRejected);
    }
    let fault = exchange(&json(404, r#"{"message":"Not Found"}"#)).unwrap_err();
    assert_eq!(fault, FaultKind::Rejected { message: "Not Found".into() }.with_status(StatusCode::NOT_FOUND));
    let fault = exchange(&json(200, r#"{"authenticated":true}"#)).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Malformed { why: "no token" });
}

#[test]
fn response_that_is_not_about_jobs_says_nothing_about_them() {
    for (status, body) in [
        (200, r#"{"error":{"code":"ECONNREFUSED","message":"queue is down"}}"#),
        (200, r#"{"errors":{}}"#),
        (200, r#"{"data":{"jobs":{}}}"#),
        (404, r#"{"statusCode":404,"message":"Resource not found"}"#),
        (404, r#"{"statusCode":404,"message":"Cannot POST /jobs/statuses","error":"Not Found"}"#),
        (404, r#"{"status":404,"error":"Not Found","message":"No message available"}"#),
    ] {
        let response = Response::builder().status(status).header("content-type", "application/json");
        let immuta = Immuta::new("http://v".parse().unwrap(), 200.try_into().unwrap(), false);
        let said = observations(&immuta, &[JobRef::new("b", "a")], &response.body(body.into()).unwrap());
        assert!(said.is_err(), "{status} {body}: {said:?}");
    }
}
