//! Replicas over real NATS servers: who owns a backend, and what reaches whom.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use jobwatch::{
    cluster::{
        election::Election,
        lease::{Member, Ownership, Pause, Timing},
        nats::Nats,
        wire::{Connection, Wire},
    },
    config::{Cluster, Config},
    job::FaultKind,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout},
};

mod check;
#[cfg(target_os = "linux")]
mod clocks;
mod credentials;
mod gateways;
mod history;
mod kills;
mod link;
mod operators;
mod outages;
mod partitions;
mod permissions;
mod rig;
mod rolling;
mod servers;
mod workload;

use servers::Servers;

const SECOND: Duration = Duration::from_secs(1);

/// Longest wait for anything: the machine may be busy.
const PATIENCE: Duration = Duration::from_mins(4);

const BACKEND: &str = "vendor.prod";

/// The section of a configuration.
fn section(urls: &[String], more: &str) -> String {
    let backend = "[backends.db]\nvendor = \"kinetica\"\nbase_url = \"http://127.0.0.1:1\"\n";
    format!("{backend}[cluster]\nnats = {urls:?}\nname = \"test\"\nreplicas = 3\n{more}\n")
}

fn cluster(servers: &Servers, more: &str) -> Cluster {
    Config::parse(&section(&servers.urls(), more), []).unwrap().cluster.unwrap()
}

/// A replica that takes part in the election of one backend.
struct Replica {
    nats: Arc<Nats>,
    messages: mpsc::Receiver<Bytes>,
    election: Election,
    ownership: watch::Receiver<Ownership>,
    incarnation: u64,
}

impl Replica {
    fn start(servers: &Servers, incarnation: u64, lease: Duration) -> Self {
        let cluster = cluster(servers, &format!("lease = \"{}s\"", lease.as_secs()));
        let (nats, messages) = Nats::start(&cluster, incarnation);
        let me = Member { name: format!("gateway-{incarnation}"), incarnation };
        let pause = |now: Instant| {
            Some(Pause { until: now + 60 * SECOND, fault: FaultKind::Throttled.into(), digest: 0 })
        };
        let election =
            Election::start(Arc::clone(&nats), BACKEND, me, Timing::of_lease(lease), pause, |_| {});
        let ownership = election.ownership();
        Self { nats, messages, election, ownership, incarnation }
    }

    /// Waits until its view of the ownership is such.
    async fn sees(&mut self, wanted: impl Fn(&Ownership) -> bool) -> Ownership {
        let seen = timeout(PATIENCE, self.ownership.wait_for(wanted)).await;
        seen.expect("in time").expect("the election goes on").clone()
    }

    async fn owns(&mut self) -> (u64, Instant) {
        match self.sees(|ownership| matches!(ownership, Ownership::Owner { .. })).await {
            Ownership::Owner { epoch, until, .. } => (epoch, until),
            other => panic!("{other:?}"),
        }
    }

    fn is_owner(&self) -> bool {
        matches!(&*self.ownership.borrow(), Ownership::Owner { until, .. } if Instant::now() < *until)
    }

    async fn follows(&mut self, owner: u64) -> u64 {
        let held = move |ownership: &Ownership| matches!(ownership, Ownership::HeldBy { incarnation, .. } if *incarnation == owner);
        match self.sees(held).await {
            Ownership::HeldBy { epoch, .. } => epoch,
            other => panic!("{other:?}"),
        }
    }
}

/// Has a lease taken and released, so that replicas with a longer one needn't wait for a whole one.
async fn prepare(servers: &Servers) {
    let mut first = Replica::start(servers, 99, 3 * SECOND);
    first.owns().await;
    first.election.release(PATIENCE).await;
}

#[tokio::test]
async fn lease_of_a_replica_that_ends_is_taken_over_after_it_and_not_before() {
    let servers = Servers::start(1, "");
    let lease = 5 * SECOND;
    let mut replicas = [1, 2].map(|incarnation| Replica::start(&servers, incarnation, lease));
    let [one, other] = &mut replicas;
    let first = tokio::select! {
        _ = one.owns() => 0,
        _ = other.owns() => 1,
    };
    replicas.rotate_left(first);
    let [mut owner, mut follower] = replicas;
    assert!(!follower.is_owner());
    let epoch = follower.follows(owner.incarnation).await;
    assert_eq!(owner.owns().await.0, epoch);

    let mut last = owner.ownership.clone();
    drop((owner.election, owner.nats));
    let Ownership::Owner { until, .. } = last.borrow_and_update().clone() else { panic!("{last:?}") };
    let last_renewal = until - Timing::of_lease(lease).renew_deadline;
    let (next, _) = follower.owns().await;
    assert!(last_renewal.elapsed() >= lease, "{:?} after the last renewal", last_renewal.elapsed());
    assert_eq!(next, epoch + 1);
    let Ownership::Owner { pause, .. } = follower.ownership.borrow().clone() else { panic!() };
    assert_eq!(pause.map(|pause| pause.fault.kind), Some(FaultKind::Throttled), "what the owner knew");
}

