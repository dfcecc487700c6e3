//! An HTTP client with one backend's time-outs and limits.

use std::{cell::Cell, error::Error, fmt, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use reqwest::{Client, ClientBuilder, redirect};
use tokio::{task::yield_now, time::Instant};
use tower::util::MapRequestLayer;

use super::{
    Permit, Reservation, ResponseBudget, SetupError,
    response_body::{self, Limits},
};
use crate::{
    config,
    job::{BackendFault, FaultKind},
    vendors::{Asked, BaseUrl},
};

const USER_AGENT: &str = concat!("jobwatch/", env!("CARGO_PKG_VERSION"));

tokio::task_local! {
    /// Whether the request that the task sends had to open a connection.
    static CONNECTED: Cell<bool>;
}

/// An HTTP client with the backend's limits.
pub(super) struct HttpClient {
    /// Keeps connections; none where a response must not be taken for another's.
    keeping: Option<Client>,
    /// Opens a connection for each request.
    fresh: Client,
    timeout: Duration,
    max_response_bytes: usize,
    budget: Arc<ResponseBudget>,
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").finish_non_exhaustive()
    }
}

/// What all clients of a backend have in common. The system's proxy is used,
/// except towards this machine.
pub(super) fn client_builder(base_url: &BaseUrl, poll: &config::Poll) -> ClientBuilder {
    let builder = Client::builder()
        .user_agent(USER_AGENT)
        .redirect(redirect::Policy::none())
        // Bodies are decoded by the reader of bodies, and files not at all.
        .no_gzip()
        // RFC 9112, section 5.2: a fold is a space.
        .http1_allow_obsolete_multiline_headers_in_responses(true)
        .http1_allow_spaces_after_header_name_in_responses(true)
        .connect_timeout(poll.connect_timeout);
    if base_url.is_loopback() { builder.no_proxy() } else { builder }
}

impl HttpClient {
    /// HTTP/1.1 has nothing but their order to match responses with requests. A
    /// vendor or a proxy that sends one response too many therefore shifts all that
    /// follow on the connection, and the client sees that only while it is idle.
    /// So a connection is kept only where each response `identifies_jobs`.
    pub(super) fn new(
        base_url: &BaseUrl,
        poll: &config::Poll,
        identifies_jobs: bool,
        budget: Arc<ResponseBudget>,
    ) -> Result<Self, SetupError> {
        let builder = || client_builder(base_url, poll).timeout(poll.timeout).tcp_nodelay(true);
        let failed = |error| SetupError(format!("the HTTP client can't be set up: {}", reason(&error)));
        let keeping = || builder().connector_layer(MapRequestLayer::new(note_connecting)).build();
        Ok(Self {
            keeping: identifies_jobs.then(keeping).transpose().map_err(failed)?,
            fresh: builder().pool_max_idle_per_host(0).build().map_err(failed)?,
            timeout: poll.timeout,
            max_response_bytes: poll.max_response_bytes,
            budget,
        })
    }

    /// Sends a request and reads the whole response, decompressed, up to the limit. Waits
    /// for room in the budget before it reads the body, within the time-out.
    pub(super) async fn send(
        &self,
        mut request: Request<Bytes>,
        permit: &mut Permit,
    ) -> Result<(Response<Bytes>, Reservation), BackendFault> {
        let asked = Asked::of(&request);
        request.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        let unanswered = |error| asked.unanswered(self.fault(&error));
        let request = reqwest::Request::try_from(request).map_err(unanswered)?;
        // Requests that are ready together are then sent in one go: a vendor nearby is
        // woken for them all, not for each. Saves about a quarter of a poll.
        yield_now().await;
        let (response, sent_at) = self.begin(request, permit).await;
        let response: Response<reqwest::Body> = response.map_err(unanswered)?.into();
        let (max_bytes, budget, timeout) = (self.max_response_bytes, &*self.budget, self.timeout);
        let limits = Limits { max_bytes, budget, sent_at, timeout };
        response_body::read(asked, response, limits, |error| self.fault(error)).await
    }

    /// Sends a request and reads the head of the response; says when it was sent. A kept
    /// connection that the vendor closes just as the request goes out says nothing about
    /// the vendor, so the request is sent once more, over a new one: others that are
    /// kept may have ended with it. The client below does so itself only where it
    /// knows of the end before it writes, and does not tell whether a part of the
    /// head had come; no request here starts or changes a job.
    async fn begin(
        &self,
        request: reqwest::Request,
        permit: &mut Permit,
    ) -> (reqwest::Result<reqwest::Response>, Instant) {
        permit.consume().await;
        let mut sent_at = Instant::now();
        let Some(keeping) = &self.keeping else { return (self.fresh.execute(request).await, sent_at) };
        let again = request.try_clone();
        let once = CONNECTED.scope(Cell::new(false), async {
            let response = keeping.execute(request).await;
            (response, CONNECTED.with(Cell::get))
        });
        let response = match (once.await, again) {
            ((Err(error), false), Some(again)) if was_closed(&error) => {
                permit.consume().await;
                sent_at = Instant::now();
                self.fresh.execute(again).await
            }
            ((response, _), _) => response,
        };
        (response, sent_at)
    }

    /// Why there is no response.
    pub(super) fn fault(&self, error: &reqwest::Error) -> BackendFault {
        if error.is_connect() {
            let why = if error.is_timeout() {
                "connecting took too long".to_owned()
            } else {
                format!("no connection: {}", reason(error))
            };
            return FaultKind::Unreachable { why }.into();
        }
        let why = if error.is_timeout() {
            format!("no whole response within {:?}", self.timeout)
        } else {
            format!("the connection broke: {}", reason(error))
        };
        FaultKind::Unavailable { why }.into()
    }
}

/// Runs as a part of connecting, in the task of the request that needs it.
fn note_connecting<T>(destination: T) -> T {
    // Outside of a first try, nobody wants to know.
    let _ = CONNECTED.try_with(|connected| connected.set(true));
    destination
}

/// Whether the connection ended before there was a response.
fn was_closed(error: &reqwest::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let is_an_end = |cause: &(dyn Error + 'static)| {
        let io = cause.downcast_ref().map(io::Error::kind);
        cause.downcast_ref().is_some_and(hyper::Error::is_incomplete_message)
            || matches!(io, Some(BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof))
    };
    let mut causes =
        std::iter::successors(error.source(), |cause: &&(dyn Error + 'static)| (**cause).source());
    !error.is_timeout() && !error.is_connect() && causes.any(is_an_end)
}

/// The innermost cause, which names neither URL nor header.
pub(super) fn reason(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if std::ptr::addr_eq(cause, error) {
        return "the request can't be sent".to_owned();
    }
    let told = cause.to_string();
    // rustls adds a link to its manual.
    told.split_once(": https://").map_or(&*told, |(told, _)| told).to_owned()
}
