//! Kinetica's clusters: where the first can't respond, a standby is polled by tag.

use futures_util::future::join_all;
use jobwatch::{
    config::Config,
    proto::v1::{BackendHealth, JobRef, JobState as S, JobStatus, ListBackendsRequest},
    server,
    simulators::{Authorization, Effect, Fault, Outcome, Plan, Simulator, Vendor},
};
use tonic::Code;

use crate::harness::*;

const GET_JOB: &str = "/get/job";
const STATUS: &str = "/show/system/status";
const TAG: &str = "nightly-7";

/// Two clusters and a gateway. A job's endpoint shows which cluster was polled.
struct Pair {
    first: Simulator,
    standby: Simulator,
    client: Client,
    _gateway: Gateway,
}

impl Pair {
    async fn start() -> Self {
        Self::start_with(|backend| backend).await
    }

    async fn start_with(set: impl FnOnce(Backend) -> Backend) -> Self {
        let (first, standby) = (simulator(Vendor::Kinetica).await, simulator(Vendor::Kinetica).await);
        let backend = set(Backend::of(&first).standbys(&[&standby]));
        let gateway = Gateway::start([backend]).await;
        Self { first, standby, client: gateway.client(), _gateway: gateway }
    }

    /// A running job on the first cluster, and with the same tag and another id on the
    /// standby.
    fn job(&self) -> (JobRef, String) {
        let started = self.first.start_job(Plan::fixed("RUNNING").tag(TAG).kind("/first"));
        let there = self.standby.start_job(Plan::fixed("RUNNING").tag(TAG).kind("/standby"));
        assert_ne!(started.id, there.id);
        (tagged(&started.id), there.id)
    }

    async fn seen_on(&self, job: &JobRef) -> String {
        get(&self.client, job).await.unwrap().job_type
    }
}

fn tagged(id: &str) -> JobRef {
    JobRef { job_tag: TAG.to_owned(), ..job("kinetica", id) }
}

