//! Other origins than the backend's: which ones a definition names, and which of them the
//! operator allows.

use std::str::FromStr;

use http::HeaderMap;
use toml::{Table, Value};
use url::Url;

use super::{
    Definition, origin_of,
    reader::{Log, Node, Section},
};
use crate::{
    job::HiddenQuery,
    vendors::{AllowedOrigin, BaseUrl, FileOrigins, KeyProblem, OriginPattern, file},
};

/// How an origin is written.
const EXAMPLE: &str = "is no origin; write one such as \"https://login.example\", without a path";

/// The other origins that a rule of `[[files]]` names.
#[derive(Debug, Default)]
pub(super) struct Origins {
    locations: Vec<OriginPattern>,
    redirects: Vec<OriginPattern>,
    with_credentials: bool,
}

impl Origins {
    /// Reads the keys of a rule whose location is `url`, or a path.
    pub(super) fn read(keys: &mut Section<'_>, url: Option<&Node<'_>>, log: &Log<'_>) -> Self {
        let origin = keys.get("origin");
        let redirects = keys.get("redirects_to").map(|node| patterns(&node, log)).unwrap_or_default();
        let credentials = keys.get("with_credentials");
        if let (None, Some(url)) = (&origin, url)
            && url.as_text().is_some_and(|text| text.contains("://"))
        {
            let text = "leads to another origin; write origin = \"..\", which the operator has to allow";
            url.report(log, text);
        }
        if let (Some(origin), None) = (&origin, url) {
            origin.report(log, "is of no use beside path, which is at the backend's own origin; remove it");
        }
        if let (Some(node), None) = (&credentials, &origin) {
            node.report(log, "needs an origin, beside which the credentials would go nowhere else");
        }
        Self {
            locations: origin.map(|node| patterns(&node, log)).unwrap_or_default(),
            redirects,
            with_credentials: credentials.and_then(|node| node.flag(log)).unwrap_or_default(),
        }
    }
}

fn patterns(node: &Node<'_>, log: &Log<'_>) -> Vec<OriginPattern> {
    let read = |node: Node<'_>| match OriginPattern::from_str(node.text(log)?) {
        Ok(pattern) => Some(pattern),
        Err(problem) => node.problem(log, problem.to_string()),
    };
    node.list().into_iter().filter_map(read).collect()
}

impl Definition {
    fn locations(&self) -> impl Iterator<Item = &OriginPattern> {
        self.files.iter().flat_map(|rule| &rule.origins.locations)
    }

    fn redirects(&self) -> impl Iterator<Item = &OriginPattern> {
        self.files.iter().flat_map(|rule| &rule.origins.redirects)
    }

    /// Whether files at the origin of this URL need the backend's credentials.
    fn needs_credentials(&self, url: &Url) -> bool {
        let rules = self.files.iter().map(|rule| &rule.origins);
        let mut rules = rules.filter(|origins| origins.locations.iter().any(|pattern| pattern.names(url)));
        rules.any(|origins| origins.with_credentials)
    }

    /// What it says of other origins, for people: each with what is there.
    pub(super) fn origins(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for rule in &self.files {
            let Origins { locations, redirects, with_credentials } = &rule.origins;
            let words = if *with_credentials { "files, with_credentials" } else { "files" };
            lines.extend(locations.iter().map(|pattern| format!("{} for {words}", pattern.shown())));
            lines.extend(redirects.iter().map(|pattern| format!("{} for redirected files", pattern.shown())));
        }
        lines.dedup();
        lines
    }

    /// What the operator allows of it.
    pub(super) fn file_origins(&self, allowed: &[AllowedOrigin], headers: &HeaderMap) -> Option<FileOrigins> {
        (!self.files.is_empty()).then(|| FileOrigins {
            locations: self.locations().cloned().collect(),
            redirects: self.redirects().cloned().collect(),
            allowed: allowed.to_vec(),
            headers: headers.clone(),
        })
    }

    /// Reads `allow_origins` of a backend: the origins for files, and those for tokens.
    pub(super) fn read_allowed(&self, value: Option<&Value>, problems: &mut Vec<KeyProblem>) -> Allowed {
        let mut allowed = Allowed::default();
        let Some(value) = value else { return allowed };
        let Some(list) = value.as_array() else {
            let text = "is not a list; write one such as [\"https://login.example\"]".to_owned();
            problems.push(KeyProblem { path: "allow_origins".to_owned(), text });
            return allowed;
        };
        for (index, entry) in list.iter().enumerate() {
            if let Err((key, text)) = self.read_entry(entry, &mut allowed) {
                problems.push(KeyProblem { path: format!("allow_origins[{index}]{key}"), text });
            }
        }
        allowed
    }

