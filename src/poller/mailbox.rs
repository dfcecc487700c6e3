//! How a reader learns which of its jobs have news.
//!
//! A mailbox holds no news, only the numbers of the slots that have some: the
//! reader then looks at the newest state. However slow it is, a slot is queued
//! at most once, so nothing grows and nothing but intermediate states is missed.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// Tells one reader which of its slots have news.
#[derive(Debug, Default)]
pub struct Mailbox {
    queue: Mutex<Queue>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    order: VecDeque<u32>,
    queued: Vec<bool>,
}

impl Mailbox {
    /// Says that `slot` has news.
    pub fn post(&self, slot: u32) {
        let index = slot as usize;
        let mut queue = self.lock();
        if queue.queued.len() <= index {
            queue.queued.resize(index + 1, false);
        }
        if !queue.queued[index] {
            queue.queued[index] = true;
            queue.order.push_back(slot);
            drop(queue);
            self.arrived.notify_one();
        }
    }

    /// The next slot with news, longest waiting first. Cancel-safe; for one
    /// reader.
    pub async fn next(&self) -> u32 {
        loop {
            if let Some(slot) = self.try_next() {
                return slot;
            }
            self.arrived().await;
        }
    }

    /// Slots with news.
    pub fn waiting(&self) -> usize {
        self.lock().order.len()
    }

    /// Waits until something may have arrived since the mailbox was last empty.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// The next slot with news, if there is one now.
    pub fn try_next(&self) -> Option<u32> {
        let mut queue = self.lock();
        let slot = queue.order.pop_front()?;
        queue.queued[slot as usize] = false;
        Some(slot)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
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
}
