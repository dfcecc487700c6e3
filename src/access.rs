//! Who calls, and what they may do.
//!
//! [`Access::identify`] turns a call's bearer token or client certificate into a [`Grant`]:
//! the caller's name and the first policy that names it. Whether the policy allows a call
//! depends on names alone, so that an answer never tells whether a backend exists that the
//! caller may not use.

use std::{
    net::IpAddr,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use http::{HeaderMap, header};
use thiserror::Error;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::config;

mod certificate;
mod jwks;
mod jwt;
mod limits;
mod policy;
mod token;

pub use certificate::names_of_certificate;
pub use config::Right;
pub use limits::{RateExceeded, Usage};
pub use policy::{Grant, Policy};
pub use token::{generate_token, hash_token};

use jwt::JwtVerifier;
use limits::Usages;
use policy::Proof;
use token::StaticTokens;

/// Identifies callers and finds their policies.
#[derive(Debug)]
pub struct Access {
    tokens: StaticTokens,
    jwt: Option<(config::Jwt, Arc<JwtVerifier>)>,
    certificates: bool,
    policies: Vec<Arc<Policy>>,
    usages: Usages,
    /// Nobody is identified: everybody may do everything.
    open: bool,
    version: u64,
    replaced: CancellationToken,
}

/// Why access can't be set up.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct AccessError(String);

/// Why a call is refused before it is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// It does not say who calls.
    #[error("the call has no credentials; send \"authorization: Bearer TOKEN\"{}", if *.certificates { " or a client certificate" } else { "" })]
    Anonymous {
        /// Whether a client certificate would do.
        certificates: bool,
    },
    /// What it says of the caller can't be accepted.
    #[error("the call's credentials are not accepted: {0}")]
    Invalid(&'static str),
    /// Whether they are valid can't be found out now.
    #[error("the call's credentials can't be verified now: the issuer's keys can't be had")]
    Unverifiable,
}

/// What a call says of its caller.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// Its metadata.
    pub headers: &'a HeaderMap,
    /// The names in its client certificate, which the server has verified.
    pub certificate: Option<&'a str>,
    /// Where it comes from.
    pub address: Option<IpAddr>,
}

/// The version of the next [`Access`].
static VERSIONS: AtomicU64 = AtomicU64::new(0);

/// The name of a caller that is not identified.
const ANONYMOUS: &str = "anonymous";

impl Access {
    /// Reads what `configured` names.
    ///
    /// # Errors
    /// A file that can't be used.
    pub fn new(configured: &config::Access) -> Result<Self, AccessError> {
        Self::build(configured, Usages::default(), None)
    }

    /// The same after a change of the configuration. What callers have used lately counts,
    /// and the keys of an issuer that is configured as before stay known.
    ///
    /// # Errors
    /// A file that can't be used.
    pub fn renewed(&self, configured: &config::Access) -> Result<Self, AccessError> {
        let known = self.jwt.as_ref().filter(|(jwt, _)| configured.jwt.as_ref() == Some(jwt));
        Self::build(configured, self.usages.clone(), known.cloned())
    }

    fn build(
        configured: &config::Access,
        usages: Usages,
        known: Option<(config::Jwt, Arc<JwtVerifier>)>,
    ) -> Result<Self, AccessError> {
        let verifier = |jwt: &config::Jwt| Ok((jwt.clone(), Arc::new(JwtVerifier::new(jwt)?)));
        let jwt = match known {
            Some(known) => Some(known),
            None => configured.jwt.as_ref().map(verifier).transpose()?,
        };
        Ok(Self {
            tokens: StaticTokens::new(configured),
            jwt,
            certificates: configured.certificates,
            policies: configured.policies.iter().map(|policy| Arc::new(Policy::new(policy))).collect(),
            usages,
            open: !configured.is_configured(),
            version: VERSIONS.fetch_add(1, Relaxed),
            replaced: CancellationToken::new(),
        })
    }

    /// Tells it from every other of this process.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Another has taken its place: open calls have to be looked at again.
    pub fn retire(&self) {
        self.replaced.cancel();
    }

    /// Completes when another has taken its place.
    pub fn replaced(&self) -> WaitForCancellationFutureOwned {
        self.replaced.clone().cancelled_owned()
    }

