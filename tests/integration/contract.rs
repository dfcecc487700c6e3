//! What the contract promises to clients in any language.

use std::{collections::BTreeSet, path::Path};

use jobwatch::{
    proto::{
        FILE_DESCRIPTOR_SET,
        v1::{
            AddWatch, JobState, WatchJobRequest, WatchJobsRequest, watch_job_response::Event,
            watch_jobs_request, watch_jobs_response::Outcome,
        },
    },
    simulators::{Plan, Vendor},
};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use prost_types::FileDescriptorSet;
use tonic::Code;

use crate::{harness::*, program::Program};

fn described() -> FileDescriptorSet {
    FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap()
}

/// The names of all files below a folder, with their folders.
fn names(folder: &Path, root: &Path, into: &mut BTreeSet<String>) {
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names(&path, root, into);
        } else {
            into.insert(path.strip_prefix(root).unwrap().display().to_string());
        }
    }
}

#[test]
fn contract_declares_no_file_of_another_project() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let mut found = BTreeSet::new();
    names(&root, &root, &mut found);
    let own = [
        "buf.yaml",
        "jobwatch/cluster/v1/cluster.proto",
        "jobwatch/cluster/v1/session.proto",
        "jobwatch/v1/job.proto",
        "jobwatch/v1/job_status_service.proto",
    ];
    assert_eq!(found, own.map(str::to_owned).into());
}

#[test]
fn served_descriptors_have_each_file_once_under_its_usual_name() {
    let files = described().file;
    let names: BTreeSet<_> = files.iter().map(|file| file.name().to_owned()).collect();
    assert_eq!(names.len(), files.len(), "{names:?}");
    for name in [
        "google/rpc/status.proto",
        "google/rpc/error_details.proto",
        "google/longrunning/operations.proto",
        "google/protobuf/any.proto",
    ] {
        assert!(names.contains(name), "{names:?}");
    }
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap();
    assert!(pool.get_message_by_name("google.rpc.RetryInfo").is_some());
}

#[test]
fn contract_sets_the_file_options_of_every_language() {
    let files = described().file;
    let own: Vec<_> = files.iter().filter(|file| file.package() == "jobwatch.v1").collect();
    assert_eq!(own.len(), 2);
    for file in own {
        let options = file.options.as_ref().unwrap();
        let class = if file.name().ends_with("/job.proto") { "JobProto" } else { "JobStatusServiceProto" };
        assert_eq!(options.go_package(), "jobwatch/v1;jobwatchv1");
        assert_eq!((options.java_package(), options.java_outer_classname()), ("jobwatch.v1", class));
        assert!(options.java_multiple_files());
        assert_eq!(options.csharp_namespace(), "Jobwatch.V1");
        assert_eq!((options.php_namespace(), options.ruby_package()), ("Jobwatch\\V1", "Jobwatch::V1"));
        assert_eq!((options.objc_class_prefix(), options.swift_prefix()), ("JBW", "Jobwatch_V1_"));
    }
}

#[test]
fn responses_need_no_type_beyond_the_contract_to_be_printed() {
    let files = described().file;
    for file in files.iter().filter(|file| file.package() == "jobwatch.v1") {
        let foreign = file.dependency.iter().filter(|name| !name.starts_with("jobwatch/v1/"));
        for name in foreign {
            assert!(name.starts_with("google/protobuf/") && !name.ends_with("/any.proto"), "{name}");
        }
    }
}

/// A client that knows the contract alone.
#[tokio::test]
async fn failed_element_is_printed_by_a_client_of_the_contract_alone() {
    let program = Program::start([Backend::dead(Vendor::Immuta).await], "info").await;
    let request = batch_request([job("immuta", "a")]);
    let response = guard(program.client().batch_get_statuses(request)).await.unwrap().into_inner();
    let mut set = described();
    set.file.retain(|file| !["google.rpc", "google.longrunning"].contains(&file.package()));
    let pool = DescriptorPool::from_file_descriptor_set(set).unwrap();
    let kind = pool.get_message_by_name("jobwatch.v1.BatchGetStatusesResponse").unwrap();
    let printed = DynamicMessage::decode(kind, &*response.encode_to_vec()).unwrap();
    let printed = serde_json::to_value(&printed).unwrap();
    let error = &printed["results"][0]["error"];
    assert_eq!((&error["code"], &error["reason"]), (&14.into(), &"BACKEND_UNAVAILABLE".into()), "{error}");
    assert_eq!(error["metadata"]["backend"], "immuta");
    assert!(error["retryDelay"].as_str().is_some_and(|delay| delay.ends_with('s')), "{error}");
}

#[tokio::test]
async fn error_with_a_retry_info_has_the_same_wait_for_grpc() {
    let program = Program::start([Backend::dead(Vendor::Immuta).await], "info").await;
    let error = get(&program.client(), &job("immuta", "a")).await.unwrap_err();
    let delay = decode_error(&error).retry_delay().expect("a RetryInfo");
    let pushback = error.metadata().get("grpc-retry-pushback-ms").expect("a pushback");
    let pushback: u128 = pushback.to_str().unwrap().parse().unwrap();
    assert_eq!(pushback, delay.as_nanos().div_ceil(1_000_000));
    let final_error = get(&program.client(), &job("nowhere", "a")).await.unwrap_err();
    assert!(final_error.metadata().get("grpc-retry-pushback-ms").is_none());
}

#[tokio::test]
async fn missed_deadline_names_its_owner() {
    let simulator = simulator(Vendor::Immuta).await;
    let gateway = Gateway::start([Backend::of(&simulator)]).await;
    let job = job_at(&simulator, &simulator.start_job(Plan::fixed("active")));
    let mut watch = Watch::open(&gateway.client(), within(ms(2000), watch_request(&job))).await.unwrap();
    watch.status().await;
    let error = decode_error(&watch.end().await.unwrap_err());
    assert_eq!((error.code, error.metadata["deadline"].as_str()), (Code::DeadlineExceeded, "caller"));
    let healthy = "the caller's deadline ended the watch; resume it with the last resume_token, or set none";
    assert_eq!(error.message, healthy);
}

#[tokio::test]
async fn resumed_watch_of_an_ended_job_sends_its_status_over_watch_jobs() {
    let simulator = simulator(Vendor::Immuta).await;
    let program = Program::start([Backend::of(&simulator)], "info").await;
    let client = program.client();
    let job = job_at(&simulator, &simulator.start_job(Plan::default()));
    let mut watch = Watch::of(&client, &job).await;
    while watch.status().await.state() != JobState::Succeeded {}
    let resume_token = watch.token.clone();
    watch.end().await.unwrap();
    let request = WatchJobRequest { resume_token, ..watch_request(&job) };
    for id in 0..2 {
        let add = AddWatch { watch_id: id, watch: Some(request.clone()) };
        let add = WatchJobsRequest { request: Some(watch_jobs_request::Request::Add(add)) };
        let call = client.clone().watch_jobs(tokio_stream::iter([add])).await.unwrap();
        let mut events = call.into_inner();
        let Some(Outcome::Event(event)) = guard(events.message()).await.unwrap().unwrap().outcome else {
            panic!("the terminal status comes first")
        };
        assert!(matches!(event.event, Some(Event::Status(status)) if status.terminal));
        let end = guard(events.message()).await.unwrap().unwrap().outcome;
        assert!(matches!(end, Some(Outcome::End(end)) if end.code == 0));
        assert_eq!(guard(events.message()).await.unwrap(), None);
    }
}
