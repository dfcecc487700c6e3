//! Turns the text of a configuration file into a configuration.
//!
//! 1. `overrides` puts the environment's values into the file's table.
//! 2. [`deserialize`] reads the table into [`Keys`] with serde. serde stops at the first
//!    problem, so each key that has one is reported and removed, and the rest is read
//!    again.
//! 3. [`Checker`] checks rules over several keys, opens files, and has each backend's
//!    vendor read the keys of its own, in the same way.

use std::{collections::BTreeMap, fs::File, num::NonZeroUsize, sync::Arc, time::Duration};

use serde_path_to_error::Segment;
use toml::{Table, Value};

use super::{
    Backend, Config, Credentials, Environment, IDLE_CONNECTION_BYTES, InvalidConfig, Limits, Poll, Problem,
    Proxies, Server, Tls,
    credentials::{self, Checked, SecretSources},
    declared::{self, Named},
    network::{self, NetworkKeys},
    overrides::{self, Origins},
    problems::{Problems, example, is_shown, join, unknown_key},
    tables::{BackendKeys, BackendTable, CredentialKeys, Keys},
    values::{self, show_bytes, show_duration},
};
use crate::vendors::{BaseUrl, KINDS, UnusableKeys, VendorConfig, VendorKind, declared::backend::KEYS};

/// Problems after which the rest is not looked for: the table is read once for each.
const MAX_PROBLEMS: usize = 100;

/// Room in a message for all but its inline result.
const MESSAGE_OVERHEAD: u64 = 64 << 10;

/// The keys that every backend has.
const COMMON_KEYS: [&str; 8] =
    ["vendor", "base_url", "credentials", "poll", "proxy", "proxy_password", "ca", "headers"];

/// What was read.
pub(super) struct Read {
    pub(super) config: Config,
    /// The keys of the file and of variables, as they are written.
    pub(super) table: Table,
    pub(super) origins: Origins,
}

/// Reads a whole file; `None` where everything comes from the environment.
pub(super) fn read(text: Option<&str>, env: &Environment) -> Result<Read, InvalidConfig> {
    let (has_file, text) = (text.is_some(), text.unwrap_or_default());
    let mut file: Table = toml::from_str(text).map_err(|error| {
        // The error's own Display quotes the line, which may hold a secret.
        let (line, column) = error.span().map_or((1, 1), |span| position(text, span.start));
        let text = format!("(line {line}, column {column}) is not TOML: {}", error.message());
        InvalidConfig { problems: vec![Problem { subject: "the file".to_owned(), text }] }
    })?;
    let mut problems = Problems::default();
    let origins = overrides::apply(&mut file, env.variables(), &mut problems);
    let keys = deserialize(&mut file, &mut problems);
    let secrets = SecretSources { env, origins: &origins, allow_inline: false };
    let mut checker = Checker { file: &file, secrets, problems };
    let config = keys.and_then(|keys| checker.config(keys));
    let mut problems = checker.problems.into_vec();
    match config {
        Some(config) if problems.is_empty() => Ok(Read { config, table: file, origins }),
        _ => {
            for problem in &mut problems {
                overrides::name_variable(problem, &origins, has_file);
            }
            Err(InvalidConfig { problems })
        }
    }
}

fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

/// Reads the table, and reports and removes every key that can't be read.
fn deserialize(file: &mut Table, problems: &mut Problems) -> Option<Keys> {
    while problems.len() < MAX_PROBLEMS {
        let error = match serde_path_to_error::deserialize::<_, Keys>(Value::Table(file.clone())) {
            Ok(keys) => return Some(keys),
            Err(error) => error,
        };
        if !report_unreadable("", &error, file, problems) {
            break;
        }
    }
    None
}

/// Reports the key of the table at `path` that can't be read, and removes it. Returns
/// whether it was there.
fn report_unreadable(
    path: &str,
    error: &serde_path_to_error::Error<toml::de::Error>,
    table: &mut Table,
    problems: &mut Problems,
) -> bool {
    let segments: Vec<Segment> = error.path().iter().cloned().collect();
    let subject = segments.iter().fold(path.to_owned(), |path, segment| match segment {
        Segment::Map { key } => join(&path, key),
        Segment::Seq { index } => format!("{path}[{index}]"),
        Segment::Enum { .. } | Segment::Unknown => path,
    });
    let removed = remove(table, &segments);
    let text = describe(&subject, error.inner().message(), removed.as_ref());
    problems.add(subject, text);
    removed.is_some()
}

