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

/// The first of the conditions that have to hold for an expression to: what stands before its
/// first `and`, where nothing in it binds less.
pub(super) fn first_condition(text: &str) -> Option<&str> {
    let code = code(text);
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let (mut depth, mut first, mut word) = (0_usize, None, 0);
    for (at, c) in code.char_indices().chain([(code.len(), ' ')]) {
        if is_part(c) {
            continue;
        }
        match &code[word..at] {
            "or" | "if" | "else" if depth == 0 => return None,
            "and" if depth == 0 && first.is_none() => first = Some(word),
            _ => {}
        }
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        word = at + c.len_utf8();
    }
    first.and_then(|end| text.get(..end))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_condition_is_what_stands_before_and() {
        for (text, first) in [
            ("job.a == 'x and y' and job.b | lower", Some("job.a == 'x and y' ")),
            ("(job.a or job.b) and job.c | lower and job.d", Some("(job.a or job.b) ")),
            ("not job.a and job.b | lower", Some("not job.a ")),
            ("job.band and job.b", Some("job.band ")),
            ("job.a and job.b or job.c", None),
            ("job.a and job.b if job.c", None),
            ("job.a if job.b else job.c and job.d", None),
            ("(job.a and job.b) | lower", None),
            ("job.a", None),
        ] {
            assert_eq!(first_condition(text), first, "{text}");
        }
    }
}
