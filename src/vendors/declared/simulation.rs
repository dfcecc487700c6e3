//! The vendor of a definition, simulated from its cases: the response to each request.
//!
//! Each id that is asked for is a job. It is in the states before its start for a while,
//! then in those of running, then at an end, each with the answer of a case about it. A
//! word without a case gets the answer of another case with that word in it. The clock is
//! the caller's.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use serde_json::Value;

use super::{
    Declared, Definition, backend,
    cases::Cases,
    inverse,
    source::{Scope, Source},
    table::STATES,
};
use crate::{
    job::{FaultKind, JobFault, JobRef, JobState},
    vendors::{Adapter, BaseUrl},
};

mod answers;
mod files;
mod relocated;
mod sign_in;

use answers::Stage;
pub use relocated::{ChangedLine, relocated};
pub use sign_in::SECRET;
use sign_in::SignedBy;

/// Most jobs that are remembered; the oldest is forgotten first.
const MOST_JOBS: usize = 10_000;

/// How jobs go.
#[derive(Clone, Debug)]
pub struct Lives {
    /// Time before a job runs.
    pub queued: Duration,
    /// Time that it runs.
    pub running: Duration,
    /// How every job ends, such as `FAILED`; in turn where it is not set.
    pub end: Option<String>,
    /// The only jobs that exist; every id where there are none.
    pub jobs: Vec<String>,
}

/// One vendor.
#[derive(Debug)]
pub struct Simulation {
    definition: Arc<Definition>,
    /// Without credentials.
    adapter: Declared,
    base_path: String,
    ways: Vec<SignedBy>,
    stages: Vec<Stage>,
    /// Whole answers to a request for several jobs.
    batch_body: Value,
    missing: Response<Bytes>,
    /// Ids of cases about jobs that do not exist.
    unknown: Vec<String>,
    refused: Response<Bytes>,
    lives: Lives,
    ends: Vec<JobState>,
    started: HashMap<String, (u64, Duration)>,
    count: u64,
    params: toml::Table,
    named: files::Named,
}

/// A response, and what it was for, in one line for people.
#[derive(Debug)]
pub struct Simulated {
    /// What the vendor sends.
    pub response: Response<Bytes>,
    /// Such as `e-1 RUNNING working`.
    pub note: String,
}

impl Simulation {
    /// A vendor at this address.
    ///
    /// # Errors
    /// The cases can't be read, or give no answer about a job.
    pub fn new(
        definition: Definition,
        cases: &str,
        base_url: &BaseUrl,
        lives: Lives,
    ) -> Result<Self, String> {
        let definition = Arc::new(definition);
        let read = Cases::parse(Arc::clone(&definition), cases).map_err(|invalid| invalid.to_string())?;
        let whole: toml::Table = toml::from_str(cases).map_err(|error| error.message().to_owned())?;
        let mut keys = toml::Table::new();
        keys.extend(whole.get("params").map(|params| ("params".to_owned(), params.clone())));
        let chosen = backend::without_credentials();
        let config = backend::read(&definition, &chosen, &keys).map_err(|_| "params can't be used")?;
        let adapter = config.adapter(base_url, std::num::NonZeroUsize::MAX);
        let stages = answers::stages(&adapter, &read);
        let has_end = stages.iter().any(|stage| stage.state.is_terminal());
        if !has_end {
            return Err("no case is read as a job that has ended; add one to cases.toml".to_owned());
        }
        let ends = ends(&stages, lives.end.as_deref())?;
        for id in &lives.jobs {
            if let Err(invalid) = adapter.check(&JobRef::new("simulated", id.as_str())) {
                return Err(format!("{id:?} is no id of a job: it {invalid}"));
            }
        }
        let (missing, unknown) = missing(&adapter, &read, &stages);
        let refused = refused(&adapter, &read);
        let batch_body = answers::batch_body(&adapter, &read);
        let ways = sign_in::ways(&definition, base_url, &keys);
        let base_path = base_url.join("").path().trim_end_matches('/').to_owned();
        Ok(Self {
            definition,
            adapter,
            base_path,
            ways,
            stages,
            batch_body,
            missing,
            unknown,
            refused,
            lives,
            ends,
            started: HashMap::new(),
            count: 0,
            params: keys,
            named: files::Named::default(),
        })
    }

    /// The words that jobs go through and end with, each with its state.
    pub fn words(&self) -> Vec<(&'static str, String)> {
        let name =
            |state| STATES.iter().find(|(_, known)| *known == state).map_or("UNSPECIFIED", |(name, _)| name);
        self.stages.iter().map(|stage| (name(stage.state), stage.vendor_state.clone())).collect()
    }

    /// The times that a job has before its end, each with its words; those without a word are
    /// left out.
    pub fn times(&self) -> Vec<(&'static str, Duration)> {
        let Lives { queued, running, .. } = self.lives;
        let has = |state: JobState| self.stages.iter().any(|stage| stage.state == state);
        let mut times = Vec::new();
        if has(JobState::Pending) {
            times.push(("waits", queued));
        }
        if has(JobState::Running) {
            times.push(("runs", running));
        } else {
            // Only jobs with this end have such a word.
            for (before, end, text) in [
                (JobState::Retrying, JobState::Failed, "retries, where it fails,"),
                (JobState::Cancelling, JobState::Cancelled, "is being cancelled, where it is,"),
            ] {
                if has(before) && self.ends.contains(&end) {
                    times.push((text, running));
                }
            }
        }
        times
    }

