//! Downloads of jobs' files, and of results that are too large for a status.
//!
//! A download is one task, which owns the vendor's response and one of the backend's
//! download slots, and a channel that holds one piece:
//!
//! ```text
//! status ──> slot ──> permit ──> open ──> relay ──> end
//!    └─────────┴─────────┴─────────┴────────┴─────> failure
//! ```
//!
//! The task reads only when there is room for another piece, so a slow reader slows the
//! vendor and costs no memory. A reader that stalls can't hold the response beyond the
//! caller's deadline, or [`READER_TIMEOUT`] without taking a piece: the task ends, whether
//! anyone reads or not. While another download waits for a slot, a reader that takes less
//! than a piece in [`SLOW`] loses its own.
//!
//! The artifacts [`RESULT`] and [`VENDOR_PAYLOAD`] of every job are its result and the
//! vendor's job object. The job is polled alone for them, and they are read from the
//! response.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use bytes::Bytes;
use thiserror::Error;
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    Caller, Engine, Failure, GetOptions, MissedDeadline,
    allowance::no_part,
    backend::Backend,
    download_slots::{DownloadSlot, DownloadSlots, NoSlot},
    get::at,
};
use crate::{
    job::{Artifact, BackendFault, FaultKind, JobFault, JobRef, Observation, Parts},
    telemetry::Sampled,
    transport::{FileVersion, Files, Permit, PollResponse, RejectedCredentials, Upstream},
    vendors::{FileFault, RefusedLocation},
};

mod transfer;

use transfer::{PIECE, Piece, READER_TIMEOUT, Reader, SLOW, Source, relay};

/// Oldest status that is trusted to know a file's location.
const STATUS_AGE: Duration = Duration::from_mins(1);

/// The artifact id of every job's result.
pub const RESULT: &str = "jobwatch:result";

/// The artifact id of every job's vendor payload.
pub const VENDOR_PAYLOAD: &str = "jobwatch:vendor_payload";

/// How long a download may take until its first byte can be read, where the caller set no
/// deadline.
const OPEN_TIMEOUT: Duration = Duration::from_mins(1);

/// The downloads of a backend. They have slots of their own beside its polls.
pub(super) struct Downloads {
    backend: Arc<Backend>,
    upstream: Arc<dyn Upstream>,
    slots: Arc<DownloadSlots>,
    /// Longest wait for a slot.
    timeout: Duration,
    /// Shortest wait before another try.
    retry: Duration,
}

impl Downloads {
    /// At most `limit` at once; a call waits for a slot as long as `timeout`.
    pub(super) fn new(
        backend: Arc<Backend>,
        upstream: Arc<dyn Upstream>,
        limit: NonZeroUsize,
        timeout: Duration,
        retry: Duration,
    ) -> Self {
        Self { backend, upstream, slots: DownloadSlots::new(limit), timeout, retry }
    }
}

/// Which file, and from where on.
#[derive(Clone, Debug)]
pub struct DownloadOptions {
    /// As in the job's status, or [`RESULT`] or [`VENDOR_PAYLOAD`].
    pub artifact_id: String,
    /// First byte.
    pub offset: u64,
    /// The version that the bytes before were read of.
    pub version: Option<FileVersion>,
    /// When the whole download must be over.
    pub deadline: Option<Instant>,
    /// Who calls.
    pub caller: Caller,
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
        /// One word: why the file can't be had, or that the job has not ended.
        detail: Option<&'static str>,
        /// The vendor's HTTP status, where that was the failure.
        http_status: Option<u16>,
    },
    /// The file was replaced since the version that was asked for.
    #[error("the file was replaced since the version in if_version; download it from its beginning")]
    Changed {
        /// Which file was asked for.
        artifact_id: String,
    },
    /// The offset lies beyond the end.
    #[error("the offset lies beyond the end of the file")]
    PastEnd {
        /// The file's size, where the vendor says.
        size: Option<u64>,
    },
    /// As many files of this backend are being downloaded as may be.
    #[error(
        "{limit} files of this backend are being downloaded already{}",
        if *.of_caller { " by this caller, which is its share" } else { "" }
    )]
    TooMany {
        /// How many may be.
        limit: usize,
        /// Whether that is the caller's share.
        of_caller: bool,
    },
    /// The reader stalled, and its slot went to another.
    #[error(
        "nothing was read for {} minutes, or less than {} KiB in {} seconds while another download waited; \
         resume with offset after the bytes that came",
        READER_TIMEOUT.as_secs() / 60, PIECE >> 10, SLOW.as_secs()
    )]
    Stalled,
}

