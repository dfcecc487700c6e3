//! File descriptors: how many connections the process can have.

use crate::config::Config;

/// Descriptors for the log, the listening socket, the runtime and files that are read.
const OWN: u64 = 64;

/// Connections to a vendor beside those for polls and downloads at once.
const SPARE_PER_BACKEND: u64 = 8;

/// Raises the process's soft limit of descriptors as far as `config` needs. Returns how
/// many connections of callers fit beside those to vendors.
#[cfg(unix)]
pub(super) fn connections(config: &Config) -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let reserved = reserved(config);
    let wanted = reserved.saturating_add(config.limits.connections as u64);
    let limit = getrlimit(Resource::Nofile);
    let mut current = limit.current.unwrap_or(u64::MAX);
    let target = wanted.min(limit.maximum.unwrap_or(u64::MAX));
    if current < target {
        match setrlimit(Resource::Nofile, Rlimit { current: Some(target), maximum: limit.maximum }) {
            Ok(()) => current = target,
            Err(error) => tracing::warn!(%error, limit = current, "file descriptor limit not raised"),
        }
    }
    usize::try_from(current.saturating_sub(reserved)).unwrap_or(usize::MAX).max(1)
}

#[cfg(not(unix))]
pub(super) fn connections(_: &Config) -> usize {
    usize::MAX
}

/// Descriptors that are not for callers.
fn reserved(config: &Config) -> u64 {
    let of_backend = |concurrency: usize| 2 * concurrency as u64 + SPARE_PER_BACKEND;
    let backends = config.backends.iter().map(|backend| of_backend(backend.poll.max_concurrency.get()));
    OWN + backends.sum::<u64>()
}
