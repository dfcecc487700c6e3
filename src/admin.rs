//! The HTTP server for operators: probes, metrics, the log level, a page.
//!
//! | path | response |
//! | --- | --- |
//! | `GET /livez` | 200 while the process runs |
//! | `GET /readyz` | 200 from the start to the shutdown, else 503; JSON that says why |
//! | `GET /metrics` | Prometheus text format |
//! | `GET /cluster` | with `[cluster]`: what this replica does among the others, as JSON |
//! | `GET /log-level` | the filter of the log |
//! | `PUT /log-level` | replaces it; only from this machine |
//! | `GET /` | the page for people, see `page.rs` |
//!
//! It listens on loopback unless `admin.allow_remote` is set, and asks nobody for
//! credentials. It answers during the drain, too.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{ConnectInfo, State},
    middleware::{from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header};
use serde_json::json;
use tokio::{net::TcpListener, time::timeout};
use tower::limit::GlobalConcurrencyLimitLayer;

use crate::{
    cluster::{
        Replica, ReplicaStatus,
        status::{NatsStatus, RoleName},
    },
    engine::{Engine, Health, JobStatuses},
    telemetry::{self, LevelError},
};

mod connections;
mod guard;
mod page;
mod reloads;
mod scrape;

pub use guard::foreign_host;
pub use page::Live as LivePages;
pub use reloads::{Outcome, Reloads};
pub use scrape::Limits;

/// Largest body of a request.
const BODY: usize = 4 << 10;

/// How long a client may take to send it.
const BODY_TIME: Duration = Duration::from_secs(5);

/// Most requests at once, but for probes; further ones wait.
const REQUESTS: usize = 16;

/// Whether clients should send calls.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicU8>);

/// What the server does at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It does not accept calls yet.
    Starting,
    /// It accepts calls.
    Ready,
    /// It shuts down. Calls are still accepted during `server.drain_delay`.
    Draining,
}

impl Readiness {
    /// From now on the server does this.
    pub fn set(&self, phase: Phase) {
        self.0.store(phase as u8, Relaxed);
    }

    /// What it does now.
    pub fn get(&self) -> Phase {
        match self.0.load(Relaxed) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
        })
    }
}

/// What the requests are answered from.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Whether calls are accepted.
    pub readiness: Readiness,
    /// How the backends are doing.
    pub engine: Arc<Engine>,
    /// What is bounded beside the engine.
    pub limits: Limits,
    /// How the last reload of the configuration ended.
    pub reloads: Arc<Reloads>,
    /// The names of `admin.hosts`, by which a browser may reach the page.
    pub hosts: Arc<[String]>,
    /// The open pages.
    pub live: LivePages,
    /// This replica among others, with `[cluster]`.
    pub replica: Option<Arc<Replica>>,
}

impl Admin {
    /// Serves requests on `listener` until it is dropped.
    pub async fn serve(self, listener: TcpListener) -> io::Result<()> {
        connections::serve(listener, self.router()).await
    }

    fn router(self) -> Router {
        page::routes()
            .route("/log-level", get(log_level).put(set_log_level))
            .layer(from_fn_with_state(self.clone(), guard::check_host))
            // Those of programs, which reach them by any name.
            .route("/metrics", get(metrics))
            .route("/cluster", get(cluster))
            .layer(GlobalConcurrencyLimitLayer::new(REQUESTS))
            // Probes wait for nothing, and cost little.
            .route("/livez", get(async || "ok\n"))
            .route("/readyz", get(ready))
            .layer(from_fn(guard::protect))
            .with_state(self)
    }
}

async fn ready(State(admin): State<Admin>) -> Response {
    let phase = admin.readiness.get();
    let backends: serde_json::Map<_, _> = admin
        .engine
        .backends()
        .into_iter()
        .map(|backend| (backend.name.to_string(), name_of(backend.report.health).into()))
        .collect();
    let code = if phase == Phase::Ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    // An operator's mistake is no reason to send calls elsewhere.
    let configuration = admin.reloads.last().detail();
    let mut body =
        json!({ "status": phase.to_string(), "backends": backends, "configuration": configuration });
    if let Some(replica) = &admin.replica {
        body["cluster"] = cluster_detail(&replica.status());
    }
    (code, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}

fn name_of(health: Health) -> &'static str {
    match health {
        Health::Unknown => "unknown",
        Health::Healthy => "healthy",
        Health::Degraded => "degraded",
        Health::Unavailable => "unavailable",
    }
}

