//! Claret: `GET /{tenant}/api/v1/imports/status/{id}` polls one import.
//!
//! A session that is missing or over may answer with a redirect to the login page, which
//! means that the credentials are rejected. A page itself may be a firewall's or any
//! other server's: it does not. The application is written in PHP: an empty map is an empty list
//! there, and a list with gaps is a map.

use std::num::NonZeroUsize;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use thiserror::Error;
use uuid::Uuid;

use super::{
    Adapter, BaseUrl, Capabilities, Elements, FileFault, Part, RefusedLocation, TokenExchange,
    canonical_integer,
    classification::PathTemplate,
    json::{self, Object, Value},
    percent_encoded, response,
};
use crate::job::{
    BackendFault, InvalidJobRef, JobError, JobFault, JobRef, JobState, Observation, Progress, vendor_message,
};

pub(super) mod config;
mod files;
mod token;

pub use config::ClaretConfig;
use token::Login;

const REQUESTED_WITH: HeaderName = HeaderName::from_static("x-requested-with");

/// The adapter for one Claret tenant.
#[derive(Debug)]
pub struct Claret {
    base_url: BaseUrl,
    /// What stands before the id in the path of a poll; needs no escaping.
    statuses: String,
    login: Option<Login>,
    /// The path of every poll.
    path: PathTemplate,
}

/// Why a text is not the name of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the tenant must be 1 to 255 bytes long and neither \".\" nor \"..\"")]
pub struct InvalidTenant;

impl Claret {
    /// The adapter for `tenant`. With an `email` the secret is its password and
    /// is exchanged for a token.
    ///
    /// # Errors
    /// A tenant that can't be a segment of a path.
    pub fn new(base_url: BaseUrl, tenant: &str, email: Option<String>) -> Result<Self, InvalidTenant> {
        if !(1..=255).contains(&tenant.len()) || matches!(tenant, "." | "..") {
            return Err(InvalidTenant);
        }
        let api = format!("/{}/api/v1", percent_encoded(tenant));
        let login = email.map(|email| Login::new(&base_url, &api, email));
        let statuses = format!("{api}/imports/status/");
        let path = PathTemplate(format!("{}{{id}}", base_url.join(&statuses).path()).into());
        Ok(Self { base_url, statuses, login, path })
    }
}

impl Adapter for Claret {
    fn capabilities(&self) -> Capabilities {
        Capabilities { max_batch: NonZeroUsize::MIN, identifies_jobs: true, files: true }
    }

    fn check(&self, job: &JobRef) -> Result<(), InvalidJobRef> {
        InvalidJobRef::refuse_tag(job)?;
        match canonical_integer(&job.id) {
            Some(1..) => Ok(()),
            _ => Err(InvalidJobRef {
                field: "job_id",
                reason: "must be a positive integer without sign or leading zeros, such as \"12345\"".into(),
            }),
        }
    }

    fn probe_id(&self, _unique: Uuid) -> String {
        i32::MAX.to_string()
    }

    fn request(&self, jobs: &[JobRef]) -> Request<Bytes> {
        let id = jobs.first().map_or("", |job| &job.id);
        let path = [&*self.statuses, &*percent_encoded(id)].concat();
        let mut request = request(Method::GET, self.base_url.join(&path));
        request.extensions_mut().insert(self.path.clone());
        request
    }

    fn login_at(&self) -> Option<&BaseUrl> {
        Some(&self.base_url)
    }

    fn split_body(&self, jobs: &[JobRef], response: &Response<Bytes>) -> Result<Elements, BackendFault> {
        let status = response.status();
        if !status.is_success() {
            return refusal(response).map(|fault| Elements::all_failed(jobs, &fault));
        }
        response::check_json(response)?;
        let body = Object::parse(response.body()).ok_or(response::malformed("not an object", status))?;
        let content = body.get("content").ok_or(response::malformed("no content member", status))?;
        if !json::is_object(content) {
            return Err(response::malformed("content is not an object", status));
        }
        Ok(Elements::for_each(jobs, |_, _| Ok(json::part(response.body(), content))))
    }

    fn observe(&self, job: &JobRef, element: &Bytes) -> Result<Observation, JobFault> {
        observe(&job.id, element)
    }

    fn file_request(&self, location: &str) -> Result<Request<Bytes>, RefusedLocation> {
        files::request(&self.base_url, location)
    }

    fn file_part(&self, offset: u64, head: &Response<Bytes>) -> Result<Part, FileFault> {
        files::part(&self.base_url, offset, head)
    }

