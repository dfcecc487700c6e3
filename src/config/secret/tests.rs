//! Two secrets of one way to sign in.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::config::{Config, Diff, Effective};

/// HubSpot with the client's secret as written, and the refresh token in a file.
fn text(dir: &TempDir, client_secret: &str) -> String {
    let file = dir.path().join("refresh-token");
    format!(
        "allow_inline_secrets = true
        [backends.h]
        vendor = \"hubspot-exports\"
        base_url = \"https://hubspot.example\"
        credentials = {{ client_id = \"c-1\", refresh_token = {{ file = {file:?} }}, client_secret = {client_secret} }}"
    )
}

fn config(text: &str) -> Config {
    Config::parse(text, [("CLIENT".to_owned(), "hush-2".to_owned())])
        .unwrap_or_else(|error| panic!("{error}"))
}

fn dir() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("refresh-token"), "hush-1\n").unwrap();
    dir
}

fn lines(secret: &SecretString) -> Vec<&str> {
    secrets_in(secret).collect()
}

#[test]
fn refresh_token_and_client_secret_are_read_from_their_places() {
    let dir = dir();
    for place in ["{ env = \"CLIENT\" }", "\"hush-2\""] {
        let config = config(&text(&dir, place));
        let secret = config.backends[0].credentials.secret().unwrap();
        assert_eq!(lines(secret.value()), ["hush-1", "hush-2"]);
        let origin = secret.origin();
        assert!(origin.starts_with("credentials.refresh_token from the file "), "{origin}");
        assert!(origin.contains(", with credentials.client_secret "), "{origin}");
        assert!(!origin.contains("hush") && !format!("{secret:?}").contains("hush"));
    }
}

#[test]
fn secret_that_changes_is_read_again_and_the_other_is_kept() {
    let dir = dir();
    let file = dir.path().join("client");
    fs::write(&file, "hush-2").unwrap();
    for place in ["{ env = \"CLIENT\" }", "\"hush-2\"", &format!("{{ file = {file:?} }}")] {
        fs::write(dir.path().join("refresh-token"), "hush-1\n").unwrap();
        let config = config(&text(&dir, place));
        let secret = config.backends[0].credentials.secret().unwrap();
        assert!(secret.may_change());
        fs::write(dir.path().join("refresh-token"), "hush-3\n").unwrap();
        let changed = secret.read_again().unwrap().unwrap();
        assert_eq!(lines(&changed), ["hush-3", "hush-2"]);
        let key = "backends.h.credentials.refresh_token";
        assert_eq!(secret.changed_keys(secret.value(), &changed), key);
        assert_eq!(
            secret.changed_keys(secret.value(), &"hush-1\nother".into()),
            "backends.h.credentials.client_secret"
        );
        fs::write(dir.path().join("refresh-token"), "").unwrap();
        let problem = secret.read_again().unwrap_err();
        assert_eq!(problem.subject, "backends.h.credentials.refresh_token");
    }
}

#[test]
fn second_secret_that_can_not_be_read_is_named() {
    let dir = dir();
    for (place, expected) in [
        ("{ env = \"NONE\" }", "backends.h.credentials.client_secret is the variable NONE, which is not set"),
        ("7", "backends.h.credentials.client_secret is no secret; write"),
        ("\"a\\nb\"", "backends.h.credentials.client_secret holds U+000A (line feed) at position 2"),
    ] {
        let problem = Config::parse(&text(&dir, place), []).unwrap_err().to_string();
        assert!(problem.contains(expected), "{problem}");
    }
    let client_alone = text(&dir, "\"x\"").replace("refresh_token", "token");
    let problem = Config::parse(&client_alone, []).unwrap_err().to_string();
    assert!(problem.contains("backends.h.credentials has no secret of this vendor's"), "{problem}");
}

#[test]
fn second_secret_from_another_place_is_a_change() {
    let dir = dir();
    let (env, literal) = (text(&dir, "{ env = \"CLIENT\" }"), text(&dir, "\"hush-2\""));
    let without = env.replace(", client_secret = { env = \"CLIENT\" }", "");
    for (old, new, changes) in
        [(&env, &env, 0), (&env, &literal, 1), (&env, &without, 1), (&without, &env, 1)]
    {
        let (diff, _) = Diff::between(&config(old), config(new));
        assert_eq!(diff.changed.len(), changes, "{diff:?}");
        assert!(!format!("{diff:?}").contains("hush"), "{diff:?}");
    }
}

#[test]
fn warning_names_the_place_of_its_own_secret() {
    let dir = dir();
    let config = config(&text(&dir, "{ env = \"CLIENT\" }"));
    let secret = config.backends[0].credentials.secret().unwrap();
    let warnings = secret.warnings(&"a\n\"b\"".into());
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0].starts_with("is the variable CLIENT, which begins and ends with a quote"),
        "{warnings:?}"
    );
}

#[test]
fn effective_configuration_shows_neither_secret() {
    let dir = dir();
    let variable = "JOBWATCH__BACKENDS__H__CREDENTIALS__CLIENT_SECRET";
    let without = text(&dir, "\"hush-2\"").replace(", client_secret = \"hush-2\"", "");
    for (text, variables) in
        [(text(&dir, "\"hush-2\""), vec![]), (without, vec![(variable.to_owned(), "hush-2".to_owned())])]
    {
        let effective = Effective::parse(Some((Path::new("gateway.toml"), &text)), variables);
        let effective = effective.unwrap_or_else(|invalid| panic!("{invalid}"));
        let all = format!("{effective}{effective:?}{}", effective.to_json());
        assert!(all.contains("client_secret") && !all.contains("hush"), "{all}");
    }
}
