//! Upstream requests do not grow with the number of clients.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use jobwatch::proto::v1::BatchGetStatusesRequest;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::Bench;
use crate::{
    Outcome,
    gateway::{Gateway, IMMUTA, Poll, job},
    http2::{Connection, StreamEvent, framed},
    message::{Field, fields, part},
    report::{Goal, Row},
    vendor::{Received, Vendor},
    watching::{Calls, Shares, Until},
};

const JOBS: usize = 10_000;
const BATCH: usize = 200;

/// Jobs in one call of the polling clients.
const ASKED_AT_ONCE: usize = 1000;
const CONNECTIONS: usize = 10;

/// One client watches all jobs; of many, each watches its share, and each job has ten
/// watches.
const CLIENTS: [Shares; 3] = [
    Shares { jobs: JOBS, clients: 1, of_each_job: 1 },
    Shares { jobs: JOBS, clients: 100, of_each_job: 10 },
    Shares { jobs: JOBS, clients: 10_000, of_each_job: 10 },
];

/// Clients that watch.
pub(super) async fn watching(bench: &Bench) -> Outcome<Row> {
    let mut row = Row::new("economy-watching", format!("Upstream economy: {JOBS} jobs, clients that watch"));
    for shares in CLIENTS {
        let scene = Scene::set(bench).await?;
        let mut calls = Calls::open(scene.gateway.address, IMMUTA, shares).await?;
        calls.listen(Until::Seen).await?;
        // From between two polls to between two others.
        calls.listen(Until::Time(Instant::now() + scene.interval * 3 / 2)).await?;
        let before = scene.vendor.received().await?;
        calls.listen(Until::Time(Instant::now() + scene.time())).await?;
        scene.note(&mut row, shares.clients, before).await?;
        drop(calls);
        scene.after(&mut row, shares.clients).await?;
    }
    Ok(row)
}

/// Clients that poll the gateway once an interval, with that `max_age`.
pub(super) async fn polling_clients(bench: &Bench) -> Outcome<Row> {
    let title = format!("Upstream economy: {JOBS} jobs, clients that poll with max_age");
    let mut row = Row::new("economy-asking", title);
    for shares in CLIENTS {
        let scene = Scene::set(bench).await?;
        let begin = Instant::now();
        let until = begin + scene.interval * 2 + scene.time();
        let mut lanes = JoinSet::new();
        for calls in schedule(shares, scene.interval) {
            let connection = Connection::open(scene.gateway.address, "BatchGetStatuses").await?;
            lanes.spawn(run_calls(connection, calls, scene.interval, begin, until));
        }
        sleep(scene.interval * 2).await;
        let before = scene.vendor.received().await?;
        sleep(scene.time()).await;
        scene.note(&mut row, shares.clients, before).await?;
        while let Some(lane) = lanes.join_next().await {
            lane??;
        }
        scene.after(&mut row, shares.clients).await?;
    }
    Ok(row)
}

struct Scene {
    vendor: Vendor,
    gateway: Gateway,
    interval: Duration,
    intervals: u32,
}

impl Scene {
    async fn set(bench: &Bench) -> Outcome<Self> {
        let interval = Duration::from_secs(bench.pick(4, 1));
        let vendor = Vendor::start(bench.cores).await?;
        let gateway = bench.gateway(&vendor, Poll { interval, batch: BATCH, concurrency: 8 }).await?;
        Ok(Self { vendor, gateway, interval, intervals: 4 })
    }

    fn time(&self) -> Duration {
        self.interval * self.intervals
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
    async fn note(&self, row: &mut Row, clients: usize, before: Received) -> Outcome {
        let now = self.vendor.received().await?;
        let intervals = f64::from(self.intervals);
        let requests = (now.requests - before.requests) as f64 / intervals;
        let fewest = JOBS.div_ceil(BATCH) as f64;
        // An interval counts from a response, so there are slightly fewer requests; a
        // request at the edge may be counted or not.
        let goal = Goal::AtMost((fewest * 1.02).ceil());
        row.goal(format!("{}: requests an interval", count(clients)), "", &[requests], goal);
        let polls = (now.jobs - before.jobs) as f64 / JOBS as f64 / intervals;
        row.note(format!("{}: polls of a job an interval", count(clients)), "", &[polls]);
        Ok(())
    }

    /// When all clients have left.
    #[expect(clippy::cast_precision_loss, reason = "a small count")]
    async fn after(&self, row: &mut Row, clients: usize) -> Outcome {
        sleep(self.interval).await;
        let before = self.vendor.received().await?.requests;
        sleep(self.interval * 2).await;
        let after = (self.vendor.received().await?.requests - before) as f64;
        row.goal(
            format!("{}: requests once all have left", count(clients)),
            "",
            &[after],
            Goal::Exactly(0.0),
        );
        Ok(())
    }
}

fn count(clients: usize) -> String {
    if clients == 1 { "1 client".to_owned() } else { format!("{clients} clients") }
}

/// A call, and when in each interval it is made.
type Call = (Duration, Bytes);

/// The calls of each connection. Clients do not know of each other: they call at
/// different times.
fn schedule(shares: Shares, interval: Duration) -> Vec<Vec<Call>> {
    let mut lanes = vec![Vec::new(); CONNECTIONS];
    let mut calls = 0;
    for client in 0..u32::try_from(shares.clients).unwrap_or(u32::MAX) {
        // Even over the interval, and neighbours far apart: the fraction of the golden
        // ratio's multiples.
        let at = interval.mul_f64((f64::from(client) * 0.618_034).fract());
        let jobs: Vec<usize> = shares.of(client as usize).collect();
        for jobs in jobs.chunks(ASKED_AT_ONCE) {
            let request = BatchGetStatusesRequest {
                jobs: jobs.iter().map(|number| job(IMMUTA, *number)).collect(),
                max_age: Some(prost_types::Duration::try_from(interval).unwrap_or_default()),
                ..BatchGetStatusesRequest::default()
            };
            lanes[calls % CONNECTIONS].push((at, framed(&request)));
            calls += 1;
        }
    }
    lanes
}

async fn run_calls(
    mut connection: Connection,
    calls: Vec<Call>,
    interval: Duration,
    begin: Instant,
    until: Instant,
) -> Outcome {
    let mut due: VecDeque<(Instant, &Bytes)> = calls.iter().map(|(at, call)| (begin + *at, call)).collect();
    let (mut open, mut wrong) = (0_usize, false);
    while Instant::now() < until || open > 0 {
        while let Some((at, call)) = due.pop_front() {
            if at > Instant::now() || at >= until {
                due.push_front((at, call));
                break;
            }
            connection.call(call);
            open += 1;
            due.push_back((at + interval, call));
        }
        let turn = connection.turn(|_, event| match event {
            StreamEvent::Message(message) => wrong |= !is_whole(message),
            StreamEvent::End => open = open.saturating_sub(1),
        });
        let next = due.front().map_or(until, |(at, _)| *at);
        if next < until {
            if let Ok(turn) = timeout_at(next, turn).await {
                turn?;
            }
        } else if let Ok(turn) = timeout(Duration::from_millis(100), turn).await {
            turn?;
        }
        if wrong {
            return Err("a batch response has missing elements".into());
        }
    }
    Ok(())
}

/// Whether each job has a status.
fn is_whole(message: &[u8]) -> bool {
    let mut results = fields(message).peekable();
    results.peek().is_some()
        && results.all(|(_, result)| matches!(result, Field::Bytes(result) if part(result, &[2]).is_some()))
}
