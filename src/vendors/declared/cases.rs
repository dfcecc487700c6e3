//! Cases of a definition: recorded or documented answers, and what each has to be read as.
//!
//! Each word of the table, each fault rule and each file rule has to be covered by a case,
//! or stand in `[untested]` with the reason.

use std::{collections::BTreeSet, num::NonZeroUsize, sync::Arc};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use toml::{Table, de::DeTable};

use super::{
    Declared, Definition, InvalidDefinition, backend,
    reader::{self, Log, Node, Section},
};
use crate::{
    job::{BackendFault, FaultKind, JobFault, JobRef, Observation},
    vendors::{Adapter, BaseUrl},
};

pub(super) mod expectation;
mod golden;
mod token;

use expectation::Expectation;
use golden::{Golden, Refused, headers};
use token::TokenCase;

/// The base URL of cases that name none.
const BASE_URL: &str = "https://vendor.example";

/// The cases of one definition.
#[derive(Debug)]
pub struct Cases {
    adapter: Declared,
    definition: Arc<Definition>,
    /// In the order of the file.
    pub cases: Vec<Case>,
    refused: Vec<Refused>,
    tokens: Vec<TokenCase>,
    untested: Vec<(String, usize)>,
}

/// One answer, or one request.
#[derive(Debug)]
pub struct Case {
    /// For people; its number where it has none.
    pub name: String,
    /// Its line in the file.
    pub line: usize,
    /// The jobs that are polled.
    pub ids: Vec<String>,
    /// What the vendor answers.
    pub response: Option<Response<Bytes>>,
    expect: Vec<Expectation>,
    request: Option<Golden>,
}

/// How the cases went.
#[derive(Debug, Default)]
pub struct Report {
    /// Each case that failed: its line, its name, and every difference.
    pub failed: Vec<(usize, String, Vec<String>)>,
    /// Words, fault rules and file rules without a case.
    pub uncovered: Vec<String>,
    /// Entries of `[untested]` that are covered, or name nothing.
    pub needless: Vec<(usize, String)>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_good(&self) -> bool {
        let Self { failed, uncovered, needless } = self;
        failed.is_empty() && uncovered.is_empty() && needless.is_empty()
    }
}

impl Cases {
    /// Reads the cases of a definition.
    ///
    /// # Errors
    /// Every problem of them.
    pub fn parse(definition: Arc<Definition>, text: &str) -> Result<Self, InvalidDefinition> {
        let log = Log::new(text);
        let table = match DeTable::parse(text) {
            Ok(table) => table,
            Err(error) => {
                log.add(error.span().unwrap_or(0..0), "", reader::not_toml(text, &error));
                return Err(InvalidDefinition { problems: log.into_problems() });
            }
        };
        let line = |at: usize| 1 + text.get(..at).unwrap_or(text).matches('\n').count();
        let cases = read(definition, reader::root(&table), text, &line, &log);
        match cases {
            Some(cases) if log.len() == 0 => Ok(cases),
            _ => Err(InvalidDefinition { problems: log.into_problems() }),
        }
    }

    /// The adapter that the cases are read with.
    pub fn adapter(&self) -> &dyn Adapter {
        &self.adapter
    }

    /// Path and query of the request for a case.
    pub(super) fn target(&self, case: &Case) -> Option<String> {
        let jobs = case.jobs();
        let is_good = jobs.iter().all(|job| self.adapter.check(job).is_ok());
        let request = is_good.then(|| self.adapter.request(&jobs))?;
        request.uri().path_and_query().map(ToString::to_string)
    }

