//! Puts `JOBWATCH__SECTION__KEY` variables into the file's table, after those of OpenTelemetry.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::{
    otel,
    problems::{BEARER, Problems, is_within, join},
};
use crate::vendors::KINDS;

const PREFIX: &str = "JOBWATCH__";

/// Which variable set a key, by the key's path.
#[derive(Debug, Default)]
pub(super) struct Origins(BTreeMap<String, String>);

impl Origins {
    /// The variable that set exactly this key.
    pub(super) fn of(&self, path: &str) -> Option<&str> {
        self.0.get(path).map(String::as_str)
    }

    /// The variable that set this key, a part of it, or the table that it is in.
    pub(super) fn near(&self, path: &str) -> Option<&str> {
        let mut origins = self.0.iter();
        origins.find(|(set, _)| is_within(path, set) || is_within(set, path)).map(|(_, name)| name.as_str())
    }
}

/// Sets the keys that the variables name. Whether a key exists is found out when
/// the table is read; only a backend's name has to be looked up here.
pub(super) fn apply(
    file: &mut Table,
    variables: &BTreeMap<String, String>,
    problems: &mut Problems,
) -> Origins {
    let mut origins = Origins::default();
    set_traces(file, variables, problems, &mut origins);
    for (variable, value) in variables {
        let Some(rest) = variable.strip_prefix(PREFIX) else { continue };
        match keys(rest, file) {
            Ok(keys) => {
                let path = keys.iter().fold(String::new(), |path, key| join(&path, key));
                set(file, &keys, value);
                origins.0.insert(path, variable.clone());
            }
            Err(text) => problems.add(variable, text),
        }
    }
    origins
}

/// Sets keys of `[traces]` as OpenTelemetry's own variables say. The last to set a key holds.
fn set_traces(
    file: &mut Table,
    variables: &BTreeMap<String, String>,
    problems: &mut Problems,
    origins: &mut Origins,
) {
    let Some(settings) = otel::settings(variables, problems) else {
        file.remove("traces");
        return;
    };
    for otel::Setting { variable, key, value } in settings {
        let traces = child(file, "traces");
        match value {
            // Those of the file stay.
            Value::Table(pairs) => child(traces, key).extend(pairs),
            value => drop(traces.insert(key.to_owned(), value)),
        }
        origins.0.insert(join("traces", key), variable.to_owned());
    }
}

fn keys(rest: &str, file: &Table) -> Result<Vec<String>, String> {
    let mut keys: Vec<String> = rest.split("__").map(fold).collect();
    if let [section, backend, ..] = &mut keys[..]
        && section == "backends"
    {
        *backend = backend_name(backend, file)?;
    }
    Ok(keys)
}

/// The file's name for a backend, which may hold `-` and `.`.
fn backend_name(folded: &str, file: &Table) -> Result<String, String> {
    let backends = file.get("backends").and_then(Value::as_table);
    let names: Vec<&str> = backends.into_iter().flat_map(Table::keys).map(String::as_str).collect();
    let matching: Vec<&str> = names.iter().copied().filter(|name| fold(name) == folded).collect();
    match matching[..] {
        [name] => Ok(name.to_owned()),
        [one, other, ..] => {
            Err(format!("names both backends.{one} and backends.{other}; rename one of them"))
        }
        [] if names.is_empty() => Err("names no backend: the file has no backends".to_owned()),
        [] => Err(format!("names no backend of the file; it has {}", names.join(", "))),
    }
}

fn set(file: &mut Table, keys: &[String], text: &str) {
    let Some((last, parents)) = keys.split_last() else { return };
    let table = parents.iter().fold(file, |table, key| child(table, key));
    table.insert(last.clone(), value(last, text));
}

/// The table at `key`, which replaces anything else there.
fn child<'a>(table: &'a mut Table, key: &str) -> &'a mut Table {
    let slot = table.entry(key).or_insert_with(|| Value::Table(Table::new()));
    if !slot.is_table() {
        *slot = Value::Table(Table::new());
    }
    slot.as_table_mut().expect("anything but a table was replaced by one")
}

/// A list or an inline table in TOML, or else the text, which the key's reader parses.
fn value(key: &str, text: &str) -> Value {
    let parsed = (text.starts_with(['[', '{']) && !is_secret(key))
        .then(|| toml::from_str::<Table>(&format!("value = {text}")).ok())
        .flatten();
    parsed.and_then(|mut table| table.remove("value")).unwrap_or_else(|| Value::String(text.to_owned()))
}

/// Whether the key's text is always a secret and never TOML.
fn is_secret(key: &str) -> bool {
    matches!(key, BEARER | "proxy_password") || KINDS.iter().any(|kind| kind.credentials.secret == key)
}

/// Variables hold neither lower case by custom nor `-` and `.` by rule.
fn fold(name: &str) -> String {
    name.to_lowercase().replace(['-', '.'], "_")
}
