//! A server between the gateway and a simulator that speaks every HTTP version, changes
//! responses, and counts what arrives.

use std::{
    collections::HashMap,
    convert::Infallible,
    io::Write,
    pin::pin,
    sync::{Arc, LazyLock, Mutex},
};

use bytes::Bytes;
use http::{Request, Response, Version, header};
use http_body_util::{BodyExt, Collected};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use jobwatch::simulators::{Simulator, Vendor};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::NamedTempFile;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::Instant,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivatePkcs8KeyDer},
    },
};

use super::change::{Change, ChangedBody};
use crate::{
    harness::*,
    program::{self, Program},
};

/// How a vendor is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    /// HTTP/1.1 without TLS.
    Http1,
    /// HTTP/1.1 over TLS.
    TlsHttp1,
    /// HTTP/2 over TLS.
    TlsHttp2,
}

impl Protocol {
    pub(crate) const ALL: [Self; 3] = [Self::Http1, Self::TlsHttp1, Self::TlsHttp2];

    /// Those in which a response is a text.
    pub(crate) const TEXT: [Self; 2] = [Self::Http1, Self::TlsHttp1];

    pub(crate) fn version(self) -> Version {
        match self {
            Self::Http1 | Self::TlsHttp1 => Version::HTTP_11,
            Self::TlsHttp2 => Version::HTTP_2,
        }
    }

    pub(crate) fn url(self, port: u16) -> String {
        match self {
            Self::Http1 => format!("http://127.0.0.1:{port}"),
            Self::TlsHttp1 | Self::TlsHttp2 => format!("https://localhost:{port}"),
        }
    }

    fn offers(self) -> Vec<Vec<u8>> {
        let offers: &[&[u8]] = match self {
            Self::Http1 => &[],
            Self::TlsHttp1 => &[b"http/1.1"],
            Self::TlsHttp2 => &[b"h2", b"http/1.1"],
        };
        offers.iter().map(|offer| offer.to_vec()).collect()
    }

    /// The stream after the handshake, if there is one. `None` if the gateway left.
    pub(crate) async fn accept(self, stream: TcpStream) -> Option<Box<dyn Stream>> {
        stream.set_nodelay(true).ok()?;
        if self == Self::Http1 {
            return Some(Box::new(stream));
        }
        let tls = TlsAcceptor::from(AUTHORITY.config(self.offers()));
        Some(Box::new(tls.accept(stream).await.ok()?))
    }
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The certificate of every vendor here, which only these tests' gateways trust.
struct Authority {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
    pem: String,
}

static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    Authority { certificate: cert.der().clone(), key: signing_key.serialize_der(), pem: cert.pem() }
});

impl Authority {
    fn config(&self, offers: Vec<Vec<u8>>) -> Arc<ServerConfig> {
        let key = PrivatePkcs8KeyDer::from(self.key.clone());
        let chain = vec![self.certificate.clone()];
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key.into());
        let mut config = config.unwrap();
        config.alpn_protocols = offers;
        Arc::new(config)
    }
}

/// The program in front of these backends. It trusts their certificate.
pub(crate) async fn gateway(backends: impl IntoIterator<Item = Backend>) -> (Program, NamedTempFile) {
    let mut trusted = NamedTempFile::new().unwrap();
    trusted.write_all(AUTHORITY.pem.as_bytes()).unwrap();
    let (file, mut command) = program::command(&config_text("[server]\nlisten = \"127.0.0.1:0\"", backends));
    command.env("SSL_CERT_FILE", trusted.path());
    (Program::run((file, command), "info").await, trusted)
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    Poll,
    Login,
    HealthCheck,
    File,
}

impl Purpose {
    fn of(path: &str) -> Self {
        match path {
            path if path.contains("/authenticate") || path.contains("/tokens/create") => Self::Login,
            path if path.contains("/oauth/token") => Self::Login,
            path if path.contains("/show/system") => Self::HealthCheck,
            path if path.contains("/download/") => Self::File,
            _ => Self::Poll,
        }
    }
}

/// One request that arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) purpose: Purpose,
    pub(crate) version: Version,
    pub(crate) at: Instant,
}

/// What a front received so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) connections: usize,
    pub(crate) requests: Vec<Arrival>,
}

impl Traffic {
    pub(crate) fn count(&self, purpose: Purpose) -> usize {
        self.requests.iter().filter(|request| request.purpose == purpose).count()
    }
}

/// The next so many responses are changed.
#[derive(Debug)]
struct Planned {
    change: Change,
    times: usize,
}

