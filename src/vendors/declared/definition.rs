//! A definition of a vendor: how its API is asked and read, as a file says it.

use std::num::NonZeroUsize;

use http::HeaderName;
use toml::de::DeTable;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    credentials::{self, Way},
    diff,
    faults::{self, FaultRule, Meaning},
    files::{self, FileRule},
    id::{self, IdPattern, Param},
    path::{self, Path, Root},
    place::Place,
    reader::{self, DefinitionProblem, Log, Node, Section},
    source::{self, Names, Source},
    table::StateTable,
    template::{RequestTemplate, Text},
};

mod asked;
mod effects;
mod literals;
mod request;
mod status;

use asked::{Asked, answer};
pub(super) use literals::to_fill_in;
pub(super) use request::{OWN_HEADERS, literal_name, no_header_name, pairs, request, request_headers};
pub(super) use status::{ContentRule, ErrorRule, FORMS, ResultRule, StateFilter, StatusRules, Volatile};

/// The language that this version reads.
pub(super) const FORMAT: i64 = 1;

/// Longest definition in bytes.
pub const LONGEST: usize = 128 << 10;

/// Most jobs in one request that a definition may allow.
pub(super) const LARGEST_BATCH: i64 = 1000;

/// How a vendor's API is asked and read.
#[derive(Debug)]
pub struct Definition {
    /// As configurations name it.
    pub name: String,
    /// The definition's own version.
    pub version: String,
    /// The vendor and its kind of jobs, for people.
    pub title: String,
    /// The page that documents the API.
    pub docs: String,
    /// What to know of it; may be empty.
    pub notes: String,
    /// Whether it was written from the vendor's documentation, not from memory, if it says so.
    pub verified: Option<bool>,
    /// Whether a job that has ended may run again under its id.
    pub reopens: bool,
    pub(super) id: IdPattern,
    pub(super) params: Vec<Param>,
    pub(super) ways: Vec<Way>,
    /// Headers of every request.
    pub(super) request_headers: Vec<(HeaderName, Text)>,
    pub(super) request: Option<Question>,
    pub(super) batch: Option<Batch>,
    pub(super) answer: Answer,
    pub(super) status: StatusRules,
    pub(super) states: StateTable,
    pub(super) faults: Vec<FaultRule>,
    pub(super) files: Vec<FileRule>,
    /// The headers of a response that are read, in lower case.
    pub(super) headers: Vec<String>,
    pub(super) element: ElementKind,
    /// Of its text.
    pub(super) hash: u64,
}

/// A request, and whether it is one of GraphQL.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) request: RequestTemplate,
    pub(super) is_graphql: bool,
}

/// How many jobs are asked for in one request.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) question: Question,
    /// The list of jobs, or the object that has them by id.
    pub(super) jobs: Place,
    /// Whether it is the object.
    pub(super) by_id: bool,
    pub(super) max: NonZeroUsize,
}

/// Where the job stands in the response.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) job: Place,
    /// HTTP statuses that are words, not faults.
    pub(super) states_by_status: Vec<u16>,
    pub(super) may_be_empty: bool,
    /// The vendor's words for a refusal that no rule speaks of.
    pub(super) refusal: Option<Source>,
    /// Whether a refusal in plain text is in the vendor's own words.
    pub(super) speaks_plain_text: bool,
    /// Whether those who are not signed in are sent to a login page of the vendor's.
    pub(super) has_login_page: bool,
}

/// What is kept of a response to read one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ElementKind {
    /// The job's own part.
    Job,
    /// The whole body.
    Body,
    /// Status, headers and body.
    Envelope,
}

/// Why a text is no definition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct InvalidDefinition {
    /// In the order of the text; at least one.
    pub problems: Vec<DefinitionProblem>,
}

