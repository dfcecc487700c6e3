//! Plain paths to texts that hold something else: JSON, or bytes.
//!
//! They are written like the filters of expressions: `body.data_str | json`, and
//! `(body.data_str | json).job` for what stands in the JSON. Unlike an expression, such a
//! path keeps every byte: the text is unescaped once, and paths lead on over what it holds.

use std::borrow::Cow;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;

use super::{
    definition::plain_path,
    path::{Path, Root},
    reader::{Log, Node},
};
use crate::vendors::json::{self, Object, Value};

/// Where a job stands, or where the jobs of a batch do.
#[derive(Debug)]
pub(super) struct Place {
    /// The text that holds it in JSON, where it is in one.
    text: Option<Path>,
    /// From the body on, or from what the text holds.
    path: Path,
}

impl Place {
    /// The whole body.
    pub(super) fn whole() -> Self {
        Self { text: None, path: Path::root(Root::Body) }
    }

    pub(super) fn read(node: &Node<'_>, log: &Log<'_>) -> Option<Self> {
        let written = node.text(log)?;
        if !written.contains('|') {
            return plain_path(node, Root::Body, log).map(|path| Self { text: None, path });
        }
        match filtered(written, Root::Body) {
            Some((text, "json", rest)) => {
                Path::parse(&format!("body{rest}")).map(|path| Self { text: Some(text), path })
            }
            _ => None,
        }
        .or_else(|| {
            node.problem(
                log,
                "is neither a plain path from body nor one to a text that holds JSON; write one such as \
                 \"body.data | json\" or \"(body.data | json).job\"",
            )
        })
    }

    /// The path to the text that holds the value in JSON, where it is in one.
    pub(super) fn text(&self) -> Option<&Path> {
        self.text.as_ref()
    }

    /// The path from the body on, or from what the text holds.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// The JSON that a value holds: a text once it is unescaped, an object or a list as it is.
/// `None` for any other value.
pub(super) fn held(body: &Bytes, value: Value<'_>) -> Option<Bytes> {
    match value.get().as_bytes().first()? {
        b'"' => json::text(value).map(Bytes::from),
        b'{' | b'[' => Some(json::part(body, value)),
        _ => None,
    }
}

/// What stands below the JSON of a text. A name that stands twice on the way says nothing.
pub(super) fn below<'a>(path: &Path, value: Value<'a>) -> Option<Value<'a>> {
    if path.is_root() {
        return Some(value);
    }
    match Object::of(value) {
        Some(object) => path.find_unambiguous(&object.unambiguous()?),
        None => path.find(value),
    }
}

/// What the characters of a text stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// JSON, handed on as it is.
    Json,
    /// Bytes, each as the character with its number.
    Latin1,
    /// Bytes in base64.
    Base64,
}

const WRITTEN: [(&str, Written); 3] =
    [("json", Written::Json), ("latin1", Written::Latin1), ("base64", Written::Base64)];

/// A member of the job, and how it is written where that is in a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) path: Path,
    pub(super) written: Option<Written>,
}

impl Content {
    pub(super) fn read(node: &Node<'_>, log: &Log<'_>) -> Option<Self> {
        let text = node.text(log)?;
        if !text.contains('|') {
            return plain_path(node, Root::Job, log).map(|path| Self { path, written: None });
        }
        let parsed = filtered(text, Root::Job).filter(|(.., rest)| rest.is_empty());
        let known = parsed.and_then(|(path, filter, _)| {
            let (_, written) = WRITTEN.iter().find(|(name, _)| *name == filter)?;
            Some(Self { path, written: Some(*written) })
        });
        known.or_else(|| {
            node.problem(
                log,
                "is neither a plain path from job nor one with json, latin1 or base64 behind it; write one \
                 such as \"job.data | base64\"",
            )
        })
    }
}

impl Content {
    /// Whether it is bytes and no text.
    pub(super) fn holds_bytes(&self) -> bool {
        matches!(self.written, Some(Written::Latin1 | Written::Base64))
    }
}

impl Written {
    /// As definitions write it.
    pub(super) fn name(self) -> &'static str {
        WRITTEN.iter().find(|(_, written)| *written == self).map_or("", |(name, _)| name)
    }

    /// What a text holds; `None` for any other value, and for a text that is not written so.
    pub(super) fn decoded(self, value: Value<'_>) -> Option<Bytes> {
        let text = json::unescaped(value)?;
        match self {
            Self::Json => Some(owned(text)),
            Self::Latin1 => {
                let bytes = text.chars().map(|c| u8::try_from(u32::from(c)).ok());
                bytes.collect::<Option<Vec<u8>>>().map(Bytes::from)
            }
            Self::Base64 => BASE64_STANDARD.decode(text.trim()).ok().map(Bytes::from),
        }
    }
}

fn owned(text: Cow<'_, str>) -> Bytes {
    text.into_owned().into()
}

/// `path | filter`, also in parentheses, with what stands behind these.
fn filtered(text: &str, root: Root) -> Option<(Path, &str, &str)> {
    let text = text.trim();
    let (inner, rest) = match text.strip_prefix('(') {
        // A parenthesis in a name would be one of the path before the filter.
        Some(after) => {
            let (_, from_filter) = after.rsplit_once('|')?;
            let end = after.len() - from_filter.len() + from_filter.find(')')?;
            (&after[..end], after[end + 1..].trim())
        }
        None => (text, ""),
    };
    let (path, filter) = inner.rsplit_once('|')?;
    let path = Path::parse(path).filter(|path| path.root == root)?;
    Some((path, filter.trim(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Option<(Path, &str, &str)> {
        filtered(text, Root::Body)
    }

    #[test]
    fn path_filter_and_rest_are_told_apart() {
        let path = |text: &str| Path::parse(text).unwrap();
        for (text, expected) in [
            ("body.a | json", Some((path("body.a"), "json", ""))),
            (" body|json ", Some((path("body"), "json", ""))),
            ("(body.a | json).b[0]", Some((path("body.a"), "json", ".b[0]"))),
            ("( body['a|)'] | json )['c']", Some((path("body['a|)']"), "json", "['c']"))),
            ("body.a | base64", Some((path("body.a"), "base64", ""))),
            ("job.a | json", None),
            ("body.a or body.b | json", None),
            ("(body.a) | json", None),
            ("(body.a | json", None),
            ("body.a", None),
        ] {
            assert_eq!(parts(text), expected, "{text}");
        }
    }

    #[test]
    fn text_is_decoded_once_and_exactly() {
        let decoded = |written: Written, json: &str| written.decoded(Value::new(json));
        for (written, json, expected) in [
            (Written::Json, r#""{\"a\": 1.10}""#, Some(&br#"{"a": 1.10}"#[..])),
            (Written::Json, r#""{\"a\":\"\\u00e4\"}""#, Some(br#"{"a":"\u00e4"}"#)),
            (Written::Json, "{}", None),
            (Written::Json, r#""\ud800""#, None),
            (Written::Latin1, r#""\u0000\u00ffa""#, Some(b"\0\xffa")),
            (Written::Latin1, r#""\u0100""#, None),
            (Written::Base64, r#"" AP9h\n""#, Some(b"\0\xffa")),
            (Written::Base64, r#""AP9""#, None),
            (Written::Base64, "7", None),
        ] {
            assert_eq!(decoded(written, json).as_deref(), expected, "{json}");
        }
    }
}
