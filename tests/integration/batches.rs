//! Many jobs in one call, and in one upstream request.

use std::collections::BTreeSet;

use jobwatch::{
    proto::v1::BatchGetStatusesRequest,
    simulators::{Outcome, Plan, Simulator, Vendor},
};
use tonic::Code;

use crate::harness::*;

fn many(simulator: &Simulator, word: &str, count: usize) -> Vec<jobwatch::proto::v1::JobRef> {
    (0..count).map(|_| job_at(simulator, &simulator.start_job(Plan::fixed(word)))).collect()
}

#[tokio::test]
async fn batch_costs_its_size_divided_by_max_batch() {
    for (vendor, word, path) in
        [(Vendor::Immuta, "active", "/jobs/statuses"), (Vendor::Datasaur, "QUEUED", "/graphql")]
    {
        let simulator = simulator(vendor).await;
        let gateway = Gateway::start([Backend::of(&simulator)]).await;
        for (jobs, requests) in [(1, 1), (200, 1), (201, 2), (1000, 5)] {
            let jobs = many(&simulator, word, jobs);
            simulator.clear_calls();
            let results = batch(&gateway.client(), batch_request(jobs.clone())).await.unwrap();
            assert!(results.iter().all(Result::is_ok));
            let calls: Vec<_> =
                simulator.calls().into_iter().filter(|call| call.path.contains(path)).collect();
            assert_eq!(calls.len(), requests, "{} jobs at {vendor}", jobs.len());
            let polled: BTreeSet<_> = calls.iter().flat_map(|call| &call.job_ids).collect();
            assert_eq!(polled.len(), jobs.len());
            assert!(calls.iter().all(|call| call.job_ids.len() <= 200));
        }
    }
}

#[tokio::test]
async fn max_batch_is_configurable() {
    let simulator = simulator(Vendor::Immuta).await;
    let gateway = Gateway::start([Backend::of(&simulator).poll("max_batch", "30")]).await;
    batch(&gateway.client(), batch_request(many(&simulator, "active", 100))).await.unwrap();
    assert_eq!(simulator.count("/jobs/statuses"), 4);
}

#[tokio::test]
async fn concurrent_calls_share_a_poll() {
    let simulator = simulator(Vendor::Immuta).await;
    let window = "[server]\ncollection_window = \"300ms\"";
    let gateway = Gateway::start_with(window, [Backend::of(&simulator)]).await;
    let client = gateway.client();
    let jobs = many(&simulator, "active", 50);
    let calls = jobs.iter().map(|job| get(&client, job));
    assert!(futures_util::future::join_all(calls).await.iter().all(Result::is_ok));
    assert_eq!(simulator.count("/jobs/statuses"), 1);
}

#[tokio::test]
async fn batch_with_duplicates_and_bad_jobs_keeps_the_order() {
    let (immuta, claret) = (simulator(Vendor::Immuta).await, simulator(Vendor::Claret).await);
    let gateway = Gateway::start([Backend::of(&immuta), Backend::of(&claret)]).await;
    let client = gateway.client();
    let one = job_at(&immuta, &immuta.start_job(Plan::fixed("active")));
    let other = job_at(&claret, &claret.start_job(Plan::fixed("pending")));
    let requested = [
        one.clone(),
        job("immuta", "nobody"),
        other.clone(),
        job("claret", "no number"),
        one.clone(),
        job("elsewhere", "1"),
        job("", "1"),
        one,
    ];
    let results = batch(&client, batch_request(requested.clone())).await.unwrap();
    let reasons: Vec<_> = results
        .iter()
        .map(|response| match response {
            Ok(status) => status.vendor_state.clone(),
            Err(error) => decode_error(error).reason,
        })
        .collect();
    assert_eq!(
        reasons,
        [
            "active",
            "JOB_NOT_FOUND",
            "pending",
            "INVALID_JOB_ID",
            "active",
            "UNKNOWN_BACKEND",
            "INVALID_REQUEST",
            "active"
        ]
    );
    assert!(immuta.calls().iter().all(|call| call.job_ids.len() <= 2), "a duplicate is polled once");

    // The same errors as a get's, but for the field's path.
    for (index, (job, response)) in requested.iter().zip(&results).enumerate() {
        let Err(in_batch) = response else { continue };
        let (alone, in_batch) = (decode_error(&get(&client, job).await.unwrap_err()), decode_error(in_batch));
        assert_eq!((alone.code, &alone.reason), (in_batch.code, &in_batch.reason));
        assert_eq!(alone.metadata, in_batch.metadata);
        if alone.details.bad_request().is_some() {
            assert_eq!(in_batch.field(), alone.field().replacen("job", &format!("jobs[{index}]"), 1));
        }
    }
}