/// A file being downloaded. Dropping it cancels the request to the vendor.
#[derive(Debug)]
pub struct Download {
    /// Last segment of the file's location.
    pub file_name: String,
    /// As the vendor says; empty where it doesn't.
    pub content_type: String,
    /// Whole size in bytes, where the vendor says.
    pub size: Option<u64>,
    /// What tells this version of the file from others.
    pub version: FileVersion,
    pieces: Option<mpsc::Receiver<Piece>>,
    _task: JoinSet<()>,
}

impl Download {
    /// The next piece, at most 64 KiB; `None` after the last byte or a failure.
    pub async fn next(&mut self) -> Option<Result<Bytes, DownloadFailure>> {
        let piece = self.pieces.as_mut()?.recv().await.unwrap_or_else(|| {
            let kind = FaultKind::Unavailable { why: "the download broke off".into() };
            Err(Failure::Backend { fault: kind.into(), retry_in: Duration::ZERO }.into())
        });
        if !matches!(piece, Ok(Some(_))) {
            self.pieces = None;
        }
        piece.transpose()
    }
}

impl Engine {
    /// Starts to download one of a job's files.
    pub(super) async fn start_download(
        &self,
        job: &JobRef,
        options: DownloadOptions,
    ) -> Result<Download, DownloadFailure> {
        let downloads = Arc::clone(&self.backend_of(job)?.settings().downloads);
        let DownloadOptions { artifact_id, offset, version, deadline, .. } = options.clone();
        let wanted = Wanted { offset, version };
        let report = Reporter { job: job.clone(), artifact_id, retry: downloads.retry };
        let opened_by = deadline.unwrap_or_else(|| Instant::now() + OPEN_TIMEOUT);
        let must_end = must_end(Some(opened_by), self.calls_end.clone());
        let opened = async {
            if matches!(&*options.artifact_id, RESULT | VENDOR_PAYLOAD) {
                return downloads.open_part(job, &wanted, options.caller, &report).await;
            }
            let artifact = self.artifact(job, &options).await?;
            downloads.open_file(job, artifact, &wanted, options.caller, &report).await
        };
        let Opened { source, file_name, slot } = tokio::select! {
            biased;
            failure = must_end => return Err(failure.into()),
            opened = opened => opened?,
        };
        let (content_type, size) = (source.content_type().to_owned(), source.size());
        let version = source.version().clone();
        let (sender, pieces) = mpsc::channel(1);
        let must_end = self::must_end(deadline, self.calls_end.clone());
        let reader = Reader::new(sender.clone(), &downloads.slots);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let end = tokio::select! {
                biased;
                failure = must_end => Err(failure.into()),
                end = relay(source, reader, &report) => end,
            };
            // The vendor's response is gone by now; only the reader may be late.
            drop(slot);
            let _ = sender.send(end.map(|()| None)).await;
        });
        Ok(Download { file_name, content_type, size, version, pieces: Some(pieces), _task: task })
    }

    /// The file, as a recent status names it, or else a new one.
    async fn artifact(&self, job: &JobRef, options: &DownloadOptions) -> Result<Artifact, DownloadFailure> {
        let deadline = options.deadline.unwrap_or_else(|| Instant::now() + OPEN_TIMEOUT);
        let mut is_over = true;
        for max_age in [Some(STATUS_AGE), None] {
            let (wait, parts, caller) = (Duration::ZERO, Parts::NONE, options.caller);
            let latest = self.get_one(job, GetOptions { max_age, wait, deadline, parts, caller }).await?;
            if let Some(artifact) = latest.snapshot.artifact(&options.artifact_id) {
                return Ok(artifact);
            }
            is_over = latest.snapshot.is_terminal();
        }
        Err(no_such_file(&options.artifact_id, "such file", is_over))
    }
}

/// A job that has not ended may have the file later.
fn no_such_file(artifact_id: &str, what: &str, is_over: bool) -> DownloadFailure {
    let (why, detail) = if is_over {
        (format!("the job has no {what}"), None)
    } else {
        (format!("the job has not ended and has no {what} yet"), Some("not_ended"))
    };
    DownloadFailure::NotFound { artifact_id: artifact_id.to_owned(), why, detail, http_status: None }
}

/// From where on, and of which version.
struct Wanted {
    offset: u64,
    version: Option<FileVersion>,
}

