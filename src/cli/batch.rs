//! `jobwatch batch`: the statuses of many jobs with one call.

use tonic::Status;

use super::{
    client::{Jobs, Query},
    exit::{Exit, Failure},
    get, json,
};
use crate::proto::v1::{BatchGetStatusesRequest, JobStatusResult, job_status_result::Outcome};

/// Gets all jobs with one call and prints the results in the order given.
pub(super) async fn run(query: Query) -> Result<Exit, Failure> {
    let request = BatchGetStatusesRequest {
        jobs: query.jobs.refs()?,
        view: query.jobs.view().into(),
        max_age: query.freshness.max_age(),
        wait: query.freshness.wait(),
    };
    let mut client = query.client().await?;
    let results = match client.batch_get_statuses(request).await {
        Ok(response) => response.into_inner().results,
        Err(status) => {
            query.jobs.report_failure(None, &status)?;
            return Ok(Exit::Failed);
        }
    };
    let mut exit = Exit::Succeeded;
    for (n, result) in results.into_iter().enumerate() {
        query.jobs.separate(n)?;
        exit = exit.max(show(result, &query.jobs)?);
    }
    Ok(exit)
}

fn show(result: JobStatusResult, jobs: &Jobs) -> Result<Exit, Failure> {
    if !jobs.is_text() {
        json::print("JobStatusResult", &result)?;
        return Ok(match &result.outcome {
            Some(Outcome::Status(status)) => Exit::of(status),
            Some(Outcome::Error(_)) | None => Exit::Failed,
        });
    }
    let element = match result.outcome {
        Some(Outcome::Status(status)) => Ok(status),
        Some(Outcome::Error(error)) => Err(Status::from(&error)),
        None => Err(Status::internal("the gateway's element holds neither status nor error")),
    };
    Ok(get::show(&result.job.unwrap_or_default(), &element, jobs)?)
}