#[tokio::test]
async fn batch_above_4_mib_is_read_by_a_client_with_default_limits() {
    let simulator = simulator(Vendor::Immuta).await;
    let gateway = Gateway::start([Backend::of(&simulator)]).await;
    let result = |bytes| Outcome::json(&format!("{:?}", "x".repeat(bytes))).unwrap();
    let sizes = [900_000, 900_000, 900_000, 900_000, 900_000, 900_000, 10];
    let jobs: Vec<_> = sizes
        .into_iter()
        .map(|bytes| job_at(&simulator, &simulator.start_job(Plan::succeeds(result(bytes)))))
        .collect();
    let request = BatchGetStatusesRequest { wait: Some(proto_ms(15_000)), ..batch_request(jobs) };
    let client = Client::new(gateway.channel());
    let results = batch(&client, request).await.unwrap();
    let failed: Vec<_> = results.iter().map(Result::is_err).collect();
    assert_eq!(failed, [false, false, false, false, true, true, false]);
    let error = decode_error(results[4].as_ref().unwrap_err());
    assert_eq!((error.code, &*error.reason), (Code::ResourceExhausted, "TOO_MANY_BYTES"));
    assert_eq!(error.details.quota_failure().unwrap().violations[0].subject, "limits.message_bytes");
}

#[tokio::test]
async fn batch_with_a_dead_backend_fails_only_its_elements() {
    let simulator = simulator(Vendor::Immuta).await;
    let dead = Backend::dead(Vendor::Kinetica).await;
    let gateway = Gateway::start([Backend::of(&simulator), dead]).await;
    let mut jobs = many(&simulator, "active", 3);
    jobs.insert(1, job("kinetica", "1"));
    let results = batch(&gateway.client(), batch_request(jobs)).await.unwrap();
    let failed: Vec<_> = results.iter().map(Result::is_err).collect();
    assert_eq!(failed, [false, true, false, false]);
    let error = decode_error(results[1].as_ref().unwrap_err());
    assert_eq!((error.code, &*error.reason), (Code::Unavailable, "BACKEND_UNAVAILABLE"));
    assert!(error.retry_delay().is_some());
}

#[tokio::test]
async fn batch_with_wait_returns_when_every_job_is_terminal() {
    let simulator = simulator(Vendor::Immuta).await;
    let gateway = Gateway::start([Backend::of(&simulator)]).await;
    let plans = [Plan::default(), Plan::default().running_for(ms(400)), Plan::fails("no")];
    let mut jobs: Vec<_> =
        plans.into_iter().map(|plan| job_at(&simulator, &simulator.start_job(plan))).collect();
    jobs.push(job("immuta", "nobody"));
    let mut request = batch_request(jobs);
    request.wait = Some(proto_ms(15_000));
    let results = batch(&gateway.client(), request).await.unwrap();
    assert!(results[..3].iter().all(|response| response.as_ref().unwrap().terminal));
    assert_eq!(code_and_reason(results[3].as_ref().unwrap_err()).1, "JOB_NOT_FOUND");
}

#[tokio::test]
async fn batch_with_one_refused_job_is_bisected() {
    for (vendor, word, path) in
        [(Vendor::Immuta, "active", "/jobs/statuses"), (Vendor::Datasaur, "QUEUED", "/graphql")]
    {
        let simulator = simulator(vendor).await;
        let gateway = Gateway::start([Backend::of(&simulator)]).await;
        let client = gateway.client();
        let jobs = many(&simulator, word, 20);
        let failing = &jobs[13];
        simulator.poison(&failing.job_id);
        let results = batch(&client, batch_request(jobs.clone())).await.unwrap();
        for (job, response) in jobs.iter().zip(&results) {
            match response {
                Ok(_) => assert_ne!(job, failing),
                Err(error) => {
                    assert_eq!(job, failing, "{error:?}");
                    let error = decode_error(error);
                    assert_eq!((error.code, &*error.reason), (Code::FailedPrecondition, "BACKEND_REJECTED"));
                    assert!(error.metadata["vendor_message"].contains("cannot process job"));
                }
            }
        }
        // At most twice the depth of the bisection, its root, and one probe.
        assert!(simulator.count(path) <= 12, "{} requests", simulator.count(path));
    }
}

#[tokio::test]
async fn quarantined_job_is_polled_alone_and_recovers() {
    let simulator = simulator(Vendor::Immuta).await;
    let gateway = Gateway::start([Backend::of(&simulator)]).await;
    let client = gateway.client();
    let jobs = many(&simulator, "active", 8);
    let failing = jobs[3].job_id.clone();
    simulator.poison(&failing);
    let mut watches = Vec::new();
    for job in &jobs {
        watches.push(Watch::of(&client, job).await);
    }
    for (job, watch) in jobs.iter().zip(&mut watches) {
        if job.job_id == failing {
            assert_eq!(watch.interruption().await.1.reason, "BACKEND_REJECTED");
        } else {
            watch.next_status().await;
        }
    }
    simulator.clear_calls();
    guard(simulator.wait_for_calls("/jobs/statuses", 20)).await;
    let calls = simulator.calls();
    let with_it: Vec<_> = calls.iter().filter(|call| call.job_ids.contains(&failing)).collect();
    assert!(!with_it.is_empty() && with_it.iter().all(|call| call.job_ids.len() == 1));
    simulator.clear_faults();
    assert_eq!(watches[3].next_status().await.vendor_state, "active");
}
