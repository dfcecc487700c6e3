//! One connection over HTTP/2.
//!
//! ```text
//! accepted ──> TLS handshake ──> preface ──> calls ──> draining ──> end
//!     └──────────────┴─────────────┴───────────┴────────────┴─────> closed
//! ```
//!
//! A handshake and the preface have ten seconds together. Without a call the connection
//! drains after some minutes, or after seconds when connections are scarce. A connection that
//! is too old drains, too.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::FutureExt;
use h2::{
    Ping, PingPong, Reason, RecvStream,
    server::{Builder, SendResponse},
};
use http::Request;
use http_body::Body as _;
use http_body_util::{BodyExt, Collected};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};
use tonic::transport::server::TcpConnectInfo;
use tower::Service as _;
use tracing::debug;

use super::{
    call::{Piece, SEND_BUFFER},
    connection_age::{Age, AgeLimit, Due},
    dispatch::{CertificateNames, Dispatch},
    incoming,
    request_body::{self, Source},
    usage::ConnectionUsage,
    wire::{Seen, Wire},
};
use crate::{
    api::{self, ConnectionEnd},
    telemetry::metrics::metrics,
};

/// HTTP/2 flow-control window of a connection.
const CONNECTION_WINDOW: u32 = 1 << 20;

/// What small unread frames of a connection may cost in h2: more than all that fit into the
/// windows of several streams. A WatchJobs call may begin with thousands of requests, each
/// in a frame of its own.
const SMALL_FRAMES: usize = 8 << 20;

/// Largest header list of a request: a bearer token of 16 KiB and the rest.
const HEADER_LIST: u32 = 32 << 10;

/// How often a connection looks whether it is silent or idle.
pub(super) const TICK: Duration = Duration::from_secs(5);

/// Silence after which a keep-alive ping is sent, and how long the client may take to answer
/// it. The watches of a client that vanished end with its connection.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

/// How long a connection stays open without a call; and when connections are scarce.
pub(super) const IDLE: (Duration, Duration) = (Duration::from_mins(5), Duration::from_secs(10));

/// How long a connection may take to send its last frames.
const LAST_FRAMES: Duration = Duration::from_secs(5);

/// What all connections share.
pub(super) struct Shared {
    pub(super) service: Dispatch,
    pub(super) streams: u32,
    /// How old a connection may become.
    pub(super) age: Option<AgeLimit>,
    /// Whether connections are scarce.
    pub(super) is_scarce: Box<dyn Fn() -> bool + Send + Sync>,
}

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) address: TcpConnectInfo,
    pub(super) certificate: Option<CertificateNames>,
    /// Whether the connection is TLS.
    pub(super) is_encrypted: bool,
}

