//! Claret: the status of an import, its files, and tokens.
//!
//! Its own choices, where nothing is published: it behaves as Laravel does. Wrong
//! credentials are 401 `Unauthenticated.`; a client that does not accept JSON is redirected to
//! the login page instead; a validation failure is 422 with `errors`.

mod files;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Query, Request, State},
    http::{HeaderMap, Method, StatusCode, Uri, header, request::Parts},
    middleware::{Next, from_fn_with_state},
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    SimulatorState, credentials,
    faults::response_id,
    job_state::{JobSnapshot, Phase, StateWords},
};

pub(super) const WORDS: StateWords = &[
    (Phase::Queued, "pending"),
    (Phase::Running, "in_progress"),
    (Phase::Succeeded, "completed"),
    (Phase::Failed, "failed"),
];

const USER_ID: u32 = 42;

pub(super) fn routes(state: Arc<SimulatorState>) -> Router {
    let guarded = Router::new()
        .route("/{tenant}/api/v1/imports/status/{id}", get(status))
        .route("/{tenant}/download/{*path}", get(files::download))
        .route_layer(from_fn_with_state(Arc::clone(&state), authenticate));
    Router::new()
        .merge(guarded)
        .route("/{tenant}/api/v1/tokens/create", post(create_token))
        .route("/{tenant}/login", get(login))
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .with_state(state)
}

async fn login() -> Html<&'static str> {
    Html("<!DOCTYPE html>\n<html><head><title>Log in</title></head><body><form></form></body></html>\n")
}

async fn not_found(uri: Uri) -> Response {
    let message = format!("The route {} could not be found.", uri.path().trim_start_matches('/'));
    (StatusCode::NOT_FOUND, Json(json!({ "message": message }))).into_response()
}

async fn wrong_method(method: Method) -> Response {
    let message = format!("The {method} method is not supported for this route.");
    (StatusCode::METHOD_NOT_ALLOWED, Json(json!({ "message": message }))).into_response()
}

/// Whether the client accepts JSON, or else is treated as a browser: Laravel's `expectsJson`.
fn expects_json(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value: &header::HeaderValue| value.to_str().ok());
    let accept = text(header::ACCEPT.as_str()).unwrap_or("*/*");
    let first = accept.split([',', ';']).next().unwrap_or_default().trim();
    let by_script = text("x-requested-with") == Some("XMLHttpRequest");
    (by_script && matches!(first, "*/*" | "*" | "")) || first.contains("/json") || first.contains("+json")
}

fn base_url(headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    format!("http://{}", host.unwrap_or("localhost"))
}

fn redirect(location: &str) -> Response {
    let page = format!(
        "<!DOCTYPE html>\n<html><body>Redirecting to <a href=\"{location}\">login</a>.</body></html>\n"
    );
    (StatusCode::FOUND, [(header::LOCATION, location)], Html(page)).into_response()
}

fn unauthenticated(tenant: &str, headers: &HeaderMap) -> Response {
    if !expects_json(headers) {
        return redirect(&format!("{}/{tenant}/login", base_url(headers)));
    }
    (StatusCode::UNAUTHORIZED, Json(json!({ "message": "Unauthenticated." }))).into_response()
}

/// Lets only the tenant's token pass.
async fn authenticate(
    State(state): State<Arc<SimulatorState>>,
    Path(path): Path<Vec<(String, String)>>,
    request: Request,
    next: Next,
) -> Response {
    let tenant = path.into_iter().find(|(name, _)| name == "tenant").map(|(_, tenant)| tenant);
    let Some(tenant) = tenant.filter(|tenant| tenant == credentials::CLARET_TENANT) else {
        return not_found(request.uri().clone()).await;
    };
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = given.and_then(|given| given.strip_prefix("Bearer "));
    if token.is_some_and(|token| state.auth.accepts_token(token)) {
        next.run(request).await
    } else {
        unauthenticated(&tenant, request.headers())
    }
}

#[derive(Deserialize)]
struct Login {
    email: Option<String>,
    password: Option<String>,
}

