//! Credential rotation: rereads secrets from their files while the server runs.
//!
//! One task reads the files at an interval and compares their content, which finds every
//! kind of replacement: an overwritten file, a renamed one, or a swapped symbolic link, as
//! Kubernetes does. The task passes a new secret to its backend. If a file has no usable
//! content, the secret in use stays, and one warning has the reason.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use tokio::{
    sync::mpsc,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tracing::{info, warn};

use crate::{
    config::{self, Problem, Secret},
    transport::{Endpoint, SetupError},
};

/// How often the files are read.
pub(super) const INTERVAL: Duration = Duration::from_secs(2);

/// Uses a new secret.
///
/// # Errors
/// The secret can't be used.
type Replace = Box<dyn Fn(SecretString) -> Result<(), SetupError> + Send>;

/// The secrets that may change.
#[derive(Default)]
pub(super) struct Rotation {
    /// The configured secrets, in the order of `in_use`.
    configured: Arc<Vec<Secret>>,
    in_use: Vec<InUse>,
    /// Keys and files with a problem that was logged and persists.
    warned: BTreeSet<String>,
}

/// Changes that may wait while files are read; a reload waits for room.
pub(super) const CHANGES: usize = 64;

/// A change of the set of secrets.
pub(super) enum Change {
    /// An endpoint was set up with these credentials.
    Add(config::Credentials, Arc<Endpoint>),
    /// One with these is not used any more.
    Remove(config::Credentials),
}

struct InUse {
    secret: SecretString,
    replace: Replace,
    /// Whether its file has contained it.
    found_before: bool,
}

impl Rotation {
    /// Adds an endpoint's secret, if it may change.
    pub(super) fn add(&mut self, credentials: &config::Credentials, endpoint: &Arc<Endpoint>) {
        if let Some(secret) = credentials.secret() {
            let endpoint = Arc::clone(endpoint);
            self.add_secret(secret, Box::new(move |secret| endpoint.rotate(secret)));
        }
    }

    fn remove(&mut self, credentials: &config::Credentials) {
        let Some(secret) = credentials.secret() else { return };
        let secrets = Arc::make_mut(&mut self.configured);
        while let Some(place) = secrets.iter().position(|other| other.key() == secret.key()) {
            secrets.remove(place);
            self.in_use.remove(place);
        }
        self.warned.remove(secret.key());
    }

    fn add_secret(&mut self, secret: &Secret, replace: Replace) {
        if secret.may_change() {
            Arc::make_mut(&mut self.configured).push(secret.clone());
            self.in_use.push(InUse { secret: secret.value().clone(), replace, found_before: false });
        }
    }

    /// Reads the files at once and then at this interval, until it is dropped.
    pub(super) async fn run(mut self, every: Duration, mut changes: mpsc::Receiver<Change>) {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.read_all().await,
                Some(change) = changes.recv() => match change {
                    Change::Add(credentials, endpoint) => self.add(&credentials, &endpoint),
                    Change::Remove(credentials) => self.remove(&credentials),
                },
            }
        }
    }

    /// Reads all files once.
    async fn read_all(&mut self) {
        if self.in_use.is_empty() {
            return;
        }
        let secrets = Arc::clone(&self.configured);
        let read = move || secrets.iter().map(Secret::read_again).collect::<Vec<_>>();
        // This fails only when the runtime shuts down.
        let Ok(found) = spawn_blocking(read).await else { return };
        let mut problems = Vec::new();
        for ((configured, in_use), found) in self.configured.iter().zip(&mut self.in_use).zip(found) {
            if let Err(problem) = found.and_then(|found| in_use.take(configured, found)) {
                problems.push(problem);
            }
        }
        let mut warned = BTreeSet::new();
        for problem in problems {
            if warned.insert(problem.subject.clone()) && !self.warned.contains(&problem.subject) {
                warn!(%problem, "secret not replaced; the previous one stays in use");
            }
        }
        self.warned = warned;
    }
}

impl InUse {
    /// Uses the secret that was found, if it differs.
    fn take(&mut self, configured: &Secret, found: Option<SecretString>) -> Result<(), Problem> {
        let problem = |text| Err(Problem { subject: configured.key().to_owned(), text });
        let Some(found) = found else {
            if self.found_before {
                return problem("is no longer in the environment file; write it there".to_owned());
            }
            // It comes from the process's environment.
            return Ok(());
        };
        self.found_before = true;
        if found.expose_secret() == self.secret.expose_secret() {
            return Ok(());
        }
        if let Err(error) = (self.replace)(found.clone()) {
            return problem(format!("can't be used: {error}; write another one"));
        }
        let key = configured.changed_keys(&self.secret, &found);
        self.secret = found;
        info!(key, "secret replaced");
        for warning in configured.warnings(&self.secret) {
            warn!("{} {warning}", configured.key());
        }
        Ok(())
    }
}

impl fmt::Debug for Rotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rotation").field("secrets", &self.configured).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