impl Definition {
    /// Reads a definition.
    ///
    /// # Errors
    /// Every problem of it.
    pub fn parse(text: &str) -> Result<Self, InvalidDefinition> {
        let log = Log::new(text);
        if text.len() > LONGEST {
            log.add(0..0, "", format!("it is longer than {LONGEST} bytes, which no definition is"));
            return Err(InvalidDefinition { problems: log.into_problems() });
        }
        let table = match DeTable::parse(text) {
            Ok(table) => table,
            Err(error) => {
                log.add(error.span().unwrap_or(0..0), "", reader::not_toml(text, &error));
                return Err(InvalidDefinition { problems: log.into_problems() });
            }
        };
        let definition = read(reader::root(&table), &log, xxh3_64(text.as_bytes()));
        if let Some(definition) = &definition {
            effects::check(definition, &mut reader::root(&table), &log);
        }
        literals::check(&reader::root(&table), &log);
        match definition {
            Some(definition) if log.len() == 0 => Ok(definition),
            _ => Err(InvalidDefinition { problems: log.into_problems() }),
        }
    }

    /// The most jobs in one request.
    pub(super) fn max_batch(&self) -> NonZeroUsize {
        self.batch.as_ref().map_or(NonZeroUsize::MIN, |batch| batch.max)
    }

    /// Whether a request of it is one of GraphQL.
    pub(super) fn is_graphql(&self) -> bool {
        let Self { request, batch, .. } = self;
        request.iter().chain(batch.iter().map(|batch| &batch.question)).any(|question| question.is_graphql)
    }

    /// Whether jobs stand in texts that hold JSON.
    pub(super) fn is_in_text(&self) -> bool {
        let places = self.batch.iter().map(|batch| &batch.jobs).chain([&self.answer.job]);
        places.into_iter().any(|place| place.text().is_some())
    }

    /// The definition's name with its version.
    pub fn label(&self) -> String {
        format!("{} {}", self.name, self.version)
    }
}

fn read(mut top: Section<'_>, log: &Log<'_>, hash: u64) -> Option<Definition> {
    check_format(&mut top, log)?;
    let about = About::read(&mut top, log);
    let params_node = top.get("params");
    let params = params_node.as_ref().and_then(|node| node.section(log));
    // What can't be read has a name all the same, and its uses are no further problems.
    let param_names = match (&params, &params_node) {
        (Some(section), _) => section.entries().into_iter().map(|(name, ..)| name.to_owned()).collect(),
        (None, Some(_)) => used_names(log.text(), "params"),
        (None, None) => Vec::new(),
    };
    let params = params.map(|section| id::params(&section, log)).unwrap_or_default();
    let id_node = top.required(log, "id", "[id] with pattern = \"{job_id}\"");
    let id_section = id_node.as_ref().and_then(|node| node.section(log));
    let id = id_section.and_then(|section| IdPattern::read(section, log));
    let part_names = id.as_ref().map_or_else(|| used_names(log.text(), "id"), |id| id.names.clone());
    let example = "at least one way, such as [credentials.bearer], or [credentials.none]";
    let ways = top.required(log, "credentials", example);
    let ways = ways.as_ref().and_then(|node| node.section(log));
    let secrets = ways.as_ref().map(credentials::secret_names).unwrap_or_default();
    let names =
        Names { roots: &[], parts: &part_names, params: &param_names, variables: &[], secrets: &secrets };
    let in_ways = Names { roots: &["params"], ..names };
    let ways = ways.map(|section| credentials::read(&section, &in_ways, log)).unwrap_or_default();
    let request_headers = request_headers(top.get("headers"), &in_ways, log);
    let asked = Asked::read(&mut top, &names, log);
    let in_answer = Names { roots: &["body"], ..names };
    let answer = answer(section_of(log, top.get("answer")), &in_answer, log);
    let rules = Rules::read(&mut top, &names, asked.has_batch, log);
    top.finish(log);

    let (id, rules) = (id?, rules?);
    if let Some(node) = &id_node {
        asked.check_parts(&id, node, log);
    }
    let Asked { question: request, batch, .. } = asked;
    let About { name, version, title, docs, notes, verified, reopens } = about;
    let Rules { status, table, faults, files } = rules;
    let definition = Definition {
        name: name?,
        version: version?,
        title: title?,
        docs: docs?,
        notes,
        verified,
        reopens,
        id,
        params,
        ways,
        request_headers,
        request,
        batch,
        answer: answer?,
        headers: headers(&status, &faults, &files),
        element: element(&status, &files),
        status,
        states: table,
        faults,
        files,
        hash,
    };
    Some(definition)
}

