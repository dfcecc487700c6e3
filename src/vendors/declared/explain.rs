//! How an answer is read, field by field, for people who write a definition.

use bytes::Bytes;
use http::Response;

use super::{
    Declared,
    definition::{ContentRule, ResultRule, StatusRules, Volatile},
    expression::Failure,
    files,
    path::{Path, Root, Step},
    read,
    source::{Found, Scope, Source},
    table::STATES,
    time::TimeRule,
};
use crate::{
    job::{BackendFault, ContentType, JobRef, JobState},
    vendors::{Adapter, Reading, json},
};

mod taken;
#[cfg(test)]
mod tests;

use taken::{Kind, no_time, taken, whole};
pub(super) use taken::{no_content, type_of};

/// A reading in one line.
fn reading(key: impl Into<String>, from: impl Into<String>, found: Option<String>) -> Reading {
    Reading { key: key.into(), from: from.into(), found, is_value: false, lines: Vec::new() }
}

/// A value of the answer, or why it is none that the gateway takes.
fn reading_of(key: impl Into<String>, from: impl Into<String>, found: Result<String, String>) -> Reading {
    let is_value = found.is_ok();
    Reading { is_value, ..reading(key, from, Some(found.unwrap_or_else(|why| why))) }
}

/// The name of a state in definitions.
pub(super) fn name_of(state: JobState) -> &'static str {
    STATES.iter().find(|(_, known)| *known == state).map_or("UNSPECIFIED", |(name, _)| name)
}

impl Declared {
    /// What each rule of the definition makes of an answer to a poll of one job.
    pub(super) fn readings(&self, job: &JobRef, response: &Response<Bytes>) -> Vec<Reading> {
        let jobs = std::slice::from_ref(job);
        let mut readings = Vec::new();
        for name in &self.definition.headers {
            let value = response.headers().get(name).and_then(|value| value.to_str().ok());
            let key = format!("http.headers['{name}']");
            readings.push(Reading { is_value: true, ..reading(key, "", value.map(str::to_owned)) });
        }
        let (rule, split) = (self.fault_rule(jobs, response), self.split(jobs, response));
        let is_usual = rule.is_none() && split.is_err() && !response.status().is_success();
        if let Some(place) = rule {
            let is = self.definition.faults[place].is.name();
            readings.push(reading(format!("faults[{place}]"), "", Some(format!("applies: {is}"))));
        } else {
            let unmet = self.unmet_rules(jobs, response).into_iter();
            // The line about the answer says it, where the status has its usual meaning.
            let none = (!is_usual).then(|| "no rule applies".to_owned());
            let all: Vec<String> = none.into_iter().chain(unmet).collect();
            if !all.is_empty() {
                readings.push(reading("faults", "", Some(all.join("; "))));
            }
        }
        let fault = |wrong: &dyn std::fmt::Display| reading("answer", "", Some(format!("a fault: {wrong}")));
        let with_wait = |wrong: &BackendFault| match wrong.retry_after {
            Some(wait) => format!("{}; it asks to wait {} s", wrong.kind, wait.as_secs_f64().ceil()),
            None => wrong.kind.to_string(),
        };
        match split {
            Err(wrong) if is_usual => {
                let (status, kind) = (response.status().as_u16(), with_wait(&wrong));
                let text = format!("no rule applies; the usual meaning of HTTP {status} is a fault: {kind}");
                readings.push(reading("answer", "", Some(text)));
            }
            Err(wrong) => readings.push(fault(&with_wait(&wrong))),
            Ok(elements) => match elements.as_slice() {
                [Ok(element)] => {
                    let read = self
                        .read_with(job, element, |scope, source| Ok(self.all(scope, job, (element, source))));
                    match read {
                        Ok(found) => readings.extend(found),
                        Err(wrong) => {
                            // What the id is read as tells whether it is about another job.
                            let ids = self.with_scope(job, element, |scope, _| Ok(self.ids(scope)));
                            readings.extend(ids.unwrap_or_default());
                            readings.push(fault(&wrong));
                        }
                    }
                }
                [Err(wrong)] => readings.push(fault(wrong)),
                _ => {}
            },
        }
        readings
    }

