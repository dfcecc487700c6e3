use http::{HeaderMap, Method};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    job::{FaultKind, Progress},
    vendors::observations,
};

mod binary;
mod standby;

pub(crate) use binary::in_binary;

fn base_url() -> BaseUrl {
    "https://host:8082/gpudb-0".parse().unwrap()
}

fn adapter() -> Kinetica {
    Kinetica::new(base_url(), Encoding::Json)
}

fn binary() -> Kinetica {
    Kinetica::new(base_url(), Encoding::Binary)
}

fn job() -> JobRef {
    JobRef::new("db", "7")
}

fn answer(status: u16, content_type: &str, body: impl Into<Bytes>) -> Response<Bytes> {
    Response::builder().status(status).header("Content-Type", content_type).body(body.into()).unwrap()
}

fn read(response: &Response<Bytes>) -> Result<Result<Observation, JobFault>, BackendFault> {
    observations(&adapter(), &[job()], response).map(|mut answers| answers.pop().unwrap())
}

/// The wrapper around a record, as the server writes it.
fn wrapped(record: &str) -> String {
    let record = serde_json::to_string(record).unwrap();
    format!(r#"{{"status":"OK","message":"","data_type":"get_job_response","data":"","data_str":{record}}}"#)
}

fn read_record(record: &str) -> Result<Observation, JobFault> {
    read(&answer(200, "application/json", wrapped(record))).unwrap()
}

fn read_with(fields: &Value) -> Result<Observation, JobFault> {
    read_record(&fields.to_string())
}

fn refusal(status: u16, message: &str) -> Result<JobFault, BackendFault> {
    let body = json!({"status":"ERROR","message":message,"data_type":"none","data":"","data_str":""});
    read(&answer(status, "application/json", body.to_string())).map(Result::unwrap_err)
}

fn malformed(why: &'static str) -> BackendFault {
    FaultKind::Malformed { why }.into()
}

#[test]
fn request_has_the_schemas_fields_in_order_and_a_bare_number() {
    for (id, tag, body) in [
        ("4611686018427387907", None, r#"{"job_id":4611686018427387907,"options":{}}"#),
        ("9007199254740993", Some("t1"), r#"{"job_id":9007199254740993,"options":{"job_tag":"t1"}}"#),
        ("-9223372036854775808", None, r#"{"job_id":-9223372036854775808,"options":{}}"#),
        ("9223372036854775807", None, r#"{"job_id":9223372036854775807,"options":{}}"#),
    ] {
        let job = JobRef { tag: tag.map(Into::into), ..JobRef::new("db", id) };
        adapter().check(&job).unwrap();
        let request = adapter().request(&[job]);
        assert_eq!(request.method(), Method::POST);
        assert_eq!(request.uri(), "https://host:8082/gpudb-0/get/job");
        assert_eq!(request.headers()["content-type"], "application/json");
        assert_eq!(request.headers()["accept"], "application/json");
        assert_eq!(request.body(), body);
    }
}

#[test]
fn job_id_is_a_canonical_64_bit_integer() {
    for id in ["0", "-1", "7", "9223372036854775807", "-9223372036854775808"] {
        adapter().check(&JobRef::new("db", id)).unwrap();
    }
    for id in ["", "-", "-0", "+7", "07", " 7", "7 ", "7.0", "1e3", "0x7", "٧", "9223372036854775808"] {
        let error = adapter().check(&JobRef::new("db", id)).unwrap_err();
        assert_eq!(error.field, "job_id", "{id}");
        assert!(error.reason.contains("64-bit integer"));
    }
}

#[test]
fn job_tag_is_letters_digits_underscores_and_hyphens() {
    let long = "t".repeat(512);
    for tag in ["t", "Tag_2-b", &long] {
        adapter().check(&job().with_tag(tag)).unwrap();
    }
    let too_long = "t".repeat(513);
    for tag in ["", "a b", "a.b", "ä", "a\n", &too_long] {
        assert_eq!(adapter().check(&job().with_tag(tag)).unwrap_err().field, "job_tag", "{tag}");
    }
}

#[test]
fn recorded_response_is_read_without_loss() {
    let body = r#"{"status":"OK","message":"","data_type":"get_job_response","data":"","data_str":"{\"endpoint\":\"/alter/table\",\"job_status\":\"DONE\",\"running\":false,\"progress\":100,\"successful\":true,\"response_encoding\":\"json\",\"job_response\":\"\",\"job_response_str\":\"{\\\"table_name\\\":\\\"t\\\",\\\"value\\\":\\\"\\\\\\\"q\\\\\\\"\\\",\\\"info\\\":{}}\",\"status_map\":{},\"info\":{\"job_tag\":\"tag-2\"}}"}"#;
    let observation = read(&answer(200, "application/json", body)).unwrap().unwrap();
    let expected = Observation {
        progress: Some(Progress { percent: Some(100.0), ..Progress::default() }),
        result: Some(JobResult {
            data: r#"{"table_name":"t","value":"\"q\"","info":{}}"#.into(),
            content_type: ContentType::Json,
        }),
        job_type: "/alter/table".into(),
        vendor_payload: r#"{"endpoint":"/alter/table","job_status":"DONE","running":false,"progress":100,"successful":true,"response_encoding":"json","job_response":"","job_response_str":"{\"table_name\":\"t\",\"value\":\"\\\"q\\\"\",\"info\":{}}","status_map":{},"info":{"job_tag":"tag-2"}}"#.into(),
        ..Observation::new(JobState::Succeeded, "DONE")
    };
    assert_eq!(observation, expected);
}

#[test]
fn every_word_has_its_state() {
    for (word, running, state) in [
        ("RUNNING", json!(true), JobState::Running),
        ("DONE", json!(false), JobState::Succeeded),
        ("ERROR", json!(false), JobState::Failed),
        ("CANCELLED", json!(true), JobState::Cancelling),
        ("CANCELLED", json!(false), JobState::Cancelled),
        ("CANCELLED", json!(null), JobState::Cancelled),
        ("done", json!(false), JobState::Unknown),
        ("", json!(false), JobState::Unknown),
        ("QUEUED", json!(true), JobState::Unknown),
    ] {
        let observation = read_with(&json!({"job_status": word, "running": running})).unwrap();
        assert_eq!((observation.state, observation.vendor_state.as_str()), (state, word));
    }
    assert_eq!(read_record(r#"{"job_status":"CANCELLED"}"#).unwrap().state, JobState::Cancelled);
}

#[test]
fn completion_is_read_from_the_state_alone() {
    let record = json!({"job_status":"RUNNING","running":false,"progress":100,"successful":true,
        "response_encoding":"json","job_response_str":"{}"});
    let observation = read_with(&record).unwrap();
    assert_eq!(observation.state, JobState::Running);
    assert_eq!(observation.result, None);
}

#[test]
fn record_that_is_an_object_is_read_like_one_in_a_string() {
    let body = r#"{"status":"OK","message":"","data_type":"get_job_response","data":{"a":1},"data_str": {"job_status": "RUNNING", "n": 9007199254740993} }"#;
    let observation = read(&answer(200, "application/json", body)).unwrap().unwrap();
    assert_eq!(observation.state, JobState::Running);
    assert_eq!(observation.vendor_payload, r#"{"job_status": "RUNNING", "n": 9007199254740993}"#);
}

#[test]
fn odd_values_beside_the_state_do_not_matter() {
    let observation = read_with(&json!({"job_status":"RUNNING","running":null,"endpoint":7,"progress":"50",
        "successful":"yes","response_encoding":[],"job_response":{},"job_response_str":1,
        "status_map":"odd","info":[1],"new":{}}))
    .unwrap();
    let payload = observation.vendor_payload.clone();
    assert_eq!(
        observation,
        Observation { vendor_payload: payload, ..Observation::new(JobState::Running, "RUNNING") }
    );
}

#[test]
fn percentage_out_of_range_is_left_out() {
    for progress in [-1, 101] {
        assert_eq!(read_with(&json!({"job_status":"RUNNING","progress":progress})).unwrap().progress, None);
    }
}

#[test]
fn binary_result_is_one_byte_for_each_code_point() {
    let text: String = (0..=255_u8).map(char::from).collect();
    let record =
        json!({"job_status":"DONE","response_encoding":"binary","job_response":text,"job_response_str":""});
    let result = read_with(&record).unwrap().result.unwrap();
    assert_eq!(result.data, (0..=255).collect::<Vec<u8>>());
    assert_eq!(result.content_type, ContentType::Avro);
}

#[test]
fn result_that_is_not_as_documented_does_not_hide_the_jobs_end() {
    for (encoding, response) in
        [("binary", r#""\u0100""#), ("binary", "[1]"), ("json", r#""\ud800""#), ("json", "{}")]
    {
        let record = format!(
            r#"{{"job_status":"DONE","response_encoding":"{encoding}","job_response":{response},"job_response_str":{response}}}"#
        );
        let seen = read_record(&record).unwrap();
        assert_eq!((seen.state, seen.result), (JobState::Succeeded, None), "{record}");
        assert_eq!(seen.vendor_payload, record);
    }
}

#[test]
fn empty_field_or_an_unknown_encoding_gives_no_result() {
    for (encoding, binary, text) in [
        (json!("json"), json!("x"), json!("")),
        (json!("json"), json!("x"), json!(null)),
        (json!("binary"), json!(""), json!("{}")),
        (json!("snappy"), json!("x"), json!("{}")),
        (json!(""), json!("x"), json!("{}")),
        (json!(null), json!("x"), json!("{}")),
    ] {
        let record = json!({"job_status":"DONE","response_encoding":encoding,"job_response":binary,"job_response_str":text});
        let observation = read_with(&record).unwrap();
        assert_eq!((observation.state, observation.result), (JobState::Succeeded, None), "{record}");
    }
}

#[test]
fn failed_job_says_why() {
    let record = r#"{"job_status":"ERROR","status_map": {"error_message":"no \"t\"", "n":1} }"#;
    let error = read_record(record).unwrap().error.unwrap();
    assert_eq!(error.message, "no \"t\"");
    assert_eq!(error.details, r#"{"error_message":"no \"t\"", "n":1}"#);

    for (status_map, message) in [
        (r#"{"error_message":{"a":1}}"#, ""),
        (r#"{"other":"x"}"#, ""),
        (r#"{"error_message":"a","error_message":"b"}"#, ""),
        (r#""odd""#, ""),
    ] {
        let record = format!(r#"{{"job_status":"ERROR","status_map":{status_map}}}"#);
        let error = read_record(&record).unwrap().error.unwrap();
        assert_eq!(error, JobError { message: message.into(), details: status_map.into() });
    }
}

#[test]
fn only_a_failed_job_whose_vendor_said_why_has_an_error() {
    for record in [
        r#"{"job_status":"ERROR"}"#,
        r#"{"job_status":"ERROR","status_map":null}"#,
        r#"{"job_status":"ERROR","status_map":{ }}"#,
        r#"{"job_status":"DONE","status_map":{"error_message":"stale"}}"#,
    ] {
        assert_eq!(read_record(record).unwrap().error, None, "{record}");
    }
}

#[test]
fn record_that_cannot_be_read_is_this_jobs_fault() {
    let unreadable = Err(JobFault::Malformed { why: "it holds no job record" });
    for record in [
        "",
        "null",
        "[]",
        "{",
        "{}",
        r#"{"job_status":7}"#,
        r#"{"job_status":"\ud800"}"#,
        r#"{"job_status":"DONE","job_status":"ERROR"}"#,
        r#"{"job_status":"CANCELLED","running":"yes"}"#,
        r#"{"job_status":"DONE"} x"#,
        r#"{"job_status":"DONE","progress":NaN}"#,
        r#"["/x","DONE",true]"#,
    ] {
        assert_eq!(read_record(record), unreadable, "{record}");
    }
    for data_str in ["null", "7", "[]", r#""\ud800""#] {
        let body = format!(r#"{{"status":"OK","data_str":{data_str}}}"#);
        assert_eq!(read(&answer(200, "application/json", body)), Ok(unreadable.clone()), "{data_str}");
    }
    let body = r#"{"status":"OK","message":""}"#;
    assert_eq!(read(&answer(200, "application/json", body)), Ok(unreadable));
}

#[test]
fn a_deeply_nested_record_is_kept_whole() {
    let deep = format!(r#"{{"job_status":"RUNNING","new":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(read_record(&deep).unwrap().vendor_payload, deep);
}

#[test]
fn recorded_refusals_are_told_apart_by_their_message() {
    let object = "SqlEngine: Object '_kbi_filt_spike_test' not found (S/SDc:1513)";
    let rejected = FaultKind::Rejected { message: object.into() };
    assert_eq!(refusal(400, object), Err(rejected.clone().with_status(StatusCode::BAD_REQUEST)));
    assert_eq!(refusal(200, object), Err(rejected.into()));

    let forbidden = refusal(400, "Access denied; ok").unwrap_err();
    assert_eq!(forbidden, FaultKind::Forbidden.with_status(StatusCode::BAD_REQUEST));
    assert_eq!(refusal(200, "Insufficient credentials"), Err(FaultKind::CredentialsRejected.into()));

    for status in [200, 400] {
        assert_eq!(refusal(status, "Job id 7 not found (J/TEST:1)"), Ok(JobFault::NotFound));
    }
}

#[test]
fn cluster_that_is_going_away_is_unavailable() {
    for message in [
        "Kinetica is exiting",
        "Kinetica is offline",
        "System is offline",
        "System shutting down",
        "Unavailable: Draining HA queue",
        "system-limited-fatal",
        "Connection refused",
        "Connection reset",
        "Unexpected end of file from server",
        "Query planner is not running (S/X:1)",
        "KINETICA IS EXITING; job not found",
    ] {
        for status in [200, 400] {
            let fault = refusal(status, message).unwrap_err();
            assert!(matches!(fault.kind, FaultKind::Unavailable { .. }), "{message}");
            assert_eq!(fault.http_status, (status == 400).then_some(400));
        }
    }
}

#[test]
fn error_without_a_message_is_still_a_refusal() {
    for body in [r#"{"status":"ERROR"}"#, r#"{"status":"ERROR","message":["x"]}"#] {
        let fault = read(&answer(400, "application/json", body)).unwrap_err();
        assert_eq!(fault.kind, FaultKind::Rejected { message: "HTTP 400".into() });
    }
}

#[test]
fn http_status_decides_before_the_body() {
    let job_not_found = r#"{"status":"ERROR","message":"Job not found"}"#;
    let html = "<html>";
    for (status, body) in [(401, job_not_found), (401, html), (403, html), (404, html), (404, job_not_found)]
    {
        let fault = read(&answer(status, "text/html", body)).unwrap_err();
        assert_eq!(fault.http_status, Some(status));
        let kind = match status {
            401 => FaultKind::CredentialsRejected,
            403 => FaultKind::Forbidden,
            _ => FaultKind::Rejected { message: "there is no /get/job below base_url (HTTP 404)".into() },
        };
        assert_eq!(fault.kind, kind);
    }
    for status in [500, 502, 503, 504] {
        let fault = read(&answer(status, "application/json", job_not_found)).unwrap_err();
        assert!(matches!(fault.kind, FaultKind::Unavailable { .. }));
    }
    let throttled = read(&answer(429, "application/json", job_not_found)).unwrap_err();
    assert_eq!(throttled.kind, FaultKind::Throttled);
}

#[test]
fn page_does_not_say_that_a_job_is_missing() {
    let body = r#"{"status":"ERROR","message":"Job not found"}"#;
    assert_eq!(read(&answer(400, "application/json", body)), Ok(Err(JobFault::NotFound)));
    let fault = read(&answer(400, "text/html", body)).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Rejected { message: "Job not found".into() });
}

#[test]
fn white_space_around_a_record_is_not_part_of_it() {
    let observation = read_record(" {\"job_status\": \"RUNNING\"}\n").unwrap();
    assert_eq!(observation.vendor_payload, r#"{"job_status": "RUNNING"}"#);
}

#[test]
fn response_that_is_not_the_wrapper_is_malformed() {
    assert_eq!(read(&answer(200, "text/html", "<html>")), Err(malformed("it is a page in HTML, not JSON")));
    let missing_type = Response::new(Bytes::from("<html>"));
    assert_eq!(missing_type.headers(), &HeaderMap::new());
    assert_eq!(read(&missing_type), Err(malformed("it is a page in HTML, not JSON")));
    let twice = r#"{"status":"OK","status":"ERROR"}"#;
    for body in ["", "null", "[]", r#"["OK","","","",""]"#, "{}", r#"{"status":null}"#, twice] {
        let fault = read(&answer(200, "application/json", body)).unwrap_err();
        assert_eq!(fault, malformed("not the documented wrapper"), "{body}");
    }
    let invalid_utf8 =
        answer(200, "application/json", b"{\"status\":\"OK\",\"data_str\":\"\xff\"}".as_slice());
    assert_eq!(read(&invalid_utf8), Err(malformed("not the documented wrapper")));
    let word = answer(200, "application/json", r#"{"status":"ok"}"#);
    assert_eq!(read(&word), Err(malformed("a status other than OK and ERROR")));
}

#[test]
fn refusal_without_the_wrapper_does_not_show_its_body() {
    for body in ["<html>secret</html>", "", r#"{"status":"OK","data_str":"{\"job_status\":\"DONE\"}"}"#] {
        let fault = read(&answer(400, "text/html", body)).unwrap_err();
        let rejected = FaultKind::Rejected { message: "HTTP 400".into() };
        assert_eq!(fault, rejected.with_status(StatusCode::BAD_REQUEST));
    }
}

#[test]
fn record_is_never_another_jobs() {
    let response = answer(200, "application/json", wrapped(r#"{"job_status":"DONE"}"#));
    let answers = observations(&adapter(), &[job(), JobRef::new("db", "8")], &response).unwrap();
    assert_eq!(answers[0].as_ref().unwrap().state, JobState::Succeeded);
    assert!(matches!(answers[1], Err(JobFault::Malformed { .. })));
    assert_eq!(observations(&adapter(), &[], &response), Ok(Vec::new()));
}

/// JSON that looks enough like an answer to reach the inner rules.
fn soup() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("1e999".to_owned()),
        Just(r#""\ud800""#.to_owned()),
        "-?[1-9][0-9]{0,20}",
        "(RUNNING|DONE|ERROR|CANCELLED|OK|json|binary|Ā|ÿ|Job not found)"
            .prop_map(|word| format!("{word:?}")),
    ];
    let key = "(status|message|data_str|job_status|running|progress|response_encoding|job_response|job_response_str|status_map|error_message)";
    leaf.prop_recursive(4, 64, 10, move |inner| {
        prop_oneof![
            prop::collection::vec((key, inner.clone()), 0..10).prop_map(|fields| {
                let fields: Vec<String> =
                    fields.into_iter().map(|(key, value)| format!("{key:?}:{value}")).collect();
                format!("{{{}}}", fields.join(","))
            }),
            inner.clone().prop_map(|json| serde_json::to_string(&json).unwrap()),
            inner.clone().prop_map(|record| format!(r#"{{"status":"OK","data_str":{record}}}"#)),
            inner.prop_map(|value| format!(
                r#"{{"job_status":"DONE","response_encoding":"binary","job_response":{value},"status_map":{value}}}"#
            )),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes_at_any_status_give_one_observation_or_one_fault(
        status in 100_u16..1000,
        kind in prop_oneof![Just("application/json"), Just("text/html"), Just("")],
        body in prop_oneof![prop::collection::vec(any::<u8>(), 0..200), soup().prop_map(String::into_bytes)],
        jobs in 0_usize..3,
    ) {
        let jobs: Vec<JobRef> = (0..jobs).map(|id| JobRef::new("db", id.to_string())).collect();
        if let Ok(answers) = observations(&adapter(), &jobs, &answer(status, kind, body)) {
            prop_assert_eq!(answers.len(), jobs.len());
        }
    }

    #[test]
    fn every_64_bit_id_is_requested_exactly(id: i64) {
        let job = JobRef::new("db", id.to_string());
        adapter().check(&job).unwrap();
        let body = adapter().request(&[job]).into_body();
        prop_assert_eq!(body, format!(r#"{{"job_id":{id},"options":{{}}}}"#));
    }

    #[test]
    fn any_record_and_result_survive_unchanged(text: String, bytes: Vec<u8>) {
        let latin1: String = bytes.iter().copied().map(char::from).collect();
        for (encoding, expected) in [("json", text.as_bytes()), ("binary", &bytes[..])] {
            let record = json!({"job_status":"DONE","response_encoding":encoding,
                "job_response":latin1,"job_response_str":text}).to_string();
            let observation = read_record(&record).unwrap();
            prop_assert_eq!(&observation.vendor_payload, &record);
            let data = observation.result.map(|result| result.data).unwrap_or_default();
            prop_assert_eq!(data, expected);
        }
    }
}
