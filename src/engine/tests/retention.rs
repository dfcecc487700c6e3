//! Jobs without subscribers that a call with a `max_age` has left behind.

use std::time::Duration;

use tokio::time::Instant;

use super::test_backend::*;
use crate::{
    engine::Subscription,
    job::{FaultKind, JobState},
};

const MAX_AGE: Duration = Duration::from_secs(10);

impl TestBackend {
    /// A call with a `max_age`. Returns its answer.
    async fn get(&self, id: &str, max_age: Duration) -> Option<JobState> {
        if let Some(latest) = self.backend.recent(&job(id), max_age) {
            return Some(latest.snapshot.state);
        }
        let purpose = call(Some(max_age));
        let call = subscribe(&self.backend, id, 0, purpose).unwrap();
        let polls = call.record().polls;
        while call.record().polls == polls {
            pass(LATENCY).await;
        }
        self.backend.check();
        state(&call)
    }
}

#[tokio::test(start_paused = true)]
async fn status_is_retained_for_twice_its_max_age_and_costs_no_poll() {
    let vendor = TestBackend::new(200);
    vendor.running(1);
    assert_eq!(vendor.get("job-0000", MAX_AGE).await, Some(JobState::Running));
    assert_eq!(vendor.subscribed(), 0);
    vendor.script.forget_calls();
    pass(MAX_AGE * 19 / 10).await;
    assert_eq!(vendor.known("job-0000"), Some(JobState::Running));
    assert_eq!(vendor.get("job-0000", MAX_AGE / 10).await, Some(JobState::Running));
    assert_eq!(vendor.script.calls().len(), 1, "too old for this one");
    pass(20 * MAX_AGE).await;
    assert_eq!(vendor.known("job-0000"), None);
    assert_eq!(vendor.script.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn short_retention_expires_beside_longer_ones() {
    let vendor = TestBackend::new(200);
    vendor.running(3);
    vendor.get("job-0000", 10 * MAX_AGE).await;
    vendor.get("job-0001", MAX_AGE).await;
    pass(2 * MAX_AGE + SECOND).await;
    vendor.backend.check();
    assert!(vendor.known("job-0000").is_some());
    assert_eq!(vendor.known("job-0001"), None);
}

#[tokio::test(start_paused = true)]
async fn retained_jobs_are_refreshed_by_polls_that_are_sent_anyway() {
    let vendor = TestBackend::new(200);
    vendor.running(3);
    let _watch = vendor.watch("job-0002");
    vendor.get("job-0000", MAX_AGE).await;
    vendor.get("job-0001", MAX_AGE).await;
    vendor.script.set("job-0001", JobState::Succeeded);
    pass(MAX_AGE).await;
    assert_eq!(vendor.subscribed(), 1);
    vendor.script.forget_calls();
    vendor.script.set("job-0000", JobState::Retrying);
    assert_eq!(vendor.get("job-0000", MAX_AGE).await, Some(JobState::Running), "refreshed meanwhile");
    assert!(vendor.script.calls().is_empty());
    assert_eq!(vendor.known("job-0001"), None, "it has ended: its status is in the terminal-status cache");
}

#[tokio::test(start_paused = true)]
async fn refreshed_jobs_have_no_subscribers_and_do_not_keep_a_poll_in_flight() {
    let vendor = TestBackend::new(200);
    vendor.running(3);
    for id in ["job-0000", "job-0001"] {
        vendor.get(id, MAX_AGE).await;
    }
    pass(MAX_AGE / 2 + SECOND).await;
    vendor.script.forget_calls();
    let watch = vendor.watch("job-0002");
    pass(LATENCY / 2).await;
    assert_eq!(vendor.script.calls()[0].ids.len(), 3);
    assert_eq!(vendor.subscribed(), 1);
    drop(watch);
    pass(LATENCY / 10).await;
    assert_eq!((vendor.script.in_flight(), vendor.subscribed()), (0, 0));
    assert_eq!(vendor.known("job-0000"), Some(JobState::Running), "what was known still is");
}

#[tokio::test(start_paused = true)]
async fn subscriber_of_a_job_that_is_being_refreshed_is_shown_its_new_status() {
    for leaves in [false, true] {
        for is_call in [false, true] {
            let vendor = TestBackend::new(200);
            vendor.running(2);
            vendor.get("job-0000", MAX_AGE).await;
            pass(MAX_AGE).await;
            let watch = vendor.watch("job-0001");
            pass(LATENCY / 2).await;
            vendor.script.set("job-0000", JobState::Retrying);
            // The last subscriber of the poll leaves just before.
            let watch = (!leaves).then_some(watch);
            let other = if is_call { vendor.call("job-0000") } else { vendor.watch("job-0000") };
            vendor.backend.check();
            pass(4 * LATENCY).await;
            assert_eq!(state(&other), Some(JobState::Retrying), "leaves {leaves}, is_call {is_call}");
            assert_eq!(vendor.subscribed(), 1 + usize::from(watch.is_some()));
            drop(other);
            assert_eq!(vendor.subscribed(), usize::from(watch.is_some()));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn call_for_a_job_that_is_being_refreshed_keeps_the_poll_in_flight() {
    let vendor = TestBackend::new(200);
    vendor.running(2);
    vendor.get("job-0000", MAX_AGE).await;
    pass(MAX_AGE).await;
    vendor.script.forget_calls();
    let first = vendor.watch("job-0001");
    pass(LATENCY / 2).await;
    let second = vendor.call("job-0000");
    drop(first);
    pass(LATENCY).await;
    assert_eq!(second.record().last_answer, 2);
    assert_eq!(vendor.script.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn refreshed_job_that_makes_a_poll_fail_is_forgotten_and_harms_nobody() {
    for poison in [true, false] {
        let vendor = TestBackend::new(200);
        vendor.running(5);
        for id in ["job-0000", "job-0001"] {
            vendor.get(id, MAX_AGE).await;
        }
        pass(MAX_AGE).await;
        if poison {
            vendor.script.poison("job-0001");
        } else {
            vendor.script.fail(FaultKind::TooLarge);
        }
        vendor.script.forget_calls();
        let watches: Vec<Subscription> = ["job-0002", "job-0003"].iter().map(|id| vendor.watch(id)).collect();
        pass(LATENCY * 3 / 2).await;
        vendor.script.recover();
        // After an outage the vendor is probed when the back-off is over.
        pass(5 * SECOND).await;
        assert!(watches.iter().all(is_running), "poison {poison}");
        assert_eq!(vendor.subscribed(), 2);
        assert_eq!(vendor.known("job-0001"), None, "it is not polled again");
        vendor.script.forget_calls();
        pass(2 * SECOND).await;
        assert!(vendor.script.calls().iter().all(|call| call.ids.len() == 2), "{:?}", vendor.script.calls());
    }
}

#[tokio::test(start_paused = true)]
async fn outage_neither_interrupts_retained_jobs_nor_loses_them() {
    let vendor = TestBackend::new(200);
    vendor.running(2);
    vendor.get("job-0000", MAX_AGE).await;
    pass(MAX_AGE * 3 / 4).await;
    vendor.script.fail(FaultKind::Unreachable { why: "refused".into() });
    let _watch = vendor.watch("job-0001");
    pass(LATENCY * 2).await;
    assert_eq!(vendor.script.calls().last().unwrap().ids.len(), 2, "it was refreshed");
    assert_eq!(vendor.get("job-0000", MAX_AGE).await, Some(JobState::Running), "it is fresh enough");
    let get = vendor.call("job-0000");
    pass(LATENCY * 2).await;
    drop(get);
    vendor.backend.check();
    assert_eq!(vendor.get("job-0000", MAX_AGE).await, Some(JobState::Running), "and still is");
    pass(3 * MAX_AGE).await;
    assert_eq!(vendor.known("job-0000"), None);
    vendor.backend.check();
}

#[tokio::test(start_paused = true)]
async fn panic_forgets_refreshed_jobs_and_interrupts_nobody() {
    let vendor = TestBackend::new(200);
    vendor.running(2);
    vendor.get("job-0000", MAX_AGE).await;
    pass(MAX_AGE).await;
    vendor.script.panics(true);
    let _watch = vendor.watch("job-0001");
    pass(LATENCY * 2).await;
    vendor.script.panics(false);
    assert_eq!((vendor.subscribed(), vendor.known("job-0000")), (1, None));
    assert_eq!(vendor.get("job-0000", MAX_AGE).await, Some(JobState::Running));
}

#[tokio::test(start_paused = true)]
async fn retained_job_does_not_hide_that_a_backend_refuses_everything() {
    let vendor = TestBackend::new(1);
    let ids = vendor.running(60);
    vendor.get(&ids[59], 30 * MAX_AGE).await;
    vendor.script.fail(FaultKind::Rejected { message: "wrong endpoint".into() });
    let _watches = vendor.watch_all(&ids[..50]);
    pass(60 * SECOND).await;
    vendor.script.forget_calls();
    pass(60 * SECOND).await;
    // One request a back-off, not one for each job.
    assert!(vendor.script.calls().len() < 60, "{}", vendor.script.calls().len());
}

#[tokio::test(start_paused = true)]
async fn failing_jobs_of_one_caller_do_not_delay_a_call_for_a_retained_one() {
    let vendor = TestBackend::new(1);
    let ids = vendor.running(60);
    vendor.get(&ids[59], 30 * MAX_AGE).await;
    for id in &ids[..50] {
        vendor.script.poison(id);
    }
    let _bad = vendor.watch_all(&ids[..50]);
    for _ in 0..20 {
        pass(20 * SECOND).await;
        if vendor.backend.paused(Instant::now()).is_some() {
            break;
        }
    }
    assert!(vendor.backend.paused(Instant::now()).is_some(), "the backend is paused because it refused jobs");
    let good = vendor.call(&ids[59]);
    assert!(good.paused().is_none());
    let answered = good.record().last_answer;
    pass(5 * SECOND).await;
    assert!(good.record().last_answer > answered, "{:?}", good.record());
}

#[tokio::test(start_paused = true)]
async fn last_watch_that_ends_leaves_what_calls_retain() {
    let vendor = TestBackend::new(200);
    vendor.running(1);
    let watch = vendor.watch("job-0000");
    pass(SECOND / 2).await;
    vendor.get("job-0000", MAX_AGE).await;
    drop(watch);
    vendor.script.forget_calls();
    assert_eq!(vendor.get("job-0000", MAX_AGE).await, Some(JobState::Running));
    drop(vendor.call("job-0000"));
    assert_eq!(vendor.get("job-0000", MAX_AGE).await, Some(JobState::Running));
    assert!(vendor.script.calls().is_empty());
    pass(20 * MAX_AGE).await;
    assert_eq!((vendor.subscribed(), vendor.known("job-0000")), (0, None));
    drop(vendor.watch("job-0000"));
    assert_eq!(vendor.known("job-0000"), None, "a call of long ago retains nothing");
}

#[tokio::test(start_paused = true)]
async fn bytes_of_retained_jobs_are_bounded() {
    let vendor = TestBackend::new(200);
    let payload = "x".repeat(4 << 20);
    let ids: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    for id in &ids {
        vendor.script.set_payload(id, JobState::Running, &payload);
        vendor.get(id, MAX_AGE).await;
        pass(SECOND / 100).await;
    }
    vendor.backend.check();
    let retained: Vec<bool> = ids.iter().map(|id| vendor.known(id).is_some()).collect();
    assert_eq!(
        retained.iter().filter(|retained| **retained).count(),
        15,
        "of 4 MiB and a little more, in 64 MiB"
    );
    assert!(retained.is_sorted(), "the oldest calls' jobs are evicted first");
}
