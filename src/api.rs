//! `jobwatch.v1` on the wire: validates requests, calls the engine, converts what it
//! returns.

use std::{fmt, pin::Pin, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::time::Instant;
use tokio_stream::Stream;
use tonic::{Extensions, Request, Response, Status, Streaming};

use crate::{
    access::{Grant, Right},
    cluster::Replica,
    engine::{
        Caller, CallerLimits, Failure, GetOptions, JobStatuses, LatestStatus, MissedDeadline, WatchOptions,
    },
    job::{JobRef, View},
    proto::{
        served::{self, job_status_result::Outcome, job_status_service_server::JobStatusService},
        v1 as pb,
    },
    telemetry::metrics::metrics,
};

mod batch;
mod connection_end;
mod convert;
mod download;
pub mod http;
mod inspect;
mod limits;
mod operations;
mod request;
mod retry;
mod silence;
mod status;
mod watch;

use connection_end::Expiry;
pub use connection_end::{ConnectionEnd, of_expired_connection, of_shutdown};
pub use limits::{LONGEST_REQUEST, is_unary, request_limits};
use request::{InvalidField, Refusal};
pub use silence::SilenceLimit;
pub use status::{
    complete, of_bad_host, of_changed_access, of_cut_off_head, of_deadline, of_encoded_body, of_endless_body,
    of_foreign_host, of_foreign_origin, of_full_connection, of_long_head, of_long_request, of_longer_request,
    of_plain_text, of_rate_exceeded, of_refused, of_silence, of_slow_request, of_unreadable_body,
    of_unreadable_head,
};

/// Heartbeat interval of a watch that sets none.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// Shortest heartbeat interval of a watch.
const SHORTEST_HEARTBEAT: Duration = Duration::from_millis(10);

/// Largest response of a batch: gRPC clients refuse larger messages by default.
const MESSAGE_BYTES: usize = 4 << 20;

/// Implements `jobwatch.v1.JobStatusService`.
pub struct Service<E> {
    engine: Arc<E>,
    bounds: Arc<ArcSwap<Bounds>>,
    replica: Option<Arc<Replica>>,
}

/// What every call has to keep to.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most jobs in a batch.
    pub batch_size: usize,
    /// How long a call without a deadline may take, beside what it waits.
    pub default_deadline: Duration,
    /// Largest encoded size of a batch's response.
    pub message_bytes: usize,
}

/// Clones share the bounds.
impl<E> Clone for Service<E> {
    fn clone(&self) -> Self {
        let Self { engine, bounds, replica } = self;
        Self { engine: Arc::clone(engine), bounds: Arc::clone(bounds), replica: replica.clone() }
    }
}

impl<E> fmt::Debug for Service<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

impl<E: JobStatuses> Service<E> {
    /// A service over `engine`. A batch has at most `batch_size` jobs. A call without a
    /// deadline must be answered after `default_deadline`, beside what it waits.
    pub fn new(engine: Arc<E>, batch_size: usize, default_deadline: Duration) -> Self {
        let bounds = Bounds { batch_size, default_deadline, message_bytes: MESSAGE_BYTES };
        Self { engine, bounds: Arc::new(ArcSwap::from_pointee(bounds)), replica: None }
    }

    /// This replica among others, whose roles are listed with the backends.
    #[must_use]
    pub fn with_replica(self, replica: Option<Arc<Replica>>) -> Self {
        Self { replica, ..self }
    }

    /// Sets the largest encoded size of a batch's response; 4 MiB by default.
    #[must_use]
    pub fn with_message_bytes(self, message_bytes: usize) -> Self {
        self.set_bounds(Bounds { message_bytes, ..self.bounds() });
        self
    }

    /// Sets the bounds of new calls, of this service and its clones.
    pub fn set_bounds(&self, bounds: Bounds) {
        self.bounds.store(Arc::new(bounds));
    }

    fn bounds(&self) -> Bounds {
        **self.bounds.load()
    }

