//! Byte budgets bound what the gateway holds, never what a caller receives.

use jobwatch::{
    proto::v1::{GetJobStatusRequest, JobRef, JobState as S, JobStatusView, WatchJobRequest},
    simulators::{End, Outcome, Simulator, Vendor},
};

use super::{all_succeed, start_running};
use crate::harness::*;

const KIB: usize = 1024;

fn finish_with_result(simulator: &Simulator, jobs: &[JobRef], bytes: usize) {
    for job in jobs {
        simulator.finish_with(&job.job_id, End::Success(Outcome::Size(bytes)));
    }
}

async fn watch_all(client: &Client, jobs: &[JobRef], view: JobStatusView) -> Vec<Watch> {
    let mut watches = Vec::new();
    for job in jobs {
        let request = WatchJobRequest { view: view.into(), ..watch_request(job) };
        watches.push(Watch::open(client, request).await.unwrap());
    }
    for watch in &mut watches {
        assert_eq!(watch.next_status().await.state(), S::Running);
    }
    watches
}

/// 60 results of 256 KiB are 15 MiB, of which a budget of 4 MiB holds a quarter.
#[tokio::test]
async fn basic_watches_beyond_the_status_budget_receive_terminal_statuses() {
    const RESULT: usize = 256 * KIB;
    let simulator = simulator(Vendor::Immuta).await;
    let backend = Backend::of(&simulator).poll("max_response_bytes", "67108864");
    let gateway = Gateway::start_with("[limits]\nstatus_bytes = 4194304", [backend]).await;
    let client = gateway.client();
    let jobs = start_running(&simulator, 60);
    let mut watches = watch_all(&client, &jobs, JobStatusView::Basic).await;
    finish_with_result(&simulator, &jobs, RESULT);
    all_succeed(&mut watches).await;
    // A part that is not held is polled for.
    for job in &jobs {
        let request = GetJobStatusRequest { view: JobStatusView::Standard.into(), ..get_request(job) };
        let status = get_status(&client, request).await.unwrap();
        assert_eq!(status.result.unwrap().data.len(), RESULT);
    }
    // So is the status of a job that a new watch needs whole.
    let request = WatchJobRequest { view: JobStatusView::Standard.into(), ..watch_request(&jobs[0]) };
    let status = Watch::open(&client, request).await.unwrap().terminal_status().await;
    assert_eq!(status.result.unwrap().data.len(), RESULT);
}

/// Twelve results of 1 MB in one response are more than `max_response_bytes`.
async fn large_results_arrive(view: JobStatusView) {
    const RESULT: usize = 1_000_000;
    let simulator = simulator(Vendor::Immuta).await;
    let backend = Backend::of(&simulator).poll("max_response_bytes", "8388608").poll("max_batch", "100");
    let gateway = Gateway::start([backend]).await;
    let jobs = start_running(&simulator, 12);
    let mut watches = watch_all(&gateway.client(), &jobs, view).await;
    finish_with_result(&simulator, &jobs, RESULT);
    // Concurrently: unread statuses fill the connection's window.
    let statuses = watches.iter_mut().map(|watch| watch.terminal_status());
    for status in futures_util::future::join_all(statuses).await {
        assert_eq!(status.state(), S::Succeeded);
        let received = status.result.map_or(0, |result| result.data.len());
        assert_eq!(received, if view == JobStatusView::Basic { 0 } else { RESULT });
    }
}

#[tokio::test]
async fn large_results_that_exceed_one_response_reach_basic_watches() {
    large_results_arrive(JobStatusView::Basic).await;
}

#[tokio::test]
async fn large_results_that_exceed_one_response_reach_standard_watches() {
    large_results_arrive(JobStatusView::Standard).await;
}
