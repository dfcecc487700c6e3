//! Jobs that make batches fail, and backends that refuse everything.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::time::Instant;

use super::{
    script::response,
    test_backend::*,
    vendor_with_failing_jobs::{Failure, FaultyVendor},
};
use crate::{
    engine::{Health, PollOutcome, PollPlan, Subscription},
    job::{BackendFault, FaultKind, JobRef, JobState, Observation},
    transport::{Permit, PollResponse, Upstream},
};

fn wrong_endpoint() -> BackendFault {
    FaultKind::Rejected { message: "wrong endpoint".into() }.into()
}

#[tokio::test(start_paused = true)]
async fn batch_with_one_failing_job_is_bisected() {
    let vendor = TestBackend::new(200);
    let ids = vendor.running(100);
    vendor.script.poison("job-0042");
    let watches = vendor.watch_all(&ids);
    pass(2 * SECOND).await;
    for (id, watch) in ids.iter().zip(&watches) {
        if id == "job-0042" {
            assert!(is_interrupted(watch));
        } else {
            assert_eq!(state(watch), Some(JobState::Running), "{id}");
        }
    }
    let extra = vendor.script.calls().len();
    // Bisecting, two intervals, and two polls of the quarantined job.
    assert!(extra <= 2 * 7 + 4 + 4, "{extra} requests");
    assert_eq!(vendor.report().quarantined_jobs, 1);
    vendor.script.forget_calls();
    pass(60 * SECOND).await;
    for call in vendor.script.calls() {
        let is_failing = call.ids.iter().any(|id| id == "job-0042");
        assert!(call.ids.len() == 1 || !is_failing, "it stays out of batches");
    }
    let batches = vendor.script.calls().iter().filter(|call| call.ids.len() > 1).count();
    vendor.script.forget_calls();
    pass(60 * SECOND).await;
    assert!(batches <= 40, "{batches} batches in a minute");
    assert!(vendor.script.calls().iter().any(|call| call.ids.len() == 99), "the others share batches");
}

#[tokio::test(start_paused = true)]
async fn several_failing_jobs_are_each_quarantined() {
    let vendor = TestBackend::new(200);
    let ids = vendor.running(50);
    let failing = ["job-0010", "job-0011", "job-0012", "job-0013", "job-0049"];
    for id in failing {
        vendor.script.poison(id);
    }
    let watches = vendor.watch_all(&ids);
    pass(120 * SECOND).await;
    for (id, watch) in ids.iter().zip(&watches) {
        let expected = (!failing.contains(&id.as_str())).then_some(JobState::Running);
        assert_eq!(state(watch), expected, "{id}");
    }
    assert_eq!(vendor.report().quarantined_jobs, failing.len());
}

#[tokio::test(start_paused = true)]
async fn backend_that_refuses_everything_is_not_polled_for_each_job() {
    let vendor = TestBackend::new(200);
    let watches = vendor.watch_all(&vendor.running(200));
    vendor.script.fail(wrong_endpoint());
    pass(10 * SECOND).await;
    assert!(watches.iter().all(is_interrupted));
    assert!(vendor.script.calls().len() < 60, "{} requests", vendor.script.calls().len());
    vendor.script.recover();
    pass(120 * SECOND).await;
    assert!(watches.iter().all(is_running));
}

#[tokio::test(start_paused = true)]
async fn one_job_that_always_fails_does_not_pause_the_backend() {
    let vendor = TestBackend::new(1);
    vendor.script.poison("bad");
    let _bad = vendor.watch("bad");
    pass(300 * SECOND).await;
    vendor.script.set("good", JobState::Running);
    let good = vendor.watch("good");
    assert!(good.paused().is_none());
    pass(2 * LATENCY).await;
    assert!(is_running(&good));
}

#[tokio::test(start_paused = true)]
async fn failing_jobs_that_come_first_do_not_starve_the_others() {
    for failing in [3, 20] {
        let vendor = TestBackend::new(200);
        let ids = vendor.running(50);
        for id in &ids[..failing] {
            vendor.script.poison(id);
        }
        let watches = vendor.watch_all(&ids);
        pass(120 * SECOND).await;
        let answered = watches[failing..].iter().filter(|watch| state(watch).is_some()).count();
        assert_eq!(answered, 50 - failing, "after two minutes");
    }
}

#[tokio::test(start_paused = true)]
async fn backend_that_refuses_everything_is_only_probed() {
    for max_batch in [1, 200] {
        let vendor = TestBackend::new(max_batch);
        let watches = vendor.watch_all(&vendor.running(50));
        vendor.script.fail(wrong_endpoint());
        pass(300 * SECOND).await;
        assert_eq!(vendor.health(), Health::Unavailable);
        vendor.script.forget_calls();
        pass(300 * SECOND).await;
        let calls = vendor.script.calls();
        assert!(calls.len() <= 40, "{} requests in 300 s", calls.len());
        assert!(calls.iter().all(|call| call.ids.len() == 1), "a probe is one job");
        vendor.script.recover();
        pass(62 * SECOND).await;
        assert!(watches.iter().all(is_running));
    }
}

