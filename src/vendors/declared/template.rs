//! Texts and JSON with `{{ }}` in them, and the requests that are made of them.
//!
//! A value never becomes a part of a template: it is put in place as data, percent-encoded
//! in a URL, escaped in JSON. A JSON leaf that is one whole `{{ }}` keeps its type.

use std::{borrow::Cow, fmt::Write, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};

use super::{
    definition,
    path::{self, Step},
    reader::{Log, Node},
    source::{Names, Scope, Source},
};
use crate::vendors::{BaseUrl, classification::PathTemplate, file, percent_encoded};

/// Ends of the names of files.
const EXTENSIONS: [&str; 12] =
    ["avro", "csv", "gz", "html", "json", "jsonl", "log", "parquet", "pdf", "txt", "xml", "zip"];

/// Deepest nesting of a JSON body.
const DEEPEST: usize = 32;

/// A text with values in it.
#[derive(Debug)]
pub(super) struct Text(Vec<Piece>);

/// That a value is absent which nothing can be written without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Absent;

#[derive(Debug)]
pub(super) enum Piece {
    Literal(String),
    Value { source: Source, written: String },
}

impl Text {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(text: &str, names: &Names<'_>) -> Result<Self, String> {
        if text.contains("{%") || text.contains("{#") {
            return Err("holds a statement or a comment, which are not allowed; use {{ }}".to_owned());
        }
        let (mut pieces, mut rest) = (Vec::new(), text);
        while let Some((literal, after)) = rest.split_once("{{") {
            let end = end_of_value(after).ok_or("has {{ without }}; write both")?;
            if !literal.is_empty() {
                pieces.push(Piece::Literal(literal.to_owned()));
            }
            let written = after[..end].trim().to_owned();
            let source = Source::parse(&written, names)?;
            pieces.push(Piece::Value { source, written });
            rest = &after[end + 2..];
        }
        if pieces.is_empty()
            && let Some(problem) = path_as_text(text, names)
        {
            return Err(problem);
        }
        if !rest.is_empty() || pieces.is_empty() {
            pieces.push(Piece::Literal(rest.to_owned()));
        }
        Ok(Self(pieces))
    }

    /// The text with every value in place; `None` where one is absent, or no text.
    pub(super) fn render(&self, scope: &Scope<'_>, encode: fn(&str) -> Cow<'_, str>) -> Option<String> {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Literal(literal) => text.push_str(literal),
                Piece::Value { source, .. } => {
                    text.push_str(&encode(&source.text(scope).filter(|text| !text.is_empty())?));
                }
            }
        }
        Some(text)
    }

    /// The text as it is written.
    pub(super) fn plain(&self, scope: &Scope<'_>) -> Option<String> {
        self.render(scope, |text| text.into())
    }

    /// The text; `None` where it is left out, since a parameter in it is not set.
    ///
    /// # Errors
    /// Another value in it is absent.
    pub(super) fn unless_left_out(&self, scope: &Scope<'_>) -> Result<Option<String>, Absent> {
        match self.plain(scope) {
            None if self.is_left_out(scope) => Ok(None),
            None => Err(Absent),
            text => Ok(text),
        }
    }

    /// Whether a parameter in it is not set.
    pub(super) fn is_left_out(&self, scope: &Scope<'_>) -> bool {
        self.sources().any(|source| source.lacks_param(scope))
    }

    /// The literals, with the names of values in braces.
    pub(super) fn shown(&self) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Literal(literal) => literal.clone(),
            Piece::Value { written, .. } => format!("{{{written}}}"),
        };
        self.0.iter().map(piece).collect()
    }

    #[cfg(any(test, feature = "demo"))]
    pub(super) fn pieces(&self) -> &[Piece] {
        &self.0
    }

    pub(super) fn literals(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Literal(literal) => Some(literal.as_str()),
            Piece::Value { .. } => None,
        })
    }

    pub(super) fn sources(&self) -> impl Iterator<Item = &Source> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Literal(_) => None,
            Piece::Value { source, .. } => Some(source),
        })
    }

    /// The value that is the whole of it.
    fn whole(self) -> Result<Source, Self> {
        match <[Piece; 1]>::try_from(self.0) {
            Ok([Piece::Value { source, .. }]) => Ok(source),
            Ok(pieces) => Err(Self(pieces.into())),
            Err(pieces) => Err(Self(pieces)),
        }
    }
}

