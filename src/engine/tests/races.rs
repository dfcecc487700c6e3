//! Races, on a multi-thread runtime and the real clock.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    script::Script,
    test_backend::*,
    vendor_with_failing_jobs::{Failure, FaultyVendor},
};
use crate::{
    engine::{
        BackendSetup, Caller, Engine, EngineLimits, Failure as CallFailure, GetOptions, JobStatuses,
        MemoryLimits, NotificationQueue, PollInterval, PollPlan, Subscription, WatchLimits, WatchOptions,
    },
    job::{JobState, Parts, View},
    transport::{Backoff, Upstream},
};

/// No answer takes longer, however busy the machine is.
const LONGEST: Duration = Duration::from_mins(1);

/// Short waits and no limits.
fn fast_plan(max_batch: usize) -> PollPlan {
    PollPlan {
        interval: PollInterval { min: SECOND / 100, max: SECOND / 20 },
        backoff: Backoff { min: SECOND / 200, max: SECOND / 100 },
        collection_window: Duration::from_millis(1),
        max_concurrency: nonzero(64),
        requests_per_second: per_second(u32::MAX),
        ..plan(max_batch)
    }
}

fn worker<F: Future<Output = ()> + Send + 'static>(work: F) -> JoinHandle<()> {
    tokio::spawn(work)
}

async fn finish(workers: Vec<JoinHandle<()>>) {
    for worker in workers {
        worker.await.unwrap();
    }
}

/// Subscribing while the last subscriber leaves while a poll ends neither loses a job nor
/// leaves one behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn job_subscribed_to_while_its_last_subscriber_leaves_is_answered() {
    let plan =
        PollPlan { max_concurrency: nonzero(64), requests_per_second: per_second(u32::MAX), ..plan(4) };
    let vendor = Arc::new(TestBackend::with_plan(plan));
    vendor.running(8);
    let workers = (0..8_usize).map(|number| {
        let vendor = Arc::clone(&vendor);
        worker(async move {
            for round in 0..90_usize {
                let queue = Arc::new(NotificationQueue::default());
                let id = format!("job-{:04}", (number * 31 + round) % 8);
                let max_age = (round % 4 < 2).then_some(SECOND / 10);
                let purpose = call(max_age);
                let subscription = subscribe_with(&vendor.backend, &id, purpose, Arc::clone(&queue)).unwrap();
                if round % 3 == 0 {
                    subscription.poll_now();
                    timeout(LONGEST, queue.next()).await.expect("an answer");
                    assert!(state(&subscription).is_some());
                } else if round % 3 == 1 {
                    tokio::task::yield_now().await;
                }
            }
        })
    });
    finish(workers.collect()).await;
    assert_eq!(vendor.subscribed(), 0);
}

/// Waits until a job is known to be running.
async fn is_answered(subscription: &Subscription, queue: &NotificationQueue) {
    let answered = async {
        while !is_running(subscription) {
            queue.next().await;
        }
    };
    timeout(LONGEST, answered).await.expect("an answer");
}

/// Waits until nothing is in flight or being isolated, and checks that nothing is left.
async fn nothing_is_left(vendor: &TestBackend) {
    let ends = async {
        while vendor.backend.state().isolation.is_active() || vendor.backend.state().jobs.len() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONGEST, ends).await.expect("polls without subscribers are cancelled");
    assert_eq!(vendor.subscribed(), 0);
}

/// Subscribers come and go while batches with failing jobs are bisected.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn unsubscribing_while_a_batch_is_bisected_loses_no_job() {
    let upstream = FaultyVendor::with_latency(Duration::from_millis(2));
    let vendor = Arc::new(TestBackend::with_upstream(fast_plan(8), Arc::clone(&upstream) as Arc<_>));
    let workers = (0..8_usize).map(|number| {
        let (vendor, upstream) = (Arc::clone(&vendor), Arc::clone(&upstream));
        worker(async move {
            for round in 0..60_usize {
                let queue = Arc::new(NotificationQueue::default());
                // New ones each time, which are not in quarantine yet.
                let (good, bad) = (format!("good-{number}-{round}"), format!("bad-{number}-{round}"));
                upstream.fail(&bad, Failure::Reset);
                let good = subscribe_with(&vendor.backend, &good, WATCH, Arc::clone(&queue)).unwrap();
                let bad = subscribe(&vendor.backend, &bad, 0, WATCH).unwrap();
                // Leaves before the batch is polled, while it is in flight, or while its
                // parts are.
                for _ in 0..round % 4 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                if round % 2 == 0 {
                    drop(bad);
                    is_answered(&good, &queue).await;
                }
            }
        })
    });
    finish(workers.collect()).await;
    nothing_is_left(&vendor).await;
}

/// Calls leave at the moment at which the answer is published.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cancelling_while_an_answer_is_published_leaves_nothing_behind() {
    let upstream = FaultyVendor::with_latency(Duration::from_millis(1));
    let vendor = Arc::new(TestBackend::with_upstream(fast_plan(4), Arc::clone(&upstream) as Arc<_>));
    for id in 0..4 {
        upstream.end(&format!("job-{id}"));
    }
    let workers = (0..8_usize).map(|number| {
        let vendor = Arc::clone(&vendor);
        worker(async move {
            for round in 0..300_usize {
                let queue = Arc::new(NotificationQueue::default());
                // Half of the jobs are terminal.
                let id = format!("job-{}", (number + round) % 8);
                let max_age = (round % 5 == 0).then_some(SECOND / 100);
                let call = subscribe_with(&vendor.backend, &id, call(max_age), Arc::clone(&queue)).unwrap();
                let other = subscribe(&vendor.backend, &id, 1, WATCH).unwrap();
                let needs_poll = max_age.is_none() && !state(&call).is_some_and(JobState::is_terminal);
                if round % 2 == 0 && needs_poll {
                    timeout(LONGEST, queue.next()).await.expect("an answer");
                } else {
                    // As long as an answer takes.
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                drop((call, other));
            }
        })
    });
    finish(workers.collect()).await;
    nothing_is_left(&vendor).await;
}

