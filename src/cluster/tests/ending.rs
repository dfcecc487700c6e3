//! Seats that end, are refused, or take over from an owner that was paused.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::replicas::*;
use crate::{
    cluster::{
        Role,
        lease::{self, Ownership},
        replica::pauses,
    },
    engine::{
        Pause,
        tests::{
            rig::{LATENCY, SECOND, event, fresh, pass},
            script::Script,
        },
    },
    job::{BackendFault, FaultKind, JobState},
};

fn throttled(until: Instant, digest: u64) -> lease::Pause {
    let fault = BackendFault { retry_after: Some(30 * SECOND), ..FaultKind::Throttled.into() };
    lease::Pause { until, fault, digest }
}

#[tokio::test(start_paused = true)]
async fn seat_that_ended_has_no_sessions_and_no_part_of_the_owner() {
    let vendor = Script::new(LATENCY);
    for number in 0..8 {
        vendor.set(&number.to_string(), JobState::Running);
    }
    let (_net, [mut owner, follower, _other]) = three(&vendor, 1).await;
    let mut watch = follower.watch("0");
    assert_eq!(event(&mut watch).await, "Running");
    drop(watch);
    pass(10 * SECOND).await;
    assert_eq!(owner.member.followers(), 2);
    owner.stop_seat().await;
    assert_eq!(owner.member.followers(), 0);
    vendor.forget_calls();
    let ids: Vec<String> = (0..8).map(|number: u32| number.to_string()).collect();
    let gets = ids.iter().map(|id| owner.get(id, fresh()));
    for state in futures_util::future::join_all(gets).await {
        assert_eq!(state, "Running");
    }
    let calls = vendor.calls();
    let at_once = calls.iter().filter(|call| call.at < calls[0].at + LATENCY).count();
    assert!(at_once <= LIMITS.concurrency.own as usize, "{at_once} at once: {calls:?}");
}

#[tokio::test(start_paused = true)]
async fn replica_with_another_place_is_isolated_and_says_why_until_it_has_the_same() {
    let vendor = Script::new(LATENCY);
    let (_net, [_owner, mut follower, _other]) = three(&vendor, 1).await;
    assert_eq!(follower.record.get().why(), None);
    follower.limits.send_modify(|limits| limits.digest += 1);
    follower.becomes(Role::Isolated).await;
    let why = follower.record.get().why().unwrap();
    assert!(why.starts_with("the owner polls another vendor or URL under this name"), "{why}");
    follower.limits.send_modify(|limits| limits.digest -= 1);
    follower.becomes(Role::Follower { owner: 1 }).await;
    assert_eq!(follower.record.get().why(), None);
}

#[tokio::test(start_paused = true)]
async fn next_owner_keeps_the_kind_of_the_pause_and_ignores_that_of_another_place() {
    for (digest, is_kept) in [(LIMITS.digest, true), (0, true), (LIMITS.digest + 1, false)] {
        let vendor = Script::new(LATENCY);
        let net = Arc::default();
        let mut replica = Replica::start(&net, 1, Arc::clone(&vendor) as _, 10);
        let now = Instant::now();
        let pause = throttled(now + 30 * SECOND, digest);
        let expected = Pause { until: pause.until, fault: pause.fault.clone() };
        let until = now + Duration::from_hours(1);
        let ownership = Ownership::Owner { epoch: 1, until, full_rate_from: now, pause: Some(pause) };
        replica.lease.send_replace(ownership);
        replica.becomes(Role::Owner).await;
        let backend = replica.engine().shared_backend("vendor").unwrap();
        assert_eq!(backend.pause(Instant::now()), is_kept.then_some(expected), "{digest}");
    }
}

#[tokio::test(start_paused = true)]
async fn replica_that_reads_the_lease_keeps_to_what_the_vendor_asked_for() {
    let vendor = Script::new(LATENCY);
    let net = Arc::default();
    let replica = Replica::start(&net, 1, Arc::clone(&vendor) as _, 10);
    let backend = replica.engine().shared_backend("vendor").unwrap();
    let (pause, heard) = pauses(&backend, &replica.limits.subscribe());
    let now = Instant::now();
    let asked = throttled(now + 30 * SECOND, LIMITS.digest);
    let own = BackendFault { retry_after: None, ..asked.fault.clone() };
    heard(lease::Pause { fault: own, ..asked.clone() });
    heard(throttled(now + 30 * SECOND, LIMITS.digest + 1));
    assert_eq!(pause(now), None);
    heard(asked.clone());
    assert_eq!(pause(now), Some(asked));
}
