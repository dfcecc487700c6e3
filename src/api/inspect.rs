//! ListBackends and ListJobs: what is polled, for operators.

use std::sync::Arc;

use prost::Message;
use tonic::Status;

use super::{
    Service, convert,
    request::{InvalidField, Refusal},
    status,
};
use crate::{
    access::{Grant, Right},
    engine::{Failure, JobReport, JobStatuses},
    job::JobRef,
    proto::v1 as pb,
};

/// Jobs of a response whose request names no number, and most of them.
const PAGE: usize = 100;
const LARGEST_PAGE: usize = 1000;

/// Parts of job tables that one call looks at.
const LOOKS: usize = 64;

/// Bytes of a response beside its jobs.
const REST: usize = 4 << 10;

impl<E: JobStatuses> Service<E> {
    /// The backends that the caller may read from, each with this replica's role.
    pub(super) fn backends(&self, grant: &Grant) -> pb::ListBackendsResponse {
        let backends = self.engine.backends().into_iter();
        let allowed = backends.filter(|backend| grant.allows(Right::Read, &backend.name));
        let with_role = allowed.map(|backend| {
            let seat = self.replica.as_ref().and_then(|replica| replica.seat(&backend.name));
            convert::backend(backend, seat)
        });
        pb::ListBackendsResponse { backends: with_role.collect() }
    }

    /// The next page of the jobs that the caller may inspect.
    pub(super) fn jobs(
        &self,
        request: pb::ListJobsRequest,
        grant: &Grant,
    ) -> Result<pb::ListJobsResponse, Status> {
        let pb::ListJobsRequest { backend, page_size, page_token } = request;
        let names = self.inspected(&backend, grant)?;
        let (jobs, next_page_token) = self.page(&names, page_size, &page_token, convert::job)?;
        Ok(pb::ListJobsResponse { jobs, next_page_token })
    }

    /// A page of the jobs of these backends, each converted to a message, and the token of the
    /// next page.
    pub(super) fn page<T: Message>(
        &self,
        names: &[Arc<str>],
        page_size: i32,
        page_token: &str,
        convert: impl Fn(JobReport) -> T,
    ) -> Result<(Vec<T>, String), Status> {
        let limit = match usize::try_from(page_size) {
            Ok(0) => PAGE,
            Ok(size) => size.min(LARGEST_PAGE),
            Err(_) => {
                return Err(InvalidField::new("page_size", "is negative; write 1 to 1000, or zero").into());
            }
        };
        let (first, mut from) = position(page_token)?;
        let mut jobs = Vec::new();
        let mut room = self.bounds().message_bytes.saturating_sub(REST);
        let mut looks = LOOKS;
        for name in names.iter().filter(|name| ***name >= *first) {
            let mut next = Some(if **name == *first { from } else { 0 });
            while let Some(number) = next {
                let token = || format!("{number}/{name}");
                if jobs.len() >= limit || looks == 0 {
                    return Ok((jobs, token()));
                }
                looks -= 1;
                // A backend that was removed meanwhile has no jobs.
                let Some(page) = self.engine.jobs(name, number, limit - jobs.len()) else { break };
                for (number, report) in page.jobs {
                    let job = convert(report);
                    let bytes = job.encoded_len() + 8;
                    if bytes > room && !jobs.is_empty() {
                        return Ok((jobs, format!("{number}/{name}")));
                    }
                    room = room.saturating_sub(bytes);
                    jobs.push(job);
                }
                next = page.next;
            }
            from = 0;
        }
        Ok((jobs, String::new()))
    }

    /// The backends to look at, sorted.
    pub(super) fn inspected(&self, backend: &str, grant: &Grant) -> Result<Vec<Arc<str>>, Status> {
        if backend.is_empty() {
            let names = self.engine.backend_names().into_iter();
            return Ok(names.filter(|name| grant.allows(Right::Admin, name)).collect());
        }
        let job = JobRef::new(backend, "");
        if !grant.allows(Right::Admin, backend) {
            return Err(Refusal::NotAllowed(job).into());
        }
        match self.engine.backend_name(backend) {
            Some(name) => Ok(vec![name]),
            None => Err(self.failed(&Failure::UnknownBackend, &job, "backend", grant)),
        }
    }

    /// The status of a call that failed. Where it names an unknown backend, with the names
    /// of those that the caller may use.
    pub(super) fn failed(&self, failure: &Failure, job: &JobRef, field: &str, grant: &Grant) -> Status {
        if !matches!(failure, Failure::UnknownBackend) {
            return status::of_failure(failure, job, field);
        }
        let names = self.engine.backend_names().into_iter();
        status::of_unknown_backend(job, names.filter(|name| grant.allows(Right::Read, name)))
    }
}

/// The backend and the number at which a page begins.
fn position(token: &str) -> Result<(&str, usize), InvalidField> {
    if token.is_empty() {
        return Ok(("", 0));
    }
    let read = token.split_once('/').and_then(|(number, name)| Some((name, number.parse().ok()?)));
    read.ok_or_else(|| {
        InvalidField::new("page_token", "is not one of a response; leave it out to begin anew")
    })
}
