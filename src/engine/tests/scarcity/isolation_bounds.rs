//! What failing jobs cost the others.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use proptest::prelude::*;
use tokio::time::Instant;

use crate::engine::{
    PollInterval, PollPlan, Subscription,
    tests::{
        test_backend::*,
        vendor_with_failing_jobs::{FAILURES, Failure, FaultyVendor, TIME_OUT},
    },
};

#[derive(Clone, Debug)]
struct Case {
    jobs: usize,
    max_batch: usize,
    max_concurrency: usize,
    failing: Vec<(usize, Failure)>,
    /// All jobs were answered before some of them began to fail.
    was_healthy: bool,
}

/// What it took until every healthy job was answered.
#[derive(Debug)]
struct Cost {
    polls: usize,
    time: Duration,
    /// Every poll failed for so long that the circuit breaker opened.
    opened: bool,
}

fn log2(batch: usize) -> usize {
    batch.next_power_of_two().ilog2() as usize
}

/// Long enough that no poll is repeated for its interval meanwhile.
const INTERVAL: Duration = Duration::from_hours(1);

/// So many polls side by side are as good as any number.
const UNLIMITED: usize = 64;

fn plan_of(case: &Case) -> PollPlan {
    let interval = PollInterval { min: INTERVAL, max: INTERVAL };
    PollPlan { interval, max_concurrency: nonzero(case.max_concurrency), ..plan(case.max_batch) }
}

async fn measure(case: &Case) -> Cost {
    let upstream = FaultyVendor::new();
    let vendor = TestBackend::with_upstream(plan_of(case), Arc::clone(&upstream) as Arc<_>);
    let ids = ids(case.jobs);
    let fail = || {
        for (index, failure) in &case.failing {
            upstream.fail(&ids[index % ids.len()], *failure);
        }
    };
    if !case.was_healthy {
        fail();
    }
    let watches = vendor.watch_all(&ids);
    if case.was_healthy {
        pass(SECOND).await;
        assert!(watches.iter().all(is_running));
        fail();
        upstream.forget_calls();
        pass(INTERVAL / 2).await;
        assert_eq!(upstream.calls().len(), 0);
        for watch in &watches {
            watch.poll_now();
        }
    }
    // Each was polled once so far, or never.
    let polls_before = u64::from(case.was_healthy);
    let began = Instant::now();
    let mut opened = false;
    let failing: BTreeSet<usize> = case.failing.iter().map(|(index, _)| index % ids.len()).collect();
    let healthy: Vec<&Subscription> =
        (0..ids.len()).filter(|index| !failing.contains(index)).map(|index| &watches[index]).collect();
    let is_answered = |watch: &Subscription| watch.look(|record| record.last_answer > polls_before);
    while !healthy.iter().all(|watch| is_answered(watch)) {
        pass(SECOND / 4).await;
        // It opens for a second at least.
        opened |= vendor.backend.state().breaker.is_open();
        assert!(began.elapsed() < Duration::from_mins(20), "{case:?}: {:?}", upstream.calls());
    }
    let time = began.elapsed();
    vendor.backend.check();
    // Polls of a job that failed alone before are spaced by its own back-off.
    let mut alone = BTreeSet::new();
    let failing: BTreeSet<&String> = failing.iter().map(|index| &ids[*index]).collect();
    let mut polls = upstream.calls();
    polls.retain(|call| {
        call.ids.len() > 1 || !failing.contains(&call.ids[0]) || alone.insert(call.ids[0].clone())
    });
    Cost { polls: polls.len(), time, opened }
}

fn case() -> impl Strategy<Value = Case> {
    let failure = (0..FAILURES.len()).prop_map(|index| FAILURES[index]);
    let max_concurrency = prop_oneof![Just(8), Just(UNLIMITED)];
    (2..=200_usize, 1..=3_usize, 0..200_usize, max_concurrency, any::<bool>()).prop_flat_map(
        move |(max_batch, batches, rest, max_concurrency, was_healthy)| {
            let jobs = (max_batch * batches - rest % max_batch).max(2);
            let failing = proptest::collection::vec((0..jobs, failure.clone()), 1..=10);
            failing.prop_map(move |failing| Case { jobs, max_batch, max_concurrency, failing, was_healthy })
        },
    )
}

fn on_a_paused_clock<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn failing_jobs_cost_few_polls_and_delay_healthy_jobs_by_few_time_outs(case in case()) {
        let Cost { polls, time, opened } = on_a_paused_clock(measure(&case));
        let failing = case.failing.iter().map(|(index, _)| index).collect::<BTreeSet<_>>().len();
        let log2 = log2(case.max_batch);
        let extra = polls.saturating_sub(case.jobs.div_ceil(case.max_batch));
        prop_assert!(extra <= 2 * failing * log2 + 4, "{} extra polls", extra);
        let backoff = plan(1).backoff.max;
        let time_outs = u32::try_from(log2 + 2).unwrap();
        // Where log2 polls of the first parts failed, the backend is taken for down. Each
        // probe that fails rules out one job.
        let probes = if opened { u32::try_from(failing).unwrap() } else { 0 };
        let most = TIME_OUT * (time_outs + probes) + backoff * (1 + probes);
        let is_limited = case.max_concurrency < UNLIMITED;
        prop_assert!(is_limited || time <= most, "{:?}, opened {}", time, opened);
    }

    #[test]
    fn healthy_jobs_share_batches_after_failing_ones_are_quarantined(
        case in case(),
    ) {
        on_a_paused_clock(settle(&case))?;
    }
}

/// Lets the failing jobs be found, and looks at the polls of the time after that.
async fn settle(case: &Case) -> Result<(), TestCaseError> {
    let upstream = FaultyVendor::new();
    let rate = 20;
    let plan = PollPlan {
        max_concurrency: nonzero(UNLIMITED),
        requests_per_second: per_second(rate),
        ..plan(case.max_batch)
    };
    let vendor = TestBackend::with_upstream(plan, Arc::clone(&upstream) as Arc<_>);
    let ids = ids(case.jobs);
    let failing: BTreeSet<&String> = case.failing.iter().map(|(index, _)| &ids[*index]).collect();
    for (index, failure) in &case.failing {
        upstream.fail(&ids[*index], *failure);
    }
    let watches = vendor.watch_all(&ids);
    pass(600 * SECOND).await;
    upstream.forget_calls();
    let seconds = 200;
    pass(SECOND * seconds).await;
    vendor.backend.check();
    for (id, watch) in ids.iter().zip(&watches) {
        prop_assert_eq!(failing.contains(id), is_interrupted(watch), "{}", id);
    }
    let (mut alone, mut batches) = (0, 0);
    for call in upstream.calls() {
        let fails = call.ids.iter().any(|id| failing.contains(id));
        prop_assert!(!fails || call.ids.len() == 1, "a quarantined job is polled alone");
        alone += usize::from(fails);
        batches += usize::from(!fails);
    }
    prop_assert!(alone <= (seconds * rate / 10) as usize, "{} polls of quarantined jobs", alone);
    let healthy = ids.len() - failing.len();
    let intervals = (seconds / 10 + 1) as usize;
    // Groups that became due at different times merge as long as they fit into one batch.
    let most = intervals * (2 * healthy).div_ceil(case.max_batch);
    prop_assert!(batches <= most, "{} batches for {} jobs, expected {}", batches, healthy, most);
    Ok(())
}
