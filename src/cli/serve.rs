//! `jobwatch serve`: the gateway itself.

use std::{io, sync::Arc};

use tokio::{net::TcpListener, signal, sync::mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    Configuration,
    exit::{Exit, Failure},
};
use crate::{
    server::{self, ConfigSource},
    telemetry,
};

/// Runs the gateway. SIGHUP, or a change of a file that the configuration is read from,
/// reloads the configuration.
///
/// SIGTERM and SIGINT stop it: it is not ready from then on, accepts calls for
/// server.drain_delay, ends watches after their newest status, and waits at most
/// server.drain_timeout for other calls. A second signal ends the process at once.
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
        let reload_requests = on_hangup();
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
        let signals =
            Signals::new().map_err(|error| Failure::Usage(format!("signals can't be received: {error}")))?;
        let signals = tokio::spawn(stop_on_signal(signals, shutdown.clone()));
        let configuration = self.configuration;
        let source = ConfigSource {
            files: configuration.files(),
            load: Arc::new(move || configuration.load()),
            requests: reload_requests,
        };
        let served = server::run_reloading(listener, shutdown, config, source).await;
        signals.abort();
        served.map(|()| Exit::Succeeded).map_err(|error| Failure::Usage(error.to_string()))
    }
}

/// A message for each SIGHUP, from now on. It does not end the process any more.
fn on_hangup() -> mpsc::Receiver<()> {
    let (sender, receiver) = mpsc::channel(1);
    #[cfg(unix)]
    match signal::unix::signal(signal::unix::SignalKind::hangup()) {
        Ok(mut hangups) => {
            tokio::spawn(async move {
                while hangups.recv().await.is_some() {
                    // Where one waits already, it is for the same files.
                    let _ = sender.try_send(());
                }
            });
        }
        Err(error) => eprintln!("warning: SIGHUP can't be handled: {error}"),
    }
    receiver
}

/// The first SIGTERM or SIGINT starts a graceful shutdown, the second one exits at once.
async fn stop_on_signal(mut signals: Signals, shutdown: CancellationToken) {
    signals.next().await;
    shutdown.cancel();
    tracing::info!("shutdown requested");
    signals.next().await;
    std::process::exit(Exit::Interrupted.code().into());
}

/// SIGTERM and SIGINT. None is lost between two calls of [`next`](Self::next).
#[cfg(unix)]
struct Signals([signal::unix::Signal; 2]);

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        let on = |kind| signal::unix::signal(kind);
        Ok(Self([on(signal::unix::SignalKind::terminate())?, on(signal::unix::SignalKind::interrupt())?]))
    }

    async fn next(&mut self) {
        let Self([terminate, interrupt]) = self;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

/// Ctrl-C.
#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    #[expect(clippy::unnecessary_wraps, reason = "elsewhere it can fail")]
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        signalled().await;
    }
}

/// Waits for SIGTERM or SIGINT.
#[cfg(any(feature = "demo", not(unix)))]
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
