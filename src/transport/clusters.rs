//! A backend of several clusters: the first, and standbys that know its jobs by tag.
//!
//! A question goes to the cluster in use and on to the others where that one can't
//! answer, as the [`Ring`] says. While a standby is in use, questions also have the
//! first cluster looked at, by back-off; nothing looks at it while nobody asks.
//! A backend's rate limit is one for all its clusters, looks at the first included.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::header;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use super::{Endpoint, Http, Leave, Question};
use crate::{
    adapters::{Adapter, BackendFault, Changes, FaultKind, JobFault},
    job::JobRef,
    pacing::{Backoff, Pass, Ring},
};

/// A cluster that is asked in place of the first.
#[derive(Debug)]
pub(super) struct Standby {
    pub(super) adapter: Box<dyn Adapter>,
    pub(super) http: Http,
}

/// The clusters of one backend beside the first, at least one.
#[derive(Debug)]
pub(super) struct Clusters {
    backend: Arc<str>,
    standbys: Vec<Standby>,
    ring: Arc<Mutex<Ring>>,
    /// Which answered last, so that a change is logged once.
    speaker: AtomicUsize,
    /// Ends with its owner.
    look: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl Clusters {
    /// None where there is no standby.
    pub(super) fn new(backend: &Arc<str>, standbys: Vec<Standby>, backoff: Backoff) -> Option<Self> {
        (!standbys.is_empty()).then(|| Self {
            backend: Arc::clone(backend),
            ring: Arc::new(Mutex::new(Ring::new(1 + standbys.len(), backoff))),
            standbys,
            speaker: AtomicUsize::new(0),
            look: Mutex::default(),
        })
    }

    /// The standbys, in their order.
    pub(super) fn standbys(&self) -> &[Standby] {
        &self.standbys
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        lock(&self.ring)
    }

    /// Whether to look at the first cluster now. One look is under way at most.
    fn take_look(&self) -> bool {
        let look = lock(&self.look);
        look.as_ref().is_none_or(AbortOnDropHandle::is_finished)
            && self.ring().take_look(Instant::now(), rand::random())
    }

    fn answered(&self, pass: &Pass, cluster: usize) {
        self.ring().answered(pass, cluster);
        if self.speaker.swap(cluster, Ordering::Relaxed) == cluster {
            return;
        }
        match cluster {
            0 => info!(backend = %self.backend, "the first cluster answers again"),
            standby => {
                warn!(backend = %self.backend, standby, "a standby answers in place of the first cluster");
            }
        }
    }

    /// The fault of a pass in which no cluster could answer, for these reasons.
    fn exhausted(&self, reasons: &[String], http_status: Option<u16>) -> BackendFault {
        let why = match reasons {
            [] => "each cluster asked to be left alone for a while".to_owned(),
            reasons => reasons.join("; "),
        };
        // What one of them asked for does not keep the others from being asked.
        let retry_after = self.ring().exhausted(Instant::now());
        BackendFault { http_status, ..FaultKind::Unavailable { retry_after, why }.into() }
    }
}

impl Endpoint {
    /// Asks the cluster in use, and the others where it can't answer: each at most
    /// once.
    pub(super) async fn ask_around(
        &self,
        clusters: &Clusters,
        question: Question<'_>,
        mut leave: Leave,
    ) -> Result<Changes, BackendFault> {
        if clusters.take_look() {
            let look = self.look(clusters, leave.another());
            let in_use = clusters.ring().in_use();
            if unasked(self.cluster(clusters, in_use).0, question.jobs).is_some() {
                // There is nothing else to do for these jobs.
                leave.give_back();
                look.await;
            } else {
                *lock(&clusters.look) = Some(AbortOnDropHandle::new(tokio::spawn(look)));
            }
        }
        let mut pass = clusters.ring().pass();
        let (mut reasons, mut http_status) = (Vec::new(), None);
        loop {
            let next = clusters.ring().next(&mut pass, Instant::now());
            let Some(cluster) = next else { return Err(clusters.exhausted(&reasons, http_status)) };
            let (adapter, http) = self.cluster(clusters, cluster);
            if let Some(known) = unasked(adapter, question.jobs) {
                return Ok(Ok(known.into_iter().map(Err).collect()));
            }
            let asked = self.ask_at(adapter, http, question, &mut leave).await;
            let (Err(fault) | Ok(Err(fault))) = &asked else {
                clusters.answered(&pass, cluster);
                return asked;
            };
            let FaultKind::Unavailable { retry_after, why } = &fault.kind else {
                clusters.answered(&pass, cluster);
                return asked;
            };
            let now = Instant::now();
            clusters.ring().failed(&pass, cluster, *retry_after, now, rand::random());
            reasons.push(match cluster {
                0 => why.clone(),
                standby => format!("standby {standby}: {why}"),
            });
            http_status = fault.http_status;
        }
    }

    fn cluster<'a>(&'a self, clusters: &'a Clusters, number: usize) -> (&'a dyn Adapter, &'a Http) {
        match number.checked_sub(1) {
            None => (&*self.adapter, &self.http),
            Some(standby) => (&*clusters.standbys[standby].adapter, &clusters.standbys[standby].http),
        }
    }

    /// Looks whether the first cluster is healthy, and has it in use again if so.
    fn look(&self, clusters: &Clusters, mut leave: Leave) -> impl Future<Output = ()> + Send + use<> {
        let (adapter, ring) = (Arc::clone(&self.adapter), Arc::clone(&clusters.ring));
        let (credentials, http) = (Arc::clone(&self.credentials), Arc::clone(&self.http));
        let backend = Arc::clone(&clusters.backend);
        async move {
            let Some(check) = adapter.health_check() else { return };
            let verdict = async {
                let authorization = credentials.authorization(&*adapter, &http, &mut leave).await?;
                let mut request = check.question();
                if let Some(value) = authorization.header {
                    request.headers_mut().insert(header::AUTHORIZATION, value);
                }
                check.judge(&http.send(request, Duration::ZERO, &mut leave).await?)
            };
            match verdict.await {
                Ok(()) => lock(&ring).recovered(),
                // Its words may hold what was sent; its kind is enough here.
                Err(fault) => {
                    debug!(%backend, http_status = fault.http_status, "the first cluster is not healthy yet");
                }
            }
        }
    }
}

/// What is known about the jobs without asking, if that is so of all.
fn unasked(adapter: &dyn Adapter, jobs: &[JobRef]) -> Option<Vec<JobFault>> {
    jobs.iter().map(|job| adapter.unasked(job)).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
