//! The configuration in effect: every key with its value, defaults included, and where the
//! value comes from. Secrets are shown as their places.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use serde::Serialize;
use serde_json::{Map, Value, json};
use toml::de::{DeTable, DeValue};

use super::{
    Backend, Cluster, Config, Environment, InvalidConfig, file,
    key_tree::{Found, KeyTree, Kind, Part},
    overrides,
    problems::join,
    traces::SERVICE_NAME,
};

/// In place of a secret that stands in the file itself.
const REDACTED: &str = "<redacted>";

/// The configuration in effect.
#[derive(Debug)]
pub struct Effective {
    file: Option<PathBuf>,
    values: Value,
    lines: Vec<Line>,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "source", rename_all = "snake_case")]
pub enum Origin {
    /// Neither the file nor a variable sets the key.
    Default,
    /// The file.
    File {
        /// Its path.
        file: PathBuf,
        /// The line of the key, from 1 on.
        line: usize,
    },
    /// A variable.
    Environment {
        /// Its name.
        variable: String,
        /// The environment file that sets it.
        #[serde(skip_serializing_if = "Option::is_none")]
        env_file: Option<PathBuf>,
    },
}

/// A line of the configuration as TOML.
#[derive(Debug)]
enum Line {
    Table(String),
    Value { path: String, key: String, value: Value, origin: Origin },
}

impl Effective {
    /// Reads a configuration as [`Config::load`] and [`Config::of_environment`] do.
    ///
    /// # Errors
    /// Reports every problem.
    pub fn load(path: Option<&Path>, env: impl Into<Environment>) -> Result<Self, InvalidConfig> {
        let text = path.map(super::read_text).transpose()?;
        Self::parse(path.zip(text.as_deref()), env)
    }

    /// The same with the text of the file at a path.
    ///
    /// # Errors
    /// Reports every problem.
    pub fn parse(file: Option<(&Path, &str)>, env: impl Into<Environment>) -> Result<Self, InvalidConfig> {
        let env = env.into();
        let read = file::read(file.map(|(_, text)| text), &env)?;
        let values = values(&read);
        let mut lines = Lines {
            file: file.map(|(path, _)| path),
            places: file.map(|(_, text)| places(text)).unwrap_or_default(),
            origins: &read.origins,
            env: &env,
            done: Vec::new(),
        };
        lines.table("", &values, KeyTree::root());
        let lines = lines.done;
        Ok(Self { file: file.map(|(path, _)| path.to_owned()), values, lines })
    }

    /// The values as they would be written in a file, and the origin of each by its path.
    pub fn to_json(&self) -> Value {
        let origins: BTreeMap<&str, &Origin> = self.origins().collect();
        json!({ "file": self.file, "configuration": self.values, "origins": origins })
    }

    /// The origin of each value, by its path.
    pub fn origins(&self) -> impl Iterator<Item = (&str, &Origin)> {
        self.lines.iter().filter_map(|line| match line {
            Line::Table(_) => None,
            Line::Value { path, origin, .. } => Some((path.as_str(), origin)),
        })
    }
}

/// As TOML, with each value's origin in a comment.
impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<(String, Option<&Origin>)> = self
            .lines
            .iter()
            .map(|line| match line {
                Line::Table(header) => (header.clone(), None),
                Line::Value { key, value, origin, .. } => {
                    (format!("{} = {}", join("", key), show(value)), Some(origin))
                }
            })
            .collect();
        let lengths =
            shown.iter().filter(|(_, origin)| origin.is_some()).map(|(text, _)| text.chars().count());
        // A longer one moves only its own comment.
        let width = lengths.filter(|length| *length <= 56).max().unwrap_or_default();
        for (n, (text, origin)) in shown.iter().enumerate() {
            match origin {
                Some(origin) => writeln!(f, "{text:width$}  # {origin}")?,
                None if n == 0 => writeln!(f, "{text}")?,
                None => writeln!(f, "\n{text}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line } => write!(f, "{}:{line}", file.display()),
            Self::Environment { variable, env_file: None } => f.write_str(variable),
            Self::Environment { variable, env_file: Some(file) } => {
                write!(f, "{variable} in {}", file.display())
            }
        }
    }
}

/// A value in TOML.
fn show(value: &Value) -> String {
    toml::Value::try_from(value).map_or_else(|_| value.to_string(), |value| value.to_string())
}

