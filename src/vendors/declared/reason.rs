//! Why an answer has no such field, or is a fault, for people who write a definition.
//!
//! The texts may hold values of the answer, so they are for the author's own cases only.

use bytes::Bytes;
use http::Response;
use serde::de::IgnoredAny;

use super::{
    Declared,
    definition::{ContentRule, ErrorRule, ResultRule, StateFilter},
    explain::{name_of, no_content, of_path, type_of},
    files::FileRule,
    path::{Path, Root, Step},
    place::{Place, held},
    read::is_identifier,
    reader::closest,
    source::{Found, Scope, Source},
    table::shown,
    time::TimeRule,
};
use crate::{
    job::{JobRef, JobState},
    vendors::json::{self, Value},
};

/// Longest value that is shown.
const LONGEST: usize = 60;

impl Declared {
    /// Why a field of `expect` is absent, or why the state is another one.
    pub(super) fn why_absent(&self, job: &JobRef, element: &Bytes, field: &str) -> Option<String> {
        self.with_scope(job, element, |scope, _| Ok(self.reason(scope, field))).ok().flatten()
    }

    /// Where a field of `expect` that is there is read from.
    pub(super) fn where_from(&self, field: &str) -> Option<String> {
        let rules = &self.definition.status;
        let time = rules.times().into_iter().find(|(key, _)| *key == field);
        let progress = format!("progress.{field}");
        let values = rules.texts().into_iter().chain(rules.progress.values());
        let value = values.into_iter().find(|(key, _)| *key == field || *key == progress);
        let source = match (value, time) {
            (Some((_, source)), _) => source,
            (None, time) => time.and_then(|(_, rule)| rule).map(|rule| &rule.at),
        };
        match (field, source) {
            (_, Some(source)) => Some(format!("it is read from {}", self.written(source))),
            ("vendor_state", None) => {
                let word: Vec<String> = rules.word.iter().map(|source| self.written(source)).collect();
                Some(format!("it is status.word, read from {}", word.join(" and ")))
            }
            _ => None,
        }
    }

    fn reason(&self, scope: &Scope<'_>, field: &str) -> Option<String> {
        let rules = &self.definition.status;
        let word = self.word(scope).ok()?;
        let state = self.definition.states.state_of(&word);
        let text = rules.texts().into_iter().find(|(key, _)| *key == field);
        let time = rules.times().into_iter().find(|(key, _)| *key == field);
        match (field, text, time) {
            ("state", ..) => Some(self.state_reason(&word)),
            (_, Some((_, source)), _) => {
                Some(source.map_or_else(|| undeclared(field), |source| self.no_text(source, scope)))
            }
            (_, _, Some((_, rule))) => {
                Some(rule.map_or_else(|| undeclared(field), |rule| self.no_time(rule, scope)))
            }
            ("percent" | "completed_steps" | "total_steps" | "current_step", ..) => {
                let key = format!("progress.{field}");
                let (_, source) = rules.progress.values().into_iter().find(|(known, _)| *known == key)?;
                Some(source.map_or_else(|| undeclared(&key), |source| self.no_number(source, scope, field)))
            }
            ("result" | "content_type", ..) if rules.results.is_empty() => Some(undeclared("result")),
            ("result" | "content_type", ..) => {
                let why: Vec<String> =
                    rules.results.iter().map(|rule| self.no_result(rule, scope, state)).collect();
                Some(why.join(", and "))
            }
            ("error" | "details", ..) => Some(match &rules.error {
                None => undeclared("error"),
                Some(rule) => left_out("error", &rule.states, state)
                    .unwrap_or_else(|| self.no_error(rule, scope, field)),
            }),
            ("warnings", ..) if rules.warnings.is_empty() => Some(undeclared("warnings")),
            ("warnings", ..) if state != JobState::Succeeded => {
                Some(format!("warnings are read of a job that is SUCCEEDED, and this is {}", name_of(state)))
            }
            ("warnings", ..) => rules.warnings.first().map(|source| self.no_text(source, scope)),
            ("files" | "locations", ..) => Some(self.no_files(scope, state)),
            _ => None,
        }
    }

