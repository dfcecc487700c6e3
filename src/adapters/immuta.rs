//! Immuta: `POST /jobs/statuses` asks for many jobs at once and answers with an
//! object keyed by job id.
//!
//! The states are those of the queue behind it, pg-boss: `retry` is not an end
//! and may go back to `active`. A job that failed or waits for another attempt
//! has its error in `output`.

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroUsize,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::{json, value::RawValue};

use super::{
    Adapter, BackendFault, BaseUrl, Changes, Expiry, FaultKind, InvalidJobRef, JobFault, Token,
    TokenExchange, answer,
    json::{self, Object},
    refusal, unless_known, vendor_message,
};
use crate::job::{ContentType, JobRef, JobResult, JobState, Observation, Source};

/// The adapter for one Immuta tenant.
#[derive(Debug)]
pub struct Immuta {
    base_url: BaseUrl,
    max_batch: NonZeroUsize,
    exchange: Option<ApiKeyExchange>,
}

impl Immuta {
    /// The adapter for the tenant at `base_url`. With `exchange` the API key is
    /// traded for a token, otherwise it (or a bearer token) is sent as it is.
    pub fn new(base_url: BaseUrl, max_batch: NonZeroUsize, exchange: bool) -> Self {
        let exchange = exchange.then(|| ApiKeyExchange { base_url: base_url.clone() });
        Self { base_url, max_batch, exchange }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Question<'a> {
    job_ids: Vec<&'a str>,
    wait: u64,
}

impl Adapter for Immuta {
    fn check(&self, job: &JobRef) -> Result<(), InvalidJobRef> {
        InvalidJobRef::refuse_tag(job)?;
        InvalidJobRef::unless_opaque_id(job)
    }

    fn max_batch(&self) -> NonZeroUsize {
        self.max_batch
    }

    fn request(&self, jobs: &[JobRef]) -> Request<Bytes> {
        self.held_request(jobs, Duration::ZERO)
    }

    fn held_request(&self, jobs: &[JobRef], wait: Duration) -> Request<Bytes> {
        let job_ids = jobs.iter().map(|job| &*job.id).collect();
        self.base_url.post("/jobs/statuses", &Question { job_ids, wait: wait.as_secs() })
    }

    fn interpret(&self, jobs: &[JobRef], known: &[Option<Source>], response: &Response<Bytes>) -> Changes {
        answer::check_status(response)?;
        if !response.status().is_success() {
            return refused(jobs, response).map(|fault| vec![Err(fault)]);
        }
        answer::check_json(response)?;
        let not_jobs = || answer::malformed("not an object of jobs", response.status());
        let body = Object::parse(response.body()).ok_or_else(not_jobs)?;
        let read = |(place, element): (usize, &RawValue)| {
            if json::is_null(element) {
                return Err(JobFault::NotFound);
            }
            unless_known(known, place, element.get(), || observe(&jobs[place].id, element))
        };
        // The vendor may well answer in the order of the question.
        if body.members().map(|(id, _)| id).eq(jobs.iter().map(|job| &*job.id)) {
            return Ok(body.members().map(|(_, element)| element).enumerate().map(read).collect());
        }
        let elements: HashMap<&str, &RawValue> = body.members().collect();
        // That a job is missing can only be told by an answer that is about jobs,
        // which an object with nothing but, say, a `message` is not.
        let is_job = |element: &&RawValue| {
            json::is_null(element)
                || Object::parse(element.get().as_bytes()).is_some_and(|job| job.get("state").is_some())
        };
        if !jobs.iter().any(|job| elements.contains_key(&*job.id)) && !elements.values().all(is_job) {
            return Err(not_jobs());
        }
        let asked: HashSet<&str> = jobs.iter().map(|job| &*job.id).collect();
        let is_strange = |(id, element): (&&str, &&RawValue)| !asked.contains(id) && is_job(element);
        // An answer about other jobs may be the answer to another question.
        let missing = if elements.iter().any(is_strange) {
            JobFault::Malformed { why: "the answer is about other jobs" }
        } else {
            JobFault::NotFound
        };
        let answer = |(place, job): (usize, &JobRef)| match elements.get(&*job.id) {
            Some(element) => read((place, element)),
            None => Err(missing.clone()),
        };
        Ok(jobs.iter().enumerate().map(answer).collect())
    }

