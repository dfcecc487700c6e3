//! How a backend's secret becomes an Authorization header.
//!
//! An [`Identity`] is what one secret gives, the token that it was traded for
//! included. When the secret changes it is replaced as a whole: requests that were
//! sent before keep the old one, and one that is rejected meanwhile is sent again
//! with the new one.
//!
//! A token that is traded for is shared by all requests and fetched by one of
//! them at a time: whoever needs it meanwhile waits, and shares the outcome,
//! token or fault. It is replaced before it expires, where its end is known, and
//! after the vendor has rejected it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderValue, header};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use super::{Http, Leave, SetupError, redaction};
use crate::{
    adapters::{Adapter, BackendFault, Changes, Expiry, FaultKind, Token, TokenExchange},
    config,
};

/// How long before its end a token is replaced: this, or a fifth of its life.
const RENEW_BEFORE_END: Duration = Duration::from_mins(1);

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
    trade: Option<Trade>,
}

/// A header to send, and which issue it is.
#[derive(Clone, Debug)]
pub(super) struct Authorization {
    pub(super) header: Option<HeaderValue>,
    pub(super) issue: Issue,
    secret: Option<SecretString>,
}

/// Which secret, and which token that was traded for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Issue {
    generation: u64,
    token: u64,
}

#[derive(Debug, Default)]
struct Trade {
    generation: u64,
    state: Mutex<TradeState>,
    /// Held by whoever fetches a token; the state itself is never locked meanwhile.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct TradeState {
    issued: Option<Issued>,
    /// Fetches that have ended, and how the last one failed.
    fetches: u64,
    failed: Option<BackendFault>,
}

#[derive(Clone, Debug)]
struct Issued {
    header: HeaderValue,
    issue: Issue,
    renew_at: Option<Instant>,
    ends_at: Option<Instant>,
}

impl Credentials {
    pub(super) fn new(configured: &config::Credentials) -> Result<Self, SetupError> {
        let secret = configured.secret().map(|secret| secret.value().clone());
        let identity = Identity::new(configured, secret, 0)?;
        Ok(Self { configured: configured.clone(), current: Mutex::new(Arc::new(identity)) })
    }

    /// Takes another secret from the next request on, and drops the token that was
    /// traded for the one before.
    pub(super) fn rotate(&self, secret: SecretString) -> Result<(), SetupError> {
        let mut current = self.lock();
        let identity = Identity::new(&self.configured, Some(secret), current.generation + 1)?;
        *current = Arc::new(identity);
        Ok(())
    }

    /// What to send now; fetches a token where there is none that will do.
    pub(super) async fn authorization(
        &self,
        adapter: &dyn Adapter,
        http: &Http,
        leave: &mut Leave,
    ) -> Result<Authorization, BackendFault> {
        let mut identity = self.current();
        loop {
            let outcome = identity.authorization(adapter, http, leave).await;
            let current = self.current();
            match outcome {
                // The secret was replaced while it was being traded.
                Err(BackendFault { kind: FaultKind::CredentialsRejected, .. })
                    if current.generation != identity.generation =>
                {
                    identity = current;
                }
                outcome => return outcome,
            }
        }
    }

    /// Drops what the vendor rejected, if it is a token. Returns whether there is or
    /// can be had something else: another token, or that of a newer secret.
    pub(super) fn forget(&self, issue: Issue) -> bool {
        let current = self.current();
        current.generation != issue.generation || current.forget(issue)
    }

    /// What was said, without any secret of the request that `authorization` was
    /// sent with.
    #[allow(clippy::unused_self, reason = "it is these credentials' secret")]
    pub(super) fn redact(&self, said: Changes, authorization: &Authorization) -> Changes {
        let sent = authorization.header.as_ref().and_then(credential);
        let secret = authorization.secret.as_ref().map(ExposeSecret::expose_secret);
        let secrets: Vec<&str> = sent.into_iter().chain(secret).collect();
        redaction::answers(said, &secrets)
    }

