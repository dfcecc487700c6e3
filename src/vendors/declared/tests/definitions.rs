//! What is wrong with a definition is said with its place and a cure.

use super::*;

pub(super) const GOOD: &str = r#"
format = 1
name = "x"
version = "1.0.0"
title = "X"
docs = "https://x.example/docs"

[id]
pattern = "{a}/{b}"
a = "integer"

[params]
region = { type = "text", default = "eu" }

[credentials.none]
[credentials.basic]

[request]
path = "/{{ params.region }}/jobs/{{ id.a }}/{{ id.b }}"

[status]
id = { a = "job.a", b = "job.b" }
word = ["job.s", "job.r"]

[states]
RUNNING = ["run/*"]
SUCCEEDED = ["end/ok"]
FAILED = ["end/bad"]

[[faults]]
status = 404
is = "not_found"
"#;

/// The problems of the definition with one text in place of another.
pub(super) fn problems(from: &str, to: &str) -> Vec<String> {
    assert_eq!(GOOD.matches(from).count(), 1, "{from}");
    match Definition::parse(&GOOD.replace(from, to)) {
        Ok(_) => Vec::new(),
        Err(invalid) => {
            invalid.problems.iter().map(|problem| format!("{} {}", problem.path, problem.text)).collect()
        }
    }
}

#[test]
fn problem_has_the_place_of_its_key_or_value() {
    for (from, to, place) in [
        ("format = 1", "format = 2", (2, 10)),
        ("docs =", "dosc = \"d\"\ndocs =", (6, 1)),
        ("SUCCEEDED =", "SUCEEDED =", (27, 1)),
        ("\"job.r\"]", "\"jbo.r\"]", (23, 18)),
        ("FAILED = [\"end/bad\"]", "FAILED = [\n  \"end/bad\", # ä\n  \"end\"]", (30, 3)),
    ] {
        let invalid = Definition::parse(&GOOD.replace(from, to)).unwrap_err();
        let first = &invalid.problems[0];
        assert_eq!((first.line, first.column), place, "{first}");
        assert!(
            first.to_string().starts_with(&format!("{}:{}: {} ", place.0, place.1, first.path)),
            "{first}"
        );
    }
}

