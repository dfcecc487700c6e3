//! The states that words usually mean.

/// Words of many vendors, in lower case without what stands between their letters. Words
/// that mean different states at different vendors, such as `ended`, are left out.
const WORDS: [(&str, &[&str]); 8] = [
    (
        "PENDING",
        &[
            "pending",
            "queued",
            "waiting",
            "scheduled",
            "submitted",
            "created",
            "requested",
            "accepted",
            "enqueued",
            "inqueue",
            "notstarted",
            "new",
            "initializing",
            "provisioning",
        ],
    ),
    (
        "RUNNING",
        &[
            "running",
            "inprogress",
            "processing",
            "started",
            "active",
            "working",
            "executing",
            "building",
            "ongoing",
            "inflight",
            "uploading",
            "finalizing",
        ],
    ),
    ("RETRYING", &["retry", "retrying", "waitingforretry", "upforretry"]),
    ("CANCELLING", &["canceling", "cancelling", "cancelrequested", "stopping", "aborting"]),
    (
        "SUCCEEDED",
        &[
            "succeeded",
            "success",
            "successful",
            "completed",
            "complete",
            "done",
            "finished",
            "ok",
            "passed",
            "jobcomplete",
        ],
    ),
    (
        "FAILED",
        &[
            "failed",
            "failure",
            "error",
            "errored",
            "broken",
            "crashed",
            "fault",
            "faulted",
            "exception",
            "rejected",
        ],
    ),
    ("CANCELLED", &["cancelled", "canceled", "aborted", "skipped", "killed", "revoked"]),
    ("EXPIRED", &["expired", "timedout", "timeout"]),
];

/// The name of the state that a word usually means.
pub(super) fn state_of(word: &str) -> Option<&'static str> {
    let letters: String = word.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    WORDS.iter().find(|(_, words)| words.contains(&&*letters)).map(|(state, _)| *state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendors::declared::{Definition, SHIPPED};

    #[test]
    fn words_of_shipped_definitions_mean_what_is_guessed() {
        let (mut same, mut others) = (0, Vec::new());
        for shipped in SHIPPED {
            let definition = Definition::parse(shipped.definition).unwrap();
            for (state, word) in definition.states.patterns() {
                // The last part of a word of several is no word of its own.
                match state_of(&word).filter(|_| !word.contains('/')) {
                    Some(guessed) if guessed == state => same += 1,
                    Some(guessed) => {
                        others.push(format!("{}: {word} is {state}, not {guessed}", shipped.name));
                    }
                    None => {}
                }
            }
        }
        assert!(same > 70, "{same}");
        // What a newcomer has to correct after reading the vendor's page.
        assert!(others.len() * 20 < same, "{same} as guessed, but {others:#?}");
    }

    #[test]
    fn word_is_known_in_every_style() {
        for word in ["IN_PROGRESS", "in progress", "InProgress", "inProgress"] {
            assert_eq!(state_of(word), Some("RUNNING"), "{word}");
        }
        assert_eq!(state_of("zorp"), None);
    }
}
