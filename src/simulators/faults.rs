//! What a simulator does wrong on demand.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::http::{HeaderName, HeaderValue};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::{Map, Value};

use super::{misfit::Misfit, plan::millis};

/// One thing that goes wrong, for the requests that it is meant for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What happens.
    pub effect: Effect,
    /// Only to paths that contain this.
    #[serde(default)]
    pub path: Option<String>,
    /// Only to requests that ask about this job.
    #[serde(default)]
    pub job_id: Option<String>,
    /// Only so many times; always if absent.
    #[serde(default)]
    pub times: Option<u32>,
}

/// What happens to a request.
///
/// Of the faults that are meant for a request all delays happen, and of the
/// others the one that was injected first. An offset counts the bytes of the vendor's
/// whole answer, head and body; a negative one counts from its end.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Effect {
    /// This answer instead of the vendor's.
    Status(Answer),
    /// The vendor's answer comes this much later.
    Delay(#[serde(deserialize_with = "millis")] Duration),
    /// The vendor's answer comes at most this much later.
    Jitter(#[serde(deserialize_with = "millis")] Duration),
    /// No answer ever comes; the connection stays open.
    Hang,
    /// The connection is reset without an answer.
    Reset,
    /// The connection is reset after so many bytes.
    ResetAt(isize),
    /// The connection ends after so many bytes.
    CloseAt(isize),
    /// Nothing more comes after so many bytes; the connection stays open.
    StallAt(isize),
    /// The body ends after so many bytes of the announced length, and the connection
    /// with it.
    Truncate(usize),
    /// So many bytes at a time.
    Throttle {
        /// How many.
        bytes: NonZeroUsize,
        /// How long after each of them nothing comes.
        #[serde(rename = "pause_ms", deserialize_with = "millis")]
        pause: Duration,
    },
    /// The head comes byte by byte with this pause after each, the body at once.
    SlowHead(#[serde(deserialize_with = "millis")] Duration),
    /// The connection ends after the answer, which does not announce it.
    CloseAfterAnswer,
    /// A connection that has answered before ends under the request; another answers
    /// it.
    CloseUnderRequest,
    /// The answer comes twice.
    Twice,
    /// This text comes after the answer.
    Extra(String),
    /// The announced length of the body, a number or not.
    ContentLength(String),
    /// The announced length of the body is so many bytes more than it has.
    WrongLength(isize),
    /// A body without a length and without an end.
    EndlessBody,
    /// A body in chunks that never ends.
    EndlessChunks,
    /// A body of so many bytes that looks like JSON at first.
    HugeBody(u64),
    /// A body that is compressed and has so many bytes.
    GzipBomb(usize),
    /// So many headers more.
    ManyHeaders(usize),
    /// A header of so many bytes.
    HugeHeader(usize),
    /// A head that never ends.
    EndlessHead,
    /// The answer in HTTP/1.0, up to the end of the connection.
    #[serde(rename = "http_1_0")]
    Http10,
    /// These bytes in place of the answer, then the end of the connection.
    Raw(String),
    /// 204 without a body.
    Empty204,
    /// A page in HTML with this status.
    Html(#[serde(deserialize_with = "code")] u16),
    /// 302 to this location.
    Redirect(String),
    /// The vendor's answer under this content type.
    WrongContentType(String),
    /// The vendor refuses the request with this message, in its own form.
    Refuse(String),
    /// A GraphQL error (Datasaur).
    #[serde(rename = "graphql_error")]
    GraphQlError(GraphQlError),
    /// The vendor ignores a Range header.
    IgnoreRange,
    /// The answer is about these jobs and no others, whoever was asked about; of
    /// vendors that answer about one, about the first.
    AnswerFor(Vec<String>),
    /// A value that does not belong in the answer's JSON.
    Json(Misfit),
}

/// An answer of one's own.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// HTTP status.
    #[serde(deserialize_with = "code")]
    pub code: u16,
    /// The body.
    #[serde(default)]
    pub body: String,
    /// The body where it is no text, in base64; it counts before the other.
    #[serde(default, rename = "body_base64", deserialize_with = "base64")]
    pub bytes: Option<Bytes>,
    /// Its type.
    #[serde(default = "json_type")]
    pub content_type: String,
    /// More headers, such as Retry-After.
    #[serde(default, deserialize_with = "headers")]
    pub headers: BTreeMap<String, String>,
}

/// An element of `errors` in a GraphQL answer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GraphQlError {
    /// Its message.
    pub message: String,
    /// Its extensions.
    pub extensions: Map<String, Value>,
    /// Whether the data that was asked for comes with it.
    pub with_data: bool,
    /// HTTP status; 200 if absent.
    pub status: Option<u16>,
}

fn json_type() -> String {
    "application/json".to_owned()
}

/// A final status, which HTTP can carry.
fn code<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    let code = u16::deserialize(from)?;
    let message = || D::Error::custom(format!("the HTTP status {code} is not one of 200 to 999"));
    (200..=999).contains(&code).then_some(code).ok_or_else(message)
}