/// A file that can be read, and the slot that it takes.
struct Opened {
    source: Source,
    file_name: String,
    slot: DownloadSlot,
}

impl Downloads {
    /// Waits for a slot, and for a permit to send a request now.
    async fn acquire(&self, caller: Caller) -> Result<(DownloadSlot, Permit), DownloadFailure> {
        let slot = self.slots.acquire(caller, self.timeout).await;
        let slot =
            slot.map_err(|NoSlot { limit, of_caller }| DownloadFailure::TooMany { limit, of_caller })?;
        let retry_in = self.timeout;
        if self.backend.rate_limiter().limit(Instant::now()) == 0 {
            return Err(Failure::Backend { fault: no_part(), retry_in }.into());
        }
        let permit = tokio::time::timeout(self.timeout, self.backend.rate_limiter().acquire()).await;
        let permit = permit.map_err(|_| Failure::Overloaded { retry_in })?;
        let now = Instant::now();
        if let Some(pause) = self.backend.paused(now) {
            let retry_in = pause.until.saturating_duration_since(now);
            return Err(Failure::Backend { fault: pause.fault, retry_in }.into());
        }
        Ok((slot, permit))
    }

    async fn open_file(
        &self,
        job: &JobRef,
        mut artifact: Artifact,
        Wanted { offset, version }: &Wanted,
        caller: Caller,
        report: &Reporter,
    ) -> Result<Opened, DownloadFailure> {
        let refused = |fault: FileFault| report.failure(fault, None);
        let files = self.upstream.files().ok_or_else(|| refused(RefusedLocation::NoFiles.into()))?;
        let is_elsewhere = files.is_elsewhere(&artifact.vendor_uri).map_err(refused)?;
        let (slot, mut permit) = self.acquire(caller).await?;
        if is_elsewhere {
            let for_file = permit.another();
            artifact = self.poll_for(job, &artifact.id, permit, report).await?;
            permit = for_file;
        }
        let began = Instant::now();
        let opened = files.open(&artifact.location(), *offset, version.as_ref(), permit).await;
        let file = opened.map_err(|fault| {
            let until = match &fault {
                FileFault::Backend(fault) if fault.kind == FaultKind::CredentialsRejected => {
                    self.upstream.files().and_then(Files::downloads_paused_until)
                }
                FileFault::Backend(fault) => self.note_throttled(fault, began),
                _ => None,
            };
            report.failure(fault, until)
        })?;
        Ok(Opened { source: Source::File(file), file_name: artifact.file_name, slot })
    }

    /// Polls a job alone for the URL of a file at another origin: what permits the download is
    /// in no status, and may hold for minutes only.
    async fn poll_for(
        &self,
        job: &JobRef,
        artifact_id: &str,
        permit: Permit,
        report: &Reporter,
    ) -> Result<Artifact, DownloadFailure> {
        let (_response, observation) = self.poll_alone(job, permit, report).await?;
        let is_over = observation.state.is_terminal();
        let mut artifacts = observation.artifacts.into_iter();
        let artifact = artifacts.find(|artifact| artifact.id == artifact_id);
        artifact.ok_or_else(|| no_such_file(artifact_id, "such file", is_over))
    }

    async fn poll_alone(
        &self,
        job: &JobRef,
        permit: Permit,
        report: &Reporter,
    ) -> Result<(PollResponse, Observation), DownloadFailure> {
        let began = Instant::now();
        let response = self.upstream.poll(std::slice::from_ref(job), permit).await;
        let response = response.map_err(|fault| {
            let until = self.note_throttled(&fault, began);
            report.failure(fault.into(), until)
        })?;
        let element = response.elements().first().cloned();
        let observation = match element {
            Some(element) => element.and_then(|element| response.observe(job, &element)),
            None => Err(JobFault::Malformed { why: "it has no element for the job" }),
        };
        let observation = observation.map_err(|fault| report.job_failure(fault))?;
        Ok((response, observation))
    }

