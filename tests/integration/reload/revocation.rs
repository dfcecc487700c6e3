//! Open calls of callers that a reload takes rights from.

use jobwatch::simulators::{Category, Content};
use jobwatch::{
    access::{generate_token, hash_token},
    proto::v1::{
        AddWatch, DownloadArtifactRequest, JobRef, WatchJobsRequest, watch_jobs_request::Request as Change,
    },
};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{settings::with_token, *};
use crate::attacks::attacker::Attacker;

/// Access for the holders of tokens, with a policy each.
fn access(callers: &[(&str, &str, &str)]) -> String {
    let of = |(name, token, _): &(&str, &str, &str)| {
        format!("tokens.{name}.sha256 = [\"{}\"]\n", hash_token(token))
    };
    let tokens: String = callers.iter().map(of).collect();
    let policies: Vec<String> = callers
        .iter()
        .map(|(name, _, policy)| format!("{{ principals = [\"token:{name}\"], {policy} }}"))
        .collect();
    format!("[access]\n{tokens}policies = [{}]\n", policies.join(", "))
}

const ALL: &str = "rights = [\"read\", \"download\"]";

/// The calls that stay open, of one caller.
struct OpenCalls {
    job: JobRef,
    watch: Watch,
    set: WatchSet,
    get: tokio::task::JoinHandle<Result<(), tonic::Status>>,
}

/// A call of `WatchJobs`.
struct WatchSet {
    changes: mpsc::Sender<WatchJobsRequest>,
    events: tonic::Streaming<jobwatch::proto::v1::WatchJobsResponse>,
}

impl WatchSet {
    async fn open(client: &Client, token: &str) -> Self {
        let (changes, receiver) = mpsc::channel(8);
        let request = with_token(ReceiverStream::new(receiver), token);
        let events = guard(client.clone().watch_jobs(request)).await.unwrap().into_inner();
        Self { changes, events }
    }

    async fn add(&self, watch_id: u64, job: &JobRef) {
        let add = AddWatch { watch_id, watch: Some(watch_request(job)) };
        self.changes.send(WatchJobsRequest { request: Some(Change::Add(add)) }).await.unwrap();
    }
}

impl OpenCalls {
    async fn open(simulator: &Simulator, client: &Client, token: &str) -> Self {
        let job = job_at(simulator, &simulator.start_job(Plan::fixed("active")));
        let mut watch = Watch::open(client, with_token(watch_request(&job), token)).await.unwrap();
        watch.status().await;
        let mut set = WatchSet::open(client, token).await;
        set.add(1, &job).await;
        guard(set.events.message()).await.unwrap().unwrap();
        let waits =
            jobwatch::proto::v1::GetJobStatusRequest { wait: Some(proto_ms(600_000)), ..get_request(&job) };
        let mut request = with_token(waits, token);
        request.set_timeout(ms(600_000));
        let polls = simulator.calls().len();
        let get = tokio::spawn({
            let client = client.clone();
            async move { get_status(&client, request).await.map(drop) }
        });
        // The call has begun: it had the job polled.
        guard(simulator.wait_for_calls("/", polls + 1)).await;
        Self { job, watch, set, get }
    }

    /// How each of them ended.
    async fn ends(mut self) -> Vec<tonic::Status> {
        let get = guard(self.get).await.unwrap().unwrap_err();
        let set = guard(self.set.events.message()).await.unwrap_err();
        vec![self.watch.end().await.unwrap_err(), set, get]
    }
}

#[tokio::test]
async fn removed_token_ends_the_open_calls_of_its_holder_and_no_others() {
    let simulator = simulator(Vendor::Immuta).await;
    let [kept, removed] = [generate_token(), generate_token()];
    let backend = || rarely_polled(&simulator);
    let both = access(&[("kept", &kept, ALL), ("removed", &removed, ALL)]);
    let gateway = Reloading::start(&both, [backend()]).await;
    let client = gateway.program.client();
    let mut others = OpenCalls::open(&simulator, &client, &kept).await;
    let calls = OpenCalls::open(&simulator, &client, &removed).await;
    gateway.reload(&access(&[("kept", &kept, ALL)]), [backend()]).await;
    for end in calls.ends().await {
        let error = decode_error(&end);
        assert_eq!((error.code, &*error.reason), (Code::Unavailable, "ACCESS_CHANGED"), "{end:?}");
        assert!(error.details.retry_info().is_some(), "{end:?}");
    }
    let job = job_at(&simulator, &simulator.start_job(Plan::fixed("active")));
    let error = get_status(&client, with_token(get_request(&job), &removed)).await.unwrap_err();
    assert_eq!(code_and_reason(&error), (Code::Unauthenticated, "CALLER_UNAUTHENTICATED".into()));
    // The other caller's calls take further jobs, and receive what happens.
    others.set.add(2, &job).await;
    assert_eq!(guard(others.set.events.message()).await.unwrap().unwrap().watch_id, 2);
    let rights = format!("{ALL}, calls_per_second = 1000");
    gateway.reload(&access(&[("kept", &kept, &rights)]), [backend()]).await;
    assert!(!others.get.is_finished());
    others.get.abort();
    simulator.finish(&others.job.job_id);
    get_status(&client, with_token(get_request(&others.job), &kept)).await.unwrap();
    others.watch.terminal_status().await;
}

