//! Fault rules: which responses are no answer about a job, and what they mean.
//!
//! The rules are tried in order, before the head of the response is judged as for every
//! vendor. What no rule speaks of keeps its usual meaning. A page in HTML is written by
//! something else than the API, so no rule reads it as a fault of one job.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Response, header};

use super::{
    Definition,
    definition::{no_header_name, source},
    read,
    reader::{Log, Node, Section},
    source::{Found, Names, Scope, Source},
};
use crate::{
    job::{BackendFault, FaultKind, JobFault, JobRef, vendor_message},
    vendors::{
        LONGEST_RETRY_AFTER,
        json::{self, Object, Value},
        requested_wait, response,
    },
};

mod mismatch;

/// What a response means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    NotFound,
    InvalidId,
    Forbidden,
    Unavailable,
    Throttled,
    Credentials,
    Rejected,
    Malformed,
}

pub(super) const MEANINGS: [(&str, Meaning); 8] = [
    ("not_found", Meaning::NotFound),
    ("invalid_id", Meaning::InvalidId),
    ("forbidden", Meaning::Forbidden),
    ("unavailable", Meaning::Unavailable),
    ("throttled", Meaning::Throttled),
    ("credentials", Meaning::Credentials),
    ("rejected", Meaning::Rejected),
    ("malformed", Meaning::Malformed),
];

impl Meaning {
    /// As definitions write it.
    pub(super) fn name(self) -> &'static str {
        MEANINGS.iter().find(|(_, meaning)| *meaning == self).map_or("", |(name, _)| name)
    }
}

/// One rule.
#[derive(Debug)]
pub(super) struct FaultRule {
    statuses: Vec<u16>,
    header: Vec<(HeaderName, Option<String>)>,
    content_type: Option<String>,
    when: Option<Source>,
    graphql_codes: Vec<String>,
    says_no_such_job: bool,
    names_the_id: Vec<Source>,
    pub(super) is: Meaning,
    message: Option<Source>,
    wait_s: Option<Source>,
    until: Option<Source>,
}

/// Reads `[[faults]]`.
pub(super) fn read(node: &Node<'_>, names: &Names<'_>, log: &Log<'_>) -> Vec<FaultRule> {
    let nodes = node.list();
    let mut rules: Vec<(usize, FaultRule)> = Vec::new();
    for (place, node) in nodes.iter().enumerate() {
        let Some(keys) = node.section(log) else { continue };
        let Some(rule) = FaultRule::read(keys, names, log) else { continue };
        if let Some((earlier, _)) = rules.iter().find(|(_, earlier)| earlier.covers(&rule)) {
            let text = format!(
                "is never reached: faults[{earlier}] takes every response that it would; put it first"
            );
            node.report(log, text);
        }
        rules.push((place, rule));
    }
    rules.into_iter().map(|(_, rule)| rule).collect()
}

/// What the parts of an id are called: `transcript_id` and `transcript`.
fn nouns(parts: &[String]) -> Vec<String> {
    let names = parts.iter().map(|name| name.to_lowercase());
    names.flat_map(|name| [name.trim_end_matches("_id").to_owned(), name]).collect()
}

