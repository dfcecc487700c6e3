//! A TCP connection that a test cuts, in one direction or in both.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp},
    sync::watch,
    task::{AbortHandle, JoinSet},
};

/// Bytes that are on the way at a time.
const PIECE: usize = 64 * 1024;

/// What passes. Other bytes wait, as those of a network that is cut do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passes {
    Everything,
    Nothing,
    /// What the client sends.
    Requests,
    /// What the server sends.
    Responses,
}

impl Passes {
    fn requests(self) -> bool {
        matches!(self, Self::Everything | Self::Requests)
    }

    fn responses(self) -> bool {
        matches!(self, Self::Everything | Self::Responses)
    }
}

/// A port of loopback behind which a server is, until this is dropped.
#[derive(Debug)]
pub(super) struct Link {
    port: u16,
    passes: watch::Sender<Passes>,
    listening: AbortHandle,
}

impl Link {
    /// To the server at this port, which need not listen yet.
    pub(super) async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (passes, now) = watch::channel(Passes::Everything);
        let listening = tokio::spawn(listen(listener, server, now)).abort_handle();
        Self { port, passes, listening }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// From now on, on open connections, too.
    pub(super) fn set(&self, passes: Passes) {
        self.passes.send_replace(passes);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// The connections end with the link.
async fn listen(listener: TcpListener, server: u16, passes: watch::Receiver<Passes>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((client, _)) = accepted {
                    connections.spawn(connect(client, server, passes.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// An error means that the client or the server closed the connection.
async fn connect(client: TcpStream, server: u16, mut passes: watch::Receiver<Passes>) -> io::Result<()> {
    // A connection is opened by packets in both directions.
    let _ = passes.wait_for(|passes| *passes == Passes::Everything).await;
    let server = TcpStream::connect(("127.0.0.1", server)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        ended = forward(from_client, to_server, passes.clone(), Passes::requests) => ended,
        ended = forward(from_server, to_client, passes, Passes::responses) => ended,
    }
}

async fn forward(
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    mut passes: watch::Receiver<Passes>,
    direction: fn(Passes) -> bool,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let _ = passes.wait_for(|passes| direction(*passes)).await;
        let length = from.read(&mut piece).await?;
        let _ = passes.wait_for(|passes| direction(*passes)).await;
        if length == 0 {
            return Ok(());
        }
        to.write_all(&piece[..length]).await?;
    }
}

#[tokio::test]
async fn bytes_wait_in_the_direction_that_is_cut_and_pass_in_the_other() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let link = Link::to(listener.local_addr().unwrap().port()).await;
    let mut client = TcpStream::connect(("127.0.0.1", link.port())).await.unwrap();
    let (mut accepted, _) = listener.accept().await.unwrap();
    let mut received = [0; 1];
    for (passes, is_request) in [(Passes::Responses, true), (Passes::Requests, false)] {
        link.set(passes);
        let (cut, open) =
            if is_request { (&mut client, &mut accepted) } else { (&mut accepted, &mut client) };
        cut.write_all(b"1").await.unwrap();
        open.write_all(b"2").await.unwrap();
        cut.read_exact(&mut received).await.unwrap();
        assert_eq!(received, *b"2");
        assert!(open.try_read(&mut received).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock));
        link.set(Passes::Everything);
        open.read_exact(&mut received).await.unwrap();
        assert_eq!(received, *b"1");
    }
    link.set(Passes::Nothing);
    let mut late = TcpStream::connect(("127.0.0.1", link.port())).await.unwrap();
    late.write_all(b"3").await.unwrap();
    link.set(Passes::Everything);
    let (mut accepted, _) = listener.accept().await.unwrap();
    accepted.read_exact(&mut received).await.unwrap();
    assert_eq!(received, *b"3");
}
