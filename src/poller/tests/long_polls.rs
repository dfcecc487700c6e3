//! Requests that the vendor holds.

use super::*;

fn long_poll_rig() -> Rig {
    let limits = Limits { concurrency: nonzero(1), throttle: Throttle::new(NonZeroU32::new(1000).unwrap()) };
    rig_of(200, limits, true)
}

/// Follows one job that changes and ends as `life` says, with and without long
/// polls; how late each change was known, and the requests it took.
async fn lead_a_life(rig: Rig, life: &[(u64, JobState)]) -> (Vec<Duration>, usize) {
    rig.script.set("a", JobState::Pending);
    let mailbox = Arc::new(Mailbox::default());
    let interest = Interest { mailbox: Arc::clone(&mailbox), slot: 0, eager: false, interval: None };
    let follow = rig.roster.join(&JobRef::new("vendor", "a"), interest);
    mailbox.next().await;
    let mut delays = Vec::new();
    for &(after, next) in life {
        pass(Duration::from_millis(after)).await;
        rig.script.set("a", next);
        let changed = Instant::now();
        while state(&follow) != Some(next) {
            mailbox.next().await;
        }
        delays.push(changed.elapsed());
    }
    (delays, rig.script.calls().len())
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_knows_the_end_sooner_and_costs_no_more() {
    let life = [(7_300, JobState::Running), (61_700, JobState::Retrying), (45_250, JobState::Running)];
    let life = [&life[..], &[(333_333, JobState::Succeeded)]].concat();
    let limits =
        || Limits { concurrency: nonzero(1), throttle: Throttle::new(NonZeroU32::new(1000).unwrap()) };
    let (without, polls) = lead_a_life(rig_of(200, limits(), false), &life).await;
    let (with, long_polls) = lead_a_life(rig_of(200, limits(), true), &life).await;
    println!("without: {polls} requests, late by {without:?}; with: {long_polls}, {with:?}");
    assert!(with[3] <= SECOND + 2 * LATENCY, "{with:?}: the vendor's own poll interval");
    assert!(without[3] > 2 * SECOND, "{without:?}");
    assert!(long_polls <= polls, "{long_polls} {polls}");
    for (with, cadence) in with.iter().zip([SECOND, 7 * SECOND, 5 * SECOND]) {
        assert!(*with <= cadence + 4 * LATENCY, "{with:?}: no later than the cadence");
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_holds_no_permit_and_is_cut_short_for_whoever_needs_an_answer_now() {
    let rig = long_poll_rig();
    rig.running(2);
    let first = rig.follow("job-0000");
    pass(300 * SECOND).await;
    let held = rig.script.calls().pop().unwrap();
    assert_eq!((held.wait, rig.script.under_way()), (10 * SECOND, 1));
    // Another job is asked about although the only permit there is ..
    let second = rig.follow("job-0001");
    pass(3 * LATENCY).await;
    assert_eq!(state(&second), Some(JobState::Running));
    // .. and the held one, too.
    let answers = first.news().answers;
    first.hurry();
    pass(3 * LATENCY).await;
    assert_eq!(first.news().answers, answers + 1);
}

#[tokio::test(start_paused = true)]
async fn followers_of_few_jobs_share_their_long_polls() {
    let rig = long_poll_rig();
    let ids = rig.running(3);
    let mut follows = Vec::new();
    for id in &ids {
        follows.push(rig.follow(id));
        pass(Duration::from_millis(370)).await;
    }
    pass(600 * SECOND).await;
    rig.script.forget_calls();
    pass(100 * SECOND).await;
    let calls = rig.script.calls();
    assert!((9..=10).contains(&calls.len()), "{}", calls.len());
    assert!(calls.iter().all(|call| call.ids.len() == 3 && call.wait == 10 * SECOND), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn many_jobs_are_not_long_polled() {
    let rig = long_poll_rig();
    let _follows: Vec<Follow> = rig.running(17).iter().map(|id| rig.follow(id)).collect();
    pass(100 * SECOND).await;
    assert!(rig.script.calls().iter().all(|call| call.wait.is_zero() && call.ids.len() == 17));
}

#[tokio::test(start_paused = true)]
async fn frequent_gets_of_a_followed_job_cut_few_long_polls_short() {
    let mut requests = Vec::new();
    for long_poll in [false, true] {
        let limits =
            Limits { concurrency: nonzero(8), throttle: Throttle::new(NonZeroU32::new(1000).unwrap()) };
        let rig = rig_of(200, limits, long_poll);
        rig.script.set("a", JobState::Running);
        let follow = rig.follow("a");
        for _ in 0..50 {
            pass(Duration::from_millis(3700)).await;
            follow.hurry();
        }
        requests.push(rig.script.calls().len());
    }
    assert!(
        requests[1] <= requests[0] + 10,
        "{requests:?}: only a call that cuts a long poll short costs one"
    );
}
