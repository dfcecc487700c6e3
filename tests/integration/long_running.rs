//! `google.longrunning.Operations`.

use jobwatch::{
    access::{generate_token, hash_token},
    proto::{
        longrunning::{
            CancelOperationRequest, GetOperationRequest, ListOperationsRequest, Operation,
            WaitOperationRequest, operation::Result as End, operations_client::OperationsClient,
        },
        v1::{JobResult, JobState, JobStatus},
    },
    simulators::{Outcome, Plan, Simulator, Vendor},
};
use prost::Message;
use tonic::{Code, Request, Status, transport::Channel};

use crate::{
    harness::*,
    program::{Program, command},
};

async fn program_with(sections: &str, backends: impl IntoIterator<Item = Backend>) -> Program {
    let config = config_text(&format!("[server]\nlisten = \"127.0.0.1:0\"\n{sections}"), backends);
    Program::run(command(&config), "info").await
}

async fn program(simulator: &Simulator) -> Program {
    program_with("", [Backend::of(simulator)]).await
}

fn client(program: &Program) -> OperationsClient<Channel> {
    OperationsClient::new(program.channel())
}

fn name(id: &str) -> String {
    format!("backends/immuta/jobs/{id}")
}

async fn get_operation(program: &Program, name: &str) -> Result<Operation, Status> {
    let request = GetOperationRequest { name: name.to_owned() };
    Ok(guard(client(program).get_operation(request)).await?.into_inner())
}

/// The status in an operation's metadata.
fn status(operation: &Operation) -> JobStatus {
    let metadata = operation.metadata.as_ref().unwrap();
    assert_eq!(metadata.type_url, "type.googleapis.com/jobwatch.v1.JobStatus");
    JobStatus::decode(&*metadata.value).unwrap()
}

#[tokio::test]
async fn operation_of_a_job_has_its_status_and_its_end() {
    let simulator = simulator(Vendor::Immuta).await;
    let program = program(&simulator).await;
    let id = simulator.start_job(Plan::succeeds(Outcome::Text("24 tables".to_owned())).id("a b")).id;
    let operation = get_operation(&program, &name("a%20b")).await.unwrap();
    assert_eq!((&*operation.name, operation.done), ("backends/immuta/jobs/a%20b", true));
    let metadata = status(&operation);
    assert_eq!((metadata.job.unwrap().job_id, metadata.result), (id, None));
    let Some(End::Response(response)) = operation.result else { panic!("it has succeeded") };
    assert_eq!(response.type_url, "type.googleapis.com/jobwatch.v1.JobResult");
    assert_eq!(JobResult::decode(&*response.value).unwrap().data, "24 tables");

    let running = simulator.start_job(Plan::fixed("active")).id;
    let operation = get_operation(&program, &name(&running)).await.unwrap();
    assert_eq!((operation.done, operation.result.as_ref()), (false, None));
    assert_eq!(status(&operation).state(), JobState::Running);

    for (plan, code, message) in [
        (Plan::fails("no such column"), Code::Unknown, "no such column"),
        (Plan::fixed("cancelled"), Code::Cancelled, "cancelled"),
        (Plan::fixed("expired"), Code::DeadlineExceeded, "expired"),
    ] {
        let id = simulator.start_job(plan).id;
        let operation = get_operation(&program, &name(&id)).await.unwrap();
        let Some(End::Error(error)) = &operation.result else { panic!("{operation:?}") };
        assert_eq!((error.code, &*error.message, operation.done), (code.into(), message, true));
        assert!(!error.details.is_empty());
    }
}

#[tokio::test]
async fn wait_returns_at_the_end_of_the_job_or_of_its_time() {
    let simulator = simulator(Vendor::Immuta).await;
    let program = program(&simulator).await;
    let id = simulator.start_job(Plan::fixed("active")).id;
    let wait = |timeout| WaitOperationRequest { name: name(&id), timeout };
    let operation = guard(client(&program).wait_operation(wait(Some(proto_ms(300))))).await.unwrap();
    assert!(!operation.into_inner().done);
    let before = simulator.calls().len();
    let mut waiting = client(&program);
    // Without a time-out of its own it waits as long as the call may take.
    let waiting = waiting.wait_operation(wait(None));
    let finish = async {
        until(|| simulator.calls().len() > before + 1).await;
        simulator.finish(&id);
    };
    let (operation, ()) = tokio::join!(waiting, finish);
    assert!(operation.unwrap().into_inner().done);
    let negative = prost_types::Duration { seconds: -1, nanos: 0 };
    let error = guard(client(&program).wait_operation(wait(Some(negative)))).await.unwrap_err();
    assert_eq!(decode_error(&error).field(), "timeout");
}

