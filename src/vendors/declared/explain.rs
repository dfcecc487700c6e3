//! How an answer is read, field by field, for people who write a definition.

use bytes::Bytes;
use http::Response;

use super::{
    Declared,
    definition::{StatusRules, Volatile},
    path::{Path, Root, Step},
    source::{Found, Scope, Source},
    table::STATES,
    time::TimeRule,
};
use crate::{
    job::{JobRef, JobState},
    vendors::{Adapter, Reading},
};

impl Declared {
    /// What each rule of the definition makes of an answer to a poll of one job.
    pub(super) fn readings(&self, job: &JobRef, response: &Response<Bytes>) -> Vec<Reading> {
        let jobs = std::slice::from_ref(job);
        let mut readings = Vec::new();
        let mut add =
            |key: String, from: String, found: Option<String>| readings.push(Reading { key, from, found });
        for name in &self.definition.headers {
            let value = response.headers().get(name).and_then(|value| value.to_str().ok());
            add(format!("http.headers['{name}']"), String::new(), value.map(str::to_owned));
        }
        if let Some(place) = self.fault_rule(jobs, response) {
            let is = self.definition.faults[place].is.name();
            add(format!("faults[{place}]"), String::new(), Some(format!("applies: {is}")));
        } else {
            let unmet = self.unmet_rules(jobs, response).into_iter();
            let all: Vec<String> = std::iter::once("no rule applies".to_owned()).chain(unmet).collect();
            add("faults".to_owned(), String::new(), Some(all.join("; ")));
        }
        let fault = Some::<String>;
        match self.split(jobs, response) {
            Err(wrong) => add("answer".to_owned(), String::new(), fault(format!("a fault: {}", wrong.kind))),
            Ok(elements) => match elements.as_slice() {
                [Ok(element)] => {
                    let read = self.read_with(job, element, |scope| {
                        let mut found = self.fields(scope);
                        found.extend(self.state_reading(scope, job, element));
                        Ok(found)
                    });
                    match read {
                        Ok(found) => readings.extend(found),
                        Err(wrong) => {
                            add("answer".to_owned(), String::new(), fault(format!("a fault: {wrong}")));
                        }
                    }
                }
                [Err(wrong)] => add("answer".to_owned(), String::new(), fault(format!("a fault: {wrong}"))),
                _ => {}
            },
        }
        readings
    }

    fn fields(&self, scope: &Scope<'_>) -> Vec<Reading> {
        let rules = &self.definition.status;
        let StatusRules { id, word, progress, error, warnings, result, .. } = rules;
        let mut found = Vec::new();
        let mut add = |key: String, source: &Source| {
            let value = source.try_find(scope);
            let value = match value {
                Err(_) => Some("the expression fails".to_owned()),
                Ok(value) => value.map(|value| shown(&value)),
            };
            found.push(Reading { key, from: self.written(source), found: value });
        };
        for (place, source) in id {
            let part = if self.definition.id.names.len() == 1 {
                String::new()
            } else {
                format!(".{}", self.definition.id.names[*place])
            };
            add(format!("status.id{part}"), source);
        }
        for (place, source) in word.iter().enumerate() {
            add(
                if word.len() == 1 { "status.word".to_owned() } else { format!("status.word[{place}]") },
                source,
            );
        }
        for (key, source) in rules.texts().into_iter().chain(progress.values()) {
            if let Some(source) = source {
                add(format!("status.{key}"), source);
            }
        }
        for (place, (source, _)) in error.iter().flat_map(|rule| &rule.words).enumerate() {
            let is_of_item = error.as_ref().is_some_and(|rule| rule.each.is_some());
            if !is_of_item {
                add(format!("status.error.message[{place}]"), source);
            }
        }
        for (place, source) in warnings.iter().enumerate() {
            add(format!("status.warnings[{place}]"), source);
        }
        let mut path = |key: &str, path: Option<&Path>| {
            let Some(path) = path else { return };
            let value = scope.job.and_then(|job| path.find(job));
            let value = value.map(|value| value.get().to_owned());
            found.push(Reading { key: key.to_owned(), from: of_path(path), found: value });
        };
        path("status.result", result.as_ref().map(|rule| &rule.at));
        path("status.error.details", error.as_ref().and_then(|rule| rule.details.as_ref()));
        for (key, rule) in rules.times() {
            found.extend(rule.into_iter().map(|rule| self.time(key, rule, scope)));
        }
        let volatile = rules.volatile.iter().map(|Volatile { object, name: (begin, end) }| {
            let star = end.as_ref().map(|end| format!("*{end}")).unwrap_or_default();
            Reading {
                key: "status.volatile".to_owned(),
                from: format!("{}.{begin}{star}", of_path(object)),
                found: Some("causes no events".to_owned()),
            }
        });
        found.extend(volatile);
        found
    }

