//! What `jobwatch vendor check` and `vendor test` print for the slips of somebody who writes their
//! first definition.

use super::*;

const DEFINITION: &str = r#"format = 1
name = "exports"
version = "one"
title = "Exports"
docs = "https://fill-in.example"
[id]
pattern = "{export_id}"
[credentials.none]
[request]
path = "/v1/exports/{{ id.export_id }}"
headers = { X-Api-Key = "k3y-8fj2ls0dk" }
[status]
id = "job.id"
word = "job.phase"
owner = "job.user || null"
end_time = "job.finished"
[states]
SUCCEEDED = ["done"]
FAILED = ["broken"]
[[faults]]
status = 404
is = "not_found"
[[files]]
name = "a.csv"
url = "job.file"
"#;

const CASES: &str = r#"[[case]]
ids = ["e-1"]
body = '{"id": "e-2", "phase": "done"}'
expect = { state = "SUCCEEDED" }
[[case]]
ids = ["e-1"]
body = '{"id": "e-1", "phase": "done", "finished": "2026-01-02 03:04:05", "file": "/f"}'
expect = { state = "SUCCEEDED", end_time = "2026-01-02T03:04:05Z" }
[[case]]
ids = ["e-1"]
status = 404
headers = { content-type = "text/html" }
body = "<html>"
expect = { fault = "not_found" }
[untested]
broken = "fill in: a case, or why there is none"
"#;

#[tokio::test]
async fn slips_of_a_first_definition_are_told_with_what_to_write() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("definition.toml");
    fs::write(&file, DEFINITION).unwrap();
    let (code, out, _) = run(folder.path(), &["vendor", "check", "definition.toml"], "").await;
    assert_eq!(code, Some(1), "{out}");
    assert_eq!(
        out,
        r#"definition.toml:3:11: version is "one"; write three numbers, such as "1.0.0"
definition.toml:5:8: docs is still to be filled in: "//fill-in.example"
definition.toml:11:25: request.headers.X-Api-Key looks like a secret, which others read in a definition; declare a way to sign in under [credentials], and give the secret in the backend, or write {{ '..' }} for a text that is none
definition.toml:15:9: status.owner is not an expression: || means nothing here; write or
    job.user || null
             ^
definition.toml:25:7: files[0].url is the text "job.file" as it stands; did you mean "{{ job.file }}"? For that text write "{{ 'job.file' }}"
"#
    );

    let cured = [
        ("\"one\"", "\"1.0.0\""),
        ("fill-in", "api"),
        ("headers = { X-Api-Key = \"k3y-8fj2ls0dk\" }\n", ""),
        ("job.user || null", "job.user"),
        ("\"job.file\"", "\"{{ job.file }}\""),
    ];
    let text = cured.iter().fold(DEFINITION.to_owned(), |text, (from, to)| text.replace(from, to));
    fs::write(&file, text).unwrap();
    fs::write(folder.path().join("cases.toml"), CASES).unwrap();
    let (code, out, _) = run(folder.path(), &["vendor", "test", "definition.toml"], "").await;
    assert_eq!(code, Some(1), "{out}");
    assert_eq!(
        out,
        r#"cases.toml:1: case 1: there is the fault "malformed": the vendor's response about this job can't be understood: it is about another job: status.id reads job.id, which is "e-2", and the id has "e-1"
cases.toml:5: case 2: end_time is absent, expected "2026-01-02T03:04:05Z": job.finished is "2026-01-02 03:04:05", which names no zone; write zone = "UTC", or an offset such as zone = "+02:00"
cases.toml:9: case 3: fault is "rejected", expected "not_found": faults[0] does not take a page in HTML, which may come from a proxy; write content_type = "text/html" in it if it is the vendor's
cases.toml: no case covers faults[0]; add one, or write "faults[0]" = "why" in [untested]
cases.toml: no case covers files[0]; expect its files = [".."] in one, or write "files[0]" = "why" in [untested]
cases.toml:16: untested."broken" is still to be filled in: "fill in: a case, or why there is none"
FAILED exports 1.0.0: 0 of 3 cases passed, 2 words and rules have no case
"#
    );
}
