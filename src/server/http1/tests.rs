//! Bounds of a connection, on a paused clock.

use std::{
    io,
    pin::Pin,
    sync::Mutex,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tonic::{service::Routes, transport::server::TcpConnectInfo};

use super::*;
use crate::{
    access::Access,
    config,
    engine::{Engine, EngineLimits, MemoryLimits, WatchLimits},
    server::{
        dispatch::{Dispatch, Live},
        usage::{Room, Usage},
        web::Web,
    },
};

fn shared() -> Arc<Shared> {
    let limits = EngineLimits {
        watches: WatchLimits { total: 1, per_caller: 1, per_call: 1 },
        memory: MemoryLimits { status_bytes: 1024, inline_result_bytes: 1, jobs: 1 },
    };
    let (engine, _) = Engine::new(limits, CancellationToken::new());
    let service = api::Service::new(engine, 1, Duration::from_secs(1));
    let live = Live::new(Access::new(&config::Access::default()).unwrap(), false, Web::default());
    let service = Dispatch::new(service, live, Routes::default(), None, CancellationToken::new());
    Arc::new(Shared { service, streams: 1, age: None, is_scarce: Box::new(|| false) })
}

/// A socket whose client is in a condition that the test sets.
struct Far(DuplexStream, Arc<Mutex<Condition>>);

impl Socket for Far {
    fn condition(&self) -> Condition {
        *self.1.lock().unwrap()
    }
}

impl AsyncRead for Far {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Far {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A connection, and the usage that can close it.
fn connection(
    room: usize,
) -> (DuplexStream, Arc<Usage>, Arc<ConnectionUsage>, JoinHandle<hyper::Result<()>>) {
    connection_of(room, Arc::new(Mutex::new(Condition::Open)))
}

fn connection_of(
    room: usize,
    condition: Arc<Mutex<Condition>>,
) -> (DuplexStream, Arc<Usage>, Arc<ConnectionUsage>, JoinHandle<hyper::Result<()>>) {
    let (near, far) = duplex(room);
    let far = Far(far, condition);
    let usage = Usage::new(Room::new(1 << 30, 0, 1, 1));
    let of_connection = usage.connect([127, 0, 0, 1].into()).unwrap();
    let address = TcpConnectInfo { local_addr: None, remote_addr: None };
    let peer = Peer { address, certificate: None, is_encrypted: false };
    let until = Instant::now() + Duration::from_secs(10);
    let served = tokio::spawn(serve(far, until, peer, Arc::clone(&of_connection), shared()));
    (near, usage, of_connection, served)
}

const REQUEST: &[u8] = b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// Reads until the whole document has come.
async fn read_document(client: &mut DuplexStream) {
    read_to_the_end(client, Vec::new()).await;
}

async fn read_to_the_end(client: &mut DuplexStream, mut text: Vec<u8>) {
    let mut buffer = [0; 4096];
    while !text.ends_with(b"}\n") {
        let read = client.read(&mut buffer).await.unwrap();
        assert!(read > 0);
        text.extend_from_slice(&buffer[..read]);
    }
    assert!(text.starts_with(b"HTTP/1.1 200 OK\r\n"));
}

#[tokio::test(start_paused = true)]
async fn connection_without_a_whole_first_head_ends_soon() {
    for sent in [&b"GET"[..], b"GET / HTTP/1.1\r\nhost: localhost\r\nx: "] {
        let (mut client, _usage, _, served) = connection(1 << 16);
        let began = Instant::now();
        client.write_all(sent).await.unwrap();
        // A byte now and then changes nothing.
        let trickle = async {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if client.write_all(b"A").await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            _ = served => {}
            () = trickle => {}
        }
        assert!(began.elapsed() <= Duration::from_secs(16), "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn connection_between_two_requests_ends_after_a_minute() {
    let (mut client, _usage, _, served) = connection(1 << 20);
    client.write_all(REQUEST).await.unwrap();
    read_document(&mut client).await;
    let began = Instant::now();
    let _ = served.await.unwrap();
    assert!((55..=66).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn client_that_takes_nothing_of_a_response_loses_its_connection() {
    let (mut client, _usage, of_connection, served) = connection(1000);
    client.write_all(REQUEST).await.unwrap();
    let began = Instant::now();
    served.await.unwrap().unwrap_err();
    assert!((55..=66).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    assert_eq!(of_connection.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn response_counts_until_the_socket_has_taken_it() {
    let (mut client, usage, of_connection, _served) = connection(1000);
    client.write_all(REQUEST).await.unwrap();
    let mut first = [0; 100];
    client.read_exact(&mut first).await.unwrap();
    assert!(usage.used() > 20_000, "{} bytes of the document", usage.used());
    read_to_the_end(&mut client, first.to_vec()).await;
    settled(|| of_connection.calls() == 0 && usage.used() == 0).await;
}

async fn settled(is: impl Fn() -> bool) {
    while !is() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn head_that_is_too_large_is_refused() {
    for head in [format!("x: {}\r\n", "x".repeat(HEAD_BYTES)), "x: y\r\n".repeat(HEADERS + 1)] {
        let (mut client, _usage, _, _served) = connection(1 << 20);
        let request = format!("GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n{head}\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 431 "), "{text}");
        assert_eq!(
            error_of(&text)["message"],
            "the head of the request is too long; send at most 20480 bytes and 100 headers"
        );
    }
}

/// The error that is the body of the last of these responses.
fn error_of(text: &str) -> serde_json::Value {
    let (head, body) = text.rsplit_once("\r\n\r\n").unwrap();
    let head = &head[head.rfind("HTTP/1.1 ").unwrap()..];
    assert!(head.contains(&format!("\r\ncontent-length: {}", body.len())), "{head}");
    assert_eq!(head.matches("content-length").count(), 1, "{head}");
    assert!(head.contains("\r\ncontent-type: application/json\r\n"), "{head}");
    serde_json::from_str(body).unwrap()
}

#[tokio::test(start_paused = true)]
async fn head_that_can_not_be_read_gets_an_error_with_a_body() {
    for request in [
        "get / HTTP/1.1\r\nhost: localhost\r\nbad header\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "GET /a b HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: x\r\n\r\n",
    ] {
        // Alone, and after a request that is served.
        for before in ["", std::str::from_utf8(REQUEST).unwrap()] {
            let (mut client, _usage, _, _served) = connection(1 << 20);
            client.write_all(format!("{before}{request}").as_bytes()).await.unwrap();
            let mut text = String::new();
            client.read_to_string(&mut text).await.unwrap();
            let first = if before.is_empty() { "HTTP/1.1 400 " } else { "HTTP/1.1 200 " };
            assert!(text.starts_with(first), "{text}");
            assert_eq!(text.matches("HTTP/1.1 400 Bad Request\r\n").count(), 1, "{request}");
            let error = error_of(&text);
            assert_eq!(error["code"], 3);
            let message = error["message"].as_str().unwrap();
            assert!(message.starts_with("the head of the request can't be read; "), "{message}");
        }
    }
}

/// How long a request that has not come whole is waited for, when its client is in this condition.
async fn waits(condition: Condition) -> Duration {
    let current = Arc::new(Mutex::new(Condition::Open));
    let (mut client, _usage, usage, served) = connection_of(1 << 20, Arc::clone(&current));
    let head = "POST /v1/jobs:batchGet HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                content-length: 100\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    settled(|| usage.calls() == 1).await;
    let began = Instant::now();
    *current.lock().unwrap() = condition;
    settled_in_time(|| usage.calls() == 0).await;
    let waited = began.elapsed();
    assert_eq!(served.is_finished(), condition != Condition::Open);
    waited
}

async fn settled_in_time(is: impl Fn() -> bool) {
    while !is() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn call_of_a_client_that_has_left_ends_soon() {
    assert!(waits(Condition::Gone).await <= Duration::from_secs(6));
    let half_closed = waits(Condition::HalfClosed).await;
    assert!((9..=21).contains(&half_closed.as_secs()), "{half_closed:?}");
    let open = waits(Condition::Open).await;
    assert!((29..=36).contains(&open.as_secs()), "{open:?}");
}

#[test]
fn tick_that_comes_a_moment_early_ends_a_half_closed_connection() {
    assert!(has_left(HALF_CLOSED) && has_left(HALF_CLOSED.mul_f64(0.999)));
    assert!(!has_left(HALF_CLOSED / 2));
}

#[tokio::test(start_paused = true)]
async fn response_to_a_half_closed_client_goes_on_while_it_is_taken() {
    let current = Arc::new(Mutex::new(Condition::HalfClosed));
    let (mut client, _usage, usage, _served) = connection_of(1000, current);
    client.write_all(REQUEST).await.unwrap();
    let mut text = Vec::new();
    let began = Instant::now();
    while !text.ends_with(b"}\n") {
        let mut piece = [0; 1000];
        let read = client.read(&mut piece).await.unwrap();
        assert!(read > 0, "after {:?}", began.elapsed());
        text.extend_from_slice(&piece[..read]);
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    assert!(began.elapsed() > 3 * HALF_CLOSED);
    settled(|| usage.calls() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn body_that_does_not_come_is_waited_for_half_a_minute() {
    let (mut client, _usage, _, _served) = connection(1 << 20);
    let head = "POST /v1/jobs:batchGet HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                content-length: 100\r\nconnection: close\r\n\r\n{\"jobs\"";
    client.write_all(head.as_bytes()).await.unwrap();
    let began = Instant::now();
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 408 ") && text.contains("REQUEST_TIMEOUT"), "{text}");
    assert!((29..=36).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn idle_connection_ends_at_once_when_the_server_drains() {
    let (mut client, usage, _, served) = connection(1 << 20);
    client.write_all(REQUEST).await.unwrap();
    read_document(&mut client).await;
    let began = Instant::now();
    usage.drain();
    served.await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(1));
}
