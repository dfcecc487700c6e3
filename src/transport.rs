//! The only I/O towards vendors: HTTP, credentials, time-outs, the size limit.
//!
//! An [`Endpoint`] is an [`Upstream`] that sends what an adapter writes and hands back
//! what the adapter reads. A rejected token is renewed once; a second rejection is a fault.
//! Redirects are never followed. No secret reaches a log or an error: errors name
//! what failed, never a URL, a header or a body.

use std::{cell::Cell, error::Error, fmt, future::Future, io, pin::Pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{Request, Response, header};
use reqwest::{Client, ClientBuilder, redirect};
use secrecy::SecretString;
use tokio::{sync::Notify, task::yield_now};
use tower::util::MapRequestLayer;

use crate::{
    adapters::{
        Adapter, BackendFault, BaseUrl, Changes, Claret, Datasaur, FaultKind, Immuta, JobFault, Kinetica,
    },
    config::{self, Vendor},
    job::JobRef,
    pacing::Backoff,
};

mod clusters;
mod credentials;
mod download;
mod redaction;
mod throttle;
mod upstream;

use clusters::{Clusters, Standby};
use credentials::Credentials;
pub use download::{File, Files};
pub use throttle::{Leave, Throttle};
pub use upstream::{Asked, Question, Upstream};

const USER_AGENT: &str = concat!("jobwatch/", env!("CARGO_PKG_VERSION"));

tokio::task_local! {
    /// Whether the request that the task sends had to open a connection.
    static CONNECTED: Cell<bool>;
}

/// One backend on the network.
#[derive(Debug)]
pub struct Endpoint {
    vendor: Vendor,
    adapter: Arc<dyn Adapter>,
    /// Where there is more than one.
    clusters: Option<Clusters>,
    credentials: Arc<Credentials>,
    http: Arc<Http>,
    files: download::FileClient,
    rotated: Notify,
}

/// Why an endpoint can't be set up.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SetupError(String);

impl Endpoint {
    /// Sets a backend up; connects to nothing yet.
    pub fn new(backend: &config::Backend) -> Result<Self, SetupError> {
        let config::Backend { name, vendor, base_url, credentials, poll } = backend;
        let adapter: Arc<dyn Adapter> = match (vendor, credentials) {
            (Vendor::Immuta, credentials) => {
                let exchange = matches!(credentials, config::Credentials::ApiKeyExchange(_));
                Arc::new(Immuta::new(base_url.clone(), poll.max_batch, exchange))
            }
            (Vendor::Kinetica { encoding, .. }, _) => Arc::new(Kinetica::new(base_url.clone(), *encoding)),
            (Vendor::Claret { tenant }, credentials) => {
                let email = match credentials {
                    config::Credentials::Login { email, .. } => Some(email.clone()),
                    _ => None,
                };
                let claret = Claret::new(base_url.clone(), tenant, email);
                Arc::new(claret.map_err(|error| SetupError(error.to_string()))?)
            }
            (Vendor::Datasaur, credentials) => {
                let client = match credentials {
                    config::Credentials::OAuthClient { client_id, client_auth, .. } => {
                        Some((client_id.clone(), *client_auth))
                    }
                    _ => None,
                };
                Arc::new(Datasaur::new(base_url.clone(), poll.max_batch, client))
            }
        };
        let mut standbys = Vec::new();
        if let Vendor::Kinetica { encoding, standby_urls } = vendor {
            for url in standby_urls {
                let adapter = Box::new(Kinetica::standby(url.clone(), *encoding));
                let http = Http::new(url, poll, adapter.names_its_job())?;
                standbys.push(Standby { adapter, http });
            }
        }
        let backoff = Backoff { min: poll.min_interval, max: poll.max_backoff };
        Ok(Self {
            vendor: vendor.clone(),
            clusters: Clusters::new(name, standbys, backoff),
            credentials: Arc::new(Credentials::new(credentials)?),
            http: Arc::new(Http::new(base_url, poll, adapter.names_its_job())?),
            adapter,
            files: download::FileClient::new(base_url, poll)?,
            rotated: Notify::new(),
        })
    }

    /// Takes another secret in place of the configured one. A request that the
    /// vendor rejects meanwhile is sent once more, with the new one.
    pub fn rotate(&self, secret: SecretString) -> Result<(), SetupError> {
        self.credentials.rotate(secret)?;
        self.rotated.notify_one();
        Ok(())
    }

    /// The vendor's translation.
    pub fn adapter(&self) -> &Arc<dyn Adapter> {
        &self.adapter
    }

    /// Asks about a job that does not exist, to see whether address and
    /// credentials work; at each cluster, where there are several. Spends `leave`.
    ///
    /// # Errors
    /// What does not work, for people.
    pub async fn probe(&self, mut leave: Leave) -> Result<(), String> {
        let uuid = uuid::Uuid::new_v4();
        let id = match self.vendor {
            Vendor::Immuta => uuid.to_string(),
            Vendor::Datasaur => format!("AutoLabelQueue:{uuid}"),
            Vendor::Kinetica { .. } => i64::MAX.to_string(),
            Vendor::Claret { .. } => i32::MAX.to_string(),
        };
        let job = [JobRef::new("probe", id)];
        let told = |fault: BackendFault| fault.to_string();
        self.try_out(&*self.adapter, &self.http, &job, &mut leave).await.map_err(told)?;
        for (at, standby) in self.clusters.iter().flat_map(Clusters::standbys).enumerate() {
            let outcome = self.try_out(&*standby.adapter, &standby.http, &job, &mut leave).await;
            outcome.map_err(|fault| format!("standby_urls[{at}]: {fault}"))?;
        }
        Ok(())
    }

    async fn try_out(
        &self,
        adapter: &dyn Adapter,
        http: &Http,
        job: &[JobRef],
        leave: &mut Leave,
    ) -> Result<(), BackendFault> {
        match self.ask_at(adapter, http, Question::about(job), leave).await??.pop() {
            None | Some(Ok(_) | Err(JobFault::NotFound | JobFault::Standby(_))) => Ok(()),
            Some(Err(JobFault::Forbidden)) => Err(FaultKind::Forbidden.into()),
            Some(Err(JobFault::Invalid { message })) => Err(FaultKind::Rejected { message }.into()),
            Some(Err(JobFault::Malformed { why })) => Err(FaultKind::Malformed { why }.into()),
        }
    }

    /// Sends a request with credentials and reads the answer. Where the vendor
    /// rejects a token that was traded for, trades for another and asks once more.
    async fn ask_at(
        &self,
        adapter: &dyn Adapter,
        http: &Http,
        Question { jobs, known, wait }: Question<'_>,
        leave: &mut Leave,
    ) -> Result<Changes, BackendFault> {
        let mut renewed = false;
        loop {
            let authorization = self.credentials.authorization(adapter, http, leave).await?;
            let mut request = adapter.held_request(jobs, wait);
            if let Some(value) = &authorization.header {
                request.headers_mut().insert(header::AUTHORIZATION, value.clone());
            }
            match adapter.interpret(jobs, known, &http.send(request, wait, leave).await?) {
                Err(BackendFault { kind: FaultKind::CredentialsRejected, .. })
                    if !renewed && self.credentials.forget(authorization.issue) =>
                {
                    renewed = true;
                }
                outcome => return Ok(self.credentials.redact(outcome, &authorization)),
            }
        }
    }
}

impl Upstream for Endpoint {
    /// Asks a standby where the first cluster can't answer. Each request spends the
    /// leave: a token's, the question's, its repeat's, another cluster's.
    fn ask<'a>(&'a self, question: Question<'a>, mut leave: Leave) -> Asked<'a> {
        Box::pin(async move {
            match &self.clusters {
                None => self.ask_at(&*self.adapter, &self.http, question, &mut leave).await,
                Some(clusters) => self.ask_around(clusters, question, leave).await,
            }
        })
    }

    fn put_right(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.rotated.notified())
    }

    fn files(&self) -> Option<&dyn Files> {
        Some(self)
    }
}

