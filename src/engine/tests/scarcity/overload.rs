//! More work than the vendor's rate allows.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    engine::{
        Health, PollPlan, Purpose, Refusal, Subscription,
        tests::{
            script::Call,
            test_backend::*,
            vendor_with_failing_jobs::{FAILURES, FaultyVendor},
        },
    },
    job::FaultKind,
};

fn vendor_with_rate(rate: u32) -> (Arc<FaultyVendor>, TestBackend) {
    let upstream = FaultyVendor::new();
    let plan = PollPlan { requests_per_second: per_second(rate), ..plan(1) };
    let vendor = TestBackend::with_upstream(plan, Arc::clone(&upstream) as Arc<_>);
    (upstream, vendor)
}

fn call_until(deadline: Duration) -> Purpose {
    Purpose::Call { max_age: None, deadline: Instant::now() + deadline }
}

/// The waits between two polls of the same job, in order.
fn intervals(calls: &[Call]) -> Vec<Duration> {
    let mut last: HashMap<&str, Instant> = HashMap::new();
    let mut intervals = Vec::new();
    for call in calls {
        for id in &call.ids {
            if let Some(before) = last.insert(id, call.at) {
                intervals.push(call.at - before);
            }
        }
    }
    intervals.sort_unstable();
    intervals
}

