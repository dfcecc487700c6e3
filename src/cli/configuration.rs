//! `jobwatch config`: the schema of the configuration, and the configuration in effect.

use std::io::{self, Write};

use super::{
    Configuration,
    exit::{Exit, Failure},
    exit_codes,
};
use crate::config::{self, Effective};

/// Show the schema of the configuration, or the configuration in effect.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print JSON Schema (draft 2020-12) of the configuration file.
    #[command(after_help = exit_codes::TOOL)]
    Schema,
    /// Print every value in effect, and where it comes from: default, file and line, or
    /// variable. Secrets are not shown.
    #[command(after_help = exit_codes::TOOL)]
    Show {
        #[command(flatten)]
        configuration: Configuration,

        /// Print JSON: the values, and the origin of each by its path.
        #[arg(long)]
        json: bool,
    },
}

impl Args {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let text = match self.command {
            Command::Schema => format!("{:#}\n", config::json_schema()),
            Command::Show { configuration, json } => {
                let environment = configuration.environment()?;
                configuration.require(&environment)?;
                let effective = Effective::load(configuration.config.as_deref(), environment)?;
                if json { format!("{:#}\n", effective.to_json()) } else { effective.to_string() }
            }
        };
        io::stdout().lock().write_all(text.as_bytes())?;
        Ok(Exit::Succeeded)
    }
}
