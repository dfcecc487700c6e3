//! Calls by method, code and principal.

use std::{
    array,
    collections::HashMap,
    sync::{Arc, OnceLock, PoisonError, RwLock},
    time::Duration,
};

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use tokio::time::Instant;

/// Methods of the services; calls of others count as the last.
pub const METHODS: [&str; 13] = [
    "GetJobStatus",
    "BatchGetStatuses",
    "WatchJob",
    "WatchJobs",
    "DownloadArtifact",
    "ListBackends",
    "ListJobs",
    "GetOperation",
    "WaitOperation",
    "ListOperations",
    "CancelOperation",
    "DeleteOperation",
    "other",
];

/// Codes of gRPC, by their numbers.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Number of the code of a call whose client has left.
const CANCELLED: usize = 1;
const UNKNOWN: usize = 2;

/// Most principals that are counted by their names. Further ones are counted together as
/// "other".
pub const PRINCIPALS: usize = 100;

/// The principal of callers that are not identified.
const NONE: &str = "none";

/// Counts calls.
#[derive(Debug)]
pub(super) struct Calls {
    ended: IntCounterVec,
    methods: [Method; METHODS.len()],
    unidentified: Arc<Principal>,
    principals: RwLock<HashMap<Arc<str>, Arc<Principal>>>,
    other: OnceLock<Arc<Principal>>,
}

#[derive(Debug)]
struct Method {
    seconds: Histogram,
    in_flight: IntGauge,
}

/// The counters of one principal, each resolved when it is needed first.
#[derive(Debug)]
struct Principal {
    name: Arc<str>,
    ended: [[OnceLock<IntCounter>; CODES.len()]; METHODS.len()],
}

/// A call until its end. One that is dropped without an end was cancelled by its client.
#[derive(Debug)]
pub struct ActiveCall<'a> {
    calls: &'a Calls,
    method: usize,
    began: Instant,
    principal: Option<Arc<Principal>>,
    has_ended: bool,
}

impl Calls {
    pub(super) fn new(ended: IntCounterVec, seconds: &HistogramVec, in_flight: &IntGaugeVec) -> Self {
        let methods = METHODS.map(|method| Method {
            seconds: seconds.with_label_values(&[method]),
            in_flight: in_flight.with_label_values(&[method]),
        });
        let unidentified = Principal::new(NONE.into());
        Self { ended, methods, unidentified, principals: RwLock::default(), other: OnceLock::new() }
    }

    pub(super) fn begin(&self, method: &str) -> ActiveCall<'_> {
        let method = METHODS.iter().position(|known| *known == method).unwrap_or(METHODS.len() - 1);
        self.methods[method].in_flight.inc();
        ActiveCall { calls: self, method, began: Instant::now(), principal: None, has_ended: false }
    }

    fn principal(&self, name: &str) -> Arc<Principal> {
        if let Some(known) = self.principals.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Arc::clone(known);
        }
        let mut principals = self.principals.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = principals.get(name) {
            return Arc::clone(known);
        }
        if principals.len() >= PRINCIPALS {
            return Arc::clone(self.other.get_or_init(|| Principal::new("other".into())));
        }
        let principal = Principal::new(name.into());
        principals.insert(Arc::clone(&principal.name), Arc::clone(&principal));
        principal
    }

    fn ended(&self, principal: &Principal, method: usize, code: usize) -> &IntCounterVec {
        let counter = &principal.ended[method][code];
        let labels = || [METHODS[method], CODES[code], &*principal.name];
        counter.get_or_init(|| self.ended.with_label_values(&labels())).inc();
        &self.ended
    }
}

impl Principal {
    fn new(name: Arc<str>) -> Arc<Self> {
        Arc::new(Self { name, ended: array::from_fn(|_| array::from_fn(|_| OnceLock::new())) })
    }
}

impl ActiveCall<'_> {
    /// The caller's name is known now.
    pub fn identified(&mut self, name: &str) {
        self.principal = Some(self.calls.principal(name));
    }

    /// The name of the method.
    pub fn method(&self) -> &'static str {
        METHODS[self.method]
    }

    /// Since the call began.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// The name of the code with this number.
    pub fn code_name(code: i32) -> &'static str {
        usize::try_from(code).ok().and_then(|code| CODES.get(code)).unwrap_or(&CODES[UNKNOWN])
    }

    /// The call has ended with the code of this number. Counts once.
    pub fn end(&mut self, code: i32) {
        if std::mem::replace(&mut self.has_ended, true) {
            return;
        }
        let code = usize::try_from(code).ok().filter(|code| *code < CODES.len()).unwrap_or(UNKNOWN);
        let method = &self.calls.methods[self.method];
        method.in_flight.dec();
        method.seconds.observe(self.began.elapsed().as_secs_f64());
        let principal = self.principal.as_ref().unwrap_or(&self.calls.unidentified);
        self.calls.ended(principal, self.method, code);
    }
}

impl Drop for ActiveCall<'_> {
    fn drop(&mut self) {
        self.end(i32::try_from(CANCELLED).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{HistogramOpts, Opts};

    use super::*;

    fn calls() -> Calls {
        Calls::new(
            IntCounterVec::new(Opts::new("a", "a"), &["method", "code", "principal"]).unwrap(),
            &HistogramVec::new(HistogramOpts::new("b", "b"), &["method"]).unwrap(),
            &IntGaugeVec::new(Opts::new("c", "c"), &["method"]).unwrap(),
        )
    }

    fn count(calls: &Calls, labels: [&str; 3]) -> u64 {
        calls.ended.with_label_values(&labels).get()
    }

    #[test]
    fn call_is_counted_once_by_method_code_and_principal() {
        let calls = calls();
        let mut call = calls.begin("GetJobStatus");
        call.identified("token:ci");
        assert_eq!(calls.methods[0].in_flight.get(), 1);
        call.end(5);
        call.end(0);
        drop(call);
        assert_eq!(count(&calls, ["GetJobStatus", "NOT_FOUND", "token:ci"]), 1);
        assert_eq!(count(&calls, ["GetJobStatus", "OK", "token:ci"]), 0);
        assert_eq!((calls.methods[0].in_flight.get(), calls.methods[0].seconds.get_sample_count()), (0, 1));
    }

    #[test]
    fn dropped_call_is_cancelled_and_unknown_names_have_their_place() {
        let calls = calls();
        drop(calls.begin("WatchJob"));
        calls.begin("NoSuchMethod").end(99);
        assert_eq!(count(&calls, ["WatchJob", "CANCELLED", "none"]), 1);
        assert_eq!(count(&calls, ["other", "UNKNOWN", "none"]), 1);
    }

    #[test]
    fn principals_beyond_the_bound_are_counted_together() {
        let calls = calls();
        for number in 0..PRINCIPALS + 20 {
            let mut call = calls.begin("GetJobStatus");
            call.identified(&format!("jwt:{number}"));
            call.end(0);
        }
        assert_eq!(count(&calls, ["GetJobStatus", "OK", "jwt:99"]), 1);
        assert_eq!(count(&calls, ["GetJobStatus", "OK", "other"]), 20);
        assert_eq!(calls.principals.read().unwrap().len(), PRINCIPALS);
    }
}
