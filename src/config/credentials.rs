//! How a backend's credentials are written, by vendor.

use std::path::Path;

use super::{
    Credentials, Secret, Source, Vendor,
    reader::{Reader, Section},
    secret::{self, Form},
};
use crate::vendors::ClientAuth;

/// One way to prove who one is; the keys that must and may stand there.
struct Way {
    required: &'static [&'static str],
    optional: &'static [&'static str],
}

const BEARER: Way = Way { required: &["bearer"], optional: &[] };

fn ways(vendor: &Vendor) -> [Way; 2] {
    let own = match vendor {
        Vendor::Immuta => Way { required: &["api_key"], optional: &["exchange"] },
        Vendor::Kinetica { .. } => Way { required: &["username", "password"], optional: &[] },
        Vendor::Claret { .. } => Way { required: &["email", "password"], optional: &[] },
        Vendor::Datasaur => Way { required: &["client_id", "client_secret"], optional: &["client_auth"] },
    };
    [own, BEARER]
}

/// What to write for this vendor.
fn example(vendor: &Vendor) -> &'static str {
    match vendor {
        Vendor::Immuta => "{ api_key = { env = \"IMMUTA_API_KEY\" } } or { bearer = { env = \"NAME\" } }",
        Vendor::Kinetica { .. } => {
            "{ username = \"..\", password = { env = \"KINETICA_PASSWORD\" } }, { bearer = { env = \"NAME\" } } or \"none\""
        }
        Vendor::Claret { .. } => {
            "{ email = \"..\", password = { env = \"CLARET_PASSWORD\" } } or { bearer = { env = \"NAME\" } }"
        }
        Vendor::Datasaur => {
            "{ client_id = \"..\", client_secret = { env = \"DATASAUR_CLIENT_SECRET\" } } or { bearer = { env = \"NAME\" } }"
        }
    }
}

/// Reads `credentials` of a backend. `None` where something is wrong, which is
/// reported.
pub(super) fn read(reader: &mut Reader<'_>, backend: &Section<'_>, vendor: &Vendor) -> Option<Credentials> {
    let path = backend.path_of("credentials");
    let section = match backend.get("credentials") {
        Some(toml::Value::Table(table)) => Section::new(path, table),
        Some(toml::Value::String(word)) if word == "none" && matches!(vendor, Vendor::Kinetica { .. }) => {
            return Some(Credentials::None);
        }
        None if matches!(vendor, Vendor::Kinetica { .. }) => return Some(Credentials::None),
        None => return reader.problem(path, format!("is missing; write {}", example(vendor))),
        Some(_) => {
            return reader.problem(path, format!("is not a table of credentials; write {}", example(vendor)));
        }
    };

    let ways = ways(vendor);
    let mut used = Vec::new();
    let mut foreign = false;
    for (at, way) in ways.iter().enumerate() {
        let key = way.required.iter().chain(way.optional).find(|key| section.get(key).is_some());
        used.extend(key.map(|key| (at, *key)));
    }
    for key in
        ["api_key", "exchange", "username", "email", "password", "client_id", "client_secret", "client_auth"]
    {
        let known = ways.iter().any(|way| way.required.contains(&key) || way.optional.contains(&key));
        if section.get(key).is_some() && !known {
            foreign = true;
            let text = format!("is not how {} knows its callers; write {}", vendor.name(), example(vendor));
            reader.problem::<()>(section.path_of(key), text);
        }
    }
    match used[..] {
        _ if foreign => None,
        [(0, _)] => own(reader, &section, vendor),
        [(_, _)] => reader.header_secret(&section, "bearer").map(Credentials::Bearer),
        [(_, one), (_, other), ..] => {
            reader.problem(section.path, format!("holds both {one} and {other}; keep one way to sign in"))
        }
        [] => reader.problem(section.path, format!("is empty; write {}", example(vendor))),
    }
}

