//! Any sequence of watches, calls, changes and outages, against a model of what each
//! watch may have seen.

use std::{collections::BTreeSet, time::Duration};

use proptest::prelude::*;
use tokio::time::{Instant, timeout};

use super::rig::*;
use crate::{
    engine::{Event, JobStatuses, Watch, watch::Source},
    job::JobState,
};

/// The states that a job goes through, as far as a sequence gets.
const LIFE: [JobState; 6] = [
    JobState::Pending,
    JobState::Running,
    JobState::Retrying,
    JobState::Running,
    JobState::Cancelling,
    JobState::Cancelled,
];
const JOBS: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
enum Operation {
    /// Begins to watch a job.
    Watch(usize),
    /// Drops the n-th watch.
    Drop(usize),
    /// Reads what the n-th watch has to send now.
    Read(usize),
    /// Drops the n-th watch and resumes it with its token.
    Resume(usize),
    /// The job goes on at the vendor.
    Change(usize),
    Get(usize),
    /// Gets a job with a `max_age`, in milliseconds.
    GetAged(usize, u64),
    Fail,
    Recover,
    Pass(u64),
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        3 => (0..JOBS.len()).prop_map(Operation::Watch),
        1 => (0..8_usize).prop_map(Operation::Drop),
        4 => (0..8_usize).prop_map(Operation::Read),
        2 => (0..8_usize).prop_map(Operation::Resume),
        3 => (0..JOBS.len()).prop_map(Operation::Change),
        1 => (0..JOBS.len()).prop_map(Operation::Get),
        2 => (0..JOBS.len(), 0..30_000_u64).prop_map(|(job, age)| Operation::GetAged(job, age)),
        1 => Just(Operation::Fail),
        2 => Just(Operation::Recover),
        4 => (0..15_000_u64).prop_map(Operation::Pass),
    ]
}

/// One watch and what the model knows of it.
struct Reader {
    job: usize,
    watch: Watch,
    token: String,
    /// Step of the job's life that was sent last.
    sent: Option<usize>,
    /// The terminal status was sent since the watch was opened or resumed.
    sent_terminal: bool,
    ended: bool,
}

impl Reader {
    fn new(job: usize, watch: Watch) -> Self {
        Self { job, watch, token: String::new(), sent: None, sent_terminal: false, ended: false }
    }

    /// Takes what there is to read now, and compares it with the model.
    async fn read(&mut self, steps: [usize; 3]) {
        while let Ok(update) = timeout(Duration::ZERO, self.watch.next()).await {
            let Some(update) = update else {
                self.ended = true;
                assert!(self.sent_terminal, "it ends after the terminal status only, resumed or not");
                return;
            };
            let update = update.expect("no watch of a known job fails");
            self.token = update.resume_token;
            if let Event::Status(latest) = update.event {
                let now = step(&latest.snapshot.status().vendor_state);
                assert!(now <= steps[self.job], "nothing is sent that has not happened");
                let is_terminal = now == LIFE.len() - 1;
                let again = is_terminal && self.sent == Some(now);
                assert!(!self.sent_terminal, "nothing follows the terminal status");
                assert!(again || self.sent.is_none_or(|sent| sent < now), "never twice, never older");
                (self.sent, self.sent_terminal) = (Some(now), is_terminal);
            }
        }
    }
}

fn word(step: usize) -> String {
    format!("step {step}")
}

fn step(word: &str) -> usize {
    word.strip_prefix("step ").unwrap().parse().unwrap()
}

async fn run(operations: Vec<Operation>) {
    let rig = rig();
    let mut steps = [0; JOBS.len()];
    let mut changes = [const { Vec::new() }; JOBS.len()];
    let mut readers: Vec<Reader> = Vec::new();
    for id in JOBS {
        rig.script.set_word(id, LIFE[0], &word(0));
    }
    for operation in operations {
        match operation {
            Operation::Watch(job) if readers.len() < 3 => {
                let watch = rig.watch(JOBS[job]);
                readers.push(Reader::new(job, watch));
            }
            Operation::Drop(index) if !readers.is_empty() => {
                readers.swap_remove(index % readers.len());
            }
            Operation::Read(index) if !readers.is_empty() => {
                let index = index % readers.len();
                readers[index].read(steps).await;
            }
            Operation::Resume(index) if !readers.is_empty() => {
                let index = index % readers.len();
                let Reader { job, watch, token, sent, ended, .. } = readers.swap_remove(index);
                drop(watch);
                let watch = rig.resume(JOBS[job], &token);
                readers.push(Reader { token, sent, ended, ..Reader::new(job, watch) });
            }
            Operation::Change(job) if steps[job] + 1 < LIFE.len() => {
                steps[job] += 1;
                changes[job].push(Instant::now());
                rig.script.set_word(JOBS[job], LIFE[steps[job]], &word(steps[job]));
            }
            Operation::Get(job) => {
                let before = steps[job];
                if let Ok(latest) = rig.engine.get(&super::rig::job(JOBS[job]), fresh()).await {
                    assert_eq!(step(&latest.snapshot.status().vendor_state), before, "it is fresh");
                }
            }
            Operation::GetAged(job, age) => {
                let max_age = Duration::from_millis(age);
                let oldest = Instant::now().checked_sub(max_age);
                if let Ok(latest) = rig.engine.get(&super::rig::job(JOBS[job]), aged(max_age)).await {
                    let seen = step(&latest.snapshot.status().vendor_state);
                    let then = changes[job].iter().filter(|at| oldest.is_none_or(|oldest| **at < oldest));
                    assert!((then.count()..=steps[job]).contains(&seen), "it is fresh enough");
                }
            }
            Operation::Fail => rig.script.fail_all(),
            Operation::Recover => rig.script.recover(),
            Operation::Pass(milliseconds) => pass(Duration::from_millis(milliseconds)).await,
            _ => {}
        }
        let subscribed: BTreeSet<usize> = readers
            .iter()
            .filter(|reader| !matches!(reader.watch.open.source, Source::Ended(_)))
            .map(|reader| reader.job)
            .collect();
        assert_eq!(rig.subscribed(), subscribed.len(), "an entry for each watched job, and no other");
    }
    // Whatever happened: once the vendor answers, every watch receives the end.
    rig.script.recover();
    for (index, id) in JOBS.into_iter().enumerate() {
        steps[index] = LIFE.len() - 1;
        rig.script.set_word(id, JobState::Cancelled, &word(steps[index]));
    }
    pass(60 * SECOND).await;
    for reader in &mut readers {
        reader.read(steps).await;
        assert!(reader.ended, "the terminal status always arrives");
    }
    drop(readers);
    assert_eq!(rig.subscribed(), 0);
    rig.script.forget_calls();
    pass(60 * SECOND).await;
    assert!(rig.script.calls().is_empty(), "a job without subscribers is not polled");
    rig.shutdown.cancel();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]
    #[test]
    fn any_sequence_of_operations_keeps_every_promise(
        operations in proptest::collection::vec(operation(), 1..60),
    ) {
        on_a_paused_clock(run(operations));
    }
}