fn draining() -> Effect {
    let system = r#"{\\\"status\\\":\\\"running\\\",\\\"ha_status\\\":{\\\"drained\\\":\\\"draining\\\"}}"#;
    let record = format!(r#"{{\"status_map\":{{\"system\":\"{system}\"}},\"info\":{{}}}}"#);
    let wrapper = format!(
        r#"{{"status":"OK","message":"","data_type":"show_system_status_response","data":"","data_str":"{record}"}}"#
    );
    Effect::status(200, wrapper)
}

#[tokio::test]
async fn every_failover_trigger_switches_to_the_standby() {
    let statuses = [500, 502, 503, 504].map(|code| Some(Effect::status(code, "{}")));
    let words = ["Kinetica is exiting", "System shutting down", "Unavailable: Draining HA queue"];
    let words = words.map(|words| Some(Effect::Refuse(words.to_owned())));
    let others = [Some(Effect::Reset), Some(Effect::Truncate(3)), Some(Effect::Hang), None];
    join_all(statuses.into_iter().chain(words).chain(others).map(async |effect| {
        let pair = Pair::start_with(|backend| backend.poll("timeout", "\"1s\"")).await;
        let (job, _) = pair.job();
        match &effect {
            Some(effect) => pair.first.inject(Fault::new(effect.clone())),
            None => pair.first.go_down().await,
        }
        assert_eq!(pair.seen_on(&job).await, "/standby", "{effect:?}");
        assert_eq!(pair.standby.count(GET_JOB), 1, "{effect:?}");
        assert!(pair.first.count(GET_JOB) <= 1, "{effect:?}");
    }))
    .await;
}

#[tokio::test]
async fn fault_at_one_job_affects_no_other() {
    for (effect, reason) in [
        (Effect::Refuse("Access denied; ok".to_owned()), "BACKEND_FORBIDDEN"),
        (Effect::Refuse("Invalid option".to_owned()), "BACKEND_REJECTED"),
        (Effect::Html(401), "BACKEND_CREDENTIALS_REJECTED"),
        (Effect::Html(404), "BACKEND_REJECTED"),
        (Effect::status(429, "{}"), "BACKEND_THROTTLED"),
        (Effect::Html(200), "BACKEND_MALFORMED"),
        (Effect::Refuse("Job id 7 not found".to_owned()), "JOB_NOT_FOUND"),
    ] {
        let pair = Pair::start().await;
        pair.first.inject(Fault::new(effect));
        let error = decode_error(&get(&pair.client, &tagged("7")).await.unwrap_err());
        assert_eq!((&*error.reason, error.metadata.get("detail")), (reason, None));
        assert_eq!(pair.standby.calls().len(), 0, "{reason}");
    }
}

#[tokio::test]
async fn standby_stays_in_use_until_the_first_cluster_is_healthy() {
    let pair = Pair::start().await;
    let (job, _) = pair.job();
    pair.first.inject(Fault::new(Effect::status(503, "{}")).at(GET_JOB).times(1));
    // It responds again at once, but does not know the newest jobs yet.
    pair.first.inject(Fault::new(draining()).at(STATUS));
    let _watch = Watch::of(&pair.client, &job).await;
    guard(pair.first.wait_for_responses(STATUS, 3)).await;
    assert_eq!(pair.first.count(GET_JOB), 1);
    assert!(pair.standby.count(GET_JOB) >= 3, "a look rides on a poll");

    pair.first.clear_faults();
    guard(pair.first.wait_for_responses(GET_JOB, 2)).await;
    pair.standby.clear_calls();
    guard(pair.first.wait_for_responses(GET_JOB, 6)).await;
    assert_eq!(pair.standby.calls().len(), 0);
    assert_eq!(pair.seen_on(&job).await, "/first");
}

#[tokio::test]
async fn standby_that_fails_returns_to_the_first_cluster() {
    let pair = Pair::start().await;
    let (job, _) = pair.job();
    pair.first.go_down().await;
    assert_eq!(pair.seen_on(&job).await, "/standby");
    pair.first.come_back().await.unwrap();
    pair.first.inject(Fault::new(draining()).at(STATUS));
    pair.standby.go_down().await;
    assert_eq!(pair.seen_on(&job).await, "/first");
}

#[tokio::test]
async fn failover_without_a_healthy_cluster_polls_each_once() {
    let pair = Pair::start().await;
    let (job, _) = pair.job();
    for simulator in [&pair.first, &pair.standby] {
        simulator.inject(Fault::new(Effect::status(503, "{}")));
    }
    let error = decode_error(&get(&pair.client, &job).await.unwrap_err());
    assert_eq!((error.code, &*error.reason), (Code::Unavailable, "BACKEND_UNAVAILABLE"));
    assert_eq!((error.metadata["http_status"].as_str(), error.metadata.get("detail")), ("503", None));
    assert!(error.retry_delay().is_some());
    assert!(error.message.contains("standby 1:"), "{}", error.message);
    assert_eq!((pair.first.calls().len(), pair.standby.calls().len()), (1, 1));

    // The back-off spaces the polls from then on, the same number at each cluster.
    let mut watch = Watch::of(&pair.client, &job).await;
    guard(pair.first.wait_for_responses(GET_JOB, 8)).await;
    let (first, standby) = (pair.first.calls(), pair.standby.count(GET_JOB));
    assert!(first.len().abs_diff(standby) <= 1, "{} and {standby}", first.len());
    let six_waits = first[7].at - first[1].at;
    assert!(six_waits >= ms(6 * 45), "{six_waits:?}");
    pair.standby.clear_faults();
    assert_eq!(watch.next_status().await.job_type, "/standby");
}

#[tokio::test]
async fn failback_to_a_cluster_that_fails_polls_causes_no_loop() {
    let pair = Pair::start().await;
    let (job, there) = pair.job();
    pair.first.inject(Fault::new(Effect::status(503, "{}")).at(GET_JOB));
    let mut watch = Watch::of(&pair.client, &job).await;
    assert_eq!(watch.next_status().await.job_type, "/standby");
    guard(pair.first.wait_for_responses(STATUS, 4)).await;
    pair.standby.finish(&there);
    let (statuses, end) = watch.rest().await;
    end.unwrap();
    assert_eq!(statuses.iter().map(JobStatus::state).collect::<Vec<_>>(), [S::Succeeded]);
    // Each health check leads to one failback, and each failback to one failover.
    let (tries, looks) = (pair.first.count(GET_JOB), pair.first.count(STATUS));
    assert!(tries <= looks + 1, "{tries} tries after {looks} looks");
    assert!(tries <= pair.standby.count(GET_JOB), "the standby served each poll that failed there");
}

#[tokio::test]
async fn job_without_tag_waits_for_its_own_cluster() {
    let pair = Pair::start().await;
    let (with_tag, _) = pair.job();
    let without = JobRef { job_tag: String::new(), ..with_tag.clone() };
    pair.first.inject(Fault::new(Effect::status(503, "{}")));
    let mut watch = Watch::of(&pair.client, &without).await;
    let (_, cause) = watch.interruption().await;
    assert_eq!((cause.code, &*cause.reason), (Code::Unavailable, "BACKEND_UNAVAILABLE"));
    assert_eq!(cause.metadata["detail"], "standby_needs_job_tag");
    for _ in 0..10 {
        let error = decode_error(&get(&pair.client, &without).await.unwrap_err());
        assert_eq!((error.code, &*error.metadata["detail"]), (Code::Unavailable, "standby_needs_job_tag"));
        assert!(error.retry_delay().is_some());
    }
    assert_eq!(pair.standby.calls().len(), 0, "the standby can't identify the job, so it is not polled");
    assert_eq!(pair.first.count(GET_JOB), 1);
    let listed = guard(pair.client.clone().list_backends(ListBackendsRequest::default())).await.unwrap();
    let backend = listed.into_inner().backends.remove(0);
    assert_eq!(backend.health(), BackendHealth::Degraded);
    assert_eq!(
        decode_error(&from_message(&backend.last_error.unwrap())).metadata["detail"],
        "standby_needs_job_tag"
    );
    // Jobs with a tag are not delayed, however many jobs have none.
    assert_eq!(pair.seen_on(&with_tag).await, "/standby");
    pair.first.clear_faults();
    assert_eq!(watch.next_status().await.job_type, "/first");
}

#[tokio::test]
async fn watch_continues_through_failover_to_the_end() {
    let pair = Pair::start().await;
    let (job, there) = pair.job();
    let mut watch = Watch::of(&pair.client, &job).await;
    assert_eq!(watch.status().await.job_type, "/first");
    pair.first.go_down().await;
    assert_eq!(watch.status().await.job_type, "/standby", "without an interruption");
    pair.standby.finish(&there);
    let last = watch.status().await;
    assert_eq!((last.state(), last.job.unwrap()), (S::Succeeded, job));
    watch.end().await.unwrap();
}

#[tokio::test]
async fn job_unknown_to_the_standby_is_neither_missing_nor_gone() {
    let pair = Pair::start_with(|backend| backend.poll("not_found_grace", "\"1ms\"")).await;
    let started = pair.first.start_job(Plan::fixed("RUNNING").tag(TAG).kind("/first"));
    let job = tagged(&started.id);
    let mut seen = Watch::of(&pair.client, &job).await;
    seen.status().await;
    pair.first.go_down().await;
    let mut new = Watch::of(&pair.client, &tagged("12345")).await;
    for watch in [&mut seen, &mut new] {
        let (_, cause) = watch.interruption().await;
        assert_eq!(
            (cause.code, &*cause.metadata["detail"]),
            (Code::Unavailable, "standby_does_not_know_job")
        );
    }
    guard(pair.standby.wait_for_responses(GET_JOB, 8)).await;
    let error = decode_error(&get(&pair.client, &job).await.unwrap_err());
    assert_eq!((error.code, &*error.metadata["detail"]), (Code::Unavailable, "standby_does_not_know_job"));
    pair.standby.start_job(Plan::fixed("DONE").tag(TAG).kind("/standby"));
    for mut watch in [seen, new] {
        assert_eq!(watch.next_status().await.state(), S::Succeeded);
        watch.end().await.unwrap();
    }
}

#[tokio::test]
async fn standby_job_with_the_same_id_is_never_read_as_this_job() {
    for encoding in ["\"json\"", "\"binary\""] {
        let pair = Pair::start_with(|backend| backend.key("encoding", encoding)).await;
        let started = pair.first.start_job(Plan::fixed("RUNNING").tag(TAG).kind("/first"));
        pair.standby.start_job(Plan::fixed("DONE").id(&started.id).tag("another").kind("/standby"));
        let mut watch = Watch::of(&pair.client, &tagged(&started.id)).await;
        watch.status().await;
        pair.first.go_down().await;
        let (_, cause) = watch.interruption().await;
        assert_eq!(cause.metadata["detail"], "standby_does_not_know_job");
        guard(pair.standby.wait_for_responses(GET_JOB, 4)).await;
        pair.first.come_back().await.unwrap();
        pair.first.finish(&started.id);
        let (statuses, end) = watch.rest().await;
        end.unwrap();
        assert!(statuses.iter().all(|status| status.job_type == "/first"), "{statuses:?}");
    }
}

#[tokio::test]
async fn every_cluster_receives_the_credentials() {
    for encoding in ["\"json\"", "\"binary\""] {
        let pair = Pair::start_with(|backend| backend.key("encoding", encoding)).await;
        let (job, _) = pair.job();
        pair.first.inject(Fault::new(Effect::Reset).times(2));
        let _watch = Watch::of(&pair.client, &job).await;
        guard(pair.first.wait_for_responses(STATUS, 1)).await;
        let calls = [pair.first.calls(), pair.standby.calls()].concat();
        assert!(calls.len() >= 3);
        assert!(calls.iter().all(|call| call.authorization == Authorization::Basic), "{calls:?}");
        guard(pair.first.wait_for_responses(GET_JOB, 2)).await;
        assert_eq!(pair.seen_on(&job).await, "/first", "its health report was understood");
    }
}

#[tokio::test]
async fn kinetica_encodings_give_the_same_statuses() {
    let simulator = simulator(Vendor::Kinetica).await;
    let backends = ["json", "binary"]
        .map(|encoding| Backend::of(&simulator).named(encoding).key("encoding", &format!("{encoding:?}")));
    let gateway = Gateway::start(backends).await;
    let client = gateway.client();
    let every_byte = Outcome::Binary((0..=255).collect());
    let text = Outcome::Text("\"ä\u{0}\\\n\u{1f980}".to_owned());
    for plan in [
        Plan::fixed("RUNNING"),
        Plan::fixed("CANCELLED"),
        Plan::fixed("NEW_WORD"),
        Plan::fails("Column 'ä' is \"bad\""),
        Plan::succeeds(every_byte),
        Plan::succeeds(text),
        Plan::succeeds(Outcome::json(r#"{"n": [1, 2.50], "s": "\u00e4"}"#).unwrap()),
    ] {
        let started = simulator.start_job(plan);
        let mut seen = Vec::new();
        for backend in ["json", "binary"] {
            let mut status = get_status(&client, full(&job(backend, &started.id))).await.unwrap();
            assert_eq!(status.job.take().unwrap().backend, backend);
            status.observe_time = None;
            // The JSON values are equal; their escapes may differ.
            let payload: serde_json::Value = serde_json::from_slice(&status.vendor_payload).unwrap();
            status.vendor_payload = payload.to_string().into();
            seen.push(status);
        }
        assert_eq!(seen[0], seen[1]);
    }
    let error = decode_error(&get(&client, &job("binary", "7")).await.unwrap_err());
    assert_eq!(error.reason, "JOB_NOT_FOUND");
}

#[tokio::test]
async fn cli_check_names_the_standby_that_does_not_respond() {
    let first = simulator(Vendor::Kinetica).await;
    let standby = simulator(Vendor::Kinetica).await;
    let text = config_text("", [Backend::of(&first).standbys(&[&standby])]);
    let config = Config::parse(&text, []).unwrap();
    let outcome = async || server::check_backends(&config).await.remove(0).1;
    assert_eq!(outcome().await, Ok(()));
    standby.go_down().await;
    let problem = outcome().await.unwrap_err();
    assert!(
        problem.starts_with("standby_urls[0]: wrong address: the vendor can't be reached: "),
        "{problem}"
    );
    assert!(problem.contains("(POST /get/job); nothing listens there"), "{problem}");
}