/// Waits for the answer to a call. Returns how long that took.
async fn answered(call: &Subscription, within: Duration) -> Option<Duration> {
    let began = Instant::now();
    while call.look(|record| record.last_answer) == 0 {
        if began.elapsed() > within {
            return None;
        }
        pass(SECOND / 100).await;
    }
    Some(began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn more_jobs_than_the_rate_allows_are_polled_equally_often() {
    let (upstream, vendor) = vendor_with_rate(20);
    let watches = vendor.watch_all(&ids(1000));
    pass(300 * SECOND).await;
    assert!(watches.iter().all(is_running));
    assert_eq!(vendor.health(), Health::Degraded, "the lag exceeds the longest interval");
    upstream.forget_calls();
    pass(600 * SECOND).await;
    let calls = upstream.calls();
    assert!(calls.len() >= 600 * 20 - 20, "the rate is used: {} requests", calls.len());
    let intervals = intervals(&calls);
    let (median, longest) = (intervals[intervals.len() / 2], intervals[intervals.len() - 1]);
    assert!(longest < median * 3 / 2, "median {median:?}, longest {longest:?}");
    assert!((45..=55).contains(&median.as_secs()), "jobs / rate: {median:?}");
}

#[tokio::test(start_paused = true)]
async fn many_watches_of_one_caller_do_not_delay_another_callers_watch() {
    let (upstream, vendor) = vendor_with_rate(20);
    let _many: Vec<Subscription> =
        ids(3000).iter().map(|id| subscribe(&vendor.backend, id, 1, WATCH).unwrap()).collect();
    pass(400 * SECOND).await;
    let single = subscribe(&vendor.backend, "single", 2, WATCH).unwrap();
    let first = answered(&single, 60 * SECOND).await.unwrap();
    assert!(first <= SECOND, "the first status took {first:?}");
    upstream.forget_calls();
    pass(600 * SECOND).await;
    let polls: Vec<Instant> =
        upstream.calls().iter().filter(|call| call.ids[0] == "single").map(|call| call.at).collect();
    let longest = polls.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(longest <= 12 * SECOND, "{longest:?} where the longest interval is 10 s");
}

#[tokio::test(start_paused = true)]
async fn waiting_calls_take_at_most_four_fifths_while_repolls_are_overdue() {
    let (upstream, vendor) = vendor_with_rate(20);
    let watched = ids(1000);
    let _watches = vendor.watch_all(&watched);
    pass(300 * SECOND).await;
    upstream.forget_calls();
    // One caller keeps two hundred calls waiting.
    let began = Instant::now();
    let mut calls: Vec<Subscription> = Vec::new();
    let mut next = 0;
    while began.elapsed() < 120 * SECOND {
        calls.retain(|call| call.look(|record| record.last_answer) == 0);
        while calls.len() < 200 {
            next += 1;
            match subscribe(&vendor.backend, &format!("other-{next}"), 7, call_until(60 * SECOND)) {
                Ok(call) => calls.push(call),
                Err(Refusal::Overloaded { .. }) => break,
                Err(refusal) => panic!("{refusal:?}"),
            }
        }
        pass(SECOND / 20).await;
    }
    let sent = upstream.calls();
    let repolls: Vec<bool> = sent.iter().map(|call| call.ids[0].starts_with("job-")).collect();
    let share = |polls: &[bool]| polls.iter().filter(|repoll| **repoll).count();
    assert!(sent.len() >= 120 * 20 - 20);
    for hundred in repolls.windows(100) {
        assert!(share(hundred) >= 20, "a fifth of {} for re-polls", hundred.len());
    }
    assert!(share(&repolls) <= sent.len() / 4, "calls come first: {} of {}", share(&repolls), sent.len());
}

#[tokio::test(start_paused = true)]
async fn call_beside_overdue_repolls_is_answered_within_its_deadline() {
    for (rate, jobs, deadline) in [(20, 1000, 10), (1, 100, 10), (1, 1000, 10)] {
        let (_, vendor) = vendor_with_rate(rate);
        let _watches = vendor.watch_all(&ids(jobs));
        pass(SECOND * (2 * u32::try_from(jobs).unwrap() / rate + 60)).await;
        for round in 0..20 {
            let call =
                subscribe(&vendor.backend, &format!("other-{round}"), 2, call_until(SECOND * deadline))
                    .unwrap();
            let took = answered(&call, SECOND * deadline).await;
            assert!(took.is_some(), "rate {rate}, {jobs} jobs, round {round}");
            pass(SECOND * 3).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn call_beside_first_statuses_of_many_watches_is_answered_within_its_deadline() {
    for rate in [20, 2] {
        let (_, vendor) = vendor_with_rate(rate);
        let _watches: Vec<Subscription> =
            ids(1000).iter().map(|id| subscribe(&vendor.backend, id, 1, WATCH).unwrap()).collect();
        pass(SECOND).await;
        let call = subscribe(&vendor.backend, "other", 2, call_until(10 * SECOND)).unwrap();
        assert!(answered(&call, 10 * SECOND).await.is_some(), "rate {rate}");
    }
}

#[tokio::test(start_paused = true)]
async fn calls_beyond_capacity_are_refused_and_others_are_answered_in_time() {
    for (rate, watched) in [(20, 0), (20, 1000), (5, 200)] {
        let (_, vendor) = vendor_with_rate(rate);
        let _watches = vendor.watch_all(&ids(watched));
        pass(300 * SECOND).await;
        let (mut admitted, mut refused) = (Vec::new(), 0);
        let deadline = 12 * SECOND;
        for number in 0..1000 {
            match subscribe(&vendor.backend, &format!("greedy-{number}"), 1, call_until(deadline)) {
                Ok(call) => admitted.push(call),
                Err(Refusal::Overloaded { retry_in }) => {
                    assert!(retry_in >= SECOND, "{retry_in:?}");
                    refused += 1;
                }
                Err(refusal) => panic!("{refusal:?}"),
            }
        }
        let capacity = 12 * rate as usize;
        assert!(admitted.len() <= capacity + 1, "{} admitted of {capacity}", admitted.len());
        assert!(admitted.len() >= capacity * 3 / 4, "{} admitted of {capacity}", admitted.len());
        assert_eq!(admitted.len() + refused, 1000);
        // Another caller has its turn at once.
        let began = Instant::now();
        let other = subscribe(&vendor.backend, "other", 2, call_until(2 * SECOND)).unwrap();
        let took = answered(&other, 2 * SECOND).await;
        assert!(took.is_some(), "rate {rate}, {watched} watched");
        // A call that is answered leaves.
        let count = admitted.len();
        while began.elapsed() + SECOND / 100 < deadline {
            admitted.retain(|call| call.look(|record| record.last_answer) == 0);
            pass(SECOND / 100).await;
        }
        let late = admitted.len();
        // The other caller took one turn; the rest is what a second of the rate is short of
        // an even distribution.
        assert!(late <= 1 + rate as usize, "rate {rate}, {watched} watched: {late} of {count} are late");
        vendor.backend.check();
    }
}

#[tokio::test(start_paused = true)]
async fn up_to_three_jobs_that_always_fail_do_not_keep_calls_from_their_answers() {
    for failure in FAILURES {
        for failing in 1..=3 {
            let upstream = FaultyVendor::new();
            let plan = PollPlan { requests_per_second: per_second(20), ..plan(1) };
            let vendor = TestBackend::with_upstream(plan, Arc::clone(&upstream) as Arc<_>);
            let bad: Vec<String> = (0..failing).map(|number| format!("bad-{number}")).collect();
            for id in &bad {
                upstream.fail(id, failure);
            }
            let watches = vendor.watch_all(&bad);
            for round in 0..60 {
                let call =
                    subscribe(&vendor.backend, &format!("good-{round}"), 2, call_until(5 * SECOND)).unwrap();
                let took = answered(&call, 5 * SECOND).await;
                assert!(took.is_some(), "{failure:?}, {failing} failing, round {round}");
                drop(call);
                pass(7 * SECOND).await;
            }
            assert!(watches.iter().all(is_interrupted));
            assert_eq!(vendor.report().quarantined_jobs, failing);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_slow_response_does_not_make_an_idle_backend_refuse_calls() {
    let vendor = TestBackend::new(1);
    vendor.running(3);
    vendor.script.set_latency(30 * SECOND);
    let slow = vendor.call("job-0000");
    pass(31 * SECOND).await;
    assert!(is_running(&slow));
    drop(slow);
    vendor.script.set_latency(LATENCY);
    pass(3600 * SECOND).await;
    for id in ["job-0001", "job-0002"] {
        let call = subscribe(&vendor.backend, id, 0, call_until(5 * SECOND)).expect("nothing else is queued");
        pass(SECOND).await;
        assert!(is_running(&call));
    }
}

#[tokio::test(start_paused = true)]
async fn calls_for_new_jobs_at_a_backend_that_refuses_all_are_answered_in_time() {
    let vendor = TestBackend::with_plan(PollPlan { requests_per_second: per_second(20), ..plan(1) });
    vendor.script.fail(FaultKind::Forbidden);
    let watches = vendor.watch_all(&vendor.running(20));
    pass(60 * SECOND).await;
    assert!(watches.iter().all(is_interrupted));
    let ids: Vec<String> = (0..200).map(|number| format!("new-{number}")).collect();
    let call = |id: &String| subscribe(&vendor.backend, id, 0, call_until(5 * SECOND)).unwrap();
    let calls: Vec<Subscription> = ids.iter().map(call).collect();
    pass(5 * SECOND).await;
    let answered = calls.iter().filter(|call| call.paused().is_some() || is_interrupted(call)).count();
    // The probes between two pauses take the turns of some.
    assert!(answered >= 190, "{answered}");
}
