//! Files over sockets, from a vendor that answers byte for byte as a test says.

use std::{
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::AbortHandle,
};

use super::*;
use crate::{
    transport::{RateLimiter, ResponseBudget},
    vendors::{ClaretConfig, RefusedLocation},
};

const SECOND: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_mins(1);

/// What becomes of the connection after the answer.
#[derive(Clone, Copy)]
enum Then {
    Close,
    Reset,
    Stall,
}

struct Vendor {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    /// Told when the gateway has closed a connection.
    gone: Arc<Notify>,
    /// How long the gateway waits for it.
    timeout: Duration,
    task: AbortHandle,
}

impl Drop for Vendor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Vendor {
    async fn start(answer: impl Into<Vec<u8>>, then: Then) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (heads, gone) = (Arc::<Mutex<Vec<String>>>::default(), Arc::new(Notify::new()));
        let (seen, closed, answer) = (Arc::clone(&heads), Arc::clone(&gone), answer.into());
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let head = head(&mut stream).await;
                seen.lock().unwrap().push(head);
                // A gateway that has heard enough does not read the rest.
                let _ = stream.write_all(&answer).await;
                match then {
                    Then::Close => {}
                    Then::Reset => stream.set_zero_linger().unwrap(),
                    Then::Stall => {
                        let _ = stream.read(&mut [0]).await;
                        closed.notify_one();
                    }
                }
            }
        });
        Self { address, heads, gone, timeout: PATIENCE, task: task.abort_handle() }
    }

    fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// With a Content-Length of `announced` bytes.
    async fn sends(status: &str, headers: &str, announced: usize, body: &[u8], then: Then) -> Self {
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {announced}\r\n{headers}\r\n");
        Self::start([head.as_bytes(), body].concat(), then).await
    }

    async fn open(&self, offset: u64) -> Result<File, FileFault> {
        self.open_at("/demo/download/a.csv", offset).await
    }

    async fn open_at(&self, location: &str, offset: u64) -> Result<File, FileFault> {
        self.open_version(location, offset, None).await
    }

    /// Continues a download of this version.
    async fn resume(&self, offset: u64, version: &FileVersion) -> Result<File, FileFault> {
        self.open_version("/demo/download/a.csv", offset, Some(version)).await
    }

    async fn open_version(
        &self,
        location: &str,
        offset: u64,
        version: Option<&FileVersion>,
    ) -> Result<File, FileFault> {
        let backend = config::Backend {
            name: "claret".into(),
            vendor: Arc::new(ClaretConfig { tenant: "demo".into(), email: None }),
            base_url: format!("http://{}", self.address).parse().unwrap(),
            credentials: config::Credentials::bearer("hush".into()),
            poll: config::Poll {
                min_interval: SECOND,
                max_interval: SECOND,
                timeout: self.timeout,
                connect_timeout: SECOND,
                max_batch: NonZeroUsize::MIN,
                max_concurrency: NonZeroUsize::MIN,
                requests_per_second: NonZeroU32::MIN,
                not_found_grace: SECOND,
                login_backoff: SECOND,
                max_backoff: SECOND,
                max_response_bytes: 1,
            },
            network: config::Network::default(),
            own: toml::Table::new(),
        };
        let permit = RateLimiter::new(NonZeroU32::MAX).deferred();
        let endpoint = Endpoint::new(&backend, &ResponseBudget::new(1 << 20)).unwrap();
        endpoint.open(location, offset, version, permit).await
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap().to_lowercase()
}

/// The bytes that came, and how it ended.
async fn read(file: Result<File, FileFault>) -> (Vec<u8>, Result<(), FileFault>) {
    let mut bytes = Vec::new();
    let mut file = match file {
        Ok(file) => file,
        Err(fault) => return (bytes, Err(fault)),
    };
    loop {
        match file.next().await {
            Ok(Some(piece)) => {
                assert!((1..=PIECE).contains(&piece.len()));
                bytes.extend_from_slice(&piece);
            }
            Ok(None) => return (bytes, Ok(())),
            Err(fault) => return (bytes, Err(fault)),
        }
    }
}

