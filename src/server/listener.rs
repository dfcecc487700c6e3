//! Accepts connections, at most so many in all and of one address.
//!
//! At the limit the server accepts none: further clients wait in the listener's backlog
//! until a connection ends. A connection beyond its address's share is closed at once.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use super::{
    connection::{Peer, Shared, serve},
    connection_age::AgeLimit,
    dispatch::{CertificateNames, Dispatch},
    http1,
    other_protocols::{Protocol, protocol},
    socket::{self, Socket},
    tls::Tls,
    usage::{ConnectionUsage, Usage, sweep},
    wire::Wire,
};
use crate::telemetry::{Sampled, metrics::metrics};

/// How long to wait after the system refused a connection (as it does without
/// free file descriptors) before accepting again.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a client may take for a TLS handshake and its first bytes of HTTP. Without
/// this limit, clients that only open connections could use up `limits.connections`.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Connections are scarce when fewer than this part of them is left.
const SCARCE: usize = 8;

/// Most log lines of one kind, since a client can cause any number of them.
const LINES_PER_SECOND: u32 = 1;

/// The first byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// What connections may be and have.
pub(super) struct Limits {
    /// Connections at once.
    pub(super) connections: usize,
    /// Streams of a connection.
    pub(super) streams: u32,
    /// How old a connection may become.
    pub(super) age: Option<AgeLimit>,
}

/// Accepts and serves connections.
pub(super) struct Listener {
    socket: TcpListener,
    permits: Arc<Semaphore>,
    usage: Arc<Usage>,
    shared: Arc<Shared>,
    tls: Option<Arc<Tls>>,
    tasks: TaskTracker,
    refused: Sampled,
    not_accepted: Sampled,
    failed: Arc<Sampled>,
}

impl Listener {
    pub(super) fn new(
        socket: TcpListener,
        Limits { connections, streams, age }: Limits,
        usage: &Arc<Usage>,
        service: Dispatch,
        tls: Option<Arc<Tls>>,
    ) -> Self {
        let connections = connections.min(Semaphore::MAX_PERMITS);
        let permits = Arc::new(Semaphore::new(connections));
        let is_scarce = {
            let permits = Arc::clone(&permits);
            Box::new(move || permits.available_permits() <= connections / SCARCE)
        };
        Self {
            socket,
            permits,
            usage: Arc::clone(usage),
            shared: Arc::new(Shared { service, streams, age, is_scarce }),
            tls,
            tasks: TaskTracker::new(),
            refused: Sampled::new(LINES_PER_SECOND),
            not_accepted: Sampled::new(LINES_PER_SECOND),
            failed: Arc::new(Sampled::new(LINES_PER_SECOND)),
        }
    }

