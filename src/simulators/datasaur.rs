//! Datasaur: its GraphQL queries about jobs and the OAuth tokens for them.
//!
//! Its own choices, where nothing is published: a request that is no valid GraphQL
//! gets HTTP 400; errors of the token endpoint have the form of npm's
//! oauth2-server 2; an unknown export is NONE; times are ISO 8601. A held job can
//! only have a state of the schema: another word shows as
//! `IN_PROGRESS`.

mod schema;

use std::{collections::BTreeMap, sync::Arc};

use async_graphql::{
    Value as GraphQlValue, Variables,
    parser::{
        parse_query,
        types::{Field, Selection, SelectionSet},
    },
};
use axum::{
    Extension, Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::Serialize;
use serde_json::json;

use self::schema::Served;
use super::{
    SimulatorState, credentials,
    job_state::{Phase, StateWords},
};

pub(super) const WORDS: StateWords = &[
    (Phase::Queued, "QUEUED"),
    (Phase::Queued, "NONE"),
    (Phase::Running, "IN_PROGRESS"),
    (Phase::Succeeded, "DELIVERED"),
    (Phase::Failed, "FAILED"),
];

pub(super) fn routes(state: Arc<SimulatorState>) -> Router {
    let schema = schema::schema(Arc::clone(&state));
    Router::new()
        .route("/graphql", post(graphql))
        .route("/api/oauth/token", post(token))
        .layer(Extension(schema))
        .with_state(state)
}

async fn graphql(
    State(state): State<Arc<SimulatorState>>,
    Extension(schema): Extension<Served>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if !is_authorized(&state, &headers) {
        let extensions = json!({ "type": "AuthenticationError" });
        return Json(Refused::new("Unauthorized", &extensions)).into_response();
    }
    if !is(&headers, "application/json") {
        return bad_request("POST body missing, invalid Content-Type, or JSON object has no keys.");
    }
    let request: async_graphql::Request = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => return bad_request(&error.to_string()),
    };
    if let Some(message) = state.faults.refusal(&job_ids(&body)) {
        return refusal(&message);
    }
    let response = schema.execute(request).await;
    let was_run = response.data != GraphQlValue::Null || response.is_ok();
    let status = if was_run { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    let extensions = response.is_ok().then(BTreeMap::new);
    (status, Json(ResponseBody { errors: response.errors, data: response.data, extensions })).into_response()
}

#[derive(Serialize)]
struct ResponseBody {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<async_graphql::ServerError>,
    data: GraphQlValue,
    /// Empty, and there in every good response.
    #[serde(skip_serializing_if = "Option::is_none")]
    extensions: Option<BTreeMap<String, String>>,
}

/// Errors without data.
#[derive(Serialize)]
struct Refused {
    errors: [serde_json::Value; 1],
    data: (),
}

impl Refused {
    fn new(message: &str, extensions: &serde_json::Value) -> Self {
        let error = json!({ "message": message, "locations": [], "path": [], "extensions": extensions });
        Self { errors: [error], data: () }
    }
}

pub(super) fn refusal(message: &str) -> Response {
    Json(Refused::new(message, &json!({ "code": "BAD_USER_INPUT" }))).into_response()
}

fn bad_request(message: &str) -> Response {
    let refused = Refused::new(message, &json!({ "code": "BAD_REQUEST" }));
    (StatusCode::BAD_REQUEST, Json(refused)).into_response()
}

fn is_authorized(state: &SimulatorState, headers: &HeaderMap) -> bool {
    let token = authorization(headers).and_then(|given| given.strip_prefix("Bearer "));
    token.is_some_and(|token| state.auth.accepts_token(token))
}

fn authorization(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()
}

fn is(headers: &HeaderMap, kind: &str) -> bool {
    let given = headers.get(header::CONTENT_TYPE).and_then(|given| given.to_str().ok());
    given.is_some_and(|given| given.to_ascii_lowercase().starts_with(kind))
}

/// Client credentials come in the form, or as HTTP Basic.
async fn token(State(state): State<Arc<SimulatorState>>, headers: HeaderMap, body: Bytes) -> Response {
    if !is(&headers, "application/x-www-form-urlencoded") {
        let message = "Method must be POST with application/x-www-form-urlencoded encoding";
        return oauth_error("invalid_request", message);
    }
    let form: BTreeMap<_, _> = url::form_urlencoded::parse(&body).into_owned().collect();
    if form.get("grant_type").map(String::as_str) != Some("client_credentials") {
        return oauth_error("invalid_request", "Invalid or missing grant_type parameter");
    }
    let in_form = form.get("client_id").cloned().zip(form.get("client_secret").cloned());
    match in_form.or_else(|| basic(&headers)) {
        None => oauth_error("invalid_client", "Invalid or missing client_id parameter"),
        Some((id, secret)) if id == credentials::DATASAUR_CLIENT_ID && state.auth.accepts_secret(&secret) => {
            let (token, lifetime) = state.issue_token();
            let response = Token { access: token, kind: "bearer", expires_in: lifetime.as_secs() };
            ([(header::CACHE_CONTROL, "no-store")], Json(response)).into_response()
        }
        Some(_) => oauth_error("invalid_client", "Client credentials are invalid"),
    }
}

#[derive(Serialize)]
struct Token {
    #[serde(rename = "access_token")]
    access: String,
    #[serde(rename = "token_type")]
    kind: &'static str,
    expires_in: u64,
}

/// Both parts as they are: the vendor's own client does not escape them.
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let (scheme, encoded) = authorization(headers)?.split_once(' ')?;
    let decoded = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (id, secret) = decoded.split_once(':')?;
    scheme.eq_ignore_ascii_case("basic").then(|| (id.to_owned(), secret.to_owned()))
}

