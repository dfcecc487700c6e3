//! Kinetica: `POST /get/job`, one job a request, in JSON or in Avro binary.
//!
//! The answer is a wrapper that holds the job's record: in JSON as JSON in a string,
//! in binary as Avro in bytes. `status` of the wrapper says whether the call went
//! well, the HTTP status only echoes it: an ERROR comes with 400 or 200. A job that
//! failed is a call that went well. A record in binary is turned into the server's
//! own JSON first, so that the encoding can't change what is read from it.
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

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use self::avro::Kind;
use super::{
    Adapter, BackendFault, BaseUrl, Changes, FaultKind, HealthCheck, InvalidJobRef, JobFault, StandbyFault,
    answer, canonical_integer,
    json::{self, Object},
    refusal, unless_known,
};
use crate::job::{ContentType, JobError, JobRef, JobResult, JobState, Observation, Source};

mod avro;
mod health;
#[cfg(test)]
pub(super) mod tests;

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

/// How Kinetica's requests and answers are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
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

    /// The same for a cluster that is asked in place of the one whose jobs these are.
    pub fn standby(base_url: BaseUrl, encoding: Encoding) -> Self {
        Self { is_standby: true, ..Self::new(base_url, encoding) }
    }

    /// Asks an endpoint: `number` where its request begins with one, under its name,
    /// and the options.
    fn ask(&self, path: &str, number: Option<(&str, i64)>, options: &[(&str, &str)]) -> Request<Bytes> {
        match self.encoding {
            Encoding::Json => {
                let options: serde_json::Map<_, _> =
                    options.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
                // The server expects the fields in this order, which is the alphabet's too.
                let mut body = serde_json::Map::new();
                body.extend(number.map(|(name, number)| (name.to_owned(), json!(number))));
                body.insert("options".to_owned(), options.into());
                self.base_url.post(path, &body)
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

    /// What a cluster said to a request to `path`, whose record has this schema.
    fn said(
        &self,
        path: &str,
        schema: avro::Schema,
        response: &Response<Bytes>,
    ) -> Result<Said, BackendFault> {
        answer::check_status(response)?;
        let status = response.status();
        if status == StatusCode::NOT_FOUND {
            let message = format!("there is no {path} below base_url (HTTP 404)");
            return Err(answer::rejected(&message, status));
        }
        if status.is_success() {
            match self.encoding {
                Encoding::Json => answer::check_json(response)?,
                Encoding::Binary => answer::check_octets(response)?,
            }
        }
        let wrapper = match self.encoding {
            Encoding::Json => Wrapper::from_json(response.body()),
            Encoding::Binary => Wrapper::from_avro(response.body(), schema),
        };
        match wrapper {
            Some(Wrapper { status: Word::Error, message, .. }) => Ok(Said::No(message)),
            _ if !status.is_success() => Err(answer::rejected("", status)),
            Some(Wrapper { status: Word::Ok, record, .. }) => Ok(Said::Record(record)),
            Some(_) => Err(answer::malformed("a status other than OK and ERROR", status)),
            None => Err(answer::malformed("not the documented wrapper", status)),
        }
    }

    fn interpret_one(
        &self,
        job: &JobRef,
        known: &[Option<Source>],
        response: &Response<Bytes>,
    ) -> Result<Result<Option<Observation>, JobFault>, BackendFault> {
        let unknown = match self.said(GET_JOB, GET_JOB_RESPONSE, response)? {
            Said::Record(None) => return Ok(Err(NO_RECORD)),
            // A standby's record has to say more than what is known may have said.
            Said::Record(Some(record)) if self.is_standby => {
                return Ok(self.observe(job, &record).map(Some));
            }
            Said::Record(Some(record)) => {
                return Ok(unless_known(known, 0, &record, || self.observe(job, &record)));
            }
            Said::No(message) => match fault(&message, response) {
                Some(fault) => return Err(fault),
                None if refusal::says_no_such_job(&message, job) => JobFault::NotFound,
                None => return Err(answer::rejected(&message, response.status())),
            },
        };
        Ok(Err(if self.is_standby { StandbyFault::DoesNotKnowJob.into() } else { unknown }))
    }

    /// What a record says of the job, if it is the job's own.
    fn observe(&self, job: &JobRef, text: &str) -> Result<Observation, JobFault> {
        let record = Object::parse(text.as_bytes()).and_then(Object::unambiguous).ok_or(NO_RECORD)?;
        let info = record.get("info").and_then(Object::of).and_then(Object::unambiguous);
        let own = info.and_then(|info| info.text("job_tag")).filter(|tag| !tag.is_empty());
        match (own, job.tag.as_deref()) {
            (Some(own), Some(asked)) if own == asked => {}
            (Some(_), Some(_)) if self.is_standby => return Err(StandbyFault::DoesNotKnowJob.into()),
            (Some(_), Some(_)) => return Err(JobFault::Malformed { why: "it names another job_tag" }),
            _ if self.is_standby => {
                return Err(JobFault::Malformed { why: "a standby's record does not name the job_tag" });
            }
            _ => {}
        }
        observe(&record).map(|observation| Observation {
            vendor_payload: Bytes::copy_from_slice(text.as_bytes()),
            ..observation
        })
    }
}

/// What the wrapper says.
#[derive(Debug)]
enum Said {
    /// The call went well; `None` where there is no record all the same.
    Record(Option<String>),
    /// It did not, for this reason.
    No(String),
}

/// The wrapper in either encoding.
struct Wrapper {
    status: Word,
    message: String,
    /// JSON.
    record: Option<String>,
}

enum Word {
    Ok,
    Error,
    Other,
}

impl Wrapper {
    fn from_json(body: &[u8]) -> Option<Self> {
        let wrapper = Object::parse(body).and_then(Object::unambiguous)?;
        Some(Self {
            status: Word::of(&wrapper.text("status")?),
            message: wrapper.text("message").unwrap_or_default(),
            // The documentation allows for a record that is not wrapped in a string.
            record: wrapper.get("data_str").map(json::plain),
        })
    }

    fn from_avro(body: &[u8], schema: avro::Schema) -> Option<Self> {
        let avro::Wrapper { status, message, data } = avro::Wrapper::read(body)?;
        let record = avro::to_json(schema, data);
        Some(Self { status: Word::of(status), message: message.to_owned(), record })
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

    fn unasked(&self, job: &JobRef) -> Option<JobFault> {
        (self.is_standby && job.tag.is_none()).then(|| StandbyFault::NeedsJobTag.into())
    }

    /// A record holds neither the id nor, for sure, the tag.
    fn names_its_job(&self) -> bool {
        false
    }

    fn request(&self, jobs: &[JobRef]) -> Request<Bytes> {
        let job = &jobs[0];
        let id: i64 = job.id.parse().expect("a job that passed check has a 64-bit id");
        let tag = job.tag.as_deref().map(|tag| ("job_tag", tag));
        self.ask(GET_JOB, Some(("job_id", id)), tag.as_slice())
    }

    fn interpret(&self, jobs: &[JobRef], known: &[Option<Source>], response: &Response<Bytes>) -> Changes {
        let Some((job, others)) = jobs.split_first() else { return Ok(Vec::new()) };
        let about_the_job = self.interpret_one(job, known, response)?;
        // A record does not say whose it is, so it can only be the first job's.
        let unasked =
            others.iter().map(|_| Err(JobFault::Malformed { why: "it was asked about another job" }));
        Ok(std::iter::once(about_the_job).chain(unasked).collect())
    }

    fn health_check(&self) -> Option<&dyn HealthCheck> {
        Some(self)
    }
}

/// Why the call went wrong, as far as it is the cluster's matter; only the words of
/// the message tell.
fn fault(message: &str, response: &Response<Bytes>) -> Option<BackendFault> {
    let lower = message.to_lowercase();
    let kind = if let Some(words) = GOING_AWAY.iter().find(|words| lower.contains(**words)) {
        let why = format!("it says \"{words}\"");
        FaultKind::Unavailable { retry_after: answer::retry_after(response.headers()), why }
    } else if lower.contains("insufficient credentials") {
        FaultKind::CredentialsRejected
    } else if lower.contains("access denied") {
        FaultKind::Forbidden
    } else {
        return None;
    };
    Some(answer::judged(kind, response.status()))
}

const NO_RECORD: JobFault = JobFault::Malformed { why: "it holds no job record" };

fn observe(record: &Object<'_>) -> Result<Observation, JobFault> {
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
fn error(status_map: &RawValue) -> Option<JobError> {
    let map = Object::of(status_map).and_then(Object::unambiguous);
    if map.as_ref().is_some_and(|map| map.members().next().is_none()) {
        return None;
    }
    let message = map.and_then(|map| map.get("error_message")).map(json::plain);
    Some(JobError { message: message.unwrap_or_default(), details: json::bytes(status_map) })
}
