//! Kinetica: `POST /get/job`, one job a request, JSON encoding.
//!
//! The answer is a wrapper whose `data_str` holds the job's record as JSON in a
//! string. `status` of the wrapper says whether the call went well, the HTTP
//! status only echoes it: an ERROR comes with 400 or 200. A job that failed is a
//! call that went well.
//!
//! | `job_status` | state |
//! | --- | --- |
//! | `RUNNING` | running |
//! | `DONE` | succeeded |
//! | `ERROR` | failed |
//! | `CANCELLED`, `running` true | cancelling: "cancellation was requested" |
//! | `CANCELLED` | cancelled |
//!
//! Follows docs.kinetica.com, REST API, `/get/job`.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    Adapter, BackendFault, BaseUrl, FaultKind, Interpretation, InvalidJobRef, JobFault, answer, json, refusal,
};
use crate::job::{ContentType, JobError, JobRef, JobResult, JobState, Observation};

#[cfg(test)]
mod tests;

/// What a cluster says that can't answer now, in lower case.
const GOING_AWAY: &[&str] = &[
    "kinetica is exiting",
    "kinetica is offline",
    "system is offline",
    "system shutting down",
    "draining ha queue",
    "system-limited-fatal",
    "connection refused",
    "connection reset",
    "unexpected end of file from server",
    "query planner is not running",
];

/// The adapter for one Kinetica cluster.
#[derive(Debug)]
pub struct Kinetica {
    base_url: BaseUrl,
}

impl Kinetica {
    /// The adapter for the cluster at `base_url`, which may have a path: a proxied
    /// cluster has one, such as `/gpudb-0`.
    pub fn new(base_url: BaseUrl) -> Self {
        Self { base_url }
    }
}

impl Adapter for Kinetica {
    fn check(&self, job: &JobRef) -> Result<(), InvalidJobRef> {
        // Only the canonical form, so that one job has one name.
        if !job.id.parse::<i64>().is_ok_and(|id| id.to_string() == *job.id) {
            let reason = "must be a 64-bit integer in decimal digits, such as 4611686018427387907";
            return Err(InvalidJobRef { field: "job_id", reason: reason.into() });
        }
        let is_tag = |tag: &str| {
            (1..=512).contains(&tag.len())
                && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
        };
        if job.tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            let reason =
                "must be 1 to 512 of the characters A-Z, a-z, 0-9, _ and -; leave it out if there is none";
            return Err(InvalidJobRef { field: "job_tag", reason: reason.into() });
        }
        Ok(())
    }

    fn request(&self, jobs: &[JobRef]) -> Request<Bytes> {
        let job = &jobs[0];
        let body = GetJob {
            job_id: job.id.parse().expect("a job that passed check has a 64-bit id"),
            options: Options { job_tag: job.tag.as_deref() },
        };
        let body = serde_json::to_vec(&body).expect("a number and a string are JSON");
        Request::builder()
            .method(Method::POST)
            .uri(self.base_url.join("/get/job"))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .body(body.into())
            .expect("constant headers are valid")
    }

    fn interpret(&self, jobs: &[JobRef], response: &Response<Bytes>) -> Interpretation {
        let Some((job, others)) = jobs.split_first() else { return Ok(Vec::new()) };
        let about_the_job = interpret_one(job, response)?;
        // A record does not say whose it is, so it can only be the first job's.
        let unasked =
            others.iter().map(|_| Err(JobFault::Malformed { why: "it was asked about another job" }));
        Ok(std::iter::once(about_the_job).chain(unasked).collect())
    }
}

/// The server expects the fields in this order.
#[derive(Serialize)]
struct GetJob<'a> {
    job_id: i64,
    options: Options<'a>,
}

#[derive(Serialize)]
struct Options<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    job_tag: Option<&'a str>,
}

/// `data` is left out: it is a string or an object, and says nothing in JSON.
#[derive(Deserialize)]
struct Wrapper<'a> {
    status: String,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    data_str: Option<&'a RawValue>,
}

/// What state and result rest on has a type; the rest may be anything.
#[derive(Deserialize)]
struct Record<'a> {
    job_status: String,
    #[serde(default)]
    running: Option<bool>,
    #[serde(borrow, default)]
    endpoint: Option<&'a RawValue>,
    #[serde(borrow, default)]
    progress: Option<&'a RawValue>,
    #[serde(borrow, default)]
    response_encoding: Option<&'a RawValue>,
    #[serde(borrow, default)]
    job_response: Option<&'a RawValue>,
    #[serde(borrow, default)]
    job_response_str: Option<&'a RawValue>,
    #[serde(borrow, default)]
    status_map: Option<&'a RawValue>,
}

