//! What an operator decides, validated: every value here can be used as it is.

use std::{
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use secrecy::SecretString;

use crate::adapters::{BaseUrl, ClientAuth};

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
    /// How long after a BatchGetStatuses without a deadline its unanswered
    /// elements become DEADLINE_EXCEEDED.
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

/// What callers may use at most; past any of them RESOURCE_EXHAUSTED.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Watches open at once.
    pub watches: usize,
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
    Kinetica,
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
    ApiKey(SecretString),
    /// An API key that is traded for a token.
    ApiKeyExchange(SecretString),
    /// `Authorization: Bearer`.
    Bearer(SecretString),
    /// HTTP Basic.
    Basic {
        /// User name.
        username: String,
        /// Password.
        password: SecretString,
    },
    /// Email and password, traded for a token.
    Login {
        /// Email.
        email: String,
        /// Password.
        password: SecretString,
    },
    /// OAuth client credentials, traded for a token.
    OAuthClient {
        /// Client id.
        client_id: String,
        /// Client secret.
        client_secret: SecretString,
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
    /// Most requests a second.
    pub requests_per_second: NonZeroU32,
    /// How long a job that a watcher asks for may be missing.
    pub not_found_grace: Duration,
    /// Longest back-off.
    pub max_backoff: Duration,
    /// Largest answer in bytes.
    pub max_response_bytes: usize,
}
