//! Why a connection failed, in words.

use std::{error::Error, io};

use tonic::Status;

/// Why the connection failed; none if the error is the gateway's or a proxy's.
pub fn connection_fault(status: &Status) -> Option<String> {
    let mut cause: &(dyn Error + 'static) = status.source()?;
    loop {
        if let Some(error) = cause.downcast_ref::<io::Error>()
            && let Some(words) = of_kind(error.kind())
        {
            return Some(words.to_owned());
        }
        let Some(source) = cause.source() else { break };
        cause = source;
    }
    let innermost = cause.to_string();
    // Of hyper and h2: what they say names their own parts.
    let is_closed = ["h2 protocol", "http2 error", "connection error", "broken pipe", "closed", "canceled"]
        .iter()
        .any(|word| innermost.to_ascii_lowercase().contains(word));
    Some(if is_closed { CLOSED.to_owned() } else { innermost })
}

const CLOSED: &str = "the connection was closed";

fn of_kind(kind: io::ErrorKind) -> Option<&'static str> {
    match kind {
        io::ErrorKind::ConnectionRefused => Some("the connection was refused"),
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::NotConnected
        | io::ErrorKind::UnexpectedEof => Some(CLOSED),
        io::ErrorKind::TimedOut => Some("the connection timed out"),
        io::ErrorKind::HostUnreachable => Some("the host is unreachable"),
        io::ErrorKind::NetworkUnreachable => Some("the network is unreachable"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_of_a_connection_is_in_words() {
        let of = |kind: io::ErrorKind| Status::from_error(Box::new(io::Error::from(kind)));
        for (status, words) in [
            (of(io::ErrorKind::ConnectionRefused), Some("the connection was refused")),
            (of(io::ErrorKind::BrokenPipe), Some("the connection was closed")),
            (of(io::ErrorKind::TimedOut), Some("the connection timed out")),
            (Status::from_error("h2 protocol error: error reading a body".into()), Some(CLOSED)),
            (Status::from_error("dns error: no such name".into()), Some("dns error: no such name")),
            (Status::unavailable("shutting down"), None),
        ] {
            assert_eq!(connection_fault(&status).as_deref(), words, "{status:?}");
        }
    }
}
