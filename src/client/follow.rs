//! Follows jobs with one `WatchJobs` call, and resumes it:
//!
//! ```text
//! calling ──> open ──> ended            every watch has ended, or a final error
//!    ^          │
//!    └─ backoff <┘                      an error after which the contract allows to resume, silence
//! ```
//!
//! One task makes the calls. [`Follow`] owns the task; dropping it ends the call. A
//! watch that ends alone with an error that may pass is added to the open call again.

use std::{convert::Infallible, time::Duration};

use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Code, Status};

use super::{Options, Transport, connection_fault, is_resumable, retry::wait_within};
use crate::proto::v1::{
    AddWatch, JobRef, JobState, JobStatus, RemoveWatch, WatchJobRequest, WatchJobResponse, WatchJobsRequest,
    WatchJobsResponse, job_status_service_client::JobStatusServiceClient, watch_job_response::Event,
    watch_jobs_request::Request, watch_jobs_response::Outcome,
};

/// The heartbeat interval to request.
const HEARTBEAT: Duration = Duration::from_secs(20);
/// A stream without any message for this long is dead.
const MAX_SILENCE: Duration = Duration::from_mins(1);
/// What happened. Numbers are places in the list of jobs.
#[derive(Debug)]
pub enum Update {
    /// The gateway sent an event of one watch: a status, a heartbeat or an interruption. A
    /// terminal status comes once, and nothing older comes after it.
    Response(usize, Box<WatchJobResponse>),
    /// The call failed and is made again.
    Disconnected {
        /// Why.
        cause: Box<Status>,
        /// How long until then.
        retry_in: Duration,
    },
    /// One watch ended with an error that may pass, and is started again.
    Restarting {
        /// Which one.
        at: usize,
        /// Why.
        cause: Box<Status>,
        /// How long until then.
        retry_in: Duration,
    },
    /// The gateway sends responses again.
    Reconnected,
    /// The call failed, and [`Options::patience`] has passed. Every open watch ends next, with the
    /// same error.
    GaveUp {
        /// Why the last call failed.
        cause: Box<Status>,
    },
    /// One watch has ended: after the status that ends it, or with a final error.
    Ended(usize, Result<(), Box<Status>>),
}

