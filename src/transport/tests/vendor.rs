//! A vendor on loopback that answers as a test tells it, byte for byte, and
//! remembers what it was sent.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::AbortHandle,
};

/// One request as it came.
#[derive(Clone, Debug)]
pub(super) struct Received {
    /// Counts connections from 0.
    pub(super) connection: usize,
    /// Counts requests of the connection from 0.
    pub(super) nth: usize,
    pub(super) path: String,
    pub(super) head: String,
    pub(super) authorization: Option<String>,
    pub(super) body: String,
}

/// What is sent back, and what then becomes of the connection.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) bytes: Vec<u8>,
    pub(super) then: Then,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Then {
    Keep,
    Close,
    Reset,
    /// Nothing more until the client gives up.
    Stall,
}

impl Reply {
    pub(super) fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), then: Then::Keep }
    }

    pub(super) fn with(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
        Self::raw([head.as_bytes(), body].concat())
    }

    pub(super) fn json(status: &str, body: &str) -> Self {
        Self::with(status, "Content-Type: application/json\r\n", body)
    }

    pub(super) fn nothing() -> Self {
        Self::raw("")
    }

    pub(super) fn cut(mut self, end: usize) -> Self {
        self.bytes.truncate(end);
        self
    }

    pub(super) fn then_close(self) -> Self {
        Self { then: Then::Close, ..self }
    }

    pub(super) fn then_reset(self) -> Self {
        Self { then: Then::Reset, ..self }
    }

    pub(super) fn then_stall(self) -> Self {
        Self { then: Then::Stall, ..self }
    }
}

/// Listens until it is dropped.
pub(super) struct Vendor {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
    listening: AbortHandle,
}

struct Shared {
    answer: Box<dyn Fn(&Received) -> Reply + Send + Sync>,
    received: Mutex<Vec<Received>>,
    /// Requests that came, and connections that the client closed.
    counts: watch::Sender<(usize, usize)>,
}

impl Vendor {
    pub(super) async fn start(answer: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (answer, received) = (Box::new(answer), Mutex::default());
        let shared = Arc::new(Shared { answer, received, counts: watch::Sender::default() });
        let serve = {
            let shared = Arc::clone(&shared);
            async move {
                for connection in 0.. {
                    let (stream, _) = listener.accept().await.unwrap();
                    tokio::spawn(Arc::clone(&shared).serve(stream, connection));
                }
            }
        };
        Self { address, shared, listening: tokio::spawn(serve).abort_handle() }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }

    /// Requests to `path`.
    pub(super) fn received_at(&self, path: &str) -> Vec<Received> {
        self.received().into_iter().filter(|request| request.path == path).collect()
    }

    pub(super) async fn requests_came(&self, number: usize) {
        self.shared.counts.subscribe().wait_for(|(requests, _)| *requests >= number).await.unwrap();
    }

    pub(super) async fn client_closed(&self, connections: usize) {
        self.shared.counts.subscribe().wait_for(|(_, closed)| *closed >= connections).await.unwrap();
    }
}

impl Drop for Vendor {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Shared {
    async fn serve(self: Arc<Self>, mut stream: TcpStream, connection: usize) {
        for nth in 0.. {
            let Some(request) = read(&mut stream, connection, nth).await else { break };
            let reply = (self.answer)(&request);
            self.received.lock().unwrap().push(request);
            self.counts.send_modify(|(requests, _)| *requests += 1);
            if stream.write_all(&reply.bytes).await.is_err() {
                break;
            }
            match reply.then {
                Then::Keep => {}
                Then::Close => return,
                Then::Reset => return stream.set_zero_linger().unwrap(),
                Then::Stall => {
                    let _ = stream.read(&mut [0; 64]).await;
                    break;
                }
            }
        }
        self.counts.send_modify(|(_, closed)| *closed += 1);
    }
}

async fn read(stream: &mut TcpStream, connection: usize, nth: usize) -> Option<Received> {
    let mut bytes = Vec::new();
    loop {
        if let Some(request) = parsed(&bytes, connection, nth) {
            return Some(request);
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

fn parsed(bytes: &[u8], connection: usize, nth: usize) -> Option<Received> {
    let text = std::str::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let header = |wanted: &str| {
        let (_, value) =
            head.lines().filter_map(|line| line.split_once(": ")).find(|(name, _)| *name == wanted)?;
        Some(value.to_owned())
    };
    let length: usize = header("content-length").map_or(0, |length| length.parse().unwrap());
    (body.len() >= length).then(|| Received {
        connection,
        nth,
        head: format!("{head}\r\n"),
        path: head.split(' ').nth(1).unwrap().to_owned(),
        authorization: header("authorization"),
        body: body.to_owned(),
    })
}