    /// What the first job of a case is read as, in the fields of `expect`.
    pub(super) fn expected(&self, case: &Case) -> Vec<(&'static str, serde_json::Value)> {
        let (jobs, Some(response)) = (case.jobs(), &case.response) else { return Vec::new() };
        match self.adapter.split(&jobs, response) {
            Err(fault) => expectation::of_backend_fault(&fault),
            Ok(elements) => {
                let observed = jobs.iter().zip(elements.as_slice()).next().map(|(job, element)| {
                    element
                        .as_ref()
                        .map_err(Clone::clone)
                        .and_then(|element| self.adapter.observe(job, element))
                });
                observed.map(|observed| expectation::of_job(&observed)).unwrap_or_default()
            }
        }
    }

    /// Whether the table has the word of a job's element.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn has_known_word(&self, job: &JobRef, element: &Bytes) -> bool {
        self.adapter.hits(job, element).is_some_and(|(pattern, _)| pattern.is_some())
    }

    /// Whether the definition says itself what a response means, by its status.
    #[cfg(test)]
    pub(in crate::vendors) fn decides(&self, jobs: &[JobRef], response: &Response<Bytes>) -> bool {
        let is_word = self.definition.answer.states_by_status.contains(&response.status().as_u16());
        is_word || self.adapter.fault_rule(jobs, response).is_some()
    }

    /// How many there are, with those of refused ids and of tokens.
    pub fn count(&self) -> usize {
        self.cases.len() + self.refused.len() + self.tokens.len()
    }

    /// Runs every case.
    pub fn run(&self) -> Report {
        let (mut report, mut covered) = (Report::default(), BTreeSet::new());
        let refused =
            self.refused.iter().map(|case| (case.line, &case.name, case.differences(&self.adapter)));
        let tokens = self.tokens.iter().map(|case| (case.line, &case.name, case.differences()));
        for (line, name, differences) in refused.chain(tokens) {
            if !differences.is_empty() {
                report.failed.push((line, name.clone(), differences));
            }
        }
        for case in &self.cases {
            let differences = self.run_one(case, &mut covered);
            if !differences.is_empty() {
                report.failed.push((case.line, case.name.clone(), differences));
            }
        }
        report.failed.sort();
        let Definition { states, faults, files, .. } = &*self.definition;
        let words = states.patterns().map(|(_, pattern)| pattern);
        let faults = (0..faults.len()).map(|place| format!("faults[{place}]"));
        let files = (0..files.len()).map(|place| format!("files[{place}]"));
        let all: Vec<String> = words.chain(faults).chain(files).collect();
        let is_untested = |name: &str| self.untested.iter().any(|(untested, _)| untested == name);
        report.uncovered =
            all.iter().filter(|name| !covered.contains(*name) && !is_untested(name)).cloned().collect();
        for (name, line) in &self.untested {
            if covered.contains(name) {
                report.needless.push((*line, format!("untested.{name:?} has a case; remove it")));
            } else if !all.contains(name) {
                report.needless.push((
                    *line,
                    format!("untested.{name:?} is no word, fault rule or file rule; remove it"),
                ));
            }
        }
        report
    }

    fn run_one(&self, case: &Case, covered: &mut BTreeSet<String>) -> Vec<String> {
        let jobs = case.jobs();
        let mut differences = Vec::new();
        for job in &jobs {
            if let Err(invalid) = self.adapter.check(job) {
                differences.push(format!("the id {:?} is refused: it {invalid}", job.id));
            }
        }
        if !differences.is_empty() {
            return differences;
        }
        if let Some(golden) = &case.request {
            differences.extend(golden.differences(&self.adapter.request(&jobs)));
        }
        let Some(response) = &case.response else { return differences };
        if let Some(place) = self.adapter.fault_rule(&jobs, response) {
            covered.insert(format!("faults[{place}]"));
        }
        let elements = match self.adapter.split(&jobs, response) {
            Err(fault) => {
                for expectation in &case.expect {
                    differences.extend(expectation.of_backend_fault(&fault));
                }
                return differences;
            }
            Ok(elements) => elements,
        };
        let several = jobs.len() > 1;
        for ((job, element), expectation) in
            jobs.iter().zip(elements.as_slice()).zip(case.expect.iter().cycle())
        {
            if let Ok(element) = element
                && let Some((pattern, files)) = self.adapter.hits(job, element)
            {
                covered.extend(pattern);
                covered.extend(files.into_iter().map(|place| format!("files[{place}]")));
            }
            let observed: Result<Observation, JobFault> =
                element.as_ref().map_err(Clone::clone).and_then(|element| self.adapter.observe(job, element));
            let of_job = if several { format!("{}: ", job.id) } else { String::new() };
            let found = expectation.of_job(&observed);
            differences.extend(found.into_iter().map(|text| format!("{of_job}{text}")));
        }
        differences
    }
}

