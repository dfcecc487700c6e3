//! `WatchJobs`: many watches over one call.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use h2::{SendStream, client::ResponseFuture};
use jobwatch::{
    proto::v1::{
        AddWatch, JobRef, JobState, RemoveWatch, WatchJobRequest, WatchJobsRequest, WatchJobsResponse,
        watch_job_response::Event,
        watch_jobs_request::Request::{Add, Remove},
        watch_jobs_response::Outcome,
    },
    simulators::{Plan, Simulator, Vendor},
};
use prost::Message;
use tokio::{net::TcpStream, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::harness::*;

struct Call {
    requests: mpsc::Sender<WatchJobsRequest>,
    events: Streaming<WatchJobsResponse>,
}

impl Call {
    async fn open(gateway: &Gateway) -> Self {
        let (requests, receiver) = mpsc::channel(64);
        let mut client = gateway.client();
        let events = guard(client.watch_jobs(ReceiverStream::new(receiver))).await.unwrap().into_inner();
        Self { requests, events }
    }

    async fn add(&self, watch_id: u64, job: &JobRef) {
        self.requests.send(add(watch_id, job)).await.unwrap();
    }

    async fn remove(&self, watch_id: u64) {
        let request = Some(Remove(RemoveWatch { watch_id }));
        self.requests.send(WatchJobsRequest { request }).await.unwrap();
    }

    /// The next outcome: its watch, and a short form of its content.
    async fn next(&mut self) -> Option<(u64, String)> {
        let response = guard(self.events.message()).await.unwrap()?;
        let text = match response.outcome.unwrap() {
            Outcome::Event(event) => match event.event.unwrap() {
                Event::Status(status) => status.vendor_state,
                Event::Heartbeat(_) => "heartbeat".into(),
                Event::Interruption(_) => "interrupted".into(),
            },
            Outcome::End(status) if status.code == 0 => "end".into(),
            Outcome::End(status) => code_and_reason(&from_message(&status)).1,
            Outcome::Rejected(status) => format!("rejected {}", code_and_reason(&from_message(&status)).1),
        };
        Some((response.watch_id, text))
    }
}

fn add(watch_id: u64, job: &JobRef) -> WatchJobsRequest {
    let watch = Some(watch_request(job));
    WatchJobsRequest { request: Some(Add(AddWatch { watch_id, watch })) }
}

fn running(simulator: &Simulator, count: usize) -> Vec<JobRef> {
    (0..count).map(|_| job_at(simulator, &simulator.start_job(Plan::fixed("active")))).collect()
}

#[tokio::test]
async fn watches_are_added_and_removed_while_the_call_is_open() {
    let simulator = simulator(Vendor::Immuta).await;
    let gateway = Gateway::start([Backend::of(&simulator)]).await;
    let jobs = running(&simulator, 2);
    let mut call = Call::open(&gateway).await;
    call.add(1, &jobs[0]).await;
    assert_eq!(call.next().await, Some((1, "active".into())));
    call.add(2, &jobs[1]).await;
    assert_eq!(call.next().await, Some((2, "active".into())));
    call.add(2, &jobs[0]).await;
    assert_eq!(call.next().await, Some((2, "rejected INVALID_REQUEST".into())), "the id is in use");
    call.add(3, &job("nowhere", "x")).await;
    assert_eq!(call.next().await, Some((3, "UNKNOWN_BACKEND".into())));
    call.add(4, &JobRef::default()).await;
    assert_eq!(call.next().await, Some((4, "INVALID_REQUEST".into())));
    call.remove(9).await;
    assert_eq!(call.next().await, Some((9, "rejected INVALID_REQUEST".into())));
    call.remove(1).await;
    assert_eq!(call.next().await, Some((1, "end".into())));
    simulator.finish(&jobs[1].job_id);
    assert_eq!(call.next().await, Some((2, "completed".into())));
    assert_eq!(call.next().await, Some((2, "end".into())));
    drop(call.requests);
    assert_eq!(guard(call.events.message()).await.unwrap(), None, "a call without watches is over");
}

#[tokio::test]
async fn thousand_watches_of_one_call_all_receive_terminal_status() {
    let simulator = simulator(Vendor::Immuta).await;
    let gateway = Gateway::start([Backend::of(&simulator)]).await;
    let jobs = running(&simulator, 1000);
    let mut call = Call::open(&gateway).await;
    let requests = call.requests.clone();
    let adds: Vec<_> = (0..).zip(&jobs).map(|(id, job)| add(id, job)).collect();
    tokio::spawn(async move {
        for request in adds {
            requests.send(request).await.unwrap();
        }
    });
    for job in &jobs {
        simulator.finish(&job.job_id);
    }
    let (mut last, mut ended) = (BTreeMap::new(), BTreeSet::new());
    while ended.len() < jobs.len() {
        match call.next().await.unwrap() {
            (id, text) if text == "end" => assert!(ended.insert(id)),
            (id, text) => drop(last.insert(id, text)),
        }
    }
    assert!(last.len() == 1000 && last.values().all(|text| text == "completed"));
}

#[tokio::test]
async fn shutdown_ends_watch_jobs_with_unavailable() {
    let simulator = simulator(Vendor::Immuta).await;
    let gateway = Gateway::start([Backend::of(&simulator)]).await;
    let mut call = Call::open(&gateway).await;
    call.add(1, &running(&simulator, 1)[0]).await;
    assert_eq!(call.next().await, Some((1, "active".into())));
    let ((), end) = tokio::join!(gateway.stop(), guard(call.events.message()));
    assert_eq!(code_and_reason(&end.unwrap_err()), (Code::Unavailable, "SHUTTING_DOWN".into()));
}

#[tokio::test]
async fn add_with_bad_field_names_the_field_path() {
    let gateway = Gateway::start([Backend::dead(Vendor::Immuta).await]).await;
    let mut call = Call::open(&gateway).await;
    let watch = || watch_request(&job("immuta", "a"));
    let negative = Some(prost_types::Duration { seconds: -1, nanos: 0 });
    for (watch, field) in [
        (WatchJobRequest { resume_token: "?".into(), ..watch() }, "add.watch.resume_token"),
        (
            WatchJobRequest { heartbeat_interval: Some(proto_ms(0)), ..watch() },
            "add.watch.heartbeat_interval",
        ),
        (WatchJobRequest { poll_interval: negative, ..watch() }, "add.watch.poll_interval"),
        (WatchJobRequest { view: 99, ..watch() }, "add.watch.view"),
        (WatchJobRequest { job: None, ..watch() }, "add.watch.job"),
        (WatchJobRequest { job: Some(job("", "a")), ..watch() }, "add.watch.job.backend"),
        (WatchJobRequest { job: Some(job("immuta", "")), ..watch() }, "add.watch.job.job_id"),
    ] {
        let request = Some(Add(AddWatch { watch_id: 7, watch: Some(watch.clone()) }));
        call.requests.send(WatchJobsRequest { request }).await.unwrap();
        let Some(Outcome::End(end)) = guard(call.events.message()).await.unwrap().unwrap().outcome else {
            panic!("{field}")
        };
        let end = decode_error(&from_message(&end));
        assert_eq!((end.code, end.field()), (Code::InvalidArgument, field));
        assert!(end.message.starts_with(field), "{}", end.message);
        let alone = Watch::open(&gateway.client(), watch).await.unwrap_err();
        assert_eq!(format!("add.watch.{}", decode_error(&alone).field()), field);
    }
}

#[tokio::test]
async fn undecodable_message_ends_the_call() {
    let gateway = Gateway::start([Backend::dead(Vendor::Immuta).await]).await;
    let (response, mut send) = raw_call(&gateway).await;
    // A field of the invalid wire type 7.
    send.send_data(frame(&[0x0f; 8]), false).unwrap();
    let mut body = guard(response).await.unwrap().into_body();
    assert!(guard(body.data()).await.is_none(), "no response comes before the end");
    let trailers = guard(body.trailers()).await.unwrap().expect("trailers");
    let end = Status::from_header_map(&trailers).expect("a status");
    assert_eq!(trailers["grpc-message"], end.message(), "as plain as in the headers of an error");
    assert_eq!(code_and_reason(&end), (Code::InvalidArgument, "INVALID_REQUEST".into()));
    assert_eq!(decode_error(&end).field(), "request");
}

/// A call with raw bytes as messages.
async fn raw_call(gateway: &Gateway) -> (ResponseFuture, SendStream<Bytes>) {
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let (client, connection) = h2::client::Builder::new()
        .initial_window_size(64 << 20)
        .initial_connection_window_size(64 << 20)
        .handshake::<_, Bytes>(stream)
        .await
        .unwrap();
    tokio::spawn(connection);
    let url = format!("http://{}/jobwatch.v1.JobStatusService/WatchJobs", gateway.address);
    let request =
        http::Request::post(url).header("content-type", "application/grpc").header("te", "trailers");
    let mut client = client.ready().await.unwrap();
    client.send_request(request.body(()).unwrap(), false).unwrap()
}

/// h2 closes a connection with too many unread small frames.
#[tokio::test]
async fn twenty_thousand_adds_in_separate_frames_all_get_a_response() {
    const ADDS: u64 = 20_000;
    let simulator = simulator(Vendor::Immuta).await;
    let gateway = Gateway::start([Backend::of(&simulator)]).await;
    let job = running(&simulator, 1).remove(0);
    let (response, mut send) = raw_call(&gateway).await;
    for id in 0..ADDS {
        send.send_data(frame(&add(id, &job).encode_to_vec()), false).unwrap();
    }
    simulator.finish(&job.job_id);
    let mut body = guard(response).await.unwrap().into_body();
    let (mut buffer, mut ended) = (BytesMut::new(), BTreeSet::new());
    while (ended.len() as u64) < ADDS {
        let piece = guard(body.data()).await.expect("the call goes on").expect("the connection holds");
        body.flow_control().release_capacity(piece.len()).unwrap();
        buffer.extend_from_slice(&piece);
        while buffer.len() >= 5 {
            let length = u32::from_be_bytes(buffer[1..5].try_into().unwrap()) as usize;
            if buffer.len() < 5 + length {
                break;
            }
            let message = buffer.split_to(5 + length).split_off(5);
            let response = WatchJobsResponse::decode(message).unwrap();
            match response.outcome.unwrap() {
                Outcome::End(status) => {
                    assert_eq!(status.code, 0);
                    ended.insert(response.watch_id);
                }
                Outcome::Rejected(error) => panic!("{error:?}"),
                Outcome::Event(event) => {
                    if let Some(Event::Status(status)) = event.event {
                        assert!([JobState::Running, JobState::Succeeded].contains(&status.state()));
                    }
                }
            }
        }
    }
}
