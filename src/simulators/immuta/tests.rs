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

async fn ask(simulator: &Simulator, asked: Value) -> (u16, Value) {
    let request = send(simulator, Method::POST, "/jobs/statuses", &asked);
    let answer = request.header("authorization", IMMUTA_API_KEY).send().await.unwrap();
    (answer.status().as_u16(), body(answer).await)
}

async fn output(simulator: &Simulator, plan: Plan) -> Value {
    let job = simulator.start_job(plan);
    let (_, mut answer) = ask(simulator, json!({ "jobIds": [job.id] })).await;
    answer[&job.id]["output"].take()
}

#[tokio::test]
async fn a_batch_answers_the_known_jobs_and_leaves_the_others_out() {
    let simulator = start().await;
    let job = simulator.start_job(Plan::default());
    let (status, answer) = ask(&simulator, json!({ "jobIds": [job.id, "nobody"], "wait": 0 })).await;
    let one = json!({ "id": job.id, "state": "completed", "output": null, "retryCount": 0 });
    assert_eq!((status, answer), (200, json!({ job.id: one })));
}

#[tokio::test]
async fn an_output_is_any_json_to_the_last_character() {
    let simulator = start().await;
    assert_eq!(output(&simulator, Plan::succeeds(Outcome::Text("a\"b".into()))).await, "a\"b");
    assert_eq!(output(&simulator, Plan::expires()).await, Value::Null);
    assert_eq!(output(&simulator, Plan::fails("no space")).await["message"], "no space");
    assert_eq!(output(&simulator, Plan::fixed("retry").retried_after("busy")).await["message"], "busy");
    let text = r#"{"n":1e400,"big":123456789012345678901234567890,"a":1,"a":2}"#;
    let job = simulator.start_job(Plan::succeeds(Outcome::json(text).unwrap()));
    let request = send(&simulator, Method::POST, "/jobs/statuses", &json!({ "jobIds": [job.id] }));
    let answer = request.header("authorization", IMMUTA_API_KEY).send().await.unwrap().text().await.unwrap();
    assert!(answer.contains(text), "{answer}");
}

#[tokio::test]
async fn a_wait_ends_with_its_time_or_once_all_jobs_have_ended() {
    let simulator = start().await;
    let running = simulator.start_job(Plan::fixed("active"));
    let since = Instant::now();
    let (_, answer) = ask(&simulator, json!({ "jobIds": [running.id], "wait": 1 })).await;
    assert_eq!(answer[&running.id]["state"], "active");
    assert!(since.elapsed() >= Duration::from_secs(1));

    let asked = json!({ "jobIds": [running.id], "wait": -1, "pollInterval": 1 });
    let (waited, ()) = tokio::join!(ask(&simulator, asked), async {
        simulator.wait_for_calls("/jobs/statuses", 2).await;
        simulator.finish(&running.id);
    });
    assert_eq!(waited.1[&running.id]["state"], "completed");

    let ended = ask(&simulator, json!({ "jobIds": [running.id, "nobody"], "wait": i64::MAX }));
    timeout(Duration::from_secs(5), ended).await.unwrap();
}

#[tokio::test]
async fn a_bad_request_is_told_why_as_boom_does() {
    let simulator = start().await;
    for asked in [
        json!({}),
        json!({ "jobIds": "a" }),
        json!({ "jobIds": [1] }),
        json!({ "jobIds": [], "wait": -2 }),
        json!({ "jobIds": [], "wait": "1" }),
        json!({ "jobIds": [], "pollInterval": 0 }),
    ] {
        let (status, answer) = ask(&simulator, asked.clone()).await;
        assert_eq!(
            (status, &answer["statusCode"], &answer["error"]),
            (400, &json!(400), &json!("Bad Request"))
        );
    }
    let lost = send(&simulator, Method::GET, "/jobs/statuses", &json!({})).send().await.unwrap();
    let boom = json!({ "statusCode": 404, "error": "Not Found", "message": "Not Found" });
    assert_eq!((lost.status().as_u16(), body(lost).await), (404, boom));
}

#[tokio::test]
async fn a_poisoned_id_spoils_the_whole_batch() {
    let simulator = start().await;
    let good = simulator.start_job(Plan::default());
    simulator.poison("bad");
    assert_eq!(ask(&simulator, json!({ "jobIds": [good.id, "bad"] })).await.0, 400);
    assert_eq!(ask(&simulator, json!({ "jobIds": [good.id] })).await.0, 200);
}

#[tokio::test]
async fn a_key_or_its_token_passes_with_and_without_bearer() {
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
        let answer = body(exchange.send().await.unwrap()).await;
        good.push(answer["token"].as_str().unwrap().to_owned());
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
