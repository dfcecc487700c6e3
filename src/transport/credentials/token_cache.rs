//! The short-lived token that a vendor gives for a secret.
//!
//! It is shared by all requests and refreshed by one of them at a time: the others wait,
//! and share the outcome, token or fault. It is refreshed before it expires, where its end
//! is known, and after the vendor has rejected it.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{HeaderValue, header};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use super::{SharedBudget, Version, credential, sensitive};
use crate::{
    job::{BackendFault, FaultKind},
    telemetry::metrics::metrics,
    transport::{HttpClient, Permit, redaction},
    vendors::{Adapter, Expiry, Token, TokenExchange, secrets_in},
};

/// How long before its end a token is refreshed: this, or a fifth of its life.
const REFRESH_BEFORE_END: Duration = Duration::from_mins(1);

/// The token of one secret.
#[derive(Debug)]
pub(super) struct TokenCache {
    generation: u64,
    state: Mutex<State>,
    /// Held by the task that refreshes the token; the state itself is never locked
    /// meanwhile.
    refreshing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    token: Option<CachedToken>,
    /// Refreshes that have ended, and how the last one failed.
    refreshes: u64,
    failed: Option<BackendFault>,
}

/// A token, as it is sent.
#[derive(Clone, Debug)]
pub(super) struct CachedToken {
    pub(super) header: HeaderValue,
    pub(super) version: Version,
    /// When the vendor gave it.
    pub(super) since: Instant,
    /// Whether the vendor has accepted it.
    worked: bool,
    refresh_at: Option<Instant>,
    ends_at: Option<Instant>,
}

/// What is known of a token that the vendor rejects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is no longer the one in use.
    Replaced,
    /// It was accepted before.
    Worked,
    /// It was never accepted.
    Fresh,
}

impl TokenCache {
    /// An empty cache for the secret of this generation.
    pub(super) fn new(generation: u64) -> Self {
        Self { generation, state: Mutex::default(), refreshing: tokio::sync::Mutex::default() }
    }

    /// A valid token, refreshed within the budget if need be.
    pub(super) async fn token(
        &self,
        adapter: &dyn Adapter,
        secret: &SecretString,
        budget: &SharedBudget,
        http: &HttpClient,
        permit: &mut Permit,
    ) -> Result<CachedToken, BackendFault> {
        let seen = match self.cached() {
            Ok(token) => return Ok(token),
            Err(refreshes) => refreshes,
        };
        let _refreshing = if let Ok(refreshing) = self.refreshing.try_lock() {
            refreshing
        } else {
            permit.release();
            self.refreshing.lock().await
        };
        match self.cached() {
            Ok(token) => return Ok(token),
            // Another request refreshed while this one waited: its failure is ours.
            Err(refreshes) if refreshes != seen => {
                if let Some(fault) = self.lock().failed.clone() {
                    return Err(fault);
                }
            }
            Err(_) => {}
        }
        if let Err(fault) = budget.begin_login() {
            return self.old_token(fault);
        }
        let refreshed = match adapter.token_exchange() {
            Some(exchange) => refresh(exchange, secret, http, permit).await,
            None => Err(FaultKind::CredentialsRejected.into()),
        };
        let scheme = adapter.token_exchange().map_or("Bearer", TokenExchange::scheme);
        self.refreshed(refreshed, scheme, budget)
    }

    /// Notes that the vendor accepts the token of this version.
    pub(super) fn accepted(&self, version: Version) {
        let mut state = self.lock();
        if let Some(token) = state.token.as_mut().filter(|token| token.version == version) {
            token.worked = true;
        }
    }

    /// The vendor rejects the token of this version: `drops` says whether it is not used
    /// any more. Of requests that are rejected together, one decides.
    pub(super) fn rejected(&self, version: Version, drops: impl FnOnce(Standing) -> bool) {
        let mut state = self.lock();
        let current = state.token.as_ref().filter(|token| token.version == version);
        let standing = match current {
            None => Standing::Replaced,
            Some(token) if token.worked => Standing::Worked,
            Some(_) => Standing::Fresh,
        };
        if drops(standing) && standing != Standing::Replaced {
            state.token = None;
        }
    }

