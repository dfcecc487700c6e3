//! A gRPC client that costs next to nothing, so that one core of load saturates one
//! core of server: HTTP/2 frames written and read by hand.
//!
//! A [`Connection`] calls one method. Its first request puts the headers into the
//! server's dynamic table, as every client's does, and each later one refers to them.
//! Response headers are not decoded: a call that fails has no message, and that is
//! seen. The client grants the server as much window as there is, and keeps to the
//! windows that the server grants.

use std::{
    collections::{HashMap, VecDeque},
    io, mem,
    net::SocketAddr,
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{io::Interest, net::TcpStream};

use crate::Outcome;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// Initial flow-control window of both sides.
const DEFAULT_WINDOW: u32 = 65_535;
const LARGEST_WINDOW: u32 = (1 << 31) - 1;
/// Bytes that were received before the server is granted as many again.
const GRANT: usize = 1 << 20;
const LARGEST_FRAME: usize = 16_384;
/// What one look at the socket reads at most.
const READ_AT_ONCE: usize = 256 << 10;

/// An event of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum StreamEvent<'a> {
    /// A message, without its length.
    Message(&'a [u8]),
    /// No more messages.
    End,
}

/// A connection to call one method over.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: TcpStream,
    inbound: BytesMut,
    outbound: Vec<u8>,
    method: &'static str,
    next_stream: u32,
    /// Messages that begin in one frame and end in another.
    partial: HashMap<u32, Vec<u8>>,
    /// Received and not granted again yet: on the connection, and on the one stream
    /// that was opened by [`open_stream`](Self::open_stream).
    received: usize,
    long_stream: Option<(u32, usize)>,
    send_window: i64,
    stream_window: i64,
    /// What the long stream still has to send.
    waiting: VecDeque<Bytes>,
}

/// A message as gRPC frames it.
pub(crate) fn framed(message: &impl prost::Message) -> Bytes {
    let mut bytes = BytesMut::with_capacity(message.encoded_len() + 5);
    bytes.extend_from_slice(&[0]);
    let length = u32::try_from(message.encoded_len()).expect("a request is small");
    bytes.extend_from_slice(&length.to_be_bytes());
    message.encode(&mut bytes).expect("the buffer grows");
    bytes.freeze()
}

