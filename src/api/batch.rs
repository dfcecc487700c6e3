//! Fits the elements of a batch into one response message.

use prost::{Message, encoding};

use super::{request, status};
use crate::{
    engine::Failure,
    proto::served::{BatchGetStatusesResponse, JobStatusResult, job_status_result::Outcome},
};

/// Number of the field `results`.
const RESULTS: u32 = 1;

/// A response of at most `message_bytes` when encoded. Room for the errors of all
/// elements is reserved first. Then every status is sent, in request order, that fits
/// into the rest; the others are replaced by an error.
///
/// # Errors
/// `TooManyBytes` if not even the errors fit: requests may hold long job ids, which
/// the response repeats.
pub(super) fn response(
    results: Vec<JobStatusResult>,
    message_bytes: usize,
) -> Result<BatchGetStatusesResponse, Failure> {
    let mut response = BatchGetStatusesResponse { results };
    if response.encoded_len() <= message_bytes {
        return Ok(response);
    }
    let failure = Failure::TooManyBytes { key: "limits.message_bytes", limit: message_bytes as u64 };
    let replacements: Vec<Option<JobStatusResult>> =
        response.results.iter().map(|element| replacement(element, &failure)).collect();
    let smallest = response.results.iter().zip(&replacements);
    let reserved: usize = smallest.map(|(element, error)| size(error.as_ref().unwrap_or(element))).sum();
    let mut free = message_bytes.checked_sub(reserved).ok_or(failure)?;
    for (element, replacement) in response.results.iter_mut().zip(replacements) {
        let Some(error) = replacement else { continue };
        let extra = size(element) - size(&error);
        if extra <= free {
            free -= extra;
        } else {
            *element = error;
        }
    }
    Ok(response)
}

/// The error that can be sent in place of a status, if it is smaller.
fn replacement(element: &JobStatusResult, failure: &Failure) -> Option<JobStatusResult> {
    let JobStatusResult { job, outcome: Some(Outcome::Status(_)) } = element else { return None };
    let job_ref = request::job(job.clone().unwrap_or_default(), None);
    let error = status::to_proto(&status::of_failure(failure, &job_ref, "job"));
    let error = JobStatusResult { job: job.clone(), outcome: Some(Outcome::Error(error)) };
    (size(&error) < size(element)).then_some(error)
}