/// The names that are used as members of `id` or `params`.
fn used_names(text: &str, root: &str) -> Vec<String> {
    let mut names = source::members(text, root);
    names.sort();
    names.dedup();
    names
}

fn check_format(top: &mut Section<'_>, log: &Log<'_>) -> Option<()> {
    let Some(format) = top.required(log, "format", "format = 1") else { return Some(()) };
    match format.integer(log) {
        Some(number) if number != FORMAT => {
            let text = format!("is {number}: this version reads format {FORMAT}; update jobwatch");
            format.problem(log, text)
        }
        _ => Some(()),
    }
}

/// What a definition says of itself.
struct About {
    name: Option<String>,
    version: Option<String>,
    title: Option<String>,
    docs: Option<String>,
    notes: String,
    verified: Option<bool>,
    reopens: bool,
}

impl About {
    fn read(top: &mut Section<'_>, log: &Log<'_>) -> Self {
        let mut text = |key, example| top.required(log, key, example)?.text(log).map(str::to_owned);
        let name = text("name", "a name in lower case, such as name = \"databricks\"");
        let version = text("version", "the definition's version, such as version = \"1.0.0\"");
        let title = text("title", "the vendor and its kind of jobs, such as title = \"Databricks job runs\"");
        let docs = text("docs", "the URL of the page that documents the API");
        let name = name.filter(|name| {
            let is_name = name.len() <= 63
                && !name.starts_with('-')
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
            if !is_name && let Some(node) = top.get("name") {
                node.report(log, format!("is {name:?}; write 1 to 63 of a-z, 0-9 and '-'"));
            }
            is_name
        });
        let version = version.filter(|version| {
            let is_version = diff::numbers(version).is_some();
            if !is_version && let Some(node) = top.get("version") {
                node.report(log, format!("is {version:?}; write three numbers, such as \"1.0.0\""));
            }
            is_version
        });
        let notes = top.get("notes").and_then(|node| node.text(log)).unwrap_or_default().to_owned();
        let verified = top.get("verified").and_then(|node| node.flag(log));
        let reopens = top.get("reopens").and_then(|node| node.flag(log)).unwrap_or(false);
        Self { name, version, title, docs, notes, verified, reopens }
    }
}

/// How an answer is read.
struct Rules {
    status: StatusRules,
    table: StateTable,
    faults: Vec<FaultRule>,
    files: Vec<FileRule>,
}

impl Rules {
    fn read(top: &mut Section<'_>, names: &Names<'_>, has_batch: bool, log: &Log<'_>) -> Option<Self> {
        let roots: &[&str] = if has_batch {
            &["job", "http", "id", "params"]
        } else {
            &["job", "body", "http", "id", "params"]
        };
        let status = top.required(log, "status", "[status] with word and id");
        let status = section_of(log, status).map(|keys| status::read(keys, &Names { roots, ..*names }, log));
        let words = status.as_ref().map_or(Some(1), |status| status.word_parts);
        let table =
            top.required(log, "states", "[states] with the vendor's words, such as SUCCEEDED = [\"done\"]");
        let table = section_of(log, table).map(|keys| StateTable::read(keys, words, log));
        let faults = top.get("faults");
        let written = faults.as_ref().map_or(0, |node| node.list().len());
        let span = faults.as_ref().map_or(0..0, |node| node.span.clone());
        let in_faults = Names { roots: &["body", "http", "id", "params"], ..*names };
        let faults = faults.map(|node| faults::read(&node, &in_faults, log)).unwrap_or_default();
        let file_roots: Vec<&str> = roots.iter().copied().chain(["item"]).collect();
        let in_files = Names { roots: &file_roots, ..*names };
        let files = top.get("files").map(|node| files::read(&node, &in_files, log)).unwrap_or_default();
        let says_not_found = faults.iter().any(|rule| rule.is == Meaning::NotFound);
        if !says_not_found && !has_batch && (written == 0 || !faults.is_empty()) {
            let text = "has nothing that says not_found: a job that does not exist would be a fault of the \
                        backend; add a rule with is = \"not_found\"";
            log.add(span, "faults", text);
        }
        Some(Self { status: status?.rules?, table: table?, faults, files })
    }
}

