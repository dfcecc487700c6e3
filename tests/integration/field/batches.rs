//! Batches and clusters: what one failure costs, and what is no evidence of it.

use futures_util::future::join_all;
use jobwatch::{
    proto::v1::{JobRef, JobState as S},
    simulators::{Effect, Plan, Vendor},
};
use tonic::Code;

use super::{
    change::Change,
    front::{Front, Protocol, Purpose, gateway},
    rows::graphql,
};
use crate::harness::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn graphql_rate_limit_costs_one_poll_of_a_whole_batch() {
    let simulator = simulator(Vendor::Datasaur).await;
    let jobs: Vec<_> = (0..32).map(|_| simulator.start_job(Plan::fixed("IN_PROGRESS")).id).collect();
    let mut trials = Vec::new();
    for protocol in Protocol::ALL {
        for code in ["RATE_LIMITED", "THROTTLED", "TOO_MANY_REQUESTS"] {
            let front = Front::before(&simulator, protocol).await;
            let change = graphql(&format!(r#"{{"code":"{code}"}}"#)).header("retry-after", "30");
            front.change(Purpose::Poll, change);
            trials.push((format!("limit-{}", trials.len()), code, front));
        }
    }
    let (program, _trusted) =
        gateway(trials.iter().map(|(name, _, front)| front.backend().named(name))).await;
    let client = program.client();
    for (name, code, front) in &trials {
        let jobs = jobs.iter().map(|id| job(name, id));
        for failed in batch(&client, batch_request(jobs)).await.unwrap() {
            let expected = (Code::Unavailable, "BACKEND_THROTTLED".to_owned());
            assert_eq!(code_and_reason(&failed.unwrap_err()), expected, "{code}");
        }
        assert_eq!(front.count(Purpose::Poll), 1, "{code}, {:?}", front.protocol);
    }
}

const TAG: &str = "nightly-7";

fn tagged(backend: &str, id: &str, tag: &str) -> JobRef {
    JobRef { job_tag: tag.to_owned(), ..job(backend, id) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transient_status_of_a_cluster_switches_to_the_standby() {
    let (first, standby) = (simulator(Vendor::Kinetica).await, simulator(Vendor::Kinetica).await);
    let started = first.start_job(Plan::fixed("RUNNING").tag(TAG).kind("/first"));
    standby.start_job(Plan::fixed("RUNNING").tag(TAG).kind("/standby"));
    let mut trials = Vec::new();
    for protocol in Protocol::ALL {
        for status in [408, 421, 425, 460, 499, 520, 527] {
            let fronts = [Front::before(&first, protocol).await, Front::before(&standby, protocol).await];
            trials.push((format!("cluster-{}", trials.len()), status, fronts));
        }
    }
    let backends = trials.iter().map(|(name, _, [front, standby])| {
        let standby = format!("[{:?}]", standby.protocol.url(standby.port));
        front.backend().named(name).key("standby_urls", &standby)
    });
    let (program, _trusted) = gateway(backends).await;
    let client = program.client();
    join_all(trials.iter().map(async |(name, status, [front, _])| {
        let job = tagged(name, &started.id, TAG);
        assert_eq!(get(&client, &job).await.unwrap().job_type, "/first");
        front.change(Purpose::Poll, Change::page(*status));
        let seen = get(&client, &job).await.map(|status| status.job_type);
        let seen = seen.map_err(|error| error.message().to_owned());
        assert_eq!(seen.as_deref(), Ok("/standby"), "{status}, {:?}", front.protocol);
    }))
    .await;
}

/// The text of a vendor's error repeats what the caller sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_own_tag_in_an_error_is_no_evidence_of_an_outage() {
    let (first, standby) = (simulator(Vendor::Kinetica).await, simulator(Vendor::Kinetica).await);
    let mut trials = Vec::new();
    for protocol in Protocol::ALL {
        for tag in ["system-limited-fatal", "job-system-limited-fatal-7"] {
            let fronts = [Front::before(&first, protocol).await, Front::before(&standby, protocol).await];
            trials.push((format!("tag-{}", trials.len()), tag, fronts));
        }
    }
    let backends = trials.iter().map(|(name, _, [front, standby])| {
        let standby = format!("[{:?}]", standby.protocol.url(standby.port));
        front.backend().named(name).key("standby_urls", &standby)
    });
    let (program, _trusted) = gateway(backends).await;
    let client = program.client();
    for (name, tag, [front, standby]) in &trials {
        let started = first.start_job(Plan::fixed("RUNNING").tag(*tag));
        let job = tagged(name, &started.id, tag);
        assert_eq!(get(&client, &job).await.unwrap().state(), S::Running);
        let message = format!("Invalid state of job {} with tag '{tag}' (J/x:1)", started.id);
        first.poison_with(&started.id, Effect::Refuse(message));
        let error = get(&client, &job).await.unwrap_err();
        let expected = (Code::FailedPrecondition, "BACKEND_REJECTED".to_owned());
        assert_eq!(code_and_reason(&error), expected, "{tag}, {:?}: {error}", front.protocol);
        assert_eq!(standby.traffic().requests.len(), 0, "{tag}, {:?}", front.protocol);
    }
}
