//! Each vendor's job statuses as a caller of the gateway receives them.

use jobwatch::{
    proto::v1::{JobState as S, JobStatus, JobStatusView},
    simulators::{Category, Content, End, Outcome, Plan, Simulator, SimulatorSet, Vendor},
};
use serde_json::{Value, json};

use crate::harness::*;

async fn simulators() -> (SimulatorSet, Gateway) {
    let simulators = SimulatorSet::start().await.unwrap();
    let gateway = Gateway::start(Vendor::ALL.map(|vendor| Backend::of(simulators.simulator(vendor)))).await;
    (simulators, gateway)
}

async fn alone(vendor: Vendor) -> (Simulator, Client, Gateway) {
    let simulator = simulator(vendor).await;
    let gateway = Gateway::start([Backend::of(&simulator)]).await;
    let client = gateway.client();
    (simulator, client, gateway)
}

/// The whole status of a job with this plan.
async fn shown(simulator: &Simulator, client: &Client, plan: Plan) -> JobStatus {
    let started = simulator.start_job(plan);
    get_status(client, full(&job_at(simulator, &started))).await.unwrap()
}

fn json_result(text: &str) -> End {
    End::Success(Outcome::json(text).unwrap())
}

#[tokio::test]
async fn every_documented_state_is_the_same_in_get_batch_and_watch() {
    let (simulators, gateway) = simulators().await;
    let client = gateway.client();
    let words = [
        (Vendor::Immuta, "created", S::Pending),
        (Vendor::Immuta, "active", S::Running),
        (Vendor::Immuta, "retry", S::Retrying),
        (Vendor::Immuta, "completed", S::Succeeded),
        (Vendor::Immuta, "failed", S::Failed),
        (Vendor::Immuta, "cancelled", S::Cancelled),
        (Vendor::Immuta, "expired", S::Expired),
        (Vendor::Immuta, "hibernating", S::Unspecified),
        (Vendor::Kinetica, "RUNNING", S::Running),
        (Vendor::Kinetica, "DONE", S::Succeeded),
        (Vendor::Kinetica, "ERROR", S::Failed),
        (Vendor::Kinetica, "CANCELLED", S::Cancelling),
        (Vendor::Kinetica, "PAUSED", S::Unspecified),
        (Vendor::Claret, "pending", S::Pending),
        (Vendor::Claret, "in_progress", S::Running),
        (Vendor::Claret, "completed", S::Succeeded),
        (Vendor::Claret, "failed", S::Failed),
        (Vendor::Claret, "archived", S::Unspecified),
        (Vendor::Datasaur, "QUEUED", S::Pending),
        (Vendor::Datasaur, "NONE", S::Pending),
        (Vendor::Datasaur, "IN_PROGRESS", S::Running),
        (Vendor::Datasaur, "DELIVERED", S::Succeeded),
        (Vendor::Datasaur, "FAILED", S::Failed),
    ];
    let jobs: Vec<_> = words
        .iter()
        .map(|(vendor, word, _)| {
            let simulator = simulators.simulator(*vendor);
            job_at(simulator, &simulator.start_job(Plan::fixed(*word)))
        })
        .collect();
    let together = batch(&client, batch_request(jobs.clone())).await.unwrap();
    for (((_, word, state), job), in_batch) in words.into_iter().zip(jobs).zip(together) {
        let mut watch = Watch::of(&client, &job).await;
        for status in [get(&client, &job).await.unwrap(), in_batch.unwrap(), watch.status().await] {
            assert_eq!((status.state(), &*status.vendor_state), (state, word));
            let ended = matches!(state, S::Succeeded | S::Failed | S::Cancelled | S::Expired);
            assert_eq!(status.terminal, ended, "{word}");
            assert_eq!(status.job.as_ref(), Some(&job));
            assert!(status.observe_time.is_some());
        }
    }
}

