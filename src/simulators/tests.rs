//! What all simulators have in common, and what their tests share.

use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response, redirect::Policy};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::{
    Authorization, Effect, Elements, End, Fault, GraphQlError, Outcome, Plan, Simulator, SimulatorSet,
    Vendor, credentials,
};

/// A client that does not follow redirects.
pub(super) fn client() -> Client {
    Client::builder().redirect(Policy::none()).timeout(Duration::from_secs(10)).build().unwrap()
}

/// A request with a JSON body.
pub(super) fn send(simulator: &Simulator, method: Method, path: &str, body: &Value) -> RequestBuilder {
    let url = format!("{}{path}", simulator.base_url());
    client().request(method, url).header("content-type", "application/json").body(body.to_string())
}

pub(super) async fn body(response: Response) -> Value {
    serde_json::from_str(&response.text().await.unwrap()).unwrap()
}

fn request(simulator: &Simulator, ids: &[&str]) -> RequestBuilder {
    let request = send(simulator, Method::POST, "/jobs/statuses", &json!({ "jobIds": ids }));
    request.header("authorization", credentials::IMMUTA_API_KEY)
}

async fn immuta() -> Simulator {
    Simulator::start(Vendor::Immuta).await.unwrap()
}

#[tokio::test]
async fn job_passes_through_the_states_of_its_plan() {
    let simulator = immuta().await;
    let hour = Duration::from_hours(1);
    let plans = [
        (Plan::default().queued_for(hour), Some("created")),
        (Plan::default().running_for(hour), Some("active")),
        (Plan::default(), Some("completed")),
        (Plan::fails("no"), Some("failed")),
        (Plan::is_cancelled(Duration::ZERO), Some("cancelled")),
        (Plan::is_cancelled(hour), Some("active")),
        (Plan::expires(), Some("expired")),
        (Plan::default().appears_after(hour), None),
        (Plan::default().vanishes_after(Duration::ZERO), None),
        (Plan::fixed("retry"), Some("retry")),
        (Plan::fixed("a new word"), Some("a new word")),
    ];
    for (plan, wanted) in plans {
        let job = simulator.start_job(plan.clone());
        let response = body(request(&simulator, &[&job.id]).send().await.unwrap()).await;
        assert_eq!(response[&job.id]["state"].as_str(), wanted, "{plan:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn retried_job_runs_waits_and_runs_again() {
    let jobs = super::Jobs::new(Vendor::Immuta.words());
    jobs.start(
        "j".into(),
        "t".into(),
        Plan::default().running_for(Duration::from_secs(30)).retried_after("no"),
    );
    let mut seen = Vec::new();
    for _ in 0..4 {
        let snapshot = jobs.snapshot("j").unwrap();
        seen.push((snapshot.word, snapshot.retried_after.is_some()));
        tokio::time::advance(Duration::from_millis(10_500)).await;
    }
    let wanted = [("active", false), ("retry", true), ("active", true), ("completed", true)];
    assert_eq!(seen, wanted.map(|(word, retried)| (word.to_owned(), retried)));
}

#[tokio::test]
async fn job_state_can_be_set_by_a_test() {
    let simulator = immuta().await;
    let job =
        simulator.start_job(Plan::fixed("created").ends(End::Failure { message: "out of space".into() }));
    let state = async || body(request(&simulator, &[&job.id]).send().await.unwrap()).await[&job.id].clone();
    assert_eq!(state().await["state"], "created");
    assert!(simulator.set_state(&job.id, "active"));
    assert_eq!(state().await["state"], "active");
    assert!(simulator.finish(&job.id));
    assert_eq!(state().await["output"]["message"], "out of space");
    assert!(simulator.finish_with(&job.id, End::Success(Outcome::Text("done".into()))));
    assert_eq!(state().await["output"], "done");
    assert!(simulator.forget(&job.id));
    assert_eq!(state().await, Value::Null);
    assert!(!simulator.set_state(&job.id, "active"));
}

#[tokio::test]
async fn call_log_names_the_jobs_but_not_the_secret() {
    let simulator = immuta().await;
    request(&simulator, &["a", "b"]).send().await.unwrap();
    let unknown = send(&simulator, Method::POST, "/elsewhere", &json!({})).bearer_auth("t");
    unknown.send().await.unwrap();
    timeout(Duration::from_secs(5), simulator.wait_for_responses("/", 2)).await.unwrap();
    let calls = simulator.calls();
    assert_eq!(calls[0].job_ids, ["a", "b"]);
    assert_eq!((calls[0].authorization, calls[0].status), (Authorization::Raw, Some(200)));
    assert_eq!((calls[1].authorization, calls[1].status), (Authorization::Bearer, Some(404)));
    assert!(!format!("{calls:?}").contains(credentials::IMMUTA_API_KEY));
    assert_eq!((simulator.count("/jobs"), simulator.count("")), (1, 2));
    simulator.clear_calls();
    assert_eq!(simulator.count(""), 0);
}

#[tokio::test]
async fn fault_applies_to_its_path_job_and_number_of_times() {
    let simulator = immuta().await;
    simulator.inject(Fault::new(Effect::retry_after(503, 7)).at("/jobs").for_job("a").times(1));
    simulator.inject(Fault::new(Effect::status(429, "{}")).for_job("a").times(1));
    let status = async |id| request(&simulator, &[id]).send().await.unwrap();
    assert_eq!(status("b").await.status(), 200);
    let first = status("a").await;
    assert_eq!((first.status().as_u16(), &first.headers()["retry-after"]), (503, &"7".parse().unwrap()));
    assert_eq!(status("a").await.status(), 429);
    assert_eq!(status("a").await.status(), 200);
}

#[tokio::test]
async fn every_effect_changes_the_response_as_documented() {
    let simulator = immuta().await;
    let response = async |effect| {
        simulator.clear_faults();
        simulator.inject(Fault::new(effect));
        request(&simulator, &[]).send().await
    };
    assert!(response(Effect::Reset).await.is_err());
    assert_eq!(response(Effect::Empty204).await.unwrap().status(), 204);
    let html = response(Effect::Html(200)).await.unwrap();
    assert!(html.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
    let redirect = response(Effect::Redirect("/login".into())).await.unwrap();
    assert_eq!(
        (redirect.status().as_u16(), &redirect.headers()["location"]),
        (302, &"/login".parse().unwrap())
    );
    let odd = response(Effect::WrongContentType("text/csv".into())).await.unwrap();
    assert_eq!(
        (&odd.headers()["content-type"], odd.content_length()),
        (&"text/csv".parse().unwrap(), Some(2))
    );
    let huge = response(Effect::HugeBody(1_000_000)).await.unwrap();
    assert_eq!(huge.bytes().await.unwrap().len(), 1_000_000);
    assert_eq!(body(response(Effect::Refuse("no".into())).await.unwrap()).await["message"], "no");
    let mut truncated = response(Effect::Truncate(1)).await.unwrap();
    assert_eq!(truncated.content_length(), Some(2));
    assert_eq!(truncated.chunk().await.unwrap().unwrap(), "{");
    assert!(truncated.chunk().await.is_err());
    let since = Instant::now();
    response(Effect::Delay(Duration::from_millis(30))).await.unwrap();
    assert!(since.elapsed() >= Duration::from_millis(30));
    let error = GraphQlError { message: "partly".into(), with_data: true, ..GraphQlError::default() };
    let response = response(Effect::GraphQlError(error)).await.unwrap();
    assert_eq!(body(response).await["errors"][0]["message"], "partly");
}

#[tokio::test]
async fn hanging_call_is_logged_without_a_status() {
    let simulator = immuta().await;
    simulator.inject(Fault::new(Effect::Hang));
    let call = tokio::spawn(request(&simulator, &["a"]).send());
    timeout(Duration::from_secs(5), simulator.wait_for_calls("/jobs", 1)).await.unwrap();
    assert_eq!(simulator.calls()[0].status, None);
    call.abort();
}

#[tokio::test]
async fn stopped_vendor_ends_calls_and_keeps_jobs() {
    let simulator = immuta().await;
    let job = simulator.start_job(Plan::default());
    simulator.inject(Fault::new(Effect::Hang).times(1));
    let held = tokio::spawn(request(&simulator, &[&job.id]).send());
    timeout(Duration::from_secs(5), simulator.wait_for_calls("/jobs", 1)).await.unwrap();
    simulator.go_down().await;
    assert!(timeout(Duration::from_secs(5), held).await.unwrap().unwrap().is_err());
    assert!(request(&simulator, &[&job.id]).send().await.unwrap_err().is_connect());
    simulator.come_back().await.unwrap();
    let response = body(request(&simulator, &[&job.id]).send().await.unwrap()).await;
    assert_eq!(response[&job.id]["state"], "completed");
}

#[tokio::test]
async fn port_of_a_stopped_vendor_is_kept_for_it() {
    let simulator = immuta().await;
    let bind = || tokio::net::TcpSocket::new_v4().unwrap().bind(simulator.addr());
    simulator.go_down().await;
    assert_eq!(bind().unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    simulator.come_back().await.unwrap();
    request(&simulator, &["1"]).send().await.unwrap();
}

#[tokio::test]
async fn dropped_simulator_stops_listening() {
    let simulator = immuta().await;
    let addr = simulator.addr();
    drop(simulator);
    let gone = async {
        while tokio::net::TcpStream::connect(addr).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(5), gone).await.unwrap();
}

#[tokio::test]
async fn admin_api_offers_every_function() {
    let simulator = immuta().await;
    let admin = async |method, path: &str, body| {
        send(&simulator, method, &format!("/_simulator/{path}"), &body).send().await.unwrap()
    };
    let plan = json!({ "id": "a/b", "running_for_ms": 3_600_000, "end": { "failure": { "message": "no" } } });
    let started = admin(Method::POST, "jobs", plan).await;
    assert_eq!(started.status(), 201);
    assert_eq!(body(started).await, json!({ "id": "a/b", "tag": null }));
    let state =
        async || body(request(&simulator, &["a/b"]).send().await.unwrap()).await["a/b"]["state"].clone();
    assert_eq!(state().await, "active");
    assert_eq!(admin(Method::PUT, "jobs/a%2Fb/state", json!({ "state": "retry" })).await.status(), 204);
    assert_eq!(state().await, "retry");
    let end = json!({ "success": { "json": [1e2, 9_007_199_254_740_993_u64] } });
    assert_eq!(admin(Method::POST, "jobs/a%2Fb/finish", end).await.status(), 204);
    assert_eq!(state().await, "completed");
    let fault = json!({ "effect": { "status": { "code": 503 } }, "path": "/jobs", "times": 1 });
    assert_eq!(admin(Method::POST, "faults", fault).await.status(), 204);
    assert_eq!(request(&simulator, &[]).send().await.unwrap().status(), 503);
    assert_eq!(admin(Method::POST, "poison/a%2Fb", json!({})).await.status(), 204);
    assert_eq!(request(&simulator, &["a/b"]).send().await.unwrap().status(), 400);
    assert_eq!(admin(Method::DELETE, "faults", json!({})).await.status(), 204);
    assert_eq!(admin(Method::PUT, "credentials", json!({ "reject": true })).await.status(), 204);
    assert_eq!(request(&simulator, &[]).send().await.unwrap().status(), 401);
    assert_eq!(body(admin(Method::GET, "calls", json!({})).await).await.as_array().unwrap().len(), 6);
    assert_eq!(admin(Method::POST, "faults", json!({ "effect": "nonsense" })).await.status(), 422);
    assert_eq!(admin(Method::DELETE, "jobs/nobody", json!({})).await.status(), 404);
}

#[tokio::test]
async fn invalid_fault_is_refused_with_its_field_and_valid_values() {
    let simulator = immuta().await;
    for (fault, wanted) in [
        (json!({ "effect": "nonsense" }), &["effect: unknown variant `nonsense`", "`twice`", "`json`"][..]),
        (json!({ "effect": { "json": { "put": "x" } } }), &["effect.json.put", "`x`", "`deep`", "`nan`"]),
        (json!({ "effect": "hang", "time": 1 }), &["unknown field `time`", "`effect`", "`times`"]),
        (json!({ "effect": { "throttle": { "bytes": 1, "pause": 1 } } }), &["effect.throttle", "`pause_ms`"]),
        (
            json!({ "effect": { "throttle": { "bytes": 0, "pause_ms": 1 } } }),
            &["effect.throttle.bytes", "nonzero"],
        ),
        (json!({ "effect": { "status": { "code": 99 } } }), &["effect.status.code", "200 to 999"]),
        (json!({ "effect": { "html": 1000 } }), &["effect.html", "200 to 999"]),
        (json!({ "effect": { "status": { "code": 200, "body_base64": "?" } } }), &["body_base64", "base64"]),
        (json!({ "effect": { "status": { "code": 200, "headers": { "a b": "" } } } }), &["headers", "a b"]),
        (json!({ "effect": { "delay": -1 } }), &["effect.delay", "-1"]),
        (json!({ "times": 1 }), &["missing field `effect`"]),
    ] {
        let response = send(&simulator, Method::POST, "/_simulator/faults", &fault).send().await.unwrap();
        assert_eq!(response.status(), 422, "{fault}");
        let text = response.text().await.unwrap();
        for word in wanted {
            assert!(text.contains(word), "{fault}: {text}");
        }
    }
    assert_eq!(request(&simulator, &[]).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn response_can_list_other_more_or_fewer_jobs() {
    let simulator = immuta().await;
    for id in ["a", "b"] {
        simulator.start_job(Plan::fixed("active").id(id));
    }
    for (about, wanted) in
        [(vec!["b"], json!(["b"])), (vec!["a", "b"], json!(["a", "b"])), (vec![], json!([]))]
    {
        let about = about.into_iter().map(str::to_owned).collect();
        simulator.inject(Fault::new(Effect::AnswerFor(about)).times(1));
        let response = body(request(&simulator, &["a"]).send().await.unwrap()).await;
        let ids: Vec<_> = response.as_object().unwrap().values().map(|record| record["id"].clone()).collect();
        assert_eq!(json!(ids), wanted);
    }
}

#[tokio::test]
async fn poisonous_job_affects_every_request_that_lists_it_until_it_is_healed() {
    let simulator = immuta().await;
    for id in ["good", "bad", "other"] {
        simulator.start_job(Plan::fixed("active").id(id));
    }
    let status = async |ids: &[&str]| request(&simulator, ids).send().await.unwrap().status().as_u16();
    simulator.poison_with("bad", Effect::status(502, "{}"));
    simulator.inject(Fault::new(Effect::status(503, "{}")).for_job("other"));
    for _ in 0..3 {
        assert_eq!(status(&["good", "bad"]).await, 502);
        assert_eq!(status(&["good"]).await, 200);
    }
    simulator.heal("bad");
    assert_eq!(status(&["good", "bad"]).await, 200);
    assert_eq!(status(&["other"]).await, 503, "only the job's own faults are removed");
    simulator.poison("bad");
    assert_eq!(status(&["good", "bad"]).await, 400);
    simulator.heal("bad");
    assert_eq!(status(&["good", "bad"]).await, 200);
}

#[tokio::test]
async fn poisonous_job_over_http_takes_an_effect() {
    let simulator = immuta().await;
    let admin = async |method, body| {
        send(&simulator, method, "/_simulator/poison/a", &body).send().await.unwrap().status().as_u16()
    };
    let status = async |id| request(&simulator, &[id]).send().await.unwrap().status().as_u16();
    assert_eq!(admin(Method::POST, json!({ "html": 502 })).await, 204);
    assert_eq!((status("a").await, status("b").await), (502, 200));
    assert_eq!(admin(Method::DELETE, json!({})).await, 204);
    assert_eq!(status("a").await, 200);
    assert_eq!(admin(Method::POST, json!("nonsense")).await, 422);
}

#[tokio::test]
async fn elements_are_omitted_and_added() {
    let simulator = immuta().await;
    for id in ["a", "b", "c"] {
        simulator.start_job(Plan::fixed("active").id(id));
    }
    let elements = Elements { omit: vec!["b".into()], add: vec!["c".into()] };
    simulator.poison_with("b", Effect::Elements(elements));
    let ids = async |ids: &[&str]| {
        let response = body(request(&simulator, ids).send().await.unwrap()).await;
        response.as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(ids(&["a", "b"]).await, ["a", "c"]);
    assert_eq!(ids(&["a"]).await, ["a"]);
}

#[tokio::test]
async fn held_response_has_the_state_at_the_request() {
    let simulator = immuta().await;
    let job = simulator.start_job(Plan::fixed("created"));
    simulator.inject(Fault::new(Effect::HoldResponse).times(1));
    let held = tokio::spawn(request(&simulator, &[&job.id]).send());
    timeout(Duration::from_secs(5), simulator.wait_for_responses("/jobs", 1)).await.unwrap();
    simulator.set_state(&job.id, "active");
    let other = body(request(&simulator, &[&job.id]).send().await.unwrap()).await;
    assert_eq!(other[&job.id]["state"], "active", "the next response is not held");
    assert!(!held.is_finished());
    simulator.clear_faults();
    assert_eq!(body(held.await.unwrap().unwrap()).await[&job.id]["state"], "created");
}

#[tokio::test]
async fn result_has_the_size_of_the_plan() {
    let simulator = immuta().await;
    let job = simulator.start_job(serde_json::from_str(r#"{"end":{"success":{"size":1000}}}"#).unwrap());
    let response = body(request(&simulator, &[&job.id]).send().await.unwrap()).await;
    assert_eq!(response[&job.id]["output"].as_str().unwrap().len(), 1000);
}

#[tokio::test]
async fn response_body_and_values_can_be_anything() {
    let simulator = immuta().await;
    simulator.start_job(Plan::fixed("active").id("a"));
    for (effect, wanted) in [
        (json!({ "status": { "code": 200, "body_base64": "eyL/In0=" } }), &b"{\"\xff\"}"[..]),
        (json!({ "status": { "code": 200, "body": r#"{"a":1,"a":"\ud800"}"# } }), br#"{"a":1,"a":"\ud800"}"#),
        (
            json!({ "json": { "put": "nan", "at": "/a/state" } }),
            br#"{"a":{"id":"a","state":NaN,"output":null,"retryCount":0}}"#,
        ),
        (
            json!({ "json": { "put": "duplicate_key", "at": "/a/state" } }),
            br#"{"a":{"id":"a","state":"active","state":null,"output":null,"retryCount":0}}"#,
        ),
        (
            json!({ "json": { "put": "invalid_utf8", "at": "/a/output" } }),
            b"{\"a\":{\"id\":\"a\",\"state\":\"active\",\"output\":\"\xff\xc3\x28\",\"retryCount\":0}}",
        ),
    ] {
        simulator.inject(serde_json::from_value(json!({ "effect": effect, "times": 1 })).unwrap());
        let response = request(&simulator, &["a"]).send().await.unwrap();
        assert_eq!(
            response.headers()["content-type"].to_str().unwrap().split(';').next(),
            Some("application/json")
        );
        assert_eq!(response.bytes().await.unwrap(), wanted, "{effect}");
    }
}

#[tokio::test]
async fn simulator_set_starts_jobs_and_a_matching_configuration() {
    let set = SimulatorSet::start().await.unwrap();
    let jobs = set.start_demo_jobs();
    let config: toml::Table = set.config().parse().unwrap();
    assert_eq!(config["allow_inline_secrets"].as_bool(), Some(true));
    for vendor in Vendor::ALL {
        let backend = &config["backends"][vendor.name()];
        assert_eq!(backend["base_url"].as_str(), Some(&*set.simulator(vendor).base_url()));
        assert_eq!(backend["poll"]["max_interval"].as_str(), Some("2s"));
        assert!((3..=4).contains(&jobs.iter().filter(|job| job.backend == vendor.name()).count()));
    }
    assert!(jobs.iter().all(|job| job.tag.is_some() == (job.backend == "kinetica")));
}

#[test]
fn demo_jobs_end_in_every_way_within_a_minute() {
    let plans: Vec<_> = Vendor::ALL.into_iter().flat_map(super::simulator_set::demo_plans).collect();
    for (title, plan) in &plans {
        let runs_on = match plan.end {
            End::Cancelled { still_running_for } => still_running_for,
            _ => Duration::ZERO,
        };
        let total = plan.queued_for + plan.running_for + runs_on;
        assert!((Duration::from_secs(5)..=Duration::from_mins(1)).contains(&total), "{title}");
    }
    let one = |wanted: fn(&Plan) -> bool| plans.iter().any(|(_, plan)| wanted(plan));
    assert!(one(|plan| matches!(plan.end, End::Success(Outcome::Json(_)))));
    assert!(one(|plan| matches!(plan.end, End::Success(Outcome::Text(_)))));
    assert!(one(|plan| matches!(plan.end, End::Success(Outcome::Binary(_)))));
    assert!(one(|plan| matches!(plan.end, End::Failure { .. })));
    assert!(one(|plan| matches!(plan.end, End::Cancelled { .. })));
    assert!(one(|plan| matches!(plan.end, End::Expired)));
    assert!(one(|plan| plan.retried_after.is_some()));
    assert!(one(|plan| plan.appears_after > Duration::ZERO));
    assert!(one(|plan| !plan.files.is_empty()));
}

#[test]
fn simulators_use_no_other_module_of_the_crate() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.join("simulators")];
    let mut files = vec![root.join("simulators.rs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    let stranger = concat!("crate", "::");
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap().replace(concat!("crate", "::simulators"), "");
        assert!(!text.contains(stranger), "{}", file.display());
    }
}
