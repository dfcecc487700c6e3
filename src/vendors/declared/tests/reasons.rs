//! A case that fails says why: the cause alone, or what each field lacks.

use super::*;
use crate::vendors::declared::cases::Report;

const DEFINITION: &str = r#"
format = 1
name = "x"
version = "1.0.0"
title = "X"
docs = "https://x.example/docs"
[id]
pattern = "{job_id}"
[credentials.none]
[request]
path = "/jobs/{{ id.job_id }}"
[status]
id = "job.id"
word = "job.status"
description = "job.desc | first_line"
job_type = "job.a / job.b"
owner = "job.run.owner"
create_time = { at = "job.created", zone = "UTC" }
start_time = { at = "job.start", unit = "s", unset = 0 }
end_time = "job.end"
progress = { percent = "job.pct", completed_steps = "job.steps" }
result = { at = "job.out", not_in = ["FAILED"] }
error = { message = ["job.err", "job.why"], in = ["FAILED"], details = "job.details" }
warnings = "job.warn"
[states]
SUCCEEDED = ["done"]
FAILED = ["broken"]
[[faults]]
status = 404
is = "not_found"
[[faults]]
status = [400, 404]
content_type = "text/html"
header = "x-vendor"
is = "not_found"
[[faults]]
status = [400, 422]
says = "no_such_job"
is = "not_found"
[[files]]
each = "job.files"
when = "item.ready"
name = "{{ item.name }}"
path = "/f/{{ item.id }}"
"#;

fn run(keys: &str) -> Report {
    let definition = Arc::new(Definition::parse(DEFINITION).unwrap_or_else(|error| panic!("{error}")));
    let text = format!("[[case]]\nids = [\"7\"]\n{keys}\n");
    Cases::parse(definition, &text).unwrap_or_else(|error| panic!("{error}")).run()
}

/// The differences of the case.
fn differences(keys: &str) -> Vec<String> {
    run(keys).failed.pop().map(|(_, _, differences)| differences).unwrap_or_default()
}

/// The one difference of a job with these members, that succeeds or fails.
fn field(state: &str, members: &str, field: &str, value: &str) -> String {
    let word = if state == "FAILED" { "broken" } else { "done" };
    let keys = format!(
        "body = '{{\"id\": 7, \"status\": \"{word}\", {members}}}'\nexpect = {{ state = \"{state}\", {field} = {value} }}"
    );
    let mut differences = differences(&keys);
    assert_eq!(differences.len(), 1, "{members}: {differences:?}");
    differences.remove(0)
}