#[test]
fn problem_names_key_and_cure() {
    Definition::parse(GOOD).unwrap();
    let cases = [
        (
            "path = \"/{{ params.region }}/jobs/{{ id.a }}/{{ id.b }}\"",
            "location = \"{{ '/jobs/' ~ id.a ~ id.b }}\"\nquery = { full = \"1\" }",
            "request.query stands beside location, which has a query of its own; write it there",
        ),
        ("format = 1", "format = 2", "format is 2: this version reads format 1; update jobwatch"),
        (
            "title = \"X\"\n",
            "",
            "title is missing; write the vendor and its kind of jobs, such as title = \"Databricks job runs\"",
        ),
        ("[params]", "colour = 1\n[params]", "id.colour is no part of id.pattern; write one of a, b"),
        ("docs =", "dosc = \"d\"\ndocs =", "dosc is not a key here; did you mean docs?"),
        ("SUCCEEDED =", "SUCEEDED =", "states.SUCEEDED is not a state; did you mean SUCCEEDED?"),
        ("SUCCEEDED =", "DONE =", "states has nothing that is SUCCEEDED; add the vendor's word for it"),
        (
            "FAILED = [\"end/bad\"]",
            "",
            "states has nothing that is FAILED, CANCELLED or EXPIRED; add one, or write no_failure = \"why\"",
        ),
        (
            "FAILED = [\"end/bad\"]",
            "FAILED = [\"end/ok\"]",
            "states.FAILED[0] is \"end/ok\", which stands in SUCCEEDED and in FAILED; keep one",
        ),
        (
            "FAILED = [\"end/bad\"]",
            "FAILED = [\"end\"]",
            "states.FAILED[0] is \"end\" with 1 part, and status.word has 2; write \"end/*\"",
        ),
        (
            "FAILED = [\"end/bad\"]",
            "FAILED = [\"*/ok\", \"run/bad\"]",
            "states.FAILED[0] is \"*/ok\", and \"run/*\" fits \"run/ok\" as well; add \"run/ok\" to one of the states",
        ),
        (
            "FAILED = [\"end/bad\"]",
            "FAILED = [\"end/bad\"]\notherwise = \"FAILED\"",
            "states.otherwise is FAILED, which is an end: one new word of the vendor's would end jobs; write RUNNING or PENDING",
        ),
        ("/{{ id.b }}", "/{{ b }}", "request.path b is not known here; did you mean id.b?"),
        ("/{{ id.b }}", "/{{ id.c }}", "request.path id.c is not known here; did you mean id.a?"),
        ("/{{ id.b }}", "", "id has the part b, which [request] does not use; use it there, or remove it"),
        (
            "/{{ id.b }}",
            "/{% if x %}",
            "request.path holds a statement or a comment, which are not allowed; use {{ }}",
        ),
        (
            "/{{ id.b }}",
            "/{b}",
            "request.path holds a single brace; a value stands in two, such as {{ id.job_id }}",
        ),
        ("/{{ id.b }}", "/{{ id.b", "request.path has {{ without }}; write both"),
        (
            "/{{ id.b }}",
            "/{{ password }}",
            "request.path {{ password }} is a secret; secrets stand in [credentials] only",
        ),
        ("/{{ id.b }}", "/{{ id.b }}?x=1", "request.path holds a ? or #; write what follows it in query"),
        (
            "/{{ id.b }}",
            "/../{{ id.b }}",
            "request.path holds . or .. as a segment; write the path without them",
        ),
        (
            "\"/{{ params",
            "\"{{ params",
            "request.path does not begin with a slash; write the path behind base_url's own",
        ),
        (
            "[status]",
            "headers = { Authorization = \"x\" }\n[status]",
            "request.headers.Authorization is written by [credentials]; declare a way there",
        ),
        ("\"job.r\"]", "\"job.r or or job.s\"]", "status.word[1] is not an expression"),
        ("\"job.r\"]", "\"jbo.r\"]", "status.word[1] jbo is not known here; did you mean job?"),
        (
            "id = { a = \"job.a\", b = \"job.b\" }",
            "id = \"job.id\"",
            "status.id is one value, and an id has several parts; write { a = \"job...\", b = \"job...\" }",
        ),
        (
            "word = [",
            "result = \"job.a or job.b\"\nword = [",
            "status.result is not a plain path from job; write one such as \"job.data\"",
        ),
        ("status = 404", "status = 500", "faults[0] takes a status that says nothing of a job"),
        ("status = 404\n", "", "faults[0] has no condition; write status"),
        (
            "is = \"not_found\"",
            "is = \"rejected\"",
            "faults has nothing that says not_found: a job that does not exist would be a fault of the backend",
        ),
        (
            "is = \"not_found\"",
            "is = \"not_found\"\n[[faults]]\nstatus = 404\nwhen = \"body.x\"\nis = \"rejected\"",
            "faults[1] is never reached: faults[0] takes every response that it would; put it first",
        ),
        (
            "is = \"not_found\"",
            "is = \"not_found\"\n[[files]]\nname = \"x\"\nurl = \"https://y.example/{{ job.u }}\"",
            "files[0].url leads to another origin; write origin = \"..\", which the operator has to allow",
        ),
        (
            "[credentials.basic]",
            "[credentials.basic]\nsecret = \"api_key\"\n[credentials.query]\nname = \"key\"",
            "credentials.query takes its secret at api_key, as credentials.basic does; write another name",
        ),
        ("type = \"text\"", "type = \"tex\"", "params.region.type is \"tex\"; did you mean text?"),
        ("a = \"integer\"", "a = { regex = \"(\" }", "id.a.regex is not a regular expression"),
    ];
    for (from, to, problem) in cases {
        let found = problems(from, to);
        assert!(
            found.iter().any(|found| found.starts_with(problem)),
            "{from} -> {to}\n{problem}\nfound {found:#?}"
        );
    }
}

#[test]
fn all_problems_are_reported_at_once() {
    let text =
        GOOD.replace("SUCCEEDED", "SUCEEDED").replace("404", "\"404\"").replace("\"job.r\"", "\"jbo\"");
    let invalid = Definition::parse(&text).unwrap_err();
    let paths: Vec<&str> = invalid.problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, ["status.word[1]", "states.SUCEEDED", "faults[0]", "faults[0].status"]);
}

#[test]
fn state_that_is_missing_or_misspelt_is_one_problem() {
    let rules = "[status]\nresult = { at = \"job.x\", in = [\"SUCCEEDED\"] }\n\
                 error = { message = \"job.y\", in = [\"FAILED\"] }\n";
    let file = "[[files]]\nin = [\"SUCCEEDED\"]\nname = \"a\"\npath = \"/f\"\n";
    let good = GOOD.replace("[status]\n", rules) + file;
    Definition::parse(&good).unwrap_or_else(|invalid| panic!("{invalid}"));
    let problems = |text: &str| -> Vec<String> {
        let problems = Definition::parse(text).unwrap_err().problems;
        problems.iter().map(|problem| format!("{} {}", problem.path, problem.text)).collect()
    };
    assert_eq!(
        problems(&good.replace("SUCCEEDED = [", "SUCEEDED = [")),
        ["states.SUCEEDED is not a state; did you mean SUCCEEDED?"]
    );
    let without = good.replace("FAILED = [\"end/bad\"]", "");
    assert_eq!(
        problems(&without),
        ["states has nothing that is FAILED, CANCELLED or EXPIRED; add one, or write no_failure = \"why\""]
    );
}

