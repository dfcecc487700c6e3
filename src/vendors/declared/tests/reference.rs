//! The reference in `docs/vendors.md`, held to the keys that are read.

use std::collections::BTreeSet;

use super::*;
use crate::vendors::declared::reader;

/// A definition with every table that there can be. It has problems: the tables matter.
const EVERYTHING: &str = r#"
params.param = { type = "text" }
id = { pattern = "{part}", part = { regex = "." } }
request = { path = "/{{ id.part }}", graphql = { query = "q" } }
batch = { path = "/", jobs = "body.jobs" }
answer.job = "body"
states.SUCCEEDED = ["done"]
faults = [{ status = 404, is = "not_found" }]
files = [{ name = "a", path = "/a" }, { name = "b", url = "{{ job.url }}" }]
[credentials]
none = {}
bearer = {}
header = { name = "x" }
query = { name = "x", secret = "b" }
basic = {}
oauth2 = { token_path = "/token" }
exchange = { path = "/login", token = "body.token", send_as = { header = "x" }, expires_at = { at = "body.until" } }
[status]
word = "job.status"
create_time = { at = "job.created" }
progress = { percent = "job.percent" }
result = { at = "job.result" }
error = { message = "job.error" }
"#;

/// The keys that are read, each with the table that it stands in.
pub(in crate::vendors::declared) fn keys() -> BTreeSet<(String, &'static str)> {
    let mut keys = reader::known_keys(|| drop(Definition::parse(EVERYTHING)));
    // Of tables that have names of the author's own beside these.
    let others = [("id", "pattern"), ("id", "example"), ("states", "otherwise"), ("states", "no_failure")];
    keys.extend(others.map(|(path, key)| (path.to_owned(), key)));
    keys
}

/// The part of the reference that is about the table at a path.
fn section<'t>(text: &'t str, path: &str) -> &'t str {
    let top = path.split(['.', '[']).next().unwrap_or_default();
    let heading = match top {
        "" => "### The top".to_owned(),
        "request" | "batch" => "### `[request]` and `[batch]`".to_owned(),
        "credentials" => "### `[credentials.*]`".to_owned(),
        "faults" | "files" => format!("### `[[{top}]]`"),
        top => format!("### `[{top}]`"),
    };
    let (_, after) =
        text.split_once(&format!("{heading}\n")).unwrap_or_else(|| panic!("{heading} is missing"));
    after.split("\n#").next().unwrap_or_default()
}

/// The words in backticks of a text, and those within examples in backticks. Blocks of code are
/// left out.
fn named(text: &str) -> BTreeSet<&str> {
    let code = text.split("```").step_by(2).flat_map(|text| text.split('`').skip(1).step_by(2));
    let words = code.flat_map(|code| code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    let is_name = |word: &&str| {
        word.starts_with(|c: char| c.is_ascii_lowercase()) && !word.contains(|c: char| c.is_ascii_uppercase())
    };
    words.filter(is_name).collect()
}

#[test]
fn every_key_that_is_read_is_in_the_reference() {
    let text = include_str!("../../../../docs/vendors.md");
    let (keys, mut missing) = (keys(), Vec::new());
    assert!(keys.len() > 80, "{}", keys.len());
    let tables =
        ["params", "id", "credentials", "request", "batch", "answer", "status", "states", "faults", "files"];
    for (path, key) in keys {
        // The tables of the top have headings of their own.
        if path.is_empty() && tables.contains(&key) {
            section(text, key);
            continue;
        }
        // A time is the same everywhere.
        let own = if path.ends_with(".expires_at") { "status" } else { &path };
        let own = named(section(text, own));
        // An exchange is "a request as in [request]"; of a file, these are read to be refused.
        let is_of_a_request = path == "credentials.exchange" || path.starts_with("files");
        let is_there = own.contains(key) || is_of_a_request && named(section(text, "request")).contains(key);
        if !is_there {
            missing.push(format!("{path}: {key}"));
        }
    }
    assert!(missing.is_empty(), "not in the reference: {missing:#?}");
}

#[test]
fn reference_has_no_key_that_is_not_read() {
    let text = include_str!("../../../../docs/vendors.md");
    let keys = keys();
    let read: BTreeSet<&str> = keys.iter().map(|(_, key)| *key).collect();
    // The first column of the table of [status] is keys and nothing else.
    let table = section(text, "status").lines().filter(|line| line.starts_with("| `"));
    let mut count = 0;
    for line in table {
        let first = line.split('|').nth(1).unwrap_or_default();
        for key in named(first) {
            count += 1;
            assert!(keys.contains(&("status".to_owned(), key)), "status: {key} is not read");
        }
    }
    assert!(count >= 15, "{count}");
    // Elsewhere a word in backticks is a key or one of these values.
    let values = [
        "text",
        "integer",
        "positive",
        "uuid",
        "location",
        "none",
        "bearer",
        "header",
        "query",
        "basic",
        "oauth2",
        "exchange",
        "api_key",
        "username",
        "password",
        "client_id",
        "client_secret",
        "refresh_token",
        "client_credentials",
        "form",
        "user",
        "x",
        "job_id",
        "dag_id",
        "dag_run_id",
        "body",
        "optional",
        "s",
        "ms",
        "us",
        "ns",
        "auto_ms",
        "auto",
        "json",
        "job",
        "duration",
        "item",
        "why",
        "name",
        "null",
        "value",
        "no_such_job",
        "not_found",
        "invalid_id",
        "forbidden",
        "unavailable",
        "throttled",
        "credentials",
        "rejected",
        "malformed",
        "data_str",
        "true",
        "false",
        "allow_origins",
        "https",
        "login",
        "example",
        "storage",
        "transcript_id",
        "max",
        "params",
        "base_url",
        "ids",
    ];
    let mut unknown = Vec::new();
    for heading in ["params", "id", "credentials", "request", "answer", "states", "faults", "files"] {
        for word in named(section(text, heading)) {
            let is_known = read.contains(word) || values.contains(&word);
            if !is_known {
                unknown.push(format!("{heading}: {word}"));
            }
        }
    }
    assert!(unknown.is_empty(), "no keys that are read: {unknown:#?}");
}

#[test]
fn every_way_to_sign_in_is_in_the_reference() {
    let text = include_str!("../../../../docs/vendors.md");
    let listed = section(text, "credentials");
    for (way, _) in credentials::WAYS {
        assert!(listed.contains(&format!("| `{way}` |")), "{way}");
    }
}
