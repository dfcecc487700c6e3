//! The simulator's own routes below `/_simulator`, for people who write clients in
//! other languages. They need no credentials and are not in the call log.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{delete, get, post, put},
};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use super::{
    SimulatorState,
    calls::Call,
    faults::Fault,
    plan::{End, Plan},
};

pub(super) fn routes(state: Arc<SimulatorState>) -> Router {
    let routes = Router::new()
        .route("/jobs", post(start_job))
        .route("/jobs/{id}", delete(forget))
        .route("/jobs/{id}/state", put(set_state))
        .route("/jobs/{id}/progress", put(set_progress))
        .route("/jobs/{id}/finish", post(finish))
        .route("/calls", get(calls).delete(clear_calls))
        .route("/faults", post(inject).delete(clear_faults))
        .route("/poison/{id}", post(poison).delete(heal))
        .route("/tokens", post(issue_token))
        .route("/credentials", put(credentials))
        .with_state(state);
    Router::new().nest("/_simulator", routes)
}

type SharedState = State<Arc<SimulatorState>>;

async fn start_job(State(state): SharedState, Json(plan): Json<Plan>) -> Response {
    if let Some(problem) = plan.id.as_deref().and_then(|id| state.vendor.id_problem(id)) {
        return (StatusCode::BAD_REQUEST, problem).into_response();
    }
    let job = state.start_job(plan);
    (StatusCode::CREATED, Json(json!({ "id": job.id, "tag": job.tag }))).into_response()
}

fn found(found: bool) -> StatusCode {
    if found { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }
}

async fn forget(State(state): SharedState, Path(id): Path<String>) -> StatusCode {
    found(state.jobs.forget(&id))
}

#[derive(Deserialize)]
struct StateWord {
    state: String,
}

async fn set_state(
    State(state): SharedState,
    Path(id): Path<String>,
    Json(to): Json<StateWord>,
) -> StatusCode {
    found(state.jobs.set_word(&id, &to.state))
}

#[derive(Deserialize)]
struct Percent {
    percent: u8,
}

async fn set_progress(
    State(state): SharedState,
    Path(id): Path<String>,
    Json(to): Json<Percent>,
) -> StatusCode {
    found(state.jobs.set_progress(&id, to.percent))
}

async fn finish(State(state): SharedState, Path(id): Path<String>, body: Bytes) -> Response {
    let end: Option<End> = match &*body {
        b"" => None,
        body => match serde_json::from_slice(body) {
            Ok(end) => Some(end),
            Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
        },
    };
    found(state.jobs.finish(&id, end)).into_response()
}

async fn calls(State(state): SharedState) -> Json<Vec<Call>> {
    Json(state.calls.all())
}

async fn clear_calls(State(state): SharedState) -> StatusCode {
    state.calls.clear();
    StatusCode::NO_CONTENT
}

async fn inject(State(state): SharedState, Json(fault): Json<Fault>) -> StatusCode {
    state.faults.inject(fault);
    StatusCode::NO_CONTENT
}

async fn clear_faults(State(state): SharedState) -> StatusCode {
    state.faults.clear();
    StatusCode::NO_CONTENT
}

/// Without an effect in the body, the vendor refuses the requests in its own form.
async fn poison(State(state): SharedState, Path(id): Path<String>, body: Bytes) -> Response {
    match &*body {
        b"" | b"{}" => state.faults.refuse(&id),
        body => match serde_json::from_slice(body) {
            Ok(effect) => state.faults.inject(Fault::new(effect).for_job(id)),
            Err(error) => return (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()).into_response(),
        },
    }
    StatusCode::NO_CONTENT.into_response()
}

async fn heal(State(state): SharedState, Path(id): Path<String>) -> StatusCode {
    state.faults.heal(&id);
    StatusCode::NO_CONTENT
}

async fn issue_token(State(state): SharedState) -> Response {
    let (token, _) = state.issue_token();
    (StatusCode::CREATED, Json(json!({ "token": token }))).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Credentials {
    reject: Option<bool>,
    #[serde(default)]
    expire_tokens: bool,
    secret: Option<String>,
    token_lifetime_ms: Option<u64>,
}

async fn credentials(State(state): SharedState, Json(to): Json<Credentials>) -> StatusCode {
    if let Some(reject) = to.reject {
        state.auth.reject_all(reject);
    }
    if let Some(secret) = to.secret {
        state.auth.set_secret(&secret);
    }
    if let Some(lifetime) = to.token_lifetime_ms {
        state.auth.set_lifetime(Duration::from_millis(lifetime));
    }
    if to.expire_tokens {
        state.auth.expire_tokens();
    }
    StatusCode::NO_CONTENT
}
