//! Any sequence of operations on a backend, against the invariants.

use std::{cell::Cell, sync::Arc, time::Duration};

use proptest::prelude::*;
use tokio::time::Instant;

use super::test_backend::{SECOND, backend, job, pass, per_second, plan};
use crate::{
    engine::{
        Backend, CallerKey, Interest, NotificationQueue, PollPlan, Purpose, Subscription,
        job_table::Reading,
        planner::{self, Readiness},
        poll::{Answer, Batch, Known},
    },
    job::{
        BackendFault, ContentType, FaultKind, JobFault, JobResult, JobState, Observation, Parts, PayloadHash,
        StandbyFault,
    },
    snapshot::Snapshot,
};

const JOBS: usize = 24;

#[derive(Clone, Debug)]
enum Operation {
    Watch {
        job: usize,
        caller: u64,
        interval: Option<u64>,
        parts: u8,
    },
    Call {
        job: usize,
        caller: u64,
        max_age: Option<u64>,
        deadline: u64,
        parts: u8,
    },
    Recent {
        job: usize,
        max_age: u64,
    },
    PollNow(usize),
    Unsubscribe(usize),
    Readiness,
    Take(f64),
    Answer {
        batch: usize,
        says: Vec<u8>,
    },
    Fail {
        batch: usize,
        fault: u8,
        dice: f64,
    },
    /// As when the poll is cancelled or the backend stopped.
    Drop(usize),
    Throttled,
    CredentialsRotated,
    DropDeliveredParts,
    EvictRetained,
    Pass(u64),
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation as Op;
    let job = || 0..JOBS;
    let which = || 0..64_usize;
    let caller = || 0..4_u64;
    let parts = || 0..4_u8;
    prop_oneof![
        3 => (job(), caller(), proptest::option::of(0..20_u64), parts())
            .prop_map(|(job, caller, interval, parts)| Op::Watch { job, caller, interval, parts }),
        6 => (job(), caller(), proptest::option::of(0..40_u64), 0..60_u64, parts())
            .prop_map(|(job, caller, max_age, deadline, parts)| Op::Call { job, caller, max_age, deadline, parts }),
        2 => (job(), 0..40_u64).prop_map(|(job, max_age)| Op::Recent { job, max_age }),
        1 => which().prop_map(Op::PollNow),
        8 => which().prop_map(Op::Unsubscribe),
        2 => Just(Op::Readiness),
        10 => (0.0..1.0).prop_map(Op::Take),
        8 => (which(), proptest::collection::vec(0..14_u8, 8))
            .prop_map(|(batch, says)| Op::Answer { batch, says }),
        6 => (which(), 0..9_u8, 0.0..1.0).prop_map(|(batch, fault, dice)| Op::Fail { batch, fault, dice }),
        1 => which().prop_map(Op::Drop),
        1 => Just(Op::Throttled),
        1 => Just(Op::CredentialsRotated),
        1 => Just(Op::DropDeliveredParts),
        1 => Just(Op::EvictRetained),
        8 => (0..12_000_u64).prop_map(Op::Pass),
    ]
}

fn fault(kind: u8) -> BackendFault {
    match kind {
        0 => FaultKind::CredentialsRejected.into(),
        1 => BackendFault::from(FaultKind::Throttled).with_retry_after(Some(7 * SECOND)),
        2 => FaultKind::Rejected { message: "no".into() }.into(),
        3 => FaultKind::TooLarge.into(),
        4 => FaultKind::Malformed { why: "HTML" }.into(),
        5 => FaultKind::Unreachable { why: "refused".into() }.into(),
        6 => FaultKind::Overloaded.into(),
        _ => FaultKind::Unavailable { why: "down".into() }.into(),
    }
}

fn parts(number: u8) -> Parts {
    Parts { result: number & 1 > 0, payload: number & 2 > 0 }
}

struct World {
    backend: Arc<Backend>,
    subscriptions: Vec<(usize, Subscription)>,
    batches: Vec<Batch>,
}

impl World {
    fn new(max_batch: usize) -> Self {
        let plan = PollPlan { requests_per_second: per_second(20), ..plan(max_batch) };
        Self { backend: backend(plan), subscriptions: Vec::new(), batches: Vec::new() }
    }

    fn job(index: usize) -> crate::job::JobRef {
        job(&index.to_string())
    }

    fn subscribe(&mut self, job: usize, caller: u64, purpose: Purpose, shown: u8) {
        let queue = Arc::new(NotificationQueue::new(CallerKey(caller)));
        let interest = Interest { queue, slot: 0, parts: parts(shown), purpose };
        if let Ok(subscription) = self.backend.subscribe(&Self::job(job), interest) {
            self.subscriptions.push((job, subscription));
        }
    }

    /// What the vendor says of one job.
    fn answer(&self, says: u8, known: Known) -> Answer {
        let read = |state, payload: &str| {
            let observation = Observation {
                result: Some(JobResult { data: payload.to_owned().into(), content_type: ContentType::Text }),
                vendor_payload: payload.to_owned().into(),
                ..Observation::new(state, "")
            };
            let budget = &self.backend.memory().budget;
            let snapshot = Snapshot::new(observation, known.parts, 1 << 20, budget);
            Ok(Reading::Read(snapshot, PayloadHash::of(payload.as_bytes())))
        };
        match says {
            0 => Err(JobFault::NotFound),
            1 => Err(JobFault::Forbidden),
            2 => Err(JobFault::Invalid { message: "no".into() }),
            3 => Err(JobFault::Malformed { why: "no" }),
            4 => Err(JobFault::Standby(StandbyFault::NeedsJobTag)),
            5 => read(JobState::Succeeded, "succeeded"),
            6 => read(JobState::Retrying, "retrying"),
            7 if known.payload_hash.is_some() => Ok(Reading::Unchanged),
            _ => read(JobState::Running, "running"),
        }
    }

