//! What happens to one job of the table.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;

use super::{Interruption, JobEntry, LatestStatus, Moment, PollOutcome, Reading, Waiting};
use crate::{
    engine::{history::Phase, scheduler::Class},
    job::{BackendFault, FaultKind, Parts, View},
    snapshot::Snapshot,
};

impl JobEntry {
    /// The class in which a due poll of this job is queued.
    pub(in crate::engine) fn class(&self) -> Class {
        match self.waiting {
            _ if self.is_polled_alone() => Class::Quarantined,
            Some(_) => Class::Waiting,
            None => Class::Repoll,
        }
    }

    /// Whether it is kept out of batches.
    pub(in crate::engine) fn is_polled_alone(&self) -> bool {
        self.quarantined || self.suspect
    }

    /// The parts that some subscriber's view shows.
    pub(in crate::engine) fn wanted_parts(&self) -> Parts {
        self.subscribers.iter().fold(Parts::NONE, |parts, subscriber| parts.union(subscriber.parts))
    }

    /// Whether the latest status holds all that some subscriber is shown.
    pub(in crate::engine) fn holds_wanted_parts(&self) -> bool {
        let wanted = self.wanted_parts();
        self.shared.record().latest.as_ref().is_some_and(|latest| latest.snapshot.holds(wanted))
    }

    /// Whether what is known lacks one of these parts.
    pub(in crate::engine) fn lacks(&self, parts: Parts) -> bool {
        let record = self.shared.record();
        record.latest.as_ref().is_none_or(|latest| !latest.snapshot.holds(parts))
    }

    /// A call waits for the job from now on.
    pub(in crate::engine) fn wait_for(&mut self, waiting: Waiting) {
        match &mut self.waiting {
            Some(earlier) if earlier.deadline <= waiting.deadline => {
                earlier.needs_poll |= waiting.needs_poll;
            }
            Some(later) => {
                let needs_poll = later.needs_poll || waiting.needs_poll;
                **later = Waiting { needs_poll, ..waiting };
            }
            none => *none = Some(Box::new(waiting)),
        }
    }

    /// Publishes what was observed. Returns it if it is terminal.
    pub(in crate::engine) fn observed(&mut self, reading: Reading, moment: Moment) -> Option<LatestStatus> {
        let Moment { began, at, time, observed, answers } = moment;
        let observed = observed.map(Box::new);
        let mut guard = self.shared.record();
        let record = &mut *guard;
        let (mut changed, mut shown) = (false, false);
        match (&mut record.latest, reading) {
            (Some(latest), reading) => {
                if let Reading::Read(snapshot, payload_hash) = reading {
                    changed = latest.snapshot.differs_from(&snapshot);
                    // What a vendor changes beside what it documents does not shorten the
                    // interval.
                    let visible = |snapshot: &Snapshot| snapshot.fingerprint(View::STANDARD);
                    shown = changed && visible(&latest.snapshot) != visible(&snapshot);
                    let lacks = !latest.snapshot.held().contains(snapshot.held());
                    if changed || lacks {
                        latest.snapshot = Arc::new(snapshot);
                    }
                    latest.payload_hash = payload_hash;
                    changed |= lacks;
                }
                (latest.time, latest.at, latest.began, latest.observed) = (time, at, began, observed);
            }
            (None, Reading::Read(snapshot, payload_hash)) => {
                (changed, shown) = (true, true);
                record.latest = Some(LatestStatus {
                    snapshot: Arc::new(snapshot),
                    time,
                    at,
                    began,
                    payload_hash,
                    observed,
                });
            }
            // Nothing was known that could be the same.
            (None, Reading::Unchanged) => {}
        }
        let before = std::mem::replace(&mut record.outcome, PollOutcome::Observed);
        let recovered = before != PollOutcome::Observed;
        if answers {
            record.polls += 1;
            record.last_answer = record.polls;
        }
        let state = record.latest.as_ref().map(|latest| latest.snapshot.state);
        let terminal = record.latest.as_ref().filter(|latest| latest.snapshot.is_terminal()).cloned();
        drop(guard);
        if let Some(state) = state {
            self.history.enter(Phase::In(state), || time);
        }
        self.failures = 0;
        if answers {
            self.waiting = None;
        }
        if shown {
            self.changed_at = at;
        }
        let all = answers && std::mem::take(&mut self.notify_all) || changed || recovered;
        self.notify(all);
        terminal
    }

