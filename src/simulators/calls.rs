//! The log of the requests that a simulator received.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use http::{HeaderMap, Method, header::AUTHORIZATION};
use jiff::Timestamp;
use serde::{Serialize, Serializer};
use tokio::{sync::Notify, time::Instant};

/// Most calls in the log; the oldest are dropped.
const MAX_CALLS: usize = 100_000;

/// One request that arrived.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    /// Counts all calls from 1.
    pub number: u64,
    /// When it arrived.
    #[serde(skip)]
    pub at: Instant,
    /// When it arrived, by the wall clock.
    #[serde(serialize_with = "as_text")]
    pub time: Timestamp,
    /// HTTP method.
    pub method: String,
    /// Path of the request, without the query.
    pub path: String,
    /// Ids of the jobs that the request lists, or their tags where it has no id.
    pub job_ids: Vec<String>,
    /// Kind of the credentials; never the secret.
    pub authorization: Authorization,
    /// Status of the response; `None` until there is one.
    pub status: Option<u16>,
    /// How long the response took.
    pub answered_after: Option<Duration>,
}

fn as_text<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(time)
}

/// The kind of an `Authorization` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Authorization {
    /// There is none.
    None,
    /// One word, with no scheme.
    Raw,
    /// HTTP Basic.
    Basic,
    /// A bearer token.
    Bearer,
    /// Something else.
    Other,
}

impl Authorization {
    fn of(headers: &HeaderMap) -> Self {
        let Some(value) = headers.get(AUTHORIZATION) else { return Self::None };
        let scheme = value.to_str().ok().map(|text| text.split_once(' '));
        match scheme {
            Some(None) => Self::Raw,
            Some(Some((scheme, _))) if scheme.eq_ignore_ascii_case("bearer") => Self::Bearer,
            Some(Some((scheme, _))) if scheme.eq_ignore_ascii_case("basic") => Self::Basic,
            _ => Self::Other,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct CallLog {
    entries: Mutex<Entries>,
    grown: Notify,
}

#[derive(Debug, Default)]
struct Entries {
    calls: VecDeque<Call>,
    last: u64,
}

impl CallLog {
    /// Notes an arrival; the number finds the call again.
    pub(super) fn arrived(&self, method: &Method, path: &str, ids: Vec<String>, headers: &HeaderMap) -> u64 {
        let number = {
            let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            entries.last += 1;
            let number = entries.last;
            if entries.calls.len() == MAX_CALLS {
                entries.calls.pop_front();
            }
            entries.calls.push_back(Call {
                number,
                at: Instant::now(),
                time: Timestamp::now(),
                method: method.to_string(),
                path: path.to_owned(),
                job_ids: ids,
                authorization: Authorization::of(headers),
                status: None,
                answered_after: None,
            });
            number
        };
        self.grown.notify_waiters();
        number
    }

    pub(super) fn responded(&self, number: u64, status: u16) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let found = entries.calls.binary_search_by_key(&number, |call| call.number);
        if let Some(call) = found.ok().and_then(|index| entries.calls.get_mut(index)) {
            call.status = Some(status);
            call.answered_after = Some(call.at.elapsed());
        }
        drop(entries);
        self.grown.notify_waiters();
    }

    pub(super) fn all(&self) -> Vec<Call> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.calls.iter().cloned().collect()
    }

    pub(super) fn count(&self, wanted: impl Fn(&Call) -> bool) -> usize {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.calls.iter().filter(|call| wanted(call)).count()
    }

    pub(super) fn clear(&self) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).calls.clear();
    }

    /// Returns once at least `count` of the logged calls are wanted ones.
    pub(super) async fn wait_for(&self, count: usize, wanted: impl Fn(&Call) -> bool) {
        loop {
            let grown = self.grown.notified();
            tokio::pin!(grown);
            // Before the count, so that a call in between is not missed.
            grown.as_mut().enable();
            if self.count(&wanted) >= count {
                return;
            }
            grown.await;
        }
    }
}