    /// The job that a request names. Whether there is such a backend is looked up after it is
    /// known that the caller may use it.
    fn job(
        &self,
        job: Option<pb::JobRef>,
        field: &str,
        (grant, right): (&Grant, Right),
    ) -> Result<JobRef, Refusal> {
        let job = job.ok_or_else(|| InvalidField::new(field, "is required"))?;
        let name = job.backend.as_str();
        if name.is_empty() {
            let field = format!("{field}.backend");
            return Err(InvalidField::new(field, "is required; write the key of a configured backend").into());
        }
        limits::check_lengths(&job, field)?;
        if !grant.allows(right, name) {
            return Err(Refusal::NotAllowed(request::job(job, None)));
        }
        let backend = self.engine.backend_name(name);
        Ok(request::job(job, backend))
    }

    /// The latest status of a job; `field` is the path of the job in the request. Holds the
    /// call for `wait` until the job is terminal.
    async fn latest(
        &self,
        call: Call,
        (job, field): (&JobRef, &str),
        view: View,
        max_age: Option<Duration>,
        wait: Duration,
    ) -> Result<LatestStatus, Status> {
        let Call { arrived, grant, deadline, mut expiry } = call;
        let left = deadline.map(|deadline| deadline.saturating_duration_since(arrived));
        let options = GetOptions {
            max_age,
            // The status at the end of the wait has to reach the caller before its deadline.
            wait: left.map_or(wait, |left| wait.min(left.saturating_sub(margin(left)))),
            deadline: deadline.unwrap_or_else(|| arrived + self.bounds().default_deadline + wait),
            parts: view.parts(),
            caller: caller(&grant),
        };
        let outcome = expiry.unless_expired(self.engine.get(job, options)).await.flatten();
        let outcome = outcome.map_err(|failure| of_deadline_owner(failure, deadline));
        let latest = outcome.map_err(|failure| self.failed(&failure, job, field, &grant))?;
        metrics().status_returned(latest.at.elapsed());
        Ok(latest)
    }

    /// Validates the request of a watch; `at` is the path of the request.
    fn watch_request(
        &self,
        request: pb::WatchJobRequest,
        (deadline, limit): (Option<Instant>, Option<SilenceLimit>),
        at: &str,
        grant: &Grant,
    ) -> Result<(JobRef, WatchOptions), Refusal> {
        let pb::WatchJobRequest {
            job,
            view,
            resume_token,
            poll_interval,
            heartbeat_interval,
            state_changes_only,
        } = request;
        let job = self.job(job, &format!("{at}job"), (grant, Right::Read))?;
        let of_watch = |invalid: InvalidField| invalid.below(at);
        let view = request::view(view).map_err(of_watch)?;
        let interval = request::positive_duration(poll_interval, "poll_interval").map_err(of_watch)?;
        let heartbeat =
            request::positive_duration(heartbeat_interval, "heartbeat_interval").map_err(of_watch)?;
        let heartbeat = silence::within(limit, "heartbeat_interval", heartbeat).map_err(of_watch)?;
        let options = WatchOptions {
            view: View { progress: !state_changes_only, ..view },
            resume_token,
            interval,
            heartbeat: heartbeat.unwrap_or(HEARTBEAT).max(SHORTEST_HEARTBEAT),
            deadline,
        };
        Ok((job, options))
    }
}

/// What a call brings beside its request.
struct Call {
    arrived: Instant,
    grant: Grant,
    deadline: Option<Instant>,
    expiry: Expiry,
}

