//! The files of simulated jobs: each has a placeholder for its content, of the type that its
//! name says.

use std::{
    collections::{HashMap, VecDeque},
    io::Write,
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use serde_json::{Value, json};

use super::{Simulation, relocated::FILES, sign_in};
use crate::{
    job::{HiddenQuery, JobRef},
    vendors::{Adapter, RefusedLocation, declared::files},
};

/// Most files that are remembered; the oldest is forgotten first.
const MOST: usize = 10_000;

/// The files that answers have named, by path and query.
#[derive(Debug, Default)]
pub(super) struct Named {
    names: HashMap<String, String>,
    /// The oldest first.
    order: VecDeque<String>,
}

impl Named {
    fn note(&mut self, target: String, name: &str) {
        if self.names.contains_key(&target) {
            return;
        }
        if self.order.len() >= MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.names.remove(&oldest);
        }
        self.order.push_back(target.clone());
        self.names.insert(target, name.to_owned());
    }
}

impl Simulation {
    /// Notes the files that an answer names. Those at other origins get a location at the own
    /// one.
    pub(super) fn with_own_files(
        &mut self,
        jobs: &[JobRef],
        mut response: Response<Bytes>,
    ) -> Response<Bytes> {
        if self.definition.files.is_empty() {
            return response;
        }
        let Ok(elements) = self.adapter.split(jobs, &response) else { return response };
        let polled = target_of(&self.adapter.request(jobs));
        let mut moved: Vec<(String, String)> = Vec::new();
        for (job, element) in jobs.iter().zip(elements.as_slice()) {
            let seen = element.as_ref().ok().and_then(|element| self.adapter.observe(job, element).ok());
            for file in seen.into_iter().flat_map(|seen| seen.artifacts) {
                let HiddenQuery(query) = &file.query;
                let location = format!("{}{query}", file.vendor_uri);
                let own = match files::request(&self.adapter.base_url, &location) {
                    Ok(_) => location,
                    Err(RefusedLocation::OtherOrigin) => {
                        let Some((_, rest)) = location.split_once("://") else { continue };
                        let own = format!("{FILES}{rest}");
                        moved.push((location, own.clone()));
                        own
                    }
                    Err(_) => continue,
                };
                if let Ok(request) = files::request(&self.adapter.base_url, &own) {
                    let target = target_of(&request);
                    if target != polled {
                        self.named.note(target, &file.file_name);
                    }
                }
            }
        }
        if !moved.is_empty()
            && let Ok(mut body) = serde_json::from_slice::<Value>(response.body())
        {
            exchange(&mut body, &moved);
            *response.body_mut() = body.to_string().into();
        }
        response
    }

    /// The response to a request for a file, with its name; `None` where it is for none.
    pub(super) fn file(&self, request: &Request<Bytes>) -> Option<(Response<Bytes>, String)> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return None;
        }
        let target = target_of(&sign_in::without_credentials(&self.ways, request));
        let name = self.named.names.get(&target)?;
        let is_own = !request.uri().path().starts_with(FILES);
        if is_own && !self.ways.is_empty() && !self.ways.iter().any(|way| way.accepts(request)) {
            return Some((self.refused.clone(), "a file, with other credentials: refused".to_owned()));
        }
        Some((part_of(&placeholder(name), request), format!("the file {name}")))
    }
}

fn target_of(request: &Request<Bytes>) -> String {
    request.uri().path_and_query().map(ToString::to_string).unwrap_or_default()
}

