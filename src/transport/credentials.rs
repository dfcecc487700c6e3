//! How a backend's secret becomes an Authorization header.
//!
//! An [`Identity`] is what one secret gives, its token cache and its login budget included.
//! When the secret is rotated it is replaced as a whole: requests that were sent before
//! keep the old one, and one that is rejected meanwhile is sent again with the new one.
//!
//! Every request asks here for its header, and reports here what became of it: polls,
//! downloads, health checks and failovers share the budget. A rejected download pauses
//! further downloads only, since it may be about the file.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::HeaderValue;
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use super::{Backoff, HttpClient, Permit, SetupError, redaction};
use crate::{
    config,
    job::{BackendFault, FaultKind, JobState, Observation},
    vendors::{Adapter, Elements, Scheme, secrets_in},
};

mod login_budget;
mod shared_budget;
mod token_cache;

use shared_budget::{Origin, SharedBudget};
use token_cache::{Standing, TokenCache};

/// One backend's credentials.
#[derive(Debug)]
pub(super) struct Credentials {
    configured: config::Credentials,
    waits: Waits,
    current: Mutex<Arc<Identity>>,
    /// For tokens, where another origin than the backend's gives them.
    elsewhere: Option<HttpClient>,
}

/// How logins are spaced.
#[derive(Clone, Copy, Debug)]
struct Waits {
    /// The wait after a rejected secret.
    rejected: Duration,
    /// Where a login fails otherwise.
    failed: Backoff,
}

/// What one secret gives.
#[derive(Debug)]
struct Identity {
    /// Counts the secrets of this backend.
    generation: u64,
    secret: Option<Arc<SecretString>>,
    fixed: Option<HeaderValue>,
    tokens: Option<TokenCache>,
    /// The budget of the secret.
    polls: SharedBudget,
    /// Downloads need this one, too.
    files: SharedBudget,
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A poll or a health check.
    Poll,
    /// A file.
    File,
}

/// A header to send, and which version of the credentials it is.
#[derive(Clone, Debug)]
pub(super) struct Authorization {
    pub(super) header: Option<HeaderValue>,
    version: Version,
    secret: Option<Arc<SecretString>>,
    purpose: Purpose,
    /// When the request was authorized, and when the vendor gave the token.
    began: Instant,
    token_since: Option<Instant>,
}

/// Which secret, and which token of its cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    generation: u64,
    token: u64,
}

/// A secret that the vendor rejects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedCredentials {
    /// Its key and its place, such as `credentials.api_key from the variable IMMUTA_KEY`;
    /// never its content.
    pub secret: String,
    /// When it was last rejected.
    pub reject_time: Timestamp,
    /// When it is sent again.
    pub retry_at: Instant,
}

impl Credentials {
    /// `elsewhere` is the client for tokens, where another origin gives them.
    pub(super) fn new(backend: &config::Backend, elsewhere: Option<HttpClient>) -> Result<Self, SetupError> {
        let config::Backend { name, credentials: configured, poll, .. } = backend;
        let failed = Backoff { min: poll.min_interval, max: poll.max_backoff };
        let waits = Waits { rejected: poll.login_backoff, failed };
        let secret = configured.secret().map(config::Secret::origin).unwrap_or_default();
        let budget = |purpose| {
            let origin = Origin { backend: Arc::clone(name), secret: secret.clone(), purpose };
            SharedBudget::new(Arc::new(origin), waits.rejected, waits.failed)
        };
        let secret = configured.secret().map(|secret| secret.value().clone());
        let budgets = (budget("polls"), budget("downloads"));
        let identity = Identity::new(configured, secret, 0, budgets)?;
        let current = Mutex::new(Arc::new(identity));
        Ok(Self { configured: configured.clone(), waits, current, elsewhere })
    }

    /// Takes another secret from the next request on, and drops the token and the login
    /// budget of the one before.
    pub(super) fn rotate(&self, secret: SecretString) -> Result<(), SetupError> {
        let mut current = self.lock();
        let Waits { rejected, failed } = self.waits;
        let budgets = (current.polls.renewed(rejected, failed), current.files.renewed(rejected, failed));
        let identity = Identity::new(&self.configured, Some(secret), current.generation + 1, budgets)?;
        *current = Arc::new(identity);
        Ok(())
    }

