//! Configuration reload: a running server takes over another configuration.
//!
//! ```text
//!   SIGHUP ────────────┐
//!   a file changes ────┴──> load ──> diff ──> prepare ──> apply ──> log, metrics, /readyz
//!   (polled)                  │                  │
//!                             └──── refused <────┘  the old configuration stays in effect
//! ```
//!
//! One task does it, so that there is never more than one reload at a time. Everything that
//! can fail is done before the first change takes effect.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{error, info, warn};

use super::{RELEASE, descriptors, dispatch::Live, engine_limits, rotation, setup, web::Web};
use crate::{
    access::Access,
    admin::{Outcome, Reloads},
    api,
    cluster::Replica,
    config::{Change, Config, Credentials, Diff, InvalidConfig, Problem},
    engine::{Engine, KnownJobs},
    telemetry::{self, traces::Tracer},
    transport::{Endpoint, ResponseBudget},
};

/// How often the files are read. A change is taken when two readings in a row agree: the
/// file is not being written then.
const INTERVAL: Duration = Duration::from_secs(2);

/// A configuration that was refused is tried again after so many readings: what it lacks may
/// be a file that comes later, such as a secret.
const RETRY: u32 = 5;

/// Reads a configuration.
pub type Load = Arc<dyn Fn() -> Result<Config, InvalidConfig> + Send + Sync>;

/// Where the configuration of a running server comes from.
pub struct ConfigSource {
    /// Reads it again. May block.
    pub load: Load,
    /// The files that it is read from. The configuration may name others.
    pub files: Vec<PathBuf>,
    /// Each message requests a reload.
    pub requests: mpsc::Receiver<()>,
}

impl fmt::Debug for ConfigSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigSource").field("files", &self.files).finish_non_exhaustive()
    }
}

/// The parts of a running server that a reload changes.
pub(super) struct Reloader {
    /// In effect.
    pub(super) config: Config,
    pub(super) engine: Arc<Engine>,
    pub(super) tracer: Option<Tracer>,
    pub(super) service: api::Service<Engine>,
    pub(super) live: Live,
    pub(super) response_budget: Arc<ResponseBudget>,
    pub(super) rotation: mpsc::Sender<rotation::Change>,
    /// Connections that there may be.
    pub(super) connections: usize,
    pub(super) reloads: Arc<Reloads>,
    /// Where several replicas share the work.
    pub(super) replica: Option<Arc<Replica>>,
    /// Keeps the issuer's keys current.
    pub(super) refresh: AbortOnDropHandle<()>,
    /// The problems of the configuration that was refused last, until another is accepted.
    pub(super) refused: Option<Vec<Problem>>,
}

/// What was set up for a new configuration, before any of it takes effect.
struct Prepared {
    endpoints: BTreeMap<Arc<str>, Arc<Endpoint>>,
    access: Option<Access>,
}

/// Hashes of files' contents; `None` for one that can't be read.
type Contents = BTreeMap<PathBuf, Option<u64>>;

/// Why a configuration is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// The files may have changed while the server started.
    Start,
    Request,
    Files,
    /// It was refused before.
    Retry,
}

impl Reloader {
    /// Reloads whenever that is requested or a file changes, until the shutdown begins.
    /// Without a source it only keeps the issuer's keys current.
    pub(super) async fn run(mut self, source: Option<ConfigSource>, shutdown: CancellationToken) {
        let Some(ConfigSource { load, files, mut requests }) = source else {
            return std::future::pending().await;
        };
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut known = Contents::new();
        let mut before = None;
        let mut has_started = false;
        let mut readings = 0_u32;
        loop {
            let is_requested = tokio::select! {
                biased;
                () = shutdown.cancelled() => return self.keep().await,
                Some(()) = requests.recv() => true,
                _ = ticks.tick() => false,
            };
            let Some(contents) = self.read_files(&files).await else { return };
            let cause = match (is_requested, has_started) {
                (true, _) => Cause::Request,
                (false, false) => Cause::Start,
                (false, true) if contents == known => {
                    before = None;
                    readings = readings.wrapping_add(1);
                    if self.refused.is_none() || !readings.is_multiple_of(RETRY) {
                        continue;
                    }
                    Cause::Retry
                }
                (false, true) if before.as_ref() == Some(&contents) => Cause::Files,
                (false, true) => {
                    before = Some(contents);
                    continue;
                }
            };
            (has_started, before) = (true, None);
            self.reload(cause, &load, &files).await;
            // The new configuration may name other files.
            let Some(mut now) = self.read_files(&files).await else { return };
            now.extend(contents.into_iter().filter(|(file, _)| self.reads(&files, file)));
            known = now;
        }
    }

    /// Changes nothing any more. The issuer's keys stay current.
    async fn keep(self) {
        std::future::pending::<()>().await;
        drop(self);
    }

    fn reads(&self, files: &[PathBuf], file: &Path) -> bool {
        files.iter().map(PathBuf::as_path).chain(self.config.files()).any(|other| other == file)
    }