/// Follows jobs. Their order gives the numbers of the updates. Each job ends by itself, with its
/// terminal status or an error.
pub fn follow<T: Transport>(
    client: &JobStatusServiceClient<T>,
    jobs: impl IntoIterator<Item = JobRef>,
    options: &Options,
) -> Follow {
    let (sender, updates) = mpsc::channel(64);
    let watch = |job| {
        let request = WatchJobRequest {
            job: Some(job),
            view: options.view.into(),
            poll_interval: options.poll_interval.map(proto_duration),
            heartbeat_interval: Some(proto_duration(HEARTBEAT)),
            state_changes_only: options.state_changes_only,
            ..Default::default()
        };
        Watch { request, is_open: true, is_waiting: false, failures: 0, lost_at: None }
    };
    let session = Session {
        watches: jobs.into_iter().map(watch).collect(),
        until: options.until.clone(),
        patience: options.patience.unwrap_or(Duration::MAX),
        sender,
        lost_at: None,
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(session.run_within(options.timeout, client.clone()));
    Follow { updates, _tasks: tasks }
}

/// The updates of followed jobs. Dropping it ends the watches.
#[derive(Debug)]
pub struct Follow {
    updates: mpsc::Receiver<Update>,
    _tasks: JoinSet<()>,
}

impl Follow {
    /// The next update; `None` once all watches have ended. Cancel safe.
    pub async fn next(&mut self) -> Option<Update> {
        self.updates.recv().await
    }
}

/// A duration in the contract's type.
pub(crate) fn proto_duration(duration: Duration) -> prost_types::Duration {
    // A duration that overflows is longer than any real wait.
    duration.try_into().unwrap_or(prost_types::Duration { seconds: i64::from(i32::MAX), nanos: 0 })
}

/// One watch.
struct Watch {
    request: WatchJobRequest,
    is_open: bool,
    /// Whether it ended alone and waits to be added again.
    is_waiting: bool,
    failures: u32,
    lost_at: Option<Instant>,
}

/// Why a call ended.
enum CallEnd {
    /// Every watch has ended, or nobody reads the updates.
    Done,
    /// The call failed.
    Failed(Status),
}

impl From<Status> for CallEnd {
    fn from(status: Status) -> Self {
        Self::Failed(status)
    }
}

/// The watches through reconnects.
struct Session {
    watches: Vec<Watch>,
    until: Vec<JobState>,
    patience: Duration,
    sender: mpsc::Sender<Update>,
    /// When the first call failed since the last event.
    lost_at: Option<Instant>,
}

impl Session {
    async fn run_within<T: Transport>(mut self, limit: Option<Duration>, client: JobStatusServiceClient<T>) {
        let Some(limit) = limit else { return self.run(client).await };
        if timeout(limit, self.run(client)).await.is_err() {
            let text = format!("the job has not ended within {limit:?}");
            self.fail(&Status::deadline_exceeded(text)).await;
        }
    }

    async fn run<T: Transport>(&mut self, mut client: JobStatusServiceClient<T>) {
        let mut failures = 0;
        let mut is_lost = false;
        while self.watches.iter().any(|watch| watch.is_open) {
            let before = self.tokens();
            let CallEnd::Failed(status) = self.call(&mut client, is_lost).await else { return };
            if self.tokens() != before {
                failures = 0;
            }
            if !is_resumable(&status) {
                return self.fail(&status).await;
            }
            let now = Instant::now();
            let lost_for = now.duration_since(*self.lost_at.get_or_insert(now));
            let left = self.patience.saturating_sub(lost_for);
            let Some(retry_in) = wait_within(left, &status, failures) else {
                let last = match connection_fault(&status) {
                    Some(fault) => Status::unavailable(format!("the gateway was lost: {fault}")),
                    None => status.clone(),
                };
                self.send(Update::GaveUp { cause: Box::new(status) }).await;
                return self.fail(&last).await;
            };
            failures += 1;
            is_lost = true;
            if !self.send(Update::Disconnected { cause: Box::new(status), retry_in }).await {
                return;
            }
            sleep(retry_in).await;
        }
    }

    fn tokens(&self) -> Vec<String> {
        self.watches.iter().map(|watch| watch.request.resume_token.clone()).collect()
    }

    /// Waits for room in the channel, and returns whether the receiver still exists.
    async fn send(&self, update: Update) -> bool {
        self.sender.send(update).await.is_ok()
    }

    /// Ends every open watch with this error.
    async fn fail(&self, status: &Status) {
        for at in 0..self.watches.len() {
            if self.watches[at].is_open {
                self.send(Update::Ended(at, Err(Box::new(status.clone())))).await;
            }
        }
    }

    /// Makes one call for all open watches. `is_lost`: the one before was lost.
    async fn call<T: Transport>(&mut self, client: &mut JobStatusServiceClient<T>, is_lost: bool) -> CallEnd {
        match self.call_to_its_end(client, is_lost).await {
            Err(end) => end,
        }
    }

    /// Ends only by a failure or because nothing is left to do.
    async fn call_to_its_end<T: Transport>(
        &mut self,
        client: &mut JobStatusServiceClient<T>,
        mut is_lost: bool,
    ) -> Result<Infallible, CallEnd> {
        let silence = |_| Status::unavailable("the gateway sent nothing for a minute");
        let mut adds = Vec::new();
        for (at, watch) in self.watches.iter_mut().enumerate().filter(|(_, watch)| watch.is_open) {
            watch.is_waiting = false;
            adds.push(add(at, &watch.request));
        }
        let (requests, later) = mpsc::channel(self.watches.len().max(1) * 2);
        let requested = tokio_stream::iter(adds).chain(ReceiverStream::new(later));
        let response = timeout(MAX_SILENCE, client.watch_jobs(requested)).await.map_err(silence)?;
        let mut stream = response?.into_inner();
        let mut restarts: Vec<(Instant, usize)> = Vec::new();
        loop {
            let next = restarts.iter().map(|(due, _)| *due).min();
            let due = async {
                match next {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                message = timeout(MAX_SILENCE, stream.message()) => {
                    let Some(message) = message.map_err(silence)?? else {
                        return Err(Status::unavailable("the stream ended before the job did").into());
                    };
                    let is_event = matches!(message.outcome, Some(Outcome::Event(_)));
                    if is_event {
                        self.lost_at = None;
                    }
                    if is_event && std::mem::take(&mut is_lost) && !self.send(Update::Reconnected).await {
                        return Err(CallEnd::Done);
                    }
                    self.handle(message, &requests, &mut restarts).await?;
                }
                () = due => {
                    let now = Instant::now();
                    for (_, at) in restarts.extract_if(.., |(due, _)| *due <= now) {
                        self.watches[at].is_waiting = false;
                        // A full queue means that the gateway reads nothing; silence ends that.
                        let _ = requests.try_send(add(at, &self.watches[at].request));
                    }
                }
            }
        }
    }

    async fn handle(
        &mut self,
        message: WatchJobsResponse,
        requests: &mpsc::Sender<WatchJobsRequest>,
        restarts: &mut Vec<(Instant, usize)>,
    ) -> Result<(), CallEnd> {
        let at = usize::try_from(message.watch_id).unwrap_or(usize::MAX);
        let Some(watch) = self.watches.get_mut(at).filter(|watch| watch.is_open) else { return Ok(()) };
        let update = match message.outcome {
            // The removal of a watch that has just ended.
            None | Some(Outcome::Rejected(_)) => return Ok(()),
            Some(Outcome::Event(response)) => {
                (watch.failures, watch.lost_at) = (0, None);
                if !response.resume_token.is_empty() {
                    watch.request.resume_token.clone_from(&response.resume_token);
                }
                let ends = |status: &JobStatus| {
                    (status.terminal, status.terminal || self.until.contains(&status.state()))
                };
                let (is_terminal, is_end) = match &response.event {
                    Some(Event::Status(status)) => ends(status),
                    _ => (false, false),
                };
                watch.is_open = !is_end;
                if is_end && !is_terminal {
                    // The gateway would go on; later responses are ignored in any case.
                    let remove = Request::Remove(RemoveWatch { watch_id: message.watch_id });
                    let _ = requests.try_send(WatchJobsRequest { request: Some(remove) });
                }
                if !self.send(Update::Response(at, Box::new(response))).await {
                    return Err(CallEnd::Done);
                }
                if !is_end {
                    return Ok(());
                }
                Update::Ended(at, Ok(()))
            }
            Some(Outcome::End(end)) => {
                let status = match Status::from(&end) {
                    status if status.code() == Code::Ok => {
                        Status::unavailable("the watch ended before the job did")
                    }
                    status => status,
                };
                let now = Instant::now();
                let lost_for = now.duration_since(*watch.lost_at.get_or_insert(now));
                let left = self.patience.saturating_sub(lost_for);
                let retry_in = wait_within(left, &status, watch.failures);
                if let Some(retry_in) = retry_in.filter(|_| is_resumable(&status)) {
                    watch.failures += 1;
                    watch.is_waiting = true;
                    if self.watches.iter().all(|watch| !watch.is_open || watch.is_waiting) {
                        // A gateway that shuts down ends every watch: another call reaches another one.
                        return Err(status.into());
                    }
                    restarts.push((now + retry_in, at));
                    Update::Restarting { at, cause: Box::new(status), retry_in }
                } else {
                    watch.is_open = false;
                    Update::Ended(at, Err(Box::new(status)))
                }
            }
        };
        let is_read = self.send(update).await;
        let goes_on = is_read && self.watches.iter().any(|watch| watch.is_open);
        if goes_on { Ok(()) } else { Err(CallEnd::Done) }
    }
}

fn add(at: usize, watch: &WatchJobRequest) -> WatchJobsRequest {
    let add = AddWatch { watch_id: at as u64, watch: Some(watch.clone()) };
    WatchJobsRequest { request: Some(Request::Add(add)) }
}
