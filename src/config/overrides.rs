//! Puts `JOBWATCH__SECTION__KEY` variables into the file's table, which may be empty.
//!
//! A part of a variable is a key, the number of a policy, or a name that the operator
//! chose: of a backend, a token or a header. Variables hold neither lower case by custom
//! nor `-` and `.` by rule, so such a name is looked up in the file without regard to them.
//! A name that the file does not have is written in lower case with `-` for `_`; with a
//! lower-case letter in the variable it is taken as it is.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::{
    Problem,
    problems::{BEARER, Problems, is_within, join},
    values::closest,
};
use crate::vendors::KINDS;

/// Before every variable that sets a key.
pub(super) const PREFIX: &str = "JOBWATCH__";

/// The tables of a file.
const SECTIONS: [&str; 6] = ["server", "admin", "log", "access", "limits", "backends"];

/// Which variable set a key, by the key's path.
#[derive(Debug, Default)]
pub(super) struct Origins {
    set: BTreeMap<String, Origin>,
    /// Backends that only variables define, each with what their names begin with.
    created: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Origin {
    variable: String,
    /// Whether it set a table or a list, of which other variables may set parts.
    has_parts: bool,
}

/// A part of a key's path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

impl Origins {
    /// The variable that set exactly this key.
    pub(super) fn of(&self, path: &str) -> Option<&str> {
        self.set.get(path).map(|origin| &*origin.variable)
    }

    /// The variable that set this key, a part of it, or the table that it is in.
    pub(super) fn near(&self, path: &str) -> Option<&str> {
        self.find(|set| is_within(path, set) || is_within(set, path))
    }

    fn find(&self, is_wanted: impl Fn(&str) -> bool) -> Option<&str> {
        let mut origins = self.set.iter().rev();
        origins.find(|(set, _)| is_wanted(set)).map(|(_, origin)| &*origin.variable)
    }

    /// The variable that would set this key of a backend that only variables define.
    pub(super) fn missing(&self, path: &str) -> Option<String> {
        let (backend, prefix) = self.created.iter().find(|(backend, _)| is_within(path, backend))?;
        Some(format!("{prefix}{}", variable_part(&path[backend.len()..])))
    }
}

/// Adds to a problem the variable that caused it, or the one to set.
pub(super) fn name_variable(problem: &mut Problem, origins: &Origins, has_file: bool) {
    let Problem { subject, text } = problem;
    let is_missing = text.starts_with("is missing") && origins.of(subject).is_none();
    let variable = match origins.near(subject).filter(|_| !is_missing) {
        Some(variable) => format!("set by {variable}"),
        None if !is_missing => return,
        None if subject == "backends" && !has_file => {
            let prefix = format!("{PREFIX}BACKENDS__NAME");
            format!("variables {prefix}__VENDOR, {prefix}__BASE_URL and the like")
        }
        None => match origins.missing(subject) {
            Some(variable) => format!("variable {variable}"),
            None if has_file => return,
            None => format!("variable {}", variable(subject)),
        },
    };
    *text = format!("({variable}) {text}");
}

/// The variable that would set the key at `path`.
fn variable(path: &str) -> String {
    format!("{}{}", &PREFIX[..PREFIX.len() - 2], variable_part(&format!(".{path}")))
}

fn variable_part(path: &str) -> String {
    path.replace(['.', '['], "__").replace(']', "").replace('-', "_").to_uppercase()
}

/// Sets the keys that the variables name. Whether a key exists is found out when
/// the table is read; only names that the operator chose have to be looked up here.
pub(super) fn apply(
    file: &mut Table,
    variables: &BTreeMap<String, String>,
    problems: &mut Problems,
) -> Origins {
    let mut origins = Origins::default();
    let mut named: Vec<(&str, &String, &String)> = Vec::new();
    for (variable, value) in variables {
        match variable.strip_prefix(PREFIX) {
            Some(rest) => named.push((rest, variable, value)),
            None => {
                if let Some(text) = misspelled_prefix(variable) {
                    problems.add(variable, text);
                }
            }
        }
    }
    // Policy 10 comes after policy 2.
    named.sort_by_key(|(rest, ..)| {
        rest.split("__").map(|part| (part.parse::<usize>().ok(), part)).collect::<Vec<_>>()
    });
    let mut reader = Reader { file, variables, origins: &mut origins };
    for (rest, variable, value) in named {
        if let Err(text) = reader.set(rest, variable, value) {
            problems.add(variable, text);
        }
    }
    origins
}

/// Why a variable without [`PREFIX`] was meant to have it, if it was. Others begin with
/// `JOBWATCH_` too: Kubernetes sets `JOBWATCH_SERVICE_HOST` for a service of that name.
fn misspelled_prefix(variable: &str) -> Option<String> {
    let rest = variable.strip_prefix(&PREFIX[..PREFIX.len() - 1])?;
    let (section, _) = rest.split_once("__")?;
    SECTIONS.contains(&&*section.to_lowercase()).then(|| format!("sets nothing; write {PREFIX}{rest}"))
}

struct Reader<'a> {
    file: &'a mut Table,
    variables: &'a BTreeMap<String, String>,
    origins: &'a mut Origins,
}

