//! Replicas that share the work over NATS.

use std::{fmt, fs::File, path::PathBuf, time::Duration};

use schemars::JsonSchema;
use secrecy::ExposeSecret;
use serde::{Deserialize, Deserializer};
use toml::Value;
use url::Url;

use super::{
    Backend, Secret,
    credentials::{self, SecretSources},
    problems::{Problems, join},
    schema,
    tables::ratio,
    values::{self, Milliseconds, Number, SECOND},
};
use crate::vendors::SecretForm;

/// Most replicas of one cluster.
const MOST_REPLICAS: u64 = 1000;

/// The names of these keys, which wait for a restart when they change.
const KEY: &str = "cluster";

/// The keys of `[cluster]`.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(
    rename = "Cluster",
    description = "Replicas that share the work over NATS.",
    extend("required" = ["nats", "name", "replicas"])
)]
pub(super) struct ClusterKeys {
    /// URLs of the NATS servers, such as "nats://nats-0:4222", or "tls://nats-0:4222" for TLS.
    nats: Option<Vec<String>>,
    /// Name of the cluster: replicas with one name share the work.
    name: Option<String>,
    /// How many replicas run at most: each backend's requests_per_second is split between them.
    #[serde(deserialize_with = "replicas")]
    #[schemars(range(min = 1, max = 1000))]
    replicas: Option<u32>,
    /// Name of this replica; that of the host unless set.
    member: Option<String>,
    /// How this replica signs in at NATS.
    #[serde(deserialize_with = "credential_keys")]
    credentials: Option<ClusterCredentialKeys>,
    /// TLS to the NATS servers.
    #[serde(deserialize_with = "tls")]
    tls: Option<ClusterTls>,
    /// How long an owner may be silent before another replica takes its backends.
    #[serde(with = "Milliseconds::<{ 3 * SECOND }, { 300 * SECOND }>")]
    lease: Duration,
    /// Share of requests_per_second and max_concurrency that is split evenly between the
    /// replicas, for when they are alone. A backend's owner has the rest.
    #[serde(deserialize_with = "ratio")]
    #[schemars(range(min = 0, max = 1))]
    isolated_share: f64,
}

impl Default for ClusterKeys {
    fn default() -> Self {
        Self {
            nats: None,
            name: None,
            replicas: None,
            member: None,
            credentials: None,
            tls: None,
            lease: Duration::from_secs(15),
            isolated_share: 0.2,
        }
    }
}

/// The keys of `[cluster.credentials]`.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "ClusterCredentials")]
struct ClusterCredentialKeys {
    /// A credentials file, with a user's JWT and its key.
    #[schemars(schema_with = "schema::secret")]
    creds: Option<Value>,
    /// The seed of an NKey.
    #[schemars(schema_with = "schema::secret")]
    nkey: Option<Value>,
    /// The name of a user.
    user: Option<String>,
    /// The user's password.
    #[schemars(schema_with = "schema::secret")]
    password: Option<Value>,
    /// A token.
    #[schemars(schema_with = "schema::secret")]
    token: Option<Value>,
}

/// Files for TLS to the NATS servers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterTls {
    /// PEM file of authorities that are trusted in place of the system's.
    pub ca: Option<PathBuf>,
    /// PEM chain of this replica.
    pub cert: Option<PathBuf>,
    /// PEM key of this replica.
    pub key: Option<PathBuf>,
}

/// Replicas that share the work.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// URLs of the NATS servers, without user info.
    pub nats: Vec<String>,
    /// Name of the cluster: letters, digits, '_' and '-'.
    pub name: String,
    /// How many replicas run at most.
    pub replicas: u32,
    /// Name of this replica.
    pub member: String,
    /// How it signs in.
    pub credentials: ClusterCredentials,
    /// TLS, beyond what the URLs say.
    pub tls: Option<ClusterTls>,
    /// Duration of a lease.
    pub lease: Duration,
    /// The part of the limits that is split evenly.
    pub isolated_share: f64,
}

/// How a replica signs in at NATS.
#[derive(Clone, Debug)]
pub enum ClusterCredentials {
    /// Not at all.
    None,
    /// The content of a credentials file: a user's JWT and its key.
    Creds(Secret),
    /// The seed of an NKey.
    Nkey(Secret),
    /// A user and its password.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A token.
    Token(Secret),
}

impl ClusterCredentials {
    /// The secret, where there is one.
    pub fn secret(&self) -> Option<&Secret> {
        match self {
            Self::None => None,
            Self::Creds(secret) | Self::Nkey(secret) | Self::Token(secret) => Some(secret),
            Self::Password { password, .. } => Some(password),
        }
    }
}

