//! Authentication of the gateway to each vendor.

use jobwatch::{
    proto::v1::{Backend as BackendReport, ListBackendsRequest},
    simulators::{Authorization as A, Effect, Fault, Plan, Simulator, Vendor, credentials},
};
use tonic::Code;

use crate::harness::*;

/// The path of a vendor's token endpoint.
fn token_path(vendor: Vendor) -> &'static str {
    match vendor {
        Vendor::Immuta => "/bim/apikey/authenticate",
        Vendor::Kinetica => "nowhere",
        Vendor::Claret => "/tokens/create",
        Vendor::Datasaur => "/oauth/token",
    }
}

fn with_token_exchange(vendor: Vendor, simulator: &Simulator) -> Backend {
    let backend = Backend::of(simulator);
    match vendor {
        Vendor::Immuta => {
            backend.credentials(format!("{{ api_key = {:?}, exchange = true }}", credentials::IMMUTA_API_KEY))
        }
        _ => backend,
    }
}

const WITH_TOKENS: [Vendor; 3] = [Vendor::Immuta, Vendor::Claret, Vendor::Datasaur];

fn running(vendor: Vendor) -> Plan {
    Plan::fixed(match vendor {
        Vendor::Immuta => "active",
        Vendor::Kinetica => "RUNNING",
        Vendor::Claret => "in_progress",
        Vendor::Datasaur => "IN_PROGRESS",
    })
}

#[tokio::test]
async fn every_credential_kind_is_accepted() {
    let basic = format!(
        "{{ client_id = {:?}, client_secret = {:?}, client_auth = \"basic\" }}",
        credentials::DATASAUR_CLIENT_ID,
        credentials::DATASAUR_CLIENT_SECRET
    );
    for vendor in Vendor::ALL {
        let simulator = simulator(vendor).await;
        let own = Backend::of(&simulator);
        let token = own.clone().bearer(&simulator.issue_token());
        let ways = match vendor {
            Vendor::Immuta => vec![
                (own, vec![A::Raw]),
                (token, vec![A::Bearer]),
                (with_token_exchange(vendor, &simulator), vec![A::None, A::Bearer]),
            ],
            Vendor::Kinetica => vec![(own, vec![A::Basic]), (token, vec![A::Bearer])],
            Vendor::Claret => vec![(own, vec![A::None, A::Bearer]), (token, vec![A::Bearer])],
            Vendor::Datasaur => vec![
                (own.clone(), vec![A::None, A::Bearer]),
                (own.credentials(basic.clone()), vec![A::Basic, A::Bearer]),
                (token, vec![A::Bearer]),
            ],
        };
        let job = job_at(&simulator, &simulator.start_job(running(vendor)));
        for (backend, headers) in ways {
            simulator.clear_calls();
            let gateway = Gateway::start([backend.clone()]).await;
            get(&gateway.client(), &job).await.unwrap_or_else(|error| panic!("{backend:?}: {error:?}"));
            let sent: Vec<_> = simulator.calls().iter().map(|call| call.authorization).collect();
            assert_eq!(sent, headers, "{backend:?}");
        }
    }
}

#[tokio::test]
async fn kinetica_without_credentials_is_polled_without_authorization() {
    let simulator = simulator(Vendor::Kinetica).await;
    let gateway = Gateway::start([Backend::of(&simulator).credentials("\"none\"")]).await;
    let error = get(&gateway.client(), &job("kinetica", "1")).await.unwrap_err();
    assert_eq!(
        code_and_reason(&error),
        (Code::FailedPrecondition, "BACKEND_CREDENTIALS_REJECTED".to_owned())
    );
    assert_eq!(simulator.calls()[0].authorization, A::None);
}

#[tokio::test]
async fn token_is_fetched_once_for_concurrent_calls() {
    for vendor in WITH_TOKENS {
        let simulator = simulator(vendor).await;
        let backend =
            with_token_exchange(vendor, &simulator).poll("max_batch", "1").poll("max_concurrency", "50");
        // Claret has no batch call and no such key.
        let backend =
            if vendor == Vendor::Claret { with_token_exchange(vendor, &simulator) } else { backend };
        let gateway = Gateway::start([backend]).await;
        let client = gateway.client();
        let jobs: Vec<_> =
            (0..50).map(|_| job_at(&simulator, &simulator.start_job(running(vendor)))).collect();
        let results = batch(&client, batch_request(jobs)).await.unwrap();
        assert!(results.iter().all(Result::is_ok));
        assert_eq!(simulator.count(token_path(vendor)), 1, "{vendor}");
    }
}

#[tokio::test]
async fn rejected_token_is_refreshed_once_without_an_error() {
    for vendor in WITH_TOKENS {
        let simulator = simulator(vendor).await;
        let gateway = Gateway::start([with_token_exchange(vendor, &simulator)]).await;
        let client = gateway.client();
        let (job, mut watch) = watched_job(&simulator, &client, running(vendor)).await;
        simulator.expire_tokens();
        get(&client, &job).await.unwrap();
        guard(simulator.wait_for_responses(token_path(vendor), 2)).await;
        simulator.finish(&job.job_id);
        assert!(watch.status().await.terminal, "there was no interruption");
        assert_eq!(simulator.count(token_path(vendor)), 2, "{vendor}");
    }
}

