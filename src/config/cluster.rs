//! Replicas that share the work over NATS.

use std::{fmt, fs::File, time::Duration};

use secrecy::ExposeSecret;
use toml::Value;
use url::Url;

use super::cluster_keys::ClusterTls;
use super::{
    Backend, Secret,
    cluster_keys::{ClusterCredentialKeys, ClusterKeys},
    credentials::{self, SecretSources},
    problems::{Problems, join},
};
use crate::vendors::SecretForm;

/// The section.
const KEY: &str = "cluster";

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

#[cfg(test)]
mod tests;
