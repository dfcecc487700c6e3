//! `jobwatch batch`: many jobs in one call.

use tonic::Status;

use super::{
    client::{Connection, Freshness, Jobs},
    exit::{Exit, Failure},
    get, json,
};
use crate::proto::v1::{BatchGetStatusesRequest, JobStatusResult, job_status_result::Outcome};

/// Shows the statuses of many jobs.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    jobs: Jobs,

    #[command(flatten)]
    freshness: Freshness,

    #[command(flatten)]
    connection: Connection,
}

impl Args {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let request = BatchGetStatusesRequest {
            jobs: self.jobs.refs()?,
            view: self.jobs.view().into(),
            max_age: self.freshness.max_age(),
            wait: self.freshness.wait(),
        };
        let mut client = self.jobs.client(&self.connection).await?;
        let results = match client.batch_get_statuses(request).await {
            Ok(response) => response.into_inner().results,
            Err(status) => {
                self.jobs.failed(None, &status)?;
                return Ok(Exit::Failed);
            }
        };
        let mut exit = Exit::Succeeded;
        for (n, result) in results.into_iter().enumerate() {
            self.jobs.separate(n)?;
            exit = exit.max(self.show(result)?);
        }
        Ok(exit)
    }

    fn show(&self, result: JobStatusResult) -> Result<Exit, Failure> {
        if !self.jobs.for_people() {
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
        Ok(get::show(&result.job.unwrap_or_default(), &answer, &self.jobs)?)
    }
}

/// An element's error, as a call of its own would have ended.
pub(super) fn to_status(error: &tonic_types::Status) -> Status {
    let details = prost::Message::encode_to_vec(error);
    Status::with_details(error.code.into(), error.message.clone(), details.into())
}
