//! The built program against a scripted gateway: its output and exit codes.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    pin::Pin,
    process::{Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::{Stream, StreamExt, stream};
use jobwatch::proto::v1::{
    BatchGetStatusesRequest, BatchGetStatusesResponse, DownloadArtifactRequest, DownloadArtifactResponse,
    GetJobStatusRequest, GetJobStatusResponse, Heartbeat, Interruption, JobError, JobRef, JobState,
    JobStatus, JobStatusResult, ListBackendsRequest, ListBackendsResponse, ListJobsRequest, ListJobsResponse,
    WatchJobRequest, WatchJobResponse, WatchJobsRequest, WatchJobsResponse, job_status_result,
    job_status_service_server::{JobStatusService, JobStatusServiceServer},
    watch_job_response::Event,
    watch_jobs_request, watch_jobs_response,
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::Notify,
};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Request, Response, Status, Streaming,
    transport::{Identity, Server, ServerTlsConfig},
};
use tonic_types::{ErrorDetails, StatusExt};

use crate::harness::{guard, own_address};

#[cfg(target_os = "linux")]
mod ends;
#[cfg(target_os = "linux")]
mod layout;
mod rejected;
#[cfg(target_os = "linux")]
mod restarts;
#[cfg(target_os = "linux")]
mod terminal;
mod tls;
mod usage;
mod watch;

type Replies = Vec<Result<WatchJobResponse, Status>>;

/// Responds according to the job's id. Each watch that is added takes the next script.
#[derive(Debug, Default)]
struct Scripted {
    watches: Arc<Mutex<VecDeque<Replies>>>,
    watch_requests: Arc<Mutex<Vec<WatchJobRequest>>>,
    /// Calls of WatchJobs.
    calls: AtomicUsize,
    get_requests: Mutex<Vec<GetJobStatusRequest>>,
    /// Whether a watch stays open after its script.
    stays_open: bool,
}

fn status(job: &JobRef) -> Result<JobStatus, Status> {
    let (state, word, terminal) = match &*job.job_id {
        "done" => (JobState::Succeeded, "completed", true),
        "failed" => (JobState::Failed, "failed", true),
        "running" => (JobState::Running, "active", false),
        _ => {
            let details = ErrorDetails::with_error_info("JOB_NOT_FOUND", "jobwatch", []);
            return Err(Status::with_error_details(Code::NotFound, "no such job", details));
        }
    };
    let error = (state == JobState::Failed)
        .then(|| JobError { message: "no such column".to_owned(), ..Default::default() });
    Ok(JobStatus {
        job: Some(job.clone()),
        state: state.into(),
        vendor_state: word.to_owned(),
        terminal,
        error,
        observe_time: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
        ..Default::default()
    })
}

#[allow(clippy::unnecessary_wraps, clippy::result_large_err, reason = "a script is a list of results")]
fn response(id: &str, resume_token: &str) -> Result<WatchJobResponse, Status> {
    let job = JobRef { backend: "immuta".to_owned(), job_id: id.to_owned(), ..Default::default() };
    let event = Some(Event::Status(status(&job).unwrap()));
    Ok(WatchJobResponse { event, resume_token: resume_token.to_owned() })
}

/// A reply of a watch in a call for many: an error that may pass ends the call.
#[allow(clippy::result_large_err, reason = "the items of a stream")]
fn outcome(watch_id: u64, reply: Result<WatchJobResponse, Status>) -> Result<WatchJobsResponse, Status> {
    let outcome = match reply {
        Ok(response) => watch_jobs_response::Outcome::Event(response),
        Err(status) if status.code() == Code::Unavailable => return Err(status),
        Err(status) => watch_jobs_response::Outcome::End((&status).into()),
    };
    Ok(WatchJobsResponse { watch_id, outcome: Some(outcome) })
}

#[tonic::async_trait]
impl JobStatusService for Scripted {
    type WatchJobStream = stream::Empty<Result<WatchJobResponse, Status>>;
    type WatchJobsStream = Pin<Box<dyn Stream<Item = Result<WatchJobsResponse, Status>> + Send>>;
    type DownloadArtifactStream = stream::Empty<Result<DownloadArtifactResponse, Status>>;

