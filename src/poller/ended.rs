//! Terminal statuses, which can't change any more and are never asked for again
//! while they are here.

use std::{mem, time::Duration};

use moka::sync::Cache;

use super::Latest;
use crate::{job::JobRef, snapshot::Snapshot};

/// Terminal statuses of all backends, bounded by number, bytes and age. Clones
/// share one store.
#[derive(Clone, Debug)]
pub struct Ended {
    statuses: Cache<JobRef, Latest>,
}

impl Ended {
    /// Keeps statuses that take at most `bytes` together, each for at most `age`.
    /// Every status counts with what it takes beside its texts, too, which bounds
    /// their number.
    pub fn new(bytes: u64, age: Duration) -> Self {
        let statuses = Cache::builder()
            .max_capacity(bytes)
            .time_to_live(age)
            .weigher(|job, latest: &Latest| u32::try_from(weight(job, &latest.snapshot)).unwrap_or(u32::MAX))
            .build();
        Self { statuses }
    }

    /// The terminal status of a job, if it is here.
    pub fn get(&self, job: &JobRef) -> Option<Latest> {
        self.statuses.get(job)
    }

    pub(super) fn insert(&self, job: JobRef, latest: Latest) {
        self.statuses.insert(job, latest);
    }
}

fn weight(job: &JobRef, snapshot: &Snapshot) -> u64 {
    // The cache's own bookkeeping takes about as much again as the bare snapshot.
    (mem::size_of::<Snapshot>() + job.id.len()) as u64 + snapshot.charged_bytes()
}
