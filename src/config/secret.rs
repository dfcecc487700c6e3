//! Secrets, their sources, and reading them again after a change.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::{
    Problem,
    environment::EnvFile,
    secret_text,
    text_file::{read_text, refuse_pipe},
};
use crate::vendors::{SecretForm, secrets_in};

/// A secret and its source.
#[derive(Clone, Debug)]
pub struct Secret {
    pub(super) key: String,
    pub(super) value: SecretString,
    pub(super) source: Source,
    pub(super) form: SecretForm,
    /// Another one that is sent with it.
    pub(super) beside: Option<Box<Secret>>,
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

    /// This secret and another that is sent with it, such as a refresh token and the secret of
    /// its client.
    pub(super) fn with(mut self, other: Self) -> Self {
        self.value = joined(&self.value, &other.value);
        self.beside = Some(Box::new(other));
        self
    }

    /// The keys of both.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&*self.key).chain(self.beside.iter().map(|other| other.key()))
    }

    /// The key of what differs, or both of two.
    pub fn changed_keys(&self, before: &SecretString, now: &SecretString) -> String {
        if self.beside.is_none() {
            return self.key.clone();
        }
        let values = secrets_in(before).zip(secrets_in(now));
        let changed = self.keys().zip(values).filter(|(_, (before, now))| before != now);
        changed.map(|(key, _)| key).collect::<Vec<_>>().join(", ")
    }

    /// The secret itself, as it was when the configuration was read; of two, a line each.
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
        let origin = match &self.source {
            Source::Literal => format!("credentials.{key} of the configuration file"),
            Source::Environment { name, file: None } => {
                format!("credentials.{key} from the variable {name}")
            }
            Source::Environment { name, file: Some(file) } => {
                format!("credentials.{key} from the variable {name}, which {} may set", file.display())
            }
            Source::File(file) => format!("credentials.{key} from the file {}", file.display()),
        };
        match &self.beside {
            Some(other) => format!("{origin}, with {}", other.origin()),
            None => origin,
        }
    }

    /// Whether the other one comes from the same place and may be taken for it.
    pub(super) fn is_from_where(&self, other: &Self) -> bool {
        self.key == other.key
            && self.source == other.source
            && match (&self.beside, &other.beside) {
                (Some(own), Some(other)) => own.is_from_where(other),
                (own, other) => own.is_none() && other.is_none(),
            }
    }

    /// Whether it may change while the program runs.
    pub fn may_change(&self) -> bool {
        let may_change = match &self.source {
            Source::Literal | Source::Environment { file: None, .. } => false,
            Source::Environment { file: Some(_), .. } | Source::File(_) => true,
        };
        may_change || self.beside.as_ref().is_some_and(|other| other.may_change())
    }

    /// Reads the secret from its file again; `None` if an environment file no longer
    /// holds it. Blocks.
    ///
    /// # Errors
    /// If the file is missing, empty or being written.
    pub fn read_again(&self) -> Result<Option<SecretString>, Problem> {
        let first = self.read_first_again()?;
        let Some(other) = &self.beside else { return Ok(first) };
        let second = other.read_again()?;
        if first.is_none() && second.is_none() {
            return Ok(None);
        }
        // What does not change is as it was.
        let mut before = secrets_in(&self.value).map(SecretString::from);
        let (one, two) = (before.next().unwrap_or_default(), before.next().unwrap_or_default());
        Ok(Some(joined(&first.unwrap_or(one), &second.unwrap_or(two))))
    }

    fn read_first_again(&self) -> Result<Option<SecretString>, Problem> {
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
        check(&self.source, self.form, &text).map_err(problem)?;
        Ok(Some(text.into()))
    }

    /// What looks like a mistake in the secret, or in one that replaces it: one line each,
    /// without the key.
    pub fn warnings(&self, value: &SecretString) -> Vec<String> {
        let sources = std::iter::once(&self.source).chain(self.beside.iter().map(|other| &other.source));
        let of_one = |(source, secret): (&Source, &str)| -> Vec<String> {
            let warnings = secret_text::warnings(secret);
            warnings.into_iter().map(|text| source.describe(text)).collect()
        };
        sources.zip(secrets_in(value)).flat_map(of_one).collect()
    }
}

fn joined(one: &SecretString, other: &SecretString) -> SecretString {
    format!("{}\n{}", one.expose_secret(), other.expose_secret()).into()
}

impl Source {
    /// The same text, after the name of the variable or the file.
    fn describe(&self, text: String) -> String {
        match self {
            Self::Literal => text,
            Self::Environment { name, .. } => format!("is the variable {name}, which {text}"),
            Self::File(file) => format!("is the file {}, which {text}", file.display()),
        }
    }
}

/// Describes what is wrong with a secret from this place, without showing it.
pub(super) fn check(source: &Source, form: SecretForm, text: &str) -> Result<(), String> {
    secret_text::check(form, text).map_err(|text| source.describe(text))
}

impl ExposeSecret<str> for Secret {
    fn expose_secret(&self) -> &str {
        self.value.expose_secret()
    }
}

/// A literal without a key.
impl From<SecretString> for Secret {
    fn from(value: SecretString) -> Self {
        Self { key: String::new(), value, source: Source::Literal, form: SecretForm::Text, beside: None }
    }
}

/// A literal without a key.
impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        SecretString::from(value).into()
    }
}

/// The secret in a file of its own.
pub(super) fn read_file(file: &Path) -> Result<String, String> {
    let text = read_text(file).map_err(|error| format!("is the file {}, which {error}", file.display()))?;
    match secret_text::of_file(&text) {
        "" => Err(format!("is the file {}, which is empty; write the secret there", file.display())),
        secret => Ok(secret.to_owned()),
    }
}

#[cfg(test)]
mod tests;
