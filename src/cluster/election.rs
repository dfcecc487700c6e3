//! The task that keeps the lease of one backend.

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use prost::Message;
use tokio::{
    sync::{broadcast, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{debug, info};

use super::{
    lease::{Action, Lease, LeaseValue, Member, Ownership, Pause, Timing},
    nats::Nats,
};

/// The election of one backend's owner. Without [`release`](Self::release), another replica
/// becomes the owner only after a lease.
#[derive(Debug)]
pub struct Election {
    ownership: watch::Receiver<Ownership>,
    release: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl Election {
    /// Takes part in the election for `backend`. `pause` says what this replica knows of the
    /// backend; it is asked at each renewal. `heard` is given what another one knows, each time
    /// that the lease was read.
    pub fn start(
        nats: Arc<Nats>,
        backend: &str,
        me: Member,
        timing: Timing,
        pause: impl Fn(Instant) -> Option<Pause> + Send + Sync + 'static,
        heard: impl Fn(Pause) + Send + Sync + 'static,
    ) -> Self {
        let (publish, ownership) = watch::channel(Ownership::Unknown);
        let release = CancellationToken::new();
        let changes = nats.changes();
        let task = Task {
            lease: Lease::new(backend, me, timing),
            backend: backend.into(),
            nats,
            publish,
            pause: Box::new(pause),
            heard: Box::new(heard),
            release: release.clone(),
            is_releasing: false,
        };
        let task = AbortOnDropHandle::new(tokio::spawn(task.run(changes)));
        Self { ownership, release, task }
    }

    /// Whose the backend is.
    pub fn ownership(&self) -> watch::Receiver<Ownership> {
        self.ownership.clone()
    }

    /// Stops being the owner at once, and releases the lease, so that another replica is the
    /// owner soon. Gives up after `within`.
    pub async fn release(self, within: Duration) {
        self.release.cancel();
        // If it fails or takes too long, the lease runs out.
        let _ = timeout(within, self.task).await;
    }
}

struct Task {
    lease: Lease,
    backend: Arc<str>,
    nats: Arc<Nats>,
    publish: watch::Sender<Ownership>,
    pause: Box<dyn Fn(Instant) -> Option<Pause> + Send + Sync>,
    heard: Box<dyn Fn(Pause) + Send + Sync>,
    release: CancellationToken,
    is_releasing: bool,
}

impl Task {
    async fn run(mut self, mut changes: broadcast::Receiver<Arc<str>>) {
        loop {
            self.publish();
            if self.is_releasing && self.lease.is_released() {
                return;
            }
            let now = Instant::now();
            let pause = &self.pause;
            match self.lease.next(now, || pause(now)) {
                Action::Nothing { until } => self.wait(until, &mut changes).await,
                Action::Read => self.read().await,
                Action::Create(value) => self.write(value, None).await,
                Action::Update(value, revision) => self.write(value, Some(revision)).await,
            }
        }
    }

    /// Waits for the time, a hint or the order to release the lease.
    async fn wait(&mut self, until: Instant, changes: &mut broadcast::Receiver<Arc<str>>) {
        let until = self.lease.changes_at(Instant::now()).map_or(until, |at| at.min(until));
        tokio::select! {
            () = sleep_until(until) => {}
            () = self.release.cancelled(), if !self.is_releasing => self.begin_release(),
            change = changes.recv() => match change {
                Ok(backend) if backend != self.backend => {}
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => self.lease.hint(Instant::now()),
                // It ends with NATS, which this holds.
                Err(broadcast::error::RecvError::Closed) => sleep_until(until).await,
            },
        }
    }

    fn begin_release(&mut self) {
        self.is_releasing = true;
        self.lease.release(Instant::now());
        self.publish();
    }

    async fn read(&mut self) {
        let (nats, backend) = (Arc::clone(&self.nats), Arc::clone(&self.backend));
        let read = self.during(async move { nats.read(&backend).await }).await;
        let now = Instant::now();
        match read {
            Ok(entry) => {
                // A deleted key, or what this version can't read, has no holder.
                let decoded =
                    entry.map(|(revision, value)| (revision, LeaseValue::decode(value).unwrap_or_default()));
                self.lease.observed(now, decoded);
                if let Some(pause) = self.lease.inherited(now) {
                    (self.heard)(pause);
                }
            }
            Err(why) => {
                debug!(backend = &*self.backend, why, "lease not read");
                self.lease.unreadable(now);
            }
        }
    }

    async fn write(&mut self, value: LeaseValue, revision: Option<u64>) {
        let (nats, backend) = (Arc::clone(&self.nats), Arc::clone(&self.backend));
        let encoded = Bytes::from(value.encode_to_vec());
        let sent_at = Instant::now();
        let written = self.during(async move { nats.write(&backend, encoded, revision).await }).await;
        if let Err(error) = written {
            debug!(backend = &*self.backend, ?error, "lease not written");
        }
        self.lease.written(Instant::now(), sent_at, written);
        if written.is_ok() {
            self.nats.announce(&self.backend);
        }
    }

    /// Runs a call, and meanwhile notices the end of the lease and the order to release it.
    async fn during<T>(&mut self, call: impl Future<Output = T>) -> T {
        let mut call = pin!(call);
        loop {
            let changes_at = self.lease.changes_at(Instant::now());
            tokio::select! {
                biased;
                outcome = &mut call => return outcome,
                () = self.release.cancelled(), if !self.is_releasing => self.begin_release(),
                () = sleep_until(changes_at.unwrap_or_else(Instant::now)), if changes_at.is_some() => self.publish(),
            }
        }
    }

    fn publish(&self) {
        let ownership = self.lease.ownership(Instant::now());
        self.publish.send_if_modified(|known| {
            if *known == ownership {
                return false;
            }
            log_change(&self.backend, known, &ownership);
            *known = ownership;
            true
        });
    }
}

/// Renewals are no change.
fn log_change(backend: &str, known: &Ownership, ownership: &Ownership) {
    match (known, ownership) {
        (Ownership::Owner { epoch: known, .. }, Ownership::Owner { epoch, .. }) if known == epoch => {}
        (_, Ownership::Owner { epoch, .. }) => info!(backend, epoch, "this replica owns the backend"),
        (Ownership::Owner { epoch, .. }, _) => {
            info!(backend, epoch, "this replica no longer owns the backend");
        }
        (_, Ownership::HeldBy { member, epoch, .. }) => {
            info!(backend, owner = member, epoch, "another replica owns the backend");
        }
        (_, Ownership::Unknown) => info!(backend, "no replica is known to own the backend"),
    }
}
