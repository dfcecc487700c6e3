//! Tables and lists without anything in them, and what stands in a list twice.

use super::{Definition, list, no_repetition, table};
use crate::vendors::declared::{
    definition::ResultRule,
    reader::{Log, Node, Section},
};

/// Keys that say something with nothing in them, or whose own reader asks for more.
const MAY_BE_EMPTY: [&str; 4] = ["by_category", "form", "send_as", "result"];

/// Reports everything that is empty and means nothing.
pub(super) fn empty(top: &Section<'_>, log: &Log<'_>) {
    for (name, _, node) in top.entries().into_iter().filter(|(name, ..)| *name != "credentials") {
        visit(name, &node, log);
    }
    // A way needs no keys, nor does a parameter.
    let ways = top.entries().into_iter().filter(|(name, ..)| *name == "credentials");
    for (name, node) in ways.flat_map(|(_, _, node)| below(&node)).flat_map(|(_, node)| below(&node)) {
        visit(name, &node, log);
    }
}

fn visit(name: &str, node: &Node<'_>, log: &Log<'_>) {
    // JSON of any shape.
    if matches!(name, "json" | "variables") {
        return;
    }
    // A state that has no word is one that the vendor does not have.
    let may_be_empty = MAY_BE_EMPTY.contains(&name)
        || ["params.", "states."].iter().any(|table| node.path.starts_with(table))
        || node.path == "status.error";
    let is_empty = node.is_array() && node.list().is_empty() || node.is_table() && below(node).is_empty();
    if is_empty && !may_be_empty {
        node.report(log, "is empty, which has no effect; remove it, or write what belongs there");
    }
    for (name, node) in below(node) {
        visit(name, &node, log);
    }
}

/// The members of a table, or the elements of a list with the list's name.
fn below<'t>(node: &Node<'t>) -> Vec<(&'t str, Node<'t>)> {
    if node.is_array() {
        return node.list().into_iter().map(|node| ("", node)).collect();
    }
    if !node.is_table() {
        return Vec::new();
    }
    let entries = node.section(&Log::new("")).map(|section| section.entries()).unwrap_or_default();
    entries.into_iter().map(|(name, _, node)| (name, node)).collect()
}

/// Reports what stands twice in a list of which the first that finds something counts.
pub(super) fn repeated(definition: &Definition, status: &mut Section<'_>, log: &Log<'_>) {
    no_repetition(status, "warnings", log);
    if let Some(mut keys) = table(status, "error", log) {
        no_repetition(&mut keys, "message", log);
        no_repetition(&mut keys, "words", log);
    }
    let rules = &definition.status.results;
    let nodes = list(status, "result");
    if nodes.len() != rules.len() {
        return;
    }
    for (place, node) in nodes.iter().enumerate() {
        let earlier = rules[..place].iter().position(|earlier| covers(earlier, &rules[place]));
        if let Some(earlier) = earlier {
            let text = format!("is never read: status.result[{earlier}] finds all that it would; remove it");
            node.report(log, text);
        }
    }
}

/// Whether a rule finds whatever a later one would.
fn covers(earlier: &ResultRule, later: &ResultRule) -> bool {
    let is_no_narrower = match (&earlier.when, &later.when) {
        (None, _) => true,
        (Some(one), Some(other)) => one.is_same(other),
        (Some(_), None) => false,
    };
    is_no_narrower
        && earlier.at == later.at
        && earlier.content == later.content
        && earlier.states.includes(&later.states)
}
