//! HTTP/1.1 byte by byte, as `nc`, scripts and broken clients send it.

use std::sync::Arc;

use tokio_rustls::{TlsConnector, rustls};

use super::*;

const OPEN_API: &str = "GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n";

/// Code, head and body of the only response to these bytes.
async fn response_to(program: &Program, bytes: impl AsRef<[u8]>) -> (u16, String, Value) {
    let text = raw(program, bytes.as_ref()).await;
    let heads = text.lines().filter(|line| line.starts_with("HTTP/1.")).count();
    assert_eq!(heads, 1, "{:?}: {text}", String::from_utf8_lossy(bytes.as_ref()));
    split(&text)
}

fn split(text: &str) -> (u16, String, Value) {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {text:?}"));
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    (code, head.to_owned(), serde_json::from_str(body).unwrap_or_default())
}

#[tokio::test]
async fn bytes_that_are_no_request_get_a_readable_error() {
    let program = program(&simulator(Vendor::Immuta).await).await;
    for bytes in [
        &b"SSH-2.0-OpenSSH_9.2\r\n"[..],
        b"hello\r\n\r\n",
        b"\0\0\0\x04\0\0\0\0\0",
        b"GET /\r\n\r\n",
        b"GET / HTTP/3.7\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    ] {
        let (code, head, error) = response_to(&program, bytes).await;
        assert_eq!(code, 400, "{head}");
        assert!(head.contains("content-type: application/json\r\n"), "{head}");
        let message = error["message"].as_str().unwrap_or_default();
        assert!(
            message.contains("begin with a line such as GET /openapi.json HTTP/1.1"),
            "{bytes:?}: {error}"
        );
        assert_eq!(detail(&error, "ErrorInfo")["reason"], "INVALID_REQUEST");
    }
    // Methods are case-sensitive: this one is unknown, and not unreadable.
    let (code, _, error) =
        response_to(&program, "get /openapi.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await;
    assert_eq!((code, &error["message"]), (405, &json!("this path has no such method; send GET")));
    let empty_lines = format!("\r\n\r\n{OPEN_API}Connection: close\r\n\r\n");
    let (code, _, document) = response_to(&program, &empty_lines).await;
    assert_eq!((code, &document["openapi"]), (200, &json!("3.1.0")), "empty lines before a request");
}

#[tokio::test]
async fn head_beyond_the_limit_gets_an_error_that_arrives() {
    let program = program(&simulator(Vendor::Immuta).await).await;
    let limits = "the head of the request is too long; send at most 20480 bytes and 100 headers";
    // The client goes on sending long after the limit, and reads then.
    let large = format!("{OPEN_API}X: {}\r\n\r\n", "x".repeat(1 << 20));
    let many = format!("{OPEN_API}{}\r\n", "X: y\r\n".repeat(101));
    let query = format!("GET /openapi.json?{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(30_000));
    for request in [large, many, query] {
        let (code, _, error) = response_to(&program, &request).await;
        assert_eq!((code, &error["message"]), (431, &json!(limits)));
        assert_eq!(detail(&error, "ErrorInfo")["reason"], "REQUEST_TOO_LONG");
    }
}

#[tokio::test]
async fn plain_text_at_a_port_of_tls_gets_a_readable_error() {
    let (dir, section, _) = certificate();
    let simulator = simulator(Vendor::Immuta).await;
    let program = program_with(&section, &simulator).await;
    let (code, _, error) = response_to(&program, format!("{OPEN_API}\r\n")).await;
    let message = "request came without TLS, which this port requires; write https:// in the URL";
    assert_eq!((code, &error["message"]), (400, &json!(message)));
    drop(dir);
}

#[tokio::test]
async fn host_has_to_be_named_once_in_http_1_1() {
    let simulator = simulator(Vendor::Immuta).await;
    simulator.start_job(Plan::default().id("done"));
    let program = program(&simulator).await;
    let close = "Connection: close\r\n\r\n";
    for (request, message) in [
        ("GET /openapi.json HTTP/1.1\r\n", "Host is missing; HTTP/1.1 requires one"),
        ("GET http://localhost/openapi.json HTTP/1.1\r\n", "Host is missing; HTTP/1.1 requires one"),
        (&format!("{OPEN_API}Host: localhost\r\n"), "Host is given twice; send it once"),
        (
            "GET /openapi.json HTTP/1.1\r\nHost: a b\r\n",
            "Host is no name or address, with or without a port; send one such as localhost:50051",
        ),
    ] {
        let (code, _, error) = response_to(&program, format!("{request}{close}")).await;
        assert_eq!((code, &error["message"]), (400, &json!(message)), "{request}");
    }
    for request in [
        "GET /openapi.json HTTP/1.0\r\n\r\n",
        "GET http://localhost/openapi.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    ] {
        let text = raw(&program, request.as_bytes()).await;
        assert!(text.split(' ').nth(1) == Some("200"), "{text}");
    }
    let failed = "GET /v1/backends/immuta/jobs/none HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".repeat(2);
    let text = raw(&program, format!("{failed}{OPEN_API}Connection: close\r\n\r\n").as_bytes()).await;
    assert_eq!(text.matches("connection: keep-alive").count(), 2, "errors have a length: {text}");
    let unary = "GET /v1/backends/immuta/jobs/done HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let text = raw(&program, unary.as_bytes()).await;
    assert!(text.contains("JOB_STATE_SUCCEEDED") && text.contains("connection: close"), "{text}");
    let foreign =
        "GET http://evil.example/openapi.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(response_to(&program, foreign).await.0, 403, "the name in the target comes first");
}

#[tokio::test]
async fn body_that_can_not_be_read_has_a_status_of_its_own() {
    let program = program_with("[log]\naccess = true", &simulator(Vendor::Immuta).await).await;
    let batch = "POST /v1/jobs:batchGet HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                 Connection: close\r\n";
    let malformed = "body is not in chunks as RFC 9112 has them; correct them, or send a Content-Length";
    let short = "body ends before the length in the request's head; send all of it";
    let spaces = " ".repeat(3 << 20);
    for (request, code, message) in [
        (format!("{batch}Transfer-Encoding: chunked\r\n\r\nxyz\r\n{{}}\r\n"), 400, malformed),
        (format!("{batch}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}x\r\n"), 400, malformed),
        (
            format!("{batch}Content-Length: 3145728\r\n\r\n{spaces}"),
            413,
            "the request has 3145728 bytes; send at most 2097152",
        ),
        // Refused by its head. The rest never comes.
        (
            format!("{batch}Expect: 100-continue\r\nContent-Length: 3145728\r\n\r\n"),
            413,
            "the request has 3145728 bytes; send at most 2097152",
        ),
        (
            format!("{batch}Transfer-Encoding: chunked\r\n\r\n300000\r\n{spaces}\r\n0\r\n\r\n"),
            413,
            "the request has more than 2097152 bytes, which is the limit; send fewer",
        ),
    ] {
        let (found, _, error) = response_to(&program, &request).await;
        assert_eq!((found, &error["message"]), (code, &json!(message)));
    }
    let mut stream = TcpStream::connect(program.address()).await.unwrap();
    stream.write_all(format!("{batch}Content-Length: 9\r\n\r\n{{}}").as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut text = String::new();
    guard(stream.read_to_string(&mut text)).await.unwrap();
    let (code, _, error) = split(&text);
    assert_eq!((code, &error["message"]), (400, &json!(short)));
    program.find(|log| (log.matches("method=\"BatchGetStatuses\" code=").count() == 6).then_some(())).await;
    assert_eq!(program.log().matches("code=\"RESOURCE_EXHAUSTED\"").count(), 3, "{}", program.log());
}

#[tokio::test]
async fn response_before_the_end_of_the_request_says_that_the_connection_ends() {
    let program = program(&simulator(Vendor::Immuta).await).await;
    let head = "POST /v1/jobs:batchGet HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    let (_, head, _) = response_to(&program, format!("{head}Content-Length: 3145728\r\n\r\n ")).await;
    assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
}

#[tokio::test]
async fn body_is_asked_for_when_it_is_wanted() {
    let program = program(&simulator(Vendor::Immuta).await).await;
    let mut stream = TcpStream::connect(program.address()).await.unwrap();
    let head = "POST /v1/jobs:batchGet HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Connection: close\r\nExpect: 100-continue\r\nContent-Length: 12\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut continues = [0; 25];
    guard(stream.read_exact(&mut continues)).await.unwrap();
    assert_eq!(&continues, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"{\"jobs\": []}").await.unwrap();
    let mut text = String::new();
    guard(stream.read_to_string(&mut text)).await.unwrap();
    assert_eq!(split(&text).2["message"], "jobs holds 0 jobs; name 1 to 1000");
}

/// Sends a request for this job.
async fn request_held(stream: &mut TcpStream, id: &str, path: &str) {
    let request = format!("GET /v1/backends/immuta/jobs/{id}{path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn client_that_closes_its_half_gets_its_response() {
    let simulator = simulator(Vendor::Immuta).await;
    let program = program(&simulator).await;
    let id = simulator.start_job(Plan::fixed("active")).id;
    for wait in ["", "?wait=2s"] {
        let mut stream = TcpStream::connect(program.address()).await.unwrap();
        request_held(&mut stream, &id, wait).await;
        stream.shutdown().await.unwrap();
        let mut text = String::new();
        guard(stream.read_to_string(&mut text)).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains("JOB_STATE_RUNNING"), "{text}");
    }
}

/// What a client does before it closes its connection.
#[derive(Clone, Copy, Debug)]
enum Leave {
    Nothing,
    /// It sends more than the request, which the server does not read meanwhile.
    SendsMore,
    /// The same, and it resets the connection.
    Resets,
    /// It does not read a response, and so resets the connection, too.
    LeavesBytes,
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn call_of_a_client_that_has_left_ends_however_it_left() {
    let simulator = simulator(Vendor::Immuta).await;
    let program = program_with("[admin]\nlisten = \"127.0.0.1:0\"", &simulator).await;
    let admin = program.address_after("admin address is ").await;
    let in_flight = async || {
        let metrics = over_http1().get(format!("http://{admin}/metrics")).send().await.unwrap();
        let text = metrics.text().await.unwrap();
        let lines = text.lines().filter(|line| line.starts_with("jobwatch_rpcs_in_flight{"));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum::<f64>()
    };
    let id = simulator.start_job(Plan::fixed("active")).id;
    let mut open = Vec::new();
    for path in ["?wait=600s", "/events?heartbeat_interval=600s"] {
        for leave in [Leave::Nothing, Leave::SendsMore, Leave::Resets, Leave::LeavesBytes] {
            let mut stream = TcpStream::connect(program.address()).await.unwrap();
            if matches!(leave, Leave::LeavesBytes) {
                stream.write_all(format!("{OPEN_API}\r\n").as_bytes()).await.unwrap();
            }
            request_held(&mut stream, &id, path).await;
            if matches!(leave, Leave::SendsMore | Leave::Resets) {
                stream.write_all(format!("{OPEN_API}\r\n").as_bytes()).await.unwrap();
            }
            open.push((stream, leave));
        }
    }
    guard(async { while in_flight().await < 8.0 {} }).await;
    for (stream, leave) in open {
        if matches!(leave, Leave::Resets) {
            rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        }
        drop(stream);
    }
    guard(async { while in_flight().await > 0.0 {} }).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn system_asks_silent_clients_whether_they_are_there() {
    let program = program(&simulator(Vendor::Immuta).await).await;
    let stream = TcpStream::connect(program.address()).await.unwrap();
    let (near, far) = (stream.local_addr().unwrap().port(), stream.peer_addr().unwrap().port());
    // The timer 02 is that of keep-alive.
    let has_timer = || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        table.lines().any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields[1].ends_with(&format!(":{far:04X}"))
                && fields[2].ends_with(&format!(":{near:04X}"))
                && fields[5].starts_with("02:")
        })
    };
    until(has_timer).await;
}

#[tokio::test]
async fn client_over_tls_that_closes_its_half_gets_its_response() {
    let (_dir, section, key) = certificate();
    let simulator = simulator(Vendor::Immuta).await;
    let program = program_with(&section, &simulator).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(key.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.unwrap().with_root_certificates(roots).with_no_client_auth();
    let tcp = TcpStream::connect(program.address()).await.unwrap();
    let name = "localhost".try_into().unwrap();
    let mut stream = guard(TlsConnector::from(Arc::new(config)).connect(name, tcp)).await.unwrap();
    stream.write_all(format!("{OPEN_API}\r\n").as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut text = String::new();
    guard(stream.read_to_string(&mut text)).await.unwrap();
    assert_eq!(split(&text).0, 200);
}
