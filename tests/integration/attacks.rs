//! Attacks by one caller. Each runs against the built program while an honest caller at
//! another address requests a cached status, over and over: the program stays within its
//! memory, and every honest call succeeds.
//!
//! `make attack` runs the same with `JOBWATCH_ATTACK_SCALE` times as many frames and calls,
//! and prints a row of docs/security.md for each.

#![expect(clippy::cast_precision_loss, reason = "figures of a table")]

use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use h2::{SendStream, client::ResponseFuture};
use jobwatch::{
    proto::v1::JobRef,
    simulators::{End, Outcome, Plan, Simulator, Vendor},
};
use prost::Message;
use tokio::{
    net::{TcpSocket, TcpStream},
    time::Instant,
};
use tonic::transport::Endpoint;

use crate::{
    harness::*,
    program::{self, Program},
};

mod bytes_held;
mod errors;
mod files;
mod frames;
mod shares;

/// How many times the short form's frames and calls are sent.
fn scale() -> usize {
    std::env::var("JOBWATCH_ATTACK_SCALE").ok().and_then(|scale| scale.parse().ok()).unwrap_or(1)
}

const MIB: u64 = 1 << 20;

/// What the configuration of a scene allows: statuses, responses and connections.
const BUDGET: u64 = (64 + 32 + 64) * MIB;

const LIMITS: &str = r#"
    [limits]
    connections = 1000
    status_bytes = "64MiB"
    response_bytes = "32MiB"
    connection_bytes = "64MiB"
    inline_result_bytes = "8MiB"
    message_bytes = "9MiB"
"#;

/// A gateway in a process of its own, and an honest caller of it.
struct Scene {
    name: &'static str,
    simulator: Simulator,
    program: Program,
    honest: Client,
    /// A job that has ended.
    job: JobRef,
    before: (u64, usize),
    quiet: Vec<Duration>,
    attacked: Vec<Duration>,
}

impl Scene {
    async fn start(name: &'static str) -> Self {
        Self::start_with(name, LIMITS, |backend| backend).await
    }

    async fn start_with(
        name: &'static str,
        sections: &str,
        configure: impl FnOnce(Backend) -> Backend,
    ) -> Self {
        let simulator = simulator(Vendor::Immuta).await;
        let backend = configure(Backend::of(&simulator));
        let text = config_text(&format!("[server]\nlisten = \"127.0.0.1:0\"\n{sections}"), [backend]);
        let program = Program::run(program::command(&text), "info").await;
        let honest = program.client().max_decoding_message_size(64 << 20);
        let job = ended_job(&simulator, &honest, "[]").await;
        let mut scene = Self {
            name,
            simulator,
            program,
            honest,
            job,
            before: (0, 0),
            quiet: Vec::new(),
            attacked: Vec::new(),
        };
        scene.quiet = scene.calls(200).await;
        scene.before = (scene.program.memory(), scene.program.descriptors());
        scene
    }

    fn address(&self) -> SocketAddr {
        self.program.address().parse().unwrap()
    }

    /// How long so many honest calls take.
    async fn calls(&self, number: usize) -> Vec<Duration> {
        let mut times = Vec::new();
        for _ in 0..number {
            times.push(self.call().await);
        }
        times
    }

    async fn call(&self) -> Duration {
        let mut request = get_request(&self.job);
        request.max_age = Some(proto_ms(3_600_000));
        let began = Instant::now();
        get_status(&self.honest, request).await.expect("an honest call succeeds");
        began.elapsed()
    }

    /// Makes honest calls until the attack is over, and a few more.
    async fn under<T>(&mut self, attack: impl Future<Output = T>) -> T {
        let mut attack = std::pin::pin!(attack);
        let mut times = Vec::new();
        let done = loop {
            tokio::select! {
                biased;
                done = &mut attack => break done,
                time = self.call() => times.push(time),
            }
        };
        times.extend(self.calls(20).await);
        self.attacked.append(&mut times);
        done
    }

