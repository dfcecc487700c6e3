//! The messages of a response of gRPC.

use bytes::{Buf, Bytes, BytesMut};
use http::Response;
use http_body_util::BodyExt;
use tonic::{Code, Status, body::Body};

/// Bytes of the head of a message: a flag and its length.
const HEAD: usize = 5;

/// A response whose messages are read one by one.
#[derive(Debug)]
pub(super) struct Messages {
    body: Body,
    received: BytesMut,
    end: Option<Status>,
}

/// What comes next.
#[derive(Debug)]
pub(super) enum Next {
    Message(Bytes),
    /// Once, at the end.
    End(Status),
}

impl Messages {
    pub(super) fn of(response: Response<Body>) -> Self {
        let (head, body) = response.into_parts();
        Self { body, received: BytesMut::new(), end: Status::from_header_map(&head.headers) }
    }

    /// The status, where the head has it.
    pub(super) fn failure(&mut self) -> Option<Status> {
        self.end.take()
    }

    /// Waits for the next message.
    pub(super) async fn next(&mut self) -> Next {
        loop {
            if let Some(message) = self.whole() {
                return Next::Message(message);
            }
            if let Some(status) = self.end.take() {
                return Next::End(status);
            }
            match self.body.frame().await {
                None => return Next::End(Status::new(Code::Internal, "the call ended without a status")),
                Some(Err(status)) => return Next::End(status),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.received.extend_from_slice(&data),
                    Err(frame) => {
                        self.end = frame.trailers_ref().and_then(Status::from_header_map);
                    }
                },
            }
        }
    }

    /// The next message, if it is here.
    fn whole(&mut self) -> Option<Bytes> {
        let [_, length @ ..] = *self.received.first_chunk::<HEAD>()?;
        let length = u32::from_be_bytes(length) as usize;
        if self.received.len() < HEAD + length {
            return None;
        }
        self.received.advance(HEAD);
        Some(self.received.split_to(length).freeze())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;

    fn framed(message: &[u8]) -> Vec<u8> {
        [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
    }

    fn messages(pieces: Vec<Frame<Bytes>>) -> Messages {
        let frames = stream::iter(pieces.into_iter().map(Ok::<_, Status>));
        Messages::of(Response::new(Body::new(StreamBody::new(frames))))
    }

    #[tokio::test]
    async fn messages_are_read_however_they_are_split() {
        let bytes = [framed(b"one"), framed(b""), framed(&[7; 300])].concat();
        for piece in [1, 2, 4, 5, 9, 1000] {
            let mut frames: Vec<_> =
                bytes.chunks(piece).map(|data| Frame::data(Bytes::copy_from_slice(data))).collect();
            let (head, ()) = Status::not_found("gone").into_http::<()>().into_parts();
            frames.push(Frame::trailers(head.headers));
            let mut messages = messages(frames);
            for wanted in [&b"one"[..], b"", &[7; 300]] {
                assert!(
                    matches!(messages.next().await, Next::Message(message) if message == wanted),
                    "{piece}"
                );
            }
            assert!(matches!(messages.next().await, Next::End(status) if status.code() == Code::NotFound));
        }
    }

    #[tokio::test]
    async fn response_without_an_end_is_an_error() {
        let mut messages = messages(vec![Frame::data(Bytes::from_static(&[0, 0, 0, 0, 9, 1]))]);
        assert!(matches!(messages.next().await, Next::End(status) if status.code() == Code::Internal));
    }
}
