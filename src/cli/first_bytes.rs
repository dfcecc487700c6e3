//! Connects, and notices what the server speaks by its first byte.
//!
//! An HTTP/2 server begins with a SETTINGS frame, so that without TLS its first byte is zero.
//! A TLS server answers plain text with an alert. Without this, the latter is a broken
//! connection, which clients try again.

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
use tokio::{net::TcpStream, sync::oneshot, time::timeout};
use tonic::transport::{Channel, Endpoint};
use tower::{Service, ServiceExt, service_fn};

/// Longest wait for the first byte. A server that sends nothing is noticed by the call.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// The record types of TLS: alert and handshake.
const TLS: [u8; 2] = [0x15, 0x16];

const EXPECTS_TLS: &str = "expects TLS, write an https:// URL for --server";
const SPEAKS_NO_TLS: &str = "does not speak TLS, write an http:// URL for --server";

/// Connects to a gateway. The error is a text in one line.
pub(super) async fn connect(endpoint: &Endpoint) -> Result<Channel, String> {
    let is_tls = endpoint.uri().scheme_str() == Some("https");
    let (noticed, first) = oneshot::channel();
    let noticed = Arc::new(Mutex::new(Some(noticed)));
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(MAX_WAIT));
    let connector = service_fn(move |uri: Uri| {
        let mut connector = connector.clone();
        let noticed = noticed.lock().ok().and_then(|mut noticed| noticed.take());
        async move {
            let inner = connector.ready().await?.call(uri).await?;
            Ok::<_, <HttpConnector as Service<Uri>>::Error>(Noticing { inner, noticed })
        }
    });
    let channel =
        endpoint.connect_with_connector(connector).await.map_err(|error| explain(&error, is_tls))?;
    if is_tls {
        return Ok(channel);
    }
    match timeout(MAX_WAIT, first).await {
        Ok(Ok(Some(byte))) if TLS.contains(&byte) => {
            Err(format!("the server sent an alert; since it {EXPECTS_TLS}"))
        }
        Ok(Ok(Some(b'H'))) => {
            Err("the server answers in HTTP/1.1, not in HTTP/2; check the address and port".to_owned())
        }
        Ok(Ok(None) | Err(_)) => {
            Err(format!("the server closed the connection at once; if it {EXPECTS_TLS}"))
        }
        // It has sent SETTINGS, or nothing yet, which the call notices.
        Ok(Ok(Some(_))) | Err(_) => Ok(channel),
    }
}

/// The innermost error, in terms of what to change.
fn explain(error: &dyn Error, is_tls: bool) -> String {
    let cause = root_cause(error);
    if is_tls && cause.contains("InvalidContentType") {
        return format!("the server sent plain text; since it {SPEAKS_NO_TLS}");
    }
    let is_closed = ["tls handshake eof", "Connection reset", "Broken pipe"];
    if is_tls && is_closed.iter().any(|text| cause.contains(text)) {
        return format!("{cause}; if the server {SPEAKS_NO_TLS}");
    }
    cause
}

/// The innermost error, which names the actual failure.
pub(super) fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// A connection that reports the first byte that is read: none if the server closes it.
struct Noticing {
    inner: TokioIo<TcpStream>,
    noticed: Option<oneshot::Sender<Option<u8>>>,
}

impl Read for Noticing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.noticed.is_none() {
            return Pin::new(&mut self.inner).poll_read(context, cursor);
        }
        // The bytes of the first read pass through a buffer of its own, to be looked at.
        let mut bytes = [0; 1024];
        let length = cursor.remaining().min(bytes.len());
        let mut buffer = tokio::io::ReadBuf::new(&mut bytes[..length]);
        let stream = Pin::new(self.inner.inner_mut());
        let read = tokio::io::AsyncRead::poll_read(stream, context, &mut buffer);
        if let Poll::Ready(read) = &read {
            if read.is_ok() {
                cursor.put_slice(buffer.filled());
            }
            if let Some(noticed) = self.noticed.take() {
                let _ = noticed.send(buffer.filled().first().copied());
            }
        }
        read
    }
}

impl Write for Noticing {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
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
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }
}
