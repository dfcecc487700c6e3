//! Downloads of files of a simulated Claret through a real gateway.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Output, Stdio},
    sync::{Arc, LazyLock},
    time::Duration,
};

use jobwatch::{
    config::Config,
    proto::v1::{
        ArtifactInfo, DownloadArtifactRequest, DownloadArtifactResponse, GetJobStatusRequest, JobRef,
        job_status_service_client::JobStatusServiceClient,
    },
    server,
    simulators::{Category, Content, Effect, Fault, File, Plan, Simulator, Vendor},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status, Streaming, transport::Channel};
use tonic_types::StatusExt;

mod ends;
mod memory;

type Client = JobStatusServiceClient<Channel>;

const SECOND: Duration = Duration::from_secs(1);
/// Longest wait of a test; shorter than the ten minutes of a stalled reader.
const GUARD: Duration = Duration::from_mins(1);
const MEBI: u64 = 1 << 20;

/// More bytes than all buffers between vendor and client hold.
const LARGE: u64 = 64 * MEBI;

/// The bytes of a [`Content::Pattern`] from any offset on.
static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| (0..251 + 65536).map(Content::pattern).collect());

fn pattern(offset: u64, len: usize) -> &'static [u8] {
    let from = usize::try_from(offset % 251).unwrap();
    &PATTERN[from..from + len]
}

/// A separate connection: on a shared one, a stalled reader would fill the connection's
/// window and stop the others.
async fn connect(gateway: SocketAddr) -> Client {
    Client::connect(format!("http://{gateway}")).await.unwrap()
}

