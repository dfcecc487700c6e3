//! What a vendor's free-text refusal says about a job.
//!
//! Where no code tells a missing job from a missing anything else, the words
//! have to. A job wrongly called missing would end its watch, so only a sentence
//! in which the job itself is what is missing counts.

use crate::job::{JobRef, vendor_message};

const JOB: &[&str] = &["job", "jobs", "job_id", "job_ids", "jobid", "job_tag"];

/// May stand between the word for the job and what is said of it, as may the
/// job's own id and tag and any number.
const NAMING: &[&str] =
    &["id", "ids", "identifier", "tag", "number", "with", "the", "given", "specified", "for", "named"];
const AUXILIARY: &[&str] = &["is", "was", "are", "were", "has", "been", "could", "can"];

const ABSENT: &[&[&str]] = &[
    &["not", "found"],
    &["not", "be", "found"],
    &["cannot", "be", "found"],
    &["can't", "be", "found"],
    &["couldn't", "be", "found"],
    &["not", "exist"],
    &["does", "not", "exist"],
    &["doesn't", "exist"],
    &["no", "longer", "exists"],
    &["unknown"],
];
const NO_SUCH: &[&[&str]] = &[
    &["no"],
    &["no", "such"],
    &["unknown"],
    &["invalid"],
    &["not", "find"],
    &["cannot", "find"],
    &["can't", "find"],
    &["couldn't", "find"],
    &["unable", "to", "find"],
];

/// Whether `message` says that `job` does not exist, rather than that something
/// else does not.
pub(super) fn says_no_such_job(message: &str, job: &JobRef) -> bool {
    says_none_of(message, job, &[])
}

/// The same of a vendor that has these words for a job, too, in lower case.
pub(super) fn says_none_of(message: &str, job: &JobRef, nouns: &[String]) -> bool {
    let text = unquoted(&vendor_message(message));
    let words = words(&text);
    let (id, tag) = (job.id.to_lowercase(), job.tag.as_deref().unwrap_or_default().to_lowercase());
    let own = [self::words(&id), self::words(&tag)].concat();
    let names = |word: &str| {
        NAMING.contains(&word)
            || own.contains(&word)
            || word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
    };
    let is_job = |word: &str| JOB.contains(&word) || nouns.iter().any(|noun| noun == word);
    let mut at = (0..words.len()).filter(|&at| is_job(words[at]));
    at.any(|at| {
        let (before, after) = (&words[..at], &words[at + 1..]);
        let before = match before {
            [before @ .., "the" | "a" | "any" | "async" | "asynchronous"] => before,
            _ => before,
        };
        let is_the_job = after.first().is_none_or(|word| names(word));
        let skipped = after.iter().take_while(|word| names(word) || AUXILIARY.contains(word)).count();
        ABSENT.iter().any(|phrase| after[skipped..].starts_with(phrase))
            || is_the_job && NO_SUCH.iter().any(|phrase| before.ends_with(phrase))
    })
}

fn words(text: &str) -> Vec<&str> {
    text.split(|c: char| !c.is_alphanumeric() && !"_-:'".contains(c))
        .map(|word| word.trim_matches([':', '\'']))
        .filter(|word| !word.is_empty())
        .collect()
}

/// In lower case, without what stands in quotes: names there are data. An
/// apostrophe within a word opens no quote.
fn unquoted(text: &str) -> String {
    let (mut rest, mut quote, mut within_word) = (String::new(), None, false);
    for c in text.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if !within_word && matches!(c, '\'' | '"' | '`') => {
                rest.push(' ');
                quote = Some(c);
            }
            None => rest.extend(c.to_lowercase()),
        }
        within_word = c.is_alphanumeric();
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(message: &str) -> bool {
        says_no_such_job(message, &JobRef::new("db", "999").with_tag("tag-2"))
    }

    #[test]
    fn sentence_whose_job_is_missing_counts() {
        for message in [
            "Job id 999 not found (J/TEST:1)",
            "Job '999' not found",
            "JOB NOT FOUND",
            "job_id: 999 does not exist",
            "The job with id 999 doesn't exist.",
            "Job tag-2 could not be found",
            "Job no longer exists",
            "Invalid job_id: 999",
            "Invalid job id",
            "No such job: 999",
            "There is no job with id 999",
            "Unable to find the job 999",
            "Unknown job \"x\"",
        ] {
            assert!(says(message), "{message}");
        }
    }

    #[test]
    fn vendors_own_word_for_a_job_counts() {
        let (job, nouns) = (JobRef::new("db", "999"), ["transcript".to_owned(), "transcript_id".to_owned()]);
        for message in ["Transcript 999 not found", "Unknown transcript", "transcript_id 999 does not exist"]
        {
            assert!(says_none_of(message, &job, &nouns), "{message}");
            assert!(!says_no_such_job(message, &job), "{message}");
        }
        for message in
            ["Audio not found", "Transcript t-998 not found by 999x", "The transcript's audio is unknown"]
        {
            assert!(!says_none_of(message, &job, &nouns), "{message}");
        }
    }

    #[test]
    fn id_may_be_of_several_words() {
        let job = JobRef::new("db", "Nightly/load v1.2");
        assert!(says_no_such_job("Job Nightly/load v1.2 not found", &job));
        assert!(says_no_such_job("Cannot find job nightly/load v1.2", &job));
        assert!(!says_no_such_job("Job other/load v1.2 not found", &job));
    }

    #[test]
    fn sentence_about_something_else_does_not_count() {
        for message in [
            "",
            "SqlEngine: Object '_kbi_filt_spike_test' not found (S/SDc:1513)",
            "Object 'job' not found",
            "Object \"the job not found\" is locked",
            "Object job_log not found",
            "Job 999 failed: table t does not exist",
            "table t not found. Job 999 failed",
            "Job manager not found",
            "Invalid job type",
            "No job is running",
            "Access denied",
        ] {
            assert!(!says(message), "{message}");
        }
    }
}
