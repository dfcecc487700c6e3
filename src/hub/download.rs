//! Downloads of jobs' files.
//!
//! A download is one task, which owns the vendor's answer and the place among the
//! backend's downloads, and a channel that holds one piece:
//!
//! ```text
//! status ──> place ──> leave to send ──> open ──> relay ──> end
//!    └──────────┴────────────┴────────────┴─────────┴─────> failure
//! ```
//!
//! The task reads only when there is room for another piece, so a slow reader slows
//! the vendor and costs no memory. A reader that stalls can't hold the answer
//! beyond the caller's deadline, or [`READER_PATIENCE`] without one piece: the task
//! ends, whether anyone reads or not.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use thiserror::Error;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Ask, Backend, Failure, Hub, inquiry::at};
use crate::{
    config::Poll,
    job::{Artifact, JobRef},
    job::{BackendFault, FaultKind},
    transport::{File, RateLimiter, Upstream},
    vendors::{FileFault, RefusedLocation},
};

/// Oldest status that is trusted to know a file's location.
const STATUS_AGE: Duration = Duration::from_mins(1);

/// How long a download may stand without its reader taking a piece.
const READER_PATIENCE: Duration = Duration::from_mins(10);

/// How long downloads may go on at shutdown; the server waits a little longer.
const DRAIN: Duration = Duration::from_secs(7);

/// A backend's downloads: whom to ask, and how many may ask at once. Polls have
/// places of their own.
pub(super) struct Downloads {
    upstream: Arc<dyn Upstream>,
    throttle: Arc<RateLimiter>,
    places: Arc<Semaphore>,
    limit: usize,
    /// Longest wait for a place.
    patience: Duration,
    /// Shortest wait before another try.
    retry: Duration,
}

impl Downloads {
    pub(super) fn new(upstream: Arc<dyn Upstream>, throttle: Arc<RateLimiter>, poll: &Poll) -> Self {
        let limit = poll.max_concurrency.get().min(Semaphore::MAX_PERMITS);
        let places = Arc::new(Semaphore::new(limit));
        Self { upstream, throttle, places, limit, patience: poll.timeout, retry: poll.min_interval }
    }
}

/// Which file, and from where on.
#[derive(Clone, Debug)]
pub struct Fetch {
    /// As in the job's status.
    pub artifact_id: String,
    /// First byte.
    pub offset: u64,
    /// When the whole download must be over.
    pub deadline: Option<Instant>,
}

/// Why a download failed, before its first byte or in its midst.
#[derive(Clone, Debug, Error)]
pub enum DownloadFailure {
    /// As any call.
    #[error(transparent)]
    Call(#[from] Failure),
    /// The job has no such file, or it can't be had.
    #[error("{why}")]
    NotFound {
        /// Which file was asked for.
        artifact_id: String,
        /// What is the matter with it.
        why: String,
        /// One word, where the file exists but is not to be had.
        detail: Option<&'static str>,
        /// The vendor's HTTP status, where that was the failure.
        http_status: Option<u16>,
    },
    /// The offset lies beyond the end.
    #[error("the offset lies beyond the end of the file")]
    PastEnd {
        /// The file's size, where the vendor says.
        size: Option<u64>,
    },
    /// As many files of this backend are being downloaded as may be.
    #[error("{limit} files of this backend are being downloaded already")]
    TooMany {
        /// How many may be.
        limit: usize,
    },
    /// Nobody read on, and the place went to another.
    #[error(
        "nothing was read for {} minutes; go on from the bytes that came with offset",
        READER_PATIENCE.as_secs() / 60
    )]
    Stalled,
}

/// A file on its way. Dropping it gives the vendor's answer up.
#[derive(Debug)]
pub struct Download {
    /// Last segment of the file's location.
    pub file_name: String,
    /// As the vendor says; empty where it doesn't.
    pub content_type: String,
    /// Whole size in bytes, where the vendor says.
    pub size: Option<u64>,
    pieces: Option<mpsc::Receiver<Piece>>,
    _task: JoinSet<()>,
}

/// The end is said, so that a channel that just closes is not taken for it.
type Piece = Result<Option<Bytes>, DownloadFailure>;

impl Download {
    /// The next piece, at most 64 KiB; `None` after the last byte or a failure.
    pub async fn next(&mut self) -> Option<Result<Bytes, DownloadFailure>> {
        let piece = self.pieces.as_mut()?.recv().await.unwrap_or_else(|| {
            let kind = FaultKind::Unavailable { retry_after: None, why: "the download broke off".into() };
            Err(Failure::Backend { fault: kind.into(), retry_in: Duration::ZERO }.into())
        });
        if !matches!(piece, Ok(Some(_))) {
            self.pieces = None;
        }
        piece.transpose()
    }
}

impl Hub {
    /// Begins to download one of a job's files.
    pub async fn download(&self, job: &JobRef, fetch: Fetch) -> Result<Download, DownloadFailure> {
        let artifact = self.artifact(job, &fetch).await?;
        let downloads = &self.backend_of(job)?.downloads;
        let report = Reporter { job: job.clone(), artifact_id: fetch.artifact_id, retry: downloads.retry };
        let cut = cut(fetch.deadline, self.shutdown.clone());
        let (file, place) = tokio::select! {
            biased;
            failure = cut => return Err(failure.into()),
            opened = self.open_file(job, &artifact, fetch.offset, &report) => opened?,
        };
        let (content_type, size) = (file.content_type().to_owned(), file.size());
        let (sender, pieces) = mpsc::channel(1);
        let cut = self::cut(fetch.deadline, self.shutdown.clone());
        let mut task = JoinSet::new();
        task.spawn(async move {
            let end = tokio::select! {
                biased;
                failure = cut => Err(failure.into()),
                end = relay(file, &sender, &report) => end,
            };
            // The vendor's answer is gone by now; only the reader may be late.
            drop(place);
            let _ = sender.send(end.map(|()| None)).await;
        });
        let file_name = artifact.file_name;
        Ok(Download { file_name, content_type, size, pieces: Some(pieces), _task: task })
    }