/// What is wrong with a text that is a path, which was most likely meant as one.
fn path_as_text(text: &str, names: &Names<'_>) -> Option<String> {
    let (root, steps) = path::split(text)?;
    let Some(Step::Name(last)) = steps.last() else { return None };
    let is_declared = match root {
        "id" => names.parts.contains(last),
        "params" => names.params.contains(last),
        // A file's name may be `job.json`.
        _ => !EXTENSIONS.contains(&&**last),
    };
    (names.roots.contains(&root) && is_declared).then(|| {
        format!(
            "is the text {text:?} as it stands; did you mean \"{{{{ {text} }}}}\"? For that text write \"{{{{ '{text}' }}}}\""
        )
    })
}

/// Where the `}}` stands that ends a value, outside of quotes.
fn end_of_value(text: &str) -> Option<usize> {
    let (mut quote, mut escaped) = (None, false);
    for (at, c) in text.char_indices() {
        match quote {
            Some(open) => {
                if c == open && !escaped {
                    quote = None;
                }
                escaped = c == '\\' && !escaped;
            }
            None if matches!(c, '\'' | '"') => quote = Some(c),
            None if text[at..].starts_with("}}") => return Some(at),
            None => {}
        }
    }
    None
}

/// JSON with values in it.
#[derive(Debug)]
pub(super) enum Tree {
    Text(Text),
    Value(Source),
    /// As JSON writes it.
    Literal(String),
    List(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

impl Tree {
    pub(super) fn read(node: &Node<'_>, names: &Names<'_>, log: &Log<'_>) -> Option<Self> {
        Self::read_within(node, names, log, DEEPEST)
    }

    fn read_within(node: &Node<'_>, names: &Names<'_>, log: &Log<'_>, depth: usize) -> Option<Self> {
        let Some(depth) = depth.checked_sub(1) else {
            return node.problem(log, format!("is nested deeper than {DEEPEST} levels"));
        };
        if let Some(text) = node.as_text() {
            return match Text::parse(text, names) {
                Ok(text) => Some(text.whole().map_or_else(Self::Text, Self::Value)),
                Err(problem) => node.problem(log, problem),
            };
        }
        if let Some(flag) = node.as_bool() {
            return Some(Self::Literal(flag.to_string()));
        }
        if node.is_number() {
            return node.json_number().map(Self::Literal);
        }
        if node.is_array() {
            let items: Vec<_> =
                node.list().iter().map(|item| Self::read_within(item, names, log, depth)).collect();
            return items.into_iter().collect::<Option<_>>().map(Self::List);
        }
        if !node.is_table() {
            return node.problem(log, "is a date, which JSON does not have; write it in quotes");
        }
        let entries = node.section(log)?.entries();
        let entries: Vec<_> = entries
            .iter()
            .map(|(name, span, value)| {
                definition::literal_name(name, span.clone(), value, log)?;
                Some(((*name).to_owned(), Self::read_within(value, names, log, depth)?))
            })
            .collect();
        entries.into_iter().collect::<Option<_>>().map(Self::Object)
    }

    /// Adds the JSON; `None` where a value is absent.
    pub(super) fn write(&self, scope: &Scope<'_>, out: &mut String) -> Option<()> {
        match self {
            Self::Text(text) => out.push_str(&serde_json::to_string(&text.plain(scope)?).ok()?),
            Self::Value(source) => out.push_str(&source.find(scope)?.json()?),
            Self::Literal(json) => out.push_str(json),
            Self::List(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    out.push_str(if index == 0 { "" } else { "," });
                    item.write(scope, out)?;
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (index, (name, value)) in members.iter().enumerate() {
                    out.push_str(if index == 0 { "" } else { "," });
                    write!(out, "{}:", serde_json::to_string(name).ok()?).ok()?;
                    value.write(scope, out)?;
                }
                out.push('}');
            }
        }
        Some(())
    }

    fn sources<'a>(&'a self, into: &mut Vec<&'a Source>) {
        match self {
            Self::Text(text) => into.extend(text.sources()),
            Self::Value(source) => into.push(source),
            Self::Literal(_) => {}
            Self::List(items) => items.iter().for_each(|item| item.sources(into)),
            Self::Object(members) => members.iter().for_each(|(_, value)| value.sources(into)),
        }
    }
}

/// A request with values in it.
#[derive(Debug)]
pub(super) struct RequestTemplate {
    pub(super) method: Method,
    pub(super) target: Target,
    pub(super) query: Vec<(String, Text)>,
    pub(super) headers: Vec<(HeaderName, Text)>,
    pub(super) body: Option<Body>,
}

/// Where a request goes.
#[derive(Debug)]
pub(super) enum Target {
    /// A path behind that of the base URL.
    Path(Text),
    /// A location of the backend's own, as the vendor gave it.
    Location(Source),
}

/// The content of a request.
#[derive(Debug)]
pub(super) enum Body {
    Json(Tree),
    Form(Vec<(String, Text)>),
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");

impl RequestTemplate {
    /// The request to a backend; `None` where a value is absent or can't be sent. Its own headers
    /// replace those that every request has.
    pub(super) fn write(
        &self,
        base_url: &BaseUrl,
        every: &HeaderMap,
        scope: &Scope<'_>,
    ) -> Option<Request<Bytes>> {
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = match &self.target {
            Target::Path(_) => base_url.join_any(&self.location(scope)?)?,
            Target::Location(_) => file::locate(base_url, &self.location(scope)?).ok()?,
        };
        request.extensions_mut().insert(self.shown(base_url));
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, JSON);
        headers.extend(every.clone());
        for (name, value) in &self.headers {
            if let Some(value) = value.unless_left_out(scope).ok()? {
                headers.insert(name, HeaderValue::from_str(&value).ok()?);
            }
        }
        match &self.body {
            None if self.method == Method::GET => {}
            None => drop(headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"))),
            Some(Body::Json(tree)) => {
                headers.entry(header::CONTENT_TYPE).or_insert(JSON);
                let mut json = String::new();
                tree.write(scope, &mut json)?;
                *request.body_mut() = json.into();
            }
            Some(Body::Form(fields)) => {
                headers.entry(header::CONTENT_TYPE).or_insert(FORM);
                *request.body_mut() = pairs(fields, scope)?.into();
            }
        }
        Some(request)
    }

