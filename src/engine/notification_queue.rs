//! Which of a reader's jobs have a new status.
//!
//! The queue holds no statuses, only the numbers of the slots that have a new one:
//! the reader then looks at the newest status of that job. A slot is queued at most
//! once, so a slow reader costs no memory and skips nothing but intermediate states.

use std::{
    collections::VecDeque,
    future::poll_fn,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use super::CallerKey;
use crate::telemetry::traces::Waiter;

/// Slots for which an empty queue keeps its memory.
const KEPT: usize = 4096;

/// Tells one reader which of its slots have a new status.
#[derive(Debug, Default)]
pub struct NotificationQueue {
    queue: Mutex<Queue>,
    /// Whose turn a poll of the reader's jobs counts for.
    caller: CallerKey,
    /// The call of the reader, if it is traced.
    waiter: Option<Box<Waiter>>,
}

#[derive(Debug, Default)]
struct Queue {
    order: VecDeque<u32>,
    queued: Vec<bool>,
    /// The reader, while it waits.
    reader: Option<Waker>,
}

impl NotificationQueue {
    /// The queue of a reader for whom polls count as this caller's.
    pub fn new(caller: CallerKey) -> Self {
        Self { queue: Mutex::default(), caller, waiter: None }
    }

    /// The queue of the call that the task works for.
    pub fn of_call(caller: CallerKey) -> Self {
        Self { waiter: Waiter::current(), ..Self::new(caller) }
    }

    /// Whose turn a poll of the reader's jobs counts for.
    pub fn caller(&self) -> CallerKey {
        self.caller
    }

    /// The call of the reader, if it is traced.
    pub fn waiter(&self) -> Option<&Waiter> {
        self.waiter.as_deref()
    }

    /// Queues `slot`, unless it is queued already, and wakes the reader.
    pub fn notify(&self, slot: u32) {
        let index = slot as usize;
        let mut queue = self.lock();
        if queue.queued.len() <= index {
            queue.queued.resize(index + 1, false);
        }
        if !mem::replace(&mut queue.queued[index], true) {
            queue.order.push_back(slot);
            let reader = queue.reader.take();
            drop(queue);
            if let Some(reader) = reader {
                reader.wake();
            }
        }
    }

    /// The slot that has been queued longest. Cancel-safe; for one reader.
    pub async fn next(&self) -> u32 {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The same as [`next`](Self::next), polled.
    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<u32> {
        let mut queue = self.lock();
        match queue.pop() {
            Some(slot) => Poll::Ready(slot),
            None => queue.wait(cx),
        }
    }

    /// Waits until a slot is queued.
    pub async fn notified(&self) {
        poll_fn(|cx| {
            let mut queue = self.lock();
            if queue.order.is_empty() { queue.wait(cx) } else { Poll::Ready(()) }
        })
        .await;
    }

    /// The slot that has been queued longest, if there is one now.
    pub fn try_next(&self) -> Option<u32> {
        self.lock().pop()
    }

    /// Slots that are queued.
    pub fn len(&self) -> usize {
        self.lock().order.len()
    }

    /// Whether no slot is queued.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the reader has not looked at the newest status of `slot` yet.
    pub fn is_queued(&self, slot: u32) -> bool {
        self.lock().queued.get(slot as usize).copied().unwrap_or(false)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn pop(&mut self) -> Option<u32> {
        let slot = self.order.pop_front()?;
        self.queued[slot as usize] = false;
        if self.order.is_empty() && self.order.capacity() > KEPT {
            self.order = VecDeque::new();
        }
        Some(slot)
    }

    fn wait<T>(&mut self, cx: &Context<'_>) -> Poll<T> {
        match &mut self.reader {
            Some(reader) => reader.clone_from(cx.waker()),
            None => self.reader = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::Wake,
    };

    use super::*;

    #[tokio::test]
    async fn slot_notified_many_times_is_queued_once() {
        let queue = NotificationQueue::default();
        for _ in 0..1000 {
            queue.notify(3);
            queue.notify(1);
        }
        assert_eq!(queue.len(), 2);
        assert!(queue.is_queued(3) && !queue.is_queued(2));
        assert_eq!([queue.next().await, queue.next().await], [3, 1]);
        assert!(queue.try_next().is_none() && !queue.is_queued(3));
        queue.notify(3);
        assert_eq!(queue.next().await, 3);
    }

    struct CountsWakes(AtomicUsize);

    impl Wake for CountsWakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn reader_that_moved_is_woken_once_where_it_waits() {
        let queue = NotificationQueue::default();
        let readers = [(); 2].map(|()| Arc::new(CountsWakes(0.into())));
        for reader in &readers {
            let waker = Waker::from(Arc::clone(reader));
            assert!(queue.poll_next(&mut Context::from_waker(&waker)).is_pending());
        }
        queue.notify(1);
        queue.notify(2);
        assert_eq!(readers.map(|reader| reader.0.load(Ordering::Relaxed)), [0, 1]);
        assert_eq!([queue.try_next(), queue.try_next(), queue.try_next()], [Some(1), Some(2), None]);
    }
}
