//! What a request over HTTP stands for.

use std::borrow::Cow;

use http::{HeaderMap, Method, StatusCode, Version, header, request};
use percent_encoding::percent_decode_str;
use tonic::Status;
use url::form_urlencoded;

use super::{errors::Problem, events, short_names};
use crate::{
    api::{SilenceLimit, request::InvalidField, status},
    proto::{json::pool, v1 as pb},
};

/// What a request stands for.
#[derive(Debug, PartialEq)]
pub(super) enum Route {
    OpenApi,
    Get(pb::GetJobStatusRequest),
    /// A batch, which the body names.
    Batch,
    Watch(pb::WatchJobRequest),
    /// The head of a watch, which is not begun.
    Peek(pb::GetJobStatusRequest),
    /// The methods that a path has.
    Options(&'static str),
    /// A watch whose end its client has seen.
    Ended(pb::WatchJobRequest),
}

/// Whether the path is one of this interface, whatever is below it.
pub fn is_api_path(path: &str) -> bool {
    path.starts_with("/v1/") || path == "/openapi.json"
}

impl Route {
    pub(super) fn of(head: &request::Parts) -> Result<Self, Problem> {
        let path = Path::of(head);
        if head.method == Method::OPTIONS
            && let Some(methods) = path.methods(head)
        {
            return Ok(Self::Options(methods));
        }
        let (allowed, methods) = match path {
            Path::Other => return Err(other(head)),
            Path::Batch => (head.method == Method::POST, "POST, OPTIONS"),
            _ => (is_get(head), "GET, HEAD, OPTIONS"),
        };
        if !allowed {
            let problem =
                Problem::from(status::of_other_method(methods.split(',').next().unwrap_or_default()));
            return Err(problem.with(StatusCode::METHOD_NOT_ALLOWED).and(header::ALLOW, methods));
        }
        let route = match path {
            Path::Job(backend, id) => get(head, backend, id),
            Path::Events(backend, id) => watch(head, backend, id),
            Path::Batch => batch(head),
            Path::OpenApi | Path::Other => Ok(Self::OpenApi),
        };
        route.map_err(|problem| match path.call() {
            Some(call) => problem.of_call(call),
            None => problem,
        })
    }
}

/// A path of this interface.
#[derive(Clone, Copy, Debug)]
enum Path<'a> {
    OpenApi,
    Batch,
    Job(&'a str, &'a str),
    Events(&'a str, &'a str),
    Other,
}

impl<'a> Path<'a> {
    fn of(head: &'a request::Parts) -> Self {
        let mut segments = head.uri.path().split('/').skip(1);
        let segments: [Option<&str>; 7] = std::array::from_fn(|_| segments.next());
        match segments {
            [Some("openapi.json"), None, ..] => Self::OpenApi,
            [Some("v1"), Some("jobs:batchGet"), None, ..] => Self::Batch,
            [Some("v1"), Some("backends"), Some(backend), Some("jobs"), Some(id), None, _] => {
                Self::Job(backend, id)
            }
            [Some("v1"), Some("backends"), Some(backend), Some("jobs"), Some(id), Some("events"), None] => {
                Self::Events(backend, id)
            }
            _ => Self::Other,
        }
    }

    /// The method of gRPC that a request for it calls.
    fn call(self) -> Option<&'static str> {
        match self {
            Self::Job(..) => Some(super::GET.0),
            Self::Events(..) => Some(super::WATCH),
            Self::Batch => Some(super::BATCH.0),
            Self::OpenApi | Self::Other => None,
        }
    }

    /// The methods of HTTP that it has.
    fn methods(self, head: &request::Parts) -> Option<&'static str> {
        match self {
            Self::Batch => Some("POST, OPTIONS"),
            Self::OpenApi | Self::Job(..) | Self::Events(..) => Some("GET, HEAD, OPTIONS"),
            // All of the server's.
            Self::Other => (head.uri.path() == "*").then_some("GET, HEAD, POST, OPTIONS"),
        }
    }
}

/// The method of gRPC that a request calls, if it calls one.
pub fn call_path(head: &request::Parts) -> Option<&'static str> {
    Path::of(head).call()
}

