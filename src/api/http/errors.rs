//! Errors over HTTP: a `google.rpc.Status` in JSON.

use http::{HeaderName, HeaderValue, Response, StatusCode, header, request};
use tonic::{Code, Status, body::Body};
use tonic_types::{Status as Rpc, StatusExt};

use super::of_text;
use crate::{api::status, proto::json};

/// Most bytes of an error as gRPC would encode it.
const MOST_BYTES: usize = 64 << 10;

/// A request that is not served.
#[derive(Debug)]
pub(super) struct Problem {
    status: Status,
    /// The HTTP status, where it is not the one of the code.
    http: Option<StatusCode>,
    header: Option<(HeaderName, HeaderValue)>,
    /// The method of gRPC that the request would have called.
    call: Option<&'static str>,
}

impl From<Status> for Problem {
    fn from(status: Status) -> Self {
        Self { status, http: None, header: None, call: None }
    }
}

impl Problem {
    pub(super) fn with(self, http: StatusCode) -> Self {
        Self { http: Some(http), ..self }
    }

    pub(super) fn and(self, name: HeaderName, value: &'static str) -> Self {
        Self { header: Some((name, HeaderValue::from_static(value))), ..self }
    }

    pub(super) fn of_call(self, path: &'static str) -> Self {
        Self { call: Some(path), ..self }
    }

    /// The same of a request with this head.
    pub(super) fn of_path(self, head: &request::Parts) -> Self {
        Self { call: super::call_path(head), ..self }
    }

    pub(super) fn call(&self) -> Option<&'static str> {
        self.call
    }

    pub(super) fn status(&self) -> &Status {
        &self.status
    }

    #[cfg(test)]
    pub(super) fn message(&self) -> &str {
        self.status.message()
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let mut response = failure(&self.status);
        if let Some(http) = self.http {
            *response.status_mut() = http;
        }
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// The response of a call that failed with this status.
pub fn failure(status: &Status) -> Response<Body> {
    let status = status::complete(status, MOST_BYTES);
    let mut response = of_text(to_json(&status) + "\n");
    *response.status_mut() = http_status(&status);
    if let Some(seconds) = retry_millis(&status).map(|millis| millis.div_ceil(1000)) {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    if status.code() == Code::Unauthenticated {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// A `google.rpc.Status` as JSON.
pub(super) fn to_json(status: &Status) -> String {
    let name = "google.rpc.Status";
    let encoded = json::encoded_to_json(name, status.details()).filter(|_| !status.details().is_empty());
    encoded.unwrap_or_else(|| {
        let (code, message) = (status.code().into(), status.message().to_owned());
        json::to_json(name, &Rpc { code, message, details: Vec::new() })
    })
}

/// When a client may try again.
pub(super) fn retry_millis(status: &Status) -> Option<u64> {
    let delay = status.get_details_retry_info()?.retry_delay?;
    u64::try_from(delay.as_nanos().div_ceil(1_000_000)).ok()
}

/// The HTTP status of an error. The reasons that concern a body have one of their own.
fn http_status(status: &Status) -> StatusCode {
    match status.get_details_error_info() {
        Some(info) if info.reason == "REQUEST_TOO_LONG" => StatusCode::PAYLOAD_TOO_LARGE,
        Some(info) if info.reason == "REQUEST_TIMEOUT" => StatusCode::REQUEST_TIMEOUT,
        _ => of_code(status.code()),
    }
}

/// The HTTP status that stands for a code, as `google/rpc/code.proto` has it.
fn of_code(code: Code) -> StatusCode {
    let number = match code {
        Code::Ok => 200,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::Unauthenticated => 401,
        Code::PermissionDenied => 403,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::ResourceExhausted => 429,
        Code::Cancelled => 499,
        Code::Unknown | Code::Internal | Code::DataLoss => 500,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::DeadlineExceeded => 504,
    };
    StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use serde_json::json;

    use super::*;
    use crate::access::{RateExceeded, Refused};

    async fn sent(response: Response<Body>) -> (u16, serde_json::Value) {
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn error_is_a_status_with_readable_details() {
        let retry_in = std::time::Duration::from_millis(1500);
        let response = failure(&status::of_rate_exceeded(RateExceeded { retry_in }));
        assert_eq!(response.headers()["retry-after"], "2");
        let (code, body) = sent(response).await;
        assert_eq!((code, &body["code"]), (429, &json!(8)));
        let details = body["details"].as_array().unwrap();
        let kinds: Vec<_> = details.iter().map(|detail| detail["@type"].as_str().unwrap()).collect();
        for kind in ["ErrorInfo", "QuotaFailure", "RetryInfo"] {
            assert!(kinds.contains(&&*format!("type.googleapis.com/google.rpc.{kind}")), "{kinds:?}");
        }
        let response = failure(&status::of_refused(&Refused::Anonymous { certificates: false }));
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
    }

    #[tokio::test]
    async fn error_of_a_library_gets_a_reason() {
        let (code, body) = sent(failure(&Status::internal("x"))).await;
        assert_eq!(
            (code, &body["message"], &body["details"][0]["reason"]),
            (500, &json!("x"), &json!("INTERNAL"))
        );
    }

    #[test]
    fn each_code_has_its_http_status() {
        let statuses: Vec<u16> = (0..17).map(|code| of_code(Code::from(code)).as_u16()).collect();
        assert_eq!(
            statuses,
            [200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401]
        );
    }
}
