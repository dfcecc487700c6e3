//! What is wrong with the text of an expression: where it is, and what to write instead.

use std::sync::LazyLock;

use minijinja::Error;
use regex::Regex;

use super::{
    ENVIRONMENT, LONGEST,
    pattern::regex,
    text::{code, filters, has_slice, method, patterns, tests},
};
use crate::vendors::declared::{
    path,
    reader::{closest, remedy},
};

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

/// What other languages write, as a regular expression with the place as its group, and what
/// an expression writes.
const FOREIGN: [(&str, &str); 13] = [
    (r"(\|\|)", "write or"),
    (r"(&&?)", "write and"),
    (r"(\?\?)", "write or"),
    (r"(\?\.)", "write . alone: a member of what is absent is absent"),
    (r"(\?)", "write a if c else b for c ? a : b"),
    (r"([!=]==)", "write == or !="),
    (r"(!)(?:[^=]|$)", "write not"),
    (r"(\$)", "write job for the job, or body for the whole answer"),
    (r"[\w\])](\[\*?\])", "write | map(attribute='name') for a member of each element"),
    (r"(?:^|[^.\w])((?i:null|nil))\b", "write none"),
    (r"(?:^|[^.\w])(undefined)\b", "write none, or the test `is undefined`"),
    (r"[\s)](AND|OR|NOT|IF|ELSE|IN|IS)\b", "write it in lower case"),
    (r"(?:^|[^.\w])(len\()", "write | length behind the value"),
];

/// The first sign of another language, and what to write.
fn foreign(code: &str) -> Option<(usize, String)> {
    static SIGNS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        FOREIGN.iter().filter_map(|(sign, cure)| Some((regex(sign).ok()?, *cure))).collect()
    });
    let is_test = |before: &str| {
        let last = before.split_whitespace().next_back().unwrap_or_default();
        matches!(last, "is" | "not")
    };
    let first_of = |(sign, cure): &(Regex, &'static str)| {
        let mut groups = sign.captures_iter(code).filter_map(|found| found.get(1));
        let group = groups.find(|group| group.as_str() != "undefined" || !is_test(&code[..group.start()]))?;
        Some((group, *cure))
    };
    // Of those that begin at one place, the longest.
    let firsts = SIGNS.iter().filter_map(first_of);
    let (group, cure) = firsts.min_by_key(|(group, _)| (group.start(), usize::MAX - group.len()))?;
    Some((group.start(), format!("{} means nothing here; {cure}", group.as_str())))
}

/// Compiles an expression that uses what expressions may use.
///
/// # Errors
/// What is wrong with it.
pub(super) fn compiled(text: &str) -> Result<minijinja::Expression<'static, 'static>, String> {
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
    if let Some((at, cure)) = foreign(&code_of_text) {
        return Err(marked(text, at, &cure));
    }
    let compiled =
        ENVIRONMENT.compile_expression_owned(text.to_owned()).map_err(|error| syntax(text, &error))?;
    if let Some(filter) = filters(text).into_iter().find(|filter| !FILTERS.contains(&&**filter)) {
        return Err(format!("uses the filter {filter}, which is none; {}", remedy(&filter, &FILTERS)));
    }
    if let Some(test) = tests(text).into_iter().find(|test| test != "undefined" && !TESTS.contains(&&**test))
    {
        return Err(format!("uses the test {test}, which is none; {}", remedy(&test, &TESTS)));
    }
    if has_slice(text) {
        return Err("cuts a part out with [..:..], which is not possible; use find('regex'), first or last"
            .to_owned());
    }
    if let Some(method) = method(text) {
        return Err(format!(
            "calls {method}(), and values have no methods; use a filter, or a test such as `is startingwith('x')`"
        ));
    }
    for pattern in patterns(text) {
        if let Err(reason) = regex(&pattern) {
            return Err(format!("has {pattern:?} as a pattern, which is none: {reason}"));
        }
    }
    Ok(compiled)
}

/// That a name means nothing here.
pub(in crate::vendors::declared) fn unknown_name(name: &str, names: &[&str]) -> String {
    if name == "id" && names.contains(&"ids") {
        return "id is not known here, where several jobs are asked for; write ids, such as \
                ids | map(attribute='job_id') | join(',')"
            .to_owned();
    }
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

/// Whether a text is more likely meant as it stands than to be evaluated.
pub(in crate::vendors::declared) fn is_prose(text: &str, names: &[&str]) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let is_plain = |c: char| is_part(c) || " .,:;/#@%+-".contains(c);
    let is_path = path::split(text).is_some_and(|(_, steps)| !steps.is_empty());
    let reads_one = names.iter().any(|name| text.starts_with(name) || text.contains(&format!("{name}.")));
    text.len() <= 80
        && text.starts_with(char::is_alphabetic)
        && text.chars().all(is_plain)
        && !is_path
        && !reads_one
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
    marked(text, begin, error.detail().unwrap_or("it can't be read"))
}

/// What is wrong, with a caret below its place.
fn marked(text: &str, begin: usize, detail: &str) -> String {
    let line_start = text[..begin].rfind('\n').map_or(0, |at| at + 1);
    let line = text[line_start..].lines().next().unwrap_or_default();
    let column = text[line_start..begin].chars().count();
    format!("is not an expression: {detail}\n    {line}\n    {:column$}^", "")
}