/// Replaces texts that are one of these locations.
fn exchange(value: &mut Value, moved: &[(String, String)]) {
    match value {
        Value::String(text) => {
            if let Some((_, own)) = moved.iter().find(|(location, _)| location == text.trim()) {
                text.clone_from(own);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| exchange(item, moved)),
        Value::Object(members) => members.values_mut().for_each(|value| exchange(value, moved)),
        _ => {}
    }
}

/// A content type, and content of that type.
struct Placeholder {
    content_type: &'static str,
    content: Vec<u8>,
}

/// Content for a file of this name.
fn placeholder(name: &str) -> Placeholder {
    const PNG: &[u8] = &[
        0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 0x0d, b'I', b'H', b'D', b'R', 0, 0, 0, 1, 0,
        0, 0, 1, 8, 6, 0, 0, 0, 0x1f, 0x15, 0xc4, 0x89, 0, 0, 0, 0x0d, b'I', b'D', b'A', b'T', 0x78, 0x9c,
        0x63, 0x60, 0, 0, 0, 2, 0, 1, 0xe5, 0x27, 0xde, 0xfc, 0, 0, 0, 0, b'I', b'E', b'N', b'D', 0xae, 0x42,
        0x60, 0x82,
    ];
    let line = format!("{name}, simulated\n");
    let one = json!({ "simulated": true, "file": name });
    let lower = name.to_lowercase();
    let end = lower.rsplit_once('.').map_or("", |(_, end)| end);
    let (content_type, content) = match end {
        "json" | "geojson" | "ipynb" => ("application/json", one.to_string().into_bytes()),
        "jsonl" | "ndjson" => ("application/x-ndjson", format!("{one}\n").into_bytes()),
        "csv" => ("text/csv", format!("file,simulated\n{},true\n", csv(name)).into_bytes()),
        "tsv" => ("text/tab-separated-values", format!("file\tsimulated\n{name}\ttrue\n").into_bytes()),
        "html" | "htm" => {
            ("text/html", format!("<!doctype html><title>{}</title>\n", escaped(name)).into_bytes())
        }
        "xml" => {
            ("application/xml", format!("<file simulated=\"true\">{}</file>\n", escaped(name)).into_bytes())
        }
        "yaml" | "yml" => {
            ("application/yaml", format!("simulated: true\nfile: {}\n", json!(name)).into_bytes())
        }
        "txt" | "log" | "out" | "err" | "md" | "sql" | "py" => {
            ("text/plain; charset=utf-8", line.into_bytes())
        }
        "gz" | "tgz" => ("application/gzip", gzip(line.as_bytes())),
        // Without members.
        "zip" => ("application/zip", [b"PK\x05\x06".as_slice(), &[0; 18]].concat()),
        "tar" => ("application/x-tar", vec![0; 1024]),
        "png" => ("image/png", PNG.to_vec()),
        _ => ("application/octet-stream", line.into_bytes()),
    };
    Placeholder { content_type, content }
}

fn csv(text: &str) -> String {
    if text.contains([',', '"']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    // Nothing fails in memory.
    let _ = packed.write_all(content);
    packed.finish().unwrap_or_default()
}

/// The whole of it, or the part from an offset on.
fn part_of(Placeholder { content_type, content }: &Placeholder, request: &Request<Bytes>) -> Response<Bytes> {
    let range = request.headers().get(header::RANGE).and_then(|range| range.to_str().ok());
    let first =
        range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let size = content.len();
    let mut response = Response::new(Bytes::new());
    let (status, from) = match first {
        Some(first) if first >= size => (StatusCode::RANGE_NOT_SATISFIABLE, size),
        Some(first) if first > 0 => (StatusCode::PARTIAL_CONTENT, first),
        _ => (StatusCode::OK, 0),
    };
    let range = match status {
        StatusCode::PARTIAL_CONTENT => Some(format!("bytes {from}-{}/{size}", size - 1)),
        StatusCode::RANGE_NOT_SATISFIABLE => Some(format!("bytes */{size}")),
        _ => None,
    };
    *response.status_mut() = status;
    *response.body_mut() = Bytes::copy_from_slice(&content[from..]);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::ETAG, HeaderValue::from_static("\"simulated\""));
    if let Some(range) = range.and_then(|range| HeaderValue::from_str(&range).ok()) {
        headers.insert(header::CONTENT_RANGE, range);
    }
    response
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn placeholder_has_the_type_that_the_name_says() {
        for (name, content_type, content) in [
            ("a.json", "application/json", r#"{"file":"a.json","simulated":true}"#),
            ("A.JSONL", "application/x-ndjson", "{\"file\":\"A.JSONL\",\"simulated\":true}\n"),
            ("a,b.csv", "text/csv", "file,simulated\n\"a,b.csv\",true\n"),
            ("a<b.html", "text/html", "<!doctype html><title>a&lt;b.html</title>\n"),
            ("log.txt", "text/plain; charset=utf-8", "log.txt, simulated\n"),
            ("export", "application/octet-stream", "export, simulated\n"),
        ] {
            let found = placeholder(name);
            assert_eq!(found.content_type, content_type, "{name}");
            let parsed = serde_json::from_slice::<Value>(&found.content);
            let is_same = String::from_utf8_lossy(&found.content) == content
                || parsed.is_ok_and(|parsed| parsed == serde_json::from_str::<Value>(content).unwrap());
            assert!(is_same, "{name}: {}", String::from_utf8_lossy(&found.content));
        }
        let mut text = String::new();
        let packed = placeholder("log.gz").content;
        flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, "log.gz, simulated\n");
    }

    #[test]
    fn oldest_file_is_forgotten_first() {
        let mut named = Named::default();
        for number in 0..=MOST {
            named.note(format!("/{number}"), "a.csv");
            named.note("/1".to_owned(), "b.csv");
        }
        assert_eq!((named.names.len(), named.order.len()), (MOST, MOST));
        assert!(!named.names.contains_key("/0") && named.names["/1"] == "b.csv");
    }

    #[test]
    fn rest_of_a_file_is_sent_from_an_offset_on() {
        let file = placeholder("a.txt");
        let asked = |range: Option<&str>| {
            let mut request = Request::new(Bytes::new());
            if let Some(range) = range {
                request.headers_mut().insert(header::RANGE, range.parse().unwrap());
            }
            let response = part_of(&file, &request);
            let range =
                response.headers().get(header::CONTENT_RANGE).map(|range| range.to_str().unwrap().to_owned());
            (response.status().as_u16(), range, response.into_body())
        };
        assert_eq!(asked(None), (200, None, Bytes::from("a.txt, simulated\n")));
        assert_eq!(
            asked(Some("bytes=7-")),
            (206, Some("bytes 7-16/17".to_owned()), Bytes::from("simulated\n"))
        );
        assert_eq!(asked(Some("bytes=17-")), (416, Some("bytes */17".to_owned()), Bytes::new()));
    }
}