    /// Makes honest calls while the attacker does nothing more.
    async fn go_on(&mut self) {
        let mut times = self.calls(300).await;
        self.attacked.append(&mut times);
    }

    /// Checks memory, and prints a row of the table.
    async fn finish(mut self) {
        let peak = self.program.peak_memory();
        let (before, descriptors) = self.before;
        // Connections of the attack end with it.
        let back = async {
            while self.program.descriptors() > descriptors + 8 {
                self.call().await;
            }
        };
        guard(back).await;
        let quantile = |times: &mut Vec<Duration>, of: usize| {
            times.sort_unstable();
            times[(times.len() - 1) * of / 100].as_secs_f64() * 1000.0
        };
        println!(
            "| {} | {:.0} | {:.0} | {:.0} | {} | {} | {:.1} / {:.1} | {:.1} / {:.1} |",
            self.name,
            before as f64 / 1e6,
            peak as f64 / 1e6,
            self.program.memory() as f64 / 1e6,
            descriptors,
            self.program.descriptors(),
            quantile(&mut self.quiet, 50),
            quantile(&mut self.quiet, 99),
            quantile(&mut self.attacked, 50),
            quantile(&mut self.attacked, 99),
        );
        assert!(peak < BUDGET + 64 * MIB, "{}: a peak of {} MiB", self.name, peak / MIB);
    }
}

/// A job that has ended with this result, and whose status is cached.
async fn ended_job(simulator: &Simulator, client: &Client, result: &str) -> JobRef {
    let started = simulator.start_job(Plan::fixed("active"));
    simulator.finish_with(&started.id, End::Success(Outcome::json(result).unwrap()));
    let job = job_at(simulator, &started);
    let mut watch = Watch::open(client, full_watch(&job)).await.unwrap();
    assert!(watch.terminal_status().await.terminal);
    job
}

fn full_watch(job: &JobRef) -> jobwatch::proto::v1::WatchJobRequest {
    let view = jobwatch::proto::v1::JobStatusView::Full.into();
    jobwatch::proto::v1::WatchJobRequest { view, ..watch_request(job) }
}

/// A request for a status that is cached, with its result.
fn cached(job: &JobRef) -> Bytes {
    let mut request = full(job);
    request.max_age = Some(proto_ms(3_600_000));
    frame(&request.encode_to_vec())
}

/// A client from this address of the loopback network.
fn client_from(address: SocketAddr, last: u8) -> Client {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let channel = endpoint.local_address(Some(IpAddr::from([127, 0, 0, last]))).connect_lazy();
    Client::new(channel).max_decoding_message_size(64 << 20)
}

async fn connect_from(address: SocketAddr, last: u8) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, last], 0).into()).unwrap();
    socket.connect(address).await.unwrap()
}

/// A connection that an attacker controls.
struct Attacker {
    client: h2::client::SendRequest<Bytes>,
    address: SocketAddr,
    task: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

impl Attacker {
    /// `window`: bytes that the server may send on a stream.
    async fn connect(address: SocketAddr, last: u8, window: u32) -> Self {
        let stream = connect_from(address, last).await;
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(window).initial_max_send_streams(10_000);
        let (client, connection) = builder.handshake(stream).await.unwrap();
        Self { client, address, task: tokio::spawn(connection) }
    }

    fn head(&self, method: &str) -> http::request::Builder {
        let url = format!("http://{}/jobwatch.v1.JobStatusService/{method}", self.address);
        http::Request::post(url).header("content-type", "application/grpc").header("te", "trailers")
    }

    /// Begins a call.
    async fn begin(&mut self, method: &str) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let mut client = self.client.clone().ready().await?;
        client.send_request(self.head(method).body(()).unwrap(), false)
    }

    /// Makes a call and reads nothing of the response.
    async fn call(&mut self, method: &str, message: Bytes) -> Result<ResponseFuture, h2::Error> {
        let (response, mut stream) = self.begin(method).await?;
        stream.send_data(message, true)?;
        Ok(response)
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        self.task.abort();
    }
}