    /// The file, as a recent status tells it, or else a new one.
    async fn artifact(&self, job: &JobRef, fetch: &Fetch) -> Result<Artifact, DownloadFailure> {
        for max_age in [Some(STATUS_AGE), None] {
            let ask = Ask { max_age, wait: Duration::ZERO, deadline: fetch.deadline };
            let latest = self.get(std::slice::from_ref(job), ask).await.remove(0)?;
            if let Some(artifact) = latest.snapshot.artifact(&fetch.artifact_id) {
                return Ok(artifact);
            }
        }
        Err(DownloadFailure::NotFound {
            artifact_id: fetch.artifact_id.clone(),
            why: "the job has no such file".to_owned(),
            detail: None,
            http_status: None,
        })
    }

    async fn open_file(
        &self,
        job: &JobRef,
        artifact: &Artifact,
        offset: u64,
        report: &Reporter,
    ) -> Result<(File, OwnedSemaphorePermit), DownloadFailure> {
        let Backend { roster, downloads, .. } = self.backend_of(job)?;
        let Downloads { upstream, throttle, places, limit, patience, .. } = downloads;
        let place = timeout(*patience, Arc::clone(places).acquire_owned()).await;
        let Ok(Ok(place)) = place else { return Err(DownloadFailure::TooMany { limit: *limit }) };
        let leave = throttle.acquire().await;
        let now = Instant::now();
        if let Some(hold) = roster.held(now) {
            let retry_in = hold.until.saturating_duration_since(now);
            return Err(Failure::Backend { fault: hold.fault, retry_in }.into());
        }
        let opened = match upstream.files() {
            Some(files) => files.open(&artifact.vendor_uri, offset, leave).await,
            None => Err(RefusedLocation::NoFiles.into()),
        };
        opened.map(|file| (file, place)).map_err(|fault| {
            let throttled = match &fault {
                FileFault::Backend(fault) if matches!(fault.kind, FaultKind::Throttled { .. }) => Some(fault),
                _ => None,
            };
            let until = throttled.map(|fault| roster.throttled(fault, now, rand::random()));
            report.failure(fault, until)
        })
    }
}

/// Passes pieces on, each as soon as there is room for it. Ends, too, when nobody
/// reads any more.
async fn relay(
    mut file: File,
    reader: &mpsc::Sender<Piece>,
    report: &Reporter,
) -> Result<(), DownloadFailure> {
    loop {
        let room = timeout(READER_PATIENCE, reader.reserve()).await;
        let Ok(room) = room.map_err(|_| DownloadFailure::Stalled)? else { return Ok(()) };
        match file.next().await.map_err(|fault| report.failure(fault, None))? {
            Some(piece) => room.send(Ok(Some(piece))),
            None => return Ok(()),
        }
    }
}

/// Ends when a download has to, with the reason.
async fn cut(deadline: Option<Instant>, shutdown: CancellationToken) -> Failure {
    tokio::select! {
        () = at(deadline) => Failure::Deadline,
        () = async {
            shutdown.cancelled().await;
            sleep(DRAIN).await;
        } => Failure::ShuttingDown,
    }
}

/// Says why a download failed, to the log and to the caller.
struct Reporter {
    job: JobRef,
    artifact_id: String,
    retry: Duration,
}

impl Reporter {
    /// `until`: when the backend is asked again, where it is left alone for that.
    fn failure(&self, fault: FileFault, until: Option<Instant>) -> DownloadFailure {
        if !matches!(fault, FileFault::PastEnd { .. }) {
            let JobRef { backend, id, .. } = &self.job;
            warn!(%backend, job_id = %id, artifact_id = self.artifact_id, error = %fault, "a file can't be downloaded");
        }
        let why = fault.to_string();
        let not_found = |detail, http_status| DownloadFailure::NotFound {
            artifact_id: self.artifact_id.clone(),
            why,
            detail,
            http_status,
        };
        match fault {
            FileFault::Location(refused) => not_found(Some(refused.detail()), None),
            FileFault::Redirected { http_status } => not_found(Some("redirect"), Some(http_status)),
            FileFault::Missing { http_status } => not_found(None, Some(http_status)),
            FileFault::PastEnd { size } => DownloadFailure::PastEnd { size },
            FileFault::Backend(fault) => {
                let left = until.map(|until| until.saturating_duration_since(Instant::now()));
                let retry_in = left.or_else(|| retry_after(&fault)).unwrap_or(self.retry);
                Failure::Backend { fault, retry_in }.into()
            }
        }
    }
}

fn retry_after(fault: &BackendFault) -> Option<Duration> {
    match fault.kind {
        FaultKind::Unavailable { retry_after, .. } | FaultKind::Throttled { retry_after } => retry_after,
        _ => None,
    }
}
