//! What a request has to be, and ids for which there is none.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use crate::{
    job::JobRef,
    vendors::{
        Adapter,
        declared::{
            Declared,
            definition::no_header_name,
            reader::{Log, Node},
        },
    },
};

/// Ids that are refused before anything is sent.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) name: String,
    pub(super) line: usize,
    pub(super) ids: Vec<String>,
    /// A part of the reason.
    pub(super) reason: String,
}

/// What a request has to be.
#[derive(Debug, Default)]
pub(super) struct Golden {
    method: Option<String>,
    url: Option<String>,
    target: Option<String>,
    headers: Vec<(String, String)>,
    body: Option<String>,
}

impl Refused {
    pub(super) fn differences(&self, adapter: &Declared) -> Vec<String> {
        let difference = |id: &String| match adapter.check(&JobRef::new("case", id.as_str())) {
            Err(invalid) if invalid.reason.contains(&self.reason) => None,
            Err(invalid) => {
                Some(format!("the id {id:?} is refused: it {}, expected {:?}", invalid.reason, self.reason))
            }
            Ok(()) => Some(format!("the id {id:?} is accepted, expected invalid_id")),
        };
        self.ids.iter().filter_map(difference).collect()
    }
}

impl Golden {
    pub(super) fn read(node: &Node<'_>, log: &Log<'_>) -> Option<Self> {
        if let Some(text) = node.as_text() {
            return node.problem(log, format!("is a text; write a table, such as {{ {} }}", in_table(text)));
        }
        let mut keys = node.section(log)?;
        let mut text = |key| {
            let node = keys.get(key)?;
            let text = node.text(log)?;
            match problem(key, text) {
                Some(problem) => node.problem(log, problem),
                None => Some(text.to_owned()),
            }
        };
        let (method, url, target, body) = (text("method"), text("url"), text("target"), text("body"));
        let headers = headers(keys.get("headers"), log);
        keys.finish(log);
        Some(Self { method, url, target, headers, body })
    }

    pub(super) fn differences(&self, request: &http::Request<Bytes>) -> Vec<String> {
        let mut differences = Vec::new();
        let mut compare = |what: &str, found: &str, expected: &str| {
            if found != expected {
                differences.push(format!("request.{what} is {found:?}, expected {expected:?}"));
            }
        };
        if let Some(method) = &self.method {
            compare("method", request.method().as_str(), method);
        }
        if let Some(url) = &self.url {
            compare("url", &request.uri().to_string(), url);
        }
        if let Some(target) = &self.target {
            let found = request.uri().path_and_query().map_or("", http::uri::PathAndQuery::as_str);
            compare("target", found, target);
        }
        for (name, value) in &self.headers {
            let found = request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("absent");
            compare(&format!("headers.{name}"), found, value);
        }
        if let Some(body) = &self.body {
            let found = String::from_utf8_lossy(request.body());
            let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
            if json(&found).is_none() || json(&found) != json(body) {
                compare("body", &found, body);
            }
        }
        differences
    }
}

/// A request such as `GET /jobs/1` in the keys of a table.
fn in_table(text: &str) -> String {
    let (method, place) = text.split_once(' ').unwrap_or(("", text));
    let method = if method.is_empty() { String::new() } else { format!("method = {method:?}, ") };
    let key = if place.contains("://") { "url" } else { "target" };
    format!("{method}{key} = {:?}", place.trim())
}

/// What is wrong with a value of a request.
fn problem(key: &str, text: &str) -> Option<String> {
    let is_whole = text.contains("://");
    match key {
        "target" | "url" if text.contains(['{', '}', '<', '>']) => Some(
            "has a placeholder; write what is sent for the ids of this case, such as \"/v1/jobs/1\""
                .to_owned(),
        ),
        "target" if is_whole => Some("is a whole URL; write it as url, or path and query only".to_owned()),
        "target" if !text.starts_with('/') => {
            Some(format!("does not begin with a slash; write path and query, such as \"/{text}\""))
        }
        "url" if !is_whole => Some(
            "is not a whole URL; write path and query as target, or scheme and host before it".to_owned(),
        ),
        "method" if !matches!(text, "GET" | "POST") => Some(format!("is {text:?}; write GET or POST")),
        _ => None,
    }
}

/// Names in lower case, with their values.
pub(super) fn headers(node: Option<Node<'_>>, log: &Log<'_>) -> Vec<(String, String)> {
    let section = node.and_then(|node| node.section(log));
    let entries = section.map(|section| section.entries()).unwrap_or_default();
    let header = |(name, _, node): (&str, _, Node<'_>)| {
        let value = node.text(log)?;
        if HeaderName::from_bytes(name.as_bytes()).is_err() || HeaderValue::from_str(value).is_err() {
            return node.problem(log, no_header_name(name));
        }
        Some((name.to_lowercase(), value.to_owned()))
    };
    entries.into_iter().filter_map(header).collect()
}
