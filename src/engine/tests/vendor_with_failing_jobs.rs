//! A vendor that has jobs whose presence makes any request fail.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::script::{Call, response};
use crate::{
    job::{BackendFault, FaultKind, JobRef, JobState, Observation},
    transport::{Permit, PollResponse, Upstream},
};

/// How long a request takes that is answered, or refused at once.
pub(super) const LATENCY: Duration = Duration::from_millis(50);

/// How long a request takes that is not answered.
pub(super) const TIME_OUT: Duration = Duration::from_secs(15);

/// How a request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    ServerError,
    Hang,
    Reset,
    Malformed,
    TooLarge,
    Rejected,
}

pub(super) const FAILURES: [Failure; 6] = [
    Failure::ServerError,
    Failure::Hang,
    Failure::Reset,
    Failure::Malformed,
    Failure::TooLarge,
    Failure::Rejected,
];

impl Failure {
    /// Whether the vendor can be reached and refuses the request.
    pub(super) fn is_refusal(self) -> bool {
        self.fault().kind.is_refusal()
    }

    fn fault(self) -> BackendFault {
        let unavailable = |why: &str| FaultKind::Unavailable { why: why.into() };
        match self {
            Self::ServerError => unavailable("server error").with_status(500_u16),
            Self::Hang => unavailable("time-out").into(),
            Self::Reset => unavailable("connection reset").into(),
            Self::Malformed => FaultKind::Malformed { why: "HTML" }.into(),
            Self::TooLarge => FaultKind::TooLarge.into(),
            Self::Rejected => FaultKind::Rejected { message: "no".into() }.into(),
        }
    }
}

/// Every job that does not fail is running.
pub(super) struct FaultyVendor {
    latency: Duration,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    failing: BTreeMap<String, Failure>,
    outage: Option<Failure>,
    ended: BTreeSet<String>,
    calls: Vec<Call>,
}

impl FaultyVendor {
    pub(super) fn new() -> Arc<Self> {
        Self::with_latency(LATENCY)
    }

    pub(super) fn with_latency(latency: Duration) -> Arc<Self> {
        Arc::new(Self { latency, inner: Mutex::default() })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// This job makes every request fail from now on.
    pub(super) fn fail(&self, id: &str, failure: Failure) {
        self.inner().failing.insert(id.into(), failure);
    }

    /// Every request fails in this way, or none.
    pub(super) fn set_outage(&self, outage: Option<Failure>) {
        self.inner().outage = outage;
    }

    /// This job has succeeded.
    pub(super) fn end(&self, id: &str) {
        self.inner().ended.insert(id.into());
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        self.inner().calls.clone()
    }

    pub(super) fn forget_calls(&self) {
        self.inner().calls.clear();
    }
}

impl Upstream for FaultyVendor {
    fn poll<'a>(
        &'a self,
        jobs: &'a [JobRef],
        mut permit: Permit,
    ) -> BoxFuture<'a, Result<PollResponse, BackendFault>> {
        Box::pin(async move {
            permit.consume().await;
            let failure = {
                let mut inner = self.inner();
                let ids = jobs.iter().map(|job| job.id.to_string()).collect();
                inner.calls.push(Call { at: Instant::now(), ids });
                let of_job = |job: &JobRef| inner.failing.get(&*job.id).copied();
                inner.outage.or_else(|| jobs.iter().find_map(of_job))
            };
            let hangs = failure == Some(Failure::Hang);
            tokio::time::sleep(if hangs { TIME_OUT } else { self.latency }).await;
            if let Some(failure) = failure {
                return Err(failure.fault());
            }
            let inner = self.inner();
            let state = |job: &JobRef| {
                if inner.ended.contains(&*job.id) { JobState::Succeeded } else { JobState::Running }
            };
            Ok(response(jobs, |job| Ok(Observation::new(state(job), ""))))
        })
    }
}
