//! Expressions, where a plain path is not enough: those of minijinja, within a budget.
//!
//! An expression sees the values that it names and nothing else: no secret, no clock, no
//! file. Its fuel bounds time and memory whatever the values are. An error of the engine may
//! quote values, so none of its texts is shown after the definition was read.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{LazyLock, Mutex, PoisonError},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use minijinja::{
    Environment, Error, ErrorKind, State, UndefinedBehavior, Value,
    value::{Serde, ValueKind},
};
use regex::Regex;

use super::{
    native::{Native, file_name_of, first_line_of},
    path::{self, Step},
    reader::{closest, remedy},
    source::{Found, Scope},
};
use crate::vendors::json;

mod failure;
mod text;

pub(super) use failure::Failure;
use text::{code, filters, first_condition, has_slice, method, patterns, tests};

/// What one evaluation may cost: instructions, and 64 bytes of data each.
const FUEL: u64 = 20_000;

/// Longest expression in bytes.
const LONGEST: usize = 1024;

/// Most bytes of a compiled regular expression, and of those that are kept.
const REGEX_BYTES: usize = 64 << 10;
const REGEXES: usize = 256;

/// What the error of a value says that minijinja can't hold.
const UNUSABLE: &str = "no value can hold it";

/// Filters that expressions may use: those of minijinja, and eight of this module.
const FILTERS: [&str; 38] = [
    "abs",
    "base64",
    "bool",
    "count",
    "d",
    "default",
    "file_name",
    "find",
    "first",
    "first_line",
    "float",
    "int",
    "items",
    "join",
    "json",
    "last",
    "latin1",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "replace",
    "round",
    "select",
    "selectattr",
    "sort",
    "split",
    "string",
    "sum",
    "texts",
    "trim",
    "unique",
    "upper",
    "words",
];

/// Tests that expressions may use, all of minijinja.
const TESTS: [&str; 24] = [
    "boolean",
    "defined",
    "divisibleby",
    "endingwith",
    "eq",
    "even",
    "false",
    "float",
    "ge",
    "gt",
    "in",
    "integer",
    "iterable",
    "le",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "sequence",
    "startingwith",
    "string",
    "true",
];

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    // Errors have the place in the expression all the same, and no values.
    environment.set_debug(false);
    environment.set_undefined_behavior(UndefinedBehavior::Chainable);
    for filter in [
        "attr",
        "batch",
        "capitalize",
        "chain",
        "dictsort",
        "e",
        "escape",
        "format",
        "groupby",
        "indent",
        "lines",
        "pprint",
        "reverse",
        "safe",
        "slice",
        "title",
        "zip",
    ] {
        environment.remove_filter(filter);
    }
    let globals: Vec<String> = environment.globals().map(|(name, _)| name.to_owned()).collect();
    for global in &globals {
        environment.remove_global(global);
    }
    environment.add_filter("first_line", |text: &str| first_line_of(text).to_owned());
    environment.add_filter("file_name", |path: &str| file_name_of(path).to_owned());
    environment.add_filter("find", find);
    environment.add_filter("texts", |value: &Value, depth: Option<u8>| {
        let mut texts = Vec::new();
        add_texts(value, depth.unwrap_or(DEEPEST).min(DEEPEST), &mut texts);
        Value::from(texts)
    });
    environment.add_filter("words", |value: &Value| words(value, 4).unwrap_or(Value::UNDEFINED));
    environment.add_filter("json", parsed);
    environment.add_filter("latin1", |text: &str| {
        let bytes = text.chars().map(|c| u8::try_from(u32::from(c))).collect::<Result<Vec<_>, _>>();
        bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok()).map_or(Value::UNDEFINED, Value::from)
    });
    environment.add_filter("base64", |text: &str| {
        let bytes = BASE64_STANDARD.decode(text.trim()).ok();
        bytes.and_then(|bytes| String::from_utf8(bytes).ok()).map_or(Value::UNDEFINED, Value::from)
    });
    environment
});

