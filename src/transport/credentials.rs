//! How a backend's secret becomes an Authorization header.
//!
//! An [`Identity`] is what one secret gives, its token cache included. When the secret is
//! rotated it is replaced as a whole: requests that were sent before keep the old one, and
//! one that is rejected meanwhile is sent again with the new one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};

use super::{HttpClient, Permit, SetupError, redaction};
use crate::{
    config,
    job::{BackendFault, FaultKind},
    vendors::{Adapter, Elements, Scheme},
};

mod token_cache;

use token_cache::TokenCache;

/// One backend's credentials.
#[derive(Debug)]
pub(super) struct Credentials {
    configured: config::Credentials,
    current: Mutex<Arc<Identity>>,
}

/// What one secret gives.
#[derive(Debug)]
struct Identity {
    /// Counts the secrets of this backend.
    generation: u64,
    secret: Option<SecretString>,
    fixed: Option<HeaderValue>,
    tokens: Option<TokenCache>,
}

/// A header to send, and which version of the credentials it is.
#[derive(Clone, Debug)]
pub(super) struct Authorization {
    pub(super) header: Option<HeaderValue>,
    pub(super) version: Version,
    secret: Option<SecretString>,
}

/// Which secret, and which token of its cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    generation: u64,
    token: u64,
}

impl Credentials {
    pub(super) fn new(configured: &config::Credentials) -> Result<Self, SetupError> {
        let secret = configured.secret().map(|secret| secret.value().clone());
        let identity = Identity::new(configured, secret, 0)?;
        Ok(Self { configured: configured.clone(), current: Mutex::new(Arc::new(identity)) })
    }

    /// Takes another secret from the next request on, and drops the token of the one
    /// before.
    pub(super) fn rotate(&self, secret: SecretString) -> Result<(), SetupError> {
        let mut current = self.lock();
        let identity = Identity::new(&self.configured, Some(secret), current.generation + 1)?;
        *current = Arc::new(identity);
        Ok(())
    }

    /// What to send now; refreshes the token where none is valid.
    pub(super) async fn authorization(
        &self,
        adapter: &dyn Adapter,
        http: &HttpClient,
        permit: &mut Permit,
    ) -> Result<Authorization, BackendFault> {
        let mut identity = self.current();
        loop {
            let outcome = identity.authorization(adapter, http, permit).await;
            let current = self.current();
            match outcome {
                // The secret was rotated during the refresh.
                Err(BackendFault { kind: FaultKind::CredentialsRejected, .. })
                    if current.generation != identity.generation =>
                {
                    identity = current;
                }
                outcome => return outcome,
            }
        }
    }

    /// Drops what the vendor rejected, if it is a token. Returns whether a request with
    /// other credentials is possible: with another token, or with a newer secret.
    pub(super) fn invalidate(&self, version: Version) -> bool {
        let current = self.current();
        current.generation != version.generation || current.invalidate(version)
    }

    fn current(&self) -> Arc<Identity> {
        Arc::clone(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Identity>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Authorization {
    /// The outcome of a request that was sent with this, without any of its secrets.
    pub(super) fn redact(&self, outcome: Result<Elements, BackendFault>) -> Result<Elements, BackendFault> {
        let sent = self.header.as_ref().and_then(credential);
        let secret = self.secret.as_ref().map(ExposeSecret::expose_secret);
        let secrets: Vec<&str> = sent.into_iter().chain(secret).collect();
        match outcome {
            Ok(elements) => Ok(redaction::elements(elements, &secrets)),
            Err(fault) => Err(redaction::fault(fault, &secrets)),
        }
    }
}

impl Identity {
    fn new(
        configured: &config::Credentials,
        secret: Option<SecretString>,
        generation: u64,
    ) -> Result<Self, SetupError> {
        let exposed = secret.as_ref().map(ExposeSecret::expose_secret).unwrap_or_default();
        let fixed = match configured.scheme() {
            None | Some(Scheme::Exchange) => None,
            Some(Scheme::Bare) => Some(exposed.to_owned()),
            Some(Scheme::Bearer) => Some(format!("Bearer {exposed}")),
            Some(Scheme::Basic { username }) => {
                Some(format!("Basic {}", BASE64_STANDARD.encode(format!("{username}:{exposed}"))))
            }
        };
        let header = |text: String| {
            sensitive(&text)
                .ok_or_else(|| SetupError("a secret holds characters that a header can't".to_owned()))
        };
        let exchanges = configured.scheme() == Some(&Scheme::Exchange);
        let tokens = exchanges.then(|| TokenCache::new(generation));
        Ok(Self { generation, fixed: fixed.map(header).transpose()?, secret, tokens })
    }

    async fn authorization(
        &self,
        adapter: &dyn Adapter,
        http: &HttpClient,
        permit: &mut Permit,
    ) -> Result<Authorization, BackendFault> {
        let (Some(tokens), Some(secret)) = (&self.tokens, &self.secret) else {
            let version = Version { generation: self.generation, token: 0 };
            return Ok(Authorization { header: self.fixed.clone(), version, secret: self.secret.clone() });
        };
        let (header, version) = tokens.header(adapter, secret, http, permit).await?;
        Ok(Authorization { header: Some(header), version, secret: Some(secret.clone()) })
    }

    fn invalidate(&self, version: Version) -> bool {
        let Some(tokens) = &self.tokens else { return false };
        tokens.invalidate(version);
        true
    }
}

/// What follows the scheme word, or the whole where there is none.
fn credential(header: &HeaderValue) -> Option<&str> {
    header.to_str().ok()?.rsplit(' ').next()
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