    fn state_reason(&self, word: &[Option<String>]) -> String {
        let states = &self.definition.states;
        let (state, pattern) = states.state(word);
        let word = shown(word);
        if let Some(pattern) = pattern {
            return format!("{word:?} is {}, by {pattern:?}", name_of(state));
        }
        let known: Vec<String> = states.patterns().map(|(_, pattern)| pattern).collect();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        let meant = closest(&word, &known).map(|close| format!(", which has {close:?}")).unwrap_or_default();
        format!("{word:?} is no word of [states]{meant}")
    }

    /// Why a source finds nothing.
    ///
    /// # Errors
    /// What it finds.
    fn nothing<'a>(&self, source: &Source, scope: &Scope<'a>) -> Result<String, Found<'a>> {
        let written = self.written(source);
        match (source.try_find(scope), source) {
            (Ok(Some(found)), _) => Err(found),
            (_, Source::Path(path)) => Ok(absent(path, scope)),
            (found, Source::Expression(expression)) => {
                let paths = expression.paths("job").into_iter().filter_map(|steps| Path::new("job", steps));
                let is_absent = |path: &Path| scope.job.is_none_or(|job| path.find(job).is_none());
                let missing = paths.filter(is_absent).map(|path| absent(&path, scope)).next();
                let failure = || expression.failure(scope).map(|failure| failure.reason);
                Ok(match (found, missing.or_else(failure)) {
                    (Err(_), why) => format!("{written} fails: {}", why.unwrap_or_default()),
                    (_, Some(why)) => format!("{written} gives nothing: {why}"),
                    (_, None) => format!("{written} gives nothing"),
                })
            }
            _ => Ok(format!("{written} is absent")),
        }
    }

    fn no_text(&self, source: &Source, scope: &Scope<'_>) -> String {
        match self.nothing(source, scope) {
            Ok(why) => why,
            Err(found) => match found.text().as_deref() {
                Some("") => format!("{} is empty", self.written(source)),
                _ => format!("{} is {}, and a text is needed", self.written(source), type_of(&found)),
            },
        }
    }

    fn no_time(&self, rule: &TimeRule, scope: &Scope<'_>) -> String {
        match self.nothing(&rule.at, scope) {
            Ok(why) => why,
            Err(found) => {
                let why = rule.why_none(&found).unwrap_or_default();
                format!("{} is {}, which {why}", self.written(&rule.at), cut(&found))
            }
        }
    }

    fn no_number(&self, source: &Source, scope: &Scope<'_>, field: &str) -> String {
        match self.nothing(source, scope) {
            Ok(why) => why,
            Err(found) => {
                let needed = match field {
                    "percent" if found.number().is_some() => "and a percentage is 0 to 100",
                    "percent" => "and a number without quotes is needed; an expression can be | float",
                    "current_step" => "and a text is needed",
                    _ => "and an integer is needed",
                };
                format!("{} is {}, {needed}", self.written(source), cut(&found))
            }
        }
    }

    fn no_result(&self, rule: &ResultRule, scope: &Scope<'_>, state: JobState) -> String {
        if let Some(why) = left_out("result", &rule.states, state) {
            return why;
        }
        if let Some(when) = rule.when.as_ref().filter(|when| !when.holds(scope)) {
            return self.no_condition(when, scope);
        }
        let path = &rule.at.path;
        match (scope.job.and_then(|job| path.find(job)), &rule.at.written) {
            (Some(value), Some(written)) => {
                format!("{} is {}", of_path(path), no_content(*written, &Found::Json(value)))
            }
            (Some(_), None) if rule.content == ContentRule::Text => {
                format!("{} is no text, and content_type is \"text\"", of_path(path))
            }
            (_, None) | (None, _) => absent(path, scope),
        }
    }

    /// Why a condition does not hold.
    fn no_condition(&self, when: &Source, scope: &Scope<'_>) -> String {
        match self.nothing(when, scope) {
            Ok(why) => format!("when is not true: {why}"),
            Err(_) => format!("when is not true: {}", self.written(when)),
        }
    }

    fn no_error(&self, rule: &ErrorRule, scope: &Scope<'_>, field: &str) -> String {
        if let Some(when) = rule.when.as_ref().filter(|when| !when.holds(scope)) {
            return self.no_condition(when, scope);
        }
        if field == "details" && !rule.is_whole {
            return match &rule.details {
                None => undeclared("error.details"),
                Some(path) => absent(path, scope),
            };
        }
        if let Some(each) = &rule.each {
            return match scope.job.and_then(|job| each.find(job)) {
                None => absent(each, scope),
                Some(_) => format!("no element of {} has words", of_path(each)),
            };
        }
        let why = |(source, is_wrapped): &(Source, bool)| match self.nothing(source, scope) {
            Ok(why) => why,
            Err(found) if *is_wrapped => {
                format!("{} is {} without words", self.written(source), type_of(&found))
            }
            Err(found) if matches!(found.text().as_deref(), Some("")) => {
                format!("{} is empty", self.written(source))
            }
            Err(found) => {
                let (written, kind) = (self.written(source), type_of(&found));
                let cure = match kind {
                    "a list" => "write each for a list, and message = \"item\" for its texts",
                    _ => "write words for an object with a message",
                };
                format!("{written} is {kind}, and message needs a text; {cure}")
            }
        };
        rule.words.iter().map(why).collect::<Vec<_>>().join(", and ")
    }

    fn no_files(&self, scope: &Scope<'_>, state: JobState) -> String {
        if self.definition.files.is_empty() {
            return "[[files]] is not declared".to_owned();
        }
        let rules = self.definition.files.iter().enumerate();
        let why = rules.filter_map(|(place, rule)| {
            Some(format!("files[{place}]: {}", self.no_file(rule, scope, state)?))
        });
        why.collect::<Vec<_>>().join("; ")
    }

    /// Why the first element of a rule is no file.
    fn no_file(&self, rule: &FileRule, scope: &Scope<'_>, state: JobState) -> Option<String> {
        if let Some(why) = left_out("it", rule.states(), state) {
            return Some(why);
        }
        let item = match rule.each() {
            None => None,
            Some(each) => {
                let root = if each.root == Root::Body { scope.body } else { scope.job };
                let Some(found) = root.and_then(|root| each.find(root)) else {
                    return Some(absent(each, scope));
                };
                let is_list = found.get().starts_with('[');
                match json::list(found).filter(|_| is_list).map(|list| list.first().copied()) {
                    Some(None) => return Some(format!("{} is empty", of_path(each))),
                    Some(first) => first,
                    None => Some(found),
                }
            }
        };
        let scope = Scope { item, ..*scope };
        if let Some(when) = rule.when()
            && !when.find(&scope).is_some_and(|found| found.is_true())
        {
            return Some(self.no_condition(when, &scope));
        }
        let missing = rule.sources().into_iter().find(|source| {
            let is_there = |text: String| !text.is_empty();
            !source.find(&scope).and_then(|found| found.text()).is_some_and(is_there)
        })?;
        Some(self.no_text(missing, &scope))
    }

    /// What is behind a fault of a job or of a whole answer.
    pub(super) fn why_fault(
        &self,
        jobs: &[JobRef],
        response: &Response<Bytes>,
        element: Option<&Bytes>,
    ) -> Option<String> {
        if !response.status().is_success() {
            let rules = self.unmet_rules(jobs, response);
            return (!rules.is_empty()).then(|| rules.join("; "));
        }
        let body = match serde_json::from_slice::<IgnoredAny>(response.body()) {
            Ok(_) => Value::parse(response.body()),
            Err(_) if response.body().trim_ascii().is_empty() => return Some("the body is empty".to_owned()),
            Err(error) => return Some(error.to_string()),
        };
        let ([job], Some(element)) = (jobs, element) else {
            let (place, needed) = match self.question(jobs) {
                (_, Some(batch)) if batch.by_id => (&batch.jobs, "{"),
                (_, Some(batch)) => (&batch.jobs, "["),
                (_, None) => (&self.definition.answer.job, "{"),
            };
            return no_place(place, needed, response.body(), body?);
        };
        let why = self.with_scope(job, element, |scope, _| {
            let rules = &self.definition.status;
            let other = rules.id.iter().find_map(|(place, source)| match self.nothing(source, scope) {
                Ok(why) => self.definition.batch.is_none().then_some(why),
                Err(found) if is_identifier(&found, scope.id.get(*place)) => None,
                Err(found) => {
                    let (written, expected) = (self.written(source), scope.id.get(*place));
                    let expected = expected.map(String::as_str).unwrap_or_default();
                    Some(format!(
                        "status.id reads {written}, which is {}, and the id has {expected:?}",
                        cut(&found)
                    ))
                }
            });
            let word = || {
                let source = rules.word.first()?;
                Some(self.no_text(source, scope))
            };
            Ok(other.or_else(|| self.word(scope).is_err().then(word).flatten()))
        });
        why.ok().flatten()
    }
}

