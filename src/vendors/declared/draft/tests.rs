//! Whole definitions, begun from answers of documented shapes.

use std::sync::Arc;

use super::*;
use crate::vendors::declared::{Definition, cases::Cases};

mod redaction;

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
    assert!(one.definition.contains("job     = \"body.jobs[0]\""));
    let by_id = begun(r#"{"7": {"status": "done"}}"#, Some("GET https://a.example/jobs?ids=7"), Some("7"));
    works(&by_id);
    assert!(by_id.definition.contains("by_id = true\n"), "{}", by_id.definition);
    let graphql = r#"{"data": {"run": {"runId": "r-1", "status": "SUCCESS"}}}"#;
    let graphql = begun(graphql, Some("POST https://a.example/graphql"), Some("r-1"));
    works(&graphql);
    for line in [
        "= \"query($id: ID!) { run(id: $id) { runId status } }\"\n",
        "graphql.variables = { id = \"{{ id.run_id }}\" }\n",
        "job     = \"body.data.run\"\n",
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
fn file_at_another_origin_names_it() {
    let request = Some("GET https://a.example/jobs/7");
    let job = |member: &str| format!("{{\"id\": 7, \"status\": \"done\", {member}}}");
    for (member, origin, comment) in [
        (
            r#""result_url": "https://cdn.example:8443/x.csv?sig=1""#,
            Some("origin = \"https://cdn.example:8443\""),
            "at another origin: the backend allows it with allow_origins",
        ),
        (
            r#""outputs": [], "output": ["https://b.example/1", "https://a.example/2", "https://c.example/3"]"#,
            Some("origin = [\"https://b.example\", \"https://c.example\"]"),
            "at another origin",
        ),
        (r#""result_url": "https://a.example/x.csv""#, None, "a location by its name"),
        (r#""result_url": "http://b.example/x.csv""#, None, "without https"),
        (r#""result_url": null"#, None, "a location, not set here"),
    ] {
        let draft = begun(&job(member), request, None);
        works(&draft);
        let (_, files) = draft.definition.split_once("[[files]]").unwrap();
        assert!(files.contains(comment) && !files.contains("listed only"), "{files}");
        match origin {
            Some(origin) => assert!(files.contains(origin), "{files}"),
            None => assert!(!files.contains("\norigin"), "{files}"),
        }
    }
    let alone = begun(&job(r#""result_url": "https://b.example/x.csv""#), None, None);
    assert!(
        alone.definition.contains("fill in: remove it if it is the origin of base_url"),
        "{}",
        alone.definition
    );
}

#[test]
fn refusal_that_is_a_list_has_its_reason() {
    let job = r#"{"id": 7, "status": "failed", "errors": {"kinds": ["x"], "messages": ["It is bad"]}}"#;
    for (answer, refusals) in [
        (
            r#"{"id": 7, "status": "done"}"#,
            &[
                r#"{"errors": [{"message": "no such thing"}]}"#,
                r#"{"errors": ["no such thing", "x"]}"#,
                r#"{"error": "no such thing"}"#,
                r#"{"error": {"message": "no such thing"}}"#,
                r#"[{"code": "x", "message": "no such thing"}]"#,
                r#"{"message": "no such thing", "errors": ["x"]}"#,
            ][..],
        ),
        (job, &[r#"{"errors": {"messages": ["no such thing"]}}"#, r#"{"message": "no such thing"}"#]),
        (
            r#"{"data": {"id": 7, "status": "failed", "errors": [{"detail": "It is bad"}]}}"#,
            &[r#"{"errors": [{"code": 1, "detail": "no such thing"}]}"#],
        ),
    ] {
        let draft = begun(answer, Some("GET https://a.example/jobs/7"), None);
        works(&draft);
        for refusal in refusals {
            let case = format!(
                "[[case]]\nids = [\"7\"]\nstatus = 400\nbody = '''{refusal}'''\n\
                 expect = {{ fault = \"rejected\", message = \"no such thing\" }}\n"
            );
            let definition = Arc::new(Definition::parse(&filled_in(&draft)).unwrap());
            let report = Cases::parse(definition, &case).unwrap().run();
            assert!(report.failed.is_empty(), "{report:#?}\n{}", draft.definition);
        }
    }
}
