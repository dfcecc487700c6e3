//! Jobs and outputs that stand in texts: JSON within JSON, and bytes.

use bytes::Bytes;

use super::{
    definitions::{GOOD, problems},
    *,
};
use crate::{
    job::{ContentType, FaultKind, JobFault, JobState, Observation, PayloadHash},
    vendors::{
        Observations,
        conformance::{html, jobs, json},
        observations,
    },
};

const DEFINITION: &str = r#"
format = 1
name = "t"
version = "1.0.0"
title = "T"
docs = "d"
[id]
pattern = "{a}"
[credentials.none]
[request]
path = "/j/{{ id.a }}"
[answer]
job = "body.text | json"
[status]
id = "job.id"
word = "job.s"
result = "job.out"
error = { message = "job.why.text", details = "job.why", when = "job.why.text", in = ["FAILED"] }
[states]
RUNNING = ["run"]
SUCCEEDED = ["ok"]
FAILED = ["bad"]
[[faults]]
status = 404
is = "not_found"
[[faults]]
when = "body.code != 0"
is = "malformed"
"#;

/// The adapter of the definition with one text in place of another.
fn adapter(from: &str, to: &str) -> Declared {
    assert!(DEFINITION.contains(from), "{from}");
    declared(&DEFINITION.replace(from, to), "https://t.example", "")
}

fn whole() -> Declared {
    adapter("", "")
}

/// A record in a text, in the answer around it.
fn wrapped(record: &str) -> String {
    format!(r#"{{"code": 0, "text": {}}}"#, serde_json::to_string(record).unwrap())
}

fn read(adapter: &Declared, body: &str) -> Observations {
    let response = json(200, body.to_owned());
    let jobs = jobs(&["7"]);
    let elements = adapter.split(&jobs, &response)?;
    Ok(elements.as_slice().iter().map(|element| adapter.observe(&jobs[0], &element.clone()?)).collect())
}

fn seen(adapter: &Declared, body: &str) -> Observation {
    read(adapter, body).unwrap().pop().unwrap().unwrap()
}

fn why(adapter: &Declared, body: &str) -> &'static str {
    match read(adapter, body).unwrap().pop().unwrap() {
        Err(JobFault::Malformed { why }) => why,
        other => panic!("{body}: {other:?}"),
    }
}

