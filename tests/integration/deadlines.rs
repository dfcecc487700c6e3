//! The caller's deadline holds everywhere, and a cancelled call costs
//! nothing more.

use jobwatch::{
    proto::v1::{GetJobStatusRequest, JobState},
    simulators::{Effect, Fault, Plan, Simulator, Vendor},
};
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tonic::Code;

use crate::harness::*;

async fn hanging(vendor: Vendor) -> Simulator {
    let simulator = simulator(vendor).await;
    simulator.inject(Fault::new(Effect::Hang));
    simulator
}

/// The gRPC status that the server sends for a get whose deadline
/// passes. Most clients end such a call with their own timer first.
async fn servers_answer(gateway: &Gateway, timeout: &str, request: &GetJobStatusRequest) -> String {
    let message = request.encode_to_vec();
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(&message);
    let url = format!("http://{}/jobwatch.v1.JobStatusService/GetJobStatus", gateway.address);
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let request = client.post(url).header("content-type", "application/grpc").header("te", "trailers");
    let response = guard(request.header("grpc-timeout", timeout).body(frame).send()).await.unwrap();
    response.headers()["grpc-status"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn get_at_a_hanging_backend_ends_at_its_deadline() {
    let simulator = hanging(Vendor::Kinetica).await;
    // Only the deadline can end it.
    let gateway = Gateway::start([Backend::of(&simulator).poll("timeout", "\"10m\"")]).await;
    let mut request = get_request(&job("kinetica", "1"));
    for wait in [None, Some(proto_ms(60_000))] {
        request.wait = wait;
        for timeout in ["200m", "77777u"] {
            let code = servers_answer(&gateway, timeout, &request).await;
            assert_eq!(code, "4", "DEADLINE_EXCEEDED after {timeout}");
        }
    }
}

#[tokio::test]
async fn wait_beyond_the_deadline_returns_the_known_status() {
    let simulator = simulator(Vendor::Kinetica).await;
    let gateway = Gateway::start([Backend::of(&simulator)]).await;
    let mut request = get_request(&job_at(&simulator, &simulator.start_job(Plan::fixed("RUNNING"))));
    request.wait = Some(proto_ms(60_000));
    let client = gateway.client();
    let status = get_status(&client, within(ms(3000), request)).await.unwrap();
    assert_eq!(status.state(), JobState::Running);
}

#[tokio::test]
async fn batch_at_its_deadline_returns_known_elements() {
    let (stuck, good) = (hanging(Vendor::Kinetica).await, simulator(Vendor::Immuta).await);
    let gateway = Gateway::start([Backend::of(&stuck), Backend::of(&good)]).await;
    let client = gateway.client();
    let known = job_at(&good, &good.start_job(Plan::fixed("active")));
    let request = batch_request([known.clone(), job("kinetica", "1"), known, job("kinetica", "2")]);
    let results = batch(&client, within(ms(3000), request)).await.unwrap();
    for (index, response) in results.iter().enumerate() {
        match response {
            Ok(_) => assert!(index % 2 == 0),
            Err(error) => {
                let decoded = decode_error(error);
                assert_eq!((index % 2, decoded.code), (1, Code::DeadlineExceeded));
                assert_eq!(decoded.metadata["backend"], "kinetica");
            }
        }
    }
}

#[tokio::test]
async fn batch_without_deadline_ends_at_the_configured_one() {
    let (stuck, good) = (hanging(Vendor::Kinetica).await, simulator(Vendor::Immuta).await);
    let sections = "[server]\ndefault_deadline = \"400ms\"";
    let gateway = Gateway::start_with(sections, [Backend::of(&stuck), Backend::of(&good)]).await;
    let known = job_at(&good, &good.start_job(Plan::fixed("active")));
    let since = Instant::now();
    let request = batch_request([job("kinetica", "1"), known]);
    let results = batch(&gateway.client(), request).await.unwrap();
    let error = decode_error(results[0].as_ref().unwrap_err());
    assert_eq!((error.code, error.metadata["deadline"].as_str()), (Code::DeadlineExceeded, "server"));
    assert!(error.message.starts_with("server.default_deadline passed before the vendor"), "{error:?}");
    assert!(results[1].is_ok());
    // Far below the default of 30 s.
    assert!(since.elapsed() >= ms(400) && since.elapsed() < ms(20_000));
}

#[tokio::test]
async fn watch_ends_at_its_deadline_after_its_statuses() {
    let simulator = simulator(Vendor::Immuta).await;
    let gateway = Gateway::start([Backend::of(&simulator)]).await;
    let job = job_at(&simulator, &simulator.start_job(Plan::fixed("active")));
    let since = Instant::now();
    let mut watch = Watch::open(&gateway.client(), within(ms(700), watch_request(&job))).await.unwrap();
    watch.status().await;
    let error = watch.end().await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}");
    assert!(since.elapsed() >= ms(650));
}

#[tokio::test]
async fn hanging_poll_times_out_and_is_repeated() {
    let simulator = simulator(Vendor::Immuta).await;
    simulator.inject(Fault::new(Effect::Hang).times(1));
    let gateway = Gateway::start([Backend::of(&simulator).poll("timeout", "\"300ms\"")]).await;
    let client = gateway.client();
    let job = job_at(&simulator, &simulator.start_job(Plan::fixed("active")));
    let mut watch = Watch::of(&client, &job).await;
    assert_eq!(watch.interruption().await.1.reason, "BACKEND_UNAVAILABLE");
    watch.next_status().await;
}

/// A vendor that reads a request and never responds.
struct Silent {
    listener: TcpListener,
}

impl Silent {
    async fn start() -> (Self, Backend) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        (Self { listener }, Backend::at(Vendor::Kinetica, url).poll("timeout", "\"10m\""))
    }

    /// A connection that has received a whole request for `id`.
    async fn request_for(&self, id: &str) -> TcpStream {
        let (mut stream, _) = guard(self.listener.accept()).await.unwrap();
        let (mut request, mut piece) = (Vec::new(), [0; 4096]);
        while !String::from_utf8_lossy(&request).contains(&format!("\"job_id\":{id},\"options\":{{}}}}")) {
            let read = guard(stream.read(&mut piece)).await.unwrap();
            assert!(read > 0, "the connection was closed early");
            request.extend_from_slice(&piece[..read]);
        }
        stream
    }
}

