//! Reads a file of cases.

use std::{num::NonZeroUsize, sync::Arc};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use toml::Table;

use super::{BASE_URL, Case, Cases, Expectation, Golden, Refused, TokenCase, golden::headers};
use crate::vendors::{
    BaseUrl,
    declared::{
        Definition, backend,
        definition::to_fill_in,
        reader::{Log, Node, Section},
    },
};

/// Reads the cases; `line` is the line of a place in the text.
pub(super) fn read(
    definition: Arc<Definition>,
    mut top: Section<'_>,
    text: &str,
    line: &dyn Fn(usize) -> usize,
    log: &Log<'_>,
) -> Option<Cases> {
    let base_url = match top.get("base_url") {
        None => BASE_URL.parse::<BaseUrl>().ok(),
        Some(node) => match node.text(log)?.parse::<BaseUrl>() {
            Ok(url) => Some(url),
            Err(problem) => node.problem(log, problem.to_string()),
        },
    };
    let params = top.get("params");
    let untested_node = top.get("untested").and_then(|node| node.section(log));
    let untested = untested_node.map(|section| section.entries()).unwrap_or_default();
    let mut unfinished: Vec<(usize, String)> = Vec::new();
    for (name, span, node) in &untested {
        if let Some(what) = node.as_text().and_then(to_fill_in).or_else(|| to_fill_in(name)) {
            unfinished
                .push((line(span.start), format!("untested.{name:?} is still to be filled in: {what:?}")));
        }
    }
    let untested: Vec<(String, usize)> = untested
        .into_iter()
        .filter_map(|(name, span, node)| node.text(log).map(|_reason| (name.to_owned(), line(span.start))))
        .collect();
    let nodes = top
        .required(log, "case", "[[case]] with ids, body and expect")
        .map(|node| node.list())
        .unwrap_or_default();
    let (mut cases, mut refused) = (Vec::new(), Vec::new());
    let mut named: Vec<(String, usize)> = Vec::new();
    for (number, node) in nodes.iter().enumerate() {
        unfinished.extend(node.section(log).and_then(|keys| left_to_fill_in(keys, line, log)));
        let read = case(number, node, line, log);
        let own = match &read {
            Some(Read::Case(case)) => Some((case.name.clone(), case.line)),
            Some(Read::Refused(case)) => Some((case.name.clone(), case.line)),
            None => None,
        };
        if let Some((name, _)) = &own
            && let Some((_, other)) = named.iter().find(|(known, _)| known == name)
        {
            node.report(log, format!("is named {name:?} like the one in line {other}; write another name"));
        }
        named.extend(own);
        match read {
            Some(Read::Case(case)) => cases.push(*case),
            Some(Read::Refused(case)) => refused.push(case),
            None => {}
        }
    }
    let token_nodes = top.get("token").map(|node| node.list()).unwrap_or_default();
    top.finish(log);
    // Read once more by serde: a parameter is a text or a number.
    let whole: Table = toml::from_str(text).ok()?;
    let mut own_params = Table::new();
    own_params.extend(whole.get("params").map(|params| ("params".to_owned(), params.clone())));
    let chosen = backend::without_credentials();
    let config = match backend::read(&definition, &chosen, &own_params) {
        Ok(config) => config,
        Err(problems) => {
            for problem in problems {
                let span = params.as_ref().map_or(0..0, |node| node.span.clone());
                log.add(span, &problem.path, problem.text);
            }
            return None;
        }
    };
    unfinished.sort();
    let base_url = base_url?;
    let adapter = config.adapter(&base_url, NonZeroUsize::MAX);
    let tables = whole.get("token").and_then(toml::Value::as_array).cloned().unwrap_or_default();
    let tables = tables.into_iter().filter_map(|table| table.try_into::<Table>().ok());
    let tokens = token_nodes.iter().zip(tables).enumerate().filter_map(|(number, (node, table))| {
        let own = (line(node.span.start), &table);
        TokenCase::read(number, node, own, (&definition, &base_url, &own_params), log)
    });
    let tokens = tokens.collect();
    Some(Cases { adapter, definition, cases, refused, tokens, untested, unfinished })
}