    /// An id of a case.
    pub fn example_id(&self) -> &str {
        self.lives.jobs.first().map_or(self.stages[0].id.as_str(), String::as_str)
    }

    /// The `credentials` of a backend, in TOML; `None` where the ways to sign in can't be
    /// simulated.
    pub fn credentials(&self) -> Option<&str> {
        self.ways.first().map(|way| way.written.as_str())
    }

    /// The `params` of a backend.
    pub fn params(&self) -> &toml::Table {
        &self.params
    }

    /// The response to a request at a time since the start.
    pub fn answer(&mut self, request: &Request<Bytes>, now: Duration) -> Simulated {
        for way in &self.ways {
            if let Some(response) = way.token(request) {
                let is_given = response.status().is_success();
                let note = if is_given { "a token" } else { "a token, refused: other credentials" };
                return Simulated { response, note: note.to_owned() };
            }
        }
        if let Some((response, note)) = self.file(request) {
            return Simulated { response, note };
        }
        let stripped = sign_in::without_credentials(&self.ways, request);
        let Some(jobs) = self.jobs(&stripped) else {
            let response =
                answers::json(StatusCode::NOT_FOUND, &serde_json::json!({ "error": "no such page" }));
            let note = "no request of the definition; answered with 404".to_owned();
            return Simulated { response, note };
        };
        if !self.ways.is_empty() && !self.ways.iter().any(|way| way.accepts(request)) {
            return Simulated {
                response: self.refused.clone(),
                note: "other credentials: refused".to_owned(),
            };
        }
        let stages: Vec<Option<usize>> = jobs.iter().map(|job| self.stage(&job.id, now)).collect();
        let note: Vec<String> = jobs.iter().zip(&stages).map(|(job, stage)| self.note(job, *stage)).collect();
        let (_, batch) = self.adapter.question(&jobs);
        let response = match (batch, &stages[..]) {
            (Some(batch), _) => self.batch_answer(batch, &jobs, &stages),
            (None, [Some(stage), ..]) => self.single_answer(&self.stages[*stage], &jobs[0]),
            (None, _) => self.missing.clone(),
        };
        let response = self.with_own_files(&jobs, response);
        Simulated { response, note: note.join(", ") }
    }

    fn note(&self, job: &JobRef, stage: Option<usize>) -> String {
        match stage {
            None => format!("{}: no such job", job.id),
            Some(stage) => {
                let stage = &self.stages[stage];
                format!("{}: {} ({})", job.id, stage.state_name(), stage.vendor_state)
            }
        }
    }

    /// The jobs that a request asks for, if it is the definition's request for them.
    fn jobs(&self, request: &Request<Bytes>) -> Option<Vec<JobRef>> {
        let scope = Scope { params: Some(&self.adapter.params), ..Scope::default() };
        let Definition { request: question, batch, .. } = &*self.definition;
        let templates = question.iter().chain(batch.iter().map(|batch| &batch.question));
        let jobs_of = |ids: Vec<String>| -> Option<Vec<JobRef>> {
            let jobs: Vec<JobRef> = ids.iter().map(|id| JobRef::new("simulated", id.as_str())).collect();
            let is_good = !jobs.is_empty() && jobs.iter().all(|job| self.adapter.check(job).is_ok());
            let expected = is_good.then(|| self.adapter.request(&jobs))?;
            is_same(&expected, request).then_some(jobs)
        };
        let mut read = templates.into_iter().filter_map(|question| {
            inverse::ids(&self.definition, &question.request, &self.base_path, &scope, request)
        });
        // The request may hold less than the id: then only known ids can be meant.
        let known = self.lives.jobs.iter().chain(self.stages.iter().map(|stage| &stage.id));
        read.find_map(jobs_of).or_else(|| known.map(|id| vec![id.clone()]).find_map(jobs_of))
    }

    /// Where a job is; `None` for one that does not exist.
    fn stage(&mut self, id: &str, now: Duration) -> Option<usize> {
        let exists = if self.lives.jobs.is_empty() {
            !self.unknown.iter().any(|unknown| unknown == id) && id != i32::MAX.to_string()
        } else {
            self.lives.jobs.iter().any(|job| job == id)
        };
        if !exists {
            return None;
        }
        if self.started.len() >= MOST_JOBS && !self.started.contains_key(id) {
            let oldest = self.started.iter().min_by_key(|(_, (number, _))| *number).map(|(id, _)| id.clone());
            oldest.and_then(|oldest| self.started.remove(&oldest));
        }
        let count = &mut self.count;
        let (number, start) = *self.started.entry(id.to_owned()).or_insert_with(|| {
            *count += 1;
            (*count - 1, now)
        });
        let ends = self.ends.len() as u64;
        let end = self.ends[usize::try_from(number % ends).unwrap_or(0)];
        let age = now.saturating_sub(start);
        Some(self.stage_at(age, end))
    }

