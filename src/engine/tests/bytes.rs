//! The byte budget of statuses.

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;
use tokio::time::{Instant, timeout};

use super::rig::*;
use crate::{
    engine::{
        Caller, EngineLimits, Event, Failure, GetOptions, JobStatuses, MemoryLimits, Watch, WatchOptions,
    },
    job::{ContentType, JobResult, JobState, Observation, Parts, View},
};

const KIB: usize = 1024;

/// What a snapshot without result and payload takes at most here.
const CORE: u64 = 1024;

fn rig_of(status_bytes: usize, inline_result_bytes: usize) -> Rig {
    rig_with(EngineLimits {
        memory: MemoryLimits { status_bytes: status_bytes as u64, inline_result_bytes, jobs: 10_000 },
        ..limits(many_watches())
    })
}

fn observation(state: JobState, result: usize, payload: usize) -> Observation {
    let result = JobResult { data: vec![b'1'; result].into(), content_type: ContentType::Json };
    let vendor_payload = vec![b'2'; payload].into();
    Observation { result: Some(result), vendor_payload, ..Observation::new(state, "") }
}

impl Rig {
    fn used(&self) -> u64 {
        self.engine.memory.budget.used()
    }

    fn set_payload(&self, id: &str, state: JobState, bytes: usize) {
        self.script.set_payload(id, state, &"x".repeat(bytes));
    }

    fn watch_as(&self, id: &str, view: View) -> Result<Watch, Failure> {
        self.engine.watch(&job(id), Caller::default(), &WatchOptions { view, ..options() })
    }

    /// Whether the payload of a job that somebody subscribes to is held.
    fn holds_payload(&self, id: &str) -> bool {
        let backend = self.engine.backend_of(&job(id)).unwrap();
        let state = backend.engine.state();
        let number = state.jobs.find(&job(id)).expect("it is in the table");
        state.jobs[number].shared.record().latest.as_ref().unwrap().snapshot.holds(Parts::ALL)
    }

    fn is_in_the_table(&self, id: &str) -> bool {
        self.engine.backend_of(&job(id)).unwrap().engine.state().jobs.find(&job(id)).is_some()
    }

    fn is_cached(&self, id: &str) -> bool {
        self.engine.memory.cache.get(&job(id)).is_some()
    }
}

#[tokio::test(start_paused = true)]
async fn watches_that_show_no_parts_hold_none_and_a_full_get_polls_again() {
    let rig = rig_of(64 << 20, 1 << 20);
    let mut watches = Vec::new();
    for number in 0..50 {
        let id = number.to_string();
        rig.script.set_observation(&id, observation(JobState::Running, 200 * KIB, 200 * KIB));
        watches.push(rig.watch_as(&id, View::BASIC).unwrap());
    }
    for watch in &mut watches {
        assert_eq!(event(watch).await, "Running");
    }
    assert!(rig.used() < 50 * CORE, "{}", rig.used());
    let polls = rig.script.calls().len();
    let latest = rig.engine.get(&job("7"), aged(3600 * SECOND)).await.unwrap();
    let status = latest.snapshot.status();
    assert_eq!((status.result.unwrap().data.len(), status.vendor_payload.len()), (200 * KIB, 200 * KIB));
    assert_eq!(rig.script.calls().len(), polls + 1);
    let basic = GetOptions { parts: Parts::NONE, ..aged(3600 * SECOND) };
    rig.engine.get(&job("8"), basic).await.unwrap();
    assert_eq!(rig.script.calls().len(), polls + 1, "a view without parts needs no poll");
    assert!(is_silent(&mut watches[7], 5 * SECOND).await, "nothing has changed for it");
}

#[tokio::test(start_paused = true)]
async fn parts_that_nobody_is_shown_any_more_are_dropped_at_the_next_poll() {
    let rig = rig_of(64 << 20, 1 << 20);
    rig.set_payload("a", JobState::Running, 500 * KIB);
    let mut basic = rig.watch_as("a", View::BASIC).unwrap();
    assert_eq!(event(&mut basic).await, "Running");
    let mut full = rig.watch_as("a", View::FULL).unwrap();
    assert_eq!(event(&mut full).await, "Running");
    drop(full);
    assert!(is_silent(&mut basic, 20 * SECOND).await);
    assert!(rig.used() < CORE, "{}", rig.used());
}