    fn token_exchange(&self) -> Option<&dyn TokenExchange> {
        self.exchange.as_ref().map(|exchange| exchange as &dyn TokenExchange)
    }
}

/// `POST /bim/apikey/authenticate` trades an API key for a token that expires.
#[derive(Debug)]
struct ApiKeyExchange {
    base_url: BaseUrl,
}

impl TokenExchange for ApiKeyExchange {
    fn request(&self, secret: &SecretString) -> Result<Request<Bytes>, BackendFault> {
        Ok(self.base_url.post("/bim/apikey/authenticate", &json!({ "apikey": secret.expose_secret() })))
    }

    fn interpret(&self, response: &Response<Bytes>) -> Result<Token, BackendFault> {
        let status = response.status();
        answer::check_exchange(response, &[StatusCode::BAD_REQUEST])?;
        if !status.is_success() {
            return Err(answer::rejected(&words(response), status));
        }
        answer::check_json(response)?;
        let body = Object::parse(response.body()).ok_or(answer::malformed("not an object", status))?;
        if body.get("authenticated").is_some_and(|value| value.get() == "false") {
            return Err(FaultKind::CredentialsRejected.into());
        }
        let expiry = body.text("tokenExpiration").and_then(|time| time.parse().ok()).map(Expiry::At);
        answer::token(body.text("token"), expiry)
    }
}

fn observe(id: &str, element: &RawValue) -> Result<Observation, JobFault> {
    let malformed = |why| JobFault::Malformed { why };
    let job = Object::of(element).ok_or(malformed("not an object"))?;
    if job.get("id").is_some_and(|own| json::identifier(own).as_deref() != Some(id)) {
        return Err(malformed("it is about another job"));
    }
    let word = job.get("state").and_then(state_word).ok_or(malformed("no state"))?;
    let state = match word.as_str() {
        "created" => JobState::Pending,
        "active" => JobState::Running,
        "retry" => JobState::Retrying,
        "completed" => JobState::Succeeded,
        "failed" => JobState::Failed,
        "cancelled" => JobState::Cancelled,
        "expired" => JobState::Expired,
        _ => JobState::Unknown,
    };
    let output = job.get("output");
    let (error, result) = match state {
        JobState::Failed | JobState::Retrying => (output.map(json::error), None),
        _ => (None, output.map(result)),
    };
    Ok(Observation { error, result, vendor_payload: json::bytes(element), ..Observation::new(state, word) })
}

/// The page's table calls the state an array of strings, its example shows a
/// string.
fn state_word(state: &RawValue) -> Option<String> {
    let word = match serde_json::from_str::<[&RawValue; 1]>(state.get()) {
        Ok([only]) => json::text(only)?,
        Err(_) => json::text(state)?,
    };
    (!word.is_empty()).then_some(word)
}

fn result(output: &RawValue) -> JobResult {
    match json::text(output) {
        Some(text) => JobResult { data: text.into(), content_type: ContentType::Text },
        None => JobResult { data: json::bytes(output), content_type: ContentType::Json },
    }
}

/// A 4xx that the status alone does not explain. One that many jobs were asked
/// with is a refusal of them all: only alone can the culprit be told.
fn refused(jobs: &[JobRef], response: &Response<Bytes>) -> Result<JobFault, BackendFault> {
    let status = response.status();
    let words = words(response);
    match (status, jobs) {
        (StatusCode::NOT_FOUND, [job]) if refusal::says_no_such_job(&words, job) => Ok(JobFault::NotFound),
        (StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY, [job])
            if names_the_id(response, &job.id) =>
        {
            Ok(JobFault::Invalid { message: vendor_message(&words) })
        }
        _ => Err(answer::rejected(&words, status)),
    }
}

fn names_the_id(response: &Response<Bytes>, id: &str) -> bool {
    let Some(body) = Object::parse(response.body()) else { return false };
    let message = body.text("message").unwrap_or_default();
    let validation = body.get("validation").map_or("", RawValue::get);
    let text = format!("{message} {validation}").to_ascii_lowercase();
    ["jobids", "jobid", "job id"].iter().any(|name| text.contains(name))
        || message.contains(&format!("\"{id}\""))
}

/// The vendor's words for a refusal: the `message` of hapi's error object, or of
/// its first `validation`, or a plain text.
fn words(response: &Response<Bytes>) -> String {
    let Some(body) = Object::parse(response.body()) else {
        let plain = answer::content_type(response.headers()).is_some_and(|kind| kind == "text/plain");
        return if plain { String::from_utf8_lossy(response.body()).into_owned() } else { String::new() };
    };
    let first_validation = || {
        let first = json::elements(body.get("validation")?).into_iter().next()?;
        let first = Object::of(first)?;
        first.text("message").or_else(|| first.text("code"))
    };
    body.text("message").filter(|message| !message.is_empty()).or_else(first_validation).unwrap_or_default()
}

#[cfg(test)]
mod tests;
