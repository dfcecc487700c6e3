//! Ids and answers of others stay data.

use proptest::prelude::*;

use super::*;
use crate::vendors::conformance::json;

const TEXTS: &str =
    "(a\"b|\\{\\{ x \\}\\}|\\{% x %\\}|\\.\\./|\\.\\.|\r\n|\u{0}|%2e%2e|/|\\\\|'|\\?|#|&|=|ä|[a-z]){1,12}";

fn declared_vendors() -> Vec<Declared> {
    vec![
        declared(shipped("openai-batch"), "https://v.example/base", ""),
        declared(shipped("airflow"), "https://v.example/base", ""),
        declared(shipped("azure-arm"), "https://v.example/base", "params = { tenant = \"t\" }"),
        declared(IMMUTA, "https://v.example/base", ""),
        declared(DATASAUR, "https://v.example/base", ""),
    ]
}

/// A definition with a file for each element that this condition chooses, by this name.
fn files(when: &str, name: &str) -> Declared {
    let text = format!(
        "format = 1\nname = \"t\"\nversion = \"1.0.0\"\ntitle = \"T\"\ndocs = \"d\"\n[id]\npattern = \"{{a}}\"\n\
         [credentials.none]\n[request]\npath = \"/j/{{{{ id.a }}}}\"\n[status]\nid = \"job.id\"\nword = \"job.s\"\n\
         error = {{ each = \"job.f\", message = \"item.m ~ job.names[0]\", in = [\"FAILED\"] }}\n\
         [states]\nSUCCEEDED = [\"ok\"]\nFAILED = [\"bad\"]\n[[faults]]\nstatus = 404\nis = \"not_found\"\n\
         [[files]]\neach = \"job.f\"\nwhen = \"{when}\"\nname = \"{name}\"\npath = \"/f/{{{{ item.n }}}}\"\n"
    );
    declared(&text, "https://v.example", "")
}

/// An answer with this many files, and their names in a list.
fn long_answer(word: &str, count: usize) -> Bytes {
    let names: Vec<String> = (0..count).map(|number| format!("n{number:05}")).collect();
    let files: Vec<_> = names.iter().map(|name| serde_json::json!({ "n": name, "m": "why" })).collect();
    serde_json::json!({ "id": "7", "s": word, "f": files, "names": names }).to_string().into()
}

#[test]
fn elements_that_each_need_the_whole_answer_share_a_budget() {
    let job = JobRef::new("b", "7");
    let count = |vendor: &Declared, count: usize| {
        vendor.observe(&job, &long_answer("ok", count)).unwrap().artifacts.len()
    };
    // Of its own element each may be read, however many there are.
    assert_eq!(count(&files("item.m == 'why'", "{{ item.n }}"), 9_000), 9_000);
    assert_eq!(count(&files("item.n in job.names", "{{ item.n }}"), 100), 100);
    for (when, name) in [
        ("item.n in job.names", "{{ item.n }}"),
        ("item.m", "{{ job.names[0] ~ item.n }}"),
        ("job.names[0] and item.m", "{{ item.n }}"),
    ] {
        let left = count(&files(when, name), 9_000);
        assert!((1..1_000).contains(&left), "{when}, {name}: {left}");
    }
    let failed = files("item.m", "{{ item.n }}").observe(&job, &long_answer("bad", 9_000)).unwrap();
    let lines = failed.error.unwrap().message.lines().count();
    assert!((1..1_000).contains(&lines), "{lines}");
}

