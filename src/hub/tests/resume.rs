//! What a resume token brings back, and what it doesn't.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_resumed_watch_sends_nothing_twice() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    let mut watch = rig.watch("a");
    let (_, token) = next(&mut watch).await;
    drop(watch);
    let mut watch = rig.resume("a", &token);
    assert_eq!(said(&mut watch).await, "heartbeat", "the same status is not sent again");
    rig.script.set("a", JobState::Succeeded);
    let (last, token) = next(&mut watch).await;
    assert_eq!(last, "Succeeded");
    drop(watch);
    let mut watch = rig.resume("a", &token);
    assert_eq!(said(&mut watch).await, "end", "nor is the terminal one");
}

#[tokio::test(start_paused = true)]
async fn a_resumed_watch_sends_nothing_older_but_never_misses_the_end() {
    let (ahead, behind) = (rig(), rig());
    for rig in [&ahead, &behind] {
        rig.script.set("a", JobState::Pending);
    }
    let mut stale = behind.watch("a");
    assert_eq!(said(&mut stale).await, "Pending");
    ahead.script.set("a", JobState::Running);
    let mut watch = ahead.watch("a");
    let (_, token) = next(&mut watch).await;
    drop(watch);
    behind.script.set("a", JobState::Running);
    let mut resumed = behind.resume("a", &token);
    let first = timeout(SECOND, resumed.next()).await;
    assert!(first.is_err(), "the older Pending is held back, Running was sent already: {first:?}");
    behind.script.set("a", JobState::Succeeded);
    assert_eq!([said(&mut resumed).await, said(&mut resumed).await], ["Succeeded", "end"]);
}

#[tokio::test(start_paused = true)]
async fn a_resume_token_of_another_job_or_none_at_all_is_refused() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    let (_, token) = next(&mut rig.watch("a")).await;
    for (id, token) in [("b", token.as_str()), ("a", "not a token")] {
        let options = WatchOptions { resume_token: token.into(), ..options() };
        assert!(matches!(rig.hub.watch(&job(id), None, &options), Err(Failure::InvalidResumeToken(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_of_another_replica_brings_nothing_older() {
    let rig = rig();
    rig.script.set("a", JobState::Pending);
    let mut stale = rig.watch("a");
    assert_eq!(said(&mut stale).await, "Pending");
    // Another replica has sent the next state.
    rig.script.set("a", JobState::Running);
    let token = ResumeToken { fingerprint: Fingerprint(1), observed: None };
    let mut resumed = rig.resume("a", &token.encode(&job("a")));
    assert_eq!(said(&mut resumed).await, "Running");
    drop(resumed);
    let mut again = rig.resume("a", &token.encode(&job("a")));
    let first = timeout(SECOND, said(&mut again)).await.expect("though the next answer is the same");
    assert_eq!(first, "Running");
}
