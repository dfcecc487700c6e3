//! Logging to stderr.

use std::io::{self, IsTerminal};

use clap::ValueEnum;
use thiserror::Error;
use tracing_subscriber::{EnvFilter, fmt};

/// Format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Text, coloured on a terminal.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Why logging can't be initialised.
#[derive(Debug, Error)]
pub enum InitError {
    /// The filter is invalid.
    #[error(
        "the log filter {filter:?} is invalid: {error}; write one such as \"info\" or \"jobwatch=debug\""
    )]
    Filter {
        /// The filter.
        filter: String,
        /// The problem.
        error: tracing_subscriber::filter::ParseError,
    },
    /// Logging is initialised already.
    #[error("logging is already initialised")]
    AlreadyInitialised,
}

/// Initialises logging to stderr for the whole process.
///
/// # Errors
/// If the filter is invalid, or the second time in one process.
pub fn init(format: Format, filter: &str) -> Result<(), InitError> {
    let env_filter = EnvFilter::builder()
        .parse(filter)
        .map_err(|error| InitError::Filter { filter: filter.to_owned(), error })?;
    let stderr = io::stderr();
    let colours = stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let builder = fmt().with_env_filter(env_filter).with_writer(io::stderr).with_ansi(colours);
    // If stderr is closed, a log line is lost. To report that on stderr would panic in the
    // code that logs.
    let builder = builder.log_internal_errors(false);
    let initialised = match format {
        Format::Text => builder.try_init(),
        Format::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
    };
    initialised.map_err(|_| InitError::AlreadyInitialised)
}

/// The filter of `JOBWATCH_LOG`, else of `RUST_LOG`, else `default`. Of h2 it shows errors,
/// unless it names h2: a client can cause any number of its warnings.
pub fn filter(default: &str) -> String {
    let set = |name| std::env::var(name).ok().filter(|filter| !filter.trim().is_empty());
    let filter = set("JOBWATCH_LOG").or_else(|| set("RUST_LOG")).unwrap_or_else(|| default.to_owned());
    if filter.contains("h2") { filter } else { format!("{filter},h2=error") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_filter_is_refused_with_an_example() {
        let error = init(Format::Text, "jobwatch=loud").unwrap_err().to_string();
        assert!(error.starts_with("the log filter \"jobwatch=loud\" is invalid: "), "{error}");
        assert!(error.ends_with("; write one such as \"info\" or \"jobwatch=debug\""), "{error}");
    }
}
