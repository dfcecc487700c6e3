//! The files of an import: paths by category, and their download.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use serde_json::value::RawValue;

use crate::{
    job::{Artifact, FaultKind},
    vendors::{
        BaseUrl, FileFault, Part, RefusedLocation, file,
        json::{self, Object},
        response,
    },
};

/// The documented categories in the order in which a job fills them, then any
/// other in document order.
pub(super) fn artifacts(files: &RawValue) -> Vec<Artifact> {
    const ORDER: [&str; 4] = ["input", "staging", "output", "errors"];
    let Some(files) = Object::of(files) else { return Vec::new() };
    let mut categories: Vec<_> = files.members().collect();
    categories.sort_by_key(|(name, _)| ORDER.iter().position(|known| known == name).unwrap_or(ORDER.len()));

    let (mut counts, mut taken) = (HashMap::<String, usize>::new(), HashSet::new());
    let mut artifacts = Vec::new();
    for (category, paths) in categories {
        for uri in json::elements(paths).into_iter().filter_map(json::text).filter(|uri| !uri.is_empty()) {
            let file_name = file_name(&uri).to_owned();
            let name = format!("{category}/{file_name}");
            let count = counts.entry(name.clone()).or_default();
            let id = loop {
                *count += 1;
                let id = if *count == 1 { name.clone() } else { format!("{name}#{count}") };
                if taken.insert(id.clone()) {
                    break id;
                }
            };
            artifacts.push(Artifact { id, category: category.to_owned(), file_name, vendor_uri: uri });
        }
    }
    artifacts
}

/// The last segment of the path, without a query.
fn file_name(uri: &str) -> &str {
    let path = uri.split('?').next().unwrap_or(uri);
    path.rsplit('/').find(|segment| !segment.is_empty()).unwrap_or(uri)
}

/// A GET with a program's headers, not a browser's: a rejected token is a
/// 401 then, and not a redirect to the login page.
pub(super) fn request(base_url: &BaseUrl, location: &str) -> Result<Request<Bytes>, RefusedLocation> {
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = file::locate(base_url, location)?;
    let headers = request.headers_mut();
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert("x-requested-with", HeaderValue::from_static("XMLHttpRequest"));
    Ok(request)
}

/// What the head of a response says, where it is not one that means "log in first":
/// a redirect to the login page, that page itself, a page expired (419).
pub(super) fn part(offset: u64, head: &Response<Bytes>) -> Result<Part, FileFault> {
    let status = head.status();
    let login = match status {
        StatusCode::PARTIAL_CONTENT
        | StatusCode::NOT_FOUND
        | StatusCode::GONE
        | StatusCode::RANGE_NOT_SATISFIABLE
        | StatusCode::TOO_MANY_REQUESTS => false,
        _ if status.is_redirection() => leads_to_login(head),
        _ if status.as_u16() == 419 => true,
        _ if status.is_server_error() => false,
        _ => is_page(head),
    };
    if login {
        Err(response::judged(FaultKind::CredentialsRejected, status).into())
    } else {
        file::part(offset, head)
    }
}

fn leads_to_login(head: &Response<Bytes>) -> bool {
    let location = head.headers().get(header::LOCATION).and_then(|location| location.to_str().ok());
    let path = location.and_then(|location| location.split(['?', '#']).next()).unwrap_or_default();
    path.trim_end_matches('/').ends_with("/login") || path == "login"
}

/// A file in HTML is an attachment, the login page is not.
fn is_page(head: &Response<Bytes>) -> bool {
    response::content_type(head.headers()).is_some_and(|kind| kind.contains("html"))
        && !head.headers().contains_key(header::CONTENT_DISPOSITION)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendors::{Adapter, Claret};

    fn claret() -> Claret {
        Claret::new("https://plan.claret.app".parse().unwrap(), "demo", None).unwrap()
    }

    #[test]
    fn file_is_requested_as_a_program_does() {
        let request = claret().file_request("/demo/download/a.csv").unwrap();
        assert_eq!(request.method(), http::Method::GET);
        assert_eq!(request.uri(), "https://plan.claret.app/demo/download/a.csv");
        assert_eq!(request.headers()["x-requested-with"], "XMLHttpRequest");
        assert_eq!(claret().file_request("//x/a").unwrap_err(), RefusedLocation::OtherOrigin);
    }

    fn read(status: u16, headers: &[(&str, &str)]) -> Result<Part, FileFault> {
        let mut head = Response::builder().status(status);
        for (name, value) in headers {
            head = head.header(*name, *value);
        }
        claret().file_part(0, &head.body(Bytes::new()).unwrap())
    }

    #[test]
    fn whatever_leads_to_the_login_page_is_a_matter_of_credentials() {
        for (status, name, value) in [
            (302, "location", "https://plan.claret.app/demo/login"),
            (302, "location", "/demo/login/?from=x"),
            (302, "location", "login"),
            (200, "content-type", "text/html; charset=UTF-8"),
            (403, "content-type", "text/html"),
            (419, "content-type", "application/json"),
            (401, "content-type", "application/json"),
        ] {
            let Err(FileFault::Backend(fault)) = read(status, &[(name, value)]) else { panic!("{status}") };
            assert_eq!(fault.kind, FaultKind::CredentialsRejected, "{status} {value}");
        }
    }

    #[test]
    fn what_leads_elsewhere_is_not() {
        for location in ["https://elsewhere.example/a.csv", "/demo/login.csv", "/demo/nologin", ""] {
            let redirected = Err(FileFault::Redirected { http_status: 302 });
            assert_eq!(read(302, &[("location", location), ("content-type", "text/html")]), redirected);
        }
        assert_eq!(read(404, &[("content-type", "text/html")]), Err(FileFault::Missing { http_status: 404 }));
        let page = [("content-type", "text/html"), ("content-disposition", "attachment; filename=a.html")];
        assert_eq!(read(200, &page).unwrap().content_type, "text/html");
    }
}
