//! Downloads from a vendor that has one file, or is asked too often.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::*;
use crate::{
    hub::{Download, DownloadFailure, Fetch},
    job::{Artifact, BackendFault, Observation},
    poller::script::response,
    transport::{File, Files, Permit, PollResponse, Upstream},
    vendors::FileFault,
};

/// Pieces of the file: more than the channel and the reader hold.
const PIECES: usize = 8;

/// Every job of it runs and has one file.
#[derive(Default)]
struct Shelf {
    polls: std::sync::atomic::AtomicUsize,
    fault: Option<FaultKind>,
}

impl Upstream for Shelf {
    fn poll<'a>(
        &'a self,
        jobs: &'a [JobRef],
        _: Permit,
    ) -> BoxFuture<'a, Result<PollResponse, BackendFault>> {
        self.polls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut observation = Observation::new(JobState::Running, "r");
        observation.artifacts.push(Artifact {
            id: "f".into(),
            category: "output".into(),
            file_name: "f".into(),
            vendor_uri: "/f".into(),
        });
        Box::pin(async move { Ok(response(jobs, |_| Ok(observation.clone()))) })
    }

    fn files(&self) -> Option<&dyn Files> {
        Some(self)
    }
}

impl Files for Shelf {
    fn open<'a>(
        &'a self,
        _location: &'a str,
        _offset: u64,
        _permit: Permit,
    ) -> Pin<Box<dyn Future<Output = Result<File, FileFault>> + Send + 'a>> {
        Box::pin(async move {
            match &self.fault {
                None => Ok(File::of(Bytes::from(vec![b'x'; PIECES * 64 * 1024]))),
                Some(fault) => Err(BackendFault::from(fault.clone()).into()),
            }
        })
    }
}

struct Room {
    shelf: Arc<Shelf>,
    hub: Hub,
    _pollers: Pollers,
}

impl Room {
    fn new(shelf: Shelf) -> Self {
        let shelf = Arc::new(shelf);
        let setup = BackendSetup {
            name: "vendor".into(),
            vendor: "claret",
            long_poll: false,
            check: Box::new(|_| Ok(())),
            max_batch: NonZeroUsize::MIN,
            upstream: Arc::clone(&shelf) as Arc<_>,
            poll: Poll { max_concurrency: NonZeroUsize::MIN, ..poll(1) },
        };
        let limits = WatchLimits { total: 4, per_caller: 4, per_call: 4 };
        let (hub, pollers) = Hub::start(vec![setup], Duration::ZERO, limits, CancellationToken::new());
        Self { shelf, hub, _pollers: pollers }
    }

    async fn download(&self) -> Result<Download, DownloadFailure> {
        let fetch = Fetch { artifact_id: "f".into(), offset: 0, deadline: None };
        self.hub.download(&job("a"), fetch).await
    }

    fn polls(&self) -> usize {
        self.shelf.polls.load(std::sync::atomic::Ordering::Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stalls_for_ten_minutes_loses_its_place() {
    let room = Room::new(Shelf::default());
    let mut stalled = room.download().await.unwrap();
    stalled.next().await.unwrap().unwrap();
    for _ in 0..2 {
        pass(Duration::from_mins(9)).await;
        stalled.next().await.unwrap().expect("a slow reader is none that stalls");
    }
    assert!(matches!(room.download().await, Err(DownloadFailure::TooMany { limit: 1 })));
    pass(Duration::from_mins(10)).await;
    let mut next = room.download().await.expect("the place is free");
    let end = loop {
        match stalled.next().await {
            Some(Ok(_)) => {}
            end => break end,
        }
    };
    assert!(matches!(end, Some(Err(DownloadFailure::Stalled))), "{end:?}");
    let mut read = 0;
    while let Some(piece) = next.next().await {
        read += piece.unwrap().len();
    }
    assert_eq!(read, PIECES * 64 * 1024);
}

#[tokio::test(start_paused = true)]
async fn a_download_that_is_throttled_holds_the_polls_too() {
    for retry_after in [Some(20 * SECOND), None] {
        let fault = Some(FaultKind::Throttled { retry_after });
        let room = Room::new(Shelf { fault, ..Shelf::default() });
        let mut watch = room.hub.watch(&job("a"), None, &options()).unwrap();
        assert_eq!(said(&mut watch).await, "Running");
        let failure = room.download().await.unwrap_err();
        let DownloadFailure::Call(Failure::Backend { fault, retry_in }) = failure else {
            panic!("{failure:?}")
        };
        assert!(matches!(fault.kind, FaultKind::Throttled { .. }));
        assert!(retry_after.is_none_or(|asked| asked == retry_in), "{retry_in:?}");
        let (before, until) = (room.polls(), Instant::now() + retry_in);
        if retry_after.is_some() {
            assert_eq!(said(&mut watch).await, "interrupted: the vendor is throttling");
        }
        tokio::time::sleep_until(until - Duration::from_millis(1)).await;
        assert_eq!(room.polls(), before, "nothing is sent meanwhile");
        pass(SECOND).await;
        assert!(room.polls() > before);
    }
}
