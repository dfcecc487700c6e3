//! When the next poll comes after a vendor's wait.

use std::time::Duration;

use futures_util::future::join_all;
use jobwatch::{
    proto::v1::{JobState as S, WatchJobRequest},
    simulators::{Plan, Simulator, Vendor},
};

use super::{
    change::Change,
    front::{Front, Protocol, Purpose, gateway},
};
use crate::harness::*;

/// Values that ask for no wait.
const NO_WAITS: [&str; 5] = ["0", "0.0", "-5", "0, 0", "Sun, 06 Nov 1994 08:49:37 GMT"];

/// Failures within which the back-off has to exceed half a second, ten times the least. It
/// grows to any time up to three seconds.
const FAILURES: usize = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poll_after_a_requested_wait_comes_no_earlier() {
    const WAIT: Duration = Duration::from_millis(1500);
    let simulators = join_all(Vendor::ALL.map(simulator)).await;
    let mut trials = Vec::new();
    for simulator in &simulators {
        for protocol in Protocol::ALL {
            for (status, value) in [(429, "1.5"), (503, "1, 1.5"), (403, "1.5")] {
                let name = format!("wait-{}", trials.len());
                trials.push((simulator, Front::before(simulator, protocol).await, status, value, name));
            }
        }
    }
    let backends =
        trials.iter().map(|(_, front, _, _, name)| front.backend().named(name).poll("max_concurrency", "1"));
    let (program, _trusted) = gateway(backends).await;
    let client = program.client();
    let run = async |(simulator, front, status, value, name): &(&Simulator, Front, u16, &str, String)| {
        let started = simulator.start_job(Plan::fixed(running(front.vendor)));
        let mut watch = Watch::of(&client, &job(name, &started.id)).await;
        assert_eq!(watch.next_status().await.state(), S::Running);
        let before = front.count(Purpose::Poll);
        let change = Change::page(*status).header("retry-after", *value);
        front.change_next(1, Purpose::Poll, change);
        watch.interruption().await;
        simulator.finish(&started.id);
        assert_eq!(watch.terminal_status().await.state(), S::Succeeded);
        let traffic = front.traffic();
        let polls = traffic.requests.iter().filter(|request| request.purpose == Purpose::Poll);
        // One poll may have arrived just before the change.
        let polls: Vec<_> = polls.skip(before).map(|poll| poll.at).collect();
        let longest = polls.windows(2).map(|two| two[1] - two[0]).max().unwrap();
        assert!(longest >= WAIT, "{}, {:?}, {status}, {value}: {longest:?}", front.vendor, front.protocol);
    };
    join_all(trials.iter().map(run)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wait_of_zero_is_the_back_off() {
    let simulators = join_all(Vendor::ALL.map(simulator)).await;
    let mut trials = Vec::new();
    for simulator in &simulators {
        for protocol in Protocol::ALL {
            for value in NO_WAITS {
                let name = format!("zero-{}", trials.len());
                trials.push((simulator, Front::before(simulator, protocol).await, value, name));
            }
        }
    }
    let backends =
        trials.iter().map(|(_, front, _, name)| front.backend().named(name).poll("max_backoff", "\"3s\""));
    let (program, _trusted) = gateway(backends).await;
    let client = program.client();
    let run = async |(simulator, front, value, name): &(&Simulator, Front, &str, String)| {
        front.change(Purpose::Poll, Change::page(429).header("retry-after", *value));
        let started = simulator.start_job(Plan::fixed(running(front.vendor)));
        let job = job(name, &started.id);
        let heartbeat_interval = Some(proto_ms(100));
        let request = WatchJobRequest { heartbeat_interval, ..watch_request(&job) };
        let mut watch = Watch::open(&client, request).await.unwrap();
        let grown = async {
            // An interruption that lasts is sent again in place of a heartbeat.
            loop {
                let (_, cause) = watch.interruption().await;
                assert_eq!(cause.reason, "BACKEND_THROTTLED");
                if cause.retry_delay().unwrap() > ms(500) {
                    break;
                }
                let polls = front.count(Purpose::Poll);
                let what = format!("{}, {:?}, {value:?}", front.vendor, front.protocol);
                assert!(polls <= FAILURES, "{what}: {polls} polls");
            }
        };
        guard(grown).await;
    };
    join_all(trials.iter().map(run)).await;
}