/// Bytes that an element takes in the encoded response.
fn size(element: &JobStatusResult) -> usize {
    let len = element.encoded_len();
    encoding::key_len(RESULTS) + encoding::encoded_len_varint(len as u64) + len
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use jiff::Timestamp;
    use tonic::Code;

    use super::*;
    use crate::{
        job::{ContentType, JobRef, JobResult, JobState, Observation, Parts, View},
        proto::v1 as pb,
        snapshot::{Shown, Snapshot, StatusBudget},
    };

    const MESSAGE_BYTES: usize = 4 << 20;

    fn snapshot(result_bytes: usize) -> Arc<Snapshot> {
        let data = Bytes::from(vec![b'x'; result_bytes]);
        let observation = Observation {
            result: Some(JobResult { data, content_type: ContentType::Text }),
            ..Observation::new(JobState::Succeeded, "done")
        };
        Arc::new(Snapshot::new(observation, Parts::ALL, usize::MAX, &StatusBudget::new(0)))
    }

    fn element(id: &str, snapshot: &Arc<Snapshot>) -> JobStatusResult {
        let shown = Shown::new(JobRef::new("b", id), Arc::clone(snapshot), View::FULL, Timestamp::UNIX_EPOCH);
        let job = pb::JobRef { backend: "b".into(), job_id: id.into(), job_tag: String::new() };
        JobStatusResult { job: Some(job), outcome: Some(Outcome::Status(shown)) }
    }

    /// The positions of the elements that hold a status. Decodes what was encoded.
    fn statuses(response: &BatchGetStatusesResponse, message_bytes: usize) -> Vec<usize> {
        let bytes = response.encode_to_vec();
        assert!(bytes.len() <= message_bytes, "{} bytes", bytes.len());
        let response = pb::BatchGetStatusesResponse::decode(&*bytes).unwrap();
        let mut statuses = Vec::new();
        for (index, element) in response.results.into_iter().enumerate() {
            assert!(element.job.is_some());
            match element.outcome.unwrap() {
                pb::job_status_result::Outcome::Status(_) => statuses.push(index),
                pb::job_status_result::Outcome::Error(error) => {
                    assert_eq!(error.code, Code::ResourceExhausted as i32);
                    assert!(error.message.contains("limits.message_bytes"), "{}", error.message);
                }
            }
        }
        statuses
    }

    #[test]
    fn batch_of_one_large_snapshot_holds_only_errors() {
        let large = snapshot(8 << 20);
        let results = (0..1000).map(|_| element("a", &large)).collect();
        let response = response(results, MESSAGE_BYTES).unwrap();
        assert_eq!(response.results.len(), 1000);
        assert_eq!(statuses(&response, MESSAGE_BYTES), [0; 0]);
        assert_eq!(Arc::strong_count(&large), 1, "an element without its status does not hold it");
    }

    #[test]
    fn batch_shares_the_snapshot_of_a_repeated_job() {
        let shared = snapshot(3000);
        let results = (0..1000).map(|_| element("a", &shared)).collect();
        let response = response(results, MESSAGE_BYTES).unwrap();
        assert_eq!(Arc::strong_count(&shared), 1001);
        assert_eq!(statuses(&response, MESSAGE_BYTES).len(), 1000);
    }

    #[test]
    fn batch_of_small_snapshots_holds_every_status() {
        let results = (0..1000).map(|n| element(&n.to_string(), &snapshot(10))).collect();
        let response = response(results, MESSAGE_BYTES).unwrap();
        assert_eq!(statuses(&response, MESSAGE_BYTES).len(), 1000);
    }

    #[test]
    fn small_status_after_large_ones_is_still_sent() {
        let (large, small) = (snapshot(1 << 20), snapshot(10));
        let mut results: Vec<_> = (0..999).map(|_| element("a", &large)).collect();
        results.push(element("b", &small));
        let response = response(results, MESSAGE_BYTES).unwrap();
        assert_eq!(statuses(&response, MESSAGE_BYTES), [0, 1, 2, 999]);
    }

    #[test]
    fn status_that_fits_exactly_is_sent() {
        let large = snapshot(100_000);
        let results = || (0..5).map(|_| element("a", &large)).collect::<Vec<_>>();
        let whole = BatchGetStatusesResponse { results: results() }.encoded_len();
        assert_eq!(statuses(&response(results(), whole).unwrap(), whole), [0, 1, 2, 3, 4]);
        let less = whole - 1;
        assert_eq!(statuses(&response(results(), less).unwrap(), less), [0, 1, 2, 3]);
    }

    #[test]
    fn errors_of_jobs_are_never_replaced() {
        let error = pb::CallError { code: 5, message: "x".repeat(5000), ..Default::default() };
        let missing = JobStatusResult {
            job: Some(pb::JobRef::default()),
            outcome: Some(Outcome::Error(error.clone())),
        };
        let results = vec![element("a", &snapshot(10_000)), missing];
        let response = response(results, 10_000).unwrap();
        assert!(response.encoded_len() <= 10_000);
        assert!(matches!(&response.results[0].outcome, Some(Outcome::Error(status)) if status.code == 8));
        assert_eq!(response.results[1].outcome, Some(Outcome::Error(error)));
    }

    #[test]
    fn batch_whose_errors_do_not_fit_fails_as_a_whole() {
        let large = snapshot(1 << 20);
        let id = "x".repeat(5000);
        let results = (0..1000).map(|_| element(&id, &large)).collect();
        let failure = response(results, MESSAGE_BYTES).unwrap_err();
        let limit = MESSAGE_BYTES as u64;
        assert!(
            matches!(failure, Failure::TooManyBytes { key: "limits.message_bytes", limit: l } if l == limit)
        );
    }
}
