//! The bytes of one connection over HTTP/1.1, between the socket or TLS and hyper.
//!
//! hyper refuses a head that it can't read by itself, with a response that has no body: no service
//! sees such a request. This gives it the body that all errors have. It also reads on for a moment
//! after the last response of a client that may still send: a system that closes a socket with
//! unread bytes resets the connection, and the client could lose the response.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use futures_util::FutureExt;
use http::StatusCode;
use http_body_util::{BodyExt, Collected};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::{Instant, Sleep, sleep},
};
use tokio_io_timeout::TimeoutStream;
use tonic::Status;

use super::{HEAD_BYTES, HEADERS, length::Lengths};
use crate::{
    api,
    server::socket::{Condition, Socket},
};

/// How long, and how many bytes, a client may send after the last response.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 4 << 20;

/// How a response begins that is not hyper's.
const BAD_REQUEST: &str = "HTTP/1.1 400 Bad Request\r\nconnection: close";

const TOO_LONG: &str = "HTTP/1.1 413 Payload Too Large\r\nconnection: close";

/// What is known of the requests of a connection.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// Requests whose responses are not with hyper.
    open: AtomicUsize,
    /// Whether hyper may have bytes of a response.
    answering: AtomicBool,
    /// Whether one has come.
    begun: AtomicBool,
    /// Whether the client may send bytes that nobody reads.
    sends: AtomicBool,
}

/// A request, until its response is with hyper.
#[derive(Debug)]
pub(super) struct Open(Arc<Requests>);

impl Requests {
    /// A request begins.
    pub(super) fn begin(self: &Arc<Self>, has_body: bool) -> Open {
        self.begun.store(true, Relaxed);
        self.sends.store(has_body, Relaxed);
        self.open.fetch_add(1, SeqCst);
        self.answering.store(true, SeqCst);
        Open(Arc::clone(self))
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Relaxed)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, SeqCst);
    }
}

/// A connection, which hyper and its owner share. Both belong to the same task.
#[derive(Debug)]
pub(super) struct Stream<T>(Arc<Mutex<Inner<T>>>);

#[derive(Debug)]
struct Inner<T> {
    io: Pin<Box<TimeoutStream<T>>>,
    requests: Arc<Requests>,
    lengths: Lengths,
    /// The rest of an error in place of hyper's.
    refusal: Bytes,
    /// When the client last took bytes.
    taken_at: Instant,
    is_shut_down: bool,
    linger: Option<(Pin<Box<Sleep>>, usize)>,
}

impl<T> Clone for Stream<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Socket> Stream<T> {
    /// `take`: how long the client may take nothing.
    pub(super) fn new(socket: T, take: Duration, requests: Arc<Requests>) -> Self {
        let mut io = TimeoutStream::new(socket);
        io.set_write_timeout(Some(take));
        Self(Arc::new(Mutex::new(Inner {
            io: Box::pin(io),
            requests,
            lengths: Lengths::new(),
            refusal: Bytes::new(),
            taken_at: Instant::now(),
            is_shut_down: false,
            linger: None,
        })))
    }

    /// What is known of the client.
    pub(super) fn condition(&self) -> Condition {
        lock(&self.0).io.get_ref().condition()
    }

    /// When the client last took bytes.
    pub(super) fn taken_at(&self) -> Instant {
        lock(&self.0).taken_at
    }

    /// Answers a head whose end the client has not sent before it closed its half. hyper does not.
    pub(super) async fn refuse_cut_off(mut self) {
        if lock(&self.0).requests.answering.load(SeqCst) {
            return;
        }
        let refusal = respond(BAD_REQUEST, &api::of_cut_off_head());
        // Most of them have left.
        if self.write_all(&refusal).await.is_ok() {
            let _ = self.shutdown().await;
        }
    }
}

