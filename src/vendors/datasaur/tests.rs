use http::{Method, StatusCode};
use proptest::prelude::*;
use secrecy::SecretString;
use serde_json::{Value, json};

use super::*;
use crate::{
    job::{FaultKind, Progress},
    vendors::{Observations, observations},
};

mod outages;

const ID: &str = "AutoLabelQueue:dcbf6ed3-3841-46c1-8f6a-2affb53ac637";

fn adapter() -> Datasaur {
    Datasaur::new("https://app.datasaur.ai".parse().unwrap(), NonZeroUsize::new(200).unwrap(), None)
}

fn jobs(ids: &[&str]) -> Vec<JobRef> {
    ids.iter().map(|id| JobRef::new("ds", *id)).collect()
}

fn answer(status: u16, body: impl Into<Bytes>) -> Response<Bytes> {
    Response::builder().status(status).header("Content-Type", "application/json").body(body.into()).unwrap()
}

fn read_at(status: u16, ids: &[&str], body: &str) -> Observations {
    observations(&adapter(), &jobs(ids), &answer(status, body.to_owned()))
}

fn read(ids: &[&str], body: &Value) -> Observations {
    read_at(200, ids, &body.to_string())
}

/// The observation of one job whose element is `element`.
fn read_element(element: &str) -> Result<Observation, JobFault> {
    read_at(200, &["a"], &format!(r#"{{"data":{{"result":[{element}]}}}}"#)).unwrap().pop().unwrap()
}

fn read_with(mut fields: Value) -> Observation {
    fields["id"] = "a".into();
    read_element(&fields.to_string()).unwrap()
}

fn job(id: &str, status: &str) -> Value {
    json!({"id": id, "status": status, "progress": 0})
}

/// The states that came back, or why there is none.
fn states(observations: Observations) -> Vec<Result<JobState, JobFault>> {
    observations.unwrap().into_iter().map(|answer| answer.map(|observation| observation.state)).collect()
}

fn error(message: &str, path: &Value, extensions: &Value) -> Value {
    json!({"message": message, "locations": [], "path": path, "extensions": extensions})
}

const UNEXPLAINED: JobFault = JobFault::Malformed { why: "an error stands in its place" };

#[test]
fn request_is_a_query_for_all_jobs() {
    let ids = [ID, "with \"quotes\"", "9007199254740993"];
    let request = adapter().request(&jobs(&ids));
    assert_eq!(request.method(), Method::POST);
    assert_eq!(request.uri(), "https://app.datasaur.ai/graphql");
    assert_eq!(request.headers()["content-type"], "application/json");
    assert_eq!(request.headers()["accept"], "application/json");
    let body: Value = serde_json::from_slice(request.body()).unwrap();
    assert_eq!(
        body,
        json!({
            "operationName": "GetJobs",
            "variables": {"jobIds": ids},
            "query": "query GetJobs($jobIds: [String!]!) { result: getJobs(jobIds: $jobIds) { id status progress errors { id stack args } resultId result additionalData { automationActivityId } createdAt updatedAt } }",
        })
    );
}

#[test]
fn job_id_is_any_text_without_control_characters() {
    let long = "x".repeat(512);
    for id in [ID, "ä b/c\"'", &long] {
        adapter().check(&JobRef::new("ds", id)).unwrap();
    }
    let too_long = "x".repeat(513);
    for id in ["", "a\nb", "a\u{7f}", &too_long] {
        assert_eq!(adapter().check(&JobRef::new("ds", id)).unwrap_err().field, "job_id");
    }
    let tagged = JobRef::new("ds", ID).with_tag("t");
    assert_eq!(adapter().check(&tagged).unwrap_err().field, "job_tag");
}

#[test]
fn only_a_client_id_makes_a_token_exchange_and_no_secret_is_kept() {
    assert!(adapter().token_exchange().is_none());
    let client = Some(("id".to_owned(), ClientAuth::Form));
    let adapter = Datasaur::new("https://x".parse().unwrap(), NonZeroUsize::MIN, client);
    let exchange = adapter.token_exchange().unwrap();
    let _ = exchange.request(&SecretString::from("hush"));
    assert!(!format!("{adapter:?}").contains("hush"));
    assert_eq!(adapter.capabilities().max_batch, NonZeroUsize::MIN);
}

#[test]
fn recorded_response_is_read_without_loss() {
    let element = format!(
        "{{\n            \"id\": \"{ID}\",\n            \"status\": \"DELIVERED\",\n            \"progress\": 0\n        }}"
    );
    let body = format!(
        "{{\n    \"data\": {{\n        \"result\": [{element}]\n    }},\n    \"extensions\": {{}}\n}}"
    );
    let observation = read_at(200, &[ID], &body).unwrap().pop().unwrap().unwrap();
    let expected = Observation {
        progress: Some(Progress { percent: Some(0.0), ..Progress::default() }),
        vendor_payload: element.into(),
        ..Observation::new(JobState::Succeeded, "DELIVERED")
    };
    assert_eq!(observation, expected);
}

#[test]
fn every_word_has_its_state() {
    for (word, state) in [
        ("QUEUED", JobState::Pending),
        ("NONE", JobState::Pending),
        ("IN_PROGRESS", JobState::Running),
        ("DELIVERED", JobState::Succeeded),
        ("FAILED", JobState::Failed),
        ("delivered", JobState::Unknown),
        ("CANCELLED", JobState::Unknown),
        ("", JobState::Unknown),
    ] {
        // Progress says nothing about the end.
        let observation = read_with(json!({"status": word, "progress": 100}));
        assert_eq!((observation.state, observation.vendor_state.as_str()), (state, word));
    }
}

#[test]
fn result_keeps_its_exact_bytes() {
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    for result in
        [r#"{ "b":1, "a":9007199254740993.10 }"#, r#""\u0041""#, "1e400", "false", "[]", r#""\ud800""#, &deep]
    {
        let element = format!(r#"{{"id":"a","status":"DELIVERED","result": {result} ,"resultId":"p"}}"#);
        let observation = read_element(&element).unwrap();
        let expected = JobResult { data: result.to_owned().into(), content_type: ContentType::Json };
        assert_eq!(observation.result, Some(expected));
        assert_eq!(observation.vendor_payload, element);
    }
    assert_eq!(read_with(json!({"status":"DELIVERED","result":null,"resultId":"p"})).result, None);
}

#[test]
fn odd_values_beside_the_state_do_not_matter() {
    let observation = read_with(json!({"status":"IN_PROGRESS","progress":"half","errors":null,"resultId":7,
        "additionalData":[],"createdAt":{},"updatedAt":true,"new":1}));
    let payload = observation.vendor_payload.clone();
    assert_eq!(
        observation,
        Observation { vendor_payload: payload, ..Observation::new(JobState::Running, "IN_PROGRESS") }
    );
}

#[test]
fn failed_job_says_why_with_a_line_of_each_error() {
    let errors = r#"[{"id":"1","stack":"\n Error: no model\n    at x","args":null}, {"id":"2","stack":"Error: y","args":{"message":"no quota"}},null,{"id":"3","stack":"","args":7},7]"#;
    let element = format!(r#"{{"id":"a","status":"FAILED","errors": {errors} }}"#);
    let error = read_element(&element).unwrap().error.unwrap();
    assert_eq!(error.message, "Error: no model\nno quota");
    assert_eq!(error.details, errors);

    let odd = read_with(json!({"status":"FAILED","errors":{"a":1}})).error.unwrap();
    assert_eq!(odd, JobError { message: String::new(), details: r#"{"a":1}"#.into() });
}

#[test]
fn error_is_set_only_where_the_vendor_said_why() {
    assert_eq!(read_with(json!({"status":"FAILED","errors":[]})).error, None);
    assert_eq!(read_with(json!({"status":"FAILED"})).error, None);
    let retried = read_with(json!({"status":"IN_PROGRESS","errors":[{"id":"1","stack":"Error: x"}]}));
    assert_eq!((retried.state, retried.error.unwrap().message.as_str()), (JobState::Running, "Error: x"));
}

#[test]
fn creation_time_is_iso_8601_or_milliseconds() {
    let expected: Timestamp = "2024-05-06T07:08:09.123Z".parse().unwrap();
    for created_at in [
        json!("2024-05-06T07:08:09.123Z"),
        json!("2024-05-06T09:08:09.123+02:00"),
        json!("1714979289123"),
        json!(1_714_979_289_123_i64),
    ] {
        let observation =
            read_with(json!({"status":"DELIVERED","createdAt":created_at,"updatedAt":created_at}));
        assert_eq!(observation.create_time, Some(expected));
        // `updatedAt` is not said to be the end.
        assert_eq!(observation.end_time, None);
    }
    for created_at in [json!("yesterday"), json!(""), json!(1_714_979_289), json!(i64::MAX), json!(1.5e300)] {
        assert_eq!(read_with(json!({"status":"NONE","createdAt":created_at})).create_time, None);
    }
}

#[test]
fn elements_are_matched_by_id_and_not_by_position() {
    let body = json!({"data":{"result":[job("c", "QUEUED"), null, job("foreign", "FAILED"), job("a", "DELIVERED")]}});
    let why = "the answer is about other jobs";
    let expected = vec![
        Ok(JobState::Succeeded),
        Err(JobFault::Malformed { why }),
        Ok(JobState::Pending),
        Ok(JobState::Succeeded),
    ];
    assert_eq!(states(read(&["a", "b", "c", "a"], &body)), expected);
    assert_eq!(states(read(&["a"], &json!({"data":{"result":[]}}))), [Err(JobFault::NotFound)]);
    assert_eq!(states(read(&[], &body)), []);
}

#[test]
fn an_element_that_came_twice_counts_only_if_it_is_the_same() {
    let body = json!({"data":{"result":[job("a", "QUEUED"), job("a", "QUEUED"), job("b", "QUEUED"), job("b", "FAILED"), job("b", "FAILED")]}});
    let differs = JobFault::Malformed { why: "it came twice and differs" };
    assert_eq!(states(read(&["a", "b"], &body)), [Ok(JobState::Pending), Err(differs)]);
}

#[test]
fn an_element_that_cannot_be_read_spoils_no_other() {
    let unreadable = Err(JobFault::Malformed { why: "it has no readable status" });
    for broken in [
        r#"{"id":"b"}"#,
        r#"{"id":"b","status":null}"#,
        r#"{"id":"b","status":7}"#,
        r#"{"id":"b","status":"\ud800"}"#,
        r#"{"id":"b","status":"FAILED","status":"DELIVERED"}"#,
    ] {
        let body = format!(r#"{{"data":{{"result":[{broken},{}]}}}}"#, job("a", "DELIVERED"));
        let expected = [Ok(JobState::Succeeded), unreadable.clone()];
        assert_eq!(states(read_at(200, &["a", "b"], &body)), expected, "{broken}");
    }
}

#[test]
fn job_is_not_called_missing_beside_an_element_without_an_id() {
    let unknown = Err(JobFault::Malformed { why: "an element has no readable id" });
    for broken in ["7", "[]", "{}", r#"{"id":7}"#, r#"{"id":"b","id":"a"}"#, r#"{"id":"\ud800"}"#] {
        let body = format!(r#"{{"data":{{"result":[{broken},{}]}}}}"#, job("a", "DELIVERED"));
        let expected = [Ok(JobState::Succeeded), unknown.clone()];
        assert_eq!(states(read_at(200, &["a", "b"], &body)), expected, "{broken}");
    }
}

#[test]
fn id_with_escapes_is_the_same_id() {
    assert_eq!(read_element(r#"{"id":"\u0061","status":"NONE"}"#).unwrap().state, JobState::Pending);
}

#[test]
fn an_expired_token_is_an_error_with_http_200() {
    let recorded = json!({"errors":[error("Unauthorized", &json!(["result"]), &json!({"type":"AuthenticationError"}))],"data":null});
    assert_eq!(read(&["a", "b"], &recorded), Err(FaultKind::CredentialsRejected.into()));
    for error in [
        json!({"message":"Unauthorized"}),
        json!({"message":"x","extensions":{"type":"AuthenticationError"}}),
        json!({"message":"x","extensions":{"code":"UNAUTHENTICATED"}}),
    ] {
        let fault = read(&["a"], &json!({"errors":[{"message":"y"}, error]})).unwrap_err();
        assert_eq!(fault, FaultKind::CredentialsRejected.into());
        let fault = read_at(400, &["a"], &json!({"errors":[error]}).to_string()).unwrap_err();
        assert_eq!(fault, FaultKind::CredentialsRejected.with_status(StatusCode::BAD_REQUEST));
    }
}

#[test]
fn errors_without_data_are_a_refusal_in_the_vendors_words() {
    let internal = error("Internal server error", &json!(null), &json!({"code":"BAD_USER_INPUT"}));
    let rejected = |message: &str| FaultKind::Rejected { message: message.into() };
    for data in [json!(null), json!({}), json!({"result":null}), json!({"result":{}}), json!(7)] {
        let body = json!({"errors":[{}, internal],"data":data});
        assert_eq!(read(&["a"], &body), Err(rejected("Internal server error").into()));
        let with_status = rejected("Internal server error").with_status(StatusCode::BAD_REQUEST);
        assert_eq!(read_at(400, &["a"], &body.to_string()), Err(with_status));
    }
    for odd in [json!({}), json!("x"), json!([7]), json!([{"message":{}}])] {
        let fault = read(&["a"], &json!({"errors":odd})).unwrap_err();
        assert_eq!(fault, rejected("an error without a message").into());
    }
    let forbidden = json!({"errors":[error("x", &json!([]), &json!({"code":"FORBIDDEN"}))]});
    assert_eq!(read(&["a"], &forbidden), Err(FaultKind::Forbidden.into()));
}

#[test]
fn one_job_that_the_errors_call_missing_is_missing() {
    let body = json!({"errors":[{"message":"Job a not found"}],"data":null});
    for status in [200, 400] {
        assert_eq!(states(read_at(status, &["a"], &body.to_string())), [Err(JobFault::NotFound)]);
    }
    // Of several jobs, nobody can tell which.
    assert!(matches!(read(&["a", "b"], &body).unwrap_err().kind, FaultKind::Rejected { .. }));
    let team = json!({"errors":[{"message":"Team not found"}],"data":null});
    assert!(matches!(read(&["a"], &team).unwrap_err().kind, FaultKind::Rejected { .. }));
}

#[test]
fn what_there_is_of_the_data_is_used_beside_errors() {
    let result = json!([job("a", "DELIVERED"), null, null, null]);
    let body = json!({"data":{"result":result},"errors":[
        error("Unauthorized", &json!(["result", 0, "additionalData"]), &json!({})),
        error("boom", &json!(["result", 1, "status"]), &json!({"code":"INTERNAL_SERVER_ERROR"})),
        error("Not found", &json!(["result", 2]), &json!({"code":"NOT_FOUND"})),
    ]});
    let expected =
        [Ok(JobState::Succeeded), Err(UNEXPLAINED), Err(JobFault::NotFound), Err(JobFault::NotFound)];
    for status in [200, 400] {
        assert_eq!(states(read_at(status, &["a", "b", "c", "d"], &body.to_string())), expected);
    }
}

#[test]
fn forbidden_job_spoils_no_other() {
    let body = json!({"data":{"result":[job("a", "DELIVERED"), null]},
        "errors":[error("Forbidden", &json!(["result", 1]), &json!({}))]});
    let seen = states(read(&["a", "b"], &body));
    assert_eq!(seen, [Ok(JobState::Succeeded), Err(JobFault::Forbidden)]);
}

#[test]
fn unauthorized_job_beside_jobs_with_data_is_forbidden_alone() {
    for message in ["Unauthorized", "Forbidden"] {
        for path in [json!(["result", 1]), json!(["result", 1, "status"]), json!(null), json!(["result"])] {
            let body = json!({"data":{"result":[job("a", "DELIVERED"), null]},
                "errors":[error(message, &path, &json!({}))]});
            let seen = states(read(&["a", "b"], &body));
            assert_eq!(seen, [Ok(JobState::Succeeded), Err(JobFault::Forbidden)], "{message} at {path}");
        }
    }
}

#[test]
fn error_at_the_jobs_own_position_precedes_one_without_a_position() {
    let body = json!({"data":{"result":[job("a", "DELIVERED"), null]},
        "errors":[{"message":"boom"}, error("Unauthorized", &json!(["result", 1]), &json!({}))]});
    let seen = states(read(&["a", "b"], &body));
    assert_eq!(seen, [Ok(JobState::Succeeded), Err(JobFault::Forbidden)]);
}

#[test]
fn refusal_with_a_position_forbids_that_job_alone_whatever_else_was_polled() {
    for message in ["Unauthorized", "Forbidden"] {
        let refused = |position: usize| error(message, &json!(["result", position]), &json!({}));
        for result in [json!([null, null]), json!([])] {
            let body = json!({"data":{"result":result}, "errors":[refused(0), refused(1)]});
            let forbidden = [Err(JobFault::Forbidden), Err(JobFault::Forbidden)];
            assert_eq!(states(read(&["a", "b"], &body)), forbidden, "{body}");
        }
        // A null in a list of jobs that are never null spreads to the whole data.
        for data in [json!({"result":[null]}), json!({"result":null}), json!(null)] {
            let alone = json!({"data":data, "errors":[refused(0)]});
            assert_eq!(states(read(&["a"], &alone)), [Err(JobFault::Forbidden)], "{alone}");
        }
        // Nothing is said of the other job, so the batch has to be split.
        let whole = json!({"data":null, "errors":[refused(1)]});
        assert_eq!(read(&["a", "b"], &whole), Err(FaultKind::Forbidden.into()), "{whole}");
    }
}

#[test]
fn refusal_without_a_position_and_without_data_concerns_the_backend() {
    for (message, kind) in
        [("Unauthorized", FaultKind::CredentialsRejected), ("Forbidden", FaultKind::Forbidden)]
    {
        for path in [json!(null), json!(["result"])] {
            for data in [json!({"result":[null]}), json!({"result":[]}), json!(null)] {
                let at_a_job = error("Unauthorized", &json!(["result", 0]), &json!({}));
                let body = json!({"data":data, "errors":[at_a_job, error(message, &path, &json!({}))]});
                assert_eq!(read(&["a"], &body), Err(kind.clone().into()), "{body}");
            }
        }
    }
}

#[test]
fn error_whose_job_cannot_be_told_leaves_no_job_called_missing() {
    for (result, path) in [
        (json!([job("b", "DELIVERED"), null, null]), json!(["result", 1])),
        (json!([job("b", "DELIVERED"), null]), json!(["result", 1])),
        (json!([job("b", "DELIVERED")]), json!(["result", 7])),
        (json!([null, job("b", "DELIVERED"), null]), json!(["result"])),
        (json!([null, job("b", "DELIVERED"), null]), json!(null)),
        (json!([null, job("b", "DELIVERED"), null]), json!(["result", "x"])),
    ] {
        let body = json!({"data":{"result":result},"errors":[error("boom", &path, &json!({}))]});
        let expected = [Err(UNEXPLAINED), Ok(JobState::Succeeded), Err(UNEXPLAINED)];
        assert_eq!(states(read(&["a", "b", "c"], &body)), expected, "{body}");
    }
}

#[test]
fn no_data_and_no_errors_is_malformed() {
    let malformed = |why| Err(BackendFault::from(FaultKind::Malformed { why }));
    for body in
        ["{}", r#"{"data":null}"#, r#"{"data":{"result":null},"errors":[]}"#, r#"{"data":{"result":{}}}"#]
    {
        assert_eq!(read_at(200, &["a"], body), malformed("no list of jobs"), "{body}");
    }
    for body in ["", "null", "[]", "[{},[]]", "{", r#"{"data":null,"data":null}"#] {
        assert_eq!(read_at(200, &["a"], body), malformed("not a GraphQL response"), "{body}");
    }
    let invalid_utf8 = answer(200, b"{\"data\":{\"result\":[{\"id\":\"a\xff\"}]}}".as_slice());
    assert_eq!(observations(&adapter(), &jobs(&["a"]), &invalid_utf8), malformed("not a GraphQL response"));
    let html = Response::builder().header("Content-Type", "text/html").body("<html>".into()).unwrap();
    assert_eq!(observations(&adapter(), &jobs(&["a"]), &html), malformed("it is a page in HTML, not JSON"));
}

#[test]
fn http_status_decides_before_the_body() {
    let good = json!({"data":{"result":[job("a", "DELIVERED")]}}).to_string();
    for body in [good.as_str(), r#"{"errors":[{"message":"x"}]}"#, "<html>"] {
        let kind = |status| read_at(status, &["a"], body).unwrap_err().kind;
        assert_eq!(kind(401), FaultKind::CredentialsRejected);
        assert_eq!(kind(403), FaultKind::Forbidden);
        assert!(matches!(kind(429), FaultKind::Throttled));
        assert!(matches!(kind(500), FaultKind::Unavailable { .. }));
    }
    for body in [good.as_str(), "", "<html>"] {
        let fault = read_at(404, &["a"], body).unwrap_err();
        let rejected = FaultKind::Rejected { message: "HTTP 404".into() };
        assert_eq!(fault, rejected.with_status(StatusCode::NOT_FOUND));
    }
}

/// JSON that looks enough like an answer to reach the inner rules.
fn soup() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("1e999".to_owned()),
        Just(r#""\ud800""#.to_owned()),
        "-?[1-9][0-9]{0,20}",
        r#""(a|b|DELIVERED|FAILED|Unauthorized|result|Job not found)""#,
    ];
    let key = "(data|result|errors|id|status|progress|stack|args|message|path|extensions|createdAt)";
    leaf.prop_recursive(5, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|list| format!("[{}]", list.join(","))),
            prop::collection::vec((key, inner.clone()), 0..8).prop_map(|fields| {
                let fields: Vec<String> =
                    fields.into_iter().map(|(key, value)| format!("{key:?}:{value}")).collect();
                format!("{{{}}}", fields.join(","))
            }),
            (inner.clone(), inner.clone()).prop_map(|(status, any)| format!(
                r#"{{"id":"a","status":{status},"result":{any},"errors":{any},"createdAt":{any}}}"#
            )),
            (prop::collection::vec(inner.clone(), 0..4), inner).prop_map(|(list, errors)| format!(
                r#"{{"data":{{"result":[{}]}},"errors":{errors}}}"#,
                list.join(",")
            )),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes_at_any_status_give_an_answer_for_each_job_or_one_fault(
        status in 100_u16..1000,
        body in prop_oneof![prop::collection::vec(any::<u8>(), 0..200), soup().prop_map(String::into_bytes)],
        ids in prop::collection::vec(prop_oneof![Just("a"), Just("b"), Just("c")], 0..4),
    ) {
        for status in [status, 200] {
            if let Ok(answers) = observations(&adapter(), &jobs(&ids), &answer(status, body.clone())) {
                prop_assert_eq!(answers.len(), ids.len());
            }
        }
    }

    #[test]
    fn in_any_order_every_job_gets_its_own_element(
        ids in prop::collection::btree_set("\\PC{1,20}", 1..20),
        numbers in prop::collection::vec(any::<i64>(), 20),
        seed in any::<prop::sample::Index>(),
    ) {
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let elements: Vec<String> = ids
            .iter()
            .zip(&numbers)
            .map(|(id, number)| format!(r#"{{"id":{},"status":"DELIVERED","result":{number}}}"#, json!(id)))
            .collect();
        let mut shuffled = elements.clone();
        shuffled.rotate_left(seed.index(ids.len()));
        let body = format!(r#"{{"data":{{"result":[{}]}}}}"#, shuffled.join(","));
        let answers = read_at(200, &ids, &body).unwrap();
        for ((answer, element), number) in answers.into_iter().zip(elements).zip(numbers) {
            let observation = answer.unwrap();
            prop_assert_eq!(observation.vendor_payload, element);
            prop_assert_eq!(observation.result.unwrap().data, number.to_string());
        }
    }
}
