//! Browsers: which sites may send requests, and gRPC-Web.
//!
//! A browser says which site sends a request (`Origin`) and lets the site read the response if
//! that names it. Requests of other sites are refused, not only their responses hidden. A site
//! whose own name is made to lead to this address sends no `Origin` with a GET; where no
//! credentials are needed, such names are refused.

use std::convert::Infallible;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header, request};
use http_body_util::{BodyExt, Full};
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body, codegen::BoxFuture};
use tonic_web::GrpcWebLayer;
use tower::{Layer, Service as _, service_fn};

use super::{
    form::{Form, GRPC_WEB, GRPC_WEB_TEXT, media_types},
    messages,
};
use crate::{admin, api, config};

mod message;

/// Headers of a response that a site may read, beside the usual ones.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "grpc-status, grpc-message, grpc-status-details-bin, grpc-retry-pushback-ms, retry-after, x-request-id",
);

/// The content type of gRPC-Web in bytes.
const GRPC_WEB_PROTO: HeaderValue = HeaderValue::from_static("application/grpc-web+proto");

/// How long a browser may remember which requests a site may send, in seconds.
const REMEMBERED: HeaderValue = HeaderValue::from_static("7200");

/// Longest list of headers that a site may announce.
const LONGEST_LIST: usize = 1024;

/// The sites that may send requests, and the names of this address.
#[derive(Clone, Debug, Default)]
pub(super) struct Web {
    origins: Vec<HeaderValue>,
    hosts: Vec<String>,
    replaced: CancellationToken,
}

impl Web {
    pub(super) fn new(configured: &config::Web) -> Self {
        let origins = configured.origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
        let (origins, hosts) = (origins.collect(), configured.hosts.clone());
        Self { origins, hosts, replaced: CancellationToken::new() }
    }

    /// Whether this site may send requests.
    pub(super) fn lists(&self, origin: &HeaderValue) -> bool {
        self.origins.contains(origin)
    }

    /// Another has taken its place: open calls of sites have to be looked at again.
    pub(super) fn retire(&self) {
        self.replaced.cancel();
    }

    /// Completes when another has taken its place.
    pub(super) async fn replaced(&self) {
        self.replaced.cancelled().await;
    }

    /// The site that sends a request, if one does and may. `needs_name`: whether the request
    /// has to name this address by a known name.
    ///
    /// # Errors
    /// Why the request is refused.
    pub(super) fn site(
        &self,
        head: &request::Parts,
        needs_name: bool,
    ) -> Result<Option<HeaderValue>, Status> {
        let host = head.headers.get(header::HOST).map(HeaderValue::as_bytes);
        let host = head.uri.authority().map(|authority| authority.as_str().as_bytes()).or(host);
        if needs_name && let Some(foreign) = host.and_then(|host| admin::foreign_host(host, &self.hosts)) {
            return Err(api::of_foreign_host(&foreign));
        }
        match head.headers.get(header::ORIGIN) {
            None => Ok(None),
            Some(origin) if self.lists(origin) => Ok(Some(origin.clone())),
            Some(origin) => Err(api::of_foreign_origin(&String::from_utf8_lossy(origin.as_bytes()))),
        }
    }
}

/// Adds what lets this site read a response.
pub(super) fn let_read(headers: &mut HeaderMap, origin: &HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    headers.append(header::VARY, HeaderValue::from_static("origin"));
}

/// The response to a browser that asks whether a site may send a request, if it does.
pub(super) fn preflight(head: &request::Parts, form: &Form) -> Option<Response<Body>> {
    let asked = head.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if head.method != Method::OPTIONS || form.origin.is_none() || !asked {
        return None;
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, REMEMBERED);
    // The site is trusted with any: none of them means more than it says.
    let wanted = head.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
    if let Some(wanted) = wanted.filter(|wanted| wanted.len() <= LONGEST_LIST) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    headers.insert(header::VARY, HeaderValue::from_static("access-control-request-headers"));
    Some(response)
}

/// The response of a gRPC-Web call that failed: its head has the status.
pub(super) fn failure(status: &Status) -> Response<Body> {
    let mut response = status.clone().into_http();
    response.headers_mut().insert(header::CONTENT_TYPE, GRPC_WEB_PROTO);
    messages::complete(response.headers_mut());
    response
}

