//! The table of followed jobs: who may ask for which, what is fresh enough, and
//! when a watch ends.
//!
//! One path serves every call. A get follows its job, has it asked about at once
//! and leaves at the first answer that is fresh enough; a batch is many of those;
//! a watch stays. Terminal statuses are answered from memory.

use std::{collections::BTreeMap, fmt, num::NonZeroUsize, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    adapters::{BackendFault, InvalidJobRef},
    config::Poll,
    job::{InvalidResumeToken, JobRef},
    pacing::{Backoff, Cadence, Gate},
    poller::{self, Ended, Latest, Plan, Report, Roster},
    transport::{Throttle, Upstream},
};

mod download;
mod inquiry;
mod quota;
mod watch;
mod watches;

pub use download::{Download, DownloadFailure, Fetch};
pub use inquiry::Ask;
pub use quota::{Caller, WatchLimits};
pub use watch::{Event, Update, Watch, WatchOptions};
pub use watches::{End, Outcome, Watches};

use quota::Quotas;

/// Terminal statuses kept: bytes.
const ENDED_BYTES: u64 = 64 << 20;

/// Terminal statuses kept: age. A vendor may let a cancelled job go on (Immuta's
/// queue can), so they are not kept for ever.
const ENDED_AGE: Duration = Duration::from_mins(15);

/// Checks whether a vendor could know a job of this name.
pub type Check = Box<dyn Fn(&JobRef) -> Result<(), InvalidJobRef> + Send + Sync>;

/// What the hub needs to know of a backend.
pub struct BackendSetup {
    /// Its key in the configuration.
    pub name: Arc<str>,
    /// Whose API it is: "immuta", ...
    pub vendor: &'static str,
    /// Checks a job ref before anything is asked.
    pub check: Check,
    /// Most jobs in one request.
    pub max_batch: NonZeroUsize,
    /// Whether the vendor is asked to hold requests.
    pub long_poll: bool,
    /// Who is asked.
    pub upstream: Arc<dyn Upstream>,
    /// How it is asked.
    pub poll: Poll,
}

/// The table of followed jobs of all backends.
pub struct Hub {
    backends: BTreeMap<Arc<str>, Backend>,
    ended: Ended,
    quotas: Quotas,
    shutdown: CancellationToken,
}

/// How a backend is doing.
#[derive(Clone, Debug)]
pub struct BackendReport {
    /// Its key in the configuration.
    pub name: Arc<str>,
    /// Whose API it is.
    pub vendor: &'static str,
    /// Most jobs in one request.
    pub max_batch: NonZeroUsize,
    /// How it is doing.
    pub report: Report,
    /// How much work it has.
    pub load: Load,
}

/// How much work a backend has.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// How long the longest-overdue poll has been due; zero when polls are on time.
    pub poll_lag: Duration,
    /// Jobs of waiting calls that no poll has picked up yet.
    pub queued_calls: usize,
    /// Share of the allowed request rate used in the last second, 0 to 1.
    pub rate_in_use: f64,
    /// Jobs that are polled alone because they made a batch fail.
    pub quarantined_jobs: usize,
}

struct Backend {
    vendor: &'static str,
    max_batch: NonZeroUsize,
    check: Check,
    roster: Arc<Roster>,
    grace: Duration,
    downloads: download::Downloads,
}

