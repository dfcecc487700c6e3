//! Reads single values and collects what is wrong with them.

use std::{ops::RangeInclusive, time::Duration};

use jiff::{
    SignedDuration,
    fmt::friendly::{SpanParser, SpanPrinter},
};
use toml::{Table, Value};

use super::{Environment, Problem, schema::join};

/// A duration as configuration and command line write it: `250ms`, `1s`, `1m 30s`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    SpanParser::new().parse_duration(text).ok()?.try_into().ok()
}

/// The same, written back.
fn show(duration: &Duration) -> String {
    SignedDuration::try_from(*duration)
        .map_or_else(|_| format!("{duration:?}"), |signed| SpanPrinter::new().duration_to_string(&signed))
}

/// One table and where it stands.
pub(super) struct Section<'a> {
    pub(super) path: String,
    table: Option<&'a Table>,
}

impl<'a> Section<'a> {
    pub(super) fn new(path: String, table: &'a Table) -> Self {
        Self { path, table: Some(table) }
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.table?.get(key)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
        self.table.into_iter().flatten()
    }

    pub(super) fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }
}

/// Reads values and collects what is wrong with them. Each method returns `None`
/// exactly when it has reported a problem.
pub(super) struct Reader<'a> {
    pub(super) env: &'a Environment,
    pub(super) allow_inline_secrets: bool,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    /// A reader that goes on collecting after `problems`.
    pub(super) fn new(env: &'a Environment, problems: Vec<Problem>) -> Self {
        Self { env, allow_inline_secrets: false, problems }
    }

    /// All that was reported.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    /// Reports a problem; `None`, to be returned.
    pub(super) fn problem<T>(&mut self, subject: String, text: String) -> Option<T> {
        self.problems.push(Problem { subject, text });
        None
    }

    /// A table that may be absent.
    pub(super) fn section<'t>(&mut self, parent: &Section<'t>, key: &str) -> Option<Section<'t>> {
        let path = parent.path_of(key);
        match parent.get(key) {
            None => Some(Section { path, table: None }),
            Some(Value::Table(table)) => Some(Section::new(path, table)),
            Some(_) => self.problem(path.clone(), format!("is not a table; write [{path}]")),
        }
    }

    /// A text that may be absent, which is not a problem.
    #[allow(clippy::option_option, reason = "what is absent and what is wrong end differently")]
    pub(super) fn text(&mut self, section: &Section<'_>, key: &str, example: &str) -> Option<Option<String>> {
        match section.get(key) {
            None => Some(None),
            Some(Value::String(text)) if !text.is_empty() => Some(Some(text.clone())),
            Some(Value::String(_)) => {
                self.problem(section.path_of(key), format!("is empty; write {example}"))
            }
            Some(_) => self.problem(section.path_of(key), format!("is not a text; write {example}")),
        }
    }

    /// A text that must be there.
    pub(super) fn required(&mut self, section: &Section<'_>, key: &str, example: &str) -> Option<String> {
        let text = self.text(section, key, example)?;
        text.or_else(|| self.problem(section.path_of(key), format!("is missing; write {example}")))
    }

    /// True or false; false where absent.
    pub(super) fn flag(&mut self, section: &Section<'_>, key: &str) -> Option<bool> {
        match section.get(key) {
            None => Some(false),
            Some(Value::Boolean(flag)) => Some(*flag),
            Some(_) => {
                self.problem(section.path_of(key), "is neither true nor false; write one of them".to_owned())
            }
        }
    }

    pub(super) fn number<N: TryFrom<i64>>(
        &mut self,
        section: &Section<'_>,
        key: &str,
        default: N,
        range: RangeInclusive<i64>,
    ) -> Option<N> {
        let Some(value) = section.get(key) else { return Some(default) };
        let number = value.as_integer().filter(|number| range.contains(number));
        number.and_then(|number| N::try_from(number).ok()).or_else(|| {
            let text = format!("is {value}; write a whole number from {} to {}", range.start(), range.end());
            self.problem(section.path_of(key), text)
        })
    }

    pub(super) fn duration(
        &mut self,
        section: &Section<'_>,
        key: &str,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let Some(value) = section.get(key) else { return Some(default) };
        match value.as_str().and_then(parse_duration) {
            Some(duration) if range.contains(&duration) => Some(duration),
            Some(_) => {
                let text = format!(
                    "is {value}; write a duration from {} to {}",
                    show(range.start()),
                    show(range.end())
                );
                self.problem(section.path_of(key), text)
            }
            None => {
                let text = format!("is {value}; write a duration such as \"250ms\", \"1s\" or \"1m 30s\"");
                self.problem(section.path_of(key), text)
            }
        }
    }
}
