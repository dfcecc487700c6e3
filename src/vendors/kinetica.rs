//! Kinetica: `POST /get/job`, one job a request, in JSON or in Avro binary.
//!
//! The response is a wrapper that holds the job's record: in JSON as JSON in a string,
//! in binary as Avro in bytes. The element is the record as it stands in the wrapper.
//! `status` of the wrapper says whether the call went well, the HTTP status only echoes
//! it: an ERROR comes with 400 or 200. A job that failed is a call that went well. A
//! record in binary is turned into the server's own JSON first, so that the encoding
//! can't change what is read from it.
//!
//! | `job_status` | state |
//! | --- | --- |
//! | `RUNNING` | running |
//! | `DONE` | succeeded |
//! | `ERROR` | failed |
//! | `CANCELLED`, `running` true | cancelling: "cancellation was requested" |
//! | `CANCELLED` | cancelled |
//!
//! A job's id is its cluster's, its tag is valid on all of them. A standby is sent
//! both, as the vendor's clients do when they fail over, and may have another job of
//! that id. So its record counts only where it names the tag, and that it does not
//! know the job says nothing: what started elsewhere may not have reached it.
//!
//! Follows docs.kinetica.com, REST API, `/get/job` and `/show/system/status`.

use std::{collections::BTreeMap, num::NonZeroUsize};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};
use uuid::Uuid;

use self::avro::Kind;
use super::{
    Adapter, BaseUrl, Capabilities, Elements, HealthCheck, canonical_integer,
    json::{self, Object, Value},
    refusal, response,
};
use crate::job::{
    BackendFault, ContentType, InvalidJobRef, JobError, JobFault, JobRef, JobResult, JobState, Observation,
    StandbyFault,
};

mod avro;
pub(super) mod config;
mod health;
mod messages;
#[cfg(test)]
pub(super) mod tests;

pub use config::KineticaConfig;

const GET_JOB: &str = "/get/job";
const GET_JOB_RESPONSE: avro::Schema = &[
    ("endpoint", Kind::Text),
    ("job_status", Kind::Text),
    ("running", Kind::Boolean),
    ("progress", Kind::Int),
    ("successful", Kind::Boolean),
    ("response_encoding", Kind::Text),
    ("job_response", Kind::Bytes),
    ("job_response_str", Kind::Text),
    ("status_map", Kind::Map),
    ("info", Kind::Map),
];

/// How Kinetica's requests and responses are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// JSON, the record in a string.
    #[default]
    Json,
    /// Avro binary, which spares large results the escaping.
    Binary,
}

/// The adapter for one Kinetica cluster.
#[derive(Debug)]
pub struct Kinetica {
    base_url: BaseUrl,
    encoding: Encoding,
    is_standby: bool,
}

impl Kinetica {
    /// The adapter for the cluster at `base_url`, which may have a path: a proxied
    /// cluster has one, such as `/gpudb-0`.
    pub fn new(base_url: BaseUrl, encoding: Encoding) -> Self {
        Self { base_url, encoding, is_standby: false }
    }

    /// The same for a cluster that is polled in place of the one whose jobs these are.
    pub fn standby(base_url: BaseUrl, encoding: Encoding) -> Self {
        Self { is_standby: true, ..Self::new(base_url, encoding) }
    }

    /// A request to an endpoint: `number` where its body begins with one, under its name,
    /// and the options.
    fn post(&self, path: &str, number: Option<(&str, i64)>, options: &[(&str, &str)]) -> Request<Bytes> {
        match self.encoding {
            Encoding::Json => {
                let options = options.iter().copied().collect();
                self.base_url.post(path, &JsonBody { number, options })
            }
            Encoding::Binary => {
                let mut body = Vec::new();
                if let Some((_, number)) = number {
                    avro::put_long(&mut body, number);
                }
                avro::put_options(&mut body, options.iter().copied());
                self.base_url.post_as("application/octet-stream", path, body)
            }
        }
    }