impl Reader<'_> {
    fn set(&mut self, rest: &str, variable: &str, value: &str) -> Result<(), String> {
        let parts: Vec<&str> = rest.split("__").collect();
        if parts.iter().any(|part| part.is_empty()) {
            return Err(format!("has nothing before or after '__'; write {PREFIX}SECTION__KEY"));
        }
        let mut steps: Vec<Step> = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            let step = self.step(&steps, part, &parts[..at])?;
            steps.push(step);
        }
        split_file_suffix(&mut steps);
        let path = show(&steps);
        // Of the place of a secret nothing else may be set.
        let whole = if is_place(&steps) { show(&steps[..steps.len() - 1]) } else { path.clone() };
        let is_conflict =
            |set: &str, origin: &Origin| is_within(set, &whole) || is_within(&path, set) && !origin.has_parts;
        let mut earlier = self.origins.set.iter();
        if let Some((set, origin)) = earlier.find(|(set, origin)| is_conflict(set, origin)) {
            return Err(format!("sets {path}, but {} sets {set}; remove one of them", origin.variable));
        }
        let has_parts = put(self.file, &steps, value)?;
        self.origins.set.insert(path, Origin { variable: variable.to_owned(), has_parts });
        Ok(())
    }

    /// The step for one part of a variable, after `parents`.
    fn step(&mut self, parents: &[Step], part: &str, before: &[&str]) -> Result<Step, String> {
        let keys: Vec<&str> = parents.iter().map(Step::key).collect();
        match keys[..] {
            ["backends"] => self.backend(part).map(Step::Key),
            ["access", "tokens"] | ["backends", _, "headers"] => {
                let name = self.name(parents, part)?;
                Ok(Step::Key(name.unwrap_or_else(|| new_name(part))))
            }
            ["access", "policies"] => match part.parse() {
                Ok(index) => Ok(Step::Index(index)),
                Err(_) => Err(format!(
                    "has {part} where the number of a policy stands; write {PREFIX}{}__0__PRINCIPALS",
                    before.join("__")
                )),
            },
            _ => Ok(Step::Key(fold(part))),
        }
    }

    /// The name of a backend that the file or a variable defines.
    fn backend(&mut self, part: &str) -> Result<String, String> {
        let parents = [Step::Key("backends".to_owned())];
        if let Some(name) = self.name(&parents, part)? {
            return Ok(name);
        }
        let prefix = format!("{PREFIX}BACKENDS__{part}");
        let vendor = format!("{prefix}__VENDOR");
        let defines = |variable: &&String| fold(variable) == fold(&vendor) || fold(variable) == fold(&prefix);
        if self.variables.keys().any(|variable| defines(&variable)) {
            let name = new_name(part);
            self.origins.created.insert(join("backends", &name), prefix);
            return Ok(name);
        }
        let known = names(self.file, &parents);
        let name = new_name(part);
        let remedy = match closest(&name, &known) {
            Some(close) => {
                let close = variable_part(&format!(".{close}"));
                format!("did you mean {PREFIX}BACKENDS{close}? {vendor} would define it")
            }
            None if known.is_empty() => format!("define it with {vendor}"),
            None => format!("write one of {}, or define it with {vendor}", known.join(", ")),
        };
        Err(format!("names the backend {name}, which is not defined; {remedy}"))
    }

    /// The name in the table at `parents` that a part stands for.
    fn name(&self, parents: &[Step], part: &str) -> Result<Option<String>, String> {
        let names = names(self.file, parents);
        let matching: Vec<&str> = names.iter().copied().filter(|name| fold(name) == fold(part)).collect();
        match matching[..] {
            [] => Ok(None),
            [name] => Ok(Some(name.to_owned())),
            [one, other, ..] => {
                let path = show(parents);
                Err(format!("names both {} and {}; rename one of them", join(&path, one), join(&path, other)))
            }
        }
    }
}

