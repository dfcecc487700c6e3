//! Connection limit: accepts connections up to a maximum number.
//!
//! At the limit the server accepts none: further clients wait in the listener's
//! backlog until a connection ends.

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

use crate::telemetry::metrics::{OpenConnection, metrics};

/// How long to wait after the system refused a connection (as it does without
/// free file descriptors) before accepting again.
const PAUSE: Duration = Duration::from_millis(100);

/// The connections that `listener` accepts, at most `limit` at once. `tls`: whether they
/// use TLS.
pub(super) fn incoming(
    listener: TcpListener,
    limit: usize,
    tls: bool,
) -> impl Stream<Item = io::Result<Connection>> + Send {
    let permits = Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS)));
    // TLS has a buffer of its own. It writes the alert of a failed handshake without a
    // flush, so a buffer here would lose it.
    let write_buffer = if tls { 0 } else { WRITE_BUFFER };
    futures_util::stream::unfold((listener, permits), move |(listener, permits)| async move {
        let permit = Arc::clone(&permits).acquire_owned().await.ok()?;
        loop {
            match listener.accept().await.and_then(|(stream, _)| stream.set_nodelay(true).map(|()| stream)) {
                Ok(stream) => {
                    let first_bytes =
                        FirstBytes { read: 0, timeout: Box::pin(tokio::time::sleep(FIRST_BYTES_TIMEOUT)) };
                    let stream = BufWriter::with_capacity(write_buffer, stream);
                    let connection = Connection {
                        stream,
                        first_bytes: Some(first_bytes),
                        _counted: metrics().open_connection(),
                        _permit: permit,
                    };
                    return Some((Ok(connection), (listener, permits)));
                }
                Err(error) => {
                    warn!(%error, "accept failed");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    })
}

/// Bytes of the write buffer: room for one HTTP/2 frame and the small frames before it.
const WRITE_BUFFER: usize = 20 << 10;

/// How long a client may take to send its first bytes. Without this limit, clients that
/// only open connections could use up `limits.connections`.
const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(10);

/// Number of first bytes: HTTP/2's preface has 24, and a TLS client hello has more.
const FIRST_BYTES: usize = 24;

/// One accepted connection, counted until it is dropped.
///
/// Without TLS it does not report support for vectored writes. h2 then copies messages
/// of up to 1 KiB into one buffer, instead of writing each of more than 256 bytes alone.
#[derive(Debug)]
pub(super) struct Connection {
    stream: BufWriter<TcpStream>,
    first_bytes: Option<FirstBytes>,
    _counted: OpenConnection,
    _permit: OwnedSemaphorePermit,
}

/// A client that has not sent its first bytes yet.
#[derive(Debug)]
struct FirstBytes {
    read: usize,
    timeout: Pin<Box<Sleep>>,
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
        if let Some(first_bytes) = &mut self.first_bytes
            && first_bytes.timeout.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Some(first_bytes) = &mut self.first_bytes {
            first_bytes.read += buf.filled().len() - before;
            if first_bytes.read >= FIRST_BYTES {
                self.first_bytes = None;
            }
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    /// For TLS, which writes several records at once without checking for support.
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