/// The hub's background tasks; they end when this is dropped.
pub struct Pollers {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Pollers {
    /// Ends if a poller does, which none does by itself.
    pub async fn broken(&mut self) {
        if self.tasks.join_next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Pollers {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("backends", &self.backends.keys()).finish_non_exhaustive()
    }
}

/// Why a call or a watch ended without what it asked for.
#[derive(Clone, Debug, Error)]
pub enum Failure {
    /// No backend of this name is configured.
    #[error("no backend has this name")]
    UnknownBackend,
    /// The vendor can't know a job of this name.
    #[error(transparent)]
    InvalidJob(#[from] InvalidJobRef),
    /// Not a resume token of this watch.
    #[error("resume_token {0}")]
    InvalidResumeToken(#[from] InvalidResumeToken),
    /// The vendor does not know the job.
    #[error("the vendor does not know this job")]
    NotFound,
    /// The vendor knew the job and no longer does.
    #[error("the vendor no longer knows this job")]
    Gone {
        /// Its last status, where this server saw it.
        last: Option<Box<Latest>>,
    },
    /// The backend can't be asked.
    #[error("{fault}")]
    Backend {
        /// Why.
        fault: BackendFault,
        /// How long until it is asked again.
        retry_in: Duration,
    },
    /// The caller's deadline has passed.
    #[error("the deadline passed before the vendor answered")]
    Deadline,
    /// A field of the request can't be used.
    #[error("{field} {reason}")]
    InvalidRequest {
        /// Path of the field.
        field: String,
        /// What is wrong with it and what to write instead.
        reason: String,
    },
    /// The server stops.
    #[error("the server is shutting down; call again")]
    ShuttingDown,
    /// The backend has more work than it can do before the caller's deadline.
    #[error("the backend is overloaded: it can't be polled for this job in time; call again later")]
    Overloaded {
        /// When the queue is expected to be short enough.
        retry_in: Duration,
    },
    /// The statuses do not fit into a byte budget.
    #[error(
        "{key} is {limit} bytes, and there is no room left for this status; \
         ask for fewer jobs at once or a smaller view"
    )]
    TooManyBytes {
        /// The key of the configuration.
        key: &'static str,
        /// Its value.
        limit: u64,
    },
    /// The job table is full.
    #[error("limits.jobs is {limit}, and so many jobs are watched or cached already; call again later")]
    TooManyJobs {
        /// The value of `limits.jobs`.
        limit: usize,
    },
    /// As many watches are open as may be.
    #[error("as many watches are open as may be: {key} is {limit}")]
    TooManyWatches {
        /// The key of the configuration.
        key: &'static str,
        /// How many may be.
        limit: usize,
    },
}

impl Failure {
    /// The vendor itself says that no job can have this id.
    fn refused_id(message: &str) -> Self {
        Self::InvalidJob(InvalidJobRef {
            field: "job_id",
            reason: format!("the vendor refuses it: {message}"),
        })
    }
}

impl Hub {
    /// Starts a poller for each backend. Watches end when `shutdown` is
    /// cancelled; the pollers go on until [`Pollers`] is dropped.
    pub fn start(
        backends: Vec<BackendSetup>,
        window: Duration,
        limits: WatchLimits,
        shutdown: CancellationToken,
    ) -> (Self, Pollers) {
        let ended = Ended::new(ENDED_BYTES, ENDED_AGE);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let mut table = BTreeMap::new();
        for BackendSetup { name, vendor, check, max_batch, long_poll, upstream, poll } in backends {
            let plan = Plan {
                cadence: Cadence { min: poll.min_interval, max: poll.max_interval },
                // Company is worth waiting for only where a request can be shared.
                window: if max_batch == NonZeroUsize::MIN { Duration::ZERO } else { window },
                max_batch: max_batch.get(),
                long_poll,
            };
            let gate = Gate::new(Backoff { min: poll.min_interval, max: poll.max_backoff });
            let roster = Arc::new(Roster::new(plan, gate, ended.clone()));
            let throttle = Throttle::new(poll.requests_per_second);
            let downloads = download::Downloads::new(Arc::clone(&upstream), Arc::clone(&throttle), &poll);
            let limits = poller::Limits { concurrency: poll.max_concurrency, throttle };
            tasks.spawn(poller::run(Arc::clone(&name), Arc::clone(&roster), upstream, limits, stop.clone()));
            let grace = poll.not_found_grace;
            table.insert(name, Backend { vendor, max_batch, check, roster, grace, downloads });
        }
        let quotas = Quotas::new(limits);
        (Self { backends: table, ended, quotas, shutdown }, Pollers { tasks, stop })
    }

    /// The configured name, shared, so that a job ref costs no copy of it.
    pub fn backend_name(&self, name: &str) -> Option<Arc<str>> {
        self.backends.get_key_value(name).map(|(name, _)| Arc::clone(name))
    }

    /// How each backend is doing, sorted by name.
    pub fn report(&self) -> Vec<BackendReport> {
        let now = Instant::now();
        let report = |(name, backend): (&Arc<str>, &Backend)| BackendReport {
            name: Arc::clone(name),
            vendor: backend.vendor,
            max_batch: backend.max_batch,
            report: backend.roster.report(now),
            load: Load::default(),
        };
        self.backends.iter().map(report).collect()
    }

    fn backend_of(&self, job: &JobRef) -> Result<&Backend, Failure> {
        let backend = self.backends.get(&job.backend).ok_or(Failure::UnknownBackend)?;
        (backend.check)(job)?;
        Ok(backend)
    }
}

#[cfg(test)]
mod tests;
