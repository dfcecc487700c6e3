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

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use async_nats::{
    Client, ClientError, ConnectErrorKind, ConnectOptions, Event, ServerError, Subscriber,
    jetstream::{
        self, ErrorCode,
        context::{CreateStreamErrorKind, GetStreamErrorKind, PublishErrorKind},
        stream::{self, DiscardPolicy, LastRawMessageErrorKind},
    },
};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use secrecy::ExposeSecret;
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
use crate::config::{Cluster, ClusterCredentials, ClusterTls};

mod probe;

pub use probe::check;

/// Messages that wait to be written to the connection.
const OUTBOUND: usize = 64;

/// Messages that wait to be read, those of one subscription and those of the owner of this.
const INBOUND: usize = 1024;

/// A server that says nothing for two of these is left.
const PING: Duration = Duration::from_millis(500);

/// Longest time for one connection to one server.
const CONNECT: Duration = Duration::from_secs(2);

/// The waits between two attempts to connect.
const SHORTEST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Room in a message for headers and subject.
const OVERHEAD: usize = 64 << 10;

/// Replicas of the bucket where the servers allow it.
const BUCKET_REPLICAS: usize = 3;

/// Shortest time-out of a call to the bucket.
const SHORTEST_CALL: Duration = Duration::from_secs(1);

const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";

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
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connection = self.connection.borrow();
        f.debug_struct("Nats").field("names", &self.shared.names).field("connection", &*connection).finish()
    }
}

