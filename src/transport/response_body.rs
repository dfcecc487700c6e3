//! Reads the body of a response whose head is here.
//!
//! | head | read | if the body fails |
//! | --- | --- | --- |
//! | success | up to `max_response_bytes`, within the time-out | the poll failed |
//! | anything else | up to 64 KiB, for a second at most | the head decides, with what was read |
//!
//! A 400 or 422 says nothing without its body: if that breaks off, so did the connection. A
//! body that is not read to its end closes its connection, on HTTP/1.1; a short one is
//! therefore read although nobody needs it.

use std::{
    pin::pin,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use super::{
    Reservation, ResponseBudget,
    content_coding::{DecodeError, Decoder},
};
use crate::{
    job::{BackendFault, FaultKind},
    vendors::{Asked, Class, in_context},
};

/// Most bytes that are read of a response that is not a success.
const MAX_REFUSAL_BYTES: usize = 64 * 1024;

/// Longest wait for the body of such a response, from its head on.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(1);

/// Why a body that can't be decompressed is none.
pub(super) const CORRUPT: &str = "its compressed body can't be decompressed";

/// Why the body of a response is not the whole one, as an extension of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Partial {
    TooLong,
    TooLate,
    NoRoom,
    Broken,
}

impl Partial {
    /// For people who write a definition.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::TooLong => "it is longer than the 64 KiB that are read of an answer that is no success",
            Self::TooLate => "the rest did not come within the second that an answer that is no success has",
            Self::NoRoom => "there was no room for it",
            Self::Broken => "it broke off",
        }
    }
}

const UTF8_BOM: &[u8] = b"\xef\xbb\xbf";

/// Within what the body of a success is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits<'a> {
    pub(super) max_bytes: usize,
    pub(super) budget: &'a ResponseBudget,
    /// When the request was sent.
    pub(super) sent_at: Instant,
    pub(super) timeout: Duration,
}

/// Reads the body and decodes it: without a content coding, without a byte-order mark. Waits
/// for room in the budget before that. `broken` says why the connection ended. The response
/// has a Date header, and an [`Asked`] for the adapters' faults.
///
/// # Errors
/// No usable response.
pub(super) async fn read<B>(
    asked: Asked,
    response: Response<B>,
    limits: Limits<'_>,
    broken: impl Fn(&B::Error) -> BackendFault,
) -> Result<(Response<Bytes>, Reservation), BackendFault>
where
    B: Body<Data = Bytes> + Unpin,
{
    let (head, body) = response.into_parts();
    let mut response = Response::from_parts(head, Bytes::new());
    let head = &mut response;
    head.extensions_mut().insert(asked);
    let is_success = Class::of(head.status()) == Class::Success;
    // Few successes have a date to compare.
    if !is_success || !head.headers().contains_key(header::DATE) {
        add_date(head.headers_mut());
    }
    let body = Incoming { body, broken };
    let outcome = if is_success {
        body.read(head.headers(), limits).await.map(|(body, room)| (body, room, None))
    } else {
        body.read_refusal(head, limits).await
    };
    let (body, room, partial) = outcome.map_err(|fault| in_context(fault, &response))?;
    if let Some(partial) = partial {
        response.extensions_mut().insert(partial);
    }
    let body = if body.starts_with(UTF8_BOM) { body.slice(UTF8_BOM.len()..) } else { body };
    *response.body_mut() = body;
    Ok((response, room))
}

/// RFC 9110, section 6.6.1: a recipient adds the time at which the response came. Requested
/// waits are read against it.
pub(super) fn add_date(headers: &mut HeaderMap) {
    let date = headers.get(header::DATE).and_then(|date| date.to_str().ok());
    if date.is_none_or(|date| httpdate::parse_http_date(date).is_err()) {
        let now = httpdate::fmt_http_date(SystemTime::now());
        headers.insert(header::DATE, HeaderValue::try_from(now).expect("a date is ASCII"));
    }
}

/// A body that comes in, and how to say why it ends.
struct Incoming<B, F> {
    body: B,
    broken: F,
}