#[tokio::test]
async fn token_is_refreshed_before_it_expires() {
    let simulator = simulator(Vendor::Datasaur).await;
    simulator.set_token_lifetime(ms(2000));
    let gateway = Gateway::start([Backend::of(&simulator)]).await;
    let job = job_at(&simulator, &simulator.start_job(running(Vendor::Datasaur)));
    let mut watch = Watch::of(&gateway.client(), &job).await;
    watch.status().await;
    guard(simulator.wait_for_calls("/oauth/token", 2)).await;
    let fetched: Vec<_> =
        simulator.calls().into_iter().filter(|call| call.path.contains("/oauth/token")).collect();
    assert!(fetched[1].at - fetched[0].at < ms(2000));
}

#[tokio::test]
async fn credentials_rejected_twice_interrupt_until_they_are_accepted() {
    for vendor in Vendor::ALL {
        let simulator = simulator(vendor).await;
        let backend = with_token_exchange(vendor, &simulator).poll("login_backoff", "\"20ms\"");
        let gateway = Gateway::start([backend]).await;
        let client = gateway.client();
        let (job, mut watch) = watched_job(&simulator, &client, running(vendor)).await;
        simulator.reject_credentials(true);
        let error = decode_error(&get(&client, &job).await.unwrap_err());
        assert_eq!((error.code, &*error.reason), (Code::FailedPrecondition, "BACKEND_CREDENTIALS_REJECTED"));
        assert_eq!(watch.interruption().await.1.reason, "BACKEND_CREDENTIALS_REJECTED");
        simulator.reject_credentials(false);
        simulator.finish(&job.job_id);
        assert!(watch.next_status().await.terminal);
    }
}

#[tokio::test]
async fn token_never_accepted_is_fetched_twice_per_call() {
    let simulator = simulator(Vendor::Claret).await;
    simulator.inject(Fault::new(Effect::status(401, "{}")).at("/imports/status"));
    let gateway = Gateway::start([Backend::of(&simulator)]).await;
    let error = decode_error(&get(&gateway.client(), &job("claret", "7")).await.unwrap_err());
    assert_eq!((&*error.reason, &*error.metadata["http_status"]), ("BACKEND_CREDENTIALS_REJECTED", "401"));
    assert_eq!((simulator.count("/tokens/create"), simulator.count("/imports/status")), (2, 2));
}

#[tokio::test]
async fn rejected_credentials_are_not_a_fault_of_the_job() {
    for vendor in WITH_TOKENS {
        let simulator = simulator(vendor).await;
        simulator.set_secret("another");
        let gateway = Gateway::start([with_token_exchange(vendor, &simulator)]).await;
        let job = job_at(&simulator, &simulator.start_job(running(vendor)));
        let error = get(&gateway.client(), &job).await.unwrap_err();
        assert_eq!(
            code_and_reason(&error),
            (Code::FailedPrecondition, "BACKEND_CREDENTIALS_REJECTED".to_owned())
        );
    }
}

/// The only backend, as ListBackends reports it.
async fn listed(client: &Client) -> BackendReport {
    let response = guard(client.clone().list_backends(ListBackendsRequest {})).await.unwrap();
    response.into_inner().backends.remove(0)
}

#[tokio::test]
async fn wrong_secret_is_sent_once_whatever_asks_for_it() {
    for vendor in Vendor::ALL {
        let simulator = simulator(vendor).await;
        simulator.reject_credentials(true);
        let gateway = Gateway::start([with_token_exchange(vendor, &simulator)]).await;
        let client = gateway.client();
        let mut watch = Watch::of(&client, &job(vendor.name(), "1")).await;
        let interruption = watch.interruption().await.1;
        assert_eq!(interruption.reason, "BACKEND_CREDENTIALS_REJECTED", "{vendor}");
        for _ in 0..20 {
            let error = decode_error(&get(&client, &job(vendor.name(), "2")).await.unwrap_err());
            assert_eq!(error.reason, "BACKEND_CREDENTIALS_REJECTED", "{vendor}");
            assert!(error.retry_delay().is_some_and(|delay| delay <= ms(12_000)), "{vendor}");
        }
        assert_eq!(simulator.calls().len(), 1, "{vendor}");
        let rejected = listed(&client).await.rejected_credentials.unwrap();
        assert!(rejected.secret.starts_with("credentials."), "{}", rejected.secret);
        assert!(rejected.retry_time.unwrap().seconds >= rejected.reject_time.unwrap().seconds + 9);
    }
}

#[tokio::test]
async fn secret_that_is_accepted_again_is_listed_no_more() {
    for vendor in Vendor::ALL {
        let simulator = simulator(vendor).await;
        simulator.reject_credentials(true);
        let backend = with_token_exchange(vendor, &simulator).poll("login_backoff", "\"20ms\"");
        let gateway = Gateway::start([backend]).await;
        let client = gateway.client();
        let job = job_at(&simulator, &simulator.start_job(running(vendor)));
        let mut watch = Watch::of(&client, &job).await;
        watch.interruption().await;
        assert!(listed(&client).await.rejected_credentials.is_some(), "{vendor}");
        simulator.reject_credentials(false);
        assert!(!watch.next_status().await.terminal);
        assert_eq!(listed(&client).await.rejected_credentials, None, "{vendor}");
    }
}