    /// Every field, the state and the files.
    fn all(&self, scope: &Scope<'_>, job: &JobRef, (element, source): (&Bytes, &Bytes)) -> Vec<Reading> {
        let state = self.word(scope).ok().map(|word| self.definition.states.state_of(&word));
        let mut found = self.fields(scope, state, source);
        found.extend(self.state_reading(scope, job, element));
        found
    }

    /// One value as the gateway reads it.
    fn value(&self, key: impl Into<String>, source: &Source, kind: Kind, scope: &Scope<'_>) -> Reading {
        let from = self.written(source);
        match source.try_find(scope) {
            Err(_) => self.failed(key, source, scope),
            Ok(None) => reading(key, from, None),
            Ok(Some(found)) => reading_of(key, from, taken(kind, &found)),
        }
    }

    /// An expression that fails, with the reason.
    fn failed(&self, key: impl Into<String>, source: &Source, scope: &Scope<'_>) -> Reading {
        let failure = match source {
            Source::Expression(expression) => expression.failure(scope),
            _ => None,
        };
        let failed = "the expression fails";
        let (text, lines) = match failure {
            Some(Failure { reason, lines }) => (format!("{failed}: {reason}"), lines),
            None => (failed.to_owned(), Vec::new()),
        };
        Reading { lines, ..reading(key, self.written(source), Some(text)) }
    }

    fn fields(&self, scope: &Scope<'_>, state: Option<JobState>, source: &Bytes) -> Vec<Reading> {
        let rules = &self.definition.status;
        let StatusRules { word, progress, warnings, .. } = rules;
        let mut found = self.ids(scope);
        for (place, source) in word.iter().enumerate() {
            let key =
                if word.len() == 1 { "status.word".to_owned() } else { format!("status.word[{place}]") };
            let kind = Kind::Word { takes_bare: self.definition.states.accepts_bare(place) };
            found.push(self.value(key, source, kind, scope));
        }
        for (key, source) in rules.texts().into_iter().chain(progress.values()) {
            let kind = match key {
                "owner" => Kind::Name,
                "progress.percent" => Kind::Percent,
                "progress.completed_steps" | "progress.total_steps" => Kind::WholeNumber,
                _ => Kind::Text,
            };
            found.extend(source.map(|source| self.value(format!("status.{key}"), source, kind, scope)));
        }
        found.extend(self.error_readings(scope, state));
        for (place, source) in warnings.iter().enumerate() {
            let key = format!("status.warnings[{place}]");
            found.push(match state {
                Some(state) if state != JobState::Succeeded => {
                    Self::not_read(key, &self.written(source), state)
                }
                _ => self.value(key, source, Kind::Lines, scope),
            });
        }
        found.extend(self.result_readings(scope, state, source));
        for (key, rule) in rules.times() {
            found.extend(rule.into_iter().map(|rule| self.time(key, rule, scope)));
        }
        let volatile = rules.volatile.iter().map(|Volatile { object, name: (begin, end) }| {
            let star = end.as_ref().map(|end| format!("*{end}")).unwrap_or_default();
            let from = format!("{}.{begin}{star}", of_path(object));
            reading("status.volatile", from, Some("causes no events".to_owned()))
        });
        found.extend(volatile);
        found
    }

    /// The id, or each part of it.
    fn ids(&self, scope: &Scope<'_>) -> Vec<Reading> {
        let mut found = Vec::new();
        for (place, source) in &self.definition.status.id {
            let part = if self.definition.id.names.len() == 1 {
                String::new()
            } else {
                format!(".{}", self.definition.id.names[*place])
            };
            found.push(self.value(format!("status.id{part}"), source, Kind::Name, scope));
        }
        found
    }

    fn not_read(key: impl Into<String>, from: &str, state: JobState) -> Reading {
        reading(key, from, Some(format!("not read in {}", name_of(state))))
    }

