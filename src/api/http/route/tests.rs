use http::Request;

use super::*;

fn route(method: &str, uri: &str, headers: &[(&str, &str)]) -> Result<Route, (u16, String)> {
    let request = Request::builder().method(method).uri(uri);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let head = request.body(()).unwrap().into_parts().0;
    Route::of(&head).map_err(|problem| {
        let message = problem.message().to_owned();
        (problem.into_response().status().as_u16(), message)
    })
}

fn job_ref(backend: &str, job_id: &str, job_tag: &str) -> pb::JobRef {
    pb::JobRef { backend: backend.to_owned(), job_id: job_id.to_owned(), job_tag: job_tag.to_owned() }
}

#[test]
fn path_and_query_name_job_and_options() {
    let seconds = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
    let uri = "/v1/backends/immuta-prod/jobs/a%2Fb%20c?wait=30s&maxAge=1.5s&view=BASIC&job_tag=t%26u";
    let wanted = pb::GetJobStatusRequest {
        job: Some(job_ref("immuta-prod", "a/b c", "t&u")),
        view: 1,
        max_age: seconds(1, 500_000_000),
        wait: seconds(30, 0),
    };
    assert_eq!(route("GET", uri, &[]), Ok(Route::Get(wanted)));
    let uri = "/v1/backends/b/jobs/1/events?state_changes_only=true&heartbeatInterval=5s&resume_token=old";
    let watch = |resume_token: &str| pb::WatchJobRequest {
        job: Some(job_ref("b", "1", "")),
        heartbeat_interval: seconds(5, 0),
        state_changes_only: true,
        resume_token: resume_token.to_owned(),
        ..pb::WatchJobRequest::default()
    };
    let wanted = |resume_token: &str| Route::Watch(watch(resume_token));
    assert_eq!(route("GET", uri, &[]), Ok(wanted("old")));
    assert_eq!(route("GET", uri, &[("last-event-id", "new")]), Ok(wanted("new")));
    assert_eq!(route("GET", uri, &[("last-event-id", "new.end")]), Ok(Route::Ended(watch("new"))));
    let ended = Route::Ended(watch("old"));
    assert_eq!(route("GET", &uri.replace("=old", "=old.end"), &[]), Ok(ended));
    assert_eq!(
        route("GET", &uri.replace("=old", "=old.end"), &[("last-event-id", "new")]),
        Ok(wanted("new"))
    );
    for content_type in ["application/json; charset=utf-8", "Application/JSON ;x=y"] {
        let json = [("content-type", content_type), ("content-encoding", "identity")];
        assert_eq!(route("POST", "/v1/jobs:batchGet", &json), Ok(Route::Batch));
    }
    for (path, methods) in [
        ("*", "GET, HEAD, POST, OPTIONS"),
        ("/openapi.json", "GET, HEAD, OPTIONS"),
        ("/v1/jobs:batchGet", "POST, OPTIONS"),
    ] {
        assert_eq!(route("OPTIONS", path, &[]), Ok(Route::Options(methods)));
    }
    assert_eq!(route("GET", "/openapi.json", &[]), Ok(Route::OpenApi));
}

#[test]
fn bad_request_says_what_to_write_instead() {
    let get = "/v1/backends/b/jobs/1";
    for (method, uri, code, message) in [
        (
            "GET",
            format!("{get}?wait=30"),
            400,
            "wait is \"30\"; write seconds with an s, such as 30s or 1.5s",
        ),
        ("GET", format!("{get}?view=ALL"), 400, "view is \"ALL\"; write BASIC, STANDARD or FULL"),
        ("GET", format!("{get}?wait=1s&wait=2s"), 400, "wait is given twice; write it once"),
        (
            "GET",
            format!("{get}?weit=1s"),
            400,
            "weit is no parameter of this path; write one of view, max_age, wait, job_tag",
        ),
        (
            "GET",
            format!("{get}/events?state_changes_only=1"),
            400,
            "state_changes_only is \"1\"; write true or false",
        ),
        ("GET", "/v1/backends/b/jobs/%ff".to_owned(), 400, "job.job_id is not UTF-8 in percent-encoding"),
        ("POST", get.to_owned(), 405, "this path has no such method; send GET"),
        ("GET", "/v1/jobs:batchGet".to_owned(), 405, "this path has no such method; send POST"),
        (
            "POST",
            "/v1/jobs:batchGet?wait=1s".to_owned(),
            400,
            "wait is no parameter of this path, which has none",
        ),
    ] {
        assert_eq!(route(method, &uri, &[]), Err((code, message.to_owned())), "{uri}");
    }
    let served = "this address serves gRPC over HTTP/2, gRPC-Web, and the paths of /openapi.json";
    let call = "/jobwatch.v1.JobStatusService/GetJobStatus";
    for (method, uri, content_type, code, message) in [
        ("GET", "/", "", 404, "there is nothing at this path"),
        (
            "GET",
            "/v1/jobs",
            "",
            404,
            "there is nothing at this path; a job is /v1/backends/BACKEND/jobs/JOB_ID, with %2F for each / within \
             its id, and no / at the end",
        ),
        ("POST", call, "application/json", 415, "the content-type is not application/grpc"),
        ("POST", call, "application/grpc", 426, "gRPC needs HTTP/2, and this request came over HTTP/1.1"),
        (
            "POST",
            call,
            "application/grpc-web+json",
            415,
            "gRPC-Web is served with application/grpc-web+proto and application/grpc-web-text+proto",
        ),
        ("POST", "/v1/jobs:batchGet", "text/plain", 415, "this path reads content-type application/json"),
    ] {
        let headers = [("content-type", content_type)];
        assert_eq!(route(method, uri, &headers), Err((code, format!("{message}; {served}"))), "{uri}");
    }
}
