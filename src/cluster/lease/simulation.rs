//! Replicas that bid for one lease, on plain numbers: late and lost messages, stale reads,
//! replicas that stop, continue, end and start, clocks that run at different speeds, and a
//! bucket that is lost. The checker looks at what the replicas believe.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::time::Instant;

use super::{Action, Lease, LeaseValue, Member, Mutant, Ownership, Timing, WINDOW, WriteError};

/// Nanoseconds of the true clock.
type Time = u64;

const MILLISECOND: Time = 1_000_000;
const SECOND: Time = 1_000 * MILLISECOND;

/// How long faults happen, and how long there are none after that.
const FAULTS: Time = 100 * SECOND;
const CALM: Time = 45 * SECOND;

type Entry = Option<(u64, LeaseValue)>;

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there are few of them")]
enum Request {
    Read,
    Write(LeaseValue, Option<u64>),
}

#[derive(Debug)]
enum Reply {
    Entry(Entry),
    Written(Result<u64, WriteError>),
}

#[derive(Debug)]
enum Happening {
    Wake(u64),
    Arrives(u64, Request),
    Replies(u64, Reply),
    TimesOut(u64),
    Hint,
    Stops(Time),
    Continues,
    Ends,
    Starts,
    Releases,
    IsCutOff(Time),
    BucketIsLost,
}

#[derive(Debug)]
struct Event {
    node: usize,
    incarnation: u64,
    what: Happening,
}

struct Node {
    lease: Option<Lease>,
    incarnation: u64,
    speed: f64,
    stopped_until: Time,
    cut_off_until: Time,
    /// The call in progress, and when it was sent by its own clock.
    call: Option<(u64, Instant, bool)>,
    wake: u64,
    /// Until when it is, or was, the owner.
    owned_until: Time,
}

/// What a run came to.
#[derive(Debug, Default)]
pub(super) struct Run {
    pub(super) violation: Option<String>,
    pub(super) changes_of_owner: usize,
}

struct Simulation {
    now: Time,
    base: Instant,
    timing: Timing,
    queue: BinaryHeap<Reverse<(Time, u64)>>,
    events: std::collections::HashMap<u64, Event>,
    next_id: u64,
    nodes: Vec<Node>,
    entry: Entry,
    before: Entry,
    revision: u64,
    lost_at: Time,
    random: SmallRng,
    mutant: Option<Mutant>,
    calm: bool,
    owner: Option<u64>,
    run: Run,
}

/// Runs one seed.
pub(super) fn run(seed: u64, mutant: Option<Mutant>) -> Run {
    let mut random = SmallRng::seed_from_u64(seed);
    let lease = if random.random_bool(0.5) { 3 } else { 15 };
    let count = random.random_range(2..=4);
    let mut simulation = Simulation {
        now: 0,
        base: Instant::now(),
        timing: Timing::of_lease(Duration::from_secs(lease)),
        queue: BinaryHeap::new(),
        events: std::collections::HashMap::new(),
        next_id: 0,
        nodes: Vec::new(),
        entry: None,
        before: None,
        revision: 0,
        lost_at: 0,
        random,
        mutant,
        calm: false,
        owner: None,
        run: Run::default(),
    };
    for _ in 0..count {
        let clock = simulation.random.random_range(0.99..=1.01);
        simulation.nodes.push(Node {
            lease: None,
            incarnation: 0,
            speed: clock,
            stopped_until: 0,
            cut_off_until: 0,
            call: None,
            wake: 0,
            owned_until: 0,
        });
        let node = simulation.nodes.len() - 1;
        let at = simulation.random.random_range(0..2 * SECOND);
        simulation.schedule(at, node, Happening::Starts);
    }
    simulation.plan_faults();
    simulation.play();
    simulation.run
}

impl Simulation {
    fn plan_faults(&mut self) {
        let mut at = 0;
        loop {
            at += self.random.random_range(SECOND..12 * SECOND);
            if at >= FAULTS {
                return;
            }
            let node = self.random.random_range(0..self.nodes.len());
            let most = if self.random.random_bool(0.5) { 3 * SECOND } else { 25 * SECOND };
            let duration = self.random.random_range(SECOND / 10..most);
            match self.random.random_range(0..10) {
                0..3 => self.schedule(at, node, Happening::Stops(duration)),
                3..6 => self.schedule(at, node, Happening::IsCutOff(duration)),
                6 => {
                    self.schedule(at, node, Happening::Ends);
                    self.schedule(at + duration, node, Happening::Starts);
                }
                7..9 => {
                    self.schedule(at, node, Happening::Releases);
                    self.schedule(at + SECOND, node, Happening::Ends);
                    self.schedule(at + SECOND + duration, node, Happening::Starts);
                }
                _ => self.schedule(at, node, Happening::BucketIsLost),
            }
        }
    }

