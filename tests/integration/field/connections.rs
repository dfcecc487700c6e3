//! Connections: one that falls silent, and how many are opened.

use futures_util::future::join_all;
use jobwatch::{
    proto::v1::JobState as S,
    simulators::{Plan, Simulator, Vendor},
};

use super::{
    front::{Front, Protocol, Purpose, gateway},
    tunnel::Tunnel,
};
use crate::harness::*;

/// Of each vendor one, in front of it a front of each protocol.
async fn fronts(simulators: &[Simulator]) -> Vec<(&Simulator, Front)> {
    let mut fronts = Vec::new();
    for simulator in simulators {
        for protocol in Protocol::ALL {
            fronts.push((simulator, Front::before(simulator, protocol).await));
        }
    }
    fronts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connection_is_replaced_and_the_end_arrives() {
    let simulators = join_all(Vendor::ALL.map(simulator)).await;
    let fronts = fronts(&simulators).await;
    let tunnels = join_all(fronts.iter().map(|(_, front)| Tunnel::before(front.port))).await;
    let backends = fronts.iter().zip(&tunnels).map(|((_, front), tunnel)| {
        let backend = Backend::at(front.vendor, front.protocol.url(tunnel.port)).named(&front.name());
        backend.poll("timeout", "\"2s\"")
    });
    let (program, _trusted) = gateway(backends).await;
    let client = program.client();
    let trials = fronts.iter().zip(&tunnels).map(async |((simulator, front), tunnel)| {
        let started = simulator.start_job(Plan::fixed(running(front.vendor)));
        let job = job(&front.name(), &started.id);
        let mut watch = Watch::of(&client, &job).await;
        assert_eq!(watch.next_status().await.state(), S::Running, "{}", front.name());
        let before = tunnel.connections();
        tunnel.silence_open_connections();
        simulator.finish(&started.id);
        // As long as the connection is used, there are interruptions.
        assert_eq!(guard(watch.terminal_status()).await.state(), S::Succeeded, "{}", front.name());
        assert!(tunnel.connections() > before, "{}", front.name());
    });
    join_all(trials).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polls_share_few_connections_at_every_vendor() {
    const POLLS: usize = 30;
    let simulators = join_all(Vendor::ALL.map(simulator)).await;
    let fronts = fronts(&simulators).await;
    let backends = fronts.iter().map(|(_, front)| front.backend().named(&front.name()));
    let (program, _trusted) = gateway(backends).await;
    let client = program.client();
    for (simulator, front) in &fronts {
        let started = simulator.start_job(Plan::fixed(running(front.vendor)));
        let job = job(&front.name(), &started.id);
        for _ in 0..POLLS {
            assert_eq!(get(&client, &job).await.unwrap().state(), S::Running, "{}", front.name());
        }
        let traffic = front.traffic();
        assert!(traffic.count(Purpose::Poll) >= POLLS, "{}: {traffic:?}", front.name());
        assert!(traffic.connections <= 3, "{}: {} connections", front.name(), traffic.connections);
    }
}
