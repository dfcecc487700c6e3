//! A response in parts, one for each job that was polled.

use bytes::Bytes;

use crate::job::{BackendFault, JobFault, JobRef};

/// One element for each polled job, in the order of the jobs: the job's part of the
/// body, or why it has none. The constructors map over the jobs, so that neither a
/// vendor's short response nor an adapter can leave a job without an element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elements(Vec<Result<Bytes, JobFault>>);

impl Elements {
    /// The element of each job, by its position in `jobs`.
    pub fn for_each(
        jobs: &[JobRef],
        mut element: impl FnMut(usize, &JobRef) -> Result<Bytes, JobFault>,
    ) -> Self {
        Self(jobs.iter().enumerate().map(|(index, job)| element(index, job)).collect())
    }

    /// Like [`for_each`](Self::for_each), where looking for an element may find a fault of
    /// the whole request.
    ///
    /// # Errors
    /// The first such fault.
    pub fn try_for_each(
        jobs: &[JobRef],
        mut element: impl FnMut(usize, &JobRef) -> Result<Result<Bytes, JobFault>, BackendFault>,
    ) -> Result<Self, BackendFault> {
        jobs.iter().enumerate().map(|(index, job)| element(index, job)).collect::<Result<_, _>>().map(Self)
    }

    /// The same fault for each job.
    pub fn all_failed(jobs: &[JobRef], fault: &JobFault) -> Self {
        Self::for_each(jobs, |_, _| Err(fault.clone()))
    }

    /// In the order of the jobs.
    pub fn as_slice(&self) -> &[Result<Bytes, JobFault>] {
        &self.0
    }

    /// The faults of those jobs that have no part in the body.
    pub(crate) fn faults_mut(&mut self) -> impl Iterator<Item = &mut JobFault> {
        self.0.iter_mut().filter_map(|element| element.as_mut().err())
    }
}

#[cfg(any(test, feature = "fuzzing"))]
mod whole {
    use http::Response;

    use super::{BackendFault, Bytes, JobFault, JobRef};
    use crate::{job::Observation, vendors::Adapter};

    /// What one response says: of each job in the order of the request, or of the backend.
    pub(crate) type Observations = Result<Vec<Result<Observation, JobFault>>, BackendFault>;

    /// Splits a response and reads every element of it. Holds the adapter to what is true
    /// of every split: one element a job, none of them a copy, and reading is repeatable.
    pub(crate) fn observations(
        adapter: &dyn Adapter,
        jobs: &[JobRef],
        response: &Response<Bytes>,
    ) -> Observations {
        let elements = adapter.split(jobs, response)?;
        assert_eq!(elements.as_slice().len(), jobs.len(), "one element a job");
        let read = |(job, element): (&JobRef, &Result<Bytes, JobFault>)| {
            let element = element.as_ref().map_err(Clone::clone)?;
            let (body, part) = (response.body().as_ptr_range(), element.as_ptr_range());
            let is_within = body.start <= part.start && part.end <= body.end;
            assert!(element.is_empty() || is_within, "an element is a part of the body");
            let observation = adapter.observe(job, element);
            let copy = Bytes::copy_from_slice(element);
            assert_eq!(adapter.observe(job, &copy), observation, "the bytes alone decide");
            observation
        };
        Ok(jobs.iter().zip(elements.as_slice()).map(read).collect())
    }
}
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use whole::{Observations, observations};
