//! The faults of the network and of HTTP, and what callers see of each.

use tonic::Code;

use crate::{harness::ms, proxy::Fault};

/// What a caller sees while the fault lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sees {
    /// The job's status, and nothing of the fault.
    Answer,
    Outage,
    Malformed,
}

impl Sees {
    pub(super) fn error(self) -> (Code, &'static str) {
        match self {
            Self::Answer => panic!("no error"),
            Self::Outage => (Code::Unavailable, "BACKEND_UNAVAILABLE"),
            Self::Malformed => (Code::Internal, "BACKEND_MALFORMED"),
        }
    }
}

/// One fault.
pub(super) struct Row {
    /// As in docs/faults.md.
    pub(super) name: &'static str,
    pub(super) sees: Sees,
    /// Only the time-out ends it.
    pub(super) stuck: bool,
    pub(super) fault: fn() -> Fault,
}

const fn row(name: &'static str, sees: Sees, fault: fn() -> Fault) -> Row {
    Row { name, sees, stuck: false, fault }
}

const fn stuck(name: &'static str, fault: fn() -> Fault) -> Row {
    Row { name, sees: Sees::Outage, stuck: true, fault }
}

use Sees::{Answer as Fine, Malformed, Outage};

pub(super) const ROWS: &[Row] = &[
    // Time.
    row("latency", Fine, || Fault::delayed(30..=30, 30..=30)),
    row("jitter", Fine, || Fault::delayed(0..=80, 0..=80)),
    stuck("latency beyond the time-out", || Fault::delayed(0..=0, 1_500..=2_000)),
    stuck("a request that is held up", || Fault::delayed(1_500..=2_000, 0..=0)),
    row("throttled bytes", Fine, || Fault::none().paced(64, ms(5))),
    stuck("throttled below the time-out", || Fault::none().paced(4, ms(50))),
    stuck("slowloris headers", || Fault::none().paced(1, ms(40))),
    // Connections that hang.
    stuck("accepted and never read", Fault::deaf),
    stuck("half-open before the answer", || Fault::none().first(0).then_stall()),
    stuck("half-open in the head", || Fault::none().first(20).then_stall()),
    stuck("half-open in the body", || Fault::none().first(-1).then_stall()),
    // Connections that end.
    row("reset before the answer", Outage, || Fault::none().first(0).then_reset()),
    row("reset in the head", Outage, || Fault::none().first(20).then_reset()),
    row("reset in the body", Outage, || Fault::none().first(-1).then_reset()),
    row("truncated before the answer", Outage, || Fault::none().first(0).then_close()),
    row("truncated head", Outage, || Fault::none().first(20).then_close()),
    row("truncated body", Outage, || Fault::none().first(-1).then_close()),
    row("closed after each answer, unannounced", Fine, || Fault::none().then_close()),
    // More than was asked for.
    row("the answer twice", Fine, || Fault::changed(|it| [it.whole(), it.whole()].concat())),
    row("bytes after the answer", Fine, || Fault::changed(|it| [it.whole(), b"\0BODY".to_vec()].concat())),
    row("an endless body in chunks", Malformed, endless_chunks),
    row("an endless body without a length", Malformed, endless_body),
    row("a gzip bomb", Malformed, bomb),
    row("100,000 headers", Outage, || Fault::changed(|it| it.with_body(&"x: BODY\r\n".repeat(100_000), b""))),
    row("an endless head", Outage, endless_head),
    row("one header of a megabyte", Outage, || {
        Fault::changed(|it| it.with_body(&format!("x: {}\r\n", "x".repeat(1 << 20)), b""))
    }),
    // Lengths that lie.
    row("Content-Length too small", Malformed, || Fault::changed(|it| it.with_length(it.body.len() - 3))),
    stuck("Content-Length too large", || Fault::changed(|it| it.with_length(it.body.len() + 3))),
    row("Content-Length too large, then the end", Outage, || {
        Fault::changed(|it| it.with_length(it.body.len() + 3)).then_close()
    }),
    row("Content-Length of a terabyte", Malformed, || Fault::changed(|it| it.with_length(1_u64 << 40))),
    row("Content-Length beyond 64 bits", Outage, || {
        Fault::changed(|it| it.with_length("99999999999999999999"))
    }),
    row("Content-Length that is no number", Outage, || Fault::changed(|it| it.with_length("-1"))),
    row("two Content-Lengths that differ", Outage, || {
        Fault::changed(|it| {
            let length = it.body.len();
            let two = format!("Content-Length: {length}\r\nContent-Length: {}\r\n", length + 1);
            it.with_body(&two, &it.body)
        })
    }),
    row("Content-Length beside chunks", Fine, || {
        Fault::changed(|it| {
            let lines = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n";
            it.with_body(lines, chunked(&it.body, 7, ""))
        })
    }),
    // Chunks.
    row("chunks of one byte with extensions", Fine, || {
        Fault::changed(|it| {
            it.with_body("Transfer-Encoding: chunked\r\n", chunked(&it.body, 1, ";name=\"BODY\""))
        })
    }),
    row("a chunk whose size is no number", Outage, || {
        Fault::changed(|it| it.with_body("Transfer-Encoding: chunked\r\n", "BODY\r\n"))
    }),
    row("a chunk whose size is beyond 64 bits", Outage, || {
        Fault::changed(|it| it.with_body("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\n"))
    }),
    // Not the protocol.
    row("no HTTP at all", Outage, || Fault::changed(|_| b"BODY BODY BODY\r\n\r\n".to_vec())),
    row("HTTP/2 in answer to HTTP/1.1", Outage, || {
        // An empty SETTINGS frame and a GOAWAY (RFC 9113, 6.5 and 6.8).
        Fault::changed(|_| [&[0, 0, 0, 4, 0, 0, 0, 0, 0][..], &[0, 0, 8, 7], &[0; 13]].concat()).then_close()
    }),
    row("HTTP/1.0 with a length", Fine, || Fault::changed(|it| one_point_zero(&it.whole())).then_close()),
    row("HTTP/1.0 up to the end", Fine, || {
        Fault::changed(|it| one_point_zero(&it.with_body("", &it.body))).then_close()
    }),
    row("informational answers first", Fine, || {
        Fault::changed(|it| {
            let hints = "HTTP/1.1 103 Early Hints\r\nLink: </BODY>\r\n\r\n";
            let first = format!("HTTP/1.1 100 Continue\r\n\r\n{hints}HTTP/1.1 102 Processing\r\n\r\n");
            [first.into_bytes(), it.whole()].concat()
        })
    }),
    stuck("informational answers without an end", || {
        Fault::changed(|_| Vec::new()).then_repeat("HTTP/1.1 102 Processing\r\n\r\n")
    }),
    row("a header with control bytes", Outage, || {
        Fault::changed(|it| it.with_body("x: BODY\0\x01\r\nContent-Length: 0\r\n", b""))
    }),
    row("a header name with a space", Outage, || {
        Fault::changed(|it| it.with_body("x BODY: 1\r\nContent-Length: 0\r\n", b""))
    }),
    row("a header that is not ASCII", Fine, || {
        Fault::changed(|it| it.with_body(&format!("x: ä\r\nContent-Length: {}\r\n", it.body.len()), &it.body))
    }),
    row("lines that end in LF alone", Fine, || {
        Fault::changed(|it| {
            let head = String::from_utf8(it.head(&format!("Content-Length: {}\r\n", it.body.len()))).unwrap();
            [head.replace("\r\n", "\n").as_bytes(), &it.body].concat()
        })
    }),
    row("a status beyond 999", Outage, || Fault::changed(|_| b"HTTP/1.1 2000 OK\r\n\r\n".to_vec())),
    // Compression.
    row("gzip that is none", Outage, || {
        Fault::changed(|it| {
            it.with_body(
                &format!("Content-Encoding: gzip\r\nContent-Length: {}\r\n", it.body.len()),
                &it.body,
            )
        })
    }),
    row("gzip that breaks off", Outage, || {
        Fault::changed(|it| {
            let short = &gzip_of_spaces(1 << 10)[..12];
            it.with_body(&format!("Content-Encoding: gzip\r\nContent-Length: {}\r\n", short.len()), short)
        })
    }),
    row("an unknown compression", Malformed, || {
        Fault::changed(|it| {
            it.with_body("Content-Encoding: br\r\nContent-Length: 4\r\n", [0x0b, 0x01, 0x80, 0x03])
        })
    }),
    row("an empty body", Malformed, || Fault::changed(|it| it.with_body("Content-Length: 0\r\n", b""))),
];