#[tokio::test]
async fn watch_receives_every_state_to_each_end() {
    let (simulators, gateway) = simulators().await;
    let client = gateway.client();
    let failure = || End::Failure { message: "out of space".to_owned() };
    let cancelled = || End::Cancelled { still_running_for: ms(0) };
    let success = || json_result("{}");
    let (pending, running) = (S::Pending, S::Running);
    for (vendor, first, word, end, last) in [
        (Vendor::Immuta, pending, "created", success(), S::Succeeded),
        (Vendor::Immuta, pending, "created", failure(), S::Failed),
        (Vendor::Immuta, pending, "created", cancelled(), S::Cancelled),
        (Vendor::Immuta, pending, "created", End::Expired, S::Expired),
        (Vendor::Kinetica, running, "RUNNING", success(), S::Succeeded),
        (Vendor::Kinetica, running, "RUNNING", failure(), S::Failed),
        (Vendor::Kinetica, running, "RUNNING", cancelled(), S::Cancelled),
        (Vendor::Claret, pending, "pending", success(), S::Succeeded),
        (Vendor::Claret, pending, "pending", failure(), S::Failed),
        (Vendor::Datasaur, pending, "QUEUED", success(), S::Succeeded),
        (Vendor::Datasaur, pending, "NONE", failure(), S::Failed),
    ] {
        let simulator = simulators.simulator(vendor);
        let started = simulator.start_job(Plan::fixed(word));
        let job = job_at(simulator, &started);
        let mut watch = Watch::of(&client, &job).await;
        assert_eq!(watch.status().await.state(), first);
        let between = match vendor {
            Vendor::Immuta => vec![("active", running), ("retry", S::Retrying), ("active", running)],
            Vendor::Kinetica if last == S::Cancelled => vec![("CANCELLED", S::Cancelling)],
            Vendor::Kinetica => Vec::new(),
            Vendor::Claret => vec![("in_progress", running)],
            Vendor::Datasaur => vec![("IN_PROGRESS", running)],
        };
        for (word, state) in between {
            simulator.set_state(&started.id, word);
            assert_eq!(watch.status().await.state(), state);
        }
        simulator.finish_with(&started.id, end);
        let status = watch.status().await;
        assert_eq!((status.state(), status.terminal), (last, true), "{vendor}");
        watch.end().await.unwrap();
        assert_eq!(get(&client, &job).await.unwrap(), status);
    }
}

#[tokio::test]
async fn immuta_output_arrives_unchanged_as_text_or_json() {
    let (simulator, client, _gateway) = alone(Vendor::Immuta).await;
    let exact = r#"{"n":9007199254740993,"e":1.50e+2,"a":"\u0041","a":null}"#;
    for (outcome, kind, data) in [
        (Outcome::json(exact).unwrap(), "application/json", exact),
        (Outcome::json("false").unwrap(), "application/json", "false"),
        (Outcome::Text("24 tables\n\"ü\"".to_owned()), "text/plain; charset=utf-8", "24 tables\n\"ü\""),
    ] {
        let result = shown(&simulator, &client, Plan::succeeds(outcome)).await.result.unwrap();
        assert_eq!((&*result.content_type, &*result.data), (kind, data.as_bytes()));
    }
    assert_eq!(shown(&simulator, &client, Plan::succeeds(Outcome::Nothing)).await.result, None);
}

#[tokio::test]
async fn immuta_error_is_an_error_and_no_result() {
    let (simulator, client, _gateway) = alone(Vendor::Immuta).await;
    for plan in [Plan::fails("no such column"), Plan::fixed("retry").retried_after("no such column")] {
        let status = shown(&simulator, &client, plan).await;
        let error = status.error.unwrap();
        assert_eq!((&*error.message, status.result), ("no such column", None));
        let details: Value = serde_json::from_slice(&error.details).unwrap();
        assert_eq!(details["name"], "Error");
    }
    for plan in [Plan::is_cancelled(ms(0)), Plan::expires()] {
        assert_eq!(shown(&simulator, &client, plan).await.error, None);
    }
}