#[test]
fn text_that_is_no_toml_has_its_place() {
    let invalid = Definition::parse("format = 1\nname = [").unwrap_err();
    assert_eq!((invalid.problems[0].line, invalid.problems.len()), (2, 1));
    assert!(Definition::parse(&" ".repeat(200_000)).unwrap_err().to_string().contains("longer than"));
    assert!(!Definition::parse("").unwrap_err().problems.is_empty());
    for (text, cure) in [
        ("version = 1.0.0", "; a text stands in quotes"),
        ("path = /v1/x", "; a text stands in quotes"),
        ("[faults]\nstatus = 404\n[faults]\nstatus = 410", "; write [[faults]], once for each"),
        ("name = \"a\"\nname = \"b\"", "; keep one of them"),
    ] {
        let text = Definition::parse(text).unwrap_err().to_string();
        assert!(text.contains(cure), "{text}");
    }
}

#[test]
fn backend_is_told_what_its_definition_needs() {
    let definition = Arc::new(Definition::parse(shipped("dbt-cloud")).unwrap());
    let read = |text: &str| {
        let table: Table = toml::from_str(text).unwrap();
        match backend::read(&definition, &backend::without_credentials(), &table) {
            Ok(_) => Vec::new(),
            Err(problems) => {
                problems.into_iter().map(|problem| format!("{} {}", problem.path, problem.text)).collect()
            }
        }
    };
    assert_eq!(
        read(""),
        [
            "params.account_id is missing; write account_id = .., an integer: the number in the URL of the account"
        ]
    );
    assert_eq!(
        read("params = { account_id = \"x\" }"),
        [
            "params.account_id can't be used: it must be an integer without plus sign or leading zeros, such as \"12345\""
        ]
    );
    assert_eq!(
        read("params = { account_id = 1, account_i = 2 }"),
        ["params.account_i is not a parameter of dbt-cloud; did you mean account_id?"]
    );
    assert_eq!(read("params = { account-id = 1 }"), [""; 0]);
    let azure = Arc::new(Definition::parse(shipped("azure-arm")).unwrap());
    let keys: Table = toml::from_str("client_id = \"a\"\nclient_secret = \"s\"").unwrap();
    let chosen = backend::choose(&azure, Some(&keys)).unwrap();
    let table: Table = toml::from_str("params = { tenant = \"t\" }").unwrap();
    let problem = backend::read(&azure, &chosen, &table).unwrap_err().remove(0);
    assert_eq!(
        problem.text,
        "does not hold \"https://login.microsoftonline.com\", where azure-arm asks for tokens with the backend's secret; \
         write allow_origins = [\"https://login.microsoftonline.com\"]"
    );
    for (origin, text) in [
        ("http://login.example", "is not encrypted; write an https:// origin"),
        (
            "https://login.example/a",
            "is no origin; write one such as \"https://login.example\", without a path",
        ),
        ("login.example", "is no origin; write one such as \"https://login.example\", without a path"),
    ] {
        let table: Table =
            toml::from_str(&format!("params = {{ tenant = \"t\" }}\nallow_origins = [{origin:?}]")).unwrap();
        let problems = backend::read(&azure, &chosen, &table).unwrap_err();
        assert!(problems.iter().any(|problem| problem.text == text), "{problems:?}");
    }
}

#[test]
fn way_to_sign_in_is_chosen_by_its_secret() {
    let definition = Definition::parse(shipped("databricks")).unwrap();
    let choose = |text: &str| {
        let table: Table = toml::from_str(text).unwrap();
        backend::choose(&definition, Some(&table))
            .map_err(|problems| format!("{} {}", problems[0].path, problems[0].text))
    };
    assert_eq!(choose("bearer = \"t\"").unwrap().secret.unwrap().0, "bearer");
    assert_eq!(
        choose("client_id = \"i\"\nclient_secret = \"s\"").unwrap().secret.unwrap().0,
        "client_secret"
    );
    for (keys, problem) in [
        (
            "",
            "credentials is empty; write { bearer = { env = \"NAME\" } }, or { client_id = \"..\", client_secret = { env = \"NAME\" } }",
        ),
        ("password = \"x\"", "credentials has no secret of this vendor's; write { bearer = "),
        (
            "bearer = \"t\"\nclient_secret = \"s\"",
            "credentials holds both bearer and client_secret; keep one way to sign in",
        ),
        (
            "client_secret = \"s\"",
            "credentials.client_id is missing; write { client_id = \"..\", client_secret = ",
        ),
        ("bearer = \"t\"\nuser = \"u\"", "credentials.user is not a key here; write one of bearer"),
    ] {
        let found = choose(keys).unwrap_err();
        assert!(found.starts_with(problem), "{found}");
    }
    let problem = backend::choose(&definition, None).unwrap_err().remove(0);
    assert!(problem.text.starts_with("is missing; write { bearer = "), "{}", problem.text);
}
