//! Any sequence of what can happen to a roster, against what always holds of one.

use proptest::prelude::*;

use super::*;
use crate::{
    job::{BackendFault, JobFault, Observation, PayloadHash},
    poller::{Batch, Readiness, Taken},
    snapshot::Snapshot,
};

const JOBS: usize = 24;

#[derive(Clone, Debug)]
enum Operation {
    Watch {
        job: usize,
        interval: Option<u64>,
    },
    Ask {
        job: usize,
        max_age: Option<u64>,
    },
    Recent {
        job: usize,
        max_age: u64,
    },
    Hurry(usize),
    Leave(usize),
    Prepare,
    Take(f64),
    /// The vendor answers about the n-th request, or its first half.
    Answer {
        batch: usize,
        half: bool,
        says: Vec<u8>,
    },
    Refuse {
        batch: usize,
        job: usize,
    },
    OnlyFollowed(usize),
    TooLarge(usize),
    Fail {
        batch: usize,
        fault: u8,
    },
    Cut(usize),
    LongPollFails(usize),
    Drop(usize),
    Forgive,
    Pass(u64),
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation as Op;
    let job = || 0..JOBS;
    let which = || 0..64_usize;
    prop_oneof![
        3 => (job(), proptest::option::of(0..20_u64)).prop_map(|(job, interval)| Op::Watch { job, interval }),
        6 => (job(), proptest::option::of(0..40_u64)).prop_map(|(job, max_age)| Op::Ask { job, max_age }),
        2 => (job(), 0..40_u64).prop_map(|(job, max_age)| Op::Recent { job, max_age }),
        1 => which().prop_map(Op::Hurry),
        8 => which().prop_map(Op::Leave),
        2 => Just(Op::Prepare),
        8 => (0.0..1.0).prop_map(Op::Take),
        8 => (which(), any::<bool>(), proptest::collection::vec(0..12_u8, 8))
            .prop_map(|(batch, half, says)| Op::Answer { batch, half, says }),
        1 => (which(), which()).prop_map(|(batch, job)| Op::Refuse { batch, job }),
        1 => which().prop_map(Op::OnlyFollowed),
        1 => which().prop_map(Op::TooLarge),
        1 => (which(), 0..5_u8).prop_map(|(batch, fault)| Op::Fail { batch, fault }),
        1 => which().prop_map(Op::Cut),
        1 => which().prop_map(Op::LongPollFails),
        1 => which().prop_map(Op::Drop),
        1 => Just(Op::Forgive),
        8 => (0..12_000_u64).prop_map(Op::Pass),
    ]
}

fn fault(kind: u8) -> BackendFault {
    match kind {
        0 => FaultKind::CredentialsRejected.into(),
        1 => FaultKind::Throttled { retry_after: Some(7 * SECOND) }.into(),
        2 => FaultKind::Rejected { message: "no".into() }.into(),
        _ => FaultKind::Unavailable { retry_after: None, why: "down".into() }.into(),
    }
}

fn answer(says: u8, taken: &Taken) -> Result<Option<Snapshot>, JobFault> {
    let snapshot = |state| Snapshot::new(Observation::new(state, ""));
    match says {
        0 => Err(JobFault::NotFound),
        1 => Err(JobFault::Forbidden),
        2 => Err(JobFault::Invalid { message: "no".into() }),
        3 => Ok(Some(snapshot(JobState::Succeeded))),
        4 => Ok(Some(snapshot(JobState::Retrying))),
        5 if taken.payload_hash().is_some() => Ok(None),
        _ => {
            let payload_hash = Some(PayloadHash::of(b"running"));
            let mut running = snapshot(JobState::Running);
            running.payload_hash = payload_hash;
            Ok(Some(running))
        }
    }
}

struct World {
    roster: Arc<Roster>,
    follows: Vec<(usize, Follow)>,
    batches: Vec<Batch>,
}

impl World {
    fn new(max_batch: usize, long_poll: bool) -> Self {
        Self { roster: roster(max_batch, long_poll), follows: Vec::new(), batches: Vec::new() }
    }

    fn job(index: usize) -> JobRef {
        JobRef::new("vendor", format!("{index}"))
    }

    fn join(&mut self, job: usize, eager: bool, interval: Option<u64>, max_age: Option<u64>) {
        let mailbox = Arc::new(Mailbox::default());
        let interval = interval.map(Duration::from_secs);
        let mut follow = self.roster.join(&Self::job(job), Interest { mailbox, slot: 0, eager, interval });
        if let Some(max_age) = max_age {
            follow.keep(Duration::from_secs(max_age));
        }
        self.follows.push((job, follow));
    }

    /// Does what a poller does that has one of its requests end in this way.
    fn ends(&mut self, batch: usize, end: impl FnOnce(&mut Batch)) {
        if !self.batches.is_empty() {
            let index = batch % self.batches.len();
            let batch = &mut self.batches[index];
            end(batch);
            self.roster.check();
            if self.batches[index].open().is_empty() {
                drop(self.batches.swap_remove(index));
            }
        }
    }