    fn token_exchange(&self) -> Option<&dyn TokenExchange> {
        self.login.as_ref().map(|login| login as &dyn TokenExchange)
    }
}

fn request(method: Method, uri: Uri) -> Request<Bytes> {
    let mut request = Request::new(Bytes::new());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    // Both: with either alone, some versions of the application's framework
    // answer a rejected token with the login page instead of a JSON 401.
    let headers = request.headers_mut();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(REQUESTED_WITH, HeaderValue::from_static("XMLHttpRequest"));
    request
}

/// A 4xx that the status alone does not explain: the job's fault, or else the
/// backend's.
fn refusal(response: &Response<Bytes>) -> Result<JobFault, BackendFault> {
    let status = response.status();
    let Some(body) = Object::parse(response.body()) else { return Err(response::rejected("", status)) };
    let message = body.text("message").unwrap_or_default();
    let rejected = |reason: &str| {
        let reason = if message.contains(reason) { "" } else { reason };
        response::rejected(&format!("{message} {reason}"), status)
    };
    if status != StatusCode::UNPROCESSABLE_ENTITY {
        return Err(rejected(""));
    }
    // The endpoint's own refusal has an `error`, a failed validation has `errors`.
    let reason = body.get("error").and_then(json::message).unwrap_or_default();
    let errors = body.get("errors").and_then(Object::of).filter(|_| reason.is_empty());
    let Some(errors) = errors else {
        let missing = tells_it_is_missing(&message) || tells_it_is_missing(&reason);
        return if missing { Ok(JobFault::NotFound) } else { Err(rejected(&reason)) };
    };
    let first = |field: Value<'_>| {
        json::text(field).or_else(|| json::elements(field).into_iter().find_map(json::text))
    };
    match errors.get("job_log_id").and_then(first) {
        Some(reason) if tells_it_is_missing(&reason) => Ok(JobFault::NotFound),
        Some(reason) => Ok(JobFault::Invalid { message: vendor_message(&reason) }),
        None => {
            let reason = errors.members().find_map(|(_, field)| first(field)).unwrap_or_default();
            Err(rejected(&reason))
        }
    }
}

fn tells_it_is_missing(words: &str) -> bool {
    let words = words.to_ascii_lowercase();
    ["does not exist", "not found", "not have access"].iter().any(|phrase| words.contains(phrase))
}

fn observe(id: &str, content: &Bytes) -> Result<Observation, JobFault> {
    let malformed = |why| JobFault::Malformed { why };
    let job = &Object::parse(content).ok_or(malformed("content is not an object"))?;
    if job.get("job_log_id").is_some_and(|own| json::identifier(own).as_deref() != Some(id)) {
        return Err(malformed("it is about another job"));
    }
    let word = job.text("status").filter(|word| !word.is_empty()).ok_or(malformed("no status"))?;
    let state = match word.as_str() {
        "pending" => JobState::Pending,
        "in_progress" => JobState::Running,
        "completed" => JobState::Succeeded,
        "failed" => JobState::Failed,
        _ => JobState::Unknown,
    };
    let timestamps = job.get("timestamps").and_then(Object::of);
    let time = |name| timestamps.as_ref()?.text(name)?.parse().ok();
    Ok(Observation {
        progress: job.get("progress").and_then(progress),
        error: if state == JobState::Failed { error(job) } else { None },
        artifacts: job.get("files").map(files::artifacts).unwrap_or_default(),
        job_type: job.text("type").unwrap_or_default(),
        description: job.text("description").unwrap_or_default(),
        vendor_url: job.text("job_status_link").unwrap_or_default(),
        owner: job.get("user_id").and_then(json::identifier).unwrap_or_default(),
        start_time: time("started_at"),
        end_time: time("completed_at"),
        vendor_payload: content.clone(),
        ..Observation::new(state, word)
    })
}

fn progress(value: Value<'_>) -> Option<Progress> {
    let value = Object::of(value)?;
    let progress = Progress {
        percent: None,
        completed_steps: value.get("completed_steps").and_then(json::integer),
        total_steps: value.get("total_steps").and_then(json::integer),
        current_step: value.text("current_step").unwrap_or_default(),
    };
    (progress != Progress::default()).then_some(progress)
}

/// Why the job failed, where the job itself says so. The `message` beside it is
/// only about the call.
fn error(job: &Object<'_>) -> Option<JobError> {
    let reasons = ["error", "error_message", "message"].into_iter().filter_map(|name| job.get(name));
    reasons.into_iter().map(json::error).find(|error| !error.message.is_empty())
}

#[cfg(test)]
mod tests;
