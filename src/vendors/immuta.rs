//! Immuta: `POST /jobs/statuses` polls many jobs at once; the response is an object keyed
//! by job id.
//!
//! The states are those of the queue behind it, pg-boss: `retry` is not an end
//! and may go back to `active`. A job that failed or waits for another attempt
//! has its error in `output`.

use std::{collections::HashSet, num::NonZeroUsize};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use serde::Serialize;
use uuid::Uuid;

use super::{
    Adapter, BaseUrl, Capabilities, Elements, TokenExchange,
    elements::CONTRADICTED,
    json::{self, Object, Value},
    refusal, response,
};
use crate::job::{
    BackendFault, ContentType, InvalidJobRef, JobFault, JobRef, JobResult, JobState, Observation,
    vendor_message,
};

pub(super) mod config;
mod token;

pub use config::ImmutaConfig;
use token::ApiKeyExchange;

/// The adapter for one Immuta tenant.
#[derive(Debug)]
pub struct Immuta {
    base_url: BaseUrl,
    max_batch: NonZeroUsize,
    exchange: Option<ApiKeyExchange>,
}

impl Immuta {
    /// The adapter for the tenant at `base_url`. With `exchange` the API key is
    /// exchanged for a token, otherwise it (or a bearer token) is sent as it is.
    pub fn new(base_url: BaseUrl, max_batch: NonZeroUsize, exchange: bool) -> Self {
        let exchange = exchange.then(|| ApiKeyExchange::new(&base_url));
        Self { base_url, max_batch, exchange }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusesRequest<'a> {
    job_ids: Vec<&'a str>,
}

impl Adapter for Immuta {
    fn capabilities(&self) -> Capabilities {
        Capabilities { max_batch: self.max_batch, identifies_jobs: true, files: false }
    }

    fn check(&self, job: &JobRef) -> Result<(), InvalidJobRef> {
        InvalidJobRef::refuse_tag(job)?;
        InvalidJobRef::unless_opaque_id(job)
    }

    fn probe_id(&self, unique: Uuid) -> String {
        unique.to_string()
    }

    /// Without a `wait`, whose default is 0, the vendor answers at once.
    fn request(&self, jobs: &[JobRef]) -> Request<Bytes> {
        let job_ids = jobs.iter().map(|job| &*job.id).collect();
        self.base_url.post("/jobs/statuses", &StatusesRequest { job_ids })
    }

    fn split_body(&self, jobs: &[JobRef], response: &Response<Bytes>) -> Result<Elements, BackendFault> {
        if !response.status().is_success() {
            return refused(jobs, response).map(|fault| Elements::all_failed(jobs, &fault));
        }
        response::check_json(response)?;
        let not_jobs = || response::malformed("not an object of jobs", response.status());
        let body = Object::parse(response.body()).ok_or_else(not_jobs)?;
        let part = |element: Value<'_>| {
            if json::is_null(element) {
                return Err(JobFault::NotFound);
            }
            Ok(json::part(response.body(), element))
        };
        let members: Vec<(&str, Value<'_>)> = body.members().collect();
        // The usual case: the order of the request.
        if members.iter().map(|(id, _)| *id).eq(jobs.iter().map(|job| &*job.id)) {
            return Ok(Elements::for_each(jobs, |index, _| part(members[index].1)));
        }
        let (elements, contradicted) = json::by_name(members);
        // That a job is missing can only be told by a response that is about jobs,
        // which an object with nothing but, say, a `message` is not.
        let is_job = |element: &Value<'_>| {
            json::is_null(*element)
                || Object::parse(element.get().as_bytes()).is_some_and(|job| job.get("state").is_some())
        };
        let has_element = |job: &JobRef| elements.contains_key(&*job.id);
        if !jobs.iter().any(has_element) && !elements.values().all(is_job) {
            return Err(not_jobs());
        }
        let polled: HashSet<&str> = jobs.iter().map(|job| &*job.id).collect();
        let is_strange = |(id, element): (&&str, &Value<'_>)| !polled.contains(id) && is_job(element);
        // A response about other jobs may be the response to another request.
        let missing = if elements.iter().any(is_strange) {
            JobFault::Malformed { why: "the answer is about other jobs" }
        } else {
            JobFault::NotFound
        };
        Ok(Elements::for_each(jobs, |_, job| match elements.get(&*job.id) {
            Some(_) if contradicted.contains(&*job.id) => Err(CONTRADICTED),
            Some(element) => part(*element),
            None => Err(missing.clone()),
        }))
    }

    fn observe(&self, job: &JobRef, element: &Bytes) -> Result<Observation, JobFault> {
        observe(&job.id, element)
    }

    fn token_exchange(&self) -> Option<&dyn TokenExchange> {
        self.exchange.as_ref().map(|exchange| exchange as &dyn TokenExchange)
    }
}

fn observe(id: &str, element: &Bytes) -> Result<Observation, JobFault> {
    let malformed = |why| JobFault::Malformed { why };
    let job = Object::parse(element).ok_or(malformed("not an object"))?;
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
        _ => (None, output.map(|output| result(element, output))),
    };
    let vendor_payload = element.clone();
    Ok(Observation { result, error, vendor_payload, ..Observation::new(state, word) })
}

/// The page's table calls the state an array of strings, its example shows a
/// string.
fn state_word(state: Value<'_>) -> Option<String> {
    let word = match json::list(state).as_deref() {
        Some([only]) => json::text(*only)?,
        Some(_) => return None,
        None => json::text(state)?,
    };
    (!word.is_empty()).then_some(word)
}

fn result(element: &Bytes, output: Value<'_>) -> JobResult {
    match json::text(output) {
        Some(text) => JobResult { data: text.into(), content_type: ContentType::Text },
        None => JobResult { data: json::part(element, output), content_type: ContentType::Json },
    }
}

/// A 4xx that the status alone does not explain. That of a batch refuses all its jobs:
/// which one is the reason shows only when it is polled alone.
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
        _ => Err(response::rejected(&words, status)),
    }
}

fn names_the_id(response: &Response<Bytes>, id: &str) -> bool {
    let Some(body) = Object::parse(response.body()) else { return false };
    let message = body.text("message").unwrap_or_default();
    let validation = body.get("validation").map_or("", Value::get);
    let text = format!("{message} {validation}").to_ascii_lowercase();
    ["jobids", "jobid", "job id"].iter().any(|name| text.contains(name))
        || message.contains(&format!("\"{id}\""))
}

/// The vendor's words for a refusal: the `message` of hapi's error object, or of
/// its first `validation`, or a plain text.
fn words(response: &Response<Bytes>) -> String {
    let Some(body) = Object::parse(response.body()) else {
        let plain = response::content_type(response.headers()).is_some_and(|kind| kind == "text/plain");
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
