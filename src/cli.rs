//! The command line: `serve`, `check` and `config` for operators; `get`, `watch`, `batch` and
//! `download` for callers; `vendor` for definitions of vendors; `demo` to try jobwatch; `simulate` to develop a client.
//!
//! The client commands print text on a terminal and one proto-JSON object per line
//! everywhere else. The exit code shows how the jobs ended; see [`Exit`].

use std::{
    future::Future,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

mod address;
mod batch;
mod board;
mod check;
mod client;
mod cluster;
mod configuration;
mod connection;
#[cfg(feature = "demo")]
mod demo;
mod download;
mod exit;
mod exit_codes;
mod fault;
mod first_bytes;
mod get;
mod healthcheck;
mod hook;
mod inspect;
mod job_list;
mod json;
mod output;
mod packaging;
mod present;
mod render;
mod row;
mod serve;
#[cfg(feature = "demo")]
mod simulate;
mod table;
mod text;
mod tls;
mod tls_fault;
mod token;
mod variables;
mod vendor;
mod watch;

pub use exit::Exit;
use exit::Failure;

use crate::{
    config::{Config, EnvFile, Environment, InvalidConfig, Problem},
    telemetry::build,
};

/// One gRPC contract over every vendor's asynchronous-job API.
#[derive(Debug, Parser)]
#[command(name = "jobwatch", version = build::LONG_VERSION, after_help = exit_codes::PROGRAM)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway.
    ///
    /// SIGTERM and SIGINT stop it: it is not ready from then on, accepts calls for
    /// server.drain_delay, ends watches after their newest status, and waits at most
    /// server.drain_timeout for other calls. A second signal ends the process at once.
    #[command(after_help = exit_codes::SERVER)]
    Serve(serve::Args),
    /// Validate a configuration and report every problem.
    #[command(after_help = exit_codes::CHECK)]
    Check(check::Args),
    /// Show the schema of the configuration, or the configuration in effect.
    #[command(after_help = exit_codes::TOOL)]
    Config(configuration::Args),
    /// Show the status of jobs.
    #[command(after_help = exit_codes::GET)]
    Get(client::Query),
    /// Watch jobs until they end.
    ///
    /// A job that is named twice is watched once. The watch goes on through restarts of the gateway, and while the gateway can't poll the
    /// vendor, also because the vendor rejects the gateway's credentials: its operator may
    /// correct them. --timeout bounds it. Credentials of the caller that the gateway rejects end
    /// it at once; if they lose their rights during the watch, it is tried once more.
    #[command(after_help = exit_codes::WATCH)]
    Watch(watch::Args),
    /// Show the statuses of many jobs with one call.
    #[command(after_help = exit_codes::GET)]
    Batch(client::Query),
    /// Download one of a job's files, its result or its vendor payload.
    #[command(after_help = exit_codes::DOWNLOAD)]
    Download(download::Args),
    /// Show the backends of a gateway.
    #[command(after_help = exit_codes::CALL)]
    Backends(inspect::Backends),
    /// Show the jobs that a gateway polls or retains.
    #[command(after_help = exit_codes::CALL)]
    Jobs(inspect::Jobs),
    /// Show how replicas share the work.
    #[command(after_help = exit_codes::CLUSTER_STATUS)]
    Cluster(cluster::Cluster),
    /// Show, check and test the definitions of vendors.
    #[command(after_help = exit_codes::VENDOR)]
    Vendor(vendor::Args),
    /// Make bearer tokens for callers.
    #[command(after_help = exit_codes::TOOL)]
    Token(token::Args),
    /// Check that a gateway accepts calls. Exits with 0 or 1.
    #[command(after_help = exit_codes::HEALTHCHECK)]
    Healthcheck(healthcheck::Args),
    /// Print a completion script for a shell.
    #[command(after_help = exit_codes::TOOL)]
    Completions(packaging::Completions),
    /// Write manual pages.
    #[command(hide = true)]
    #[command(after_help = exit_codes::TOOL)]
    Man(packaging::Man),
    /// Run a gateway with simulated vendors and watch their jobs.
    #[cfg(feature = "demo")]
    #[command(after_help = exit_codes::SERVER, after_long_help = simulate::long_help() + "\n" + exit_codes::SERVER)]
    Demo(demo::Args),
    /// Run one simulated vendor to develop a client against.
    #[cfg(feature = "demo")]
    #[command(after_help = exit_codes::SERVER, after_long_help = simulate::long_help() + "\n" + exit_codes::SERVER)]
    Simulate(simulate::Args),
}

/// Task polls between two polls for I/O events. Tokio's default is a quarter of this.
/// With more calls handled together, more of them share one write, which saves a fifth
/// of the CPU of a call that polls a vendor.
const EVENT_INTERVAL: u32 = 256;

