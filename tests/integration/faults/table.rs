//! The faults of the network and of HTTP, and what callers see of each.

use jobwatch::simulators::{Delivery, Effect, RawResponse};
use tonic::Code;

use crate::proxy::Fault;

/// What a caller sees while the fault lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sees {
    /// The job's status, without any sign of the fault.
    Response,
    Outage,
    Malformed,
}

impl Sees {
    pub(super) fn error(self) -> (Code, &'static str) {
        match self {
            Self::Response => panic!("no error"),
            Self::Outage => (Code::Unavailable, "BACKEND_UNAVAILABLE"),
            Self::Malformed => (Code::Internal, "BACKEND_MALFORMED"),
        }
    }
}

/// One fault.
pub(super) struct Row {
    /// Its name in docs/faults.md.
    pub(super) name: &'static str,
    pub(super) sees: Sees,
    /// Only the time-out ends it.
    pub(super) stuck: bool,
    pub(super) fault: Wrong,
}

/// The fault.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wrong {
    /// An effect of the simulators, in JSON.
    Effect(&'static str),
    /// These bytes, which the effect `raw` can also send.
    Bytes(fn(&RawResponse) -> Delivery),
    /// A fault that only a proxy can cause.
    Between(fn() -> Fault),
}

impl Wrong {
    pub(super) fn fault(self) -> Fault {
        match self {
            Self::Effect(_) => Fault::of(&self.effect().expect("it is one")),
            Self::Bytes(change) => Fault::changed(change),
            Self::Between(fault) => fault(),
        }
    }

    pub(super) fn effect(self) -> Option<Effect> {
        match self {
            Self::Effect(json) => Some(serde_json::from_str(json).unwrap()),
            Self::Bytes(_) | Self::Between(_) => None,
        }
    }
}

const fn row(name: &'static str, sees: Sees, effect: &'static str) -> Row {
    Row { name, sees, stuck: false, fault: Wrong::Effect(effect) }
}

const fn stuck(name: &'static str, effect: &'static str) -> Row {
    Row { name, sees: Sees::Outage, stuck: true, fault: Wrong::Effect(effect) }
}

const fn bytes(name: &'static str, sees: Sees, change: fn(&RawResponse) -> Delivery) -> Row {
    Row { name, sees, stuck: false, fault: Wrong::Bytes(change) }
}

const fn stuck_between(name: &'static str, fault: fn() -> Fault) -> Row {
    Row { name, sees: Sees::Outage, stuck: true, fault: Wrong::Between(fault) }
}

use Sees::{Malformed, Outage, Response as Fine};