#[tokio::test]
async fn list_has_the_jobs_that_are_followed_in_pages_and_names_backends_that_are_down() {
    let immuta = simulator(Vendor::Immuta).await;
    let backends = [Backend::of(&immuta), Backend::dead(Vendor::Claret).await];
    let program = program_with("", backends).await;
    let jobs = program.client();
    let mut watches = Vec::new();
    for id in ["one", "two", "three"] {
        watches.push(watched_job(&immuta, &jobs, Plan::fixed("active").id(id)).await.1);
    }
    let mut down = Watch::of(&jobs, &job("claret", "7")).await;
    down.interruption().await;
    let list = async |name: &str, page_token: &str, return_partial_success| {
        let request = ListOperationsRequest {
            name: name.to_owned(),
            page_size: 2,
            page_token: page_token.to_owned(),
            return_partial_success,
            ..ListOperationsRequest::default()
        };
        guard(client(&program).list_operations(request)).await.map(tonic::Response::into_inner)
    };
    let first = list("backends/immuta", "", false).await.unwrap();
    let second = list("backends/immuta", &first.next_page_token, false).await.unwrap();
    assert_eq!((first.operations.len(), &*second.next_page_token), (2, ""));
    let all: Vec<_> = first.operations.iter().chain(&second.operations).collect();
    let mut names: Vec<_> = all.iter().map(|operation| &*operation.name).collect();
    names.sort_unstable();
    assert_eq!(names, ["one", "three", "two"].map(name));
    assert!(all.iter().all(|operation| status(operation).state() == JobState::Running && !operation.done));
    // The vendor that does not answer.
    let unreachable = async {
        loop {
            let listed = list("backends/-", "", true).await.unwrap();
            if !listed.unreachable.is_empty() {
                return listed;
            }
        }
    };
    let listed = guard(unreachable).await;
    assert_eq!(listed.unreachable, ["backends/claret"]);
    assert_eq!(listed.operations[0].name, "backends/claret/jobs/7", "by backend");
    assert_eq!(status(&listed.operations[0]).job, Some(job("claret", "7")));

    let error = list("backends/nowhere", "", false).await.unwrap_err();
    assert_eq!(code_and_reason(&error), (Code::NotFound, "UNKNOWN_BACKEND".to_owned()));
    let filtered =
        ListOperationsRequest { filter: "done=true".to_owned(), ..ListOperationsRequest::default() };
    let error = guard(client(&program).list_operations(filtered)).await.unwrap_err();
    assert_eq!(error.message(), "filter is not supported; leave it out");
}

#[tokio::test]
async fn operations_are_not_cancelled() {
    let simulator = simulator(Vendor::Immuta).await;
    let program = program(&simulator).await;
    let request = CancelOperationRequest { name: name("1") };
    let error = decode_error(&guard(client(&program).cancel_operation(request)).await.unwrap_err());
    assert_eq!((error.code, &*error.reason), (Code::Unimplemented, "JOBS_ARE_READ_ONLY"));
    assert_eq!(error.message, "jobwatch reads jobs and does not cancel them; cancel this one at its vendor");
    assert_eq!(error.metadata["job_id"], "1");
    assert!(simulator.calls().is_empty());
}

#[tokio::test]
async fn callers_have_the_rights_of_the_job_status_service() {
    let simulator = simulator(Vendor::Immuta).await;
    let tokens = [generate_token(), generate_token()];
    let [reader, operator] = tokens.each_ref().map(|token| hash_token(token));
    let sections = format!(
        "[log]\naccess = true\n[access.tokens]\nreader.sha256 = [\"{reader}\"]\noperator.sha256 = [\"{operator}\"]\n\
         [[access.policies]]\nprincipals = [\"token:reader\"]\nbackends = [\"immuta\"]\n\
         [[access.policies]]\nprincipals = [\"token:operator\"]\nbackends = [\"immuta\"]\nrights = [\"read\", \"admin\"]\n"
    );
    let program = program_with(&sections, [Backend::of(&simulator)]).await;
    let id = simulator.start_job(Plan::default()).id;
    let with = |token: &str, name: String| {
        let mut request = Request::new(GetOperationRequest { name });
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        request
    };
    let error = get_operation(&program, &name(&id)).await.unwrap_err();
    assert_eq!(code_and_reason(&error), (Code::Unauthenticated, "CALLER_UNAUTHENTICATED".to_owned()));
    guard(client(&program).get_operation(with(&tokens[0], name(&id)))).await.unwrap();
    let other = with(&tokens[0], "backends/other/jobs/1".to_owned());
    let error = guard(client(&program).get_operation(other)).await.unwrap_err();
    assert_eq!(code_and_reason(&error), (Code::PermissionDenied, "BACKEND_NOT_ALLOWED".to_owned()));
    for (token, allowed) in tokens.iter().zip([false, true]) {
        let mut request =
            Request::new(ListOperationsRequest { name: "backends/immuta".to_owned(), ..Default::default() });
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        let listed = guard(client(&program).list_operations(request)).await;
        assert_eq!(listed.is_ok(), allowed, "another's jobs are for operators, as in ListJobs");
    }
    for name in ["backends/-", ""] {
        for (token, reason) in [(&tokens[0], Some("BACKEND_NOT_ALLOWED")), (&tokens[1], None)] {
            let mut request =
                Request::new(ListOperationsRequest { name: name.to_owned(), ..Default::default() });
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
            let listed = guard(client(&program).list_operations(request)).await;
            let refused = listed.err().map(|error| code_and_reason(&error));
            assert_eq!(refused, reason.map(|reason| (Code::PermissionDenied, reason.to_owned())));
        }
    }
    program.logged("method=\"GetOperation\" code=\"OK\"").await;
    assert!(
        program.log().contains("principal=\"token:reader\" method=\"GetOperation\""),
        "{}",
        program.log()
    );
}
