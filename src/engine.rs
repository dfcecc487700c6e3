//! Polls each vendor once for everybody who wants to know.
//!
//! One path serves every call. A `get` subscribes to its job, has it polled at once and
//! leaves at the first answer that is fresh enough; a batch is many of those; a watch
//! stays. Terminal statuses are answered from the cache.
//!
//! ```text
//!   get, watch ──> subscription ──> job table ──> scheduler ──> rate limiter ──> poll
//!        ^                              │                                          │
//!        └── notification queue <───────┴───────── publish <── batch, isolation <──┘
//! ```

use std::{
    collections::BTreeMap,
    fmt,
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    job::{InvalidJobRef, JobRef, ObserverId, Parts},
    telemetry::traces::Tracer,
    transport::Upstream,
};

mod admission;
mod allowance;
mod backend;
mod batching;
mod budget;
mod cache;
mod caller;
mod circuit_breaker;
mod configured;
mod download;
mod download_slots;
mod failure;
mod following;
mod get;
mod history;
mod inspection;
mod intervals;
mod isolation;
mod job_table;
mod list;
mod lookup;
mod missed_deadline;
mod notification_queue;
mod outage;
mod planner;
mod poll;
mod poll_loop;
mod quarantine;
mod quota;
mod reconfigure;
mod report;
mod scheduler;
mod served;
mod state;
mod subscription;
mod timer_queue;
mod watch;
mod watch_set;

pub use admission::Queue;
pub use backend::Backend;
pub use budget::MemoryLimits;
pub use caller::{Caller, CallerKey, CallerLimits};
pub use circuit_breaker::{Admission, CircuitBreaker, Pause};
pub use configured::KnownJobs;
pub use download::{Download, DownloadFailure, DownloadOptions, RESULT, VENDOR_PAYLOAD};
pub use failure::{Failure, Refusal};
pub use following::{Followed, FollowedJob, ForReplica, JobKey, News, Said};
pub use get::GetOptions;
pub use history::{JobHistory, Phase, Recent, RecentEvent, Step};
pub use inspection::{JobPage, JobReport};
pub use intervals::PollInterval;
pub use job_table::{Interruption, JobRecord, LatestStatus, PollOutcome};
pub use lookup::{FoundJob, FoundJobs, JobDetail, JobFilter, Show};
pub use missed_deadline::MissedDeadline;
pub use notification_queue::NotificationQueue;
pub use quota::WatchLimits;
pub use report::{Circuit, Health, Report};
pub use state::PollPlan;
pub use subscription::{Interest, Purpose, Subscription};
pub use watch::{Event, Update, Watch, WatchOptions};
pub use watch_set::{End, Outcome, WatchSet};

pub use crate::transport::{FileVersion, RejectedCredentials};

use budget::Memory;
use cache::TerminalCache;
use configured::{Configured, Tokens};
use quota::Quotas;

/// Most bytes of terminal statuses, and the part of all statuses that they may take.
const TERMINAL_BYTES: u64 = 64 << 20;
const TERMINAL_SHARE: u64 = 8;

/// How long terminal statuses are kept. A vendor may let a cancelled job go on (Immuta's
/// queue can), so they are not kept for ever.
const TERMINAL_AGE: Duration = Duration::from_mins(15);

/// Checks whether a vendor could know a job of this name.
pub type Check = Box<dyn Fn(&JobRef) -> Result<(), InvalidJobRef> + Send + Sync>;