/// Why nothing that begins so stands at a place.
fn no_place(place: &Place, needed: &str, bytes: &Bytes, body: Value<'_>) -> Option<String> {
    let why = |value: Value<'_>| {
        let scope = Scope { body: Some(value), ..Scope::default() };
        match place.path().find(value) {
            Some(found) if found.get().starts_with(needed) => None,
            Some(found) => {
                let needed = if needed == "{" { "an object" } else { "a list" };
                Some(format!(
                    "{} is {}, and {needed} is needed",
                    of_path(place.path()),
                    type_of(&Found::Json(found))
                ))
            }
            None => Some(absent(place.path(), &scope)),
        }
    };
    let Some(text) = place.text() else { return why(body) };
    let Some(value) = text.find(body) else {
        return Some(absent(text, &Scope { body: Some(body), ..Scope::default() }));
    };
    let held = held(bytes, value);
    match held.as_ref().and_then(|held| Value::parse(held)) {
        None => Some(match type_of(&Found::Json(value)) {
            "a text" => format!("{} is a text that is no JSON", of_path(text)),
            kind => format!("{} is {kind}, and a text that holds JSON is needed", of_path(text)),
        }),
        Some(value) => Some(format!("in the JSON of {}, as body: {}", of_path(text), why(value)?)),
    }
}

