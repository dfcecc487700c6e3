//! A real gateway in front of simulated vendors, and a client of it.

use std::{
    collections::BTreeMap,
    fmt::Write,
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use jobwatch::{
    config::Config,
    proto::v1::{
        BatchGetStatusesRequest, CallError, GetJobStatusRequest, Interruption, JobRef, JobStatus,
        JobStatusResult, JobStatusView, WatchJobRequest, WatchJobResponse, job_status_result::Outcome,
        job_status_service_client::JobStatusServiceClient, watch_job_response::Event,
    },
    server::{self, ConfigSource, ServeError},
    simulators::{Job, Plan, Simulator, Vendor, credentials},
};
use tokio::{
    net::TcpListener,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Status, Streaming,
    transport::{Channel, Endpoint},
};
use tonic_types::{ErrorDetails, StatusExt};

mod backend;
mod watch;

pub(crate) use self::{
    backend::{Backend, config_text},
    watch::{Watch, watch_request},
};

pub(crate) type Client = JobStatusServiceClient<Channel>;

/// Longest wait of a test, far above what a busy machine needs.
const GUARD: Duration = Duration::from_mins(1);

/// Fails the test instead of waiting forever.
pub(crate) async fn guard<T>(future: impl Future<Output = T>) -> T {
    timeout(GUARD, future).await.expect("no result within a minute")
}

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn proto_ms(millis: u64) -> prost_types::Duration {
    ms(millis).try_into().unwrap()
}

pub(crate) async fn simulator(vendor: Vendor) -> Simulator {
    Simulator::start(vendor).await.unwrap()
}

/// An address of this machine that only its test uses. Nothing listens there: connections are
/// refused, and a program that is started again finds it free.
pub(crate) async fn own_address() -> SocketAddr {
    let [one, two]: [u8; 2] = rand::random();
    let listener = TcpListener::bind((Ipv4Addr::new(127, 78, one, two), 0)).await.unwrap();
    listener.local_addr().unwrap()
}

/// A running gateway; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: CancellationToken,
    task: JoinHandle<Result<(), ServeError>>,
}

impl Gateway {
    pub(crate) async fn start(backends: impl IntoIterator<Item = Backend>) -> Self {
        Self::start_with("", backends).await
    }

    pub(crate) async fn start_with(sections: &str, backends: impl IntoIterator<Item = Backend>) -> Self {
        let text = config_text(sections, backends);
        let config = Config::parse(&text, []).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(server::run(listener, shutdown.clone(), config));
        Self { address, shutdown, task }
    }

    /// Whose configuration can be replaced.
    pub(crate) async fn start_reloading(text: &str, source: ConfigSource) -> Self {
        let config = Config::parse(text, []).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(server::run_reloading(listener, shutdown.clone(), config, source));
        Self { address, shutdown, task }
    }

    pub(crate) fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap().connect_lazy()
    }

    /// A client with a connection of its own.
    pub(crate) fn client(&self) -> Client {
        client_over(self.channel())
    }

    /// A client with a connection from 127.0.0.`last`, which makes it another caller
    /// than the clients of 127.0.0.1.
    #[cfg(target_os = "linux")]
    pub(crate) fn client_from(&self, last: u8) -> Client {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        client_over(endpoint.local_address(Some([127, 0, 0, last].into())).connect_lazy())
    }

    /// Stops it as SIGTERM does.
    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        guard(&mut self.task).await.unwrap().unwrap();
    }
}

