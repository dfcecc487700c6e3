//! A snapshot: an observation encoded once, in the form of the contract, for every
//! subscriber of the job.
//!
//! ```text
//!   bytes:  core | result | vendor payload
//!           <- BASIC
//!           <-- STANDARD ->
//!           <-- FULL ------------------->
//! ```
//!
//! Each view is a prefix of the next one, so one encoding serves them all. The
//! result and the payload are optional: a snapshot may be made without them, or have
//! them dropped later, to save memory. The job's name and the observe time are not
//! part of the bytes. [`Shown`] writes them around the snapshot.
//!
//! Data above the inline limit is never held. A few bytes with its size stand in
//! its place, which are held in any case.

use std::{mem, sync::Arc};

use jiff::Timestamp;
use prost::{
    DecodeError, Message,
    bytes::{Buf, BufMut, Bytes},
    encoding::{self, DecodeContext, WireType},
};

use crate::{
    job::{
        Artifact, Fingerprint, HiddenQuery, JobError, JobRef, JobResult, JobState, Observation, PartHashes,
        Parts, Progress, View,
    },
    proto::v1 as pb,
};

mod budget;

pub use budget::{Charge, StatusBudget};

/// Numbers of the fields that are not encoded with the core.
const JOB: u32 = 1;
const RESULT: u32 = 6;
const OBSERVE_TIME: u32 = 16;

/// Most bytes of a text in a status. Longer texts of a vendor are truncated; its payload
/// holds them whole.
const MAX_TEXT_BYTES: usize = 64 * 1024;

/// Bytes charged for a snapshot besides what is encoded: the struct, the counters
/// of its `Arc` and the headers of two allocations.
const OVERHEAD_BYTES: u64 = (mem::size_of::<Snapshot>() + 4 * mem::size_of::<usize>()) as u64;

/// An observation as it is published. Shared, never changed.
#[derive(Debug)]
pub struct Snapshot {
    /// Where the job is in its life cycle.
    pub state: JobState,
    hashes: PartHashes,
    bytes: Box<[u8]>,
    core_end: u32,
    result_end: u32,
    held: Parts,
    dropped: Parts,
    charge: Charge,
}

/// A snapshot on its way to another replica.
#[derive(Clone, Debug)]
pub struct SnapshotParts {
    /// Where the job is in its life cycle.
    pub state: JobState,
    /// Of the parts that a view can leave out.
    pub hashes: [u64; 4],
    /// The core, the result and the payload.
    pub bytes: Bytes,
    /// Where the core ends.
    pub core_end: usize,
    /// Where the result ends.
    pub result_end: usize,
    /// The parts that are here.
    pub held: Parts,
    /// The parts that the job has and that are not here.
    pub dropped: Parts,
}

impl Snapshot {
    /// Encodes the core of an observation and those of its parts that are in `keep`.
    ///
    /// A result, a payload or error details of more than `inline_limit` bytes are
    /// replaced by their size. The hashes are those of the whole observation, whatever
    /// is held.
    pub fn new(
        observation: Observation,
        keep: Parts,
        inline_limit: usize,
        budget: &Arc<StatusBudget>,
    ) -> Self {
        let hashes = PartHashes::of(&observation);
        let state = observation.state;
        let (core, result, payload) = to_proto(observation, inline_limit);

        let has = Parts {
            result: result.as_ref().is_some_and(|result| !result.omitted),
            payload: !payload.vendor_payload.is_empty(),
        };
        let held = Parts { result: has.result && keep.result, payload: has.payload && keep.payload };
        let dropped = has.difference(held);
        let result = result.filter(|_| !dropped.result);
        let payload = if dropped.payload { pb::JobStatus::default() } else { payload };

        let core_end = core.encoded_len();
        let result_len = result.as_ref().map_or(0, |result| encoding::message::encoded_len(RESULT, result));
        let result_end = core_end + result_len;
        let mut bytes = Vec::with_capacity(result_end + payload.encoded_len());
        core.encode_raw(&mut bytes);
        if let Some(result) = &result {
            encoding::message::encode(RESULT, result, &mut bytes);
        }
        payload.encode_raw(&mut bytes);
        let (core_end, result_end) = (offset(core_end), offset(result_end));
        let charge = charge(budget, bytes.len());
        let bytes = bytes.into();
        Self { state, hashes, bytes, core_end, result_end, held, dropped, charge }
    }