async fn is_closed(mut stream: TcpStream) {
    // The end of the stream, or a reset.
    let read = guard(stream.read(&mut [0; 16])).await.unwrap_or(0);
    assert_eq!(read, 0);
}

#[tokio::test]
async fn cancelled_get_cancels_the_poll() {
    let (silent, backend) = Silent::start().await;
    let gateway = Gateway::start([backend]).await;
    let client = gateway.client();
    let call = tokio::spawn(async move { get(&client, &job("kinetica", "7")).await });
    let upstream = silent.request_for("7").await;
    call.abort();
    is_closed(upstream).await;
}

#[tokio::test]
async fn get_past_its_deadline_cancels_the_poll() {
    let (silent, backend) = Silent::start().await;
    let gateway = Gateway::start([backend]).await;
    let client = gateway.client();
    let call = tokio::spawn(async move {
        get_status(&client, within(ms(500), get_request(&job("kinetica", "7")))).await
    });
    let upstream = silent.request_for("7").await;
    assert!(call.await.unwrap().is_err());
    is_closed(upstream).await;
}

#[tokio::test]
async fn cancelled_watch_cancels_the_poll() {
    let (silent, backend) = Silent::start().await;
    let gateway = Gateway::start([backend]).await;
    let watch = Watch::of(&gateway.client(), &job("kinetica", "7")).await;
    let upstream = silent.request_for("7").await;
    drop(watch);
    is_closed(upstream).await;
}

#[tokio::test]
async fn poll_with_a_remaining_subscriber_is_not_cancelled() {
    let (silent, backend) = Silent::start().await;
    let gateway = Gateway::start([backend]).await;
    let client = gateway.client();
    let first = {
        let client = client.clone();
        tokio::spawn(async move { get(&client, &job("kinetica", "7")).await })
    };
    let mut upstream = silent.request_for("7").await;
    let mut watch = Watch::of(&client, &job("kinetica", "7")).await;
    first.abort();
    let record = r#"{\"endpoint\":\"/x\",\"job_status\":\"DONE\",\"running\":false,\"progress\":100}"#;
    let body = format!(
        r#"{{"status":"OK","message":"","data_type":"get_job_response","data":"","data_str":"{record}"}}"#
    );
    let response = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    upstream.write_all(response.as_bytes()).await.unwrap();
    assert!(watch.next_status().await.terminal);
}

#[tokio::test]
async fn cancelled_call_leaves_no_subscription() {
    let simulator = simulator(Vendor::Claret).await;
    let gateway = Gateway::start([Backend::of(&simulator)]).await;
    let client = gateway.client();
    let other = job_at(&simulator, &simulator.start_job(Plan::fixed("in_progress")));
    let mut watch = Watch::of(&client, &other).await;
    watch.status().await;
    let left = simulator.start_job(Plan::fixed("in_progress")).id;
    simulator.inject(Fault::new(Effect::Hang).for_job(&left));
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let (client, job) = (client.clone(), job("claret", &left));
            tokio::spawn(async move { get(&client, &job).await })
        })
        .collect();
    let polls = || simulator.calls().iter().filter(|call| call.job_ids == [left.clone()]).count();
    while polls() == 0 {
        guard(simulator.wait_for_calls("", simulator.count("") + 1)).await;
    }
    for call in calls {
        call.abort();
    }
    simulator.clear_faults();
    guard(simulator.wait_for_calls("", simulator.count("") + 10)).await;
    assert_eq!(polls(), 1);
}
