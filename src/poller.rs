//! Asks one backend about the jobs that are followed there.
//!
//! The [`Roster`] says which jobs are due; [`run`] is the one task that takes
//! them, in batches, within the backend's limits, and starts a flight for each
//! batch. A flight asks the [`Upstream`], publishes what it says, and ends early
//! when nobody follows any of its jobs.

use std::{
    collections::HashSet,
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    job::{BackendFault, FaultKind, JobFault, JobRef, JobState, PayloadHash, vendor_message},
    pacing::Hold,
    snapshot::Snapshot,
    transport::{Permit, PollResponse, RateLimiter, Upstream},
};

mod calendar;
mod ended;
mod mailbox;
mod roster;

pub use calendar::Calendar;
pub use ended::Ended;
pub use mailbox::Mailbox;
pub use roster::{Batch, Follow, Health, Interest, Plan, Readiness, Refusal, Report, Roster, Taken};

/// Most unknown words of a vendor that are logged, once each.
const UNKNOWN_WORDS_LOGGED: usize = 64;

/// What a follower sees of a job.
#[derive(Clone, Debug, Default)]
pub struct News {
    /// The newest observation.
    pub latest: Option<Latest>,
    /// What the newest attempt came to.
    pub standing: Standing,
    /// Attempts that have ended, in an observation or otherwise.
    pub attempts: u64,
    /// Attempts that ended in an observation.
    pub answers: u64,
}

/// A job's newest observation.
#[derive(Clone, Debug)]
pub struct Latest {
    /// What was observed.
    pub snapshot: Arc<Snapshot>,
    /// When the answer arrived.
    pub time: Timestamp,
    /// The same on the clock that only goes forward.
    pub at: Instant,
}

/// What the newest attempt to observe a job came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// There was none yet, since somebody began to follow the job.
    #[default]
    Unasked,
    /// An observation.
    Observed,
    /// The vendor does not know the job.
    Missing {
        /// Attempts in a row that found it missing.
        times: u32,
    },
    /// The vendor knows that no job can have this name.
    Invalid(Arc<str>),
    /// The backend can't be asked.
    Interrupted(Arc<Interruption>),
}

/// A time in which a backend can't be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interruption {
    /// Why.
    pub fault: BackendFault,
    /// When it is asked next.
    pub until: Instant,
    /// The same for people.
    pub retry_time: Timestamp,
}

impl Interruption {
    fn new(hold: &Hold, now: Instant) -> Arc<Self> {
        Self::until(hold.fault.clone(), hold.until, now)
    }

    fn until(fault: BackendFault, until: Instant, now: Instant) -> Arc<Self> {
        let wait = until.saturating_duration_since(now);
        let retry_time = Timestamp::now().checked_add(wait).unwrap_or(Timestamp::MAX);
        Arc::new(Self { fault, until, retry_time })
    }
}

/// What a backend bears.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Most requests at once.
    pub concurrency: NonZeroUsize,
    /// When each may be sent.
    pub throttle: Arc<RateLimiter>,
}

/// Asks `upstream` about the jobs on `roster` until `stop` is cancelled; then
/// gives up what is under way and returns.
pub async fn run(
    name: Arc<str>,
    roster: Arc<Roster>,
    upstream: Arc<dyn Upstream>,
    limits: Limits,
    stop: CancellationToken,
) {
    let poller =
        Arc::new(Poller { name, upstream, throttle: limits.throttle, unknown_words: Mutex::default() });
    let permits = Arc::new(Semaphore::new(limits.concurrency.get()));
    let mut flights = JoinSet::new();
    let next = async {
        loop {
            match roster.prepare(Instant::now()) {
                Readiness::Ready => {}
                Readiness::Idle => {
                    roster.changed().await;
                    continue;
                }
                Readiness::At(at) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(at) => {}
                        () = roster.changed() => {}
                    }
                    continue;
                }
            }
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            // Before the batch is made: what falls due while it waits still joins it.
            let leave = poller.throttle.acquire().await;
            if let Some(batch) = roster.take(Instant::now(), rand::random()) {
                while flights.try_join_next().is_some() {}
                let poller = Arc::clone(&poller);
                // A long poll does nothing most of the time; it holds up no other.
                let permit = batch.wait().is_zero().then_some(permit);
                flights.spawn(async move {
                    let mut batch = batch;
                    let (given_up, cut_short) = (batch.given_up(), batch.cut_short());
                    let cut = tokio::select! {
                        () = given_up.cancelled() => false,
                        () = cut_short.cancelled() => true,
                        () = poller.fly(&mut batch, leave) => false,
                    };
                    if cut {
                        batch.cut();
                    }
                    drop(permit);
                });
            }
        }
    };
    let forgive = async {
        loop {
            poller.upstream.credentials_rotated().await;
            roster.forgive_rejections(Instant::now());
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = next => {}
        () = forgive => {}
    }
}

