//! What a vendor's folder says of the vendor: its own keys in the configuration, how the
//! gateway signs in there, and how an adapter is built from that.
//!
//! A backend's table holds keys that every vendor has and keys of its vendor's own. The
//! configuration reads the former and every secret. [`VendorKind::read`] reads the rest:
//! a table of the vendor's own keys, with those of its sign-in under `credentials`.

use std::{fmt::Debug, num::NonZeroUsize, sync::Arc};

use schemars::{Schema, SchemaGenerator};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, de::DeserializeOwned, de::Error as _};
use thiserror::Error;
use toml::{Table, Value};

use super::{Adapter, AllowedOrigin, BaseUrl, KINDS};

/// A vendor that backends can be configured for.
#[derive(Debug)]
pub struct VendorKind {
    /// Its name, as people write it.
    pub name: &'static str,
    /// Its name, as the configuration and the contract write it.
    pub key: &'static str,
    /// Whether one request can poll many jobs.
    pub batches: bool,
    /// The keys of a backend that only this vendor has.
    pub keys: &'static [Key],
    /// The vendor's own way to sign in.
    pub credentials: OwnCredentials,
    /// Reads the vendor's own keys. `base_url` is `None` where it can't be used.
    pub read: ReadKeys,
    /// The schema of these keys.
    pub schema: fn(&mut SchemaGenerator) -> Schema,
}

/// Reads a vendor's own keys.
pub type ReadKeys =
    fn(keys: Table, base_url: Option<&BaseUrl>) -> Result<Arc<dyn VendorConfig>, UnusableKeys>;

/// A vendor's own way to sign in. A bearer token from elsewhere is accepted at every vendor.
#[derive(Debug)]
pub struct OwnCredentials {
    /// The key of the secret.
    pub secret: &'static str,
    /// The characters that the secret may have.
    pub form: SecretForm,
    /// The other keys.
    pub keys: &'static [Key],
    /// Whether the vendor can be polled without credentials.
    pub optional: bool,
    /// What to write, as an example.
    pub example: &'static str,
}

/// A key of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What to write, such as `the user's name, such as "admin"`.
    pub example: &'static str,
    /// Whether a problem shows the value.
    pub shown: bool,
}

/// The characters that a secret may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretForm {
    /// Anything without control characters.
    Text,
    /// The same in lines.
    Lines,
    /// The characters of a header value.
    Header,
}

/// The secrets in one: usually itself. Where a way to sign in has two, such as a refresh token and
/// the secret of its client, each is a line.
pub fn secrets_in(secret: &SecretString) -> impl Iterator<Item = &str> {
    secret.expose_secret().split('\n')
}

/// A vendor's own configuration of one backend.
pub trait VendorConfig: Debug + Send + Sync {
    /// The vendor.
    fn kind(&self) -> &'static VendorKind;

    /// The key whose value stands in every path behind the base URL, if there is one.
    fn key_in_path(&self) -> Option<&'static str> {
        None
    }

    /// The version of the definition that it follows; none where the vendor is built in.
    fn definition_version(&self) -> Option<&str> {
        None
    }

    /// Whether a job that has ended may run again under its id.
    fn reopens(&self) -> bool {
        false
    }

    /// How the backend's secret is used, where its credentials are the vendor's own.
    fn sign_in(&self) -> SignIn;

    /// URLs beside `base_url` to which credentials are sent, each with its key.
    fn other_urls(&self) -> Vec<(&'static str, &BaseUrl)> {
        Vec::new()
    }

    /// Other origins that the operator allows for files.
    fn file_origins(&self) -> &[AllowedOrigin] {
        &[]
    }

    /// The adapters for the backend's clusters.
    ///
    /// # Errors
    /// The configuration can't be used.
    fn build(&self, base_url: &BaseUrl, max_batch: NonZeroUsize) -> Result<Clusters, BuildError>;
}

/// How a backend's secret is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignIn {
    /// How it is sent.
    pub scheme: Scheme,
    /// The kind of credentials, for people: `API key`.
    pub description: &'static str,
}

/// How a backend's secret is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `Authorization: <secret>`, with no scheme word.
    Bare,
    /// `Authorization: Bearer <secret>`.
    Bearer,
    /// The same with another word.
    Word(String),
    /// HTTP Basic with this user name, RFC 7617.
    Basic {
        /// The user name.
        username: String,
    },
    /// HTTP Basic with the secret as the user name and an empty password.
    BasicUsername,
    /// Exchanged for a token by the adapter's [`token_exchange`](Adapter::token_exchange).
    Exchange,
}

/// The adapters of one backend.
#[derive(Debug)]
pub struct Clusters {
    /// For the cluster at `base_url`.
    pub primary: Arc<dyn Adapter>,
    /// For the clusters to poll while the primary can't answer, in this order.
    pub standbys: Vec<StandbyCluster>,
}

