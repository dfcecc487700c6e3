//! What an outage costs, and how it ends.

use std::sync::Arc;

use crate::{
    engine::{
        PollPlan,
        tests::{
            test_backend::*,
            vendor_with_failing_jobs::{FAILURES, FaultyVendor, LATENCY as RESPONSE_TIME, TIME_OUT},
        },
    },
    job::JobState,
};

/// Sizes of batches, and numbers of jobs.
const SIZES: [(usize, usize); 6] = [(1, 60), (2, 40), (7, 7), (20, 100), (100, 60), (200, 450)];

#[tokio::test(start_paused = true)]
async fn outage_costs_a_bisection_and_then_one_probe_a_back_off() {
    for failure in FAILURES {
        for (max_batch, jobs) in SIZES {
            for was_healthy in [false, true] {
                let context = format!("{failure:?}, {jobs} jobs in batches of {max_batch}, {was_healthy}");
                let upstream = FaultyVendor::new();
                let concurrency = 8;
                let plan = PollPlan { max_concurrency: nonzero(concurrency), ..plan(max_batch) };
                let vendor = TestBackend::with_upstream(plan, Arc::clone(&upstream) as Arc<_>);
                let ids = ids(jobs);
                if !was_healthy {
                    upstream.set_outage(Some(failure));
                }
                let watches = vendor.watch_all(&ids);
                if was_healthy {
                    pass(100 * SECOND).await;
                    upstream.set_outage(Some(failure));
                    upstream.forget_calls();
                }
                pass(600 * SECOND).await;
                assert!(watches.iter().all(is_interrupted), "{context}");
                vendor.backend.check();
                let calls = upstream.calls();
                // From the second failure on the back-off is 15 s on average; the bound is
                // seven standard deviations above.
                let by_backoff = 8 + 600 / 15 + 28;
                // Five failures in a row open the circuit breaker, and polls in flight together
                // count as one.
                let first = 5 * concurrency.min(jobs.div_ceil(max_batch));
                let log2 = max_batch.next_power_of_two().ilog2() as usize;
                // A refusal of some jobs says nothing of those that were never polled.
                let never_polled = if failure.is_refusal() && !was_healthy { jobs } else { 0 };
                let most = by_backoff + first + log2 + never_polled;
                assert!(calls.len() <= most, "{context}: {} requests", calls.len());
                let start = calls[0].at;
                let probes = calls.iter().filter(|call| call.at > start + 120 * SECOND);
                let probes: Vec<_> = probes.collect();
                assert!(probes.iter().all(|call| call.ids.len() == 1), "{context}: a probe is one job");
                for pair in probes.windows(2) {
                    assert!(pair[1].at - pair[0].at >= SECOND, "{context}: one probe, then a back-off");
                }

                upstream.set_outage(None);
                for id in &ids {
                    upstream.end(id);
                }
                // The last probe may hang, and be followed by the longest back-off. Then the
                // size of batches grows from one.
                let polls = u32::try_from(log2 + jobs.div_ceil(max_batch)).unwrap();
                pass(TIME_OUT + 30 * SECOND + 2 * polls * RESPONSE_TIME).await;
                let open = watches.iter().filter(|watch| !state(watch).is_some_and(JobState::is_terminal));
                let open: Vec<_> = open.map(|watch| &watch.job().id).collect();
                assert!(open.is_empty(), "{context}: {open:?}");
            }
        }
    }
}
