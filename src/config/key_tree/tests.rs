use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    config::{
        Config,
        schema::{FORM, visit},
        values::{parse_duration, show_bytes, show_duration},
    },
    vendors::{KINDS, VendorKind},
};

/// Never the name of a key, and close to none.
const NO_KEY: &str = "zzzz";

/// The names of the keys of the table at a path, from the schema.
fn of_schema(path: &[&str]) -> Option<BTreeSet<String>> {
    let parts: Vec<_> =
        path.iter().map(|part| if *part == "0" { Part::Index } else { Part::Key(part) }).collect();
    match KeyTree::root().find(&parts) {
        Found::Key(keys) if matches!(keys.kind, Kind::Table | Kind::Tables) => {
            Some(keys.names().into_iter().map(str::to_owned).collect())
        }
        _ => None,
    }
}

/// The names that the reader lists where it refuses a key of the table at `path`.
fn of_reader(backend: &str, path: &str) -> BTreeSet<String> {
    let table = match path {
        "" => format!("{NO_KEY} = 1\n"),
        "access.policies[0]" => format!("[[access.policies]]\nprincipals = [\"*\"]\n{NO_KEY} = 1\n"),
        path if path.starts_with("backends") => String::new(),
        path => format!("[{path}]\n{NO_KEY} = 1\n"),
    };
    let keys = path.strip_prefix("backends.x").map(|rest| match rest {
        "" => format!("{NO_KEY} = 1"),
        rest => format!("{}.{NO_KEY} = 1", &rest[1..]),
    });
    let text =
        format!("allow_inline_secrets = true\n{table}[backends.x]\n{backend}\n{}", keys.unwrap_or_default());
    let problems = Config::parse(&text, []).expect_err("it has an unknown key").problems;
    let texts = problems.iter().map(|problem| (&problem.text, problem.text.split_once("write one of ")));
    let listed =
        texts.filter(|(text, _)| text.contains("is not a key here")).find_map(|(_, listed)| Some(listed?.1));
    let listed = listed.unwrap_or_else(|| panic!("{path} lists no keys: {problems:?}\n{text}"));
    listed.split(", ").map(str::to_owned).collect()
}

fn set<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

/// Each vendor's backend, with credentials that have all keys.
fn backends() -> Vec<(&'static VendorKind, String)> {
    let backend = |kind: &'static VendorKind| {
        let key = kind.key;
        (
            kind,
            format!(
                "vendor = {key:?}\nbase_url = \"http://127.0.0.1:1\"\ncredentials.{} = \"hush\"",
                kind.credentials.secret
            ),
        )
    };
    KINDS.iter().map(|kind| backend(kind)).collect()
}

#[test]
fn schema_and_reader_have_the_same_keys_in_every_section() {
    let kinetica = "vendor = \"kinetica\"\nbase_url = \"http://127.0.0.1:1\"";
    let mut compared = BTreeSet::new();
    let mut to_do = vec![(String::new(), Vec::<String>::new())];
    while let Some((path, parts)) = to_do.pop() {
        let names: Vec<&str> = parts.iter().map(String::as_str).collect();
        let Some(known) = of_schema(&names) else { continue };
        if names.first() == Some(&"backends") {
            continue;
        }
        assert_eq!(known, of_reader(kinetica, &path), "{path}");
        for name in known {
            let dotted = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let mut parts = parts.clone();
            parts.push(name.clone());
            let (dotted, extra) = match &*name {
                "tokens" => (format!("{dotted}.x"), Some("x")),
                "policies" => (format!("{dotted}[0]"), Some("0")),
                _ => (dotted, None),
            };
            parts.extend(extra.map(str::to_owned));
            to_do.push((dotted, parts));
        }
        compared.insert(path);
    }
    let expected = [
        "",
        "server",
        "server.tls",
        "admin",
        "log",
        "limits",
        "access",
        "access.jwt",
        "access.tokens.x",
        "access.policies[0]",
    ];
    assert!(expected.iter().all(|path| compared.contains(*path)), "{compared:?}");
}

#[test]
fn schema_and_reader_have_the_same_keys_in_every_backend() {
    let defs = json_schema()["$defs"].as_object().unwrap();
    for (kind, text) in backends() {
        let schema = &defs[&format!("{}Backend", kind.name)];
        let properties =
            |schema: &Value| set(schema["properties"].as_object().unwrap().keys().map(String::as_str));
        assert_eq!(properties(schema), of_reader(&text, "backends.x"), "{}", kind.name);
        let poll = properties(&defs["Poll"]);
        assert_eq!(poll, of_reader(&text, "backends.x.poll"));
        let ways = schema["properties"]["credentials"]["oneOf"].as_array().unwrap();
        let of_ways: BTreeSet<String> =
            ways.iter().filter(|way| way["type"] == "object").flat_map(properties).collect();
        assert_eq!(of_ways, of_reader(&text, "backends.x.credentials"), "{}", kind.name);
        assert_eq!(ways.iter().any(|way| way["const"] == "none"), kind.credentials.optional);
    }
}

