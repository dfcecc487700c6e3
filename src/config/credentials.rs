//! Credentials of a backend, by vendor, and their secrets.

use std::{fmt, path::Path};

use secrecy::{ExposeSecret, SecretString};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};
use toml::Value;

use super::{
    Credentials, Environment, Secret, Source, VendorKind,
    overrides::Origins,
    problems::{Problems, WHERE, join},
    secret::{self, Form},
    values,
};
use crate::vendors::ClientAuth;

/// The value of `credentials`.
pub(super) enum CredentialKeys {
    /// The word `none`.
    None,
    /// Another word, which may be a secret.
    OtherWord,
    /// A table.
    Table(Box<CredentialTable>),
}

/// The keys of all vendors' credentials.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct CredentialTable {
    api_key: Option<Place>,
    #[serde(deserialize_with = "values::flag")]
    exchange: bool,
    bearer: Option<Place>,
    username: Option<String>,
    email: Option<String>,
    password: Option<Place>,
    client_id: Option<String>,
    client_secret: Option<Place>,
    client_auth: Option<ClientAuth>,
}

/// The place of a secret.
enum Place {
    Literal(SecretString),
    Environment(String),
    File(String),
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let table = match Value::deserialize(deserializer)? {
            Value::String(literal) => return Ok(Self::Literal(literal.into())),
            Value::Table(table) => table,
            _ => return Err(D::Error::custom(format!("is no secret; write {WHERE}"))),
        };
        let place: Vec<_> = table.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        match place[..] {
            [("env", Some(name))] => Ok(Self::Environment(name.to_owned())),
            [("file", Some(file))] => Ok(Self::File(file.to_owned())),
            _ => Err(D::Error::custom(format!("doesn't say where the secret is; write {WHERE}"))),
        }
    }
}

impl<'de> Deserialize<'de> for CredentialKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;

        impl<'de> Visitor<'de> for Keys {
            type Value = CredentialKeys;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of credentials")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<CredentialKeys, E> {
                Ok(if word == "none" { CredentialKeys::None } else { CredentialKeys::OtherWord })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<CredentialKeys, A::Error> {
                CredentialTable::deserialize(MapAccessDeserializer::new(map))
                    .map(|table| CredentialKeys::Table(Box::new(table)))
            }
        }

        deserializer.deserialize_any(Keys)
    }
}

impl CredentialTable {
    /// The keys that are set, in the order of the documentation.
    fn set_keys(&self) -> Vec<&'static str> {
        let Self {
            api_key,
            exchange,
            bearer,
            username,
            email,
            password,
            client_id,
            client_secret,
            client_auth,
        } = self;
        let keys = [
            ("api_key", api_key.is_some()),
            ("exchange", *exchange),
            ("username", username.is_some()),
            ("email", email.is_some()),
            ("password", password.is_some()),
            ("client_id", client_id.is_some()),
            ("client_secret", client_secret.is_some()),
            ("client_auth", client_auth.is_some()),
            ("bearer", bearer.is_some()),
        ];
        keys.into_iter().filter(|(_, is_set)| *is_set).map(|(key, _)| key).collect()
    }
}

/// The keys of the vendor's own way to sign in.
fn own_keys(kind: VendorKind) -> &'static [&'static str] {
    match kind {
        VendorKind::Immuta => &["api_key", "exchange"],
        VendorKind::Kinetica => &["username", "password"],
        VendorKind::Claret => &["email", "password"],
        VendorKind::Datasaur => &["client_id", "client_secret", "client_auth"],
    }
}