    /// The words and the details of the error.
    fn error_readings(&self, scope: &Scope<'_>, state: Option<JobState>) -> Vec<Reading> {
        let Some(rule) = &self.definition.status.error else { return Vec::new() };
        let key = "status.error.message";
        let not_in = state.filter(|state| !rule.states.allows(*state));
        if rule.when.as_ref().is_some_and(|when| !when.holds(scope)) {
            return vec![reading(key, "", Some("not read, since when does not hold".to_owned()))];
        }
        let mut found = Vec::new();
        if let Some(each) = &rule.each {
            let from = format!("each of {}", of_path(each));
            let entries = scope.job.and_then(|job| each.find(job));
            found.push(match (not_in, entries) {
                (Some(state), _) => Self::not_read(key, &from, state),
                (None, None) => reading(key, from, None),
                (None, Some(entries)) if json::list(entries).is_none() => {
                    let why = format!("{}; a list is expected", type_of(&Found::Json(entries)));
                    reading(key, from, Some(why))
                }
                (None, Some(_)) => {
                    let message = read::error(rule, scope).map(|error| error.message);
                    let message = message.filter(|message| !message.is_empty());
                    let shown = message.map(|message| serde_json::Value::from(message).to_string());
                    reading_of(key, from, shown.ok_or_else(|| "no words in its elements".to_owned()))
                }
            });
        } else {
            // The first that has words counts.
            let mut first: Option<usize> = None;
            for (place, (source, is_wrapped)) in rule.words.iter().enumerate() {
                let (key, from) = (format!("{key}[{place}]"), self.written(source));
                let kind = if *is_wrapped { Kind::WrappedWords } else { Kind::Words };
                found.push(match (not_in, first) {
                    (Some(state), _) => Self::not_read(key, &from, state),
                    (None, Some(first)) => {
                        reading(key, from, Some(format!("not read, since message[{first}] has words")))
                    }
                    (None, None) => {
                        let has_words = source.find(scope).is_some_and(|value| taken(kind, &value).is_ok());
                        first = has_words.then_some(place);
                        self.value(key, source, kind, scope)
                    }
                });
            }
        }
        if rule.is_whole {
            let key = "status.error.whole";
            found.push(if let Some(state) = not_in {
                Self::not_read(key, "", state)
            } else {
                let details = read::error(rule, scope).map(|error| error.details);
                let details = details.filter(|details| !details.is_empty());
                let shown = details.map(|details| String::from_utf8_lossy(&details).into_owned());
                Reading { is_value: true, ..reading(key, "", shown) }
            });
        }
        if let Some(path) = &rule.details {
            let (key, from) = ("status.error.details", of_path(path));
            let value = scope.job.and_then(|job| path.find(job));
            let shown = value.map(|value| whole(&Found::Json(value)));
            found.push(match not_in {
                Some(state) => Self::not_read(key, &from, state),
                None => Reading { is_value: true, ..reading(key, from, shown) },
            });
        }
        found
    }

    /// Each output; the first that is found counts.
    fn result_readings(&self, scope: &Scope<'_>, state: Option<JobState>, source: &Bytes) -> Vec<Reading> {
        let rules = &self.definition.status.results;
        let mut first: Option<usize> = None;
        let mut one = |(place, rule): (usize, &ResultRule)| {
            let key = if rules.len() == 1 { String::new() } else { format!("[{place}]") };
            let key = format!("status.result{key}");
            let filter = rule.at.written.map(|written| format!(" | {}", written.name())).unwrap_or_default();
            let from = of_path(&rule.at.path) + &filter;
            if let Some(state) = state.filter(|state| !rule.states.allows(*state)) {
                return Self::not_read(key, &from, state);
            }
            if rule.when.as_ref().is_some_and(|when| !when.holds(scope)) {
                return reading(key, from, Some("not read, since when does not hold".to_owned()));
            }
            if let Some(first) = first {
                return reading(key, from, Some(format!("not read, since result[{first}] is found")));
            }
            let result = read::output(rule, scope, source);
            first = result.is_some().then_some(place);
            let value = scope.job.and_then(|job| rule.at.path.find(job)).map(Found::Json);
            let Some(value) = value else { return reading(key, from, None) };
            let found = match (&rule.at.written, rule.content) {
                (Some(written), _) => match result {
                    Some(result) => match std::str::from_utf8(&result.data) {
                        Ok(text) if result.content_type != ContentType::Avro => Ok(text.to_owned()),
                        _ => Err(format!("{} bytes", result.data.len())),
                    },
                    None => Err(no_content(*written, &value)),
                },
                (None, ContentRule::Text) => taken(Kind::OnlyText, &value),
                (None, ContentRule::Json | ContentRule::Auto | ContentRule::Avro) => Ok(whole(&value)),
            };
            reading_of(key, from, found)
        };
        rules.iter().enumerate().map(&mut one).collect()
    }

