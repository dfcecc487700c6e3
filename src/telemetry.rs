//! What an operator sees of the process: logs, metrics and traces.

use std::path::Path;

pub mod build;
mod log;
pub mod metrics;
pub mod process;
mod sampled;
pub mod traces;

pub use log::{
    Flush, Format, InitError, InvalidFilter, LevelError, check_filter, dropped_lines, filter,
    filter_variable, init, level, report_dropped_lines, set_level,
};

pub use sampled::Sampled;

/// When the first certificate of a PEM file ends, in seconds since 1970. `None` where there
/// is none that can be read.
pub fn certificate_end(file: &Path) -> Option<f64> {
    let text = std::fs::read(file).ok()?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(&text).ok()?;
    let end = pem.parse_x509().ok()?.validity().not_after.timestamp();
    #[expect(clippy::cast_precision_loss, reason = "a time that is exact below 2^52")]
    Some(end as f64)
}
