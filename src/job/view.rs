//! Views of a status, and fingerprints that tell whether two observations look the
//! same in a view.
//!
//! A fingerprint travels in resume tokens, so its value does not depend on the
//! process, the platform or the compiler: every field is fed to XXH3 in a fixed
//! order, with its length before it.

use jiff::Timestamp;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::{Artifact, HiddenQuery, JobError, JobResult, Observation, Progress};

/// Size in bytes from which data is hashed in place instead of being copied first.
const LARGE: usize = 16 * 1024;

/// How much of a status a caller sees, and which changes count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// Whether the result is shown.
    pub result: bool,
    /// Whether the vendor's payload is shown.
    pub payload: bool,
    /// Whether a change of nothing but progress counts.
    pub progress: bool,
}

impl View {
    /// Everything but the result and the vendor's payload.
    pub const BASIC: Self = Self { result: false, payload: false, progress: true };
    /// Everything but the vendor's payload.
    pub const STANDARD: Self = Self { result: true, payload: false, progress: true };
    /// Everything.
    pub const FULL: Self = Self { result: true, payload: true, progress: true };

    /// The optional parts of a status that this view shows.
    pub fn parts(self) -> Parts {
        let Self { result, payload, progress: _ } = self;
        Parts { result, payload }
    }
}

/// A set of the parts of a status that can be left out because of their size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Parts {
    /// The job's result.
    pub result: bool,
    /// The vendor's payload.
    pub payload: bool,
}

impl Parts {
    /// No part.
    pub const NONE: Self = Self { result: false, payload: false };
    /// Every part.
    pub const ALL: Self = Self { result: true, payload: true };

    /// The parts of either set.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self { result: self.result || other.result, payload: self.payload || other.payload }
    }

    /// The parts of this set that are not in `other`.
    #[must_use]
    pub fn difference(self, other: Self) -> Self {
        Self { result: self.result && !other.result, payload: self.payload && !other.payload }
    }

    /// Whether every part of `other` is in this set.
    pub fn contains(self, other: Self) -> bool {
        other.difference(self) == Self::NONE
    }
}

/// Identifies everything that a status shows in one [`View`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub u64);

/// One hash for each part of an observation that a view can leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartHashes {
    core: u64,
    progress: u64,
    result: u64,
    payload: u64,
}

impl PartHashes {
    /// The hashes of the core, the progress, the result and the payload.
    pub fn to_words(self) -> [u64; 4] {
        [self.core, self.progress, self.result, self.payload]
    }

    /// The same from [`to_words`](Self::to_words).
    pub fn from_words([core, progress, result, payload]: [u64; 4]) -> Self {
        Self { core, progress, result, payload }
    }

    /// Hashes the parts of an observation.
    pub fn of(observation: &Observation) -> Self {
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
            payload_hash,
        } = observation;

        let mut out = Canonical(Vec::with_capacity(1024));
        out.number(*state as u64);
        for text in [vendor_state, job_type, description, vendor_url, owner] {
            out.bytes(text.as_bytes());
        }
        out.option(error.as_ref(), |out, JobError { message, details }| {
            out.bytes(message.as_bytes());
            out.bytes(details);
        });
        out.number(artifacts.len() as u64);
        for Artifact { id, category, file_name, vendor_uri, query: HiddenQuery(_) } in artifacts {
            for text in [id, category, file_name, vendor_uri] {
                out.bytes(text.as_bytes());
            }
        }
        for time in [create_time, start_time, end_time] {
            out.option(time.as_ref(), |out, time| out.time(*time));
        }
        // At the end, so that the hash of a status without any is as it was before there were some.
        for text in warnings {
            out.bytes(text.as_bytes());
        }
        let core = out.finish();

        out.option(progress.as_ref(), |out, progress| {
            let Progress { percent, completed_steps, total_steps, current_step } = progress;
            out.option(percent.as_ref(), |out, percent| out.number(percent.to_bits()));
            for steps in [completed_steps, total_steps] {
                out.option(steps.as_ref(), |out, steps| out.number(steps.cast_unsigned()));
            }
            out.bytes(current_step.as_bytes());
        });
        let progress = out.finish();

        out.number(u64::from(result.is_some()));
        let result = match result {
            Some(JobResult { data, content_type }) => {
                out.bytes(content_type.as_str().as_bytes());
                out.finish_with(data)
            }
            None => out.finish(),
        };

        let payload = payload_hash.unwrap_or_else(|| out.finish_with(vendor_payload));
        Self { core, progress, result, payload }
    }

    /// The hash of what `view` shows.
    pub fn fingerprint(&self, view: View) -> Fingerprint {
        let mut out = [0; 7 * 8];
        let mut end = 0;
        let mut number = |number: u64| {
            out[end..end + 8].copy_from_slice(&number.to_le_bytes());
            end += 8;
        };
        number(self.core);
        for (shown, hash) in
            [(view.progress, self.progress), (view.result, self.result), (view.payload, self.payload)]
        {
            number(u64::from(shown));
            if shown {
                number(hash);
            }
        }
        Fingerprint(xxh3_64(&out[..end]))
    }
}

