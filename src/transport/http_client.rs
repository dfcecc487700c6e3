//! An HTTP client with one backend's time-outs and limits.

use std::{cell::Cell, error::Error, io, io::Read, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use http::{HeaderMap, HeaderValue, Request, Response, Version, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper_util::client::legacy;
use tokio::{
    task::yield_now,
    time::{Instant, timeout_at},
};

use super::{
    Permit, Reservation, ResponseBudget, SetupError,
    connector::{CONNECTED, Dialer, causes},
    known_answers::KnownAnswers,
    pool::{self, Client, Generation, Pool},
    tls::Offer,
};
use crate::{
    config::{Network, Poll},
    job::{BackendFault, FaultKind},
    vendors::BaseUrl,
};

const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("jobwatch/", env!("CARGO_PKG_VERSION")));

/// An HTTP client with the backend's limits.
#[derive(Debug)]
pub(super) struct HttpClient {
    kept: Pool,
    /// Opens a connection for each request.
    fresh: Client,
    /// Where responses do not identify their jobs.
    known_answers: Option<KnownAnswers>,
    headers: HeaderMap,
    timeout: Duration,
    max_response_bytes: usize,
    budget: Arc<ResponseBudget>,
}

/// The connections that a request may use.
#[derive(Clone, Copy, Debug)]
enum Route<'a> {
    Kept(&'a Arc<Generation>),
    Fresh,
}

/// Why there is no whole response.
#[derive(Debug)]
enum Failure {
    Client(legacy::Error),
    Body(hyper::Error),
    Fault(BackendFault),
}

impl From<legacy::Error> for Failure {
    fn from(error: legacy::Error) -> Self {
        Self::Client(error)
    }
}

/// The headers of each request to a backend that the request does not set itself.
pub(super) fn headers(dialer: &Dialer, network: &Network) -> HeaderMap {
    let mut headers = network.headers.clone();
    headers.entry(header::USER_AGENT).or_insert(USER_AGENT);
    headers.entry(header::ACCEPT).or_insert(HeaderValue::from_static("*/*"));
    headers.extend(dialer.proxy_authorization().map(|value| (header::PROXY_AUTHORIZATION, value.clone())));
    headers
}

/// A request with these headers, besides its own.
pub(super) fn with_headers(request: Request<Bytes>, headers: &HeaderMap) -> Request<Full<Bytes>> {
    let mut request = request.map(Full::new);
    for (name, value) in headers {
        if !request.headers().contains_key(name) {
            request.headers_mut().insert(name, value.clone());
        }
    }
    request
}

impl HttpClient {
    /// Keeps connections. Where responses do not identify their jobs, what comes over a
    /// connection of HTTP/1.1 that was used before is checked; see [`KnownAnswers`].
    pub(super) fn new(
        base_url: &BaseUrl,
        poll: &Poll,
        network: &Network,
        identifies_jobs: bool,
        budget: Arc<ResponseBudget>,
    ) -> Result<Self, SetupError> {
        let dialer = Dialer::new(base_url, network, poll.connect_timeout, Offer::All)?;
        let mut headers = headers(&dialer, network);
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        Ok(Self {
            kept: Pool::new(&dialer, poll.timeout),
            fresh: pool::without_pool(&dialer, poll.timeout),
            known_answers: (!identifies_jobs).then(KnownAnswers::new),
            headers,
            timeout: poll.timeout,
            max_response_bytes: poll.max_response_bytes,
            budget,
        })
    }

    /// Sends a request and reads the whole response, decompressed, up to the limit. Waits
    /// for room in the budget before it reads the body, within the time-out.
    pub(super) async fn send(
        &self,
        request: Request<Bytes>,
        permit: &mut Permit,
    ) -> Result<(Response<Bytes>, Reservation), BackendFault> {
        // Requests that are ready together are then sent in one go: a vendor nearby is
        // woken for them all, not for each. Saves about a quarter of a poll.
        yield_now().await;
        let kept = self.kept.current();
        match &self.known_answers {
            None => self.exchange(Route::Kept(&kept), request, permit).await,
            Some(known) => self.exchange_checked(known, &kept, request, permit).await,
        }
    }

    /// Like [`exchange`](Self::exchange), where a response does not identify its job.
    async fn exchange_checked(
        &self,
        known: &KnownAnswers,
        kept: &Arc<Generation>,
        request: Request<Bytes>,
        permit: &mut Permit,
    ) -> Result<(Response<Bytes>, Reservation), BackendFault> {
        let key = known.key(&request);
        let expected = known.expected(key);
        let mut unverified = None;
        if expected.is_some() || kept.multiplexes() {
            match self.exchange(Route::Kept(kept), request.clone(), permit).await {
                Ok((response, room)) => {
                    let answer = known.hash(&response);
                    let is_certain = response.version() == Version::HTTP_2;
                    if is_certain || expected == Some(answer) {
                        if is_certain {
                            known.verified(key, answer);
                        }
                        return Ok((response, room));
                    }
                    unverified = Some(answer);
                }
                Err(fault) if says_nothing(&fault) => return Err(fault),
                Err(_) => {}
            }
        }
        let verified = self.exchange(Route::Fresh, request, permit).await;
        let answer = verified.as_ref().ok().map(|(response, _)| known.hash(response));
        if let Some(answer) = answer {
            known.verified(key, answer);
        }
        if unverified.is_some() && unverified != answer {
            // One of its connections may be a response ahead.
            self.kept.replace(kept);
        }
        verified
    }

    /// Sends a request and reads its response within the time-out, which closes the
    /// connection. A kept connection that the vendor closes just as the request goes out
    /// says nothing about the vendor, so the request is sent once more, over a new one:
    /// others that are kept may have ended with it. The client below does so itself only
    /// where it knows of the end before it writes, and does not tell whether a part of the
    /// head had come; no request here starts or changes a job.
    async fn exchange(
        &self,
        route: Route<'_>,
        request: Request<Bytes>,
        permit: &mut Permit,
    ) -> Result<(Response<Bytes>, Reservation), BackendFault> {
        let request = with_headers(request, &self.headers);
        let Route::Kept(kept) = route else { return self.exchange_fresh(request, permit).await };
        permit.consume().await;
        let again = request.clone();
        let deadline = Instant::now() + self.timeout;
        let once = CONNECTED.scope(Cell::new(false), async {
            let response = self.attempt(&kept.client, request, deadline).await;
            (response, CONNECTED.with(Cell::get))
        });
        let Ok((outcome, has_connected)) = timeout_at(deadline, once).await else {
            if kept.multiplexes() {
                // Over HTTP/1.1 the connection was the request's own, and is closed.
                self.kept.replace(kept);
            }
            return Err(self.timed_out());
        };
        match outcome {
            Ok(response) => Ok(response),
            Err(Failure::Client(error)) if was_taken_back(&error) => {
                let successors = self.kept.replace(kept);
                self.exchange_once(&successors.client, again, permit).await
            }
            Err(Failure::Client(error)) if !has_connected && was_closed(&error) => {
                self.exchange_fresh(again, permit).await
            }
            Err(failure) => Err(failure.into()),
        }
    }

    async fn exchange_fresh(
        &self,
        request: Request<Full<Bytes>>,
        permit: &mut Permit,
    ) -> Result<(Response<Bytes>, Reservation), BackendFault> {
        self.exchange_once(&self.fresh, request, permit).await
    }

    async fn exchange_once(
        &self,
        client: &Client,
        request: Request<Full<Bytes>>,
        permit: &mut Permit,
    ) -> Result<(Response<Bytes>, Reservation), BackendFault> {
        permit.consume().await;
        let deadline = Instant::now() + self.timeout;
        match timeout_at(deadline, self.attempt(client, request, deadline)).await {
            Err(_) => Err(self.timed_out()),
            Ok(outcome) => outcome.map_err(Into::into),
        }
    }

    async fn attempt(
        &self,
        client: &Client,
        request: Request<Full<Bytes>>,
        deadline: Instant,
    ) -> Result<(Response<Bytes>, Reservation), Failure> {
        let response = client.request(request).await?;
        self.read(response, deadline).await
    }

    async fn read(
        &self,
        response: Response<Incoming>,
        deadline: Instant,
    ) -> Result<(Response<Bytes>, Reservation), Failure> {
        let too_large = || Failure::Fault(FaultKind::TooLarge.into());
        let (mut head, mut incoming) = response.into_parts();
        let is_compressed = head.headers.contains_key(header::CONTENT_ENCODING);
        // Absent where the body is chunked.
        let announced =
            incoming.size_hint().exact().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        if announced.is_some_and(|announced| announced > self.max_response_bytes) {
            return Err(too_large());
        }
        let needed = announced.filter(|_| !is_compressed).unwrap_or(self.max_response_bytes);
        let room = timeout_at(deadline, self.budget.acquire(needed)).await;
        let mut room = room.map_err(|_| Failure::Fault(FaultKind::Overloaded.into()))?;
        let mut body = BytesMut::with_capacity(announced.unwrap_or(0));
        while let Some(frame) = incoming.frame().await {
            let Ok(chunk) = frame.map_err(Failure::Body)?.into_data() else { continue };
            if body.len() + chunk.len() > self.max_response_bytes {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        let mut body = body.freeze();
        if head.headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding == "gzip") {
            let mut decoded = Vec::new();
            let most = self.max_response_bytes as u64 + 1;
            let read = MultiGzDecoder::new(&body[..]).take(most).read_to_end(&mut decoded);
            if decoded.len() > self.max_response_bytes {
                return Err(too_large());
            }
            let broken = |error| {
                let why = format!("the connection broke: {error}");
                Failure::Fault(FaultKind::Unavailable { retry_after: None, why }.into())
            };
            read.map_err(broken)?;
            head.headers.remove(header::CONTENT_ENCODING);
            head.headers.remove(header::CONTENT_LENGTH);
            body = decoded.into();
        }
        room.shrink_to(body.len());
        Ok((Response::from_parts(head, body), room))
    }

    fn timed_out(&self) -> BackendFault {
        let why = format!("no whole response within {:?}", self.timeout);
        FaultKind::Unavailable { retry_after: None, why }.into()
    }
}

impl From<Failure> for BackendFault {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Client(error) => fault(&error),
            Failure::Body(error) => broken(&error),
            Failure::Fault(fault) => fault,
        }
    }
}

