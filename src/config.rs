//! The gateway's configuration, validated.
//!
//! A configuration is a TOML file in which the environment may replace any key. It
//! is read in three steps: `overrides` puts the environment's values into the file's
//! table; serde reads it with the derived code of `tables`, below, and of single values in
//! `values`, from which `key_tree` also makes the JSON Schema; `file` and `credentials` check what depends on several keys.
//! All of them report every problem, not only the first. A [`Secret`] keeps where it
//! was found, since it may change there.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    num::{NonZeroU32, NonZeroUsize},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use xxhash_rust::xxh3::xxh3_64;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use values::{Bytes, DAY, GIB, HOUR, KIB, MIB, Milliseconds, Number, SECOND, TIB};

use crate::vendors::{BaseUrl, Scheme, SignIn, VendorConfig};

mod access;
mod admin;
mod cluster;
mod cluster_keys;
mod credentials;
mod declared;
mod diff;
mod drain;
mod effective;
mod environment;
mod file;
mod key_tree;
mod network;
mod otel;
mod overrides;
mod problems;
mod schema;
mod secret;
mod secret_text;
mod tables;
mod text_file;
mod traces;
mod values;
mod web;

pub use access::{Access, Algorithm, Jwt, Policy, Right, Token, TokenHash};
pub use admin::{Admin, Log};
pub use cluster::{Cluster, ClusterCredentials};
pub use cluster_keys::ClusterTls;
pub use diff::{BackendChange, Change, Diff};
pub use effective::{Effective, Origin};
pub use environment::{EnvFile, Environment};
pub use key_tree::json_schema;
pub use network::{Network, Proxies, Proxy};
pub use secret::{Secret, Source};
pub use traces::{Protocol, Traces};
pub use values::parse_duration;
pub use web::Web;

/// A whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The gRPC server.
    pub server: Server,
    /// The address for operators.
    pub admin: Admin,
    /// The log.
    pub log: Log,
    /// The export of traces, if there are any.
    pub traces: Option<Traces>,
    /// Who may call, and what each caller may do.
    pub access: Access,
    /// Limits for callers and for memory.
    pub limits: Limits,
    /// Replicas that share the work, if they do.
    pub cluster: Option<Cluster>,
    /// The backends, sorted by name.
    pub backends: Vec<Backend>,
}

/// The gRPC server.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// The address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// TLS, if the server terminates it itself.
    #[serde(deserialize_with = "tls")]
    pub tls: Option<Tls>,
    /// Whether callers that are not on this machine may connect without TLS.
    #[serde(deserialize_with = "crate::vendors::flag")]
    pub allow_plaintext: bool,
    /// How long a call may take whose caller set no deadline.
    #[serde(with = "Milliseconds::<1, HOUR>")]
    pub default_deadline: Duration,
    /// How long a poll waits for others to share its upstream request.
    #[serde(with = "Milliseconds::<0, SECOND>")]
    pub collection_window: Duration,
    /// How long calls are still accepted after a shutdown began, while the server is not
    /// ready any more.
    #[serde(with = "Milliseconds::<0, HOUR>")]
    pub drain_delay: Duration,
    /// How long calls in progress may take after that.
    #[serde(with = "Milliseconds::<0, HOUR>")]
    pub drain_timeout: Duration,
    /// How old a connection may be before it takes no further calls, give or take a tenth;
    /// zero for no limit.
    #[serde(with = "Milliseconds::<0, { 30 * DAY }>")]
    pub max_connection_age: Duration,
    /// How long its calls in progress may take after that.
    #[serde(with = "Milliseconds::<0, DAY>")]
    pub max_connection_age_grace: Duration,
    /// Browsers.
    #[serde(deserialize_with = "values::table")]
    pub web: Web,
}

/// Files of the server's TLS identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["cert", "key"]))]
pub struct Tls {
    /// PEM chain.
    pub cert: PathBuf,
    /// PEM key.
    pub key: PathBuf,
    /// If set, clients must present a certificate that one of these signed.
    pub client_ca: Option<PathBuf>,
    /// PEM certificate revocation lists: client certificates in them are refused.
    pub client_crl: Option<PathBuf>,
}

/// What a connection without a call is counted with in `limits.connection_bytes`: its
/// buffers, as large as they have ever been, and its state, with TLS. docs/security.md has the
/// measured figures.
pub const IDLE_CONNECTION_BYTES: usize = 52 << 10;

/// What an open call is counted with: its task, its stream, its service and small frames.
pub const CALL_BYTES: usize = 10 << 10;

