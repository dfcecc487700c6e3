//! HTTP with JSON, on the port of gRPC.

use std::time::Duration;

use jobwatch::{
    access::{generate_token, hash_token},
    simulators::{Outcome, Plan, Simulator, Vendor},
};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    harness::*,
    program::{Program, command},
};

mod edges;
mod requests;
mod sockets;

/// A program with these sections in its configuration.
async fn program_with(sections: &str, simulator: &Simulator) -> Program {
    let config =
        config_text(&format!("[server]\nlisten = \"127.0.0.1:0\"\n{sections}"), [Backend::of(simulator)]);
    Program::run(command(&config), "info").await
}

async fn program(simulator: &Simulator) -> Program {
    program_with("", simulator).await
}

fn over_http1() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().http1_only().build().unwrap()
}

fn over_http2() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap()
}

fn url(program: &Program, path: &str) -> String {
    format!("http://{}{path}", program.address())
}

/// Status and JSON of a response.
async fn sent(request: RequestBuilder) -> (u16, Value) {
    let response = guard(request.send()).await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/json");
    let code = response.status().as_u16();
    let text = guard(response.text()).await.unwrap();
    (code, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
}

async fn get_json(program: &Program, path: &str) -> (u16, Value) {
    sent(over_http1().get(url(program, path))).await
}

/// A batch with this body.
fn batch_of(program: &Program, body: &Value) -> RequestBuilder {
    let request = over_http1().post(url(program, "/v1/jobs:batchGet"));
    request.header("content-type", "application/json").body(body.to_string())
}

/// A detail of an error by its type's name.
fn detail<'a>(error: &'a Value, name: &str) -> &'a Value {
    let kind = format!("type.googleapis.com/google.rpc.{name}");
    let found = error["details"].as_array().and_then(|all| all.iter().find(|one| one["@type"] == *kind));
    found.unwrap_or_else(|| panic!("no {name} in {error}"))
}

#[tokio::test]
async fn status_is_canonical_json_over_both_versions_of_http() {
    let simulator = simulator(Vendor::Immuta).await;
    let program = program(&simulator).await;
    let id = simulator.start_job(Plan::succeeds(Outcome::Text("24 tables".to_owned()))).id;
    for client in [over_http1(), over_http2()] {
        let path = format!("/v1/backends/immuta/jobs/{id}");
        let (code, mut body) = sent(client.get(url(&program, &path))).await;
        let observed = body["status"].as_object_mut().unwrap().remove("observeTime").unwrap();
        assert!(observed.as_str().unwrap().ends_with('Z'), "{observed}");
        let wanted = json!({
            "job": { "backend": "immuta", "jobId": id },
            "state": "JOB_STATE_SUCCEEDED",
            "vendorState": "completed",
            "terminal": true,
            "result": { "data": "MjQgdGFibGVz", "contentType": "text/plain; charset=utf-8" },
        });
        assert_eq!((code, body), (200, json!({ "status": wanted })));
        let (_, basic) = sent(client.get(url(&program, &format!("{path}?view=BASIC&max_age=60s")))).await;
        assert_eq!((basic["status"].get("result"), &basic["status"]["terminal"]), (None, &json!(true)));
    }
    assert_eq!(simulator.calls().len(), 1, "a terminal status is cached for every form");
}

#[tokio::test]
async fn wait_holds_the_request_until_the_job_ends() {
    let simulator = simulator(Vendor::Immuta).await;
    let program = program(&simulator).await;
    let id = simulator.start_job(Plan::fixed("active")).id;
    let path = format!("/v1/backends/immuta/jobs/{id}");
    let (_, running) = get_json(&program, &path).await;
    assert_eq!(running["status"]["state"], "JOB_STATE_RUNNING");
    let waiting_path = format!("{path}?wait=50s");
    let waiting = get_json(&program, &waiting_path);
    let finish = async {
        let before = simulator.calls().len();
        until(|| simulator.calls().len() > before + 1).await;
        simulator.finish(&id);
    };
    let ((code, ended), ()) = tokio::join!(waiting, finish);
    assert_eq!((code, &ended["status"]["state"]), (200, &json!("JOB_STATE_SUCCEEDED")));
}

