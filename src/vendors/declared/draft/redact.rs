//! Replaces what should not lie in a file of cases: secrets, addresses of people, signed URLs.

use std::ops::Range;

use url::Url;

use super::tree::{Node, snake_case};

const REDACTED: &str = "redacted";
const EMAIL: &str = "user@example.com";

/// Words of a member's name that make its value a secret.
const SECRET_NAMES: [&str; 22] = [
    "token",
    "secrets",
    "passwords",
    "pwd",
    "pass",
    "auth",
    "session_id",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "authorization",
    "credential",
    "credentials",
    "cookie",
    "signature",
    "apikey",
    "api_key",
    "access_key",
    "private_key",
    "secret_key",
    "connection_string",
];

/// Beginnings of secrets of well-known vendors, and of a JWT.
const SECRET_BEGINNINGS: [&str; 16] = [
    "eyJ",
    "AKIA",
    "ASIA",
    "ghp_",
    "gho_",
    "ghs_",
    "github_pat_",
    "glpat-",
    "sk-",
    "sk_live_",
    "sk_test_",
    "rk_live_",
    "xoxb-",
    "xoxp-",
    "hf_",
    "dapi",
];

/// Whether a member, a parameter of a query or a header of this name has a secret.
pub(in crate::vendors::declared) fn is_secret_name(name: &str) -> bool {
    let snake = snake_case(name);
    let padded = format!("_{snake}_");
    let has = |secret: &&str| padded.contains(&format!("_{secret}_"));
    SECRET_NAMES.iter().any(has)
        || ["token", "secret", "password"].iter().any(|end| snake.ends_with(end))
        || matches!(&*snake, "sig" | "auth_key" | "jwt" | "sas")
}

/// The body without secrets, and the members that were replaced. Texts that are one of
/// `kept` stay, as does the place of everything.
pub(super) fn redacted(body: &str, node: &Node, kept: &[&str]) -> (String, Vec<String>) {
    let mut found = Vec::new();
    visit(node, "", false, kept, &mut found);
    found.sort_by_key(|(span, ..): &(Range<usize>, String, String)| span.start);
    let (mut text, mut at, mut names) = (String::new(), 0, Vec::new());
    for (span, name, value) in found {
        text += &body[at..span.start];
        text += &serde_json::Value::from(value).to_string();
        at = span.end;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    (text + &body[at..], names)
}

fn visit(
    node: &Node,
    name: &str,
    is_secret: bool,
    kept: &[&str],
    found: &mut Vec<(Range<usize>, String, String)>,
) {
    match node {
        Node::Object(members) => {
            for (name, node) in members {
                visit(node, name, is_secret || is_secret_name(name), kept, found);
            }
        }
        Node::List(nodes) => nodes.iter().for_each(|node| visit(node, name, is_secret, kept, found)),
        Node::Text { text, span } if !kept.contains(&&**text) => {
            let value =
                if is_secret && !text.is_empty() { Some(REDACTED.to_owned()) } else { other(text, kept) };
            if let Some(value) = value.filter(|value| value != text) {
                found.push((span.clone(), name.to_owned(), value));
            }
        }
        _ => {}
    }
}

/// Whether a text looks like a secret, whatever its name is.
pub(in crate::vendors::declared) fn is_secret_text(text: &str) -> bool {
    other(text, &[]).as_deref() == Some(REDACTED)
}

/// What stands in place of a text whose name says nothing.
fn other(text: &str, kept: &[&str]) -> Option<String> {
    let is_one_word = !text.contains(char::is_whitespace);
    if is_one_word && text.len() >= 16 && SECRET_BEGINNINGS.iter().any(|begin| text.starts_with(begin)) {
        return Some(REDACTED.to_owned());
    }
    if let Some(rest) = text.strip_prefix("Bearer ").or_else(|| text.strip_prefix("Basic "))
        && !rest.contains(' ')
    {
        return Some(REDACTED.to_owned());
    }
    if text.contains("://") {
        return is_one_word.then(|| url(text, kept)).flatten();
    }
    let (local, domain) = text.split_once('@')?;
    let is_email = is_one_word && !local.is_empty() && domain.contains('.') && !domain.contains(['@', '/']);
    is_email.then(|| EMAIL.to_owned())
}

/// A URL without user info, and with other values in its query.
fn url(text: &str, kept: &[&str]) -> Option<String> {
    let mut url = Url::parse(text).ok()?;
    if url.username().is_empty() && url.password().is_none() && url.query().is_none() {
        return None;
    }
    let _ = url.set_username("");
    let _ = url.set_password(None);
    if url.query().is_some() {
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        url.query_pairs_mut().clear().extend_pairs(pairs.iter().map(|(name, value)| {
            let is_kept = kept.contains(&&**value) || value.is_empty();
            (name, if is_kept { value.as_str() } else { REDACTED })
        }));
    }
    Some(url.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(body: &str) -> (String, Vec<String>) {
        redacted(body, &Node::parse(body).unwrap(), &["77"])
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
  "seen": "redacted", "max_tokens": 12, "note": "mail ana@corp.example", "h": "redacted" }"#
        );
        assert_eq!(names, ["jobToken", "password", "owner", "url", "seen", "h"]);
    }

    #[test]
    fn text_without_secrets_stays_as_it_is() {
        let body =
            "{\"token\": \"\", \"tokens\": \"12\", \"status\": \"done\", \"token_id\": \"77\", \"n\": null}";
        assert_eq!(shown(body), (body.to_owned(), Vec::new()));
    }

    #[test]
    fn names_of_secrets_are_known_in_every_style() {
        for name in ["api_key", "apiKey", "X-Api-Key", "access_token", "accessToken", "client-secret", "sig"]
        {
            assert!(is_secret_name(name), "{name}");
        }
        for name in ["key", "code", "tokens", "id", "signed", "task_key", "status"] {
            assert!(!is_secret_name(name), "{name}");
        }
    }
}