/// Email and password come in the query.
async fn create_token(
    State(state): State<Arc<SimulatorState>>,
    Path(tenant): Path<String>,
    Query(login): Query<Login>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    if tenant != credentials::CLARET_TENANT {
        return not_found(uri).await;
    }
    let (Some(email), Some(password)) = (login.email, login.password) else {
        return invalid(&headers, "email", "The email and password fields are required.");
    };
    if email != credentials::CLARET_EMAIL || !state.auth.accepts_secret(&password) {
        return unauthenticated(&tenant, &headers);
    }
    Json(json!({ "token": state.issue_token().0 })).into_response()
}

async fn status(
    State(state): State<Arc<SimulatorState>>,
    Path((tenant, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    if id.parse::<i64>().is_err() {
        return invalid(&headers, "job_log_id", "The job log id must be an integer.");
    }
    if let Some(message) = state.faults.refusal(std::slice::from_ref(&id)) {
        return refusal(&message);
    }
    let Some(snapshot) = state.jobs.snapshot(&response_id(id)) else {
        let error = json!({ "error": "Job log ID does not exist" });
        let message = "Job not found or you do not have access to this job.";
        return (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "message": message, "error": error })))
            .into_response();
    };
    let message = "Job status retrieved successfully";
    Json(ResponseBody { message, content: Content::of(&snapshot, &tenant, &base_url(&headers)) })
        .into_response()
}

#[derive(Serialize)]
struct ResponseBody {
    message: &'static str,
    content: Content,
}

#[derive(Serialize)]
struct Content {
    job_log_id: i64,
    status: String,
    #[serde(rename = "type")]
    kind: String,
    description: String,
    progress: Progress,
    files: files::Listing,
    job_status_link: String,
    timestamps: Timestamps,
    user_id: u32,
}

#[derive(Serialize)]
struct Progress {
    completed_steps: usize,
    total_steps: usize,
    current_step: Option<String>,
}

#[derive(Serialize)]
struct Timestamps {
    started_at: Option<String>,
    completed_at: Option<String>,
}

impl Content {
    fn of(snapshot: &JobSnapshot, tenant: &str, base_url: &str) -> Self {
        let link = "settings/application-maintenance/job-management/imports/logs";
        let description = snapshot.plan.description.clone();
        Self {
            job_log_id: snapshot.id.parse().unwrap_or_default(),
            status: snapshot.word.clone(),
            kind: kind(snapshot).to_owned(),
            description: description.unwrap_or_else(|| "Inventory Import".to_owned()),
            progress: Progress::of(snapshot),
            files: files::Listing::of(snapshot, tenant),
            job_status_link: format!("{base_url}/{tenant}/{link}/{}", snapshot.id),
            timestamps: Timestamps {
                started_at: snapshot.started_at.map(with_micros),
                completed_at: snapshot.ended_at.map(with_micros),
            },
            user_id: USER_ID,
        }
    }
}

impl Progress {
    fn of(snapshot: &JobSnapshot) -> Self {
        let steps = &snapshot.plan.steps;
        let done = match snapshot.phase {
            Phase::Succeeded => steps.len(),
            _ => steps.len() * usize::from(snapshot.progress) / 100,
        };
        let current = if snapshot.phase == Phase::Running { steps.get(done).cloned() } else { None };
        Self { completed_steps: done, total_steps: steps.len(), current_step: current }
    }
}

fn kind(snapshot: &JobSnapshot) -> &str {
    snapshot.plan.kind.as_deref().unwrap_or("inventory-import")
}

/// As Laravel prints them: `2021-09-28T16:51:44.000000Z`.
fn with_micros(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// A validation failure; a browser would be sent back where it came from.
fn invalid(headers: &HeaderMap, field: &str, problem: &str) -> Response {
    if expects_json(headers) { refused(field, problem) } else { redirect(&base_url(headers)) }
}

fn refused(field: &str, problem: &str) -> Response {
    let errors = json!({ field: [problem] });
    let body = json!({ "message": "The given data was invalid.", "errors": errors });
    (StatusCode::UNPROCESSABLE_ENTITY, Json(body)).into_response()
}

pub(super) fn refusal(message: &str) -> Response {
    refused("job_log_id", message)
}

pub(super) fn job_ids(parts: &Parts) -> Vec<String> {
    let after = parts.uri.path().split_once("/imports/status/");
    after.map(|(_, id)| id.to_owned()).into_iter().collect()
}

#[cfg(test)]
mod tests;
