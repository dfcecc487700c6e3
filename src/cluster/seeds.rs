//! Many seeds of a simulation, on all cores.

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

/// The seeds of this run: those of `JOBWATCH_SEEDS`, which is FROM..TO, or the first so many.
pub(super) fn seeds(count: u64) -> Range<u64> {
    let Ok(seeds) = std::env::var("JOBWATCH_SEEDS") else { return 0..count };
    let range = seeds.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    range.unwrap_or_else(|| panic!("JOBWATCH_SEEDS is FROM..TO, such as 2000..52000, not {seeds}"))
}

/// Runs each of the seeds once. A check that fails panics with its seed.
pub(super) fn for_each(seeds: Range<u64>, check: impl Fn(u64) + Sync) {
    let count = seeds.end.saturating_sub(seeds.start);
    let next = AtomicU64::new(seeds.start);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    check(seed);
                }
            });
        }
    });
    println!("{count} seeds");
}

#[test]
fn each_seed_runs_once_and_a_failure_is_not_lost() {
    let (sum, runs) = (AtomicU64::new(0), AtomicU64::new(0));
    for_each(5..105, |seed| {
        sum.fetch_add(seed, Ordering::Relaxed);
        runs.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!((sum.into_inner(), runs.into_inner()), (5450, 100));
    let failing = || for_each(0..100, |seed| assert_ne!(seed, 50));
    assert!(std::panic::catch_unwind(failing).is_err());
}
