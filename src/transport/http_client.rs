//! An HTTP client with one backend's time-outs and limits.

use std::{
    cell::Cell,
    error::Error,
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Version, header};
use http_body_util::Full;
use hyper_util::client::legacy::{self, connect::capture_connection};
use tokio::time::{Instant, timeout_at};

use super::{
    Permit, Reservation, ResponseBudget, SetupError,
    connector::{CONNECTED, Dialer, causes},
    intervals::{INTERVALS, Intervals},
    known_answers::KnownAnswers,
    pool::{self, Client, Generation, Opening, Pool},
    response_body::{self, Limits},
    tls::Offer,
};
use crate::{
    config::{Network, Poll},
    job::{BackendFault, FaultKind},
    telemetry::traces,
    vendors::{Asked, BaseUrl, Class},
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
    /// Whether the last response to be checked came over HTTP/2.
    is_http2: AtomicBool,
    /// Whether the last response that could name its job did.
    names_jobs: AtomicBool,
    headers: HeaderMap,
    timeout: Duration,
    max_response_bytes: usize,
    budget: Arc<ResponseBudget>,
}

/// Whether a response names the jobs that it was requested for; `None` if it can't.
pub(super) type NamesJobs<'a> = Option<&'a (dyn Fn(&Response<Bytes>) -> bool + Sync)>;

/// Writes a request.
pub(super) type WriteRequest<'a> = &'a (dyn Fn() -> Request<Bytes> + Sync);

/// Why there is no whole response.
#[derive(Debug)]
enum Failure {
    /// No head came.
    Client(legacy::Error),
    /// No head came in time.
    TimedOut,
    /// The head came.
    Fault(BackendFault),
}

impl Failure {
    /// Whether the gateway had no room for the response.
    fn is_overload(&self) -> bool {
        matches!(self, Self::Fault(BackendFault { kind: FaultKind::Overloaded, .. }))
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
        request.headers_mut().entry(name).or_insert_with(|| value.clone());
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
        Self::with_intervals(base_url, poll, network, identifies_jobs, budget, INTERVALS)
    }

    pub(super) fn with_intervals(
        base_url: &BaseUrl,
        poll: &Poll,
        network: &Network,
        identifies_jobs: bool,
        budget: Arc<ResponseBudget>,
        intervals: Intervals,
    ) -> Result<Self, SetupError> {
        let dialer = Dialer::new(base_url, network, poll.connect_timeout, Offer::All)?;
        let mut headers = headers(&dialer, network);
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        Ok(Self {
            kept: Pool::new(&dialer, poll.timeout, intervals),
            fresh: pool::without_pool(&dialer, poll.timeout, &intervals),
            known_answers: (!identifies_jobs).then(KnownAnswers::new),
            is_http2: AtomicBool::new(false),
            names_jobs: AtomicBool::new(false),
            headers,
            timeout: poll.timeout,
            max_response_bytes: poll.max_response_bytes,
            budget,
        })
    }

    /// The headers of each request that the backend's own `headers` name.
    pub(super) fn own_headers(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        let is_own = |(name, value): &(&HeaderName, &HeaderValue)| {
            value.is_sensitive() && **name != header::PROXY_AUTHORIZATION
        };
        self.headers.iter().filter(is_own)
    }

    /// Sends a request and reads the whole response, decoded, up to the limit. Waits for
    /// room in the budget before it reads the body, within the time-out.
    pub(super) async fn send(
        &self,
        request: Request<Bytes>,
        permit: &mut Permit,
    ) -> Result<(Response<Bytes>, Reservation), BackendFault> {
        self.send_about(&|| request.clone(), None, permit).await
    }

    /// The same about jobs that the response may name. `request` writes the request, once
    /// for each time that it is sent.
    pub(super) async fn send_about(
        &self,
        request: WriteRequest<'_>,
        names_jobs: NamesJobs<'_>,
        permit: &mut Permit,
    ) -> Result<(Response<Bytes>, Reservation), BackendFault> {
        let kept = self.kept.current();
        match &self.known_answers {
            None => self.exchange(&kept, request(), request, permit).await,
            Some(known) => Box::pin(self.exchange_checked(known, &kept, request, names_jobs, permit)).await,
        }
    }

