//! Holds the usual forms to minijinja.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::vendors::declared::expression::{Expression, value_of_part};

const VALUES: [&str; 30] = [
    "null",
    "true",
    "false",
    "0",
    "-0",
    "-0.0",
    "1",
    "-5",
    "1.5",
    "1e3",
    "1e999",
    "9223372036854775807",
    "9223372036854775808",
    r#""""#,
    r#""x""#,
    r#"" x ""#,
    r#""\n  a\r\nb""#,
    r#""\u00e4\\""#,
    r#""\ud800""#,
    "[]",
    "[ ]",
    r#"["x"]"#,
    r#"["x", "y"]"#,
    r#"[1, ["x"], {"b": "x"}]"#,
    "{}",
    "{ }",
    r#"{"b": "x"}"#,
    r#"{"b": null, "c": {"a": 1}, "b": 7}"#,
    r#"{"b": "x", "\ud800": 1}"#,
    r#"{"\u0062": "x"}"#,
];

/// What both say of an expression about a job: the value in all its readings.
fn held(text: &str, job: &str) -> Option<()> {
    let expression = Expression::compile(text, &["job"]).unwrap_or_else(|why| panic!("{text}: {why}"));
    let native = Native::parse(text).unwrap_or_else(|| panic!("{text} has a usual form"));
    let (whole, object) = json::Object::parse_whole(job.as_bytes())?;
    for object in [None, Some(&object)] {
        let scope = Scope { job: Some(whole), object, ..Scope::default() };
        let Ok(found) = native.find(&scope) else { return None };
        let values = BTreeMap::from([("job", value_of_part(whole, None))]);
        let expected = expression.evaluate(values).map(|value| value.map(Found::Value));
        let readings = |found: &Found<'_>| {
            let json = found.json().map(std::borrow::Cow::into_owned);
            (found.text(), found.integer(), found.number(), found.is_true(), json)
        };
        assert_eq!(
            Ok(found.as_ref().map(readings)),
            expected.map(|found| found.as_ref().map(readings)),
            "{text} of {job}"
        );
    }
    Some(())
}

#[test]
fn usual_forms_give_what_minijinja_gives() {
    let job = r#"{"a": "x", "s": ["active"], "n": 9007199254740993, "t": "\n one \n two", "e": "", "z": null,
        "o": {"b-c": "y", "l": [1, {"d": "deep"}]}, "f": false}"#;
    for (text, given) in [
        ("job.e or job.a", Some("x")),
        ("job.q.r or job.z or 'none'", Some("none")),
        (
            "job.s[0] if job.s is sequence and job.s is not string and job.s | length == 1 else job.s",
            Some("active"),
        ),
        (
            "job.a[0] if job.a is sequence and job.a is not string and job.a | length == 1 else job.a",
            Some("x"),
        ),
        ("job.n", Some("9007199254740993")),
        ("job.t | first_line", Some("one")),
        ("job.q | default('d')", Some("d")),
        ("'/a/b c.csv?x=/y' | file_name", Some("b c.csv")),
        ("'a//?' | file_name", Some("a")),
        ("'//' | file_name", Some("//")),
        ("job.z | default('d')", None),
        ("job.o['b-c'] or job.a", Some("y")),
        ("job.o.l[1].d if job.a in ['x', 'y'] and not job.f", Some("deep")),
        ("job.a if job.a not in ['x', 'y']", None),
        ("job.a == 'x'", Some("true")),
        ("job.a != 'x' or job.n == 9007199254740993", Some("true")),
        ("'p' if job.a == 'y' else 'q' if job.a == 'x' else 'r'", Some("q")),
        ("(job.e or job.a) | length", Some("1")),
        ("'r' if job.z is none else 's'", Some("r")),
        ("'r' if job.q is defined else 's'", Some("s")),
    ] {
        let native = Native::parse(text).unwrap_or_else(|| panic!("{text}"));
        let job = Json::parse(job.as_bytes()).unwrap();
        let found = native.find(&Scope { job: Some(job), ..Scope::default() });
        assert_eq!(found.unwrap().and_then(|found| found.text()).as_deref(), given, "{text}");
        assert!(held(text, job.get()).is_some(), "{text}");
    }
}

