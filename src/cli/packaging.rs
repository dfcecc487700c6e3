//! `jobwatch completions` and `jobwatch man`: files for packages, from the definition of the
//! command line.

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
};

use clap_complete::{Shell, generate};

use super::exit::{Exit, Failure};

/// Print a completion script.
#[derive(Debug, clap::Args)]
pub(super) struct Completions {
    /// The shell that will read it.
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

/// Write manual pages: jobwatch.1 and one for each command.
#[derive(Debug, clap::Args)]
pub(super) struct Man {
    /// Directory to write them to; made if it does not exist.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Completions {
    pub(super) fn run(self, mut command: clap::Command) -> Result<Exit, Failure> {
        let name = command.get_name().to_owned();
        let mut script = Vec::new();
        generate(self.shell, &mut command, name, &mut script);
        io::stdout().lock().write_all(&script)?;
        Ok(Exit::Succeeded)
    }
}

impl Man {
    pub(super) fn run(self, command: clap::Command) -> Result<Exit, Failure> {
        let written = fs::create_dir_all(&self.out)
            .and_then(|()| clap_mangen::generate_to(command.disable_help_subcommand(true), &self.out));
        match written {
            Ok(()) => Ok(Exit::Succeeded),
            Err(error) => {
                Err(Failure::Usage(format!("--out {} can't be written: {error}", self.out.display())))
            }
        }
    }
}
