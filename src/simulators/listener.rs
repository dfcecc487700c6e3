//! The HTTP server of one simulator: its listener and connections.
//!
//! One task owns the listener and every connection; it ends when the [`HttpServer`] is
//! dropped or goes down, and takes all of them with it.

use std::{
    future::pending,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::raw_response::Delivery;

#[derive(Debug)]
pub(super) struct HttpServer {
    addr: SocketAddr,
    router: Router,
    running: Mutex<Option<Running>>,
    /// Bound to the address while down, so that nobody else listens there. It does not
    /// listen: connections are refused.
    reserved: Mutex<Option<TcpSocket>>,
}

#[derive(Debug)]
struct Running {
    stop: CancellationToken,
    task: JoinHandle<io::Result<TcpSocket>>,
}

impl HttpServer {
    pub(super) async fn start(addr: SocketAddr, router: Router) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let running = Mutex::new(Some(Running::new(listener, router.clone())));
        Ok(Self { addr, router, running, reserved: Mutex::default() })
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Closes the listener and every connection; both are closed on return.
    pub(super) async fn go_down(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(running) = running {
            running.stop.cancel();
            // It only ends early if it panicked, and then everything is closed too.
            let reserved = running.task.await.ok().and_then(Result::ok);
            *self.reserved.lock().unwrap_or_else(PoisonError::into_inner) = reserved;
        }
    }

    /// Listens again where it listened before.
    pub(super) async fn come_back(&self) -> io::Result<()> {
        if self.running.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            return Ok(());
        }
        let listener = TcpListener::bind(self.addr).await?;
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner).take();
        let running = Running::new(listener, self.router.clone());
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
        Ok(())
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        if let Some(running) = self.running.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            running.task.abort();
        }
    }
}

impl Running {
    fn new(listener: TcpListener, router: Router) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(listen(listener, router, stop.clone()));
        Self { stop, task }
    }
}

/// Serves until it is stopped, and then reserves the address.
async fn listen(listener: TcpListener, router: Router, stop: CancellationToken) -> io::Result<TcpSocket> {
    let addr = listener.local_addr()?;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, router.clone()));
                }
                // Out of file descriptors, most likely: some may come back.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    let reserved = reserve(addr);
    connections.shutdown().await;
    reserved
}

/// A socket that is bound and does not listen. Another one can be bound beside it, as both
/// allow that, but the system gives the port to nobody who asks for a free one.
fn reserve(addr: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    Ok(socket)
}

/// Serves the requests of a connection one by one. After a response that is not sent by
/// HTTP's rules it starts again, if the connection is still open.
async fn serve(mut stream: TcpStream, router: Router) {
    // Each response is written at once, and tests are short.
    let _ = stream.set_nodelay(true);
    let reused = Arc::default();
    loop {
        let (sender, mut deliveries) = mpsc::channel(1);
        let line = Connection { sender, reused: Arc::clone(&reused) };
        let service = TowerToHyperService::new(router.clone().layer(Extension(line)));
        let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        let delivery = tokio::select! {
            // The client closed the connection.
            _ = &mut connection => return,
            Some(delivery) = deliveries.recv() => delivery,
        };
        // The response before has been sent, or its request would still be in progress.
        let parts = connection.into_parts();
        stream = parts.io.into_inner();
        let is_open = delivery.send(&mut stream, |_| ()).await.unwrap_or(false);
        // A pipelined request is lost with the bytes that were read.
        if !is_open || !parts.read_buf.is_empty() {
            return;
        }
    }
}

/// The connection of a request.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    sender: mpsc::Sender<Delivery>,
    reused: Arc<AtomicBool>,
}

impl Connection {
    /// Whether it has carried a response before.
    pub(super) fn is_reused(&self) -> bool {
        self.reused.load(Ordering::Relaxed)
    }

    pub(super) fn keep(&self) {
        self.reused.store(true, Ordering::Relaxed);
    }

    /// Sends this response and nothing else: it never returns.
    pub(super) async fn deliver<T>(&self, delivery: Delivery) -> T {
        // It only fails where the connection has ended.
        let _ = self.sender.send(delivery).await;
        pending().await
    }
}