/// What could cost memory without a limit.
pub(super) const HOGS: &[fn() -> Fault] = &[endless_chunks, endless_body, bomb, endless_head];

fn endless_chunks() -> Fault {
    Fault::changed(|it| it.head("Transfer-Encoding: chunked\r\n"))
        .then_repeat(format!("1000\r\n{}\r\n", " ".repeat(0x1000)))
}

fn endless_body() -> Fault {
    Fault::changed(|it| it.head("Connection: close\r\n")).then_repeat(vec![b' '; 0x1000])
}

fn endless_head() -> Fault {
    Fault::changed(|_| b"HTTP/1.1 200 OK\r\n".to_vec()).then_repeat("x: BODY\r\n")
}

fn bomb() -> Fault {
    Fault::changed(|it| {
        let bomb = gzip_of_spaces(1 << 28);
        it.with_body(&format!("Content-Encoding: gzip\r\nContent-Length: {}\r\n", bomb.len()), bomb)
    })
}

fn one_point_zero(answer: &[u8]) -> Vec<u8> {
    [b"HTTP/1.0", &answer["HTTP/1.1".len()..]].concat()
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

/// A gzip member of about `length` spaces, without its end: one block of a space
/// and its repeats, 258 at a time, in the fixed codes of RFC 1951, 3.2.6.
fn gzip_of_spaces(length: usize) -> Vec<u8> {
    // High bit first: the repeat is code 285 (11000101) and distance 1 (00000).
    const REPEAT: u32 = 0b0_0000_1010_0011;
    const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    let mut bytes = HEAD.to_vec();
    // Three bits of a block's head, not the last; then a space, 0x30 + 0x20.
    let (mut pending, mut count) = (0b010_u32 | (u32::from(0x50_u8.reverse_bits()) << 3), 11);
    for _ in 0..length.div_ceil(258) {
        pending |= REPEAT << count;
        count += 13;
        while count >= 8 {
            bytes.push(pending.to_le_bytes()[0]);
            pending >>= 8;
            count -= 8;
        }
    }
    bytes
}
