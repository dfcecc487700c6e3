//! This replica among others: its connection to NATS, and what it does for each backend.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::AbortOnDropHandle,
};
use tracing::{info, warn};

use super::{
    election::Election,
    excess::{self, Excess},
    lease::{self, Ownership, Timing},
    member::Member,
    nats::Nats,
    seat::{Limits, Seat},
    share::Share,
    status::{self, NatsStatus, OwnerStatus, Record, ReplicaStatus, SeatStatus, ShareStatus},
    wire::Connection,
};
use crate::{
    config::{self, Cluster},
    engine::{self, Backend},
};

/// This replica.
pub struct Replica {
    config: Cluster,
    me: lease::Member,
    nats: Arc<Nats>,
    member: Arc<Member>,
    seats: Mutex<BTreeMap<Arc<str>, Seated>>,
    _inbound: AbortOnDropHandle<()>,
    _counting: AbortOnDropHandle<()>,
}

/// What a replica does for one backend, until this is dropped.
struct Seated {
    limits: watch::Sender<Limits>,
    election: Option<Election>,
    ownership: watch::Receiver<Ownership>,
    record: Arc<Record>,
    /// `None` while the backend moves to another place.
    seat: Option<Sitting>,
}

/// The task of a seat.
struct Sitting {
    stop: DropGuard,
    task: JoinHandle<()>,
}

impl Sitting {
    fn start(seat: Seat) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(seat.run(stop.clone()));
        Self { stop: stop.drop_guard(), task }
    }
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica").field("me", &self.me).finish_non_exhaustive()
    }
}

impl Replica {
    /// Connects to NATS, which may take as long as it wants.
    pub fn start(config: &Cluster) -> Arc<Self> {
        let incarnation = rand::random::<u64>().max(1);
        let (nats, mut inbound) = Nats::start(config, incarnation);
        let member = Member::new(incarnation, Arc::clone(&nats) as _);
        let receiver = Arc::clone(&member);
        let receiving = tokio::spawn(async move {
            while let Some(message) = inbound.recv().await {
                receiver.receive(message);
            }
        });
        info!(
            cluster = config.name,
            member = config.member,
            replicas = config.replicas,
            "replicas of cluster {} share the work",
            config.name
        );
        let counting = tokio::spawn(count_replicas(Arc::clone(&member), config.replicas));
        Arc::new(Self {
            config: config.clone(),
            me: lease::Member { name: config.member.clone(), incarnation },
            nats,
            member,
            seats: Mutex::default(),
            _inbound: AbortOnDropHandle::new(receiving),
            _counting: AbortOnDropHandle::new(counting),
        })
    }

    /// Shares a backend with the other replicas, or goes on to with other settings.
    pub fn share(&self, backend: Arc<Backend>, config: &config::Backend) {
        let limits = self.limits(config);
        if limits.rate.own == 0 {
            warn!(
                backend = &*config.name,
                requests_per_second = config.poll.requests_per_second,
                replicas = self.config.replicas,
                "a replica without its owner can't poll this backend: requests_per_second is lower than \
                 cluster.replicas"
            );
        }
        let mut seats = self.seats();
        if let Some(seated) = seats.get_mut(&config.name) {
            seated.limits.send_if_modified(|now| std::mem::replace(now, limits) != limits);
            if seated.seat.is_none() {
                let (receiver, ownership) = (seated.limits.subscribe(), seated.ownership.clone());
                let (seat, _) = Seat::new(Arc::clone(&self.member), backend, receiver, ownership);
                seated.seat = Some(Sitting::start(seat.with_record(Arc::clone(&seated.record))));
            }
            return;
        }
        let (sender, receiver) = watch::channel(limits);
        let (pause, heard) = pauses(&backend, &receiver);
        let timing = Timing::of_lease(self.config.lease);
        let nats = Arc::clone(&self.nats);
        let election = Election::start(nats, &config.name, self.me.clone(), timing, pause, heard);
        let ownership = election.ownership();
        let (seat, _) = Seat::new(Arc::clone(&self.member), backend, receiver, ownership.clone());
        let record = seat.record();
        let seat = Some(Sitting::start(seat));
        let seated = Seated { limits: sender, election: Some(election), ownership, record, seat };
        seats.insert(Arc::clone(&config.name), seated);
    }

    /// Ends all sessions of a backend if this configuration polls another place under its name.
    /// It is shared again with [`share`](Self::share), when it is polled there.
    pub async fn leave_place(&self, config: &config::Backend, within: Duration) {
        let sitting = self
            .seats()
            .get_mut(&config.name)
            .filter(|seated| seated.limits.borrow().digest != config.place())
            .and_then(|seated| seated.seat.take());
        if let Some(Sitting { stop, task }) = sitting {
            drop(stop);
            // Sessions end by themselves; one that can't send any more does so within a second.
            let _ = timeout(within, task).await;
        }
    }

