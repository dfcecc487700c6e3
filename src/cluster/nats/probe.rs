//! Tries NATS, and says which permission is missing.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_nats::{Client, Event, HeaderMap, jetstream::context::PublishErrorKind};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::{
    Names,
    bucket::{self, EXPECTED},
    connect::{Events, connect},
    words,
};
use crate::config::Cluster;

/// Longest time for one step. A new bucket of several servers needs some seconds.
const STEP: Duration = Duration::from_secs(10);

/// The key that is written; no backend has such a name.
const KEY: &str = "_probe";

/// Connects, sends a message to itself, and writes and deletes a key of the bucket.
///
/// # Errors
/// What does not work and what to do, for people.
pub async fn check(cluster: &Cluster) -> Result<(), String> {
    let (client, events) = connect(cluster).await.map_err(|why| format!("no connection: {why}"))?;
    let (last_words, _task) = last_words(events);
    let names = Names::of(cluster);
    let probe = Probe { client, names, last_words };
    probe.messages().await?;
    probe.bucket().await
}

struct Probe {
    client: Client,
    names: Names,
    last_words: LastWords,
}

impl Probe {
    /// A step's failure: with the words of the server, which name the permission, if it said any.
    fn failed(&self, step: &str, subjects: &str, why: impl fmt::Display) -> String {
        let words = self.last_words.lock().unwrap_or_else(PoisonError::into_inner).take();
        match words {
            // All answers come there.
            Some(words) if words.contains("Subscription to \"_INBOX.") => {
                format!("{step}: the server says: {words}; allow the account to subscribe to _INBOX.>")
            }
            Some(words) => format!("{step}: the server says: {words}; allow the account {subjects}"),
            None => format!("{step}: {why}; it needs {subjects}"),
        }
    }

    /// Sends a message to itself, as the others send theirs, and says that a lease was written.
    async fn messages(&self) -> Result<(), String> {
        self.message(self.names.to(rand::random())).await?;
        self.message(self.names.leases()).await
    }

    async fn message(&self, subject: String) -> Result<(), String> {
        let root = &self.names.root;
        let subjects = format!("to publish and to subscribe to {root}.>");
        let failed = |why: &dyn fmt::Display| {
            self.failed(&format!("a message to {subject} did not come back"), &subjects, why)
        };
        let mut messages = self.client.subscribe(subject.clone()).await.map_err(|error| failed(&error))?;
        let message = Bytes::from_static(KEY.as_bytes());
        self.client.publish(subject.clone(), message).await.map_err(|error| failed(&error))?;
        match timeout(STEP / 5, messages.next()).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(failed(&"the connection was closed")),
            Err(_) => Err(failed(&"no message within 2s")),
        }
    }

    async fn bucket(&self) -> Result<(), String> {
        let Names { bucket: name, stream, .. } = &self.names;
        let context = bucket::context(&self.client, STEP / 2);
        let api = format!("$JS.API.STREAM.INFO.{stream} and $JS.API.STREAM.CREATE.{stream}");
        let step = format!("bucket {name}");
        let found = timeout(STEP, bucket::create(&context, &self.names, false)).await;
        found
            .unwrap_or_else(|_| Err("no answer within 10s".to_owned()))
            .map_err(|why| self.failed(&step, &format!("JetStream, and to publish to {api}"), why))?;

        let api = format!("to publish to $JS.API.STREAM.MSG.GET.{stream}");
        let found = timeout(STEP, bucket::read(&self.client, &self.names, KEY, STEP / 2, false)).await;
        let found = found
            .unwrap_or_else(|_| Err("no answer within 10s".to_owned()))
            .map_err(|why| self.failed(&format!("{step} can't be read"), &api, why))?;
        let revision = found.map_or(0, |(revision, _)| revision);

        let key = self.names.key(KEY);
        let api = format!("to publish to $KV.{name}.>");
        let written = self.write(revision, "probe").await;
        let written = written.map_err(|kind| self.failed(&format!("{step} can't be written"), &api, kind))?;
        match self.write(revision, "again").await {
            Err(PublishErrorKind::WrongLastSequence | PublishErrorKind::WrongLastMessageId) => {}
            Ok(_) => {
                return Err(format!(
                    "{step} took a write with an old revision: it is no bucket for leases; delete its stream \
                     {stream}, and it is created again"
                ));
            }
            Err(kind) => return Err(self.failed(&format!("{step} can't be written"), &api, kind)),
        }
        let mut headers = HeaderMap::new();
        headers.insert(EXPECTED, written.to_string());
        headers.insert("KV-Operation", "DEL");
        let deleted = async {
            let sent = context.publish_with_headers(key, headers, Bytes::new()).await;
            sent.map_err(|error| error.kind())?.await.map_err(|error| error.kind())
        };
        deleted
            .await
            .map(|_| ())
            .map_err(|kind| self.failed(&format!("{step}: no key can be deleted"), &api, kind))
    }

    async fn write(&self, revision: u64, value: &'static str) -> Result<u64, PublishErrorKind> {
        let written = bucket::write(
            &self.client,
            self.names.key(KEY),
            Bytes::from_static(value.as_bytes()),
            revision,
            STEP / 2,
        );
        timeout(STEP, written).await.unwrap_or(Err(PublishErrorKind::TimedOut))
    }
}

/// The last error that a server has sent.
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
