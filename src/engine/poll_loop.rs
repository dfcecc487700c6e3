//! The task that polls one backend.
//!
//! It takes what is due in batches, within the backend's limits, and starts a task for
//! each poll. A poll sends one request, publishes what the response says, and is cancelled
//! when nobody subscribes to any of its jobs.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    task::{JoinSet, yield_now},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    backend::Backend,
    budget::Memory,
    job_table::Reading,
    outage,
    planner::{self, Readiness},
    poll::{Answer, Batch, Blame, Known},
};
use crate::{
    job::{
        BackendFault, FaultKind, JobFault, JobRef, JobState, PayloadHash, StandbyFault::NeedsJobTag,
        vendor_message,
    },
    snapshot::Snapshot,
    telemetry::Sampled,
    transport::{Permit, PollResponse, Upstream},
};

/// Most unknown words of a vendor that are logged, once each.
const UNKNOWN_WORDS_LOGGED: usize = 64;

/// Whether a poll failed because nothing authorizes it.
fn no_login(fault: &BackendFault) -> bool {
    fault.token_refresh || fault.kind == FaultKind::CredentialsRejected
}

/// Callers can name any number of jobs that fail.
fn log_quarantined(backend: &str, job_id: &str, fault: &BackendFault) {
    static LINES: Sampled = Sampled::new(10);
    if let Some(left_out) = LINES.next_line() {
        warn!(backend, job_id, left_out, error = %fault, "job quarantined");
    }
}

/// Polls one backend.
pub(super) struct PollLoop {
    backend: Arc<Backend>,
    upstream: Arc<dyn Upstream>,
    unknown_words: Mutex<HashSet<String>>,
}

impl PollLoop {
    pub(super) fn new(backend: Arc<Backend>, upstream: Arc<dyn Upstream>) -> Arc<Self> {
        Arc::new(Self { backend, upstream, unknown_words: Mutex::default() })
    }

    /// Polls until `stop` is cancelled; then cancels what is in flight and returns.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut polls = JoinSet::new();
        let rotations = async {
            loop {
                self.upstream.credentials_rotated().await;
                self.backend.credentials_rotated(Instant::now());
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.take_batches(&mut polls) => {}
            () = rotations => {}
        }
        polls.shutdown().await;
    }

    /// After each wait other tasks run first. So requests that are ready together are sent in
    /// one go: a vendor nearby is woken for them all, not for each. Saves about a quarter of a
    /// poll.
    async fn take_batches(self: &Arc<Self>, polls: &mut JoinSet<()>) {
        let backend = &self.backend;
        loop {
            let readiness = planner::readiness(&mut backend.state(), Instant::now());
            match readiness {
                Readiness::Ready => {}
                Readiness::Following => {
                    // Whatever woke this task is for the one that follows.
                    backend.changed();
                    backend.while_following().await;
                    continue;
                }
                Readiness::Idle => {
                    backend.wait_for_change().await;
                    yield_now().await;
                    continue;
                }
                Readiness::At(at) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(at) => {}
                        () = backend.wait_for_change() => {}
                    }
                    yield_now().await;
                    continue;
                }
            }
            while polls.try_join_next().is_some() {}
            if polls.len() >= backend.most_in_flight(Instant::now()) {
                polls.join_next().await;
                yield_now().await;
                continue;
            }
            // Before the batch is taken: what falls due while this waits still joins it.
            let permit = backend.rate_limiter().acquire().await;
            let lag = backend.state().lag(Instant::now());
            if let Some(batch) = Batch::take(backend, Instant::now(), rand::random()) {
                backend.metrics().poll_begins(batch.len(), lag);
                let poll_loop = Arc::clone(self);
                polls.spawn(async move {
                    let (in_flight, began) = (Arc::clone(batch.in_flight()), batch.began());
                    tokio::select! {
                        () = in_flight.cancelled() => {
                            poll_loop.backend.metrics().poll_ended("cancelled", began.elapsed(), 0);
                        }
                        () = poll_loop.poll(batch, permit) => {}
                    }
                });
            }
        }
    }

    /// Sends one request and publishes what the answer says.
    async fn poll(&self, batch: Batch, permit: Permit) {
        let jobs = batch.jobs();
        let polled = self.upstream.poll(&jobs, permit);
        let response = match batch.span() {
            Some(span) => span.scope(polled).await,
            None => polled.await,
        };
        let response = response.and_then(|response| {
            let is_whole = response.elements().len() == jobs.len();
            let why = "it has too few or too many elements";
            if is_whole { Ok(response) } else { Err(FaultKind::Malformed { why }.into()) }
        });
        let outcome = response.as_ref().map_or_else(outage::reason, |_| "ok");
        batch.note_end(outcome);
        match response {
            Ok(response) => {
                let answers = self.read(&jobs, &batch.known(), &response);
                // Its bytes are given back before the next poll.
                drop(response);
                // A job that was not asked for says nothing of the backend.
                let has_answered =
                    answers.iter().any(|answer| !matches!(answer, Err(JobFault::Standby(NeedsJobTag))));
                batch.answered(answers, rand::random());
                if has_answered {
                    self.backend.log_answer(Instant::now());
                }
            }
            Err(fault) => {
                let first_job = jobs[0].id.clone();
                if let Some(until) = self.upstream.login_paused_until().filter(|_| no_login(&fault)) {
                    self.backend.no_login_until(&fault, until);
                }
                match batch.failed(&fault, rand::random()) {
                    Blame::Nobody => {}
                    Blame::Job => log_quarantined(self.backend.name(), &first_job, &fault),
                    Blame::Backend { .. } => self.backend.log_failure(&fault, jobs.len(), Instant::now()),
                }
            }
        }
    }

    /// Reads the elements that are not the same as before, byte for byte.
    fn read(&self, jobs: &[JobRef], known: &[Known], response: &PollResponse) -> Vec<Answer> {
        let inline_result_bytes = self.backend.memory().limits().inline_result_bytes;
        let elements = response.elements().iter().zip(jobs).zip(known);
        let read = elements.map(|((element, job), known)| {
            let element = element.as_ref().map_err(Clone::clone)?;
            let payload_hash = PayloadHash::of(element);
            if known.payload_hash == Some(payload_hash) {
                return Ok(Reading::Unchanged);
            }
            let observation = response.observe(job, element)?;
            self.note_unknown_word(observation.state, &observation.vendor_state);
            let Memory { budget, .. } = self.backend.memory();
            let snapshot = Snapshot::new(observation, known.parts, inline_result_bytes, budget);
            Ok(Reading::Read(snapshot, payload_hash))
        });
        read.collect()
    }

    fn note_unknown_word(&self, state: JobState, word: &str) {
        if state == JobState::Unknown {
            self.backend.metrics().unknown_state();
            let mut words = self.unknown_words.lock().unwrap_or_else(PoisonError::into_inner);
            let word = vendor_message(word);
            if words.len() < UNKNOWN_WORDS_LOGGED && words.insert(word.clone()) {
                warn!(backend = %self.backend.name(), vendor_state = word, "vendor reported an unknown state");
            }
        }
    }
}