fn lock<T>(inner: &Mutex<Inner<T>>) -> MutexGuard<'_, Inner<T>> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Socket> Inner<T> {
    fn is_hypers_own(&self, bytes: &[u8]) -> bool {
        !self.requests.answering.load(SeqCst)
            && bytes.starts_with(b"HTTP/1.1 4")
            && bytes.ends_with(b"\r\n\r\n")
    }

    /// Sends an error in place of hyper's.
    fn refuse(&mut self, head: &[u8]) -> usize {
        self.requests.sends.store(true, Relaxed);
        self.refusal = if self.lengths.is_endless() {
            respond(TOO_LONG, &api::of_endless_body())
        } else {
            refusal(head)
        };
        head.len()
    }

    /// Sends the rest of the error.
    fn poll_refusal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.refusal.is_empty() {
            match ready!(self.io.as_mut().poll_write(cx, &self.refusal))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.refusal.advance(written),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn taken(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(1..)) = written {
            self.taken_at = Instant::now();
        }
        written
    }

    /// Drops what the client still sends.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (until, read) = self.linger.get_or_insert_with(|| (Box::pin(sleep(LINGER)), 0));
        let mut dropped = [0; 4096];
        loop {
            if until.as_mut().poll(cx).is_ready() || *read >= LINGER_BYTES {
                return Poll::Ready(());
            }
            let mut buffer = ReadBuf::new(&mut dropped);
            match ready!(self.io.as_mut().poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => *read += buffer.filled().len(),
                _ => return Poll::Ready(()),
            }
        }
    }
}

/// The response to a request that came without TLS where that is spoken.
pub(in crate::server) fn plain_text_refusal() -> Bytes {
    respond(BAD_REQUEST, &api::of_plain_text())
}

/// The error in place of one with this head.
fn refusal(head: &[u8]) -> Bytes {
    let head = String::from_utf8_lossy(head);
    let code = head.split(' ').nth(1).and_then(|code| StatusCode::from_bytes(code.as_bytes()).ok());
    let code = code.unwrap_or(StatusCode::BAD_REQUEST);
    let status = match code {
        StatusCode::BAD_REQUEST => api::of_unreadable_head(),
        _ => api::of_long_head(HEAD_BYTES, HEADERS),
    };
    // hyper's date, and that the connection ends.
    let kept: Vec<&str> =
        head.trim_end().lines().filter(|line| !line.starts_with("content-length:")).collect();
    respond(&kept.join("\r\n"), &status)
}

/// A response with the beginning of its head, and this error.
fn respond(head: &str, status: &Status) -> Bytes {
    let (parts, body) = api::http::failure(status).into_parts();
    let body =
        body.collect().now_or_never().and_then(Result::ok).map(Collected::to_bytes).unwrap_or_default();
    let mut text = format!("{head}\r\n");
    for (name, value) in &parts.headers {
        text.extend([name.as_str(), ": ", value.to_str().unwrap_or_default(), "\r\n"]);
    }
    let mut text = format!("{text}content-length: {}\r\n\r\n", body.len()).into_bytes();
    text.extend_from_slice(&body);
    text.into()
}

impl<T: Socket> AsyncRead for Stream<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut inner = lock(&self.0);
        let before = buf.filled().len();
        ready!(inner.io.as_mut().poll_read(cx, buf))?;
        // Else it is a body, which may have any lines.
        if !inner.requests.answering.load(SeqCst) {
            inner.lengths.add(&buf.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: Socket> AsyncWrite for Stream<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = lock(&self.0);
        if inner.is_hypers_own(buf) {
            return Poll::Ready(Ok(inner.refuse(buf)));
        }
        let written = inner.io.as_mut().poll_write(cx, buf);
        inner.taken(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = lock(&self.0);
        if let [only] = bufs
            && inner.is_hypers_own(only)
        {
            return Poll::Ready(Ok(inner.refuse(only)));
        }
        let written = inner.io.as_mut().poll_write_vectored(cx, bufs);
        inner.taken(written)
    }

    fn is_write_vectored(&self) -> bool {
        lock(&self.0).io.is_write_vectored()
    }

    /// hyper does this when it has nothing left to write.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = lock(&self.0);
        if inner.requests.open.load(SeqCst) == 0 {
            inner.requests.answering.store(false, SeqCst);
        }
        ready!(inner.poll_refusal(cx))?;
        inner.io.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = lock(&self.0);
        if !inner.is_shut_down {
            ready!(inner.poll_refusal(cx))?;
            ready!(inner.io.as_mut().poll_shutdown(cx))?;
            inner.is_shut_down = true;
        }
        if inner.requests.sends.load(Relaxed) {
            ready!(inner.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}
