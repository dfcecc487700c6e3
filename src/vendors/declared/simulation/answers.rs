//! Answers of cases, made answers about other jobs.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value};

use super::{Simulation, path_of};
use crate::{
    job::{JobRef, JobState},
    vendors::{
        Adapter,
        declared::{
            Declared,
            cases::Cases,
            definition::Batch,
            path::{Path, Root, Step},
            place::Place,
            source::Source,
            table::STATES,
        },
    },
};

/// Shortest id that is looked for within texts, such as URLs.
const TELLING: usize = 4;

/// One word that a job may have, with an answer that says it.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    pub(super) state: JobState,
    pub(super) vendor_state: String,
    /// The job that the answer is about.
    pub(super) id: String,
    /// The whole answer, where it is about one job.
    response: Option<Response<Bytes>>,
    /// The job's own object.
    job: Value,
}

impl Stage {
    pub(super) fn state_name(&self) -> &'static str {
        STATES.iter().find(|(_, state)| *state == self.state).map_or("UNSPECIFIED", |(name, _)| name)
    }
}

/// A response in JSON.
pub(super) fn json(status: StatusCode, body: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// One for each word, in the order of the table.
pub(super) fn stages(adapter: &Declared, cases: &Cases) -> Vec<Stage> {
    let mut stages: Vec<Stage> = Vec::new();
    for case in &cases.cases {
        let Some(response) = &case.response else { continue };
        let jobs: Vec<JobRef> = case.ids.iter().map(|id| JobRef::new("simulated", id.as_str())).collect();
        let Ok(elements) = adapter.split(&jobs, response) else { continue };
        let is_single = adapter.question(&jobs).1.is_none();
        for (job, element) in jobs.iter().zip(elements.as_slice()) {
            let Ok(element) = element else { continue };
            let Ok(seen) = adapter.observe(job, element) else { continue };
            let vendor_state = seen.vendor_state.clone();
            if seen.state == JobState::Unknown
                || stages.iter().any(|stage| stage.vendor_state == vendor_state)
            {
                continue;
            }
            let own: Value = serde_json::from_slice(&seen.vendor_payload).unwrap_or(Value::Null);
            let response = is_single.then(|| response.clone());
            stages.push(Stage {
                state: seen.state,
                vendor_state,
                id: job.id.to_string(),
                response,
                job: own,
            });
        }
    }
    let made = made(adapter, &stages);
    stages.extend(made);
    let place = |state: JobState| STATES.iter().position(|(_, known)| *known == state);
    stages.sort_by_key(|stage| place(stage.state));
    stages
}

/// Stages for words without a case: the answer of another case with the word in it.
fn made(adapter: &Declared, stages: &[Stage]) -> Vec<Stage> {
    let rules = &adapter.definition.status;
    let paths: Option<Vec<&Path>> = rules.word.iter().map(path_of).collect();
    let Some(paths) = paths.filter(|paths| paths.iter().all(|path| path.root == Root::Job)) else {
        return Vec::new();
    };
    let mut made: Vec<Stage> = Vec::new();
    for (name, parts) in adapter.definition.states.words() {
        let Some((_, state)) = STATES.iter().find(|(known, _)| *known == name) else { continue };
        if stages.iter().chain(&made).any(|stage| stage.state == *state) {
            continue;
        }
        let fits = |stage: &&Stage| stage.state.is_terminal() == state.is_terminal();
        let Some(base) = stages.iter().find(fits).or(stages.first()) else { continue };
        let mut next = base.clone();
        for (path, part) in paths.iter().zip(&parts) {
            match part {
                Some(word) => set(&mut next.job, path.steps(), retyped(word, at(&base.job, path.steps()))),
                None => set(&mut next.job, path.steps(), Value::Null),
            }
        }
        if !state.is_terminal()
            && let Some(path) = rules.end_time.as_ref().and_then(|rule| path_of(&rule.at))
            && at(&next.job, path.steps()).is_some()
        {
            set(&mut next.job, path.steps(), Value::Null);
        }
        let job = JobRef::new("simulated", next.id.as_str());
        let response = answer(adapter, &next, &next.job);
        let seen = adapter
            .split(std::slice::from_ref(&job), &response)
            .ok()
            .and_then(|elements| adapter.observe(&job, elements.as_slice().first()?.as_ref().ok()?).ok());
        if let Some(seen) = seen.filter(|seen| seen.state == *state) {
            next.state = *state;
            next.vendor_state.clone_from(&seen.vendor_state);
            next.response = next.response.is_some().then_some(response);
            made.push(next);
        }
    }
    made
}

/// The same value as a number where the other one is.
fn retyped(text: &str, other: Option<&Value>) -> Value {
    match (other, text.parse::<i64>()) {
        (Some(Value::Number(_)), Ok(number)) => number.into(),
        _ => text.into(),
    }
}

fn at<'v>(value: &'v Value, steps: &[Step]) -> Option<&'v Value> {
    steps.iter().try_fold(value, |value, step| match step {
        Step::Name(name) => value.get(name),
        Step::Index(index) => value.get(index),
    })
}