    /// The vendor does not know the job.
    pub(in crate::engine) fn missing(&mut self) {
        let times = match self.shared.record().outcome {
            PollOutcome::Missing { times } => times,
            _ => 0,
        };
        self.missing_for(times.saturating_add(1));
    }

    /// So many polls in a row found that the vendor does not know the job.
    pub(in crate::engine) fn missing_for(&mut self, times: u32) {
        self.failures = 0;
        self.history.enter(Phase::Missing, Timestamp::now);
        self.ended_in(PollOutcome::Missing { times });
    }

    /// The vendor says that no job can have this id.
    pub(in crate::engine) fn invalid(&mut self, message: String) {
        self.history.enter(Phase::Refused, Timestamp::now);
        self.ended_in(PollOutcome::Invalid(message.into()));
    }

    /// It can't be polled, for the backend's or its own reasons. Where others can't be
    /// either, what the vendor said of this job alone stays.
    pub(in crate::engine) fn interrupted(&mut self, interruption: &Arc<Interruption>) {
        let own = match &self.shared.record().outcome {
            PollOutcome::Interrupted(own) if own.fault.without_vendor_message() == interruption.fault => {
                Some(Arc::new(Interruption { fault: own.fault.clone(), ..(**interruption).clone() }))
            }
            _ => None,
        };
        self.ended_in(PollOutcome::Interrupted(own.unwrap_or_else(|| Arc::clone(interruption))));
    }

    fn ended_in(&mut self, outcome: PollOutcome) {
        let mut record = self.shared.record();
        record.outcome = outcome;
        record.polls += 1;
        drop(record);
        self.waiting = None;
        self.notify(true);
    }

    /// Somebody subscribes again: what is known was observed before that.
    pub(in crate::engine) fn begin_anew(&self) {
        self.shared.record().outcome = PollOutcome::NotPolled;
    }

    /// Whether its last poll was answered.
    pub(in crate::engine) fn is_answered(&self) -> bool {
        self.shared.record().outcome == PollOutcome::Observed
    }

    /// Whether it could not be polled.
    pub(in crate::engine) fn is_interrupted(&self) -> bool {
        matches!(self.shared.record().outcome, PollOutcome::Interrupted(_))
    }

    /// Whether it could not be polled for this reason.
    pub(in crate::engine) fn is_interrupted_by(&self, fault: &BackendFault) -> bool {
        matches!(&self.shared.record().outcome, PollOutcome::Interrupted(interruption)
            if interruption.fault == *fault)
    }

    /// Whether it waits because the gateway's credentials were rejected.
    pub(in crate::engine) fn is_rejected(&self) -> bool {
        matches!(&self.shared.record().outcome, PollOutcome::Interrupted(interruption)
            if interruption.fault.kind == FaultKind::CredentialsRejected)
    }

    /// Notifies all subscribers, or those that are notified of every poll.
    pub(in crate::engine) fn notify(&self, all: bool) {
        for subscriber in self.subscribers.iter() {
            if all || subscriber.every_poll {
                subscriber.queue.notify(subscriber.slot);
            }
        }
    }

    /// Notifies one subscriber.
    pub(in crate::engine) fn notify_subscriber(&self, number: usize) {
        if let Some(subscriber) = self.subscribers.get(number) {
            subscriber.queue.notify(subscriber.slot);
        }
    }

    /// Drops parts that no subscriber is shown any more, unless the job is retained for
    /// calls.
    pub(in crate::engine) fn drop_unwanted_parts(&mut self, now: Instant) {
        if self.is_retained_at(now) {
            return;
        }
        let wanted = self.wanted_parts();
        let mut record = self.shared.record();
        if let Some(latest) = record.latest.as_mut()
            && !wanted.contains(latest.snapshot.held())
        {
            latest.snapshot = Arc::new(latest.snapshot.without(Parts::ALL.difference(wanted)));
        }
    }

    /// Drops the parts that all subscribers have read. Returns whether there were any.
    pub(in crate::engine) fn drop_delivered_parts(&mut self) -> bool {
        if self.subscribers.iter().any(|subscriber| subscriber.queue.is_queued(subscriber.slot)) {
            return false;
        }
        let mut record = self.shared.record();
        let Some(latest) = record.latest.as_mut().filter(|latest| latest.snapshot.held() != Parts::NONE)
        else {
            return false;
        };
        latest.snapshot = Arc::new(latest.snapshot.without(Parts::ALL));
        true
    }
}