fn is_get(head: &request::Parts) -> bool {
    head.method == Method::GET || head.method == Method::HEAD
}

fn get(head: &request::Parts, backend: &str, id: &str) -> Result<Route, Problem> {
    let mut given = Parameters::of(head, &["view", "max_age", "wait", "job_tag"])?;
    Ok(Route::Get(pb::GetJobStatusRequest {
        job: Some(job(backend, id, &mut given)?),
        view: given.view()?,
        max_age: given.duration("max_age")?,
        wait: given.short_duration("wait")?,
    }))
}

fn batch(head: &request::Parts) -> Result<Route, Problem> {
    Parameters::of(head, &[])?;
    let content_type = head.headers.get(header::CONTENT_TYPE).and_then(|name| name.to_str().ok());
    if content_type.is_none_or(|content_type| media_type(content_type) != "application/json") {
        return Err(unserved("this path reads content-type application/json"));
    }
    check_encoding(&head.headers).map_err(|status| {
        let problem = Problem::from(status).with(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        problem.and(header::ACCEPT_ENCODING, "identity")
    })?;
    Ok(Route::Batch)
}

/// A media type in lower case and without its parameters.
pub fn media_type(text: &str) -> String {
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Checks that the body of a request is sent as it is.
///
/// # Errors
/// It is compressed, or encoded otherwise.
pub fn check_encoding(headers: &HeaderMap) -> Result<(), Status> {
    for (header, name, plain) in [
        (header::CONTENT_ENCODING, "Content-Encoding", &b"identity"[..]),
        (header::TRANSFER_ENCODING, "Transfer-Encoding", b"chunked"),
    ] {
        let encodings = headers.get_all(header).into_iter();
        let encodings = encodings.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        let mut others = encodings.map(<[u8]>::trim_ascii).filter(|other| !other.eq_ignore_ascii_case(plain));
        if let Some(other) = others.next() {
            return Err(status::of_encoded_body(name, &String::from_utf8_lossy(other)));
        }
    }
    Ok(())
}

fn watch(head: &request::Parts, backend: &str, id: &str) -> Result<Route, Problem> {
    const KNOWN: [&str; 6] =
        ["view", "resume_token", "poll_interval", "heartbeat_interval", "state_changes_only", "job_tag"];
    let mut given = Parameters::of(head, &KNOWN)?;
    let in_query = given.take("resume_token").unwrap_or_default();
    // A browser's own, when it connects again: newer than what is in the URL.
    let last = head.headers.get("last-event-id").and_then(|id| id.to_str().ok()).unwrap_or(&in_query);
    let (resume_token, is_end) = events::resume_token(last);
    let request = pb::WatchJobRequest {
        job: Some(job(backend, id, &mut given)?),
        view: given.view()?,
        resume_token: resume_token.to_owned(),
        poll_interval: given.duration("poll_interval")?,
        heartbeat_interval: given.short_duration("heartbeat_interval")?,
        state_changes_only: given.flag("state_changes_only")?,
    };
    if is_end {
        return Ok(Route::Ended(request));
    }
    if head.method == Method::HEAD {
        let (job, view) = (request.job, pb::JobStatusView::Basic.into());
        return Ok(Route::Peek(pb::GetJobStatusRequest { job, view, ..pb::GetJobStatusRequest::default() }));
    }
    Ok(Route::Watch(request))
}

/// Why there is nothing at this path.
fn other(head: &request::Parts) -> Problem {
    let content_type = head.headers.get(header::CONTENT_TYPE).and_then(|name| name.to_str().ok());
    let content_type = content_type.map(media_type).unwrap_or_default();
    if content_type.starts_with("application/grpc") {
        return if head.version == Version::HTTP_2 {
            unserved("the content-type is neither one of gRPC nor one of gRPC-Web with protobuf")
        } else if content_type.starts_with("application/grpc-web") {
            unserved("gRPC-Web is served with application/grpc-web+proto and application/grpc-web-text+proto")
        } else {
            let needs = "gRPC needs HTTP/2, and this request came over HTTP/1.1";
            let problem = Problem::from(status::of_unserved_content(needs));
            problem.with(StatusCode::UPGRADE_REQUIRED).and(header::UPGRADE, "HTTP/2.0")
        };
    }
    // A path of gRPC names a method of a service.
    let is_grpc = head.uri.path().strip_prefix('/').and_then(|path| path.split_once('/'));
    match is_grpc {
        Some((service, _)) if service.contains('.') && head.method == Method::POST => {
            unserved("the content-type is not application/grpc")
        }
        _ => status::of_unknown_path(head.uri.path()).into(),
    }
}

fn unserved(wanted: &str) -> Problem {
    Problem::from(status::of_unserved_content(wanted)).with(StatusCode::UNSUPPORTED_MEDIA_TYPE)
}

/// The job that a path names.
fn job(backend: &str, id: &str, given: &mut Parameters) -> Result<pb::JobRef, Problem> {
    let decoded = |text: &str, name| {
        let decoded = percent_decode_str(text).decode_utf8().map(Cow::into_owned);
        decoded.map_err(|_| invalid(name, "is not UTF-8 in percent-encoding"))
    };
    Ok(pb::JobRef {
        backend: decoded(backend, "job.backend")?,
        job_id: decoded(id, "job.job_id")?,
        job_tag: given.take("job_tag").unwrap_or_default(),
    })
}

fn invalid(field: &str, reason: &str) -> Problem {
    Problem::from(tonic::Status::from(InvalidField::new(field, reason)))
}

/// The parameters of a request's query.
struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Those of a path that has these. A name may be written as in the contract or as in JSON.
    fn of(head: &request::Parts, known: &[&str]) -> Result<Self, Problem> {
        let mut given: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes()) {
            let Some(known) = known.iter().find(|known| ***known == *name || in_json(known) == *name) else {
                let name = status::repeated(&name);
                let reason = match known {
                    [] => "is no parameter of this path, which has none".to_owned(),
                    known => format!("is no parameter of this path; write one of {}", known.join(", ")),
                };
                return Err(invalid(&name, &reason));
            };
            if given.iter().any(|(name, _)| name == known) {
                return Err(invalid(known, "is given twice; write it once"));
            }
            given.push(((*known).to_owned(), value.into_owned()));
        }
        Ok(Self(given))
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(given, _)| given == name)?;
        Some(self.0.swap_remove(at).1)
    }

    fn view(&mut self) -> Result<i32, Problem> {
        let Some(text) = self.take("view") else { return Ok(0) };
        let views = pool().get_enum_by_name("jobwatch.v1.JobStatusView");
        let view = views.and_then(|views| Some(short_names::value(&views, &text)?.number()));
        view.ok_or_else(|| invalid("view", &format!("is {}; write BASIC, STANDARD or FULL", quoted(&text))))
    }

    fn duration(&mut self, name: &str) -> Result<Option<prost_types::Duration>, Problem> {
        let Some(text) = self.take(name) else { return Ok(None) };
        let duration = text.parse::<prost_types::Duration>();
        let reason = || format!("is {}; write seconds with an s, such as 30s or 1.5s", quoted(&text));
        duration.map(Some).map_err(|_| invalid(name, &reason()))
    }

    /// A time in which nothing is sent.
    fn short_duration(&mut self, name: &str) -> Result<Option<prost_types::Duration>, Problem> {
        let duration = self.duration(name)?;
        // A negative one is refused later.
        if let Some(Ok(silence)) = duration.map(std::time::Duration::try_from) {
            SilenceLimit::JSON.check(name, silence).map_err(|long| Problem::from(Status::from(long)))?;
        }
        Ok(duration)
    }

    fn flag(&mut self, name: &str) -> Result<bool, Problem> {
        match self.take(name).as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(text) => Err(invalid(name, &format!("is {}; write true or false", quoted(text)))),
        }
    }
}

fn quoted(text: &str) -> String {
    format!("{:?}", status::repeated(text))
}

/// The name that a field has in JSON.
fn in_json(name: &str) -> String {
    let mut words = name.split('_');
    let mut json = words.next().unwrap_or_default().to_owned();
    for word in words {
        let (first, rest) = word.split_at(1.min(word.len()));
        json.push_str(&first.to_ascii_uppercase());
        json.push_str(rest);
    }
    json
}

#[cfg(test)]
mod tests;
