//! The `jobwatch` program.

use std::process::ExitCode;

use clap::Parser;
use jobwatch::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