    /// What the wrapper of a response to a request to `path` says.
    fn unwrap_response<'a>(
        &self,
        path: &str,
        response: &'a Response<Bytes>,
    ) -> Result<Outcome<'a>, BackendFault> {
        let status = response.status();
        if status == StatusCode::NOT_FOUND {
            let message = format!("there is no {path} below base_url (HTTP 404)");
            return Err(response::rejected(&message, status));
        }
        if status.is_success() {
            match self.encoding {
                Encoding::Json => response::check_json(response)?,
                Encoding::Binary => response::check_octets(response)?,
            }
        }
        let wrapper = match self.encoding {
            Encoding::Json => Wrapper::from_json(response.body()),
            Encoding::Binary => {
                // What stands before the server refuses in its own words.
                let refusal = || Wrapper::from_json(response.body()).filter(Wrapper::is_error);
                Wrapper::from_avro(response.body()).or_else(refusal)
            }
        };
        match wrapper {
            Some(Wrapper { status: Word::Error, message, .. }) => Ok(Outcome::Error(message)),
            _ if !status.is_success() => Err(response::rejected("", status)),
            Some(Wrapper { status: Word::Ok, record, .. }) => Ok(Outcome::Record(record)),
            Some(_) => Err(response::malformed("a status other than OK and ERROR", status)),
            None => Err(response::malformed("not the documented wrapper", status)),
        }
    }

    /// A record as JSON; `None` where it is anything but one of this schema.
    fn record_json(&self, schema: avro::Schema, record: &[u8]) -> Option<String> {
        match self.encoding {
            // The documentation allows for a record that is not wrapped in a string.
            Encoding::Json => Value::parse(record).map(json::plain).map(trimmed),
            Encoding::Binary => avro::to_json(schema, record),
        }
    }

    fn element(
        &self,
        job: &JobRef,
        response: &Response<Bytes>,
    ) -> Result<Result<Bytes, JobFault>, BackendFault> {
        match self.unwrap_response(GET_JOB, response)? {
            Outcome::Record(None) => Ok(Err(NO_RECORD)),
            Outcome::Record(Some(record)) => {
                let element = response.body().slice_ref(record);
                // The element of the job's own cluster may have the same bytes, and the
                // engine reads an element only when its bytes have changed.
                if self.is_standby
                    && let Err(fault) = self.observe(job, &element)
                {
                    return Ok(Err(fault));
                }
                Ok(Ok(element))
            }
            Outcome::Error(message) => {
                if let Some(fault) = messages::cluster_fault(&message, Some(job), response.status()) {
                    return Err(fault);
                }
                // A page is not the server's own, and says nothing of a job.
                if response::is_page(response) || !refusal::says_no_such_job(&message, job) {
                    return Err(response::rejected(&message, response.status()));
                }
                let is_standby = self.is_standby;
                Ok(Err(if is_standby { StandbyFault::DoesNotKnowJob.into() } else { JobFault::NotFound }))
            }
        }
    }

    /// Whether a record is the job's own, as far as it says whose it is.
    fn check_tag(&self, job: &JobRef, record: &Object<'_>) -> Result<(), JobFault> {
        match (tag(record), job.tag.as_deref()) {
            (Some(own), Some(polled)) if own == polled => Ok(()),
            (Some(_), Some(_)) if self.is_standby => Err(StandbyFault::DoesNotKnowJob.into()),
            (Some(_), Some(_)) => Err(JobFault::Malformed { why: "it names another job_tag" }),
            _ if self.is_standby => {
                Err(JobFault::Malformed { why: "a standby's record does not name the job_tag" })
            }
            _ => Ok(()),
        }
    }
}

/// The body of a request in JSON.
struct JsonBody<'a> {
    number: Option<(&'a str, i64)>,
    options: BTreeMap<&'a str, &'a str>,
}

impl Serialize for JsonBody<'_> {
    /// The server expects the fields in this order, which is the alphabet's too.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut body = serializer.serialize_map(None)?;
        if let Some((name, number)) = &self.number {
            body.serialize_entry(name, number)?;
        }
        body.serialize_entry("options", &self.options)?;
        body.end()
    }
}

/// What the wrapper says.
#[derive(Debug)]
enum Outcome<'a> {
    /// The call went well. The record as it stands in the body; `None` where there is
    /// none all the same.
    Record(Option<&'a [u8]>),
    /// It did not, for this reason.
    Error(String),
}

/// The wrapper in either encoding.
struct Wrapper<'a> {
    status: Word,
    message: String,
    record: Option<&'a [u8]>,
}

enum Word {
    Ok,
    Error,
    Other,
}

impl<'a> Wrapper<'a> {
    fn from_json(body: &'a [u8]) -> Option<Self> {
        let wrapper = Object::parse(body).and_then(Object::unambiguous)?;
        Some(Self {
            status: Word::of(&wrapper.text("status")?),
            message: wrapper.text("message").unwrap_or_default(),
            record: wrapper.get("data_str").map(|record| record.get().as_bytes()),
        })
    }

