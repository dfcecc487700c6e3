//! `jobwatch watch`: follows jobs until they end.

use std::{
    io::{self, Write},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    board::Row,
    client::{Connection, Jobs, duration, name, proto_duration},
    exit::{Exit, Failure},
    follow::Following,
    present::{Reader, present},
    render::{self, Paint},
};
use crate::proto::v1::WatchJobRequest;

/// Follows jobs.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    jobs: Jobs,

    /// Longest time between two looks at the vendor that is good enough.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    poll_interval: Option<Duration>,

    /// How long to call again after the connection to the gateway is lost.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "5m")]
    reconnect: Duration,

    #[command(flatten)]
    connection: Connection,
}

impl Args {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let jobs = self.jobs.refs()?;
        let client = self.jobs.client(&self.connection).await?;
        let now = Timestamp::now();
        let mut rows: Vec<_> = jobs.iter().map(|job| Row::new(&name(job), "", now)).collect();
        let watches = jobs.iter().map(|job| WatchJobRequest {
            job: Some(job.clone()),
            view: self.jobs.view().into(),
            poll_interval: self.poll_interval.map(proto_duration),
            ..Default::default()
        });
        let following = Following::begin(&client, watches.collect(), self.reconnect);
        let reader = if self.jobs.for_people() { Reader::Terminal } else { Reader::Program };
        let exit = present(following, &mut rows, reader).await?;
        for (n, (job, row)) in jobs.iter().zip(&rows).enumerate() {
            if let (Reader::Terminal, Some(status)) = (reader, &row.status) {
                write!(io::stdout(), "{}{}", gap(n, rows.len()), render::details(status, Paint::stdout()))?;
            }
            if let Some(status) = &row.failed {
                if reader == Reader::Terminal {
                    eprint!("{}", gap(n, rows.len()));
                }
                self.jobs.failed(Some(job), status)?;
            }
        }
        Ok(exit)
    }
}

/// What separates the details of several jobs from their rows and each other.
fn gap(n: usize, count: usize) -> &'static str {
    if n > 0 || count > 1 { "\n" } else { "" }
}
