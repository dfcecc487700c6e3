//! Replaces what should not lie in a file of cases: secrets, addresses of people, signed URLs.

use super::{
    secrets::{Cleaner, REDACTED},
    tree::{Node, snake_case},
};

/// Fewer digits are no secret.
const LEAST_DIGITS: usize = 4;

/// Words of a member's name that make its value a secret.
const SECRET_NAMES: [&str; 34] = [
    "account_key",
    "csrf",
    "encryption_key",
    "jwt",
    "master_key",
    "otp",
    "passcode",
    "pin",
    "session_key",
    "shared_key",
    "signing_key",
    "xsrf",
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

/// Whether a member, a parameter of a query or a header of this name has a secret.
pub(in crate::vendors::declared) fn is_secret_name(name: &str) -> bool {
    let snake = snake_case(name);
    let padded = format!("_{snake}_");
    let has = |secret: &&str| padded.contains(&format!("_{secret}_"));
    SECRET_NAMES.iter().any(has)
        || ["token", "secret", "password"].iter().any(|end| snake.ends_with(end))
        || matches!(&*snake, "sig" | "auth_key" | "sas" | "jsessionid" | "sessionid" | "phpsessid")
}

/// Notes every text under the name of a secret, since it may stand elsewhere too.
pub(super) fn note_secrets(node: &Node, is_secret: bool, cleaner: &mut Cleaner) {
    match node {
        Node::Object(members) => {
            for (name, node) in members {
                note_secrets(node, is_secret || is_secret_name(name), cleaner);
            }
        }
        Node::List(nodes) => nodes.iter().for_each(|node| note_secrets(node, is_secret, cleaner)),
        Node::Text { text, .. } if is_secret => cleaner.note(text),
        _ => {}
    }
}

/// Whether a text looks like a secret, or has one in it, whatever its name is.
pub(in crate::vendors::declared) fn is_secret_text(text: &str) -> bool {
    let of_scheme = ["Bearer ", "Basic "].iter().find_map(|scheme| text.strip_prefix(scheme));
    of_scheme.is_some_and(|credentials| !credentials.contains(' '))
        || Cleaner::new(&[]).text(text).contains(REDACTED) && !text.contains(REDACTED)
}

/// A body in JSON without secrets, and the members that were replaced. Texts that the cleaner
/// keeps stay, as does the place of everything.
pub(super) fn redacted(body: &str, cleaner: &Cleaner) -> (String, Vec<String>) {
    let mut walk = Walk { rest: body, out: String::with_capacity(body.len()), names: Vec::new(), cleaner };
    walk.value("", false);
    walk.out += walk.rest;
    (walk.out, walk.names)
}

/// Copies JSON token by token.
struct Walk<'b, 'c> {
    rest: &'b str,
    out: String,
    names: Vec<String>,
    cleaner: &'c Cleaner,
}

impl<'b> Walk<'b, '_> {
    /// Copies white space, and gives the next character.
    fn next(&mut self) -> Option<char> {
        let rest = self.rest.trim_start();
        self.out += &self.rest[..self.rest.len() - rest.len()];
        self.rest = rest;
        rest.chars().next()
    }

    /// Takes a part of the text without copying it.
    fn take(&mut self, length: usize) -> &'b str {
        let (token, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.rest = rest;
        token
    }

    /// A text with its quotes.
    fn quoted(&mut self) -> &'b str {
        let mut is_escaped = false;
        let end = self.rest.char_indices().skip(1).find(|(_, c)| {
            let is_end = *c == '"' && !is_escaped;
            is_escaped = *c == '\\' && !is_escaped;
            is_end
        });
        self.take(end.map_or(self.rest.len(), |(at, _)| at + 1))
    }

    fn value(&mut self, name: &str, is_secret: bool) {
        match self.next() {
            Some('{') => self.members(is_secret),
            Some('[') => self.elements(name, is_secret),
            Some('"') => self.text(name, is_secret),
            _ => {
                let end = self.rest.find(|c: char| c.is_whitespace() || matches!(c, ',' | ']' | '}'));
                let token = self.take(end.unwrap_or(self.rest.len()));
                let digits = token.bytes().filter(u8::is_ascii_digit).count();
                if is_secret && digits >= LEAST_DIGITS && !self.cleaner.keeps(token) {
                    self.note(name);
                    self.out.push('0');
                } else {
                    self.out += token;
                }
            }
        }
    }

    fn members(&mut self, is_secret: bool) {
        self.copy(1);
        while let Some(c) = self.next() {
            match c {
                '"' => {
                    let written = self.quoted();
                    let name: String = serde_json::from_str(written).unwrap_or_default();
                    let shown = self.cleaner.text(&name);
                    if shown == name {
                        self.out += written;
                    } else {
                        self.out += &serde_json::Value::from(shown.as_str()).to_string();
                        self.note(&shown);
                    }
                    self.next();
                    self.copy(1);
                    self.value(&shown, is_secret || is_secret_name(&name));
                }
                ',' => self.copy(1),
                _ => return self.copy(1),
            }
        }
    }

    fn elements(&mut self, name: &str, is_secret: bool) {
        self.copy(1);
        while let Some(c) = self.next() {
            match c {
                ',' => self.copy(1),
                ']' => return self.copy(1),
                _ => self.value(name, is_secret),
            }
        }
    }

    fn text(&mut self, name: &str, is_secret: bool) {
        let written = self.quoted();
        // What is no Unicode can't be looked at.
        let Ok(text) = serde_json::from_str::<String>(written) else {
            self.note(name);
            self.out = std::mem::take(&mut self.out) + "\"" + REDACTED + "\"";
            return;
        };
        let shown = match &*text {
            "" => String::new(),
            kept if self.cleaner.keeps(kept) => text.clone(),
            _ if is_secret => REDACTED.to_owned(),
            _ => self.cleaner.value(name, &text),
        };
        if shown == text {
            self.out += written;
        } else {
            self.note(name);
            self.out += &serde_json::Value::from(shown).to_string();
        }
    }

    fn copy(&mut self, length: usize) {
        let token = self.take(length);
        self.out += token;
    }

    fn note(&mut self, name: &str) {
        if !self.names.iter().any(|known| known == name) {
            self.names.push(name.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(body: &str) -> (String, Vec<String>) {
        let mut cleaner = Cleaner::new(&["77"]);
        note_secrets(&Node::parse(body).unwrap(), false, &mut cleaner);
        redacted(body, &cleaner)
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
        assert_eq!(names, ["jobToken", "password", "owner", "url", "seen", "note", "h"]);
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
            "copy": "was hush-hush", "password": "hush-hush", "empty": {}, "none": [], "n": -1.5e3 }"#;
        let (text, names) = shown(body);
        assert_eq!(
            text,
            r#"{"by_user": {"user@example.com": 1, "redacted": {"n": 2}}, "pin": 0, "token": 1, "t": ["redacted"],
            "copy": "was redacted", "password": "redacted", "empty": {}, "none": [], "n": -1.5e3 }"#
        );
        assert_eq!(names, ["user@example.com", "redacted", "pin", "t", "copy", "password"]);
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
