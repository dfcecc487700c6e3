//! `google.longrunning.Operations`: each job as an operation, for clients that know how to wait
//! for one.
//!
//! The operation's metadata is the `JobStatus` without result and payload. A job that has
//! succeeded has its `JobResult` as the response, any other end is the error. Operations are
//! not cancelled or deleted: jobs are the vendors'.

use prost::Message;
use prost_types::Any;
use tonic::{Request, Response, Status};
use tonic_types::Status as Rpc;

use super::{
    Call, Service, SilenceLimit, convert, grant,
    request::{self, InvalidField, Refusal},
    silence, status,
};
use crate::{
    access::Right,
    engine::{Health, JobReport, JobStatuses, LatestStatus},
    job::{JobRef, JobState, View},
    proto::{
        longrunning::{
            CancelOperationRequest, DeleteOperationRequest, GetOperationRequest, ListOperationsRequest,
            ListOperationsResponse, Operation, WaitOperationRequest, operation::Result as End,
            operations_server::Operations,
        },
        v1 as pb,
    },
};

mod name;

/// The field that names an operation.
const NAME: &str = "name";

impl<E: JobStatuses> Service<E> {
    /// The job of an operation at whose backend the caller has the right to read.
    fn operation_job(&self, name: &str, call: &Call) -> Result<JobRef, Status> {
        Ok(self.job(Some(name::job(name)?), NAME, (&call.grant, Right::Read))?)
    }

    async fn operation(
        &self,
        call: Call,
        name: &str,
        wait: std::time::Duration,
    ) -> Result<Response<Operation>, Status> {
        let job = self.operation_job(name, &call)?;
        let latest = self.latest(call, (&job, NAME), View::STANDARD, None, wait).await?;
        Ok(Response::new(operation(job, &latest, Shows::Result)))
    }

    fn refuse<T>(&self, call: &Call, name: &str, what: &str) -> Result<T, Status> {
        let job = self.operation_job(name, call)?;
        Err(status::of_read_only(&job, what))
    }
}

#[tonic::async_trait]
impl<E: JobStatuses> Operations for Service<E> {
    async fn get_operation(
        &self,
        request: Request<GetOperationRequest>,
    ) -> Result<Response<Operation>, Status> {
        let call = Call::of(&request);
        self.operation(call, &request.get_ref().name, std::time::Duration::ZERO).await
    }

    async fn wait_operation(
        &self,
        request: Request<WaitOperationRequest>,
    ) -> Result<Response<Operation>, Status> {
        let (call, limit) = (Call::of(&request), SilenceLimit::of(request.extensions()));
        let WaitOperationRequest { name, timeout } = request.into_inner();
        // Without one the wait ends with the call.
        let longest = match call.deadline {
            Some(deadline) => deadline.saturating_duration_since(call.arrived),
            None => self.bounds().default_deadline,
        };
        let wait = request::duration(timeout, "timeout")?.unwrap_or(longest);
        // It may return before the end of its timeout.
        self.operation(call, &name, silence::reduced(limit, wait)).await
    }

    async fn list_operations(
        &self,
        request: Request<ListOperationsRequest>,
    ) -> Result<Response<ListOperationsResponse>, Status> {
        let grant = grant(&request);
        let ListOperationsRequest { name, filter, page_size, page_token, return_partial_success } =
            request.into_inner();
        if !filter.is_empty() {
            return Err(InvalidField::new("filter", "is not supported; leave it out").into());
        }
        let backend = name::backend(&name)?;
        let names = self.inspected(&backend, &grant)?;
        // An empty list would say that there are no operations.
        if names.is_empty() && !self.engine.backend_names().is_empty() {
            return Err(Refusal::NotAllowed(JobRef::new(name::ALL, "")).into());
        }
        let (operations, next_page_token) = self.page(&names, page_size, &page_token, of_report)?;
        let mut unreachable = Vec::new();
        if return_partial_success {
            let down = self.engine.backends().into_iter().filter(|backend| {
                backend.report.health == Health::Unavailable && names.contains(&backend.name)
            });
            unreachable.extend(down.map(|backend| name::of_backend(&backend.name)));
        }
        Ok(Response::new(ListOperationsResponse { operations, next_page_token, unreachable }))
    }

    async fn cancel_operation(
        &self,
        request: Request<CancelOperationRequest>,
    ) -> Result<Response<()>, Status> {
        self.refuse(&Call::of(&request), &request.get_ref().name, "cancel")
    }

    async fn delete_operation(
        &self,
        request: Request<DeleteOperationRequest>,
    ) -> Result<Response<()>, Status> {
        self.refuse(&Call::of(&request), &request.get_ref().name, "delete")
    }
}

/// Whether an operation has the bytes of its result.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shows {
    Result,
    /// A list would be too large.
    ItsPlace,
}

/// The operation of a job.
fn operation(job: JobRef, latest: &LatestStatus, shows: Shows) -> Operation {
    let state = latest.snapshot.state;
    let end = match state {
        JobState::Succeeded => {
            let result = match shows {
                Shows::Result => latest.snapshot.status().result.unwrap_or_default(),
                Shows::ItsPlace => pb::JobResult { omitted: true, ..pb::JobResult::default() },
            };
            Some(End::Response(any("jobwatch.v1.JobResult", &result)))
        }
        state if state.is_terminal() => {
            let error = status::of_job_end(state, &latest.snapshot.core_status(), &job);
            Some(End::Error(to_rpc(&error)))
        }
        _ => None,
    };
    Operation {
        name: name::of(&job),
        metadata: Some(any("jobwatch.v1.JobStatus", &convert::status(job, latest.clone(), View::BASIC))),
        done: end.is_some(),
        result: end,
    }
}

/// The operation of a job in a list.
fn of_report(report: JobReport) -> Operation {
    let JobReport { job, latest, .. } = report;
    if let Some(latest) = latest {
        return operation(job, &latest, Shows::ItsPlace);
    }
    let name = name::of(&job);
    let status = pb::JobStatus { job: Some(convert::job_ref(&job)), ..pb::JobStatus::default() };
    let metadata = Some(any("jobwatch.v1.JobStatus", &status));
    Operation { name, metadata, done: false, result: None }
}

fn any(name: &str, message: &impl Message) -> Any {
    Any { type_url: format!("type.googleapis.com/{name}"), value: message.encode_to_vec() }
}

fn to_rpc(status: &Status) -> Rpc {
    Rpc::decode(status.details()).unwrap_or_else(|_| Rpc {
        code: status.code().into(),
        message: status.message().to_owned(),
        details: Vec::new(),
    })
}
