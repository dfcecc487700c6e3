//! A definition whose tokens and files come from other origins, changed so that a simulated
//! vendor has them at its own.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// Where files of other origins are served.
pub(super) const FILES: &str = "/_files/";

/// A changed line: its number, and how it is now.
pub type ChangedLine = (usize, String);

/// The text of a definition without other origins, and the lines that differ. `None` where
/// nothing has to be changed, or it is no TOML.
pub fn relocated(text: &str) -> Option<(String, Vec<ChangedLine>)> {
    let table = DeTable::parse(text).ok()?;
    let mut edits: Vec<(Range<usize>, String)> = Vec::new();
    let top = table.get_ref();
    for (name, value) in top {
        match (&**name.get_ref(), value.get_ref()) {
            ("credentials", DeValue::Table(ways)) => {
                for (_, way) in ways {
                    if let DeValue::Table(keys) = way.get_ref() {
                        token_path(keys, &mut edits);
                    }
                }
            }
            ("files", DeValue::Array(rules)) => {
                for rule in rules {
                    if let DeValue::Table(keys) = rule.get_ref() {
                        own_url(keys, &mut edits);
                    }
                }
            }
            _ => {}
        }
    }
    edits.sort_by_key(|(span, _)| span.start);
    let (mut changed, mut at, mut numbers) = (String::new(), 0, Vec::new());
    for (span, new) in edits {
        changed += text.get(at..span.start)?;
        numbers.push(changed.matches('\n').count());
        changed += &new;
        at = span.end;
    }
    changed += text.get(at..)?;
    numbers.dedup();
    let line = |number: usize| Some((number + 1, changed.lines().nth(number)?.trim_end().to_owned()));
    let lines: Vec<ChangedLine> = numbers.into_iter().filter_map(line).collect();
    (!lines.is_empty()).then_some((changed, lines))
}

/// A token URL at another origin becomes a path.
fn token_path(keys: &DeTable<'_>, edits: &mut Vec<(Range<usize>, String)>) {
    for (name, value) in keys {
        if name.get_ref() != "token_url" {
            continue;
        }
        if let DeValue::String(url) = value.get_ref()
            && let Some((_, rest)) = url.split_once("://")
        {
            let path = rest.find('/').map_or("/", |at| &rest[at..]);
            edits.push((name.span(), "token_path".to_owned()));
            edits.push((value.span(), toml::Value::from(path).to_string()));
        }
    }
}

/// A URL with another origin in it becomes a path.
fn own_url(keys: &DeTable<'_>, edits: &mut Vec<(Range<usize>, String)>) {
    for (name, value) in keys {
        if name.get_ref() == "url"
            && let DeValue::String(url) = value.get_ref()
            && url.contains("https://")
        {
            let own = url.replace("https://", FILES);
            edits.push((value.span(), toml::Value::from(own).to_string()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendors::declared::{Definition, SHIPPED};

    #[test]
    fn definition_without_other_origins_is_not_changed() {
        for shipped in SHIPPED {
            let has_other = shipped.definition.contains("\ntoken_url");
            let found = relocated(shipped.definition);
            assert_eq!(found.is_some(), has_other, "{}", shipped.name);
            if let Some((text, lines)) = found {
                let definition = Definition::parse(&text).unwrap_or_else(|error| panic!("{error}"));
                assert!(definition.token_origins().is_empty());
                assert!(lines.iter().all(|(_, line)| line.starts_with("token_path = \"/")), "{lines:?}");
                assert_eq!(text.lines().count(), shipped.definition.lines().count());
            }
        }
    }

    #[test]
    fn tokens_and_files_are_at_the_own_origin() {
        let text = r#"
[credentials.oauth2]   # tokens
token_url   = "https://login.example:8443/{{ params.t }}/token?x=1"   # elsewhere
[credentials]
x = { token_url = 'https://b.example' }
[[files]]
url = "https://files.example/{{ item }}"
[[files]]
url = "{{ 'https://files.example/' ~ item }}"
[[files]]
url = "{{ item }}"
"#;
        let text = text.replace("[credentials]\nx = ", "[credentials.x]\ny = 1\nz = ");
        let text = text.replace("z = { token_url = 'https://b.example' }", "token_url = 'https://b.example'");
        let (changed, lines) = relocated(&text).unwrap();
        assert_eq!(
            lines,
            [
                (3, "token_path   = \"/{{ params.t }}/token?x=1\"   # elsewhere".to_owned()),
                (6, "token_path = \"/\"".to_owned()),
                (8, "url = \"/_files/files.example/{{ item }}\"".to_owned()),
                (10, "url = \"{{ '/_files/files.example/' ~ item }}\"".to_owned()),
            ]
        );
        assert!(changed.contains("# tokens") && !changed.contains("https://"), "{changed}");
        assert_eq!(relocated("no TOML"), None);
    }
}
