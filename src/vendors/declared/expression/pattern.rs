//! Regular expressions, without look-around, which take linear time.

use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex, PoisonError},
};

use regex::{Error, Regex, RegexBuilder};

/// Most bytes of a compiled regular expression, and of those that are kept.
const REGEX_BYTES: usize = 64 << 10;
const REGEXES: usize = 256;

/// Compiles a regular expression.
///
/// # Errors
/// Why it is none, such as `unclosed group`.
pub(in crate::vendors::declared) fn regex(pattern: &str) -> Result<Regex, String> {
    static KNOWN: LazyLock<Mutex<HashMap<String, Regex>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(regex) = known.get(pattern) {
        return Ok(regex.clone());
    }
    let regex = RegexBuilder::new(pattern).size_limit(REGEX_BYTES).build().map_err(|error| reason(&error))?;
    if known.len() < REGEXES {
        known.insert(pattern.to_owned(), regex.clone());
    }
    Ok(regex)
}

/// The last line of an error has its reason; the others show the pattern.
fn reason(error: &Error) -> String {
    match error {
        Error::CompiledTooBig(_) => "it is too large".to_owned(),
        other => {
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default();
            last.strip_prefix("error: ").unwrap_or(last).to_owned()
        }
    }
}
