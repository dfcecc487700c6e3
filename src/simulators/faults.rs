//! What a simulator does wrong on demand.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::plan::millis;

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
/// others the one that was injected first.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Effect {
    /// This answer instead of the vendor's.
    Status(Answer),
    /// The vendor's answer comes this much later.
    Delay(#[serde(deserialize_with = "millis")] Duration),
    /// No answer ever comes; the connection stays open.
    Hang,
    /// The connection is reset without an answer.
    Reset,
    /// The body ends after so many bytes of the announced length.
    Truncate(usize),
    /// 204 without a body.
    Empty204,
    /// A page in HTML with this status.
    Html(u16),
    /// 302 to this location.
    Redirect(String),
    /// The vendor's answer under this content type.
    WrongContentType(String),
    /// A body of so many bytes that looks like JSON at first; without a number it
    /// never ends.
    HugeBody(Option<u64>),
    /// The vendor refuses the request with this message, in its own form.
    Refuse(String),
    /// A GraphQL error (Datasaur).
    #[serde(rename = "graphql_error")]
    GraphQlError(GraphQlError),
    /// The vendor ignores a Range header.
    IgnoreRange,
}

/// An answer of one's own.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// HTTP status.
    pub code: u16,
    /// The body.
    #[serde(default)]
    pub body: String,
    /// Its type.
    #[serde(default = "json_type")]
    pub content_type: String,
    /// More headers, such as Retry-After.
    #[serde(default)]
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

impl Effect {
    /// An answer with this status and JSON body.
    pub fn status(code: u16, body: impl Into<String>) -> Self {
        let body = body.into();
        Self::Status(Answer { code, body, content_type: json_type(), headers: BTreeMap::new() })
    }

    /// An answer with this status, an empty JSON object and Retry-After.
    pub fn retry_after(code: u16, seconds: u32) -> Self {
        let headers = BTreeMap::from([("retry-after".to_owned(), seconds.to_string())]);
        Self::Status(Answer { code, body: "{}".to_owned(), content_type: json_type(), headers })
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

    fn is_for(&self, path: &str, ids: &[String]) -> bool {
        self.times != Some(0)
            && self.path.as_ref().is_none_or(|wanted| path.contains(wanted.as_str()))
            && self.job_id.as_ref().is_none_or(|wanted| ids.contains(wanted))
    }

    fn is_delay(&self) -> bool {
        matches!(self.effect, Effect::Delay(_))
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

    /// What happens to this request; uses the faults up.
    pub(super) fn take(&self, path: &str, ids: &[String]) -> Mishap {
        let mut state = self.state();
        let mut mishap = Mishap::default();
        for fault in state.faults.iter_mut().filter(|fault| fault.is_for(path, ids)) {
            if !fault.is_delay() && mishap.effect.is_some() {
                continue;
            }
            fault.times = fault.times.map(|times| times.saturating_sub(1));
            match &fault.effect {
                Effect::Delay(time) => mishap.delay = mishap.delay.saturating_add(*time),
                effect => mishap.effect = Some(effect.clone()),
            }
        }
        state.faults.retain(|fault| fault.times != Some(0));
        mishap
    }
}