impl Case {
    fn jobs(&self) -> Vec<JobRef> {
        self.ids.iter().map(|id| JobRef::new("case", id.as_str())).collect()
    }
}

fn read(
    definition: Arc<Definition>,
    mut top: Section<'_>,
    text: &str,
    line: &dyn Fn(usize) -> usize,
    log: &Log<'_>,
) -> Option<Cases> {
    let base_url = match top.get("base_url") {
        None => BASE_URL.parse::<BaseUrl>().ok(),
        Some(node) => match node.text(log)?.parse::<BaseUrl>() {
            Ok(url) => Some(url),
            Err(problem) => node.problem(log, problem.to_string()),
        },
    };
    let params = top.get("params");
    let untested_node = top.get("untested").and_then(|node| node.section(log));
    let untested = untested_node.map(|section| section.entries()).unwrap_or_default();
    let untested: Vec<(String, usize)> = untested
        .into_iter()
        .filter_map(|(name, span, node)| node.text(log).map(|_reason| (name.to_owned(), line(span.start))))
        .collect();
    let nodes = top
        .required(log, "case", "[[case]] with ids, body and expect")
        .map(|node| node.list())
        .unwrap_or_default();
    let (mut cases, mut refused) = (Vec::new(), Vec::new());
    for (number, node) in nodes.iter().enumerate() {
        match case(number, node, line, log) {
            Some(Read::Case(case)) => cases.push(*case),
            Some(Read::Refused(case)) => refused.push(case),
            None => {}
        }
    }
    let token_nodes = top.get("token").map(|node| node.list()).unwrap_or_default();
    top.finish(log);
    // Read once more by serde: a parameter is a text or a number.
    let whole: Table = toml::from_str(text).ok()?;
    let mut own_params = Table::new();
    own_params.extend(whole.get("params").map(|params| ("params".to_owned(), params.clone())));
    let chosen = backend::without_credentials();
    let config = match backend::read(&definition, &chosen, &own_params) {
        Ok(config) => config,
        Err(problems) => {
            for problem in problems {
                let span = params.as_ref().map_or(0..0, |node| node.span.clone());
                log.add(span, &problem.path, problem.text);
            }
            return None;
        }
    };
    let base_url = base_url?;
    let adapter = config.adapter(&base_url, NonZeroUsize::MAX);
    let tables = whole.get("token").and_then(toml::Value::as_array).cloned().unwrap_or_default();
    let tables = tables.into_iter().filter_map(|table| table.try_into::<Table>().ok());
    let tokens = token_nodes.iter().zip(tables).enumerate().filter_map(|(number, (node, table))| {
        let own = (line(node.span.start), &table);
        TokenCase::read(number, node, own, (&definition, &base_url, &own_params), log)
    });
    let tokens = tokens.collect();
    Some(Cases { adapter, definition, cases, refused, tokens, untested })
}

/// What an entry of `[[case]]` is.
enum Read {
    Case(Box<Case>),
    Refused(Refused),
}