#[test]
fn every_key_of_the_schema_is_described_and_every_reference_leads_somewhere() {
    let mut schema = json_schema().clone();
    let (mut seen, mut references) = (0, BTreeSet::new());
    visit(&mut schema, &mut |schema| {
        for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let description = property["description"].as_str().unwrap_or_default();
            assert!(description.ends_with(['.', '}', '"']), "{name} is not described: {property}");
            seen += 1;
        }
        references.extend(schema.get("$ref").and_then(Value::as_str).map(str::to_owned));
        assert!(!schema.contains_key(FORM) && schema.get("default").is_none_or(|default| !default.is_null()));
        assert!(schema.get("type").is_none_or(Value::is_string), "{schema:?}");
    });
    let defs = json_schema()["$defs"].as_object().unwrap();
    assert!(!defs.contains_key("Duration"), "a duration has to be read with `Milliseconds`");
    assert!(seen > 80, "{seen} keys");
    assert!(references.len() > 15);
    for reference in references {
        assert!(json_schema().pointer(&reference[1..]).is_some(), "{reference}");
    }
}

/// The schema of a key below `$defs`.
fn property(table: &str, key: &str) -> &'static Value {
    &json_schema()["$defs"][table]["properties"][key]
}

#[test]
fn schema_has_ranges_units_words_and_defaults() {
    assert_eq!(json_schema()["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let batch_size = property("Limits", "batch_size");
    assert_eq!((&batch_size["minimum"], &batch_size["maximum"]), (&json!(1), &json!(1000)));
    assert_eq!(batch_size["default"], 1000);
    let bytes = property("Limits", "status_bytes");
    assert_eq!(bytes["default"], "512 MiB");
    let description =
        "A size from 1 KiB to 1 TiB: a number of bytes, or a text such as \"64 KiB\" or \"8 MB\".";
    assert!(bytes["description"].as_str().unwrap().ends_with(description), "{bytes}");
    let interval = property("Poll", "min_interval");
    assert_eq!(interval["default"], "1s");
    assert!(interval["description"].as_str().unwrap().contains("A duration from 1ms to 24h"), "{interval}");
    assert_eq!(property("Server", "listen")["default"], "127.0.0.1:50051");
    assert_eq!(property("Server", "tls")["default"], Value::Null);
    let words: Vec<&Value> = json_schema()["$defs"]["Encoding"]["oneOf"]
        .as_array()
        .unwrap()
        .iter()
        .map(|word| &word["const"])
        .collect();
    assert_eq!(words, ["json", "binary"]);
}

#[test]
fn keys_are_found_by_their_path() {
    use Part::{Index, Key};

    let find = |path: &[Part<'_>]| match KeyTree::root().find(path) {
        Found::Key(keys) => Ok(keys.kind),
        Found::Unknown(at, _) => Err(at),
    };
    for (path, expected) in [
        (&[][..], Ok(Kind::Table)),
        (&[Key("backends")], Ok(Kind::Names)),
        (&[Key("backends"), Key("any")], Ok(Kind::Table)),
        (&[Key("backends"), Key("any"), Key("tenant")], Ok(Kind::Text)),
        (&[Key("backends"), Key("any"), Key("standby_urls")], Ok(Kind::List)),
        (&[Key("backends"), Key("any"), Key("headers"), Key("a")], Ok(Kind::Secret)),
        (&[Key("backends"), Key("any"), Key("credentials")], Ok(Kind::Table)),
        (&[Key("backends"), Key("any"), Key("credentials"), Key("api_key")], Ok(Kind::Secret)),
        (&[Key("backends"), Key("any"), Key("credentials"), Key("api_key"), Key("file")], Ok(Kind::Text)),
        (&[Key("access"), Key("policies")], Ok(Kind::Tables)),
        (&[Key("access"), Key("policies"), Index, Key("rights")], Ok(Kind::List)),
        (&[Key("access"), Key("certificates")], Ok(Kind::Flag)),
        (&[Key("server"), Index], Err(1)),
        (&[Key("server"), Key("port"), Key("x")], Err(1)),
        (&[Key(ANY)], Err(0)),
    ] {
        assert_eq!(find(path), expected, "{path:?}");
    }
}

proptest! {
    #[test]
    fn shown_duration_and_size_are_read_again(millis in 0..100_000_000_u64, bytes in 0..=(1_u64 << 40)) {
        let duration = std::time::Duration::from_millis(millis);
        let shown = show_duration(duration);
        prop_assert_eq!(parse_duration(&shown), Some(duration));
        let text = format!("[limits]\nstatus_bytes = {:?}", show_bytes(bytes.max(1024)));
        let backend = "[backends.x]\nvendor = \"kinetica\"\nbase_url = \"http://127.0.0.1:1\"";
        prop_assert_eq!(Config::parse(&format!("{text}\n{backend}"), []).unwrap().limits.status_bytes, bytes.max(1024));
    }
}
