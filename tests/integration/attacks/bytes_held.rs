//! Bytes that a caller makes the gateway hold.

use futures_util::{StreamExt, stream};
use h2::client::ResponseFuture;
use jobwatch::proto::v1::{
    AddWatch, BatchGetStatusesRequest, JobStatus, WatchJobsRequest, watch_jobs_request::Request,
};
use tonic::Status;

use super::*;

fn result(bytes: usize) -> String {
    format!("[{:?}]", "x".repeat(bytes))
}

/// The vendor's whole response is not kept.
pub(super) async fn large_job(scene: &Scene, bytes: usize) -> JobRef {
    ended_job(&scene.simulator, &scene.honest, &result(bytes)).await
}

/// Requests one job a thousand times in a call.
pub(super) async fn duplicates(address: SocketAddr, job: JobRef) -> Vec<Result<JobStatus, Status>> {
    let client = client_from(address, 2);
    let request =
        BatchGetStatusesRequest { max_age: Some(proto_ms(3_600_000)), ..batch_request(vec![job; 1000]) };
    batch(&client, request).await.unwrap()
}

#[tokio::test]
async fn batch_of_one_large_result_a_thousand_times_is_bounded() {
    let mut scene = Scene::start("duplicates in a batch").await;
    let (job, address) = (large_job(&scene, 7 << 20).await, scene.address());
    let attack = async move {
        for _ in 1..scale() {
            duplicates(address, job.clone()).await;
        }
        duplicates(address, job).await
    };
    let results = scene.under(attack).await;
    let statuses = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!(statuses, 1, "a response holds what fits");
    let refused = results.iter().filter_map(|result| result.as_ref().err()).map(code_and_reason);
    assert!(refused.into_iter().all(|(_, reason)| reason == "TOO_MANY_BYTES"));
    drop(results);
    scene.finish().await;
}

/// Calls whose responses nobody reads, on one connection.
pub(super) async fn unread(address: SocketAddr, last: u8, method: &str, message: Bytes) -> Unread {
    let mut attacker = Attacker::connect(address, last, 1).await;
    let mut responses = Vec::new();
    for _ in 0..1000 {
        // The server may close the connection meanwhile.
        let Ok(response) = attacker.call(method, message.clone()).await else { break };
        responses.push(response);
    }
    Unread { _attacker: attacker, responses }
}

/// Calls that are open until this is dropped.
pub(super) struct Unread {
    _attacker: Attacker,
    pub(super) responses: Vec<ResponseFuture>,
}

#[tokio::test]
async fn responses_that_nobody_reads_are_bounded() {
    for (name, method) in [("unread GetJobStatus", "GetJobStatus"), ("unread WatchJob", "WatchJob")] {
        let mut scene = Scene::start(name).await;
        let job = large_job(&scene, 1 << 20).await;
        let message = match method {
            "GetJobStatus" => cached(&job),
            _ => frame(&full_watch(&job).encode_to_vec()),
        };
        let address = scene.address();
        let attack = async move {
            let mut attackers = Vec::new();
            for _ in 0..scale().min(4) {
                attackers.push(unread(address, 2, method, message.clone()).await);
            }
            attackers
        };
        let attackers = scene.under(attack).await;
        assert!(attackers.iter().all(|attacker| attacker.responses.len() == 1000));
        scene.go_on().await;
        drop(attackers);
        scene.finish().await;
    }
}

/// Requests that lack their last byte, on one connection.
pub(super) async fn unfinished(address: SocketAddr) -> impl Send {
    let mut attacker = Attacker::connect(address, 2, 1 << 16).await;
    let mut calls = Vec::new();
    for _ in 0..1000 {
        let Ok((response, mut stream)) = attacker.begin("BatchGetStatuses").await else { break };
        let mut whole = frame(&vec![0; (2 << 20) - 1]);
        let _ = stream.send_data(whole.split_to((2 << 20) - 1), false);
        calls.push((response, stream));
    }
    (attacker, calls)
}