    /// The token, if it is valid; otherwise how many refreshes have ended.
    pub(super) fn cached(&self) -> Result<CachedToken, u64> {
        let state = self.lock();
        match &state.token {
            Some(token) if token.refresh_at.is_none_or(|at| Instant::now() < at) => Ok(token.clone()),
            _ => Err(state.refreshes),
        }
    }

    fn refreshed(
        &self,
        refreshed: Result<Token, BackendFault>,
        scheme: &str,
        budget: &SharedBudget,
    ) -> Result<CachedToken, BackendFault> {
        metrics().token_refreshed(match &refreshed {
            Ok(_) => "ok",
            Err(fault) if fault.kind == FaultKind::CredentialsRejected => "rejected",
            Err(_) => "failed",
        });
        let now = Instant::now();
        let mut state = self.lock();
        state.refreshes += 1;
        let version = Version { generation: self.generation, token: state.refreshes };
        let token = refreshed.and_then(|token| {
            CachedToken::new(token, scheme, version, now)
                .ok_or_else(|| FaultKind::Malformed { why: "the token can't be sent in a header" }.into())
        });
        let fault = match token {
            Ok(token) => {
                state.failed = None;
                state.token = Some(token.clone());
                drop(state);
                budget.logged_in();
                return Ok(token);
            }
            // No job has caused it.
            Err(fault) => BackendFault { token_refresh: true, ..fault },
        };
        state.failed = Some(fault.clone());
        drop(state);
        match fault.kind {
            FaultKind::CredentialsRejected => drop(budget.rejected(&fault, false, now)),
            // The gateway's own lack of room says nothing of the login.
            FaultKind::Overloaded => budget.undecided(),
            _ => budget.login_failed(&fault),
        }
        self.old_token(fault)
    }

    /// The token before, in place of one that can't be had: it may be valid for a while.
    fn old_token(&self, fault: BackendFault) -> Result<CachedToken, BackendFault> {
        let now = Instant::now();
        match &mut self.lock().token {
            Some(old) if old.ends_at.is_some_and(|end| now < end) => {
                old.refresh_at = old.ends_at.map(|end| end.min(now + REFRESH_BEFORE_END / 12));
                Ok(old.clone())
            }
            _ => Err(fault),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Requests a token for the secret.
async fn refresh(
    exchange: &dyn TokenExchange,
    secret: &SecretString,
    http: &HttpClient,
    permit: &mut Permit,
) -> Result<Token, BackendFault> {
    let request = exchange.request(secret)?;
    let header = request.headers().get(header::AUTHORIZATION).cloned();
    let sent = header.as_ref().and_then(credential);
    let secrets: Vec<&str> = sent.into_iter().chain(secrets_in(secret)).collect();
    let (response, _room) = http.send(request, permit).await?;
    exchange.interpret(&response).map_err(|fault| redaction::fault(fault, &secrets))
}

impl CachedToken {
    fn new(token: Token, scheme: &str, version: Version, now: Instant) -> Option<Self> {
        let Token { value, expiry } = token;
        let space = if scheme.is_empty() { "" } else { " " };
        let text = format!("{scheme}{space}{}", value.expose_secret());
        let life = expiry.and_then(|expiry| match expiry {
            Expiry::After(life) => Some(life),
            // An end that has passed tells of clocks that differ, not of the token.
            Expiry::At(end) => end.duration_since(Timestamp::now()).try_into().ok(),
        });
        let at = |life: Duration| now.checked_add(life);
        Some(Self {
            header: sensitive(&text)?,
            version,
            since: now,
            worked: false,
            refresh_at: life.and_then(|life| at(life.saturating_sub(REFRESH_BEFORE_END.min(life / 5)))),
            ends_at: life.and_then(at),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_that_ended_by_this_clock_is_not_refreshed_for_every_request() {
        let now = Instant::now();
        let cached = |end| {
            let expiry = Some(Expiry::At(end));
            let version = Version { generation: 0, token: 1 };
            CachedToken::new(Token { value: "t".into(), expiry }, "Bearer", version, now)
                .expect("a token that fits a header")
        };
        let minute = Duration::from_mins(1);
        assert_eq!(cached(Timestamp::now() - minute).refresh_at, None);
        assert!(cached(Timestamp::now() + 10 * minute).refresh_at.is_some_and(|at| at > now + 5 * minute));
    }
}
