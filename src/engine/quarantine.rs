//! Jobs that fail alone, which are kept out of batches.
//!
//! A quarantined job is polled alone and by its own back-off; its failures say nothing of
//! the backend. It leaves the quarantine after three successes. All quarantined jobs of a
//! backend together get at most a tenth of its requests per second, and at most a quarter
//! of its polls in flight, since each of them may hang until its time-out.
//!
//! The quarantine outlives subscriptions: a job that is asked for again and again must not
//! break a batch each time.

use std::{
    collections::{HashMap, VecDeque},
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

use tokio::time::Instant;

use crate::job::JobRef;

/// Successes after which a job is polled in batches again.
const SUCCESSES_TO_LEAVE: u8 = 3;

/// Most jobs that are remembered. Beyond it the oldest is forgotten.
const REMEMBERED: usize = 4096;

/// One of how many requests may be for a quarantined job.
const SHARE_OF_RATE: u32 = 10;

/// One of how many polls in flight may be of a quarantined job.
const SHARE_OF_SLOTS: usize = 4;

/// The quarantine of one backend.
#[derive(Debug)]
pub(super) struct Quarantine {
    jobs: HashMap<JobRef, QuarantinedJob>,
    /// In the order in which they came; may name jobs that have left.
    order: VecDeque<(JobRef, u64)>,
    entered: u64,
    /// Time between two polls of quarantined jobs.
    spacing: Duration,
    next_poll: Option<Instant>,
    /// Polls of quarantined jobs in flight.
    in_flight: usize,
    /// Most of them.
    slots: usize,
    /// How many times as long as a poll took no other is sent: for backends with so few
    /// slots that a single one is more than their share.
    rest: u32,
}

#[derive(Debug)]
struct QuarantinedJob {
    successes_left: u8,
    failures: u32,
    entered: u64,
}

impl Quarantine {
    /// An empty quarantine of a backend with this rate and so many polls in flight.
    pub(super) fn new(requests_per_second: NonZeroU32, max_concurrency: NonZeroUsize) -> Self {
        let spacing = Duration::from_secs(u64::from(SHARE_OF_RATE)) / requests_per_second.get();
        let slots = (max_concurrency.get() / SHARE_OF_SLOTS).max(1);
        let rest = u32::try_from(SHARE_OF_SLOTS.div_ceil(max_concurrency.get()) - 1).unwrap_or(0);
        Self {
            jobs: HashMap::new(),
            order: VecDeque::new(),
            entered: 0,
            spacing,
            next_poll: None,
            in_flight: 0,
            slots,
            rest,
        }
    }

    pub(super) fn contains(&self, job: &JobRef) -> bool {
        !self.jobs.is_empty() && self.jobs.contains_key(job)
    }

    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// The job failed alone. Returns how often it has done so in a row.
    pub(super) fn failed(&mut self, job: &JobRef) -> u32 {
        if let Some(quarantined) = self.jobs.get_mut(job) {
            quarantined.successes_left = SUCCESSES_TO_LEAVE;
            quarantined.failures = quarantined.failures.saturating_add(1);
            return quarantined.failures;
        }
        self.entered += 1;
        let entered = self.entered;
        self.jobs
            .insert(job.clone(), QuarantinedJob { successes_left: SUCCESSES_TO_LEAVE, failures: 1, entered });
        self.order.push_back((job.clone(), entered));
        while self.order.len() > REMEMBERED {
            self.forget_oldest();
        }
        1
    }

    /// The job was answered alone. Returns whether it leaves the quarantine.
    pub(super) fn succeeded(&mut self, job: &JobRef) -> bool {
        // One that was forgotten meanwhile has nothing left to do.
        let Some(quarantined) = self.jobs.get_mut(job) else { return true };
        quarantined.failures = 0;
        quarantined.successes_left -= 1;
        let leaves = quarantined.successes_left == 0;
        if leaves {
            self.jobs.remove(job);
        }
        leaves
    }

    /// Time between two polls of quarantined jobs.
    pub(super) fn spacing(&self) -> Duration {
        self.spacing
    }

    /// When a quarantined job may be polled: now, or at the time returned.
    pub(super) fn next_poll(&self, now: Instant) -> Option<Instant> {
        self.next_poll.filter(|at| *at > now)
    }

    /// A quarantined job is polled.
    pub(super) fn polled(&mut self, now: Instant) {
        self.next_poll = Some(now + self.spacing);
    }

    /// Whether another quarantined job may be in flight.
    pub(super) fn has_slot(&self) -> bool {
        self.in_flight < self.slots
    }

    /// A poll of a quarantined job is in flight.
    pub(super) fn poll_started(&mut self) {
        self.in_flight += 1;
    }

    /// It has ended, in whatever way.
    pub(super) fn poll_ended(&mut self, began: Instant, now: Instant) {
        self.in_flight -= 1;
        let rest = now.saturating_duration_since(began).saturating_mul(self.rest);
        self.next_poll = self.next_poll.max(Some(now + rest));
    }

    fn forget_oldest(&mut self) {
        if let Some((job, entered)) = self.order.pop_front()
            && self.jobs.get(&job).is_some_and(|quarantined| quarantined.entered == entered)
        {
            self.jobs.remove(&job);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quarantine(requests_per_second: u32) -> Quarantine {
        let slots = NonZeroUsize::new(8).unwrap();
        Quarantine::new(NonZeroU32::new(requests_per_second).unwrap(), slots)
    }

    fn job(id: usize) -> JobRef {
        JobRef::new("vendor", id.to_string())
    }

    #[test]
    fn job_leaves_after_three_successes_in_a_row() {
        let mut quarantine = quarantine(20);
        assert_eq!(quarantine.failed(&job(1)), 1);
        assert!(!quarantine.succeeded(&job(1)) && !quarantine.succeeded(&job(1)));
        assert_eq!(quarantine.failed(&job(1)), 1, "a success ends its series of failures");
        assert_eq!(quarantine.failed(&job(1)), 2);
        for leaves in [false, false, true] {
            assert!(quarantine.contains(&job(1)));
            assert_eq!(quarantine.succeeded(&job(1)), leaves);
        }
        assert!(!quarantine.contains(&job(1)));
    }

    #[test]
    fn quarantined_jobs_get_a_tenth_of_the_rate() {
        for (rate, millis) in [(1, 10_000), (20, 500), (1000, 10)] {
            let mut quarantine = quarantine(rate);
            let now = Instant::now();
            assert_eq!(quarantine.next_poll(now), None);
            quarantine.polled(now);
            let next = now + Duration::from_millis(millis);
            assert_eq!(quarantine.next_poll(now), Some(next));
            assert_eq!(quarantine.next_poll(next), None);
        }
    }

    #[test]
    fn quarantined_jobs_get_a_quarter_of_the_slots() {
        let now = Instant::now();
        let hang = Duration::from_secs(15);
        for (slots, own, rest) in
            [(1, 1, 3 * hang), (2, 1, hang), (4, 1, Duration::ZERO), (16, 4, Duration::ZERO)]
        {
            let rate = NonZeroU32::new(1000).unwrap();
            let mut quarantine = Quarantine::new(rate, NonZeroUsize::new(slots).unwrap());
            for _ in 0..own {
                assert!(quarantine.has_slot());
                quarantine.poll_started();
            }
            assert!(!quarantine.has_slot());
            quarantine.poll_ended(now, now + hang);
            assert!(quarantine.has_slot());
            assert_eq!(quarantine.next_poll(now), Some(now + hang + rest));
        }
    }

    #[test]
    fn number_of_remembered_jobs_is_bounded() {
        let mut quarantine = quarantine(20);
        for round in 0..3 {
            for id in 0..3 * REMEMBERED {
                quarantine.failed(&job(id));
                if round == 1 && id % 2 == 0 {
                    for _ in 0..3 {
                        quarantine.succeeded(&job(id));
                    }
                }
                assert!(quarantine.len() <= REMEMBERED && quarantine.order.len() <= REMEMBERED);
            }
        }
        assert!(quarantine.contains(&job(3 * REMEMBERED - 1)));
        assert!(!quarantine.contains(&job(0)));
        assert!(quarantine.succeeded(&job(0)), "a job that was forgotten is not kept out of batches");
    }
}