/// Calls a service of gRPC for a client that speaks gRPC-Web.
pub(super) fn call<F>(
    request: Request<Body>,
    form: Form,
    grpc: impl FnOnce(Request<Body>) -> F + Send + 'static,
) -> BoxFuture<Response<Body>, Infallible>
where
    F: Future<Output = Result<Response<Body>, Infallible>> + Send,
{
    Box::pin(async move {
        let (mut head, body) = request.into_parts();
        let body = match api::http::check_encoding(&head.headers) {
            Ok(()) => body.collect().await,
            Err(status) => Err(status),
        };
        let is_text =
            media_types(&head.headers, &header::CONTENT_TYPE).any(|kind| GRPC_WEB_TEXT.contains(&&*kind));
        let (limit, _) = api::request_limits(head.uri.path());
        let body = body.and_then(|body| message::read(&head.headers, is_text, body.to_bytes(), limit));
        // What the server sends back is not compressed twice, and this body is text at most.
        for name in ["grpc-accept-encoding", "grpc-encoding"] {
            head.headers.remove(HeaderName::from_static(name));
        }
        // The library knows them in one spelling.
        for (name, media_type) in library_types(&head.headers) {
            head.headers.insert(name, HeaderValue::from_static(media_type));
        }
        // It is decoded.
        head.headers.insert(header::CONTENT_TYPE, GRPC_WEB_PROTO);
        let body = match body {
            Ok(body) => Body::new(Full::new(body)),
            Err(status) => {
                head.extensions.insert(api::http::Unserved(status));
                let refused = grpc(Request::from_parts(head, Body::empty())).await?;
                return Ok(form.refusal(&refused));
            }
        };
        let mut grpc = Some(grpc);
        let service = service_fn(move |request| {
            let grpc = grpc.take();
            async move {
                let Some(grpc) = grpc else { return Ok(Status::internal("called twice").into_http()) };
                Ok::<_, Infallible>(completed(grpc(request).await?))
            }
        });
        GrpcWebLayer::new().layer(service).call(Request::from_parts(head, body)).await
    })
}

/// The content type of a request, and the one that its response shall have, as the library knows
/// them: without an accepted type, the response has that of the request.
fn library_types(headers: &HeaderMap) -> Vec<(HeaderName, &'static str)> {
    let known = |name: &HeaderName| {
        media_types(headers, name).find_map(|media| GRPC_WEB.into_iter().find(|known| *known == media))
    };
    let content_type = known(&header::CONTENT_TYPE);
    let accepted = known(&header::ACCEPT).or(content_type);
    let types = [(header::CONTENT_TYPE, content_type), (header::ACCEPT, accepted)];
    types.into_iter().filter_map(|(name, media_type)| Some((name, media_type?))).collect()
}

/// Completes head and trailers, which become a part of the body.
fn completed(response: Response<Body>) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    messages::complete(&mut head.headers);
    let body = body.map_frame(|mut frame| {
        if let Some(trailers) = frame.trailers_mut() {
            messages::complete(trailers);
        }
        frame
    });
    Response::from_parts(head, Body::new(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> Web {
        let origins = vec!["https://app.example".to_owned()];
        Web::new(&config::Web { origins, hosts: vec!["jobwatch.internal".to_owned()] })
    }

    fn head(headers: &[(&str, &str)]) -> request::Parts {
        let request = Request::builder().method("OPTIONS").uri("/v1/jobs:batchGet");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn only_listed_sites_may_send_requests() {
        let site =
            |headers: &[(&str, &str)]| web().site(&head(headers), true).map_err(|status| status.code());
        assert_eq!(site(&[]), Ok(None), "a program");
        assert_eq!(site(&[("origin", "https://app.example")]).unwrap().unwrap(), "https://app.example");
        for origin in ["https://evil.example", "http://app.example", "https://app.example:8443", "null"] {
            assert_eq!(site(&[("origin", origin)]), Err(tonic::Code::PermissionDenied), "{origin}");
        }
    }

    #[test]
    fn unknown_names_of_the_address_are_refused_where_no_credentials_are_needed() {
        let site = |host: &str, needs_name| web().site(&head(&[("host", host)]), needs_name);
        for host in ["127.0.0.1:50051", "localhost:50051", "jobwatch.internal:50051", "[::1]"] {
            site(host, true).unwrap();
        }
        let message = site("evil.example:50051", true).unwrap_err().message().to_owned();
        assert!(message.contains("\"evil.example\"") && message.contains("server.web.hosts"), "{message}");
        site("evil.example:50051", false).unwrap();
    }

    #[test]
    fn preflight_is_answered_for_a_listed_site_only() {
        let asked =
            [("access-control-request-method", "POST"), ("access-control-request-headers", "x-grpc-web")];
        let origin = Some(HeaderValue::from_static("https://app.example"));
        let form = Form { origin, ..Form::GRPC };
        let response = preflight(&head(&asked), &form).unwrap();
        assert_eq!(response.status(), 204);
        assert_eq!(response.headers()["access-control-allow-headers"], "x-grpc-web");
        assert!(preflight(&head(&asked), &Form::GRPC).is_none());
        assert!(preflight(&head(&[]), &form).is_none());
    }
}
