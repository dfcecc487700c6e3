//! The `jobwatch` program.

use std::process::ExitCode;

use clap::Parser;
use jobwatch::cli::Cli;
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    Cli::parse().run()
}
