//! The room that a connection has for messages.

use std::{fmt, pin::Pin, sync::Arc};

/// What counts the bytes that a connection holds.
pub trait CountsBytes: Send + Sync {
    /// Completes when another message may be encoded.
    fn room(self: Arc<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>>;

    /// Counts bytes until the returned value is dropped.
    fn hold(self: Arc<Self>, bytes: usize) -> Box<dyn Send + Sync>;
}

/// The room of a request's connection, as an extension of the request. A body is encoded when
/// it is sent, where there is room; this is for what has to be known before.
#[derive(Clone)]
pub struct Room(Arc<dyn CountsBytes>);

impl Room {
    /// The room of this connection.
    pub fn of(connection: Arc<dyn CountsBytes>) -> Self {
        Self(connection)
    }

    pub(super) async fn wait(&self) {
        Arc::clone(&self.0).room().await;
    }

    pub(super) fn hold(&self, bytes: usize) -> Box<dyn Send + Sync> {
        Arc::clone(&self.0).hold(bytes)
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").finish_non_exhaustive()
    }
}
