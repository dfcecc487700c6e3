//! Forwards bytes between the gateway and a server, until a test makes it silent.

use std::net::SocketAddr;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{AbortHandle, JoinSet},
};

use super::front::Protocol;

/// A tunnel to one server until it is dropped.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) port: u16,
    /// How many connections have begun.
    begun: watch::Sender<usize>,
    /// Connections up to this number are silent.
    silent: watch::Sender<usize>,
    listening: AbortHandle,
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Tunnel {
    /// Forwards what the protocol has below HTTP: terminates its TLS, if it has any.
    pub(crate) async fn terminating(protocol: Protocol, target: SocketAddr) -> Self {
        Self::start(Some(protocol), target).await
    }

    /// Forwards all bytes.
    pub(crate) async fn before(port: u16) -> Self {
        Self::start(None, ([127, 0, 0, 1], port).into()).await
    }

    async fn start(protocol: Option<Protocol>, target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (begun, silent) = (watch::Sender::default(), watch::Sender::default());
        let listening = tokio::spawn(listen(listener, protocol, target, begun.clone(), silent.clone()));
        Self { port, begun, silent, listening: listening.abort_handle() }
    }

    /// Forwards nothing more on the connections that are open, and leaves them open.
    pub(crate) fn silence_open_connections(&self) {
        self.silent.send_replace(*self.begun.borrow());
    }

    pub(crate) fn connections(&self) -> usize {
        *self.begun.borrow()
    }
}

/// The connections end with the tunnel.
async fn listen(
    listener: TcpListener,
    protocol: Option<Protocol>,
    target: SocketAddr,
    begun: watch::Sender<usize>,
    silent: watch::Sender<usize>,
) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        begun.send_modify(|begun| *begun += 1);
        let number = *begun.borrow();
        let mut silent = silent.subscribe();
        connections.spawn(async move {
            let mut server = TcpStream::connect(target).await.unwrap();
            server.set_nodelay(true).unwrap();
            stream.set_nodelay(true).unwrap();
            let mut stream = match protocol {
                None => Box::new(stream),
                Some(protocol) => match protocol.accept(stream).await {
                    Some(stream) => stream,
                    None => return,
                },
            };
            tokio::select! {
                // A connection that breaks ends like any other.
                _ = copy_bidirectional(&mut stream, &mut server) => return,
                _ = async { silent.wait_for(|silent| *silent >= number).await.is_ok() } => {}
            }
            std::future::pending::<()>().await;
        });
    }
}
