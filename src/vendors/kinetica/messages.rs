//! What the words of an error say about the cluster, where no code does.
//!
//! A message may repeat the job's id and tag, which the caller chose: they are taken out
//! before it is read, and a phrase counts only as whole words.

use http::StatusCode;

use crate::{
    job::{BackendFault, FaultKind, JobRef},
    vendors::response,
};

/// What a cluster says that can't serve requests now, in lower case.
const GOING_AWAY: &[&str] = &[
    "kinetica is exiting",
    "kinetica is offline",
    "system is offline",
    "system shutting down",
    "draining ha queue",
    "system-limited-fatal",
    "connection refused",
    "connection reset",
    "unexpected end of file from server",
    "query planner is not running",
];

/// Why the call went wrong, as far as it is the cluster's matter; only the words of the
/// message tell. `job` is the one that was polled.
pub(super) fn cluster_fault(message: &str, job: Option<&JobRef>, status: StatusCode) -> Option<BackendFault> {
    let mut text = message.to_lowercase();
    for name in job.into_iter().flat_map(|job| [Some(&*job.id), job.tag.as_deref()]).flatten() {
        text = without(&text, &name.to_lowercase());
    }
    let says = |phrase: &str| occurrences(&text, phrase).next().is_some();
    let going_away =
        GOING_AWAY.iter().filter_map(|phrase| Some((occurrences(&text, phrase).next()?, phrase)));
    let kind = if let Some((_, phrase)) = going_away.min() {
        FaultKind::Unavailable { why: format!("it says \"{phrase}\"") }
    } else if says("insufficient credentials") {
        FaultKind::CredentialsRejected
    } else if says("access denied") {
        FaultKind::Forbidden
    } else {
        return None;
    };
    Some(response::judged(kind, status))
}

/// The text with a mark, which is no part of a phrase, in place of a name.
fn without(text: &str, name: &str) -> String {
    let (mut rest, mut end) = (String::new(), 0);
    for at in occurrences(text, name) {
        if at >= end {
            rest.push_str(&text[end..at]);
            rest.push('*');
            end = at + name.len();
        }
    }
    rest + &text[end..]
}

/// Where `words` stand in the text as whole words.
fn occurrences<'a>(text: &'a str, words: &'a str) -> impl Iterator<Item = usize> {
    let is_of_a_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let found = text.match_indices(words).filter(|_| !words.is_empty()).map(|(at, _)| at);
    found.filter(move |at| {
        !text[..*at].ends_with(is_of_a_word) && !text[at + words.len()..].starts_with(is_of_a_word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(message: &str, tag: &str) -> Option<FaultKind> {
        let job = JobRef::new("db", "7").with_tag(tag);
        cluster_fault(message, Some(&job), StatusCode::BAD_REQUEST).map(|fault| fault.kind)
    }

    #[test]
    fn words_of_the_cluster_count_in_any_case_and_place() {
        for phrase in GOING_AWAY {
            for message in
                [phrase.to_uppercase(), format!("Unavailable: {phrase}. (S/SDc:1)"), format!("x:{phrase}")]
            {
                let why = format!("it says \"{phrase}\"");
                assert_eq!(kind(&message, "t"), Some(FaultKind::Unavailable { why }), "{message}");
            }
        }
        assert_eq!(kind("Access denied; ok", "t"), Some(FaultKind::Forbidden));
        assert_eq!(kind("Insufficient credentials", "t"), Some(FaultKind::CredentialsRejected));
    }

    #[test]
    fn name_of_the_job_is_never_evidence() {
        for (message, tag) in [
            ("Job system-limited-fatal failed", "system-limited-fatal"),
            ("job_tag=SYSTEM-LIMITED-FATAL is not valid", "system-limited-fatal"),
            ("job tag 'system-limited-fatal', system-limited-fatal", "System-Limited-Fatal"),
            ("Tag access denied", "access"),
            ("Job with tag connection refused by policy", "connection"),
            ("Job my-system-limited-fatal failed", "t"),
            ("Job system-limited-fatal_2 failed", "t"),
            ("Table access_denied is locked", "t"),
            ("Reconnection refused", "t"),
            ("Tag 7-system-limited-fatal is too long", "7-system-limited-fatal"),
        ] {
            assert_eq!(kind(message, tag), None, "{message}");
        }
    }

    #[test]
    fn first_words_of_a_message_count() {
        let why = "it says \"connection reset\"".to_owned();
        let message = "Connection reset: Kinetica is exiting, access denied";
        assert_eq!(kind(message, "t"), Some(FaultKind::Unavailable { why }));
    }

    #[test]
    fn words_beside_the_name_of_the_job_count() {
        let why = "it says \"kinetica is exiting\"".to_owned();
        let message = "Job system-limited-fatal: Kinetica is exiting";
        assert_eq!(kind(message, "system-limited-fatal"), Some(FaultKind::Unavailable { why }));
    }
}