impl Call {
    fn of<T>(request: &Request<T>) -> Self {
        Self {
            arrived: Instant::now(),
            grant: grant(request),
            deadline: deadline(request.extensions()),
            expiry: Expiry::of(request.extensions()),
        }
    }
}

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl<E: JobStatuses> JobStatusService for Service<E> {
    type WatchJobStream = Events<served::WatchJobResponse>;
    type WatchJobsStream = Events<served::WatchJobsResponse>;
    type DownloadArtifactStream = Events<pb::DownloadArtifactResponse>;

    async fn get_job_status(
        &self,
        request: Request<pb::GetJobStatusRequest>,
    ) -> Result<Response<served::GetJobStatusResponse>, Status> {
        let (call, limit) = (Call::of(&request), SilenceLimit::of(request.extensions()));
        let pb::GetJobStatusRequest { job, view, max_age, wait } = request.into_inner();
        let job = self.job(job, "job", (&call.grant, Right::Read))?;
        let view = request::view(view)?;
        let wait = silence::within(limit, "wait", request::duration(wait, "wait")?)?.unwrap_or_default();
        let max_age = request::duration(max_age, "max_age")?;
        let latest = self.latest(call, (&job, "job"), view, max_age, wait).await?;
        Ok(limits::compressed_if_large(served::GetJobStatusResponse {
            status: Some(convert::status(job, latest, view)),
        }))
    }

    async fn batch_get_statuses(
        &self,
        request: Request<pb::BatchGetStatusesRequest>,
    ) -> Result<Response<served::BatchGetStatusesResponse>, Status> {
        let arrived = Instant::now();
        let (grant, deadline) = (grant(&request), deadline(request.extensions()));
        let mut expiry = Expiry::of(request.extensions());
        let limit = SilenceLimit::of(request.extensions());
        let pb::BatchGetStatusesRequest { jobs, view, max_age, wait } = request.into_inner();
        let Bounds { batch_size, default_deadline, message_bytes } = self.bounds();
        if jobs.is_empty() || jobs.len() > batch_size {
            let reason = format!("holds {} jobs; name 1 to {batch_size}", jobs.len());
            return Err(InvalidField::new("jobs", &reason).into());
        }
        let view = request::view(view)?;
        let wait = silence::within(limit, "wait", request::duration(wait, "wait")?)?.unwrap_or_default();
        let options = GetOptions {
            max_age: request::duration(max_age, "max_age")?,
            wait,
            deadline: match deadline {
                // The response has to reach the caller before its deadline.
                Some(deadline) => deadline - margin(deadline.saturating_duration_since(arrived)),
                None => arrived + default_deadline + wait,
            },
            parts: view.parts(),
            caller: caller(&grant),
        };
        let refs: Vec<Result<JobRef, Status>> = jobs
            .iter()
            .enumerate()
            .map(|(index, job)| {
                Ok(self.job(Some(job.clone()), &format!("jobs[{index}]"), (&grant, Right::Read))?)
            })
            .collect();
        let valid: Vec<JobRef> = refs.iter().filter_map(|job| job.as_ref().ok().cloned()).collect();
        let outcomes = expiry.unless_expired(self.engine.batch_get(&valid, options)).await;
        let mut outcomes = outcomes.map_err(|failure| status::of_call(&failure))?.into_iter();
        let results = jobs.into_iter().zip(refs).enumerate().map(|(index, (requested, job))| {
            let outcome = job.and_then(|job| match outcomes.next() {
                Some(Ok(latest)) => Ok(convert::status(job, latest, view)),
                Some(Err(failure)) => {
                    let failure = of_deadline_owner(failure, deadline);
                    Err(self.failed(&failure, &job, &format!("jobs[{index}]"), &grant))
                }
                None => Err(Status::internal("a job has no outcome")),
            });
            let outcome = match outcome {
                Ok(status) => Outcome::Status(status),
                Err(error) => Outcome::Error(status::to_proto(&error)),
            };
            served::JobStatusResult { job: Some(requested), outcome: Some(outcome) }
        });
        let response = batch::response(results.collect(), message_bytes);
        Ok(limits::compressed_if_large(response.map_err(|failure| status::of_call(&failure))?))
    }

    async fn watch_job(
        &self,
        request: Request<pb::WatchJobRequest>,
    ) -> Result<Response<Self::WatchJobStream>, Status> {
        let (grant, deadline) = (grant(&request), deadline(request.extensions()));
        let expiry = Expiry::of(request.extensions());
        let limit = SilenceLimit::of(request.extensions());
        let is_over = request.extensions().get::<http::Ended>().is_some();
        let (job, options) = self.watch_request(request.into_inner(), (deadline, limit), "", &grant)?;
        if is_over {
            return self.ended_watch(&job, &options, &grant).map(limits::not_compressed);
        }
        let watch = self.engine.watch(&job, caller(&grant), &options);
        let watch = watch.map_err(|failure| self.failed(&failure, &job, "job", &grant))?;
        Ok(limits::not_compressed(watch::events(watch, job, expiry, self.clone(), grant)))
    }

    async fn watch_jobs(
        &self,
        request: Request<Streaming<pb::WatchJobsRequest>>,
    ) -> Result<Response<Self::WatchJobsStream>, Status> {
        let grant = grant(&request);
        let watches = self.engine.watch_set(caller(&grant), deadline(request.extensions()));
        let expiry = Expiry::of(request.extensions());
        let limit = SilenceLimit::of(request.extensions());
        let requests = (request.into_inner(), limit);
        let events = watch::call_events(self.clone(), watches, grant, expiry, requests);
        Ok(limits::not_compressed(events))
    }

    async fn download_artifact(
        &self,
        request: Request<pb::DownloadArtifactRequest>,
    ) -> Result<Response<Self::DownloadArtifactStream>, Status> {
        self.download(request).await
    }

    async fn list_backends(
        &self,
        request: Request<pb::ListBackendsRequest>,
    ) -> Result<Response<pb::ListBackendsResponse>, Status> {
        let grant = grant(&request);
        Ok(Response::new(self.backends(&grant)))
    }

    async fn list_jobs(
        &self,
        request: Request<pb::ListJobsRequest>,
    ) -> Result<Response<pb::ListJobsResponse>, Status> {
        let grant = grant(&request);
        self.jobs(request.into_inner(), &grant).map(Response::new)
    }
}

