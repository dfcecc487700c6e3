//! Calls that end before their job: shutdown, limits, deadlines.

use super::*;

#[tokio::test(start_paused = true)]
async fn at_shutdown_a_watch_gets_the_newest_state_and_then_its_end() {
    let rig = rig();
    rig.script.set("a", JobState::Pending);
    let mut watch = rig.watch("a");
    assert_eq!(said(&mut watch).await, "Pending");
    rig.script.set("a", JobState::Running);
    pass(2 * SECOND).await;
    rig.shutdown.cancel();
    assert_eq!(said(&mut watch).await, "Running");
    assert!(matches!(watch.next().await, Some(Err(Failure::ShuttingDown))));
    assert!(watch.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn at_shutdown_a_get_that_waits_is_told_and_one_that_does_not_is_answered() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    let stop = async {
        pass(LATENCY / 2).await;
        rig.shutdown.cancel();
    };
    let waiting = Ask { wait: 60 * SECOND, ..Ask::default() };
    let (waits, answered, ()) = tokio::join!(rig.get("a", waiting), rig.get("a", Ask::default()), stop);
    assert!(matches!(waits, Err(Failure::ShuttingDown)));
    assert_eq!(answered.unwrap(), JobState::Running);
}

#[tokio::test(start_paused = true)]
async fn more_watches_than_allowed_are_refused_until_one_ends() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    let from = |last| -> Caller { Some([127, 0, 0, last].into()) };
    let watch = |caller| rig.hub.watch(&job("a"), caller, &options());
    let refused = |caller| match watch(caller) {
        Err(Failure::TooManyWatches { key, .. }) => key,
        other => panic!("{other:?}"),
    };
    let mut first: Vec<Watch> = (0..3).map(|_| watch(from(1)).unwrap()).collect();
    assert_eq!(refused(from(1)), "limits.watches_per_caller");
    let _other = watch(from(2)).unwrap();
    assert_eq!(refused(from(3)), "limits.watches");
    first.pop();
    assert!(watch(from(1)).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_at_its_deadline() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    let options = WatchOptions { deadline: Some(Instant::now() + 5 * SECOND), ..options() };
    let mut watch = rig.hub.watch(&job("a"), None, &options).unwrap();
    assert_eq!(said(&mut watch).await, "Running");
    assert!(matches!(watch.next().await, Some(Err(Failure::Deadline))));
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_outlasts_the_deadline_is_answered_with_what_is_known() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    let deadline = Some(Instant::now() + 10 * SECOND);
    let ask = Ask { wait: 60 * SECOND, deadline, ..Ask::default() };
    let answers = rig.hub.get(&[job("a"), job("missing")], ask).await;
    assert!(answers[0].is_ok() && matches!(answers[1], Err(Failure::NotFound)), "{answers:?}");
}
