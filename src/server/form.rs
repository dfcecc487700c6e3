//! The forms in which clients speak: gRPC, gRPC-Web, and HTTP with JSON.

use http::{HeaderMap, HeaderValue, Method, Response, Version, header, request};
use tonic::{Status, body::Body};

use super::{
    messages,
    request_body::{Expected, Framing},
    web,
};
use crate::api::{self, http::is_api_path};

/// The content types of gRPC-Web that are served: messages of protobuf, as bytes or in base64.
const GRPC_WEB: [&[u8]; 4] = [
    b"application/grpc-web",
    b"application/grpc-web+proto",
    b"application/grpc-web-text",
    b"application/grpc-web-text+proto",
];

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
}

impl Form {
    /// Plain gRPC.
    pub(super) const GRPC: Self = Self { kind: Kind::Grpc, origin: None };

    /// What the body of a request for this path may be.
    pub(super) fn expected(&self, path: &str) -> Expected {
        let (limit, streaming) = api::request_limits(path);
        match self.kind {
            Kind::Grpc => Expected { framing: Framing::Messages, limit, streaming },
            // Browsers send a request whole.
            Kind::GrpcWeb | Kind::Http => Expected { framing: Framing::Whole, limit, streaming: false },
        }
    }

    /// The response of a call that failed with this status.
    pub(super) fn failure(&self, status: &Status) -> Response<Body> {
        match self.kind {
            Kind::Grpc => status.clone().into_http(),
            Kind::GrpcWeb => web::failure(status),
            Kind::Http => api::http::failure(status),
        }
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
        match head.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes) {
            Some(content_type) if is_grpc(content_type) && is_http2 => Self::Grpc,
            Some(content_type) if GRPC_WEB.contains(&content_type) => Self::GrpcWeb,
            None if is_http2 && head.method == Method::POST && !is_api_path(head.uri.path()) => Self::Grpc,
            _ => Self::Http,
        }
    }
}

/// Whether this is a content type of gRPC.
fn is_grpc(content_type: &[u8]) -> bool {
    let rest = content_type.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
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
        for content_type in ["application/grpc", "application/grpc+proto", "application/grpc;x=y"] {
            assert_eq!(kind("POST", get, two, content_type), Kind::Grpc);
            assert_eq!(kind("POST", get, one, content_type), Kind::Http, "gRPC needs HTTP/2");
        }
        for content_type in ["application/grpc-web", "application/grpc-web-text+proto"] {
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