/// Turns serde's error at a key with this value into a text.
fn describe(subject: &str, message: &str, value: Option<&Value>) -> String {
    // serde writes the unknown name and then the known ones in back-quotes.
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let (name, known) = names.split_first().unwrap_or((&"", &[]));
    if message.starts_with("unknown field ") {
        unknown_key(name, known)
    } else if message.ends_with(", expected a table") {
        format!("is not a table; write [{subject}]")
    } else if message.starts_with("unknown variant ") || message.starts_with("invalid ") {
        let shown = value.filter(|_| is_shown(subject));
        let is = shown.map_or_else(|| "can't be used".to_owned(), |value| format!("is {value}"));
        match values::closest(name, known) {
            Some(close) => format!("{is}; did you mean {close}?"),
            None => format!("{is}; write {}", example(subject)),
        }
    } else {
        message.to_owned()
    }
}

/// Removes the key, or the list that it is an element of, and returns its value.
fn remove(table: &mut Table, segments: &[Segment]) -> Option<Value> {
    let [Segment::Map { key }, rest @ ..] = segments else { return None };
    match (rest, table.get_mut(key)) {
        ([_, ..], Some(Value::Table(inner))) => remove(inner, rest),
        _ => table.remove(key),
    }
}

/// Checks keys that were read, and reports what is wrong with them. A method that
/// returns an `Option` returns `None` exactly when a problem was reported.
struct Checker<'a> {
    /// The file's table without the keys that could not be read.
    file: &'a Table,
    secrets: SecretSources<'a>,
    problems: Problems,
}

