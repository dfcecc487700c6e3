//! Puts `JOBWATCH__SECTION__KEY` variables into the file's table.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::{
    Problem,
    schema::{self, FILE, Key, Kind, SECRET, join},
};

const PREFIX: &str = "JOBWATCH__";

/// Which variable set a key, by the key's path.
pub(super) type Origins = BTreeMap<String, String>;

/// Replaces the keys that `env` names.
pub(super) fn apply(
    table: &mut Table,
    env: &BTreeMap<String, String>,
    problems: &mut Vec<Problem>,
) -> Origins {
    let mut origins = Origins::new();
    for (variable, value) in env {
        let Some(rest) = variable.strip_prefix(PREFIX) else { continue };
        let segments: Vec<_> = rest.split("__").collect();
        match put(table, &segments, variable, value) {
            Ok(path) => {
                origins.insert(path, variable.clone());
            }
            Err(text) => problems.push(Problem { subject: variable.clone(), text }),
        }
    }
    origins
}

/// Sets one key and returns its path, or says why there is no such key.
fn put(file: &mut Table, segments: &[&str], variable: &str, value: &str) -> Result<String, String> {
    let mut table = file;
    let mut keys = FILE;
    let mut path = String::new();
    let mut segments = segments.iter();
    while let Some(segment) = segments.next() {
        let Key { name, mut kind } = find(segment, keys, &path)?;
        path = join(&path, name);
        if matches!(kind, Kind::Secret) && segments.len() > 0 {
            kind = Kind::Table(SECRET);
        }
        if segments.len() == 0 {
            table.insert(name.to_owned(), read(kind, variable, value));
            return Ok(path);
        }
        keys = match kind {
            Kind::Table(keys) | Kind::TableOrText(keys) => {
                table = descend(table, name);
                keys
            }
            Kind::Named(keys) => {
                table = descend(table, name);
                let named =
                    segments.next().map_or(Ok(String::new()), |name| find_named(name, table, &path))?;
                if segments.len() == 0 {
                    return Err(format!("names the table {path}.{named}; name one of its keys"));
                }
                path = join(&path, &named);
                table = descend(table, &named);
                keys
            }
            Kind::Later => {
                return Err(format!("names {path}, which is not supported by this version; remove it"));
            }
            Kind::Text | Kind::Value | Kind::Secret => {
                return Err(format!("goes too deep: {path} is no table"));
            }
        };
    }
    Err("names no key".to_owned())
}

/// A secret that a variable sets is read from that variable, so that it is never
/// taken for one that stands in the file.
fn read(kind: Kind, variable: &str, value: &str) -> Value {
    let text = || Value::String(value.to_owned());
    match kind {
        Kind::Text => text(),
        Kind::Secret => {
            Value::Table(Table::from_iter([("env".to_owned(), Value::String(variable.to_owned()))]))
        }
        Kind::Value | Kind::Table(_) | Kind::TableOrText(_) | Kind::Named(_) | Kind::Later => {
            // What is not TOML stays text, which the reader refuses by the key's path.
            toml::from_str::<Table>(&format!("it = {value}"))
                .ok()
                .and_then(|mut table| table.remove("it"))
                .unwrap_or_else(text)
        }
    }
}

/// The table of this name, which replaces anything else that stood there.
fn descend<'a>(table: &'a mut Table, name: &str) -> &'a mut Table {
    let slot = table.entry(name).or_insert_with(|| Value::Table(Table::new()));
    if !slot.is_table() {
        *slot = Value::Table(Table::new());
    }
    slot.as_table_mut().expect("anything but a table was replaced by one")
}

fn find(segment: &str, keys: &[Key], path: &str) -> Result<Key, String> {
    let wanted = fold(segment);
    keys.iter().find(|key| key.name == wanted).copied().ok_or_else(|| {
        let place = if path.is_empty() { "the configuration".to_owned() } else { path.to_owned() };
        let instead = schema::instead(&wanted, keys.iter().map(|key| key.name));
        format!("names no key: {place} has no {wanted:?}; {instead}")
    })
}

fn find_named(segment: &str, tables: &Table, path: &str) -> Result<String, String> {
    let wanted = fold(segment);
    let mut names = tables.keys().filter(|name| fold(name) == wanted);
    match (names.next(), names.next()) {
        (Some(name), None) => Ok(name.clone()),
        (Some(one), Some(other)) => {
            Err(format!("names both {path}.{one} and {path}.{other}; rename one of them"))
        }
        (None, _) if tables.is_empty() => Err(format!("names no backend: the file has no {path}")),
        (None, _) => {
            let known: Vec<_> = tables.keys().map(String::as_str).collect();
            Err(format!("names no backend of the file; it has {}", known.join(", ")))
        }
    }
}

/// Variables can hold neither lower case by custom nor `-` and `.` by rule.
fn fold(name: &str) -> String {
    name.to_lowercase().replace(['-', '.'], "_")
}
