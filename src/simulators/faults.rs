//! Faults of a simulator: which requests they apply to, and their effects.

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
use tokio::sync::Notify;

use super::{json_fault::JsonFault, plan::millis};

/// A fault and the requests that it applies to.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What happens.
    pub effect: Effect,
    /// Only to paths that contain this.
    #[serde(default)]
    pub path: Option<String>,
    /// Only to requests that list this job.
    #[serde(default)]
    pub job_id: Option<String>,
    /// Only so many times; always if absent.
    #[serde(default)]
    pub times: Option<u32>,
}

/// What a fault does to a request or its response.
///
/// Of the faults that apply to a request all delays take effect, and of the others the
/// one that was injected first. An offset counts the bytes of the vendor's
/// whole response, head and body; a negative one counts from its end.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Effect {
    /// This response instead of the vendor's.
    Status(CustomResponse),
    /// The vendor's response comes this much later.
    Delay(#[serde(deserialize_with = "millis")] Duration),
    /// The vendor's response comes at most this much later.
    Jitter(#[serde(deserialize_with = "millis")] Duration),
    /// No response ever comes; the connection stays open.
    Hang,
    /// The connection is reset without a response.
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
    /// The connection ends after the response, which does not announce it.
    CloseAfterAnswer,
    /// A connection that has served a request before ends under the next one; a new
    /// connection serves it.
    CloseUnderRequest,
    /// The response comes twice.
    Twice,
    /// This text comes after the response.
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
    /// The response in HTTP/1.0, up to the end of the connection.
    #[serde(rename = "http_1_0")]
    Http10,
    /// These bytes in place of the response, then the end of the connection.
    Raw(String),
    /// 204 without a body.
    Empty204,
    /// A page in HTML with this status.
    Html(#[serde(deserialize_with = "code")] u16),
    /// 302 to this location.
    Redirect(String),
    /// The vendor's response under this content type.
    WrongContentType(String),
    /// The vendor refuses the request with this message, in its own form.
    Refuse(String),
    /// A GraphQL error (Datasaur).
    #[serde(rename = "graphql_error")]
    GraphQlError(GraphQlError),
    /// The vendor ignores a Range header.
    IgnoreRange,
    /// The response has elements for these jobs and no others, whatever the request
    /// lists. A vendor with one job a response takes the first.
    AnswerFor(Vec<String>),
    /// The response has elements for the jobs of the request, with some left out or
    /// added.
    Elements(Elements),
    /// The response is produced at once and sent when the fault is removed. It shows the
    /// jobs as they were when the request arrived.
    HoldResponse,
    /// An invalid or extreme value in the response's JSON.
    Json(JsonFault),
}

/// How the elements of a response differ from the jobs of its request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Elements {
    /// Jobs of the request that have no element.
    pub omit: Vec<String>,
    /// Jobs outside the request that have one.
    pub add: Vec<String>,
}

impl Elements {
    /// The jobs that the response has elements for.
    pub(super) fn of(self, mut requested: Vec<String>) -> Vec<String> {
        requested.retain(|id| !self.omit.contains(id));
        requested.extend(self.add);
        requested
    }
}

/// A response that replaces the vendor's.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomResponse {
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

/// An element of `errors` in a GraphQL response.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GraphQlError {
    /// Its message.
    pub message: String,
    /// Its extensions.
    pub extensions: Map<String, Value>,
    /// Whether the data of the query comes with it.
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
    /// A response with this status and JSON body.
    pub fn status(code: u16, body: impl Into<String>) -> Self {
        let body = body.into();
        Self::Status(CustomResponse {
            code,
            body,
            bytes: None,
            content_type: json_type(),
            headers: BTreeMap::new(),
        })
    }

    /// A response with this status, an empty JSON object and Retry-After.
    pub fn retry_after(code: u16, seconds: u32) -> Self {
        let headers = BTreeMap::from([("retry-after".to_owned(), seconds.to_string())]);
        let body = "{}".to_owned();
        Self::Status(CustomResponse { code, body, bytes: None, content_type: json_type(), headers })
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

    /// Only on requests that list this job.
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

    fn is_for(&self, path: &str, ids: &[String], reused: bool) -> bool {
        self.times != Some(0)
            && (reused || !matches!(self.effect, Effect::CloseUnderRequest))
            && self.path.as_ref().is_none_or(|wanted| path.contains(wanted.as_str()))
            && self.job_id.as_ref().is_none_or(|wanted| ids.contains(wanted))
    }

    fn is_delay(&self) -> bool {
        matches!(self.effect, Effect::Delay(_) | Effect::Jitter(_))
    }
}

/// The faults that apply to one request.
#[derive(Debug, Default)]
pub(super) struct RequestFaults {
    pub(super) delay: Duration,
    pub(super) effect: Option<Effect>,
}

/// The faults of one simulator.
#[derive(Debug, Default)]
pub(super) struct Faults {
    state: Mutex<State>,
    removed: Notify,
}

#[derive(Debug, Default)]
struct State {
    faults: Vec<Fault>,
    /// Jobs whose requests are refused in the vendor's own form.
    refused: BTreeSet<String>,
    /// How often faults were removed.
    removals: u64,
}

impl Faults {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn inject(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Refuses every request that lists this job.
    pub(super) fn refuse(&self, job_id: &str) {
        self.state().refused.insert(job_id.to_owned());
    }

    /// Removes the faults that are limited to this job.
    pub(super) fn heal(&self, job_id: &str) {
        let mut state = self.state();
        state.refused.remove(job_id);
        state.faults.retain(|fault| fault.job_id.as_deref() != Some(job_id));
        state.removals += 1;
        drop(state);
        self.removed.notify_waiters();
    }

    /// Removes all faults.
    pub(super) fn clear(&self) {
        let mut state = self.state();
        let removals = state.removals + 1;
        *state = State { removals, ..State::default() };
        drop(state);
        self.removed.notify_waiters();
    }

    /// How often faults were removed so far, for [`Faults::removed_since`].
    pub(super) fn removals(&self) -> u64 {
        self.state().removals
    }

    /// Returns once faults were removed again.
    pub(super) async fn removed_since(&self, removals: u64) {
        loop {
            let removed = self.removed.notified();
            tokio::pin!(removed);
            // Registered before the check, so that no removal is missed.
            removed.as_mut().enable();
            if self.removals() != removals {
                return;
            }
            removed.await;
        }
    }

    /// Why the vendor refuses any request that lists these jobs, if it does.
    pub(super) fn refusal(&self, ids: &[String]) -> Option<String> {
        let state = self.state();
        let refused = ids.iter().find(|id| state.refused.contains(*id))?;
        Some(format!("cannot process job {refused}"))
    }

    /// The faults that apply to this request, which came over a reused connection or a new
    /// one. Each counts as used once more.
    pub(super) fn take(&self, path: &str, ids: &[String], reused: bool) -> RequestFaults {
        let mut state = self.state();
        let mut faults = RequestFaults::default();
        for fault in state.faults.iter_mut().filter(|fault| fault.is_for(path, ids, reused)) {
            if !fault.is_delay() && faults.effect.is_some() {
                continue;
            }
            fault.times = fault.times.map(|times| times.saturating_sub(1));
            match &fault.effect {
                Effect::Delay(time) => faults.delay = faults.delay.saturating_add(*time),
                Effect::Jitter(most) => {
                    let time = most.mul_f64(rand::random_range(0.0..=1.0));
                    faults.delay = faults.delay.saturating_add(time);
                }
                effect => faults.effect = Some(effect.clone()),
            }
        }
        state.faults.retain(|fault| fault.times != Some(0));
        faults
    }
}

tokio::task_local! {
    static RESPONSE_IDS: Vec<String>;
}

/// Runs the vendor's routes so that their response has elements for these jobs.
pub(super) async fn responding_for<F: Future>(ids: Vec<String>, routes: F) -> F::Output {
    RESPONSE_IDS.scope(ids, routes).await
}

/// The jobs that a response has elements for: those of the request, unless a fault
/// changes them.
pub(super) fn response_ids(requested: Vec<String>) -> Vec<String> {
    RESPONSE_IDS.try_with(Clone::clone).unwrap_or(requested)
}

/// The same where a response is about one job.
pub(super) fn response_id(requested: String) -> String {
    response_ids(vec![requested]).into_iter().next().unwrap_or_default()
}
