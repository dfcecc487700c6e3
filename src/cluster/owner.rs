//! A session with a replica that follows a backend, seen from the one that polls it.
//!
//! The follower is one more subscriber of each job that it registers. It is notified of every
//! poll; a status that is the same as the last one sent costs a few bytes.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use prost::Message;
use tokio::time::Instant;

use super::{
    fault::{milliseconds, to_message},
    in_flight::Charge,
    link::{Broken, Link},
};
use crate::{
    engine::{
        Backend, CallerKey, ForReplica, Interest, JobRecord, LatestStatus, NotificationQueue, PollOutcome,
        Purpose, Queue as EngineQueue, Subscription,
    },
    job::{Fingerprint, JobRef, Parts, View},
    proto::cluster::v1::{
        Add, Change, Frame, Interest as InterestMessage, Interrupted, Item, News, Observed, Queue, Status,
        Wanted, change::What, item::Said,
    },
    snapshot::Snapshot,
};

/// Messages of the follower whose time is remembered.
const REMEMBERED: usize = 4096;

/// Most bytes of a message of news, about.
const MESSAGE_BYTES: usize = 64 * 1024;

/// Most items of one.
const ITEMS: usize = 4096;

/// Most slots of a session.
const SLOTS: usize = 4 << 20;

/// Most that is known without a poll and not sent yet.
const READY: usize = 256 << 10;

/// Most bytes of a job's id, and of its tag. Callers of the follower have been refused longer ones.
const NAME_BYTES: usize = 4096;

/// One session of an owner.
#[derive(Debug)]
pub(super) struct Owner {
    backend: Arc<Backend>,
    link: Link,
    queue: Arc<NotificationQueue>,
    slots: Vec<Option<Slot>>,
    /// The slots for which a poll was asked for, until they are answered.
    asked: HashMap<u32, Asked>,
    /// When each of the last messages was processed.
    processed: VecDeque<(u64, Instant)>,
    /// What is known without a poll.
    ready: VecDeque<Ready>,
}

/// What is known of a job without a poll.
#[derive(Debug)]
struct Ready {
    slot: u32,
    answers: u64,
    /// Its last status and the parts that are wanted of it; without, there is no room for it.
    last: Option<(LatestStatus, Parts)>,
}

/// A job that the follower has registered. There may be a million: it is small.
#[derive(Debug)]
struct Slot {
    subscription: Subscription,
    parts: Parts,
    /// The status that was sent last, if one was, and the parts that it held.
    sent: Fingerprint,
    sent_parts: Option<Parts>,
    /// The poll after which something was said last, or parts were asked for again.
    looked_after: PollMark,
}

const _: () = assert!(size_of::<Option<Slot>>() <= 48, "a million of them are in memory");

/// How many polls of a job had ended, in few bytes; or nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct PollMark(u32);

impl PollMark {
    #[expect(clippy::cast_possible_truncation, reason = "it is only compared with a recent one")]
    fn after(polls: u64) -> Self {
        Self((polls as u32).wrapping_add(1))
    }
}

/// A follower waits for a poll.
#[derive(Clone, Copy, Debug)]
struct Asked {
    /// The number of the message that asked for it.
    message: u64,
    /// How many polls are too old to be an answer.
    polls: u64,
}

impl Owner {
    /// `session`: a number that no other session of this replica has.
    pub(super) fn new(backend: Arc<Backend>, session: u64, charge: Charge, now: Instant) -> Self {
        Self {
            backend,
            link: Link::answering(now, charge),
            queue: Arc::new(NotificationQueue::new(CallerKey::of_replica(session))),
            slots: Vec::new(),
            asked: HashMap::new(),
            processed: VecDeque::new(),
            ready: VecDeque::new(),
        }
    }

    /// Sends no longer frames than this.
    pub(super) fn limit_frames(&mut self, bytes: usize) {
        self.link.limit_frames(bytes);
    }

