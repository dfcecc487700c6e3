//! What differs between two configurations, and what a running gateway does about it.
//!
//! A pure function of both: a reload applies the [`Diff`], and `jobwatch check --diff` prints
//! it. Values of keys that may hold a secret are never shown.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use secrecy::ExposeSecret;
use toml::{Table, Value};

use super::{
    Access, Admin, Backend, Cluster, Config, Limits, Log, Network, Poll, Proxies, Secret, Server, Tls,
    problems::join,
    values::{show_bytes, show_duration},
};

/// What differs between two configurations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// Backends that only the new one has.
    pub added: Vec<Arc<str>>,
    /// Backends that only the old one has.
    pub removed: Vec<Arc<str>>,
    /// Backends that both have, with other settings.
    pub changed: Vec<BackendChange>,
    /// Other keys that take effect at once.
    pub settings: Vec<Change>,
    /// Keys that take effect when the program is started again.
    pub restart: Vec<Change>,
}

/// A backend with other settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendChange {
    /// Its name.
    pub name: Arc<str>,
    /// The keys below the backend, such as `poll.min_interval`.
    pub changes: Vec<Change>,
    /// Whether it is polled at another place, where an id may stand for another job.
    pub moves: bool,
}

/// A key with another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key's path.
    pub key: String,
    /// The old and the new value, if they may be shown.
    pub values: Option<(String, String)>,
}

/// When a key takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    AtOnce,
    Restart,
}

use When::{AtOnce, Restart};

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        match &self.values {
            Some((old, new)) => write!(f, " {old} -> {new}"),
            None => Ok(()),
        }
    }
}

/// Compares each field of a struct, and names all of them: a new field fails to compile
/// until someone decides when it takes effect.
macro_rules! compare {
    ($diff:expr, $path:expr, $old:expr, $new:expr, $type:ident { $($field:ident: $rule:expr),* $(,)? }) => {{
        let $type { $($field),* } = &mut $new;
        $( $diff.field(&join($path, stringify!($field)), &$old.$field, $field, $rule); )*
    }};
}

impl Diff {
    /// What differs, and the configuration that is in effect after a reload: the new one, but
    /// for the keys that need a restart.
    pub fn between(old: &Config, mut new: Config) -> (Self, Config) {
        let mut diff = Self::default();
        diff.server(&old.server, &mut new.server);
        compare!(
            diff,
            "admin",
            old.admin,
            new.admin,
            Admin { listen: (Restart, optional), allow_remote: (Restart, plain), hosts: (Restart, hidden) }
        );
        compare!(
            diff,
            "log",
            old.log,
            new.log,
            Log { format: (Restart, hidden), level: (AtOnce, optional), access: (AtOnce, plain) }
        );
        // Its headers are secrets.
        diff.field("traces", &old.traces, &mut new.traces, (Restart, hidden));
        diff.cluster(old.cluster.as_ref(), new.cluster.as_mut());
        diff.field("cluster", &old.cluster, &mut new.cluster, (Restart, hidden));
        diff.access(&old.access, &new.access);
        diff.limits(&old.limits, &mut new.limits);
        diff.backends(&old.backends, &new.backends);
        (diff, new)
    }

    /// Whether both configurations are the same.
    pub fn is_empty(&self) -> bool {
        self.applies_nothing() && self.restart.is_empty()
    }

    /// Whether nothing takes effect without a restart.
    pub fn applies_nothing(&self) -> bool {
        let Self { added, removed, changed, settings, restart: _ } = self;
        added.is_empty() && removed.is_empty() && changed.is_empty() && settings.is_empty()
    }

    /// Whether one of these keys, or a key below one, takes effect at once.
    pub fn sets(&self, keys: &[&str]) -> bool {
        self.settings.iter().any(|change| keys.iter().any(|key| super::problems::is_within(&change.key, key)))
    }

    fn add(&mut self, when: When, key: &str, values: Option<(String, String)>) {
        let list = if when == AtOnce { &mut self.settings } else { &mut self.restart };
        list.push(Change { key: key.to_owned(), values });
    }

    /// Compares one value. The old one stays in effect where a restart is needed.
    fn field<T: PartialEq + Clone>(
        &mut self,
        key: &str,
        old: &T,
        new: &mut T,
        (when, show): (When, fn(&T) -> Option<String>),
    ) {
        if old == new {
            return;
        }
        self.add(when, key, show(old).zip(show(new)));
        if when == Restart {
            new.clone_from(old);
        }
    }