    /// Like [`exchange`](Self::exchange), where a response does not identify its job.
    async fn exchange_checked(
        &self,
        known: &KnownAnswers,
        kept: &Arc<Generation>,
        request: WriteRequest<'_>,
        names_jobs: NamesJobs<'_>,
        permit: &mut Permit,
    ) -> Result<(Response<Bytes>, Reservation), BackendFault> {
        let first = request();
        let key = known.key(&first);
        let expected = known.expected(key);
        let names = |response: &Response<Bytes>| names_jobs.is_some_and(|names_jobs| names_jobs(response));
        let is_named = names_jobs.is_some() && self.names_jobs.load(Ordering::Relaxed);
        let mut unverified = None;
        if expected.is_some() || is_named || self.is_http2.load(Ordering::Relaxed) {
            match self.exchange(kept, first, request, permit).await {
                Ok((response, room)) if refuses_any_request(&response) => return Ok((response, room)),
                Ok((response, room)) => {
                    let answer = known.hash(&response);
                    let is_certain = self.notes_http2(&response);
                    if is_certain || expected == Some(answer) || names(&response) {
                        return Ok((response, room));
                    }
                    unverified = Some(answer);
                }
                Err(fault) if says_nothing(&fault) => return Err(fault),
                Err(_) => {}
            }
        }
        let request = request();
        let asked = Asked::of(&request);
        let request = with_headers(request, &self.headers);
        let verified = self.exchange_once(&self.fresh, &asked, request, permit).await;
        let answer = verified.as_ref().ok().map(|(response, _)| {
            self.notes_http2(response);
            if names_jobs.is_some() {
                self.names_jobs.store(names(response), Ordering::Relaxed);
            }
            known.hash(response)
        });
        if let Some(answer) = answer {
            known.verified(key, answer);
        }
        if unverified.is_some() && unverified != answer {
            // One of its connections may be a response ahead.
            self.kept.replace(kept);
        }
        verified
    }

    /// Whether the response came over HTTP/2, where no other request's can be read in its
    /// place.
    fn notes_http2(&self, response: &Response<Bytes>) -> bool {
        let is_http2 = response.version() == Version::HTTP_2;
        if self.is_http2.load(Ordering::Relaxed) != is_http2 {
            self.is_http2.store(is_http2, Ordering::Relaxed);
        }
        is_http2
    }

    /// Sends a request over a kept connection and reads its response within the time-out,
    /// which closes the connection. A kept connection that the vendor closes just as the
    /// request goes out says nothing about the vendor, so the request is sent once more,
    /// over a new one: others that are kept may have ended with it. The client below does
    /// so itself only where it knows of the end before it writes, and does not tell whether
    /// a part of the head had come; no request here starts or changes a job. `write` writes
    /// the request for that.
    async fn exchange(
        &self,
        kept: &Arc<Generation>,
        request: Request<Bytes>,
        write: WriteRequest<'_>,
        permit: &mut Permit,
    ) -> Result<(Response<Bytes>, Reservation), BackendFault> {
        let asked = Asked::of(&request);
        let again = || with_headers(write(), &self.headers);
        let opening = kept.may_send(permit).await;
        permit.consume().await;
        let request = with_headers(request, &self.headers);
        let sent_at = Instant::now();
        let (outcome, has_connected) = {
            // Pinned here, so that it is not moved into the scope.
            let attempt = pin!(self.attempt_kept(kept, opening, &asked, request, sent_at));
            CONNECTED.scope(Cell::new(false), async { (attempt.await, CONNECTED.with(Cell::get)) }).await
        };
        let failure = match outcome {
            Ok(response) => return Ok(response),
            Err(failure) => failure,
        };
        match failure {
            Failure::Client(error)
                if was_taken_back(&error) || kept.multiplexes() && !has_connected && was_closed(&error) =>
            {
                let successors = self.kept.replace(kept);
                let opening = successors.may_send(permit).await;
                permit.consume().await;
                // What is rare is boxed: it would make the future of every request larger.
                let attempt = self.attempt_kept(&successors, opening, &asked, again(), Instant::now());
                Box::pin(attempt).await.map_err(|failure| self.fault(&asked, failure))
            }
            Failure::Client(error) if !has_connected && was_closed(&error) => {
                Box::pin(self.exchange_once(&self.fresh, &asked, again(), permit)).await
            }
            failure => {
                // Over HTTP/1.1 the connection was the request's own, and is closed.
                let is_silent = sent_at.elapsed() >= self.timeout && !failure.is_overload();
                if is_silent && kept.multiplexes() {
                    self.kept.replace(kept);
                }
                Err(self.fault(&asked, failure))
            }
        }
    }

