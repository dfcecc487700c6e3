//! Bounds of a connection, on a paused clock.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
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

/// A connection, and the usage that can close it.
fn connection(
    room: usize,
) -> (DuplexStream, Arc<Usage>, Arc<ConnectionUsage>, JoinHandle<hyper::Result<()>>) {
    let (near, far) = duplex(room);
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
    }
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
    assert!(text.starts_with("HTTP/1.1 504 ") && text.contains("REQUEST_TIMEOUT"), "{text}");
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
