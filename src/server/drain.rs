//! The shutdown of the server.
//!
//! ```text
//! serving ──signal──> unready ──drain_delay──> draining ──drain_timeout──> calls end ──> stopped
//! ```
//!
//! | phase | new calls | streams | other calls |
//! | --- | --- | --- | --- |
//! | unready | are accepted | go on | go on |
//! | draining | are refused | end with their newest status | finish, and their jobs are polled |
//! | calls end | are refused | | end with `SHUTTING_DOWN` |
//!
//! The server stops as soon as the last connection has ended. With a `drain_delay` it accepts
//! connections for that long, even if it has none.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::usage::Usage;
use crate::{
    admin::{Phase, Readiness},
    config::Server,
    engine::Engine,
};

/// How long clients may take to read how their calls ended.
const READ: Duration = Duration::from_secs(3);

/// What takes part in a shutdown.
pub(super) struct Drain<'a> {
    pub(super) server: &'a Server,
    pub(super) readiness: &'a Readiness,
    pub(super) engine: &'a Engine,
    pub(super) usage: &'a Usage,
    /// Ends streams, closes the listening socket, and ends the watches of health.
    pub(super) draining: &'a CancellationToken,
}

impl Drain<'_> {
    /// Shuts the server down. `serving` accepts connections until [`draining`](Self::draining),
    /// and completes when the last one has ended.
    pub(super) async fn run(self, serving: impl Future<Output = ()>) {
        let began = Instant::now();
        let (delay, limit) = (self.server.drain_delay, self.server.drain_timeout);
        self.readiness.set(Phase::Draining);
        info!(
            drain_delay_ms = millis(delay),
            drain_timeout_ms = millis(limit),
            open_watches = self.open_watches(),
            "shutdown began"
        );
        tokio::select! {
            () = serving => {}
            () = self.steps(delay, limit) => {}
        }
        info!(took_ms = millis(began.elapsed()), "stopped");
    }

    /// What is done while connections end by themselves. Returns when they had their time.
    async fn steps(&self, delay: Duration, limit: Duration) {
        if !delay.is_zero() {
            sleep(delay).await;
            info!(open_watches = self.open_watches(), "drain began: no further calls are accepted");
        }
        self.draining.cancel();
        sleep(limit).await;
        warn!(drain_timeout_ms = millis(limit), "calls that did not finish in time were ended");
        self.engine.end_calls();
        sleep(READ).await;
        warn!("connections were closed whose clients did not read");
        self.usage.close();
    }

    fn open_watches(&self) -> usize {
        self.engine.usage().watches.0
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
