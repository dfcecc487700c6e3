//! Problems of a configuration, and examples of valid values.

use super::{Problem, values::closest};
use crate::vendors::KINDS;

/// Examples for keys that hold neither a number nor a duration and are no vendor's own.
const EXAMPLES: [(&str, &str); 15] = [
    ("listen", "an IP address and a port, such as \"127.0.0.1:50051\""),
    ("cert", "the path of the PEM certificate chain"),
    ("key", "the path of the PEM private key"),
    ("client_ca", "the path of a PEM file"),
    ("client_crl", "the path of a PEM file with certificate revocation lists"),
    ("backends", "at least one backend, such as [backends.immuta-prod]"),
    ("base_url", "a URL such as \"https://vendor.example\""),
    ("proxy", "a URL such as \"http://user@proxy.example:3128\", or \"none\""),
    ("ca", "the path of a PEM file"),
    ("headers", "a table such as { \"X-Tenant\" = \"a\" }"),
    ("endpoint", "a URL such as \"http://collector.example:4318\""),
    ("protocol", "\"http\" or \"grpc\""),
    ("service_name", "a name such as \"jobwatch\""),
    ("attributes", "a table such as { \"deployment.environment.name\" = \"production\" }"),
    ("credentials", "a table such as { bearer = { env = \"NAME\" } }"),
];

/// The key of a token from elsewhere, which every vendor accepts.
pub(super) const BEARER: &str = "bearer";

/// Example of a secret.
pub(super) const WHERE: &str = "{ env = \"NAME\" } or { file = \"/path\" }";

/// The example for the last key of `path`; by default that of a secret.
pub(super) fn example(path: &str) -> String {
    let key = match path.rsplit('.').next().unwrap_or_default() {
        element if element.ends_with(']') => "base_url",
        key => key,
    };
    if key == "vendor" {
        let names: Vec<&str> = KINDS.iter().map(|kind| kind.key).collect();
        let shipped = "the name of a definition, which `jobwatch vendor list` shows";
        return format!("one of {}, {shipped}, or vendor_file with the path of one", names.join(", "));
    }
    let common = EXAMPLES.iter().find(|(name, _)| *name == key).map(|(_, example)| *example);
    if key == "vendor_file" {
        return "the path of a definition".to_owned();
    }
    let own = || KINDS.iter().flat_map(|kind| kind.all_keys()).find(|own| own.name == key);
    common.or_else(|| own().map(|own| own.example)).unwrap_or(WHERE).to_owned()
}

/// Whether a problem of the last key of `path` shows the value, which may hold a secret.
pub(super) fn is_shown(path: &str) -> bool {
    let key = path.rsplit('.').next().unwrap_or_default();
    matches!(key, "listen" | "protocol")
        || KINDS.iter().flat_map(|kind| kind.all_keys()).any(|own| own.name == key && own.shown)
}

/// What is wrong with a key that is not one of `known`.
pub(super) fn unknown_key(name: &str, known: &[&str]) -> String {
    match name {
        "batch_deadline" => {
            "was removed; write default_deadline, which holds for every call without a deadline".to_owned()
        }
        "long_poll" => "was removed; delete it".to_owned(),
        _ => match closest(name, known) {
            Some(close) => format!("is not a key here; did you mean {close}?"),
            None => format!("is not a key here; write one of {}", known.join(", ")),
        },
    }
}

/// A key's path, as TOML would write it.
pub(super) fn join(path: &str, name: &str) -> String {
    let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    let name = if bare { name.to_owned() } else { format!("{name:?}") };
    if path.is_empty() { name } else { format!("{path}.{name}") }
}

/// Whether `path` is `outer` or leads further into it.
pub(super) fn is_within(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// The problems found so far.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<Problem>);

impl Problems {
    pub(super) fn add(&mut self, subject: impl Into<String>, text: impl Into<String>) {
        self.0.push(Problem { subject: subject.into(), text: text.into() });
    }

    /// Adds a problem and returns `None`, for the caller to return.
    pub(super) fn report<T>(&mut self, subject: impl Into<String>, text: impl Into<String>) -> Option<T> {
        self.add(subject, text);
        None
    }

    /// Reports a key that has to be there and is not. If it was there and could not
    /// be read, it has been reported.
    pub(super) fn required<T>(&mut self, path: &str, value: Option<T>) -> Option<T> {
        if value.is_none() && !self.has(path) {
            return self.report(path, format!("is missing; write {}", example(path)));
        }
        value
    }

    /// Whether something is wrong with this key or within it.
    pub(super) fn has(&self, path: &str) -> bool {
        self.0.iter().any(|problem| is_within(&problem.subject, path))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn into_vec(self) -> Vec<Problem> {
        self.0
    }
}
