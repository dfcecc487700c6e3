//! The HTTP server for operators: probes, metrics, the log level.
//!
//! | path | response |
//! | --- | --- |
//! | `GET /livez` | 200 while the process runs |
//! | `GET /readyz` | 200 while calls are accepted, else 503; JSON that says why |
//! | `GET /metrics` | Prometheus text format |
//! | `GET /log-level` | the filter of the log |
//! | `PUT /log-level` | replaces it; only from this machine |
//!
//! It listens on loopback unless `admin.allow_remote` is set, and asks nobody for
//! credentials. It answers during the drain, too.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
};

use axum::{
    Router,
    body::Bytes,
    extract::{ConnectInfo, DefaultBodyLimit, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header};
use serde_json::json;
use tokio::net::TcpListener;
use tower::limit::GlobalConcurrencyLimitLayer;

use crate::{
    engine::{Engine, Health, JobStatuses},
    telemetry::{self, LevelError},
};

mod scrape;

pub use scrape::Limits;

/// Largest body of a request.
const BODY: usize = 4 << 10;

/// Most requests at once; further ones wait.
const REQUESTS: usize = 16;

/// Whether calls are accepted.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicU8>);

/// What the server does at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It does not accept calls yet.
    Starting,
    /// It accepts calls.
    Ready,
    /// It ends its calls.
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
}

impl Admin {
    /// Serves requests on `listener` until it is dropped.
    pub async fn serve(self, listener: TcpListener) -> io::Result<()> {
        let service = self.router().into_make_service_with_connect_info::<SocketAddr>();
        axum::serve(listener, service).await
    }

    fn router(self) -> Router {
        Router::new()
            .route("/livez", get(async || "ok\n"))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .route("/log-level", get(log_level).put(set_log_level))
            .layer(DefaultBodyLimit::max(BODY))
            .layer(GlobalConcurrencyLimitLayer::new(REQUESTS))
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
    let body = json!({ "status": phase.to_string(), "backends": backends });
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

async fn set_log_level(ConnectInfo(peer): ConnectInfo<SocketAddr>, body: Bytes) -> Response {
    if !peer.ip().is_loopback() {
        let why = "the log level is set from this machine only\n";
        return (StatusCode::FORBIDDEN, why).into_response();
    }
    let text = String::from_utf8_lossy(&body);
    match telemetry::set_level(text.trim()) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error @ LevelError::NotLogging) => (StatusCode::NOT_FOUND, format!("{error}\n")).into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}
