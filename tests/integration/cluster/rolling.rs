//! A restart of all gateways, one after the other, under watches that resume by token.
//!
//! `make cluster-rolling` does it with ten thousand watches.

use std::{sync::Arc, time::Duration};

use jobwatch::simulators::Vendor;
use tokio::time::{Instant, sleep};

use super::{
    SECOND,
    kills::variable,
    rig::{GATEWAYS, Gateways, patiently},
    servers::Servers,
    workload::Workload,
};
use crate::harness::*;

const INTERVAL: Duration = Duration::from_secs(2);
const BATCH: usize = 50;

/// Watches of each job.
const WATCHES: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restart_of_all_gateways_costs_no_requests_and_no_watch_misses_its_end() {
    let (watches, seconds) = (variable("JOBWATCH_WATCHES", 1000), variable("JOBWATCH_ROLLING_SECONDS", 0));
    let simulator = Arc::new(simulator(Vendor::Immuta).await);
    let jobs = watches / WATCHES;
    let backend = Backend::of(&simulator).every(INTERVAL).poll("max_batch", &BATCH.to_string());
    let lease = 60 * SECOND;
    let mut gateways = Gateways::start_with(Servers::start(3, ""), backend, lease).await;
    gateways.together().await;
    let names = (0..jobs).map(|number| format!("job-{number}"));
    let mut workload = Workload::start_with(&simulator, names, 3 * INTERVAL);
    let clients = || gateways.clients();
    patiently(workload.watch_often(WATCHES, clients)).await;
    simulator.clear_calls();
    let began = Instant::now();
    for number in 0..GATEWAYS {
        gateways.stop(number).await;
        gateways.replace_ended(number).await;
        gateways.together().await;
        workload.hear(|_| true).await;
    }
    let restarted = began.elapsed();
    sleep(Duration::from_secs(u64::try_from(seconds).unwrap()).saturating_sub(restarted)).await;
    let calls = simulator.calls();
    let requests = calls.iter().filter(|call| call.path.contains("job")).count();
    let listed: usize = calls.iter().map(|call| call.job_ids.len()).sum();
    let intervals = began.elapsed().as_secs_f64() / INTERVAL.as_secs_f64();
    let batches = jobs.div_ceil(BATCH);
    println!("| watches, jobs | {watches}, {jobs} |");
    println!("| three restarts took | {:.1} s |", restarted.as_secs_f64());
    println!("| requests in {intervals:.1} intervals, {batches} in each | {requests} |");
    println!("| jobs in these requests, {jobs} in each interval | {listed} |");
    let statuses = workload.finish_right().await;
    println!("| statuses, none lost, twice or older | {statuses} |");
    // Each job may have been polled at the beginning of the first interval and of the last.
    let most = |in_each: usize| f64::from(u32::try_from(in_each).unwrap()) * (intervals + 1.0) * 1.05;
    // A gateway that ends or takes over divides the batches that it has begun.
    let divided = f64::from(u32::try_from(2 * GATEWAYS * batches).unwrap());
    assert!(f64::from(u32::try_from(requests).unwrap()) <= most(batches) + divided, "{requests} requests");
    assert!(f64::from(u32::try_from(listed).unwrap()) <= most(jobs), "{listed} jobs in requests");
}
