//! What is done every second: publishing the health of backends, and log lines about what
//! lasts. At the shutdown it publishes that the server does not serve.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    access::Access,
    engine::{Engine, Health, JobStatuses},
    proto::{
        longrunning::operations_server::SERVICE_NAME as OPERATIONS,
        served::job_status_service_server::SERVICE_NAME as JOBS,
    },
    telemetry,
};

const INTERVAL: Duration = Duration::from_secs(1);

/// The backends that are published.
type Published = BTreeMap<Arc<str>, ServingStatus>;

/// What the server does, as far as health is concerned.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Ready,
    Unready,
    Draining,
}

/// Publishes the health of the server, and of each backend as the service
/// `jobwatch.backend/NAME`.
pub(super) struct Upkeep {
    pub(super) engine: Arc<Engine>,
    pub(super) health: HealthReporter,
    /// Where callers are identified, backends are not published: the health service asks
    /// nobody for credentials, and its answers would show which names exist.
    pub(super) access: Arc<ArcSwap<Access>>,
    /// The server is not ready any more.
    pub(super) shutdown: CancellationToken,
    /// Streams end.
    pub(super) draining: CancellationToken,
}

impl Upkeep {
    /// Runs until it is dropped.
    pub(super) async fn run(mut self) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut published = Published::new();
        let mut phase = Phase::Ready;
        loop {
            tokio::select! {
                biased;
                () = self.shutdown.cancelled(), if phase == Phase::Ready => {
                    phase = Phase::Unready;
                    self.publish_not_serving(&published).await;
                }
                () = self.draining.cancelled(), if phase == Phase::Unready => {
                    phase = Phase::Draining;
                    self.end_watches(&published).await;
                }
                _ = ticks.tick() => {
                    self.engine.remind();
                    telemetry::report_dropped_lines();
                    if phase == Phase::Ready {
                        self.publish(&mut published).await;
                    }
                }
            }
        }
    }

    async fn publish_not_serving(&self, published: &Published) {
        for service in services(published) {
            self.health.set_service_status(service, ServingStatus::NotServing).await;
        }
    }

    /// They have no end of their own.
    async fn end_watches(&mut self, published: &Published) {
        for service in services(published) {
            self.health.clear_service_status(&service).await;
        }
    }

    /// Publishes what has changed.
    async fn publish(&self, published: &mut Published) {
        let backends = if self.access.load().is_open() { self.engine.backends() } else { Vec::new() };
        let backends = backends.into_iter();
        let now: Published = backends
            .map(|backend| {
                let is_down = backend.report.health == Health::Unavailable;
                let status = if is_down { ServingStatus::NotServing } else { ServingStatus::Serving };
                (backend.name, status)
            })
            .collect();
        for (name, status) in &now {
            if published.get(name) != Some(status) {
                self.health.set_service_status(service(name), *status).await;
            }
        }
        for name in published.keys().filter(|name| !now.contains_key(*name)) {
            let mut health = self.health.clone();
            health.set_service_status(service(name), ServingStatus::NotServing).await;
            health.clear_service_status(&service(name)).await;
        }
        *published = now;
    }
}

/// The server, its services, and the backends.
fn services(published: &Published) -> Vec<String> {
    let own = ["", JOBS, OPERATIONS].map(str::to_owned).into_iter();
    own.chain(published.keys().map(|backend| service(backend))).collect()
}

/// The name of a backend's service.
fn service(backend: &str) -> String {
    format!("jobwatch.backend/{backend}")
}
