//! A regular expression in words, for callers who wrote an id that it does not match.

use std::{iter::Peekable, str::Chars};

/// What a text has to be; `None` for a pattern that takes more than a sentence.
pub(super) fn in_words(pattern: &str) -> Option<String> {
    let alternatives: Vec<&str> = pattern.split('|').collect();
    if let [_, _, ..] = alternatives[..] {
        let is_word = |text: &&str| !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || c == '_');
        return alternatives.iter().all(is_word).then(|| list(&alternatives, "or"));
    }
    let (mut chars, mut parts, mut literal) = (pattern.chars().peekable(), Vec::new(), String::new());
    while let Some(c) = chars.next() {
        let written = match c {
            '[' => {
                if !literal.is_empty() {
                    parts.push(format!("{literal:?}"));
                    literal.clear();
                }
                let class = class(&mut chars)?;
                parts.push(repeated(&class, &mut chars)?);
                continue;
            }
            '\\' => chars.next().filter(char::is_ascii_punctuation)?,
            c if c.is_alphanumeric() || "_-:/, ".contains(c) => c,
            _ => return None,
        };
        if matches!(chars.peek(), Some('+' | '*' | '?' | '{')) {
            return None;
        }
        literal.push(written);
    }
    if !literal.is_empty() {
        parts.push(format!("{literal:?}"));
    }
    (!parts.is_empty()).then(|| parts.join(", then "))
}

/// The characters of a class, behind its `[`.
fn class(chars: &mut Peekable<Chars<'_>>) -> Option<String> {
    let is_negated = chars.next_if_eq(&'^').is_some();
    let mut members: Vec<char> = Vec::new();
    loop {
        match chars.next()? {
            ']' => break,
            '\\' => members.push(chars.next().filter(char::is_ascii_punctuation)?),
            '[' | '&' => return None,
            c => members.push(c),
        }
    }
    let mut text: String = members.iter().collect();
    let mut take = |range: &str| match text.find(range) {
        Some(at) => {
            text.replace_range(at..at + range.len(), "");
            true
        }
        None => false,
    };
    let (upper, lower, digits) = (take("A-Z"), take("a-z"), take("0-9"));
    let is_range = text.char_indices().any(|(at, c)| c == '-' && at > 0 && at + 1 < text.len());
    if is_range {
        return None;
    }
    let mut names: Vec<String> = Vec::new();
    names.extend(match (upper, lower) {
        (true, true) => Some("letters".to_owned()),
        (false, true) => Some("lower-case letters".to_owned()),
        (true, false) => Some("upper-case letters".to_owned()),
        (false, false) => None,
    });
    names.extend(digits.then(|| "digits".to_owned()));
    names.extend(text.chars().map(String::from));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    match (names.is_empty(), is_negated) {
        (true, _) => None,
        (false, true) => Some(format!("characters other than {}", list(&names, "and"))),
        (false, false) => Some(list(&names, "and")),
    }
}

/// A class with how often it stands there.
fn repeated(class: &str, chars: &mut Peekable<Chars<'_>>) -> Option<String> {
    if chars.next_if_eq(&'+').is_some() {
        return Some(class.to_owned());
    }
    if chars.next_if_eq(&'*').is_some() {
        return Some(format!("none or more of {class}"));
    }
    if chars.next_if_eq(&'?').is_some() {
        return Some(format!("none or one of {class}"));
    }
    if chars.next_if_eq(&'{').is_none() {
        return Some(format!("one of {class}"));
    }
    let mut count = String::new();
    loop {
        match chars.next()? {
            '}' => break,
            c => count.push(c),
        }
    }
    Some(match count.split_once(',') {
        None => format!("{count} of {class}"),
        Some((least, "")) => format!("{least} or more of {class}"),
        Some((least, most)) => format!("{least} to {most} of {class}"),
    })
}

fn list(names: &[&str], and: &str) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} {and} {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_is_said_in_words() {
        for (pattern, words) in [
            ("ingest|query", "ingest or query"),
            ("A|B_C|D", "A, B_C or D"),
            ("[A-Za-z0-9_-]+", "letters, digits, _ and -"),
            ("[a-z0-9.:-]{1,100}", "1 to 100 of lower-case letters, digits, ., : and -"),
            ("[A-Za-z0-9]{18}", "18 of letters and digits"),
            ("[^/]+", "characters other than /"),
            ("run-[A-Za-z0-9]+", "\"run-\", then letters and digits"),
            ("gid://shopify/BulkOperation/[0-9]+", "\"gid://shopify/BulkOperation/\", then digits"),
            ("[0-9]{2,3}\\.0", "2 to 3 of digits, then \".0\""),
            ("v[0-9]+[a-z]*", "\"v\", then digits, then none or more of lower-case letters"),
            ("[A-Z]{2,}[0-9]?", "2 or more of upper-case letters, then none or one of digits"),
        ] {
            assert_eq!(in_words(pattern).as_deref(), Some(words), "{pattern}");
        }
    }

    #[test]
    fn pattern_that_takes_more_than_a_sentence_has_no_words() {
        for pattern in [
            "a+",
            "(a|b)",
            "a.b",
            "[a-f]",
            "\\d+",
            "[0-9]{4}(-[0-9]+)?",
            "[",
            "[a",
            "a{2}",
            "a|",
            "",
            "[]",
            "^a$",
        ] {
            assert_eq!(in_words(pattern), None, "{pattern}");
        }
    }
}
