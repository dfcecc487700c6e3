//! The connections of the admin address, and their bounds: in number, in all and for each
//! peer; in the size of a request's head; in the time for the head, the response and each
//! write.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{Router, body::Body, extract::ConnectInfo};
use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt;
use tracing::debug;

/// Most connections at once; further ones wait.
const CONNECTIONS: usize = 256;

/// Most connections of one address; further ones are closed at once. So one peer leaves
/// room for the probes of another.
const OF_PEER: usize = 64;

/// Bytes of a request's head, and the number of its headers.
const HEAD: usize = 16 << 10;
const HEADERS: usize = 64;

/// How long a peer may take.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// Until the head of a request is there, between two requests included.
    head: Duration,
    /// In which it reads nothing of what it is sent.
    write: Duration,
}

const PATIENCE: Patience = Patience { head: Duration::from_secs(10), write: Duration::from_secs(30) };

/// Wait after the system gave no connection, because it has no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// How many connections each address has.
#[derive(Clone, Debug, Default)]
struct Peers(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection of an address.
#[derive(Debug)]
struct OfPeer(Peers, IpAddr);

impl Peers {
    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more, if the address may have it.
    fn add(&self, peer: IpAddr) -> Option<OfPeer> {
        let mut counts = self.counts();
        let count = counts.entry(peer).or_default();
        if *count >= OF_PEER {
            return None;
        }
        *count += 1;
        Some(OfPeer(self.clone(), peer))
    }
}

impl Drop for OfPeer {
    fn drop(&mut self) {
        let Self(peers, peer) = self;
        let mut counts = peers.counts();
        if let Some(count) = counts.get_mut(peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(peer);
            }
        }
    }
}

/// Serves requests until this is dropped.
pub(super) async fn serve(listener: TcpListener, router: Router) -> io::Result<()> {
    serve_with(PATIENCE, listener, router).await
}

async fn serve_with(patience: Patience, listener: TcpListener, router: Router) -> io::Result<()> {
    let peers = Peers::default();
    let mut connections = JoinSet::new();
    loop {
        let has_room = connections.len() < CONNECTIONS;
        tokio::select! {
            accepted = listener.accept(), if has_room => match accepted {
                Ok((stream, peer)) => {
                    if let Some(counted) = peers.add(peer.ip().to_canonical()) {
                        connections.spawn(connection(stream, peer, router.clone(), patience, counted));
                    }
                }
                // The connection's own error, or the system's: later ones may go well.
                Err(error) => {
                    debug!(%error, "admin connection failed");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    patience: Patience,
    _counted: OfPeer,
) {
    // Small responses are not delayed.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(patience.write));
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().oneshot(request.map(Body::new))
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.head)
        .max_headers(HEADERS)
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(Box::pin(stream)), service)
        .await;
    if let Err(error) = served {
        debug!(%error, "admin connection ended");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_util::task::AbortOnDropHandle;

    use super::*;

    /// A server of these routes, and a connection to it.
    async fn connected(patience: Patience, router: Router) -> (AbortOnDropHandle<io::Result<()>>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = AbortOnDropHandle::new(tokio::spawn(serve_with(patience, listener, router)));
        (server, TcpStream::connect(address).await.unwrap())
    }

    /// What is read until the server closes the connection.
    async fn rest(stream: &mut TcpStream) -> String {
        let mut read = Vec::new();
        let closed = stream.read_to_end(&mut read);
        // Closing a connection with unread bytes resets it.
        let _ = tokio::time::timeout(Duration::from_mins(1), closed).await.expect("the server closes it");
        String::from_utf8_lossy(&read).into_owned()
    }

    const SHORT: Patience = Patience { head: Duration::from_millis(100), write: Duration::from_millis(100) };

    #[tokio::test]
    async fn connection_without_a_whole_head_is_closed() {
        for sent in ["", "GET / HT", "GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nx: "] {
            let (_server, mut stream) = connected(SHORT, Router::new()).await;
            stream.write_all(sent.as_bytes()).await.unwrap();
            rest(&mut stream).await;
        }
    }

    #[tokio::test]
    async fn connection_that_is_idle_after_a_request_is_closed() {
        let router = Router::new().route("/", get(async || "here"));
        let (_server, mut stream) = connected(SHORT, router).await;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").await.unwrap();
        let text = rest(&mut stream).await;
        assert!(text.starts_with("HTTP/1.1 200 OK") && text.ends_with("here"), "{text}");
    }

    #[tokio::test]
    async fn connection_that_reads_nothing_is_closed() {
        // The channel closes when the response is dropped.
        let (sender, mut ended) = tokio::sync::mpsc::channel::<()>(1);
        let sender = Arc::new(Mutex::new(Some(sender)));
        let endless = async move || {
            let held = sender.lock().unwrap().take();
            let pieces = futures_util::stream::unfold(held, async |held| {
                Some((Ok::<_, io::Error>(vec![0_u8; 1 << 16]), held))
            });
            Body::from_stream(pieces)
        };
        let router = Router::new().route("/", get(endless));
        let (_server, mut stream) = connected(SHORT, router).await;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").await.unwrap();
        let dropped = tokio::time::timeout(Duration::from_mins(1), ended.recv()).await;
        assert_eq!(dropped, Ok(None), "the endless response is dropped");
    }

    #[tokio::test]
    async fn head_that_is_too_large_is_refused() {
        let patience = Patience { head: Duration::from_mins(1), write: Duration::from_mins(1) };
        for head in [format!("x: {}\r\n", "x".repeat(HEAD)), "x: y\r\n".repeat(HEADERS + 1)] {
            let (_server, mut stream) = connected(patience, Router::new()).await;
            let request = format!("GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n{head}\r\n");
            // The server may close it before all is written.
            let _ = stream.write_all(request.as_bytes()).await;
            let text = rest(&mut stream).await;
            assert!(text.is_empty() || text.starts_with("HTTP/1.1 431 "), "{text}");
        }
    }

    #[test]
    fn one_address_has_a_part_of_the_connections() {
        let (peers, one, two) =
            (Peers::default(), IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let mut held: Vec<_> = (0..OF_PEER).map(|_| peers.add(one).unwrap()).collect();
        assert!(peers.add(one).is_none() && peers.add(two).is_some());
        held.pop();
        held.extend(peers.add(one));
        assert_eq!(held.len(), OF_PEER);
        drop(held);
        assert!(peers.counts().is_empty());
    }
}
