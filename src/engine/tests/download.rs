//! Downloads of files, of results and of vendor payloads.

use std::{
    num::NonZeroUsize,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, timeout};

use super::{
    rig::*,
    script::{Script, response},
};
use crate::{
    engine::{
        Caller, Download, DownloadFailure, DownloadOptions, Failure, JobStatuses, MissedDeadline, PollPlan,
        RESULT, VENDOR_PAYLOAD,
    },
    job::{
        Artifact, BackendFault, ContentType, FaultKind, HiddenQuery, JobRef, JobResult, JobState, Observation,
    },
    transport::{File, Files, Permit, PollResponse, ResponseBudget, Upstream},
    vendors::{FileFault, FileVersion},
};

/// Pieces of the file: more than the channel and the reader hold.
const PIECES: usize = 8;

/// Every job of it runs and has one file.
#[derive(Default)]
struct FileVendor {
    polls: AtomicUsize,
    fault: Option<BackendFault>,
}

impl Upstream for FileVendor {
    fn poll<'a>(
        &'a self,
        jobs: &'a [JobRef],
        _: Permit,
    ) -> BoxFuture<'a, Result<PollResponse, BackendFault>> {
        self.polls.fetch_add(1, Ordering::Relaxed);
        let mut observation = Observation::new(JobState::Running, "r");
        observation.artifacts.push(Artifact {
            id: "f".into(),
            category: "output".into(),
            file_name: "f".into(),
            vendor_uri: "/f".into(),
            query: HiddenQuery::default(),
        });
        Box::pin(async move { Ok(response(jobs, |_| Ok(observation.clone()))) })
    }

    fn files(&self) -> Option<&dyn Files> {
        Some(self)
    }
}

impl Files for FileVendor {
    fn open<'a>(
        &'a self,
        _location: &'a str,
        _offset: u64,
        _version: Option<&'a FileVersion>,
        _permit: Permit,
    ) -> Pin<Box<dyn Future<Output = Result<File, FileFault>> + Send + 'a>> {
        Box::pin(async move {
            match &self.fault {
                None => Ok(File::of(Bytes::from(vec![b'x'; PIECES * 64 * 1024]))),
                Some(fault) => Err(fault.clone().into()),
            }
        })
    }
}

/// An engine that downloads one file at a time.
fn one_at_a_time(upstream: Arc<dyn Upstream>) -> Running {
    let mut setup = setup("vendor", 1, upstream);
    setup.plan = PollPlan { max_concurrency: NonZeroUsize::MIN, ..setup.plan };
    start(vec![setup], limits(many_watches()))
}

fn file_vendor(fault: Option<BackendFault>) -> (Arc<FileVendor>, Running) {
    let vendor = Arc::new(FileVendor { fault, ..FileVendor::default() });
    let running = one_at_a_time(Arc::clone(&vendor) as _);
    (vendor, running)
}

impl Running {
    async fn download_by(&self, caller: Caller, artifact_id: &str) -> Result<Download, DownloadFailure> {
        let artifact_id = artifact_id.into();
        let options = DownloadOptions { artifact_id, offset: 0, version: None, deadline: None, caller };
        self.engine.download(&job("a"), options).await
    }

    async fn download(&self, artifact_id: &str, offset: u64) -> Result<Download, DownloadFailure> {
        let artifact_id = artifact_id.into();
        let caller = Caller::default();
        let options = DownloadOptions { artifact_id, offset, version: None, deadline: None, caller };
        self.engine.download(&job("a"), options).await
    }
}

/// All bytes that are left.
async fn read(download: &mut Download) -> Result<Vec<u8>, DownloadFailure> {
    let mut bytes = Vec::new();
    while let Some(piece) = download.next().await {
        bytes.extend_from_slice(&piece?);
    }
    Ok(bytes)
}

#[tokio::test(start_paused = true)]
async fn reader_that_stalls_for_ten_minutes_loses_its_download_slot() {
    let (_vendor, running) = file_vendor(None);
    let mut stalled = running.download("f", 0).await.unwrap();
    stalled.next().await.unwrap().unwrap();
    for _ in 0..2 {
        pass(Duration::from_mins(9)).await;
        stalled.next().await.unwrap().expect("a slow reader does not stall");
    }
    let refused = running.download("f", 0).await;
    assert!(matches!(refused, Err(DownloadFailure::TooMany { limit: 1, of_caller: true })));
    pass(Duration::from_mins(10)).await;
    let mut next = running.download("f", 0).await.expect("the slot is free");
    let end = read(&mut stalled).await;
    assert!(matches!(end, Err(DownloadFailure::Stalled)), "{end:?}");
    assert_eq!(read(&mut next).await.unwrap().len(), PIECES * 64 * 1024);
}