/// The kind, for people.
impl fmt::Display for ClusterCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "no credentials",
            Self::Creds(_) => "credentials file",
            Self::Nkey(_) => "nkey",
            Self::Password { .. } => "user and password",
            Self::Token(_) => "token",
        })
    }
}

/// A secret that may change at its place is the same whatever it is at present: it is read again.
impl PartialEq for ClusterCredentials {
    fn eq(&self, other: &Self) -> bool {
        let user = |credentials: &Self| match credentials {
            Self::Password { user, .. } => Some(user.clone()),
            _ => None,
        };
        let is_same_secret = match (self.secret(), other.secret()) {
            (None, None) => true,
            (Some(one), Some(other)) => {
                let has_same_value = || one.value().expose_secret() == other.value().expose_secret();
                one.source() == other.source() && (one.may_change() || has_same_value())
            }
            _ => false,
        };
        std::mem::discriminant(self) == std::mem::discriminant(other)
            && user(self) == user(other)
            && is_same_secret
    }
}

impl ClusterKeys {
    /// Checks the keys. `None` after a problem was reported.
    pub(super) fn check(self, secrets: &SecretSources<'_>, problems: &mut Problems) -> Option<Cluster> {
        let before = problems.len();
        let nats = self.nats.unwrap_or_default();
        if nats.is_empty() && !problems.has("cluster.nats") {
            problems.add("cluster.nats", "is missing; write a list such as [\"nats://nats-0:4222\"]");
        }
        for (index, url) in nats.iter().enumerate() {
            if let Err(text) = check_url(url) {
                problems.add(format!("cluster.nats[{index}]"), text);
            }
        }
        if let Some(name) = &self.name {
            check_name(name, problems);
        } else if !problems.has("cluster.name") {
            problems.add("cluster.name", "is missing; write a name such as \"prod\"");
        }
        if self.replicas.is_none() && !problems.has("cluster.replicas") {
            problems.add("cluster.replicas", "is missing; write how many replicas run at most, such as 3");
        }
        let member = self.member.or_else(host_name);
        match &member {
            Some(member) => check_member(member, problems),
            None => problems.add("cluster.member", "is missing; write a name such as \"gateway-0\""),
        }
        let credentials = match self.credentials {
            Some(keys) => keys.check(secrets, problems),
            None => Some(ClusterCredentials::None),
        };
        if let Some(tls) = &self.tls {
            tls.check(problems);
        }
        let cluster = Cluster {
            nats,
            name: self.name?,
            replicas: self.replicas?,
            member: member?,
            credentials: credentials?,
            tls: self.tls,
            lease: self.lease,
            isolated_share: self.isolated_share,
        };
        (problems.len() == before && !problems.has(KEY)).then_some(cluster)
    }
}

/// A URL of a NATS server.
fn check_url(text: &str) -> Result<(), &'static str> {
    let Ok(url) = Url::parse(text) else {
        return Err("is no URL; write one such as \"nats://nats-0:4222\", or \"tls://nats-0:4222\" for TLS");
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user; write it and its password in cluster.credentials, and the URL without");
    }
    if !matches!(url.scheme(), "nats" | "tls") {
        return Err("begins with neither nats:// nor tls://; write one such as \"nats://nats-0:4222\"");
    }
    let has_host = url.host_str().is_some_and(|host| !host.is_empty());
    let is_alone = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
    if !has_host || !is_alone {
        return Err("is not a host and its port; write such as \"nats://nats-0:4222\"");
    }
    Ok(())
}

/// The name is a part of subjects and of the bucket's name.
fn check_name(name: &str, problems: &mut Problems) {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if name.is_empty() || name.len() > 63 || !name.chars().all(is_part) {
        let text = format!("is {name:?}; write 1 to 63 of a-z, A-Z, 0-9, '_' and '-', such as \"prod\"");
        problems.add("cluster.name", text);
    }
}

fn check_member(member: &str, problems: &mut Problems) {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if member.is_empty() || member.len() > 253 || !member.chars().all(is_part) {
        let text = format!(
            "is {member:?}; write 1 to 253 of a-z, A-Z, 0-9, '.', '_' and '-', such as \"gateway-0\""
        );
        problems.add("cluster.member", text);
    }
}

#[cfg(unix)]
fn host_name() -> Option<String> {
    let name = rustix::system::uname().nodename().to_str().ok()?.to_owned();
    (!name.is_empty()).then_some(name)
}

