//! Puts `JOBWATCH__SECTION__KEY` variables into the file's table, which may be empty,
//! after those of OpenTelemetry.
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
    key_tree::{Found, KeyTree, Kind, Part},
    otel,
    problems::{Problems, is_within, join, unknown_key},
    values::closest,
};

/// Before every variable that sets a key.
pub(super) const PREFIX: &str = "JOBWATCH__";

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
    /// Whether a variable with [`PREFIX`] may set the same.
    is_default: bool,
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

    /// The variable that set this key or a table that it is in. The innermost one counts.
    pub(super) fn around(&self, path: &str) -> Option<&str> {
        self.find(|set| is_within(path, set))
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

/// Sets the keys that the variables name. Whether a vendor has the key is found out when
/// the table is read.
pub(super) fn apply(
    file: &mut Table,
    variables: &BTreeMap<String, String>,
    problems: &mut Problems,
) -> Origins {
    let mut origins = Origins::default();
    set_traces(file, variables, problems, &mut origins);
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

/// Sets keys of `[traces]` as OpenTelemetry's own variables say. The last to set a key holds.
fn set_traces(
    file: &mut Table,
    variables: &BTreeMap<String, String>,
    problems: &mut Problems,
    origins: &mut Origins,
) {
    let Some(settings) = otel::settings(variables, problems) else {
        file.remove("traces");
        return;
    };
    for otel::Setting { variable, key, value } in settings {
        let traces = child(file, "traces");
        let has_parts = value.is_table();
        match value {
            // Those of the file stay.
            Value::Table(pairs) => child(traces, key).extend(pairs),
            value => drop(traces.insert(key.to_owned(), value)),
        }
        let origin = Origin { variable: variable.to_owned(), has_parts, is_default: true };
        origins.set.insert(join("traces", key), origin);
    }
}

/// The table at `key`, which replaces anything else there.
fn child<'a>(table: &'a mut Table, key: &str) -> &'a mut Table {
    let slot = table.entry(key).or_insert_with(|| Value::Table(Table::new()));
    if !slot.is_table() {
        *slot = Value::Table(Table::new());
    }
    slot.as_table_mut().expect("anything but a table was replaced by one")
}

/// Why a variable without [`PREFIX`] was meant to have it, if it was. Others begin with
/// `JOBWATCH_` too: Kubernetes sets `JOBWATCH_SERVICE_HOST` for a service of that name.
fn misspelled_prefix(variable: &str) -> Option<String> {
    let rest = variable.strip_prefix(&PREFIX[..PREFIX.len() - 1])?;
    let (section, _) = rest.split_once("__")?;
    KeyTree::root()
        .names()
        .contains(&&*section.to_lowercase())
        .then(|| format!("sets nothing; write {PREFIX}{rest}"))
}

struct Reader<'a> {
    file: &'a mut Table,
    variables: &'a BTreeMap<String, String>,
    origins: &'a mut Origins,
}