#[tokio::test]
async fn error_is_a_status_of_google_rpc_with_the_usual_http_status() {
    let simulator = simulator(Vendor::Immuta).await;
    let program = program(&simulator).await;
    let (code, error) = get_json(&program, "/v1/backends/immuta/jobs/a%2Fb").await;
    assert_eq!((code, &error["code"]), (404, &json!(5)));
    let info = detail(&error, "ErrorInfo");
    assert_eq!((&info["reason"], &info["metadata"]["job_id"]), (&json!("JOB_NOT_FOUND"), &json!("a/b")));
    let (code, error) = get_json(&program, "/v1/backends/nowhere/jobs/1").await;
    assert_eq!((code, &detail(&error, "ErrorInfo")["metadata"]["known_backends"]), (404, &json!("immuta")));
    let (code, error) = get_json(&program, "/v1/backends/immuta/jobs/1?wait=-1s").await;
    assert_eq!(code, 400);
    assert_eq!(error["message"], "wait is negative; write zero or more, or leave it out");
    assert_eq!(detail(&error, "BadRequest")["fieldViolations"][0]["field"], "wait");
    let (code, error) = get_json(&program, "/v1/backends/immuta/jobs/1?wait=1").await;
    assert_eq!(
        (code, &error["message"]),
        (400, &json!("wait is \"1\"; write seconds with an s, such as 30s or 1.5s"))
    );
    simulator.go_down().await;
    let response = guard(over_http1().get(url(&program, "/v1/backends/immuta/jobs/1")).send()).await.unwrap();
    assert_eq!(response.status(), 503);
    assert!(response.headers()["retry-after"].to_str().unwrap().parse::<u32>().unwrap() >= 1);
}

