//! One replica among others: its sessions, and which of them a message is for.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use prost::Message;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    in_flight::{Charge, InFlight},
    link::FRAME_BYTES,
    owner::Owner,
    wire::Wire,
};
use crate::{
    engine::Backend,
    proto::cluster::v1::{Envelope, Frame, Open, Refused, envelope::Kind, refused::Reason},
};

/// Messages that wait for one session. More than a peer's window.
const INBOX: usize = 256;

/// Most sessions of followers.
const SESSIONS: usize = 4096;

/// How long a message waits that the wire can't take, and how often.
const WIRE_IS_FULL: Duration = Duration::from_millis(5);
const TRIES: usize = 40;

/// This replica.
pub struct Member {
    /// Names this run of the program.
    incarnation: u64,
    wire: Arc<dyn Wire>,
    shared: Mutex<Shared>,
    /// Of all sessions of followers.
    in_flight: Arc<InFlight>,
    /// Whether the process ends.
    is_ending: AtomicBool,
}

#[derive(Default)]
struct Shared {
    /// Backends that this replica polls for the others.
    owned: HashMap<Arc<str>, Owned>,
    /// Sessions of followers, by the follower and its number.
    serving: HashMap<(u64, u64), Serving>,
    /// This replica's own, by their number.
    following: HashMap<u64, (u64, mpsc::Sender<Heard>)>,
    /// The tasks of sessions of followers, by backend.
    tasks: HashMap<Arc<str>, TaskTracker>,
}

/// A session of a follower.
struct Serving {
    backend: Arc<str>,
    inbox: mpsc::Sender<Heard>,
}

struct Owned {
    backend: Arc<Backend>,
    digest: u64,
    stop: CancellationToken,
}

/// What came for a session. At an owner, a frame is counted until it is read.
#[derive(Debug)]
pub(super) enum Heard {
    Frame(Frame, Option<Charge>),
    Refused(Reason),
}

impl Member {
    /// A replica without sessions.
    pub fn new(incarnation: u64, wire: Arc<dyn Wire>) -> Arc<Self> {
        let is_ending = AtomicBool::new(false);
        Arc::new(Self { incarnation, wire, shared: Mutex::default(), in_flight: Arc::default(), is_ending })
    }

    /// Polls a backend for the other replicas from now on.
    pub(super) fn own(&self, backend: &Arc<Backend>, digest: u64) {
        if self.shared().owned.get(&**backend.name()).is_some_and(|owned| owned.digest == digest) {
            return;
        }
        let owned = Owned { backend: Arc::clone(backend), digest, stop: CancellationToken::new() };
        let before = self.shared().owned.insert(Arc::clone(backend.name()), owned);
        if let Some(before) = before {
            before.stop.cancel();
        }
    }

    /// Does so no longer: its followers look for another owner.
    pub(super) fn disown(&self, backend: &Backend) {
        let owned = self.shared().owned.remove(&**backend.name());
        if let Some(owned) = owned {
            owned.stop.cancel();
        }
    }

    /// Waits until no session of a follower reads from a backend that was disowned.
    pub(super) async fn sessions_ended(&self, backend: &Backend) {
        let tasks = self.shared().tasks.get(&**backend.name()).cloned();
        if let Some(tasks) = tasks {
            tasks.close();
            tasks.wait().await;
        }
    }

    /// The process ends: that this replica leaves the others is no trouble.
    pub(super) fn begin_end(&self) {
        self.is_ending.store(true, Relaxed);
    }

    /// Whether the process ends.
    pub(super) fn is_ending(&self) -> bool {
        self.is_ending.load(Relaxed)
    }

    /// How many replicas follow this one, each counted for each backend.
    pub fn followers(&self) -> usize {
        self.shared().serving.len()
    }

    /// Bytes of the longest frame that reaches others.
    pub(super) fn frame_bytes(&self) -> usize {
        self.wire.max_message()
    }

    /// How many replicas this one knows of: itself, and those that follow it.
    pub fn replicas(&self) -> usize {
        let shared = self.shared();
        let others: HashSet<u64> = shared.serving.keys().map(|(from, _)| *from).collect();
        1 + others.len()
    }

    /// How many replicas follow this one at one backend.
    pub(super) fn followers_of(&self, backend: &str) -> usize {
        self.shared().serving.values().filter(|serving| *serving.backend == *backend).count()
    }