impl Checker<'_> {
    fn config(&mut self, keys: Keys) -> Option<Config> {
        self.secrets.allow_inline = keys.allow_inline_secrets;
        if let Some(tls) = &keys.server.tls {
            self.tls(tls);
        }
        self.plaintext(&keys.server);
        keys.server.check_drain(&mut self.problems);
        keys.server.web.check(&mut self.problems);
        keys.log.check(&mut self.problems);
        keys.admin.check(keys.server.listen, &mut self.problems);
        keys.access.check(keys.server.tls.as_ref(), &mut self.problems);
        let Keys { server, admin, log, traces, mut access, mut limits, cluster, backends, .. } = keys;
        let traces = traces.check(&self.secrets, &mut self.problems);
        if let Some(jwt) = access.jwt.as_mut().filter(|jwt| jwt.jwks_url.is_some()) {
            jwt.proxies = network::environment(self.secrets.env, &mut self.problems);
        }
        let cluster = cluster.and_then(|keys| keys.check(&self.secrets, &mut self.problems));
        self.limits(&mut limits);
        let backends = self.backends(backends, &limits);
        Some(Config { server, admin, log, traces, access, limits, cluster, backends: backends? })
    }

    /// Without TLS only this machine's callers may connect, unless that is wanted.
    fn plaintext(&mut self, server: &Server) {
        if server.tls.is_none() && !server.allow_plaintext && !server.listen.ip().is_loopback() {
            let text = format!(
                "is {} without server.tls: tokens and jobs would travel unencrypted; write [server.tls], or \
                 server.allow_plaintext = true where the network is trusted",
                server.listen
            );
            self.problems.add("server.listen", text);
        }
    }

    fn tls(&mut self, Tls { cert, key, client_ca, client_crl }: &Tls) {
        if client_crl.is_some() && client_ca.is_none() {
            self.problems.add("server.tls.client_crl", "needs server.tls.client_ca; write both");
        }
        let optional = [("client_ca", client_ca.as_ref()), ("client_crl", client_crl.as_ref())];
        let files = [("cert", Some(cert)), ("key", Some(key))].into_iter().chain(optional);
        for (name, file) in files {
            let Some(file) = file else { continue };
            let path = format!("server.tls.{name}");
            if file.as_os_str().is_empty() {
                self.problems.required::<()>(&path, None);
            } else if let Err(error) = File::open(file) {
                let text = format!("is the file {}, which can't be read: {error}", file.display());
                self.problems.add(path, text);
            }
        }
    }

    fn limits(&mut self, limits: &mut Limits) {
        // One caller leaves room for others.
        if self.file.get("limits").is_none_or(|limits| limits.get("watches_per_caller").is_none()) {
            limits.watches_per_caller = limits.watches.div_ceil(4);
        }
        if self.file.get("limits").is_none_or(|limits| limits.get("connections_per_address").is_none()) {
            limits.connections_per_address = limits.connections.div_ceil(4);
        }
        let each = IDLE_CONNECTION_BYTES as u64;
        let idle = (limits.connections as u64).saturating_mul(each);
        if idle > limits.connection_bytes / 2 {
            let text = format!(
                "is {}, which take {} without a call; write at most {}, or raise limits.connection_bytes to {}",
                limits.connections,
                show_bytes(idle),
                limits.connection_bytes / 2 / each,
                show_bytes(2 * idle)
            );
            self.problems.add("limits.connections", text);
        }
        let least = limits.inline_result_bytes as u64 + MESSAGE_OVERHEAD;
        if (limits.message_bytes as u64) < least {
            let text = format!(
                "is {}; write at least {}, which is limits.inline_result_bytes and {} for the rest of a message",
                show_bytes(limits.message_bytes as u64),
                show_bytes(least),
                show_bytes(MESSAGE_OVERHEAD)
            );
            self.problems.add("limits.message_bytes", text);
        }
    }

    fn backends(&mut self, tables: BTreeMap<String, BackendTable>, limits: &Limits) -> Option<Vec<Backend>> {
        if tables.is_empty() {
            return self.problems.required("backends", None);
        }
        let uses_environment = tables.values().any(|BackendTable(keys)| keys.proxy.is_none());
        let environment = if uses_environment {
            network::environment(self.secrets.env, &mut self.problems)
        } else {
            Proxies::None
        };
        // Every backend is checked before the first faulty one ends this.
        let backends = tables.into_iter();
        let backends: Vec<Option<Backend>> = backends
            .map(|(name, BackendTable(keys))| self.backend(&name, keys, limits, &environment))
            .collect();
        backends.into_iter().collect()
    }

    fn backend(
        &mut self,
        name: &str,
        keys: BackendKeys,
        limits: &Limits,
        environment: &Proxies,
    ) -> Option<Backend> {
        let path = join("backends", name);
        let named = is_backend_name(name);
        if !named {
            let text = "is not a name for a backend; write 1 to 63 of a-z, 0-9, '.', '_' and '-', \
                        beginning with a letter or digit";
            self.problems.add(path.clone(), text);
        }
        let BackendKeys { vendor, base_url, credentials, poll, proxy, proxy_password, ca, headers, own } =
            keys;
        let network = NetworkKeys { proxy, proxy_password, ca, headers };
        let named_vendor = declared::named(&path, vendor, &own, &mut self.problems);
        let base_url = self.problems.required(&join(&path, "base_url"), base_url);
        let network = network::check(&path, network, environment, &self.secrets, &mut self.problems);
        let vendor = match &named_vendor {
            Named::BuiltIn(kind) => {
                let own = self.own_keys(&path, Some(kind), own);
                self.vendor(&path, kind, own, credentials, base_url.as_ref())
            }
            Named::Declared(definition) => {
                let Self { secrets, problems, .. } = self;
                declared::check(&path, definition, own, credentials, &COMMON_KEYS, secrets, problems)
            }
            Named::Nothing => {
                self.own_keys(&path, None, own);
                None
            }
        };
        let kind = vendor.as_ref().map(|(vendor, ..)| vendor.kind());
        let built_in = match named_vendor {
            Named::BuiltIn(kind) => Some(kind),
            _ => kind,
        };
        let poll = self.poll(name, poll, built_in, limits);
        let (vendor, credentials, own) = vendor?;
        Some(Backend {
            name: named.then(|| name.into())?,
            vendor,
            base_url: base_url?,
            credentials,
            poll: poll?,
            network: network?,
            own,
        })
    }

    /// Reports and removes what is no key of this vendor's own.
    fn own_keys(&mut self, path: &str, kind: Option<&VendorKind>, mut keys: Table) -> Table {
        let kinds = || KINDS.iter().copied().filter(|other| kind.is_none_or(|kind| *other == kind));
        let names = |kind: &'static VendorKind| kind.keys.iter().map(|key| key.name);
        let declared = KEYS.into_iter().filter(|_| kind.is_none());
        let known: Vec<&str> =
            COMMON_KEYS.into_iter().chain(kinds().flat_map(names)).chain(declared).collect();
        keys.retain(|key, _| {
            if known.contains(&key) {
                return true;
            }
            let owner = KINDS.iter().find(|other| other.keys.iter().any(|own| own.name == key));
            let text = match (owner, kind) {
                (Some(owner), Some(kind)) => {
                    format!("is only for {}, not for {}; remove it", owner.name, kind.name)
                }
                _ => unknown_key(key, &known),
            };
            self.problems.add(join(path, key), text);
            false
        });
        keys
    }

    /// Has the vendor read its own keys, and reads the secret.
    fn vendor(
        &mut self,
        path: &str,
        kind: &VendorKind,
        mut own: Table,
        credentials: Option<CredentialKeys>,
        base_url: Option<&BaseUrl>,
    ) -> Option<(Arc<dyn VendorConfig>, Credentials, Table)> {
        let key = join(path, "credentials");
        let mut credentials = credentials::check(&key, credentials, kind, &self.secrets, &mut self.problems);
        if let Some(Checked::Own { keys, .. }) = &mut credentials {
            own.insert("credentials".to_owned(), Value::Table(std::mem::take(keys)));
        }
        let vendor = self.vendor_config(path, kind, own.clone(), base_url)?;
        let credentials = match credentials? {
            Checked::None => Credentials::NONE,
            Checked::Bearer(token) => Credentials::bearer(token),
            Checked::Own { secret, .. } => Credentials::new(vendor.sign_in(), secret?),
        };
        Some((vendor, credentials, own))
    }

    fn vendor_config(
        &mut self,
        path: &str,
        kind: &VendorKind,
        mut keys: Table,
        base_url: Option<&BaseUrl>,
    ) -> Option<Arc<dyn VendorConfig>> {
        let mut all_readable = true;
        loop {
            match (kind.read)(keys.clone(), base_url) {
                Ok(config) => return all_readable.then_some(config),
                Err(UnusableKeys::Unreadable(error)) => {
                    all_readable = false;
                    if !report_unreadable(path, &error, &mut keys, &mut self.problems) {
                        return None;
                    }
                }
                Err(UnusableKeys::Invalid(problems)) => {
                    for problem in problems {
                        let path = format!("{path}.{}", problem.path);
                        // A key that can't be read is reported, and is not missing.
                        if !self.problems.has(&path) {
                            self.problems.add(path, problem.text);
                        }
                    }
                    return None;
                }
            }
        }
    }

    fn poll(
        &mut self,
        name: &str,
        mut poll: Poll,
        kind: Option<&VendorKind>,
        limits: &Limits,
    ) -> Option<Poll> {
        let before = self.problems.len();
        let path = |key: &str| format!("{}.poll.{key}", join("backends", name));
        let table = self.file.get("backends").and_then(|tables| tables.get(name)?.get("poll"));
        let is_set = |key: &str| table.is_some_and(|table| table.get(key).is_some());

        // A longest wait that is not set is never shorter than the shortest.
        let least = poll.min_interval;
        for (key, wait) in [("max_interval", &mut poll.max_interval), ("max_backoff", &mut poll.max_backoff)]
        {
            if *wait < least && is_set(key) {
                let shown = [*wait, least, Duration::from_millis(values::DAY)].map(show_duration);
                let text = format!("is {:?}; write a duration from {} to {}", shown[0], shown[1], shown[2]);
                self.problems.add(path(key), text);
            }
            *wait = (*wait).max(least);
        }
        // A connection is a part of the wait for a response.
        if poll.connect_timeout > poll.timeout && is_set("connect_timeout") {
            let [connect_timeout, timeout] = [poll.connect_timeout, poll.timeout].map(show_duration);
            let text =
                format!("is {connect_timeout:?}; write at most {timeout}, or raise {}", path("timeout"));
            self.problems.add(path("connect_timeout"), text);
        }
        poll.connect_timeout = poll.connect_timeout.min(poll.timeout);
        if let Some(kind) = kind.filter(|kind| !kind.batches) {
            if is_set("max_batch") && poll.max_batch != NonZeroUsize::MIN {
                let text = format!("is {}, but {} has no batch call; remove it", poll.max_batch, kind.name);
                self.problems.add(path("max_batch"), text);
            }
            poll.max_batch = NonZeroUsize::MIN;
        }
        let (largest, room) = (poll.max_response_bytes as u64, limits.response_bytes);
        if largest > room {
            let (largest, room) = (show_bytes(largest), show_bytes(room));
            let text = format!("is {largest}; write at most {room}, or raise limits.response_bytes");
            self.problems.add(path("max_response_bytes"), text);
        }
        (self.problems.len() == before).then_some(poll)
    }
}

fn is_backend_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= 63
        && name.starts_with(plain)
        && name.chars().all(|c| plain(c) || matches!(c, '.' | '_' | '-'))
}
