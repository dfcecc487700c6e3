//! Parts of the JSON Schema, which [schemars] writes from the types that serde reads.

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde_json::{Map, Value, json};

/// A word in a schema, for texts that are added to the description.
pub(super) const FORM: &str = "x-form";

/// JSON Schema, draft 2020-12, of a type.
pub(super) fn of<T: JsonSchema>() -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = Value::from(generator.into_root_schema_for::<T>());
    tidy(&mut schema);
    schema
}

/// The place of a secret.
pub(super) fn secret(generator: &mut SchemaGenerator) -> Schema {
    let place = |key: &str, description: &str, what: &str| {
        json!({
            "type": "object",
            "description": description,
            "properties": { key: { "type": "string", "description": what } },
            "required": [key],
            "additionalProperties": false,
        })
    };
    let schema = json!({
        "description": "A secret, or where it is.",
        "oneOf": [
            place("env", "In a variable of the environment.", "The variable's name."),
            place("file", "In a file of its own, which is read again when it changes.", "The file's path."),
            { "type": "string", "description": "The secret itself; needs allow_inline_secrets = true." },
        ],
    });
    generator.definitions_mut().insert("SecretPlace".to_owned(), schema);
    json_schema!({ "$ref": "#/$defs/SecretPlace" })
}

/// Headers: a text, or the place of a secret.
pub(super) fn headers(generator: &mut SchemaGenerator) -> Schema {
    let place = secret(generator);
    json_schema!({ "type": "object", "additionalProperties": place })
}

pub(super) fn properties(schema: &Value) -> Map<String, Value> {
    schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default()
}

pub(super) fn required_of(schema: &Value) -> Vec<Value> {
    schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default()
}

/// Visits a schema and every schema in it.
pub(super) fn visit(schema: &mut Value, visitor: &mut impl FnMut(&mut Map<String, Value>)) {
    let Some(schema) = schema.as_object_mut() else { return };
    visitor(schema);
    for (keyword, value) in schema {
        match (keyword.as_str(), value) {
            ("properties" | "$defs", Value::Object(schemas)) => {
                schemas.values_mut().for_each(|schema| visit(schema, visitor));
            }
            ("oneOf" | "anyOf" | "allOf", Value::Array(schemas)) => {
                for schema in schemas {
                    visit(schema, visitor);
                }
            }
            ("items" | "additionalProperties", schema) => visit(schema, visitor),
            _ => {}
        }
    }
}

/// Removes what TOML does not have or what says nothing, and completes descriptions.
fn tidy(schema: &mut Value) {
    visit(schema, &mut |schema| {
        let mut value = Value::Object(std::mem::take(schema));
        strip_null(&mut value);
        *schema = match value {
            Value::Object(object) => object,
            _ => Map::new(),
        };
        // A table that is not there has the defaults of its keys.
        if schema.get("default").is_some_and(|default| default.is_null() || default.is_object()) {
            schema.remove("default");
        }
        schema.retain(|keyword, _| !matches!(keyword.as_str(), "format" | "writeOnly"));
        if let Some(form) = schema.remove(FORM) {
            let description = schema.get("description").and_then(Value::as_str).unwrap_or_default();
            let text = format!("{description} {}", form.as_str().unwrap_or_default());
            schema.insert("description".to_owned(), json!(text.trim()));
        }
        if let Some(Value::String(description)) = schema.get_mut("description") {
            *description = description.replace('`', "").replace('\n', " ");
        }
    });
}

/// Removes the alternative `null`, which stands for a key that is not there.
pub(super) fn strip_null(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [single] = &types[..] {
            let single = single.clone();
            object.insert("type".to_owned(), single);
        }
    }
    if let Some(Value::Array(choices)) = object.get_mut("enum") {
        choices.retain(|choice| !choice.is_null());
    }
    let Some(Value::Array(choices)) = object.get_mut("anyOf") else { return };
    choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
    if let [Value::Object(single)] = &mut choices[..] {
        let single = std::mem::take(single);
        object.remove("anyOf");
        for (keyword, value) in single {
            object.entry(keyword).or_insert(value);
        }
    }
}