    fn time(&self, key: &str, rule: &TimeRule, scope: &Scope<'_>) -> Reading {
        let key = format!("status.{key}");
        let from = self.written(&rule.at);
        match rule.at.try_find(scope) {
            Err(_) => self.failed(key, &rule.at, scope),
            Ok(None) => reading(key, from, None),
            Ok(Some(value)) => {
                let found = match rule.find(scope) {
                    Some(time) => format!("{} is {time}", whole(&value)),
                    None => no_time(rule, &value),
                };
                reading(key, from, Some(found))
            }
        }
    }

    /// The state and the files.
    fn state_reading(&self, scope: &Scope<'_>, job: &JobRef, element: &Bytes) -> Vec<Reading> {
        let word = match self.word(scope) {
            Ok(word) => word,
            Err(wrong) => return vec![reading("states", "", Some(format!("no word: {wrong}")))],
        };
        let (state, pattern) = self.definition.states.state(&word);
        let (name, word) = (name_of(state), super::table::shown(&word));
        let text = match pattern {
            Some(pattern) => format!("{word:?} is {name}, by {pattern:?}"),
            None => format!("{word:?} is an unknown word, so {name}; add it to [states]"),
        };
        let mut found = vec![reading("states", "", Some(text))];
        for (place, rule) in self.definition.files.iter().enumerate() {
            let files = files::artifacts(std::slice::from_ref(rule), state, &self.base_url, scope);
            if files.is_empty() {
                let why = if rule.states().allows(state) {
                    "no file: each, when, or a part of its name or location is absent".to_owned()
                } else {
                    format!("not read in {name}")
                };
                found.push(reading(format!("files[{place}]"), "", Some(why)));
            }
        }
        if let Ok(seen) = self.observe(job, element) {
            let files = seen.artifacts.iter().take(10);
            found.extend(
                files.map(|file| reading("files", "", Some(format!("{} at {}", file.id, file.vendor_uri)))),
            );
            let more = seen.artifacts.len().saturating_sub(10);
            if more > 0 {
                found.push(reading("files", "", Some(format!("and {more} more"))));
            }
        }
        found
    }

    /// A source as the definition writes it.
    pub(super) fn written(&self, source: &Source) -> String {
        match source {
            Source::Path(path) => of_path(path),
            Source::Status => "http.status".to_owned(),
            Source::Header(name) => format!("http.headers['{name}']"),
            Source::Part(place) => {
                format!("id.{}", self.definition.id.names.get(*place).map_or("", String::as_str))
            }
            Source::Param(name) => format!("params.{name}"),
            Source::Variable(name) => name.clone(),
            Source::Expression(expression) => {
                expression.written.split_whitespace().collect::<Vec<_>>().join(" ")
            }
        }
    }

    /// Whether an answer is read as a status with a word that the table has.
    pub(super) fn is_understood(&self, job: &JobRef, response: &Response<Bytes>) -> bool {
        let elements = self.split(std::slice::from_ref(job), response);
        elements.is_ok_and(|elements| match elements.as_slice() {
            [Ok(element)] => {
                let is_known = self.hits(job, element).is_some_and(|(pattern, _)| pattern.is_some());
                is_known && self.observe(job, element).is_ok_and(|seen| seen.state != JobState::Unknown)
            }
            _ => false,
        })
    }
}

pub(super) fn of_path(path: &Path) -> String {
    let mut text = match path.root {
        Root::Job => "job",
        Root::Body => "body",
        Root::Item => "item",
    }
    .to_owned();
    for step in path.steps() {
        let is_bare = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let (open, name, close) = match step {
            Step::Name(name) if is_bare(name) => (".", name.clone(), ""),
            Step::Name(name) => ("['", name.clone(), "']"),
            Step::Index(index) => ("[", index.to_string(), "]"),
        };
        text = text + open + &name + close;
    }
    text
}
