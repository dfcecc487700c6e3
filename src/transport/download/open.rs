//! Opens a file: where it is requested, with which credentials, and whether the response is the
//! version that was wanted.

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::combinators::BoxBody;

use super::{Answer, File, FileClient};
use crate::{
    job::{BackendFault, FaultKind},
    transport::{Endpoint, Permit, Purpose},
    vendors::{
        Asked, Elsewhere, FileFault, FileVersion, Part, RefusedLocation, RefusedOrigin, redirect_within,
    },
};

/// From where on, and of which version.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) offset: u64,
    pub(super) version: Option<&'a FileVersion>,
}

impl Wanted<'_> {
    pub(super) fn put_into(self, request: &mut Request<Bytes>) {
        if let Some(value) = self.version.and_then(FileVersion::if_range).filter(|_| self.offset > 0) {
            request.headers_mut().insert(header::IF_RANGE, value);
        }
    }

    /// The file, if it is of the version.
    pub(super) fn checked(self, mut file: File) -> Result<File, FileFault> {
        if let Some(version) = self.version {
            file.part.version = same_version(version, &file.part, self.offset)?;
        }
        Ok(file)
    }
}

/// Where a file is requested.
pub(super) enum Place<'a> {
    Own(Request<Bytes>),
    Other(Elsewhere<'a>),
}

impl Endpoint {
    pub(super) fn place(&self, location: &str) -> Result<Place<'_>, FileFault> {
        match (self.adapter.file_request(location), self.adapter.file_origins()) {
            (Err(RefusedLocation::OtherOrigin), Some(origins)) => origins.locate(location).map(Place::Other),
            (request, _) => Ok(Place::Own(request?)),
        }
    }

    pub(super) async fn open_file(
        &self,
        location: &str,
        wanted: Wanted<'_>,
        mut permit: Permit,
    ) -> Result<File, FileFault> {
        let mut is_repeat = false;
        loop {
            let (mut request, allowed) = match self.place(location)? {
                Place::Own(request) => (request, None),
                Place::Other((request, allowed)) if allowed.with_credentials => (request, Some(allowed)),
                Place::Other(elsewhere) => {
                    permit.release();
                    return self.open_elsewhere(elsewhere, wanted).await;
                }
            };
            let authorization = self
                .credentials
                .authorization(&*self.adapter, &self.http, Purpose::File, &mut permit)
                .await?;
            if let Some(value) = &authorization.header {
                self.adapter.authorize(&mut request, value.clone());
            }
            wanted.put_into(&mut request);
            let file = match allowed {
                None => self.open_own(request, wanted, &mut permit).await,
                Some(allowed) => {
                    permit.release();
                    self.open_with_credentials(request, allowed, wanted).await.map(Opened::File)
                }
            };
            // A missing file, for example, says nothing of the credentials.
            let fault = match &file {
                Err(FileFault::Backend(fault)) => Some(fault),
                _ => None,
            };
            let is_undecided = file.is_err() && fault.is_none();
            if is_undecided {
                self.credentials.undecided(&authorization);
            } else if self.credentials.judge(&authorization, fault, is_repeat) {
                is_repeat = true;
                continue;
            }
            return match file? {
                Opened::File(file) => wanted.checked(file),
                Opened::Redirect(elsewhere) => {
                    let file = self.open_elsewhere(elsewhere, wanted).await;
                    file.map_err(|fault| match fault {
                        FileFault::Origin(refused) => RefusedOrigin { is_redirect: true, ..*refused }.into(),
                        fault => fault,
                    })
                }
            };
        }
    }

    /// Requests a file at the backend's own origin.
    async fn open_own(
        &self,
        request: Request<Bytes>,
        wanted: Wanted<'_>,
        permit: &mut Permit,
    ) -> Result<Opened<'_>, FileFault> {
        let requested = request.uri().clone();
        let (head, body) = self.begin_file(request, wanted.offset, permit).await?;
        if let Some(origins) = self.adapter.file_origins()
            && let Some(elsewhere) = origins.redirect(&requested, &head)?
        {
            return Ok(Opened::Redirect(elsewhere));
        }
        let file = self.file(&self.files, &head, body, wanted).map(Opened::File);
        file.map_err(|fault| match (fault, redirect_within(&requested, &head)) {
            (FileFault::Redirected { .. }, Some(within)) => within.into(),
            (fault, _) => fault,
        })
    }

    /// The file that a response holds.
    pub(super) fn file(
        &self,
        client: &FileClient,
        head: &Response<Bytes>,
        body: BoxBody<Bytes, hyper::Error>,
        Wanted { offset, version }: Wanted<'_>,
    ) -> Result<File, FileFault> {
        let part = self.adapter.file_part(offset, head);
        let part = part.map_err(|fault| in_context(unless_changed(fault, version, head), head))?;
        let asked = head.extensions().get().cloned();
        Ok(File { part, asked, body, read: 0, chunk: Bytes::new(), patience: client.patience })
    }

    /// Sends the request and reads the head of the response.
    pub(in crate::transport) async fn begin_file(
        &self,
        request: Request<Bytes>,
        offset: u64,
        permit: &mut Permit,
    ) -> Result<Answer, FileFault> {
        permit.consume().await;
        self.files.send(request, offset).await
    }
}

/// What came of a request at the backend's own origin.
enum Opened<'a> {
    File(File),
    Redirect(Elsewhere<'a>),
}

/// A file that is too short for the offset was replaced if its earlier part was of another
/// version.
fn unless_changed(fault: FileFault, version: Option<&FileVersion>, head: &Response<Bytes>) -> FileFault {
    match (&fault, version) {
        (FileFault::PastEnd { size }, Some(version)) => {
            if version.differs_from(&FileVersion::of(head, *size)) { FileFault::Changed } else { fault }
        }
        _ => fault,
    }
}

/// A fault that names what was asked and what came back.
fn in_context(fault: FileFault, head: &Response<Bytes>) -> FileFault {
    match (fault, head.extensions().get::<Asked>()) {
        (FileFault::Backend(fault), Some(asked)) => asked.answered(fault, head).into(),
        (fault, _) => fault,
    }
}

/// The version of a response, which has to be the one before. A part that If-Range asked for
/// need not repeat what it is (RFC 9110, section 15.3.7); any other has to.
fn same_version(before: &FileVersion, part: &Part, offset: u64) -> Result<FileVersion, FileFault> {
    let Part { skip, version: now, .. } = part;
    if before.differs_from(now) {
        return Err(FileFault::Changed);
    }
    if now.has_validator() || !before.has_validator() {
        return Ok(now.clone());
    }
    if offset > *skip && before.if_range().is_some() {
        return Ok(before.clone());
    }
    let why = "it does not say which version of the file it is";
    Err(BackendFault::from(FaultKind::Malformed { why }).into())
}
