//! HTTP with JSON: each request is one call of the contract's service.
//!
//! A request becomes the request of gRPC that says the same, and goes the way of all calls:
//! caller, policy, metrics, access log, deadline. The response is the canonical JSON of the
//! response message, or of the `google.rpc.Status` with the HTTP status that stands for its
//! code. A watch is a stream of server-sent events.

use std::convert::Infallible;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header, request};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use prost::Message;
use tonic::{Status, body::Body};

use super::{request::InvalidField, status};
use crate::proto::json;

mod errors;
mod events;
mod messages;
mod openapi;
mod room;
mod route;

pub use errors::failure;
pub use room::{CountsBytes, Room};
pub use route::is_api_path;

use errors::Problem;
use messages::{Messages, Next};
use route::Route;

/// Paths of the methods, and the types of their messages.
const GET: (&str, &str) = ("/jobwatch.v1.JobStatusService/GetJobStatus", "jobwatch.v1.GetJobStatusResponse");
const BATCH: (&str, &str) =
    ("/jobwatch.v1.JobStatusService/BatchGetStatuses", "jobwatch.v1.BatchGetStatusesResponse");
const WATCH: &str = "/jobwatch.v1.JobStatusService/WatchJob";

/// Objects in a body of JSON that are read: one for each job, and some more.
const MOST_OBJECTS: usize = 20_000;

/// Headers of a request that do not belong to the call that it becomes: what they say is true
/// of this request only.
const OWN_HEADERS: [HeaderName; 9] = [
    header::ACCEPT_ENCODING,
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("grpc-accept-encoding"),
    HeaderName::from_static("grpc-encoding"),
];

/// The id of a call in the access log.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Serves a request. `grpc` calls the contract's service.
pub async fn call<F>(
    request: Request<Body>,
    grpc: impl FnOnce(Request<Body>) -> F,
) -> Result<Response<Body>, Infallible>
where
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    let (head, body) = request.into_parts();
    let served = match Route::of(&head) {
        Ok(route) => serve(head, route, body, grpc).await,
        Err(problem) => Err(problem),
    };
    Ok(served.unwrap_or_else(Problem::into_response))
}

async fn serve<F>(
    mut head: request::Parts,
    route: Route,
    body: Body,
    grpc: impl FnOnce(Request<Body>) -> F,
) -> Result<Response<Body>, Problem>
where
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    let (path, message, name) = match route {
        Route::OpenApi => return Ok(of_text(openapi::document())),
        Route::Ended => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            return Ok(response);
        }
        Route::Watch(request) => (WATCH, request.encode_to_vec(), None),
        Route::Get(request) => (GET.0, request.encode_to_vec(), Some(GET.1)),
        Route::Batch => {
            let body = body.collect().await.map_err(Problem::from)?.to_bytes();
            // Each costs far more than its bytes.
            if body.iter().fold(0, |count, byte| count + usize::from(*byte == b'{')) > MOST_OBJECTS {
                let reason = format!("has more than {MOST_OBJECTS} objects; name fewer jobs");
                return Err(Status::from(InvalidField::new("body", &reason)).into());
            }
            let message = json::encoded_from_json("jobwatch.v1.BatchGetStatusesRequest", &body);
            let message = message.map_err(|error| {
                let reason = format!("is not a BatchGetStatusesRequest in JSON: {error}");
                Status::from(InvalidField::new("body", &status::repeated(&reason)))
            })?;
            (BATCH.0, message, Some(BATCH.1))
        }
    };
    let room = head.extensions.remove::<Room>();
    let call = call_of(head, path, &message);
    drop(message);
    let Ok(response) = grpc(call).await;
    let request_id = response.headers().get(REQUEST_ID).cloned();
    let messages = Messages::of(response);
    let answered = match name {
        None => events::response(messages, room).await,
        Some(name) => unary(messages, name),
    };
    let mut response = answered.unwrap_or_else(|status| failure(&status));
    if let Some(id) = request_id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    Ok(response)
}

/// The call of gRPC with this message.
fn call_of(mut head: request::Parts, path: &'static str, message: &[u8]) -> Request<Body> {
    for name in OWN_HEADERS {
        head.headers.remove(name);
    }
    head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    head.headers.insert(header::TE, HeaderValue::from_static("trailers"));
    head.method = Method::POST;
    head.version = Version::HTTP_2;
    head.uri = Uri::from_static(path);
    let mut body = BytesMut::with_capacity(message.len() + 5);
    body.put_u8(0);
    body.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    body.put_slice(message);
    Request::from_parts(head, Body::new(Full::new(body.freeze())))
}

/// The response of a call with one message, which is encoded when it is sent. Such a call has
/// failed in its head or not at all.
fn unary(mut messages: Messages, name: &'static str) -> Result<Response<Body>, Status> {
    if let Some(status) = messages.failure() {
        return Err(status);
    }
    let text = stream::once(async move {
        match messages.next().await {
            Next::Message(message) => {
                let text = json::encoded_to_json(name, &message);
                let text = text.ok_or_else(|| Status::internal("the response can't be read"))?;
                // The call has ended when its end is read.
                if let Next::End(status) = messages.next().await
                    && status.code() != tonic::Code::Ok
                {
                    return Err(status);
                }
                Ok(Frame::data(Bytes::from(text + "\n")))
            }
            Next::End(status) => Err(status),
        }
    });
    Ok(of_body(Body::new(StreamBody::new(text))))
}

/// A response with this JSON.
fn of_text(text: impl Into<Bytes>) -> Response<Body> {
    of_body(Body::new(Full::new(text.into())))
}

fn of_body(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    protect(headers);
    response
}

/// What every response has: it is not kept, and is nothing but what it says.
fn protect(headers: &mut http::HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}
