//! The text of a begun definition's cases: the request, and the pasted answer with what the
//! definition reads of it.

use std::{fmt::Write as _, sync::Arc};

use serde_json::Value as Json;

use super::{Content, Found, fields::quoted, place::At, write::comment};
use crate::vendors::declared::{Definition, cases::Cases};

/// In place of a segment of the path that is still to be filled in.
const STAND_IN: &str = "to-be-named";

/// Longest value that a case expects, in bytes.
const LONGEST: usize = 200;

/// The cases, with what `complete` reads: the definition with `missing` words in place of
/// those that the answer does not show.
pub(super) fn text(
    found: &Found,
    body: &str,
    redacted: &[String],
    complete: &str,
    missing: &[&str],
) -> String {
    let head = head(found, redacted);
    let answer = answer(found, body);
    let plain =
        format!("{head}{}{answer}expect = {{ state = \"UNSPECIFIED\", files = [] }}\n", request(found, None));
    // What is to be filled in is a problem of its own, and reads no answer otherwise.
    let read = Definition::parse(&complete.replace("fill-in", STAND_IN))
        .ok()
        .and_then(|definition| Cases::parse(Arc::new(definition), &plain).ok());
    let Some(cases) = read else {
        // The definition has more to fill in than words.
        let todo = "expect = { state = \"UNSPECIFIED\" }    # fill in: what the answer has to be read as\n";
        return format!("{head}{}{answer}{todo}{}", request(found, None), rest(found, &[]));
    };
    let target = cases.cases.first().and_then(|case| cases.target(case));
    let target = target.map(|target| target.replace(STAND_IN, "fill-in"));
    let expected = cases.cases.last().map(|case| cases.expected(case)).unwrap_or_default();
    let is_missing = |name: &&String| missing.iter().any(|word| name.contains(word));
    let mut untested: Vec<String> = cases.run().uncovered;
    untested.retain(|name| !is_missing(&name));
    format!(
        "{head}{}{answer}{}{}",
        request(found, target.as_deref()),
        expect(found, &expected),
        rest(found, &untested)
    )
}

fn head(found: &Found, redacted: &[String]) -> String {
    let mut text = "# Begun by `jobwatch vendor new`. fill in: an answer for each word, fault and file, from the vendor's\n\
                    # documentation or recorded.\n"
        .to_owned();
    if !redacted.is_empty() {
        let _ = writeln!(
            text,
            "# What stands here is redacted: {}. Look for others before you share the file.",
            listed(redacted)
        );
    }
    if found.has_request {
        let _ = writeln!(text, "base_url = {}", quoted(&found.template.origin));
    }
    let params: Vec<String> = found
        .template
        .params
        .iter()
        .map(|param| {
            let value = if param.kind() == "integer" { param.value.clone() } else { quoted(&param.value) };
            format!("{} = {value}", param.name)
        })
        .collect();
    if !params.is_empty() {
        let _ = writeln!(text, "params   = {{ {} }}", params.join(", "));
    }
    text
}

/// Paths on one line, the first of many.
pub(super) fn listed(paths: &[String]) -> String {
    const MOST: usize = 12;
    let shown: Vec<String> = paths.iter().take(MOST).map(|path| comment(path)).collect();
    let others = paths.len().saturating_sub(MOST);
    let rest = if others > 0 { format!(" and {others} more") } else { String::new() };
    shown.join(", ") + &rest
}

fn ids(found: &Found) -> String {
    format!("[{}]", quoted(&found.job_id()))
}

/// The request as it was sent, where one is known.
fn request(found: &Found, written: Option<&str>) -> String {
    if !found.has_request || found.is_batch {
        return String::new();
    }
    let method = if found.content == Content::None { "GET" } else { "POST" };
    let sent = found.template.target.as_str();
    // Another way to escape the same is no difference.
    let plain = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().replace('+', " ");
    let target = written.filter(|written| plain(written) == plain(sent)).unwrap_or(sent);
    format!(
        "\n[[case]]\nname    = \"request\"\nids     = {}\nrequest = {{ method = {}, target = {} }}\n",
        ids(found),
        quoted(method),
        quoted(target)
    )
}

fn answer(found: &Found, body: &str) -> String {
    let mut text =
        format!("\n[[case]]\nname   = \"the pasted answer\"\nsource = \"pasted\"\nids    = {}\n", ids(found));
    if found.pasted.status != 200 {
        let _ = writeln!(text, "status = {}", found.pasted.status);
    }
    let kept = found.pasted.headers.iter().filter(|(name, _)| matches!(&**name, "retry-after" | "location"));
    let headers: Vec<String> = kept
        .filter(|(_, value)| !value.contains('?'))
        .map(|(name, value)| format!("{} = {}", quoted(name), quoted(value)))
        .collect();
    if !headers.is_empty() {
        let _ = writeln!(text, "headers = {{ {} }}", headers.join(", "));
    }
    let is_literal = !body.contains("'''")
        && !body.ends_with('\'')
        && !body.contains(|c: char| c.is_control() && c != '\n' && c != '\t');
    let body = if is_literal { format!("'''{body}'''") } else { toml::Value::from(body).to_string() };
    format!("{text}body   = {body}\n")
}

fn expect(found: &Found, expected: &[(&'static str, Json)]) -> String {
    let mut lines = Vec::new();
    for (field, value) in expected {
        let value = match value {
            Json::String(text) if text.is_empty() || text.len() > LONGEST => continue,
            Json::String(text) => quoted(text),
            Json::Array(items) if items.is_empty() => continue,
            Json::Array(items) => {
                let items: Vec<String> = items.iter().filter_map(Json::as_str).map(quoted).collect();
                format!("[{}]", items.join(", "))
            }
            other => other.to_string(),
        };
        let is_unknown = *field == "state" && value == "\"UNSPECIFIED\"";
        let todo = match &found.word.unknown {
            Some(word) if is_unknown => format!("    # fill in: the state of {:?}", comment(word)),
            _ if *field == "fault" => "    # fill in: the definition can't read the answer yet".to_owned(),
            _ => String::new(),
        };
        lines.push((*field, value + &todo));
    }
    let width = lines.iter().map(|(field, _)| field.len()).max().unwrap_or_default();
    let lines: Vec<String> =
        lines.iter().map(|(field, value)| format!("{field:width$} = {value}\n")).collect();
    let lines = lines.concat();
    format!(
        "[case.expect]                           # what the definition reads: compare it with the answer\n{lines}"
    )
}

/// What is to be added, and why each word, rule and file without a case has none.
fn rest(found: &Found, untested: &[String]) -> String {
    let mut text = String::new();
    if !found.is_batch && !matches!(found.at, At::ById { .. }) {
        let _ = writeln!(
            text,
            "\n# [[case]]\n# name   = \"a job that does not exist\"\n# ids    = {}\n# status = 404\n# body   = '{{}}'\n\
             # expect = {{ fault = \"not_found\" }}",
            ids(found)
        );
    }
    if !untested.is_empty() {
        text += "\n[untested]\n";
        for name in untested {
            let _ = writeln!(text, "{} = \"fill in: a case, or why there is none\"", quoted(name));
        }
    }
    text
}
