//! What a request over HTTP stands for.

use std::borrow::Cow;

use http::{Method, StatusCode, Version, header, request};
use percent_encoding::percent_decode_str;
use url::form_urlencoded;

use super::{errors::Problem, events};
use crate::{
    api::{request::InvalidField, status},
    proto::v1 as pb,
};

/// Longest time in which a response sends nothing, in seconds: proxies allow less, and the
/// server hardly more.
const MOST_SECONDS: i64 = 600;

/// What a request stands for.
#[derive(Debug, PartialEq)]
pub(super) enum Route {
    OpenApi,
    Get(pb::GetJobStatusRequest),
    /// A batch, which the body names.
    Batch,
    Watch(pb::WatchJobRequest),
    /// A watch whose end its client has seen.
    Ended,
}

/// Whether the path is one of this interface, whatever is below it.
pub fn is_api_path(path: &str) -> bool {
    path.starts_with("/v1/") || path == "/openapi.json"
}

impl Route {
    pub(super) fn of(head: &request::Parts) -> Result<Self, Problem> {
        let segments: Vec<&str> = head.uri.path().split('/').skip(1).collect();
        match segments[..] {
            ["openapi.json"] => {
                method(head, &Method::GET, "GET")?;
                Ok(Self::OpenApi)
            }
            ["v1", "jobs:batchGet"] => {
                method(head, &Method::POST, "POST")?;
                Parameters::of(head, &[])?;
                let content_type = head.headers.get(header::CONTENT_TYPE).and_then(|name| name.to_str().ok());
                let media = content_type.and_then(|text| text.split(';').next()).unwrap_or_default().trim();
                if !media.eq_ignore_ascii_case("application/json") {
                    return Err(unserved("this path reads content-type application/json"));
                }
                Ok(Self::Batch)
            }
            ["v1", "backends", backend, "jobs", id] => {
                method(head, &Method::GET, "GET")?;
                let mut given = Parameters::of(head, &["view", "max_age", "wait", "job_tag"])?;
                Ok(Self::Get(pb::GetJobStatusRequest {
                    job: Some(job(backend, id, &mut given)?),
                    view: given.view()?,
                    max_age: given.duration("max_age")?,
                    wait: given.short_duration("wait")?,
                }))
            }
            ["v1", "backends", backend, "jobs", id, "events"] => {
                method(head, &Method::GET, "GET")?;
                watch(head, backend, id)
            }
            _ => Err(other(head)),
        }
    }
}

fn watch(head: &request::Parts, backend: &str, id: &str) -> Result<Route, Problem> {
    const KNOWN: [&str; 6] =
        ["view", "resume_token", "poll_interval", "heartbeat_interval", "state_changes_only", "job_tag"];
    let mut given = Parameters::of(head, &KNOWN)?;
    let mut resume_token = given.take("resume_token").unwrap_or_default();
    // A browser's own, when it connects again: newer than what is in the URL.
    if let Some(last) = head.headers.get("last-event-id").and_then(|id| id.to_str().ok()) {
        match events::resume_token(last) {
            Some(token) => token.clone_into(&mut resume_token),
            None => return Ok(Route::Ended),
        }
    }
    Ok(Route::Watch(pb::WatchJobRequest {
        job: Some(job(backend, id, &mut given)?),
        view: given.view()?,
        resume_token,
        poll_interval: given.duration("poll_interval")?,
        heartbeat_interval: given.short_duration("heartbeat_interval")?,
        state_changes_only: given.flag("state_changes_only")?,
    }))
}

/// Refuses other methods.
fn method(head: &request::Parts, allowed: &Method, name: &'static str) -> Result<(), Problem> {
    if head.method == allowed {
        return Ok(());
    }
    let problem = Problem::from(status::of_other_method(name));
    Err(problem.with(StatusCode::METHOD_NOT_ALLOWED).and(header::ALLOW, name))
}

