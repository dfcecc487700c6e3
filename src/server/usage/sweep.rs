//! Makes room: lets calls go on for which there is room again, and closes connections that
//! don't take their bytes while others wait.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use super::{ConnectionUsage, Usage};
use crate::telemetry::Sampled;

/// How often connections that don't take their bytes are looked for.
const SWEEP: Duration = Duration::from_millis(250);

/// How many bytes a connection has to take in which time while others wait for room.
pub(super) const PROGRESS: usize = 64 << 10;
const STALLED: Duration = Duration::from_secs(10);

/// Most log lines, since clients can cause any number of them.
static CLOSED: Sampled = Sampled::new(1);

/// Runs until it is dropped.
pub(in crate::server) async fn sweep(usage: &Usage) {
    let mut ticks = interval(SWEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Whether bytes move matters only while calls wait.
    let mut waiting_since = None;
    loop {
        ticks.tick().await;
        if usage.waiting.load(Relaxed) == 0 {
            waiting_since = None;
            continue;
        }
        let connections = usage.connections();
        let now = usage.millis();
        let since = *waiting_since.get_or_insert(now);
        for connection in &connections {
            let still = connection.still(now, since);
            if connection.is_large() && connection.address.is_full() && still >= STALLED.as_millis() as usize
            {
                close(connection, still);
            }
        }
        for connection in connections {
            if connection.waiting.load(Relaxed) > 0 && connection.has_room() {
                connection.room.notify_one();
            }
        }
    }
}

fn close(connection: &ConnectionUsage, still_ms: usize) {
    if let Some(left_out) = CLOSED.next_line() {
        warn!(
            address = %connection.address.address,
            bytes = connection.messages.load(Relaxed),
            still_ms,
            left_out,
            "connection closed: it does not take its bytes while others wait for room in \
             limits.connection_bytes"
        );
    }
    connection.close();
}
