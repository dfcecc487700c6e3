//! Readings of answers, held to the observation that the gateway makes of them.

use proptest::prelude::*;

use super::*;
use crate::vendors::{conformance::json, declared::tests};

fn readings(body: &str, status: u16) -> (Vec<Reading>, bool) {
    let airflow = tests::declared(tests::shipped("airflow"), "https://v.example", "");
    let answer = json(status, body.to_owned());
    Adapter::readings(&airflow, &JobRef::new("b", "etl/a"), &answer).unwrap()
}

fn found(readings: &[Reading], key: &str) -> String {
    let reading = readings.iter().find(|reading| reading.key == key);
    let reading = reading.unwrap_or_else(|| panic!("{key}: {readings:?}"));
    format!("{} {}", reading.from, reading.found.as_deref().unwrap_or("absent"))
}

#[test]
fn each_field_is_read_from_its_path() {
    let body = r#"{"dag_id": "etl", "dag_run_id": "a", "state": "success", "end_date": "2026-01-02T03:04:05+00:00", "start_date": "soon"}"#;
    let (readings, is_understood) = readings(body, 200);
    assert!(is_understood);
    for (key, text) in [
        ("faults", " no rule applies"),
        ("status.id.dag_run_id", "job.dag_run_id \"a\""),
        ("status.word", "job.state \"success\""),
        ("status.owner", "job.triggering_user_name absent"),
        ("status.end_time", "job.end_date \"2026-01-02T03:04:05+00:00\" is 2026-01-02T03:04:05Z"),
        (
            "status.start_time",
            "job.start_date a text of the form \"aaaa\", which is no time; see unit, zone and format",
        ),
        ("status.volatile", "job.duration causes no events"),
        ("states", " \"success\" is SUCCEEDED, by \"success\""),
    ] {
        assert_eq!(found(&readings, key), text, "{key}");
    }
}

