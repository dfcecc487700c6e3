//! What callers of a follower see, and what it costs the vendor.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use super::replicas::*;
use crate::{
    cluster::{Limits, Role, lease::Ownership, share::Share},
    engine::{
        JobStatuses,
        tests::{
            rig::{LATENCY, SECOND, event, event_and_token, fresh, job, pass, status},
            script::Script,
        },
    },
    job::{FaultKind, JobState},
};

#[tokio::test(start_paused = true)]
async fn watchers_of_all_replicas_cost_what_those_of_one_do() {
    let vendor = Script::new(LATENCY);
    let ids: Vec<String> = (0..100).map(|number| format!("job {number}")).collect();
    for id in &ids {
        vendor.set(id, JobState::Running);
    }
    let (_net, replicas) = three(&vendor, 40).await;
    let mut watches = Vec::new();
    for replica in &replicas {
        watches.extend(ids.iter().map(|id| replica.watch(id)));
    }
    for watch in &mut watches {
        assert_eq!(event(watch).await, "Running");
    }
    vendor.forget_calls();
    pass(60 * SECOND).await;
    let calls = vendor.calls().len();
    // One replica alone, with the same jobs.
    let alone_vendor = Script::new(LATENCY);
    for id in &ids {
        alone_vendor.set(id, JobState::Running);
    }
    let (_net, [alone, ..]) = three(&alone_vendor, 40).await;
    let mut of_one: Vec<_> = ids.iter().map(|id| alone.watch(id)).collect();
    for watch in &mut of_one {
        event(watch).await;
    }
    alone_vendor.forget_calls();
    pass(60 * SECOND).await;
    let alone_calls = alone_vendor.calls().len();
    assert!(calls * 10 <= alone_calls * 11, "{calls} calls, {alone_calls} of one replica");
    for id in &ids {
        vendor.set(id, JobState::Succeeded);
    }
    for watch in &mut watches {
        assert_eq!(status(watch).await, "Succeeded");
        assert_eq!(event(watch).await, "end");
    }
}

#[tokio::test(start_paused = true)]
async fn get_through_a_follower_is_of_a_poll_that_ended_after_it() {
    let vendor = Script::new(LATENCY);
    vendor.set("a", JobState::Pending);
    let (_net, [owner, follower, _other]) = three(&vendor, 10).await;
    assert_eq!(follower.get("a", fresh()).await, "Pending");
    // Watched everywhere, so that the owner has statuses of its own to send.
    let (mut at_owner, mut at_follower) = (owner.watch("a"), follower.watch("a"));
    assert_eq!(
        (event(&mut at_owner).await, event(&mut at_follower).await),
        ("Pending".into(), "Pending".into())
    );
    for step in 0_u64..200 {
        pass(Duration::from_micros(97 * step * 13 % 120_000)).await;
        let state = if step % 2 == 0 { JobState::Running } else { JobState::Pending };
        vendor.set("a", state);
        let began = Instant::now();
        assert_eq!(follower.get("a", fresh()).await, format!("{state:?}"), "step {step}");
        assert!(began.elapsed() <= 2 * LATENCY + 20 * Duration::from_millis(1), "{:?}", began.elapsed());
    }
    assert!(vendor.calls().len() <= 500, "{}", vendor.calls().len());
}

#[tokio::test(start_paused = true)]
async fn calls_through_followers_share_polls() {
    let vendor = Script::new(LATENCY);
    let ids: Vec<String> = (0..30).map(|number| format!("job {number}")).collect();
    for id in &ids {
        vendor.set(id, JobState::Running);
    }
    let (_net, replicas) = three(&vendor, 100).await;
    vendor.forget_calls();
    let calls = ids.iter().enumerate().map(|(place, id)| replicas[place % 3].get(id, fresh()));
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!(answer, "Running");
    }
    assert!(vendor.calls().len() <= 2, "{:?}", vendor.calls());
}