/// Whether this replica shares the work. If it doesn't, it still serves its callers.
fn cluster_detail(status: &ReplicaStatus) -> serde_json::Value {
    let isolated: Vec<_> = status.isolated().map(|seat| &seat.backend).collect();
    let is_starting = status.backends.iter().any(|seat| seat.role == RoleName::Starting);
    let summary = match (isolated.is_empty(), is_starting) {
        (false, _) => "isolated",
        (true, true) => "starting",
        (true, false) => "sharing",
    };
    let mut detail = json!({ "status": summary, "isolated_backends": isolated });
    let refused = status.backends.iter().filter_map(|seat| Some((seat.backend.clone(), seat.why.clone()?)));
    let refused: BTreeMap<_, _> = refused.collect();
    if !refused.is_empty() {
        detail["refused"] = json!(refused);
    }
    if let NatsStatus::Disconnected { why, .. } = &status.nats {
        detail["not_connected"] = why.as_str().into();
    }
    detail
}

async fn cluster(State(admin): State<Admin>) -> Response {
    let Some(replica) = &admin.replica else {
        return (StatusCode::NOT_FOUND, "the configuration has no section [cluster]\n").into_response();
    };
    let body = json!(replica.status());
    ([(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    match scrape::text(&admin) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn log_level() -> Response {
    match telemetry::level() {
        Some(level) => format!("{level}\n").into_response(),
        None => (StatusCode::NOT_FOUND, "this process does not log\n").into_response(),
    }
}

async fn set_log_level(ConnectInfo(peer): ConnectInfo<SocketAddr>, body: Body) -> Response {
    if !peer.ip().is_loopback() {
        let why = "the log level is set from this machine only\n";
        return (StatusCode::FORBIDDEN, why).into_response();
    }
    let body = match timeout(BODY_TIME, to_bytes(body, BODY)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return (StatusCode::PAYLOAD_TOO_LARGE, "the filter is too long\n").into_response(),
        Err(_) => return (StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time\n").into_response(),
    };
    let text = String::from_utf8_lossy(&body);
    match telemetry::set_level(text.trim()) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error @ LevelError::NotLogging) => (StatusCode::NOT_FOUND, format!("{error}\n")).into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use http::{Request, Response};
    use http_body_util::BodyExt;
    use tokio_util::sync::CancellationToken;
    use tower::ServiceExt;

    use super::*;
    use crate::{
        engine::{EngineLimits, MemoryLimits, WatchLimits},
        transport::ResponseBudget,
    };

    pub(crate) fn admin() -> Admin {
        let limits = EngineLimits {
            watches: WatchLimits { total: 1, per_caller: 1, per_call: 1 },
            memory: MemoryLimits { status_bytes: 1024, inline_result_bytes: 1, jobs: 1 },
        };
        let (engine, _) = Engine::new(limits, CancellationToken::new());
        let responses = ResponseBudget::new(1024);
        let limits = Limits { responses, response_bytes: 1024, connections: 1, certificate: None };
        let readiness = Readiness::default();
        let (hosts, live, reloads) = (Arc::default(), LivePages::default(), Arc::default());
        Admin { readiness, engine, limits, reloads, hosts, live, replica: None }
    }

    /// The response to a request that comes from this address.
    async fn send(admin: &Admin, request: http::request::Builder, peer: &str) -> Response<axum::body::Body> {
        let mut request = request.body(axum::body::Body::from("info")).unwrap();
        let peer: SocketAddr = peer.parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(peer));
        admin.clone().router().oneshot(request).await.unwrap()
    }

    #[tokio::test]
    async fn server_is_ready_only_between_start_and_drain() {
        let admin = admin();
        for (phase, code, name) in [
            (Phase::Starting, 503, "starting"),
            (Phase::Ready, 200, "ready"),
            (Phase::Draining, 503, "draining"),
        ] {
            admin.readiness.set(phase);
            let response = send(&admin, Request::get("/readyz"), "127.0.0.1:1").await;
            assert_eq!(response.status().as_u16(), code);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let mut body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert!(body["configuration"]["read_at"].take().is_string());
            let configuration = json!({ "status": "current", "read_at": null });
            assert_eq!(body, json!({ "status": name, "backends": {}, "configuration": configuration }));
            assert_eq!(send(&admin, Request::get("/livez"), "127.0.0.1:1").await.status().as_u16(), 200);
        }
    }

    #[tokio::test]
    async fn program_without_a_cluster_has_no_status_of_one() {
        let response = send(&admin(), Request::get("/cluster"), "127.0.0.1:1").await;
        assert_eq!(response.status().as_u16(), 404);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "the configuration has no section [cluster]\n");
    }

    #[test]
    fn readiness_names_isolated_backends_and_the_reason() {
        let status = replica_status();
        let wanted = json!({ "status": "sharing", "isolated_backends": [] });
        assert_eq!(cluster_detail(&status), wanted);
        let mut starting = status.clone();
        starting.backends[0].role = RoleName::Starting;
        assert_eq!(cluster_detail(&starting)["status"], "starting");
        let status = isolated(status);
        let wanted = json!({ "status": "isolated", "isolated_backends": ["db"], "not_connected": "connection refused" });
        assert_eq!(cluster_detail(&status), wanted);
        let mut refused = status;
        refused.backends[0].why = Some("another vendor".into());
        assert_eq!(cluster_detail(&refused)["refused"], json!({ "db": "another vendor" }));
    }

    /// Of an owner.
    pub(crate) fn replica_status() -> ReplicaStatus {
        serde_json::from_value(json!({
            "cluster": "prod",
            "member": "gateway-0",
            "incarnation": "0000000000000001",
            "replicas": 3,
            "replicas_known": 3,
            "nats": { "state": "connected", "server": "nats-1" },
            "sessions": 2,
            "backends": [{
                "backend": "db",
                "role": "owner",
                "since": "2026-11-26T03:00:00Z",
                "owner": { "member": "gateway-0", "incarnation": "0000000000000001", "epoch": 7 },
                "sessions": 2,
                "requests_per_second": { "own": 1, "owner": 18 },
                "owner_changes": 3,
                "session_restarts": { "gap": 1, "silence": 4, "refused": 0 },
            }],
        }))
        .unwrap()
    }

    /// The same without NATS.
    pub(crate) fn isolated(mut status: ReplicaStatus) -> ReplicaStatus {
        let why = "connection refused".to_owned();
        status.nats = NatsStatus::Disconnected { why, since: "2026-11-26T03:00:05Z".parse().unwrap() };
        let seat = &mut status.backends[0];
        (seat.role, seat.owner) = (RoleName::Isolated, None);
        status
    }

    /// A client that begins a request with a body and never ends it.
    async fn stalled(admin: &Router, peer: &str) -> u16 {
        let stream = futures_util::stream::pending::<Result<bytes::Bytes, io::Error>>();
        let mut request = Request::put("/log-level").body(Body::from_stream(stream)).unwrap();
        request.extensions_mut().insert(ConnectInfo(peer.parse::<SocketAddr>().unwrap()));
        admin.clone().oneshot(request).await.unwrap().status().as_u16()
    }

    #[tokio::test(start_paused = true)]
    async fn body_that_does_not_arrive_is_not_waited_for() {
        let router = admin().router();
        assert_eq!(stalled(&router, "127.0.0.1:1").await, 408);
        let began = tokio::time::Instant::now();
        assert_eq!(stalled(&router, "192.0.2.1:1").await, 403);
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test]
    async fn log_level_is_not_set_from_another_machine() {
        let put =
            |peer| async move { send(&admin(), Request::put("/log-level"), peer).await.status().as_u16() };
        assert_eq!(put("192.0.2.1:1").await, 403);
        // This process does not log.
        assert_eq!((put("127.0.0.1:1").await, put("[::1]:1").await), (404, 404));
    }
}
