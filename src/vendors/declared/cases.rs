//! Cases of a definition: recorded or documented answers, and what each has to be read as.
//!
//! Each word of the table, each fault rule and each file rule has to be covered by a case,
//! or stand in `[untested]` with the reason.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use http::Response;
use toml::de::DeTable;

use super::{
    Declared, Definition, InvalidDefinition,
    reader::{self, Log},
};
use crate::{
    job::{BackendFault, FaultKind, JobFault, JobRef, Observation},
    vendors::Adapter,
};

pub(super) mod expectation;
mod file;
mod golden;
mod token;

use expectation::Expectation;
use file::{answer, read};
use golden::{Golden, Refused};
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
    unfinished: Vec<(usize, String)>,
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
    /// What `jobwatch vendor new` has left to fill in.
    pub unfinished: Vec<(usize, String)>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_good(&self) -> bool {
        let Self { failed, uncovered, needless, unfinished } = self;
        failed.is_empty() && uncovered.is_empty() && needless.is_empty() && unfinished.is_empty()
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
        report.unfinished.clone_from(&self.unfinished);
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
                let why = |field: &str, _| {
                    (field == "fault").then(|| self.adapter.why_fault(&jobs, response, None)).flatten()
                };
                for expectation in &case.expect {
                    differences.extend(expectation.of_backend_fault(&fault, &why));
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
                // A file whose name nothing looks at may have any.
                let files = files.into_iter().filter(|_| expectation.names_files());
                covered.extend(files.map(|place| format!("files[{place}]")));
            }
            let observed: Result<Observation, JobFault> =
                element.as_ref().map_err(Clone::clone).and_then(|element| self.adapter.observe(job, element));
            let of_job = if several { format!("{}: ", job.id) } else { String::new() };
            let element = element.as_ref().ok();
            let why = |field: &str, is_there| match field {
                "fault" => self.adapter.why_fault(std::slice::from_ref(job), response, element),
                "state" => self.adapter.why_absent(job, element?, field),
                field if is_there => self.adapter.where_from(field),
                field => self.adapter.why_absent(job, element?, field),
            };
            let found = expectation.of_job(&observed, &why);
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
