//! Files of a job: each becomes an artifact whose location the definition makes.
//!
//! Nothing is requested for it until somebody downloads the file.

use std::collections::HashMap;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};

use super::{
    definition::{StateFilter, plain_path},
    origins::{self, Origins},
    path::{Path, Root},
    reader::{Log, Node, Section},
    source::{Names, Scope, Source},
    template::{RequestTemplate, Target, Text},
};
use crate::{
    job::{Artifact, FaultKind, HiddenQuery, JobState},
    vendors::{
        BaseUrl, FileFault, Part, RefusedLocation,
        classification::HeadRules,
        file,
        json::{self, Object, Value},
        response,
    },
};

/// Most files of one job.
const MOST: usize = 10_000;

/// One kind of file.
#[derive(Debug)]
pub(super) struct FileRule {
    each: Option<Path>,
    /// Where `each` is an object of lists, one for each category: those that come first.
    by_category: Option<Vec<String>>,
    when: Option<Source>,
    states: StateFilter,
    name: Text,
    category: Option<Text>,
    location: Location,
    pub(super) origins: Origins,
}

#[derive(Debug)]
enum Location {
    /// At a path behind that of the base URL.
    Own(Box<RequestTemplate>),
    /// Where the vendor says.
    Given(Text),
}

/// Reads `[[files]]`.
pub(super) fn read(node: &Node<'_>, names: &Names<'_>, log: &Log<'_>) -> Vec<FileRule> {
    let sections = node.list().into_iter().filter_map(|node| node.section(log));
    sections.filter_map(|keys| FileRule::read(keys, names, log)).collect()
}

/// Reports what a file can't have: it is a GET of a path with a query.
fn has_more(keys: &mut Section<'_>, log: &Log<'_>) -> bool {
    let before = log.len();
    if let Some(node) = keys.get("headers") {
        node.report(log, "is not for one file; write headers at the top, which polls and files have");
    }
    for key in ["json", "form", "graphql"] {
        if let Some(node) = keys.get(key) {
            node.report(log, "is not for a file, which is requested with GET; remove it");
        }
    }
    if let Some(node) = keys.get("method").filter(|node| node.as_text() != Some("GET")) {
        node.report(log, "is not GET, with which each file is requested; remove it");
    }
    let is_more = log.len() > before;
    if is_more {
        // They are read with the request, which is not.
        for key in ["query", "location"] {
            keys.get(key);
        }
    }
    is_more
}

impl FileRule {
    fn read(mut keys: Section<'_>, names: &Names<'_>, log: &Log<'_>) -> Option<Self> {
        let root = if names.roots.contains(&"body") { None } else { Some(Root::Job) };
        let each = match keys.get("each") {
            None => None,
            Some(node) => {
                let is_body = root.is_none() && node.as_text().is_some_and(|text| text.starts_with("body"));
                let root = if is_body { Root::Body } else { Root::Job };
                Some(plain_path(&node, root, log)?)
            }
        };
        let by_category = keys.get("by_category").map(|node| {
            let list = node.list();
            list.iter().filter_map(|node| node.text(log)).map(str::to_owned).collect()
        });
        if by_category.is_some() && each.is_none() {
            keys.report(log, "has by_category without each; write the object of lists as each");
        }
        let has_each = each.is_some();
        let roots: Vec<&str> =
            names.roots.iter().copied().filter(|root| *root != "item" || has_each).collect();
        let names = Names { roots: &roots, ..*names };
        let text = |node: &Node<'_>| match Text::parse(node.text(log)?, &names) {
            Ok(text) => Some(text),
            Err(problem) => node.problem(log, problem),
        };
        let when = keys.get("when").and_then(|node| super::definition::source(&node, &names, log));
        let states = StateFilter::read(&mut keys, log);
        let name = keys
            .required(log, "name", "the file's name, such as name = \"result.json\"")
            .and_then(|node| text(&node));
        let category = keys.get("category");
        if let (Some(node), true) = (&category, by_category.is_some()) {
            node.report(log, "stands beside by_category, which gives each file its category; remove one");
        }
        let category = category.and_then(|node| text(&node));
        let url = keys.get("url");
        let origins = Origins::read(&mut keys, url.as_ref(), log);
        let location = match (url, keys.get("path")) {
            (Some(url), Some(_)) => url.problem(log, "stands beside path; keep one of them"),
            (Some(url), None) => {
                keys.get("path");
                text(&url).map(Location::Given)
            }
            (None, _) if has_more(&mut keys, log) => None,
            (None, _) => super::definition::request(&mut keys, &names, log).and_then(|question| {
                let request = question.request;
                matches!(request.target, Target::Path(_)).then(|| Location::Own(Box::new(request)))
            }),
        };
        keys.finish(log);
        Some(Self { each, by_category, when, states, name: name?, category, location: location?, origins })
    }

    pub(super) fn sources(&self) -> Vec<&Source> {
        let mut sources: Vec<&Source> = self.when.iter().chain(self.name.sources()).collect();
        sources.extend(self.category.iter().flat_map(Text::sources));
        match &self.location {
            Location::Own(request) => sources.extend(request.sources()),
            Location::Given(text) => sources.extend(text.sources()),
        }
        sources
    }

    pub(super) fn each(&self) -> Option<&Path> {
        self.each.as_ref()
    }

    pub(super) fn when(&self) -> Option<&Source> {
        self.when.as_ref()
    }

    pub(super) fn states(&self) -> &StateFilter {
        &self.states
    }

    /// Whether its list stands outside of the job.
    pub(super) fn needs_body(&self) -> bool {
        self.each.as_ref().is_some_and(|each| each.root == Root::Body)
    }
}

