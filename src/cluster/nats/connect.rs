//! Connects with credentials and certificates that are read now.

use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event};
use secrecy::ExposeSecret;
use tokio::sync::mpsc;

use super::{INBOUND, OUTBOUND, REJECTED};
use crate::config::{Cluster, ClusterCredentials, ClusterTls};

/// A server that says nothing for two of these is left.
const PING: Duration = Duration::from_millis(500);

/// Longest time for one connection to one server.
pub(super) const CONNECT: Duration = Duration::from_secs(2);

/// Events that wait to be heard.
const EVENTS: usize = 128;

/// The waits between two attempts to connect.
const SHORTEST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Events of the client. Ends with the client.
pub(super) type Events = mpsc::Receiver<Event>;

/// Connects with credentials that are read now.
///
/// Least that a server has to take in one message.
const LEAST_PAYLOAD: usize = 128 << 10;

/// # Errors
/// Why not, for people.
pub(super) async fn connect(cluster: &Cluster) -> Result<(Client, Events), String> {
    let (events, received) = mpsc::channel(EVENTS);
    let options = options(cluster).await?.event_callback(move |event| {
        let events = events.clone();
        async move { _ = events.send(event).await }
    });
    let servers = cluster.nats.join(", ");
    match options.connect(&cluster.nats[..]).await {
        Ok(client) if client.max_payload() < LEAST_PAYLOAD => Err(format!(
            "{servers}: the server takes messages of at most {} bytes; set its max_payload to {LEAST_PAYLOAD} or \
             more",
            client.max_payload()
        )),
        Ok(client) => Ok((client, received)),
        Err(error) => {
            let rejected = matches!(
                error.kind(),
                ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication
            );
            let credentials = &cluster.credentials;
            Err(if rejected {
                format!("{servers}: the server {REJECTED} ({credentials}): {error}")
            } else {
                format!("{servers}: {error}")
            })
        }
    }
}

async fn options(cluster: &Cluster) -> Result<ConnectOptions, String> {
    let servers = cluster.nats.len();
    let mut options = ConnectOptions::new()
        .name(format!("jobwatch {} {}", cluster.name, cluster.member))
        .ping_interval(PING)
        .connection_timeout(CONNECT)
        .subscription_capacity(INBOUND)
        .client_capacity(OUTBOUND)
        // After that it is replaced.
        .max_reconnects(Some(3 * servers.max(3)))
        .reconnect_delay_callback(|attempts| {
            if attempts <= 1 { Duration::ZERO } else { wait(attempts.try_into().unwrap_or(u32::MAX)) }
        });
    if let Some(ClusterTls { ca, cert, key }) = &cluster.tls {
        options = options.require_tls(true);
        if let Some(ca) = ca {
            options = options.add_root_certificates(ca.clone());
        }
        if let Some((cert, key)) = cert.clone().zip(key.clone()) {
            options = options.add_client_certificate(cert, key);
        }
    }
    let Some(secret) = cluster.credentials.secret() else { return Ok(options) };
    let configured = secret.clone();
    let read = tokio::task::spawn_blocking(move || configured.read_again()).await;
    let value = match read {
        Ok(Ok(Some(value))) => value,
        Ok(Ok(None)) | Err(_) => secret.value().clone(),
        Ok(Err(problem)) => return Err(problem.to_string()),
    };
    let value = value.expose_secret().to_owned();
    Ok(match &cluster.credentials {
        ClusterCredentials::None => options,
        // The client reads no last line without its end, which a secret of a file has not.
        ClusterCredentials::Creds(secret) => options
            .credentials(&format!("{value}\n"))
            .map_err(|error| format!("{} can't be used: {error}; write a credentials file", secret.key()))?,
        ClusterCredentials::Nkey(_) => options.nkey(value),
        ClusterCredentials::Password { user, .. } => options.user_and_password(user.clone(), value),
        ClusterCredentials::Token(_) => options.token(value),
    })
}

/// The wait before an attempt, with jitter.
pub(super) fn wait(attempt: u32) -> Duration {
    let most = SHORTEST_WAIT.saturating_mul(1 << attempt.min(10)).min(LONGEST_WAIT);
    most.mul_f64(0.5 + rand::random::<f64>() / 2.0)
}
