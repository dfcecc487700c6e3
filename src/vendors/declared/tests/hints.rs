//! What was most likely meant is said beside the problem, and what only follows from it is not.

use super::definitions::problems;

/// That one text in place of another is these problems and no others.
fn reported(cases: &[(&str, &str, &[&str])]) {
    for (from, to, expected) in cases {
        let found = problems(from, to);
        let are_same = found.len() == expected.len()
            && found.iter().zip(*expected).all(|(found, expected)| found.starts_with(expected));
        assert!(are_same, "{from} -> {to}\nexpected {expected:#?}\nfound {found:#?}");
    }
}

fn accepted(from: &str, to: &str) {
    assert_eq!(problems(from, to), [""; 0], "{to}");
}

const PATH: &str = "path = \"/{{ params.region }}/jobs/{{ id.a }}/{{ id.b }}\"";
const WORD: &str = "word = [\"job.s\", \"job.r\"]";
const IS: &str = "is = \"not_found\"";
const INTEGER: &str = "a = \"integer\"";

/// More keys of the request.
fn with(keys: &str) -> String {
    format!("{PATH}\n{keys}")
}

/// More keys of the status.
fn status(keys: &str) -> String {
    format!("{keys}\n{WORD}")
}

#[test]
fn header_that_can_not_be_sent_as_it_stands_is_reported() {
    let control =
        "request.headers.X-A holds a line end or another character that no header can carry; remove it";
    let twice = "request.headers.x-a stands twice, since names of headers have no case; keep one";
    reported(&[
        (PATH, &with(r#"headers = { X-A = "a\r\nX-B: 1" }"#), &[control]),
        (PATH, &with(r#"headers = { X-A = "a\u0000" }"#), &[control]),
        (PATH, &with(r#"headers = { X-A = "1", x-a = "2" }"#), &[twice]),
    ]);
    accepted(PATH, &with(r#"headers = { X-A = "1", X-B = "a b" }"#));
}

#[test]
fn file_that_is_more_than_a_get_names_the_key_and_the_cure() {
    let file =
        |keys: &str| format!("{IS}\n[[files]]\nname = \"a.csv\"\npath = \"/a/{{{{ id.a }}}}\"\n{keys}");
    let headers =
        "files[0].headers is not for one file; write headers at the top, which polls and files have";
    let body = "files[0].json is not for a file, which is requested with GET; remove it";
    let method = "files[0].method is not GET, with which each file is requested; remove it";
    reported(&[
        (IS, &file("query = { q = \"1\" }\nheaders = { Accept = \"text/csv\" }"), &[headers]),
        (IS, &file("json = { a = 1 }\nmethod = \"POST\""), &[body, method]),
    ]);
    accepted(IS, &file("method = \"GET\""));
}

#[test]
fn value_in_a_name_or_a_query_of_graphql_is_reported() {
    reported(&[
        (
            PATH,
            &with(r#"graphql = { query = "{ job(id: {{ id.a }}) { id } }" }"#),
            &[
                "request.graphql.query has {{ id.a }}, which is sent as it stands; write $a there, declare it in the \
               query as in query($a: ID!), and give it in graphql.variables: { a = \"{{ id.a }}\" }",
            ],
        ),
        (
            PATH,
            &with(r#"graphql = { query = "{ a }", operation = "{{ id.a }}" }"#),
            &["request.graphql.operation has {{ id.a }}, which is sent as it stands"],
        ),
        (
            PATH,
            &with(r#"json = { a = [{ "{{ id.a }}" = 1 }] }"#),
            &[
                "request.json.a[0].\"{{ id.a }}\" has {{ }} in its name, which is sent as it stands; write values in {{ }} only",
            ],
        ),
        (
            PATH,
            &with(r#"query = { "{{ id.a }}" = 1 }"#),
            &["request.query.\"{{ id.a }}\" has {{ }} in its name"],
        ),
        (
            PATH,
            &with(r#"headers = { "{{ id.a }}" = "1" }"#),
            &["request.headers.\"{{ id.a }}\" has {{ }} in its name"],
        ),
    ]);
}

#[test]
fn path_where_a_text_is_meant_and_text_where_a_path_is_meant_are_told_apart() {
    let file = |keys: &str| format!("{IS}\n[[files]]\neach = \"job.files\"\n{keys}");
    reported(&[
        (
            IS,
            &file("name = \"a\"\nurl = \"item.url\""),
            &["files[0].url is the text \"item.url\" as it stands; did you mean \"{{ item.url }}\"? \
               For that text write \"{{ 'item.url' }}\""],
        ),
        (
            IS,
            &file("name = \"item.name\"\npath = \"/f/{{ item.id }}\""),
            &["files[0].name is the text \"item.name\" as it stands"],
        ),
        (PATH, &with(r#"query = { q = "id.a" }"#), &["request.query.q is the text \"id.a\" as it stands"]),
        (PATH, &with(r#"json = { q = "params.region" }"#), &["request.json.q is the text \"params.region\""]),
        (
            WORD,
            &status("description = \"Nightly import\""),
            &["status.description is not an expression: unexpected input after expression; \
               for that text itself write \"'Nightly import'\"\n    Nightly import\n"],
        ),
        (
            WORD,
            &status("job_type = \"nightly\""),
            &[
                "status.job_type nightly is not known here; write job.nightly for a member of the job, or one of job, \
               body, http, id, params; for that text itself write \"'nightly'\"",
            ],
        ),
        (
            WORD,
            &status("result = \"output\""),
            &["status.result is not a plain path from job; did you mean \"job.output\"?"],
        ),
        (
            WORD,
            &status("result = \"{{ job.x }}\""),
            &["status.result is not a plain path from job; did you mean \"job.x\"?"],
        ),
        (
            WORD,
            &status("volatile = \"seen_at\""),
            &["status.volatile is no member of job; did you mean \"job.seen_at\"?"],
        ),
    ]);
    accepted(IS, &file("name = \"job.json\"\npath = \"/f/{{ item.id }}\""));
    accepted(PATH, &with(r#"query = { q = "{{ 'id.a' }}", r = "id.nope", s = "api.v1" }"#));
    accepted(WORD, &status("description = \"'Nightly import'\""));
}

#[test]
fn number_where_a_text_stands_is_taken_or_shown_in_quotes() {
    let rule = |keys: &str| format!("{IS}\n[[faults]]\nstatus = 503\nis = \"unavailable\"\n{keys}");
    for wait in ["wait_s = 5", "wait_s = 0.5", "wait_s = \"5\"", "wait_s = \"body.wait\""] {
        accepted(IS, &rule(wait));
    }
    reported(&[
        (IS, &rule("when = true"), &["faults[1].when is not a text; write it in quotes: \"true\""]),
        ("title = \"X\"", "title = 7", &["title is not a text; write it in quotes: \"7\""]),
        (
            "version = \"1.0.0\"",
            "version = \"one\"",
            &["version is \"one\"; write three numbers, such as \"1.0.0\""],
        ),
        ("version = \"1.0.0\"", "version = \"1.0\"", &["version is \"1.0\"; write three numbers"]),
    ]);
}

#[test]
fn secret_in_a_literal_is_reported() {
    for (keys, path) in [
        ("headers = { X-Api-Key = \"0123456789abcdef\" }", "request.headers.X-Api-Key"),
        ("headers = { X-Api-Key = \"k3y-8fj2ls0dk\" }", "request.headers.X-Api-Key"),
        ("headers = { X-Api-Key = \"8d3c1e2a-4b5f-4c6d-8e7f-9a0b1c2d3e4f\" }", "request.headers.X-Api-Key"),
        ("headers = { X-Auth = \"Bearer abc\" }", "request.headers.X-Auth"),
        (
            "headers = { Cookie = \"locale=en; session=eyJhbGciOiJIUzI1NiJ9.e30.x\" }",
            "request.headers.Cookie",
        ),
        ("query = { api_key = \"9f8e7d6c5b4a\" }", "request.query.api_key"),
        ("query = { q = \"AKIAIOSFODNN7EXAMPLE\" }", "request.query.q"),
        ("form = { password = \"hunter2!x9\" }", "request.form.password"),
        ("form = { token = \"abc123def456\" }", "request.form.token"),
        ("headers = { X-Authorization = \"Basic dXNlcjpwYXNz\" }", "request.headers.X-Authorization"),
        ("query = { authorization = \"a1b2c3d4e5f6\" }", "request.query.authorization"),
        ("json = { authorization = \"Token a1b2c3d4e5\" }", "request.json.authorization"),
        ("json = { a = { key = \"sk-0123456789abcdef\" } }", "request.json.a.key"),
        ("json = { a = [\"user ghp_0123456789abcdef\"] }", "request.json.a[0]"),
        ("json = { key = \"-----BEGIN PRIVATE KEY-----\" }", "request.json.key"),
        ("json = { credentials = { user = \"abc123def456\" } }", "request.json.credentials.user"),
        (
            "graphql = { query = \"{ a }\", variables = { token = \"abc123def456\" } }",
            "request.graphql.variables.token",
        ),
    ] {
        let text = format!(
            "{path} looks like a secret, which others read in a definition; declare a way to sign in under \
             [credentials], and give the secret in the backend, or write {{{{ '..' }}}} for a text that is none"
        );
        reported(&[(PATH, &with(keys), &[&text])]);
    }
    let keys = "headers = { Authorization = \"Bearer abc\" }";
    reported(&[(PATH, &with(keys), &["request.headers.Authorization is written by [credentials]"])]);
    accepted(PATH, &with("form = { token_type = \"urn:x\", with_token = \"true\" }"));
    accepted(PATH, &with("query = { token = \"{{ id.a }}\", key = \"a\" }"));
    accepted(
        "[credentials.basic]",
        "[credentials.basic]\n[credentials.query]\nname = \"key\"\nsecret = \"api_token\"",
    );
}

#[test]
fn empty_list_in_place_of_a_word_says_what_is_wrong() {
    let text = "states.PENDING[0] is an empty list, which is no word; write the parts of a word, or [] alone for \
                a state that the vendor does not have";
    reported(&[("[states]", "[states]\nPENDING = [[]]", &[text])]);
}

#[test]
fn text_that_is_about_a_secret_or_only_words_is_no_secret() {
    let uri = "urn:ietf:params:oauth:token-type";
    let url = "https://x.example/v2/cb?state=1#top";
    for (table, name, text) in [
        ("form", "subject_token_type", &*format!("{uri}:jwt")),
        ("form", "requested_token_type", &format!("{uri}:access_token")),
        ("form", "requested_token", &format!("{uri}:saml2")),
        ("headers", "X-Snowflake-Authorization-Token-Type", "KEYPAIR_JWT"),
        ("headers", "X-Snowflake-Authorization-Token-Type", "PROGRAMMATIC_ACCESS_TOKEN"),
        ("headers", "X-Atlassian-Token", "no-check"),
        ("headers", "X-XSRF-Header", "1"),
        ("headers", "X-Csrf", "0"),
        ("headers", "X-Auth-Type", "abc123def456"),
        ("headers", "X-Auth-Method", "abc123def456"),
        ("headers", "X-Auth-Version", "2026-01-01T00:00:00Z"),
        ("headers", "X-Auth-Date", "2026-01-01T00:00:00Z"),
        ("headers", "X-Signature", "hmac-sha256-base64url"),
        ("headers", "X-Vault-Token-Ttl", "1h"),
        ("headers", "Cookie", "locale=en"),
        ("headers", "User-Agent", "jobwatch (+https://data.example.com/contact?team=jobs)"),
        ("headers", "X-Accept", "application/vnd.api+json; profile=https://x.example/p?v=1"),
        ("headers", "X-Build", "9fceb02d0ae598e95dc970b74767f19372d61af8"),
        ("query", "redirect", url),
        ("query", "redirect_token", url),
        ("query", "sort", "session_id:asc"),
        ("query", "order_by", "access_token:desc"),
        ("query", "columns", "auth_type:text"),
        ("query", "pageToken", "start"),
        ("query", "nextToken", "0"),
        ("query", "tokenType", "abc123def456"),
        ("query", "include_credentials", "0"),
        ("query", "auth", "anonymous"),
        ("query", "plan", "Basic tier"),
        ("query", "model", "sk-learn-model"),
        ("query", "signature_version", "2"),
        ("query", "otp_required", "0"),
        ("query", "token", "{{ 'abc123def456' }}"),
        ("json", "sql", "SELECT a FROM t WHERE token = 1"),
    ] {
        accepted(PATH, &with(&format!("{table} = {{ {name} = \"{text}\" }}")));
    }
}

#[test]
fn what_is_still_to_be_filled_in_is_reported_at_its_place() {
    for (from, to, path) in [
        ("https://x.example/docs", "fill in: the page", "docs"),
        ("https://x.example/docs", "https://fill-in.example", "docs"),
        ("/jobs/", "/fill in: jobs/", "request.path"),
        ("/jobs/", "/fill-in/", "request.path"),
    ] {
        let found = problems(from, to);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].starts_with(&format!("{path} is still to be filled in: ")), "{found:#?}");
    }
    reported(&[
        (
            "end/bad",
            "end/fill in: a word",
            &["states.FAILED[0] is still to be filled in: \"fill in: a word\""],
        ),
        (
            "[params]",
            "[params]\n\"fill in: x\" = {}",
            &[
                "params.\"fill in: x\" is no name for a parameter",
                "params.\"fill in: x\" is still to be filled in",
            ],
        ),
    ]);
    accepted("title = \"X\"", "title = \"X\"    # fill in: the title");
}

#[test]
fn name_of_a_header_with_a_colon_is_shown_without_it() {
    let rule = |header: &str| format!("status = 404\nheader = {header}");
    reported(&[
        (
            PATH,
            &with(r#"headers = { "X-A:" = "b" }"#),
            &["request.headers.\"X-A:\" is no name of a header; write it without the colon: X-A"],
        ),
        (
            "status = 404",
            &rule("\"X-A: b\""),
            &["faults[0].header is no name of a header but a whole one; write { X-A = \"b\" }"],
        ),
        (
            "status = 404",
            &rule("{ \"X A\" = \"b\" }"),
            &["faults[0].header.\"X A\" is no name of a header; write one such as X-Request-Id"],
        ),
    ]);
}

#[test]
fn error_in_an_id_or_a_parameter_has_no_followers() {
    let pattern = "pattern = \"{a}/{b}\"";
    reported(&[
        (pattern, "pattern = \"{a}/{b\"", &["id.pattern has { without }"]),
        (pattern, "", &["id.pattern is missing"]),
        (INTEGER, "a = \"uid\"", &["id.a is \"uid\"; did you mean uuid?"]),
        (
            INTEGER,
            "a = { regex = \"[0-9]+\" }",
            &["id has a part with a regex; write an example of an id, for probes"],
        ),
        ("type = \"text\"", "type = \"tex\"", &["params.region.type is \"tex\"; did you mean text?"]),
        ("region = { type = \"text\", default = \"eu\" }", "region = 1", &["params.region is not a table"]),
    ]);
}

#[test]
fn words_that_can_not_be_read_are_one_problem() {
    let five = "word = [\"job.s\", \"job.r\", \"job.t\", \"job.u\", \"job.v\"]";
    reported(&[
        (
            WORD,
            five,
            &[
                "status.word has 5 parts, and a word has at most 4; join some of them, such as \"job.a ~ '/' ~ job.b\"",
            ],
        ),
        (
            "end/ok",
            "end/ok/now",
            &["states.SUCCEEDED[0] is \"end/ok/now\" with 3 parts, and status.word has 2; write \"end/ok\""],
        ),
        (
            "SUCCEEDED = [\"end/ok\"]",
            "SUCCEEDED = [\"end/ok\"]\nUNSPECIFIED = [\"x/*\"]",
            &["states.UNSPECIFIED is not a state; it is what a word has that no state has; remove it"],
        ),
        (
            "FAILED = [\"end/bad\"]",
            "FAILED = [\"end/bad\"]\notherwise = \"UNSPECIFIED\"",
            &["states.otherwise is UNSPECIFIED, which a word is that no state has; remove it"],
        ),
    ]);
}

#[test]
fn regular_expression_that_is_none_says_why() {
    for (regex, why) in [
        ("[0-9", "unclosed character class"),
        ("(?!x)y", "look-around"),
        ("(a{500}){500}", "it is too large"),
    ] {
        let keys = format!("a = {{ regex = {regex:?} }}\nexample = \"1/2\"");
        let problem = format!("id.a.regex is not a regular expression: {why}");
        reported(&[(INTEGER, &keys, &[&problem])]);
    }
}

#[test]
fn batch_that_names_no_ids_is_shown_how() {
    let batch = |path: &str| format!("[batch]\njobs = \"body.jobs\"\npath = \"{path}\"\n[status]");
    reported(&[
        (
            "[status]",
            &batch("/jobs/{{ id.a }}"),
            &["batch.path id is not known here, where several jobs are asked for; write ids, such as \
               ids | map(attribute='job_id') | join(',')"],
        ),
        (
            "[status]",
            &batch("/jobs"),
            &[
                "id has the part a, which [batch] does not use; use it there, such as \
                 {{ ids | map(attribute='a') | join(',') }}, or remove it",
                "id has the part b, which [batch] does not use",
            ],
        ),
    ]);
}

#[test]
fn quotes_within_quotes_are_shown_single() {
    for (from, to) in [("\"job.r\"]", "\"job[\"r\"]\"]"), ("title = \"X\"", "title = \"job[\"r\"]\"")] {
        let found = problems(from, to).join("\n");
        let cure = "within a text in double quotes write single ones, such as job['x']";
        assert!(found.contains(cure), "{found}");
    }
}
