//! Statuses that are kept without subscribers: terminal ones, and those of jobs that
//! somebody is likely to ask for again.
//!
//! A caller that asks with a `max_age` accepts what others were shown, so a job that was
//! asked for in that way is *retained* for as long as that, and as long again. It costs no
//! poll of its own. But a poll that is sent anyway refreshes retained jobs that are older
//! than half of their `max_age`, oldest first, as far as the batch has room: so jobs that
//! many clients ask for at different times share polls as watched jobs do.

use std::{
    collections::BTreeSet,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use moka::sync::Cache;
use tokio::time::Instant;

use super::job_table::{JobEntry, LatestStatus, PollOutcome};
use crate::{job::JobRef, snapshot::Snapshot};

/// Most jobs that a backend retains. Beyond it, those go that would expire first.
pub(super) const RETAINED: usize = 1 << 16;

/// Most bytes that their statuses may take. Beyond it, the same.
pub(super) const RETAINED_BYTES: usize = 64 << 20;

/// Longest `max_age` for which a job is retained.
const LONGEST_MAX_AGE: Duration = Duration::from_mins(5);

/// Terminal statuses of all backends, bounded by bytes and age. Most can't change any more,
/// so their jobs are not polled again while they are here; those of a vendor that may run a
/// job again after its end are here for a poll interval. Clones share one store.
#[derive(Clone, Debug)]
pub(super) struct TerminalCache {
    statuses: Cache<JobRef, Arc<Slot>>,
}

/// One cached status. It is taken out when its entry is evicted: the store itself may free
/// an entry much later, and its bytes would count as held until then.
#[derive(Debug)]
struct Slot {
    status: Mutex<Option<LatestStatus>>,
    weight: u32,
    /// When it is too old, where that is earlier than for all.
    stale_at: Option<Instant>,
}

impl TerminalCache {
    /// Keeps statuses that take at most `bytes` together, each for at most `age`. Every
    /// status counts with what it takes beside its texts, too, which bounds their number.
    pub(super) fn new(bytes: u64, age: Duration) -> Self {
        let statuses = Cache::builder()
            .max_capacity(bytes)
            .time_to_live(age)
            .weigher(|_, slot: &Arc<Slot>| slot.weight)
            .eviction_listener(|_, slot, _| drop(slot.lock().take()))
            .build();
        Self { statuses }
    }

    /// The terminal status of a job, if it is here.
    pub(super) fn get(&self, job: &JobRef) -> Option<LatestStatus> {
        let slot = self.statuses.get(job)?;
        let is_stale = slot.stale_at.is_some_and(|stale_at| stale_at <= Instant::now());
        slot.lock().clone().filter(|_| !is_stale)
    }

    /// Keeps a status, for at most `age` since its poll if that is given.
    pub(super) fn insert(&self, job: JobRef, latest: LatestStatus, age: Option<Duration>) {
        // A later poll may know less: one that was read for a smaller view.
        let held = latest.snapshot.held();
        if self.get(&job).is_none_or(|known| held.contains(known.snapshot.held())) {
            let weight = u32::try_from(weight(&job, &latest.snapshot)).unwrap_or(u32::MAX);
            let stale_at = age.map(|age| latest.at + age);
            self.statuses.insert(job, Arc::new(Slot { status: Mutex::new(Some(latest)), weight, stale_at }));
        }
    }

    /// Forgets the statuses of one backend.
    pub(super) fn forget_backend(&self, name: &str) {
        for (job, _) in &self.statuses {
            if &*job.backend == name {
                self.statuses.invalidate(&*job);
            }
        }
    }

    /// Evicts statuses while `is_over` says that too much is held.
    pub(super) fn evict(&self, is_over: impl Fn() -> bool) {
        for (job, _) in &self.statuses {
            if !is_over() {
                return;
            }
            self.statuses.invalidate(&*job);
        }
    }
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Option<LatestStatus>> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn weight(job: &JobRef, snapshot: &Snapshot) -> usize {
    // The cache's own bookkeeping takes about as much again as the bare snapshot.
    2 * mem::size_of::<Snapshot>()
        + job.id.len()
        + usize::try_from(snapshot.charged_bytes()).unwrap_or(usize::MAX)
}

/// For how long a job is retained.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retention {
    /// How old its status may be.
    max_age: Duration,
    /// When it expires: counted from when somebody last asked for it.
    expires_at: Instant,
}

/// Where a retained job is in the indexes.
#[derive(Clone, Copy, Debug)]
pub(super) struct RetainedJob {
    /// When the next caller would have it polled.
    stale_at: Instant,
    pub(super) expires_at: Instant,
    bytes: usize,
}

/// The retained jobs of one backend, by number.
#[derive(Debug, Default)]
pub(super) struct RetainedJobs {
    by_stale_at: BTreeSet<(Instant, usize)>,
    by_expires_at: BTreeSet<(Instant, usize)>,
    bytes: usize,
}

impl RetainedJobs {
    pub(super) fn insert(&mut self, number: usize, job: RetainedJob) {
        self.by_stale_at.insert((job.stale_at, number));
        self.by_expires_at.insert((job.expires_at, number));
        self.bytes += job.bytes;
    }

    pub(super) fn remove(&mut self, number: usize, job: RetainedJob) {
        self.by_stale_at.remove(&(job.stale_at, number));
        if self.by_expires_at.remove(&(job.expires_at, number)) {
            self.bytes -= job.bytes;
        }
    }

    /// When the first one expires.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.by_expires_at.first().map(|(at, _)| *at)
    }

    /// The job that expires first.
    pub(super) fn first(&self) -> Option<(Instant, usize)> {
        self.by_expires_at.first().copied()
    }

    /// Whether there are more than may be retained.
    pub(super) fn is_over(&self) -> bool {
        self.by_expires_at.len() > RETAINED || self.bytes > RETAINED_BYTES
    }

    /// Jobs that become stale before `until`, soonest first.
    pub(super) fn stale_before(&self, until: Instant) -> impl Iterator<Item = usize> {
        self.by_stale_at.iter().take_while(move |(stale_at, _)| *stale_at <= until).map(|(_, number)| *number)
    }

    #[cfg(test)]
    pub(super) fn check(&self, jobs: &[(usize, RetainedJob)]) {
        assert!(!self.is_over());
        let stale: BTreeSet<_> = jobs.iter().map(|(number, job)| (job.stale_at, *number)).collect();
        let expires: BTreeSet<_> = jobs.iter().map(|(number, job)| (job.expires_at, *number)).collect();
        assert_eq!((&self.by_stale_at, &self.by_expires_at), (&stale, &expires), "the indexes");
        assert_eq!(self.bytes, jobs.iter().map(|(_, job)| job.bytes).sum::<usize>());
    }
}