/// Stores the caller's deadline, from the `grpc-timeout` header. It counts from the
/// arrival of the headers, as tonic's own timer does, and ends a little earlier than
/// that: tonic would end the call with CANCELLED and without details.
pub fn note_deadline<B>(request: &mut ::http::Request<B>) {
    let timeout = request.headers().get("grpc-timeout").and_then(|timeout| timeout.to_str().ok());
    if let Some(timeout) = timeout.and_then(request::grpc_timeout)
        && let Some(deadline) = Instant::now().checked_add(timeout.saturating_sub(ahead_of_tonic(timeout)))
    {
        request.extensions_mut().insert(Deadline(deadline));
    }
}

/// Tonic's timer starts a little earlier; how much depends on the load of the machine.
/// Both count whole milliseconds.
fn ahead_of_tonic(timeout: Duration) -> Duration {
    (timeout / 10).clamp(Duration::from_millis(2), Duration::from_millis(20))
}

#[derive(Clone, Copy)]
struct Deadline(Instant);

/// The caller's deadline, as [`note_deadline`] has stored it.
pub fn deadline(extensions: &Extensions) -> Option<Instant> {
    extensions.get().map(|Deadline(deadline)| *deadline)
}

/// The failure of a call with the caller's `deadline`. A call without one has missed the
/// server's.
fn of_deadline_owner(failure: Failure, deadline: Option<Instant>) -> Failure {
    match failure {
        Failure::Deadline(_) if deadline.is_none() => Failure::Deadline(MissedDeadline::DefaultAnswer),
        failure => failure,
    }
}

/// How long before its deadline a call returns the known statuses.
fn margin(left: Duration) -> Duration {
    (left / 10).min(Duration::from_millis(250))
}

/// Who calls and what it may do, as the server has found out before.
fn grant<T>(request: &Request<T>) -> Grant {
    request
        .extensions()
        .get()
        .cloned()
        .unwrap_or_else(|| Grant::unrestricted(request.remote_addr().map(|address| address.ip())))
}

/// The same as far as the engine needs to know. Callers that are not told apart by their
/// names are by their addresses.
fn caller(grant: &Grant) -> Caller {
    let limits = CallerLimits { watches: grant.watches(), downloads: grant.downloads() };
    let caller = match (grant.address(), grant.principal()) {
        (None, Some(name)) => Caller::from_name(name),
        (address, _) => Caller::from_address(address),
    };
    caller.with_limits(limits)
}
