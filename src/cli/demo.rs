//! `jobwatch demo`: a gateway with simulated vendors and jobs.

use std::{
    collections::HashSet,
    io::{self, IsTerminal, Write},
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{
    connection::Connection,
    exit::{Exit, Failure},
    present::{Format, Presentation},
    render::{Paint, name, shell_word},
    row::Row,
    serve::signalled,
    simulate,
};
use crate::{
    client::{self, Options},
    config::Config,
    proto::v1::JobRef,
    server::{self, ServeError},
    simulators::{DemoJob, SimulatorSet, Vendor},
    telemetry,
};

/// The default address.
const LISTEN: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 50051);
const SERVICE: &str = "jobwatch.v1.JobStatusService";

/// Runs the demo.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Address to listen on [default: 127.0.0.1:50051, or a free port if that one is
    /// in use].
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,

    /// Exit once all jobs have ended.
    #[arg(long)]
    exit_when_done: bool,
}

impl Args {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let _flush = telemetry::init(telemetry::Format::Text, &telemetry::filter("error"))
            .map_err(|error| Failure::Usage(error.to_string()))?;
        let simulators = SimulatorSet::start()
            .await
            .map_err(|error| Failure::Usage(format!("the simulated vendors can't start: {error}")))?;
        let config = Config::parse(&simulators.config(), [])?;
        let listener = listen(self.listen)
            .await
            .map_err(|error| Failure::Usage(format!("the gateway can't listen: {error}")))?;
        let address = callable(listener.local_addr()?);

        let shutdown = CancellationToken::new();
        // Stops the server however this function returns.
        let _stop = shutdown.clone().drop_guard();
        let mut server = tokio::spawn(server::run(listener, shutdown.clone(), config));
        let exit = tokio::select! {
            exit = self.show(&simulators, address) => exit?,
            // Ctrl-C is the normal way to end a demo.
            () = signalled() => Exit::Succeeded,
            ended = &mut server => return stopped(ended),
        };
        shutdown.cancel();
        stop(server).await.map(|_| exit)
    }

    async fn show(&self, simulators: &SimulatorSet, address: SocketAddr) -> Result<Exit, Failure> {
        let client = Connection::to(address).open().await?;
        let jobs = simulators.start_demo_jobs();
        let mut out = io::stdout();
        let urls = Vendor::ALL.map(|vendor| (vendor.name(), simulators.simulator(vendor).base_url()));
        write!(out, "{}", introduction(address, &jobs, &urls, Paint::stdout()))?;
        out.flush()?;

        let now = Timestamp::now();
        let mut rows: Vec<_> = jobs.iter().map(|job| Row::new(&reference(job), job.title, now)).collect();
        let options = Options { patience: Some(Duration::from_secs(30)), ..Options::default() };
        let updates = client::follow(&client, jobs.iter().map(reference), &options);
        let format = if out.is_terminal() && Paint::allowed() { Format::Board } else { Format::Log };
        let exit = Presentation::of(format).run(updates, &mut rows).await?;
        if exit == Exit::Interrupted {
            return Ok(Exit::Succeeded);
        }
        if !self.exit_when_done {
            writeln!(out, "\nAll jobs have ended. The gateway runs until you press Ctrl-C.")?;
            std::future::pending::<()>().await;
        }
        // Failed jobs are part of the demo.
        Ok(if exit == Exit::Failed { Exit::Failed } else { Exit::Succeeded })
    }
}

/// Listens on the requested address, or on the default one or a free port.
async fn listen(requested: Option<SocketAddr>) -> io::Result<TcpListener> {
    if let Some(address) = requested {
        return TcpListener::bind(address).await;
    }
    match TcpListener::bind(LISTEN).await {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => TcpListener::bind((LISTEN.0, 0)).await,
        bound => bound,
    }
}

/// The address to call for a listener on all interfaces.
fn callable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    address
}

async fn stop(server: JoinHandle<Result<(), ServeError>>) -> Result<Exit, Failure> {
    match tokio::time::timeout(Duration::from_secs(10), server).await {
        Ok(ended) => stopped(ended),
        Err(_) => Ok(Exit::Succeeded),
    }
}

