//! Spans of calls, and of what they wait for.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use http::HeaderMap;
use opentelemetry::{
    KeyValue,
    trace::{SpanContext, SpanId, SpanKind, Status, TraceState},
};
use opentelemetry_sdk::trace::IdGenerator;
use tokio::time::Instant;

use super::{Began, Links, SpanEnd, Tracer, before, context};

tokio::task_local! {
    /// The call that the task works for.
    static CALL: CallSpan;
}

/// Numbers of the codes of gRPC that are errors of a server:
/// <https://opentelemetry.io/docs/specs/semconv/rpc/grpc/>.
const SERVER_ERRORS: [i32; 6] = [2, 4, 12, 13, 14, 15];

/// The span of a call that is sampled.
#[derive(Clone, Debug)]
pub struct CallSpan(Arc<Call>);

#[derive(Debug)]
struct Call {
    tracer: Tracer,
    context: SpanContext,
    /// Invalid where the caller has no trace.
    parent: SpanId,
    began: Began,
    /// The polls that served it. `None` after its end.
    polls: Mutex<Option<Links>>,
}

impl Tracer {
    /// A call begins with these headers. `None` if it is not sampled.
    pub fn begin_call(&self, headers: &HeaderMap) -> Option<CallSpan> {
        let parent = context::parent(headers);
        let parent = parent.as_ref();
        let trace = parent.map_or_else(|| self.0.ids.new_trace_id(), SpanContext::trace_id);
        let decision = parent.filter(|_| self.0.sampling.parent_based).map(SpanContext::is_sampled);
        if !decision.unwrap_or_else(|| self.samples_root(trace)) {
            return None;
        }
        let state = parent.map_or(TraceState::NONE, |parent| parent.trace_state().clone());
        Some(CallSpan(Arc::new(Call {
            tracer: self.clone(),
            context: self.new_span(trace, state),
            parent: parent.map_or(SpanId::INVALID, SpanContext::span_id),
            began: Began::now(),
            polls: Mutex::new(Some(Links::default())),
        })))
    }
}

impl CallSpan {
    /// The trace's id, 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        self.0.context.trace_id().to_string()
    }

    /// Works for this call until `future` ends.
    pub fn scope<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        CALL.scope(self.clone(), future)
    }

    /// Works for this call until `work` returns.
    pub fn enter<T>(&self, work: impl FnOnce() -> T) -> T {
        CALL.sync_scope(self.clone(), work)
    }

    /// The call has ended with a code of gRPC. Only the first end counts.
    pub fn end(&self, service: &'static str, method: &'static str, code: i32) {
        let Some(polls) = self.polls().take() else { return };
        let Call { tracer, context, parent, began, .. } = &*self.0;
        let is_error = SERVER_ERRORS.contains(&code);
        tracer.export(SpanEnd {
            name: format!("{service}/{method}").into(),
            kind: SpanKind::Server,
            context: context.clone(),
            parent: *parent,
            has_remote_parent: *parent != SpanId::INVALID,
            began: began.time,
            ended: began.ends(),
            attributes: vec![
                KeyValue::new("rpc.system", "grpc"),
                KeyValue::new("rpc.service", service),
                KeyValue::new("rpc.method", method),
                KeyValue::new("rpc.grpc.status_code", i64::from(code)),
            ],
            links: polls,
            status: if is_error { Status::error("") } else { Status::Unset },
        });
    }

    pub(super) fn context(&self) -> &SpanContext {
        &self.0.context
    }

    fn polls(&self) -> std::sync::MutexGuard<'_, Option<Links>> {
        self.0.polls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A poll serves the call. Returns whether it is new and there was room for its link.
    fn served_by(&self, poll: &SpanContext) -> bool {
        self.polls().as_mut().is_some_and(|polls| polls.add(poll))
    }
}

/// What waits for polls: a call with the time from which it waits.
#[derive(Clone, Debug)]
pub struct Waiter {
    call: CallSpan,
    since: Instant,
}

impl Waiter {
    /// The call that the task works for, waiting from now on. `None` where none is sampled.
    pub fn current() -> Option<Box<Self>> {
        CALL.try_with(|call| Box::new(Self { call: call.clone(), since: Instant::now() })).ok()
    }

    /// The poll begins that the call has waited for: since `since`, or since it is a waiter
    /// if that was later. `None` if it joins a poll that has begun. Returns whether the
    /// poll has to be linked with the call.
    pub(super) fn served_by(&self, poll: &SpanContext, backend: &str, since: Option<Instant>) -> bool {
        if !self.call.served_by(poll) {
            return false;
        }
        if let Some(since) = since {
            self.waited(poll, backend, since.max(self.since));
        }
        true
    }

    fn waited(&self, poll: &SpanContext, backend: &str, since: Instant) {
        let Call { tracer, context, .. } = &*self.call.0;
        let now = SystemTime::now();
        let mut links = Links::default();
        links.add(poll);
        tracer.export(SpanEnd {
            name: "queue wait".into(),
            kind: SpanKind::Internal,
            context: tracer.new_span(context.trace_id(), context.trace_state().clone()),
            parent: context.span_id(),
            has_remote_parent: false,
            began: before(now, since.elapsed()),
            ended: now,
            attributes: vec![KeyValue::new("jobwatch.backend", backend.to_owned())],
            links,
            status: Status::Unset,
        });
    }

    pub(super) fn context(&self) -> &SpanContext {
        self.call.context()
    }
}
