//! Counts calls of the services whose callers are identified, and writes the access log.
//!
//! The end of a call is its trailers, or its head where that has the status; the end of one
//! whose client leaves before is that its body is dropped.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::{Frame, SizeHint};
use tonic::{Code, Status, body::Body, codegen::BoxFuture};
use tracing::info;
use uuid::Uuid;

use crate::{
    access::Grant,
    telemetry::{
        metrics::{ActiveCall, metrics},
        traces::{CallSpan, Tracer},
    },
};

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Longest request id that is taken from a caller.
const LONGEST_ID: usize = 128;

/// Where the name of a call's caller is put once it is known.
#[derive(Clone, Debug)]
pub(super) struct Principal(Arc<OnceLock<Arc<str>>>);

impl Principal {
    /// Notes the caller of a request.
    pub(super) fn note<B>(request: &Request<B>, grant: &Grant) {
        if let (Some(Self(cell)), Some(name)) = (request.extensions().get(), grant.principal()) {
            let _ = cell.set(name.into());
        }
    }
}

/// A call from its request to its end.
pub(super) struct Observed {
    service: &'static str,
    call: ActiveCall<'static>,
    principal: Option<Principal>,
    /// Where there is an access log.
    request_id: Option<HeaderValue>,
    /// Where the call is traced.
    span: Option<CallSpan>,
}

impl Observed {
    /// A call begins. `identifies`: whether its caller has a name. `access_log`: whether its
    /// end is logged. `tracer`: traces it.
    pub(super) fn begin<B>(
        request: &mut Request<B>,
        service: &'static str,
        identifies: bool,
        access_log: bool,
        tracer: Option<&Tracer>,
    ) -> Self {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default();
        let call = metrics().begin_call(method);
        let principal = identifies.then(|| Principal(Arc::default()));
        if let Some(principal) = &principal {
            request.extensions_mut().insert(principal.clone());
        }
        let request_id = access_log.then(|| request_id(request.headers()));
        let span = tracer.and_then(|tracer| tracer.begin_call(request.headers()));
        Self { service, call, principal, request_id, span }
    }

    /// Observes the call's response.
    pub(super) fn response(
        mut self,
        response: impl Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
    ) -> BoxFuture<Response<Body>, Infallible> {
        Box::pin(async move {
            let response = match &self.span {
                Some(span) => span.scope(response).await,
                None => response.await,
            };
            let mut response = response?;
            if let Some(id) = &self.request_id {
                response.headers_mut().insert(&REQUEST_ID, id.clone());
            }
            if let Some(code) = code(response.headers()) {
                self.end(code);
                return Ok(response);
            }
            let (parts, body) = response.into_parts();
            Ok(Response::from_parts(parts, Body::new(ObservedBody { body, observed: self })))
        })
    }

    fn end(&mut self, code: Code) {
        let name = self.principal.as_ref().and_then(|Principal(cell)| cell.get());
        if let Some(name) = name {
            self.call.identified(name);
        }
        if let Some(id) = self.request_id.take() {
            let duration_ms = (self.call.elapsed().as_secs_f64() * 1e6).round() / 1e3;
            info!(
                target: "jobwatch::access",
                request_id = id.to_str().unwrap_or_default(),
                principal = name.map_or("none", |name| name),
                method = self.call.method(),
                code = ActiveCall::code_name(code.into()),
                duration_ms,
                trace_id = self.span.as_ref().map(CallSpan::trace_id),
                "call ended"
            );
        }
        if let Some(span) = self.span.take() {
            span.end(self.service, self.call.method(), code.into());
        }
        self.call.end(code.into());
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        // Has no effect after another end.
        self.end(Code::Cancelled);
    }
}

/// The id that the caller has given, if it is a plain token, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte);
    let given = headers
        .get(&REQUEST_ID)
        .filter(|id| (1..=LONGEST_ID).contains(&id.len()) && id.as_bytes().iter().all(is_plain));
    given.cloned().unwrap_or_else(|| {
        let id = Uuid::now_v7().to_string();
        HeaderValue::from_str(&id).expect("a UUID is digits, letters and hyphens")
    })
}

/// The status in the head or the trailers of a response.
fn code(headers: &HeaderMap) -> Option<Code> {
    headers.get(&GRPC_STATUS).map(|status| Code::from_bytes(status.as_bytes()))
}

struct ObservedBody {
    body: Body,
    observed: Observed,
}

impl http_body::Body for ObservedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(code) = frame.trailers_ref().and_then(code) {
                    self.observed.end(code);
                }
            }
            Some(Err(status)) => self.observed.end(status.code()),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_id_is_taken_if_it_is_a_plain_token() {
        let id = |given: &'static [u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(&REQUEST_ID, HeaderValue::from_bytes(given).unwrap());
            request_id(&headers).to_str().unwrap().to_owned()
        };
        assert_eq!(id(b"req-1.a_B:2"), "req-1.a_B:2");
        for refused in [&b""[..], b"two words", b"a\"b", b"\xc3\xa9", &[b'x'; LONGEST_ID + 1]] {
            let made = Uuid::parse_str(&id(refused)).unwrap();
            assert_eq!(made.get_version_num(), 7);
        }
    }
}
