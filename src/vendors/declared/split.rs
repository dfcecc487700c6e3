//! A response in parts: the job's own part, a list matched by id, or an object by id.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};

use super::{
    Declared,
    definition::{Batch, ElementKind, Question},
    path::{Path, Step},
    place::{below, held},
    source::{Http, Scope, Source},
};
use crate::{
    job::{BackendFault, JobFault, JobRef},
    vendors::{
        Elements,
        datasaur::{GraphqlErrors, JobList, JobsAt, Place},
        elements::CONTRADICTED,
        json::{self, Object, Value},
        response,
    },
};

pub(super) const NO_JOB: JobFault = JobFault::Malformed { why: "no job in JSON where the definition says" };

impl Declared {
    /// Splits a response that is an answer, not a fault.
    pub(super) fn split_answer(
        &self,
        jobs: &[JobRef],
        response: &Response<Bytes>,
    ) -> Result<Elements, BackendFault> {
        match self.question(jobs) {
            (question, None) => self.split_single(question, jobs, response),
            (question, Some(batch)) => self.split_batch(question, batch, jobs, response),
        }
    }

    /// What a response says that is no success and that no rule speaks of.
    pub(super) fn split_refusal(
        &self,
        jobs: &[JobRef],
        response: &Response<Bytes>,
    ) -> Result<Elements, BackendFault> {
        let (question, _) = self.question(jobs);
        if question.is_graphql
            && let Some(body) = Object::parse(response.body()).and_then(Object::unambiguous)
        {
            return self.graphql(jobs, &body, response);
        }
        if question.is_graphql {
            return Err(response::rejected("", response.status()));
        }
        Err(response::rejected(&self.definition.refusal_words(response), response.status()))
    }

    /// A response of GraphQL without a job in it.
    fn graphql(
        &self,
        jobs: &[JobRef],
        body: &Object<'_>,
        response: &Response<Bytes>,
    ) -> Result<Elements, BackendFault> {
        let status = response.status();
        let errors = graphql_errors(body.get("errors"), self.question(jobs).1);
        if errors.is_empty() && !status.is_success() {
            return Err(response::rejected("", status));
        }
        if !status.is_success()
            && let (_, Some(batch)) = self.question(jobs)
            && batch.jobs.text().is_none()
            && let Some(list) = batch.jobs.path().find_unambiguous(body).and_then(json::list)
        {
            return self.job_list(list).split(jobs, &errors, response.body());
        }
        if errors.is_empty() {
            return Err(response::malformed("no job where the definition says", status));
        }
        errors.of_the_whole(jobs, status).map(|fault| Elements::all_failed(jobs, &fault))
    }