    fn schedule(&mut self, at: Time, node: usize, what: Happening) {
        let incarnation = self.nodes[node].incarnation;
        self.put(at, Event { node, incarnation, what });
    }

    fn put(&mut self, at: Time, event: Event) {
        self.next_id += 1;
        self.events.insert(self.next_id, event);
        self.queue.push(Reverse((at, self.next_id)));
    }

    fn play(&mut self) {
        // The latest that somebody is the owner after the last fault.
        let lease = Time::try_from(self.timing.lease.as_nanos()).unwrap();
        let settled = FAULTS + 30 * SECOND + lease + lease / 2;
        let mut changes_before_settled = None;
        while let Some(Reverse((at, id))) = self.queue.pop() {
            let Some(event) = self.events.remove(&id) else { continue };
            self.calm = at > FAULTS + 30 * SECOND;
            if self.calm && changes_before_settled.is_none() && at > settled {
                changes_before_settled = Some(self.run.changes_of_owner);
                let owners = (0..self.nodes.len()).filter(|node| self.owner_at(*node, at).is_some()).count();
                if owners != 1 {
                    self.violated(format!("{owners} owners a while after the last fault"));
                }
            }
            if at > FAULTS + 30 * SECOND + CALM || self.run.violation.is_some() {
                break;
            }
            self.now = at;
            self.handle(event);
        }
        if changes_before_settled.is_some_and(|changes| changes != self.run.changes_of_owner) {
            self.violated("the owner changes without a fault".to_owned());
        }
    }

    fn violated(&mut self, what: String) {
        self.run.violation.get_or_insert(what);
    }

    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn local(&self, node: usize, at: Time) -> Instant {
        self.base + Duration::from_nanos((at as f64 * self.nodes[node].speed) as u64)
    }

    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn real(&self, node: usize, at: Instant) -> Time {
        let nanos = at.saturating_duration_since(self.base).as_nanos() as f64;
        (nanos / self.nodes[node].speed).ceil() as Time
    }

    /// Until when the node is the owner, and from when at the full rate, if it is at this time.
    fn owner_at(&self, node: usize, at: Time) -> Option<(Time, Time, u64)> {
        match self.nodes[node].lease.as_ref()?.ownership(self.local(node, at)) {
            Ownership::Owner { until, full_rate_from, .. } => {
                Some((self.real(node, until), self.real(node, full_rate_from), self.nodes[node].incarnation))
            }
            _ => None,
        }
    }

    fn handle(&mut self, event: Event) {
        let Event { node, incarnation, what } = event;
        let is_alive = self.nodes[node].lease.is_some();
        match what {
            Happening::Arrives(call, request) => {
                let reply = self.serve(node, request);
                return self.answer(node, incarnation, call, reply);
            }
            Happening::BucketIsLost => {
                // One at a time: not again before everybody has seen the first.
                if self.now > self.lost_at + 30 * SECOND {
                    self.lost_at = self.now;
                    // A new bucket begins at a higher revision.
                    (self.entry, self.before, self.revision) = (None, None, self.revision + 1000);
                }
                return;
            }
            Happening::IsCutOff(duration) => {
                self.nodes[node].cut_off_until = self.now + duration;
                return;
            }
            Happening::Stops(duration) => {
                let until = self.now + duration;
                self.nodes[node].stopped_until = until;
                return self.schedule(until, node, Happening::Continues);
            }
            Happening::Ends => {
                self.follow(node);
                let node = &mut self.nodes[node];
                (node.lease, node.stopped_until) = (None, 0);
                return;
            }
            Happening::Starts if !is_alive => self.start(node),
            Happening::Starts => return,
            Happening::Releases if is_alive => {
                self.follow(node);
                self.tell(node, Happening::Releases);
            }
            _ if self.nodes[node].incarnation != incarnation || !is_alive => return,
            Happening::Wake(wake) if wake != self.nodes[node].wake => return,
            what if self.now < self.nodes[node].stopped_until => {
                // A reply and the end of its time-out, in any order.
                let at = self.nodes[node].stopped_until + self.random.random_range(1..MILLISECOND);
                return self.put(at, Event { node, incarnation, what });
            }
            what => {
                self.follow(node);
                self.tell(node, what);
            }
        }
        self.act(node);
        self.check(node);
    }

    /// Remembers until when the node was the owner before something happens to it.
    fn follow(&mut self, node: usize) {
        if self.nodes[node].owned_until > self.now {
            self.nodes[node].owned_until = self.now;
        }
    }

