//! A vendor's file, piece by piece.
//!
//! Files are fetched by a client of their own: bytes have to arrive as the vendor
//! stores them, so nothing is decompressed, and a whole file may take any time, so
//! only silence is timed. A download has its own connection, which a reader that
//! stalls keeps from nobody else.

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, combinators::BoxBody};
use hyper_util::client::legacy;
use tokio::time::{Instant, timeout};

use super::{
    Endpoint, Permit, SetupError,
    address::NotPublic,
    connector::{Dialer, causes},
    http_client::{fault, headers, reason, with_headers},
    intervals::INTERVALS,
    pool::{self, Client},
    response_body::add_date,
    tls::Offer,
};
use crate::{
    config,
    job::{BackendFault, FaultKind},
    vendors::{Asked, BaseUrl, FileFault, FileVersion, OriginRefusal, Part, RefusedOrigin},
};

mod elsewhere;
mod open;

pub(super) use elsewhere::OtherOrigins;
use open::{Place, Wanted};

/// Most bytes of a piece.
const PIECE: usize = 64 * 1024;

/// Most bytes that an HTTP/2 connection holds which nobody has read.
const WINDOW: u32 = 256 * 1024;

/// Where files can be had.
pub trait Files: Send + Sync {
    /// Requests the bytes from `offset` on of the file at a location that the
    /// vendor gave, and consumes `permit` for each request. With a `version`, a file that
    /// was replaced since is a failure. Dropping the future, or the file, cancels the
    /// request.
    fn open<'a>(
        &'a self,
        location: &'a str,
        offset: u64,
        version: Option<&'a FileVersion>,
        permit: Permit,
    ) -> Pin<Box<dyn Future<Output = Result<File, FileFault>> + Send + 'a>>;

    /// Whether the location is at another origin, so that a part of it is in no status.
    ///
    /// # Errors
    /// No request may be sent there.
    fn is_elsewhere(&self, _location: &str) -> Result<bool, FileFault> {
        Ok(false)
    }

    /// Until when no download is sent since none can be authorized.
    fn downloads_paused_until(&self) -> Option<Instant> {
        None
    }
}

/// A file that is being read, from an offset on.
pub struct File {
    part: Part,
    asked: Option<Asked>,
    body: BoxBody<Bytes, hyper::Error>,
    /// Read of the response, skipped bytes included.
    read: u64,
    chunk: Bytes,
    patience: Duration,
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("part", &self.part).field("read", &self.read).finish_non_exhaustive()
    }
}

impl File {
    /// As the vendor says; empty where it doesn't.
    pub fn content_type(&self) -> &str {
        &self.part.content_type
    }

    /// Whole size in bytes, where the vendor says.
    pub fn size(&self) -> Option<u64> {
        self.part.size
    }

    /// What tells this version of the file from others.
    pub fn version(&self) -> &FileVersion {
        &self.part.version
    }

