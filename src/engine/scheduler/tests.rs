//! Tests of when polls are due.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn due(class: Class, caller: u64, deadline: Instant) -> Due {
    Due { class, caller: CallerKey(caller), deadline }
}

#[test]
fn waiting_calls_come_first_by_deadline_and_leave_every_fifth_permit_to_overdue_repolls() {
    let now = Instant::now();
    let mut scheduler = Scheduler::default();
    for job in 0..20 {
        scheduler.schedule(job, now);
    }
    scheduler.advance(now, |job| match job {
        0..10 => due(Class::Repoll, 1, now),
        // The later ones have the earlier deadlines.
        job => due(Class::Waiting, 1, now + SECOND * u32::try_from(100 - job).unwrap()),
    });
    let mut polled = Vec::new();
    while let Some(class) = scheduler.next_class() {
        polled.push(scheduler.pop(class).unwrap().0);
    }
    assert_eq!(polled, [19, 18, 17, 16, 0, 15, 14, 13, 12, 1, 11, 10, 2, 3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn callers_take_turns_so_that_many_jobs_do_not_delay_anothers_single_one() {
    let now = Instant::now();
    for class in [Class::Waiting, Class::Repoll, Class::Quarantined] {
        let mut scheduler = Scheduler::default();
        for job in 0..1001 {
            scheduler.schedule(job, now);
            scheduler.advance(now, |job| due(class, u64::from(job == 1000), now + SECOND));
        }
        let polled: Vec<usize> = (0..3).map(|_| scheduler.pop(class).unwrap().0).collect();
        assert_eq!(polled, [0, 1000, 1], "{class:?}");
    }
}

#[test]
fn waiting_position_counts_the_turns_of_all_callers() {
    let now = Instant::now();
    let mut scheduler = Scheduler::default();
    for job in 0..510 {
        scheduler.schedule(job, now);
    }
    // 500 jobs of one caller, ten of another.
    scheduler.advance(now, |job| due(Class::Waiting, u64::from(job >= 500), now + 10 * SECOND));
    let position = |caller, seconds| scheduler.waiting_position(CallerKey(caller), now + SECOND * seconds);
    assert_eq!(position(2, 10), 1 + 2, "behind one job of each");
    assert_eq!(position(0, 10), 1 + 500 + 10);
    assert_eq!(position(0, 9), 1 + 1, "its deadline is the earliest of its caller's");
}

#[test]
fn job_that_is_ready_can_change_its_class() {
    let now = Instant::now();
    let mut scheduler = Scheduler::default();
    scheduler.schedule(7, now);
    scheduler.advance(now + SECOND, |_| due(Class::Repoll, 1, now));
    assert_eq!(scheduler.overdue_since(), Some(now));
    scheduler.make_ready(7, now + SECOND, due(Class::Waiting, 2, now + SECOND));
    assert!(scheduler.has(Class::Waiting) && !scheduler.has(Class::Repoll));
    assert_eq!(scheduler.pop(Class::Waiting), Some((7, now)));
    assert_eq!((scheduler.due_at(7), scheduler.overdue_since()), (None, None));
}

proptest! {
    /// Whatever is scheduled, moved and removed: each job is in one place, and comes
    /// out once.
    #[test]
    fn every_scheduled_job_is_polled_exactly_once(
        steps in proptest::collection::vec((0..30_usize, 0..5_u64, 0..4_u64, 0..4_u8), 1..200),
    ) {
        let start = Instant::now();
        let mut now = start;
        let mut scheduler = Scheduler::default();
        let mut scheduled = BTreeSet::new();
        let classes = [Class::Waiting, Class::Repoll, Class::Quarantined];
        let classify = |job: usize| due(classes[job % 3], (job % 5) as u64, start);
        for (job, millis, caller, step) in steps {
            match step {
                0 => {
                    scheduler.schedule(job, now + Duration::from_millis(millis));
                    scheduled.insert(job);
                }
                1 => {
                    scheduler.remove(job);
                    scheduled.remove(&job);
                }
                2 => {
                    now += Duration::from_millis(millis);
                    scheduler.advance(now, classify);
                }
                _ => scheduler.make_ready(job, now, due(classes[(job + 1) % 3], caller, now)),
            }
            let ready: BTreeSet<usize> = scheduler.ready().collect();
            let timers: BTreeSet<usize> = scheduler.timers().map(|(_, job)| job).collect();
            prop_assert!(ready.is_disjoint(&timers));
            prop_assert_eq!(ready.union(&timers).copied().collect::<BTreeSet<_>>(), scheduled.clone());
        }
        scheduler.advance(now + SECOND, classify);
        for class in classes {
            while let Some((job, _)) = scheduler.pop(class) {
                prop_assert!(scheduled.remove(&job));
            }
        }
        prop_assert!(scheduled.is_empty());
    }
}