/// A source, written as a text.
pub(super) fn source(node: &Node<'_>, names: &Names<'_>, log: &Log<'_>) -> Option<Source> {
    let text = node.text(log)?;
    match Source::parse(text, names) {
        Ok(source) => Some(source),
        Err(problem) => node.problem(log, problem),
    }
}

/// A plain path, which keeps every byte.
pub(super) fn plain_path(node: &Node<'_>, root: Root, log: &Log<'_>) -> Option<Path> {
    let text = node.text(log)?;
    let name = match root {
        Root::Job => "job",
        Root::Body => "body",
        Root::Item => "item",
    };
    let path = Path::parse(text).filter(|path| path.root == root);
    if path.is_none() {
        let cure = match meant_path(text, name) {
            Some(meant) => format!("did you mean {meant:?}?"),
            None => format!("write one such as \"{name}.data\""),
        };
        node.report(log, format!("is not a plain path from {name}; {cure}"));
    }
    path
}

/// The path that was meant by one without its root, or with `{{ }}` or `$` around it.
fn meant_path(text: &str, root: &str) -> Option<String> {
    let inner = text.trim().trim_start_matches("{{").trim_end_matches("}}").trim();
    let inner = inner.trim_start_matches('$').trim_start_matches('.');
    let roots = ["job", "body", "item", "id", "params", "http"];
    let (first, _) = path::split(inner)?;
    let meant = if roots.contains(&first) { inner.to_owned() } else { format!("{root}.{inner}") };
    meant.starts_with(root).then_some(meant)
}

/// Every value that is read of a job.
fn job_sources<'a>(status: &'a StatusRules, files: &'a [FileRule]) -> Vec<&'a Source> {
    status.sources().into_iter().chain(files.iter().flat_map(FileRule::sources)).collect()
}

fn element(status: &StatusRules, files: &[FileRule]) -> ElementKind {
    let sources = job_sources(status, files);
    if sources.iter().any(|source| source.needs("http")) {
        ElementKind::Envelope
    } else if sources.iter().any(|source| source.needs("body")) || files.iter().any(FileRule::needs_body) {
        ElementKind::Body
    } else {
        ElementKind::Job
    }
}

/// The names of all headers that are read.
fn headers(status: &StatusRules, faults: &[FaultRule], files: &[FileRule]) -> Vec<String> {
    let mut headers = Vec::new();
    for source in job_sources(status, files).into_iter().chain(faults.iter().flat_map(FaultRule::sources)) {
        match source {
            Source::Header(name) => headers.push(name.clone()),
            Source::Expression(expression) => {
                for quote in ['\'', '"'] {
                    let open = format!("headers[{quote}");
                    let names = expression.written.split(&open).skip(1);
                    headers.extend(names.filter_map(|rest| Some(rest.split_once(quote)?.0.to_lowercase())));
                }
            }
            _ => {}
        }
    }
    headers.sort();
    headers.dedup();
    headers
}

fn section_of<'t>(log: &Log<'_>, node: Option<Node<'t>>) -> Option<Section<'t>> {
    node?.section(log)
}
