//! `jobwatch token`: makes bearer tokens for callers.

use std::io::{self, Write};

use super::{
    exit::{Exit, Failure},
    exit_codes,
};
use crate::access;

/// Makes bearer tokens for callers.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print a new token, and the hash that stands for it in the configuration.
    #[command(after_help = exit_codes::TOOL)]
    New {
        /// The caller's name.
        #[arg(value_name = "NAME", value_parser = name, default_value = "my-service")]
        name: String,
    },
}

impl Args {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let Command::New { name } = self.command;
        let token = access::generate_token();
        let hash = access::hash_token(&token);
        let mut out = io::stdout().lock();
        writeln!(
            out,
            "# Give this token to the caller. It is not stored anywhere, and can't be shown again."
        )?;
        writeln!(out, "# {token}\n")?;
        writeln!(
            out,
            "# Write this into the gateway's configuration, which needs a policy for the caller, too."
        )?;
        writeln!(out, "[access.tokens.{name}]\nsha256 = [\"{hash}\"]")?;
        Ok(Exit::Succeeded)
    }
}

/// A name that TOML needs no quotes for.
fn name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if (1..=64).contains(&text.len()) && text.chars().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("write 1 to 64 letters, digits, - and _".to_owned())
    }
}