#[tokio::test(start_paused = true)]
async fn slow_reader_loses_its_slot_after_a_minute_while_another_caller_waits() {
    let (_vendor, running) = file_vendor(None);
    let mut slow = running.download("f", 0).await.unwrap();
    slow.next().await.unwrap().unwrap();
    // Nobody waits.
    pass(Duration::from_mins(5)).await;
    slow.next().await.unwrap().expect("it has its slot");
    pass(Duration::from_secs(50)).await;
    let refused = running.download_by(Caller::from_name("early"), "f").await;
    assert!(refused.is_ok(), "{refused:?}");
    let end = read(&mut slow).await;
    assert!(matches!(end, Err(DownloadFailure::Stalled)), "{end:?}");
}

#[tokio::test(start_paused = true)]
async fn reader_that_takes_a_piece_each_half_minute_keeps_its_slot() {
    let (_vendor, running) = file_vendor(None);
    let mut steady = running.download("f", 0).await.unwrap();
    let reads = async {
        for _ in 0..PIECES {
            steady.next().await.unwrap().unwrap();
            pass(Duration::from_secs(30)).await;
        }
    };
    tokio::join!(reads, async {
        for _ in 0..5 {
            let refused = running.download_by(Caller::from_name("other"), "f").await;
            assert!(matches!(refused, Err(DownloadFailure::TooMany { limit: 1, of_caller: false })));
        }
    });
}

#[tokio::test(start_paused = true)]
async fn throttled_download_pauses_the_polls_too() {
    for retry_after in [Some(20 * SECOND), None] {
        let (vendor, running) =
            file_vendor(Some(BackendFault::from(FaultKind::Throttled).with_retry_after(retry_after)));
        let polls = || vendor.polls.load(Ordering::Relaxed);
        let mut watch = running.engine.watch(&job("a"), Caller::default(), &options()).unwrap();
        assert_eq!(event(&mut watch).await, "Running");
        let failure = running.download("f", 0).await.unwrap_err();
        let DownloadFailure::Call(Failure::Backend { fault, retry_in }) = failure else {
            panic!("{failure:?}")
        };
        assert!(fault.kind == FaultKind::Throttled);
        assert!(retry_after.is_none_or(|requested| requested == retry_in), "{retry_in:?}");
        let (before, until) = (polls(), Instant::now() + retry_in);
        if retry_after.is_some() {
            assert_eq!(event(&mut watch).await, "interrupted: the vendor is throttling");
        }
        tokio::time::sleep_until(until - Duration::from_millis(1)).await;
        assert_eq!(polls(), before, "nothing is sent meanwhile");
        pass(SECOND).await;
        assert!(polls() > before);
    }
}

fn with_result(data: Vec<u8>) -> Observation {
    let result = Some(JobResult { data: data.into(), content_type: ContentType::Json });
    let vendor_payload = Bytes::from_static(b"{\"id\": 1}");
    Observation { result, vendor_payload, ..Observation::new(JobState::Succeeded, "done") }
}

/// Bytes that differ by position.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn result_and_vendor_payload_are_downloaded_whole_and_from_an_offset() {
    let rig = one_at_a_time_script();
    let data = pattern(3 << 20);
    rig.0.set_observation("a", with_result(data.clone()));
    for offset in [0, 1, 64 << 10, (3 << 20) - 1, 3 << 20] {
        let mut download = rig.1.download(RESULT, offset as u64).await.unwrap();
        assert_eq!((download.size, &*download.content_type), (Some(3 << 20), "application/json"));
        assert!(read(&mut download).await.unwrap() == data[offset..], "from {offset}");
    }
    let mut download = rig.1.download(VENDOR_PAYLOAD, 0).await.unwrap();
    assert_eq!((download.size, &*download.content_type), (Some(9), "application/json"));
    assert_eq!(read(&mut download).await.unwrap(), b"{\"id\": 1}");
    assert_eq!(rig.1.engine.memory.budget.used(), 0, "no status is kept for it");
}

fn one_at_a_time_script() -> (Arc<Script>, Running) {
    let script = Script::new(LATENCY);
    let running = one_at_a_time(Arc::clone(&script) as _);
    (script, running)
}

