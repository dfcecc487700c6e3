//! What is read of heads and bodies, byte for byte.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};

use super::*;

async fn fault_of(endpoint: &Endpoint) -> BackendFault {
    fault_about(endpoint, &job()).await
}

async fn fault_about(endpoint: &Endpoint, jobs: &[JobRef]) -> BackendFault {
    let poll = time::timeout(PATIENCE, endpoint.poll(jobs, permit())).await.expect("a response in time");
    poll.map(|_| "an answer").unwrap_err()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

const JOB: &str = r#"{"a":{"id":"a","state":"active"}}"#;
const JSON: &str = "Content-Type: application/json\r\n";

#[tokio::test]
async fn response_that_browsers_read_is_read() {
    let members = [gzip(&JOB[..9]), gzip(&JOB[9..])].concat();
    let padded = [gzip(JOB), vec![0; 99]].concat();
    let labelled = |label: &str, body: &[u8]| {
        Reply::with("200 OK", &format!("{JSON}Content-Encoding: {label}\r\n"), body)
    };
    for reply in [
        labelled("gzip", &gzip(JOB)),
        labelled("GZIP", &gzip(JOB)),
        labelled("x-gzip", &gzip(JOB)),
        labelled("gzip", &members),
        labelled("gzip", &padded),
        labelled("gzip", JOB.as_bytes()),
        labelled("", JOB.as_bytes()),
        labelled("none", JOB.as_bytes()),
        Reply::with("200 OK", JSON, format!("\u{feff}{JOB}")),
        Reply::with("200 OK", "Content-Type: TEXT/Plain; Charset=utf-8\r\n", JOB),
        Reply::with("200 OK", "", JOB),
        Reply::with("200 OK", &format!("X-Policy: default-src 'self';\r\n  img-src *\r\n{JSON}"), JOB),
        Reply::with("200 OK", "Content-Type : application/json\r\n", JOB),
        Reply::with("200 OK", &"X-Many: a\r\n".repeat(90), JOB),
        Reply::raw(format!(
            "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{}",
            String::from_utf8(Reply::with("200 OK", JSON, JOB).bytes).unwrap()
        )),
        Reply::raw(format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n{:x};ext=\"a b\"\r\n{JOB}\r\n0\r\nX-Sum: 1\r\n\r\n",
            JOB.len()
        )),
    ] {
        let shown = format!("{reply:?}");
        let peer = Peer::start(move |_| reply.clone()).await;
        let endpoint = immuta(&peer.url());
        for _ in 0..2 {
            assert_eq!(poll_once(&endpoint).await, Ok(JobState::Running), "{shown}");
        }
        assert!(peer.received().iter().all(|request| request.connection == 0), "the connection is kept");
    }
}

/// A reply with this head, and each way in which a body can be bad.
fn with_bad_bodies(head: &str) -> Vec<Reply> {
    let begin = format!("HTTP/1.1 {head}\r\n{JSON}");
    let short = format!("{begin}Content-Length: 9\r\n\r\n{{\"a\"");
    let long = " ".repeat(200 * 1024);
    vec![
        Reply::raw(format!("{begin}Content-Encoding: gzip\r\nContent-Length: 9\r\n\r\n{{\"a\":\"b\"}}")),
        Reply::raw(format!("{begin}Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\u{8b}\x08")),
        Reply::raw(format!("{begin}Content-Length: {}\r\n\r\n{long}", long.len())),
        Reply::raw(format!("{begin}\r\n{long}")).then_close(),
        Reply::raw(format!("{begin}Transfer-Encoding: chunked\r\n\r\nx\r\n")),
        Reply::raw(short.clone()).then_close(),
        Reply::raw(short.clone()).then_reset(),
        Reply::raw(short).then_stall(),
    ]
}

