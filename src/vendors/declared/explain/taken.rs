//! What the gateway takes of a value, or why it takes nothing. A value that is not taken is
//! described by its type, and never shown.

use minijinja::value::ValueKind;

use crate::vendors::{
    declared::{
        place::Written,
        read::{identifier, is_bare, lines, text_alone, wrapped},
        source::Found,
        time::TimeRule,
    },
    json,
};

/// Most characters of a form.
const LONGEST_FORM: usize = 40;

/// What a rule reads a value as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A text, or a number or flag as it is written.
    Text,
    /// A part of the id, or the owner: a text or an integer.
    Name,
    /// A part of the word, and whether the table has numbers and flags there.
    Word {
        takes_bare: bool,
    },
    Percent,
    WholeNumber,
    /// A text and nothing else.
    OnlyText,
    /// The same, which has to have words.
    Words,
    /// The same, also within an object.
    WrappedWords,
    /// A text, or a list of them.
    Lines,
}

/// What is taken, in JSON.
///
/// # Errors
/// Why nothing is.
pub(super) fn taken(kind: Kind, found: &Found<'_>) -> Result<String, String> {
    let other = |expected: &str| Err(format!("{}; {expected} is expected", type_of(found)));
    let text =
        |text: Option<String>, expected| text.map_or_else(|| other(expected), |text| Ok(quoted(&text)));
    let words = |words: Option<String>, expected| match words {
        Some(words) if words.trim().is_empty() => Err("an empty text".to_owned()),
        words => text(words, expected),
    };
    match kind {
        Kind::Name => text(identifier(found), "a text or a whole number"),
        Kind::Word { takes_bare: false } if is_bare(found) => {
            Err(format!("{}; a text is expected, or a word in [states] that is one", type_of(found)))
        }
        Kind::Text | Kind::Word { .. } => text(found.text(), "a text"),
        Kind::Percent => match found.number() {
            Some(percent) if (0.0..=100.0).contains(&percent) => Ok(percent.to_string()),
            Some(_) => Err("a number that does not lie within 0 to 100".to_owned()),
            None => other("a number from 0 to 100"),
        },
        Kind::WholeNumber => match found.integer() {
            Some(integer) => Ok(integer.to_string()),
            None => other("a whole number"),
        },
        Kind::OnlyText => text(text_alone(found), "a text"),
        Kind::Words => words(text_alone(found), "a text"),
        Kind::WrappedWords => words(wrapped(found), "a text, or an object with a message"),
        Kind::Lines => match lines(found) {
            lines if !lines.is_empty() => Ok(serde_json::to_string(&lines).unwrap_or_default()),
            _ if found.text().is_some_and(|text| text.trim().is_empty()) => Err("an empty text".to_owned()),
            _ => other("a text, or a list of texts,"),
        },
    }
}

/// A value of any type as it stands.
pub(super) fn whole(found: &Found<'_>) -> String {
    found.json().unwrap_or_default().into_owned()
}

/// Why a value holds nothing that is written in this way.
pub(in crate::vendors::declared) fn no_content(written: Written, found: &Found<'_>) -> String {
    let Some(text) = text_alone(found) else {
        let kind = type_of(found);
        let is_text = kind.starts_with("a text");
        return if is_text { kind.to_owned() } else { format!("{kind}; a text is expected") };
    };
    let held = match found {
        Found::Json(value) => written.decoded(*value),
        _ => None,
    };
    match (written, held) {
        _ if text.trim().is_empty() => "an empty text".to_owned(),
        (Written::Json, _) => "a text that is no JSON".to_owned(),
        (Written::Latin1, None) => "a text with characters that latin1 does not have".to_owned(),
        (Written::Base64, None) => "a text that is no base64".to_owned(),
        (_, Some(_)) => "a text that holds bytes, which are no UTF-8".to_owned(),
    }
}

/// Why a value that is there is no time.
pub(super) fn no_time(rule: &TimeRule, found: &Found<'_>) -> String {
    let Some(text) = found.text() else { return format!("{}; a time is expected", type_of(found)) };
    if rule.is_unset(text.trim()) {
        return "a value that means none, by unset or since it is empty".to_owned();
    }
    format!("{} of the form {:?}, which is no time; see unit, zone and format", type_of(found), form(&text))
}

/// A text with other digits and letters.
fn form(text: &str) -> String {
    let mask = |c: char| match c {
        c if c.is_numeric() => '9',
        c if c.is_ascii_punctuation() || c == ' ' => c,
        _ => 'a',
    };
    text.trim().chars().take(LONGEST_FORM).map(mask).collect()
}

/// The type of a value with its article.
pub(in crate::vendors::declared) fn type_of(found: &Found<'_>) -> &'static str {
    match found {
        Found::Text(_) => "a text",
        Found::Json(value) => match value.get().as_bytes().first() {
            Some(b'{') => "an object",
            Some(b'[') => "a list",
            Some(b'"') if json::text(*value).is_none() => "a text that is no Unicode",
            Some(b'"') => "a text",
            Some(b't' | b'f') => "true or false",
            Some(b'n') | None => "null",
            _ if json::identifier(*value).is_some() => "a number",
            _ => "a number with a fraction or an exponent",
        },
        Found::Value(value) => match value.kind() {
            ValueKind::String => "a text",
            ValueKind::Bool => "true or false",
            ValueKind::Number => "a number",
            ValueKind::Seq | ValueKind::Iterable => "a list",
            ValueKind::Map => "an object",
            ValueKind::None => "null",
            _ => "another value",
        },
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
