use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::simulators::{
    Outcome, Plan, Simulator, Vendor,
    credentials::IMMUTA_API_KEY,
    tests::{body, client, send},
};

async fn start() -> Simulator {
    Simulator::start(Vendor::Immuta).await.unwrap()
}

async fn statuses(simulator: &Simulator, request_body: Value) -> (u16, Value) {
    let request = send(simulator, Method::POST, "/jobs/statuses", &request_body);
    let response = request.header("authorization", IMMUTA_API_KEY).send().await.unwrap();
    (response.status().as_u16(), body(response).await)
}

async fn output(simulator: &Simulator, plan: Plan) -> Value {
    let job = simulator.start_job(plan);
    let (_, mut response) = statuses(simulator, json!({ "jobIds": [job.id] })).await;
    response[&job.id]["output"].take()
}

#[tokio::test]
async fn batch_response_omits_unknown_jobs() {
    let simulator = start().await;
    let job = simulator.start_job(Plan::default());
    let (status, response) = statuses(&simulator, json!({ "jobIds": [job.id, "nobody"], "wait": 0 })).await;
    let one = json!({ "id": job.id, "state": "completed", "output": null, "retryCount": 0 });
    assert_eq!((status, response), (200, json!({ job.id: one })));
}

#[tokio::test]
async fn output_is_any_json_byte_for_byte() {
    let simulator = start().await;
    assert_eq!(output(&simulator, Plan::succeeds(Outcome::Text("a\"b".into()))).await, "a\"b");
    assert_eq!(output(&simulator, Plan::expires()).await, Value::Null);
    assert_eq!(output(&simulator, Plan::fails("no space")).await["message"], "no space");
    assert_eq!(output(&simulator, Plan::fixed("retry").retried_after("busy")).await["message"], "busy");
    let text = r#"{"n":1e400,"big":123456789012345678901234567890,"a":1,"a":2}"#;
    let job = simulator.start_job(Plan::succeeds(Outcome::json(text).unwrap()));
    let request = send(&simulator, Method::POST, "/jobs/statuses", &json!({ "jobIds": [job.id] }));
    let response =
        request.header("authorization", IMMUTA_API_KEY).send().await.unwrap().text().await.unwrap();
    assert!(response.contains(text), "{response}");
}

#[tokio::test]
async fn wait_ends_after_its_time_or_when_all_jobs_are_terminal() {
    let simulator = start().await;
    let running = simulator.start_job(Plan::fixed("active"));
    let since = Instant::now();
    let (_, response) = statuses(&simulator, json!({ "jobIds": [running.id], "wait": 1 })).await;
    assert_eq!(response[&running.id]["state"], "active");
    assert!(since.elapsed() >= Duration::from_secs(1));

    let request_body = json!({ "jobIds": [running.id], "wait": -1, "pollInterval": 1 });
    let (waited, ()) = tokio::join!(statuses(&simulator, request_body), async {
        simulator.wait_for_calls("/jobs/statuses", 2).await;
        simulator.finish(&running.id);
    });
    assert_eq!(waited.1[&running.id]["state"], "completed");

    let ended = statuses(&simulator, json!({ "jobIds": [running.id, "nobody"], "wait": i64::MAX }));
    timeout(Duration::from_secs(5), ended).await.unwrap();
}

#[tokio::test]
async fn invalid_request_gets_a_boom_error() {
    let simulator = start().await;
    for request_body in [
        json!({}),
        json!({ "jobIds": "a" }),
        json!({ "jobIds": [1] }),
        json!({ "jobIds": [], "wait": -2 }),
        json!({ "jobIds": [], "wait": "1" }),
        json!({ "jobIds": [], "pollInterval": 0 }),
    ] {
        let (status, response) = statuses(&simulator, request_body.clone()).await;
        assert_eq!(
            (status, &response["statusCode"], &response["error"]),
            (400, &json!(400), &json!("Bad Request"))
        );
    }
    let lost = send(&simulator, Method::GET, "/jobs/statuses", &json!({})).send().await.unwrap();
    let boom = json!({ "statusCode": 404, "error": "Not Found", "message": "Not Found" });
    assert_eq!((lost.status().as_u16(), body(lost).await), (404, boom));
}

#[tokio::test]
async fn poisoned_id_fails_the_whole_batch() {
    let simulator = start().await;
    let good = simulator.start_job(Plan::default());
    simulator.poison("bad");
    assert_eq!(statuses(&simulator, json!({ "jobIds": [good.id, "bad"] })).await.0, 400);
    assert_eq!(statuses(&simulator, json!({ "jobIds": [good.id] })).await.0, 200);
}

#[tokio::test]
async fn api_key_and_token_are_accepted_with_and_without_bearer() {
    let simulator = start().await;
    let url = format!("{}/bim/apikey/authenticate", simulator.base_url());
    let key = json!({ "apikey": IMMUTA_API_KEY });
    let form = client().post(&url).header("content-type", "application/x-www-form-urlencoded");
    let exchanges = [
        send(&simulator, Method::POST, "/bim/apikey/authenticate", &key),
        form.body(format!("apikey={IMMUTA_API_KEY}")),
        client().post(&url).header("authorization", IMMUTA_API_KEY),
    ];
    let mut good = vec![IMMUTA_API_KEY.to_owned()];
    for exchange in exchanges {
        let response = body(exchange.send().await.unwrap()).await;
        good.push(response["token"].as_str().unwrap().to_owned());
    }
    let status = async |authorization: String| {
        let request = send(&simulator, Method::POST, "/jobs/statuses", &json!({ "jobIds": [] }));
        request.header("authorization", authorization).send().await.unwrap().status().as_u16()
    };
    for secret in &good {
        assert_eq!(status(secret.clone()).await, 200);
        assert_eq!(status(format!("Bearer {secret}")).await, 200);
    }
    simulator.expire_tokens();
    assert_eq!(status(good[1].clone()).await, 401);
    assert_eq!(status(good[0].clone()).await, 200);
    simulator.set_secret("new");
    assert_eq!(status(good[0].clone()).await, 401);
    assert_eq!(status("new".to_owned()).await, 200);
    let refused = send(&simulator, Method::POST, "/bim/apikey/authenticate", &key).send().await.unwrap();
    assert_eq!((refused.status().as_u16(), &body(refused).await["error"]), (401, &json!("Unauthorized")));
}
