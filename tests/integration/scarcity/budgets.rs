//! Byte budgets bound what the gateway holds, not what a caller can receive.

use std::{fmt::Write, process::Stdio};

use jobwatch::{
    proto::v1::{
        ArtifactInfo, BatchGetStatusesRequest, DownloadArtifactRequest, GetJobStatusRequest, JobRef,
        JobState as S, JobStatus, JobStatusView, WatchJobRequest,
    },
    simulators::{End, Outcome, Plan, Simulator, Vendor},
};
use tokio::process::Command;
use tonic::{Code, Status};

use super::{all_succeed, start_running};
use crate::harness::*;

const KIB: usize = 1024;

fn finish_with_result(simulator: &Simulator, jobs: &[JobRef], bytes: usize) {
    for job in jobs {
        simulator.finish_with(&job.job_id, End::Success(Outcome::Size(bytes)));
    }
}

async fn watch_all(client: &Client, jobs: &[JobRef], view: JobStatusView) -> Vec<Watch> {
    let mut watches = Vec::new();
    for job in jobs {
        let request = WatchJobRequest { view: view.into(), ..watch_request(job) };
        watches.push(Watch::open(client, request).await.unwrap());
    }
    for watch in &mut watches {
        assert_eq!(watch.next_status().await.state(), S::Running);
    }
    watches
}

/// 60 results of 256 KiB are 15 MiB, of which a budget of 4 MiB holds a quarter.
#[tokio::test]
async fn basic_watches_beyond_the_status_budget_receive_terminal_statuses() {
    const RESULT: usize = 256 * KIB;
    let simulator = simulator(Vendor::Immuta).await;
    let backend = Backend::of(&simulator).poll("max_response_bytes", "67108864");
    let gateway = Gateway::start_with("[limits]\nstatus_bytes = 4194304", [backend]).await;
    let client = gateway.client();
    let jobs = start_running(&simulator, 60);
    let mut watches = watch_all(&client, &jobs, JobStatusView::Basic).await;
    finish_with_result(&simulator, &jobs, RESULT);
    all_succeed(&mut watches).await;
    // A part that is not held is polled for.
    for job in &jobs {
        let request = GetJobStatusRequest { view: JobStatusView::Standard.into(), ..get_request(job) };
        let status = get_status(&client, request).await.unwrap();
        assert_eq!(status.result.unwrap().data.len(), RESULT);
    }
    // So is the status of a job that a new watch needs whole.
    let request = WatchJobRequest { view: JobStatusView::Standard.into(), ..watch_request(&jobs[0]) };
    let status = Watch::open(&client, request).await.unwrap().terminal_status().await;
    assert_eq!(status.result.unwrap().data.len(), RESULT);
}

/// Twelve results of 1 MB in one response are more than `max_response_bytes`.
async fn large_results_arrive(view: JobStatusView) {
    const RESULT: usize = 1_000_000;
    let simulator = simulator(Vendor::Immuta).await;
    let backend = Backend::of(&simulator).poll("max_response_bytes", "8388608").poll("max_batch", "100");
    let gateway = Gateway::start([backend]).await;
    let jobs = start_running(&simulator, 12);
    let mut watches = watch_all(&gateway.client(), &jobs, view).await;
    finish_with_result(&simulator, &jobs, RESULT);
    // Concurrently: unread statuses fill the connection's window.
    let statuses = watches.iter_mut().map(Watch::terminal_status);
    for status in futures_util::future::join_all(statuses).await {
        assert_eq!(status.state(), S::Succeeded);
        let received = status.result.map_or(0, |result| result.data.len());
        assert_eq!(received, if view == JobStatusView::Basic { 0 } else { RESULT });
    }
}

#[tokio::test]
async fn large_results_that_exceed_one_response_reach_basic_watches() {
    large_results_arrive(JobStatusView::Basic).await;
}

#[tokio::test]
async fn large_results_that_exceed_one_response_reach_standard_watches() {
    large_results_arrive(JobStatusView::Standard).await;
}

/// Downloads an artifact from `offset` on.
async fn download(
    client: &Client,
    job: &JobRef,
    artifact_id: &str,
    offset: usize,
) -> Result<(ArtifactInfo, Vec<u8>), Status> {
    let request = DownloadArtifactRequest {
        job: Some(job.clone()),
        artifact_id: artifact_id.to_owned(),
        offset: offset.try_into().unwrap(),
        ..Default::default()
    };
    let mut stream = guard(client.clone().download_artifact(request)).await?.into_inner();
    let first = guard(stream.message()).await?.expect("a first response");
    let (info, mut bytes) = (first.info.expect("the file's information"), Vec::new());
    while let Some(response) = guard(stream.message()).await? {
        bytes.extend_from_slice(&response.data);
    }
    Ok((info, bytes))
}

fn assert_result_omitted(status: &JobStatus, size: i64) {
    assert_eq!(status.state(), S::Succeeded);
    let result = status.result.as_ref().expect("a result");
    assert!(result.omitted && result.data.is_empty(), "{} bytes inlined", result.data.len());
    assert_eq!((result.size_bytes, &*result.content_type), (size, "text/plain; charset=utf-8"));
}

/// A text of which no two parts of 64 KiB are equal.
fn distinct_text(bytes: usize) -> String {
    let mut text = String::new();
    for number in 0..bytes.div_ceil(8) {
        write!(text, "{number:08}").unwrap();
    }
    text.truncate(bytes);
    text
}