impl FaultRule {
    fn read(mut keys: Section<'_>, names: &Names<'_>, log: &Log<'_>) -> Option<Self> {
        let is = keys.required(log, "is", "what it means, such as is = \"not_found\"");
        let is = is.and_then(|node| node.word(log, &MEANINGS));
        let statuses = keys.get("status").map(|node| node.list()).unwrap_or_default();
        let statuses: Vec<u16> = statuses
            .iter()
            .filter_map(|node| match u16::try_from(node.integer(log)?) {
                Ok(status @ 200..=599) => Some(status),
                _ => node.problem(log, "is no HTTP status; write one such as 404"),
            })
            .collect();
        let header = keys.get("header").map(|node| header_rules(&node, log)).unwrap_or_default();
        let seconds = keys.get("wait_s").and_then(|node| match node.json_number() {
            Some(number) => Source::parse(&number, names).ok(),
            None => source(&node, names, log),
        });
        let mut optional = |key| keys.get(key).and_then(|node| source(&node, names, log));
        let (when, message, wait_s, until) =
            (optional("when"), optional("message"), seconds, optional("until"));
        let content_type = keys.get("content_type").and_then(|node| node.text(log)).map(str::to_lowercase);
        let codes = keys.get("graphql_code").map(|node| node.list()).unwrap_or_default();
        let graphql_codes: Vec<String> =
            codes.iter().filter_map(|node| node.text(log)).map(str::to_owned).collect();
        let says = keys.get("says").and_then(|node| node.word(log, &[("no_such_job", true)]));
        let speaking = keys.get("names_the_id").map(|node| node.list()).unwrap_or_default();
        let names_the_id: Vec<Source> = speaking.iter().filter_map(|node| source(node, names, log)).collect();
        if let Some(Meaning::NotFound | Meaning::InvalidId) = is
            && statuses.iter().any(|status| matches!(status, 401 | 407 | 408 | 425 | 429 | 500..))
        {
            keys.report(
                log,
                "takes a status that says nothing of a job for one that does; write statuses below 500 but 401, 407, 408, 425 and 429",
            );
        }
        let rule = Self {
            statuses,
            header,
            content_type,
            when,
            graphql_codes,
            says_no_such_job: says.is_some(),
            names_the_id,
            is: is?,
            message,
            wait_s,
            until,
        };
        if rule.statuses.is_empty() && !rule.has_conditions() {
            return keys.problem(log, "has no condition; write status, header, content_type, when, graphql_code, says or names_the_id");
        }
        keys.finish(log);
        Some(rule)
    }

    /// Whether something beside the status decides.
    fn has_conditions(&self) -> bool {
        let Self { header, content_type, when, graphql_codes, names_the_id, .. } = self;
        !header.is_empty()
            || content_type.is_some()
            || when.is_some()
            || !graphql_codes.is_empty()
            || self.says_no_such_job
            || !names_the_id.is_empty()
    }

    /// Whether it takes whatever a later rule would take.
    fn covers(&self, later: &Self) -> bool {
        let Self { statuses, header, content_type, when, graphql_codes, names_the_id, .. } = self;
        // A rule about the job leaves pages, and responses that ask for a wait, to later ones.
        if self.is_about_job()
            && (content_type.is_none() && later.content_type.is_some()
                || !self.has_conditions() && !later.header.is_empty())
        {
            return false;
        }
        let is_within = |(name, value): &(HeaderName, Option<String>)| {
            let fits = |(other, other_value): &(HeaderName, Option<String>)| {
                other == name && (value.is_none() || value == other_value)
            };
            later.header.iter().any(fits)
        };
        let same = |one: &Option<Source>, other: &Option<Source>| match (one, other) {
            (Some(one), Some(other)) => one.is_same(other),
            (one, other) => one.is_none() && other.is_none(),
        };
        let all = |own: bool, later: bool, fits: bool| !own || later && fits;
        let names_alike = || {
            names_the_id.len() == later.names_the_id.len()
                && names_the_id.iter().zip(&later.names_the_id).all(|(one, other)| one.is_same(other))
        };
        all(
            !statuses.is_empty(),
            !later.statuses.is_empty(),
            later.statuses.iter().all(|status| statuses.contains(status)),
        ) && header.iter().all(is_within)
            && content_type.as_ref().is_none_or(|own| {
                later.content_type.as_ref().is_some_and(|other| other.contains(own.as_str()))
            })
            && (when.is_none() || same(when, &later.when))
            && all(
                !graphql_codes.is_empty(),
                !later.graphql_codes.is_empty(),
                later.graphql_codes.iter().all(|code| graphql_codes.contains(code)),
            )
            && all(self.says_no_such_job, later.says_no_such_job, same(&self.message, &later.message))
            && (names_the_id.is_empty() || names_alike())
    }

