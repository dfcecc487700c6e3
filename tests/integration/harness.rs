//! A real gateway in front of simulated vendors, and a client of it.

use std::{collections::BTreeMap, fmt::Write, future::Future, net::SocketAddr, time::Duration};

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

/// One `[backends.x]` of a configuration: by default with its vendor's name,
/// the vendor's usual credentials and a short poll interval.
#[derive(Clone, Debug)]
pub(crate) struct Backend {
    name: String,
    vendor: Vendor,
    url: String,
    credentials: String,
    more: String,
    poll: BTreeMap<&'static str, String>,
}

impl Backend {
    pub(crate) fn of(simulator: &Simulator) -> Self {
        Self::at(simulator.vendor(), simulator.base_url())
    }

    pub(crate) fn at(vendor: Vendor, url: impl Into<String>) -> Self {
        let credentials = match vendor {
            Vendor::Immuta => format!("{{ api_key = {:?} }}", credentials::IMMUTA_API_KEY),
            Vendor::Kinetica => format!(
                "{{ username = {:?}, password = {:?} }}",
                credentials::KINETICA_USER,
                credentials::KINETICA_PASSWORD
            ),
            Vendor::Claret => format!(
                "{{ email = {:?}, password = {:?} }}",
                credentials::CLARET_EMAIL,
                credentials::CLARET_PASSWORD
            ),
            Vendor::Datasaur => format!(
                "{{ client_id = {:?}, client_secret = {:?} }}",
                credentials::DATASAUR_CLIENT_ID,
                credentials::DATASAUR_CLIENT_SECRET
            ),
        };
        let poll = [
            ("min_interval", "50ms"),
            ("max_interval", "200ms"),
            ("timeout", "5s"),
            ("not_found_grace", "300ms"),
            ("max_backoff", "200ms"),
        ];
        let mut poll: BTreeMap<_, _> =
            poll.into_iter().map(|(key, value)| (key, format!("{value:?}"))).collect();
        poll.insert("requests_per_second", "1000".to_owned());
        Self { name: vendor.to_string(), vendor, url: url.into(), credentials, more: String::new(), poll }
    }

    /// An address without a listener.
    pub(crate) async fn dead(vendor: Vendor) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::at(vendor, format!("http://{}", listener.local_addr().unwrap()))
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    pub(crate) fn path(mut self, path: &str) -> Self {
        self.url.push_str(path);
        self
    }

    pub(crate) fn credentials(mut self, toml: impl Into<String>) -> Self {
        self.credentials = toml.into();
        self
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.credentials(format!("{{ bearer = {token:?} }}"))
    }

    /// A key of the vendor's own, its value in TOML.
    pub(crate) fn key(mut self, key: &str, toml: &str) -> Self {
        writeln!(self.more, "{key} = {toml}").unwrap();
        self
    }

    /// With these clusters behind its own.
    pub(crate) fn standbys(self, standbys: &[&Simulator]) -> Self {
        let urls: Vec<_> = standbys.iter().map(|standby| standby.base_url()).collect();
        self.key("standby_urls", &format!("{urls:?}"))
    }

    /// A key below `poll`, its value in TOML.
    pub(crate) fn poll(mut self, key: &'static str, toml: &str) -> Self {
        self.poll.insert(key, toml.to_owned());
        self
    }

    /// Polls at exactly this interval.
    pub(crate) fn every(self, interval: Duration) -> Self {
        let interval = format!("\"{}ms\"", interval.as_millis());
        let backend = self.poll("min_interval", &interval).poll("max_interval", &interval);
        backend.poll("max_backoff", &interval)
    }

    fn toml(&self) -> String {
        let Self { name, vendor, url, credentials, more, poll } = self;
        let mut toml = format!(
            "\n[backends.{name}]\nvendor = \"{vendor}\"\nbase_url = {url:?}\ncredentials = {credentials}\n"
        );
        if *vendor == Vendor::Claret {
            writeln!(toml, "tenant = {:?}", credentials::CLARET_TENANT).unwrap();
        }
        toml.push_str(more);
        writeln!(toml, "[backends.{name}.poll]").unwrap();
        for (key, value) in poll {
            writeln!(toml, "{key} = {value}").unwrap();
        }
        toml
    }
}