#[tokio::test(start_paused = true)]
async fn failing_jobs_of_one_caller_do_not_delay_another_callers_job() {
    let vendor = TestBackend::new(1);
    let ids = vendor.running(40);
    for id in &ids {
        vendor.script.poison(id);
    }
    let _bad = vendor.watch_all(&ids);
    pass(120 * SECOND).await;
    vendor.script.set("good", JobState::Running);
    let good = vendor.watch("good");
    pass(2 * SECOND).await;
    assert!(is_running(&good));
    vendor.script.set("good", JobState::Succeeded);
    pass(31 * SECOND).await;
    assert_eq!(state(&good), Some(JobState::Succeeded));
}

#[tokio::test(start_paused = true)]
async fn part_of_a_failed_batch_is_cancelled_when_its_last_subscriber_leaves() {
    let vendor = TestBackend::new(2);
    vendor.running(2);
    vendor.script.poison("job-0001");
    let (first, second) = (vendor.watch("job-0000"), vendor.watch("job-0001"));
    pass(LATENCY * 3 / 2).await;
    let calls = vendor.script.calls();
    assert_eq!((calls.len(), vendor.script.in_flight()), (3, 2), "the batch, then each job");
    let (left, right) = if calls[1].ids[0] == "job-0000" { (first, second) } else { (second, first) };
    drop(left);
    pass(LATENCY / 10).await;
    vendor.backend.check();
    assert!(vendor.script.calls().len() <= 3);
    drop(right);
    pass(LATENCY / 10).await;
    assert_eq!((vendor.script.in_flight(), vendor.subscribed()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn cancelled_part_of_a_failed_batch_leaves_the_other_parts() {
    for leaves in [0, 1] {
        let vendor = TestBackend::new(2);
        vendor.running(2);
        vendor.script.poison("job-0000");
        let mut watches = vec![vendor.watch("job-0000"), vendor.watch("job-0001")];
        pass(LATENCY * 3 / 2 + LATENCY / 5).await;
        assert_eq!((vendor.script.calls().len(), vendor.script.in_flight()), (3, 2));
        drop(watches.remove(leaves));
        vendor.backend.check();
        pass(4 * SECOND).await;
        if leaves == 0 {
            assert!(is_running(&watches[0]), "{:?}", vendor.script.calls());
        } else {
            assert!(is_interrupted(&watches[0]));
        }
        assert_eq!(vendor.subscribed(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn jobs_share_batches_again_after_short_outages() {
    let vendor = TestBackend::new(200);
    let watches = vendor.watch_all(&vendor.running(60));
    for _ in 0..20 {
        pass(20 * SECOND).await;
        vendor.script.fail(FaultKind::Malformed { why: "HTML" });
        pass(11 * SECOND).await;
        vendor.script.recover();
    }
    pass(120 * SECOND).await;
    assert!(watches.iter().all(is_observed));
    vendor.script.forget_calls();
    pass(100 * SECOND).await;
    assert!(vendor.script.calls().len() <= 20, "{} requests", vendor.script.calls().len());
}

/// Answers that hold at most fifty jobs.
struct AtMostFifty(AtomicUsize);

impl Upstream for AtMostFifty {
    fn poll<'a>(
        &'a self,
        jobs: &'a [JobRef],
        _: Permit,
    ) -> BoxFuture<'a, Result<PollResponse, BackendFault>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            if jobs.len() > 50 {
                return Err(FaultKind::TooLarge.into());
            }
            Ok(response(jobs, |_| Ok(Observation::new(JobState::Running, "r"))))
        })
    }
}

#[tokio::test(start_paused = true)]
async fn batch_that_was_too_large_is_not_repeated() {
    let upstream = Arc::new(AtMostFifty(0.into()));
    let vendor = TestBackend::with_upstream(plan(200), Arc::clone(&upstream) as Arc<_>);
    let watches = vendor.watch_all(&vendor.running(200));
    pass(100 * SECOND).await;
    assert!(watches.iter().all(is_running));
    upstream.0.store(0, Ordering::Relaxed);
    pass(100 * SECOND).await;
    let calls = upstream.0.load(Ordering::Relaxed);
    assert!(calls <= 50, "{calls} requests in ten intervals; four would do in each");
}

/// Refuses every job in words that name it.
struct NamesJobs;

impl Upstream for NamesJobs {
    fn poll<'a>(
        &'a self,
        jobs: &'a [JobRef],
        _: Permit,
    ) -> BoxFuture<'a, Result<PollResponse, BackendFault>> {
        Box::pin(async move {
            pass(LATENCY).await;
            Err(FaultKind::Rejected { message: format!("{} is wrong", jobs[0].id) }.into())
        })
    }
}

