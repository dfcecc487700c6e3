//! The forms in which clients speak: gRPC, gRPC-Web, and HTTP with JSON.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, Version, header, request};
use tonic::{Status, body::Body};

use super::{
    messages,
    request_body::{Expected, Framing},
    web,
};
use crate::api::{self, http::is_api_path};

/// The content types of gRPC-Web that are served: messages of protobuf, as bytes or in base64.
pub(super) const GRPC_WEB: [&str; 4] = [
    "application/grpc-web",
    "application/grpc-web+proto",
    "application/grpc-web-text",
    "application/grpc-web-text+proto",
];

/// Those in base64.
pub(super) const GRPC_WEB_TEXT: [&str; 2] = ["application/grpc-web-text", "application/grpc-web-text+proto"];

/// What a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Grpc,
    GrpcWeb,
    Http,
}

/// The form of a request, which its response has, too.
#[derive(Clone, Debug)]
pub(super) struct Form {
    pub(super) kind: Kind,
    /// The site in a browser that sends it and may read the response.
    pub(super) origin: Option<HeaderValue>,
    /// Whether the response has no body: that to a HEAD.
    pub(super) head_only: bool,
}

impl Form {
    /// Plain gRPC.
    pub(super) const GRPC: Self = Self { kind: Kind::Grpc, origin: None, head_only: false };

    /// The form of a request that comes from this site, if from one.
    pub(super) fn of(head: &request::Parts, origin: Option<HeaderValue>) -> Self {
        Self { kind: Kind::of(head), origin, head_only: head.method == Method::HEAD }
    }

    /// What the body of a request with this head may be.
    pub(super) fn expected(&self, head: &request::Parts) -> Expected {
        let (limit, streaming) = api::request_limits(head.uri.path());
        let announced = head.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        let announced = announced.and_then(|length| length.parse().ok());
        match self.kind {
            Kind::Grpc => Expected { framing: Framing::Messages, limit, streaming, announced },
            // Browsers send a request whole.
            Kind::GrpcWeb | Kind::Http => {
                Expected { framing: Framing::Whole, limit, streaming: false, announced }
            }
        }
    }

    /// The response of a call that failed with this status.
    pub(super) fn failure(&self, status: &Status) -> Response<Body> {
        match self.kind {
            Kind::Grpc => status.clone().into_http(),
            Kind::GrpcWeb => web::failure(status),
            Kind::Http if self.head_only => api::http::failure(status).map(|_| Body::empty()),
            Kind::Http => api::http::failure(status),
        }
    }

    /// The response of a call that gRPC has refused with this head.
    pub(super) fn refusal(&self, refused: &Response<Body>) -> Response<Body> {
        let status = Status::from_header_map(refused.headers());
        let mut response =
            self.failure(&status.unwrap_or_else(|| Status::internal("the call has no status")));
        api::http::copy_request_id(refused.headers(), response.headers_mut());
        response
    }

    /// Completes the head of a response.
    pub(super) fn complete(&self, headers: &mut HeaderMap) {
        messages::complete(headers);
        if let Some(origin) = &self.origin {
            web::let_read(headers, origin);
        }
    }
}

impl Kind {
    /// What a request with this head is.
    pub(super) fn of(head: &request::Parts) -> Self {
        let is_http2 = head.version == Version::HTTP_2;
        match media_types(&head.headers, &header::CONTENT_TYPE).next() {
            Some(content_type) if is_grpc(&content_type) && is_http2 => Self::Grpc,
            Some(content_type) if GRPC_WEB.contains(&&*content_type) => Self::GrpcWeb,
            None if is_http2 && head.method == Method::POST && !is_api_path(head.uri.path()) => Self::Grpc,
            _ => Self::Http,
        }
    }
}

/// The media types in a header, in lower case and without their parameters.
pub(super) fn media_types(headers: &HeaderMap, name: &HeaderName) -> impl Iterator<Item = String> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(api::http::media_type)
}

/// Whether this is a content type of gRPC.
fn is_grpc(content_type: &str) -> bool {
    let rest = content_type.strip_prefix("application/grpc");
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('+'))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn kind_is_that_of_content_type_version_and_path() {
        let kind = |method: &str, path: &str, version, content_type: &str| {
            let mut request = Request::builder().method(method).uri(path).version(version);
            if !content_type.is_empty() {
                request = request.header("content-type", content_type);
            }
            Kind::of(&request.body(()).unwrap().into_parts().0)
        };
        let (one, two) = (Version::HTTP_11, Version::HTTP_2);
        let get = "/jobwatch.v1.JobStatusService/GetJobStatus";
        for content_type in
            ["application/grpc", "application/grpc+proto", "application/grpc;x=y", "Application/gRPC ; x=y"]
        {
            assert_eq!(kind("POST", get, two, content_type), Kind::Grpc);
            assert_eq!(kind("POST", get, one, content_type), Kind::Http, "gRPC needs HTTP/2");
        }
        for content_type in [
            "application/grpc-web",
            "application/grpc-web-text+proto",
            "application/grpc-web+proto; charset=utf-8",
            "APPLICATION/GRPC-WEB-TEXT ;charset=utf-8",
        ] {
            assert_eq!(
                [one, two].map(|version| kind("POST", get, version, content_type)),
                [Kind::GrpcWeb; 2]
            );
        }
        for (method, path, content_type) in [
            ("GET", "/v1/backends/b/jobs/1", ""),
            ("POST", "/v1/jobs:batchGet", "application/json"),
            ("POST", "/v1/jobs:batchGet", ""),
            ("GET", "/", ""),
            ("POST", get, "application/json"),
            ("POST", get, "application/grpc-web+json"),
            ("OPTIONS", get, ""),
        ] {
            assert_eq!([one, two].map(|version| kind(method, path, version, content_type)), [Kind::Http; 2]);
        }
        assert_eq!(kind("POST", get, two, ""), Kind::Grpc);
    }
}