#[tokio::test]
async fn kinetica_job_has_all_fields_of_its_record() {
    let (simulator, client, _gateway) = alone(Vendor::Kinetica).await;
    let id = "4611686018427387907";
    let text = r#"{"rows":9007199254740993,"quote":"\"q\""}"#;
    let plan = Plan::succeeds(Outcome::json(text).unwrap()).id(id).tag("nightly-1").kind("/execute/sql");
    let status = shown(&simulator, &client, plan).await;
    assert_eq!(status.job, Some(job("kinetica", id)));
    assert_eq!(simulator.calls()[0].job_ids, [id]);
    assert_eq!(status.job_type, "/execute/sql");
    assert_eq!(status.progress.unwrap().percent, Some(100.0));
    let result = status.result.unwrap();
    assert_eq!((&*result.content_type, &*result.data), ("application/json", text.as_bytes()));
    let payload: Value = serde_json::from_slice(&status.vendor_payload).unwrap();
    assert_eq!(payload["info"]["job_tag"], "nightly-1");

    let bytes: Vec<u8> = (0..=255).collect();
    let result = shown(&simulator, &client, Plan::succeeds(Outcome::Binary(bytes.clone()))).await.result;
    let result = result.unwrap();
    assert_eq!((&*result.content_type, &*result.data), ("avro/binary", &*bytes));

    let error = shown(&simulator, &client, Plan::fails("Object not found (S/SDc:1513)")).await.error.unwrap();
    assert_eq!(error.message, "Object not found (S/SDc:1513)");
    let details: Value = serde_json::from_slice(&error.details).unwrap();
    assert_eq!(details, json!({ "error_message": "Object not found (S/SDc:1513)" }));
}

#[tokio::test]
async fn kinetica_tag_finds_a_job_of_another_cluster() {
    let (simulator, client, _gateway) = alone(Vendor::Kinetica).await;
    simulator.start_job(Plan::fixed("RUNNING").id("1").tag("nightly-2"));
    let mut job = job("kinetica", "9223372036854775807");
    assert_eq!(code_and_reason(&get(&client, &job).await.unwrap_err()).1, "JOB_NOT_FOUND");
    job.job_tag = "nightly-2".to_owned();
    let status = get(&client, &job).await.unwrap();
    assert_eq!((status.state(), status.job), (S::Running, Some(job)));
}

#[tokio::test]
async fn proxied_kinetica_is_polled_below_its_path() {
    let simulator = simulator(Vendor::Kinetica).await;
    let gateway = Gateway::start([Backend::of(&simulator).path("/gpudb-0")]).await;
    let job = job_at(&simulator, &simulator.start_job(Plan::fixed("RUNNING")));
    assert_eq!(get(&gateway.client(), &job).await.unwrap().state(), S::Running);
    assert_eq!(simulator.calls()[0].path, "/gpudb-0/get/job");
}

#[tokio::test]
async fn claret_import_has_steps_files_and_times() {
    let (simulator, client, _gateway) = alone(Vendor::Claret).await;
    let csv = || Content::Bytes("sku\n".into());
    let plan = Plan::fixed("in_progress")
        .id("12345")
        .steps(["upload", "validate", "write", "notify"])
        .file(Category::Input, "in.csv", csv())
        .file(Category::Output, "out.csv", csv())
        .file(Category::Errors, "bad.csv", csv())
        .kind("sales-import");
    let started = simulator.start_job(plan);
    simulator.set_progress(&started.id, 50);
    let job = job_at(&simulator, &started);
    let status = get(&client, &job).await.unwrap();
    let progress = status.progress.unwrap();
    assert_eq!((progress.completed_steps, progress.total_steps), (Some(2), Some(4)));
    assert_eq!((&*progress.current_step, progress.percent), ("write", None));
    assert_eq!((&*status.job_type, &*status.owner), ("sales-import", "42"));
    assert_eq!(status.description, "Inventory Import");
    assert!(status.vendor_url.starts_with(&simulator.base_url()) && status.vendor_url.ends_with("/12345"));
    assert!(status.start_time.is_some() && status.end_time.is_none());
    assert_eq!(status.artifacts.len(), 1);
    let file = &status.artifacts[0];
    assert_eq!((&*file.artifact_id, &*file.category, &*file.file_name), ("input/in.csv", "input", "in.csv"));
    assert!(file.vendor_uri.starts_with("/demo/download/demo/user-uploads/sales-import/"));

    simulator.finish(&started.id);
    let ended = get(&client, &job).await.unwrap();
    let ids: Vec<_> = ended.artifacts.iter().map(|file| &*file.artifact_id).collect();
    assert_eq!(ids, ["input/in.csv", "output/out.csv", "errors/bad.csv"]);
    let micros = ended.end_time.unwrap().nanos;
    assert!(ended.end_time.unwrap().seconds >= ended.start_time.unwrap().seconds && micros % 1000 == 0);

    let empty = shown(&simulator, &client, Plan::fixed("pending")).await;
    assert_eq!(empty.progress.unwrap().total_steps, Some(0));
    assert!(empty.start_time.is_none() && empty.artifacts.is_empty());
}

