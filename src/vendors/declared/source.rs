//! Where a value comes from: a plain path or an expression, and what it is read against.

use std::{borrow::Cow, cell::Cell, collections::BTreeMap};

use minijinja::{
    Value as Evaluated,
    value::{Serde, ValueKind},
};

use super::{
    expression::{self, Expression, Failed, unknown_name},
    path::{self, Path, Root, Step},
};
use crate::vendors::json::{self, Object, Value};

/// Where a value comes from.
#[derive(Debug)]
pub(super) enum Source {
    Path(Path),
    /// `http.status`.
    Status,
    /// `http.headers['x']`.
    Header(String),
    /// `id.x`, by its number among the parts.
    Part(usize),
    /// `params.x`.
    Param(String),
    /// A key of the credentials, in the request of an exchange.
    Variable(String),
    Expression(Expression),
}

/// The names that may be used at one place of a definition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names<'a> {
    /// Such as `job` and `id`.
    pub(super) roots: &'a [&'a str],
    pub(super) parts: &'a [String],
    pub(super) params: &'a [String],
    pub(super) variables: &'a [String],
    /// Why a name that looks like a secret is refused, if it is.
    pub(super) secrets: &'a [String],
}

/// What values are read against.
#[derive(Clone, Copy, Default)]
pub(super) struct Scope<'a> {
    pub(super) job: Option<Value<'a>>,
    /// The same, read already.
    pub(super) object: Option<&'a Object<'a>>,
    pub(super) body: Option<Value<'a>>,
    /// The same, read already.
    pub(super) members: Option<&'a Object<'a>>,
    pub(super) item: Option<Value<'a>>,
    pub(super) http: Option<&'a Http>,
    pub(super) part_names: &'a [String],
    /// The parts of the job's id.
    pub(super) id: &'a [String],
    /// Those of all jobs of a batch.
    pub(super) ids: &'a [Vec<String>],
    pub(super) params: Option<&'a BTreeMap<String, serde_json::Value>>,
    pub(super) variables: &'a [(String, String)],
    /// What may still be read for the elements of lists.
    pub(super) work: Option<&'a Work>,
}

/// A budget for what is read for the elements of lists, of which an answer may have very many:
/// each value may need all of the answer. Without it, an answer of 200 KB could take half a
/// minute.
#[derive(Debug)]
pub(super) struct Work(Cell<usize>);

impl Work {
    /// Bytes that may be read in any case, and for each byte of the answer.
    const LEAST: usize = 4 << 20;
    const FOR_EACH_BYTE: usize = 8;
    /// What a value costs beside the bytes that it is read from.
    const VALUE: usize = 16;

    pub(super) fn of(answer: usize) -> Self {
        Self(Cell::new(Self::LEAST.saturating_add(answer.saturating_mul(Self::FOR_EACH_BYTE))))
    }

    /// Whether that much was left.
    fn spend(&self, bytes: usize) -> bool {
        let left = self.0.get().checked_sub(bytes.saturating_add(Self::VALUE));
        self.0.set(left.unwrap_or_default());
        left.is_some()
    }
}

/// What a response says beside its body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Http {
    pub(super) status: u16,
    /// Those that the definition names, in lower case.
    pub(super) headers: BTreeMap<String, String>,
}

