//! An answer read whole, as the tests and the fuzz targets look at it.

use bytes::Bytes;
use http::Response;

use super::{Adapter, BackendFault, JobFault};
use crate::job::{JobRef, Observation, Source};

/// What one answer said: of each job in the order asked, or of the backend.
pub(crate) type Interpretation = Result<Vec<Result<Observation, JobFault>>, BackendFault>;

/// What an adapter reads where nothing is known. Holds it to reading nothing again of
/// what is known then.
pub(crate) fn interpretation(
    adapter: &dyn Adapter,
    jobs: &[JobRef],
    response: &Response<Bytes>,
) -> Interpretation {
    let answers = adapter.interpret(jobs, &[], response)?;
    let source = |answer: &Result<Option<Observation>, _>| answer.as_ref().ok()?.as_ref()?.source;
    let known: Vec<Option<Source>> = answers.iter().map(source).collect();
    let again = adapter.interpret(jobs, &known, response).expect("an answer again");
    for ((first, known), again) in answers.iter().zip(known).zip(again) {
        let expected = if known.is_some() { &Ok(None) } else { first };
        assert_eq!(again, *expected, "what is known is not read again");
    }
    let seen = |answer: Option<Observation>| {
        let seen = answer.expect("an observation, since nothing is known");
        Observation { source: None, ..seen }
    };
    Ok(answers.into_iter().map(|answer| answer.map(seen)).collect())
}
