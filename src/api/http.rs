//! HTTP with JSON: each request is one call of the contract's service.
//!
//! A request becomes the request of gRPC that says the same, and goes the way of all calls:
//! caller, policy, metrics, access log, deadline. The response is the canonical JSON of the
//! response message, or of the `google.rpc.Status` with the HTTP status that stands for its
//! code. A watch is a stream of server-sent events.

use std::convert::Infallible;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header, request,
};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, Full, StreamBody};
use prost::Message;
use tonic::{Code, Status, body::Body};

use super::{request::InvalidField, status};
use crate::proto::json;

mod errors;
mod events;
mod messages;
mod openapi;
mod room;
mod route;
mod short_names;

pub use errors::failure;
pub use room::{CountsBytes, Room};
pub use route::{call_path, check_encoding, is_api_path, media_type};

use errors::Problem;
use events::Begin;
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
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Why a call is not served, as an extension of its request: its caller is identified and it is
/// counted first.
#[derive(Clone, Debug)]
pub struct Unserved(pub Status);

/// A call of gRPC, and how its response is answered.
struct Plan {
    path: &'static str,
    message: Vec<u8>,
    form: Shows,
}

/// What the response to a call shows.
enum Shows {
    /// Its one message, whose type has this name.
    Message(&'static str),
    Events(Begin),
    /// The head of events.
    Head,
    /// That a watch has ended, as its client knows.
    End,
}

/// The client of a watch has seen its end, as an extension of its request: it is checked, and not
/// begun.
#[derive(Clone, Copy, Debug)]
pub struct Ended;

/// What a request leads to.
enum Step {
    Answer(Response<Body>),
    Call(Plan),
}

/// Serves a request. `grpc` calls the contract's service.
pub async fn call<F>(
    request: Request<Body>,
    grpc: impl FnOnce(Request<Body>) -> F,
) -> Result<Response<Body>, Infallible>
where
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    let (mut head, body) = request.into_parts();
    let head_only = head.method == Method::HEAD;
    let room = head.extensions.remove::<Room>();
    let step = match Route::of(&head) {
        Ok(Route::Batch) => step(Route::Batch, body).await,
        Ok(route) => match drop_body(body).await {
            Ok(()) => step(route, Body::empty()).await,
            Err(status) => Err(Problem::from(status).of_path(&head)),
        },
        Err(problem) => Err(problem),
    };
    let response = match step {
        Ok(Step::Answer(response)) => response,
        Ok(Step::Call(plan)) => serve(head, plan, room.clone(), grpc).await,
        Err(problem) => refuse(head, problem, grpc).await,
    };
    Ok(if head_only { without_body(response, room).await } else { response })
}

/// What a request leads to, once its body has been read.
async fn step(route: Route, body: Body) -> Result<Step, Problem> {
    let (path, message, form) = match route {
        Route::OpenApi => return Ok(Step::Answer(of_text(openapi::document()))),
        Route::Options(methods) => return Ok(Step::Answer(no_content([(header::ALLOW, methods)]))),
        Route::Ended(request) => (WATCH, request.encode_to_vec(), Shows::End),
        Route::Watch(request) => {
            let begin = if request.resume_token.is_empty() { Begin::WithFirstEvent } else { Begin::AtOnce };
            (WATCH, request.encode_to_vec(), Shows::Events(begin))
        }
        Route::Peek(request) => (GET.0, request.encode_to_vec(), Shows::Head),
        Route::Get(request) => (GET.0, request.encode_to_vec(), Shows::Message(GET.1)),
        Route::Batch => {
            let message = batch(body).await.map_err(|status| Problem::from(status).of_call(BATCH.0))?;
            (BATCH.0, message, Shows::Message(BATCH.1))
        }
    };
    Ok(Step::Call(Plan { path, message, form }))
}

/// Reads a body that means nothing, up to its limit.
async fn drop_body(mut body: Body) -> Result<(), Status> {
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok(())
}

