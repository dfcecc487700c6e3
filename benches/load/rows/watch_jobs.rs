//! WatchJobs: very many watches over a few calls, and callers that misbehave.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Bench;
use crate::{
    Outcome,
    gateway::{IMMUTA, Poll},
    load::{Meter, Series},
    report::{Goal, Row},
    vendor::{Mode, Vendor},
    watching::{Calls, Shares, Until},
};

const CALLS: usize = 10;

/// Many watches: the cost of each, and the rate of notifications.
#[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
pub(super) async fn many(bench: &Bench, name: &'static str, jobs: usize) -> Outcome<Row> {
    let vendor = Vendor::start(bench.cores).await?;
    // More is due than the goal requires, so the core is never idle.
    let interval = Duration::from_micros(jobs as u64);
    let poll = Poll { interval, batch: 1000, concurrency: 8 };
    let gateway = bench.gateway(&vendor, poll).await?;
    let idle = gateway.memory()?;

    let began = Instant::now();
    let mut calls = Calls::open(gateway.address, IMMUTA, Shares::even(jobs, CALLS)).await?;
    calls.listen(Until::Seen).await?;
    let opened = began.elapsed().as_secs_f64();
    calls.listen(Until::Time(Instant::now() + interval * 2)).await?;
    let memory = gateway.memory()?.saturating_sub(idle) as f64 / jobs as f64;

    vendor.set(Mode::Change).await?;
    let slice = bench.slice().max(interval * 2);
    calls.listen(Until::Time(Instant::now() + interval * 2)).await?;
    let (mut notified, mut received) = (Series::default(), Vec::new());
    for _ in 0..bench.pick(6, 3) {
        let (statuses, before) = (calls.tally().statuses, vendor.received().await?);
        let meter = Meter::start(&*gateway, Some(&vendor))?;
        calls.listen(Until::Time(Instant::now() + slice)).await?;
        let cost = meter.stop(&*gateway, Some(&vendor))?;
        notified.add(calls.tally().statuses - statuses, cost);
        received.push((vendor.received().await?.jobs - before.jobs) as f64 / cost.wall);
    }
    vendor.set(Mode::End).await?;
    let ending = Instant::now();
    calls.listen(Until::Over).await?;
    let ended = ending.elapsed().as_secs_f64();

    let mut row = Row::new(name, format!("WatchJobs: {jobs} watches of as many jobs, {CALLS} calls"));
    row.goal("memory a watch, above idle", "bytes", &[memory], Goal::AtMost(1024.0));
    row.goal("changes a second delivered", "", &notified.rate, Goal::AtLeast(400_000.0));
    row.note("changes a second of CPU", "", &notified.cpu.iter().map(|cpu| 1e6 / cpu).collect::<Vec<_>>());
    row.note("statuses a second read from the vendor", "", &received);
    row.note("time to open all watches and receive each job's status", "s", &[opened]);
    row.note("time from the end of all jobs to the end of all watches", "s", &[ended]);
    notified.note(&mut row, "gateway", "a change");
    Ok(row)
}

/// Each request in a frame of its own, and a reader that stalls.
#[expect(clippy::cast_precision_loss, reason = "megabytes and counts")]
pub(super) async fn hostile(bench: &Bench) -> Outcome<Row> {
    const WATCHES: usize = 20_000;
    const INTERVAL: Duration = Duration::from_millis(200);
    let vendor = Vendor::start(bench.cores).await?;
    let poll = Poll { interval: INTERVAL, batch: 1000, concurrency: 8 };
    let gateway = bench.gateway(&vendor, poll).await?;
    // The client writes each request in a frame of its own, and does not wait.
    let mut calls = Calls::open(gateway.address, IMMUTA, Shares::even(WATCHES, 1)).await?;
    calls.listen(Until::Seen).await?;
    let added = calls.tally().seen;

    vendor.set(Mode::Change).await?;
    calls.listen(Until::Time(Instant::now() + INTERVAL * 10)).await?;
    let before = gateway.memory()?;
    gateway.forget_peak()?;
    sleep(bench.pick(Duration::from_secs(20), Duration::from_secs(8))).await;
    let cost = gateway.peak_memory()?.saturating_sub(before);
    // All end while nobody reads.
    vendor.set(Mode::End).await?;
    sleep(INTERVAL * 10).await;
    calls.listen(Until::Over).await?;
    let tally = calls.tally();

    let mut row = Row::new("hostile", format!("WatchJobs: hostile shapes, {WATCHES} watches"));
    let all = Goal::Exactly(WATCHES as f64);
    row.goal("adds in a frame each that got a status", "", &[added as f64], all);
    row.goal(
        "memory for a reader that stalls",
        "MiB",
        &[cost as f64 / f64::from(1 << 20)],
        Goal::AtMost(16.0),
    );
    row.goal("terminal statuses that it still gets", "", &[tally.terminal as f64], all);
    Ok(row)
}