/// A cluster to poll in place of the primary.
#[derive(Debug)]
pub struct StandbyCluster {
    /// The URL below which its API is.
    pub base_url: BaseUrl,
    /// Its adapter.
    pub adapter: Arc<dyn Adapter>,
}

/// Why a vendor's configuration gives no adapter.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct BuildError(pub String);

/// Why a vendor's own keys can't be used.
#[derive(Debug)]
pub enum UnusableKeys {
    /// This key has a value that can't be read.
    Unreadable(serde_path_to_error::Error<toml::de::Error>),
    /// Values that were read break these rules.
    Invalid(Vec<KeyProblem>),
}

/// What is wrong with the value of a key, or that it is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyProblem {
    /// The key's path in the backend's table.
    pub path: String,
    /// Begins with a verb, since the path is put before it: `is empty; write the text`.
    pub text: String,
}

impl VendorKind {
    /// The vendor that the configuration calls `key`.
    pub fn of(key: &str) -> Option<&'static Self> {
        KINDS.iter().copied().find(|kind| kind.key == key)
    }

    /// Every key that only this vendor has, those of its sign-in included, but for secrets.
    pub fn all_keys(&self) -> impl Iterator<Item = &'static Key> {
        self.keys.iter().chain(self.credentials.keys)
    }
}

impl PartialEq for VendorKind {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for VendorKind {}

impl Clusters {
    /// A backend without standbys.
    pub(super) fn single(primary: impl Adapter) -> Self {
        Self { primary: Arc::new(primary), standbys: Vec::new() }
    }
}

impl Key {
    /// A key whose value is not shown: it may hold a secret by mistake.
    pub(super) const fn new(name: &'static str, example: &'static str) -> Self {
        Self { name, example, shown: false }
    }

    /// A key that takes one of a few words.
    pub(super) const fn word(name: &'static str, example: &'static str) -> Self {
        Self { name, example, shown: true }
    }
}

/// Reads a vendor's own keys.
pub(super) fn read<T: DeserializeOwned>(keys: Table) -> Result<T, UnusableKeys> {
    serde_path_to_error::deserialize(Value::Table(keys)).map_err(UnusableKeys::Unreadable)
}

/// The rules that values have to follow: collects every problem, not only the first.
#[derive(Debug, Default)]
pub(super) struct Rules(Vec<KeyProblem>);

impl Rules {
    pub(super) fn problem(&mut self, path: impl Into<String>, text: impl Into<String>) {
        self.0.push(KeyProblem { path: path.into(), text: text.into() });
    }

    /// The value of a key that has to be there.
    pub(super) fn required<T>(&mut self, table: &str, key: Key, value: Option<T>) -> Option<T> {
        if value.is_none() {
            self.problem(format!("{table}{}", key.name), format!("is missing; write {}", key.example));
        }
        value
    }

    /// The text at a key of `credentials`, which has to be there and hold something.
    pub(super) fn text(&mut self, key: Key, text: Option<String>) -> Option<String> {
        let text = self.required(CREDENTIALS, key, text)?;
        if text.is_empty() {
            self.problem(format!("{CREDENTIALS}{}", key.name), "is empty; write the text or remove the key");
            return None;
        }
        Some(text)
    }

    /// What was read, if it follows all rules. Where it is none, a problem says why.
    pub(super) fn finish(
        self,
        config: Option<impl VendorConfig + 'static>,
    ) -> Result<Arc<dyn VendorConfig>, UnusableKeys> {
        match config {
            Some(config) if self.0.is_empty() => Ok(Arc::new(config)),
            _ => Err(UnusableKeys::Invalid(self.0)),
        }
    }
}

/// Before the name of a key of a backend's credentials.
pub(super) const CREDENTIALS: &str = "credentials.";

/// A flag; a variable of the environment holds it as text.
///
/// # Errors
/// Anything else.
pub fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Boolean(flag) => Ok(flag),
        Value::String(text) if text == "true" => Ok(true),
        Value::String(text) if text == "false" => Ok(false),
        _ => Err(D::Error::custom("is neither true nor false; write one of them")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vendor_is_found_by_its_key_alone() {
        for kind in KINDS {
            assert_eq!(VendorKind::of(kind.key), Some(*kind));
        }
        assert_eq!(VendorKind::of("Immuta"), None);
        assert_eq!(VendorKind::of(""), None);
    }

    /// A problem names the key, and the key alone says what to write.
    #[test]
    fn keys_of_one_name_have_one_example() {
        let keys: Vec<&Key> = KINDS.iter().flat_map(|kind| kind.all_keys()).collect();
        for key in &keys {
            assert!(keys.iter().all(|other| other.name != key.name || other == key), "{key:?}");
            assert!(KINDS.iter().all(|kind| kind.credentials.secret != key.name), "{key:?} is a secret");
        }
    }
}
