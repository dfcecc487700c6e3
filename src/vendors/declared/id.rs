//! Job ids of named parts, and the parameters of a backend.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;
use uuid::Uuid;

use super::{
    expression::regex,
    reader::{Log, Node, Section},
};
use crate::{
    job::{InvalidJobRef, JobRef},
    vendors::{BaseUrl, canonical_integer, file},
};

mod words;

/// Which texts a part of an id, or a parameter, may be.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Text,
    Integer,
    /// An integer above 0.
    Positive,
    Uuid,
    /// Path and query at the backend's own origin, or the whole URL.
    Location,
    Pattern {
        regex: Regex,
        written: String,
    },
}

pub(super) const KINDS: [(&str, &str); 5] = [
    ("text", "text"),
    ("integer", "integer"),
    ("positive", "positive"),
    ("uuid", "uuid"),
    ("location", "location"),
];

impl Kind {
    fn read(node: &Node<'_>, log: &Log<'_>) -> Option<Self> {
        if node.is_table() {
            let mut section = node.section(log)?;
            let pattern = section.required(log, "regex", "a regular expression, such as regex = \"[0-9]+\"");
            section.finish(log);
            return Self::pattern(&pattern?, log);
        }
        Some(match node.word(log, &KINDS)? {
            "integer" => Self::Integer,
            "positive" => Self::Positive,
            "uuid" => Self::Uuid,
            "location" => Self::Location,
            _ => Self::Text,
        })
    }

    fn pattern(node: &Node<'_>, log: &Log<'_>) -> Option<Self> {
        let written = node.text(log)?;
        match regex(&format!("^(?:{written})$")) {
            Ok(regex) => Some(Self::Pattern { regex, written: written.to_owned() }),
            Err(reason) => node.problem(log, format!("is not a regular expression: {reason}")),
        }
    }

    /// What a text has to be, if it is not.
    fn problem(&self, text: &str) -> Option<String> {
        let is_plain = (1..=512).contains(&text.len()) && !text.contains(char::is_control);
        match self {
            _ if text.is_empty() => Some("must not be empty".to_owned()),
            _ if !is_plain && text.len() <= 512 => Some("must not have control characters".to_owned()),
            _ if !is_plain => Some("must be at most 512 bytes long".to_owned()),
            Self::Integer if canonical_integer(text).is_none() => {
                Some("must be an integer without plus sign or leading zeros, such as \"12345\"".to_owned())
            }
            Self::Positive if canonical_integer(text).is_none_or(|integer| integer < 1) => {
                Some("must be a positive integer without sign or leading zeros, such as \"12345\"".to_owned())
            }
            Self::Uuid if text.parse::<Uuid>().map(|uuid| uuid.to_string()).as_deref() != Ok(text) => Some(
                "must be a UUID in lower case, such as \"cefb58a0-cd71-11ec-8e29-81c20d280994\"".to_owned(),
            ),
            Self::Pattern { regex, written } if !regex.is_match(text) => {
                Some(match words::in_words(written) {
                    Some(words) => format!("must be {words}"),
                    None => format!("must match the pattern {written}"),
                })
            }
            Self::Text | Self::Pattern { .. } if matches!(text, "." | "..") => {
                Some("must be neither \".\" nor \"..\"".to_owned())
            }
            _ => None,
        }
    }
}

/// How job ids are written, such as `{dag_id}/{dag_run_id}`.
#[derive(Debug)]
pub(super) struct IdPattern {
    written: String,
    /// What stands before each part, and after the last.
    literals: Vec<String>,
    kinds: Vec<Kind>,
    pub(super) names: Vec<String>,
    pub(super) example: Option<String>,
}

impl IdPattern {
    pub(super) fn read(mut section: Section<'_>, log: &Log<'_>) -> Option<Self> {
        let pattern = section.required(log, "pattern", "the parts of an id, such as pattern = \"{job_id}\"");
        let example_node = section.get("example");
        let example = example_node.as_ref().and_then(|node| node.text(log)).map(str::to_owned);
        let pattern = pattern?;
        let written = pattern.text(log)?.to_owned();
        let (literals, names) = match pattern_parts(&written) {
            Ok(parts) => parts,
            Err(problem) => return pattern.problem(log, problem),
        };
        let mut kinds = vec![Kind::Text; names.len()];
        for (key, span, node) in section.entries() {
            if matches!(key, "pattern" | "example") {
                continue;
            }
            match names.iter().position(|name| name == key) {
                Some(place) => {
                    if let Some(kind) = Kind::read(&node, log) {
                        kinds[place] = kind;
                    }
                }
                None => log.add(
                    span,
                    &node.path,
                    format!("is no part of id.pattern; write one of {}", names.join(", ")),
                ),
            }
        }
        let has_regex = kinds.iter().any(|kind| matches!(kind, Kind::Pattern { .. }));
        if has_regex && example.is_none() {
            return section.problem(log, "has a part with a regex; write an example of an id, for probes");
        }
        let id = Self { written, literals, kinds, names, example: None };
        if let (Some(example), Some(node)) = (&example, example_node)
            && let Err(problem) = id.parts(example)
        {
            return node.problem(log, format!("is no such id: it {problem}"));
        }
        Some(Self { example, ..id })
    }

