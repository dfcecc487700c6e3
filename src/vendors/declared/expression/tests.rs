//! Expressions over the values of a job.

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
    for text in ["job.a is not undefined", "{'a': [1]}['a'][0] if job.n is integer and ' is x[1:].y(' else 1"]
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
        ("password", "password is not known here; write job.password for a member of the job, or one of job"),
        ("range(10)", "range is not known here; write job.range for a member of the job, or one of job"),
        ("job.a | intt", "uses the filter intt, which is none; did you mean int?"),
        ("job.a | pprint", "uses the filter pprint, which is none"),
        ("job.a | find('(')", "has \"(\" as a pattern, which is none: unclosed group"),
        ("job.a[:2] == 'x'", "cuts a part out with [..:..], which is not possible"),
        ("job.a.startswith('x')", "calls startswith(), and values have no methods"),
        ("job.a is nosuch", "uses the test nosuch, which is none"),
        ("job.a is not numberx", "did you mean number?"),
        (
            "job.a if job.b else null",
            "null means nothing here; write none\n    job.a if job.b else null\n                        ^",
        ),
        ("job.a or nil", "nil means nothing here; write none"),
        ("job.a != undefined", "undefined means nothing here; write none, or the test `is undefined`"),
        ("job.a || job.b", "|| means nothing here; write or\n    job.a || job.b\n          ^"),
        ("job.a && job.b", "&& means nothing here; write and\n    job.a && job.b\n          ^"),
        ("job.a ?? job.b", "?? means nothing here; write or\n"),
        (
            "job.a ? job.b : job.c",
            "? means nothing here; write a if c else b for c ? a : b\n    job.a ? job.b : job.c\n          ^",
        ),
        ("job.a?.b", "?. means nothing here; write . alone"),
        ("$.x", "$ means nothing here; write job for the job, or body for the whole answer\n    $.x\n    ^"),
        ("job.a === 1", "=== means nothing here; write == or !=\n    job.a === 1\n          ^"),
        ("!job.a", "! means nothing here; write not\n    !job.a\n    ^"),
        ("job.l[*].x", "[*] means nothing here; write | map(attribute='name')"),
        ("job.l[].x", "[] means nothing here; write | map(attribute='name')"),
        ("job.a OR job.b", "OR means nothing here; write it in lower case\n    job.a OR job.b\n          ^"),
        ("len(job.a)", "write | length behind the value"),
        ("{% for x in job %}", "statements and comments are not allowed"),
        ("{{ job.a }}", "write it without {{ }}: job.a"),
        ("https://x/{{ job.a }}", "write values without {{ }}, texts in quotes, and ~ between them"),
    ] {
        let found = Expression::compile(text, &["job"]).unwrap_err();
        assert!(found.contains(problem), "{text}:\n{found}");
    }
    for text in [
        "job.a or []",
        "job.a != 1",
        "job.null or job['nil'] or '$ || ?'",
        "job.a is not undefined and job.b is undefined",
        "job.l | count()",
    ] {
        Expression::compile(text, &["job"]).unwrap_or_else(|why| panic!("{text}: {why}"));
    }
    let long = "1+".repeat(600) + "1";
    assert!(Expression::compile(&long, &[]).unwrap_err().contains("longer than 1024 bytes"));
}
