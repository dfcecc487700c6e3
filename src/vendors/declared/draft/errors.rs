//! Where a job has the words for why it failed.

use super::{
    fields::{Guess, named, quoted},
    tree::{Leaf, Node, member},
    volatile::is_url,
};

const ENDS: &str = "in = [\"FAILED\", \"CANCELLED\", \"EXPIRED\"]";

/// Names of members with an error, the likeliest first; those from `message` on say other things
/// too.
const NAMES: [&str; 18] = [
    "error_message",
    "error",
    "errors",
    "failure_reason",
    "failure_message",
    "error_detail",
    "error_details",
    "last_error",
    "failure",
    "exception",
    "status_message",
    "state_message",
    "status_reason",
    "status_detail",
    "error_msg",
    "message",
    "reason",
    "detail",
];

/// First and last words of further names, such as `failure_detail`.
const ABOUT: [&str; 6] = ["error", "errors", "failure", "fault", "exception", "failed"];
const WORDS: [&str; 10] =
    ["message", "messages", "msg", "detail", "details", "description", "reason", "text", "info", "cause"];

/// Members of an error with its words, the likeliest first.
const TEXTS: [&str; 9] = [
    "message",
    "error_message",
    "detail",
    "description",
    "error",
    "reason",
    "msg",
    "error_description",
    "title",
];

/// Where the words stand.
enum Place {
    /// A source for `message`.
    Message(String),
    /// A list, and the source for each of its elements.
    Each(String, String),
}

/// What `status.error` is for a job with these members.
pub(super) fn guess(leaves: &[&Leaf<'_>]) -> Option<Guess> {
    let is_error = |node: &Node| !matches!(node, Node::Flag(_) | Node::Number(_));
    let leaf = named(leaves, &NAMES[..15], 0, is_error)
        .or_else(|| further(leaves))
        .or_else(|| named(leaves, &NAMES, 1, |node| is_error(node) && !matches!(node, Node::List(_))))?;
    let leaf = sentence_beside(leaf, leaves).unwrap_or(leaf);
    let path = quoted(&leaf.path);
    let place = within(leaf.node, &leaf.path, 2);
    let value = match &place {
        Some(Place::Each(list, message)) => {
            format!("{{ each = {}, message = {}, details = {path}, {ENDS} }}", quoted(list), quoted(message))
        }
        Some(Place::Message(message)) if leaf.node.is_object() => {
            format!("{{ message = {}, details = {path}, {ENDS} }}", quoted(message))
        }
        None if leaf.node.is_object() => format!("{{ words = {path}, details = {path}, {ENDS} }}"),
        _ => format!("{{ message = {path}, {ENDS} }}"),
    };
    let is_empty_list = |node: &Node| matches!(node, Node::List(list) if list.is_empty());
    let why = match leaf.node {
        Node::Null => "null here; fill in: how it looks in a job that failed",
        node if is_empty_list(node) || node.members().iter().any(|(_, node)| is_empty_list(node)) => {
            "empty here; fill in: how it looks in a job that failed"
        }
        Node::Object(_) if place.is_none() => "fill in: which member says why a job failed?",
        _ if NAMES[15..].contains(&&*leaf.name) => "fill in: does it say why a job failed?",
        _ => "",
    };
    Some(Guess { key: "error", value, why: why.to_owned() })
}

/// A member whose name is about an error and its words, such as `failure_detail`.
fn further<'l, 'n>(leaves: &[&'l Leaf<'n>]) -> Option<&'l Leaf<'n>> {
    let own = || leaves.iter().filter(|leaf| leaf.parents.is_empty() && is_about_error(&leaf.name));
    own().find(|leaf| is_sentence(leaf.node)).or_else(|| own().next()).copied()
}

fn is_about_error(name: &str) -> bool {
    let tokens: Vec<&str> = name.split('_').collect();
    tokens.iter().any(|token| ABOUT.contains(token)) && tokens.last().is_some_and(|last| WORDS.contains(last))
}

/// The member with a sentence, where this one has a code: `failure_detail` beside `failure`.
fn sentence_beside<'l, 'n>(leaf: &Leaf<'_>, leaves: &[&'l Leaf<'n>]) -> Option<&'l Leaf<'n>> {
    leaf.node.text().filter(|text| !text.is_empty() && !is_sentence(leaf.node))?;
    let beside = || leaves.iter().filter(|other| other.object == leaf.object && is_sentence(other.node));
    beside()
        .find(|other| is_about_error(&other.name))
        .or_else(|| beside().find(|other| NAMES.contains(&&*other.name)))
        .copied()
}

fn is_sentence(node: &Node) -> bool {
    node.text().is_some_and(|text| text.trim().contains(char::is_whitespace) && !is_url(text))
}

/// The words within an error at this path.
fn within(node: &Node, path: &str, depth: u8) -> Option<Place> {
    match node {
        Node::List(list) => Some(Place::Each(path.to_owned(), of_elements(list))),
        Node::Object(members) => {
            let below = |name: &str| member(path, name);
            let text = text_of(&[node]);
            if let Some((name, true)) = text {
                return below(name).map(Place::Message);
            }
            let has_words = |node: &Node| match node {
                Node::List(list) => list.is_empty() || list.iter().any(is_words),
                _ => false,
            };
            if let Some((name, node)) = members.iter().find(|(_, node)| has_words(node)) {
                return within(node, &below(name)?, 0);
            }
            if let Some((name, _)) = text {
                return below(name).map(Place::Message);
            }
            let depth = depth.checked_sub(1)?;
            let mut inner = members.iter().filter(|(_, node)| node.is_object());
            inner.find_map(|(name, node)| within(node, &below(name)?, depth))
        }
        _ => None,
    }
}

/// Whether an element of a list can be the words of an error, or has them.
fn is_words(node: &Node) -> bool {
    is_sentence(node) || text_of(&[node]).is_some()
}

/// The source of the words for each element of a list.
fn of_elements(list: &[Node]) -> String {
    if list.iter().any(|node| node.text().is_some()) {
        return "item".to_owned();
    }
    let elements: Vec<&Node> = list.iter().collect();
    if let Some(path) = text_of(&elements).and_then(|(name, _)| member("item", name)) {
        return path;
    }
    let inner = list.iter().flat_map(Node::members).find_map(|(name, node)| {
        let (text, _) = text_of(&[node])?;
        member(&member("item", name)?, text)
    });
    inner.unwrap_or_else(|| "item.message".to_owned())
}

/// The member with the words of these objects, and whether they are a sentence and not a code.
fn text_of<'n>(objects: &[&'n Node]) -> Option<(&'n str, bool)> {
    let texts = || {
        let members = objects.iter().flat_map(|node| node.members());
        members.filter(|(_, node)| node.text().is_some_and(|text| !text.is_empty() && !is_url(text)))
    };
    let named = |is: &dyn Fn(&Node) -> bool| {
        let named = |name: &&str| texts().find(|(own, node)| own.to_lowercase() == **name && is(node));
        TEXTS.iter().find_map(named).map(|(name, _)| name.as_str())
    };
    let sentence = named(&is_sentence)
        .or_else(|| texts().find(|(_, node)| is_sentence(node)).map(|(name, _)| name.as_str()));
    sentence.map(|name| (name, true)).or_else(|| named(&|_| true).map(|name| (name, false)))
}
