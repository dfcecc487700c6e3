//! `jobwatch get`: one concurrent call for each job.

use std::io;

use futures_util::{StreamExt, stream};
use tonic::Status;

use super::{
    client::{Jobs, Query},
    connection::Client,
    exit::{Exit, Failure},
    output::Printer,
    render::{self, Paint, name},
};
use crate::proto::v1::{GetJobStatusRequest, JobRef, JobStatus};

/// Most concurrent calls.
const MAX_CALLS: usize = 64;

/// Gets each job with a call of its own and prints the results in the order given.
pub(super) async fn run(query: Query) -> Result<Exit, Failure> {
    let jobs = query.jobs.refs()?;
    let client = query.client().await?;
    let mut results = stream::iter(jobs)
        .map(|job| {
            let request = GetJobStatusRequest {
                job: Some(job.clone()),
                view: query.jobs.view().into(),
                max_age: query.freshness.max_age(),
                wait: query.freshness.wait(),
            };
            call(client.clone(), job, request)
        })
        .buffered(MAX_CALLS);
    let mut exit = Exit::Succeeded;
    let mut printer = query.jobs.output.printer();
    while let Some((job, result)) = results.next().await {
        exit = exit.max(show(&job, &result, &query.jobs, &mut printer)?);
    }
    printer.finish()?;
    Ok(exit)
}

async fn call(
    mut client: Client,
    job: JobRef,
    request: GetJobStatusRequest,
) -> (JobRef, Result<JobStatus, Status>) {
    let response = client.get_job_status(request).await;
    let status = response.and_then(|response| {
        response.into_inner().status.ok_or_else(|| Status::internal("the gateway's response holds no status"))
    });
    (job, status)
}

/// Prints the result for one job.
fn show(
    job: &JobRef,
    result: &Result<JobStatus, Status>,
    jobs: &Jobs,
    printer: &mut Printer,
) -> io::Result<Exit> {
    match result {
        Ok(status) => {
            let text = || render::details(status, Paint::stdout());
            printer.print(("JobStatus", status), Some(&name(job)), text)?;
            Ok(Exit::of(status))
        }
        Err(status) => jobs.report_failure(printer, Some(job), status).map(|()| Exit::Failed),
    }
}
