//! `jobwatch serve`: the gateway itself.

use tokio::{net::TcpListener, signal};
use tokio_util::sync::CancellationToken;

use super::{
    Configuration,
    exit::{Exit, Failure},
};
use crate::{server, telemetry};

/// Runs the gateway.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    configuration: Configuration,

    /// Format of log lines. Set the filter with `JOBWATCH_LOG` or `RUST_LOG`.
    /// Without this: log.format of the configuration, else text.
    #[arg(long, value_enum, value_name = "FORMAT")]
    log_format: Option<telemetry::Format>,
}

impl Args {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let environment = self.configuration.environment()?;
        let variables = environment.keys().join(",");
        let config = self.configuration.load_with(environment)?;
        let format = self.log_format.or(config.log.format).unwrap_or_default();
        let level = config.log.level.as_deref().unwrap_or("info");
        let _flush = telemetry::init(format, &telemetry::filter(level))
            .map_err(|error| Failure::Usage(error.to_string()))?;
        self.configuration.log(&variables);
        for warning in config.warnings() {
            tracing::warn!("{warning}");
        }
        let listener = TcpListener::bind(config.server.listen).await.map_err(|error| {
            Failure::Usage(format!("server.listen {} can't be listened on: {error}", config.server.listen))
        })?;
        let shutdown = CancellationToken::new();
        let signals = tokio::spawn(stop_on_signal(shutdown.clone()));
        let served = server::run(listener, shutdown, config).await;
        signals.abort();
        served.map(|()| Exit::Succeeded).map_err(|error| Failure::Usage(error.to_string()))
    }
}

/// The first SIGTERM or SIGINT starts a graceful shutdown, the second one exits at once.
pub(super) async fn stop_on_signal(shutdown: CancellationToken) {
    signalled().await;
    shutdown.cancel();
    tracing::info!("shutdown requested");
    signalled().await;
    std::process::exit(Exit::Interrupted.code().into());
}

/// Waits for SIGTERM or SIGINT.
pub(super) async fn signalled() {
    #[cfg(unix)]
    if let Ok(mut term) = signal::unix::signal(signal::unix::SignalKind::terminate()) {
        tokio::select! {
            _ = term.recv() => return,
            Ok(()) = signal::ctrl_c() => return,
        }
    }
    if signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
