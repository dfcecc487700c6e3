//! The gateway's configuration, validated.
//!
//! A configuration is a TOML file in which the environment may replace any key. It
//! is read in three steps: `overrides` puts the environment's values into the file's
//! table; serde reads the table with the derived code below and the readers of single
//! values in `values`; `file` and `credentials` check what depends on several keys.
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

use serde::Deserialize;
use thiserror::Error;
use values::{DAY, GIB, HOUR, KIB, MIB, SECOND, TIB};

use crate::vendors::{BaseUrl, ClientAuth, Encoding};

mod credentials;
mod environment;
mod file;
mod overrides;
mod problems;
mod secret;
mod text_file;
mod values;

pub use environment::{EnvFile, Environment};
pub use secret::{Secret, Source};
pub use values::parse_duration;

/// A whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The gRPC server.
    pub server: Server,
    /// Limits for callers and for memory.
    pub limits: Limits,
    /// The backends, sorted by name.
    pub backends: Vec<Backend>,
}

/// The gRPC server.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// The address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// TLS, if the server terminates it itself.
    #[serde(deserialize_with = "tls")]
    pub tls: Option<Tls>,
    /// How long a call may take whose caller set no deadline.
    #[serde(deserialize_with = "values::duration::<_, 1, HOUR>")]
    pub default_deadline: Duration,
    /// How long a poll waits for others to share its upstream request.
    #[serde(deserialize_with = "values::duration::<_, 0, SECOND>")]
    pub collection_window: Duration,
}

/// Files of the server's TLS identity.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// PEM chain.
    pub cert: PathBuf,
    /// PEM key.
    pub key: PathBuf,
    /// If set, clients must present a certificate that one of these signed.
    pub client_ca: Option<PathBuf>,
}

/// The most that callers may use, and the most that the gateway holds for them.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Watches open at once.
    #[serde(deserialize_with = "values::number::<_, _, 1, 1_000_000_000>")]
    pub watches: usize,
    /// Watches open at once by one caller, identified by its address.
    #[serde(deserialize_with = "values::number::<_, _, 1, 1_000_000_000>")]
    pub watches_per_caller: usize,
    /// Watches open at once in one WatchJobs.
    #[serde(deserialize_with = "values::number::<_, _, 1, 1_000_000_000>")]
    pub watches_per_call: usize,
    /// Jobs in one batch.
    #[serde(deserialize_with = "values::number::<_, _, 1, 1000>")]
    pub batch_size: usize,
    /// Jobs known at once: watched, waited for or cached.
    #[serde(deserialize_with = "values::number::<_, _, 1, 1_000_000_000>")]
    pub jobs: usize,
    /// Bytes of all statuses held: live, retained and cached.
    #[serde(deserialize_with = "values::bytes::<_, _, KIB, TIB>")]
    pub status_bytes: u64,
    /// Bytes of all upstream responses being read, over all backends.
    #[serde(deserialize_with = "values::bytes::<_, _, KIB, TIB>")]
    pub response_bytes: u64,
    /// Bytes of the largest result that is held and sent in a status.
    #[serde(deserialize_with = "values::bytes::<_, _, 0, GIB>")]
    pub inline_result_bytes: usize,
    /// Bytes of the largest message sent: an inline result and at least 64 KiB.
    #[serde(deserialize_with = "values::bytes::<_, _, { 64 * KIB }, { 2 * GIB }>")]
    pub message_bytes: usize,
    /// HTTP/2 streams on one connection.
    #[serde(deserialize_with = "values::number::<_, _, 1, 1_000_000>")]
    pub streams_per_connection: u32,
    /// Connections open at once.
    #[serde(deserialize_with = "values::number::<_, _, 1, 1_000_000>")]
    pub connections: usize,
}

/// One configured deployment of a vendor.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Its name in the configuration and in `JobRef.backend`.
    pub name: Arc<str>,
    /// The vendor, with the settings that only it has.
    pub vendor: Vendor,
    /// The URL below which its API is.
    pub base_url: BaseUrl,
    /// The gateway's credentials.
    pub credentials: Credentials,
    /// How it is polled.
    pub poll: Poll,
}

/// A vendor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vendor {
    /// Immuta.
    Immuta,
    /// Kinetica.
    Kinetica {
        /// How requests and responses are written.
        encoding: Encoding,
        /// Standby clusters to poll while the one at `base_url` can't answer, in this order.
        standby_urls: Vec<BaseUrl>,
    },
    /// Claret.
    Claret {
        /// First segment of every path.
        tenant: String,
    },
    /// Datasaur.
    Datasaur,
}

/// The gateway's credentials at a vendor.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// No credentials.
    None,
    /// `Authorization: <key>`, with no scheme word.
    ApiKey(Secret),
    /// An API key that is exchanged for a token.
    ApiKeyExchange(Secret),
    /// `Authorization: Bearer`.
    Bearer(Secret),
    /// HTTP Basic.
    Basic {
        /// User name.
        username: String,
        /// Password.
        password: Secret,
    },
    /// Email and password, exchanged for a token.
    Login {
        /// Email.
        email: String,
        /// Password.
        password: Secret,
    },
    /// OAuth client credentials, exchanged for a token.
    OAuthClient {
        /// Client id.
        client_id: String,
        /// Client secret.
        client_secret: Secret,
        /// How both are sent.
        client_auth: ClientAuth,
    },
}

/// A [`Vendor`] without its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum VendorKind {
    Immuta,
    Kinetica,
    Claret,
    Datasaur,
}