#[tokio::test(start_paused = true)]
async fn vendors_words_about_one_job_reach_its_own_subscribers_alone() {
    for max_batch in [1, 8] {
        let vendor = TestBackend::with_upstream(plan(max_batch), Arc::new(NamesJobs));
        let ids = vendor.running(40);
        let watches = vendor.watch_all(&ids);
        let mut named = BTreeSet::new();
        for _ in 0..300 {
            pass(SECOND).await;
            for (id, watch) in ids.iter().zip(&watches) {
                let PollOutcome::Interrupted(interruption) = outcome(watch) else { continue };
                let FaultKind::Rejected { message } = &interruption.fault.kind else { panic!() };
                if message.is_empty() {
                    assert!(!named.contains(id), "{id} keeps its words");
                    assert_eq!(interruption.fault.to_string(), "the vendor refuses the request");
                } else {
                    assert_eq!(*message, format!("{id} is wrong"));
                    named.insert(id);
                }
            }
            assert!(vendor.report().last_fault.is_none_or(|fault| !fault.to_string().contains("job-")));
        }
        if max_batch == 1 {
            assert!(named.len() >= 3, "{named:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn failing_job_that_is_called_for_again_and_again_delays_nobody() {
    let vendor = TestBackend::new(1);
    vendor.script.set("good", JobState::Running);
    vendor.script.poison("bad");
    let good = vendor.watch("good");
    pass(200 * SECOND).await;
    // A client that calls GetJobStatus until it has an answer.
    let get = async || {
        let bad = vendor.watch("bad");
        while bad.record().polls == 0 {
            pass(LATENCY).await;
        }
        drop(bad);
        pass(SECOND / 2).await;
    };
    for _ in 0..40 {
        get().await;
    }
    vendor.script.set("good", JobState::Succeeded);
    let ended = Instant::now();
    while state(&good) != Some(JobState::Succeeded) {
        get().await;
        assert!(ended.elapsed() < 12 * SECOND, "not known after {:?}", ended.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn job_that_was_never_polled_is_polled_though_all_others_fail() {
    let vendor = TestBackend::new(200);
    let ids = vendor.running(60);
    for id in &ids {
        vendor.script.poison(id);
    }
    let _bad = vendor.watch_all(&ids[..40]);
    pass(120 * SECOND).await;
    vendor.script.set("job-9", JobState::Running);
    let _more = vendor.watch_all(&ids[40..]);
    let good = vendor.watch("job-9");
    let began = Instant::now();
    while state(&good).is_none() && began.elapsed() < 3600 * SECOND {
        pass(LATENCY).await;
    }
    assert!(began.elapsed() <= 5 * SECOND, "answered after {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_during_a_requested_wait_beside_failing_jobs() {
    let (mut sent, mut tried) = (0, 0);
    for _ in 0..40 {
        let vendor = TestBackend::new(1);
        let _bad = vendor.watch_all(&vendor.running(80));
        vendor.script.fail(wrong_endpoint());
        pass(300 * SECOND).await;
        vendor.script.fail(BackendFault::from(FaultKind::Throttled).with_retry_after(Some(4 * SECOND)));
        let mut watches = vec![vendor.watch("new")];
        pass(SECOND / 2).await;
        let is_throttled = matches!(outcome(&watches[0]), PollOutcome::Interrupted(interruption)
            if matches!(interruption.fault.kind, FaultKind::Throttled));
        if !is_throttled {
            continue;
        }
        tried += 1;
        vendor.script.forget_calls();
        for round in 0..3 {
            watches.push(vendor.watch(&format!("new-{round}")));
            pass(SECOND).await;
        }
        sent += vendor.script.calls().len();
    }
    assert!(tried > 0);
    assert_eq!(sent, 0, "requests during Retry-After, in {tried} times 3 s");
}

#[tokio::test(start_paused = true)]
async fn failures_of_other_jobs_do_not_interrupt_a_job_that_is_answered() {
    let vendor = TestBackend::new(1);
    vendor.script.set("good", JobState::Running);
    let good = vendor.watch("good");
    pass(200 * SECOND).await;
    for round in 0..60 {
        let id = format!("bad-{round}");
        vendor.script.poison(&id);
        let bad = vendor.watch(&id);
        pass(SECOND / 2).await;
        drop(bad);
    }
    assert_eq!(outcome(&good), PollOutcome::Observed, "bad-* failed, good never did");
}

#[tokio::test(start_paused = true)]
async fn permit_without_a_batch_to_send_is_released() {
    let plan = PollPlan { requests_per_second: per_second(20), ..plan(4) };
    let vendor = TestBackend::with_plan(plan);
    let limiter = Arc::clone(vendor.backend.rate_limiter());
    let mut watches: Vec<Subscription> = Vec::new();
    for (at, id) in vendor.running(4).iter().enumerate() {
        watches.push(vendor.watch_every(id, (at == 2).then_some(3 * SECOND)));
        for _ in 0..70 {
            pass(SECOND / 10 + LATENCY / 7).await;
            let now = Instant::now();
            let sent = vendor.script.calls().iter().filter(|call| call.at + SECOND > now).count();
            let free: Vec<_> = std::iter::from_fn(|| limiter.acquire().now_or_never()).collect();
            assert_eq!(free.len(), 20 - sent, "permits that are left");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn suspect_is_polled_again_when_the_other_jobs_of_its_batch_are_cancelled() {
    let faulty = FaultyVendor::new();
    for (id, failure) in
        [("job-0000", Failure::ServerError), ("job-0001", Failure::Hang), ("job-0002", Failure::ServerError)]
    {
        faulty.fail(id, failure);
    }
    let vendor = TestBackend::with_upstream(plan(200), Arc::clone(&faulty) as _);
    let mut watches = vendor.watch_all(&ids(3));
    pass(SECOND).await;
    let suspect = watches.pop().unwrap();
    assert_eq!(faulty.calls().len(), 3, "the batch, the suspect, and a job that hangs");
    drop(watches);
    faulty.forget_calls();
    pass(60 * SECOND).await;
    assert!(!faulty.calls().is_empty(), "it is polled again");
    assert!(is_interrupted(&suspect));
}

#[tokio::test(start_paused = true)]
async fn quarantined_jobs_that_hang_leave_slots_to_the_others() {
    for (slots, failing) in [(2, 6), (4, 20), (8, 40)] {
        let faulty = FaultyVendor::new();
        let plan = PollPlan { max_concurrency: nonzero(slots), ..plan(100) };
        let vendor = TestBackend::with_upstream(plan, Arc::clone(&faulty) as _);
        let ids = ids(60);
        for id in &ids[..failing] {
            faulty.fail(id, Failure::Hang);
        }
        let _watches = vendor.watch_all(&ids);
        pass(1200 * SECOND).await;
        faulty.forget_calls();
        pass(300 * SECOND).await;
        let polls = faulty.calls().iter().filter(|call| call.ids.contains(&ids[59])).count();
        assert!(polls >= 25, "{polls} polls of a healthy job in five minutes with {slots} slots");
    }
}

/// Two new jobs, one of which makes every batch fail, beside watched ones.
#[tokio::test(start_paused = true)]
async fn batch_of_new_jobs_that_fails_as_a_whole_interrupts_no_watched_job() {
    for bad in [1, 8] {
        let backend = TestBackend::new(200);
        let watches: Vec<_> = backend.running(40).iter().map(|id| backend.watch(id)).collect();
        pass(5 * SECOND).await;
        let ids: Vec<String> = (0..bad).map(|number| format!("bad-{number}")).collect();
        for id in &ids {
            backend.script.poison(id);
        }
        backend.script.set("good", JobState::Running);
        let mut calls: Vec<_> = ids.iter().map(|id| backend.call(id)).collect();
        calls.push(backend.call("good"));
        for _ in 0..40 {
            pass(SECOND / 10).await;
            assert!(watches.iter().all(|watch| outcome(watch) == PollOutcome::Observed), "{bad} bad jobs");
        }
        assert_eq!(state(&calls[bad]), Some(JobState::Running));
    }
}

/// A response without any element, whenever a certain job is in the batch.
#[tokio::test(start_paused = true)]
async fn job_that_a_short_response_leaves_out_is_polled_alone_before_it_is_gone() {
    let backend = TestBackend::new(200);
    let ids = backend.running(10);
    let watches: Vec<_> = ids.iter().map(|id| backend.watch(id)).collect();
    pass(5 * SECOND).await;
    backend.script.leave_out_all_beside("job-0000");
    pass(60 * SECOND).await;
    let missing = |watch: &Subscription| matches!(outcome(watch), PollOutcome::Missing { .. });
    assert!(!watches[1..].iter().any(missing), "they are there when they are polled alone");
    for id in &ids {
        backend.script.set(id, JobState::Succeeded);
    }
    pass(60 * SECOND).await;
    assert!(watches.iter().all(|watch| state(watch) == Some(JobState::Succeeded)));
}
