//! Reads one element: the observation of a job.

use bytes::Bytes;
use minijinja::value::ValueKind;
use xxhash_rust::xxh3::Xxh3;

use super::{
    Declared,
    definition::{ContentRule, ElementKind, ErrorRule, ResultRule, Volatile},
    files,
    place::{Content, below, held},
    source::{Found, Http, Scope, Source, Work},
    split::{NO_JOB, opened},
};
use crate::{
    job::{ContentType, JobError, JobFault, JobRef, JobResult, JobState, Observation, Progress},
    vendors::json::{self, Object, Value},
};

/// Most warnings of one status.
const MOST_WARNINGS: usize = 32;

impl Declared {
    pub(super) fn read(&self, job: &JobRef, element: &Bytes) -> Result<Observation, JobFault> {
        self.read_with(job, element, |scope, source| self.observation(scope, source))
    }

    /// The pattern of `[states]` that the job's word fits, and the rules of `[[files]]` that
    /// give files, for the coverage of cases.
    pub(super) fn hits(&self, job: &JobRef, element: &Bytes) -> Option<(Option<String>, Vec<usize>)> {
        let hits = self.read_with(job, element, |scope, _| {
            let (state, pattern) = self.definition.states.state(&self.word(scope)?);
            let rules = self.definition.files.iter().enumerate();
            let gives = |(place, rule)| {
                (!files::artifacts(std::slice::from_ref(rule), state, &self.base_url, scope).is_empty())
                    .then_some(place)
            };
            Ok((pattern, rules.filter_map(gives).collect()))
        });
        hits.ok()
    }