/// Outages begin and end while jobs are subscribed to.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn jobs_subscribed_to_during_an_outage_are_answered_after_it() {
    let upstream = FaultyVendor::with_latency(Duration::from_millis(1));
    let vendor = Arc::new(TestBackend::with_upstream(fast_plan(8), Arc::clone(&upstream) as Arc<_>));
    let workers = (0..6_usize).map(|number| {
        let (vendor, upstream) = (Arc::clone(&vendor), Arc::clone(&upstream));
        worker(async move {
            let mut subscriptions = Vec::new();
            for round in 0..40_usize {
                if number == 0 {
                    upstream.set_outage((round % 2 == 0).then_some(FAILURES_OF_OUTAGE[round % 3]));
                }
                let queue = Arc::new(NotificationQueue::default());
                let id = format!("job-{}", number * 40 + round);
                let watch = subscribe_with(&vendor.backend, &id, WATCH, Arc::clone(&queue)).unwrap();
                subscriptions.push((watch, queue));
                if round % 8 == 7 {
                    subscriptions.drain(..4);
                }
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
            if number == 0 {
                upstream.set_outage(None);
            }
            for (watch, queue) in &subscriptions {
                is_answered(watch, queue).await;
            }
        })
    });
    finish(workers.collect()).await;
    nothing_is_left(&vendor).await;
}

const FAILURES_OF_OUTAGE: [Failure; 3] = [Failure::Reset, Failure::Malformed, Failure::ServerError];

fn setup(upstream: Arc<dyn Upstream>) -> BackendSetup {
    BackendSetup {
        name: "vendor".into(),
        vendor: "immuta",
        vendor_version: Arc::default(),
        check: Box::new(|_| Ok(())),
        upstream,
        plan: fast_plan(4),
        timeout: LONGEST,
        not_found_grace: Duration::ZERO,
        tracer: None,
    }
}

/// Calls and watches end at once, with an answer or for this reason.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_of_a_backend_that_is_retired_while_it_is_polled_end_at_once() {
    let limits = EngineLimits {
        watches: WatchLimits { total: 1000, per_caller: 1000, per_call: 1000 },
        memory: MemoryLimits { status_bytes: 64 << 20, inline_result_bytes: 1 << 20, jobs: 1000 },
    };
    let (engine, tasks) = Engine::new(limits, CancellationToken::new());
    let script = Script::new(Duration::from_millis(1));
    for id in 0..8 {
        script.set(&format!("job-{id}"), JobState::Running);
    }
    engine.start_backend(setup(Arc::clone(&script) as Arc<_>));
    let done = CancellationToken::new();
    let workers: Vec<JoinHandle<()>> = (0..6_usize)
        .map(|number| {
            let (engine, done) = (Arc::clone(&engine), done.clone());
            worker(async move {
                let mut round = number;
                while !done.is_cancelled() {
                    round += 1;
                    let job = job(&format!("job-{}", round % 8));
                    let began = Instant::now();
                    if round % 2 == 0 {
                        let options = GetOptions {
                            max_age: None,
                            wait: Duration::ZERO,
                            deadline: began + 2 * LONGEST,
                            parts: Parts::ALL,
                            caller: Caller::default(),
                        };
                        match timeout(LONGEST, engine.get(&job, options)).await.expect("it ends") {
                            Ok(_) | Err(CallFailure::BackendRetired | CallFailure::UnknownBackend) => {}
                            Err(failure) => panic!("{failure:?}"),
                        }
                    } else {
                        watch_until_retired(&engine, &job).await;
                    }
                }
            })
        })
        .collect();
    // The tasks of retired backends end; that is not taken for a fault.
    for _ in 0..50 {
        tokio::select! {
            () = tasks.failed() => panic!("a task ended by itself"),
            () = tokio::time::sleep(Duration::from_millis(3)) => {}
        }
        engine.start_backend(setup(Arc::clone(&script) as Arc<_>));
    }
    done.cancel();
    engine.retire_backend("vendor");
    finish(workers).await;
    assert!(engine.backends().is_empty());
    let ends = async {
        while script.in_flight() > 0 {
            tokio::select! {
                () = tasks.failed() => panic!("a task ended by itself"),
                () = tokio::task::yield_now() => {}
            }
        }
    };
    timeout(LONGEST, ends).await.expect("its polls are cancelled");
}

async fn watch_until_retired(engine: &Engine, job: &crate::job::JobRef) {
    let options = WatchOptions {
        view: View::BASIC,
        resume_token: String::new(),
        interval: None,
        heartbeat: LONGEST / 2,
        deadline: None,
    };
    match engine.watch(job, Caller::default(), &options) {
        Ok(mut watch) => loop {
            match timeout(2 * LONGEST, watch.next()).await.expect("it ends") {
                Some(Ok(_)) => {}
                Some(Err(CallFailure::BackendRetired | CallFailure::UnknownBackend)) | None => return,
                Some(Err(failure)) => panic!("{failure:?}"),
            }
        },
        Err(CallFailure::BackendRetired | CallFailure::UnknownBackend) => tokio::task::yield_now().await,
        Err(failure) => panic!("{failure:?}"),
    }
}
