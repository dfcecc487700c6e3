//! Upstream polls: one job at a time beside a bare reqwest call, polls on
//! one core, and many calls that share a request.

use std::{ops::Range, sync::Arc, time::Duration};

use jobwatch::proto::v1::{GetJobStatusRequest, JobState};
use tokio::time::Instant;

use super::{Bench, ratios};
use crate::{
    Outcome, caller, floor,
    gateway::{IMMUTA, KINETICA, Poll, job},
    http2::framed,
    load::{Calls, Load, Meter, Series},
    message::{number, part},
    report::{Goal, Row},
    vendor::Vendor,
    watching::{self, Shares, Until},
};

/// Requests that the vendor is sent at once, where it has no batch call.
const SINGLE: usize = 64;

/// Longest time until each job was polled twice.
const WARM_UP: Duration = Duration::from_mins(1);

/// Gets these jobs in turn, without `max_age`.
fn fresh(backend: &'static str, jobs: Range<usize>) -> Arc<Calls> {
    let request = |number| GetJobStatusRequest { job: Some(job(backend, number)), ..Default::default() };
    Arc::new(Calls {
        method: "GetJobStatus",
        requests: jobs.map(|number| framed(&request(number))).collect(),
        is_response: Box::new(move |number_of_job, message| {
            let status = part(message, &[1]).unwrap_or_default();
            part(status, &[1, 2]) == Some(job(backend, number_of_job).job_id.as_bytes())
                && number(status, 2) == JobState::Running as u64
        }),
    })
}

/// The names of the rows of a vendor without a batch call, and its own.
fn names(backend: &str) -> (&'static str, &'static str, &'static str) {
    match backend {
        KINETICA => ("fresh-single-kinetica", "polls-kinetica", "Kinetica"),
        _ => ("fresh-single", "polls", "Claret"),
    }
}

pub(super) async fn single(bench: &Bench, backend: &'static str) -> Outcome<Row> {
    const JOBS: usize = 10_000;
    let vendor = Vendor::start(bench.cores).await?;
    let poll = Poll { interval: Duration::from_secs(1), batch: 200, concurrency: SINGLE };
    let gateway = bench.gateway(&vendor, poll).await?;
    let mut caller = caller::start(backend, vendor.address(), SINGLE, JOBS, bench.cores)?;
    let mut load = Load::open(gateway.address, 8, SINGLE / 8, &fresh(backend, 0..JOBS)).await?;
    load.run(bench.slice() / 2).await?;
    if backend == KINETICA {
        // The first poll of each job opens a connection.
        let all_twice = Instant::now() + WARM_UP;
        while vendor.received().await?.requests < 2 * JOBS as u64 && Instant::now() < all_twice {
            load.run(bench.slice()).await?;
        }
    }
    caller.command("500").await?;

    let plain = floor::start_calling(backend, vendor.address(), bench.cores).await?;
    let mut plain_load = Load::open(plain.address, 8, SINGLE / 8, &fresh(backend, 0..JOBS)).await?;
    plain_load.run(bench.slice() / 2).await?;

    let (mut bare, mut gateway_series) = (Series::default(), Series::default());
    let mut plain_series = Series::default();
    let mut upstream = Vec::new();
    for _ in 0..bench.pick(10, 4) {
        let meter = Meter::start(&caller, Some(&vendor))?;
        let completed = caller.command(&bench.slice().as_millis().to_string()).await?.parse()?;
        bare.add(completed, meter.stop(&caller, Some(&vendor))?);

        let meter = Meter::start(&plain, Some(&vendor))?;
        let completed = plain_load.run(bench.slice()).await?;
        plain_series.add(completed, meter.stop(&plain, Some(&vendor))?);

        let before = vendor.received().await?;
        let meter = Meter::start(&*gateway, Some(&vendor))?;
        let completed = load.run(bench.slice()).await?;
        gateway_series.add(completed, meter.stop(&*gateway, Some(&vendor))?);
        upstream.push(per(vendor.received().await?.requests - before.requests, completed));
    }
    let (name, _, vendor) = names(backend);
    let mut row =
        Row::new(name, format!("GetJobStatus polled upstream, vendor without a batch call: {vendor}"));
    let goal = if backend == KINETICA { 1.8 } else { 1.6 };
    let by_floor = ratios(&gateway_series.cpu, &bare.cpu);
    row.goal("CPU a call, by a bare reqwest call's", "", &by_floor, Goal::AtMost(goal));
    row.note("by a tonic server that calls reqwest", "", &ratios(&gateway_series.cpu, &plain_series.cpu));
    row.note("requests upstream a call", "", &upstream);
    plain_series.note(&mut row, "tonic and reqwest", "a call");
    bare.note(&mut row, "bare reqwest", "a call");
    gateway_series.note(&mut row, "gateway", "a call");
    Ok(row)
}