#[tokio::test(start_paused = true)]
async fn result_above_the_inline_limit_is_never_held() {
    let rig = rig_of(64 << 20, 64 * KIB);
    rig.script.set_observation("a", observation(JobState::Running, 64 * KIB + 1, 500 * KIB));
    let mut watch = rig.watch("a");
    let Some(Ok(update)) = watch.next().await else { panic!("a status") };
    let Event::Status(latest) = update.event else { panic!("{:?}", update.event) };
    assert!(rig.used() < CORE, "{}", rig.used());
    let result = latest.snapshot.status().result.unwrap();
    assert_eq!((result.data.len(), result.size_bytes, result.omitted), (0, 65537, true));
    // A change of nothing but the omitted result is seen.
    let mut changed = observation(JobState::Running, 64 * KIB + 1, 500 * KIB);
    changed.result =
        Some(JobResult { data: vec![b'7'; 64 * KIB + 1].into(), content_type: ContentType::Json });
    rig.script.set_observation("a", changed);
    assert_eq!(event(&mut watch).await, "Running");
    assert_eq!(rig.get("a", fresh()).await.unwrap(), JobState::Running);
    assert!(rig.used() < 3 * CORE, "{}", rig.used());
}

#[tokio::test(start_paused = true)]
async fn retained_jobs_are_evicted_first_then_the_terminal_cache_then_delivered_parts() {
    let rig = rig_of(1024 * KIB, 1024 * KIB);
    rig.set_payload("retained", JobState::Running, 200 * KIB);
    rig.get("retained", aged(300 * SECOND)).await.unwrap();
    rig.set_payload("ended", JobState::Succeeded, 80 * KIB);
    rig.get("ended", fresh()).await.unwrap();
    let mut watches = Vec::new();
    let mut watch_another = async || {
        let id = watches.len().to_string();
        rig.set_payload(&id, JobState::Running, 95 * KIB);
        let mut watch = rig.watch_as(&id, View::FULL).unwrap();
        assert_eq!(event(&mut watch).await, "Running");
        watches.push(watch);
    };
    let held = || {
        let ids = (0..).map(|number: u32| number.to_string()).take_while(|id| rig.is_in_the_table(id));
        let all_parts = ids.into_iter().all(|id| rig.holds_payload(&id));
        (rig.is_in_the_table("retained"), rig.is_cached("ended"), all_parts)
    };
    for _ in 0..7 {
        watch_another().await;
    }
    assert_eq!(held(), (true, true, true), "{} of 1 MiB", rig.used());
    watch_another().await;
    assert_eq!(held(), (false, true, true), "the retained job is evicted first");
    watch_another().await;
    assert_eq!(held(), (false, true, true));
    watch_another().await;
    assert_eq!(held(), (false, false, true), "then the terminal cache");
    watch_another().await;
    watch_another().await;
    assert_eq!(held(), (false, false, false), "then delivered parts");
    assert!(!rig.engine.memory.budget.is_over());
    // A later need polls again, and all watches go on.
    let latest = rig.engine.get(&job("0"), aged(3600 * SECOND)).await.unwrap();
    assert_eq!(latest.snapshot.status().vendor_payload.len(), 95 * KIB);
}

#[tokio::test(start_paused = true)]
async fn new_subscriptions_are_refused_while_everything_held_is_needed() {
    let rig = rig_of(1024 * KIB, 1024 * KIB);
    let mut unread = Vec::new();
    for number in 0..11 {
        let id = number.to_string();
        rig.set_payload(&id, JobState::Running, 100 * KIB);
        unread.push(rig.watch_as(&id, View::FULL).unwrap());
    }
    pass(SECOND).await;
    let refused = |failure: &Failure| matches!(failure, Failure::TooManyBytes { key: "limits.status_bytes", limit } if *limit == 1 << 20);
    assert!(rig.watch_as("0", View::BASIC).is_err_and(|failure| refused(&failure)));
    assert!(rig.get("new", fresh()).await.is_err_and(|failure| refused(&failure)));
    // Slow readers still receive every status, with its parts.
    for watch in &mut unread[..10] {
        let Some(Ok(update)) = watch.next().await else { panic!("a status") };
        let Event::Status(latest) = update.event else { panic!("{:?}", update.event) };
        assert_eq!(latest.snapshot.status().vendor_payload.len(), 100 * KIB);
    }
    rig.script.set("new", JobState::Running);
    // Nothing is tried for a while after nothing could be freed.
    pass(SECOND).await;
    assert_eq!(rig.get("new", fresh()).await.unwrap(), JobState::Running, "delivered parts make room");
    assert!(rig.watch_as("0", View::BASIC).is_ok());
}

