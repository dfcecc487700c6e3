//! `jobwatch get`: one call for each job, all at once.

use std::io::{self, Write};

use futures_util::{StreamExt, stream};
use tonic::Status;

use super::{
    client::{Client, Jobs, Question},
    exit::{Exit, Failure},
    json,
    render::{self, Paint},
};
use crate::proto::v1::{GetJobStatusRequest, JobRef, JobStatus};

/// Calls that are open at once.
const AT_ONCE: usize = 64;

/// Shows the status of jobs.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    asked: Question,
}

impl Args {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let Self { asked } = self;
        let jobs = asked.jobs.refs()?;
        let client = asked.client().await?;
        let mut answers = stream::iter(jobs)
            .map(|job| {
                let request = GetJobStatusRequest {
                    job: Some(job.clone()),
                    view: asked.jobs.view().into(),
                    max_age: asked.freshness.max_age(),
                    wait: asked.freshness.wait(),
                };
                ask(client.clone(), job, request)
            })
            .buffered(AT_ONCE);
        let mut exit = Exit::Succeeded;
        let mut shown = 0;
        while let Some((job, answer)) = answers.next().await {
            asked.jobs.separate(shown)?;
            shown += 1;
            exit = exit.max(show(&job, &answer, &asked.jobs)?);
        }
        Ok(exit)
    }
}

async fn ask(
    mut client: Client,
    job: JobRef,
    request: GetJobStatusRequest,
) -> (JobRef, Result<JobStatus, Status>) {
    let answer = client.get_job_status(request).await;
    let status = answer.and_then(|response| {
        response.into_inner().status.ok_or_else(|| Status::internal("the gateway's answer holds no status"))
    });
    (job, status)
}

/// Prints one job's answer.
pub(super) fn show(job: &JobRef, answer: &Result<JobStatus, Status>, jobs: &Jobs) -> io::Result<Exit> {
    match answer {
        Ok(status) if jobs.for_people() => {
            let mut out = io::stdout().lock();
            out.write_all(render::details(status, Paint::stdout()).as_bytes())?;
            out.flush()?;
            Ok(Exit::of(status))
        }
        Ok(status) => json::print("JobStatus", status).map(|()| Exit::of(status)),
        Err(status) => jobs.failed(Some(job), status).map(|()| Exit::Failed),
    }
}