fn stopped(ended: Result<Result<(), ServeError>, tokio::task::JoinError>) -> Result<Exit, Failure> {
    match ended {
        Ok(Ok(())) => Ok(Exit::Succeeded),
        Ok(Err(error)) => Err(Failure::Usage(format!("the gateway failed: {error}"))),
        Err(error) => Err(Failure::Usage(format!("the gateway ended: {error}"))),
    }
}

fn reference(job: &DemoJob) -> JobRef {
    JobRef {
        backend: job.backend.to_owned(),
        job_id: job.id.clone(),
        job_tag: job.tag.clone().unwrap_or_default(),
    }
}

/// Which servers run where, and commands for another terminal.
fn introduction(address: SocketAddr, jobs: &[DemoJob], urls: &[(&str, String)], paint: Paint) -> String {
    let mut seen = HashSet::new();
    let one_each: Vec<_> = jobs.iter().filter(|job| seen.insert(job.backend)).collect();
    let backends = one_each.iter().map(|job| job.backend).collect::<Vec<_>>().join(", ");
    let mut text = format!(
        "{} listens on {address}.\nThe simulated vendors behind it: {backends}.\n\nPaste into another terminal:\n\n",
        paint.bold("jobwatch"),
    );
    for line in commands(address, &one_each) {
        text = text + "  " + &paint.cyan(&line) + "\n";
    }
    text += "\nThe same without jobwatch, such as with grpcurl:\n\n";
    for line in grpcurl(address, &one_each) {
        text = text + "  " + &paint.cyan(&line) + "\n";
    }
    text += "\nThe vendors start jobs and inject faults on request; see jobwatch demo --help:\n\n";
    for (vendor, url) in urls {
        text = text + &format!("  {vendor:8}  {url}/_simulator") + "\n";
    }
    if let Some((_, url)) = urls.first() {
        let fault = r#"{"effect":{"reset_at":20},"times":3}"#;
        let curl = simulate::curl(url, "faults", fault).replacen(" -d ", " \\\n    -d ", 1).replacen(
            " http:",
            " \\\n    http:",
            1,
        );
        text.push('\n');
        for line in curl.lines() {
            text = text + "  " + &paint.cyan(line.trim_end()) + "\n";
        }
    }
    text.push('\n');
    text
}

/// Commands of this program, in lines that fit 80 columns.
fn commands(address: SocketAddr, jobs: &[&DemoJob]) -> Vec<String> {
    let mut lines = Vec::new();
    if address != SocketAddr::from(LISTEN) {
        lines.push(format!("export JOBWATCH_SERVER={address}"));
    }
    let argument = |job: &DemoJob| {
        let tag = job.tag.as_ref().map(|tag| format!(" --tag {}", shell_word(tag))).unwrap_or_default();
        shell_word(&name(&reference(job))) + &tag
    };
    lines.push("jobwatch backends".to_owned());
    if let (Some(first), Some(last)) = (jobs.first(), jobs.last()) {
        lines.extend(folded(&["jobwatch get", &argument(first)]));
        lines.extend(folded(&["jobwatch watch", &argument(last)]));
        let untagged = jobs.iter().filter(|job| job.tag.is_none());
        let names: Vec<_> = untagged.map(|job| argument(job)).collect();
        let batch: Vec<_> =
            std::iter::once("jobwatch batch").chain(names.iter().map(String::as_str)).collect();
        lines.extend(folded(&batch));
    }
    lines
}

/// Columns of a command in the introduction, which indents it, before a backslash.
const WIDTH: usize = 76;

/// One command, continued on further lines where a part would exceed 80 columns with the
/// indentation of the introduction.
fn folded(parts: &[&str]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for part in parts {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + part.len() <= WIDTH => *line = format!("{line} {part}"),
            Some(line) => {
                line.push_str(" \\");
                lines.push(format!("  {part}"));
            }
            None => lines.push((*part).to_owned()),
        }
    }
    lines
}