/// An HTTP client with the backend's limits.
struct Http {
    /// Keeps connections; none where an answer must not be taken for another's.
    keeping: Option<Client>,
    /// Opens a connection for each request.
    fresh: Client,
    timeout: Duration,
    max_response_bytes: usize,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").finish_non_exhaustive()
    }
}

/// What all clients of a backend have in common. The system's proxy is used,
/// except towards this machine.
fn client(base_url: &BaseUrl, poll: &config::Poll) -> ClientBuilder {
    let builder = Client::builder()
        .user_agent(USER_AGENT)
        .redirect(redirect::Policy::none())
        .connect_timeout(poll.connect_timeout);
    if base_url.is_loopback() { builder.no_proxy() } else { builder }
}

impl Http {
    /// HTTP/1.1 has nothing but their order to match answers with requests. A
    /// vendor or a proxy that sends one answer too many therefore shifts all that
    /// follow on the connection, and the client sees that only while it is idle.
    /// So a connection is kept only where each answer `names_its_job`.
    fn new(base_url: &BaseUrl, poll: &config::Poll, names_its_job: bool) -> Result<Self, SetupError> {
        let builder = || client(base_url, poll).timeout(poll.timeout).tcp_nodelay(true);
        let failed = |error| SetupError(format!("the HTTP client can't be set up: {}", reason(&error)));
        let keeping = || builder().connector_layer(MapRequestLayer::new(note_connecting)).build();
        Ok(Self {
            keeping: names_its_job.then(keeping).transpose().map_err(failed)?,
            fresh: builder().pool_max_idle_per_host(0).build().map_err(failed)?,
            timeout: poll.timeout,
            max_response_bytes: poll.max_response_bytes,
        })
    }

