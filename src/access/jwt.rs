//! Verifies JSON Web Tokens, RFC 7519.
//!
//! Issuer, audience and algorithms come from the configuration alone. What a token says of
//! its own algorithm and key only chooses among those.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header, errors::ErrorKind};
use moka::sync::Cache;
use serde_json::Value;

use super::{AccessError, REMEMBERED, Refused, hash_token, jwks::IssuerKeys};
use crate::config::{self, TokenHash};

/// Verifies the tokens of one issuer.
#[derive(Debug)]
pub(super) struct JwtVerifier {
    keys: IssuerKeys,
    algorithms: Vec<Algorithm>,
    validation: Validation,
    claim: String,
    /// Tokens whose signature was verified.
    verified: Cache<TokenHash, Verified>,
}

#[derive(Clone, Debug)]
struct Verified {
    principal: Arc<str>,
    /// Seconds since 1970.
    expires: u64,
}

impl JwtVerifier {
    pub(super) fn new(configured: &config::Jwt) -> Result<Self, AccessError> {
        let algorithms: Vec<Algorithm> = configured.algorithms.iter().map(|name| algorithm(*name)).collect();
        let mut validation = Validation::default();
        validation.set_issuer(&[&configured.issuer]);
        validation.set_audience(&[&configured.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.validate_nbf = true;
        validation.leeway = configured.leeway.as_secs();
        Ok(Self {
            keys: IssuerKeys::new(configured)?,
            algorithms,
            validation,
            claim: configured.claim.clone(),
            verified: Cache::new(REMEMBERED.get() as u64),
        })
    }

    /// The caller that a token names; `None` if its key has to be looked for first.
    pub(super) fn verify_now(&self, token: &str) -> Option<Result<Arc<str>, Refused>> {
        let hash = hash_token(token);
        if let Some(Verified { principal, expires }) = self.verified.get(&hash) {
            let now = u64::try_from(Timestamp::now().as_second()).unwrap_or_default();
            return Some(if now < expires.saturating_add(self.validation.leeway) {
                Ok(principal)
            } else {
                self.verified.invalidate(&hash);
                Err(EXPIRED)
            });
        }
        let Ok(header) = decode_header(token) else {
            return Some(Err(Refused::Invalid("the token is not one that is known, nor a JWT")));
        };
        if !self.algorithms.contains(&header.alg) {
            return Some(Err(Refused::Invalid("its algorithm is not accepted")));
        }
        let mut validation = self.validation.clone();
        validation.algorithms = vec![header.alg];
        let keys = self.keys.current()?;
        let mut refused = None;
        for key in keys.candidates(header.kid.as_deref(), header.alg) {
            match decode::<HashMap<String, Value>>(token, key, &validation) {
                Ok(token) => return Some(self.accept(hash, &token.claims)),
                Err(error) => refused = Some(why(error.kind())),
            }
        }
        // A key of this name may have come since.
        refused.map(Err)
    }

    /// The caller that a token names; looks for its key.
    pub(super) async fn verify(&self, token: &str) -> Result<Arc<str>, Refused> {
        self.keys.look_again().await;
        self.verify_now(token).unwrap_or_else(|| {
            Err(match self.keys.current() {
                Some(_) => Refused::Invalid("the issuer has no such key"),
                None => Refused::Unverifiable,
            })
        })
    }

    /// Keeps the issuer's keys current until it is dropped.
    pub(super) async fn refresh_keys(&self) {
        self.keys.refresh().await;
    }

    fn accept(&self, hash: TokenHash, claims: &HashMap<String, Value>) -> Result<Arc<str>, Refused> {
        let name = claims.get(&self.claim).and_then(Value::as_str);
        let name = name.filter(|name| (1..=256).contains(&name.len()) && !name.contains(char::is_control));
        let name = name.ok_or(Refused::Invalid("it does not name its holder in the configured claim"))?;
        let principal: Arc<str> = format!("jwt:{name}").into();
        if let Some(expires) = claims.get("exp").and_then(Value::as_f64) {
            // Seconds may have a fraction.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
            let expires = expires as u64;
            self.verified.insert(hash, Verified { principal: Arc::clone(&principal), expires });
        }
        Ok(principal)
    }
}

const EXPIRED: Refused = Refused::Invalid("it has expired");

fn why(error: &ErrorKind) -> Refused {
    match error {
        ErrorKind::ExpiredSignature => EXPIRED,
        ErrorKind::ImmatureSignature => Refused::Invalid("it is not valid yet"),
        ErrorKind::InvalidIssuer => Refused::Invalid("it is from another issuer"),
        ErrorKind::InvalidAudience => Refused::Invalid("it is for another audience"),
        ErrorKind::MissingRequiredClaim(_) => Refused::Invalid("it has no exp, iss or aud"),
        _ => Refused::Invalid("its signature is not valid"),
    }
}

fn algorithm(name: config::Algorithm) -> Algorithm {
    use config::Algorithm as Configured;
    match name {
        Configured::RS256 => Algorithm::RS256,
        Configured::RS384 => Algorithm::RS384,
        Configured::RS512 => Algorithm::RS512,
        Configured::PS256 => Algorithm::PS256,
        Configured::PS384 => Algorithm::PS384,
        Configured::PS512 => Algorithm::PS512,
        Configured::ES256 => Algorithm::ES256,
        Configured::ES384 => Algorithm::ES384,
        Configured::EdDSA => Algorithm::EdDSA,
    }
}
