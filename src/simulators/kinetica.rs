//! Kinetica: the endpoints about jobs, and those that its clients call on start.
//!
//! Its own choices, where nothing is published: the texts of its messages; a missing
//! job is an error of HTTP 400; a created job runs for a second and gives back the
//! data that it was created with, in the encoding of its request.

mod records;
mod wire;

use std::{sync::Arc, time::Duration};

use apache_avro::types::Value;
use axum::{
    Router,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header, request::Parts},
    response::{IntoResponse, Response},
    routing::post,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;

use self::{
    records::{ENDPOINTS, Endpoint, Record, list, map},
    wire::Encoding,
};
use super::{
    SimulatorState, credentials,
    faults::response_id,
    job_state::{JobSnapshot, Phase, StateWords},
    plan::{Outcome, Plan},
};

/// There is no word for a job that waits, and one for two phases of cancelling.
pub(super) const WORDS: StateWords = &[
    (Phase::Running, "RUNNING"),
    (Phase::Queued, "RUNNING"),
    (Phase::Succeeded, "DONE"),
    (Phase::Failed, "ERROR"),
    (Phase::Cancelling, "CANCELLED"),
    (Phase::Cancelled, "CANCELLED"),
];

/// What a created job takes, and a cancelled one needs to stop.
const CREATED_RUNS_FOR: Duration = Duration::from_secs(1);
const CANCELLED_RUNS_FOR: Duration = Duration::from_millis(300);

const DEFAULT_ENDPOINT: &str = "/alter/table";

/// Served at the root, and below the prefixes of a proxied deployment.
pub(super) fn routes(state: Arc<SimulatorState>) -> Router {
    let endpoints = ENDPOINTS.iter().fold(Router::new(), |router, endpoint| {
        let serve = async |State(state): State<Arc<SimulatorState>>, headers, body: Bytes| {
            serve(&state, &headers, &body, endpoint)
        };
        router.route(endpoint.path, post(serve))
    });
    let endpoints = endpoints.with_state(state);
    Router::new()
        .merge(endpoints.clone())
        .nest("/gpudb-0", endpoints.clone())
        .nest("/{cluster}/gpudb-0", endpoints)
        .fallback(not_found)
        .method_not_allowed_fallback(not_found)
}

async fn not_found(uri: Uri) -> Response {
    (StatusCode::NOT_FOUND, format!("Endpoint not found: {}\n", uri.path())).into_response()
}

fn serve(state: &SimulatorState, headers: &HeaderMap, body: &[u8], endpoint: &Endpoint) -> Response {
    if !is_authorized(state, headers) {
        return unauthorized();
    }
    let Some(encoding) = Encoding::of(headers) else {
        return Encoding::Json.error("Unsupported content type (Simulator/HTTP:1)");
    };
    let request = match encoding.read(endpoint, body) {
        Ok(request) => request,
        Err(message) => return encoding.error(&message),
    };
    if let Some(message) = state.faults.refusal(&ids_of(&request)) {
        return encoding.error(&message);
    }
    let fields = match endpoint.name {
        "get_job" => get_job(state, &request),
        "create_job" => create_job(state, &request),
        "admin_alter_jobs" => alter_jobs(state, &request),
        "admin_show_jobs" => Ok(show_jobs(state, &request)),
        "show_system_status" => Ok(system_status()),
        _ => Ok(system_properties()),
    };
    match fields {
        Ok(fields) => encoding.response(endpoint, fields),
        Err(message) => encoding.error(&message),
    }
}

type Fields = Vec<(&'static str, Value)>;

/// By id; by tag where the id is not this cluster's.
fn get_job(state: &SimulatorState, request: &Record) -> Result<Fields, String> {
    let id = request.long("job_id").unwrap_or_default();
    let about = response_id(id.to_string());
    let tag = request.option("job_tag").filter(|tag| !tag.is_empty() && !about.is_empty());
    let by_id = state.jobs.snapshot(&about);
    let found = by_id.or_else(|| tag.and_then(|tag| state.jobs.snapshot_by_tag(tag)));
    let snapshot = found.ok_or_else(|| format!("Job id {id} not found (Simulator/J:404)"))?;
    let progress = if snapshot.phase == Phase::Succeeded { 100 } else { snapshot.progress };
    let (encoding, bytes, text) = match snapshot.outcome() {
        Outcome::Binary(bytes) => ("binary", bytes.clone(), String::new()),
        Outcome::Json(value) => ("json", Vec::new(), value.get().to_owned()),
        Outcome::Text(text) => ("json", Vec::new(), text.clone()),
        Outcome::Size(bytes) => ("json", Vec::new(), format!("{:?}", Outcome::text_of_size(*bytes))),
        Outcome::Nothing => ("json", Vec::new(), String::new()),
    };
    let status_map = match snapshot.failure() {
        Some(message) => map([("error_message", message.to_owned())]),
        None => map([]),
    };
    Ok(vec![
        ("endpoint", Value::String(endpoint_of(&snapshot))),
        ("job_status", Value::String(snapshot.word.clone())),
        ("running", Value::Boolean(!snapshot.phase.has_ended())),
        ("progress", Value::Int(progress.into())),
        ("successful", Value::Boolean(snapshot.phase == Phase::Succeeded)),
        ("response_encoding", Value::String(encoding.to_owned())),
        ("job_response", Value::Bytes(bytes)),
        ("job_response_str", Value::String(text)),
        ("status_map", status_map),
        ("info", map([("job_tag", snapshot.tag.clone())])),
    ])
}

fn endpoint_of(snapshot: &JobSnapshot) -> String {
    snapshot.plan.kind.clone().unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned())
}

