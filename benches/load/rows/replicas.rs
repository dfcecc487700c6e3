//! Two replicas that share the work over NATS: what it costs to follow.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use jobwatch::proto::v1::GetJobStatusRequest;
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

use super::{Bench, client};
use crate::{
    Outcome,
    gateway::{Gateway, IMMUTA, Member, Poll, Setup, job},
    report::{Goal, Row},
    vendor::Vendor,
    watching::{Calls, Shares, Until},
};

/// Until the first replica surely owns all backends: more than its lease.
const ELECTED: Duration = Duration::from_secs(8);

/// A NATS server; killed when this is dropped.
struct Nats {
    _child: Child,
    _folder: TempDir,
    port: u16,
}

impl Nats {
    async fn start() -> Outcome<Self> {
        let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/python/bin/nats-server");
        let program = std::env::var_os("JOBWATCH_NATS_SERVER").map_or(installed, PathBuf::from);
        let folder = TempDir::new()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = Command::new(&program)
            .args(["-js", "-a", "127.0.0.1", "-p", &port.to_string(), "-sd"])
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{}: {error}; run `make tools`", program.display()))?;
        sleep(Duration::from_secs(1)).await;
        Ok(Self { _child: child, _folder: folder, port })
    }
}

/// The owner of all backends, and a follower.
async fn two(bench: &Bench, vendor: &Vendor, poll: Poll, nats: &Nats) -> Outcome<[Gateway; 2]> {
    let setup = |number| Setup { member: Some(Member { nats: nats.port, number }), ..poll.into() };
    let owner = bench.gateway(vendor, setup(1)).await?;
    sleep(ELECTED).await;
    let follower = bench.gateway(vendor, setup(2)).await?;
    sleep(ELECTED / 4).await;
    Ok([owner, follower])
}

/// The time of a Get without `max_age`, through a follower and at the owner.
pub(super) async fn get(bench: &Bench) -> Outcome<Row> {
    let vendor = Vendor::start(bench.cores).await?;
    let nats = Nats::start().await?;
    let poll = Poll { interval: Duration::from_secs(1), batch: 200, concurrency: 64 };
    let [owner, follower] = two(bench, &vendor, poll, &nats).await?;
    let mut clients = [client(&owner).await?, client(&follower).await?];
    let calls = bench.pick(1000, 300);
    let mut times = [Vec::with_capacity(calls), Vec::with_capacity(calls)];
    let before = vendor.received().await?;
    for number in 0..calls {
        for (client, times) in clients.iter_mut().zip(&mut times) {
            let request = GetJobStatusRequest { job: Some(job(IMMUTA, number)), ..Default::default() };
            let began = Instant::now();
            client.get_job_status(request).await?;
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
    }
    let requests = vendor.received().await?.requests - before.requests;
    let [at_owner, at_follower] = times.map(|mut times| {
        times.sort_unstable_by(f64::total_cmp);
        [times[calls / 2], times[calls * 99 / 100]]
    });
    let mut row = Row::new("replica-get", "GetJobStatus through a follower, one at a time".to_owned());
    row.goal("p50 above that at the owner", "ms", &[at_follower[0] - at_owner[0]], Goal::AtMost(2.0));
    row.note("p50, p99 at the owner", "ms", &at_owner);
    row.note("p50, p99 through the follower", "ms", &at_follower);
    #[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
    row.note("requests upstream a call", "", &[requests as f64 / (2 * calls) as f64]);
    Ok(row)
}

/// Watches through a follower: what they take at the owner.
#[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
pub(super) async fn watches(bench: &Bench) -> Outcome<Row> {
    const JOBS: usize = 100_000;
    let vendor = Vendor::start(bench.cores).await?;
    let nats = Nats::start().await?;
    let poll = Poll { interval: Duration::from_secs(10), batch: 1000, concurrency: 8 };
    let [owner, follower] = two(bench, &vendor, poll, &nats).await?;
    // The owner has its own watches of the same jobs, so that what is added is the follower's.
    let mut own = Calls::open(owner.address, IMMUTA, Shares::even(JOBS, 10)).await?;
    own.listen(Until::Seen).await?;
    own.listen(Until::Time(Instant::now() + poll.interval * 2)).await?;
    let before = owner.memory()?;
    let requests = vendor.received().await?.requests;
    let began = Instant::now();
    let mut others = Calls::open(follower.address, IMMUTA, Shares::even(JOBS, 10)).await?;
    others.listen(Until::Seen).await?;
    let opened = began.elapsed().as_secs_f64();
    others.listen(Until::Time(Instant::now() + poll.interval * 2)).await?;
    let memory = owner.memory()?.saturating_sub(before) as f64 / JOBS as f64;
    let requests = (vendor.received().await?.requests - requests) as f64;
    let intervals = began.elapsed().as_secs_f64() / poll.interval.as_secs_f64();
    let mut row =
        Row::new("replica-watches", format!("{JOBS} jobs watched at the owner, and then through a follower"));
    row.goal("memory a job at the owner for the follower", "bytes", &[memory], Goal::AtMost(128.0));
    row.goal("time until the follower's watches have their first status", "s", &[opened], Goal::AtMost(5.0));
    row.note("requests an interval, both replicas", "", &[requests / intervals]);
    Ok(row)
}
