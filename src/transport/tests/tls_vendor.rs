//! A vendor behind TLS that does with each request as a test tells it.

use std::{
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use h2::{Reason, server::SendResponse};
use http::Response;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::NamedTempFile;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::AbortHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivatePkcs8KeyDer},
    server::TlsStream,
};

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Answer,
    /// Answered after [`TlsVendor::release`].
    Hold,
    /// Nothing is read or written over the connection any more, which stays open.
    Freeze,
    /// HTTP/2: an answer with so many bytes of headers.
    LongHead(usize),
    /// HTTP/2: REFUSED_STREAM.
    Refuse,
    /// HTTP/2: GOAWAY, and the connection closes.
    GoAway,
}

/// Listens until it is dropped.
pub(super) struct TlsVendor {
    pub(super) port: u16,
    /// Its certificate.
    pub(super) ca: NamedTempFile,
    shared: Arc<Shared>,
    listening: AbortHandle,
}

struct Shared {
    /// By connection, and by request of the connection.
    act: Box<dyn Fn(usize, usize) -> Act + Send + Sync>,
    /// The connection of each request so far.
    requests: watch::Sender<Vec<usize>>,
    handshakes: AtomicUsize,
    released: watch::Sender<bool>,
}

impl TlsVendor {
    pub(super) async fn start(
        protocol: &str,
        act: impl Fn(usize, usize) -> Act + Send + Sync + 'static,
    ) -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost", "127.0.0.1"].map(str::to_owned)).unwrap();
        let mut ca = NamedTempFile::new().unwrap();
        ca.write_all(cert.pem().as_bytes()).unwrap();
        let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
        let config = ServerConfig::builder().with_no_client_auth();
        let mut config = config.with_single_cert(vec![cert.der().clone()], key.into()).unwrap();
        config.alpn_protocols = vec![protocol.into()];
        let tls = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            act: Box::new(act),
            requests: watch::Sender::default(),
            handshakes: AtomicUsize::new(0),
            released: watch::Sender::default(),
        });
        let listen = {
            let (shared, is_http2) = (Arc::clone(&shared), protocol == "h2");
            async move {
                for connection in 0.. {
                    let (stream, _) = listener.accept().await.unwrap();
                    let (shared, tls) = (Arc::clone(&shared), tls.clone());
                    shared.handshakes.fetch_add(1, Ordering::Relaxed);
                    tokio::spawn(async move {
                        let Ok(stream) = tls.accept(stream).await else { return };
                        if is_http2 {
                            shared.serve_http2(stream, connection).await;
                        } else {
                            shared.serve_http1(stream, connection).await;
                        }
                    });
                }
            }
        };
        Self { port, ca, shared, listening: tokio::spawn(listen).abort_handle() }
    }

    pub(super) fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// Connections that were opened so far.
    pub(super) fn handshakes(&self) -> usize {
        self.shared.handshakes.load(Ordering::Relaxed)
    }

    /// The connection of each request so far.
    pub(super) fn requests(&self) -> Vec<usize> {
        self.shared.requests.borrow().clone()
    }

    pub(super) async fn requests_came(&self, number: usize) {
        self.shared.requests.subscribe().wait_for(|requests| requests.len() >= number).await.unwrap();
    }

    pub(super) fn release(&self) {
        self.shared.released.send_replace(true);
    }
}

impl Drop for TlsVendor {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Shared {
    fn act(&self, connection: usize, nth: usize) -> Act {
        self.requests.send_modify(|requests| requests.push(connection));
        (self.act)(connection, nth)
    }

    async fn serve_http2(self: Arc<Self>, stream: TlsStream<TcpStream>, connection: usize) {
        let Ok(mut server) = h2::server::handshake(stream).await else { return };
        for nth in 0.. {
            let Some(Ok((_, mut respond))) = server.accept().await else { return };
            match self.act(connection, nth) {
                Act::Answer => answer(&mut respond, 0),
                Act::LongHead(bytes) => answer(&mut respond, bytes),
                Act::Hold => {
                    let mut released = self.released.subscribe();
                    tokio::spawn(async move {
                        released.wait_for(|released| *released).await.unwrap();
                        answer(&mut respond, 0);
                    });
                }
                Act::Freeze => std::future::pending().await,
                Act::Refuse => respond.send_reset(Reason::REFUSED_STREAM),
                Act::GoAway => server.abrupt_shutdown(Reason::NO_ERROR),
            }
        }
    }

    async fn serve_http1(self: Arc<Self>, mut stream: TlsStream<TcpStream>, connection: usize) {
        for nth in 0.. {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                if stream.read_buf(&mut head).await.unwrap_or_default() == 0 {
                    return;
                }
            }
            match self.act(connection, nth) {
                Act::Answer => {}
                Act::Hold => drop(self.released.subscribe().wait_for(|released| *released).await),
                Act::Freeze => std::future::pending().await,
                other => panic!("{other:?} is a word of HTTP/2"),
            }
            let response = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
            if stream.write_all(response.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

fn answer(respond: &mut SendResponse<Bytes>, head: usize) {
    let mut response = Response::builder().header("content-type", "application/json");
    for n in 0..head / 1000 {
        response = response.header(format!("x-{n}"), "a".repeat(1000));
    }
    let response = response.body(()).unwrap();
    if let Ok(mut body) = respond.send_response(response, false) {
        let _ = body.send_data(Bytes::from("{}"), true);
    }
}