/// Why there is nothing at this path.
fn other(head: &request::Parts) -> Problem {
    let content_type = head.headers.get(header::CONTENT_TYPE).map(http::HeaderValue::as_bytes);
    if content_type.is_some_and(|name| name.starts_with(b"application/grpc")) {
        return if head.version == Version::HTTP_2 {
            unserved("the content-type is neither one of gRPC nor one of gRPC-Web with protobuf")
        } else if content_type.is_some_and(|name| name.starts_with(b"application/grpc-web")) {
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
        _ => status::of_unknown_path().into(),
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
        let name = text.strip_prefix("JOB_STATUS_VIEW_").unwrap_or(&text).to_ascii_uppercase();
        let view = pb::JobStatusView::from_str_name(&format!("JOB_STATUS_VIEW_{name}"));
        let view = view
            .ok_or_else(|| invalid("view", &format!("is {}; write BASIC, STANDARD or FULL", quoted(&text))));
        view.map(i32::from)
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
        if duration.as_ref().is_some_and(|duration| (duration.seconds, duration.nanos) > (MOST_SECONDS, 0)) {
            let reason =
                format!("is too long for HTTP; write at most {MOST_SECONDS}s, and send another request");
            return Err(invalid(name, &reason));
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
mod tests {
    use http::Request;

    use super::*;

    fn route(method: &str, uri: &str, headers: &[(&str, &str)]) -> Result<Route, (u16, String)> {
        let request = Request::builder().method(method).uri(uri);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let head = request.body(()).unwrap().into_parts().0;
        Route::of(&head).map_err(|problem| {
            let message = problem.message().to_owned();
            (problem.into_response().status().as_u16(), message)
        })
    }

    fn job_ref(backend: &str, job_id: &str, job_tag: &str) -> pb::JobRef {
        pb::JobRef { backend: backend.to_owned(), job_id: job_id.to_owned(), job_tag: job_tag.to_owned() }
    }

    #[test]
    fn path_and_query_name_job_and_options() {
        let seconds = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
        let uri = "/v1/backends/immuta-prod/jobs/a%2Fb%20c?wait=30s&maxAge=1.5s&view=BASIC&job_tag=t%26u";
        let wanted = pb::GetJobStatusRequest {
            job: Some(job_ref("immuta-prod", "a/b c", "t&u")),
            view: 1,
            max_age: seconds(1, 500_000_000),
            wait: seconds(30, 0),
        };
        assert_eq!(route("GET", uri, &[]), Ok(Route::Get(wanted)));
        let uri =
            "/v1/backends/b/jobs/1/events?state_changes_only=true&heartbeatInterval=5s&resume_token=old";
        let wanted = |resume_token: &str| {
            Route::Watch(pb::WatchJobRequest {
                job: Some(job_ref("b", "1", "")),
                heartbeat_interval: seconds(5, 0),
                state_changes_only: true,
                resume_token: resume_token.to_owned(),
                ..pb::WatchJobRequest::default()
            })
        };
        assert_eq!(route("GET", uri, &[]), Ok(wanted("old")));
        assert_eq!(route("GET", uri, &[("last-event-id", "new")]), Ok(wanted("new")));
        assert_eq!(route("GET", uri, &[("last-event-id", "new.end")]), Ok(Route::Ended));
        let json = [("content-type", "application/json; charset=utf-8")];
        assert_eq!(route("POST", "/v1/jobs:batchGet", &json), Ok(Route::Batch));
        assert_eq!(route("GET", "/openapi.json", &[]), Ok(Route::OpenApi));
    }

    #[test]
    fn bad_request_says_what_to_write_instead() {
        let get = "/v1/backends/b/jobs/1";
        for (method, uri, code, message) in [
            (
                "GET",
                format!("{get}?wait=30"),
                400,
                "wait is \"30\"; write seconds with an s, such as 30s or 1.5s",
            ),
            ("GET", format!("{get}?view=ALL"), 400, "view is \"ALL\"; write BASIC, STANDARD or FULL"),
            ("GET", format!("{get}?wait=1s&wait=2s"), 400, "wait is given twice; write it once"),
            (
                "GET",
                format!("{get}?weit=1s"),
                400,
                "weit is no parameter of this path; write one of view, max_age, wait, job_tag",
            ),
            (
                "GET",
                format!("{get}/events?state_changes_only=1"),
                400,
                "state_changes_only is \"1\"; write true or false",
            ),
            ("GET", "/v1/backends/b/jobs/%ff".to_owned(), 400, "job.job_id is not UTF-8 in percent-encoding"),
            ("POST", get.to_owned(), 405, "this path has no such method; send GET"),
            ("GET", "/v1/jobs:batchGet".to_owned(), 405, "this path has no such method; send POST"),
            (
                "POST",
                "/v1/jobs:batchGet?wait=1s".to_owned(),
                400,
                "wait is no parameter of this path, which has none",
            ),
        ] {
            assert_eq!(route(method, &uri, &[]), Err((code, message.to_owned())), "{uri}");
        }
        let served = "this address serves gRPC over HTTP/2, gRPC-Web, and the paths of /openapi.json";
        let call = "/jobwatch.v1.JobStatusService/GetJobStatus";
        for (method, uri, content_type, code, message) in [
            ("GET", "/", "", 404, "there is nothing at this path"),
            ("GET", "/v1/jobs", "", 404, "there is nothing at this path"),
            ("POST", call, "application/json", 415, "the content-type is not application/grpc"),
            ("POST", call, "application/grpc", 426, "gRPC needs HTTP/2, and this request came over HTTP/1.1"),
            (
                "POST",
                call,
                "application/grpc-web+json",
                415,
                "gRPC-Web is served with application/grpc-web+proto and application/grpc-web-text+proto",
            ),
            ("POST", "/v1/jobs:batchGet", "text/plain", 415, "this path reads content-type application/json"),
        ] {
            let headers = [("content-type", content_type)];
            assert_eq!(route(method, uri, &headers), Err((code, format!("{message}; {served}"))), "{uri}");
        }
    }
}
