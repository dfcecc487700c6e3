//! Secrets, their sources, and reading them again after a change.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::{
    Problem,
    environment::EnvFile,
    text_file::{read_text, refuse_pipe},
};
use crate::vendors::SecretForm;

/// A secret and its source.
#[derive(Clone, Debug)]
pub struct Secret {
    pub(super) key: String,
    pub(super) value: SecretString,
    pub(super) source: Source,
    pub(super) form: SecretForm,
}

/// The source of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In the configuration itself.
    Literal,
    /// In a variable.
    Environment {
        /// Its name.
        name: String,
        /// The environment file, if there is one. It comes before the process's
        /// environment, whether or not it holds the variable yet.
        file: Option<PathBuf>,
    },
    /// In a file that holds nothing else.
    File(PathBuf),
}

impl Secret {
    /// The path of its key, such as `backends.claret.credentials.password`.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The secret itself, as it was when the configuration was read.
    pub fn value(&self) -> &SecretString {
        &self.value
    }

    /// Its source.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Its key within the backend and its place, for people.
    pub fn origin(&self) -> String {
        let key = self.key.split_once(".credentials.").map_or(&*self.key, |(_, key)| key);
        match &self.source {
            Source::Literal => format!("credentials.{key} of the configuration file"),
            Source::Environment { name, file: None } => {
                format!("credentials.{key} from the variable {name}")
            }
            Source::Environment { name, file: Some(file) } => {
                format!("credentials.{key} from the variable {name}, which {} may set", file.display())
            }
            Source::File(file) => format!("credentials.{key} from the file {}", file.display()),
        }
    }

    /// Whether it may change while the program runs.
    pub fn may_change(&self) -> bool {
        match &self.source {
            Source::Literal | Source::Environment { file: None, .. } => false,
            Source::Environment { file: Some(_), .. } | Source::File(_) => true,
        }
    }

    /// Reads the secret from its file again; `None` if an environment file no longer
    /// holds it. Blocks.
    ///
    /// # Errors
    /// If the file is missing, empty or being written.
    pub fn read_again(&self) -> Result<Option<SecretString>, Problem> {
        let problem = |text| Problem { subject: self.key.clone(), text };
        let text = match &self.source {
            Source::Literal | Source::Environment { file: None, .. } => return Ok(None),
            Source::Environment { name, file: Some(file) } => {
                let mut file = EnvFile::load_again(file)?;
                let Some(text) = file.take(name) else { return Ok(None) };
                text
            }
            Source::File(file) => {
                refuse_pipe(file)
                    .map_err(|error| problem(format!("is the file {}, which {error}", file.display())))?;
                read_file(file).map_err(problem)?
            }
        };
        check(self.form, &text).map_err(|text| problem(text.to_owned()))?;
        Ok(Some(text.into()))
    }
}

impl ExposeSecret<str> for Secret {
    fn expose_secret(&self) -> &str {
        self.value.expose_secret()
    }
}

/// A literal without a key.
impl From<SecretString> for Secret {
    fn from(value: SecretString) -> Self {
        Self { key: String::new(), value, source: Source::Literal, form: SecretForm::Text }
    }
}

/// A literal without a key.
impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        SecretString::from(value).into()
    }
}

/// Describes what is wrong with a secret, without showing it.
pub(super) fn check(form: SecretForm, text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("is empty; write the secret, or where it is");
    }
    if text.chars().any(char::is_control) {
        return Err("holds a line break or another control character; write the secret alone");
    }
    if form == SecretForm::Header {
        if text.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer ")) {
            return Err("begins with \"Bearer \"; write the token alone");
        }
        if text.chars().any(char::is_whitespace) {
            return Err("holds white space, which a header can't carry; write the secret alone");
        }
    }
    Ok(())
}

/// The secret in a file of its own, without the last line break.
pub(super) fn read_file(file: &Path) -> Result<String, String> {
    let text = read_text(file).map_err(|error| format!("is the file {}, which {error}", file.display()))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(format!("is the file {}, which is empty; write the secret there", file.display())),
        secret => Ok(secret.to_owned()),
    }
}