    /// The next bytes, at most 64 KiB; `None` after the last. Nothing is read ahead
    /// but what the connection holds.
    ///
    /// # Errors
    /// The file broke off: fewer bytes came than were announced, or none for the
    /// backend's time-out.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FileFault> {
        let piece = self.read_piece().await;
        piece.map_err(|fault| match (fault, &self.asked) {
            (FileFault::Backend(fault), Some(asked)) => asked.unanswered(fault).into(),
            (fault, _) => fault,
        })
    }

    async fn read_piece(&mut self) -> Result<Option<Bytes>, FileFault> {
        loop {
            if !self.chunk.is_empty() {
                return Ok(Some(self.chunk.split_to(self.chunk.len().min(PIECE))));
            }
            if self.part.length.is_some_and(|length| self.read == length) {
                return Ok(None);
            }
            // A client's own time-out also runs while nobody reads here, and a slow
            // reader would be told that the vendor is silent.
            let frame = timeout(self.patience, self.body.frame()).await;
            let frame = frame.map_err(|_| broken(format!("nothing came for {:?}", self.patience)))?;
            match frame.transpose() {
                // What is no data is trailers.
                Ok(Some(frame)) => self.take(frame.into_data().unwrap_or_default())?,
                Ok(None) => return self.end(),
                Err(error) => return Err(broken(format!("the connection broke: {}", reason(&error)))),
            }
        }
    }

    fn take(&mut self, mut chunk: Bytes) -> Result<(), FileFault> {
        let skip = self.part.skip.saturating_sub(self.read);
        self.read += chunk.len() as u64;
        if self.part.length.is_some_and(|length| self.read > length) {
            let kind = FaultKind::Malformed { why: "the file is longer than announced" };
            return Err(BackendFault::from(kind).into());
        }
        chunk.advance(usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.len()));
        self.chunk = chunk;
        Ok(())
    }

    /// The response ended before its announced length, or had none.
    fn end(&self) -> Result<Option<Bytes>, FileFault> {
        match self.part.length {
            Some(length) => {
                Err(broken(format!("the file ended {} bytes before its announced end", length - self.read)))
            }
            None if self.read < self.part.skip => Err(FileFault::PastEnd { size: Some(self.read) }),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
impl File {
    /// A file that is here already.
    pub(crate) fn of(bytes: Bytes) -> Self {
        let version = FileVersion::default();
        let part = Part { content_type: String::new(), size: None, length: None, skip: 0, version };
        let body = http_body_util::Full::new(bytes).map_err(|never| match never {}).boxed();
        Self { part, asked: None, body, read: 0, chunk: Bytes::new(), patience: Duration::from_secs(1) }
    }
}

fn broken(why: String) -> FileFault {
    BackendFault::from(FaultKind::Unavailable { why }).into()
}

/// An HTTP client for files.
#[derive(Debug)]
pub(super) struct FileClient {
    client: Client,
    headers: HeaderMap,
    patience: Duration,
}

/// The head of a response, and its body.
type Answer = (Response<Bytes>, BoxBody<Bytes, hyper::Error>);

impl FileClient {
    pub(super) fn new(
        base_url: &BaseUrl,
        poll: &config::Poll,
        network: &config::Network,
    ) -> Result<Self, SetupError> {
        Ok(Self::with(&Dialer::new(base_url, network, poll.connect_timeout, Offer::All)?, poll, network))
    }

    /// A client for another origin than the backend's, whose name has to lead to public
    /// addresses.
    fn to_public(url: &BaseUrl, poll: &config::Poll, network: &config::Network) -> Result<Self, SetupError> {
        Ok(Self::with(&Dialer::to_public(url, network, poll.connect_timeout, Offer::All)?, poll, network))
    }

    fn with(dialer: &Arc<Dialer>, poll: &config::Poll, network: &config::Network) -> Self {
        // A shared connection would let one reader's full window stop the others: each
        // download has its own, on every HTTP version, with little read ahead.
        let client = pool::for_files(dialer, poll.timeout, &INTERVALS, WINDOW);
        Self { client, headers: headers(dialer, network), patience: poll.timeout }
    }

    /// Sends the request and reads the head of the response.
    async fn send(&self, mut request: Request<Bytes>, offset: u64) -> Result<Answer, FileFault> {
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if offset > 0
            && let Ok(range) = HeaderValue::try_from(format!("bytes={offset}-"))
        {
            headers.insert(header::RANGE, range);
        }
        let Self { client, headers, patience } = self;
        let asked = Asked::of(&request);
        let origin = origin(request.uri());
        let request = with_headers(request, headers);
        let response = timeout(*patience, client.request(request)).await;
        let response = match response {
            Err(_) => {
                let why = format!("no response within {patience:?}");
                Err(BackendFault::from(FaultKind::Unavailable { why }))
            }
            Ok(Err(error)) => match not_public(&error) {
                Some(NotPublic(kind)) => {
                    let why = OriginRefusal::Address(kind);
                    let key = "allow_origins".to_owned();
                    return Err(RefusedOrigin { origin, why, is_redirect: false, key }.into());
                }
                None => Err(fault(&error)),
            },
            Ok(Ok(response)) => Ok(response),
        };
        let (mut head, body) = response.map_err(|fault| asked.unanswered(fault))?.into_parts();
        head.extensions.insert(asked);
        // For the wait that it may ask for. The date of a file tells which versions can be told
        // apart, so that only the vendor's own will do.
        if !matches!(head.status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
            add_date(&mut head.headers);
        }
        Ok((Response::from_parts(head, Bytes::new()), body.boxed()))
    }
}

fn origin(uri: &Uri) -> String {
    let host = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    format!("{}://{host}", uri.scheme_str().unwrap_or_default())
}

/// Whether nothing was sent since the name leads to an address that is not public.
fn not_public(error: &legacy::Error) -> Option<&NotPublic> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

impl Files for Endpoint {
    fn open<'a>(
        &'a self,
        location: &'a str,
        offset: u64,
        version: Option<&'a FileVersion>,
        permit: Permit,
    ) -> Pin<Box<dyn Future<Output = Result<File, FileFault>> + Send + 'a>> {
        let file = self.open_file(location, Wanted { offset, version }, permit);
        Box::pin(async move { file.await.map_err(|fault| self.other_origins.with_key(fault)) })
    }

    fn is_elsewhere(&self, location: &str) -> Result<bool, FileFault> {
        match self.place(location) {
            Ok(place) => Ok(matches!(place, Place::Other(_))),
            Err(fault) => Err(self.other_origins.with_key(fault)),
        }
    }

    fn downloads_paused_until(&self) -> Option<Instant> {
        self.credentials.downloads_paused_until()
    }
}

#[cfg(test)]
mod tests;
