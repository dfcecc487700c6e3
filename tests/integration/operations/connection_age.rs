//! `server.max_connection_age`: calls move to new connections, and none is lost.

use jobwatch::{
    proto::v1::{
        DownloadArtifactRequest, JobState as S, WatchJobRequest, WatchJobsRequest,
        watch_jobs_request::Request,
    },
    simulators::{Category, Content, File, Plan, Vendor},
};
use prost::Message;
use tokio::sync::oneshot;
use tonic::{Code, Status};
use tonic_health::pb::health_client::HealthClient;

use super::{Admin, exposition, health_of, reflection, server_with};
use crate::{attacks::attacker::Attacker, harness::*};

/// Connections end as soon as they may.
const SHORT: &str = "max_connection_age = \"1s\"\nmax_connection_age_grace = \"0s\"";

/// Connections are replaced, and calls over the old ones go on.
const GRACE: &str = "max_connection_age = \"1s\"\nmax_connection_age_grace = \"10m\"";

fn is_expired(status: &Status) {
    let decoded = decode_error(status);
    assert_eq!((decoded.code, &*decoded.reason), (Code::Unavailable, "CONNECTION_EXPIRED"), "{status:?}");
    let delay = decoded.retry_delay().expect("it has a RetryInfo");
    assert!((ms(50)..=ms(1000)).contains(&delay), "{delay:?}");
}

async fn connections(admin: &Admin) -> i64 {
    counter(admin, "jobwatch_connections_total").await
}

async fn counter(admin: &Admin, name: &str) -> i64 {
    let families = exposition::read(&admin.get("/metrics").await.1);
    #[expect(clippy::cast_possible_truncation, reason = "it is a small whole number")]
    let value = families[name].sum(&[]).round() as i64;
    value
}

#[tokio::test]
async fn watch_moves_from_connection_to_connection_and_receives_each_state_once() {
    let simulator = simulator(Vendor::Immuta).await;
    let (program, admin) = server_with(SHORT, [Backend::of(&simulator).every(ms(20))]).await;
    let started = simulator.start_job(Plan::fixed("step-0"));
    let (client, job) = (program.client(), job_at(&simulator, &started));
    let (mut token, mut moves, mut seen) = (String::new(), 0, Vec::new());
    let succeeded = loop {
        let request = WatchJobRequest { resume_token: token.clone(), ..watch_request(&job) };
        let mut watch = Watch::open(&client, request).await.unwrap();
        let (statuses, end) = watch.rest().await;
        seen.extend(statuses.iter().map(|status| status.vendor_state.clone()));
        if !watch.token.is_empty() {
            token.clone_from(&watch.token);
        }
        let Err(end) = end else { break statuses.last().unwrap().state() };
        is_expired(&end);
        moves += 1;
        if moves < 3 {
            simulator.set_state(&started.id, &format!("step-{moves}"));
        } else {
            simulator.finish(&started.id);
        }
    };
    assert_eq!(succeeded, S::Succeeded);
    assert_eq!(seen, ["step-0", "step-1", "step-2", "completed"]);
    // One for each part of the watch.
    assert_eq!(connections(&admin).await, 4);
    // The last one may be old enough by now.
    assert!((3..=4).contains(&counter(&admin, "jobwatch_connections_expired_total").await));
}

#[tokio::test]
async fn download_ends_with_a_status_when_its_connection_is_too_old_and_continues_over_another() {
    // More than a debug build sends in the second that a connection lasts.
    const SIZE: u64 = 16 << 30;
    let claret = simulator(Vendor::Claret).await;
    let (program, admin) = server_with(SHORT, [Backend::of(&claret)]).await;
    let file = File {
        category: Category::Output,
        name: "rows.csv".to_owned(),
        content: Content::Pattern(SIZE),
        location: None,
    };
    let started = claret.start_job(Plan { files: vec![file], ..Plan::default() });
    let mut read = 0;
    for _ in 0..2 {
        let request = DownloadArtifactRequest {
            job: Some(job_at(&claret, &started)),
            artifact_id: "output/rows.csv".to_owned(),
            offset: i64::try_from(read).unwrap(),
            ..Default::default()
        };
        let mut download = guard(program.client().download_artifact(request)).await.unwrap().into_inner();
        let first = guard(download.message()).await.unwrap().unwrap();
        assert_eq!(first.info.unwrap().size_bytes, Some(i64::try_from(SIZE).unwrap()));
        let before = read;
        let end = loop {
            match guard(download.message()).await {
                Ok(piece) => {
                    let data = piece.expect("the file has not ended").data;
                    let here = u64::try_from(data.len()).unwrap();
                    assert_eq!(data.first().copied(), Some(Content::pattern(read)));
                    assert_eq!(data.last().copied(), Some(Content::pattern(read + here - 1)));
                    read += here;
                }
                Err(end) => break end,
            }
        };
        is_expired(&end);
        assert!(read > before);
    }
    assert_eq!(counter(&admin, "jobwatch_connections_expired_total").await, 2);
}