/// What was found.
#[derive(Clone, Debug)]
pub(super) enum Found<'a> {
    Json(Value<'a>),
    Text(Cow<'a, str>),
    Value(Evaluated),
}

impl Source {
    /// Reads a path or an expression.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(text: &str, names: &Names<'_>) -> Result<Self, String> {
        Self::read(text, names).map_err(|problem| {
            let is_known = ["did you mean", "secret"].iter().any(|cure| problem.contains(cure));
            if is_known || !expression::is_prose(text, names.roots) {
                return problem;
            }
            let (first, marks) = problem.split_at(problem.find('\n').unwrap_or(problem.len()));
            format!("{first}; for that text itself write \"'{text}'\"{marks}")
        })
    }

    fn read(text: &str, names: &Names<'_>) -> Result<Self, String> {
        let Some((root, steps)) = path::split(text) else {
            return Self::expression(text, names);
        };
        let name = |step: Option<&Step>| match step {
            Some(Step::Name(name)) => name.clone(),
            _ => String::new(),
        };
        if names.secrets.iter().any(|secret| secret == root) && !names.variables.iter().any(|own| own == root)
        {
            return Err(format!("{{{{ {root} }}}} is a secret; secrets stand in [credentials] only"));
        }
        if steps.is_empty() && names.variables.iter().any(|variable| variable == root) {
            return Ok(Self::Variable(root.to_owned()));
        }
        if !names.roots.contains(&root) {
            if names.parts.iter().any(|part| part == root) && names.roots.contains(&"id") {
                return Err(format!("{root} is not known here; did you mean id.{root}?"));
            }
            if names.params.iter().any(|param| param == root) {
                return Err(format!("{root} is not known here; did you mean params.{root}?"));
            }
            let variables = names.variables.iter().map(String::as_str);
            let known: Vec<&str> = names.roots.iter().copied().chain(variables).collect();
            return Err(unknown_name(root, &known));
        }
        match (root, steps.len()) {
            ("job" | "body" | "item", _) => {
                Path::parse(text).map(Self::Path).ok_or_else(|| unknown_name(root, &[]))
            }
            ("http", 1) if name(steps.first()) == "status" => Ok(Self::Status),
            ("http", 2) if name(steps.first()) == "headers" => {
                let header = name(steps.last());
                if header != header.to_lowercase() {
                    return Err(format!(
                        "http.headers has names in lower case; write http.headers['{}']",
                        header.to_lowercase()
                    ));
                }
                Ok(Self::Header(header))
            }
            ("http", _) => {
                Err("http holds http.status and http.headers['name'] only; write one of them".to_owned())
            }
            ("id", 1) => {
                let part = name(steps.first());
                let place = names.parts.iter().position(|known| *known == part);
                place.map(Self::Part).ok_or_else(|| unknown_part("id", &part, names.parts))
            }
            ("params", 1) => {
                let param = name(steps.first());
                if names.params.contains(&param) {
                    Ok(Self::Param(param))
                } else {
                    Err(unknown_part("params", &param, names.params))
                }
            }
            _ => Self::expression(text, names),
        }
    }

    fn expression(text: &str, names: &Names<'_>) -> Result<Self, String> {
        let variables = names.variables.iter().map(String::as_str);
        let known: Vec<&str> = names.roots.iter().copied().chain(variables).collect();
        let compiled = Expression::compile(text, &known)?;
        for (root, parts) in [("id", names.parts), ("params", names.params)] {
            for name in members(text, root) {
                if !parts.contains(&name) {
                    return Err(unknown_part(root, &name, parts));
                }
            }
        }
        Ok(Self::Expression(compiled))
    }

    /// Whether it needs this name.
    pub(super) fn needs(&self, root: &str) -> bool {
        match self {
            Self::Path(path) => match path.root {
                Root::Job => root == "job",
                Root::Body => root == "body",
                Root::Item => root == "item",
            },
            Self::Status | Self::Header(_) => root == "http",
            Self::Part(_) => root == "id",
            Self::Param(_) => root == "params",
            Self::Variable(name) => root == name,
            Self::Expression(expression) => expression.roots.iter().any(|name| name == root),
        }
    }

    /// Whether both are written alike.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Path(one), Self::Path(other)) => one == other,
            (Self::Status, Self::Status) => true,
            (Self::Part(one), Self::Part(other)) => one == other,
            (Self::Header(one), Self::Header(other))
            | (Self::Param(one), Self::Param(other))
            | (Self::Variable(one), Self::Variable(other)) => one == other,
            (Self::Expression(one), Self::Expression(other)) => one.written == other.written,
            _ => false,
        }
    }

    /// Whether it reads this parameter.
    pub(super) fn uses_param(&self, name: &str) -> bool {
        match self {
            Self::Param(own) => own == name,
            Self::Expression(expression) => self.needs("params") && expression.names(name),
            _ => false,
        }
    }

    /// Whether it reads a parameter that the backend leaves out.
    pub(super) fn lacks_param(&self, scope: &Scope<'_>) -> bool {
        let is_absent = |name: &str| scope.params.is_some_and(|params| !params.contains_key(name));
        match self {
            Self::Param(name) => is_absent(name),
            Self::Expression(expression) if self.needs("params") => {
                members(&expression.written, "params").iter().any(|name| is_absent(name))
            }
            _ => false,
        }
    }

    /// The plain paths from the job that it reads, as far as they are plain.
    pub(super) fn paths_of_job(&self) -> Vec<Vec<Step>> {
        match self {
            Self::Path(path) if path.root == Root::Job => vec![path.steps().to_vec()],
            Self::Expression(expression) => expression.paths("job"),
            _ => Vec::new(),
        }
    }

    /// Whether no member of the job that it reads is there twice.
    pub(super) fn is_unambiguous_in(&self, job: &Object<'_>) -> bool {
        let is_once = |name: &str| job.members().filter(|(known, _)| *known == name).count() <= 1;
        match self {
            Self::Path(path) => path.first_name().is_none_or(is_once),
            Self::Expression(expression) => match expression.touched("job") {
                Some(names) => names.iter().all(|name| is_once(name)),
                None => job.members().all(|(name, _)| is_once(name)),
            },
            _ => true,
        }
    }

    /// What it finds; null, and an expression that fails, count as absent.
    pub(super) fn find<'a>(&self, scope: &Scope<'a>) -> Option<Found<'a>> {
        self.try_find(scope).ok().flatten()
    }

    /// What it finds; null counts as absent.
    ///
    /// # Errors
    /// An expression that fails.
    pub(super) fn try_find<'a>(&self, scope: &Scope<'a>) -> Result<Option<Found<'a>>, Failed> {
        if let (Some(_), Some(work)) = (scope.item, scope.work)
            && !work.spend(self.cost(scope))
        {
            return Err(Failed);
        }
        let Self::Expression(expression) = self else { return Ok(self.look(scope)) };
        expression.find(scope)
    }

    /// How many bytes of the answer it reads at the most.
    fn cost(&self, scope: &Scope<'_>) -> usize {
        let length = |value: Option<Value<'_>>| value.map_or(0, |value| value.get().len());
        match self {
            Self::Path(path) => {
                let (value, members) = scope.root(path.root);
                match (members, path.steps()) {
                    (_, []) | (Some(_), [_]) => 0,
                    (Some(members), [Step::Name(name), ..]) => length(members.find(name)),
                    _ => length(value),
                }
            }
            Self::Expression(expression) => {
                let of_root = |name: &String| {
                    let root = match name.as_str() {
                        "job" => Root::Job,
                        "body" => Root::Body,
                        "item" => Root::Item,
                        _ => return 0,
                    };
                    let (value, members) = scope.root(root);
                    match (members, expression.touched(name)) {
                        (Some(members), Some(names)) => {
                            names.iter().map(|name| length(members.find(name))).sum()
                        }
                        _ => length(value),
                    }
                };
                expression.roots.iter().map(of_root).sum()
            }
            _ => 0,
        }
    }

    fn look<'a>(&self, scope: &Scope<'a>) -> Option<Found<'a>> {
        let http = scope.http;
        match self {
            Self::Path(path) => {
                let (value, members) = scope.root(path.root);
                let found = match members {
                    Some(members) if !path.is_root() => path.find_in(members),
                    _ => path.find(value?),
                };
                found.map(Found::Json)
            }
            Self::Status => Some(Found::Text(http?.status.to_string().into())),
            Self::Header(name) => http?.headers.get(name).map(|value| Found::Text(value.as_str().into())),
            Self::Part(place) => scope.id.get(*place).map(|part| Found::Text(part.as_str().into())),
            Self::Param(name) => {
                scope.params?.get(name).map(|value| Found::Value(Evaluated::from(Serde(value))))
            }
            Self::Variable(name) => {
                let (_, value) = scope.variables.iter().find(|(known, _)| known == name)?;
                Some(Found::Text(value.as_str().into()))
            }
            Self::Expression(_) => None,
        }
    }

    /// Whether it finds something that counts as true.
    pub(super) fn holds(&self, scope: &Scope<'_>) -> bool {
        self.find(scope).is_some_and(|found| found.is_true())
    }

    /// The same, where what can't be evaluated holds, too.
    pub(super) fn may_hold(&self, scope: &Scope<'_>) -> bool {
        self.try_find(scope).map_or(true, |found| found.is_some_and(|found| found.is_true()))
    }

    /// The text, number or flag that it finds, as a text.
    pub(super) fn text(&self, scope: &Scope<'_>) -> Option<String> {
        self.find(scope)?.text()
    }
}

