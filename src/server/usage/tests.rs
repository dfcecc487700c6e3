//! Room for connections, calls and messages.

use tokio::time::{advance, timeout};

use super::*;

const KIB: usize = 1 << 10;

fn address(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

/// 1600 KiB for calls and messages: 400 for an address, 100 for a connection.
fn usage() -> Arc<Usage> {
    let room = Room::new((1600 * KIB + 16 * IDLE_CONNECTION_BYTES) as u64, 16, 4);
    assert_eq!(
        (room.bytes, room.bytes_per_address, room.bytes_per_connection),
        (1600 * KIB, 400 * KIB, 100 * KIB)
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
    assert_eq!(calls.len(), 10, "75 of 100 KiB");
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
    let charge = connection.charge(100 * KIB);
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
/// their address waits. The bytes of the second one move.
async fn closed_while_another_waits(bytes: usize) -> [bool; 2] {
    let usage = usage();
    let [still, moving, waiting] = [(); 3].map(|()| usage.connect(address(1)).unwrap());
    let _still = still.charge(bytes);
    let _moving = moving.charge(200 * KIB);
    let _calls: Vec<_> = (0..8).map_while(|_| waiting.begin_call(0)).collect();
    let mut sweep = Box::pin(usage.sweep());
    // Long before anyone waits.
    assert!(timeout(Duration::from_mins(1), &mut sweep).await.is_err());
    let moves = async {
        for _ in 0..30 {
            advance(Duration::from_millis(500)).await;
            drop(moving.charge(1));
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
