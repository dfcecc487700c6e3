//! Messages of another replica that are any bytes at all, fed to both sides of a session of real
//! backends on a paused clock.
//!
//! Input: a letter for what is done and a byte for the number of bytes that belong to it, again
//! and again.
//!
//! | letter | done with the bytes |
//! | --- | --- |
//! | `i` | a message of a follower, in the next frame |
//! | `n` | a message of an owner, in the next frame |
//! | `I`, `N` | a part of one that goes on |
//! | `e` | an envelope, for both |
//! | `a`, `A` | acknowledges all that the owner, the follower has sent |
//! | any other | time passes, in tenths of a second |

use std::{
    collections::HashMap,
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use prost::Message;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    follower::Follower,
    in_flight::{Charge, FULL, InFlight},
    link::FRAME_BYTES,
    owner::Owner,
};
use crate::{
    engine::{
        Backend, BackendSetup, Caller, Engine, EngineLimits, JobStatuses, MemoryLimits, PollInterval,
        PollPlan, Watch, WatchLimits, WatchOptions,
    },
    job::{BackendFault, InvalidJobRef, JobFault, JobRef, JobState, Observation, View},
    proto::cluster::v1::{Envelope, Frame, envelope::Kind},
    transport::{Backoff, Permit, PollResponse, Upstream},
    vendors::{Adapter, Capabilities, Elements},
};

/// Jobs that the follower's callers watch.
const WATCHED: [&str; 3] = ["a", "b", "c"];

/// Most jobs of each backend.
const JOBS: usize = 64;

/// Most operations of one input.
const OPERATIONS: usize = 64;

/// Most frames that are taken from one side at once: more than a window.
const FRAMES: usize = 200;

/// Feeds both sides of a session.
///
/// # Panics
/// Where a promise is broken, and where no runtime can be built.
pub fn session_messages(input: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime needs nothing").block_on(sessions(input));
}

