//! One connection over HTTP/1.1, with the bounds of one over HTTP/2.
//!
//! ```text
//! accepted ──> head ──> call ──> head ──> ... ──> draining ──> end
//!     └─────────┴────────┴──────────────────────────┴───> closed
//! ```
//!
//! The first head has ten seconds from the connection's start, each later one a minute. A
//! client that takes nothing of a response for a minute loses its connection, and so does a
//! response that sends nothing for ten. A client that has left is noticed within some seconds. One
//! request is served after the other.

use std::{convert::Infallible, future::poll_fn, pin::pin, sync::Arc, task::Poll, time::Duration};

use http::{HeaderValue, Request, Response, Version, header};
use http_body::Body as _;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tonic::{Status, body::Body};
use tower::Service as _;

use super::{
    call::TAKE,
    connection::{IDLE, Peer, Shared, TICK},
    connection_age::{Age, Due},
    incoming,
    request_body::Source,
    socket::{Condition, Socket},
    usage::ConnectionUsage,
};
use crate::{
    api::{self, ConnectionEnd},
    telemetry::metrics::metrics,
};

mod host;
mod length;
mod outgoing;
mod stream;

use outgoing::Outgoing;
pub(super) use stream::plain_text_refusal;
use stream::{Open, Requests, Stream};

/// How long the head of a later request may take, the wait for it included.
const HEAD: Duration = Duration::from_mins(1);

/// How long a response may send nothing: nothing shows that a client has left whose end does not
/// arrive.
pub(super) const SILENCE: Duration = Duration::from_secs(630);

/// How long a client that sends no more may take nothing. Nearly all of them have left: a client
/// that has closed the connection looks like one that has closed its half, until it is sent
/// something.
const HALF_CLOSED: Duration = Duration::from_secs(10);

/// Number of headers of a request.
const HEADERS: usize = 100;

/// Bytes of a head. Less than over HTTP/2: the buffer for it doubles, and a connection is counted
/// with what it may take.
const HEAD_BYTES: usize = 20 << 10;

/// What a connection does next.
enum Event {
    Drain,
    Tick,
    End(hyper::Result<()>),
}

/// Serves a connection until it ends. `until`: when the first head must have come.
pub(super) async fn serve<T: Socket>(
    stream: T,
    until: Instant,
    peer: Peer,
    usage: Arc<ConnectionUsage>,
    shared: Arc<Shared>,
) -> hyper::Result<()> {
    let mut age = shared.age.map(|limit| limit.begin(rand::random()));
    let requests = Arc::new(Requests::default());
    let service = {
        let (usage, shared, requests) = (Arc::clone(&usage), Arc::clone(&shared), Arc::clone(&requests));
        let end = age.as_ref().map(Age::end).cloned();
        service_fn(move |request: Request<Incoming>| {
            let open = requests.begin(!request.body().is_end_stream());
            answer(request, peer.clone(), Arc::clone(&usage), Arc::clone(&shared), end.clone(), open)
        })
    };
    let stream = Stream::new(stream, TAKE, Arc::clone(&requests));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_headers(HEADERS)
        .max_header_size(HEAD_BYTES)
        .max_buf_size(HEAD_BYTES)
        // Else responses are copied into a buffer, where no usage counts them.
        .writev(true)
        // Elsewhere nothing but the end of what a client sends shows that it has left.
        .half_close(cfg!(target_os = "linux"))
        .serve_connection(TokioIo::new(stream.clone()), service);
    let mut connection = pin!(connection);
    let mut ticks = interval_at(Instant::now() + TICK, TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut idle_since = Instant::now();
    let mut half_closed_since = None;
    let mut drains = false;
    loop {
        let event = poll_fn(|cx| {
            usage.register(cx.waker());
            if usage.is_closed() {
                return Poll::Ready(Event::End(Ok(())));
            }
            if let Some(age) = &mut age
                && let Poll::Ready(due) = age.poll(cx)
            {
                return Poll::Ready(match due {
                    Due::Drain if drains => Event::Tick,
                    Due::Drain => {
                        metrics().connection_expired();
                        Event::Drain
                    }
                    Due::Close => Event::End(Ok(())),
                });
            }
            if usage.is_draining() && !drains {
                return Poll::Ready(Event::Drain);
            }
            if ticks.poll_tick(cx).is_ready() {
                return Poll::Ready(Event::Tick);
            }
            connection.as_mut().poll(cx).map(Event::End)
        });
        match event.await {
            Event::End(Err(error)) if error.is_incomplete_message() => {
                stream.refuse_cut_off().await;
                return Err(error);
            }
            Event::End(ended) => return ended,
            Event::Drain => {
                drains = true;
                connection.as_mut().graceful_shutdown();
            }
            Event::Tick => {
                let now = Instant::now();
                if usage.calls() > 0 {
                    idle_since = now;
                    match stream.condition() {
                        Condition::Open => {}
                        Condition::HalfClosed => {
                            let since = (*half_closed_since.get_or_insert(now)).max(stream.taken_at());
                            if has_left(now.saturating_duration_since(since)) {
                                return Ok(());
                            }
                        }
                        Condition::Gone => return Ok(()),
                    }
                }
                if now >= until && !requests.has_begun() {
                    return Ok(());
                }
                let idle = if (shared.is_scarce)() { IDLE.1 } else { IDLE.0 };
                if now.saturating_duration_since(idle_since) >= idle && !drains {
                    drains = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// Whether a client that has closed its half has taken nothing for too long. The tick that is
/// nearest decides: one may come a moment early.
fn has_left(takes_nothing_for: Duration) -> bool {
    takes_nothing_for + TICK / 2 >= HALF_CLOSED
}

/// Serves one request.
async fn answer(
    request: Request<Incoming>,
    peer: Peer,
    usage: Arc<ConnectionUsage>,
    shared: Arc<Shared>,
    end: Option<ConnectionEnd>,
    open: Open,
) -> Result<Response<Outgoing>, Infallible> {
    let (head, body) = request.into_parts();
    let version = head.version;
    let mut service = shared.service.clone();
    let (form, refused) = match host::check(&head) {
        Ok(()) => incoming::form(&head, &peer, &service),
        Err(status) => incoming::refused(&head, status),
    };
    let Some(call) = usage.begin_call(incoming::header_bytes(&head)) else {
        let response = form.failure(&api::of_full_connection());
        return Ok(response.map(|body| Outgoing::uncounted(body, Some(open))));
    };
    let (request, call) =
        incoming::begin((head, Source::Http1(body)), (form, refused), &peer, call, end.as_ref());
    let response = timeout(SILENCE, call.response(service.call(request), |_| false)).await;
    // The service does not fail, and hyper drops this future with its connection.
    let response = response.unwrap_or_else(|_| Ok(call.form.failure(&api::of_silence())));
    let response = response.unwrap_or_else(|_| call.form.failure(&Status::internal("the call has ended")));
    let (mut parts, body): (_, Body) = response.into_parts();
    call.form.complete(&mut parts.headers);
    // Nothing can follow a request whose rest is not read, nor a response without a length in
    // HTTP/1.0. A client that does not know this would send its next request and lose it.
    let ends_with_connection = version == Version::HTTP_10 && body.size_hint().exact().is_none();
    if ends_with_connection || !call.received.is_whole() {
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        // hyper would add `keep-alive` to a response of HTTP/1.1 if the client has asked for that.
        if version == Version::HTTP_10 {
            parts.version = version;
        }
    }
    Ok(Response::from_parts(parts, Outgoing::new(body, call, open)))
}

#[cfg(test)]
mod tests;
