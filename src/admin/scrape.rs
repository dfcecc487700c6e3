//! The text of `/metrics`: what was counted, and what is read at this moment.

use std::{path::PathBuf, sync::Arc};

use prometheus::{CounterVec, Encoder, GaugeVec, Opts, Registry, TextEncoder};
use tokio::runtime::Handle;

use super::{Admin, reloads::Reloaded};
use crate::{
    cluster::{
        ReplicaStatus,
        status::{NatsStatus, RoleName, SeatStatus},
    },
    engine::{Circuit, Engine, Health, JobStatuses},
    telemetry::{self, build, metrics::metrics, process::Process},
    transport::ResponseBudget,
};

/// Bounds that are not the engine's.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Of vendors' responses that are being read.
    pub responses: Arc<ResponseBudget>,
    /// Bytes of those.
    pub response_bytes: u64,
    /// Connections that may be open.
    pub connections: usize,
    /// The server's own certificate.
    pub certificate: Option<PathBuf>,
}

/// Gauges and counters of one scrape.
struct Sheet(Registry);

impl Sheet {
    fn gauge<const N: usize>(&self, name: &str, help: &str, label: &str, values: [(&str, f64); N]) -> Result {
        self.gauges(name, help, label, values)
    }

    /// A gauge with one series for each value of a label.
    fn gauges<'a>(
        &self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'a str, f64)>,
    ) -> Result {
        let labels: &[&str] = if label.is_empty() { &[] } else { &[label] };
        let gauges = GaugeVec::new(Opts::new(name, help), labels)?;
        for (value, number) in values {
            let labels: &[&str] = if label.is_empty() { &[] } else { &[value] };
            gauges.with_label_values(labels).set(number);
        }
        self.0.register(Box::new(gauges))
    }

    fn value(&self, name: &str, help: &str, number: Option<f64>) -> Result {
        number.map_or(Ok(()), |number| self.gauge(name, help, "", [("", number)]))
    }

    fn counter(&self, name: &str, help: &str, number: Option<f64>) -> Result {
        let Some(number) = number else { return Ok(()) };
        let counter = CounterVec::new(Opts::new(name, help), &[])?;
        counter.with_label_values::<&str>(&[]).inc_by(number);
        self.0.register(Box::new(counter))
    }
}

type Result<T = ()> = prometheus::Result<T>;

/// All metrics in Prometheus' text format.
pub(super) fn text(admin: &Admin) -> Result<Vec<u8>> {
    let sheet = Sheet(Registry::new());
    backends(&sheet, &admin.engine)?;
    bounds(&sheet, admin)?;
    reloads(&sheet, &admin.reloads.last())?;
    if let Some(replica) = &admin.replica {
        cluster(&sheet, &replica.status())?;
    }
    runtime(&sheet)?;
    process(&sheet)?;
    let mut families = metrics().gather();
    families.extend(sheet.0.gather());
    families.sort_by(|a, b| a.name().cmp(b.name()));
    let mut text = Vec::new();
    TextEncoder::new().encode(&families, &mut text)?;
    Ok(text)
}

fn backends(sheet: &Sheet, engine: &Engine) -> Result {
    let backends = engine.backends();
    let gauge = |name: &str, help: &str, figure: &dyn Fn(&crate::engine::Report) -> f64| {
        let values = backends.iter().map(|backend| (&*backend.name, figure(&backend.report)));
        sheet.gauges(name, help, "backend", values)
    };
    let up = |health| f64::from(u8::from(health != Health::Unavailable));
    gauge("jobwatch_backend_up", "0 while the backend is unavailable, else 1.", &|report| up(report.health))?;
    gauge(
        "jobwatch_circuit_state",
        "Circuit breaker: 0 closed, 1 half-open, 2 open.",
        &|report| match report.circuit {
            Circuit::Closed => 0.0,
            Circuit::HalfOpen => 1.0,
            Circuit::Open => 2.0,
        },
    )?;
    gauge("jobwatch_watched_jobs", "Jobs with at least one subscriber.", &|report| {
        count(report.subscribed_jobs)
    })?;
    gauge("jobwatch_queued_calls", "Jobs of waiting calls that no poll has picked up yet.", &|report| {
        count(report.queued_calls)
    })?;
    gauge("jobwatch_quarantined_jobs", "Jobs that are polled alone because they failed alone.", &|report| {
        count(report.quarantined_jobs)
    })?;
    gauge("jobwatch_overdue_seconds", "How long the longest-overdue poll has been due.", &|report| {
        report.poll_lag.as_secs_f64()
    })?;
    gauge("jobwatch_rate_in_use_ratio", "Share of requests_per_second used in the last second.", &|report| {
        report.rate_in_use
    })
}

