//! What bad luck, bad vendors and bad callers may do to each other's jobs.

use futures_util::FutureExt;

use super::*;

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
    let throttle = RateLimiter::new(NonZeroU32::new(20).unwrap());
    let rig = rig_of(4, Limits { concurrency: nonzero(8), throttle: Arc::clone(&throttle) }, false);
    let mut follows = Vec::new();
    for (at, id) in rig.running(4).iter().enumerate() {
        follows.push(rig.follow_with(id, (at == 2).then_some(3 * SECOND)));
        for _ in 0..70 {
            pass(SECOND / 10 + LATENCY / 7).await;
            let now = Instant::now();
            let sent = rig.script.calls().iter().filter(|call| call.at + SECOND > now).count();
            let free: Vec<_> = std::iter::from_fn(|| throttle.acquire().now_or_never()).collect();
            assert_eq!(free.len(), 20 - sent, "places that are left");
        }
    }
}
