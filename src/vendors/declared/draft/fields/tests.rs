use super::*;
use crate::vendors::declared::draft::tree::leaves;

fn fields(body: &str) -> Fields {
    let node = Node::parse(body).unwrap();
    find(&leaves("job", &node), &[])
}

fn value(body: &str, key: &str) -> Option<String> {
    let found = fields(body).status;
    found.into_iter().find(|guess| guess.key == key).map(|guess| guess.value)
}

#[track_caller]
fn is(body: &str, key: &str, expected: &str) {
    assert_eq!(value(body, key).as_deref(), Some(expected), "{body}");
}

#[track_caller]
fn none(body: &str, key: &str) {
    assert_eq!(value(body, key), None, "{body}");
}

#[test]
fn times_are_found_by_name_and_form() {
    is(r#"{"createdAt": "2026-01-02T03:04:05Z"}"#, "create_time", "\"job.createdAt\"");
    is(r#"{"submit_time": 1767323045}"#, "create_time", "{ at = \"job.submit_time\", unit = \"s\" }");
    is(
        r#"{"run_started_at": 1767323045000}"#,
        "start_time",
        "{ at = \"job.run_started_at\", unit = \"ms\" }",
    );
    is(r#"{"started": "2026-01-02T03:04:05"}"#, "start_time", "{ at = \"job.started\", zone = \"UTC\" }");
    is(r#"{"finished": 1767323105}"#, "end_time", "{ at = \"job.finished\", unit = \"s\" }");
    is(r#"{"times": {"end": 1767323105}}"#, "end_time", "{ at = \"job.times.end\", unit = \"s\" }");
    is(
        r#"{"attributes": {"created-at": "2026-01-02T03:04:05Z"}}"#,
        "create_time",
        "\"job.attributes['created-at']\"",
    );
    none(r#"{"updated_at": "2026-01-02T03:04:05Z", "created_by": "2026", "start": 5}"#, "create_time");
    none(r#"{"updated_at": "2026-01-02T03:04:05Z", "created_by": "2026", "start": 5}"#, "start_time");
    none(r#"{"estimated_end_time": 1767323105, "completed": 5, "completed_steps": 0}"#, "end_time");
}

#[test]
fn time_that_is_not_set_has_the_form_of_the_others() {
    let body = r#"{"start_time": 1767323045000, "end_time": 0}"#;
    is(body, "end_time", "{ at = \"job.end_time\", unit = \"ms\", unset = 0 }");
    is(
        r#"{"start_time": 1767323045, "end_time": null}"#,
        "end_time",
        "{ at = \"job.end_time\", unit = \"s\" }",
    );
    let body = r#"{"startedAt": "2026-01-02T03:04:05Z", "finishedAt": "0001-01-01T00:00:00Z"}"#;
    is(body, "end_time", "{ at = \"job.finishedAt\", unset = \"0001-01-01T00:00:00Z\" }");
    let alone = fields(r#"{"finished_at": null}"#).status;
    assert_eq!(alone[0].why, "not set here; fill in: its form");
    let each =
        r#"{"created_at": 1767323045, "completed_at": null, "failed_at": 1767323105, "expired_at": null}"#;
    is(each, "end_time", "{ at = \"job.completed_at or job.failed_at or job.expired_at\", unit = \"s\" }");
}

#[test]
fn texts_for_people_are_found_by_name() {
    let body = r#"{"name": "nightly", "type": "export", "html_url": "https://x.example/runs/7",
        "created_by": {"id": 5, "email": "ana@example.com"}, "note": ""}"#;
    is(body, "description", "\"job.name\"");
    is(body, "job_type", "\"job.type\"");
    is(body, "vendor_url", "\"job.html_url\"");
    is(body, "owner", "\"job.created_by.email\"");
    is(r#"{"urls": {"web": "https://x.example/7"}}"#, "vendor_url", "\"job.urls.web\"");
    none(r#"{"url": "https://x.example/7?Signature=a"}"#, "vendor_url");
    none(r#"{"name": "", "title": null}"#, "description");
}

#[test]
fn progress_is_percent_or_steps() {
    is(r#"{"progress": 42}"#, "progress", "{ percent = \"job.progress\" }");
    is(r#"{"progress": 0.42}"#, "progress", "{ percent = \"job.progress * 100\" }");
    is(
        r#"{"request_counts": {"total": 9, "completed": 4, "failed": 0}}"#,
        "progress",
        "{ completed_steps = \"job.request_counts.completed\", total_steps = \"job.request_counts.total\" }",
    );
    is(
        r#"{"progress": {"percent": 5, "current_step": "load"}}"#,
        "progress",
        "{ percent = \"job.progress.percent\", current_step = \"job.progress.current_step\" }",
    );
    none(r#"{"progress": "half", "total": 9}"#, "progress");
    none(r#"{"progress": 420}"#, "progress");
    let one = fields(r#"{"progress": 1}"#).status;
    assert!(one[0].why.contains("up to 100, or up to 1"), "{one:?}");
}

#[test]
fn error_is_a_text_an_object_or_a_list() {
    let ends = "in = [\"FAILED\", \"CANCELLED\", \"EXPIRED\"]";
    is(r#"{"error": "bad"}"#, "error", &format!("{{ message = \"job.error\", {ends} }}"));
    is(
        r#"{"error": {"code": 3, "message": "bad"}}"#,
        "error",
        &format!("{{ message = \"job.error.message\", details = \"job.error\", {ends} }}"),
    );
    is(
        r#"{"errors": [{"detail": "bad"}]}"#,
        "error",
        &format!("{{ each = \"job.errors\", message = \"item.detail\", details = \"job.errors\", {ends} }}"),
    );
    is(
        r#"{"errors": ["bad"]}"#,
        "error",
        &format!("{{ each = \"job.errors\", message = \"item\", details = \"job.errors\", {ends} }}"),
    );
    is(
        r#"{"state": {"state_message": "In run"}}"#,
        "error",
        &format!("{{ message = \"job.state.state_message\", {ends} }}"),
    );
    let absent = fields(r#"{"error": null}"#).status;
    assert!(absent[0].why.contains("fill in: how it looks in a job that failed"), "{absent:?}");
    none(r#"{"error": false, "errors": 0}"#, "error");
    let empty = fields(r#"{"errors": {"data": []}}"#).status;
    assert!(
        empty[0].value.starts_with("{ each = \"job.errors.data\", message = \"item.message\""),
        "{empty:?}"
    );
    assert!(empty[0].why.contains("empty here; fill in"), "{empty:?}");
}

#[test]
fn words_of_an_error_are_found_within_objects_and_lists() {
    let ends = "in = [\"FAILED\", \"CANCELLED\", \"EXPIRED\"]";
    for (body, each, message) in [
        (
            r#"{"errors": {"type": "invalid_input", "messages": ["The file", "is bad"]}}"#,
            "errors.messages",
            "item",
        ),
        (r#"{"errors": {"list": [{"text": "It is bad"}]}}"#, "errors.list", "item.text"),
        (r#"{"errors": [{"code": "bad", "message": "It is bad"}]}"#, "errors", "item.message"),
        (r#"{"errors": [{"message": "bad_file", "detail": "It is bad"}]}"#, "errors", "item.detail"),
        (r#"{"errors": [{"error": {"message": "It is bad"}}]}"#, "errors", "item.error.message"),
        (
            r#"{"error": {"code": "bad", "details": [{"description": "It is bad"}]}}"#,
            "error.details",
            "item.description",
        ),
    ] {
        let details = each.split('.').next().unwrap();
        let expected = format!(
            "{{ each = \"job.{each}\", message = {message:?}, details = \"job.{details}\", {ends} }}"
        );
        is(body, "error", &expected);
    }
    for (body, message) in [
        (r#"{"error": {"code": 3, "error": {"message": "It is bad"}}}"#, "error.error.message"),
        (r#"{"error": {"message": "bad_file", "detail": "It is bad"}}"#, "error.detail"),
        (r#"{"error": {"message": "It is bad", "errors": [{"message": "x"}]}}"#, "error.message"),
        (r#"{"error": {"code": "x", "info": "It is bad"}}"#, "error.info"),
    ] {
        let expected = format!("{{ message = \"job.{message}\", details = \"job.error\", {ends} }}");
        is(body, "error", &expected);
    }
}

#[test]
fn sentence_is_the_message_and_not_the_code_beside_it() {
    let ends = "in = [\"FAILED\", \"CANCELLED\", \"EXPIRED\"]";
    for (body, message) in [
        (r#"{"failure": "invalid_media", "failure_detail": "The file can't be decoded"}"#, "failure_detail"),
        (r#"{"failure_detail": "The file can't be decoded", "failure": "invalid_media"}"#, "failure_detail"),
        (r#"{"error": "bad_file", "error_description": "It is bad"}"#, "error_description"),
        (r#"{"error": "E42", "errorText": "It is bad"}"#, "errorText"),
        (r#"{"error": "E42", "status_message": "It is bad"}"#, "status_message"),
        (r#"{"error": "E42", "note": "It is bad"}"#, "error"),
        (r#"{"error": "It is bad", "error_detail": "It is so bad"}"#, "error"),
        (r#"{"failed_reason": "bad"}"#, "failed_reason"),
    ] {
        is(body, "error", &format!("{{ message = \"job.{message}\", {ends} }}"));
    }
}

#[test]
fn result_is_an_output_and_no_location() {
    is(r#"{"output": {"rows": 4}}"#, "result", "{ at = \"job.output\", in = [\"SUCCEEDED\"] }");
    is(r#"{"result": null}"#, "result", "{ at = \"job.result\", in = [\"SUCCEEDED\"] }");
    none(r#"{"output": ["https://files.example/a.png"]}"#, "result");
    let body = r#"{"output": ["https://files.example/a.png?sig=x"], "result_url": "https://f.example/x/y.csv?Expires=1",
        "download_url": null, "self": "https://x.example/7"}"#;
    let file = |path: &str, name: &str, origins: &[&str]| File {
        path: path.to_owned(),
        name: name.to_owned(),
        origins: origins.iter().map(|origin| (*origin).to_owned()).collect(),
    };
    assert_eq!(
        fields(body).files,
        [
            file("job.output", "output.png", &["https://files.example"]),
            file("job.result_url", "result.csv", &["https://f.example"]),
            file("job.download_url", "download", &[])
        ]
    );
}

#[test]
fn members_that_change_by_themselves_are_volatile() {
    is(
        r#"{"duration": 5, "run_duration_ms": 3, "updatedAt": "x", "metrics": {"elapsed": 3}, "id": 4,
            "result_url": "https://f.example/a?X-Amz-Signature=b", "page": "https://f.example/a?tab=b", "is_estimated": true,
            "attributes": {"updated-at": "x"}}"#,
        "volatile",
        "[\"job.duration\", \"job.run_duration_ms\", \"job.updatedAt\", \"job.metrics\", \"job.result_url\", \
         \"job.attributes.updated-at\"]",
    );
    none(r#"{"id": 1, "status": "done", "duration_is_known": true}"#, "volatile");
}

#[test]
fn duration_is_volatile_where_it_may_be_of_the_run() {
    let why = |body: &str| {
        fields(body).status.into_iter().find(|guess| guess.key == "volatile").map(|guess| guess.why)
    };
    for name in [
        "run_duration",
        "executionDuration",
        "elapsed",
        "running_time",
        "time_taken",
        "age",
        "queue_duration_ms",
    ] {
        let body = format!("{{\"{name}\": 12.5}}");
        is(&body, "volatile", &format!("[\"job.{name}\"]"));
        assert!(!why(&body).unwrap().contains("fill in"), "{name}");
    }
    for name in ["duration", "duration_seconds", "totalDuration"] {
        let body = format!("{{\"{name}\": 12.5}}");
        is(&body, "volatile", &format!("[\"job.{name}\"]"));
        let expected = format!("fill in: is job.{name} of the run? Remove it if it is the length of a file");
        assert_eq!(why(&body), Some(expected));
    }
    for body in [
        r#"{"media_duration": 12.5}"#,
        r#"{"audioDuration": 12}"#,
        r#"{"input": {"duration": 12}}"#,
        r#"{"max_duration": 12}"#,
        r#"{"run_time": 1767323045}"#,
    ] {
        none(body, "volatile");
    }
    let both = why(r#"{"duration": 12, "elapsed": 3}"#).unwrap();
    assert!(both.contains("by their names; fill in: is job.duration of the run?"), "{both}");
}