    /// Whether an open call may go on that began with `grant`, perhaps under an earlier
    /// configuration: its caller is still identified by what it has shown, and may do all
    /// that it could.
    pub fn keeps(&self, grant: &Grant) -> bool {
        if self.open {
            return true;
        }
        let Some((name, proof)) = grant.identity() else { return false };
        let is_identified = match proof {
            Proof::None => true,
            Proof::Certificate => self.certificates,
            Proof::Token(hash) => self.tokens.holder_of(hash) == Some(name),
            Proof::Jwt(verifier) => {
                self.jwt.as_ref().is_some_and(|(_, current)| Arc::ptr_eq(current, verifier))
            }
        };
        is_identified && grant.is_within(self.policy(name).map(|policy| &**policy))
    }

    /// Whether everybody may do everything.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Who calls, if that is known without waiting; `None` where the issuer's keys have to
    /// be looked at first.
    pub fn identify_now(&self, evidence: Evidence<'_>) -> Option<Result<Grant, Refused>> {
        if self.open {
            return Some(Ok(Grant::unrestricted(evidence.address)));
        }
        let Some(token) = bearer_token(evidence.headers) else {
            return Some(self.without_token(evidence));
        };
        let token = match token {
            Ok(token) => token,
            Err(refused) => return Some(Err(refused)),
        };
        if let Some((name, hash)) = self.tokens.holder(token) {
            return Some(self.grant(name, Proof::Token(hash), evidence.address));
        }
        let Some((_, jwt)) = &self.jwt else {
            return Some(Err(Refused::Invalid("the token is unknown")));
        };
        let name = jwt.verify_now(token)?;
        Some(name.and_then(|name| self.grant(&name, Proof::Jwt(Arc::clone(jwt)), evidence.address)))
    }

    /// Who calls; waits for the issuer's keys.
    ///
    /// # Errors
    /// Why the call is refused.
    pub async fn identify(&self, token: &str, address: Option<IpAddr>) -> Result<Grant, Refused> {
        let Some((_, jwt)) = &self.jwt else { return Err(Refused::Invalid("the token is unknown")) };
        let name = jwt.verify(token).await?;
        self.grant(&name, Proof::Jwt(Arc::clone(jwt)), address)
    }

    /// Keeps the issuer's keys current until it is dropped.
    pub async fn refresh(&self) {
        match &self.jwt {
            Some((_, jwt)) => jwt.refresh_keys().await,
            None => std::future::pending().await,
        }
    }

    fn without_token(&self, evidence: Evidence<'_>) -> Result<Grant, Refused> {
        match evidence.certificate.filter(|_| self.certificates) {
            Some(name) => self.grant(name, Proof::Certificate, evidence.address),
            None => self.grant(ANONYMOUS, Proof::None, evidence.address),
        }
    }

    /// What the caller of this name may do. Nothing is granted by default. A caller without
    /// credentials is refused at once.
    fn grant(&self, name: &str, proof: Proof, address: Option<IpAddr>) -> Result<Grant, Refused> {
        let anonymous = name == ANONYMOUS;
        match self.policy(name) {
            Some(policy) => {
                let address = anonymous.then_some(address).flatten();
                Ok(Grant::new(name, proof, address, policy, &self.usages))
            }
            None if anonymous => Err(Refused::Anonymous { certificates: self.certificates }),
            None => Ok(Grant::nothing(name, proof)),
        }
    }

    fn policy(&self, name: &str) -> Option<&Arc<Policy>> {
        self.policies.iter().find(|policy| policy.names(name))
    }
}

/// The bearer token of a call, if it has an authorization at all.
pub fn bearer_token(headers: &HeaderMap) -> Option<Result<&str, Refused>> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return Some(Err(Refused::Invalid("there are several authorization entries")));
    }
    let token = value.to_str().ok().and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start_matches(' '))
    });
    let token = token.filter(|token| !token.is_empty() && token.len() <= LONGEST_TOKEN);
    Some(token.ok_or(Refused::Invalid("the authorization is not \"Bearer TOKEN\"")))
}

/// Longest bearer token in bytes.
const LONGEST_TOKEN: usize = 16 << 10;

/// How many callers' use is remembered, and how many verified tokens.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(10_000).expect("it is not zero");

#[cfg(test)]
mod tests;
