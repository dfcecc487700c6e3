//! The body of a response: passed on in pieces, each of which counts as the connection's until
//! the socket has taken it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep, sleep_until};
use tonic::{Status, body::Body};

use super::{SILENCE, stream::Open};
use crate::server::{
    call::{AFTER_DEADLINE, Call, Piece, SEND_BUFFER},
    usage::Charge,
};

type Wait = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A response being sent.
pub(super) struct Outgoing {
    body: Body,
    /// What is counted, if anything is.
    call: Option<Call>,
    /// The rest of the present frame.
    rest: Option<(Bytes, Arc<Charge>)>,
    /// A wait for room.
    room: Option<Wait>,
    /// When a call has to end that does not by itself.
    late: Option<Pin<Box<Sleep>>>,
    /// When one has to end that sends nothing.
    silent: Option<Pin<Box<Sleep>>>,
    _open: Option<Open>,
}

impl Outgoing {
    pub(super) fn new(body: Body, call: Call, open: Open) -> Self {
        let late = call.deadline.map(|deadline| Box::pin(sleep_until(deadline + AFTER_DEADLINE)));
        Self { call: Some(call), late, ..Self::uncounted(body, Some(open)) }
    }

    /// A small body.
    pub(super) fn uncounted(body: Body, open: Option<Open>) -> Self {
        Self { body, call: None, rest: None, room: None, late: None, silent: None, _open: open }
    }

    /// The next piece of the present frame.
    fn piece(&mut self) -> Option<Piece> {
        let (bytes, charge) = self.rest.as_mut()?;
        let piece = bytes.split_to(bytes.len().min(SEND_BUFFER));
        let piece = Piece { bytes: piece, charge: Some(Arc::clone(charge)) };
        self.rest.take_if(|(bytes, _)| bytes.is_empty());
        Some(piece)
    }
}

impl http_body::Body for Outgoing {
    type Data = Piece;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, Status>>> {
        let this = &mut *self;
        if let Some(late) = &mut this.late
            && late.as_mut().poll(cx).is_ready()
        {
            this.late = None;
            return Poll::Ready(Some(Err(Status::deadline_exceeded("the call's deadline has passed"))));
        }
        loop {
            if let Some(piece) = this.piece() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if let Some(room) = &mut this.room {
                ready!(room.as_mut().poll(cx));
                this.room = None;
            }
            let connection = this.call.as_ref().map(|call| call.usage.connection());
            if let Some(connection) = connection.filter(|connection| !connection.has_room()) {
                let connection = Arc::clone(connection);
                this.room = Some(Box::pin(async move { connection.wait_for_room().await }));
                continue;
            }
            let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
                let silent = this.silent.get_or_insert_with(|| Box::pin(sleep(SILENCE)));
                ready!(silent.as_mut().poll(cx));
                return Poll::Ready(Some(Err(Status::deadline_exceeded("nothing was sent for too long"))));
            };
            this.silent = None;
            let Some(frame) = frame else { return Poll::Ready(None) };
            let bytes = match frame?.into_data() {
                Ok(bytes) if bytes.is_empty() => continue,
                Ok(bytes) => bytes,
                // No form has trailers in HTTP/1.1.
                Err(_) => continue,
            };
            match &this.call {
                Some(call) => {
                    let charge = Arc::new(call.usage.connection().charge(bytes.len()));
                    this.rest = Some((bytes, charge));
                }
                None => return Poll::Ready(Some(Ok(Frame::data(Piece { bytes, charge: None })))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.as_ref().map_or(0, |(bytes, _)| bytes.len() as u64);
        let body = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower().saturating_add(rest));
        if let Some(upper) = body.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::stream;
    use http_body::Body as _;
    use http_body_util::StreamBody;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn response_that_sends_nothing_ends_and_one_that_sends_goes_on() {
        let frames = stream::unfold(0, |sent| async move {
            match sent {
                3 => std::future::pending().await,
                _ => sleep(SILENCE.mul_f64(0.9)).await,
            }
            Some((Ok::<_, Status>(Frame::data(Bytes::from_static(b"x"))), sent + 1))
        });
        let mut response = Outgoing::uncounted(Body::new(StreamBody::new(Box::pin(frames))), None);
        for _ in 0..3 {
            let frame = poll_fn(|cx| Pin::new(&mut response).poll_frame(cx)).await;
            assert!(matches!(frame, Some(Ok(_))));
        }
        let last = Instant::now();
        let frame = poll_fn(|cx| Pin::new(&mut response).poll_frame(cx)).await;
        assert!(matches!(frame, Some(Err(_))) && last.elapsed() >= SILENCE);
    }
}