/// In front of one simulator until it is dropped.
#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) vendor: Vendor,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    shared: Arc<Shared>,
    listening: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    simulator: String,
    protocol: Protocol,
    client: reqwest::Client,
    planned: Mutex<HashMap<Purpose, Planned>>,
    traffic: watch::Sender<Traffic>,
}

impl Drop for Front {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Front {
    pub(crate) async fn before(simulator: &Simulator, protocol: Protocol) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // Reads no certificates, which takes long.
        let client = reqwest::Client::builder().tls_certs_only([]);
        let shared = Arc::new(Shared {
            simulator: simulator.base_url(),
            protocol,
            client: client.no_proxy().no_gzip().build().unwrap(),
            planned: Mutex::default(),
            traffic: watch::Sender::default(),
        });
        let listening = tokio::spawn(Arc::clone(&shared).listen(listener)).abort_handle();
        Self { vendor: simulator.vendor(), protocol, port, shared, listening }
    }

    /// A name for its backend.
    pub(crate) fn name(&self) -> String {
        format!("{}-{:?}", self.vendor, self.protocol).to_lowercase()
    }

    pub(crate) fn backend(&self) -> Backend {
        Backend::at(self.vendor, self.protocol.url(self.port))
    }

    /// Changes the responses to requests of this purpose from now on.
    pub(crate) fn change(&self, purpose: Purpose, change: Change) {
        self.change_next(usize::MAX, purpose, change);
    }

    /// Changes the next so many responses to requests of this purpose.
    pub(crate) fn change_next(&self, times: usize, purpose: Purpose, change: Change) {
        self.shared.planned.lock().unwrap().insert(purpose, Planned { change, times });
    }

    pub(crate) fn heal(&self) {
        self.shared.planned.lock().unwrap().clear();
    }

    pub(crate) fn traffic(&self) -> Traffic {
        self.shared.traffic.borrow().clone()
    }

    pub(crate) fn count(&self, purpose: Purpose) -> usize {
        self.shared.traffic.borrow().count(purpose)
    }

    /// Returns once `number` more requests of this purpose have arrived.
    pub(crate) async fn requests_come(&self, purpose: Purpose, number: usize) {
        let wanted = self.count(purpose) + number;
        let mut traffic = self.shared.traffic.subscribe();
        guard(traffic.wait_for(|traffic| traffic.count(purpose) >= wanted)).await.unwrap();
    }
}

impl Shared {
    /// The connections end with the front.
    async fn listen(self: Arc<Self>, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    self.traffic.send_modify(|traffic| traffic.connections += 1);
                    connections.spawn(Arc::clone(&self).serve(accepted.unwrap().0));
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream) {
        let Some(stream) = self.protocol.accept(stream).await else { return };
        let service = service_fn(move |request| Arc::clone(&self).respond(request));
        let mut server = auto::Builder::new(TokioExecutor::new());
        // A date comes from the simulator, unless the change removes it.
        server.http1().auto_date_header(false);
        server.http2().auto_date_header(false);
        // It fails where the gateway left.
        let _ = pin!(server.serve_connection(TokioIo::new(stream), service)).await;
    }

    async fn respond(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<ChangedBody>, Infallible> {
        let purpose = Purpose::of(request.uri().path());
        let arrival = Arrival { purpose, version: request.version(), at: Instant::now() };
        self.traffic.send_modify(|traffic| traffic.requests.push(arrival));
        let change = self.next_change(purpose);
        let response = self.forward(request).await;
        Ok(change.unwrap_or_default().apply(response))
    }

    fn next_change(&self, purpose: Purpose) -> Option<Change> {
        let mut planned = self.planned.lock().unwrap();
        let Planned { change, times } = planned.get_mut(&purpose).filter(|planned| planned.times > 0)?;
        *times -= 1;
        Some(change.clone())
    }

    /// The simulator's response.
    async fn forward(&self, request: Request<Incoming>) -> Response<Bytes> {
        let (mut parts, body) = request.into_parts();
        parts.uri = format!("{}{}", self.simulator, parts.uri.path_and_query().unwrap()).parse().unwrap();
        parts.version = Version::HTTP_11;
        // The gateway may leave while it sends; then nobody reads the response.
        let body = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
        let request = Request::from_parts(parts, body).try_into().unwrap();
        let mut received = self.client.execute(request).await.unwrap();
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = received.status();
        *response.headers_mut() = std::mem::take(received.headers_mut());
        for name in [header::CONNECTION, header::TRANSFER_ENCODING] {
            response.headers_mut().remove(name);
        }
        *response.body_mut() = received.bytes().await.unwrap();
        response
    }
}
