//! Calls with a `max_age`, at different times, and what others get of them.

use super::*;

const INTERVAL: Duration = Duration::from_secs(10);

fn aged(max_age: Duration) -> Ask {
    Ask { max_age: Some(max_age), ..Ask::default() }
}

#[tokio::test(start_paused = true)]
async fn clients_that_ask_with_a_max_age_at_different_times_share_their_requests() {
    let rig = rig();
    let jobs: Vec<JobRef> = (0..100).map(|number| job(&number.to_string())).collect();
    for job in &jobs {
        rig.script.set(&job.id, JobState::Running);
    }
    // Each client has jobs of its own and some in common, and a time of its own.
    let client = async |number: usize| {
        let mine = &jobs[number * 10..number * 10 + 20];
        pass(u32::try_from(number).unwrap() * SECOND).await;
        for _ in 0..12 {
            let asked = Instant::now();
            for answer in rig.hub.get(mine, aged(INTERVAL)).await {
                assert!(asked.saturating_duration_since(answer.unwrap().at) <= INTERVAL);
            }
            rig.check();
            tokio::time::sleep_until(asked + INTERVAL).await;
        }
    };
    futures_util::future::join_all((0..9).map(client)).await;
    // 9 clients, 12 times each, in 128 seconds.
    let calls = rig.script.calls();
    assert!(calls.len() <= 36, "{}", calls.len());
    assert_eq!(rig.followed(), 0);
    rig.script.forget_calls();
    pass(100 * INTERVAL).await;
    assert!(rig.script.calls().is_empty(), "all have left");
    rig.check();
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_a_kept_job_is_told_what_the_vendor_says_now() {
    for get_first in [false, true] {
        let rig = rig();
        rig.script.set("a", JobState::Pending);
        rig.get("a", aged(60 * SECOND)).await.unwrap();
        pass(100 * SECOND).await;
        rig.script.set("a", JobState::Running);
        let mut get = Box::pin(rig.get("a", Ask::default()));
        if get_first {
            assert!(timeout(Duration::from_millis(1), &mut get).await.is_err());
        }
        let mut watch = rig.watch("a");
        assert_eq!(said(&mut watch).await, "Running", "get first: {get_first}");
        assert_eq!(get.await.unwrap(), JobState::Running);
        rig.check();
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_a_kept_job_that_has_not_changed_is_told_so_at_once() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    rig.get("a", aged(60 * SECOND)).await.unwrap();
    pass(100 * SECOND).await;
    let mut get = Box::pin(rig.get("a", Ask::default()));
    assert!(timeout(Duration::from_millis(1), &mut get).await.is_err());
    let mut watch = rig.watch("a");
    let began = Instant::now();
    assert_eq!(said(&mut watch).await, "Running");
    assert!(began.elapsed() <= 2 * LATENCY);
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_a_kept_job_is_told_of_an_outage_at_once() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    rig.get("a", aged(60 * SECOND)).await.unwrap();
    pass(SECOND).await;
    rig.script.go_down();
    let mut watch = rig.watch("a");
    assert!(said(&mut watch).await.starts_with("interrupted"));
    rig.check();
}

#[tokio::test(start_paused = true)]
async fn a_get_of_a_kept_job_rests_on_a_request_that_began_after_it() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    rig.get("a", aged(60 * SECOND)).await.unwrap();
    rig.script.set("a", JobState::Retrying);
    assert_eq!(rig.get("a", aged(60 * SECOND)).await.unwrap(), JobState::Running);
    assert_eq!(rig.get("a", Ask::default()).await.unwrap(), JobState::Retrying);
    rig.script.remove("a");
    assert!(matches!(rig.get("a", Ask::default()).await, Err(Failure::Gone { .. })), "it was seen before");
    assert!(matches!(rig.get("a", aged(60 * SECOND)).await, Err(Failure::NotFound)));
    rig.check();
}

#[tokio::test(start_paused = true)]
async fn a_kept_job_that_ends_is_answered_with_its_end() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    rig.script.set("b", JobState::Running);
    rig.get("a", aged(INTERVAL)).await.unwrap();
    rig.script.set("a", JobState::Succeeded);
    pass(INTERVAL * 3 / 4).await;
    assert_eq!(rig.get("b", Ask::default()).await.unwrap(), JobState::Running);
    rig.script.forget_calls();
    assert_eq!(rig.get("a", Ask::default()).await.unwrap(), JobState::Succeeded);
    assert!(rig.script.calls().is_empty(), "it rode along");
    rig.check();
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_says_nothing_new_is_young_and_no_event() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    let mut watch = rig.watch("a");
    assert_eq!(said(&mut watch).await, "Running");
    let observed = async || rig.hub.get(&[job("a")], aged(60 * SECOND)).await.remove(0).unwrap();
    let first = observed().await;
    assert!(timeout(5 * SECOND, watch.next()).await.is_err(), "no event");
    let later = observed().await;
    assert!(later.at >= first.at + 4 * SECOND && later.time > first.time);
    assert!(Arc::ptr_eq(&first.snapshot, &later.snapshot), "it was not read again");

    rig.script.go_down();
    assert!(said(&mut watch).await.starts_with("interrupted"));
    rig.script.come_back();
    let Some(Ok(update)) = watch.next().await else { panic!("the watch goes on") };
    let Event::Heartbeat { observed: Some(at) } = update.event else { panic!("{:?}", update.event) };
    assert!(at > later.time);
    let last = observed().await;
    assert_eq!(last.time, at);
    assert!(Arc::ptr_eq(&first.snapshot, &last.snapshot));
}
