//! The replicas of a test.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    cluster::{Member, Ownership, Role, Seat, Wire},
    engine::{
        Caller, Engine, GetOptions, JobStatuses, Watch, WatchOptions,
        tests::{
            rig::{Running, job, limits, many_watches, options, setup, start},
            script::Script,
        },
    },
};

/// How long a message takes.
const DELAY: Duration = Duration::from_micros(400);

/// Carries messages between the replicas of a test.
#[derive(Default)]
pub(super) struct Net {
    inboxes: Mutex<HashMap<u64, mpsc::UnboundedSender<Bytes>>>,
    /// Pairs of sender and receiver between which nothing arrives.
    cut: Mutex<Vec<(u64, u64)>>,
}

struct Port {
    from: u64,
    net: Arc<Net>,
}

impl Wire for Port {
    fn send(&self, to: u64, message: Bytes) -> bool {
        if !self.net.cut.lock().unwrap().contains(&(self.from, to))
            && let Some(inbox) = self.net.inboxes.lock().unwrap().get(&to)
        {
            let _ = inbox.send(message);
        }
        true
    }
}

impl Net {
    pub(super) fn cut(&self, from: u64, to: u64) {
        self.cut.lock().unwrap().push((from, to));
    }

    pub(super) fn heal(&self) {
        self.cut.lock().unwrap().clear();
    }
}

/// One replica.
pub(super) struct Replica {
    pub(super) number: u64,
    pub(super) running: Running,
    pub(super) member: Arc<Member>,
    pub(super) lease: watch::Sender<Ownership>,
    pub(super) role: watch::Receiver<Role>,
    _stop: DropGuard,
}

impl Replica {
    pub(super) fn start(net: &Arc<Net>, number: u64, vendor: &Arc<Script>, max_batch: usize) -> Self {
        let running =
            start(vec![setup("vendor", max_batch, Arc::clone(vendor) as _)], limits(many_watches()));
        let member = Member::new(number, Arc::new(Port { from: number, net: Arc::clone(net) }));
        let (inbox, mut inbound) = mpsc::unbounded_channel();
        net.inboxes.lock().unwrap().insert(number, inbox);
        let receiver = Arc::clone(&member);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            loop {
                let message = tokio::select! {
                    message = inbound.recv() => message,
                    () = stopped.cancelled() => None,
                };
                let Some(message) = message else { return };
                tokio::time::sleep(DELAY).await;
                receiver.receive(message);
            }
        });
        let (lease, ownership) = watch::channel(Ownership::Unknown);
        let backend = running.engine.shared_backend("vendor").unwrap();
        let (seat, role) = Seat::new(Arc::clone(&member), backend, 1, ownership);
        tokio::spawn(seat.run(stop.clone()));
        Self { number, running, member, lease, role, _stop: stop.drop_guard() }
    }

    pub(super) fn engine(&self) -> &Arc<Engine> {
        &self.running.engine
    }

    pub(super) fn watch(&self, id: &str) -> Watch {
        self.resume(id, "")
    }

    pub(super) fn resume(&self, id: &str, token: &str) -> Watch {
        let options = WatchOptions { resume_token: token.into(), ..options() };
        self.engine().watch(&job(id), Caller::default(), &options).unwrap()
    }

    pub(super) async fn get(&self, id: &str, options: GetOptions) -> String {
        match self.engine().get(&job(id), options).await {
            Ok(latest) => format!("{:?}", latest.snapshot.state),
            Err(failure) => format!("failed: {failure}"),
        }
    }

    pub(super) fn role(&self) -> Role {
        *self.role.borrow()
    }

    pub(super) async fn becomes(&mut self, role: Role) {
        self.role.wait_for(|now| *now == role).await.unwrap();
    }
}

/// Three replicas, the first of which owns the backend.
pub(super) async fn three(vendor: &Arc<Script>, max_batch: usize) -> (Arc<Net>, [Replica; 3]) {
    let net = Arc::new(Net::default());
    let mut replicas = [1, 2, 3].map(|number| Replica::start(&net, number, vendor, max_batch));
    give_lease(&replicas, 1);
    replicas[0].becomes(Role::Owner).await;
    for replica in &mut replicas[1..] {
        replica.becomes(Role::Follower { owner: 1 }).await;
    }
    (net, replicas)
}

/// The lease is this replica's from now on.
pub(super) fn give_lease(replicas: &[Replica], owner: u64) {
    for replica in replicas {
        let ownership = if replica.number == owner { Ownership::Own } else { Ownership::Other(owner) };
        replica.lease.send_replace(ownership);
    }
}