#[test]
fn absent_field_says_why() {
    for (members, name, reason) in [
        (r#""run": {}"#, "owner", "job.run has no owner"),
        (r#""x": 1"#, "owner", "job has no run"),
        (r#""run": null"#, "owner", "job.run is null"),
        (r#""run": {"owner": []}"#, "owner", "job.run.owner is a list, and a text is needed"),
        (r#""run": "x""#, "owner", "job.run is a text, which has no members"),
        (r#""x": 1"#, "vendor_url", "status.vendor_url is not declared"),
        (r#""x": 1"#, "description", "job.desc | first_line fails: job has no desc"),
        (r#""a": 1, "b": "x""#, "job_type", "job.a / job.b fails: a number is divided by a text"),
        (r#""pct": "50""#, "percent", "job.pct is \"50\", and a number without quotes is needed"),
        (r#""pct": 120"#, "percent", "job.pct is 120, and a percentage is 0 to 100"),
        (r#""steps": 1.5"#, "completed_steps", "job.steps is 1.5, and an integer is needed"),
        (r#""x": 1"#, "total_steps", "status.progress.total_steps is not declared"),
        (r#""out": null"#, "result", "job.out is null"),
        (r#""err": "e""#, "error", "error is not read of a job that is SUCCEEDED, by in or not_in"),
        (r#""warn": {}"#, "warnings", "job.warn is an object, and a text is needed"),
        (r#""x": 1"#, "files", "files[0]: job has no files"),
        (r#""files": []"#, "files", "files[0]: job.files is empty"),
        (r#""files": [{}]"#, "files", "files[0]: when is not true: item has no ready"),
        (r#""files": [{"ready": true, "name": "a"}]"#, "files", "files[0]: item has no id"),
        (r#""files": [{"ready": true, "name": "a"}]"#, "locations", "files[0]: item has no id"),
    ] {
        let value = match name {
            "percent" | "completed_steps" | "total_steps" => "50",
            "warnings" | "files" | "locations" => "[\"a\"]",
            _ => "\"a\"",
        };
        let found = field("SUCCEEDED", members, name, value);
        let expected = format!("{name} is absent, expected {value}: {reason}");
        assert!(found.starts_with(&expected), "{members}\n{found}\n{expected}");
    }
    for (members, name, reason) in [
        (r#""err": """#, "error", "job.err is empty, and job has no why"),
        (
            r#""err": {}, "why": null"#,
            "error",
            "job.err is an object, and message needs a text; write words for an object with a message, \
             and job.why is null",
        ),
        (
            r#""err": ["e"], "why": null"#,
            "error",
            "job.err is a list, and message needs a text; write each for a list, and message = \"item\" for its \
             texts, and job.why is null",
        ),
        (r#""err": "e""#, "details", "job has no details"),
        (r#""out": "x""#, "result", "result is not read of a job that is FAILED, by in or not_in"),
        (r#""warn": "w""#, "warnings", "warnings are read of a job that is SUCCEEDED, and this is FAILED"),
    ] {
        let value = if name == "warnings" { "[\"a\"]" } else { "\"a\"" };
        let found = field("FAILED", members, name, value);
        assert_eq!(found, format!("{name} is absent, expected {value}: {reason}"));
    }
}

#[test]
fn absent_time_says_what_its_rule_lacks() {
    for (members, name, reason) in [
        (
            r#""end": "2026-01-02 03:04:05""#,
            "end_time",
            "job.end is \"2026-01-02 03:04:05\", which names no zone; write zone = \"UTC\", or an offset such as \
             zone = \"+02:00\"",
        ),
        (r#""end": 1767323105"#, "end_time", "job.end is 1767323105, which has no unit; write unit = \"s\""),
        (
            r#""end": "1767323105123""#,
            "end_time",
            "job.end is \"1767323105123\", which has no unit; write unit = \"ms\"",
        ),
        (
            r#""end": "soon""#,
            "end_time",
            "job.end is \"soon\", which is no time in ISO 8601; write its format",
        ),
        (r#""end": """#, "end_time", "job.end is \"\", which is empty"),
        (
            r#""end": {}"#,
            "end_time",
            "job.end is {}, which is a list or an object, and a time is a text or a number",
        ),
        (r#""start": 0"#, "start_time", "job.start is 0, which means none, by unset"),
        (
            r#""start": 9223372036854775807"#,
            "start_time",
            "job.start is 9223372036854775807, which is out of range in its unit; write another unit",
        ),
        (r#""x": 1"#, "create_time", "job has no created"),
    ] {
        let time = "\"2026-01-02T03:04:05Z\"";
        let found = field("SUCCEEDED", members, name, time);
        assert_eq!(found, format!("{name} is absent, expected {time}: {reason}"));
    }
}

#[test]
fn state_that_is_another_one_shows_the_word() {
    let found = |word: &str| {
        let body = format!("body = '{{\"id\": 7, \"status\": \"{word}\"}}'");
        differences(&format!("{body}\nexpect = {{ state = \"SUCCEEDED\" }}")).join("\n")
    };
    for (word, text) in [
        (
            "Done",
            "\"UNSPECIFIED\", expected \"SUCCEEDED\": \"Done\" is no word of [states], which has \"done\"",
        ),
        ("paused", "\"UNSPECIFIED\", expected \"SUCCEEDED\": \"paused\" is no word of [states]"),
        ("broken", "\"FAILED\", expected \"SUCCEEDED\": \"broken\" is FAILED, by \"broken\""),
    ] {
        assert_eq!(found(word), format!("state is {text}"));
    }
    assert_eq!(found("done"), "");
}

#[test]
fn fault_is_the_only_difference_and_names_its_cause() {
    for (body, cause) in [
        (
            r#"{"id": "8", "status": "done"}"#,
            "it is about another job: status.id reads job.id, which is \"8\", and the id has \"7\"",
        ),
        (r#"{"status": "done"}"#, "status.id is absent: job has no id"),
        (
            r#"{"id": 7, "status": {}}"#,
            "status.word is no text: job.status is an object, and a text is needed",
        ),
        (r#"{"id": 7, "state": "done"}"#, "status.word is absent: job has no status"),
        ("{\"id\": 7,\n  status}", "not JSON: key must be a string at line 2 column 3"),
        ("", "not JSON: the body is empty"),
        ("[]", "no job where the definition says: body is a list, and an object is needed"),
    ] {
        let keys = format!("body = '''{body}'''\nexpect = {{ state = \"SUCCEEDED\", owner = \"ana\" }}");
        let found = differences(&keys);
        assert_eq!(found.len(), 1, "{found:?}");
        let begin = "there is the fault \"malformed\": the vendor's response";
        assert!(found[0].starts_with(begin) && found[0].ends_with(cause), "{found:?}\n{cause}");
    }
}

#[test]
fn fault_that_is_another_one_names_the_conditions_that_do_not_hold() {
    let fault = |status: u16, keys: &str| {
        let expect = "expect = { fault = \"not_found\", message = \"x\" }";
        differences(&format!("status = {status}\n{keys}\n{expect}")).join("\n")
    };
    let rejected = |why: &str| format!("fault is \"rejected\", expected \"not_found\": {why}");
    let header = "faults[1] has a header that the answer lacks, or has with another value";
    let says = "faults[2] has says, and the message does not say that the job does not exist; write when for \
                other sentences";
    let html = "headers = { content-type = \"text/html\" }\nbody = '<html>'";
    let page = "faults[0] does not take a page in HTML, which may come from a proxy; write content_type = \
                \"text/html\" in it if it is the vendor's";
    assert_eq!(fault(404, html), rejected(&format!("{page}; {header}")));
    let no = "body = '{\"message\": \"no\"}'";
    assert_eq!(fault(400, no), rejected(&format!("{header}; {says}")));
    let other = "headers = { x-vendor = \"1\" }\nbody = '{}'";
    assert_eq!(fault(400, other), rejected(&format!("faults[1] has another content_type; {says}")));
    let wait = fault(404, "headers = { retry-after = \"3\" }\nbody = '{}'");
    assert!(
        wait.contains("faults[0] leaves an answer that asks for a wait; write another condition"),
        "{wait}"
    );
    assert_eq!(
        fault(200, "body = '{\"id\": 7, \"status\": \"done\"}'"),
        "fault is absent, and the state is \"SUCCEEDED\", expected \"not_found\""
    );
}

#[test]
fn file_is_covered_by_a_case_that_expects_its_name() {
    let body = r#"body = '{"id": 7, "status": "done", "files": [{"ready": true, "name": "a", "id": 1}]}'"#;
    let is_uncovered = |expect: &str| {
        let report = run(&format!("{body}\nexpect = {{ state = \"SUCCEEDED\"{expect} }}"));
        report.uncovered.iter().any(|name| name == "files[0]")
    };
    assert!(is_uncovered(""));
    assert!(!is_uncovered(", files = [\"a\"]"));
    assert!(!is_uncovered(", locations = [\"/f/1\"]"));
}

#[test]
fn case_that_is_still_to_be_filled_in_is_named() {
    let report = run(
        "request = { target = \"/fill-in/7\" }\n[untested]\ndone = \"fill in: a case\"\nbroken = \"no example\"",
    );
    let unfinished = [
        (3, "case[0].request.target is still to be filled in: \"/fill-in/7\"".to_owned()),
        (5, "untested.\"done\" is still to be filled in: \"fill in: a case\"".to_owned()),
    ];
    assert_eq!(report.unfinished, unfinished);
    assert!(!report.is_good());
}

#[test]
fn golden_request_that_is_none_is_shown_how() {
    let definition = Arc::new(Definition::parse(DEFINITION).unwrap());
    for (request, problem) in [
        (r#""GET /jobs/7""#, " is a text; write a table, such as { method = \"GET\", target = \"/jobs/7\" }"),
        (
            r#"{ target = "/jobs/{{ id.job_id }}" }"#,
            ".target has a placeholder; write what is sent for the ids of this case",
        ),
        (r#"{ url = "/jobs/7" }"#, ".url is not a whole URL; write path and query as target"),
        (
            r#"{ target = "jobs/7" }"#,
            ".target does not begin with a slash; write path and query, such as \"/jobs/7\"",
        ),
        (r#"{ target = "https://a.example/jobs/7" }"#, ".target is a whole URL; write it as url"),
        (r#"{ method = "get" }"#, ".method is \"get\"; write GET or POST"),
        (
            r#"{ headers = { "X-A:" = "b" } }"#,
            ".headers.\"X-A:\" is no name of a header; write it without the colon: X-A",
        ),
    ] {
        let text = format!("[[case]]\nids = [\"7\"]\nrequest = {request}\n");
        let problems = Cases::parse(Arc::clone(&definition), &text).unwrap_err().problems;
        assert_eq!(problems.len(), 1, "{problems:?}");
        let found = format!("{} {}", problems[0].path, problems[0].text);
        assert!(found.starts_with(&format!("case[0].request{problem}")), "{found}");
    }
}

#[test]
fn field_with_another_value_says_where_it_is_read() {
    assert_eq!(
        differences(
            "body = '{\"id\": 7, \"status\": \"done\", \"run\": {\"owner\": \"ana\"}, \"end\": \"2026-01-02T03:04:05Z\", \"steps\": 2}'\n\
             expect = { state = \"SUCCEEDED\", vendor_state = \"ok\", owner = \"bob\", end_time = \"2026-01-02T03:04:06Z\", completed_steps = 3 }"
        ),
        [
            "vendor_state is \"done\", expected \"ok\": it is status.word, read from job.status",
            "owner is \"ana\", expected \"bob\": it is read from job.run.owner",
            "end_time is \"2026-01-02T03:04:05Z\", expected \"2026-01-02T03:04:06Z\": it is read from job.end",
            "completed_steps is 2, expected 3: it is read from job.steps",
        ]
    );
    assert_eq!(
        differences("status = 503\nexpect = { fault = \"unavailable\", message = \"busy\" }"),
        [
            "message is \"the vendor gave no usable response: it answered HTTP 503\", expected one with \"busy\""
        ]
    );
}

#[test]
fn case_that_can_not_be_right_is_refused() {
    let refused = |text: &str| {
        let definition = Arc::new(Definition::parse(DEFINITION).unwrap_or_else(|error| panic!("{error}")));
        Cases::parse(definition, text).unwrap_err().to_string()
    };
    let case = |keys: &str| format!("[[case]]\nids = [\"7\"]\n{keys}\n");
    for (text, problem) in [
        (
            case("expect = { state = \"FAILED\", fault = \"not_found\" }"),
            "case[0].expect.state stands beside fault, which leaves nothing else to read; keep one of them",
        ),
        (
            case("expect = { owner = \"ana\", fault = \"not_found\" }"),
            "case[0].expect.owner stands beside fault, which leaves nothing else to read; keep one of them",
        ),
        (
            case("expect = { state = \"FAILED\", message = \"no\" }"),
            "case[0].expect.message is what a fault has, and no fault is expected; write fault, or remove it",
        ),
        (
            case("expect = { fault = \"notfound\" }"),
            "case[0].expect.fault is no fault; write one of not_found, ",
        ),
        (case("expect = []"), "case[0].expect is empty, so nothing is tested; write a table for each id"),
        (
            "[[case]]\nids = []\nexpect = { state = \"FAILED\" }\n".to_owned(),
            "case[0].ids is empty, so nothing is tested; write the ids of the jobs",
        ),
        (
            case("name = \"a\"\nexpect = { fault = \"not_found\" }")
                + &case("name = \"a\"\nexpect = { invalid_id = \"x\" }"),
            "case[1] is named \"a\" like the one in line 1; write another name",
        ),
    ] {
        let found = refused(&text);
        assert!(found.contains(problem), "{text}\n{found}");
    }
}
