use std::sync::atomic::{AtomicUsize, Ordering};

use super::{simulation::run, *};
use crate::{
    cluster::seeds::{for_each, seeds},
    job::{BackendFault, FaultKind},
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn no_seed_has_two_owners_and_each_settles_on_one() {
    let (seeds, changes) = (seeds(2000), AtomicUsize::new(0));
    let count = seeds.end - seeds.start;
    for_each(seeds, |seed| {
        let run = run(seed, None);
        assert_eq!(run.violation, None, "JOBWATCH_SEEDS={seed}..{}", seed + 1);
        changes.fetch_add(run.changes_of_owner, Ordering::Relaxed);
    });
    let changes = changes.into_inner();
    assert!(count < 100 || changes as u64 > 3 * count, "the faults change the owner: {changes}");
}

#[test]
fn each_mistake_is_found_by_the_checker() {
    use Mutant::{CountedFromReceipt, MissingIsFree, NoWaitForTheWindow, NotCompared, NotObserved};
    for mutant in [CountedFromReceipt, NotObserved, NotCompared, NoWaitForTheWindow, MissingIsFree] {
        let found = (0..2000).find_map(|seed| run(seed, Some(mutant)).violation);
        assert!(found.is_some(), "{mutant:?} is not found");
    }
}

fn member(incarnation: u64) -> Member {
    Member { name: format!("gateway-{incarnation}"), incarnation }
}

fn lease(incarnation: u64) -> Lease {
    Lease::new("vendor", member(incarnation), Timing::of_lease(15 * SECOND))
}

fn held_by(incarnation: u64, epoch: u64) -> LeaseValue {
    let Member { name: member, incarnation } = member(incarnation);
    LeaseValue { member, incarnation, epoch, ..LeaseValue::default() }
}

/// The value that it writes next, at `now`.
fn write(lease: &mut Lease, now: Instant) -> (LeaseValue, Option<u64>) {
    match lease.next(now, || None) {
        Action::Create(value) => (value, None),
        Action::Update(value, revision) => (value, Some(revision)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn durations_are_those_of_client_go() {
    let timing = Timing::of_lease(15 * SECOND);
    assert_eq!((timing.renew_deadline, timing.retry), (10 * SECOND, 2 * SECOND));
}

#[test]
fn value_is_replaced_only_after_it_was_unchanged_for_a_whole_lease() {
    let (mut lease, start) = (lease(1), Instant::now());
    assert_eq!(lease.next(start, || None), Action::Read);
    lease.observed(start, Some((7, held_by(2, 4))));
    let held = Ownership::HeldBy { member: "gateway-2".into(), incarnation: 2, epoch: 4 };
    assert_eq!(lease.ownership(start), held);
    assert_eq!(lease.changes_at(start), Some(start + 15 * SECOND));
    // A renewal is seen 10 s later.
    let renewed = start + 10 * SECOND;
    lease.observed(renewed, Some((8, LeaseValue { renewals: 1, ..held_by(2, 4) })));
    let mut now = renewed;
    while now < renewed + 15 * SECOND {
        match lease.next(now, || None) {
            Action::Read => lease.observed(now, Some((8, LeaseValue { renewals: 1, ..held_by(2, 4) }))),
            Action::Nothing { until } => now = until,
            other => panic!("{other:?} after {:?}", now - renewed),
        }
    }
    assert_eq!(lease.ownership(now), Ownership::Unknown);
    assert!(now <= renewed + 15 * SECOND + SECOND / 2, "{:?}", now - renewed);
    let (value, revision) = write(&mut lease, now);
    assert_eq!((revision, value.epoch, &*value.member), (Some(8), 5, "gateway-1"));
    lease.written(now + SECOND, now, Ok(9));
    let Ownership::Owner { epoch, until, full_rate_from, pause } = lease.ownership(now + SECOND) else {
        panic!("{lease:?}")
    };
    assert_eq!((epoch, until, pause), (5, now + 10 * SECOND, None));
    assert_eq!(full_rate_from, now + SECOND, "the owner before has stopped long ago");
}

#[test]
fn missing_value_is_created_without_a_holder_and_observed_for_a_whole_lease() {
    let (mut lease, start) = (lease(1), Instant::now());
    lease.observed(start, None);
    let (vacant, revision) = write(&mut lease, start);
    assert_eq!((vacant.incarnation, &*vacant.member, revision), (0, "", None));
    lease.written(start, start, Ok(1));
    assert_eq!(lease.ownership(start), Ownership::Unknown);
    let mut now = start;
    loop {
        match lease.next(now, || None) {
            Action::Nothing { until } => now = until,
            Action::Read => lease.observed(now, Some((1, vacant.clone()))),
            bid => {
                assert!(now >= start + 15 * SECOND, "{bid:?} after {:?}", now - start);
                assert!(matches!(bid, Action::Update(LeaseValue { epoch: 1, .. }, 1)), "{bid:?}");
                return;
            }
        }
    }
}

#[test]
fn owner_that_finds_its_value_gone_writes_it_again() {
    let (mut lease, now) = (owner(1), Instant::now());
    lease.observed(now, None);
    let (value, revision) = write(&mut lease, now);
    assert_eq!((value.incarnation, value.epoch, revision), (1, 5, None));
    lease.written(now, now, Err(WriteError::Conflict));
    lease.observed(now, Some((100, LeaseValue::default())));
    let (value, revision) = write(&mut lease, now);
    assert_eq!((value.incarnation, value.epoch, revision), (1, 5, Some(100)));
    assert!(matches!(lease.ownership(now), Ownership::Owner { .. }));
}

#[test]
fn owner_renews_from_when_it_sent_and_lapses_at_its_deadline() {
    let (mut lease, start) = (owner(1), Instant::now());
    let Ownership::Owner { until, .. } = lease.ownership(start) else { panic!("{lease:?}") };
    let renewal = start + 3 * SECOND;
    let (value, revision) = write(&mut lease, renewal);
    assert_eq!((value.epoch, value.released, revision), (5, false, Some(9)));
    lease.written(renewal + 4 * SECOND, renewal, Ok(10));
    let Ownership::Owner { until: renewed, .. } = lease.ownership(renewal) else { panic!("{lease:?}") };
    assert_eq!(renewed, renewal + 10 * SECOND, "not from when the answer came");
    assert!(renewed > until);
    assert_eq!(lease.ownership(renewed), Ownership::Unknown);
    // A renewal without an answer is sent again, and its conflict is looked at.
    assert_eq!(write(&mut lease, renewed).1, Some(10));
    lease.written(renewed, renewed, Err(WriteError::Failed));
    assert_eq!(write(&mut lease, renewed + SECOND).1, Some(10));
    lease.written(renewed + SECOND, renewed, Err(WriteError::Conflict));
    assert_eq!(lease.next(renewed + SECOND, || None), Action::Read);
    lease.observed(renewed + SECOND, Some((11, held_by(1, 5))));
    assert_eq!(lease.ownership(renewed + SECOND), Ownership::Unknown, "it has lapsed");
    assert_eq!(write(&mut lease, renewed + SECOND).1, Some(11), "nobody else has it");
}

/// A lease that is held since just now, at revision 9 and in epoch 5.
fn owner(incarnation: u64) -> Lease {
    let (mut lease, now) = (lease(incarnation), Instant::now());
    lease.observed(now, Some((8, LeaseValue { released: true, ..held_by(2, 4) })));
    let bids_at = now + SECOND;
    let (value, revision) = write(&mut lease, bids_at);
    assert_eq!((value.epoch, revision), (5, Some(8)));
    lease.written(bids_at, now, Ok(9));
    lease
}

#[test]
fn owner_that_sees_another_stops_at_once() {
    let (mut lease, now) = (owner(1), Instant::now());
    lease.observed(now, Some((10, held_by(3, 6))));
    let held = Ownership::HeldBy { member: "gateway-3".into(), incarnation: 3, epoch: 6 };
    assert_eq!(lease.ownership(now), held);
}

#[test]
fn released_lease_is_taken_within_half_a_second_and_its_rate_one_later() {
    for incarnation in 1..50 {
        let (mut lease, start) = (lease(incarnation), Instant::now());
        lease.observed(start, Some((8, LeaseValue { released: true, ..held_by(99, 4) })));
        assert_eq!(lease.ownership(start), Ownership::Unknown);
        let now = match lease.next(start, || None) {
            Action::Nothing { until } => until,
            _ => start,
        };
        assert!(now <= start + SECOND / 2, "{:?}", now - start);
        write(&mut lease, now);
        lease.written(now, now, Ok(9));
        let Ownership::Owner { full_rate_from, .. } = lease.ownership(now) else { panic!("{lease:?}") };
        assert_eq!(full_rate_from, start + Duration::from_millis(1020));
    }
}

#[test]
fn owner_that_releases_stops_before_it_writes() {
    let (mut lease, now) = (owner(1), Instant::now());
    lease.release(now);
    assert_eq!(lease.ownership(now), Ownership::Unknown);
    assert!(!lease.is_released());
    let (value, revision) = write(&mut lease, now);
    assert_eq!((value.released, revision), (true, Some(9)));
    lease.written(now, now, Ok(10));
    assert!(lease.is_released());
    assert!(matches!(lease.next(now + 100 * SECOND, || None), Action::Nothing { .. }), "it bids no more");
}

#[test]
fn release_that_conflicts_with_an_earlier_renewal_is_written_again() {
    let (mut lease, now) = (owner(1), Instant::now());
    lease.release(now);
    write(&mut lease, now);
    lease.written(now, now, Err(WriteError::Conflict));
    assert!(!lease.is_released());
    assert_eq!(lease.next(now, || None), Action::Read);
    lease.observed(now, Some((10, held_by(1, 5))));
    assert_eq!(write(&mut lease, now).1, Some(10));
}

#[test]
fn pause_of_the_backend_reaches_the_next_owner() {
    let (mut lease, now) = (owner(1), Instant::now());
    let fault = BackendFault { retry_after: Some(60 * SECOND), ..FaultKind::Throttled.into() };
    let pause = Pause { until: now + 60 * SECOND, fault: fault.clone(), digest: 7 };
    let throttled = || Some(pause.clone());
    let renewal = now + 3 * SECOND;
    let Action::Update(value, _) = lease.next(renewal, throttled) else { panic!("{lease:?}") };
    let written = value.pause.clone().unwrap();
    let kind = FaultKind::Throttled.to_string();
    assert_eq!((written.remaining_ms, written.reason, written.digest), (57_000, kind, 7));

    let mut successor = super::Lease::new("vendor", member(2), Timing::of_lease(15 * SECOND));
    successor.observed(renewal, Some((10, LeaseValue { released: true, ..value })));
    let (bid, _) = write(&mut successor, renewal + SECOND);
    assert_eq!(bid.pause.map(|pause| pause.remaining_ms), Some(56_000), "for the one after it");
    successor.written(renewal + SECOND, renewal + SECOND, Ok(11));
    let expected = Pause { until: renewal + 57 * SECOND, ..pause.clone() };
    assert!(expected.is_requested());
    let inherited = |lease: &Lease| match lease.ownership(renewal + SECOND) {
        Ownership::Owner { pause, .. } => pause,
        other => panic!("{other:?}"),
    };
    assert_eq!(inherited(&successor), Some(expected));
    // From then on it is what the engine says.
    assert_eq!(write(&mut successor, renewal + 3 * SECOND).0.pause, None);
}

#[test]
fn pause_is_known_to_those_that_read_the_lease_until_it_is_over() {
    let now = Instant::now();
    let fault = BackendFault { retry_after: Some(60 * SECOND), ..FaultKind::Throttled.into() };
    let pause = Pause { until: now + 20 * SECOND, fault, digest: 7 };
    let mut lease = super::Lease::new("vendor", member(2), Timing::of_lease(15 * SECOND));
    let value = LeaseValue { pause: pause.to_message(now), ..held_by(1, 5) };
    lease.observed(now, Some((10, value)));
    assert_eq!(lease.inherited(now), Some(pause.clone()));
    // Also when the owner has gone, and nobody is in its place.
    let later = now + 16 * SECOND;
    assert_eq!((lease.ownership(later), lease.inherited(later)), (Ownership::Unknown, Some(pause)));
    assert_eq!(lease.inherited(now + 20 * SECOND), None);
}

#[test]
fn pause_of_an_earlier_release_is_no_wish_of_the_vendor() {
    let now = Instant::now();
    let message = LeasePause { remaining_ms: 5000, reason: "throttled".into(), ..LeasePause::default() };
    let pause = Pause::from_message(&message, now);
    let fault = FaultKind::Unavailable { why: "throttled".into() }.into();
    assert_eq!(pause, Pause { until: now + 5 * SECOND, fault, digest: 0 });
    assert!(!pause.is_requested());
}

#[test]
fn replicas_have_another_order_for_each_backend() {
    let first = |backend: &str| {
        let delay =
            |incarnation| Lease::new(backend, member(incarnation), Timing::of_lease(15 * SECOND)).delay;
        (1..=3).min_by_key(|incarnation| delay(*incarnation)).unwrap()
    };
    let mut counts = [0; 4];
    for backend in 0..300 {
        counts[usize::try_from(first(&format!("backend-{backend}"))).unwrap()] += 1;
    }
    assert!(counts[1..].iter().all(|count| (60..140).contains(count)), "{counts:?}");
}

#[test]
fn hint_has_a_challenger_read_at_once_and_not_the_owner() {
    let (mut challenger, now) = (lease(1), Instant::now());
    challenger.observed(now, Some((8, held_by(2, 4))));
    assert!(matches!(challenger.next(now, || None), Action::Nothing { .. }));
    challenger.hint(now);
    assert_eq!(challenger.next(now, || None), Action::Read);
    let mut owner = owner(1);
    owner.hint(now);
    assert!(matches!(owner.next(now, || None), Action::Nothing { .. }));
}
