//! Reads a definition's TOML key by key, and reports every problem with its place.

use std::{cell::RefCell, fmt, ops::Range};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// One problem of a definition or of its cases.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DefinitionProblem {
    /// Its line, from 1 on.
    pub line: usize,
    /// Its column in characters, from 1 on.
    pub column: usize,
    /// The key's full path, such as `states.FAILED[2]`; empty for the whole file.
    pub path: String,
    /// The problem and what to write instead.
    pub text: String,
}

/// `3:1: states.SUCEEDED is not a state; did you mean SUCCEEDED?`
impl fmt::Display for DefinitionProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, path, text } = self;
        let space = if path.is_empty() { "" } else { " " };
        write!(f, "{line}:{column}: {path}{space}{text}")
    }
}

/// The text that is read, and its problems so far.
pub(super) struct Log<'t> {
    text: &'t str,
    problems: RefCell<Vec<DefinitionProblem>>,
}

impl<'t> Log<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, problems: RefCell::default() }
    }

    pub(super) fn add(&self, span: Range<usize>, path: &str, text: impl Into<String>) {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = 1 + before.matches('\n').count();
        let column = 1 + before.rsplit('\n').next().unwrap_or_default().chars().count();
        let problem = DefinitionProblem { line, column, path: path.to_owned(), text: text.into() };
        let mut problems = self.problems.borrow_mut();
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }

    /// The whole text.
    pub(super) fn text(&self) -> &'t str {
        self.text
    }

    pub(super) fn len(&self) -> usize {
        self.problems.borrow().len()
    }

    /// In the order of the text.
    pub(super) fn into_problems(self) -> Vec<DefinitionProblem> {
        let mut problems = self.problems.into_inner();
        problems.sort();
        problems
    }
}

/// A value, with the path of its key.
#[derive(Clone, Debug)]
pub(super) struct Node<'t> {
    pub(super) path: String,
    pub(super) span: Range<usize>,
    value: &'t DeValue<'t>,
}

/// A table whose keys are read one by one.
#[derive(Debug)]
pub(super) struct Section<'t> {
    pub(super) path: String,
    pub(super) span: Range<usize>,
    table: &'t DeTable<'t>,
    known: Vec<&'static str>,
}

/// The whole text.
pub(super) fn root<'t>(table: &'t Spanned<DeTable<'t>>) -> Section<'t> {
    Section { path: String::new(), span: 0..0, table: table.get_ref(), known: Vec::new() }
}

impl<'t> Node<'t> {
    /// Reports a problem, and returns `None` for the caller to return.
    pub(super) fn problem<T>(&self, log: &Log<'_>, text: impl Into<String>) -> Option<T> {
        log.add(self.span.clone(), &self.path, text);
        None
    }

    /// Reports a problem of the value.
    pub(super) fn report(&self, log: &Log<'_>, text: impl Into<String>) {
        log.add(self.span.clone(), &self.path, text);
    }

    pub(super) fn as_text(&self) -> Option<&'t str> {
        self.value.as_str()
    }

    pub(super) fn as_bool(&self) -> Option<bool> {
        self.value.as_bool()
    }

    /// An integer as it is written in decimal.
    pub(super) fn as_integer(&self) -> Option<i64> {
        let integer = self.value.as_integer()?;
        i64::from_str_radix(integer.as_str(), integer.radix()).ok()
    }

    pub(super) fn is_table(&self) -> bool {
        self.value.is_table()
    }

    pub(super) fn is_array(&self) -> bool {
        self.value.is_array()
    }

    pub(super) fn text(&self, log: &Log<'_>) -> Option<&'t str> {
        match self.as_text() {
            Some("") => self.problem(log, "is empty; write a text, or remove the key"),
            Some(text) => Some(text),
            None => {
                let bare = self.json_number().or_else(|| self.as_bool().map(|flag| flag.to_string()));
                let written = bare.map(|bare| format!(": \"{bare}\"")).unwrap_or_default();
                self.problem(log, format!("is not a text; write it in quotes{written}"))
            }
        }
    }

    pub(super) fn flag(&self, log: &Log<'_>) -> Option<bool> {
        match self.as_bool() {
            None => self.problem(log, "is neither true nor false; write one of them"),
            flag => flag,
        }
    }

    pub(super) fn integer(&self, log: &Log<'_>) -> Option<i64> {
        match self.as_integer() {
            None => self.problem(log, "is not an integer; write one without quotes"),
            integer => integer,
        }
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&self, log: &Log<'_>, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(log)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        self.problem(log, format!("is {text:?}; {}", remedy(text, &known)))
    }

    /// The elements of a list; a single value counts as a list of one.
    pub(super) fn list(&self) -> Vec<Node<'t>> {
        match self.value.as_array() {
            None => vec![self.clone()],
            Some(list) => {
                list.iter().enumerate().map(|(index, item)| self.below(&format!("[{index}]"), item)).collect()
            }
        }
    }

    pub(super) fn section(&self, log: &Log<'_>) -> Option<Section<'t>> {
        match self.value.as_table() {
            None => self.problem(log, "is not a table; write one in [] or {}"),
            Some(table) => {
                Some(Section { path: self.path.clone(), span: self.span.clone(), table, known: Vec::new() })
            }
        }
    }

    pub(super) fn is_number(&self) -> bool {
        self.value.is_integer() || self.value.is_float()
    }

    /// A number as JSON writes it.
    pub(super) fn json_number(&self) -> Option<String> {
        if let Some(integer) = self.as_integer() {
            return Some(integer.to_string());
        }
        let float: f64 = self.value.as_float()?.as_str().replace('_', "").parse().ok()?;
        serde_json::Number::from_f64(float).map(|number| number.to_string())
    }

    fn below(&self, part: &str, value: &'t Spanned<DeValue<'t>>) -> Self {
        Node { path: format!("{}{part}", self.path), span: value.span(), value: value.get_ref() }
    }
}