fn grpcurl(address: SocketAddr, jobs: &[&DemoJob]) -> Vec<String> {
    let as_json = |job: &DemoJob| match &job.tag {
        None => json!({ "backend": job.backend, "job_id": job.id }),
        Some(tag) => json!({ "backend": job.backend, "job_id": job.id, "job_tag": tag }),
    };
    let mut lines = vec![
        format!("grpcurl -plaintext {address} list"),
        format!("grpcurl -plaintext {address} describe {SERVICE}"),
    ];
    let mut call = |method: &str, request: &Value| {
        let request = request.to_string().replace('\'', r"'\''");
        let method = format!("{SERVICE}/{method}");
        lines.push("grpcurl -plaintext \\".to_owned());
        // JSON may be broken between its members, and a quoted argument between its lines.
        let mut data = format!("-d '{request}' \\");
        if data.len() > WIDTH - 2 {
            data = data.replacen(",\"job_id\"", ",\n\"job_id\"", 1);
        }
        lines.extend(data.lines().map(|line| format!("  {line}")));
        lines.push(format!("  {address} {method}"));
    };
    if let (Some(first), Some(last)) = (jobs.first(), jobs.last()) {
        call("GetJobStatus", &json!({ "job": as_json(first) }));
        call("WatchJob", &json!({ "job": as_json(last) }));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(backend: &'static str, id: &str, tag: Option<&str>) -> DemoJob {
        DemoJob { backend, id: id.to_owned(), tag: tag.map(str::to_owned), title: "" }
    }

    #[test]
    fn commands_are_quoted_for_the_shell() {
        let jobs = [job("immuta", "it's", None), job("kinetica", "7", Some("t"))];
        let jobs: Vec<_> = jobs.iter().collect();
        assert_eq!(
            commands(LISTEN.into(), &jobs),
            [
                "jobwatch backends",
                r"jobwatch get 'immuta/it'\''s'",
                "jobwatch watch kinetica/7 --tag t",
                r"jobwatch batch 'immuta/it'\''s'",
            ]
        );
        assert_eq!(
            grpcurl(LISTEN.into(), &jobs),
            [
                r"grpcurl -plaintext 127.0.0.1:50051 list",
                r"grpcurl -plaintext 127.0.0.1:50051 describe jobwatch.v1.JobStatusService",
                r"grpcurl -plaintext \",
                r#"  -d '{"job":{"backend":"immuta","job_id":"it'\''s"}}' \"#,
                r"  127.0.0.1:50051 jobwatch.v1.JobStatusService/GetJobStatus",
                r"grpcurl -plaintext \",
                r#"  -d '{"job":{"backend":"kinetica","job_id":"7","job_tag":"t"}}' \"#,
                r"  127.0.0.1:50051 jobwatch.v1.JobStatusService/WatchJob",
            ]
        );
    }

    #[test]
    fn introduction_fits_80_columns_and_begins_with_jobwatch_commands() {
        let uuid = "cefb58a0-cd71-11ec-8e29-81c20d280994";
        let datasaur = format!("AutoLabelQueue:{uuid}");
        let jobs = [
            job("immuta", uuid, None),
            job("kinetica", "4611686018427387907", Some("nightly-2024-orders")),
            job("datasaur", &datasaur, None),
        ];
        let address = "127.0.0.1:43210".parse().unwrap();
        let text =
            introduction(address, &jobs, &[("immuta", "http://127.0.0.1:43211".to_owned())], Paint::NONE);
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        assert!(text.find("  jobwatch get").unwrap() < text.find("  grpcurl").unwrap(), "{text}");
        assert!(text.contains("\n  export JOBWATCH_SERVER=127.0.0.1:43210\n"), "{text}");
    }

    #[test]
    fn introduction_shows_one_job_of_each_backend() {
        let jobs = [job("immuta", "1", None), job("immuta", "2", None), job("claret", "3", None)];
        let text = introduction(LISTEN.into(), &jobs, &[("immuta", "http://x".to_owned())], Paint::NONE);
        assert!(text.contains("\n  immuta    http://x/_simulator\n"), "{text}");
        assert!(text.contains("The simulated vendors behind it: immuta, claret.\n"), "{text}");
        assert!(!text.contains("\"2\""));
    }

    #[tokio::test]
    async fn port_in_use_is_an_error_only_if_requested() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        assert!(listen(Some(taken.local_addr().unwrap())).await.is_err());
        // Whether or not the usual port is free, one is found.
        assert!(listen(None).await.is_ok());
    }

    #[test]
    fn unspecified_address_is_called_on_loopback() {
        assert_eq!(callable("0.0.0.0:7".parse().unwrap()).to_string(), "127.0.0.1:7");
        assert_eq!(callable("[::]:7".parse().unwrap()).to_string(), "127.0.0.1:7");
    }
}