fn unavailable(end: Result<(), FileFault>) -> String {
    match end {
        Err(FileFault::Backend(BackendFault { kind: FaultKind::Unavailable { why, .. }, .. })) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn file_comes_byte_for_byte_and_beyond_any_responses_limit() {
    // Looks compressed and is not to be touched.
    let content: Vec<u8> = [0x1f, 0x8b].into_iter().chain((0..=255).cycle().take(300_000)).collect();
    let headers = "Content-Type: application/gzip\r\n";
    let vendor = Vendor::sends("200 OK", headers, content.len(), &content, Then::Close).await;
    let file = vendor.open(0).await.unwrap();
    assert_eq!((file.content_type(), file.size()), ("application/gzip", Some(300_002)));
    assert_eq!(read(Ok(file)).await, (content, Ok(())));
    let head = vendor.heads().remove(0);
    assert!(head.starts_with("get /demo/download/a.csv http/1.1\r\n"), "{head}");
    assert!(
        head.contains("authorization: bearer hush\r\n") && head.contains("accept-encoding: identity\r\n")
    );
    assert!(!head.contains("range:"), "{head}");
}

#[tokio::test]
async fn a_part_is_asked_for_and_skipped_to_if_the_vendor_sends_the_whole() {
    let range = "Content-Range: bytes 4-8/9\r\n";
    let vendor = Vendor::sends("206 Partial Content", range, 5, b"efghi", Then::Close).await;
    assert_eq!(read(vendor.open(4).await).await, (b"efghi".to_vec(), Ok(())));
    assert!(vendor.heads()[0].contains("range: bytes=4-\r\n"));

    let whole = Vendor::sends("200 OK", "", 9, b"abcdefghi", Then::Close).await;
    assert_eq!(read(whole.open(4).await).await, (b"efghi".to_vec(), Ok(())));
    assert_eq!(read(whole.open(9).await).await, (Vec::new(), Ok(())));
    assert_eq!(read(whole.open(10).await).await.1, Err(FileFault::PastEnd { size: Some(9) }));

    let unannounced = Vendor::start("HTTP/1.1 200 OK\r\n\r\nabcdefghi", Then::Close).await;
    assert_eq!(read(unannounced.open(4).await).await, (b"efghi".to_vec(), Ok(())));
    assert_eq!(read(unannounced.open(9).await).await, (Vec::new(), Ok(())));
    assert_eq!(read(unannounced.open(10).await).await.1, Err(FileFault::PastEnd { size: Some(9) }));
}

#[tokio::test]
async fn a_file_that_breaks_off_is_never_a_short_one() {
    for then in [Then::Close, Then::Reset] {
        let vendor = Vendor::sends("200 OK", "", 9, b"abcd", then).await;
        let (bytes, end) = read(vendor.open(0).await).await;
        assert!(b"abcd".starts_with(&bytes[..]));
        unavailable(end);
    }
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n";
    let vendor = Vendor::start(chunked, Then::Close).await;
    unavailable(read(vendor.open(0).await).await.1);
}

#[tokio::test]
async fn the_bytes_are_counted_where_http_does_not() {
    let part = |range: &str, body: &str| {
        let head = "HTTP/1.1 206 Partial Content\r\nTransfer-Encoding: chunked\r\n";
        format!("{head}Content-Range: {range}\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
    };
    let short = Vendor::start(part("bytes 4-8/9", "ef"), Then::Close).await;
    let (bytes, end) = read(short.open(4).await).await;
    assert_eq!(
        (&bytes[..], &*unavailable(end)),
        (&b"ef"[..], "the file ended 3 bytes before its announced end")
    );
    let long = Vendor::start(part("bytes 4-8/9", "efghijk"), Then::Close).await;
    let Err(FileFault::Backend(fault)) = read(long.open(4).await).await.1 else { panic!() };
    assert_eq!(fault.kind, FaultKind::Malformed { why: "the file is longer than announced" });
}

#[tokio::test]
async fn silence_is_a_failure_before_the_response_and_in_its_midst() {
    let short = Duration::from_millis(200);
    let mute = Vendor::start("", Then::Stall).await.with_timeout(short);
    let Err(FileFault::Backend(fault)) = mute.open(0).await else { panic!("nothing was sent") };
    assert_eq!(fault.exchange.as_deref(), Some("GET /demo/download/a.csv"));
    assert_eq!(unavailable(read(mute.open(0).await).await.1), "no response within 200ms");
    let stalling = Vendor::sends("200 OK", "", 9, b"abcd", Then::Stall).await.with_timeout(short);
    // A busy machine may be too late for the first bytes.
    let mut begun = stalling.open(0).await;
    for _ in 0..100 {
        if begun.is_ok() {
            break;
        }
        begun = stalling.open(0).await;
    }
    let (bytes, end) = read(begun).await;
    assert!(b"abcd".starts_with(&bytes[..]));
    let Err(FileFault::Backend(fault)) = &end else { panic!("the file is cut off") };
    assert_eq!(fault.exchange.as_deref(), Some("GET /demo/download/a.csv"));
    assert_eq!(unavailable(end), "nothing came for 200ms");
    let busy = Vendor::sends("503 Busy", "", 0, b"", Then::Close).await;
    let Err(FileFault::Backend(fault)) = busy.open(0).await else { panic!("it is busy") };
    assert_eq!(fault.exchange.as_deref(), Some("GET /demo/download/a.csv: HTTP 503"));
}

#[tokio::test]
async fn file_that_is_dropped_is_cancelled_at_the_vendor() {
    let vendor = Vendor::sends("200 OK", "", 9, b"abcd", Then::Stall).await;
    let mut file = vendor.open(0).await.unwrap();
    assert_eq!(file.next().await.unwrap().unwrap(), "abcd");
    drop(file);
    timeout(PATIENCE, vendor.gone.notified()).await.expect("the vendor learns of it");
}

#[tokio::test]
async fn nothing_is_sent_anywhere_else() {
    let elsewhere = Vendor::sends("200 OK", "", 0, b"", Then::Close).await;
    let location = format!("Location: http://{}/a.csv\r\n", elsewhere.address);
    let vendor = Vendor::sends("302 Found", &location, 0, b"", Then::Close).await;
    let redirected = FileFault::Redirected { http_status: 302 };
    assert_eq!(read(vendor.open(0).await).await.1, Err(redirected));
    for location in [format!("http://{}/a.csv", elsewhere.address), format!("//{}/a.csv", elsewhere.address)]
    {
        let fault = read(vendor.open_at(&location, 0).await).await.1;
        assert_eq!(fault, Err(FileFault::Location(RefusedLocation::OtherOrigin)));
    }
    assert_eq!((vendor.heads().len(), elsewhere.heads().len()), (1, 0));
}

const SUNDAY: &str = "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
const MONDAY: &str = "Last-Modified: Mon, 07 Nov 1994 08:49:37 GMT\r\n";
const DATE: &str = "Date: Tue, 08 Nov 1994 08:49:37 GMT\r\n";

/// The version of a file of nine bytes whose head has these headers.
async fn version(headers: &str) -> FileVersion {
    let vendor = Vendor::sends("200 OK", headers, 9, b"abcdefghi", Then::Close).await;
    vendor.open(0).await.unwrap().version().clone()
}

/// A vendor that sends the bytes from the fourth on, with these headers.
async fn part(headers: &str) -> Vendor {
    let headers = format!("Content-Range: bytes 4-8/9\r\n{headers}");
    Vendor::sends("206 Partial Content", &headers, 5, b"efghi", Then::Close).await
}

#[tokio::test]
async fn continued_download_is_of_the_same_version() {
    let settled = format!("{SUNDAY}{DATE}");
    for (before, now, if_range) in [
        ("ETag: \"a\"\r\n", "ETag: \"a\"\r\n", Some("if-range: \"a\"\r\n")),
        ("ETag: \"a\"\r\n", "", Some("if-range: \"a\"\r\n")),
        ("ETag: W/\"a\"\r\n", "ETag: W/\"a\"\r\n", None),
        (&settled, SUNDAY, Some("if-range: sun, 06 nov 1994 08:49:37 gmt\r\n")),
        (&settled, "", Some("if-range: sun, 06 nov 1994 08:49:37 gmt\r\n")),
        (SUNDAY, SUNDAY, None),
        ("", "", None),
    ] {
        let version = version(before).await;
        let vendor = part(now).await;
        let file = vendor.resume(4, &version).await.unwrap();
        assert!(!file.version().differs_from(&version));
        assert_eq!(file.version().has_validator(), version.has_validator(), "{before:?} {now:?}");
        assert_eq!(read(Ok(file)).await, (b"efghi".to_vec(), Ok(())));
        let head = vendor.heads().remove(0);
        assert_eq!(head.contains("if-range"), if_range.is_some(), "{head}");
        assert!(head.contains(if_range.unwrap_or_default()), "{head}");
        // A vendor without ranges sends the whole.
        let vendor = Vendor::sends("200 OK", before, 9, b"abcdefghi", Then::Close).await;
        assert_eq!(read(vendor.resume(4, &version).await).await, (b"efghi".to_vec(), Ok(())));
    }
}

#[tokio::test]
async fn replaced_file_is_never_continued() {
    let settled = format!("{SUNDAY}{DATE}");
    for (before, now) in [
        ("ETag: \"a\"\r\n", "ETag: \"b\"\r\n"),
        ("ETag: W/\"a\"\r\n", "ETag: W/\"b\"\r\n"),
        (&settled, MONDAY),
        (SUNDAY, MONDAY),
    ] {
        let version = version(before).await;
        let whole = Vendor::sends("200 OK", now, 9, b"ABCDEFGHI", Then::Close).await;
        for vendor in [part(now).await, whole] {
            assert_eq!(vendor.resume(4, &version).await.unwrap_err(), FileFault::Changed, "{before} {now}");
        }
    }
    let version = version("").await;
    for size in [8, 3] {
        let vendor = Vendor::sends("200 OK", "", size, b"ABCDEFGH", Then::Close).await;
        assert_eq!(vendor.resume(4, &version).await.unwrap_err(), FileFault::Changed, "{size}");
    }
}

#[tokio::test]
async fn part_of_an_unknown_version_is_refused() {
    for (headers, status) in [
        ("ETag: W/\"a\"\r\n", "206 Partial Content"),
        (SUNDAY, "206 Partial Content"),
        ("ETag: \"a\"\r\n", "200 OK"),
    ] {
        let version = version(headers).await;
        let vendor = match status {
            "200 OK" => Vendor::sends(status, "", 9, b"ABCDEFGHI", Then::Close).await,
            _ => part("").await,
        };
        let Err(FileFault::Backend(fault)) = vendor.resume(4, &version).await else { panic!("{headers}") };
        assert!(matches!(fault.kind, FaultKind::Malformed { .. }), "{fault}");
    }
}
