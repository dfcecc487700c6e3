//! An idle gateway, and its start-up time.

use std::time::Duration;

use jobwatch::proto::v1::ListBackendsRequest;
use tokio::time::{Instant, sleep};

use super::{Bench, client};
use crate::{
    Outcome,
    gateway::Poll,
    report::{Goal, Row},
    vendor::Vendor,
};

#[expect(clippy::cast_precision_loss, reason = "megabytes")]
pub(super) async fn row(bench: &Bench) -> Outcome<Row> {
    let vendor = Vendor::start(bench.cores).await?;
    let poll = Poll { interval: Duration::from_secs(1), batch: 200, concurrency: 8 };
    let (mut memory, mut starts) = (Vec::new(), Vec::new());
    for _ in 0..bench.pick(10, 5) {
        let began = Instant::now();
        let gateway = bench.gateway(&vendor, poll).await?;
        let backends = client(&gateway).await?.list_backends(ListBackendsRequest {}).await?.into_inner();
        starts.push(1e3 * began.elapsed().as_secs_f64());
        if backends.backends.len() != 2 {
            return Err("not all backends are listed".into());
        }
        sleep(Duration::from_millis(500)).await;
        memory.push(gateway.memory()? as f64 / f64::from(1 << 20));
    }
    let mut row = Row::new("idle", "A gateway with nothing to do");
    row.goal("resident memory", "MiB", &memory, Goal::AtMost(20.0));
    row.goal("from its start to the first response", "ms", &starts, Goal::AtMost(50.0));
    Ok(row)
}
