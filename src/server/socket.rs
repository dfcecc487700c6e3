//! The socket of a connection: its options, and whether its client is still there.

use std::io;

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;
#[cfg(target_os = "linux")]
use tracing::debug;

#[cfg(target_os = "linux")]
use super::call::TAKE;

/// When the system asks whether a silent client is still there: after so many seconds, again
/// after so many, and how often until it closes the connection. Clients that vanished are noticed
/// sooner by pings of HTTP/2.
#[cfg(target_os = "linux")]
const KEEPALIVE: (u64, u64, u32) = (60, 10, 6);

/// What the system knows about the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// Nothing else than that it is there.
    Open,
    /// It sends no more. It may have closed the connection, or wait for a response.
    HalfClosed,
    /// It has reset the connection.
    Gone,
}

/// A connection over TCP, or one over TLS on that.
pub(super) trait Socket: AsyncRead + AsyncWrite + Unpin {
    /// What is known without reading, also where unread bytes lie before the end.
    fn condition(&self) -> Condition;

    /// Has the system close the connection of a client that acknowledges nothing of what it is
    /// sent. HTTP/1.1 has no pings.
    fn close_if_silent(&self) {}
}

impl Socket for TcpStream {
    #[cfg(target_os = "linux")]
    fn condition(&self) -> Condition {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};

        let mut polled = [PollFd::new(self, PollFlags::RDHUP)];
        if poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_err() {
            return Condition::Open;
        }
        let found = polled[0].revents();
        if found.intersects(PollFlags::ERR | PollFlags::HUP) {
            Condition::Gone
        } else if found.contains(PollFlags::RDHUP) {
            Condition::HalfClosed
        } else {
            Condition::Open
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn condition(&self) -> Condition {
        Condition::Open
    }

    #[cfg(target_os = "linux")]
    fn close_if_silent(&self) {
        let millis = u32::try_from(TAKE.as_millis()).unwrap_or(u32::MAX);
        if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(self, millis) {
            debug!(%error, "time-out of acknowledgements not set");
        }
    }
}

impl Socket for Box<TlsStream<TcpStream>> {
    fn condition(&self) -> Condition {
        self.get_ref().0.condition()
    }

    fn close_if_silent(&self) {
        self.get_ref().0.close_if_silent();
    }
}

/// Sets the options of a connection that was accepted.
pub(super) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    {
        use std::time::Duration;

        use rustix::net::sockopt;

        let (idle, interval, probes) = KEEPALIVE;
        sockopt::set_socket_keepalive(stream, true)?;
        sockopt::set_tcp_keepidle(stream, Duration::from_secs(idle))?;
        sockopt::set_tcp_keepintvl(stream, Duration::from_secs(interval))?;
        sockopt::set_tcp_keepcnt(stream, probes)?;
    }
    Ok(())
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::time::Duration;

    use rustix::net::sockopt;
    use tokio::{io::AsyncWriteExt, net::TcpListener};

    use super::*;

    /// Both ends of a connection: the client's, and the server's.
    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    /// Waits until the condition is another than this.
    async fn changed(stream: &TcpStream, from: Condition) -> Condition {
        let changed = async {
            while stream.condition() == from {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), changed).await.unwrap();
        stream.condition()
    }

    #[tokio::test]
    async fn system_closes_the_connection_of_a_client_that_acknowledges_nothing() {
        let (_client, stream) = pair().await;
        stream.close_if_silent();
        let millis = sockopt::tcp_user_timeout(&stream).unwrap();
        assert_eq!(u128::from(millis), TAKE.as_millis());
    }

    #[tokio::test]
    async fn silent_client_is_asked_for_after_a_minute() {
        let (_client, stream) = pair().await;
        prepare(&stream).unwrap();
        assert!(stream.nodelay().unwrap() && sockopt::socket_keepalive(&stream).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&stream).unwrap(), Duration::from_mins(1));
        assert_eq!(sockopt::tcp_keepintvl(&stream).unwrap(), Duration::from_secs(10));
        assert_eq!(sockopt::tcp_keepcnt(&stream).unwrap(), 6);
    }

    #[tokio::test]
    async fn end_of_the_client_is_known_behind_bytes_that_were_not_read() {
        let (mut client, stream) = pair().await;
        assert_eq!(stream.condition(), Condition::Open);
        client.write_all(b"unread").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(changed(&stream, Condition::Open).await, Condition::HalfClosed);
        sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
        drop(client);
        assert_eq!(changed(&stream, Condition::HalfClosed).await, Condition::Gone);
    }
}