/// An example for this vendor.
fn example(kind: VendorKind) -> &'static str {
    match kind {
        VendorKind::Immuta => "{ api_key = { env = \"IMMUTA_API_KEY\" } } or { bearer = { env = \"NAME\" } }",
        VendorKind::Kinetica => {
            "{ username = \"..\", password = { env = \"KINETICA_PASSWORD\" } }, { bearer = { env = \"NAME\" } } or \"none\""
        }
        VendorKind::Claret => {
            "{ email = \"..\", password = { env = \"CLARET_PASSWORD\" } } or { bearer = { env = \"NAME\" } }"
        }
        VendorKind::Datasaur => {
            "{ client_id = \"..\", client_secret = { env = \"DATASAUR_CLIENT_SECRET\" } } or { bearer = { env = \"NAME\" } }"
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

/// The credentials at `path`, or `None` after a problem was reported.
pub(super) fn check(
    path: &str,
    keys: Option<&CredentialKeys>,
    kind: VendorKind,
    secrets: &SecretSources<'_>,
    problems: &mut Problems,
) -> Option<Credentials> {
    let mut checker = Checker { path, kind, secrets, problems };
    checker.credentials(keys)
}

struct Checker<'a> {
    path: &'a str,
    kind: VendorKind,
    secrets: &'a SecretSources<'a>,
    problems: &'a mut Problems,
}

impl Checker<'_> {
    fn credentials(&mut self, keys: Option<&CredentialKeys>) -> Option<Credentials> {
        let (path, kind) = (self.path, self.kind);
        let table = match keys {
            Some(CredentialKeys::Table(table)) => table,
            // One that can't be read is reported, and is not none at all.
            None if self.problems.has(path) => return None,
            None | Some(CredentialKeys::None) if kind == VendorKind::Kinetica => {
                return Some(Credentials::None);
            }
            None => return self.problems.report(path, format!("is missing; write {}", example(kind))),
            Some(CredentialKeys::OtherWord) => {
                let text = format!("is not a table of credentials; write {}", example(kind));
                return self.problems.report(path, text);
            }
            Some(CredentialKeys::None) => {
                let text =
                    format!("is \"none\", which {} doesn't accept; write {}", kind.name(), example(kind));
                return self.problems.report(path, text);
            }
        };
        let set = table.set_keys();
        for key in &set {
            if *key != "bearer" && !own_keys(kind).contains(key) {
                let text = format!("is not how {} signs in; write {}", kind.name(), example(kind));
                self.problems.add(join(path, key), text);
            }
        }
        let own = set.iter().find(|key| own_keys(kind).contains(key));
        match (own, &table.bearer) {
            (Some(own), Some(_)) => {
                self.problems.report(path, format!("holds both {own} and bearer; keep one way to sign in"))
            }
            (None, Some(bearer)) => {
                self.secret(join(path, "bearer"), Some(bearer), Form::Header).map(Credentials::Bearer)
            }
            (Some(_), None) => self.own_credentials(table),
            (None, None) if self.problems.has(path) => None,
            (None, None) => self.problems.report(path, format!("is empty; write {}", example(kind))),
        }
    }

    /// The vendor's own way.
    fn own_credentials(&mut self, table: &CredentialTable) -> Option<Credentials> {
        let key = |name| join(self.path, name);
        match self.kind {
            VendorKind::Immuta => {
                let api_key = self.secret(key("api_key"), table.api_key.as_ref(), Form::Header)?;
                let credentials =
                    if table.exchange { Credentials::ApiKeyExchange } else { Credentials::ApiKey };
                Some(credentials(api_key))
            }
            VendorKind::Kinetica => {
                let username = self.text(key("username"), table.username.as_ref());
                let password = self.secret(key("password"), table.password.as_ref(), Form::Text);
                let username = username?;
                if username.contains(':') {
                    // RFC 7617 ends the user name at the first colon.
                    let text = "holds a colon, which HTTP Basic can't carry; write a user name without one";
                    return self.problems.report(key("username"), text);
                }
                Some(Credentials::Basic { username, password: password? })
            }
            VendorKind::Claret => {
                let email = self.text(key("email"), table.email.as_ref());
                let password = self.secret(key("password"), table.password.as_ref(), Form::Text);
                Some(Credentials::Login { email: email?, password: password? })
            }
            VendorKind::Datasaur => {
                let client_id = self.text(key("client_id"), table.client_id.as_ref());
                let client_secret =
                    self.secret(key("client_secret"), table.client_secret.as_ref(), Form::Text);
                let client_auth = table.client_auth.unwrap_or_default();
                Some(Credentials::OAuthClient {
                    client_id: client_id?,
                    client_secret: client_secret?,
                    client_auth,
                })
            }
        }
    }

    /// A text that has to be there.
    fn text(&mut self, key: String, text: Option<&String>) -> Option<String> {
        match self.problems.required(&key, text)?.as_str() {
            "" => self.problems.report(key, "is empty; write the text or remove the key"),
            text => Some(text.to_owned()),
        }
    }

    /// Reads a secret from its place.
    fn secret(&mut self, key: String, place: Option<&Place>, form: Form) -> Option<Secret> {
        let place = self.problems.required(&key, place)?;
        let origin = self.secrets.origins.of(&key).map(str::to_owned);
        let (text, source) = match (place, origin) {
            // A secret that a variable sets is never taken for one in the file.
            (Place::Literal(_), Some(variable)) => self.variable(&key, &variable)?,
            (Place::Environment(name), _) => self.variable(&key, name)?,
            (Place::Literal(literal), None) if self.secrets.allow_inline => {
                (literal.expose_secret().to_owned(), Source::Literal)
            }
            (Place::Literal(_), None) => {
                let text = format!(
                    "is a secret in the file; write {WHERE}, or allow_inline_secrets = true at the top"
                );
                return self.problems.report(key, text);
            }
            (Place::File(file), _) => match secret::read_file(Path::new(file)) {
                Ok(text) => (text, Source::File(file.into())),
                Err(text) => return self.problems.report(key, text),
            },
        };
        match form.check(&text) {
            Ok(()) => Some(Secret { key, value: text.into(), source, form }),
            Err(text) => self.problems.report(key, text),
        }
    }

    fn variable(&mut self, key: &str, name: &str) -> Option<(String, Source)> {
        match self.secrets.env.variables().get(name).map(String::as_str) {
            None => self.problems.report(key, format!("is the variable {name}, which is not set; set it")),
            Some("") => self.problems.report(key, format!("is the variable {name}, which is empty; set it")),
            Some(value) => {
                let file = self.secrets.env.file().map(Path::to_owned);
                Some((value.to_owned(), Source::Environment { name: name.to_owned(), file }))
            }
        }
    }
}