fn interpret_one(
    job: &JobRef,
    response: &Response<Bytes>,
) -> Result<Result<Observation, JobFault>, BackendFault> {
    answer::check_status(response)?;
    let status = response.status();
    if status == StatusCode::NOT_FOUND {
        return Err(answer::rejected("there is no /get/job below base_url (HTTP 404)", status));
    }
    if status.is_success() {
        answer::check_json(response)?;
    }
    match json::object::<Wrapper>(response.body()) {
        Some(wrapper) if wrapper.status == "ERROR" => refused(job, &wrapper, response).map(Err),
        _ if !status.is_success() => Err(answer::rejected("", status)),
        Some(wrapper) if wrapper.status == "OK" => Ok(observe(&wrapper)),
        Some(_) => Err(answer::malformed("a status other than OK and ERROR", status)),
        None => Err(answer::malformed("not the documented wrapper", status)),
    }
}

/// Why the call went wrong, which only the words of the message tell.
fn refused(job: &JobRef, wrapper: &Wrapper, response: &Response<Bytes>) -> Result<JobFault, BackendFault> {
    let message: String = json::lenient(wrapper.message).unwrap_or_default();
    let lower = message.to_lowercase();
    let kind = if let Some(words) = GOING_AWAY.iter().find(|words| lower.contains(**words)) {
        let why = format!("it says \"{words}\"");
        FaultKind::Unavailable { retry_after: answer::retry_after(response.headers()), why }
    } else if lower.contains("insufficient credentials") {
        FaultKind::CredentialsRejected
    } else if lower.contains("access denied") {
        FaultKind::Forbidden
    } else if refusal::says_no_such_job(&message, job) {
        return Ok(JobFault::NotFound);
    } else {
        return Err(answer::rejected(&message, response.status()));
    };
    Err(answer::judged(kind, response.status()))
}

fn observe(wrapper: &Wrapper) -> Result<Observation, JobFault> {
    const NO_RECORD: JobFault = JobFault::Malformed { why: "its data_str holds no job record" };
    let data = wrapper.data_str.ok_or(NO_RECORD)?.get();
    let text = match serde_json::from_str::<String>(data) {
        Ok(text) => text,
        // The documentation allows for a record that is not wrapped in a string.
        Err(_) if data.starts_with('{') => data.to_owned(),
        Err(_) => return Err(NO_RECORD),
    };
    let record: Record = json::object(&text).ok_or(NO_RECORD)?;
    let state = match (record.job_status.as_str(), record.running) {
        ("RUNNING", _) => JobState::Running,
        ("DONE", _) => JobState::Succeeded,
        ("ERROR", _) => JobState::Failed,
        ("CANCELLED", Some(true)) => JobState::Cancelling,
        ("CANCELLED", _) => JobState::Cancelled,
        _ => JobState::Unknown,
    };
    let observation = Observation {
        progress: json::percent(record.progress),
        result: if state == JobState::Succeeded { result(&record) } else { None },
        error: record.status_map.filter(|_| state == JobState::Failed).and_then(error),
        job_type: json::lenient(record.endpoint).unwrap_or_default(),
        ..Observation::new(state, record.job_status)
    };
    Ok(Observation { vendor_payload: text.into(), ..observation })
}

/// The output, from the field that the encoding names. An encoding or a value
/// that is not as documented gives none, rather than bytes with a guessed type:
/// the job has ended all the same, and they are still in the payload.
fn result(record: &Record) -> Option<JobResult> {
    let (data, content_type) = match json::lenient::<String>(record.response_encoding)?.as_str() {
        "json" => (Bytes::from(json::lenient::<String>(record.job_response_str)?), ContentType::Json),
        "binary" => (from_latin1(&json::lenient::<String>(record.job_response)?)?, ContentType::Avro),
        _ => return None,
    };
    (!data.is_empty()).then_some(JobResult { data, content_type })
}

/// Bytes in JSON are one code point each, U+0000 to U+00FF, as in Avro's JSON
/// encoding.
fn from_latin1(text: &str) -> Option<Bytes> {
    text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect::<Option<Vec<u8>>>().map(Bytes::from)
}

/// Why the job failed: `error_message` for people, and the whole map.
fn error(status_map: &RawValue) -> Option<JobError> {
    #[derive(Deserialize)]
    struct StatusMap<'a> {
        #[serde(borrow, default)]
        error_message: Option<&'a RawValue>,
    }
    if status_map.get().strip_prefix('{').is_some_and(|rest| rest.trim() == "}") {
        return None;
    }
    let message = json::object::<StatusMap>(status_map.get()).and_then(|map| map.error_message);
    let message = json::lenient::<String>(message).or_else(|| Some(message?.get().to_owned()));
    Some(JobError { message: message.unwrap_or_default(), details: json::bytes(status_map) })
}
