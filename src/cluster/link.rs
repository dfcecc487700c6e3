//! Numbered and acknowledged messages between two replicas, over a wire that may lose them.
//!
//! Nothing is sent twice. The side that notices a missing message ends the session, and the
//! follower begins a new one. What is sent and not acknowledged is bounded, so that a peer
//! that stands still costs a few megabytes and three seconds.
//!
//! Pure: times come in from outside, frames go out through [`Link::next_frame`].

use std::{collections::VecDeque, mem, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use crate::proto::cluster::v1::Frame;

/// Most bytes of one frame. NATS takes a megabyte by default.
const FRAME_BYTES: usize = 512 * 1024;

/// Most that is sent and not acknowledged yet.
const WINDOW_BYTES: usize = 4 << 20;
const WINDOW_FRAMES: usize = 64;

/// Most bytes of one message.
const MESSAGE_BYTES: usize = 256 << 20;

/// Longest wait with an acknowledgement.
const ACKNOWLEDGE: Duration = Duration::from_millis(50);

/// A side that has nothing to say says so.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// Silence after which a session is over.
pub(super) const SILENCE: Duration = Duration::from_secs(3);

/// Why a session can't go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// A frame was lost.
    Gap,
    /// Nothing came for [`SILENCE`], not even an acknowledgement.
    Silence,
    /// Something came that no release sends.
    Garbage,
}

/// One side of a session.
#[derive(Debug)]
pub(super) struct Link {
    /// Frames that wait for room in the window.
    queue: VecDeque<(Bytes, bool)>,
    sent: u64,
    /// Sizes of the frames that are not acknowledged.
    window: VecDeque<usize>,
    window_bytes: usize,
    received: u64,
    acknowledged: u64,
    acknowledge_at: Option<Instant>,
    /// The parts of a message that have come so far.
    partial: Vec<u8>,
    spoke_at: Instant,
    heard_at: Instant,
    messages_sent: u64,
    messages_received: u64,
}