/// The message of a batch in this body.
async fn batch(body: Body) -> Result<Vec<u8>, Status> {
    let body = body.collect().await?.to_bytes();
    // Each costs far more than its bytes.
    if body.iter().fold(0, |count, byte| count + usize::from(*byte == b'{')) > MOST_OBJECTS {
        let reason = format!("has more than {MOST_OBJECTS} objects; name fewer jobs");
        return Err(InvalidField::new("body", &reason).into());
    }
    short_names::encoded_from_json("jobwatch.v1.BatchGetStatusesRequest", &body).map_err(|error| {
        let reason = format!("is not a BatchGetStatusesRequest in JSON: {error}");
        InvalidField::new("body", &status::repeated(&reason)).into()
    })
}

async fn serve<F>(
    mut head: request::Parts,
    Plan { path, message, form }: Plan,
    room: Option<Room>,
    grpc: impl FnOnce(Request<Body>) -> F,
) -> Response<Body>
where
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    if let Shows::End = form {
        head.extensions.insert(Ended);
    }
    let call = call_of(head, path, &message);
    drop(message);
    let Ok(response) = grpc(call).await;
    let mut answered = HeaderMap::new();
    copy_request_id(response.headers(), &mut answered);
    let messages = Messages::of(response);
    let response = match form {
        Shows::Events(begin) => events::response(messages, room, begin).await,
        Shows::Message(name) => unary(messages, name),
        Shows::Head => ended(messages).await.map(|()| events::head(Body::empty())),
        Shows::End => ended(messages).await.map(|()| no_content([])),
    };
    let mut response = response.unwrap_or_else(|status| failure(&status));
    copy_request_id(&answered, response.headers_mut());
    response
}

/// Refuses a request. One for a method of gRPC is a call that fails: its caller may be refused
/// first, and it is counted.
async fn refuse<F>(
    mut head: request::Parts,
    problem: Problem,
    grpc: impl FnOnce(Request<Body>) -> F,
) -> Response<Body>
where
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    let Some(path) = problem.call() else { return problem.into_response() };
    head.extensions.insert(Unserved(problem.status().clone()));
    let Ok(refused) = grpc(call_of(head, path, &[])).await;
    let mut response = match Status::from_header_map(refused.headers()) {
        Some(status) if !is_same(&status, problem.status()) => failure(&status),
        _ => problem.into_response(),
    };
    copy_request_id(refused.headers(), response.headers_mut());
    response
}

fn is_same(one: &Status, other: &Status) -> bool {
    (one.code(), one.message()) == (other.code(), other.message())
}

/// Copies the id of a call to the head of another response.
pub fn copy_request_id(from: &HeaderMap, to: &mut HeaderMap) {
    if let Some(id) = from.get(&REQUEST_ID) {
        to.insert(&REQUEST_ID, id.clone());
    }
}

/// The response to a HEAD: the same without its body, whose length it has.
async fn without_body(response: Response<Body>, room: Option<Room>) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    if !body.is_end_stream() {
        if let Some(room) = room {
            room.wait().await;
        }
        match body.collect().await {
            Ok(body) => _ = head.headers.insert(header::CONTENT_LENGTH, body.to_bytes().len().into()),
            Err(status) => return failure(&status).map(|_| Body::empty()),
        }
    }
    Response::from_parts(head, Body::empty())
}

/// Waits for the end of a call that succeeds.
async fn ended(mut messages: Messages) -> Result<(), Status> {
    loop {
        match messages.next().await {
            Next::Message(_) => {}
            Next::End(status) if status.code() == Code::Ok => return Ok(()),
            Next::End(status) => return Err(status),
        }
    }
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
                    && status.code() != Code::Ok
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

/// A response without a body.
fn no_content<const N: usize>(headers: [(HeaderName, &'static str); N]) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    protect(response.headers_mut());
    response
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
fn protect(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}
