//! Faults that operators report of gateways, balancers and vendors, at every vendor and
//! over every HTTP version. docs/faults.md has the table.

use std::panic::AssertUnwindSafe;

use futures_util::{FutureExt, StreamExt, future::join_all, stream};
use jobwatch::{
    proto::v1::JobState as S,
    simulators::{Plan, Vendor},
};

use crate::harness::*;

mod batches;
mod change;
mod connections;
mod environment;
mod files;
mod front;
mod logins;
mod rows;
mod trial;
mod tunnel;
mod waits;

use front::{Front, Protocol, Purpose, gateway};
use rows::Row;
use trial::Trial;

/// How many trials run at once: the machine may have two cores.
const CONCURRENCY: usize = 24;

/// The rows that docs/faults.md must list, each with its test.
pub(crate) fn named_rows() -> impl Iterator<Item = (&'static str, &'static str)> {
    rows::TABLES.iter().flat_map(|(test, rows)| rows().into_iter().map(|row| (row.name, *test)))
}

/// Every case of the table with this test, at every vendor, over every HTTP version.
async fn every_case_of(test: &str) {
    let (_, rows) = rows::TABLES.iter().find(|(name, _)| *name == test).expect("a test has a table");
    let rows: Vec<Row> = rows();
    let simulators = join_all(Vendor::ALL.map(simulator)).await;
    let mut trials = Vec::new();
    for (row, case) in rows.iter().flat_map(|row| row.cases.iter().map(move |case| (row, case))) {
        for simulator in simulators.iter().filter(|simulator| case.vendors.contains(&simulator.vendor())) {
            for protocol in case.protocols() {
                trials.push(Trial::of(row, case, trials.len(), simulator, *protocol).await);
            }
        }
    }
    let (program, _trusted) = gateway(trials.iter().map(Trial::backend)).await;
    let client = program.client();
    // Report every failing case.
    let run = async |trial: &Trial<'_>| {
        let run = AssertUnwindSafe(trial.run(&client)).catch_unwind().await;
        run.is_err().then(|| trial.to_string())
    };
    let failed = stream::iter(&trials).map(run).buffer_unordered(CONCURRENCY);
    let failed: Vec<_> = failed.filter_map(async |failed| failed).collect().await;
    assert!(failed.is_empty(), "{} of {} failed:\n{}", failed.len(), trials.len(), failed.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transient_status_is_an_outage() {
    every_case_of("transient_status_is_an_outage").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requested_wait_in_any_form_is_honoured() {
    every_case_of("requested_wait_in_any_form_is_honoured").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn head_of_an_error_decides_whatever_its_body_is() {
    every_case_of("head_of_an_error_decides_whatever_its_body_is").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn graphql_error_with_http_200_is_judged_by_its_code() {
    every_case_of("graphql_error_with_http_200_is_judged_by_its_code").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn response_that_browsers_read_is_read() {
    every_case_of("response_that_browsers_read_is_read").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn page_at_any_status_keeps_the_token() {
    every_case_of("page_at_any_status_keeps_the_token").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_address_is_named_in_the_message() {
    every_case_of("wrong_address_is_named_in_the_message").await;
}

/// A vendor whose responses are unchanged, over each version.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vendor_is_polled_over_every_http_version() {
    let simulators = join_all(Vendor::ALL.map(simulator)).await;
    let mut fronts = Vec::new();
    for simulator in &simulators {
        for protocol in Protocol::ALL {
            fronts.push((Front::before(simulator, protocol).await, simulator));
        }
    }
    let backends = fronts.iter().map(|(front, _)| front.backend().named(&front.name()));
    let (program, _trusted) = gateway(backends).await;
    let client = program.client();
    for (front, simulator) in &fronts {
        let started = simulator.start_job(Plan::fixed(running(front.vendor)));
        let status = get(&client, &job(&front.name(), &started.id)).await.unwrap();
        assert_eq!(status.state(), S::Running, "{}", front.name());
        let traffic = front.traffic();
        let version = front.protocol.version();
        assert!(traffic.requests.iter().all(|request| request.version == version), "{traffic:?}");
        assert_eq!(traffic.count(Purpose::Poll), 1, "{traffic:?}");
        let logins = usize::from(matches!(front.vendor, Vendor::Claret | Vendor::Datasaur));
        assert_eq!(traffic.count(Purpose::Login), logins, "{traffic:?}");
    }
}