/// A single-threaded runtime on one core, where worker threads would only compete. It
/// also runs a connection's task after the calls that write to it, so that their
/// responses share a write: a quarter of the writes remain.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    use tokio::runtime::Builder;
    let one_core = std::thread::available_parallelism().is_ok_and(|cores| cores.get() == 1);
    let mut builder = if one_core { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    builder.event_interval(EVENT_INTERVAL).enable_all().build()
}

impl Cli {
    /// Reads the command line. Ends the process with help, or with an error of usage.
    pub fn from_command_line() -> Self {
        let matches = Self::command().term_width(help_width()).get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }

    /// Runs the command and returns its exit code.
    pub fn run(self) -> ExitCode {
        let runtime = match runtime() {
            Ok(runtime) => runtime,
            Err(error) => {
                eprintln!("error: can't start: {error}");
                return Exit::Misused.into();
            }
        };
        let done = runtime.block_on(self.command.run());
        // A task that still blocks must not keep the process alive.
        runtime.shutdown_background();
        done.unwrap_or_else(Failure::report).into()
    }
}

impl Command {
    async fn run(self) -> Result<Exit, Failure> {
        match self {
            Self::Serve(args) => args.run().await,
            Self::Check(args) => args.run().await,
            Self::Config(args) => args.run(),
            Self::Get(query) => until_interrupted(get::run(query)).await,
            Self::Watch(args) => args.run().await,
            Self::Batch(query) => until_interrupted(batch::run(query)).await,
            Self::Download(args) => until_interrupted(args.run()).await,
            Self::Backends(args) => until_interrupted(args.run()).await,
            Self::Jobs(args) => until_interrupted(args.run()).await,
            Self::Cluster(args) => until_interrupted(args.run()).await,
            Self::Vendor(args) => until_interrupted(args.run()).await,
            Self::Token(args) => args.run(),
            Self::Healthcheck(args) => args.run().await,
            Self::Completions(args) => args.run(Cli::command()),
            Self::Man(args) => args.run(Cli::command()),
            #[cfg(feature = "demo")]
            Self::Demo(args) => args.run().await,
            #[cfg(feature = "demo")]
            Self::Simulate(args) => args.run().await,
        }
    }
}

/// Most columns of a help text, and those of one that goes to no terminal.
const HELP_WIDTH: (usize, usize) = (100, 80);

/// The columns that a help text is wrapped to.
fn help_width() -> usize {
    let (most, elsewhere) = HELP_WIDTH;
    let terminal =
        [console::Term::stdout(), console::Term::stderr()].into_iter().find(console::Term::is_term);
    let columns = terminal.and_then(|terminal| terminal.size_checked()).map(|(_, columns)| columns.into());
    // A terminal that does not know its size says zero.
    columns.filter(|columns| *columns > 0).map_or(elsewhere, |columns: usize| columns.min(most))
}

async fn until_interrupted(work: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    tokio::select! {
        done = work => done,
        Ok(()) = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
    }
}

/// Where to find the configuration.
#[derive(Clone, Debug, clap::Args)]
struct Configuration {
    /// Configuration file, in TOML. Without it, variables set everything, such as
    /// `JOBWATCH__BACKENDS__IMMUTA_PROD__VENDOR=immuta` for backends.immuta-prod.vendor.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// File of variables, one NAME=value per line. They take precedence over the
    /// environment. The gateway takes over what changes there.
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
}

impl Configuration {
    /// The files that it is read from.
    fn files(&self) -> Vec<PathBuf> {
        self.config.iter().chain(&self.env_file).cloned().collect()
    }

    fn load(&self) -> Result<Config, InvalidConfig> {
        self.load_with(self.environment()?)
    }

    fn environment(&self) -> Result<Environment, InvalidConfig> {
        let environment = Environment::of_process()?;
        match &self.env_file {
            Some(file) => Ok(environment.with_file(EnvFile::load(file)?)),
            None => Ok(environment),
        }
    }

    fn load_with(&self, environment: Environment) -> Result<Config, InvalidConfig> {
        self.require(&environment)?;
        match &self.config {
            Some(file) => Config::load(file, environment),
            None => Config::of_environment(environment),
        }
    }

    /// Refuses a command line without a file where no variable sets anything.
    fn require(&self, environment: &Environment) -> Result<(), InvalidConfig> {
        if self.config.is_some() || !environment.keys().is_empty() {
            return Ok(());
        }
        let text = "is missing; write --config FILE, or set variables such as \
                    JOBWATCH__BACKENDS__IMMUTA_PROD__VENDOR";
        let (subject, text) = ("the configuration".to_owned(), text.to_owned());
        Err(InvalidConfig { problems: vec![Problem { subject, text }] })
    }

    /// Logs where the configuration comes from.
    fn log(&self, variables: &str) {
        let none = Path::new("none");
        let file = self.config.as_deref().unwrap_or(none).display();
        let env_file = self.env_file.as_deref().unwrap_or(none).display();
        let variables = if variables.is_empty() { "none" } else { variables };
        tracing::info!(%file, %env_file, variables, "configuration read");
    }
}
