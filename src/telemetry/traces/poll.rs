//! Spans of polls.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, Method, Request, StatusCode, Uri};
use opentelemetry::{
    KeyValue,
    trace::{SpanContext, SpanId, SpanKind, Status, TraceState},
};
use opentelemetry_sdk::trace::IdGenerator;
use tokio::time::Instant;

use super::{Began, Links, SpanEnd, Tracer, Waiter, context};

tokio::task_local! {
    /// The poll that the task sends requests for.
    static POLL: PollSpan;
}

/// The outcome of a poll that nothing else has ended.
const CANCELLED: &str = "cancelled";

/// The span of a poll, until it ends.
#[derive(Clone, Debug)]
pub struct PollSpan(Arc<Poll>);

#[derive(Debug)]
struct Poll {
    tracer: Tracer,
    context: SpanContext,
    backend: Arc<str>,
    jobs: usize,
    began: Began,
    /// `None` after its end.
    open: Mutex<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    /// By the ratio, or since a call that is sampled is served.
    is_sampled: bool,
    calls: Links,
    requests: i64,
    /// Of the last request.
    exchange: Option<Exchange>,
}

/// A request for a poll. Of its URL it holds neither path nor user.
#[derive(Debug)]
struct Exchange {
    method: Method,
    host: String,
    port: Option<u16>,
    status: Option<StatusCode>,
}

/// Ends a poll's span when it is dropped, as cancelled unless it has ended before.
#[derive(Debug)]
pub struct ActivePoll(PollSpan);

impl Tracer {
    /// A poll of this many jobs begins: the root of a trace.
    pub fn begin_poll(&self, backend: &Arc<str>, jobs: usize) -> ActivePoll {
        let trace = self.0.ids.new_trace_id();
        let open = Open {
            is_sampled: self.samples_root(trace),
            calls: Links::default(),
            requests: 0,
            exchange: None,
        };
        ActivePoll(PollSpan(Arc::new(Poll {
            tracer: self.clone(),
            context: self.new_span(trace, TraceState::NONE),
            backend: Arc::clone(backend),
            jobs,
            began: Began::now(),
            open: Mutex::new(Some(open)),
        })))
    }
}

impl ActivePoll {
    /// The span, for those who join the poll.
    pub fn span(&self) -> &PollSpan {
        &self.0
    }

    /// The poll has ended: "ok" or the reason of the fault. Only the first end counts.
    pub fn end(&self, outcome: &'static str, subscribers: usize) {
        let PollSpan(poll) = &self.0;
        let Some(open) = self.0.open().take().filter(|open| open.is_sampled) else { return };
        let Open { calls, requests, exchange, .. } = open;
        let is_failure = !matches!(outcome, "ok" | CANCELLED);
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let mut attributes = vec![
            KeyValue::new("jobwatch.backend", Arc::clone(&poll.backend)),
            KeyValue::new("jobwatch.poll.jobs", count(poll.jobs)),
            KeyValue::new("jobwatch.poll.subscribers", count(subscribers)),
            KeyValue::new("jobwatch.poll.outcome", outcome),
            KeyValue::new("jobwatch.poll.requests", requests),
        ];
        if let Some(Exchange { method, host, port, status }) = exchange {
            attributes.push(KeyValue::new("http.request.method", method.to_string()));
            attributes.push(KeyValue::new("server.address", host));
            attributes.extend(port.map(|port| KeyValue::new("server.port", i64::from(port))));
            attributes.extend(
                status.map(|status| KeyValue::new("http.response.status_code", i64::from(status.as_u16()))),
            );
        }
        if is_failure {
            attributes.push(KeyValue::new("error.type", outcome));
        }
        poll.tracer.export(SpanEnd {
            name: "poll".into(),
            kind: SpanKind::Client,
            context: poll.context.clone(),
            parent: SpanId::INVALID,
            has_remote_parent: false,
            began: poll.began.time,
            ended: poll.began.ends(),
            attributes,
            links: calls,
            status: if is_failure { Status::error("") } else { Status::Unset },
        });
    }
}

impl Drop for ActivePoll {
    fn drop(&mut self) {
        self.end(CANCELLED, 0);
    }
}

impl PollSpan {
    /// The poll serves a call, which has waited since `since`, or joins it now.
    pub fn serves(&self, waiter: &Waiter, since: Option<Instant>) {
        let mut open = self.open();
        if let Some(open) = open.as_mut()
            && waiter.served_by(&self.0.context, &self.0.backend, since)
        {
            open.is_sampled = true;
            open.calls.add(waiter.context());
        }
    }

    /// What `future` sends is for this poll.
    pub fn scope<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        POLL.scope(self.clone(), future)
    }

    fn open(&self) -> MutexGuard<'_, Option<Open>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does this where the task sends requests for a poll that has a span.
fn with_open(work: impl FnOnce(&mut Open)) {
    let _ = POLL.try_with(|poll| poll.open().as_mut().map(work));
}

/// A request is sent, for the task's poll if it has one.
pub fn http_request<B>(request: &Request<B>) {
    with_open(|open| {
        let uri: &Uri = request.uri();
        open.requests += 1;
        open.exchange = Some(Exchange {
            method: request.method().clone(),
            host: uri.host().unwrap_or_default().to_owned(),
            port: uri.port_u16().or(match uri.scheme_str() {
                Some("https") => Some(443),
                Some("http") => Some(80),
                _ => None,
            }),
            status: None,
        });
    });
}

/// The head of the response to the last request has come.
pub fn http_response(status: StatusCode) {
    with_open(|open| {
        if let Some(exchange) = &mut open.exchange {
            exchange.status = Some(status);
        }
    });
}

/// Adds the context of the task's poll to a request, if vendors are sent it.
pub fn traceparent(headers: &mut HeaderMap) {
    let header = POLL.try_with(|poll| {
        let PollSpan(shared) = poll;
        let is_sampled = poll.open().as_ref().is_some_and(|open| open.is_sampled);
        let propagates = shared.tracer.0.sampling.propagate;
        propagates.then(|| context::traceparent(&shared.context, is_sampled))
    });
    if let Ok(Some(value)) = header {
        headers.insert(&context::TRACEPARENT, value);
    }
}