    async fn exchange_once(
        &self,
        client: &Client,
        asked: &Asked,
        request: Request<Full<Bytes>>,
        permit: &mut Permit,
    ) -> Result<(Response<Bytes>, Reservation), BackendFault> {
        permit.consume().await;
        let outcome = self.attempt(client, asked, request, Instant::now()).await;
        outcome.map_err(|failure| self.fault(asked, failure))
    }

    /// Sends a request over a kept connection, or over the first one, which it opens.
    fn attempt_kept<'a>(
        &'a self,
        kept: &'a Generation,
        opening: Option<Opening<'a>>,
        asked: &'a Asked,
        request: Request<Full<Bytes>>,
        sent_at: Instant,
    ) -> impl Future<Output = Result<(Response<Bytes>, Reservation), Failure>> + Send + 'a {
        match opening {
            None => Either::Left(self.attempt(&kept.client, asked, request, sent_at)),
            Some(opening) => {
                Either::Right(Box::pin(self.attempt_opening(kept, opening, asked, request, sent_at)))
            }
        }
    }

    /// Like [`attempt`](Self::attempt) for the request that opens the first connection; lets
    /// other requests go as soon as it is open.
    async fn attempt_opening(
        &self,
        kept: &Generation,
        opening: Opening<'_>,
        asked: &Asked,
        mut request: Request<Full<Bytes>>,
        sent_at: Instant,
    ) -> Result<(Response<Bytes>, Reservation), Failure> {
        let mut captured = capture_connection(&mut request);
        let opened = pin!(async move {
            captured.wait_for_connection_metadata().await;
            drop(opening);
        });
        let attempt = Box::pin(self.attempt(&kept.client, asked, request, sent_at));
        match select(opened, attempt).await {
            Either::Left(((), attempt)) => attempt.await,
            Either::Right((outcome, _)) => outcome,
        }
    }

    /// Sends a request, and reads its response within the time-out. The future does not hold
    /// the request.
    fn attempt<'a>(
        &'a self,
        client: &Client,
        asked: &'a Asked,
        request: Request<Full<Bytes>>,
        sent_at: Instant,
    ) -> impl Future<Output = Result<(Response<Bytes>, Reservation), Failure>> + Send + use<'a> {
        traces::http_request(&request);
        let response = client.request(request);
        async move {
            let response = timeout_at(sent_at + self.timeout, response).await;
            let response = response.map_err(|_| Failure::TimedOut)?.map_err(Failure::Client)?;
            traces::http_response(response.status());
            let (max_bytes, budget, timeout) = (self.max_response_bytes, &*self.budget, self.timeout);
            let limits = Limits { max_bytes, budget, sent_at, timeout };
            let read = response_body::read(asked.clone(), response, limits, |error| broken(error));
            read.await.map_err(Failure::Fault)
        }
    }

    fn fault(&self, asked: &Asked, failure: Failure) -> BackendFault {
        match failure {
            Failure::Client(error) => asked.unanswered(fault(&error)),
            Failure::TimedOut => {
                let why = format!("no whole response within {:?}", self.timeout);
                asked.unanswered(FaultKind::Unavailable { why }.into())
            }
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
    FaultKind::Unavailable { why }.into()
}

/// Whether the head refuses or fails the request, whatever job it is about. Such a response
/// to another request is no less true of this one, and a second request would come within
/// the wait that the vendor asks for.
fn refuses_any_request(response: &Response<Bytes>) -> bool {
    match Class::of(response.status()) {
        Class::Transient
        | Class::Throttled
        | Class::Credentials
        | Class::ProxyCredentials
        | Class::Denied
        | Class::Redirect => true,
        Class::Success | Class::NoContent | Class::NotModified | Class::Other => false,
    }
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
    let text = causes(error).last().map_or_else(String::new, ToString::to_string);
    // rustls adds a link to its manual.
    text.split_once(": https://").map_or(&*text, |(text, _)| text).to_owned()
}