#[test]
fn unknown_word_and_faults_are_not_understood() {
    let (unknown, is_understood) =
        readings(r#"{"dag_id": "etl", "dag_run_id": "a", "state": "deferred"}"#, 200);
    assert!(!is_understood);
    assert_eq!(
        found(&unknown, "states"),
        " \"deferred\" is an unknown word, so UNSPECIFIED; add it to [states]"
    );
    let (missing, is_understood) = readings(r#"{"detail": "the run was not found"}"#, 404);
    assert!(!is_understood);
    assert!(missing[0].key.starts_with("faults["), "{missing:?}");
    assert_eq!(missing[0].found.as_deref(), Some("applies: not_found"));
    assert_eq!(found(&missing, "answer"), " a fault: the vendor does not know this job");
    let (other, _) = readings(r#"{"dag_id": "etl", "dag_run_id": "b", "state": "success"}"#, 200);
    assert!(found(&other, "answer").ends_with("it is about another job"));
}

/// Every field, each from a member of its name.
const EVERY_FIELD: &str = r#"
format = 1
name = "every-field"
version = "1.0.0"
title = "Example"
docs = "https://api.example/docs"
[id]
pattern = "{job_id}"
[credentials.none]
[request]
path = "/jobs/{{ id.job_id }}"
[status]
id = "job.id"
word = "job.word"
vendor_state = "job.vendor_state"
job_type = "job.job_type"
description = "job.description"
owner = "job.owner"
vendor_url = "job.vendor_url"
end_time = "job.end_time"
start_time = { at = "job.start_time", unit = "s" }
result = { at = "job.result", content_type = "text", in = ["SUCCEEDED"] }
error = { message = ["job.error", "job.reason"], in = ["FAILED"] }
warnings = ["job.warning", "job.warnings"]
[status.progress]
percent = "job.percent"
completed_steps = "job.completed_steps"
total_steps = "job.total_steps"
current_step = "job.current_step"
[states]
RUNNING = ["working"]
SUCCEEDED = ["done", 20]
FAILED = ["broken"]
[[faults]]
status = 404
is = "not_found"
[[files]]
in = ["SUCCEEDED"]
each = "job.file"
name = "a.csv"
path = "/files/{{ item }}"
"#;

fn every_field(members: &str, word: &str) -> (Vec<Reading>, Option<crate::job::Observation>) {
    let declared = tests::declared(EVERY_FIELD, "https://v.example", "");
    let job = JobRef::new("b", "j-1");
    let body = format!("{{\"id\": \"j-1\", \"word\": {word}{members}}}");
    let answer = json(200, body);
    let (readings, _) = Adapter::readings(&declared, &job, &answer).unwrap();
    let elements = declared.split(std::slice::from_ref(&job), &answer).unwrap();
    let seen = elements.as_slice()[0].as_ref().ok().and_then(|element| declared.observe(&job, element).ok());
    (readings, seen)
}

#[test]
fn value_of_a_type_that_is_not_taken_is_described_and_not_shown() {
    let members = r#", "description": {"hush": 1}, "owner": true, "job_type": ["hush"], "percent": "50",
        "total_steps": 1.5, "current_step": null, "vendor_url": 7, "warning": {"a": "hush"}, "end_time": "31.12.2026 hush",
        "start_time": ["hush"], "error": {"message": "hush"}, "reason": "no", "file": {"hush": 1}, "result": {"hush": 1}"#;
    let (failed, seen) = every_field(members, "\"broken\"");
    for (key, text) in [
        ("status.word", "job.word \"broken\""),
        ("status.description", "job.description an object; a text is expected"),
        ("status.owner", "job.owner true or false; a text or a whole number is expected"),
        ("status.job_type", "job.job_type a list; a text is expected"),
        ("status.vendor_url", "job.vendor_url \"7\""),
        ("status.progress.percent", "job.percent a text; a number from 0 to 100 is expected"),
        (
            "status.progress.total_steps",
            "job.total_steps a number with a fraction or an exponent; a whole number is expected",
        ),
        ("status.progress.current_step", "job.current_step absent"),
        ("status.error.message[0]", "job.error an object; a text is expected"),
        ("status.error.message[1]", "job.reason \"no\""),
        ("status.warnings[0]", "job.warning not read in FAILED"),
        ("status.result", "job.result not read in FAILED"),
        (
            "status.end_time",
            "job.end_time a text of the form \"99.99.9999 aaaa\", which is no time; see unit, zone and format",
        ),
        ("status.start_time", "job.start_time a list; a time is expected"),
        ("files[0]", " not read in FAILED"),
    ] {
        assert_eq!(found(&failed, key), text, "{key}");
    }
    assert_eq!(seen.unwrap().error.unwrap().message, "no");
    let (done, _) = every_field(members, "20");
    for (key, text) in [
        ("status.word", "job.word \"20\""),
        ("status.error.message[0]", "job.error not read in SUCCEEDED"),
        ("status.warnings[0]", "job.warning an object; a text, or a list of texts, is expected"),
        ("status.result", "job.result an object; a text is expected"),
        ("files[0]", " no file: each, when, or a part of its name or location is absent"),
    ] {
        assert_eq!(found(&done, key), text, "{key}");
    }
    let (odd, seen) = every_field(r#", "warning": ["a", 1, ""], "file": 7"#, "{\"hush\": 1}");
    assert_eq!(found(&odd, "status.word"), "job.word an object; a text is expected");
    assert_eq!(
        found(&odd, "states"),
        " no word: the vendor's response about this job can't be understood: status.word is no text"
    );
    assert!(seen.is_none());
    for reading in failed.iter().chain(&done).chain(&odd) {
        assert!(!format!("{reading:?}").contains("hush"), "{reading:?}");
    }
    let (warned, _) = every_field(r#", "warning": ["a", 1, ""], "file": 7"#, "\"done\"");
    assert_eq!(found(&warned, "status.warnings[0]"), "job.warning [\"a\"]");
    assert_eq!(found(&warned, "files"), " a.csv at /files/7");
}

#[test]
fn result_that_is_found_whole_error_and_usual_meaning_are_shown() {
    let definition = EVERY_FIELD
        .replace(
            "result = { at = \"job.result\", content_type = \"text\", in = [\"SUCCEEDED\"] }",
            "result = [{ at = \"job.a | base64\", content_type = \"text\" }, { at = \"job.b\" }, { at = \"job.c\" }]",
        )
        .replace("[\"job.error\", \"job.reason\"], in", "\"job.error\", whole = true, in")
        .replace("{ message = \"job.error\"", "{ words = \"job.error\"");
    let declared = tests::declared(&definition, "https://v.example", "");
    let read = |status: u16, body: &str| {
        Adapter::readings(&declared, &JobRef::new("b", "j-1"), &json(status, body.to_owned())).unwrap().0
    };
    let done = read(200, r#"{"id": "j-1", "word": "done", "a": "%", "b": {"x": 1}, "c": 2}"#);
    assert_eq!(found(&done, "status.result[0]"), "job.a | base64 a text that is no base64");
    assert_eq!(found(&done, "status.result[1]"), "job.b {\"x\": 1}");
    assert_eq!(found(&done, "status.result[2]"), "job.c not read, since result[1] is found");
    assert_eq!(found(&done, "status.error.whole"), " not read in SUCCEEDED");
    let broken = read(200, r#"{"id": "j-1", "word": "broken", "error": {"message": "no", "code": 7}}"#);
    assert_eq!(found(&broken, "status.error.whole"), " {\"message\": \"no\", \"code\": 7}");
    for (status, meaning) in [
        (401, "the vendor rejects the gateway's credentials"),
        (403, "the vendor forbids"),
        (429, "the vendor is throttling"),
        (503, "the vendor gave no usable response: it answered HTTP 503"),
    ] {
        let usual = read(status, "{}");
        let text = format!(" no rule applies; the usual meaning of HTTP {status} is a fault: {meaning}");
        assert!(found(&usual, "answer").starts_with(&text), "{usual:?}");
        assert!(!usual.iter().any(|reading| reading.key == "faults"), "{usual:?}");
    }
    let mut throttled = json(429, "{}".to_owned());
    throttled.headers_mut().insert("retry-after", http::HeaderValue::from_static("30"));
    let (readings, _) = Adapter::readings(&declared, &JobRef::new("b", "j-1"), &throttled).unwrap();
    assert!(found(&readings, "answer").ends_with("; it asks to wait 30 s"), "{readings:?}");
}

#[test]
fn number_is_no_message_by_a_path_or_by_an_expression() {
    for source in ["job.code", "job.code + 0", "job.code or 'x'"] {
        let definition = EVERY_FIELD
            .replace("[\"job.error\", \"job.reason\"]", &format!("{source:?}"))
            .replace("[\"job.warning\", \"job.warnings\"]", &format!("{source:?}"));
        let declared = tests::declared(&definition, "https://v.example", "");
        let job = JobRef::new("b", "j-1");
        for word in ["broken", "done"] {
            let body = format!(r#"{{"id": "j-1", "word": "{word}", "code": 7}}"#);
            let seen = declared.observe(&job, &body.clone().into()).unwrap();
            assert_eq!((seen.error, seen.warnings.len()), (None, 0), "{source}");
            let (readings, _) = Adapter::readings(&declared, &job, &json(200, body)).unwrap();
            let key = if word == "done" { "status.warnings[0]" } else { "status.error.message[0]" };
            assert!(found(&readings, key).contains("a number; a text"), "{readings:?}");
        }
    }
}

#[test]
fn expression_that_fails_says_why_and_where() {
    let definition =
        EVERY_FIELD.replace("\"job.description\"", "\"(job.a or 'x') ~ (job.count / job.name)\"");
    let declared = tests::declared(&definition, "https://v.example", "");
    let answer = json(200, r#"{"id": "j-1", "word": "done", "count": 731, "name": "hush"}"#.to_owned());
    let (readings, _) = Adapter::readings(&declared, &JobRef::new("b", "j-1"), &answer).unwrap();
    let reading = readings.iter().find(|reading| reading.key == "status.description").unwrap();
    assert_eq!(reading.found.as_deref(), Some("the expression fails: a number is divided by a text"));
    let caret = format!("{:18}^^^^^^^^^^^^^^^^^^^^", "");
    assert_eq!(reading.lines, ["(job.a or 'x') ~ (job.count / job.name)".to_owned(), caret]);
}

/// Any JSON, with texts that begin with "hush".
fn any_value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(serde_json::Value::from),
        any::<i64>().prop_map(serde_json::Value::from),
        (-200.0..200.0).prop_map(serde_json::Value::from),
        "hush[ -~]{0,6}".prop_map(serde_json::Value::from),
        Just(serde_json::Value::from(" ")),
        Just(serde_json::Value::from("2026-01-02T03:04:05Z")),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(serde_json::Value::from),
            proptest::collection::btree_map("[a-z]{1,3}|message", inner, 0..3)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_shown_is_what_the_gateway_takes(
        values in proptest::collection::vec(any_value(), 13),
        word in prop_oneof![Just("\"done\""), Just("\"broken\""), Just("\"working\""), Just("20")],
    ) {
        const NAMES: [&str; 13] = [
            "vendor_state", "job_type", "description", "owner", "vendor_url", "end_time", "start_time", "result",
            "error", "warning", "percent", "completed_steps", "current_step",
        ];
        let members: Vec<String> =
            NAMES.iter().zip(&values).map(|(name, value)| format!(", {name:?}: {value}")).collect();
        let (readings, seen) = every_field(&members.concat(), word);
        let seen = seen.unwrap();
        let shown = |key: &str| readings.iter().find(|reading| reading.key == key).unwrap().found.clone();
        let text = |key: &str| {
            let shown = shown(key).filter(|shown| shown.starts_with('"'));
            shown.map(|shown| serde_json::from_str::<String>(&shown).unwrap())
        };
        let progress = seen.progress.clone().unwrap_or_default();
        for (key, taken) in [
            ("status.job_type", &seen.job_type),
            ("status.description", &seen.description),
            ("status.owner", &seen.owner),
            ("status.vendor_url", &seen.vendor_url),
            ("status.progress.current_step", &progress.current_step),
        ] {
            prop_assert_eq!(&text(key).unwrap_or_default(), taken, "{}: {:?}", key, shown(key));
        }
        let number = |key: &str| shown(key).and_then(|shown| shown.parse::<f64>().ok());
        prop_assert_eq!(number("status.progress.percent"), progress.percent);
        let steps = shown("status.progress.completed_steps").and_then(|shown| shown.parse::<i64>().ok());
        prop_assert_eq!(steps, progress.completed_steps);
        for (key, time) in [("status.end_time", seen.end_time), ("status.start_time", seen.start_time)] {
            let found = shown(key).and_then(|shown| Some(shown.split_once(" is ")?.1.to_owned()));
            let found = found.filter(|found| found.ends_with('Z'));
            prop_assert_eq!(found, time.map(|time| time.to_string()), "{}: {:?}", key, shown(key));
        }
        let message = seen.error.map(|error| error.message);
        prop_assert_eq!(text("status.error.message[0]"), message);
        let result = seen.result.map(|result| String::from_utf8(result.data.to_vec()).unwrap());
        prop_assert_eq!(text("status.result"), result);
        let warnings = shown("status.warnings[0]").filter(|shown| shown.starts_with('['));
        let warnings: Vec<String> = warnings.map(|shown| serde_json::from_str(&shown).unwrap()).unwrap_or_default();
        prop_assert_eq!(warnings, seen.warnings);
        // What is not taken is not shown.
        for reading in &readings {
            let found = reading.found.as_deref().unwrap_or_default();
            let is_taken = found.starts_with(['"', '[']) || found.contains(" is 2");
            prop_assert!(is_taken || !found.contains("hush"), "{:?}", reading);
        }
    }
}