    /// `None` when the runtime shuts down.
    async fn read_files(&self, files: &[PathBuf]) -> Option<Contents> {
        let files: Vec<PathBuf> =
            files.iter().map(PathBuf::as_path).chain(self.config.files()).map(PathBuf::from).collect();
        let hash = |file: PathBuf| {
            let is_file = std::fs::metadata(&file).is_ok_and(|metadata| metadata.is_file());
            let content = is_file.then(|| std::fs::read(&file).ok()).flatten();
            (file, content.map(|content| xxhash_rust::xxh3::xxh3_64(&content)))
        };
        spawn_blocking(move || files.into_iter().map(hash).collect()).await.ok()
    }

    async fn reload(&mut self, cause: Cause, load: &Load, files: &[PathBuf]) {
        let (load, files) = (Arc::clone(load), files.to_vec());
        let loaded = spawn_blocking(move || match refuse_pipes(&files) {
            Err(_) if cause == Cause::Start => None,
            Err(invalid) => Some(Err(invalid)),
            Ok(()) => Some(load()),
        });
        // This fails only when the runtime shuts down.
        let Ok(Some(loaded)) = loaded.await else { return };
        let warnings = loaded.as_ref().map(Config::warnings).unwrap_or_default();
        let new_warnings = new(warnings, &self.config.warnings());
        let outcome = match loaded {
            Ok(config) => self.take(config, cause).await,
            Err(invalid) => Err(invalid.problems),
        };
        match outcome {
            Ok(Outcome::Unchanged) if cause == Cause::Start => {}
            Ok(outcome) => {
                self.refused = None;
                for warning in new_warnings {
                    warn!("{warning}");
                }
                self.reloads.ended(outcome);
            }
            Err(problems) if cause == Cause::Retry && self.refused.as_ref() == Some(&problems) => {}
            Err(problems) => {
                error!(
                    problems = problems.len(),
                    "configuration reload refused; the previous configuration stays in effect"
                );
                for problem in &problems {
                    error!(%problem, "configuration problem");
                }
                self.reloads.ended(Outcome::Refused(problems.iter().map(Problem::to_string).collect()));
                self.refused = Some(problems);
            }
        }
    }

    /// Takes over a configuration.
    ///
    /// # Errors
    /// Why it can't be used; nothing has changed then.
    async fn take(&mut self, config: Config, cause: Cause) -> Result<Outcome, Vec<Problem>> {
        let (diff, config) = Diff::between(&self.config, config);
        let prepared = self.prepare(&diff, &config)?;
        if diff.applies_nothing() {
            if cause != Cause::Start {
                info!("configuration reloaded; nothing has changed that can take effect now");
            }
        } else {
            self.apply(&diff, config, prepared).await;
            info!(
                backends_added = diff.added.len(),
                backends_removed = diff.removed.len(),
                backends_changed = diff.changed.len(),
                settings_changed = diff.settings.len(),
                "configuration reloaded"
            );
        }
        let keys = diff.restart.iter().map(|change| change.key.clone()).collect();
        let known = self.reloads.need_restart(keys);
        for change in diff.restart.iter().filter(|change| !known.contains(&change.key)) {
            warn!(key = change.key, %change, "configuration key needs a restart to take effect");
        }
        Ok(if diff.applies_nothing() { Outcome::Unchanged } else { Outcome::Applied })
    }

