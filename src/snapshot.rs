//! An observation as it is published: encoded once, in the contract's form, for
//! everybody who follows the job.
//!
//! ```text
//!   bytes:  everything else | result | vendor payload
//!           <- BASIC ------->
//!           <- STANDARD ------------->
//!           <- FULL --------------------------------->
//! ```
//!
//! Each view is the beginning of the next, so that one encoding serves them all. The
//! job's name is no part of it, since whoever sends it has that anyway, nor is the time
//! of the observation, which changes with every answer: they are written around it.

use std::sync::Arc;

use jiff::Timestamp;
use prost::{
    DecodeError, Message,
    bytes::{Buf, BufMut},
    encoding::{self, DecodeContext, WireType},
};

use crate::{
    job::{
        Artifact, Fingerprint, JobError, JobRef, JobResult, JobState, Lens, Observation, PayloadHash,
        Progress, Sections,
    },
    proto::v1 as pb,
};

/// Numbers of the fields that are not encoded with the rest.
const JOB: u32 = 1;
const RESULT: u32 = 6;
const OBSERVE_TIME: u32 = 16;
const VENDOR_PAYLOAD: u32 = 17;

/// An observation as published to watchers. Shared, never changed.
#[derive(Debug, PartialEq)]
pub struct Snapshot {
    /// Where it is in its life cycle.
    pub state: JobState,
    /// The hash of the element that it was read from, where that is known.
    pub payload_hash: Option<PayloadHash>,
    fingerprints: Sections,
    bytes: Box<[u8]>,
    result_at: u32,
    payload_at: u32,
}

impl Snapshot {
    /// Publishes what was observed.
    pub fn new(observation: Observation) -> Self {
        let fingerprints = Sections::of(&observation);
        let state = observation.state;
        let (status, result, payload) = to_proto(observation);
        let result_at = status.encoded_len();
        let result_len = result.as_ref().map_or(0, |result| encoding::message::encoded_len(RESULT, result));
        let payload_at = result_at + result_len;
        let payload_len =
            if payload.is_empty() { 0 } else { encoding::bytes::encoded_len(VENDOR_PAYLOAD, &payload) };
        let mut bytes = Vec::with_capacity(payload_at + payload_len);
        status.encode_raw(&mut bytes);
        if let Some(result) = &result {
            encoding::message::encode(RESULT, result, &mut bytes);
        }
        if !payload.is_empty() {
            encoding::bytes::encode(VENDOR_PAYLOAD, &payload, &mut bytes);
        }
        let place = |at: usize| u32::try_from(at).expect("an answer is limited to less than 4 GiB");
        Self {
            state,
            payload_hash: None,
            fingerprints,
            bytes: bytes.into(),
            result_at: place(result_at),
            payload_at: place(payload_at),
        }
    }

    /// Equal for two snapshots exactly when they look the same through `lens`.
    pub fn fingerprint(&self, lens: Lens) -> Fingerprint {
        self.fingerprints.through(lens)
    }

    /// Whether anything at all differs from `other`.
    pub fn differs_from(&self, other: &Self) -> bool {
        self.fingerprints != other.fingerprints
    }

    /// Whether no later observation can differ.
    pub fn is_terminal(&self) -> bool {
        self.state.is_terminal()
    }

    /// Bytes that it takes encoded.
    pub fn encoded_len(&self) -> usize {
        self.bytes.len()
    }

    /// All of it, as a message without the job and the time of the observation.
    /// Decodes it: for what is rare.
    pub fn status(&self) -> pb::JobStatus {
        pb::JobStatus::decode(&*self.bytes).expect("these bytes were encoded from this message")
    }

    /// One of the job's files.
    pub fn artifact(&self, id: &str) -> Option<Artifact> {
        let artifacts = self.status().artifacts;
        let pb::Artifact { artifact_id, category, file_name, vendor_uri } =
            artifacts.into_iter().find(|artifact| artifact.artifact_id == id)?;
        Some(Artifact { id: artifact_id, category, file_name, vendor_uri })
    }

    fn shown(&self, lens: Lens) -> &[u8] {
        let Lens { result, payload, progress: _ } = lens;
        match (result, payload) {
            (_, true) => &self.bytes,
            (true, false) => &self.bytes[..self.payload_at as usize],
            (false, false) => &self.bytes[..self.result_at as usize],
        }
    }
}

/// The `JobStatus` that a caller is sent: as much of a snapshot as it wants to be
/// shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shown(Option<Sent>);