/// The most that callers may use, and the most that the gateway holds for them.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Watches open at once.
    #[serde(with = "Number::<1, 1_000_000_000>")]
    pub watches: usize,
    /// Watches open at once by one caller: a quarter of `watches` unless set. Without
    /// `access` a caller is an address.
    #[serde(with = "Number::<1, 1_000_000_000>")]
    pub watches_per_caller: usize,
    /// Watches open at once in one WatchJobs.
    #[serde(with = "Number::<1, 1_000_000_000>")]
    pub watches_per_call: usize,
    /// Jobs in one batch.
    #[serde(with = "Number::<1, 1000>")]
    pub batch_size: usize,
    /// Jobs known at once: watched, waited for or cached.
    #[serde(with = "Number::<1, 1_000_000_000>")]
    pub jobs: usize,
    /// Bytes of all statuses held: live, retained and cached.
    #[serde(with = "Bytes::<KIB, TIB>")]
    pub status_bytes: u64,
    /// Bytes of all upstream responses being read, over all backends.
    #[serde(with = "Bytes::<KIB, TIB>")]
    pub response_bytes: u64,
    /// Bytes of the largest result that is held and sent in a status.
    #[serde(with = "Bytes::<0, GIB>")]
    pub inline_result_bytes: usize,
    /// Bytes of the largest message sent: an inline result and at least 64 KiB.
    #[serde(with = "Bytes::<{ 64 * KIB }, { 2 * GIB }>")]
    pub message_bytes: usize,
    /// HTTP/2 streams on one connection.
    #[serde(with = "Number::<1, 1_000_000>")]
    pub streams_per_connection: u32,
    /// Connections open at once.
    #[serde(with = "Number::<1, 1_000_000>")]
    pub connections: usize,
    /// Connections of one address: a quarter of `connections` unless set. It may use the
    /// same share of `connection_bytes`.
    #[serde(with = "Number::<1, 1_000_000>")]
    pub connections_per_address: usize,
    /// Bytes of all connections: what they cost, what their calls have received and not
    /// read, and what is encoded and not sent.
    #[serde(with = "Bytes::<MIB, TIB>")]
    pub connection_bytes: u64,
}

/// One configured deployment of a vendor.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Its name in the configuration and in `JobRef.backend`.
    pub name: Arc<str>,
    /// The vendor, with the settings that only it has.
    pub vendor: Arc<dyn VendorConfig>,
    /// The URL below which its API is.
    pub base_url: BaseUrl,
    /// The gateway's credentials.
    pub credentials: Credentials,
    /// How it is polled.
    pub poll: Poll,
    /// How it is reached.
    pub network: Network,
    /// The vendor's own keys as they were written, without secrets.
    pub own: toml::Table,
}

impl Backend {
    /// A hash of where its jobs are polled: two backends of one name that differ in it may
    /// know other jobs by the same ids.
    pub fn place(&self) -> u64 {
        let mut own = self.own.clone();
        own.remove("credentials");
        xxh3_64(format!("{} {} {own}", self.vendor.kind().key, self.base_url.as_str()).as_bytes())
    }
}

/// The gateway's credentials at a vendor.
#[derive(Clone, Debug)]
pub struct Credentials(Option<(SignIn, Secret)>);

/// How a backend is polled.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Poll {
    /// Shortest poll interval.
    #[serde(with = "Milliseconds::<1, DAY>")]
    pub min_interval: Duration,
    /// Longest poll interval.
    #[serde(with = "Milliseconds::<1, DAY>")]
    pub max_interval: Duration,
    /// Longest wait for one response.
    #[serde(with = "Milliseconds::<1, HOUR>")]
    pub timeout: Duration,
    /// Longest wait for a connection; at most `timeout`.
    #[serde(with = "Milliseconds::<1, HOUR>")]
    pub connect_timeout: Duration,
    /// Most jobs in one request, if the vendor has a batch call.
    #[serde(with = "Number::<1, 1000>")]
    pub max_batch: NonZeroUsize,
    /// Most requests at once.
    #[serde(with = "Number::<1, 10_000>")]
    pub max_concurrency: NonZeroUsize,
    /// Most requests in any one second, whatever they are for.
    #[serde(with = "Number::<1, 1_000_000>")]
    pub requests_per_second: NonZeroU32,
    /// How long a watched job may be missing at first.
    #[serde(with = "Milliseconds::<0, DAY>")]
    pub not_found_grace: Duration,
    /// Wait after the vendor has rejected the secret; longer with each further time.
    #[serde(with = "Milliseconds::<1, HOUR>")]
    pub login_backoff: Duration,
    /// Longest back-off.
    #[serde(with = "Milliseconds::<1, DAY>")]
    pub max_backoff: Duration,
    /// Largest response in bytes.
    #[serde(with = "Bytes::<1, GIB>")]
    pub max_response_bytes: usize,
}

/// The text of a configuration file.
fn read_text(path: &Path) -> Result<String, InvalidConfig> {
    std::fs::read_to_string(path).map_err(|error| {
        let subject = path.display().to_string();
        InvalidConfig { problems: vec![Problem { subject, text: format!("can't be read: {error}") }] }
    })
}

fn tls<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Tls>, D::Error> {
    values::table(deserializer).map(Some)
}

/// Every problem of an invalid configuration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct InvalidConfig {
    /// At least one.
    pub problems: Vec<Problem>,
}

