//! One job whose presence makes a request fail costs the other jobs nothing but a few
//! extra polls.

use std::collections::HashSet;

use jobwatch::{
    proto::v1::{JobState as S, watch_job_response::Event},
    simulators::{Call, Effect, Elements, Fault, GraphQlError, Simulator, Vendor},
};
use tonic::Code;

use super::{all_succeed, start_running, watch_all};
use crate::harness::*;

/// Watched jobs beside the failing one.
const HEALTHY: usize = 60;
/// Polls that bisection may cost for one failing job among [`HEALTHY`] others:
/// 2 * log2(61) + 4, rounded up.
const BISECTION: usize = 16;
/// How many bisections a run may take: jobs are added while the first one is under way.
const BISECTIONS: usize = 3;
const INTERVAL_MS: u64 = 200;

/// What the failing job's own watch receives while the fault lasts.
enum Sees {
    /// An interruption with this code and reason; the watch stays open.
    Interruption(Code, &'static str),
    /// The vendor says that there is no such job.
    NotFound,
}

const UNAVAILABLE: Sees = Sees::Interruption(Code::Unavailable, "BACKEND_UNAVAILABLE");
const MALFORMED: Sees = Sees::Interruption(Code::Internal, "BACKEND_MALFORMED");

/// A fault that every request which lists the job meets, and what the job's watch sees;
/// as a function of the job's id and of that of a job which no request lists.
fn status(code: u16) -> impl Fn(&str, &str) -> (Effect, Sees) {
    move |_, _| (Effect::status(code, "{}"), UNAVAILABLE)
}

fn reset(_: &str, _: &str) -> (Effect, Sees) {
    (Effect::Reset, UNAVAILABLE)
}

fn hang(_: &str, _: &str) -> (Effect, Sees) {
    (Effect::Hang, UNAVAILABLE)
}

fn garbage(_: &str, _: &str) -> (Effect, Sees) {
    (Effect::status(200, "{\"a\": not JSON"), MALFORMED)
}

/// More than `max_response_bytes`.
fn huge(_: &str, _: &str) -> (Effect, Sees) {
    (Effect::HugeBody(4 << 20), MALFORMED)
}

/// The job has no element.
fn missing_element(id: &str, _: &str) -> (Effect, Sees) {
    (Effect::Elements(Elements { omit: vec![id.to_owned()], add: Vec::new() }), Sees::NotFound)
}

/// In place of the job's element there is one of a job that the request does not list.
fn other_element(id: &str, stranger: &str) -> (Effect, Sees) {
    (Effect::Elements(Elements { omit: vec![id.to_owned()], add: vec![stranger.to_owned()] }), MALFORMED)
}

/// An element of a job that the request does not list, beside all others.
async fn surplus_element_changes_nothing(vendor: Vendor) {
    let simulator = simulator(vendor).await;
    let gateway = Gateway::start([backend(&simulator)]).await;
    let jobs = start_running(&simulator, HEALTHY);
    let stranger = start_running(&simulator, 1).remove(0).job_id;
    let elements = Elements { omit: Vec::new(), add: vec![stranger] };
    simulator.poison_with(&jobs[0].job_id, Effect::Elements(elements));
    let mut watches = watch_all(&gateway.client(), &jobs).await;
    for watch in &mut watches {
        assert_eq!(watch.status().await.state(), S::Running);
    }
    for job in &jobs {
        simulator.finish(&job.job_id);
    }
    all_succeed(&mut watches).await;
}

fn backend(simulator: &Simulator) -> Backend {
    let mut backend = Backend::of(simulator).every(ms(INTERVAL_MS)).poll("timeout", "\"1s\"");
    // A back-off so long that probes with one job each would not reach all of them.
    backend = backend.poll("max_response_bytes", "1048576").poll("max_backoff", "\"2s\"");
    match simulator.vendor() {
        Vendor::Immuta | Vendor::Datasaur => backend.poll("max_batch", "100"),
        Vendor::Kinetica | Vendor::Claret => backend,
    }
}

/// Healthy jobs share their polls with one that starts to fail, and end while it fails. Each
/// receives its terminal status; the failing job is interrupted and receives its own once
/// the fault is removed.
async fn healthy_jobs_end(vendor: Vendor, fault: impl Fn(&str, &str) -> (Effect, Sees)) {
    let simulator = simulator(vendor).await;
    let gateway = Gateway::start([backend(&simulator)]).await;
    let client = gateway.client();
    let failing = start_running(&simulator, 1).remove(0);
    let stranger = start_running(&simulator, 1).remove(0);
    let healthy = start_running(&simulator, HEALTHY);
    let mut failing_watch = Watch::of(&client, &failing).await;
    let mut watches = watch_all(&client, &healthy).await;
    failing_watch.next_status().await;
    let all_run = async {
        for watch in &mut watches {
            assert_eq!(watch.next_status().await.state(), S::Running);
        }
    };
    guard(all_run).await;
    if matches!(vendor, Vendor::Immuta | Vendor::Datasaur) {
        let share_a_poll = async {
            while !simulator.calls().iter().any(|call| call.job_ids.len() > HEALTHY) {
                simulator.wait_for_calls("", simulator.count("") + 1).await;
            }
        };
        guard(share_a_poll).await;
    }

    simulator.clear_calls();
    let (effect, sees) = fault(&failing.job_id, &stranger.job_id);
    simulator.poison_with(&failing.job_id, effect);
    let lists_it = |call: &Call| call.job_ids.contains(&failing.job_id);
    let first_failure = async {
        while !simulator.calls().iter().any(lists_it) {
            simulator.wait_for_calls("", simulator.count("") + 1).await;
        }
    };
    guard(first_failure).await;
    for job in &healthy {
        simulator.finish(&job.job_id);
    }
    guard(all_succeed(&mut watches)).await;

    match sees {
        Sees::Interruption(code, reason) => {
            let (_, cause) = failing_watch.interruption().await;
            assert_eq!((cause.code, &*cause.reason), (code, reason), "{}", cause.message);
            simulator.finish(&failing.job_id);
            simulator.heal(&failing.job_id);
            assert_eq!(failing_watch.terminal_status().await.state(), S::Succeeded);
        }
        Sees::NotFound => {
            let error = decode_error(&failing_watch.end().await.unwrap_err());
            assert_eq!((error.code, &*error.reason), (Code::NotFound, "JOB_GONE"));
        }
    }
    if matches!(vendor, Vendor::Immuta | Vendor::Datasaur) {
        assert_requests_are_bounded(&simulator, &failing.job_id);
    }
}

/// Batches that list the failing job are bounded by number, whatever the time; all other
/// polls by the poll interval.
fn assert_requests_are_bounded(simulator: &Simulator, failing: &str) {
    let polls: Vec<_> = simulator.calls().into_iter().filter(|call| !call.job_ids.is_empty()).collect();
    let lists_it = |call: &&Call| call.job_ids.iter().any(|id| id == failing);
    let failed_batches = polls.iter().filter(lists_it).filter(|call| call.job_ids.len() > 1).count();
    assert!(failed_batches <= BISECTIONS * BISECTION, "{failed_batches} batches list the failing job");

    let time = polls.last().unwrap().at - polls[0].at;
    let intervals = usize::try_from(time.as_millis()).unwrap() / usize::try_from(INTERVAL_MS).unwrap() + 1;
    // A batch of the healthy jobs and a poll of the failing one, with room for batches
    // that have not coalesced again, and for polls that a busy machine lets fail.
    let limit = 4 * intervals + 8 * BISECTION;
    assert!(polls.len() <= limit, "{} polls in {time:?}", polls.len());
}

#[tokio::test]
async fn immuta_batch_with_a_job_that_gets_500_is_bisected() {
    healthy_jobs_end(Vendor::Immuta, status(500)).await;
}

#[tokio::test]
async fn immuta_batch_with_a_job_that_gets_502_is_bisected() {
    healthy_jobs_end(Vendor::Immuta, status(502)).await;
}

#[tokio::test]
async fn immuta_batch_with_a_job_that_resets_the_connection_is_bisected() {
    healthy_jobs_end(Vendor::Immuta, reset).await;
}

#[tokio::test]
async fn immuta_batch_with_a_job_that_hangs_is_bisected() {
    healthy_jobs_end(Vendor::Immuta, hang).await;
}

#[tokio::test]
async fn immuta_batch_with_a_job_that_gets_garbage_is_bisected() {
    healthy_jobs_end(Vendor::Immuta, garbage).await;
}

#[tokio::test]
async fn immuta_batch_with_a_job_that_gets_a_huge_response_is_bisected() {
    healthy_jobs_end(Vendor::Immuta, huge).await;
}

#[tokio::test]
async fn immuta_batch_with_a_missing_element_observes_the_others() {
    healthy_jobs_end(Vendor::Immuta, missing_element).await;
}

#[tokio::test]
async fn immuta_batch_with_an_element_of_another_job_observes_the_others() {
    healthy_jobs_end(Vendor::Immuta, other_element).await;
}

#[tokio::test]
async fn datasaur_batch_with_a_job_that_gets_500_is_bisected() {
    healthy_jobs_end(Vendor::Datasaur, status(500)).await;
}

#[tokio::test]
async fn datasaur_batch_with_a_job_that_gets_502_is_bisected() {
    healthy_jobs_end(Vendor::Datasaur, status(502)).await;
}

#[tokio::test]
async fn datasaur_batch_with_a_job_that_resets_the_connection_is_bisected() {
    healthy_jobs_end(Vendor::Datasaur, reset).await;
}

#[tokio::test]
async fn datasaur_batch_with_a_job_that_hangs_is_bisected() {
    healthy_jobs_end(Vendor::Datasaur, hang).await;
}

#[tokio::test]
async fn datasaur_batch_with_a_job_that_gets_garbage_is_bisected() {
    healthy_jobs_end(Vendor::Datasaur, garbage).await;
}

#[tokio::test]
async fn datasaur_batch_with_a_job_that_gets_a_huge_response_is_bisected() {
    healthy_jobs_end(Vendor::Datasaur, huge).await;
}

#[tokio::test]
async fn datasaur_batch_with_a_missing_element_observes_the_others() {
    healthy_jobs_end(Vendor::Datasaur, missing_element).await;
}

#[tokio::test]
async fn datasaur_batch_with_an_element_of_another_job_observes_the_others() {
    healthy_jobs_end(Vendor::Datasaur, other_element).await;
}

#[tokio::test]
async fn claret_job_that_gets_500_does_not_delay_others() {
    healthy_jobs_end(Vendor::Claret, status(500)).await;
}

#[tokio::test]
async fn claret_job_that_resets_the_connection_does_not_delay_others() {
    healthy_jobs_end(Vendor::Claret, reset).await;
}

#[tokio::test]
async fn claret_job_that_hangs_does_not_delay_others() {
    healthy_jobs_end(Vendor::Claret, hang).await;
}

#[tokio::test]
async fn claret_job_that_gets_garbage_does_not_delay_others() {
    healthy_jobs_end(Vendor::Claret, garbage).await;
}

#[tokio::test]
async fn kinetica_job_that_gets_500_does_not_delay_others() {
    healthy_jobs_end(Vendor::Kinetica, status(500)).await;
}

#[tokio::test]
async fn kinetica_job_that_resets_the_connection_does_not_delay_others() {
    healthy_jobs_end(Vendor::Kinetica, reset).await;
}

#[tokio::test]
async fn kinetica_job_that_hangs_does_not_delay_others() {
    healthy_jobs_end(Vendor::Kinetica, hang).await;
}

#[tokio::test]
async fn kinetica_job_that_gets_garbage_does_not_delay_others() {
    healthy_jobs_end(Vendor::Kinetica, garbage).await;
}

#[tokio::test]
async fn immuta_batch_with_a_surplus_element_observes_all() {
    surplus_element_changes_nothing(Vendor::Immuta).await;
}

#[tokio::test]
async fn datasaur_batch_with_a_surplus_element_observes_all() {
    surplus_element_changes_nothing(Vendor::Datasaur).await;
}

/// An error "Unauthorized" that stands in place of one job, beside the data of the others,
/// is no evidence about the gateway's credentials.
#[tokio::test]
async fn datasaur_batch_with_an_unauthorized_job_observes_the_others() {
    let simulator = simulator(Vendor::Datasaur).await;
    let gateway = Gateway::start([backend(&simulator)]).await;
    let client = gateway.client();
    let healthy = start_running(&simulator, HEALTHY);
    let mut watches = watch_all(&client, &healthy).await;
    for watch in &mut watches {
        assert_eq!(watch.next_status().await.state(), S::Running);
    }
    // The vendor has no data about it.
    let unauthorized = job("datasaur", "AutoLabelQueue:unauthorized");
    let message = "Unauthorized".to_owned();
    let error = GraphQlError { message, with_data: true, ..GraphQlError::default() };
    simulator.poison_with(&unauthorized.job_id, Effect::GraphQlError(error));
    let mut failing = Watch::of(&client, &unauthorized).await;
    let reason = failing.interruption().await.1.reason;
    // Polled alone, the job looks the same as rejected credentials.
    assert!(["BACKEND_FORBIDDEN", "BACKEND_CREDENTIALS_REJECTED"].contains(&&*reason), "{reason}");
    for job in &healthy {
        simulator.finish(&job.job_id);
    }
    guard(all_succeed(&mut watches)).await;
}

/// A job that always gets 500 at a vendor with one job a request, and another caller's
/// Gets of another job after each of its failures.
async fn gets_are_answered_beside_a_failing_job(vendor: Vendor) {
    let simulator = simulator(vendor).await;
    let gateway = Gateway::start([Backend::of(&simulator)]).await;
    let client = gateway.client();
    let [failing, healthy] = &start_running(&simulator, 2)[..] else { panic!("two jobs") };
    get(&client, healthy).await.unwrap();
    simulator.poison_with(&failing.job_id, Effect::status(500, "{}"));
    let mut watch = Watch::of(&client, failing).await;
    let failures =
        || simulator.calls().iter().filter(|call| call.job_ids == [failing.job_id.clone()]).count();
    for _ in 0..20 {
        let before = failures();
        let gets_until_it_failed_again = async {
            while failures() == before {
                get(&client, healthy).await.unwrap();
            }
        };
        guard(gets_until_it_failed_again).await;
        let error = get(&client, failing).await.unwrap_err();
        assert_eq!(code_and_reason(&error), (Code::Unavailable, "BACKEND_UNAVAILABLE".to_owned()));
    }
    loop {
        match watch.next().await.unwrap().expect("the watch stays open") {
            Event::Interruption(_) => break,
            Event::Heartbeat(_) => {}
            Event::Status(status) => panic!("{status:?}"),
        }
    }
}

#[tokio::test]
async fn claret_job_that_always_gets_500_does_not_fail_gets_of_another_job() {
    gets_are_answered_beside_a_failing_job(Vendor::Claret).await;
}

#[tokio::test]
async fn kinetica_job_that_always_gets_500_does_not_fail_gets_of_another_job() {
    gets_are_answered_beside_a_failing_job(Vendor::Kinetica).await;
}

/// In a real outage every poll fails, and the back-off spaces the polls.
#[tokio::test]
async fn outage_of_every_job_interrupts_all_watches_and_all_recover() {
    let simulator = simulator(Vendor::Immuta).await;
    let gateway = Gateway::start([backend(&simulator)]).await;
    let jobs = start_running(&simulator, HEALTHY);
    let mut watches = watch_all(&gateway.client(), &jobs).await;
    for watch in &mut watches {
        assert_eq!(watch.next_status().await.state(), S::Running);
    }
    simulator.inject(Fault::new(Effect::status(500, "{}")));
    for watch in &mut watches {
        assert_eq!(watch.interruption().await.1.reason, "BACKEND_UNAVAILABLE");
    }
    for job in &jobs {
        simulator.finish(&job.job_id);
    }
    simulator.clear_calls();
    simulator.clear_faults();
    all_succeed(&mut watches).await;
    let polled: HashSet<_> = simulator.calls().into_iter().flat_map(|call| call.job_ids).collect();
    assert_eq!(polled.len(), HEALTHY);
}
