//! Requests of a definition: method, path, query, headers and content.

use std::ops::Range;

use http::{HeaderName, Method};

use super::{Question, literals::to_fill_in};
use crate::vendors::declared::{
    reader::{Log, Node, Section},
    source::{Names, Source},
    template::{Body, RequestTemplate, Target, Text, Tree, path_problem},
};

/// Headers that the gateway writes itself.
pub(in crate::vendors::declared) const OWN_HEADERS: [&str; 9] = [
    "authorization",
    "proxy-authorization",
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "accept-encoding",
    "te",
    "upgrade",
];

/// Reads the keys of a request. Others of the section are left to its owner.
pub(in crate::vendors::declared) fn request(
    keys: &mut Section<'_>,
    names: &Names<'_>,
    log: &Log<'_>,
) -> Option<Question> {
    let before = log.len();
    let (path, location) = (keys.get("path"), keys.get("location"));
    let target = match (path, location) {
        (Some(path), None) => text(&path, names, log).and_then(|parsed| match path_problem(&parsed) {
            _ if path.as_text().and_then(to_fill_in).is_some() => Some(Target::Path(parsed)),
            Some(problem) => path.problem(log, problem),
            None => Some(Target::Path(parsed)),
        }),
        (None, Some(location)) => location_of(&location, names, log).map(Target::Location),
        (Some(_), Some(location)) => location.problem(log, "stands beside path; keep one of them"),
        (None, None) => {
            log.add(keys.span.clone(), &format!("{}.path", keys.path), "is missing; write path = \"/..\"");
            None
        }
    };
    let query = keys.get("query");
    if let (Some(Target::Location(_)), Some(query)) = (&target, &query) {
        query.report(log, "stands beside location, which has a query of its own; write it there");
    }
    let query = pairs(query, names, log);
    let headers = request_headers(keys.get("headers"), names, log);
    let (json, form, graphql) = (keys.get("json"), keys.get("form"), keys.get("graphql"));
    let is_graphql = graphql.is_some();
    let contents = [&json, &form, &graphql].into_iter().flatten().count();
    if contents > 1 {
        return keys.problem(log, "has several of json, form and graphql; keep one of them");
    }
    let body = if let Some(json) = json {
        Tree::read(&json, names, log).map(Body::Json)
    } else if let Some(graphql) = graphql {
        graphql_body(&graphql, names, log)
    } else {
        form.is_some().then(|| Body::Form(pairs(form, names, log)))
    };
    let method = match keys.get("method") {
        None if contents > 0 => Some(Method::POST),
        None => Some(Method::GET),
        Some(node) => node
            .word(log, &[("GET", false), ("POST", true)])
            .map(|posts| if posts { Method::POST } else { Method::GET }),
    };
    if log.len() > before {
        return None;
    }
    let request = RequestTemplate { method: method?, target: target?, query, headers, body };
    Some(Question { request, is_graphql })
}

fn text(node: &Node<'_>, names: &Names<'_>, log: &Log<'_>) -> Option<Text> {
    match Text::parse(node.text(log)?, names) {
        Ok(text) => Some(text),
        Err(problem) => node.problem(log, problem),
    }
}

/// A location is one whole value.
fn location_of(node: &Node<'_>, names: &Names<'_>, log: &Log<'_>) -> Option<Source> {
    let written = node.text(log)?.trim();
    let Some(inner) = written.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}")) else {
        return node.problem(log, "is not one whole value; write one such as \"{{ id.location }}\"");
    };
    match Source::parse(inner.trim(), names) {
        Ok(source) => Some(source),
        Err(problem) => node.problem(log, problem),
    }
}

/// A table of names and texts, in the order of the file.
pub(in crate::vendors::declared) fn pairs(
    node: Option<Node<'_>>,
    names: &Names<'_>,
    log: &Log<'_>,
) -> Vec<(String, Text)> {
    let section = node.and_then(|node| node.section(log));
    let entries = section.map(|section| section.entries()).unwrap_or_default();
    let pair = |(name, span, node): (&str, _, Node<'_>)| {
        literal_name(name, span, &node, log)?;
        if let Some(number) = node.json_number() {
            return Some((name.to_owned(), Text::parse(&number, names).ok()?));
        }
        // Some servers need a parameter without a value.
        if node.as_text() == Some("") {
            return Some((name.to_owned(), Text::parse("", names).ok()?));
        }
        Some((name.to_owned(), text(&node, names, log)?))
    };
    entries.into_iter().filter_map(pair).collect()
}

