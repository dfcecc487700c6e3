//! What is empty, stands twice, or can't be sent is reported.

use super::{
    definitions::{GOOD, problems},
    effects::{accepted, reported},
    *,
};

const FAULT: &str = "is = \"not_found\"";
const WORD: &str = "word = [\"job.s\", \"job.r\"]";
const TOP: &str = "docs = \"https://x.example/docs\"\n";
const BASIC: &str = "[credentials.basic]";
const EXCHANGE: &str =
    "[credentials.exchange]\npath = \"/l\"\ntoken = \"body.t\"\nform = { p = \"{{ password }}\" }\n";

#[test]
fn empty_tables_and_lists_are_reported() {
    let empty =
        |path: &str| format!("{path} is empty, which has no effect; remove it, or write what belongs there");
    let rule = |key: &str| format!("{FAULT}\n[[faults]]\nstatus = 409\nis = \"rejected\"\n{key}");
    let file = |key: &str| format!("{FAULT}\n[[files]]\nname = \"x\"\nurl = \"{{{{ job.url }}}}\"\n{key}");
    let status = |key: &str| format!("{key}\n{WORD}");
    for (from, to, path) in [
        (TOP, format!("{TOP}headers = {{}}\n"), "headers"),
        (TOP, format!("{TOP}files = []\n"), "files"),
        ("[status]", "headers = {}\n[status]".to_owned(), "request.headers"),
        ("[status]", "query = {}\n[status]".to_owned(), "request.query"),
        ("[status]", "[answer]\n[status]".to_owned(), "answer"),
        ("[status]", "[answer]\nstates_by_status = []\n[status]".to_owned(), "answer.states_by_status"),
        (BASIC, format!("{BASIC}\nfields = []"), "credentials.basic.fields"),
        (BASIC, format!("{BASIC}\nheaders = {{}}"), "credentials.basic.headers"),
        (FAULT, rule("graphql_code = []"), "faults[1].graphql_code"),
        (FAULT, rule("header = {}"), "faults[1].header"),
        (FAULT, file("in = []"), "files[0].in"),
        (WORD, status("warnings = []"), "status.warnings"),
        (WORD, status("volatile = []"), "status.volatile"),
        (WORD, status("progress = {}"), "status.progress"),
        (WORD, status("error = { message = \"job.e\", not_in = [] }"), "status.error.not_in"),
    ] {
        assert!(problems(from, &to).contains(&empty(path)), "{to}\n{:#?}", problems(from, &to));
    }
    accepted(&[
        ("region = { type = \"text\", default = \"eu\" }", "region = {}"),
        ("[states]", "[states]\nRETRYING = []"),
        ("[status]", "json = {}\n[status]"),
        ("[status]", "json = { a = [], b = {} }\n[status]"),
        ("[status]", "form = {}\n[status]"),
        ("[status]", "graphql = { query = \"{ a }\", variables = {} }\n[status]"),
    ]);
    // Without any rule of a fault, nothing says that a job does not exist.
    let text = GOOD
        .replace("[[faults]]\nstatus = 404\nis = \"not_found\"\n", "")
        .replace(TOP, "docs = \"d\"\nfaults = []\n");
    let found = Definition::parse(&text).unwrap_err().to_string();
    assert!(
        found.contains("faults is empty") && found.contains("faults has nothing that says not_found"),
        "{found}"
    );
}

