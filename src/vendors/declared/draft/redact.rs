//! Replaces what should not lie in a file of cases: secrets, addresses of people, signed URLs.

use super::{
    pairs::{Pairs, are_pairs, is_secret_element},
    secrets::{Cleaner, REDACTED},
    text_pairs,
    tree::{Node, member},
};

pub(in crate::vendors::declared) use super::secret_names::is_secret_name;

/// Longest list that is looked at as the arguments of a command.
const MOST_ARGUMENTS: usize = 64;

/// Fewer digits are no secret.
const LEAST_DIGITS: usize = 4;

/// Notes every text that is a secret by a name, since it may stand elsewhere too.
pub(super) fn note_secrets(node: &Node, cleaner: &mut Cleaner) {
    note(node, false, false, cleaner);
}

/// The same for a part of an answer, which may be a secret by what it stands in, and may stand
/// in a list of pairs.
fn note(node: &Node, is_secret: bool, in_pairs: bool, cleaner: &mut Cleaner) {
    match node {
        Node::Object(members) => {
            let pairs = Pairs::of(members);
            for (name, node) in members {
                note(node, is_secret || pairs.is_secret(name, node), false, cleaner);
            }
        }
        Node::List(nodes) => {
            let texts = arguments(nodes);
            for (index, node) in nodes.iter().enumerate() {
                let is_argument = texts.get(index).is_some_and(|text| {
                    !text.starts_with('-') && text_pairs::argument(&texts[..index], text).is_some()
                });
                let is_secret = is_secret || is_argument || is_secret_element(nodes, index, in_pairs);
                note(node, is_secret, are_pairs(nodes), cleaner);
            }
        }
        Node::Text { text, .. } if is_secret => cleaner.note(text),
        Node::Text { text, .. } => {
            if let Some(node) = within(text) {
                note_secrets(&node, cleaner);
            }
        }
        _ => {}
    }
}

/// The texts of a list that may be the arguments of a command; empty for another list.
fn arguments(nodes: &[Node]) -> Vec<&str> {
    let texts: Vec<&str> = nodes.iter().take(MOST_ARGUMENTS + 1).map_while(Node::text).collect();
    let is_command = texts.len() == nodes.len() && texts.iter().any(|text| text.starts_with('-'));
    if is_command { texts } else { Vec::new() }
}

/// What a text in JSON holds.
fn within(text: &str) -> Option<Node> {
    text.trim_start().starts_with(['{', '[']).then(|| Node::parse(text).ok())?
}

/// Whether a text looks like a secret, or has one in it, whatever its name is.
pub(in crate::vendors::declared) fn is_secret_text(text: &str) -> bool {
    let of_scheme = ["Bearer ", "Basic "].iter().find_map(|scheme| text.strip_prefix(scheme));
    of_scheme.is_some_and(|credentials| !credentials.contains(' '))
        || Cleaner::new(&[]).text(text).contains(REDACTED) && !text.contains(REDACTED)
}

/// A body in JSON without secrets, and the paths of what was replaced. Texts that the cleaner
/// keeps stay, as does the place of everything.
pub(super) fn redacted(body: &str, node: &Node, cleaner: &Cleaner) -> (String, Vec<String>) {
    let mut walk = Walk { rest: body, out: String::with_capacity(body.len()), paths: Vec::new(), cleaner };
    walk.value(&At { node, name: "", path: "body".to_owned(), is_secret: false, in_pairs: false });
    walk.out += walk.rest;
    (walk.out, walk.paths)
}

/// Copies JSON token by token.
struct Walk<'b, 'c> {
    rest: &'b str,
    out: String,
    /// Where something was replaced, each once.
    paths: Vec<String>,
    cleaner: &'c Cleaner,
}

/// A value of the body.
struct At<'n> {
    node: &'n Node,
    /// What says what it is: its own name, or the one that stands beside it.
    name: &'n str,
    path: String,
    is_secret: bool,
    in_pairs: bool,
}