pub(super) const ROWS: &[Row] = &[
    // Time.
    row("latency", Fine, r#"{"delay": 60}"#),
    row("jitter", Fine, r#"{"jitter": 80}"#),
    stuck("latency beyond the time-out", r#"{"delay": 2000}"#),
    stuck_between("a request that is held up", || Fault::delayed(1_500..=2_000, 0..=0)),
    row("throttled bytes", Fine, r#"{"throttle": {"bytes": 64, "pause_ms": 5}}"#),
    stuck("throttled below the time-out", r#"{"throttle": {"bytes": 4, "pause_ms": 50}}"#),
    stuck("slowloris headers", r#"{"slow_head": 40}"#),
    // Connections that hang.
    stuck_between("accepted and never read", Fault::deaf),
    stuck("half-open before the response", r#"{"stall_at": 0}"#),
    stuck("half-open in the head", r#"{"stall_at": 20}"#),
    stuck("half-open in the body", r#"{"stall_at": -1}"#),
    // Connections that end.
    row("reset before the response", Outage, r#""reset""#),
    row("reset in the head", Outage, r#"{"reset_at": 20}"#),
    row("reset in the body", Outage, r#"{"reset_at": -1}"#),
    row("truncated before the response", Outage, r#"{"close_at": 0}"#),
    row("truncated head", Outage, r#"{"close_at": 20}"#),
    row("truncated body", Outage, r#"{"truncate": 20}"#),
    row("closed after each response, unannounced", Fine, r#""close_after_answer""#),
    // More than was requested.
    row("the response twice", Fine, r#""twice""#),
    row("bytes after the response", Fine, r#"{"extra": "\u0000BODY"}"#),
    row("an endless body in chunks", Malformed, ENDLESS_CHUNKS),
    row("an endless body without a length", Malformed, ENDLESS_BODY),
    row("a gzip bomb", Malformed, BOMB),
    row("100,000 headers", Outage, r#"{"many_headers": 100000}"#),
    row("an endless head", Outage, ENDLESS_HEAD),
    row("one header of a megabyte", Outage, r#"{"huge_header": 1048576}"#),
    // Wrong lengths.
    row("Content-Length too small", Malformed, r#"{"wrong_length": -3}"#),
    stuck("Content-Length too large", r#"{"wrong_length": 3}"#),
    bytes("Content-Length too large, then the end", Outage, |it| {
        Delivery::of(it.with_length(it.body.len() + 3)).then_close()
    }),
    row("Content-Length of a terabyte", Malformed, r#"{"content_length": "1099511627776"}"#),
    row("Content-Length beyond 64 bits", Outage, r#"{"content_length": "99999999999999999999"}"#),
    row("Content-Length that is no number", Outage, r#"{"content_length": "-1"}"#),
    bytes("two Content-Lengths that differ", Outage, |it| {
        let length = it.body.len();
        let two = format!("Content-Length: {length}\r\nContent-Length: {}\r\n", length + 1);
        Delivery::of(it.with_body(&two, &it.body))
    }),
    bytes("Content-Length beside chunks", Fine, |it| {
        let lines = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n";
        Delivery::of(it.with_body(lines, chunked(&it.body, 7, "")))
    }),
    // Chunks.
    bytes("chunks of one byte with extensions", Fine, |it| {
        Delivery::of(it.with_body("Transfer-Encoding: chunked\r\n", chunked(&it.body, 1, ";name=\"BODY\"")))
    }),
    bytes("a chunk whose size is no number", Outage, |it| {
        Delivery::of(it.with_body("Transfer-Encoding: chunked\r\n", "BODY\r\n"))
    }),
    bytes("a chunk whose size is beyond 64 bits", Outage, |it| {
        Delivery::of(it.with_body("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\n"))
    }),
    // Other protocols.
    row("no HTTP at all", Outage, r#"{"raw": "BODY BODY BODY\r\n\r\n"}"#),
    bytes("HTTP/2 in answer to HTTP/1.1", Outage, |_| {
        // An empty SETTINGS frame and a GOAWAY (RFC 9113, 6.5 and 6.8).
        Delivery::of([&[0, 0, 0, 4, 0, 0, 0, 0, 0][..], &[0, 0, 8, 7], &[0; 13]].concat()).then_close()
    }),
    bytes("HTTP/1.0 with a length", Fine, |it| {
        Delivery::of([b"HTTP/1.0", &it.whole()["HTTP/1.1".len()..]].concat()).then_close()
    }),
    row("HTTP/1.0 up to the end", Fine, r#""http_1_0""#),
    bytes("informational answers first", Fine, |it| {
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </BODY>\r\n\r\n";
        let first = format!("HTTP/1.1 100 Continue\r\n\r\n{hints}HTTP/1.1 102 Processing\r\n\r\n");
        Delivery::of([first.into_bytes(), it.whole()].concat())
    }),
    stuck_between("informational answers without an end", || {
        Fault::changed(|_| Delivery::of([]).then_repeat("HTTP/1.1 102 Processing\r\n\r\n"))
    }),
    bytes("a header with control bytes", Outage, |it| {
        Delivery::of(it.with_body("x: BODY\0\x01\r\nContent-Length: 0\r\n", b""))
    }),
    bytes("a header name with a space", Outage, |it| {
        Delivery::of(it.with_body("x BODY: 1\r\nContent-Length: 0\r\n", b""))
    }),
    bytes("a header that is not ASCII", Fine, |it| {
        Delivery::of(it.with_body(&format!("x: ä\r\nContent-Length: {}\r\n", it.body.len()), &it.body))
    }),
    bytes("lines that end in LF alone", Fine, |it| {
        let head = String::from_utf8(it.head(&format!("Content-Length: {}\r\n", it.body.len()))).unwrap();
        Delivery::of([head.replace("\r\n", "\n").as_bytes(), &it.body].concat())
    }),
    row("a status beyond 999", Outage, r#"{"raw": "HTTP/1.1 2000 OK\r\n\r\n"}"#),
    // Compression.
    bytes("gzip that is none", Fine, |it| compressed(it, "gzip", &it.body)),
    bytes("gzip that breaks off", Outage, |it| {
        // The first bytes of a member, up to the middle of its first block.
        compressed(it, "gzip", &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff, 0x52, 0x18])
    }),
    bytes("an unknown compression", Malformed, |it| compressed(it, "br", &[0x0b, 0x01, 0x80, 0x03])),
    bytes("an empty body", Malformed, |it| Delivery::of(it.with_body("Content-Length: 0\r\n", b""))),
];

/// Bodies that could use unbounded memory.
pub(super) const HOGS: &[Wrong] = &[
    Wrong::Effect(ENDLESS_CHUNKS),
    Wrong::Effect(ENDLESS_BODY),
    Wrong::Effect(BOMB),
    Wrong::Effect(ENDLESS_HEAD),
];

const ENDLESS_CHUNKS: &str = r#""endless_chunks""#;
const ENDLESS_BODY: &str = r#""endless_body""#;
const ENDLESS_HEAD: &str = r#""endless_head""#;
const BOMB: &str = r#"{"gzip_bomb": 268435456}"#;

fn compressed(response: &RawResponse, encoding: &str, body: &[u8]) -> Delivery {
    let lines = format!("Content-Encoding: {encoding}\r\nContent-Length: {}\r\n", body.len());
    Delivery::of(response.with_body(&lines, body))
}

fn chunked(body: &[u8], size: usize, extension: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in body.chunks(size) {
        bytes.extend(format!("{:x}{extension}\r\n", piece.len()).into_bytes());
        bytes.extend_from_slice(piece);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\nTrailer: BODY\r\n\r\n");
    bytes
}