#[tokio::test]
async fn batch_has_one_element_for_each_job() {
    let simulator = simulator(Vendor::Immuta).await;
    let program = program(&simulator).await;
    let id = simulator.start_job(Plan::default()).id;
    let body = json!({ "jobs": [{ "backend": "immuta", "jobId": id }, { "backend": "immuta", "jobId": "none" }],
        "view": "JOB_STATUS_VIEW_BASIC" });
    let batch = |client: reqwest::Client, body: String| {
        client.post(url(&program, "/v1/jobs:batchGet")).header("content-type", "application/json").body(body)
    };
    for client in [over_http1(), over_http2()] {
        let (code, response) = sent(batch(client, body.to_string())).await;
        assert_eq!((code, response["results"].as_array().unwrap().len()), (200, 2));
        assert_eq!(response["results"][0]["status"]["state"], "JOB_STATE_SUCCEEDED");
        assert_eq!(response["results"][1]["error"]["reason"], "JOB_NOT_FOUND");
    }
    let (code, error) = sent(batch(over_http1(), r#"{"jobs": [], "whait": "1s"}"#.to_owned())).await;
    assert_eq!(code, 400);
    let message = error["message"].as_str().unwrap();
    assert!(
        message.starts_with("body is not a BatchGetStatusesRequest in JSON: unrecognized field name 'whait'")
    );
    let (code, error) = sent(batch(over_http1(), r#"{"jobs": []}"#.to_owned())).await;
    assert_eq!((code, &error["message"]), (400, &json!("jobs holds 0 jobs; name 1 to 1000")));
    let long = format!(r#"{{"jobs": [{{"jobId": "{}"}}]}}"#, "x".repeat(3 << 20));
    for client in [over_http1(), over_http2()] {
        let (code, error) = sent(batch(client, long.clone())).await;
        assert_eq!((code, &detail(&error, "ErrorInfo")["reason"]), (413, &json!("REQUEST_TOO_LONG")));
    }
}

/// The events of a stream, as they come.
struct Events {
    response: Response,
    text: String,
}

#[derive(Debug, Default, PartialEq)]
struct Event {
    name: String,
    id: String,
    data: Value,
    retry: Option<u64>,
}

impl Events {
    async fn open(client: &reqwest::Client, url: &str, last: Option<&str>) -> Self {
        let mut request = client.get(url);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = guard(request.send()).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, text: String::new() }
    }

    /// The next event; `None` at the end.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let mut read = Event::default();
                for line in event.lines().filter(|line| !line.starts_with(':')) {
                    match line.split_once(": ").unwrap() {
                        ("event", name) => name.clone_into(&mut read.name),
                        ("id", id) => id.clone_into(&mut read.id),
                        ("data", data) => read.data = serde_json::from_str(data).unwrap(),
                        ("retry", millis) => read.retry = Some(millis.parse().unwrap()),
                        other => panic!("{other:?}"),
                    }
                }
                let rest = rest.to_owned();
                self.text = rest;
                if read == Event::default() {
                    continue;
                }
                return Some(read);
            }
            let bytes = guard(self.response.chunk()).await.unwrap()?;
            self.text.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    }

    /// The next status.
    async fn status(&mut self) -> Event {
        loop {
            let event = self.next().await.expect("the stream goes on");
            if event.name == "status" {
                return event;
            }
            assert_eq!(event.name, "heartbeat");
        }
    }
}

#[tokio::test]
async fn watch_is_resumed_by_the_id_of_an_event_and_ends_for_good() {
    let simulator = simulator(Vendor::Immuta).await;
    let program = program(&simulator).await;
    for client in [over_http1(), over_http2()] {
        let id = simulator.start_job(Plan::fixed("created")).id;
        let url = url(&program, &format!("/v1/backends/immuta/jobs/{id}/events?heartbeat_interval=0.2s"));
        let mut events = Events::open(&client, &url, None).await;
        let first = events.status().await;
        assert_eq!(first.data["status"]["state"], "JOB_STATE_PENDING");
        assert_eq!(first.data["resumeToken"], first.id.as_str());
        while events.next().await.unwrap().name != "heartbeat" {}
        simulator.set_state(&id, "active");
        let second = events.status().await;
        assert_eq!(second.data["status"]["state"], "JOB_STATE_RUNNING");
        drop(events);
        let mut events = Events::open(&client, &url, Some(&second.id)).await;
        while events.next().await.unwrap().name != "heartbeat" {}
        simulator.finish(&id);
        let last = events.status().await;
        assert_eq!(last.data["status"]["terminal"], true);
        assert_eq!(events.next().await, None);
        let again = guard(client.get(&url).header("last-event-id", &last.id).send()).await.unwrap();
        assert_eq!(again.status(), 204, "a browser connects no more");
        let again = format!("{url}&resume_token={}", last.data["resumeToken"].as_str().unwrap());
        let mut events = Events::open(&client, &again, None).await;
        assert_eq!(events.status().await.data["status"]["terminal"], true);
    }
}

#[tokio::test]
async fn watch_that_can_not_begin_has_an_http_status() {
    let simulator = simulator(Vendor::Immuta).await;
    let program = program(&simulator).await;
    let (code, error) = get_json(&program, "/v1/backends/immuta/jobs/none/events").await;
    assert_eq!((code, &detail(&error, "ErrorInfo")["reason"]), (404, &json!("JOB_NOT_FOUND")));
    let (code, error) = get_json(&program, "/v1/backends/immuta/jobs/1/events?resume_token=x").await;
    assert_eq!((code, &detail(&error, "ErrorInfo")["reason"]), (400, &json!("INVALID_RESUME_TOKEN")));
}

#[tokio::test]
async fn stream_at_shutdown_ends_with_a_failure_that_says_when_to_come_back() {
    let simulator = simulator(Vendor::Immuta).await;
    let mut program = program(&simulator).await;
    let id = simulator.start_job(Plan::fixed("active")).id;
    let url = url(&program, &format!("/v1/backends/immuta/jobs/{id}/events"));
    let mut events = Events::open(&over_http1(), &url, None).await;
    events.status().await;
    program.signal("TERM").await;
    let end = events.next().await.unwrap();
    assert_eq!((&*end.name, &detail(&end.data, "ErrorInfo")["reason"]), ("failure", &json!("SHUTTING_DOWN")));
    assert!((500..=5000).contains(&end.retry.unwrap()), "{end:?}");
    assert_eq!(events.next().await, None);
    assert_eq!(program.exit_code().await, Some(0));
}

#[tokio::test]
async fn closed_stream_leaves_no_watch_and_no_polls() {
    let simulator = simulator(Vendor::Immuta).await;
    let admin = "[admin]\nlisten = \"127.0.0.1:0\"";
    let program = program_with(admin, &simulator).await;
    let admin = program.address_after("admin address is ").await;
    let id = simulator.start_job(Plan::fixed("active")).id;
    let url = url(&program, &format!("/v1/backends/immuta/jobs/{id}/events"));
    let client = over_http1();
    let mut events = Events::open(&client, &url, None).await;
    events.status().await;
    let in_flight = async || {
        let text =
            over_http1().get(format!("http://{admin}/metrics")).send().await.unwrap().text().await.unwrap();
        let line = text.lines().find(|line| line.contains("in_flight{method=\"WatchJob\"}")).unwrap();
        line.rsplit(' ').next().unwrap().to_owned()
    };
    assert_eq!(in_flight().await, "1", "it counts as the method that it stands for");
    drop((events, client));
    guard(async { while in_flight().await != "0" {} }).await;
}

#[tokio::test]
async fn callers_are_identified_as_in_grpc() {
    let simulator = simulator(Vendor::Immuta).await;
    let token = generate_token();
    let sections = format!(
        "[access.tokens]\nci.sha256 = [\"{}\"]\n[[access.policies]]\nprincipals = [\"token:ci\"]\nbackends = [\"immuta\"]\n",
        hash_token(&token)
    );
    let program = program_with(&sections, &simulator).await;
    let id = simulator.start_job(Plan::default()).id;
    let path = format!("/v1/backends/immuta/jobs/{id}");
    let response = guard(over_http1().get(url(&program, &path)).send()).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["www-authenticate"]),
        (401, &"Bearer".parse().unwrap())
    );
    for path in [path.clone(), format!("{path}/events")] {
        let with_token = over_http1().get(url(&program, &path)).bearer_auth(&token);
        assert_eq!(guard(with_token.send()).await.unwrap().status(), 200);
    }
    let other = over_http1().get(url(&program, "/v1/backends/other/jobs/1")).bearer_auth(&token);
    let (code, error) = sent(other).await;
    assert_eq!((code, &detail(&error, "ErrorInfo")["reason"]), (403, &json!("BACKEND_NOT_ALLOWED")));
    let (code, document) = get_json(&program, "/openapi.json").await;
    assert_eq!((code, &document["openapi"]), (200, &json!("3.1.0")));
    // Before anything of the body is read.
    let (code, error) = sent(batch_of(&program, &json!(["no batch"]))).await;
    assert_eq!((code, &detail(&error, "ErrorInfo")["reason"]), (401, &json!("CALLER_UNAUTHENTICATED")));
}

