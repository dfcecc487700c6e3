//! A few jobs for which the vendor fails every request, among many healthy ones.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::Bench;
use crate::{
    Outcome,
    gateway::{IMMUTA, Poll},
    report::{Goal, Row},
    vendor::{Mode, Vendor},
    watching::{Calls, Shares, Until, Watching},
};

const JOBS: usize = 1000;
const BATCH: usize = 100;

/// Long enough that no job is polled again while batches are bisected.
const INTERVAL: Duration = Duration::from_secs(5);

/// How many jobs fail. With none, the extra polls are those of batches that were sent
/// before they were full.
const FAILING: [usize; 4] = [0, 1, 3, 10];

#[expect(clippy::cast_precision_loss, reason = "small counts")]
pub(super) async fn row(bench: &Bench) -> Outcome<Row> {
    let patience = Duration::from_secs(bench.pick(60, 30));
    let title = format!("Isolation: jobs that fail among {JOBS} watched jobs, batches of {BATCH}");
    let mut row = Row::new("isolation", title);
    for count in FAILING {
        let failing: BTreeSet<usize> = (0..count).map(|number| position(number, count)).collect();
        let healthy = (JOBS - failing.len()) as f64;
        let vendor = Vendor::start(bench.cores).await?;
        vendor.fail(failing.iter().copied()).await?;
        let gateway =
            bench.gateway(&vendor, Poll { interval: INTERVAL, batch: BATCH, concurrency: 8 }).await?;
        let watching = Watching { tolerant: true, failing: Arc::new(failing), ..Watching::default() };
        let mut calls = Calls::open_as(gateway.address, IMMUTA, Shares::even(JOBS, 1), &watching).await?;

        let began = Instant::now();
        calls.listen_before(Until::Seen, began + patience).await?;
        let first = began.elapsed().as_secs_f64();
        let extra = extra_polls(vendor.received().await?.requests);
        let seen = calls.tally().seen as f64;

        // The failing jobs are quarantined meanwhile, or fail batches again and again.
        calls.listen(Until::Time(Instant::now() + INTERVAL * 3)).await?;
        vendor.set(Mode::End).await?;
        let began = Instant::now();
        let before = vendor.received().await?.requests;
        calls.listen_before(Until::Over, began + patience).await?;
        let last = began.elapsed().as_secs_f64();
        let extra_to_end = extra_polls(vendor.received().await?.requests - before);
        let tally = calls.tally();

        let name = |what: &str| format!("{count} failing: {what}");
        row.goal(name("healthy jobs with a first status"), "", &[seen], Goal::Exactly(healthy));
        let bound = 2.0 * count as f64 * (BATCH as f64).log2() + 4.0;
        if (seen - healthy).abs() < f64::EPSILON {
            row.goal(name("extra polls until then"), "", &[extra], Goal::AtMost(bound.floor()));
        } else {
            // Jobs with a status are polled again meanwhile, so there is nothing to compare.
            row.note(name("extra polls while the row waited"), "", &[extra]);
        }
        row.goal(name("time until then"), "s", &[first], Goal::AtMost(INTERVAL.as_secs_f64()));
        row.goal(
            name("healthy jobs with a terminal status"),
            "",
            &[tally.terminal as f64],
            Goal::Exactly(healthy),
        );
        row.note(name("extra polls from their end until then"), "", &[extra_to_end]);
        let two_intervals = 2.0 * INTERVAL.as_secs_f64();
        row.goal(name("time from their end until then"), "s", &[last], Goal::AtMost(two_intervals));
        row.note(name("interruptions of healthy jobs"), "", &[tally.interruptions as f64]);
    }
    row.remark(format!("a time of {} s means that the row stopped waiting", patience.as_secs()));
    Ok(row)
}

/// Spread over the batches: the multiples of the golden ratio's fraction.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "below 1000"
)]
fn position(number: usize, count: usize) -> usize {
    let step = JOBS / count;
    number * step + ((number as f64 * 0.618_034).fract() * step as f64) as usize
}

/// Requests beside those that full batches would need.
#[expect(clippy::cast_precision_loss, reason = "small counts")]
fn extra_polls(requests: u64) -> f64 {
    requests as f64 - JOBS.div_ceil(BATCH) as f64
}
