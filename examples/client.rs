//! Waits for a job, watches it, or writes its result, through restarts of the gateway.
//!
//! ```sh
//! cargo run --example client 127.0.0.1:50051 immuta-prod/42 wait|watch|result
//! ```

use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
};

use jobwatch::{
    client::{self, Options, Update},
    proto::v1::{
        DownloadArtifactRequest, JobStatus, job_status_service_client::JobStatusServiceClient,
        watch_job_response::Event,
    },
};
use tonic::transport::Channel;

type Gateway = JobStatusServiceClient<Channel>;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match run(&arguments, &mut io::stdout()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one command.
pub async fn run(
    arguments: &[String],
    out: &mut (impl Write + Send),
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let [address, name, command] = arguments else {
        return Err("usage: ADDRESS BACKEND/JOB_ID wait|watch|result".into());
    };
    let (backend, job_id) = name.split_once('/').ok_or("write BACKEND/JOB_ID")?;
    if command == "watch" {
        let gateway = JobStatusServiceClient::connect(format!("http://{address}")).await?;
        return watch(&gateway, client::job(backend, job_id), out).await;
    }
    let gateway = JobStatusServiceClient::connect(format!("http://{address}")).await?;
    let status = client::wait(&gateway, client::job(backend, job_id), &Options::default()).await?;
    if command == "result" { result(gateway, &status, out).await } else { show(&status, out) }
}

/// Shows every status, the last of which is terminal.
async fn watch(
    gateway: &Gateway,
    job: jobwatch::proto::v1::JobRef,
    out: &mut (impl Write + Send),
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut updates = client::follow(gateway, [job], &Options::default());
    while let Some(update) = updates.next().await {
        match update {
            Update::Response(_, response) => {
                if let Some(Event::Status(status)) = response.event {
                    show(&status, out)?;
                }
            }
            Update::Disconnected { cause, retry_in } => eprintln!("{cause}; again in {retry_in:?}"),
            Update::Ended(_, Err(error)) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Writes a result, also one that is too large for a status.
async fn result(
    mut gateway: Gateway,
    status: &JobStatus,
    out: &mut (impl Write + Send),
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let Some(result) = &status.result else { return Ok(()) };
    if !result.omitted {
        return Ok(out.write_all(&result.data)?);
    }
    let artifact_id = "jobwatch:result".to_owned();
    let request = DownloadArtifactRequest { job: status.job.clone(), artifact_id, ..Default::default() };
    let mut parts = gateway.download_artifact(request).await?.into_inner();
    while let Some(part) = parts.message().await? {
        out.write_all(&part.data)?;
    }
    Ok(())
}

fn show(status: &JobStatus, out: &mut impl Write) -> Result<(), Box<dyn Error + Send + Sync>> {
    let error = status.error.as_ref().map(|error| &*error.message).unwrap_or_default();
    let line = format!("{} {error}", status.state().as_str_name());
    writeln!(out, "{}", line.trim_end())?;
    Ok(out.flush()?)
}