    async fn operate(&mut self, operation: Operation) {
        match operation {
            Operation::Watch { job, interval } => self.join(job, false, interval, None),
            Operation::Ask { job, max_age } => self.join(job, true, None, max_age),
            Operation::Recent { job, max_age } => {
                let max_age = Duration::from_secs(max_age);
                if let Some(latest) = self.roster.recent(&Self::job(job), max_age) {
                    assert!(latest.at.elapsed() <= max_age);
                }
            }
            Operation::Hurry(index) if !self.follows.is_empty() => {
                self.follows[index % self.follows.len()].1.ask_anew();
            }
            Operation::Leave(index) if !self.follows.is_empty() => {
                drop(self.follows.swap_remove(index % self.follows.len()));
            }
            Operation::Prepare => drop(self.roster.prepare(Instant::now())),
            Operation::Take(dice) if self.roster.prepare(Instant::now()) == Readiness::Ready => {
                self.batches.extend(self.roster.take(Instant::now(), dice));
            }
            Operation::Answer { batch, half, says } => self.ends(batch, |batch| {
                let mut part = batch.open();
                if half {
                    part.truncate(part.len().div_ceil(2));
                }
                let answers = part.iter().zip(says.iter().cycle());
                let answers = answers.map(|(taken, says)| answer(*says, taken)).collect();
                batch.answered(&part, answers, 0.5);
            }),
            Operation::Refuse { batch, job } => self.ends(batch, |batch| {
                let open = batch.open();
                let fault = FaultKind::Rejected { message: "bad id".into() }.into();
                batch.refused(&open[job % open.len()], &fault, 0.5);
            }),
            Operation::OnlyFollowed(batch) => self.ends(batch, |batch| {
                let mut open = batch.open();
                batch.only_followed(&mut open);
                // As after a refusal, of which these are one half.
                for taken in open {
                    batch.answered(std::slice::from_ref(&taken), vec![answer(9, &taken)], 0.5);
                }
            }),
            Operation::TooLarge(batch) => self.ends(batch, |batch| batch.too_large(batch.open().len())),
            Operation::Fail { batch, fault: kind } => self.ends(batch, |batch| {
                batch.failed(&fault(kind), 0.5);
            }),
            Operation::Cut(batch) => self.ends(batch, |batch| {
                if batch.cut_short().is_cancelled() {
                    batch.cut();
                }
            }),
            Operation::LongPollFails(batch) => self.ends(batch, |batch| {
                if !batch.wait().is_zero() {
                    batch.long_poll_failed();
                }
            }),
            Operation::Drop(batch) if !self.batches.is_empty() => {
                drop(self.batches.swap_remove(batch % self.batches.len()));
            }
            Operation::Forgive => self.roster.forgive_rejections(Instant::now()),
            Operation::Pass(millis) => pass(Duration::from_millis(millis)).await,
            _ => {}
        }
        // As the poller does at once.
        self.batches.retain(|batch| !batch.given_up().is_cancelled());
    }

    fn check(&self) {
        self.roster.check();
        let mut followed: Vec<usize> = self.follows.iter().map(|(job, _)| *job).collect();
        followed.sort_unstable();
        followed.dedup();
        assert_eq!(self.roster.report(Instant::now()).followed, followed.len());
    }
}

async fn run(operations: Vec<Operation>, max_batch: usize, long_poll: bool) {
    let mut world = World::new(max_batch, long_poll);
    for operation in operations {
        world.operate(operation).await;
        world.check();
    }
    // Whatever happened, everybody who follows is answered once the vendor answers.
    world.batches.clear();
    let before: Vec<u64> = world.follows.iter().map(|(_, follow)| follow.news().answers).collect();
    for _ in 0..400 {
        pass(SECOND).await;
        while world.roster.prepare(Instant::now()) == Readiness::Ready
            && let Some(mut batch) = world.roster.take(Instant::now(), 0.5)
        {
            let part = batch.open();
            batch.answered(&part, part.iter().map(|taken| answer(9, taken)).collect(), 0.5);
        }
        world.check();
    }
    for ((job, follow), before) in world.follows.iter().zip(before) {
        let news = follow.news();
        let ended = news.latest.as_ref().is_some_and(|latest| latest.snapshot.is_terminal());
        assert!(ended || news.answers > before, "job {job}: {news:?}");
    }
    // Nothing stays of what nobody asks about, and nothing is asked about.
    world.follows.clear();
    world.check();
    pass(600 * SECOND).await;
    assert_eq!(world.roster.prepare(Instant::now()), Readiness::Idle);
    world.check();
    for job in 0..JOBS {
        assert!(world.roster.known(&World::job(job)).is_none());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]
    #[test]
    fn no_sequence_of_operations_leaves_a_row_that_is_in_no_place_or_in_two(
        operations in proptest::collection::vec(operation(), 1..120),
        max_batch in 1..12_usize,
        long_poll in any::<bool>(),
    ) {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(run(operations, max_batch, long_poll));
    }
}
