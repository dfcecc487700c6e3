//! Errors of requests from browsers and over HTTP.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{InvalidField, info, repeated};
use crate::api::LONGEST_REQUEST;

/// What this address serves, for those who send something else.
const SERVED: &str = "this address serves gRPC over HTTP/2, gRPC-Web, and the paths of /openapi.json";

/// The status of a request that a site in a browser sends which may not.
pub fn of_foreign_origin(origin: &str) -> Status {
    let message = format!("{:?} is no site that may call; add it to server.web.origins", repeated(origin));
    Status::with_error_details(Code::PermissionDenied, message, info("ORIGIN_NOT_ALLOWED", HashMap::new()))
}

/// The status of a request that names this address by a name that is not known.
pub fn of_foreign_host(host: &str) -> Status {
    let message = format!(
        "{:?} is no name of this address; use its IP address or localhost, add the name to server.web.hosts, or \
         configure TLS or access",
        repeated(host)
    );
    Status::with_error_details(Code::PermissionDenied, message, info("HOST_NOT_ALLOWED", HashMap::new()))
}

/// The status of a request over HTTP/1.1 whose head can't be read.
pub fn of_unreadable_head() -> Status {
    let message = format!(
        "the head of the request can't be read; begin with a line such as GET /openapi.json HTTP/1.1, and send \
         headers as in RFC 9112; {SERVED}"
    );
    Status::with_error_details(Code::InvalidArgument, message, info("INVALID_REQUEST", HashMap::new()))
}

/// The status of a request over HTTP/1.1 whose head has no end.
pub fn of_cut_off_head() -> Status {
    let message = "the head of the request ends before the empty line after its headers; send all of it";
    Status::with_error_details(Code::InvalidArgument, message, info("INVALID_REQUEST", HashMap::new()))
}

/// The status of a request over HTTP/1.1 whose head says that its body has more bytes than can be
/// counted.
pub fn of_endless_body() -> Status {
    let message = format!(
        "the Content-Length of the request is too long; send at most {LONGEST_REQUEST} bytes, and their number"
    );
    Status::with_error_details(Code::ResourceExhausted, message, info("REQUEST_TOO_LONG", HashMap::new()))
}

/// The status of a request over HTTP/1.1 whose head is too long.
pub fn of_long_head(bytes: usize, headers: usize) -> Status {
    let message =
        format!("the head of the request is too long; send at most {bytes} bytes and {headers} headers");
    Status::with_error_details(Code::ResourceExhausted, message, info("REQUEST_TOO_LONG", HashMap::new()))
}

/// The status of a request over HTTP/1.1 whose `Host` can't be one.
pub fn of_bad_host(reason: &str) -> Status {
    InvalidField::new("Host", reason).into()
}

/// The status of a request over HTTP/1.1 whose body can't be read to its end.
pub fn of_unreadable_body(reason: &str) -> Status {
    InvalidField::new("body", reason).into()
}

/// The status of a request whose body has this encoding, which this header names.
pub fn of_encoded_body(header: &str, encoding: &str) -> Status {
    let message = format!(
        "the header {header} is {:?}, which is not served; send the body as it is, without this header",
        repeated(encoding)
    );
    Status::with_error_details(Code::Unimplemented, message, info("UNIMPLEMENTED", HashMap::new()))
}

/// The status of a request in plain text where TLS is spoken.
pub fn of_plain_text() -> Status {
    InvalidField::new("request", "came without TLS, which this port requires; write https:// in the URL")
        .into()
}

/// The status of a request over HTTP for a path that there is not.
pub(in crate::api) fn of_unknown_path(path: &str) -> Status {
    let is_like_a_job = path.trim_start_matches('/').starts_with("v1/");
    let hint = if is_like_a_job {
        "a job is /v1/backends/BACKEND/jobs/JOB_ID, with %2F for each / within its id, and no / at the end; "
    } else {
        ""
    };
    let message = format!("there is nothing at this path; {hint}{SERVED}");
    Status::with_error_details(Code::NotFound, message, info("NOT_FOUND", HashMap::new()))
}

/// The status of a request over HTTP with another method than its path has.
pub(in crate::api) fn of_other_method(allowed: &str) -> Status {
    let message = format!("this path has no such method; send {allowed}");
    Status::with_error_details(Code::Unimplemented, message, info("UNIMPLEMENTED", HashMap::new()))
}

/// The status of a request whose content type or version of HTTP its path does not have.
pub(in crate::api) fn of_unserved_content(wanted: &str) -> Status {
    let message = format!("{wanted}; {SERVED}");
    Status::with_error_details(Code::Unimplemented, message, info("UNIMPLEMENTED", HashMap::new()))
}