impl<'t> Section<'t> {
    /// The value at a key that this section may have.
    pub(super) fn get(&mut self, key: &'static str) -> Option<Node<'t>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.look(key)
    }

    fn look(&self, key: &str) -> Option<Node<'t>> {
        let (_, value) = self.table.iter().find(|(name, _)| name.get_ref().as_ref() == key)?;
        Some(Node { path: join(&self.path, key), span: value.span(), value: value.get_ref() })
    }

    /// Reports a problem, and returns `None` for the caller to return.
    pub(super) fn problem<T>(&self, log: &Log<'_>, text: impl Into<String>) -> Option<T> {
        log.add(self.span.clone(), &self.path, text);
        None
    }

    /// Reports a problem of the section as a whole.
    pub(super) fn report(&self, log: &Log<'_>, text: impl Into<String>) {
        log.add(self.span.clone(), &self.path, text);
    }

    /// The value at a key that has to be there.
    pub(super) fn required(&mut self, log: &Log<'_>, key: &'static str, example: &str) -> Option<Node<'t>> {
        let node = self.get(key);
        if node.is_none() {
            log.add(self.span.clone(), &join(&self.path, key), format!("is missing; write {example}"));
        }
        node
    }

    /// Every key with its value, for tables whose keys are names.
    pub(super) fn entries(&self) -> Vec<(&'t str, Range<usize>, Node<'t>)> {
        let entry = |(name, value): (&'t Spanned<_>, &'t Spanned<DeValue<'t>>)| {
            let key: &'t str = AsRef::<str>::as_ref(Spanned::<std::borrow::Cow<'t, str>>::get_ref(name));
            let node = Node { path: join(&self.path, key), span: value.span(), value: value.get_ref() };
            (key, name.span(), node)
        };
        let mut entries: Vec<_> = self.table.iter().map(entry).collect();
        entries.sort_by_key(|(_, span, _)| span.start);
        entries
    }

    /// The keys that nobody has read, which are none of this section's.
    pub(super) fn finish(self, log: &Log<'_>) {
        #[cfg(test)]
        KNOWN.with_borrow_mut(|known| {
            let path: String =
                self.path.chars().filter(|c| !c.is_ascii_digit() && !"[]".contains(*c)).collect();
            known.extend(self.known.iter().map(|key| (path.clone(), *key)));
        });
        for (key, span, node) in self.entries() {
            if !self.known.contains(&key) {
                log.add(span, &node.path, format!("is not a key here; {}", remedy(key, &self.known)));
            }
        }
    }
}

#[cfg(test)]
thread_local! {
    /// The keys of every table that was read to its end, with the table's path.
    static KNOWN: RefCell<std::collections::BTreeSet<(String, &'static str)>> = RefCell::default();
}

/// The keys of every table that is read meanwhile, without the numbers of lists.
#[cfg(test)]
pub(super) fn known_keys(read: impl FnOnce()) -> std::collections::BTreeSet<(String, &'static str)> {
    KNOWN.take();
    read();
    KNOWN.take()
}

/// `did you mean x?`, or the known names.
pub(super) fn remedy(name: &str, known: &[&str]) -> String {
    match closest(name, known) {
        Some(close) => format!("did you mean {close}?"),
        None => format!("write one of {}", known.join(", ")),
    }
}

/// The known name that this one was meant to be, if one is close.
pub fn closest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let (name, distance) = (name.to_lowercase(), |a: &str, b: &str| strsim::osa_distance(a, b));
    let best = known.iter().min_by_key(|other| distance(&name, &other.to_lowercase()))?;
    let most = (name.chars().count() / 3).max(1);
    (distance(&name, &best.to_lowercase()) <= most).then_some(*best)
}

/// Why a text is not TOML, and what to write where that is known.
pub(super) fn not_toml(text: &str, error: &toml::de::Error) -> String {
    let (message, span) = (error.message(), error.span().unwrap_or(0..0));
    let start = text.get(..span.start).map_or(0, |before| before.rfind('\n').map_or(0, |at| at + 1));
    let line = text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default().trim();
    if message.contains("duplicate key") {
        let name = text.get(span).unwrap_or_default();
        let cure = match line.trim_matches(['[', ']']) {
            list @ ("faults" | "files" | "case" | "token") => format!("; write [[{list}]], once for each"),
            _ => "; keep one of them".to_owned(),
        };
        return format!("it is not TOML: {message} {name}{cure}");
    }
    let value = line.split_once('=').map_or("", |(_, value)| value.trim());
    // The quote of a member's name has ended the text.
    if value.contains("[\"") && value.contains("\"]\"") {
        return format!(
            "it is not TOML: {message}; within a text in double quotes write single ones, such as job['x']"
        );
    }
    let is_bare = line.split_once('=').is_some_and(|(_, value)| {
        value.trim_start().starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/')
    });
    let cure = if is_bare { "; a text stands in quotes" } else { "" };
    format!("it is not TOML: {message}{cure}")
}

/// A key's path, as TOML writes it.
pub(super) fn join(path: &str, key: &str) -> String {
    let is_bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    let key = if is_bare { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}