#[tokio::test]
async fn what_would_cost_too_much_is_refused_with_the_limit() {
    let simulator = simulator(Vendor::Immuta).await;
    let program = program(&simulator).await;
    let jobs = vec![json!({}); 20_001];
    let (code, error) = sent(batch_of(&program, &json!({ "jobs": jobs }))).await;
    assert_eq!((code, &error["message"]), (400, &json!("body has more than 20000 objects; name fewer jobs")));
    for (path, name) in
        [("1?wait=600.1s", "wait"), ("1/events?heartbeat_interval=3600s", "heartbeat_interval")]
    {
        let (code, error) = get_json(&program, &format!("/v1/backends/immuta/jobs/{path}")).await;
        let message = format!("{name} is too long for HTTP; write at most 600s, and send another request");
        assert_eq!((code, &error["message"]), (400, &json!(message)));
    }
    assert!(simulator.calls().is_empty());
}

/// A certificate of localhost, and the configuration of a server that has it.
fn certificate() -> (tempfile::TempDir, String, rcgen::CertifiedKey<rcgen::KeyPair>) {
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, private) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&certificate, key.cert.pem()).unwrap();
    std::fs::write(&private, key.signing_key.serialize_pem()).unwrap();
    let section = format!("tls = {{ cert = '{}', key = '{}' }}", certificate.display(), private.display());
    (dir, section, key)
}

#[tokio::test]
async fn both_versions_of_http_are_served_over_tls() {
    let (_dir, section, key) = certificate();
    let simulator = simulator(Vendor::Immuta).await;
    let program = program_with(&section, &simulator).await;
    let port = program.address().rsplit_once(':').unwrap().1;
    let id = simulator.start_job(Plan::default()).id;
    let root = reqwest::Certificate::from_pem(key.cert.pem().as_bytes()).unwrap();
    let client = || reqwest::Client::builder().no_proxy().tls_certs_only([root.clone()]);
    let url = format!("https://localhost:{port}/v1/backends/immuta/jobs/{id}");
    for (client, version) in
        [(client(), http::Version::HTTP_2), (client().http1_only(), http::Version::HTTP_11)]
    {
        let response = guard(client.build().unwrap().get(&url).send()).await.unwrap();
        assert_eq!((response.status().as_u16(), response.version()), (200, version));
    }
}