    /// Path and query.
    pub(super) fn location(&self, scope: &Scope<'_>) -> Option<String> {
        match &self.target {
            Target::Location(source) => source.text(scope),
            Target::Path(path) => {
                let path = path.render(scope, percent_encoded)?;
                if has_dot_segment(&path) {
                    return None;
                }
                let query = pairs(&self.query, scope)?;
                Some(if query.is_empty() { path } else { format!("{path}?{query}") })
            }
        }
    }

    /// The path with names in place of values, for faults.
    fn shown(&self, base_url: &BaseUrl) -> PathTemplate {
        let path = match &self.target {
            Target::Path(path) => path.shown(),
            Target::Location(_) => "/{location}".to_owned(),
        };
        let base = base_url.join("");
        PathTemplate(Arc::from(format!("{}{path}", base.path().trim_end_matches('/'))))
    }

    /// Everything that it reads.
    pub(super) fn sources(&self) -> Vec<&Source> {
        let mut sources = self.required();
        let pairs = self.query.iter().map(|(_, text)| text).chain(self.headers.iter().map(|(_, text)| text));
        sources.extend(pairs.flat_map(Text::sources));
        if let Some(Body::Form(fields)) = &self.body {
            sources.extend(fields.iter().flat_map(|(_, text)| text.sources()));
        }
        sources
    }

    /// What it can't be written without.
    pub(super) fn required(&self) -> Vec<&Source> {
        let mut sources: Vec<&Source> = Vec::new();
        match &self.target {
            Target::Path(path) => sources.extend(path.sources()),
            Target::Location(source) => sources.push(source),
        }
        if let Some(Body::Json(tree)) = &self.body {
            tree.sources(&mut sources);
        }
        sources
    }
}

fn pairs(fields: &[(String, Text)], scope: &Scope<'_>) -> Option<String> {
    let mut text = String::new();
    for (name, value) in fields {
        let Some(value) = value.unless_left_out(scope).ok()? else { continue };
        let and = if text.is_empty() { "" } else { "&" };
        write!(text, "{and}{}={}", percent_encoded(name), percent_encoded(&value)).ok()?;
    }
    Some(text)
}

/// Whether a path would lead elsewhere once it is made shorter.
fn has_dot_segment(path: &str) -> bool {
    path.split('/').any(|segment| matches!(segment, "." | ".."))
}

/// What is wrong with the literals of a path.
pub(super) fn path_problem(path: &Text) -> Option<String> {
    if !path.shown().starts_with('/') {
        return Some("does not begin with a slash; write the path behind base_url's own".to_owned());
    }
    let is_clean = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@/%".contains(c);
    for literal in path.literals() {
        if literal.contains(['?', '#']) {
            return Some("holds a ? or #; write what follows it in query".to_owned());
        }
        if literal.contains(['{', '}']) {
            return Some("holds a single brace; a value stands in two, such as {{ id.job_id }}".to_owned());
        }
        if let Some(c) = literal.chars().find(|c| !is_clean(*c)) {
            return Some(format!("holds {c:?}, which no path does; write it percent-encoded"));
        }
    }
    has_dot_segment(&path.shown())
        .then(|| "holds . or .. as a segment; write the path without them".to_owned())
}