    /// The parts of an id.
    ///
    /// # Errors
    /// What the id must be.
    pub(super) fn parts(&self, id: &str) -> Result<Vec<String>, String> {
        let form = || format!("must be of the form {}{}", self.written, self.such_as());
        let (first, after) = self.literals.split_first().ok_or_else(form)?;
        let mut rest = id.strip_prefix(first.as_str()).ok_or_else(form)?;
        let mut parts = Vec::with_capacity(after.len());
        for (place, literal) in after.iter().enumerate() {
            let is_last = place + 1 == after.len();
            let (part, behind) = if is_last {
                (rest.strip_suffix(literal.as_str()).ok_or_else(form)?, "")
            } else {
                rest.split_once(literal.as_str()).ok_or_else(form)?
            };
            if let Some(problem) = self.kinds[place].problem(part) {
                let of =
                    if self.names.len() == 1 { String::new() } else { format!("({}) ", self.names[place]) };
                let such_as = match &self.kinds[place] {
                    Kind::Pattern { .. } if of.is_empty() => self.such_as(),
                    Kind::Pattern { .. } => self.such_as().replacen("such as", "such as in", 1),
                    _ => String::new(),
                };
                return Err(format!("{of}{problem}{such_as}"));
            }
            parts.push(part.to_owned());
            rest = behind;
        }
        Ok(parts)
    }

    fn such_as(&self) -> String {
        self.example.as_ref().map(|example| format!(", such as {example:?}")).unwrap_or_default()
    }

    /// Refuses an id that no job of this backend has.
    pub(super) fn check(&self, job: &JobRef, base_url: &BaseUrl) -> Result<(), InvalidJobRef> {
        let invalid = |reason| InvalidJobRef { field: "job_id", reason };
        let length = job.id.len();
        if !(1..=512).contains(&length) {
            let reason = if length == 0 { "must not be empty" } else { "must be at most 512 bytes long" };
            return Err(invalid(reason.to_owned()));
        }
        let parts = self.parts(&job.id).map_err(invalid)?;
        for (kind, part) in self.kinds.iter().zip(&parts) {
            if matches!(kind, Kind::Location)
                && let Err(refused) = file::locate(base_url, part)
            {
                let reason = refused.to_string().replacen(
                    "its location",
                    "must be a path, or a URL at base_url: it",
                    1,
                );
                return Err(invalid(reason));
            }
        }
        Ok(())
    }

    /// The id of these parts; `None` where it would be none, or be split otherwise.
    pub(super) fn assemble(&self, parts: &[String]) -> Option<String> {
        if parts.len() != self.names.len() {
            return None;
        }
        let mut id = self.literals.first()?.clone();
        for (part, literal) in parts.iter().zip(&self.literals[1..]) {
            id.push_str(part);
            id.push_str(literal);
        }
        (self.parts(&id).ok().as_deref() == Some(parts)).then_some(id)
    }

    /// Whether an id is one part and nothing else.
    pub(super) fn is_one_part(&self) -> bool {
        self.names.len() == 1 && self.literals.iter().all(String::is_empty)
    }

    /// Whether a text can be the first part.
    pub(super) fn is_part(&self, text: &str) -> bool {
        self.kinds.first().is_some_and(|kind| kind.problem(text).is_none())
    }

    /// An id that no job has.
    pub(super) fn unknown(&self, unique: Uuid) -> String {
        if self.kinds.iter().any(|kind| matches!(kind, Kind::Pattern { .. })) {
            let nines = |example: &String| {
                example.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect()
            };
            let id: String = self.example.as_ref().map(nines).unwrap_or_default();
            return if self.parts(&id).is_ok() { id } else { self.example.clone().unwrap_or_default() };
        }
        let part = |kind: &Kind| match kind {
            Kind::Integer | Kind::Positive => i32::MAX.to_string(),
            Kind::Location => format!("/{unique}"),
            _ => unique.to_string(),
        };
        let mut id = self.literals[0].clone();
        for (kind, literal) in self.kinds.iter().zip(&self.literals[1..]) {
            id.push_str(&part(kind));
            id.push_str(literal);
        }
        id
    }

