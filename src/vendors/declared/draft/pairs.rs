//! Names of secrets that stand beside the value and not before it: `{"name": "Authorization",
//! "value": ".."}` and `["Authorization", ".."]`.

use super::{
    readable::is_words,
    secret_names::{is_name_of_secret, is_secret_member, is_secret_name, words_of},
    tree::Node,
};

/// Last words of names of members that name what stands beside them.
const NAMES: [&str; 20] = [
    "name",
    "key",
    "k",
    "n",
    "header",
    "variable",
    "var",
    "env",
    "param",
    "parameter",
    "field",
    "property",
    "option",
    "attribute",
    "argument",
    "setting",
    "label",
    "id",
    "type",
    "kind",
];

/// Last words of names of members with what they name.
const VALUES: [&str; 4] = ["value", "values", "val", "v"];

/// The same for texts alone, since objects of these names are other things as well.
const TEXTS: [&str; 8] = ["data", "content", "contents", "text", "string", "default", "plaintext", "literal"];

/// Flags that say that a value is a secret.
const FLAGS: [&str; 10] = [
    "sensitive",
    "is_sensitive",
    "secret",
    "is_secret",
    "secure",
    "secured",
    "is_secure",
    "masked",
    "is_masked",
    "confidential",
];

/// Types that say so.
const TYPES: [&str; 7] =
    ["secret", "secure_string", "securestring", "secure", "sensitive", "password", "secret_text"];

/// What the members of an object say of each other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pairs<'n> {
    /// The name of a secret, or the first name.
    named: Option<&'n str>,
    is_secret: bool,
}

impl<'n> Pairs<'n> {
    pub(super) fn of(members: &'n [(String, Node)]) -> Self {
        let names = || {
            let texts = members.iter().filter_map(|(name, node)| Some((name, node.text()?)));
            texts.filter(|(name, _)| NAMES.contains(&last_word(name).as_str())).map(|(_, text)| text)
        };
        let secret = names().find(|text| is_name_of_secret(text));
        let is_marked = members.iter().any(|(name, node)| {
            let name = words_of(name);
            match node {
                Node::Flag(true) => FLAGS.contains(&&*name),
                Node::Text { text, .. } => {
                    matches!(&*name, "type" | "kind" | "format" | "value_type")
                        && TYPES.contains(&&*words_of(text))
                }
                _ => false,
            }
        });
        Self { named: secret.or_else(|| names().next()), is_secret: secret.is_some() || is_marked }
    }

    /// Whether a member has a secret, by its own name or by what stands beside it.
    pub(super) fn is_secret(&self, name: &str, node: &Node) -> bool {
        let is_value = || self.is_secret && is_value(name, node);
        is_secret_member(name, node.is_object()) || is_value()
    }

    /// The name that says what a member is.
    pub(super) fn name_of<'a>(&self, name: &'a str) -> &'a str
    where
        'n: 'a,
    {
        self.named.filter(|_| VALUES.contains(&last_word(name).as_str())).unwrap_or(name)
    }
}

fn is_value(name: &str, node: &Node) -> bool {
    let last = last_word(name);
    let is_text = node.text().is_some();
    VALUES.contains(&&*last) || is_text && (TEXTS.contains(&&*last) || words_of(name).starts_with("value_"))
}

fn last_word(name: &str) -> String {
    words_of(name).rsplit('_').next().unwrap_or_default().to_owned()
}

/// Whether an element of a list is a secret by the one before it: in a pair, or in a list of
/// headers with their values. A list of two texts is a pair where it stands beside others, or
/// where the second looks like a secret.
pub(super) fn is_secret_element(nodes: &[Node], index: usize, in_pairs: bool) -> bool {
    let Some(name) = index.checked_sub(1).and_then(|before| nodes[before].text()) else { return false };
    // Lists of names have no secrets.
    if index.is_multiple_of(2)
        || !nodes.len().is_multiple_of(2)
        || nodes[index].text().is_some_and(is_secret_name)
        || !is_bare(name)
        || !is_name_of_secret(name)
    {
        return false;
    }
    let Some(text) = nodes[index].text() else { return nodes.len() == 2 || is_header(name) };
    // A list of headers or of variables has names alone.
    let is_written = is_header(name) && !is_header(text) || is_variable(name) && !is_variable(text);
    match nodes.len() {
        2 => in_pairs || is_written || looks_secret(text),
        _ => is_header(name) || name.contains('-') && looks_secret(text),
    }
}

/// Whether a list has several lists of a name and what it names.
pub(super) fn are_pairs(nodes: &[Node]) -> bool {
    let is_pair = |node: &&Node| match node {
        Node::List(pair) => pair.len() == 2 && pair[0].text().is_some_and(is_bare),
        _ => false,
    };
    nodes.iter().filter(is_pair).nth(1).is_some()
}

/// Whether a text is a name alone, no sentence, option or assignment.
fn is_bare(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('-') && !name.contains(|c: char| c.is_whitespace() || c == '=')
}

/// Whether a name is written as headers are.
fn is_header(name: &str) -> bool {
    let lower = name.to_lowercase();
    ["authorization", "cookie"].contains(&&*lower)
        || name.contains('-')
            && (lower.starts_with("x-") || name.starts_with(|c: char| c.is_ascii_uppercase()))
}

/// Whether a name is written as variables of an environment are.
fn is_variable(name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    name.contains('_') && name.chars().all(is_part)
}

fn looks_secret(text: &str) -> bool {
    let has = |is: fn(char) -> bool| text.contains(is);
    let is_mixed = has(|c| c.is_ascii_digit()) && has(char::is_alphabetic);
    !has(char::is_whitespace) && (is_mixed || text.len() >= 12 && !is_words(text))
}
