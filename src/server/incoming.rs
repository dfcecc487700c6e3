//! Accepts connections, at most so many at once.
//!
//! At the limit nothing is accepted: further clients wait in the listener's
//! queue until a connection ends, and none that is open suffers.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, BufWriter, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Sleep,
};
use tokio_stream::Stream;
use tonic::transport::server::{Connected, TcpConnectInfo};
use tracing::warn;

/// How long to wait after the system refused a connection (as it does without
/// free file descriptors) before accepting again.
const PAUSE: Duration = Duration::from_millis(100);

/// The connections that `listener` accepts, at most `limit` at once. They carry TLS if
/// `tls` says so.
pub(super) fn incoming(
    listener: TcpListener,
    limit: usize,
    tls: bool,
) -> impl Stream<Item = io::Result<Connection>> + Send {
    let permits = Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS)));
    // TLS gathers by itself. And what it says of a handshake that failed it writes without
    // a flush: in a buffer that would be lost.
    let gathered = if tls { 0 } else { GATHERED };
    futures_util::stream::unfold((listener, permits), move |(listener, permits)| async move {
        let permit = Arc::clone(&permits).acquire_owned().await.ok()?;
        loop {
            match listener.accept().await.and_then(|(stream, _)| stream.set_nodelay(true).map(|()| stream)) {
                Ok(stream) => {
                    let greeting = Greeting { read: 0, patience: Box::pin(tokio::time::sleep(PATIENCE)) };
                    let stream = BufWriter::with_capacity(gathered, stream);
                    let connection = Connection { stream, greeting: Some(greeting), _permit: permit };
                    return Some((Ok(connection), (listener, permits)));
                }
                Err(error) => {
                    warn!(%error, "a connection can't be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    })
}

/// Bytes that are sent in one write, if there are as many before a flush: a frame of
/// HTTP/2 and what comes before it.
const GATHERED: usize = 20 << 10;

/// How long a client may take to say anything at all. Whoever only holds
/// connections open would otherwise keep everybody else out.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes that every client sends first: HTTP/2's preface has as many, and a TLS
/// greeting more.
const GREETING: usize = 24;

/// One accepted connection, counted until it is dropped.
///
/// It writes from one buffer, not from several: HTTP/2 without TLS then puts messages of
/// up to 1 KiB beside each other, where it would write each of more than 256 bytes alone.
#[derive(Debug)]
pub(super) struct Connection {
    stream: BufWriter<TcpStream>,
    greeting: Option<Greeting>,
    _permit: OwnedSemaphorePermit,
}

/// What is awaited of a client that has not said enough yet.
#[derive(Debug)]
struct Greeting {
    read: usize,
    patience: Pin<Box<Sleep>>,
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.get_ref().connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(greeting) = &mut self.greeting
            && greeting.patience.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Some(greeting) = &mut self.greeting {
            greeting.read += buf.filled().len() - before;
            if greeting.read >= GREETING {
                self.greeting = None;
            }
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    /// For TLS, which writes several records at once and does not ask whether it may.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
