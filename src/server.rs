//! The gRPC server: services, layers, drain.

use std::{io, net::SocketAddr, num::NonZeroUsize, sync::Arc, time::Duration};

use futures_util::FutureExt;
use thiserror::Error;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::service::Routes;
use tracing::{info, warn};

use crate::{
    access::{Access, AccessError},
    admin::{self, Admin, Phase, Readiness, Reloads},
    api::Service,
    cluster::Replica,
    config::{Backend, Config, IDLE_CONNECTION_BYTES, Limits},
    engine::{BackendSetup, Engine, EngineLimits, MemoryLimits, PollInterval, PollPlan, WatchLimits},
    proto::{
        self, longrunning::operations_server::OperationsServer,
        served::job_status_service_server::JobStatusServiceServer,
    },
    telemetry::{build, traces::Tracer},
    transport::{Backoff, Endpoint, RateLimiter, ResponseBudget, SetupError},
};

mod call;
mod connection;
mod connection_age;
mod descriptors;
mod dispatch;
mod drain;
mod ending_body;
mod form;
mod http1;
mod incoming;
mod listener;
mod messages;
mod observe;
mod other_protocols;
mod reload;
mod request_body;
mod revocation;
mod rotation;
mod site;
mod socket;
mod tls;
mod traces;
mod trial;
mod upkeep;
mod usage;
mod web;
mod wire;

use connection_age::AgeLimit;
use dispatch::{Dispatch, Live};
use drain::Drain;
use listener::Listener;
use reload::Reloader;
pub use reload::{ConfigSource, Load};
use rotation::Rotation;
use tls::Tls;
pub use tls::TlsError;
pub use traces::{TracesError, check_traces};
pub use trial::{Trial, TrialFailure, try_job};
use upkeep::Upkeep;
use usage::{Room, Usage};

/// How long the leases of backends may be released.
const RELEASE: Duration = Duration::from_secs(2);

/// How long the last spans may be exported after the drain.
const FLUSH: Duration = Duration::from_secs(1);

