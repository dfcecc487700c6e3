//! Credentials of a backend and their secrets.

use std::path::Path;

use secrecy::{ExposeSecret, SecretString};
use toml::{Table, Value};

use super::{
    Environment, Secret, Source,
    overrides::Origins,
    problems::{BEARER, Problems, WHERE, join, unknown_key},
    secret,
    tables::CredentialKeys,
};
use crate::vendors::{KINDS, SecretForm, VendorKind};

/// Credentials whose secret was read.
pub(super) enum Checked {
    /// No credentials.
    None,
    /// A token from elsewhere.
    Bearer(Secret),
    /// The vendor's own way to sign in.
    Own {
        /// The secret, unless a problem of it was reported.
        secret: Option<Secret>,
        /// The other keys, for the vendor to read.
        keys: Table,
    },
}

/// The place of a secret.
enum Place {
    Literal(SecretString),
    Environment(String),
    File(String),
}

impl Place {
    fn read(value: Value) -> Result<Self, String> {
        let table = match value {
            Value::String(literal) => return Ok(Self::Literal(literal.into())),
            Value::Table(table) => table,
            _ => return Err(format!("is no secret; write {WHERE}")),
        };
        let place: Vec<_> = table.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        match place[..] {
            [("env", Some(name))] => Ok(Self::Environment(name.to_owned())),
            [("file", Some(file))] => Ok(Self::File(file.to_owned())),
            _ => Err(format!("doesn't say where the secret is; write {WHERE}")),
        }
    }
}

/// The sources of secrets.
pub(super) struct SecretSources<'a> {
    pub(super) env: &'a Environment,
    /// Which variables set keys.
    pub(super) origins: &'a Origins,
    pub(super) allow_inline: bool,
}

/// Reads the secret of the credentials at `path`. `None` after a problem was reported.
pub(super) fn check(
    path: &str,
    keys: Option<CredentialKeys>,
    kind: &VendorKind,
    secrets: &SecretSources<'_>,
    problems: &mut Problems,
) -> Option<Checked> {
    let mut checker = Checker { path, kind, secrets, problems };
    checker.credentials(keys)
}

/// Reads another secret than that of the credentials, from its place at `key` of `path`.
pub(super) fn secret(
    path: &str,
    key: &str,
    place: Value,
    secrets: &SecretSources<'_>,
    problems: &mut Problems,
) -> Option<Secret> {
    secret_of(path, key, place, SecretForm::Text, secrets, problems)
}

/// The same in another form.
pub(super) fn secret_of(
    path: &str,
    key: &str,
    place: Value,
    form: SecretForm,
    secrets: &SecretSources<'_>,
    problems: &mut Problems,
) -> Option<Secret> {
    secrets.read(path, key, Some(place), form, problems)
}

struct Checker<'a> {
    path: &'a str,
    kind: &'a VendorKind,
    secrets: &'a SecretSources<'a>,
    problems: &'a mut Problems,
}

impl Checker<'_> {
    fn credentials(&mut self, keys: Option<CredentialKeys>) -> Option<Checked> {
        let (path, VendorKind { name, credentials: own, .. }) = (self.path, self.kind);
        let example = own.example;
        let mut table = match keys {
            Some(CredentialKeys::Table(table)) => table,
            // One that can't be read is reported, and is not none at all.
            None if self.problems.has(path) => return None,
            None | Some(CredentialKeys::None) if own.optional => return Some(Checked::None),
            None => return self.problems.report(path, format!("is missing; write {example}")),
            Some(CredentialKeys::OtherWord) => {
                return self.problems.report(path, format!("is not a table of credentials; write {example}"));
            }
            Some(CredentialKeys::None) => {
                let text = format!("is \"none\", which {name} doesn't accept; write {example}");
                return self.problems.report(path, text);
            }
        };
        self.remove_foreign_keys(&mut table);
        let bearer = table.remove(BEARER);
        match (own_keys(self.kind).find(|key| table.contains_key(*key)), bearer) {
            (Some(own), Some(_)) => {
                self.problems.report(path, format!("holds both {own} and bearer; keep one way to sign in"))
            }
            (None, Some(bearer)) => {
                self.secret(BEARER, Some(bearer), SecretForm::Header).map(Checked::Bearer)
            }
            (Some(_), None) => {
                let secret = table.remove(own.secret);
                Some(Checked::Own { secret: self.secret(own.secret, secret, own.form), keys: table })
            }
            (None, None) if self.problems.has(path) => None,
            (None, None) => self.problems.report(path, format!("is empty; write {example}")),
        }
    }

    /// Reports and removes what is neither a key of this vendor's credentials nor `bearer`.
    fn remove_foreign_keys(&mut self, table: &mut Table) {
        let known: Vec<&str> = own_keys(self.kind).chain([BEARER]).collect();
        table.retain(|key, _| {
            if known.contains(&key) {
                return true;
            }
            let is_another_vendors = KINDS.iter().any(|kind| own_keys(kind).any(|own| own == key));
            let text = if is_another_vendors {
                format!("is not how {} signs in; write {}", self.kind.name, self.kind.credentials.example)
            } else {
                unknown_key(key, &known)
            };
            self.problems.add(join(self.path, key), text);
            false
        });
    }

    fn secret(&mut self, key: &str, place: Option<Value>, form: SecretForm) -> Option<Secret> {
        self.secrets.read(self.path, key, place, form, self.problems)
    }
}

impl SecretSources<'_> {
    /// Reads a secret from its place.
    pub(super) fn read(
        &self,
        path: &str,
        key: &str,
        place: Option<Value>,
        form: SecretForm,
        problems: &mut Problems,
    ) -> Option<Secret> {
        let key = join(path, key);
        let place = match Place::read(problems.required(&key, place)?) {
            Ok(place) => place,
            Err(text) => return problems.report(key, text),
        };
        let origin = self.origins.of(&key).map(str::to_owned);
        let (text, source) = match (place, origin) {
            // A secret that a variable sets is never taken for one in the file.
            (Place::Literal(_), Some(variable)) => self.variable(&key, &variable, problems)?,
            (Place::Environment(name), _) => self.variable(&key, &name, problems)?,
            (Place::Literal(literal), None) if self.allow_inline => {
                (literal.expose_secret().to_owned(), Source::Literal)
            }
            (Place::Literal(_), None) => {
                let text = format!(
                    "is a secret in the file; write {WHERE}, or allow_inline_secrets = true at the top"
                );
                return problems.report(key, text);
            }
            (Place::File(file), _) => match secret::read_file(Path::new(&file)) {
                Ok(text) => (text, Source::File(file.into())),
                Err(text) => return problems.report(key, text),
            },
        };
        match secret::check(&source, form, &text) {
            Ok(()) => Some(Secret { key, value: text.into(), source, form, beside: None }),
            Err(text) => problems.report(key, text),
        }
    }

    fn variable(&self, key: &str, name: &str, problems: &mut Problems) -> Option<(String, Source)> {
        match self.env.variables().get(name).map(String::as_str) {
            None => problems.report(key, format!("is the variable {name}, which is not set; set it")),
            Some("") => problems.report(key, format!("is the variable {name}, which is empty; set it")),
            Some(value) => {
                let file = self.env.file().map(Path::to_owned);
                Some((value.to_owned(), Source::Environment { name: name.to_owned(), file }))
            }
        }
    }
}

/// The keys of the vendor's own way to sign in, its secret first.
fn own_keys(kind: &VendorKind) -> impl Iterator<Item = &'static str> {
    let own = &kind.credentials;
    std::iter::once(own.secret).chain(own.keys.iter().map(|key| key.name))
}