/// The headers of a request.
pub(in crate::vendors::declared) fn request_headers(
    node: Option<Node<'_>>,
    names: &Names<'_>,
    log: &Log<'_>,
) -> Vec<(HeaderName, Text)> {
    let section = node.and_then(|node| node.section(log));
    let entries = section.map(|section| section.entries()).unwrap_or_default();
    let mut headers = Vec::new();
    for (name, span, node) in entries {
        if literal_name(name, span.clone(), &node, log).is_none() {
            continue;
        }
        let lower = name.to_lowercase();
        if OWN_HEADERS.contains(&&*lower) {
            let text = if lower.ends_with("authorization") {
                "is written by [credentials]; declare a way there"
            } else {
                "is written by the gateway; remove it"
            };
            log.add(span, &node.path, text);
            continue;
        }
        match HeaderName::from_bytes(lower.as_bytes()) {
            Ok(name) if headers.iter().any(|(known, _)| *known == name) => {
                log.add(span, &node.path, "stands twice, since names of headers have no case; keep one");
            }
            Ok(_)
                if node
                    .as_text()
                    .is_some_and(|value| value.contains(|c: char| c.is_control() && c != '\t')) =>
            {
                log.add(
                    span,
                    &node.path,
                    "holds a line end or another character that no header can carry; remove it",
                );
            }
            Ok(name) => {
                let text = text(&node, names, log);
                let is_plain =
                    |text: &str| text.chars().all(|c| c.is_ascii_graphic() || matches!(c, ' ' | '\t'));
                if text.as_ref().is_some_and(|text| !text.literals().all(is_plain)) {
                    node.report(
                        log,
                        "holds characters beside those of visible ASCII, which no header can carry",
                    );
                    continue;
                }
                headers.extend(text.map(|text| (name, text)));
            }
            Err(_) => log.add(span, &node.path, no_header_name(name)),
        }
    }
    headers
}

/// A name is sent as it stands: `None` for one with a value in it.
pub(in crate::vendors::declared) fn literal_name(
    name: &str,
    span: Range<usize>,
    node: &Node<'_>,
    log: &Log<'_>,
) -> Option<()> {
    if name.contains("{{") {
        log.add(
            span,
            &node.path,
            "has {{ }} in its name, which is sent as it stands; write values in {{ }} only",
        );
        return None;
    }
    Some(())
}

/// That a text names no header, and how to write it.
pub(in crate::vendors::declared) fn no_header_name(text: &str) -> String {
    match text.split_once(':').map(|(name, value)| (name.trim(), value.trim())) {
        Some((name, "")) => format!("is no name of a header; write it without the colon: {name}"),
        Some((name, value)) => {
            format!("is no name of a header but a whole one; write {{ {name} = {value:?} }}")
        }
        None => "is no name of a header; write one such as X-Request-Id".to_owned(),
    }
}

fn graphql_body(node: &Node<'_>, names: &Names<'_>, log: &Log<'_>) -> Option<Body> {
    let mut keys = node.section(log)?;
    let query = keys.required(log, "query", "the query, such as query = \"\"\"..\"\"\"");
    let query = query.and_then(|node| literal(&node, log));
    let query = query.and_then(|query| serde_json::to_string(&squeezed(query)).ok());
    let operation = keys.get("operation").and_then(|node| literal(&node, log));
    let operation = operation.and_then(|name| serde_json::to_string(name).ok());
    let variables = keys.get("variables").map(|node| Tree::read(&node, names, log));
    keys.finish(log);
    let mut members = Vec::new();
    members.extend(operation.map(|name| ("operationName".to_owned(), Tree::Literal(name))));
    members.push(("query".to_owned(), Tree::Literal(query?)));
    if let Some(variables) = variables {
        members.push(("variables".to_owned(), variables?));
    }
    Some(Body::Json(Tree::Object(members)))
}

/// A text of GraphQL, which has no values in it.
fn literal<'t>(node: &Node<'t>, log: &Log<'_>) -> Option<&'t str> {
    let text = node.text(log)?;
    let Some((_, value)) = text.split_once("{{") else { return Some(text) };
    let value = value.split("}}").next().unwrap_or_default().trim();
    let name = value.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default();
    let name = if name.is_empty() { "id" } else { name };
    node.problem(
        log,
        format!(
            "has {{{{ {value} }}}}, which is sent as it stands; write ${name} there, declare it in the query as \
             in query(${name}: ID!), and give it in graphql.variables: {{ {name} = \"{{{{ {value} }}}}\" }}"
        ),
    )
}

/// A query on one line; its texts stay as they are where it has none.
fn squeezed(query: &str) -> String {
    if query.contains(['"', '#']) {
        return query.to_owned();
    }
    query.split_whitespace().collect::<Vec<_>>().join(" ")
}