    pub(super) fn written(&self) -> &str {
        &self.written
    }
}

type PatternParts = (Vec<String>, Vec<String>);

fn pattern_parts(written: &str) -> Result<PatternParts, String> {
    const EXAMPLE: &str = "write parts in braces, such as \"{job_id}\" or \"{dag_id}/{dag_run_id}\"";
    let (mut literals, mut names, mut rest) = (Vec::new(), Vec::new(), written);
    while let Some((literal, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').ok_or_else(|| format!("has {{ without }}; {EXAMPLE}"))?;
        if !is_name(name) {
            return Err(format!(
                "has the part {name:?}; write its name in lower case, of letters, digits and _"
            ));
        }
        if names.iter().any(|known| known == name) {
            return Err(format!("has {{{name}}} twice; give each part a name of its own"));
        }
        if literal.is_empty() && !names.is_empty() {
            return Err(format!("has nothing between two parts; {EXAMPLE}"));
        }
        literals.push(literal.to_owned());
        names.push(name.to_owned());
        rest = after;
    }
    literals.push(rest.to_owned());
    if names.is_empty() { Err(format!("has no part; {EXAMPLE}")) } else { Ok((literals, names)) }
}

/// Whether a text may be the name of a part or a parameter.
pub(super) fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// A parameter, whose value stands in the configuration of a backend.
#[derive(Debug)]
pub(super) struct Param {
    pub(super) name: String,
    kind: Kind,
    pub(super) default: Option<String>,
    /// Whether a backend may leave it out.
    pub(super) optional: bool,
    pub(super) description: String,
}

/// Reads `[params]`.
pub(super) fn params(section: &Section<'_>, log: &Log<'_>) -> Vec<Param> {
    let mut params = Vec::new();
    for (key, span, node) in section.entries() {
        if !is_name(key) {
            log.add(
                span,
                &node.path,
                "is no name for a parameter; write it in lower case, of letters, digits and _",
            );
            continue;
        }
        let Some(mut keys) = node.section(log) else { continue };
        let kind = match (keys.get("type"), keys.get("regex")) {
            (_, Some(pattern)) => Kind::pattern(&pattern, log),
            (Some(kind), None) => Kind::read(&kind, log),
            (None, None) => Some(Kind::Text),
        };
        let description =
            keys.get("description").and_then(|node| node.text(log)).unwrap_or_default().to_owned();
        let default = keys.get("default");
        let optional = keys.get("optional");
        if let (Some(_), Some(node)) = (&default, &optional) {
            node.report(
                log,
                "stands beside default, with which a backend may leave it out; keep one of them",
            );
        }
        let optional = optional.and_then(|node| node.flag(log)).unwrap_or(false);
        keys.finish(log);
        let Some(kind) = kind else { continue };
        let default = default.and_then(|node| {
            let text = node.as_integer().map(|integer| integer.to_string());
            let text = text.or_else(|| node.text(log).map(str::to_owned))?;
            match kind.problem(&text) {
                Some(problem) => node.problem(log, format!("is {text:?}, and {problem}")),
                None => Some(text),
            }
        });
        params.push(Param { name: key.to_owned(), kind, default, optional, description });
    }
    params
}

impl Param {
    /// What its value has to be, if this is none.
    pub(super) fn problem(&self, value: &str) -> Option<String> {
        self.kind.problem(value)
    }

    /// A value in JSON.
    pub(super) fn json(&self, value: String) -> Value {
        match (&self.kind, value.parse::<i64>()) {
            (Kind::Integer | Kind::Positive, Ok(integer)) => integer.into(),
            _ => value.into(),
        }
    }

    /// What to write, for people.
    pub(super) fn example(&self) -> String {
        let kind = match &self.kind {
            Kind::Text | Kind::Location => "a text",
            Kind::Integer => "an integer",
            Kind::Positive => "an integer above 0",
            Kind::Uuid => "a UUID",
            Kind::Pattern { written, .. } => {
                return format!("{} = \"..\", which matches {written}", self.name);
            }
        };
        format!("{} = .., {kind}", self.name)
    }
}

/// The value of every parameter, in JSON.
pub(super) type Params = BTreeMap<String, Value>;
