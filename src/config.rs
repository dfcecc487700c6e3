//! What an operator decides, validated: every value here can be used as it is.
//!
//! A configuration is a TOML file in which the environment may replace any key.
//! It is read in three steps, each in a module of its own: `overrides` puts the
//! environment's values into the file's table, `schema` refuses keys that do not
//! exist, and `file` (with `credentials` and `reader`) turns the table into the
//! types below. All of them collect what is wrong instead of stopping at the first
//! problem. Each secret keeps where it was found, since it may change there.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    num::{NonZeroU32, NonZeroUsize},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use thiserror::Error;

use crate::vendors::{BaseUrl, ClientAuth, Encoding};

mod credentials;
mod environment;
mod file;
mod overrides;
mod reader;
mod schema;
mod secret;

pub use environment::{EnvFile, Environment};
pub use reader::parse_duration;
pub use secret::{Secret, Source};

/// A whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The gRPC server.
    pub server: Server,
    /// What callers may use at most.
    pub limits: Limits,
    /// The backends, sorted by name.
    pub backends: Vec<Backend>,
}

/// The gRPC server.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// TLS, where the server ends it itself.
    pub tls: Option<Tls>,
    /// How long after a `BatchGetStatuses` without a deadline its unanswered
    /// elements become `DEADLINE_EXCEEDED`.
    pub batch_deadline: Duration,
    /// How long a poll waits for others to share its upstream request.
    pub collection_window: Duration,
}

/// Files of the server's TLS identity.
#[derive(Clone, Debug)]
pub struct Tls {
    /// PEM chain.
    pub cert: PathBuf,
    /// PEM key.
    pub key: PathBuf,
    /// Where set, clients must show a certificate from here.
    pub client_ca: Option<PathBuf>,
}

/// What callers may use at most; past any of them `RESOURCE_EXHAUSTED`.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Watches open at once.
    pub watches: usize,
    /// Watches open at once by one caller, told by its address.
    pub watches_per_caller: usize,
    /// Watches open at once in one WatchJobs.
    pub watches_per_call: usize,
    /// Jobs in one batch.
    pub batch_size: usize,
    /// HTTP/2 streams on one connection.
    pub streams_per_connection: u32,
    /// Connections open at once.
    pub connections: usize,
}

/// One configured deployment of a vendor.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Its key.
    pub name: Arc<str>,
    /// Whose API it is, with what only that vendor has.
    pub vendor: Vendor,
    /// Where it is.
    pub base_url: BaseUrl,
    /// How the gateway proves who it is.
    pub credentials: Credentials,
    /// How it is asked.
    pub poll: Poll,
}

/// Whose API it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vendor {
    /// Immuta.
    Immuta,
    /// Kinetica.
    Kinetica {
        /// How requests and answers are written.
        encoding: Encoding,
        /// Clusters to ask while the one at `base_url` can't answer, in this order.
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

/// How the gateway proves who it is to a vendor.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// Not at all.
    None,
    /// `Authorization: <key>`, with no scheme word.
    ApiKey(Secret),
    /// An API key that is traded for a token.
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
    /// Email and password, traded for a token.
    Login {
        /// Email.
        email: String,
        /// Password.
        password: Secret,
    },
    /// OAuth client credentials, traded for a token.
    OAuthClient {
        /// Client id.
        client_id: String,
        /// Client secret.
        client_secret: Secret,
        /// How both are sent.
        client_auth: ClientAuth,
    },
}

/// How a backend is asked.
#[derive(Clone, Debug)]
pub struct Poll {
    /// Shortest cadence.
    pub min_interval: Duration,
    /// Longest cadence.
    pub max_interval: Duration,
    /// Longest wait for one answer.
    pub timeout: Duration,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Most jobs in one request, where the vendor has a batch call.
    pub max_batch: NonZeroUsize,
    /// Most requests at once.
    pub max_concurrency: NonZeroUsize,
    /// Most requests in any one second, whatever they are for.
    pub requests_per_second: NonZeroU32,
    /// How long a job that a watcher asks for may be missing.
    pub not_found_grace: Duration,
    /// Longest back-off.
    pub max_backoff: Duration,
    /// Largest answer in bytes.
    pub max_response_bytes: usize,
    /// Whether the vendor is asked to hold requests while few jobs are followed.
    pub long_poll: bool,
}

/// Why a configuration can't be used: everything that is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct InvalidConfig {
    /// At least one.
    pub problems: Vec<Problem>,
}

/// One problem a line.
impl fmt::Display for InvalidConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().enumerate() {
            let line_break = if n == 0 { "" } else { "\n" };
            write!(f, "{line_break}{problem}")?;
        }
        Ok(())
    }
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key's full path, such as `backends.claret.tenant`; or the file or the
    /// environment variable, where the problem lies there.
    pub subject: String,
    /// What is wrong with it and what to write instead; never a secret.
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
    /// Every problem at once.
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
    /// Every problem at once.
    pub fn parse(text: &str, env: impl Into<Environment>) -> Result<Self, InvalidConfig> {
        file::read(text, &env.into())
    }

    /// What works and is probably not meant; one line each.
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
                "server.listen is {} without server.tls: anyone who reaches it can ask for every backend's jobs",
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
            batch_deadline: Duration::from_secs(30),
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
            long_poll: false,
        }
    }
}

impl Vendor {
    /// The vendor's name, as people write it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Immuta => "Immuta",
            Self::Kinetica { .. } => "Kinetica",
            Self::Claret { .. } => "Claret",
            Self::Datasaur => "Datasaur",
        }
    }

    /// The vendor's name, as the configuration and the contract write it.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Immuta => "immuta",
            Self::Kinetica { .. } => "kinetica",
            Self::Claret { .. } => "claret",
            Self::Datasaur => "datasaur",
        }
    }

    /// Whether one request can ask for many jobs.
    pub fn batches(&self) -> bool {
        matches!(self, Self::Immuta | Self::Datasaur)
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

    /// What they are, in words; no secret.
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
