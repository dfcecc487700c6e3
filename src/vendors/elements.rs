//! A response in parts, one for each job that was polled.

use bytes::Bytes;

use crate::job::{BackendFault, JobFault, JobRef};

/// Of a job that stands twice with different contents nothing is believed.
pub(super) const CONTRADICTED: JobFault = JobFault::Malformed { why: "it came twice and differs" };

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
    use crate::{
        job::{FaultKind, Observation},
        vendors::Adapter,
    };

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

    /// What a response says, without the words for what can't be understood, to hold two
    /// adapters to each other. An empty word is one that nobody knows, or malformed: the
    /// built-in vendors differ, and it ends no job.
    fn comparable(observations: Observations) -> Observations {
        let job = |fault| match fault {
            JobFault::Malformed { .. } => JobFault::Malformed { why: "" },
            fault => fault,
        };
        let known = |seen: Observation| match seen.vendor_state.as_str() {
            "" => Err(JobFault::Malformed { why: "" }),
            _ => Ok(seen),
        };
        match observations {
            Ok(answers) => {
                Ok(answers.into_iter().map(|answer| answer.map_err(job).and_then(known)).collect())
            }
            Err(fault) => Err(comparable_fault(fault)),
        }
    }

    /// What an adapter in code and a definition say of the same response. A definition cleans
    /// the names of files; where one needs it, the files of that job are left out. Words that deny
    /// access are of the backend to an adapter, and of the one job to a definition's rule.
    pub(crate) fn comparable_pair(by_hand: Observations, declared: Observations) -> [Observations; 2] {
        let is_plain = |name: &str| {
            let has_odd = name.contains(|c: char| c.is_control() || matches!(c, '/' | '\\'));
            !has_odd && !matches!(name, "" | "." | "..") && name.chars().count() <= 255
        };
        let [mut by_hand, mut declared] = [comparable(by_hand), comparable(declared)];
        let is_denied = matches!(&by_hand, Err(fault) if fault.kind == FaultKind::Forbidden);
        if is_denied && matches!(&declared, Ok(jobs) if jobs[..] == [Err(JobFault::Forbidden)]) {
            by_hand.clone_from(&declared);
        }
        let jobs = by_hand.iter_mut().flatten().zip(declared.iter_mut().flatten());
        for pair in jobs {
            if let (Ok(one), Ok(other)) = pair
                && !one.artifacts.iter().all(|file| is_plain(&file.category) && is_plain(&file.file_name))
            {
                one.artifacts.clear();
                other.artifacts.clear();
            }
        }
        [by_hand, declared]
    }

    /// The same of a fault.
    pub(crate) fn comparable_fault(mut fault: BackendFault) -> BackendFault {
        if let FaultKind::Malformed { why } = &mut fault.kind {
            *why = "";
        }
        fault
    }
}
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use whole::{Observations, comparable_fault, comparable_pair, observations};