    fn is_about_job(&self) -> bool {
        matches!(self.is, Meaning::NotFound | Meaning::InvalidId)
    }

    /// Whether every response with this status is one of the rule's.
    pub(super) fn takes_all_of(&self, status: u16) -> bool {
        !self.has_conditions() && self.statuses.contains(&status)
    }

    pub(super) fn sources(&self) -> impl Iterator<Item = &Source> {
        [&self.when, &self.message, &self.wait_s, &self.until].into_iter().flatten().chain(&self.names_the_id)
    }

    /// Whether it may be about responses with this status.
    pub(super) fn is_about(&self, status: u16) -> bool {
        self.statuses.is_empty() || self.statuses.contains(&status)
    }

    /// Whether the response is one of those that the rule is about.
    pub(super) fn applies(&self, answer: &Answer<'_>) -> bool {
        self.mismatch(answer).is_none()
    }

    /// Whether the texts speak of the id.
    fn names(&self, answer: &Answer<'_>, job: &JobRef) -> bool {
        let texts = self.names_the_id.iter().map(|source| {
            source
                .find(&answer.scope)
                .map(|found| found.text().or_else(|| Some(found.json()?.into_owned())).unwrap_or_default())
                .unwrap_or_default()
        });
        let texts: Vec<String> = texts.collect();
        let all = texts.join(" ").to_ascii_lowercase();
        ["jobids", "jobid", "job id"].iter().any(|name| all.contains(name))
            || texts.first().is_some_and(|first| first.contains(&format!("\"{}\"", job.id)))
    }

    fn words(&self, answer: &Answer<'_>) -> String {
        match &self.message {
            Some(source) => source.find(&answer.scope).and_then(|found| words(&found)).unwrap_or_default(),
            None => answer.definition.refusal_words(answer.response),
        }
    }

    /// What the response means: the fault of the one job that was polled, or of the backend.
    pub(super) fn fault(&self, answer: &Answer<'_>) -> Result<JobFault, BackendFault> {
        let status = answer.response.status();
        let message = self.words(answer);
        let is_alone = answer.jobs.len() == 1;
        let kind = match self.is {
            Meaning::NotFound if is_alone => return Ok(JobFault::NotFound),
            Meaning::InvalidId if is_alone => {
                return Ok(JobFault::Invalid { message: vendor_message(&message) });
            }
            Meaning::Forbidden if is_alone => return Ok(JobFault::Forbidden),
            Meaning::Forbidden => FaultKind::Forbidden,
            Meaning::Unavailable if self.message.is_some() && !message.is_empty() => {
                FaultKind::Unavailable { why: vendor_message(&message) }
            }
            Meaning::Unavailable => {
                FaultKind::Unavailable { why: format!("it answered HTTP {}", status.as_u16()) }
            }
            Meaning::Throttled => FaultKind::Throttled,
            Meaning::Credentials => FaultKind::CredentialsRejected,
            Meaning::Malformed => {
                FaultKind::Malformed { why: "no answer, by a fault rule of the definition" }
            }
            // Which job of a batch is the reason shows only when it is polled alone.
            Meaning::NotFound | Meaning::InvalidId | Meaning::Rejected => {
                return Err(response::rejected(&message, status));
            }
        };
        Err(response::judged(kind, status).with_retry_after(self.wait(answer)))
    }

    fn wait(&self, answer: &Answer<'_>) -> Option<Duration> {
        let seconds = self.wait_s.as_ref().and_then(|source| {
            let found = source.find(&answer.scope)?;
            found.number().or_else(|| found.text()?.trim().parse().ok())
        });
        let seconds = seconds.or_else(|| {
            let text = self.until.as_ref()?.text(&answer.scope)?;
            until(&text, answer.response.headers())
        })?;
        let wait = Duration::try_from_secs_f64(seconds).ok()?;
        (!wait.is_zero()).then_some(wait.min(LONGEST_RETRY_AFTER))
    }
}

