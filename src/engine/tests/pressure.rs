//! Races on several threads while the byte budget is exceeded and backends are replaced.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;

use super::{rig::*, script::Script};
use crate::{
    engine::{
        BackendSetup, Caller, Engine, EngineLimits, Event, Failure, JobStatuses, MemoryLimits, PollInterval,
        PollPlan,
    },
    job::{JobState, Parts},
};

const JOBS: usize = 20;
const READERS: usize = 3;
const PAYLOAD: usize = 20 << 10;

/// Polls every few milliseconds.
fn fast_setup(script: &Arc<Script>) -> BackendSetup {
    let mut setup = setup("vendor", 7, Arc::clone(script) as _);
    let interval = PollInterval { min: Duration::from_millis(1), max: Duration::from_millis(5) };
    setup.plan = PollPlan { interval, collection_window: Duration::ZERO, ..setup.plan };
    setup
}

/// Watches a job to its end. Drops the watch after every third status and resumes it.
async fn read_to_the_end(engine: Arc<Engine>, id: String) {
    let mut token = String::new();
    loop {
        let mut watch = match engine.watch(&job(&id), Caller::default(), &resuming(&token)) {
            Ok(watch) => watch,
            Err(Failure::TooManyBytes { .. }) => {
                tokio::task::yield_now().await;
                continue;
            }
            Err(failure) => panic!("{failure}"),
        };
        let mut statuses = 0;
        while statuses < 3 {
            let update = match watch.next().await {
                Some(Ok(update)) => update,
                Some(Err(Failure::BackendRetired)) => break,
                Some(Err(failure)) => panic!("{failure}"),
                None => return,
            };
            token = update.resume_token;
            if let Event::Status(latest) = update.event {
                assert!(latest.snapshot.holds(Parts::ALL));
                statuses += 1;
            }
        }
    }
}

/// Lets the jobs change and end. `replaces` says whether the backend is replaced meanwhile.
async fn run(replaces: bool) {
    let script = Script::new(Duration::ZERO);
    let set = |state, step: usize| {
        for number in 0..JOBS {
            let payload = format!("{step}").repeat(PAYLOAD);
            script.set_payload(&number.to_string(), state, &payload[..PAYLOAD]);
        }
    };
    set(JobState::Running, 0);
    let memory = MemoryLimits { status_bytes: 6 * PAYLOAD as u64, ..MEMORY };
    let running = start(vec![fast_setup(&script)], EngineLimits { memory, ..limits(many_watches()) });
    let mut readers = JoinSet::new();
    for number in 0..JOBS * READERS {
        readers.spawn(read_to_the_end(Arc::clone(&running.engine), (number % JOBS).to_string()));
    }
    for step in 1..50 {
        set(JobState::Running, step);
        pass(Duration::from_millis(2)).await;
        if replaces && step % 10 == 0 {
            running.engine.start_backend(fast_setup(&script));
        }
    }
    set(JobState::Succeeded, 50);
    while let Some(reader) = readers.join_next().await {
        reader.expect("every reader receives the end");
    }
    assert_eq!(subscribed(&running.engine), 0);
    running.engine.memory.cache.evict(|| true);
    // A poll that nobody waits for any more may still be read on another thread.
    for _ in 0..10_000 {
        if running.engine.memory.budget.used() == 0 {
            return;
        }
        pass(Duration::from_millis(10)).await;
        running.engine.memory.cache.evict(|| true);
    }
    panic!("{} bytes are still charged", running.engine.memory.budget.used());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_on_several_threads_receive_the_end_though_the_budget_is_exceeded() {
    run(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_on_several_threads_receive_the_end_though_the_backend_is_replaced() {
    run(true).await;
}