/// What the contract's calls need of the engine.
pub trait JobStatuses: Send + Sync + 'static {
    /// The configured name of a backend, shared, so that a job ref costs no copy of it.
    fn backend_name(&self, name: &str) -> Option<Arc<str>>;

    /// The status of one job.
    fn get(
        &self,
        job: &JobRef,
        options: GetOptions,
    ) -> impl Future<Output = Result<LatestStatus, Failure>> + Send;

    /// The status of each of `jobs`, in their order. One job's failure is its own.
    fn batch_get(
        &self,
        jobs: &[JobRef],
        options: GetOptions,
    ) -> impl Future<Output = Vec<Result<LatestStatus, Failure>>> + Send;

    /// Watches one job.
    ///
    /// # Errors
    /// Where it can't be watched at all.
    fn watch(&self, job: &JobRef, caller: Caller, options: &WatchOptions) -> Result<Watch, Failure>;

    /// A call that watches any number of jobs, and none yet.
    fn watch_set(self: &Arc<Self>, caller: Caller, deadline: Option<Instant>) -> WatchSet;

    /// Starts to download one of a job's files.
    fn download(
        &self,
        job: &JobRef,
        options: DownloadOptions,
    ) -> impl Future<Output = Result<Download, DownloadFailure>> + Send;

    /// How each backend is doing, sorted by name.
    fn backends(&self) -> Vec<BackendReport>;

    /// The names of all backends, sorted.
    fn backend_names(&self) -> Vec<Arc<str>>;

    /// At most `limit` jobs of a backend, from this number on; `None` where there is no such
    /// backend.
    fn jobs(&self, backend: &str, from: usize, limit: usize) -> Option<JobPage>;
}

/// What the engine needs to know of a backend.
pub struct BackendSetup {
    /// Its key in the configuration.
    pub name: Arc<str>,
    /// Whose API it is: "immuta", ...
    pub vendor: &'static str,
    /// The version of the vendor's definition; empty for a vendor that is built in.
    pub vendor_version: Arc<str>,
    /// Checks a job ref before anything is polled.
    pub check: Check,
    /// What is polled.
    pub upstream: Arc<dyn Upstream>,
    /// How it is polled.
    pub plan: PollPlan,
    /// Longest wait for one response.
    pub timeout: Duration,
    /// How long a job may be missing after a watch or a waiting call began.
    pub not_found_grace: Duration,
    /// Traces its polls.
    pub tracer: Option<Tracer>,
}

/// The bounds of an engine.
#[derive(Clone, Copy, Debug)]
pub struct EngineLimits {
    /// Of watches.
    pub watches: WatchLimits,
    /// Of memory.
    pub memory: MemoryLimits,
}

/// What this engine's statuses are numbered by, in resume tokens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    observer: ObserverId,
    epoch: Instant,
}

impl Clock {
    /// The number of a status whose poll began then: microseconds since the engine
    /// started.
    fn sequence(&self, began: Instant) -> u64 {
        u64::try_from(began.saturating_duration_since(self.epoch).as_micros()).unwrap_or(u64::MAX)
    }
}

/// Polls backends for its subscribers.
pub struct Engine {
    backends: ArcSwap<BTreeMap<Arc<str>, Arc<Configured>>>,
    memory: Arc<Memory>,
    quotas: Quotas,
    clock: Clock,
    /// Ends watches, after the newest status of each.
    shutdown: CancellationToken,
    /// Ends the other calls.
    calls_end: CancellationToken,
    tokens: Tokens,
}

/// What an engine uses, each beside its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Open watches and waiting calls.
    pub watches: (usize, usize),
    /// Jobs in the tables of all backends.
    pub jobs: (usize, usize),
    /// Bytes of all statuses.
    pub status_bytes: (u64, u64),
}

/// How a backend is doing.
#[derive(Clone, Debug)]
pub struct BackendReport {
    /// Its key in the configuration.
    pub name: Arc<str>,
    /// Whose API it is.
    pub vendor: &'static str,
    /// The version of the vendor's definition; empty for a vendor that is built in.
    pub vendor_version: Arc<str>,
    /// Most jobs in one poll.
    pub max_batch: NonZeroUsize,
    /// Most requests in any second.
    pub requests_per_second: NonZeroU32,
    /// How it is doing.
    pub report: Report,
    /// Its secret, while the vendor rejects it.
    pub rejected_credentials: Option<RejectedCredentials>,
}

impl fmt::Debug for Configured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Configured").field(&self.engine.name()).finish()
    }
}