    async fn get_job_status(
        &self,
        request: Request<GetJobStatusRequest>,
    ) -> Result<Response<GetJobStatusResponse>, Status> {
        let request = request.into_inner();
        let result = status(request.job.as_ref().unwrap());
        self.get_requests.lock().unwrap().push(request);
        result.map(|status| Response::new(GetJobStatusResponse { status: Some(status) }))
    }

    async fn batch_get_statuses(
        &self,
        request: Request<BatchGetStatusesRequest>,
    ) -> Result<Response<BatchGetStatusesResponse>, Status> {
        let result = |job: JobRef| {
            let outcome = match status(&job) {
                Ok(status) => job_status_result::Outcome::Status(status),
                Err(error) => job_status_result::Outcome::Error((&error).into()),
            };
            JobStatusResult { job: Some(job), outcome: Some(outcome) }
        };
        let results = request.into_inner().jobs.into_iter().map(result).collect();
        Ok(Response::new(BatchGetStatusesResponse { results }))
    }

    async fn watch_job(&self, _: Request<WatchJobRequest>) -> Result<Response<Self::WatchJobStream>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn watch_jobs(
        &self,
        requests: Request<Streaming<WatchJobsRequest>>,
    ) -> Result<Response<Self::WatchJobsStream>, Status> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let (scripts, requested) = (Arc::clone(&self.watches), Arc::clone(&self.watch_requests));
        let stays_open = self.stays_open;
        let responses = requests.into_inner().map(move |request| {
            let Ok(WatchJobsRequest { request: Some(watch_jobs_request::Request::Add(add)) }) = request
            else {
                return stream::empty().boxed();
            };
            requested.lock().unwrap().push(add.watch.unwrap());
            let script = scripts.lock().unwrap().pop_front();
            let mut script = script.unwrap_or_else(|| vec![Err(Status::not_found("the script has ended"))]);
            let is_over = |reply: &Result<WatchJobResponse, Status>| match reply {
                Ok(response) => matches!(&response.event, Some(Event::Status(status)) if status.terminal),
                Err(_) => true,
            };
            if !stays_open && !script.last().is_some_and(is_over) {
                script.push(Err(Status::unavailable("the script has ended")));
            }
            stream::iter(script.into_iter().map(move |reply| outcome(add.watch_id, reply))).boxed()
        });
        Ok(Response::new(responses.flatten_unordered(None).boxed()))
    }

    async fn download_artifact(
        &self,
        _: Request<DownloadArtifactRequest>,
    ) -> Result<Response<Self::DownloadArtifactStream>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn list_jobs(&self, _: Request<ListJobsRequest>) -> Result<Response<ListJobsResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn list_backends(
        &self,
        _: Request<ListBackendsRequest>,
    ) -> Result<Response<ListBackendsResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }
}

struct Gateway {
    address: SocketAddr,
    script: Arc<Scripted>,
    stop: CancellationToken,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn scripts(watches: Vec<Replies>) -> Arc<Mutex<VecDeque<Replies>>> {
    Arc::new(Mutex::new(watches.into()))
}

impl Gateway {
    async fn start(watches: Vec<Replies>) -> Self {
        Self::serve(Scripted { watches: scripts(watches), ..Scripted::default() }).await
    }

    async fn serve(script: Scripted) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(script);
        let stop = CancellationToken::new();
        let server = Server::builder()
            .add_service(JobStatusServiceServer::from_arc(script.clone()))
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.clone().cancelled_owned());
        tokio::spawn(server);
        Self { address, script, stop }
    }

    async fn run(&self, args: &[&str]) -> Ran {
        let mut command = jobwatch(args);
        command.env("JOBWATCH_SERVER", self.address.to_string());
        Ran::of(&command.output().await.unwrap())
    }
}