/// The vendor's own way.
fn own(reader: &mut Reader<'_>, section: &Section<'_>, vendor: &Vendor) -> Option<Credentials> {
    match vendor {
        Vendor::Immuta => {
            let key = reader.header_secret(section, "api_key");
            let exchange = reader.flag(section, "exchange")?;
            key.map(if exchange { Credentials::ApiKeyExchange } else { Credentials::ApiKey })
        }
        Vendor::Kinetica { .. } => {
            let username = reader.required(section, "username", "the user's name, such as \"admin\"");
            let password = reader.secret(section, "password");
            let username = username?;
            if username.contains(':') {
                // RFC 7617 ends the user name at the first colon.
                let text =
                    "holds a colon, which HTTP Basic can't carry; write a user name without one".to_owned();
                return reader.problem(section.path_of("username"), text);
            }
            Some(Credentials::Basic { username, password: password? })
        }
        Vendor::Claret { .. } => {
            let email = reader.required(section, "email", "the account's email address");
            let password = reader.secret(section, "password");
            Some(Credentials::Login { email: email?, password: password? })
        }
        Vendor::Datasaur => {
            let client_id = reader.required(section, "client_id", "the OAuth client's id");
            let client_secret = reader.secret(section, "client_secret");
            let client_auth = match reader.text(section, "client_auth", "\"form\" or \"basic\"")?.as_deref() {
                None | Some("form") => ClientAuth::Form,
                Some("basic") => ClientAuth::Basic,
                Some(other) => {
                    let text = format!("is {other:?}; write \"form\" or \"basic\"");
                    return reader.problem(section.path_of("client_auth"), text);
                }
            };
            Some(Credentials::OAuthClient {
                client_id: client_id?,
                client_secret: client_secret?,
                client_auth,
            })
        }
    }
}

const WHERE: &str = "{ env = \"NAME\" } or { file = \"/path\" }";

impl Reader<'_> {
    /// A secret, from wherever the key says that it is.
    pub(super) fn secret(&mut self, section: &Section<'_>, key: &str) -> Option<Secret> {
        self.secret_of(section, key, Form::Text)
    }

    /// A secret that is sent in a header as it is.
    pub(super) fn header_secret(&mut self, section: &Section<'_>, key: &str) -> Option<Secret> {
        self.secret_of(section, key, Form::Header)
    }

    fn secret_of(&mut self, section: &Section<'_>, key: &str, form: Form) -> Option<Secret> {
        let key_path = section.path_of(key);
        let (text, source) = match section.get(key) {
            None => return self.problem(key_path, format!("is missing; write {WHERE}")),
            Some(toml::Value::String(literal)) if self.allow_inline_secrets => {
                (literal.clone(), Source::Literal)
            }
            Some(toml::Value::String(_)) => {
                let text = format!(
                    "is a secret in the file; write {WHERE}, or allow_inline_secrets = true at the top"
                );
                return self.problem(key_path, text);
            }
            Some(toml::Value::Table(place)) => self.secret_from(&key_path, place)?,
            Some(_) => return self.problem(key_path, format!("is no secret; write {WHERE}")),
        };
        match form.check(&text) {
            Ok(()) => Some(Secret { key: key_path, value: text.into(), source, form }),
            Err(text) => self.problem(key_path, text.to_owned()),
        }
    }

    fn secret_from(&mut self, path: &str, place: &toml::Table) -> Option<(String, Source)> {
        let place: Vec<_> = place.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        match place[..] {
            [("env", Some(name))] => match self.env.variables().get(name).map(String::as_str) {
                None => {
                    self.problem(path.to_owned(), format!("is the variable {name}, which is not set; set it"))
                }
                Some("") => {
                    self.problem(path.to_owned(), format!("is the variable {name}, which is empty; set it"))
                }
                Some(value) => {
                    let file = self.env.file().map(Path::to_owned);
                    Some((value.to_owned(), Source::Environment { name: name.to_owned(), file }))
                }
            },
            [("file", Some(file))] => match secret::read_file(Path::new(file)) {
                Ok(text) => Some((text, Source::File(file.into()))),
                Err(text) => self.problem(path.to_owned(), text),
            },
            _ => self.problem(path.to_owned(), format!("doesn't say where the secret is; write {WHERE}")),
        }
    }
}
