//! What is done every second: publishing the health of backends, and log lines about what
//! lasts.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::time::{MissedTickBehavior, interval};
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    access::Access,
    engine::{Engine, Health, JobStatuses},
    telemetry,
};

const INTERVAL: Duration = Duration::from_secs(1);

/// Publishes the health of each backend as the service `jobwatch.backend/NAME`.
pub(super) struct Upkeep {
    pub(super) engine: Arc<Engine>,
    pub(super) health: HealthReporter,
    /// Where callers are identified, backends are not published: the health service asks
    /// nobody for credentials, and its answers would show which names exist.
    pub(super) access: Arc<ArcSwap<Access>>,
}

impl Upkeep {
    /// Runs until it is dropped.
    pub(super) async fn run(self) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut published = BTreeMap::new();
        loop {
            ticks.tick().await;
            self.engine.remind();
            telemetry::report_dropped_lines();
            self.publish(&mut published).await;
        }
    }

    /// Publishes what has changed.
    async fn publish(&self, published: &mut BTreeMap<Arc<str>, ServingStatus>) {
        let backends = if self.access.load().is_open() { self.engine.backends() } else { Vec::new() };
        let backends = backends.into_iter();
        let now: BTreeMap<Arc<str>, ServingStatus> = backends
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

/// The name of a backend's service.
fn service(backend: &str) -> String {
    format!("jobwatch.backend/{backend}")
}
