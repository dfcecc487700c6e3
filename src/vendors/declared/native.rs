//! The usual forms of expressions, read over the bytes of the response.
//!
//! `job.a or job.b`, `x if y == 'z' else w`, `x | default('')` and the like need no values of
//! minijinja: they look at one or two members. Such an expression gives what minijinja would
//! give, or [`Unsure`], and then minijinja evaluates it.

use std::borrow::Cow;

use super::{
    path::{Path, Step},
    source::{Found, Scope},
};
use crate::vendors::json::{self, Value as Json};

mod reader;
#[cfg(test)]
mod tests;

/// Most paths in one expression: each may read the whole job.
const MOST_PATHS: usize = 16;

/// Most steps of a path: expressions see no deeper.
const MOST_STEPS: usize = 16;

/// An expression of a usual form.
#[derive(Debug, PartialEq)]
pub(super) enum Native {
    Path(Path),
    Literal(Literal),
    Or(Box<Native>, Box<Native>),
    And(Box<Native>, Box<Native>),
    Not(Box<Native>),
    If {
        test: Box<Native>,
        then: Box<Native>,
        otherwise: Option<Box<Native>>,
    },
    Equal(Box<Native>, Box<Native>),
    In(Box<Native>, Vec<Literal>),
    Is(Box<Native>, Test),
    /// A part of an id, or a parameter.
    Named(&'static str, String),
    FirstLine(Box<Native>),
    FileName(Box<Native>),
    Length(Box<Native>),
    Default(Box<Native>, Literal),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Literal {
    None,
    Flag(bool),
    Integer(i64),
    Text(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Test {
    Defined,
    Undefined,
    None,
    Boolean,
    Text,
    Sequence,
    Mapping,
}

/// That only minijinja can say what an expression gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unsure;

/// What an expression gives.
#[derive(Clone, Debug, PartialEq)]
enum Given<'a> {
    Undefined,
    None,
    Flag(bool),
    Integer(i64),
    Text(Cow<'a, str>),
    List(Json<'a>),
    Object(Json<'a>),
}

impl Native {
    /// `None` for an expression of any other form.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let native = reader::read(text)?;
        let paths = native.paths();
        let is_shallow = |path: &&Path| path.steps().len() <= MOST_STEPS;
        (paths.len() <= MOST_PATHS && paths.iter().all(is_shallow)).then_some(native)
    }

    /// Every path that is read.
    pub(super) fn paths(&self) -> Vec<&Path> {
        match self {
            Self::Path(path) => vec![path],
            Self::Literal(_) | Self::Named(..) => Vec::new(),
            Self::Or(one, other) | Self::And(one, other) | Self::Equal(one, other) => {
                [one.paths(), other.paths()].concat()
            }
            Self::If { test, then, otherwise } => {
                let otherwise = otherwise.as_ref().map(|otherwise| otherwise.paths()).unwrap_or_default();
                [test.paths(), then.paths(), otherwise].concat()
            }
            Self::Not(of)
            | Self::In(of, _)
            | Self::Is(of, _)
            | Self::FirstLine(of)
            | Self::FileName(of)
            | Self::Length(of)
            | Self::Default(of, _) => of.paths(),
        }
    }

    /// What it finds; null counts as absent.
    ///
    /// # Errors
    /// Only minijinja can say it.
    pub(super) fn find<'a>(&self, scope: &Scope<'a>) -> Result<Option<Found<'a>>, Unsure> {
        match self.evaluate(scope)? {
            Given::Undefined | Given::None => Ok(None),
            Given::Flag(flag) => Ok(Some(Found::Value(flag.into()))),
            Given::Integer(integer) => Ok(Some(Found::Value(integer.into()))),
            Given::Text(text) => Ok(Some(Found::Text(text))),
            // minijinja's own values have another text than the vendor's.
            Given::List(_) | Given::Object(_) => Err(Unsure),
        }
    }

    fn evaluate<'a>(&self, scope: &Scope<'a>) -> Result<Given<'a>, Unsure> {
        Ok(match self {
            Self::Path(path) => read(path, scope)?,
            Self::Literal(literal) => literal.given(),
            Self::Or(one, other) => {
                let one = one.evaluate(scope)?;
                if one.is_true() { one } else { other.evaluate(scope)? }
            }
            Self::And(one, other) => {
                let one = one.evaluate(scope)?;
                if one.is_true() { other.evaluate(scope)? } else { one }
            }
            Self::Not(of) => Given::Flag(!of.evaluate(scope)?.is_true()),
            Self::If { test, then, otherwise } => match (test.evaluate(scope)?.is_true(), otherwise) {
                (true, _) => then.evaluate(scope)?,
                (false, Some(otherwise)) => otherwise.evaluate(scope)?,
                (false, None) => Given::Undefined,
            },
            Self::Equal(one, other) => Given::Flag(one.evaluate(scope)?.equals(&other.evaluate(scope)?)?),
            Self::In(of, literals) => {
                let of = of.evaluate(scope)?;
                for literal in literals {
                    if literal.given().equals(&of)? {
                        return Ok(Given::Flag(true));
                    }
                }
                Given::Flag(false)
            }
            Self::Is(of, test) => Given::Flag(of.evaluate(scope)?.is(*test)),
            Self::FirstLine(of) => match of.evaluate(scope)? {
                Given::Text(text) => Given::Text(cut(text, first_line_of)),
                _ => return Err(Unsure),
            },
            Self::FileName(of) => match of.evaluate(scope)? {
                Given::Text(text) => Given::Text(cut(text, file_name_of)),
                _ => return Err(Unsure),
            },
            Self::Named(root, name) => named(root, name, scope)?,
            Self::Length(of) => of.evaluate(scope)?.length()?,
            Self::Default(of, literal) => match of.evaluate(scope)? {
                Given::Undefined => literal.given(),
                given => given,
            },
        })
    }
}

impl Literal {
    fn given(&self) -> Given<'static> {
        match self {
            Self::None => Given::None,
            Self::Flag(flag) => Given::Flag(*flag),
            Self::Integer(integer) => Given::Integer(*integer),
            Self::Text(text) => Given::Text(text.clone().into()),
        }
    }
}

