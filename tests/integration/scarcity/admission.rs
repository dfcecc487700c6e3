//! Every wait has an end, and a call that waits counts as what it costs.

use jobwatch::{
    proto::v1::{BatchGetStatusesRequest, JobRef},
    simulators::{Effect, Fault, Simulator, Vendor},
};
use tonic::Code;

use super::start_running;
use crate::harness::*;

const QUOTA: usize = 10;

fn waiting_batch(jobs: &[JobRef]) -> BatchGetStatusesRequest {
    let year = prost_types::Duration { seconds: 365 * 24 * 3600, nanos: 0 };
    BatchGetStatusesRequest { wait: Some(year), ..batch_request(jobs.iter().cloned()) }
}

async fn with_quota(simulator: &Simulator) -> Gateway {
    let sections = format!("[limits]\nwatches_per_caller = {QUOTA}");
    Gateway::start_with(&sections, [Backend::of(simulator)]).await
}

/// Returns once so many different jobs were polled since the log was emptied.
async fn jobs_are_polled(simulator: &Simulator, count: usize) {
    let polled = || {
        let ids = simulator.calls().into_iter().flat_map(|call| call.job_ids);
        ids.collect::<std::collections::HashSet<_>>().len()
    };
    let enough = async {
        while polled() < count {
            simulator.wait_for_calls("", simulator.count("") + 1).await;
        }
    };
    guard(enough).await;
}

#[tokio::test]
async fn waiting_batch_beyond_the_quota_fails_the_other_elements() {
    let simulator = simulator(Vendor::Immuta).await;
    let gateway = with_quota(&simulator).await;
    let jobs = start_running(&simulator, 2 * QUOTA);
    let client = gateway.client();
    let request = waiting_batch(&jobs);
    let call = tokio::spawn(async move { batch(&client, request).await });
    jobs_are_polled(&simulator, QUOTA).await;
    for job in &jobs {
        simulator.finish(&job.job_id);
    }
    let results = call.await.unwrap().unwrap();
    let (admitted, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert!(admitted.into_iter().all(|result| result.unwrap().terminal));
    assert_eq!(refused.len(), QUOTA);
    for error in refused {
        let expected = (Code::ResourceExhausted, "TOO_MANY_WATCHES".to_owned());
        assert_eq!(code_and_reason(&error.unwrap_err()), expected);
    }
}

#[tokio::test]
async fn waiting_batch_that_is_cancelled_frees_the_quota() {
    let simulator = simulator(Vendor::Immuta).await;
    let gateway = with_quota(&simulator).await;
    let jobs = start_running(&simulator, QUOTA + 1);
    let (waiting, other) = (waiting_batch(&jobs[..QUOTA]), &jobs[QUOTA]);
    let client = gateway.client();
    let call = {
        let client = client.clone();
        tokio::spawn(async move { batch(&client, waiting).await })
    };
    jobs_are_polled(&simulator, QUOTA).await;
    let error = Watch::open(&client, watch_request(other)).await.unwrap_err();
    assert_eq!(code_and_reason(&error), (Code::ResourceExhausted, "TOO_MANY_WATCHES".to_owned()));
    call.abort();
    // The server learns of the cancellation a little later.
    let admitted = async {
        loop {
            match Watch::open(&client, watch_request(other)).await {
                Ok(watch) => return watch,
                Err(error) => assert_eq!(code_and_reason(&error).1, "TOO_MANY_WATCHES"),
            }
        }
    };
    guard(admitted).await.status().await;
}

const DEFAULT_DEADLINE: &str = "[server]\ndefault_deadline = \"2s\"";

fn assert_late_or_overloaded(error: &tonic::Status) {
    let (code, reason) = code_and_reason(error);
    let is_expected =
        code == Code::DeadlineExceeded || (code == Code::ResourceExhausted && reason == "BACKEND_OVERLOADED");
    assert!(is_expected, "{error:?}");
}

#[tokio::test]
async fn get_without_a_deadline_at_a_hanging_backend_ends_at_the_default_deadline() {
    let simulator = simulator(Vendor::Claret).await;
    simulator.inject(Fault::new(Effect::Hang).at("/imports/status"));
    let backend = Backend::of(&simulator).poll("timeout", "\"10m\"");
    let gateway = Gateway::start_with(DEFAULT_DEADLINE, [backend]).await;
    let job = start_running(&simulator, 1).remove(0);
    assert_late_or_overloaded(&get(&gateway.client(), &job).await.unwrap_err());
}

/// A hundred calls at one request a second would wait for a minute and a half.
#[tokio::test]
async fn gets_without_a_deadline_at_a_busy_backend_all_end() {
    let simulator = simulator(Vendor::Claret).await;
    let backend = Backend::of(&simulator).poll("requests_per_second", "1");
    let gateway = Gateway::start_with(DEFAULT_DEADLINE, [backend]).await;
    let client = gateway.client();
    let jobs = start_running(&simulator, 100);
    let gets = futures_util::future::join_all(jobs.iter().map(|job| get(&client, job))).await;
    let failed: Vec<_> = gets.into_iter().filter_map(Result::err).collect();
    assert!(failed.len() > jobs.len() / 2, "{} failed", failed.len());
    for error in failed {
        assert_late_or_overloaded(&error);
    }
}