    /// Reads the element; `read` also gets the bytes that the job is a part of.
    pub(super) fn read_with<T>(
        &self,
        job: &JobRef,
        element: &Bytes,
        read: impl FnOnce(&Scope<'_>, &Bytes) -> Result<T, JobFault>,
    ) -> Result<T, JobFault> {
        self.with_scope(job, element, |scope, source| {
            self.check_id(scope.id, scope)?;
            read(scope, source)
        })
    }

    /// The same, whichever job the element is about.
    pub(super) fn with_scope<T>(
        &self,
        job: &JobRef,
        element: &Bytes,
        read: impl FnOnce(&Scope<'_>, &Bytes) -> Result<T, JobFault>,
    ) -> Result<T, JobFault> {
        let malformed = |why| JobFault::Malformed { why };
        let place = &self.definition.answer.job;
        let (body, http): (Option<Value<'_>>, Option<Http>) = match self.definition.element {
            ElementKind::Job => (None, None),
            ElementKind::Body => (Some(Value::parse(element).ok_or(malformed("not JSON"))?), None),
            ElementKind::Envelope => {
                let (http, body) = opened(element).ok_or(malformed("not JSON"))?;
                (body, Some(http))
            }
        };
        // The text that holds the job, unless the element is the job itself.
        let text = match (self.definition.element, place.text()) {
            (ElementKind::Job, Some(_)) if element.starts_with(b"\"") => Value::parse(element),
            (ElementKind::Job, _) | (_, None) => None,
            (_, Some(text)) => body.and_then(|body| text.find(body)),
        };
        let unescaped = text.map(|text| held(element, text).ok_or(NO_JOB)).transpose()?;
        let source = unescaped.as_ref().unwrap_or(element);
        let (own, object) = if self.definition.element == ElementKind::Job {
            let Some((own, object)) = Object::parse_whole(source) else {
                let is_json = unescaped.is_none() || Value::parse(source).is_some();
                let why = if is_json { "not an object" } else { "the text that holds the job is no JSON" };
                return Err(malformed(why));
            };
            (Some(own), Some(object))
        } else {
            let own = if unescaped.is_some() {
                Value::parse(source).and_then(|whole| below(place.path(), whole))
            } else {
                body.and_then(|body| place.path().find(body))
            };
            let object = own.map(|own| Object::of(own).ok_or(malformed("not an object"))).transpose()?;
            (own, object)
        };
        let object = match object {
            Some(object) if self.is_graphql || self.definition.is_in_text() => {
                Some(object.unambiguous().ok_or(malformed("a name stands twice"))?)
            }
            object => object,
        };
        let id = self.definition.id.parts(&job.id).map_err(|_| malformed("the id has another form"))?;
        let scope = Scope {
            job: own,
            object: object.as_ref(),
            body,
            http: http.as_ref(),
            part_names: &self.definition.id.names,
            id: &id,
            params: Some(&self.params),
            work: Some(&Work::of(element.len())),
            ..Scope::default()
        };
        read(&scope, source)
    }

    /// That the element is about this job.
    fn check_id(&self, id: &[String], scope: &Scope<'_>) -> Result<(), JobFault> {
        for (place, source) in &self.definition.status.id {
            let own = source
                .try_find(scope)
                .map_err(|_| JobFault::Malformed { why: "the expression of status.id fails" })?;
            match own {
                Some(own) if !is_identifier(&own, id.get(*place)) => {
                    return Err(JobFault::Malformed { why: "it is about another job" });
                }
                // In a batch the place has said whose it is.
                None if self.definition.batch.is_none() => {
                    return Err(JobFault::Malformed { why: "status.id is absent" });
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn word(&self, scope: &Scope<'_>) -> Result<Vec<Option<String>>, JobFault> {
        let malformed = |why| JobFault::Malformed { why };
        let states = &self.definition.states;
        let part = |(place, source): (usize, &Source)| -> Result<Option<String>, JobFault> {
            match source.try_find(scope).map_err(|_| malformed("the expression of status.word fails"))? {
                None => Ok(None),
                Some(found) => {
                    let is_text = !is_bare(&found) || states.accepts_bare(place);
                    let word = found.text().filter(|_| is_text).ok_or(malformed("status.word is no text"))?;
                    // An empty word is a word, not an absent one, which may be an end.
                    Ok(Some(word))
                }
            }
        };
        let word: Vec<Option<String>> =
            self.definition.status.word.iter().enumerate().map(part).collect::<Result<_, _>>()?;
        if word.iter().all(Option::is_none) && !states.knows(&word) {
            return Err(malformed("status.word is absent"));
        }
        Ok(word)
    }

    fn observation(&self, scope: &Scope<'_>, element: &Bytes) -> Result<Observation, JobFault> {
        let own = scope.job;
        let rules = &self.definition.status;
        let word = self.word(scope)?;
        let state = self.definition.states.state_of(&word);
        let found = |source: &Option<Source>| source.as_ref().and_then(|source| source.find(scope));
        let text = |source: &Option<Source>| found(source).and_then(|found| found.text());
        let vendor_state = text(&rules.vendor_state).unwrap_or_else(|| joined(word));
        let time = |rule: &Option<super::time::TimeRule>| rule.as_ref().and_then(|rule| rule.find(scope));
        let vendor_payload = own.map_or(Bytes::from_static(b"null"), |own| json::part(element, own));
        let payload_hash = match (&rules.volatile[..], own) {
            ([], _) | (_, None) => None,
            (volatile, Some(own)) => Some(stable_hash(volatile, own)),
        };
        Ok(Observation {
            progress: self.progress(scope),
            result: self.result(state, scope, element),
            error: rules
                .error
                .as_ref()
                .filter(|rule| rule.states.allows(state))
                .filter(|rule| rule.when.as_ref().is_none_or(|when| when.may_hold(scope)))
                .and_then(|rule| error(rule, scope)),
            warnings: self.warnings(state, scope),
            artifacts: files::artifacts(&self.definition.files, state, &self.base_url, scope),
            job_type: text(&rules.job_type).unwrap_or_default(),
            description: text(&rules.description).unwrap_or_default(),
            vendor_url: text(&rules.vendor_url).unwrap_or_default(),
            // A flag or a fraction names nobody.
            owner: found(&rules.owner).and_then(|found| identifier(&found)).unwrap_or_default(),
            create_time: time(&rules.create_time),
            start_time: time(&rules.start_time),
            end_time: time(&rules.end_time),
            payload_hash,
            vendor_payload,
            ..Observation::new(state, vendor_state)
        })
    }

    fn progress(&self, scope: &Scope<'_>) -> Option<Progress> {
        let rules = &self.definition.status.progress;
        let find = |source: &Option<Source>| source.as_ref().and_then(|source| source.find(scope));
        let progress = Progress {
            percent: find(&rules.percent)
                .and_then(|found| found.number())
                .filter(|percent| (0.0..=100.0).contains(percent)),
            completed_steps: find(&rules.completed_steps).and_then(|found| found.integer()),
            total_steps: find(&rules.total_steps).and_then(|found| found.integer()),
            current_step: find(&rules.current_step).and_then(|found| found.text()).unwrap_or_default(),
        };
        (progress != Progress::default()).then_some(progress)
    }

    /// A line for each value that is there, and for each text of a list.
    fn warnings(&self, state: JobState, scope: &Scope<'_>) -> Vec<String> {
        if state != JobState::Succeeded {
            return Vec::new();
        }
        let sources = self.definition.status.warnings.iter();
        let lines = sources.filter_map(|source| source.find(scope)).flat_map(|found| lines(&found));
        lines.take(MOST_WARNINGS).collect()
    }

    /// The output by the first rule that finds one.
    fn result(&self, state: JobState, scope: &Scope<'_>, element: &Bytes) -> Option<JobResult> {
        let rules = self.definition.status.results.iter().filter(|rule| rule.states.allows(state));
        let mut rules = rules.filter(|rule| rule.when.as_ref().is_none_or(|when| when.holds(scope)));
        rules.find_map(|rule| output(rule, scope, element))
    }
}

pub(super) fn output(rule: &ResultRule, scope: &Scope<'_>, element: &Bytes) -> Option<JobResult> {
    let Content { path, written } = &rule.at;
    let found = match scope.object {
        Some(object) if !path.is_root() => path.find_in(object)?,
        _ => path.find(scope.job?)?,
    };
    if let Some(written) = written {
        let content_type = match rule.content {
            ContentRule::Json | ContentRule::Auto => ContentType::Json,
            ContentRule::Text => ContentType::Text,
            ContentRule::Avro => ContentType::Avro,
        };
        let is_usable = |data: &Bytes| content_type == ContentType::Avro || std::str::from_utf8(data).is_ok();
        let data = written.decoded(found).filter(|data| !data.is_empty() && is_usable(data))?;
        return Some(JobResult { data, content_type });
    }
    let text = match rule.content {
        ContentRule::Json => None,
        ContentRule::Auto | ContentRule::Text | ContentRule::Avro => json::text(found),
    };
    match text {
        Some(text) => Some(JobResult { data: text.into(), content_type: ContentType::Text }),
        None if rule.content == ContentRule::Text => None,
        None => Some(JobResult { data: json::part(element, found), content_type: ContentType::Json }),
    }
}

/// A line for each text that is not empty: the value itself, or the elements of a list.
pub(super) fn lines(found: &Found<'_>) -> Vec<String> {
    let mut lines: Vec<String> = match found {
        Found::Json(value) => match json::list(*value) {
            Some(list) => list.into_iter().filter_map(json::text).collect(),
            None => json::text(*value).into_iter().collect(),
        },
        // A list that an expression made.
        Found::Value(list) if matches!(list.kind(), ValueKind::Seq | ValueKind::Iterable) => list
            .try_iter()
            .into_iter()
            .flatten()
            .filter_map(|text| text.as_str().map(str::to_owned))
            .collect(),
        _ => text_alone(found).into_iter().collect(),
    };
    lines.retain(|line| !line.trim().is_empty());
    lines
}

/// The parts of a word that are there.
fn joined(word: Vec<Option<String>>) -> String {
    let mut parts: Vec<String> = word.into_iter().flatten().collect();
    if parts.len() == 1 { parts.swap_remove(0) } else { parts.join("/") }
}

/// Whether it is a number or a flag.
pub(super) fn is_bare(found: &Found<'_>) -> bool {
    match found {
        Found::Json(value) => !value.get().starts_with(['"', '{', '[']),
        Found::Text(_) => false,
        Found::Value(value) => {
            matches!(value.kind(), ValueKind::Number | ValueKind::Bool)
        }
    }
}

/// Whether it is this identifier.
pub(super) fn is_identifier(found: &Found<'_>, id: Option<&String>) -> bool {
    let id = id.map(String::as_str);
    match found {
        Found::Json(value) => json::identifier_of(*value).as_deref() == id,
        Found::Text(text) => Some(&**text) == id,
        Found::Value(_) => found.text().as_deref() == id,
    }
}

/// An identifier, written as a text or as an integer of any size.
pub(super) fn identifier(found: &Found<'_>) -> Option<String> {
    match found {
        Found::Json(value) => json::identifier(*value),
        _ => found.text(),
    }
}

pub(super) fn error<'a>(rule: &ErrorRule, scope: &Scope<'a>) -> Option<JobError> {
    let mut details = rule.details.as_ref().and_then(|path| path.find(scope.job?));
    let words = |scope: &Scope<'a>| {
        rule.words.iter().find_map(|(source, is_wrapped)| {
            let found = source.find(scope)?;
            let words = if *is_wrapped { wrapped(&found) } else { text_alone(&found) };
            Some((words.filter(|words| !words.trim().is_empty())?, found))
        })
    };
    let message = match &rule.each {
        None => words(scope).map(|(words, found)| {
            if let (true, Found::Json(value)) = (rule.is_whole, found) {
                details = Some(value);
            }
            words
        }),
        Some(each) => {
            let entries = each.find(scope.job?)?;
            let entries = json::list(entries);
            if entries.as_ref().is_some_and(Vec::is_empty) {
                return None;
            }
            let line = |item: Value<'a>| words(&Scope { item: Some(item), ..*scope }).map(|(words, _)| words);
            let lines: Vec<String> = entries.into_iter().flatten().filter_map(line).collect();
            Some(lines.join("\n"))
        }
    };
    if message.is_none() && details.is_none() {
        return None;
    }
    Some(JobError {
        message: message.unwrap_or_default(),
        details: details.map(json::bytes).unwrap_or_default(),
    })
}

pub(super) fn wrapped(found: &Found<'_>) -> Option<String> {
    match found {
        Found::Json(value) => json::message(*value),
        _ => text_alone(found),
    }
}

/// A text and nothing else, by a path or by an expression.
pub(super) fn text_alone(found: &Found<'_>) -> Option<String> {
    match found {
        Found::Json(value) => json::text(*value),
        Found::Value(value) => value.as_str().map(str::to_owned),
        Found::Text(text) => Some(text.clone().into_owned()),
    }
}

/// A hash of the job without its volatile members.
fn stable_hash(volatile: &[Volatile], job: Value<'_>) -> u64 {
    let begin = job.get().as_ptr() as usize;
    let mut left_out: Vec<(usize, usize)> = Vec::new();
    for rule in volatile {
        let Some(object) = rule.object.find(job).and_then(Object::of) else { continue };
        for (_, value) in object.members().filter(|(name, _)| rule.fits(name)) {
            let at = (value.get().as_ptr() as usize).saturating_sub(begin);
            left_out.push((at, at + value.get().len()));
        }
    }
    left_out.sort_unstable();
    let (bytes, mut at) = (job.get().as_bytes(), 0);
    let mut hash = Xxh3::new();
    for (from, to) in left_out {
        hash.update(bytes.get(at..from).unwrap_or_default());
        at = at.max(to);
    }
    hash.update(bytes.get(at..).unwrap_or_default());
    hash.digest()
}