impl<B, F> Incoming<B, F>
where
    B: Body<Data = Bytes> + Unpin,
    F: Fn(&B::Error) -> BackendFault,
{
    /// The length that the head says, if it does.
    fn announced(&self) -> Option<usize> {
        self.body.size_hint().exact().map(|length| usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// The body of a success.
    async fn read(
        mut self,
        headers: &HeaderMap,
        limits: Limits<'_>,
    ) -> Result<(Bytes, Reservation), BackendFault> {
        let Limits { max_bytes, budget, sent_at, timeout } = limits;
        let announced = self.announced();
        let mut decoder = Decoder::new(headers, max_bytes, announced);
        let length = announced.filter(|_| decoder.is_plain());
        if length.is_some_and(|length| length > max_bytes) {
            return Err(FaultKind::TooLarge.into());
        }
        let room = budget.acquire(length.unwrap_or(max_bytes.saturating_mul(decoder.buffers())));
        let room = by(sent_at + timeout, room).await;
        let mut room = room.ok_or_else(|| BackendFault::from(FaultKind::Overloaded))?;
        let whole = by(sent_at + timeout, self.push_all(&mut decoder)).await;
        whole.ok_or_else(|| unfinished(timeout))??;
        let capacity = decoder.capacity();
        let body = decoder.finish().map_err(undecodable)?;
        room.shrink_to(capacity.max(body.len()));
        Ok((body, room))
    }

    /// The body of anything else. It fails only where the head leaves everything to it.
    async fn read_refusal(
        mut self,
        head: &Response<Bytes>,
        limits: Limits<'_>,
    ) -> Result<(Bytes, Reservation, Option<Partial>), BackendFault> {
        let none = |why| Ok((Bytes::new(), Reservation::default(), why));
        let is_undecided = Class::of(head.status()) == Class::Other;
        let announced = self.announced();
        let is_long = announced.is_some_and(|length| length > MAX_REFUSAL_BYTES);
        if announced == Some(0) || is_long && !is_undecided {
            return none(is_long.then_some(Partial::TooLong));
        }
        let now = Instant::now();
        let deadline = limits.sent_at + limits.timeout;
        let until = deadline.min(now + REFUSAL_PATIENCE);
        let room = limits.budget.acquire(MAX_REFUSAL_BYTES);
        let room = by(if is_undecided { deadline } else { until }, room).await;
        let mut room = match room {
            Some(room) => room,
            None if is_undecided => return Err(FaultKind::Overloaded.into()),
            None => return none(Some(Partial::NoRoom)),
        };
        let mut decoder = Decoder::new(head.headers(), MAX_REFUSAL_BYTES, announced);
        let whole = by(until, self.push_all(&mut decoder)).await;
        let capacity = decoder.capacity();
        let is_late = whole.is_none();
        let whole = whole.unwrap_or_else(|| Err(unfinished(until - now)));
        let needs_body = matches!(head.status(), StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY);
        let partial = match &whole {
            Ok(()) => None,
            Err(_) if is_late => Some(Partial::TooLate),
            Err(fault) if fault.kind == FaultKind::TooLarge => Some(Partial::TooLong),
            Err(_) => Some(Partial::Broken),
        };
        let body = match whole {
            Ok(()) => decoder.finish().unwrap_or_default(),
            Err(fault @ BackendFault { kind: FaultKind::Unavailable { .. }, .. }) if needs_body => {
                return Err(fault);
            }
            Err(_) => decoder.into_partial(),
        };
        room.shrink_to(capacity.max(body.len()));
        Ok((body, room, partial))
    }

    async fn push_all(&mut self, decoder: &mut Decoder) -> Result<(), BackendFault> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| (self.broken)(&error))?;
            if let Ok(bytes) = frame.into_data() {
                decoder.push(&bytes).map_err(undecodable)?;
            }
        }
        Ok(())
    }
}

/// What `future` comes to by `deadline`. Most are ready and need no timer.
async fn by<T>(deadline: Instant, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    match future.as_mut().now_or_never() {
        Some(ready) => Some(ready),
        None => timeout_at(deadline, future).await.ok(),
    }
}

fn unfinished(timeout: Duration) -> BackendFault {
    FaultKind::Unavailable { why: format!("no whole response within {timeout:?}") }.into()
}

fn undecodable(error: DecodeError) -> BackendFault {
    match error {
        DecodeError::TooLarge => FaultKind::TooLarge.into(),
        DecodeError::Corrupt => FaultKind::Unavailable { why: CORRUPT.to_owned() }.into(),
    }
}

#[cfg(test)]
mod tests;