    /// The same snapshot without some of its parts, in a new and smaller allocation.
    #[must_use]
    pub fn without(&self, parts: Parts) -> Self {
        let held = self.held.difference(parts);
        let now_dropped = self.held.difference(held);
        let (core_end, result_end) = (self.core_end as usize, self.result_end as usize);
        let core = &self.bytes[..core_end];
        let result = if now_dropped.result { &[] } else { &self.bytes[core_end..result_end] };
        let payload = if now_dropped.payload { &[] } else { &self.bytes[result_end..] };
        let bytes: Box<[u8]> = [core, result, payload].concat().into();
        Self {
            state: self.state,
            hashes: self.hashes,
            core_end: self.core_end,
            result_end: offset(core_end + result.len()),
            held,
            dropped: self.dropped.union(now_dropped),
            charge: charge(self.charge.budget(), bytes.len()),
            bytes,
        }
    }

    /// What another replica needs to have the same snapshot, with those parts of it that
    /// are in `keep`.
    pub fn to_parts(&self, keep: Parts) -> SnapshotParts {
        let kept = self.without(Parts::ALL.difference(keep));
        SnapshotParts {
            state: kept.state,
            hashes: kept.hashes.to_words(),
            core_end: kept.core_end as usize,
            result_end: kept.result_end as usize,
            held: kept.held,
            dropped: kept.dropped,
            bytes: kept.bytes.into(),
        }
    }

    /// The snapshot of another replica; `None` where the parts don't fit each other.
    pub fn from_parts(parts: SnapshotParts, budget: &Arc<StatusBudget>) -> Option<Self> {
        let SnapshotParts { state, hashes, bytes, core_end, result_end, held, dropped } = parts;
        let fits = core_end <= result_end && result_end <= bytes.len();
        let is_readable = fits
            && pb::JobStatus::decode(&bytes[..core_end]).is_ok()
            && pb::JobStatus::decode(&*bytes).is_ok();
        if !is_readable {
            return None;
        }
        Some(Self {
            state,
            hashes: PartHashes::from_words(hashes),
            core_end: u32::try_from(core_end).ok()?,
            result_end: u32::try_from(result_end).ok()?,
            held,
            dropped,
            charge: charge(budget, bytes.len()),
            bytes: bytes.to_vec().into(),
        })
    }

    /// Whether everything that `parts` would show of this job is here. A part that the
    /// job does not have, or that is above the inline limit, counts as held.
    pub fn holds(&self, parts: Parts) -> bool {
        let Parts { result, payload } = self.dropped;
        !(result && parts.result || payload && parts.payload)
    }

    /// The parts that [`without`](Self::without) can drop to save memory.
    pub fn held(&self) -> Parts {
        self.held
    }

    /// Equal for two snapshots exactly when they look the same in `view`. Does not
    /// depend on what is held.
    pub fn fingerprint(&self, view: View) -> Fingerprint {
        self.hashes.fingerprint(view)
    }

    /// Whether the observation differs from that of `other` in anything.
    pub fn differs_from(&self, other: &Self) -> bool {
        self.hashes != other.hashes
    }

    /// Whether no later observation can differ.
    pub fn is_terminal(&self) -> bool {
        self.state.is_terminal()
    }

    /// Bytes that `view` shows, encoded, without the job and the observe time.
    pub fn encoded_len(&self, view: View) -> usize {
        let [first, second] = self.shown(view);
        first.len() + second.len()
    }

    /// Bytes that this snapshot is charged to its budget with.
    pub fn charged_bytes(&self) -> u64 {
        self.charge.bytes()
    }

    /// Everything that is held, as a message without the job and the observe time.
    /// Decodes the message; not for hot paths.
    pub fn status(&self) -> pb::JobStatus {
        pb::JobStatus::decode(&*self.bytes).expect("these bytes were encoded from this message")
    }