impl<'b> Walk<'b, '_> {
    /// Copies white space, and gives the next character.
    fn next(&mut self) -> Option<char> {
        let rest = self.rest.trim_start();
        self.out += &self.rest[..self.rest.len() - rest.len()];
        self.rest = rest;
        rest.chars().next()
    }

    /// Takes a part of the text without copying it.
    fn take(&mut self, length: usize) -> &'b str {
        let (token, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.rest = rest;
        token
    }

    /// A text with its quotes.
    fn quoted(&mut self) -> &'b str {
        let mut is_escaped = false;
        let end = self.rest.char_indices().skip(1).find(|(_, c)| {
            let is_end = *c == '"' && !is_escaped;
            is_escaped = *c == '\\' && !is_escaped;
            is_end
        });
        self.take(end.map_or(self.rest.len(), |(at, _)| at + 1))
    }

    fn value(&mut self, at: &At<'_>) {
        match (self.next(), at.node) {
            (Some('{'), Node::Object(members)) => self.members(at, members),
            (Some('['), Node::List(nodes)) => self.elements(at, nodes),
            (Some('"'), _) => {
                let shown = self.text(at);
                self.out += &shown;
            }
            _ => {
                let end = self.rest.find(|c: char| c.is_whitespace() || matches!(c, ',' | ']' | '}'));
                let token = self.take(end.unwrap_or(self.rest.len()));
                let digits = token.bytes().filter(u8::is_ascii_digit).count();
                if at.is_secret && digits >= LEAST_DIGITS && !self.cleaner.keeps(token) {
                    self.note(&at.path);
                    self.out.push('0');
                } else {
                    self.out += token;
                }
            }
        }
    }

    fn members(&mut self, at: &At<'_>, members: &[(String, Node)]) {
        let pairs = Pairs::of(members);
        self.copy(1);
        for (name, node) in members {
            self.separator();
            let written = self.quoted();
            let shown = self.cleaner.name(name);
            let path = member(&at.path, &shown).unwrap_or_else(|| format!("{}[{shown:?}]", at.path));
            if shown == *name {
                self.out += written;
            } else {
                self.out += &serde_json::Value::from(shown.as_str()).to_string();
                self.note(&path);
            }
            self.next();
            self.copy(1);
            let is_secret = at.is_secret || pairs.is_secret(name, node);
            self.value(&At { node, name: pairs.name_of(name), path, is_secret, in_pairs: false });
        }
        self.next();
        self.copy(1);
    }

    fn elements(&mut self, at: &At<'_>, nodes: &[Node]) {
        let texts = arguments(nodes);
        let in_pairs = are_pairs(nodes);
        self.copy(1);
        for (index, node) in nodes.iter().enumerate() {
            self.separator();
            let path = format!("{}[{index}]", at.path);
            let argument = texts.get(index).filter(|text| !self.cleaner.keeps(text));
            if let Some(shown) = argument.and_then(|text| text_pairs::argument(&texts[..index], text)) {
                self.quoted();
                self.out += &serde_json::Value::from(shown).to_string();
                self.note(&path);
                continue;
            }
            let is_secret = at.is_secret || is_secret_element(nodes, index, at.in_pairs);
            self.value(&At { node, name: at.name, path, is_secret, in_pairs });
        }
        self.next();
        self.copy(1);
    }

    /// Copies the comma between two values.
    fn separator(&mut self) {
        if self.next() == Some(',') {
            self.copy(1);
            self.next();
        }
    }

    /// Takes a text, and gives what is written in its place.
    fn text(&mut self, at: &At<'_>) -> String {
        let written = self.quoted();
        // What is no Unicode can't be looked at.
        let Ok(text) = serde_json::from_str::<String>(written) else {
            self.note(&at.path);
            return format!("\"{REDACTED}\"");
        };
        let is_flag = || ["true", "false", "yes", "no"].contains(&&*text.to_lowercase());
        let shown = match &*text {
            "" => String::new(),
            kept if self.cleaner.keeps(kept) => text.clone(),
            _ if at.is_secret && !is_flag() => REDACTED.to_owned(),
            _ => match within(&text) {
                Some(node) => redacted(&text, &node, self.cleaner).0,
                None => self.cleaner.value(at.name, &text),
            },
        };
        if shown == text {
            return written.to_owned();
        }
        self.note(&at.path);
        serde_json::Value::from(shown).to_string()
    }

    fn copy(&mut self, length: usize) {
        let token = self.take(length);
        self.out += token;
    }

    fn note(&mut self, path: &str) {
        if self.paths.last().is_none_or(|last| last != path) {
            self.paths.push(path.to_owned());
        }
    }
}

#[cfg(test)]
mod tests;
