//! NATS: messages between replicas, and the bucket of leases. Nothing else knows its client.
//!
//! | subject or bucket | holds |
//! | --- | --- |
//! | `jobwatch.<name>.v1.to.<incarnation>` | messages for one process |
//! | `jobwatch.<name>.v1.lease` | the name of a backend whose lease was just written |
//! | bucket `jobwatch_leases_<name>` | one key per backend |
//!
//! The client reconnects by itself a few times, to one of the other servers. Then, or when a
//! server rejects the credentials, it is replaced by a new one with credentials that are read
//! again.

use std::{fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use async_nats::{
    Client, ClientError, ConnectErrorKind, Event, ServerError, Subscriber,
    jetstream::context::PublishErrorKind,
};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use tokio::{
    sync::{broadcast, mpsc, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::{
    lease::{Timing, WriteError},
    wire::{Connection, Wire},
};
use crate::config::Cluster;

mod bucket;
mod connect;
mod probe;

use connect::{CONNECT, Events, connect, wait};

pub use probe::check;

/// Messages that wait to be written to the connection.
const OUTBOUND: usize = 64;

/// Messages that wait to be read, those of one subscription and those of the owner of this.
const INBOUND: usize = 1024;

/// Room in a message for headers and subject.
const OVERHEAD: usize = 64 << 10;

/// How long a cluster of NATS servers may take to start.
const STARTS_WITHIN: Duration = Duration::from_secs(30);

/// Why there is no connection at first.
const NOT_YET: &str = "not connected yet";

/// Part of each reason that the credentials are.
const REJECTED: &str = "rejects cluster.credentials";

/// Shortest time-out of a call to the bucket.
const SHORTEST_CALL: Duration = Duration::from_secs(1);

/// The names of subjects and of the bucket.
#[derive(Clone, Debug)]
struct Names {
    /// `jobwatch.<name>.v1`
    root: String,
    bucket: String,
    stream: String,
}

impl Names {
    fn of(cluster: &Cluster) -> Self {
        let bucket = format!("jobwatch_leases_{}", cluster.name);
        let stream = format!("KV_{bucket}");
        Self { root: format!("jobwatch.{}.v1", cluster.name), bucket, stream }
    }

    fn to(&self, incarnation: u64) -> String {
        format!("{}.to.{incarnation:016x}", self.root)
    }

    fn leases(&self) -> String {
        format!("{}.lease", self.root)
    }

    /// The subject of a key. Names of backends may have dots anywhere, keys may not.
    fn key(&self, backend: &str) -> String {
        format!("$KV.{}.{}", self.bucket, backend.replace('.', "="))
    }
}

/// A connection to NATS, which is kept for as long as this exists.
pub struct Nats {
    shared: Arc<Shared>,
    connection: watch::Receiver<Connection>,
    changes: broadcast::Sender<Arc<str>>,
    _task: AbortOnDropHandle<()>,
}

struct Shared {
    names: Names,
    /// The client in use while it is connected.
    client: ArcSwapOption<Client>,
    call: Duration,
    started: Instant,
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connection = self.connection.borrow();
        f.debug_struct("Nats")
            .field("names", &self.shared.names)
            .field("connection", &*connection)
            .finish_non_exhaustive()
    }
}

impl Nats {
    /// Connects, and tries again for ever. The receiver has the messages for `incarnation`;
    /// where it is not read, they are dropped.
    pub fn start(cluster: &Cluster, incarnation: u64) -> (Arc<Self>, mpsc::Receiver<Bytes>) {
        let why = NOT_YET.to_owned();
        let (state, connection) = watch::channel(Connection::Disconnected { why, since: Instant::now() });
        let (inbound, messages) = mpsc::channel(INBOUND);
        let (changes, _) = broadcast::channel(INBOUND);
        let call = Timing::of_lease(cluster.lease).retry.max(SHORTEST_CALL);
        let names = Names::of(cluster);
        let shared =
            Arc::new(Shared { names, client: ArcSwapOption::empty(), call, started: Instant::now() });
        let connector = Connector {
            cluster: cluster.clone(),
            incarnation,
            shared: Arc::clone(&shared),
            state,
            inbound,
            changes: changes.clone(),
        };
        let task = AbortOnDropHandle::new(tokio::spawn(connector.run()));
        (Arc::new(Self { shared, connection, changes, _task: task }), messages)
    }

    /// Whether it is connected.
    pub fn connection(&self) -> watch::Receiver<Connection> {
        self.connection.clone()
    }

    /// The names of backends whose leases were written.
    pub(super) fn changes(&self) -> broadcast::Receiver<Arc<str>> {
        self.changes.subscribe()
    }

    /// Says that the lease of a backend was written.
    pub(super) fn announce(&self, backend: &str) {
        self.shared.publish(self.shared.names.leases(), Bytes::copy_from_slice(backend.as_bytes()));
    }

    /// The value of a backend's key and its revision.
    ///
    /// # Errors
    /// Why it can't be read, for the log.
    pub(super) async fn read(&self, backend: &str) -> Result<Option<(u64, Bytes)>, String> {
        let client = self.client()?;
        let Shared { names, call, .. } = &*self.shared;
        let read = bucket::read(&client, names, backend, *call, self.shared.may_be_small());
        timeout(self.shared.call, read).await.unwrap_or_else(|_| Err("no answer".to_owned()))
    }

    /// Writes the value of a backend's key if its revision is still this one; `None`: if there
    /// is none. Returns the new revision.
    ///
    /// # Errors
    /// It was not written, or may have been.
    pub(super) async fn write(
        &self,
        backend: &str,
        value: Bytes,
        revision: Option<u64>,
    ) -> Result<u64, WriteError> {
        let client = self.client().map_err(|_| WriteError::Failed)?;
        let subject = self.shared.names.key(backend);
        let written = bucket::write(&client, subject, value, revision.unwrap_or(0), self.shared.call);
        match timeout(self.shared.call, written).await {
            Ok(Ok(revision)) => Ok(revision),
            Ok(Err(PublishErrorKind::WrongLastSequence | PublishErrorKind::WrongLastMessageId)) => {
                Err(WriteError::Conflict)
            }
            // Nobody took it: the bucket has no leader at present, or it was lost.
            Ok(Err(PublishErrorKind::StreamNotFound)) => {
                let context = bucket::context(&client, self.shared.call);
                let created = bucket::create(&context, &self.shared.names, self.shared.may_be_small());
                match timeout(self.shared.call, created).await {
                    Ok(Ok(true)) => Err(WriteError::Conflict),
                    _ => Err(WriteError::Failed),
                }
            }
            Ok(Err(_)) | Err(_) => Err(WriteError::Failed),
        }
    }

    fn client(&self) -> Result<Arc<Client>, String> {
        self.shared.client.load_full().ok_or_else(|| "not connected".to_owned())
    }
}

impl Wire for Nats {
    fn send(&self, to: u64, message: Bytes) -> bool {
        self.shared.publish(self.shared.names.to(to), message)
    }

    fn max_message(&self) -> usize {
        let client = self.shared.client.load();
        client.as_ref().map_or(960 << 10, |client| client.max_payload().saturating_sub(OVERHEAD))
    }
}

impl Shared {
    /// Whether the bucket may have fewer replicas than it should.
    fn may_be_small(&self) -> bool {
        self.started.elapsed() > STARTS_WITHIN
    }

    /// Puts a message into the queue of the connection, if there is room. While it is
    /// disconnected nothing is queued: that would be sent later, when nobody wants it any more.
    fn publish(&self, subject: String, message: Bytes) -> bool {
        let Some(client) = self.client.load_full() else { return false };
        matches!(client.publish(subject, message).now_or_never(), Some(Ok(())))
    }
}

/// The task that keeps the connection.
struct Connector {
    cluster: Cluster,
    incarnation: u64,
    shared: Arc<Shared>,
    state: watch::Sender<Connection>,
    inbound: mpsc::Sender<Bytes>,
    changes: broadcast::Sender<Arc<str>>,
}

impl Connector {
    async fn run(self) {
        let mut attempt = 0;
        loop {
            match connect(&self.cluster).await {
                Ok((client, events)) => {
                    let why = self.serve(&client, events, &mut attempt).await;
                    self.disconnected(why);
                }
                Err(why) => self.disconnected(why),
            }
            attempt += 1;
            sleep(wait(attempt)).await;
        }
    }

    /// Serves one client until it has to be replaced. Returns why.
    async fn serve(&self, client: &Client, mut events: Events, attempt: &mut u32) -> String {
        let names = &self.shared.names;
        let subjects = [names.to(self.incarnation), names.leases()];
        let [mut messages, mut leases] = match subscribe(client, subjects).await {
            Ok(subscriptions) => subscriptions,
            Err(why) => return why,
        };
        self.connected(client).await;
        *attempt = 0;
        let mut why = "the server closed the connection".to_owned();
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(Event::Connected) => self.connected(client).await,
                    Some(Event::Disconnected) => self.disconnected(why.clone()),
                    Some(Event::ServerError(error)) => {
                        why = format!("the server says: {}", words(&error));
                        warn!(error = words(&error), "error of the NATS server");
                    }
                    Some(Event::ClientError(error)) => {
                        if let ClientError::Other(text) = &error {
                            why.clone_from(text);
                        }
                        let kinds =
                            [ConnectErrorKind::AuthorizationViolation, ConnectErrorKind::Authentication];
                        if kinds.iter().any(|kind| why == kind.to_string()) {
                            // With credentials that are read again.
                            return format!("the server {REJECTED}: {why}");
                        }
                    }
                    Some(_) => {}
                    None => return why,
                },
                message = messages.next() => match message {
                    // Where it is full, the session notices a gap.
                    Some(message) => _ = self.inbound.try_send(message.payload),
                    None => return why,
                },
                change = leases.next() => match change {
                    Some(change) => if let Ok(backend) = str::from_utf8(&change.payload) {
                        let _ = self.changes.send(backend.into());
                    },
                    None => return why,
                },
            }
        }
    }

    async fn connected(&self, client: &Client) {
        // Afterwards the name of the server is that of the new connection.
        let flushed = timeout(CONNECT, client.flush()).await;
        if !matches!(flushed, Ok(Ok(()))) {
            return;
        }
        let server = client.server_info().server_name;
        self.shared.client.store(Some(Arc::new(client.clone())));
        self.state.send_if_modified(|state| {
            // The client reports its first connection as well.
            if matches!(state, Connection::Connected { server: known } if *known == server) {
                return false;
            }
            info!(server, "connected to NATS");
            *state = Connection::Connected { server };
            true
        });
    }

    fn disconnected(&self, why: String) {
        self.shared.client.store(None);
        let servers = self.cluster.nats.join(", ");
        let why = if why.starts_with(&servers) { why } else { format!("{servers}: {why}") };
        self.state.send_if_modified(|state| {
            let (since, is_news) = match state {
                Connection::Connected { .. } => (Instant::now(), true),
                Connection::Disconnected { why: known, .. } if *known == why => return false,
                Connection::Disconnected { why: known, since } => (*since, is_news(known, &why)),
            };
            if is_news {
                warn!(why, "not connected to NATS");
            }
            *state = Connection::Disconnected { why, since };
            true
        });
    }
}

