//! What is a secret by its form, and what is none.

use super::*;

fn cleaned(text: &str) -> String {
    Cleaner::new(&["77", "job-1"]).text(text)
}

#[test]
fn secret_within_a_longer_text_is_replaced_alone() {
    for (text, expected) in [
        ("mail ana@corp.example, please", "mail user@example.com, please"),
        ("jürgen@bücher.example", "user@example.com"),
        ("see /users/ana%40corp.example/x", "see /users/user%40example.com/x"),
        (
            "key:\n-----BEGIN RSA PRIVATE KEY-----\nMIIhush\n-----END RSA PRIVATE KEY-----\nend",
            "key:\nredacted\nend",
        ),
        (r"-----BEGIN PRIVATE KEY-----\nMIIhush", "redacted"),
        ("sent Authorization: Bearer hush-1 twice\nok", "sent Authorization: redacted\nok"),
        ("-H 'Cookie: a=hush; b=hush' x", "-H 'Cookie: redacted' x"),
        (
            r#"{"headers": {"Authorization": "Basic aHVzaDpodXNo"}}"#,
            r#"{"headers": {"Authorization": "redacted"}}"#,
        ),
        ("used Bearer hush1234.", "used Bearer redacted"),
        ("curl -u ana:hush https://a.example", "curl -u redacted https://a.example"),
        ("run --password hush --retries 3", "run --password redacted --retries 3"),
        ("Server=a;User Id=sa;Password=hush;Timeout=3", "Server=a;User Id=sa;Password=redacted;Timeout=3"),
        ("AccountKey=aHVzaA==;x=1", "AccountKey=redacted;x=1"),
        (r#"{\"apiKey\": \"hush\", \"n\": 1}"#, r#"{\"apiKey\": \"redacted\", \"n\": 1}"#),
        ("the password is hush", "the password is redacted"),
        ("postgres://ana:hush@db.example/x", "postgres://db.example/x"),
        (
            "at https://u:hush@a.example/x;sig=hush?y=hush#access_token=hush&id=77.",
            "at https://a.example/x;sig=redacted?y=redacted#access_token=redacted&id=77.",
        ),
        ("https://a.example/#/runs/77", "https://a.example/#/runs/77"),
        ("https://a.example/p#0123456789abcdefghij", "https://a.example/p#redacted"),
        ("https://hooks.slack.com/services/T0/B0/hush", "https://hooks.slack.com/services/redacted"),
        (
            "https://discord.com/api/webhooks/77/hushhush-hushhush",
            "https://discord.com/api/webhooks/77/redacted",
        ),
        ("https://a.example/d/aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dE3/f.csv", "https://a.example/d/redacted/f.csv"),
        ("/download?token=hush&n=1", "/download?token=redacted&n=1"),
    ] {
        assert_eq!(cleaned(text), expected, "{text}");
    }
}

#[test]
fn token_is_known_by_its_form() {
    let long = "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9b";
    for token in [
        format!("eyJ{long}.eyJ{long}.{long}"),
        "AKIAIOSFODNN7EXAMPLE".to_owned(),
        format!("ghp_{long}"),
        format!("github_pat_{long}"),
        format!("glpat-{long}"),
        format!("xoxb-123-{long}"),
        format!("sk-proj-{long}"),
        format!("sk-ant-api03-{long}"),
        format!("sk_live_{long}"),
        format!("hf_{long}"),
        "dapi0123456789abcdef0123456789abcdef".to_owned(),
        format!("AIza{long}"),
        format!("ya29.{long}"),
        format!("SG.{long}.{long}"),
        format!("npm_{long}"),
        format!("shpat_{long}"),
        format!("{}.atlasv1.{long}", &long[..14]),
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY+1".to_owned(),
    ] {
        for text in [token.clone(), format!("got {token} back"), format!("\"{token}\"")] {
            let found = cleaned(&text);
            assert!(!found.contains(&token[8..]) && found.contains(REDACTED), "{text}: {found}");
        }
    }
}

#[test]
fn text_that_has_no_secret_stays_as_it_is() {
    for text in [
        "2026-01-02T03:04:05.678+00:00",
        "0190f3c2-7b1a-7c3e-9f00-1234567890ab",
        "https://a.example/v1/runs/77/files/part-00001.csv",
        "projects/my-project/locations/europe-west1/operations/operation-1",
        "arn:aws:glue:eu-west-1:123456789012:job/nightly",
        "Job failed at step 3: KeyError: 'customer'",
        "SELECT token_count FROM t WHERE id = 1",
        "max_tokens=12",
        "en-SK",
        "task-runner",
        "skip",
        "basic plan",
        "s3://bucket/key/part-1",
        "my-dag__2026-01-02T00:00:00+00:00",
    ] {
        assert_eq!(cleaned(text), text);
    }
    let kept = "ghp_0123456789abcdef";
    assert_eq!(Cleaner::new(&[kept]).text(kept), kept);
}

#[test]
fn secret_of_one_place_goes_from_every_other() {
    let mut cleaner = Cleaner::new(&["77"]);
    cleaner.note("hush-77-hush");
    cleaner.note("77");
    assert_eq!(cleaner.text("again hush-77-hush-1 77"), "again redacted-1 77");
    cleaner.note("hush5a7b9c1d3");
    assert_eq!(cleaner.text("x=%3Dhush5a7b9c1d3Z"), "x=%3DredactedZ");
    assert_eq!(cleaner.text(r"A=1\nhush-77-hush"), r"A=1\nredacted");
}

#[test]
fn noted_word_is_no_part_of_other_words_and_names() {
    let mut cleaner = Cleaner::new(&[]);
    for secret in ["export", "service", "api-service", "orders-2026", "hush5a7b9c1d3"] {
        cleaner.note(secret);
    }
    for text in ["/v1/exports/7/export.csv", "a service", "api-service", "orders-20260102", "xorders-2026"] {
        assert_eq!(cleaner.text(text), text);
    }
    assert_eq!(cleaner.text("of orders-2026."), "of redacted.");
    for name in ["export_finished_at", "service_status", "orders-2026", "ahush5a7b9c1d3", "hush5a7b9c1d3e"] {
        assert_eq!(cleaner.name(name), name);
    }
    assert_eq!(cleaner.name("by hush5a7b9c1d3"), "by redacted");
}

#[test]
fn random_value_is_a_secret_by_its_name() {
    let cleaner = Cleaner::new(&[]);
    for (name, text, expected) in [
        ("key", "a1b2c3d4e5f6g7h8", REDACTED),
        ("task_key", "ingest", "ingest"),
        ("signature", "0123456789abcdef0123", REDACTED),
        ("code", "SUCCESS", "SUCCESS"),
        ("issue_key", "DATA-123", "DATA-123"),
        ("key", "0190f3c2-7b1a-7c3e-9f00-1234567890ab", "0190f3c2-7b1a-7c3e-9f00-1234567890ab"),
    ] {
        assert_eq!(cleaner.value(name, text), expected, "{name}");
    }
}