fn base64<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Bytes>, D::Error> {
    let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
    let bytes = STANDARD.decode(text).map_err(|error| D::Error::custom(format!("no base64: {error}")))?;
    Ok(Some(bytes.into()))
}

fn headers<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let headers = BTreeMap::<String, String>::deserialize(from)?;
    for (name, value) in &headers {
        if HeaderName::try_from(name).is_err() || HeaderValue::try_from(value).is_err() {
            return Err(D::Error::custom(format!("no header of HTTP: {name:?}: {value:?}")));
        }
    }
    Ok(headers)
}

impl Effect {
    /// An answer with this status and JSON body.
    pub fn status(code: u16, body: impl Into<String>) -> Self {
        let body = body.into();
        Self::Status(Answer { code, body, bytes: None, content_type: json_type(), headers: BTreeMap::new() })
    }

    /// An answer with this status, an empty JSON object and Retry-After.
    pub fn retry_after(code: u16, seconds: u32) -> Self {
        let headers = BTreeMap::from([("retry-after".to_owned(), seconds.to_string())]);
        let body = "{}".to_owned();
        Self::Status(Answer { code, body, bytes: None, content_type: json_type(), headers })
    }
}

impl Fault {
    /// This effect on every request.
    pub fn new(effect: Effect) -> Self {
        Self { effect, path: None, job_id: None, times: None }
    }

    /// Only on paths that contain `path`.
    #[must_use]
    pub fn at(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Only on requests that ask about this job.
    #[must_use]
    pub fn for_job(mut self, id: impl Into<String>) -> Self {
        self.job_id = Some(id.into());
        self
    }

    /// Only so many times.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    fn is_for(&self, path: &str, ids: &[String], kept: bool) -> bool {
        self.times != Some(0)
            && (kept || !matches!(self.effect, Effect::CloseUnderRequest))
            && self.path.as_ref().is_none_or(|wanted| path.contains(wanted.as_str()))
            && self.job_id.as_ref().is_none_or(|wanted| ids.contains(wanted))
    }

    fn is_delay(&self) -> bool {
        matches!(self.effect, Effect::Delay(_) | Effect::Jitter(_))
    }
}

/// What is to happen to one request.
#[derive(Debug, Default)]
pub(super) struct Mishap {
    pub(super) delay: Duration,
    pub(super) effect: Option<Effect>,
}

#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    faults: Vec<Fault>,
    poisoned: BTreeSet<String>,
}

impl Faults {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn inject(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    pub(super) fn poison(&self, job_id: &str) {
        self.state().poisoned.insert(job_id.to_owned());
    }

    pub(super) fn clear(&self) {
        *self.state() = State::default();
    }

    /// Why the vendor refuses any request about these jobs, if it does.
    pub(super) fn poisoned(&self, ids: &[String]) -> Option<String> {
        let state = self.state();
        let culprit = ids.iter().find(|id| state.poisoned.contains(*id))?;
        Some(format!("cannot process job {culprit}"))
    }

    /// What happens to this request, which came over a connection that was kept or a
    /// new one; uses the faults up.
    pub(super) fn take(&self, path: &str, ids: &[String], kept: bool) -> Mishap {
        let mut state = self.state();
        let mut mishap = Mishap::default();
        for fault in state.faults.iter_mut().filter(|fault| fault.is_for(path, ids, kept)) {
            if !fault.is_delay() && mishap.effect.is_some() {
                continue;
            }
            fault.times = fault.times.map(|times| times.saturating_sub(1));
            match &fault.effect {
                Effect::Delay(time) => mishap.delay = mishap.delay.saturating_add(*time),
                Effect::Jitter(most) => {
                    let time = most.mul_f64(rand::random_range(0.0..=1.0));
                    mishap.delay = mishap.delay.saturating_add(time);
                }
                effect => mishap.effect = Some(effect.clone()),
            }
        }
        state.faults.retain(|fault| fault.times != Some(0));
        mishap
    }
}

tokio::task_local! {
    static ANSWER_FOR: Vec<String>;
}

/// Has the vendor's routes answer about these jobs.
pub(super) async fn answering_for<F: Future>(ids: Vec<String>, routes: F) -> F::Output {
    ANSWER_FOR.scope(ids, routes).await
}

/// The jobs that an answer is about: those that were asked for, if nothing is wrong.
pub(super) fn answered(asked: Vec<String>) -> Vec<String> {
    ANSWER_FOR.try_with(Clone::clone).unwrap_or(asked)
}

/// The same, of a vendor that answers about one job.
pub(super) fn answered_one(asked: String) -> String {
    answered(vec![asked]).into_iter().next().unwrap_or_default()
}
