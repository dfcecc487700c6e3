//! A vendor whose files are at another origin, and a gateway before both.

use jobwatch::proto::v1::{ArtifactInfo, DownloadArtifactRequest, JobRef};
use tempfile::TempDir;
use tonic::Status;

use crate::{
    declared::{Vendor, serve, storage::Storage},
    harness::*,
    program::Program,
};

const POLL: &str = "poll = { min_interval = \"20ms\", max_interval = \"50ms\", requests_per_second = 1000 }";

/// A definition with files where the answer says, and a log at the vendor's own origin.
fn definition(origin: &str, redirects_to: &str, more: &str) -> String {
    format!(
        r#"
format = 1
name = "exports"
version = "1.0.0"
title = "Example exports"
docs = "https://api.example/docs"
[id]
pattern = "{{export_id}}"
[credentials.bearer]
headers = {{ X-User = "me-hush" }}
[request]
path = "/v1/exports/{{{{ id.export_id }}}}"
[status]
id = "job.id"
word = "job.phase"
volatile = ["job.files"]
[states]
RUNNING = ["working"]
SUCCEEDED = ["done"]
FAILED = ["broken"]
[[faults]]
status = 404
is = "not_found"
[[files]]
each = "job.files"
name = "{{{{ item.name }}}}"
url = "{{{{ item.url }}}}"
origin = {origin:?}
{more}
[[files]]
name = "log.txt"
path = "/v1/exports/{{{{ id.export_id }}}}/log"
redirects_to = {redirects_to:?}
"#
    )
}

/// A vendor, a server of its files, and a gateway before both.
pub(super) struct Scene {
    pub(super) vendor: Vendor,
    pub(super) storage: Storage,
    pub(super) folder: TempDir,
}

impl Scene {
    pub(super) async fn new(origin: &str) -> Self {
        Self::with(origin, "https://*", "").await
    }

    pub(super) async fn with(origin: &str, redirects_to: &str, more: &str) -> Self {
        let (vendor, storage) = (Vendor::start().await, Storage::start().await);
        let folder = TempDir::new().unwrap();
        let text = definition(&origin.replace("PORT", &storage.port.to_string()), redirects_to, more);
        std::fs::write(folder.path().join("definition.toml"), text).unwrap();
        Self { vendor, storage, folder }
    }

    /// The backend, with `allow_origins` as TOML, in which PORT is that of the storage.
    pub(super) fn backend(&self, allowed: &str) -> String {
        let file = self.folder.path().join("definition.toml");
        let allowed = allowed.replace("PORT", &self.storage.port.to_string());
        format!(
            "[backends.exports]\nvendor_file = {:?}\nbase_url = {:?}\nca = {:?}\nallow_origins = {allowed}\n\
             headers = {{ X-Tenant = \"t-hush\", Cookie = \"c-hush\" }}\n\
             credentials = {{ bearer = \"b-hush\" }}\n{POLL}\n",
            file.to_str().unwrap(),
            self.vendor.url,
            self.storage.ca.path().to_str().unwrap(),
        )
    }

    pub(super) async fn serve(&self, allowed: &str) -> Program {
        serve(&self.backend(allowed)).await
    }

    /// The vendor's answer names these files.
    pub(super) fn names(&self, files: &[(&str, &str)]) {
        let file = |(name, url): &(&str, &str)| serde_json::json!({ "name": name, "url": url });
        let files: Vec<_> = files.iter().map(file).collect();
        let body = serde_json::json!({ "id": "e-1", "phase": "done", "files": files });
        self.vendor.answers("GET /v1/exports/e-1", 200, &body.to_string());
    }

    /// The log of the job is a redirect there.
    pub(super) fn redirects(&self, status: u16, location: &str) {
        self.names(&[]);
        self.vendor.answers_with("GET /v1/exports/e-1/log", status, &[("location", location)], "");
    }
}

pub(super) fn export() -> JobRef {
    job("exports", "e-1")
}

/// What was read, and how it ended.
pub(super) async fn download_from(
    program: &Program,
    artifact_id: &str,
    offset: i64,
    version: &str,
) -> (Option<ArtifactInfo>, Vec<u8>, Result<(), Status>) {
    let request = DownloadArtifactRequest {
        job: Some(export()),
        artifact_id: artifact_id.into(),
        offset,
        if_version: version.into(),
    };
    let (mut info, mut data) = (None, Vec::new());
    let mut stream = match guard(program.client().download_artifact(request)).await {
        Ok(stream) => stream.into_inner(),
        Err(status) => return (info, data, Err(status)),
    };
    loop {
        match guard(stream.message()).await {
            Ok(Some(message)) => {
                info = info.or(message.info);
                data.extend_from_slice(&message.data);
            }
            Ok(None) => return (info, data, Ok(())),
            Err(status) => return (info, data, Err(status)),
        }
    }
}

pub(super) async fn download(program: &Program, artifact_id: &str) -> Result<Vec<u8>, Status> {
    let (_, data, end) = download_from(program, artifact_id, 0, "").await;
    end.map(|()| data)
}

/// The reason, its detail, and the message.
pub(super) async fn refused(program: &Program, artifact_id: &str) -> (String, String, String) {
    let status = download(program, artifact_id).await.unwrap_err();
    let error = decode_error(&status);
    let detail = error.metadata.get("detail").cloned().unwrap_or_default();
    (error.reason, detail, error.message)
}