proptest! {
    #[test]
    fn any_id_is_refused_or_stays_data(id in TEXTS) {
        for vendor in declared_vendors() {
            let job = JobRef::new("b", &*id);
            if vendor.check(&job).is_err() {
                continue;
            }
            let request = vendor.request(std::slice::from_ref(&job));
            let uri = request.uri().to_string();
            prop_assert!(uri.starts_with("https://v.example/"), "{uri}");
            prop_assert!(!request.uri().path().split('/').any(|part| part == ".."), "{uri}");
            prop_assert!(request.headers().len() <= 3);
            if !request.body().is_empty() {
                let body: serde_json::Value = serde_json::from_slice(request.body()).unwrap();
                let ids = body.get("jobIds").or_else(|| body["variables"].get("jobIds"));
                prop_assert_eq!(ids, Some(&serde_json::json!([id])));
            }
        }
    }

    #[test]
    fn any_text_of_an_answer_stays_data(text in TEXTS) {
        let quoted = serde_json::to_string(&text).unwrap();
        let body = format!(
            "{{\"run_id\": 7, \"run_name\": {quoted}, \"state\": {{\"life_cycle_state\": {quoted}}}, \
             \"tasks\": [{{\"task_key\": {quoted}, \"run_id\": {quoted}}}]}}"
        );
        let databricks = declared(shipped("databricks"), "https://v.example", "");
        let jobs = [JobRef::new("b", "7")];
        let elements = databricks.split(&jobs, &json(200, body)).unwrap();
        let seen = databricks.observe(&jobs[0], elements.as_slice()[0].as_ref().unwrap()).unwrap();
        prop_assert!(!seen.state.is_terminal());
        prop_assert_eq!(&seen.vendor_state, &text);
        prop_assert_eq!(&seen.description, &text);
        for artifact in &seen.artifacts {
            prop_assert!(!artifact.file_name.contains(['/', '\\']) && !artifact.file_name.contains(char::is_control));
            let uri = databricks.file_request(&artifact.vendor_uri).unwrap().uri().to_string();
            prop_assert!(uri.starts_with("https://v.example/api/2.2/jobs/runs/get-output?run_id="), "{uri}");
            prop_assert_eq!(uri.matches(['?', '&', '#']).count(), 1);
        }
    }
}

#[test]
fn sixty_four_bit_ids_stay_exact() {
    let databricks = declared(shipped("databricks"), "https://v.example", "");
    for id in ["9007199254740993", "9223372036854775807"] {
        let jobs = [JobRef::new("b", id)];
        let body = format!("{{\"run_id\": {id}, \"state\": {{\"life_cycle_state\": \"RUNNING\"}}}}");
        let elements = databricks.split(&jobs, &json(200, body)).unwrap();
        let seen = databricks.observe(&jobs[0], elements.as_slice()[0].as_ref().unwrap());
        assert!(seen.is_ok(), "{id}: {seen:?}");
    }
    let body = r#"{"run_id": 9007199254740992, "state": {"life_cycle_state": "RUNNING"}}"#;
    let jobs = [JobRef::new("b", "9007199254740993")];
    let elements = databricks.split(&jobs, &json(200, body)).unwrap();
    let seen = databricks.observe(&jobs[0], elements.as_slice()[0].as_ref().unwrap());
    assert_eq!(seen, Err(JobFault::Malformed { why: "it is about another job" }));
}

#[test]
fn word_whose_expression_fails_ends_no_job() {
    let text = shipped("openai-batch").replace("word        = \"job.status\"", "word = \"job.status + 1\"");
    let openai = declared(&text, "https://v.example", "");
    let element = Bytes::from_static(br#"{"id": "b", "status": "completed"}"#);
    let fault = openai.observe(&JobRef::new("b", "b"), &element).unwrap_err();
    assert_eq!(fault, JobFault::Malformed { why: "the expression of status.word fails" });
}

#[test]
fn categories_of_several_rules_give_all_their_files() {
    let text = small_definition!(
        r#"[id]
pattern = "{a}"
[credentials.none]
[request]
path = "/j/{{ id.a }}"
[[files]]
each = "job.one"
by_category = ["late"]
name = "{{ item }}"
path = "/one/{{ item }}"
[[files]]
each = "job.two"
by_category = []
name = "{{ item }}"
path = "/two/{{ item }}""#
    );
    let vendor = declared(text, "https://v.example", "");
    let job = JobRef::new("b", "7");
    let body = r#"{"id": "7", "status": "done", "one": {"x": ["a"], "\ud800": ["b"], "late": ["c"]}, "two": {"x": ["a", "d"]}}"#;
    let seen = vendor.observe(&job, &Bytes::from_static(body.as_bytes())).unwrap();
    let files: Vec<_> =
        seen.artifacts.iter().map(|file| format!("{} {}", file.id, file.vendor_uri)).collect();
    assert_eq!(files, ["late/c /one/c", "x/a /one/a", "x/a#2 /two/a", "x/d /two/d"]);
}