impl Link {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            queue: VecDeque::new(),
            sent: 0,
            window: VecDeque::new(),
            window_bytes: 0,
            received: 0,
            acknowledged: 0,
            acknowledge_at: None,
            partial: Vec::new(),
            spoke_at: now,
            heard_at: now,
            messages_sent: 0,
            messages_received: 0,
        }
    }

    /// The same for the side that answers: it speaks at once.
    pub(super) fn answering(now: Instant) -> Self {
        Self { acknowledge_at: Some(now), ..Self::new(now) }
    }

    /// Whether another message would be sent at once.
    pub(super) fn has_room(&self) -> bool {
        self.queue.is_empty() && self.window.len() < WINDOW_FRAMES && self.window_bytes < WINDOW_BYTES
    }

    /// Sends a message. Returns its number, from 1.
    pub(super) fn push(&mut self, message: Vec<u8>) -> u64 {
        let mut rest = Bytes::from(message);
        loop {
            let frame = rest.split_to(rest.len().min(FRAME_BYTES));
            let more = !rest.is_empty();
            self.queue.push_back((frame, more));
            if !more {
                break;
            }
        }
        self.messages_sent += 1;
        self.messages_sent
    }

    /// The number of the next message.
    pub(super) fn next_message(&self) -> u64 {
        self.messages_sent + 1
    }

    /// The number of the last message that was received.
    pub(super) fn messages_received(&self) -> u64 {
        self.messages_received
    }

    /// What is to be sent now.
    pub(super) fn next_frame(&mut self, now: Instant) -> Option<Frame> {
        let has_room = self.window.len() < WINDOW_FRAMES && self.window_bytes < WINDOW_BYTES;
        let frame = if has_room { self.queue.pop_front() } else { None };
        let (data, more) = match frame {
            Some(frame) => frame,
            None if self.speaks_at() <= now => (Bytes::new(), false),
            None => return None,
        };
        if !data.is_empty() {
            self.sent += 1;
            self.window.push_back(data.len());
            self.window_bytes += data.len();
        }
        self.acknowledged = self.received;
        self.acknowledge_at = None;
        self.spoke_at = now;
        Some(Frame { number: self.sent, acknowledged: self.received, more, data })
    }

    /// When something is to be sent at the latest.
    fn speaks_at(&self) -> Instant {
        let keep_alive = self.spoke_at + KEEP_ALIVE;
        self.acknowledge_at.map_or(keep_alive, |at| at.min(keep_alive))
    }

    /// When to look again, though nothing has come.
    pub(super) fn wakes_at(&self) -> Instant {
        self.speaks_at().min(self.heard_at + SILENCE)
    }

    /// Takes in what the other side sent. Returns the message that it completes.
    ///
    /// # Errors
    /// [`Broken`] where the session is over.
    pub(super) fn receive(&mut self, now: Instant, frame: Frame) -> Result<Option<Vec<u8>>, Broken> {
        let Frame { number, acknowledged, more, data } = frame;
        let confirmed_before = self.sent - self.window.len() as u64;
        if acknowledged > self.sent {
            return Err(Broken::Garbage);
        }
        for _ in confirmed_before..acknowledged {
            self.window_bytes -= self.window.pop_front().unwrap_or_default();
        }
        if number != self.received + u64::from(!data.is_empty()) {
            return Err(Broken::Gap);
        }
        self.heard_at = now;
        if data.is_empty() {
            return Ok(None);
        }
        self.received = number;
        let urgent = number - self.acknowledged >= WINDOW_FRAMES as u64 / 4;
        let at = if urgent { now } else { now + ACKNOWLEDGE };
        self.acknowledge_at = Some(self.acknowledge_at.map_or(at, |earlier| earlier.min(at)));
        if self.partial.len() + data.len() > MESSAGE_BYTES {
            return Err(Broken::Garbage);
        }
        self.partial.extend_from_slice(&data);
        if more {
            return Ok(None);
        }
        self.messages_received += 1;
        Ok(Some(mem::take(&mut self.partial)))
    }

    /// # Errors
    /// [`Broken::Silence`] where nothing came for too long.
    pub(super) fn check(&self, now: Instant) -> Result<(), Broken> {
        if self.heard_at + SILENCE <= now { Err(Broken::Silence) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn messages_of_any_size_arrive_whole_and_in_order_and_the_window_holds() {
        let now = Instant::now();
        let (mut one, mut other) = (Link::new(now), Link::new(now));
        let messages: Vec<Vec<u8>> = vec![vec![1; 10], vec![2; 9 << 20], vec![3; FRAME_BYTES], vec![4]];
        for message in &messages {
            one.push(message.clone());
        }
        let mut arrived = Vec::new();
        let mut most = 0;
        while arrived.len() < messages.len() {
            while let Some(frame) = one.next_frame(now) {
                arrived.extend(other.receive(now, frame).unwrap());
            }
            most = most.max(one.window_bytes);
            let later = now + ACKNOWLEDGE;
            let answer = other.next_frame(later).expect("an acknowledgement is due");
            assert_eq!(one.receive(later, answer), Ok(None));
        }
        assert!(arrived == messages, "they differ");
        assert!(most < WINDOW_BYTES + FRAME_BYTES, "{most}");
        assert!(one.has_room() && one.window_bytes == 0);
    }

    #[tokio::test(start_paused = true)]
    async fn lost_frame_is_noticed_by_the_next_one_or_by_the_keep_alive() {
        let now = Instant::now();
        let (mut one, mut other) = (Link::new(now), Link::new(now));
        one.push(vec![1]);
        drop(one.next_frame(now));
        let later = now + KEEP_ALIVE;
        let keep_alive = one.next_frame(later).expect("it is due");
        assert_eq!(other.receive(later, keep_alive), Err(Broken::Gap));
        let mut third = Link::new(now);
        one.push(vec![2]);
        let second = one.next_frame(now).expect("there is room");
        assert_eq!(third.receive(now, second), Err(Broken::Gap));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_session_and_keep_alives_prevent_it() {
        let mut now = Instant::now();
        let (mut one, mut other) = (Link::new(now), Link::new(now));
        for _ in 0..20 {
            now = one.wakes_at().min(other.wakes_at());
            if let Some(frame) = one.next_frame(now) {
                other.receive(now, frame).unwrap();
            }
            if let Some(frame) = other.next_frame(now) {
                one.receive(now, frame).unwrap();
            }
            assert_eq!((one.check(now), other.check(now)), (Ok(()), Ok(())));
        }
        assert_eq!(one.check(now + SILENCE), Err(Broken::Silence));
    }

    proptest! {
        /// What arrives is a prefix of what was sent, whatever is lost.
        #[test]
        fn nothing_arrives_out_of_order_or_after_a_gap(
            sizes in prop::collection::vec(1_usize..2000, 1..30),
            losses in prop::collection::vec(any::<bool>(), 30),
        ) {
            let now = Instant::now();
            let (mut one, mut other) = (Link::new(now), Link::new(now));
            let mut arrived = Vec::new();
            for (size, (number, is_lost)) in sizes.iter().zip((0_u8..).zip(losses)) {
                one.push(vec![number; *size]);
                let Some(frame) = one.next_frame(now) else { break };
                if is_lost {
                    continue;
                }
                match other.receive(now, frame) {
                    Ok(message) => arrived.extend(message),
                    Err(_) => break,
                }
            }
            for (number, message) in (0_u8..).zip(&arrived) {
                prop_assert_eq!(message, &vec![number; sizes[usize::from(number)]]);
            }
        }
    }
}
