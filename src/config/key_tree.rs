//! The keys that a configuration may have: as JSON Schema, and as a tree for variables.

use std::{collections::BTreeMap, sync::LazyLock};

use serde_json::Value;

use super::{schema, tables};

static SCHEMA: LazyLock<Value> = LazyLock::new(schema::of::<tables::Keys>);

/// JSON Schema, draft 2020-12, of a configuration file that needs no variables.
pub fn json_schema() -> &'static Value {
    &SCHEMA
}

/// What stands at a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text, a number or anything else that a variable holds as text.
    Text,
    /// `true` or `false`.
    Flag,
    /// A list of texts.
    List,
    /// A list of tables.
    Tables,
    /// A table with these keys.
    Table,
    /// A table whose keys have names that the operator chose.
    Names,
    /// A secret, or the table with its place.
    Secret,
}

/// A key and what stands there.
#[derive(Debug)]
pub(super) struct KeyTree {
    pub(super) kind: Kind,
    /// Below a list of tables, the keys of each; below names, those of each under [`ANY`].
    below: BTreeMap<String, KeyTree>,
    /// The default in TOML, where there is one.
    pub(super) default: Option<Value>,
}

/// Stands for any name that the operator chose.
const ANY: &str = "*";

/// A part of a path through the keys.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part<'a> {
    Key(&'a str),
    Index,
}

/// Where a path leads.
pub(super) enum Found<'a> {
    /// To this key.
    Key(&'a KeyTree),
    /// Nowhere: its part of this number is not one of the keys there.
    Unknown(usize, &'a KeyTree),
}

static TREE: LazyLock<KeyTree> = LazyLock::new(|| KeyTree::of(json_schema()));

impl KeyTree {
    /// The keys of a whole file.
    pub(super) fn root() -> &'static Self {
        &TREE
    }

    fn of(schema: &Value) -> Self {
        let mut keys = Self { kind: Kind::Text, below: BTreeMap::new(), default: None };
        keys.add(schema);
        keys
    }

    /// Adds what a schema, or one of several for the same key, allows.
    fn add(&mut self, schema: &Value) {
        if let Some(default) = schema.get("default") {
            self.default = Some(default.clone());
        }
        match schema.get("type").and_then(Value::as_str) {
            Some("boolean") => self.kind = Kind::Flag,
            Some("array") => {
                let element = schema.get("items").map(Self::of);
                let is_table = element.as_ref().is_some_and(|element| element.kind == Kind::Table);
                self.kind = if is_table { Kind::Tables } else { Kind::List };
                self.below.extend(element.filter(|_| is_table).into_iter().flat_map(|element| element.below));
            }
            Some("object") => match schema.get("additionalProperties").filter(|any| any.is_object()) {
                Some(any) => {
                    self.kind = Kind::Names;
                    self.below.entry(ANY.to_owned()).or_insert_with(Self::empty).add(any);
                }
                None => self.kind = Kind::Table,
            },
            _ => {}
        }
        let properties = schema.get("properties").and_then(Value::as_object);
        for (key, schema) in properties.into_iter().flatten() {
            self.below.entry(key.clone()).or_insert_with(Self::empty).add(schema);
        }
        let reference = schema.get("$ref").and_then(Value::as_str);
        if let Some(target) = reference.and_then(|target| json_schema().pointer(target.strip_prefix('#')?)) {
            self.add(target);
            if reference.is_some_and(|target| target.ends_with("/SecretPlace")) {
                self.kind = Kind::Secret;
            }
        }
        for alternatives in ["oneOf", "anyOf"] {
            let schemas = schema.get(alternatives).and_then(Value::as_array);
            schemas.into_iter().flatten().for_each(|schema| self.add(schema));
        }
    }

    fn empty() -> Self {
        Self { kind: Kind::Text, below: BTreeMap::new(), default: None }
    }

    /// Follows a path.
    pub(super) fn find<'a>(&'a self, path: &[Part<'_>]) -> Found<'a> {
        let mut keys = self;
        for (at, part) in path.iter().enumerate() {
            let next = match (part, keys.kind) {
                (Part::Index, Kind::Tables) => Some(keys),
                (Part::Index, _) => None,
                (Part::Key(_), Kind::Names) => keys.below.get(ANY),
                (Part::Key(key), _) => keys.below.get(*key),
            };
            match next {
                Some(next) => keys = next,
                None => return Found::Unknown(at, keys),
            }
        }
        Found::Key(keys)
    }

    /// The names of the keys here.
    pub(super) fn names(&self) -> Vec<&str> {
        self.below.keys().map(String::as_str).filter(|name| *name != ANY).collect()
    }

    /// The keys here with what stands at each.
    pub(super) fn each(&self) -> impl Iterator<Item = (&str, &Self)> {
        self.below.iter().map(|(name, keys)| (name.as_str(), keys))
    }
}

#[cfg(test)]
mod tests;
