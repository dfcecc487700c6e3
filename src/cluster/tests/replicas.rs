//! The replicas of a test.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use rand::{RngExt, rngs::StdRng};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    cluster::{Limits, Member, Role, Seat, Wire, lease::Ownership, share::Share, status::Record},
    engine::{
        Caller, Engine, GetOptions, JobStatuses, Watch, WatchOptions,
        tests::{
            rig::{Running, job, limits, many_watches, options, setup, start},
            script::Script,
        },
    },
    transport::Upstream,
};

/// Most messages on the way to a replica.
const ON_THE_WAY: usize = 10_000;

/// Of a vendor that takes what comes.
pub(super) const LIMITS: Limits =
    Limits { rate: Share { own: 100, owner: 800 }, concurrency: Share { own: 4, owner: 8 }, digest: 1 };

/// How long a message takes.
const DELAY: Duration = Duration::from_micros(400);

/// Carries messages between the replicas of a test.
#[derive(Default)]
pub(super) struct Net {
    inboxes: Mutex<HashMap<u64, mpsc::Sender<Sent>>>,
    /// Pairs of sender and receiver between which nothing arrives.
    cut: Mutex<Vec<(u64, u64)>>,
    /// Bytes of the longest message that arrives, and of the longest that senders know of.
    longest: Mutex<Option<(usize, usize)>>,
    /// Delays and losses; none without.
    dice: Mutex<Option<StdRng>>,
}

/// Who sends a message, when it arrives, and the message.
type Sent = (u64, Instant, Bytes);

struct Port {
    from: u64,
    net: Arc<Net>,
}

impl Wire for Port {
    fn send(&self, to: u64, message: Bytes) -> bool {
        let (delay, is_lost) = match &mut *self.net.dice.lock().unwrap() {
            None => (DELAY, false),
            Some(dice) => {
                let most = if dice.random_bool(0.02) { 3000 } else { 5 };
                (Duration::from_millis(dice.random_range(0..=most)), dice.random_bool(0.005))
            }
        };
        let longest = self.net.longest.lock().unwrap().map_or(usize::MAX, |(longest, _)| longest);
        if !is_lost
            && message.len() <= longest
            && !self.net.cut.lock().unwrap().contains(&(self.from, to))
            && let Some(inbox) = self.net.inboxes.lock().unwrap().get(&to)
        {
            let _ = inbox.try_send((self.from, Instant::now() + delay, message));
        }
        true
    }

    fn max_message(&self) -> usize {
        self.net.longest.lock().unwrap().map_or(960 << 10, |(_, known)| known)
    }
}

impl Net {
    pub(super) fn cut(&self, from: u64, to: u64) {
        self.cut.lock().unwrap().push((from, to));
    }

    /// Sends a message as a replica that isn't there.
    pub(super) fn send(self: &Arc<Self>, from: u64, to: u64, message: Bytes) {
        Port { from, net: Arc::clone(self) }.send(to, message);
    }

    /// Messages that are longer than `longest` are lost. Senders believe that it is `known`.
    pub(super) fn limit(&self, longest: usize, known: usize) {
        *self.longest.lock().unwrap() = Some((longest, known));
    }

    pub(super) fn heal(&self) {
        self.cut.lock().unwrap().clear();
    }

    pub(super) fn with_dice(dice: StdRng) -> Self {
        Self { dice: Mutex::new(Some(dice)), ..Self::default() }
    }

    /// Nothing is lost or late any more.
    pub(super) fn calm(&self) {
        self.heal();
        *self.dice.lock().unwrap() = None;
    }

    /// A replica is gone.
    pub(super) fn forget(&self, number: u64) {
        self.inboxes.lock().unwrap().remove(&number);
    }
}

/// One replica.
pub(super) struct Replica {
    pub(super) number: u64,
    pub(super) running: Running,
    pub(super) member: Arc<Member>,
    pub(super) limits: watch::Sender<Limits>,
    pub(super) lease: watch::Sender<Ownership>,
    pub(super) role: watch::Receiver<Role>,
    pub(super) record: Arc<Record>,
    seat_stop: CancellationToken,
    seat_task: JoinHandle<()>,
    _stop: DropGuard,
}

impl Replica {
    pub(super) fn start(net: &Arc<Net>, number: u64, vendor: Arc<dyn Upstream>, max_batch: usize) -> Self {
        let running = start(vec![setup("vendor", max_batch, vendor)], limits(many_watches()));
        let member = Member::new(number, Arc::new(Port { from: number, net: Arc::clone(net) }));
        let (inbox, mut inbound) = mpsc::channel(ON_THE_WAY);
        net.inboxes.lock().unwrap().insert(number, inbox);
        let (receiver, known) = (Arc::clone(&member), Arc::clone(&member));
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let mut senders = HashMap::new();
        tokio::spawn(async move {
            loop {
                let message = tokio::select! {
                    message = inbound.recv() => message,
                    () = stopped.cancelled() => None,
                };
                let Some((from, at, message)) = message else { return };
                // In the order in which each replica sends.
                let sender = senders.entry(from).or_insert_with(|| {
                    let (sender, mut messages) = mpsc::channel::<(Instant, Bytes)>(ON_THE_WAY);
                    let receiver = Arc::clone(&receiver);
                    tokio::spawn(async move {
                        while let Some((at, message)) = messages.recv().await {
                            tokio::time::sleep_until(at).await;
                            receiver.receive(message);
                        }
                    });
                    sender
                });
                let _ = sender.try_send((at, message));
            }
        });
        let (lease, ownership) = watch::channel(Ownership::Unknown);
        let backend = running.engine.shared_backend("vendor").unwrap();
        let (limits, shares) = watch::channel(LIMITS);
        let (seat, role) = Seat::new(member, backend, shares, ownership);
        let (record, seat_stop) = (seat.record(), stop.child_token());
        let seat_task = tokio::spawn(seat.run(seat_stop.clone()));
        let member = known;
        Self {
            number,
            running,
            member,
            limits,
            lease,
            role,
            record,
            seat_stop,
            seat_task,
            _stop: stop.drop_guard(),
        }
    }

    /// Ends what the replica does for the backend; it still receives messages.
    pub(super) async fn stop_seat(&mut self) {
        self.seat_stop.cancel();
        (&mut self.seat_task).await.unwrap();
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

    pub(super) async fn becomes(&mut self, role: Role) {
        self.role.wait_for(|now| *now == role).await.unwrap();
    }
}

/// Three replicas, the first of which owns the backend.
pub(super) async fn three(vendor: &Arc<Script>, max_batch: usize) -> (Arc<Net>, [Replica; 3]) {
    let net = Arc::new(Net::default());
    let mut replicas =
        [1, 2, 3].map(|number| Replica::start(&net, number, Arc::clone(vendor) as _, max_batch));
    give_lease(&replicas, 1);
    replicas[0].becomes(Role::Owner).await;
    for replica in &mut replicas[1..] {
        replica.becomes(Role::Follower { owner: 1 }).await;
    }
    (net, replicas)
}

/// That `owner` has the lease, as one replica believes.
pub(super) fn belief(of: u64, owner: u64) -> Ownership {
    if of != owner {
        return Ownership::HeldBy { member: owner.to_string(), incarnation: owner, epoch: 1 };
    }
    let now = Instant::now();
    Ownership::Owner { epoch: 1, until: now + Duration::from_hours(1), full_rate_from: now, pause: None }
}

/// The lease is this replica's from now on.
pub(super) fn give_lease(replicas: &[Replica], owner: u64) {
    for replica in replicas {
        replica.lease.send_replace(belief(replica.number, owner));
    }
}