    fn is_error(&self) -> bool {
        matches!(self.status, Word::Error)
    }

    fn from_avro(body: &'a [u8]) -> Option<Self> {
        let avro::Wrapper { status, message, data } = avro::Wrapper::read(body)?;
        Some(Self { status: Word::of(status), message: message.to_owned(), record: Some(data) })
    }
}

impl Word {
    fn of(text: &str) -> Self {
        match text {
            "OK" => Self::Ok,
            "ERROR" => Self::Error,
            _ => Self::Other,
        }
    }
}

impl Adapter for Kinetica {
    /// A record holds neither the id nor, for sure, the tag.
    fn capabilities(&self) -> Capabilities {
        Capabilities { max_batch: NonZeroUsize::MIN, identifies_jobs: false, files: false }
    }

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

    fn unpollable(&self, job: &JobRef) -> Option<JobFault> {
        (self.is_standby && job.tag.is_none()).then(|| StandbyFault::NeedsJobTag.into())
    }

    fn probe_id(&self, _unique: Uuid) -> String {
        i64::MAX.to_string()
    }

    fn request(&self, jobs: &[JobRef]) -> Request<Bytes> {
        let job = &jobs[0];
        let id: i64 = job.id.parse().expect("a job that passed check has a 64-bit id");
        let tag = job.tag.as_deref().map(|tag| ("job_tag", tag));
        self.post(GET_JOB, Some(("job_id", id)), tag.as_slice())
    }

    fn split_body(&self, jobs: &[JobRef], response: &Response<Bytes>) -> Result<Elements, BackendFault> {
        // A record does not say whose it is, so it can only be the first job's.
        Elements::try_for_each(jobs, |index, job| match index {
            0 => self.element(job, response),
            _ => Ok(Err(JobFault::Malformed { why: "it was asked about another job" })),
        })
    }

    /// A record with the job's tag is the job's.
    fn names_jobs(&self, jobs: &[JobRef], response: &Response<Bytes>) -> bool {
        let [JobRef { tag: Some(own), .. }] = jobs else { return false };
        let Ok(Outcome::Record(Some(record))) = self.unwrap_response(GET_JOB, response) else { return false };
        let text = self.record_json(GET_JOB_RESPONSE, record);
        let record = text.as_deref().and_then(|text| Object::parse(text.as_bytes()));
        record.and_then(Object::unambiguous).is_some_and(|record| tag(&record).as_deref() == Some(own))
    }

    fn observe(&self, job: &JobRef, element: &Bytes) -> Result<Observation, JobFault> {
        let text = self.record_json(GET_JOB_RESPONSE, element).ok_or(NO_RECORD)?;
        let record = Object::parse(text.as_bytes()).and_then(Object::unambiguous).ok_or(NO_RECORD)?;
        self.check_tag(job, &record)?;
        let observation = observe(&record)?;
        Ok(Observation { vendor_payload: text.into(), ..observation })
    }

    fn health_check(&self) -> Option<&dyn HealthCheck> {
        Some(self)
    }
}

const NO_RECORD: JobFault = JobFault::Malformed { why: "it holds no job record" };

/// Without white space around it.
fn trimmed(text: String) -> String {
    let trimmed = text.trim_ascii();
    if trimmed.len() == text.len() { text } else { trimmed.to_owned() }
}

/// The tag that a record names.
fn tag(record: &Object<'_>) -> Option<String> {
    let info = record.get("info").and_then(Object::of).and_then(Object::unambiguous)?;
    info.text("job_tag").filter(|tag| !tag.is_empty())
}

fn observe(record: &Object<'_>) -> Result<Observation, JobFault> {
    let word = record.text("job_status").ok_or(NO_RECORD)?;
    let running = match record.get("running").map(Value::get) {
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
    Ok(Observation {
        progress: record.get("progress").and_then(json::percent),
        result: if state == JobState::Succeeded { result(record) } else { None },
        error: record.get("status_map").filter(|_| state == JobState::Failed).and_then(error),
        job_type: record.text("endpoint").unwrap_or_default(),
        ..Observation::new(state, word)
    })
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
fn error(status_map: Value<'_>) -> Option<JobError> {
    let map = Object::of(status_map).and_then(Object::unambiguous);
    if map.as_ref().is_some_and(|map| map.members().next().is_none()) {
        return None;
    }
    let message = map.and_then(|map| map.text("error_message"));
    Some(JobError { message: message.unwrap_or_default(), details: json::bytes(status_map) })
}