/// One problem per line.
impl fmt::Display for InvalidConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().enumerate() {
            let line_break = if n == 0 { "" } else { "\n" };
            write!(f, "{line_break}{problem}")?;
        }
        Ok(())
    }
}

/// One problem of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key's full path, such as `backends.claret.tenant`, or the name of the file or
    /// of the environment variable.
    pub subject: String,
    /// The problem and its remedy; never a secret.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.subject, self.text)
    }
}

impl Config {
    /// Reads a configuration file; `env` replaces keys and holds secrets.
    ///
    /// # Errors
    /// Reports every problem.
    pub fn load(path: &Path, env: impl Into<Environment>) -> Result<Self, InvalidConfig> {
        Self::parse(&read_text(path)?, env)
    }

    /// Reads the text of a configuration file; `env` replaces keys and holds
    /// secrets.
    ///
    /// # Errors
    /// Reports every problem.
    pub fn parse(text: &str, env: impl Into<Environment>) -> Result<Self, InvalidConfig> {
        file::read(Some(text), &env.into()).map(|read| read.config)
    }

    /// Reads a configuration without a file: variables set everything.
    ///
    /// # Errors
    /// Reports every problem.
    pub fn of_environment(env: impl Into<Environment>) -> Result<Self, InvalidConfig> {
        file::read(None, &env.into()).map(|read| read.config)
    }

    /// Files whose content is a part of the configuration, but for the secrets of credentials,
    /// which are read again by themselves.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let networks = self.backends.iter().flat_map(|backend| &backend.network.files).map(PathBuf::as_path);
        let definitions = self.backends.iter().filter_map(|backend| backend.own.get("vendor_file")?.as_str());
        networks.chain(definitions.map(Path::new))
    }

    /// Settings that are valid but probably a mistake; one line each.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> = self.server.drain_warning().into_iter().collect();
        warnings.extend(self.cluster.iter().flat_map(|cluster| cluster.warnings(&self.backends)));
        for backend in &self.backends {
            let Some(secret) = backend.credentials.secret() else { continue };
            let texts = secret.warnings(secret.value()).into_iter();
            warnings.extend(texts.map(|text| format!("{} {text}", secret.key())));
            let base_url = std::iter::once(("base_url", &backend.base_url));
            for (key, url) in base_url.chain(backend.vendor.other_urls()) {
                if !url.is_https() && !url.is_loopback() {
                    warnings.push(format!(
                        "backends.{}.{key} is {}: credentials travel unencrypted; write an https:// URL",
                        backend.name,
                        url.as_str()
                    ));
                }
            }
        }
        warnings
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 50051).into(),
            tls: None,
            allow_plaintext: false,
            default_deadline: Duration::from_mins(1),
            collection_window: Duration::from_millis(5),
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(20),
            max_connection_age: Duration::ZERO,
            max_connection_age_grace: Duration::from_mins(1),
            web: Web::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            watches: 2_000_000,
            watches_per_caller: 500_000,
            watches_per_call: 1_000_000,
            batch_size: 1000,
            jobs: 2_000_000,
            status_bytes: 512 * MIB,
            response_bytes: 256 * MIB,
            inline_result_bytes: 1 << 20,
            message_bytes: 4 << 20,
            streams_per_connection: 2000,
            connections: 5000,
            connections_per_address: 1250,
            connection_bytes: 512 * MIB,
        }
    }
}

impl Default for Poll {
    fn default() -> Self {
        Self {
            min_interval: Duration::from_secs(1),
            max_interval: Duration::from_secs(10),
            timeout: Duration::from_secs(15),
            connect_timeout: Duration::from_secs(5),
            max_batch: NonZeroUsize::new(200).expect("200 is not 0"),
            max_concurrency: NonZeroUsize::new(8).expect("8 is not 0"),
            requests_per_second: NonZeroU32::new(20).expect("20 is not 0"),
            not_found_grace: Duration::from_secs(10),
            login_backoff: Duration::from_secs(10),
            max_backoff: Duration::from_secs(30),
            max_response_bytes: 8 * 1024 * 1024,
        }
    }
}

impl Credentials {
    /// No credentials.
    pub const NONE: Self = Self(None);

    /// A secret, and how it is used.
    pub fn new(sign_in: SignIn, secret: Secret) -> Self {
        Self(Some((sign_in, secret)))
    }

    /// A token from elsewhere, sent as it is.
    pub fn bearer(token: Secret) -> Self {
        Self::new(SignIn { scheme: Scheme::Bearer, description: "bearer token" }, token)
    }

    /// The secret among them.
    pub fn secret(&self) -> Option<&Secret> {
        self.0.as_ref().map(|(_, secret)| secret)
    }

    /// How the secret is sent.
    pub fn scheme(&self) -> Option<&Scheme> {
        self.0.as_ref().map(|(sign_in, _)| &sign_in.scheme)
    }

    /// The kind in words.
    pub fn description(&self) -> &'static str {
        self.0.as_ref().map_or("no credentials", |(sign_in, _)| sign_in.description)
    }
}

#[cfg(test)]
mod tests;
