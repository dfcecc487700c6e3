//! What bad luck, bad vendors and bad callers may do to each other's jobs.

use futures_util::FutureExt;

use super::*;
use crate::{
    job::Observation,
    transport::{Asked, Leave, Question},
};

fn limits() -> Limits {
    Limits { concurrency: nonzero(8), throttle: Throttle::new(NonZeroU32::new(1000).unwrap()) }
}

#[tokio::test(start_paused = true)]
async fn leaving_while_a_part_is_asked_does_not_give_up_the_other_parts() {
    let rig = rig(2);
    rig.running(2);
    rig.script.poison("job-0000");
    let (first, second) = (rig.follow("job-0000"), rig.follow("job-0001"));
    // Both: refused; the first alone is being asked about.
    pass(LATENCY * 3 / 2 + LATENCY / 5).await;
    assert_eq!((rig.script.calls().len(), rig.script.under_way()), (2, 1));
    drop(first);
    pass(LATENCY * 4).await;
    assert_eq!(second.news().standing, Standing::Observed, "{:?}", rig.script.calls());
}

/// Answers at once, however long it is asked to hold.
struct HoldsNothing(std::sync::atomic::AtomicUsize);

impl Upstream for HoldsNothing {
    fn ask<'a>(&'a self, Question { jobs, .. }: Question<'a>, _: Leave) -> Asked<'a> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Box::pin(async move {
            pass(LATENCY).await;
            Ok(Ok(jobs.iter().map(|_| Ok(Some(Observation::new(JobState::Running, "r")))).collect()))
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_vendor_that_holds_nothing_is_asked_no_more_often() {
    let mut calls = Vec::new();
    for long_poll in [false, true] {
        let upstream = Arc::new(HoldsNothing(0.into()));
        let rig = rig_for(Arc::clone(&upstream) as Arc<_>, 200, limits(), long_poll);
        let _follow = rig.follow("a");
        pass(60 * SECOND).await;
        calls.push(upstream.0.load(std::sync::atomic::Ordering::Relaxed));
    }
    assert!(calls[1] <= calls[0] + 2, "requests in a minute, without and with long polls: {calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_holds_no_more_jobs_than_a_batch() {
    let rig = rig_of(4, limits(), true);
    let _follows: Vec<Follow> = rig.running(16).iter().map(|id| rig.follow(id)).collect();
    pass(30 * SECOND).await;
    let most = rig.script.calls().iter().map(|call| call.ids.len()).max();
    assert_eq!(most, Some(4));
}

/// An answer holds at most five.
struct AtMostFive(std::sync::atomic::AtomicUsize);

impl Upstream for AtMostFive {
    fn ask<'a>(&'a self, Question { jobs, wait, .. }: Question<'a>, _: Leave) -> Asked<'a> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Box::pin(async move {
            pass(wait.max(LATENCY)).await;
            if jobs.len() > 5 {
                return Ok(Err(FaultKind::TooLarge.into()));
            }
            Ok(Ok(jobs.iter().map(|_| Ok(Some(Observation::new(JobState::Running, "r")))).collect()))
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_that_was_too_large_is_not_sent_again_and_again() {
    let mut calls = Vec::new();
    for long_poll in [false, true] {
        let upstream = Arc::new(AtMostFive(0.into()));
        let rig = rig_for(Arc::clone(&upstream) as Arc<_>, 200, limits(), long_poll);
        let _follows: Vec<Follow> = rig.running(16).iter().map(|id| rig.follow(id)).collect();
        pass(200 * SECOND).await;
        upstream.0.store(0, std::sync::atomic::Ordering::Relaxed);
        pass(200 * SECOND).await;
        calls.push(upstream.0.load(std::sync::atomic::Ordering::Relaxed));
    }
    assert!(calls[1] <= calls[0] + 2, "requests in 200 s, without and with long polls: {calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_wants_a_faster_cadence_gets_it_at_once_from_a_long_poll_too() {
    let mut delays = Vec::new();
    for long_poll in [false, true] {
        let rig = rig_of(200, limits(), long_poll);
        rig.script.set("a", JobState::Running);
        let _slow = rig.follow("a");
        pass(1000 * SECOND).await;
        // Just after a request has begun.
        let before = rig.script.calls().len();
        while rig.script.calls().len() == before {
            pass(LATENCY).await;
        }
        pass(SECOND).await;
        rig.script.forget_calls();
        let _fast = rig.follow_with("a", Some(2 * SECOND));
        let began = Instant::now();
        while rig.script.calls().is_empty() {
            pass(LATENCY).await;
        }
        delays.push(began.elapsed());
    }
    assert!(delays[1] <= 2 * SECOND + LATENCY, "without and with long polls: {delays:?}");
}

#[tokio::test(start_paused = true)]
async fn one_refused_job_that_is_got_again_and_again_starves_nobody() {
    let rig = rig(1);
    rig.script.set("good", JobState::Running);
    rig.script.poison("bad");
    let good = rig.follow("good");
    pass(200 * SECOND).await;
    // What a client does that calls GetJobStatus until it has an answer.
    let get = async || {
        let bad = rig.follow("bad");
        while bad.news().attempts == 0 {
            pass(LATENCY).await;
        }
        drop(bad);
        pass(SECOND / 2).await;
    };
    for _ in 0..40 {
        get().await;
    }
    rig.script.set("good", JobState::Succeeded);
    let ended = Instant::now();
    while state(&good) != Some(JobState::Succeeded) {
        get().await;
        assert!(
            ended.elapsed() < 600 * SECOND,
            "not known after ten minutes; {:?}",
            rig.roster.report(Instant::now())
        );
    }
    println!("known after {:?}", ended.elapsed());
    assert!(ended.elapsed() < 62 * SECOND, "known after {:?}", ended.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_job_never_asked_about_is_asked_about_though_it_shares_a_batch_with_refused_ones() {
    let rig = rig(200);
    let ids = rig.running(60);
    for id in &ids {
        rig.script.poison(id);
    }
    let _bad: Vec<Follow> = ids[..40].iter().map(|id| rig.follow(id)).collect();
    pass(120 * SECOND).await;
    rig.script.set("job-9", JobState::Running);
    let _more: Vec<Follow> = ids[40..].iter().map(|id| rig.follow(id)).collect();
    let good = rig.follow("job-9");
    let began = Instant::now();
    while state(&good).is_none() && began.elapsed() < 3600 * SECOND {
        pass(LATENCY).await;
    }
    assert!(began.elapsed() <= 5 * SECOND, "answered after {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_while_a_retry_after_runs_beside_refusals() {
    let mut sent = 0;
    for _ in 0..40 {
        let rig = rig(1);
        let _bad: Vec<Follow> = rig.running(80).iter().map(|id| rig.follow(id)).collect();
        rig.script.fail(FaultKind::Rejected { message: "wrong endpoint".into() });
        pass(300 * SECOND).await;
        rig.script.fail(FaultKind::Throttled { retry_after: Some(4 * SECOND) });
        let mut follows = vec![rig.follow("new")];
        pass(SECOND / 2).await;
        if !matches!(&follows[0].news().standing, Standing::Interrupted(told)
            if matches!(told.fault.kind, FaultKind::Throttled { .. }))
        {
            continue;
        }
        rig.script.forget_calls();
        for round in 0..3 {
            follows.push(rig.follow(&format!("new-{round}")));
            pass(SECOND).await;
        }
        sent += rig.script.calls().len();
    }
    assert_eq!(sent, 0, "requests while Retry-After ran, in 40 x 3 s");
}

/// Behind a proxy that ends every request after five seconds.
struct ProxyEndsLongRequests(std::sync::atomic::AtomicUsize);

impl Upstream for ProxyEndsLongRequests {
    fn ask<'a>(&'a self, Question { jobs, wait, .. }: Question<'a>, _: Leave) -> Asked<'a> {
        Box::pin(async move {
            pass(wait.min(5 * SECOND).max(LATENCY)).await;
            if wait > 5 * SECOND {
                self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                return Err(FaultKind::Unavailable { retry_after: None, why: "HTTP 504".into() }.into());
            }
            Ok(Ok(jobs.iter().map(|_| Ok(Some(Observation::new(JobState::Running, "r")))).collect()))
        })
    }
}

#[tokio::test(start_paused = true)]
async fn long_polls_that_fail_are_not_tried_for_ever() {
    let upstream = Arc::new(ProxyEndsLongRequests(0.into()));
    let rig = rig_for(Arc::clone(&upstream) as Arc<_>, 200, limits(), true);
    let _follow = rig.follow("a");
    pass(3600 * SECOND).await;
    let failed = upstream.0.load(std::sync::atomic::Ordering::Relaxed);
    assert!(failed <= 10, "{failed} interruptions in an hour; without long polls there is none");
}

#[tokio::test(start_paused = true)]
async fn what_a_vendor_says_of_one_job_is_not_told_of_another() {
    let rig = rig(1);
    rig.script.set("good", JobState::Running);
    let good = rig.follow("good");
    pass(200 * SECOND).await;
    for round in 0..60 {
        let id = format!("bad-{round}");
        rig.script.poison(&id);
        let bad = rig.follow(&id);
        pass(SECOND / 2).await;
        drop(bad);
    }
    let standing = good.news().standing;
    assert_eq!(standing, Standing::Observed, "bad-* were refused, good never was");
}

#[tokio::test(start_paused = true)]
async fn a_look_that_finds_nothing_to_send_costs_no_place_among_the_requests_of_the_second() {
    let throttle = Throttle::new(NonZeroU32::new(20).unwrap());
    let rig = rig_of(4, Limits { concurrency: nonzero(8), throttle: Arc::clone(&throttle) }, true);
    let mut follows = Vec::new();
    for (at, id) in rig.running(4).iter().enumerate() {
        follows.push(rig.follow_with(id, (at == 2).then_some(3 * SECOND)));
        for _ in 0..70 {
            pass(SECOND / 10 + LATENCY / 7).await;
            let now = Instant::now();
            let sent = rig.script.calls().iter().filter(|call| call.at + SECOND > now).count();
            let free: Vec<_> = std::iter::from_fn(|| throttle.leave_to_send().now_or_never()).collect();
            assert_eq!(free.len(), 20 - sent, "places that are left");
        }
    }
}
