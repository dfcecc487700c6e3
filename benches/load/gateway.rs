//! The gateway under measurement: the built program with a configuration of its own.

use std::{
    io::Write as _,
    net::SocketAddr,
    ops::Deref,
    path::{Path, PathBuf},
    time::Duration,
};

use jobwatch::proto::v1::{AddWatch, JobRef, WatchJobRequest, WatchJobsRequest, watch_jobs_request::Request};
use tempfile::NamedTempFile;
use tokio::process::Command;

use crate::{Outcome, machine::Cores, process::Process, vendor};

/// The backend that plays Immuta, and the one that plays Claret.
pub(crate) const IMMUTA: &str = "immuta";
pub(crate) const CLARET: &str = "claret";

/// How the gateway is to ask.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Poll {
    /// Between two polls of a job, whether it changes or not.
    pub(crate) interval: Duration,
    /// Jobs in one request, where the vendor has a batch call.
    pub(crate) batch: usize,
    /// Requests at once.
    pub(crate) concurrency: usize,
}

/// A running gateway.
#[derive(Debug)]
pub(crate) struct Gateway {
    process: Process,
    _config: NamedTempFile,
}

impl Gateway {
    /// Starts the program at `path` before the vendors at `vendor`.
    pub(crate) async fn start(path: &Path, vendor: SocketAddr, poll: Poll, cores: Cores) -> Outcome<Self> {
        let mut config = NamedTempFile::new()?;
        config.write_all(text(vendor, poll).as_bytes())?;
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

/// The configuration: nothing but the rate of the polls holds it back.
fn text(vendor: SocketAddr, poll: Poll) -> String {
    let Poll { interval, batch, concurrency } = poll;
    let interval = interval.as_millis();
    let pace = format!(
        "min_interval = \"{interval}ms\"\nmax_interval = \"{interval}ms\"\nmax_concurrency = {concurrency}\n\
         requests_per_second = 1000000\n"
    );
    format!(
        "allow_inline_secrets = true\n\
         [server]\nlisten = \"127.0.0.1:0\"\n\
         [limits]\nwatches = 4000000\nwatches_per_caller = 4000000\nwatches_per_call = 2000000\n\
         streams_per_connection = 20000\nconnections = 20000\n\
         [backends.{IMMUTA}]\nvendor = \"immuta\"\nbase_url = \"http://{vendor}\"\n\
         credentials = {{ api_key = \"key\" }}\n\
         [backends.{IMMUTA}.poll]\nmax_batch = {batch}\n{pace}\
         [backends.{CLARET}]\nvendor = \"claret\"\nbase_url = \"http://{vendor}\"\n\
         tenant = \"{}\"\ncredentials = {{ bearer = \"token\" }}\n\
         [backends.{CLARET}.poll]\n{pace}",
        vendor::TENANT
    )
}

/// The program that cargo has built for this one.
pub(crate) fn built() -> PathBuf {
    env!("CARGO_BIN_EXE_jobwatch").into()
}

/// The n-th job of a backend.
pub(crate) fn job(backend: &str, number: usize) -> JobRef {
    let job_id = if backend == CLARET { vendor::claret_id(number) } else { vendor::immuta_id(number) };
    JobRef { backend: backend.to_owned(), job_id, job_tag: String::new() }
}

/// Asks a WatchJobs for the n-th job, under the same number.
pub(crate) fn add(backend: &str, number: usize) -> WatchJobsRequest {
    let watch = Some(WatchJobRequest {
        job: Some(job(backend, number)),
        heartbeat_interval: Some(prost_types::Duration { seconds: 3600, nanos: 0 }),
        ..WatchJobRequest::default()
    });
    WatchJobsRequest { request: Some(Request::Add(AddWatch { watch_id: number as u64, watch })) }
}
