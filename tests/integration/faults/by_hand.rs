//! The same faults, injected at the simulator as in a manual test.

use futures_util::future::join_all;
use jobwatch::{
    proto::v1::{JobRef, JobState as S},
    simulators::{Fault, Plan, Simulator, Vendor},
};
use serde_json::json;
use tonic::Code;

use super::{
    at_last, running,
    table::{ROWS, Sees},
};
use crate::harness::*;

/// Callers see the same whether an effect is injected at the simulator for one job or by a
/// proxy.
async fn every_effect_at(vendor: Vendor) {
    let simulator = simulator(vendor).await;
    let mut trials = Vec::new();
    for row in ROWS {
        if let Some(effect) = row.fault.effect() {
            let backend =
                Backend::at(vendor, simulator.base_url()).named(&format!("effect-{}", trials.len()));
            let (timeout, connect_timeout) =
                if row.stuck { ("\"500ms\"", "\"500ms\"") } else { ("\"45s\"", "\"5s\"") };
            let backend = backend.poll("max_response_bytes", "65536");
            let backend = backend.poll("connect_timeout", connect_timeout).poll("timeout", timeout);
            trials.push((row, effect, backend));
        }
    }
    let gateway = Gateway::start(trials.iter().map(|trial| trial.2.clone())).await;
    let client = gateway.client();
    let tried = join_all(trials.iter().map(async |(row, effect, backend)| {
        let started = simulator.start_job(Plan::fixed(running(vendor)));
        simulator.inject(Fault::new(effect.clone()).for_job(&started.id));
        let job = job(backend.name(), &started.id);
        let seen = get(&client, &job).await;
        let seen = seen.map(|status| status.state()).map_err(|error| code_and_reason(&error));
        let expected = if row.sees == Sees::Response {
            Ok(S::Running)
        } else {
            let (code, reason) = row.sees.error();
            Err((code, reason.to_owned()))
        };
        assert_eq!(seen, expected, "{}, {vendor}", row.name);
        job
    }));
    let jobs = tried.await;
    simulator.clear_faults();
    for job in &jobs {
        assert_eq!(at_last(&client, job).await, S::Running, "{vendor}");
    }
}

#[tokio::test]
async fn simulator_effect_is_seen_as_the_same_network_fault() {
    for vendor in Vendor::ALL {
        every_effect_at(vendor).await;
    }
}

/// The JSON pointer of the polled job's state.
fn state_of(vendor: Vendor, id: &str) -> String {
    match vendor {
        Vendor::Immuta => format!("/{id}/state"),
        Vendor::Kinetica => "/data_str/job_status".to_owned(),
        Vendor::Claret => "/content/status".to_owned(),
        Vendor::Datasaur => "/data/result/0/status".to_owned(),
    }
}

async fn with(
    simulator: &Simulator,
    client: &Client,
    job: &JobRef,
    effect: serde_json::Value,
) -> Result<S, (Code, String)> {
    simulator.inject(serde_json::from_value(json!({ "effect": effect, "job_id": job.job_id })).unwrap());
    let seen = get(client, job).await.map(|status| status.state()).map_err(|error| code_and_reason(&error));
    simulator.clear_faults();
    assert_eq!(at_last(client, job).await, S::Running, "{effect}");
    seen
}

async fn hostile_json_at(vendor: Vendor) {
    let simulator = simulator(vendor).await;
    let gateway = Gateway::start([Backend::of(&simulator).poll("timeout", "\"45s\"")]).await;
    let client = gateway.client();
    let started = simulator.start_job(Plan::fixed(running(vendor)));
    // Where the vendor has a tag, only the tag distinguishes one job's record from another's.
    let job_tag = started.tag.clone().unwrap_or_default();
    let job = JobRef { job_tag, ..job_at(&simulator, &started) };
    let state = state_of(vendor, &job.job_id);
    let malformed = Err((Code::Internal, "BACKEND_MALFORMED".to_owned()));
    for put in ["nan", "invalid_utf8", "big_number", "deep", "lone_surrogate", "long_text"] {
        let effect = json!({ "json": { "put": put, "at": state } });
        assert_eq!(with(&simulator, &client, &job, effect).await, malformed, "{vendor}: {put}");
    }
    for put in ["big_number", "huge_number", "deep"] {
        let seen = with(&simulator, &client, &job, json!({ "json": { "put": put } })).await;
        assert_eq!(seen, Ok(S::Running), "{vendor}: {put}");
    }
    let other = simulator.start_job(Plan::default());
    let seen = with(&simulator, &client, &job, json!({ "answer_for": [other.id] })).await;
    assert_eq!(seen, malformed, "{vendor}");
    let both = json!({ "answer_for": [job.job_id, other.id] });
    assert_eq!(with(&simulator, &client, &job, both).await, Ok(S::Running), "{vendor}");
    let seen = with(&simulator, &client, &job, json!({ "answer_for": [] })).await;
    assert_eq!(seen, Err((Code::NotFound, "JOB_NOT_FOUND".to_owned())), "{vendor}");
}

#[tokio::test]
async fn invalid_json_and_other_jobs_can_be_injected_at_each_vendor() {
    // In sequence: a text of 100 MB occupies the shared thread.
    for vendor in Vendor::ALL {
        hostile_json_at(vendor).await;
    }
}
