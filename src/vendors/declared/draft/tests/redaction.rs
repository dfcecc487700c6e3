//! Secrets of an answer and its request, which the begun files do not have.

use proptest::prelude::*;

use super::*;

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

#[test]
fn word_below_the_name_of_a_secret_stays_in_other_names() {
    let answer = r#"{"id": "nightly-42", "status": "done", "tags": ["auth", "nightly"], "links": ["session key", "export"],
        "result_url": "https://api.example/v1/exports/nightly-42/result.csv", "export_finished_at": "2026-01-02T03:04:05Z"}"#;
    let draft = begun(answer, Some("GET https://api.example/v1/exports/nightly-42"), None);
    works(&draft);
    assert!(draft.definition.contains("\"job.export_finished_at\""), "{}", draft.definition);
    assert!(!draft.definition.contains("redacted") && draft.redacted.is_empty(), "{:?}", draft.redacted);
    let answer = r#"{"id": 7, "authType": "service", "service_status": "COMPLETED", "service_finished_at": "2026-01-02T03:04:05Z"}"#;
    let draft = begun(answer, Some("GET https://api.example/v1/jobs/7"), None);
    works(&draft);
    assert!(draft.definition.contains("\"job.service_status\""), "{}", draft.definition);
}
