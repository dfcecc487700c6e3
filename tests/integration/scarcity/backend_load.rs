//! ListBackends shows the load of a backend: poll lag, queued calls, the share of the rate
//! in use, quarantined jobs.

use std::time::Duration;

use jobwatch::{
    proto::v1::{Backend as BackendReport, BackendHealth, JobState as S, ListBackendsRequest},
    simulators::{Effect, Vendor},
};
use tokio::task::JoinSet;

use super::{all_succeed, start_running, watch_all};
use crate::harness::*;

/// The report of the only backend.
async fn report(client: &Client) -> BackendReport {
    let response = guard(client.clone().list_backends(ListBackendsRequest {})).await.unwrap();
    let [report] = &response.into_inner().backends[..] else { panic!("not one backend") };
    report.clone()
}

/// The first report that meets the condition.
async fn report_with(client: &Client, condition: impl Fn(&BackendReport) -> bool) -> BackendReport {
    let wanted = async {
        loop {
            let report = report(client).await;
            if condition(&report) {
                return report;
            }
        }
    };
    guard(wanted).await
}

fn poll_lag(report: &BackendReport) -> Duration {
    report.poll_lag.expect("a report has a poll lag").try_into().unwrap()
}

#[tokio::test]
async fn idle_backend_has_no_load() {
    let simulator = simulator(Vendor::Claret).await;
    let gateway = Gateway::start([Backend::of(&simulator)]).await;
    let report = report(&gateway.client()).await;
    assert_eq!(report.health(), BackendHealth::Unspecified);
    assert_eq!((poll_lag(&report), report.rate_in_use), (Duration::ZERO, 0.0));
    assert_eq!((report.watched_jobs, report.queued_calls, report.quarantined_jobs), (0, 0, 0));
}

/// 20 jobs at 4 requests a second are each polled every 5 s, instead of every 200 ms.
#[tokio::test]
async fn backend_with_a_poll_lag_above_max_interval_is_degraded_until_it_is_on_time() {
    let simulator = simulator(Vendor::Claret).await;
    let backend = Backend::of(&simulator).poll("requests_per_second", "4");
    let gateway = Gateway::start([backend]).await;
    let client = gateway.client();
    let jobs = start_running(&simulator, 20);
    let mut watches = watch_all(&client, &jobs).await;
    for watch in &mut watches {
        assert_eq!(watch.next_status().await.state(), S::Running);
    }
    let max_interval = ms(200);
    let report = report_with(&client, |report| poll_lag(report) > max_interval).await;
    assert_eq!(report.health(), BackendHealth::Degraded);
    assert_eq!(report.watched_jobs, 20);
    assert!((0.5..=1.0).contains(&report.rate_in_use), "{report:?}");
    assert!(report.last_error.is_none(), "{report:?}");

    for job in &jobs {
        simulator.finish(&job.job_id);
    }
    all_succeed(&mut watches).await;
    let report = report_with(&client, |report| poll_lag(report).is_zero()).await;
    assert_eq!((report.health(), report.watched_jobs), (BackendHealth::Healthy, 0));
}

#[tokio::test]
async fn calls_that_wait_for_a_permit_are_counted_as_queued() {
    let simulator = simulator(Vendor::Claret).await;
    let gateway = Gateway::start([Backend::of(&simulator).poll("requests_per_second", "1")]).await;
    let client = gateway.client();
    let mut gets = JoinSet::new();
    for job in start_running(&simulator, 20) {
        let client = client.clone();
        gets.spawn(async move { get(&client, &job).await });
    }
    report_with(&client, |report| report.queued_calls >= 10).await;
    gets.shutdown().await;
    report_with(&client, |report| report.queued_calls == 0).await;
}

#[tokio::test]
async fn job_that_fails_batches_is_counted_as_quarantined_until_it_recovers() {
    let simulator = simulator(Vendor::Immuta).await;
    let gateway = Gateway::start([Backend::of(&simulator)]).await;
    let client = gateway.client();
    let jobs = start_running(&simulator, 10);
    let failing = &jobs[3].job_id;
    simulator.poison_with(failing, Effect::status(500, "{}"));
    let watches = watch_all(&client, &jobs).await;
    let report = report_with(&client, |report| report.quarantined_jobs == 1).await;
    assert_eq!(report.watched_jobs, 10);
    simulator.heal(failing);
    let report = report_with(&client, |report| report.quarantined_jobs == 0).await;
    assert_eq!(report.watched_jobs, 10);
    drop(watches);
}
