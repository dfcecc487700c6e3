//! The cost of watching unchanged jobs, by their number.

use std::time::Duration;

use tokio::time::Instant;

use super::Bench;
use crate::{
    Outcome,
    gateway::{IMMUTA, Poll},
    load::Meter,
    report::{Goal, Row},
    vendor::Vendor,
    watching::{Calls, Shares, Until},
};

const BATCH: usize = 1000;

#[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
pub(super) async fn row(bench: &Bench) -> Outcome<Row> {
    let interval = bench.pick(Duration::from_secs(10), Duration::from_secs(2));
    let sizes: &[usize] = bench.pick(&[1000, 10_000, 100_000, 1_000_000], &[1000, 10_000, 100_000]);
    let intervals = bench.pick(3, 4);
    let left_out = bench.pick("", "; a full run has 1,000,000 too");
    let title = format!("Growth: unchanged jobs, polled each {} s{left_out}", interval.as_secs());
    let mut row = Row::new("growth", title);
    let mut before = None;
    for &jobs in sizes {
        let vendor = Vendor::start(bench.cores).await?;
        let poll = Poll { interval, batch: BATCH, concurrency: 8 };
        let gateway = bench.gateway(&vendor, poll).await?;
        let mut calls = Calls::open(gateway.address, IMMUTA, Shares::even(jobs, 10)).await?;
        calls.listen(Until::Seen).await?;
        // From between two polls to between two others.
        calls.listen(Until::Time(Instant::now() + interval * 3 / 2)).await?;
        let received = vendor.received().await?;
        let meter = Meter::start(&*gateway, Some(&vendor))?;
        calls.listen(Until::Time(Instant::now() + interval * intervals)).await?;
        let cost = meter.stop(&*gateway, Some(&vendor))?;
        let now = vendor.received().await?;

        let turns = cost.wall / interval.as_secs_f64();
        let a_job = 1e6 * cost.server / turns / jobs as f64;
        row.note(format!("{jobs} jobs: CPU a job and interval"), "µs", &[a_job]);
        row.note(format!("{jobs} jobs: CPU an interval"), "ms", &[1e3 * cost.server / turns]);
        if let Some(before) = before.replace(a_job) {
            row.goal(
                format!("{jobs} jobs: CPU a job, by the step before"),
                "",
                &[a_job / before],
                Goal::AtMost(1.25),
            );
        }
        let polls = (now.jobs - received.jobs) as f64 / jobs as f64 / turns;
        row.goal(format!("{jobs} jobs: polls of a job an interval"), "", &[polls], Goal::AtLeast(0.95));
        let requests = (now.requests - received.requests) as f64 / turns;
        let fewest = jobs.div_ceil(BATCH) as f64;
        row.goal(
            format!("{jobs} jobs: requests an interval"),
            "",
            &[requests],
            Goal::AtMost((fewest * 1.02).ceil()),
        );
    }
    Ok(row)
}
