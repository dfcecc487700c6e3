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
use http::{Request, Response, StatusCode};
use serde_json::{json, value::RawValue};

use super::{
    Adapter, BackendFault, BaseUrl, FaultKind, Interpretation, InvalidJobRef, JobFault, answer,
    canonical_integer,
    json::{self, Object},
    refusal,
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
        if canonical_integer(&job.id).is_none() {
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

    /// A record holds neither the id nor the tag.
    fn names_its_job(&self) -> bool {
        false
    }

    fn request(&self, jobs: &[JobRef]) -> Request<Bytes> {
        let job = &jobs[0];
        let id: i64 = job.id.parse().expect("a job that passed check has a 64-bit id");
        let options = job.tag.as_ref().map_or(json!({}), |tag| json!({ "job_tag": **tag }));
        // The server expects the fields in this order, which is the alphabet's too.
        self.base_url.post("/get/job", &json!({ "job_id": id, "options": options }))
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
    let wrapper = Object::parse(response.body()).and_then(Object::unambiguous);
    let word = wrapper.as_ref().and_then(|wrapper| wrapper.text("status"));
    match (wrapper, word.as_deref()) {
        (Some(wrapper), Some("ERROR")) => refused(job, &wrapper, response).map(Err),
        _ if !status.is_success() => Err(answer::rejected("", status)),
        (Some(wrapper), Some("OK")) => Ok(observe(&wrapper)),
        (_, Some(_)) => Err(answer::malformed("a status other than OK and ERROR", status)),
        (_, None) => Err(answer::malformed("not the documented wrapper", status)),
    }
}

/// Why the call went wrong, which only the words of the message tell.
fn refused(job: &JobRef, wrapper: &Object<'_>, response: &Response<Bytes>) -> Result<JobFault, BackendFault> {
    let message = wrapper.text("message").unwrap_or_default();
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

fn observe(wrapper: &Object<'_>) -> Result<Observation, JobFault> {
    const NO_RECORD: JobFault = JobFault::Malformed { why: "its data_str holds no job record" };
    // The documentation allows for a record that is not wrapped in a string.
    let text = json::plain(wrapper.get("data_str").ok_or(NO_RECORD)?);
    let record = Object::parse(text.as_bytes()).and_then(Object::unambiguous).ok_or(NO_RECORD)?;
    let word = record.text("job_status").ok_or(NO_RECORD)?;
    let running = match record.get("running").map(RawValue::get) {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(NO_RECORD),
    };
    let state = match word.as_str() {
        "RUNNING" => JobState::Running,
        "DONE" => JobState::Succeeded,
        "ERROR" => JobState::Failed,
        "CANCELLED" if running => JobState::Cancelling,
        "CANCELLED" => JobState::Cancelled,
        _ => JobState::Unknown,
    };
    let observation = Observation {
        progress: record.get("progress").and_then(json::percent),
        result: if state == JobState::Succeeded { result(&record) } else { None },
        error: record.get("status_map").filter(|_| state == JobState::Failed).and_then(error),
        job_type: record.text("endpoint").unwrap_or_default(),
        ..Observation::new(state, word)
    };
    Ok(Observation { vendor_payload: text.into(), ..observation })
}

/// The output, from the field that the encoding names. An encoding or a value
/// that is not as documented gives none, rather than bytes with a guessed type:
/// the job has ended all the same, and they are still in the payload.
fn result(record: &Object<'_>) -> Option<JobResult> {
    let (data, content_type) = match record.text("response_encoding")?.as_str() {
        "json" => (record.text("job_response_str")?.into(), ContentType::Json),
        "binary" => (from_latin1(&record.text("job_response")?)?, ContentType::Avro),
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
    let map = Object::of(status_map).and_then(Object::unambiguous);
    if map.as_ref().is_some_and(|map| map.members().next().is_none()) {
        return None;
    }
    let message = map.and_then(|map| map.get("error_message")).map(json::plain);
    Some(JobError { message: message.unwrap_or_default(), details: json::bytes(status_map) })
}
