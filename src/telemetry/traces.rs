//! Traces: spans of calls, of their waits, and of polls, exported by OTLP.
//!
//! ```text
//! caller's span ──> call ──> queue wait ··link··> poll <··link·· queue wait <── call
//! ```
//!
//! A call's span continues the caller's trace. A poll serves many calls, so it is the root
//! of a trace of its own, with a link to each call that it serves; each of them, and its
//! queue wait, has a link to the poll.
//!
//! A span is built when it ends, and put into a bounded [queue](export) that a task empties.
//! Nothing waits for that task: a span for which there is no room is dropped and counted.
//! Without a [`Tracer`] nothing of this exists. The engine and the transport know the types
//! here, and nothing of OpenTelemetry.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use opentelemetry::{
    InstrumentationScope, KeyValue,
    trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_sdk::trace::{
    IdGenerator, RandomIdGenerator, Sampler, SamplingDecision, ShouldSample, SpanData, SpanEvents, SpanLinks,
};
use prometheus::IntCounter;
use tokio::{sync::mpsc, time::Instant};

use super::metrics::metrics;

mod call;
mod context;
mod export;
mod grpc;
mod poll;
#[cfg(test)]
mod tests;

pub use call::{CallSpan, Waiter};
pub use export::{Collector, ExportError, Exporter, Resource};
pub use grpc::{GrpcCollector, GrpcSettings};
pub use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
pub use poll::{ActivePoll, PollSpan, http_request, http_response, traceparent};

/// Most links of one span, which is OpenTelemetry's own limit. Those beyond are counted in
/// the span.
const LINKS: usize = 128;

/// Which traces are sampled, and where their contexts go.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    /// Share of the traces that begin here, 0 to 1.
    pub ratio: f64,
    /// Whether a caller's decision holds for its calls.
    pub parent_based: bool,
    /// Whether vendors are sent the context of polls.
    pub propagate: bool,
}

/// Begins spans.
#[derive(Clone, Debug)]
pub struct Tracer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    sampling: Sampling,
    ratio: Sampler,
    ids: RandomIdGenerator,
    queue: mpsc::Sender<SpanData>,
    queue_full: IntCounter,
    scope: InstrumentationScope,
}

/// When a span began.
#[derive(Clone, Copy, Debug)]
struct Began {
    time: SystemTime,
    at: Instant,
}

impl Began {
    fn now() -> Self {
        Self { time: SystemTime::now(), at: Instant::now() }
    }

    /// By the clock that never goes back.
    fn ends(self) -> SystemTime {
        self.time + self.at.elapsed()
    }
}

/// The links of a span that has not ended.
#[derive(Debug, Default)]
struct Links {
    contexts: Vec<SpanContext>,
    dropped: u32,
}

impl Links {
    /// Adds a link, once. Returns whether it is new and there was room for it.
    fn add(&mut self, context: &SpanContext) -> bool {
        if self.contexts.iter().any(|known| known.span_id() == context.span_id()) {
            return false;
        }
        let has_room = self.contexts.len() < LINKS;
        if has_room {
            // Without the caller's tracestate, which is for its own trace.
            self.contexts.push(SpanContext::new(
                context.trace_id(),
                context.span_id(),
                TraceFlags::SAMPLED,
                context.is_remote(),
                TraceState::NONE,
            ));
        } else {
            self.dropped = self.dropped.saturating_add(1);
        }
        has_room
    }
}

impl From<Links> for SpanLinks {
    fn from(Links { contexts, dropped }: Links) -> Self {
        let mut links = Self::default();
        links.links = contexts.into_iter().map(Link::with_context).collect();
        links.dropped_count = dropped;
        links
    }
}

/// A span that has ended, but for what its tracer adds.
struct SpanEnd {
    name: std::borrow::Cow<'static, str>,
    kind: SpanKind,
    context: SpanContext,
    /// Invalid for the root of a trace.
    parent: SpanId,
    has_remote_parent: bool,
    began: SystemTime,
    ended: SystemTime,
    attributes: Vec<KeyValue>,
    links: Links,
    status: Status,
}

impl Tracer {
    fn new(sampling: Sampling, queue: mpsc::Sender<SpanData>) -> Self {
        Self(Arc::new(Shared {
            sampling,
            ratio: Sampler::TraceIdRatioBased(sampling.ratio),
            ids: RandomIdGenerator::default(),
            queue,
            queue_full: metrics().spans("queue_full"),
            scope: InstrumentationScope::builder("jobwatch").with_version(super::build::VERSION).build(),
        }))
    }

    /// Whether a trace that begins here is sampled.
    fn samples_root(&self, trace: TraceId) -> bool {
        let result = self.0.ratio.should_sample(None, trace, "", &SpanKind::Internal, &[], &[]);
        result.decision == SamplingDecision::RecordAndSample
    }

    fn new_span(&self, trace: TraceId, state: TraceState) -> SpanContext {
        SpanContext::new(trace, self.0.ids.new_span_id(), TraceFlags::SAMPLED, false, state)
    }

    /// Queues a span for the export, or drops it.
    fn export(&self, span: SpanEnd) {
        let SpanEnd {
            name,
            kind,
            context,
            parent,
            has_remote_parent,
            began,
            ended,
            attributes,
            links,
            status,
        } = span;
        let span = SpanData {
            span_context: context,
            parent_span_id: parent,
            parent_span_is_remote: has_remote_parent,
            span_kind: kind,
            name,
            start_time: began,
            end_time: ended.max(began),
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: links.into(),
            status,
            instrumentation_scope: self.0.scope.clone(),
        };
        if self.0.queue.try_send(span).is_err() {
            self.0.queue_full.inc();
        }
    }
}

/// The time so long ago.
fn before(now: SystemTime, wait: Duration) -> SystemTime {
    now.checked_sub(wait).unwrap_or(now)
}
