//! The connections to one base URL.
//!
//! hyper-util's client pools connections, but takes back neither one that has become old
//! nor one of HTTP/2 on which nothing arrives any more. So a pool is a series of its
//! clients: replacing the client leaves requests in flight alone, and its connections close
//! when the last of them ends.
//!
//! Whether a vendor behind TLS speaks HTTP/2 shows when the first connection is open. Until
//! then all other requests wait: each would open a connection of its own for nothing.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body_util::Full;
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioTimer},
};
use tokio::{sync::watch, time::Instant};

use super::{
    Permit,
    connector::{Connector, Dialer},
    intervals::Intervals,
};

/// Most bytes of a head over HTTP/2. hyper's own limit, 16 KiB, is less than vendors' cookies
/// and policies may need.
const MAX_HEAD: u32 = 64 * 1024;

/// An HTTP client whose connections are opened by a [`Dialer`].
pub(super) type Client = legacy::Client<Connector, Full<Bytes>>;

/// Keeps connections.
pub(super) struct Pool {
    dialer: Arc<Dialer>,
    timeout: Duration,
    intervals: Intervals,
    current: ArcSwap<Generation>,
}

/// The connections that were opened from one moment on.
pub(super) struct Generation {
    pub(super) client: Client,
    /// No request is sent from then on.
    ends: Instant,
    multiplexes: Arc<AtomicBool>,
    first: watch::Sender<First>,
}

/// The first connection of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    NotBegun,
    Begun,
    /// It is open, or could not be opened.
    Over,
}

/// Held by the request that opens the first connection, until it is open.
#[derive(Debug)]
pub(super) struct Opening<'a>(&'a Generation);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.first.send_replace(First::Over);
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generation").finish_non_exhaustive()
    }
}

impl Pool {
    /// `timeout` is that of a request.
    pub(super) fn new(dialer: &Arc<Dialer>, timeout: Duration, intervals: Intervals) -> Self {
        let current = ArcSwap::from_pointee(Generation::new(dialer, timeout, &intervals));
        Self { dialer: Arc::clone(dialer), timeout, intervals, current }
    }

    /// The connections for a request that is sent now.
    pub(super) fn current(&self) -> Arc<Generation> {
        let current = self.current.load_full();
        if Instant::now() < current.ends { current } else { self.replace(&current) }
    }

    /// Sends no more requests over the connections of `old`, and returns their successors.
    pub(super) fn replace(&self, old: &Arc<Generation>) -> Arc<Generation> {
        let new = Arc::new(Generation::new(&self.dialer, self.timeout, &self.intervals));
        // Of several requests that failed together, one replaces it.
        let before = self.current.compare_and_swap(old, Arc::clone(&new));
        if Arc::ptr_eq(&before, old) { new } else { self.current.load_full() }
    }
}

impl Generation {
    fn new(dialer: &Arc<Dialer>, timeout: Duration, intervals: &Intervals) -> Self {
        let multiplexes = Arc::default();
        Self {
            client: builder(timeout, intervals).build(Connector::new(dialer, &multiplexes)),
            ends: Instant::now() + intervals.age(rand::random()),
            multiplexes,
            first: watch::Sender::new(if dialer.is_https() { First::NotBegun } else { First::Over }),
        }
    }

    /// Waits while another request opens the first connection. What `permit` has acquired is
    /// released meanwhile.
    pub(super) async fn may_send(&self, permit: &mut Permit) -> Option<Opening<'_>> {
        if *self.first.borrow() == First::Over {
            return None;
        }
        let begins = self.first.send_if_modified(|first| {
            let begins = *first == First::NotBegun;
            if begins {
                *first = First::Begun;
            }
            begins
        });
        if begins {
            return Some(Opening(self));
        }
        permit.release();
        // Its sender lives as long as this.
        let _ = self.first.subscribe().wait_for(|first| *first == First::Over).await;
        None
    }

    /// Whether its connections speak HTTP/2, as far as there are any yet.
    pub(super) fn multiplexes(&self) -> bool {
        self.multiplexes.load(Ordering::Relaxed)
    }
}

/// A client that opens a connection for each request.
pub(super) fn without_pool(dialer: &Arc<Dialer>, timeout: Duration, intervals: &Intervals) -> Client {
    builder(timeout, intervals).pool_max_idle_per_host(0).build(Connector::new(dialer, &Arc::default()))
}

/// The same, for bodies of any size: an HTTP/2 connection holds at most `window` bytes that
/// nobody has read.
pub(super) fn for_files(
    dialer: &Arc<Dialer>,
    timeout: Duration,
    intervals: &Intervals,
    window: u32,
) -> Client {
    builder(timeout, intervals)
        .pool_max_idle_per_host(0)
        .http2_initial_stream_window_size(window)
        .http2_initial_connection_window_size(window)
        .build(Connector::new(dialer, &Arc::default()))
}

fn builder(timeout: Duration, intervals: &Intervals) -> legacy::Builder {
    let mut builder = legacy::Client::builder(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(intervals.idle)
        // As RFC 9112, section 5.2, has a client read them.
        .http1_allow_obsolete_multiline_headers_in_responses(true)
        .http1_allow_spaces_after_header_name_in_responses(true)
        .http2_max_header_list_size(MAX_HEAD)
        .http2_keep_alive_interval(intervals.ping)
        .http2_keep_alive_timeout(intervals.ping_timeout.min(timeout))
        .http2_keep_alive_while_idle(true);
    builder
}
