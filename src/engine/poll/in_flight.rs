//! A poll that is under way, as its jobs see it.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Poll,
};

use futures_util::task::AtomicWaker;

use crate::telemetry::traces::PollSpan;

/// A poll in flight. It is cancelled when the last subscriber of all its jobs has left.
#[derive(Debug)]
pub(in crate::engine) struct InFlightPoll {
    /// Jobs in it that have subscribers.
    subscribed: AtomicUsize,
    cancelled: AtomicBool,
    /// The poll's task.
    task: AtomicWaker,
    /// Where polls are traced.
    span: Option<PollSpan>,
}

impl InFlightPoll {
    pub(super) fn new(jobs: usize, span: Option<PollSpan>) -> Arc<Self> {
        let (subscribed, cancelled) = (AtomicUsize::new(jobs), AtomicBool::new(false));
        Arc::new(Self { subscribed, cancelled, task: AtomicWaker::new(), span })
    }

    /// Whether nobody subscribes to any of its jobs any more.
    pub(in crate::engine) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Waits in the poll's task until nobody does.
    pub(in crate::engine) async fn cancelled(&self) {
        poll_fn(|cx| {
            self.task.register(cx.waker());
            if self.is_cancelled() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// The poll's span, if it is traced.
    pub(in crate::engine) fn span(&self) -> Option<&PollSpan> {
        self.span.as_ref()
    }

    /// One more job has subscribers. Returns whether it is not too late for that.
    pub(in crate::engine) fn job_subscribed(&self) -> bool {
        let in_time = !self.is_cancelled();
        if in_time {
            self.subscribed.fetch_add(1, Ordering::Relaxed);
        }
        in_time
    }

    /// One job has no subscribers any more.
    pub(in crate::engine) fn job_left(&self) {
        if self.subscribed.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.cancelled.store(true, Ordering::Release);
            self.task.wake();
        }
    }

    #[cfg(test)]
    pub(in crate::engine) fn subscribed(&self) -> usize {
        self.subscribed.load(Ordering::Relaxed)
    }
}