/// A whole configuration file; `sections` come before the backends.
pub(crate) fn config_text(sections: &str, backends: impl IntoIterator<Item = Backend>) -> String {
    let backends: String = backends.into_iter().map(|backend| backend.toml()).collect();
    format!("allow_inline_secrets = true\n{sections}\n{backends}")
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

pub(crate) fn watch_request(job: &JobRef) -> WatchJobRequest {
    WatchJobRequest { job: Some(job.clone()), ..Default::default() }
}

fn with_cause(interruption: Interruption) -> (Interruption, DecodedError) {
    let cause = from_message(interruption.cause.as_ref().expect("an interruption has a cause"));
    (interruption, decode_error(&cause))
}

/// An open watch and the newest token that it sent.
#[derive(Debug)]
pub(crate) struct Watch {
    stream: Streaming<WatchJobResponse>,
    pub(crate) token: String,
}

impl Watch {
    pub(crate) async fn open(
        client: &Client,
        request: impl tonic::IntoRequest<WatchJobRequest>,
    ) -> Result<Self, Status> {
        let stream = guard(client.clone().watch_job(request)).await?.into_inner();
        Ok(Self { stream, token: String::new() })
    }

    pub(crate) async fn of(client: &Client, job: &JobRef) -> Self {
        Self::open(client, watch_request(job)).await.unwrap()
    }

    /// The next event; `None` after OK.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, Status> {
        let Some(response) = guard(self.stream.message()).await? else { return Ok(None) };
        self.token = response.resume_token;
        Ok(Some(response.event.expect("a response has an event")))
    }

    /// The next event that is no heartbeat; `None` after OK. On a busy machine a
    /// heartbeat is due before any other event.
    async fn next_but_heartbeats(&mut self) -> Result<Option<Event>, Status> {
        loop {
            match self.next().await {
                Ok(Some(Event::Heartbeat(_))) => {}
                other => return other,
            }
        }
    }

    /// The next event but for heartbeats, which has to be a status.
    pub(crate) async fn status(&mut self) -> JobStatus {
        match self.next_but_heartbeats().await {
            Ok(Some(Event::Status(status))) => status,
            other => panic!("not a status: {other:?}"),
        }
    }

    /// The next event but for heartbeats, which has to be an interruption; with its
    /// cause.
    pub(crate) async fn interruption(&mut self) -> (Interruption, DecodedError) {
        match self.next_but_heartbeats().await {
            Ok(Some(Event::Interruption(interruption))) => with_cause(interruption),
            other => panic!("not an interruption: {other:?}"),
        }
    }

    /// The next status; heartbeats and interruptions may come before it.
    pub(crate) async fn next_status(&mut self) -> JobStatus {
        loop {
            match self.next().await {
                Ok(Some(Event::Status(status))) => return status,
                Ok(Some(Event::Heartbeat(_) | Event::Interruption(_))) => {}
                other => panic!("no more statuses: {other:?}"),
            }
        }
    }

    /// The terminal status, after which the watch has to end with OK. Anything but an
    /// error may come before it.
    pub(crate) async fn terminal_status(&mut self) -> JobStatus {
        loop {
            let status = self.next_status().await;
            if status.terminal {
                self.end().await.unwrap();
                return status;
            }
        }
    }

    /// The end of the watch, before which only heartbeats may come.
    pub(crate) async fn end(&mut self) -> Result<(), Status> {
        let event = self.next_but_heartbeats().await?;
        assert!(event.is_none(), "it goes on: {event:?}");
        Ok(())
    }

    /// The remaining statuses, and the end.
    pub(crate) async fn rest(&mut self) -> (Vec<JobStatus>, Result<(), Status>) {
        let mut statuses = Vec::new();
        loop {
            match self.next().await {
                Ok(Some(Event::Status(status))) => statuses.push(status),
                Ok(Some(_)) => {}
                Ok(None) => return (statuses, Ok(())),
                Err(error) => return (statuses, Err(error)),
            }
        }
    }
}