fn client_over(channel: Channel) -> Client {
    Client::new(channel).max_decoding_message_size(64 << 20)
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn job(backend: &str, id: &str) -> JobRef {
    JobRef { backend: backend.to_owned(), job_id: id.to_owned(), job_tag: String::new() }
}

/// A simulated vendor, and a client of a gateway with this one backend.
pub(crate) async fn single_backend(vendor: Vendor) -> (Simulator, Client, Gateway) {
    let simulator = simulator(vendor).await;
    let gateway = Gateway::start([Backend::of(&simulator)]).await;
    let client = gateway.client();
    (simulator, client, gateway)
}

/// A job with this plan, and a watch that has received its first status.
pub(crate) async fn watched_job(simulator: &Simulator, client: &Client, plan: Plan) -> (JobRef, Watch) {
    let job = job_at(simulator, &simulator.start_job(plan));
    let mut watch = Watch::of(client, &job).await;
    watch.status().await;
    (job, watch)
}

/// A simulated job, at the backend that is named like its vendor.
pub(crate) fn job_at(simulator: &Simulator, started: &Job) -> JobRef {
    job(simulator.vendor().name(), &started.id)
}

pub(crate) fn get_request(job: &JobRef) -> GetJobStatusRequest {
    GetJobStatusRequest { job: Some(job.clone()), ..Default::default() }
}

pub(crate) fn full(job: &JobRef) -> GetJobStatusRequest {
    GetJobStatusRequest { view: JobStatusView::Full.into(), ..get_request(job) }
}

pub(crate) async fn get_status(
    client: &Client,
    request: impl tonic::IntoRequest<GetJobStatusRequest>,
) -> Result<JobStatus, Status> {
    let response = guard(client.clone().get_job_status(request)).await?;
    Ok(response.into_inner().status.expect("a response has a status"))
}

pub(crate) async fn get(client: &Client, job: &JobRef) -> Result<JobStatus, Status> {
    get_status(client, get_request(job)).await
}

/// One outcome for each job, after checking that each names its job.
pub(crate) async fn batch(
    client: &Client,
    request: impl tonic::IntoRequest<BatchGetStatusesRequest>,
) -> Result<Vec<Result<JobStatus, Status>>, Status> {
    let request = request.into_request();
    let requested = request.get_ref().jobs.clone();
    let response = guard(client.clone().batch_get_statuses(request)).await?.into_inner();
    let named: Vec<_> = response.results.iter().map(|result| result.job.clone().unwrap()).collect();
    assert_eq!(named, requested);
    Ok(response.results.into_iter().map(element).collect())
}

pub(crate) fn batch_request(jobs: impl IntoIterator<Item = JobRef>) -> BatchGetStatusesRequest {
    BatchGetStatusesRequest { jobs: jobs.into_iter().collect(), ..Default::default() }
}

fn element(result: JobStatusResult) -> Result<JobStatus, Status> {
    match result.outcome.expect("an element has an outcome") {
        Outcome::Status(status) => Ok(status),
        Outcome::Error(error) => Err(from_message(&error)),
    }
}

/// The error of an element as the status of a call.
pub(crate) fn from_message(error: &CallError) -> Status {
    Status::from(error)
}

/// A call with a deadline.
pub(crate) fn within<T>(time: Duration, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(time);
    request
}

/// The decoded details of an error.
#[derive(Debug)]
pub(crate) struct DecodedError {
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) reason: String,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) details: ErrorDetails,
}

impl DecodedError {
    pub(crate) fn retry_delay(&self) -> Option<Duration> {
        self.details.retry_info().and_then(|info| info.retry_delay)
    }

    /// The one field of a BadRequest.
    pub(crate) fn field(&self) -> &str {
        let [violation] = &self.details.bad_request().expect("a BadRequest").field_violations[..] else {
            panic!("{self:?}")
        };
        assert!(!violation.description.is_empty());
        &violation.field
    }
}

pub(crate) fn decode_error(status: &Status) -> DecodedError {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!(info.domain, "jobwatch");
    DecodedError {
        code: status.code(),
        message: status.message().to_owned(),
        reason: info.reason.clone(),
        metadata: info.metadata.clone().into_iter().collect(),
        details,
    }
}

/// The visible parts of an error contain no secret, no address and no body, nor any of `more`.
pub(crate) fn assert_shows_none_of(error: &Status, what: &str, more: &[&str]) {
    let details = String::from_utf8_lossy(error.details()).into_owned();
    let visible = format!("{error:?} {error} {details} {:?}", decode_error(error));
    let always = [
        credentials::IMMUTA_API_KEY,
        credentials::KINETICA_PASSWORD,
        credentials::CLARET_PASSWORD,
        credentials::DATASAUR_CLIENT_SECRET,
        "Bearer",
        "127.0.0.1",
        "BODY",
    ];
    for text in always.iter().chain(more) {
        assert!(!visible.contains(text), "{what}: {text:?} in {visible}");
    }
}

/// Code and reason.
pub(crate) fn code_and_reason(status: &Status) -> (Code, String) {
    let decoded = decode_error(status);
    (decoded.code, decoded.reason)
}

/// A message as gRPC frames it.
pub(crate) fn frame(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap());
    frame.extend_from_slice(message);
    frame.freeze()
}

/// Returns once the condition holds.
pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    guard(async {
        while !condition() {
            sleep(ms(10)).await;
        }
    })
    .await;
}

/// The vendor's word for a job that runs.
pub(crate) fn running(vendor: Vendor) -> &'static str {
    match vendor {
        Vendor::Immuta => "active",
        Vendor::Kinetica => "RUNNING",
        Vendor::Claret => "in_progress",
        Vendor::Datasaur => "IN_PROGRESS",
    }
}
