//! What each effect sends, byte by byte, to a client that knows nothing of HTTP.

use std::{io::ErrorKind, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::simulators::{Effect, Fault, Plan, Simulator, Vendor, credentials};

/// How a connection went on after what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// FIN.
    Close,
    /// RST.
    Reset,
    /// Neither; the client left.
    Open,
}

const REQUEST: &str = r#"{"jobIds":["a"]}"#;

struct Connection {
    simulator: Simulator,
    stream: TcpStream,
}

impl Connection {
    async fn open(simulator: Simulator) -> Self {
        let stream = TcpStream::connect(simulator.addr()).await.unwrap();
        Self { simulator, stream }
    }

    async fn start() -> Self {
        let simulator = Simulator::start(Vendor::Immuta).await.unwrap();
        simulator.start_job(Plan::fixed("active").id("a"));
        Self::open(simulator).await
    }

    fn inject(&self, effect: &str) {
        let fault = format!(r#"{{"effect": {effect}, "path": "/jobs", "job_id": "a", "times": 1}}"#);
        self.simulator.inject(serde_json::from_str(&fault).unwrap());
    }

    async fn send_request(&mut self) {
        let key = credentials::IMMUTA_API_KEY;
        let head = format!(
            "POST /jobs/statuses HTTP/1.1\r\nHost: localhost\r\nAuthorization: {key}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{REQUEST}",
            REQUEST.len()
        );
        self.stream.write_all(head.as_bytes()).await.unwrap();
    }

    /// All that comes, or the first so many bytes of it.
    async fn read(&mut self, limit: usize) -> (Vec<u8>, End) {
        let mut bytes = Vec::new();
        while bytes.len() < limit {
            let mut piece = vec![0; 64 << 10];
            let folder = piece.len().min(limit - bytes.len());
            let read = timeout(Duration::from_secs(30), self.stream.read(&mut piece[..folder])).await;
            match read.expect("nothing comes") {
                Ok(0) => return (bytes, End::Close),
                Ok(read) => bytes.extend_from_slice(&piece[..read]),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                    return (bytes, End::Reset);
                }
            }
        }
        (bytes, End::Open)
    }

    /// The bytes of an unchanged response, over this connection.
    async fn unchanged(&mut self) -> Vec<u8> {
        self.send_request().await;
        let mut bytes = self.read(1).await.0;
        while !bytes.ends_with(b"}}") {
            bytes.extend(self.read(1).await.0);
        }
        bytes
    }

    /// That nothing comes for a while.
    async fn is_silent(&mut self) {
        assert!(timeout(Duration::from_millis(50), self.stream.read(&mut [0])).await.is_err());
    }
}