/// What `jobwatch vendor new` has left in the request of a case.
fn left_to_fill_in(
    mut case: Section<'_>,
    line: &dyn Fn(usize) -> usize,
    log: &Log<'_>,
) -> Option<(usize, String)> {
    let mut request = case.get("request").filter(Node::is_table)?.section(log)?;
    let node = ["target", "url"].into_iter().find_map(|key| request.get(key))?;
    let what = to_fill_in(node.as_text()?)?;
    Some((line(node.span.start), format!("{} is still to be filled in: {what:?}", node.path)))
}

/// What an entry of `[[case]]` is.
enum Read {
    Case(Box<Case>),
    Refused(Refused),
}

fn case(number: usize, node: &Node<'_>, line: &dyn Fn(usize) -> usize, log: &Log<'_>) -> Option<Read> {
    let mut keys = node.section(log)?;
    let name = keys
        .get("name")
        .and_then(|node| node.text(log))
        .map_or_else(|| format!("case {}", number + 1), |name| name.replace(char::is_control, " "));
    keys.get("source").and_then(|node| node.text(log));
    let ids = keys
        .required(log, "ids", "the ids of the jobs, such as ids = [\"1\"]")
        .map(|node| node.list())
        .unwrap_or_default();
    let expect = keys.get("expect");
    if ids.is_empty()
        && let Some(node) = keys.get("ids")
    {
        node.report(log, "is empty, so nothing is tested; write the ids of the jobs");
    }
    if let Some(node) = expect.as_ref().filter(|node| node.is_array() && node.list().is_empty()) {
        node.report(log, "is empty, so nothing is tested; write a table for each id");
    }
    let line = line(node.span.start);
    if let Some(reason) = expect.as_ref().and_then(|expect| refusal(expect, log)) {
        // A refused id may be empty.
        let ids = ids.iter().filter_map(Node::as_text).map(str::to_owned).collect();
        for key in ["status", "headers", "body", "request"] {
            if let Some(node) = keys.get(key) {
                node.report(log, "stands beside expect.invalid_id: a refused id is never sent; remove it");
            }
        }
        keys.finish(log);
        return Some(Read::Refused(Refused { name, line, ids, reason }));
    }
    let ids: Vec<String> = ids.iter().filter_map(|node| node.text(log)).map(str::to_owned).collect();
    let answer = answer(&mut keys, log);
    let has_request = keys.get("request").is_some();
    let request = keys.get("request").and_then(|node| Golden::read(&node, log));
    let expectations: Vec<Expectation> = expect
        .as_ref()
        .map(Node::list)
        .unwrap_or_default()
        .iter()
        .filter_map(|node| Expectation::read(node, log))
        .collect();
    if expect.is_none() && !has_request {
        return keys.problem(log, "has neither expect nor request; write one of them");
    }
    if expectations.len() > 1 && expectations.len() != ids.len() {
        let text = format!(
            "has {} entries for {} ids; write one for each, or one for all",
            expectations.len(),
            ids.len()
        );
        return keys.problem(log, text);
    }
    let response = expect.is_some().then_some(answer);
    keys.finish(log);
    Some(Read::Case(Box::new(Case { name, line, ids, response, expect: expectations, request })))
}

/// Why an id is expected to be refused, if it is.
fn refusal(expect: &Node<'_>, log: &Log<'_>) -> Option<String> {
    let mut fields = expect.is_table().then(|| expect.section(log))??;
    let reason = fields.get("invalid_id")?;
    fields.finish(log);
    Some(reason.text(log)?.to_owned())
}

/// The vendor's answer: `status`, `headers` and `body`.
pub(super) fn answer(keys: &mut Section<'_>, log: &Log<'_>) -> Response<Bytes> {
    let status = keys.get("status").map_or(Some(200), |node| match u16::try_from(node.integer(log)?) {
        Ok(status @ 200..=599) => Some(status),
        _ => node.problem(log, "is no HTTP status; write one such as 200"),
    });
    let given = headers(keys.get("headers"), log);
    let body = keys.get("body").and_then(|node| node.as_text()).unwrap_or_default();
    let mut response = Response::new(Bytes::from(body.to_owned()));
    *response.status_mut() = StatusCode::from_u16(status.unwrap_or(200)).unwrap_or_default();
    if !body.is_empty() {
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    for (name, value) in &given {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
        {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
