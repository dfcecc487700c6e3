//! Faults of the network and of the vendors: what callers see while each lasts. No job is
//! lost, none shows another's state, and no other backend is affected. docs/faults.md has
//! the table.

use std::{
    collections::HashSet,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, LazyLock, Mutex, Once,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, ThreadId},
};

use futures_util::{FutureExt, future::join_all};
use jobwatch::{
    proto::v1::{JobRef, JobState as S, WatchJobRequest},
    simulators::{Delivery, Effect, Plan, RawResponse, Simulator, Vendor},
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Code, Status,
    transport::{Identity, Server, ServerTlsConfig},
};

use crate::{
    harness::*,
    program::Program,
    proxy::{Fault, Proxy},
};

mod by_hand;
mod table;

use table::{ROWS, Row, Sees, Wrong};

/// The faults that docs/faults.md must list, with the equivalent effect of a simulator.
pub(crate) fn named_faults() -> impl Iterator<Item = (&'static str, Option<&'static str>)> {
    ROWS.iter().map(|row| {
        let effect = match row.fault {
            Wrong::Effect(json) => json.split('"').nth(1),
            Wrong::Bytes(_) | Wrong::Between(_) => None,
        };
        (row.name, effect)
    })
}

/// Threads that panicked. A test's gateway runs on the test's own thread.
static PANICKED: LazyLock<Mutex<HashSet<ThreadId>>> = LazyLock::new(Mutex::default);

/// Records panics of this thread from now on, caught ones, too.
fn watch_for_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICKED.lock().unwrap().insert(thread::current().id());
            before(info);
        }));
    });
}

fn assert_nothing_panicked() {
    assert!(!PANICKED.lock().unwrap().contains(&thread::current().id()));
}

fn assert_discreet(error: &Status, what: &str) {
    assert_shows_none_of(error, what, &["Basic", "http:"]);
}

/// One fault at one vendor, with its own proxy and backend.
struct Trial<'a> {
    row: &'a Row,
    simulator: &'a Simulator,
    proxy: Proxy,
    backend: Backend,
}

impl<'a> Trial<'a> {
    async fn of(row: &'a Row, number: usize, simulator: &'a Simulator) -> Self {
        let proxy = Proxy::before(simulator).await;
        let (timeout, connect_timeout) = if row.stuck { ("\"1s\"", "\"1s\"") } else { ("\"45s\"", "\"5s\"") };
        let backend = Backend::at(simulator.vendor(), proxy.url())
            .named(&format!("fault-{number}"))
            .poll("max_response_bytes", "65536")
            .poll("connect_timeout", connect_timeout)
            .poll("timeout", timeout);
        Self { row, simulator, proxy, backend }
    }

    fn start(&self) -> (JobRef, String) {
        let started = self.simulator.start_job(Plan::fixed(running(self.simulator.vendor())));
        (job(self.backend.name(), &started.id), started.id)
    }

    async fn run(&self, client: &Client, elsewhere: &JobRef) {
        let what = format!("{}, {}", self.row.name, self.simulator.vendor());
        let (job, id) = self.start();
        let (other, _) = self.start();
        let mut watch = Watch::of(client, &job).await;
        // On a busy machine a healthy response may outlast so short a time-out, too.
        let first = if self.row.stuck { watch.next_status().await } else { watch.status().await };
        assert_eq!(first.state(), S::Running, "{what}");

        self.proxy.set(self.row.fault.fault());
        self.proxy.requests_come(1).await;
        let (seen, neighbour) = tokio::join!(get(client, &other), get(client, elsewhere));
        assert_eq!(neighbour.unwrap().state(), S::Running, "{what}");
        match (self.row.sees, seen) {
            (Sees::Response, seen) => assert_eq!(seen.expect(&what).state(), S::Running, "{what}"),
            (_, Ok(seen)) => panic!("{what}: {seen:?}"),
            (expected, Err(error)) => {
                let decoded = decode_error(&error);
                assert_eq!((decoded.code, &*decoded.reason), expected.error(), "{what}: {}", decoded.message);
                assert_eq!(decoded.retry_delay().is_some(), decoded.code == Code::Unavailable, "{what}");
                assert_discreet(&error, &what);
                let (interruption, cause) = watch.interruption().await;
                assert_eq!((cause.code, &*cause.reason), expected.error(), "{what}: {}", cause.message);
                assert!(interruption.observe_time.is_some(), "{what}: its last state stays");
                assert_discreet(&from_message(&interruption.cause.unwrap()), &what);
            }
        }
        self.simulator.finish(&id);
        if self.row.sees == Sees::Response {
            assert_eq!(watch.status().await.state(), S::Succeeded, "{what}");
            watch.end().await.unwrap();
        }

        self.proxy.heal();
        if self.row.sees != Sees::Response {
            assert_eq!(watch.next_status().await.state(), S::Succeeded, "{what}");
            watch.end().await.unwrap();
        }
        assert_eq!(at_last(client, &other).await, S::Running, "{what}");
        assert_eq!(at_last(client, &job).await, S::Succeeded, "{what}");
    }
}

