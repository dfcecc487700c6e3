//! What the program says about itself: logs on stderr.

use std::io::{self, IsTerminal};

use clap::ValueEnum;
use thiserror::Error;
use tracing_subscriber::{EnvFilter, fmt};

/// How a log line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people; coloured on a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why logging can't begin.
#[derive(Debug, Error)]
pub enum InitError {
    /// The filter can't be read.
    #[error(
        "the log filter {filter:?} can't be read: {error}; write one such as \"info\" or \"jobwatch=debug\""
    )]
    Filter {
        /// As it was given.
        filter: String,
        /// What is wrong with it.
        error: tracing_subscriber::filter::ParseError,
    },
    /// This process logs already.
    #[error("logging has begun already")]
    Again,
}

/// Begins to log to stderr what `filter` lets through, for the whole process.
///
/// # Errors
/// Where the filter can't be read, or a second time in one process.
pub fn init(format: Format, filter: &str) -> Result<(), InitError> {
    let env_filter = EnvFilter::builder()
        .parse(filter)
        .map_err(|error| InitError::Filter { filter: filter.to_owned(), error })?;
    let stderr = io::stderr();
    let colours = stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let builder = fmt().with_env_filter(env_filter).with_writer(io::stderr).with_ansi(colours);
    // A line that nobody reads is lost. To say so would be to write to where writing
    // fails, which panics in the middle of whatever was logged.
    let builder = builder.log_internal_errors(false);
    let begun = match format {
        Format::Text => builder.try_init(),
        Format::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
    };
    begun.map_err(|_| InitError::Again)
}

/// The filter that the environment asks for: `JOBWATCH_LOG`, else `RUST_LOG`,
/// else `default`.
pub fn filter(default: &str) -> String {
    let set = |name| std::env::var(name).ok().filter(|filter| !filter.trim().is_empty());
    set("JOBWATCH_LOG").or_else(|| set("RUST_LOG")).unwrap_or_else(|| default.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cant_be_read_is_shown_with_what_to_write() {
        let error = init(Format::Text, "jobwatch=loud").unwrap_err().to_string();
        assert!(error.starts_with("the log filter \"jobwatch=loud\" can't be read: "), "{error}");
        assert!(error.ends_with("; write one such as \"info\" or \"jobwatch=debug\""), "{error}");
    }
}