    fn start(&mut self, node: usize) {
        self.next_id += 1;
        let incarnation = self.next_id;
        let me = Member { name: format!("gateway-{node}"), incarnation };
        let mut lease = Lease::new("vendor", me, self.timing);
        lease.mutant = self.mutant;
        let started = &mut self.nodes[node];
        (started.incarnation, started.lease, started.call) = (incarnation, Some(lease), None);
    }

    fn tell(&mut self, node: usize, what: Happening) {
        let now = self.local(node, self.now);
        let node = &mut self.nodes[node];
        let Some(lease) = &mut node.lease else { return };
        match what {
            Happening::Replies(call, reply) => {
                let Some((_, sent_at, _)) = node.call.take_if(|(id, ..)| *id == call) else { return };
                match reply {
                    Reply::Entry(entry) => lease.observed(now, entry),
                    Reply::Written(outcome) => lease.written(now, sent_at, outcome),
                }
            }
            Happening::TimesOut(call) => match node.call.take_if(|(id, ..)| *id == call) {
                Some((_, _, true)) => lease.unreadable(now),
                Some((_, sent_at, false)) => lease.written(now, sent_at, Err(WriteError::Failed)),
                None => {}
            },
            Happening::Hint => lease.hint(now),
            Happening::Releases => lease.release(now),
            _ => {}
        }
    }

    fn act(&mut self, node: usize) {
        if self.nodes[node].call.is_some() {
            return;
        }
        let now = self.local(node, self.now);
        let Some(lease) = &mut self.nodes[node].lease else { return };
        let request = match lease.next(now, || None) {
            Action::Nothing { until } => {
                let at = self.real(node, until).max(self.now + 1);
                self.nodes[node].wake += 1;
                let wake = self.nodes[node].wake;
                return self.schedule(at, node, Happening::Wake(wake));
            }
            Action::Read => Request::Read,
            Action::Create(value) => Request::Write(value, None),
            Action::Update(value, revision) => Request::Write(value, Some(revision)),
        };
        self.next_id += 1;
        let call = self.next_id;
        self.nodes[node].call = Some((call, now, matches!(request, Request::Read)));
        let time_out = Time::try_from(self.timing.retry.as_nanos()).unwrap();
        self.schedule(self.now + time_out, node, Happening::TimesOut(call));
        if let Some(delay) = self.delay(node) {
            self.schedule(self.now + delay, node, Happening::Arrives(call, request));
        }
    }

    /// How long a message takes; `None`: it is lost.
    fn delay(&mut self, node: usize) -> Option<Time> {
        if self.nodes[node].cut_off_until > self.now {
            return None;
        }
        let usual = self.random.random_range(MILLISECOND / 5..2 * MILLISECOND);
        if self.calm {
            return Some(usual);
        }
        match self.random.random_range(0..100) {
            0..3 => None,
            3..8 => Some(self.random.random_range(0..25 * SECOND)),
            _ => Some(usual),
        }
    }

    fn serve(&mut self, node: usize, request: Request) -> Reply {
        let (value, revision) = match request {
            Request::Read => {
                let is_stale = !self.calm && self.random.random_bool(0.05);
                return Reply::Entry(if is_stale { &self.before } else { &self.entry }.clone());
            }
            Request::Write(value, revision) => (value, revision),
        };
        let is_same = self.entry.as_ref().map(|(revision, _)| *revision) == revision;
        if !is_same && self.mutant != Some(Mutant::NotCompared) {
            return Reply::Written(Err(WriteError::Conflict));
        }
        self.revision += 1;
        self.before = self.entry.replace((self.revision, value));
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            if let Some(delay) = self.delay(other) {
                self.schedule(self.now + delay, other, Happening::Hint);
            }
        }
        Reply::Written(Ok(self.revision))
    }

    fn answer(&mut self, node: usize, incarnation: u64, call: u64, reply: Reply) {
        if let Some(delay) = self.delay(node) {
            self.put(self.now + delay, Event { node, incarnation, what: Happening::Replies(call, reply) });
        }
    }

    /// Never two owners; and none at the full rate within a second of another.
    fn check(&mut self, node: usize) {
        let Some((until, full_rate_from, incarnation)) = self.owner_at(node, self.now) else { return };
        self.nodes[node].owned_until = until;
        if self.owner != Some(incarnation) {
            self.owner = Some(incarnation);
            self.run.changes_of_owner += 1;
        }
        let window = Time::try_from(WINDOW.as_nanos()).unwrap();
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            let ended = self.nodes[other].owned_until;
            if ended > self.now {
                self.violated(format!("two owners at {} ns: {node} and {other}", self.now));
            } else if ended > 0 && full_rate_from.max(self.now) < ended + window {
                self.violated(format!("two full rates in one second at {} ns: {node} and {other}", self.now));
            }
        }
    }
}