#[tokio::test(start_paused = true)]
async fn watch_that_has_not_read_a_known_status_yet_keeps_its_parts() {
    let rig = rig_of(1024 * KIB, 1024 * KIB);
    rig.set_payload("a", JobState::Succeeded, 100 * KIB);
    let mut first = rig.watch_as("a", View::FULL).unwrap();
    pass(SECOND).await;
    rig.engine.memory.cache.evict(|| true);
    let mut second = rig.watch_as("a", View::FULL).unwrap();
    assert_eq!(event(&mut first).await, "Succeeded");
    let mut others = Vec::new();
    for number in 0..12 {
        let id = number.to_string();
        rig.set_payload(&id, JobState::Running, 100 * KIB);
        if let Ok(mut watch) = rig.watch_as(&id, View::FULL) {
            assert_eq!(event(&mut watch).await, "Running");
            others.push(watch);
        }
    }
    assert!(others.len() > 10, "delivered parts make room for others");
    // The vendor forgets it: what was not read yet is all there is.
    rig.script.remove("a");
    let polls = rig.script.calls().len();
    assert_eq!([event(&mut second).await, event(&mut second).await], ["Succeeded", "end"]);
    assert_eq!(rig.script.calls().len(), polls);
}

#[tokio::test(start_paused = true)]
async fn slow_reader_receives_the_terminal_status_with_its_parts_under_pressure() {
    let rig = rig_of(1024 * KIB, 1024 * KIB);
    rig.set_payload("slow", JobState::Running, 100 * KIB);
    let mut slow = rig.watch_as("slow", View::FULL).unwrap();
    assert_eq!(event(&mut slow).await, "Running");
    rig.set_payload("slow", JobState::Succeeded, 150 * KIB);
    pass(5 * SECOND).await;
    let mut others = Vec::new();
    for number in 0..30 {
        let id = number.to_string();
        rig.set_payload(&id, JobState::Running, 100 * KIB);
        if let Ok(mut watch) = rig.watch_as(&id, View::FULL) {
            assert_eq!(event(&mut watch).await, "Running");
            others.push(watch);
        }
    }
    assert!(others.len() > 20, "delivered parts make room for others");
    rig.script.remove("slow");
    let Some(Ok(update)) = slow.next().await else { panic!("a status") };
    let Event::Status(latest) = update.event else { panic!("{:?}", update.event) };
    assert!(latest.snapshot.is_terminal());
    assert_eq!(latest.snapshot.status().vendor_payload.len(), 150 * KIB);
    assert_eq!(event(&mut slow).await, "end");
}

const JOBS: usize = 12;

#[derive(Clone, Debug)]
enum Operation {
    Watch { job: usize, view: u8 },
    Drop(usize),
    Read(usize),
    Get { job: usize, view: u8, age: Option<u64>, waits: bool },
    Change { job: usize, result: usize, payload: usize },
    End(usize),
    Pass(u64),
}

fn operation() -> impl Strategy<Value = Operation> {
    let size = || prop_oneof![3 => 0..2 * KIB, 2 => 0..48 * KIB, 1 => Just(80 * KIB)];
    let age = proptest::option::of(0..60_000_u64);
    prop_oneof![
        4 => (0..JOBS, 0..3_u8).prop_map(|(job, view)| Operation::Watch { job, view }),
        1 => any::<usize>().prop_map(Operation::Drop),
        4 => any::<usize>().prop_map(Operation::Read),
        3 => (0..JOBS, 0..3_u8, age, proptest::bool::weighted(0.2))
            .prop_map(|(job, view, age, waits)| Operation::Get { job, view, age, waits }),
        4 => (0..JOBS, size(), size())
            .prop_map(|(job, result, payload)| Operation::Change { job, result, payload }),
        1 => (0..JOBS).prop_map(Operation::End),
        4 => (0..15_000_u64).prop_map(Operation::Pass),
    ]
}

fn view(number: u8) -> View {
    [View::BASIC, View::STANDARD, View::FULL][usize::from(number)]
}

struct Reader {
    watch: Watch,
    view: View,
    was_sent_the_end: bool,
    ended: bool,
}

impl Reader {
    async fn read(&mut self) {
        while let Ok(update) = timeout(Duration::ZERO, self.watch.next()).await {
            let Some(update) = update else {
                self.ended = true;
                assert!(self.was_sent_the_end);
                return;
            };
            if let Event::Status(latest) = update.expect("no watch of a known job fails").event {
                assert!(latest.snapshot.holds(self.view.parts()), "a part is missing");
                self.was_sent_the_end = latest.snapshot.is_terminal();
            }
        }
    }
}