    fn time(&self, key: &str, rule: &TimeRule, scope: &Scope<'_>) -> Reading {
        let value = rule.at.find(scope).map(|value| match rule.find(scope) {
            Some(time) => format!("{} is {time}", shown(&value)),
            None => format!("{} {}", shown(&value), rule.why_none(&value).unwrap_or_default()),
        });
        Reading { key: format!("status.{key}"), from: self.written(&rule.at), found: value }
    }

    /// The state and the files.
    fn state_reading(&self, scope: &Scope<'_>, job: &JobRef, element: &Bytes) -> Vec<Reading> {
        let reading = |key: &str, found: String| Reading {
            key: key.to_owned(),
            from: String::new(),
            found: Some(found),
        };
        let Ok(word) = self.word(scope) else {
            return vec![reading("states", "status.word is absent or no text".to_owned())];
        };
        let (state, pattern) = self.definition.states.state(&word);
        let name = STATES.iter().find(|(_, known)| *known == state).map_or("UNSPECIFIED", |(name, _)| name);
        let word = super::table::shown(&word);
        let mut found = vec![match pattern {
            Some(pattern) => reading("states", format!("{word:?} is {name}, by {pattern:?}")),
            None => reading("states", format!("{word:?} is an unknown word, so {name}; add it to [states]")),
        }];
        if let Ok(seen) = self.observe(job, element) {
            let files = seen.artifacts.iter().take(10);
            found.extend(files.map(|file| reading("files", format!("{} at {}", file.id, file.vendor_uri))));
            let more = seen.artifacts.len().saturating_sub(10);
            if more > 0 {
                found.push(reading("files", format!("and {more} more")));
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

fn shown(found: &Found<'_>) -> String {
    found.json().unwrap_or_default().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendors::{conformance::json, declared::tests};

    fn readings(body: &str, status: u16) -> (Vec<Reading>, bool) {
        let airflow = tests::declared(tests::shipped("airflow"), "https://v.example", "");
        let answer = json(status, body.to_owned());
        Adapter::readings(&airflow, &JobRef::new("b", "etl/a"), &answer).unwrap()
    }

    fn found(readings: &[Reading], key: &str) -> String {
        let reading = readings.iter().find(|reading| reading.key == key);
        let reading = reading.unwrap_or_else(|| panic!("{key}: {readings:?}"));
        format!("{} {}", reading.from, reading.found.as_deref().unwrap_or("absent"))
    }

    #[test]
    fn each_field_is_read_from_its_path() {
        let body = r#"{"dag_id": "etl", "dag_run_id": "a", "state": "success", "end_date": "2026-01-02T03:04:05+00:00", "start_date": "soon"}"#;
        let (readings, is_understood) = readings(body, 200);
        assert!(is_understood);
        for (key, text) in [
            ("faults", " no rule applies"),
            ("status.id.dag_run_id", "job.dag_run_id \"a\""),
            ("status.word", "job.state \"success\""),
            ("status.owner", "job.triggering_user_name absent"),
            ("status.end_time", "job.end_date \"2026-01-02T03:04:05+00:00\" is 2026-01-02T03:04:05Z"),
            ("status.start_time", "job.start_date \"soon\" is no time in ISO 8601; write its format"),
            ("status.volatile", "job.duration causes no events"),
            ("states", " \"success\" is SUCCEEDED, by \"success\""),
        ] {
            assert_eq!(found(&readings, key), text, "{key}");
        }
    }

    #[test]
    fn unknown_word_and_faults_are_not_understood() {
        let (unknown, is_understood) =
            readings(r#"{"dag_id": "etl", "dag_run_id": "a", "state": "deferred"}"#, 200);
        assert!(!is_understood);
        assert_eq!(
            found(&unknown, "states"),
            " \"deferred\" is an unknown word, so UNSPECIFIED; add it to [states]"
        );
        let (missing, is_understood) = readings(r#"{"detail": "the run was not found"}"#, 404);
        assert!(!is_understood);
        assert!(missing[0].key.starts_with("faults["), "{missing:?}");
        assert_eq!(missing[0].found.as_deref(), Some("applies: not_found"));
        assert_eq!(found(&missing, "answer"), " a fault: the vendor does not know this job");
        let (other, _) = readings(r#"{"dag_id": "etl", "dag_run_id": "b", "state": "success"}"#, 200);
        assert!(found(&other, "answer").ends_with("it is about another job"));
    }
}