/// Whether a reason gets a line of its own in the log, though there was no connection already. The
/// attempts to connect again have other words for the same.
fn is_news(known: &str, why: &str) -> bool {
    known == NOT_YET || why.contains(REJECTED) && !known.contains(REJECTED)
}

async fn subscribe(client: &Client, subjects: [String; 2]) -> Result<[Subscriber; 2], String> {
    let [messages, leases] = subjects.map(|subject| client.subscribe(subject));
    let (messages, leases) = (messages.await, leases.await);
    let text = |error: async_nats::SubscribeError| error.to_string();
    Ok([messages.map_err(text)?, leases.map_err(text)?])
}

/// The server's words.
fn words(error: &ServerError) -> String {
    match error {
        ServerError::AuthorizationViolation => "authorization violation".to_owned(),
        ServerError::SlowConsumer(_) => "slow consumer".to_owned(),
        ServerError::Other(text) => text.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_connection_is_logged_once_and_rejected_credentials_as_well() {
        let (lost, refused) = ("nats://a: the server closed the connection", "nats://a: connection refused");
        let rejected = "nats://a: the server rejects cluster.credentials (user x): authorization violation";
        let again = "nats://a: the server rejects cluster.credentials: authorization violation";
        assert!(is_news(NOT_YET, refused));
        assert!(!is_news(lost, refused));
        assert!(is_news(lost, rejected));
        assert!(!is_news(rejected, again));
    }
}
