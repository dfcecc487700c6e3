//! Tells HTTP/2 and HTTP/1.1 apart by the first bytes of a connection.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::socket::{Condition, Socket};

/// What HTTP/2 begins with.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Also anything else: an error of HTTP/1.1 is text, which people and most clients can read.
    Http1,
    Http2,
}

/// What the client of a connection speaks, and the connection with what was read of it; `None`
/// if it has closed it.
pub(super) async fn protocol<T>(mut stream: T) -> io::Result<Option<(Protocol, Rewound<T>)>>
where
    T: AsyncRead + Unpin,
{
    let mut head = [0; PREFACE.len()];
    let mut filled = 0;
    while filled < head.len() && head[..filled] == PREFACE[..filled] {
        match stream.read(&mut head[filled..]).await? {
            0 => return Ok(None),
            read => filled += read,
        }
    }
    let protocol = if head == *PREFACE { Protocol::Http2 } else { Protocol::Http1 };
    Ok(Some((protocol, Rewound { head, next: 0, filled, stream })))
}

/// A connection whose first bytes were read before.
#[derive(Debug)]
pub(super) struct Rewound<T> {
    head: [u8; PREFACE.len()],
    next: usize,
    filled: usize,
    stream: T,
}

impl<T: Socket> Socket for Rewound<T> {
    fn condition(&self) -> Condition {
        self.stream.condition()
    }

    fn close_if_silent(&self) {
        self.stream.close_if_silent();
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Rewound<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = buf.remaining().min(self.filled - self.next);
        if count == 0 {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        buf.put_slice(&self.head[self.next..self.next + count]);
        self.next += count;
        // hyper looks at what follows a first piece only once a head may be whole. With the rest of
        // it, bytes that are no head are refused at once. Its error, if any, comes again.
        let _ = Pin::new(&mut self.stream).poll_read(cx, buf);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Rewound<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn first(bytes: &[u8]) -> Option<Protocol> {
        let (mut client, server) = tokio::io::duplex(1024);
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let (protocol, mut rewound) = protocol(server).await.unwrap()?;
        let mut read = Vec::new();
        rewound.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, bytes, "all is read again");
        Some(protocol)
    }

    #[tokio::test]
    async fn protocol_is_told_by_the_first_bytes() {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        assert_eq!(first(preface).await, Some(Protocol::Http2));
        for bytes in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"PUT / HTTP/1.0\r\n\r\n",
            b"PROPFIND / HTTP/1.1\r\n\r\n",
            b"\r\nGET / HTTP/1.1\r\n\r\n",
            b"get / HTTP/1.1\r\n\r\n",
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"\0\0\0\x04\0\0",
            b"PRx!",
            b"PRI * HTTP/1.1\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        ] {
            assert_eq!(first(bytes).await, Some(Protocol::Http1), "{bytes:?}");
        }
        assert_eq!(first(b"PRI * HTTP/2.0").await, None, "closed before anything was said");
    }
}
