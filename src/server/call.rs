//! One call: its request to the service, and the response to the client.
//!
//! ```text
//! request ──> service ──> head ──> message, when there is room ──> trailers
//! ```
//!
//! The task of a call ends with its client's reset, its connection, shortly after its
//! deadline, or when the client takes nothing of a unary response for a minute. A response's next
//! message is encoded only when the last one is with HTTP/2 and the connection has room for
//! another. What waits for that is not sent when a reload takes the caller's rights.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use h2::{Reason, SendStream, server::SendResponse};
use http::Response;
use http_body::Body as _;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tonic::{Status, body::Body};
use tracing::debug;

use super::{
    form::{Form, Kind},
    request_body::Received,
    revocation::Permission,
    usage::{CallUsage, Charge},
};
use crate::api;

/// How long a client may take to send a message that it has begun.
pub(super) const RECEIVE: Duration = Duration::from_secs(30);

/// How long after its deadline a call ends that has not ended by itself.
pub(super) const AFTER_DEADLINE: Duration = Duration::from_secs(1);

/// How long a client may take nothing of a unary response. A watch may wait for longer: it has
/// one message, and its connection is closed when others need the room.
pub(super) const TAKE: Duration = Duration::from_mins(1);

/// How long a client may take for the rest of a message, once its caller lost the right to it.
const FINISH: Duration = Duration::from_secs(5);

/// Most bytes that HTTP/2 holds of one response.
pub(super) const SEND_BUFFER: usize = 64 << 10;

/// Bytes with HTTP/2 that are not sent.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) bytes: Bytes,
    pub(super) charge: Option<Arc<Charge>>,
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(charge) = &self.charge {
            charge.moved(count);
        }
    }
}

/// Why nothing more is sent.
#[derive(Debug)]
pub(super) struct Ended;

/// What a wait for the client has come to.
enum Wait<T> {
    Done(T),
    /// The caller may not have the rest of the response.
    Revoked,
}

/// An open call.
pub(super) struct Call {
    pub(super) received: Received,
    pub(super) usage: CallUsage,
    pub(super) deadline: Option<Instant>,
    /// Whether its response ends when the client takes nothing of it.
    pub(super) must_be_taken: bool,
    pub(super) form: Form,
}

impl Call {
    /// Answers the call.
    pub(super) async fn run<F, E>(self, service: F, mut respond: SendResponse<Piece>)
    where
        F: Future<Output = Result<Response<Body>, E>>,
    {
        let is_reset = |cx: &mut Context<'_>| respond.poll_reset(cx).is_ready();
        let Ok(response) = self.response(service, is_reset).await else { return };
        let (mut parts, body) = response.into_parts();
        self.form.complete(&mut parts.headers);
        let permission = parts.extensions.remove();
        let head = Response::from_parts(parts, ());
        let is_all = body.is_end_stream();
        match respond.send_response(head, is_all) {
            Ok(stream) if !is_all => {
                let _ = self.send(body, stream, permission).await;
            }
            Ok(_) => {}
            Err(error) => debug!(%error, "response not sent"),
        }
    }

    /// Waits for the response, and meanwhile receives the request. `is_reset`: whether the
    /// client has left.
    pub(super) async fn response<F, E>(
        &self,
        service: F,
        mut is_reset: impl FnMut(&mut Context<'_>) -> bool,
    ) -> Result<Response<Body>, Ended>
    where
        F: Future<Output = Result<Response<Body>, E>>,
    {
        let mut service = pin!(service);
        // Nearly every request is there whole when its call begins.
        let mut receive_by = None;
        let mut late = pin!(self.after_deadline());
        poll_fn(|cx| {
            self.received.poll(cx);
            let response = service.as_mut().poll(cx);
            let is_receiving = self.received.settle();
            match response {
                Poll::Ready(Ok(response)) => return Poll::Ready(Ok(response)),
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Ended)),
                Poll::Pending => {}
            }
            if is_reset(cx) {
                return Poll::Ready(Err(Ended));
            }
            if late.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(self.form.failure(&api::of_deadline())));
            }
            if is_receiving && poll_timer(&mut receive_by, cx).is_ready() {
                let slow = api::of_slow_request(RECEIVE);
                if self.form.kind == Kind::Grpc {
                    return Poll::Ready(Ok(self.form.failure(&slow)));
                }
                // Whatever reads it makes it the end of a call that is counted.
                self.received.fail(slow);
            }
            Poll::Pending
        })
        .await
    }

    async fn after_deadline(&self) {
        match self.deadline {
            Some(deadline) => sleep_until(deadline + AFTER_DEADLINE).await,
            None => std::future::pending().await,
        }
    }

    /// Sends the body of the response.
    async fn send(
        &self,
        body: Body,
        stream: SendStream<Piece>,
        permission: Option<Permission>,
    ) -> Result<(), Ended> {
        let mut body = pin!(body);
        let mut late = pin!(self.after_deadline());
        let mut sending = Sending {
            call: self,
            stream,
            late: late.as_mut(),
            receive_by: None,
            permission,
            finish_by: None,
        };
        let connection = self.usage.connection();
        let mut needs_room = true;
        loop {
            let frame = sending.poll(|cx, _| {
                if needs_room && !connection.has_room() {
                    return Poll::Ready(None);
                }
                body.as_mut().poll_frame(cx).map(Some)
            });
            let Some(frame) = frame.await? else {
                let mut room = pin!(connection.wait_for_room());
                if let Wait::Revoked = sending.wait(|cx, _| room.as_mut().poll(cx)).await? {
                    // The body has its end only.
                    needs_room = false;
                }
                continue;
            };
            match frame.map(|frame| frame.map(http_body::Frame::into_data)) {
                None => return sending.finish(),
                Some(Ok(Ok(bytes))) => sending.data(bytes).await?,
                Some(Ok(Err(frame))) => {
                    let Ok(mut trailers) = frame.into_trailers() else { continue };
                    self.form.complete(&mut trailers);
                    return sending.stream.send_trailers(trailers).map_err(|_| Ended);
                }
                Some(Err(error)) => {
                    let error: Status = error;
                    debug!(%error, "response broke off");
                    sending.stream.send_reset(Reason::INTERNAL_ERROR);
                    return Err(Ended);
                }
            }
        }
    }
}

