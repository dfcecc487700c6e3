//! Vendors behind TLS, over HTTP/2, or HTTP/1.1 if they do not offer HTTP/2.

use std::{
    io::{self, Write},
    ops::Deref,
    sync::Arc,
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response, Version, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use jobwatch::{
    proto::v1::{DownloadArtifactRequest, JobState as S},
    simulators::{Category, Content, Plan, Simulator, Vendor},
};
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use tempfile::NamedTempFile;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{AbortHandle, JoinSet},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivatePkcs8KeyDer},
    server::TlsStream,
};
use tonic::Code;

use crate::{
    harness::*,
    program::{self, Program},
};

/// The protocol that a front offers in the handshake and then speaks.
const OFFERS: [(&[&str], Version); 2] =
    [(&["h2", "http/1.1"], Version::HTTP_2), (&["http/1.1"], Version::HTTP_11)];

/// A certificate for localhost, and a PEM file of its authority.
struct Trust {
    key: CertifiedKey<KeyPair>,
    file: NamedTempFile,
}

impl Trust {
    fn new() -> Self {
        let key = generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(key.cert.pem().as_bytes()).unwrap();
        Self { key, file }
    }

    fn acceptor(&self, offer: &[&str]) -> TlsAcceptor {
        let key = PrivatePkcs8KeyDer::from(self.key.signing_key.serialize_der());
        let chain = vec![self.key.cert.der().clone()];
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key.into());
        let mut config = config.unwrap();
        config.alpn_protocols = offer.iter().map(|&protocol| protocol.into()).collect();
        TlsAcceptor::from(Arc::new(config))
    }

    /// The program, configured to trust the certificate as an operator would.
    async fn program(&self, backends: impl IntoIterator<Item = Backend>) -> Program {
        let (file, mut command) =
            program::command(&config_text("[server]\nlisten = \"127.0.0.1:0\"", backends));
        command.env("SSL_CERT_FILE", self.file.path());
        Program::run((file, command), "info").await
    }
}

/// The traffic of a front so far.
#[derive(Clone, Debug, Default)]
struct Seen {
    connections: usize,
    /// The version of each request.
    requests: Vec<Version>,
}

/// How open connections end.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// According to HTTP.
    Announced,
    /// At once, even during a request.
    Broken,
    /// All at once, when the next request arrives.
    BrokenUnderARequest,
    /// Each when its next request arrives.
    BrokenUnderEachRequest,
}

/// Terminates TLS in front of a simulator until it is dropped.
struct Front {
    port: u16,
    shared: Arc<Shared>,
    listening: AbortHandle,
}

struct Shared {
    vendor: String,
    client: reqwest::Client,
    seen: watch::Sender<Seen>,
    end: watch::Sender<Option<End>>,
}

impl Drop for Front {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Deref for Front {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl Front {
    async fn before(simulator: &Simulator, offer: &[&str], trust: &Trust) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            vendor: simulator.base_url(),
            client: reqwest::Client::builder().no_proxy().no_gzip().build().unwrap(),
            seen: watch::Sender::default(),
            end: watch::Sender::default(),
        });
        let listen = Arc::clone(&shared).listen(listener, trust.acceptor(offer));
        Self { port, shared, listening: tokio::spawn(listen).abort_handle() }
    }

    fn backend(&self, vendor: Vendor) -> Backend {
        Backend::at(vendor, format!("https://localhost:{}", self.port))
    }
}

impl Shared {
    fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    fn end_connections(&self, end: End) {
        self.end.send_replace(Some(end));
    }

    /// The connections end with the front.
    async fn listen(self: Arc<Self>, listener: TcpListener, tls: TlsAcceptor) {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (shared, tls) = (Arc::clone(&self), tls.clone());
            shared.seen.send_modify(|seen| seen.connections += 1);
            connections.spawn(async move { shared.serve(tls.accept(stream).await.unwrap()).await });
        }
    }

    async fn serve(self: Arc<Self>, stream: TlsStream<TcpStream>) {
        let mut end = self.end.subscribe();
        let shared = Arc::clone(&self);
        let service = service_fn(move |request| Arc::clone(&shared).forward(request));
        let server = auto::Builder::new(TokioExecutor::new());
        let mut connection = std::pin::pin!(server.serve_connection(TokioIo::new(stream), service));
        loop {
            tokio::select! {
                _ = connection.as_mut() => return,
                _ = end.changed() => match *end.borrow_and_update() {
                    Some(End::Announced) => connection.as_mut().graceful_shutdown(),
                    Some(End::Broken) => return,
                    _ => {}
                },
            }
        }
    }

    /// Forwards a request to the simulator.
    async fn forward(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, io::Error> {
        self.seen.send_modify(|seen| seen.requests.push(request.version()));
        let end = *self.end.borrow();
        match end {
            Some(End::BrokenUnderARequest) => {
                self.end_connections(End::Broken);
                std::future::pending::<()>().await;
            }
            Some(End::BrokenUnderEachRequest) => return Err(io::ErrorKind::BrokenPipe.into()),
            _ => {}
        }
        let (mut parts, body) = request.into_parts();
        parts.uri = format!("{}{}", self.vendor, parts.uri.path_and_query().unwrap()).parse().unwrap();
        parts.version = Version::HTTP_11;
        let request = Request::from_parts(parts, body.collect().await.unwrap().to_bytes());
        let response = self.client.execute(request.try_into().unwrap()).await.unwrap();
        let (status, mut headers) = (response.status(), response.headers().clone());
        for name in [header::CONNECTION, header::TRANSFER_ENCODING] {
            headers.remove(name);
        }
        let mut forwarded = Response::new(Full::new(response.bytes().await.unwrap()));
        *forwarded.status_mut() = status;
        *forwarded.headers_mut() = headers;
        Ok(forwarded)
    }
}