fn case(number: usize, node: &Node<'_>, line: &dyn Fn(usize) -> usize, log: &Log<'_>) -> Option<Read> {
    let mut keys = node.section(log)?;
    let name = keys
        .get("name")
        .and_then(|node| node.text(log))
        .map_or_else(|| format!("case {}", number + 1), str::to_owned);
    keys.get("source").and_then(|node| node.text(log));
    let ids = keys
        .required(log, "ids", "the ids of the jobs, such as ids = [\"1\"]")
        .map(|node| node.list())
        .unwrap_or_default();
    let expect = keys.get("expect");
    let line = line(node.span.start);
    if let Some(reason) = expect.as_ref().and_then(|expect| refusal(expect, log)) {
        // A refused id may be empty.
        let ids = ids.iter().filter_map(Node::as_text).map(str::to_owned).collect();
        for key in ["status", "headers", "body", "request"] {
            if let Some(node) = keys.get(key) {
                node.report(log, "stands beside expect.invalid_id: a refused id is never sent; remove it");
            }
        }
        keys.finish(log);
        return Some(Read::Refused(Refused { name, line, ids, reason }));
    }
    let ids: Vec<String> = ids.iter().filter_map(|node| node.text(log)).map(str::to_owned).collect();
    let answer = answer(&mut keys, log);
    let request = keys.get("request").and_then(|node| Golden::read(&node, log));
    let expectations: Vec<Expectation> = expect
        .as_ref()
        .map(Node::list)
        .unwrap_or_default()
        .iter()
        .filter_map(|node| Expectation::read(node, log))
        .collect();
    if expect.is_none() && request.is_none() {
        return keys.problem(log, "has neither expect nor request; write one of them");
    }
    if expectations.len() > 1 && expectations.len() != ids.len() {
        let text = format!(
            "has {} entries for {} ids; write one for each, or one for all",
            expectations.len(),
            ids.len()
        );
        return keys.problem(log, text);
    }
    let response = expect.is_some().then_some(answer);
    keys.finish(log);
    Some(Read::Case(Box::new(Case { name, line, ids, response, expect: expectations, request })))
}

/// Why an id is expected to be refused, if it is.
fn refusal(expect: &Node<'_>, log: &Log<'_>) -> Option<String> {
    let mut fields = expect.is_table().then(|| expect.section(log))??;
    let reason = fields.get("invalid_id")?;
    fields.finish(log);
    Some(reason.text(log)?.to_owned())
}

/// The vendor's answer: `status`, `headers` and `body`.
fn answer(keys: &mut Section<'_>, log: &Log<'_>) -> Response<Bytes> {
    let status = keys.get("status").map_or(Some(200), |node| match u16::try_from(node.integer(log)?) {
        Ok(status @ 200..=599) => Some(status),
        _ => node.problem(log, "is no HTTP status; write one such as 200"),
    });
    let given = headers(keys.get("headers"), log);
    let body = keys.get("body").and_then(|node| node.as_text()).unwrap_or_default();
    let mut response = Response::new(Bytes::from(body.to_owned()));
    *response.status_mut() = StatusCode::from_u16(status.unwrap_or(200)).unwrap_or_default();
    if !body.is_empty() {
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    for (name, value) in &given {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
        {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// A fault in one word, as cases write it.
fn word_of(fault: &BackendFault) -> &'static str {
    match fault.kind {
        FaultKind::Unreachable { .. } | FaultKind::Unavailable { .. } | FaultKind::Overloaded => {
            "unavailable"
        }
        FaultKind::Throttled => "throttled",
        FaultKind::CredentialsRejected => "credentials",
        FaultKind::Forbidden => "forbidden",
        FaultKind::Rejected { .. } => "rejected",
        FaultKind::TooLarge => "too_large",
        FaultKind::Malformed { .. } => "malformed",
    }
}

/// The same of one job.
fn word_of_job(fault: &JobFault) -> &'static str {
    match fault {
        JobFault::NotFound => "not_found",
        JobFault::Invalid { .. } => "invalid_id",
        JobFault::Forbidden => "forbidden",
        JobFault::Malformed { .. } => "malformed",
        JobFault::Standby(_) => "standby",
    }
}
