//! Servers of NATS that are killed or stopped, one after another or all of them.
//!
//! `make cluster-outages` does it for ten minutes.

use std::{sync::Arc, time::Duration};

use jobwatch::simulators::Vendor;
use tokio::time::{Instant, sleep};

use super::{
    SECOND,
    history::{check_rate, now, sent_in},
    kills::variable,
    rig::{GATEWAYS, Gateways, patiently, roles},
    servers::Servers,
    workload::Workload,
};
use crate::harness::*;

const JOBS: usize = 60;
const BATCH: usize = 20;
const INTERVAL: Duration = SECOND;

/// The lease of the long run is that of the defaults. A busy machine renews it late.
fn lease(is_long: bool) -> Duration {
    if is_long { 15 * SECOND } else { 60 * SECOND }
}

/// Waits until the bucket has a leader and all its copies are current.
async fn bucket_is_whole(servers: &Servers) {
    let whole = async {
        loop {
            if copies(servers).await == Some(servers.count()) {
                return;
            }
            sleep(SECOND / 5).await;
        }
    };
    patiently(whole).await;
}

/// How many copies are current.
async fn copies(servers: &Servers) -> Option<usize> {
    let client = async_nats::connect(servers.urls()).await.ok()?;
    let mut context = async_nats::jetstream::new(client);
    context.set_timeout(SECOND / 2);
    let mut stream = context.get_stream("KV_jobwatch_leases_gateways").await.ok()?;
    let cluster = stream.info().await.ok()?.cluster.clone()?;
    cluster.leader.as_ref()?;
    Some(1 + cluster.replicas.iter().filter(|replica| replica.current && !replica.offline).count())
}

/// How often a gateway was isolated.
fn isolations(gateways: &Gateways) -> usize {
    let of_one = |log: &str| roles(log).iter().filter(|(role, _)| role == "isolated").count();
    gateways.programs.iter().map(|program| of_one(&program.log())).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_of_nats_that_is_killed_or_stopped_changes_no_owner_and_costs_no_request() {
    let minutes = variable("JOBWATCH_OUTAGE_MINUTES", 0);
    let simulator = Arc::new(simulator(Vendor::Immuta).await);
    let backend = Backend::of(&simulator).every(INTERVAL).poll("max_batch", &BATCH.to_string());
    let mut gateways = Gateways::start_with(Servers::start(3, ""), backend, lease(minutes > 0)).await;
    let before = gateways.together().await;
    let mut workload = Workload::start(&simulator, (0..JOBS).map(|number| format!("job-{number}")));
    workload.watch_everywhere(&gateways.clients()).await;
    bucket_is_whole(&gateways.servers).await;
    let isolated_before = isolations(&gateways);
    simulator.clear_calls();
    let began = Instant::now();
    let (mut faults, mut slowest) = (0, Duration::ZERO);
    while faults < 2 * gateways.servers.count()
        || began.elapsed() < Duration::from_mins(u64::try_from(minutes).unwrap())
    {
        let server = faults / 2 % gateways.servers.count();
        if faults % 2 == 0 {
            gateways.servers.kill_one(server);
        } else {
            gateways.servers.signal(server, "STOP");
        }
        for _ in 0..3 {
            slowest = slowest.max(workload.hear(|_| true).await);
        }
        if faults % 2 == 0 {
            gateways.servers.start_one(server);
        } else {
            gateways.servers.signal(server, "CONT");
        }
        bucket_is_whole(&gateways.servers).await;
        workload.hear(|_| true).await;
        faults += 1;
    }
    let intervals = usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
    let (requests, most) = (simulator.count("job"), JOBS.div_ceil(BATCH) * intervals);
    let isolated = isolations(&gateways) - isolated_before;
    println!("| servers of NATS killed or stopped, one after another | {faults} in {:?} |", began.elapsed());
    println!("| requests, of those that one gateway needs | {requests} of {most} |");
    println!("| gateways that were isolated | {isolated} |");
    println!("| longest wait for news of all jobs | {:.1} s |", slowest.as_secs_f64());
    assert_eq!(gateways.together().await, before, "the owner and its epoch");
    // A busy machine may be too slow to find another server in time.
    if isolated == 0 || minutes > 0 {
        assert!(requests * 10 <= most * 11, "{requests} requests, {most} of one gateway");
    }
    workload.finish_right().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_serve_while_all_of_nats_is_gone_and_share_again_when_it_is_back() {
    const RATE: usize = 18;
    let minutes = variable("JOBWATCH_OUTAGE_MINUTES", 0);
    let simulator = Arc::new(simulator(Vendor::Immuta).await);
    let backend = Backend::of(&simulator)
        .every(SECOND / 2)
        .poll("requests_per_second", &RATE.to_string())
        .poll("max_batch", "1");
    let lease = if minutes > 0 { 15 * SECOND } else { 4 * SECOND };
    let mut gateways = Gateways::start_with(Servers::start(3, ""), backend, lease).await;
    gateways.together().await;
    let mut workload = Workload::start(&simulator, (0..6).map(|number| format!("job-{number}")));
    workload.watch_everywhere(&gateways.clients()).await;
    bucket_is_whole(&gateways.servers).await;
    (0..3).for_each(|server| gateways.servers.kill_one(server));
    let gone_at = Instant::now();
    for number in 0..GATEWAYS {
        gateways.has_role(number, "isolated").await;
    }
    println!("| all isolated after | {:.1} s |", gone_at.elapsed().as_secs_f64());
    let alone = now();
    loop {
        workload.hear(|_| true).await;
        if minutes == 0 || gone_at.elapsed() >= 60 * SECOND {
            break;
        }
    }
    // Each within its own share.
    for program in &gateways.programs {
        let sent = sent_in(&program.log());
        let sent: Vec<_> = sent.into_iter().filter(|at| *at > alone + SECOND).collect();
        assert_eq!(check_rate(&sent, 1), [""; 0]);
    }
    (0..3).for_each(|server| gateways.servers.start_one(server));
    let started_at = Instant::now();
    while copies(&gateways.servers).await.is_none() {
        sleep(SECOND / 20).await;
    }
    let back_at = Instant::now();
    gateways.together().await;
    let (to_leader, to_owner) = (back_at - started_at, back_at.elapsed());
    println!("| the bucket has a leader after | {:.1} s |", to_leader.as_secs_f64());
    println!("| together again after that | {:.1} s |", to_owner.as_secs_f64());
    assert!(minutes == 0 || to_owner <= 5 * SECOND, "{to_owner:?}");
    workload.hear(|_| true).await;
    workload.finish_right().await;
    println!("| most requests in any second, of {RATE} | {} |", gateways.check_rate(RATE));
}
