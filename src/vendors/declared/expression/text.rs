//! What the text of an expression names: its filters, tests, calls and patterns. What stands in
//! quotes is left out of account.

/// A text without what stands in quotes, which is replaced by spaces.
pub(super) fn code(text: &str) -> String {
    let (mut quote, mut escaped) = (None, false);
    text.chars()
        .map(|c| {
            match quote {
                Some(open) => {
                    if !escaped && c == open {
                        quote = None;
                    }
                    escaped = !escaped && c == '\\';
                    return if c.is_ascii() { ' ' } else { c };
                }
                None if matches!(c, '\'' | '"') => {
                    quote = Some(c);
                    return ' ';
                }
                None => {}
            }
            c
        })
        .collect()
}

/// The names of all filters.
pub(super) fn filters(text: &str) -> Vec<String> {
    let code = code(text);
    let after_bar = code.split('|').skip(1).map(str::trim_start);
    let name = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    after_bar.map(name).collect()
}

/// The names of all tests: what follows `is` or `is not`.
pub(super) fn tests(text: &str) -> Vec<String> {
    let code = code(text);
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let mut words = code.split(|c: char| !is_part(c)).filter(|word| !word.is_empty()).peekable();
    let mut tests = Vec::new();
    while let Some(word) = words.next() {
        if word == "is" {
            words.next_if_eq(&"not");
            tests.extend(words.peek().map(|test| (*test).to_owned()));
        }
    }
    tests
}

/// Whether a part is cut out of a value, as in `job.a[1:]`.
pub(super) fn has_slice(text: &str) -> bool {
    let mut open = Vec::new();
    code(text).chars().any(|c| {
        match c {
            '[' | '{' | '(' => open.push(c),
            ']' | '}' | ')' => drop(open.pop()),
            ':' => return open.last() == Some(&'['),
            _ => {}
        }
        false
    })
}

/// The name of the first method that is called.
pub(super) fn method(text: &str) -> Option<String> {
    let code = code(text);
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices('(').find_map(|(at, _)| {
        let before = code[..at].trim_end();
        let name = before.rfind(|c| !is_part(c)).map(|start| &before[start..])?;
        name.strip_prefix('.').filter(|name| !name.is_empty()).map(str::to_owned)
    })
}

/// The texts that stand in `find('..')`.
pub(super) fn patterns(text: &str) -> Vec<String> {
    let code = code(text);
    let calls = code.match_indices("find(").map(|(at, call)| at + call.len());
    let literal = |at: usize| {
        let rest = text.get(at..)?.trim_start();
        let quote = rest.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        Some(rest[1..].split_once(quote)?.0.replace("\\\\", "\\"))
    };
    calls.filter_map(literal).collect()
}
