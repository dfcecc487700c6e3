//! An answer as a tree whose values keep their text and their place.

use std::ops::Range;

use crate::vendors::json::{self, Object, Value};

/// Deepest nesting that is looked at.
const DEEPEST: usize = 64;

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Null,
    Flag(bool),
    /// As it is written.
    Number(String),
    Text {
        text: String,
        /// With its quotes.
        span: Range<usize>,
    },
    List(Vec<Node>),
    /// In document order.
    Object(Vec<(String, Node)>),
}

impl Node {
    /// Reads a text that is JSON.
    ///
    /// # Errors
    /// It is nested too deeply.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let value = Value::parse(text.as_bytes()).ok_or("is not JSON")?;
        Self::read(value, text, 0).ok_or_else(|| format!("is nested more than {DEEPEST} levels deep"))
    }

    fn read(value: Value<'_>, whole: &str, depth: usize) -> Option<Self> {
        if depth > DEEPEST {
            return None;
        }
        let raw = value.get().trim();
        Some(match raw.as_bytes().first() {
            Some(b'{') => {
                let object = Object::of(value)?;
                let member =
                    |(name, value): (&str, _)| Some((name.to_owned(), Self::read(value, whole, depth + 1)?));
                Self::Object(object.members().map(member).collect::<Option<_>>()?)
            }
            Some(b'[') => {
                let values = json::list(value)?.into_iter();
                Self::List(values.map(|value| Self::read(value, whole, depth + 1)).collect::<Option<_>>()?)
            }
            Some(b'"') => {
                // It is a part of the whole, uncopied.
                let start = (raw.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
                let text = json::text(value).unwrap_or_default();
                Self::Text { text, span: start..start + raw.len() }
            }
            Some(b't' | b'f') => Self::Flag(raw == "true"),
            Some(b'n') | None => Self::Null,
            _ => Self::Number(raw.to_owned()),
        })
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text { text, .. } => Some(text),
            _ => None,
        }
    }

    /// A text or a number, as ids are written.
    pub(super) fn plain(&self) -> Option<&str> {
        match self {
            Self::Text { text, .. } => Some(text),
            Self::Number(number) => Some(number),
            _ => None,
        }
    }

    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => number.parse().ok(),
            _ => None,
        }
    }

    /// Of a repeated name the last member counts.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        self.members().iter().rev().find(|(own, _)| own == name).map(|(_, node)| node)
    }

    pub(super) fn members(&self) -> &[(String, Self)] {
        match self {
            Self::Object(members) => members,
            _ => &[],
        }
    }

    pub(super) fn is_object(&self) -> bool {
        matches!(self, Self::Object(_))
    }
}

/// A member of a job's object, or of an object within it.
#[derive(Clone, Debug)]
pub(super) struct Leaf<'n> {
    /// Such as `job.state.result_state`.
    pub(super) path: String,
    /// In snake case.
    pub(super) name: String,
    /// The names of the objects that it stands in, in snake case, below the job.
    pub(super) parents: Vec<String>,
    /// The path of the object that it stands in.
    pub(super) object: String,
    pub(super) node: &'n Node,
}

/// Every member within a few levels, the outer ones first. Members of lists are left out.
pub(super) fn leaves<'n>(root: &str, node: &'n Node) -> Vec<Leaf<'n>> {
    const LEVELS: usize = 4;
    let mut found = Vec::new();
    let mut level = vec![(root.to_owned(), Vec::<String>::new(), node)];
    for _ in 0..LEVELS {
        let mut next = Vec::new();
        for (object, parents, node) in level {
            for (name, node) in node.members() {
                let Some(path) = member(&object, name) else { continue };
                let snake = snake_case(name);
                if node.is_object() {
                    let within = parents.iter().cloned().chain([snake.clone()]).collect();
                    next.push((path.clone(), within, node));
                }
                let leaf = Leaf { path, name: snake, parents: parents.clone(), object: object.clone(), node };
                found.push(leaf);
            }
        }
        level = next;
    }
    found
}

/// The path of a member; `None` for a name that no path can have.
pub(super) fn member(object: &str, name: &str) -> Option<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if begins && name.chars().all(is_word) {
        return Some(format!("{object}.{name}"));
    }
    let is_quotable = !name.contains(['\'', '"', '\\', '{', '}', ']']) && !name.contains(char::is_control);
    is_quotable.then(|| format!("{object}['{name}']"))
}

/// `createdAt`, `created-at` and `CreatedAt` are `created_at`.
pub(super) fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    let mut before = ' ';
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            if before.is_ascii_lowercase() || before.is_ascii_digit() {
                snake.push('_');
            }
            snake.push(c.to_ascii_lowercase());
        } else if c.is_alphanumeric() {
            snake.push(c);
        } else if !snake.is_empty() && !snake.ends_with('_') {
            snake.push('_');
        }
        before = c;
    }
    snake.trim_end_matches('_').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_style_are_one() {
        for name in ["createdAt", "created-at", "CreatedAt", "created_at", "_created_at", "created at"] {
            assert_eq!(snake_case(name), "created_at", "{name}");
        }
        assert_eq!(snake_case("jobID"), "job_id");
        assert_eq!(snake_case("@odata.type"), "odata_type");
    }

    #[test]
    fn values_keep_their_text_and_place() {
        let text = r#" {"a": 12345678901234567890, "b": {"c-d": "x\n"}, "e": [null, true]}"#;
        let node = Node::parse(text).unwrap();
        assert_eq!(node.get("a"), Some(&Node::Number("12345678901234567890".to_owned())));
        let leaves = leaves("job", &node);
        let paths: Vec<&str> = leaves.iter().map(|leaf| &*leaf.path).collect();
        assert_eq!(paths, ["job.a", "job.b", "job.e", "job.b['c-d']"]);
        let Node::Text { text: value, span } = leaves[3].node else { panic!() };
        assert_eq!((&**value, &text[span.clone()]), ("x\n", r#""x\n""#));
        let deep = format!("{}1{}", "[".repeat(70), "]".repeat(70));
        assert!(Node::parse(&deep).unwrap_err().contains("nested more than 64 levels"));
        assert_eq!(member("job", "a'b"), None);
    }
}
