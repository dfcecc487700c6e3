//! Callers share the requests of a second, and so do the jobs that are watched. A client
//! of 127.0.0.2 is another caller than one of 127.0.0.1.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use jobwatch::{
    proto::v1::JobRef,
    simulators::{Plan, Simulator, Vendor},
};
use tokio::task::JoinSet;
use tonic::{Code, Status};

use super::{start_running, watch_all};
use crate::harness::*;

const SECOND: Duration = ms(1000);

/// How often each job was polled since the log was emptied.
fn polls_of_each(simulator: &Simulator) -> BTreeMap<String, usize> {
    let mut polls = BTreeMap::new();
    for id in simulator.calls().into_iter().flat_map(|call| call.job_ids) {
        *polls.entry(id).or_default() += 1;
    }
    polls
}

/// 300 watched jobs at 20 requests a second: the whole rate, many times over.
#[tokio::test]
async fn gets_beside_more_watches_than_the_rate_are_served_and_no_watch_starves() {
    let simulator = simulator(Vendor::Claret).await;
    let backend = Backend::of(&simulator).poll("requests_per_second", "20");
    let gateway = Gateway::start([backend]).await;
    let watching = gateway.client();
    let jobs = start_running(&simulator, 300);
    let mut watches = watch_all(&watching, &jobs).await;
    for watch in &mut watches {
        watch.next_status().await;
    }
    let unwatched = start_running(&simulator, 2);
    simulator.clear_calls();
    for (client, job) in [(gateway.client_from(2), &unwatched[0]), (watching, &unwatched[1])] {
        let status = get_status(&client, within(10 * SECOND, get_request(job))).await.unwrap();
        assert!(!status.terminal);
    }
    // Every watched job is polled once more, and none of them much more often than another.
    let all_polled = async {
        while jobs.iter().any(|job| !polls_of_each(&simulator).contains_key(&job.job_id)) {
            simulator.wait_for_calls("/imports/status", simulator.count("/imports/status") + 1).await;
        }
    };
    guard(all_polled).await;
    let polls = polls_of_each(&simulator);
    let most = jobs.iter().map(|job| polls[&job.job_id]).max().unwrap();
    assert!(most <= 3, "a job was polled {most} times while another was polled once");
}

/// One caller's 200 watches, whose first statuses take ten seconds, and another caller's
/// single one.
#[tokio::test]
async fn watch_beside_200_of_another_caller_receives_its_first_status_in_turn() {
    let simulator = simulator(Vendor::Claret).await;
    let gateway = Gateway::start([Backend::of(&simulator).poll("requests_per_second", "20")]).await;
    let jobs = start_running(&simulator, 200);
    let greedy = gateway.client();
    let watches = watch_all(&greedy, &jobs).await;
    guard(simulator.wait_for_calls("/imports/status", 5)).await;
    // Most of the first statuses are still to come, and so is this one.
    let other = start_running(&simulator, 1).remove(0);
    let mut watch = Watch::of(&gateway.client_from(2), &other).await;
    simulator.clear_calls();
    watch.next_status().await;
    let polled: HashSet<_> = simulator.calls().into_iter().flat_map(|call| call.job_ids).collect();
    assert!(polled.len() < jobs.len() / 2, "the other caller waited for {} jobs", polled.len());
    drop(watches);
}

/// Gets of one caller that are in flight at the same time, each of another job.
fn gets_within(client: &Client, jobs: &[JobRef], deadline: Duration) -> JoinSet<Result<(), Status>> {
    let mut gets = JoinSet::new();
    for job in jobs {
        let (client, request) = (client.clone(), within(deadline, get_request(job)));
        gets.spawn(async move { get_status(&client, request).await.map(drop) });
    }
    gets
}

#[tokio::test]
async fn get_of_another_caller_is_served_beside_200_gets_in_flight() {
    let simulator = simulator(Vendor::Claret).await;
    let gateway = Gateway::start([Backend::of(&simulator).poll("requests_per_second", "20")]).await;
    let jobs = start_running(&simulator, 200);
    let mut gets = gets_within(&gateway.client(), &jobs, 30 * SECOND);
    guard(simulator.wait_for_calls("/imports/status", 5)).await;
    let other = job_at(&simulator, &simulator.start_job(Plan::fixed("in_progress")));
    let request = within(5 * SECOND, get_request(&other));
    get_status(&gateway.client_from(2), request).await.unwrap();
    while let Some(got) = guard(gets.join_next()).await {
        if let Err(error) = got.unwrap() {
            assert_overloaded(&error);
        }
    }
}

fn assert_overloaded(error: &Status) {
    let decoded = decode_error(error);
    assert_eq!(
        (decoded.code, &*decoded.reason),
        (Code::ResourceExhausted, "BACKEND_OVERLOADED"),
        "{error:?}"
    );
    assert!(decoded.retry_delay().is_some_and(|delay| delay > Duration::ZERO), "{error:?}");
    assert_eq!(decoded.metadata["backend"], "claret");
}

/// Two requests a second serve 20 calls within their deadline of 10 s. The others fail
/// without waiting for it.
#[tokio::test]
async fn gets_beyond_what_their_deadline_allows_fail_at_once_as_overloaded() {
    const RATE: usize = 2;
    const DEADLINE: usize = 10;
    const CAPACITY: usize = RATE * DEADLINE;
    let simulator = simulator(Vendor::Claret).await;
    let gateway = Gateway::start([Backend::of(&simulator).poll("requests_per_second", "2")]).await;
    let jobs = start_running(&simulator, 100);
    let deadline = SECOND * u32::try_from(DEADLINE).unwrap();
    let mut gets = gets_within(&gateway.client(), &jobs, deadline);
    let (mut served, mut overloaded, mut late) = (0, 0, 0);
    while let Some(got) = guard(gets.join_next()).await {
        match got.unwrap() {
            Ok(()) => served += 1,
            // The client's own clock may end a call that was let in with little to spare.
            Err(error) if matches!(error.code(), Code::DeadlineExceeded | Code::Cancelled) => late += 1,
            Err(error) => {
                assert_overloaded(&error);
                overloaded += 1;
                // The log shows the time: it grows by `RATE` a second.
                let requests = simulator.count("/imports/status");
                assert!(requests < CAPACITY / 2, "it failed after {requests} requests");
            }
        }
    }
    println!("{served} served, {overloaded} overloaded, {late} late");
    assert!(served > 0 && served + late <= 2 * CAPACITY, "{served} and {late}");
}