    fn read_entry(&self, entry: &Value, allowed: &mut Allowed) -> Result<(), (&'static str, String)> {
        let (text, with_credentials) = entry_keys(entry)?;
        let url = text.parse::<BaseUrl>().ok();
        let origin = origin_of(text).filter(|origin| origin == text.trim_end_matches('/'));
        let (Some(origin), Some(url)) = (origin, url) else { return Err(("", EXAMPLE.to_owned())) };
        if !url.is_https() && !url.is_loopback() {
            return Err(("", "is not encrypted; write an https:// origin".to_owned()));
        }
        if origin.contains('*') {
            let text = "is more than one origin; write each by itself, such as \"https://a.files.example\"";
            return Err(("", text.to_owned()));
        }
        let place = Url::parse(&origin).map_err(|_| ("", EXAMPLE.to_owned()))?;
        let mut token_origins = (0..self.ways.len()).filter_map(|way| self.token_origin(Some(way)));
        let is_for_tokens = token_origins.any(|other| other == origin);
        let is_for_files = self.locations().chain(self.redirects()).any(|pattern| pattern.names(&place));
        if !is_for_tokens && !is_for_files {
            return Err(("", self.unused()));
        }
        if allowed.all.contains(&origin) {
            return Err(("", format!("is {origin:?}, which stands there already; keep one of them")));
        }
        let needs_credentials = self.needs_credentials(&place);
        if needs_credentials && with_credentials.is_none() {
            let text = format!(
                "is where {} downloads files with the backend's credentials; \
                 write {{ origin = {origin:?}, with_credentials = true }} if they may be sent there",
                self.name
            );
            return Err(("", text));
        }
        if !needs_credentials && with_credentials == Some(true) {
            let text =
                format!("is of no use: {} downloads nothing there with credentials; remove it", self.name);
            return Err((".with_credentials", text));
        }
        if is_for_files {
            let with_credentials = with_credentials == Some(true);
            allowed.files.push(AllowedOrigin { url, with_credentials });
        }
        allowed.all.push(origin);
        Ok(())
    }

    /// The problem of an entry that the definition has no use for.
    fn unused(&self) -> String {
        let tokens = (0..self.ways.len()).filter_map(|way| self.token_origin(Some(way)));
        let files = self.locations().chain(self.redirects()).map(OriginPattern::shown);
        let mut known: Vec<String> = tokens.chain(files).collect();
        known.sort();
        known.dedup();
        if known.is_empty() {
            return format!("is no origin that {} uses, which uses none but base_url; remove it", self.name);
        }
        format!("is no origin that {} uses; write one of {}, or remove it", self.name, known.join(", "))
    }
}

/// An origin, and whether the operator says something of credentials.
fn entry_keys(entry: &Value) -> Result<(&str, Option<bool>), (&'static str, String)> {
    let table: &Table = match entry {
        Value::Table(table) => table,
        _ => return Ok((entry.as_str().unwrap_or_default(), None)),
    };
    let known = ["origin", "with_credentials"];
    if let Some(key) = table.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(("", format!("has the key {key:?}; {}", super::reader::remedy(key, &known))));
    }
    let Some(origin) = table.get("origin").and_then(Value::as_str) else {
        return Err(("", "has no origin; write { origin = \"https://files.example\", .. }".to_owned()));
    };
    match table.get("with_credentials") {
        None => Ok((origin, None)),
        Some(Value::Boolean(flag)) => Ok((origin, Some(*flag))),
        Some(_) => Err((".with_credentials", "is neither true nor false; write one of them".to_owned())),
    }
}

/// What the operator allows.
#[derive(Clone, Debug, Default)]
pub(super) struct Allowed {
    pub(super) files: Vec<AllowedOrigin>,
    /// Every origin as text.
    pub(super) all: Vec<String>,
}

/// A location that is not the backend's own without what may be secret of it, and that part.
pub(super) fn without_query(base_url: &BaseUrl, location: &str) -> (String, HiddenQuery) {
    let mut location = location.trim().to_owned();
    if file::locate(base_url, &location).is_ok() {
        return (location, HiddenQuery::default());
    }
    let start = secret_part(&location).unwrap_or(location.len());
    let query = HiddenQuery(location.split_off(start));
    // Nothing is requested there, and the reason for that is kept.
    if let Some(at) = location.find("//").map(|at| at + 2) {
        let end = location[at..].find('/').map_or(location.len(), |end| at + end);
        if let Some(user) = location[at..end].rfind('@') {
            location.replace_range(at..at + user, "");
        }
    }
    (location, query)
}

/// Where the part of a location begins that may permit a download: what follows a scheme without
/// slashes, or the query.
fn secret_part(location: &str) -> Option<usize> {
    let query = location.find(['?', '#']);
    let head = &location[..query.unwrap_or(location.len())];
    let opaque =
        head.find(':').filter(|at| !head[..*at].contains('/') && !head[at + 1..].starts_with(['/', '\\']));
    opaque.map(|at| at + 1).into_iter().chain(query).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn location_elsewhere_is_shown_without_what_may_be_secret() {
        let base: BaseUrl = "https://vendor.example/base".parse().unwrap();
        for (location, shown) in [
            ("https://files.example/a?sig=S", "https://files.example/a"),
            ("https://files.example/a#S", "https://files.example/a"),
            (" https://files.example/a?sig=S", "https://files.example/a"),
            ("//files.example/a?sig=S", "//files.example/a"),
            ("https:/files.example/a?sig=S", "https:/files.example/a"),
            ("https:files.example/a?sig=S", "https:"),
            ("data:text/plain,S", "data:"),
            ("https://u:S@files.example/a", "https://@files.example/a"),
            ("https://u:S@vendor.example/a?sig=S", "https://@vendor.example/a"),
            ("s3://bucket/key", "s3://bucket/key"),
            ("http://vendor.example/a?sig=S", "http://vendor.example/a"),
        ] {
            let (found, HiddenQuery(hidden)) = without_query(&base, location);
            assert_eq!(found, shown, "{location}");
            assert!(location.contains('@') || found + &hidden == location.trim(), "{location}");
        }
    }

    #[test]
    fn location_of_the_backends_own_is_shown_whole() {
        let base: BaseUrl = "https://vendor.example/base".parse().unwrap();
        for location in [
            "/f/a?src=s3://b/1&k=1",
            "f/a?src=https://x.example/?y",
            "f/http://x.example/a?k=1",
            "https://vendor.example/a?k=1",
            "HTTPS://Vendor.Example:443/a?k=1",
        ] {
            assert_eq!(without_query(&base, location), (location.to_owned(), HiddenQuery::default()));
        }
    }
}