    /// Stops sharing a backend that was removed.
    pub async fn stop_sharing(&self, name: &str, within: Duration) {
        let seated = self.seats().remove(name);
        if let Some(election) = seated.and_then(|mut seated| seated.election.take()) {
            election.release(within).await;
        }
    }

    /// Lets other replicas own all backends. This one polls for the calls that it still has.
    pub async fn release(&self, within: Duration) {
        self.member.begin_end();
        let elections: Vec<Election> =
            self.seats().values_mut().filter_map(|seated| seated.election.take()).collect();
        futures_util::future::join_all(elections.into_iter().map(|election| election.release(within))).await;
    }

    /// What this replica does among the others.
    pub fn status(&self) -> ReplicaStatus {
        let Cluster { name, replicas, .. } = &self.config;
        let nats = match self.nats.connection().borrow().clone() {
            Connection::Connected { server } => NatsStatus::Connected { server },
            Connection::Disconnected { why, since } => {
                NatsStatus::Disconnected { why, since: time_of(since) }
            }
        };
        ReplicaStatus {
            cluster: name.clone(),
            member: self.me.name.clone(),
            incarnation: status::incarnation(self.me.incarnation),
            replicas: *replicas,
            replicas_known: self.member.replicas(),
            nats,
            sessions: self.member.followers(),
            backends: self
                .seats()
                .iter()
                .map(|(backend, seated)| self.seat_status(backend, seated))
                .collect(),
        }
    }

    /// What this replica does for one backend; `None` where there is none of this name.
    pub fn seat(&self, backend: &str) -> Option<SeatStatus> {
        let seats = self.seats();
        seats.get(backend).map(|seated| self.seat_status(backend, seated))
    }

    fn seat_status(&self, backend: &str, seated: &Seated) -> SeatStatus {
        let owner = match &*seated.ownership.borrow() {
            Ownership::Unknown => None,
            Ownership::Owner { epoch, .. } => Some((self.me.clone(), *epoch)),
            Ownership::HeldBy { member, incarnation, epoch } => {
                Some((lease::Member { name: member.clone(), incarnation: *incarnation }, *epoch))
            }
        };
        let owner = owner.map(|(lease::Member { name, incarnation }, epoch)| OwnerStatus {
            member: name,
            incarnation: status::incarnation(incarnation),
            epoch,
        });
        let Share { own, owner: whole } = seated.limits.borrow().rate;
        let recorded = seated.record.get();
        SeatStatus {
            backend: backend.to_owned(),
            role: recorded.role,
            since: recorded.since,
            owner,
            sessions: self.member.followers_of(backend),
            requests_per_second: ShareStatus { own, owner: whole },
            owner_changes: recorded.owner_changes,
            session_restarts: recorded.session_restarts,
            why: recorded.why().map(str::to_owned),
        }
    }

    fn limits(&self, config: &config::Backend) -> Limits {
        let Cluster { replicas, isolated_share, .. } = self.config;
        let concurrency = u32::try_from(config.poll.max_concurrency.get()).unwrap_or(u32::MAX);
        Limits {
            rate: Share::of_rate(config.poll.requests_per_second.get(), replicas, isolated_share),
            concurrency: Share::of_concurrency(concurrency, replicas, isolated_share),
            digest: config.place(),
        }
    }

    fn seats(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Seated>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the owner of a lease writes of a backend's pause, and what is done with what was written.
pub(super) fn pauses(
    backend: &Arc<Backend>,
    limits: &watch::Receiver<Limits>,
) -> (impl Fn(Instant) -> Option<lease::Pause> + use<>, impl Fn(lease::Pause) + use<>) {
    let (known, place) = (Arc::clone(backend), limits.clone());
    let pause = move |now: Instant| {
        let engine::Pause { until, fault } = known.pause(now)?;
        Some(lease::Pause { until, fault, digest: place.borrow().digest })
    };
    let (follower, place) = (Arc::clone(backend), limits.clone());
    let heard = move |pause: lease::Pause| {
        // What the vendor asks for holds for all that poll it; a back-off is the owner's own.
        if pause.is_requested() && pause.digest == place.borrow().digest {
            follower.follow_pause(engine::Pause { until: pause.until, fault: pause.fault });
        }
    };
    (pause, heard)
}

/// Says when more replicas run than there may be.
async fn count_replicas(member: Arc<Member>, most: u32) {
    let mut excess = Excess::default();
    loop {
        tokio::time::sleep(excess::LOOK).await;
        let known = member.replicas();
        match excess.look(Instant::now(), known, most) {
            Some(excess::News::Begins) => warn!(
                known,
                replicas = most,
                "more replicas run than cluster.replicas says: together they may exceed requests_per_second; \
                 set cluster.replicas to {known} at all of them, or run fewer"
            ),
            Some(excess::News::Ends) => {
                info!(known, replicas = most, "no more replicas run than cluster.replicas says");
            }
            None => {}
        }
    }
}

/// The time of day of an instant in the past.
fn time_of(at: Instant) -> Timestamp {
    let now = Timestamp::now();
    now.checked_sub(at.elapsed()).unwrap_or(now)
}
