//! The filters of this module, beside those of minijinja.

use minijinja::{Error, ErrorKind, State, Value, value::ValueKind};

use super::{pattern::regex, value_of};

/// The texts in a value, in its order: itself, or those of a list or an object.
pub(super) fn add_texts(value: &Value, depth: u8, texts: &mut Vec<Value>) {
    match (value.kind(), depth.checked_sub(1)) {
        (ValueKind::String, _) => texts.push(value.clone()),
        (ValueKind::Seq, Some(depth)) => {
            value.try_iter().into_iter().flatten().for_each(|item| add_texts(&item, depth, texts));
        }
        (ValueKind::Map, Some(depth)) => {
            let members =
                value.try_iter().into_iter().flatten().filter_map(|name| value.get_item(&name).ok());
            members.for_each(|item| add_texts(&item, depth, texts));
        }
        _ => {}
    }
}

/// The words for people in an error: itself where it is a text, else its `message`, which may
/// stand a few wrappers deep.
pub(super) fn words(value: &Value, depth: u8) -> Option<Value> {
    if let Some(text) = value.as_str() {
        return (!text.trim().is_empty()).then(|| value.clone());
    }
    let depth = depth.checked_sub(1)?;
    ["message", "value", "error"].iter().find_map(|name| words(&value.get_attr(name).ok()?, depth))
}

/// The first group of a regular expression, or all that it matches.
pub(super) fn find(state: &mut State, text: &str, pattern: &str) -> Result<Value, Error> {
    state.consume_fuel(1 + text.len() as u64 / 64)?;
    let regex = regex(pattern).map_err(|_| Error::new(ErrorKind::InvalidOperation, "not a pattern"))?;
    let found = regex.captures(text).and_then(|groups| groups.get(1).or(groups.get(0)));
    Ok(found.map_or(Value::UNDEFINED, |found| found.as_str().into()))
}

/// The value that a text in JSON holds.
pub(super) fn parsed(state: &mut State, text: &str) -> Result<Value, Error> {
    state.consume_fuel(1 + text.len() as u64 / 16)?;
    Ok(value_of(text).unwrap_or(Value::UNDEFINED))
}
