//! The order of statuses that a watch sees when it moves between replicas.
//!
//! Each replica is an engine of its own. They poll one vendor, over lines that may take
//! long before or after the vendor looks at a job.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use futures_util::future::BoxFuture;
use proptest::prelude::*;
use tokio::time::timeout;

use super::{rig::*, script::Script};
use crate::{
    engine::{Caller, Event, JobStatuses, Watch},
    job::{BackendFault, FaultKind, JobRef, JobState},
    transport::{Permit, PollResponse, Upstream},
};

/// How one replica reaches the vendor.
struct Line {
    vendor: Arc<Script>,
    delays: Mutex<Delays>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Delays {
    /// Before the vendor looks at the jobs.
    request: Duration,
    /// After that.
    response: Duration,
    is_broken: bool,
}

impl Upstream for Line {
    fn poll<'a>(
        &'a self,
        jobs: &'a [JobRef],
        permit: Permit,
    ) -> BoxFuture<'a, Result<PollResponse, BackendFault>> {
        Box::pin(async move {
            let Delays { request, response, is_broken } = *self.delays.lock().unwrap();
            pass(request).await;
            if is_broken {
                return Err(FaultKind::Unavailable { why: "broken".into() }.into());
            }
            let answer = self.vendor.poll(jobs, permit).await;
            pass(response).await;
            answer
        })
    }
}

struct Replica {
    line: Arc<Line>,
    running: Running,
}

impl Replica {
    fn set(&self, delays: Delays) {
        *self.line.delays.lock().unwrap() = delays;
    }

    fn watch(&self, token: &str) -> Watch {
        self.running.engine.watch(&job("a"), Caller::default(), &resuming(token)).unwrap()
    }
}

/// A vendor that answers without delay, and replicas that poll it.
fn replicas<const N: usize>() -> (Arc<Script>, [Replica; N]) {
    let vendor = Script::new(Duration::ZERO);
    let replica = |_| {
        let line = Arc::new(Line { vendor: Arc::clone(&vendor), delays: Mutex::default() });
        let running = start(vec![setup("vendor", 10, Arc::clone(&line) as _)], limits(many_watches()));
        Replica { line, running }
    };
    let replicas = std::array::from_fn(replica);
    (vendor, replicas)
}

