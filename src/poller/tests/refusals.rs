//! Vendors that refuse some jobs, all jobs, or too many at once.

use super::*;
use crate::poller::Health;

fn wrong_endpoint() -> BackendFault {
    FaultKind::Rejected { message: "wrong endpoint".into() }.into()
}

#[tokio::test(start_paused = true)]
async fn culprits_that_come_first_do_not_starve_the_others() {
    for culprits in [3, 20] {
        let rig = rig(200);
        let ids = rig.running(50);
        for id in &ids[..culprits] {
            rig.script.poison(id);
        }
        let follows: Vec<Follow> = ids.iter().map(|id| rig.follow(id)).collect();
        pass(120 * SECOND).await;
        let answered = follows[culprits..].iter().filter(|follow| state(follow).is_some()).count();
        assert_eq!(answered, 50 - culprits, "after two minutes");
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_refuses_everything_is_only_probed() {
    for max_batch in [1, 200] {
        let rig = rig(max_batch);
        let follows: Vec<Follow> = rig.running(50).iter().map(|id| rig.follow(id)).collect();
        rig.script.fail(wrong_endpoint());
        pass(300 * SECOND).await;
        assert_eq!(rig.roster.report(Instant::now()).health, Health::Unavailable);
        rig.script.forget_calls();
        pass(300 * SECOND).await;
        let calls = rig.script.calls();
        assert!(calls.len() <= 40, "{} requests in 300 s", calls.len());
        assert!(calls.iter().all(|call| call.ids.len() == 1), "a probe is one job");
        rig.script.come_back();
        pass(62 * SECOND).await;
        assert!(follows.iter().all(|follow| state(follow) == Some(JobState::Running)));
    }
}

#[tokio::test(start_paused = true)]
async fn refused_jobs_of_one_caller_do_not_delay_another_callers_job() {
    let rig = rig(1);
    let ids = rig.running(40);
    for id in &ids {
        rig.script.poison(id);
    }
    let _bad: Vec<Follow> = ids.iter().map(|id| rig.follow(id)).collect();
    pass(120 * SECOND).await;
    rig.script.set("good", JobState::Running);
    let good = rig.follow("good");
    pass(2 * SECOND).await;
    assert_eq!(state(&good), Some(JobState::Running));
    rig.script.set("good", JobState::Succeeded);
    pass(31 * SECOND).await;
    assert_eq!(state(&good), Some(JobState::Succeeded));
}

#[tokio::test(start_paused = true)]
async fn requests_that_fail_together_do_not_open_the_circuit() {
    for _ in 0..20 {
        let rig = rig(1);
        let follows: Vec<Follow> = rig.running(8).iter().map(|id| rig.follow(id)).collect();
        pass(SECOND / 2).await;
        rig.script.go_down();
        pass(SECOND).await;
        rig.script.come_back();
        pass(4 * SECOND).await;
        assert!(follows.iter().all(|follow| follow.news().standing == Standing::Observed));
    }
}

#[tokio::test(start_paused = true)]
async fn a_split_batch_is_given_up_too() {
    let rig = rig(2);
    rig.running(2);
    rig.script.poison("job-0001");
    let (_first, second) = (rig.follow("job-0000"), rig.follow("job-0001"));
    // Both: refused; the first: answered; the second is being asked about.
    pass(LATENCY * 5 / 2).await;
    assert_eq!((rig.script.calls().len(), rig.script.under_way()), (3, 1));
    drop(second);
    pass(LATENCY / 10).await;
    assert_eq!(rig.script.under_way(), 0);
}

#[tokio::test(start_paused = true)]
async fn jobs_share_requests_again_after_the_backend_has_stumbled() {
    let rig = rig(200);
    let follows: Vec<Follow> = rig.running(60).iter().map(|id| rig.follow(id)).collect();
    for _ in 0..20 {
        pass(20 * SECOND).await;
        rig.script.fail(FaultKind::Malformed { why: "HTML" });
        pass(11 * SECOND).await;
        rig.script.come_back();
    }
    pass(120 * SECOND).await;
    assert!(follows.iter().all(|follow| follow.news().standing == Standing::Observed));
    rig.script.forget_calls();
    pass(100 * SECOND).await;
    assert!(rig.script.calls().len() <= 20, "{} requests", rig.script.calls().len());
}

/// Has so much to say of each job that an answer holds at most fifty.
struct AtMostFifty(std::sync::atomic::AtomicUsize);

impl Upstream for AtMostFifty {
    fn poll<'a>(
        &'a self,
        jobs: &'a [JobRef],
        _: Permit,
    ) -> BoxFuture<'a, Result<PollResponse, BackendFault>> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Box::pin(async move {
            if jobs.len() > 50 {
                return Err(FaultKind::TooLarge.into());
            }
            Ok(response(jobs, |_| Ok(Observation::new(JobState::Running, "r"))))
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_was_too_large_is_not_asked_about_again_and_again() {
    let upstream = Arc::new(AtMostFifty(0.into()));
    let limits =
        Limits { concurrency: nonzero(8), throttle: RateLimiter::new(NonZeroU32::new(1000).unwrap()) };
    let rig = rig_for(Arc::clone(&upstream) as Arc<_>, 200, limits, false);
    let _follows: Vec<Follow> = rig.running(200).iter().map(|id| rig.follow(id)).collect();
    pass(100 * SECOND).await;
    upstream.0.store(0, std::sync::atomic::Ordering::Relaxed);
    pass(100 * SECOND).await;
    let calls = upstream.0.load(std::sync::atomic::Ordering::Relaxed);
    assert!(calls <= 50, "{calls} requests in ten intervals; four would do in each");
}

#[tokio::test(start_paused = true)]
async fn credentials_that_were_replaced_are_tried_at_once() {
    let rig = rig(200);
    let follows: Vec<Follow> = rig.running(20).iter().map(|id| rig.follow(id)).collect();
    rig.script.fail(FaultKind::CredentialsRejected);
    pass(300 * SECOND).await;
    assert_eq!(rig.roster.report(Instant::now()).health, Health::Unavailable);
    rig.script.come_back();
    rig.script.rotate_credentials();
    pass(2 * LATENCY).await;
    assert!(follows.iter().all(|follow| state(follow) == Some(JobState::Running)));
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
async fn what_a_vendor_says_of_one_job_is_told_to_its_own_followers_alone() {
    for max_batch in [1, 8] {
        let limits =
            Limits { concurrency: nonzero(8), throttle: RateLimiter::new(NonZeroU32::new(1000).unwrap()) };
        let rig = rig_for(Arc::new(NamesJobs), max_batch, limits, false);
        let ids = rig.running(40);
        let follows: Vec<Follow> = ids.iter().map(|id| rig.follow(id)).collect();
        let mut told = std::collections::BTreeSet::new();
        for _ in 0..300 {
            pass(SECOND).await;
            for (id, follow) in ids.iter().zip(&follows) {
                let Standing::Interrupted(interruption) = follow.news().standing else { continue };
                let FaultKind::Rejected { message } = &interruption.fault.kind else { panic!() };
                if message.is_empty() {
                    assert!(!told.contains(id), "{id} keeps its words");
                    assert_eq!(interruption.fault.to_string(), "the vendor refuses the request");
                } else {
                    assert_eq!(*message, format!("{id} is wrong"));
                    told.insert(id);
                }
            }
            let report = rig.roster.report(Instant::now());
            assert!(report.last_fault.is_none_or(|fault| !fault.to_string().contains("job-")));
        }
        assert!(told.len() > 3);
    }
}
