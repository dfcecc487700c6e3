use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::simulators::{
    Category, Content, Effect, Fault, Plan, Simulator, Vendor,
    credentials::{CLARET_EMAIL, CLARET_PASSWORD},
    tests::{body, client},
};

async fn start() -> Simulator {
    Simulator::start(Vendor::Claret).await.unwrap()
}

fn get(simulator: &Simulator, path: &str) -> RequestBuilder {
    let request = client().get(format!("{}{path}", simulator.base_url()));
    request.bearer_auth(simulator.issue_token()).header("x-requested-with", "XMLHttpRequest")
}

async fn status(simulator: &Simulator, id: &str) -> (u16, Value) {
    let response = get(simulator, &format!("/demo/api/v1/imports/status/{id}")).send().await.unwrap();
    (response.status().as_u16(), body(response).await)
}

fn log_in(simulator: &Simulator, password: &str) -> RequestBuilder {
    let mut url = url::Url::parse(&simulator.base_url()).unwrap();
    url.set_path("/demo/api/v1/tokens/create");
    url.query_pairs_mut().append_pair("email", CLARET_EMAIL).append_pair("password", password);
    client().post(url.as_str())
}

#[tokio::test]
async fn status_response_has_the_documented_fields() {
    let simulator = start().await;
    let plan = Plan::default().steps(["load", "check"]).file(Category::Input, "in.csv", Content::default());
    let job = simulator.start_job(plan.file(Category::Output, "out.csv", Content::default()));
    let (code, response) = status(&simulator, &job.id).await;
    assert_eq!((code, &response["message"]), (200, &json!("Job status retrieved successfully")));
    let content = &response["content"];
    assert_eq!(content["job_log_id"], json!(job.id.parse::<i64>().unwrap()));
    assert_eq!(content["status"], "completed");
    assert_eq!((&content["type"], &content["user_id"]), (&json!("inventory-import"), &json!(42)));
    let done = json!({ "completed_steps": 2, "total_steps": 2, "current_step": null });
    assert_eq!(content["progress"], done);
    let output = content["files"]["output"][0].as_str().unwrap();
    assert!(output.starts_with("/demo/download/demo/user-uploads/inventory-import/2"), "{output}");
    assert_eq!(content["files"]["errors"], json!([]));
    let link = format!("/demo/settings/application-maintenance/job-management/imports/logs/{}", job.id);
    assert_eq!(content["job_status_link"], simulator.base_url() + &link);
    let started = content["timestamps"]["started_at"].as_str().unwrap();
    assert_eq!((started.len(), &started[19..20], started.ends_with('Z')), (27, ".", true), "{started}");
}

#[tokio::test]
async fn steps_files_and_times_appear_as_the_job_proceeds() {
    let simulator = start().await;
    let plan =
        Plan::fixed("pending").steps(["load", "check"]).file(Category::Input, "in.csv", Content::default());
    let job = simulator.start_job(plan.file(Category::Staging, "staging.csv", Content::default()));
    let content = async || status(&simulator, &job.id).await.1["content"].take();
    let pending = content().await;
    assert_eq!(pending["timestamps"], json!({ "started_at": null, "completed_at": null }));
    assert_eq!(pending["files"]["input"].as_array().unwrap().len(), 1);
    simulator.set_state(&job.id, "in_progress");
    assert_eq!(content().await["progress"]["current_step"], "load");
    assert_eq!(content().await["files"]["staging"], json!([]));
    simulator.set_progress(&job.id, 60);
    assert_eq!(content().await["progress"]["current_step"], "check");
    assert_eq!(content().await["files"]["staging"].as_array().unwrap().len(), 1);
    simulator.set_state(&job.id, "failed");
    let failed = content().await;
    assert_eq!((&failed["status"], &failed["progress"]["current_step"]), (&json!("failed"), &Value::Null));
    assert!(failed["timestamps"]["completed_at"].is_string());
}

#[tokio::test]
async fn missing_job_and_invalid_id_get_different_errors() {
    let simulator = start().await;
    let missing = json!({
        "message": "Job not found or you do not have access to this job.",
        "error": { "error": "Job log ID does not exist" }
    });
    assert_eq!(status(&simulator, "99999").await, (422, missing));
    let (code, bad) = status(&simulator, "abc").await;
    assert_eq!((code, bad["errors"]["job_log_id"].as_array().map(Vec::len)), (422, Some(1)));
}