    /// The same without the result and the payload.
    pub fn core_status(&self) -> pb::JobStatus {
        let core = &self.bytes[..self.core_end as usize];
        pb::JobStatus::decode(core).expect("these bytes were encoded from this message")
    }

    /// One of the job's files.
    pub fn artifact(&self, id: &str) -> Option<Artifact> {
        let artifacts = self.status().artifacts;
        let pb::Artifact { artifact_id, category, file_name, vendor_uri } =
            artifacts.into_iter().find(|artifact| artifact.artifact_id == id)?;
        let query = HiddenQuery::default();
        Some(Artifact { id: artifact_id, category, file_name, vendor_uri, query })
    }

    /// What `view` shows, in two pieces. A view of a part that was dropped is a bug of
    /// the caller, which must poll again first.
    fn shown(&self, view: View) -> [&[u8]; 2] {
        debug_assert!(self.holds(view.parts()), "{view:?} shows a part that was dropped: {:?}", self.dropped);
        let View { result, payload, progress: _ } = view;
        let (core_end, result_end) = (self.core_end as usize, self.result_end as usize);
        let first = &self.bytes[..if result { result_end } else { core_end }];
        let second = if payload { &self.bytes[result_end..] } else { &[] };
        [first, second]
    }
}

/// Compares what is held and its hashes, not the budgets.
impl PartialEq for Snapshot {
    fn eq(&self, other: &Self) -> bool {
        let Self { state, hashes, bytes, core_end, result_end, held, dropped, charge: _ } = self;
        (state, hashes) == (&other.state, &other.hashes)
            && (bytes, core_end, result_end) == (&other.bytes, &other.core_end, &other.result_end)
            && (held, dropped) == (&other.held, &other.dropped)
    }
}

fn offset(at: usize) -> u32 {
    u32::try_from(at).expect("a response is limited to less than 4 GiB")
}

fn charge(budget: &Arc<StatusBudget>, encoded: usize) -> Charge {
    budget.charge(encoded as u64 + OVERHEAD_BYTES)
}

/// The `JobStatus` that a caller receives: a snapshot in the caller's view, with the
/// job's name and the observe time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shown(Option<Sent>);

#[derive(Clone, Debug, PartialEq)]
struct Sent {
    job: JobRef,
    snapshot: Arc<Snapshot>,
    view: View,
    time: prost_types::Timestamp,
}

impl Shown {
    /// A snapshot of `job`, observed at `time`. It must hold the parts of `view`.
    pub fn new(job: JobRef, snapshot: Arc<Snapshot>, view: View, time: Timestamp) -> Self {
        Self(Some(Sent { job, snapshot, view, time: timestamp(time) }))
    }
}

impl Message for Shown {
    fn encode_raw(&self, out: &mut impl BufMut) {
        if let Some(Sent { job, snapshot, view, time }) = &self.0 {
            let fields = fields_of(job);
            encoding::encode_key(JOB, WireType::LengthDelimited, out);
            encoding::encode_varint(fields.iter().map(|field| len(*field) as u64).sum(), out);
            for (tag, text) in fields.into_iter().filter(|(_, text)| !text.is_empty()) {
                encoding::encode_key(tag, WireType::LengthDelimited, out);
                encoding::encode_varint(text.len() as u64, out);
                out.put_slice(text.as_bytes());
            }
            for piece in snapshot.shown(*view) {
                out.put_slice(piece);
            }
            encoding::message::encode(OBSERVE_TIME, time, out);
        }
    }

    fn encoded_len(&self) -> usize {
        self.0.as_ref().map_or(0, |Sent { job, snapshot, view, time }| {
            let job: usize = fields_of(job).into_iter().map(len).sum();
            encoding::key_len(JOB)
                + encoding::encoded_len_varint(job as u64)
                + job
                + snapshot.encoded_len(*view)
                + encoding::message::encoded_len(OBSERVE_TIME, time)
        })
    }

