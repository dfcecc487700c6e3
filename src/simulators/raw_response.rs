//! Responses as bytes, and how they are sent: a [`RawResponse`] is what the vendor's routes
//! produced, a [`Delivery`] the bytes that are sent, their pace, and how the connection ends.

use std::{fmt, io, time::Duration};

use axum::{body::to_bytes, http::header, response::Response};
use jiff::Timestamp;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};

/// Written at a time where nothing throttles.
const PIECE: usize = 64 * 1024;

/// A whole response in HTTP/1.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawResponse {
    /// Status and reason.
    pub status: String,
    /// Headers other than those about length and connection, each with its line
    /// break.
    pub headers: String,
    /// The body, decoded.
    pub body: Vec<u8>,
}

impl RawResponse {
    /// A response that announces its length, as it comes from a connection; `None` if
    /// these bytes are none.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let (first, rest) = std::str::from_utf8(bytes.get(..end + 2)?).ok()?.split_once("\r\n")?;
        let headers = rest.split_inclusive("\r\n").filter(|line| !is_about_the_wire(line)).collect();
        let status = first.strip_prefix("HTTP/1.1 ")?.to_owned();
        Some(Self { status, headers, body: bytes.get(end + 4..)?.to_vec() })
    }

    pub(super) async fn of(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap_or_default().to_vec();
        let reason = parts.status.canonical_reason().unwrap_or("Unknown");
        let mut headers = String::new();
        for (name, value) in &parts.headers {
            let line = format!("{name}: {}\r\n", String::from_utf8_lossy(value.as_bytes()));
            if !is_about_the_wire(&line) {
                headers += &line;
            }
        }
        if !parts.headers.contains_key(header::DATE) {
            headers += &Timestamp::now().strftime("date: %a, %d %b %Y %H:%M:%S GMT\r\n").to_string();
        }
        Self { status: format!("{} {reason}", parts.status.as_u16()), headers, body }
    }

    /// With these lines at the end of the head, without a length of its own.
    pub fn head(&self, lines: &str) -> Vec<u8> {
        format!("HTTP/1.1 {}\r\n{}{lines}\r\n", self.status, self.headers).into_bytes()
    }

    /// The bytes of an unchanged response.
    pub fn whole(&self) -> Vec<u8> {
        self.with_length(self.body.len())
    }

    /// Announced with this length, whatever it has.
    pub fn with_length(&self, length: impl fmt::Display) -> Vec<u8> {
        self.with_body(&format!("content-length: {length}\r\n"), &self.body)
    }

    /// With these lines at the end of the head, and this body.
    pub fn with_body(&self, lines: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
        [&self.head(lines), body.as_ref()].concat()
    }
}

fn is_about_the_wire(line: &str) -> bool {
    let name = line.split(':').next().unwrap_or_default();
    ["content-length", "connection", "transfer-encoding"].iter().any(|it| name.eq_ignore_ascii_case(it))
}

/// What happens to the connection after a response.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Then {
    Keep,
    /// FIN.
    Close,
    /// RST.
    Reset,
    /// Nothing more, and no end, until the client disconnects.
    Stall,
    /// These bytes again and again, until the client disconnects.
    Repeat(Vec<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pace {
    size: usize,
    pause: Duration,
    /// From this byte on there is none.
    until: usize,
}

/// The bytes to send, their pace, and what happens to the connection after them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    bytes: Vec<u8>,
    pace: Option<Pace>,
    then: Then,
}

impl Delivery {
    /// These bytes at once; the connection stays open for the next request.
    pub fn of(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), pace: None, then: Then::Keep }
    }

    /// So many bytes at a time, at least one, with a pause after each piece.
    #[must_use]
    pub fn paced(mut self, size: usize, pause: Duration) -> Self {
        self.pace = Some(Pace { size: size.max(1), pause, until: usize::MAX });
        self
    }

    /// Paced up to the end of the head, at once from there on.
    #[must_use]
    pub fn only_in_the_head(mut self) -> Self {
        let end = self.bytes.windows(4).position(|four| four == b"\r\n\r\n");
        if let (Some(pace), Some(end)) = (&mut self.pace, end) {
            pace.until = end + 4;
        }
        self
    }

    /// Only the first bytes; negative counts from the end.
    #[must_use]
    pub fn first(mut self, bytes: isize) -> Self {
        let end =
            if bytes < 0 { self.bytes.len().saturating_add_signed(bytes) } else { bytes.unsigned_abs() };
        self.bytes.truncate(end);
        self
    }

    /// Ends the connection after them.
    #[must_use]
    pub fn then_close(mut self) -> Self {
        self.then = Then::Close;
        self
    }

    /// Resets the connection after them.
    #[must_use]
    pub fn then_reset(mut self) -> Self {
        self.then = Then::Reset;
        self
    }

    /// Sends nothing more and does not close the connection.
    #[must_use]
    pub fn then_stall(mut self) -> Self {
        self.then = Then::Stall;
        self
    }

    /// Goes on with these bytes, again and again.
    #[must_use]
    pub fn then_repeat(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.then = Then::Repeat(bytes.into());
        self
    }

    /// Sends the bytes and reports the length of each piece to `sent`. Returns whether the
    /// connection can serve another request; if not, the stream has to be dropped.
    ///
    /// # Errors
    /// If the client is gone.
    pub async fn send(&self, stream: &mut TcpStream, sent: impl Fn(usize)) -> io::Result<bool> {
        let until = self.pace.map_or(0, |pace| pace.until.min(self.bytes.len()));
        let (slow, rest) = self.bytes.split_at(until);
        if let Some(pace) = self.pace {
            for piece in slow.chunks(pace.size) {
                stream.write_all(piece).await?;
                sent(piece.len());
                sleep(pace.pause).await;
            }
        }
        write(stream, rest, &sent).await?;
        match &self.then {
            Then::Keep => return Ok(true),
            Then::Close => stream.shutdown().await?,
            Then::Reset => stream.set_zero_linger()?,
            Then::Stall => while stream.read(&mut [0; 512]).await? > 0 {},
            Then::Repeat(bytes) => loop {
                write(stream, bytes, &sent).await?;
            },
        }
        Ok(false)
    }
}

async fn write(stream: &mut TcpStream, bytes: &[u8], sent: &impl Fn(usize)) -> io::Result<()> {
    for piece in bytes.chunks(PIECE) {
        stream.write_all(piece).await?;
        sent(piece.len());
    }
    Ok(())
}