/// How a backend is polled.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Poll {
    /// Shortest poll interval.
    #[serde(deserialize_with = "values::duration::<_, 1, DAY>")]
    pub min_interval: Duration,
    /// Longest poll interval.
    #[serde(deserialize_with = "values::duration::<_, 1, DAY>")]
    pub max_interval: Duration,
    /// Longest wait for one response.
    #[serde(deserialize_with = "values::duration::<_, 1, HOUR>")]
    pub timeout: Duration,
    /// Longest wait for a connection; at most `timeout`.
    #[serde(deserialize_with = "values::duration::<_, 1, HOUR>")]
    pub connect_timeout: Duration,
    /// Most jobs in one request, if the vendor has a batch call.
    #[serde(deserialize_with = "values::number::<_, _, 1, 1000>")]
    pub max_batch: NonZeroUsize,
    /// Most requests at once.
    #[serde(deserialize_with = "values::number::<_, _, 1, 10_000>")]
    pub max_concurrency: NonZeroUsize,
    /// Most requests in any one second, whatever they are for.
    #[serde(deserialize_with = "values::number::<_, _, 1, 1_000_000>")]
    pub requests_per_second: NonZeroU32,
    /// How long a watched job may be missing at first.
    #[serde(deserialize_with = "values::duration::<_, 0, DAY>")]
    pub not_found_grace: Duration,
    /// Longest back-off.
    #[serde(deserialize_with = "values::duration::<_, 1, DAY>")]
    pub max_backoff: Duration,
    /// Largest response in bytes.
    #[serde(deserialize_with = "values::bytes::<_, _, 1, GIB>")]
    pub max_response_bytes: usize,
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
        let text = std::fs::read_to_string(path).map_err(|error| {
            let subject = path.display().to_string();
            InvalidConfig { problems: vec![Problem { subject, text: format!("can't be read: {error}") }] }
        })?;
        Self::parse(&text, env)
    }

    /// Reads the text of a configuration file; `env` replaces keys and holds
    /// secrets.
    ///
    /// # Errors
    /// Reports every problem.
    pub fn parse(text: &str, env: impl Into<Environment>) -> Result<Self, InvalidConfig> {
        file::read(text, &env.into())
    }

    /// Settings that are valid but probably a mistake; one line each.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for backend in &self.backends {
            if matches!(backend.credentials, Credentials::None) {
                continue;
            }
            let standbys = match &backend.vendor {
                Vendor::Kinetica { standby_urls, .. } => standby_urls.as_slice(),
                _ => &[],
            };
            let urls = standbys.iter().map(|url| ("standby_urls", url));
            for (key, url) in std::iter::once(("base_url", &backend.base_url)).chain(urls) {
                if !url.is_https() && !url.is_loopback() {
                    warnings.push(format!(
                        "backends.{}.{key} is {}: credentials travel unencrypted; write an https:// URL",
                        backend.name,
                        url.as_str()
                    ));
                }
            }
        }
        if self.server.tls.is_none() && !self.server.listen.ip().is_loopback() {
            warnings.push(format!(
                "server.listen is {} without server.tls: anyone who reaches it can read every backend's jobs",
                self.server.listen
            ));
        }
        warnings
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 50051).into(),
            tls: None,
            default_deadline: Duration::from_mins(1),
            collection_window: Duration::from_millis(5),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            watches: 2_000_000,
            watches_per_caller: 2_000_000,
            watches_per_call: 1_000_000,
            batch_size: 1000,
            jobs: 2_000_000,
            status_bytes: 512 * MIB,
            response_bytes: 256 * MIB,
            inline_result_bytes: 1 << 20,
            message_bytes: 4 << 20,
            streams_per_connection: 10_000,
            connections: 10_000,
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
            max_backoff: Duration::from_secs(30),
            max_response_bytes: 8 * 1024 * 1024,
        }
    }
}

impl VendorKind {
    fn name(self) -> &'static str {
        match self {
            Self::Immuta => "Immuta",
            Self::Kinetica => "Kinetica",
            Self::Claret => "Claret",
            Self::Datasaur => "Datasaur",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::Immuta => "immuta",
            Self::Kinetica => "kinetica",
            Self::Claret => "claret",
            Self::Datasaur => "datasaur",
        }
    }

    fn batches(self) -> bool {
        matches!(self, Self::Immuta | Self::Datasaur)
    }
}

impl Vendor {
    fn kind(&self) -> VendorKind {
        match self {
            Self::Immuta => VendorKind::Immuta,
            Self::Kinetica { .. } => VendorKind::Kinetica,
            Self::Claret { .. } => VendorKind::Claret,
            Self::Datasaur => VendorKind::Datasaur,
        }
    }

    /// The vendor's name, as people write it.
    pub fn name(&self) -> &'static str {
        self.kind().name()
    }

    /// The vendor's name, as the configuration and the contract write it.
    pub fn key(&self) -> &'static str {
        self.kind().key()
    }

    /// Whether one request can poll many jobs.
    pub fn batches(&self) -> bool {
        self.kind().batches()
    }
}

impl Credentials {
    /// The secret among them.
    pub fn secret(&self) -> Option<&Secret> {
        match self {
            Self::None => None,
            Self::ApiKey(secret)
            | Self::ApiKeyExchange(secret)
            | Self::Bearer(secret)
            | Self::Basic { password: secret, .. }
            | Self::Login { password: secret, .. }
            | Self::OAuthClient { client_secret: secret, .. } => Some(secret),
        }
    }

    /// The kind in words.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::None => "no credentials",
            Self::ApiKey(_) => "API key",
            Self::ApiKeyExchange(_) => "API key, exchanged",
            Self::Bearer(_) => "bearer token",
            Self::Basic { .. } => "user name and password",
            Self::Login { .. } => "email and password",
            Self::OAuthClient { .. } => "OAuth client",
        }
    }
}

#[cfg(test)]
mod tests;
