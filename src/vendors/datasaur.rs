//! Datasaur: `getJobs` over GraphQL, many jobs a request.
//!
//! Elements of the response are matched by `id`, not by position, and every one is
//! read by itself, so that no job's data reaches another or spoils it. Data
//! and errors can come together: what there is of the data is used, and an error
//! speaks only for the jobs that have none.
//!
//! | `status` | state |
//! | --- | --- |
//! | `QUEUED`, `NONE` | pending |
//! | `IN_PROGRESS` | running |
//! | `DELIVERED` | succeeded |
//! | `FAILED` | failed |
//!
//! Follows docs.datasaur.ai, Check Job, and the published schema. The cURL
//! example of that page would start a job; its readable form is the query.

use std::num::NonZeroUsize;

use bytes::Bytes;
use http::{Request, Response};
use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use super::{
    Adapter, BaseUrl, Capabilities, Elements, TokenExchange,
    json::{self, Object, Value},
    response,
};
use crate::job::{
    BackendFault, ContentType, InvalidJobRef, JobError, JobFault, JobRef, JobResult, JobState, Observation,
};

pub(super) mod config;
mod error_class;
mod errors;
mod job_list;
#[cfg(test)]
mod tests;
mod token;

pub use config::DatasaurConfig;
pub(super) use errors::{GraphqlErrors, JobsAt, Place};
pub(super) use job_list::JobList;
use token::Client;
pub use token::ClientAuth;
pub(super) use token::read_oauth_token;

const GET_JOBS: &str = "query GetJobs($jobIds: [String!]!) { result: getJobs(jobIds: $jobIds) { \
    id status progress errors { id stack args } resultId result additionalData { automationActivityId } \
    createdAt updatedAt } }";

/// The adapter for one Datasaur workspace.
#[derive(Debug)]
pub struct Datasaur {
    base_url: BaseUrl,
    max_batch: NonZeroUsize,
    client: Option<Client>,
}

impl Datasaur {
    /// The adapter for the workspace at `base_url`. With a client id (and how it
    /// is sent) the secret is the client secret and is exchanged for a token.
    pub fn new(base_url: BaseUrl, max_batch: NonZeroUsize, client: Option<(String, ClientAuth)>) -> Self {
        let client = client.map(|(id, auth)| Client::new(&base_url, id, auth));
        Self { base_url, max_batch, client }
    }
}

impl Adapter for Datasaur {
    fn capabilities(&self) -> Capabilities {
        Capabilities { max_batch: self.max_batch, identifies_jobs: true, files: false }
    }

    fn check(&self, job: &JobRef) -> Result<(), InvalidJobRef> {
        InvalidJobRef::refuse_tag(job)?;
        InvalidJobRef::unless_opaque_id(job)
    }

    fn probe_id(&self, unique: Uuid) -> String {
        format!("AutoLabelQueue:{unique}")
    }

    fn request(&self, jobs: &[JobRef]) -> Request<Bytes> {
        let ids: Vec<&str> = jobs.iter().map(|job| &*job.id).collect();
        let body = json!({ "operationName": "GetJobs", "query": GET_JOBS, "variables": { "jobIds": ids } });
        self.base_url.post("/graphql", &body)
    }

    fn split_body(&self, jobs: &[JobRef], response: &Response<Bytes>) -> Result<Elements, BackendFault> {
        let status = response.status();
        if status.is_success() {
            response::check_json(response)?;
        }
        let Some(body) = Object::parse(response.body()).and_then(Object::unambiguous) else {
            return Err(if status.is_success() {
                response::malformed("not a GraphQL response", status)
            } else {
                response::rejected("", status)
            });
        };
        let jobs_at = JobsAt { path: &["result".to_owned()], by_id: false };
        let errors = GraphqlErrors::read(body.get("errors"), Some(jobs_at));
        if errors.is_empty() && !status.is_success() {
            return Err(response::rejected("", status));
        }
        let data = body.get("data").and_then(Object::of).and_then(Object::unambiguous);
        match data.and_then(|data| json::list(data.get("result")?)) {
            Some(list) => JobList::read(list, job_list::own_id).split(jobs, &errors, response.body()),
            None if errors.is_empty() => Err(response::malformed("no list of jobs", status)),
            None => errors.of_the_whole(jobs, status).map(|fault| Elements::all_failed(jobs, &fault)),
        }
    }

    fn observe(&self, _job: &JobRef, element: &Bytes) -> Result<Observation, JobFault> {
        observe(element)
    }

    fn token_exchange(&self) -> Option<&dyn TokenExchange> {
        self.client.as_ref().map(|client| client as &dyn TokenExchange)
    }
}

fn observe(element: &Bytes) -> Result<Observation, JobFault> {
    const UNREADABLE: JobFault = JobFault::Malformed { why: "it has no readable status" };
    let job = Object::parse(element).and_then(Object::unambiguous).ok_or(UNREADABLE)?;
    let word = job.text("status").ok_or(UNREADABLE)?;
    let state = match word.as_str() {
        "QUEUED" | "NONE" => JobState::Pending,
        "IN_PROGRESS" => JobState::Running,
        "DELIVERED" => JobState::Succeeded,
        "FAILED" => JobState::Failed,
        _ => JobState::Unknown,
    };
    let result = |data| JobResult { data: json::bytes(data), content_type: ContentType::Json };
    // `updatedAt` is no end: nothing says that a job isn't touched after it.
    Ok(Observation {
        progress: job.get("progress").and_then(json::percent),
        result: job.get("result").map(result),
        error: job.get("errors").and_then(job_error),
        create_time: job.get("createdAt").and_then(timestamp),
        vendor_payload: Bytes::copy_from_slice(element),
        ..Observation::new(state, word)
    })
}

/// Why the job failed: a line of each error for people, and the whole list. An
/// error's line is the `message` of its `args`, or the first of its `stack`.
fn job_error(errors: Value<'_>) -> Option<JobError> {
    let entries = json::list(errors);
    if entries.as_ref().is_some_and(Vec::is_empty) {
        return None;
    }
    let line = |entry: Value<'_>| {
        let entry = Object::of(entry)?;
        let message = entry.get("args").and_then(Object::of).and_then(|args| args.text("message"));
        let stack = entry.text("stack").unwrap_or_default();
        let first_line = || stack.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned);
        message.filter(|message| !message.trim().is_empty()).or_else(first_line)
    };
    let lines: Vec<String> = entries.into_iter().flatten().filter_map(line).collect();
    Some(JobError { message: lines.join("\n"), details: json::bytes(errors) })
}

/// ISO 8601 with an offset, or milliseconds since 1970 as number or text. The
/// schema says no more than "String", so anything else is left out, and so is a
/// number that as milliseconds would lie before 1973: its unit is another one.
fn timestamp(created_at: Value<'_>) -> Option<Timestamp> {
    let text = json::plain(created_at);
    match text.parse::<i64>() {
        Ok(millis) if millis >= 100_000_000_000 => Timestamp::from_millisecond(millis).ok(),
        Ok(_) => None,
        Err(_) => text.parse().ok(),
    }
}
