//! Where the body of a request comes from, and why the rest of it does not.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::RecvStream;
use http_body::Body as _;
use hyper::body::Incoming;
use tonic::Status;

use crate::api;

/// Where a body comes from.
#[derive(Debug)]
pub(in crate::server) enum Source {
    Http2(RecvStream),
    Http1(Incoming),
}

/// Why the rest of a body does not come.
pub(super) enum Broken {
    /// The client has left, or has cancelled the call.
    Off,
    /// The client sends no more, and may wait for a response.
    Short,
    /// The same of a body in chunks.
    WithoutLastChunk,
    /// It is not what the head of the request says.
    Malformed,
}

impl Broken {
    pub(super) fn status(&self) -> Status {
        match self {
            Self::Off => Status::cancelled("the request broke off"),
            Self::Short => {
                api::of_unreadable_body("ends before the length in the request's head; send all of it")
            }
            Self::WithoutLastChunk => {
                api::of_unreadable_body("ends before its last chunk, which has the length 0; send all of it")
            }
            Self::Malformed => api::of_unreadable_body(
                "is not in chunks as RFC 9112 has them; correct them, or send a Content-Length",
            ),
        }
    }

    /// hyper's error while it reads a body.
    fn of(error: &hyper::Error, in_chunks: bool) -> Self {
        let read = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
        match read.map(io::Error::kind) {
            Some(io::ErrorKind::UnexpectedEof) if in_chunks => Self::WithoutLastChunk,
            Some(io::ErrorKind::UnexpectedEof) => Self::Short,
            Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => Self::Malformed,
            _ => Self::Off,
        }
    }
}

impl Source {
    pub(super) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        match self {
            Self::Http2(stream) => stream.poll_data(cx).map_err(|_| Broken::Off),
            Self::Http1(body) => loop {
                match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                    // Else they are trailers, which no form has in a request.
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            return Poll::Ready(Some(Ok(data)));
                        }
                    }
                    Some(Err(error)) => {
                        let in_chunks = body.size_hint().exact().is_none();
                        return Poll::Ready(Some(Err(Broken::of(&error, in_chunks))));
                    }
                    None => return Poll::Ready(None),
                }
            },
        }
    }
}
