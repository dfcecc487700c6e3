//! `jobwatch batch`: the statuses of many jobs with one call.

use std::io;

use tonic::Status;

use super::{
    client::{Jobs, Query},
    exit::{Exit, Failure},
    output::{Printer, Style},
    render::{self, Paint, name},
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
    let mut printer = query.jobs.output.printer();
    let results = match client.batch_get_statuses(request).await {
        Ok(response) => response.into_inner().results,
        Err(status) => {
            query.jobs.report_failure(&mut printer, None, &status)?;
            printer.finish()?;
            return Ok(Exit::Failed);
        }
    };
    let mut exit = Exit::Succeeded;
    for result in &results {
        exit = exit.max(show(result, &query.jobs, &mut printer)?);
    }
    printer.finish()?;
    Ok(exit)
}

fn show(result: &JobStatusResult, jobs: &Jobs, printer: &mut Printer) -> io::Result<Exit> {
    let job = result.job.clone().unwrap_or_default();
    let failed = match &result.outcome {
        Some(Outcome::Status(status)) => {
            let text = || render::details(status, Paint::stdout());
            printer.print(("JobStatusResult", result), Some(&name(&job)), text)?;
            return Ok(Exit::of(status));
        }
        Some(Outcome::Error(error)) => Status::from(error),
        None => Status::internal("the gateway's element holds neither status nor error"),
    };
    if let Style::Lines(_) | Style::Document = jobs.output.style() {
        printer.print(("JobStatusResult", result), None, String::new)?;
    } else {
        jobs.report_failure(printer, Some(&job), &failed)?;
    }
    Ok(Exit::Failed)
}