impl Given<'_> {
    fn is_true(&self) -> bool {
        match self {
            Self::Undefined | Self::None => false,
            Self::Flag(flag) => *flag,
            Self::Integer(integer) => *integer != 0,
            Self::Text(text) => !text.is_empty(),
            Self::List(value) | Self::Object(value) => {
                let text = value.get();
                !text[1..text.len() - 1].trim_ascii().is_empty()
            }
        }
    }

    fn equals(&self, other: &Self) -> Result<bool, Unsure> {
        match (self, other) {
            (Self::Text(one), Self::Text(other)) => Ok(one == other),
            (Self::Integer(one), Self::Integer(other)) => Ok(one == other),
            (Self::Flag(one), Self::Flag(other)) => Ok(one == other),
            (Self::Undefined, Self::Undefined) | (Self::None, Self::None) => Ok(true),
            (Self::Text(_), _) | (_, Self::Text(_)) => Ok(false),
            _ => Err(Unsure),
        }
    }

    fn is(&self, test: Test) -> bool {
        match test {
            Test::Defined => *self != Self::Undefined,
            Test::Undefined => *self == Self::Undefined,
            Test::None => *self == Self::None,
            Test::Boolean => matches!(self, Self::Flag(_)),
            Test::Text => matches!(self, Self::Text(_)),
            Test::Sequence => matches!(self, Self::List(_) | Self::Undefined),
            Test::Mapping => matches!(self, Self::Object(_)),
        }
    }

    fn length(&self) -> Result<Self, Unsure> {
        let length = match self {
            Self::Text(text) => text.chars().count(),
            Self::List(value) => json::list(*value).ok_or(Unsure)?.len(),
            _ => return Err(Unsure),
        };
        i64::try_from(length).map(Self::Integer).map_err(|_| Unsure)
    }
}

/// The first line with anything in it.
pub(super) fn first_line_of(text: &str) -> &str {
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default()
}

/// The last segment of a path or a URL, without a query.
pub(super) fn file_name_of(path: &str) -> &str {
    let own = path.split('?').next().unwrap_or(path);
    own.rsplit('/').find(|segment| !segment.is_empty()).unwrap_or(path)
}

fn cut(text: Cow<'_, str>, part: fn(&str) -> &str) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => part(text).into(),
        Cow::Owned(text) => part(&text).to_owned().into(),
    }
}

/// A part of the job's id, or a parameter.
fn named<'a>(root: &str, name: &str, scope: &Scope<'a>) -> Result<Given<'a>, Unsure> {
    if root == "id" {
        let place = scope.part_names.iter().position(|known| known == name).ok_or(Unsure)?;
        let part = scope.id.get(place).ok_or(Unsure)?;
        return Ok(Given::Text(part.as_str().into()));
    }
    let param = scope.params.and_then(|params| params.get(name)).ok_or(Unsure)?;
    Ok(match param {
        serde_json::Value::String(text) => Given::Text(text.as_str().into()),
        serde_json::Value::Number(number) => Given::Integer(number.as_i64().ok_or(Unsure)?),
        _ => return Err(Unsure),
    })
}

/// What stands at a path, as expressions see it.
fn read<'a>(path: &Path, scope: &Scope<'a>) -> Result<Given<'a>, Unsure> {
    let (root, members) = scope.root(path.root);
    let Some(root) = root else { return Ok(Given::Undefined) };
    let steps = path.steps();
    let (mut value, rest) = match (steps, members) {
        ([Step::Name(first), rest @ ..], Some(members)) => match members.find(first) {
            Some(value) => (value, rest),
            None => return Ok(Given::Undefined),
        },
        _ => (root, steps),
    };
    for step in rest {
        let next = match (given(value)?, step) {
            (Given::Object(object), Step::Name(name)) => json::member(object, name).ok_or(Unsure)?.value,
            (Given::List(list), Step::Index(index)) => json::list(list).ok_or(Unsure)?.get(*index).copied(),
            (Given::Text(_) | Given::Object(_), Step::Index(_)) => return Err(Unsure),
            _ => None,
        };
        match next {
            Some(next) => value = next,
            None => return Ok(Given::Undefined),
        }
    }
    given(value)
}

/// A value of the response. What no value of minijinja can hold is for minijinja to refuse.
fn given(value: Json<'_>) -> Result<Given<'_>, Unsure> {
    Ok(match value.get() {
        "null" => Given::None,
        "true" => Given::Flag(true),
        "false" => Given::Flag(false),
        text => match text.as_bytes().first() {
            Some(b'"') => Given::Text(json::unescaped(value).ok_or(Unsure)?),
            Some(b'[') => Given::List(value),
            // Names that no text can hold make an object unusable.
            Some(b'{') if text.contains("\\u") => return Err(Unsure),
            Some(b'{') => Given::Object(value),
            // -0 is no integer there.
            _ if text.starts_with("-0") => return Err(Unsure),
            _ => Given::Integer(text.parse().map_err(|_| Unsure)?),
        },
    })
}