    fn job_list<'a>(&self, list: Vec<Value<'a>>) -> JobList<'a> {
        JobList::read(list, |element| self.own_id(element))
    }

    fn split_single(
        &self,
        question: &Question,
        jobs: &[JobRef],
        response: &Response<Bytes>,
    ) -> Result<Elements, BackendFault> {
        let (answer, status) = (&self.definition.answer, response.status());
        let is_word = answer.states_by_status.contains(&status.as_u16());
        if answer.may_be_empty && response.body().trim_ascii().is_empty() {
            if self.definition.element != ElementKind::Envelope {
                return Err(response::malformed("no content", status));
            }
            let element = envelope(&self.http(response), None);
            return Ok(Elements::for_each(jobs, |_, _| Ok(element.clone())));
        }
        response::check_json(response)?;
        if let Some(text) = answer.job.text() {
            return self.split_text(text, question, jobs, response);
        }
        let Some(body) = Value::parse(response.body()) else {
            return Err(response::malformed("not JSON", status));
        };
        let Some(job) = answer.job.path().find(body).filter(|job| json::is_object(*job)) else {
            if question.is_graphql
                && let Some(body) = Object::of(body).and_then(Object::unambiguous)
            {
                return self.graphql(jobs, &body, response);
            }
            return Err(response::malformed("no job where the definition says", status));
        };
        // An answer that is not ready yet says nothing of the job.
        if status == StatusCode::ACCEPTED && !is_word && !self.has_word(job) {
            return Err(response::malformed("no state of the job", status));
        }
        let element = match self.definition.element {
            ElementKind::Job => json::part(response.body(), job),
            ElementKind::Body => json::part(response.body(), body),
            ElementKind::Envelope => envelope(&self.http(response), Some(body)),
        };
        Ok(Elements::for_each(jobs, |_, _| Ok(element.clone())))
    }

    /// The same where the job stands in a text. It is unescaped where the element is read, so
    /// that an element which has not changed costs no more than its hash.
    fn split_text(
        &self,
        text: &Path,
        question: &Question,
        jobs: &[JobRef],
        response: &Response<Bytes>,
    ) -> Result<Elements, BackendFault> {
        let (body, status) = (response.body(), response.status());
        let Some((whole, wrapper)) = self.definition.body(response) else {
            return Err(response::malformed("not JSON, or a name stands twice in it", status));
        };
        let found = match &wrapper {
            _ if text.is_root() => Some(whole),
            Some(wrapper) => text.find_unambiguous(wrapper),
            None => return Err(response::malformed("no job where the definition says", status)),
        };
        if let (None, true, Some(wrapper)) = (found, question.is_graphql, &wrapper) {
            return self.graphql(jobs, wrapper, response);
        }
        let path = self.definition.answer.job.path();
        let element = match (self.definition.element, found) {
            (ElementKind::Body, _) => Ok(json::part(body, whole)),
            (ElementKind::Envelope, _) => Ok(envelope(&self.http(response), Some(whole))),
            (ElementKind::Job, Some(value)) if path.is_root() => Ok(json::part(body, value)),
            (ElementKind::Job, value) => {
                let held = value.and_then(|value| held(body, value));
                let own = held.as_ref().and_then(|held| Some((held, below(path, Value::parse(held)?)?)));
                own.map(|(held, own)| json::part(held, own)).ok_or(NO_JOB)
            }
        };
        Ok(Elements::for_each(jobs, |_, _| element.clone()))
    }

    fn split_batch(
        &self,
        question: &Question,
        batch: &Batch,
        jobs: &[JobRef],
        response: &Response<Bytes>,
    ) -> Result<Elements, BackendFault> {
        let status = response.status();
        response::check_json(response)?;
        let malformed = |why| Err(response::malformed(why, status));
        let path = batch.jobs.path();
        if let Some(text) = batch.jobs.text() {
            return self.split_batch_in_text(text, (question, batch), jobs, response);
        }
        if !batch.by_id && !question.is_graphql && path.first_name().is_none() {
            let Some(body) = Value::parse(response.body()) else { return malformed("not JSON") };
            return match path.find(body).and_then(json::list) {
                Some(list) => self.job_list(list).split(jobs, &GraphqlErrors::none(), response.body()),
                None => malformed("no jobs where the definition says"),
            };
        }
        // Each scan of a long response counts.
        let object = Object::parse(response.body());
        let object = if question.is_graphql { object.and_then(Object::unambiguous) } else { object };
        let Some(object) = object else {
            return malformed(match Value::parse(response.body()) {
                None => "not JSON",
                Some(_) if question.is_graphql => "not a GraphQL response",
                Some(_) => "no jobs where the definition says",
            });
        };
        let errors = graphql_errors(object.get("errors").filter(|_| question.is_graphql), Some(batch));
        let jobs_of =
            |object: &Object<'_>| self.split_object(object, jobs, &errors, (status, response.body()));
        if batch.by_id && path.is_root() {
            return jobs_of(&object);
        }
        let found = if question.is_graphql { path.find_unambiguous(&object) } else { path.find_in(&object) };
        if batch.by_id
            && let Some(by_id) = found.and_then(Object::of)
        {
            return jobs_of(&by_id);
        }
        if let Some(list) = found.and_then(json::list).filter(|_| !batch.by_id) {
            return self.job_list(list).split(jobs, &errors, response.body());
        }
        if question.is_graphql {
            return self.graphql(jobs, &object, response);
        }
        malformed("no jobs where the definition says")
    }

    /// The same where the jobs stand in a text.
    fn split_batch_in_text(
        &self,
        text: &Path,
        (question, batch): (&Question, &Batch),
        jobs: &[JobRef],
        response: &Response<Bytes>,
    ) -> Result<Elements, BackendFault> {
        let malformed = |why| Err(response::malformed(why, response.status()));
        let Some((whole, wrapper)) = self.definition.body(response) else {
            return malformed("not JSON, or a name stands twice in it");
        };
        let found = match &wrapper {
            _ if text.is_root() => Some(whole),
            Some(wrapper) => text.find_unambiguous(wrapper),
            None => None,
        };
        let wrapper = wrapper.filter(|_| question.is_graphql);
        let Some(content) = found.and_then(|value| held(response.body(), value)) else {
            return match wrapper {
                Some(wrapper) => self.graphql(jobs, &wrapper, response),
                None => malformed("no jobs where the definition says"),
            };
        };
        let errors = graphql_errors(wrapper.and_then(|wrapper| wrapper.get("errors")), Some(batch));
        let found = Value::parse(&content).and_then(|value| below(batch.jobs.path(), value));
        if let Some(by_id) = found.filter(|_| batch.by_id).and_then(Object::of) {
            return self.split_object(&by_id, jobs, &errors, (response.status(), &content));
        }
        match found.filter(|_| !batch.by_id).and_then(json::list) {
            Some(list) => self.job_list(list).split(jobs, &errors, &content),
            None => malformed("no jobs where the definition says"),
        }
    }

    /// An object that has each job by its id; null is a job that does not exist, unless an error
    /// of GraphQL explains it.
    fn split_object(
        &self,
        body: &Object<'_>,
        jobs: &[JobRef],
        errors: &GraphqlErrors,
        (status, content): (StatusCode, &Bytes),
    ) -> Result<Elements, BackendFault> {
        let members: Vec<(&str, Value<'_>)> = body.members().collect();
        let has_data = !errors.is_empty() && members.iter().any(|(_, value)| json::is_object(*value));
        let absent = |job: &JobRef, unless_explained: JobFault| {
            let explained = errors.of_one(
                |place| matches!(place, Place::Id { id, .. } if **id == *job.id),
                job,
                has_data,
            );
            explained.map(|fault| Err(fault.unwrap_or(unless_explained)))
        };
        let part = |job: &JobRef, element: Value<'_>| {
            if json::is_null(element) {
                absent(job, JobFault::NotFound)
            } else {
                Ok(Ok(json::part(content, element)))
            }
        };
        // The usual case: the order of the request.
        if members.iter().map(|(id, _)| *id).eq(jobs.iter().map(|job| &*job.id)) {
            return Elements::try_for_each(jobs, |index, job| part(job, members[index].1));
        }
        let (elements, contradicted) = json::by_name(members);
        // That a job is missing can only be told by a response that is about jobs.
        let is_job = |element: &Value<'_>| {
            json::is_null(*element) || json::is_object(*element) && self.has_word(*element)
        };
        let has_element = |job: &JobRef| elements.contains_key(&*job.id);
        if !jobs.iter().any(has_element) && !elements.values().all(is_job) {
            return Err(response::malformed("not an object of jobs", status));
        }
        let polled: HashSet<&str> = jobs.iter().map(|job| &*job.id).collect();
        let is_strange = |(id, element): (&&str, &Value<'_>)| !polled.contains(id) && is_job(element);
        // A response about other jobs may be the response to another request.
        let missing = if elements.iter().any(is_strange) {
            JobFault::Malformed { why: "the answer is about other jobs" }
        } else {
            JobFault::NotFound
        };
        Elements::try_for_each(jobs, |_, job| match elements.get(&*job.id) {
            Some(_) if contradicted.contains(&*job.id) => Ok(Err(CONTRADICTED)),
            Some(element) => part(job, *element),
            None => absent(job, missing.clone()),
        })
    }

    /// Whether the first part of the word is there.
    fn has_word(&self, job: Value<'_>) -> bool {
        let scope = Scope { job: Some(job), params: Some(&self.params), ..Scope::default() };
        self.definition
            .status
            .word
            .iter()
            .any(|source| !source.needs("http") && source.find(&scope).is_some())
    }

    /// The id that an element of a list gives itself. Of a repeated name, nothing says which
    /// is right.
    fn own_id(&self, element: Value<'_>) -> Option<String> {
        let rules = &self.definition.status.id;
        // The usual case needs no more than one member.
        if let [(_, Source::Path(path))] = &rules[..]
            && let [Step::Name(name)] = path.steps()
            && self.definition.id.is_one_part()
        {
            let member = json::member(element, name).filter(|member| !member.is_repeated)?;
            return json::identifier(member.value?).filter(|id| self.definition.id.is_part(id));
        }
        let object = Object::of(element)?;
        let is_ambiguous = |(_, source): &(usize, Source)| !source.is_unambiguous_in(&object);
        if rules.iter().any(is_ambiguous) {
            return None;
        }
        let scope = Scope {
            job: Some(element),
            object: Some(&object),
            params: Some(&self.params),
            ..Scope::default()
        };
        let parts: Option<Vec<String>> = rules
            .iter()
            .map(|(_, source)| source.find(&scope).and_then(|found| super::read::identifier(&found)))
            .collect();
        self.definition.id.assemble(&parts?)
    }

    /// What the definition reads beside the body.
    pub(super) fn http(&self, response: &Response<Bytes>) -> Http {
        Http {
            status: response.status().as_u16(),
            headers: named(&self.definition.headers, response.headers()),
        }
    }
}

