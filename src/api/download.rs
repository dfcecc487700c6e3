//! DownloadArtifact: validates the request, and converts a file's pieces to messages.

use futures_util::{StreamExt, stream};
use tonic::{Request, Response, Status};

use super::{Events, Expiry, Service, caller, deadline, grant, limits, request::InvalidField, status};
use crate::{
    access::Right,
    engine::{Download, DownloadFailure, DownloadOptions, FileVersion, JobStatuses},
    proto::v1 as pb,
};

/// Longest artifact id in bytes: errors repeat it, and have to fit into the trailers.
const LONGEST_ID: usize = 2048;

impl<E: JobStatuses> Service<E> {
    /// Streams a file: its description at once, then its bytes.
    pub(super) async fn download(
        &self,
        request: Request<pb::DownloadArtifactRequest>,
    ) -> Result<Response<Events<pb::DownloadArtifactResponse>>, Status> {
        let (grant, deadline) = (grant(&request), deadline(request.extensions()));
        let mut expiry = Expiry::of(request.extensions());
        let pb::DownloadArtifactRequest { job, artifact_id, offset, if_version } = request.into_inner();
        let job = self.job(job, "job", (&grant, Right::Download))?;
        if !(1..=LONGEST_ID).contains(&artifact_id.len()) {
            let reason = "must be 1 to 2048 bytes long; write an id of the job's status";
            return Err(InvalidField::new("artifact_id", reason).into());
        }
        let offset = u64::try_from(offset)
            .map_err(|_| InvalidField::new("offset", "is negative; write zero or more, or leave it out"))?;
        let version = match &*if_version {
            "" => None,
            text => Some(FileVersion::from_text(text).ok_or_else(|| {
                InvalidField::new(
                    "if_version",
                    "is not a version; write ArtifactInfo.version, or leave it out",
                )
            })?),
        };
        let options = DownloadOptions { artifact_id, offset, version, deadline, caller: caller(&grant) };
        let download = expiry.unless_expired(self.engine.download(&job, options)).await;
        let download = download.map_err(DownloadFailure::Call).flatten();
        let download = download.map_err(|failure| match failure {
            DownloadFailure::Call(failure) => self.failed(&failure, &job, "job", &grant),
            failure => status::of_download(&failure, &job),
        })?;
        let first = pb::DownloadArtifactResponse { info: Some(info(&download)), data: bytes::Bytes::new() };
        let usage = grant.usage().cloned();
        let pieces = stream::unfold((download, expiry), move |(mut download, mut expiry)| {
            let (job, usage) = (job.clone(), usage.clone());
            async move {
                let piece = expiry.unless_expired(download.next()).await.map_err(DownloadFailure::Call);
                let piece = piece.transpose()?.flatten();
                if let (Some(usage), Ok(piece)) = (&usage, &piece) {
                    usage.send(piece.len()).await;
                }
                let piece = piece.map(|data| pb::DownloadArtifactResponse { info: None, data });
                Some((piece.map_err(|failure| status::of_download(&failure, &job)), (download, expiry)))
            }
        });
        Ok(limits::not_compressed(Box::pin(stream::iter([Ok(first)]).chain(pieces))))
    }
}

fn info(download: &Download) -> pb::ArtifactInfo {
    pb::ArtifactInfo {
        content_type: download.content_type.clone(),
        file_name: download.file_name.clone(),
        size_bytes: download.size.and_then(|size| size.try_into().ok()),
        version: download.version.to_text(),
    }
}
