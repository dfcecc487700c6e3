//! What this program was built from.

/// Version of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit; "unknown" where it was built without git. In a debug build it may be an
/// earlier one, and ends in "-debug".
pub const COMMIT: &str = env!("JOBWATCH_COMMIT");

/// Version and commit, for `--version`.
pub const LONG_VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("JOBWATCH_COMMIT"), ")");

/// Features that it was built with.
pub fn features() -> String {
    let features = [("demo", cfg!(feature = "demo")), ("jemalloc", cfg!(feature = "jemalloc"))];
    let enabled: Vec<_> = features.iter().filter(|(_, enabled)| *enabled).map(|(name, _)| *name).collect();
    if enabled.is_empty() { "none".to_owned() } else { enabled.join(",") }
}