/// Why there is no response.
pub(super) fn fault(error: &legacy::Error) -> BackendFault {
    if !error.is_connect() {
        return broken(error);
    }
    let why = if io_kind(error) == Some(io::ErrorKind::TimedOut) {
        "connecting took too long".to_owned()
    } else {
        format!("no connection: {}", reason(error))
    };
    FaultKind::Unreachable { why }.into()
}

fn broken(error: &(dyn Error + 'static)) -> BackendFault {
    let why = format!("the connection broke: {}", reason(error));
    FaultKind::Unavailable { retry_after: None, why }.into()
}

/// Whether there was no response, so that none was another request's.
fn says_nothing(fault: &BackendFault) -> bool {
    matches!(
        fault.kind,
        FaultKind::Unavailable { .. } | FaultKind::Unreachable { .. } | FaultKind::Overloaded
    )
}

fn io_kind(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    causes(error).find_map(|cause| cause.downcast_ref().map(io::Error::kind))
}

/// Whether the connection ended before there was a response.
fn was_closed(error: &legacy::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let is_an_end = |cause: &(dyn Error + 'static)| {
        let io = cause.downcast_ref().map(io::Error::kind);
        cause.downcast_ref().is_some_and(hyper::Error::is_incomplete_message)
            || matches!(io, Some(BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof))
    };
    !error.is_connect() && causes(error).any(is_an_end)
}

/// Whether the vendor took back an HTTP/2 connection with GOAWAY, or refused to process the
/// request on it.
fn was_taken_back(error: &legacy::Error) -> bool {
    let is_refusal = |error: &h2::Error| {
        error.is_remote() && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM))
    };
    !error.is_connect() && causes(error).any(|cause| cause.downcast_ref().is_some_and(is_refusal))
}

/// The innermost cause, which names neither URL nor header.
pub(super) fn reason(error: &(dyn Error + 'static)) -> String {
    if error.source().is_none() {
        return "the request can't be sent".to_owned();
    }
    let told = causes(error).last().map_or_else(String::new, ToString::to_string);
    // rustls adds a link to its manual.
    told.split_once(": https://").map_or(&*told, |(told, _)| told).to_owned()
}
