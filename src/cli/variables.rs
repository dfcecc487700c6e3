//! Options whose value comes from an environment variable: a message about an option names the
//! variable then, which is what its user has to change.

use clap::{ArgMatches, parser::ValueSource};

/// The options of a command that variables have set.
#[derive(Clone, Debug, Default)]
pub(super) struct Variables(Vec<String>);

impl Variables {
    /// Those of a command line that is not read yet.
    pub(super) fn of(matches: &ArgMatches) -> Self {
        let is_variable =
            |id: &&clap::Id| matches.value_source(id.as_str()) == Some(ValueSource::EnvVariable);
        Self(matches.ids().filter(is_variable).map(ToString::to_string).collect())
    }

    /// How to do without it.
    pub(super) fn omit(&self, id: &str) -> &'static str {
        if self.has(id) { "unset it" } else { "leave it out" }
    }

    fn has(&self, id: &str) -> bool {
        self.0.iter().any(|set| set == id)
    }

    /// The option `token_file` as its user wrote it: `--token-file`, or `JOBWATCH_TOKEN_FILE`.
    pub(super) fn name(&self, id: &str) -> String {
        if self.has(id) {
            format!("JOBWATCH_{}", id.to_uppercase())
        } else {
            format!("--{}", id.replace('_', "-"))
        }
    }
}
