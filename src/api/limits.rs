//! How long requests and their texts may be, and which responses are compressed.

use prost::Message;
use tonic::Response;

use super::request::InvalidField;
use crate::proto::v1 as pb;

/// Longest request in bytes: a batch of 1000 jobs, each with the longest texts.
pub const LONGEST_REQUEST: usize = 2 << 20;

/// Longest message of any other method.
const LONGEST_OTHER: usize = 64 << 10;

/// Longest backend name: that of any configured one.
const LONGEST_BACKEND: usize = 63;

/// Longest job id that is passed on to a vendor's check, and longest job tag.
const LONGEST_TEXT: usize = 2048;

/// Responses of fewer bytes are not worth compressing.
const WORTH_COMPRESSING: usize = 1 << 10;

/// Longest message of the method at `path`, and whether the client may take its time for its
/// messages, since it sends any number.
pub fn request_limits(path: &str) -> (usize, bool) {
    match path.rsplit('/').next().unwrap_or_default() {
        "BatchGetStatuses" | "jobs:batchGet" => (LONGEST_REQUEST, false),
        "WatchJobs" | "ServerReflectionInfo" => (LONGEST_OTHER, true),
        _ => (LONGEST_OTHER, false),
    }
}

/// Whether the response of the method at `path` is one message.
pub fn is_unary(path: &str) -> bool {
    let streaming = ["WatchJob", "WatchJobs", "DownloadArtifact", "ServerReflectionInfo", "Watch", "events"];
    !streaming.contains(&path.rsplit('/').next().unwrap_or_default())
}

/// Refuses texts that no job has: errors and watches would hold them.
pub(super) fn check_lengths(job: &pb::JobRef, field: &str) -> Result<(), InvalidField> {
    let texts = [
        ("backend", &job.backend, LONGEST_BACKEND),
        ("job_id", &job.job_id, LONGEST_TEXT),
        ("job_tag", &job.job_tag, LONGEST_TEXT),
    ];
    for (name, text, most) in texts {
        if text.len() > most {
            let reason = format!("has {} bytes; write at most {most}", text.len());
            return Err(InvalidField::new(format!("{field}.{name}"), &reason));
        }
    }
    Ok(())
}

/// A response that is compressed if its caller accepts that and it is worth it.
pub(super) fn compressed_if_large<T: Message>(message: T) -> Response<T> {
    let is_large = message.encoded_len() >= WORTH_COMPRESSING;
    let mut response = Response::new(message);
    if !is_large {
        response.disable_compression();
    }
    response
}

/// A stream of messages that are not compressed: most are small, or files that the vendor
/// has compressed already.
pub(super) fn not_compressed<T>(stream: T) -> Response<T> {
    let mut response = Response::new(stream);
    response.disable_compression();
    response
}
