//! Datasaur: `getJobs` over GraphQL, many jobs a request.
//!
//! Elements of the answer are matched by `id`, not by position, and every one is
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
use http::{Method, Request, Response, header};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Adapter, BaseUrl, Interpretation, InvalidJobRef, JobFault, TokenExchange, answer, json};
use crate::job::{ContentType, JobError, JobRef, JobResult, JobState, Observation};

mod elements;
mod errors;
#[cfg(test)]
mod tests;
mod token;

use elements::Elements;
use errors::GraphqlErrors;
use token::Client;
pub use token::ClientAuth;

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
    /// is sent) the secret is the client secret and is traded for a token.
    pub fn new(base_url: BaseUrl, max_batch: NonZeroUsize, client: Option<(String, ClientAuth)>) -> Self {
        let client = client.map(|(id, auth)| Client::new(&base_url, id, auth));
        Self { base_url, max_batch, client }
    }
}

impl Adapter for Datasaur {
    fn check(&self, job: &JobRef) -> Result<(), InvalidJobRef> {
        if !(1..=512).contains(&job.id.len()) || job.id.contains(char::is_control) {
            let reason = "must be 1 to 512 bytes without control characters, such as \
                AutoLabelQueue:dcbf6ed3-3841-46c1-8f6a-2affb53ac637";
            return Err(InvalidJobRef { field: "job_id", reason: reason.into() });
        }
        if job.tag.is_some() {
            let reason = "is for kinetica only; leave it out";
            return Err(InvalidJobRef { field: "job_tag", reason: reason.into() });
        }
        Ok(())
    }

    fn max_batch(&self) -> NonZeroUsize {
        self.max_batch
    }

    fn request(&self, jobs: &[JobRef]) -> Request<Bytes> {
        let body = GetJobs {
            operation_name: "GetJobs",
            variables: Variables { job_ids: jobs.iter().map(|job| &*job.id).collect() },
            query: GET_JOBS,
        };
        let body = serde_json::to_vec(&body).expect("strings are JSON");
        Request::builder()
            .method(Method::POST)
            .uri(self.base_url.join("/graphql"))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .body(body.into())
            .expect("constant headers are valid")
    }

    fn interpret(&self, jobs: &[JobRef], response: &Response<Bytes>) -> Interpretation {
        answer::check_status(response)?;
        let status = response.status();
        if status.is_success() {
            answer::check_json(response)?;
        }
        let Some(body) = json::object::<Body>(response.body()) else {
            return Err(if status.is_success() {
                answer::malformed("not a GraphQL response", status)
            } else {
                answer::rejected("", status)
            });
        };
        let errors = GraphqlErrors::read(body.errors);
        if errors.is_empty() && !status.is_success() {
            return Err(answer::rejected("", status));
        }
        match body.data.and_then(|data| json::object::<Data>(data.get())?.result) {
            Some(elements) => Elements::read(elements).answers(jobs, &errors),
            None if errors.is_empty() => Err(answer::malformed("no list of jobs", status)),
            None => errors.of_the_whole(jobs, status),
        }
    }

    fn token_exchange(&self) -> Option<&dyn TokenExchange> {
        self.client.as_ref().map(|client| client as &dyn TokenExchange)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GetJobs<'a> {
    operation_name: &'a str,
    variables: Variables<'a>,
    query: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Variables<'a> {
    job_ids: Vec<&'a str>,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    errors: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow, default)]
    result: Option<Vec<&'a RawValue>>,
}

/// What state rests on has a type; the rest may be anything. `updatedAt` is not
/// among them: nothing says that a job isn't touched after its end.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Job<'a> {
    status: String,
    #[serde(borrow, default)]
    progress: Option<&'a RawValue>,
    #[serde(borrow, default)]
    errors: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    created_at: Option<&'a RawValue>,
}

fn observe(element: &RawValue) -> Result<Observation, JobFault> {
    let job: Job =
        json::object(element.get()).ok_or(JobFault::Malformed { why: "it has no readable status" })?;
    let state = match job.status.as_str() {
        "QUEUED" | "NONE" => JobState::Pending,
        "IN_PROGRESS" => JobState::Running,
        "DELIVERED" => JobState::Succeeded,
        "FAILED" => JobState::Failed,
        _ => JobState::Unknown,
    };
    Ok(Observation {
        progress: json::percent(job.progress),
        result: job
            .result
            .map(|result| JobResult { data: json::bytes(result), content_type: ContentType::Json }),
        error: job.errors.and_then(job_error),
        create_time: job.created_at.and_then(timestamp),
        vendor_payload: json::bytes(element),
        ..Observation::new(state, job.status)
    })
}

/// Why the job failed: a line of each error for people, and the whole list. An
/// error's line is the `message` of its `args`, or the first of its `stack`.
fn job_error(errors: &RawValue) -> Option<JobError> {
    #[derive(Deserialize)]
    struct Entry<'a> {
        #[serde(borrow, default)]
        stack: Option<&'a RawValue>,
        #[serde(borrow, default)]
        args: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Args {
        message: String,
    }
    let entries: Vec<&RawValue> = json::lenient(Some(errors)).unwrap_or_default();
    if entries.is_empty() && errors.get().starts_with('[') {
        return None;
    }
    let line = |entry: &&RawValue| {
        let entry: Entry = json::object(entry.get())?;
        let message = entry.args.and_then(|args| json::object::<Args>(args.get())).map(|args| args.message);
        let stack: String = json::lenient(entry.stack).unwrap_or_default();
        let first_line = || stack.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned);
        message.filter(|message| !message.trim().is_empty()).or_else(first_line)
    };
    let lines: Vec<String> = entries.iter().filter_map(line).collect();
    Some(JobError { message: lines.join("\n"), details: json::bytes(errors) })
}

/// ISO 8601 with an offset, or milliseconds since 1970 as number or text. The
/// schema says no more than "String", so anything else is left out, and so is a
/// number that as milliseconds would lie before 1973: its unit is another one.
fn timestamp(created_at: &RawValue) -> Option<Timestamp> {
    let text: String = json::lenient(Some(created_at)).unwrap_or_else(|| created_at.get().to_owned());
    match text.parse::<i64>() {
        Ok(millis) if millis >= 100_000_000_000 => Timestamp::from_millisecond(millis).ok(),
        Ok(_) => None,
        Err(_) => text.parse().ok(),
    }
}