/// How far ahead retained jobs are looked at for a refresh.
pub(super) fn refresh_horizon(now: Instant) -> Instant {
    now + LONGEST_MAX_AGE / 2
}

impl JobEntry {
    /// Somebody asked for the job who accepts a status of this age.
    pub(super) fn requested_with(&mut self, max_age: Duration, now: Instant) {
        let max_age = max_age.min(LONGEST_MAX_AGE);
        let expires_at = now + 2 * max_age;
        match &mut self.retention {
            _ if max_age.is_zero() => {}
            // What is fresh enough for one is for the other.
            Some(retention) if retention.expires_at > now => {
                **retention = Retention {
                    max_age: retention.max_age.min(max_age),
                    expires_at: retention.expires_at.max(expires_at),
                };
            }
            retention => *retention = Some(Box::new(Retention { max_age, expires_at })),
        }
    }

    /// Whether it would be retained without subscribers.
    pub(super) fn is_retained_at(&self, now: Instant) -> bool {
        self.retention.as_ref().is_some_and(|retention| retention.expires_at > now)
    }

    /// Its latest status, unless the vendor has denied the job since.
    pub(super) fn undenied(&self) -> Option<LatestStatus> {
        let record = self.shared.record();
        match record.outcome {
            PollOutcome::Missing { .. } | PollOutcome::Invalid(_) => None,
            PollOutcome::NotPolled | PollOutcome::Observed | PollOutcome::Interrupted(_) => {
                record.latest.clone()
            }
        }
    }

    /// Where it is retained, if there is something to retain.
    pub(super) fn as_retained(&self) -> Option<RetainedJob> {
        let Retention { max_age, expires_at } = **self.retention.as_ref()?;
        let latest = self.undenied()?;
        let bytes =
            mem::size_of::<Self>() + usize::try_from(latest.snapshot.charged_bytes()).unwrap_or(usize::MAX);
        Some(RetainedJob { stale_at: latest.at + max_age, expires_at, bytes })
    }

    /// Whether half of the time has passed in which its status is fresh enough.
    pub(super) fn is_worth_a_refresh(&self, now: Instant) -> bool {
        match (&self.retention, self.as_retained()) {
            (Some(retention), Some(job)) => job.stale_at <= now + retention.max_age / 2 && !self.quarantined,
            _ => false,
        }
    }
}