    /// Polls a job alone and opens its result or its payload, as the response has it.
    async fn open_part(
        &self,
        job: &JobRef,
        Wanted { offset, version }: &Wanted,
        caller: Caller,
        report: &Reporter,
    ) -> Result<Opened, DownloadFailure> {
        let (slot, permit) = self.acquire(caller).await?;
        let (response, observation) = self.poll_alone(job, permit, report).await?;
        let (bytes, content_type) = if report.artifact_id == RESULT {
            let is_over = observation.state.is_terminal();
            let result = observation.result.ok_or_else(|| no_such_file(RESULT, "result", is_over))?;
            (result.data, result.content_type.as_str())
        } else {
            (observation.vendor_payload, "application/json")
        };
        let size = bytes.len() as u64;
        let current = FileVersion::of_bytes(&bytes);
        if version.as_ref().is_some_and(|version| version.differs_from(&current)) {
            return Err(report.failure(FileFault::Changed, None));
        }
        let Some(skip) = usize::try_from(*offset).ok().filter(|_| *offset <= size) else {
            return Err(DownloadFailure::PastEnd { size: Some(size) });
        };
        // A reader may stall: it holds none of the room for responses.
        let rest = Bytes::copy_from_slice(&bytes[skip..]);
        drop(response);
        let charge = self.backend.memory().budget.charge(rest.len() as u64);
        let source = Source::Held { rest, size, content_type, version: current, _charge: charge };
        Ok(Opened { source, file_name: String::new(), slot })
    }

    /// The backend's secret, while the vendor rejects it.
    pub(super) fn rejected_credentials(&self) -> Option<RejectedCredentials> {
        self.upstream.rejected_credentials()
    }

    /// Pauses the backend where it throttles. Returns until when the same fails.
    fn note_throttled(&self, fault: &BackendFault, began: Instant) -> Option<Instant> {
        if fault.kind == FaultKind::CredentialsRejected {
            return self.upstream.login_paused_until();
        }
        let throttles = matches!(fault.kind, FaultKind::Throttled);
        throttles.then(|| self.backend.throttled(fault, began, rand::random()))
    }
}

/// Ends when a download has to, with the reason.
async fn must_end(deadline: Option<Instant>, calls_end: CancellationToken) -> Failure {
    tokio::select! {
        () = at(deadline) => Failure::Deadline(MissedDeadline::Download),
        () = calls_end.cancelled() => Failure::ShuttingDown,
    }
}

/// Says why a download failed, to the log and to the caller.
struct Reporter {
    job: JobRef,
    artifact_id: String,
    retry: Duration,
}

impl Reporter {
    /// The vendor answered, but said nothing of the job that could be downloaded.
    fn job_failure(&self, fault: JobFault) -> DownloadFailure {
        match fault {
            JobFault::NotFound => Failure::NotFound.into(),
            JobFault::Invalid { message } => Failure::refused_id(&message).into(),
            JobFault::Forbidden => self.failure(BackendFault::from(FaultKind::Forbidden).into(), None),
            JobFault::Malformed { why } => {
                self.failure(BackendFault::from(FaultKind::Malformed { why }).into(), None)
            }
            JobFault::Standby(fault) => self.failure(BackendFault::from(fault).into(), None),
        }
    }

    /// `until`: the end of the pause that the failure causes, if it does.
    fn failure(&self, fault: FileFault, until: Option<Instant>) -> DownloadFailure {
        if !matches!(fault, FileFault::PastEnd { .. } | FileFault::Changed) {
            static LINES: Sampled = Sampled::new(10);
            let JobRef { backend, id, .. } = &self.job;
            if let Some(left_out) = LINES.next_line() {
                let artifact_id = &self.artifact_id;
                warn!(%backend, job_id = %id, artifact_id, left_out, error = %fault, "download failed");
            }
        }
        let why = fault.to_string();
        let not_found = |detail, http_status| DownloadFailure::NotFound {
            artifact_id: self.artifact_id.clone(),
            why,
            detail,
            http_status,
        };
        match fault {
            FileFault::Location(refused) | FileFault::RedirectLocation(refused) => {
                not_found(Some(refused.detail()), None)
            }
            FileFault::Origin(refused) => not_found(Some(refused.detail()), refused.http_status()),
            FileFault::Redirected { http_status } => not_found(Some("redirect"), Some(http_status)),
            FileFault::Missing { http_status } => not_found(None, Some(http_status)),
            FileFault::Changed => DownloadFailure::Changed { artifact_id: self.artifact_id.clone() },
            FileFault::PastEnd { size } => DownloadFailure::PastEnd { size },
            FileFault::Backend(fault) => {
                let left = until.map(|until| until.saturating_duration_since(Instant::now()));
                let retry_in = left.or(fault.retry_after).unwrap_or(self.retry);
                Failure::Backend { fault, retry_in }.into()
            }
        }
    }
}