pub(super) async fn polls(bench: &Bench, backend: &'static str) -> Outcome<Row> {
    const JOBS: usize = 20_000;
    let vendor = Vendor::start(bench.cores).await?;
    // Far more polls are due than possible, so the core is never idle.
    let poll = Poll { interval: Duration::from_millis(100), batch: 200, concurrency: SINGLE };
    let gateway = bench.gateway(&vendor, poll).await?;
    let mut watches = watching::Calls::open(gateway.address, backend, Shares::even(JOBS, 1)).await?;
    watches.listen(Until::Seen).await?;
    if backend == KINETICA {
        let all_twice = Instant::now() + WARM_UP;
        while vendor.received().await?.requests < 2 * JOBS as u64 && Instant::now() < all_twice {
            watches.listen(Until::Time(Instant::now() + bench.slice())).await?;
        }
    }
    let mut series = Series::default();
    for _ in 0..bench.pick(8, 4) {
        let before = vendor.received().await?;
        let meter = Meter::start(&*gateway, Some(&vendor))?;
        watches.listen(Until::Time(Instant::now() + bench.slice())).await?;
        let cost = meter.stop(&*gateway, Some(&vendor))?;
        series.add(vendor.received().await?.requests - before.requests, cost);
    }
    let (_, name, vendor) = names(backend);
    let title = format!("{JOBS} watches of jobs at a vendor without a batch call: {vendor}");
    let mut row = Row::new(name, title);
    row.goal("polls a second on one core", "", &series.rate, Goal::AtLeast(25_000.0));
    let per_cpu: Vec<f64> = series.cpu.iter().map(|cpu| 1e6 / cpu).collect();
    row.note("polls a second of CPU", "", &per_cpu);
    series.note(&mut row, "gateway", "a poll");
    Ok(row)
}

pub(super) async fn batch(bench: &Bench) -> Outcome<Row> {
    const JOBS: usize = 100_000;
    const IN_FLIGHT: usize = 1000;
    let vendor = Vendor::start(bench.cores).await?;
    let poll = Poll { interval: Duration::from_secs(1), batch: 1000, concurrency: 8 };
    let gateway = bench.gateway(&vendor, poll).await?;
    let mut load = Load::open(gateway.address, 4, IN_FLIGHT / 4, &fresh(IMMUTA, 0..JOBS)).await?;
    load.run(bench.slice() / 2).await?;
    let (mut series, mut shared) = (Series::default(), Vec::new());
    for _ in 0..bench.pick(8, 4) {
        let before = vendor.received().await?;
        let meter = Meter::start(&*gateway, Some(&vendor))?;
        let completed = load.run(bench.slice()).await?;
        series.add(completed, meter.stop(&*gateway, Some(&vendor))?);
        shared.push(per(completed, vendor.received().await?.requests - before.requests));
    }
    let title =
        format!("GetJobStatus polled upstream, vendor with a batch call, {IN_FLIGHT} calls in flight");
    let mut row = Row::new("fresh-batch", title);
    row.goal("calls served by one request upstream", "", &shared, Goal::AtLeast(200.0));
    row.goal("calls a second", "", &series.rate, Goal::AtLeast(60_000.0));
    series.note(&mut row, "gateway", "a call");
    Ok(row)
}

#[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
fn per(these: u64, all: u64) -> f64 {
    these as f64 / all as f64
}
