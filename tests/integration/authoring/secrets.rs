//! What `jobwatch vendor new` redacts, and how it says so.

use super::*;

#[tokio::test]
async fn notice_of_redactions_has_paths_and_no_secret_is_written() {
    let folder = TempDir::new().unwrap();
    let answer = r#"{"job": {"id": "e-1", "status": "done", "env": [{"name": "MODE", "value": "fast"},
        {"Name": "Authorization", "Value": "hush"}], "args": ["run", "--password", "a hush"]},
        "trace": "a token was refused: api_key: \"my hush\""}"#;
    let args = ["vendor", "new", "mine", "--request", "GET https://a.example/jobs/e-1"];
    let (code, out, err) = run(folder.path(), &args, answer).await;
    assert_eq!((code, &*err), (Some(0), ""));
    let notice = "\nRedacted in cases.toml: job.env[1].Value, job.args[2], body.trace\n";
    assert!(out.contains(notice), "{out}");
    for file in ["definition.toml", "cases.toml"] {
        let text = fs::read_to_string(folder.path().join("mine").join(file)).unwrap();
        assert!(!text.contains("hush"), "{text}");
    }
    let cases = fs::read_to_string(folder.path().join("mine/cases.toml")).unwrap();
    assert!(cases.contains("a token was refused: api_key: \\\"redacted\\\""), "{cases}");
    assert!(cases.contains("\"value\": \"fast\""), "{cases}");
}
