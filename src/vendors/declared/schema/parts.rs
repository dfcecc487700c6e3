//! Parts that schemas are made of.

use serde_json::{Map, Value, json};

/// A table with these keys and no others.
pub(super) fn table<const N: usize>(text: &str, required: &[&str], keys: [(&str, Value); N]) -> Value {
    table_of(text, required, keys.map(|(key, schema)| (key.to_owned(), schema)))
}

pub(super) fn table_of(
    text: &str,
    required: &[&str],
    keys: impl IntoIterator<Item = (String, Value)>,
) -> Value {
    let properties: Map<String, Value> = keys.into_iter().collect();
    let mut schema = json!({ "type": "object", "additionalProperties": false, "properties": properties });
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    about(schema, text)
}

pub(super) fn about(mut schema: Value, text: &str) -> Value {
    if !text.is_empty() {
        schema["description"] = text.into();
    }
    schema
}

pub(super) fn text(text: &str) -> Value {
    about(json!({ "type": "string", "minLength": 1 }), text)
}

pub(super) fn flag(text: &str) -> Value {
    about(json!({ "type": "boolean" }), text)
}

pub(super) fn word(words: &[&str], text: &str) -> Value {
    about(json!({ "enum": words }), text)
}

pub(super) fn words_of<T>(words: &[(&'static str, T)]) -> Vec<&'static str> {
    words.iter().map(|(word, _)| *word).collect()
}

pub(super) fn list(items: impl Into<Value>, text: &str) -> Value {
    about(json!({ "type": "array", "items": items.into() }), text)
}

/// A table whose keys are names of the author's own.
pub(super) fn map(values: impl Into<Value>, text: &str) -> Value {
    about(json!({ "type": "object", "additionalProperties": values.into() }), text)
}

/// One value or a list of them.
pub(super) fn several(items: impl Into<Value>, text: &str) -> Value {
    let items = items.into();
    about(json!({ "anyOf": [items.clone(), { "type": "array", "items": items }] }), text)
}

/// A plain path or an expression.
pub(super) fn source(what: &str) -> Value {
    text(&format!("{what} A path such as job.status, or an expression."))
}

pub(super) fn path(what: &str) -> Value {
    text(&format!("{what} A plain path such as job.output."))
}

pub(super) fn template(what: &str) -> Value {
    text(&format!("{what} Values stand in {{{{ }}}}."))
}

/// A text, or a table with these keys: linters name what is wrong in the table.
pub(super) fn text_or_table(mut table: Value) -> Value {
    table["type"] = json!(["string", "object"]);
    table["minLength"] = 1.into();
    table
}

pub(super) fn http_status() -> Value {
    json!({ "type": "integer", "minimum": 200, "maximum": 599 })
}
