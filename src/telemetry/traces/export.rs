//! The queue of spans, and the task that exports them.
//!
//! ```text
//! span ──try_send──> queue ──batches──> request ──> collector
//!          │ full                          │ refused: dropped
//!          └─> dropped                     └ unavailable: sent again after a back-off
//! ```
//!
//! While the collector is unavailable one batch is sent again and again, and the queue fills
//! up; then new spans are dropped. All that is dropped is counted. The log has one line when
//! exports begin to fail, and one when they work again.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use opentelemetry::KeyValue;
use opentelemetry_proto::{
    tonic::collector::trace::v1::ExportTraceServiceRequest,
    transform::{
        common::tonic::ResourceAttributesWithSchema, trace::tonic::group_spans_by_resource_and_scope,
    },
};
use opentelemetry_sdk::{resource::TelemetryResourceDetector, trace::SpanData};
use prometheus::IntCounter;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{info, warn};

use super::{Sampling, Tracer};
use crate::telemetry::metrics::metrics;

/// Most spans that wait. One with as many links as it may have takes 12 KiB, most take less
/// than one.
const QUEUE: usize = 2048;

/// Most spans of one request.
const BATCH: usize = 512;

/// How long a span waits for others to share its request.
const INTERVAL: Duration = Duration::from_secs(1);

/// Bounds of the wait before a request is sent again.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Longest wait that a collector may ask for, as for vendors.
const LONGEST_WAIT: Duration = Duration::from_hours(1);

/// Where spans are sent.
pub trait Collector: Send + Sync + 'static {
    /// Sends spans. Returns how many of them the collector has refused.
    ///
    /// # Errors
    /// Why the collector has taken none of them.
    fn export<'a>(
        &'a self,
        request: &'a ExportTraceServiceRequest,
    ) -> BoxFuture<'a, Result<u64, ExportError>>;
}

/// Why no span of a request was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportError {
    /// For the log: neither a URL nor anything that the collector has written.
    pub why: String,
    /// Whether the same request may be taken later.
    pub is_temporary: bool,
    /// How long the collector asks to wait.
    pub retry_after: Option<Duration>,
}

/// What the spans are about: name and value of each attribute.
#[derive(Clone, Debug, Default)]
pub struct Resource(Vec<(String, String)>);

impl Resource {
    /// The service of this name, and attributes, which come before the process's own.
    pub fn new(service_name: &str, attributes: impl IntoIterator<Item = (String, String)>) -> Self {
        let instance = uuid::Uuid::new_v4().to_string();
        let mut all: Vec<(String, String)> = [
            ("service.name", service_name),
            ("service.version", crate::telemetry::build::VERSION),
            ("service.instance.id", &instance),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        for (name, value) in attributes {
            all.retain(|(known, _)| *known != name);
            all.push((name, value));
        }
        Self(all)
    }
}

/// Counters of what became of spans.
#[derive(Debug)]
struct Counters {
    exported: IntCounter,
    refused: IntCounter,
    shutdown: IntCounter,
}

/// The task that exports spans; ends with this.
#[derive(Debug)]
pub struct Exporter {
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl Exporter {
    /// Starts the task. A request that takes longer than `timeout` has failed.
    pub fn start(
        sampling: Sampling,
        resource: Resource,
        timeout: Duration,
        collector: Arc<dyn Collector>,
    ) -> (Tracer, Self) {
        let (sender, spans) = mpsc::channel(QUEUE);
        let stop = CancellationToken::new();
        let attributes = resource.0.into_iter().map(|(name, value)| KeyValue::new(name, value));
        let resource = opentelemetry_sdk::Resource::builder_empty()
            .with_detector(Box::new(TelemetryResourceDetector))
            .with_attributes(attributes)
            .build();
        let [exported, refused, shutdown] =
            ["exported", "refused", "shutdown"].map(|outcome| metrics().spans(outcome));
        let worker = Worker {
            spans,
            collector,
            resource: (&resource).into(),
            timeout,
            stop: stop.clone(),
            failing_since: None,
            counters: Counters { exported, refused, shutdown },
        };
        let task = AbortOnDropHandle::new(tokio::spawn(worker.run()));
        (Tracer::new(sampling, sender), Self { stop, task })
    }

    /// Exports what is queued, for at most this time.
    pub async fn shut_down(self, at_most: Duration) {
        self.stop.cancel();
        if timeout(at_most, self.task).await.is_err() {
            warn!(after_ms = at_most.as_millis(), "traces were not exported in time at shutdown");
        }
    }
}

struct Worker {
    spans: mpsc::Receiver<SpanData>,
    collector: Arc<dyn Collector>,
    resource: ResourceAttributesWithSchema,
    timeout: Duration,
    stop: CancellationToken,
    failing_since: Option<Instant>,
    counters: Counters,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

impl Worker {
    async fn run(mut self) {
        let stop = self.stop.clone();
        let mut batch = Vec::with_capacity(BATCH);
        while !stop.is_cancelled() {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = fill(&mut self.spans, &mut batch) => {}
            }
            // At the shutdown what has been taken out goes first.
            if !batch.is_empty() {
                self.deliver(&mut batch).await;
            }
        }
        self.spans.close();
        while self.spans.recv_many(&mut batch, BATCH).await > 0 {
            self.deliver(&mut batch).await;
        }
    }

