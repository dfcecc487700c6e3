//! The bucket of leases: compare-and-set of one key per backend.

use std::time::Duration;

use async_nats::{
    Client,
    jetstream::{
        self, ErrorCode,
        context::{CreateStreamErrorKind, GetStreamErrorKind, PublishErrorKind},
        stream::{self, DiscardPolicy, LastRawMessageErrorKind},
    },
};
use bytes::Bytes;
use tracing::info;

use super::Names;

/// Replicas of the bucket where the servers allow it.
const REPLICAS: usize = 3;

/// The header of a compare-and-set.
pub(super) const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";

/// JetStream, with this time-out of each call.
pub(super) fn context(client: &Client, call: Duration) -> jetstream::Context {
    jetstream::ContextBuilder::new().timeout(call).ack_timeout(call).build(client.clone())
}

pub(super) async fn read(
    client: &Client,
    names: &Names,
    backend: &str,
    call: Duration,
    may_be_small: bool,
) -> Result<Option<(u64, Bytes)>, String> {
    let context = context(client, call);
    let stream = context.get_stream_no_info(&names.stream).await.map_err(|error| error.to_string())?;
    // From the leader of the bucket: another of its servers may not have the last value yet.
    match stream.get_last_raw_message_by_subject(&names.key(backend)).await {
        Ok(message) => Ok(Some((message.sequence, message.payload))),
        Err(error) => match error.kind() {
            LastRawMessageErrorKind::NoMessageFound => Ok(None),
            LastRawMessageErrorKind::JetStream(inner)
                if inner.error_code() == ErrorCode::STREAM_NOT_FOUND =>
            {
                create(&context, names, may_be_small).await?;
                Ok(None)
            }
            _ => Err(error.to_string()),
        },
    }
}

pub(super) async fn write(
    client: &Client,
    subject: String,
    value: Bytes,
    revision: u64,
    call: Duration,
) -> Result<u64, PublishErrorKind> {
    let mut headers = async_nats::HeaderMap::new();
    headers.insert(EXPECTED, revision.to_string());
    let sent = context(client, call).publish_with_headers(subject, headers, value).await;
    let ack = sent.map_err(|error| error.kind())?.await.map_err(|error| error.kind())?;
    Ok(ack.sequence)
}

/// Creates the bucket of leases, unless there is one. Returns whether there was none.
/// `may_be_small`: also where a cluster has fewer servers than the bucket should have replicas,
/// which may be so only while it starts.
pub(super) async fn create(
    context: &jetstream::Context,
    names: &Names,
    may_be_small: bool,
) -> Result<bool, String> {
    match context.get_stream(&names.stream).await {
        Ok(_) => return Ok(false),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(inner) if inner.error_code() == ErrorCode::STREAM_NOT_FOUND => {}
            _ => return Err(error.to_string()),
        },
    }
    let config = |num_replicas| stream::Config {
        name: names.stream.clone(),
        subjects: vec![format!("$KV.{}.>", names.bucket)],
        description: Some("leases of jobwatch: which replica polls a backend".to_owned()),
        max_messages_per_subject: 1,
        discard: DiscardPolicy::New,
        allow_rollup: true,
        allow_direct: true,
        deny_delete: true,
        num_replicas,
        // No revision may come twice, and this bucket may be in place of one that was lost.
        first_sequence: Some(1 + (rand::random::<u64>() >> 16)),
        ..stream::Config::default()
    };
    for num_replicas in [REPLICAS, 1] {
        let Err(error) = context.create_stream(config(num_replicas)).await else {
            info!(bucket = names.bucket, replicas = num_replicas, "bucket of leases created");
            return Ok(true);
        };
        match error.kind() {
            CreateStreamErrorKind::JetStream(inner) => match inner.error_code() {
                ErrorCode::STREAM_NAME_EXIST | ErrorCode::STREAM_NAME_EXIST_RESTORE_FAILED => {
                    return Ok(true);
                }
                // A single server.
                ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED if num_replicas > 1 => {}
                ErrorCode::CLUSTER_NO_PEERS if num_replicas > 1 && may_be_small => {}
                _ => return Err(error.to_string()),
            },
            _ => return Err(error.to_string()),
        }
    }
    Ok(true)
}