struct Poller {
    name: Arc<str>,
    upstream: Arc<dyn Upstream>,
    throttle: Arc<RateLimiter>,
    unknown_words: Mutex<HashSet<String>>,
}

impl Poller {
    /// Asks about a batch. Where the vendor refuses the whole for what may be one
    /// job's fault, asks about its halves, until the culprit stands alone.
    async fn fly(&self, batch: &mut Batch, leave: Permit) {
        let mut parts = vec![batch.open()];
        let mut leave = Some(leave);
        while let Some(mut part) = parts.pop() {
            let leave = if let Some(leave) = leave.take() {
                leave
            } else {
                batch.only_followed(&mut part);
                if part.is_empty() {
                    continue;
                }
                self.throttle.acquire().await
            };
            let jobs: Vec<JobRef> = part.iter().map(|taken| taken.job().clone()).collect();
            let (fault, of_one_job) = match self.upstream.poll(&jobs, leave).await {
                Ok(response) => {
                    let answers = self.read(&part, &response);
                    drop(response);
                    if batch.answered(&part, answers, rand::random()) {
                        info!(backend = %self.name, "the backend answers again");
                    }
                    continue;
                }
                Err(fault) if fault.kind.is_refusal() && !fault.concerns_backend() => {
                    if part.len() > 1 {
                        if fault.kind == FaultKind::TooLarge {
                            batch.too_large(part.len());
                        }
                        let at = if batch.is_suspicious() { 1 } else { part.len() / 2 };
                        let rest = part.split_off(at);
                        parts.extend([rest, part]);
                        continue;
                    }
                    match batch.refused(&part[0], &fault, rand::random()) {
                        Refusal::Known => continue,
                        Refusal::New => {
                            let job_id = &*part[0].job().id;
                            warn!(backend = %self.name, job_id, error = %fault, "a job can't be asked about");
                            continue;
                        }
                        Refusal::Backends => (fault, true),
                    }
                }
                Err(fault) => (fault, false),
            };
            let told = if of_one_job { &fault.without_words() } else { &fault };
            let failures = batch.failed(told, rand::random());
            warn!(backend = %self.name, error = %fault, failures, "the backend can't be asked");
            return;
        }
    }

    /// What the response says of each job of the part; none where it says the same as
    /// before, to the byte.
    fn read(&self, part: &[Taken], response: &PollResponse) -> Vec<Result<Option<Snapshot>, JobFault>> {
        let read = |(taken, element): (&Taken, &Result<Bytes, JobFault>)| {
            let element = element.as_ref().map_err(Clone::clone)?;
            let payload_hash = Some(PayloadHash::of(element));
            if payload_hash == taken.payload_hash() {
                return Ok(None);
            }
            let observation = response.observe(taken.job(), element)?;
            self.note_unknown_word(observation.state, &observation.vendor_state);
            let mut snapshot = Snapshot::new(observation);
            snapshot.payload_hash = payload_hash;
            Ok(Some(snapshot))
        };
        part.iter().zip(response.elements()).map(read).collect()
    }

    fn note_unknown_word(&self, state: JobState, word: &str) {
        if state == JobState::Unknown {
            let mut words = self.unknown_words.lock().unwrap_or_else(PoisonError::into_inner);
            let word = vendor_message(word);
            if words.len() < UNKNOWN_WORDS_LOGGED && words.insert(word.clone()) {
                warn!(backend = %self.name, vendor_state = word, "the vendor reported a state that is not known");
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod script;
#[cfg(test)]
mod tests;