#[cfg(not(unix))]
fn host_name() -> Option<String> {
    std::env::var("COMPUTERNAME").ok().filter(|name| !name.is_empty())
}

impl ClusterCredentialKeys {
    fn check(self, secrets: &SecretSources<'_>, problems: &mut Problems) -> Option<ClusterCredentials> {
        const PATH: &str = "cluster.credentials";
        let Self { creds, nkey, user, password, token } = self;
        let ways = [
            ("creds", creds.is_some()),
            ("nkey", nkey.is_some()),
            ("user", user.is_some() || password.is_some()),
            ("token", token.is_some()),
        ];
        let given: Vec<&str> = ways.iter().filter(|(_, is_given)| *is_given).map(|(key, _)| *key).collect();
        if let [one, other, ..] = given[..] {
            return problems.report(PATH, format!("holds both {one} and {other}; keep one way to sign in"));
        }
        let mut read = |key: &str, place: Value, form: SecretForm| {
            credentials::secret_of(PATH, key, place, form, secrets, problems)
        };
        if let Some(place) = creds {
            return read("creds", place, SecretForm::Lines).map(ClusterCredentials::Creds);
        }
        if let Some(place) = nkey {
            return read("nkey", place, SecretForm::Text).map(ClusterCredentials::Nkey);
        }
        if let Some(place) = token {
            return read("token", place, SecretForm::Text).map(ClusterCredentials::Token);
        }
        match (user, password) {
            (Some(user), Some(place)) => {
                let password = read("password", place, SecretForm::Text)?;
                Some(ClusterCredentials::Password { user, password })
            }
            (Some(_), None) => problems.report(
                join(PATH, "password"),
                "is missing; write { env = \"NAME\" } or { file = \"/path\" }",
            ),
            (None, Some(_)) => problems.report(join(PATH, "user"), "is missing; write the password's user"),
            (None, None) if problems.has(PATH) => None,
            (None, None) => problems
                .report(PATH, "is empty; write creds, nkey, user and password, or token, or remove it"),
        }
    }
}

impl ClusterTls {
    fn check(&self, problems: &mut Problems) {
        let Self { ca, cert, key } = self;
        match (cert, key) {
            (Some(_), None) => {
                problems.add("cluster.tls.key", "is missing; write the path of the PEM private key");
            }
            (None, Some(_)) => {
                problems.add("cluster.tls.cert", "is missing; write the path of the PEM certificate chain");
            }
            _ => {}
        }
        for (name, file) in [("ca", ca), ("cert", cert), ("key", key)] {
            let Some(file) = file else { continue };
            if let Err(error) = File::open(file) {
                let text = format!("is the file {}, which can't be read: {error}", file.display());
                problems.add(join("cluster.tls", name), text);
            }
        }
    }
}

impl Cluster {
    /// Settings that are valid but probably a mistake.
    pub(super) fn warnings(&self, backends: &[Backend]) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(secret) = self.credentials.secret() {
            let texts = secret.warnings(secret.value()).into_iter();
            warnings.extend(texts.map(|text| format!("{} {text}", secret.key())));
        }
        for (index, url) in self.nats.iter().enumerate() {
            if self.tls.is_none() && is_plaintext_to_elsewhere(url) {
                warnings.push(format!(
                    "cluster.nats[{index}] is {url}: statuses travel unencrypted unless the server requires \
                     TLS; write a tls:// URL"
                ));
            }
        }
        for Backend { name, poll, .. } in backends {
            if poll.requests_per_second.get() < self.replicas {
                warnings.push(format!(
                    "backends.{name}.poll.requests_per_second is {}, less than cluster.replicas = {}: a replica \
                     without a connection to the backend's owner sends it no requests; raise the one or lower \
                     the other",
                    poll.requests_per_second, self.replicas
                ));
            }
        }
        warnings
    }
}

fn is_plaintext_to_elsewhere(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    // The host of such a scheme is a name, even if it is an address.
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_loopback = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    url.scheme() == "nats" && !is_loopback
}

fn replicas<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    Number::<1, MOST_REPLICAS>::deserialize(deserializer).map(Some)
}

fn credential_keys<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<ClusterCredentialKeys>, D::Error> {
    values::table(deserializer).map(Some)
}

fn tls<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ClusterTls>, D::Error> {
    values::table(deserializer).map(Some)
}

pub(super) fn table<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ClusterKeys>, D::Error> {
    values::table(deserializer).map(Some)
}

#[cfg(test)]
mod tests;
