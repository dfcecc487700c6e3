//! Any sequence of joins, leaves, changes, outages and shutdowns, against a model
//! of what each watch may have seen.

use proptest::prelude::*;

use super::*;

/// Lives that a job may lead at the vendor, as far as a sequence gets.
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
    /// Begins to follow a job.
    Join(usize),
    /// Ends the n-th watch.
    Leave(usize),
    /// Reads what the n-th watch has to say now.
    Read(usize),
    /// Drops the n-th watch and takes it up again with its token.
    Resume(usize),
    /// The job goes on at the vendor.
    Change(usize),
    Get(usize),
    /// Asks with a `max_age`, in milliseconds.
    GetAged(usize, u64),
    GoDown,
    ComeBack,
    Pass(u64),
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        3 => (0..JOBS.len()).prop_map(Operation::Join),
        1 => (0..8_usize).prop_map(Operation::Leave),
        4 => (0..8_usize).prop_map(Operation::Read),
        2 => (0..8_usize).prop_map(Operation::Resume),
        3 => (0..JOBS.len()).prop_map(Operation::Change),
        1 => (0..JOBS.len()).prop_map(Operation::Get),
        2 => (0..JOBS.len(), 0..30_000_u64).prop_map(|(job, age)| Operation::GetAged(job, age)),
        1 => Just(Operation::GoDown),
        2 => Just(Operation::ComeBack),
        4 => (0..15_000_u64).prop_map(Operation::Pass),
    ]
}

/// One watch and what the model knows of it.
struct Reader {
    job: usize,
    watch: Watch,
    token: String,
    /// Step of the job's life that was told last.
    told: Option<usize>,
    ended: bool,
}

impl Reader {
    /// Takes what there is to read now, and holds it to the model.
    async fn read(&mut self, steps: [usize; 3]) {
        while let Ok(update) = timeout(Duration::ZERO, self.watch.next()).await {
            let Some(update) = update else {
                self.ended = true;
                assert_eq!(self.told, Some(LIFE.len() - 1), "it ends after the terminal status only");
                return;
            };
            let update = update.expect("no watch of a known job fails");
            self.token = update.resume_token;
            if let Event::Status(latest) = update.event {
                let now = step(&latest.snapshot.status().vendor_state);
                assert!(now <= steps[self.job], "nothing is told that has not happened");
                assert!(self.told.is_none_or(|told| told < now), "never twice, never older");
                self.told = Some(now);
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
            Operation::Join(job) if readers.len() < 3 => {
                let watch = rig.watch(JOBS[job]);
                readers.push(Reader { job, watch, token: String::new(), told: None, ended: false });
            }
            Operation::Leave(index) if !readers.is_empty() => {
                readers.swap_remove(index % readers.len());
            }
            Operation::Read(index) if !readers.is_empty() => {
                let index = index % readers.len();
                readers[index].read(steps).await;
            }
            Operation::Resume(index) if !readers.is_empty() => {
                let index = index % readers.len();
                let Reader { job, watch, token, told, ended } = readers.swap_remove(index);
                drop(watch);
                let watch = rig.resume(JOBS[job], &token);
                readers.push(Reader { job, watch, token, told, ended });
            }
            Operation::Change(job) if steps[job] + 1 < LIFE.len() => {
                steps[job] += 1;
                changes[job].push(Instant::now());
                rig.script.set_word(JOBS[job], LIFE[steps[job]], &word(steps[job]));
            }
            Operation::Get(job) => {
                let before = steps[job];
                if let Ok(latest) = rig.hub.get(&[super::job(JOBS[job])], Ask::default()).await.remove(0) {
                    assert_eq!(step(&latest.snapshot.status().vendor_state), before, "it is fresh");
                }
            }
            Operation::GetAged(job, age) => {
                let max_age = Some(Duration::from_millis(age));
                let ask = Ask { max_age, ..Ask::default() };
                let oldest = Instant::now().checked_sub(Duration::from_millis(age));
                if let Ok(latest) = rig.hub.get(&[super::job(JOBS[job])], ask).await.remove(0) {
                    let told = step(&latest.snapshot.status().vendor_state);
                    let then = changes[job].iter().filter(|at| oldest.is_none_or(|oldest| **at < oldest));
                    assert!((then.count()..=steps[job]).contains(&told), "it is young enough");
                }
            }
            Operation::GoDown => rig.script.go_down(),
            Operation::ComeBack => rig.script.come_back(),
            Operation::Pass(milliseconds) => pass(Duration::from_millis(milliseconds)).await,
            _ => {}
        }
        let followed: std::collections::BTreeSet<usize> = readers
            .iter()
            .filter(|reader| !matches!(reader.watch.open.source, super::super::watch::Source::Ended(_)))
            .map(|reader| reader.job)
            .collect();
        assert_eq!(rig.followed(), followed.len(), "a row for each followed job, and no other");
        rig.check();
    }
    // Whatever happened: once the vendor answers, everyone learns the end.
    rig.script.come_back();
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
    assert_eq!(rig.followed(), 0);
    rig.script.forget_calls();
    pass(60 * SECOND).await;
    assert!(rig.script.calls().is_empty(), "nothing is asked for nobody");
    rig.shutdown.cancel();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]
    #[test]
    fn no_sequence_of_operations_breaks_a_promise(
        operations in proptest::collection::vec(operation(), 1..60),
    ) {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(run(operations));
    }
}