    fn server(&mut self, old: &Server, new: &mut Server) {
        if let (Some(old), Some(new)) = (&old.tls, &mut new.tls) {
            compare!(
                self,
                "server.tls",
                old,
                *new,
                Tls {
                    cert: (Restart, path),
                    key: (Restart, path),
                    client_ca: (Restart, optional_path),
                    client_crl: (Restart, optional_path),
                }
            );
        }
        compare!(
            self,
            "server",
            old,
            *new,
            Server {
                listen: (Restart, plain),
                tls: (Restart, hidden),
                allow_plaintext: (Restart, plain),
                default_deadline: (AtOnce, time),
                collection_window: (AtOnce, time),
                drain_delay: (Restart, time),
                drain_timeout: (Restart, time),
                max_connection_age: (Restart, time),
                max_connection_age_grace: (Restart, time),
                web: (AtOnce, hidden),
            }
        );
    }

    /// What differs where both have replicas.
    fn cluster(&mut self, old: Option<&Cluster>, new: Option<&mut Cluster>) {
        let Some((old, new)) = old.zip(new) else { return };
        compare!(
            self,
            "cluster",
            old,
            *new,
            Cluster {
                nats: (Restart, hidden),
                name: (Restart, plain),
                replicas: (Restart, plain),
                member: (Restart, plain),
                credentials: (Restart, hidden),
                tls: (Restart, hidden),
                lease: (Restart, time),
                isolated_share: (Restart, plain),
            }
        );
    }

    fn limits(&mut self, old: &Limits, new: &mut Limits) {
        compare!(
            self,
            "limits",
            old,
            *new,
            Limits {
                watches: (AtOnce, plain),
                watches_per_caller: (AtOnce, plain),
                watches_per_call: (AtOnce, plain),
                batch_size: (AtOnce, plain),
                jobs: (AtOnce, plain),
                status_bytes: (Restart, size),
                response_bytes: (Restart, size),
                inline_result_bytes: (AtOnce, size),
                message_bytes: (AtOnce, size),
                streams_per_connection: (Restart, plain),
                connections: (Restart, plain),
                connections_per_address: (Restart, plain),
                connection_bytes: (Restart, size),
            }
        );
    }

    fn access(&mut self, old: &Access, new: &Access) {
        let Access { tokens, jwt, certificates, policies } = new;
        let names = old.tokens.keys().chain(tokens.keys().filter(|name| !old.tokens.contains_key(*name)));
        for name in names.filter(|name| old.tokens.get(*name) != tokens.get(*name)) {
            self.add(AtOnce, &join("access.tokens", name), None);
        }
        if old.jwt != *jwt {
            self.add(AtOnce, "access.jwt", None);
        }
        self.field("access.certificates", &old.certificates, &mut { *certificates }, (AtOnce, plain));
        for place in 0..policies.len().max(old.policies.len()) {
            if old.policies.get(place) != policies.get(place) {
                self.add(AtOnce, &format!("access.policies[{place}]"), None);
            }
        }
    }

    fn backends(&mut self, old: &[Backend], new: &[Backend]) {
        let find =
            |backends: &[Backend], name: &str| backends.iter().position(|backend| &*backend.name == name);
        for backend in old.iter().filter(|backend| find(new, &backend.name).is_none()) {
            self.removed.push(Arc::clone(&backend.name));
        }
        for backend in new {
            match find(old, &backend.name) {
                None => self.added.push(Arc::clone(&backend.name)),
                Some(place) => self.changed.extend(backend_change(&old[place], backend)),
            }
        }
    }
}

fn backend_change(old: &Backend, new: &Backend) -> Option<BackendChange> {
    let mut diff = Diff::default();
    let Backend { name, vendor, base_url, credentials, poll, network, own } = new;
    let place_of = |vendor: &Arc<dyn crate::vendors::VendorConfig>| vendor.kind().key;
    diff.field("vendor", &place_of(&old.vendor), &mut place_of(vendor), (AtOnce, plain));
    diff.field(
        "base_url",
        &old.base_url,
        &mut base_url.clone(),
        (AtOnce, |url| Some(url.as_str().to_owned())),
    );
    // The same keys may be written in several ways.
    if format!("{:?}", old.vendor) != format!("{vendor:?}") {
        own_changes(&mut diff, &old.own, own);
        // A definition that was edited, under the same keys.
        if diff.settings.is_empty() {
            diff.add(AtOnce, "vendor_file", None);
        }
    }
    let moves = diff.settings.iter().any(|change| !change.key.starts_with("credentials."));
    secret_change(&mut diff, old.credentials.secret(), credentials.secret());
    compare!(
        diff,
        "poll",
        old.poll,
        poll.clone(),
        Poll {
            min_interval: (AtOnce, time),
            max_interval: (AtOnce, time),
            timeout: (AtOnce, time),
            connect_timeout: (AtOnce, time),
            max_batch: (AtOnce, plain),
            max_concurrency: (AtOnce, plain),
            requests_per_second: (AtOnce, plain),
            not_found_grace: (AtOnce, time),
            login_backoff: (AtOnce, time),
            max_backoff: (AtOnce, time),
            max_response_bytes: (AtOnce, size),
        }
    );
    network_changes(&mut diff, &old.network, network);
    let changes = diff.settings;
    (!changes.is_empty()).then(|| BackendChange { name: Arc::clone(name), changes, moves })
}