fn named(names: &[String], headers: &HeaderMap) -> BTreeMap<String, String> {
    let value = |name: &String| Some((name.clone(), headers.get(name)?.to_str().ok()?.to_owned()));
    names.iter().filter_map(value).collect()
}

/// Status, headers and body in one text in JSON.
fn envelope(http: &Http, body: Option<Value<'_>>) -> Bytes {
    let headers = serde_json::to_string(&http.headers).unwrap_or_else(|_| "{}".to_owned());
    let body: Cow<'_, str> = body.map_or("null".into(), |body| body.get().into());
    format!("{{\"status\":{},\"headers\":{headers},\"body\":{body}}}", http.status).into()
}

/// The same apart.
pub(super) fn opened(envelope: &[u8]) -> Option<(Http, Option<Value<'_>>)> {
    let members = Object::parse(envelope)?;
    let status =
        members.get("status").and_then(json::integer).and_then(|status| u16::try_from(status).ok())?;
    let headers = members.get("headers").and_then(Object::of)?;
    let headers =
        headers.members().filter_map(|(name, value)| Some((name.to_owned(), json::text(value)?))).collect();
    Some((Http { status, headers }, members.get("body")))
}

/// The errors of a response, each with the job of the batch that its path leads to.
fn graphql_errors(errors: Option<Value<'_>>, batch: Option<&Batch>) -> GraphqlErrors {
    // No path leads into a text.
    let batch = batch.filter(|batch| batch.jobs.text().is_none());
    let (Some(errors), Some(batch)) = (errors, batch) else { return GraphqlErrors::read(errors, None) };
    let step = |step: &Step| match step {
        Step::Name(name) => name.clone(),
        Step::Index(index) => index.to_string(),
    };
    // Paths of errors begin below data.
    let path: Vec<String> = batch.jobs.path().steps().iter().skip(1).map(step).collect();
    GraphqlErrors::read(Some(errors), Some(JobsAt { path: &path, by_id: batch.by_id }))
}
