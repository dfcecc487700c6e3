//! A login budget that all requests of a backend share, and its log lines.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};
use tracing::{info, warn};

use super::login_budget::{Admission, LoginBudget};
use crate::{
    job::BackendFault,
    transport::{Backoff, Permit},
};

/// Which secret it is, for people. Never the secret.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) backend: Arc<str>,
    /// Key and place, such as `credentials.api_key from the variable IMMUTA_KEY`.
    pub(super) secret: String,
    /// What is refused: `polls` or `downloads`.
    pub(super) purpose: &'static str,
}

/// A login budget that all requests share.
#[derive(Debug)]
pub(super) struct SharedBudget {
    origin: Arc<Origin>,
    state: Mutex<LoginBudget>,
    /// The outcome of the first request is known.
    decided: Notify,
    /// Whether the log has a rejection without its end.
    is_logged: AtomicBool,
}

impl SharedBudget {
    pub(super) fn new(origin: Arc<Origin>, wait: Duration, backoff: Backoff) -> Self {
        let state = Mutex::new(LoginBudget::new(wait, backoff));
        Self { origin, state, decided: Notify::new(), is_logged: AtomicBool::new(false) }
    }

    /// The budget of a secret that replaces this one's.
    pub(super) fn renewed(&self, wait: Duration, backoff: Backoff) -> Self {
        let is_logged = AtomicBool::new(self.is_logged.load(Ordering::Relaxed));
        Self { is_logged, ..Self::new(Arc::clone(&self.origin), wait, backoff) }
    }

    /// Waits until a request that sends the secret may be sent.
    ///
    /// # Errors
    /// The vendor rejected the secret, and it is not tried again yet.
    pub(super) async fn admit(&self, permit: &mut Permit) -> Result<(), BackendFault> {
        loop {
            let decided = self.decided.notified();
            let admission = self.lock().admit(Instant::now(), rand::random());
            match admission {
                Admission::Granted => return Ok(()),
                Admission::Refused(fault) => return Err(fault),
                Admission::Wait(until) => {
                    permit.release();
                    // Whether it is decided by then or not, the next look tells.
                    let _ = timeout_at(until, decided).await;
                }
            }
        }
    }

    pub(super) fn begin_login(&self) -> Result<(), BackendFault> {
        self.lock().begin_login(Instant::now(), rand::random())
    }

    pub(super) fn logged_in(&self) {
        self.lock().logged_in();
    }

    pub(super) fn login_failed(&self, fault: &BackendFault) {
        self.lock().login_failed(fault, Instant::now(), rand::random());
    }

    pub(super) fn undecided(&self) {
        self.lock().undecided(Instant::now());
        self.decided.notify_waiters();
    }

    /// Returns whether the secret is not sent for a while.
    pub(super) fn rejected(&self, fault: &BackendFault, tolerates_first: bool, began: Instant) -> bool {
        let now = Instant::now();
        let wait = self.lock().rejected(fault, tolerates_first, (began, now), rand::random());
        self.decided.notify_waiters();
        let Some(wait) = wait else { return false };
        if !self.is_logged.swap(true, Ordering::Relaxed) {
            let Origin { backend, secret, purpose } = &*self.origin;
            let retry_in_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            let http_status = fault.http_status;
            warn!(%backend, secret, purpose, http_status, retry_in_ms, "secret rejected by the vendor; replace it");
        }
        true
    }

    pub(super) fn accepted(&self, began: Instant) {
        if !self.lock().accepted(began) {
            return;
        }
        self.decided.notify_waiters();
        if self.is_logged.swap(false, Ordering::Relaxed) {
            let Origin { backend, secret, purpose } = &*self.origin;
            info!(%backend, secret, purpose, "secret accepted again by the vendor");
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, LoginBudget> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
