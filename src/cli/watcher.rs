//! Watches jobs with `WatchJob`, and reconnects:
//!
//! ```text
//! calling ──> open ──> ended            terminal status, or an error that is not retried
//!    ^          │
//!    └─ backoff <┘                      UNAVAILABLE, a broken stream, silence
//! ```
//!
//! Each job has one task. The [`Watcher`] owns the tasks; dropping it ends them.

use std::{error::Error, time::Duration};

use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tonic::{Code, Status};

use super::{
    client::{Client, proto_duration},
    fault,
};
use crate::proto::v1::{WatchJobRequest, WatchJobResponse, watch_job_response};

/// The heartbeat interval to request.
const HEARTBEAT: Duration = Duration::from_secs(20);
/// A stream without any message for this long is dead.
const MAX_SILENCE: Duration = Duration::from_mins(1);
/// First and longest wait before a reconnect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// What happened to one of the watches.
#[derive(Debug)]
pub(super) enum Update {
    /// The gateway sent a response.
    Response(Box<WatchJobResponse>),
    /// The connection was lost and will be tried again.
    Disconnected {
        /// Why.
        cause: String,
        /// How long until then.
        retry_in: Duration,
    },
    /// The watch has ended.
    Ended(Result<(), Box<Status>>),
}

/// Watches of several jobs.
#[derive(Debug)]
pub(super) struct Watcher {
    updates: mpsc::Receiver<(usize, Update)>,
    _tasks: JoinSet<()>,
}

impl Watcher {
    /// Starts `watches`. Each reconnects for at most `patience` after a connection
    /// is lost.
    pub(super) fn start(client: &Client, watches: Vec<WatchJobRequest>, patience: Duration) -> Self {
        let (sender, updates) = mpsc::channel(64);
        let mut tasks = JoinSet::new();
        for (at, mut watch) in watches.into_iter().enumerate() {
            watch.heartbeat_interval = Some(proto_duration(HEARTBEAT));
            let (client, sender) = (client.clone(), UpdateSender { at, sender: sender.clone() });
            tasks.spawn(async move {
                let end = run(client, watch, patience, &sender).await;
                sender.send(Update::Ended(end.map_err(Box::new))).await;
            });
        }
        Self { updates, _tasks: tasks }
    }

    /// The next update with the index of its watch; `None` once all have ended.
    pub(super) async fn next(&mut self) -> Option<(usize, Update)> {
        self.updates.recv().await
    }
}

/// Sends the updates of one watch.
struct UpdateSender {
    at: usize,
    sender: mpsc::Sender<(usize, Update)>,
}

impl UpdateSender {
    /// Waits for room in the channel, and returns whether the receiver still exists.
    async fn send(&self, update: Update) -> bool {
        self.sender.send((self.at, update)).await.is_ok()
    }
}

/// Watches one job through reconnects, to its end.
async fn run(
    mut client: Client,
    mut watch: WatchJobRequest,
    patience: Duration,
    sender: &UpdateSender,
) -> Result<(), Status> {
    let mut failures = 0;
    let mut last_message = Instant::now();
    loop {
        let token_before = watch.resume_token.clone();
        let status = match call(&mut client, &mut watch, &mut last_message, sender).await {
            Ok(()) => return Ok(()),
            Err(status) => status,
        };
        if watch.resume_token != token_before {
            failures = 0;
        }
        let retry_in = backoff(failures, rand::random()).max(fault::retry_delay(&status).unwrap_or_default());
        if !is_retryable(&status) || last_message.elapsed() + retry_in > patience {
            return Err(status);
        }
        failures += 1;
        if !sender
            .send(Update::Disconnected {
                cause: fault::code(status.code()) + ": " + status.message(),
                retry_in,
            })
            .await
        {
            return Ok(());
        }
        sleep(retry_in).await;
    }
}

/// Makes one call. Returns `Ok` after the terminal status or when the receiver is gone.
async fn call(
    client: &mut Client,
    watch: &mut WatchJobRequest,
    last_message: &mut Instant,
    sender: &UpdateSender,
) -> Result<(), Status> {
    let silence = |_| Status::unavailable("the gateway sent nothing for a minute");
    let response = timeout(MAX_SILENCE, client.watch_job(watch.clone()));
    let mut stream = response.await.map_err(silence)??.into_inner();
    loop {
        let Some(response) = timeout(MAX_SILENCE, stream.message()).await.map_err(silence)?? else {
            return Err(Status::unavailable("the stream ended before the job did"));
        };
        *last_message = Instant::now();
        if !response.resume_token.is_empty() {
            watch.resume_token.clone_from(&response.resume_token);
        }
        let terminal =
            matches!(&response.event, Some(watch_job_response::Event::Status(status)) if status.terminal);
        if !sender.send(Update::Response(Box::new(response))).await || terminal {
            return Ok(());
        }
    }
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