    fn answer_all(&self, batch: Batch, says: &[u8]) {
        let answers = batch.known().into_iter().zip(says.iter().cycle());
        let answers = answers.map(|(known, says)| self.answer(*says, known)).collect();
        batch.answered(answers, 0.5);
    }

    fn take_out(&mut self, batch: usize) -> Option<Batch> {
        (!self.batches.is_empty()).then(|| self.batches.swap_remove(batch % self.batches.len()))
    }

    fn readiness(&self) -> Readiness {
        planner::readiness(&mut self.backend.state(), Instant::now())
    }

    async fn operate(&mut self, operation: Operation) {
        let now = Instant::now();
        match operation {
            Operation::Watch { job, caller, interval, parts } => {
                let interval = interval.map(Duration::from_secs);
                self.subscribe(job, caller, Purpose::Watch { interval }, parts);
            }
            Operation::Call { job, caller, max_age, deadline, parts } => {
                let max_age = max_age.map(Duration::from_secs);
                let deadline = now + Duration::from_secs(deadline);
                self.subscribe(job, caller, Purpose::Call { max_age, deadline }, parts);
            }
            Operation::Recent { job, max_age } => {
                let max_age = Duration::from_secs(max_age);
                if let Some(latest) = self.backend.recent(&Self::job(job), max_age) {
                    assert!(latest.at.elapsed() <= max_age);
                }
            }
            Operation::PollNow(index) if !self.subscriptions.is_empty() => {
                self.subscriptions[index % self.subscriptions.len()].1.poll_now();
            }
            Operation::Unsubscribe(index) if !self.subscriptions.is_empty() => {
                drop(self.subscriptions.swap_remove(index % self.subscriptions.len()));
            }
            Operation::Readiness => drop(self.readiness()),
            Operation::Take(dice) if self.readiness() == Readiness::Ready => {
                self.batches.extend(Batch::take(&self.backend, now, dice));
            }
            Operation::Answer { batch, says } => {
                if let Some(batch) = self.take_out(batch) {
                    self.answer_all(batch, &says);
                }
            }
            Operation::Fail { batch, fault: kind, dice } => {
                if let Some(batch) = self.take_out(batch) {
                    batch.failed(&fault(kind), dice);
                }
            }
            Operation::Drop(batch) => drop(self.take_out(batch)),
            Operation::Throttled => drop(self.backend.throttled(&fault(1), now, 0.5)),
            Operation::CredentialsRotated => self.backend.credentials_rotated(now),
            Operation::DropDeliveredParts => self.backend.drop_delivered_parts(|| true),
            Operation::EvictRetained => {
                let left = Cell::new(2_u32);
                self.backend.evict_retained(|| left.replace(left.get().saturating_sub(1)) > 0);
            }
            Operation::Pass(millis) => pass(Duration::from_millis(millis)).await,
            _ => {}
        }
        // As the poll loop does at once.
        self.batches.retain(|batch| !batch.in_flight().is_cancelled());
    }

    fn check(&self) {
        self.backend.check();
        let mut subscribed: Vec<usize> = self.subscriptions.iter().map(|(job, _)| *job).collect();
        subscribed.sort_unstable();
        subscribed.dedup();
        assert_eq!(self.backend.report(Instant::now()).subscribed_jobs, subscribed.len());
    }

    /// Polls everything that is due, as the poll loop does, for a vendor that answers.
    async fn poll_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        loop {
            match self.readiness() {
                Readiness::Ready => {
                    if let Some(batch) = Batch::take(&self.backend, Instant::now(), 0.5) {
                        self.answer_all(batch, &[9]);
                        self.check();
                    }
                }
                Readiness::At(at) if at < end => tokio::time::sleep_until(at).await,
                Readiness::At(_) | Readiness::Idle | Readiness::Following => {
                    return tokio::time::sleep_until(end).await;
                }
            }
        }
    }
}

async fn run(operations: Vec<Operation>, max_batch: usize) {
    let mut world = World::new(max_batch);
    for operation in operations {
        world.operate(operation).await;
        world.check();
    }
    // Whatever happened, everybody is answered once the vendor answers.
    world.batches.clear();
    let polls = |subscription: &Subscription| subscription.look(|record| record.polls);
    let before: Vec<u64> = world.subscriptions.iter().map(|(_, subscription)| polls(subscription)).collect();
    world.poll_for(400 * SECOND).await;
    for ((job, subscription), before) in world.subscriptions.iter().zip(before) {
        let record = subscription.record();
        let latest = record.latest.as_ref().expect("it was answered");
        assert!(latest.snapshot.is_terminal() || record.last_answer > before, "job {job}: {record:?}");
    }
    world.check();
    // Nothing is left of jobs without subscribers, and they are not polled.
    world.subscriptions.clear();
    world.check();
    pass(600 * SECOND).await;
    assert_eq!(world.readiness(), Readiness::Idle);
    world.check();
    for job in 0..JOBS {
        assert!(world.backend.known(&World::job(job)).is_none());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]
    #[test]
    fn any_sequence_of_operations_leaves_every_job_in_exactly_one_place(
        operations in proptest::collection::vec(operation(), 1..120),
        max_batch in 1..12_usize,
    ) {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(run(operations, max_batch));
    }
}