/// The tasks that poll backends, as far as their owner is concerned. They end when this is
/// dropped.
pub struct PollTasks {
    stop: CancellationToken,
    failed: CancellationToken,
}

impl PollTasks {
    /// Ends if one of the tasks does without having been stopped, which only a bug can bring
    /// about.
    pub async fn failed(&self) {
        self.failed.cancelled().await;
    }
}

impl Drop for PollTasks {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("backends", &self.backends.load().keys()).finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine without backends, and the owner of the tasks that will poll them. Watches
    /// end at `shutdown`, each after its newest status. Calls and downloads go on until
    /// [`end_calls`](Self::end_calls), and their jobs are polled until then.
    pub fn new(limits: EngineLimits, shutdown: CancellationToken) -> (Arc<Self>, PollTasks) {
        let cached = TERMINAL_BYTES.min(limits.memory.status_bytes / TERMINAL_SHARE);
        let cache = TerminalCache::new(cached, TERMINAL_AGE);
        let (stop, failed) = (CancellationToken::new(), CancellationToken::new());
        let engine = Self {
            backends: ArcSwap::default(),
            memory: Memory::new(limits.memory, cache),
            quotas: Quotas::new(limits.watches),
            clock: Clock { observer: ObserverId(rand::random()), epoch: Instant::now() },
            tokens: Tokens { shutdown: shutdown.clone(), stop: stop.clone(), failed: failed.clone() },
            shutdown,
            calls_end: CancellationToken::new(),
        };
        let tasks = PollTasks { stop, failed };
        (Arc::new(engine), tasks)
    }

    /// Ends the calls and downloads that are still open, with [`Failure::ShuttingDown`].
    pub fn end_calls(&self) {
        self.calls_end.cancel();
    }

    /// Starts a backend, at any time. One of the same name is retired: its calls and watches
    /// end with [`Failure::BackendRetired`].
    pub fn start_backend(&self, setup: BackendSetup) {
        let name = Arc::clone(&setup.name);
        let started = Arc::new(Configured::start(setup, self.clock, &self.memory, &self.tokens));
        // In one step, so that no call finds the name unknown meanwhile.
        self.change(&name, |backends| drop(backends.insert(Arc::clone(&name), Arc::clone(&started))));
    }

    /// Replaces the settings of a backend, whose calls and watches go on with the new ones.
    /// Starts it where there is none of this name.
    pub async fn reconfigure_backend(&self, setup: BackendSetup, known: KnownJobs) {
        let current = self.backends.load().get(&setup.name).cloned();
        match current {
            Some(backend) => backend.reconfigure(setup, known).await,
            None => self.start_backend(setup),
        }
    }

    /// Retires a backend: its calls and watches end with [`Failure::UnknownBackend`], after
    /// their newest status, and it is not polled any more.
    pub fn retire_backend(&self, name: &str) {
        self.change(name, |backends| drop(backends.remove(name)));
    }

    /// Changes the set of backends, and retires the one that had this name before.
    fn change(&self, name: &str, change: impl Fn(&mut BTreeMap<Arc<str>, Arc<Configured>>)) {
        let mut is_replaced = false;
        let before = self.backends.rcu(|backends| {
            let mut backends = BTreeMap::clone(backends);
            change(&mut backends);
            is_replaced = backends.contains_key(name);
            backends
        });
        if let Some(retired) = before.get(name) {
            retired.retire(is_replaced);
            // The same name may stand for another vendor's jobs now.
            self.memory.cache.forget_backend(name);
        }
    }

    /// Sets how long a new poll waits for others to share it, where polls can be shared.
    pub fn set_collection_window(&self, window: Duration) {
        for backend in self.backends.load().values() {
            backend.engine.set_collection_window(window);
        }
    }

    /// Sets those bounds that new calls look at: the number of watches and of jobs, and the
    /// size of a result that a status holds. The bytes of all statuses stay as they are.
    pub fn set_limits(&self, limits: EngineLimits) {
        self.quotas.set_limits(limits.watches);
        self.memory.set_limits(limits.memory);
    }