    /// Accepts connections until `shutdown`, then waits for the end of all.
    pub(super) async fn run(self, shutdown: CancellationToken) {
        let usage = Arc::clone(&self.usage);
        let tasks = self.tasks.clone();
        let mut sweep = pin!(sweep(&usage));
        let mut accepting = Box::pin(self.accept());
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = &mut sweep => {}
            () = &mut accepting => {}
        }
        // Closes the listening socket.
        drop(accepting);
        usage.drain();
        tasks.close();
        let ended = tasks.wait();
        tokio::select! {
            () = ended => {}
            () = sweep => {}
        }
    }

    async fn accept(self) {
        while let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await {
            let (stream, address) = loop {
                match self.socket.accept().await.and_then(|(stream, address)| {
                    socket::prepare(&stream)?;
                    Ok((stream, address))
                }) {
                    Ok(accepted) => break accepted,
                    Err(error) => {
                        if let Some(left_out) = self.not_accepted.next_line() {
                            warn!(%error, left_out, "accept failed");
                        }
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            };
            if let Some(usage) = self.usage.connect(address.ip()) {
                self.start(stream, address, usage, permit);
            } else if let Some(left_out) = self.refused.next_line() {
                warn!(
                    address = %address.ip(),
                    left_out,
                    "connection refused: its address has limits.connections_per_address"
                );
            }
        }
    }

    fn start(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        usage: Arc<ConnectionUsage>,
        permit: OwnedSemaphorePermit,
    ) {
        let (shared, tls, failed) = (Arc::clone(&self.shared), self.tls.clone(), Arc::clone(&self.failed));
        let counted = metrics().open_connection();
        self.tasks.spawn(async move {
            if let Err(error) = handle(stream, tls, usage, shared).await
                && let Some(left_out) = failed.next_line()
            {
                warn!(address = %address.ip(), left_out, %error, "handshake failed");
            }
            drop((counted, permit));
        });
    }
}

/// Serves one connection. Fails only with its handshake.
async fn handle(
    stream: TcpStream,
    tls: Option<Arc<Tls>>,
    usage: Arc<ConnectionUsage>,
    shared: Arc<Shared>,
) -> io::Result<()> {
    let until = Instant::now() + HANDSHAKE;
    let address = stream.connect_info();
    let Some(first) = before(until, &usage, first_byte(&stream)).await? else { return Ok(()) };
    match tls {
        None if first == TLS_HANDSHAKE => {
            Err(io::Error::other("the client speaks TLS, and server.tls is not set"))
        }
        None => {
            let peer = Peer { address, certificate: None, is_encrypted: false };
            speak(stream, until, peer, usage, shared).await
        }
        Some(_) if first != TLS_HANDSHAKE => {
            let mut stream = stream;
            let _ = timeout_at(until, refuse_plain_text(&mut stream)).await;
            Err(io::Error::other("the client does not speak TLS, and server.tls is set"))
        }
        Some(tls) => {
            let accept = async { tls.acceptor().accept(stream).await.map(Some) };
            let Some(stream) = before(until, &usage, accept).await? else { return Ok(()) };
            let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let certificate = certificate.and_then(|der| CertificateNames::of(der));
            let peer = Peer { address, certificate, is_encrypted: true };
            // It is large, and each step that it is passed to would have room for it.
            speak(Box::new(stream), until, peer, usage, shared).await
        }
    }
}

/// Says what is wrong to a client that has begun a request without TLS.
async fn refuse_plain_text(stream: &mut TcpStream) -> io::Result<()> {
    let mut read = [0; 4096];
    let length = stream.peek(&mut read).await?;
    // A client of HTTP/2 can't read it, and guesses better at a connection that is closed.
    if read[..length].starts_with(b"PRI ") {
        return Ok(());
    }
    // Else the system would reset the connection when it is closed.
    let _ = stream.read(&mut read).await?;
    stream.write_all(&http1::plain_text_refusal()).await?;
    stream.shutdown().await
}

/// Serves a connection over the version of HTTP that its client speaks.
async fn speak<T: Socket>(
    stream: T,
    until: Instant,
    peer: Peer,
    usage: Arc<ConnectionUsage>,
    shared: Arc<Shared>,
) -> io::Result<()> {
    let Some((protocol, stream)) = before(until, &usage, protocol(stream)).await? else { return Ok(()) };
    match protocol {
        Protocol::Http2 => {
            let wire = Wire::new(stream, shared.streams);
            if let Err(error) = serve(wire, until, peer, usage, shared).await {
                debug!(%error, "connection failed");
            }
        }
        Protocol::Http1 => {
            stream.close_if_silent();
            // Else each connection over HTTP/2 would have room for it, too.
            if let Err(error) = Box::pin(http1::serve(stream, until, peer, usage, shared)).await {
                debug!(%error, "connection failed");
            }
        }
    }
    Ok(())
}

/// A step of the handshake. `None` if the server stops meanwhile.
async fn before<T>(
    until: Instant,
    usage: &ConnectionUsage,
    step: impl Future<Output = io::Result<Option<T>>>,
) -> io::Result<Option<T>> {
    tokio::select! {
        done = timeout_at(until, step) => done?,
        () = usage.drained() => Ok(None),
    }
}

/// The first byte that the client sends.
async fn first_byte(stream: &TcpStream) -> io::Result<Option<u8>> {
    let mut first = [0];
    let read = stream.peek(&mut first).await?;
    Ok((read > 0).then_some(first[0]))
}
