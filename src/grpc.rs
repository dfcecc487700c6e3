//! The contract on the wire: validates a request, asks the hub, converts.

use std::{fmt, pin::Pin, sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_stream::Stream;
use tonic::{Extensions, Request, Response, Status, Streaming};

use crate::{
    hub::{Ask, Caller, Hub, WatchOptions},
    job::{JobRef, Lens},
    proto::{
        served::{self, job_status_result::Outcome, job_status_service_server::JobStatusService},
        v1 as pb,
    },
};

mod convert;
mod download;
mod request;
mod status;
mod watch;

use request::Invalid;

/// Longest silence of a watch where the caller names none.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// Shortest heartbeat that a caller gets, however short it asks.
const SHORTEST_HEARTBEAT: Duration = Duration::from_millis(10);

/// Answers `jobwatch.v1.JobStatusService`.
#[derive(Clone)]
pub struct Service {
    hub: Arc<Hub>,
    batch_size: usize,
    batch_deadline: Duration,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("hub", &self.hub).finish_non_exhaustive()
    }
}

impl Service {
    /// A service over `hub`, with at most `batch_size` jobs in a batch, which has
    /// `batch_deadline` to be answered where the caller set no deadline.
    pub fn new(hub: Arc<Hub>, batch_size: usize, batch_deadline: Duration) -> Self {
        Self { hub, batch_size, batch_deadline }
    }

    fn job(&self, job: Option<pb::JobRef>, field: &str) -> Result<JobRef, Invalid> {
        let job = job.ok_or_else(|| Invalid::new(field, "is required"))?;
        let name = job.backend.as_str();
        if name.is_empty() {
            let field = format!("{field}.backend");
            return Err(Invalid::new(field, "is required; write the key of a configured backend"));
        }
        let backend = self.hub.backend_name(name);
        Ok(request::job(job, backend))
    }