#[test]
fn what_stands_twice_in_a_list_is_reported() {
    let result = |list: &str| format!("result = [{list}]\n{WORD}");
    let never = "status.result[1] is never read: status.result[0] finds all that it would; remove it";
    reported(&[
        (
            WORD,
            &format!("warnings = [\"job.w\", \"job.v\", \"job.w\"]\n{WORD}"),
            "status.warnings[2] is \"job.w\", which stands in the list twice; keep one",
        ),
        (
            WORD,
            &format!("error = {{ message = [\"job.e\", \"job.e\"] }}\n{WORD}"),
            "status.error.message[1] is \"job.e\", which stands in the list twice; keep one",
        ),
        (WORD, &result("\"job.a\", \"job.a\""), never),
        (WORD, &result("\"job.a\", { at = \"job.a\", when = \"job.b\" }"), never),
        (WORD, &result("\"job.a\", { at = \"job.a\", in = [\"FAILED\"] }"), never),
        (WORD, &result("{ at = \"job.a\", when = \"job.b\" }, { at = \"job.a\", when = \"job.b\" }"), never),
        (
            WORD,
            &result("{ at = \"job.a\", not_in = [\"FAILED\"] }, { at = \"job.a\", in = [\"SUCCEEDED\"] }"),
            never,
        ),
    ]);
    accepted(&[
        (WORD, &result("\"job.a\", \"job.b\"")),
        (WORD, &result("{ at = \"job.a\", when = \"job.b\" }, \"job.a\"")),
        (WORD, &result("{ at = \"job.a\", in = [\"SUCCEEDED\"] }, \"job.a\"")),
        (WORD, &result("{ at = \"job.a\", content_type = \"text\" }, \"job.a\"")),
        (WORD, &result("\"job.a\", \"job.a | json\"")),
    ]);
}

#[test]
fn headers_and_parameters_that_stand_twice_are_reported() {
    let with = |edits: &[(&str, &str)]| {
        let text = edits.iter().fold(GOOD.to_owned(), |text, (from, to)| {
            assert_eq!(text.matches(from).count(), 1, "{from}");
            text.replace(from, to)
        });
        let problems = Definition::parse(&text).err().map(|invalid| invalid.problems).unwrap_or_default();
        problems.iter().map(|problem| format!("{} {}", problem.path, problem.text)).collect::<Vec<_>>()
    };
    let top = (TOP, "docs = \"d\"\nheaders = { X-Api = \"2\" }\n");
    let request = ("[status]", "headers = { x-api = \"1\" }\n[status]");
    let own = (BASIC, "[credentials.basic]\nheaders = { x-api = \"1\" }");
    let header = (BASIC, "[credentials.header]\nname = \"X-API\"");
    let of_exchange = format!("{EXCHANGE}headers = {{ x-api = \"1\" }}");
    let sent_as = format!("{EXCHANGE}send_as = {{ header = \"x-api\" }}");
    for (edits, problem) in [
        ([request, own], "credentials.basic.headers.x-api stands in request.headers too; keep one of them"),
        ([top, header], "credentials.header.name is \"X-API\", which stands in headers too; remove it there"),
        (
            [request, header],
            "credentials.header.name is \"X-API\", which stands in request.headers too; remove it there",
        ),
        (
            [request, (BASIC, &sent_as)],
            "credentials.exchange.send_as.header is \"x-api\", which stands in request.headers too; remove it there",
        ),
        (
            [
                ("[status]", "query = { key = \"1\" }\n[status]"),
                (BASIC, "[credentials.query]\nname = \"key\""),
            ],
            "credentials.query.name is \"key\", which stands in request.query too; remove it there",
        ),
        (
            [
                (
                    FAULT,
                    "is = \"not_found\"\n[[files]]\nname = \"x\"\npath = \"/x\"\nquery = { key = \"1\" }",
                ),
                (BASIC, "[credentials.query]\nname = \"key\""),
            ],
            "credentials.query.name is \"key\", which stands in files[0].query too; remove it there",
        ),
    ] {
        assert_eq!(with(&edits), [problem], "{edits:?}");
    }
    for edits in [
        [request, (BASIC, &*of_exchange)],
        // What is written for one request replaces what every request has.
        [top, request],
        [top, own],
        [top, (BASIC, &of_exchange)],
        [top, (BASIC, "[credentials.header]\nname = \"X-Other\"")],
        // Names of parameters have a case.
        [("[status]", "query = { Key = \"1\" }\n[status]"), (BASIC, "[credentials.query]\nname = \"key\"")],
    ] {
        assert_eq!(with(&edits), [""; 0], "{edits:?}");
    }
    // A parameter that only they read is used.
    let text = GOOD.replace(TOP, "docs = \"d\"\nheaders = { x-zone = \"{{ params.zone }}\" }\n");
    assert!(Definition::parse(&text.replace("[params]", "[params]\nzone = {}")).is_ok());
}

