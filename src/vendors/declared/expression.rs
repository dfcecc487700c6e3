//! Expressions, where a plain path is not enough: those of minijinja, within a budget.
//!
//! An expression sees the values that it names and nothing else: no secret, no clock, no
//! file. Its fuel bounds time and memory whatever the values are. An error of the engine may
//! quote values, so none of its texts is shown after the definition was read.

use std::{
    collections::{BTreeMap, HashSet},
    sync::LazyLock,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value, value::Serde};

use super::{
    native::{Native, file_name_of, first_line_of},
    path::{self, Step},
    source::{Found, Scope},
};
use crate::vendors::json;

mod failure;
mod filters;
mod pattern;
mod syntax;
#[cfg(test)]
mod tests;
mod text;

pub(super) use failure::Failure;
use filters::{add_texts, find, parsed, words};
pub(super) use pattern::regex;
pub(super) use syntax::{is_prose, unknown_name};
use text::{code, first_condition};

/// What one evaluation may cost: instructions, and 64 bytes of data each.
const FUEL: u64 = 20_000;

/// Longest expression in bytes.
const LONGEST: usize = 1024;

/// What the error of a value says that minijinja can't hold.
const UNUSABLE: &str = "no value can hold it";

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    // Errors have the place in the expression all the same, and no values.
    environment.set_debug(false);
    environment.set_undefined_behavior(UndefinedBehavior::Chainable);
    for filter in [
        "attr",
        "batch",
        "capitalize",
        "chain",
        "dictsort",
        "e",
        "escape",
        "format",
        "groupby",
        "indent",
        "lines",
        "pprint",
        "reverse",
        "safe",
        "slice",
        "title",
        "zip",
    ] {
        environment.remove_filter(filter);
    }
    let globals: Vec<String> = environment.globals().map(|(name, _)| name.to_owned()).collect();
    for global in &globals {
        environment.remove_global(global);
    }
    environment.add_filter("first_line", |text: &str| first_line_of(text).to_owned());
    environment.add_filter("file_name", |path: &str| file_name_of(path).to_owned());
    environment.add_filter("find", find);
    environment.add_filter("texts", |value: &Value, depth: Option<u8>| {
        let mut texts = Vec::new();
        add_texts(value, depth.unwrap_or(DEEPEST).min(DEEPEST), &mut texts);
        Value::from(texts)
    });
    environment.add_filter("words", |value: &Value| words(value, 4).unwrap_or(Value::UNDEFINED));
    environment.add_filter("json", parsed);
    environment.add_filter("latin1", |text: &str| {
        let bytes = text.chars().map(|c| u8::try_from(u32::from(c))).collect::<Result<Vec<_>, _>>();
        bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok()).map_or(Value::UNDEFINED, Value::from)
    });
    environment.add_filter("base64", |text: &str| {
        let bytes = BASE64_STANDARD.decode(text.trim()).ok();
        bytes.and_then(|bytes| String::from_utf8(bytes).ok()).map_or(Value::UNDEFINED, Value::from)
    });
    environment
});

/// Text in JSON as a value. `None` where it is none, or nested deeper than 128 levels.
fn value_of(json: &str) -> Option<Value> {
    let json: serde_json::Value = serde_json::from_str(json).ok()?;
    Some(Value::from(Serde(json)))
}

/// Deepest nesting that expressions see.
const DEEPEST: u8 = 32;

/// A part of an answer as a value. What no value can hold, such as a text with a lone
/// surrogate or what is nested too deep, fails an expression that touches it, and no other:
/// it must not count as absent.
///
/// Of an object only these members, if they are all that the expression can touch.
pub(super) fn value_of_part(part: json::Value<'_>, touched: Option<&[String]>) -> Value {
    let (Some(touched), Some(object)) = (touched, json::Object::of(part)) else {
        return within(part, DEEPEST);
    };
    let members = object.members().filter(|(name, _)| touched.iter().any(|known| known == name));
    Value::from_pairs(members.map(|(name, value)| (name.to_owned(), within(value, DEEPEST - 1))))
}

fn within(part: json::Value<'_>, depth: u8) -> Value {
    let unusable = || Value::from(Error::new(ErrorKind::InvalidOperation, UNUSABLE));
    let text = part.get();
    match (text.as_bytes().first(), depth.checked_sub(1)) {
        (Some(b'{' | b'['), None) => unusable(),
        (Some(b'{'), Some(depth)) => match json::Object::of(part) {
            Some(object) => Value::from_pairs(
                object.members().map(|(name, value)| (name.to_owned(), within(value, depth))),
            ),
            None => unusable(),
        },
        (Some(b'['), Some(depth)) => match json::list(part) {
            Some(items) => items.into_iter().map(|item| within(item, depth)).collect::<Vec<_>>().into(),
            None => unusable(),
        },
        (Some(b'"'), _) => json::text(part).map_or_else(unusable, Value::from),
        _ => value_of(text).unwrap_or_else(unusable),
    }
}

