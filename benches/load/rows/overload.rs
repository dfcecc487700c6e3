//! More watched jobs than the vendor's rate allows to poll often, and the calls of
//! another caller.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use jobwatch::proto::v1::{GetJobStatusRequest, job_status_service_client::JobStatusServiceClient};
use tokio::{task::JoinSet, time::Instant};
use tonic::{Code, Request, transport::Endpoint};

use super::Bench;
use crate::{
    Outcome,
    gateway::{CLARET, Poll, Setup, job},
    report::{Goal, Row},
    vendor::{Record, Vendor},
    watching::{Calls, Shares, Until, Watching},
};

const JOBS: usize = 1000;
const RATE: u32 = 20;

/// Between two Gets of the other caller, each for a job that nobody watches.
const EVERY: Duration = Duration::from_secs(1);

/// How long the other caller waits.
const DEADLINE: Duration = Duration::from_secs(30);

#[expect(clippy::cast_precision_loss, reason = "counts of a few minutes")]
pub(super) async fn row(bench: &Bench) -> Outcome<Row> {
    let time = bench.pick(Duration::from_mins(5), Duration::from_secs(90));
    let vendor = Vendor::start(bench.cores).await?;
    let poll = Poll { interval: Duration::from_secs(1), batch: 1, concurrency: 8 };
    let gateway = bench.gateway(&vendor, Setup { requests_per_second: RATE, ..poll.into() }).await?;
    vendor.record().await?;
    let began = Instant::now();
    let watching = Watching { tolerant: true, ..Watching::default() };
    let mut watches = Calls::open_as(gateway.address, CLARET, Shares::even(JOBS, 1), &watching).await?;
    watches.listen(Until::Seen).await?;
    let opened = began.elapsed().as_secs_f64();

    let before = vendor.recorded().await?;
    let until = Instant::now() + time;
    let gets = tokio::spawn(get_until(gateway.address, until));
    watches.listen(Until::Time(until)).await?;
    let record = vendor.recorded().await?;
    let tally = watches.tally();
    // The watches stay open while the last Gets wait.
    let gets = gets.await??;
    drop(watches);

    let title = format!("Overload: {JOBS} watched jobs at {RATE} requests a second, {} s", time.as_secs());
    let mut row = Row::new("overload", title);
    let succeeded = gets.latencies.len() as f64;
    let share = 100.0 * succeeded / gets.sent as f64;
    row.goal("another caller's Gets that succeed", "%", &[share], Goal::Exactly(100.0));
    row.note("Gets sent", "", &[gets.sent as f64]);
    row.note("Gets that fail with DEADLINE_EXCEEDED", "", &[gets.late as f64]);
    row.note("Gets that fail with RESOURCE_EXHAUSTED", "", &[gets.refused as f64]);
    if let Some(last) = gets.latencies.len().checked_sub(1) {
        let at = |percent: usize| gets.latencies[last * percent / 100];
        row.note("latency of a Get, p50", "ms", &[at(50)]);
        row.goal("latency of a Get, p99", "ms", &[at(99)], Goal::AtMost(1500.0));
    }
    let spread = Spread::of(&record, before.now);
    if let Some(Spread { least, median, most }) = spread {
        row.note("poll interval of a job: minimum", "s", &[least]);
        row.note("poll interval of a job: median", "s", &[median]);
        row.note("poll interval of a job: maximum", "s", &[most]);
        row.goal("poll interval: maximum by median", "", &[most / median], Goal::AtMost(1.5));
    }
    let rest = tail(&record, before.now);
    let rate = 1e6 * rest.len() as f64 / (record.now - before.now) as f64;
    row.goal("requests a second", "", &[rate], Goal::AtLeast(0.95 * f64::from(RATE)));
    let most = most_in_a_second(&record) as f64;
    // By arrival: on a busy machine requests that were sent apart arrive together.
    row.note("most requests that arrive in any second", "", &[most]);
    row.note("time until each watch has its first status", "s", &[opened]);
    row.note("interruptions of watches", "", &[tally.interruptions as f64]);
    Ok(row)
}

/// What the other caller got.
#[derive(Debug, Default)]
struct Gets {
    sent: usize,
    /// Milliseconds of each successful Get, sorted.
    latencies: Vec<f64>,
    /// Gets that failed with DEADLINE_EXCEEDED and with RESOURCE_EXHAUSTED.
    late: usize,
    refused: usize,
}

/// Sends a Get each [`EVERY`] from an address of its own.
async fn get_until(gateway: SocketAddr, until: Instant) -> Outcome<Gets> {
    let endpoint = Endpoint::from_shared(format!("http://{gateway}"))?;
    let other = Ipv4Addr::new(127, 0, 0, 2).into();
    let client = JobStatusServiceClient::new(endpoint.local_address(Some(other)).connect().await?);
    let mut clock = tokio::time::interval(EVERY);
    let (mut gets, mut open) = (Gets::default(), JoinSet::new());
    while Instant::now() < until {
        clock.tick().await;
        let number = 10 * JOBS + gets.sent;
        let mut request = Request::new(GetJobStatusRequest {
            job: Some(job(CLARET, number)),
            ..GetJobStatusRequest::default()
        });
        request.set_timeout(DEADLINE);
        let mut client = client.clone();
        open.spawn(async move {
            let began = Instant::now();
            let outcome = client.get_job_status(request).await;
            (began.elapsed(), outcome.map(drop))
        });
        gets.sent += 1;
    }
    while let Some(get) = open.join_next().await {
        match get? {
            (took, Ok(())) => gets.latencies.push(1e3 * took.as_secs_f64()),
            // Tonic's own client reports CANCELLED if its timer fires first.
            (_, Err(error)) if matches!(error.code(), Code::DeadlineExceeded | Code::Cancelled) => {
                gets.late += 1;
            }
            (_, Err(error)) if error.code() == Code::ResourceExhausted => gets.refused += 1,
            (_, Err(error)) => return Err(error.into()),
        }
    }
    gets.latencies.sort_by(f64::total_cmp);
    Ok(gets)
}

/// The poll intervals of the watched jobs, in seconds.
#[derive(Clone, Copy, Debug)]
struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    /// Of the intervals that end after `from`. One that is still open at the end counts
    /// for the maximum only. `None` where no job was polled twice.
    fn of(record: &Record, from: u64) -> Option<Self> {
        let mut previous = BTreeMap::new();
        let mut closed = Vec::new();
        for (at, id) in watched(record) {
            if let Some(before) = previous.insert(id, at)
                && at >= from
            {
                closed.push(seconds(at - before));
            }
        }
        closed.sort_by(f64::total_cmp);
        let open = previous.values().map(|at| seconds(record.now - at));
        let most = closed.last().copied().into_iter().chain(open).fold(0.0, f64::max);
        let (least, median) = (*closed.first()?, *closed.get(closed.len() / 2)?);
        Some(Self { least, median, most })
    }
}

fn watched(record: &Record) -> impl Iterator<Item = (u64, u64)> {
    record.polls.iter().copied().filter(|(_, id)| *id <= JOBS as u64)
}

/// The polls after `from`.
fn tail(record: &Record, from: u64) -> &[(u64, u64)] {
    &record.polls[record.polls.partition_point(|(at, _)| *at < from)..]
}

/// Most polls that arrived within any one second.
fn most_in_a_second(record: &Record) -> usize {
    let mut within = VecDeque::new();
    record.polls.iter().fold(0, |most, (at, _)| {
        while within.front().is_some_and(|first| at - first >= 1_000_000) {
            within.pop_front();
        }
        within.push_back(*at);
        most.max(within.len())
    })
}

fn seconds(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64()
}