fn bounds(sheet: &Sheet, admin: &Admin) -> Result {
    let used = admin.engine.usage();
    let super::Limits { responses, response_bytes, connections, certificate } = &admin.limits;
    let free = responses.available() as u64;
    #[expect(clippy::cast_precision_loss, reason = "a number of bytes that is exact below 2^52")]
    let bytes = |bytes: u64| Some(bytes as f64);
    let counted = |number| Some(count(number));
    for (name, help, number) in [
        ("jobwatch_watches_open", "Open watches and waiting calls.", counted(used.watches.0)),
        ("jobwatch_watches_limit", "limits.watches.", counted(used.watches.1)),
        ("jobwatch_jobs", "Jobs that are watched, waited for or retained.", counted(used.jobs.0)),
        ("jobwatch_jobs_limit", "limits.jobs.", counted(used.jobs.1)),
        ("jobwatch_status_bytes", "Bytes of all statuses held.", bytes(used.status_bytes.0)),
        ("jobwatch_status_limit_bytes", "limits.status_bytes.", bytes(used.status_bytes.1)),
        (
            "jobwatch_response_bytes",
            "Bytes reserved for vendors' responses that are being read.",
            bytes(response_bytes.saturating_sub(free)),
        ),
        ("jobwatch_response_limit_bytes", "limits.response_bytes.", bytes(*response_bytes)),
        ("jobwatch_connections_limit", "Connections that may be open.", counted(*connections)),
        (
            "jobwatch_certificate_expiry_timestamp_seconds",
            "End of the validity of server.tls.cert, in seconds since 1970.",
            certificate.as_deref().and_then(telemetry::certificate_end),
        ),
        (
            "jobwatch_ready",
            "1 from the start to the shutdown, else 0.",
            Some(f64::from(u8::from(admin.readiness.get() == super::Phase::Ready))),
        ),
    ] {
        sheet.value(name, help, number)?;
    }
    let dropped = telemetry::dropped_lines();
    sheet.counter(
        "jobwatch_log_lines_dropped_total",
        "Log lines that were dropped because nobody read them.",
        bytes(dropped),
    )
}

fn reloads(sheet: &Sheet, last: &Reloaded) -> Result {
    let options = Opts::new("jobwatch_config_reloads_total", "Reloads of the configuration that have ended.");
    let counter = CounterVec::new(options, &["outcome"])?;
    for (outcome, number) in
        [("applied", last.applied), ("unchanged", last.unchanged), ("refused", last.refused)]
    {
        #[expect(clippy::cast_precision_loss, reason = "a count that is exact below 2^52")]
        counter.with_label_values(&[outcome]).inc_by(number as f64);
    }
    sheet.0.register(Box::new(counter))?;
    sheet.value(
        "jobwatch_config_last_reload_successful",
        "0 after a reload that was refused, else 1.",
        Some(f64::from(u8::from(last.is_successful()))),
    )?;
    sheet.value(
        "jobwatch_config_last_reload_success_timestamp_seconds",
        "When the configuration in effect was read last, in seconds since 1970.",
        Some(last.seconds()),
    )
}

fn cluster(sheet: &Sheet, status: &ReplicaStatus) -> Result {
    let ReplicaStatus { nats, sessions, backends, replicas, replicas_known, .. } = status;
    let is_connected = matches!(nats, NatsStatus::Connected { .. });
    sheet.value(
        "jobwatch_cluster_connected",
        "1 while this replica is connected to NATS, else 0.",
        Some(f64::from(u8::from(is_connected))),
    )?;
    sheet.value(
        "jobwatch_cluster_sessions",
        "Sessions of other replicas that follow this one, each counted for each backend.",
        Some(count(*sessions)),
    )?;
    sheet.value(
        "jobwatch_cluster_replicas",
        "Replicas that this one knows of: itself and those that follow it.",
        Some(count(*replicas_known)),
    )?;
    sheet.value("jobwatch_cluster_replicas_limit", "cluster.replicas.", Some(f64::from(*replicas)))?;
    let options = Opts::new("jobwatch_cluster_role", "1 for what this replica does for a backend, else 0.");
    let roles = GaugeVec::new(options, &["backend", "role"])?;
    for SeatStatus { backend, role: present, .. } in backends {
        for role in RoleName::ALL {
            let number = f64::from(u8::from(role == *present));
            roles.with_label_values(&[&**backend, role.as_str()]).set(number);
        }
    }
    sheet.0.register(Box::new(roles))?;
    let epoch = |seat: &SeatStatus| seat.owner.as_ref().map_or(0.0, |owner| of(owner.epoch));
    sheet.gauges(
        "jobwatch_cluster_lease_epoch",
        "Epoch of the present lease, which grows with each change of owner; 0 while none is known.",
        "backend",
        backends.iter().map(|seat| (&*seat.backend, epoch(seat))),
    )?;
    let options = Opts::new(
        "jobwatch_cluster_owner_changes_total",
        "Times that a backend got another owner, as far as this replica has seen.",
    );
    let changes = CounterVec::new(options, &["backend"])?;
    let options = Opts::new(
        "jobwatch_cluster_session_restarts_total",
        "Sessions with the owner that ended or were refused.",
    );
    let restarts = CounterVec::new(options, &["backend", "reason"])?;
    for SeatStatus { backend, owner_changes, session_restarts, .. } in backends {
        changes.with_label_values(&[backend]).inc_by(of(*owner_changes));
        for (reason, number) in session_restarts.by_reason() {
            restarts.with_label_values(&[&**backend, reason]).inc_by(of(number));
        }
    }
    sheet.0.register(Box::new(changes))?;
    sheet.0.register(Box::new(restarts))
}

