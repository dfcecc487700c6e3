//! Files: labels of their coding, waits, and files that are replaced.

use std::time::Duration;

use jobwatch::{
    proto::v1::DownloadArtifactRequest,
    simulators::{Category, Content, Plan, Simulator, Vendor},
};
use tonic::{Code, Status};

use super::{
    change::Change,
    front::{Front, Protocol, Purpose, gateway},
};
use crate::{harness::*, program::Program};

const TEXT: &str = "id;name\n1;one\n2;two\n";

/// A file of a job at Claret, behind a front for each protocol and each case.
struct Files<T> {
    trials: Vec<(String, T, Front)>,
    id: String,
    program: Program,
    _trusted: tempfile::NamedTempFile,
    _simulator: Simulator,
}

impl<T: Clone> Files<T> {
    async fn start(cases: impl IntoIterator<Item = T>) -> Self {
        let simulator = simulator(Vendor::Claret).await;
        let plan = Plan::default().file(Category::Output, "final.csv", Content::Bytes(TEXT.into()));
        let id = simulator.start_job(plan).id;
        let mut trials = Vec::new();
        for case in cases {
            for protocol in Protocol::ALL {
                let front = Front::before(&simulator, protocol).await;
                trials.push((format!("file-{}", trials.len()), case.clone(), front));
            }
        }
        let backends = trials.iter().map(|(name, _, front)| front.backend().named(name));
        let (program, trusted) = gateway(backends).await;
        Self { trials, id, program, _trusted: trusted, _simulator: simulator }
    }

    /// The bytes from an offset on, of this version if one is named, and their version.
    async fn read_version(
        &self,
        name: &str,
        offset: usize,
        version: &str,
    ) -> Result<(Vec<u8>, String), Status> {
        let request = DownloadArtifactRequest {
            job: Some(job(name, &self.id)),
            artifact_id: "output/final.csv".to_owned(),
            offset: offset.try_into().unwrap(),
            if_version: version.to_owned(),
        };
        let mut file = guard(self.program.client().download_artifact(request)).await?.into_inner();
        let (mut bytes, mut version) = (Vec::new(), String::new());
        while let Some(piece) = guard(file.message()).await? {
            bytes.extend(piece.data);
            version.extend(piece.info.map(|info| info.version));
        }
        Ok((bytes, version))
    }

    async fn read(&self, name: &str, offset: usize) -> Result<Vec<u8>, Status> {
        Ok(self.read_version(name, offset, "").await?.0)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_with_a_coding_that_is_none_is_passed_on() {
    let labels = ["", "none", "None", "identity", "UTF-8", "binary", "aws-chunked", "8bit", "text/csv"];
    let files = Files::start(labels).await;
    for (name, label, front) in &files.trials {
        front.change(Purpose::File, Change::none().header("content-encoding", *label));
        for offset in [0, 7] {
            let read = files.read(name, offset).await;
            let read = read.unwrap_or_else(|error| panic!("{label:?}, {:?}: {error}", front.protocol));
            assert_eq!(read, TEXT.as_bytes()[offset..], "{label:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requested_wait_of_a_file_reaches_the_caller() {
    let cases = [202, 403, 408, 425, 429, 500, 503, 520];
    let files = Files::start(cases).await;
    for (name, status, front) in &files.trials {
        front.change(Purpose::File, Change::page(*status).header("retry-after", "29.5"));
        let error = files.read(name, 0).await.unwrap_err();
        let what = format!("{status}, {:?}: {error}", front.protocol);
        let decoded = decode_error(&error);
        let reason = if matches!(status, 403 | 429) { "BACKEND_THROTTLED" } else { "BACKEND_UNAVAILABLE" };
        assert_eq!((decoded.code, &*decoded.reason), (Code::Unavailable, reason), "{what}");
        let delay = decoded.retry_delay().unwrap();
        assert!(delay > Duration::from_secs(20) && delay < Duration::from_secs(30), "{what}: {delay:?}");
    }
}

/// Two versions of a file of the same size, as a vendor's headers tell them apart.
const VERSIONS: [(&str, [&str; 2]); 3] = [
    ("etag", ["\"v1\"", "\"v2\""]),
    ("etag", ["W/\"v1\"", "W/\"v2\""]),
    ("last-modified", ["Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:38 GMT"]),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_that_is_replaced_between_two_parts_is_an_error() {
    const OFFSET: usize = 7;
    let other = TEXT.replace("one", "eno");
    let files = Files::start(VERSIONS).await;
    for (name, (header, [first, second]), front) in &files.trials {
        let what = format!("{header}: {first}, {:?}", front.protocol);
        front.change(Purpose::File, Change::none().header(header, *first));
        let (bytes, version) = files.read_version(name, 0, "").await.unwrap();
        assert_eq!(bytes, TEXT.as_bytes(), "{what}");
        assert!(!version.is_empty(), "{what}");
        let same = files.read_version(name, OFFSET, &version).await;
        assert_eq!(same.unwrap().0, TEXT.as_bytes()[OFFSET..], "{what}");

        // A vendor may ignore If-Range, or send the whole of the new file.
        let part = Change::none().header(header, *second);
        let whole = part.clone().status(200).without("content-range").body("text/csv", &other);
        for change in [part, whole] {
            front.change(Purpose::File, change);
            let error = files.read_version(name, OFFSET, &version).await.unwrap_err();
            let expected = (Code::Aborted, "ARTIFACT_CHANGED".to_owned());
            assert_eq!(code_and_reason(&error), expected, "{what}: {error}");
            assert_eq!(files.read(name, OFFSET).await.unwrap().len(), TEXT.len() - OFFSET, "{what}");
        }
    }
}