    fn stage_at(&self, age: Duration, end: JobState) -> usize {
        let of = |wanted: &[JobState]| -> Vec<usize> {
            let is_wanted = |(_, stage): &(usize, &Stage)| wanted.contains(&stage.state);
            self.stages.iter().enumerate().filter(is_wanted).map(|(place, _)| place).collect()
        };
        let waiting = of(&[JobState::Pending]);
        let mut going = of(&[JobState::Running]);
        match end {
            JobState::Cancelled => going.extend(of(&[JobState::Cancelling])),
            JobState::Failed => going.extend(of(&[JobState::Retrying])),
            _ => {}
        }
        // A time without a word for it is left out.
        let queued = if waiting.is_empty() { Duration::ZERO } else { self.lives.queued };
        let running = if going.is_empty() { Duration::ZERO } else { self.lives.running };
        let among = |places: &[usize], age: Duration, whole: Duration| {
            let nanos = whole.as_nanos().max(1);
            let step = age.as_nanos() * places.len() as u128 / nanos;
            places.get(usize::try_from(step).unwrap_or(usize::MAX)).copied()
        };
        if age < queued
            && let Some(place) = among(&waiting, age, queued)
        {
            return place;
        }
        let since = age.saturating_sub(queued);
        if age < queued + running
            && let Some(place) = among(&going, since, running)
        {
            return place;
        }
        of(&[end]).first().copied().unwrap_or_default()
    }
}

/// How jobs end, in turn.
fn ends(stages: &[Stage], wanted: Option<&str>) -> Result<Vec<JobState>, String> {
    let mut all: Vec<JobState> = Vec::new();
    for (_, state) in STATES.iter().filter(|(_, state)| state.is_terminal()) {
        if stages.iter().any(|stage| stage.state == *state) {
            all.push(*state);
        }
    }
    let Some(wanted) = wanted else { return Ok(all) };
    if let Some((_, state)) = STATES.iter().find(|(name, state)| *name == wanted && all.contains(state)) {
        return Ok(vec![*state]);
    }
    let known = STATES.iter().filter(|(_, state)| all.contains(state)).map(|(name, _)| *name);
    let known: Vec<&str> = known.collect();
    Err(format!("{wanted} is no end that the cases have; write one of {}", known.join(", ")))
}

/// The response about a job that does not exist, and the ids that only such cases have.
fn missing(adapter: &Declared, cases: &Cases, stages: &[Stage]) -> (Response<Bytes>, Vec<String>) {
    let (mut found, mut unknown) = (None, Vec::new());
    for case in &cases.cases {
        let jobs: Vec<JobRef> = case.ids.iter().map(|id| JobRef::new("simulated", id.as_str())).collect();
        let Some(response) = &case.response else { continue };
        let Ok(elements) = adapter.split(&jobs, response) else { continue };
        for (job, element) in jobs.iter().zip(elements.as_slice()) {
            if *element == Err(JobFault::NotFound) {
                unknown.push(job.id.to_string());
                if jobs.len() == 1 && found.is_none() {
                    found = Some(response.clone());
                }
            }
        }
    }
    unknown.retain(|id| !stages.iter().any(|stage| stage.id == *id));
    let plain = || answers::json(StatusCode::NOT_FOUND, &serde_json::json!({ "error": "not found" }));
    (found.unwrap_or_else(plain), unknown)
}

/// The response to other credentials.
fn refused(adapter: &Declared, cases: &Cases) -> Response<Bytes> {
    let said = cases.cases.iter().find_map(|case| {
        let jobs: Vec<JobRef> = case.ids.iter().map(|id| JobRef::new("simulated", id.as_str())).collect();
        let response = case.response.as_ref()?;
        let fault = adapter.split(&jobs, response).err()?;
        (fault.kind == FaultKind::CredentialsRejected).then(|| response.clone())
    });
    said.unwrap_or_else(|| {
        answers::json(StatusCode::UNAUTHORIZED, &serde_json::json!({ "error": "unauthorized" }))
    })
}

/// Whether a request is the expected one, but for credentials, headers, and which characters
/// of its path and query are percent-encoded.
fn is_same(expected: &Request<Bytes>, request: &Request<Bytes>) -> bool {
    let path = |request: &Request<Bytes>| inverse::canonical(request.uri().path());
    let query = |request: &Request<Bytes>| -> Vec<(String, String)> {
        let query = request.uri().query().unwrap_or_default();
        url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()
    };
    let json = |request: &Request<Bytes>| serde_json::from_slice::<Value>(request.body()).ok();
    expected.method() == request.method()
        && path(expected) == path(request)
        && query(expected) == query(request)
        && (expected.body() == request.body() || json(expected).is_some() && json(expected) == json(request))
}

/// Whether a plain path leads to it.
fn path_of(source: &Source) -> Option<&super::path::Path> {
    match source {
        Source::Path(path) => Some(path),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
