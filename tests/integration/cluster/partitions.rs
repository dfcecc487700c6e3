//! Networks that are cut, in both directions or in one, processes that are stopped, and clocks
//! that are wrong. Each fault ends; then one gateway owns the backend and the others follow.

use std::sync::Arc;

use jobwatch::simulators::{Simulator, Vendor};

use super::{
    SECOND,
    history::sent_in,
    link::Passes,
    rig::{GATEWAYS, Gateways},
    servers::Servers,
    workload::Workload,
};
use crate::harness::*;

const RATE: usize = 18;
const JOBS: usize = 6;

/// Three gateways with watches of the same jobs.
struct Faulted {
    simulator: Arc<Simulator>,
    gateways: Gateways,
    workload: Workload,
    owner: usize,
    epoch: u64,
}

impl Faulted {
    async fn start(servers: Servers) -> Self {
        let simulator = Arc::new(simulator(Vendor::Immuta).await);
        let gateways = Gateways::start_linked(servers, backend(&simulator), simulator.addr().port()).await;
        Self::with(simulator, gateways).await
    }

    async fn with(simulator: Arc<Simulator>, gateways: Gateways) -> Self {
        let (owner, epoch) = gateways.together().await;
        let mut workload = Workload::start(&simulator, (0..JOBS).map(|number| format!("job-{number}")));
        workload.watch_everywhere(&gateways.clients()).await;
        Self { simulator, gateways, workload, owner, epoch }
    }

    /// A gateway that does not own the backend.
    fn follower(&self) -> usize {
        (self.owner + 1) % GATEWAYS
    }

    /// Waits until watches of all gateways show something that is newer than now.
    async fn all_hear(&self) {
        self.workload.hear(|_| true).await;
    }

    /// The fault is over: checks that the gateways work together again, and what the vendor and
    /// the watches have seen. Returns the owner's number and epoch.
    async fn healed(self) -> (usize, u64) {
        let settled = self.gateways.together().await;
        self.all_hear().await;
        self.workload.finish_right().await;
        let most = self.gateways.check_rate(RATE);
        let received = self.simulator.calls().len();
        println!("{received} requests, at most {most} in a second");
        // The last lines may still be on the way.
        until(|| self.gateways.sent().len() >= received).await;
        settled
    }
}

/// The jobs need more requests than each gateway may send by itself.
fn backend(simulator: &Simulator) -> Backend {
    Backend::of(simulator)
        .every(SECOND / 2)
        .poll("requests_per_second", &RATE.to_string())
        .poll("max_batch", "1")
        .poll("timeout", "\"2s\"")
        .poll("connect_timeout", "\"2s\"")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owner_that_is_cut_off_from_nats_is_succeeded_and_follows_afterwards() {
    for passes in [Passes::Nothing, Passes::Requests, Passes::Responses] {
        let faulted = Faulted::start(Servers::start(3, "")).await;
        let owner = faulted.owner;
        faulted.gateways.link_to_nats(owner, passes);
        faulted.gateways.successor_of(owner).await;
        faulted.gateways.has_role(owner, "isolated").await;
        faulted.all_hear().await;
        faulted.gateways.link_to_nats(owner, Passes::Everything);
        let epoch = faulted.epoch;
        let (next, next_epoch) = faulted.healed().await;
        assert!(next != owner && next_epoch > epoch, "{passes:?}: {next} in {next_epoch}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn follower_that_is_cut_off_from_nats_is_isolated_and_follows_afterwards() {
    for passes in [Passes::Nothing, Passes::Requests, Passes::Responses] {
        let faulted = Faulted::start(Servers::start(3, "")).await;
        let follower = faulted.follower();
        faulted.gateways.link_to_nats(follower, passes);
        faulted.gateways.has_role(follower, "isolated").await;
        faulted.all_hear().await;
        faulted.gateways.link_to_nats(follower, Passes::Everything);
        let before = (faulted.owner, faulted.epoch);
        assert_eq!(faulted.healed().await, before, "{passes:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owner_that_is_cut_off_from_the_vendor_polls_for_all_afterwards() {
    let faulted = Faulted::start(Servers::start(1, "")).await;
    let owner = faulted.owner;
    for passes in [Passes::Nothing, Passes::Requests, Passes::Responses] {
        let requests = || sent_in(&faulted.gateways.programs[owner].log()).len();
        faulted.gateways.link_to_vendor(owner, passes);
        // Several requests for each job have got no response.
        let enough = requests() + JOBS;
        until(|| requests() > enough).await;
        faulted.gateways.link_to_vendor(owner, Passes::Everything);
        faulted.all_hear().await;
    }
    let before = (faulted.owner, faulted.epoch);
    assert_eq!(faulted.healed().await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn split_of_the_nats_servers_isolates_the_smaller_part_until_it_is_over() {
    for has_owner in [true, false] {
        let faulted = Faulted::start(Servers::start_linked(3).await).await;
        let gateway = if has_owner { faulted.owner } else { faulted.follower() };
        let server = faulted.gateways.server_of(gateway);
        faulted.gateways.servers.link_to_others(server, Passes::Nothing);
        // The gateways at the other servers go on, those at this one are isolated.
        faulted.gateways.has_role(gateway, "isolated").await;
        faulted.all_hear().await;
        faulted.gateways.servers.link_to_others(server, Passes::Everything);
        faulted.healed().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn follower_that_is_stopped_and_continued_follows_again() {
    let faulted = Faulted::start(Servers::start(1, "")).await;
    let follower = faulted.follower();
    faulted.gateways.programs[follower].signal("STOP").await;
    for _ in 0..10 {
        faulted.workload.hear(|gateway| gateway != Some(follower)).await;
    }
    faulted.gateways.programs[follower].signal("CONT").await;
    faulted.all_hear().await;
    let before = (faulted.owner, faulted.epoch);
    assert_eq!(faulted.healed().await, before);
}
