//! A server of files behind TLS at another origin than the vendor's, which keeps the head of
//! each request.

use std::{
    collections::BTreeMap,
    io::Write,
    sync::{Arc, Mutex},
};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::NamedTempFile;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    task::AbortHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivatePkcs8KeyDer},
};

/// What a target is answered with.
#[derive(Clone)]
pub(super) enum Reply {
    /// A file with a version, from the requested byte on.
    File(Vec<u8>),
    /// A file that breaks off after so many bytes.
    Broken(Vec<u8>, usize),
    /// A status and headers, each with its line end.
    Head(u16, String),
}

#[derive(Clone, Default)]
struct Shared {
    replies: Arc<Mutex<BTreeMap<String, Reply>>>,
    heads: Arc<Mutex<Vec<String>>>,
    /// Connections, with or without a request.
    connections: Arc<Mutex<usize>>,
}

/// Listens until it is dropped.
pub(super) struct Storage {
    pub(super) port: u16,
    /// Its certificate, for 127.0.0.1 and localhost.
    pub(super) ca: NamedTempFile,
    shared: Shared,
    listening: AbortHandle,
}

impl Drop for Storage {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Storage {
    pub(super) async fn start() -> Self {
        let names = ["127.0.0.1", "localhost"].map(str::to_owned);
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
        let mut ca = NamedTempFile::new().unwrap();
        ca.write_all(cert.pem().as_bytes()).unwrap();
        let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
        let config = ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![cert.der().clone()], key.into()).unwrap();
        let tls = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Shared::default();
        let state = shared.clone();
        let listening = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *state.connections.lock().unwrap() += 1;
                let (tls, state) = (tls.clone(), state.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = tls.accept(stream).await {
                        state.serve(stream).await;
                    }
                });
            }
        });
        Self { port, ca, shared, listening: listening.abort_handle() }
    }

    pub(super) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    pub(super) fn replies(&self, target: &str, reply: Reply) {
        self.shared.replies.lock().unwrap().insert(target.to_owned(), reply);
    }

    /// The heads of the requests so far, in lower case.
    pub(super) fn heads(&self) -> Vec<String> {
        self.shared.heads.lock().unwrap().clone()
    }

    pub(super) fn connections(&self) -> usize {
        *self.shared.connections.lock().unwrap()
    }
}

impl Shared {
    async fn serve(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        let head = String::from_utf8(head).unwrap();
        let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let head = head.to_lowercase();
        let reply = self.replies.lock().unwrap().get(&target).cloned();
        let range = head.lines().find_map(|line| line.strip_prefix("range: bytes=")?.strip_suffix('-'));
        let from: usize = range.map_or(0, |from| from.parse().unwrap());
        self.heads.lock().unwrap().push(head.clone());
        let (bytes, most) = match reply {
            None => (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(), usize::MAX),
            Some(Reply::Head(status, headers)) => (
                format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: 0\r\n\r\n").into_bytes(),
                usize::MAX,
            ),
            Some(Reply::File(file)) => (answer(&file, from), usize::MAX),
            Some(Reply::Broken(file, most)) => {
                let whole = answer(&file, from);
                let most = whole.len() - file.len() + from + most;
                (whole, most)
            }
        };
        let _ = stream.write_all(&bytes[..most.min(bytes.len())]).await;
        let _ = stream.shutdown().await;
    }
}

fn answer(file: &[u8], from: usize) -> Vec<u8> {
    let (size, rest) = (file.len(), &file[from..]);
    let status = if from == 0 {
        "200 OK\r\n".to_owned()
    } else {
        format!("206 Partial Content\r\nContent-Range: bytes {from}-{}/{size}\r\n", size - 1)
    };
    let head = format!(
        "HTTP/1.1 {status}ETag: \"v1\"\r\nContent-Type: text/csv\r\nContent-Length: {}\r\n\r\n",
        rest.len()
    );
    [head.as_bytes(), rest].concat()
}