/// A compiled expression.
#[derive(Debug)]
pub(super) struct Expression {
    compiled: Compiled,
    /// The same, where it has a usual form.
    native: Option<Box<Native>>,
    /// Otherwise its first condition, where that has one: minijinja is not needed if it fails.
    guard: Option<Box<Native>>,
    /// The names that it needs, such as `job`.
    pub(super) roots: Vec<String>,
    /// Of each root, the members that it can touch; none where that may be any.
    touched: Vec<Option<Vec<String>>>,
    pub(super) written: String,
}

/// Boxed, since it has the place of every part of its text.
struct Compiled(Box<minijinja::Expression<'static, 'static>>);

impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Expression")
    }
}

impl Expression {
    /// Compiles a text that may use these names.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn compile(text: &str, names: &[&str]) -> Result<Self, String> {
        let compiled = syntax::compiled(text)?;
        let mut roots: Vec<String> = compiled.undeclared_variables(false).into_iter().collect();
        roots.sort();
        match roots.iter().find(|root| !names.contains(&root.as_str())) {
            Some(root) => Err(unknown_name(root, names)),
            None => Ok(Self {
                touched: touched(&compiled.undeclared_variables(true), &roots),
                native: Native::parse(text).map(Box::new),
                guard: first_condition(text).and_then(Native::parse).map(Box::new),
                compiled: Compiled(Box::new(compiled)),
                roots,
                written: text.to_owned(),
            }),
        }
    }

    /// The members of a root that it can touch; none where that may be any.
    pub(super) fn touched(&self, root: &str) -> Option<&[String]> {
        let place = self.roots.iter().position(|known| known == root);
        place.map_or(Some(&[]), |place| self.touched[place].as_deref())
    }

    /// What it finds; null counts as absent.
    ///
    /// # Errors
    /// The evaluation fails, or costs too much.
    pub(super) fn find<'a>(&self, scope: &Scope<'a>) -> Result<Option<Found<'a>>, Failed> {
        if let Some(native) = &self.native
            && let Ok(found) = native.find(scope)
        {
            return Ok(found);
        }
        if let Some(guard) = &self.guard
            && let Ok(found) = guard.find(scope)
            && !found.as_ref().is_some_and(Found::is_true)
        {
            return Ok(found);
        }
        Ok(self.evaluate(self.values(scope))?.map(Found::Value))
    }

    /// Why it fails, if it does.
    pub(super) fn failure(&self, scope: &Scope<'_>) -> Option<Failure> {
        let error = self.compiled.0.eval(Value::from_pairs(self.values(scope))).err()?;
        Some(Failure::of(&self.written, &error))
    }

    /// The values of the names that it needs.
    fn values(&self, scope: &Scope<'_>) -> BTreeMap<&'static str, Value> {
        let roots = self.roots.iter().zip(&self.touched);
        roots.filter_map(|(root, touched)| scope.value(root, touched.as_deref())).collect()
    }

    /// The value; `None` where it gives nothing.
    ///
    /// # Errors
    /// The evaluation fails, or costs too much.
    pub(super) fn evaluate(&self, values: BTreeMap<&'static str, Value>) -> Result<Option<Value>, Failed> {
        let value = self.compiled.0.eval(Value::from_pairs(values)).map_err(|_| Failed)?;
        Ok((!value.is_undefined() && !value.is_none()).then_some(value))
    }
}

impl Expression {
    /// Whether a name stands in it as a word of its own.
    pub(super) fn names(&self, name: &str) -> bool {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        self.written.split(|c: char| !is_part(c)).any(|word| word == name)
    }

    /// The plain paths from a name in it, up to what has to be evaluated.
    pub(super) fn paths(&self, root: &str) -> Vec<Vec<Step>> {
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
        let is_path = |c: char| c.is_ascii_alphanumeric() || "_.[]'\"-".contains(c);
        let code = code(&self.written);
        let begins = code.match_indices(root).map(|(at, _)| at).filter(|at| !code[..*at].ends_with(is_part));
        let path = |at: usize| {
            let rest = self.written.get(at..)?;
            let longest = rest.find(|c| !is_path(c)).unwrap_or(rest.len());
            let (_, steps) = (root.len()..=longest).rev().find_map(|end| path::split(&rest[..end]))?;
            Some(steps)
        };
        begins.filter_map(path).collect()
    }
}

/// Of each root, the members that are named behind it.
fn touched(variables: &HashSet<String>, roots: &[String]) -> Vec<Option<Vec<String>>> {
    let members = |root: &String| {
        let of_root = variables.iter().filter(|name| name.split('.').next() == Some(root));
        of_root.map(|name| name.split('.').nth(1).map(str::to_owned)).collect()
    };
    roots.iter().map(members).collect()
}

/// An evaluation that fails. The error of the engine may quote values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failed;