    /// The jobs of a backend, for the replicas that share them.
    pub fn shared_backend(&self, name: &str) -> Option<Arc<Backend>> {
        self.backends.load().get(name).map(|backend| Arc::clone(&backend.engine))
    }

    fn backend_of(&self, job: &JobRef) -> Result<Arc<Configured>, Failure> {
        let backend = self.backends.load().get(&job.backend).cloned().ok_or(Failure::UnknownBackend)?;
        backend.check(job)?;
        Ok(backend)
    }

    /// The terminal status of a job, if it is cached with all that the caller is shown.
    fn terminal(&self, job: &JobRef, parts: Parts) -> Option<LatestStatus> {
        self.memory.cache.get(job).filter(|last| last.snapshot.holds(parts))
    }

    /// What is in use of what is bounded.
    pub fn usage(&self) -> Usage {
        let Memory { budget, .. } = &*self.memory;
        let limits = self.memory.limits();
        Usage {
            watches: (self.quotas.open(), self.quotas.limits().total),
            jobs: (self.memory.jobs(), limits.jobs),
            status_bytes: (budget.used(), budget.limit()),
        }
    }

    /// Logs what has lasted for another minute. To be called every second or so.
    pub fn remind(&self) {
        let now = Instant::now();
        for backend in self.backends.load().values() {
            backend.engine.remind(now);
        }
    }

    fn refused(&self, refusal: Refusal) -> Failure {
        let MemoryLimits { status_bytes, jobs, .. } = self.memory.limits();
        match refusal {
            Refusal::TooManyBytes => {
                Failure::TooManyBytes { key: "limits.status_bytes", limit: status_bytes }
            }
            Refusal::TooManyJobs => Failure::TooManyJobs { limit: jobs },
            Refusal::Overloaded { retry_in } => Failure::Overloaded { retry_in },
        }
    }
}

impl JobStatuses for Engine {
    fn backend_name(&self, name: &str) -> Option<Arc<str>> {
        self.backends.load().get_key_value(name).map(|(name, _)| Arc::clone(name))
    }

    async fn get(&self, job: &JobRef, options: GetOptions) -> Result<LatestStatus, Failure> {
        self.get_one(job, options).await
    }

    async fn batch_get(&self, jobs: &[JobRef], options: GetOptions) -> Vec<Result<LatestStatus, Failure>> {
        self.get_all(jobs, options).await
    }

    fn watch(&self, job: &JobRef, caller: Caller, options: &WatchOptions) -> Result<Watch, Failure> {
        self.watch_one(job, caller, options)
    }

    fn watch_set(self: &Arc<Self>, caller: Caller, deadline: Option<Instant>) -> WatchSet {
        WatchSet::new(self, caller, deadline)
    }

    async fn download(&self, job: &JobRef, options: DownloadOptions) -> Result<Download, DownloadFailure> {
        self.start_download(job, options).await
    }

    fn backends(&self) -> Vec<BackendReport> {
        let now = Instant::now();
        let report = |(name, backend): (&Arc<str>, &Arc<Configured>)| {
            let settings = backend.settings();
            BackendReport {
                name: Arc::clone(name),
                vendor: settings.vendor,
                vendor_version: Arc::clone(&settings.vendor_version),
                max_batch: settings.max_batch,
                requests_per_second: backend.engine.plan().requests_per_second,
                report: backend.engine.report(now),
                rejected_credentials: settings.downloads.rejected_credentials(),
            }
        };
        self.backends.load().iter().map(report).collect()
    }

    fn backend_names(&self) -> Vec<Arc<str>> {
        self.backends.load().keys().cloned().collect()
    }

    fn jobs(&self, backend: &str, from: usize, limit: usize) -> Option<JobPage> {
        self.jobs_of(backend, from, limit)
    }
}

#[cfg(test)]
pub(crate) mod tests;
