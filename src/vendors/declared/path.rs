//! Plain paths into JSON, such as `job.tasks[0].run_id` or `job['a-b']`.
//!
//! A path is followed over the bytes of the response, so what it finds keeps every byte:
//! numbers of any size, repeated names, white space.

use crate::vendors::json::{self, Object, Value};

/// Where a path begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Root {
    /// The job's own part of the response.
    Job,
    /// The whole response.
    Body,
    /// An element of `each`.
    Item,
}

/// A path without anything to evaluate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) root: Root,
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Name(String),
    Index(usize),
}

/// A dotted name with its root, whatever the root is. `None` for what has to be evaluated.
pub(super) fn split(text: &str) -> Option<(&str, Vec<Step>)> {
    let text = text.trim();
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let end = text.find(|c| !is_name(c)).unwrap_or(text.len());
    let (root, mut rest) = text.split_at(end);
    if !root.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        return None;
    }
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(|c| !is_name(c)).unwrap_or(after.len());
            let (name, after) = after.split_at(end);
            // A number here is no name in an expression either.
            if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
                return None;
            }
            steps.push(Step::Name(name.to_owned()));
            rest = after;
        } else {
            let after = rest.strip_prefix('[')?;
            let quote = after.chars().next().filter(|c| matches!(c, '\'' | '"'));
            let (step, after) = if let Some(quote) = quote {
                let (name, after) = after[1..].split_once(quote)?;
                if name.contains('\\') {
                    return None;
                }
                (Step::Name(name.to_owned()), after.strip_prefix(']')?)
            } else {
                let (index, after) = after.split_once(']')?;
                (Step::Index(index.parse().ok()?), after)
            };
            steps.push(step);
            rest = after;
        }
    }
    Some((root, steps))
}

impl Path {
    /// `None` for what has to be evaluated, and for another root.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (root, steps) = split(text)?;
        Self::new(root, steps)
    }

    /// The root itself.
    pub(super) fn root(root: Root) -> Self {
        Self { root, steps: Vec::new() }
    }

    /// `None` for another root.
    pub(super) fn new(root: &str, steps: Vec<Step>) -> Option<Self> {
        let root = match root {
            "job" => Root::Job,
            "body" => Root::Body,
            "item" => Root::Item,
            _ => return None,
        };
        Some(Self { root, steps })
    }

    /// What stands there; null counts as absent.
    pub(super) fn find<'a>(&self, value: Value<'a>) -> Option<Value<'a>> {
        follow(&self.steps, value)
    }

    /// The same within an object that was read already.
    pub(super) fn find_in<'a>(&self, object: &Object<'a>) -> Option<Value<'a>> {
        let (Step::Name(first), rest) = self.steps.split_first()? else { return None };
        follow(rest, object.get(first)?)
    }

    /// Like [`find_in`](Self::find_in), where no object on the way may have a name twice.
    pub(super) fn find_unambiguous<'a>(&self, object: &Object<'a>) -> Option<Value<'a>> {
        let (Step::Name(first), rest) = self.steps.split_first()? else { return None };
        let mut value = object.get(first)?;
        for step in rest {
            value = match step {
                Step::Name(name) => Object::of(value)?.unambiguous()?.get(name)?,
                Step::Index(index) => *json::list(value)?.get(*index)?,
            };
        }
        (!json::is_null(value)).then_some(value)
    }

    /// The member of the root that it begins with.
    pub(super) fn first_name(&self) -> Option<&str> {
        match self.steps.first()? {
            Step::Name(name) => Some(name),
            Step::Index(_) => None,
        }
    }

    /// Its first steps.
    pub(super) fn upto(&self, count: usize) -> Self {
        Self { root: self.root, steps: self.steps.iter().take(count).cloned().collect() }
    }

    /// The members on the way.
    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Whether it is the root itself.
    pub(super) fn is_root(&self) -> bool {
        self.steps.is_empty()
    }
}

fn follow<'a>(steps: &[Step], value: Value<'a>) -> Option<Value<'a>> {
    let mut value = value;
    for step in steps {
        value = match step {
            Step::Name(name) => json::member(value, name)?.value?,
            Step::Index(index) => *json::list(value)?.get(*index)?,
        };
    }
    (!json::is_null(value)).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(path: &str, json: &'static str) -> Option<&'static str> {
        let path = Path::parse(path).unwrap_or_else(|| panic!("{path} is no plain path"));
        path.find(Value::parse(json.as_bytes())?).map(Value::get)
    }

    #[test]
    fn what_a_path_finds_keeps_every_byte() {
        const JOB: &str = r#"{"a": {"b-c": [1, 9007199254740993, {"d" :  1.10 }]}, "n": null, "a'": 1}"#;
        for (path, found) in [
            ("job.a['b-c'][1]", Some("9007199254740993")),
            (r#"job.a["b-c"][2]"#, Some(r#"{"d" :  1.10 }"#)),
            (" job.a['b-c'][2].d ", Some("1.10")),
            ("job.n", None),
            ("job.a.x.y", None),
            ("job.a['b-c'][3]", None),
            ("job.a[0]", None),
            ("job", Some(JOB)),
        ] {
            assert_eq!(find(path, JOB), found, "{path}");
        }
    }

    #[test]
    fn what_has_to_be_evaluated_is_no_path() {
        for text in [
            "job.a or job.b",
            "job.a | int",
            "job.0",
            "job.",
            "job[x]",
            "job['a\\'b']",
            "'job'",
            "1",
            "",
            "hob.a",
        ] {
            assert_eq!(Path::parse(text), None, "{text}");
        }
    }

    #[test]
    fn path_into_deeply_nested_json_ends() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(Path::parse("job[0][0].a").unwrap().find(Value::parse(deep.as_bytes()).unwrap()), None);
    }
}
