//! `jobwatch get`: one concurrent call for each job.

use std::io::{self, Write};

use futures_util::{StreamExt, stream};
use tonic::Status;

use super::{
    client::{Client, Jobs, Query},
    exit::{Exit, Failure},
    json,
    render::{self, Paint},
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
    let mut shown = 0;
    while let Some((job, result)) = results.next().await {
        query.jobs.separate(shown)?;
        shown += 1;
        exit = exit.max(show(&job, &result, &query.jobs)?);
    }
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
pub(super) fn show(job: &JobRef, result: &Result<JobStatus, Status>, jobs: &Jobs) -> io::Result<Exit> {
    match result {
        Ok(status) if jobs.is_text() => {
            let mut out = io::stdout().lock();
            out.write_all(render::details(status, Paint::stdout()).as_bytes())?;
            out.flush()?;
            Ok(Exit::of(status))
        }
        Ok(status) => json::print("JobStatus", status).map(|()| Exit::of(status)),
        Err(status) => jobs.report_failure(Some(job), status).map(|()| Exit::Failed),
    }
}
