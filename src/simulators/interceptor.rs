//! The middleware around a vendor's routes: it logs each request and applies the faults.

use std::{future::pending, io, sync::Arc};

use axum::{
    Extension,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{Html, IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use serde_json::{Value, json};

use super::{
    SimulatorState,
    faults::{self, CustomResponse, Effect, GraphQlError},
    listener::Connection,
    raw_response::{Delivery, RawResponse},
};

/// Requests beyond this are refused; vendors have limits of this kind.
const LARGEST_REQUEST: usize = 32 * 1024 * 1024;

const PIECE: usize = 64 * 1024;

/// The middleware of all vendors' routes.
pub(super) async fn intercept(
    State(state): State<Arc<SimulatorState>>,
    Extension(line): Extension<Connection>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, LARGEST_REQUEST).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let path = parts.uri.path().to_owned();
    let ids = state.vendor.job_ids(&parts, &body);
    let faults = state.faults.take(&path, &ids, line.is_reused());
    let removals = state.faults.removals();
    let number = state.calls.arrived(&parts.method, &path, ids.clone(), &parts.headers);
    tokio::time::sleep(faults.delay).await;
    let is_held = matches!(faults.effect, Some(Effect::HoldResponse));
    let distortion = faults.effect.as_ref().and_then(Effect::distortion);
    let response = match faults.effect {
        Some(Effect::Hang) => pending().await,
        Some(Effect::Reset) => line.deliver(Delivery::of([]).then_reset()).await,
        Some(Effect::CloseUnderRequest) => line.deliver(Delivery::of([]).then_close()).await,
        Some(Effect::Status(response)) => custom_response(response),
        Some(Effect::Empty204) => StatusCode::NO_CONTENT.into_response(),
        Some(Effect::Html(code)) => (status(code), Html(PAGE)).into_response(),
        Some(Effect::Redirect(location)) => custom_response(CustomResponse {
            code: 302,
            body: PAGE.to_owned(),
            bytes: None,
            content_type: "text/html; charset=UTF-8".to_owned(),
            headers: [("location".to_owned(), location)].into(),
        }),
        Some(Effect::HugeBody(bytes)) => huge(bytes),
        Some(Effect::Refuse(message)) => state.vendor.refusal(&parts, &message),
        Some(Effect::GraphQlError(error)) if !error.with_data => {
            (status(error.status.unwrap_or(200)), axum::Json(with_error(None, &error))).into_response()
        }
        Some(Effect::AnswerFor(ids)) => {
            let routes = next.run(Request::from_parts(parts, Body::from(body)));
            faults::responding_for(ids, routes).await
        }
        Some(Effect::Elements(elements)) => {
            let routes = next.run(Request::from_parts(parts, Body::from(body)));
            faults::responding_for(elements.of(ids), routes).await
        }
        after => {
            if let Some(Effect::IgnoreRange) = after {
                parts.headers.remove(header::RANGE);
            }
            let response = next.run(Request::from_parts(parts, Body::from(body))).await;
            apply(response, after).await
        }
    };
    state.calls.responded(number, response.status().as_u16());
    if is_held {
        state.faults.removed_since(removals).await;
    }
    line.keep();
    match distortion {
        None => response,
        Some(distortion) => line.deliver(distortion(&RawResponse::of(response).await)).await,
    }
}

/// Applies an effect that changes the content of the vendor's response.
async fn apply(mut response: Response, effect: Option<Effect>) -> Response {
    match effect {
        Some(Effect::WrongContentType(kind)) => {
            let kind = HeaderValue::from_str(&kind).unwrap_or(HeaderValue::from_static("text/plain"));
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        Some(Effect::Json(fault)) => {
            let (mut parts, body) = response.into_parts();
            let body = fault.put_into(&to_bytes(body, usize::MAX).await.unwrap_or_default());
            parts.headers.remove(header::CONTENT_LENGTH);
            Response::from_parts(parts, Body::from(body))
        }
        Some(Effect::GraphQlError(error)) => {
            let code = status(error.status.unwrap_or(200));
            let body = to_bytes(response.into_body(), usize::MAX).await.unwrap_or_default();
            let body = serde_json::from_slice(&body).unwrap_or_default();
            (code, axum::Json(with_error(Some(body), &error))).into_response()
        }
        _ => response,
    }
}

fn huge(bytes: u64) -> Response {
    let piece = Bytes::from(vec![b'a'; PIECE]);
    let body = stream::unfold((bytes, true), move |(rest, first)| {
        let piece = if first { Bytes::from_static(b"{\"") } else { piece.clone() };
        let len = piece.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
        async move { (len > 0).then(|| (Ok::<_, io::Error>(piece.slice(..len)), (rest - len as u64, false))) }
    });
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(body)).into_response()
}

fn with_error(body: Option<Value>, error: &GraphQlError) -> Value {
    let mut body = body.unwrap_or_else(|| json!({ "data": null }));
    let first =
        json!({ "message": error.message, "locations": [], "path": [], "extensions": error.extensions });
    body["errors"] = json!([first]);
    body
}

fn custom_response(custom: CustomResponse) -> Response {
    let body = custom.bytes.unwrap_or_else(|| custom.body.into());
    let mut response = (status(custom.code), body).into_response();
    let kind = ("content-type".to_owned(), custom.content_type);
    for (name, value) in std::iter::once(kind).chain(custom.headers) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

const PAGE: &str =
    "<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body><form></form></body></html>\n";
