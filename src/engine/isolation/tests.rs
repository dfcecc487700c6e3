//! Isolation of failing jobs, as pure state.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// Isolates `failing` among `batch` jobs, with as many parts polled side by side as
/// there are `slots`. Returns what was quarantined, the polls, in
/// which round the last healthy job was answered, and whether it is taken for an outage.
fn isolate(batch: usize, failing: &BTreeSet<usize>, slots: usize) -> (BTreeSet<usize>, usize, usize, bool) {
    let mut isolation = Isolation::default();
    let mut quarantined = BTreeSet::new();
    let mut answered = BTreeSet::new();
    let (mut polls, mut rounds, mut outage) = (1, 1, false);
    let mut answered_in = 1;
    let mut settle = |verdict, quarantined: &mut BTreeSet<usize>| match verdict {
        Verdict::Pending => {}
        Verdict::Quarantine(job) => assert!(quarantined.insert(job)),
        Verdict::Outage { .. } => outage = true,
    };
    settle(isolation.failed((0..batch).collect(), None, false), &mut quarantined);
    while isolation.is_ready() {
        let parts: Vec<_> = std::iter::from_fn(|| isolation.take(|_| 0)).take(slots).collect();
        polls += parts.len();
        rounds += 1;
        let is_good = |part: &[usize]| part.iter().all(|job| !failing.contains(job));
        let any_good = parts.iter().any(|part| is_good(&part.jobs));
        for Part { jobs, split, .. } in parts {
            if is_good(&jobs) {
                quarantined.extend(isolation.something_succeeded());
                isolation.part_answered(split);
                answered.extend(jobs);
                answered_in = rounds;
            } else {
                settle(isolation.failed(jobs, Some(split), any_good), &mut quarantined);
            }
        }
    }
    if !outage {
        assert!(!isolation.is_active(), "nothing is left behind");
        assert_eq!(answered.len() + quarantined.len(), batch);
    }
    (quarantined, polls, answered_in, outage)
}

#[test]
fn one_failing_job_of_a_hundred_is_found_in_sixteen_polls() {
    for failing in 0..100 {
        let (found, polls, rounds, outage) = isolate(100, &BTreeSet::from([failing]), usize::MAX);
        assert_eq!((found, outage), (BTreeSet::from([failing]), false));
        assert!(polls <= 16 && rounds <= 8, "{polls} polls, {rounds} rounds");
    }
}

#[test]
fn outage_costs_log2_of_the_batch_size_in_polls() {
    for batch in [2, 3, 5, 64, 100, 200, 1000] {
        let (_, polls, _, outage) = isolate(batch, &(0..batch).collect(), usize::MAX);
        assert!(outage);
        assert_eq!(polls - 1, (batch.next_power_of_two().ilog2() as usize).max(2), "{batch}");
    }
}

#[test]
fn first_and_last_poll_without_a_success_are_for_trusted_jobs() {
    let mut isolation = Isolation::default();
    isolation.failed(vec![1, 2, 3, 4], None, false);
    let take = |isolation: &mut Isolation<_>| isolation.take(|job| *job).map(|part| part.jobs);
    assert_eq!(take(&mut isolation), Some(vec![4]));
    assert_eq!(take(&mut isolation), Some(vec![3]));
    assert_eq!(take(&mut isolation), None, "until something succeeds");
    isolation.something_succeeded();
    assert_eq!(take(&mut isolation), Some(vec![1, 2]));
}

/// Polls the next part, which has these jobs.
fn poll(isolation: &mut Isolation<usize>, jobs: impl IntoIterator<Item = usize>) -> Part<usize> {
    let part = isolation.take(|_| 0).unwrap();
    assert_eq!(part.jobs, jobs.into_iter().collect::<Vec<_>>());
    part
}

/// A batch of sixteen fails, and so does the half of it that has the first eight.
fn first_half_failed() -> Isolation<usize> {
    let mut isolation = Isolation::default();
    isolation.failed((0..16).collect(), None, true);
    let first = poll(&mut isolation, 0..8);
    let second = poll(&mut isolation, 8..16);
    isolation.part_answered(second.split);
    isolation.failed(first.jobs, Some(first.split), true);
    isolation
}