#[tokio::test(start_paused = true)]
async fn calls_through_a_follower_that_would_wait_past_their_deadlines_are_refused_at_once() {
    let vendor = Script::new(LATENCY);
    let ids: Vec<String> = (0..300).map(|number| format!("job {number}")).collect();
    for id in &ids {
        vendor.set(id, JobState::Running);
    }
    let (_net, replicas) = three(&vendor, 1).await;
    for replica in &replicas {
        let limits = Limits { rate: Share { own: 1, owner: 2 }, ..LIMITS };
        replica.limits.send_replace(limits);
    }
    pass(SECOND).await;
    let (mut answered, mut refused) = (0, 0);
    // Five calls a second where the owner polls two jobs a second.
    let mut calls = JoinSet::new();
    for (place, id) in ids.into_iter().enumerate() {
        let engine = Arc::clone(replicas[1 + place % 2].engine());
        calls.spawn(async move {
            let began = Instant::now();
            let answer = engine.get(&job(&id), fresh()).await;
            (began.elapsed(), answer.map_err(|failure| failure.to_string()))
        });
        pass(SECOND / 5).await;
    }
    while let Some(call) = calls.join_next().await {
        match call.unwrap() {
            (_, Ok(_)) => answered += 1,
            (took, Err(failure)) => {
                assert!(failure.contains("answered by its deadline"), "{failure} after {took:?}");
                assert!(took < SECOND / 10, "{took:?}");
                refused += 1;
            }
        }
    }
    assert!(answered >= 200 && refused >= 50, "{answered} answered, {refused} refused");
}

#[tokio::test(start_paused = true)]
async fn job_that_the_vendor_does_not_know_and_one_that_it_forgets_end_as_at_the_owner() {
    let vendor = Script::new(LATENCY);
    vendor.set("a", JobState::Running);
    let (_net, [_owner, follower, _other]) = three(&vendor, 10).await;
    assert!(follower.get("none", fresh()).await.starts_with("failed: "), "an unknown job");
    let mut watch = follower.watch("a");
    assert_eq!(event(&mut watch).await, "Running");
    vendor.remove("a");
    let end = status(&mut watch).await;
    assert!(end.contains("no longer"), "{end}");
}

#[tokio::test(start_paused = true)]
async fn outage_reaches_watchers_of_followers_and_so_does_its_end() {
    let vendor = Script::new(LATENCY);
    vendor.set("a", JobState::Running);
    let (_net, [_owner, follower, _other]) = three(&vendor, 10).await;
    let mut watch = follower.watch("a");
    assert_eq!(event(&mut watch).await, "Running");
    vendor.fail(FaultKind::Throttled);
    assert_eq!(status(&mut watch).await, "interrupted: the vendor is throttling");
    let refused = follower.get("a", fresh()).await;
    assert!(refused.contains("throttling"), "{refused}");
    vendor.recover();
    vendor.set("a", JobState::Succeeded);
    assert_eq!(status(&mut watch).await, "Succeeded");
}

#[tokio::test(start_paused = true)]
async fn owner_that_falls_silent_is_replaced_by_isolation_and_then_by_the_next_owner() {
    let vendor = Script::new(LATENCY);
    vendor.set("a", JobState::Running);
    let (net, mut replicas) = three(&vendor, 10).await;
    let mut watches: Vec<_> = replicas.iter().map(|replica| replica.watch("a")).collect();
    for watch in &mut watches {
        assert_eq!(event(watch).await, "Running");
    }
    for number in [2, 3] {
        net.cut(1, number);
        net.cut(number, 1);
    }
    let cut_at = Instant::now();
    replicas[1].becomes(Role::Isolated).await;
    assert!(cut_at.elapsed() <= 4 * SECOND, "{:?}", cut_at.elapsed());
    vendor.set("a", JobState::Pending);
    assert_eq!(status(&mut watches[1]).await, "Pending");
    give_lease(&replicas, 2);
    replicas[2].becomes(Role::Follower { owner: 2 }).await;
    net.heal();
    replicas[0].becomes(Role::Follower { owner: 2 }).await;
    vendor.set("a", JobState::Succeeded);
    for watch in &mut watches {
        let mut last = String::new();
        while let Ok(event) = timeout(60 * SECOND, status(watch)).await {
            if event == "end" {
                break;
            }
            last = event;
        }
        assert_eq!(last, "Succeeded");
    }
}