#[derive(Clone, Debug, PartialEq)]
struct Sent {
    job: JobRef,
    snapshot: Arc<Snapshot>,
    lens: Lens,
    time: prost_types::Timestamp,
}

impl Shown {
    /// What was observed of `job` at `time`, as much as `lens` shows.
    pub fn new(job: JobRef, snapshot: Arc<Snapshot>, lens: Lens, time: Timestamp) -> Self {
        Self(Some(Sent { job, snapshot, lens, time: timestamp(time) }))
    }
}

impl Message for Shown {
    fn encode_raw(&self, out: &mut impl BufMut) {
        if let Some(Sent { job, snapshot, lens, time }) = &self.0 {
            let fields = fields_of(job);
            encoding::encode_key(JOB, WireType::LengthDelimited, out);
            encoding::encode_varint(fields.iter().map(|field| len(*field) as u64).sum(), out);
            for (tag, text) in fields.into_iter().filter(|(_, text)| !text.is_empty()) {
                encoding::encode_key(tag, WireType::LengthDelimited, out);
                encoding::encode_varint(text.len() as u64, out);
                out.put_slice(text.as_bytes());
            }
            out.put_slice(snapshot.shown(*lens));
            encoding::message::encode(OBSERVE_TIME, time, out);
        }
    }

    fn encoded_len(&self) -> usize {
        self.0.as_ref().map_or(0, |Sent { job, snapshot, lens, time }| {
            let job: usize = fields_of(job).into_iter().map(len).sum();
            encoding::key_len(JOB)
                + encoding::encoded_len_varint(job as u64)
                + job
                + snapshot.shown(*lens).len()
                + encoding::message::encoded_len(OBSERVE_TIME, time)
        })
    }

    /// Nobody sends a status to the server, and what is sent is passed over.
    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        bytes: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        encoding::skip_field(wire_type, tag, bytes, context)
    }

    fn clear(&mut self) {
        self.0 = None;
    }
}

/// The fields of a `JobRef`, with their numbers.
fn fields_of(job: &JobRef) -> [(u32, &str); 3] {
    let JobRef { backend, id, tag } = job;
    [(1, backend), (2, id), (3, tag.as_deref().unwrap_or_default())]
}

/// What a field takes; an empty one is left out.
fn len((tag, text): (u32, &str)) -> usize {
    let len = text.len();
    if len == 0 { 0 } else { encoding::key_len(tag) + encoding::encoded_len_varint(len as u64) + len }
}

/// Every field is named, so that a new one does not compile until someone has
/// decided what becomes of it.
fn to_proto(observation: Observation) -> (pb::JobStatus, Option<pb::JobResult>, bytes::Bytes) {
    let Observation {
        state,
        vendor_state,
        progress,
        result,
        error,
        artifacts,
        job_type,
        description,
        vendor_url,
        owner,
        create_time,
        start_time,
        end_time,
        vendor_payload,
    } = observation;
    let status = pb::JobStatus {
        job: None,
        state: i32::from(state as u8),
        vendor_state,
        terminal: state.is_terminal(),
        progress: progress.map(|progress| {
            let Progress { percent, completed_steps, total_steps, current_step } = progress;
            pb::Progress { percent, completed_steps, total_steps, current_step }
        }),
        result: None,
        error: error.map(|JobError { message, details }| pb::JobError { message, details }),
        artifacts: artifacts
            .into_iter()
            .map(|Artifact { id, category, file_name, vendor_uri }| pb::Artifact {
                artifact_id: id,
                category,
                file_name,
                vendor_uri,
            })
            .collect(),
        job_type,
        description,
        vendor_url,
        owner,
        create_time: create_time.map(timestamp),
        start_time: start_time.map(timestamp),
        end_time: end_time.map(timestamp),
        observe_time: None,
        vendor_payload: bytes::Bytes::new(),
    };
    let result = result.map(|JobResult { data, content_type }| pb::JobResult {
        data,
        content_type: content_type.as_str().to_owned(),
    });
    (status, result, vendor_payload)
}

