//! Follows jobs over `WatchJob`, through lost connections:
//!
//! ```text
//! calling ──> open ──> ended            after the terminal status, or for a reason of the job
//!    ^          │
//!    └── lost <─┘                       UNAVAILABLE, a broken stream, silence
//! ```
//!
//! Each job has one task; the [`Following`] owns all of them, and dropping it
//! ends them.

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

/// How often an idle server says that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(20);
/// Silence that is longer than this means that nobody is there.
const SILENCE: Duration = Duration::from_mins(1);
/// First and longest wait before calling again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// What happened to one of the jobs that are followed.
#[derive(Debug)]
pub(super) enum News {
    /// The gateway says something.
    Said(Box<WatchJobResponse>),
    /// The connection is lost, and there will be another try.
    Lost {
        /// Why.
        cause: String,
        /// When it is tried again.
        retry_in: Duration,
    },
    /// Nothing more comes.
    Over(Result<(), Box<Status>>),
}

/// Jobs that are being followed.
#[derive(Debug)]
pub(super) struct Following {
    news: mpsc::Receiver<(usize, News)>,
    _tasks: JoinSet<()>,
}

impl Following {
    /// Begins to follow each of `watches`, calling again for at most `patience`
    /// after a connection is lost.
    pub(super) fn begin(client: &Client, watches: Vec<WatchJobRequest>, patience: Duration) -> Self {
        let (sender, news) = mpsc::channel(64);
        let mut tasks = JoinSet::new();
        for (at, mut watch) in watches.into_iter().enumerate() {
            watch.heartbeat_interval = Some(proto_duration(HEARTBEAT));
            let (client, teller) = (client.clone(), Teller { at, sender: sender.clone() });
            tasks.spawn(async move {
                let end = follow(client, watch, patience, &teller).await;
                teller.tell(News::Over(end.map_err(Box::new))).await;
            });
        }
        Self { news, _tasks: tasks }
    }

    /// The next news and the place of its job among the watches; `None` once all
    /// are over.
    pub(super) async fn next(&mut self) -> Option<(usize, News)> {
        self.news.recv().await
    }
}

/// Where one job's task brings its news.
struct Teller {
    at: usize,
    sender: mpsc::Sender<(usize, News)>,
}

impl Teller {
    /// Waits until there is room. Whether anyone listens.
    async fn tell(&self, news: News) -> bool {
        self.sender.send((self.at, news)).await.is_ok()
    }
}

async fn follow(
    mut client: Client,
    mut watch: WatchJobRequest,
    patience: Duration,
    teller: &Teller,
) -> Result<(), Status> {
    let mut failures = 0;
    let mut last_heard = Instant::now();
    loop {
        let token_before = watch.resume_token.clone();
        let status = match listen(&mut client, &mut watch, &mut last_heard, teller).await {
            Ok(()) => return Ok(()),
            Err(status) => status,
        };
        if watch.resume_token != token_before {
            failures = 0;
        }
        let retry_in = delay(failures, rand::random()).max(fault::retry_delay(&status).unwrap_or_default());
        if !is_lost(&status) || last_heard.elapsed() + retry_in > patience {
            return Err(status);
        }
        failures += 1;
        if !teller
            .tell(News::Lost { cause: fault::code(status.code()) + ": " + status.message(), retry_in })
            .await
        {
            return Ok(());
        }
        sleep(retry_in).await;
    }
}

/// One call, to its end. `Ok` once there is nothing more to hear, or nobody to
/// tell it to.
async fn listen(
    client: &mut Client,
    watch: &mut WatchJobRequest,
    last_heard: &mut Instant,
    teller: &Teller,
) -> Result<(), Status> {
    let silence = |_| Status::unavailable("nothing was heard for a minute");
    let call = timeout(SILENCE, client.watch_job(watch.clone()));
    let mut stream = call.await.map_err(silence)??.into_inner();
    loop {
        let Some(response) = timeout(SILENCE, stream.message()).await.map_err(silence)?? else {
            return Err(Status::unavailable("the stream ended before the job did"));
        };
        *last_heard = Instant::now();
        if !response.resume_token.is_empty() {
            watch.resume_token.clone_from(&response.resume_token);
        }
        let terminal =
            matches!(&response.event, Some(watch_job_response::Event::Status(status)) if status.terminal);
        if !teller.tell(News::Said(Box::new(response))).await || terminal {
            return Ok(());
        }
    }
}

/// Whether another call may go better: the server said so, or it wasn't the
/// server that ended this one.
pub(super) fn is_lost(status: &Status) -> bool {
    status.code() == Code::Unavailable || status.source().is_some()
}

/// Exponential with full jitter; `random` is in 0..1.
pub(super) fn delay(failures: u32, random: f64) -> Duration {
    let (first, longest) = BACKOFF;
    let most = first.saturating_mul(2_u32.saturating_pow(failures)).min(longest);
    first / 2 + most.mul_f64(random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_back_off_grows_to_a_bound_and_is_never_zero() {
        assert_eq!(delay(0, 0.0), Duration::from_millis(125));
        assert_eq!(delay(1, 1.0), Duration::from_millis(625));
        for failures in [10, 100, u32::MAX] {
            assert_eq!(delay(failures, 1.0), Duration::from_millis(10_125));
        }
    }

    #[test]
    fn only_what_may_go_better_is_tried_again() {
        assert!(is_lost(&Status::unavailable("shutting down")));
        assert!(!is_lost(&Status::not_found("no such job")));
        assert!(!is_lost(&Status::internal("malformed")));
        assert!(is_lost(&Status::from_error(Box::new(std::io::Error::other("connection reset")))));
    }
}
