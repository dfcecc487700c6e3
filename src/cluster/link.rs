//! Numbered and acknowledged messages between two replicas, over a wire that may lose them.
//!
//! Nothing is sent twice. The side that notices a missing message ends the session, and the
//! follower begins a new one. What is sent and not acknowledged is bounded, so that a peer
//! that stands still costs a few megabytes and three seconds; that of all sessions of an owner
//! is bounded as well, see [`in_flight`](super::in_flight).
//!
//! Pure: times come in from outside, frames go out through [`Link::next_frame`].

use std::{collections::VecDeque, mem, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use super::in_flight::Charge;
use crate::proto::cluster::v1::Frame;

/// Most bytes of one frame. NATS takes a megabyte by default.
pub(super) const FRAME_BYTES: usize = 512 * 1024;

/// Most that is sent and not acknowledged yet.
const WINDOW_BYTES: usize = 4 << 20;
const WINDOW_FRAMES: usize = 64;

/// Most bytes of one message of an owner, which may hold a large result.
const NEWS_BYTES: usize = 256 << 20;

/// Most bytes of one message of a follower: some thousand jobs, each with its names.
const INTEREST_BYTES: usize = 32 << 20;

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
    /// Nothing came for [`SILENCE`], or no acknowledgement though one is missing.
    Silence,
    /// Something came that no release sends.
    Garbage,
    /// All sessions together have too much in flight.
    Overload,
}

/// One side of a session.
#[derive(Debug)]
pub(super) struct Link {
    /// Most bytes of a frame that it sends.
    frame_bytes: usize,
    /// Frames that wait for room in the window.
    queue: VecDeque<(Bytes, bool)>,
    sent: u64,
    /// Sizes of the frames that are not acknowledged.
    window: VecDeque<usize>,
    window_bytes: usize,
    /// Since when no frame was acknowledged, while one is to be.
    stalled_since: Option<Instant>,
    /// At an owner: what all its sessions have in flight.
    charge: Option<Charge>,
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
            frame_bytes: FRAME_BYTES,
            queue: VecDeque::new(),
            sent: 0,
            window: VecDeque::new(),
            window_bytes: 0,
            stalled_since: None,
            charge: None,
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

    /// The same for the side that answers, which is the owner: it speaks at once.
    pub(super) fn answering(now: Instant, charge: Charge) -> Self {
        Self { acknowledge_at: Some(now), charge: Some(charge), ..Self::new(now) }
    }

    /// Sends no longer frames than this, because the wire takes no longer messages.
    pub(super) fn limit_frames(&mut self, bytes: usize) {
        self.frame_bytes = bytes.clamp(1, FRAME_BYTES);
    }

    /// Whether another message would be sent at once.
    pub(super) fn has_room(&self) -> bool {
        self.has_window() && self.charge.as_ref().is_none_or(Charge::admits)
    }

    fn has_window(&self) -> bool {
        self.queue.is_empty() && self.window.len() < WINDOW_FRAMES && self.window_bytes < WINDOW_BYTES
    }

    /// Waits until there may be room though nothing is received.
    pub(super) async fn room(&self) {
        match &self.charge {
            _ if !self.has_window() => std::future::pending().await,
            Some(charge) => charge.admitted().await,
            None => {}
        }
    }

