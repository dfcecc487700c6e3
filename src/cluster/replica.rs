//! This replica among others: its connection to NATS, and what it does for each backend.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::AbortOnDropHandle,
};
use tracing::{info, warn};

use super::{
    election::Election,
    lease::{self, Ownership, Timing},
    member::Member,
    nats::Nats,
    seat::{Limits, Role, Seat},
    share::Share,
    wire::Connection,
};
use crate::{
    config::{self, Cluster},
    engine::Backend,
};

/// This replica.
pub struct Replica {
    config: Cluster,
    me: lease::Member,
    nats: Arc<Nats>,
    member: Arc<Member>,
    seats: Mutex<BTreeMap<Arc<str>, Seated>>,
    _inbound: AbortOnDropHandle<()>,
}

/// What a replica does for one backend, until this is dropped.
struct Seated {
    limits: watch::Sender<Limits>,
    election: Option<Election>,
    ownership: watch::Receiver<Ownership>,
    role: watch::Receiver<Role>,
    _stop: DropGuard,
}

/// What a replica does for one backend, for operators.
#[derive(Clone, Debug)]
pub struct SeatStatus {
    /// The backend.
    pub backend: Arc<str>,
    /// What this replica does for it.
    pub role: Role,
    /// Who owns it.
    pub ownership: Ownership,
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
        Arc::new(Self {
            config: config.clone(),
            me: lease::Member { name: config.member.clone(), incarnation },
            nats,
            member,
            seats: Mutex::default(),
            _inbound: AbortOnDropHandle::new(receiving),
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
        if let Some(seated) = seats.get(&config.name) {
            seated.limits.send_if_modified(|now| std::mem::replace(now, limits) != limits);
            return;
        }
        let known = Arc::clone(&backend);
        let pause = move |now: Instant| {
            known
                .pause(now)
                .map(|pause| lease::Pause { until: pause.until, reason: pause.fault.kind.to_string() })
        };
        let timing = Timing::of_lease(self.config.lease);
        let election = Election::start(Arc::clone(&self.nats), &config.name, self.me.clone(), timing, pause);
        let (sender, receiver) = watch::channel(limits);
        let ownership = election.ownership();
        let (seat, role) = Seat::new(Arc::clone(&self.member), backend, receiver, ownership.clone());
        let stop = CancellationToken::new();
        tokio::spawn(seat.run(stop.clone()));
        let seated =
            Seated { limits: sender, election: Some(election), ownership, role, _stop: stop.drop_guard() };
        seats.insert(Arc::clone(&config.name), seated);
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
        let elections: Vec<Election> =
            self.seats().values_mut().filter_map(|seated| seated.election.take()).collect();
        futures_util::future::join_all(elections.into_iter().map(|election| election.release(within))).await;
    }

    /// Whether it is connected to NATS.
    pub fn connection(&self) -> Connection {
        self.nats.connection().borrow().clone()
    }

    /// What this replica does for each backend, sorted by name.
    pub fn status(&self) -> Vec<SeatStatus> {
        let status = |(name, seated): (&Arc<str>, &Seated)| SeatStatus {
            backend: Arc::clone(name),
            role: *seated.role.borrow(),
            ownership: seated.ownership.borrow().clone(),
        };
        self.seats().iter().map(status).collect()
    }

    /// How many sessions followers have with this replica.
    pub fn followers(&self) -> usize {
        self.member.followers()
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
