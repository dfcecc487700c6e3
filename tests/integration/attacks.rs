//! Attacks by one caller. Each runs against the built program while an honest caller at
//! another address requests a cached status, over and over: the program stays within its
//! memory, every honest call succeeds, and memory, descriptors and tasks are back afterwards.
//!
//! `make attack` runs the same with `JOBWATCH_ATTACK_SCALE` times as many frames and calls,
//! and prints a row of docs/security.md for each.

#![expect(clippy::cast_precision_loss, reason = "figures of a table")]

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use jobwatch::{
    config::IDLE_CONNECTION_BYTES,
    proto::v1::JobRef,
    simulators::{End, Outcome, Plan, Simulator, Vendor},
};
use prost::Message;
use tokio::net::{TcpSocket, TcpStream};
use tonic::transport::Endpoint;

use crate::{
    harness::*,
    program::{self, Program},
};

pub(crate) mod attacker;
mod bytes_held;
mod costs;
mod errors;
mod files;
mod frames;
mod http1;
mod scene;
mod shares;
mod soak;

use attacker::Attacker;
use scene::Scene;

/// How many times the short form's frames and calls are sent.
fn scale() -> usize {
    std::env::var("JOBWATCH_ATTACK_SCALE").ok().and_then(|scale| scale.parse().ok()).unwrap_or(1)
}

const MIB: u64 = 1 << 20;

/// What the configuration of a scene allows: statuses, responses and connections.
const BUDGET: u64 = (64 + 32 + 64) * MIB;

const LIMITS: &str = r#"
    [limits]
    connections = 600
    status_bytes = "64MiB"
    response_bytes = "32MiB"
    connection_bytes = "64MiB"
    inline_result_bytes = "8MiB"
    message_bytes = "9MiB"
"#;

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