fn oauth_error(error: &str, description: &str) -> Response {
    let body = json!({ "code": 400, "error": error, "error_description": description });
    (StatusCode::BAD_REQUEST, Json(body)).into_response()
}

/// The jobs of any of the three queries, given in its text or by a variable.
pub(super) fn job_ids(body: &[u8]) -> Vec<String> {
    let request = serde_json::from_slice::<async_graphql::Request>(body);
    let Ok(request) = request else { return Vec::new() };
    let Ok(document) = parse_query(&request.query) else { return Vec::new() };
    let mut ids = Vec::new();
    let operations = document.operations.iter().map(|(_, operation)| &operation.node.selection_set.node);
    let fragments = document.fragments.values().map(|fragment| &fragment.node.selection_set.node);
    for set in operations.chain(fragments) {
        collect(set, &request.variables, &mut ids);
    }
    ids
}

/// Queries are fields of the root, so it looks only into fragments there.
fn collect(set: &SelectionSet, variables: &Variables, ids: &mut Vec<String>) {
    for selection in &set.items {
        match &selection.node {
            Selection::Field(field) => collect_arguments(&field.node, variables, ids),
            Selection::InlineFragment(inner) => collect(&inner.node.selection_set.node, variables, ids),
            Selection::FragmentSpread(_) => {}
        }
    }
}

fn collect_arguments(field: &Field, variables: &Variables, ids: &mut Vec<String>) {
    for (name, value) in &field.arguments {
        if !matches!(name.node.as_str(), "jobId" | "jobIds" | "exportId") {
            continue;
        }
        let value = value.node.clone().into_const_with(|name| {
            Ok::<_, std::convert::Infallible>(variables.get(&name).cloned().unwrap_or_default())
        });
        match value {
            Ok(GraphQlValue::String(id)) => ids.push(id),
            Ok(GraphQlValue::List(items)) => ids.extend(items.into_iter().filter_map(|item| match item {
                GraphQlValue::String(id) => Some(id),
                _ => None,
            })),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
