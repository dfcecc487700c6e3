//! `jobwatch healthcheck`: whether a gateway accepts calls, for container probes.

use std::time::Duration;

use tokio::time::timeout;
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{
    client::duration,
    connection::Connection,
    exit::{Exit, Failure},
};

/// Asks a gateway for its health.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What to ask for: the server unless given, or jobwatch.backend/NAME.
    #[arg(long, value_name = "NAME", default_value = "")]
    service: String,

    /// Longest wait for the answer.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "3s")]
    timeout: Duration,

    #[command(flatten)]
    connection: Connection,
}

impl Args {
    /// 0 if it is serving, else 1: container engines know no other codes.
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let checked = timeout(self.timeout, self.check()).await;
        let problem = match checked {
            Ok(Ok(ServingStatus::Serving)) => return Ok(Exit::Succeeded),
            Ok(Ok(status)) => status.as_str_name().to_owned(),
            Ok(Err(problem)) => problem,
            Err(_) => format!("no answer within {:?}", self.timeout),
        };
        eprintln!("unhealthy: {problem}");
        Ok(Exit::Unsuccessful)
    }

    async fn check(&self) -> Result<ServingStatus, String> {
        let channel = self.connection.channel().await.map_err(|failure| match failure {
            Failure::Usage(message) | Failure::Connect(message) => message,
            _ => "the gateway can't be reached".to_owned(),
        })?;
        let request = HealthCheckRequest { service: self.service.clone() };
        match HealthClient::new(channel).check(request).await {
            Ok(response) => Ok(response.into_inner().status()),
            Err(status) if status.code() == Code::NotFound => {
                Err(format!("there is no service {:?}", self.service))
            }
            Err(status) => Err(status.message().to_owned()),
        }
    }
}