/// What comes of one effect, over a connection of its own.
async fn with(effect: &str, limit: usize) -> (Vec<u8>, End) {
    let mut connection = Connection::start().await;
    connection.inject(effect);
    connection.send_request().await;
    connection.read(limit).await
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The head in lower case, and the body.
fn parts(bytes: &[u8]) -> (String, String) {
    let text = text(bytes);
    let (head, body) = text.split_once("\r\n\r\n").expect(&text);
    (head.to_lowercase(), body.to_owned())
}

const BODY: &str = r#"{"a":{"id":"a","state":"active","output":null,"retryCount":0}}"#;

#[tokio::test]
async fn distorted_response_has_the_length_of_the_original() {
    let mut connection = Connection::start().await;
    let unchanged = connection.unchanged().await;
    assert_eq!(parts(&unchanged).1, BODY);
    for (effect, close) in [("\"close_after_answer\"", true), (r#"{"extra": ""}"#, false)] {
        let mut connection = Connection::start().await;
        connection.inject(effect);
        connection.send_request().await;
        let (bytes, end) = connection.read(if close { usize::MAX } else { unchanged.len() }).await;
        assert_eq!((bytes.len(), end == End::Close), (unchanged.len(), close), "{}", text(&bytes));
        let [written, wanted] = [parts(&bytes).0, parts(&unchanged).0].map(|head| {
            let mut lines: Vec<_> = head.lines().map(str::to_owned).collect();
            lines.sort();
            lines.retain(|connection| !connection.starts_with("date:"));
            lines
        });
        assert_eq!(written, wanted);
        assert!(text(&bytes).contains("\r\ndate: "), "{}", text(&bytes));
    }
}

#[tokio::test]
async fn connection_ends_at_the_given_byte() {
    let whole = Connection::start().await.unchanged().await.len();
    for (effect, wanted, end) in [
        (r#""reset""#, 0, End::Reset),
        (r#"{"reset_at": 0}"#, 0, End::Reset),
        (r#"{"reset_at": 20}"#, 20, End::Reset),
        (r#"{"reset_at": -1}"#, whole - 1, End::Reset),
        (r#"{"close_at": 0}"#, 0, End::Close),
        (r#"{"close_at": 20}"#, 20, End::Close),
        (r#"{"close_at": -10}"#, whole - 10, End::Close),
        (r#"{"close_at": 100000}"#, whole, End::Close),
        (r#"{"truncate": 3}"#, whole - BODY.len() + 3, End::Close),
        (r#""close_after_answer""#, whole, End::Close),
    ] {
        let (bytes, ended) = with(effect, usize::MAX).await;
        assert_eq!((bytes.len(), ended), (wanted, end), "{effect}");
    }
}

#[tokio::test]
async fn stalled_connection_stays_open_and_sends_nothing() {
    for (effect, wanted) in [(r#"{"stall_at": 0}"#, 0), (r#"{"stall_at": 20}"#, 20), ("\"hang\"", 0)] {
        let mut connection = Connection::start().await;
        connection.inject(effect);
        connection.send_request().await;
        assert_eq!(connection.read(wanted).await.0.len(), wanted, "{effect}");
        connection.is_silent().await;
    }
}

#[tokio::test]
async fn pacing_effects_delay_the_given_bytes() {
    let since = Instant::now();
    let (bytes, _) = with(r#"{"throttle": {"bytes": 64, "pause_ms": 20}}"#, 130).await;
    assert_eq!(bytes.len(), 130);
    assert!(since.elapsed() >= Duration::from_millis(40));

    let since = Instant::now();
    let (bytes, _) = with(r#"{"slow_head": 1}"#, 100).await;
    assert_eq!(bytes.len(), 100);
    assert!(since.elapsed() >= Duration::from_millis(99));

    let since = Instant::now();
    with(r#"{"delay": 40}"#, 1).await;
    assert!(since.elapsed() >= Duration::from_millis(40));
    // The jitter has no lower bound: the response arrives.
    assert_eq!(with(r#"{"jitter": 20}"#, 1).await.0, b"H");
}

#[tokio::test]
async fn surplus_effects_send_extra_bytes() {
    let unchanged = Connection::start().await.unchanged().await;
    let mut connection = Connection::start().await;
    connection.inject("\"twice\"");
    connection.send_request().await;
    let twice = connection.read(unchanged.len() * 2).await.0;
    assert_eq!(text(&twice).matches(BODY).count(), 2);
    connection.is_silent().await;
    // The connection still serves requests.
    assert_eq!(parts(&connection.unchanged().await).1, BODY);

    let (bytes, _) = with(r#"{"extra": "\u0000more"}"#, unchanged.len() + 5).await;
    assert!(bytes.ends_with(b"}}\0more"));
    for (effect, head, repeated) in [
        ("\"endless_body\"", "connection: close", "    "),
        ("\"endless_chunks\"", "transfer-encoding: chunked", "\r\n1000\r\n    "),
    ] {
        let (bytes, end) = with(effect, 1_000_000).await;
        let (lines, body) = parts(&bytes);
        assert_eq!(end, End::Open);
        assert!(lines.contains(head) && !lines.contains("content-length"), "{lines}");
        assert!(body.contains(repeated));
    }
    let (bytes, end) = with("\"endless_head\"", 1_000_000).await;
    assert_eq!(end, End::Open);
    assert!(!text(&bytes).contains("\r\n\r\n") && text(&bytes).contains("x: BODY\r\nx: BODY\r\n"));
}

#[tokio::test]
async fn length_effects_announce_other_lengths() {
    for (effect, length) in [
        (r#"{"wrong_length": -3}"#, (BODY.len() - 3).to_string()),
        (r#"{"wrong_length": 3}"#, (BODY.len() + 3).to_string()),
        (r#"{"content_length": "1e9"}"#, "1e9".to_owned()),
    ] {
        let mut connection = Connection::start().await;
        connection.inject(effect);
        connection.send_request().await;
        let mut bytes = Vec::new();
        while !bytes.ends_with(BODY.as_bytes()) {
            bytes.extend(connection.read(1).await.0);
        }
        let head = parts(&bytes).0;
        assert!(head.contains(&format!("\r\ncontent-length: {length}")), "{head}");
        connection.is_silent().await;
    }
}

#[tokio::test]
async fn head_effects_add_headers() {
    for (effect, length) in
        [(r#"{"many_headers": 100000}"#, 900_000), (r#"{"huge_header": 900000}"#, 900_000)]
    {
        let mut connection = Connection::start().await;
        connection.inject(effect);
        connection.send_request().await;
        let (mut bytes, _) = connection.read(length).await;
        assert!(!text(&bytes).contains("\r\n\r\n"), "{effect}");
        while !bytes.ends_with(BODY.as_bytes()) {
            bytes.extend(connection.read(1).await.0);
        }
        assert_eq!(parts(&bytes).1, BODY, "{effect}");
    }
}

#[tokio::test]
async fn protocol_effects_send_other_protocols() {
    let (bytes, end) = with("\"http_1_0\"", usize::MAX).await;
    let (head, body) = parts(&bytes);
    assert!(head.starts_with("http/1.0 200 ok\r\n") && !head.contains("content-length"), "{head}");
    assert_eq!((&*body, end), (BODY, End::Close));
    let (bytes, end) = with(r#"{"raw": "SSH-2.0-\u0001\r\n"}"#, usize::MAX).await;
    assert_eq!((&*bytes, end), (&b"SSH-2.0-\x01\r\n"[..], End::Close));
}

#[tokio::test]
async fn gzip_bomb_is_small_until_decompressed() {
    let simulator = Simulator::start(Vendor::Immuta).await.unwrap();
    simulator.inject(Fault::new(Effect::GzipBomb(50_000_000)));
    let http = reqwest::Client::builder().gzip(true).build().unwrap();
    let mut response = http.get(simulator.base_url()).send().await.unwrap();
    let mut length = 0;
    while let Ok(Some(piece)) = response.chunk().await {
        assert!(piece.iter().all(|byte| *byte == b' '));
        length += piece.len();
    }
    // Without its end, so some bits of the last byte are missing.
    assert!(length >= 49_999_000, "{length}");
    let (bytes, _) = with(r#"{"gzip_bomb": 50000000}"#, 400).await;
    let head = parts(&bytes).0;
    let announced = head.lines().find_map(|connection| connection.strip_prefix("content-length: ")).unwrap();
    assert!(announced.parse::<usize>().unwrap() < 500_000, "{announced}");
}

#[tokio::test]
async fn reused_connection_closes_under_the_next_request() {
    let mut connection = Connection::start().await;
    connection.inject("\"close_under_request\"");
    // A new connection is served, and the fault is still there.
    connection.unchanged().await;
    connection.send_request().await;
    assert_eq!(connection.read(usize::MAX).await, (Vec::new(), End::Close));
    let mut connection = Connection::open(connection.simulator).await;
    connection.unchanged().await;
    connection.unchanged().await;
}

#[tokio::test]
async fn connection_left_open_by_a_fault_serves_the_next_request() {
    let mut connection = Connection::start().await;
    for _ in 0..3 {
        connection.inject(r#"{"throttle": {"bytes": 50, "pause_ms": 1}}"#);
        connection.unchanged().await;
        connection.unchanged().await;
    }
    let statuses: Vec<_> = connection.simulator.calls().iter().map(|call| call.status).collect();
    assert_eq!(statuses, [Some(200); 6]);
}
