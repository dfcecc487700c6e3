//! The keys of `[cluster]`: how serde reads them, and their schema.

use std::{path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use toml::Value;

use super::{
    schema,
    values::{self, Milliseconds, Number, SECOND},
};

/// Most replicas of one cluster.
const MOST_REPLICAS: u64 = 1000;

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
    pub(super) nats: Option<Vec<String>>,
    /// Name of the cluster: replicas with one name share the work.
    pub(super) name: Option<String>,
    /// How many replicas run at most: each backend's requests_per_second is split between them.
    #[serde(deserialize_with = "replicas")]
    #[schemars(range(min = 1, max = 1000))]
    pub(super) replicas: Option<u32>,
    /// Name of this replica; that of the host unless set.
    pub(super) member: Option<String>,
    /// How this replica signs in at NATS.
    #[serde(deserialize_with = "credential_keys")]
    pub(super) credentials: Option<ClusterCredentialKeys>,
    /// TLS to the NATS servers.
    #[serde(deserialize_with = "tls")]
    pub(super) tls: Option<ClusterTls>,
    /// How long an owner may be silent before another replica takes its backends.
    #[serde(with = "Milliseconds::<{ 3 * SECOND }, { 300 * SECOND }>")]
    pub(super) lease: Duration,
    /// Share of requests_per_second and max_concurrency that is split evenly between the
    /// replicas, for when they are alone. A backend's owner has the rest.
    #[serde(deserialize_with = "values::ratio")]
    #[schemars(range(min = 0, max = 1))]
    pub(super) isolated_share: f64,
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
pub(super) struct ClusterCredentialKeys {
    /// A credentials file, with a user's JWT and its key.
    #[schemars(schema_with = "schema::secret")]
    pub(super) creds: Option<Value>,
    /// The seed of an NKey.
    #[schemars(schema_with = "schema::secret")]
    pub(super) nkey: Option<Value>,
    /// The name of a user.
    pub(super) user: Option<String>,
    /// The user's password.
    #[schemars(schema_with = "schema::secret")]
    pub(super) password: Option<Value>,
    /// A token.
    #[schemars(schema_with = "schema::secret")]
    pub(super) token: Option<Value>,
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