    /// What to send now; refreshes the token where none is valid.
    ///
    /// # Errors
    /// The vendor gives no token, or the login budget allows no request yet.
    pub(super) async fn authorization(
        &self,
        adapter: &dyn Adapter,
        http: &HttpClient,
        purpose: Purpose,
        permit: &mut Permit,
    ) -> Result<Authorization, BackendFault> {
        let mut identity = self.current();
        let http = self.elsewhere.as_ref().unwrap_or(http);
        loop {
            let outcome = identity.authorization(adapter, http, purpose, permit).await;
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

    /// Notes what became of a request: `fault` is what it failed with, if it did. Returns
    /// whether to send it again, with another token or a newer secret; never for one that
    /// `is_repeat`.
    pub(super) fn judge(
        &self,
        authorization: &Authorization,
        fault: Option<&BackendFault>,
        is_repeat: bool,
    ) -> bool {
        let rejection = fault.filter(|fault| fault.kind == FaultKind::CredentialsRejected);
        let identity = self.current();
        if identity.generation != authorization.version.generation {
            return rejection.is_some() && !is_repeat;
        }
        if identity.secret.is_none() {
            return false;
        }
        match (fault, rejection) {
            (None, _) => identity.accepted(authorization),
            (Some(_), None) => identity.undecided(authorization),
            (Some(_), Some(rejection)) => return identity.rejected(authorization, rejection, is_repeat),
        }
        false
    }

    /// Notes that a request ended without saying anything of the credentials.
    pub(super) fn undecided(&self, authorization: &Authorization) {
        let identity = self.current();
        if identity.generation == authorization.version.generation && identity.secret.is_some() {
            identity.undecided(authorization);
        }
    }

    /// The secret, while the vendor rejects it.
    pub(super) fn rejected(&self) -> Option<RejectedCredentials> {
        let identity = self.current();
        let now = Instant::now();
        let rejection = |budget: &SharedBudget| budget.lock().rejection();
        let (rejected_at, retry_at) = rejection(&identity.polls).or_else(|| rejection(&identity.files))?;
        let ago = SignedDuration::try_from(now.saturating_duration_since(rejected_at)).unwrap_or_default();
        let secret = self.configured.secret().map(config::Secret::origin).unwrap_or_default();
        Some(RejectedCredentials { secret, reject_time: Timestamp::now() - ago, retry_at })
    }

    /// Whether a part of the secret has fewer characters than these.
    pub(super) fn has_secret_below(&self, fewest: usize) -> bool {
        let identity = self.current();
        let parts = identity.secret.as_deref().into_iter().flat_map(secrets_in);
        parts.filter(|part| !part.is_empty()).any(|part| part.chars().count() < fewest)
    }

    /// Until when no poll can be sent because of the credentials.
    pub(super) fn paused_until(&self) -> Option<Instant> {
        self.current().polls.lock().pause(Instant::now()).map(|pause| pause.until)
    }

    /// The same for downloads.
    pub(super) fn downloads_paused_until(&self) -> Option<Instant> {
        let identity = self.current();
        let files = identity.files.lock().pause(Instant::now()).map(|pause| pause.until);
        files.max(self.paused_until())
    }

    fn current(&self) -> Arc<Identity> {
        Arc::clone(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Identity>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Authorization {
    /// What was sent as a credential, and the secret behind it.
    pub(super) fn secrets(&self) -> Vec<&str> {
        let mut secrets: Vec<&str> = self.secret.as_deref().into_iter().flat_map(secrets_in).collect();
        let is_secret =
            |header: &&HeaderValue| secrets.iter().any(|secret| secret.as_bytes() == header.as_bytes());
        // One that is sent as it stands may have spaces.
        let sent = self.header.as_ref().filter(|header| !is_secret(header)).and_then(credential);
        secrets.extend(sent);
        secrets
    }

    /// What was read of the response to a request with this, without its secrets in a state
    /// that is unknown.
    pub(super) fn redact_observation(&self, mut seen: Observation) -> Observation {
        if seen.state == JobState::Unknown {
            redaction::unknown_state(&mut seen.vendor_state, &self.secrets());
        }
        seen
    }

    /// The outcome of a request that was sent with this, without any of its secrets.
    pub(super) fn redact(&self, outcome: Result<Elements, BackendFault>) -> Result<Elements, BackendFault> {
        if outcome.as_ref().is_ok_and(|elements| elements.as_slice().iter().all(Result::is_ok)) {
            return outcome;
        }
        let secrets = self.secrets();
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
        (polls, files): (SharedBudget, SharedBudget),
    ) -> Result<Self, SetupError> {
        let exposed = secret.as_ref().map(ExposeSecret::expose_secret).unwrap_or_default();
        let fixed = match configured.scheme() {
            None | Some(Scheme::Exchange) => None,
            Some(Scheme::Bare) => Some(exposed.to_owned()),
            Some(Scheme::Bearer) => Some(format!("Bearer {exposed}")),
            Some(Scheme::Word(word)) => Some(format!("{word} {exposed}")),
            Some(Scheme::BasicUsername) => {
                Some(format!("Basic {}", BASE64_STANDARD.encode(format!("{exposed}:"))))
            }
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
        let fixed = fixed.map(header).transpose()?;
        Ok(Self { generation, secret: secret.map(Arc::new), fixed, tokens, polls, files })
    }

    async fn authorization(
        &self,
        adapter: &dyn Adapter,
        http: &HttpClient,
        purpose: Purpose,
        permit: &mut Permit,
    ) -> Result<Authorization, BackendFault> {
        let version = Version { generation: self.generation, token: 0 };
        let mut authorization = Authorization {
            header: self.fixed.clone(),
            version,
            secret: self.secret.clone(),
            purpose,
            began: Instant::now(),
            token_since: None,
        };
        let Some(secret) = &self.secret else { return Ok(authorization) };
        if purpose == Purpose::File {
            self.files.admit(permit).await?;
        }
        if let Some(tokens) = &self.tokens {
            let token = match tokens.cached() {
                Ok(token) => token,
                Err(_) => Box::pin(tokens.token(adapter, secret, &self.polls, http, permit)).await?,
            };
            authorization.header = Some(token.header);
            authorization.version = token.version;
            authorization.token_since = Some(token.since);
        } else {
            self.polls.admit(permit).await?;
        }
        authorization.began = Instant::now();
        Ok(authorization)
    }

    fn accepted(&self, authorization: &Authorization) {
        let Authorization { version, purpose, began, token_since, .. } = authorization;
        if let Some(tokens) = &self.tokens {
            tokens.accepted(*version);
        }
        self.polls.accepted(token_since.unwrap_or(*began));
        if *purpose == Purpose::File {
            self.files.accepted(*began);
        }
    }

    fn undecided(&self, authorization: &Authorization) {
        if self.tokens.is_none() {
            self.polls.undecided();
        }
        if authorization.purpose == Purpose::File {
            self.files.undecided();
        }
    }

    /// Returns whether to send the request again.
    fn rejected(&self, authorization: &Authorization, fault: &BackendFault, is_repeat: bool) -> bool {
        let Authorization { version, purpose, began, .. } = authorization;
        let rejects_file = *purpose == Purpose::File;
        let Some(tokens) = &self.tokens else {
            let is_proven = self.polls.lock().is_proven();
            if !rejects_file || !is_proven {
                self.polls.rejected(fault, is_proven, *began);
            }
            if rejects_file {
                self.files.rejected(fault, true, *began);
            }
            return false;
        };
        let now = Instant::now();
        let (mut repeat, mut accuses_file) = (false, false);
        tokens.rejected(*version, |standing| {
            match standing {
                Standing::Replaced => repeat = true,
                Standing::Fresh if !rejects_file => repeat = !self.polls.rejected(fault, true, now),
                // Of a token that no poll has been rejected with, only the polls tell.
                Standing::Worked | Standing::Fresh => {
                    repeat = !is_repeat && self.polls.lock().take_renewal(now);
                }
            }
            accuses_file = rejects_file && (is_repeat || !repeat);
            repeat || standing == Standing::Fresh && !rejects_file
        });
        if accuses_file {
            self.files.rejected(fault, true, *began);
        }
        repeat && !is_repeat
    }
}

/// What follows the scheme word, or the whole where there is none.
fn credential(header: &HeaderValue) -> Option<&str> {
    std::str::from_utf8(header.as_bytes()).ok()?.rsplit(' ').next()
}

/// A secret of a query may have characters beside those of ASCII.
fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_bytes(text.as_bytes()).ok()?;
    value.set_sensitive(true);
    Some(value)
}
