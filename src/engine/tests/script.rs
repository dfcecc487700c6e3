//! A scripted vendor that records its calls.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use tokio::{sync::Notify, time::Instant};
use uuid::Uuid;

use crate::{
    job::{BackendFault, FaultKind, InvalidJobRef, JobFault, JobRef, JobState, Observation, StandbyFault},
    transport::{Permit, PollResponse, Upstream},
    vendors::{Adapter, Capabilities, Elements},
};

/// A response that says of each job what `says` does.
pub(crate) fn response(
    jobs: &[JobRef],
    says: impl Fn(&JobRef) -> Result<Observation, JobFault>,
) -> PollResponse {
    let mut reader = Reader::default();
    let elements = Elements::for_each(jobs, |_, job| {
        let observation = says(job)?;
        let element = Bytes::from(format!("{observation:?}"));
        reader.0.insert(element.clone(), observation);
        Ok(element)
    });
    PollResponse::new(Arc::new(reader), elements)
}

/// Knows the elements of one response.
#[derive(Debug, Default)]
struct Reader(HashMap<Bytes, Observation>);

impl Adapter for Reader {
    fn capabilities(&self) -> Capabilities {
        unreachable!("a script sends no request")
    }

    fn check(&self, _: &JobRef) -> Result<(), InvalidJobRef> {
        Ok(())
    }

    fn probe_id(&self, _: Uuid) -> String {
        unreachable!("a script is not probed")
    }

    fn request(&self, _: &[JobRef]) -> Request<Bytes> {
        unreachable!("a script sends no request")
    }

    fn split_body(&self, _: &[JobRef], _: &Response<Bytes>) -> Result<Elements, BackendFault> {
        unreachable!("a script's response is split already")
    }

    fn observe(&self, _: &JobRef, element: &Bytes) -> Result<Observation, JobFault> {
        Ok(self.0[element].clone())
    }
}

/// Answers from a table of jobs.
#[derive(Default)]
pub(crate) struct Script {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    jobs: BTreeMap<String, Observation>,
    poison: BTreeSet<String>,
    untagged: BTreeSet<String>,
    alone: Option<String>,
    fault: Option<BackendFault>,
    latency: Duration,
    panics: bool,
    calls: Vec<Call>,
    rotated: Arc<Notify>,
    in_flight: usize,
    most_in_flight: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) at: Instant,
    pub(crate) ids: Vec<String>,
}

impl Script {
    pub(crate) fn new(latency: Duration) -> Arc<Self> {
        let script = Self::default();
        script.inner.lock().unwrap().latency = latency;
        Arc::new(script)
    }

    pub(crate) fn set_latency(&self, latency: Duration) {
        self.inner.lock().unwrap().latency = latency;
    }

    pub(crate) fn set(&self, id: &str, state: JobState) {
        self.set_word(id, state, &format!("{state:?}"));
    }

    pub(crate) fn set_word(&self, id: &str, state: JobState, word: &str) {
        self.inner.lock().unwrap().jobs.insert(id.into(), Observation::new(state, word));
    }

    /// A job with a vendor payload of its own.
    pub(crate) fn set_payload(&self, id: &str, state: JobState, payload: &str) {
        let vendor_payload = payload.to_owned().into();
        let observation = Observation { vendor_payload, ..Observation::new(state, "") };
        self.inner.lock().unwrap().jobs.insert(id.into(), observation);
    }

    pub(crate) fn set_observation(&self, id: &str, observation: Observation) {
        self.inner.lock().unwrap().jobs.insert(id.into(), observation);
    }

    pub(crate) fn remove(&self, id: &str) {
        self.inner.lock().unwrap().jobs.remove(id);
    }

    pub(crate) fn poison(&self, id: &str) {
        self.inner.lock().unwrap().poison.insert(id.into());
    }

    /// Answers for this job that a standby needs its tag.
    pub(crate) fn needs_tag(&self, id: &str) {
        self.inner.lock().unwrap().untagged.insert(id.into());
    }

    /// Leaves all jobs out of a response about this job and others.
    pub(crate) fn leave_out_all_beside(&self, id: &str) {
        self.inner.lock().unwrap().alone = Some(id.into());
    }

    pub(crate) fn fail(&self, fault: impl Into<BackendFault>) {
        self.inner.lock().unwrap().fault = Some(fault.into());
    }

    pub(crate) fn fail_all(&self) {
        self.fail(FaultKind::Unavailable { why: "down".into() });
    }

    pub(crate) fn recover(&self) {
        self.inner.lock().unwrap().fault = None;
    }

    pub(crate) fn rotate_credentials(&self) {
        self.inner.lock().unwrap().rotated.notify_one();
    }

    pub(crate) fn panics(&self, panics: bool) {
        self.inner.lock().unwrap().panics = panics;
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.inner.lock().unwrap().calls.clone()
    }

    pub(crate) fn forget_calls(&self) {
        self.inner.lock().unwrap().calls.clear();
    }

    pub(crate) fn most_in_flight(&self) -> usize {
        self.inner.lock().unwrap().most_in_flight
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.inner.lock().unwrap().in_flight
    }

    fn answer(&self, jobs: &[JobRef]) -> Result<PollResponse, BackendFault> {
        let inner = self.inner.lock().unwrap();
        if inner.panics {
            drop(inner);
            panic!("the script panics");
        }
        if jobs.iter().all(|job| inner.untagged.contains(&*job.id)) {
            return Ok(response(jobs, |_| Err(StandbyFault::NeedsJobTag.into())));
        }
        if let Some(fault) = &inner.fault {
            return Err(fault.clone());
        }
        if jobs.iter().any(|job| inner.poison.contains(&*job.id)) {
            return Err(FaultKind::Rejected { message: "bad id".into() }.into());
        }
        let is_short = jobs.len() > 1 && jobs.iter().any(|job| inner.alone.as_deref() == Some(&*job.id));
        let known = |job: &JobRef| inner.jobs.get(&*job.id).filter(|_| !is_short).cloned();
        Ok(response(jobs, |job| known(job).ok_or(JobFault::NotFound)))
    }
}

/// Counts a request as under way for as long as it lives.
struct InFlight<'a>(&'a Script);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.inner.lock().unwrap().in_flight -= 1;
    }
}

impl Upstream for Script {
    fn credentials_rotated(&self) -> BoxFuture<'_, ()> {
        let rotated = Arc::clone(&self.inner.lock().unwrap().rotated);
        Box::pin(async move { rotated.notified().await })
    }

    fn poll<'a>(
        &'a self,
        jobs: &'a [JobRef],
        mut permit: Permit,
    ) -> BoxFuture<'a, Result<PollResponse, BackendFault>> {
        Box::pin(async move {
            permit.consume().await;
            let latency = {
                let mut inner = self.inner.lock().unwrap();
                let ids = jobs.iter().map(|job| job.id.to_string()).collect();
                inner.calls.push(Call { at: Instant::now(), ids });
                inner.in_flight += 1;
                inner.most_in_flight = inner.most_in_flight.max(inner.in_flight);
                inner.latency
            };
            let _in_flight = InFlight(self);
            tokio::time::sleep(latency).await;
            self.answer(jobs)
        })
    }
}
