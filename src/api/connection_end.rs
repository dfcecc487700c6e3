//! The end of a connection that has become too old, as its calls see it.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Extensions, Status};

use super::status;
use crate::engine::Failure;

/// The calls of one connection have to end. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct ConnectionEnd(CancellationToken);

impl ConnectionEnd {
    /// Ends the calls of the connection: streams after their newest status, others at once.
    pub fn end_calls(&self) {
        self.0.cancel();
    }

    /// Completes when the calls have to end.
    pub fn ended(&self) -> WaitForCancellationFutureOwned {
        self.0.clone().cancelled_owned()
    }
}

/// Ends one call with its connection, if the age of connections is limited.
#[derive(Debug)]
pub(super) struct Expiry(Option<Pin<Box<WaitForCancellationFutureOwned>>>);

impl Expiry {
    /// Of the call with these extensions.
    pub(super) fn of(extensions: &Extensions) -> Self {
        Self(extensions.get::<ConnectionEnd>().map(|end| Box::pin(end.ended())))
    }

    /// Whether the call has to end now. It wakes the task when that changes, and is true once.
    pub(super) fn has_come(&mut self, cx: &mut Context<'_>) -> bool {
        let has_come = self.0.as_mut().is_some_and(|end| end.as_mut().poll(cx).is_ready());
        if has_come {
            self.0 = None;
        }
        has_come
    }

    /// The result of a step, or [`Failure::ConnectionExpired`], which is returned once.
    pub(super) async fn unless_expired<T>(&mut self, step: impl Future<Output = T>) -> Result<T, Failure> {
        let expired =
            std::future::poll_fn(|cx| if self.has_come(cx) { Poll::Ready(()) } else { Poll::Pending });
        tokio::select! {
            biased;
            () = expired => Err(Failure::ConnectionExpired),
            result = step => Ok(result),
        }
    }
}

/// The status of a call that ends because its connection is too old.
pub fn of_expired_connection() -> Status {
    status::of_call(&Failure::ConnectionExpired)
}

/// The status of a call that ends because the server drains.
pub fn of_shutdown() -> Status {
    status::of_call(&Failure::ShuttingDown)
}