#[tokio::test]
async fn backend_that_a_policy_allows_no_longer_ends_the_open_calls_of_its_callers() {
    let (immuta, claret) = (simulator(Vendor::Immuta).await, simulator(Vendor::Claret).await);
    let token = generate_token();
    let backends = || [rarely_polled(&immuta), rarely_polled(&claret)];
    let policy = |backends: &str| access(&[("ci", &token, &format!("{ALL}, backends = [{backends}]"))]);
    let gateway = Reloading::start(&policy("\"immuta\", \"claret\""), backends()).await;
    let client = gateway.program.client();
    let calls = OpenCalls::open(&immuta, &client, &token).await;
    gateway.reload(&policy("\"claret\""), backends()).await;
    for end in calls.ends().await {
        assert_eq!(code_and_reason(&end), (Code::Unavailable, "ACCESS_CHANGED".into()));
    }
    let job = job_at(&immuta, &immuta.start_job(Plan::fixed("active")));
    let error = Watch::open(&client, with_token(watch_request(&job), &token)).await.unwrap_err();
    assert_eq!(code_and_reason(&error).1, "BACKEND_NOT_ALLOWED");
}

#[tokio::test]
async fn download_of_a_caller_without_the_right_ends_although_bytes_are_left() {
    let simulator = simulator(Vendor::Claret).await;
    let token = generate_token();
    let policy = |rights: &str| access(&[("ci", &token, &format!("rights = [{rights}]"))]);
    let gateway = Reloading::start(&policy("\"read\", \"download\""), [Backend::of(&simulator)]).await;
    let client = gateway.program.client();
    // Far more than fits into the buffers on the way.
    let plan = Plan::default().file(Category::Output, "big.bin", Content::Pattern(64 << 20));
    let job = job_at(&simulator, &simulator.start_job(plan));
    let request = DownloadArtifactRequest {
        job: Some(job.clone()),
        artifact_id: "output/big.bin".to_owned(),
        ..Default::default()
    };
    let mut download =
        guard(client.clone().download_artifact(with_token(request, &token))).await.unwrap().into_inner();
    guard(download.message()).await.unwrap().unwrap();
    gateway.reload(&policy("\"read\""), [Backend::of(&simulator)]).await;
    let end = loop {
        match guard(download.message()).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the download has ended as if it were whole"),
            Err(end) => break end,
        }
    };
    assert_eq!(code_and_reason(&end), (Code::Unavailable, "ACCESS_CHANGED".into()));
}

#[tokio::test]
async fn calls_of_a_client_that_takes_nothing_end_with_its_rights() {
    let (immuta, claret) = (simulator(Vendor::Immuta).await, simulator(Vendor::Claret).await);
    let token = generate_token();
    let backends = || [rarely_polled(&immuta), rarely_polled(&claret)];
    let gateway = Reloading::start(&access(&[("ci", &token, ALL)]), backends()).await;
    let job = job_at(&immuta, &immuta.start_job(Plan::fixed("active")));
    let plan = Plan::default().file(Category::Output, "big.bin", Content::Pattern(64 << 20));
    let file = DownloadArtifactRequest {
        job: Some(job_at(&claret, &claret.start_job(plan))),
        artifact_id: "output/big.bin".to_owned(),
        ..Default::default()
    };
    let calls =
        [("WatchJob", watch_request(&job).encode_to_vec()), ("DownloadArtifact", file.encode_to_vec())];
    // A window that is closed, and one with room for a part of a message.
    for window in [0, 100] {
        let address = gateway.program.address().parse().unwrap();
        let mut client = Attacker::connect(address, 1, window).await;
        let mut bodies = Vec::new();
        for (method, message) in &calls {
            let call = client.call_as(&token, method, frame(message)).await.unwrap();
            bodies.push(guard(call).await.unwrap().into_body());
        }
        while gateway.metric("jobwatch_watches_open").await < 1.0 {
            tokio::task::yield_now().await;
        }
        gateway.reload(&access(&[("other", &generate_token(), ALL)]), backends()).await;
        for mut body in bodies {
            // It takes no more than its window: nothing is released.
            let mut received = 0;
            let end = loop {
                match guard(body.data()).await {
                    Some(Ok(bytes)) => received += bytes.len(),
                    end => break end,
                }
            };
            assert!(received <= window as usize, "{received}");
            match end {
                None => {
                    let trailers = guard(body.trailers()).await.unwrap().unwrap();
                    let status = tonic::Status::from_header_map(&trailers).unwrap();
                    assert_eq!(code_and_reason(&status).1, "ACCESS_CHANGED");
                }
                Some(Err(error)) => {
                    assert!(received > 0 && error.reason() == Some(h2::Reason::CANCEL), "{error}");
                }
                Some(Ok(_)) => unreachable!("the loop goes on"),
            }
        }
        while gateway.metric("jobwatch_watches_open").await > 0.0 {
            tokio::task::yield_now().await;
        }
        gateway.reload(&access(&[("ci", &token, ALL)]), backends()).await;
    }
}

#[tokio::test]
async fn event_stream_of_a_removed_token_ends_with_a_failure() {
    let simulator = simulator(Vendor::Immuta).await;
    let token = generate_token();
    let gateway = Reloading::start(&access(&[("ci", &token, ALL)]), [rarely_polled(&simulator)]).await;
    let id = simulator.start_job(Plan::fixed("active")).id;
    let url = format!("http://{}/v1/backends/immuta/jobs/{id}/events", gateway.program.address());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut response = guard(client.get(url).bearer_auth(&token).send()).await.unwrap();
    let mut received = String::new();
    while !received.contains("\n\n") {
        let chunk = guard(response.chunk()).await.unwrap().expect("the stream goes on");
        received.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    assert!(received.starts_with("event: status\n"), "{received}");
    let others = access(&[("other", &generate_token(), ALL)]);
    gateway.reload(&others, [rarely_polled(&simulator)]).await;
    while let Some(chunk) = guard(response.chunk()).await.unwrap() {
        received.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    let end = received.rsplit("event: ").next().unwrap();
    assert!(end.starts_with("failure\nretry: ") && end.contains("\"ACCESS_CHANGED\""), "{received}");
}