/// Seconds from the response's date to a time since 1970, or to a date.
fn until(text: &str, headers: &HeaderMap) -> Option<f64> {
    let at = requested_wait::date(headers.get(header::DATE)?.to_str().ok()?)?;
    let now = at.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs_f64();
    if let Ok(number) = text.trim().parse::<f64>() {
        return Some(number - now);
    }
    Some(requested_wait::date(text)?.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs_f64() - now)
}

fn header_rules(node: &Node<'_>, log: &Log<'_>) -> Vec<(HeaderName, Option<String>)> {
    let name = |text: &str| HeaderName::from_bytes(text.to_lowercase().as_bytes()).ok();
    if node.as_text().is_some() {
        let header = node.text(log).map(name);
        return match header {
            Some(Some(name)) => vec![(name, None)],
            Some(None) => {
                node.report(log, no_header_name(node.as_text().unwrap_or_default()));
                Vec::new()
            }
            None => Vec::new(),
        };
    }
    let section = node.section(log);
    let entries = section.map(|section| section.entries()).unwrap_or_default();
    let rule = |(key, _, node): (&str, _, Node<'_>)| match name(key) {
        Some(name) => Some((name, Some(node.text(log)?.to_owned()))),
        None => node.problem(log, no_header_name(key)),
    };
    entries.into_iter().filter_map(rule).collect()
}

/// A response, and what was asked.
pub(super) struct Answer<'a> {
    pub(super) definition: &'a Definition,
    pub(super) jobs: &'a [JobRef],
    pub(super) response: &'a Response<Bytes>,
    pub(super) scope: Scope<'a>,
}

impl Answer<'_> {
    /// Whether an error of GraphQL has one of these codes.
    fn has_code(&self, codes: &[String]) -> bool {
        let Some(body) = self.scope.body.and_then(Object::of) else { return false };
        let errors = body.get("errors").map(json::elements).unwrap_or_default();
        let code = |error: Value<'_>| {
            let error = Object::of(error)?;
            let extensions = error.get("extensions").and_then(Object::of);
            extensions.and_then(|extensions| extensions.text("code")).or_else(|| error.text("code"))
        };
        errors.into_iter().filter_map(code).any(|code| codes.contains(&code))
    }
}

/// The words of a value: a text, or the message in an object.
pub(super) fn words(found: &Found<'_>) -> Option<String> {
    read::wrapped(found)
}

impl Definition {
    /// The body in JSON, and its members where they are needed. A good answer of another type is
    /// none, such as a page; and where jobs stand in texts, neither is one with a name twice.
    pub(super) fn body<'a>(&self, response: &'a Response<Bytes>) -> Option<(Value<'a>, Option<Object<'a>>)> {
        if response.status().is_success() {
            response::check_json(response).ok()?;
        }
        if !self.is_in_text() {
            return Value::parse(response.body()).map(|body| (body, None));
        }
        match Object::parse_whole(response.body()) {
            Some((body, members)) => Some((body, Some(members.unambiguous()?))),
            None => Value::parse(response.body()).map(|body| (body, None)),
        }
    }

    /// The vendor's words for a refusal that no rule speaks of.
    pub(super) fn refusal_words(&self, response: &Response<Bytes>) -> String {
        let body = self.body(response).map(|(body, _)| body);
        let plain = || {
            let kind = response::content_type(response.headers());
            let is_plain = self.answer.speaks_plain_text && kind.is_some_and(|kind| kind == "text/plain");
            is_plain.then(|| String::from_utf8_lossy(response.body()).into_owned())
        };
        let found = match (&self.answer.refusal, body) {
            (None, Some(body)) => json::message(body),
            (Some(source), Some(body)) => {
                let scope = Scope { body: Some(body), ..Scope::default() };
                let found = source.find(&scope).and_then(|found| words(&found));
                if json::is_object(body) { found } else { found.or_else(plain) }
            }
            (_, None) => plain(),
        };
        found.unwrap_or_default()
    }
}
