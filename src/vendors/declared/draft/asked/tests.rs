//! Requests, and the templates that they become.

use super::*;
use crate::vendors::declared::draft::tree::{Node, leaves};

fn template(request: &str, id: &str, member: Option<&str>, body: &str) -> (Vec<String>, Template) {
    let node = Node::parse(body).unwrap();
    let (parts, template) = Asked::parse(request).unwrap().template(id, member, &leaves("job", &node));
    (parts.into_iter().map(|part| format!("{}={}", part.name, part.value)).collect(), template)
}

#[test]
fn id_in_the_path_becomes_a_value() {
    let (parts, found) =
        template("GET https://a.example:8443/v1/exports/e-1?full=1", "e-1", Some("id"), "{}");
    assert_eq!(parts, ["export_id=e-1"]);
    assert_eq!(found.origin, "https://a.example:8443");
    assert_eq!(found.path, "/v1/exports/{{ id.export_id }}");
    assert_eq!(found.query, [("full".to_owned(), Value::Literal("1".to_owned()))]);
    assert_eq!(found.target, "/v1/exports/e-1?full=1");
}

#[test]
fn id_in_the_query_becomes_a_value_and_a_secret_goes() {
    let (parts, found) =
        template("https://a.example/runs/get?run_id=77&api_key=hush", "77", Some("run_id"), "{}");
    assert_eq!(parts, ["run_id=77"]);
    assert_eq!((&*found.path, &*found.target), ("/runs/get", "/runs/get?run_id=77"));
    assert_eq!(found.query, [("run_id".to_owned(), Value::Part("run_id".to_owned()))]);
    assert_eq!(found.secret.as_deref(), Some("api_key"));
    let (_, several) = template("https://a.example/jobs?ids=77,78", "77", Some("id"), "{}");
    let (parts, _) = template("https://a.example/runs?runId=77", "77", Some("id"), "{}");
    assert_eq!(parts, ["run_id=77"]);
    assert_eq!(several.query, [("ids".to_owned(), Value::Parts("job_id".to_owned()))]);
}

#[test]
fn other_parts_of_an_id_and_accounts_are_found() {
    let body = r#"{"dag_id": "my dag", "dag_run_id": "r-1"}"#;
    let request = "GET https://a.example/api/v2/dags/my%20dag/dagRuns/r-1";
    let (parts, found) = template(request, "r-1", Some("dag_run_id"), body);
    assert_eq!(parts, ["dag_id=my dag", "dag_run_id=r-1"]);
    assert_eq!(found.path, "/api/v2/dags/{{ id.dag_id }}/dagRuns/{{ id.dag_run_id }}");
    let (same, _) = template(request, "my dag/r-1", None, "{}");
    assert_eq!(same, ["dag_id=my dag", "dag_run_id=r-1"]);

    let (parts, found) = template("https://a.example/api/accounts/12345/runs/77/", "77", Some("id"), "{}");
    assert_eq!(parts, ["run_id=77"]);
    assert_eq!(found.path, "/api/accounts/{{ params.account_id }}/runs/{{ id.run_id }}/");
    assert_eq!(found.params, [Part { name: "account_id".to_owned(), value: "12345".to_owned() }]);
    assert_eq!(Template::kind(&found.params[0]), "integer");

    let body = r#"{"metadata": {"name": "hello-x7", "namespace": "argo"}}"#;
    let request = "https://a.example/api/v1/workflows/argo/hello-x7";
    let (parts, found) = template(request, "hello-x7", Some("name"), body);
    assert_eq!(parts, ["workflow_id=hello-x7"]);
    assert_eq!(found.path, "/api/v1/workflows/{{ params.namespace }}/{{ id.workflow_id }}");
    let request = "https://a.example/v2/pipelines/web/builds/42";
    let (_, found) = template(request, "42", Some("number"), "{}");
    assert_eq!(
        (&*found.path, found.doubtful),
        ("/v2/pipelines/web/builds/{{ id.build_id }}", vec!["web".to_owned()])
    );
}

#[test]
fn id_is_guessed_from_the_request_and_the_answer() {
    let guess = |request: &str, body: &str| {
        let node = Node::parse(body).unwrap();
        Asked::parse(request).unwrap().likely_id(&leaves("job", &node))
    };
    assert_eq!(guess("https://a.example/jobs/abc", r#"{"id": "abc"}"#).as_deref(), Some("abc"));
    assert_eq!(guess("https://a.example/v2/jobs/x1/status", "{}").as_deref(), Some("x1"));
    assert_eq!(guess("https://a.example/get?runId=abc", "{}").as_deref(), Some("abc"));
    assert_eq!(guess("https://a.example/v2/jobs", "{}"), None);
}

#[test]
fn request_that_can_not_be_read_is_refused_with_an_example() {
    for (text, expected) in [
        ("", "is no method with a URL; write it as \"GET https://"),
        ("curl -s https://a.example/x", "is no method with a URL"),
        ("PUT https://a.example/x", "has the method PUT, and a poll is GET or POST"),
        (
            "GET /v1/jobs/1",
            "has a path alone; write the vendor's address before it, such as \"GET https://api.example/v1/jobs/1\"",
        ),
        ("api.example/v1/jobs/1", "has no URL of http or https"),
        ("GET ftp://a.example/x", "has no URL of http or https"),
        ("GET https://u:p@a.example/x", "has a user name or a password in its URL; leave them out"),
        ("GET https://a.example/jobs/{{id}}", "has a placeholder; write the request for one job"),
        ("GET https://a.example/jobs/{id}", "has a placeholder"),
        ("GET https://a.example/jobs/<id>", "has a placeholder"),
    ] {
        let found = Asked::parse(text).unwrap_err();
        assert!(found.contains(expected), "{text}: {found}");
    }
}
