//! Texts that can't be meant: what is still to be filled in, and secrets.

use std::ops::Range;

use crate::vendors::declared::{
    draft::redact::{is_secret_name, is_secret_text},
    reader::{Log, Node, Section},
};

/// What `jobwatch vendor new` leaves where the vendor's page has to be read.
const MARKS: [&str; 3] = ["fill in:", "//fill-in.", "/fill-in/"];

/// Tables whose values are sent.
const SENT: [&str; 5] = ["headers", "query", "form", "json", "variables"];

/// Ends of names that are about a secret, such as `token_type`.
const ABOUT: [&str; 4] = ["_type", "_format", "_count", "_limit"];

/// Reports every such text of a definition.
pub(super) fn check(top: &Section<'_>, log: &Log<'_>) {
    for (name, span, node) in top.entries() {
        visit(name, span, &node, false, log);
    }
}

/// Whether a text is still to be filled in, and with what.
pub(in crate::vendors::declared) fn to_fill_in(text: &str) -> Option<&str> {
    let at = MARKS.iter().filter_map(|mark| text.find(mark)).min()?;
    Some(&text[at..])
}

fn visit(name: &str, span: Range<usize>, node: &Node<'_>, is_sent: bool, log: &Log<'_>) {
    if to_fill_in(name).is_some() {
        log.add(span, &node.path, "is still to be filled in");
    }
    if node.is_table() {
        // A way to sign in may be called query.
        let is_way = node.path.strip_prefix("credentials.").is_some_and(|way| !way.contains('.'));
        let is_sent = is_sent || SENT.contains(&name) && !is_way;
        for (name, span, node) in node.section(log).map(|section| section.entries()).unwrap_or_default() {
            visit(name, span, &node, is_sent, log);
        }
    } else if node.is_array() {
        node.list().iter().for_each(|node| visit(name, node.span.clone(), node, is_sent, log));
    } else if let Some(text) = node.as_text() {
        if let Some(what) = to_fill_in(text) {
            node.report(log, format!("is still to be filled in: {what:?}"));
        } else if is_sent && is_secret(name, text) {
            let text = "looks like a secret, which others read in a definition; declare a way to sign in under \
                        [credentials], and give the secret in the backend";
            node.report(log, text);
        }
    }
}

fn is_secret(name: &str, text: &str) -> bool {
    let is_value = text.contains("{{") || text.is_empty() || matches!(text, "true" | "false");
    // As a header it is refused already.
    if name.to_lowercase().ends_with("authorization") {
        return false;
    }
    let is_about = ABOUT.iter().any(|end| name.to_lowercase().ends_with(end));
    !is_value && (is_secret_text(text) || is_secret_name(name) && !is_about && !text.contains(' '))
}