#[tokio::test]
async fn datasaur_job_has_progress_result_and_errors() {
    let (simulator, client, _gateway) = alone(Vendor::Datasaur).await;
    let started = simulator.start_job(Plan::fixed("IN_PROGRESS"));
    simulator.set_progress(&started.id, 37);
    let status = get(&client, &job_at(&simulator, &started)).await.unwrap();
    assert_eq!(status.progress.unwrap().percent, Some(37.0));
    assert!(status.create_time.is_some());

    let plan = Plan::succeeds(Outcome::json(r#"{"labels":9007199254740993}"#).unwrap());
    let result = shown(&simulator, &client, plan).await.result.unwrap();
    assert_eq!(
        (&*result.content_type, &*result.data),
        ("application/json", &br#"{"labels":9007199254740993}"#[..])
    );

    let error = shown(&simulator, &client, Plan::fails("the model answered 502")).await.error.unwrap();
    assert_eq!(error.message, "the model answered 502");
    let details: Value = serde_json::from_slice(&error.details).unwrap();
    assert_eq!(details[0]["args"]["message"], "the model answered 502");
}

#[tokio::test]
async fn finished_job_without_progress_is_terminal() {
    let (simulator, client, _gateway) = alone(Vendor::Datasaur).await;
    let started = simulator.start_job(Plan::fixed("DELIVERED"));
    let status = get(&client, &job_at(&simulator, &started)).await.unwrap();
    assert_eq!((status.progress.unwrap().percent, status.terminal), (Some(0.0), true));
    let started = simulator.start_job(Plan::fixed("IN_PROGRESS"));
    simulator.set_progress(&started.id, 100);
    let status = get(&client, &job_at(&simulator, &started)).await.unwrap();
    assert_eq!((status.progress.unwrap().percent, status.terminal), (Some(100.0), false));
}

#[tokio::test]
async fn view_shows_its_fields_and_no_others() {
    let (simulators, gateway) = simulators().await;
    let client = gateway.client();
    for vendor in [Vendor::Immuta, Vendor::Kinetica, Vendor::Datasaur] {
        let simulator = simulators.simulator(vendor);
        let started = simulator.start_job(Plan { end: json_result("[1]"), ..Plan::default() });
        let job = job_at(simulator, &started);
        for (view, result, payload) in [
            (JobStatusView::Unspecified, true, false),
            (JobStatusView::Basic, false, false),
            (JobStatusView::Standard, true, false),
            (JobStatusView::Full, true, true),
        ] {
            let mut request = batch_request([job.clone()]);
            request.view = view.into();
            let in_batch = batch(&client, request).await.unwrap().remove(0).unwrap();
            let mut request = watch_request(&job);
            request.view = view.into();
            let watched = Watch::open(&client, request).await.unwrap().status().await;
            let mut request = get_request(&job);
            request.view = view.into();
            for status in [get_status(&client, request).await.unwrap(), in_batch, watched] {
                assert_eq!(status.result.is_some(), result, "{vendor} {view:?}");
                assert_eq!(!status.vendor_payload.is_empty(), payload, "{vendor} {view:?}");
                assert!(status.terminal && !status.vendor_state.is_empty());
            }
        }
    }
}

#[tokio::test]
async fn vendor_payload_holds_undocumented_fields() {
    let (simulator, client, _gateway) = alone(Vendor::Immuta).await;
    let status = shown(&simulator, &client, Plan::fixed("active")).await;
    let payload: Value = serde_json::from_slice(&status.vendor_payload).unwrap();
    assert_eq!(payload["retryCount"], 0);
}