    /// Reads what a watch asks for; `at` is the path of the request.
    fn watch_request(
        &self,
        request: pb::WatchJobRequest,
        deadline: Option<Instant>,
        at: &str,
    ) -> Result<(JobRef, WatchOptions), Invalid> {
        let pb::WatchJobRequest {
            job,
            view,
            resume_token,
            poll_interval,
            heartbeat_interval,
            state_changes_only,
        } = request;
        let job = self.job(job, &format!("{at}job"))?;
        let of_watch = |invalid: Invalid| invalid.below(at);
        let lens = request::lens(view).map_err(of_watch)?;
        let interval = request::positive_duration(poll_interval, "poll_interval").map_err(of_watch)?;
        let heartbeat =
            request::positive_duration(heartbeat_interval, "heartbeat_interval").map_err(of_watch)?;
        let options = WatchOptions {
            lens: Lens { progress: !state_changes_only, ..lens },
            resume_token,
            interval,
            heartbeat: heartbeat.unwrap_or(HEARTBEAT).max(SHORTEST_HEARTBEAT),
            deadline,
        };
        Ok((job, options))
    }
}

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl JobStatusService for Service {
    type WatchJobStream = Events<served::WatchJobResponse>;
    type WatchJobsStream = Events<served::WatchJobsResponse>;
    type DownloadArtifactStream = Events<pb::DownloadArtifactResponse>;

    async fn get_job_status(
        &self,
        request: Request<pb::GetJobStatusRequest>,
    ) -> Result<Response<served::GetJobStatusResponse>, Status> {
        let deadline = deadline(request.extensions());
        let pb::GetJobStatusRequest { job, view, max_age, wait } = request.into_inner();
        let job = self.job(job, "job")?;
        let lens = request::lens(view)?;
        let wait = request::duration(wait, "wait")?.unwrap_or_default();
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let ask = Ask {
            max_age: request::duration(max_age, "max_age")?,
            // What is known when the caller stops waiting has to reach it before.
            wait: left.map_or(wait, |left| wait.min(left.saturating_sub(margin(left)))),
            deadline,
        };
        let answer = self.hub.get(std::slice::from_ref(&job), ask).await.remove(0);
        let latest = answer.map_err(|failure| status::of_failure(&failure, &job, "job"))?;
        Ok(Response::new(served::GetJobStatusResponse { status: Some(convert::status(job, latest, lens)) }))
    }

    async fn batch_get_statuses(
        &self,
        request: Request<pb::BatchGetStatusesRequest>,
    ) -> Result<Response<served::BatchGetStatusesResponse>, Status> {
        let arrived = Instant::now();
        let deadline = deadline(request.extensions());
        let pb::BatchGetStatusesRequest { jobs, view, max_age, wait } = request.into_inner();
        if jobs.is_empty() || jobs.len() > self.batch_size {
            let reason = format!("holds {} jobs; ask for 1 to {}", jobs.len(), self.batch_size);
            return Err(Invalid::new("jobs", &reason).into());
        }
        let lens = request::lens(view)?;
        let wait = request::duration(wait, "wait")?.unwrap_or_default();
        let ask = Ask {
            max_age: request::duration(max_age, "max_age")?,
            wait,
            deadline: match deadline {
                // What is known by then has to reach the caller before the deadline.
                Some(deadline) => Some(deadline - margin(deadline.saturating_duration_since(arrived))),
                None => arrived.checked_add(self.batch_deadline.saturating_add(wait)),
            },
        };
        let refs: Vec<Result<JobRef, Status>> = jobs
            .iter()
            .enumerate()
            .map(|(index, job)| Ok(self.job(Some(job.clone()), &format!("jobs[{index}]"))?))
            .collect();
        let good: Vec<JobRef> = refs.iter().filter_map(|job| job.as_ref().ok().cloned()).collect();
        let mut answers = self.hub.get(&good, ask).await.into_iter();
        let results = jobs.into_iter().zip(refs).enumerate().map(|(index, (asked, job))| {
            let outcome = job.and_then(|job| match answers.next() {
                Some(Ok(latest)) => Ok(convert::status(job, latest, lens)),
                Some(Err(failure)) => Err(status::of_failure(&failure, &job, &format!("jobs[{index}]"))),
                None => Err(Status::internal("a job was not answered")),
            });
            let outcome = match outcome {
                Ok(status) => Outcome::Status(status),
                Err(error) => Outcome::Error(status::to_proto(&error)),
            };
            served::JobStatusResult { job: Some(asked), outcome: Some(outcome) }
        });
        Ok(Response::new(served::BatchGetStatusesResponse { results: results.collect() }))
    }

    async fn watch_job(
        &self,
        request: Request<pb::WatchJobRequest>,
    ) -> Result<Response<Self::WatchJobStream>, Status> {
        let caller = caller(&request);
        let deadline = deadline(request.extensions());
        let (job, options) = self.watch_request(request.into_inner(), deadline, "")?;
        let watch = self.hub.watch(&job, caller, &options);
        let watch = watch.map_err(|failure| status::of_failure(&failure, &job, "job"))?;
        Ok(Response::new(watch::events(watch, job)))
    }

    async fn watch_jobs(
        &self,
        request: Request<Streaming<pb::WatchJobsRequest>>,
    ) -> Result<Response<Self::WatchJobsStream>, Status> {
        let watches = self.hub.watches(caller(&request), deadline(request.extensions()));
        Ok(Response::new(watch::call_events(self.clone(), watches, request.into_inner())))
    }

    async fn download_artifact(
        &self,
        request: Request<pb::DownloadArtifactRequest>,
    ) -> Result<Response<Self::DownloadArtifactStream>, Status> {
        self.download(request).await
    }

    async fn list_backends(
        &self,
        _request: Request<pb::ListBackendsRequest>,
    ) -> Result<Response<pb::ListBackendsResponse>, Status> {
        let backends = self.hub.report().into_iter().map(convert::backend).collect();
        Ok(Response::new(pb::ListBackendsResponse { backends }))
    }
}

/// Notes when the caller gives up, from the `grpc-timeout` header. Counted from the
/// arrival of the headers, since tonic's own timer is, and less what it takes to be
/// ahead of that: it would end the call with CANCELLED and without details.
pub fn note_deadline<B>(request: &mut http::Request<B>) {
    let timeout = request.headers().get("grpc-timeout").and_then(|timeout| timeout.to_str().ok());
    if let Some(timeout) = timeout.and_then(request::grpc_timeout)
        && let Some(deadline) = Instant::now().checked_add(timeout.saturating_sub(ahead_of_tonic(timeout)))
    {
        request.extensions_mut().insert(Deadline(deadline));
    }
}

/// Tonic's timer began a little earlier, how much so depends on how busy the machine is,
/// and both count whole milliseconds.
fn ahead_of_tonic(timeout: Duration) -> Duration {
    (timeout / 10).clamp(Duration::from_millis(2), Duration::from_millis(20))
}

#[derive(Clone, Copy)]
struct Deadline(Instant);

/// When the caller gives up, as [`note_deadline`] has noted.
fn deadline(extensions: &Extensions) -> Option<Instant> {
    extensions.get().map(|Deadline(deadline)| *deadline)
}

/// How long before its deadline a batch is answered with what is known.
fn margin(left: Duration) -> Duration {
    (left / 10).min(Duration::from_millis(250))
}

/// Where the call comes from.
fn caller<T>(request: &Request<T>) -> Caller {
    request.remote_addr().map(|address| address.ip())
}
