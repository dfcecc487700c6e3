//! How often a rejected secret is sent: an account that is locked is worse than a late
//! status.

use futures_util::future::join_all;
use jobwatch::{
    proto::v1::JobState as S,
    simulators::{Plan, Simulator, Vendor, credentials},
};
use tonic::Code;

use super::{
    change::Change,
    front::{Front, Protocol, Purpose, gateway},
};
use crate::{harness::*, program::Program};

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

/// The lines of the log that hold this text.
fn lines(program: &Program, text: &str) -> Vec<String> {
    program.log().lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejection_and_acceptance_of_a_secret_are_one_line_each_in_the_log() {
    let simulators = join_all(Vendor::ALL.map(simulator)).await;
    let backends = simulators.iter().map(|it| Backend::of(it).poll("login_backoff", "\"100ms\""));
    let program = Program::start(backends, "info").await;
    let client = program.client();
    let trials = simulators.iter().map(async |simulator| {
        let vendor = simulator.vendor();
        let job = job_at(simulator, &simulator.start_job(Plan::fixed(running(vendor))));
        let mut watch = Watch::of(&client, &job).await;
        assert_eq!(watch.next_status().await.state(), S::Running, "{vendor}");
        simulator.reject_credentials(true);
        let (_, cause) = watch.interruption().await;
        assert_eq!(cause.reason, "BACKEND_CREDENTIALS_REJECTED", "{vendor}");
        for _ in 0..CALLS {
            get(&client, &job).await.unwrap_err();
        }
        simulator.reject_credentials(false);
        simulator.finish(&job.job_id);
        assert_eq!(guard(watch.terminal_status()).await.state(), S::Succeeded, "{vendor}");
    });
    join_all(trials).await;
    let (rejected, accepted) = ("secret rejected by the vendor; replace it", "secret accepted again");
    let all = Vendor::ALL.len();
    until(|| lines(&program, rejected).len() >= all && lines(&program, accepted).len() >= all).await;
    for simulator in &simulators {
        let backend = format!("backend={} ", Backend::of(simulator).name());
        let of_backend = |text| {
            let lines = lines(&program, text).into_iter().filter(|line| line.contains(&backend));
            lines.collect::<Vec<_>>()
        };
        let (rejections, acceptances) = (of_backend(rejected), of_backend(accepted));
        assert_eq!((rejections.len(), acceptances.len()), (1, 1), "{rejections:?} {acceptances:?}");
        for part in
            ["WARN", "secret=\"credentials.", "of the configuration file", "http_status=40", "retry_in_ms="]
        {
            assert!(rejections[0].contains(part), "{part} is missing in {rejections:?}");
        }
    }
    for secret in
        [credentials::IMMUTA_API_KEY, credentials::CLARET_PASSWORD, credentials::DATASAUR_CLIENT_SECRET]
    {
        assert!(!program.log().contains(secret), "a secret is in the log");
    }
}
