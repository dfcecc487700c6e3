//! Expressions, where a plain path is not enough: those of minijinja, within a budget.
//!
//! An expression sees the values that it names and nothing else: no secret, no clock, no
//! file. Its fuel bounds time and memory whatever the values are. An error of the engine may
//! quote values, so none of its texts is shown after the definition was read.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{LazyLock, Mutex, PoisonError},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use minijinja::{Environment, Error, ErrorKind, State, UndefinedBehavior, Value, value::Serde};
use regex::Regex;

use super::{
    path::{self, Step},
    reader::{closest, remedy},
};
use crate::vendors::json;

mod text;

use text::{code, filters, has_slice, method, patterns, tests};

/// What one evaluation may cost: instructions, and 64 bytes of data each.
const FUEL: u64 = 20_000;

/// Longest expression in bytes.
const LONGEST: usize = 1024;

/// Most bytes of a compiled regular expression, and of those that are kept.
const REGEX_BYTES: usize = 64 << 10;
const REGEXES: usize = 256;

/// Filters that expressions may use: those of minijinja, and five of this module.
const FILTERS: [&str; 35] = [
    "abs",
    "base64",
    "bool",
    "count",
    "d",
    "default",
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
    "trim",
    "unique",
    "upper",
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
    environment.add_filter("first_line", |text: &str| {
        text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().to_owned()
    });
    environment.add_filter("find", find);
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
pub(super) fn value_of_part(part: json::Value<'_>) -> Value {
    within(part, DEEPEST)
}

fn within(part: json::Value<'_>, depth: u8) -> Value {
    let unusable = || Value::from(Error::new(ErrorKind::InvalidOperation, "no value can hold it"));
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
    /// The names that it needs, such as `job`.
    pub(super) roots: Vec<String>,
    pub(super) written: String,
}

struct Compiled(minijinja::Expression<'static, 'static>);

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
            None => Ok(Self { compiled: Compiled(compiled), roots, written: text.to_owned() }),
        }
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
    fn what_no_value_can_hold_fails_what_touches_it_alone() {
        let deep = format!("{}1{}", "[".repeat(3000), "]".repeat(3000));
        for odd in [r#""\ud800""#, "1e999", r#"{"\ud800": 1}"#, &deep] {
            let job = format!("{{\"odd\": {odd}, \"s\": \"ok\"}}");
            let job = json::Value::parse(job.as_bytes()).unwrap();
            let evaluate = |text: &str| {
                let expression = Expression::compile(text, &["job"]).unwrap();
                expression
                    .evaluate(BTreeMap::from([("job", value_of_part(job))]))
                    .map(|value| value.map(|value| value.to_string()))
            };
            assert_eq!(evaluate("job.s or 'x'"), Ok(Some("ok".to_owned())), "{odd}");
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
