//! Requests at the edges of what is served: each gets an error that says what is wrong with it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jobwatch::proto::v1::{BatchGetStatusesRequest, GetJobStatusRequest, WatchJobRequest};
use prost::Message;

use super::*;

const SERVICE: &str = "jobwatch.v1.JobStatusService";

/// The response to these bytes, after which the client closes its half.
async fn response_to_all(program: &Program, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(program.address()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut text = String::new();
    guard(stream.read_to_string(&mut text)).await.unwrap();
    text
}

/// The error with this HTTP status.
fn error_of(text: &str, code: u16) -> Value {
    assert!(text.starts_with(&format!("HTTP/1.1 {code} ")), "{text:?}");
    assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{text}");
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A message of gRPC with this flag and length.
fn framed(flag: u8, length: u32, message: &[u8]) -> Vec<u8> {
    [&[flag][..], &length.to_be_bytes(), message].concat()
}

fn whole(message: &impl Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    framed(0, u32::try_from(message.len()).unwrap(), &message)
}

/// `grpc-status` and `grpc-message` of a gRPC-Web call.
async fn web_call(request: RequestBuilder) -> (String, String) {
    let response = guard(request.send()).await.unwrap();
    assert_eq!(response.status(), 200);
    let in_head = |name: &str| {
        let value = response.headers().get(name)?;
        Some(value.to_str().unwrap().to_owned())
    };
    if let Some(status) = in_head("grpc-status") {
        return (status, in_head("grpc-message").unwrap_or_default());
    }
    let body = guard(response.bytes()).await.unwrap();
    let text = String::from_utf8_lossy(&body);
    let value = |name: &str| {
        let (_, rest) = text.split_once(&format!("{name}:"))?;
        rest.split("\r\n").next().map(str::to_owned)
    };
    (value("grpc-status").unwrap(), value("grpc-message").unwrap_or_default())
}

#[tokio::test]
async fn wait_that_a_response_can_not_outlast_is_refused_in_every_form() {
    let simulator = simulator(Vendor::Immuta).await;
    let program = program(&simulator).await;
    let id = simulator.start_job(Plan::default()).id;
    let json = "wait is too long for HTTP; write at most 600s, and send another request";
    for client in [over_http1(), over_http2()] {
        let get = client.get(url(&program, &format!("/v1/backends/immuta/jobs/{id}?wait=601s")));
        let (code, error) = sent(get).await;
        assert_eq!((code, &error["message"]), (400, &json!(json)));
        let batch = |wait: &str| {
            let body = json!({ "jobs": [{ "backend": "immuta", "jobId": id }], "wait": wait }).to_string();
            let batch = client.post(url(&program, "/v1/jobs:batchGet"));
            sent(batch.header("content-type", "application/json").body(body))
        };
        let (code, error) = batch("3600s").await;
        assert_eq!((code, &error["message"]), (400, &json!(json)));
        assert_eq!(batch("600s").await.0, 200);
    }
    let job = Some(job_ref(&id));
    let long = Some(prost_types::Duration { seconds: 3600, nanos: 0 });
    let get = GetJobStatusRequest { job: job.clone(), wait: long, ..Default::default() };
    let batch =
        BatchGetStatusesRequest { jobs: job.clone().into_iter().collect(), wait: long, ..Default::default() };
    let watch = WatchJobRequest { job, heartbeat_interval: long, ..Default::default() };
    for (method, body, field) in [
        ("GetJobStatus", whole(&get), "wait"),
        ("BatchGetStatuses", whole(&batch), "wait"),
        ("WatchJob", whole(&watch), "heartbeat_interval"),
    ] {
        let call = |client: reqwest::Client| {
            let call = client.post(url(&program, &format!("/{SERVICE}/{method}")));
            web_call(call.header("content-type", "application/grpc-web+proto").body(body.clone()))
        };
        let message = format!(
            "{field} is too long for gRPC-Web over HTTP/1.1; write at most 600s, and send another request"
        );
        assert_eq!(call(over_http1()).await, ("3".to_owned(), message));
        // There, pings show that a client has left.
        assert_eq!(call(over_http2()).await.0, "0", "{method}");
    }
    let (_, document) = get_json(&program, "/openapi.json").await;
    let limit = "at most 600 seconds";
    let wait = &document["components"]["parameters"]["wait"]["description"];
    assert!(wait.as_str().unwrap().contains(limit), "{wait}");
    let batch = &document["components"]["schemas"]["jobwatch.v1.BatchGetStatusesRequest"];
    assert!(batch["properties"]["wait"]["description"].as_str().unwrap().contains(limit), "{batch}");
}

fn job_ref(id: &str) -> jobwatch::proto::v1::JobRef {
    jobwatch::proto::v1::JobRef { backend: "immuta".to_owned(), job_id: id.to_owned(), ..Default::default() }
}

#[tokio::test]
async fn user_information_before_a_foreign_name_is_refused() {
    let program = program(&simulator(Vendor::Immuta).await).await;
    let path = "/v1/backends/immuta/jobs/1";
    let get = |target: &str, host: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
    };
    let in_target = get(&format!("http://localhost:x@evil.example{path}"), "localhost");
    let in_host = get(path, "localhost:x@evil.example");
    for (request, message) in [
        (in_target, "Host in the target of the request has user information; leave it out"),
        (in_host, "Host is no name or address, with or without a port; send one such as localhost:50051"),
    ] {
        let error = error_of(&raw(&program, request.as_bytes()).await, 400);
        assert_eq!(error["message"], message);
    }
    // HTTP/2, where it is `:authority`.
    let tcp = TcpStream::connect(program.address()).await.unwrap();
    let (mut requests, connection) = guard(h2::client::handshake(tcp)).await.unwrap();
    let connection = tokio::spawn(connection);
    for authority in ["localhost:x@evil.example", "localhost@evil.example"] {
        let request = http::Request::get(format!("http://{authority}{path}"));
        let (response, _) = requests.send_request(request.body(()).unwrap(), true).unwrap();
        assert_eq!(guard(response).await.unwrap().status(), 400, "{authority}");
    }
    connection.abort();
}

#[tokio::test]
async fn head_that_is_cut_off_gets_a_readable_error() {
    let program = program(&simulator(Vendor::Immuta).await).await;
    for head in ["GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\n", "garbage", "GET /"] {
        let error = error_of(&response_to_all(&program, head.as_bytes()).await, 400);
        let message = "the head of the request ends before the empty line after its headers; send all of it";
        assert_eq!(error["message"], message, "{head}");
    }
    let complete = "GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let text = response_to_all(&program, format!("{complete}GET /").as_bytes()).await;
    assert!(
        text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains("HTTP/1.1 400 Bad Request\r\n"),
        "{text}"
    );
    let text = response_to_all(&program, complete.as_bytes()).await;
    assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "no head is cut off");
    assert_eq!(response_to_all(&program, b"").await, "");
}

