use std::collections::BTreeSet;

use super::*;
use crate::vendors::declared::{Definition, cases::Cases, reader, tests::reference};

/// Cases with every table that there can be.
const CASES: &str = r#"
base_url = "https://a.example"
params = {}
[[case]]
ids = ["7"]
request = { method = "GET" }
expect = { state = "SUCCEEDED" }
[untested]
"#;

/// The keys of each table of a schema, as the reader records them.
fn keys_of(schema: &Value, path: &str, found: &mut BTreeSet<(String, String)>) {
    if !schema.is_object() {
        return;
    }
    for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
        found.insert((path.to_owned(), key.clone()));
        let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        // Tables that are the same wherever they stand.
        let below = match key.as_str() {
            "graphql" => "graphql".to_owned(),
            "create_time" | "start_time" | "end_time" | "expires_at" => "time".to_owned(),
            _ => below,
        };
        keys_of(schema, &below, found);
    }
    keys_of(&schema["items"], path, found);
    keys_of(&schema["additionalProperties"], &format!("{path}.*"), found);
    for inner in schema["anyOf"].as_array().into_iter().flatten() {
        keys_of(inner, path, found);
    }
}

fn read(keys: BTreeSet<(String, &'static str)>) -> BTreeSet<(String, String)> {
    let shared = |path: &str| match path.rsplit('.').next() {
        Some("graphql") => "graphql".to_owned(),
        Some("create_time" | "start_time" | "end_time" | "expires_at") => "time".to_owned(),
        _ => path.replace("params.param", "params.*").replace("id.part", "id.*"),
    };
    keys.into_iter().map(|(path, key)| (shared(&path), key.to_owned())).collect()
}

fn same(read: &BTreeSet<(String, String)>, schema: &BTreeSet<(String, String)>) {
    let missing: Vec<_> = read.difference(schema).collect();
    let unknown: Vec<_> = schema.difference(read).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "not in the schema: {missing:#?}\nnot read: {unknown:#?}"
    );
}

#[test]
fn schema_of_definitions_has_the_keys_that_are_read_and_no_others() {
    let mut read = read(reference::keys());
    // Names of ways and states are read as entries of their tables.
    read.extend(WAYS.map(|(way, _)| ("credentials".to_owned(), way.to_owned())));
    read.extend(STATES.map(|(state, _)| ("states".to_owned(), state.to_owned())));
    // Of a file, these are read to be refused, or change nothing.
    let refused = ["location", "headers", "json", "form", "graphql", "method"];
    read.retain(|(path, key)| path != "files" || !refused.contains(&key.as_str()));
    // The reader records a table's path without its digits.
    let mut schema = BTreeSet::new();
    keys_of(&definition(), "", &mut schema);
    let without_digits = |path: String| path.replace("oauth2", "oauth");
    let schema = schema.into_iter().map(|(path, key)| (without_digits(path), key)).collect();
    assert!(read.len() > 130, "{}", read.len());
    same(&read, &schema);
}

#[test]
fn schema_of_cases_has_the_keys_that_are_read_and_no_others() {
    let definition =
        std::sync::Arc::new(Definition::parse(crate::vendors::declared::tests::shipped("airbyte")).unwrap());
    let read = read(reader::known_keys(|| drop(Cases::parse(definition, CASES))));
    let mut schema = BTreeSet::new();
    keys_of(&cases(), "", &mut schema);
    assert!(read.len() > 35, "{}", read.len());
    same(&read, &schema);
}

#[test]
fn every_key_has_a_description_and_a_type() {
    fn visit(schema: &Value, path: &str, count: &mut usize) {
        if !schema.is_object() {
            return;
        }
        for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{key}");
            // Those of `expect` are the fields of a status.
            let is_field = path.contains(".expect.");
            let description = schema["description"].as_str().unwrap_or_default();
            assert!(
                is_field || description.ends_with(['.', '"']) || description.contains(". "),
                "{path}: {description:?}"
            );
            let has_type =
                ["type", "enum", "const", "anyOf"].iter().any(|keyword| !schema[keyword].is_null());
            assert!(has_type || matches!(key.as_str(), "json" | "variables"), "{path}");
            *count += 1;
            visit(schema, &path, count);
        }
        for inner in [&schema["items"], &schema["additionalProperties"]] {
            visit(inner, path, count);
        }
        for inner in schema["anyOf"].as_array().into_iter().flatten() {
            visit(inner, path, count);
        }
    }
    let mut count = 0;
    visit(&definition(), "", &mut count);
    visit(&cases(), "", &mut count);
    assert!(count > 200, "{count}");
}