impl Reader<'_> {
    fn set(&mut self, rest: &str, variable: &str, text: &str) -> Result<(), String> {
        let parts: Vec<&str> = rest.split("__").collect();
        if parts.iter().any(|part| part.is_empty()) {
            return Err(format!("has nothing before or after '__'; write {PREFIX}SECTION__KEY"));
        }
        let mut steps: Vec<Step> = Vec::new();
        for part in &parts {
            let step = self.step(&steps, part)?;
            steps.push(step);
        }
        split_file_suffix(&mut steps);
        let keys = match find(&steps) {
            Found::Key(keys) => keys,
            Found::Unknown(at, table) => return Err(unknown(&parts, at, &show(&steps[..at]), table)),
        };
        let path = show(&steps);
        // Of the place of a secret nothing else may be set.
        let whole = if is_place(&steps) { show(&steps[..steps.len() - 1]) } else { path.clone() };
        let is_conflict = |set: &str, origin: &Origin| {
            !origin.is_default && (is_within(set, &whole) || is_within(&path, set) && !origin.has_parts)
        };
        let mut earlier = self.origins.set.iter();
        if let Some((set, origin)) = earlier.find(|(set, origin)| is_conflict(set, origin)) {
            return Err(format!("sets {path}, but {} sets {set}; remove one of them", origin.variable));
        }
        let value = value(keys.kind, text)?;
        let has_parts = value.is_table() || value.is_array();
        put(self.file, &steps, value)?;
        self.origins.set.insert(path, Origin { variable: variable.to_owned(), has_parts, is_default: false });
        Ok(())
    }

    /// The step for one part of a variable, after `parents`.
    fn step(&mut self, parents: &[Step], part: &str) -> Result<Step, String> {
        let kind = match find(parents) {
            Found::Key(keys) => keys.kind,
            Found::Unknown(..) => Kind::Text,
        };
        match (kind, parents) {
            (Kind::Names, [Step::Key(section)]) if section == "backends" => self.backend(part).map(Step::Key),
            (Kind::Names, _) => {
                let name = self.name(parents, part)?;
                Ok(Step::Key(name.unwrap_or_else(|| new_name(part))))
            }
            (Kind::Tables, [.., Step::Key(_)]) => part.parse().map(Step::Index).map_err(|_| {
                let list = variable(&show(parents));
                format!("has {part} where a number stands; write {list}__0 for the first one")
            }),
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

/// The keys at these steps.
fn find(steps: &[Step]) -> Found<'static> {
    let parts: Vec<Part<'_>> = steps
        .iter()
        .map(|step| match step {
            Step::Key(key) => Part::Key(key),
            Step::Index(_) => Part::Index,
        })
        .collect();
    KeyTree::root().find(&parts)
}

fn is_secret(steps: &[Step]) -> bool {
    matches!(find(steps), Found::Key(keys) if keys.kind == Kind::Secret)
}

/// `API_KEY_FILE`, as images have it by custom, stands for `API_KEY__FILE`.
fn split_file_suffix(steps: &mut Vec<Step>) {
    if matches!(find(steps), Found::Key(_)) {
        return;
    }
    let Some((Step::Key(last), parents)) = steps.split_last() else { return };
    let Some(secret) = last.strip_suffix("_file") else { return };
    let secret = [parents, &[Step::Key(secret.to_owned())]].concat();
    if is_secret(&secret) {
        *steps = [secret, vec![Step::Key("file".to_owned())]].concat();
    }
}

/// Whether the last step says where the secret at the others is.
fn is_place(steps: &[Step]) -> bool {
    steps.split_last().is_some_and(|(_, parents)| is_secret(parents))
}

/// Describes a variable whose part of this number is no key of the table at `path`.
fn unknown(parts: &[&str], at: usize, path: &str, table: &KeyTree) -> String {
    let name = fold(parts[at]);
    let names = table.names();
    let known = unknown_key(&name, &names);
    if !known.starts_with("is not a key here") {
        return known;
    }
    let variable = |key: &str, rest: &[&str]| {
        let key = key.to_uppercase();
        format!("{PREFIX}{}", [&parts[..at], &[&*key], rest].concat().join("__"))
    };
    // Tables that have the key: the variable lacks their name.
    let is_there = |inner: &KeyTree| matches!(inner.find(&[Part::Key(&name)]), Found::Key(_));
    let tables = table.each().filter(|(_, inner)| inner.kind == Kind::Table && is_there(inner));
    let meant: Vec<String> = tables.map(|(table, _)| variable(table, &parts[at..])).collect();
    if !meant.is_empty() {
        return format!("sets nothing; did you mean {}?", meant.join(" or "));
    }
    if let Some(close) = closest(&name, &names) {
        return format!("sets nothing; did you mean {}?", variable(close, &parts[at + 1..]));
    }
    if names.is_empty() {
        return format!("sets nothing: {path} has no keys; write {PREFIX}{}", parts[..at].join("__"));
    }
    let table = if path.is_empty() { "the configuration" } else { path };
    format!("sets nothing; the keys of {table} are {}", names.join(", "))
}

/// Sets the value at `steps`.
fn put(file: &mut Table, steps: &[Step], value: Value) -> Result<(), String> {
    let mut root = Value::Table(std::mem::take(file));
    let set = (|| {
        if let [secret @ .., _] = steps
            && is_place(steps)
        {
            *slot(&mut root, secret)? = Value::Table(Table::new());
        }
        *slot(&mut root, steps)? = value;
        Ok(())
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

/// The value of a variable. What it holds may be a secret and is not shown.
fn value(kind: Kind, text: &str) -> Result<Value, String> {
    let toml = || toml::from_str::<Table>(&format!("value = {text}")).ok()?.remove("value");
    Ok(match kind {
        Kind::Flag if text == "true" => Value::Boolean(true),
        Kind::Flag if text == "false" => Value::Boolean(false),
        Kind::List if text.starts_with('[') => {
            toml().ok_or("is no list in TOML; write [\"a\", \"b\"], or a,b without brackets")?
        }
        Kind::List => {
            let elements = text.split(',').map(str::trim).filter(|element| !element.is_empty());
            Value::Array(elements.map(|element| Value::String(element.to_owned())).collect())
        }
        Kind::Tables if text.starts_with('[') => {
            toml().ok_or("is no list of tables in TOML; write [{ key = \"value\" }]")?
        }
        Kind::Table | Kind::Names if text.starts_with('{') => {
            toml().ok_or("is no table in TOML; write { key = \"value\" }")?
        }
        _ => Value::String(text.to_owned()),
    })
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