fn unknown_part(root: &str, name: &str, known: &[String]) -> String {
    let known: Vec<String> = known.iter().map(|known| format!("{root}.{known}")).collect();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    if known.is_empty() {
        format!("{root}.{name} is not known here; nothing in {root} is declared")
    } else {
        unknown_name(&format!("{root}.{name}"), &known)
    }
}

/// The names after `root.` in an expression.
pub(super) fn members(text: &str, root: &str) -> Vec<String> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let begins = text
        .match_indices(root)
        .filter(|(at, _)| !text[..*at].ends_with(|c: char| is_word(c) || matches!(c, '.' | '\'' | '"')));
    let rests = begins.filter_map(|(at, _)| text[at + root.len()..].strip_prefix('.'));
    rests.map(|rest| rest.chars().take_while(|c| is_word(*c)).collect()).collect()
}

impl<'a> Scope<'a> {
    /// Where a path begins, and its members where they have been read already.
    pub(super) fn root(&self, root: Root) -> (Option<Value<'a>>, Option<&'a Object<'a>>) {
        match root {
            Root::Job => (self.job, self.object),
            Root::Body => (self.body, self.members),
            Root::Item => (self.item, None),
        }
    }

    /// The value of a name for expressions that touch these members of it.
    pub(super) fn value(&self, root: &str, touched: Option<&[String]>) -> Option<(&'static str, Evaluated)> {
        let of_json = |value: Option<Value<'_>>| value.map(|value| expression::value_of_part(value, touched));
        let of_parts = |parts: &[String]| -> Evaluated {
            Evaluated::from_pairs(self.part_names.iter().cloned().zip(parts.iter().cloned()))
        };
        let (name, value) = match root {
            "job" => ("job", of_json(self.job)),
            "body" => ("body", of_json(self.body)),
            "item" => ("item", of_json(self.item)),
            "http" => {
                let http = self.http?;
                let headers = Evaluated::from_pairs(http.headers.clone());
                (
                    "http",
                    Some(Evaluated::from_pairs([
                        ("status", Evaluated::from(http.status)),
                        ("headers", headers),
                    ])),
                )
            }
            "id" => ("id", Some(of_parts(self.id))),
            "ids" => (
                "ids",
                Some(Evaluated::from(self.ids.iter().map(|parts| of_parts(parts)).collect::<Vec<_>>())),
            ),
            "params" => ("params", self.params.map(|params| Evaluated::from(Serde(params)))),
            _ => return None,
        };
        // What is absent is undefined.
        value.map(|value| (name, value))
    }
}