    /// Sends a request and reads the whole answer, decompressed, up to the limit.
    /// The vendor may hold the answer for `wait`, beside the usual time.
    async fn send(
        &self,
        request: Request<Bytes>,
        wait: Duration,
        leave: &mut Leave,
    ) -> Result<Response<Bytes>, BackendFault> {
        let mut request = reqwest::Request::try_from(request).map_err(|error| self.unavailable(&error))?;
        *request.timeout_mut() = Some(self.timeout + wait);
        if wait.is_zero() {
            // Requests that are ready together are then sent in one go: a vendor nearby is
            // woken for them all, not for each. Saves about a quarter of a poll.
            yield_now().await;
        }
        let mut answer = self.begin(request, leave).await.map_err(|error| self.unavailable(&error))?;
        let too_large = || BackendFault::from(FaultKind::TooLarge);
        let announced = answer.content_length().unwrap_or(0);
        if usize::try_from(announced).map_or(true, |announced| announced > self.max_response_bytes) {
            return Err(too_large());
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.unavailable(&error))? {
            if body.len() + chunk.len() > self.max_response_bytes {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        let mut response = Response::new(body.freeze());
        *response.status_mut() = answer.status();
        *response.headers_mut() = std::mem::take(answer.headers_mut());
        Ok(response)
    }

    /// Sends a request and reads the head of the answer. A kept connection that
    /// the vendor closes just as the request goes out says nothing about the
    /// vendor, so the request is sent once more, over a new one: others that are
    /// kept may have ended with it. The client below does so itself only where it
    /// knows of the end before it writes, and does not tell whether a part of the
    /// head had come; no request here starts or changes a job.
    async fn begin(
        &self,
        request: reqwest::Request,
        leave: &mut Leave,
    ) -> reqwest::Result<reqwest::Response> {
        leave.spend().await;
        let Some(keeping) = &self.keeping else { return self.fresh.execute(request).await };
        let again = request.try_clone();
        let once = CONNECTED.scope(Cell::new(false), async {
            let answer = keeping.execute(request).await;
            (answer, CONNECTED.with(Cell::get))
        });
        match (once.await, again) {
            ((Err(error), false), Some(again)) if was_closed(&error) => {
                leave.spend().await;
                self.fresh.execute(again).await
            }
            ((answer, _), _) => answer,
        }
    }

    fn unavailable(&self, error: &reqwest::Error) -> BackendFault {
        let why = if error.is_timeout() && error.is_connect() {
            "connecting took too long".to_owned()
        } else if error.is_timeout() {
            format!("no whole answer within {:?}", self.timeout)
        } else if error.is_connect() {
            format!("no connection: {}", reason(error))
        } else {
            format!("the connection broke: {}", reason(error))
        };
        FaultKind::Unavailable { retry_after: None, why }.into()
    }
}

/// Runs as a part of connecting, in the task of the request that needs it.
fn note_connecting<T>(destination: T) -> T {
    // Outside of a first try, nobody wants to know.
    let _ = CONNECTED.try_with(|connected| connected.set(true));
    destination
}

/// Whether the connection ended before there was an answer.
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
fn reason(error: &reqwest::Error) -> String {
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

#[cfg(test)]
mod tests;
