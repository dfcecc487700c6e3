//! The CPU of a poll by a definition, as a ratio to that of the adapter in code which says
//! the same.
//!
//! An unchanged poll splits the response and hashes each element; a changed one reads each
//! element besides. Both adapters take turns, and the ratio is of the CPU time of the thread:
//! other load on the machine counts little.

use std::{hint::black_box, num::NonZeroUsize, sync::Arc, time::Duration};

use bytes::Bytes;
use criterion::Criterion;
use http::Response;
use jobwatch::{
    job::{JobRef, PayloadHash},
    vendors::{
        Adapter, Claret, Datasaur, Encoding, Immuta, Kinetica, VendorConfig,
        declared::{Definition, backend},
    },
};
use rustix::time::{ClockId, clock_gettime};

use super::{base_url, claret_poll, datasaur_poll, immuta_poll, kinetica_poll};

/// Turns of each adapter, and about how long one takes.
const TURNS: usize = 60;
const TURN: Duration = Duration::from_millis(5);

/// One response, and both adapters that read it.
struct Row {
    name: &'static str,
    by_hand: Arc<dyn Adapter>,
    declared: Arc<dyn Adapter>,
    poll: (Vec<JobRef>, Response<Bytes>),
}

fn rows() -> Vec<Row> {
    let most = NonZeroUsize::new(1000).expect("not zero");
    let immuta: Arc<dyn Adapter> = Arc::new(Immuta::new(base_url(), most, false));
    let datasaur: Arc<dyn Adapter> = Arc::new(Datasaur::new(base_url(), most, None));
    let claret: Arc<dyn Adapter> = Arc::new(Claret::new(base_url(), "demo", None).expect("a tenant"));
    let kinetica: Arc<dyn Adapter> = Arc::new(Kinetica::new(base_url(), Encoding::Json));
    let immuta_declared = declared(include_str!("../../src/vendors/declared/tests/immuta.toml"), "");
    let datasaur_declared = declared(include_str!("../../src/vendors/declared/tests/datasaur.toml"), "");
    let claret_declared = declared(
        include_str!("../../src/vendors/declared/tests/claret.toml"),
        "params = { tenant = \"demo\" }",
    );
    let kinetica_declared = declared(include_str!("../../src/vendors/declared/tests/kinetica.toml"), "");
    let row = |name, by_hand: &Arc<dyn Adapter>, declared: &Arc<dyn Adapter>, poll| Row {
        name,
        by_hand: Arc::clone(by_hand),
        declared: Arc::clone(declared),
        poll,
    };
    vec![
        row("immuta, 200 jobs", &immuta, &immuta_declared, immuta_poll(200)),
        row("immuta, 1 job", &immuta, &immuta_declared, immuta_poll(1)),
        row("datasaur, 200 jobs", &datasaur, &datasaur_declared, datasaur_poll(200)),
        row("datasaur, 1 job", &datasaur, &datasaur_declared, datasaur_poll(1)),
        row("claret", &claret, &claret_declared, claret_poll()),
        row("kinetica", &kinetica, &kinetica_declared, kinetica_poll()),
    ]
}

/// The adapter of a definition, for a backend with these keys.
fn declared(definition: &str, keys: &str) -> Arc<dyn Adapter> {
    let definition = Arc::new(Definition::parse(definition).expect("a definition"));
    let chosen = backend::without_credentials();
    let keys: toml::Table = toml::from_str(keys).expect("keys in TOML");
    let config = backend::read(&definition, &chosen, &keys).expect("no other keys are needed");
    let most = NonZeroUsize::new(1000).expect("not zero");
    config.build(&base_url(), most).expect("an adapter").primary
}

/// What the engine does with a response: splits it, hashes every element, and reads those
/// that have changed.
fn poll(adapter: &dyn Adapter, (jobs, response): &(Vec<JobRef>, Response<Bytes>), is_changed: bool) {
    let elements = adapter.split(black_box(jobs), black_box(response)).expect("elements");
    for (job, element) in jobs.iter().zip(elements.as_slice()) {
        let element = element.as_ref().expect("each job has an element");
        black_box(PayloadHash::of(element));
        if is_changed {
            black_box(adapter.observe(job, element)).expect("an observation");
        }
    }
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// The CPU time of one poll.
fn cost(adapter: &dyn Adapter, row: &Row, is_changed: bool, repeats: u32) -> Duration {
    let began = cpu_time();
    for _ in 0..repeats {
        poll(adapter, &row.poll, is_changed);
    }
    cpu_time().saturating_sub(began) / repeats
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Prints the table of ratios.
pub(super) fn ratios(_: &mut Criterion) {
    let mut filters = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).peekable();
    if filters.peek().is_some() && !filters.any(|filter| "declared".contains(&*filter)) {
        return;
    }
    println!(
        "\n{:<20} {:<10} {:>12} {:>14} {:>7}",
        "declared", "poll", "in code, us", "declared, us", "ratio"
    );
    for row in rows() {
        for (poll, is_changed) in [("unchanged", false), ("changed", true)] {
            // The first measurement warms up.
            let once = cost(&*row.by_hand, &row, is_changed, 20).max(Duration::from_nanos(100));
            let repeats = u32::try_from(TURN.as_nanos() / once.as_nanos()).unwrap_or(u32::MAX).max(1);
            let turns: Vec<(f64, f64)> = (0..TURNS)
                .map(|_| {
                    let by_hand = cost(&*row.by_hand, &row, is_changed, repeats);
                    let declared = cost(&*row.declared, &row, is_changed, repeats);
                    (by_hand.as_secs_f64() * 1e6, declared.as_secs_f64() * 1e6)
                })
                .collect();
            let by_hand = median(turns.iter().map(|(by_hand, _)| *by_hand).collect());
            let declared = median(turns.iter().map(|(_, declared)| *declared).collect());
            let ratio = median(turns.iter().map(|(by_hand, declared)| declared / by_hand).collect());
            println!("{:<20} {poll:<10} {by_hand:>12.2} {declared:>14.2} {ratio:>7.2}", row.name);
        }
    }
}
