//! Followers that take part and read nothing.

use std::sync::Arc;

use prost::Message;
use tokio::time::Instant;

use super::replicas::*;
use crate::{
    cluster::{Role, in_flight::SHARED},
    engine::tests::{
        rig::{LATENCY, SECOND, event, pass},
        script::Script,
    },
    job::JobState,
    proto::cluster::v1::{
        Add, Change, Envelope, Frame, Interest, Open, Wanted, change::What, envelope::Kind,
    },
};

const JOBS: usize = 100;
const PAYLOAD: usize = 64 << 10;

/// Of the sessions that read nothing.
const DEAD: u64 = 300;

fn envelope(from: u64, kind: Kind) -> bytes::Bytes {
    Envelope { from, session: from, kind: Some(kind) }.encode_to_vec().into()
}

/// A sign of life that acknowledges nothing.
fn keep_alive(number: u64) -> Kind {
    Kind::Frame(Frame { number, ..Frame::default() })
}

fn id(number: usize) -> String {
    format!("job {number}")
}

/// Registers all jobs, with all that there is to see.
fn interest() -> Vec<u8> {
    let wanted = Some(Wanted { result: true, payload: true, ..Wanted::default() });
    let add = |number| Add { job_id: id(number), wanted, ..Add::default() };
    let change = |number| Change { slot: u32::try_from(number).unwrap(), what: Some(What::Add(add(number))) };
    Interest { changes: (0..JOBS).map(change).collect() }.encode_to_vec()
}

#[tokio::test(start_paused = true)]
async fn followers_that_read_nothing_take_a_bounded_part_and_hold_up_nobody() {
    let vendor = Script::new(LATENCY);
    for number in 0..JOBS {
        vendor.set_payload(&id(number), JobState::Running, &format!("\"{}\"", "x".repeat(PAYLOAD)));
    }
    let net = Arc::new(Net::default());
    let mut owner = Replica::start(&net, 1, Arc::clone(&vendor) as _, 200);
    owner.lease.send_replace(belief(1, 1));
    owner.becomes(Role::Owner).await;
    let mut at_owner: Vec<_> = (0..JOBS).map(|number| owner.watch(&id(number))).collect();
    for watch in &mut at_owner {
        assert_eq!(event(watch).await, "Running");
    }
    for dead in 1000..1000 + DEAD {
        net.send(dead, 1, envelope(dead, Kind::Open(Open { backend: "vendor".into(), digest: 1 })));
        let frame = Frame { number: 1, data: interest().into(), ..Frame::default() };
        net.send(dead, 1, envelope(dead, Kind::Frame(frame)));
    }
    pass(SECOND / 2).await;
    assert_eq!(owner.member.followers(), 300);
    // Each alone would have had 4 MiB.
    let most = SHARED + 300 * 2 * PAYLOAD;
    let held = owner.member.in_flight();
    assert!((SHARED / 2..=most).contains(&held), "{held} bytes in flight");

    let mut healthy = Replica::start(&net, 2, Arc::clone(&vendor) as _, 200);
    healthy.lease.send_replace(belief(2, 1));
    healthy.becomes(Role::Follower { owner: 1 }).await;
    let began = Instant::now();
    let mut watches: Vec<_> = (0..20).map(|number| healthy.watch(&id(number))).collect();
    for watch in &mut watches {
        assert_eq!(event(watch).await, "Running");
    }
    assert!(began.elapsed() < 2 * SECOND, "{:?}", began.elapsed());
    assert_eq!(owner.member.followers(), 301, "it did not wait for the end of the others");
    assert_eq!(*healthy.role.borrow(), Role::Follower { owner: 1 });
    assert!(owner.member.in_flight() <= most, "{}", owner.member.in_flight());

    // They say that they are there, and acknowledge nothing.
    for _ in 0..4 {
        pass(SECOND).await;
        for dead in 1000..1000 + DEAD {
            net.send(dead, 1, envelope(dead, keep_alive(1)));
        }
    }
    pass(SECOND).await;
    assert_eq!(owner.member.followers(), 1, "the healthy one");
    assert!(owner.member.in_flight() < 1 << 20, "{}", owner.member.in_flight());
}

#[tokio::test(start_paused = true)]
async fn session_that_is_begun_anew_ends_the_one_before() {
    let vendor = Script::new(LATENCY);
    let net = Arc::new(Net::default());
    let mut owner = Replica::start(&net, 1, Arc::clone(&vendor) as _, 200);
    owner.lease.send_replace(belief(1, 1));
    owner.becomes(Role::Owner).await;
    let open = |session| {
        let kind = Some(Kind::Open(Open { backend: "vendor".into(), digest: 1 }));
        net.send(5, 1, Envelope { from: 5, session, kind }.encode_to_vec().into());
    };
    for session in [1, 2, 3, 3] {
        open(session);
    }
    pass(SECOND / 10).await;
    assert_eq!((owner.member.followers(), owner.member.replicas()), (1, 2));
}
