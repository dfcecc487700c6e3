//! Who may call, and what each caller may do.

use std::{borrow::Cow, collections::BTreeMap, fmt, num::NonZeroU32, path::PathBuf, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{
    Proxies, Tls,
    problems::Problems,
    values::{self, Bytes, HOUR, KIB, Milliseconds, Number, TIB},
};
use crate::vendors::BaseUrl;

/// How callers are identified, and what each may do. Without any way to identify callers,
/// everybody may do everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Access {
    /// Bearer tokens, by the name of the caller that holds them.
    #[serde(deserialize_with = "values::table")]
    pub tokens: BTreeMap<String, Token>,
    /// Bearer tokens that an issuer signs.
    #[serde(deserialize_with = "values::optional_table")]
    pub jwt: Option<Jwt>,
    /// Whether a client certificate identifies its caller.
    #[serde(deserialize_with = "crate::vendors::flag")]
    pub certificates: bool,
    /// Who may do what. The first one that names a caller holds.
    pub policies: Vec<Policy>,
}

/// One caller's bearer tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["sha256"]))]
pub struct Token {
    /// What `jobwatch token new` printed: the hash of each token that is accepted.
    pub sha256: Vec<TokenHash>,
}

/// The SHA-256 hash of a token.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash(pub [u8; 32]);

/// Bearer tokens that an issuer signs, RFC 7519.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["issuer", "audience", "algorithms"]))]
pub struct Jwt {
    /// Who has to have issued a token: its `iss`.
    pub issuer: String,
    /// For whom a token has to be: one of its `aud`.
    pub audience: String,
    /// The signature algorithms that are accepted.
    pub algorithms: Vec<Algorithm>,
    /// File with the issuer's public keys, a JWK set.
    pub jwks_file: Option<PathBuf>,
    /// URL of the same.
    pub jwks_url: Option<BaseUrl>,
    /// The claim that names the caller.
    pub claim: String,
    /// The proxies on the way to `jwks_url`.
    #[serde(skip)]
    pub proxies: Proxies,
    /// How far the issuer's clock may be off.
    #[serde(with = "Milliseconds::<0, HOUR>")]
    pub leeway: Duration,
}

/// A signature algorithm with a public key. One with a shared secret is not among them: a
/// public key could be taken for the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[expect(missing_docs, reason = "the names of RFC 7518")]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

/// What some callers may do.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["principals"]))]
pub struct Policy {
    /// The callers, such as `token:ci`, `jwt:*` or `spiffe://example.org/*`.
    pub principals: Vec<String>,
    /// The names of backends, such as `immuta-*`.
    pub backends: Vec<String>,
    /// What may be done there.
    pub rights: Vec<Right>,
    /// Calls that begin in a second.
    #[serde(deserialize_with = "optional_number")]
    #[schemars(with = "Number<1, 1_000_000_000>")]
    pub calls_per_second: Option<NonZeroU32>,
    /// Watches and waiting calls open at once; `limits.watches_per_caller` by default.
    #[serde(deserialize_with = "optional_number")]
    #[schemars(with = "Number<1, 1_000_000_000>")]
    pub watches: Option<NonZeroU32>,
    /// Downloads at once.
    #[serde(deserialize_with = "optional_number")]
    #[schemars(with = "Number<1, 1_000_000_000>")]
    pub downloads: Option<NonZeroU32>,
    /// Bytes of all downloads in a second.
    #[serde(deserialize_with = "optional_bytes", serialize_with = "Bytes::<{ 64 * KIB }, TIB>::serialize")]
    #[schemars(with = "Bytes<{ 64 * KIB }, TIB>")]
    pub download_bytes_per_second: Option<NonZeroU32>,
}

/// Something that a caller may do at a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Right {
    /// Read and watch the statuses of its jobs, and see it in the list of backends.
    Read,
    /// Download its jobs' files.
    Download,
    /// See how it is polled, and by whom.
    Admin,
}

impl Default for Jwt {
    fn default() -> Self {
        Self {
            issuer: String::new(),
            audience: String::new(),
            algorithms: Vec::new(),
            jwks_file: None,
            jwks_url: None,
            proxies: Proxies::None,
            claim: "sub".to_owned(),
            leeway: Duration::from_secs(30),
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            principals: Vec::new(),
            backends: vec!["*".to_owned()],
            rights: vec![Right::Read],
            calls_per_second: None,
            watches: None,
            downloads: None,
            download_bytes_per_second: None,
        }
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash")
    }
}

/// In hexadecimal digits.
impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl<'de> Deserialize<'de> for TokenHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        from_hex(text.trim()).map(Self).ok_or_else(|| {
            D::Error::custom(
                "holds something else than 64 hexadecimal digits; write what jobwatch token new prints",
            )
        })
    }
}