/// The result of a get once the backend is polled again.
async fn at_last(client: &Client, job: &JobRef) -> S {
    let response = async {
        loop {
            match get(client, job).await {
                Ok(status) => return status.state(),
                // The last failure is reported until the back-off ends.
                Err(error) => {
                    assert!(matches!(code_and_reason(&error).0, Code::Unavailable | Code::Internal));
                }
            }
        }
    };
    guard(response).await
}

/// All faults at once at one gateway, beside a healthy backend.
async fn every_fault_at(vendor: Vendor) {
    watch_for_panics();
    let simulator_of_all = simulator(vendor).await;
    let well = simulator(if vendor == Vendor::Immuta { Vendor::Kinetica } else { Vendor::Immuta }).await;
    let mut trials = Vec::new();
    for (number, row) in ROWS.iter().enumerate() {
        trials.push(Trial::of(row, number, &simulator_of_all).await);
    }
    let backends = trials.iter().map(|trial| trial.backend.clone()).chain([Backend::of(&well)]);
    let gateway = Gateway::start(backends).await;
    let client = gateway.client();
    let elsewhere = job_at(&well, &well.start_job(Plan::fixed(running(well.vendor()))));
    // Report every failing row.
    let run = |trial| AssertUnwindSafe(Trial::run(trial, &client, &elsewhere)).catch_unwind();
    let ended = join_all(trials.iter().map(run)).await;
    let failed = trials.iter().zip(ended).filter(|(_, ended)| ended.is_err());
    let failed: Vec<_> = failed.map(|(trial, _)| trial.row.name).collect();
    assert_eq!(failed, [""; 0], "{vendor}");
    gateway.stop().await;
    assert_nothing_panicked();
}

#[tokio::test]
async fn network_faults_at_immuta_are_survived() {
    every_fault_at(Vendor::Immuta).await;
}

#[tokio::test]
async fn network_faults_at_kinetica_are_survived() {
    every_fault_at(Vendor::Kinetica).await;
}

#[tokio::test]
async fn network_faults_at_claret_are_survived() {
    every_fault_at(Vendor::Claret).await;
}

#[tokio::test]
async fn network_faults_at_datasaur_are_survived() {
    every_fault_at(Vendor::Datasaur).await;
}

#[tokio::test]
async fn connection_closed_under_each_second_request_is_no_outage() {
    join_all(Vendor::ALL.map(closed_under_each_second_request)).await;
}

async fn closed_under_each_second_request(vendor: Vendor) {
    let simulator = simulator(vendor).await;
    let proxy = Proxy::before(&simulator).await;
    proxy.set(Fault::once_a_connection());
    let gateway = Gateway::start([Backend::at(vendor, proxy.url()).poll("max_concurrency", "1")]).await;
    let client = gateway.client();
    let started = simulator.start_job(Plan::fixed(running(vendor)));
    let job = job_at(&simulator, &started);
    let mut watch = Watch::of(&client, &job).await;
    assert_eq!(watch.status().await.state(), S::Running, "{vendor}");
    for _ in 0..10 {
        assert_eq!(get(&client, &job).await.unwrap().state(), S::Running, "{vendor}");
    }
    simulator.finish(&started.id);
    assert_eq!(watch.status().await.state(), S::Succeeded, "{vendor}");
    assert!(proxy.seen().connections > 5, "{vendor}: {:?}", proxy.seen());
}