    fn current(&self) -> Arc<Identity> {
        Arc::clone(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Identity>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Identity {
    fn new(
        configured: &config::Credentials,
        secret: Option<SecretString>,
        generation: u64,
    ) -> Result<Self, SetupError> {
        use config::Credentials as C;
        let exposed = secret.as_ref().map(ExposeSecret::expose_secret).unwrap_or_default();
        let fixed = match configured {
            C::None | C::ApiKeyExchange(_) | C::Login { .. } | C::OAuthClient { .. } => None,
            C::ApiKey(_) => Some(exposed.to_owned()),
            C::Bearer(_) => Some(format!("Bearer {exposed}")),
            C::Basic { username, .. } => {
                Some(format!("Basic {}", BASE64_STANDARD.encode(format!("{username}:{exposed}"))))
            }
        };
        let header = |text: String| {
            sensitive(&text)
                .ok_or_else(|| SetupError("a secret holds characters that a header can't".to_owned()))
        };
        let trades = matches!(configured, C::ApiKeyExchange(_) | C::Login { .. } | C::OAuthClient { .. });
        let trade = trades.then(|| Trade { generation, ..Trade::default() });
        Ok(Self { generation, fixed: fixed.map(header).transpose()?, secret, trade })
    }

    async fn authorization(
        &self,
        adapter: &dyn Adapter,
        http: &Http,
        leave: &mut Leave,
    ) -> Result<Authorization, BackendFault> {
        let (Some(trade), Some(secret)) = (&self.trade, &self.secret) else {
            let issue = Issue { generation: self.generation, token: 0 };
            return Ok(Authorization { header: self.fixed.clone(), issue, secret: self.secret.clone() });
        };
        let (header, issue) = trade.header(adapter, secret, http, leave).await?;
        Ok(Authorization { header: Some(header), issue, secret: Some(secret.clone()) })
    }

    fn forget(&self, issue: Issue) -> bool {
        let Some(trade) = &self.trade else { return false };
        let mut state = trade.lock();
        if state.issued.as_ref().is_some_and(|issued| issued.issue == issue) {
            state.issued = None;
        }
        true
    }
}

impl Trade {
    /// The header with a token that will do, fetched if need be.
    async fn header(
        &self,
        adapter: &dyn Adapter,
        secret: &SecretString,
        http: &Http,
        leave: &mut Leave,
    ) -> Result<(HeaderValue, Issue), BackendFault> {
        let seen = match self.current() {
            Ok(header) => return Ok(header),
            Err(fetches) => fetches,
        };
        let _turn = if let Ok(turn) = self.turn.try_lock() {
            turn
        } else {
            leave.give_back();
            self.turn.lock().await
        };
        match self.current() {
            Ok(header) => return Ok(header),
            // Somebody else fetched while this call waited: its failure is ours.
            Err(fetches) if fetches != seen => {
                if let Some(fault) = self.lock().failed.clone() {
                    return Err(fault);
                }
            }
            Err(_) => {}
        }
        let fetched = match adapter.token_exchange() {
            Some(exchange) => fetch(exchange, secret, http, leave).await,
            None => Err(FaultKind::CredentialsRejected.into()),
        };
        self.fetched(fetched)
    }

    /// The token, if it will do; otherwise how many fetches have ended.
    fn current(&self) -> Result<(HeaderValue, Issue), u64> {
        let state = self.lock();
        match &state.issued {
            Some(issued) if issued.renew_at.is_none_or(|at| Instant::now() < at) => Ok(issued.header()),
            _ => Err(state.fetches),
        }
    }

    fn fetched(&self, fetched: Result<Token, BackendFault>) -> Result<(HeaderValue, Issue), BackendFault> {
        let now = Instant::now();
        let mut state = self.lock();
        state.fetches += 1;
        let issued = fetched.and_then(|token| {
            Issued::new(token, Issue { generation: self.generation, token: state.fetches }, now)
                .ok_or_else(|| FaultKind::Malformed { why: "the token can't be sent in a header" }.into())
        });
        match issued {
            Ok(issued) => {
                state.failed = None;
                let header = issued.header();
                state.issued = Some(issued);
                Ok(header)
            }
            Err(fault) => {
                state.failed = Some(fault.clone());
                // The old one still does, for a while.
                match &mut state.issued {
                    Some(old) if old.ends_at.is_some_and(|end| now < end) => {
                        old.renew_at = old.ends_at.map(|end| end.min(now + RENEW_BEFORE_END / 12));
                        Ok(old.header())
                    }
                    _ => Err(fault),
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, TradeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Trades the secret for a token.
async fn fetch(
    exchange: &dyn TokenExchange,
    secret: &SecretString,
    http: &Http,
    leave: &mut Leave,
) -> Result<Token, BackendFault> {
    let request = exchange.request(secret)?;
    let header = request.headers().get(header::AUTHORIZATION).cloned();
    let secrets = [header.as_ref().and_then(credential).unwrap_or_default(), secret.expose_secret()];
    let answer = http.send(request, Duration::ZERO, leave).await?;
    exchange.interpret(&answer).map_err(|fault| redaction::fault(fault, &secrets))
}

/// What follows the scheme word, or the whole where there is none.
fn credential(header: &HeaderValue) -> Option<&str> {
    header.to_str().ok()?.rsplit(' ').next()
}

impl Issued {
    fn new(token: Token, issue: Issue, now: Instant) -> Option<Self> {
        let Token { value, expiry } = token;
        let text = format!("Bearer {}", value.expose_secret());
        let life = expiry.and_then(|expiry| match expiry {
            Expiry::After(life) => Some(life),
            // An end that has passed tells of clocks that differ, not of the token.
            Expiry::At(end) => end.duration_since(Timestamp::now()).try_into().ok(),
        });
        let at = |life: Duration| now.checked_add(life);
        Some(Self {
            header: sensitive(&text)?,
            issue,
            renew_at: life.and_then(|life| at(life.saturating_sub(RENEW_BEFORE_END.min(life / 5)))),
            ends_at: life.and_then(at),
        })
    }

    fn header(&self) -> (HeaderValue, Issue) {
        (self.header.clone(), self.issue)
    }
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_has_passed_by_this_clock_does_not_have_a_token_fetched_for_every_request() {
        let now = Instant::now();
        let issued = |end| {
            let expiry = Some(Expiry::At(end));
            let issue = Issue { generation: 0, token: 1 };
            Issued::new(Token { value: "t".into(), expiry }, issue, now).expect("a token that fits a header")
        };
        let minute = Duration::from_mins(1);
        assert_eq!(issued(Timestamp::now() - minute).renew_at, None);
        assert!(issued(Timestamp::now() + 10 * minute).renew_at.is_some_and(|at| at > now + 5 * minute));
    }
}
