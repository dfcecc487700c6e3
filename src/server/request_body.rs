//! The body of a request: whole messages.
//!
//! The call's task takes everything from the stream as it arrives, and passes on whole
//! messages. So what a client has sent of a message, and what no call has read, lies in
//! one buffer, which counts as the connection's. A stream whose messages are not read gets
//! no more room in its window. A body that is not gRPC's is one message, and passed on when
//! it has ended.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use tonic::Status;

use super::usage::{Charge, ConnectionUsage};
use crate::api;

mod source;

pub(super) use source::Source;

/// Window of a stream: what a client may send without its call reading it.
pub(super) const WINDOW: u32 = 64 << 10;

/// Bytes of a message that are always received.
const SMALL: usize = 16 << 10;

/// Bytes of the head of a message: a flag and its length.
const HEAD: usize = 5;

/// How a body is divided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Framing {
    /// Into messages of gRPC.
    #[default]
    Messages,
    /// Not at all.
    Whole,
}

/// What a body may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub(super) framing: Framing,
    /// Bytes of a message.
    pub(super) limit: usize,
    /// Whether the client may take its time for the messages.
    pub(super) streaming: bool,
    /// Bytes of the whole body, where its head has them.
    pub(super) announced: Option<usize>,
}

/// The call's side of a body.
#[derive(Debug)]
pub(super) struct Received(Arc<Mutex<State>>);

/// The service's side of a body.
#[derive(Debug)]
pub(super) struct RequestBody(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    source: Source,
    connection: Arc<ConnectionUsage>,
    charge: Option<Charge>,
    messages: Messages,
    /// Bytes taken from the stream that its window does not have back.
    unreleased: usize,
    /// Messages that come after the first one.
    streaming: bool,
    ended: bool,
    /// All of it has come.
    is_whole: bool,
    failure: Option<Status>,
    reader: Option<Waker>,
}

/// Splits a body between its messages.
#[derive(Debug, Default)]
struct Messages {
    /// Whole messages.
    whole: VecDeque<Bytes>,
    /// The beginning of the next one.
    partial: BytesMut,
    head: [u8; HEAD],
    filled: usize,
    /// Bytes of the present message that are still to come.
    left: usize,
    limit: usize,
    framing: Framing,
    /// Whole messages so far.
    count: usize,
}

/// A message has too many bytes.
#[derive(Debug, PartialEq)]
enum TooLong {
    /// So many.
    By(usize),
    /// Others may follow.
    AtLeast,
}

/// Splits the body of a request.
pub(super) fn receive(
    source: Source,
    connection: &Arc<ConnectionUsage>,
    Expected { framing, limit, streaming, announced }: Expected,
) -> (Received, RequestBody) {
    let mut state = State {
        source,
        connection: Arc::clone(connection),
        charge: None,
        messages: Messages { limit, framing, ..Messages::default() },
        unreleased: 0,
        streaming,
        ended: false,
        is_whole: false,
        failure: None,
        reader: None,
    };
    // Before a byte of it is read.
    if let Some(bytes) = announced.filter(|bytes| framing == Framing::Whole && *bytes > limit) {
        state.fail(api::of_long_request(bytes, limit));
    }
    let state = Arc::new(Mutex::new(state));
    (Received(Arc::clone(&state)), RequestBody(state))
}

impl Received {
    /// Takes what has arrived, and wakes this task when more does.
    pub(super) fn poll(&self, cx: &mut Context<'_>) {
        let mut state = lock(&self.0);
        if state.receive(cx)
            && let Some(reader) = state.reader.take_if(|reader| !reader.will_wake(cx.waker()))
        {
            drop(state);
            reader.wake();
        }
    }

    /// Counts what is held now. Returns whether a message is to come that the client has
    /// only a limited time for.
    pub(super) fn settle(&self) -> bool {
        let mut state = lock(&self.0);
        let held = state.messages.bytes();
        match &mut state.charge {
            Some(charge) => charge.set(held),
            None if held > 0 => state.charge = Some(state.connection.charge(held)),
            None => {}
        }
        let expects_first = !state.streaming && state.messages.count == 0;
        !state.ended && (state.messages.is_partial() || expects_first)
    }

    /// Whether all of it has come, even if it was not read.
    pub(super) fn is_whole(&self) -> bool {
        lock(&self.0).is_whole
    }

    /// Ends the body with this failure.
    pub(super) fn fail(&self, failure: Status) {
        let mut state = lock(&self.0);
        state.fail(failure);
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }
}

impl Drop for Received {
    /// A request ends with its call: a service that reads it in a task of its own would keep the
    /// stream open, and with it the connection.
    fn drop(&mut self) {
        self.fail(Status::cancelled("the call has ended"));
    }
}

