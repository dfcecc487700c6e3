//! Promises under scarcity: one job whose presence makes a request fail, few requests a
//! second, few bytes, many callers, slow replicas.
//!
//! Only the harness's guard bounds a wait. A test that counts requests reads the
//! simulator's call log.

mod admission;
mod backend_load;
mod budgets;
#[cfg(target_os = "linux")]
mod fairness;
mod isolation;
mod ordering;

use futures_util::future::join_all;
use jobwatch::{
    proto::v1::{JobRef, JobState as S},
    simulators::{Plan, Simulator},
};

use crate::harness::*;

/// Starts jobs that run until a test ends them.
fn start_running(simulator: &Simulator, count: usize) -> Vec<JobRef> {
    let word = running(simulator.vendor());
    (0..count).map(|_| job_at(simulator, &simulator.start_job(Plan::fixed(word)))).collect()
}

/// Opens a watch of each job.
async fn watch_all(client: &Client, jobs: &[JobRef]) -> Vec<Watch> {
    join_all(jobs.iter().map(|job| Watch::of(client, job))).await
}

/// Every watch receives SUCCEEDED and ends with OK.
async fn all_succeed(watches: &mut [Watch]) {
    for watch in watches {
        assert_eq!(watch.terminal_status().await.state(), S::Succeeded);
    }
}
