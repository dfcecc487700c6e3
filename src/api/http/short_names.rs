//! The short names of the values of enums: `BASIC` for `JOB_STATUS_VIEW_BASIC`.

use prost_reflect::{EnumDescriptor, EnumValueDescriptor, Kind, MessageDescriptor};
use serde_json::Value;

use crate::proto::json::{self, pool};

/// The value of an enum with this name, short or not, in upper or lower case.
pub(super) fn value(list: &EnumDescriptor, text: &str) -> Option<EnumValueDescriptor> {
    let name = text.to_ascii_uppercase();
    list.get_value_by_name(&name).or_else(|| list.get_value_by_name(&format!("{}{name}", prefix(list))))
}

/// What the names of all values begin with, by the style guide of protobuf: the name of the enum.
fn prefix(list: &EnumDescriptor) -> String {
    let mut prefix = String::new();
    for letter in list.name().chars() {
        if letter.is_ascii_uppercase() && !prefix.is_empty() {
            prefix.push('_');
        }
        prefix.push(letter.to_ascii_uppercase());
    }
    prefix.push('_');
    prefix
}

/// The encoded message that a JSON document holds, in which values of enums may have short names.
///
/// # Errors
/// Why it can't be read: the place, and what is wrong there.
pub(super) fn encoded_from_json(name: &str, text: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    let error = match json::encoded_from_json(name, text) {
        Ok(message) => return Ok(message),
        Err(error) => error,
    };
    // Few do, and the error of the document as it was sent has the place.
    let Ok(mut document) = serde_json::from_slice(text) else { return Err(error) };
    match pool().get_message_by_name(name) {
        Some(message) if lengthen(&mut document, &message) => {
            json::encoded_from_json(name, document.to_string().as_bytes()).map_err(|_| error)
        }
        _ => Err(error),
    }
}

/// Writes the whole names. Returns whether any was short.
fn lengthen(document: &mut Value, message: &MessageDescriptor) -> bool {
    let Value::Object(fields) = document else { return false };
    let mut changes = false;
    for (name, content) in fields {
        let field = message.get_field_by_json_name(name).or_else(|| message.get_field_by_name(name));
        let Some(kind) = field.map(|field| field.kind()) else { continue };
        let contents = match content {
            Value::Array(contents) => &mut contents[..],
            content => std::slice::from_mut(content),
        };
        for content in contents {
            changes |= match (&kind, &mut *content) {
                (Kind::Enum(list), Value::String(text)) => match value(list, text) {
                    Some(value) if value.name() != *text => {
                        value.name().clone_into(text);
                        true
                    }
                    _ => false,
                },
                (Kind::Message(message), content) => lengthen(content, message),
                _ => false,
            };
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::proto::v1;

    const BATCH: &str = "jobwatch.v1.BatchGetStatusesRequest";

    #[test]
    fn view_in_a_document_is_read_in_every_spelling_of_the_query() {
        for spelling in ["BASIC", "basic", "JOB_STATUS_VIEW_BASIC", "job_status_view_basic"] {
            let text = format!(r#"{{"jobs": [{{"backend": "b", "jobId": "1"}}], "view": "{spelling}"}}"#);
            let request = encoded_from_json(BATCH, text.as_bytes()).unwrap();
            let request = v1::BatchGetStatusesRequest::decode(&*request).unwrap();
            assert_eq!((request.view(), request.jobs.len()), (v1::JobStatusView::Basic, 1), "{spelling}");
        }
        for list in pool().all_enums().filter(|list| list.parent_file().package_name() == "jobwatch.v1") {
            for known in list.values() {
                let short =
                    known.name().strip_prefix(&prefix(&list)).unwrap_or_else(|| panic!("{}", known.name()));
                assert_eq!(value(&list, short).as_ref(), Some(&known));
            }
        }
    }

    #[test]
    fn unknown_name_is_refused_where_it_stands() {
        let error = |text: &str| encoded_from_json(BATCH, text.as_bytes()).unwrap_err().to_string();
        let unknown = error(r#"{"view": "ALL"}"#);
        assert!(unknown.contains("ALL") && unknown.contains("line 1 column"), "{unknown}");
        let other = error(r#"{"view": "BASIC", "whait": "1s"}"#);
        assert!(other.contains("line 1 column"), "{other}");
    }
}
