//! Whole definitions, begun from answers of documented shapes.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::vendors::declared::{Definition, cases::Cases};

fn start<'a>(answer: &'a str, request: Option<&'a str>, id: Option<&'a str>) -> Start<'a> {
    Start { name: "mine", answer: answer.as_bytes(), request, id, word: &[], schema: None }
}

fn begun(answer: &str, request: Option<&str>, id: Option<&str>) -> Draft {
    Draft::begin(&start(answer, request, id)).unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
fn refused(start: &Start<'_>, expected: &str) {
    let error = Draft::begin(start).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

/// The definition with words for success and failure, as somebody has filled them in.
fn filled_in(draft: &Draft) -> String {
    let mut text = draft.definition.replace("fill-in", "filled");
    let parts =
        text.lines().find(|line| line.starts_with("word ")).map_or(1, |line| line.split("\", \"").count());
    for state in ["SUCCEEDED", "FAILED"] {
        let empty =
            text.lines().find(|line| line.starts_with(state) && line.contains("[]")).map(str::to_owned);
        if let Some(empty) = empty {
            let word = format!("{}{}", state.to_lowercase(), "/*".repeat(parts - 1));
            text = text.replace(&empty, &format!("{state} = [\"my-{word}\"]"));
        }
    }
    text
}

/// Whether nothing but words is missing, and the pasted answer is read as its case says.
fn works(draft: &Draft) {
    if let Err(invalid) = Definition::parse(&draft.definition) {
        for problem in &invalid.problems {
            let is_to_fill_in = problem.text.starts_with("is still to be filled in");
            assert!(is_to_fill_in || problem.path == "states", "{problem}\n{}", draft.definition);
        }
    }
    let text = filled_in(draft);
    let definition = Definition::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let cases = Cases::parse(Arc::new(definition), &draft.cases.replace("fill-in", "filled"))
        .unwrap_or_else(|error| panic!("{error}\n{}", draft.cases));
    let report = cases.run();
    assert!(report.failed.is_empty() && report.needless.is_empty(), "{report:#?}\n{}\n{text}", draft.cases);
    assert!(report.uncovered.iter().all(|word| word.contains("my-")), "{report:#?}");
}

#[test]
fn answer_with_its_request_gives_a_definition_that_reads_it() {
    let answer = r#"{"id": "e-1", "phase": "done", "finished": 1767323105, "file": "f-9"}"#;
    let draft = begun(answer, Some("GET https://api.example/v1/exports/e-1"), None);
    works(&draft);
    assert_eq!(
        (&*draft.job_id, draft.base_url.as_deref(), draft.secret),
        ("e-1", Some("https://api.example"), "bearer")
    );
    for line in [
        "pattern = \"{export_id}\"\n",
        "path = \"/v1/exports/{{ id.export_id }}\"\n",
        "id       = \"job.id\"\n",
        "word     = \"job.phase\"                            # \"done\" is SUCCEEDED at most vendors\n",
        "end_time = { at = \"job.finished\", unit = \"s\" }    # seconds since 1970, by its size\n",
        "SUCCEEDED = [\"done\"]\n",
        "FAILED    = []    # fill in: at least one\n",
        "[[faults]]\nstatus = 404\n",
    ] {
        assert!(draft.definition.contains(line), "{line}\n{}", draft.definition);
    }
    for line in [
        "request = { method = \"GET\", target = \"/v1/exports/e-1\" }\n",
        "state        = \"SUCCEEDED\"\n",
        "end_time     = \"2026-01-02T03:05:05Z\"\n",
        "\"faults[0]\" = \"fill in: a case, or why there is none\"\n",
    ] {
        assert!(draft.cases.contains(line), "{line}\n{}", draft.cases);
    }
}

#[test]
fn answer_alone_gives_a_definition_with_more_to_fill_in() {
    let draft = begun(r#"{"job_id": 7, "status": "zorp"}"#, None, None);
    works(&draft);
    for line in [
        "path = \"/fill-in/{{ id.job_id }}\"    # fill in: the path behind that of base_url\n",
        "docs     = \"https://fill-in.example\"",
        "# fill in: the word of this answer is \"zorp\"; which state is it?\n",
    ] {
        assert!(draft.definition.contains(line), "{line}\n{}", draft.definition);
    }
    assert!(
        draft.cases.contains("state        = \"UNSPECIFIED\"    # fill in: the state of \"zorp\"\n"),
        "{}",
        draft.cases
    );
    assert!(!draft.cases.contains("name    = \"request\""));
}

#[test]
fn lists_objects_by_id_and_graphql_become_what_they_are() {
    let list = r#"{"jobs": [{"id": 6, "status": "running"}, {"id": 7, "status": "done"}]}"#;
    let several = begun(list, Some("GET https://a.example/jobs?ids=6,7"), Some("7"));
    works(&several);
    for line in [
        "[batch]",
        "query = { ids = \"{{ ids | map(attribute='job_id') | join(',') }}\" }\n",
        "jobs  = \"body.jobs\"",
    ] {
        assert!(several.definition.contains(line), "{line}\n{}", several.definition);
    }
    let one = begun(r#"{"jobs": [{"id": 7, "status": "done"}]}"#, Some("GET https://a.example/jobs/7"), None);
    works(&one);
    assert!(one.definition.contains("[answer]\njob = \"body.jobs[0]\"    # a list with the one job\n"));
    let by_id = begun(r#"{"7": {"status": "done"}}"#, Some("GET https://a.example/jobs?ids=7"), Some("7"));
    works(&by_id);
    assert!(by_id.definition.contains("by_id = true\n"), "{}", by_id.definition);
    let graphql = r#"{"data": {"run": {"runId": "r-1", "status": "SUCCESS"}}}"#;
    let graphql = begun(graphql, Some("POST https://a.example/graphql"), Some("r-1"));
    works(&graphql);
    for line in [
        "= \"query($id: ID!) { run(id: $id) { runId status } }\"\n",
        "graphql.variables = { id = \"{{ id.run_id }}\" }\n",
        "job = \"body.data.run\"\n",
        "when = \"body.data is mapping and not body.data.run and not body.errors\"\n",
    ] {
        assert!(graphql.definition.contains(line), "{line}\n{}", graphql.definition);
    }
}

#[test]
fn list_without_a_filter_is_left_to_people() {
    // A job that a page of a list leaves out would not exist.
    let list = r#"[{"id": 6, "status": "running"}, {"id": 7, "status": "done"}]"#;
    let draft = begun(list, Some("GET https://a.example/jobs"), Some("7"));
    let problems = Definition::parse(&draft.definition).unwrap_err().problems;
    let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert!(
        texts.iter().any(|text| text.contains("id has the part job_id, which [batch] does not use")),
        "{texts:?}"
    );
    assert!(draft.definition.contains("# fill in: how the request names the jobs"), "{}", draft.definition);
    // And even so the list is not asked for with a filter that nobody has seen.
    assert!(!draft.definition.contains("\nquery"), "{}", draft.definition);
}

#[test]
fn secrets_do_not_reach_the_files() {
    let answer = "HTTP/2 200\nset-cookie: session=hush\nauthorization: Bearer hush\nretry-after: 3\n\n\
                  {\"id\": 7, \"status\": \"done\", \"owner\": \"ana@corp.example\", \"job_token\": \"hush\", \
                  \"download_url\": \"https://f.example/a.csv?X-Amz-Signature=hush\"}";
    let draft = begun(answer, Some("GET https://a.example/jobs/7?api_key=hush&full=1"), None);
    works(&draft);
    assert_eq!(
        (&*draft.redacted, draft.secret),
        (&["job.owner", "job.job_token", "job.download_url"].map(str::to_owned)[..], "api_key")
    );
    for text in [&draft.definition, &draft.cases] {
        assert!(!text.contains("hush") && !text.contains("corp.example"), "{text}");
    }
    assert!(
        draft.definition.contains("[credentials.query]") && draft.definition.contains("name = \"api_key\"")
    );
    assert!(draft.cases.contains("headers = { \"retry-after\" = \"3\" }\n"), "{}", draft.cases);
    assert!(draft.cases.contains("owner        = \"user@example.com\"\n"), "{}", draft.cases);
    assert!(draft.cases.contains("files        = [\"download.csv\"]\n"), "{}", draft.cases);
}

#[test]
fn answers_of_every_shipped_definition_can_be_begun_from() {
    let (mut count, mut words) = (0, 0);
    for shipped in SHIPPED {
        let definition = Arc::new(Definition::parse(shipped.definition).unwrap());
        let cases = Cases::parse(Arc::clone(&definition), shipped.cases).unwrap();
        for case in &cases.cases {
            let Some(response) = &case.response else { continue };
            let Ok(answer) = std::str::from_utf8(response.body()) else { continue };
            let (id, word) = (case.ids[0].as_str(), Vec::new());
            let mut start = Start { word: &word, ..start(answer, None, Some(id)) };
            let Ok(draft) = Draft::begin(&start) else { continue };
            works(&draft);
            count += 1;
            words += usize::from(draft.cases.contains("vendor_state"));
            let request = format!("GET https://a.example/v1/jobs/{}", crate::vendors::percent_encoded(id));
            start.request = Some(&request);
            works(
                &Draft::begin(&start).unwrap_or_else(|error| panic!("{}: {error}\n{answer}", shipped.name)),
            );
        }
    }
    assert!(count > 150 && words * 10 > count * 9, "{count} {words}");
}

#[test]
fn start_that_can_not_be_used_is_refused_with_what_to_write() {
    let good = start(r#"{"id": 7, "status": "done"}"#, None, None);
    for (name, expected) in [
        ("", "NAME is \"\"; write 1 to 63 of a-z, 0-9 and '-'"),
        ("My Vendor", "NAME is \"My Vendor\"; write 1 to 63"),
        ("../x", "NAME is \"../x\"; write 1 to 63"),
        ("-x", "NAME is \"-x\"; write 1 to 63"),
        ("immuta", "NAME is immuta, which is built in; write another name"),
        ("databricks", "NAME is databricks, which jobwatch has already: see jobwatch vendor show databricks"),
    ] {
        refused(&Start { name, ..good }, expected);
    }
    for (answer, expected) in [
        ("[]", "--answer is an empty list: the API found no job"),
        ("17", "--answer is one value alone"),
        ("", "--answer is empty"),
        (
            r#"{"id": 7, "colour": "red"}"#,
            "--answer has no member that looks like a state, such as status, state or phase; name it with --word, such as one of job.id, job.colour",
        ),
        (r#"{"status": "done"}"#, "--id is missing: neither the request nor a member of the answer"),
    ] {
        refused(&Start { answer: answer.as_bytes(), ..good }, expected);
    }
    refused(
        &Start { request: Some("DELETE https://a.example/7"), ..good },
        "--request has the method DELETE",
    );
    refused(
        &Start { request: Some("GET https://a.example/jobs/8"), id: Some("7"), ..good },
        "--request does not have the id \"7\"; write the request for this job, or another --id",
    );
    refused(&Start { id: Some(""), ..good }, "--id is no id");
    refused(
        &Start { word: &["nothing".to_owned()], ..good },
        "--word nothing is no text, number or flag of the job; write one of job.id, job.status",
    );
}

#[test]
fn word_that_is_named_is_taken() {
    let (answer, word) =
        (r#"{"id": 7, "colour": "red", "mood": "good"}"#, ["job.colour".to_owned(), "mood".to_owned()]);
    let one = Draft::begin(&Start { word: &word[..1], ..start(answer, None, None) }).unwrap();
    works(&one);
    assert!(one.definition.contains("word = \"job.colour\""), "{}", one.definition);
    let both = Draft::begin(&Start { word: &word, ..start(answer, None, None) }).unwrap();
    works(&both);
    assert!(both.definition.contains("word = [\"job.colour\", \"job.mood\"]"), "{}", both.definition);
    assert!(both.definition.contains("the word of this answer is \"red/good\""), "{}", both.definition);
}

#[test]
fn text_of_an_answer_in_a_comment_is_one_line() {
    let word = ["job.status".to_owned()];
    let odd = r#"{"id": "e-1", "status": "odd\notherwise = \"RUNNING\"\n#\u007f"}"#;
    let done = r#"{"id": "e-1", "status": "done\n[states]\nFAILED = [\"x\"]"}"#;
    for (answer, word) in [(odd, &word[..]), (done, &word[..]), (done, &[])] {
        let Ok(draft) = Draft::begin(&Start { word, ..start(answer, None, None) }) else {
            assert!(word.is_empty(), "{answer}");
            continue;
        };
        let table: Result<toml::Table, _> = draft.definition.parse();
        let table = table.unwrap_or_else(|why| panic!("{why}\n{}", draft.definition));
        assert!(!table["states"].as_table().unwrap().contains_key("otherwise"), "{}", draft.definition);
        assert!(draft.cases.parse::<toml::Table>().is_ok(), "{}", draft.cases);
    }
}

#[test]
fn id_in_a_commented_out_case_stays_in_the_comment() {
    for (answer, request) in [
        (r#"{"id": "e\n[[case]]\nids = [\"x\"]\n#", "status": "done"}"#, None),
        (r#"{"id": "e\r\u0085\u2028", "status": "done"}"#, None),
        (r#"{"id": "e'''\"\"\"\\", "status": "done"}"#, None),
        (r#"{"status": "done"}"#, Some("GET https://a.example/jobs/e%0A%5B%5Bcase%5D%5D%0A1")),
    ] {
        match Draft::begin(&start(answer, request, None)) {
            Ok(draft) => works(&draft),
            Err(error) => assert!(error.text.contains("control characters"), "{error}"),
        }
    }
    for text in ["a\nb", "\r\n[[case]]", "\u{1b}[1m\u{85}", "'\"\\", "'''\"\"\"\n"] {
        let line = fields::quoted(text);
        assert!(!line.contains(char::is_control), "{line:?}");
        let read: toml::Table = format!("text = {line}").parse().unwrap();
        assert_eq!(read["text"].as_str(), Some(text));
    }
}

#[test]
fn secret_in_a_pair_is_redacted_and_named_with_its_path() {
    let answer = r#"{"data": {"id": 7, "status": "done", "env": [{"name": "DB_PASSWORD", "value": "hush"}],
        "sshKey": "hush", "log": "sshpass -p hush ssh"}, "session": {"sessionToken2": "hush"}}"#;
    let draft = begun(answer, Some("GET https://a.example/jobs/7"), None);
    works(&draft);
    let paths = ["job.env[0].value", "job.sshKey", "job.log", "body.session.sessionToken2"];
    assert_eq!(draft.redacted, paths);
    assert!(
        draft.cases.contains("redacted: job.env[0].value, job.sshKey, job.log, body.session"),
        "{}",
        draft.cases
    );
    assert!(!format!("{draft:?}").contains("hush"), "{}", draft.cases);
}

/// Secrets with a part that no begun file may have: the secret within a text, and that part.
fn any_secret() -> impl Strategy<Value = (String, String)> {
    const FORMS: [&str; 30] = [
        "eyJhbGciOiJIUzI1NiJ9.eyJ{}.{}",
        "AKIAZZ{U}",
        "ghp_{}",
        "github_pat_{}",
        "glpat-{}",
        "xoxb-12-{}",
        "sk-proj-{}",
        "sk_live_{}",
        "hf_{}",
        "npm_{}",
        "mail {}@corp.example today",
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----",
        "https://user:{}@files.example/a.csv",
        "https://files.example/a.csv?sig={}&x=1",
        "https://files.example/a.csv;sig={}",
        "see https://files.example/a.csv#access_token={} for it",
        "Authorization: Bearer {}",
        "sent with Cookie: sid={}; other={}",
        "curl -u me:{} https://a.example",
        "Server=db;Password={};Timeout=3",
        "{\"password\": \"{}\", \"n\": 1}",
        "Basic {}",
        "sshpass -p {} ssh a@b",
        "mysql -u root -p{} db",
        "run --api-key '{} b' --n 3",
        "PGPASSWORD={} psql",
        "api_key: \"a {}\"",
        "[{\"name\": \"DB_PASSWORD\", \"value\": \"{}\"}]",
        "sent [('Authorization', '{}')] twice",
        "<password>{}</password>",
    ];
    let secret = "[a-z][A-Z][0-9][A-Za-z0-9]{18}";
    (0..FORMS.len(), secret).prop_map(|(form, secret)| {
        let upper = secret.to_uppercase();
        let text = FORMS[form].replace("{U}", &upper).replace("{}", &secret);
        let part = if FORMS[form].contains("{U}") { upper } else { secret };
        (text, part)
    })
}

/// Where a secret stands in an answer.
fn placed(place: usize, secret: &str) -> serde_json::Value {
    let named = secret.rsplit(['=', ' ', '/']).next().unwrap_or(secret);
    let mut answer = serde_json::json!({ "id": "e-1", "status": "done", "created_at": 1_767_323_105 });
    let members = match place {
        0 => serde_json::json!({ "note": secret }),
        1 => serde_json::json!({ "steps": [{ "log": ["ok", secret] }] }),
        2 => serde_json::json!({ "owner": { "name": secret } }),
        3 => serde_json::json!({ "apiToken": named, "copy": format!("again {named}") }),
        4 => serde_json::json!({ "by": { secret: { "n": 1 } } }),
        5 => serde_json::json!({ "text": serde_json::json!({ "inner": secret }).to_string() }),
        6 => serde_json::json!({ "env": [{ "name": "pw", "value": named }, ["X-Api-Key", named]] }),
        7 => serde_json::json!({ "command": ["run", "--token", named, "--n", "3"], "sessionToken2": named }),
        8 => serde_json::json!({ "error": { "message": format!("failed: {secret}; try again") } }),
        _ => serde_json::json!({ "result": { "url": secret }, "description": secret }),
    };
    if let (Some(answer), serde_json::Value::Object(members)) = (answer.as_object_mut(), members) {
        answer.extend(members);
    }
    answer
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_secret_of_an_answer_or_a_request_is_written(
        (text, part) in any_secret(),
        place in 0_usize..10,
        in_request in any::<bool>(),
        is_pretty in any::<bool>(),
    ) {
        let answer = placed(place, &text);
        let answer = if is_pretty { format!("{answer:#}") } else { answer.to_string() };
        let answer = format!(
            "HTTP/1.1 200 OK\nContent-Type: application/json\nLocation: https://a.example/x#token={part}\n\
             Set-Cookie: sid={part}\n\n{answer}"
        );
        let request = format!("GET https://api.example/v1/exports/e-1?api_key={part}&x=1#t={part}");
        let draft = begun(&answer, in_request.then_some(&*request), Some("e-1"));
        for (name, written) in [("definition", &draft.definition), ("cases", &draft.cases)] {
            prop_assert!(!written.contains(&part), "{} has {}:\n{}", name, part, written);
        }
        prop_assert!(!draft.redacted.concat().contains(&part));
        works(&draft);
    }
}

#[test]
fn secrets_of_a_request_are_not_written_wherever_they_stand() {
    let answer = r#"{"id": "e-1", "status": "done", "self": "/v1/x?k=hush-hush-77"}"#;
    for request in [
        "GET https://a.example/v1/ghp_hush0123456789/exports/e-1",
        "GET https://a.example/v1/ana@hush.example/exports/e-1",
        "GET https://a.example/v1;sig=hush/exports/e-1?api_key=hush-hush-77",
        "GET https://a.example/v1/exports/e-1?note=Bearer%20hush1234",
        "GET https://a.example/v1/exports/e-1?code=hush0a1b2c3d4e5f6g7&key=hush#hush",
    ] {
        let answer =
            if request.contains("hush-hush-77") { answer } else { r#"{"id": "e-1", "status": "done"}"# };
        let draft = begun(answer, Some(request), Some("e-1"));
        let all = format!("{draft:?}");
        assert!(!all.contains("hush"), "{request}\n{}\n{}", draft.definition, draft.cases);
    }
}