    /// Sends a message. Returns its number, from 1.
    pub(super) fn push(&mut self, message: Vec<u8>) -> u64 {
        let mut rest = Bytes::from(message);
        if let Some(charge) = &mut self.charge {
            charge.add(rest.len());
        }
        loop {
            let frame = rest.split_to(rest.len().min(self.frame_bytes));
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
            self.stalled_since.get_or_insert(now);
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
        self.speaks_at().min(self.is_silent_at())
    }

    /// Takes in what the other side sent. Returns the message that it completes.
    ///
    /// # Errors
    /// [`Broken`] where the session is over.
    pub(super) fn receive(&mut self, now: Instant, frame: Frame) -> Result<Option<Vec<u8>>, Broken> {
        let Frame { number, acknowledged, more, data } = frame;
        if acknowledged > self.sent || data.len() > FRAME_BYTES {
            return Err(Broken::Garbage);
        }
        self.acknowledged_until(acknowledged, now);
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
        let longest = if self.charge.is_some() { INTEREST_BYTES } else { NEWS_BYTES };
        if self.partial.len() + data.len() > longest {
            return Err(Broken::Garbage);
        }
        self.partial.extend_from_slice(&data);
        if let Some(charge) = &mut self.charge {
            charge.add(data.len());
            if charge.of().is_full() {
                return Err(Broken::Overload);
            }
        }
        if more {
            return Ok(None);
        }
        if let Some(charge) = &mut self.charge {
            charge.release(self.partial.len());
        }
        self.messages_received += 1;
        Ok(Some(mem::take(&mut self.partial)))
    }

    /// # Errors
    /// [`Broken::Silence`] where nothing came for too long.
    pub(super) fn check(&self, now: Instant) -> Result<(), Broken> {
        if self.is_silent_at() <= now { Err(Broken::Silence) } else { Ok(()) }
    }

    fn is_silent_at(&self) -> Instant {
        self.stalled_since.map_or(self.heard_at, |since| since.min(self.heard_at)) + SILENCE
    }

    /// Frames up to this one have been received by the other side.
    fn acknowledged_until(&mut self, number: u64, now: Instant) {
        let confirmed_before = self.sent - self.window.len() as u64;
        for _ in confirmed_before..number {
            let bytes = self.window.pop_front().unwrap_or_default();
            self.window_bytes -= bytes;
            if let Some(charge) = &mut self.charge {
                charge.release(bytes);
            }
            self.stalled_since = Some(now);
        }
        if self.window.is_empty() {
            self.stalled_since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::cluster::in_flight::{FULL, InFlight};

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

    #[tokio::test(start_paused = true)]
    async fn peer_that_acknowledges_nothing_is_left_though_it_speaks() {
        let began = Instant::now();
        let (mut one, mut other) = (Link::new(began), Link::new(began));
        for number in 0..3 {
            one.push(vec![number; 10]);
            drop(one.next_frame(began));
        }
        let speaks = |one: &mut Link, at, acknowledged| {
            let frame = Frame { number: 0, acknowledged, more: false, data: Bytes::new() };
            assert_eq!(one.receive(at, frame), Ok(None));
        };
        let second = Duration::from_secs(1);
        speaks(&mut one, began + 2 * second, 1);
        speaks(&mut one, began + 4 * second, 1);
        assert_eq!(one.wakes_at().min(began + 5 * second), began + second, "its own keep-alive");
        assert_eq!(one.check(began + 5 * second - Duration::from_millis(1)), Ok(()));
        assert_eq!(one.check(began + 5 * second), Err(Broken::Silence));
        speaks(&mut one, began + 4 * second, 3);
        assert_eq!(one.check(began + 6 * second), Ok(()), "all is acknowledged");
        // Nor is a frame taken in that no release sends.
        let frame = Frame { number: 1, acknowledged: 0, more: false, data: vec![0; FRAME_BYTES + 1].into() };
        assert_eq!(other.receive(began, frame), Err(Broken::Garbage));
    }

    #[tokio::test(start_paused = true)]
    async fn message_of_a_follower_is_bounded_and_counted_until_it_is_whole() {
        let now = Instant::now();
        let all = Arc::new(InFlight::default());
        let mut owner = Link::answering(now, Charge::new(&all));
        let part = |number| Frame { number, acknowledged: 0, more: true, data: vec![0; FRAME_BYTES].into() };
        let most = INTEREST_BYTES / FRAME_BYTES;
        for number in 1..=most as u64 {
            assert_eq!(owner.receive(now, part(number)), Ok(None));
        }
        assert_eq!(all.bytes(), INTEREST_BYTES);
        assert_eq!(owner.receive(now, part(most as u64 + 1)), Err(Broken::Garbage));
        drop(owner);
        assert_eq!(all.bytes(), 0);
        let mut others = Charge::new(&all);
        others.add(FULL - FRAME_BYTES);
        let mut owner = Link::answering(now, Charge::new(&all));
        assert_eq!(owner.receive(now, part(1)), Err(Broken::Overload));
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