#[tokio::test]
async fn head_decides_whatever_the_body_is() {
    let seven = Some(Duration::from_secs(7));
    for (head, status, kind, wait) in [
        ("429 X\r\nRetry-After: 5\r\nRetry-After: 7.0", 429, FaultKind::Throttled, seven),
        ("403 X\r\nRetry-After: 6, 7", 403, FaultKind::Throttled, seven),
        ("403 X", 403, FaultKind::Forbidden, None),
        ("401 X\r\nRetry-After: 7", 401, FaultKind::CredentialsRejected, seven),
        (
            "503 X\r\nRetry-After: 7",
            503,
            FaultKind::Unavailable { why: "it answered HTTP 503".into() },
            seven,
        ),
        ("408 X", 408, FaultKind::Unavailable { why: "it answered HTTP 408".into() }, None),
        ("404 X", 404, FaultKind::Rejected { message: "HTTP 404".into() }, None),
    ] {
        for reply in with_bad_bodies(head) {
            let shown: String = format!("{reply:?}").chars().take(300).collect();
            let peer = Peer::start(move |_| reply.clone()).await;
            let fault = fault_of(&immuta(&peer.url())).await;
            let exchange = format!("POST /jobs/statuses: HTTP {status}");
            assert_eq!(fault.exchange.as_deref(), Some(&*exchange), "{shown}");
            assert_eq!((fault.kind, fault.retry_after), (kind.clone(), wait), "{shown}");
            assert_eq!(fault.http_status, Some(status));
        }
    }
}

#[tokio::test]
async fn token_is_refreshed_whatever_the_body_of_the_rejection_is() {
    for reply in with_bad_bodies("401 X") {
        let peer = Peer::start(move |request: &Received| match (&*request.path, &request.authorization) {
            (IMMUTA_TOKENS, _) => token(if request.connection + request.nth == 0 { "old" } else { "new" }),
            (_, Some(bearer)) if bearer == "Bearer new" => active(),
            _ => reply.clone(),
        })
        .await;
        assert_eq!(poll_once(&exchanging(&peer.url())).await, Ok(JobState::Running));
    }
}

#[tokio::test]
async fn connection_is_kept_after_a_short_refusal() {
    let peer = Peer::start(|request: &Received| match request.nth {
        0 => Reply::json("503 Service Unavailable", r#"{"message":"BODY"}"#),
        1 => Reply::with("429 Too Many Requests", "", ""),
        2 => Reply::json("404 Not Found", "{}"),
        _ => active(),
    })
    .await;
    let endpoint = immuta(&peer.url());
    for _ in 0..3 {
        fault_of(&endpoint).await;
    }
    assert_eq!(poll_once(&endpoint).await, Ok(JobState::Running));
    assert!(peer.received().iter().all(|request| request.connection == 0));
}

#[tokio::test]
async fn fault_names_method_path_and_status_at_every_vendor() {
    let page = || Reply::with("404 Not Found", "Content-Type: text/html\r\n", "<html>BODY</html>");
    let asked = |endpoint: Endpoint, id: &'static str| async move {
        let fault = fault_about(&endpoint, &[JobRef::new("b", id)]).await;
        let text = fault.to_string();
        assert!(!text.contains("BODY") && !text.contains("k3y") && !text.contains("12345"), "{text}");
        fault.exchange.unwrap().to_string()
    };
    let peer = Peer::start(move |_| page()).await;
    let url = format!("{}/base", peer.url());
    let key = || api_key("k3y");
    let bearer = || Configured::bearer("k3y".into());
    assert_eq!(
        asked(endpoint(IMMUTA, &url, key()), "a").await,
        "POST /base/jobs/statuses: HTTP 404, a page in HTML"
    );
    let no_email = ClaretConfig { email: None, ..claret() };
    assert_eq!(
        asked(endpoint(no_email, &url, bearer()), "12345").await,
        "GET /base/demo/api/v1/imports/status/{id}: HTTP 404, a page in HTML"
    );
    assert_eq!(
        asked(endpoint(DatasaurConfig { client: None }, &url, bearer()), "a").await,
        "POST /base/graphql: HTTP 404, a page in HTML"
    );
    assert_eq!(
        asked(endpoint(claret(), &url, exchanged("k3y")), "12345").await,
        "POST /base/demo/api/v1/tokens/create: HTTP 404, a page in HTML"
    );
}

#[tokio::test]
async fn request_without_a_response_is_named_too() {
    for (reply, exchange) in [
        (Reply::nothing().then_close(), "POST /jobs/statuses"),
        (active().cut(100).then_close(), "POST /jobs/statuses: HTTP 200"),
    ] {
        let peer = Peer::start(move |_| reply.clone()).await;
        let fault = fault_of(&immuta(&peer.url())).await;
        assert_eq!(fault.exchange.as_deref(), Some(exchange));
    }
}
