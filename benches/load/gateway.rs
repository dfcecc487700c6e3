//! The gateway under measurement: the built program with a configuration of its own.

use std::{
    io::Write as _,
    net::SocketAddr,
    ops::Deref,
    path::{Path, PathBuf},
    time::Duration,
};

use jobwatch::proto::v1::{
    AddWatch, JobRef, JobStatusView, WatchJobRequest, WatchJobsRequest, watch_jobs_request::Request,
};
use tempfile::NamedTempFile;
use tokio::process::Command;

use crate::{Outcome, machine::Cores, process::Process, vendor};

/// The backends of the fake vendors.
pub(crate) const IMMUTA: &str = "immuta";
pub(crate) const CLARET: &str = "claret";
pub(crate) const KINETICA: &str = "kinetica";

/// How the gateway polls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Poll {
    /// Between two polls of a job, whether it changes or not.
    pub(crate) interval: Duration,
    /// Jobs in one request, where the vendor has a batch call.
    pub(crate) batch: usize,
    /// Requests at once.
    pub(crate) concurrency: usize,
}

/// The configuration of a gateway.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) poll: Poll,
    /// Upper bound for each backend.
    pub(crate) requests_per_second: u32,
    /// `limits.status_bytes`, which older gateways do not know.
    pub(crate) status_bytes: Option<&'static str>,
    /// A collector of traces, and the share of them that is sampled.
    pub(crate) traces: Option<(SocketAddr, f64)>,
    /// Whether it has an admin address.
    pub(crate) admin: bool,
    /// Whether it logs each call.
    pub(crate) access_log: bool,
    /// Which replica of a cluster it is.
    pub(crate) member: Option<Member>,
}

/// A replica.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    /// The port of the NATS server.
    pub(crate) nats: u16,
    pub(crate) number: u32,
}

impl From<Poll> for Setup {
    /// Nothing but the rate of the polls limits the gateway.
    fn from(poll: Poll) -> Self {
        Self {
            poll,
            requests_per_second: 1_000_000,
            status_bytes: None,
            traces: None,
            admin: false,
            access_log: false,
            member: None,
        }
    }
}

/// A running gateway.
#[derive(Debug)]
pub(crate) struct Gateway {
    process: Process,
    _config: NamedTempFile,
}

impl Gateway {
    /// Starts the program at `path` before the vendors at `vendor`.
    pub(crate) async fn start(path: &Path, vendor: SocketAddr, setup: Setup, cores: Cores) -> Outcome<Self> {
        let mut config = NamedTempFile::new()?;
        config.write_all(text(vendor, setup).as_bytes())?;
        let mut command = Command::new(path);
        command.arg("serve").arg("--config").arg(config.path()).env_clear().env("JOBWATCH_LOG", "info");
        Ok(Self { process: Process::gateway(&mut command, cores).await?, _config: config })
    }
}

impl Deref for Gateway {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

fn text(vendor: SocketAddr, setup: Setup) -> String {
    let Setup { poll, requests_per_second, status_bytes, traces, admin, access_log, member } = setup;
    let Poll { interval, batch, concurrency } = poll;
    let status_bytes = status_bytes.map(|bytes| format!("status_bytes = \"{bytes}\"\n")).unwrap_or_default();
    let traces = traces.map(|(collector, ratio)| {
        format!("[traces]\nendpoint = \"http://{collector}\"\nprotocol = \"grpc\"\nsample_ratio = {ratio}\n")
    });
    let traces = traces.unwrap_or_default();
    let admin = if admin { "[admin]\nlisten = \"127.0.0.1:0\"\n" } else { "" };
    let access_log = if access_log { "[log]\naccess = true\n" } else { "" };
    let cluster = member.map(|Member { nats, number }| {
        format!(
            "[cluster]\nnats = [\"nats://127.0.0.1:{nats}\"]\nname = \"bench\"\nreplicas = 2\nmember = \
             \"gateway-{number}\"\nlease = \"5s\"\n"
        )
    });
    let cluster = cluster.unwrap_or_default();
    let interval = interval.as_millis();
    let pace = format!(
        "min_interval = \"{interval}ms\"\nmax_interval = \"{interval}ms\"\nmax_concurrency = {concurrency}\n\
         requests_per_second = {requests_per_second}\n"
    );
    format!(
        "allow_inline_secrets = true\n\
         [server]\nlisten = \"127.0.0.1:0\"\n{traces}{admin}{access_log}{cluster}\
         [limits]\nwatches = 4000000\nwatches_per_caller = 4000000\nwatches_per_call = 2000000\n\
         streams_per_connection = 20000\nconnections = 20000\nconnections_per_address = 20000\n\
         connection_bytes = \"4 GiB\"\n{status_bytes}\
         [backends.{IMMUTA}]\nvendor = \"immuta\"\nbase_url = \"http://{vendor}\"\n\
         credentials = {{ api_key = \"key\" }}\n\
         [backends.{IMMUTA}.poll]\nmax_batch = {batch}\n{pace}\
         [backends.{CLARET}]\nvendor = \"claret\"\nbase_url = \"http://{vendor}\"\n\
         tenant = \"{}\"\ncredentials = {{ bearer = \"token\" }}\n\
         [backends.{CLARET}.poll]\n{pace}\
         [backends.{KINETICA}]\nvendor = \"kinetica\"\nbase_url = \"http://{vendor}\"\n\
         [backends.{KINETICA}.poll]\n{pace}",
        vendor::TENANT
    )
}

/// The program that cargo has built for this one.
pub(crate) fn built() -> PathBuf {
    env!("CARGO_BIN_EXE_jobwatch").into()
}

/// The n-th job of a backend.
pub(crate) fn job(backend: &str, number: usize) -> JobRef {
    let job_id = if backend == IMMUTA { vendor::immuta_id(number) } else { vendor::claret_id(number) };
    JobRef { backend: backend.to_owned(), job_id, job_tag: String::new() }
}

/// Adds a watch of the n-th job to a WatchJobs call, with the same number as its id.
pub(crate) fn add(backend: &str, number: usize, view: JobStatusView) -> WatchJobsRequest {
    let watch = Some(WatchJobRequest {
        job: Some(job(backend, number)),
        view: view.into(),
        heartbeat_interval: Some(prost_types::Duration { seconds: 3600, nanos: 0 }),
        ..WatchJobRequest::default()
    });
    WatchJobsRequest { request: Some(Request::Add(AddWatch { watch_id: number as u64, watch })) }
}
