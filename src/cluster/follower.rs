//! A replica's session with the one that polls a backend, seen from the follower.
//!
//! Each job with subscribers has a slot: it is registered once by its name, and then named by
//! the slot's number. All messages are numbered, so that what the owner says can be put in
//! order with what it was asked, without comparing clocks.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use prost::Message;
use slab::Slab;
use tokio::time::Instant;

use super::{
    fault::{from_message, milliseconds},
    link::{Broken, Link},
};
use crate::{
    engine::{Backend, Followed, FollowedJob, JobKey, News as Told, Queue as EngineQueue, Said},
    job::{FaultKind, JobState, Observed, ObserverId, Parts},
    proto::cluster::v1::{
        Add, Change, Frame, Interest, Item, News, Observed as ObservedMessage, Queue, Status, Wanted,
        change::What, item,
    },
    snapshot::{Snapshot, SnapshotParts},
};

/// Messages whose time is remembered. Later ones say what a poll began after.
const REMEMBERED: usize = 4096;

/// Slots that one look for jobs without subscribers goes through, and how often it is done.
const SWEPT: usize = 16_384;
const SWEEP: Duration = Duration::from_millis(500);

/// When a job is registered again for which there was no room.
const REFUSED: Duration = Duration::from_secs(5);

/// No slot.
const NONE: u32 = u32::MAX;

/// One session of a follower.
#[derive(Debug)]
pub(super) struct Follower {
    backend: Arc<Backend>,
    link: Link,
    slots: Slab<Slot>,
    /// The slot of a job by its number in the job table.
    by_number: Vec<u32>,
    /// When each of the last messages was sent.
    sent_at: VecDeque<(u64, Instant)>,
    /// Changes that are not sent yet.
    changes: VecDeque<Change>,
    /// Where the first look at all jobs goes on.
    scan: Option<usize>,
    sweep_from: usize,
    sweep_at: Instant,
    heard_at: Option<Instant>,
}

#[derive(Debug)]
struct Slot {
    key: JobKey,
    wanted: (Parts, Option<Duration>),
    /// The number of the message that registered it.
    added: u64,
    /// The number of the message that asks for a poll, until it is answered.
    asked: Option<u64>,
    /// Others have asked since.
    asked_again: bool,
    /// The last status that the owner sent, where it was not published.
    unpublished: Option<Box<Snapshot>>,
}

impl Follower {
    pub(super) fn new(backend: Arc<Backend>, now: Instant) -> Self {
        Self {
            backend,
            link: Link::new(now),
            slots: Slab::new(),
            by_number: Vec::new(),
            sent_at: VecDeque::new(),
            changes: VecDeque::new(),
            scan: Some(0),
            sweep_from: 0,
            sweep_at: now + SWEEP,
            heard_at: None,
        }
    }

    /// Sends no longer frames than this.
    pub(super) fn limit_frames(&mut self, bytes: usize) {
        self.link.limit_frames(bytes);
    }

    /// Whether the owner has answered yet.
    pub(super) fn is_open(&self) -> bool {
        self.heard_at.is_some()
    }

    /// Jobs that are registered.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// When to look again, though nothing has come and no job is due.
    pub(super) fn wakes_at(&self) -> Instant {
        self.link.wakes_at().min(self.sweep_at)
    }

    /// Whether jobs that are due can be registered now.
    pub(super) fn has_room(&self) -> bool {
        self.link.has_room()
    }

    /// What is to be sent now.
    ///
    /// # Errors
    /// [`Broken`] where the session is over.
    pub(super) fn next_frame(&mut self, now: Instant) -> Result<Option<Frame>, Broken> {
        self.link.check(now)?;
        if self.sweep_at <= now {
            self.sweep_at = now + SWEEP;
            self.sweep();
        }
        if self.link.has_room() {
            if self.changes.is_empty() {
                self.collect();
            }
            self.send_changes(now);
        }
        Ok(self.link.next_frame(now))
    }

    /// Takes in what the owner sent.
    ///
    /// # Errors
    /// [`Broken`] where the session is over.
    pub(super) fn receive(&mut self, now: Instant, frame: Frame) -> Result<(), Broken> {
        let message = self.link.receive(now, frame)?;
        self.heard_at = Some(now);
        let Some(message) = message else { return Ok(()) };
        let News { processed, items, queue } = News::decode(&*message).map_err(|_| Broken::Garbage)?;
        if let Some(Queue { jobs, jobs_per_second, latency_ms }) = queue {
            let (jobs, latency) = (jobs as usize, Duration::from_millis(latency_ms.into()));
            self.backend.set_owners_queue(EngineQueue { jobs, jobs_per_second, latency }, now);
        }
        for item in items {
            self.publish(processed, item)?;
        }
        Ok(())
    }

