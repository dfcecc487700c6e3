//! Canonical proto3 JSON.

use std::sync::LazyLock;

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, Value};

use super::FILE_DESCRIPTOR_SET;

/// The contract, and what errors hold.
static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the build wrote a valid descriptor set")
});

/// The descriptors of the contract, of all that it imports, and of the details of errors.
pub fn pool() -> &'static DescriptorPool {
    &POOL
}

/// A message as one line without a line break. `name`: its full name.
pub fn to_json(name: &str, message: &impl Message) -> String {
    let mut dynamic = DynamicMessage::new(descriptor(name));
    dynamic.transcode_from(message).expect("the contract's types and its descriptors come from one build");
    text(dynamic)
}

/// The same for a message that is encoded already; `None` if it is not such a message.
pub fn encoded_to_json(name: &str, encoded: &[u8]) -> Option<String> {
    DynamicMessage::decode(descriptor(name), encoded).ok().map(text)
}

/// The encoded message that a JSON document holds.
///
/// # Errors
/// Why it can't be read: the place, and what is wrong there.
pub fn encoded_from_json(name: &str, json: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let message = DynamicMessage::deserialize(descriptor(name), &mut reader)?;
    reader.end()?;
    Ok(message.encode_to_vec())
}

fn descriptor(name: &str) -> MessageDescriptor {
    POOL.get_message_by_name(name).expect("only messages of the contract are printed")
}

fn text(mut message: DynamicMessage) -> String {
    let text = serde_json::to_string(&message).or_else(|_| {
        keep_printable(&mut message);
        serde_json::to_string(&message)
    });
    text.unwrap_or_else(|_| "{}".to_owned())
}

/// Removes parts that can't be printed: times out of range, details of an unknown type.
fn keep_printable(message: &mut DynamicMessage) {
    let mut unprintable = Vec::new();
    for (field, value) in message.fields_mut() {
        match value {
            Value::Message(inner) if serde_json::to_string(&*inner).is_err() => {
                keep_printable(inner);
                if serde_json::to_string(&*inner).is_err() {
                    unprintable.push(field);
                }
            }
            Value::List(items) => items.retain_mut(|item| match item {
                Value::Message(inner) => {
                    if serde_json::to_string(&*inner).is_err() {
                        keep_printable(inner);
                    }
                    serde_json::to_string(&*inner).is_ok()
                }
                _ => true,
            }),
            _ => {}
        }
    }
    for field in unprintable {
        message.clear_field(&field);
    }
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;

    use super::*;
    use crate::proto::v1;

    #[test]
    fn message_is_read_from_its_json_and_unknown_fields_are_refused() {
        let name = "jobwatch.v1.BatchGetStatusesRequest";
        let json =
            br#"{"jobs": [{"backend": "b", "jobId": "1"}, {"backend": "b", "job_id": "2"}], "wait": "1.5s"}"#;
        let request = v1::BatchGetStatusesRequest::decode(&*encoded_from_json(name, json).unwrap()).unwrap();
        let ids: Vec<_> = request.jobs.iter().map(|job| &*job.job_id).collect();
        assert_eq!(ids, ["1", "2"]);
        assert_eq!(request.wait, Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }));
        for (json, problem) in [
            (&br#"{"job": []}"#[..], "unrecognized field name 'job'"),
            (br#"{"jobs": [{"backend": 1}]}"#, "invalid type: integer `1`, expected a string"),
            (br#"{"jobs": []} x"#, "trailing characters"),
            (b"", "EOF while parsing"),
        ] {
            let error = encoded_from_json(name, json).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn element_with_a_time_out_of_range_is_printed_without_it() {
        let end_time = Some(Timestamp { seconds: i64::MAX, nanos: -1 });
        let status = v1::JobStatus { description: "text".to_owned(), end_time, ..Default::default() };
        let outcome = Some(v1::job_status_result::Outcome::Status(status));
        let results = vec![v1::JobStatusResult { job: None, outcome }];
        let json = to_json("jobwatch.v1.BatchGetStatusesResponse", &v1::BatchGetStatusesResponse { results });
        assert_eq!(json, r#"{"results":[{"status":{"description":"text"}}]}"#);
    }

    #[test]
    fn bytes_that_are_no_message_have_no_json() {
        assert_eq!(
            encoded_to_json("jobwatch.v1.JobRef", &[0x0a, 1, b'b']).as_deref(),
            Some(r#"{"backend":"b"}"#)
        );
        assert_eq!(encoded_to_json("jobwatch.v1.JobRef", &[0x0a, 9]), None);
    }
}