#[tokio::test]
async fn length_that_can_not_be_counted_is_named() {
    let program = program(&simulator(Vendor::Immuta).await).await;
    for length in ["18446744073709551615", "99999999999999999999999"] {
        let request =
            format!("POST /v1/jobs:batchGet HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
        let error = error_of(&raw(&program, request.as_bytes()).await, 413);
        let message =
            "the Content-Length of the request is too long; send at most 2097152 bytes, and their number";
        assert_eq!(error["message"], message);
        assert_eq!(detail(&error, "ErrorInfo")["reason"], "REQUEST_TOO_LONG");
    }
}

#[tokio::test]
async fn body_of_a_get_is_bounded_as_others_are() {
    let simulator = simulator(Vendor::Immuta).await;
    let program = program(&simulator).await;
    let id = simulator.start_job(Plan::default()).id;
    for client in [over_http1(), over_http2()] {
        for path in [format!("/v1/backends/immuta/jobs/{id}"), "/openapi.json".to_owned()] {
            let get = |bytes: usize| sent(client.get(url(&program, &path)).body(vec![b' '; bytes]));
            assert_eq!(get(64 << 10).await.0, 200, "{path}");
            let (code, error) = get((64 << 10) + 1).await;
            let message = "the request has 65537 bytes; send at most 65536";
            assert_eq!((code, &error["message"]), (413, &json!(message)), "{path}");
        }
    }
}

#[tokio::test]
async fn chunks_without_a_last_one_are_named() {
    let program = program(&simulator(Vendor::Immuta).await).await;
    let request = "POST /v1/jobs:batchGet HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                   Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n";
    let error = error_of(&response_to_all(&program, request.as_bytes()).await, 400);
    let message = "body ends before its last chunk, which has the length 0; send all of it";
    assert_eq!(error["message"], message);
}

#[tokio::test]
async fn connection_of_http_1_0_is_either_kept_or_closed() {
    let simulator = simulator(Vendor::Immuta).await;
    let program = program(&simulator).await;
    let id = simulator.start_job(Plan::default()).id;
    for path in ["", "/events"] {
        let request =
            format!("GET /v1/backends/immuta/jobs/{id}{path} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        let text = raw(&program, request.as_bytes()).await;
        let (head, _) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("connection: close") && !head.contains("keep-alive"), "{head}");
    }
}

#[tokio::test]
async fn id_of_the_last_event_is_checked_before_it_ends_anything() {
    let simulator = simulator(Vendor::Immuta).await;
    let token = generate_token();
    let sections = format!(
        "[access.tokens]\nci.sha256 = [\"{}\"]\n[[access.policies]]\nprincipals = [\"token:ci\"]\nbackends = [\"immuta\"]",
        hash_token(&token)
    );
    let program = program_with(&sections, &simulator).await;
    let (id, other) = (simulator.start_job(Plan::default()).id, simulator.start_job(Plan::default()).id);
    let client = over_http1();
    let events = |backend: &str, id: &str| {
        client.get(url(&program, &format!("/v1/backends/{backend}/jobs/{id}/events")))
    };
    let stream = guard(events("immuta", &id).bearer_auth(&token).send()).await.unwrap();
    let mut stream = Events { response: stream, text: String::new() };
    let last = loop {
        let event = stream.next().await.unwrap();
        if event.data["status"]["terminal"] == true {
            break event.id;
        }
    };
    for (backend, job, last, is_known, code) in [
        ("immuta", &id, &*last, true, 204),
        ("immuta", &id, ".end", true, 204),
        ("immuta", &id, &*last, false, 401),
        ("immuta", &id, ".end", false, 401),
        ("immuta", &other, &*last, true, 400),
        ("immuta", &id, "x.end", true, 400),
        ("other", &id, ".end", true, 403),
    ] {
        let request = events(backend, job).header("last-event-id", last);
        let request = if is_known { request.bearer_auth(&token) } else { request };
        let response = guard(request.send()).await.unwrap();
        assert_eq!(response.status(), code, "{backend} {last} {is_known}");
        let text = guard(response.text()).await.unwrap();
        assert!(code != 400 || text.contains("\"message\":\"resume_token "), "{text}");
    }
}

#[tokio::test]
async fn malformed_message_of_grpc_web_is_explained() {
    let simulator = simulator(Vendor::Immuta).await;
    let program = program(&simulator).await;
    let base64 = |bytes: &[u8]| STANDARD.encode(bytes).into_bytes();
    for client in [over_http1(), over_http2()] {
        for (kind, encoding, body, code, message) in [
            (
                "grpc-web+proto",
                "",
                framed(0, u32::MAX, b""),
                "8",
                "the request has 4294967295 bytes; send at most 65536",
            ),
            (
                "grpc-web-text",
                "",
                base64(&framed(0, u32::MAX, b"")),
                "8",
                "the request has 4294967295 bytes; send at most 65536",
            ),
            (
                "grpc-web+proto",
                "gzip",
                framed(1, 1, b"x"),
                "12",
                "the header grpc-encoding is \"gzip\", which is not served; send the body as it is, without this header",
            ),
            (
                "grpc-web-text",
                "",
                b"!!!!".to_vec(),
                "3",
                "body is not base64 with padding, as RFC 4648 has it; encode it, or send application/grpc-web+proto",
            ),
            (
                "grpc-web+proto",
                "",
                framed(0, 9, b"x"),
                "3",
                "body ends within a message; send a flag, four bytes of the message's length, and the message",
            ),
        ] {
            let call = client.post(url(&program, &format!("/{SERVICE}/GetJobStatus")));
            let call = call.header("content-type", format!("application/{kind}"));
            let call = if encoding.is_empty() { call } else { call.header("grpc-encoding", encoding) };
            assert_eq!(web_call(call.body(body)).await, (code.to_owned(), message.to_owned()));
        }
    }
    assert!(simulator.calls().is_empty());
}