/// Every key with its value.
fn values(read: &file::Read) -> Value {
    let file::Read { config, table, origins } = read;
    let Config { server, admin, log, traces: _, access, limits, cluster: sharing, backends } = config;
    let backends: Map<String, Value> =
        backends.iter().map(|one| (one.name.to_string(), backend(one, table, origins))).collect();
    let mut values = json!({
        "server": server, "admin": admin, "log": log, "traces": traces(table, origins), "access": access, "limits": limits, "backends": backends,
    });
    if let Some(sharing) = sharing {
        values["cluster"] = cluster(sharing, table, origins);
    }
    if let Some(allow) = table.get("allow_inline_secrets") {
        values["allow_inline_secrets"] = json!(allow);
    }
    remove_nulls(&mut values);
    values
}

/// The keys of `[traces]`, as they are written.
fn traces(table: &toml::Table, origins: &overrides::Origins) -> Value {
    let mut values = table.get("traces").map_or_else(|| json!({}), |written| json!(written));
    let Some(keys) = find(&["traces"]) else { return values };
    for (key, _) in keys.each() {
        add_default(&mut values, key, &["traces", key]);
    }
    redact("traces", &mut values, keys, origins);
    // A variable holds it as text.
    if let Some(ratio) = values["sample_ratio"].as_str().and_then(|text| text.parse::<f64>().ok()) {
        values["sample_ratio"] = json!(ratio);
    }
    if values["service_name"].is_null() && values["attributes"]["service.name"].is_null() {
        values["service_name"] = json!(SERVICE_NAME);
    }
    values
}

/// The keys of `[cluster]`, as they are written, and as they were read where a variable may
/// hold them as text.
fn cluster(cluster: &Cluster, table: &toml::Table, origins: &overrides::Origins) -> Value {
    let mut values = table.get("cluster").map_or_else(|| json!({}), |written| json!(written));
    let Some(keys) = find(&["cluster"]) else { return values };
    for (key, _) in keys.each() {
        add_default(&mut values, key, &["cluster", key]);
    }
    redact("cluster", &mut values, keys, origins);
    let Cluster { nats, name, replicas, member, credentials: _, tls: _, lease: _, isolated_share } = cluster;
    values["nats"] = json!(nats);
    values["name"] = json!(name);
    values["replicas"] = json!(replicas);
    values["member"] = json!(member);
    values["isolated_share"] = json!(isolated_share);
    values
}

/// Keys that are not set have no value.
fn remove_nulls(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|_, value| !value.is_null());
            object.values_mut().for_each(remove_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(remove_nulls),
        _ => {}
    }
}

fn backend(backend: &Backend, table: &toml::Table, origins: &overrides::Origins) -> Value {
    let name = &*backend.name;
    let path = ["backends", name];
    let written = table.get("backends").and_then(|backends| backends.get(name));
    let mut values = written.map(|written| json!(written)).unwrap_or_default();
    let kind = backend.vendor.kind();
    let own = kind.keys.iter().map(|key| key.name);
    own.for_each(|key| add_default(&mut values, key, &[&path[..], &[key]].concat()));
    let credentials = &mut values["credentials"];
    if credentials.is_null() && kind.credentials.optional {
        *credentials = json!("none");
    }
    if credentials.get(kind.credentials.secret).is_some() {
        let own = kind.credentials.keys.iter().map(|key| key.name);
        own.for_each(|key| add_default(credentials, key, &[&path[..], &["credentials", key]].concat()));
    }
    // The secret of a declared vendor may have any name.
    let secrets: Vec<&str> = backend.credentials.secret().into_iter().flat_map(super::Secret::keys).collect();
    if let Some(values) = values.get_mut("credentials").and_then(Value::as_object_mut) {
        for (key, value) in values {
            let path = join(&join(&join("backends", name), "credentials"), key);
            if secrets.contains(&&*path) && value.is_string() && origins.of(&path).is_none() {
                *value = json!(REDACTED);
            }
        }
    }
    if let Some(keys) = find(&path) {
        redact(&join("backends", name), &mut values, keys, origins);
    }
    values["poll"] = json!(backend.poll);
    values["base_url"] = json!(backend.base_url);
    values
}

fn find(path: &[&str]) -> Option<&'static KeyTree> {
    match KeyTree::root().find(&path.iter().map(|key| Part::Key(key)).collect::<Vec<_>>()) {
        Found::Key(keys) => Some(keys),
        Found::Unknown(..) => None,
    }
}