#[test]
fn half_whose_other_half_was_answered_is_halved_without_a_poll() {
    let mut isolation = first_half_failed();
    let answered = poll(&mut isolation, 0..4);
    isolation.part_answered(answered.split);
    let failed = poll(&mut isolation, 4..6);
    isolation.failed(failed.jobs, Some(failed.split), true);
    poll(&mut isolation, 6..8);
    let single = poll(&mut isolation, [4]);
    isolation.part_answered(single.split);
    let last = poll(&mut isolation, [5]);
    assert_eq!(isolation.failed(last.jobs, Some(last.split), true), Verdict::Quarantine(5));
}

#[test]
fn half_whose_other_half_failed_or_was_not_polled_is_polled_whole() {
    let mut isolation = first_half_failed();
    let failed = poll(&mut isolation, 0..4);
    isolation.failed(failed.jobs, Some(failed.split), true);
    poll(&mut isolation, 4..8);
    let mut isolation = first_half_failed();
    let cancelled = poll(&mut isolation, 0..4);
    isolation.part_dropped(cancelled.split);
    poll(&mut isolation, 4..8);
}

#[test]
fn other_parts_are_polled_before_a_half_whose_other_half_is_in_flight() {
    let mut isolation = first_half_failed();
    isolation.failed((20..24).collect(), None, true);
    let first = poll(&mut isolation, 0..4);
    poll(&mut isolation, 20..22);
    poll(&mut isolation, 22..24);
    poll(&mut isolation, 4..8);
    isolation.part_answered(first.split);
    assert!(!isolation.is_ready(), "nothing is left to halve");
}

#[test]
fn batch_that_failed_by_chance_costs_a_poll_of_each_half() {
    let (found, polls, _, outage) = isolate(100, &BTreeSet::new(), 1);
    assert_eq!((found, outage), (BTreeSet::new(), false));
    // The canary is one of its own.
    assert_eq!(polls - 1, 3);
}

#[test]
fn batch_whose_parts_are_all_answered_has_no_failing_job() {
    let mut isolation = Isolation::default();
    isolation.failed((0..10).collect(), None, false);
    while let Some(part) = isolation.take(|_| 0) {
        assert!(isolation.something_succeeded().is_empty());
        isolation.part_answered(part.split);
    }
    assert_eq!(isolation.finish(), Some(10));
    assert_eq!(isolation.finish(), None);
}

#[test]
fn suspect_is_quarantined_when_something_else_succeeds() {
    let mut isolation = Isolation::default();
    isolation.failed(vec!["bad", "good"], None, false);
    let canary = isolation.take(|job| *job == "bad").unwrap();
    assert_eq!(isolation.failed(canary.jobs, Some(canary.split), false), Verdict::Pending);
    let other = isolation.take(|_| 0).unwrap();
    assert_eq!(isolation.failed(other.jobs, Some(other.split), false), {
        Verdict::Outage { jobs: Vec::new(), suspects: vec!["bad", "good"] }
    });
    isolation.failed(vec!["a", "bad", "b", "c"], None, false);
    let canary = isolation.take(|job| *job == "bad").unwrap();
    assert_eq!(isolation.failed(canary.jobs, Some(canary.split), false), Verdict::Pending);
    let part = isolation.take(|job| *job == "a").unwrap();
    assert_eq!(part.jobs, ["a"]);
    assert_eq!(isolation.something_succeeded(), ["bad"]);
    isolation.part_answered(part.split);
    assert_eq!(isolation.take(|_| 0).unwrap().jobs, ["b", "c"]);
}

proptest! {
    #[test]
    fn all_failing_jobs_are_found_within_the_bound(
        batch in 2..200_usize,
        failing in proptest::collection::btree_set(0..200_usize, 1..12),
        slots in prop_oneof![1..8_usize, Just(usize::MAX)],
    ) {
        let failing: BTreeSet<usize> = failing.into_iter().filter(|job| *job < batch).collect();
        let (found, polls, rounds, outage) = isolate(batch, &failing, slots);
        let log2 = batch.next_power_of_two().ilog2() as usize;
        if outage {
            prop_assert!(polls <= 1 + log2);
        } else {
            prop_assert_eq!(&found, &failing);
            // One poll would have been sent anyway.
            prop_assert!(failing.is_empty() || polls - 1 <= 2 * failing.len() * log2 + 4);
            prop_assert!(slots < usize::MAX || rounds <= log2 + 2, "{} rounds", rounds);
        }
    }
}
