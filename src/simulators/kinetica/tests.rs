use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::simulators::{
    Effect, Fault, Outcome, Plan, Simulator, Vendor,
    credentials::{KINETICA_PASSWORD, KINETICA_USER},
    tests::{body, client, send},
};

async fn start() -> Simulator {
    Simulator::start(Vendor::Kinetica).await.unwrap()
}

fn basic(password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{KINETICA_USER}:{password}")))
}

async fn post(simulator: &Simulator, path: &str, kind: &str, body: impl Into<reqwest::Body>) -> Response {
    let request = client().post(format!("{}{path}", simulator.base_url())).header("content-type", kind);
    request.header("authorization", basic(KINETICA_PASSWORD)).body(body).send().await.unwrap()
}

async fn get_job(simulator: &Simulator, id: &str, tag: Option<&str>) -> Value {
    let options = tag.map_or(json!({}), |tag| json!({ "job_tag": tag }));
    let response =
        post(simulator, "/get/job", "application/json", format!(r#"{{"job_id":{id},"options":{options}}}"#));
    let wrapper = body(response.await).await;
    serde_json::from_str(wrapper["data_str"].as_str().unwrap()).unwrap_or(wrapper)
}

#[tokio::test]
async fn json_response_has_the_documented_bytes() {
    let simulator = start().await;
    let result = Outcome::json(r#"{"table_name":"t","value":"\"q\"","info":{}}"#).unwrap();
    simulator.start_job(Plan::succeeds(result).id("4611686018427387907").tag("tag-2"));
    let request_body = r#"{"job_id": 4611686018427387907, "options": {}}"#;
    let response = post(&simulator, "/get/job", "application/json", request_body).await;
    assert_eq!(response.status(), 200);
    assert_eq!(&response.headers()["content-type"], "application/json");
    let wanted = r#"{"status":"OK","message":"","data_type":"get_job_response","data":"","data_str":"{\"endpoint\":\"/alter/table\",\"job_status\":\"DONE\",\"running\":false,\"progress\":100,\"successful\":true,\"response_encoding\":\"json\",\"job_response\":\"\",\"job_response_str\":\"{\\\"table_name\\\":\\\"t\\\",\\\"value\\\":\\\"\\\\\\\"q\\\\\\\"\\\",\\\"info\\\":{}}\",\"status_map\":{},\"info\":{\"job_tag\":\"tag-2\"}}"}"#;
    assert_eq!(response.text().await.unwrap(), wanted);
}

#[tokio::test]
async fn binary_response_has_the_documented_bytes() {
    let simulator = start().await;
    let mut request_body = vec![0x86, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01];
    request_body.extend_from_slice(b"\x02\x0ejob_tag\x04t1\x00");
    simulator.start_job(Plan::fixed("RUNNING").id("4611686018427387907").tag("t1").kind("/x"));
    let record = b"\x04/x\x0eRUNNING\x01\x00\x00\x08json\x00\x00\x00\x02\x0ejob_tag\x04t1\x00";
    let mut wanted = b"\x04OK\x00\x20get_job_response".to_vec();
    wanted.push(u8::try_from(record.len() * 2).unwrap());
    wanted.extend_from_slice(record);
    wanted.push(0);
    let response = post(&simulator, "/get/job", "application/octet-stream", request_body.clone()).await;
    assert_eq!(&response.headers()["content-type"], "application/octet-stream");
    assert_eq!(response.bytes().await.unwrap(), wanted);

    // The response to snappy is not compressed.
    let compressed = snap::raw::Encoder::new().compress_vec(&request_body).unwrap();
    let response = post(&simulator, "/get/job", "application/x-snappy", compressed).await;
    assert_eq!(response.bytes().await.unwrap(), wanted);
    assert!(simulator.calls().iter().all(|call| call.job_ids == ["4611686018427387907"]));

    let missing = post(&simulator, "/get/job", "application/octet-stream", b"\x02\x00".to_vec()).await;
    assert_eq!(missing.status(), 400);
    let message = "Job id 1 not found (Simulator/J:404)";
    let mut wanted = b"\x0aERROR".to_vec();
    wanted.push(u8::try_from(message.len() * 2).unwrap());
    wanted.extend_from_slice(message.as_bytes());
    wanted.extend_from_slice(b"\x08none\x00\x00");
    assert_eq!(missing.bytes().await.unwrap(), wanted);
}

#[tokio::test]
async fn binary_output_has_one_code_point_per_byte() {
    let simulator = start().await;
    let every_byte: Vec<u8> = (0..=255).collect();
    let job = simulator.start_job(Plan::succeeds(Outcome::Binary(every_byte.clone())));
    let response = get_job(&simulator, &job.id, None).await;
    let got: Vec<u32> = response["job_response"].as_str().unwrap().chars().map(u32::from).collect();
    assert_eq!(got, every_byte.into_iter().map(u32::from).collect::<Vec<_>>());
    assert_eq!(response["response_encoding"], "binary");
}

#[tokio::test]
async fn cancelled_job_runs_until_it_has_stopped() {
    let simulator = start().await;
    let job = simulator.start_job(
        Plan::fixed("CANCELLED")
            .ends(crate::simulators::End::Cancelled { still_running_for: std::time::Duration::ZERO }),
    );
    let response = get_job(&simulator, &job.id, None).await;
    assert_eq!((&response["job_status"], &response["running"]), (&json!("CANCELLED"), &json!(true)));
    simulator.finish(&job.id);
    let response = get_job(&simulator, &job.id, None).await;
    assert_eq!((&response["job_status"], &response["running"]), (&json!("CANCELLED"), &json!(false)));
}

#[tokio::test]
async fn tag_finds_a_job_of_another_cluster() {
    let simulator = start().await;
    simulator.start_job(Plan::fails("no table").tag("t-1"));
    let response = get_job(&simulator, "7", Some("t-1")).await;
    assert_eq!(response["status_map"], json!({ "error_message": "no table" }));
    assert_eq!(get_job(&simulator, "7", Some("t-2")).await["status"], "ERROR");
}

#[tokio::test]
async fn error_response_has_all_five_keys_and_http_400() {
    let simulator = start().await;
    for request_body in
        [r#"{"job_id":5,"options":{}}"#, r#"{"options":{},"job_id":5}"#, r#"{"job_id":5}"#, "[", "null"]
    {
        let response = post(&simulator, "/get/job", "application/json", request_body).await;
        assert_eq!(response.status(), 400);
        let response = body(response).await;
        let keys: Vec<_> = response.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["data", "data_str", "data_type", "message", "status"]);
        assert_eq!((&response["status"], &response["data_type"]), (&json!("ERROR"), &json!("none")));
    }
    simulator.inject(Fault::new(Effect::Refuse("System shutting down".into())));
    assert_eq!(get_job(&simulator, "5", None).await["message"], "System shutting down");
}

#[tokio::test]
async fn only_valid_password_or_token_is_accepted() {
    let simulator = start().await;
    let request_body = json!({ "options": {} });
    let status = async |authorization: String| {
        let request = send(&simulator, Method::POST, "/show/system/status", &request_body);
        request.header("authorization", authorization).send().await.unwrap().status().as_u16()
    };
    assert_eq!(status(basic(KINETICA_PASSWORD)).await, 200);
    assert_eq!(status(format!("Bearer {}", simulator.issue_token())).await, 200);
    assert_eq!(status(basic("wrong")).await, 401);
    assert_eq!(status("Bearer undefined".to_owned()).await, 401);
    assert_eq!(send(&simulator, Method::POST, "/get/job", &request_body).send().await.unwrap().status(), 401);
    simulator.reject_credentials(true);
    assert_eq!(status(basic(KINETICA_PASSWORD)).await, 401);
}

#[tokio::test]
async fn kinetica_is_served_below_a_proxy_prefix_and_nowhere_else() {
    let simulator = start().await;
    let job = simulator.start_job(Plan::default());
    let request_body = format!(r#"{{"job_id":{},"options":{{}}}}"#, job.id);
    for (path, wanted) in [
        ("/gpudb-0/get/job", 200),
        ("/abc/gpudb-0/get/job", 200),
        ("/get/jobs", 404),
        ("/gpudb-0/alter/job", 404),
    ] {
        let response = post(&simulator, path, "application/json", request_body.clone()).await;
        assert_eq!(response.status(), wanted, "{path}");
    }
    assert_eq!(simulator.calls()[0].job_ids, [job.id]);
}
