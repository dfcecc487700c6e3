//! ListJobs, `jobwatch backends` and `jobwatch jobs`; the known backends in an error.

use std::process::Stdio;

use jobwatch::{
    proto::v1::{InspectedJob, JobState as S, ListJobsRequest},
    simulators::{Effect, Fault, Plan, Vendor},
};
use serde_json::Value;
use tokio::process::Command;
use tonic::{Code, Status};

use crate::harness::*;

async fn list(client: &Client, request: ListJobsRequest) -> Result<(Vec<InspectedJob>, String), Status> {
    let response = guard(client.clone().list_jobs(request)).await?.into_inner();
    Ok((response.jobs, response.next_page_token))
}

fn of(backend: &str) -> ListJobsRequest {
    ListJobsRequest { backend: backend.to_owned(), ..Default::default() }
}

#[tokio::test]
async fn listed_job_has_its_subscribers_times_and_last_error() {
    let simulator = simulator(Vendor::Immuta).await;
    let gateway = Gateway::start([Backend::of(&simulator), Backend::dead(Vendor::Claret).await]).await;
    let client = gateway.client();
    let job = job_at(&simulator, &simulator.start_job(Plan::fixed("active")));
    let (mut one, mut two) = (Watch::of(&client, &job).await, Watch::of(&client, &job).await);
    one.status().await;
    two.status().await;
    let mut failing = Watch::of(&client, &self::job("claret", "7")).await;
    failing.interruption().await;
    let (jobs, next) = list(&client, of("")).await.unwrap();
    assert_eq!((jobs.len(), &*next), (2, ""));
    let claret = &jobs[0];
    assert_eq!((claret.job.as_ref().unwrap(), claret.state), (&self::job("claret", "7"), None));
    let error = claret.last_error.as_ref().unwrap();
    assert_eq!(code_and_reason(&from_message(error)).1, "BACKEND_UNAVAILABLE");
    let immuta = &jobs[1];
    assert_eq!(immuta.job.as_ref(), Some(&job));
    assert_eq!((immuta.state(), immuta.subscribers, immuta.quarantined), (S::Running, 2, false));
    assert!(immuta.last_poll_time.is_some() && immuta.last_change_time.is_some());
    assert!(immuta.last_error.is_none());
    assert_eq!(list(&client, of("immuta")).await.unwrap().0.len(), 1);
}

#[tokio::test]
async fn pages_hold_each_job_once() {
    let (one, two) = (simulator(Vendor::Immuta).await, simulator(Vendor::Datasaur).await);
    let gateway = Gateway::start([Backend::of(&one), Backend::of(&two)]).await;
    let client = gateway.client();
    let mut watches = Vec::new();
    for number in 0..30 {
        let simulator = if number % 3 == 0 { &two } else { &one };
        let plan = Plan::fixed(running(simulator.vendor()));
        let (_, watch) = watched_job(simulator, &client, plan).await;
        watches.push(watch);
    }
    for size in [1, 7, 29, 30, 1000] {
        let (mut names, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListJobsRequest { page_size: size, page_token, ..Default::default() };
            let (jobs, next) = list(&client, request).await.unwrap();
            assert!(jobs.len() <= usize::try_from(size).unwrap());
            names.extend(jobs.into_iter().map(|job| format!("{:?}", job.job)));
            if next.is_empty() {
                break;
            }
            page_token = next;
        }
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 30, "{size}");
    }
    for wrong in [
        ListJobsRequest { page_size: -1, ..Default::default() },
        ListJobsRequest { page_token: "x".to_owned(), ..Default::default() },
    ] {
        let error = list(&client, wrong).await.unwrap_err();
        assert_eq!(code_and_reason(&error), (Code::InvalidArgument, "INVALID_REQUEST".to_owned()));
    }
}

