//! How a backend's secret becomes an Authorization header.
//!
//! A token that is traded for is shared by all requests and fetched by one of
//! them at a time: whoever needs it meanwhile waits, and shares the outcome,
//! token or fault. It is replaced before it expires, where its end is known, and
//! after the vendor has rejected it.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderValue, header};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use super::{Http, SetupError, redaction};
use crate::{
    adapters::{Adapter, BackendFault, Expiry, FaultKind, Interpretation, Token, TokenExchange},
    config,
};

/// How long before its end a token is replaced: this, or a fifth of its life.
const RENEW_BEFORE_END: Duration = Duration::from_mins(1);

/// One backend's credentials.
#[derive(Debug)]
pub(super) struct Credentials {
    secret: Option<SecretString>,
    fixed: Option<HeaderValue>,
    trade: Option<Trade>,
}

/// A header to send, and which issue of a token it holds.
#[derive(Clone, Debug)]
pub(super) struct Authorization {
    pub(super) header: Option<HeaderValue>,
    pub(super) issue: u64,
}

#[derive(Debug, Default)]
struct Trade {
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
    issue: u64,
    renew_at: Option<Instant>,
    ends_at: Option<Instant>,
}

impl Credentials {
    pub(super) fn new(configured: &config::Credentials) -> Result<Self, SetupError> {
        use config::Credentials as C;
        let fixed = |text: String, secret: &SecretString| {
            let header = sensitive(&text)
                .ok_or_else(|| SetupError("a secret holds characters that a header can't".into()))?;
            Ok(Self { secret: Some(secret.clone()), fixed: Some(header), trade: None })
        };
        match configured {
            C::None => Ok(Self { secret: None, fixed: None, trade: None }),
            C::ApiKey(key) => fixed(key.expose_secret().to_owned(), key),
            C::Bearer(token) => fixed(format!("Bearer {}", token.expose_secret()), token),
            C::Basic { username, password } => {
                let pair = format!("{username}:{}", password.expose_secret());
                fixed(format!("Basic {}", BASE64_STANDARD.encode(pair)), password)
            }
            C::ApiKeyExchange(secret)
            | C::Login { password: secret, .. }
            | C::OAuthClient { client_secret: secret, .. } => {
                Ok(Self { secret: Some(secret.clone()), fixed: None, trade: Some(Trade::default()) })
            }
        }
    }

    /// What to send now; fetches a token where there is none that will do.
    pub(super) async fn authorization(
        &self,
        adapter: &dyn Adapter,
        http: &Http,
    ) -> Result<Authorization, BackendFault> {
        let (Some(trade), Some(secret)) = (&self.trade, &self.secret) else {
            return Ok(Authorization { header: self.fixed.clone(), issue: 0 });
        };
        let seen = match trade.current() {
            Ok(authorization) => return Ok(authorization),
            Err(fetches) => fetches,
        };
        let _turn = trade.turn.lock().await;
        match trade.current() {
            Ok(authorization) => return Ok(authorization),
            // Somebody else fetched while this call waited: its failure is ours.
            Err(fetches) if fetches != seen => {
                if let Some(fault) = trade.lock().failed.clone() {
                    return Err(fault);
                }
            }
            Err(_) => {}
        }
        let fetched = match adapter.token_exchange() {
            Some(exchange) => fetch(exchange, secret, http).await,
            None => Err(FaultKind::CredentialsRejected.into()),
        };
        trade.fetched(fetched)
    }

    /// Drops a token that the vendor rejected. Returns whether another one can be
    /// had.
    pub(super) fn forget(&self, issue: u64) -> bool {
        let Some(trade) = &self.trade else { return false };
        let mut state = trade.lock();
        if state.issued.as_ref().is_some_and(|issued| issued.issue == issue) {
            state.issued = None;
        }
        true
    }

    /// What was said, without any secret of the request that `authorization` was
    /// sent with.
    pub(super) fn redact(&self, said: Interpretation, authorization: &Authorization) -> Interpretation {
        let sent = authorization.header.as_ref().and_then(credential);
        let secret = self.secret.as_ref().map(ExposeSecret::expose_secret);
        let secrets: Vec<&str> = sent.into_iter().chain(secret).collect();
        redaction::interpretation(said, &secrets)
    }
}

/// Trades the secret for a token.
async fn fetch(
    exchange: &dyn TokenExchange,
    secret: &SecretString,
    http: &Http,
) -> Result<Token, BackendFault> {
    let request = exchange.request(secret)?;
    let header = request.headers().get(header::AUTHORIZATION).cloned();
    let secrets = [header.as_ref().and_then(credential).unwrap_or_default(), secret.expose_secret()];
    let answer = http.send(request, Duration::ZERO).await?;
    exchange.interpret(&answer).map_err(|fault| redaction::fault(fault, &secrets))
}

/// What follows the scheme word, or the whole where there is none.
fn credential(header: &HeaderValue) -> Option<&str> {
    header.to_str().ok()?.rsplit(' ').next()
}

impl Trade {
    /// The token, if it will do; otherwise how many fetches have ended.
    fn current(&self) -> Result<Authorization, u64> {
        let state = self.lock();
        match &state.issued {
            Some(issued) if issued.renew_at.is_none_or(|at| Instant::now() < at) => {
                Ok(issued.authorization())
            }
            _ => Err(state.fetches),
        }
    }

    fn fetched(&self, fetched: Result<Token, BackendFault>) -> Result<Authorization, BackendFault> {
        let now = Instant::now();
        let mut state = self.lock();
        state.fetches += 1;
        let issued = fetched.and_then(|token| {
            Issued::new(token, state.fetches, now)
                .ok_or_else(|| FaultKind::Malformed { why: "the token can't be sent in a header" }.into())
        });
        match issued {
            Ok(issued) => {
                state.failed = None;
                let authorization = issued.authorization();
                state.issued = Some(issued);
                Ok(authorization)
            }
            Err(fault) => {
                state.failed = Some(fault.clone());
                // The old one still does, for a while.
                match &mut state.issued {
                    Some(old) if old.ends_at.is_some_and(|end| now < end) => {
                        old.renew_at = old.ends_at.map(|end| end.min(now + RENEW_BEFORE_END / 12));
                        Ok(old.authorization())
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

impl Issued {
    fn new(token: Token, issue: u64, now: Instant) -> Option<Self> {
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

    fn authorization(&self) -> Authorization {
        Authorization { header: Some(self.header.clone()), issue: self.issue }
    }
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
