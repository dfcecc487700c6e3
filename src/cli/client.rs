//! Options that `get`, `watch` and `batch` share.

use std::{io, time::Duration};

use clap::{Args, ValueEnum};
use tonic::Status;

use super::{
    connection::{Client, Connection},
    exit::Failure,
    fault,
    job_list::{self, JobSource},
    json,
    output::{Output, Printer},
    render::{Paint, name},
    text::one_line,
};
use crate::{
    client::proto_duration,
    config,
    proto::v1::{JobRef, JobStatusView},
};

/// Options of `get` and `batch`.
#[derive(Debug, Args)]
pub(super) struct Query {
    #[command(flatten)]
    pub(super) jobs: Jobs,

    #[command(flatten)]
    pub(super) freshness: Freshness,

    #[command(flatten)]
    connection: Connection,
}

/// Which jobs to show, and how.
#[derive(Debug, Args)]
pub(super) struct Jobs {
    /// Jobs. The backend's name ends at the first slash. @FILE reads them from a file, - from
    /// standard input: one per line; blank lines and those that begin with # are ignored.
    #[arg(required = true, value_name = "BACKEND/JOB_ID", value_parser = job_list::parse)]
    selected: Vec<JobSource>,

    /// The job's tag. Only for a single Kinetica job.
    #[arg(long)]
    tag: Option<String>,

    /// How much of a status to show.
    #[arg(long, value_enum, default_value_t)]
    view: View,

    #[command(flatten)]
    pub(super) output: Output,
}

/// How much of a status is shown.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum View {
    /// No result.
    Basic,
    /// All except the vendor's payload.
    #[default]
    Standard,
    /// Everything.
    Full,
}

/// How fresh a status has to be, and how long to wait for it.
#[derive(Debug, Args)]
pub(super) struct Freshness {
    /// Wait until the jobs have ended, for at most this long: "30s", "5m".
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    wait: Option<Duration>,

    /// Accept a cached status up to this old.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    max_age: Option<Duration>,
}

impl Query {
    /// Connects to the gateway, and reports a failure in the output's format.
    pub(super) async fn client(&self) -> Result<Client, Failure> {
        self.jobs.client(&self.connection).await
    }
}

impl Jobs {
    /// The jobs in the order given.
    pub(super) fn refs(&self) -> Result<Vec<JobRef>, Failure> {
        let mut jobs = job_list::jobs(&self.selected)?;
        match (&self.tag, &mut jobs[..]) {
            (None, _) => {}
            (Some(tag), [job]) => job.job_tag.clone_from(tag),
            (Some(_), _) => {
                return Err(Failure::Usage(
                    "--tag applies to a single job; name one job at a time".to_owned(),
                ));
            }
        }
        Ok(jobs)
    }

    /// The view to request.
    pub(super) fn view(&self) -> JobStatusView {
        match self.view {
            View::Basic => JobStatusView::Basic,
            View::Standard => JobStatusView::Standard,
            View::Full => JobStatusView::Full,
        }
    }

    /// Connects, and reports a failure in the output's format.
    pub(super) async fn client(&self, connection: &Connection) -> Result<Client, Failure> {
        connect(connection, self.output).await
    }

    /// Reports a failed call for one job or all.
    pub(super) fn report_failure(
        &self,
        printer: &mut Printer,
        job: Option<&JobRef>,
        status: &Status,
    ) -> io::Result<()> {
        let subject = job.map_or_else(|| "batch".to_owned(), |job| one_line(&name(job)));
        report_failure(self.output, printer, (&subject, job), status)
    }
}

/// Connects, and with a JSON format reports a failure as JSON.
pub(super) async fn connect(connection: &Connection, output: Output) -> Result<Client, Failure> {
    match connection.open().await {
        Err(Failure::Connect(message)) if output.json_errors() => {
            let mut printer = output.printer();
            report_failure(output, &mut printer, ("", None), &Status::unavailable(message))?;
            printer.finish()?;
            Err(Failure::Reported)
        }
        opened => opened,
    }
}

/// Reports a failed call: as text about its subject on stderr, or on stdout in the form of a batch's
/// element.
pub(super) fn report_failure(
    output: Output,
    printer: &mut Printer,
    (subject, job): (&str, Option<&JobRef>),
    status: &Status,
) -> io::Result<()> {
    if output.json_errors() {
        return printer.print(("JobStatusResult", &json::failure(job, status)), None, String::new);
    }
    eprint!("{}", fault::render(subject, status, Paint::stderr()));
    Ok(())
}

impl Freshness {
    pub(super) fn wait(&self) -> Option<prost_types::Duration> {
        self.wait.map(proto_duration)
    }

    pub(super) fn max_age(&self) -> Option<prost_types::Duration> {
        self.max_age.map(proto_duration)
    }
}

/// Parses a duration of the command line.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    config::parse_duration(text).ok_or_else(|| "write a duration such as 500ms, 30s or 5m".to_owned())
}

/// Parses a duration above zero.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if interval.is_zero() { Err("write a duration above zero, such as 30s".to_owned()) } else { Ok(interval) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::job_list::parse;

    #[test]
    fn tag_with_several_jobs_is_refused() {
        let jobs = |count| Jobs {
            selected: vec![parse("kinetica/1").unwrap(); count],
            tag: Some("t".to_owned()),
            view: View::Basic,
            output: Output::default(),
        };
        assert_eq!(jobs(1).refs().unwrap()[0].job_tag, "t");
        assert!(matches!(jobs(2).refs(), Err(Failure::Usage(_))));
    }
}