/// The texts in a value, in its order: itself, or those of a list or an object.
fn add_texts(value: &Value, depth: u8, texts: &mut Vec<Value>) {
    match (value.kind(), depth.checked_sub(1)) {
        (ValueKind::String, _) => texts.push(value.clone()),
        (ValueKind::Seq, Some(depth)) => {
            value.try_iter().into_iter().flatten().for_each(|item| add_texts(&item, depth, texts));
        }
        (ValueKind::Map, Some(depth)) => {
            let members =
                value.try_iter().into_iter().flatten().filter_map(|name| value.get_item(&name).ok());
            members.for_each(|item| add_texts(&item, depth, texts));
        }
        _ => {}
    }
}

/// The words for people in an error: itself where it is a text, else its `message`, which may
/// stand a few wrappers deep.
fn words(value: &Value, depth: u8) -> Option<Value> {
    if let Some(text) = value.as_str() {
        return (!text.trim().is_empty()).then(|| value.clone());
    }
    let depth = depth.checked_sub(1)?;
    ["message", "value", "error"].iter().find_map(|name| words(&value.get_attr(name).ok()?, depth))
}

/// The first group of a regular expression, or all that it matches.
fn find(state: &mut State, text: &str, pattern: &str) -> Result<Value, Error> {
    state.consume_fuel(1 + text.len() as u64 / 64)?;
    let regex = regex(pattern).ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "not a pattern"))?;
    let found = regex.captures(text).and_then(|groups| groups.get(1).or(groups.get(0)));
    Ok(found.map_or(Value::UNDEFINED, |found| found.as_str().into()))
}

/// The value that a text in JSON holds.
fn parsed(state: &mut State, text: &str) -> Result<Value, Error> {
    state.consume_fuel(1 + text.len() as u64 / 16)?;
    Ok(value_of(text).unwrap_or(Value::UNDEFINED))
}

/// Text in JSON as a value. `None` where it is none, or nested deeper than 128 levels.
fn value_of(json: &str) -> Option<Value> {
    let json: serde_json::Value = serde_json::from_str(json).ok()?;
    Some(Value::from(Serde(json)))
}

/// Deepest nesting that expressions see.
const DEEPEST: u8 = 32;

/// A part of an answer as a value. What no value can hold, such as a text with a lone
/// surrogate or what is nested too deep, fails an expression that touches it, and no other:
/// it must not count as absent.
///
/// Of an object only these members, if they are all that the expression can touch.
pub(super) fn value_of_part(part: json::Value<'_>, touched: Option<&[String]>) -> Value {
    let (Some(touched), Some(object)) = (touched, json::Object::of(part)) else {
        return within(part, DEEPEST);
    };
    let members = object.members().filter(|(name, _)| touched.iter().any(|known| known == name));
    Value::from_pairs(members.map(|(name, value)| (name.to_owned(), within(value, DEEPEST - 1))))
}

fn within(part: json::Value<'_>, depth: u8) -> Value {
    let unusable = || Value::from(Error::new(ErrorKind::InvalidOperation, UNUSABLE));
    let text = part.get();
    match (text.as_bytes().first(), depth.checked_sub(1)) {
        (Some(b'{' | b'['), None) => unusable(),
        (Some(b'{'), Some(depth)) => match json::Object::of(part) {
            Some(object) => Value::from_pairs(
                object.members().map(|(name, value)| (name.to_owned(), within(value, depth))),
            ),
            None => unusable(),
        },
        (Some(b'['), Some(depth)) => match json::list(part) {
            Some(items) => items.into_iter().map(|item| within(item, depth)).collect::<Vec<_>>().into(),
            None => unusable(),
        },
        (Some(b'"'), _) => json::text(part).map_or_else(unusable, Value::from),
        _ => value_of(text).unwrap_or_else(unusable),
    }
}