async fn run(operations: Vec<Operation>) {
    let rig = rig_of(256 * KIB, 64 * KIB);
    let began = Instant::now();
    let mut sizes: BTreeMap<usize, (usize, usize)> = (0..JOBS).map(|job| (job, (KIB, KIB))).collect();
    let mut ended = [false; JOBS];
    for job in 0..JOBS {
        rig.script.set_observation(&job.to_string(), observation(JobState::Running, KIB, KIB));
    }
    let mut readers: Vec<Reader> = Vec::new();
    let mut calls = 0;
    for operation in operations {
        match operation {
            Operation::Watch { job, view: number } if readers.len() < 16 => {
                let view = view(number);
                match rig.watch_as(&job.to_string(), view) {
                    Ok(watch) => {
                        readers.push(Reader { watch, view, was_sent_the_end: false, ended: false });
                    }
                    Err(Failure::TooManyBytes { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
                calls += 1;
            }
            Operation::Drop(index) if !readers.is_empty() => {
                readers.swap_remove(index % readers.len());
            }
            Operation::Read(index) if !readers.is_empty() => {
                let index = index % readers.len();
                readers[index].read().await;
            }
            Operation::Get { job, view: number, age, waits } => {
                let max_age = age.map(Duration::from_millis);
                let options = if waits { waiting(5 * SECOND) } else { fresh() };
                let options = GetOptions { max_age, parts: view(number).parts(), ..options };
                match rig.engine.get(&super::rig::job(&job.to_string()), options).await {
                    Ok(latest) => assert!(latest.snapshot.holds(options.parts)),
                    Err(Failure::TooManyBytes { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
                calls += 1;
            }
            Operation::Change { job, result, payload } if !ended[job] => {
                sizes.insert(job, (result, payload));
                rig.script.set_observation(&job.to_string(), observation(JobState::Running, result, payload));
            }
            Operation::End(job) => {
                ended[job] = true;
                let (result, payload) = sizes[&job];
                rig.script.set_observation(&job.to_string(), observation(JobState::Failed, result, payload));
            }
            Operation::Pass(milliseconds) => pass(Duration::from_millis(milliseconds)).await,
            _ => {}
        }
    }
    for job in 0..JOBS {
        let (result, payload) = sizes[&job];
        rig.script.set_observation(&job.to_string(), observation(JobState::Failed, result, payload));
    }
    // Those that could not be kept while others had not read are polled again.
    for _ in 0..10 {
        pass(15 * SECOND).await;
        for reader in readers.iter_mut().filter(|reader| !reader.ended) {
            reader.read().await;
        }
    }
    assert!(readers.iter().all(|reader| reader.ended), "the terminal status always arrives");
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();
    // Polls by interval, one for each call, and some for parts that were dropped unread.
    let bound = JOBS * (seconds + 1) + 2 * calls;
    let polls: usize = rig.script.calls().iter().map(|call| call.ids.len()).sum();
    assert!(polls <= bound, "{polls} polls of jobs in {seconds} s");

    drop(readers);
    // What was retained expires, and the terminal cache is emptied.
    pass(Duration::from_mins(11)).await;
    rig.engine.memory.cache.evict(|| true);
    assert_eq!((rig.used(), rig.engine.memory.jobs()), (0, 0));
    assert!(rig.watch_as("0", View::FULL).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    #[test]
    fn small_budget_loses_no_terminal_status_and_is_free_again_when_all_have_left(
        operations in proptest::collection::vec(operation(), 1..60),
    ) {
        on_a_paused_clock(run(operations));
    }
}

#[tokio::test(start_paused = true)]
async fn call_whose_wait_ends_after_its_parts_were_dropped_has_them_polled_again() {
    let rig = rig_of(64 * KIB, 1024 * KIB);
    rig.set_payload("a", JobState::Running, 100 * KIB);
    let began = Instant::now();
    let waits = waiting(30 * SECOND);
    let another = async {
        pass(9 * SECOND + SECOND / 2).await;
        rig.script.set("b", JobState::Running);
        rig.get("b", fresh()).await.unwrap();
    };
    let job = job("a");
    let (latest, ()) = tokio::join!(rig.engine.get(&job, waits), another);
    assert!(latest.expect("an answer").snapshot.holds(Parts::ALL));
    assert!(began.elapsed() < 31 * SECOND, "{:?}", began.elapsed());
}
