//! A backend whose vendor is declared: which definition it uses, and the keys that the
//! definition asks for.

use std::{path::Path, sync::Arc};

use toml::{Table, Value};

use super::{
    Credentials,
    credentials::SecretSources,
    problems::{Problems, join, unknown_key},
    tables::{CredentialKeys, VendorKey},
    text_file,
};
use crate::vendors::{
    KeyProblem, VendorConfig, VendorKind,
    declared::{
        Definition, LONGEST_DEFINITION,
        backend::{self, KEYS},
    },
};

/// What a backend's `vendor` and `vendor_file` name.
pub(super) enum Named {
    BuiltIn(&'static VendorKind),
    Declared(Arc<Definition>),
    /// Neither, or a definition with a problem that was reported.
    Nothing,
}

/// Finds what the keys of a backend name.
pub(super) fn named(path: &str, vendor: Option<VendorKey>, own: &Table, problems: &mut Problems) -> Named {
    let file = own.get("vendor_file");
    match (vendor, file) {
        (Some(_), Some(_)) => {
            problems.add(join(path, "vendor_file"), "stands beside vendor; keep one of them");
            Named::Nothing
        }
        (Some(VendorKey::BuiltIn(kind)), None) => Named::BuiltIn(kind),
        (Some(VendorKey::Shipped(shipped)), None) => match Definition::parse(shipped.definition) {
            Ok(definition) => Named::Declared(Arc::new(definition)),
            Err(invalid) => {
                problems.add(join(path, "vendor"), format!("is a definition that can't be used: {invalid}"));
                Named::Nothing
            }
        },
        (None, Some(file)) => match read(&join(path, "vendor_file"), file, problems) {
            Some(definition) => Named::Declared(Arc::new(definition)),
            None => Named::Nothing,
        },
        (None, None) => {
            problems.required::<()>(&join(path, "vendor"), None);
            Named::Nothing
        }
    }
}

fn read(path: &str, file: &Value, problems: &mut Problems) -> Option<Definition> {
    let Some(file) = file.as_str().filter(|file| !file.is_empty()) else {
        return problems.report(path, "is no path; write one such as \"/etc/jobwatch/my-vendor.toml\"");
    };
    let place = Path::new(file);
    if place.is_dir() {
        let own = place.join("definition.toml");
        let cure = if own.is_file() {
            format!("write the file in it: {:?}", own.display().to_string())
        } else {
            "write the path of a definition".to_owned()
        };
        return problems.report(path, format!("is {file}, a folder; {cure}"));
    }
    let longest = u64::try_from(LONGEST_DEFINITION).unwrap_or(u64::MAX);
    let text = text_file::refuse_pipe(place).and_then(|()| text_file::read_text_within(place, longest));
    let text = match text {
        Ok(text) => text,
        Err(problem) => return problems.report(path, format!("is the file {file}, which {problem}")),
    };
    match Definition::parse(&text) {
        Ok(definition) if is_taken(&definition.name) => {
            let name = &definition.name;
            problems.report(
                path,
                format!("is the file {file}, whose name {name:?} is that of a built-in vendor; rename it"),
            )
        }
        Ok(definition) => Some(definition),
        Err(invalid) => {
            for problem in invalid.problems {
                problems.add(path, format!("is the file {file}, which has a problem at {problem}"));
            }
            None
        }
    }
}

fn is_taken(name: &str) -> bool {
    VendorKind::of(name).is_some()
}

/// The vendor's configuration, the credentials, and the own keys without secrets.
pub(super) type Checked = (Arc<dyn VendorConfig>, Credentials, Table);

/// Checks the keys that a definition asks for. `None` after a problem was reported.
pub(super) fn check(
    path: &str,
    definition: &Arc<Definition>,
    mut own: Table,
    credentials: Option<CredentialKeys>,
    common: &[&str],
    secrets: &SecretSources<'_>,
    problems: &mut Problems,
) -> Option<Checked> {
    let before = problems.len();
    own.retain(|key, _| {
        let is_own = KEYS.contains(&key);
        if !is_own {
            let known: Vec<&str> = common.iter().copied().chain(KEYS).collect();
            problems.add(join(path, key), unknown_key(key, &known));
        }
        is_own
    });
    let at = join(path, "credentials");
    let mut keys = match credentials {
        _ if problems.has(&at) => return None,
        None | Some(CredentialKeys::None) => None,
        Some(CredentialKeys::Table(table)) => Some(table),
        Some(CredentialKeys::OtherWord) => {
            return problems.report(
                at,
                "is not a table of credentials; write one such as { bearer = { env = \"NAME\" } }",
            );
        }
    };
    let add = |found: Vec<KeyProblem>, problems: &mut Problems| {
        for KeyProblem { path: key, text } in found {
            problems.add(format!("{path}.{key}"), text);
        }
    };
    let chosen = match backend::choose(definition, keys.as_ref()) {
        Ok(chosen) => Some(chosen),
        Err(found) => {
            add(found, problems);
            None
        }
    };
    let secret = chosen.as_ref().and_then(|chosen| chosen.secret.clone()).map(|(key, form)| {
        let place = keys.as_mut().and_then(|keys| keys.remove(&key));
        secrets.read(&at, &key, place, form, problems)
    });
    let other = chosen.as_ref().and_then(|chosen| chosen.second_secret).and_then(|key| {
        let place = keys.as_mut().and_then(|keys| keys.remove(key));
        secrets.read(&at, key, place, crate::vendors::SecretForm::Text, problems)
    });
    if let Some(keys) = keys.filter(|keys| !keys.is_empty()) {
        own.insert("credentials".to_owned(), Value::Table(keys));
    }
    // Without a way, the parameters are checked all the same.
    let none = backend::without_credentials();
    let read = match backend::read(definition, chosen.as_ref().unwrap_or(&none), &own) {
        Ok(config) => Some(config),
        Err(found) => {
            add(found, problems);
            None
        }
    };
    if problems.len() > before {
        return None;
    }
    let config = read?;
    let credentials = match secret {
        None => Credentials::NONE,
        Some(secret) => {
            let secret = secret?;
            let both = match other {
                Some(other) => secret.with(other),
                None => secret,
            };
            Credentials::new(config.sign_in(), both)
        }
    };
    Some((Arc::new(config), credentials, own))
}
