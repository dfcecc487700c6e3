//! The gRPC server: services, layers, drain.

use std::{io, sync::Arc};

use thiserror::Error;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// Why the server can't start or go on.
#[derive(Debug, Error)]
pub enum ServeError {
    /// A file of the configuration can't be read.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Serves `config` on `listener` until `shutdown` is cancelled, then lets open
/// calls end. Returns within ten seconds of the cancellation.
pub async fn run(
    _listener: TcpListener,
    _shutdown: CancellationToken,
    _config: Config,
) -> Result<(), ServeError> {
    todo!()
}

/// Tries every backend's credentials; why not, where they don't work.
pub async fn check_backends(_config: &Config) -> Vec<(Arc<str>, Result<(), String>)> {
    todo!()
}
