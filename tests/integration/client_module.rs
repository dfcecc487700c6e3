//! `jobwatch::client` against the built program. `languages.rs` has it through kills.

use jobwatch::{
    client::{self, Options, Update, WaitError},
    proto::v1::{JobRef, JobState as S, JobStatus, ListBackendsRequest, watch_job_response::Event},
    simulators::{Plan, Simulator, Vendor},
};
use tonic::Code;

use crate::{harness::*, program::Program};

/// A gateway with a good backend, one that has no listener, and one with wrong credentials.
async fn gateway() -> (Simulator, Program) {
    let simulator = simulator(Vendor::Immuta).await;
    let backends = [
        Backend::of(&simulator),
        Backend::dead(Vendor::Immuta).await.named("down"),
        Backend::of(&simulator).named("locked").credentials("{ api_key = \"wrong\" }"),
    ];
    let program = Program::start(backends, "info").await;
    (simulator, program)
}

async fn wait(program: &Program, job: JobRef, options: &Options) -> Result<JobStatus, WaitError> {
    guard(client::wait(&program.client(), job, options)).await
}

#[tokio::test]
async fn wait_returns_the_terminal_status_with_the_vendors_words() {
    let (simulator, program) = gateway().await;
    let failed = job_at(&simulator, &simulator.start_job(Plan::fails("no such column")));
    let status = wait(&program, failed, &Options::default()).await.unwrap();
    assert_eq!((status.state(), &*status.error.unwrap().message), (S::Failed, "no such column"));
}

#[tokio::test]
async fn wait_until_a_state_returns_at_it() {
    let (simulator, program) = gateway().await;
    let running = job_at(&simulator, &simulator.start_job(Plan::fixed("active")));
    let options = Options { until: vec![S::Running], ..Options::default() };
    let status = wait(&program, running, &options).await.unwrap();
    assert_eq!((status.state(), status.terminal), (S::Running, false));
}

#[tokio::test]
async fn wait_that_times_out_has_the_newest_status_and_the_problem() {
    let (simulator, program) = gateway().await;
    let running = job_at(&simulator, &simulator.start_job(Plan::fixed("active")));
    let options = Options { timeout: Some(ms(1500)), ..Options::default() };
    let error = wait(&program, running, &options).await.unwrap_err();
    assert_eq!(error.status.code(), Code::DeadlineExceeded);
    assert_eq!(error.to_string(), "DeadlineExceeded: the job has not ended within 1.5s");
    assert_eq!(error.last.unwrap().state(), S::Running);

    let error = wait(&program, job("down", "1"), &options).await.unwrap_err();
    assert_eq!((error.status.code(), error.last.is_none()), (Code::DeadlineExceeded, true));
    assert!(error.to_string().contains("; before that: "), "{error}");
    assert_eq!(
        code_and_reason(&error.problem.unwrap()),
        (Code::Unavailable, "BACKEND_UNAVAILABLE".to_owned())
    );
}

#[tokio::test]
async fn wait_ends_with_an_error_that_does_not_pass() {
    let (_simulator, program) = gateway().await;
    for (job, code, reason) in [
        (job("locked", "1"), Code::FailedPrecondition, "BACKEND_CREDENTIALS_REJECTED"),
        (job("immuta", "no-such-job"), Code::NotFound, "JOB_NOT_FOUND"),
        (job("nowhere", "1"), Code::NotFound, "UNKNOWN_BACKEND"),
    ] {
        let error = wait(&program, job, &Options::default()).await.unwrap_err();
        assert_eq!(code_and_reason(&error.status), (code, reason.to_owned()));
    }
}

#[tokio::test]
async fn wait_without_a_gateway_ends_with_its_patience() {
    let (_simulator, mut program) = gateway().await;
    let client = program.client();
    program.signal("KILL").await;
    program.exit_code().await;
    let options = Options { patience: Some(ms(500)), ..Options::default() };
    let error = guard(client::wait(&client, job("immuta", "1"), &options)).await.unwrap_err();
    assert_eq!((error.status.code(), error.problem.is_none()), (Code::Unavailable, true));
}

#[tokio::test]
async fn follow_of_many_jobs_ends_each_once() {
    let (simulator, program) = gateway().await;
    let start = |plan| job_at(&simulator, &simulator.start_job(plan));
    let (running, done) = (start(Plan::fixed("active")), start(Plan::default()));
    let jobs = [running.clone(), job("immuta", "no-such-job"), done];
    let mut updates = client::follow(&program.client(), jobs, &Options::default());
    let (mut states, mut ends) = (Vec::new(), Vec::new());
    while let Some(update) = guard(updates.next()).await {
        match update {
            Update::Response(at, response) => {
                if let Some(Event::Status(status)) = response.event {
                    states.push((at, status.state()));
                }
            }
            Update::Ended(at, end) => ends.push((at, end.err().map(|error| code_and_reason(&error).1))),
            other => panic!("{other:?}"),
        }
        if ends.len() == 2 {
            simulator.finish(&running.job_id);
        }
    }
    states.sort_unstable();
    assert_eq!(states, [(0, S::Running), (0, S::Succeeded), (2, S::Succeeded)]);
    let last = ends.pop();
    assert_eq!(last, Some((0, None)));
    ends.sort_unstable();
    assert_eq!(ends, [(1, Some("JOB_NOT_FOUND".to_owned())), (2, None)]);
}

#[tokio::test]
async fn dropped_follow_ends_its_watches() {
    let (simulator, program) = gateway().await;
    let running = job_at(&simulator, &simulator.start_job(Plan::fixed("active")));
    let client = program.client();
    let watched = async || {
        let backends =
            client.clone().list_backends(ListBackendsRequest::default()).await.unwrap().into_inner().backends;
        backends.iter().map(|backend| backend.watched_jobs).sum::<i64>()
    };
    let mut updates = client::follow(&client, [running], &Options::default());
    assert!(matches!(guard(updates.next()).await, Some(Update::Response(0, _))));
    assert_eq!(watched().await, 1);
    drop(updates);
    guard(async { while watched().await > 0 {} }).await;
}

#[tokio::test]
async fn wait_reports_each_problem_while_it_goes_on() {
    let (_simulator, mut program) = gateway().await;
    let reported = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let on_problem = client::OnProblem::new({
        let reported = std::sync::Arc::clone(&reported);
        move |problem| reported.lock().unwrap().push(problem.code())
    });
    let options = Options { timeout: Some(ms(1500)), on_problem: Some(on_problem), ..Options::default() };
    wait(&program, job("down", "1"), &options).await.unwrap_err();
    let of_the_vendor = std::mem::take(&mut *reported.lock().unwrap());
    assert!(of_the_vendor.contains(&Code::Unavailable), "{of_the_vendor:?}");

    let client = program.client();
    program.signal("KILL").await;
    program.exit_code().await;
    guard(client::wait(&client, job("immuta", "1"), &options)).await.unwrap_err();
    assert!(!reported.lock().unwrap().is_empty());
}
