//! `jobwatch batch`: many jobs in one call.

use tonic::Status;

use super::{
    client::{Jobs, Question},
    exit::{Exit, Failure},
    get, json,
};
use crate::proto::v1::{BatchGetStatusesRequest, JobStatusResult, job_status_result::Outcome};

/// Shows the statuses of many jobs.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    asked: Question,
}

impl Args {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let Self { asked } = self;
        let request = BatchGetStatusesRequest {
            jobs: asked.jobs.refs()?,
            view: asked.jobs.view().into(),
            max_age: asked.freshness.max_age(),
            wait: asked.freshness.wait(),
        };
        let mut client = asked.client().await?;
        let results = match client.batch_get_statuses(request).await {
            Ok(response) => response.into_inner().results,
            Err(status) => {
                asked.jobs.failed(None, &status)?;
                return Ok(Exit::Failed);
            }
        };
        let mut exit = Exit::Succeeded;
        for (n, result) in results.into_iter().enumerate() {
            asked.jobs.separate(n)?;
            exit = exit.max(show(result, &asked.jobs)?);
        }
        Ok(exit)
    }
}

fn show(result: JobStatusResult, jobs: &Jobs) -> Result<Exit, Failure> {
    if !jobs.for_people() {
        json::print("JobStatusResult", &result)?;
        return Ok(match &result.outcome {
            Some(Outcome::Status(status)) => Exit::of(status),
            Some(Outcome::Error(_)) | None => Exit::Failed,
        });
    }
    let answer = match result.outcome {
        Some(Outcome::Status(status)) => Ok(status),
        Some(Outcome::Error(error)) => Err(to_status(&error)),
        None => Err(Status::internal("the gateway's answer holds neither status nor error")),
    };
    Ok(get::show(&result.job.unwrap_or_default(), &answer, jobs)?)
}

/// An element's error, as a call of its own would have ended.
pub(super) fn to_status(error: &tonic_types::Status) -> Status {
    let details = prost::Message::encode_to_vec(error);
    Status::with_details(error.code.into(), error.message.clone(), details.into())
}