    /// Does everything that can fail.
    fn prepare(&self, diff: &Diff, config: &Config) -> Result<Prepared, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut endpoints = BTreeMap::new();
        let is_new =
            |name| diff.added.contains(name) || diff.changed.iter().any(|change| change.name == *name);
        for backend in config.backends.iter().filter(|backend| is_new(&backend.name)) {
            match Endpoint::new(backend, &self.response_budget) {
                Ok(endpoint) => _ = endpoints.insert(Arc::clone(&backend.name), Arc::new(endpoint)),
                Err(error) => {
                    let subject = format!("backends.{}", backend.name);
                    problems.push(Problem { subject, text: format!("can't be set up: {error}") });
                }
            }
        }
        let access = diff.sets(&["access"]).then(|| self.live.access.load().renewed(&config.access));
        match access.transpose() {
            Ok(access) if problems.is_empty() => return Ok(Prepared { endpoints, access }),
            Ok(_) => {}
            Err(error) => {
                problems
                    .push(Problem { subject: "access".to_owned(), text: format!("can't be used: {error}") });
            }
        }
        Err(problems)
    }

    async fn apply(&mut self, diff: &Diff, config: Config, prepared: Prepared) {
        let Prepared { endpoints, access } = prepared;
        // Before a new backend can be called.
        if let Some(access) = access {
            if access.is_open() && !self.live.access.load().is_open() {
                warn!("callers are not identified any more: everybody may do everything");
            }
            self.live.access.swap(Arc::new(access)).retire();
            self.refresh = refresh(&self.live);
        }
        self.apply_settings(diff, &config);
        let old = std::mem::replace(&mut self.config, config);
        for name in &diff.removed {
            if let Some(replica) = &self.replica {
                replica.stop_sharing(name, RELEASE).await;
            }
            self.engine.retire_backend(name);
            self.forget_secret(&old, name).await;
            info!(backend = %name, "backend removed");
        }
        for change in &diff.changed {
            let known = if change.moves { KnownJobs::Others } else { KnownJobs::Same };
            self.forget_secret(&old, &change.name).await;
            self.leave_place(&change.name).await;
            self.start(&change.name, &endpoints, known).await;
            info!(backend = %change.name, changed = joined(&change.changes), "backend changed");
        }
        for name in &diff.added {
            self.start(name, &endpoints, KnownJobs::Others).await;
            info!(backend = %name, "backend added");
        }
        if descriptors::connections(&self.config) < self.connections {
            warn!(
                connections = self.connections,
                "file descriptors may run out with these backends; raise the limit with ulimit -n or LimitNOFILE"
            );
        }
    }

    /// Starts a backend or replaces its settings.
    async fn start(&self, name: &str, endpoints: &BTreeMap<Arc<str>, Arc<Endpoint>>, known: KnownJobs) {
        let backend = self.config.backends.iter().find(|backend| &*backend.name == name);
        let Some((backend, endpoint)) = backend.zip(endpoints.get(name)) else { return };
        let added = rotation::Change::Add(backend.credentials.clone(), Arc::clone(endpoint));
        let _ = self.rotation.send(added).await;
        let window = self.config.server.collection_window;
        let setup = setup(backend, Arc::clone(endpoint), window, self.tracer.as_ref());
        self.engine.reconfigure_backend(setup, known).await;
        if let (Some(replica), Some(shared)) = (&self.replica, self.engine.shared_backend(name)) {
            replica.share(shared, backend);
        }
    }

    /// Sessions of a backend that moves end before it does: they share statuses of one place.
    async fn leave_place(&self, name: &str) {
        let backend = self.config.backends.iter().find(|backend| &*backend.name == name);
        if let (Some(replica), Some(backend)) = (&self.replica, backend) {
            replica.leave_place(backend, RELEASE).await;
        }
    }

    async fn forget_secret(&self, config: &Config, name: &str) {
        let backend = config.backends.iter().find(|backend| &*backend.name == name);
        let credentials = backend.map_or(Credentials::NONE, |backend| backend.credentials.clone());
        let _ = self.rotation.send(rotation::Change::Remove(credentials)).await;
    }

    fn apply_settings(&self, diff: &Diff, config: &Config) {
        let Config { server, log, limits, .. } = config;
        if diff.sets(&["limits"]) {
            self.engine.set_limits(engine_limits(limits));
        }
        if diff.sets(&["server.collection_window"]) {
            self.engine.set_collection_window(server.collection_window);
        }
        self.service.set_bounds(bounds(config));
        self.live.access_log.store(log.access, Relaxed);
        if diff.sets(&["server.web"]) {
            self.live.web.swap(Arc::new(Web::new(&server.web))).retire();
        }
        if diff.sets(&["log.level"]) {
            let level = telemetry::filter(log.level.as_deref().unwrap_or("info"));
            if let Some(variable) = telemetry::filter_variable() {
                warn!(variable, "log.level has no effect: the variable comes first");
            } else if telemetry::level().is_some_and(|current| current != level)
                && let Err(error) = telemetry::set_level(&level)
            {
                warn!(%error, "log level not changed");
            }
        }
        for change in &diff.settings {
            info!(key = change.key, %change, "setting changed");
        }
    }
}

/// What every call has to keep to.
pub(super) fn bounds(config: &Config) -> api::Bounds {
    api::Bounds {
        batch_size: config.limits.batch_size,
        default_deadline: config.server.default_deadline,
        message_bytes: config.limits.message_bytes,
    }
}

/// Keeps the issuer's keys current until the returned value is dropped.
pub(super) fn refresh(live: &Live) -> AbortOnDropHandle<()> {
    let access = live.access.load_full();
    AbortOnDropHandle::new(tokio::spawn(async move { access.refresh().await }))
}

/// A pipe gives its content once, and reading it again may never end.
fn refuse_pipes(files: &[PathBuf]) -> Result<(), InvalidConfig> {
    let is_pipe = |file: &&PathBuf| std::fs::metadata(file).is_ok_and(|metadata| !metadata.is_file());
    let problems: Vec<Problem> = files
        .iter()
        .filter(is_pipe)
        .map(|file| Problem {
            subject: file.display().to_string(),
            text: "is not a regular file, so that it can't be read again; start the program with a file"
                .to_owned(),
        })
        .collect();
    if problems.is_empty() { Ok(()) } else { Err(InvalidConfig { problems }) }
}

fn new(warnings: Vec<String>, known: &[String]) -> Vec<String> {
    warnings.into_iter().filter(|warning| !known.contains(warning)).collect()
}

fn joined(changes: &[Change]) -> String {
    changes.iter().map(Change::to_string).collect::<Vec<_>>().join(", ")
}
