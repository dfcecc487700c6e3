//! How often a rejected secret is sent: an account that is locked is worse than a late
//! status.

use futures_util::future::join_all;
use jobwatch::simulators::{Plan, Simulator, Vendor, credentials};
use tonic::Code;

use super::{
    change::Change,
    front::{Front, Protocol, Purpose, gateway},
};
use crate::harness::*;

/// Most requests with a rejected secret in the first minute.
const MOST: usize = 3;
const CALLS: usize = 30;

/// How the gateway gets its credentials, and which of its requests carries the secret.
fn ways(vendor: Vendor) -> Vec<(&'static str, Option<String>, Purpose)> {
    let exchange = format!("{{ api_key = {:?}, exchange = true }}", credentials::IMMUTA_API_KEY);
    match vendor {
        Vendor::Immuta => vec![("key", None, Purpose::Poll), ("exchange", Some(exchange), Purpose::Login)],
        Vendor::Kinetica => vec![("basic", None, Purpose::Poll)],
        Vendor::Claret | Vendor::Datasaur => vec![("login", None, Purpose::Login)],
    }
}

/// Watches a job and gets it many times. Returns the requests with the secret, of which
/// those before were accepted.
async fn ask_often(client: &Client, front: &Front, name: &str, id: &str, secret: Purpose) -> usize {
    let before = front.count(secret);
    let job = job(name, id);
    let mut watch = Watch::of(client, &job).await;
    watch.interruption().await;
    for _ in 0..CALLS {
        let error = get(client, &job).await.unwrap_err();
        let expected = (Code::FailedPrecondition, "BACKEND_CREDENTIALS_REJECTED".to_owned());
        assert_eq!(code_and_reason(&error), expected, "{name}: {error}");
    }
    front.count(secret) - before
}

/// At every vendor, in every way, over every HTTP version.
async fn every_way(reject: impl Fn(&Simulator, &Front, Purpose)) {
    let mut trials = Vec::new();
    for vendor in Vendor::ALL {
        for protocol in Protocol::ALL {
            for (way, toml, secret) in ways(vendor) {
                let simulator = simulator(vendor).await;
                let front = Front::before(&simulator, protocol).await;
                let name = format!("{}-{way}", front.name());
                let mut backend = front.backend().named(&name);
                if let Some(toml) = toml {
                    backend = backend.credentials(toml);
                }
                trials.push((simulator, front, name, backend, secret));
            }
        }
    }
    let (program, _trusted) = gateway(trials.iter().map(|trial| trial.3.clone())).await;
    let client = program.client();
    let counts = trials.iter().map(async |(simulator, front, name, _, secret)| {
        let started = simulator.start_job(Plan::fixed(running(front.vendor)));
        reject(simulator, front, *secret);
        (name, ask_often(&client, front, name, &started.id, *secret).await)
    });
    let counts = join_all(counts).await;
    let many: Vec<_> = counts.into_iter().filter(|(_, count)| *count > MOST).collect();
    assert!(many.is_empty(), "{many:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejected_secret_is_sent_three_times_a_minute_at_most() {
    every_way(|simulator, _, _| simulator.reject_credentials(true)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_that_is_never_accepted_costs_three_logins_a_minute_at_most() {
    every_way(|_, front, _| front.change(Purpose::Poll, Change::json(401, "{}"))).await;
}
