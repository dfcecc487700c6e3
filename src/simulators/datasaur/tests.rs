use std::collections::BTreeMap;

use async_graphql::parser::{
    parse_schema,
    types::{TypeKind, TypeSystemDefinition},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::schema;
use crate::simulators::{
    Effect, Fault, GraphQlError, Outcome, Plan, Simulator, SimulatorState, Vendor,
    credentials::{DATASAUR_CLIENT_ID, DATASAUR_CLIENT_SECRET},
    tests::{body, client, send},
};

/// What the vendor published about jobs.
const PUBLISHED: &str = "
type Query {
  getExportDeliveryStatus(exportId: ID!): GetExportDeliveryStatusResult!
  getJob(jobId: String!): Job
  getJobs(jobIds: [String!]!): [Job]!
}
enum ExportDeliveryStatus { DELIVERED FAILED IN_PROGRESS NONE QUEUED }
type GetExportDeliveryStatusResult { deliveryStatus: ExportDeliveryStatus! errors: [JobError!]! }
type Job {
  additionalData: JobAdditionalData
  createdAt: String!
  errors: [JobError!]!
  id: String!
  progress: Int!
  result: JobResult
  resultId: String
  status: JobStatus!
  updatedAt: String!
}
type JobAdditionalData { automationActivityId: ID }
type JobError { args: JobErrorArgs id: String! stack: String! }
scalar JobErrorArgs
scalar JobResult
enum JobStatus { DELIVERED FAILED IN_PROGRESS NONE QUEUED }
";

/// Every type with its fields or values.
fn outline(sdl: &str) -> BTreeMap<String, Vec<String>> {
    let mut types = BTreeMap::new();
    for definition in parse_schema(sdl).unwrap().definitions {
        let TypeSystemDefinition::Type(definition) = definition else { continue };
        let mut parts: Vec<_> = match definition.node.kind {
            TypeKind::Object(object) => object
                .fields
                .iter()
                .map(|field| {
                    let arguments = field.node.arguments.iter();
                    let arguments: Vec<_> =
                        arguments.map(|of| format!("{}: {}", of.node.name.node, of.node.ty.node)).collect();
                    format!("{}{arguments:?}: {}", field.node.name.node, field.node.ty.node)
                })
                .collect(),
            TypeKind::Enum(values) => values.values.iter().map(|of| of.node.value.node.to_string()).collect(),
            _ => Vec::new(),
        };
        parts.sort();
        types.insert(definition.node.name.node.to_string(), parts);
    }
    types
}

async fn start() -> Simulator {
    Simulator::start(Vendor::Datasaur).await.unwrap()
}

fn request(simulator: &Simulator, query: &Value) -> RequestBuilder {
    send(simulator, Method::POST, "/graphql", query).bearer_auth(simulator.issue_token())
}

async fn response(simulator: &Simulator, query: Value) -> Value {
    body(request(simulator, &query).send().await.unwrap()).await
}

fn token(simulator: &Simulator, form: &[(&str, &str)]) -> RequestBuilder {
    let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let request = client().post(format!("{}/api/oauth/token", simulator.base_url()));
    request.header("content-type", "application/x-www-form-urlencoded").body(form)
}

#[test]
fn schema_equals_the_published_one() {
    let served = schema::schema(std::sync::Arc::new(SimulatorState::new(Vendor::Datasaur))).sdl();
    assert_eq!(outline(&served), outline(PUBLISHED));
}

#[tokio::test]
async fn documented_query_gets_the_documented_response() {
    let simulator = start().await;
    let job = simulator.start_job(Plan::fixed("DELIVERED").id("AutoLabelQueue:dcbf6ed3"));
    let query =
        "query GetJobQuery($jobId: String!) {  result: getJob(jobId: $jobId) {    id  status  progress  }}";
    let query = json!({ "operationName": "GetJobQuery", "variables": { "jobId": job.id }, "query": query });
    let got = request(&simulator, &query).send().await.unwrap().text().await.unwrap();
    let wanted = r#"{"data":{"result":{"id":"AutoLabelQueue:dcbf6ed3","status":"DELIVERED","progress":0}},"extensions":{}}"#;
    assert_eq!(got, wanted);
}

#[tokio::test]
async fn query_with_alias_variable_fragment_or_literal_is_served() {
    let simulator = start().await;
    let (one, other) =
        (simulator.start_job(Plan::fixed("NONE")), simulator.start_job(Plan::fails("no model")));
    let fragment =
        "fragment F on Job { id status progress errors { id stack args __typename } resultId __typename }";
    let query =
        format!("query Q($input: String!) {{ job: getJob(jobId: $input) {{ ...F __typename }} }} {fragment}");
    let query = json!({ "operationName": "Q", "variables": { "input": one.id }, "query": query });
    assert_eq!(response(&simulator, query).await["data"]["job"]["status"], "NONE");

    let query =
        format!("{{ all: getJobs(jobIds: [\"nobody\", {:?}]) {{ id errors {{ args stack }} }} }}", other.id);
    let all = response(&simulator, json!({ "query": query })).await["data"]["all"].take();
    assert_eq!(all[0], Value::Null);
    assert_eq!(all[1]["errors"][0]["args"], json!({ "message": "no model" }));

    let query = "query($e: ID!) { x: getExportDeliveryStatus(exportId: $e) { deliveryStatus } none: getJob(jobId: \"?\") { id } }";
    let export = response(&simulator, json!({ "query": query, "variables": { "e": other.id } })).await;
    assert_eq!(export["data"], json!({ "x": { "deliveryStatus": "FAILED" }, "none": null }));

    let ids: Vec<_> = simulator.calls().into_iter().map(|call| call.job_ids).collect();
    assert_eq!(ids, [vec![one.id], vec!["nobody".into(), other.id.clone()], vec![other.id, "?".into()]]);
}

#[tokio::test]
async fn result_keeps_its_64_bit_numbers() {
    let simulator = start().await;
    let job = simulator.start_job(Plan::succeeds(Outcome::json(r#"{"n":9007199254740993}"#).unwrap()));
    let query = format!(
        "{{ getJob(jobId: {:?}) {{ result createdAt additionalData {{ automationActivityId }} }} }}",
        job.id
    );
    let got = response(&simulator, json!({ "query": query })).await;
    assert_eq!(got["data"]["getJob"]["result"], json!({ "n": 9_007_199_254_740_993_u64 }));
}

#[tokio::test]
async fn request_without_a_valid_token_gets_a_graphql_error() {
    let simulator = start().await;
    let query = json!({ "query": "{ getJob(jobId: \"a\") { id } }" });
    let request = request(&simulator, &query);
    simulator.expire_tokens();
    let refused = request.send().await.unwrap();
    assert_eq!(refused.status(), 200);
    let refused = body(refused).await;
    assert_eq!((&refused["errors"][0]["message"], &refused["data"]), (&json!("Unauthorized"), &Value::Null));
    assert_eq!(refused["errors"][0]["extensions"]["type"], "AuthenticationError");
}

#[tokio::test]
async fn query_outside_the_schema_is_refused() {
    let simulator = start().await;
    let query = json!({ "query": "{ getJob(jobId: \"a\") { nothing } }" });
    let refused = request(&simulator, &query).send().await.unwrap();
    assert_eq!(refused.status(), 400);
    let refused = body(refused).await;
    assert!(refused["errors"][0]["message"].as_str().unwrap().contains("nothing"), "{refused}");
    assert_eq!(refused.get("extensions"), None);
}

#[tokio::test]
async fn graphql_errors_come_with_or_without_data() {
    let simulator = start().await;
    simulator.poison("bad");
    let query = json!({ "query": "{ getJobs(jobIds: [\"good\", \"bad\"]) { id } }" });
    let refused = response(&simulator, query).await;
    assert_eq!((refused["errors"].as_array().unwrap().len(), &refused["data"]), (1, &Value::Null));
    let error = GraphQlError { message: "partly".into(), with_data: true, ..GraphQlError::default() };
    simulator.inject(Fault::new(Effect::GraphQlError(error)));
    let partly = response(&simulator, json!({ "query": "{ getJobs(jobIds: [\"good\"]) { id } }" })).await;
    assert_eq!(
        (&partly["errors"][0]["message"], &partly["data"]["getJobs"]),
        (&json!("partly"), &json!([null]))
    );
}

#[tokio::test]
async fn client_credentials_are_accepted_in_form_and_basic() {
    let simulator = start().await;
    let grant = ("grant_type", "client_credentials");
    let (id, secret) = (("client_id", DATASAUR_CLIENT_ID), ("client_secret", DATASAUR_CLIENT_SECRET));
    let pair = STANDARD.encode(format!("{DATASAUR_CLIENT_ID}:{DATASAUR_CLIENT_SECRET}"));
    for request in [
        token(&simulator, &[id, secret, grant]),
        token(&simulator, &[grant]).header("authorization", format!("Basic {pair}")),
    ] {
        let got = body(request.send().await.unwrap()).await;
        assert_eq!((&got["token_type"], &got["expires_in"]), (&json!("bearer"), &json!(3600)));
        let bearer = got["access_token"].as_str().unwrap();
        let query = json!({ "query": "{ getJob(jobId: \"a\") { id } }" });
        let good =
            send(&simulator, Method::POST, "/graphql", &query).bearer_auth(bearer).send().await.unwrap();
        assert_eq!(body(good).await, json!({ "data": { "getJob": null }, "extensions": {} }));
    }
    let refused = token(&simulator, &[id, ("client_secret", "wrong"), grant]).send().await.unwrap();
    let error = json!({ "code": 400, "error": "invalid_client", "error_description": "Client credentials are invalid" });
    assert_eq!((refused.status().as_u16(), body(refused).await), (400, error));
}