    /// Turns jobs that are due, or not registered yet, into changes.
    fn collect(&mut self) {
        if !self.is_open() {
            return;
        }
        for job in self.backend.take_due() {
            self.want(job);
        }
        while self.changes.is_empty()
            && let Some(from) = self.scan
        {
            let (jobs, next) = self.backend.scheduled_from(from);
            self.scan = next;
            for job in jobs {
                self.want(job);
            }
        }
    }

    fn want(&mut self, job: FollowedJob) {
        let FollowedJob { key, parts, interval, asks, due_in, unchanged } = job;
        let number = key.number();
        let known = self.by_number.get(number).copied().filter(|slot| *slot != NONE);
        let wanted = Wanted {
            result: parts.result,
            payload: parts.payload,
            interval_ms: interval
                .map_or(0, |interval| u32::try_from(interval.as_millis()).unwrap_or(u32::MAX)),
            asks,
        };
        // Sent with the next message, in this order.
        let message = self.link.next_message();
        let known = known.filter(|slot| self.slots.get(*slot as usize).is_some_and(|slot| slot.key.is(&key)));
        if let Some(place) = known {
            let slot = &mut self.slots[place as usize];
            if slot.asked.is_some() && asks {
                slot.asked_again = true;
                return;
            }
            if !asks && slot.wanted == (parts, interval) {
                return;
            }
            (slot.wanted, slot.asked) = ((parts, interval), asks.then_some(message).or(slot.asked));
            self.changes.push_back(Change { slot: place, what: Some(What::Wanted(wanted)) });
            return;
        }
        let add = Add {
            job_id: key.job().id.to_string(),
            job_tag: key.job().tag.as_deref().unwrap_or_default().to_owned(),
            wanted: Some(wanted),
            due_in_ms: milliseconds(due_in),
            unchanged_ms: milliseconds(unchanged),
        };
        let slot = Slot {
            key,
            wanted: (parts, interval),
            added: message,
            asked: asks.then_some(message),
            asked_again: false,
            unpublished: None,
        };
        let Ok(place) = u32::try_from(self.slots.insert(slot)) else { return };
        if self.by_number.len() <= number {
            self.by_number.resize(number + 1, NONE);
        }
        self.by_number[number] = place;
        self.changes.push_back(Change { slot: place, what: Some(What::Add(add)) });
    }

    /// Jobs that nobody subscribes to any more need not be polled.
    fn sweep(&mut self) {
        let from = if self.sweep_from < self.slots.capacity() { self.sweep_from } else { 0 };
        self.sweep_from = from + SWEPT;
        let slots = &self.slots;
        let mut keys = (from..self.sweep_from)
            .filter_map(|place| Some((u32::try_from(place).ok()?, &slots.get(place)?.key)));
        for place in self.backend.left(&mut keys) {
            self.drop_slot(place);
        }
    }

    fn drop_slot(&mut self, place: u32) {
        let Some(slot) = self.slots.try_remove(place as usize) else { return };
        if let Some(known) = self.by_number.get_mut(slot.key.number())
            && *known == place
        {
            *known = NONE;
        }
        self.changes.push_back(Change { slot: place, what: Some(What::Drop(true)) });
    }

    fn send_changes(&mut self, now: Instant) {
        // What was collected belongs to one message, since slots know its number already.
        if self.changes.is_empty() {
            return;
        }
        let changes: Vec<Change> = self.changes.drain(..).collect();
        let message = Interest { changes };
        let number = self.link.push(message.encode_to_vec());
        self.sent_at.push_back((number, now));
        if self.sent_at.len() > REMEMBERED {
            self.sent_at.pop_front();
        }
    }

    /// When a message was sent, at the latest.
    fn sent_at(&self, number: u64) -> Option<Instant> {
        let first = self.sent_at.front()?.0;
        let place = usize::try_from(number.checked_sub(first)?).ok()?;
        self.sent_at.get(place).map(|(_, at)| *at)
    }