#[tokio::test]
async fn result_above_the_inline_limit_is_omitted_and_downloaded_from_any_offset() {
    const RESULT: usize = 300_003;
    const SIZE: i64 = 300_003;
    let simulator = simulator(Vendor::Immuta).await;
    let limits = "[limits]\ninline_result_bytes = 65536";
    let gateway = Gateway::start_with(limits, [Backend::of(&simulator)]).await;
    let client = gateway.client();
    let job = start_running(&simulator, 1).remove(0);
    let mut watch = Watch::of(&client, &job).await;
    assert_eq!(watch.next_status().await.state(), S::Running);
    let text = distinct_text(RESULT);
    simulator.finish_with(&job.job_id, End::Success(Outcome::Text(text.clone())));

    assert_result_omitted(&watch.terminal_status().await, SIZE);
    let status = get_status(&client, full(&job)).await.unwrap();
    assert_result_omitted(&status, SIZE);
    assert!(status.vendor_payload_omitted && status.vendor_payload.is_empty());
    let payload_size = usize::try_from(status.vendor_payload_size_bytes).unwrap();
    assert!(payload_size > RESULT);

    for offset in [0, 1, 65_536, RESULT - 1, RESULT] {
        let (info, bytes) = download(&client, &job, "jobwatch:result", offset).await.unwrap();
        assert_eq!((info.size_bytes, &*info.content_type), (Some(SIZE), "text/plain; charset=utf-8"));
        assert!(bytes == text.as_bytes()[offset..], "{} bytes from {offset}", bytes.len());
    }
    let error = download(&client, &job, "jobwatch:result", RESULT + 1).await.unwrap_err();
    assert_eq!((error.code(), decode_error(&error).field()), (Code::InvalidArgument, "offset"));

    let (info, payload) = download(&client, &job, "jobwatch:vendor_payload", 0).await.unwrap();
    assert_eq!((payload.len(), &*info.content_type), (payload_size, "application/json"));
    let payload: serde_json::Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(payload["output"], text);
}

#[tokio::test]
async fn cli_download_of_a_result_is_named_by_its_content_type() {
    let simulator = simulator(Vendor::Immuta).await;
    let limits = "[limits]\ninline_result_bytes = 65536";
    let gateway = Gateway::start_with(limits, [Backend::of(&simulator)]).await;
    let text = distinct_text(100_000);
    let job = simulator.start_job(Plan::succeeds(Outcome::Text(text.clone())));
    simulator.finish(&job.id);
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_jobwatch"));
    command.args(["download", &format!("immuta/{}", job.id), "jobwatch:result"]);
    command.env_clear().env("JOBWATCH_SERVER", gateway.address.to_string());
    command.current_dir(directory.path()).stdin(Stdio::null()).kill_on_drop(true);
    let output = guard(command.output()).await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(std::fs::read_to_string(directory.path().join("result.txt")).unwrap() == text);
}

#[tokio::test]
async fn result_at_the_inline_limit_is_inlined() {
    const RESULT: usize = 64 * KIB;
    let simulator = simulator(Vendor::Immuta).await;
    let limits = "[limits]\ninline_result_bytes = 65536";
    let gateway = Gateway::start_with(limits, [Backend::of(&simulator)]).await;
    let start = |bytes| {
        let plan = Plan::succeeds(Outcome::Text(distinct_text(bytes)));
        job_at(&simulator, &simulator.start_job(plan))
    };
    let (at_limit, above) = (start(RESULT), start(RESULT + 1));
    let wait = Some(proto_ms(30_000));
    let get = async |job| {
        let request = GetJobStatusRequest { wait, ..get_request(job) };
        get_status(&gateway.client(), request).await.unwrap()
    };
    assert_eq!(get(&at_limit).await.result.unwrap().data, distinct_text(RESULT));
    assert_result_omitted(&get(&above).await, 64 * 1024 + 1);
}

/// Room for two results of 50 KiB.
#[tokio::test]
async fn batch_element_above_the_message_limit_fails_and_is_received_by_a_get() {
    const RESULT: usize = 50 * KIB;
    let simulator = simulator(Vendor::Immuta).await;
    let limits = "[limits]\ninline_result_bytes = 65536\nmessage_bytes = 131072";
    let gateway = Gateway::start_with(limits, [Backend::of(&simulator)]).await;
    let client = gateway.client();
    let jobs = start_running(&simulator, 3);
    finish_with_result(&simulator, &jobs, RESULT);
    let request = batch_request(jobs.iter().cloned());
    let results = batch(&client, request.clone()).await.unwrap();
    let sizes: Vec<_> = results.iter().map(|result| result.as_ref().ok().map(result_size)).collect();
    assert_eq!(sizes, [Some(RESULT), Some(RESULT), None]);
    let error = decode_error(results[2].as_ref().unwrap_err());
    assert_eq!((error.code, &*error.reason), (Code::ResourceExhausted, "TOO_MANY_BYTES"));
    assert_eq!(error.details.quota_failure().unwrap().violations[0].subject, "limits.message_bytes");

    assert_eq!(result_size(&get(&client, &jobs[2]).await.unwrap()), RESULT);
    let basic = BatchGetStatusesRequest { view: JobStatusView::Basic.into(), ..request };
    assert!(batch(&client, basic).await.unwrap().iter().all(Result::is_ok));
}

fn result_size(status: &JobStatus) -> usize {
    status.result.as_ref().map_or(0, |result| result.data.len())
}
