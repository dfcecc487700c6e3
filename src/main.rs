//! The `jobwatch` program.

use std::process::ExitCode;

use jobwatch::cli::Cli;

/// See docs/performance.md for what it is worth.
#[cfg(all(feature = "jemalloc", not(target_env = "msvc")))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    Cli::from_command_line().run()
}