#[tokio::test(start_paused = true)]
async fn jobs_that_nobody_watches_at_a_follower_any_more_are_not_polled() {
    let vendor = Script::new(LATENCY);
    vendor.set("a", JobState::Running);
    let (_net, [_owner, follower, _other]) = three(&vendor, 10).await;
    let mut watch = follower.watch("a");
    assert_eq!(event(&mut watch).await, "Running");
    drop(watch);
    pass(5 * SECOND).await;
    vendor.forget_calls();
    pass(60 * SECOND).await;
    assert_eq!(vendor.calls().len(), 0);
    assert_eq!(follower.get("a", fresh()).await, "Running");
}

#[tokio::test(start_paused = true)]
async fn watch_that_moves_between_replicas_sees_no_older_status() {
    let vendor = Script::new(LATENCY);
    vendor.set("a", JobState::Pending);
    let (_net, replicas) = three(&vendor, 10).await;
    let mut token = String::new();
    let mut last = String::new();
    let states = [JobState::Pending, JobState::Running, JobState::Retrying, JobState::Cancelling];
    for (step, state) in states.into_iter().enumerate() {
        vendor.set("a", state);
        for replica in &replicas {
            let mut watch = replica.resume("a", &token);
            let deadline = 30 * SECOND;
            while let Ok((event, next)) = timeout(deadline, event_and_token(&mut watch)).await {
                token = next;
                if event != "heartbeat" {
                    last = event;
                }
                if last == format!("{state:?}") {
                    break;
                }
            }
            assert_eq!(last, format!("{state:?}"), "step {step}");
        }
    }
    let _ = Arc::clone(&vendor);
}

#[tokio::test(start_paused = true)]
async fn large_result_arrives_whole() {
    let vendor = Script::new(LATENCY);
    let payload = "x".repeat(8 << 20);
    vendor.set_payload("a", JobState::Running, &payload);
    let (_net, [_owner, follower, _other]) = three(&vendor, 10).await;
    let mut watch = follower.watch("a");
    assert_eq!(event(&mut watch).await, "Running");
}

#[tokio::test(start_paused = true)]
async fn large_result_passes_where_messages_have_to_be_short() {
    let vendor = Script::new(LATENCY);
    vendor.set_payload("a", JobState::Running, &"x".repeat(2 << 20));
    let (net, [_owner, mut follower, _other]) = three(&vendor, 10).await;
    net.limit(100 << 10, 90 << 10);
    // A new session, which knows of it.
    net.cut(1, 2);
    follower.becomes(Role::Isolated).await;
    net.heal();
    follower.becomes(Role::Follower { owner: 1 }).await;
    let mut watch = follower.watch("a");
    assert_eq!(event(&mut watch).await, "Running");
    assert_eq!(*follower.role.borrow(), Role::Follower { owner: 1 });
}