#[tokio::test]
async fn calls_over_a_connection_that_drains_go_on_and_new_ones_use_another() {
    let simulator = simulator(Vendor::Immuta).await;
    let (program, admin) = server_with(GRACE, [Backend::of(&simulator).every(ms(20))]).await;
    let started = simulator.start_job(Plan::fixed("active"));
    let (client, job) = (program.client(), job_at(&simulator, &started));
    let mut watch = Watch::of(&client, &job).await;
    watch.status().await;
    let mut request = get_request(&job);
    request.wait = Some(proto_ms(600_000));
    let (first, call) = (client.clone(), oneshot::channel());
    tokio::spawn(async move { call.0.send(get_status(&first, request).await) });
    let moved = async {
        while connections(&admin).await < 2 {
            match get(&client, &job).await {
                Ok(status) => assert_eq!(status.vendor_state, "active"),
                // tonic does not repeat a call that it had not sent yet.
                Err(error) => assert!(std::error::Error::source(&error).is_some(), "{error:?}"),
            }
        }
    };
    guard(moved).await;
    simulator.set_state(&started.id, "retry");
    assert_eq!(watch.status().await.vendor_state, "retry");
    simulator.finish(&started.id);
    assert_eq!(watch.terminal_status().await.state(), S::Succeeded);
    assert_eq!(guard(call.1).await.unwrap().unwrap().state(), S::Succeeded);
}

#[tokio::test]
async fn every_kind_of_call_ends_with_a_status_when_its_connection_is_too_old() {
    let simulator = simulator(Vendor::Immuta).await;
    let (program, _) = server_with(SHORT, [Backend::of(&simulator)]).await;
    let job = job_at(&simulator, &simulator.start_job(Plan::fixed("active")));
    let waits = async {
        let mut request = get_request(&job);
        request.wait = Some(proto_ms(600_000));
        is_expired(&get_status(&program.client(), request).await.unwrap_err());
    };
    let batch_waits = async {
        let mut request = batch_request([job.clone()]);
        request.wait = Some(proto_ms(600_000));
        is_expired(&batch(&program.client(), request).await.unwrap_err());
    };
    let watches = async {
        let (requests, stream) = tokio::sync::mpsc::channel(1);
        let add = jobwatch::proto::v1::AddWatch { watch_id: 1, watch: Some(watch_request(&job)) };
        requests.send(WatchJobsRequest { request: Some(Request::Add(add)) }).await.unwrap();
        let stream = tokio_stream::wrappers::ReceiverStream::new(stream);
        let mut responses = guard(program.client().watch_jobs(stream)).await.unwrap().into_inner();
        let mut received = 0;
        let end = loop {
            match guard(responses.message()).await {
                Ok(response) => received += usize::from(response.is_some()),
                Err(end) => break end,
            }
        };
        is_expired(&end);
        assert!(received >= 1);
    };
    let health = async {
        let mut health = HealthClient::new(program.channel());
        let mut watch = guard(health.watch(health_of(""))).await.unwrap().into_inner();
        guard(watch.message()).await.unwrap().unwrap();
        is_expired(&guard(watch.message()).await.unwrap_err());
    };
    let reflects = async {
        let (_requests, mut responses) = reflection(program.channel()).await;
        is_expired(&guard(responses.message()).await.unwrap_err());
    };
    tokio::join!(waits, batch_waits, watches, health, reflects);
}

#[tokio::test]
async fn connection_of_a_client_that_takes_nothing_is_closed_when_it_is_too_old() {
    let simulator = simulator(Vendor::Immuta).await;
    let (program, admin) = server_with(SHORT, [Backend::of(&simulator)]).await;
    let job = job_at(&simulator, &simulator.start_job(Plan::fixed("active")));
    let mut client = Attacker::connect(program.address().parse().unwrap(), 1, 1).await;
    let call = client.call("WatchJob", frame(&watch_request(&job).encode_to_vec())).await.unwrap();
    let mut body = guard(call).await.unwrap().into_body();
    let mut taken = 0;
    // The window is never opened again.
    let end = loop {
        match guard(body.data()).await {
            Some(Ok(bytes)) => taken += bytes.len(),
            end => break end,
        }
    };
    assert!(taken <= 1 && matches!(end, Some(Err(_))), "{taken} {end:?}");
    assert_eq!(counter(&admin, "jobwatch_connections_expired_total").await, 1);
}
