//! Connects, and notices what the server speaks by its first byte.
//!
//! An HTTP/2 server begins with a SETTINGS frame, so that its first byte is zero. A TLS server
//! answers plain text with an alert, and a client without the certificate that it requires with an
//! alert after the handshake. Without this, both are a broken connection, which clients try again.

use std::{
    error::Error,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
    time::timeout,
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};
use tonic::transport::{Channel, Endpoint};
use tower::{Service, ServiceExt, service_fn};

use super::tls_fault::Used;

/// Longest wait for the first byte. A server that sends nothing is noticed by the call.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// The likeliest mistake.
const PORT: &str = "check the port: the gateway's is that of server.listen, such as 50051, not that of admin.listen, such as 9090";

/// The record types of TLS: alert and handshake.
const TLS: [u8; 2] = [0x15, 0x16];

/// How to connect.
pub(super) struct Connector {
    /// TLS for a server of this name; none for plain text.
    pub(super) tls: Option<(TlsConnector, ServerName<'static>)>,
    /// The options in use, for messages.
    pub(super) used: Used,
}

type Failed = Box<dyn Error + Send + Sync>;

impl Connector {
    /// Connects to a gateway. The endpoint has an http:// address, whether there is TLS or not. The
    /// error is a text in one line.
    pub(super) async fn connect(self, endpoint: &Endpoint) -> Result<Channel, String> {
        let is_tls = self.tls.is_some();
        let used = self.used.clone();
        let (noticed, first) = oneshot::channel();
        let noticed = Arc::new(Mutex::new(Some(noticed)));
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(MAX_WAIT));
        let this = Arc::new(self);
        let connector = service_fn(move |uri: Uri| {
            let (mut connector, this) = (connector.clone(), Arc::clone(&this));
            let noticed = noticed.lock().ok().and_then(|mut noticed| noticed.take());
            async move {
                let tcp = connector.ready().await?.call(uri).await?.into_inner();
                let inner = this.secured(tcp).await?;
                Ok::<_, Failed>(Noticing { inner: TokioIo::new(inner), noticed, used: this.used.clone() })
            }
        });
        let channel = endpoint.connect_with_connector(connector).await.map_err(|error| root_cause(&error))?;
        let server = &used.server;
        match timeout(MAX_WAIT, first).await {
            Ok(Ok(First::Byte(byte))) if !is_tls && TLS.contains(&byte) => Err(format!(
                "the server sent an alert; since it expects TLS, write an https:// URL for {server}"
            )),
            Ok(Ok(First::Byte(b'H'))) => {
                Err(format!("the server answers in HTTP/1.1, not in HTTP/2; {PORT}"))
            }
            Ok(Ok(First::Failed(why))) => Err(why),
            Ok(Ok(First::End) | Err(_)) if is_tls => Err(used.closed_after_handshake()),
            Ok(Ok(First::End) | Err(_)) => Err(format!(
                "the server closed the connection at once, so it may not speak gRPC; {PORT}; if it expects TLS, write an https:// URL for {server}"
            )),
            // It has sent SETTINGS, or nothing yet, which the call notices.
            Ok(Ok(First::Byte(_))) | Err(_) => Ok(channel),
        }
    }

    /// A connection with TLS, if it is used.
    async fn secured(&self, tcp: tokio::net::TcpStream) -> Result<Box<dyn Stream>, Failed> {
        let Some((connector, name)) = &self.tls else { return Ok(Box::new(tcp)) };
        match connector.connect(name.clone(), tcp).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(self.handshake_fault(&error).into()),
        }
    }

    fn handshake_fault(&self, error: &io::Error) -> String {
        if let Some(text) = self.used.explain(error) {
            return text;
        }
        let hint = format!("if it does not speak TLS, write an http:// URL for {}", self.used.server);
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                format!("the server closed the connection during the TLS handshake; {hint}")
            }
            _ => root_cause(error),
        }
    }
}

/// The innermost error, which names the actual failure.
pub(super) fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// A connection, encrypted or not.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What a server sends first.
enum First {
    Byte(u8),
    /// Nothing, the connection has ended.
    End,
    /// A fault of TLS.
    Failed(String),
}

/// A connection that reports what is read first, and has errors of TLS in plain words.
struct Noticing {
    inner: TokioIo<Box<dyn Stream>>,
    noticed: Option<oneshot::Sender<First>>,
    used: Used,
}

impl Read for Noticing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.noticed.is_none() {
            let read = Pin::new(&mut self.inner).poll_read(context, cursor);
            return read.map_err(|error| self.plain(error));
        }
        // The bytes of the first read pass through a buffer of its own, to be looked at.
        let mut bytes = [0; 1024];
        let length = cursor.remaining().min(bytes.len());
        let mut buffer = tokio::io::ReadBuf::new(&mut bytes[..length]);
        let stream = Pin::new(self.inner.inner_mut());
        let Poll::Ready(read) = AsyncRead::poll_read(stream, context, &mut buffer) else {
            return Poll::Pending;
        };
        match &read {
            Ok(()) => cursor.put_slice(buffer.filled()),
            Err(_) => buffer.clear(),
        }
        self.report(buffer.filled().first(), read.as_ref().err());
        Poll::Ready(read.map_err(|error| self.plain(error)))
    }
}

impl Noticing {
    /// Reports what came first, unless something did before.
    fn report(&mut self, byte: Option<&u8>, error: Option<&io::Error>) {
        let Some(noticed) = self.noticed.take() else { return };
        let failed = error.and_then(|error| self.used.explain(error)).map(First::Failed);
        let _ = noticed.send(failed.or(byte.copied().map(First::Byte)).unwrap_or(First::End));
    }

    fn plain(&self, error: io::Error) -> io::Error {
        match self.used.explain(&error) {
            Some(text) => io::Error::new(error.kind(), text),
            None => error,
        }
    }

    /// What a write came to. A server that has refused the client has closed the connection: what it
    /// said before is still to be read, and says more than the error of the write.
    fn written<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let Poll::Ready(Err(_)) = &written else { return written };
        if self.noticed.is_none() {
            return written;
        }
        let mut bytes = [0; 1];
        let mut buffer = tokio::io::ReadBuf::new(&mut bytes);
        let read = AsyncRead::poll_read(Pin::new(self.inner.inner_mut()), context, &mut buffer);
        // A closed socket is readable soon; until then the write has no result.
        let Poll::Ready(read) = read else { return Poll::Pending };
        self.report(None, read.as_ref().err());
        written
    }
}

impl Write for Noticing {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.written(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let written = Pin::new(&mut self.inner).poll_flush(context);
        self.written(context, written)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.written(context, written)
    }
}