    fn publish(&mut self, processed: u64, item: Item) -> Result<(), Broken> {
        let Item { slot: place, answers, said } = item;
        let Some(slot) = self.slots.get(place as usize) else { return Ok(()) };
        if slot.added > processed && !leaves_out!(SameJob) {
            // It is about the job that had the slot before.
            return Ok(());
        }
        let is_refused = matches!(said, Some(item::Said::Refused(_)));
        let said = match said.ok_or(Broken::Garbage)? {
            item::Said::Observed(observed) => self.observed(slot, processed, observed)?,
            item::Said::Missing(times) => Said::Missing { times },
            item::Said::Invalid(message) => Said::Invalid(message),
            item::Said::Interrupted(interrupted) => Said::Interrupted {
                fault: from_message(interrupted.fault.unwrap_or_default()),
                retry_in: Duration::from_millis(interrupted.retry_in_ms),
                is_paused: interrupted.is_paused,
            },
            item::Said::Refused(_) => {
                Said::Interrupted { fault: FaultKind::Overloaded.into(), retry_in: REFUSED, is_paused: false }
            }
        };
        let slot = &mut self.slots[place as usize];
        let said = match said {
            Said::Observed { snapshot, observed, began, began_since, age } => {
                let last = slot.unpublished.take();
                Said::Observed { snapshot: snapshot.or(last), observed, began, began_since, age }
            }
            said => said,
        };
        let is_answer = slot.asked == Some(answers) || leaves_out!(OwnAnswer);
        let asked_again = slot.asked_again;
        if is_answer {
            (slot.asked, slot.asked_again) = (None, false);
        }
        let told = Told { said, answers: is_answer, asked_again };
        let followed = self.backend.publish_news(&slot.key, told);
        match followed {
            Followed::Over => self.drop_slot(place),
            Followed::Open if is_refused => {
                self.backend.register_in(&slot.key, REFUSED);
                self.drop_slot(place);
            }
            Followed::Open if is_answer && asked_again => self.ask(place),
            Followed::Open => {}
            Followed::NotPublished(snapshot) => slot.unpublished = snapshot,
        }
        Ok(())
    }

    fn ask(&mut self, place: u32) {
        let message = self.link.next_message();
        let slot = &mut self.slots[place as usize];
        self.backend.asks(&slot.key);
        slot.asked = Some(message);
        let (parts, interval) = slot.wanted;
        let wanted = Wanted {
            result: parts.result,
            payload: parts.payload,
            interval_ms: interval
                .map_or(0, |interval| u32::try_from(interval.as_millis()).unwrap_or(u32::MAX)),
            asks: true,
        };
        self.changes.push_back(Change { slot: place, what: Some(What::Wanted(wanted)) });
    }

    fn observed(&self, slot: &Slot, processed: u64, message: ObservedMessage) -> Result<Said, Broken> {
        let ObservedMessage { observer, sequence, began_after, began_ago_us, age_us, status } = message;
        let snapshot = match status {
            Some(status) => {
                let snapshot = snapshot_of(status).ok_or(Broken::Garbage)?;
                let snapshot = Snapshot::from_parts(snapshot, self.backend.status_budget());
                Some(Box::new(snapshot.ok_or(Broken::Garbage)?))
            }
            None => None,
        };
        // Two times that were certainly before the poll began.
        let after = self.sent_at(began_after);
        let ago = Duration::from_micros(began_ago_us);
        let before = self.sent_at(processed).and_then(|sent| sent.checked_sub(ago));
        let began = after.max(before).unwrap_or_else(|| long_ago(&self.sent_at));
        Ok(Said::Observed {
            snapshot,
            observed: Observed { observer: ObserverId(observer), sequence },
            began,
            began_since: began_after >= slot.added || leaves_out!(LaterObservation),
            age: Duration::from_micros(age_us),
        })
    }
}

/// A time before all that is remembered.
fn long_ago(sent_at: &VecDeque<(u64, Instant)>) -> Instant {
    let first = sent_at.front().map_or_else(Instant::now, |(_, at)| *at);
    first.checked_sub(Duration::from_hours(1)).unwrap_or(first)
}

fn snapshot_of(status: Status) -> Option<SnapshotParts> {
    Some(SnapshotParts {
        state: JobState::from_number(status.state),
        hashes: status.hashes.try_into().ok()?,
        bytes: status.encoded,
        core_end: status.core_end as usize,
        result_end: status.result_end as usize,
        held: Parts { result: status.holds_result, payload: status.holds_payload },
        dropped: Parts { result: status.dropped_result, payload: status.dropped_payload },
    })
}
