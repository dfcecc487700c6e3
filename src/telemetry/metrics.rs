//! Metrics of the whole process: counters and histograms.
//!
//! Recorders resolve their series once, so that counting is a few atomic additions. Figures
//! that something else keeps already are read when `/metrics` is requested, see
//! `admin::scrape`. `docs/metrics.md` describes every metric.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, PoisonError, RwLock},
    time::Duration,
};

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::Collector,
};

mod calls;

pub use calls::{ActiveCall, METHODS, PRINCIPALS};

/// Upper bounds of durations in seconds: a cached call takes less than 0.5 ms, a poll
/// 5 ms to 15 s, and a watch hours.
const SECONDS: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 600.0];

/// Upper bounds of the number of jobs in a poll, up to the largest `max_batch`.
const JOBS: [f64; 11] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 400.0, 700.0, 1000.0];

static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// Those of this process.
pub fn metrics() -> &'static Metrics {
    &METRICS
}

/// All counters and histograms.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    calls: calls::Calls,
    /// How old the statuses are that calls return.
    status_age: Histogram,
    polls: IntCounterVec,
    poll_seconds: HistogramVec,
    poll_jobs: HistogramVec,
    poll_subscribers: IntCounterVec,
    subscriptions: IntCounterVec,
    poll_lag: HistogramVec,
    queue_wait: HistogramVec,
    outages: IntCounterVec,
    unknown_states: IntCounterVec,
    token_refreshes: IntCounterVec,
    spans: IntCounterVec,
    connections: IntGauge,
    connections_total: IntCounter,
    connections_expired: IntCounter,
    backends: RwLock<HashMap<Arc<str>, Arc<BackendMetrics>>>,
}

/// Those of one backend.
#[derive(Debug)]
pub struct BackendMetrics {
    backend: Arc<str>,
    polls: IntCounterVec,
    succeeded: IntCounter,
    poll_seconds: Histogram,
    poll_jobs: Histogram,
    poll_subscribers: IntCounter,
    subscriptions: IntCounter,
    poll_lag: Histogram,
    queue_wait: Histogram,
    outages: IntCounter,
    unknown_states: IntCounter,
}

/// Counts one open connection until it is dropped.
#[derive(Debug)]
pub struct OpenConnection(IntGauge);

impl Metrics {
    #[expect(clippy::too_many_lines, reason = "one entry for each metric")]
    fn new() -> Self {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| {
            register(&registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let histograms = |name: &str, help: &str, labels: &[&str], buckets: &[f64]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            register(&registry, HistogramVec::new(options, labels))
        };
        let of_backend = ["backend"];
        Self {
            calls: calls::Calls::new(
                counters(
                    "jobwatch_rpcs_total",
                    "Calls of JobStatusService that have ended.",
                    &["method", "code", "principal"],
                ),
                &histograms(
                    "jobwatch_rpc_duration_seconds",
                    "Time from the headers of a call to its end.",
                    &["method"],
                    &SECONDS,
                ),
                &register(
                    &registry,
                    IntGaugeVec::new(
                        Opts::new("jobwatch_rpcs_in_flight", "Calls that have not ended; a stream is one."),
                        &["method"],
                    ),
                ),
            ),
            status_age: histograms(
                "jobwatch_status_age_seconds",
                "Age of the statuses that GetJobStatus returns: time since the vendor's response.",
                &[],
                &SECONDS,
            )
            .with_label_values::<&str>(&[]),
            polls: counters("jobwatch_polls_total", "Polls that have ended.", &["backend", "outcome"]),
            poll_seconds: histograms(
                "jobwatch_poll_duration_seconds",
                "Time from taking a batch to its result.",
                &of_backend,
                &SECONDS,
            ),
            poll_jobs: histograms("jobwatch_poll_jobs", "Jobs in one poll.", &of_backend, &JOBS),
            poll_subscribers: counters(
                "jobwatch_poll_subscribers_total",
                "Calls and watches that were subscribed to the jobs of polls.",
                &of_backend,
            ),
            subscriptions: counters(
                "jobwatch_subscriptions_total",
                "Calls and watches that subscribed to a job.",
                &of_backend,
            ),
            poll_lag: histograms(
                "jobwatch_poll_lag_seconds",
                "How long the longest-overdue job had been due when a poll began.",
                &of_backend,
                &SECONDS,
            ),
            queue_wait: histograms(
                "jobwatch_call_queue_seconds",
                "Time from the arrival of a call, or of a watch, to the poll that serves it.",
                &of_backend,
                &SECONDS,
            ),
            outages: counters(
                "jobwatch_backend_outages_total",
                "Times that a backend began to fail.",
                &of_backend,
            ),
            unknown_states: counters(
                "jobwatch_unknown_states_total",
                "Changed statuses whose state the gateway does not know.",
                &of_backend,
            ),
            token_refreshes: counters(
                "jobwatch_token_refreshes_total",
                "Logins at vendors for a token.",
                &["outcome"],
            ),
            spans: counters("jobwatch_spans_total", "Spans of traces by what became of them.", &["outcome"]),
            connections: register(
                &registry,
                IntGauge::new("jobwatch_connections_open", "Connections of clients."),
            ),
            connections_total: register(
                &registry,
                IntCounter::new("jobwatch_connections_total", "Connections that were accepted."),
            ),
            connections_expired: register(
                &registry,
                IntCounter::new(
                    "jobwatch_connections_expired_total",
                    "Connections that reached server.max_connection_age.",
                ),
            ),
            backends: RwLock::default(),
            registry,
        }
    }

    /// The recorder of the backend with this name.
    pub fn backend(&self, name: &Arc<str>) -> Arc<BackendMetrics> {
        if let Some(known) = self.backends.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Arc::clone(known);
        }
        let mut backends = self.backends.write().unwrap_or_else(PoisonError::into_inner);
        let backend =
            backends.entry(Arc::clone(name)).or_insert_with(|| Arc::new(BackendMetrics::new(self, name)));
        Arc::clone(backend)
    }

