//! How a reader learns which of its jobs have news.
//!
//! A mailbox holds no news, only the numbers of the slots that have some: the
//! reader then looks at the newest state. However slow it is, a slot is queued
//! at most once, so nothing grows and nothing but intermediate states is missed.

use std::{
    collections::VecDeque,
    future::poll_fn,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

/// Tells one reader which of its slots have news.
#[derive(Debug, Default)]
pub struct Mailbox {
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    order: VecDeque<u32>,
    queued: Vec<bool>,
    /// The reader, while it waits.
    reader: Option<Waker>,
}

impl Mailbox {
    /// Says that `slot` has news.
    pub fn post(&self, slot: u32) {
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

    /// The next slot with news, longest waiting first. Cancel-safe; for one
    /// reader.
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

    /// Waits until a slot has news.
    pub async fn arrived(&self) {
        poll_fn(|cx| {
            let mut queue = self.lock();
            if queue.order.is_empty() { queue.wait(cx) } else { Poll::Ready(()) }
        })
        .await;
    }

    /// Slots with news.
    pub fn waiting(&self) -> usize {
        self.lock().order.len()
    }

    /// The next slot with news, if there is one now.
    pub fn try_next(&self) -> Option<u32> {
        self.lock().pop()
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn pop(&mut self) -> Option<u32> {
        let slot = self.order.pop_front()?;
        self.queued[slot as usize] = false;
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
    async fn a_slot_waits_once_however_often_it_has_news() {
        let mailbox = Mailbox::default();
        for _ in 0..1000 {
            mailbox.post(3);
            mailbox.post(1);
        }
        assert_eq!([mailbox.next().await, mailbox.next().await], [3, 1]);
        assert_eq!(mailbox.try_next(), None);
        mailbox.post(3);
        assert_eq!(mailbox.next().await, 3);
    }

    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_reader_that_moves_is_woken_where_it_waited_last_and_once() {
        let mailbox = Mailbox::default();
        let readers = [(); 2].map(|()| Arc::new(Woken(0.into())));
        for reader in &readers {
            let waker = Waker::from(Arc::clone(reader));
            assert!(mailbox.poll_next(&mut Context::from_waker(&waker)).is_pending());
        }
        mailbox.post(1);
        mailbox.post(2);
        assert_eq!(readers.map(|reader| reader.0.load(Ordering::Relaxed)), [0, 1]);
        assert_eq!([mailbox.try_next(), mailbox.try_next(), mailbox.try_next()], [Some(1), Some(2), None]);
    }
}