/// The response to these bytes, until the server closes the connection.
async fn raw(program: &Program, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(program.address()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut response = String::new();
    guard(stream.read_to_string(&mut response)).await.unwrap();
    response
}

#[tokio::test]
async fn other_requests_get_a_readable_error() {
    let program = program(&simulator(Vendor::Immuta).await).await;
    let call = "/jobwatch.v1.JobStatusService/GetJobStatus";
    for (method, path, content_type, code, message) in [
        (
            "GET",
            "/",
            "",
            "404 Not Found",
            "there is nothing at this path; this address serves gRPC over HTTP/2",
        ),
        ("PUT", "/v1/jobs:batchGet", "", "405 Method Not Allowed", "this path has no such method; send POST"),
        (
            "POST",
            call,
            "application/json",
            "415 Unsupported Media Type",
            "the content-type is not application/grpc",
        ),
        ("POST", call, "application/grpc", "426 Upgrade Required", "gRPC needs HTTP/2"),
    ] {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {content_type}\r\n\
             Content-Length: 2\r\n\r\n{{}}"
        );
        let response = raw(&program, head.as_bytes()).await;
        assert!(response.starts_with(&format!("HTTP/1.1 {code}\r\n")), "{response}");
        assert!(
            response.contains("content-type: application/json\r\n") && response.contains(message),
            "{response}"
        );
    }
    assert!(get(&program.client(), &job("immuta", "a")).await.is_err(), "others are served");
}

#[tokio::test]
async fn foreign_names_and_sites_are_refused() {
    let simulator = simulator(Vendor::Immuta).await;
    let web = "[server.web]\norigins = [\"https://app.example\"]\nhosts = [\"jobwatch.internal\"]";
    let program = program_with(web, &simulator).await;
    let get = |name: &'static str, value: &'static str| {
        over_http1().get(url(&program, "/v1/backends/immuta/jobs/none")).header(name, value)
    };
    for (name, value, reason) in [
        ("origin", "https://evil.example", "ORIGIN_NOT_ALLOWED"),
        ("host", "evil.example:50051", "HOST_NOT_ALLOWED"),
    ] {
        let (code, error) = sent(get(name, value)).await;
        assert_eq!((code, &detail(&error, "ErrorInfo")["reason"]), (403, &json!(reason)));
    }
    assert!(simulator.calls().is_empty());
    let response = guard(get("origin", "https://app.example").send()).await.unwrap();
    assert_eq!(response.status(), 404, "the call was made");
    assert_eq!(response.headers()["access-control-allow-origin"], "https://app.example");
    assert_eq!(sent(get("host", "jobwatch.internal:50051")).await.0, 404);
}

#[tokio::test]
async fn many_requests_go_over_one_connection_and_each_has_a_log_line() {
    let simulator = simulator(Vendor::Immuta).await;
    let program = program_with("[log]\naccess = true", &simulator).await;
    let id = simulator.start_job(Plan::default()).id;
    let path = format!("/v1/backends/immuta/jobs/{id}");
    let head = |close: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: one-of-many\r\n{close}\r\n")
    };
    // Sent at once.
    let requests = head("").repeat(20) + &head("Connection: close\r\n");
    let responses = raw(&program, requests.as_bytes()).await;
    assert_eq!(responses.matches("HTTP/1.1 200 OK\r\n").count(), 21, "{responses}");
    assert_eq!(responses.matches("x-request-id: one-of-many\r\n").count(), 21);
    program.find(|log| (log.matches("request_id=\"one-of-many\"").count() == 21).then_some(())).await;
    let log = program.log();
    assert!(log.contains("method=\"GetJobStatus\" code=\"OK\""), "{log}");
}

#[tokio::test]
async fn connection_age_ends_a_stream_that_its_client_resumes() {
    let simulator = simulator(Vendor::Immuta).await;
    let age = "max_connection_age = \"1s\"\nmax_connection_age_grace = \"0s\"";
    let program = program_with(age, &simulator).await;
    let id = simulator.start_job(Plan::fixed("active")).id;
    let url = url(&program, &format!("/v1/backends/immuta/jobs/{id}/events"));
    let mut events = Events::open(&over_http1(), &url, None).await;
    let first = events.status().await;
    let end = events.next().await.unwrap();
    assert_eq!(detail(&end.data, "ErrorInfo")["reason"], "CONNECTION_EXPIRED");
    assert!(Duration::from_millis(end.retry.unwrap()) <= Duration::from_secs(1));
    assert_eq!(events.next().await, None);
    simulator.finish(&id);
    let mut events = Events::open(&over_http1(), &url, Some(&first.id)).await;
    assert_eq!(events.status().await.data["status"]["terminal"], true);
}
