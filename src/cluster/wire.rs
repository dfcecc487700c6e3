//! How messages reach other replicas.

use bytes::Bytes;
use tokio::time::Instant;

/// Sends messages to other replicas. What they send comes through a receiver of its own.
pub trait Wire: Send + Sync + 'static {
    /// Sends a message to the process with this incarnation. Never waits: `false` if it can't be
    /// sent now. A message that was sent may still be lost.
    fn send(&self, to: u64, message: Bytes) -> bool;

    /// Bytes of the largest message that can be sent.
    fn max_message(&self) -> usize {
        960 << 10
    }
}

/// Whether messages and leases can be exchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connection {
    /// They can.
    Connected {
        /// The server's name.
        server: String,
    },
    /// They can't.
    Disconnected {
        /// For an operator.
        why: String,
        /// Since when.
        since: Instant,
    },
}

impl Connection {
    /// Whether it is connected.
    pub fn is_connected(&self) -> bool {
        matches!(self, Self::Connected { .. })
    }
}