/// A regular expression without look-around, which takes linear time.
pub(super) fn regex(pattern: &str) -> Option<Regex> {
    static KNOWN: LazyLock<Mutex<HashMap<String, Regex>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(regex) = known.get(pattern) {
        return Some(regex.clone());
    }
    let regex = regex::RegexBuilder::new(pattern).size_limit(REGEX_BYTES).build().ok()?;
    if known.len() < REGEXES {
        known.insert(pattern.to_owned(), regex.clone());
    }
    Some(regex)
}

/// A compiled expression.
#[derive(Debug)]
pub(super) struct Expression {
    compiled: Compiled,
    /// The same, where it has a usual form.
    native: Option<Box<Native>>,
    /// Otherwise its first condition, where that has one: minijinja is not needed if it fails.
    guard: Option<Box<Native>>,
    /// The names that it needs, such as `job`.
    pub(super) roots: Vec<String>,
    /// Of each root, the members that it can touch; none where that may be any.
    touched: Vec<Option<Vec<String>>>,
    pub(super) written: String,
}

/// Boxed, since it has the place of every part of its text.
struct Compiled(Box<minijinja::Expression<'static, 'static>>);

impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Expression")
    }
}

impl Expression {
    /// Compiles a text that may use these names.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn compile(text: &str, names: &[&str]) -> Result<Self, String> {
        if text.len() > LONGEST {
            return Err(format!("is longer than {LONGEST} bytes; write a shorter expression"));
        }
        let code_of_text = code(text);
        if code_of_text.contains("{{") && !code_of_text.contains("{%") && !code_of_text.contains("{#") {
            let inner = text.trim().strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
            return Err(match inner.filter(|inner| !inner.contains("{{")) {
                Some(inner) => {
                    format!("is an expression as it stands; write it without {{{{ }}}}: {}", inner.trim())
                }
                None => "is an expression as it stands: write values without {{ }}, texts in quotes, and ~ \
                         between them, such as 'https://vendor.example/' ~ job.id"
                    .to_owned(),
            });
        }
        if ["{%", "{#"].iter().any(|open| code_of_text.contains(open)) {
            return Err("is an expression: statements and comments are not allowed in it".to_owned());
        }
        let compiled =
            ENVIRONMENT.compile_expression_owned(text.to_owned()).map_err(|error| syntax(text, &error))?;
        if let Some(filter) = filters(text).into_iter().find(|filter| !FILTERS.contains(&&**filter)) {
            return Err(format!("uses the filter {filter}, which is none; {}", remedy(&filter, &FILTERS)));
        }
        if let Some(test) =
            tests(text).into_iter().find(|test| test != "undefined" && !TESTS.contains(&&**test))
        {
            return Err(format!("uses the test {test}, which is none; {}", remedy(&test, &TESTS)));
        }
        if has_slice(text) {
            return Err(
                "cuts a part out with [..:..], which is not possible; use find('regex'), first or last"
                    .to_owned(),
            );
        }
        if let Some(method) = method(text) {
            return Err(format!(
                "calls {method}(), and values have no methods; use a filter, or a test such as `is startingwith('x')`"
            ));
        }
        if let Some(pattern) = patterns(text).into_iter().find(|pattern| regex(pattern).is_none()) {
            return Err(format!("has {pattern:?} as a pattern, which is none, or too large"));
        }
        let mut roots: Vec<String> = compiled.undeclared_variables(false).into_iter().collect();
        roots.sort();
        match roots.iter().find(|root| !names.contains(&root.as_str())) {
            Some(root) => Err(unknown_name(root, names)),
            None => Ok(Self {
                touched: touched(&compiled.undeclared_variables(true), &roots),
                native: Native::parse(text).map(Box::new),
                guard: first_condition(text).and_then(Native::parse).map(Box::new),
                compiled: Compiled(Box::new(compiled)),
                roots,
                written: text.to_owned(),
            }),
        }
    }

    /// The members of a root that it can touch; none where that may be any.
    pub(super) fn touched(&self, root: &str) -> Option<&[String]> {
        let place = self.roots.iter().position(|known| known == root);
        place.map_or(Some(&[]), |place| self.touched[place].as_deref())
    }

    /// What it finds; null counts as absent.
    ///
    /// # Errors
    /// The evaluation fails, or costs too much.
    pub(super) fn find<'a>(&self, scope: &Scope<'a>) -> Result<Option<Found<'a>>, Failed> {
        if let Some(native) = &self.native
            && let Ok(found) = native.find(scope)
        {
            return Ok(found);
        }
        if let Some(guard) = &self.guard
            && let Ok(found) = guard.find(scope)
            && !found.as_ref().is_some_and(Found::is_true)
        {
            return Ok(found);
        }
        Ok(self.evaluate(self.values(scope))?.map(Found::Value))
    }

    /// Why it fails, if it does.
    pub(super) fn failure(&self, scope: &Scope<'_>) -> Option<Failure> {
        let error = self.compiled.0.eval(Value::from_pairs(self.values(scope))).err()?;
        Some(Failure::of(&self.written, &error))
    }

    /// The values of the names that it needs.
    fn values(&self, scope: &Scope<'_>) -> BTreeMap<&'static str, Value> {
        let roots = self.roots.iter().zip(&self.touched);
        roots.filter_map(|(root, touched)| scope.value(root, touched.as_deref())).collect()
    }

    /// The value; `None` where it gives nothing.
    ///
    /// # Errors
    /// The evaluation fails, or costs too much.
    pub(super) fn evaluate(&self, values: BTreeMap<&'static str, Value>) -> Result<Option<Value>, Failed> {
        let value = self.compiled.0.eval(Value::from_pairs(values)).map_err(|_| Failed)?;
        Ok((!value.is_undefined() && !value.is_none()).then_some(value))
    }
}