/// The value at a place, also in a text that holds JSON.
fn at_place(body: &Value, place: &Place) -> Option<Value> {
    match place.text() {
        None => at(body, place.path().steps()).cloned(),
        Some(text) => match at(body, text.steps())? {
            Value::String(held) => at(&serde_json::from_str(held).ok()?, place.path().steps()).cloned(),
            held => at(held, place.path().steps()).cloned(),
        },
    }
}

/// Writes a value at a place; where that is in a text, the text is written anew.
fn set_place(body: &mut Value, place: &Place, new: Value) {
    let Some(text) = place.text() else { return set(body, place.path().steps(), new) };
    let mut held = match at(body, text.steps()) {
        Some(Value::String(held)) => serde_json::from_str(held).unwrap_or(Value::Null),
        _ => Value::Null,
    };
    set(&mut held, place.path().steps(), new);
    set(body, text.steps(), held.to_string().into());
}

/// Writes a value at a path, and the objects on the way.
pub(super) fn set(value: &mut Value, steps: &[Step], new: Value) {
    let Some((step, rest)) = steps.split_first() else {
        *value = new;
        return;
    };
    match step {
        Step::Name(name) => {
            if !value.is_object() {
                *value = Value::Object(Map::new());
            }
            if let Value::Object(members) = value {
                set(members.entry(name.clone()).or_insert(Value::Null), rest, new);
            }
        }
        Step::Index(index) => {
            if !value.is_array() {
                *value = Value::Array(Vec::new());
            }
            if let Value::Array(items) = value {
                // Paths of definitions are short; an index is what a person wrote.
                items.resize(items.len().max((*index).min(1000) + 1), Value::Null);
                if let Some(item) = items.get_mut(*index) {
                    set(item, rest, new);
                }
            }
        }
    }
}

/// The answer to a request for one job, with this object of it.
fn answer(adapter: &Declared, stage: &Stage, job: &Value) -> Response<Bytes> {
    let own = JobRef::new("simulated", stage.id.as_str());
    if let (_, Some(batch)) = adapter.question(std::slice::from_ref(&own)) {
        let mut body = Value::Object(Map::new());
        let jobs = if batch.by_id {
            let id = job_id_of(adapter, job).unwrap_or_else(|| stage.id.clone());
            Value::Object(Map::from_iter([(id, job.clone())]))
        } else {
            Value::Array(vec![job.clone()])
        };
        set_place(&mut body, &batch.jobs, jobs);
        return json(StatusCode::OK, &body);
    }
    let place = &adapter.definition.answer.job;
    let Some(response) = &stage.response else {
        let mut body = Value::Object(Map::new());
        set_place(&mut body, place, job.clone());
        return json(StatusCode::OK, &body);
    };
    let mut response = response.clone();
    if let Ok(mut body) = serde_json::from_slice::<Value>(response.body()) {
        set_place(&mut body, place, job.clone());
        *response.body_mut() = body.to_string().into();
    }
    response
}

