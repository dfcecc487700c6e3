//! A vendor that answers as a test tells it, and remembers what it was asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::{
    adapters::{BackendFault, Changes, FaultKind, JobFault, StandbyFault},
    job::{JobRef, JobState, Observation, Source},
    transport::{Asked, Leave, Question, Upstream},
};

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
    fault: Option<BackendFault>,
    latency: Duration,
    panics: bool,
    calls: Vec<Call>,
    put_right: Arc<Notify>,
    under_way: usize,
    most_under_way: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) at: Instant,
    pub(crate) ids: Vec<String>,
    pub(crate) wait: Duration,
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

    pub(crate) fn set_payload(&self, id: &str, state: JobState, payload: &str) {
        let vendor_payload = payload.to_owned().into();
        let observation = Observation { vendor_payload, ..Observation::new(state, "") };
        self.inner.lock().unwrap().jobs.insert(id.into(), observation);
    }

    pub(crate) fn remove(&self, id: &str) {
        self.inner.lock().unwrap().jobs.remove(id);
    }

    pub(crate) fn poison(&self, id: &str) {
        self.inner.lock().unwrap().poison.insert(id.into());
    }

    /// Answers about this job, up or down, that a standby would need its tag.
    pub(crate) fn needs_tag(&self, id: &str) {
        self.inner.lock().unwrap().untagged.insert(id.into());
    }

    pub(crate) fn fail(&self, fault: impl Into<BackendFault>) {
        self.inner.lock().unwrap().fault = Some(fault.into());
    }

    pub(crate) fn go_down(&self) {
        self.fail(FaultKind::Unavailable { retry_after: None, why: "down".into() });
    }

    pub(crate) fn come_back(&self) {
        self.inner.lock().unwrap().fault = None;
    }

    pub(crate) fn put_right(&self) {
        self.inner.lock().unwrap().put_right.notify_one();
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

    pub(crate) fn most_under_way(&self) -> usize {
        self.inner.lock().unwrap().most_under_way
    }

    pub(crate) fn under_way(&self) -> usize {
        self.inner.lock().unwrap().under_way
    }

    /// Only what the vendor itself says is an answer.
    #[expect(clippy::unused_self)]
    fn breaks_before_the_answer(&self, fault: &BackendFault) -> bool {
        matches!(fault.kind, FaultKind::Unavailable { .. } | FaultKind::CredentialsRejected)
    }

    fn all_ended(&self, jobs: &[JobRef]) -> bool {
        let inner = self.inner.lock().unwrap();
        jobs.iter().all(|job| inner.jobs.get(&*job.id).is_some_and(|seen| seen.state.is_terminal()))
    }

    fn answer(&self, jobs: &[JobRef], known: &[Option<Source>]) -> Changes {
        let inner = self.inner.lock().unwrap();
        if inner.panics {
            drop(inner);
            panic!("the script panics");
        }
        if jobs.iter().all(|job| inner.untagged.contains(&*job.id)) {
            return Ok(jobs.iter().map(|_| Err(StandbyFault::NeedsJobTag.into())).collect());
        }
        if let Some(fault) = &inner.fault {
            return Err(fault.clone());
        }
        if jobs.iter().any(|job| inner.poison.contains(&*job.id)) {
            return Err(FaultKind::Rejected { message: "bad id".into() }.into());
        }
        // As an adapter does, it leaves out what is known.
        let answer = |(job, known): (&JobRef, &Option<Source>)| {
            let seen = inner.jobs.get(&*job.id).ok_or(JobFault::NotFound)?;
            let source = Some(Source::of(format!("{seen:?}").as_bytes()));
            Ok((*known != source).then(|| Observation { source, ..seen.clone() }))
        };
        Ok(jobs.iter().zip(known).map(answer).collect())
    }
}

/// Counts a request as under way for as long as it lives.
struct UnderWay<'a>(&'a Script);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.inner.lock().unwrap().under_way -= 1;
    }
}

impl Upstream for Script {
    fn put_right(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let put_right = Arc::clone(&self.inner.lock().unwrap().put_right);
        Box::pin(async move { put_right.notified().await })
    }

    fn ask<'a>(&'a self, Question { jobs, known, wait }: Question<'a>, mut leave: Leave) -> Asked<'a> {
        Box::pin(async move {
            leave.spend().await;
            let latency = {
                let mut inner = self.inner.lock().unwrap();
                let ids = jobs.iter().map(|job| job.id.to_string()).collect();
                inner.calls.push(Call { at: Instant::now(), ids, wait });
                inner.under_way += 1;
                inner.most_under_way = inner.most_under_way.max(inner.under_way);
                inner.latency
            };
            let _under_way = UnderWay(self);
            tokio::time::sleep(latency / 2).await;
            let until = Instant::now() + wait;
            while Instant::now() < until && !self.all_ended(jobs) {
                // As Immuta does with a pollInterval of 1.
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            tokio::time::sleep(latency / 2).await;
            match self.answer(jobs, known) {
                Err(fault) if self.breaks_before_the_answer(&fault) => Err(fault),
                answer => Ok(answer),
            }
        })
    }
}
