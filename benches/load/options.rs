//! What a run can be told.

use std::path::PathBuf;

use clap::Parser;

/// Measures the gateway beside a bare tonic server, each on one core.
#[derive(Debug, Parser)]
#[command(name = "load")]
pub(crate) struct Options {
    /// Fewer rounds and smaller numbers: less than five minutes.
    #[arg(long)]
    pub(crate) short: bool,

    /// Only this row; can be given several times.
    #[arg(long, value_name = "ROW")]
    pub(crate) only: Vec<String>,

    /// Where the figures are written for programs.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// The program to measure, if not the one that was built with this one.
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) gateway: Option<PathBuf>,

    /// Cargo says so.
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
}
