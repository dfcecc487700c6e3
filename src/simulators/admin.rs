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
    World,
    calls::Call,
    faults::Fault,
    plan::{End, Plan},
};

pub(super) fn routes(world: Arc<World>) -> Router {
    let routes = Router::new()
        .route("/jobs", post(start_job))
        .route("/jobs/{id}", delete(forget))
        .route("/jobs/{id}/state", put(set_state))
        .route("/jobs/{id}/progress", put(set_progress))
        .route("/jobs/{id}/finish", post(finish))
        .route("/calls", get(calls).delete(clear_calls))
        .route("/faults", post(inject).delete(clear_faults))
        .route("/poison/{id}", post(poison))
        .route("/tokens", post(issue_token))
        .route("/credentials", put(credentials))
        .with_state(world);
    Router::new().nest("/_simulator", routes)
}

type Room = State<Arc<World>>;

async fn start_job(State(world): Room, Json(plan): Json<Plan>) -> Response {
    if let Some(problem) = plan.id.as_deref().and_then(|id| world.vendor.id_problem(id)) {
        return (StatusCode::BAD_REQUEST, problem).into_response();
    }
    let job = world.start_job(plan);
    (StatusCode::CREATED, Json(json!({ "id": job.id, "tag": job.tag }))).into_response()
}

fn found(found: bool) -> StatusCode {
    if found { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }
}

async fn forget(State(world): Room, Path(id): Path<String>) -> StatusCode {
    found(world.jobs.forget(&id))
}

#[derive(Deserialize)]
struct StateWord {
    state: String,
}

async fn set_state(State(world): Room, Path(id): Path<String>, Json(to): Json<StateWord>) -> StatusCode {
    found(world.jobs.set_word(&id, &to.state))
}

#[derive(Deserialize)]
struct Percent {
    percent: u8,
}

async fn set_progress(State(world): Room, Path(id): Path<String>, Json(to): Json<Percent>) -> StatusCode {
    found(world.jobs.set_progress(&id, to.percent))
}

async fn finish(State(world): Room, Path(id): Path<String>, body: Bytes) -> Response {
    let end: Option<End> = match &*body {
        b"" => None,
        body => match serde_json::from_slice(body) {
            Ok(end) => Some(end),
            Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
        },
    };
    found(world.jobs.finish(&id, end)).into_response()
}

async fn calls(State(world): Room) -> Json<Vec<Call>> {
    Json(world.calls.all())
}

async fn clear_calls(State(world): Room) -> StatusCode {
    world.calls.clear();
    StatusCode::NO_CONTENT
}

async fn inject(State(world): Room, Json(fault): Json<Fault>) -> StatusCode {
    world.faults.inject(fault);
    StatusCode::NO_CONTENT
}

async fn clear_faults(State(world): Room) -> StatusCode {
    world.faults.clear();
    StatusCode::NO_CONTENT
}

async fn poison(State(world): Room, Path(id): Path<String>) -> StatusCode {
    world.faults.poison(&id);
    StatusCode::NO_CONTENT
}

async fn issue_token(State(world): Room) -> Response {
    let (token, _) = world.issue_token();
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

async fn credentials(State(world): Room, Json(to): Json<Credentials>) -> StatusCode {
    if let Some(reject) = to.reject {
        world.gate.reject_all(reject);
    }
    if let Some(secret) = to.secret {
        world.gate.set_secret(&secret);
    }
    if let Some(lifetime) = to.token_lifetime_ms {
        world.gate.set_lifetime(Duration::from_millis(lifetime));
    }
    if to.expire_tokens {
        world.gate.expire_tokens();
    }
    StatusCode::NO_CONTENT
}