#[tokio::test]
async fn client_that_does_not_accept_json_is_redirected_to_login() {
    let simulator = start().await;
    let url = format!("{}/demo/api/v1/imports/status/1", simulator.base_url());
    let page = client().get(&url).send().await.unwrap();
    let login = format!("{}/demo/login", simulator.base_url());
    assert_eq!((page.status().as_u16(), page.headers()["location"].to_str().unwrap()), (302, &*login));
    for (name, value) in [("x-requested-with", "XMLHttpRequest"), ("accept", "application/json")] {
        let response = client().get(&url).header(name, value).send().await.unwrap();
        assert_eq!(response.status(), 401);
        assert_eq!(body(response).await, json!({ "message": "Unauthenticated." }));
    }
    let html = client().get(&url).header("x-requested-with", "XMLHttpRequest").header("accept", "text/html");
    assert_eq!(html.send().await.unwrap().status(), 302);
}

#[tokio::test]
async fn email_and_password_in_the_query_yield_a_valid_token() {
    let simulator = start().await;
    let response = body(log_in(&simulator, CLARET_PASSWORD).send().await.unwrap()).await;
    let token = response["token"].as_str().unwrap();
    assert!(token.split_once('|').is_some_and(|(_, secret)| secret.len() == 40), "{token}");
    let url = format!("{}/demo/api/v1/imports/status/1", simulator.base_url());
    let request = || client().get(&url).bearer_auth(token).header("accept", "application/json").send();
    assert_eq!(request().await.unwrap().status(), 422);
    simulator.expire_tokens();
    assert_eq!(request().await.unwrap().status(), 401);
    let wrong = log_in(&simulator, "wrong").header("accept", "application/json");
    assert_eq!(wrong.send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn other_tenant_route_or_method_is_not_served() {
    let simulator = start().await;
    for path in ["/other/api/v1/imports/status/1", "/demo/api/v2/imports/status/1"] {
        assert_eq!(get(&simulator, path).send().await.unwrap().status(), 404, "{path}");
    }
    let url = format!("{}/demo/api/v1/imports/status/1", simulator.base_url());
    let post = client().request(Method::POST, url).send().await.unwrap();
    assert_eq!(post.status(), 405);
}

#[tokio::test]
async fn file_is_sent_whole_or_as_the_requested_range() {
    let simulator = start().await;
    let plan = Plan::default().file(Category::Output, "out.csv", Content::Bytes("0123456789".into()));
    let job = simulator.start_job(plan.file(Category::Output, "big.csv", Content::Pattern(200_000)));
    let files = status(&simulator, &job.id).await.1["content"]["files"]["output"].take();
    let path = files[0].as_str().unwrap();
    let whole = get(&simulator, path).send().await.unwrap();
    assert_eq!((whole.status().as_u16(), whole.content_length()), (200, Some(10)));
    assert_eq!(whole.text().await.unwrap(), "0123456789");
    for (range, code, text) in [
        ("bytes=3-", 206, "3456789"),
        ("bytes=3-5", 206, "345"),
        ("bytes=-2", 206, "89"),
        ("bytes=8-100", 206, "89"),
        ("bytes=10-", 416, ""),
        ("lines=1-2", 200, "0123456789"),
    ] {
        let response = get(&simulator, path).header("range", range).send().await.unwrap();
        assert_eq!((response.status().as_u16(), &*response.text().await.unwrap()), (code, text), "{range}");
    }
    simulator.inject(Fault::new(Effect::IgnoreRange));
    let ignored = get(&simulator, path).header("range", "bytes=3-").send().await.unwrap();
    assert_eq!((ignored.status().as_u16(), ignored.content_length()), (200, Some(10)));
    simulator.clear_faults();
    let big =
        get(&simulator, files[1].as_str().unwrap()).header("range", "bytes=100000-").send().await.unwrap();
    assert_eq!(&big.headers()["content-range"], "bytes 100000-199999/200000");
    let big = big.bytes().await.unwrap();
    assert_eq!((big.len(), big[0]), (100_000, Content::pattern(100_000)));
    let stranger = client().get(simulator.base_url() + path).header("accept", "application/json");
    assert_eq!(stranger.send().await.unwrap().status(), 401);
}