async fn sessions(mut input: &[u8]) {
    let (polling, following) = (of_one(), of_one());
    following.backend.begin_following();
    let watches: Vec<Watch> = WATCHED.iter().map(|id| following.watch(id)).collect();
    let in_flight = Arc::new(InFlight::default());
    let mut owner =
        Side::new(Owner::new(Arc::clone(&polling.backend), 1, Charge::new(&in_flight), Instant::now()));
    let mut follower = Side::new(Follower::new(Arc::clone(&following.backend), Instant::now()));
    for _ in 0..OPERATIONS {
        let Some(([letter, length], rest)) = input.split_first_chunk() else { break };
        let (bytes, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        input = rest;
        match letter {
            b'i' | b'I' => owner.message(bytes, *letter == b'I'),
            b'n' | b'N' => follower.message(bytes, *letter == b'N'),
            b'e' => {
                if let Ok(Envelope { kind: Some(Kind::Frame(frame)), .. }) = Envelope::decode(bytes) {
                    owner.receive(frame.clone());
                    follower.receive(frame);
                }
            }
            b'a' => owner.acknowledge(),
            b'A' => follower.acknowledge(),
            _ => tokio::time::sleep(Duration::from_millis(u64::from(*length) * 100)).await,
        }
        // The polls of both backends.
        tokio::task::yield_now().await;
        owner.drain();
        follower.drain();
        owner.session.check_bounds();
        follower.session.check_bounds();
        assert!(in_flight.bytes() <= FULL + FRAME_BYTES, "{} bytes in flight", in_flight.bytes());
    }
    drop((owner, follower, watches));
    assert_eq!(in_flight.bytes(), 0, "what a session had in flight is free after it");
}

/// One side of a session.
trait Session {
    fn receive_frame(&mut self, now: Instant, frame: Frame) -> bool;
    fn send_frame(&mut self, now: Instant) -> Option<Frame>;
    fn check_bounds(&self);
}

impl Session for Owner {
    fn receive_frame(&mut self, now: Instant, frame: Frame) -> bool {
        self.receive(now, frame).is_ok()
    }

    fn send_frame(&mut self, now: Instant) -> Option<Frame> {
        self.next_frame(now).ok().flatten()
    }

    fn check_bounds(&self) {
        let (slots, live, ready) = self.sizes();
        // Each slot was named by a message of a few hundred bytes at most.
        assert!(
            slots <= OPERATIONS * 256 && live <= JOBS && ready <= OPERATIONS * 256,
            "{slots} {live} {ready}"
        );
    }
}

impl Session for Follower {
    fn receive_frame(&mut self, now: Instant, frame: Frame) -> bool {
        self.receive(now, frame).is_ok()
    }

    fn send_frame(&mut self, now: Instant) -> Option<Frame> {
        self.next_frame(now).ok().flatten()
    }

    fn check_bounds(&self) {
        assert!(self.slots() <= WATCHED.len(), "{} slots", self.slots());
    }
}

/// A session, and what its other side knows of it.
struct Side<S> {
    session: S,
    is_over: bool,
    /// The number of the last frame that was sent to it.
    sent: u64,
    /// That of the last one that came from it.
    received: u64,
    acknowledged: u64,
}

impl<S: Session> Side<S> {
    fn new(session: S) -> Self {
        Self { session, is_over: false, sent: 0, received: 0, acknowledged: 0 }
    }

    fn message(&mut self, bytes: &[u8], more: bool) {
        self.sent += u64::from(!bytes.is_empty());
        let data = Bytes::copy_from_slice(bytes);
        self.receive(Frame { number: self.sent, acknowledged: self.acknowledged, more, data });
    }

    fn acknowledge(&mut self) {
        self.acknowledged = self.received;
        self.message(&[], false);
    }

    /// A session that is over is fed nothing more.
    fn receive(&mut self, frame: Frame) {
        if !self.is_over {
            self.is_over = !self.session.receive_frame(Instant::now(), frame);
        }
    }

    fn drain(&mut self) {
        for taken in 0.. {
            if self.is_over {
                return;
            }
            let Some(frame) = self.session.send_frame(Instant::now()) else { return };
            assert!(frame.data.len() <= FRAME_BYTES && taken < FRAMES, "frame {taken}");
            self.received = frame.number;
        }
    }
}

/// An engine with one backend.
struct Running {
    engine: Arc<Engine>,
    backend: Arc<Backend>,
    _shutdown: tokio_util::sync::DropGuard,
}

fn of_one() -> Running {
    let shutdown = CancellationToken::new();
    let limits = EngineLimits {
        watches: WatchLimits { total: 100, per_caller: 100, per_call: 100 },
        memory: MemoryLimits { status_bytes: 64 << 20, inline_result_bytes: 1 << 20, jobs: JOBS },
    };
    let (engine, _) = Engine::new(limits, shutdown.clone());
    engine.start_backend(setup());
    let backend = engine.shared_backend("vendor").expect("it was started");
    Running { engine, backend, _shutdown: shutdown.drop_guard() }
}

impl Running {
    fn watch(&self, id: &str) -> Watch {
        let options = WatchOptions {
            view: View::FULL,
            resume_token: String::new(),
            interval: None,
            heartbeat: Duration::from_secs(30),
            deadline: None,
        };
        let watch = self.engine.watch(&JobRef::new("vendor", id), Caller::default(), &options);
        watch.expect("there is room for it")
    }
}

fn setup() -> BackendSetup {
    let second = Duration::from_secs(1);
    BackendSetup {
        name: "vendor".into(),
        vendor: "immuta",
        vendor_version: Arc::default(),
        check: Box::new(|_| Ok(())),
        upstream: Arc::new(Vendor),
        plan: PollPlan {
            interval: PollInterval { min: second, max: 10 * second },
            backoff: Backoff { min: second, max: 30 * second },
            collection_window: Duration::from_millis(5),
            max_batch: NonZeroUsize::MIN.saturating_add(199),
            max_concurrency: NonZeroUsize::MIN.saturating_add(7),
            requests_per_second: NonZeroU32::MIN.saturating_add(999),
            terminal_age: None,
        },
        timeout: 15 * second,
        not_found_grace: 10 * second,
        tracer: None,
    }
}

/// Jobs run whose names begin with a letter up to "m", others have ended; "z" is unknown.
struct Vendor;

impl Upstream for Vendor {
    fn poll<'a>(
        &'a self,
        jobs: &'a [JobRef],
        _permit: Permit,
    ) -> BoxFuture<'a, Result<PollResponse, BackendFault>> {
        let mut reader = Reader::default();
        let elements = Elements::for_each(jobs, |_, job| {
            let observation = match job.id.as_bytes().first() {
                Some(b'z') => return Err(JobFault::NotFound),
                Some(..=b'm') | None => Observation::new(JobState::Running, "runs"),
                Some(_) => Observation::new(JobState::Succeeded, "done"),
            };
            let element = Bytes::copy_from_slice(job.id.as_bytes());
            reader.0.insert(element.clone(), observation);
            Ok(element)
        });
        Box::pin(std::future::ready(Ok(PollResponse::new(Arc::new(reader), elements))))
    }
}

/// Knows the elements of one response.
#[derive(Debug, Default)]
struct Reader(HashMap<Bytes, Observation>);

impl Adapter for Reader {
    fn capabilities(&self) -> Capabilities {
        unreachable!("no request is sent")
    }

    fn check(&self, _: &JobRef) -> Result<(), InvalidJobRef> {
        Ok(())
    }

    fn probe_id(&self, _: Uuid) -> String {
        unreachable!("nothing is probed")
    }

    fn request(&self, _: &[JobRef]) -> Request<Bytes> {
        unreachable!("no request is sent")
    }

    fn split_body(&self, _: &[JobRef], _: &Response<Bytes>) -> Result<Elements, BackendFault> {
        unreachable!("the response is split already")
    }

    fn observe(&self, _: &JobRef, element: &Bytes) -> Result<Observation, JobFault> {
        Ok(self.0[element].clone())
    }
}