impl Expression {
    /// Whether a name stands in it as a word of its own.
    pub(super) fn names(&self, name: &str) -> bool {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        self.written.split(|c: char| !is_part(c)).any(|word| word == name)
    }

    /// The plain paths from a name in it, up to what has to be evaluated.
    pub(super) fn paths(&self, root: &str) -> Vec<Vec<Step>> {
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
        let is_path = |c: char| c.is_ascii_alphanumeric() || "_.[]'\"-".contains(c);
        let code = code(&self.written);
        let begins = code.match_indices(root).map(|(at, _)| at).filter(|at| !code[..*at].ends_with(is_part));
        let path = |at: usize| {
            let rest = self.written.get(at..)?;
            let longest = rest.find(|c| !is_path(c)).unwrap_or(rest.len());
            let (_, steps) = (root.len()..=longest).rev().find_map(|end| path::split(&rest[..end]))?;
            Some(steps)
        };
        begins.filter_map(path).collect()
    }
}

/// Of each root, the members that are named behind it.
fn touched(variables: &HashSet<String>, roots: &[String]) -> Vec<Option<Vec<String>>> {
    let members = |root: &String| {
        let of_root = variables.iter().filter(|name| name.split('.').next() == Some(root));
        of_root.map(|name| name.split('.').nth(1).map(str::to_owned)).collect()
    };
    roots.iter().map(members).collect()
}

/// An evaluation that fails. The error of the engine may quote values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failed;

/// That a name means nothing here.
pub(super) fn unknown_name(name: &str, names: &[&str]) -> String {
    match closest(name, names) {
        None if names.contains(&"job") => {
            format!(
                "{name} is not known here; write job.{name} for a member of the job, or one of {}",
                names.join(", ")
            )
        }
        _ => format!("{name} is not known here; {}", remedy(name, names)),
    }
}

