//! What is redacted in an answer, and how its place is named.

use super::*;

fn shown(body: &str) -> (String, Vec<String>) {
    let mut cleaner = Cleaner::new(&["77"]);
    let node = Node::parse(body).unwrap();
    note_secrets(&node, &mut cleaner);
    redacted(body, &node, &cleaner)
}

#[test]
fn secrets_addresses_and_signed_urls_are_replaced_where_they_stand() {
    let body = r#"{ "id": "77", "jobToken":"hush", "auth": {"password": ["a", "b"]}, "owner": "ana@corp.example",
  "url": "https://u:p@files.example/x?X-Amz-Signature=hush&id=77", "page": "https://a.example/runs/77",
  "seen": "eyJhbGciOiJIUzI1NiJ9.e30", "max_tokens": 12, "note": "mail ana@corp.example", "h": "Bearer hush" }"#;
    let (text, names) = shown(body);
    assert_eq!(
        text,
        r#"{ "id": "77", "jobToken":"redacted", "auth": {"password": ["redacted", "redacted"]}, "owner": "user@example.com",
  "url": "https://files.example/x?X-Amz-Signature=redacted&id=77", "page": "https://a.example/runs/77",
  "seen": "redacted", "max_tokens": 12, "note": "mail user@example.com", "h": "Bearer redacted" }"#
    );
    let expected = ["jobToken", "auth.password[0]", "auth.password[1]", "owner", "url", "seen", "note", "h"];
    assert_eq!(names, expected.map(|path| format!("body.{path}")));
}

#[test]
fn text_without_secrets_stays_as_it_is() {
    let body =
        "{\"token\": \"\", \"tokens\": \"12\", \"status\": \"done\", \"token_id\": \"77\", \"n\": null}";
    assert_eq!(shown(body), (body.to_owned(), Vec::new()));
}

#[test]
fn names_and_numbers_are_looked_at_too() {
    let body = r#"{"by_user": {"ana@corp.example": 1, "gh\u0070_0123456789abcdef": {"n": 2}}, "pin": 731731, "token": 1, "t": ["\ud800"],
        "copy": "was hush-77-hush", "password": "hush-77-hush", "empty": {}, "none": [], "n": -1.5e3 }"#;
    let (text, names) = shown(body);
    assert_eq!(
        text,
        r#"{"by_user": {"user@example.com": 1, "redacted": {"n": 2}}, "pin": 0, "token": 1, "t": ["redacted"],
        "copy": "was redacted", "password": "redacted", "empty": {}, "none": [], "n": -1.5e3 }"#
    );
    let expected = ["by_user['user@example.com']", "by_user.redacted", "pin", "t[0]", "copy", "password"];
    assert_eq!(names, expected.map(|path| format!("body.{path}")));
}