#[test]
fn job_in_a_text_is_unescaped_once_and_keeps_every_byte() {
    let record = r#"{"id": 7, "s": "ok", "n": 9007199254740993, "out": {"a":  1.10, "t": "\u00e4\\n\"q\""}}"#;
    let seen = seen(&whole(), &wrapped(&format!(" {record}\n")));
    assert_eq!((seen.state, seen.vendor_state.as_str()), (JobState::Succeeded, "ok"));
    assert_eq!(seen.vendor_payload, record);
    assert_eq!(seen.result.unwrap().data, r#"{"a":  1.10, "t": "\u00e4\\n\"q\""}"#);
}

#[test]
fn job_that_is_not_in_a_text_is_read_as_it_is() {
    let record = r#"{"id": 7, "s": "bad", "why": {"text": "boom"}}"#;
    let plain = format!(r#"{{"code": 0, "text": {record} }}"#);
    let seen = seen(&whole(), &plain);
    assert_eq!(seen.vendor_payload, record);
    assert_eq!(seen.error.unwrap().details, r#"{"text": "boom"}"#);
    assert_eq!(whole().read(&jobs(&["7"])[0], &Bytes::from(record)).unwrap().state, JobState::Failed);
}

#[test]
fn element_of_a_job_in_a_text_is_a_part_of_the_answer() {
    let (jobs, body) = (jobs(&["7"]), wrapped(r#"{"id": 7, "s": "run"}"#));
    // Holds the element to be no copy.
    let observed = observations(&whole(), &jobs, &json(200, body.clone())).unwrap();
    assert_eq!(observed[0].as_ref().unwrap().state, JobState::Running);
    let hash = |body: String| {
        let elements = whole().split(&jobs, &json(200, body)).unwrap();
        PayloadHash::of(elements.as_slice()[0].as_ref().unwrap())
    };
    // What changes around the record is no change of it.
    assert_eq!(hash(body.clone()), hash(body.replacen('{', r#"{"request_id": 2, "#, 1)));
    assert_ne!(hash(body.clone()), hash(body.replace("run", "ok")));
}

#[test]
fn text_that_holds_no_job_is_malformed_for_the_job() {
    const NO_JOB: &str = "no job in JSON where the definition says";
    for text in ["7", "true"] {
        assert_eq!(why(&whole(), &format!(r#"{{"code": 0, "text": {text}}}"#)), "not an object", "{text}");
    }
    for body in [r#"{"code": 0}"#, r#"{"code": 0, "text": null}"#, r#"{"code": 0, "text": "\ud800"}"#] {
        assert_eq!(why(&whole(), body), NO_JOB, "{body}");
    }
    for record in ["null", "[]", "7", "\"{}\""] {
        assert_eq!(why(&whole(), &wrapped(record)), "not an object", "{record}");
    }
    for record in ["", "{", "{}x", "done"] {
        assert_eq!(why(&whole(), &wrapped(record)), "the text that holds the job is no JSON", "{record}");
    }
    assert_eq!(why(&whole(), &wrapped(r#"{"id": 8, "s": "ok"}"#)), "it is about another job");
    assert_eq!(why(&whole(), &wrapped(r#"{"id": 7, "s": "ok", "s": "bad"}"#)), "a name stands twice");
    let below = adapter("\"body.text | json\"", "\"(body.text | json).job\"");
    for record in ["", "{}", r#"{"job": null}"#, "[]"] {
        assert_eq!(why(&below, &wrapped(record)), NO_JOB, "{record}");
    }
}

#[test]
fn answer_around_the_text_that_is_none_is_malformed_as_a_whole() {
    let text = r#""text": "{\"id\": 7, \"s\": \"ok\"}""#;
    let twice = format!(r#"{{"code": 0, {text}, {text}}}"#);
    for body in ["[]", "null", "7", "{", "", r#"{"code": 1}"#, r#"{"code": "\ud800"}"#, &twice] {
        let fault = read(&whole(), body).unwrap_err();
        assert!(matches!(fault.kind, FaultKind::Malformed { .. }), "{body}: {fault:?}");
    }
    // Without a rule, such as for a page.
    let fault = whole().split(&jobs(&["7"]), &html(200)).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Malformed { why: "it is a page in HTML, not JSON" });
}

#[test]
fn job_may_stand_below_what_the_text_holds() {
    let below = adapter("\"body.text | json\"", "\"(body['text'] | json).jobs[0]\"");
    let seen = seen(&below, &wrapped(r#"{"jobs": [{"id": "7",  "s": "ok"}]}"#));
    assert_eq!(seen.vendor_payload, r#"{"id": "7",  "s": "ok"}"#);
    let root = adapter("\"body.text | json\"", "\"body | json\"")
        .read(&jobs(&["7"])[0], &Bytes::from(serde_json::to_string(r#"{"id": 7, "s": "run"}"#).unwrap()));
    assert_eq!(root.unwrap().state, JobState::Running);
}

#[test]
fn job_in_a_text_is_read_beside_the_answer_around_it() {
    for (from, to) in [
        ("word = \"job.s\"", "word = \"job.s\"\nowner = \"body.by\""),
        ("word = \"job.s\"", "word = \"job.s\"\nowner = \"body.by if http.status == 200\""),
        ("\"body.text | json\"", "\"(body.text | json).job\"\n[status]\nowner = \"body.by\""),
    ] {
        let is_below = to.contains(").job");
        let adapter =
            if is_below { adapter("\"body.text | json\"\n[status]", to) } else { adapter(from, to) };
        let record = r#"{"id": 7, "s": "ok", "n": 1.0}"#;
        let inner = if is_below { format!(r#"{{"job": {record}}}"#) } else { record.to_owned() };
        let body = wrapped(&inner).replacen('{', r#"{"by": "ana", "#, 1);
        let seen = seen(&adapter, &body);
        assert_eq!((seen.owner.as_str(), seen.state), ("ana", JobState::Succeeded), "{to}");
        assert_eq!(seen.vendor_payload, record, "{to}");
    }
}

#[test]
fn jobs_of_a_batch_may_stand_in_a_text() {
    let batch = |jobs: &str| {
        let keys = format!(
            "[batch]\npath = \"/j\"\nquery = {{ ids = \"{{{{ ids | map(attribute='a') | join(',') }}}}\" }}\n{jobs}"
        );
        let text = DEFINITION.replace("[answer]\njob = \"body.text | json\"", &keys);
        declared(&text, "https://t.example", "")
    };
    let read = |adapter: &Declared, record: &str| {
        let jobs = jobs(&["7", "8", "9"]);
        let elements = adapter.split(&jobs, &json(200, wrapped(record)))?;
        let read = |(job, element): (_, &Result<Bytes, JobFault>)| {
            adapter.observe(job, element.as_ref().map_err(Clone::clone)?)
        };
        let seen: Vec<_> = jobs.iter().zip(elements.as_slice()).map(read).collect();
        Ok::<_, crate::job::BackendFault>(seen)
    };
    let (one, two) = (r#"{"id": 7, "s": "ok",  "n": 1.10}"#, r#"{"id": "8", "s": "run"}"#);
    for (keys, record) in [
        ("jobs = \"body.text | json\"", format!("[{two}, {one}]")),
        ("jobs = \"(body.text | json).items\"", format!(r#"{{"items": [{one}, {two}]}}"#)),
        ("jobs = \"body.text | json\"\nby_id = true", format!(r#"{{"8": {two}, "7": {one}}}"#)),
        (
            "jobs = \"(body.text | json).by\"\nby_id = true",
            format!(r#"{{"by": {{"7": {one}, "8": {two}}}}}"#),
        ),
    ] {
        let seen = read(&batch(keys), &record).unwrap();
        assert_eq!(seen[0].as_ref().unwrap().vendor_payload, one, "{keys}");
        assert_eq!(seen[1].as_ref().unwrap().state, JobState::Running, "{keys}");
        assert_eq!(seen[2], Err(JobFault::NotFound), "{keys}");
        for record in ["", "7", "\"[]\"", "{", "null"] {
            let fault = read(&batch(keys), record).unwrap_err();
            assert_eq!(
                fault.kind,
                FaultKind::Malformed { why: "no jobs where the definition says" },
                "{keys}: {record}"
            );
        }
    }
}

#[test]
fn deeply_nested_and_long_texts_are_read_like_any() {
    let deep = format!(r#"{{"id": 7, "s": "run", "x": {}1{}}}"#, "[".repeat(50_000), "]".repeat(50_000));
    assert_eq!(seen(&whole(), &wrapped(&deep)).vendor_payload, deep);
    let long = format!(r#"{{"id": 7, "s": "ok", "out": "{}"}}"#, "\u{e4}\\n".repeat(300_000));
    let result = seen(&whole(), &wrapped(&long)).result.unwrap();
    assert_eq!(result.data, "\u{e4}\n".repeat(300_000));
}

#[test]
fn output_is_that_of_the_first_rule_that_finds_one() {
    let rules = r#"[[status.result]]
at = "job.json | json"
when = "job.kind == 'json'"
[[status.result]]
at = "job.bytes | latin1"
when = "job.kind == 'bytes'"
content_type = "avro"
[[status.result]]
at = "job.b64 | base64"
content_type = "text"
in = ["SUCCEEDED"]
[[status.result]]
at = "job.b64 | base64"
content_type = "json"
in = ["FAILED"]
[states]"#;
    let text = DEFINITION.replace("result = \"job.out\"\n", "").replace("[states]", rules);
    let adapter = declared(&text, "https://t.example", "");
    let result = |state: &str, members: &str| {
        let seen = seen(&adapter, &wrapped(&format!(r#"{{"id": 7, "s": "{state}", {members}}}"#)));
        seen.result.map(|result| (result.data.to_vec(), result.content_type))
    };
    let bytes = r#""bytes": "\u0000\u00ff", "json": "{\"a\": 1.10}", "b64": "YWI=""#;
    for (state, members, expected) in [
        ("run", format!(r#""kind": "json", {bytes}"#), Some((&br#"{"a": 1.10}"#[..], ContentType::Json))),
        ("ok", format!(r#""kind": "bytes", {bytes}"#), Some((&b"\0\xff"[..], ContentType::Avro))),
        ("ok", format!(r#""kind": "x", {bytes}"#), Some((&b"ab"[..], ContentType::Text))),
        ("bad", r#""b64": "e30=""#.to_owned(), Some((&b"{}"[..], ContentType::Json))),
        // The next rule, where one finds nothing.
        (
            "ok",
            r#""kind": "json", "json": "", "b64": "YWI=""#.to_owned(),
            Some((&b"ab"[..], ContentType::Text)),
        ),
        (
            "ok",
            r#""kind": "json", "json": {}, "b64": "YWI=""#.to_owned(),
            Some((&b"ab"[..], ContentType::Text)),
        ),
        // Neither a text of bytes, nor one in base64, nor one in UTF-8.
        ("ok", r#""kind": "bytes", "bytes": "\u0100""#.to_owned(), None),
        ("ok", r#""b64": "Y""#.to_owned(), None),
        ("ok", r#""b64": "/w==""#.to_owned(), None),
        ("run", r#""b64": "YWI=""#.to_owned(), None),
    ] {
        let expected = expected.map(|(data, kind)| (data.to_vec(), kind));
        assert_eq!(result(state, &members), expected, "{state}: {members}");
    }
}

#[test]
fn text_that_is_handed_on_as_json_keeps_every_byte() {
    let adapter = adapter("result = \"job.out\"", "result = [\"job.a | json\", \"job.b\"]");
    for text in ["{", "{} {}", "NaN", "  ", "[1.0]"] {
        let record = serde_json::json!({ "id": 7, "s": "ok", "a": text, "b": "next" });
        let result = seen(&adapter, &wrapped(&record.to_string())).result.unwrap();
        assert_eq!((&*result.data, result.content_type), (text.as_bytes(), ContentType::Json), "{text:?}");
    }
}

#[test]
fn name_that_stands_twice_below_the_text_is_no_job() {
    let adapter = adapter("job = \"body.text | json\"", "job = \"(body.text | json).detail\"");
    let record = r#"{"detail": {"id": 7, "s": "run"}, "detail": {"id": 7, "s": "ok"}}"#;
    assert_eq!(why(&adapter, &wrapped(record)), "no job in JSON where the definition says");
}

#[test]
fn error_is_read_only_where_its_condition_holds() {
    let error =
        |why: &str| seen(&whole(), &wrapped(&format!(r#"{{"id": 7, "s": "bad", "why": {why}}}"#))).error;
    assert_eq!(error(r#"{"text": "boom"}"#).unwrap().message, "boom");
    for why in ["{}", "null", r#"{"text": ""}"#] {
        assert_eq!(error(why), None, "{why}");
    }
    // What can't be evaluated hides no error.
    let adapter = adapter("when = \"job.why.text\"", "when = \"job.why.text | length > 2\"");
    let error = |why: &str| {
        seen(&adapter, &wrapped(&format!(r#"{{"id": 7, "s": "bad", "why": {why}}}"#))).error.is_some()
    };
    for (why, is_there) in
        [(r#"{"text": 7}"#, true), (r#"{"text": "ab"}"#, false), (r#"{"text": "abc"}"#, true)]
    {
        assert_eq!(error(why), is_there, "{why}");
    }
}

#[test]
fn each_way_to_an_output_is_shown_to_people() {
    let rules = "result = [{ at = \"job.a | json\", when = \"job.k\" }, \"job.b\"]";
    let adapter = adapter("result = \"job.out\"", rules);
    let body = wrapped(r#"{"id": 7, "s": "ok", "a": "{}", "b": 1}"#);
    let (readings, _) = Adapter::readings(&adapter, &jobs(&["7"])[0], &json(200, body)).unwrap();
    let found = |key: &str| {
        let reading = readings.iter().find(|reading| reading.key == key).unwrap();
        (reading.from.clone(), reading.found.clone())
    };
    let unread = "not read, since when does not hold";
    assert_eq!(found("status.result[0]"), ("job.a | json".to_owned(), Some(unread.to_owned())));
    assert_eq!(found("status.result[1]"), ("job.b".to_owned(), Some("1".to_owned())));
}

#[test]
fn place_in_a_text_that_is_none_is_reported() {
    let word = "word = [\"job.s\", \"job.r\"]";
    let answer = |path: &str| format!("[answer]\njob = {path:?}\n[status]");
    let result = |rule: &str| format!("result = {rule}\n{word}");
    let reported = |from: &str, to: &str, problem: &str| {
        let found = problems(from, to);
        assert!(found.iter().any(|found| found == problem), "{to}\n{problem}\nfound {found:#?}");
    };
    for path in [
        "body.text | base64",
        "body.text | jsn",
        "body.a or body.b | json",
        "(body.text | json",
        "(body.text | json) or body",
        "job.text | json",
        "body.text | json | json",
    ] {
        reported(
            "[status]",
            &answer(path),
            "answer.job is neither a plain path from body nor one to a text that holds JSON; write one such \
             as \"body.data | json\" or \"(body.data | json).job\"",
        );
    }
    reported(
        "[status]",
        &answer("body.a or body.b"),
        "answer.job is not a plain path from body; write one such as \"body.data\"",
    );
    let batch = "[batch]\npath = \"/{{ ids | length }}\"\njobs = \"(body.x | latin1).y\"\n[status]";
    reported(
        "[status]",
        batch,
        "batch.jobs is neither a plain path from body nor one to a text that holds JSON; write one such as \
         \"body.data | json\" or \"(body.data | json).job\"",
    );
    for path in ["job.x | upper", "(job.x | json).y", "job.x or job.y | json", "body.x | json"] {
        reported(
            word,
            &result(&format!("{path:?}")),
            "status.result is neither a plain path from job nor one with json, latin1 or base64 behind it; \
             write one such as \"job.data | base64\"",
        );
    }
    for (rule, problem) in [
        ("[]", "status.result is an empty list; write where the output stands, or remove the key"),
        (
            "\"job.x | base64\"",
            "status.result has bytes, and no content_type; write a table to say which of json, text and avro they are",
        ),
        (
            "{ at = \"job.x | latin1\" }",
            "status.result.at has bytes; write content_type to say which of json, text and avro they are",
        ),
        (
            "[{ at = \"job.x | latin1\", content_type = \"auto\" }]",
            "status.result[0].content_type has bytes; write content_type to say which of json, text and avro they are",
        ),
        (
            "{ at = \"job.x\", content_type = \"avro\" }",
            "status.result.content_type is for bytes, which JSON has in a text; write latin1 or base64 behind at, such as \"job.x | base64\"",
        ),
        (
            "{ at = \"job.x\", encoding = \"base64\" }",
            "status.result.encoding is not a key here; write one of at, content_type, when, in, not_in",
        ),
        (
            "{ at = \"job.x\", when = \"jbo.x\" }",
            "status.result.when jbo is not known here; did you mean job?",
        ),
        (
            "[\"job.x\", { at = \"job.y\", in = [\"EXPIRED\"] }]",
            "status.result[1].in has states that no word of [states] is, so nothing is ever read; write one that occurs",
        ),
    ] {
        reported(word, &result(rule), problem);
    }
    reported(
        word,
        &format!("error = {{ message = \"job.e\", when = \"item.x\" }}\n{word}"),
        "status.error.when item is not known here; write job.item for a member of the job, or one of job, body, http, id, params",
    );
    let malformed = "is = \"not_found\"\n[[faults]]\nstatus = 409\nis = \"malformed\"\nmessage = \"body.m\"";
    reported(
        "is = \"not_found\"",
        malformed,
        "faults[1].message has no effect beside is = \"malformed\": callers see the gateway's own words; remove it",
    );
    assert!(GOOD.contains(word));
}
