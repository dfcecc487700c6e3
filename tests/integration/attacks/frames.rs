//! Frames that cost the server more than their sender.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

pub(super) fn raw(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Opens a stream for a call, without HPACK's tables.
pub(super) fn open(stream: u32) -> Vec<u8> {
    let mut block = vec![0x83, 0x86]; // POST, http
    for (name, value) in [
        (":path", "/jobwatch.v1.JobStatusService/WatchJobs"),
        (":authority", "a"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
    }
    raw(HEADERS, 4, stream, &block)
}

/// A connection that has sent its preface.
pub(super) async fn connect_raw(address: SocketAddr) -> TcpStream {
    let mut stream = connect_from(address, 2).await;
    stream.write_all(&[PREFACE, &raw(SETTINGS, 0, 0, &[])].concat()).await.unwrap();
    stream
}

/// Sends `frames` until the server ends the connection. Returns the code of its GOAWAY.
async fn flood(stream: TcpStream, frames: Vec<u8>, times: usize) -> Option<u32> {
    let (mut read, mut write) = stream.into_split();
    let writing = tokio::spawn(async move {
        for _ in 0..times {
            if write.write_all(&frames).await.is_err() {
                break;
            }
        }
        write
    });
    let code = loop {
        let mut head = [0; 9];
        if read.read_exact(&mut head).await.is_err() {
            break None;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        if read.read_exact(&mut payload).await.is_err() {
            break None;
        }
        if head[3] == GOAWAY {
            break Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
    };
    writing.abort();
    code
}

/// Opens a thousand streams, and changes their windows again and again.
pub(super) async fn settings_flood(address: SocketAddr) -> Option<u32> {
    let mut stream = connect_raw(address).await;
    for n in 0..1000 {
        stream.write_all(&open(2 * n + 1)).await.unwrap();
    }
    let change = |window: u8| raw(SETTINGS, 0, 0, &[0, 4, 0, 0, window, 0]);
    guard(flood(stream, [change(1), change(2)].concat(), 100_000)).await
}

/// Opens streams and resets them at once.
pub(super) async fn rapid_reset(address: SocketAddr) -> Option<u32> {
    let stream = connect_raw(address).await;
    let mut frames = Vec::new();
    for n in 0..20_000 {
        frames.extend(open(2 * n + 1));
        frames.extend(raw(RST_STREAM, 0, 2 * n + 1, &[0, 0, 0, 8]));
    }
    guard(flood(stream, frames, 1)).await
}

/// Opens streams and has the server reset them.
pub(super) async fn provoked_resets(address: SocketAddr) -> Option<u32> {
    let stream = connect_raw(address).await;
    let mut frames = Vec::new();
    for n in 0..3000 {
        frames.extend(open(2 * n + 1));
        // The window becomes too large.
        frames.extend(raw(WINDOW_UPDATE, 0, 2 * n + 1, &[0x7f, 0xff, 0xff, 0xff]));
    }
    guard(flood(stream, frames, 1)).await
}

/// The code of a GOAWAY after a flood. It is lost where the server has closed the socket
/// before it has read all.
pub(super) fn is_calmed(code: Option<u32>) -> bool {
    matches!(code, Some(ENHANCE_YOUR_CALM) | None)
}

#[tokio::test]
async fn settings_that_change_windows_again_and_again_end_the_connection() {
    let mut scene = Scene::start("SETTINGS flood").await;
    let address = scene.address();
    let attack = async move {
        let mut codes = Vec::new();
        for _ in 0..2 * scale() {
            codes.push(settings_flood(address).await);
        }
        codes
    };
    let codes = scene.under(attack).await;
    assert!(codes.iter().all(|code| is_calmed(*code)), "{codes:?}");
    scene.finish().await;
}

#[tokio::test]
async fn streams_that_are_reset_at_once_end_the_connection() {
    let mut scene = Scene::start("rapid reset").await;
    let address = scene.address();
    let attack = async move {
        for _ in 0..scale() {
            rapid_reset(address).await;
        }
    };
    scene.under(attack).await;
    let log = scene.program.log().len();
    assert!(log < 20_000, "{log} bytes of log");
    scene.finish().await;
}

#[tokio::test]
async fn resets_that_the_server_is_made_to_send_end_the_connection() {
    let mut scene = Scene::start("provoked resets").await;
    let address = scene.address();
    let attack = async move {
        let mut codes = Vec::new();
        for _ in 0..scale() {
            codes.push(provoked_resets(address).await);
        }
        codes
    };
    let codes = scene.under(attack).await;
    assert!(codes.iter().all(|code| is_calmed(*code)), "{codes:?}");
    scene.finish().await;
}

#[tokio::test]
async fn hundred_calls_cancelled_at_once_leave_their_neighbours_alone() {
    let simulator = simulator(Vendor::Immuta).await;
    let gateway = Gateway::start([Backend::of(&simulator)]).await;
    let client = gateway.client();
    let started = simulator.start_job(Plan::fixed("active"));
    let job = job_at(&simulator, &started);
    let mut neighbour = Watch::of(&client, &job).await;
    neighbour.status().await;
    for _ in 0..5 {
        let calls = (0..100).map(|_| {
            let (client, mut request) = (client.clone(), get_request(&job));
            request.wait = Some(proto_ms(60_000));
            tokio::spawn(async move { client.clone().get_job_status(request).await })
        });
        let calls: Vec<_> = calls.collect();
        get(&client, &job).await.unwrap();
        calls.iter().for_each(tokio::task::JoinHandle::abort);
    }
    // Streams that are opened and reset in one write are not even accepted before.
    let mut attacker = Attacker::connect(gateway.address, 1, 1 << 16).await;
    let mut calls = Vec::new();
    for _ in 0..100 {
        calls.push(attacker.begin("WatchJobs").await.unwrap());
    }
    drop(calls);
    let response = attacker.call("GetJobStatus", frame(&get_request(&job).encode_to_vec())).await.unwrap();
    assert_eq!(guard(response).await.unwrap().status(), 200);
    simulator.finish(&started.id);
    neighbour.terminal_status().await;
}

#[tokio::test]
async fn thousand_watches_on_one_channel_are_open_at_once() {
    let simulator = simulator(Vendor::Immuta).await;
    let gateway = Gateway::start([Backend::of(&simulator)]).await;
    let client = gateway.client();
    let started = simulator.start_job(Plan::fixed("active"));
    let job = job_at(&simulator, &started);
    let mut watches = Vec::new();
    for _ in 0..1000 {
        let mut watch = Watch::of(&client, &job).await;
        watch.status().await;
        watches.push(watch);
    }
    simulator.finish(&started.id);
    for watch in &mut watches {
        watch.terminal_status().await;
    }
}

#[tokio::test]
async fn connection_without_a_preface_is_closed() {
    let gateway = Gateway::start([Backend::dead(Vendor::Claret).await]).await;
    let mut stream = connect_from(gateway.address, 2).await;
    // Enough for a limit on first bytes.
    stream.write_all(&PREFACE[..20]).await.unwrap();
    let mut rest = Vec::new();
    let _ = guard(stream.read_to_end(&mut rest)).await;
}

#[tokio::test]
async fn connections_of_one_address_leave_room_for_others() {
    let mut scene = Scene::start("idle connections").await;
    let address = scene.address();
    let attack = async move {
        let mut open = Vec::new();
        for _ in 0..300 {
            open.push(connect_raw(address).await);
        }
        let mut closed = 0;
        for stream in &mut open[160..] {
            let mut byte = [0; 1];
            // A connection within the share receives SETTINGS.
            closed += usize::from(!matches!(guard(stream.read(&mut byte)).await, Ok(1)));
        }
        (open, closed)
    };
    let (open, closed) = scene.under(attack).await;
    assert_eq!(closed, 140, "the share of one address is 150 of 600");
    // At most a line a second, and the attack may take a few seconds.
    let log = scene.program.log();
    let lines = log.matches("connection refused: its address has").count();
    assert!((1..70).contains(&lines), "{lines} lines of 140 refusals: {log}");
    scene.go_on().await;
    drop(open);
    scene.finish().await;
}