/// Two words with different states, neither of them terminal.
fn two_states(vendor: Vendor) -> [(&'static str, S); 2] {
    match vendor {
        Vendor::Immuta => [("created", S::Pending), ("active", S::Running)],
        Vendor::Kinetica => [("RUNNING", S::Running), ("CANCELLED", S::Cancelling)],
        Vendor::Claret => [("pending", S::Pending), ("in_progress", S::Running)],
        Vendor::Datasaur => [("QUEUED", S::Pending), ("IN_PROGRESS", S::Running)],
    }
}

/// Two jobs of different states, polled in turn over the same connection: each
/// response is the job's own, or none.
async fn no_mix_up(vendor: Vendor, fault: Fault) {
    let simulator = simulator(vendor).await;
    let proxy = Proxy::before(&simulator).await;
    let backend = Backend::at(vendor, proxy.url()).poll("max_concurrency", "1").poll("max_batch", "1");
    let gateway = Gateway::start([backend.poll("min_interval", "\"10ms\"")]).await;
    let client = gateway.client();
    let jobs = two_states(vendor)
        .map(|(word, state)| (job_at(&simulator, &simulator.start_job(Plan::fixed(word))), state));
    for (job, state) in &jobs {
        assert_eq!(get(&client, job).await.unwrap().state(), *state);
    }
    proxy.set(fault);
    let mut responses = 0;
    for _ in 0..20 {
        for (job, state) in &jobs {
            match get(&client, job).await {
                Ok(status) => {
                    assert_eq!(status.state(), *state, "{vendor}: {}", status.vendor_state);
                    responses += 1;
                }
                Err(error) => {
                    assert!(
                        matches!(code_and_reason(&error).0, Code::Unavailable | Code::Internal),
                        "{vendor}: {error}"
                    );
                    assert_discreet(&error, "a mix-up");
                }
            }
        }
    }
    // The fault still lasts.
    for (job, state) in &jobs {
        assert_eq!(at_last(&client, job).await, *state, "{vendor}: {responses}");
    }
    proxy.heal();
    for (job, state) in &jobs {
        assert_eq!(at_last(&client, job).await, *state, "{vendor}: {responses}");
    }
}

#[tokio::test]
async fn duplicated_response_is_never_read_as_another_jobs() {
    let twice = |response: &RawResponse| Delivery::of([response.whole(), response.whole()].concat());
    // The copy comes a little after the response, when the connection is idle or in
    // use again.
    let soon = |size| Fault::changed(move |response| twice(response).paced(size, ms(1)));
    for fault in [Fault::changed(twice), soon(50), soon(1000), Fault::copied_late()] {
        join_all(Vendor::ALL.map(|vendor| no_mix_up(vendor, fault.clone()))).await;
    }
}

#[tokio::test]
async fn response_to_the_previous_request_is_never_read_as_this_jobs() {
    join_all(Vendor::ALL.map(|vendor| no_mix_up(vendor, Fault::shifted()))).await;
}

/// How many backends share the bytes of a response.
const SHARES: usize = 8;

#[tokio::test]
async fn response_truncated_at_any_byte_is_an_outage() {
    watch_for_panics();
    join_all(Vendor::ALL.map(ends_at_any_byte)).await;
    assert_nothing_panicked();
}

async fn ends_at_any_byte(vendor: Vendor) {
    let simulator = simulator(vendor).await;
    let proxies = join_all((0..SHARES).map(|_| Proxy::before(&simulator))).await;
    // Without back-off, each get is a request.
    let backends: Vec<_> = proxies
        .iter()
        .enumerate()
        .map(|(share, proxy)| {
            let backend = Backend::at(vendor, proxy.url()).named(&format!("share-{share}"));
            backend.poll("min_interval", "\"10ms\"").poll("max_backoff", "\"10ms\"")
        })
        .collect();
    let gateway = Gateway::start(backends.clone()).await;
    let client = gateway.client();
    let share = async |share: usize| {
        let (proxy, backend) = (&proxies[share], &backends[share]);
        let started = simulator.start_job(Plan::fixed(running(vendor)));
        let job = job(backend.name(), &started.id);
        let mut watch = Watch::of(&client, &job).await;
        assert_eq!(watch.status().await.state(), S::Running);
        let before = proxy.seen().bytes;
        assert_eq!(get(&client, &job).await.unwrap().state(), S::Running);
        let length = isize::try_from(proxy.seen().bytes - before).unwrap();
        assert!(length > 100, "{length}");
        for offset in (0..length).skip(share).step_by(SHARES) {
            for end in [Effect::ResetAt(offset), Effect::CloseAt(offset)] {
                proxy.set(Fault::of(&end));
                proxy.requests_come(1).await;
                let error = get(&client, &job).await.unwrap_err();
                assert_eq!(
                    code_and_reason(&error),
                    (Code::Unavailable, "BACKEND_UNAVAILABLE".to_owned()),
                    "{vendor}: {end:?}"
                );
                assert_discreet(&error, "an end");
            }
        }
        simulator.finish(&started.id);
        proxy.heal();
        assert_eq!(watch.next_status().await.state(), S::Succeeded, "{vendor}");
        watch.end().await.unwrap();
    };
    join_all((0..SHARES).map(share)).await;
}

/// A get and a watch of a backend that can't be connected to.
async fn never_connects(backend: Backend, well: &Simulator) {
    let gateway = Gateway::start([backend.clone(), Backend::of(well)]).await;
    let client = gateway.client();
    let job = job(backend.name(), "12345");
    let elsewhere = job_at(well, &well.start_job(Plan::fixed(running(well.vendor()))));
    let request = WatchJobRequest { heartbeat_interval: Some(proto_ms(50)), ..watch_request(&job) };
    let mut watch = Watch::open(&client, request).await.unwrap();
    let (failed, neighbour) = tokio::join!(get(&client, &job), get(&client, &elsewhere));
    assert_eq!(neighbour.unwrap().state(), S::Running);
    let error = failed.unwrap_err();
    assert_eq!(code_and_reason(&error), (Code::Unavailable, "BACKEND_UNAVAILABLE".to_owned()));
    assert!(decode_error(&error).retry_delay().is_some());
    assert_discreet(&error, "no connection");
    // The connection may fail after the first heartbeat is due.
    let (interruption, cause) = watch.interruption().await;
    assert_eq!((cause.code, &*cause.reason), (Code::Unavailable, "BACKEND_UNAVAILABLE"));
    assert_discreet(&from_message(&interruption.cause.unwrap()), "no connection");
    // It stays open, and the interruption is sent again.
    watch.interruption().await;
}

#[tokio::test]
async fn https_address_without_tls_is_an_outage() {
    for vendor in Vendor::ALL {
        let (plain, well) = (simulator(vendor).await, simulator(Vendor::Immuta).await);
        let url = plain.base_url().replace("http:", "https:");
        never_connects(Backend::at(vendor, url).named("plain"), &well).await;
        assert_eq!(plain.count(""), 0);
    }
}

#[tokio::test]
async fn self_signed_certificate_is_an_outage_and_gets_no_credentials() {
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let identity = Identity::from_pem(cert.pem(), signing_key.serialize_pem());
    let tls = Server::builder().tls_config(ServerTlsConfig::new().identity(identity)).unwrap();
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&requests);
    let count = move |request: tonic::Request<()>| {
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(request)
    };
    let (_, health) = tonic_health::server::health_reporter();
    let mut server = tls.layer(tonic::service::InterceptorLayer::new(count));
    tokio::spawn(server.add_service(health).serve_with_incoming(TcpListenerStream::new(listener)));
    let well = simulator(Vendor::Immuta).await;
    for vendor in Vendor::ALL {
        never_connects(Backend::at(vendor, &*url).named("self-signed"), &well).await;
    }
    assert_eq!(requests.load(Ordering::Relaxed), 0, "the request ended with the handshake");
}

