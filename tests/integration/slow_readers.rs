//! Slow readers receive the newest state, not a queue of old ones.

use bytes::{Buf, Bytes};
use jobwatch::{
    proto::v1::{
        JobState as S, JobStatus, JobStatusView, WatchJobRequest, WatchJobResponse, watch_job_response::Event,
    },
    simulators::{End, Outcome, Plan, Simulator, Vendor},
};
use prost::Message;
use tokio::net::TcpSocket;

use crate::harness::*;

/// Payloads are larger than a stream's window and the server's buffer hold, so that
/// a reader that does not read really stalls the stream.
const LARGE: usize = 200_000;

async fn large_job() -> (Simulator, String, Gateway) {
    let simulator = simulator(Vendor::Immuta).await;
    let backend = Backend::of(&simulator).every(ms(10));
    let gateway = Gateway::start([backend]).await;
    let started = simulator.start_job(Plan::fixed("retry").retried_after("x".repeat(LARGE)));
    (simulator, started.id, gateway)
}

/// Changes the job this many times and waits until each change is observed.
async fn change(simulator: &Simulator, id: &str, times: usize) {
    for n in 0..times {
        simulator.set_state(id, if n % 2 == 0 { "active" } else { "retry" });
        // The second request from now on is sent after the change.
        let responses = simulator.calls().iter().filter(|call| call.status.is_some()).count();
        guard(simulator.wait_for_responses("/jobs/statuses", responses + 2)).await;
    }
}

fn differ(statuses: &[JobStatus]) -> bool {
    statuses.windows(2).all(|pair| pair[0].vendor_state != pair[1].vendor_state)
}

#[tokio::test]
async fn slow_reader_receives_terminal_status_after_buffered_ones() {
    let (simulator, id, gateway) = large_job().await;
    let client = gateway.client();
    let job = job("immuta", &id);
    let request = WatchJobRequest { view: JobStatusView::Full.into(), ..watch_request(&job) };
    let mut stalled = Watch::open(&client, request.clone()).await.unwrap();
    let reader = gateway.client();
    let mut watch = Watch::open(&reader, request).await.unwrap();
    watch.status().await;
    change(&simulator, &id, 40).await;
    let end = End::Success(Outcome::json(&format!("[{:?}]", "y".repeat(LARGE))).unwrap());
    simulator.finish_with(&id, end);
    // Another reader of the same job is not delayed.
    let (seen, ended) = watch.rest().await;
    ended.unwrap();
    assert_eq!(seen.last().unwrap().state(), S::Succeeded);

    let (late, ended) = stalled.rest().await;
    ended.unwrap();
    let last = late.last().unwrap();
    assert_eq!(last.state(), S::Succeeded);
    assert_eq!(last.result.as_ref().unwrap().data.len(), LARGE + 4);
    assert!(late.len() < 8, "{} statuses were buffered for it", late.len());
    assert!(differ(&late));
}

/// A watch whose client stops reading its socket after the head of the response.
struct Deaf {
    connection: h2::client::Connection<tokio::net::TcpStream, Bytes>,
    body: h2::RecvStream,
}

impl Deaf {
    /// Only the socket blocks its stream: no flow-control window is ever full.
    async fn open(gateway: &Gateway, request: &WatchJobRequest) -> Self {
        const WINDOW: u32 = 1 << 30;
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(1 << 16).unwrap();
        let stream = socket.connect(gateway.address).await.unwrap();
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW);
        let (client, mut connection) = builder.handshake(stream).await.unwrap();
        let url = format!("http://{}/jobwatch.v1.JobStatusService/WatchJob", gateway.address);
        let head =
            http::Request::post(url).header("content-type", "application/grpc").header("te", "trailers");
        let mut client = client.ready().await.unwrap();
        let (response, mut send) = client.send_request(head.body(()).unwrap(), false).unwrap();
        send.send_data(frame(&request.encode_to_vec()), true).unwrap();
        let response = async {
            tokio::select! {
                response = response => response.unwrap().into_body(),
                ended = &mut connection => panic!("{ended:?}"),
            }
        };
        let body = guard(response).await;
        Self { connection, body }
    }

    /// All statuses and the code of the end.
    async fn rest(mut self) -> (Vec<JobStatus>, String) {
        let connection = tokio::spawn(self.connection);
        let mut bytes = Vec::new();
        while let Some(data) = guard(self.body.data()).await {
            bytes.extend_from_slice(&data.unwrap());
        }
        let trailers = guard(self.body.trailers()).await.unwrap().expect("trailers");
        connection.abort();
        let (mut statuses, mut bytes) = (Vec::new(), Bytes::from(bytes));
        while bytes.has_remaining() {
            assert_eq!(bytes.get_u8(), 0, "not compressed");
            let length = usize::try_from(bytes.get_u32()).unwrap();
            let response = WatchJobResponse::decode(bytes.split_to(length)).unwrap();
            if let Some(Event::Status(status)) = response.event {
                statuses.push(status);
            }
        }
        (statuses, trailers["grpc-status"].to_str().unwrap().to_owned())
    }
}

#[tokio::test]
async fn full_socket_bounds_memory_and_loses_nothing() {
    let (simulator, id, gateway) = large_job().await;
    let job = job("immuta", &id);
    let request = WatchJobRequest { view: JobStatusView::Full.into(), ..watch_request(&job) };
    let deaf = Deaf::open(&gateway, &request).await;
    change(&simulator, &id, 60).await;
    simulator.finish(&id);
    let reader = gateway.client();
    let (seen, _) = Watch::of(&reader, &job).await.rest().await;
    assert_eq!(seen.last().unwrap().state(), S::Succeeded);

    let (seen, end) = deaf.rest().await;
    assert_eq!(end, "0");
    assert_eq!(seen.last().unwrap().state(), S::Succeeded);
    assert!(seen.len() < 40, "{} statuses were buffered for it", seen.len());
    assert!(differ(&seen));
}

#[tokio::test]
async fn slow_stream_does_not_delay_others_of_its_connection() {
    let (simulator, id, gateway) = large_job().await;
    let client = gateway.client();
    let large = job("immuta", &id);
    // Many stalled streams would fill the connection's window; two do not.
    let mut stalled = Vec::new();
    for _ in 0..2 {
        stalled.push(Watch::of(&client, &large).await);
    }
    let small = simulator.start_job(Plan::fixed("created"));
    let mut watch = Watch::of(&gateway.client(), &job("immuta", &small.id)).await;
    assert_eq!(watch.status().await.state(), S::Pending);
    change(&simulator, &id, 5).await;
    simulator.finish(&small.id);
    assert_eq!(watch.status().await.state(), S::Succeeded);
    simulator.finish(&id);
    for watch in &mut stalled {
        assert_eq!(watch.rest().await.0.last().unwrap().state(), S::Succeeded);
    }
}

#[tokio::test]
async fn job_of_a_slow_reader_costs_one_poll_per_interval() {
    let (simulator, id, gateway) = large_job().await;
    let client = gateway.client();
    let _stalled = Watch::of(&client, &job("immuta", &id)).await;
    change(&simulator, &id, 20).await;
    let calls = simulator.calls();
    let time = calls.last().unwrap().at - calls[0].at;
    let intervals = u32::try_from(calls.len() - 1).unwrap();
    // Two polls an interval would take half of that.
    assert!(time >= intervals * ms(10) * 2 / 3, "{intervals} intervals in {time:?}");
}