impl State {
    /// Returns whether there is something for the service.
    fn receive(&mut self, cx: &mut Context<'_>) -> bool {
        let mut news = false;
        while !self.ended {
            match self.source.poll_data(cx) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(data))) => {
                    news = true;
                    self.unreleased += data.len();
                    self.take(data);
                }
                Poll::Ready(None) => {
                    news = true;
                    self.ended = true;
                    self.is_whole = true;
                }
                Poll::Ready(Some(Err(broken))) => {
                    news = true;
                    self.fail(broken.status());
                }
            }
        }
        if self.messages.whole.is_empty() {
            self.release();
        }
        news
    }

    fn take(&mut self, data: Bytes) {
        let before = self.messages.partial.len();
        if let Err(too_long) = self.messages.add(data) {
            let limit = self.messages.limit;
            return self.fail(match too_long {
                TooLong::By(bytes) => api::of_long_request(bytes, limit),
                TooLong::AtLeast => api::of_longer_request(limit),
            });
        }
        let now = self.messages.partial.len();
        if now > SMALL && now > before && !self.connection.has_room() {
            self.fail(api::of_full_connection());
        }
    }

    fn fail(&mut self, failure: Status) {
        self.failure = Some(failure);
        self.ended = true;
        self.messages = Messages::default();
        self.charge = None;
    }

    fn release(&mut self) {
        let unreleased = std::mem::take(&mut self.unreleased);
        if let Source::Http2(stream) = &mut self.source
            && unreleased > 0
        {
            // This fails only for more bytes than were received.
            let _ = stream.flow_control().release_capacity(unreleased);
        }
    }
}

impl Messages {
    /// Adds what has arrived.
    fn add(&mut self, mut data: Bytes) -> Result<(), TooLong> {
        if self.framing == Framing::Whole {
            let length = self.partial.len() + data.len();
            if length > self.limit {
                return Err(TooLong::AtLeast);
            }
            self.partial.extend_from_slice(&data);
            return Ok(());
        }
        let mut whole = 0;
        let mut at = 0;
        while at < data.len() {
            if self.left == 0 {
                let taken = (HEAD - self.filled).min(data.len() - at);
                self.head[self.filled..][..taken].copy_from_slice(&data[at..][..taken]);
                self.filled += taken;
                at += taken;
                if self.filled < HEAD {
                    break;
                }
                let [_, length @ ..] = self.head;
                self.left = u32::from_be_bytes(length) as usize;
                if self.left > self.limit {
                    return Err(TooLong::By(self.left));
                }
            } else {
                let taken = self.left.min(data.len() - at);
                self.left -= taken;
                at += taken;
            }
            if self.left == 0 {
                self.filled = 0;
                self.count += 1;
                whole = at;
            }
        }
        if whole > 0 {
            let end = data.split_to(whole);
            if self.partial.is_empty() {
                self.whole.push_back(end);
            } else {
                self.partial.extend_from_slice(&end);
                self.whole.push_back(std::mem::take(&mut self.partial).freeze());
            }
        }
        self.partial.extend_from_slice(&data);
        Ok(())
    }

    fn is_partial(&self) -> bool {
        self.filled > 0
    }

    fn bytes(&self) -> usize {
        // Each piece holds at least a part of the connection's read buffer.
        let whole: usize = self.whole.iter().map(|piece| piece.len() + 64).sum();
        whole + self.partial.capacity()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut state = lock(&self.0);
        if let Some(data) = state.messages.whole.pop_front() {
            if let Some(charge) = &state.charge {
                charge.moved(data.len());
            }
            if state.messages.whole.is_empty() {
                state.release();
            }
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(failure) = state.failure.take() {
            return Poll::Ready(Some(Err(failure)));
        }
        if state.ended {
            // tonic says of the beginning of a message that the request is cut off.
            let rest = std::mem::take(&mut state.messages.partial);
            return Poll::Ready((!rest.is_empty()).then(|| Ok(Frame::data(rest.freeze()))));
        }
        if state.reader.as_ref().is_none_or(|reader| !reader.will_wake(cx.waker())) {
            state.reader = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn framed(message: &[u8]) -> Vec<u8> {
        let length = u32::try_from(message.len()).unwrap();
        [&[0][..], &length.to_be_bytes(), message].concat()
    }

    fn messages(limit: usize) -> Messages {
        Messages { limit, ..Messages::default() }
    }

    #[test]
    fn longer_message_than_the_limit_is_refused_by_its_head() {
        let mut messages = messages(10);
        messages.add(framed(&[7; 10]).into()).unwrap();
        assert_eq!(messages.add(Bytes::from_static(&[0, 0, 0, 0, 11])), Err(TooLong::By(11)));
    }

    #[test]
    fn body_that_is_not_of_grpc_is_one_message_within_the_limit() {
        let mut messages = Messages { limit: 10, framing: Framing::Whole, ..Messages::default() };
        messages.add(Bytes::from_static(b"{\"a\"")).unwrap();
        messages.add(Bytes::from_static(b":1}")).unwrap();
        assert_eq!((messages.whole.len(), &messages.partial[..]), (0, &b"{\"a\":1}"[..]));
        assert_eq!(messages.add(Bytes::from_static(b"xxxx")), Err(TooLong::AtLeast));
    }

    proptest! {
        #[test]
        fn body_is_split_between_its_messages(
            lengths in proptest::collection::vec(0_usize..40, 1..10), piece in 1_usize..50,
        ) {
            let all: Vec<u8> = lengths.iter().flat_map(|length| framed(&vec![7; *length])).collect();
            let mut messages = messages(100);
            let mut passed = Vec::new();
            for data in all.chunks(piece) {
                messages.add(Bytes::copy_from_slice(data)).unwrap();
                passed.extend(messages.whole.drain(..).flatten());
                // What has been passed on ends with a message.
                let mut end = 0;
                let ends: Vec<usize> = lengths.iter().map(|length| { end += HEAD + length; end }).collect();
                prop_assert!(passed.is_empty() || ends.contains(&passed.len()));
                prop_assert_eq!(messages.is_partial(), !messages.partial.is_empty());
            }
            prop_assert_eq!(passed, all);
            prop_assert_eq!(messages.count, lengths.len());
        }
    }
}
