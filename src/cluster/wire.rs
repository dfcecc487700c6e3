//! What carries messages between replicas.

use bytes::Bytes;

/// Sends messages to other replicas. In order for each receiver, and any may be lost.
pub trait Wire: Send + Sync + 'static {
    /// Sends a message to the replica of this number without waiting. `false` where it can't
    /// be taken now.
    fn send(&self, to: u64, message: Bytes) -> bool;
}