/// The files of a job in this state.
pub(super) fn artifacts(
    rules: &[FileRule],
    state: JobState,
    base_url: &BaseUrl,
    scope: &Scope<'_>,
) -> Vec<Artifact> {
    let mut artifacts = Vec::new();
    // With how many files of that name there were.
    let mut taken = HashMap::<String, usize>::new();
    for rule in rules {
        if !rule.states.allows(state) {
            continue;
        }
        let items = match &rule.each {
            None => vec![(None, None)],
            Some(each) => {
                let root = if each.root == Root::Body { scope.body } else { scope.job };
                let Some(found) = root.and_then(|root| each.find(root)) else { continue };
                let items = match &rule.by_category {
                    Some(first) => by_category(first, found),
                    None if found.get().starts_with('[') => {
                        json::elements(found).into_iter().map(|item| (None, item)).collect()
                    }
                    None => vec![(None, found)],
                };
                let is_there = |(_, item): &(_, Value<'_>)| !json::is_null(*item);
                items.into_iter().filter(is_there).map(|(category, item)| (category, Some(item))).collect()
            }
        };
        for (category, item) in items {
            if artifacts.len() == MOST {
                return artifacts;
            }
            let scope = Scope { item, ..*scope };
            if rule.when.as_ref().is_some_and(|when| !when.find(&scope).is_some_and(|found| found.is_true()))
            {
                continue;
            }
            artifacts.extend(artifact(rule, base_url, category, &scope, &mut taken));
        }
    }
    artifacts
}

/// The elements of each member, which is a list or an object in place of one with gaps: those
/// of the members that come first, then the others in the order of the document.
fn by_category<'a>(first: &[String], lists: Value<'a>) -> Vec<(Option<String>, Value<'a>)> {
    let Some(lists) = Object::of_nameable(lists) else { return Vec::new() };
    let mut lists: Vec<(&str, Value<'a>)> = lists.members().collect();
    lists.sort_by_key(|(name, _)| first.iter().position(|known| known == name).unwrap_or(first.len()));
    let items = lists.into_iter().flat_map(|(name, list)| {
        json::elements(list).into_iter().map(move |item| (Some(name.to_owned()), item))
    });
    items.collect()
}

fn artifact(
    rule: &FileRule,
    base_url: &BaseUrl,
    category: Option<String>,
    scope: &Scope<'_>,
    taken: &mut HashMap<String, usize>,
) -> Option<Artifact> {
    let (vendor_uri, query) = match &rule.location {
        Location::Own(request) => (request.location(scope)?, HiddenQuery::default()),
        Location::Given(text) => origins::without_query(base_url, &text.plain(scope)?),
    };
    let file_name = cleaned(&rule.name.plain(scope)?)?;
    let category = match (category, &rule.category) {
        (Some(category), _) => cleaned(&category)?,
        (None, Some(category)) => cleaned(&category.plain(scope)?)?,
        (None, None) => String::new(),
    };
    let name = if category.is_empty() { file_name.clone() } else { format!("{category}/{file_name}") };
    let count = taken.entry(name.clone()).or_default();
    *count += 1;
    let mut id = if *count == 1 { name.clone() } else { format!("{name}#{count}") };
    let mut number = *count;
    while number > 1 && taken.contains_key(&id) {
        number += 1;
        id = format!("{name}#{number}");
    }
    taken.insert(name, number);
    taken.entry(id.clone()).or_insert(1);
    Some(Artifact { id, category, file_name, vendor_uri, query })
}

/// A name without what a path or a terminal would take for more.
fn cleaned(name: &str) -> Option<String> {
    let name: String = file::part_of_name(name).chars().take(file::LONGEST_FILE_NAME).collect();
    (!name.is_empty() && !matches!(&*name, "." | "..")).then_some(name)
}

/// What the head of a response says of a file. Where the vendor has a login page, a redirect
/// to it means that the credentials are rejected, and any other page is no file.
pub(super) fn part(
    login_at: Option<&BaseUrl>,
    offset: u64,
    head: &Response<Bytes>,
) -> Result<Part, FileFault> {
    if login_at.is_some() {
        match (HeadRules { login_at, secret_refusals: None }).judge(head) {
            Err(fault) if fault.kind == FaultKind::CredentialsRejected => return Err(fault.into()),
            _ if head.status() == StatusCode::OK && is_page(head) => {
                return Err(response::malformed("it is a page in HTML, not a file", head.status()).into());
            }
            _ => {}
        }
    }
    file::part(offset, head)
}

/// A file in HTML is an attachment.
fn is_page(head: &Response<Bytes>) -> bool {
    response::is_page(head) && !head.headers().contains_key(header::CONTENT_DISPOSITION)
}

/// The request for a file at the backend's own origin.
pub(super) fn request(base_url: &BaseUrl, location: &str) -> Result<Request<Bytes>, RefusedLocation> {
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = file::locate(base_url, location)?;
    request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    Ok(request)
}
