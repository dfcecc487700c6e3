//! Authentication: the secret that a vendor accepts and the tokens that it issued.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Default lifetime of a token.
const LIFETIME: Duration = Duration::from_hours(1);

#[derive(Debug)]
pub(super) struct Auth(Mutex<State>);

struct State {
    secret: String,
    lifetime: Duration,
    rejecting: bool,
    /// When each expires; `None` if that is beyond the clock's range.
    tokens: HashMap<String, Option<Instant>>,
}

/// The secrets stay out of every log.
impl std::fmt::Debug for State {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("State").field("tokens", &self.tokens.len()).finish_non_exhaustive()
    }
}

impl Auth {
    pub(super) fn new(secret: &str) -> Self {
        Self(Mutex::new(State {
            secret: secret.to_owned(),
            lifetime: LIFETIME,
            rejecting: false,
            tokens: HashMap::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn accepts_secret(&self, secret: &str) -> bool {
        let state = self.state();
        !state.rejecting && state.secret == secret
    }

    pub(super) fn accepts_token(&self, token: &str) -> bool {
        let state = self.state();
        !state.rejecting && state.tokens.get(token).is_some_and(|until| is_good(*until))
    }

    /// Accepts `token` from now on; returns its lifetime.
    pub(super) fn add_token(&self, token: String) -> Duration {
        let mut state = self.state();
        state.tokens.retain(|_, until| is_good(*until));
        let lifetime = state.lifetime;
        state.tokens.insert(token, Instant::now().checked_add(lifetime));
        lifetime
    }

    pub(super) fn expire_tokens(&self) {
        self.state().tokens.clear();
    }

    pub(super) fn set_lifetime(&self, lifetime: Duration) {
        self.state().lifetime = lifetime;
    }

    pub(super) fn set_secret(&self, secret: &str) {
        secret.clone_into(&mut self.state().secret);
    }

    pub(super) fn reject_all(&self, rejecting: bool) {
        self.state().rejecting = rejecting;
    }
}

fn is_good(until: Option<Instant>) -> bool {
    until.is_none_or(|until| Instant::now() < until)
}
