//! The resume token: what a watch needs to continue elsewhere.
//!
//! ```text
//! version 2:  2 | hash of the job | fingerprint [ | observer | sequence ]
//! version 1:  1 | hash of the job | fingerprint | wall-clock time, ignored
//! ```
//!
//! Numbers are little-endian 64-bit integers after one byte for the version. The
//! bytes are encoded as URL-safe base64 without padding.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use super::{Fingerprint, JobRef};

/// Written by releases before 0.2. Its time can't be compared between replicas.
const VERSION_1: u8 = 1;
const VERSION_2: u8 = 2;

/// What a watch sent last. Opaque to callers; needs no memory on the server, and
/// every replica can read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResumeToken {
    /// Fingerprint of the last status sent, in the caller's view.
    pub fingerprint: Fingerprint,
    /// Who observed that status, and when. Unknown in tokens of version 1.
    pub observed: Option<Observed>,
}

/// Orders the observations of one observer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The engine that polled the vendor.
    pub observer: ObserverId,
    /// When the poll began: microseconds on the observer's monotonic clock.
    pub sequence: u64,
}

/// Identifies one engine. Every engine draws a random value when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ObserverId(pub u64);

/// Why a resume token can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InvalidResumeToken {
    /// Not a token of this service.
    #[error("can't be read; send one exactly as it was received, or leave it empty")]
    Unreadable,
    /// A token that was issued for a watch of another job.
    #[error("belongs to another job; send the one received for this job, or leave it empty")]
    OtherJob,
}

impl ResumeToken {
    /// Writes the token for a watch of `job`, in version 2.
    pub fn encode(&self, job: &JobRef) -> String {
        let Self { fingerprint, observed } = self;
        let mut bytes = Vec::with_capacity(1 + 4 * 8);
        bytes.push(VERSION_2);
        bytes.extend_from_slice(&hash(job).to_le_bytes());
        bytes.extend_from_slice(&fingerprint.0.to_le_bytes());
        if let Some(Observed { observer, sequence }) = observed {
            bytes.extend_from_slice(&observer.0.to_le_bytes());
            bytes.extend_from_slice(&sequence.to_le_bytes());
        }
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a token that was issued for a watch of `job`.
    ///
    /// # Errors
    /// `Unreadable` for any text that no release wrote, and for versions of later
    /// releases; `OtherJob` for a token of another job.
    pub fn decode(text: &str, job: &JobRef) -> Result<Self, InvalidResumeToken> {
        let unreadable = InvalidResumeToken::Unreadable;
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| unreadable)?;
        let (version, rest) = bytes.split_first().ok_or(unreadable)?;
        let (words, tail) = rest.as_chunks::<8>();
        if !tail.is_empty() {
            return Err(unreadable);
        }
        let words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let (job_hash, fingerprint, observed) = match (*version, &words[..]) {
            (VERSION_1, &[job, fingerprint, _]) | (VERSION_2, &[job, fingerprint]) => {
                (job, fingerprint, None)
            }
            (VERSION_2, &[job, fingerprint, observer, sequence]) => {
                (job, fingerprint, Some(Observed { observer: ObserverId(observer), sequence }))
            }
            _ => return Err(unreadable),
        };
        if job_hash != hash(job) {
            return Err(InvalidResumeToken::OtherJob);
        }
        Ok(Self { fingerprint: Fingerprint(fingerprint), observed })
    }
}

fn hash(job: &JobRef) -> u64 {
    let JobRef { backend, id, tag } = job;
    let mut bytes = Vec::with_capacity(128);
    for part in [Some(backend), Some(id), tag.as_ref()] {
        let part = part.map_or("", |part| &**part);
        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    xxh3_64(&bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OBSERVED: Observed = Observed { observer: ObserverId(0xfeed_f00d_dead_beef), sequence: 1_234_567 };
    const TOKEN: ResumeToken = ResumeToken { fingerprint: Fingerprint(7), observed: Some(OBSERVED) };

    /// As release 0.1 wrote it for the job `immuta/a` with tag `t`, fingerprint 7 and
    /// observe time 1,700,000,000,123,456.
    const VERSION_1_TOKEN: &str = "AdtsLPIXWWeuBwAAAAAAAABAIiAYJAoGAA";

    fn job() -> JobRef {
        JobRef::new("immuta", "a").with_tag("t")
    }

    #[test]
    fn token_of_same_job_round_trips() {
        for token in [TOKEN, ResumeToken { observed: None, ..TOKEN }] {
            assert_eq!(ResumeToken::decode(&token.encode(&job()), &job()), Ok(token));
        }
    }

    #[test]
    fn token_of_version_1_is_read_without_observer() {
        let read = ResumeToken::decode(VERSION_1_TOKEN, &job());
        assert_eq!(read, Ok(ResumeToken { fingerprint: Fingerprint(7), observed: None }));
        let other = ResumeToken::decode(VERSION_1_TOKEN, &JobRef::new("immuta", "a"));
        assert_eq!(other, Err(InvalidResumeToken::OtherJob));
    }

    #[test]
    fn token_of_version_2_has_a_stable_encoding() {
        assert_eq!(TOKEN.encode(&job()), "AttsLPIXWWeuBwAAAAAAAADvvq3eDfDt_ofWEgAAAAAA");
    }

    #[test]
    fn token_of_another_job_is_refused() {
        let job = JobRef::new("immuta", "a");
        let text = TOKEN.encode(&job);
        for other in [
            JobRef::new("immuta", "b"),
            JobRef::new("immutaa", ""),
            JobRef::new("other", "a"),
            JobRef::new("immuta", "a").with_tag("t"),
        ] {
            assert_eq!(ResumeToken::decode(&text, &other), Err(InvalidResumeToken::OtherJob));
        }
    }

    #[test]
    fn token_of_unknown_version_or_length_is_unreadable() {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(TOKEN.encode(&job())).unwrap();
        let refused = |bytes: &[u8]| {
            let read = ResumeToken::decode(&BASE64_URL_SAFE_NO_PAD.encode(bytes), &job());
            assert_eq!(read, Err(InvalidResumeToken::Unreadable), "{bytes:?}");
        };
        for version in (0..=u8::MAX).filter(|version| *version != VERSION_2) {
            refused(&[&[version], &bytes[1..]].concat());
        }
        for length in (0..bytes.len()).filter(|length| *length != 17) {
            refused(&bytes[..length]);
        }
        refused(&[&bytes[..], &[0; 8]].concat());
    }

    proptest! {
        #[test]
        fn any_token_round_trips(
            fingerprint: u64,
            observed in proptest::option::of((any::<u64>(), any::<u64>())),
            id in "\\PC{1,20}",
            tag in proptest::option::of("\\PC{1,20}"),
        ) {
            let observed = observed
                .map(|(observer, sequence)| Observed { observer: ObserverId(observer), sequence });
            let token = ResumeToken { fingerprint: Fingerprint(fingerprint), observed };
            let job = JobRef { tag: tag.map(Into::into), ..JobRef::new("b", id) };
            prop_assert_eq!(ResumeToken::decode(&token.encode(&job), &job), Ok(token));
        }

        /// Text that was not issued for this job is refused, and reading it does not panic.
        #[test]
        fn any_text_is_refused(text in "\\PC{0,64}") {
            prop_assert!(ResumeToken::decode(&text, &JobRef::new("b", "j")).is_err());
        }

        #[test]
        fn any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let text = BASE64_URL_SAFE_NO_PAD.encode(bytes);
            prop_assert!(ResumeToken::decode(&text, &JobRef::new("b", "j")).is_err());
        }
    }
}