#[tokio::test(start_paused = true)]
async fn download_past_the_end_fails_with_the_size() {
    let (script, running) = one_at_a_time_script();
    script.set_observation("a", with_result(pattern(100)));
    for (artifact_id, length) in [(RESULT, 100), (VENDOR_PAYLOAD, 9)] {
        for offset in [length + 1, u64::MAX] {
            let failure = running.download(artifact_id, offset).await.unwrap_err();
            let is_past = matches!(failure, DownloadFailure::PastEnd { size: Some(size) } if size == length);
            assert!(is_past, "{failure:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn download_of_a_missing_result_or_job_fails() {
    let (script, running) = one_at_a_time_script();
    script.set("a", JobState::Running);
    let failure = running.download(RESULT, 0).await.unwrap_err();
    let DownloadFailure::NotFound { artifact_id, why, detail, .. } = failure else { panic!("{failure:?}") };
    let not_yet = "the job has not ended and has no result yet";
    assert_eq!((&*artifact_id, &*why, detail), (RESULT, not_yet, Some("not_ended")));
    let failure = running.download("output/1", 0).await.unwrap_err();
    let DownloadFailure::NotFound { why, detail, .. } = failure else { panic!("{failure:?}") };
    assert_eq!((&*why, detail), ("the job has not ended and has no such file yet", Some("not_ended")));
    script.set("a", JobState::Failed);
    let failure = running.download(RESULT, 0).await.unwrap_err();
    let DownloadFailure::NotFound { why, detail, .. } = failure else { panic!("{failure:?}") };
    assert_eq!((&*why, detail), ("the job has no result", None));
    script.remove("a");
    for artifact_id in [RESULT, VENDOR_PAYLOAD] {
        let failure = running.download(artifact_id, 0).await.unwrap_err();
        assert!(matches!(failure, DownloadFailure::Call(Failure::NotFound)), "{failure:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn download_during_a_pause_fails_at_once_with_the_time_left() {
    let (script, running) = one_at_a_time_script();
    script.set_observation("a", with_result(pattern(100)));
    script.fail(BackendFault::from(FaultKind::Throttled).with_retry_after(Some(20 * SECOND)));
    for left in [20, 15] {
        let failure = running.download(RESULT, 0).await.unwrap_err();
        let DownloadFailure::Call(Failure::Backend { retry_in, .. }) = failure else { panic!("{failure:?}") };
        assert_eq!(retry_in, left * SECOND);
        pass(5 * SECOND).await;
    }
    assert_eq!(script.calls().len(), 1, "nothing is sent during the pause");
    script.recover();
    pass(20 * SECOND).await;
    assert!(running.download(RESULT, 0).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn download_from_a_silent_backend_ends() {
    let script = Script::new(24 * 3600 * SECOND);
    let running = one_at_a_time(Arc::clone(&script) as _);
    for artifact_id in [RESULT, "f"] {
        let failure = timeout(300 * SECOND, running.download(artifact_id, 0)).await.expect("within bounds");
        assert!(
            matches!(failure, Err(DownloadFailure::Call(Failure::Deadline(MissedDeadline::Download)))),
            "{failure:?}"
        );
        pass(SECOND / 100).await;
        assert_eq!(script.in_flight(), 0);
    }
}

/// Passes on a script's responses with a reservation of the response budget.
struct Reserving {
    script: Arc<Script>,
    budget: Arc<ResponseBudget>,
    polled: Mutex<Vec<Instant>>,
}

const RESERVED: usize = 1 << 20;

impl Upstream for Reserving {
    fn poll<'a>(
        &'a self,
        jobs: &'a [JobRef],
        permit: Permit,
    ) -> BoxFuture<'a, Result<PollResponse, BackendFault>> {
        Box::pin(async move {
            self.polled.lock().unwrap().push(Instant::now());
            let room = self.budget.acquire(RESERVED).await;
            let response = self.script.poll(jobs, permit).await?;
            Ok(response.with_reservation(room))
        })
    }
}

#[tokio::test(start_paused = true)]
async fn download_of_a_result_holds_no_room_for_responses_while_it_is_read() {
    let script = Script::new(LATENCY);
    script.set_observation("a", with_result(pattern(RESERVED)));
    let budget = ResponseBudget::new(4 * RESERVED);
    let upstream = Reserving { script, budget: Arc::clone(&budget), polled: Mutex::default() };
    let running = one_at_a_time(Arc::new(upstream));
    let mut download = running.download(RESULT, 0).await.unwrap();
    let held = || running.engine.memory.budget.used();
    for _ in 0..3 {
        download.next().await.unwrap().unwrap();
        assert_eq!(budget.available(), 4 * RESERVED);
        assert!(held() >= RESERVED as u64, "it counts as held for statuses");
    }
    read(&mut download).await.unwrap();
    pass(LATENCY).await;
    assert!(held() < RESERVED as u64, "after the last byte");
    let download = running.download(RESULT, 0).await.unwrap();
    assert!(held() >= RESERVED as u64);
    drop(download);
    pass(LATENCY).await;
    assert!(held() < RESERVED as u64, "after the reader has left");
}