#[test]
fn any_other_form_is_minijinjas() {
    let deep = format!("{}job.a{}", "(".repeat(40), ")".repeat(40));
    let many = vec!["job.a"; 17].join(" or ");
    for text in [
        "job.a + 1",
        "job.a ~ 'x'",
        "job.a | join(', ')",
        "job.a == 'x' == true",
        "job.a in job.b",
        "(job.a or job.b).c",
        "job.a is startingwith('x')",
        "job.a is defined 1",
        "job.a is sequence if true",
        "job.a | default('x', true)",
        "http.status or 'x'",
        "job[job.a]",
        "'it\\'s'",
        "-1",
        "1.5",
        "['x']",
        &deep,
        &many,
    ] {
        assert_eq!(Native::parse(text), None, "{text}");
    }
}

#[test]
fn first_line_of_a_text_of_a_megabyte_is_found() {
    let job = format!("{{\"t\": \"one\\n{}\"}}", "x".repeat(2 << 20));
    let job = Json::parse(job.as_bytes()).unwrap();
    let found = Native::parse("job.t | first_line").unwrap();
    let found = found.find(&Scope { job: Some(job), ..Scope::default() }).unwrap();
    assert_eq!(found.and_then(|found| found.text()).as_deref(), Some("one"));
}

fn expressions() -> impl Strategy<Value = String> {
    let atom = proptest::sample::select(vec![
        "job.a",
        "job.b",
        "job.a.b",
        "job.a['c'].a",
        "job.a[0]",
        "job.a[1][0]",
        "job.x",
        "'x'",
        "''",
        "0",
        "1",
        "none",
        "true",
        "false",
        "job",
    ])
    .prop_map(str::to_owned);
    atom.prop_recursive(4, 24, 3, |inner| {
        let two = (inner.clone(), inner.clone());
        let filters = vec!["first_line", "file_name", "length", "default('x')", "d(0)", "default(none)"];
        let tests = vec!["defined", "undefined", "none", "boolean", "string", "sequence", "mapping"];
        prop_oneof![
            two.clone().prop_map(|(one, other)| format!("{one} or {other}")),
            two.clone().prop_map(|(one, other)| format!("{one} and {other}")),
            two.clone().prop_map(|(one, other)| format!("({one}) == ({other})")),
            two.clone().prop_map(|(one, other)| format!("({one}) != ({other})")),
            two.prop_map(|(one, other)| format!("{one} if {other}")),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(a, b, c)| format!("{a} if {b} else {c}")),
            inner.clone().prop_map(|of| format!("not ({of})")),
            inner.clone().prop_map(|of| format!("({of}) in ['x', 1, none, true]")),
            inner.clone().prop_map(|of| format!("({of}) not in ['x', '', 0]")),
            (inner.clone(), proptest::sample::select(filters))
                .prop_map(|(of, filter)| format!("({of}) | {filter}")),
            (inner.clone(), any::<bool>(), proptest::sample::select(tests)).prop_map(|(of, is_not, test)| {
                format!("({of}) is {}{test}", if is_not { "not " } else { "" })
            }),
            inner.prop_map(|of| format!("({of})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_sure_is_what_minijinja_gives(
        text in expressions(),
        one in proptest::sample::select(&VALUES[..]),
        other in proptest::sample::select(&VALUES[..]),
    ) {
        let is_expression = Expression::compile(&text, &["job"]).is_ok();
        if is_expression && Native::parse(&text).is_some() {
            held(&text, &format!("{{\"a\": {one}, \"b\": {other}}}"));
        }
    }

    #[test]
    fn condition_before_another_one_decides_what_minijinja_would(
        first in expressions(),
        sign in proptest::sample::select(vec!["and", "or", "if"]),
        one in proptest::sample::select(&VALUES[..]),
        other in proptest::sample::select(&VALUES[..]),
    ) {
        let text = format!("{first} {sign} job.b | lower | find('x')");
        let Ok(expression) = Expression::compile(&text, &["job"]) else { return Ok(()) };
        let job = format!("{{\"a\": {one}, \"b\": {other}}}");
        let Some((whole, object)) = json::Object::parse_whole(job.as_bytes()) else { return Ok(()) };
        let scope = Scope { job: Some(whole), object: Some(&object), ..Scope::default() };
        let text_of = |found: Option<Found<'_>>| found.map(|found| (found.text(), found.is_true()));
        let values = BTreeMap::from([("job", value_of_part(whole, None))]);
        let expected = expression.evaluate(values).map(|value| text_of(value.map(Found::Value)));
        prop_assert_eq!(expression.find(&scope).map(text_of), expected, "{} of {}", text, job);
    }
}