impl Connection {
    /// Connects, to call `method` of the service.
    pub(crate) async fn open(address: SocketAddr, method: &'static str) -> Outcome<Self> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let mut connection = Self {
            socket,
            inbound: BytesMut::with_capacity(READ_AT_ONCE),
            outbound: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            method,
            next_stream: 1,
            partial: HashMap::new(),
            received: 0,
            long_stream: None,
            send_window: DEFAULT_WINDOW.into(),
            stream_window: DEFAULT_WINDOW.into(),
            waiting: VecDeque::new(),
        };
        let mut settings = Vec::new();
        for (id, value) in [(2_u16, 0), (4, LARGEST_WINDOW)] {
            settings.extend_from_slice(&id.to_be_bytes());
            settings.extend_from_slice(&value.to_be_bytes());
        }
        connection.frame(SETTINGS, 0, 0, &settings);
        connection.grant(0, (LARGEST_WINDOW - DEFAULT_WINDOW) as usize);
        // At once, since a server waits for a greeting only so long.
        connection.socket.writable().await?;
        connection.write()?;
        Ok(connection)
    }

    /// Calls with one framed message. Returns the stream's number; the n-th call has
    /// 2n + 1, from n = 0 on.
    pub(crate) fn call(&mut self, message: &[u8]) -> u32 {
        let stream = self.headers();
        let mut pieces = message.chunks(LARGEST_FRAME).peekable();
        while let Some(piece) = pieces.next() {
            self.frame(DATA, if pieces.peek().is_none() { END_STREAM } else { 0 }, stream, piece);
        }
        // A small message is consumed long before windows of this size are used up,
        // and the window update then equals the bytes received.
        self.send_window -= i64::try_from(message.len()).unwrap_or(i64::MAX);
        stream
    }

    /// Begins the one call of this connection that sends many messages.
    pub(crate) fn open_stream(&mut self) {
        let stream = self.headers();
        self.long_stream = Some((stream, 0));
    }

    /// Has the call send a framed message, in a frame of its own, when it may.
    pub(crate) fn send(&mut self, message: Bytes) {
        self.waiting.push_back(message);
    }

    /// Messages that could not be sent yet.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn headers(&mut self) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 2;
        if stream > 1 {
            self.frame(HEADERS, END_HEADERS, stream, &[0x83, 0x86, 0xc1, 0xc0, 0xbf, 0xbe]);
            return stream;
        }
        let path = format!("/jobwatch.v1.JobStatusService/{}", self.method);
        // POST, http; then path, authority, content-type and te, to be remembered.
        let mut block = vec![0x83, 0x86];
        let name: &[&[u8]] = &[&[0x44], &[0x41], &[0x5f], b"\x40\x02te"];
        for (name, value) in name.iter().zip([&*path, "bench", "application/grpc", "trailers"]) {
            block.extend_from_slice(name);
            block.push(u8::try_from(value.len()).expect("a value is short"));
            block.extend_from_slice(value.as_bytes());
        }
        self.frame(HEADERS, END_HEADERS, stream, &block);
        stream
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("a frame is small");
        self.outbound.extend_from_slice(&length.to_be_bytes()[1..]);
        self.outbound.extend_from_slice(&[kind, flags]);
        self.outbound.extend_from_slice(&stream.to_be_bytes());
        self.outbound.extend_from_slice(payload);
    }

    fn grant(&mut self, stream: u32, bytes: usize) {
        let bytes = u32::try_from(bytes).expect("a window fits");
        self.frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
    }

    /// Waits until something can be sent or was received, does what can be done, and
    /// reports the events.
    pub(crate) async fn turn(&mut self, mut on: impl FnMut(u32, StreamEvent<'_>)) -> Outcome {
        self.fill();
        let interest = if self.outbound.is_empty() {
            Interest::READABLE
        } else {
            Interest::READABLE | Interest::WRITABLE
        };
        let ready = self.socket.ready(interest).await?;
        if ready.is_writable() && !self.outbound.is_empty() {
            self.write()?;
        }
        if ready.is_readable() {
            self.inbound.reserve(READ_AT_ONCE);
            match self.socket.try_read_buf(&mut self.inbound) {
                Ok(0) => return Err("the server has closed the connection".into()),
                Ok(_) => self.frames(&mut on)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        match self.socket.try_write(&self.outbound) {
            Ok(written) => drop(self.outbound.drain(..written)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Takes what the windows allow of what waits.
    fn fill(&mut self) {
        let Some((stream, _)) = self.long_stream else { return };
        while self.outbound.len() < READ_AT_ONCE
            && let Some(message) = self.waiting.front()
            && let Ok(length) = i64::try_from(message.len())
            && length <= self.send_window.min(self.stream_window)
        {
            self.send_window -= length;
            self.stream_window -= length;
            if let Some(message) = self.waiting.pop_front() {
                self.frame(DATA, 0, stream, &message);
            }
        }
    }

    fn frames(&mut self, on: &mut impl FnMut(u32, StreamEvent<'_>)) -> Outcome {
        let mut inbound = mem::take(&mut self.inbound);
        let mut bytes = &inbound[..];
        while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let Some((payload, rest)) = rest.split_at_checked(length) else { break };
            bytes = rest;
            let (kind, flags) = (head[3], head[4]);
            let stream = number(&head[5..]) & LARGEST_WINDOW;
            match kind {
                DATA if flags & PADDED == 0 => self.data(stream, payload, on),
                SETTINGS if flags & ACK == 0 => self.settings(payload),
                PING if flags & ACK == 0 => self.frame(PING, ACK, 0, payload),
                WINDOW_UPDATE => self.granted(stream, number(payload)),
                RST_STREAM => return Err(format!("a call was reset: {}", number(payload)).into()),
                GOAWAY => {
                    let code = number(payload.get(4..).unwrap_or_default());
                    return Err(format!("the server goes away: code {code}").into());
                }
                _ => {}
            }
            if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                on(stream, StreamEvent::End);
            }
        }
        let used = inbound.len() - bytes.len();
        inbound.advance(used);
        self.inbound = inbound;
        Ok(())
    }

    fn data(&mut self, stream: u32, payload: &[u8], on: &mut impl FnMut(u32, StreamEvent<'_>)) {
        self.received += payload.len();
        if self.received > GRANT {
            let received = mem::take(&mut self.received);
            self.grant(0, received);
        }
        if let Some((long, received)) = self.long_stream
            && long == stream
        {
            let received = received + payload.len();
            self.long_stream = Some((stream, if received > GRANT { 0 } else { received }));
            if received > GRANT {
                self.grant(stream, received);
            }
        }
        if self.partial.is_empty() {
            let rest = messages(payload, |message| on(stream, StreamEvent::Message(message)));
            if !rest.is_empty() {
                self.partial.insert(stream, rest.to_vec());
            }
            return;
        }
        let mut whole = self.partial.remove(&stream).unwrap_or_default();
        whole.extend_from_slice(payload);
        let rest = messages(&whole, |message| on(stream, StreamEvent::Message(message))).to_vec();
        if !rest.is_empty() {
            self.partial.insert(stream, rest);
        }
    }

    fn settings(&mut self, payload: &[u8]) {
        for setting in payload.chunks_exact(6) {
            if setting[..2] == [0, 4] {
                self.stream_window += i64::from(number(&setting[2..])) - i64::from(DEFAULT_WINDOW);
            }
        }
        self.frame(SETTINGS, ACK, 0, &[]);
    }

    fn granted(&mut self, stream: u32, bytes: u32) {
        if stream == 0 {
            self.send_window += i64::from(bytes);
        } else if self.long_stream.is_some_and(|(long, _)| long == stream) {
            self.stream_window += i64::from(bytes);
        }
    }
}

fn number(payload: &[u8]) -> u32 {
    payload.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// Reads the whole messages at the beginning of `bytes`; returns the rest.
fn messages(mut bytes: &[u8], mut on: impl FnMut(&[u8])) -> &[u8] {
    while let Some((head, rest)) = bytes.split_at_checked(5) {
        let length = number(&head[1..]) as usize;
        let Some((message, rest)) = rest.split_at_checked(length) else { break };
        on(message);
        bytes = rest;
    }
    bytes
}
