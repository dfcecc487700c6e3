//! Why an expression fails, in words that hold none of its values.

use std::error::Error as _;

use minijinja::{Error, ErrorKind};

use super::FUEL;

/// A failed evaluation, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::vendors::declared) struct Failure {
    /// Such as `a number is divided by a text`.
    pub(in crate::vendors::declared) reason: String,
    /// The line of the expression, and one with a caret below what fails.
    pub(in crate::vendors::declared) lines: Vec<String>,
}

impl Failure {
    /// What the error of an evaluation of `text` says.
    pub(super) fn of(text: &str, error: &Error) -> Self {
        // The error of a filter within another one is the more exact one.
        let mut inmost = error;
        while let Some(inner) = inmost.source().and_then(|source| source.downcast_ref::<Error>()) {
            inmost = inner;
        }
        let known = reason(inmost).or_else(|| reason(error));
        let reason = known.unwrap_or_else(|| "a value there has a type that can't be used so".to_owned());
        let line = || Some(vec![text.lines().nth(error.line()?.checked_sub(1)?)?.replace('\t', " ")]);
        let lines = error.range().map(|range| marked(text, range)).or_else(line);
        Self { reason, lines: lines.unwrap_or_default() }
    }
}

/// The line with the beginning of a range, and carets below the range.
fn marked(text: &str, range: std::ops::Range<usize>) -> Vec<String> {
    let begin = (0..=range.start.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let line_start = text[..begin].rfind('\n').map_or(0, |at| at + 1);
    let line = text[line_start..].lines().next().unwrap_or_default();
    let line_end = line_start + line.len();
    let end = (begin..=range.end.clamp(begin, line_end)).rev().find(|at| text.is_char_boundary(*at));
    let column = text[line_start..begin].chars().count();
    let width = text[begin..end.unwrap_or(begin)].chars().count().max(1);
    vec![line.replace('\t', " "), format!("{:column$}{}", "", "^".repeat(width))]
}

/// Says what it means if the detail is known to hold no value.
fn reason(error: &Error) -> Option<String> {
    if error.kind() == ErrorKind::OutOfFuel {
        return Some(format!("it costs more than {FUEL} instructions, or handles too much text"));
    }
    if error.kind() == ErrorKind::UndefinedError {
        return Some("a value there is absent".to_owned());
    }
    let detail = error.detail()?;
    if let Some(rest) = detail.strip_prefix("tried to use ")
        && let Some((operator, kinds)) = rest.split_once(" operator on unsupported types ")
        && let Some((one, other)) = kinds.split_once(" and ")
    {
        return Some(operation(operator, one, other));
    }
    if detail.starts_with("unable to calculate ") {
        return Some("the result is no number: a division by 0, or numbers that are too large".to_owned());
    }
    for (begin, end) in [
        ("cannot calculate length of value of type ", "has no length"),
        ("cannot join value of type ", "can't be joined"),
        ("cannot convert ", ""),
    ] {
        let Some(kind) = detail.strip_prefix(begin) else { continue };
        let (kind, target) = kind.split_once(" to ").unwrap_or((kind, ""));
        let (kind, target) = (of_kind(kind)?, of_target(target));
        return Some(match (target, kind, end) {
            (_, "absent", _) => "a value there is absent".to_owned(),
            (_, kind, end) if !end.is_empty() => format!("{kind} {end}"),
            (Some(target), kind, _) => format!("{kind} stands where {target} is expected"),
            (None, kind, _) => format!("{kind} stands where another type is expected"),
        });
    }
    if let Some(kind) = detail.strip_prefix("can only sum numbers, got ") {
        return Some(format!("{} stands in a sum", of_kind(kind)?));
    }
    if let Some(kind) = detail.strip_suffix(" is not iterable") {
        return Some(match of_kind(kind)? {
            "absent" => "a value there is absent".to_owned(),
            kind => format!("{kind} stands where a list is expected"),
        });
    }
    let known = match detail {
        "value is not a string" => "another value stands where a text is expected",
        "invalid float literal" | "cannot parse float from empty string" => {
            "a text that is no number stands where a number is expected"
        }
        "not iterable" => "another value stands where a list is expected",
        "cannot get absolute value" => "another value stands where a number is expected",
        "cannot perform a containment check on this value" => {
            "what stands behind `in` is no list, object or text"
        }
        "strings can only be multiplied with integers" => {
            "a text is multiplied by another value than a number"
        }
        "sequences and iterables can only be multiplied with integers" => {
            "a list is multiplied by another value than a number"
        }
        "repeated string is too large" | "repeated sequence is too large" => "the result is too large",
        super::UNUSABLE => {
            "it reads a text that is no Unicode, a number that is too large, or a value that is nested too deep"
        }
        _ => return None,
    };
    Some(known.to_owned())
}

/// That two values have types which an operator does not take.
fn operation(operator: &str, one: &str, other: &str) -> String {
    let (Some(one), Some(other)) = (of_kind(one), of_kind(other)) else {
        return format!("its values have types that {operator} does not take");
    };
    match (one, other) {
        ("absent", "absent") => return format!("both values of {operator} are absent"),
        ("absent", _) => return format!("what stands before {operator} is absent"),
        (_, "absent") => return format!("what stands behind {operator} is absent"),
        _ => {}
    }
    match operator {
        "+" => format!("{one} and {other} are added"),
        "-" => format!("{other} is subtracted from {one}"),
        "*" => format!("{one} is multiplied by {other}"),
        "/" | "//" | "%" => format!("{one} is divided by {other}"),
        _ => format!("{operator} stands between {one} and {other}"),
    }
}

/// A type of minijinja in the words of JSON.
fn of_kind(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "undefined" => "absent",
        "none" => "null",
        "bool" => "true or false",
        "number" => "a number",
        "string" => "a text",
        "sequence" | "iterator" | "iterable" => "a list",
        "map" => "an object",
        _ => return None,
    })
}

