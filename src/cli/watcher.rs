//! Watches jobs with one `WatchJobs` call, and reconnects:
//!
//! ```text
//! calling ──> open ──> ended            every watch has ended, or an error that is not retried
//!    ^          │
//!    └─ backoff <┘                      UNAVAILABLE, a broken stream, silence
//! ```
//!
//! One task makes the calls. The [`Watcher`] owns the task; dropping it ends the call. A
//! watch that ends alone with an error that may pass is added to the open call again.

use std::{convert::Infallible, error::Error, time::Duration};

use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Code, Status};

use super::{client::proto_duration, connection::Client, fault};
use crate::proto::v1::{
    AddWatch, JobState, RemoveWatch, WatchJobRequest, WatchJobResponse, WatchJobsRequest, WatchJobsResponse,
    watch_job_response, watch_jobs_request::Request, watch_jobs_response::Outcome,
};

/// The heartbeat interval to request.
const HEARTBEAT: Duration = Duration::from_secs(20);
/// A stream without any message for this long is dead.
const MAX_SILENCE: Duration = Duration::from_mins(1);
/// First and longest wait before a reconnect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// What happened.
#[derive(Debug)]
pub(super) enum Update {
    /// The gateway sent a response for one watch.
    Response(usize, Box<WatchJobResponse>),
    /// The connection was lost and will be tried again.
    Disconnected {
        /// Why.
        cause: String,
        /// How long until then.
        retry_in: Duration,
    },
    /// One watch ended with an error that may pass, and will be started again.
    Restarting {
        /// Which one.
        at: usize,
        /// Why.
        cause: String,
        /// How long until then.
        retry_in: Duration,
    },
    /// The gateway sends responses again.
    Reconnected,
    /// One watch has ended.
    Ended(usize, Result<(), Box<Status>>),
}

/// Watches of several jobs.
#[derive(Debug)]
pub(super) struct Watcher {
    updates: mpsc::Receiver<Update>,
    _tasks: JoinSet<()>,
}

impl Watcher {
    /// Starts `watches`. They end with the terminal status, or once a job has one of the
    /// states `until`. They reconnect for at most `patience` after a connection is lost.
    pub(super) fn start(
        client: &Client,
        watches: Vec<WatchJobRequest>,
        until: Vec<JobState>,
        patience: Duration,
    ) -> Self {
        let (sender, updates) = mpsc::channel(64);
        let watch = |mut request: WatchJobRequest| {
            request.heartbeat_interval = Some(proto_duration(HEARTBEAT));
            Watch { request, is_open: true, is_waiting: false, failures: 0, lost_at: None }
        };
        let watches = watches.into_iter().map(watch).collect();
        let session = Session { watches, until, patience, sender, last_message: Instant::now() };
        let mut tasks = JoinSet::new();
        tasks.spawn(session.run(client.clone()));
        Self { updates, _tasks: tasks }
    }

    /// The next update; `None` once all watches have ended.
    pub(super) async fn next(&mut self) -> Option<Update> {
        self.updates.recv().await
    }
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
    last_message: Instant,
}

impl Session {
    async fn run(mut self, mut client: Client) {
        let mut failures = 0;
        let mut is_lost = false;
        while self.watches.iter().any(|watch| watch.is_open) {
            let before = self.tokens();
            let CallEnd::Failed(status) = self.call(&mut client, is_lost).await else { return };
            if self.tokens() != before {
                failures = 0;
            }
            let requested = fault::retry_delay(&status).unwrap_or_default();
            let retry_in = backoff(failures, rand::random()).max(requested);
            if !is_retryable(&status) || self.last_message.elapsed() + retry_in > self.patience {
                return self.fail(&status).await;
            }
            failures += 1;
            is_lost = true;
            if !self.send(Update::Disconnected { cause: cause(&status), retry_in }).await {
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
    async fn call(&mut self, client: &mut Client, is_lost: bool) -> CallEnd {
        match self.call_to_its_end(client, is_lost).await {
            Err(end) => end,
        }
    }

    /// Ends only by a failure or because nothing is left to do.
    async fn call_to_its_end(
        &mut self,
        client: &mut Client,
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
                    self.last_message = Instant::now();
                    let is_event = matches!(message.outcome, Some(Outcome::Event(_)));
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
                let ends = |status: &crate::proto::v1::JobStatus| {
                    (status.terminal, status.terminal || self.until.contains(&status.state()))
                };
                let (is_terminal, is_end) = match &response.event {
                    Some(watch_job_response::Event::Status(status)) => ends(status),
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
                let requested = fault::retry_delay(&status).unwrap_or_default();
                let retry_in = backoff(watch.failures, rand::random()).max(requested);
                let lost_at = *watch.lost_at.get_or_insert(now);
                if is_retryable(&status) && now.duration_since(lost_at) + retry_in <= self.patience {
                    watch.failures += 1;
                    watch.is_waiting = true;
                    if self.watches.iter().all(|watch| !watch.is_open || watch.is_waiting) {
                        // A gateway that shuts down ends every watch: another call reaches another one.
                        return Err(status.into());
                    }
                    restarts.push((now + retry_in, at));
                    Update::Restarting { at, cause: cause(&status), retry_in }
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

fn cause(status: &Status) -> String {
    fault::code(status.code()) + ": " + status.message()
}

/// Whether another call may succeed: the server is unavailable, or the connection
/// broke.
pub(super) fn is_retryable(status: &Status) -> bool {
    status.code() == Code::Unavailable || status.source().is_some()
}

/// Exponential with full jitter; `random` is in 0..1.
pub(super) fn backoff(failures: u32, random: f64) -> Duration {
    let (first, longest) = BACKOFF;
    let most = first.saturating_mul(2_u32.saturating_pow(failures)).min(longest);
    first / 2 + most.mul_f64(random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_to_a_bound_and_is_never_zero() {
        assert_eq!(backoff(0, 0.0), Duration::from_millis(125));
        assert_eq!(backoff(1, 1.0), Duration::from_millis(625));
        for failures in [10, 100, u32::MAX] {
            assert_eq!(backoff(failures, 1.0), Duration::from_millis(10_125));
        }
    }

    #[test]
    fn only_unavailable_and_broken_connections_are_retryable() {
        assert!(is_retryable(&Status::unavailable("shutting down")));
        assert!(!is_retryable(&Status::not_found("no such job")));
        assert!(!is_retryable(&Status::internal("malformed")));
        assert!(is_retryable(&Status::from_error(Box::new(std::io::Error::other("connection reset")))));
    }
}
