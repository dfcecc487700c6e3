//! Refuses what is not gRPC over HTTP/2, in the form that its client reads.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use http::{HeaderMap, Response, StatusCode, header};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tonic::body::Body;

/// What HTTP/2 begins with. No method of HTTP/1.1 does.
const PREFACE: &[u8; 4] = b"PRI ";

/// Bytes of a refused request that are read, so that its client reads the response.
const DRAINED: u64 = 64 << 10;

/// What the client of another protocol reads.
const SPOKEN: &str = "this address speaks gRPC over HTTP/2; use a gRPC client, for example grpcurl";

/// The beginning of a connection: the connection with what was read of it, or `None` if its
/// client speaks HTTP/1.1, which was refused, or has closed it.
pub(super) async fn http2<T>(mut stream: T) -> io::Result<Option<Rewound<T>>>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut head = [0; PREFACE.len()];
    let mut filled = 0;
    while filled < head.len() && head[..filled] == PREFACE[..filled] {
        match stream.read(&mut head[filled..]).await? {
            0 => return Ok(None),
            read => filled += read,
        }
    }
    let is_method = head[..filled].iter().all(|byte| byte.is_ascii_uppercase() || *byte == b' ');
    if head == *PREFACE || !is_method {
        return Ok(Some(Rewound { head, next: 0, filled, stream }));
    }
    refuse_http1(&mut stream).await?;
    Ok(None)
}

async fn refuse_http1<T: AsyncRead + AsyncWrite + Unpin>(stream: &mut T) -> io::Result<()> {
    let body = format!("{SPOKEN}. This request came over HTTP/1.1.\n");
    let response = format!(
        "HTTP/1.1 505 HTTP Version Not Supported\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await?;
    // A connection that is closed with unread bytes is reset, and the response lost.
    tokio::io::copy(&mut stream.take(DRAINED), &mut tokio::io::sink()).await.map(drop)
}

/// The response to a request over HTTP/2 that is not gRPC's, if it is not.
pub(super) fn refusal(headers: &HeaderMap) -> Option<Response<Body>> {
    let content_type = headers.get(header::CONTENT_TYPE)?.as_bytes();
    let rest = content_type.strip_prefix(b"application/grpc");
    if rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' '))) {
        return None;
    }
    let text = format!("{SPOKEN}. The request's content-type is not application/grpc.\n");
    let mut response = Response::new(Body::new(text));
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    let text = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    Some(response)
}

/// A connection whose first bytes were read before.
#[derive(Debug)]
pub(super) struct Rewound<T> {
    head: [u8; PREFACE.len()],
    next: usize,
    filled: usize,
    stream: T,
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
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Rewound<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
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
    use super::*;

    async fn first(bytes: &[u8]) -> (bool, String) {
        let (mut client, server) = tokio::io::duplex(1024);
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let mut read = Vec::new();
        if let Some(mut rewound) = http2(server).await.unwrap() {
            rewound.read_to_end(&mut read).await.unwrap();
            assert_eq!(read, bytes);
            return (true, String::new());
        }
        client.read_to_end(&mut read).await.unwrap();
        (false, String::from_utf8(read).unwrap())
    }

    #[tokio::test]
    async fn preface_of_http2_is_read_again() {
        for bytes in [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], b"\0\0\0\x04\0\0", b"PRx!"] {
            assert!(first(bytes).await.0, "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn request_of_http1_is_refused_in_its_own_form() {
        for request in ["GET / HTTP/1.1\r\n\r\n", "POST / HTTP/1.1\r\n\r\n{}", "PUT / HTTP/1.0\r\n\r\n"] {
            let (is_http2, response) = first(request.as_bytes()).await;
            assert!(!is_http2 && response.starts_with("HTTP/1.1 505 "), "{request}: {response}");
            let (head, body) = response.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
            assert!(body.contains("gRPC over HTTP/2"), "{body}");
        }
        assert_eq!(first(b"PR").await, (false, String::new()), "closed before anything was sent");
    }

    #[test]
    fn only_content_types_of_grpc_are_accepted() {
        let status = |content_type: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, content_type.parse().unwrap());
            refusal(&headers).map(|response| response.status().as_u16())
        };
        for accepted in ["application/grpc", "application/grpc+proto", "application/grpc;x=y"] {
            assert_eq!(status(accepted), None);
        }
        for refused in ["application/grpc-web+proto", "application/grpc-web-text", "application/json"] {
            assert_eq!(status(refused), Some(415));
        }
        assert!(refusal(&HeaderMap::new()).is_none());
    }
}
