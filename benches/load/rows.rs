//! One module for each group of goals. A row starts the processes that it needs.

use std::{path::PathBuf, time::Duration};

use jobwatch::proto::v1::job_status_service_client::JobStatusServiceClient;
use tonic::transport::{Channel, Endpoint};

use crate::{
    Outcome,
    gateway::{CLARET, Gateway, KINETICA, Setup},
    machine::Cores,
    report::Row,
    vendor::Vendor,
};

mod bytes;
mod cached;
mod economy;
mod fan_out;
mod fresh;
mod growth;
mod idle;
mod isolation;
mod overhead;
mod overload;
mod replicas;
mod watch_jobs;

/// Names of the rows, in their order.
const NAMES: [&str; 21] = [
    "cached",
    "fresh-single",
    "fresh-single-kinetica",
    "polls",
    "polls-kinetica",
    "fresh-batch",
    "fan-out",
    "watches-100k",
    "watches-1m",
    "hostile",
    "economy-watching",
    "economy-asking",
    "growth",
    "overload",
    "isolation",
    "bytes",
    "idle",
    "overhead",
    "overhead-polls",
    "replica-get",
    "replica-watches",
];

/// Left out of a short run.
const LONG: [&str; 1] = ["watches-1m"];

/// What every row needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Bench {
    pub(crate) cores: Cores,
    /// The program that is measured.
    pub(crate) gateway: PathBuf,
    /// Fewer rounds, smaller numbers.
    pub(crate) short: bool,
}

impl Bench {
    /// The rows that are measured if none is named.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        NAMES.into_iter().filter(|name| !self.short || !LONG.contains(name))
    }

    /// Measures one row.
    pub(crate) async fn row(&self, name: &str) -> Outcome<Row> {
        match name {
            "cached" => cached::row(self).await,
            "fresh-single" => fresh::single(self, CLARET).await,
            "fresh-single-kinetica" => fresh::single(self, KINETICA).await,
            "polls" => fresh::polls(self, CLARET).await,
            "polls-kinetica" => fresh::polls(self, KINETICA).await,
            "fresh-batch" => fresh::batch(self).await,
            "fan-out" => fan_out::row(self).await,
            "watches-100k" => watch_jobs::many(self, "watches-100k", 100_000).await,
            "watches-1m" => watch_jobs::many(self, "watches-1m", 1_000_000).await,
            "hostile" => watch_jobs::hostile(self).await,
            "economy-watching" => economy::watching(self).await,
            "economy-asking" => economy::polling_clients(self).await,
            "growth" => growth::row(self).await,
            "overload" => overload::row(self).await,
            "isolation" => isolation::row(self).await,
            "bytes" => bytes::row(self).await,
            "idle" => idle::row(self).await,
            "overhead" => overhead::cached(self).await,
            "overhead-polls" => overhead::polls(self).await,
            "replica-get" => replicas::get(self).await,
            "replica-watches" => replicas::watches(self).await,
            other => Err(format!("there is no row {other}; write one of {}", NAMES.join(", ")).into()),
        }
    }

    /// One of two numbers.
    fn pick<T>(&self, full: T, short: T) -> T {
        if self.short { short } else { full }
    }

    /// How long one side is measured before the other is.
    fn slice(&self) -> Duration {
        Duration::from_millis(self.pick(1500, 800))
    }

    async fn gateway(&self, vendor: &Vendor, setup: impl Into<Setup>) -> Outcome<Gateway> {
        Gateway::start(&self.gateway, vendor.address(), setup.into(), self.cores).await
    }
}

/// A client as anybody has it.
async fn client(gateway: &Gateway) -> Outcome<JobStatusServiceClient<Channel>> {
    let channel = Endpoint::from_shared(format!("http://{}", gateway.address))?.connect().await?;
    Ok(JobStatusServiceClient::new(channel))
}

/// Each of `values` by what stands beside it in `floor`.
fn ratios(values: &[f64], floor: &[f64]) -> Vec<f64> {
    values.iter().zip(floor).map(|(value, floor)| value / floor).collect()
}