    /// Bytes of all sessions of followers that are in flight.
    #[cfg(test)]
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.bytes()
    }

    /// Takes in a message of another replica.
    pub fn receive(self: &Arc<Self>, message: Bytes) {
        // Of a later release, or of nobody that belongs here.
        let Ok(Envelope { from, session, kind: Some(kind) }) = Envelope::decode(message) else { return };
        let heard = match kind {
            Kind::Open(open) => return self.open(from, session, &open),
            // No release sends a longer one.
            Kind::Frame(frame) if frame.data.len() > FRAME_BYTES => return,
            Kind::Frame(frame) => Heard::Frame(frame, None),
            Kind::Refused(refused) => Heard::Refused(refused.reason()),
        };
        let (inbox, is_served) = {
            let shared = self.shared();
            let own = shared.following.get(&session).filter(|(owner, _)| *owner == from);
            let served = || shared.serving.get(&(from, session)).map(|serving| serving.inbox.clone());
            (own.map(|(_, inbox)| inbox.clone()).or_else(served), own.is_none())
        };
        let heard = match heard {
            Heard::Frame(frame, _) if is_served => {
                let mut charge = Charge::new(&self.in_flight);
                charge.add(frame.data.len());
                Heard::Frame(frame, Some(charge))
            }
            heard => heard,
        };
        match (inbox, heard) {
            (Some(_), Heard::Frame(..)) if is_served && self.in_flight.is_full() => {}
            // A session whose inbox is full notices the gap, as with a frame that is not taken in.
            (Some(inbox), heard) => _ = inbox.try_send(heard),
            (None, Heard::Frame(..)) => self.refuse(from, session, Reason::UnknownSession),
            (None, Heard::Refused(_)) => {}
        }
    }

    fn open(self: &Arc<Self>, from: u64, session: u64, open: &Open) {
        if self.shared().serving.contains_key(&(from, session)) {
            return;
        }
        let opened = {
            let mut shared = self.shared();
            match shared.owned.get(&*open.backend) {
                None => Err(Reason::NotOwner),
                Some(owned) if owned.digest != open.digest => Err(Reason::DifferentBackend),
                Some(_) if shared.serving.len() >= SESSIONS => Err(Reason::TooManySessions),
                Some(owned) => {
                    let (backend, stop) = (Arc::clone(&owned.backend), owned.stop.clone());
                    // A follower has one session for each backend: it has given up the one before.
                    shared.serving.retain(|(follower, _), serving| {
                        *follower != from || *serving.backend != **backend.name()
                    });
                    let (inbox, heard) = mpsc::channel(INBOX);
                    let serving = Serving { backend: Arc::clone(backend.name()), inbox };
                    shared.serving.insert((from, session), serving);
                    let tasks = shared.tasks.entry(Arc::clone(backend.name())).or_default().clone();
                    Ok((backend, stop, heard, tasks))
                }
            }
        };
        match opened {
            Err(reason) => self.refuse(from, session, reason),
            Ok((backend, stop, heard, tasks)) => {
                let member = Arc::clone(self);
                tasks.spawn(async move {
                    member.serve(from, session, backend, heard, stop).await;
                    member.shared().serving.remove(&(from, session));
                });
            }
        }
    }

    /// Serves one follower until its session is over.
    async fn serve(
        &self,
        from: u64,
        session: u64,
        backend: Arc<Backend>,
        mut inbox: mpsc::Receiver<Heard>,
        stop: CancellationToken,
    ) {
        let mut owner = Owner::new(backend, session, Charge::new(&self.in_flight), Instant::now());
        owner.limit_frames(self.wire.max_message());
        loop {
            loop {
                match owner.next_frame(Instant::now()) {
                    Ok(Some(frame)) => self.send_frame(from, session, frame).await,
                    Ok(None) => break,
                    Err(_) => return self.refuse(from, session, Reason::UnknownSession),
                }
            }
            let heard = tokio::select! {
                () = stop.cancelled() => return self.refuse(from, session, Reason::NotOwner),
                heard = inbox.recv() => heard,
                () = owner.notified() => continue,
                () = tokio::time::sleep_until(owner.wakes_at()) => continue,
            };
            let taken = match heard {
                Some(Heard::Frame(frame, _charge)) => owner.receive(Instant::now(), frame),
                Some(Heard::Refused(_)) | None => return,
            };
            if taken.is_err() {
                return self.refuse(from, session, Reason::UnknownSession);
            }
        }
    }

    /// Begins a session with the replica that polls a backend.
    pub(super) fn begin(&self, owner: u64, backend: &str, digest: u64) -> (u64, mpsc::Receiver<Heard>) {
        let session = rand::random();
        let (inbox, heard) = mpsc::channel(INBOX);
        self.shared().following.insert(session, (owner, inbox));
        self.send(owner, session, Kind::Open(Open { backend: backend.to_owned(), digest }));
        (session, heard)
    }

    /// Ends one of this replica's sessions.
    pub(super) fn end(&self, owner: u64, session: u64) {
        self.shared().following.remove(&session);
        self.refuse(owner, session, Reason::UnknownSession);
    }

    /// Sends a frame, as soon as the wire can take it.
    pub(super) async fn send_frame(&self, to: u64, session: u64, frame: Frame) {
        let envelope = Envelope { from: self.incarnation, session, kind: Some(Kind::Frame(frame)) };
        let message = Bytes::from(envelope.encode_to_vec());
        for _ in 0..TRIES {
            if self.wire.send(to, message.clone()) {
                return;
            }
            tokio::time::sleep(WIRE_IS_FULL).await;
        }
        // The other side notices the gap, if there is a connection at all.
    }

    fn refuse(&self, to: u64, session: u64, reason: Reason) {
        self.send(to, session, Kind::Refused(Refused { reason: reason.into() }));
    }

    fn send(&self, to: u64, session: u64, kind: Kind) {
        let envelope = Envelope { from: self.incarnation, session, kind: Some(kind) };
        self.wire.send(to, envelope.encode_to_vec().into());
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes everything and delivers nothing.
    struct Nowhere;

    impl Wire for Nowhere {
        fn send(&self, _: u64, _: Bytes) -> bool {
            true
        }
    }

    fn frame(from: u64, session: u64) -> Bytes {
        let kind = Some(Kind::Frame(Frame { number: 1, acknowledged: 0, more: false, data: "x".into() }));
        Envelope { from, session, kind }.encode_to_vec().into()
    }

    #[tokio::test]
    async fn only_messages_of_the_owner_in_the_present_session_are_taken_in() {
        let member = Member::new(1, Arc::new(Nowhere));
        let (earlier, _) = member.begin(2, "vendor", 0);
        member.end(2, earlier);
        let (session, mut inbox) = member.begin(2, "vendor", 0);
        member.receive(frame(2, earlier));
        member.receive(frame(3, session));
        member.receive("neither".into());
        assert!(inbox.try_recv().is_err());
        member.receive(frame(2, session));
        assert!(matches!(inbox.try_recv(), Ok(Heard::Frame(frame, None)) if frame.number == 1));
    }
}