#[tokio::test]
async fn released_lease_is_taken_over_long_before_it_ends() {
    let servers = Servers::start(1, "");
    prepare(&servers).await;
    let lease = 300 * SECOND;
    let mut owner = Replica::start(&servers, 1, lease);
    let (epoch, _) = owner.owns().await;
    let mut follower = Replica::start(&servers, 2, lease);
    assert_eq!(follower.follows(1).await, epoch);
    let began = Instant::now();
    owner.election.release(PATIENCE).await;
    let (next, _) = follower.owns().await;
    assert_eq!(next, epoch + 1);
    assert!(began.elapsed() < lease / 2, "{:?}", began.elapsed());
    println!("taken over {:?} after the release", began.elapsed());
}

#[tokio::test]
async fn owner_stays_while_one_of_three_servers_is_killed() {
    let mut servers = Servers::start(3, "");
    prepare(&servers).await;
    let mut owner = Replica::start(&servers, 1, 60 * SECOND);
    let (epoch, _) = owner.owns().await;
    let mut follower = Replica::start(&servers, 2, 60 * SECOND);
    follower.follows(1).await;
    let client = async_nats::connect(servers.urls()).await.unwrap();
    let stream = async_nats::jetstream::new(client).get_stream("KV_jobwatch_leases_test").await.unwrap();
    assert_eq!(stream.cached_info().config.num_replicas, 3);
    let Connection::Connected { server } = owner.nats.connection().borrow().clone() else { panic!() };
    servers.kill(&server);
    // Three renewals later.
    let later = Instant::now() + 3 * Timing::of_lease(60 * SECOND).retry;
    let wanted = later + Timing::of_lease(60 * SECOND).renew_deadline;
    let seen = owner
        .sees(move |ownership| match ownership {
            Ownership::Owner { until, .. } => *until >= wanted,
            _ => true,
        })
        .await;
    assert!(matches!(seen, Ownership::Owner { epoch: still, .. } if still == epoch), "{seen:?}");
    assert!(!follower.is_owner());
    let Connection::Connected { server: next } = owner.nats.connection().borrow().clone() else { panic!() };
    assert_ne!(next, server);
}

#[tokio::test]
async fn no_two_replicas_own_a_backend_while_the_servers_lose_the_bucket() {
    let mut servers = Servers::start(1, "");
    let mut replicas = [1, 2, 3].map(|incarnation| Replica::start(&servers, incarnation, 3 * SECOND));
    for _ in 0..2 {
        let [one, two, three] = &mut replicas;
        tokio::select! {
            _ = one.owns() => {}
            _ = two.owns() => {}
            _ = three.owns() => {}
        }
        servers.kill_one(0);
        servers.lose_store(0);
        servers.start_one(0);
        let until = Instant::now() + 8 * SECOND;
        while Instant::now() < until {
            let [one, two, three] = &mut replicas;
            let changed = async {
                tokio::select! {
                    _ = one.ownership.changed() => {}
                    _ = two.ownership.changed() => {}
                    _ = three.ownership.changed() => {}
                }
            };
            let _ = timeout(SECOND, changed).await;
            let owners = replicas.iter().filter(|replica| replica.is_owner()).count();
            assert!(owners <= 1, "{owners} owners");
        }
    }
}

#[tokio::test]
async fn messages_reach_the_process_that_they_are_for_and_none_waits() {
    let mut servers = Servers::start(1, "");
    let mut replicas = [1, 0xabc].map(|incarnation| Replica::start(&servers, incarnation, 60 * SECOND));
    for replica in &mut replicas {
        let mut connection = replica.nats.connection();
        timeout(PATIENCE, connection.wait_for(Connection::is_connected)).await.unwrap().unwrap();
    }
    let [one, other] = &mut replicas;
    let large = Bytes::from(vec![7; one.nats.max_message()]);
    // What is sent before the server knows of a subscription is lost. It knows that of a process
    // whose message comes back to itself.
    for (from, to) in [(&one.nats, 1), (&other.nats, 0xabc)] {
        assert!(from.send(to, Bytes::new()));
    }
    assert_eq!(timeout(PATIENCE, one.messages.recv()).await.unwrap(), Some(Bytes::new()));
    assert_eq!(timeout(PATIENCE, other.messages.recv()).await.unwrap(), Some(Bytes::new()));
    assert!(one.nats.send(0xabc, large.clone()));
    assert_eq!(timeout(PATIENCE, other.messages.recv()).await.unwrap(), Some(large));
    assert!(other.nats.send(1, Bytes::from_static(b"answer")));
    assert_eq!(timeout(PATIENCE, one.messages.recv()).await.unwrap().as_deref(), Some(&b"answer"[..]));
    assert!(!one.nats.send(0xabc, Bytes::from(vec![7; 2 << 20])), "larger than a message may be");

    servers.kill_one(0);
    let mut connection = one.nats.connection();
    let lost = timeout(PATIENCE, connection.wait_for(|state| !state.is_connected())).await.unwrap().unwrap();
    let Connection::Disconnected { why, .. } = lost.clone() else { panic!() };
    drop(lost);
    assert!(!why.is_empty());
    assert!(!one.nats.send(0xabc, Bytes::from_static(b"lost")), "it would be late");
    servers.start_one(0);
    timeout(PATIENCE, connection.wait_for(Connection::is_connected)).await.unwrap().unwrap();
    // The other one may not have noticed yet: a message may be lost.
    let received = async {
        loop {
            one.nats.send(0xabc, Bytes::from_static(b"again"));
            if let Ok(message) = timeout(SECOND, other.messages.recv()).await {
                return message;
            }
        }
    };
    assert_eq!(timeout(PATIENCE, received).await.unwrap().as_deref(), Some(&b"again"[..]));
}