#[test]
fn fields_that_the_gateway_writes_are_reported() {
    let form = |keys: &str| format!("[credentials.oauth2]\ntoken_path = \"/t\"\n{keys}");
    for name in ["grant_type", "client_id", "client_secret"] {
        let text = form(&format!("form = {{ {name} = \"x\", scope = \"y\" }}"));
        let cure = match name {
            "grant_type" => "for another grant write [credentials.exchange]",
            _ => "remove it",
        };
        let problem = format!("credentials.oauth2.form.{name} is written by the gateway; {cure}");
        assert!(problems(BASIC, &text).contains(&problem), "{:?}", problems(BASIC, &text));
    }
    for (grant, keys) in [("client_credentials", ""), ("refresh_token", "grant = \"refresh_token\"\n")] {
        let text = form(&format!("{keys}form = {{ grant_type = \"{grant}\" }}"));
        let problem = "credentials.oauth2.form.grant_type is written by the gateway; remove it".to_owned();
        assert!(problems(BASIC, &text).contains(&problem), "{:?}", problems(BASIC, &text));
    }
    accepted(&[
        (BASIC, &form("form = { scope = \"y\" }")),
        (BASIC, &form("client_auth = \"basic\"\nform = { client_id = \"x\" }")),
    ]);
    for name in ["Host", "Content-Length", "Accept-Encoding"] {
        let problem = "credentials.header.name is written by the gateway; write another header's name";
        reported(&[(BASIC, &format!("[credentials.header]\nname = \"{name}\""), problem)]);
    }
}

#[test]
fn token_url_that_can_not_be_used_is_reported() {
    let url = |url: &str| format!("[credentials.oauth2]\ntoken_url = \"{url}\"");
    let key = "credentials.oauth2.token_url";
    for (written, problem) in [
        ("http://login.example/t", "is not encrypted, and the secret is sent there; write an https:// URL"),
        (
            "https://login.example/t#f",
            "has a fragment, which is never sent; write it without the # and what follows",
        ),
        (
            "login.example/t",
            "is no URL with a fixed origin; write one such as \"https://login.example/token\"",
        ),
    ] {
        reported(&[(BASIC, &url(written), &format!("{key} {problem}"))]);
    }
    accepted(&[(BASIC, &url("https://login.example/t?x=1")), (BASIC, &url("http://127.0.0.1:8080/t"))]);
}

#[test]
fn what_no_header_can_carry_is_reported() {
    let problem =
        "request.headers.x-team holds characters beside those of visible ASCII, which no header can carry";
    reported(&[("[status]", "headers = { x-team = \"Zürich\" }\n[status]", problem)]);
    let headers = "headers = { x-team = \"t-{{ params.region | upper }}\", x-user = \"{{ username }}\" }";
    let text = GOOD
        .replace(
            "[status]",
            "headers = { x-team = \"{{ params.region | upper }}\", x-id = \"{{ id.a }}\" }\n[status]",
        )
        .replace(BASIC, &format!("{BASIC}\n{}", headers.replace("x-team", "x-other")));
    let definition = Arc::new(Definition::parse(&text).unwrap());
    let problems = |keys: &str| {
        let keys: toml::Table = keys.parse().unwrap();
        let chosen =
            backend::choose(&definition, keys.get("credentials").and_then(toml::Value::as_table)).unwrap();
        let problems = backend::read(&definition, &chosen, &keys).err().unwrap_or_default();
        problems.into_iter().map(|problem| format!("{} {}", problem.path, problem.text)).collect::<Vec<_>>()
    };
    let carried = "has characters beside those of visible ASCII, which the header";
    assert_eq!(
        problems("params = { region = \"süd\" }\ncredentials = { username = \"änne\", password = \"p\" }"),
        [
            format!("params.region {carried} x-team can't carry"),
            format!("params.region {carried} x-other can't carry"),
            format!("credentials.username {carried} x-user can't carry"),
        ]
    );
    assert_eq!(
        problems("params = { region = \"a b\" }\ncredentials = { username = \"u\", password = \"pä\" }"),
        [""; 0]
    );
}