fn jobwatch(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jobwatch"));
    command.args(args).env_clear().stdin(Stdio::null()).kill_on_drop(true);
    command
}

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    fn of(output: &Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout.clone()).unwrap(),
            err: String::from_utf8(output.stderr.clone()).unwrap(),
        }
    }

    /// One JSON object per line.
    fn json(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[tokio::test]
async fn get_prints_one_json_line_and_exits_by_job_state() {
    let gateway = Gateway::start(Vec::new()).await;
    for (job, code, state) in [
        ("immuta/done", 0, "JOB_STATE_SUCCEEDED"),
        ("immuta/failed", 1, "JOB_STATE_FAILED"),
        ("immuta/running", 4, "JOB_STATE_RUNNING"),
    ] {
        let ran = gateway.run(&["get", job]).await;
        assert_eq!(ran.code, Some(code), "{}", ran.err);
        let [status] = &ran.json()[..] else { panic!("{}", ran.out) };
        assert_eq!(status["state"], state);
        assert_eq!(status["job"]["backend"], "immuta");
        assert_eq!(status["observeTime"], "2023-11-14T22:13:20Z");
        assert_eq!(ran.err, "");
    }
}

#[tokio::test]
async fn several_jobs_exit_with_the_worst_code() {
    let gateway = Gateway::start(Vec::new()).await;
    for (jobs, code) in [
        (["immuta/done", "immuta/done"], 0),
        (["immuta/done", "immuta/running"], 4),
        (["immuta/failed", "immuta/running"], 1),
        (["immuta/none", "immuta/failed"], 3),
    ] {
        for command in ["get", "batch"] {
            let ran = gateway.run(&[command, jobs[0], jobs[1]]).await;
            assert_eq!(ran.code, Some(code), "{command} {jobs:?}: {}", ran.err);
        }
    }
}

#[tokio::test]
async fn failed_get_prints_code_reason_and_advice() {
    let gateway = Gateway::start(Vec::new()).await;
    let ran = gateway.run(&["get", "immuta/none"]).await;
    assert_eq!((ran.code, &*ran.out), (Some(3), ""));
    assert!(ran.err.starts_with("error: immuta/none: NOT_FOUND: no such job\n  reason     JOB_NOT_FOUND\n"));
    assert!(ran.err.contains("  do         check the id"), "{}", ran.err);
}

#[tokio::test]
async fn batch_prints_elements_in_order_with_decoded_errors() {
    let gateway = Gateway::start(Vec::new()).await;
    let ran = gateway.run(&["batch", "--json", "immuta/done", "immuta/none", "immuta/done"]).await;
    let results = ran.json();
    assert_eq!(results.len(), 3);
    assert_eq!(results[0], results[2]);
    assert_eq!(results[0]["status"]["state"], "JOB_STATE_SUCCEEDED");
    assert_eq!(results[1]["error"]["reason"], "JOB_NOT_FOUND");
}

#[tokio::test]
async fn error_with_json_is_an_object_on_stdout() {
    let details = ErrorDetails::with_error_info("JOB_NOT_FOUND", "jobwatch", []);
    let gone = Status::with_error_details(Code::NotFound, "no such job", details);
    let gateway = Gateway::start(vec![vec![response("running", "a"), Err(gone)]]).await;
    let of_batch = gateway.run(&["batch", "--json", "immuta/none"]).await;
    assert_eq!(of_batch.json()[0]["error"]["reason"], "JOB_NOT_FOUND");
    for command in ["get", "watch"] {
        let ran = gateway.run(&[command, "--json", "immuta/none"]).await;
        assert_eq!((ran.code, &*ran.err), (Some(3), ""), "{command}");
        assert_eq!(ran.json().last(), of_batch.json().last(), "{command}");
    }
    let bare = gateway.run(&["watch", "--json", "immuta/none"]).await.json().remove(0);
    assert_eq!(bare["error"], serde_json::json!({ "code": 5, "message": "the script has ended" }));
}

#[tokio::test]
async fn unreachable_gateway_with_json_is_an_object_on_stdout() {
    let address = own_address().await.to_string();
    for command in ["get", "batch", "watch"] {
        let args = [command, "--json", "immuta/1", "--server", &address];
        let ran = Ran::of(&jobwatch(&args).output().await.unwrap());
        assert_eq!((ran.code, &*ran.err), (Some(3), ""), "{command}");
        let [line] = &ran.json()[..] else { panic!("{}", ran.out) };
        assert_eq!(line["error"]["code"], 14);
        assert!(line["error"]["message"].as_str().unwrap().starts_with("can't reach a gateway at "));
    }
}

#[tokio::test]
async fn tag_wait_and_max_age_are_sent_to_the_gateway() {
    let gateway = Gateway::start(Vec::new()).await;
    let ran = gateway
        .run(&["get", "k/done", "--tag", "t", "--wait", "1m", "--max-age", "250ms", "--view", "full"])
        .await;
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let request = gateway.script.get_requests.lock().unwrap().remove(0);
    assert_eq!(request.job.unwrap().job_tag, "t");
    assert_eq!(request.wait, Some(prost_types::Duration { seconds: 60, nanos: 0 }));
    assert_eq!(request.max_age, Some(prost_types::Duration { seconds: 0, nanos: 250_000_000 }));
    assert_eq!(request.view, 3);
}

#[tokio::test]
async fn https_gateway_is_verified_with_the_given_ca() {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, cert.pem()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let identity = Identity::from_pem(cert.pem(), signing_key.serialize_pem());
    let server = Server::builder()
        .tls_config(ServerTlsConfig::new().identity(identity))
        .unwrap()
        .add_service(JobStatusServiceServer::new(Scripted::default()))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);

    let args = ["get", "immuta/done", "--server", &url];
    let trusting = [&args[..], &["--ca", ca.to_str().unwrap()]].concat();
    let ran = Ran::of(&jobwatch(&trusting).output().await.unwrap());
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let ran = Ran::of(&jobwatch(&args).output().await.unwrap());
    assert_eq!(ran.code, Some(3));
    assert!(ran.err.starts_with(&format!("error: can't reach a gateway at {url}: ")), "{}", ran.err);
    assert!(ran.err.contains("certificate"), "{}", ran.err);
}

