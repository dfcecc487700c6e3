//! Failover between the clusters of a backend: the primary, and standbys that know its jobs
//! by tag.
//!
//! A poll goes to the active cluster and on to the others where that one gives no usable
//! response, as [`FailoverState`] says. While a standby is active, polls also have the
//! primary's health checked, by back-off; nothing checks it while nothing is polled.
//! The rate limit is one for all clusters of a backend, health checks included.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use super::{Backoff, Endpoint, HttpClient, Permit, PollResponse, Purpose};
use crate::{
    job::{BackendFault, FaultKind, JobFault, JobRef},
    vendors::{Adapter, BaseUrl, Elements},
};

mod state;

use state::{Attempts, FailoverState};

/// A cluster that is polled in place of the primary.
#[derive(Debug)]
pub(super) struct Standby {
    pub(super) adapter: Arc<dyn Adapter>,
    pub(super) http: HttpClient,
    pub(super) base_url: BaseUrl,
}

/// The clusters of one backend beside the primary, at least one.
#[derive(Debug)]
pub(super) struct Failover {
    backend: Arc<str>,
    standbys: Vec<Standby>,
    state: Arc<Mutex<FailoverState>>,
    /// Which cluster answered last, so that a change is logged once.
    answered_last: AtomicUsize,
    /// The health check in flight; ends with its owner.
    health_check: Mutex<Option<AbortOnDropHandle<()>>>,
}

/// The faults of one poll's attempts.
#[derive(Debug, Default)]
struct Failures {
    reasons: Vec<String>,
    http_status: Option<u16>,
    exchange: Option<Arc<str>>,
    /// Whether a request was sent to any of the clusters.
    reached: bool,
}

impl Failover {
    /// None where there is no standby.
    pub(super) fn new(backend: &Arc<str>, standbys: Vec<Standby>, backoff: Backoff) -> Option<Self> {
        (!standbys.is_empty()).then(|| Self {
            backend: Arc::clone(backend),
            state: Arc::new(Mutex::new(FailoverState::new(1 + standbys.len(), backoff))),
            standbys,
            answered_last: AtomicUsize::new(0),
            health_check: Mutex::default(),
        })
    }

    /// The standbys, in their order.
    pub(super) fn standbys(&self) -> &[Standby] {
        &self.standbys
    }

    fn state(&self) -> MutexGuard<'_, FailoverState> {
        lock(&self.state)
    }

    /// Whether to check the primary's health now. One check is in flight at most.
    fn take_health_check(&self) -> bool {
        let in_flight = lock(&self.health_check);
        in_flight.as_ref().is_none_or(AbortOnDropHandle::is_finished)
            && self.state().take_health_check(Instant::now(), rand::random())
    }

    fn answered(&self, attempts: &Attempts, cluster: usize) {
        self.state().answered(attempts, cluster);
        if self.answered_last.swap(cluster, Ordering::Relaxed) == cluster {
            return;
        }
        match cluster {
            0 => info!(backend = %self.backend, "the primary cluster answers again"),
            standby => {
                warn!(backend = %self.backend, standby, "failed over: a standby answers in place of the primary cluster");
            }
        }
    }

    /// The fault of a poll for which no cluster gave a usable response.
    fn exhausted(&self, failures: Failures) -> BackendFault {
        let Failures { reasons, http_status, exchange, reached } = failures;
        // What one of them asked for does not keep the others from being polled.
        let retry_after = self.state().exhausted(Instant::now());
        if reasons.is_empty() {
            let why = "each cluster asked to be left alone for a while".to_owned();
            return BackendFault::from(FaultKind::Unavailable { why }).with_retry_after(retry_after);
        }
        let why = reasons.join("; ");
        let kind = if reached || retry_after.is_some() {
            FaultKind::Unavailable { why }
        } else {
            FaultKind::Unreachable { why }
        };
        BackendFault { http_status, retry_after, exchange, ..kind.into() }
    }
}

impl Failures {
    fn add(&mut self, cluster: usize, why: &str) {
        self.reasons.push(match cluster {
            0 => why.to_owned(),
            standby => format!("standby {standby}: {why}"),
        });
    }
}

