//! Canonical proto3 JSON, one object per line.

use std::{
    io::{self, Write},
    sync::LazyLock,
};

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, Value};

use crate::proto::FILE_DESCRIPTOR_SET;

/// The contract.
static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the build wrote a valid descriptor set")
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

/// Removes parts that can't be printed: times out of range.
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
    use std::time::Duration;

    use prost_types::Timestamp;
    use tonic::{Code, Status};
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

    #[test]
    fn error_of_an_element_is_printed_in_plain_fields() {
        let mut details = ErrorDetails::with_error_info("BACKEND_UNAVAILABLE", "jobwatch", []);
        details.set_retry_info(Some(Duration::from_millis(1500)));
        let status = Status::with_error_details(Code::Unavailable, "no connection", details);
        let outcome = Some(v1::job_status_result::Outcome::Error((&status).into()));
        assert_eq!(
            line("JobStatusResult", &v1::JobStatusResult { job: None, outcome }),
            concat!(
                r#"{"error":{"code":14,"message":"no connection","reason":"BACKEND_UNAVAILABLE","#,
                r#""retryDelay":"1.500s"}}"#,
                "\n"
            )
        );
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
