//! Errors of requests from browsers and over HTTP.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{info, repeated};

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

/// The status of a request over HTTP for a path that there is not.
pub(in crate::api) fn of_unknown_path() -> Status {
    let message = format!("there is nothing at this path; {SERVED}");
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