/// A type of Rust in the words of JSON.
fn of_target(target: &str) -> Option<&'static str> {
    match target {
        "string" | "str" => Some("a text"),
        "bool" => Some("true or false"),
        "f32" | "f64" | "float" => Some("a number"),
        "integer" => Some("a whole number"),
        target if target.trim_start_matches(['i', 'u']).parse::<u16>().is_ok() || target == "usize" => {
            Some("a whole number")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::vendors::{
        declared::{
            expression::Expression,
            source::{Found, Scope},
        },
        json,
    };

    /// The values of the job are in no reason.
    const JOB: &str = r#"{"n": 731, "t": "hush", "o": {"hush": "hush"}, "l": ["hush", 731], "f": true, "z": 0,
        "null": null, "odd": "\ud800"}"#;

    fn failure(text: &str) -> Failure {
        let expression = Expression::compile(text, &["job"]).unwrap_or_else(|why| panic!("{text}: {why}"));
        let job = json::Value::parse(JOB.as_bytes()).unwrap();
        let scope = Scope { job: Some(job), ..Scope::default() };
        let failure = expression.failure(&scope).unwrap_or_else(|| panic!("{text} gives a value"));
        let all = format!("{failure:?}");
        assert!(!all.contains("hush") && !all.contains("731"), "{all}");
        failure
    }

    #[test]
    fn reason_names_the_types_and_no_value() {
        let mut wrong = Vec::new();
        for (text, reason) in [
            ("job.n / job.t", "a number is divided by a text"),
            ("job.t + job.n", "a text and a number are added"),
            ("job.n - job.o", "an object is subtracted from a number"),
            ("job.l * job.l", "a list is multiplied by another value than a number"),
            ("job.n / job.z", "the result is no number: a division by 0, or numbers that are too large"),
            ("job.nope + 1", "what stands before + is absent"),
            ("1 + job.o.nope", "what stands behind + is absent"),
            ("job.null + 1", "null and a number are added"),
            ("job.n | length", "a number has no length"),
            ("job.o | first_line", "another value stands where a text is expected"),
            ("job.t | abs", "another value stands where a number is expected"),
            ("'x' in job.n", "what stands behind `in` is no list, object or text"),
            ("job.odd ~ 'x'", "it reads a text that is no Unicode"),
            ("job.t * 100000000", "it costs more than 20000 instructions"),
            ("'x' * 100000000", "it costs more than 20000 instructions"),
            ("job.t | int", "a text that is no number stands where a number is expected"),
            ("job.l | sum", "a text stands in a sum"),
            ("job.l | map('abs') | list", "where a number is expected"),
        ] {
            let failure = failure(text);
            if !failure.reason.contains(reason) {
                wrong.push(format!("{text}: {failure:?}"));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn caret_stands_below_what_fails() {
        for (text, line, caret) in [
            ("(job.t or 1) / 2", "(job.t or 1) / 2", "^^^^^^^^^^^^^^^^"),
            ("'ä' ~ (job.n / job.t)", "'ä' ~ (job.n / job.t)", "       ^^^^^^^^^^^^^"),
        ] {
            assert_eq!(failure(text).lines, [line, caret], "{text}");
        }
        let lines = failure("job.n\n  + job.t").lines;
        assert!(lines.iter().any(|line| line.contains("job.")), "{lines:?}");
    }

    #[test]
    fn expression_that_gives_a_value_has_no_failure() {
        let expression = Expression::compile("job.n + 1", &["job"]).unwrap();
        let job = json::Value::parse(JOB.as_bytes()).unwrap();
        let scope = Scope { job: Some(job), ..Scope::default() };
        assert_eq!(expression.failure(&scope), None);
        assert!(matches!(expression.find(&scope), Ok(Some(Found::Value(_)))));
        assert!(expression.evaluate(BTreeMap::new()).is_err());
    }
}
