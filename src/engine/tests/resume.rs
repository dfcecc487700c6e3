//! Watches that are resumed with a token.

use super::{rig::*, watch_set::outcome};
use crate::{
    engine::{Caller, Failure, JobStatuses},
    job::{Fingerprint, JobState, ResumeToken},
};

#[tokio::test(start_paused = true)]
async fn resumed_watch_sends_no_status_twice() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    let mut watch = rig.watch("a");
    let (_, token) = event_and_token(&mut watch).await;
    drop(watch);
    let mut watch = rig.resume("a", &token);
    assert_eq!(event(&mut watch).await, "heartbeat", "the same status is not sent again");
    rig.script.set("a", JobState::Succeeded);
    assert_eq!(event(&mut watch).await, "Succeeded");
}

#[tokio::test(start_paused = true)]
async fn terminal_status_is_sent_before_the_end_whatever_the_token() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    let mut watch = rig.watch("a");
    assert_eq!(event(&mut watch).await, "Running");
    rig.script.set("a", JobState::Succeeded);
    let (last, token) = event_and_token(&mut watch).await;
    assert_eq!(last, "Succeeded");
    drop(watch);
    let call = rig.engine.watch_set(Caller::default(), None);
    for id in 0..3 {
        let mut watch = rig.resume("a", &token);
        assert_eq!([event(&mut watch).await, event(&mut watch).await], ["Succeeded", "end"]);
        call.add(id, &job("a"), &resuming(&token)).await;
        let ([status, end], text) = ([outcome(&call).await, outcome(&call).await], String::from);
        assert!(status.1.starts_with("Succeeded") && end == (id, text("end")), "{status:?} {end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn resume_token_of_another_job_or_unreadable_one_is_refused() {
    let rig = rig();
    rig.script.set("a", JobState::Running);
    let (_, token) = event_and_token(&mut rig.watch("a")).await;
    for (id, token) in [("b", token.as_str()), ("a", "not a token")] {
        let watch = rig.engine.watch(&job(id), Caller::default(), &resuming(token));
        assert!(matches!(watch, Err(Failure::InvalidResumeToken(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn token_without_an_observer_resumes_with_a_poll_that_began_after_the_watch() {
    let rig = rig();
    rig.script.set("a", JobState::Pending);
    let mut other = rig.watch("a");
    assert_eq!(event(&mut other).await, "Pending");
    // Another replica has shown a status in between.
    rig.script.set("a", JobState::Running);
    let token = ResumeToken { fingerprint: Fingerprint(1), observed: None }.encode(&job("a"));
    let mut resumed = rig.resume("a", &token);
    assert_eq!(event(&mut resumed).await, "Running", "not the Pending that is known here");
    drop(resumed);
    let mut again = rig.resume("a", &token);
    let first = tokio::time::timeout(SECOND, event(&mut again)).await;
    assert_eq!(first.expect("though the next answer is the same"), "Running");
}