impl Step {
    fn key(&self) -> &str {
        match self {
            Self::Key(key) => key,
            Self::Index(_) => "",
        }
    }
}

fn show(steps: &[Step]) -> String {
    steps.iter().fold(String::new(), |path, step| match step {
        Step::Key(key) => join(&path, key),
        Step::Index(index) => format!("{path}[{index}]"),
    })
}

/// The keys of the table at `steps`.
fn names<'a>(file: &'a Table, steps: &[Step]) -> Vec<&'a str> {
    let mut table = Some(file);
    for step in steps {
        table = table.and_then(|table| table.get(step.key())).and_then(Value::as_table);
    }
    table.into_iter().flat_map(Table::keys).map(String::as_str).collect()
}

/// `API_KEY_FILE`, as images have it by custom, stands for `API_KEY__FILE`.
fn split_file_suffix(steps: &mut Vec<Step>) {
    let Some((Step::Key(last), parents)) = steps.split_last() else { return };
    let Some(secret) = last.strip_suffix("_file").filter(|secret| is_secret(secret)) else { return };
    if parents.last().is_some_and(|parent| matches!(parent.key(), "headers" | "tokens")) {
        return;
    }
    let secret = Step::Key(secret.to_owned());
    *steps.last_mut().expect("it has a last one") = secret;
    steps.push(Step::Key("file".to_owned()));
}

/// Whether the last step says where the secret at the others is.
fn is_place(steps: &[Step]) -> bool {
    let [.., table, secret, Step::Key(place)] = steps else { return false };
    matches!(&**place, "env" | "file") && (is_secret(secret.key()) || table.key() == "headers")
}

/// Sets the value at `steps`. Returns whether it is a table or a list.
fn put(file: &mut Table, steps: &[Step], text: &str) -> Result<bool, String> {
    let mut root = Value::Table(std::mem::take(file));
    let set = (|| {
        if let [secret @ .., _] = steps
            && is_place(steps)
        {
            *slot(&mut root, secret)? = Value::Table(Table::new());
        }
        let slot = slot(&mut root, steps)?;
        *slot = value(steps.last().map_or("", Step::key), text);
        Ok(slot.is_table() || slot.is_array())
    })();
    if let Value::Table(table) = root {
        *file = table;
    }
    set
}

/// The value at `steps`, made where there is none.
fn slot<'a>(root: &'a mut Value, steps: &[Step]) -> Result<&'a mut Value, String> {
    let mut value = root;
    for (at, step) in steps.iter().enumerate() {
        value = match step {
            Step::Key(key) => {
                if !value.is_table() {
                    *value = Value::Table(Table::new());
                }
                let table = value.as_table_mut().expect("anything but a table was replaced by one");
                table.entry(key).or_insert_with(|| Value::Table(Table::new()))
            }
            Step::Index(index) => {
                if !value.is_array() {
                    *value = Value::Array(Vec::new());
                }
                let list = value.as_array_mut().expect("anything but a list was replaced by one");
                if *index > list.len() {
                    let (path, length) = (show(&steps[..at]), list.len());
                    return Err(format!(
                        "names {path}[{index}], but there are {length} before it; number them from 0, without a gap"
                    ));
                }
                if *index == list.len() {
                    list.push(Value::Table(Table::new()));
                }
                &mut list[*index]
            }
        };
    }
    Ok(value)
}

/// A list or an inline table in TOML, or else the text, which the key's reader parses.
fn value(key: &str, text: &str) -> Value {
    let parsed = (text.starts_with(['[', '{']) && !is_secret(key))
        .then(|| toml::from_str::<Table>(&format!("value = {text}")).ok())
        .flatten();
    parsed.and_then(|mut table| table.remove("value")).unwrap_or_else(|| Value::String(text.to_owned()))
}

/// Whether the key's text is always a secret and never TOML.
fn is_secret(key: &str) -> bool {
    matches!(key, BEARER | "proxy_password") || KINDS.iter().any(|kind| kind.credentials.secret == key)
}

/// The name that a variable creates.
fn new_name(part: &str) -> String {
    if part.contains(|c: char| c.is_lowercase()) {
        part.to_owned()
    } else {
        part.to_lowercase().replace('_', "-")
    }
}

/// A name without what variables can't hold.
fn fold(name: &str) -> String {
    name.to_lowercase().replace(['-', '.'], "_")
}

#[cfg(test)]
mod tests;
