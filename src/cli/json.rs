//! Canonical proto3 JSON, one object per line.

use std::{
    io::{self, Write},
    sync::LazyLock,
};

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, Value};
use prost_types::{DescriptorProto, FileDescriptorSet};

use crate::proto::FILE_DESCRIPTOR_SET;

/// The contract, and the error details that `google.rpc.Status` carries.
static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let mut pool =
        DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the build wrote a valid descriptor set");
    let details = FileDescriptorSet::decode(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .expect("tonic-types brings a valid descriptor set");
    // It has google.rpc.Status under another file name, which would clash.
    let new = details.file.into_iter().filter(|file| {
        let name = |message: &DescriptorProto| format!("{}.{}", file.package(), message.name());
        !file.message_type.iter().any(|message| pool.get_message_by_name(&name(message)).is_some())
    });
    let new: Vec<_> = new.collect();
    pool.add_file_descriptor_protos(new).expect("the error details import only known files");
    pool
});

/// Writes a message of `jobwatch.v1` as one line, at once.
pub(super) fn print(name: &str, message: &impl Message) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(line(name, message).as_bytes())?;
    out.flush()
}

/// A message of `jobwatch.v1` as one line, with its line break.
fn line(name: &str, message: &impl Message) -> String {
    let descriptor = POOL
        .get_message_by_name(&format!("jobwatch.v1.{name}"))
        .expect("only messages of the contract are printed");
    let mut dynamic = DynamicMessage::new(descriptor);
    dynamic.transcode_from(message).expect("the contract's types and its descriptors come from one build");
    let text = serde_json::to_string(&dynamic).or_else(|_| {
        keep_printable(&mut dynamic);
        serde_json::to_string(&dynamic)
    });
    text.unwrap_or_else(|_| "{}".to_owned()) + "\n"
}

/// Removes parts that can't be printed: error details of types that this version doesn't
/// know, and times out of range.
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
                Value::Message(inner) => serde_json::to_string(&*inner).is_ok(),
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
    use prost_types::{Any, Timestamp};
    use tonic_types::{ErrorDetails, StatusExt};

    use super::*;
    use crate::proto::v1;

    #[test]
    fn status_is_canonical_proto_json() {
        let status = v1::JobStatus {
            state: v1::JobState::Running.into(),
            progress: Some(v1::Progress {
                total_steps: Some(1 << 60),
                percent: Some(0.0),
                ..Default::default()
            }),
            result: Some(v1::JobResult {
                data: "{}".into(),
                content_type: "application/json".to_owned(),
                ..Default::default()
            }),
            observe_time: Some(Timestamp { seconds: 1_700_000_000, nanos: 5_000_000 }),
            ..Default::default()
        };
        assert_eq!(
            line("JobStatus", &status),
            concat!(
                r#"{"state":"JOB_STATE_RUNNING","progress":{"percent":0.0,"totalSteps":"1152921504606846976"},"#,
                r#""result":{"data":"e30=","contentType":"application/json"},"observeTime":"2023-11-14T22:13:20.005Z"}"#,
                "\n"
            )
        );
    }

    fn failed(details: Vec<Any>) -> v1::JobStatusResult {
        let error = tonic_types::Status { code: 5, message: "none".to_owned(), details };
        v1::JobStatusResult {
            outcome: Some(v1::job_status_result::Outcome::Error(error)),
            ..Default::default()
        }
    }

    #[test]
    fn error_details_are_decoded() {
        let details = ErrorDetails::with_error_info("JOB_NOT_FOUND", "jobwatch", []);
        let status = tonic::Status::with_error_details(tonic::Code::NotFound, "none", details);
        let status: tonic_types::Status = Message::decode(status.details()).unwrap();
        assert_eq!(
            line("JobStatusResult", &failed(status.details)),
            concat!(
                r#"{"error":{"code":5,"message":"none","details":["#,
                r#"{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"JOB_NOT_FOUND","domain":"jobwatch"}]}}"#,
                "\n"
            )
        );
    }

    #[test]
    fn details_of_an_unknown_type_are_omitted() {
        let unknown = Any { type_url: "type.googleapis.com/new.Thing".to_owned(), value: vec![1] };
        let text = line("JobStatusResult", &failed(vec![unknown]));
        assert_eq!(text, "{\"error\":{\"code\":5,\"message\":\"none\"}}\n");
    }

    #[test]
    fn timestamp_out_of_range_is_omitted() {
        let status = v1::JobStatus {
            description: "text".to_owned(),
            end_time: Some(Timestamp { seconds: i64::MAX, nanos: -1 }),
            ..Default::default()
        };
        assert_eq!(line("JobStatus", &status), "{\"description\":\"text\"}\n");
    }
}