/// The time as the contract writes it, which counts nanoseconds forward where jiff
/// counts away from the epoch.
pub fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    let (seconds, nanos) = (time.as_second(), time.subsec_nanosecond());
    if nanos < 0 {
        prost_types::Timestamp { seconds: seconds - 1, nanos: nanos + 1_000_000_000 }
    } else {
        prost_types::Timestamp { seconds, nanos }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::job::ContentType;

    #[test]
    fn a_time_before_the_epoch_counts_its_nanoseconds_forward() {
        let time = Timestamp::from_nanosecond(-1).unwrap();
        assert_eq!(timestamp(time), prost_types::Timestamp { seconds: -1, nanos: 999_999_999 });
    }

    fn full() -> Observation {
        let text = |text: &str| text.to_owned();
        Observation {
            progress: Some(Progress {
                percent: Some(0.0),
                completed_steps: Some(0),
                total_steps: Some(7),
                current_step: text("step"),
            }),
            result: Some(JobResult { data: Bytes::from_static(b"{}"), content_type: ContentType::Json }),
            error: Some(JobError { message: text("message"), details: Bytes::from_static(b"[]") }),
            artifacts: vec![Artifact {
                id: text("id"),
                category: text("category"),
                file_name: text("name"),
                vendor_uri: text("uri"),
            }],
            job_type: text("type"),
            description: text("description"),
            vendor_url: text("url"),
            owner: text("owner"),
            create_time: Some(Timestamp::from_second(1).unwrap()),
            start_time: Some(Timestamp::from_second(2).unwrap()),
            end_time: Some(Timestamp::from_second(3).unwrap()),
            vendor_payload: Bytes::from_static(b"{\"a\":1}"),
            ..Observation::new(JobState::Succeeded, "done")
        }
    }

    #[test]
    fn a_file_is_found_by_its_id() {
        let snapshot = Snapshot::new(full());
        assert_eq!(snapshot.artifact("id"), full().artifacts.pop());
        assert_eq!(snapshot.artifact("other"), None);
    }

    fn seen(observation: Observation, lens: Lens) -> pb::JobStatus {
        let job = JobRef::new("b", "j").with_tag("t");
        let snapshot = Arc::new(Snapshot::new(observation));
        let shown = Shown::new(job, Arc::clone(&snapshot), lens, Timestamp::from_second(4).unwrap());
        let bytes = shown.encode_to_vec();
        assert_eq!(bytes.len(), shown.encoded_len());
        let seen = pb::JobStatus::decode(&*bytes).unwrap();
        assert_eq!(seen.observe_time.unwrap().seconds, 4);
        if lens == Lens::FULL {
            let rest = pb::JobStatus { job: None, observe_time: None, ..seen.clone() };
            assert_eq!(rest, snapshot.status());
        }
        seen
    }

    #[test]
    fn every_view_is_a_part_of_the_same_bytes() {
        let all = seen(full(), Lens::FULL);
        assert_eq!(all.result.as_ref().unwrap().content_type, "application/json");
        assert_eq!(all.vendor_payload, "{\"a\":1}");
        assert_eq!(all.artifacts[0].vendor_uri, "uri");
        assert_eq!(all.progress.as_ref().unwrap().percent, Some(0.0));
        assert_eq!(all.job.as_ref().unwrap().job_tag, "t");
        assert!(all.terminal);

        let standard = seen(full(), Lens::SHOWN);
        assert_eq!(standard, pb::JobStatus { vendor_payload: Bytes::new(), ..all.clone() });
        let basic = seen(full(), Lens { result: false, ..Lens::SHOWN });
        assert_eq!(basic, pb::JobStatus { result: None, ..standard });
    }

    #[test]
    fn a_job_is_written_as_its_message() {
        let observation = || Observation::new(JobState::Running, "");
        for (backend, id, tag) in
            [("b", "j", "t"), ("b", "j", ""), ("", "", ""), ("b", &*"j".repeat(300), "")]
        {
            let job = JobRef::new(backend, id);
            let job = if tag.is_empty() { job } else { job.with_tag(tag) };
            let shown =
                Shown::new(job, Arc::new(Snapshot::new(observation())), Lens::FULL, Timestamp::UNIX_EPOCH);
            let bytes = shown.encode_to_vec();
            assert_eq!(bytes.len(), shown.encoded_len());
            let expected = pb::JobRef { backend: backend.into(), job_id: id.into(), job_tag: tag.into() };
            assert_eq!(pb::JobStatus::decode(&*bytes).unwrap().job, Some(expected));
        }
    }

    #[test]
    fn what_the_vendor_did_not_say_is_absent() {
        let bare = seen(Observation::new(JobState::Unknown, ""), Lens::FULL);
        let job = pb::JobRef { backend: "b".into(), job_id: "j".into(), job_tag: "t".into() };
        let observe_time = bare.observe_time;
        assert_eq!(bare, pb::JobStatus { job: Some(job), observe_time, ..Default::default() });
    }
}