/// As it is read.
impl Serialize for TokenHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for TokenHash {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "TokenHash".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^ *[0-9A-Fa-f]{64} *$" })
    }
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let digits = text.bytes().map(|byte| char::from(byte).to_digit(16)).collect::<Option<Vec<u32>>>()?;
    let bytes = digits.chunks_exact(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).ok());
    (digits.len() == 64).then(|| bytes.collect::<Option<Vec<u8>>>())??.try_into().ok()
}

fn optional_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NonZeroU32>, D::Error> {
    Number::<1, 1_000_000_000>::deserialize(deserializer).map(Some)
}

fn optional_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NonZeroU32>, D::Error> {
    Bytes::<{ 64 * KIB }, TIB>::deserialize(deserializer)
        .map(|bytes: u64| NonZeroU32::new(u32::try_from(bytes).unwrap_or(u32::MAX)))
}

impl Access {
    /// Whether callers are identified at all.
    pub fn is_configured(&self) -> bool {
        !self.tokens.is_empty() || self.jwt.is_some() || self.certificates || !self.policies.is_empty()
    }

    /// Reports what can't be used.
    pub(super) fn check(&self, tls: Option<&Tls>, problems: &mut Problems) {
        for (name, token) in &self.tokens {
            if token.sha256.is_empty() {
                let text = "is missing; write the hash that jobwatch token new prints, as in [\"9f86..\"]";
                problems.add(format!("access.tokens.{name}.sha256"), text);
            }
        }
        if let Some(jwt) = &self.jwt {
            jwt.check(problems);
        }
        if self.certificates && tls.is_none_or(|tls| tls.client_ca.is_none()) {
            let text = "needs server.tls.client_ca, which says whose certificates are accepted; write both";
            problems.add("access.certificates", text);
        }
        for (index, policy) in self.policies.iter().enumerate() {
            policy.check(&format!("access.policies[{index}]"), problems);
        }
        if self.is_configured() && self.policies.is_empty() {
            let text = "is missing: nobody may do anything; write a policy, such as [[access.policies]] with \
                        principals = [\"token:*\"]";
            problems.add("access.policies", text);
        }
    }
}

impl Jwt {
    fn check(&self, problems: &mut Problems) {
        let mut missing = |key: &str, example: &str| {
            problems.add(format!("access.jwt.{key}"), format!("is missing; write {example}"));
        };
        if self.issuer.is_empty() {
            missing("issuer", "the iss of the tokens, such as \"https://login.example\"");
        }
        if self.audience.is_empty() {
            missing("audience", "the aud of the tokens, such as \"jobwatch\"");
        }
        if self.algorithms.is_empty() {
            missing("algorithms", "those that the issuer uses, such as [\"RS256\"]");
        }
        if self.claim.is_empty() {
            missing("claim", "the claim that names the caller, such as \"sub\"");
        }
        match (&self.jwks_file, &self.jwks_url) {
            (None, None) => missing("jwks_url", "the URL of the issuer's keys, or jwks_file"),
            (Some(_), Some(_)) => {
                problems.add("access.jwt.jwks_file", "stands beside jwks_url; remove one of them");
            }
            (Some(file), None) => {
                if let Err(error) = std::fs::File::open(file) {
                    let text = format!("is the file {}, which can't be read: {error}", file.display());
                    problems.add("access.jwt.jwks_file", text);
                }
            }
            (None, Some(url)) if !url.is_https() && !url.is_loopback() => {
                let text = "is not encrypted, so that anybody on the way could replace the keys; write an https:// URL";
                problems.add("access.jwt.jwks_url", text);
            }
            (None, Some(_)) => {}
        }
    }
}

/// How the name of a caller begins.
const PRINCIPALS: [&str; 5] = ["token:", "jwt:", "spiffe://", "dns:", "subject:"];

impl Policy {
    fn check(&self, path: &str, problems: &mut Problems) {
        if self.principals.is_empty() {
            let text = "is missing; write the callers, such as [\"token:ci\"], or [\"*\"] for all";
            problems.add(format!("{path}.principals"), text);
        }
        for principal in &self.principals {
            let known = PRINCIPALS.iter().any(|prefix| principal.starts_with(prefix));
            if !known && !matches!(principal.as_str(), "*" | "anonymous") {
                let text = format!(
                    "holds {principal:?}; write token:NAME, jwt:NAME, spiffe://NAME, dns:NAME, subject:NAME, anonymous or *"
                );
                problems.add(format!("{path}.principals"), text);
            }
        }
        for (key, is_empty) in [("backends", self.backends.is_empty()), ("rights", self.rights.is_empty())] {
            if is_empty {
                problems.add(format!("{path}.{key}"), "is empty; name at least one, or remove the policy");
            }
        }
    }
}
