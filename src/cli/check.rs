//! `jobwatch check`: validates a configuration.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use super::{
    Configuration,
    exit::{Exit, Failure},
    render::Paint,
};
use crate::{
    cluster,
    config::{Backend, Cluster, Protocol, Traces},
    server,
};

/// The name of the export of traces in the output.
const TRACES: &str = "traces";

/// The name of the connection to other replicas.
const CLUSTER: &str = "cluster";

mod diff;

/// Validates a configuration.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration file, in TOML. Without it, variables set everything.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// File of variables, one NAME=value per line. They take precedence over the
    /// environment.
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,

    /// Show what a gateway that runs with the configuration OLD would do if it were
    /// replaced by NEW: what takes effect at once, and what needs a restart.
    #[arg(long, num_args = 2, value_names = ["OLD", "NEW"], conflicts_with_all = ["config", "connect"])]
    diff: Option<Vec<PathBuf>>,

    /// Also call each vendor to check the backend's credentials, and the NATS servers of
    /// [cluster].
    #[arg(long)]
    connect: bool,
}

impl Args {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let configuration = |config: Option<&PathBuf>| Configuration {
            config: config.cloned(),
            env_file: self.env_file.clone(),
        };
        if let Some([old, new]) = self.diff.as_deref() {
            return diff::run(&configuration(Some(old)), &configuration(Some(new)));
        }
        let config = configuration(self.config.as_ref()).load()?;
        let tls = server::check_tls(&config).map_err(|error| Failure::Usage(error.to_string()))?;
        server::check_access(&config).map_err(|error| Failure::Usage(error.to_string()))?;
        for warning in config.warnings().into_iter().chain(tls) {
            eprintln!("warning: {warning}");
        }
        let results = if self.connect {
            server::check_backends(&config).await
        } else {
            server::set_up_backends(&config)
        };
        let traces = server::check_traces(&config, self.connect).await;
        let width = config.backends.iter().map(|backend| backend.name.len()).max().unwrap_or_default();
        let width = if traces.is_some() { width.max(TRACES.len()) } else { width };
        let width = if config.cluster.is_some() { width.max(CLUSTER.len()) } else { width };
        let sharing = match &config.cluster {
            Some(cluster) if self.connect => Some((cluster, cluster::nats::check(cluster).await)),
            cluster => cluster.as_ref().map(|cluster| (cluster, Ok(()))),
        };
        let mut exit = Exit::Succeeded;
        let mut out = io::stdout().lock();
        for backend in &config.backends {
            let checked = results.iter().find(|(name, _)| *name == backend.name);
            let failure = checked.and_then(|(_, result)| result.as_ref().err());
            if failure.is_some() {
                exit = Exit::Failed;
            }
            let text = line(backend, width, failure.map(String::as_str), Paint::stdout());
            writeln!(out, "{text}")?;
        }
        if let (Some(traces), Some(checked)) = (&config.traces, &traces) {
            let failure = checked.as_ref().err();
            if failure.is_some() {
                exit = Exit::Failed;
            }
            writeln!(out, "{}", traces_line(traces, width, failure.map(String::as_str), Paint::stdout()))?;
        }
        if let Some((cluster, checked)) = sharing {
            let failure = checked.as_ref().err();
            if failure.is_some() {
                exit = Exit::Failed;
            }
            let text = cluster_line(cluster, width, failure.map(String::as_str), Paint::stdout());
            writeln!(out, "{text}")?;
        }
        Ok(exit)
    }
}

fn cluster_line(cluster: &Cluster, width: usize, failure: Option<&str>, paint: Paint) -> String {
    let Cluster { nats, name, replicas, member, credentials, .. } = cluster;
    let about = format!("{member} of {replicas} replicas of {name} over {}, {credentials}", nats.join(", "));
    verdict(CLUSTER, width, failure, &about, paint)
}

fn traces_line(traces: &Traces, width: usize, failure: Option<&str>, paint: Paint) -> String {
    let protocol = match traces.protocol {
        Protocol::Grpc => "gRPC",
        Protocol::Http => "HTTP",
    };
    let about = format!("OTLP over {protocol} to {}", traces.endpoint.as_str());
    verdict(TRACES, width, failure, &about, paint)
}

fn line(backend: &Backend, width: usize, failure: Option<&str>, paint: Paint) -> String {
    let Backend { name, vendor, base_url, credentials, .. } = backend;
    let mut about = format!("{} at {}, {}", vendor.kind().name, base_url.as_str(), credentials.description());
    let origins = vendor.file_origins().iter().map(|allowed| {
        let credentials = if allowed.with_credentials { " with credentials" } else { "" };
        format!("{}{credentials}", allowed.origin())
    });
    let origins: Vec<String> = origins.collect();
    if !origins.is_empty() {
        about = format!("{about}; files from {}", origins.join(", "));
    }
    verdict(name, width, failure, &about, paint)
}

fn verdict(name: &str, width: usize, failure: Option<&str>, about: &str, paint: Paint) -> String {
    let verdict = if failure.is_some() { paint.red("FAILED") } else { paint.green("OK    ") };
    let about = paint.dim(about);
    match failure {
        None => format!("{verdict}  {name:width$}  {about}"),
        Some(failure) => format!("{verdict}  {name:width$}  {failure}  {about}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn backend_is_shown_in_one_line() {
        let text = "[backends.db]\nvendor = \"kinetica\"\nbase_url = \"http://127.0.0.1:9191\"";
        let config = Config::parse(text, []).unwrap();
        let line = |failure| line(&config.backends[0], 4, failure, Paint::NONE);
        assert_eq!(line(None), "OK      db    Kinetica at http://127.0.0.1:9191/, no credentials");
        assert_eq!(
            line(Some("no connection")),
            "FAILED  db    no connection  Kinetica at http://127.0.0.1:9191/, no credentials"
        );
    }
}
