//! Watched jobs whose results come to several times the budget for statuses.

use std::time::Duration;

use jobwatch::proto::v1::JobStatusView;
use tokio::time::Instant;

use super::Bench;
use crate::{
    Outcome,
    gateway::{Gateway, IMMUTA, Poll, Setup},
    report::{Goal, Row},
    vendor::{Mode, Vendor},
    watching::{Calls, Shares, Until, Watching},
};

const RESULT: usize = 100_000;
const BUDGET: (&str, u64) = ("64 MiB", 64 << 20);

/// Two batches are read at once, of 2 MB each, so that the responses being read are small beside
/// the budget.
const POLL: Poll = Poll { interval: Duration::from_secs(1), batch: 20, concurrency: 2 };

#[expect(clippy::cast_precision_loss, reason = "megabytes and small counts")]
pub(super) async fn row(bench: &Bench) -> Outcome<Row> {
    let jobs = bench.pick(4000, 2000);
    let patience = Duration::from_secs(bench.pick(120, 60));
    let title = format!("Byte budget: {jobs} watched jobs with results of 100 kB, status_bytes {}", BUDGET.0);
    let mut row = Row::new("bytes", title);
    let by_budget = |bytes: u64| bytes as f64 / BUDGET.1 as f64;
    row.note("results together, by status_bytes", "", &[by_budget((jobs * RESULT) as u64)]);
    let mut is_known = true;
    for (name, view) in [("STANDARD", JobStatusView::Standard), ("BASIC", JobStatusView::Basic)] {
        let vendor = Vendor::start(bench.cores).await?;
        vendor.set_output(RESULT).await?;
        let gateway;
        (gateway, is_known) = start(bench, &vendor).await?;
        let idle = gateway.memory()?;
        gateway.forget_peak()?;
        let watching = Watching { view, tolerant: true, ..Watching::default() };
        let mut calls = Calls::open_as(gateway.address, IMMUTA, Shares::even(jobs, 1), &watching).await?;
        let began = Instant::now();
        calls.listen_before(Until::Seen, began + patience).await?;
        calls.listen(Until::Time(Instant::now() + POLL.interval * 3)).await?;
        let held = gateway.memory()?.saturating_sub(idle);
        vendor.set(Mode::End).await?;
        let ending = Instant::now();
        calls.listen_before(Until::Over, ending + patience).await?;
        let ended = ending.elapsed().as_secs_f64();
        let peak = gateway.peak_memory()?.saturating_sub(idle);
        let tally = calls.tally();

        let name = |what: &str| format!("{name}: {what}");
        row.note(name("resident memory while the jobs run, by status_bytes"), "", &[by_budget(held)]);
        // The budget, the responses being read, and memory that the allocator retains.
        row.goal(name("peak of resident memory, by status_bytes"), "", &[by_budget(peak)], Goal::AtMost(1.5));
        let accepted = (jobs - tally.refused) as f64;
        row.goal(
            name("terminal statuses of accepted watches"),
            "",
            &[tally.terminal as f64],
            Goal::Exactly(accepted),
        );
        row.note(name("watches refused with TOO_MANY_BYTES"), "", &[tally.refused as f64]);
        row.note(name("watches that failed otherwise"), "", &[tally.failed as f64]);
        row.note(name("time from the end of all jobs to the end of all watches"), "s", &[ended]);
    }
    if !is_known {
        row.remark("this gateway does not know limits.status_bytes: it was measured without a budget");
    }
    Ok(row)
}

/// A gateway with the budget, or without it if it does not know the key; and whether it has
/// the budget.
async fn start(bench: &Bench, vendor: &Vendor) -> Outcome<(Gateway, bool)> {
    match bench.gateway(vendor, Setup { status_bytes: Some(BUDGET.0), ..POLL.into() }).await {
        Ok(gateway) => Ok((gateway, true)),
        Err(error) if error.to_string().contains("status_bytes") => {
            Ok((bench.gateway(vendor, POLL).await?, false))
        }
        Err(error) => Err(error),
    }
}