impl Endpoint {
    /// Polls the active cluster, and the others where it gives no usable response: each at
    /// most once.
    pub(super) async fn poll_with_failover(
        &self,
        failover: &Failover,
        jobs: &[JobRef],
        mut permit: Permit,
    ) -> Result<PollResponse, BackendFault> {
        if failover.take_health_check() {
            let check = self.check_health(failover, permit.another());
            let active = failover.state().active();
            if unpollable(&**self.cluster(failover, active).0, jobs).is_some() {
                // There is nothing else to do for these jobs.
                permit.release();
                check.await;
            } else {
                *lock(&failover.health_check) = Some(AbortOnDropHandle::new(tokio::spawn(check)));
            }
        }
        let mut attempts = failover.state().begin();
        let mut failures = Failures::default();
        loop {
            let next = failover.state().next(&mut attempts, Instant::now());
            let Some(cluster) = next else { return Err(failover.exhausted(failures)) };
            let (adapter, http) = self.cluster(failover, cluster);
            if let Some(elements) = unpollable(&**adapter, jobs) {
                return Ok(PollResponse::new(Arc::clone(adapter), elements));
            }
            let outcome = self.poll_at(adapter, http, jobs, &mut permit).await;
            let (retry_after, why) = match &outcome {
                Err(BackendFault { kind: FaultKind::Unavailable { why }, retry_after, .. }) => {
                    failures.reached = true;
                    (*retry_after, why)
                }
                Err(BackendFault { kind: FaultKind::Unreachable { why }, retry_after, .. }) => {
                    (*retry_after, why)
                }
                // The gateway's own lack of room says nothing of the cluster.
                Err(BackendFault { kind: FaultKind::Overloaded, .. }) => return outcome,
                Ok(_) | Err(_) => {
                    failover.answered(&attempts, cluster);
                    return outcome;
                }
            };
            failover.state().failed(&attempts, cluster, retry_after, Instant::now(), rand::random());
            let fault = outcome.as_ref().err();
            failures.http_status = fault.and_then(|fault| fault.http_status);
            failures.exchange = fault.and_then(|fault| fault.exchange.clone());
            failures.add(cluster, why);
        }
    }

    fn cluster<'a>(
        &'a self,
        failover: &'a Failover,
        number: usize,
    ) -> (&'a Arc<dyn Adapter>, &'a HttpClient) {
        match number.checked_sub(1) {
            None => (&self.adapter, &self.http),
            Some(standby) => (&failover.standbys[standby].adapter, &failover.standbys[standby].http),
        }
    }

    /// Checks whether the primary is healthy, and makes it the active cluster if so.
    fn check_health(
        &self,
        failover: &Failover,
        mut permit: Permit,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (adapter, state) = (Arc::clone(&self.adapter), Arc::clone(&failover.state));
        let (credentials, http) = (Arc::clone(&self.credentials), Arc::clone(&self.http));
        let backend = Arc::clone(&failover.backend);
        async move {
            let Some(check) = adapter.health_check() else { return };
            let health = async {
                let authorization =
                    credentials.authorization(&*adapter, &http, Purpose::Poll, &mut permit).await?;
                let mut request = check.health_request();
                if let Some(value) = &authorization.header {
                    adapter.authorize(&mut request, value.clone());
                }
                let response = http.send(request, &mut permit).await;
                let health = response.and_then(|(response, _room)| check.read_health(&response));
                credentials.judge(&authorization, health.as_ref().err(), true);
                health
            };
            match health.await {
                Ok(()) => lock(&state).recovered(),
                // Its words may hold what was sent; its kind is enough here.
                Err(fault) => {
                    debug!(%backend, http_status = fault.http_status, "the primary cluster is not healthy yet");
                }
            }
        }
    }
}

/// What is known about the jobs without a poll, if none of them can be polled.
fn unpollable(adapter: &dyn Adapter, jobs: &[JobRef]) -> Option<Elements> {
    let faults: Vec<JobFault> = jobs.iter().map(|job| adapter.unpollable(job)).collect::<Option<_>>()?;
    Some(Elements::for_each(jobs, |index, _| Err(faults[index].clone())))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