fn runtime(sheet: &Sheet) -> Result {
    let runtime = Handle::current().metrics();
    for (name, help, number) in [
        ("jobwatch_runtime_workers", "Worker threads of the runtime.", runtime.num_workers()),
        ("jobwatch_runtime_alive_tasks", "Tasks that have not ended.", runtime.num_alive_tasks()),
        (
            "jobwatch_runtime_queued_tasks",
            "Tasks in the runtime's global queue.",
            runtime.global_queue_depth(),
        ),
    ] {
        sheet.value(name, help, Some(count(number)))?;
    }
    let build = GaugeVec::new(
        Opts::new("jobwatch_build_info", "What the program was built from; always 1."),
        &["version", "commit", "features"],
    )?;
    build.with_label_values(&[build::VERSION, build::COMMIT, &build::features()]).set(1.0);
    sheet.0.register(Box::new(build))
}

/// Under the names that all Prometheus clients use.
fn process(sheet: &Sheet) -> Result {
    let Process { resident_bytes, cpu_seconds, open_fds, max_fds, threads, start_seconds } = Process::read();
    sheet.value("process_resident_memory_bytes", "Resident memory.", resident_bytes)?;
    sheet.value("process_open_fds", "Open file descriptors.", open_fds)?;
    sheet.value("process_max_fds", "Soft limit of file descriptors.", max_fds)?;
    sheet.value("process_threads", "Threads.", threads)?;
    sheet.value("process_start_time_seconds", "Start, in seconds since 1970.", Some(start_seconds))?;
    sheet.counter("process_cpu_seconds_total", "Processor time, user and system.", cpu_seconds)
}

#[expect(clippy::cast_precision_loss, reason = "a count that is exact below 2^52")]
fn count(number: usize) -> f64 {
    number as f64
}

#[expect(clippy::cast_precision_loss, reason = "a count that is exact below 2^52")]
fn of(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::tests::{isolated, replica_status};

    /// The lines of a scrape with values.
    fn lines(status: &ReplicaStatus) -> Vec<String> {
        let sheet = Sheet(Registry::new());
        cluster(&sheet, status).unwrap();
        let text = TextEncoder::new().encode_to_string(&sheet.0.gather()).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn replica_has_figures_of_its_connection_roles_and_sessions() {
        let wanted = [
            "jobwatch_cluster_connected 1",
            "jobwatch_cluster_lease_epoch{backend=\"db\"} 7",
            "jobwatch_cluster_owner_changes_total{backend=\"db\"} 3",
            "jobwatch_cluster_replicas 3",
            "jobwatch_cluster_replicas_limit 3",
            "jobwatch_cluster_role{backend=\"db\",role=\"follower\"} 0",
            "jobwatch_cluster_role{backend=\"db\",role=\"isolated\"} 0",
            "jobwatch_cluster_role{backend=\"db\",role=\"owner\"} 1",
            "jobwatch_cluster_role{backend=\"db\",role=\"starting\"} 0",
            "jobwatch_cluster_session_restarts_total{backend=\"db\",reason=\"gap\"} 1",
            "jobwatch_cluster_session_restarts_total{backend=\"db\",reason=\"refused\"} 0",
            "jobwatch_cluster_session_restarts_total{backend=\"db\",reason=\"silence\"} 4",
            "jobwatch_cluster_sessions 2",
        ];
        assert_eq!(lines(&replica_status()), wanted);
    }

    #[test]
    fn replica_without_nats_is_isolated_and_knows_no_epoch() {
        let lines = lines(&isolated(replica_status()));
        for line in [
            "jobwatch_cluster_connected 0",
            "jobwatch_cluster_lease_epoch{backend=\"db\"} 0",
            "jobwatch_cluster_role{backend=\"db\",role=\"isolated\"} 1",
            "jobwatch_cluster_role{backend=\"db\",role=\"owner\"} 0",
        ] {
            assert!(lines.iter().any(|known| known == line), "{line}: {lines:?}");
        }
    }
}