    /// No request contains a status, so its fields are skipped.
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

/// Encoded length of a field; an empty one is left out.
fn len((tag, text): (u32, &str)) -> usize {
    let len = text.len();
    if len == 0 { 0 } else { encoding::key_len(tag) + encoding::encoded_len_varint(len as u64) + len }
}

/// The core, the result, and a message that holds nothing but the vendor's payload.
///
/// Every field is named, so that a new one does not compile until someone has decided
/// what becomes of it.
fn to_proto(
    observation: Observation,
    inline_limit: usize,
) -> (pb::JobStatus, Option<pb::JobResult>, pb::JobStatus) {
    let Observation {
        state,
        vendor_state,
        progress,
        result,
        error,
        warnings,
        artifacts,
        job_type,
        description,
        vendor_url,
        owner,
        create_time,
        start_time,
        end_time,
        vendor_payload,
        // Part of the fingerprint alone.
        payload_hash: _,
    } = observation;
    let core = pb::JobStatus {
        job: None,
        state: i32::from(state as u8),
        vendor_state: shortened(vendor_state),
        terminal: state.is_terminal(),
        progress: progress.map(|progress| {
            let Progress { percent, completed_steps, total_steps, current_step } = progress;
            pb::Progress { percent, completed_steps, total_steps, current_step: shortened(current_step) }
        }),
        result: None,
        error: error.map(|JobError { message, details }| {
            let (details, details_size_bytes, details_omitted) = inlined(details, inline_limit);
            pb::JobError { message: shortened(message), details, details_size_bytes, details_omitted }
        }),
        artifacts: artifacts
            .into_iter()
            .map(|Artifact { id, category, file_name, vendor_uri, query: HiddenQuery(_) }| pb::Artifact {
                artifact_id: id,
                category,
                file_name,
                vendor_uri,
            })
            .collect(),
        job_type: shortened(job_type),
        description: shortened(description),
        vendor_url,
        owner: shortened(owner),
        create_time: create_time.map(timestamp),
        start_time: start_time.map(timestamp),
        end_time: end_time.map(timestamp),
        observe_time: None,
        vendor_payload: Bytes::new(),
        vendor_payload_size_bytes: 0,
        vendor_payload_omitted: false,
        warnings: warnings.into_iter().map(shortened).collect(),
    };
    let result = result.map(|JobResult { data, content_type }| {
        let (data, size_bytes, omitted) = inlined(data, inline_limit);
        pb::JobResult { data, content_type: content_type.as_str().to_owned(), size_bytes, omitted }
    });
    let (vendor_payload, vendor_payload_size_bytes, vendor_payload_omitted) =
        inlined(vendor_payload, inline_limit);
    let payload = pb::JobStatus {
        vendor_payload,
        vendor_payload_size_bytes,
        vendor_payload_omitted,
        ..pb::JobStatus::default()
    };
    (core, result, payload)
}

/// The data, a size of zero and false; or no data, its size and true if it is above
/// the limit.
fn inlined(data: Bytes, inline_limit: usize) -> (Bytes, i64, bool) {
    if data.len() > inline_limit {
        (Bytes::new(), i64::try_from(data.len()).unwrap_or(i64::MAX), true)
    } else {
        (data, 0, false)
    }
}

/// The text, truncated to [`MAX_TEXT_BYTES`] with an ellipsis at its end.
fn shortened(mut text: String) -> String {
    const ELLIPSIS: char = '…';
    if text.len() > MAX_TEXT_BYTES {
        text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES - ELLIPSIS.len_utf8()));
        text.push(ELLIPSIS);
        text.shrink_to_fit();
    }
    text
}

/// The time as a protobuf timestamp, which counts nanoseconds forward. Before the
/// epoch jiff counts them backward.
pub fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    let (seconds, nanos) = (time.as_second(), time.subsec_nanosecond());
    if nanos < 0 {
        prost_types::Timestamp { seconds: seconds - 1, nanos: nanos + 1_000_000_000 }
    } else {
        prost_types::Timestamp { seconds, nanos }
    }
}

#[cfg(test)]
mod tests;
