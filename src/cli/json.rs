//! Canonical proto3 JSON, one object per line.

use std::io::{self, Write};

use base64::{Engine, engine::general_purpose::STANDARD};
use prost::Message;
use serde_json::value::RawValue;
use tonic::Status;

use crate::proto::{json::to_json, v1};

/// How results, error details and payloads are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Data {
    /// As canonical proto-JSON has bytes, in base64.
    Base64,
    /// Those that hold a JSON object or array as that, others in base64.
    Decoded,
}

/// Writes a message of `jobwatch.v1` as one line, at once.
pub(super) fn print(name: &str, message: &impl Message, data: Data) -> io::Result<()> {
    write(&(object(name, message, data) + "\n"))
}

/// Writes a response of a watch with its job, which the response itself does not name.
pub(super) fn print_event(job: &v1::JobRef, response: &v1::WatchJobResponse, data: Data) -> io::Result<()> {
    let (job, event) = (object("JobRef", job, data), object("WatchJobResponse", response, data));
    let rest = event.trim_start_matches('{');
    let comma = if rest == "}" { "" } else { "," };
    write(&format!("{{\"job\":{job}{comma}{rest}\n"))
}

/// Writes a failed call for one job or all, in the form of a batch's element.
pub(super) fn print_failure(job: Option<&v1::JobRef>, status: &Status) -> io::Result<()> {
    print("JobStatusResult", &failure(job, status), Data::Base64)
}

/// A failed call in the form of a batch's element.
pub(super) fn failure(job: Option<&v1::JobRef>, status: &Status) -> v1::JobStatusResult {
    let outcome = Some(v1::job_status_result::Outcome::Error(status.into()));
    v1::JobStatusResult { job: job.cloned(), outcome }
}

/// Writes a text at once.
pub(super) fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// A message of `jobwatch.v1` as one line without a line break.
pub(super) fn object(name: &str, message: &impl Message, data: Data) -> String {
    let line = line(name, message);
    let object = line.trim_end();
    match data {
        Data::Base64 => object.to_owned(),
        Data::Decoded => decoded(object),
    }
}

/// The fields of bytes that may hold JSON.
const BYTES: [&str; 3] = ["\"data\":\"", "\"details\":\"", "\"vendorPayload\":\""];

/// Replaces bytes that hold a JSON object or array. In the text of a JSON document a name
/// with bare quotes is always a name: those inside of a string are escaped.
fn decoded(object: &str) -> String {
    let (mut text, mut rest) = (String::with_capacity(object.len()), object);
    while let Some((at, name)) =
        BYTES.iter().filter_map(|name| rest.find(name).map(|at| (at, *name))).min_by_key(|(at, _)| *at)
    {
        let start = at + name.len();
        let Some(length) = rest[start..].find('"') else { break };
        if let Some(json) = json_of(&rest[start..start + length]) {
            text = text + &rest[..start - 1] + &json;
            rest = &rest[start + length + 1..];
        } else {
            text.push_str(&rest[..start]);
            rest = &rest[start..];
        }
    }
    text + rest
}

/// The JSON object or array that base64 holds, in one line. Its numbers keep their digits.
fn json_of(base64: &str) -> Option<String> {
    let bytes = STANDARD.decode(base64).ok()?;
    let json: &RawValue = serde_json::from_slice(&bytes).ok()?;
    let json = json.get();
    // Line breaks in JSON are only between its tokens.
    json.starts_with(['{', '[']).then(|| json.replace(['\n', '\r'], " "))
}

/// A message of `jobwatch.v1` as one line, with its line break.
fn line(name: &str, message: &impl Message) -> String {
    to_json(&format!("jobwatch.v1.{name}"), message) + "\n"
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
    fn bytes_that_hold_json_are_decoded_without_loss() {
        let status = v1::JobStatus {
            description: r#""data":"e30=""#.to_owned(),
            result: Some(v1::JobResult {
                data: "{\n\"n\": 12345678901234567890.10}".into(),
                ..Default::default()
            }),
            error: Some(v1::JobError { details: "[1]".into(), ..Default::default() }),
            vendor_payload: "\"text\"".into(),
            ..Default::default()
        };
        assert_eq!(
            object("JobStatus", &status, Data::Decoded),
            concat!(
                r#"{"result":{"data":{ "n": 12345678901234567890.10}},"error":{"details":[1]},"#,
                r#""description":"\"data\":\"e30=\"","vendorPayload":"InRleHQi"}"#,
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
