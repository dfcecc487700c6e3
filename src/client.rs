//! Waits for jobs and follows them, through restarts of the gateway and lost connections.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use jobwatch::{client, proto::v1::job_status_service_client::JobStatusServiceClient};
//!
//! let gateway = JobStatusServiceClient::connect("http://127.0.0.1:50051").await?;
//! let status = client::wait(&gateway, client::job("immuta-prod", "42"), &client::Options::default()).await?;
//! println!("{:?} {:?}", status.state(), status.error);
//! # Ok(())
//! # }
//! ```
//!
//! [`wait`] returns the terminal status of one job. [`follow`] reports every event of any number of
//! jobs over one `WatchJobs` call. Both resume with the last token after the codes after which the
//! contract allows it, see [`is_resumable`], and honour `RetryInfo`. The state of a job that failed
//! is a status, with the vendor's words in its `error`; an `Err` is the gateway's.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body::Body as HttpBody;
use tonic::{Code, Status, body::Body, client::GrpcService};

mod cause;
mod follow;
mod retry;

pub use cause::connection_fault;
pub(crate) use follow::proto_duration;
pub use follow::{Follow, Update, follow};
pub use retry::{backoff, is_resumable, retry_delay};

use crate::proto::v1::{
    JobRef, JobState, JobStatus, JobStatusView, job_status_service_client::JobStatusServiceClient,
    watch_job_response::Event,
};

/// What a `JobStatusServiceClient` sends its calls with: a channel, also behind interceptors or
/// layers.
pub trait Transport:
    GrpcService<
        Body,
        Future: Send,
        Error: Into<Box<dyn Error + Send + Sync>>,
        ResponseBody: HttpBody<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>> + Send>
                          + Send
                          + 'static,
    > + Clone
    + Send
    + 'static
{
}

impl<T> Transport for T where
    T: GrpcService<
            Body,
            Future: Send,
            Error: Into<Box<dyn Error + Send + Sync>>,
            ResponseBody: HttpBody<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>> + Send>
                              + Send
                              + 'static,
        > + Clone
        + Send
        + 'static
{
}

/// How to wait or follow.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How much of each status to return.
    pub view: JobStatusView,
    /// Longest poll interval that is acceptable, within the backend's bounds.
    pub poll_interval: Option<Duration>,
    /// Report only changes of the state.
    pub state_changes_only: bool,
    /// States that end a watch besides the terminal ones.
    pub until: Vec<JobState>,
    /// Longest time in all. What has not ended then fails with `DEADLINE_EXCEEDED`.
    pub timeout: Option<Duration>,
    /// How long to try again after the gateway is lost, counted from the loss. Unset: until `timeout`.
    pub patience: Option<Duration>,
    /// What [`wait`] calls with each problem that does not end it.
    pub on_problem: Option<OnProblem>,
}

/// Receives why nothing newer is known at present: the gateway can't be reached, or can't poll the
/// vendor. So a wait for a wrong address is not silent.
///
/// ```
/// use jobwatch::client::{OnProblem, Options};
///
/// let on_problem = OnProblem::new(|problem| eprintln!("still waiting: {problem}"));
/// let options = Options { on_problem: Some(on_problem), ..Options::default() };
/// ```
#[derive(Clone)]
pub struct OnProblem(Arc<dyn Fn(&Status) + Send + Sync>);

impl OnProblem {
    /// Calls a function. It runs within the wait and must not block.
    pub fn new(call: impl Fn(&Status) + Send + Sync + 'static) -> Self {
        Self(Arc::new(call))
    }
}

impl fmt::Debug for OnProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnProblem")
    }
}

/// Names a job.
pub fn job(backend: impl Into<String>, job_id: impl Into<String>) -> JobRef {
    JobRef { backend: backend.into(), job_id: job_id.into(), job_tag: String::new() }
}

/// Why [`wait`] has no terminal status.
#[derive(Clone, Debug)]
pub struct WaitError {
    /// The final error: of the gateway with all its details, or `DEADLINE_EXCEEDED` if
    /// [`Options::timeout`] has passed.
    pub status: Status,
    /// The newest status, if any was received.
    pub last: Option<JobStatus>,
    /// Why nothing newer was known at the end: the vendor could not be polled, or the gateway
    /// could not be reached.
    pub problem: Option<Status>,
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, last: _, problem } = self;
        write!(f, "{:?}: {}", status.code(), status.message())?;
        match problem {
            Some(problem) => write!(f, "; before that: {:?}: {}", problem.code(), problem.message()),
            None => Ok(()),
        }
    }
}

impl Error for WaitError {}

/// Returns the terminal status of a job, or the first status with a state of
/// [`Options::until`].
///
/// # Errors
/// A final error of the gateway. That includes what keeps it from polling the vendor, unless it
/// may pass by itself: rejected credentials end the wait, an outage of the vendor does not.
pub async fn wait<T: Transport>(
    client: &JobStatusServiceClient<T>,
    job: JobRef,
    options: &Options,
) -> Result<JobStatus, WaitError> {
    let options = Options { state_changes_only: true, ..options.clone() };
    let mut updates = follow(client, [job], &options);
    let (mut last, mut problem) = (None, None);
    let report = |problem: Status| {
        if let Some(OnProblem(call)) = &options.on_problem {
            call(&problem);
        }
        Some(problem)
    };
    while let Some(update) = updates.next().await {
        match update {
            Update::Response(_, response) => match response.event {
                Some(Event::Status(status)) => (last, problem) = (Some(status), None),
                Some(Event::Interruption(interruption)) => {
                    let cause = Status::from(&interruption.cause.unwrap_or_default());
                    if !is_resumable(&cause) {
                        return Err(WaitError { status: cause, last, problem: None });
                    }
                    problem = report(cause);
                }
                Some(Event::Heartbeat(_)) => problem = None,
                None => {}
            },
            Update::Disconnected { cause, .. } | Update::Restarting { cause, .. } => problem = report(*cause),
            Update::Reconnected | Update::GaveUp { .. } => {}
            Update::Ended(_, Ok(())) => {
                if let Some(status) = last.take() {
                    return Ok(status);
                }
            }
            Update::Ended(_, Err(status)) => {
                // The problem is the error itself if patience has ended.
                let problem = problem.filter(|_| status.code() == Code::DeadlineExceeded);
                return Err(WaitError { status: *status, last, problem });
            }
        }
    }
    let status = Status::internal("the watch ended without a status");
    Err(WaitError { status, last, problem })
}