/// Why the server can't start or continue.
#[derive(Debug, Error)]
pub enum ServeError {
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
    /// Traces can't be exported.
    #[error(transparent)]
    Traces(#[from] TracesError),
    /// Reflection can't be set up.
    #[error(transparent)]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The task that polls a backend ended, which is a bug.
    #[error("the task that polls a backend ended; report the log lines before this one")]
    PollTask,
    /// TLS can't be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Serves `config` on `listener` until `shutdown` is cancelled, then drains. Returns when the
/// last connection has ended, and within five seconds after `server.drain_delay` and
/// `server.drain_timeout`.
pub async fn run(
    listener: TcpListener,
    shutdown: CancellationToken,
    config: Config,
) -> Result<(), ServeError> {
    run_with(listener, shutdown, config, None).await
}

/// As [`run`], and takes over another configuration from `source` whenever that changes.
pub async fn run_reloading(
    listener: TcpListener,
    shutdown: CancellationToken,
    config: Config,
    source: ConfigSource,
) -> Result<(), ServeError> {
    run_with(listener, shutdown, config, Some(source)).await
}

async fn run_with(
    listener: TcpListener,
    shutdown: CancellationToken,
    config: Config,
    source: Option<ConfigSource>,
) -> Result<(), ServeError> {
    let (connections, room) = connection_room(&config);
    let Config { server, admin, log, traces, access, limits, cluster: _, backends: _ } = &config;
    let tls = server.tls.as_ref().map(Tls::new).transpose()?;
    let live = Live::new(Access::new(access)?, log.access, web::Web::new(&server.web));
    let draining = CancellationToken::new();
    let (engine, poll_tasks) = Engine::new(engine_limits(limits), draining.clone());
    let (tracer, exporter) = traces.as_ref().map(traces::start).transpose()?.unzip();
    let response_budget = ResponseBudget::new(usize::try_from(limits.response_bytes).unwrap_or(usize::MAX));
    let rotation = start_backends(&config, &engine, &response_budget, tracer.as_ref())?;
    let (rotation_changes, changes) = mpsc::channel(rotation::CHANGES);
    let _rotation = AbortOnDropHandle::new(tokio::spawn(rotation.run(rotation::INTERVAL, changes)));
    let replica = share_backends(&config, &engine);
    let refresh = reload::refresh(&live);
    let readiness = Readiness::default();
    let admin_limits = admin::Limits {
        responses: Arc::clone(&response_budget),
        response_bytes: response_budget.available() as u64,
        connections,
        certificate: server.tls.as_ref().map(|tls| tls.cert.clone()),
    };
    let reloads = Arc::new(Reloads::default());
    let answers = Admin {
        readiness: readiness.clone(),
        engine: Arc::clone(&engine),
        limits: admin_limits,
        reloads: Arc::clone(&reloads),
        hosts: admin.hosts.clone().into(),
        live: admin::LivePages::default(),
        replica: replica.clone(),
    };
    let _admin = match admin.listen {
        Some(address) => Some(serve_admin(address, answers).await?),
        None => None,
    };
    let service = Service::new(Arc::clone(&engine), limits.batch_size, server.default_deadline)
        .with_message_bytes(limits.message_bytes)
        .with_replica(replica.clone());

    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<JobStatusServiceServer<Service<Engine>>>().await;
    health.set_serving::<OperationsServer<Service<Engine>>>().await;
    let upkeep = Upkeep {
        engine: Arc::clone(&engine),
        health,
        access: Arc::clone(&live.access),
        shutdown: shutdown.clone(),
        draining: draining.clone(),
    };
    let _upkeep = AbortOnDropHandle::new(tokio::spawn(upkeep.run()));

    let others = Routes::new(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .add_service(health_service)
        .prepare();
    let (tls, tls_files) = tls.unzip();
    let _tls_files = tls_files.map(|files| AbortOnDropHandle::new(tokio::spawn(files.run())));
    let dispatch = Dispatch::new(service.clone(), live.clone(), others, tracer.clone(), draining.clone());
    let address = listener.local_addr()?;
    let usage = Usage::new(room);
    let at_most = listener::Limits {
        connections,
        streams: limits.streams_per_connection,
        age: AgeLimit::new(server.max_connection_age, server.max_connection_age_grace),
    };
    let serving = Listener::new(listener, at_most, &usage, dispatch, tls).run(draining.clone());
    let mut serving = std::pin::pin!(serving.fuse());
    announce(address, &config);
    readiness.set(Phase::Ready);
    let server = server.clone();
    let reloader = Reloader {
        engine: Arc::clone(&engine),
        tracer,
        service,
        live,
        response_budget,
        rotation: rotation_changes,
        connections,
        reloads,
        replica: replica.clone(),
        refresh,
        refused: None,
        config,
    };
    let _reloader = AbortOnDropHandle::new(tokio::spawn(reloader.run(source, shutdown.clone())));

    tokio::select! {
        biased;
        // First: without an open call the serving ends in the same moment.
        () = shutdown.cancelled() => {}
        () = &mut serving => {}
        () = poll_tasks.failed() => return Err(ServeError::PollTask),
    }
    let drain =
        Drain { server: &server, readiness: &readiness, engine: &engine, usage: &usage, draining: &draining };
    tokio::select! {
        () = shut_down(drain, serving, replica.as_deref()) => {}
        () = poll_tasks.failed() => return Err(ServeError::PollTask),
    }
    if let Some(exporter) = exporter {
        exporter.shut_down(FLUSH).await;
    }
    Ok(())
}

/// Has all backends polled. Returns what reads their secrets again.
fn start_backends(
    config: &Config,
    engine: &Engine,
    responses: &Arc<ResponseBudget>,
    tracer: Option<&Tracer>,
) -> Result<Rotation, ServeError> {
    let mut rotation = Rotation::default();
    for backend in &config.backends {
        let endpoint = Endpoint::new(backend, responses)
            .map_err(|error| ServeError::Backend { backend: Arc::clone(&backend.name), error })?;
        let endpoint = Arc::new(endpoint);
        rotation.add(&backend.credentials, &endpoint);
        engine.start_backend(setup(backend, endpoint, config.server.collection_window, tracer));
    }
    Ok(rotation)
}

/// Shares all backends with other replicas, if there are to be any.
fn share_backends(config: &Config, engine: &Engine) -> Option<Arc<Replica>> {
    let replica = Replica::start(config.cluster.as_ref()?);
    for backend in &config.backends {
        if let Some(shared) = engine.shared_backend(&backend.name) {
            replica.share(shared, backend);
        }
    }
    Some(replica)
}

/// Drains the server. Releases the leases when watches end: another replica polls for those who
/// come back there.
async fn shut_down(drain: Drain<'_>, serving: impl Future<Output = ()>, replica: Option<&Replica>) {
    let draining = drain.draining;
    let drained = async {
        drain.run(serving).await;
        // Also where it ended before it had begun.
        draining.cancel();
    };
    let released = async {
        if let Some(replica) = replica {
            draining.cancelled().await;
            replica.release(RELEASE).await;
        }
    };
    tokio::join!(drained, released);
}

/// Logs that calls are accepted, and by which program.
fn announce(address: SocketAddr, config: &Config) {
    let names: Vec<&str> = config.backends.iter().map(|backend| &*backend.name).collect();
    info!(
        %address,
        backends = names.join(","),
        tls = config.server.tls.is_some(),
        version = build::VERSION,
        commit = build::COMMIT,
        features = build::features(),
        "listening on {address}"
    );
}

/// The engine's bounds.
fn engine_limits(limits: &Limits) -> EngineLimits {
    EngineLimits {
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
    }
}

/// How many connections there may be, and what they may take. Logs both.
fn connection_room(config: &Config) -> (usize, Room) {
    let limits = &config.limits;
    let connections = limits.connections.min(descriptors::connections(config));
    if connections < limits.connections {
        warn!(
            connections,
            "limits.connections reduced to what the file descriptor limit allows; raise it with ulimit -n \
             or LimitNOFILE"
        );
    }
    // An address keeps its share of them.
    let per_address = limits.connections_per_address.min(limits.connections);
    let per_address = (per_address * connections).div_ceil(limits.connections);
    let room = Room::new(limits.connection_bytes, IDLE_CONNECTION_BYTES, connections, per_address);
    info!(
        connections,
        per_address = room.connections_per_address,
        idle_bytes = connections * IDLE_CONNECTION_BYTES,
        call_bytes = room.bytes,
        call_bytes_per_address = room.bytes_per_address,
        call_bytes_per_connection = room.bytes_per_connection,
        "connections take at most {} bytes",
        limits.connection_bytes
    );
    (connections, room)
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
fn setup(
    backend: &Backend,
    endpoint: Arc<Endpoint>,
    collection_window: Duration,
    tracer: Option<&Tracer>,
) -> BackendSetup {
    let Backend { name, vendor, poll, .. } = backend;
    let adapter = Arc::clone(endpoint.adapter());
    let max_batch = adapter.capabilities().max_batch;
    BackendSetup {
        name: Arc::clone(name),
        vendor: vendor.kind().key,
        vendor_version: vendor.definition_version().unwrap_or_default().into(),
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
            terminal_age: vendor.reopens().then_some(poll.min_interval),
        },
        timeout: poll.timeout,
        not_found_grace: poll.not_found_grace,
        tracer: tracer.cloned(),
    }
}

/// Sets every backend up as [`run`] does, without a connection. The error of a backend is
/// what its configuration or this machine lacks.
pub fn set_up_backends(config: &Config) -> Vec<(Arc<str>, Result<(), String>)> {
    let response_budget = ResponseBudget::new(1);
    let set_up = |backend: &Backend| {
        let outcome = Endpoint::new(backend, &response_budget);
        (Arc::clone(&backend.name), outcome.map(drop).map_err(|error| error.to_string()))
    };
    config.backends.iter().map(set_up).collect()
}

/// Reads what `access` names as [`run`] does.
///
/// # Errors
/// A file that can't be used.
pub fn check_access(config: &Config) -> Result<(), AccessError> {
    Access::new(&config.access).map(drop)
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
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET)
}

/// Reads the TLS files as the server would. Returns warnings.
///
/// # Errors
/// A file that can't be used now.
pub fn check_tls(config: &Config) -> Result<Vec<String>, TlsError> {
    config.server.tls.as_ref().map_or_else(|| Ok(Vec::new()), tls::check)
}
