//! Room for connections, calls and messages.

use std::time::Duration;

use tokio::time::{advance, timeout};

use super::*;

const KIB: usize = 1 << 10;

fn address(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

/// 1600 KiB for calls and messages: 400 for an address, 200 for a connection.
fn usage() -> Arc<Usage> {
    let room = Room::new((1600 * KIB + 16 * 40 * KIB) as u64, 40 * KIB, 16, 4);
    assert_eq!(
        (room.bytes, room.bytes_per_address, room.bytes_per_connection),
        (1600 * KIB, 400 * KIB, 200 * KIB)
    );
    Usage::new(room)
}

#[test]
fn address_has_its_share_of_connections_until_they_end() {
    let usage = usage();
    let mut open: Vec<_> = (0..4).map(|_| usage.connect(address(1)).unwrap()).collect();
    assert!(usage.connect(address(1)).is_none());
    assert!(usage.connect(address(2)).is_some());
    open.pop();
    assert!(usage.connect(address(1)).is_some());
    open.clear();
    assert!(lock(&usage.addresses).is_empty());
}

#[test]
fn hosts_of_one_ipv6_network_share() {
    let of = |text: &str| network(text.parse().unwrap());
    assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
    assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
    assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
}

#[test]
fn calls_leave_a_quarter_of_the_room_to_messages() {
    let usage = usage();
    let connection = usage.connect(address(1)).unwrap();
    let calls: Vec<_> = (0..100).map_while(|_| connection.begin_call(0)).collect();
    assert_eq!(calls.len(), 15, "150 of 200 KiB");
    assert!(connection.has_room());
    let other = usage.connect(address(1)).unwrap();
    assert!(other.begin_call(0).is_some());
    drop(calls);
    assert_eq!((connection.calls(), usage.used.load(Relaxed)), (0, 0));
}

#[test]
fn first_call_of_a_connection_always_has_room() {
    let usage = usage();
    let full = usage.connect(address(1)).unwrap();
    let _charge = full.charge(2000 * KIB);
    let other = usage.connect(address(2)).unwrap();
    let first = other.begin_call(0);
    assert!(first.is_some() && other.begin_call(0).is_none());
}

#[tokio::test(start_paused = true)]
async fn message_waits_until_its_connection_has_room() {
    let usage = usage();
    let connection = usage.connect(address(1)).unwrap();
    let charge = connection.charge(200 * KIB);
    assert!(timeout(Duration::from_mins(1), connection.wait_for_room()).await.is_err());
    let waits = tokio::spawn({
        let connection = Arc::clone(&connection);
        async move { connection.wait_for_room().await }
    });
    tokio::task::yield_now().await;
    drop(charge);
    waits.await.unwrap();
    assert_eq!(usage.waiting.load(Relaxed), 0);
}

/// Whether each of the connections is closed after fifteen seconds in which another of
/// their address waits. The client of the second one reads; the first one's only cancels.
async fn closed_while_another_waits(bytes: usize) -> [bool; 2] {
    let usage = usage();
    let [still, moving, waiting] = [(); 3].map(|()| usage.connect(address(1)).unwrap());
    let _still = still.charge(bytes);
    let read = moving.charge(200 * KIB);
    let _calls: Vec<_> = (0..8).map_while(|_| waiting.begin_call(0)).collect();
    let mut sweep = Box::pin(sweep(&usage));
    // Long before anyone waits.
    assert!(timeout(Duration::from_mins(1), &mut sweep).await.is_err());
    let moves = async {
        for _ in 0..30 {
            advance(Duration::from_millis(500)).await;
            read.moved(4 * KIB);
            drop(still.charge(4 * KIB));
        }
    };
    tokio::select! {
        () = sweep => {}
        () = waiting.wait_for_room() => {}
        () = moves => {}
    }
    [still.is_closed(), moving.is_closed()]
}

#[tokio::test(start_paused = true)]
async fn connection_that_stands_still_is_closed_while_others_wait_for_its_room() {
    assert_eq!(closed_while_another_waits(300 * KIB).await, [true, false]);
}

#[tokio::test(start_paused = true)]
async fn connection_that_stands_still_is_left_alone_where_there_is_room() {
    assert_eq!(closed_while_another_waits(100 * KIB).await, [false, false]);
}

/// Takes all that connections of this address can get, message by message.
fn take_all(usage: &Arc<Usage>, last: u8) -> Vec<(Arc<ConnectionUsage>, Vec<Charge>)> {
    let connections = std::iter::from_fn(|| usage.connect(address(last)));
    let take = |connection: Arc<ConnectionUsage>| {
        let charges = std::iter::from_fn(|| connection.has_room().then(|| connection.charge(KIB))).collect();
        (connection, charges)
    };
    connections.map(take).collect()
}

#[test]
fn addresses_that_take_all_they_can_leave_room_for_another() {
    for addresses in [1, 4, 10] {
        let usage = usage();
        let held: Vec<_> = (1..=addresses).flat_map(|last| take_all(&usage, last)).collect();
        let left = 1600 * KIB - usage.used.load(Relaxed);
        assert!(left > 1600 * KIB / 16, "{addresses} addresses leave {} KiB", left / KIB);
        let newcomer = usage.connect(address(100)).unwrap();
        assert!(newcomer.begin_call(0).is_some() && newcomer.has_room(), "beside {addresses} addresses");
        assert!(held.iter().all(|(connection, _)| !connection.has_room()));
        drop(held);
    }
}

#[test]
fn connections_that_take_all_they_can_leave_room_for_another_of_their_address() {
    let usage = usage();
    let connect = || usage.connect(address(1)).unwrap();
    let take_all = |connection: Arc<ConnectionUsage>| {
        let take = || connection.has_room().then(|| connection.charge(KIB));
        std::iter::from_fn(take).collect::<Vec<_>>()
    };
    let _held = [take_all(connect()), take_all(connect()), take_all(connect())];
    let newcomer = connect();
    assert!(newcomer.begin_call(0).is_some() && newcomer.has_room());
}

#[test]
fn lone_connection_of_a_lone_address_can_hold_its_whole_share() {
    let usage = usage();
    let connection = usage.connect(address(1)).unwrap();
    let take = || connection.has_room().then(|| connection.charge(KIB));
    let held: Vec<_> = std::iter::from_fn(take).collect();
    assert_eq!(held.len(), 200);
    let others = take_all(&usage, 1);
    assert!((370 * KIB..=400 * KIB).contains(&usage.used.load(Relaxed)));
    drop(others);
}
