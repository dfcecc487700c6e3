//! Late and vanished jobs: a vendor does not know them yet, or no longer.

use jobwatch::{
    proto::v1::JobState as S,
    simulators::{Plan, Simulator, Vendor},
};
use tonic::Code;

use crate::harness::*;

/// The path of a vendor's polls, a valid job id, and the word for a running job.
fn case(vendor: Vendor) -> (&'static str, &'static str, &'static str) {
    match vendor {
        Vendor::Immuta => ("/jobs/statuses", "cefb58a0-cd71-11ec-8e29-81c20d280994", "active"),
        Vendor::Kinetica => ("/get/job", "4611686018427387907", "RUNNING"),
        Vendor::Claret => ("/imports/status", "4711", "in_progress"),
        Vendor::Datasaur => ("/graphql", "AutoLabelQueue:7", "IN_PROGRESS"),
    }
}

fn patient(simulator: &Simulator) -> Backend {
    Backend::of(simulator).poll("not_found_grace", "\"1m\"")
}

#[tokio::test]
async fn job_registered_after_the_watch_began_is_found() {
    for vendor in Vendor::ALL {
        let (path, id, word) = case(vendor);
        let simulator = simulator(vendor).await;
        let gateway = Gateway::start([patient(&simulator)]).await;
        let mut watch = Watch::of(&gateway.client(), &job(vendor.name(), id)).await;
        guard(simulator.wait_for_responses(path, 2)).await;
        simulator.start_job(Plan::fixed(word).id(id));
        let status = watch.status().await;
        assert_eq!((status.state(), &*status.vendor_state), (S::Running, word), "{vendor}");
        simulator.finish(id);
        assert_eq!(watch.status().await.state(), S::Succeeded, "{vendor}");
        watch.end().await.unwrap();
    }
}

/// The test for Immuta is in `watches`.
#[tokio::test]
async fn job_never_registered_is_not_found_after_the_grace() {
    for vendor in [Vendor::Kinetica, Vendor::Claret, Vendor::Datasaur] {
        let (path, id, _) = case(vendor);
        let simulator = simulator(vendor).await;
        let gateway = Gateway::start([Backend::of(&simulator)]).await;
        let mut watch = Watch::of(&gateway.client(), &job(vendor.name(), id)).await;
        let error = decode_error(&watch.end().await.unwrap_err());
        assert_eq!((error.code, &*error.reason), (Code::NotFound, "JOB_NOT_FOUND"), "{vendor}");
        assert!(simulator.count(path) > 1, "{vendor} was polled again");
    }
}

#[tokio::test]
async fn late_job_that_vanishes_is_gone_despite_a_long_grace() {
    for vendor in Vendor::ALL {
        let (path, id, word) = case(vendor);
        let simulator = simulator(vendor).await;
        let gateway = Gateway::start([patient(&simulator)]).await;
        let mut watch = Watch::of(&gateway.client(), &job(vendor.name(), id)).await;
        guard(simulator.wait_for_responses(path, 1)).await;
        simulator.start_job(Plan::fixed(word).id(id));
        watch.status().await;
        simulator.forget(id);
        let error = decode_error(&watch.end().await.unwrap_err());
        assert_eq!((error.code, &*error.reason), (Code::NotFound, "JOB_GONE"), "{vendor}");
        assert!(error.message.contains(word), "{}", error.message);
    }
}

#[tokio::test]
async fn immuta_job_archived_before_its_end_was_seen_is_gone() {
    let simulator = simulator(Vendor::Immuta).await;
    let gateway = Gateway::start([patient(&simulator)]).await;
    let life = ms(1500);
    let plan = Plan::default().running_for(life).vanishes_after(life);
    let job = job_at(&simulator, &simulator.start_job(plan));
    let mut watch = Watch::of(&gateway.client(), &job).await;
    assert_eq!(watch.status().await.state(), S::Running);
    let error = decode_error(&watch.end().await.unwrap_err());
    assert_eq!((error.code, &*error.reason), (Code::NotFound, "JOB_GONE"));
    assert!(error.message.contains("active"), "{}", error.message);
    assert_eq!(
        code_and_reason(&get(&gateway.client(), &job).await.unwrap_err()).1,
        "JOB_NOT_FOUND",
        "a new call"
    );
}

#[tokio::test]
async fn archived_immuta_job_with_a_cached_terminal_status_is_served() {
    let (simulator, client, _gateway) = single_backend(Vendor::Immuta).await;
    let (job, mut watch) = watched_job(&simulator, &client, Plan::fixed("active")).await;
    simulator.finish(&job.job_id);
    assert_eq!(watch.status().await.state(), S::Succeeded);
    watch.end().await.unwrap();

    simulator.forget(&job.job_id);
    let polls = simulator.count("/jobs/statuses");
    assert_eq!(get(&client, &job).await.unwrap().state(), S::Succeeded);
    assert_eq!(
        batch(&client, batch_request([job.clone()])).await.unwrap()[0].as_ref().unwrap().state(),
        S::Succeeded
    );
    let mut later = Watch::of(&client, &job).await;
    assert_eq!(later.status().await.state(), S::Succeeded);
    later.end().await.unwrap();
    assert_eq!(simulator.count("/jobs/statuses"), polls, "nothing was polled");
}