/// A message with a caret below the first character that does not fit.
fn syntax(text: &str, error: &Error) -> String {
    let ends_early = |part: &str| match ENVIRONMENT.compile_expression_owned(part.to_owned()) {
        Ok(_) => true,
        Err(error) => error
            .detail()
            .is_none_or(|detail| detail.contains("end of input") || detail.contains("end of string")),
    };
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
    // A part of a word is another word.
    let ends = ends.filter(|end| !(text[..*end].ends_with(is_part) && text[*end..].starts_with(is_part)));
    let end = ends.into_iter().find(|end| !ends_early(&text[..*end])).unwrap_or(text.len());
    let before = text[..end].trim_end();
    let word = before.len() - before.trim_end_matches(is_part).len();
    let begin = if end == text.len() && ends_early(text) {
        text.len()
    } else {
        before.len() - word.max(1).min(before.len())
    };
    let begin = (0..=begin).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    let detail = error.detail().unwrap_or("it can't be read");
    let line_start = text[..begin].rfind('\n').map_or(0, |at| at + 1);
    let line = text[line_start..].lines().next().unwrap_or_default();
    let column = text[line_start..begin].chars().count();
    format!("is not an expression: {detail}\n    {line}\n    {:column$}^", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eval(text: &str, job: &str) -> Option<Value> {
        let expression = Expression::compile(text, &["job"]).unwrap_or_else(|why| panic!("{text}: {why}"));
        expression.evaluate(BTreeMap::from([("job", value_of(job).unwrap())])).ok().flatten()
    }

    #[test]
    fn examples_of_the_reference_hold() {
        let job = r#"{"a": "x", "n": null, "done": false, "i": 7, "list": [1, {"m": true, "s": "q"}]}"#;
        for (text, value) in [
            ("job.a if job.i == 7 else none", Some("x")),
            ("job.a if job.done", None),
            ("job.a if job.done else none", None),
            ("job.n or job.missing or job.a", Some("x")),
            ("job.a ~ '/' ~ job.i", Some("x/7")),
            ("job.done ~ 'y'", Some("Falsey")),
            ("job.missing ~ 'y'", Some("y")),
            ("job.n ~ 'y'", Some("Noney")),
            ("(job.n or '') ~ 'y'", Some("y")),
            ("job.list is sequence and job.list | length == 2", Some("True")),
            ("job.list[0]", Some("1")),
            ("job.list | first", Some("1")),
            ("(job.list | selectattr('m') | first).s", Some("q")),
            ("(job.list | last).s", Some("q")),
        ] {
            assert_eq!(eval(text, job).map(|value| value.to_string()).as_deref(), value, "{text}");
        }
    }

    #[test]
    fn expression_reads_values() {
        let job = r#"{"n": 9007199254740993, "a": null, "t": " x\n y", "e": [{"m": "p"}, {"m": "q"}],
            "big": 18446744073709551615, "doc": "{\"s\": 1}", "b": "aGk="}"#;
        for (text, value) in [
            ("job.n + 1", "9007199254740994"),
            ("job.big", "18446744073709551615"),
            ("job.a or job.x.y.z or 'none'", "none"),
            ("job.t | first_line", "x"),
            ("job.e | map(attribute='m') | join(', ')", "p, q"),
            ("(job.doc | json).s", "1"),
            ("job.b | base64", "hi"),
            ("'Ã¤' | latin1", "ä"),
            ("'50 of 80' | find('([0-9]+) of')", "50"),
            ("'done' if job.n > 5 else 'no'", "done"),
        ] {
            assert_eq!(eval(text, job).map(|value| value.to_string()).as_deref(), Some(value), "{text}");
        }
        for text in
            ["job.a is not undefined", "{'a': [1]}['a'][0] if job.n is integer and ' is x[1:].y(' else 1"]
        {
            assert!(eval(text, job).is_some(), "{text}");
        }
        for text in ["job.x", "job.a", "job.x + 1", "job.t | json", "'x' | find('y')", "job.e | int"] {
            assert_eq!(eval(text, job), None, "{text}");
        }
    }

    #[test]
    fn expression_that_costs_too_much_gives_nothing() {
        let list = format!("{{\"l\": [{}0]}}", "1,".repeat(60_000));
        for text in ["'x' * 100000000", "job.l | map('string') | join(',') | length", "job.l | sum"] {
            let expression = Expression::compile(text, &["job"]).unwrap();
            let values = BTreeMap::from([("job", value_of(&list).unwrap())]);
            assert_eq!(expression.evaluate(values), Err(Failed), "{text}");
        }
    }

    #[test]
    fn members_that_an_expression_can_touch_are_known() {
        for (text, members) in [
            ("job.a + job.b.c", Some(vec!["a", "b"])),
            ("job.a | map(attribute=job.b) | join(job.c)", Some(vec!["a", "b", "c"])),
            ("job.a ~ job['b']", None),
            ("job | length", None),
            ("[job, job.a] | length", None),
        ] {
            let expression = Expression::compile(text, &["job"]).unwrap();
            let mut touched = expression.touched[0].clone();
            if let Some(members) = &mut touched {
                members.sort();
            }
            assert_eq!(
                touched,
                members.map(|members| members.iter().map(ToString::to_string).collect()),
                "{text}"
            );
        }
    }

    #[test]
    fn what_no_value_can_hold_fails_what_touches_it_alone() {
        let deep = format!("{}1{}", "[".repeat(3000), "]".repeat(3000));
        for odd in [r#""\ud800""#, "1e999", r#"{"\ud800": 1}"#, &deep] {
            let job = format!("{{\"odd\": {odd}, \"s\": \"ok\"}}");
            let job = json::Value::parse(job.as_bytes()).unwrap();
            let evaluate = |text: &str| {
                let expression = Expression::compile(text, &["job"]).unwrap();
                expression
                    .evaluate(BTreeMap::from([("job", value_of_part(job, None))]))
                    .map(|value| value.map(|value| value.to_string()))
            };
            assert_eq!(evaluate("job.s ~ ''"), Ok(Some("ok".to_owned())), "{odd}");
            assert_eq!(evaluate("job.t or job.s"), Ok(Some("ok".to_owned())), "{odd}");
            assert!(!matches!(evaluate("job.odd or job.none"), Ok(None)), "{odd:.20}");
        }
    }

    #[test]
    fn problem_of_an_expression_says_where_it_is() {
        for (text, problem) in [
            ("job.a or or job.b", "    job.a or or job.b\n                ^"),
            ("job.a[", "    job.a[\n          ^"),
            ("jop.a", "jop is not known here; did you mean job?"),
            (
                "password",
                "password is not known here; write job.password for a member of the job, or one of job",
            ),
            ("range(10)", "range is not known here; write job.range for a member of the job, or one of job"),
            ("job.a | intt", "uses the filter intt, which is none; did you mean int?"),
            ("job.a | pprint", "uses the filter pprint, which is none"),
            ("job.a | find('(')", "has \"(\" as a pattern, which is none, or too large"),
            ("job.a[:2] == 'x'", "cuts a part out with [..:..], which is not possible"),
            ("job.a.startswith('x')", "calls startswith(), and values have no methods"),
            ("job.a is nosuch", "uses the test nosuch, which is none"),
            ("job.a is not numberx", "did you mean number?"),
            ("{% for x in job %}", "statements and comments are not allowed"),
            ("{{ job.a }}", "write it without {{ }}: job.a"),
            ("https://x/{{ job.a }}", "write values without {{ }}, texts in quotes, and ~ between them"),
        ] {
            let found = Expression::compile(text, &["job"]).unwrap_err();
            assert!(found.contains(problem), "{text}:\n{found}");
        }
        let long = "1+".repeat(600) + "1";
        assert!(Expression::compile(&long, &[]).unwrap_err().contains("longer than 1024 bytes"));
    }
}