/// Polls the timer of a message that the client has begun, and starts it.
fn poll_timer(receive_by: &mut Option<Pin<Box<Sleep>>>, cx: &mut Context<'_>) -> Poll<()> {
    receive_by.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + RECEIVE))).as_mut().poll(cx)
}

/// A response being sent.
struct Sending<'a, L> {
    call: &'a Call,
    stream: SendStream<Piece>,
    late: Pin<&'a mut L>,
    /// When a message must have arrived that the client has begun.
    receive_by: Option<Pin<Box<Sleep>>>,
    /// What lets the call go on while it waits for its client.
    permission: Option<Permission>,
    /// When the message must be sent that was begun before the call lost its permission.
    finish_by: Option<Pin<Box<Sleep>>>,
}

impl<L: Future<Output = ()>> Sending<'_, L> {
    /// Waits, and meanwhile receives the request. Ends with the client's reset or after the
    /// deadline.
    async fn poll<T>(
        &mut self,
        mut step: impl FnMut(&mut Context<'_>, &mut SendStream<Piece>) -> Poll<T>,
    ) -> Result<T, Ended> {
        poll_fn(|cx| {
            self.call.received.poll(cx);
            if self.call.received.settle() {
                if poll_timer(&mut self.receive_by, cx).is_ready() {
                    self.call.received.fail(api::of_slow_request(RECEIVE));
                    self.receive_by = None;
                }
            } else {
                self.receive_by = None;
            }
            if let Poll::Ready(done) = step(cx, &mut self.stream) {
                return Poll::Ready(Ok(done));
            }
            if self.stream.poll_reset(cx).is_ready() {
                return Poll::Ready(Err(Ended));
            }
            if self.late.as_mut().poll(cx).is_ready() {
                self.stream.send_reset(Reason::CANCEL);
                return Poll::Ready(Err(Ended));
            }
            Poll::Pending
        })
        .await
    }

    /// The same for a wait that only the client ends: the body is not looked at meanwhile.
    async fn wait<T>(
        &mut self,
        mut step: impl FnMut(&mut Context<'_>, &mut SendStream<Piece>) -> Poll<T>,
    ) -> Result<Wait<T>, Ended> {
        let mut permission = self.permission.take();
        let waited = self.poll(|cx, stream| match step(cx, stream) {
            Poll::Ready(done) => Poll::Ready(Wait::Done(done)),
            Poll::Pending if permission.as_mut().is_some_and(|permission| permission.poll_revoked(cx)) => {
                Poll::Ready(Wait::Revoked)
            }
            Poll::Pending => Poll::Pending,
        });
        let waited = waited.await?;
        self.permission = permission;
        Ok(waited)
    }

    /// Passes bytes to HTTP/2 as its windows allow. Drops them if the caller may not have them
    /// any more.
    async fn data(&mut self, mut bytes: Bytes) -> Result<(), Ended> {
        let length = bytes.len();
        let charge = Arc::new(self.call.usage.connection().charge(length));
        while !bytes.is_empty() {
            self.stream.reserve_capacity(bytes.len().min(SEND_BUFFER));
            let capacity = match self.stream.capacity() {
                0 => self.capacity().await?,
                capacity => Wait::Done(capacity),
            };
            let capacity = match capacity {
                Wait::Done(capacity) => capacity,
                Wait::Revoked if bytes.len() == length => return Ok(()),
                Wait::Revoked => {
                    // After a part of a message, no status can be read.
                    (self.permission, self.finish_by) = (None, Some(Box::pin(sleep(FINISH))));
                    continue;
                }
            };
            let piece = bytes.split_to(capacity.min(bytes.len()));
            let piece = Piece { bytes: piece, charge: Some(Arc::clone(&charge)) };
            self.stream.send_data(piece, false).map_err(|_| Ended)?;
        }
        Ok(())
    }

    /// Waits until HTTP/2 takes bytes.
    async fn capacity(&mut self) -> Result<Wait<usize>, Ended> {
        let must_be_taken = self.call.must_be_taken;
        let mut stalled = pin!(sleep(TAKE));
        let mut finish_by = self.finish_by.take();
        let capacity = self.wait(|cx, stream| {
            loop {
                let is_late = match stream.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(0))) => continue,
                    Poll::Pending => {
                        must_be_taken && stalled.as_mut().poll(cx).is_ready()
                            || finish_by.as_mut().is_some_and(|late| late.as_mut().poll(cx).is_ready())
                    }
                    capacity @ Poll::Ready(_) => return capacity,
                };
                if !is_late {
                    return Poll::Pending;
                }
                stream.send_reset(Reason::CANCEL);
                return Poll::Ready(None);
            }
        });
        let capacity = capacity.await?;
        self.finish_by = finish_by;
        match capacity {
            Wait::Done(capacity) => capacity.and_then(Result::ok).map(Wait::Done).ok_or(Ended),
            Wait::Revoked => Ok(Wait::Revoked),
        }
    }

    fn finish(&mut self) -> Result<(), Ended> {
        self.stream.send_data(Piece { bytes: Bytes::new(), charge: None }, true).map_err(|_| Ended)
    }
}

#[cfg(test)]
mod tests;
