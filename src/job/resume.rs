//! The resume token: all that a watch has to know to go on elsewhere.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use super::{Fingerprint, JobRef};

const VERSION: u8 = 1;
const LENGTH: usize = 1 + 3 * 8;

/// What was sent last on a watch. Opaque to callers; needs no memory on the
/// server, and any replica can read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResumeToken {
    /// What the last status sent looked like.
    pub fingerprint: Fingerprint,
    /// When it was observed: microseconds since 1970.
    pub observed_at: i64,
}

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
    /// Writes the token for a watch of `job`: URL-safe base64 of a version, a
    /// hash of the job, the fingerprint and the observe time.
    pub fn encode(&self, job: &JobRef) -> String {
        let mut bytes = [0; LENGTH];
        bytes[0] = VERSION;
        bytes[1..9].copy_from_slice(&hash(job).to_le_bytes());
        bytes[9..17].copy_from_slice(&self.fingerprint.0.to_le_bytes());
        bytes[17..].copy_from_slice(&self.observed_at.to_le_bytes());
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a token that a watch of `job` was given.
    ///
    /// # Errors
    /// Any text that [`Self::encode`] did not write for this job.
    pub fn decode(text: &str, job: &JobRef) -> Result<Self, InvalidResumeToken> {
        let bytes: [u8; LENGTH] = BASE64_URL_SAFE_NO_PAD
            .decode(text)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(InvalidResumeToken::Unreadable)?;
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            word
        };
        if bytes[0] != VERSION {
            return Err(InvalidResumeToken::Unreadable);
        }
        let observed_at = i64::from_le_bytes(word(17));
        Timestamp::from_microsecond(observed_at).map_err(|_| InvalidResumeToken::Unreadable)?;
        if u64::from_le_bytes(word(1)) != hash(job) {
            return Err(InvalidResumeToken::OtherJob);
        }
        Ok(Self { fingerprint: Fingerprint(u64::from_le_bytes(word(9))), observed_at })
    }
}

fn hash(job: &JobRef) -> u64 {
    let JobRef { backend, id, tag } = job;
    let mut bytes = Vec::with_capacity(64);
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

    fn token() -> ResumeToken {
        ResumeToken { fingerprint: Fingerprint(7), observed_at: 1_700_000_000_123_456 }
    }

    #[test]
    fn a_token_comes_back_as_it_was_issued() {
        let job = JobRef::new("immuta", "a").with_tag("t");
        assert_eq!(ResumeToken::decode(&token().encode(&job), &job), Ok(token()));
    }

    #[test]
    fn a_token_of_another_job_is_refused() {
        let job = JobRef::new("immuta", "a");
        let text = token().encode(&job);
        for other in [
            JobRef::new("immuta", "b"),
            JobRef::new("immutaa", ""),
            JobRef::new("other", "a"),
            JobRef::new("immuta", "a").with_tag("t"),
        ] {
            assert_eq!(ResumeToken::decode(&text, &other), Err(InvalidResumeToken::OtherJob));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,64}") {
            let _ = ResumeToken::decode(&text, &JobRef::new("b", "j"));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = ResumeToken::decode(&BASE64_URL_SAFE_NO_PAD.encode(bytes), &JobRef::new("b", "j"));
        }
    }
}