struct Gateway {
    claret: Simulator,
    address: SocketAddr,
    shutdown: CancellationToken,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Gateway {
    async fn start() -> Self {
        let claret = Simulator::start(Vendor::Claret).await.unwrap();
        let url = claret.base_url();
        Self::of(claret, &url, "").await
    }

    /// With another URL of the simulator and additional lines of `poll`.
    async fn of(claret: Simulator, url: &str, poll: &str) -> Self {
        let config = format!("allow_inline_secrets = true\n{}{poll}\n", claret.config());
        let config = config.replace(&claret.base_url(), url);
        let drain = ("JOBWATCH__SERVER__DRAIN_TIMEOUT".to_owned(), "3s".to_owned());
        let config = Config::parse(&config, [drain]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        tokio::spawn(server::run(listener, shutdown.clone(), config));
        Self { claret, address, shutdown }
    }

    /// A job that succeeded with these files.
    fn job(&self, files: impl IntoIterator<Item = File>) -> String {
        let plan = Plan { files: files.into_iter().collect(), ..Plan::default() };
        self.claret.start_job(plan).id
    }

    async fn open(
        &self,
        job: &str,
        id: &str,
        offset: i64,
    ) -> Result<Streaming<DownloadArtifactResponse>, Status> {
        let stream = connect(self.address).await.download_artifact(request(job, id, offset)).await?;
        Ok(stream.into_inner())
    }

    /// The first message, and the bytes after it, compared with the pattern.
    async fn download(&self, job: &str, id: &str, offset: i64) -> Result<(ArtifactInfo, u64), Status> {
        let mut stream = self.open(job, id, offset).await?;
        let info = info(&mut stream).await?;
        let from = u64::try_from(offset).unwrap();
        let end = read(&mut stream, from, u64::MAX).await?;
        Ok((info, end - from))
    }

    async fn fails(&self, job: &str, id: &str, offset: i64) -> Failure {
        match self.download(job, id, offset).await {
            Ok(done) => panic!("{done:?}"),
            Err(status) => Failure::of(&status),
        }
    }

    async fn run(&self, dir: &Path, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jobwatch"));
        command.arg("download").args(args).env_clear().current_dir(dir).stdin(Stdio::null());
        command.env("JOBWATCH_SERVER", self.address.to_string()).kill_on_drop(true);
        command.output().await.unwrap()
    }
}

fn file(content: Content) -> File {
    File { category: Category::Output, name: "final.csv".to_owned(), content, location: None }
}

const FILE: &str = "output/final.csv";

fn request(job: &str, id: &str, offset: i64) -> DownloadArtifactRequest {
    let job = JobRef { backend: "claret".to_owned(), job_id: job.to_owned(), ..Default::default() };
    DownloadArtifactRequest { job: Some(job), artifact_id: id.to_owned(), offset, ..Default::default() }
}

async fn info(stream: &mut Streaming<DownloadArtifactResponse>) -> Result<ArtifactInfo, Status> {
    let first = stream.message().await?.expect("a first response");
    assert!(first.data.is_empty());
    Ok(first.info.expect("the first message has the file's information"))
}

/// Reads at least up to `until`, or to the end; every byte has to be the pattern's.
async fn read(
    stream: &mut Streaming<DownloadArtifactResponse>,
    mut at: u64,
    until: u64,
) -> Result<u64, Status> {
    while at < until {
        let Some(DownloadArtifactResponse { info, data }) = stream.message().await? else { break };
        assert!(info.is_none() && (1..=65536).contains(&data.len()));
        assert!(data == pattern(at, data.len()), "a wrong byte after {at}");
        at += data.len() as u64;
    }
    Ok(at)
}

/// The parts of an error that a client can read.
#[derive(Debug, PartialEq, Eq)]
struct Failure {
    code: Code,
    reason: String,
    detail: String,
    field: String,
    retry: bool,
}

impl Failure {
    fn of(status: &Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info().unwrap_or_else(|| panic!("{status:?}"));
        let field = details.bad_request().and_then(|bad| bad.field_violations.first());
        if info.reason == "ARTIFACT_NOT_FOUND" {
            for name in ["backend", "job_id", "artifact_id"] {
                assert!(info.metadata.contains_key(name), "{name}");
            }
            assert_eq!(details.resource_info().unwrap().resource_type, "artifact");
        }
        Self {
            code: status.code(),
            reason: info.reason.clone(),
            detail: info.metadata.get("detail").cloned().unwrap_or_default(),
            field: field.map(|violation| violation.field.clone()).unwrap_or_default(),
            retry: details.retry_info().is_some(),
        }
    }

    fn new(code: Code, reason: &str) -> Self {
        let retry = code == Code::Unavailable;
        Self { code, reason: reason.to_owned(), detail: String::new(), field: String::new(), retry }
    }

    fn not_found(detail: &str) -> Self {
        Self { detail: detail.to_owned(), ..Self::new(Code::NotFound, "ARTIFACT_NOT_FOUND") }
    }

    fn invalid(field: &str) -> Self {
        Self { field: field.to_owned(), ..Self::new(Code::InvalidArgument, "INVALID_REQUEST") }
    }

    fn unavailable() -> Self {
        Self::new(Code::Unavailable, "BACKEND_UNAVAILABLE")
    }

    fn rejected() -> Self {
        Self { retry: true, ..Self::new(Code::FailedPrecondition, "BACKEND_CREDENTIALS_REJECTED") }
    }
}

/// A proxy between gateway and vendor that counts the connections with a download and
/// can reset them.
struct Tap {
    address: SocketAddr,
    open: watch::Receiver<usize>,
    reset: Arc<watch::Sender<u64>>,
}

impl Tap {
    async fn start(vendor: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (count, open) = watch::channel(0);
        let (reset, _) = watch::channel(0);
        let (count, reset) = (Arc::new(count), Arc::new(reset));
        let resets = Arc::clone(&reset);
        tokio::spawn(async move {
            while let Ok((gateway, _)) = listener.accept().await {
                tokio::spawn(tap(gateway, vendor, Arc::clone(&count), resets.subscribe()));
            }
        });
        Self { address, open, reset }
    }

    fn reset(&self) {
        self.reset.send_modify(|times| *times += 1);
    }

    async fn is_open(&mut self, count: usize) {
        self.open.wait_for(|open| *open == count).await.unwrap();
    }
}

async fn tap(
    mut gateway: TcpStream,
    vendor: SocketAddr,
    count: Arc<watch::Sender<usize>>,
    mut reset: watch::Receiver<u64>,
) {
    let mut head = vec![0; 65536];
    let len = gateway.read(&mut head).await.unwrap_or_default();
    let is_file = String::from_utf8_lossy(&head[..len]).contains("/download/");
    let mut vendor = TcpStream::connect(vendor).await.unwrap();
    vendor.write_all(&head[..len]).await.unwrap();
    if !is_file {
        let _ = copy_bidirectional(&mut gateway, &mut vendor).await;
        return;
    }
    count.send_modify(|open| *open += 1);
    let (mut from_gateway, mut to_gateway) = gateway.split();
    let (mut from_vendor, _to_vendor) = vendor.split();
    let mut byte = [0];
    tokio::select! {
        // The whole request is here, so the next read is the end.
        _ = from_gateway.read(&mut byte) => {}
        _ = tokio::io::copy(&mut from_vendor, &mut to_gateway) => {}
        _ = reset.changed() => gateway.set_zero_linger().unwrap(),
    }
    count.send_modify(|open| *open -= 1);
}

/// A gateway that reaches its vendor through a [`Tap`].
async fn tapped() -> (Gateway, Tap) {
    let claret = Simulator::start(Vendor::Claret).await.unwrap();
    let tap = Tap::start(claret.addr()).await;
    let url = format!("http://{}", tap.address);
    (Gateway::of(claret, &url, "").await, tap)
}

#[tokio::test]
async fn download_returns_the_file_and_its_metadata() {
    let gateway = Gateway::start().await;
    let job = gateway.job([file(Content::Pattern(200_000))]);
    let (info, bytes) = gateway.download(&job, FILE, 0).await.unwrap();
    let expected = ArtifactInfo {
        content_type: "text/csv; charset=UTF-8".to_owned(),
        file_name: "final.csv".to_owned(),
        size_bytes: Some(200_000),
        version: info.version.clone(),
    };
    assert_eq!((info, bytes), (expected, 200_000));
    let empty = gateway.job([file(Content::Pattern(0))]);
    let (info, bytes) = gateway.download(&empty, FILE, 0).await.unwrap();
    assert_eq!((info.size_bytes, bytes), (Some(0), 0));
}

#[tokio::test]
async fn download_resumes_at_any_offset_with_or_without_ranges() {
    let gateway = Gateway::start().await;
    let job = gateway.job([file(Content::Pattern(200_000))]);
    for _ in 0..2 {
        for (offset, rest) in [(1, 199_999), (65_536, 134_464), (199_999, 1), (200_000, 0)] {
            let (info, bytes) = gateway.download(&job, FILE, offset).await.unwrap();
            assert_eq!((info.size_bytes, bytes), (Some(200_000), rest), "from {offset} on");
        }
        assert_eq!(gateway.fails(&job, FILE, 200_001).await, Failure::invalid("offset"));
        gateway.claret.inject(Fault::new(Effect::IgnoreRange).at("/download/"));
    }
}

#[tokio::test]
async fn request_with_bad_field_names_the_field() {
    let gateway = Gateway::start().await;
    let job = gateway.job([file(Content::Pattern(9))]);
    assert_eq!(
        gateway.open(&job, FILE, -1).await.map_err(|status| Failure::of(&status)).unwrap_err(),
        Failure::invalid("offset")
    );
    assert_eq!(gateway.fails(&job, "", 0).await, Failure::invalid("artifact_id"));
    assert_eq!(gateway.fails(&job, &"x".repeat(2049), 0).await, Failure::invalid("artifact_id"));
    assert_eq!(gateway.fails("x", FILE, 0).await.field, "job.job_id");
    assert_eq!(gateway.fails("77", FILE, 0).await.reason, "JOB_NOT_FOUND");
    assert_eq!(gateway.claret.count("/download/"), 0);
}

#[tokio::test]
async fn download_of_an_unknown_artifact_polls_the_job_first() {
    let gateway = Gateway::start().await;
    let id = gateway.claret.start_job(Plan::fixed("in_progress").file(
        Category::Output,
        "final.csv",
        Content::Pattern(9),
    ));
    assert_eq!(gateway.fails(&id.id, FILE, 0).await, Failure::not_found("not_ended"));
    assert_eq!(gateway.claret.count("/imports/status/"), 2);
    gateway.claret.finish(&id.id);
    assert_eq!(gateway.download(&id.id, FILE, 0).await.unwrap().1, 9);
    assert_eq!(gateway.fails(&id.id, "output/x", 0).await, Failure::not_found(""));
}

#[tokio::test]
async fn artifact_location_at_another_origin_is_refused_without_a_request() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other = elsewhere.local_addr().unwrap();
    let gateway = Gateway::start().await;
    let own = gateway.claret.addr();
    for (location, detail) in [
        (format!("http://{other}/a.csv"), "other_origin"),
        (format!("https://{own}/a.csv"), "other_origin"),
        (format!("//{other}/a.csv"), "other_origin"),
        (format!("http://{own}@{other}/a.csv"), "user_info"),
        (format!("/\\{other}/a.csv"), "backslash"),
        ("/demo/download/../api/a.csv".to_owned(), "parent_directory"),
        ("/demo/download/%2e%2E/a.csv".to_owned(), "parent_directory"),
        ("/demo/download/a.csv%0d%0aX:".to_owned(), "control_character"),
        ("ftp://files.example/a.csv".to_owned(), "scheme"),
        ("file:///etc/a.csv".to_owned(), "scheme"),
    ] {
        let job = gateway.job([File { location: Some(location.clone()), ..file(Content::Pattern(9)) }]);
        let request = GetJobStatusRequest { job: self::request(&job, "", 0).job, ..Default::default() };
        let status = connect(gateway.address)
            .await
            .get_job_status(request)
            .await
            .unwrap()
            .into_inner()
            .status
            .unwrap();
        let id = &status.artifacts[0].artifact_id;
        assert_eq!(gateway.fails(&job, id, 0).await, Failure::not_found(detail), "{location}");
    }
    assert_eq!(gateway.claret.count("/a.csv"), 0);
    assert!(timeout(Duration::from_millis(50), elsewhere.accept()).await.is_err(), "nobody called");
}

#[tokio::test]
async fn artifact_url_at_the_vendors_origin_is_fetched() {
    let gateway = Gateway::start().await;
    let plain = gateway.job([file(Content::Pattern(9))]);
    assert_eq!(gateway.download(&plain, FILE, 0).await.unwrap().1, 9);
    let calls = gateway.claret.calls();
    let path = &calls.iter().find(|call| call.path.contains("/download/")).unwrap().path;
    for location in [format!("{}{path}", gateway.claret.base_url()), path[1..].to_owned()] {
        let job = gateway.job([File { location: Some(location), ..file(Content::Pattern(1)) }]);
        assert_eq!(gateway.download(&job, FILE, 0).await.unwrap().1, 9);
    }
}

#[tokio::test]
async fn download_that_the_vendor_refuses_reports_its_message() {
    let gateway = Gateway::start().await;
    let job = gateway.job([file(Content::Pattern(9))]);
    let login = format!("{}/demo/login", gateway.claret.base_url());
    for (effect, failure) in [
        (
            Effect::Redirect(format!("{}/demo/download/b.csv", gateway.claret.base_url())),
            Failure::not_found("redirect"),
        ),
        (Effect::Redirect("http://192.0.2.1/a.csv".to_owned()), Failure::not_found("redirect")),
        (Effect::Redirect(login), Failure::rejected()),
        (Effect::Html(200), Failure::new(Code::Internal, "BACKEND_MALFORMED")),
        (Effect::status(401, "{}"), Failure::rejected()),
        (Effect::status(403, "{}"), Failure::new(Code::FailedPrecondition, "BACKEND_FORBIDDEN")),
        (Effect::status(404, "{}"), Failure::not_found("")),
        (Effect::status(400, "{}"), Failure::new(Code::FailedPrecondition, "BACKEND_REJECTED")),
        (Effect::status(503, "{}"), Failure::unavailable()),
        (Effect::Reset, Failure::unavailable()),
        (Effect::Empty204, Failure::new(Code::Internal, "BACKEND_MALFORMED")),
    ] {
        gateway.claret.inject(Fault::new(effect.clone()).at("/download/"));
        let expected = format!("{failure:?}");
        assert_eq!(format!("{:?}", gateway.fails(&job, FILE, 0).await), expected, "{effect:?}");
        gateway.claret.clear_faults();
        assert_eq!(gateway.download(&job, FILE, 0).await.unwrap().1, 9, "after {effect:?}");
    }
}

#[tokio::test]
async fn throttled_download_holds_back_further_requests() {
    let gateway = Gateway::start().await;
    let job = gateway.job([file(Content::Pattern(9))]);
    gateway.claret.inject(Fault::new(Effect::retry_after(429, 60)).at("/download/"));
    let throttled = Failure::new(Code::Unavailable, "BACKEND_THROTTLED");
    assert_eq!(gateway.fails(&job, FILE, 0).await, throttled);
    gateway.claret.clear_faults();
    let sent = gateway.claret.calls().len();
    assert_eq!(gateway.fails(&job, FILE, 0).await, throttled);
    assert_eq!(gateway.claret.calls().len(), sent, "nothing more is sent");
}

#[tokio::test]
async fn expired_token_is_refreshed_once() {
    let gateway = Gateway::start().await;
    let job = gateway.job([file(Content::Pattern(9))]);
    assert_eq!(gateway.download(&job, FILE, 0).await.unwrap().1, 9);
    gateway.claret.expire_tokens();
    assert_eq!(gateway.download(&job, FILE, 0).await.unwrap().1, 9);
    assert_eq!(gateway.claret.count("/tokens/create"), 2);
    gateway.claret.reject_credentials(true);
    assert_eq!(gateway.fails(&job, FILE, 0).await, Failure::rejected());
    assert_eq!(gateway.claret.count("/tokens/create"), 3);
}

#[tokio::test]
async fn cli_download_writes_the_file_only_when_complete() {
    let (gateway, mut tap) = tapped().await;
    let dir = tempfile::tempdir().unwrap();
    let names = || {
        let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.into_string().unwrap()).collect::<Vec<_>>()
    };
    let job = gateway.job([file(Content::Pattern(LARGE))]);
    let target = format!("claret/{job}");
    // A download that is reset resumes where it was.
    let cutter = async {
        tap.is_open(1).await;
        tap.reset();
    };
    let args = [&*target, FILE];
    let (output, ()) = tokio::join!(gateway.run(dir.path(), &args), cutter);
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{err}");
    assert!(err.contains("interrupted at byte ") && err.contains("(UNAVAILABLE: "), "{err}");
    assert_eq!(names(), ["final.csv"]);
    let bytes = fs::read(dir.path().join("final.csv")).unwrap();
    assert_eq!(bytes.len() as u64, LARGE);
    assert!(bytes.chunks(251).all(|chunk| chunk == &PATTERN[..chunk.len()]));

    let output = gateway.run(dir.path(), &[&target, FILE]).await;
    assert_eq!(output.status.code(), Some(2), "its name is taken");
    let start = (LARGE - 3).to_string();
    let output = gateway.run(dir.path(), &[&target, FILE, "-o", "-", "--offset", &start]).await;
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), pattern(LARGE - 3, 3)));
    let output = gateway.run(dir.path(), &[&target, "output/none", "-o", "none.csv"]).await;
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{err}");
    assert!(err.contains("ARTIFACT_NOT_FOUND"), "{err}");
    assert_eq!(names(), ["final.csv"]);
}