fn job_id_of(adapter: &Declared, job: &Value) -> Option<String> {
    let (_, Source::Path(path)) = adapter.definition.status.id.first()? else { return None };
    match at(job, path.steps())? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The body of an answer to a batch, whose jobs are replaced.
pub(super) fn batch_body(adapter: &Declared, cases: &Cases) -> Value {
    let is_batch = |ids: &[String]| {
        let jobs: Vec<JobRef> = ids.iter().map(|id| JobRef::new("simulated", id.as_str())).collect();
        adapter.question(&jobs).1.is_some()
    };
    let found = cases.cases.iter().filter(|case| is_batch(&case.ids)).find_map(|case| {
        let response = case.response.as_ref()?;
        let place = &adapter.definition.batch.as_ref()?.jobs;
        let body: Value = serde_json::from_slice(response.body()).ok()?;
        (response.status().is_success() && at_place(&body, place).is_some()).then_some(body)
    });
    found.unwrap_or_else(|| Value::Object(Map::new()))
}

impl Simulation {
    /// The answer about one job.
    pub(super) fn single_answer(&self, stage: &Stage, job: &JobRef) -> Response<Bytes> {
        let own = self.job_object(stage, &job.id);
        let mut response = answer(&self.adapter, stage, &own);
        if let Ok(mut body) = serde_json::from_slice::<Value>(response.body()) {
            self.replace_ids(&mut body, stage, &job.id);
            set_place(&mut body, &self.definition.answer.job, own);
            *response.body_mut() = body.to_string().into();
        }
        for value in response.headers_mut().values_mut() {
            if stage.id.len() >= TELLING
                && let Ok(text) = value.to_str()
                && text.contains(&stage.id)
                && let Ok(replaced) = HeaderValue::from_str(&text.replace(&stage.id, &job.id))
            {
                *value = replaced;
            }
        }
        response
    }

    /// The answer about several jobs.
    pub(super) fn batch_answer(
        &self,
        batch: &Batch,
        jobs: &[JobRef],
        stages: &[Option<usize>],
    ) -> Response<Bytes> {
        let known = jobs.iter().zip(stages);
        let known =
            known.filter_map(|(job, stage)| Some((job, self.job_object(&self.stages[(*stage)?], &job.id))));
        let list = if batch.by_id {
            Value::Object(known.map(|(job, own)| (job.id.to_string(), own)).collect())
        } else {
            Value::Array(known.map(|(_, own)| own).collect())
        };
        let mut body = self.batch_body.clone();
        set_place(&mut body, &batch.jobs, list);
        json(StatusCode::OK, &body)
    }

    /// The job's own object of a stage, about this job.
    fn job_object(&self, stage: &Stage, id: &str) -> Value {
        let mut own = stage.job.clone();
        self.replace_ids(&mut own, stage, id);
        let rules = &self.definition.status.id;
        if rules.iter().any(|(_, source)| path_of(source).is_none()) {
            let words = |id: &str| -> Vec<String> {
                id.split(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '-'))
                    .map(str::to_owned)
                    .collect()
            };
            let (old, new) = (words(&stage.id), words(id));
            if old.len() == new.len() {
                exchange(&mut own, &old.into_iter().zip(new).collect::<Vec<_>>());
            }
        }
        let Ok(parts) = self.definition.id.parts(id) else { return own };
        for (place, source) in rules {
            if let (Some(path), Some(part)) = (path_of(source), parts.get(*place)) {
                let old = at(&own, path.steps()).cloned();
                set(&mut own, path.steps(), retyped(part, old.as_ref()));
            }
        }
        own
    }

    /// Replaces the id of the case, and its parts, in texts.
    fn replace_ids(&self, value: &mut Value, stage: &Stage, id: &str) {
        let ids = &self.definition.id;
        let (Ok(old), Ok(new)) = (ids.parts(&stage.id), ids.parts(id)) else { return };
        let pairs: Vec<(String, String)> =
            old.into_iter().zip(new).filter(|(old, _)| old.len() >= TELLING).collect();
        replace(value, &pairs);
    }
}

/// Replaces whole values, for ids that an expression puts together.
fn exchange(value: &mut Value, pairs: &[(String, String)]) {
    match value {
        Value::String(text) => {
            if let Some((_, new)) = pairs.iter().find(|(old, _)| old == text) {
                text.clone_from(new);
            }
        }
        Value::Number(number) => {
            let written = number.to_string();
            if let Some((_, new)) = pairs.iter().find(|(old, _)| *old == written) {
                *value = retyped(new, Some(&Value::from(0)));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| exchange(item, pairs)),
        Value::Object(members) => members.values_mut().for_each(|value| exchange(value, pairs)),
        _ => {}
    }
}

fn replace(value: &mut Value, pairs: &[(String, String)]) {
    match value {
        Value::String(text) => {
            for (old, new) in pairs {
                if text.contains(old.as_str()) {
                    *text = text.replace(old.as_str(), new);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, pairs)),
        Value::Object(members) => members.values_mut().for_each(|value| replace(value, pairs)),
        _ => {}
    }
}