fn undeclared(key: &str) -> String {
    format!("status.{key} is not declared")
}

/// That a filter of states leaves out this one.
fn left_out(what: &str, filter: &StateFilter, state: JobState) -> Option<String> {
    (!filter.allows(state))
        .then(|| format!("{what} is not read of a job that is {}, by in or not_in", name_of(state)))
}

/// The first member on the way that is not there.
fn absent(path: &Path, scope: &Scope<'_>) -> String {
    let root = match path.root {
        Root::Job => scope.job,
        Root::Body => scope.body,
        Root::Item => scope.item,
    };
    let Some(mut value) = root else { return format!("there is no {}", of_path(path)) };
    for (count, step) in path.steps().iter().enumerate() {
        let before = of_path(&path.upto(count));
        let next = match step {
            Step::Name(name) if json::is_object(value) => {
                json::member(value, name).and_then(|found| found.value)
            }
            Step::Name(_) => {
                return format!("{before} is {}, which has no members", type_of(&Found::Json(value)));
            }
            Step::Index(index) => json::list(value).and_then(|list| list.get(*index).copied()),
        };
        let here = of_path(&path.upto(count + 1));
        match next {
            None => {
                return format!(
                    "{before} has no {}",
                    here.strip_prefix(&before).unwrap_or(&here).trim_start_matches('.')
                );
            }
            Some(next) if json::is_null(next) => return format!("{here} is null"),
            Some(next) => value = next,
        }
    }
    format!("{} is {}", of_path(path), type_of(&Found::Json(value)))
}

/// A value in JSON, shortened.
fn cut(found: &Found<'_>) -> String {
    let text = found.json().unwrap_or_default();
    let mut short: String = text.chars().take(LONGEST).collect();
    if short.len() < text.len() {
        short.push_str("..");
    }
    short
}