/// The bytes that are hashed. One buffer serves all parts: XXH3's own incremental
/// state takes longer to set up than most parts take to hash.
struct Canonical(Vec<u8>);

impl Canonical {
    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn time(&mut self, time: Timestamp) {
        self.0.extend_from_slice(&time.as_nanosecond().to_le_bytes());
    }

    fn option<T>(&mut self, value: Option<&T>, feed: impl FnOnce(&mut Self, &T)) {
        self.number(u64::from(value.is_some()));
        if let Some(value) = value {
            feed(self, value);
        }
    }

    /// The hash of everything fed since the last hash.
    fn finish(&mut self) -> u64 {
        let hash = xxh3_64(&self.0);
        self.0.clear();
        hash
    }

    /// Feeds `bytes` and returns the hash. Large data is not copied.
    fn finish_with(&mut self, bytes: &[u8]) -> u64 {
        if bytes.len() < LARGE {
            self.bytes(bytes);
            return self.finish();
        }
        self.number(bytes.len() as u64);
        let mut hasher = Xxh3::new();
        hasher.update(&self.0);
        hasher.update(bytes);
        self.0.clear();
        hasher.digest()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::job::{ContentType, JobState};

    fn seen_in(view: View, change: impl FnOnce(&mut Observation)) -> bool {
        let before = Observation::new(JobState::Running, "active");
        let mut after = before.clone();
        change(&mut after);
        PartHashes::of(&before).fingerprint(view) != PartHashes::of(&after).fingerprint(view)
    }

    const STATES: View = View { progress: false, ..View::STANDARD };

    #[test]
    fn fingerprint_of_hidden_change_is_equal() {
        let result = JobResult { data: Bytes::from_static(b"1"), content_type: ContentType::Json };
        assert!(!seen_in(View::BASIC, |o| o.result = Some(result.clone())));
        assert!(seen_in(STATES, |o| o.result = Some(result)));
        assert!(!seen_in(STATES, |o| o.vendor_payload = Bytes::from_static(b"{}")));
        assert!(seen_in(View::FULL, |o| o.vendor_payload = Bytes::from_static(b"{}")));
        let progress = Progress { percent: Some(0.0), ..Progress::default() };
        assert!(!seen_in(STATES, |o| o.progress = Some(progress.clone())));
        assert!(seen_in(View::BASIC, |o| o.progress = Some(progress)));
    }

    #[test]
    fn fingerprint_of_core_change_differs_in_every_view() {
        for view in [View::BASIC, STATES, View::FULL] {
            assert!(seen_in(view, |o| o.state = JobState::Retrying));
            assert!(seen_in(view, |o| o.vendor_state = "retry".into()));
            assert!(seen_in(view, |o| o.error = Some(JobError::default())));
            assert!(seen_in(view, |o| o.owner = "42".into()));
            assert!(seen_in(view, |o| o.warnings = vec![String::new()]));
            assert!(seen_in(view, |o| o.end_time = Some(Timestamp::UNIX_EPOCH)));
            assert!(seen_in(view, |o| o.artifacts.push(Artifact {
                id: "a".into(),
                category: String::new(),
                file_name: String::new(),
                vendor_uri: String::new(),
                query: HiddenQuery::default(),
            })));
        }
    }

    #[test]
    fn fingerprint_value_is_stable_across_releases() {
        let observation = Observation::new(JobState::Running, "active");
        let hashes = PartHashes::of(&observation);
        assert_eq!(hashes.fingerprint(View::FULL), Fingerprint(15_372_763_177_567_026_309));
    }

    #[test]
    fn fingerprint_of_large_data_equals_that_of_copied_data() {
        for size in [LARGE - 1, LARGE, 100_000] {
            let data = vec![7; size];
            let mut copied = Canonical(Vec::new());
            copied.number(1);
            copied.bytes(&data);
            let mut in_place = Canonical(Vec::new());
            in_place.number(1);
            assert_eq!(in_place.finish_with(&data), copied.finish(), "{size} bytes");
            assert!(in_place.0.is_empty());
        }
    }

    #[test]
    fn parts_as_sets_are_united_subtracted_and_compared() {
        let (result, payload) = (View::STANDARD.parts(), Parts { result: false, payload: true });
        assert_eq!(View::BASIC.parts(), Parts::NONE);
        assert_eq!(View::FULL.parts(), Parts::ALL);
        assert_eq!(result.union(payload), Parts::ALL);
        assert_eq!(Parts::ALL.difference(result), payload);
        assert!(result.contains(Parts::NONE) && result.contains(result) && Parts::ALL.contains(result));
        assert!(!result.contains(payload) && !Parts::NONE.contains(payload));
    }
}
