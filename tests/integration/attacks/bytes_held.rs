//! Bytes that a caller makes the gateway hold.

use futures_util::{StreamExt, stream};
use jobwatch::proto::v1::{AddWatch, BatchGetStatusesRequest, WatchJobsRequest, watch_jobs_request::Request};

use super::*;

fn result(bytes: usize) -> String {
    format!("[{:?}]", "x".repeat(bytes))
}

/// The vendor's whole response is not kept.
async fn large_job(scene: &Scene, bytes: usize) -> JobRef {
    ended_job(&scene.simulator, &scene.honest, &result(bytes)).await
}

#[tokio::test]
async fn batch_of_one_large_result_a_thousand_times_is_bounded() {
    let mut scene = Scene::start("duplicates in a batch").await;
    let job = large_job(&scene, 7 << 20).await;
    let client = client_from(scene.address(), 2);
    let request =
        BatchGetStatusesRequest { max_age: Some(proto_ms(3_600_000)), ..batch_request(vec![job; 1000]) };
    let attack = async {
        let mut results = Vec::new();
        for _ in 0..scale() {
            results = batch(&client, request.clone()).await.unwrap();
        }
        results
    };
    let results = scene.under(attack).await;
    let statuses = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!(statuses, 1, "a response holds what fits");
    let refused = results.iter().filter_map(|result| result.as_ref().err()).map(code_and_reason);
    assert!(refused.into_iter().all(|(_, reason)| reason == "TOO_MANY_BYTES"));
    scene.finish().await;
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
        let attack = async {
            let mut attackers = Vec::new();
            for _ in 0..scale().min(4) {
                let mut attacker = Attacker::connect(address, 2, 1).await;
                let mut responses = Vec::new();
                for _ in 0..1000 {
                    responses.push(attacker.call(method, message.clone()).await.unwrap());
                }
                attackers.push((attacker, responses));
            }
            attackers
        };
        let attackers = scene.under(attack).await;
        scene.go_on().await;
        drop(attackers);
        scene.finish().await;
    }
}

#[tokio::test]
async fn unfinished_requests_are_bounded() {
    let mut scene = Scene::start("unfinished requests").await;
    let address = scene.address();
    let attack = async {
        let mut attackers = Vec::new();
        for _ in 0..scale().min(4) {
            let mut attacker = Attacker::connect(address, 2, 1 << 16).await;
            let mut calls = Vec::new();
            for _ in 0..1000 {
                let (response, mut stream) = attacker.begin("BatchGetStatuses").await.unwrap();
                let mut whole = frame(&vec![0; (2 << 20) - 1]);
                stream.send_data(whole.split_to((2 << 20) - 1), false).unwrap();
                calls.push((response, stream));
            }
            attackers.push((attacker, calls));
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

#[tokio::test]
async fn unread_ends_of_watches_with_long_names_are_bounded() {
    let mut scene = Scene::start("long names in WatchJobs").await;
    let mut attacker = Attacker::connect(scene.address(), 2, 1).await;
    let attack = async {
        let (response, mut stream) = attacker.begin("WatchJobs").await.unwrap();
        let message = frame(&add(1, &job(&"b".repeat(60_000), "a")).encode_to_vec());
        for _ in 0..2000 * scale() {
            if stream.send_data(message.clone(), false).is_err() {
                break;
            }
        }
        (response, stream)
    };
    let call = scene.under(attack).await;
    scene.go_on().await;
    drop((call, attacker));
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

#[tokio::test]
async fn adds_without_end_leave_others_their_turn() {
    let mut scene = Scene::start("adds without end").await;
    let mut client = client_from(scene.address(), 2);
    let number = 50_000 * scale() as u64;
    let jobs = stream::iter(0..number).map(|id| add(id, &job("immuta", "no-such-job")));
    let attack = async {
        let mut events = client.watch_jobs(jobs).await.unwrap().into_inner();
        let mut ends = 0;
        while let Some(event) = events.message().await.unwrap() {
            ends += u64::from(event.outcome.is_some());
            if ends >= number {
                break;
            }
        }
        ends
    };
    assert!(scene.under(attack).await >= number);
    scene.finish().await;
}