fn create_job(state: &SimulatorState, request: &Record) -> Result<Fields, String> {
    let outcome = match request.text("request_encoding") {
        "json" => Outcome::Text(request.text("data_str").to_owned()),
        "binary" | "snappy" => Outcome::Binary(request.bytes("data").to_vec()),
        other => return Err(format!("Invalid request_encoding: {other} (Simulator/J:2)")),
    };
    let mut plan = Plan::succeeds(outcome).running_for(CREATED_RUNS_FOR).kind(request.text("endpoint"));
    plan.tag = request.option("job_tag").map(ToOwned::to_owned);
    let well_formed =
        |tag: &String| tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if plan.tag.as_ref().is_some_and(|tag| !well_formed(tag)) {
        return Err("Invalid job_tag (Simulator/J:3)".to_owned());
    }
    let job = state.start_job(plan);
    let info = map([("job_tag", job.tag.unwrap_or_default()), ("query_id", job.id.clone())]);
    Ok(vec![("job_id", Value::Long(job.id.parse().unwrap_or_default())), ("info", info)])
}

fn alter_jobs(state: &SimulatorState, request: &Record) -> Result<Fields, String> {
    let action = request.text("action");
    if action != "cancel" {
        return Err(format!("Invalid action: {action} (Simulator/J:4)"));
    }
    let ids = request.longs("job_ids");
    let cancel = |id: &i64| {
        let cancelled = state.jobs.cancel(&id.to_string(), CANCELLED_RUNS_FOR);
        Value::String(if cancelled { "CANCELLED" } else { "NOT_FOUND" }.to_owned())
    };
    Ok(vec![
        ("job_ids", list(ids.iter().copied(), Value::Long)),
        ("action", Value::String(action.to_owned())),
        ("status", list(&ids, cancel)),
        ("info", map([])),
    ])
}

/// Completed jobs are hidden unless the request wants them.
fn show_jobs(state: &SimulatorState, request: &Record) -> Fields {
    let with_completed = request.option("show_async_jobs") == Some("true");
    let mut snapshots = state.jobs.all();
    snapshots.retain(|snapshot| with_completed || !snapshot.phase.has_ended());
    let each = |of: &dyn Fn(&JobSnapshot) -> String| list(&snapshots, |snapshot| Value::String(of(snapshot)));
    vec![
        ("job_id", list(&snapshots, |snapshot| Value::Long(snapshot.id.parse().unwrap_or_default()))),
        ("status", each(&|snapshot| snapshot.word.clone())),
        ("endpoint_name", each(&endpoint_of)),
        ("time_received", list(&snapshots, |snapshot| Value::Long(snapshot.created_at.as_millisecond()))),
        ("auth_id", each(&|_| credentials::KINETICA_USER.to_owned())),
        ("source_ip", each(&|_| "127.0.0.1".to_owned())),
        ("query_text", each(&|_| String::new())),
        ("user_data", each(&|_| String::new())),
        ("flags", each(&|_| String::new())),
        ("info", map([])),
    ]
}

fn system_status() -> Fields {
    vec![("status_map", map([("system", r#"{"status":"running"}"#.to_owned())])), ("info", map([]))]
}

fn system_properties() -> Fields {
    let properties = map([
        ("version.gpudb_core_version", "7.2.3.0.20260101000000".to_owned()),
        ("conf.number_of_hosts", "1".to_owned()),
        ("conf.enable_ha", "FALSE".to_owned()),
    ]);
    vec![("property_map", properties), ("info", map([]))]
}

/// Basic or Bearer.
fn is_authorized(state: &SimulatorState, headers: &HeaderMap) -> bool {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some((scheme, rest)) = given.and_then(|given| given.split_once(' ')) else { return false };
    if scheme.eq_ignore_ascii_case("bearer") {
        return state.auth.accepts_token(rest);
    }
    let decoded = STANDARD.decode(rest).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = decoded.as_deref().and_then(|pair| pair.split_once(':'));
    scheme.eq_ignore_ascii_case("basic")
        && pair.is_some_and(|(user, password)| {
            user == credentials::KINETICA_USER && state.auth.accepts_secret(password)
        })
}

/// The response of a deployment's front end, which is not JSON.
fn unauthorized() -> Response {
    let challenge = HeaderValue::from_static("Basic realm=\"kinetica\"");
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)], "Unauthorized\n").into_response()
}

fn ids_of(request: &Record) -> Vec<String> {
    let one = request.long("job_id").filter(|id| *id != 0);
    let mut ids: Vec<_> = one.into_iter().chain(request.longs("job_ids")).map(|id| id.to_string()).collect();
    ids.extend(request.option("job_tag").filter(|_| ids.is_empty()).map(ToOwned::to_owned));
    ids
}

pub(super) fn job_ids(parts: &Parts, body: &[u8]) -> Vec<String> {
    let endpoint = ENDPOINTS.iter().find(|endpoint| parts.uri.path().ends_with(endpoint.path));
    let encoding = Encoding::of(&parts.headers);
    let request = endpoint.zip(encoding).and_then(|(endpoint, encoding)| encoding.read(endpoint, body).ok());
    request.map(|request| ids_of(&request)).unwrap_or_default()
}

pub(super) fn refusal(headers: &HeaderMap, message: &str) -> Response {
    Encoding::of(headers).unwrap_or(Encoding::Json).error(message)
}

#[cfg(test)]
mod tests;
