//! Bytes of all sessions of an owner together: messages that wait to be sent or acknowledged, and
//! those that have come and are not read yet.
//!
//! Each session may have one message in flight, and more of them as long as there is much left.
//! Followers that read nothing therefore leave room for one message of each other; after three
//! seconds their sessions are over.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Notify;

/// With this many no session sends anything: room for one message of 64 KiB of each of the 4,096
/// sessions. One message of each thread may exceed it.
pub(super) const MOST: usize = 256 << 20;

/// Below this, a session may have a part of what is left in flight.
pub(super) const SHARED: usize = MOST / 2;
const PART: usize = 4;

/// With this many nothing more is taken in, either.
pub(super) const FULL: usize = MOST + (64 << 20);

/// What all sessions of one owner have in flight.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    bytes: AtomicUsize,
    /// There are less than [`MOST`] again.
    freed: Notify,
}

impl InFlight {
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether nothing more may be taken in.
    pub(super) fn is_full(&self) -> bool {
        self.bytes() >= FULL
    }
}

/// What one session has in flight, until it is dropped.
#[derive(Debug)]
pub(super) struct Charge {
    of: Arc<InFlight>,
    bytes: usize,
}

impl Charge {
    pub(super) fn new(of: &Arc<InFlight>) -> Self {
        Self { of: Arc::clone(of), bytes: 0 }
    }

    pub(super) fn of(&self) -> &Arc<InFlight> {
        &self.of
    }

    pub(super) fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.of.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn release(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        let before = self.of.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if before >= MOST && before - bytes < MOST {
            self.of.freed.notify_waiters();
        }
    }

    /// Whether the session may send another message.
    pub(super) fn admits(&self) -> bool {
        let all = self.of.bytes();
        let part = SHARED.saturating_sub(all) / PART;
        if self.bytes == 0 { all < MOST } else { self.bytes <= part }
    }

    /// Waits until the session may send another message. Returns early where it has something in
    /// flight itself, which an acknowledgement ends.
    pub(super) async fn admitted(&self) {
        loop {
            let freed = self.of.freed.notified();
            let mut freed = std::pin::pin!(freed);
            freed.as_mut().enable();
            if self.admits() {
                return;
            }
            if self.bytes > 0 {
                return std::future::pending().await;
            }
            freed.await;
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn session_waits_while_others_have_all_and_goes_on_when_one_has_ended() {
        let all = Arc::new(InFlight::default());
        let mut greedy = Charge::new(&all);
        let healthy = Charge::new(&all);
        assert!(healthy.admits() && healthy.admitted().now_or_never().is_some());
        greedy.add(MOST);
        assert!(!healthy.admits() && !greedy.admits());
        let mut waiting = std::pin::pin!(healthy.admitted());
        assert!(waiting.as_mut().now_or_never().is_none());
        greedy.release(1);
        assert!(waiting.as_mut().now_or_never().is_some());
        greedy.add(FULL);
        assert!(all.is_full());
        drop(greedy);
        assert!(!all.is_full());
        assert_eq!(all.bytes(), 0);
    }

    #[test]
    fn a_thousand_sessions_that_read_nothing_leave_room_for_another() {
        const MESSAGE: usize = 64 << 10;
        let all = Arc::new(InFlight::default());
        let mut dead: Vec<_> = (0..1000).map(|_| Charge::new(&all)).collect();
        let mut sends = true;
        while sends {
            sends = false;
            for charge in &mut dead {
                if charge.admits() {
                    charge.add(MESSAGE);
                    sends = true;
                }
            }
        }
        assert!(all.bytes() <= SHARED + 1000 * MESSAGE, "{}", all.bytes());
        assert!(Charge::new(&all).admits());
        // Of fewer, one has as much as it could use.
        drop(dead.split_off(10));
        let mut alive = Charge::new(&all);
        let mut sent = 0;
        while alive.admits() && sent < 4 << 20 {
            alive.add(MESSAGE);
            sent += MESSAGE;
        }
        assert!(sent >= 4 << 20, "{sent}");
    }
}