    /// A call has begun.
    pub fn begin_call(&self, method: &str) -> ActiveCall<'_> {
        self.calls.begin(method)
    }

    /// A call returns a status of this age.
    pub fn status_returned(&self, age: Duration) {
        self.status_age.observe(age.as_secs_f64());
    }

    /// A login for a token has ended: "ok", "rejected" or "failed".
    pub fn token_refreshed(&self, outcome: &str) {
        self.token_refreshes.with_label_values(&[outcome]).inc();
    }

    /// Counts spans: "exported", "queue_full", "refused" or "shutdown".
    pub fn spans(&self, outcome: &str) -> IntCounter {
        self.spans.with_label_values(&[outcome])
    }

    /// A connection was accepted.
    pub fn open_connection(&self) -> OpenConnection {
        self.connections.inc();
        self.connections_total.inc();
        OpenConnection(self.connections.clone())
    }

    /// A connection takes no further calls, since it is too old.
    pub fn connection_expired(&self) {
        self.connections_expired.inc();
    }

    /// Everything that was counted.
    pub fn gather(&self) -> Vec<prometheus::proto::MetricFamily> {
        self.registry.gather()
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl BackendMetrics {
    fn new(metrics: &Metrics, name: &Arc<str>) -> Self {
        let labels = [&**name];
        Self {
            backend: Arc::clone(name),
            polls: metrics.polls.clone(),
            succeeded: metrics.polls.with_label_values(&[name, "ok"]),
            poll_seconds: metrics.poll_seconds.with_label_values(&labels),
            poll_jobs: metrics.poll_jobs.with_label_values(&labels),
            poll_subscribers: metrics.poll_subscribers.with_label_values(&labels),
            subscriptions: metrics.subscriptions.with_label_values(&labels),
            poll_lag: metrics.poll_lag.with_label_values(&labels),
            queue_wait: metrics.queue_wait.with_label_values(&labels),
            outages: metrics.outages.with_label_values(&labels),
            unknown_states: metrics.unknown_states.with_label_values(&labels),
        }
    }

    /// A call or watch has subscribed to a job.
    pub fn subscribed(&self) {
        self.subscriptions.inc();
    }

    /// A poll of this many jobs begins. The longest-overdue job has been due for `lag`.
    pub fn poll_begins(&self, jobs: usize, lag: Duration) {
        self.poll_jobs.observe(of(jobs));
        self.poll_lag.observe(lag.as_secs_f64());
    }

    /// A call was queued for so long until its poll began.
    pub fn call_queued(&self, wait: Duration) {
        self.queue_wait.observe(wait.as_secs_f64());
    }

    /// A poll has ended after `took`. `outcome` is "ok" or the reason of the fault.
    pub fn poll_ended(&self, outcome: &'static str, took: Duration, subscribers: usize) {
        self.poll_seconds.observe(took.as_secs_f64());
        self.poll_subscribers.inc_by(subscribers as u64);
        match outcome {
            "ok" => self.succeeded.inc(),
            _ => self.polls.with_label_values(&[&*self.backend, outcome]).inc(),
        }
    }

    /// A status was read whose state is unknown.
    pub fn unknown_state(&self) {
        self.unknown_states.inc();
    }

    /// The backend has begun to fail.
    pub fn outage_began(&self) {
        self.outages.inc();
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count that is exact below 2^52")]
fn of(count: usize) -> f64 {
    count as f64
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: prometheus::Result<C>) -> C {
    let collector = collector.expect("names, labels and buckets are constants of this file");
    registry.register(Box::new(collector.clone())).expect("each name is registered once");
    collector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_is_open_until_it_is_dropped() {
        let metrics = Metrics::new();
        let (one, two) = (metrics.open_connection(), metrics.open_connection());
        drop(one);
        assert_eq!((metrics.connections.get(), metrics.connections_total.get()), (1, 2));
        drop(two);
        assert_eq!(metrics.connections.get(), 0);
    }

    #[test]
    fn backend_of_one_name_has_one_recorder() {
        let metrics = Metrics::new();
        let name: Arc<str> = "b".into();
        metrics.backend(&name).poll_ended("ok", Duration::ZERO, 3);
        metrics.backend(&name).poll_ended("throttled", Duration::ZERO, 0);
        assert_eq!(metrics.poll_subscribers.with_label_values(&["b"]).get(), 3);
        for outcome in ["ok", "throttled"] {
            assert_eq!(metrics.polls.with_label_values(&["b", outcome]).get(), 1, "{outcome}");
        }
        assert_eq!(metrics.poll_seconds.with_label_values(&["b"]).get_sample_count(), 2);
    }
}