/// What a connection does next.
#[expect(clippy::large_enum_variant, reason = "calls are the most frequent")]
enum Event {
    Call(Request<RecvStream>, SendResponse<Piece>),
    Tick,
    Drain,
    Flood(&'static str),
    End,
}

/// Serves a connection until it ends. `until`: when the preface must have come.
pub(super) async fn serve<T: AsyncRead + AsyncWrite + Unpin>(
    wire: Wire<T>,
    until: Instant,
    peer: Peer,
    usage: Arc<ConnectionUsage>,
    shared: Arc<Shared>,
) -> Result<(), h2::Error> {
    let seen = wire.seen();
    let handshake = builder(shared.streams).handshake::<_, Piece>(wire);
    let handshake = tokio::time::timeout_at(until, handshake);
    let mut connection = tokio::select! {
        connection = handshake => match connection {
            Ok(connection) => connection?,
            Err(_) => return Ok(()),
        },
        () = usage.drained() => return Ok(()),
    };
    let mut ticks = interval_at(Instant::now() + TICK, TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut silence = Silence::new(connection.ping_pong(), &seen);
    let mut idle_since = Instant::now();
    let mut drains = false;
    let mut age = shared.age.map(|limit| limit.begin(rand::random()));
    let mut service = shared.service.clone();
    loop {
        let event = poll_fn(|cx| {
            usage.register(cx.waker());
            if let Some(age) = &mut age
                && let Poll::Ready(due) = age.poll(cx)
            {
                return Poll::Ready(Ok(match due {
                    Due::Drain if drains => Event::Tick,
                    Due::Drain => {
                        metrics().connection_expired();
                        Event::Drain
                    }
                    Due::Close => Event::End,
                }));
            }
            next_event(&mut connection, &usage, &seen, &mut ticks, &mut drains, cx)
        });
        match event.await? {
            Event::Call(request, respond) => {
                let end = age.as_ref().map(Age::end);
                begin(&mut service, request, respond, &peer, &usage, end);
            }
            Event::Drain => {
                drains = true;
                connection.graceful_shutdown();
            }
            Event::Tick => {
                let now = Instant::now();
                if usage.calls() > 0 {
                    idle_since = now;
                }
                if silence.is_dead(&seen, now) {
                    connection.abrupt_shutdown(Reason::NO_ERROR);
                    return last_frames(connection).await;
                }
                let idle = if (shared.is_scarce)() { IDLE.1 } else { IDLE.0 };
                if now.saturating_duration_since(idle_since) >= idle && !drains {
                    drains = true;
                    connection.graceful_shutdown();
                }
                // A client that does not close what it does not use.
                if now.saturating_duration_since(idle_since) >= idle + KEEPALIVE.1 {
                    return Ok(());
                }
            }
            Event::Flood(frames) => {
                debug!(frames, "connection closed: too many frames");
                connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                return last_frames(connection).await;
            }
            Event::End => return Ok(()),
        }
    }
}

fn builder(streams: u32) -> Builder {
    let mut builder = Builder::new();
    let resets = usize::try_from(streams).unwrap_or(usize::MAX).max(200);
    builder
        .initial_window_size(request_body::WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .data_frame_budget(SMALL_FRAMES)
        .max_header_list_size(HEADER_LIST)
        .max_concurrent_streams(streams)
        .max_send_buffer_size(SEND_BUFFER)
        // All calls of a client may be cancelled at once. `wire` bounds how often.
        .max_pending_accept_reset_streams(resets);
    builder
}

fn next_event<T: AsyncRead + AsyncWrite + Unpin>(
    connection: &mut h2::server::Connection<T, Piece>,
    usage: &ConnectionUsage,
    seen: &Seen,
    ticks: &mut Interval,
    drains: &mut bool,
    cx: &mut Context<'_>,
) -> Poll<Result<Event, h2::Error>> {
    if usage.is_closed() {
        return Poll::Ready(Ok(Event::End));
    }
    if usage.is_draining() && !*drains {
        *drains = true;
        return Poll::Ready(Ok(Event::Drain));
    }
    if ticks.poll_tick(cx).is_ready() {
        return Poll::Ready(Ok(Event::Tick));
    }
    let call = connection.poll_accept(cx);
    if let Some(frames) = seen.flood() {
        return Poll::Ready(Ok(Event::Flood(frames)));
    }
    call.map(|call| match call {
        Some(Ok((request, respond))) => Ok(Event::Call(request, respond)),
        Some(Err(error)) => Err(error),
        None => Ok(Event::End),
    })
}

/// Sends what says why the connection ends.
async fn last_frames<T: AsyncRead + AsyncWrite + Unpin>(
    mut connection: h2::server::Connection<T, Piece>,
) -> Result<(), h2::Error> {
    let closed = poll_fn(|cx| connection.poll_closed(cx));
    tokio::time::timeout(LAST_FRAMES, closed).await.unwrap_or(Ok(()))
}

/// Starts the task of a call.
fn begin(
    service: &mut Dispatch,
    request: Request<RecvStream>,
    mut respond: SendResponse<Piece>,
    peer: &Peer,
    usage: &Arc<ConnectionUsage>,
    end: Option<&ConnectionEnd>,
) {
    let (head, stream) = request.into_parts();
    let form = incoming::form(&head, peer, service);
    let Some(usage) = usage.begin_call(incoming::header_bytes(&head)) else {
        let (mut parts, body) = form.0.failure(&api::of_full_connection()).into_parts();
        form.0.complete(&mut parts.headers);
        let is_all = body.is_end_stream();
        if let Ok(mut stream) = respond.send_response(http::Response::from_parts(parts, ()), is_all)
            && !is_all
        {
            let text = body.collect().now_or_never().and_then(Result::ok);
            let bytes = text.map(Collected::to_bytes).unwrap_or_default();
            let _ = stream.send_data(Piece { bytes, charge: None }, true);
        }
        return;
    };
    let (request, call) = incoming::begin((head, Source::Http2(stream)), form, peer, usage, end);
    tokio::spawn(call.run(service.call(request), respond));
}

/// Sends keep-alive pings to a silent client.
struct Silence {
    pings: Option<PingPong>,
    bytes: u64,
    since: Instant,
    pinged_at: Option<Instant>,
}

impl Silence {
    fn new(pings: Option<PingPong>, seen: &Seen) -> Self {
        Self { pings, bytes: seen.bytes(), since: Instant::now(), pinged_at: None }
    }

    /// Whether the client has not answered a ping for too long.
    fn is_dead(&mut self, seen: &Seen, now: Instant) -> bool {
        let bytes = seen.bytes();
        if bytes != self.bytes {
            (self.bytes, self.since, self.pinged_at) = (bytes, now, None);
            self.take_pong();
            return false;
        }
        if let Some(pinged_at) = self.pinged_at {
            return now.saturating_duration_since(pinged_at) >= KEEPALIVE.1;
        }
        if now.saturating_duration_since(self.since) >= KEEPALIVE.0
            && let Some(pings) = &mut self.pings
            // It fails while the last one is not answered.
            && pings.send_ping(Ping::opaque()).is_ok()
        {
            self.pinged_at = Some(now);
        }
        false
    }

    fn take_pong(&mut self) {
        if let Some(pings) = &mut self.pings {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            let _ = pings.poll_pong(&mut cx);
        }
    }
}
