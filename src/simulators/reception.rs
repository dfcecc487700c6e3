//! What every request goes through before and after the vendor's own routes: the
//! call log, and the faults.

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
    World,
    delivery::{Delivery, RawAnswer},
    faults::{self, Answer, Effect, GraphQlError},
    host::Line,
};

/// Requests beyond this are refused; vendors have limits of this kind.
const LARGEST_REQUEST: usize = 32 * 1024 * 1024;

const PIECE: usize = 64 * 1024;

/// The middleware of all vendors' routes.
pub(super) async fn receive(
    State(world): State<Arc<World>>,
    Extension(line): Extension<Line>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, LARGEST_REQUEST).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let path = parts.uri.path().to_owned();
    let ids = world.vendor.job_ids(&parts, &body);
    let mishap = world.faults.take(&path, &ids, line.is_kept());
    let number = world.calls.arrived(&parts.method, &path, ids, &parts.headers);
    tokio::time::sleep(mishap.delay).await;
    let distortion = mishap.effect.as_ref().and_then(Effect::distortion);
    let response = match mishap.effect {
        Some(Effect::Hang) => pending().await,
        Some(Effect::Reset) => line.deliver(Delivery::of([]).then_reset()).await,
        Some(Effect::CloseUnderRequest) => line.deliver(Delivery::of([]).then_close()).await,
        Some(Effect::Status(answer)) => one_s_own(answer),
        Some(Effect::Empty204) => StatusCode::NO_CONTENT.into_response(),
        Some(Effect::Html(code)) => (status(code), Html(PAGE)).into_response(),
        Some(Effect::Redirect(location)) => one_s_own(Answer {
            code: 302,
            body: PAGE.to_owned(),
            bytes: None,
            content_type: "text/html; charset=UTF-8".to_owned(),
            headers: [("location".to_owned(), location)].into(),
        }),
        Some(Effect::HugeBody(bytes)) => huge(bytes),
        Some(Effect::Refuse(message)) => world.vendor.refusal(&parts, &message),
        Some(Effect::GraphQlError(error)) if !error.with_data => {
            (status(error.status.unwrap_or(200)), axum::Json(with_error(None, &error))).into_response()
        }
        Some(Effect::AnswerFor(ids)) => {
            let routes = next.run(Request::from_parts(parts, Body::from(body)));
            faults::answering_for(ids, routes).await
        }
        after => {
            if let Some(Effect::IgnoreRange) = after {
                parts.headers.remove(header::RANGE);
            }
            let response = next.run(Request::from_parts(parts, Body::from(body))).await;
            spoil(response, after).await
        }
    };
    world.calls.answered(number, response.status().as_u16());
    line.keep();
    match distortion {
        None => response,
        Some(distortion) => line.deliver(distortion(&RawAnswer::of(response).await)).await,
    }
}

/// Does to the vendor's answer what the effect says.
async fn spoil(mut response: Response, effect: Option<Effect>) -> Response {
    match effect {
        Some(Effect::WrongContentType(kind)) => {
            let kind = HeaderValue::from_str(&kind).unwrap_or(HeaderValue::from_static("text/plain"));
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        Some(Effect::Json(misfit)) => {
            let (mut parts, body) = response.into_parts();
            let body = misfit.put_into(&to_bytes(body, usize::MAX).await.unwrap_or_default());
            parts.headers.remove(header::CONTENT_LENGTH);
            Response::from_parts(parts, Body::from(body))
        }
        Some(Effect::GraphQlError(error)) => {
            let code = status(error.status.unwrap_or(200));
            let body = to_bytes(response.into_body(), usize::MAX).await.unwrap_or_default();
            let answer = serde_json::from_slice(&body).unwrap_or_default();
            (code, axum::Json(with_error(Some(answer), &error))).into_response()
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

fn with_error(answer: Option<Value>, error: &GraphQlError) -> Value {
    let mut answer = answer.unwrap_or_else(|| json!({ "data": null }));
    let first =
        json!({ "message": error.message, "locations": [], "path": [], "extensions": error.extensions });
    answer["errors"] = json!([first]);
    answer
}

fn one_s_own(answer: Answer) -> Response {
    let body = answer.bytes.unwrap_or_else(|| answer.body.into());
    let mut response = (status(answer.code), body).into_response();
    let kind = ("content-type".to_owned(), answer.content_type);
    for (name, value) in std::iter::once(kind).chain(answer.headers) {
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