#[tokio::test(start_paused = true)]
async fn message_that_never_arrives_costs_a_follower_its_session_and_not_its_callers() {
    let vendor = Script::new(LATENCY);
    vendor.set_payload("large", JobState::Running, &"x".repeat(400 << 10));
    vendor.set("small", JobState::Running);
    let (net, [_owner, follower, _other]) = three(&vendor, 1).await;
    net.limit(100 << 10, 960 << 10);
    let mut large = follower.watch("large");
    let began = Instant::now();
    assert_eq!(event(&mut large).await, "Running");
    assert!(began.elapsed() <= 10 * SECOND, "{:?}", began.elapsed());
    for _ in 0..20 {
        pass(7 * SECOND).await;
        let asked = Instant::now();
        assert_eq!(follower.get("small", fresh()).await, "Running");
        assert!(asked.elapsed() <= 10 * SECOND, "{:?}", asked.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn pause_that_has_ended_is_no_answer_to_a_later_call() {
    let vendor = Script::new(LATENCY);
    let ids: Vec<String> = (0..20).map(|number| format!("job {number}")).collect();
    for id in &ids {
        vendor.set(id, JobState::Running);
    }
    let (_net, [owner, follower, _other]) = three(&vendor, 10).await;
    let mut before = owner.watch(&ids[0]);
    assert_eq!(event(&mut before).await, "Running");
    vendor.fail(FaultKind::Throttled);
    assert_eq!(status(&mut before).await, "interrupted: the vendor is throttling");
    // Registered while the backend is paused.
    let _watches: Vec<_> = ids.iter().map(|id| follower.watch(id)).collect();
    pass(SECOND).await;
    vendor.recover();
    pass(60 * SECOND).await;
    for step in 0..200_u32 {
        pass(Duration::from_millis(u64::from(step * 7919 % 331))).await;
        let id = &ids[step as usize % ids.len()];
        assert_eq!(follower.get(id, fresh()).await, "Running", "step {step}");
    }
}

#[tokio::test(start_paused = true)]
async fn watchers_hear_from_each_next_owner_within_an_interval_and_it_costs_no_extra_poll() {
    let vendor = Script::new(LATENCY);
    let ids: Vec<String> = (0..20).map(|number| format!("job {number}")).collect();
    for id in &ids {
        vendor.set(id, JobState::Running);
    }
    let (_net, mut replicas) = three(&vendor, 100).await;
    let mut watches: Vec<_> =
        replicas.iter().flat_map(|replica| ids.iter().map(|id| replica.watch(id))).collect();
    for watch in &mut watches {
        assert_eq!(event(watch).await, "Running");
    }
    // The interval is ten seconds by then.
    pass(120 * SECOND).await;
    vendor.forget_calls();
    pass(60 * SECOND).await;
    let before = vendor.calls().len();
    vendor.forget_calls();
    for owner in [2, 3, 1, 2, 3, 1] {
        give_lease(&replicas, owner);
        pass(10 * SECOND).await;
    }
    let calls = vendor.calls().len();
    assert!(calls <= before + 6, "{calls} polls in a minute of six owners, {before} of one");
    give_lease(&replicas, 2);
    replicas[2].becomes(Role::Follower { owner: 2 }).await;
    for id in &ids {
        vendor.set(id, JobState::Succeeded);
    }
    let changed_at = Instant::now();
    for watch in &mut watches {
        assert_eq!(status(watch).await, "Succeeded");
    }
    assert!(changed_at.elapsed() <= 11 * SECOND, "{:?}", changed_at.elapsed());
}

#[tokio::test(start_paused = true)]
async fn replica_that_starts_leaves_the_first_second_to_the_one_in_whose_place_it_is() {
    let vendor = Script::new(LATENCY);
    vendor.set("a", JobState::Running);
    let began = Instant::now();
    let net = Arc::new(Net::default());
    let replica = Replica::start(&net, 1, Arc::clone(&vendor) as _, 10);
    let now = Instant::now();
    // Until then the owner uses its own share only.
    let full_rate_from = now + SECOND;
    let until = now + 60 * SECOND;
    replica.lease.send_replace(Ownership::Owner { epoch: 1, until, full_rate_from, pause: None });
    assert_eq!(replica.get("a", fresh()).await, "Running");
    let calls = vendor.calls();
    assert!(calls.iter().all(|call| call.at >= began + SECOND), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn job_that_only_a_follower_watches_is_polled_at_once() {
    let vendor = Script::new(LATENCY);
    vendor.set("a", JobState::Running);
    let (_net, [_owner, follower, _other]) = three(&vendor, 10).await;
    pass(10 * SECOND).await;
    let began = Instant::now();
    let mut watch = follower.watch("a");
    assert_eq!(event(&mut watch).await, "Running");
    assert!(began.elapsed() <= 2 * LATENCY, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn watchers_hear_again_within_three_seconds_of_their_owners_end_and_an_interval() {
    for tenth in 0..30_u32 {
        let vendor = Script::new(LATENCY);
        vendor.set("a", JobState::Running);
        let (net, replicas) = three(&vendor, 10).await;
        let mut watches: Vec<_> = replicas[1..].iter().map(|replica| replica.watch("a")).collect();
        for watch in &mut watches {
            assert_eq!(event(watch).await, "Running");
        }
        pass(SECOND * tenth / 10).await;
        for other in [2, 3] {
            net.cut(1, other);
            net.cut(other, 1);
        }
        let ended_at = Instant::now();
        vendor.set("a", JobState::Pending);
        for watch in &mut watches {
            assert_eq!(status(watch).await, "Pending");
        }
        // Each is due by then, since the interval of a job that was watched just now is a second.
        assert!(ended_at.elapsed() <= 4 * SECOND, "{:?} after the end at {tenth}", ended_at.elapsed());
    }
}