/// The same token, as release 0.1 would have written it.
fn as_version_1(token: &str) -> String {
    let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(token).unwrap();
    bytes.truncate(1 + 2 * 8);
    bytes[0] = 1;
    bytes.extend_from_slice(&i64::MAX.to_le_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

const SLOW: Delays = Delays { request: Duration::ZERO, response: Duration::from_secs(4), is_broken: false };
const FAST: Delays = Delays { request: Duration::ZERO, response: LATENCY, is_broken: false };

/// Replica A has a slow poll in flight that has read Pending. B shows Running. Returns A,
/// with B's token.
async fn newer_status_at_b(vendor: &Script, [a, b]: &[Replica; 2]) -> (Watch, String) {
    vendor.set("a", JobState::Pending);
    a.set(FAST);
    let mut at_a = a.watch("");
    assert_eq!(event(&mut at_a).await, "Pending");
    a.set(SLOW);
    pass(SECOND + SECOND / 2).await;
    vendor.set("a", JobState::Running);
    b.set(FAST);
    let (shown, token) = event_and_token(&mut b.watch("")).await;
    assert_eq!(shown, "Running");
    (at_a, token)
}

#[tokio::test(start_paused = true)]
async fn poll_that_began_before_the_watch_shows_nothing_older_than_another_replicas_token() {
    for is_version_1 in [false, true] {
        let (vendor, replicas) = replicas();
        let (_other, token) = newer_status_at_b(&vendor, &replicas).await;
        let token = if is_version_1 { as_version_1(&token) } else { token };
        let mut resumed = replicas[0].watch(&token);
        // The slow poll arrives, and then one that began after the watch.
        assert!(is_silent(&mut resumed, 12 * SECOND).await, "Running was shown already");
        vendor.set("a", JobState::Succeeded);
        assert_eq!([status(&mut resumed).await, status(&mut resumed).await], ["Succeeded", "end"]);
    }
}

#[tokio::test(start_paused = true)]
async fn status_that_changed_meanwhile_is_shown_once_a_poll_began_after_the_watch() {
    let (vendor, replicas) = replicas();
    let (_other, token) = newer_status_at_b(&vendor, &replicas).await;
    vendor.set("a", JobState::Cancelling);
    let mut resumed = replicas[0].watch(&token);
    assert_eq!(status(&mut resumed).await, "Cancelling", "not the Pending of the slow poll");
}

#[tokio::test(start_paused = true)]
async fn terminal_status_is_shown_whenever_its_poll_began() {
    let (vendor, replicas) = replicas();
    let (_other, token) = newer_status_at_b(&vendor, &replicas).await;
    pass(5 * SECOND).await;
    // The next slow poll of A reads the end before the watch is resumed there.
    vendor.set("a", JobState::Failed);
    pass(2 * SECOND).await;
    let mut resumed = replicas[0].watch(&token);
    assert_eq!([status(&mut resumed).await, status(&mut resumed).await], ["Failed", "end"]);
}

#[tokio::test(start_paused = true)]
async fn token_of_the_same_replica_resumes_without_a_poll() {
    let (vendor, [a]) = replicas();
    vendor.set("a", JobState::Pending);
    let mut other = a.watch("");
    assert_eq!(event(&mut other).await, "Pending");
    let (first, token) = event_and_token(&mut a.watch("")).await;
    assert_eq!(first, "Pending");
    vendor.set("a", JobState::Running);
    assert_eq!(event(&mut other).await, "Running");
    let polls = vendor.calls().len();
    let mut resumed = a.watch(&token);
    let shown = timeout(Duration::ZERO, event(&mut resumed)).await;
    assert_eq!(shown.expect("without a wait"), "Running");
    assert_eq!(vendor.calls().len(), polls);
}

#[tokio::test(start_paused = true)]
async fn status_older_than_a_token_of_the_same_replica_is_not_shown() {
    let (vendor, [a, b]) = replicas();
    vendor.set("a", JobState::Pending);
    let mut other = a.watch("");
    assert_eq!(event(&mut other).await, "Pending");
    vendor.set("a", JobState::Running);
    assert_eq!(event(&mut other).await, "Running");
    let (_, newest) = event_and_token(&mut b.watch("")).await;
    // A watch that went on from B to A, and was shown nothing new there.
    let mut hopped = a.watch(&newest);
    assert!(is_silent(&mut hopped, 3 * SECOND).await);
    vendor.set("a", JobState::Retrying);
    let (shown, token) = event_and_token(&mut hopped).await;
    assert_eq!(shown, "Retrying");
    drop(hopped);
    let mut again = a.watch(&token);
    assert!(is_silent(&mut again, 3 * SECOND).await, "nothing is sent twice");
}

const LIFE: usize = 12;

fn word(step: usize) -> String {
    format!("step {step}")
}

fn set_step(vendor: &Script, step: usize) {
    let state = if step == LIFE { JobState::Succeeded } else { JobState::Running };
    vendor.set_word("a", state, &word(step));
}

#[derive(Clone, Debug)]
enum Operation {
    /// The job goes on at the vendor.
    Change,
    /// The watch is dropped and resumed at another replica; with a token of version 1 or 2.
    Hop(usize, bool),
    Read,
    /// Somebody else begins or ceases to watch the job at a replica.
    Other(usize),
    Get(usize, u64),
    SetLine(usize, u64, u64, bool),
    Pass(u64),
}

fn operation(replicas: usize) -> impl Strategy<Value = Operation> {
    let delay = || prop_oneof![0..100_u64, 0..9_000_u64];
    prop_oneof![
        3 => Just(Operation::Change),
        4 => (0..replicas, any::<bool>()).prop_map(|(to, v1)| Operation::Hop(to, v1)),
        4 => Just(Operation::Read),
        2 => (0..replicas).prop_map(Operation::Other),
        1 => (0..replicas, 0..20_000_u64).prop_map(|(at, age)| Operation::Get(at, age)),
        3 => (0..replicas, delay(), delay(), proptest::bool::weighted(0.2))
            .prop_map(|(at, request, response, fails)| Operation::SetLine(at, request, response, fails)),
        4 => (0..6_000_u64).prop_map(Operation::Pass),
    ]
}

/// A watch that moves between replicas, and what it was sent.
struct Hopping {
    watch: Watch,
    token: String,
    sent: Option<usize>,
    ended: bool,
}

impl Hopping {
    /// Reads all that is sent within `time` of each other.
    async fn read(&mut self, time: Duration) {
        while !self.ended
            && let Ok(update) = timeout(time, self.watch.next()).await
        {
            let Some(update) = update else {
                self.ended = true;
                assert_eq!(self.sent, Some(LIFE), "it ends after the terminal status only");
                return;
            };
            let update = update.expect("no watch of a known job fails");
            self.token = update.resume_token;
            if let Event::Status(latest) = update.event {
                let word = latest.snapshot.status().vendor_state;
                let step: usize = word.strip_prefix("step ").unwrap().parse().unwrap();
                assert!(self.sent.is_none_or(|sent| sent < step), "{:?} and then {step}", self.sent);
                self.sent = Some(step);
            }
        }
    }
}

async fn run<const N: usize>(operations: Vec<Operation>) {
    let (vendor, replicas) = replicas::<N>();
    let mut step = 0;
    set_step(&vendor, step);
    let mut others: [Option<Watch>; N] = std::array::from_fn(|_| None);
    let mut hopping =
        Hopping { watch: replicas[0].watch(""), token: String::new(), sent: None, ended: false };
    for operation in operations {
        match operation {
            Operation::Change if step + 1 < LIFE => {
                step += 1;
                set_step(&vendor, step);
            }
            Operation::Change => {}
            Operation::Hop(to, is_version_1) => {
                let is_old = is_version_1 && !hopping.token.is_empty();
                let token = if is_old { as_version_1(&hopping.token) } else { hopping.token.clone() };
                hopping.watch = replicas[to].watch(&token);
            }
            Operation::Read => hopping.read(Duration::ZERO).await,
            Operation::Other(at) => {
                others[at] = if others[at].is_some() { None } else { Some(replicas[at].watch("")) };
            }
            Operation::Get(at, age) => {
                let options = aged(Duration::from_millis(age));
                let _ = replicas[at].running.engine.get(&job("a"), options).await;
            }
            Operation::SetLine(at, request, response, is_broken) => {
                let (request, response) = (Duration::from_millis(request), Duration::from_millis(response));
                replicas[at].set(Delays { request, response, is_broken });
            }
            Operation::Pass(milliseconds) => pass(Duration::from_millis(milliseconds)).await,
        }
    }
    set_step(&vendor, LIFE);
    for replica in &replicas {
        replica.set(FAST);
    }
    hopping.read(120 * SECOND).await;
    assert!(hopping.ended, "the terminal status always arrives");
}

proptest! {
    #[test]
    fn watch_that_moves_between_two_replicas_sees_each_step_once_in_order(
        operations in proptest::collection::vec(operation(2), 1..60),
    ) {
        on_a_paused_clock(run::<2>(operations));
    }

    #[test]
    fn watch_that_moves_between_three_replicas_sees_each_step_once_in_order(
        operations in proptest::collection::vec(operation(3), 1..60),
    ) {
        on_a_paused_clock(run::<3>(operations));
    }
}