impl Nats {
    /// Connects, and tries again for ever. The receiver has the messages for `incarnation`;
    /// where it is not read, they are dropped.
    pub fn start(cluster: &Cluster, incarnation: u64) -> (Arc<Self>, mpsc::Receiver<Bytes>) {
        let why = "not connected yet".to_owned();
        let (state, connection) = watch::channel(Connection::Disconnected { why, since: Instant::now() });
        let (inbound, messages) = mpsc::channel(INBOUND);
        let (changes, _) = broadcast::channel(INBOUND);
        let call = Timing::of_lease(cluster.lease).retry.max(SHORTEST_CALL);
        let names = Names::of(cluster);
        let shared = Arc::new(Shared { names, client: ArcSwapOption::empty(), call });
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
        let read = read(&client, &self.shared.names, backend, self.shared.call);
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
        let written = write(&client, subject, value, revision.unwrap_or(0), self.shared.call);
        match timeout(self.shared.call, written).await {
            Ok(Ok(revision)) => Ok(revision),
            Ok(Err(PublishErrorKind::WrongLastSequence | PublishErrorKind::WrongLastMessageId)) => {
                Err(WriteError::Conflict)
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
    /// Puts a message into the queue of the connection, if there is room. While it is
    /// disconnected nothing is queued: that would be sent later, when nobody wants it any more.
    fn publish(&self, subject: String, message: Bytes) -> bool {
        let Some(client) = self.client.load_full() else { return false };
        matches!(client.publish(subject, message).now_or_never(), Some(Ok(())))
    }
}

fn bucket(client: &Client, call: Duration) -> jetstream::Context {
    jetstream::ContextBuilder::new().timeout(call).ack_timeout(call).build(client.clone())
}

async fn read(
    client: &Client,
    names: &Names,
    backend: &str,
    call: Duration,
) -> Result<Option<(u64, Bytes)>, String> {
    let context = bucket(client, call);
    let stream = context.get_stream_no_info(&names.stream).await.map_err(|error| error.to_string())?;
    // From the leader of the bucket: another of its servers may not have the last value yet.
    match stream.get_last_raw_message_by_subject(&names.key(backend)).await {
        Ok(message) => Ok(Some((message.sequence, message.payload))),
        Err(error) => match error.kind() {
            LastRawMessageErrorKind::NoMessageFound => Ok(None),
            LastRawMessageErrorKind::JetStream(inner)
                if inner.error_code() == ErrorCode::STREAM_NOT_FOUND =>
            {
                create_bucket(&context, names).await?;
                Ok(None)
            }
            _ => Err(error.to_string()),
        },
    }
}

async fn write(
    client: &Client,
    subject: String,
    value: Bytes,
    revision: u64,
    call: Duration,
) -> Result<u64, PublishErrorKind> {
    let mut headers = async_nats::HeaderMap::new();
    headers.insert(EXPECTED, revision.to_string());
    let sent = bucket(client, call).publish_with_headers(subject, headers, value).await;
    let ack = sent.map_err(|error| error.kind())?.await.map_err(|error| error.kind())?;
    Ok(ack.sequence)
}

/// Creates the bucket of leases, unless another replica has.
async fn create_bucket(context: &jetstream::Context, names: &Names) -> Result<(), String> {
    match context.get_stream(&names.stream).await {
        Ok(_) => return Ok(()),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(inner) if inner.error_code() == ErrorCode::STREAM_NOT_FOUND => {}
            _ => return Err(error.to_string()),
        },
    }
    let config = |num_replicas| stream::Config {
        name: names.stream.clone(),
        subjects: vec![format!("$KV.{}.>", names.bucket)],
        description: Some("leases of jobwatch: which replica polls a backend".to_owned()),
        max_messages_per_subject: 1,
        discard: DiscardPolicy::New,
        allow_rollup: true,
        allow_direct: true,
        deny_delete: true,
        num_replicas,
        // No revision may come twice, and this bucket may be in place of one that was lost.
        first_sequence: Some(1 + (rand::random::<u64>() >> 16)),
        ..stream::Config::default()
    };
    for num_replicas in [BUCKET_REPLICAS, 1] {
        let Err(error) = context.create_stream(config(num_replicas)).await else {
            info!(bucket = names.bucket, replicas = num_replicas, "bucket of leases created");
            return Ok(());
        };
        match error.kind() {
            CreateStreamErrorKind::JetStream(inner) => match inner.error_code() {
                ErrorCode::STREAM_NAME_EXIST | ErrorCode::STREAM_NAME_EXIST_RESTORE_FAILED => return Ok(()),
                _ if num_replicas > 1 => {}
                _ => return Err(error.to_string()),
            },
            _ => return Err(error.to_string()),
        }
    }
    Ok(())
}

/// Events of the client. Ends with the client.
type Events = mpsc::UnboundedReceiver<Event>;

/// Connects with credentials that are read now.
///
/// # Errors
/// Why not, for people; whether the server rejects the credentials.
async fn connect(cluster: &Cluster) -> Result<(Client, Events), (String, bool)> {
    let (events, received) = mpsc::unbounded_channel();
    let options = options(cluster).await.map_err(|why| (why, false))?.event_callback(move |event| {
        let _ = events.send(event);
        std::future::ready(())
    });
    let servers = cluster.nats.join(", ");
    match options.connect(&cluster.nats[..]).await {
        Ok(client) => Ok((client, received)),
        Err(error) => {
            let rejected = matches!(
                error.kind(),
                ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication
            );
            let credentials = &cluster.credentials;
            let why = if rejected {
                format!("{servers}: the server rejects cluster.credentials ({credentials}): {error}")
            } else {
                format!("{servers}: {error}")
            };
            Err((why, rejected))
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
        ClusterCredentials::Creds(secret) => options
            .credentials(&value)
            .map_err(|error| format!("{} can't be used: {error}; write a credentials file", secret.key()))?,
        ClusterCredentials::Nkey(_) => options.nkey(value),
        ClusterCredentials::Password { user, .. } => options.user_and_password(user.clone(), value),
        ClusterCredentials::Token(_) => options.token(value),
    })
}

/// The wait before an attempt, with jitter.
fn wait(attempt: u32) -> Duration {
    let most = SHORTEST_WAIT.saturating_mul(1 << attempt.min(10)).min(LONGEST_WAIT);
    most.mul_f64(0.5 + rand::random::<f64>() / 2.0)
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
                Err((why, _)) => self.disconnected(why),
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
                            return format!("the server rejects cluster.credentials: {why}");
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
        self.state.send_if_modified(|state| {
            let since = match state {
                Connection::Connected { .. } => Instant::now(),
                Connection::Disconnected { why: known, .. } if *known == why => return false,
                Connection::Disconnected { since, .. } => *since,
            };
            warn!(why, "not connected to NATS");
            *state = Connection::Disconnected { why, since };
            true
        });
    }
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

/// The last words of a server, by whoever hears its events.
type LastWords = Arc<Mutex<Option<String>>>;

fn last_words(mut events: Events) -> (LastWords, AbortOnDropHandle<()>) {
    let last = LastWords::default();
    let heard = Arc::clone(&last);
    let task = tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            if let Event::ServerError(error) = event {
                *heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(words(&error));
            }
        }
    });
    (last, AbortOnDropHandle::new(task))
}
