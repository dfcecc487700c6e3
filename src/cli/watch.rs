//! `jobwatch watch`: watches jobs until they end.

use std::{
    io::{self, Write},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    board::Row,
    client::{Connection, Jobs, duration, proto_duration},
    exit::{Exit, Failure},
    present::{Format, present},
    render::{self, Paint, name},
    watcher::Watcher,
};
use crate::proto::v1::WatchJobRequest;

/// Watches jobs.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    jobs: Jobs,

    /// Poll interval to request. The gateway may poll more often.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    poll_interval: Option<Duration>,

    /// How long to try to reconnect after the connection to the gateway is lost.
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
        let requests = jobs.iter().map(|job| WatchJobRequest {
            job: Some(job.clone()),
            view: self.jobs.view().into(),
            poll_interval: self.poll_interval.map(proto_duration),
            ..Default::default()
        });
        let watcher = Watcher::start(&client, requests.collect(), self.reconnect);
        let format = if self.jobs.is_text() { Format::Board } else { Format::Json };
        let exit = present(watcher, &mut rows, format).await?;
        for (n, (job, row)) in jobs.iter().zip(&rows).enumerate() {
            if let (Format::Board, Some(status)) = (format, &row.status) {
                write!(io::stdout(), "{}{}", gap(n, rows.len()), render::details(status, Paint::stdout()))?;
            }
            if let Some(status) = &row.failed {
                if format == Format::Board {
                    eprint!("{}", gap(n, rows.len()));
                }
                self.jobs.report_failure(Some(job), status)?;
            }
        }
        Ok(exit)
    }
}

/// The separator before the details of job `n`.
fn gap(n: usize, count: usize) -> &'static str {
    if n > 0 || count > 1 { "\n" } else { "" }
}
