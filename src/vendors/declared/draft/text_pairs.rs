//! Secrets within a text that are known by what stands before them: a name, an option of a
//! command, a sentence.

use std::{ops::Range, sync::LazyLock};

use regex::{Captures, Regex};

use super::{
    secret_names::{is_name_of_secret, is_secret_name, is_telling_name},
    secrets::{REDACTED, is_mixed, regex},
};

/// A name and what joins it with its value.
static PAIR: LazyLock<Regex> =
    LazyLock::new(|| regex(r#"([A-Za-z][A-Za-z0-9_.-]{1,60})\\*["'`]?(\s*(?:=>|[:=])\s*)"#));
/// A pair of members: the name of a secret under one of them, and its value under the other.
static MEMBERS: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r#"(?i)\b(?:name|key|k)\\*["'`]?\s*[:=]\s*\\*["'`]?([A-Za-z][A-Za-z0-9_.-]{1,60})\\*["'`]?(?:\\[nt]|[\s,;])*\\*["'`]?(?:value|val|v)\\*["'`]?(\s*[:=]\s*)"#,
    )
});
/// The first element of a list of two, or of a tuple.
static FIRST: LazyLock<Regex> =
    LazyLock::new(|| regex(r#"[\[(]\s*b?\\*["'`]([A-Za-z][A-Za-z0-9_. -]{1,60})\\*["'`](\s*,\s*)b?"#));
static ELEMENT: LazyLock<Regex> =
    LazyLock::new(|| regex(r"<([A-Za-z][A-Za-z0-9_:.-]{1,60})(?:\s[^<>]*)?(>)"));
/// An option of a command with a long name, also behind one dash.
static OPTION: LazyLock<Regex> =
    LazyLock::new(|| regex(r"(?:^|[\s,\[({\x22'`])--?([A-Za-z][A-Za-z0-9_-]{1,40})(\\*[\x22'`]?\s*,?\s+)"));
/// Options of one letter that have a secret at these commands. That of `mysql` has it without a
/// space: `mysql -p x` names a database.
static COMMAND: LazyLock<Regex> = LazyLock::new(|| {
    let commands = [
        (r"sshpass", r"-p(?:\s+|=)?"),
        (r"(?:mysql|mariadb)[a-z-]*(?:\.exe)?|7z[ar]?|rar|unrar", r"-p"),
        (
            r"mongo[a-z]*|(?:docker|podman|az|oc|crane|skopeo|helm\s+registry)\s+login|influx|mosquitto_(?:pub|sub)",
            r"-[pP](?:\s+|=)",
        ),
        (r"redis-cli", r"-a(?:\s+|=)"),
        (r"sqlcmd|bcp|isql|unzip|zip|mosquitto_(?:pub|sub)", r"-P(?:\s+|=)?"),
        (r"ldap[a-z]+", r"-w(?:\s+|=)?"),
    ];
    let each = commands.map(|(names, option)| format!(r"(?:{names})\b(?:[^\n|;&]*?)\s{option}"));
    regex(&format!(r"\b(?:{})", each.join("|")))
});
/// Words of SQL and of netrc before a secret.
static WORDS: LazyLock<Regex> =
    LazyLock::new(|| regex(r"(?i)\b(identified\s+by|password|login\s+\S+\s+password)(\s+)"));
/// A variable that a command sets.
static SET: LazyLock<Regex> =
    LazyLock::new(|| regex(r"\b(?:set|setenv|setx|SET)\s+([A-Za-z][A-Za-z0-9_.]{1,60})(\s+)"));
static SENTENCE: LazyLock<Regex> = LazyLock::new(|| {
    regex(r"(?i)\b(password|passphrase|passcode|secret|token|api key)\s+(is|was|of)(?:\s+|\s*:\s*)")
});

/// What ends a value that has no quotes.
fn ends_pair(c: char) -> bool {
    c.is_whitespace() || "\"'`\\,;&<>(){}[]".contains(c)
}

fn ends_argument(c: char) -> bool {
    c.is_whitespace() || "\"'`".contains(c)
}

/// A text with `redacted` in place of each such value that `keeps` does not keep.
pub(super) fn redacted(text: &str, keeps: &dyn Fn(&str) -> bool) -> String {
    let mut text = text.to_owned();
    if !text.contains(|c: char| c.is_whitespace() || ":=>,".contains(c)) {
        return text;
    }
    replace(&mut text, &MEMBERS, ends_pair, keeps, &|found, _| is_name_of_secret(&found[1]));
    replace(&mut text, &FIRST, ends_pair, keeps, &|found, value| {
        value.is_quoted && value.rest.trim_start().starts_with([']', ')']) && is_name_of_secret(&found[1])
    });
    text = arguments(&text, keeps);
    replace(&mut text, &PAIR, ends_pair, keeps, &|found, value| {
        let is_word = ["null", "true", "false", "none", "undefined"].contains(&&*value.text.to_lowercase());
        let is_said = found[2].ends_with(' ') && !value.is_quoted && is_ordinary(value.text);
        let is_secret = is_secret_name(&found[1]) || is_telling_name(&found[1]) && is_mixed(value.text, 16);
        is_secret && !is_word && !is_said
    });
    replace(&mut text, &ELEMENT, |c| c == '<', keeps, &|found, value| {
        is_secret_name(&found[1]) && !value.text.trim().is_empty()
    });
    replace(&mut text, &SENTENCE, ends_argument, keeps, &|found, value| {
        let word = value.text.trim_end_matches(['.', ',', ';', ':', '!', '?', ')']);
        let has = |is: fn(char) -> bool| word.contains(is);
        let is_participle = word.ends_with("ed") || word.ends_with("ing");
        let is_ordinary = is_ordinary(word) || is_participle && !has(|c| !c.is_ascii_alphabetic());
        let is_of = found[2].eq_ignore_ascii_case("of");
        value.is_quoted
            || !is_ordinary && (!is_of || has(|c| c.is_ascii_digit()) && has(|c| c.is_ascii_alphabetic()))
    });
    text
}

/// A text with `redacted` in place of the secrets that commands have as arguments.
fn arguments(text: &str, keeps: &dyn Fn(&str) -> bool) -> String {
    let mut text = text.to_owned();
    let is_value = |value: &Value<'_>| value.is_quoted || !value.text.starts_with('-');
    replace(&mut text, &OPTION, ends_argument, keeps, &|found, value| {
        is_secret_name(&found[1]) && is_value(value) && (value.is_quoted || !is_ordinary(value.text))
    });
    replace(&mut text, &COMMAND, ends_argument, keeps, &|_, value| is_value(value));
    replace(&mut text, &WORDS, ends_argument, keeps, &|found, value| {
        value.is_quoted || found[1].to_lowercase().starts_with("login")
    });
    replace(&mut text, &SET, ends_argument, keeps, &|found, value| {
        is_secret_name(&found[1]) && !is_ordinary(value.text)
    });
    text
}

/// An argument of a command in a list of texts, where it is a secret by those before it: its
/// text without the secret.
pub(super) fn argument(before: &[&str], text: &str) -> Option<String> {
    let is_command = before.iter().chain([&text]).any(|text| text.starts_with('-'));
    if before.is_empty() || !is_command {
        return None;
    }
    let before = arguments(&before.join(" "), &|_| false) + " ";
    // An option may have its secret in the same element, or it is the next element.
    let is_option = text.starts_with('-');
    let whole = before.clone() + if is_option { text } else { "x" };
    let shown = arguments(&whole, &|_| false);
    let shown = shown.strip_prefix(&before).filter(|_| shown != whole)?;
    Some(shown.to_owned())
}

/// A value in a text.
struct Value<'t> {
    text: &'t str,
    is_quoted: bool,
    /// What follows it, with its quote.
    rest: &'t str,
}

/// Replaces the values behind what matches, where `is` says so.
fn replace(
    text: &mut String,
    pattern: &Regex,
    ends: fn(char) -> bool,
    keeps: &dyn Fn(&str) -> bool,
    is: &dyn Fn(&Captures<'_>, &Value<'_>) -> bool,
) {
    let mut out = String::new();
    let (mut copied, mut from) = (0, 0);
    while let Some(found) = pattern.captures_at(text, from) {
        let Some(whole) = found.get(0) else { break };
        from = whole.end();
        let (range, is_quoted) = value(text, whole.start(), whole.end(), ends);
        let after = text[range.end..].trim_start_matches('\\');
        let rest = after.strip_prefix(['"', '\'', '`']).filter(|_| is_quoted).unwrap_or(after);
        let value = Value { text: &text[range.clone()], is_quoted, rest };
        let is_kept = value.text.is_empty() || value.text.starts_with(REDACTED) || keeps(value.text);
        if is_kept || !is(&found, &value) {
            continue;
        }
        out += &text[copied..range.start];
        out += REDACTED;
        copied = range.end;
        from = range.end;
    }
    if copied > 0 {
        out += &text[copied..];
        *text = out;
    }
}

/// Where the value at `at` stands, and whether in quotes, which are escaped in a text of JSON.
/// What names it begins at `name`.
fn value(text: &str, name: usize, at: usize, ends: fn(char) -> bool) -> (Range<usize>, bool) {
    let rest = &text[at..];
    let slashes = rest.len() - rest.trim_start_matches('\\').len();
    let Some(quote) = rest[slashes..].chars().next().filter(|c| matches!(c, '"' | '\'' | '`')) else {
        return (at..at + unquoted(text, name, at, ends), false);
    };
    let start = at + slashes + 1;
    let mut before = 0;
    for (index, c) in text[start..].char_indices() {
        match c {
            '\\' => before += 1,
            '\n' if slashes > 0 => return (start..start + index, true),
            c if c == quote && before <= slashes => return (start..start + index - before, true),
            _ => before = 0,
        }
    }
    let line = text[start..].find('\n').unwrap_or(text.len() - start);
    (start..start + line, true)
}

/// The length of a value without quotes.
fn unquoted(text: &str, name: usize, at: usize, ends: fn(char) -> bool) -> usize {
    const SCHEMES: [&str; 6] = ["bearer", "basic", "digest", "token", "apikey", "negotiate"];
    let rest = &text[at..];
    let length = |rest: &str, ends: fn(char) -> bool| rest.find(ends).unwrap_or(rest.len());
    // Values of a connection string end at the next semicolon, and may have spaces.
    let is_of_several = text[..name].trim_end().ends_with(';') && text[name..at].contains('=');
    if is_of_several {
        return length(rest, |c| ";\"'\\\n".contains(c));
    }
    let first = length(rest, ends);
    let is_scheme = SCHEMES.contains(&&*rest[..first].to_lowercase());
    let next = rest[first..].trim_start_matches(' ');
    if !is_scheme || next.len() == rest.len() - first {
        return first;
    }
    rest.len() - next.len() + length(next, ends)
}

/// Whether a word is what people write about a secret, such as in `password: required`.
pub(super) fn is_ordinary(word: &str) -> bool {
    const WORDS: &str = "a an and any are as at auth authentication authorization be been being but by can \
        cannot changed credentials denied disabled does empty error expired for format from has header if in \
        incorrect invalid is it login longer may missing must no not null of on only or realm refused rejected \
        required revoked scheme set should stale that the this to token tokens too type unknown unset used valid \
        value was when will with wrong your";
    let word = word.trim_end_matches(['.', ',', ';', ':', '!', '?', ')']).to_lowercase();
    !word.is_empty() && WORDS.split(' ').any(|known| known == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        redacted(text, &|_| false)
    }

    #[test]
    fn value_behind_the_name_of_a_secret_is_replaced_whole() {
        for (text, expected) in [
            ("PGPASSWORD=hush psql -h db", "PGPASSWORD=redacted psql -h db"),
            ("PGPASSWORD='a hush' psql", "PGPASSWORD='redacted' psql"),
            ("SSHPASS=hush sshpass -e ssh x", "SSHPASS=redacted sshpass -e ssh x"),
            (r#"api_key: "a hush", n: 1"#, r#"api_key: "redacted", n: 1"#),
            (r#"api_key: "a \"hush\" b", n: 1"#, r#"api_key: "redacted", n: 1"#),
            (r#"{\"apiKey\": \"a hush\", \"n\": 1}"#, r#"{\"apiKey\": \"redacted\", \"n\": 1}"#),
            ("{'password': 'a hush', 'n': 1}", "{'password': 'redacted', 'n': 1}"),
            ("password => `a hush`, n", "password => `redacted`, n"),
            ("password = \"hush", "password = \"redacted"),
            ("Server=a;Password=my hush;Timeout=3", "Server=a;Password=redacted;Timeout=3"),
            ("authorization=Bearer hush x", "authorization=redacted x"),
            ("pw: hush", "pw: redacted"),
            ("<password>my hush</password><n>1</n>", "<password>redacted</password><n>1</n>"),
            (
                r#"sent {"name": "Authorization", "value": "a hush"}"#,
                r#"sent {"name": "Authorization", "value": "redacted"}"#,
            ),
            ("- name: DB_PASSWORD\n  value: hush\n", "- name: DB_PASSWORD\n  value: redacted\n"),
            ("[('Authorization', 'a hush'), ('n', '1')]", "[('Authorization', 'redacted'), ('n', '1')]"),
            ("(b'x-api-key', b'hush')", "(b'x-api-key', b'redacted')"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn secret_of_a_command_is_replaced_whole() {
        for (text, expected) in [
            ("sshpass -p hush ssh a@b", "sshpass -p redacted ssh a@b"),
            ("sshpass -phush ssh", "sshpass -predacted ssh"),
            ("sshpass -v -p 'a hush' ssh", "sshpass -v -p 'redacted' ssh"),
            ("mysql -u root -phush db", "mysql -u root -predacted db"),
            ("/usr/bin/mysqldump -h db -p'a hush' x", "/usr/bin/mysqldump -h db -p'redacted' x"),
            ("mysql -u root -p db", "mysql -u root -p db"),
            ("docker login -u me -p hush reg", "docker login -u me -p redacted reg"),
            ("docker run -p 80:80 x", "docker run -p 80:80 x"),
            ("redis-cli -h db -a hush ping", "redis-cli -h db -a redacted ping"),
            ("run --password hush --retries 3", "run --password redacted --retries 3"),
            ("run --password 'a hush' x", "run --password 'redacted' x"),
            ("run --api-key \"a hush\" x", "run --api-key \"redacted\" x"),
            ("run --password --retries 3", "run --password --retries 3"),
            ("plink -pw hush x", "plink -pw redacted x"),
            ("keytool -storepass hush", "keytool -storepass redacted"),
            ("args: ['--token', 'hush']", "args: ['--token', 'redacted']"),
            ("CREATE USER a IDENTIFIED BY 'a hush';", "CREATE USER a IDENTIFIED BY 'redacted';"),
            ("machine x login me password hush", "machine x login me password redacted"),
            (
                "aws configure set aws_secret_access_key hush",
                "aws configure set aws_secret_access_key redacted",
            ),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
        for (before, text, expected) in [
            (&["sshpass", "-p"][..], "my hush", Some("redacted")),
            (&["mysql", "-u", "root"], "-phush", Some("-predacted")),
            (&["run", "--token", "hush", "--password"], "hush", Some("redacted")),
            (&["--api-key"], "hush", Some("redacted")),
            (&["run", "--name"], "nightly", None),
            (&["run", "-p"], "80", None),
            (&[], "-phush", None),
        ] {
            assert_eq!(argument(before, text).as_deref(), expected, "{before:?} {text}");
        }
    }

    #[test]
    fn sentence_about_a_secret_stays_as_it_is() {
        for text in [
            "a token was refused",
            "the token was not accepted",
            "the token is expired.",
            "the secret is missing",
            "password: required",
            "password: must be longer",
            "a token of the user",
            "a password of 12 characters",
            "use --password to set one",
            "the option --token is missing",
            "private endpoint",
            "private: endpoint",
            "set token to null",
        ] {
            assert_eq!(shown(text), text);
        }
        assert_eq!(shown("the password is hush"), "the password is redacted");
        assert_eq!(shown("the token was abc123, sorry"), "the token was redacted sorry");
    }
}