    /// Slots, those of them with a job, and what is known without a poll.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        (self.slots.len(), self.slots.iter().flatten().count(), self.ready.len())
    }

    /// Waits until there is news of a job, if it can be sent.
    pub(super) async fn notified(&self) {
        if self.link.has_room() {
            self.queue.notified().await;
        } else {
            self.link.room().await;
        }
    }

    /// When to look again, though nothing has come.
    pub(super) fn wakes_at(&self) -> Instant {
        self.link.wakes_at()
    }

    /// What is to be sent now.
    ///
    /// # Errors
    /// [`Broken`] where the session is over.
    pub(super) fn next_frame(&mut self, now: Instant) -> Result<Option<Frame>, Broken> {
        self.link.check(now)?;
        if self.link.has_room() {
            self.send_news(now);
        }
        Ok(self.link.next_frame(now))
    }

    /// Takes in what the follower sent.
    ///
    /// # Errors
    /// [`Broken`] where the session is over.
    pub(super) fn receive(&mut self, now: Instant, frame: Frame) -> Result<(), Broken> {
        let Some(message) = self.link.receive(now, frame)? else { return Ok(()) };
        let InterestMessage { changes } = InterestMessage::decode(&*message).map_err(|_| Broken::Garbage)?;
        let number = self.link.messages_received();
        for Change { slot, what } in changes {
            if self.ready.len() >= READY {
                return Err(Broken::Garbage);
            }
            match what.ok_or(Broken::Garbage)? {
                What::Add(add) => self.add(number, slot, add, now)?,
                What::Wanted(wanted) => self.want(number, slot, wanted),
                What::Drop(_) => {
                    if let Some(place) = self.slots.get_mut(slot as usize) {
                        *place = None;
                        self.asked.remove(&slot);
                    }
                }
            }
        }
        self.processed.push_back((number, now));
        if self.processed.len() > REMEMBERED {
            self.processed.pop_front();
        }
        Ok(())
    }

    fn add(&mut self, number: u64, slot: u32, add: Add, now: Instant) -> Result<(), Broken> {
        let Add { job_id, job_tag, wanted, due_in_ms, unchanged_ms } = add;
        // A follower numbers its slots without gaps.
        let is_next = slot as usize <= self.slots.len() && (slot as usize) < SLOTS;
        if !is_next || job_id.len() > NAME_BYTES || job_tag.len() > NAME_BYTES {
            return Err(Broken::Garbage);
        }
        let wanted = wanted.ok_or(Broken::Garbage)?;
        let parts = Parts { result: wanted.result, payload: wanted.payload };
        let job = JobRef {
            backend: Arc::clone(self.backend.name()),
            id: job_id.into(),
            tag: (!job_tag.is_empty()).then(|| job_tag.into()),
        };
        let purpose = Purpose::Replica {
            interval: interval(wanted),
            asks: wanted.asks,
            due: now + Duration::from_millis(due_in_ms).min(Duration::from_hours(1)),
            unchanged_since: now.checked_sub(Duration::from_millis(unchanged_ms)).unwrap_or(now),
        };
        let asked = wanted.asks.then_some(number);
        self.subscribe(slot, &job, parts, purpose, asked);
        Ok(())
    }

    /// Subscribes to a job. `asked`: the message that asks for a poll.
    fn subscribe(&mut self, slot: u32, job: &JobRef, parts: Parts, purpose: Purpose, asked: Option<u64>) {
        let interest = Interest { queue: Arc::clone(&self.queue), slot, parts, purpose };
        let answers = asked.unwrap_or(0);
        let place = slot as usize;
        if self.slots.len() <= place {
            let more = place + 1 - self.slots.len();
            if self.slots.capacity() <= place {
                // In small steps: half of a long list would be more than what it holds.
                self.slots.reserve_exact(more.max(self.slots.len() / 16).max(16));
            }
            self.slots.resize_with(place + 1, || None);
        }
        self.asked.remove(&slot);
        match self.backend.follow(job, interest) {
            Ok(ForReplica::Open(subscription, polls)) => {
                if let Some(message) = asked {
                    self.asked.insert(slot, Asked { message, polls });
                }
                self.slots[place] = Some(Slot {
                    subscription,
                    parts,
                    sent: Fingerprint(0),
                    sent_parts: None,
                    looked_after: PollMark::default(),
                });
                // There may be something to say at once.
                self.queue.notify(slot);
            }
            Ok(ForReplica::Ended(last)) => {
                self.slots[place] = None;
                self.ready.push_back(Ready { slot, answers, last: Some((last, parts)) });
            }
            Err(_) => {
                self.slots[place] = None;
                self.ready.push_back(Ready { slot, answers, last: None });
            }
        }
    }

    fn want(&mut self, number: u64, slot: u32, wanted: Wanted) {
        // What it asked for may have been said just now.
        let Some(known) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) else {
            let answers = if wanted.asks { number } else { 0 };
            self.ready.push_back(Ready { slot, answers, last: None });
            return;
        };
        let parts = Parts { result: wanted.result, payload: wanted.payload };
        if parts == known.parts && interval(wanted).is_none() {
            if wanted.asks {
                let polls = known.subscription.look(JobRecord::polls_before_now);
                self.asked.insert(slot, Asked { message: number, polls });
                known.subscription.poll_now();
            }
            return;
        }
        let job = known.subscription.job().clone();
        let now = Instant::now();
        let purpose = Purpose::Replica {
            interval: interval(wanted),
            asks: wanted.asks,
            due: now,
            unchanged_since: now,
        };
        // The old subscription is kept until there is the new one, so that the job stays.
        let old = self.slots[slot as usize].take();
        let old_asked = self.asked.get(&slot).copied();
        self.subscribe(slot, &job, parts, purpose, wanted.asks.then_some(number));
        if let (Some(old), Some(new)) = (old, &mut self.slots[slot as usize]) {
            (new.sent, new.sent_parts) = (old.sent, old.sent_parts);
            // What was asked for before is still to be answered.
            if let Some(asked) = old_asked {
                self.asked.entry(slot).or_insert(asked);
            }
        }
    }

    fn send_news(&mut self, now: Instant) {
        let (mut items, mut bytes) = (Vec::new(), 0);
        while bytes < MESSAGE_BYTES && items.len() < ITEMS {
            if let Some(Ready { slot, answers, last }) = self.ready.pop_front() {
                let observed = last.map(|(last, parts)| self.observed(&last, parts, false, now));
                let said = observed.map_or(Said::Refused(true), Said::Observed);
                let item = Item { slot, answers, said: Some(said) };
                bytes += item.encoded_len();
                items.push(item);
                continue;
            }
            let Some(slot) = self.queue.try_next() else { break };
            if let Some(item) = self.item(slot, now) {
                bytes += item.encoded_len();
                items.push(item);
            }
        }
        if !items.is_empty() {
            let processed = self.link.messages_received();
            let queue = self.queue(now);
            self.link.push(News { processed, items, queue }.encode_to_vec());
        }
    }

    /// What the follower's next job waits for, if any can be polled now.
    fn queue(&self, now: Instant) -> Option<Queue> {
        let EngineQueue { jobs, jobs_per_second, latency } = self.backend.queue_of(self.queue.caller(), now);
        let latency_ms = u32::try_from(latency.as_millis()).unwrap_or(u32::MAX);
        let jobs = u32::try_from(jobs).unwrap_or(u32::MAX);
        (jobs_per_second > 0.0).then_some(Queue { jobs, jobs_per_second, latency_ms })
    }

    /// What there is to say of one job.
    fn item(&mut self, number: u32, now: Instant) -> Option<Item> {
        let mut slot = self.slots.get_mut(number as usize)?.take()?;
        let asked = self.asked.get(&number).copied();
        let item = self.look(number, &mut slot, asked, now);
        self.slots[number as usize] = Some(slot);
        if item.as_ref().is_some_and(|item| item.answers > 0) {
            self.asked.remove(&number);
            if self.asked.len() < self.asked.capacity() / 8 {
                self.asked.shrink_to(self.asked.len() * 2);
            }
        }
        item
    }

    fn look(&self, number: u32, slot: &mut Slot, asked: Option<Asked>, now: Instant) -> Option<Item> {
        let record = slot.subscription.record();
        let was_polled = asked.is_none_or(|asked| record.polls > asked.polls);
        // One that has ended is no answer any more.
        let paused = slot.subscription.paused().filter(|pause| !was_polled && pause.until > now);
        let answers = asked.filter(|_| was_polled || paused.is_some()).map(|asked| asked.message);
        let mark = PollMark::after(record.polls);
        let is_news = slot.looked_after != mark || answers.is_some();
        let said = match (&record.outcome, paused) {
            (_, Some(pause)) => {
                let retry_in = pause.until.saturating_duration_since(now);
                self.interrupted(&pause.fault, retry_in, now)
            }
            (PollOutcome::Interrupted(interruption), _) if is_news => {
                let retry_in = interruption.until.saturating_duration_since(now);
                self.interrupted(&interruption.fault, retry_in, now)
            }
            (PollOutcome::Missing { times }, _) if is_news => Said::Missing(*times),
            (PollOutcome::Invalid(message), _) if is_news => Said::Invalid(message.to_string()),
            (PollOutcome::NotPolled | PollOutcome::Observed, _) => {
                let latest = record.latest.as_ref()?;
                if !latest.snapshot.holds(slot.parts) {
                    // Dropped to save memory, or of a poll before this subscriber came.
                    if slot.looked_after != mark {
                        slot.looked_after = mark;
                        slot.subscription.poll_now();
                    }
                    return None;
                }
                let others = Parts::ALL.difference(slot.parts);
                let held = latest.snapshot.held().difference(others);
                let fingerprint = latest.snapshot.fingerprint(View::FULL);
                let is_same = (slot.sent, slot.sent_parts) == (fingerprint, Some(held));
                (slot.sent, slot.sent_parts) = (fingerprint, Some(held));
                if is_same && !is_news {
                    return None;
                }
                Said::Observed(self.observed(latest, slot.parts, is_same, now))
            }
            _ => return None,
        };
        slot.looked_after = mark;
        Some(Item { slot: number, answers: answers.unwrap_or(0), said: Some(said) })
    }

    fn interrupted(&self, fault: &crate::job::BackendFault, retry_in: Duration, now: Instant) -> Said {
        Said::Interrupted(Interrupted {
            fault: Some(to_message(fault)),
            retry_in_ms: milliseconds(retry_in),
            is_paused: self.backend.is_paused(now),
        })
    }

    fn observed(&self, latest: &LatestStatus, parts: Parts, is_same: bool, now: Instant) -> Observed {
        let observed = self.backend.observed(latest);
        let before = self.processed.partition_point(|(_, at)| *at <= latest.began);
        let began_after = before.checked_sub(1).map_or(0, |place| self.processed[place].0);
        let since =
            |at: Instant| u64::try_from(now.saturating_duration_since(at).as_micros()).unwrap_or(u64::MAX);
        Observed {
            observer: observed.observer.0,
            sequence: observed.sequence,
            began_after,
            began_ago_us: since(latest.began),
            age_us: since(latest.at),
            status: (!is_same).then(|| status_of(&latest.snapshot, parts)),
        }
    }
}

fn interval(wanted: Wanted) -> Option<Duration> {
    (wanted.interval_ms > 0).then(|| Duration::from_millis(wanted.interval_ms.into()))
}

fn status_of(snapshot: &Snapshot, parts: Parts) -> Status {
    let parts = snapshot.to_parts(parts);
    Status {
        state: parts.state as i32,
        hashes: parts.hashes.into(),
        encoded: parts.bytes,
        core_end: u32::try_from(parts.core_end).unwrap_or(u32::MAX),
        result_end: u32::try_from(parts.result_end).unwrap_or(u32::MAX),
        holds_result: parts.held.result,
        holds_payload: parts.held.payload,
        dropped_result: parts.dropped.result,
        dropped_payload: parts.dropped.payload,
    }
}
