//! Command-line options of a run.

use std::path::PathBuf;

use clap::Parser;

/// Measures the gateway beside a bare tonic server, each on one core.
#[derive(Debug, Parser)]
#[command(name = "load")]
pub(crate) struct Options {
    /// Fewer rounds and smaller numbers: less than ten minutes.
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

    /// A second program, such as that of an older commit. Each row is measured with both,
    /// in turns, and a column shows what this one came to.
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) baseline: Option<PathBuf>,

    /// How often each row is measured. With a baseline each turn measures both programs;
    /// more turns make the comparison less noisy.
    #[arg(long, value_name = "TURNS", default_value_t = 1)]
    pub(crate) turns: usize,

    /// Passed by cargo.
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
}
