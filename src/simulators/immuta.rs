//! Immuta: `POST /jobs/statuses` and the exchange of an API key for a token.
//!
//! Its own choices, where nothing is published: an unknown id is absent from the
//! response and does not hold up a `wait`; any terminal state ends a `wait`; errors
//! have the form of hapi's boom; a retried job keeps its last error as output until
//! it ends.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{json, value::to_raw_value};
use tokio::time::{Instant, sleep};

use super::{
    SimulatorState,
    faults::response_ids,
    job_state::{JobSnapshot, Phase, StateWords},
    plan::Outcome,
};

pub(super) const WORDS: StateWords = &[
    (Phase::Queued, "created"),
    (Phase::Running, "active"),
    (Phase::Retrying, "retry"),
    (Phase::Succeeded, "completed"),
    (Phase::Failed, "failed"),
    (Phase::Cancelled, "cancelled"),
    (Phase::Expired, "expired"),
];

pub(super) fn routes(state: Arc<SimulatorState>) -> Router {
    Router::new()
        .route("/jobs/statuses", post(statuses))
        .route("/bim/apikey/authenticate", post(authenticate))
        .fallback(not_found)
        .method_not_allowed_fallback(not_found)
        .with_state(state)
}

async fn not_found() -> Response {
    boom(StatusCode::NOT_FOUND, "Not Found")
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StatusRequest {
    job_ids: Vec<String>,
    #[serde(default)]
    wait: i64,
    #[serde(default = "one")]
    poll_interval: u64,
}

fn one() -> u64 {
    1
}

#[derive(Serialize)]
struct Status {
    id: String,
    state: String,
    output: Box<RawValue>,
    /// One of the undocumented fields that the page warns of.
    #[serde(rename = "retryCount")]
    retry_count: u8,
}

pub(super) fn job_ids(body: &[u8]) -> Vec<String> {
    serde_json::from_slice(body).map(|request: StatusRequest| request.job_ids).unwrap_or_default()
}

async fn statuses(State(state): State<Arc<SimulatorState>>, headers: HeaderMap, body: Bytes) -> Response {
    if let Err(message) = authorize(&state, &headers) {
        return boom(StatusCode::UNAUTHORIZED, message);
    }
    if !is_json(&headers) {
        return boom(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported Media Type");
    }
    let request: StatusRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) if error.is_data() => return boom(StatusCode::BAD_REQUEST, &error.to_string()),
        Err(_) => return boom(StatusCode::BAD_REQUEST, "Invalid request payload JSON format"),
    };
    if request.wait < -1 {
        return boom(StatusCode::BAD_REQUEST, "\"wait\" must be greater than or equal to -1");
    }
    if request.poll_interval < 1 {
        return boom(StatusCode::BAD_REQUEST, "\"pollInterval\" must be greater than or equal to 1");
    }
    if let Some(message) = state.faults.refusal(&request.job_ids) {
        return refusal(&message);
    }
    // -1 waits for ever, and so does what no clock can count.
    let wait = u64::try_from(request.wait).ok().map(Duration::from_secs);
    let until = wait.and_then(|wait| Instant::now().checked_add(wait));
    let ids = response_ids(request.job_ids);
    loop {
        let snapshots: Vec<_> = ids.iter().filter_map(|id| state.jobs.snapshot(id)).collect();
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let pause = Duration::from_secs(request.poll_interval).min(left.unwrap_or(Duration::MAX));
        if pause.is_zero() || snapshots.iter().all(|snapshot| snapshot.phase.has_ended()) {
            let response: BTreeMap<_, _> =
                snapshots.iter().map(|snapshot| (snapshot.id.clone(), status(snapshot))).collect();
            return sealed(Json(response).into_response());
        }
        sleep(pause).await;
    }
}

fn status(snapshot: &JobSnapshot) -> Status {
    Status {
        id: snapshot.id.clone(),
        state: snapshot.word.clone(),
        output: output(snapshot),
        retry_count: u8::from(snapshot.retried_after.is_some()),
    }
}

fn output(snapshot: &JobSnapshot) -> Box<RawValue> {
    let error =
        snapshot.failure().or(snapshot.retried_after.as_deref().filter(|_| !snapshot.phase.has_ended()));
    if let Some(message) = error {
        let stack = format!("Error: {message}\n    at Worker.run (worker.js:1:1)");
        return raw(&json!({ "name": "Error", "message": message, "stack": stack }));
    }
    match snapshot.outcome() {
        Outcome::Nothing => raw(&()),
        Outcome::Json(value) => value.clone(),
        Outcome::Text(text) => raw(text),
        Outcome::Size(bytes) => raw(&Outcome::text_of_size(*bytes)),
        Outcome::Binary(bytes) => raw(&bytes.iter().map(|byte| char::from(*byte)).collect::<String>()),
    }
}

fn raw(value: &impl Serialize) -> Box<RawValue> {
    to_raw_value(value).unwrap_or_default()
}

/// An API key or a token, with or without `Bearer`.
fn authorize(state: &SimulatorState, headers: &HeaderMap) -> Result<(), &'static str> {
    let Some(given) = authorization(headers) else {
        return Err("Missing authentication");
    };
    let given = given.strip_prefix("Bearer ").unwrap_or(given);
    if state.auth.accepts_secret(given) || state.auth.accepts_token(given) {
        Ok(())
    } else {
        Err("Invalid authentication")
    }
}

fn authorization(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()
}

#[derive(Deserialize)]
struct Exchange {
    apikey: String,
}

/// The key comes as JSON, as a form, or raw in the Authorization header.
async fn authenticate(State(state): State<Arc<SimulatorState>>, headers: HeaderMap, body: Bytes) -> Response {
    let key = if body.is_empty() {
        authorization(&headers).map(ToOwned::to_owned)
    } else if is_json(&headers) {
        serde_json::from_slice(&body).ok().map(|exchange: Exchange| exchange.apikey)
    } else {
        url::form_urlencoded::parse(&body)
            .find(|(key, _)| key == "apikey")
            .map(|(_, value)| value.into_owned())
    };
    match key {
        None => boom(StatusCode::BAD_REQUEST, "\"apikey\" is required"),
        Some(key) if state.auth.accepts_secret(&key) => {
            let (token, _) = state.issue_token();
            sealed(Json(json!({ "token": token, "authenticated": true })).into_response())
        }
        Some(_) => boom(StatusCode::UNAUTHORIZED, "Invalid API key"),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.to_ascii_lowercase().starts_with("application/json"))
}

pub(super) fn refusal(message: &str) -> Response {
    boom(StatusCode::BAD_REQUEST, message)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Boom<'a> {
    status_code: u16,
    error: &'a str,
    message: &'a str,
}

fn boom(status: StatusCode, message: &str) -> Response {
    let error = status.canonical_reason().unwrap_or("Unknown");
    sealed((status, Json(Boom { status_code: status.as_u16(), error, message })).into_response())
}

/// With the headers that hapi gives every response.
fn sealed(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

#[cfg(test)]
mod tests;
