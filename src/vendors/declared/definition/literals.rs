//! Texts that can't be meant: what is still to be filled in, and secrets.

use std::ops::Range;

use super::request::OWN_HEADERS;
use crate::vendors::declared::{
    draft::redact::{is_secret_name, is_secret_text},
    reader::{Log, Node, Section},
};

/// What `jobwatch vendor new` leaves where the vendor's page has to be read.
const MARKS: [&str; 3] = ["fill in:", "//fill-in.", "/fill-in/"];

/// Tables whose values are sent.
const SENT: [&str; 5] = ["headers", "query", "form", "json", "variables"];

/// Last words of names that are about a secret, such as `tokenType`.
const ABOUT: [&str; 14] = [
    "type",
    "format",
    "count",
    "limit",
    "method",
    "mode",
    "version",
    "ttl",
    "policy",
    "required",
    "algorithm",
    "alg",
    "scheme",
    "encoding",
];

/// Fewest characters of a secret that only its name and the mixture of its characters show.
const SHORTEST: usize = 8;

/// A longer part of a text may be a checksum, which looks like a secret without a form.
const LONGEST_BEGINNING: usize = 39;

/// Reports every such text of a definition.
pub(super) fn check(top: &Section<'_>, log: &Log<'_>) {
    for (name, span, node) in top.entries() {
        visit(name, span, &node, Place::default(), log);
    }
}

/// Whether a text is still to be filled in, and with what.
pub(in crate::vendors::declared) fn to_fill_in(text: &str) -> Option<&str> {
    let at = MARKS.iter().filter_map(|mark| text.find(mark)).min()?;
    Some(&text[at..])
}

/// What the tables around a value say of it.
#[derive(Clone, Copy, Default)]
struct Place {
    is_sent: bool,
    /// One of them has the name of a secret.
    is_secret: bool,
}

fn visit(name: &str, span: Range<usize>, node: &Node<'_>, place: Place, log: &Log<'_>) {
    if to_fill_in(name).is_some() {
        log.add(span, &node.path, "is still to be filled in");
    }
    // A way to sign in may be called query.
    let is_way = || node.path.strip_prefix("credentials.").is_some_and(|way| !way.contains('.'));
    let place = Place {
        is_sent: place.is_sent || node.is_table() && SENT.contains(&name) && !is_way(),
        is_secret: place.is_sent && (place.is_secret || is_name(name)),
    };
    if node.is_table() {
        for (name, span, node) in node.section(log).map(|section| section.entries()).unwrap_or_default() {
            visit(name, span, &node, place, log);
        }
    } else if node.is_array() {
        node.list().iter().for_each(|node| visit(name, node.span.clone(), node, place, log));
    } else if let Some(text) = node.as_text() {
        if let Some(what) = to_fill_in(text) {
            node.report(log, format!("is still to be filled in: {what:?}"));
        // As a header it is refused already.
        } else if place.is_sent
            && !(node.path.contains("headers.") && OWN_HEADERS.contains(&&*name.to_lowercase()))
            && is_secret(text, place.is_secret)
        {
            let text = "looks like a secret, which others read in a definition; declare a way to sign in under \
                        [credentials], and give the secret in the backend, or write {{ '..' }} for a text that is none";
            node.report(log, text);
        }
    }
}

/// Whether the value of a name is a secret if it looks random.
fn is_name(name: &str) -> bool {
    let last = name.rsplit(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
    // The last word in camel case.
    let word = last.rfind(|c: char| c.is_ascii_uppercase()).map_or(last, |at| &last[at..]);
    let is_about = |word: &str| ABOUT.contains(&&*word.to_lowercase());
    is_secret_name(name) && !is_about(last) && !is_about(word)
}

fn is_secret(text: &str, has_name: bool) -> bool {
    !text.contains("{{") && (has_form(text) || has_name && (has_scheme(text) || looks_random(text)))
}

/// Whether a part of the text is known as a secret by its beginning, or it is a key in PEM.
fn has_form(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '+');
    let has_form = |part: &str| {
        let beginning = &part[..part.len().min(LONGEST_BEGINNING)];
        // Names such as sk-learn-model begin so, too.
        part.contains(|c: char| c.is_ascii_digit()) && is_secret_text(beginning)
    };
    text.contains("-----BEGIN ") || text.split(|c| !is_part(c)).any(has_form)
}

/// Whether credentials follow a scheme.
fn has_scheme(text: &str) -> bool {
    let of_scheme =
        ["Bearer ", "Basic ", "Token ", "ApiKey "].iter().find_map(|scheme| text.strip_prefix(scheme));
    of_scheme.is_some_and(|credentials| !credentials.is_empty() && !credentials.contains(' '))
}

/// Whether a text has letters and digits in a mixture that no words have, with or without
/// separators between them. Words such as `SHA256` and `base64url` have a number in one place.
fn looks_random(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "!^*~$".contains(c);
    let is_mixed = |word: &str| {
        let changes = word.as_bytes().windows(2);
        let changes = changes.filter(|pair| pair[0].is_ascii_digit() != pair[1].is_ascii_digit()).count();
        let is_long_hex = word.len() >= 12 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        changes >= 3 || is_long_hex && changes > 0
    };
    text.len() >= SHORTEST
        && !text.contains(char::is_whitespace)
        && (uuid::Uuid::try_parse(text).is_ok() || text.split(|c| !is_word(c)).any(is_mixed))
}