#[tokio::test]
async fn unreachable_gateway_is_one_line_and_exit_code_3() {
    let address = own_address().await;
    for command in ["get", "batch", "watch"] {
        let output =
            jobwatch(&[command, "immuta/1", "--server", &address.to_string()]).output().await.unwrap();
        let ran = Ran::of(&output);
        assert_eq!(ran.code, Some(3));
        let expected = format!("error: can't reach a gateway at http://{address}: Connection refused");
        assert!(ran.err.starts_with(&expected) && ran.err.lines().count() == 1, "{}", ran.err);
    }
}

#[tokio::test]
async fn wrong_usage_exits_2() {
    for args in [
        &["get"][..],
        &["get", "immuta"],
        &["get", "immuta/1", "immuta/2", "--tag", "t"],
        &["get", "immuta/1", "--wait", "soon"],
        &["get", "immuta/1", "--server", "ftp://x"],
        &["serve", "--config", "/no/such/file"],
        &["check", "--config", "/no/such/file"],
        &["frobnicate"],
    ] {
        let output = jobwatch(args).output().await.unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
}

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/jobwatch.example.toml");

#[tokio::test]
async fn check_of_example_with_secrets_succeeds() {
    let mut command = jobwatch(&["check", "--config", EXAMPLE]);
    for name in ["IMMUTA_API_KEY", "KINETICA_PASSWORD", "CLARET_PASSWORD", "DATASAUR_CLIENT_SECRET"] {
        command.env(name, "hush");
    }
    let ran = Ran::of(&command.output().await.unwrap());
    assert_eq!((ran.code, &*ran.err), (Some(0), ""));
    assert_eq!(ran.out.lines().filter(|line| line.starts_with("OK ")).count(), 4, "{}", ran.out);
}

#[tokio::test]
async fn check_of_invalid_configuration_reports_every_problem() {
    let mut command = jobwatch(&["check", "--config", EXAMPLE]);
    command.env("JOBWATCH__LIMITS__WATCHES", "many");
    let ran = Ran::of(&command.output().await.unwrap());
    assert_eq!((ran.code, &*ran.out), (Some(2), ""));
    assert_eq!(ran.err.lines().count(), 5, "{}", ran.err);
    assert!(ran.err.contains("error: backends.claret.credentials.password is the variable CLARET_PASSWORD"));
    assert!(ran.err.contains("error: limits.watches (set by JOBWATCH__LIMITS__WATCHES) is \"many\""));
}

#[tokio::test]
async fn serve_on_port_in_use_exits_2() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("jobwatch.toml");
    std::fs::write(&config, "[backends.db]\nvendor = \"kinetica\"\nbase_url = \"http://127.0.0.1:1\"")
        .unwrap();
    let mut command = jobwatch(&["serve", "--config", config.to_str().unwrap()]);
    command.env("JOBWATCH__SERVER__LISTEN", &address);
    let ran = Ran::of(&command.output().await.unwrap());
    assert_eq!((ran.code, &*ran.out), (Some(2), ""));
    assert!(
        ran.err.contains(&format!("server.listen {address} can't be listened on: Address already in use"))
    );
}
