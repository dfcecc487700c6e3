//! `jobwatch watch`: watches jobs until they end.

use std::{collections::HashSet, time::Duration};

use clap::ValueEnum;
use jiff::Timestamp;

use super::{
    client::{Jobs, duration, interval},
    connection::Connection,
    exit::{Exit, Failure},
    hook::Hooks,
    json,
    output::{Printer, Style},
    present::{Format, Presentation, report_failure},
    render::{self, Paint},
    row::Row,
};
use crate::{
    client::{self, Options},
    proto::v1::{JobRef, JobState, JobStatusResult, job_status_result::Outcome},
};

/// Watches jobs.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    jobs: Jobs,

    /// Stop watching a job when it has one of these states, which is then its success; or
    /// when it has ended. Several with commas.
    #[arg(long, value_name = "STATE", value_enum, value_delimiter = ',')]
    until: Vec<State>,

    /// Stop after this long, and end the commands of --exec that still run. The exit code is
    /// then 4 if a job or a command has not ended.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,

    /// Command to run with sh when a job has ended, at most 8 at once. `watch` waits for the
    /// commands, but not for what they leave in the background; --timeout and Ctrl-C end them.
    /// It receives the job in the variables JOBWATCH_JOB, JOBWATCH_BACKEND, JOBWATCH_JOB_ID, JOBWATCH_STATE,
    /// JOBWATCH_VENDOR_STATE and JOBWATCH_ERROR; the state is NO_STATUS if the watch failed.
    /// Quote them in the command: "$JOBWATCH_JOB". What it writes goes to stderr.
    #[arg(long, value_name = "COMMAND")]
    exec: Option<String>,

    /// Poll interval to request. The gateway may poll more often.
    #[arg(long, value_name = "DURATION", value_parser = interval)]
    poll_interval: Option<Duration>,

    /// How long to try to reconnect after the connection to the gateway is lost.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "5m")]
    reconnect: Duration,

    #[command(flatten)]
    connection: Connection,
}

/// A state on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum State {
    Pending,
    Running,
    Retrying,
    Cancelling,
    Succeeded,
    Failed,
    Cancelled,
    Expired,
}

impl From<State> for JobState {
    fn from(state: State) -> Self {
        match state {
            State::Pending => Self::Pending,
            State::Running => Self::Running,
            State::Retrying => Self::Retrying,
            State::Cancelling => Self::Cancelling,
            State::Succeeded => Self::Succeeded,
            State::Failed => Self::Failed,
            State::Cancelled => Self::Cancelled,
            State::Expired => Self::Expired,
        }
    }
}

impl Args {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let jobs = distinct(self.jobs.refs()?);
        let client = tokio::select! {
            client = self.jobs.client(&self.connection) => client?,
            Ok(()) = tokio::signal::ctrl_c() => return Ok(Exit::Interrupted),
        };
        let now = Timestamp::now();
        let mut rows: Vec<_> = jobs.iter().map(|job| Row::new(job, "", now)).collect();
        let until: Vec<JobState> = self.until.iter().map(|state| (*state).into()).collect();
        let options = Options {
            view: self.jobs.view(),
            poll_interval: self.poll_interval,
            until: until.clone(),
            patience: Some(self.reconnect),
            ..Options::default()
        };
        let updates = client::follow(&client, jobs, &options);
        let output = self.jobs.output;
        let format = match output.style() {
            Style::Text if output.allows_board() => Format::Board,
            Style::Text => Format::Log,
            Style::Lines(data) => Format::Json(data),
            Style::Document => Format::Silent,
            Style::Names => Format::Names,
        };
        let presentation = Presentation {
            format,
            json_errors: output.json_errors(),
            until,
            timeout: self.timeout,
            hooks: self.exec.map(Hooks::new),
            gateway: (self.connection.server(), self.reconnect),
            gave_up: None,
        };
        let exit = presentation.run(updates, &mut rows).await?;
        match (format, &rows[..]) {
            (Format::Silent, rows) => print_results(rows, output.printer())?,
            (Format::Board | Format::Log, [row]) => show(row, format)?,
            _ => {}
        }
        Ok(exit)
    }
}

/// Each job once, in the order given: one command of --exec runs for each.
fn distinct(jobs: Vec<JobRef>) -> Vec<JobRef> {
    let mut seen = HashSet::new();
    let key = |job: &JobRef| (job.backend.clone(), job.job_id.clone(), job.job_tag.clone());
    jobs.into_iter().filter(|job| seen.insert(key(job))).collect()
}

/// Prints the last status or the error of each job.
fn print_results(rows: &[Row], mut printer: Printer) -> Result<(), Failure> {
    for row in rows {
        let result = match (&row.failed, &row.status) {
            (Some(failed), _) => json::failure(Some(&row.job), failed),
            (None, status) => {
                JobStatusResult { job: Some(row.job.clone()), outcome: status.clone().map(Outcome::Status) }
            }
        };
        printer.print(("JobStatusResult", &result), None, String::new)?;
    }
    Ok(printer.finish()?)
}

/// Prints all of a single job. Of several, each has a line, and `jobwatch get` shows the rest.
fn show(row: &Row, format: Format) -> Result<(), Failure> {
    if let Some(status) = &row.status {
        json::write(&render::details(status, Paint::stdout()))?;
    }
    match &row.failed {
        Some(status) if format == Format::Board && !row.is_lost => {
            Ok(report_failure(false, Some(row), status)?)
        }
        _ => Ok(()),
    }
}
