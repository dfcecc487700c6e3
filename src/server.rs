//! The gRPC server: services, layers, drain.

use std::{error::Error as _, io, net::SocketAddr, num::NonZeroUsize, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::transport::{self, Certificate, Identity, Server, ServerTlsConfig};
use tonic_health::ServingStatus;
use tower::util::MapResponseLayer;
use tracing::{info, warn};

use crate::{
    access::{Access, AccessError},
    admin::{self, Admin, Phase, Readiness},
    api::Service,
    config::{Backend, Config, Tls},
    engine::{BackendSetup, Engine, EngineLimits, MemoryLimits, PollInterval, PollPlan, WatchLimits},
    proto::{
        self,
        served::job_status_service_server::{JobStatusServiceServer, SERVICE_NAME},
    },
    telemetry::build,
    transport::{Backoff, Endpoint, RateLimiter, ResponseBudget, SetupError},
};

mod dispatch;
mod incoming;
mod messages;
mod observe;
mod rotation;
mod upkeep;

use dispatch::DispatchLayer;
use rotation::Rotation;
use upkeep::Upkeep;

/// How long open calls may continue after the shutdown began. Calls that wait for a
/// vendor end at once, so only a client that does not read reaches this limit.
const DRAIN: Duration = Duration::from_secs(8);

/// Interval and time-out of HTTP/2 keepalive pings. The watches of a client that
/// vanished end with its connection.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// HTTP/2 flow-control window of a connection. A WatchJobs call may begin with thousands
/// of requests, each in a frame of its own, and h2 closes a connection with more small
/// unread frames than the window allows for.
const CONNECTION_WINDOW: u32 = 64 << 20;

/// Why the server can't start or continue.
#[derive(Debug, Error)]
pub enum ServeError {
    /// A file that the configuration names can't be read.
    #[error("{path} can't be read: {error}")]
    File {
        /// The file.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// The socket failed.
    #[error(transparent)]
    Socket(#[from] io::Error),
    /// The admin address can't be listened on.
    #[error("admin.listen {address} can't be listened on: {error}")]
    Admin {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// A backend can't be set up.
    #[error("backends.{backend}: {error}")]
    Backend {
        /// Its key in the configuration.
        backend: Arc<str>,
        /// Why.
        error: SetupError,
    },
    /// Callers can't be identified as configured.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// Reflection can't be set up.
    #[error(transparent)]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The task that polls a backend ended, which is a bug.
    #[error("the task that polls a backend ended; report the log lines before this one")]
    PollTask,
    /// TLS can't be set up, or the transport failed.
    #[error("{}", with_cause(.0))]
    Transport(#[from] transport::Error),
}

fn with_cause(error: &transport::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

/// Serves `config` on `listener` until `shutdown` is cancelled, then lets open
/// calls end. Returns within ten seconds of the cancellation.
pub async fn run(
    listener: TcpListener,
    shutdown: CancellationToken,
    config: Config,
) -> Result<(), ServeError> {
    let Config { server, admin, log, access, limits, backends } = config;
    let access = Arc::new(Access::new(&access)?);
    let engine_limits = EngineLimits {
        watches: WatchLimits {
            total: limits.watches,
            per_caller: limits.watches_per_caller,
            per_call: limits.watches_per_call,
        },
        memory: MemoryLimits {
            status_bytes: limits.status_bytes,
            inline_result_bytes: limits.inline_result_bytes,
            jobs: limits.jobs,
        },
    };
    let (engine, poll_tasks) = Engine::new(engine_limits, shutdown.clone());
    let names: Vec<String> = backends.iter().map(|backend| backend.name.to_string()).collect();
    let mut rotation = Rotation::default();
    let response_budget = ResponseBudget::new(usize::try_from(limits.response_bytes).unwrap_or(usize::MAX));
    for backend in backends {
        let endpoint = Endpoint::new(&backend, &response_budget)
            .map_err(|error| ServeError::Backend { backend: Arc::clone(&backend.name), error })?;
        let endpoint = Arc::new(endpoint);
        rotation.add(&backend.credentials, &endpoint);
        engine.start_backend(setup(&backend, endpoint, server.collection_window));
    }
    let _rotation = AbortOnDropHandle::new(tokio::spawn(rotation.run(rotation::INTERVAL)));
    let _refresh = AbortOnDropHandle::new(tokio::spawn({
        let access = Arc::clone(&access);
        async move { access.refresh().await }
    }));
    let readiness = Readiness::default();
    let admin_limits = admin::Limits {
        responses: Arc::clone(&response_budget),
        response_bytes: response_budget.available() as u64,
        connections: limits.connections,
        certificate: server.tls.as_ref().map(|tls| tls.cert.clone()),
    };
    let answers = Admin { readiness: readiness.clone(), engine: Arc::clone(&engine), limits: admin_limits };
    let _admin = match admin.listen {
        Some(address) => Some(serve_admin(address, answers).await?),
        None => None,
    };
    let service = Service::new(Arc::clone(&engine), limits.batch_size, server.default_deadline)
        .with_message_bytes(limits.message_bytes);

    let (mut health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<JobStatusServiceServer<Service<Engine>>>().await;
    let upkeep = Upkeep { engine, health: health.clone(), publishes_backends: access.is_open() };
    let upkeep = AbortOnDropHandle::new(tokio::spawn(upkeep.run()));

    let mut builder = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .initial_connection_window_size(Some(CONNECTION_WINDOW))
        .max_concurrent_streams(Some(limits.streams_per_connection))
        .layer(MapResponseLayer::new(messages::plain))
        .layer(DispatchLayer::new(JobStatusServiceServer::new(service), Arc::clone(&access), log.access));
    if let Some(tls) = &server.tls {
        builder = builder.tls_config(tls_config(tls)?)?;
    }
    let address = listener.local_addr()?;
    let router = builder
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .add_service(health_service);
    let incoming = incoming::incoming(listener, limits.connections, server.tls.is_some());
    let serving = router.serve_with_incoming_shutdown(incoming, shutdown.clone().cancelled_owned());
    let mut serving = std::pin::pin!(serving);
    info!(
        %address,
        backends = names.join(","),
        tls = server.tls.is_some(),
        version = build::VERSION,
        commit = build::COMMIT,
        features = build::features(),
        "listening on {address}"
    );
    readiness.set(Phase::Ready);

    tokio::select! {
        biased;
        // First: without an open call the serving ends in the same moment.
        () = shutdown.cancelled() => {}
        outcome = &mut serving => return Ok(outcome?),
        () = poll_tasks.failed() => return Err(ServeError::PollTask),
    }
    readiness.set(Phase::Draining);
    info!(drain_s = DRAIN.as_secs(), "shutdown began");
    drop(upkeep);
    // Notify the health watches, then end them: they have no end of their own.
    for service in ["", SERVICE_NAME] {
        health.set_service_status(service, ServingStatus::NotServing).await;
        health.clear_service_status(service).await;
    }
    if let Ok(outcome) = timeout(DRAIN, serving).await {
        outcome?;
    } else {
        warn!(drain_s = DRAIN.as_secs(), "open calls were cancelled after the drain");
    }
    drop(poll_tasks);
    info!("stopped");
    Ok(())
}

/// Serves the admin address until the returned value is dropped.
async fn serve_admin(address: SocketAddr, admin: Admin) -> Result<AbortOnDropHandle<()>, ServeError> {
    let failed = |error| ServeError::Admin { address, error };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    info!(%address, "admin address is {address}");
    let serving = async move {
        if let Err(error) = admin.serve(listener).await {
            warn!(%error, "admin address failed");
        }
    };
    Ok(AbortOnDropHandle::new(tokio::spawn(serving)))
}

/// The engine's settings for a backend.
fn setup(backend: &Backend, endpoint: Arc<Endpoint>, collection_window: Duration) -> BackendSetup {
    let Backend { name, vendor, poll, .. } = backend;
    let adapter = Arc::clone(endpoint.adapter());
    let max_batch = adapter.capabilities().max_batch;
    BackendSetup {
        name: Arc::clone(name),
        vendor: vendor.kind().key,
        check: Box::new(move |job| adapter.check(job)),
        upstream: endpoint,
        plan: PollPlan {
            interval: PollInterval { min: poll.min_interval, max: poll.max_interval },
            backoff: Backoff { min: poll.min_interval, max: poll.max_backoff },
            // Waiting for other jobs pays only where a poll can be shared.
            collection_window: if max_batch == NonZeroUsize::MIN {
                Duration::ZERO
            } else {
                collection_window
            },
            max_batch,
            max_concurrency: poll.max_concurrency,
            requests_per_second: poll.requests_per_second,
        },
        timeout: poll.timeout,
        not_found_grace: poll.not_found_grace,
    }
}

/// Polls every backend for a job that does not exist. The error of a backend is the
/// reason why its address or credentials don't work.
pub async fn check_backends(config: &Config) -> Vec<(Arc<str>, Result<(), String>)> {
    let response_budget =
        ResponseBudget::new(usize::try_from(config.limits.response_bytes).unwrap_or(usize::MAX));
    let checks = config.backends.iter().map(|backend| async {
        let outcome = match Endpoint::new(backend, &response_budget) {
            Ok(endpoint) => {
                let limiter = RateLimiter::new(backend.poll.requests_per_second);
                endpoint.probe(limiter.deferred()).await
            }
            Err(error) => Err(error.to_string()),
        };
        (Arc::clone(&backend.name), outcome)
    });
    futures_util::future::join_all(checks).await
}

/// Reflection with every message that a client may decode: both versions of reflection,
/// health, and the details of errors.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET)
}

fn tls_config(tls: &Tls) -> Result<ServerTlsConfig, ServeError> {
    let read = |path: &std::path::Path| {
        std::fs::read(path).map_err(|error| ServeError::File { path: path.display().to_string(), error })
    };
    let Tls { cert, key, client_ca } = tls;
    let config =
        ServerTlsConfig::new().timeout(HANDSHAKE).identity(Identity::from_pem(read(cert)?, read(key)?));
    Ok(match client_ca {
        Some(ca) => config.client_ca_root(Certificate::from_pem(read(ca)?)),
        None => config,
    })
}
