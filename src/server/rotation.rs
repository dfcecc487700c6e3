//! Picks up secrets that change in their files while the server runs.
//!
//! One task looks at the files at an interval and compares what they hold, so that
//! it does not matter how a file was replaced: written anew, renamed over, or moved
//! under a symbolic link, as Kubernetes does. Whoever uses a secret is handed the
//! new one. Where a file holds nothing that could be used, the secret in use stays
//! and one warning says why.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tracing::{info, warn};

use crate::{
    config::{self, Problem, Secret},
    transport::{Endpoint, SetupError},
};

/// How often the files are looked at.
pub(super) const EVERY: Duration = Duration::from_secs(2);

/// Takes a new secret, or says why it can't.
type Replace = Box<dyn Fn(SecretString) -> Result<(), SetupError> + Send>;

/// The secrets that may change.
#[derive(Default)]
pub(super) struct Rotation {
    /// As they were configured, in the order of `in_use`.
    configured: Arc<Vec<Secret>>,
    in_use: Vec<InUse>,
    /// Keys and files that were warned of and are no better since.
    warned: BTreeSet<String>,
}

struct InUse {
    secret: SecretString,
    replace: Replace,
    /// Whether its file has held it.
    was_there: bool,
}

impl Rotation {
    /// Looks after an endpoint's secret too, if it may change.
    pub(super) fn add(&mut self, credentials: &config::Credentials, endpoint: &Arc<Endpoint>) {
        if let Some(secret) = credentials.secret() {
            let endpoint = Arc::clone(endpoint);
            self.watch(secret, Box::new(move |secret| endpoint.rotate(secret)));
        }
    }

    fn watch(&mut self, secret: &Secret, replace: Replace) {
        if secret.may_change() {
            Arc::make_mut(&mut self.configured).push(secret.clone());
            self.in_use.push(InUse { secret: secret.value().clone(), replace, was_there: false });
        }
    }

    /// Looks at the files, at once and then at this interval, until it is dropped.
    pub(super) async fn run(mut self, every: Duration) {
        if self.in_use.is_empty() {
            return;
        }
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.look().await;
        }
    }

    /// Looks at all files once.
    async fn look(&mut self) {
        let secrets = Arc::clone(&self.configured);
        let read = move || secrets.iter().map(Secret::read_again).collect::<Vec<_>>();
        // It fails only when the runtime ends.
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
                warn!("{problem}; what was read before is used until then");
            }
        }
        self.warned = warned;
    }
}

impl InUse {
    /// Uses what was found, if it is another secret.
    fn take(&mut self, configured: &Secret, found: Option<SecretString>) -> Result<(), Problem> {
        let problem = |text| Err(Problem { subject: configured.key().to_owned(), text });
        let Some(found) = found else {
            if self.was_there {
                return problem("is no longer in the environment file; write it there".to_owned());
            }
            // It comes from the process's environment.
            return Ok(());
        };
        self.was_there = true;
        if found.expose_secret() == self.secret.expose_secret() {
            return Ok(());
        }
        if let Err(error) = (self.replace)(found.clone()) {
            return problem(format!("can't be used: {error}; write another one"));
        }
        self.secret = found;
        info!(key = configured.key(), "{} has changed and is used from now on", configured.key());
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