#[tokio::test]
async fn unfinished_requests_are_bounded() {
    let mut scene = Scene::start("unfinished requests").await;
    let address = scene.address();
    let attack = async move {
        let mut attackers = Vec::new();
        for _ in 0..scale().min(4) {
            attackers.push(unfinished(address).await);
        }
        attackers
    };
    let attackers = scene.under(attack).await;
    scene.go_on().await;
    drop(attackers);
    scene.finish().await;
}

#[tokio::test]
async fn longer_request_than_its_method_needs_is_refused_by_its_head() {
    let gateway = Gateway::start([Backend::dead(Vendor::Claret).await]).await;
    let mut attacker = Attacker::connect(gateway.address, 2, 1 << 16).await;
    for (method, most) in [("GetJobStatus", 64 << 10), ("WatchJob", 64 << 10), ("BatchGetStatuses", 2 << 20)]
    {
        let (response, mut stream) = attacker.begin(method).await.unwrap();
        let length = u32::try_from(most + 1).unwrap();
        let head = [&[0][..], &length.to_be_bytes()].concat();
        stream.send_data(head.into(), false).unwrap();
        let response = guard(response).await.unwrap();
        let status = tonic::Status::from_header_map(response.headers()).unwrap();
        assert_eq!(code_and_reason(&status), (tonic::Code::ResourceExhausted, "REQUEST_TOO_LONG".into()));
    }
}

fn add(watch_id: u64, job: &JobRef) -> WatchJobsRequest {
    let watch = Some(watch_request(job));
    WatchJobsRequest { request: Some(Request::Add(AddWatch { watch_id, watch })) }
}

/// Adds of watches with long names, whose ends nobody reads.
pub(super) async fn long_names(address: SocketAddr, adds: usize) -> impl Send {
    let mut attacker = Attacker::connect(address, 2, 1).await;
    let (response, mut stream) = attacker.begin("WatchJobs").await.unwrap();
    let message = frame(&add(1, &job(&"b".repeat(60_000), "a")).encode_to_vec());
    for _ in 0..adds {
        if stream.send_data(message.clone(), false).is_err() {
            break;
        }
    }
    (attacker, response, stream)
}

#[tokio::test]
async fn unread_ends_of_watches_with_long_names_are_bounded() {
    let mut scene = Scene::start("long names in WatchJobs").await;
    let call = scene.under(long_names(scene.address(), 2000 * scale())).await;
    scene.go_on().await;
    drop(call);
    scene.finish().await;
}

#[tokio::test]
async fn over_long_texts_of_a_job_are_refused() {
    let gateway = Gateway::start([Backend::dead(Vendor::Kinetica).await]).await;
    let client = gateway.client();
    let long = "x".repeat(2049);
    let tagged = JobRef { job_tag: long.clone(), ..job("kinetica", "1") };
    for (refused, field) in [
        (job(&"b".repeat(64), "1"), "job.backend"),
        (job("kinetica", &long), "job.job_id"),
        (tagged, "job.job_tag"),
    ] {
        let error = decode_error(&get(&client, &refused).await.unwrap_err());
        assert_eq!((error.code, error.field()), (tonic::Code::InvalidArgument, field));
    }
}

/// Adds so many watches of a job that does not exist. Returns how many ended.
pub(super) async fn adds(address: SocketAddr, number: u64) -> u64 {
    let mut client = client_from(address, 2);
    let jobs = stream::iter(0..number).map(|id| add(id, &job("immuta", "no-such-job")));
    let mut events = client.watch_jobs(jobs).await.unwrap().into_inner();
    let mut ends = 0;
    while let Some(event) = events.message().await.unwrap() {
        ends += u64::from(event.outcome.is_some());
        if ends >= number {
            break;
        }
    }
    ends
}

#[tokio::test]
async fn adds_without_end_leave_others_their_turn() {
    let mut scene = Scene::start("adds without end").await;
    let number = 50_000 * scale() as u64;
    assert!(scene.under(adds(scene.address(), number)).await >= number);
    scene.finish().await;
}
