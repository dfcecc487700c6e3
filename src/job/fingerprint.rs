//! Tells whether two observations look the same to a caller.
//!
//! A fingerprint travels in resume tokens, so its value may not depend on the
//! process, the platform or the compiler: every field is fed to XXH3 in a fixed
//! order, with its length before it.

use jiff::Timestamp;
use xxhash_rust::xxh3::xxh3_64;

use super::{Artifact, JobError, JobResult, Observation, Progress};

/// Which parts of a status a caller is shown; what is not shown can't differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lens {
    /// Whether the result is shown.
    pub result: bool,
    /// Whether the vendor's payload is shown.
    pub payload: bool,
    /// Whether a change of nothing but progress counts.
    pub progress: bool,
}

impl Lens {
    /// All that the vendor documents; its payload may hold more.
    pub const SHOWN: Self = Self { result: true, payload: false, progress: true };
    /// Everything shows, everything counts.
    pub const FULL: Self = Self { result: true, payload: true, progress: true };
}

/// Stands for all that a status shows through a [`Lens`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub u64);

/// One hash for each part of an observation that a lens can leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sections {
    core: u64,
    progress: u64,
    result: u64,
    payload: u64,
}

impl Sections {
    /// The hashes of what was observed.
    pub fn of(observation: &Observation) -> Self {
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
        for Artifact { id, category, file_name, vendor_uri } in artifacts {
            for text in [id, category, file_name, vendor_uri] {
                out.bytes(text.as_bytes());
            }
        }
        for time in [create_time, start_time, end_time] {
            out.option(time.as_ref(), |out, time| out.time(*time));
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

        out.option(result.as_ref(), |out, JobResult { data, content_type }| {
            out.bytes(content_type.as_str().as_bytes());
            out.bytes(data);
        });
        let result = out.finish();

        out.bytes(vendor_payload);
        Self { core, progress, result, payload: out.finish() }
    }

    /// The hash of what `lens` shows.
    pub fn through(&self, lens: Lens) -> Fingerprint {
        let mut out = [0; 7 * 8];
        let mut end = 0;
        let mut number = |number: u64| {
            out[end..end + 8].copy_from_slice(&number.to_le_bytes());
            end += 8;
        };
        number(self.core);
        for (shown, hash) in
            [(lens.progress, self.progress), (lens.result, self.result), (lens.payload, self.payload)]
        {
            number(u64::from(shown));
            if shown {
                number(hash);
            }
        }
        Fingerprint(xxh3_64(&out[..end]))
    }
}

/// The bytes that are hashed. One buffer serves all sections: XXH3's own incremental
/// state takes longer to set up than most sections to hash.
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

    /// The hash of what was fed since the last one.
    fn finish(&mut self) -> u64 {
        let hash = xxh3_64(&self.0);
        self.0.clear();
        hash
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::job::{ContentType, JobState};

    fn seen_through(lens: Lens, change: impl FnOnce(&mut Observation)) -> bool {
        let before = Observation::new(JobState::Running, "active");
        let mut after = before.clone();
        change(&mut after);
        Sections::of(&before).through(lens) != Sections::of(&after).through(lens)
    }

    const BASIC: Lens = Lens { result: false, payload: false, progress: true };
    const STATES: Lens = Lens { result: true, payload: false, progress: false };

    #[test]
    fn a_change_that_the_lens_hides_is_not_seen() {
        let result = JobResult { data: Bytes::from_static(b"1"), content_type: ContentType::Json };
        assert!(!seen_through(BASIC, |o| o.result = Some(result.clone())));
        assert!(seen_through(STATES, |o| o.result = Some(result)));
        assert!(!seen_through(STATES, |o| o.vendor_payload = Bytes::from_static(b"{}")));
        assert!(seen_through(Lens::FULL, |o| o.vendor_payload = Bytes::from_static(b"{}")));
        let progress = Progress { percent: Some(0.0), ..Progress::default() };
        assert!(!seen_through(STATES, |o| o.progress = Some(progress.clone())));
        assert!(seen_through(BASIC, |o| o.progress = Some(progress)));
    }

    #[test]
    fn every_core_field_is_seen_by_everyone() {
        for lens in [BASIC, STATES, Lens::FULL] {
            assert!(seen_through(lens, |o| o.state = JobState::Retrying));
            assert!(seen_through(lens, |o| o.vendor_state = "retry".into()));
            assert!(seen_through(lens, |o| o.error = Some(JobError::default())));
            assert!(seen_through(lens, |o| o.owner = "42".into()));
            assert!(seen_through(lens, |o| o.end_time = Some(Timestamp::UNIX_EPOCH)));
            assert!(seen_through(lens, |o| o.artifacts.push(Artifact {
                id: "a".into(),
                category: String::new(),
                file_name: String::new(),
                vendor_uri: String::new(),
            })));
        }
    }

    #[test]
    fn the_value_is_the_same_in_every_release() {
        let observation = Observation::new(JobState::Running, "active");
        assert_eq!(Sections::of(&observation).through(Lens::FULL), Fingerprint(15_372_763_177_567_026_309));
    }
}