#[tokio::test]
async fn quarantined_job_is_listed_as_such() {
    let simulator = simulator(Vendor::Immuta).await;
    let gateway = Gateway::start([Backend::of(&simulator).every(ms(10))]).await;
    let client = gateway.client();
    let (_, _healthy) = watched_job(&simulator, &client, Plan::fixed("active")).await;
    let started = simulator.start_job(Plan::fixed("active"));
    simulator.inject(Fault::new(Effect::status(500, "")).for_job(&started.id));
    let mut failing = Watch::of(&client, &job_at(&simulator, &started)).await;
    failing.interruption().await;
    let (jobs, _) = list(&client, of("immuta")).await.unwrap();
    let quarantined: Vec<_> = jobs.iter().filter(|job| job.quarantined).collect();
    assert_eq!(quarantined.len(), 1);
    assert_eq!(quarantined[0].job.as_ref().unwrap().job_id, started.id);
}

#[tokio::test]
async fn listing_jobs_needs_the_right_admin() {
    let backends = [Backend::dead(Vendor::Immuta).await, Backend::dead(Vendor::Claret).await];
    let access = "[access]\n[[access.policies]]\nprincipals = [\"anonymous\"]\nrights = [\"read\"]";
    let gateway = Gateway::start_with(access, backends.clone()).await;
    assert_eq!(list(&gateway.client(), of("")).await.unwrap(), (Vec::new(), String::new()));
    for name in ["immuta", "no-such"] {
        let error = list(&gateway.client(), of(name)).await.unwrap_err();
        assert_eq!(code_and_reason(&error), (Code::PermissionDenied, "BACKEND_NOT_ALLOWED".to_owned()));
    }
    let access = "[access]\n[[access.policies]]\nprincipals = [\"anonymous\"]\nrights = [\"read\", \"admin\"]\nbackends = [\"imm*\", \"other\"]";
    let gateway = Gateway::start_with(access, backends).await;
    list(&gateway.client(), of("immuta")).await.unwrap();
    assert_eq!(list(&gateway.client(), of("claret")).await.unwrap_err().code(), Code::PermissionDenied);
    let error = decode_error(&list(&gateway.client(), of("other")).await.unwrap_err());
    assert_eq!((&*error.reason, &*error.metadata["known_backends"]), ("UNKNOWN_BACKEND", "immuta"));
}

#[tokio::test]
async fn unknown_backend_lists_those_that_the_caller_may_use() {
    let backends = [Backend::dead(Vendor::Immuta).await, Backend::dead(Vendor::Claret).await];
    let gateway = Gateway::start(backends).await;
    let client = gateway.client();
    let unknown = job("imuta", "1");
    let known = |status: &Status| decode_error(status).metadata["known_backends"].clone();
    assert_eq!(known(&get(&client, &unknown).await.unwrap_err()), "claret,immuta");
    let error = match Watch::open(&client, watch_request(&unknown)).await {
        Ok(mut watch) => watch.end().await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(known(&error), "claret,immuta");
    let batch = batch(&client, batch_request([unknown])).await.unwrap();
    assert_eq!(known(batch[0].as_ref().unwrap_err()), "claret,immuta");
}

/// Runs a client command; returns the JSON objects of its output, and its exit code.
async fn run(arguments: &[&str]) -> (Vec<Value>, Option<i32>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jobwatch"));
    command.args(arguments).env_clear().stdin(Stdio::null()).kill_on_drop(true);
    let output = guard(command.output()).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), output.status.code())
}

#[tokio::test]
async fn commands_print_backends_and_jobs() {
    let simulator = simulator(Vendor::Immuta).await;
    let gateway = Gateway::start([Backend::of(&simulator)]).await;
    let (job, _watch) = watched_job(&simulator, &gateway.client(), Plan::fixed("active")).await;
    let server = format!("http://{}", gateway.address);
    let (backends, code) = run(&["backends", "--server", &server]).await;
    assert_eq!(
        (&backends[0]["name"], &backends[0]["watchedJobs"], code),
        (&"immuta".into(), &"1".into(), Some(0))
    );
    for arguments in [&["jobs", "--server", &server][..], &["jobs", "immuta", "--server", &server]] {
        let (jobs, code) = run(arguments).await;
        assert_eq!((&jobs[0]["job"]["jobId"], code), (&job.job_id.clone().into(), Some(0)));
        assert_eq!((&jobs[0]["state"], &jobs[0]["subscribers"]), (&"JOB_STATE_RUNNING".into(), &"1".into()));
    }
    assert_eq!(run(&["jobs", "none", "--server", &server]).await.1, Some(3));
}