#[test]
fn secret_beside_its_name_is_replaced() {
    for (body, expected) in [
        (
            r#"[{"name": "Authorization", "value": "Bearer abc"}, {"name": "Accept", "value": "text/csv"}]"#,
            r#"[{"name": "Authorization", "value": "redacted"}, {"name": "Accept", "value": "text/csv"}]"#,
        ),
        (r#"{"value": "x", "key": "DB_PASSWORD"}"#, r#"{"value": "redacted", "key": "DB_PASSWORD"}"#),
        (r#"{"Name": "pw", "Value": "x"}"#, r#"{"Name": "pw", "Value": "redacted"}"#),
        (r#"{"k": "api-key", "v": ["x", 12345]}"#, r#"{"k": "api-key", "v": ["redacted", 0]}"#),
        (
            r#"{"ParameterKey": "DBPassword", "ParameterValue": "x"}"#,
            r#"{"ParameterKey": "DBPassword", "ParameterValue": "redacted"}"#,
        ),
        (r#"{"header": "Cookie", "content": "a=x"}"#, r#"{"header": "Cookie", "content": "redacted"}"#),
        (
            r#"{"id": 7, "name": "secret sauce", "data": {"status": "done"}}"#,
            r#"{"id": 7, "name": "secret sauce", "data": {"status": "done"}}"#,
        ),
        (
            r#"{"name": "LICENCE", "value": "x", "sensitive": true}"#,
            r#"{"name": "LICENCE", "value": "redacted", "sensitive": true}"#,
        ),
        (
            r#"{"name": "LICENCE", "value": "x", "type": "SecureString"}"#,
            r#"{"name": "LICENCE", "value": "redacted", "type": "SecureString"}"#,
        ),
        (r#"{"name": "key", "value": "a1b2c3d4e5f6g7h8"}"#, r#"{"name": "key", "value": "redacted"}"#),
        (
            r#"[["Authorization", "x"], ["Accept", "y"]]"#,
            r#"[["Authorization", "redacted"], ["Accept", "y"]]"#,
        ),
        (r#"["Host", "a.example", "X-Api-Key", "x"]"#, r#"["Host", "a.example", "X-Api-Key", "redacted"]"#),
        (r#"["token", "password"]"#, r#"["token", "password"]"#),
        (r#"["id", "token", "email"]"#, r#"["id", "token", "email"]"#),
        (
            r#"["sshpass", "-p", "a b", "ssh", "--token", "x", "-v"]"#,
            r#"["sshpass", "-p", "redacted", "ssh", "--token", "redacted", "-v"]"#,
        ),
        (r#"{"cmd": ["mysql", "-pabc", "db"]}"#, r#"{"cmd": ["mysql", "-predacted", "db"]}"#),
        (
            r#"{"env": "[{\"name\": \"DB_PASSWORD\", \"value\": \"x\"}]"}"#,
            r#"{"env": "[{\"name\": \"DB_PASSWORD\", \"value\": \"redacted\"}]"}"#,
        ),
        (
            r#"{"sessionToken2": "x", "sshKey": "x", "private": "x", "bearer": "x", "pw": "x", "pwd": "x"}"#,
            r#"{"sessionToken2": "redacted", "sshKey": "redacted", "private": "redacted", "bearer": "redacted", "pw": "redacted", "pwd": "redacted"}"#,
        ),
        (r#"{"private": true, "auth": {"on": "true"}}"#, r#"{"private": true, "auth": {"on": "true"}}"#),
        (r#"{"text": "{\"pin\": 123456}"}"#, r#"{"text": "{\"pin\": 0}"}"#),
    ] {
        assert_eq!(shown(body).0, expected);
    }
    let (_, paths) = shown(r#"{"env": [{"name": "pw", "value": "x"}], "a'b": {"pw": "x"}}"#);
    assert_eq!(paths, ["body.env[0].value", "body[\"a'b\"].pw"]);
}

#[test]
fn word_of_a_state_is_no_secret_elsewhere() {
    let (text, _) = shown(r#"{"name": "token", "value": "running", "status": "running"}"#);
    assert_eq!(text, r#"{"name": "token", "value": "redacted", "status": "running"}"#);
}

#[test]
fn second_of_two_texts_is_no_secret_without_the_look_of_one() {
    for body in [
        r#"{"errors": ["invalid token", "row 3 rejected"]}"#,
        r#"{"env": ["API_TOKEN=", "LOG_LEVEL=debug1"]}"#,
        r#"{"columns": ["session_id", "country"], "vary": ["Authorization", "X-Team"]}"#,
        r#"{"set": ["API_TOKEN", "LOG_LEVEL"]}"#,
        r#"{"tags": ["auth", "nightly"], "links": ["session key", "export"]}"#,
        r#"{"steps": ["Get token", "Run export 2"]}"#,
        r#"{"tags": ["token", "service_accounts"], "all": ["app-auth", "nightly", "app-token", "weekly"]}"#,
    ] {
        assert_eq!(shown(body), (body.to_owned(), Vec::new()));
    }
    for (body, expected) in [
        (r#"["password", "hush31"]"#, r#"["password", "redacted"]"#),
        (r#"[["api_key", "hush32"]]"#, r#"[["api_key", "redacted"]]"#),
        (r#"["password", "xkqwzrtplmnb"]"#, r#"["password", "redacted"]"#),
        (r#"["Authorization", "opensesame"]"#, r#"["Authorization", "redacted"]"#),
        (r#"[["Cookie", "opensesame"]]"#, r#"[["Cookie", "redacted"]]"#),
        (r#"["X-Api-Key", "open-sesame-service"]"#, r#"["X-Api-Key", "redacted"]"#),
        (r#"["DB_PASSWORD", "Winter"]"#, r#"["DB_PASSWORD", "redacted"]"#),
        (
            r#"["dd-api-key", "0a1b2c3d4e", "accept", "json"]"#,
            r#"["dd-api-key", "redacted", "accept", "json"]"#,
        ),
        (r#"[["password", "hush"], ["name", "x"]]"#, r#"[["password", "redacted"], ["name", "x"]]"#),
    ] {
        assert_eq!(shown(body).0, expected);
    }
}

/// Where the members of an answer stand, with the kind of each value.
fn paths(at: &str, node: &Node, found: &mut Vec<String>) {
    let kind = match node {
        Node::Null => "null",
        Node::Flag(_) => "flag",
        Node::Number(_) => "number",
        Node::Text { .. } => "text",
        Node::List(nodes) => {
            for (index, node) in nodes.iter().enumerate() {
                paths(&format!("{at}[{index}]"), node, found);
            }
            "list"
        }
        Node::Object(members) => {
            for (name, node) in members {
                paths(&format!("{at}.{name}"), node, found);
            }
            "object"
        }
    };
    found.push(format!("{at}: {kind}"));
}

#[test]
fn redacted_answer_has_the_members_of_the_answer() {
    let mut answers: Vec<String> = [
        r#"{"id":"nightly-42","status":"done","tags":["auth","nightly"],"links":["session key","export"],
            "result_url":"https://api.example/v1/exports/nightly-42/result.csv","export_finished_at":"2026-01-02T03:04:05Z"}"#,
        r#"{"authType":"service","service_status":"COMPLETED","service_finished_at":"2026-01-02T03:04:05Z"}"#,
        r#"{"secretKeyRef": {"name": "output", "key": "results"}, "output": {"results": ["s3://b/x.csv"]}}"#,
        r#"{"auth": {"mode": "service_account", "by": "team-2026"}, "service_account": {"team-2026": 1}}"#,
    ]
    .map(str::to_owned)
    .into();
    for shipped in crate::vendors::declared::SHIPPED {
        let cases: toml::Value = shipped.cases.parse::<toml::Table>().unwrap().into();
        let mut open = vec![&cases];
        while let Some(value) = open.pop() {
            match value {
                toml::Value::String(text) if text.trim_start().starts_with('{') => answers.push(text.clone()),
                toml::Value::Array(values) => open.extend(values),
                toml::Value::Table(table) => open.extend(table.values()),
                _ => {}
            }
        }
    }
    assert!(answers.len() > 200, "{}", answers.len());
    for answer in answers {
        let Ok(node) = Node::parse(&answer) else { continue };
        let (mut before, mut after) = (Vec::new(), Vec::new());
        paths("body", &node, &mut before);
        paths("body", &Node::parse(&shown(&answer).0).unwrap(), &mut after);
        assert_eq!(before, after, "{answer}");
    }
}