fn add_default(values: &mut Value, key: &str, path: &[&str]) {
    let default = find(path).and_then(|keys| keys.default.clone());
    if let (Some(object), Some(default)) = (values.as_object_mut(), default) {
        object.entry(key).or_insert(default);
    }
}

/// Puts its place where a secret is.
fn redact(path: &str, value: &mut Value, keys: &KeyTree, origins: &overrides::Origins) {
    match (keys.kind, &mut *value) {
        (Kind::Secret, Value::String(_)) => {
            *value = match origins.of(path) {
                Some(variable) => json!({ "env": variable }),
                None => json!(REDACTED),
            };
        }
        (Kind::Secret, _) => {}
        (_, Value::Object(object)) => {
            for (key, value) in object {
                if let Found::Key(keys) = keys.find(&[Part::Key(key)]) {
                    redact(&join(path, key), value, keys, origins);
                }
            }
        }
        _ => {}
    }
}

/// Lays the values out in lines.
struct Lines<'a> {
    file: Option<&'a Path>,
    /// The line of each key of the file, by its path.
    places: BTreeMap<String, usize>,
    origins: &'a overrides::Origins,
    env: &'a Environment,
    done: Vec<Line>,
}

impl Lines<'_> {
    /// The values of a table, and then the tables in it.
    fn table(&mut self, path: &str, table: &Value, keys: &KeyTree) {
        let inner: Vec<(&String, &Value, &KeyTree)> = table
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| match keys.find(&[Part::Key(key)]) {
                Found::Key(keys) => Some((key, value, keys)),
                Found::Unknown(..) => None,
            })
            .collect();
        let is_value = |value: &Value, keys: &KeyTree| match value {
            Value::Object(_) => keys.kind == Kind::Secret,
            Value::Array(list) => keys.kind != Kind::Tables || list.is_empty(),
            _ => true,
        };
        let (values, tables): (Vec<_>, Vec<_>) =
            inner.into_iter().partition(|(_, value, keys)| is_value(value, keys));
        if !path.is_empty() && !values.is_empty() {
            let is_element = path.ends_with(']');
            let name = path.rsplit_once('[').filter(|_| is_element).map_or(path, |(list, _)| list);
            let header = if is_element { format!("[[{name}]]") } else { format!("[{name}]") };
            self.done.push(Line::Table(header));
        }
        for (key, value, _) in values {
            let path = join(path, key);
            let origin = self.origin(&path);
            self.done.push(Line::Value { path, key: key.clone(), value: value.clone(), origin });
        }
        for (key, value, keys) in tables {
            let path = join(path, key);
            match value {
                Value::Array(list) => {
                    for (index, element) in list.iter().enumerate() {
                        self.table(&format!("{path}[{index}]"), element, keys);
                    }
                }
                table => self.table(&path, table, keys),
            }
        }
    }

    fn origin(&self, path: &str) -> Origin {
        // It may set only the place of a secret.
        if let Some(variable) = self.origins.near(path) {
            let env_file = self.env.file_of(variable).map(Path::to_owned);
            return Origin::Environment { variable: variable.to_owned(), env_file };
        }
        match (self.file, self.places.get(path)) {
            (Some(file), Some(line)) => Origin::File { file: file.to_owned(), line: *line },
            _ => Origin::Default,
        }
    }
}

/// The line of each key of a file, by its path.
fn places(text: &str) -> BTreeMap<String, usize> {
    let mut places = BTreeMap::new();
    if let Ok(file) = DeTable::parse(text) {
        add_places("", file.get_ref(), text, &mut places);
    }
    places
}

fn add_places(path: &str, table: &DeTable<'_>, text: &str, places: &mut BTreeMap<String, usize>) {
    for (key, value) in table {
        let path = join(path, key.get_ref());
        let before = text.get(..key.span().start).unwrap_or_default();
        places.insert(path.clone(), 1 + before.matches('\n').count());
        match value.get_ref() {
            DeValue::Table(table) => add_places(&path, table, text, places),
            DeValue::Array(list) => {
                for (index, element) in list.iter().enumerate() {
                    if let DeValue::Table(table) = element.get_ref() {
                        add_places(&format!("{path}[{index}]"), table, text, places);
                    }
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