#[tokio::test]
async fn unknown_host_is_an_outage() {
    let well = simulator(Vendor::Kinetica).await;
    for vendor in Vendor::ALL {
        for scheme in ["http", "https"] {
            let backend = Backend::at(vendor, format!("{scheme}://vendor.invalid")).named("nowhere");
            never_connects(backend, &well).await;
        }
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn endless_body_or_gzip_bomb_costs_no_memory() {
    const LIMIT: u64 = 1 << 20;
    let simulator = simulator(Vendor::Kinetica).await;
    let proxy = Proxy::before(&simulator).await;
    let backend = Backend::at(Vendor::Kinetica, proxy.url()).named("hostile");
    let backend = backend.poll("max_response_bytes", &LIMIT.to_string());
    let program = Program::start([backend], "info").await;
    let client = program.client();
    let started = simulator.start_job(Plan::fixed("RUNNING"));
    let job = job("hostile", &started.id);
    assert_eq!(get(&client, &job).await.unwrap().state(), S::Running);
    let before = program.peak_memory();
    for fault in table::HOGS {
        proxy.set(fault.fault());
        let bytes = proxy.seen().bytes;
        for _ in 0..10 {
            get(&client, &job).await.unwrap_err();
        }
        let sent = proxy.seen().bytes - bytes;
        assert!(sent < 400 << 20, "{sent} bytes were read");
        proxy.heal();
        assert_eq!(at_last(&client, &job).await, S::Running);
    }
    let grown = program.peak_memory() - before;
    assert!(grown < 24 * LIMIT, "{grown} bytes more than before");
}
