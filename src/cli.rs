//! The command line: `serve` and `check` for operators, `get`, `watch` and
//! `batch` for anyone who has a job to follow, `demo` for the first minute and
//! `simulate` for whoever writes a client.
//!
//! The clients print for people on a terminal and one proto-JSON object per line
//! everywhere else. What a command found out is its exit code; see [`Exit`].

use std::{future::Future, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

mod batch;
mod board;
mod check;
mod client;
#[cfg(feature = "demo")]
mod demo;
mod download;
mod exit;
mod fault;
mod follow;
mod get;
mod json;
mod present;
mod render;
mod serve;
#[cfg(feature = "demo")]
mod simulate;
mod watch;

pub use exit::Exit;
use exit::Failure;

use crate::config::{Config, EnvFile, Environment, InvalidConfig};

/// One gRPC contract over every vendor's asynchronous-job API.
#[derive(Debug, Parser)]
#[command(name = "jobwatch", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes:
  0    the job succeeded (with several jobs, all of them); the file is there
  1    it ended otherwise
  2    usage or configuration
  3    the call failed
  4    not terminal (get, batch)
  130  interrupted";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway.
    Serve(serve::Args),
    /// Validate a configuration, naming every problem.
    Check(check::Args),
    /// Show the status of jobs.
    Get(get::Args),
    /// Follow jobs until they end.
    Watch(watch::Args),
    /// Show the statuses of many jobs, asked for in one call.
    Batch(batch::Args),
    /// Download one of a job's files.
    Download(download::Args),
    /// Show everything, with simulated vendors: nothing to install or configure.
    #[cfg(feature = "demo")]
    #[command(after_long_help = simulate::means())]
    Demo(demo::Args),
    /// Run one simulated vendor, to write a client against.
    #[cfg(feature = "demo")]
    #[command(after_long_help = simulate::means())]
    Simulate(simulate::Args),
}

/// Steps of tasks between two looks for what has arrived, if there are as many to take.
/// Tokio's own are a quarter; the more calls go the same way together, the more of them
/// share a write: a fifth of a fresh call's CPU.
const STEPS: u32 = 256;

/// On one core, threads that share work would only be in each other's way. And where
/// many calls are answered together, a connection sends their answers together, since
/// it has its turn after them: three quarters of the writes less.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    use tokio::runtime::Builder;
    let one_core = std::thread::available_parallelism().is_ok_and(|cores| cores.get() == 1);
    let mut builder = if one_core { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    builder.event_interval(STEPS).enable_all().build()
}

impl Cli {
    /// Does what was asked for and says how it went.
    pub fn run(self) -> ExitCode {
        let runtime = match runtime() {
            Ok(runtime) => runtime,
            Err(error) => {
                eprintln!("error: can't start: {error}");
                return Exit::Misused.into();
            }
        };
        let done = runtime.block_on(self.command.run());
        // A task that still blocks must not hold the process.
        runtime.shutdown_background();
        done.unwrap_or_else(Failure::report).into()
    }
}

impl Command {
    async fn run(self) -> Result<Exit, Failure> {
        match self {
            Self::Serve(args) => args.run().await,
            Self::Check(args) => args.run().await,
            Self::Get(args) => until_interrupted(args.run()).await,
            Self::Watch(args) => until_interrupted(args.run()).await,
            Self::Batch(args) => until_interrupted(args.run()).await,
            Self::Download(args) => until_interrupted(args.run()).await,
            #[cfg(feature = "demo")]
            Self::Demo(args) => args.run().await,
            #[cfg(feature = "demo")]
            Self::Simulate(args) => args.run().await,
        }
    }
}

async fn until_interrupted(work: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    tokio::select! {
        done = work => done,
        Ok(()) = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
    }
}

/// Where the configuration is.
#[derive(Debug, clap::Args)]
struct Configuration {
    /// The configuration, in TOML.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// Variables that come before those of the environment, a NAME=value in each
    /// line. The gateway sees when a secret changes there.
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
}

impl Configuration {
    fn load(&self) -> Result<Config, InvalidConfig> {
        // What is no text can be no value.
        let own = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let mut environment = Environment::from(own);
        if let Some(file) = &self.env_file {
            environment = environment.with_file(EnvFile::load(file)?);
        }
        Config::load(&self.config, environment)
    }
}