    /// Sends a batch until it is taken or refused; once the process stops, at most once.
    async fn deliver(&mut self, batch: &mut Vec<SpanData>) {
        let spans = batch.len() as u64;
        let resource_spans = group_spans_by_resource_and_scope(std::mem::take(batch), &self.resource);
        let request = ExportTraceServiceRequest { resource_spans };
        let mut failures = 0;
        loop {
            let is_last = self.stop.is_cancelled();
            let exported = timeout(self.timeout, self.collector.export(&request)).await;
            let error = match exported.unwrap_or_else(|_| Err(ExportError::timed_out(self.timeout))) {
                Ok(refused) => {
                    let refused = refused.min(spans);
                    self.counters.refused.inc_by(refused);
                    self.counters.exported.inc_by(spans - refused);
                    self.log_success();
                    return;
                }
                Err(error) => error,
            };
            self.log_failure(&error);
            if !error.is_temporary {
                self.counters.refused.inc_by(spans);
                return;
            }
            if is_last {
                self.counters.shutdown.inc_by(spans);
                return;
            }
            failures += 1;
            let wait = backoff(failures, rand::random()).max(requested_wait(&error));
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = sleep(wait) => {}
            }
        }
    }

    fn log_failure(&mut self, error: &ExportError) {
        if self.failing_since.is_none() {
            self.failing_since = Some(Instant::now());
            warn!(reason = error.why, "trace export failed");
        }
    }

    fn log_success(&mut self) {
        if let Some(since) = self.failing_since.take() {
            let down_for_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            info!(down_for_ms, "trace export works again");
        }
    }
}

/// Takes spans out of the queue: the first, and those that come soon after it.
async fn fill(spans: &mut mpsc::Receiver<SpanData>, batch: &mut Vec<SpanData>) {
    if spans.recv_many(batch, BATCH).await == 0 {
        // Every tracer is gone: there will be no span.
        return std::future::pending().await;
    }
    let full_at = Instant::now() + INTERVAL;
    while batch.len() < BATCH {
        let room = BATCH - batch.len();
        if !matches!(timeout_at(full_at, spans.recv_many(batch, room)).await, Ok(1..)) {
            return;
        }
    }
}

/// The wait after so many failures in a row, with jitter; `dice` is from 0 to 1.
fn backoff(failures: u32, dice: f64) -> Duration {
    let (shortest, longest) = BACKOFF;
    let full = shortest.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(longest);
    full.mul_f64(0.5 + dice / 2.0)
}

fn requested_wait(error: &ExportError) -> Duration {
    error.retry_after.unwrap_or_default().min(LONGEST_WAIT)
}

impl ExportError {
    /// What the same request may meet with success later.
    pub fn temporary(why: impl Into<String>) -> Self {
        Self { why: why.into(), is_temporary: true, retry_after: None }
    }

    fn timed_out(after: Duration) -> Self {
        Self::temporary(format!("no response within {after:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_to_its_bound() {
        let seconds = |failures| backoff(failures, 1.0).as_secs();
        assert_eq!([1, 2, 3, 5, 6, 99, u32::MAX].map(seconds), [1, 2, 4, 16, 30, 30, 30]);
        assert_eq!(backoff(1, 0.0), Duration::from_millis(500));
    }

    /// Takes no span, and asks for a wait of centuries.
    struct Forbidding(mpsc::Sender<Instant>);

    impl Collector for Forbidding {
        fn export<'a>(&'a self, _: &'a ExportTraceServiceRequest) -> BoxFuture<'a, Result<u64, ExportError>> {
            self.0.try_send(Instant::now()).unwrap();
            let retry_after = Some(Duration::MAX);
            Box::pin(async move { Err(ExportError { retry_after, ..ExportError::temporary("it is full") }) })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn longer_wait_than_an_hour_is_an_hour() {
        let sampling = Sampling { ratio: 1.0, parent_based: true, propagate: false };
        let (requests, mut received) = mpsc::channel(8);
        let collector = Arc::new(Forbidding(requests));
        let (tracer, _exporter) =
            Exporter::start(sampling, Resource::default(), Duration::from_secs(10), collector);
        tracer.begin_call(&http::HeaderMap::new()).unwrap().end("service", "method", 0);
        let mut next = async || timeout(2 * LONGEST_WAIT, received.recv()).await.unwrap().unwrap();
        let (first, second) = (next().await, next().await);
        assert!((second - first).abs_diff(LONGEST_WAIT) < Duration::from_secs(1));
    }

    #[test]
    fn configured_attribute_replaces_that_of_the_process() {
        let given = [("service.version", "7"), ("team", "a")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let Resource(all) = Resource::new("gateway", given);
        let of = |name: &str| {
            let found: Vec<_> = all.iter().filter(|(known, _)| known == name).map(|(_, v)| &**v).collect();
            found.join(",")
        };
        assert_eq!([of("service.name"), of("service.version"), of("team")], ["gateway", "7", "a"]);
    }
}