#[tokio::test]
async fn tls_backend_is_polled_over_the_offered_http_version() {
    for (offer, version) in OFFERS {
        let trust = Trust::new();
        let simulators = join_all(Vendor::ALL.map(simulator)).await;
        let fronts = simulators.iter().map(|simulator| Front::before(simulator, offer, &trust));
        let fronts = join_all(fronts).await;
        let backends = fronts.iter().zip(Vendor::ALL).map(|(front, vendor)| front.backend(vendor));
        let program = trust.program(backends).await;
        let client = program.client();
        for (simulator, front) in simulators.iter().zip(&fronts) {
            let vendor = simulator.vendor();
            let started = simulator.start_job(Plan::fixed(running(vendor)));
            let job = job_at(simulator, &started);
            let mut watch = Watch::of(&client, &job).await;
            assert_eq!(watch.status().await.state(), S::Running, "{vendor}");
            for _ in 0..5 {
                assert_eq!(get(&client, &job).await.unwrap().state(), S::Running, "{vendor}");
            }
            simulator.finish(&started.id);
            assert_eq!(watch.status().await.state(), S::Succeeded, "{vendor}");
            watch.end().await.unwrap();
            let Seen { connections, requests } = front.seen();
            assert!(requests.len() > 5 && requests.iter().all(|used| *used == version), "{requests:?}");
            assert!(connections < requests.len(), "{vendor}: {connections} for {requests:?}");
        }
    }
}

#[tokio::test]
async fn tls_backend_download_uses_the_offered_http_version() {
    const SIZE: u64 = 1 << 20;
    for (offer, version) in OFFERS {
        let trust = Trust::new();
        let simulator = simulator(Vendor::Claret).await;
        let front = Front::before(&simulator, offer, &trust).await;
        let program = trust.program([front.backend(Vendor::Claret)]).await;
        let plan = Plan::default().file(Category::Output, "final.csv", Content::Pattern(SIZE));
        let job = job_at(&simulator, &simulator.start_job(plan));
        let artifact_id = "output/final.csv".to_owned();
        let request = DownloadArtifactRequest { job: Some(job), artifact_id, ..Default::default() };
        let mut file = guard(program.client().download_artifact(request)).await.unwrap().into_inner();
        let mut bytes = 0..SIZE;
        while let Some(piece) = guard(file.message()).await.unwrap() {
            for byte in piece.data {
                assert_eq!(byte, Content::pattern(bytes.next().unwrap()));
            }
        }
        assert!(bytes.is_empty(), "{bytes:?} are missing");
        let seen = front.seen();
        assert_eq!(seen.requests.last(), Some(&version));
        assert!(seen.connections > 1, "on a separate connection, which no other reader can block");
    }
}

#[tokio::test]
async fn reused_connection_that_ends_is_no_outage() {
    for (offer, _) in OFFERS {
        let trust = Trust::new();
        let simulator = simulator(Vendor::Immuta).await;
        let front = Front::before(&simulator, offer, &trust).await;
        let program = trust.program([front.backend(Vendor::Immuta)]).await;
        let client = program.client();
        let started = simulator.start_job(Plan::fixed("active"));
        let job = job_at(&simulator, &started);
        let mut watch = Watch::of(&client, &job).await;
        assert_eq!(watch.status().await.state(), S::Running);
        for end in [End::Announced, End::Broken, End::BrokenUnderARequest] {
            let before = front.seen().connections;
            front.end_connections(end);
            for _ in 0..3 {
                assert_eq!(get(&client, &job).await.unwrap().state(), S::Running, "{offer:?}: {end:?}");
            }
            assert!(front.seen().connections > before, "{offer:?}: {end:?}");
        }
        simulator.finish(&started.id);
        // Not an interruption.
        assert_eq!(watch.status().await.state(), S::Succeeded);
    }
}

#[tokio::test]
async fn cli_with_a_connection_that_always_breaks_prints_one_sentence() {
    for (offer, _) in OFFERS {
        let trust = Trust::new();
        let simulator = simulator(Vendor::Immuta).await;
        let front = Front::before(&simulator, offer, &trust).await;
        front.end_connections(End::BrokenUnderEachRequest);
        let program = trust.program([front.backend(Vendor::Immuta)]).await;
        let error = get(&program.client(), &job("immuta", "a")).await.unwrap_err();
        assert_eq!(code_and_reason(&error), (Code::Unavailable, "BACKEND_UNAVAILABLE".to_owned()));
        let message = error.message();
        assert!(message.contains("the connection broke: ") && !message.contains("://"), "{message}");
    }
}
