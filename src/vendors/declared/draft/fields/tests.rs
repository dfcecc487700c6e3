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
}

#[test]
fn result_is_an_output_and_no_location() {
    is(r#"{"output": {"rows": 4}}"#, "result", "{ at = \"job.output\", in = [\"SUCCEEDED\"] }");
    is(r#"{"result": null}"#, "result", "{ at = \"job.result\", in = [\"SUCCEEDED\"] }");
    none(r#"{"output": ["https://files.example/a.png"]}"#, "result");
    let body = r#"{"output": ["https://files.example/a.png?sig=x"], "result_url": "https://f.example/x/y.csv?Expires=1",
        "download_url": null, "self": "https://x.example/7"}"#;
    let file = |path: &str, name: &str| (path.to_owned(), name.to_owned());
    assert_eq!(
        fields(body).files,
        [
            file("job.output", "output.png"),
            file("job.result_url", "result.csv"),
            file("job.download_url", "download")
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
