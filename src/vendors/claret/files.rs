//! The files of an import: paths by category, and their download.

use std::collections::HashMap;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};

use crate::{
    job::{Artifact, FaultKind, HiddenQuery},
    vendors::{
        BaseUrl, FileFault, Part, RefusedLocation,
        classification::HeadRules,
        file,
        json::{self, Object, Value},
        response,
    },
};

/// The documented categories in the order in which a job fills them, then any
/// other in document order.
pub(super) fn artifacts(files: Value<'_>) -> Vec<Artifact> {
    const ORDER: [&str; 4] = ["input", "staging", "output", "errors"];
    let Some(files) = Object::of_nameable(files) else { return Vec::new() };
    let mut categories: Vec<_> = files.members().collect();
    categories.sort_by_key(|(name, _)| ORDER.iter().position(|known| known == name).unwrap_or(ORDER.len()));

    // With how many files of that name there were.
    let mut taken = HashMap::<String, usize>::new();
    let mut artifacts = Vec::new();
    for (category, paths) in categories {
        for uri in json::elements(paths).into_iter().filter_map(json::text).filter(|uri| !uri.is_empty()) {
            let file_name = file_name(&uri).to_owned();
            let name = [category, "/", &file_name].concat();
            let mut count = taken.get(&name).copied().unwrap_or_default();
            let id = loop {
                count += 1;
                let id = if count == 1 { name.clone() } else { format!("{name}#{count}") };
                if !taken.contains_key(&id) {
                    break id;
                }
            };
            if count > 1 {
                taken.insert(name, count);
            }
            taken.insert(id.clone(), 1);
            let (category, query) = (category.to_owned(), HiddenQuery::default());
            artifacts.push(Artifact { id, category, file_name, vendor_uri: uri, query });
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

/// What the head of a response says. A redirect to the vendor's own login page means that the
/// credentials are rejected, as does 419. Any other page is no file.
pub(super) fn part(base_url: &BaseUrl, offset: u64, head: &Response<Bytes>) -> Result<Part, FileFault> {
    let rules = HeadRules { login_at: Some(base_url), secret_refusals: None };
    match rules.judge(head) {
        Err(fault) if fault.kind == FaultKind::CredentialsRejected => Err(fault.into()),
        _ if head.status() == StatusCode::OK && is_page(head) => {
            Err(response::malformed("it is a page in HTML, not a file", head.status()).into())
        }
        _ => file::part(offset, head),
    }
}

/// A file in HTML is an attachment.
fn is_page(head: &Response<Bytes>) -> bool {
    response::is_page(head) && !head.headers().contains_key(header::CONTENT_DISPOSITION)
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
    fn own_login_page_is_a_matter_of_credentials() {
        for (status, name, value) in [
            (302, "location", "https://plan.claret.app/demo/login"),
            (302, "location", "/demo/login/?from=x"),
            (302, "location", "login"),
            (419, "content-type", "application/json"),
            (401, "content-type", "application/json"),
        ] {
            let Err(FileFault::Backend(fault)) = read(status, &[(name, value)]) else { panic!("{status}") };
            assert_eq!(fault.kind, FaultKind::CredentialsRejected, "{status} {value}");
        }
    }

    #[test]
    fn what_leads_elsewhere_or_is_a_page_says_nothing_about_credentials() {
        for location in [
            "https://elsewhere.example/a.csv",
            "https://elsewhere.example/login",
            "/demo/login.csv",
            "/demo/nologin",
            "",
        ] {
            let redirected = Err(FileFault::Redirected { http_status: 302 });
            assert_eq!(read(302, &[("location", location), ("content-type", "text/html")]), redirected);
        }
        let html = [("content-type", "text/html; charset=UTF-8")];
        let kind = |status| match read(status, &html) {
            Err(FileFault::Backend(fault)) => fault.kind,
            other => panic!("{other:?}"),
        };
        assert!(matches!(kind(200), FaultKind::Malformed { why } if why.contains("HTML")));
        assert_eq!(kind(403), FaultKind::Forbidden);
        assert_eq!(read(404, &[("content-type", "text/html")]), Err(FileFault::Missing { http_status: 404 }));
        let page = [("content-type", "text/html"), ("content-disposition", "attachment; filename=a.html")];
        assert_eq!(read(200, &page).unwrap().content_type, "text/html");
    }
}