impl<'a> Found<'a> {
    /// A text, or a number or flag as it is written. `None` for lists and objects.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::Json(value) => match value.get().as_bytes().first()? {
                b'{' | b'[' => None,
                b'"' => json::text(*value),
                _ => Some(value.get().to_owned()),
            },
            Self::Text(text) => Some(text.clone().into_owned()),
            Self::Value(value) => match value.kind() {
                ValueKind::String => value.as_str().map(str::to_owned),
                // As JSON writes it; minijinja has them with a capital.
                ValueKind::Bool => Some(value.is_true().to_string()),
                ValueKind::Number => Some(value.to_string()),
                _ => None,
            },
        }
    }

    /// An integer, or a text that is one.
    pub(super) fn integer(&self) -> Option<i64> {
        match self {
            Self::Json(value) => json::integer(*value),
            Self::Text(text) => text.parse().ok(),
            Self::Value(value) => value.as_i64().or_else(|| value.as_str()?.parse().ok()),
        }
    }

    /// A number that is not written as a text.
    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Self::Json(value) => serde_json::from_str(value.get()).ok(),
            Self::Value(value) if value.is_number() => value.to_string().parse().ok(),
            Self::Text(_) | Self::Value(_) => None,
        }
    }

    /// As an expression judges it.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Json(value) => !matches!(value.get(), "false" | "null" | "0" | "\"\"" | "[]" | "{}"),
            Self::Text(text) => !text.is_empty(),
            Self::Value(value) => value.is_true(),
        }
    }

    /// The same in JSON.
    pub(super) fn json(&self) -> Option<Cow<'a, str>> {
        match self {
            Self::Json(value) => Some(value.get().into()),
            Self::Text(text) => serde_json::to_string(text).ok().map(Cow::from),
            Self::Value(value) => serde_json::to_string(value).ok().map(Cow::from),
        }
    }
}
