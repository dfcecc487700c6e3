//! Whether a call can be answered by its deadline, before it waits in vain.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    CallerKey,
    allowance::Capacity,
    backend::{Backend, FIRST_STATUS},
    scheduler::Class,
    state::State,
};
use crate::job::JobRef;

/// Most jobs of waiting calls that are queued, and most of one caller. Beyond it, calls are
/// refused.
const MOST_QUEUED: usize = 1 << 16;
const MOST_QUEUED_OF_CALLER: usize = MOST_QUEUED / 4;

/// The part of the rate that waiting calls get while re-polls are overdue.
const SHARE_OF_WAITING: f64 = 0.8;

/// How long the queue of the replica that polls is about as it was.
const KNOWN_FOR: Duration = Duration::from_secs(10);

/// Longest wait that is computed.
const LONGEST: Duration = Duration::from_mins(10);

/// How fast the jobs of waiting calls are polled.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Queue {
    /// Jobs before one that comes now.
    pub jobs: usize,
    /// Jobs polled in a second.
    pub jobs_per_second: f64,
    /// How long an answer takes.
    pub latency: Duration,
}

impl Queue {
    /// When a job is answered before which so many are polled. A vendor that is slower than
    /// the caller's patience is not overload, and may be faster by now.
    fn answered_at(&self, before: usize, deadline: Instant, now: Instant) -> Instant {
        #[expect(clippy::cast_precision_loss)]
        let wait = before as f64 / self.jobs_per_second;
        // At a rate of zero neither a number nor in time.
        let wait = Duration::try_from_secs_f64(wait).map_or(LONGEST, |wait| wait.min(LONGEST));
        let is_slow = now + self.latency.min(LONGEST) > deadline;
        now + wait + if is_slow { Duration::ZERO } else { self.latency }
    }
}

/// The queue at the replica that polls for this one.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnersQueue {
    queue: Queue,
    known_at: Instant,
    /// Jobs that this replica has added since.
    added: usize,
}

impl State {
    /// Whether a new waiting call can be answered by its deadline.
    ///
    /// # Errors
    /// How long to wait before another try.
    pub(super) fn admit(
        &mut self,
        job: &JobRef,
        caller: CallerKey,
        deadline: Instant,
        now: Instant,
        capacity: Capacity,
    ) -> Result<(), Duration> {
        // It ends at its deadline, with or without other calls. A new owner has its part of the
        // rate in a moment.
        if deadline <= now || capacity.per_second == 0 && !self.sharing.is_following {
            return Ok(());
        }
        if self.sharing.is_following {
            return self.admit_to_owner(deadline, now);
        }
        let shortest = self.plan.interval.min;
        if self.quarantine.contains(job) {
            let ready = u32::try_from(self.scheduler.quarantined()).unwrap_or(u32::MAX);
            let answered_at =
                self.quarantine.next_poll(now).unwrap_or(now) + self.quarantine.spacing() * ready;
            let late = answered_at.saturating_duration_since(deadline);
            return if late.is_zero() { Ok(()) } else { Err(late.max(shortest)) };
        }
        let queue = self.queue(capacity);
        let queued = queue.jobs;
        let has_room = queued < MOST_QUEUED_OF_CALLER
            || queued < MOST_QUEUED && self.scheduler.waiting_of(caller) < MOST_QUEUED_OF_CALLER;
        // The position is at most the last; only a long queue is worth a closer look.
        if has_room && queue.answered_at(queued, deadline, now) <= deadline {
            return Ok(());
        }
        let before = self.scheduler.waiting_position(caller, deadline) - 1;
        let answered_at = queue.answered_at(before, deadline, now);
        if has_room && answered_at <= deadline {
            return Ok(());
        }
        Err(answered_at.saturating_duration_since(deadline).max(shortest))
    }

    /// The same, where another replica polls.
    fn admit_to_owner(&mut self, deadline: Instant, now: Instant) -> Result<(), Duration> {
        let Some(owners) = &mut self.sharing.owners_queue else { return Ok(()) };
        if now.saturating_duration_since(owners.known_at) >= KNOWN_FOR {
            return Ok(());
        }
        let answered_at = owners.queue.answered_at(owners.queue.jobs + owners.added, deadline, now);
        // Others join the queue in the meantime.
        let answered_at = answered_at + answered_at.saturating_duration_since(now) / 10;
        let late = answered_at.saturating_duration_since(deadline);
        if late.is_zero() {
            owners.added += 1;
            return Ok(());
        }
        // More is not known.
        Err(late.min(KNOWN_FOR).max(self.plan.interval.min))
    }

    /// What waits now, and how fast it is polled.
    fn queue(&self, capacity: Capacity) -> Queue {
        let latency = self.stats.latency;
        #[expect(clippy::cast_precision_loss)]
        let concurrent = capacity.in_flight as f64 / latency.as_secs_f64().max(0.001);
        let polls = f64::from(capacity.per_second).min(concurrent);
        let share = if self.scheduler.has(Class::Repoll) { SHARE_OF_WAITING } else { 1.0 };
        #[expect(clippy::cast_precision_loss)]
        let jobs_per_second = polls * share * self.batch_limit.get() as f64;
        Queue { jobs: self.scheduler.waiting(), jobs_per_second, latency }
    }
}

impl Backend {
    /// What waits before the next job of this caller, for a replica that follows.
    pub fn queue_of(&self, caller: CallerKey, now: Instant) -> Queue {
        let state = self.state();
        let capacity = self.capacity(&state.plan, now);
        let jobs = state.scheduler.waiting_position(caller, now + FIRST_STATUS) - 1;
        Queue { jobs, ..state.queue(capacity) }
    }

    /// What waits before the next job of this replica at the one that polls for it.
    pub fn set_owners_queue(&self, queue: Queue, now: Instant) {
        let is_known = queue.jobs_per_second.is_finite() && queue.jobs_per_second > 0.0;
        let owners = OwnersQueue { queue, known_at: now, added: 0 };
        self.state().sharing.owners_queue = is_known.then_some(owners);
    }
}
