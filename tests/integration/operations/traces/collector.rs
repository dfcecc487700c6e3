//! A collector that speaks OTLP, over gRPC and HTTP, and keeps what it receives.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};
use prost::Message;
use tokio::{net::TcpListener, sync::Notify, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Code, Request, Status,
    transport::{Identity, ServerTlsConfig},
};

use tonic_types::{ErrorDetails, StatusExt};

use crate::harness::*;

/// What a collector does with requests.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Mode {
    #[default]
    Take,
    Hang,
    /// An error that is worth another request.
    Unavailable,
    /// An error that is, with the wait.
    Throttle,
    /// An error that is not.
    Refuse,
    /// Takes all spans but one.
    RefuseOne,
}

#[derive(Debug, Default)]
struct Shared {
    mode: Mutex<Mode>,
    requests: Mutex<Vec<Received>>,
    arrived: Notify,
}

/// A request that was taken or not.
#[derive(Clone, Debug)]
pub(super) struct Received {
    /// Of HTTP.
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) request: ExportTraceServiceRequest,
    taken: bool,
}

/// A collector on loopback; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Collector {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    /// How many spans are refused, or the code of gRPC and HTTP for the whole request.
    async fn receive(
        &self,
        path: &str,
        headers: HeaderMap,
        request: ExportTraceServiceRequest,
    ) -> Result<i64, (Status, u16)> {
        let mode = *self.mode.lock().unwrap();
        let taken = matches!(mode, Mode::Take | Mode::RefuseOne);
        self.requests.lock().unwrap().push(Received { path: path.to_owned(), headers, request, taken });
        self.arrived.notify_one();
        match mode {
            Mode::Take => Ok(0),
            Mode::RefuseOne => Ok(1),
            Mode::Hang => std::future::pending().await,
            Mode::Unavailable => Err((Status::unavailable("BODY"), 503)),
            Mode::Throttle => {
                let details = ErrorDetails::with_retry_info(Some(ms(1)));
                Err((Status::with_error_details(Code::ResourceExhausted, "BODY", details), 429))
            }
            Mode::Refuse => Err((Status::invalid_argument("BODY"), 400)),
        }
    }
}

struct Grpc(Arc<Shared>);

fn response(refused: i64) -> ExportTraceServiceResponse {
    let partial = ExportTracePartialSuccess { rejected_spans: refused, error_message: "BODY".to_owned() };
    ExportTraceServiceResponse { partial_success: (refused > 0).then_some(partial) }
}

#[tonic::async_trait]
impl TraceService for Grpc {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let received = self.0.receive("", metadata.into_headers(), request).await;
        received.map(|refused| tonic::Response::new(response(refused))).map_err(|(status, _)| status)
    }
}

async fn post(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let Ok(request) = ExportTraceServiceRequest::decode(body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    match shared.receive(uri.path(), headers, request).await {
        Ok(refused) => response(refused).encode_to_vec().into_response(),
        Err((_, code)) => {
            (StatusCode::from_u16(code).unwrap(), [("retry-after", "0")], "BODY").into_response()
        }
    }
}

impl Collector {
    pub(super) async fn grpc() -> Self {
        Self::grpc_on(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(super) fn grpc_on(listener: TcpListener) -> Self {
        Self::serve(listener, tonic::transport::Server::builder())
    }

    pub(super) fn grpc_with_tls(listener: TcpListener, identity: Identity) -> Self {
        let tls = ServerTlsConfig::new().identity(identity);
        Self::serve(listener, tonic::transport::Server::builder().tls_config(tls).unwrap())
    }

    fn serve(listener: TcpListener, mut server: tonic::transport::Server) -> Self {
        let (address, shared) = (listener.local_addr().unwrap(), Arc::<Shared>::default());
        let service = TraceServiceServer::new(Grpc(Arc::clone(&shared))).max_decoding_message_size(64 << 20);
        let serving = server.add_service(service).serve_with_incoming(TcpListenerStream::new(listener));
        let task = tokio::spawn(async { serving.await.unwrap() });
        Self { address, shared, task }
    }

    pub(super) async fn http() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shared) = (listener.local_addr().unwrap(), Arc::<Shared>::default());
        let router = Router::new().fallback(post).with_state(Arc::clone(&shared));
        let task = tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
        Self { address, shared, task }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The section of a gateway that exports to it over gRPC.
    pub(super) fn section(&self, more: &str) -> String {
        format!("[traces]\nendpoint = {:?}\nprotocol = \"grpc\"\n{more}\n", self.url())
    }

    pub(super) fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
    }

    pub(super) fn requests(&self) -> Vec<Received> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// Waits until there have been so many requests.
    pub(super) async fn wait_for_requests(&self, count: usize) {
        self.find(|_| (self.requests().len() >= count).then_some(())).await;
    }

    /// The spans that were taken.
    pub(super) fn spans(&self) -> Vec<Span> {
        let taken = self.requests().into_iter().filter(|received| received.taken);
        let resources = taken.flat_map(|received| received.request.resource_spans);
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        scopes
            .flat_map(|scope| {
                assert_eq!(scope.scope.unwrap().name, "jobwatch");
                scope.spans
            })
            .collect()
    }

    /// Waits until `find` finds something in the spans that were taken.
    pub(super) async fn find<T>(&self, find: impl Fn(&[Span]) -> Option<T>) -> T {
        let found = async {
            loop {
                if let Some(found) = find(&self.spans()) {
                    return found;
                }
                self.shared.arrived.notified().await;
            }
        };
        guard(found).await
    }

    /// Waits for so many spans with a name.
    pub(super) async fn named(&self, name: &str, count: usize) -> Vec<Span> {
        self.find(|spans| {
            let named: Vec<_> = spans.iter().filter(|span| span.name == name).cloned().collect();
            (named.len() >= count).then_some(named)
        })
        .await
    }
}

/// The text of each attribute.
pub(super) fn attributes(attributes: &[KeyValue]) -> BTreeMap<&str, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    };
    let pairs = attributes.iter().map(|pair| {
        let value = pair.value.as_ref().and_then(|value| value.value.as_ref()).unwrap();
        (pair.key.as_str(), text(value))
    });
    pairs.collect()
}

/// Trace and span of each link.
pub(super) fn links(span: &Span) -> Vec<(Vec<u8>, Vec<u8>)> {
    span.links.iter().map(|link| (link.trace_id.clone(), link.span_id.clone())).collect()
}

/// Trace and span.
pub(super) fn id(span: &Span) -> (Vec<u8>, Vec<u8>) {
    (span.trace_id.clone(), span.span_id.clone())
}