/// The vendor's own keys, by name: their values may hold a secret by mistake.
fn own_changes(diff: &mut Diff, old: &Table, new: &Table) {
    let flat = |table: &Table| -> Vec<(String, Value)> {
        let inner = table.get("credentials").and_then(Value::as_table).into_iter().flatten();
        let inner = inner.map(|(key, value)| (format!("credentials.{key}"), value.clone()));
        let outer = table.iter().filter(|(key, _)| *key != "credentials");
        outer.map(|(key, value)| (key.clone(), value.clone())).chain(inner).collect()
    };
    let (old, new) = (flat(old), flat(new));
    let mut keys: Vec<&String> = old.iter().chain(&new).map(|(key, _)| key).collect();
    keys.sort_unstable();
    keys.dedup();
    let value = |table: &[(String, Value)], key: &str| {
        table.iter().find(|(other, _)| other == key).map(|(_, value)| value.clone())
    };
    for key in keys {
        if value(&old, key) != value(&new, key) {
            diff.add(AtOnce, key, None);
        }
    }
}

/// A secret whose file may change is replaced when it does, whatever else a reload finds.
fn secret_change(diff: &mut Diff, old: Option<&Secret>, new: Option<&Secret>) {
    let is_same = match (old, new) {
        (None, None) => true,
        (Some(old), Some(new)) => {
            let has_same_value = || old.value().expose_secret() == new.value().expose_secret();
            old.is_from_where(new) && (new.may_change() || has_same_value())
        }
        _ => false,
    };
    if !is_same {
        let key = new.or(old).map_or("", Secret::key);
        let key =
            key.rsplit_once('.').map_or("credentials".to_owned(), |(_, key)| format!("credentials.{key}"));
        diff.add(AtOnce, &key, None);
    }
}

fn network_changes(diff: &mut Diff, old: &Network, new: &Network) {
    let Network { proxy, ca, ca_hash, headers, files: _ } = new;
    match (&old.proxy, proxy) {
        (old, new) if old == new => {}
        (Proxies::Own(old), Proxies::Own(new)) if old.uri == new.uri => {
            diff.add(AtOnce, "proxy_password", None);
        }
        _ => diff.add(AtOnce, "proxy", None),
    }
    diff.field("ca", &old.ca, &mut ca.clone(), (AtOnce, optional_path));
    if old.ca == *ca && old.ca_hash != *ca_hash {
        diff.add(AtOnce, "ca", None);
    }
    let names = old.headers.keys().chain(headers.keys().filter(|name| !old.headers.contains_key(*name)));
    for name in names.filter(|name| old.headers.get(*name) != headers.get(*name)) {
        diff.add(AtOnce, &join("headers", name.as_str()), None);
    }
}

#[expect(clippy::unnecessary_wraps, reason = "shows a field")]
fn plain<T: ToString>(value: &T) -> Option<String> {
    Some(value.to_string())
}

#[expect(clippy::unnecessary_wraps, clippy::ref_option, reason = "shows a field")]
fn optional<T: ToString>(value: &Option<T>) -> Option<String> {
    Some(value.as_ref().map_or("unset".to_owned(), T::to_string))
}

#[expect(clippy::unnecessary_wraps, clippy::ptr_arg, reason = "shows a field")]
fn path(value: &PathBuf) -> Option<String> {
    Some(value.display().to_string())
}

#[expect(clippy::unnecessary_wraps, clippy::ref_option, reason = "shows a field")]
fn optional_path(value: &Option<PathBuf>) -> Option<String> {
    Some(value.as_ref().map_or("unset".to_owned(), |path| path.display().to_string()))
}

#[expect(clippy::unnecessary_wraps, reason = "shows a field")]
fn time(value: &Duration) -> Option<String> {
    Some(show_duration(*value))
}

fn size<T: Copy + TryInto<u64>>(value: &T) -> Option<String> {
    (*value).try_into().ok().map(show_bytes)
}

fn hidden<T>(_: &T) -> Option<String> {
    None
}

#[cfg(test)]
mod tests;
